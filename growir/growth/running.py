"""Starting a growth run, or going on with the one in a run directory."""

from __future__ import annotations

import dataclasses
import hashlib
import operator
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import torch

from growir import __version__
from growir.backends.torch_arrays import to_array, to_tensor
from growir.data.dataset import Dataset
from growir.errors import ExportError, RunError, cut
from growir.graph import Graph
from growir.growth.config import RunConfig, Strategy, parse_run
from growir.growth.contest import Trial
from growir.growth.engine import GrowthResult, Observer, Progress, Reason, run_growth
from growir.growth.policies.dag.inputs import start_network
from growir.growth.session import Session, resolved
from growir.network import Network
from growir.params import array_digest, param_table
from growir.runs.folder import CHECKPOINT, CONFIG, STATE, Checkpoint, RunFolder, damaged
from growir.runs.meter import Meter
from growir.runs.records import Event
from growir.shapes import shapes_of


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
        folder = RunFolder(Path(out), _digest(start, data))
        if saved:
            _same_settings(folder, resolved(saved.going_on_from(saved), data, given), config)
        else:
            folder.create(config.to_toml(), data.description)
        with folder.alone():
            return _run_in(folder, observer, session, data, given, resume=resume)
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True, slots=True)
class _Recorder:
    """Writes what happens into a run directory before anybody else hears of it."""

    folder: RunFolder
    observer: Observer

    def event(self, event: Event) -> None:
        self.folder.event(event)
        self.observer.event(event)

    def accepted(self, step: int, graph: Graph) -> None:
        self.folder.accepted(step, graph)
        self.observer.accepted(step, graph)

    def checkpoint(self, session: Session, progress: Progress) -> None:
        self.folder.checkpoint(_checkpoint_of(session, progress))
        self.observer.checkpoint(session, progress)


def _run_in(
    folder: RunFolder, observer: Observer, session: Session, data: Dataset, start: Network | None, *, resume: bool
) -> GrowthResult:
    """Go on with the run in a folder, or with the one that `session` starts."""
    progress = None
    recorder = _Recorder(folder, observer)
    recording = dataclasses.replace(
        observer, event=recorder.event, accepted=recorder.accepted, checkpoint=recorder.checkpoint
    )
    try:
        if resume:
            done = folder.finished()
            if done is not None:
                return GrowthResult(done.network, done.grown, done.finished, done.events)
            last = folder.last()
            if last is not None:
                session, progress = _gone_on(last, folder.path / CHECKPOINT / STATE, session, data)
            folder.rewind(last.events if last else [])
        result = run_growth(session, data, recording, start, progress, folder.events)
        folder.finish(result.network, result.finished)
    except KeyboardInterrupt:
        stopped = folder.interrupted()
        if stopped is not None:
            observer.event(stopped)
        raise
    except ExportError as error:
        hint = "; the last completed step is kept: once that is mended, --resume goes on from it"
        raise RunError(f"{error}{hint if folder.resumable else ''}") from None
    return result


def _checkpoint_of(session: Session, progress: Progress) -> Checkpoint:
    """All that going on needs."""
    fields = {f.name: getattr(progress, f.name) for f in dataclasses.fields(progress)}
    state = {
        **fields,
        "trials": [trial.record.to_json() for trial in progress.trials],
        "phases": session.meter.to_json(),
        "threads": torch.get_num_threads(),
        "growir": __version__,
    }
    return Checkpoint(
        session.network(),
        {key: to_array(tensor) for key, tensor in session.optimizer_tensors().items()},
        state,
        trials={trial.strategy: trial.network for trial in progress.trials},
        losses={trial.strategy: trial.losses.numpy() for trial in progress.trials},
    )


def _gone_on(last: Checkpoint, path: Path, session: Session, data: Dataset) -> tuple[Session, Progress]:
    """Session and progress of a checkpoint; `path` is where it says how far it is. Raises RunError if it is damaged."""
    try:
        progress, threads = _progress(last), operator.index(last.state["threads"])
        if threads < 1:
            raise ValueError(f"{threads} threads")
        meter = Meter()
        meter.restore(last.state.get("phases", {}))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path, error) from None
    # Another number of threads sums in another order, and the run would no longer be the same to the bit.
    torch.set_num_threads(threads)
    session = Session(last.network, data, session.config, session.tick, session.epoch)
    session.restore_optimizer({key: to_tensor(array) for key, array in last.optimizer.items()})
    session.meter = meter
    return session, progress


def _progress(last: Checkpoint) -> Progress:
    """What a checkpoint says of how far the run is. Raises ValueError, KeyError or TypeError."""
    state = last.state
    step, seconds, growing = operator.index(state["step"]), float(state["seconds"]), float(state["growing"])
    branch = operator.index(state.get("branch", 0))
    if min(step, seconds, growing, branch) < 0 or state["ended"] not in (None, *get_args(Reason)):
        raise ValueError(f"step {step}, {seconds} seconds, {growing} of them growing, ended by {state['ended']}")
    trials: list[Trial] = []
    for found in state.get("trials", []):
        strategy = found["branch"]
        if strategy not in get_args(Strategy) or found["ended"] not in get_args(Reason):
            raise ValueError(f"branch {strategy!r}, ended by {found['ended']!r}")
        measured = torch.from_numpy(np.array(last.losses[strategy], np.float32))
        trials.append(Trial(strategy, last.trials[strategy], measured, operator.index(found["step"]), found["ended"]))
    if len({len(trial.losses) for trial in trials}) > 1:
        raise ValueError("branches were measured on different samples")
    if len(trials) - branch not in (0, 1):
        raise ValueError(f"branch {branch} after {len(trials)} that are done")
    # Metrics are measured again where they are missing, as in runs from before they were kept.
    kept = cast("Mapping[str, Mapping[str, Any]]", state.get("metrics") or {})
    metrics = {part: {k: float(v) for k, v in found.items()} for part, found in kept.items()}
    return Progress(step, seconds, growing, state["ended"], branch, tuple(trials), metrics or None)


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
