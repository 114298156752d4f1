"""Net2Net (Chen et al. 2016): wider by copies of random channels, deeper by layers that start as the identity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from growir.data.shuffling import generator
from growir.growth.budget import Budget
from growir.growth.measure.moves import Move, copied, identity_layers
from growir.growth.measure.sites import free_spaces, pinned_spaces, wider
from growir.growth.policy import Candidate, PolicySettings, Score
from growir.growth.sections import Share
from growir.growth.select import by_chance, fitting, shares
from growir.passes import Sequence as Steps
from growir.passes import Widen
from growir.rewrite import Pass

if TYPE_CHECKING:
    from growir.growth.session import Session


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
    move: Move = "wider"
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
                copied(space, wider(space, self.settings.by, session.seed), generator(22, session.seed, key, k))
                for k, space in enumerate(free_spaces(graph))
            ]
        if self.settings.move != "wider":
            steps += identity_layers(graph)
        named = [(f"{step.name} {getattr(step, 'node', None) or getattr(step, 'after', '')}", step) for step in steps]
        return [Candidate(name, budget.cost(step), step) for name, step in named if budget.fits(step)]

    def skipped(self, session: Session) -> Mapping[str, str]:
        """Why spaces cannot become wider."""
        return pinned_spaces(session.graph) if self.settings.move != "deeper" else {}

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
