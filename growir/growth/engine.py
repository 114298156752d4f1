"""The growth engine: measure, choose, rewrite, train, until the budget or the policy ends it; then one final fit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import torch

from growir.data.dataset import Dataset
from growir.document import step_data
from growir.errors import RunError
from growir.graph import Graph
from growir.growth.config import Strategy
from growir.growth.contest import ERROR, Branch, Trial, branches_of, contest, run_trial, winner
from growir.growth.policies.dag.inputs import choose_inputs, start_network
from growir.growth.policies.dag.measuring import dead_units
from growir.growth.policies.dag.notes import notes_of
from growir.growth.policy import Scored
from growir.growth.session import Session
from growir.network import Network
from growir.replay import replayable, rewrites
from growir.runs.records import (
    Chosen,
    Ended,
    Event,
    Finished,
    Growth,
    InputsChosen,
    Selected,
    Started,
    Trained,
    Undone,
)
from growir.runs.words import describe

Reason = Literal["parameters", "no move", "steps", "seconds", "no gain", "criterion"]


@dataclass(slots=True)
class Progress:
    """How far a run has come: all that resuming needs besides the network and the optimizer.

    Attributes:
        step: Growths done, in this branch.
        seconds: Wall-clock time of all completed steps.
        growing: Of that, time spent on proposing, scoring and rewriting.
        ended: Why growth ended, once it has.
        branch: Which branch of a tournament is growing.
        trials: The branches before it.
        metrics: By part, as after the last training.
    """

    step: int = 0
    seconds: float = 0.0
    growing: float = 0.0
    ended: Reason | None = None
    branch: int = 0
    trials: tuple[Trial, ...] = ()
    metrics: Mapping[str, Mapping[str, float]] | None = None


@dataclass(frozen=True, slots=True)
class Observer:
    """Who is told what happens during a run.

    Attributes:
        event: Gets each event, a record of `growir.runs.records`.
        accepted: Gets the graph after each accepted growth, step 0 being the start. It starts over at 0 with each
            branch of a tournament, and at last for the one that was selected.
        checkpoint: Gets session and progress after each completed step.
        tick: Gets phase, work done and work in all; it may raise to stop the run.
        epoch: Gets phase, epochs done, epochs in all and the mean training loss of the last, after each.
    """

    event: Callable[[Event], None] = lambda event: None
    accepted: Callable[[int, Graph], None] = lambda step, graph: None
    checkpoint: Callable[[Session, Progress], None] = lambda session, progress: None
    tick: Callable[[str, int, int], None] = lambda phase, done, total: None
    epoch: Callable[[str, int, int, float], None] = lambda phase, done, total, loss: None


@dataclass(frozen=True, slots=True, eq=False)
class GrowthResult:
    """What a growth run found.

    Attributes:
        network: The found network after the final fit on all training data.
        grown: The same architecture before the final fit.
        finished: What came of the run, the last of its events.
        events: Every event, in order: records of `growir.runs.records`.
    """

    network: Network
    grown: Network
    finished: Finished
    events: list[Event] = field(repr=False)

    @property
    def summary(self) -> dict[str, Any]:
        """What summary.json of a run directory holds."""
        return self.finished.summary


class _Growth:
    """One run on its way.

    Args:
        session: The network to start or go on from.
        start: The network that every branch starts from; None for an empty one.
        data: The data.
        observer: Who is told.
        progress: Where to go on from.
        earlier: The events of a run that is resumed.
    """

    def __init__(
        self,
        session: Session,
        start: Network | None,
        data: Dataset,
        observer: Observer,
        progress: Progress,
        earlier: Sequence[Event],
    ) -> None:
        self.session = session
        self.given = start is not None
        self.data = data
        self.start = start or start_network(data, session.config)
        self.observer = observer
        self.progress: Progress = progress
        self.events = list(earlier)
        self.branches = branches_of(session.config)

    @property
    def branch(self) -> Branch:
        return self.branches[self.progress.branch]

    def tell(self, event: Event) -> None:
        self.events.append(event)
        self.observer.event(event)

    def tell_of_branch(self, event: Event) -> None:
        """Tell an event of the branch that is growing, under its name if there are several."""
        self.tell(replace(event, branch=self.branch.strategy))

    def run(self) -> GrowthResult:
        session, observer = self.session, self.observer
        self._choose_inputs()
        if not any(isinstance(event, Started) for event in self.events):
            self.tell(_started(session, self.data))
            observer.accepted(0, session.graph)
            observer.checkpoint(session, self.progress)
        while True:
            while self.progress.ended is None:
                self.progress = self._grow_once()
                observer.checkpoint(session, self.progress)
            if self.branch.strategy is None or len(self.progress.trials) == len(self.branches):
                break
            self._end_branch(self.branch.strategy)
            observer.checkpoint(session, self.progress)
        return self._finish()

    def _choose_inputs(self) -> None:
        """Where the run starts from nothing and may choose what it reads, do so first; of a resumed run, as it did."""
        data = self.session.config.data
        if self.given or len(data.shares) == 1:
            return
        chosen = next((event.variance for event in self.events if isinstance(event, InputsChosen)), None)
        if chosen is None:
            started = time.perf_counter()
            with self.session.meter.phase("choosing"):
                tried = choose_inputs(self.session, self.data)
            self.start = tried[0].network
            self.session.begin(self.start)
            seconds = time.perf_counter() - started
            self.progress = replace(self.progress, seconds=self.progress.seconds + seconds)
            self.tell(
                InputsChosen(
                    variance=tried[0].variance,
                    inputs=tried[0].inputs,
                    tried=tuple(each.record for each in tried),
                    seconds=round(seconds, 4),
                )
            )
        else:
            self.start = start_network(self.data, self.session.config, chosen)

    def _finish(self) -> GrowthResult:
        session, progress, data = self.session, self.progress, self.data
        grown = session.network()
        started = time.perf_counter()
        with session.meter.phase("final fit"):
            fitted = session.train_final()
        _refuse_divergence(session, [fitted], "the final fit", "learning_rate_final")
        network = session.network()
        seconds = progress.seconds + time.perf_counter() - started
        tested = len(data.x_test) > 0
        after = _finite(session.metrics(data.x_test, data.y_test)) if tested else None
        before = _finite(session.metrics(data.x_test, data.y_test, grown)) if tested else None
        costs = network.graph.costs()
        found = Finished(
            name=session.config.name,
            task=data.task,
            ended=progress.ended,
            reproducible=progress.ended != "seconds" and all(t.ended != "seconds" for t in progress.trials),
            test_before_fit=before,
            test_after_fit=after,
            train_loss_final=fitted,
            parameters=costs.parameters,
            macs=costs.macs,
            steps=progress.step,
            branch=winner(progress.trials).strategy if progress.trials else None,
            dead_units=dead_units(session),
            seconds=round(seconds, 3),
            seconds_growing=round(progress.growing, 3),
            phases=session.meter.to_json(),
            threads=torch.get_num_threads(),
            seed=session.config.seed,
            hash=network.graph.hash,
        )
        self.tell(found)
        return GrowthResult(network, grown, found, self.events)

    # -- one growth ---------------------------------------------------------------------------------------------------

    def _ended(self, reason: Reason, started: float) -> Progress:
        seconds = time.perf_counter() - started
        self.tell_of_branch(Ended(step=self.progress.step, reason=reason))
        progress = self.progress
        return replace(progress, seconds=progress.seconds + seconds, growing=progress.growing + seconds, ended=reason)

    def _grow_once(self) -> Progress:
        """One growth and the training after it, or the end of growth."""
        session, progress, policy = self.session, self.progress, self.branch.policy
        budget = session.config.budget
        started = time.perf_counter()
        if progress.step >= budget.steps:
            return self._ended("steps", started)
        share = (progress.branch + 1) / len(self.branches)
        if budget.seconds is not None and progress.seconds >= budget.seconds * share:
            return self._ended("seconds", started)
        step = progress.step + 1
        with session.meter.phase("growing"):
            candidates = policy.propose(session)
            scored: Sequence[Scored] = policy.score(session, candidates, step) if candidates else ()
            chosen = policy.select(session, scored) or policy.last_resort(session, scored)
        if not candidates:
            return self._ended("parameters" if policy.limited else "no move", started)
        if not chosen:
            return self._ended("no gain", started)
        (choice,) = chosen
        before, losses = progress.metrics or session.metrics_by_part(), session.selection_losses()
        take_back, costs = session.keep(), session.graph.costs()
        with session.meter.phase("growing"):
            created = session.grow(choice.step, choice.updates)
        growing = time.perf_counter() - started
        grown = _growth(session, choice, scored, step, created)
        self.tell_of_branch(
            replace(
                grown,
                policy=policy.name,
                parameters_before=costs.parameters,
                macs_before=costs.macs,
                before=_finite_parts(before),
                after=_finite_parts(session.metrics_by_part()),
                seconds=round(growing, 4),
            )
        )
        self.observer.accepted(step, session.graph)
        trained = time.perf_counter()
        with session.meter.phase("training"):
            loss = session.train_between(step, *([progress.branch] if self.branch.strategy else []))
        training = time.perf_counter() - trained
        metrics, now = session.measure_parts()
        _refuse_divergence(
            session, (loss, metrics["selection"]["loss"]), f"training after growth {step}", "learning_rate"
        )
        dead = dead_units(session)
        self.tell_of_branch(
            Trained(
                step=step,
                train_loss=loss,
                selection_loss=metrics["selection"]["loss"],
                train=_finite(metrics["train"]),
                selection=_finite(metrics["selection"]),
                dead_units=dead,
                seconds=round(training, 4),
            )
        )
        seconds, growing = progress.seconds + time.perf_counter() - started, progress.growing + growing
        reason = policy.refuses(session, choice, losses, now)
        if reason is None:
            return replace(progress, step=step, seconds=seconds, growing=growing, metrics=metrics)
        take_back()
        self.tell_of_branch(Undone(step=step, reason=reason))
        self.tell_of_branch(Ended(step=step - 1, reason=reason))
        self.observer.accepted(step - 1, session.graph)
        return replace(progress, seconds=seconds, growing=growing, ended=reason)

    # -- tournaments --------------------------------------------------------------------------------------------------

    def _end_branch(self, strategy: Strategy) -> None:
        """Fit what a branch has grown; then start the next one, or go on with the one that ended best."""
        session, progress = self.session, self.progress
        started = time.perf_counter()
        assert progress.ended is not None
        with session.meter.phase("choosing"):
            trial = run_trial(session, strategy, progress.branch, progress.step, progress.ended)
        seconds = time.perf_counter() - started
        scores = _finite(session.metrics_on(session.parts.gr))
        self.tell(replace(trial.record, selection=scores, seconds=round(seconds, 4)))
        trials = (*progress.trials, trial)
        total = progress.seconds + seconds
        if len(trials) < len(self.branches):
            session.begin(self.start)
            self.progress = Progress(seconds=total, growing=progress.growing, branch=progress.branch + 1, trials=trials)
            self.observer.accepted(0, session.graph)
            return
        best, compared = contest(trials)
        session.begin(best.network)
        why = (
            "no other is better, on the part that chooses, by more than chance would be"
            if best is trials[0]
            else "it is better than those before it, on the part that chooses, by more than chance would be"
        )
        self.tell(
            Selected(
                branch=best.strategy,
                tried=tuple(each.record for each in trials),
                compared=tuple(compared),
                significance=ERROR,
                why=why,
            )
        )
        self.observer.accepted(0, self.start.graph)
        known = len(self.start.graph.history.steps) if self.start.graph.history else 0
        history = best.network.graph.history
        if history is None or not all(map(replayable, history.steps)):
            # The network it started from has passes that are unknown here: what lies between cannot be shown again.
            self.observer.accepted(best.step, best.network.graph)
        else:
            for step, done in enumerate(rewrites(best.network.graph), 1 - known):
                if step > 0:
                    self.observer.accepted(step, done.graph)
        self.progress = replace(
            progress, step=best.step, ended=cast("Reason", best.ended), seconds=total, trials=trials
        )


def run_growth(
    session: Session,
    data: Dataset,
    observer: Observer,
    start: Network | None = None,
    progress: Progress | None = None,
    earlier: Sequence[Event] = (),
) -> GrowthResult:
    """Grow, fit and measure.

    The test set is read once, at the very end, by the network before and after the final fit.

    Args:
        session: The network to start or go on from.
        data: The data.
        observer: Who is told.
        start: The network the run started from; None for the empty one, in the session.
        progress: Where to go on from; a new run if None.
        earlier: The events of a run that is resumed.
    """
    return _Growth(session, start, data, observer, progress or Progress(), earlier).run()


def _growth(session: Session, choice: Scored, scored: Sequence[Scored], step: int, created: Sequence[str]) -> Growth:
    assert session.graph.history is not None
    costs, done = session.graph.costs(), step_data(session.graph.history.steps[-1])
    what, probation = describe([done]), choice.outcome == "on probation"
    # On probation it keeps the function: nothing was predicted, and there is nothing to measure.
    predicted, gain = (None, None) if probation else (choice.predicted, choice.gain)
    added = choice.parameters - choice.parameters_before
    return Growth(
        step=step,
        what=what,
        passes=(done,),
        created=tuple(created),
        candidates=len(scored),
        chosen=(Chosen(name=what, parameters=added, gain=predicted),),
        predicted_gain=predicted,
        measured_gain=gain,
        gain_error=choice.error,
        parameters=costs.parameters,
        macs=costs.macs,
        hash=session.graph.hash,
        notes=notes_of(choice, scored),
    )


def _refuse_divergence(session: Session, losses: Iterable[float], what: str, rate: str) -> None:
    finite = all(math.isfinite(loss) for loss in losses)
    if not finite or not all(torch.isfinite(tensor).all() for tensor in session.learned.values()):
        raise RunError(f"{what} diverged: loss or weights are NaN or infinite; lower [train] {rate}")


def _finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Metrics as JSON can hold them: test data far from all training data may leave float32's range."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def _finite_parts(parts: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float | None]]:
    return {part: _finite(metrics) for part, metrics in parts.items()}


def _started(session: Session, data: Dataset) -> Started:
    return Started(
        name=session.config.name,
        seed=session.config.seed,
        threads=torch.get_num_threads(),
        task=data.task,
        samples=len(data.x_train),
        test_samples=len(data.x_test),
        held_out=data.held_out,
        sample_shape=tuple(data.description.sample),
        outputs=data.outputs,
        hash=session.graph.hash,
        parameters=session.graph.costs().parameters,
    )
