"""Runs and their directories: what is left behind, how a run is stopped, damaged, resumed, and found again."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnxruntime
import pytest
import torch

import growir
from growir import store
from growir.errors import DataError, GrowirError, RunError
from growir.graph import Graph, Input, Node
from growir.growth.config import RunConfig
from growir.growth.engine import Engine
from growir.growth.observer import GrowthResult, Observer
from growir.growth.running import read_config, start_run
from growir.growth.session import Session, resolved
from growir.network import Network, load_graph
from growir.ops import Linear, Relu
from growir.runs.display import Display
from growir.runs.folder import latest_folder, new_folder
from tests.cli.command import growir as command
from tests.growth.problems import SMALL, Arrays, curve, lose_weights, small_config, small_problem, spirals

CONFIG = small_config().model_copy(update={"threads": 1})


def run(
    out: Path | None,
    config: RunConfig = CONFIG,
    arrays: Arrays | None = None,
    *,
    resume: bool = False,
    observer: Observer | None = None,
) -> GrowthResult:
    problem = small_problem(arrays or spirals(), config)
    return start_run(config, problem, out=out, resume=resume, observer=observer)


def save_ring(path: Path) -> None:
    np.savez(path, **spirals())  # type: ignore[arg-type]  # the stub takes allow_pickle for one of them


def timeless(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in event.items() if not k.startswith(("seconds", "phases"))} for event in events]


def logged(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "events.jsonl").read_text().splitlines()]


def assert_same_run(path: Path, reference: Path) -> None:
    """Documents, weights, model and events are the same to the bit, but for the seconds."""
    for name in sorted(str(p.relative_to(reference)) for p in reference.rglob("*") if p.is_file()):
        if name.endswith(("events.jsonl", "summary.json", "state.json")):
            continue
        assert (path / name).read_bytes() == (reference / name).read_bytes(), name
    assert timeless(logged(path)) == timeless(logged(reference))
    summaries = [json.loads((p / "summary.json").read_text()) for p in (path, reference)]
    assert timeless(summaries)[0] == timeless(summaries)[1]
    assert {p.name for p in path.rglob("*")} == {p.name for p in reference.rglob("*")}, "something is left over"


def assert_usable(path: Path) -> None:
    done = command("inspect", path, "--json")
    assert done.code == 0
    network = Network.load(path / "network")
    assert json.loads(done.out)["hash"] == network.graph.hash
    session = onnxruntime.InferenceSession(path / "model.onnx", providers=["CPUExecutionProvider"])
    found = session.run(None, {"x": spirals()["x_test"].astype(np.float32)})[0]
    with torch.no_grad():
        expected = network.to_torch()(torch.from_numpy(spirals()["x_test"]).float())
    assert np.allclose(found, expected, atol=1e-5)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    path = tmp_path_factory.mktemp("reference") / "run"
    run(path)
    return path


@pytest.fixture
def copy(reference: Path, tmp_path: Path) -> Path:
    """The same run as if it had been stopped after its last growth."""
    path = tmp_path / "run"
    shutil.copytree(reference, path)
    (path / "summary.json").unlink()
    return path


# -- what a run leaves behind -----------------------------------------------------------------------------------------


def test_the_run_directory(reference: Path) -> None:
    assert {p.name for p in reference.iterdir()} == {
        *("run.toml", "data.json", "events.jsonl", "growth", "checkpoint", "network", "model.onnx", "summary.json")
    }
    assert {p.name for p in (reference / "checkpoint").iterdir()} == {"network", "optimizer.safetensors", "state.json"}
    summary = json.loads((reference / "summary.json").read_text())
    steps = summary["steps"]
    assert steps == 4
    assert sorted(p.name for p in (reference / "growth").iterdir()) == [f"{k:04}.json" for k in range(steps + 1)]
    assert {"test_before_fit", "test_after_fit", "parameters", "macs", "seconds", "threads"} <= summary.keys()
    assert [e["event"] for e in logged(reference)] == [
        *["started", *["growth", "trained"] * steps, "ended", "finished"]
    ]
    assert_usable(reference)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(reference: Path, tmp_path: Path) -> None:
    run(tmp_path / "again")
    assert_same_run(tmp_path / "again", reference)
    other = run(None, CONFIG.model_copy(update={"seed": 1}))
    assert other.network.arrays["out.bias"].tolist() != Network.load(reference).arrays["out.bias"].tolist()


def test_python_does_exactly_what_the_command_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_ring(tmp_path / "ring.npz")
    (tmp_path / "small.toml").write_text(CONFIG.updated(data={"path": "ring.npz"}).to_toml())
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    done = command("grow", tmp_path / "small.toml", "--quiet")
    assert done.code == 0, done.err
    assert sorted(p.name for p in elsewhere.iterdir()) == ["runs"]
    found = growir.grow(None, tmp_path / "ring.npz", **SMALL, name="small")
    network = Network.load(elsewhere / "runs" / "small-001")
    assert network.graph.hash == found.network.graph.hash
    assert all(np.array_equal(network.arrays[key], found.network.arrays[key]) for key in network.arrays)
    # From yet another folder, it is the same run that is resumed, to its end and no further.
    monkeypatch.chdir(tmp_path)
    again = command("grow", "small.toml", "--resume", "--out", "elsewhere/runs/small-001")
    assert again.code == 0
    assert "correct" in again.out
    assert Network.load(elsewhere / "runs" / "small-001").graph.hash == network.graph.hash


@pytest.mark.parametrize("flags", [[], ["--quiet"]])
def test_data_with_all_settings_left_alone(flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_ring(tmp_path / "ring.npz")
    monkeypatch.chdir(tmp_path)
    done = command("grow", "ring.npz", *flags)
    assert (done.code, done.err) == (0, "")
    assert "correct" in done.out
    assert_usable(tmp_path / "runs" / "ring-001")


def test_threads_of_the_process_are_left_as_they_were(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        run(tmp_path / "run")
        assert torch.get_num_threads() == 2
        assert json.loads((tmp_path / "run" / "summary.json").read_text())["threads"] == 1
        with pytest.raises(RunError):
            run(tmp_path / "run")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_small_run_takes_one_thread_and_one_begun_on_two_goes_on_with_two(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    folder, config = tmp_path / "run", small_config(budget={"steps": 1})
    assert config.threads is None
    try:
        assert run(folder, config).summary["threads"] == 1
        assert read_config(folder).threads == 1
        # As a run was left by versions that took torch's choice: its file says nothing of threads, its checkpoint does.
        (folder / "summary.json").unlink()
        (folder / "run.toml").write_text(config.to_toml())
        state = json.loads((folder / "checkpoint" / "state.json").read_text())
        (folder / "checkpoint" / "state.json").write_text(json.dumps(state | {"threads": 2}))
        assert run(folder, config, resume=True).summary["threads"] == 2
    finally:
        torch.set_num_threads(before)


def test_a_large_network_to_start_from_takes_torchs_threads() -> None:
    config = RunConfig()
    problem = small_problem(spirals(), config)
    entry = Input(name="x", shape=("N", 3))

    def one_layer(width: int) -> Network:
        hidden = Node(name="hidden", op=Linear(out_features=width), inputs=("x",))
        out = Node(name="out", op=Linear(out_features=2), inputs=("hidden",))
        return Network.init(Graph(inputs=(entry,), nodes=(hidden, out), outputs=("out",)))

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        small, large = one_layer(10), one_layer(300_000)
        assert [resolved(config, problem, start).threads for start in (None, small, large)] == [1, 1, 2]
    finally:
        torch.set_num_threads(before)


def test_a_run_file_says_how_many_threads_torch_had_and_a_resumed_run_has_as_many(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    folder = tmp_path / "run"
    # More than any network could use of these samples, so that torch is to choose.
    config = small_config(budget={"parameters": 3_000_000, "steps": 1})
    torch.set_num_threads(2)
    try:
        assert run(folder, config).summary["threads"] == 2
        assert read_config(folder).threads == 2
        (folder / "summary.json").unlink()
        torch.set_num_threads(1)
        assert run(folder, config, resume=True).summary["threads"] == 2
        assert torch.get_num_threads() == 1
        refused(folder, "threads: 2, now 3", resume=True, config=config.model_copy(update={"threads": 3}))
    finally:
        torch.set_num_threads(before)


# -- the directory ----------------------------------------------------------------------------------------------------


def refused(
    out: Path, *words: str, resume: bool = False, config: RunConfig = CONFIG, arrays: Arrays | None = None
) -> None:
    """The run does not start, says why in one line, and changes nothing."""

    def contents() -> dict[Path, bytes]:
        root = out if out.is_dir() else out.parent
        return {p: p.read_bytes() if p.is_file() else b"" for p in root.rglob("*")} if root.is_dir() else {}

    before = contents()
    with pytest.raises(RunError) as caught:
        run(out, config, arrays, resume=resume)
    assert str(caught.value).count("\n") == 0
    for word in (str(out), *words):
        assert word in str(caught.value)
    assert contents() == before


def test_a_folder_with_something_in_it(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    refused(tmp_path, "not empty", "--out", "--resume")


def test_an_empty_folder_and_missing_parents_are_fine(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    run(tmp_path / "empty")
    run(tmp_path / "a" / "b" / "c")
    assert_usable(tmp_path / "a" / "b" / "c")


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    refused(tmp_path / "file", "is a file", "--out")
    refused(tmp_path / "file" / "below", "Not a directory")
    (tmp_path / "runs").write_text("precious")
    with pytest.raises(RunError, match="Not a directory; choose another --out"):
        new_folder("digits", tmp_path / "runs")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    refused(tmp_path / "run", "Permission denied")


def test_a_file_system_that_cannot_be_written() -> None:
    with pytest.raises(RunError, match="/proc/run: cannot be written: No such file"):
        run(Path("/proc/run"))


def test_two_at_once_get_two_folders(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found = pool.starmap(new_folder, [("digits", tmp_path)] * 40, chunksize=1)
    assert sorted(path.name for path in found) == [f"digits-{k:03}" for k in range(1, 41)]


def test_folders_are_numbered_past_all_there_are(tmp_path: Path) -> None:
    for name in ("a-001", "a-1007", "a-b-2000", "a-²", "a-", "b-3000", "a-x"):
        (tmp_path / name).mkdir()
    assert latest_folder("a", tmp_path).name == "a-1007"
    assert new_folder("a", tmp_path).name == "a-1008"
    with pytest.raises(RunError, match="no run to resume"):
        latest_folder("c", tmp_path)
    with pytest.raises(RunError, match="no run to resume"):
        latest_folder("c", tmp_path / "none")


def test_what_cannot_start_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_ring(Path("ring.npz"))
    Path("run.toml").write_text('data = {path = "ring.npz"}\nbudget = {parameters = 1}\n')
    done = command("grow", "run.toml")
    assert (done.code, done.out) == (2, "")
    assert "[budget] parameters is 1, but the network has 2 before it grows" in done.err
    assert not list((tmp_path / "runs").iterdir())


def test_a_run_at_work_is_not_resumed_by_another_process(tmp_path: Path) -> None:
    def resume(*_: object) -> None:
        # A second opening of the file has a lock of its own, as another process has.
        with pytest.raises(RunError, match="another process"):
            run(tmp_path / "run", resume=True)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", observer=Observer(checkpoint=resume))
    assert_usable(tmp_path / "run")


# -- stops ------------------------------------------------------------------------------------------------------------


class Stop:
    """An observer that stops the run at the nth thing it is told of one kind."""

    def __init__(self, kind: str, count: int, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.left = count
        self.error = error
        phase = kind.partition(":")[2]
        self.observer = Observer(**{kind.partition(":")[0]: lambda *args: self.told(phase, args)})

    def told(self, phase: str, args: tuple[object, ...]) -> None:
        if not phase or args[0] == phase:
            self.left -= 1
            if self.left == 0:
                raise self.error


STOPS = [
    *[("tick:scoring", count) for count in (1, 5)],
    *[("tick:training", count) for count in (1, 12)],
    *[("tick:final fit", count) for count in (1, 10)],
    *[("event", count) for count in (1, 2, 3, 9, 10, 11)],
    *[("accepted", count) for count in (1, 2)],
    *[("checkpoint", count) for count in (1, 2, 5, 6)],
]


@pytest.mark.parametrize(("kind", "count"), STOPS)
def test_an_interrupted_run_is_usable_and_ends_as_if_nothing_had_been(
    kind: str, count: int, tmp_path: Path, reference: Path
) -> None:
    path = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run(path, observer=Stop(kind, count).observer)
    if (path / "checkpoint").is_dir():  # else it was stopped before there was anything
        assert_usable(path)
        assert logged(path)[-1]["event"] == "interrupted"
    else:
        assert (kind, count) in [("event", 1), ("accepted", 1)]
    run(path, resume=True)
    assert_same_run(path, reference)


class Dead(BaseException):
    """The process dies here: nobody cleans up."""


@pytest.mark.parametrize(("kind", "count"), [("tick:scoring", 1), ("tick:training", 12), ("tick:final fit", 3)])
def test_a_run_that_died_ends_as_if_nothing_had_been(kind: str, count: int, tmp_path: Path, reference: Path) -> None:
    path = tmp_path / "run"
    with pytest.raises(Dead):
        run(path, observer=Stop(kind, count, Dead).observer)
    assert command("inspect", path).code == 0
    run(path, resume=True)
    assert_same_run(path, reference)


def test_a_run_stopped_again_and_again_ends_as_if_nothing_had_been(tmp_path: Path, reference: Path) -> None:
    path, stops = tmp_path / "run", 0
    while not (path / "summary.json").exists():
        try:
            run(path, resume=stops > 0, observer=Stop("tick:training", 9).observer)
        except KeyboardInterrupt:
            stops += 1
            if stops == 2:
                break
    # Each growth trains for eight ticks, so every try gets one growth further.
    while not (path / "summary.json").exists():
        try:
            run(path, resume=True, observer=Stop("checkpoint", 1).observer)
        except KeyboardInterrupt:
            stops += 1
        assert stops < 10
    assert stops > 3
    assert_same_run(path, reference)


def test_an_interrupt_after_the_last_file_takes_nothing_back(
    tmp_path: Path, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = store.write_file

    def late(path: Path, data: bytes) -> None:
        write(path, data)
        if path.name == "summary.json":
            raise KeyboardInterrupt

    monkeypatch.setattr(store, "write_file", late)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run")
    assert_same_run(tmp_path / "run", reference)


CHILD = """
import pathlib, signal, sys, time
from growir.cli import main
from growir.runs.display import Display

