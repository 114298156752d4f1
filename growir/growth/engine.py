"""The growth engine: asks a schedule what comes next and does it. It knows no policy, no layer and no file."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch

from growir.document import step_data
from growir.errors import PassRefused, RunError, cut
from growir.graph import Graph
from growir.growth.budget import Budget
from growir.growth.contest import ERROR, Branch, Trial, branches_of, contest, run_trial, winner
from growir.growth.divergence import telling
from growir.growth.given import Given
from growir.growth.loss import mean_and_error
from growir.growth.memory import checked_memory
from growir.growth.phase import Position
from growir.growth.policy import Candidate, Describes, Explains, Judges, Policy, Remembers, Score, Standing, Starts
from growir.growth.schedule import Done, Entry, Grow, Log, Schedule, Train
from growir.growth.session import Session
from growir.growth.training import Keeping, Span, steps_of, train_between, train_final
from growir.live.report import Report
from growir.network import Network
from growir.replay import replayable, rewrites
from growir.rewrite import Pass
from growir.runs import records
from growir.runs.words import describe

Event = records.Event
MOST_NOTED = 200  # candidates in the log of one growth


@dataclass(slots=True)
class Progress:
    """How far a run has come: all that resuming needs besides the network and the optimizer.

    Attributes:
        step: Growths done, in this branch.
        seconds: Wall-clock time of all completed growths.
        growing: Of that, time spent on proposing, scoring and rewriting.
        ended: Why growth ended, once it has.
        branch: Which branch of a contest is growing.
        trials: The branches before it.
        metrics: By part, as after the last training.
        log: What the schedule of this branch has seen.
        steps: Steps of the optimizer between growths.
        grown: Of these, how many were done at the last growth; None before the first.
        position: Where a phase of training stands that is not over; None between two.
        found: The network that growth came to, while the final fit is under way.
        policy: What a policy that remembers has to be given back.
    """

    step: int = 0
    seconds: float = 0.0
    growing: float = 0.0
    ended: str | None = None
    branch: int = 0
    trials: tuple[Trial, ...] = ()
    metrics: Mapping[str, Mapping[str, float]] | None = None
    log: Log = field(default_factory=lambda: Log((Entry("started"),)))
    steps: int = 0
    grown: int | None = None
    position: Position | None = None
    found: Network | None = None
    policy: Mapping[str, Any] | None = None

    def noting(self, *entries: Entry) -> Log:
        """The log with something more in it."""
        return Log((*self.log.entries, *entries))


@dataclass(frozen=True, slots=True)
class Observer:
    """Who is told what happens during a run.

    Attributes:
        event: Gets the record of each event.
        accepted: Gets the graph after each accepted growth, step 0 being the start. It starts over at 0 with each
            branch of a contest, and at last for the one that was selected.
        checkpoint: Gets session and progress after each completed growth.
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
    finished: records.Finished
    events: list[Event] = field(repr=False)

    @property
    def summary(self) -> dict[str, Any]:
        """What summary.json of a run directory holds."""
        return self.finished.summary


@dataclass(slots=True, eq=False)
class _Pending:
    """A growth that the training after it has to justify, where the policy judges.

    Attributes:
        before: How the network stood before it.
        take_back: Restores all as it was.
        log: Of the schedule, before it.
    """

    before: Standing
    take_back: Callable[[], None]
    log: Log


@dataclass(frozen=True, slots=True, eq=False)
class _Decided:
    """What a policy decided: all scores, those chosen, and the rewrite that does it."""

    scores: Sequence[Score]
    chosen: Sequence[Score]
    rewrite: Pass


