"""The events of a run: a frozen class for each, and the only place that knows their keys.

Each is a line of events.jsonl: a JSON object with the keys `event`, its name, and `record`, the version of its class;
the others are the fields of the class. Lines of earlier versions have no `record` (`growir.runs.earlier`).

    {"event": "growth", "record": 2, "step": 3, "policy": "dag", "what": "edge x -> out", "predicted_gain": 0.1, ...}

A field that is added keeps the version. Who reads a line takes a field that is missing, or of another kind, for one
that is not known: None, or empty.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Annotated, Any, ClassVar, Self, cast, get_type_hints

from growir.runs import values
from growir.runs.values import Json, Metrics

Count = Annotated[int | None, values.count]
Number = Annotated[float | None, values.number]
Text = Annotated[str | None, values.text]
Flag = Annotated[bool | None, values.flag]
Names = Annotated[tuple[str, ...], values.names]
Sizes = Annotated[tuple[int, ...], values.sizes]
Fields = Annotated[Json, values.mapping]
Passes = Annotated[tuple[Json, ...], values.mappings]
Scores = Annotated[Metrics | None, values.metrics]
ScoresByPart = Annotated[Mapping[str, Metrics], values.metrics_by_part]
_EMPTY: Json = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A JSON object with known keys: a record, or a part of one."""

    @classmethod
    def from_json(cls, found: Json) -> Self:
        """Read one. Of whatever is damaged nothing is known."""
        kind: type = cls
        return cls(**{name: read(found.get(name)) for name, read in _readers(kind).items()})

    def to_json(self) -> dict[str, Any]:
        """As a line holds it."""
        return _fields_of(self)


def _fields_of(entry: Entry) -> dict[str, Any]:
    """Every field, but no branch where there is none, and no notes and units where nothing was noted."""
    found = {each.name: _plain(getattr(entry, each.name)) for each in fields(entry)}
    return {
        key: value
        for key, value in found.items()
        if (key, value) not in (("branch", None), ("notes", {}), ("units", []))
    }


def _plain(value: object) -> object:
    """A field's value in lists and dicts, as reading JSON gives them."""
    if isinstance(value, Entry):
        return _fields_of(value)
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in cast("Json", value).items()}
    if isinstance(value, tuple | list):
        return [_plain(entry) for entry in cast("tuple[object, ...]", value)]
    return value


