"""Net2Net (Chen et al. 2016): wider by copies of random channels, deeper by layers that start as the identity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from growir.channels import ChannelSpace
from growir.data.shuffling import generator
from growir.growth.budget import Budget
from growir.growth.measure.sites import free_spaces, wider
from growir.growth.policy import Candidate, PolicySettings, Score
from growir.growth.sections import Share
from growir.growth.select import by_chance, fitting, shares
from growir.passes import InsertLayer, Widen
from growir.passes import Sequence as Steps
from growir.rewrite import Pass

if TYPE_CHECKING:
    from growir.growth.session import Session

IDENTITY = "identity"  # the activation of an inserted layer that has none


class Net2NetSettings(PolicySettings):
    """Copies of channels and identity layers, where chance says.

    Attributes:
        name: Net2Net: copies of channels, and layers that start as the identity.
        move: "wider", "deeper", or "both" at a time.
        spaces: The share of the free channel spaces that become wider at a time, one at least.
        by: The share of its width that each of them gains.
        layers: The share of the places for a layer that get one at a time, one at least.
    """

    name: str = "net2net"
    move: Literal["wider", "deeper", "both"] = "wider"
    spaces: Share = 0.5
    by: Share = 0.25
    layers: Share = 0.25


class Net2Net:
    """The policy; see Net2NetSettings."""

    name: ClassVar[str] = "net2net"
    Settings: ClassVar[type[PolicySettings]] = Net2NetSettings

    def __init__(self, settings: Net2NetSettings) -> None:
        self.settings = settings

    def propose(self, session: Session, budget: Budget) -> list[Candidate]:
        """The widening of each free space, and a layer wherever one keeps the function with an activation."""
        graph, steps = session.graph, list[Pass]()
        key = len(graph.history.steps) if graph.history else 0
        if self.settings.move != "deeper":
            steps += [
                _copied(space, wider(space, self.settings.by, session.seed), session.seed, key, k)
                for k, space in enumerate(free_spaces(graph))
            ]
        if self.settings.move != "wider":
            # Behind a layer that only copies its input another one is the same again; one with an activation is more.
            kept = (step for step in InsertLayer.candidates(graph) if not step.residual)
            steps += [step for step in kept if step.activation != IDENTITY]
        named = [(f"{step.name} {getattr(step, 'node', None) or getattr(step, 'after', '')}", step) for step in steps]
        return [Candidate(name, budget.cost(step), step) for name, step in named if budget.fits(step)]

    def score(self, session: Session, candidates: Sequence[Candidate], key: int) -> list[Score]:
        """A number by chance: nothing is predicted of it."""
        return by_chance(candidates, session.seed, 21, key)

    def select(self, session: Session, scores: Sequence[Score], budget: Budget) -> list[Score]:
        """The shares that the settings say, as many of them as fit together."""
        settings = self.settings
        widenings = [score for score in scores if isinstance(score.candidate.part, Widen)]
        layers = [score for score in scores if not isinstance(score.candidate.part, Widen)]
        # Names of layers are of the graph as it is: widenings, which keep all names, go first.
        ordered = [
            *(shares(widenings, lambda score: None, settings.spaces) if widenings else []),
            *(shares(layers, lambda score: None, settings.layers) if layers else []),
        ]
        return fitting(ordered, lambda chosen: budget.fits(self.build(session, chosen)))

    def build(self, session: Session, chosen: Sequence[Score]) -> Pass:
        """All of them as one rewrite."""
        return Steps(passes=tuple(score.candidate.part for score in chosen))


def _copied(space: ChannelSpace, step: Widen, *key: int) -> Widen:
    """The widening by copies of channels that chance picks, where copies keep the function."""
    if space.uniform or space.tied:
        return step  # copies of every channel, or fresh ones, as the pass itself decides
    units = step.by // space.stride * space.growth[space.space]
    drawn = torch.randint(space.units, (units,), generator=generator(22, *key))
    return step.model_copy(update={"copies": tuple(map(int, drawn))})