# What was started in the background inherits an interrupt that is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
place, count = sys.argv.pop(1), int(sys.argv.pop(1))

def stop_at(owner, name, wanted):
    real = getattr(owner, name)
    def told(*args, **more):
        global count
        if wanted(*args):
            count -= 1
            if count == 0:
                print("here", flush=True)
                time.sleep(60)
        return real(*args, **more)
    setattr(owner, name, told)

if place == "move":
    stop_at(pathlib.Path, "rename", lambda self, target: self.name.startswith((".checkpoint", "checkpoint")))
else:
    stop_at(Display, "tick", lambda self, phase, *_: phase == place)
main()
"""


@pytest.mark.parametrize(
    ("number", "place", "count"),
    [
        *[(signal.SIGINT, place, 3) for place in ("scoring", "training", "final fit")],
        # The third move of a checkpoint is one into a place that is empty: the old one has just been moved aside.
        *[(signal.SIGKILL, place, 3) for place in ("training", "move")],
        (signal.SIGTERM, "final fit", 3),
    ],
)
def test_a_signal_to_a_process(number: signal.Signals, place: str, count: int, tmp_path: Path, reference: Path) -> None:
    save_ring(tmp_path / "ring.npz")
    (tmp_path / "small.toml").write_text(CONFIG.updated(data={"path": "ring.npz"}).to_toml())
    arguments = ["grow", "small.toml", "--out", "run"]
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, place, str(count), *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as child:
        out = _read_until("here\n", child.stdout)
        child.send_signal(number)
        rest, err = child.communicate(timeout=60)
    if number == signal.SIGINT:
        assert child.returncode == 130
        assert err == "growir: interrupted\n"
        assert "stopped; go on with: growir grow run/run.toml --out run --resume" in rest
        assert_usable(tmp_path / "run")
    else:
        assert child.returncode == -number
    assert "ONNX model" not in out + rest
    assert command("inspect", tmp_path / "run").code == 0
    done = command("grow", tmp_path / "run" / "run.toml", "--out", tmp_path / "run", "--resume")
    assert done.code == 0, done.err
    (tmp_path / "run" / "run.toml").write_bytes((reference / "run.toml").read_bytes())  # it names its data
    assert_same_run(tmp_path / "run", reference)


def test_a_reader_who_leaves_does_not_end_the_run(tmp_path: Path) -> None:
    save_ring(tmp_path / "ring.npz")
    arguments = [sys.executable, "-m", "growir", "grow", "ring.npz", "--out", "run"]
    with subprocess.Popen(arguments, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        assert child.stderr.read() == ""
    assert child.returncode == 0
    assert_usable(tmp_path / "run")


def _read_until(wanted: str, stream: IO[str] | None) -> str:
    assert stream is not None
    lines = []
    for line in stream:
        lines.append(line)
        if line.endswith(wanted):
            return "".join(lines)
    raise AssertionError(lines)


# -- resuming ---------------------------------------------------------------------------------------------------------


def test_a_finished_run_is_not_run_again(reference: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    shutil.copytree(reference, path)
    told: list[object] = []
    found = run(path, resume=True, observer=Observer(event=told.append, tick=lambda *_: told.append(1)))
    assert not told
    assert_same_run(path, reference)
    assert timeless([event.to_json() for event in found.events]) == timeless(logged(reference))
    assert found.summary == json.loads((reference / "summary.json").read_text())
    assert found.network.graph.hash == found.grown.graph.hash == Network.load(reference).graph.hash


def test_no_run_there(tmp_path: Path) -> None:
    refused(tmp_path, "no run to resume", resume=True)
    refused(tmp_path / "none", "no run to resume", resume=True)
    (tmp_path / "file").touch()
    refused(tmp_path / "file", "no run to resume", resume=True)
    with pytest.raises(RunError, match="give it as out"):
        run(None, resume=True)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"policy": {"neurons": 5}}, "[policy] neurons: 4, now 5"),
        ({"budget": {"steps": 9}}, "[budget] steps: 4, now 9"),
        ({"train": {"weight_decay": 0.2}}, "[train] weight_decay: 0.1, now 0.2"),
    ],
)
def test_other_settings(copy: Path, section: dict[str, Any], words: str) -> None:
    config = small_config(**section).model_copy(update={"threads": 1})
    refused(copy, "other settings", words, "run.toml", resume=True, config=config)


def test_a_run_from_before_a_setting_existed_goes_on_without_it(tmp_path: Path) -> None:
    arrays = spirals()
    for key in ("x_train", "x_test"):
        arrays[key] = np.pad(arrays[key] * [1, 1, 0.01], ((0, 0), (0, 1)), mode="edge").reshape(-1, 2, 2)
    off = small_config(data={"variance": 1.0}, train={"keep_final": 1.0, "fresh": "mean"})
    off = off.model_copy(update={"threads": 1})
    run(tmp_path / "off", off, arrays)
    shutil.copytree(tmp_path / "off", tmp_path / "old")
    (tmp_path / "old" / "summary.json").unlink()
    lines = (tmp_path / "off" / "run.toml").read_text().splitlines(keepends=True)
    older = [line for line in lines if not line.startswith(("keep_final", "fresh", "variance"))]
    assert len(older) == len(lines) - 3
    (tmp_path / "old" / "run.toml").write_text("".join(older))
    run(tmp_path / "old", CONFIG, arrays, resume=True)
    shutil.copyfile(tmp_path / "off" / "run.toml", tmp_path / "old" / "run.toml")
    assert_same_run(tmp_path / "old", tmp_path / "off")
    run(tmp_path / "new", CONFIG, arrays)
    fewer = [Network.load(tmp_path / name).graph["standard"].inputs for name in ("off", "new")]
    assert fewer == [("flat",), ("varying",)]


def test_another_seed(copy: Path) -> None:
    refused(copy, "seed: 0, now 3", resume=True, config=CONFIG.model_copy(update={"seed": 3}))


def test_other_data(copy: Path) -> None:
    with pytest.raises(RunError, match="the data, or the network it started from, is not what it was"):
        run(copy, arrays=spirals(seed=1), resume=True)
    run(copy, resume=True)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _garbage(path: Path) -> None:
    path.write_bytes(b"\xff{")


def _edit(**changes: object) -> Callable[[Path], None]:
    return lambda path: _put(path, {**json.loads(path.read_text()), **changes})


def _put(path: Path, data: object) -> None:
    path.write_text(json.dumps(data))


def _rename_slot(path: Path) -> None:
    arrays, _ = store.read_tensors(path)
    store.write_tensors(path, {key.replace("out.bias", "out.bais"): array for key, array in arrays.items()})


def _reshape_slot(path: Path) -> None:
    arrays, _ = store.read_tensors(path)
    store.write_tensors(path, {key: np.zeros(7, np.float32) for key in arrays})


DAMAGE: list[tuple[str, Callable[[Path], None]]] = [
    ("run.toml", _cut),
    ("run.toml", Path.unlink),
    *[(f"checkpoint/{name}", _cut) for name in ("state.json", "optimizer.safetensors")],
    *[(f"checkpoint/{name}", Path.unlink) for name in ("state.json", "optimizer.safetensors")],
    *[(f"checkpoint/network/{name}", _cut) for name in ("graph.json", "params.safetensors", "history.safetensors")],
    *[(f"checkpoint/network/{name}", Path.unlink) for name in ("graph.json", "params.safetensors")],
    ("checkpoint/state.json", _garbage),
    ("checkpoint/state.json", lambda path: _put(path, [])),
    ("checkpoint/state.json", _edit(step="x")),
    ("checkpoint/state.json", _edit(step=-1)),
    ("checkpoint/state.json", _edit(step=1.5)),
    ("checkpoint/state.json", _edit(threads=0)),
    ("checkpoint/state.json", _edit(threads=None)),
    ("checkpoint/state.json", _edit(ended="boredom")),
    ("checkpoint/state.json", _edit(events=7)),
    ("checkpoint/state.json", _edit(events=["started"])),
    ("checkpoint/optimizer.safetensors", _rename_slot),
    ("checkpoint/optimizer.safetensors", _reshape_slot),
]


@pytest.mark.parametrize(("name", "damage"), DAMAGE)
def test_a_damaged_run(name: str, damage: Callable[[Path], None], copy: Path) -> None:
    damage(copy / name)
    refused(copy, resume=True)


@pytest.mark.parametrize("name", ["summary.json", "network/params.safetensors", "checkpoint/network/graph.json"])
def test_a_damaged_finished_run(name: str, reference: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    shutil.copytree(reference, path)
    _cut(path / name)
    with pytest.raises(GrowirError) as caught:
        run(path, resume=True)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("damage", [_cut, Path.unlink, _garbage])
def test_a_damaged_log_is_written_again(damage: Callable[[Path], None], copy: Path, reference: Path) -> None:
    damage(copy / "events.jsonl")
    run(copy, resume=True)
    assert_same_run(copy, reference)


def test_leftovers_of_a_killed_process_go(copy: Path, reference: Path) -> None:
    (copy / ".checkpoint.new-4711" / "network").mkdir(parents=True)
    (copy / "growth" / ".0002.json.new-4711").touch()
    (copy / ".growir-x8g2").mkdir()
    (copy / "checkpoint").rename(copy / ".checkpoint.old")
    run(copy, resume=True)
    assert_same_run(copy, reference)


# -- a full disk ------------------------------------------------------------------------------------------------------


class FullDisk:
    """From the nth file that is opened to be written, there is no space."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, left: int) -> None:
        self.left = left
        real = Path.open

        def limited(path: Path, mode: str = "r", *args: Any, **more: Any) -> IO[Any]:
            file = real(path, mode, *args, **more)
            if mode[0] in "wa":
                self.left -= 1
                if self.left < 0:
                    file.write("{" if mode == "a" else b"{" if "b" in mode else "{")  # as far as it went
                    file.close()
                    raise OSError(28, "No space left on device")
            return file

        monkeypatch.setattr(Path, "open", limited)


