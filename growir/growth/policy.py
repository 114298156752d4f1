"""What the engine asks of a growth algorithm, and what passes between them.

A policy is any object with a `name`, `Settings` and the four methods below. The other protocols are each by itself: a
policy has what it needs of them.

    class Wider:
        name = "wider"
        Settings = PolicySettings

        def __init__(self, settings):
            self.settings = settings

        def propose(self, session, budget): ...   # what could grow, as candidates
        def score(self, session, candidates, key): ...   # what each is worth
        def select(self, session, scores, budget): ...   # which of them grow now
        def build(self, session, chosen): ...   # the pass that does it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from growir.growth.budget import Budget, Cost
from growir.growth.sections import Count, Section, Word
from growir.rewrite import Pass

if TYPE_CHECKING:  # the session takes what is defined here, and settings are read without torch
    import torch

    from growir.growth.config import RunConfig
    from growir.growth.problem import Problem
    from growir.growth.session import Session
    from growir.network import Network


class PolicySettings(Section):
    """The settings of a policy that has none of its own; policies derive theirs from it.

    Attributes:
        name: Which policy.
        samples: The most samples of each part that growth is measured on.
    """

    name: Word = ""
    samples: Count = 6000

    @property
    def select_share(self) -> float:
        """The share of the training data that selects, where nobody says another."""
        return 0.1

    def most_parameters(self, samples: int, inputs: int, outputs: int, tried: bool) -> int | None:
        """The parameter budget where none is given; None for no limit.

        Args:
            samples: Training samples.
            inputs: Numbers in a sample.
            outputs: Numbers the network predicts.
            tried: Whether trials find the size, so that the budget is a limit only.
        """
        return None

    @property
    def reads_maps(self) -> bool:
        """Whether what is grown from nothing reads samples as maps, so that they stay maps in the first network."""
        return False

    @property
    def ends_growth(self) -> bool:
        """Whether the policy itself finds how large the network should be: by default nothing else limits it."""
        return False

    @property
    def usual_schedule(self) -> Mapping[str, Any]:
        """The settings of the schedule that it goes with, where nobody names another."""
        return {}

    def contestants(self) -> Sequence[tuple[str | None, PolicySettings]]:
        """The settings of each of several ways to grow, by name, of which the best goes on; one without a name."""
        return [(None, self)]


@dataclass(frozen=True, slots=True)
class UnitAt:
    """Which unit a candidate is.

    Attributes:
        space: The name of its space.
        kind: What becomes of it: "split", "fresh" or "prune".
        index: Counted from 0, of the units, or of the fresh ones.
    """

    space: str
    kind: str
    index: int


@dataclass(frozen=True, eq=False)
class Candidate:
    """Something that can be chosen by itself: a whole rewrite, or one unit of a space.

    Attributes:
        name: What logs call it; no two of one growth share it.
        cost: What the network would cost more; negative where it shrinks.
        part: The policy's own.
        unit: Which unit it is, where it is one: then the log keeps the scores of all, unit by unit.
    """

    name: str
    cost: Cost
    part: Any = None
    unit: UnitAt | None = None


@dataclass(frozen=True, eq=False)
class Score:
    """What a candidate is worth.

    Attributes:
        candidate: It.
        gain: Predicted decrease of the mean loss, in one unit for every policy; measured where `predicted` is given.
            What candidates are ranked by.
        error: The standard error of the gain, where it is known.
        notes: What this policy alone can say of it, as JSON values; logged as they are.
        predicted: What was predicted to first order, where the gain was measured on the part that selects.
        ordinal: Whether `gain` only ranks: it is a gradient, say, or drawn by chance, and promises nothing of the loss.
    """

    candidate: Candidate
    gain: float
    error: float | None = None
    notes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    predicted: float | None = None
    ordinal: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """How a network stands at some moment of a run.

    Attributes:
        losses: (n,) of each sample of the part that selects, of as many as growth is measured on at most.
        metrics: By part ("train", "select") what a user reads.
        parameters: How many it has.
    """

    losses: torch.Tensor
    metrics: Mapping[str, Mapping[str, float]]
    parameters: int


class Policy(Protocol):
    """A growth algorithm: decides what grows and with which weights. The engine applies, trains and records.

    Attributes:
        name: What run files call it.
        Settings: Its section of a run file, a `PolicySettings`; the policy is made of one.
    """

    # Both are said in the class. That they can be read is all that is asked here, so that a type checker takes a
    # constant, an annotated class variable and a class in the class, as authors write them.
    @property
    def name(self) -> str: ...

    @property
    def Settings(self) -> type[Any]: ...  # noqa: N802  # a class

    def __init__(self, settings: Any) -> None: ...

    def propose(self, session: Session, budget: Budget) -> Sequence[Candidate]:
        """What could grow now, within the budget; nothing ends growth."""
        ...

    def score(self, session: Session, candidates: Sequence[Candidate], key: int) -> Sequence[Score]:
        """What candidates are worth; `key` keys random numbers, and is another one for each growth."""
        ...

    def select(self, session: Session, scores: Sequence[Score], budget: Budget) -> Sequence[Score]:
        """Those that grow now, the best first; none ends growth. `growth.select` has the usual ways."""
        ...

    def build(self, session: Session, chosen: Sequence[Score]) -> Pass:
        """One rewrite that does what was chosen, a `Sequence` where it is several."""
        ...


def name_of(kind: type[Policy]) -> str:
    """What run files call a class of policies."""
    return cast("str", cast("Any", kind).name)


def settings_of(kind: type[Policy]) -> type[PolicySettings]:
    """What the settings of a class of policies are."""
    return cast("type[PolicySettings]", cast("Any", kind).Settings)


@runtime_checkable
class Judges(Protocol):
    """A policy that may take a growth back after the training that followed it."""

    def refuses(self, session: Session, before: Standing, after: Standing) -> str | None:
        """Why the last growth is taken back; None where it stays.

        Args:
            session: The network after that training.
            before: How the network stood before the growth.
            after: How it stands after the training.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Trimmed:
    """What a network does as well without.

    Attributes:
        scores: All that could go.
        chosen: Those that go.
        step: The rewrite that takes them away; None where nothing goes.
        because: Why they can go, as the log tells it; by default that the part that selects does not miss them.
    """

    scores: Sequence[Score]
    chosen: Sequence[Score]
    step: Pass | None
    because: str | None = None


