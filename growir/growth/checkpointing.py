"""Between a run on its way and what a run directory keeps of it: nothing that going on needs is left out."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from growir import __version__
from growir.backends.torch_arrays import to_array, to_tensor
from growir.growth.contest import Trial
from growir.growth.memory import divided
from growir.growth.optimizer_state import OptimizerState
from growir.growth.phase import Position
from growir.growth.progress import Progress
from growir.growth.schedule import Entry, Log
from growir.growth.session import Session
from growir.runs.folder import Checkpoint, damaged
from growir.runs.meter import Meter
from growir.runs.records import Ended

_APART = ("policy", "found")  # of the progress, what lies in files of its own


def checkpoint_of(session: Session, progress: Progress) -> Checkpoint:
    """All that going on needs."""
    fields = {f.name: getattr(progress, f.name) for f in dataclasses.fields(progress) if f.name not in _APART}
    optimizer, (remembered, arrays) = session.optimizer_state(), divided(progress.policy or {})
    state = {
        **fields,
        "position": None if progress.position is None else dataclasses.asdict(progress.position),
        "optimizer": optimizer.rest,
        "policy": remembered,
        "trials": [_trial(trial) for trial in progress.trials],
        "log": of_log(progress.log),
        "phases": session.meter.to_json(),
        "threads": torch.get_num_threads(),
        "growir": __version__,
    }
    return Checkpoint(
        session.network(),
        {key: to_array(tensor) for key, tensor in optimizer.tensors.items()},
        state,
        policy=arrays,
        grown=progress.found,
        trials={_key(k, trial.name, trial.ended): trial.network for k, trial in enumerate(progress.trials)},
        losses={_key(k, trial.name, trial.ended): trial.losses.numpy() for k, trial in enumerate(progress.trials)},
    )


def _key(number: int, name: str | None, ended: str | None) -> str:
    """What a checkpoint calls a trial: by its branch where that has one, at its end, else by number."""
    return name if name is not None and ended is not None else f"trial-{number:03}"


def of_log(log: Log) -> list[list[Any]]:
    """A log as JSON, which `log_of` reads."""
    return [
        [entry.what, entry.epochs, dict(entry.metrics), *([list(entry.chosen)] if entry.chosen else [])]
        for entry in log.entries
    ]


def _trial(trial: Trial) -> dict[str, Any]:
    """A trial as a checkpoint holds it; network and losses lie beside."""
    return {key: value for key, value in trial.record.to_json().items() if key not in ("event", "record")}


def gone_on(last: Checkpoint, path: Path, session: Session) -> tuple[Session, Progress]:
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
    session.begin(last.network)
    tensors = {key: to_tensor(array) for key, array in last.optimizer.items()}
    # Runs from before other optimizers than AdamW kept no more than its tensors.
    rest = last.state.get("optimizer") or session.optimizer_state().rest
    session.restore_optimizer(OptimizerState(tensors, rest))
    session.meter = meter
    return session, progress


def _progress(last: Checkpoint) -> Progress:
    """What a checkpoint says of how far the run is. Raises ValueError, KeyError or TypeError."""
    state = last.state
    step, seconds, growing = operator.index(state["step"]), float(state["seconds"]), float(state["growing"])
    branch = operator.index(state.get("branch", 0))
    # A policy or a schedule has reasons of its own, but each was told when growth ended.
    told = {event.reason for event in last.events if isinstance(event, Ended)}
    if min(step, seconds, growing, branch) < 0 or not (state["ended"] is None or state["ended"] in told):
        raise ValueError(f"step {step}, {seconds} seconds, {growing} of them growing, ended by {state['ended']}")
    trials = _trials(last, told)
    done = len({trial.name for trial in trials})
    if done - branch not in (0, 1):
        raise ValueError(f"branch {branch} after trials of {done}")
    # Metrics are measured again where they are missing, as in runs from before they were kept.
    kept = cast("Mapping[str, Mapping[str, Any]]", state.get("metrics") or {})
    metrics = {part: {k: float(v) for k, v in found.items()} for part, found in kept.items()}
    steps, grown, position = _training(state)
    return Progress(
        step,
        seconds,
        growing,
        state["ended"],
        branch,
        tuple(trials),
        metrics or None,
        _log(state),
        steps,
        grown,
        position,
        last.grown,
        {**state.get("policy", {}), **last.policy},
    )


def _trials(last: Checkpoint, told: Container[str | None]) -> list[Trial]:
    """The networks that were tried, of growth that ended for reasons that were told. Raises ValueError or KeyError."""
    trials: list[Trial] = []
    for k, found in enumerate(last.state.get("trials", [])):
        name, ended = found.get("branch"), found["ended"]
        if not isinstance(name, str | None) or not (ended is None or ended in told):
            raise ValueError(f"branch {name!r}, ended by {ended!r}")
        step, epochs = (operator.index(found.get(key) or 0) for key in ("step", "epochs"))
        key = _key(k, name, ended)
        measured = torch.from_numpy(np.array(last.losses[key]))
        keep = None if found.get("keep") is None else float(found["keep"])
        trials.append(Trial(name, last.trials[key], measured, step, epochs, ended, keep))
    if len({len(trial.losses) for trial in trials}) > 1:
        raise ValueError("trials were measured on different samples")
    return trials


def _training(state: Mapping[str, Any]) -> tuple[int, int | None, Position | None]:
    """How far training is. Raises ValueError, KeyError or TypeError."""
    grown, position = state.get("grown"), state.get("position")
    steps = operator.index(state.get("steps", 0))
    found = None if position is None else Position(**cast("Mapping[str, Any]", position))
    return steps, None if grown is None else operator.index(grown), found


def _log(state: Mapping[str, Any]) -> Log:
    """What the schedule has seen. Raises ValueError, KeyError or TypeError."""
    found = state.get("log")
    if found is None:  # before schedules a run grew and trained by turns
        entries = [Entry("started"), *[Entry("growth"), Entry("trained", 1)] * operator.index(state["step"])]
        return Log((*entries, *([Entry("ended")] if state["ended"] else [])))
    return log_of(found)


def log_of(found: Sequence[Any]) -> Log:
    """The log that a checkpoint holds as JSON. Raises ValueError or TypeError if it is none."""
    return Log(
        tuple(
            Entry(str(what), operator.index(epochs), metrics, tuple(map(str, chosen[0])) if chosen else ())
            for what, epochs, metrics, *chosen in found
        )
    )