def test_wherever_the_disk_is_full_the_run_can_go_on_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config(budget={"steps": 1}, train={"epochs_final": 1}).model_copy(update={"threads": 1})
    run(tmp_path / "reference", config)
    for files in range(100):
        path = tmp_path / f"run-{files}"
        with monkeypatch.context() as patch:
            FullDisk(patch, files)
            message = _failure(path, config)
        if message is None:
            break
        assert "No space left on device" in message
        assert message.count("\n") == 0
        assert ("--resume" in message) == (path / "checkpoint").is_dir()
        assert path.exists() == (files > 1)  # data.json and run.toml come first, both or none
        run(path, config, resume=path.exists())
        assert_same_run(path, tmp_path / "reference")
    assert 15 < files < 50


def _failure(path: Path, config: RunConfig) -> str | None:
    try:
        run(path, config)
    except GrowirError as error:
        return str(error)
    return None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(path)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system may be mounted here")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_disk_that_is_really_full(small_disk: Path, reference: Path) -> None:
    with pytest.raises(GrowirError, match=r"No space left on device.*--resume"):
        run(small_disk / "run")
    subprocess.run(["mount", "-o", "remount,size=10m", str(small_disk)], check=True)
    assert command("inspect", small_disk / "run").code == 0
    run(small_disk / "run", resume=True)
    assert_same_run(small_disk / "run", reference)


