"""NASH (Elsken et al. 2017): children by random moves are each trained for a while, and the best of them goes on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from growir.errors import RunError
from growir.growth.budget import Budget, GrowthLimits
from growir.growth.measure.moves import Move, drawn_moves
from growir.growth.measure.sites import pinned_spaces
from growir.growth.measure.trials import operations, price, selection_loss, trained
from growir.growth.policy import Candidate, PolicySettings, Score
from growir.growth.recipe import RateConfig, Recipe
from growir.growth.schedule import Train
from growir.growth.sections import Count, Positive, Share
from growir.growth.select import best
from growir.growth.training import recipe_of
from growir.passes import Sequence as Steps
from growir.passes import Update
from growir.rewrite import Pass

if TYPE_CHECKING:
    from growir.growth.session import Session

CHILDREN = 8


class NashSettings(PolicySettings):
    """Children by random moves, each trained for a while, of which the best goes on.

    A child becomes wider by copies of channels and deeper by layers that start as the identity. It then learns at rates
    that fall from the run's to nothing, and the part of the data that selects says how good it is.

    Attributes:
        name: NASH: random moves, of which short trainings find the best.
        children: The most that are tried at a growth. By default 8, and with `compute` as many as that lasts for.
        child_epochs: For how many epochs each is trained.
        child_steps: For how many steps of the optimizer each is trained, in place of epochs. By default not at all.
        compute: What all children of a growth cost together at most, to train and to judge, in epochs of the network as
            it is. One child at least is tried. By default no limit.
        moves: How many moves make a child.
        move: "wider", "deeper", or "both" as chance has it.
        by: The share of its width that a space gains by a move.
        fill: What random widenings then use up, so that all children are of one size: "growth" is what one growth may
            add, where [budget] per_growth limits it, "budget" all that the network may have. "none" adds no more.
        keep_training: Whether the growth brings the weights that the best child has learned, as in the paper. The
            history then holds all of them. Otherwise it brings the moves alone, and the function stays.
    """

    name: str = "nash"
    children: Count | None = None
    child_epochs: Count = 1
    child_steps: Count | None = None
    compute: Positive | None = None
    moves: Count = 5
    move: Move = "both"
    by: Share = 0.25
    fill: Literal["growth", "budget", "none"] = "growth"
    keep_training: bool = True


class Nash:
    """The policy; see NashSettings."""

    name: ClassVar[str] = "nash"
    Settings: ClassVar[type[PolicySettings]] = NashSettings

    def __init__(self, settings: NashSettings) -> None:
        self.settings = settings
        self._learned: Update | None = None  # what training has changed in the best child of this growth

    def check(self, session: Session) -> None:
        """Raises RunError where children would have to fill a budget without an end."""
        limits = session.config.budget
        if self.settings.fill == "budget" and limits.parameters is limits.macs is None:
            raise RunError(
                '[policy] fill is "budget", but nothing limits the network; give [budget] parameters or macs'
            )

    def propose(self, session: Session, budget: Budget) -> list[Candidate]:
        """The children, as many as the settings have and the compute lasts for."""
        s, graph = self.settings, session.graph
        key = len(graph.history.steps) if graph.history else 0
        most = s.children or (CHILDREN if s.compute is None else math.inf)
        left = math.inf if s.compute is None else s.compute * operations(session, graph, Recipe(epochs=1))
        fill = s.fill == "budget" or (s.fill == "growth" and _limits(budget.limits.per_growth))
        found: list[Candidate] = []
        while len(found) < most:
            draws = (50, key, len(found))
            child = drawn_moves(budget, session.seed, *draws, count=s.moves, move=s.move, by=s.by, fill=fill)
            if child is None or not budget.fits(child):
                break
            left -= price(session, budget.rewritten(child).graph, self._recipe(session))
            if found and left < 0:
                break
            found.append(Candidate(f"child {len(found)}", budget.cost(child), child))
        return found

    def skipped(self, session: Session) -> Mapping[str, str]:
        """Why spaces cannot become wider."""
        return pinned_spaces(session.graph) if self.settings.move != "deeper" else {}

    def score(self, session: Session, candidates: Sequence[Candidate], key: int) -> list[Score]:
        """By how much each child's loss on the part that selects is smaller, after its training, than the present one.

        One whose training diverges is worth less than any other.
        """
        before, found, most = selection_loss(session), list[Score](), -math.inf
        self._learned = None
        for turn, candidate in enumerate(candidates):
            child = trained(session, candidate.part, self._recipe(session), key, turn)
            finite = math.isfinite(child.loss)
            gain = before - child.loss if finite else -math.inf
            notes = {} if finite else {"diverged": True}
            found.append(Score(candidate, gain, notes=notes, ordinal=finite and not self.settings.keep_training))
            if gain > most:
                self._learned, most = child.learned, gain
        return found

    def select(self, session: Session, scores: Sequence[Score], budget: Budget) -> list[Score]:
        """The best child, even where it is worse than the network as it is: that is what growth has come to."""
        return best(scores, least=-math.inf)

    def build(self, session: Session, chosen: Sequence[Score]) -> Pass:
        """The child's moves and, as an update of all weights, what it has learned."""
        step: Steps = chosen[0].candidate.part
        if self._learned is None or not self.settings.keep_training:
            return step
        return Steps(passes=(*step.passes, self._learned))

    def _recipe(self, session: Session) -> Recipe:
        """How a child is trained: as the run trains, but for the rates."""
        s = self.settings
        found = recipe_of(session.train_config, Train(steps=s.child_steps) if s.child_steps else Train(s.child_epochs))
        return found.model_copy(update={"rate": RateConfig(name="cosine"), "stopping": None})


def _limits(each: GrowthLimits | None) -> bool:
    """Whether the limits of one growth say how much wider a network may become."""
    return each is not None and any(v is not None for v in (each.parameters, each.macs, each.units, each.share))
