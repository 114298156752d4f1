"""The run directory: everything a growth run leaves behind, and how it goes on after a stop.

run.toml            the resolved configuration
data.json           how rows become numbers, and the network's numbers answers
events.jsonl        what happened, one JSON object a line
growth/NNNN.json    the document after each accepted growth, 0000 the start
checkpoint/         network/, optimizer.safetensors and state.json after the last completed step; in a tournament also
                    trials/, the network of each branch that is done, and losses.safetensors, what they are judged by
network/            the found network after the final fit (after an interrupt: the last completed step's)
model.onnx          the same for ONNX Runtime
summary.json        written last: a run that has it is finished
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import operator
import os
import re
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from growir import __version__, store
from growir.data.dataset import Dataset
from growir.data.description import FILE as DATA
from growir.data.description import Description
from growir.document import dumps
from growir.errors import ExportError, GraphError, GrowirError, RunError, cut
from growir.graph import Graph
from growir.growth.config import RunConfig, Strategy, parse_run
from growir.growth.contest import Trial
from growir.growth.engine import Event, GrowthResult, Observer, Progress, Reason, run_growth
from growir.growth.meter import Meter
from growir.growth.policies.dag.inputs import start_network
from growir.growth.session import Session, resolved
from growir.network import Network
from growir.params import array_digest, param_table
from growir.shapes import shapes_of

CONFIG, EVENTS, GROWTH = "run.toml", "events.jsonl", "growth"
CHECKPOINT, OPTIMIZER, STATE = "checkpoint", "optimizer.safetensors", "state.json"
TRIALS, LOSSES = "trials", "losses.safetensors"
NETWORK, MODEL, SUMMARY = "network", "model.onnx", "summary.json"


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A run after a completed step."""

    network: Network
    optimizer: dict[str, torch.Tensor]
    progress: Progress
    meter: Meter


