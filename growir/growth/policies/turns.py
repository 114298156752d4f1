"""Several policies in one run that take turns, such as one that makes a network deeper and one that makes it wider."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, SerializeAsAny, field_validator

from growir.errors import RunError, cut
from growir.growth.budget import Budget
from growir.growth.policy import (
    Candidate,
    Checks,
    Describes,
    Judges,
    Policy,
    PolicySettings,
    Remembers,
    Score,
    Skips,
    Starts,
    Trains,
    Trimmed,
    Trims,
)
from growir.growth.registry import SeveralSettings, policy_class, short_name
from growir.growth.schedule import Entry, Log
from growir.rewrite import Pass

if TYPE_CHECKING:
    from growir.growth.config import RunConfig
    from growir.growth.problem import Problem
    from growir.growth.session import Session
    from growir.network import Network


class TurnsSettings(SeveralSettings):
    """Several policies that grow by turns, within one budget; one that finds nothing is passed over.

    Attributes:
        name: Policies that take turns.
        policies: Them, by name or with their settings, in the order of their turns. The first that can supplies the
            first network where none is given, and the first with a usual schedule says it.
    """

    name: Literal["turns"] = "turns"
    policies: tuple[SerializeAsAny[PolicySettings], ...] = Field(
        default=("autogrow", "firefly"),  # read as what is given
        validate_default=True,
    )

    @field_validator("policies")
    @classmethod
    def _each_is_one(cls, value: tuple[PolicySettings, ...]) -> tuple[PolicySettings, ...]:
        for each in value:
            if isinstance(each, SeveralSettings) or len(each.contestants()) > 1:
                raise ValueError(f"{cut(each.name)!r} is several policies, and each that takes turns is one")
        return value

    @property
    def ends_growth(self) -> bool:
        return all(each.ends_growth for each in self.policies)

    @property
    def usual_schedule(self) -> Mapping[str, Any]:
        return next((found for each in self.policies if (found := each.usual_schedule)), dict[str, Any]())


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """What one of the policies offers: whose it is, and its own candidate."""

    member: int
    candidate: Candidate


@dataclass(frozen=True, eq=False, kw_only=True)
class _Scored(Score):
    """A score as the engine sees it, and as its policy gave it."""

    own: Score


class Turns:
    """The policy; see TurnsSettings.

    A candidate is called by its policy, "autogrow: stage1". Whose turn it is follows from what grew last, so from the
    log, in which each policy reads what it did itself and how training went.
    """

    name: ClassVar[str] = "turns"
    Settings: ClassVar[type[PolicySettings]] = TurnsSettings

    def __init__(self, settings: TurnsSettings) -> None:
        self.settings = settings
        self.names: list[str] = []
        for each in settings.policies:
            self.names.append(short_name(each, self.names))
        self.members: list[Policy] = [policy_class(each.name)(each) for each in settings.policies]
        self._chosen: Sequence[Score] = ()  # of the growth that is being decided, as is what follows
        self._budget: Budget

    def start(self, problem: Problem, config: RunConfig, chosen: Mapping[str, Any] | None = None) -> Network:
        """The first network of the first policy that supplies one."""
        return self._starts().start(problem, config, chosen)

    def select_start(self, session: Session) -> tuple[Network, Mapping[str, Any]] | None:
        """The same policy's choice of a first network."""
        return self._starts().select_start(session)

    def _starts(self) -> Starts:
        found = next((each for each in self.members if isinstance(each, Starts)), None)
        if found is None:
            raise RunError(
                f"policy turns: {', '.join(self.names)} grow a network that is there, but none is given; give one to "
                "start from: growir.grow(network, data)"
            )
        return found

    def check(self, session: Session) -> None:
        """Refuse what one of the policies cannot grow, and one that takes growths back, which ends a run."""
        for name, each in zip(self.names, self.members, strict=True):
            if isinstance(each, Judges):
                raise RunError(
                    f"policy turns: {cut(name)} takes a growth back that its training does not justify, and ends the "
                    "run with that; let it grow in a run of its own"
                )
            if isinstance(each, Checks):
                each.check(session)

    # -- growth -------------------------------------------------------------------------------------------------------

    def propose(self, session: Session, budget: Budget) -> list[Candidate]:
        """What each policy offers, the one whose turn it is first."""
        self._budget = budget
        found: list[Candidate] = []
        for k in self._order(session.log):
            with self._alone(session, k):
                own = self.members[k].propose(session, budget)
            found += [replace(each, name=f"{self.names[k]}: {each.name}", part=_Part(k, each)) for each in own]
        return found

    def skipped(self, session: Session) -> Mapping[str, str]:
        """Why the policies find nothing to choose somewhere."""
        found: dict[str, str] = {}
        for name, each in zip(self.names, self.members, strict=True):
            if isinstance(each, Skips):
                found |= {f"{name}: {where}": why for where, why in each.skipped(session).items()}
        return found

    def score(self, session: Session, candidates: Sequence[Candidate], key: int) -> list[Score]:
        """What the candidates of one policy are worth: of the first that chooses any; of the last where none does."""
        found: list[Score] = []
        self._chosen = ()
        offered: list[tuple[_Part, Candidate]] = [(candidate.part, candidate) for candidate in candidates]
        for k in dict.fromkeys(part.member for part, _ in offered):
            own_candidates = [part.candidate for part, _ in offered if part.member == k]
            theirs = {part.candidate.name: candidate for part, candidate in offered if part.member == k}
            member = self.members[k]
            with self._alone(session, k):
                scores = member.score(session, own_candidates, key)
                chosen = {id(each) for each in member.select(session, scores, self._budget)}
            found = [_told(score, theirs[score.candidate.name]) for score in scores]
            self._chosen = [score for score, own in zip(found, scores, strict=True) if id(own) in chosen]
            if self._chosen:
                break
        return found

    def select(self, session: Session, scores: Sequence[Score], budget: Budget) -> Sequence[Score]:
        """What that policy chose."""
        return self._chosen

    def build(self, session: Session, chosen: Sequence[Score]) -> Pass:
        """As that policy builds it."""
        part: _Part = chosen[0].candidate.part
        member = self.members[part.member]
        with self._alone(session, part.member):
            return member.build(session, [score.own for score in chosen if isinstance(score, _Scored)])

    def trim(self, session: Session, budget: Budget) -> Trimmed | None:
        """What the policy that grew last takes away again."""
        k = self._last(session.log)
        if k is None:
            return None
        member = self.members[k]
        if not isinstance(member, Trims):
            return None
        with self._alone(session, k):
            found = member.trim(session, budget)
        if found is None:
            return None

        def told(score: Score) -> Score:
            return replace(score, candidate=replace(score.candidate, name=f"{self.names[k]}: {score.candidate.name}"))

        return replace(found, scores=list(map(told, found.scores)), chosen=list(map(told, found.chosen)))

    # -- whose turn it is ---------------------------------------------------------------------------------------------

    def _order(self, log: Log) -> list[int]:
        """The policies by turns, from the one behind that which grew last."""
        last, count = self._last(log), len(self.members)
        first = 0 if last is None else last + 1
        return [(first + k) % count for k in range(count)]

    def _last(self, log: Log) -> int | None:
        """The policy that grew last; None where none has."""
        grown = (entry for entry in reversed(log.entries) if entry.what == "growth")
        return next((self._whose(entry) for entry in grown), None)

    def _whose(self, entry: Entry) -> int | None:
        """The policy that a growth or a trim is of."""
        name = entry.chosen[0].partition(": ")[0] if entry.chosen else None
        return self.names.index(name) if name in self.names else None

    def log_of(self, log: Log, member: int) -> Log:
        """The log as one of the policies reads it: its own growths by its own names, and none of the others'."""
        before = len(self.names[member]) + len(": ")
        entries: list[Entry] = []
        for entry in log.entries:
            if entry.what not in ("growth", "trimmed"):
                entries.append(entry)
            elif self._whose(entry) == member:
                entries.append(replace(entry, chosen=tuple(name[before:] for name in entry.chosen)))
        return Log(tuple(entries))

    @contextmanager
    def _alone(self, session: Session, member: int) -> Generator[None]:
        """One of the policies reads the log as its own."""
        log = session.log
        session.log = self.log_of(log, member)
        try:
            yield
        finally:
            session.log = log

    # -- what some of them do -----------------------------------------------------------------------------------------

    @contextmanager
    def around(self, session: Session) -> Generator[None]:
        """All that holds for any of them while a phase trains."""
        with ExitStack() as stack:
            for each in self.members:
                if isinstance(each, Trains):
                    around: AbstractContextManager[None] = each.around(session)
                    stack.enter_context(around)
            yield

    def after_step(self, session: Session) -> None:
        """Called after each step of the optimizer."""
        for each in self.members:
            if isinstance(each, Trains):
                each.after_step(session)

    def state(self) -> Mapping[str, Any]:
        """What each of them remembers, by its name."""
        found: dict[str, Any] = {}
        for name, each in zip(self.names, self.members, strict=True):
            if isinstance(each, Remembers):
                found |= {f"{name}: {key}": value for key, value in each.state().items()}
        return found

    def restored(self, state: Mapping[str, Any]) -> None:
        """Give each what it remembered."""
        for name, each in zip(self.names, self.members, strict=True):
            before = f"{name}: "
            if isinstance(each, Remembers):
                each.restored({key[len(before) :]: value for key, value in state.items() if key.startswith(before)})

    def describe(self, session: Session) -> Mapping[str, Any]:
        """What they have to tell."""
        found: dict[str, Any] = {}
        for each in self.members:
            if isinstance(each, Describes):
                found |= each.describe(session)
        return found


def _told(score: Score, candidate: Candidate) -> _Scored:
    """A score of one of the policies, of the candidate as the engine knows it."""
    return _Scored(
        candidate=candidate,
        gain=score.gain,
        error=score.error,
        notes=score.notes,
        predicted=score.predicted,
        ordinal=score.ordinal,
        own=score,
    )
