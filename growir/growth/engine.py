"""The growth engine: measure, choose, rewrite, train, until the budget or the policy ends it; then one final fit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from growir.document import step_data
from growir.errors import RunError
from growir.graph import Graph
from growir.growth.config import RunConfig
from growir.growth.dag import Dag
from growir.growth.data import Dataset
from growir.growth.policy import Policy
from growir.growth.session import Session
from growir.network import Network

Event = dict[str, Any]
Reason = Literal["parameters", "steps", "seconds", "no gain"]


@dataclass(slots=True)
class Progress:
    """How far a run has come: all that resuming needs besides the network and the optimizer.

    Attributes:
        step: Growths done.
        seconds: Wall-clock time of all completed steps.
        growing: Of that, time spent on proposing, scoring and rewriting.
        ended: Why growth ended, once it has.
    """

    step: int = 0
    seconds: float = 0.0
    growing: float = 0.0
    ended: Reason | None = None


@dataclass(frozen=True, slots=True)
class Observer:
    """Who is told what happens during a run.

    Attributes:
        event: Gets each event, a JSON object with the key `event`.
        accepted: Gets the graph after each accepted growth, step 0 being the start.
        checkpoint: Gets session and progress after each completed step.
        tick: Gets phase, work done and work in all; it may raise to stop the run.
    """

    event: Callable[[Event], None] = lambda event: None
    accepted: Callable[[int, Graph], None] = lambda step, graph: None
    checkpoint: Callable[[Session, Progress], None] = lambda session, progress: None
    tick: Callable[[str, int, int], None] = lambda phase, done, total: None


@dataclass(frozen=True, slots=True, eq=False)
class GrowthResult:
    """What a growth run found.

    Attributes:
        network: The found network after the final fit on all training data.
        grown: The same architecture before the final fit.
        summary: What summary.json of a run directory holds.
        events: Every event, in order.
    """

    network: Network
    grown: Network
    summary: Event
    events: list[Event] = field(repr=False)


def make_policy(config: RunConfig) -> Policy:
    """The policy a configuration names."""
    return Dag(config.policy, config.budget)


def run_growth(
    session: Session,
    data: Dataset,
    observer: Observer,
    progress: Progress | None = None,
    earlier: list[Event] | None = None,
) -> GrowthResult:
    """Grow, fit and measure.

    The test set is read once, at the very end, by the network before and after the final fit.

    Args:
        session: The network to start or go on from.
        data: The data.
        observer: Who is told.
        progress: Where to go on from; a new run if None.
        earlier: The events of a run that is resumed.
    """
    events = list(earlier or [])

    def tell(event: Event) -> None:
        events.append(event)
        observer.event(event)

    progress = progress or Progress()
    policy = make_policy(session.config)
    if progress.step == 0 and not events:
        tell(_started(session, data))
        observer.accepted(0, session.graph)
        observer.checkpoint(session, progress)
    while progress.ended is None:
        progress = _grow_once(session, policy, progress, tell, observer)
        observer.checkpoint(session, progress)
    grown = session.network()
    started = time.perf_counter()
    fitted = session.train_final()
    _refuse_divergence(session, [fitted], "the final fit", "learning_rate_final")
    network = session.network()
    seconds = progress.seconds + time.perf_counter() - started
    after = session.metrics(data.x_test, data.y_test)
    before = session.metrics(data.x_test, data.y_test, grown)
    costs = network.graph.costs()
    summary: Event = {
        "name": session.config.name,
        "task": data.task,
        "ended": progress.ended,
        "reproducible": progress.ended != "seconds",
        "test_before_fit": _finite(before),
        "test_after_fit": _finite(after),
        "train_loss_final": fitted,
        "parameters": costs.parameters,
        "macs": costs.macs,
        "steps": progress.step,
        "seconds": round(seconds, 3),
        "seconds_growing": round(progress.growing, 3),
        "threads": torch.get_num_threads(),
        "seed": session.config.seed,
        "hash": network.graph.hash,
    }
    tell({"event": "finished", **summary})
    return GrowthResult(network, grown, summary, events)


def _refuse_divergence(session: Session, losses: Iterable[float], what: str, rate: str) -> None:
    finite = all(math.isfinite(loss) for loss in losses)
    if not finite or not all(torch.isfinite(tensor).all() for tensor in session.learned.values()):
        raise RunError(f"{what} diverged: loss or weights are NaN or infinite; lower [train] {rate}")


def _finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Metrics as JSON can hold them: test data far from all training data may leave float32's range."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def _started(session: Session, data: Dataset) -> Event:
    return {
        "event": "started",
        "name": session.config.name,
        "seed": session.config.seed,
        "threads": torch.get_num_threads(),
        "task": data.task,
        "samples": len(data.x_train),
        "hash": session.graph.hash,
        "parameters": session.graph.costs().parameters,
    }


def _grow_once(
    session: Session, policy: Policy, progress: Progress, tell: Callable[[Event], None], observer: Observer
) -> Progress:
    """One growth and the training after it, or the end of growth."""
    budget = session.config.budget
    started = time.perf_counter()

    def ended(reason: Reason) -> Progress:
        seconds = time.perf_counter() - started
        tell({"event": "ended", "step": progress.step, "reason": reason})
        return Progress(progress.step, progress.seconds + seconds, progress.growing + seconds, reason)

    if progress.step >= budget.steps:
        return ended("steps")
    if budget.seconds is not None and progress.seconds >= budget.seconds:
        return ended("seconds")
    step = progress.step + 1
    candidates = policy.propose(session)
    if not candidates:
        return ended("parameters")
    scored = policy.score(session, candidates, step)
    chosen = policy.select(session, scored)
    if not chosen:
        return ended("no gain")
    loss_before = chosen[0].loss + chosen[0].gain
    for choice in chosen:
        created = session.grow(choice.step, choice.updates)
        assert session.graph.history is not None
        growing = time.perf_counter() - started
        tell(
            {
                "event": "growth",
                "step": step,
                **step_data(session.graph.history.steps[-1]),
                "created": list(created),
                "candidates": len(candidates),
                "improving": len(scored),
                "predicted_gain": choice.predicted,
                "measured_gain": choice.gain,
                "amplitude": choice.amplitude,
                "loss_before": loss_before,
                "loss_after": choice.loss,
                "parameters": session.graph.costs().parameters,
                "macs": session.graph.costs().macs,
                "hash": session.graph.hash,
                "seconds": round(growing, 4),
            }
        )
    observer.accepted(step, session.graph)
    growing = time.perf_counter() - started
    loss = session.train_between(step)
    seconds = time.perf_counter() - started
    event: Event = {
        "event": "trained",
        "step": step,
        "train_loss": loss,
        "selection_loss": session.loss_on(session.parts.gr),
        "seconds": round(seconds - growing, 4),
    }
    losses = (event["train_loss"], event["selection_loss"])
    _refuse_divergence(session, losses, f"training after growth {step}", "learning_rate")
    tell(event)
    return Progress(step, progress.seconds + seconds, progress.growing + growing, None)