# -- what training, budget and a network to start from may do ---------------------------------------------------------


@pytest.mark.parametrize("rate", ["learning_rate", "learning_rate_final"])
def test_training_that_diverges_says_which_rate_is_too_high(rate: str, tmp_path: Path) -> None:
    arrays = curve()
    config = small_config(train={"epochs_final": 1}, budget={"steps": 1})
    start = Network.init(
        Graph(
            inputs=(Input(name="x", shape=("N", 4)),),
            nodes=(Node(name="out", op=Linear(out_features=2), inputs=("x",)),),
            outputs=("out",),
        )
    )
    # AdamW hardly ever diverges; weights that are gone when training begins stand for a run that does.
    when = "training" if rate == "learning_rate" else "final fit"
    problem = small_problem(arrays, config)
    session = Session(start, problem, config, lambda phase, *_: lose_weights(session) if phase == when else None)

    with pytest.raises(RunError, match=rf"diverged.*lower \[train\] {rate}$"):
        Engine(session, Observer(), start).run()


def test_budgets(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"\[budget\] parameters is 1, but the network has 2 before it grows; raise it"):
        run(tmp_path / "run", small_config(budget={"parameters": 1}))
    assert not list(tmp_path.iterdir())
    nothing = run(tmp_path / "run", small_config(budget={"parameters": 2}))
    assert nothing.summary["steps"] == 0
    assert nothing.summary["ended"] == "parameters"
    assert nothing.summary["parameters"] == 2
    assert_usable(tmp_path / "run")
    macs = run(None, small_config(budget={"macs": 20}))
    assert 0 < macs.summary["macs"] <= 20
    short = run(None, small_config(budget={"seconds": 1e-9}))
    assert short.summary["ended"] == "seconds"
    assert not short.summary["reproducible"]
    assert short.summary["steps"] == 1