class RunFolder:
    """A run directory, new or resumed.

    Attributes:
        path: The folder.
        observer: Who else is told.
        given: Digest of data and first network: a run goes on only with the ones it was started with.
        events: Every event so far.
    """

    def __init__(self, path: Path, observer: Observer, given: str) -> None:
        self.path = path
        self.observer = observer
        self.given = given
        self.events: list[Event] = []

    # -- writing ------------------------------------------------------------------------------------------------------

    def create(self, config: RunConfig, description: Description) -> None:
        """Make the folder. Raises RunError if there is anything in it, or it cannot be written; nothing has changed."""
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"{self.path}: is a file, but a run needs a folder; choose another --out")
        occupied = RunError(f"{self.path}: this folder is not empty; choose another --out, or --resume the run in it")
        new = not self.path.exists()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if any(self.path.iterdir()):
                raise occupied
            (self.path / GROWTH).mkdir()
        except FileExistsError:  # another run was faster
            raise occupied from None
        except OSError as error:
            raise RunError(f"{self.path}: cannot be written: {error.strerror or error}") from None
        try:
            store.write_file(self.path / DATA, description.to_json().encode())
            store.write_file(self.path / CONFIG, config.to_toml().encode())
        except BaseException:
            (self.path / GROWTH).rmdir()
            (self.path / DATA).unlink(missing_ok=True)
            if new:
                self.path.rmdir()
            raise

    @contextmanager
    def alone(self) -> Generator[None]:
        """Keep other processes out, where the system has file locks. Raises RunError if one is at work here."""
        try:
            import fcntl
        except ImportError:
            yield
            return
        with (self.path / CONFIG).open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(f"{self.path}: another process is at work on this run; wait until it ends") from None
            except OSError:
                pass  # a file system without locks
            yield

    def event(self, event: Event) -> None:
        """Append an event and pass it on."""
        self.events.append(event)
        line = json.dumps(event, allow_nan=False, default=str) + "\n"
        try:
            with (self.path / EVENTS).open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            raise ExportError(f"{self.path / EVENTS}: cannot be written: {error.strerror or error}") from None
        self.observer.event(event)

    def accepted(self, step: int, graph: Graph) -> None:
        """Keep the document of an accepted growth, and none that followed it in another branch."""
        for stale in (self.path / GROWTH).glob("*.json"):
            if stale.stem.isdigit() and int(stale.stem) > step:
                stale.unlink()
        store.write_file(self.path / GROWTH / f"{step:04}.json", dumps(graph).encode())
        self.observer.accepted(step, graph)

    def checkpoint(self, session: Session, progress: Progress) -> None:
        """Keep all that going on needs, in one move."""
        fields = {f.name: getattr(progress, f.name) for f in dataclasses.fields(progress)}
        state = {
            **fields,
            "trials": [trial.to_json() for trial in progress.trials],
            "phases": session.meter.to_json(),
            "given": self.given,
            "events": self.events,
            "threads": torch.get_num_threads(),
            "growir": __version__,
        }
        network = session.network()
        optimizer = {key: tensor.numpy() for key, tensor in session.optimizer_tensors().items()}

        def fill(folder: Path) -> None:
            store.save_network(folder / NETWORK, network.graph, network.arrays, network.values)
            for trial in progress.trials:
                tried = trial.network
                (folder / TRIALS).mkdir(exist_ok=True)
                store.save_network(folder / TRIALS / trial.strategy, tried.graph, tried.arrays, tried.values)
            if progress.trials:
                store.write_tensors(folder / LOSSES, {t.strategy: t.losses.numpy() for t in progress.trials})
            store.write_tensors(folder / OPTIMIZER, optimizer)
            (folder / STATE).write_text(json.dumps(state) + "\n", encoding="utf-8")

        store.write_folder(self.path / CHECKPOINT, fill)
        self.observer.checkpoint(session, progress)

    def finish(self, result: GrowthResult) -> None:
        """Write what users take away; the summary last."""
        result.network.save(self.path / NETWORK)
        result.network.to_onnx(self.path / MODEL)
        store.write_file(self.path / SUMMARY, (json.dumps(result.summary, indent=1, allow_nan=False) + "\n").encode())

    def interrupted(self) -> None:
        """After a stop in mid-run: leave the last completed step's network where the final one would be."""
        checkpoint = self.path / CHECKPOINT / NETWORK
        if (self.path / SUMMARY).is_file() or not store.is_network(checkpoint):
            return  # it came after all was done, or before anything was
        with suppress(GrowirError):  # the checkpoint serves as well
            network = Network.load(checkpoint)
            network.save(self.path / NETWORK)
            network.to_onnx(self.path / MODEL)
            self.event({"event": "interrupted", "hash": network.graph.hash})

    # -- reading ------------------------------------------------------------------------------------------------------

    def finished(self) -> GrowthResult | None:
        """The result of a finished run."""
        if not (self.path / SUMMARY).is_file():
            return None
        state, summary = self._state(), _read_json(self.path / SUMMARY)
        grown, network = Network.load(self.path / CHECKPOINT / NETWORK), Network.load(self.path / NETWORK)
        return GrowthResult(network, grown, summary, [*state["events"], {"event": "finished", **summary}])

    def last(self) -> Checkpoint | None:
        """All that going on needs, as it was after the last completed step; None before the first.

        Whatever was written after it is taken back.
        """
        for pattern in (".*.new-*", f"{GROWTH}/.*.new-*", ".growir-*"):  # of a process that was killed
            for leftover in self.path.glob(pattern):
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        folder = self.path / CHECKPOINT
        store.recover(folder)
        if not folder.is_dir():
            self._rewrite_events()
            return None
        state = self._state()
        try:
            progress, threads = _progress(state, folder), operator.index(state["threads"])
            if threads < 1:
                raise ValueError(f"{threads} threads")
            phases = Meter()
            phases.restore(state.get("phases", {}))
        except (ValueError, KeyError, TypeError, AttributeError, GraphError) as error:
            raise RunError(f"{folder / STATE}: this checkpoint is damaged and cannot be resumed: {error}") from None
        try:
            network = Network.load(folder / NETWORK)
            arrays, _ = store.read_tensors(folder / OPTIMIZER)
        except GraphError as error:
            raise RunError(f"{folder}: this checkpoint is damaged and cannot be resumed: {error}") from None
        strange = [key for key, array in arrays.items() if not _slot_of(network, key, array)]
        if strange:
            text = f"{cut(strange[0])} is no optimizer state of the network beside it"
            raise RunError(f"{folder / OPTIMIZER}: this checkpoint is damaged and cannot be resumed: {text}")
        self.events = state["events"]
        self._rewrite_events()
        # Another number of threads sums in another order, and the run would no longer be the same to the bit.
        torch.set_num_threads(threads)
        optimizer = {key: torch.from_numpy(np.array(array)) for key, array in arrays.items()}
        return Checkpoint(network, optimizer, progress, phases)

    def _state(self) -> dict[str, Any]:
        path = self.path / CHECKPOINT / STATE
        store.recover(path.parent)
        state = _read_json(path)
        events = state.get("events")
        if not isinstance(events, list) or not all(isinstance(event, dict) for event in cast("list[object]", events)):
            raise RunError(f"{path}: this file is damaged: it holds no list of events")
        if state.get("given") != self.given:
            raise RunError(
                f"{self.path}: the data, or the network it started from, is not what it was; it cannot go on"
            )
        return state

    def _rewrite_events(self) -> None:
        lines = "".join(json.dumps(event) + "\n" for event in self.events)
        store.write_file(self.path / EVENTS, lines.encode())