@cache
def _readers(kind: type) -> Mapping[str, Callable[[object], Any]]:
    """How to read each field of a class: with the function that its type is annotated by."""
    hints = get_type_hints(kind, include_extras=True)
    return {each.name: hints[each.name].__metadata__[0] for each in fields(kind)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event(Entry):
    """What happened in a run.

    Attributes:
        event: The name of its kind.
        version: Of the fields.
        branch: The branch of a contest it belongs to; None where a run has none.
    """

    event: ClassVar[str]
    version: ClassVar[int] = 1

    branch: Text = None

    def to_json(self) -> dict[str, Any]:
        """As a line of events.jsonl holds it."""
        return {"event": self.event, "record": self.version, **_fields_of(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(Event):
    """A run begins.

    Attributes:
        name: The run's.
        seed: Of everything random.
        threads: Of torch.
        task: What is learned: classification, regression.
        samples: To train on; the selection part among them.
        selection_samples: Of these, the selection part; None in runs from before it was told.
        test_samples: To test on.
        held_out: The share of the data that was held out to test on; None where the data had a test part.
        sample_shape: Of one sample.
        outputs: Classes or targets.
        hash: Of the first network's graph.
        parameters: Of the first network.
    """

    event: ClassVar[str] = "started"

    name: Text = None
    seed: Count = None
    threads: Count = None
    task: Text = None
    samples: Count = None
    selection_samples: Count = None
    test_samples: Count = None
    held_out: Number = None
    sample_shape: Sizes = ()
    outputs: Count = None
    hash: Text = None
    parameters: Count = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs(Entry):
    """One choice of what a network reads.

    Attributes:
        variance: The share of the inputs' variance that is kept.
        inputs: How many of them that are.
        width: Neurons of the one hidden layer it was tried with.
        loss: The mean loss on the selection part after a short fit.
        loss_error: Its standard error.
    """

    variance: Number = None
    inputs: Count = None
    width: Count = None
    loss: Number = None
    loss_error: Number = None


def _inputs(value: object) -> tuple[Inputs, ...]:
    return tuple(map(Inputs.from_json, values.mappings(value)))


@dataclass(frozen=True, slots=True, kw_only=True)
class InputsChosen(Event):
    """What a network reads was chosen before it grew.

    Attributes:
        variance: The share of the inputs' variance that is kept.
        inputs: How many of them that are.
        tried: What it was chosen from, best first.
        seconds: That it took.
    """

    event: ClassVar[str] = "inputs"

    variance: Number = None
    inputs: Count = None
    tried: Annotated[tuple[Inputs, ...], _inputs] = ()
    seconds: Number = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen(Entry):
    """A candidate that a growth consists of.

    Attributes:
        name: What the policy calls it.
        parameters: By how many the network grew with it alone.
        macs: The same of multiply-accumulates.
        gain: The predicted decrease of the mean loss.
        error: The standard error of that.
    """

    name: Text = None
    parameters: Count = None
    macs: Count = None
    gain: Number = None
    error: Number = None


def _chosen(value: object) -> tuple[Chosen, ...]:
    return tuple(map(Chosen.from_json, values.mappings(value)))


@dataclass(frozen=True, slots=True, kw_only=True)
class AtAmplitude(Entry):
    """A candidate's gain at some amplitude: as predicted to first order and as measured, of the mean loss."""

    amplitude: Number = None
    predicted: Number = None
    measured: Number = None


def _at_amplitude(value: object) -> AtAmplitude | None:
    return AtAmplitude.from_json(values.mapping(value)) if values.mapping(value) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried(Entry):
    """A candidate as a policy scored it.

    Attributes:
        name: What the policy calls it; None where its passes say all.
        passes: What it would do, as documents record passes; none where the policy has only a name for it.
        map: Whether it adds convolutions.
        predicted_gain: To first order, at its amplitude.
        measured_gain: On the selection part of the data.
        gain_error: The standard error of the measured gain.
        amplitude: The factor of what it adds.
        parameters: Of the network with it.
        outcome: What came of it.
        small: The gains at a small amplitude, where the prediction must hold.
    """

    name: Text = None
    passes: Passes = ()
    map: Flag = None
    predicted_gain: Number = None
    measured_gain: Number = None
    gain_error: Number = None
    amplitude: Number = None
    parameters: Count = None
    outcome: Text = None
    small: Annotated[AtAmplitude | None, _at_amplitude] = None


def _tried(value: object) -> tuple[Tried, ...]:
    return tuple(map(Tried.from_json, values.mappings(value)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured(Entry):
    """The notes of a growth by a policy that measures its candidates.

    Attributes:
        amplitude: The factor of what was added.
        probation: Whether nothing gained at once, so that the training after the growth had to justify it.
        improving: How many candidates were worth applying.
        loss_before: The mean loss on the selection part of the data, before the growth.
        loss_after: The same right after it.
        tried: Every candidate, in the order proposed.
    """

    amplitude: Number = None
    probation: Flag = None
    improving: Count = None
    loss_before: Number = None
    loss_after: Number = None
    tried: Annotated[tuple[Tried, ...], _tried] = ()


LAYER = "block after "  # and a node: the space of units that a layer would have, which may come in there


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitScores(Entry):
    """What the candidates of one kind in one space were worth, unit by unit.

    Attributes:
        space: The name of the space; of layers that may come in, where.
        kind: What would become of a unit: "split", "fresh" or "prune".
        gains: Of each unit the predicted decrease of the mean loss; None where it was no candidate.
        chosen: Which of them grew.
        ordinal: Whether gains only rank.
    """

    space: Text = None
    kind: Text = None
    gains: Annotated[tuple[float | None, ...], values.numbers] = ()
    chosen: Sizes = ()
    ordinal: Flag = None


def _unit_scores(value: object) -> tuple[UnitScores, ...]:
    return tuple(map(UnitScores.from_json, values.mappings(value)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth(Event):
    """The network has grown.

    Attributes:
        step: The number of the growth.
        policy: Which policy decided.
        what: What grew, in words.
        passes: The same, as documents record passes.
        created: The nodes that are new.
        candidates: From how many it was chosen.
        chosen: The candidates that it consists of.
        predicted_gain: By how much the mean loss was predicted to fall; None where nothing was predicted.
        measured_gain: By how much it fell on the selection part of the data; None where nothing was measured.
        gain_error: The standard error of that.
        before: Scores by part of the data, right before the growth.
        after: The same right after it.
        parameters_before: Of the network, before the growth.
        parameters: The same after it.
        macs_before: Multiply-accumulates for one sample, before the growth.
        macs: The same after it.
        hash: Of the graph.
        seconds: For proposing, scoring, selecting and building.
        units: What every candidate that is a unit was worth; none where candidates are none.
        notes: What only this policy has to say.
    """

    event: ClassVar[str] = "growth"
    version: ClassVar[int] = 2

    step: Count = None
    policy: Text = None
    what: Text = None
    passes: Passes = ()
    created: Names = ()
    candidates: Count = None
    chosen: Annotated[tuple[Chosen, ...], _chosen] = ()
    predicted_gain: Number = None
    measured_gain: Number = None
    gain_error: Number = None
    before: ScoresByPart = field(default_factory=dict[str, Metrics])
    after: ScoresByPart = field(default_factory=dict[str, Metrics])
    parameters_before: Count = None
    parameters: Count = None
    macs_before: Count = None
    macs: Count = None
    hash: Text = None
    seconds: Number = None
    units: Annotated[tuple[UnitScores, ...], _unit_scores] = ()
    notes: Fields = field(default_factory=dict[str, Any])

    @property
    def measured(self) -> Measured:
        """The notes of a policy that measures its candidates; of another one all is unknown."""
        return Measured.from_json(self.notes)

    @property
    def probation(self) -> bool:
        """Whether the training that follows has to justify it."""
        return self.notes.get("probation") is True

    @property
    def trims(self) -> bool:
        """Whether it takes away what the network does as well without, and adds nothing."""
        return "trimmed" in self.notes

    @property
    def because(self) -> str | None:
        """Why that can go, where the policy says it."""
        found = self.notes.get("because")
        return found if isinstance(found, str) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped(Event):
    """Where a policy finds nothing to choose, each named in the first growth where that is so.

    Attributes:
        step: The number of the growth that comes next.
        policy: Which policy.
        spaces: Why, by the name of a channel space.
    """

    event: ClassVar[str] = "skipped"

    step: Count = None
    policy: Text = None
    spaces: Fields = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalibrated(Event):
    """Running statistics of norms were taken anew.

    Attributes:
        step: The number of the growth that comes next, or that has been.
        when: "before" or "after" that growth.
        batches: How many batches they are from.
        selection_loss: The mean loss on the selection part of the data since then.
    """

    event: ClassVar[str] = "recalibrated"

    step: Count = None
    when: Text = None
    batches: Count = None
    selection_loss: Number = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained(Event):
    """The training after a growth is over.

    Attributes:
        step: The number of the growth.
        train_loss: The mean loss of the last epoch.
        selection_loss: The mean loss on the selection part of the data.
        train: Scores on what is trained on.
        selection: Scores on the selection part of the data.
        dead_units: Units that no gradient reaches.
        seconds: That the training took.
    """

    event: ClassVar[str] = "trained"

    step: Count = None
    train_loss: Number = None
    selection_loss: Number = None
    train: Scores = None
    selection: Scores = None
    dead_units: Count = None
    seconds: Number = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Undone(Event):
    """A growth was taken back after the training that followed it: its number, and why."""

    event: ClassVar[str] = "undone"

    step: Count = None
    reason: Text = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended(Event):
    """Growth is over.

    Attributes:
        step: After so many growths.
        reason: Why, in a word or two.
        why: More of it: what the cheapest candidate costs and what is left, or why there is none; None where the reason
            says all.
    """

    event: ClassVar[str] = "ended"

    step: Count = None
    reason: Text = None
    why: Text = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted(Event):
    """A network was fitted, to be compared: what a branch of a contest came to, or one of several sizes.

    Attributes:
        parameters: Of the network.
        loss: The mean loss on the selection part after the fit.
        loss_error: Its standard error.
        step: How many growths it had.
        epochs: That it was fitted for.
        ended: Why growth of the branch ended; None where that does not matter.
        trial: Whether this is one of several sizes, and not what a branch came to in the end.
        keep: What each matrix was multiplied with before; of several, what did best.
        selection: Scores on the selection part.
        seconds: That the fit took.
    """

    event: ClassVar[str] = "fitted"

    parameters: Count = None
    loss: Number = None
    loss_error: Number = None
    step: Count = None
    epochs: Count = None
    ended: Text = None
    trial: Flag = None
    keep: Number = None
    selection: Scores = None
    seconds: Number = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Point(Entry):
    """A network of some size, and what it came to after a fit of some length.

    Attributes:
        branch: The branch of a contest that it is from; None where a run has none.
        step: How many growths it had.
        parameters: Its size.
        epochs: That it was fitted for.
        loss: The mean loss on the selection part after the fit.
        loss_error: Its standard error.
        behind: By how much that is higher than of the best.
        behind_error: The standard error of this difference, over the same samples.
        chosen: Whether the run goes on from it.
    """

    branch: Text = None
    step: Count = None
    parameters: Count = None
    epochs: Count = None
    loss: Number = None
    loss_error: Number = None
    behind: Number = None
    behind_error: Number = None
    chosen: Flag = None


def _points(value: object) -> tuple[Point, ...]:
    return tuple(map(Point.from_json, values.mappings(value)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sized(Event):
    """How large the network is to be was decided: the smallest that is as good as the best goes on.

    Attributes:
        step: How many growths it has; those after them are taken back.
        parameters: Its size.
        points: All that were tried, the smallest first.
    """

    event: ClassVar[str] = "sized"

    step: Count = None
    parameters: Count = None
    points: Annotated[tuple[Point, ...], _points] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed(Event):
    """How long the final fit is to be was decided: the length with the lowest loss.

    Attributes:
        step: How many growths the network has.
        epochs: The length.
        points: All that were tried, the shortest first.
    """

    event: ClassVar[str] = "timed"

    step: Count = None
    epochs: Count = None
    points: Annotated[tuple[Point, ...], _points] = ()


def _fitted(value: object) -> tuple[Fitted, ...]:
    return tuple(map(Fitted.from_json, values.mappings(value)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared(Entry):
    """A branch beside the best of those before it, sample by sample of the selection part.

    Attributes:
        branch: Its name.
        against: The name of the best before it.
        gain: By how much its mean loss is lower; negative where it is higher.
        gain_error: The standard error of the gain.
        p: The probability that chance makes a gain this large where there is none.
        better: Whether it takes the place of the other.
    """

    branch: Text = None
    against: Text = None
    gain: Number = None
    gain_error: Number = None
    p: Number = None
    better: Flag = None


def _compared(value: object) -> tuple[Compared, ...]:
    return tuple(map(Compared.from_json, values.mappings(value)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected(Event):
    """The branch of a contest that goes on was chosen.

    Attributes:
        tried: The branches, in order.
        compared: What the rule compared.
        significance: The probability that chance may have where a later branch is taken.
        why: The same in words.
    """

    event: ClassVar[str] = "selected"

    tried: Annotated[tuple[Fitted, ...], _fitted] = ()
    compared: Annotated[tuple[Compared, ...], _compared] = ()
    significance: Number = None
    why: Text = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished(Event):
    """The run is over; summary.json holds the same without `event` and `record`.

    Attributes:
        name: The run's.
        task: What was learned.
        ended: Why growth ended.
        reproducible: Whether another run would find the same.
        test_before_fit: Scores on the test part before the final fit; None where there is no such part.
        test_after_fit: The same after it.
        train_loss_final: The mean loss of the last epoch.
        parameters: Of the network.
        macs: Multiply-accumulates for one sample.
        steps: How many growths it has.
        dead_units: Units that no gradient reaches.
        seconds: All that it took.
        seconds_growing: Of that, for proposing, scoring, selecting and building.
        phases: What each phase cost.
        threads: Of torch.
        seed: Of everything random.
        hash: Of the graph.
    """

    event: ClassVar[str] = "finished"

    name: Text = None
    task: Text = None
    ended: Text = None
    reproducible: Flag = None
    test_before_fit: Scores = None
    test_after_fit: Scores = None
    train_loss_final: Number = None
    parameters: Count = None
    macs: Count = None
    steps: Count = None
    dead_units: Count = None
    seconds: Number = None
    seconds_growing: Number = None
    phases: ScoresByPart = field(default_factory=dict[str, Metrics])
    threads: Count = None
    seed: Count = None
    hash: Text = None

    @property
    def summary(self) -> dict[str, Any]:
        """What summary.json holds."""
        return _fields_of(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupted(Event):
    """Somebody stopped the run; the hash is of the graph that it can go on from."""

    event: ClassVar[str] = "interrupted"

    hash: Text = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Other(Event):
    """An event of a later version of growir, kept as it is."""

    event: ClassVar[str] = ""

    found: Fields = field(default_factory=dict[str, Any])

    def to_json(self) -> dict[str, Any]:
        """The line that it was read from."""
        return dict(self.found)


KINDS: Mapping[str, type[Event]] = {
    kind.event: kind
    for kind in (
        Started,
        InputsChosen,
        Skipped,
        Recalibrated,
        Growth,
        Trained,
        Undone,
        Ended,
        Fitted,
        Sized,
        Timed,
        Selected,
        Finished,
        Interrupted,
    )
}