@runtime_checkable
class Trims(Protocol):
    """A policy that makes the network smaller again where it is no worse for that."""

    def trim(self, session: Session, budget: Budget) -> Trimmed | None:
        """What can go, asked once after each growth, when it has been trained; None if the policy never trims."""
        ...


@runtime_checkable
class Checks(Protocol):
    """A policy that grows some networks only, or needs something of the data."""

    def check(self, session: Session) -> None:
        """Refuse what it cannot grow, before a run begins and anything is written. Raises RunError."""
        ...


@runtime_checkable
class Starts(Protocol):
    """A policy that supplies the first network where none is given."""

    def start(self, problem: Problem, config: RunConfig, chosen: Mapping[str, Any] | None = None) -> Network:
        """The network that growth starts from.

        Args:
            problem: Data and objective.
            config: Of the run, resolved.
            chosen: What `select_start` said, in a run that goes on.

        Raises:
            RunError: There is no such network for this data.
        """
        ...

    def select_start(self, session: Session) -> tuple[Network, Mapping[str, Any]] | None:
        """The best of several first networks, and what is told of the choice; None where nothing is to select.

        The session is left anywhere.
        """
        ...


@runtime_checkable
class Describes(Protocol):
    """A policy that has something to tell of a network after each training and at the end."""

    def describe(self, session: Session) -> Mapping[str, Any]:
        """JSON values by name."""
        ...


@runtime_checkable
class Explains(Protocol):
    """A policy that says itself what a growth event notes of its scores."""

    def explain(self, scores: Sequence[Score], chosen: Sequence[Score]) -> Mapping[str, Any]:
        """JSON values by name."""
        ...


@runtime_checkable
class Skips(Protocol):
    """A policy of which some spaces of a network are no candidates, or that finds no place for layers."""

    def skipped(self, session: Session) -> Mapping[str, str]:
        """Why there is nothing to choose in them, by name: asked after `propose`, and told once in a run."""
        ...


@runtime_checkable
class Trains(Protocol):
    """A policy that surrounds every phase of training: with an extra loss, frozen parameters, locks."""

    def around(self, session: Session) -> AbstractContextManager[None]:
        """What holds while a phase trains."""
        ...

    def after_step(self, session: Session) -> None:
        """Called after each step of the optimizer."""
        ...


@runtime_checkable
class Remembers(Protocol):
    """A policy that a resumed run must give back what it knew."""

    def state(self) -> Mapping[str, Any]:
        """All of it, as JSON values and numpy arrays."""
        ...

    def restored(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` gave."""
        ...