@pytest.mark.parametrize("batch", [1, 7, 59, 10_000])
def test_any_batch_size(batch: int) -> None:
    found = run(None, small_config(train={"batch_size": batch, "epochs_final": 1}))
    assert np.isfinite(found.summary["test_after_fit"]["loss"])


def layers(*nodes: Node, sample: tuple[int, ...] = (3,), outputs: tuple[str, ...] = ("out",)) -> Graph:
    return Graph(inputs=(Input(name="x", shape=("N", *sample)),), nodes=nodes, outputs=outputs)


OUT = Node(name="out", op=Linear(out_features=2), inputs=("x",))


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (layers(OUT, sample=(4,)), "takes (N, 4)"),
        (layers(Node(name="out", op=Linear(out_features=3), inputs=("x",))), "gives (N, 3)"),
        (
            layers(OUT, Node(name="b", op=Relu(), inputs=("x",)), outputs=("out", "b")),
            "has 2 outputs, but",
        ),
        (layers(Node(name="out", op=Relu(), inputs=("x",))), "no parameter to train"),
        (Network.init(layers(OUT), dtype=np.float64), "float64"),
    ],
)
def test_a_network_that_the_data_does_not_fit(start: Graph | Network, words: str) -> None:
    with pytest.raises(RunError) as caught:
        growir.grow(start, spirals(), **SMALL)
    assert words in str(caught.value)


