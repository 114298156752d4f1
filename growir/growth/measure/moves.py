"""Moves that keep the function, as chance draws them: copies of channels, and layers that start as the identity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from growir.channels import ChannelSpace
from growir.data.shuffling import generator
from growir.graph import Graph
from growir.growth.budget import Budget
from growir.growth.measure.sites import free_spaces, wider
from growir.passes import InsertLayer, Widen
from growir.passes import Sequence as Steps
from growir.rewrite import Pass

Move = Literal["wider", "deeper", "both"]
IDENTITY = "identity"  # the activation of an inserted layer that has none


def copied(space: ChannelSpace, step: Widen, draws: torch.Generator) -> Widen:
    """The widening by copies of channels that chance picks, where copies keep the function."""
    if space.uniform or space.tied:
        return step  # copies of every channel, or fresh ones, as the pass itself decides
    units = step.by // space.stride * space.growth[space.space]
    drawn = torch.randint(space.units, (units,), generator=draws)
    return step.model_copy(update={"copies": tuple(map(int, drawn))})


def identity_layers(graph: Graph) -> list[InsertLayer]:
    """A layer wherever one keeps the function, with an activation.

    Behind a layer that only copies its input another one is the same again; one with an activation is more.
    """
    kept = (step for step in InsertLayer.candidates(graph) if not step.residual)
    return [step for step in kept if step.activation != IDENTITY]


def drawn_moves(budget: Budget, seed: int, *key: int, count: int, move: Move, by: float, fill: bool) -> Steps | None:
    """Moves that chance draws, one after another, each of the network that those before it leave.

    Args:
        budget: Of the growth; what has no room is drawn narrower, or not at all.
        seed: Of the run.
        key: What is drawn by, integers of at least 0.
        count: How many.
        move: Of which kind.
        by: The share of its width that a space gains by a widening.
        fill: Whether further widenings then use up all that the budget has room for; something must limit that.

    Returns:
        All of them as one rewrite, or None where there is room for none.
    """
    drawing = _Drawing(budget, by, seed, generator(seed, *key))
    for _ in range(count):
        deeper = move == "deeper" or (move == "both" and drawing.pick(2) == 1)
        if deeper:
            drawing.deepen()
        else:
            drawing.widen()
    while fill and drawing.widen():
        pass
    return Steps(passes=tuple(drawing.passes)) if drawing.passes else None


@dataclass(slots=True)
class _Drawing:
    """Moves so far, and what they leave of the budget."""

    budget: Budget
    by: float
    seed: int
    draws: torch.Generator
    passes: list[Pass] = field(default_factory=list[Pass])
    full: set[str] = field(default_factory=set[str])  # spaces of which no more units fit

    def widen(self) -> bool:
        """Copies of channels in one space, if one is left that has room."""
        while spaces := [space for space in free_spaces(self.budget.graph) if space.name not in self.full]:
            space = spaces[self.pick(len(spaces))]
            whole = copied(space, wider(space, self.by, self.seed), self.draws)
            step = self.budget.narrowed(_first_of(whole), whole.by, multiple=space.stride)
            if step != whole:
                self.full.add(space.name)
            if step is not None:
                self._take(step)
                return True
        return False

    def deepen(self) -> None:
        """A layer at one of the places that have room for it, if there is any."""
        places: Sequence[Pass] = [step for step in identity_layers(self.budget.graph) if self.budget.fits(step)]
        if places:
            self._take(places[self.pick(len(places))])

    def pick(self, count: int) -> int:
        """One of so many."""
        return int(torch.randint(count, (), generator=self.draws))

    def _take(self, step: Pass) -> None:
        self.passes.append(step)
        self.budget = self.budget.after(step)


def _first_of(whole: Widen) -> Callable[[int], Widen]:
    """A widening by fewer channels, of which the first are as they were drawn."""

    def narrower(by: int) -> Widen:
        return whole.model_copy(update={"by": by, "copies": whole.copies[: len(whole.copies) * by // whole.by]})

    return narrower
