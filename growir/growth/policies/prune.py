"""Pruning by importance: the units that a network would miss least go, until it is as small as it is to be."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from growir.channels import ChannelSpace
from growir.errors import RunError
from growir.growth.budget import Budget, Cost
from growir.growth.measure.importance import Importance, importances
from growir.growth.measure.sites import free_spaces, pinned_spaces
from growir.growth.policy import Candidate, PolicySettings, Score
from growir.growth.sections import Count, Section, Share
from growir.growth.select import ranked
from growir.passes import Prune
from growir.passes import Sequence as Steps
from growir.rewrite import Pass

if TYPE_CHECKING:
    from growir.growth.session import Session


def _amount(value: int | str) -> int | str:
    if isinstance(value, str):
        found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?%", value)
        if found is None or not 0 < float(found.group(1)) <= 100:
            raise ValueError('a whole number, or a share from 0 to 100 % such as "60%", is needed')
    elif value <= 0:
        raise ValueError("a number above 0 is needed")
    return value


Amount = Annotated[Annotated[int, Field(strict=True)] | Annotated[str, Field(strict=True)], AfterValidator(_amount)]


class Goal(Section):
    """How small a network is to become; of a network as it was before, or in numbers.

    Attributes:
        parameters: At most so many parameters, or such a share: "60%".
        macs: At most so many multiply-accumulates per sample, or such a share.
    """

    parameters: Amount | None = None
    macs: Amount | None = None

    @model_validator(mode="after")
    def _says(self) -> Self:
        if self.parameters is self.macs is None:
            raise ValueError('parameters or macs is needed, such as {parameters = "60%"}')
        return self


class PruneSettings(PolicySettings):
    """Units that go, the least important first.

    Attributes:
        name: Pruning by importance.
        to: How small the network becomes: a table with parameters or macs, whole numbers or shares such as "60%".
        importance: What counts: "magnitude" of the weights that make a unit, its "scale" in norms, "taylor" (the change
            of the loss to first order), or "random".
        scope: Whether units of all layers are compared, "global", or each "layer" loses the same share.
        rounds: In how many growths, with training between them, by equal factors.
        keep: The share of each space that stays in any case, one unit at least.
    """

    name: str = "prune"
    to: Goal = Goal(parameters="60%")
    importance: Importance = "magnitude"
    scope: Literal["global", "layer"] = "global"
    rounds: Count = 1
    keep: Share = 0.1


@dataclass(frozen=True, slots=True)
class _Part:
    """Units of a space that go together, and which of its such parts they are, the least important first."""

    space: str
    units: tuple[int, ...]
    place: float
    importance: float


class Pruning:
    """The policy; see PruneSettings."""

    name: ClassVar[str] = "prune"
    Settings: ClassVar[type[PolicySettings]] = PruneSettings

    def __init__(self, settings: PruneSettings) -> None:
        self.settings = settings
        self._began: dict[str, int] = {}  # what the network cost before the first growth, and how many there were
        self._goal: dict[str, float] = {}

    def state(self) -> Mapping[str, Any]:
        """What the network cost at first, and how many growths there were."""
        return dict(self._began)

    def restored(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` gave."""
        self._began = dict(state)

    def check(self, session: Session) -> None:
        """Raises RunError where trials are to find the size, which `to` says."""
        if session.config.schedule.trials:
            raise RunError(
                "[schedule] trials: they find how large a network should be, but policy prune makes it as small as "
                "[policy] to says; leave trials out"
            )

    def propose(self, session: Session, budget: Budget) -> list[Candidate]:
        """Every part of a free space that may go; nothing once the network is as small as it is to be."""
        costs = session.graph.costs()
        if not self._began:
            self._began = {"parameters": costs.parameters, "macs": costs.macs, "rounds": 0}
        done = (self._began["rounds"] + 1) / self.settings.rounds
        self._goal = {what: self._limit(what, most, done) for what, most in self.settings.to if most is not None}
        if done > 1 or self._reached(Cost(costs.parameters, costs.macs)):
            return []
        found: list[Candidate] = []
        spaces = _apart(free_spaces(session.graph))
        counts = importances(session, spaces, self.settings.importance, self._began["rounds"])
        for space in spaces:
            order = [int(unit) for unit in counts[space.name].argsort(stable=True)]
            each = space.shrink[space.space]
            most = min((other.size - self._least(other.size)) // units for other, units in space.shrink.items())
            if most < 1:
                continue
            cost = budget.cost(Prune(node=space.name, channels=tuple(sorted(order[:each]))))
            for k in range(most):
                units = order[k * each : (k + 1) * each]
                part = _Part(space.name, tuple(units), (k + 1) / most, float(counts[space.name][units].sum()))
                found.append(Candidate(f"{space.name} {' '.join(map(str, sorted(units)))}", cost, part))
        self._began["rounds"] += 1
        return found

    def skipped(self, session: Session) -> Mapping[str, str]:
        """Why spaces cannot become narrower."""
        return pinned_spaces(session.graph)

    def _least(self, units: int) -> int:
        """How many units of a space stay in any case."""
        return max(1, round(self.settings.keep * units))

    def _limit(self, what: str, most: int | str, done: float) -> float:
        """The most of something after this growth: equal factors lead from what there was to what is to be."""
        began = self._began[what]
        goal = began * float(most.rstrip(" %")) / 100 if isinstance(most, str) else float(most)
        return float(began * (goal / began) ** min(done, 1.0)) if began else goal

    def _reached(self, cost: Cost) -> bool:
        return all(getattr(cost, what) <= most for what, most in self._goal.items())

    def score(self, session: Session, candidates: Sequence[Candidate], key: int) -> list[Score]:
        """The least important first; by the Taylor measure a gain is what the loss is predicted to change."""
        ordinal = self.settings.importance != "taylor" or self.settings.scope == "layer"
        layer = self.settings.scope == "layer"
        return [
            Score(each, -(each.part.place if layer else each.part.importance), ordinal=ordinal) for each in candidates
        ]

    def select(self, session: Session, scores: Sequence[Score], budget: Budget) -> list[Score]:
        """As few as make the network small enough, in a few questions; all where even they do not."""
        ordered, now = ranked(scores), session.graph.costs()
        low, high = 0, len(ordered)  # so many are too few, so many are enough or all
        while high - low > 1:
            middle = (low + high) // 2
            more = budget.cost(self.build(session, ordered[:middle]))
            enough = self._reached(Cost(now.parameters + more.parameters, now.macs + more.macs))
            low, high = (low, middle) if enough else (middle, high)
        return ordered[:high]

    def build(self, session: Session, chosen: Sequence[Score]) -> Pass:
        """One rewrite that takes all of them away."""
        gone: dict[str, list[int]] = {}
        for score in chosen:
            gone.setdefault(score.candidate.part.space, []).extend(score.candidate.part.units)
        return Steps(passes=tuple(Prune(node=name, channels=tuple(sorted(units))) for name, units in gone.items()))


def _apart(spaces: Sequence[ChannelSpace]) -> list[ChannelSpace]:
    """The spaces of which none loses units with another one: what is named of one stays true when others shrink."""
    found: list[ChannelSpace] = []
    moved = set[object]()
    for space in spaces:
        if not moved & space.shrink.keys():
            found.append(space)
            moved |= space.shrink.keys()
    return found
