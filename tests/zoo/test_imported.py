"""One import for all processes of a run is the same network as an import of one's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from growir.document import dumps
from growir.network import Network
from growir.testing import random_network
from tests.samples import mlp
from tests.zoo.imported import FOLDER, once


def test_a_network_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    made: list[int] = []

    def make() -> Network:
        made.append(1)
        return random_network(mlp())

    first, second = once("heads 3 of 4", make), once("heads 3 of 4", make)
    assert len(made) == 1
    assert dumps(first.graph) == dumps(second.graph)
    assert all(np.array_equal(array, second.arrays[key]) for key, array in first.arrays.items())
    once("heads 3 of 5", make)
    monkeypatch.delenv(FOLDER)
    once("heads 3 of 4", make)
    assert len(made) == 3


def test_two_processes_may_make_it_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))

    def make() -> Network:
        random_network(mlp()).save(tmp_path / "net")  # the other one is quicker
        return random_network(mlp())

    once("net", make)
    assert [path.name for path in tmp_path.iterdir()] == ["net"]
