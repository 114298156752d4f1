"""The run directory by itself, with no run: what it takes is what it gives, whatever happens in between."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from growir import store
from growir.data.description import Description
from growir.errors import GrowirError, RunError
from growir.network import Network, load_graph
from growir.params import BFLOAT16
from growir.runs.folder import Checkpoint, RunFolder
from growir.runs.reading import read_run
from growir.runs.records import Event, Finished, Growth, Interrupted, Other, Started, Trained

GIVEN = "of these data"
BASE = {
    "schema": "growir/1",
    "inputs": [{"name": "x", "shape": ["N", 4]}],
    "nodes": [
        {"name": "a", "op": "linear", "inputs": ["x"], "out_features": 3},
        {"name": "out", "op": "bias", "inputs": ["a"], "features": 3},
    ],
    "outputs": ["out"],
}
DESCRIPTION = Description(sample=(4,), task="regression", outputs=3)
EVENTS: list[Event] = [
    Started(name="a run", seed=0, parameters=18),
    Growth(step=1, policy="of another package", what="wider", notes={"temperature": [1, None, {"a": 0.5}]}),
    Trained(step=1, train_loss=0.5),
    Other(found={"event": "of a later version", "x": 1}),
]
Arrays = dict[str, NDArray[Any]]


def network(seed: int = 0) -> Network:
    return Network.init(load_graph(BASE), seed)


def folder(path: Path, given: str = GIVEN) -> RunFolder:
    found = RunFolder(path, given)
    if not path.exists():
        found.create('name = "a run"\n', DESCRIPTION)
        for event in EVENTS:
            found.event(event)
    return found


def optimizers() -> dict[str, tuple[Arrays, dict[str, Any]]]:
    """What optimizers of several kinds keep, as arrays and the rest."""
    weight, bias = np.full((3, 4), 0.5, np.float32), np.arange(3, dtype=np.float32)
    step = np.array(7, np.float32)
    return {
        "sgd": ({"momentum_buffer:a.weight": weight}, {"class": "SGD", "groups": [{"lr": 0.1, "nesterov": True}]}),
        "nothing yet": ({}, {"class": "SGD", "groups": []}),
        "adamw": ({"exp_avg:a.weight": weight, "exp_avg_sq:a.weight": weight, "step:a.weight": step}, {"lr": 1e-3}),
        "adafactor": ({"row_var:a.weight": bias[:, None], "col_var:a.weight": weight[:1]}, {"class": "Adafactor"}),
        "rprop": ({"prev:out.bias": bias.astype(np.float64)}, {"scalars": {"out.bias": {"step": 3}}}),
        "half": ({"m:a.weight": weight.astype(BFLOAT16), "v:a.weight": weight.astype(np.float16)}, {}),
        "counters": ({"seen:a.weight": np.arange(5), "on:a.weight": np.array([True, False])}, {"betas": [0.9, 0.999]}),
        "held": ({"inner/m:a.weight": weight, "slow:a.weight": weight, "m:#0.1": bias}, {"held": {"inner": {}}}),
    }  # fmt: skip


def checkpoint(kind: str = "adamw", seed: int = 0, **state: Any) -> Checkpoint:
    arrays, rest = optimizers()[kind]
    position = {"phase": "training", "epoch": 2, "batch": 17, "loss": 0.1 + 0.2}
    state = {"step": 1, "optimizer": rest, "position": position, "policy": {"frozen": ["a.weight"]}, **state}
    masks = {"mask of a.weight": np.array([[True, False]]), "thresholds": np.array([0.1, 1e300])}
    trials = {"widen": network(5)}
    losses = {"widen": np.array([0.25, 0.5], np.float32)}
    return Checkpoint(network(seed), arrays, state, policy=masks, trials=trials, losses=losses)


def assert_same(found: Arrays, expected: Arrays) -> None:
    assert found.keys() == expected.keys()
    for key, array in expected.items():
        assert (found[key].dtype, found[key].shape) == (array.dtype, array.shape)
        assert found[key].tobytes() == array.tobytes()


def assert_holds(path: Path, expected: Checkpoint) -> None:
    found = folder(path).last()
    assert found is not None
    for mine, theirs in (
        (found.network.arrays, expected.network.arrays),
        (found.optimizer, expected.optimizer),
        (found.policy, expected.policy),
        (found.losses, expected.losses),
        (found.trials["widen"].arrays, expected.trials["widen"].arrays),
    ):
        assert_same(dict(mine), dict(theirs))
    assert {key: found.state[key] for key in expected.state} == expected.state
    assert list(found.events) == EVENTS


@pytest.mark.parametrize("kind", optimizers())
def test_what_is_kept_comes_back_to_the_bit(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "run"
    folder(path).checkpoint(checkpoint(kind))
    assert_holds(path, checkpoint(kind))


def test_what_was_written_after_a_checkpoint_is_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "run"
    first = folder(path)
    first.checkpoint(checkpoint())
    first.event(Trained(step=2, train_loss=0.25))
    with (path / "events.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"event": "gro')
    again = folder(path)
    last = again.last()
    assert last is not None
    again.rewind(last.events)
    assert again.events == EVENTS
    found = read_run(path)
    assert (found.unreadable, len(found.growths)) == ([], 1)
    assert found.growths[0].trained == EVENTS[2]
    assert folder(tmp_path / "new").last() is None


@pytest.mark.parametrize("links", [True, False])
def test_a_branch_that_is_done_is_written_once(links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(source: str, target: str) -> None:
        raise OSError(1, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", no_link)
    path = tmp_path / "run"
    found, first = folder(path), checkpoint()
    params = path / "checkpoint" / "trials" / "widen" / "params.safetensors"
    found.checkpoint(first)
    written = params.stat().st_ino
    found.checkpoint(replace(checkpoint("sgd", seed=1), trials=first.trials))
    assert (params.stat().st_ino == written) == links
    assert_holds(path, replace(checkpoint("sgd", seed=1), trials=first.trials))
    found.checkpoint(replace(first, trials={"widen": network(6)}))  # another one of that name
    assert_holds(path, replace(first, trials={"widen": network(6)}))
    shutil.rmtree(path / "checkpoint")
    found.checkpoint(first)
    assert_holds(path, first)


# -- a full disk, and a process that is killed ------------------------------------------------------------------------


def test_on_a_full_disk_the_checkpoint_before_is_still_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run"
    found = folder(path)
    found.checkpoint(checkpoint())
    real, left = Path.write_bytes, 0

    def limited(self: Path, data: bytes) -> int:
        nonlocal left
        left -= 1
        if left < 0:
            real(self, data[: len(data) // 2])
            raise OSError(28, "No space left on device")
        return real(self, data)

    later = replace(checkpoint("sgd", seed=1), state={"position": None, "step": 2})
    failures = 0
    for files in range(20):
        left = files
        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_bytes", limited)
            try:
                found.checkpoint(later)
                break
            except GrowirError as error:
                failures += 1
                assert "No space left on device" in str(error)  # noqa: PT017
        assert_holds(path, checkpoint())
        assert {each.name for each in path.iterdir()} == {
            *("run.toml", "data.json", "events.jsonl", "growth", "checkpoint")
        }
    assert failures >= 4  # network, policy, losses, optimizer
    assert_holds(path, later)


def test_killed_between_two_moves_there_is_one_or_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    later = replace(checkpoint("sgd", seed=1), state={"step": 2})
    for stop in (1, 2, 3):
        path = tmp_path / f"run-{stop}"
        found = folder(path)
        found.checkpoint(checkpoint())
        real, moves = Path.rename, 0

        def killed(self: Path, target: Path, stop: int = stop, real: Callable[..., Path] = real) -> Path:
            nonlocal moves
            moves += self.name.startswith((".checkpoint", "checkpoint"))
            if moves >= stop:
                raise KeyboardInterrupt
            return real(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", killed)
            try:
                found.checkpoint(later)
            except KeyboardInterrupt:
                assert stop < 3
        assert_holds(path, later if stop == 3 else checkpoint())


# -- damage -----------------------------------------------------------------------------------------------------------


def tensors(name: str, change: Callable[[Arrays], object]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        arrays, _ = store.read_tensors(path / "checkpoint" / name)
        change(arrays)
        store.write_tensors(path / "checkpoint" / name, arrays)

    return damage


def state(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        file = path / "checkpoint" / "state.json"
        found = json.loads(file.read_text(encoding="utf-8"))
        change(found)
        file.write_text(json.dumps(found), encoding="utf-8")

    return damage


OPTIMIZER = "optimizer.safetensors"
DAMAGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "unknown parameter": (
        tensors(OPTIMIZER, lambda found: found.update({"m:b.weight": np.zeros(1)})),
        "optimizer.safetensors: this checkpoint is damaged and cannot be resumed: m:b.weight is no optimizer state of",
    ),
    "no entry": (
        tensors(OPTIMIZER, lambda found: found.update({"a.weight": np.zeros(1)})),
        "a.weight is no optimizer state of the network beside it",
    ),
    "not finite": (
        tensors(OPTIMIZER, lambda found: found["exp_avg:a.weight"].__setitem__((1, 2), np.nan)),
        "exp_avg:a.weight holds NaN or infinite numbers",
    ),
    "other shape": (
        tensors(OPTIMIZER, lambda found: found.update({"exp_avg:a.weight": np.zeros((3, 5), np.float32)})),
        "exp_avg:a.weight is float32 [3, 5], but float32 [3, 4] by state.json beside it",
    ),
    "other dtype": (
        tensors(OPTIMIZER, lambda found: found.update({"step:a.weight": np.array(7)})),
        "step:a.weight is int64 [], but float32 [] by state.json beside it",
    ),
    "missing": (
        tensors(OPTIMIZER, lambda found: found.pop("exp_avg_sq:a.weight")),
        "exp_avg_sq:a.weight is missing, but float32 [3, 4] by state.json beside it",
    ),
    "of the policy": (
        lambda path: (path / "checkpoint" / "policy.safetensors").unlink(),
        "policy.safetensors: this checkpoint is damaged and cannot be resumed: mask of a.weight is missing, but bool",
    ),
    "one too many": (
        tensors("policy.safetensors", lambda found: found.update({"more": np.zeros(2)})),
        "more is float64 [2], but missing by state.json beside it",
    ),
    "cut short": (
        lambda path: (path / "checkpoint" / "policy.safetensors").write_bytes(b"12345678"),
        "policy.safetensors: not a readable safetensors file",
    ),
    "nothing recorded": (state(lambda found: found.update(arrays=3)), "by state.json beside it"),
    "of an earlier version, other than AdamW": (
        state(lambda found: found.pop("arrays")),
        "col_var:a.weight is no optimizer state of the network beside it",
    ),
    "no events": (
        state(lambda found: found.update(events={})),
        "state.json: this file is damaged: it holds no list of",
    ),
    "strange events": (state(lambda found: found["events"].append(3)), "state.json: this file is damaged: it holds no"),
    "other data": (
        state(lambda found: found.update(given="others")),
        "the data, or the network it started from, is not what it was; it cannot go on",
    ),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_checkpoint_says_what_is_wrong(what: str, tmp_path: Path) -> None:
    damage, words = DAMAGED[what]
    path = tmp_path / "run"
    folder(path).checkpoint(checkpoint("adafactor" if "AdamW" in what else "adamw"))
    damage(path)
    before = {each: each.read_bytes() for each in path.rglob("*") if each.is_file()}
    with pytest.raises(RunError) as caught:
        folder(path).last()
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert {each: each.read_bytes() for each in path.rglob("*") if each.is_file()} == before


def test_a_checkpoint_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    path = tmp_path / "run"
    folder(path).checkpoint(replace(checkpoint(), policy={}))
    state(lambda found: found.pop("arrays"))(path)
    assert_holds(path, replace(checkpoint(), policy={}))


# -- the end ----------------------------------------------------------------------------------------------------------


def test_a_finished_run_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "run"
    found = folder(path)
    assert found.finished() is None
    found.checkpoint(checkpoint())
    done = Finished(name="a run", seed=0, test_after_fit={"mse": 0.5}, phases={"growing": {"joules": None}})
    found.finish(network(1), done)
    again = folder(path).finished()
    assert again is not None
    assert (again.finished, again.events) == (done, [*EVENTS, done])
    assert_same(dict(again.network.arrays), dict(network(1).arrays))
    assert_same(dict(again.grown.arrays), dict(network(0).arrays))
    assert found.interrupted() is None  # too late


def test_an_interrupted_run_leaves_the_network_of_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "run"
    found = folder(path)
    assert found.interrupted() is None  # too early
    found.checkpoint(checkpoint())
    event = found.interrupted()
    assert event == Interrupted(hash=network().graph.hash)
    assert read_run(path).state == "stopped"
    assert_same(dict(Network.load(path / "network").arrays), dict(network().arrays))
    assert (path / "model.onnx").is_file()
