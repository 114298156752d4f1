"""When to train and when to grow: a pure function of the log of a run, so that going on is reading.

A schedule is any object with a method `next(log)`. Those here are sections of a run file, [schedule], each by its name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol, Self, cast, runtime_checkable

from pydantic import Field, field_validator, model_validator

from growir.errors import RunError, cut
from growir.growth.naming import named
from growir.growth.sections import MOST, Count, NonNegative, Section, Word
from growir.nearest import suggestion

Fit = Literal["between", "final"]
Measure = Literal["loss", "accuracy"]
IN_VAIN = 2  # growths in a row after which a trimmed network was no larger, where growth ends
ABOUT = 0.95  # of a factor counts as the factor
TRIALS = 2.0  # trials where nobody says anything else: at each doubling
LENGTHS = 3  # halvings, or doublings, of a fit that are tried at most
NoneOrMore = Annotated[int, Field(strict=True, ge=0, le=MOST)]


@dataclass(frozen=True, slots=True)
class Train:
    """A phase of training: so many epochs or so many steps.

    Attributes:
        epochs: Passes over the data; as [train] says for this kind of fit if both are None.
        steps: Steps of the optimizer.
        fit: "between" goes on with the optimizer, on what is trained on between growths; "final" is a new fit of what
            was found, on all training data.
    """

    epochs: int | None = None
    steps: int | None = None
    fit: Fit = "between"


@dataclass(frozen=True, slots=True)
class Grow:
    """One growth."""


@dataclass(frozen=True, slots=True)
class TrialFit:
    """A fit of the network as it is, on a fork, to know what a network of its size, or a fit of some length, comes to.

    Attributes:
        epochs: Passes over the data; as [train] epochs_trial says if None.
    """

    epochs: int | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """Growth is over, or everything is, where growth was before.

    Attributes:
        reason: Why, in a word or two.
    """

    reason: str


Phase = Train | Grow | TrialFit | Done


@dataclass(frozen=True, slots=True)
class Entry:
    """What a schedule needs to know of one thing that happened.

    Attributes:
        what: "started", "growth", "trained", "trimmed" (what the network does as well without has gone, if there was
            something), "undone", "tried" (a trial fit), "ended", "selected" (which of several networks goes on) or
            "fitted" (the final fit).
        epochs: Of "trained" and "tried", how many, and of "selected" those of the trial.
        metrics: Of "trained", the mean loss and accuracy or squared error on the data that selects; of "growth", and of
            "trimmed" if something went, the parameters after it; of "tried" these, the loss after the fit, and by how
            much that is lower than of the last trial that was better than those before it, `gain`, with its standard
            error, `error`; of "selected" the loss of the trial.
        chosen: Of "growth" the names of the candidates that it consists of.
    """

    what: str
    epochs: int = 0
    metrics: Mapping[str, float | None] = field(default_factory=dict[str, "float | None"])
    chosen: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Log:
    """What happened in a run so far, of one branch where there are several.

    Attributes:
        entries: In order; the first is "started".
    """

    entries: tuple[Entry, ...]

    @property
    def last(self) -> str:
        """What happened last."""
        return self.entries[-1].what

    @property
    def growths(self) -> int:
        """Growths that stand."""
        return self.count("growth") - self.count("undone")

    @property
    def ended(self) -> bool:
        """Whether growth is over."""
        return self.count("ended") > 0

    @property
    def fitted(self) -> bool:
        """Whether the final fit is done."""
        return self.count("fitted") > 0

    def count(self, what: str) -> int:
        """How often something happened."""
        return sum(entry.what == what for entry in self.entries)

    def since_growth(self) -> list[Entry]:
        """The phases of training since the last growth, or since the start."""
        found: list[Entry] = []
        for entry in self.entries:
            if entry.what == "growth":
                found = []
            elif entry.what == "trained":
                found.append(entry)
        return found

    def larger(self, factor: float) -> bool:
        """Whether the network has grown to about so many times its parameters since the last trial; so it is at first.

        Twice as wide is not quite twice the parameters: biases of the output stay as many.
        """
        size = None
        for entry in reversed(self.entries):
            if entry.what == "tried":
                before = entry.metrics.get("parameters")
                return size is not None and before is not None and size >= ABOUT * factor * before
            if entry.what in ("growth", "trimmed") and size is None:
                size = entry.metrics.get("parameters")
        return True

    @property
    def untrimmed(self) -> bool:
        """Whether the last growth has been trained, and nobody has looked yet what can go again."""
        trained = False
        for entry in reversed(self.entries):
            if entry.what in ("growth", "trimmed"):
                return trained and entry.what == "growth"
            trained = trained or entry.what == "trained"
        return False

    @property
    def in_vain(self) -> int:
        """How many of the last growths left the network, trimmed, no larger than it had been after an earlier one."""
        found, most, size = 0, -math.inf, -math.inf
        for entry in self.entries:
            size = entry.metrics.get("parameters") or size if entry.what in ("growth", "trimmed") else size
            if entry.what == "trimmed":
                found, most = (0, size) if size > most else (found + 1, most)
        return found

    @property
    def barren(self) -> int:
        """How many of the last trials were no better than one before them, by more than a standard error."""
        found = 0
        for entry in self.entries:
            if entry.what == "tried":
                gain, error = entry.metrics.get("gain"), entry.metrics.get("error")
                found = 0 if gain is None or error is None or gain > error else found + 1
        return found

    def length(self) -> tuple[int, int | None]:
        """The length of the best fit of the network that was selected, in epochs, and the length to try next.

        Shorter ones come first, for they cost little: 30, 15, 8, 4, for as long as they are better. Where the first is
        no better, it is 30, 60, 120, for as long as a trial is better by more than a standard error. At most `LENGTHS`
        halvings or doublings are tried.
        """
        at = next(k for k, entry in enumerate(self.entries) if entry.what == "selected")
        tried = [entry for entry in self.entries[at:] if entry.what in ("selected", "tried")]
        losses = {
            entry.epochs: math.inf if entry.metrics.get("loss") is None else entry.metrics["loss"] for entry in tried
        }
        best = min(losses, key=lambda epochs: (losses[epochs], epochs))
        first = tried[0].epochs
        shorter, longer = sum(epochs < first for epochs in losses), sum(epochs > first for epochs in losses)
        if best == min(losses) and shorter < LENGTHS and best > 1 and not longer:
            return best, -(-best // 2)
        gain, error = (tried[-1].metrics.get(key) for key in ("gain", "error"))
        paid = not longer or (gain is not None and error is not None and gain > error)
        return best, 2 * best if best == max(losses) and longer < LENGTHS and paid else None

    def rests(self, measure: Measure) -> list[float]:
        """What was measured after the last training before each growth, and last of all."""
        found: list[float] = []
        latest: float | None = None
        for entry in self.entries:
            if entry.what == "growth" and latest is not None:
                found.append(latest)
            if entry.what == "trained":
                latest = entry.metrics.get(measure)
        return found if latest is None else [*found, latest]


@runtime_checkable
class Schedule(Protocol):
    """Says what comes next."""

    def next(self, log: Log) -> Phase:
        """What comes next in a run with this log. Nothing but the log may decide."""
        ...


class Scheduled(Section):
    """What schedules with a name share: the final fit once growth is over.

    Attributes:
        name: Which schedule.
        fit: Whether the found network is fitted anew on all training data at the end, as [train] epochs_final and
            learning_rate_final say.
        trials: A fork of the network is fitted before it first grows, and each time it has grown to so many times the
            parameters that it had at the last of these trials; 0 for no trials. Growth ends where larger networks are
            no better after such a fit. The run goes on from the smallest network that is as good as the best, within
            one standard error of their difference on the part that selects. By default 2 where growth begins from
            nothing and a final fit follows, else 0.
        patience: Trials in a row that may be no better before growth ends.
        lengths: Whether the length of the final fit is tried too, with the network that goes on: half as long, and so
            on, or twice as long, for as long as the loss on the part that selects falls. Else [train] epochs_final says
            it. By default where there are trials and epochs_final is not given.
    """

    name: Word
    fit: bool = True
    trials: Annotated[float, Field(strict=True, ge=0, le=1000, allow_inf_nan=False)] | None = None
    patience: Count = 2
    lengths: bool | None = None

    @field_validator("trials")
    @classmethod
    def _grows(cls, value: float | None) -> float | None:
        if value is not None and 0 < value <= 1:
            raise ValueError("a network is tried where it is so many times as large: more than 1, or 0 for no trials")
        return value

    @model_validator(mode="after")
    def _tried_for_a_fit(self) -> Self:
        if self.trials and not self.fit:
            raise ValueError("trials say what networks come to after a final fit, but fit is false; set fit = true")
        return self

    def started_from(self, given: bool, epochs: int | None) -> Self:
        """The same with whether sizes and lengths are tried.

        Args:
            given: Whether the run starts from a network.
            epochs: Of the final fit, if somebody says it.
        """
        trials = (0.0 if given or not self.fit else TRIALS) if self.trials is None else self.trials
        lengths = bool(trials) and epochs is None if self.lengths is None else self.lengths
        return self.model_copy(update={"trials": trials, "lengths": lengths})

    def next(self, log: Log) -> Phase:
        """What comes next."""
        if not log.ended:
            phase = self.growing(log)
            if not self.trials or not isinstance(phase, Grow):
                return phase
            if log.larger(self.trials):
                return TrialFit()
            return Done("size") if log.barren >= self.patience else phase
        if self.trials and not log.count("selected") and log.larger(0.0):
            return TrialFit()
        if not self.fit or log.fitted:
            return Done("schedule")
        if not self.lengths or not log.count("selected"):
            return Train(fit="final")
        best, following = log.length()
        return Train(fit="final", epochs=best) if following is None else TrialFit(following)

    def growing(self, log: Log) -> Phase:
        """What comes next while growth goes on."""
        raise NotImplementedError

    @property
    def planned(self) -> int | None:
        """How many epochs of training there will be before growth is over, if that is known from the start."""
        return None


class Alternating(Scheduled):
    """Grow, train, grow, train, until the policy or the budget ends it.

    Attributes:
        name: Grow and train by turns.
        epochs: Of each training. By default as [train] epochs_between.
        first: Epochs before the first growth. A network that was never trained says little about where to grow.
        growths: The most growths. By default as the budget says.
    """

    name: Literal["alternating"] = "alternating"
    epochs: Count | None = None
    first: NoneOrMore = 0
    growths: Count | None = None

    def growing(self, log: Log) -> Phase:
        if log.growths == 0 and log.last == "started" and self.first:
            return Train(epochs=self.first)
        if log.last == "growth":
            return Train(epochs=self.epochs)
        return Done("growths") if self.growths is not None and log.growths >= self.growths else Grow()


class Every(Scheduled):
    """Train for some epochs, grow, and so on, so many times; and train for as long after the last growth.

    Attributes:
        name: Grow every few epochs.
        epochs: Between two growths, and before the first.
        growths: How many.
        last: Epochs after the last growth. By default as many as between two.
        fit: Whether the found network is fitted anew on all training data at the end.
    """

    name: Literal["every"] = "every"
    epochs: Count = 5
    growths: Count = 10
    last: Count | None = None
    fit: bool = False

    def growing(self, log: Log) -> Phase:
        over = log.growths >= self.growths
        if log.last in ("started", "growth"):
            return Train(epochs=(self.last or self.epochs) if over else self.epochs)
        return Done("growths") if over else Grow()

    @property
    def planned(self) -> int | None:
        return None if self.trials else self.epochs * self.growths + (self.last or self.epochs)


class Plateau(Scheduled):
    """Train until that brings nothing more, grow, and so on; end where a growth and its training gained nothing.

    So AutoGrow's convergent policy does (Wen et al. 2020, section 3.2).

    Attributes:
        name: Grow where training has come to rest.
        window: Epochs that must have brought something for training to go on.
        by: How much they must have brought: of the accuracy, or of the loss.
        measure: What is looked at on the data that selects, "loss" or "accuracy".
        most: The most epochs before a growth.
        growths: The most growths. By default as the budget says.
        gain: How much better the network must be at rest than it was before its last growth; growth ends where it is
            not.
    """

    name: Literal["plateau"] = "plateau"
    window: Count = 3
    by: NonNegative = 0.0
    measure: Measure = "loss"
    most: Count = 100
    growths: Count | None = None
    gain: NonNegative = 0.0

    def growing(self, log: Log) -> Phase:
        phases = log.since_growth()
        if len(phases) < self.most and not stagnant(phases, self.measure, self.window, self.by):
            return Train(epochs=1)
        rests = log.rests(self.measure)
        if len(rests) > 1:
            gained = rests[-1] - rests[-2] if self.measure == "accuracy" else rests[-2] - rests[-1]
            if not gained > self.gain:
                return Done("no gain")
        return Done("growths") if self.growths is not None and log.growths >= self.growths else Grow()


class AfterTraining(Scheduled):
    """Train in full, then grow and train by turns.

    Attributes:
        name: Grow what is trained.
        epochs: Before the first growth.
        between: Epochs after each growth.
        growths: How many.
        fit: Whether the found network is fitted anew on all training data at the end.
    """

    name: Literal["after_training"] = "after_training"
    epochs: Count = 30
    between: Count = 5
    growths: Count = 5
    fit: bool = False

    def growing(self, log: Log) -> Phase:
        if log.last in ("started", "growth"):
            return Train(epochs=self.epochs if log.growths == 0 else self.between)
        return Done("growths") if log.growths >= self.growths else Grow()

    @property
    def planned(self) -> int | None:
        return None if self.trials else self.epochs + self.between * self.growths


class Periodic(Scheduled):
    """AutoGrow's periodic policy (Wen et al. 2020, section 3.2): grow every few epochs, whether training rests or not.

    Attributes:
        name: Grow every few epochs while that helps.
        epochs: Between two growths (the paper's K).
        converged: Whether it grows only where the last so many epochs have gained no more than `by`, and trains for as
            many more where they have: the paper's convergent policy.
        window: Epochs over which something must have been gained (the paper's J); growth ends where it was not. 0:
            what ends growth is the policy, or the budget.
        by: How much must have been gained, of the accuracy or of the loss (the paper's tau, 0.0005 of the accuracy).
        measure: What is looked at on the data that selects, "loss" or "accuracy".
        growths: The most growths. By default as the budget says.
    """

    name: Literal["periodic"] = "periodic"
    epochs: Count = 3
    converged: bool = False
    window: NoneOrMore = 30
    by: NonNegative = 0.0
    measure: Measure = "loss"
    growths: Count | None = None

    def growing(self, log: Log) -> Phase:
        if log.last in ("started", "growth"):
            return Train(epochs=self.epochs)
        if self.window and stagnant(log.entries, self.measure, self.window, self.by):
            return Done("no gain")
        if self.converged and not stagnant(log.entries, self.measure, self.epochs, self.by):
            return Train(epochs=self.epochs)
        return Done("growths") if self.growths is not None and log.growths >= self.growths else Grow()


def stagnant(entries: Sequence[Entry], measure: Measure, window: int, by: float) -> bool:
    """Whether the last `window` epochs brought nothing better, by more than `by`, than what was reached before them.

    Of losses .9, .5, .6, .55 after an epoch each, the last two brought nothing: .55 is no better than .5. Where there
    are not more epochs than the window there is nothing to compare with.
    """
    sign = -1.0 if measure == "loss" else 1.0
    trained = [(each.epochs, each.metrics.get(measure)) for each in entries if each.what == "trained"]
    total = sum(epochs for epochs, _ in trained)
    before, after, at = -math.inf, -math.inf, 0
    for epochs, value in trained:
        at += epochs
        if value is not None and at <= total - window:
            before = max(before, sign * value)
        elif value is not None:
            after = max(after, sign * value)
    return math.isfinite(before) and not after - before > by


class Named(Scheduled):
    """A schedule of another package, "package.module:Class", which is made without arguments.

    Attributes:
        name: Where its class stands.
    """

    name: Word = ""

    @model_validator(mode="after")
    def _decides_itself(self) -> Self:
        if self.model_fields_set - {"name", "fit"}:
            raise ValueError("a schedule of another package decides by itself when there are trials; leave these out")
        return self

    def started_from(self, given: bool, epochs: int | None) -> Self:
        return self

    def next(self, log: Log) -> Phase:
        made: object = cast("Callable[[], object]", named(self.name, "schedule"))()
        if not isinstance(made, Schedule):
            raise RunError(f"schedule: {cut(self.name)} has no method next, which a schedule needs")
        return made.next(log)


SCHEDULES: Mapping[str, type[Scheduled]] = {
    kind.model_fields["name"].default: kind for kind in (Alternating, Every, Plateau, AfterTraining, Periodic)
}


def schedule_class(section: Mapping[str, Any]) -> type[Scheduled]:
    """The class that a [schedule] section is read by. Raises RunError if there is no schedule of its name."""
    name = section.get("name", "alternating")
    if isinstance(name, str) and ":" in name:
        return Named
    if not isinstance(name, str) or name not in SCHEDULES:
        near = suggestion(str(name), SCHEDULES)
        raise RunError(f"there is no schedule {cut(repr(name))}; there are {', '.join(SCHEDULES)}.{near}")
    return SCHEDULES[name]
