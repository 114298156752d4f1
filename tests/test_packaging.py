"""pyproject.toml lists by hand what setuptools cannot discover; here the lists meet the folders."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {
    "growir": "growir",
    "growir.passes": "passes",
    "growir.backends": "backends",
    "growir.schemas": "schemas",
}


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def folders() -> Iterator[str]:
    for package, room in ROOMS.items():
        for path, names, files in os.walk(ROOT / room, followlinks=False):
            names[:] = [name for name in names if name != "__pycache__"]
            if "__init__.py" in files:
                yield ".".join([package, *Path(path).relative_to(ROOT / room).parts])


def test_every_package_is_listed(pyproject: dict[str, Any]) -> None:
    listed = pyproject["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(folders()), "packages in pyproject.toml and the folders differ"


def test_no_code_lies_in_a_folder_that_is_no_package() -> None:
    homeless = [
        str(Path(path).relative_to(ROOT))
        for room in ROOMS.values()
        for path, _, files in os.walk(ROOT / room, followlinks=False)
        if any(name.endswith(".py") for name in files) and "__init__.py" not in files
    ]
    assert not homeless, f"give {homeless} an __init__.py, or a wheel will lack them"


def test_mapping(pyproject: dict[str, Any]) -> None:
    assert pyproject["tool"]["setuptools"]["package-dir"] == ROOMS


@pytest.mark.parametrize("room", ["passes", "backends", "schemas"])
def test_symlinks_are_relative(room: str) -> None:
    link = ROOT / "growir" / room
    assert link.is_symlink()
    assert Path(os.readlink(link)) == Path("..") / room


def test_every_schema_is_shipped(pyproject: dict[str, Any]) -> None:
    patterns = pyproject["tool"]["setuptools"]["package-data"]["growir.schemas"]
    schemas = ROOT / "schemas"
    shipped = {path for pattern in patterns for path in schemas.glob(pattern)}
    assert shipped == set(schemas.rglob("*.json"))
    assert (ROOT / "growir" / "py.typed").exists()


def test_pins_are_within_the_ranges(pyproject: dict[str, Any], pins: dict[str, str]) -> None:
    project = pyproject["project"]
    extras = [text for extra in project["optional-dependencies"].values() for text in extra]
    for text in project["dependencies"] + extras:
        wanted = Requirement(text)
        if wanted.name == "growir":
            continue
        pin = pins.get(canonicalize_name(wanted.name))
        assert pin, f"constraints.txt: no pin for {wanted.name}"
        assert pin in wanted.specifier, f"constraints.txt: {wanted.name} {pin} is outside {wanted.specifier}"


def test_torch_has_one_version(pins: dict[str, str]) -> None:
    assert next(iter(pins)) == "torch", "torch is installed first"
    assert "+" not in pins["torch"], "a local version can be had from one index only"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.findall(r"torch==(\S+)", makefile) == [pins["torch"]]
