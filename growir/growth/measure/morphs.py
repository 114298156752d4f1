"""Morphisms of single units: what a policy of splits and prunes chooses among, and the pass that does what it chose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

from growir.growth.budget import Budget
from growir.growth.measure.directions import Learned
from growir.growth.measure.sites import Site
from growir.growth.measure.splits import split
from growir.growth.policy import Candidate, Score, UnitAt
from growir.passes import Prune
from growir.passes import Sequence as Steps
from growir.rewrite import Pass

Kind = Literal["split", "prune"]


@dataclass(frozen=True, slots=True, eq=False)
class Morph:
    """One of a site's smallest growths, mostly one unit, is split or pruned: the `part` of a candidate.

    Attributes:
        site: Its site.
        kind: What becomes of it.
        growth: Counted from 0.
        found: What was learned of it; None before.
    """

    site: Site
    kind: Kind
    growth: int
    found: Learned | None = None


def morph_of(score: Score) -> Morph:
    """What the candidate of a score is."""
    return cast("Morph", score.candidate.part)


def proposed(sites: Sequence[Site], budget: Budget, *, prunes: bool) -> list[Candidate]:
    """A split of each unit that there is room for, and perhaps a prune of each where another one stays."""
    found: list[Candidate] = []
    for site in sites:
        steps: list[tuple[Kind, Pass]] = [("split", split(site, {}, {}, [0]))]
        if prunes and site.count > 1:
            steps.append(("prune", prune(site, [0])))
        for kind, step in steps:
            if budget.fits(step):
                cost = budget.cost(step)
                found += [
                    Candidate(f"{site.name} {kind} {k}", cost, Morph(site, kind, k), UnitAt(site.name, kind, k))
                    for k in range(site.count)
                ]
    return found


def scored(candidates: Sequence[Candidate], learn: Callable[[Sequence[Site]], Learned]) -> list[Score]:
    """The predicted decrease of the mean loss, of those that have a finite one.

    Args:
        candidates: Whose parts are morphisms.
        learn: Learns of their sites.
    """
    found = learn(list(dict.fromkeys(candidate.part.site for candidate in candidates)))
    scores: list[Score] = []
    for candidate in candidates:
        morph: Morph = candidate.part
        changes = (found.splits if morph.kind == "split" else found.prunes).get(morph.site.name)
        if changes is not None and bool(changes[morph.growth].isfinite()):
            part = replace(candidate, part=replace(morph, found=found))
            scores.append(Score(part, -float(changes[morph.growth])))
    return scores


def built(chosen: Sequence[Score]) -> Pass:
    """All splits as one rewrite, in the directions that were learned, and behind them the prunes.

    A prune names units as they are: copies lie behind them, so it finds them where they were.
    """
    by_site: dict[str, tuple[Morph, list[int], list[int]]] = {}
    for morph in map(morph_of, chosen):
        _, splits, prunes = by_site.setdefault(morph.site.name, (morph, [], []))
        (splits if morph.kind == "split" else prunes).append(morph.growth)
    passes: list[Pass] = []
    for name, (morph, splits, _) in by_site.items():
        if splits and morph.found is not None:
            passes.append(split(morph.site, morph.found.effects.blocks[name], morph.found.theta[name], splits))
    passes += [prune(morph.site, prunes) for morph, _, prunes in by_site.values() if prunes]
    return Steps(passes=tuple(passes))


def prune(site: Site, growths: Sequence[int]) -> Prune:
    """The pass that takes some of a site's smallest growths away."""
    each = site.space.growth[site.space.space]
    units = [unit for k in sorted(growths) for unit in range(k * each, (k + 1) * each)]
    return Prune(node=site.name, channels=tuple(units))