def test_growth_goes_on_from_a_given_network(tmp_path: Path) -> None:
    start = Network.init(layers(OUT), seed=3)
    options: dict[str, Any] = {"data": spirals(), **SMALL, "out": tmp_path / "run"}
    found = growir.grow(start, **options)
    assert found.network.history is not None
    assert found.network.history.base.hash == start.graph.hash
    with pytest.raises(RunError, match="the network it started from"):
        growir.grow(Network.init(layers(OUT), seed=4), **options, resume=True)


def test_python_mistakes() -> None:
    with pytest.raises(DataError, match="no data is given"):
        growir.grow(None, "")
    with pytest.raises(DataError, match="data: y_test missing; it holds x_train"):
        growir.grow(None, {key: value for key, value in spirals().items() if key != "y_test"})
    with pytest.raises(DataError, match="data: y_test is no array of numbers"):
        growir.grow(None, {**spirals(), "y_test": [[1, 2], [3]]})
    with pytest.raises(RunError, match="policy: a name, settings, or a policy is needed"):
        growir.grow(None, spirals(), policy=3)  # type: ignore[arg-type]
    with pytest.raises(RunError, match="there is no such activation"):
        growir.grow(None, spirals(), policy={"activation": "rleu"})
    with pytest.raises(RunError, match="seed is -1"):
        growir.grow(None, spirals(), seed=-1)