def read_config(folder: Path) -> RunConfig:
    """The resolved configuration of a run directory. Raises RunError if this is no run."""
    import tomllib

    path = folder / CONFIG
    try:
        return parse_run(tomllib.loads(path.read_text(encoding="utf-8")), str(path))
    except OSError as error:
        raise RunError(f"{path}: there is no run to resume here: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: this is not a valid TOML run file: {error}") from None


def _read_json(path: Path) -> dict[str, Any]:
    """A file of a run that holds one JSON object. Raises RunError if it does not."""
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: this file is damaged: {error}") from None
    if not isinstance(found, dict):
        raise RunError(f"{path}: this file is damaged: it holds no JSON object")
    return cast("dict[str, Any]", found)


def _progress(state: Mapping[str, Any], folder: Path) -> Progress:
    """What a checkpoint says of how far the run is. Raises ValueError, KeyError, TypeError or GraphError."""
    step, seconds, growing = operator.index(state["step"]), float(state["seconds"]), float(state["growing"])
    branch = operator.index(state.get("branch", 0))
    if min(step, seconds, growing, branch) < 0 or state["ended"] not in (None, *get_args(Reason)):
        raise ValueError(f"step {step}, {seconds} seconds, {growing} of them growing, ended by {state['ended']}")
    trials: list[Trial] = []
    losses = store.read_tensors(folder / LOSSES)[0] if state.get("trials") else {}
    for found in state.get("trials", []):
        strategy = found["branch"]
        if strategy not in get_args(Strategy) or found["ended"] not in get_args(Reason):
            raise ValueError(f"branch {strategy!r}, ended by {found['ended']!r}")
        network = Network.load(folder / TRIALS / strategy)
        measured = torch.from_numpy(np.array(losses[strategy], np.float32))
        trials.append(Trial(strategy, network, measured, operator.index(found["step"]), found["ended"]))
    if len({len(trial.losses) for trial in trials}) > 1:
        raise ValueError("branches were measured on different samples")
    if len(trials) - branch not in (0, 1):
        raise ValueError(f"branch {branch} after {len(trials)} that are done")
    # Metrics are measured again where they are missing, as in runs from before they were kept.
    kept = cast("Mapping[str, Mapping[str, Any]]", state.get("metrics") or {})
    metrics = {part: {k: float(v) for k, v in found.items()} for part, found in kept.items()}
    return Progress(step, seconds, growing, state["ended"], branch, tuple(trials), metrics or None)


def _slot_of(network: Network, name: str, array: NDArray[Any]) -> bool:
    """Whether a tensor is optimizer state, `entry:parameter`, of one of the network's parameters."""
    entry, _, key = name.partition(":")
    parameter = network.arrays.get(key)
    fits = parameter is not None and array.shape in ((), parameter.shape) and array.dtype == np.float32
    return fits and bool(entry) and bool(np.isfinite(array).all())


def new_folder(name: str, runs: Path = Path("runs")) -> Path:
    """Make the first runs/NAME-NNN that is past all there are; nobody else gets it. Raises RunError if it cannot."""
    while True:
        numbers = [_number(p, name) for p in _runs_of(name, runs)]
        path = runs / f"{name}-{max(numbers, default=0) + 1:03}"
        try:
            path.mkdir(parents=True)
        except OSError as error:
            if isinstance(error, FileExistsError) and runs.is_dir():
                continue  # another run was faster
            raise RunError(f"{path}: cannot be made: {error.strerror or error}; choose another --out") from None
        else:
            return path


def latest_folder(name: str, runs: Path = Path("runs")) -> Path:
    """The last runs/NAME-NNN. Raises RunError if there is none."""
    found = _runs_of(name, runs)
    if not found:
        raise RunError(f"{runs}/{name}-NNN: there is no run to resume; give its folder with --out")
    return max(found, key=lambda path: _number(path, name))


def _runs_of(name: str, runs: Path) -> list[Path]:
    if not runs.is_dir():
        return []
    return [p for p in runs.iterdir() if re.fullmatch(re.escape(name) + "-[0-9]+", p.name)]


def _number(path: Path, name: str) -> int:
    return int(path.name[len(name) + 1 :])


