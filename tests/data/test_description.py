"""What the data of a run was: written beside the run, read back, and refused where it is damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import growir
from growir.data.description import Description, Feature, read_description
from growir.errors import DataError
from growir.runs.records import Started
from tests.growth.problems import SMALL, spirals

WINE = Description(
    task="classification",
    sample=(3,),
    outputs=2,
    classes=("no", "yes"),
    features=(Feature(name="age"), Feature(name="colour", categories=("red", "white"))),
    target="bought",
)


def written(folder: Path, text: str) -> Path:
    (folder / "data.json").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "description",
    [
        WINE,
        Description(task="classification", sample=(28, 28), outputs=2, classes=(False, True)),
        Description(task="regression", sample=(4,), outputs=3),
        Description(task="classification", sample=(1,), outputs=2, classes=(1, 7)),
    ],
)
def test_what_is_written_is_read(description: Description, tmp_path: Path) -> None:
    found = read_description(written(tmp_path, description.to_json()))
    assert found == description
    assert [type(label) for label in found.classes or ()] == [type(label) for label in description.classes or ()]


def test_a_run_writes_it(tmp_path: Path) -> None:
    arrays = spirals()
    words = {key: np.array(["left", "right"])[array] if key[0] == "y" else array for key, array in arrays.items()}
    found = [
        growir.grow(None, data, **SMALL, out=tmp_path / name) for name, data in (("words", words), ("ints", arrays))
    ]
    assert read_description(tmp_path / "words").classes == ("left", "right")
    assert read_description(tmp_path / "ints").classes == (0, 1)
    assert found[0].network.graph.hash == found[1].network.graph.hash
    assert found[0].summary["test_after_fit"] == found[1].summary["test_after_fit"]


BASE: dict[str, Any] = json.loads(WINE.to_json())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": "growir-data/2"}, "schema is 'growir-data/2', but this growir reads 'growir-data/1'"),
        ({"classes": ["no"]}, "one class for each of the 2 outputs"),
        ({"classes": ["no", "no"]}, "one class for each of the 2 outputs, each its own"),
        ({"task": "regression"}, "classes stand where the task is classification"),
        ({"sample": [2]}, "the features do not make a sample of shape [2]"),
        ({"features": [{"name": "a"}, {"name": "a"}, {"name": "b"}]}, "two features have one name"),
        ({"colour": 1}, "unknown attribute 'colour'"),
        ({"outputs": 0}, "outputs is 0"),
    ],
)
def test_what_is_wrong_in_it(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_description(written(tmp_path, json.dumps(BASE | change)))
    assert str(caught.value).startswith(f"{tmp_path / 'data.json'}: ")
    assert words in str(caught.value)


@pytest.mark.parametrize(("text", "words"), [("[]", "no JSON object"), ('{"schema": ', "this file is damaged")])
def test_damaged_files(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words):
        read_description(written(tmp_path, text))


def test_no_file_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file; it says how rows become numbers"):
        read_description(tmp_path)


# -- held out ---------------------------------------------------------------------------------------------------------


def test_data_without_a_test_part_has_one_held_out() -> None:
    arrays = {key: array for key, array in spirals().items() if key.endswith("train")}
    found = growir.grow(None, arrays, **SMALL)
    (started, *_) = found.events
    assert isinstance(started, Started)
    assert (started.samples, started.test_samples, started.held_out) == (144, 36, 0.2)
    none = growir.grow(None, arrays, **SMALL, test=0)
    started = none.events[0]
    assert isinstance(started, Started)
    assert (started.samples, started.test_samples) == (180, 0)
    assert none.summary["test_before_fit"] is none.summary["test_after_fit"] is None
    with pytest.raises(DataError, match=r"x_test is a test part, but \[data\] test asks to hold out 0.3 of the train"):
        growir.grow(None, spirals(), **SMALL, test=0.3)
    few = {key: array[:10] for key, array in arrays.items()}
    with pytest.raises(DataError, match=r"of which 2 are held out to test on and 8 are left; at least 9"):
        growir.grow(None, few, **SMALL)