def test_test_data_far_away_is_no_error(tmp_path: Path) -> None:
    arrays = curve()
    arrays["x_test"][0] = 1e29
    config = small_config()
    run(tmp_path / "run", config, arrays)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["test_after_fit"]["loss"] is None
    display = Display(tmp_path / "run", config.name, quiet=False)
    with display.console.capture() as capture:
        display.finished(run(tmp_path / "run", config, arrays, resume=True).finished)
    assert "loss beyond" in capture.get()


# -- what growth leaves behind is what it says ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The demo with three seeds, two of them without trials."""
    pytest.importorskip("sklearn")
    root = tmp_path_factory.mktemp("digits")
    for seed in range(3):
        briefly = ("--set", "trials=0") if seed else ()
        done = command("grow", "digits", "--seed", seed, "--out", root / str(seed), *briefly)
        assert done.code == 0, done.err
    return [root / str(seed) for seed in range(3)]


def digits_data() -> Arrays:
    from growir.growth.data import _digits

    return _digits()


def test_digits_are_recognised(digits: list[Path]) -> None:
    summaries = [json.loads((path / "summary.json").read_text()) for path in digits]
    assert all(summary["parameters"] <= 5000 for summary in summaries)
    assert np.mean([summary["test_after_fit"]["accuracy"] for summary in summaries]) >= 0.97
    assert len({_weights(path) for path in digits}) == 3


