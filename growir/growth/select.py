"""The usual ways to select: the best, as many of the best as fit, a share of each group, the most gain per cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from growir.data.shuffling import generator
from growir.growth.budget import Cost
from growir.growth.policy import Candidate, Score

S = TypeVar("S", bound=Score)
T = TypeVar("T")


def ranked(scores: Sequence[S]) -> list[S]:
    """The largest gain first; of equal ones the first that was proposed."""
    return sorted(scores, key=lambda score: -score.gain)


def by_chance(candidates: Sequence[Candidate], *key: int) -> list[Score]:
    """Scores that chance draws, between 0 and 1 and a function of the key: they rank, and promise nothing."""
    drawn = torch.rand(len(candidates), generator=generator(*key))
    return [Score(candidate, float(rank), ordinal=True) for candidate, rank in zip(candidates, drawn, strict=True)]


def best(scores: Sequence[S], least: float = 0.0) -> list[S]:
    """The one with the largest gain, if that is larger than `least`."""
    return [score for score in ranked(scores)[:1] if score.gain > least]


def top(scores: Sequence[S], count: int, least: float = 0.0) -> list[S]:
    """At most `count` of the best, those with a gain larger than `least`."""
    return [score for score in ranked(scores)[:count] if score.gain > least]


def within(scores: Sequence[S], room: Cost, least: float = 0.0) -> list[S]:
    """The best whose costs together have room: one that has none is passed over for the next.

    Costs of candidates add up only nearly, since neighbours share weights; `fitting` asks for what they cost together.
    """
    found: list[S] = []
    left = room
    for score in ranked(scores):
        cost = score.candidate.cost
        if score.gain > least and all(
            has <= most
            for has, most in (
                (cost.parameters, left.parameters),
                (cost.macs, left.macs),
                (cost.units, left.units),
                (cost.layers, left.layers),
            )
        ):
            found.append(score)
            left = left - cost
    return found


def fitting(ordered: Sequence[T], fits: Callable[[Sequence[T]], bool]) -> list[T]:
    """The longest beginning that fits, found in a few questions: costs only grow with what is taken."""
    low, high = 0, len(ordered) + 1  # so many fit, so many do not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(ordered[:middle]) else (low, middle)
    return list(ordered[:low])


def filled(
    ordered: Sequence[T], fits: Callable[[Sequence[T]], bool], alike: Callable[[T], object] | None = None
) -> list[T]:
    """The longest beginning that fits, and each later one that still does: no budget is left where one had room.

    Args:
        ordered: The best first.
        fits: Whether some fit together; costs only grow with what is taken.
        alike: What those have in common of which none fits where another did not, such as the units of one space; so
            that only few questions are asked.
    """
    found: list[T] = []
    left: list[T] = list(ordered)
    while left:
        taken = tuple(found)

        def fit_too(some: Sequence[T], taken: Sequence[T] = taken) -> bool:
            return fits([*taken, *some])

        more = fitting(left, fit_too)
        found += more
        refused, left = left[len(more) : len(more) + 1], left[len(more) + 1 :]
        if refused and alike is not None:
            kind = alike(refused[0])
            left = [score for score in left if alike(score) != kind]
    return found


def shares(scores: Sequence[S], group: Callable[[S], object], share: float, least: float = 0.0) -> list[S]:
    """Of each group (a space, a layer) the best share of its candidates, one at least, best first over all."""
    groups: dict[object, list[S]] = {}
    for score in scores:
        groups.setdefault(group(score), []).append(score)
    found = [score for each in groups.values() for score in top(each, max(1, round(share * len(each))), least)]
    return ranked(found)


def per_cost(scores: Sequence[S]) -> list[S]:
    """The largest gain for each parameter first; those that cost none before all others."""
    return sorted(scores, key=lambda s: (s.candidate.cost.parameters > 0, -_price(s)))


@dataclass(frozen=True, slots=True, eq=False)
class Together(Generic[S]):
    """Candidates that are chosen together or not at all.

    Attributes:
        scores: One of each place that grows alike.
        gain: The sum of their gains.
    """

    scores: tuple[S, ...]
    gain: float


def together(scores: Sequence[S], place: Callable[[S], object], kind: Callable[[S], object]) -> list[Together[S]]:
    """Candidates of places that grow alike: the best of each with each other, then the second best, and so on.

    So a place gains as many as each other of its kind, each its own best; where one has fewer candidates, so many are
    left out of all. What stands alone is together with nothing. The largest sum comes first.

    Args:
        scores: All candidates.
        place: Where one is, such as a channel space.
        kind: What the places that grow alike have in common.
    """
    kinds: dict[object, dict[object, list[S]]] = {}
    for score in scores:
        kinds.setdefault(kind(score), {}).setdefault(place(score), []).append(score)
    found: list[Together[S]] = []
    for places in kinds.values():
        rows = zip(*(ranked(each) for each in places.values()), strict=False)
        found += [Together(row, sum(score.gain for score in row)) for row in rows]
    return sorted(found, key=lambda each: -each.gain)


def _price(score: Score) -> float:
    return score.gain / max(score.candidate.cost.parameters, 1)