def start_run(
    config: RunConfig,
    data: Dataset,
    start: Network | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    observer: Observer | None = None,
) -> GrowthResult:
    """Run, or go on with, a growth run; with a run directory if `out` is given.

    Raises:
        RunError: The directory cannot be used, or the run in it was started with other settings.
        KeyboardInterrupt: As it came; the directory holds the last completed step.
    """
    observer = observer or Observer()
    if resume and out is None:
        raise RunError("a run is resumed in its folder; give it as out")
    given = start
    saved = read_config(Path(out)) if resume and out is not None else None
    config = (config.going_on_from(saved) if saved else config).started_from(given is not None)
    config = resolved(config, data, start)
    start = start or start_network(data, config)
    _check_start(start, data, config)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(config.threads or threads)
        session = Session(start, data, config, observer.tick, observer.epoch)
        if out is None:
            return run_growth(session, data, observer, given)
        folder = RunFolder(Path(out), observer, _digest(start, data))
        if saved:
            _same_settings(folder, resolved(saved.going_on_from(saved), data, given), config)
        else:
            folder.create(config, data.description)
        with folder.alone():
            return _run_in(folder, session, data, given, resume=resume)
    finally:
        torch.set_num_threads(threads)


def _run_in(folder: RunFolder, session: Session, data: Dataset, start: Network | None, *, resume: bool) -> GrowthResult:
    """Go on with the run in a folder, or with the one that `session` starts."""
    progress = None
    recording = replace(folder.observer, event=folder.event, accepted=folder.accepted, checkpoint=folder.checkpoint)
    try:
        if resume:
            done = folder.finished()
            if done is not None:
                return done
            last = folder.last()
            if last is not None:
                progress = last.progress
                session = Session(last.network, data, session.config, session.tick, session.epoch)
                session.restore_optimizer(last.optimizer)
                session.meter = last.meter
        result = run_growth(session, data, recording, start, progress, folder.events)
        folder.finish(result)
    except KeyboardInterrupt:
        folder.interrupted()
        raise
    except ExportError as error:
        kept = (folder.path / CHECKPOINT).is_dir()
        hint = "; the last completed step is kept: once that is mended, --resume goes on from it" if kept else ""
        raise RunError(f"{error}{hint}") from None
    return result


def _check_start(start: Network, data: Dataset, config: RunConfig) -> None:
    """Refuse a network that the data or the budget does not fit."""
    graph = start.graph
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise RunError(
            f"a growth run takes a network of one input and one output, but {cut(graph.name)!r} has "
            f"{len(graph.inputs)} and {len(graph.outputs)}"
        )
    if all(param.buffer for param in param_table(graph).values()):
        raise RunError(f"the network {cut(graph.name)!r} has no parameter to train; put a bias before its output")
    shapes = shapes_of(graph)
    takes, gives = shapes[graph.inputs[0].name], shapes[graph.outputs[0]]
    sample = ("N", *data.x_train.shape[1:])
    if (takes.dims, takes.dtype) != (sample, "float32"):
        raise RunError(f"the network takes {takes} of {takes.dtype}, but the samples are {sample} of float32")
    if gives.dims != ("N", data.outputs):
        what = "classes" if data.task == "classification" else "targets"
        raise RunError(f"the network gives {gives}, but the data has {data.outputs} {what}: ('N', {data.outputs})")
    if start.dtype != np.float32:
        raise RunError(f"the network's weights are {start.dtype}, but growth takes float32")
    costs, budget = graph.costs(), config.budget
    for what, has, most in (("parameters", costs.parameters, budget.parameters), ("macs", costs.macs, budget.macs)):
        if most is not None and has > most:
            raise RunError(f"[budget] {what} is {most}, but the network has {has} before it grows; raise it")


def _digest(start: Network, data: Dataset) -> str:
    """What tells one run's data and first network from another's."""
    parts = [data.task, start.graph.hash, *(array_digest(array) for array in start.arrays.values())]
    parts += [array_digest(array) for array in (data.x_train, data.y_train, data.x_test, data.y_test)]
    description = data.description
    if description.features is not None or description.classes not in (None, tuple(range(data.outputs))):
        parts.append(description.to_json())  # the same numbers may mean something else
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _same_settings(folder: RunFolder, started: RunConfig, config: RunConfig) -> None:
    saved, asked = started.model_dump(mode="json"), config.model_dump(mode="json")
    if saved == asked:
        return
    differ: list[str] = []
    for key in saved:
        if isinstance(saved[key], dict):
            differ += [
                f"[{key}] {k}: {saved[key][k]}, now {asked[key][k]}"
                for k in saved[key]
                if saved[key][k] != asked[key][k]
            ]
        elif saved[key] != asked[key]:
            differ.append(f"{key}: {saved[key]}, now {asked[key]}")
    raise RunError(
        f"{folder.path}: this run was started with other settings and cannot go on with these "
        f"({'; '.join(differ[:4])}); {folder.path / CONFIG} holds its own"
    )
