"""The growth engine: asks a schedule what comes next and does it. It knows no policy, no layer and no file."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

from growir.errors import RunError
from growir.growth import recording
from growir.growth.budget import Budget
from growir.growth.checking import applied, check_policies, checked_candidates, checked_pass
from growir.growth.contest import Branch, branches_of, run_trial
from growir.growth.divergence import Diverged, advice, refuse_divergence, telling
from growir.growth.given import Given
from growir.growth.memory import checked_memory
from growir.growth.observer import Event, GrowthResult, Observer, show_again
from growir.growth.phase import Position
from growir.growth.policy import Judges, Remembers, Score, Skips, Standing, Starts, Trims
from growir.growth.progress import Progress
from growir.growth.recording import Grown
from growir.growth.schedule import IN_VAIN, Done, Entry, Grow, Log, Schedule, Train, TrialFit
from growir.growth.session import Session
from growir.growth.sizing import compared, selected, timed
from growir.growth.training import Keeping, Span, starts_of, steps_of, train_between, train_final, trial_epochs
from growir.network import Network
from growir.rewrite import Pass
from growir.runs import records
from growir.runs.words import reasons_text


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
    """What a policy decided: all scores, those chosen, the rewrite that does it, and of trimming the reason."""

    scores: Sequence[Score]
    chosen: Sequence[Score]
    rewrite: Pass
    because: str | None = None


@dataclass(frozen=True, slots=True)
class _Nothing:
    """Nothing grows, for a reason in a word or two, of which more may be known."""

    reason: str
    why: str | None = None


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
        check_policies(session, self.branches)
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
            self.tell(recording.of_start(session))
            observer.accepted(0, session.graph)
            self._keep(self.progress)
        while True:
            while self.progress.ended is None:
                self._next()
            if self._settled:
                break
            self._end_branch()
            self._keep(self.progress)
        self._find_length()
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
        elif self.trim():
            pass  # of a smaller network something else may come next
        elif isinstance(phase, Grow):
            self.grow()
        elif isinstance(phase, TrialFit):
            self._try(phase.epochs)
            if self._pending is None:  # else the network before it would have to be kept too
                self._keep(self.progress)
        else:
            self.end(phase.reason)

    def end(self, reason: str, started: float | None = None, why: str | None = None) -> None:
        """Growth is over, for a reason in a word or two; `started` is when it began to look for more."""
        progress = self.progress
        seconds = 0.0 if started is None else time.perf_counter() - started
        self.tell(records.Ended(branch=self.branch.name, step=progress.step, reason=reason, why=why))
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
        if isinstance(decided, _Nothing):
            self.end(decided.reason, started, decided.why)
            return
        before = self._stands()
        take_back = session.keep() if isinstance(policy, Judges) else None
        self._carry_out(decided, "growth", started)
        if take_back is not None:
            self._pending = _Pending(before, take_back, progress.log)
        self.progress = replace(self.progress, grown=progress.steps)

    def trim(self) -> bool:
        """Have the policy take away what the network does as well without, once after each growth that was trained.

        Returns whether it has looked for that.
        """
        session, progress, policy = self.session, self.progress, self.branch.policy
        if not isinstance(policy, Trims) or not progress.log.untrimmed:
            return False
        started, budget = time.perf_counter(), Budget(session.config.budget, session.graph)
        session.log = progress.log
        with session.meter.phase("growing"):
            found = policy.trim(session, budget)
        if found is None:
            return False
        if found.step is not None:
            rewrite = checked_pass(policy, found.step, budget)
            decided = _Decided(found.scores, found.chosen, rewrite, found.because)
            self._carry_out(decided, "trimmed", started)
            self._keep(self.progress)
            return True
        seconds = time.perf_counter() - started
        self.progress = replace(
            progress,
            seconds=progress.seconds + seconds,
            growing=progress.growing + seconds,
            log=progress.noting(Entry("trimmed")),
        )
        return True

    def _carry_out(self, decided: _Decided, what: str, started: float) -> None:
        """Rewrite the network and tell of it; `what` is what the schedule calls it, `started` when it began."""
        session, progress, policy, step = self.session, self.progress, self.branch.policy, self.progress.step + 1
        before, costs = self._stands(), session.graph.costs()
        with session.meter.phase("growing"):
            report = applied(policy, session, decided.rewrite, progress.steps)
            self._standing = None
            told = self._recalibrate(step, "after")
        growing = time.perf_counter() - started
        after = self._stands()
        trims, because = what == "trimmed", decided.because
        grown = Grown(decided.scores, decided.chosen, report.created, before, after, costs, growing, trims, because)
        self.tell(recording.of_growth(session, policy, self.branch.name, step, grown))
        if told is not None:
            self.tell(told)
        self.observer.accepted(step, session.graph)
        self.progress = replace(
            progress,
            step=step,
            seconds=progress.seconds + time.perf_counter() - started,
            growing=progress.growing + growing,
            log=progress.noting(
                Entry(
                    what,
                    metrics={"parameters": float(session.graph.costs().parameters)},
                    chosen=tuple(score.candidate.name for score in decided.chosen),
                )
            ),
        )

    def _decided(self, step: int) -> _Decided | _Nothing:
        """What grows, or why nothing does."""
        session, progress, policy = self.session, self.progress, self.branch.policy
        limits = session.config.budget
        if progress.log.growths >= limits.steps:
            return _Nothing("steps")
        if progress.log.in_vain >= IN_VAIN and not session.config.policy.ends_growth:
            return _Nothing("no larger")
        share = (progress.branch + 1) / len(self.branches)
        if limits.seconds is not None and progress.seconds >= limits.seconds * share:
            return _Nothing("seconds")
        budget = Budget(limits, session.graph)
        session.log = progress.log
        with session.meter.phase("growing"):
            told = self._recalibrate(step, "before")
            if told is not None:
                self.tell(told)
            candidates = checked_candidates(policy, policy.propose(session, budget))
            skipped = self._skipped(step)
            if not candidates:
                if budget.refused:
                    return _Nothing("parameters", budget.lacking)
                return _Nothing("no move", reasons_text(skipped) or None)
            scores = policy.score(session, candidates, step)
            chosen = policy.select(session, scores, budget)
            if not chosen:
                return _Nothing("no gain")
            return _Decided(scores, chosen, checked_pass(policy, policy.build(session, chosen), budget))

    def _skipped(self, step: int) -> Mapping[str, str]:
        """Where the policy finds nothing to choose, and why; told where nobody has told it yet."""
        policy, branch = self.branch.policy, self.branch.name
        found = policy.skipped(self.session) if isinstance(policy, Skips) else dict[str, str]()
        told = [event for event in self.events if isinstance(event, records.Skipped) and event.branch == branch]
        known = {name for event in told for name in event.spaces}
        new = {name: why for name, why in found.items() if name not in known}
        if new:
            self.tell(records.Skipped(branch=branch, step=step, policy=policy.name, spaces=new))
        return found

    def _stands(self) -> Standing:
        """How the network stands, measured where nobody knows yet."""
        if self._standing is None:
            self._standing = self.session.standing()
        return self._standing

    def _recalibrate(self, step: int, when: Literal["before", "after"]) -> records.Recalibrated | None:
        """Take statistics of norms anew, and the standing with them; None where there are none."""
        batches = self.session.recalibrate(int(when == "after"), step, self.progress.branch)
        if not batches:
            return None
        self._standing = None
        loss = recording.finite(self._stands().metrics["selection"])["loss"]
        return records.Recalibrated(branch=self.branch.name, step=step, when=when, batches=batches, selection_loss=loss)

    def _train(self, phase: Train) -> None:
        """Training between growths, and what the policy says to it."""
        session, progress, policy = self.session, self.progress, self.branch.policy
        started, step = time.perf_counter(), progress.step
        with session.meter.phase("training"):
            again, branch = len(progress.log.since_growth()), [progress.branch] if self.branch.name else []
            key = (1, step, *branch) if again == 0 else (8, step, again, *branch)
            with telling(f"training after growth {step}", advice("learning_rate")):
                fitted = train_between(session, phase, key, self._span(), self._keeping())
        loss = fitted.loss
        training = time.perf_counter() - started
        standing = self._standing = session.standing()
        metrics = standing.metrics
        losses = (loss, metrics["selection"]["loss"])
        refuse_divergence(losses, session.learned.values(), f"training after growth {step}", "learning_rate")
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
        # A trial of what was refused is none.
        trials = tuple(t for t in progress.trials if (t.name, t.step) != (self.branch.name, step))
        self.tell(records.Undone(branch=self.branch.name, step=step, reason=reason))
        self.progress = replace(progress, seconds=seconds, step=step - 1, log=pending.log, position=None, trials=trials)
        self.observer.accepted(step - 1, session.graph)
        self.end(reason)

    def tell_of_training(self, standing: Standing, loss: float, seconds: float = 0.0) -> Mapping[str, float | None]:
        """Record a training that is over; returns the scores on the part that selects."""
        branch, step = self.branch, self.progress.step
        self.tell(recording.of_training(self.session, branch.policy, branch.name, step, standing, loss, seconds))
        return recording.finite(standing.metrics["selection"])

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
        session, progress, branch = self.session, self.progress, self._chosen
        grown = progress.found or session.network()
        started, fitted = time.perf_counter(), None

        def save(position: Position) -> None:
            self._keep(replace(progress, position=position, found=grown))

        keeps = session.train_config.checkpoint != "phase"
        phase = self.schedule.next(progress.log)
        while isinstance(phase, Train) and not progress.log.fitted:
            with session.meter.phase("final fit"), telling("the final fit", advice("learning_rate_final")):
                keeping = Keeping(progress.position, save if keeps else None, branch.policy)
                done = train_final(session, phase, keeping, self._start)
            progress.position = None
            fitted = done.loss
            refuse_divergence([fitted], session.learned.values(), "the final fit", "learning_rate_final")
            progress.log = progress.noting(Entry("fitted", done.epochs))
            phase = self.schedule.next(progress.log)
        if not isinstance(phase, Done):
            raise RunError(f"the schedule asks for {phase} after growth is over and the final fit is done")
        seconds = progress.seconds + time.perf_counter() - started
        ends = [event.reason for event in self.events if isinstance(event, records.Ended)]
        event = recording.of_end(session, branch, progress, grown, fitted, seconds, ends)
        self.tell(event)
        return GrowthResult(session.network(), grown, event, self.events)

    # -- which network goes on ----------------------------------------------------------------------------------------

    @property
    def _settled(self) -> bool:
        """Whether it is known which network goes on: the one that is there, where nothing was tried."""
        progress = self.progress
        if progress.log.count("selected"):
            return True
        if self.branch.name is None:
            return not (progress.log.count("tried") or isinstance(self.schedule.next(progress.log), TrialFit))
        return sum(trial.ended is not None for trial in progress.trials) == len(self.branches)

    @property
    def _chosen(self) -> Branch:
        """The branch that goes on."""
        name = next((each.branch for each in reversed(self.events) if isinstance(each, records.Selected)), None)
        return next((branch for branch in self.branches if branch.name == name), self.branch)

    @property
    def _start(self) -> float | None:
        """What each matrix is multiplied with before the final fit, where trials have found it."""
        progress, name = self.progress, self._chosen.name
        return next((t.keep for t in progress.trials if (t.name, t.step) == (name, progress.step)), None)

    def _try(self, epochs: int | None = None, ended: str | None = None) -> None:
        """Fit the network as it is, on a fork, or in place where `ended` says why growth of its branch is over.

        A fit that diverges on a fork is a trial that does not pay. Raises RunError if the only one of a branch does.
        """
        session, progress, chosen = self.session, self.progress, self._chosen
        number = self.branches.index(chosen)
        epochs, parameters = epochs or trial_epochs(session.train_config), session.graph.costs().parameters
        started, trial, scores, fork = time.perf_counter(), None, None, session
        select = session.data.select
        assert select is not None, "the data is cut"
        known = self._start if progress.log.count("selected") else None
        starts = starts_of(session.train_config) if known is None else (known,)
        with session.meter.phase("choosing"):
            if ended is not None:
                with telling(f"the fit of branch {chosen.name!r}", advice("learning_rate_final")):
                    trial = run_trial(fork, chosen.name, progress.step, epochs, starts[0], ended, number)
            for keep in starts if ended is None else ():
                other = session.fork()
                with suppress(Diverged):
                    found = run_trial(other, chosen.name, progress.step, epochs, keep, None, number, progress.step)
                    if trial is None or found.loss < trial.loss:
                        trial, fork = found, other
        seconds = time.perf_counter() - started
        record = records.Fitted(
            branch=chosen.name, parameters=parameters, step=progress.step, epochs=epochs, trial=ended is None
        )
        if trial is not None:
            record, scores = trial.record, recording.finite(fork.measure(select).metrics)
        record = replace(record, selection=scores, seconds=round(seconds, 4))
        self.tell(record)
        if trial is not None:
            self.observer.tried(fork, record)
        log = progress.log
        if ended is None:
            same = [each for each in progress.trials if each.name == chosen.name]
            before = [each for each in same if each.step == progress.step] if log.count("selected") else same
            nothing = {"parameters": float(parameters), "loss": None, "gain": 0.0, "error": 0.0}
            log = progress.noting(Entry("tried", epochs, nothing if trial is None else compared(trial, before)))
        trials = progress.trials if trial is None else (*progress.trials, trial)
        self.progress = replace(progress, seconds=progress.seconds + seconds, trials=trials, log=log)

    def _end_branch(self) -> None:
        """Try what growth came to, if that is not done; then start the next branch, or go on with the best network."""
        session, progress, name = self.session, self.progress, self.branch.name
        mine = [trial for trial in progress.trials if trial.name == name]
        if isinstance(self.schedule.next(progress.log), TrialFit):
            self._try()
        elif not progress.log.count("tried"):
            self._try(ended=progress.ended)
        elif mine and mine[-1].step != progress.step:
            self._try()
        progress = self.progress
        if progress.branch + 1 < len(self.branches):
            session.begin(self.start)
            self._standing = None
            self.progress = Progress(
                seconds=progress.seconds,
                growing=progress.growing,
                branch=progress.branch + 1,
                trials=progress.trials,
            )
            self.observer.accepted(0, session.graph)
            return
        if not progress.trials:
            raise RunError(f"every trial fit diverged; {advice('learning_rate_final')}")
        best, told = selected(progress.trials)
        for event in told:
            self.tell(event)
        ends = {event.branch: event.reason for event in self.events if isinstance(event, records.Ended)}
        session.begin(best.network)
        self._standing = None
        if best.step != progress.step or len(self.branches) > 1:
            show_again(self.observer, self.start, best.network, best.step)
        log = progress.log
        if best.ended is None:
            log = progress.noting(Entry("selected", best.epochs, {"loss": best.loss}))
        self.progress = replace(progress, step=best.step, ended=ends.get(best.name) or progress.ended, log=log)

    def _find_length(self) -> None:
        """How long the final fit is to be, where the schedule has that tried."""
        if self.progress.log.fitted:
            return
        while isinstance(phase := self.schedule.next(self.progress.log), TrialFit):
            self._try(phase.epochs)
            self._keep(self.progress)
        progress, name = self.progress, self._chosen.name
        told = any(isinstance(event, records.Timed) for event in self.events)
        tried = [trial for trial in progress.trials if (trial.name, trial.step) == (name, progress.step)]
        length = phase.epochs if isinstance(phase, Train) else None
        if told or len(tried) < 2 or length not in [trial.epochs for trial in tried]:
            return
        points = timed(tried, length)
        self.tell(records.Timed(branch=name, step=progress.step, epochs=length, points=points))