class Engine:
    """One run on its way.

    Args:
        session: The network to start or go on from.
        start: The network that every branch starts from; None where the policy supplies it, in the session.
        observer: Who is told.
        progress: Where to go on from; a new run if None.
        earlier: The events of a run that is resumed.
        policies: Those that did not come by name.
        schedule: One that is given as an object; the configuration's if None.
    """

    def __init__(
        self,
        session: Session,
        observer: Observer,
        start: Network | None = None,
        progress: Progress | None = None,
        earlier: Sequence[Event] = (),
        policies: Given | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        self.session = session
        self.observer = observer
        self.given = start is not None
        self.progress: Progress = progress or Progress()
        self.events = list(earlier)
        self.branches: list[Branch] = branches_of(session.config, policies)
        self.schedule: Schedule = schedule or session.config.schedule
        self.start = start or session.network()
        if progress is not None and isinstance(self.branch.policy, Remembers):
            self.branch.policy.restored(progress.policy or {})
        self._pending: _Pending | None = None
        self._standing: Standing | None = None  # of the network as it is, where that is known

    @property
    def branch(self) -> Branch:
        return self.branches[self.progress.branch]

    def tell(self, event: Event) -> None:
        self.events.append(event)
        self.observer.event(event)

    def run(self) -> GrowthResult:
        """Grow, fit and measure. The test data is read once, at the very end."""
        session, observer = self.session, self.observer
        self._select_start()
        if not any(isinstance(event, records.Started) for event in self.events):
            self.tell(_started(session))
            observer.accepted(0, session.graph)
            self._keep(self.progress)
        while True:
            while self.progress.ended is None:
                self._next()
            if self.branch.name is None or len(self.progress.trials) == len(self.branches):
                break
            self._end_branch(self.branch.name)
            self._keep(self.progress)
        return self._finish()

    def _select_start(self) -> None:
        """Where the run starts from nothing and its policy may select what from, do so; of a resumed run, as it did."""
        policy = next((each.policy for each in self.branches if isinstance(each.policy, Starts)), None)
        if self.given or policy is None:
            return
        session = self.session
        told = next((event for event in self.events if isinstance(event, records.InputsChosen)), None)
        if told is not None:
            self.start = policy.start(session.problem, session.config, {"variance": told.variance})
            return
        if any(isinstance(event, records.Started) for event in self.events):
            self.start = policy.start(session.problem, session.config)
            return
        started = time.perf_counter()
        with session.meter.phase("choosing"):
            found = policy.select_start(session)
        if found is None:
            return
        self.start, chosen = found
        session.begin(self.start)
        seconds = time.perf_counter() - started
        self.progress = replace(self.progress, seconds=self.progress.seconds + seconds)
        self.tell(records.InputsChosen.from_json({**chosen, "seconds": round(seconds, 4)}))

    # -- what comes next ----------------------------------------------------------------------------------------------

    def _next(self) -> None:
        """One phase: training, a growth, or the end of growth."""
        phase = self.schedule.next(self.progress.log)
        if isinstance(phase, Train):
            self._train(phase)
        elif isinstance(phase, Grow):
            self.grow()
        else:
            self.end(phase.reason)

    def end(self, reason: str, started: float | None = None) -> None:
        """Growth is over, for a reason in a word or two; `started` is when it began to look for more."""
        progress = self.progress
        seconds = 0.0 if started is None else time.perf_counter() - started
        self.tell(records.Ended(branch=self.branch.name, step=progress.step, reason=reason))
        self.progress = replace(
            progress,
            seconds=progress.seconds + seconds,
            growing=progress.growing + seconds,
            ended=reason,
            log=progress.noting(Entry("ended")),
        )
        self._keep(self.progress)

    def grow(self) -> None:
        """One growth, or the end of growth where the budget or the policy has none left."""
        session, progress, policy = self.session, self.progress, self.branch.policy
        started, step = time.perf_counter(), progress.step + 1
        decided = self._decided(step)
        if isinstance(decided, str):
            self.end(decided, started)
            return
        before, costs = self._standing or session.standing(), session.graph.costs()
        take_back = session.keep() if isinstance(policy, Judges) else None
        with session.meter.phase("growing"):
            report = _applied(policy, session, decided.rewrite, progress.steps)
        growing = time.perf_counter() - started
        after = self._standing = session.standing()
        told, gains = _what(session, report.created), _gains(decided.chosen, before, after)
        self.tell(
            records.Growth(
                branch=self.branch.name,
                step=step,
                policy=policy.name,
                what=told.what,
                passes=told.passes,
                created=report.created,
                candidates=len(decided.scores),
                chosen=tuple(_chosen(score) for score in decided.chosen),
                before=_finite_parts(before.metrics),
                after=_finite_parts(after.metrics),
                predicted_gain=gains.predicted,
                measured_gain=gains.measured,
                gain_error=gains.error,
                parameters_before=costs.parameters,
                macs_before=costs.macs,
                parameters=session.graph.costs().parameters,
                macs=session.graph.costs().macs,
                hash=session.graph.hash,
                seconds=round(growing, 4),
                notes=_notes(policy, decided.scores, decided.chosen),
            )
        )
        self.observer.accepted(step, session.graph)
        if take_back is not None:
            self._pending = _Pending(before, take_back, progress.log)
        self.progress = replace(
            progress,
            step=step,
            seconds=progress.seconds + time.perf_counter() - started,
            growing=progress.growing + growing,
            log=progress.noting(Entry("growth")),
            grown=progress.steps,
        )

    def _decided(self, step: int) -> _Decided | str:
        """What grows, or why nothing does."""
        session, progress, policy = self.session, self.progress, self.branch.policy
        limits = session.config.budget
        if progress.step >= limits.steps:
            return "steps"
        share = (progress.branch + 1) / len(self.branches)
        if limits.seconds is not None and progress.seconds >= limits.seconds * share:
            return "seconds"
        budget = Budget(limits, session.graph)
        with session.meter.phase("growing"):
            candidates = _checked_candidates(policy, policy.propose(session, budget))
            if not candidates:
                return "parameters" if budget.refused else "no move"
            scores = policy.score(session, candidates, step)
            chosen = policy.select(session, scores, budget)
            if not chosen:
                return "no gain"
            return _Decided(scores, chosen, _checked_pass(policy, policy.build(session, chosen), budget))

    def _train(self, phase: Train) -> None:
        """Training between growths, and what the policy says to it."""
        session, progress, policy = self.session, self.progress, self.branch.policy
        started, step = time.perf_counter(), progress.step
        with session.meter.phase("training"):
            again, branch = len(progress.log.since_growth()), [progress.branch] if self.branch.name else []
            key = (1, step, *branch) if again == 0 else (8, step, again, *branch)
            with telling(f"training after growth {step}", _advice("learning_rate")):
                fitted = train_between(session, phase, key, self._span(), self._keeping())
        loss = fitted.loss
        training = time.perf_counter() - started
        standing = self._standing = session.standing()
        metrics = standing.metrics
        _refuse_divergence(
            session, (loss, metrics["selection"]["loss"]), f"training after growth {step}", "learning_rate"
        )
        selection = self.tell_of_training(standing, loss, training)
        seconds = progress.seconds + time.perf_counter() - started
        pending, self._pending = self._pending, None
        reason = None
        if pending is not None and isinstance(policy, Judges):
            reason = policy.refuses(session, pending.before, standing)
        if reason is None or pending is None:
            log = progress.noting(Entry("trained", fitted.epochs, selection))
            steps = progress.steps + fitted.steps
            self.progress = replace(progress, seconds=seconds, metrics=metrics, log=log, steps=steps, position=None)
            self._keep(self.progress)
            return
        pending.take_back()
        self._standing = pending.before
        self.tell(records.Undone(branch=self.branch.name, step=step, reason=reason))
        self.progress = replace(progress, seconds=seconds, step=step - 1, log=pending.log, position=None)
        self.observer.accepted(step - 1, session.graph)
        self.end(reason)

    def tell_of_training(self, standing: Standing, loss: float, seconds: float = 0.0) -> Mapping[str, float | None]:
        """Record a training that is over; returns the scores on the part that selects."""
        policy, parts = self.branch.policy, _finite_parts(standing.metrics)
        told = _described(policy, self.session)
        selection = parts["selection"]
        self.tell(
            records.Trained(
                branch=self.branch.name,
                step=self.progress.step,
                train_loss=loss,
                selection_loss=selection["loss"],
                train=parts["train"],
                selection=selection,
                dead_units=told.get("dead_units"),
                seconds=round(seconds, 4),
            )
        )
        return selection

    def _keep(self, progress: Progress) -> None:
        """Have a checkpoint written."""
        policy = self.branch.policy
        if isinstance(policy, Remembers):
            progress = replace(progress, policy=checked_memory(policy.name, policy.state()))
        self.observer.checkpoint(self.session, progress)

    def _span(self) -> Span:
        """What the rates of training between growths span: all of it, where the schedule knows how long that is."""
        planned, progress = getattr(self.schedule, "planned", None), self.progress
        total = None if planned is None else steps_of(self.session, planned)
        return Span(total, progress.steps, progress.grown)

    def _keeping(self) -> Keeping:
        """How a phase of training goes on and is kept meanwhile.

        While a growth is to be justified by the phase, the network before it would have to be kept too.
        """
        progress = self.progress

        def save(position: Position) -> None:
            self._keep(replace(progress, position=position))

        keeps = self.session.train_config.checkpoint != "phase" and self._pending is None
        return Keeping(progress.position, save if keeps else None, self.branch.policy)

    def _finish(self) -> GrowthResult:
        """The final fit, if the schedule has one, and the test."""
        session, progress = self.session, self.progress
        grown = progress.found or session.network()
        started, fitted = time.perf_counter(), None

        def save(position: Position) -> None:
            self._keep(replace(progress, position=position, found=grown))

        keeps = session.train_config.checkpoint != "phase"
        phase = self.schedule.next(progress.log)
        while isinstance(phase, Train) and not progress.log.fitted:
            with session.meter.phase("final fit"), telling("the final fit", _advice("learning_rate_final")):
                done = train_final(
                    session, phase, Keeping(progress.position, save if keeps else None, self.branch.policy)
                )
            progress.position = None
            fitted = done.loss
            _refuse_divergence(session, [fitted], "the final fit", "learning_rate_final")
            progress.log = progress.noting(Entry("fitted", done.epochs))
            phase = self.schedule.next(progress.log)
        if not isinstance(phase, Done):
            raise RunError(f"the schedule asks for {phase} after growth is over and the final fit is done")
        network = session.network()
        seconds = progress.seconds + time.perf_counter() - started
        test = session.data.test
        after = None if test is None else _finite(session.measure(test).metrics)
        before = None if test is None else _finite(session.measure(test, network=grown).metrics)
        costs, policy = network.graph.costs(), self.branch.policy
        told = _described(policy, session)
        event = records.Finished(
            branch=winner(progress.trials).name if progress.trials else None,
            name=session.config.name,
            task=session.problem.task,
            ended=progress.ended,
            reproducible=progress.ended != "seconds" and all(t.ended != "seconds" for t in progress.trials),
            test_before_fit=before,
            test_after_fit=after,
            train_loss_final=fitted,
            parameters=costs.parameters,
            macs=costs.macs,
            steps=progress.step,
            dead_units=told.get("dead_units"),
            seconds=round(seconds, 3),
            seconds_growing=round(progress.growing, 3),
            phases=session.meter.to_json(),
            threads=torch.get_num_threads(),
            seed=session.seed,
            hash=network.graph.hash,
        )
        self.tell(event)
        return GrowthResult(network, grown, event, self.events)

    # -- contests -----------------------------------------------------------------------------------------------------

    def _end_branch(self, name: str) -> None:
        """Fit what a branch has grown; then start the next one, or go on with the one that ended best."""
        session, progress = self.session, self.progress
        started = time.perf_counter()
        assert progress.ended is not None
        with session.meter.phase("choosing"):
            trial = run_trial(session, name, progress.branch, progress.step, progress.ended)
        seconds = time.perf_counter() - started
        select = session.data.select
        assert select is not None, "the data is cut"
        scores = _finite(session.measure(select).metrics)
        self.tell(replace(trial.record, selection=scores, seconds=round(seconds, 4)))
        trials = (*progress.trials, trial)
        total = progress.seconds + seconds
        if len(trials) < len(self.branches):
            session.begin(self.start)
            self._standing = None
            self.progress = Progress(seconds=total, growing=progress.growing, branch=progress.branch + 1, trials=trials)
            self.observer.accepted(0, session.graph)
            return
        best, compared = contest(trials)
        session.begin(best.network)
        why = (
            "no other is better, on the selection part, by more than chance would be"
            if best is trials[0]
            else "it is better than those before it, on the selection part, by more than chance would be"
        )
        self.tell(
            records.Selected(
                branch=best.name,
                tried=tuple(each.record for each in trials),
                compared=tuple(compared),
                significance=ERROR,
                why=why,
            )
        )
        self._show_again(best)
        self.progress = replace(progress, step=best.step, ended=best.ended, seconds=total, trials=trials)

    def _show_again(self, best: Trial) -> None:
        """The growths of the branch that goes on, for those who were shown another one's since."""
        self.observer.accepted(0, self.start.graph)
        known = len(self.start.graph.history.steps) if self.start.graph.history else 0
        history = best.network.graph.history
        if history is None or not all(map(replayable, history.steps)):
            # The network it started from has passes that are unknown here: what lies between cannot be shown again.
            self.observer.accepted(best.step, best.network.graph)
            return
        for step, done in enumerate(rewrites(best.network.graph), 1 - known):
            if step > 0:
                self.observer.accepted(step, done.graph)


# -- what a policy gives ----------------------------------------------------------------------------------------------


def _checked_candidates(policy: Policy, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
    """The candidates, if each has a name of its own. Raises RunError if not."""
    seen: set[str] = set()
    for candidate in candidates:
        if candidate.name in seen:
            raise RunError(f"policy {policy.name}: two of its candidates are called {cut(candidate.name)!r}; name each")
        seen.add(candidate.name)
    return candidates


def _checked_pass(policy: Policy, step: object, budget: Budget) -> Pass:
    """What a policy built, if it fits graph and budget. Raises RunError if not."""
    if not isinstance(step, Pass):
        raise RunError(f"policy {policy.name}: build gives {type(step).__name__}, but a pass is needed")
    try:
        over = budget.excess(step)
    except PassRefused as error:
        raise RunError(f"policy {policy.name}: what it built does not fit the network: {error}") from None
    if over > 0:
        cost, room = budget.cost(step), budget.room
        raise RunError(
            f"policy {policy.name}: what it built goes beyond the budget: it adds {cost.parameters} parameters and "
            f"{cost.macs} macs where there is room for {room.parameters} and {room.macs}; ask budget.fits before"
        )
    return step


def _applied(policy: Policy, session: Session, step: Pass, steps: int) -> Report:
    """Grow by what a policy built. Raises RunError if it moves outputs that it promises to keep."""
    try:
        return session.grow(step, steps)
    except PassRefused as error:
        raise RunError(
            f"policy {policy.name}: {cut(step.name)}, which it built, promises that the function is kept"
            f" ({step.preserves(session.graph)}), but it is not: {error}; mend the pass, or let its preserves say less"
        ) from None


def _chosen(score: Score) -> records.Chosen:
    cost = score.candidate.cost
    error = score.error if score.error is not None and math.isfinite(score.error) else None
    gain = score.gain if math.isfinite(score.gain) else None
    return records.Chosen(name=score.candidate.name, parameters=cost.parameters, macs=cost.macs, gain=gain, error=error)


class _Gains(NamedTuple):
    predicted: float | None
    measured: float | None
    error: float | None


def _gains(chosen: Sequence[Score], before: Standing, after: Standing) -> _Gains:
    """What was predicted and what was measured, of the mean loss on the part that selects."""
    if len(chosen) == 1 and chosen[0].predicted is not None:
        (choice,) = chosen
        return _Gains(choice.predicted, choice.gain, choice.error)
    predicted = sum(score.gain for score in chosen)
    if not math.isfinite(predicted):  # nobody says what it will gain: there is nothing to hold it to yet
        return _Gains(None, None, None)
    return _Gains(predicted, *mean_and_error(before.losses - after.losses))


def _described(policy: Policy, session: Session) -> Mapping[str, Any]:
    return policy.describe(session) if isinstance(policy, Describes) else dict[str, Any]()


def _notes(policy: Policy, scores: Sequence[Score], chosen: Sequence[Score]) -> Mapping[str, Any]:
    if isinstance(policy, Explains):
        return policy.explain(scores, chosen)
    best = sorted(scores, key=lambda score: -score.gain)[:MOST_NOTED]
    picked = {id(score) for score in chosen}
    return {
        "tried": [
            {**_chosen(score).to_json(), **score.notes, "outcome": "chosen" if id(score) in picked else "left"}
            for score in best
        ]
    }


# -- records ----------------------------------------------------------------------------------------------------------


class _What(NamedTuple):
    what: str
    passes: tuple[dict[str, Any], ...]


def _what(session: Session, created: Sequence[str]) -> _What:
    """What grew, in words and as documents record it."""
    graph = session.graph
    assert graph.history is not None
    passes = _passes(step_data(graph.history.steps[-1]), created)
    moved = [each for each in passes if each["pass"] != "update"]
    return _What(describe(moved or passes), passes)


def _passes(step: dict[str, Any], created: Sequence[str]) -> tuple[dict[str, Any], ...]:
    """A recorded step as the passes that it consists of; where only one of them makes nodes, it is said which."""
    if step["pass"] != "sequence":
        return (step,)
    inner = [dict(each) for each in step["passes"]]
    moved = [each for each in inner if each["pass"] != "update"]
    if len(moved) == 1:
        moved[0]["created"] = list(created)
    return tuple(inner)


def _refuse_divergence(session: Session, losses: Iterable[float], what: str, rate: str) -> None:
    finite = all(math.isfinite(loss) for loss in losses)
    if not finite or not all(torch.isfinite(tensor).all() for tensor in session.learned.values()):
        raise RunError(f"{what} diverged: loss or weights are NaN or infinite; {_advice(rate)}")


def _advice(rate: str) -> str:
    return f"clip gradients ([train] clip = 1.0), or lower [train] {rate}"


def _finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Metrics as JSON can hold them: test data far from all training data may leave float32's range."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def _finite_parts(parts: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float | None]]:
    return {part: _finite(metrics) for part, metrics in parts.items()}


def _started(session: Session) -> records.Started:
    problem, graph, test = session.problem, session.graph, session.data.test
    dataset = problem.dataset
    shape = dataset.description.sample if dataset is not None else graph.inputs[0].shape[1:]
    return records.Started(
        name=session.config.name,
        seed=session.seed,
        threads=torch.get_num_threads(),
        task=problem.task,
        samples=problem.samples,
        selection_samples=None if session.data.select is None else len(session.data.select),
        test_samples=0 if test is None else len(test),
        held_out=None if dataset is None else dataset.held_out,
        sample_shape=tuple(size for size in shape if isinstance(size, int)),
        outputs=None if dataset is None else dataset.outputs,
        hash=graph.hash,
        parameters=graph.costs().parameters,
    )