def _weights(path: Path) -> bytes:
    return (path / "network" / "params.safetensors").read_bytes()


def test_replaying_the_history_on_the_empty_graph_gives_the_same_graph(digits: list[Path]) -> None:
    for path in digits:
        network = Network.load(path)
        assert network.history is not None
        assert network.history.base.hash == load_graph(path / "growth" / "0000.json").hash
        assert network.replayed().graph.hash == network.graph.hash


def test_every_difference_is_the_one_the_log_tells_of(digits: list[Path], tmp_path: Path) -> None:
    kinds = set()
    settings = tmp_path / "whole.toml"
    settings.write_text('[data]\npath = "digits"\n[policy]\nstrategy = "whole"\n[budget]\nparameters = 5000\n')
    assert command("grow", settings, "--out", tmp_path / "run", "--quiet").code == 0
    for path in (*digits, tmp_path / "run"):
        events = logged(path)
        won = next((event["branch"] for event in events if event["event"] == "selected"), None)
        kept = len(list((path / "growth").iterdir())) - 1
        of_winner = [event for event in events if event["event"] == "growth" and event.get("branch") == won]
        growths = of_winner[:kept]  # later ones may have been taken back
        assert len(of_winner) >= kept
        assert growths
        for event in growths:
            step = event["step"]
            documents = [path / "growth" / f"{k:04}.json" for k in (step - 1, step)]
            done = command("diff", *documents, "--json")
            assert done.code == 1
            found = json.loads(done.out)
            kinds.add(event["passes"][-1]["pass"])
            _compare(found, event)
            assert load_graph(documents[1]).hash == event["hash"]
            assert load_graph(documents[1]).costs().parameters == event["parameters"]
    assert kinds >= {"add_edge", "add_node", "widen"}


def _compare(found: dict[str, Any], event: dict[str, Any]) -> None:
    """The difference is this one pass, the nodes it created, and where they were joined; nothing else."""
    (done,) = found["passes"]
    inside = done["passes"] if done["pass"] == "sequence" else [done]
    assert inside == [{key: told[key] for key in each} for each, told in zip(inside, event["passes"], strict=True)]
    assert done["created"] == event["created"]
    (told,) = [each for each in event["passes"] if each["pass"] != "update"]  # of the weights that were there
    assert [node["name"] for node in found["added"]] == event["created"]
    assert not found["removed"]
    assert not found["reordered"]
    assert found["inputs"] is None
    if told["pass"] == "widen":
        ((old, new),) = [change["attributes"][width] for change in found["changed"] for width in change["widths"]]
        assert new - old == told["by"]
        assert found["outputs"] is None
        return
    edge = event["created"][2 if told["pass"] == "add_node" else 0]
    sources = {node["name"]: node["inputs"] for node in found["added"]}
    assert sources[event["created"][0]] == [told["source"]]
    if len(event["created"]) in (1, 3):  # the target was a sum already, or has become one
        ((target, gained),) = [(change["name"], change["inputs"]["added"]) for change in found["changed"]]
        assert gained == [edge]
        assert target == told["target"] or found["outputs"] is None
    else:
        assert sources[event["created"][-1]] == [told["target"], edge]


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_onnx_runtime_and_torch_agree(digits: list[Path], batch: int) -> None:
    x = digits_data()["x_test"].astype(np.float32)
    for path in digits[:2]:
        session = onnxruntime.InferenceSession(path / "model.onnx", providers=["CPUExecutionProvider"])
        module = Network.load(path).to_torch().eval()
        for start in range(0, len(x), batch):
            rows = x[start : start + batch]
            found = session.run(None, {"x": rows})[0]
            with torch.no_grad():
                expected = module(torch.from_numpy(rows)).numpy()
            assert np.array_equal(found.argmax(axis=1), expected.argmax(axis=1))
            assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
