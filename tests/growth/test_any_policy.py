"""A policy written from docs/policies.md alone: in a fresh folder, on data that augments itself, killed anywhere."""

from __future__ import annotations

import importlib
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

import growir
from growir.data import Data
from growir.growth.observer import Observer
from growir.runs.records import Growth
from growir.testing import policy_law
from tests.documents.pages import page

LONGEST = 40  # lines
FILES = ("steepest.py", "regrow.py", "net.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the files of the page, from which they are imported."""
    path = tmp_path_factory.mktemp("fresh")
    for block in page("docs/policies.md").blocks:
        if block.file is not None:
            (path / block.file).write_text(block.code, encoding="utf-8")
    sys.path.insert(0, str(path))
    yield path
    sys.path.remove(str(path))
    for name in FILES:
        sys.modules.pop(name.removesuffix(".py"), None)


def module(name: str) -> ModuleType:
    return importlib.import_module(name)


@pytest.mark.parametrize("name", ["steepest.py", "regrow.py"])
def test_it_is_short_and_names_no_layer(folder: Path, name: str) -> None:
    text = (folder / name).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST
    assert not any(word in text for word in ("conv", "linear", "Conv2d", "Linear", "blocks"))


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("name", "kind"), [("steepest", "Steepest"), ("regrow", "Regrow")])
def test_it_obeys_the_law(name: str, kind: str) -> None:
    policy_law(getattr(module(name), kind))()


class Shifted(Dataset[tuple[torch.Tensor, int]]):
    """Images with a bright quarter, shifted at random by a pixel: augmentation of the data set's own."""

    def __init__(self, samples: int = 96) -> None:
        rng = np.random.default_rng(0)
        self.y = rng.integers(0, 4, samples)
        x = rng.normal(size=(samples, 1, 8, 8)).astype(np.float32)
        for k, (high, wide) in enumerate(zip(self.y // 2 * 4, self.y % 2 * 4, strict=True)):
            x[k, 0, high : high + 4, wide : wide + 4] += 1
        self.x = torch.from_numpy(x)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        shift = int(torch.randint(3, ())) - 1
        return self.x[index].roll(shift, -1), int(self.y[index])


def grown(policy: Any, data: Data, **others: Any) -> growir.GrowthResult:
    """A run under SGD with momentum and a cosine schedule."""
    return growir.grow(
        module("net").start(),
        data,
        policy=policy,
        optimizer={"name": "SGD", "learning_rate": 0.05, "momentum": 0.9},
        schedule={"name": "every", "epochs": 2, "growths": 2},
        train={"batch_size": 16, "rate": {"name": "cosine"}, "checkpoint": 3},
        budget={"parameters": 3000},
        **others,
    )


def text(result: growir.GrowthResult) -> list[dict[str, Any]]:
    clocks = ("seconds", "seconds_growing", "phases")
    return [{k: v for k, v in event.to_json().items() if k not in clocks} for event in result.events]


@pytest.mark.usefixtures("folder")
def test_it_grows_an_imported_residual_net_from_a_data_set_that_augments() -> None:
    result = grown(module("steepest").Steepest, Data.from_dataset(Shifted()))
    growths = [event for event in result.events if isinstance(event, Growth)]
    assert [event.policy for event in growths] == ["steepest", "steepest"]
    assert result.network.graph.costs().parameters > module("net").start().graph.costs().parameters


class Killed:
    """Stops a run at one of its batches or checkpoints, as a user or a machine does."""

    def __init__(self, at: int | None = None) -> None:
        self.at, self.moments = at, 0

    def observer(self) -> Observer:
        return Observer(tick=self.moment, checkpoint=self.moment)

    def moment(self, *_: object) -> None:
        self.moments += 1
        if self.moments == self.at:
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", ["Steepest", "Regrow"])
def test_killed_at_ten_random_moments_it_resumes_to_the_same_bits(name: str, tmp_path: Path) -> None:
    policy = getattr(module(name.lower()), name)
    watch = Killed()
    whole = grown(policy, Data.from_dataset(Shifted()), observer=watch.observer())
    for k, at in enumerate(random.Random(0).sample(range(1, watch.moments), 10)):
        out = tmp_path / str(k)
        with pytest.raises(KeyboardInterrupt):
            grown(policy, Data.from_dataset(Shifted()), out=out, observer=Killed(at).observer())
        on = grown(policy, Data.from_dataset(Shifted()), out=out, resume=True)
        assert text(on) == text(whole), at
        assert all(np.array_equal(array, on.network.arrays[key]) for key, array in whole.network.arrays.items()), at


@pytest.mark.slow
def test_the_command_runs_it_and_goes_on_with_it(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "run", ignore=shutil.ignore_patterns("__pycache__"))
    work = tmp_path / "run"
    data = Shifted()
    np.savez(work / "digits.npz", x_train=data.x.numpy(), y_train=data.y)
    (work / "net.py").write_text((folder / "net.py").read_text(encoding="utf-8").replace("width, 10", "width, 4"))

    def growir_(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "growir", "grow", *args, "--quiet"]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)

    done = growir_("run.toml", "--out", "out", cwd=work)
    assert done.returncode == 0, done.stderr
    # From another folder the modules beside the run file are found too.
    elsewhere = growir_(str(work / "run.toml"), "--out", str(tmp_path / "out"), cwd=tmp_path)
    assert elsewhere.returncode == 0, elsewhere.stderr
    hashes = [growir.Network.load(path / "network").graph.hash for path in (work / "out", tmp_path / "out")]
    assert hashes[0] == hashes[1]
    again = growir_("run.toml", "--out", "out", "--resume", cwd=work)
    assert again.returncode == 0, again.stderr
