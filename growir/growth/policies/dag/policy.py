"""DAG growth by expressivity bottleneck (Douka et al. 2025): edges, new states, wider states, from the empty graph.

Every candidate gets its weights from one solve on the fitting part and its amplitude from a line search on the next;
the one that leaves the smallest loss on the third part is applied, exactly as it was measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist
from typing import Literal

import torch

from growir.graph import Graph
from growir.growth.config import BudgetConfig, DagConfig
from growir.growth.loss import mean_and_error
from growir.growth.policies.dag.bottleneck import Remembered
from growir.growth.policies.dag.measuring import Measured, measured
from growir.growth.policies.dag.moves import Moves
from growir.growth.policies.dag.scoring import Scoring
from growir.growth.policies.dag.states import StateView, fed_by
from growir.growth.policy import Scored
from growir.growth.session import Session
from growir.passes import AddEdge, AddNode, Widen
from growir.rewrite import Pass


class Dag:
    """The policy; see DagConfig for its settings."""

    name = "dag"

    def __init__(self, config: DagConfig, budget: BudgetConfig) -> None:
        self.config = config
        self.moves = Moves(config, budget)
        self._kept: Remembered = {}
        self._measured: tuple[Graph, Measured] | None = None

    # -- propose ------------------------------------------------------------------------------------------------------

    def propose(self, session: Session) -> list[Pass]:
        """Every new edge, new state and widening that fits the budget.

        Restricted, and with the Bayesian information criterion, only those that feed or widen the state with the
        largest bottleneck, of those that any move feeds or widens.
        """
        graph = session.graph
        moves = self.moves.moves(graph)
        self._measured = None
        if self.config.strategy not in ("restricted", "bic") or not moves:
            return moves
        found = self._measure(session)
        self._measured = graph, found
        touched = set[str]().union(*(_touches(move, found.states) for move in moves))
        worst = max((s for s in found.states if s.node in touched), key=lambda state: found.bottleneck(state).psi)
        return [move for move in moves if worst.node in _touches(move, found.states)]

    # -- score --------------------------------------------------------------------------------------------------------

    def score(self, session: Session, candidates: Sequence[Pass], step: int) -> list[Scored]:
        """Weights, amplitude and gain of each candidate."""
        graph = session.graph
        # What a proposal has just measured still holds; after any training it would not.
        known, self._measured = self._measured, None
        scoring = Scoring(known[1] if known and known[0] is graph else self._measure(session), self.config, step)
        moves = [(candidate, self.moves.addition(graph, candidate)) for candidate in candidates]
        found: list[Scored] = []
        made = scoring.neurons(moves, self.config.directions)
        for k, ((candidate, new), neurons) in enumerate(zip(moves, made, strict=True)):
            session.tick("scoring", k, len(candidates))
            found.append(scoring.score(candidate, self.moves.rewritten(graph, candidate), new, neurons))
        return found

    def _measure(self, session: Session) -> Measured:
        offered = self.moves.offered(session.graph)
        return measured(session, offered, self.config.samples, self.config.ridge, self._kept)

    # -- select -------------------------------------------------------------------------------------------------------

    def _worth(self, scored: Sequence[Scored]) -> list[Scored]:
        """Those that improve the selection part by a paired one-sided test."""
        rate = self.config.error_rate
        return [s for s in scored if s.improves and _certain(s.gain or 0.0, s.error or 0.0, rate)]

    def select(self, session: Session, scored: Sequence[Scored]) -> list[Scored]:
        """The one that leaves the smallest loss on the selection part, or the smallest criterion."""
        worth = self._worth(scored)
        if not worth:
            return []
        if self.config.strategy == "bic":
            return [min(worth, key=lambda s: bic(session, s.loss, s.parameters))]
        return [min(worth, key=lambda s: s.loss)]

    def last_resort(self, session: Session, scored: Sequence[Scored]) -> list[Scored]:
        """The candidate with the largest prediction, idle at first, on probation.

        Untrained neurons may gain nothing where trained ones would gain much: what a few samples say about the first
        non-linear part of a nearly linear problem, say, is noise.
        """
        if not scored:
            return []
        best = max(scored, key=lambda s: s.small.predicted / max(s.small.amplitude, 1e-300))
        idle = replace(best, step=best.idle, updates={}, amplitude=0.0, predicted=0.0, gain=0.0, error=0.0)
        return [replace(idle, loss=best.loss_before, outcome="on probation")]

    @property
    def limited(self) -> bool:
        """Whether the last proposal left moves out for the budget."""
        return self.moves.limited

    def refuses(
        self, session: Session, choice: Scored, before: torch.Tensor, after: torch.Tensor
    ) -> Literal["no gain", "criterion"] | None:
        """Whether the training that followed has not justified a growth, and why.

        On probation, it must have lowered the loss of the selection part by the paired test. With the information
        criterion, that must have fallen: without the training it would stop at the first edge, since untrained neurons
        gain too little.
        """
        probation = choice.outcome == "on probation"
        if probation and not certainly_positive(before - after, self.config.error_rate):
            return "no gain"
        if self.config.strategy != "bic":
            return None
        now = bic(session, float(after.mean()), choice.parameters)
        return None if now < bic(session, float(before.mean()), choice.parameters_before) else "criterion"


def certainly_positive(differences: torch.Tensor, rate: float) -> bool:
    """Whether the mean of differences is above zero, by a one-sided test at this probability of error."""
    return _certain(*mean_and_error(differences), rate)


def _certain(gain: float, error: float, rate: float) -> bool:
    # Of the probability itself, since 1 minus a very small one is 1.
    return rate == 1 or gain > -NormalDist().inv_cdf(rate) * error


def bic(session: Session, loss: float, parameters: int) -> float:
    """The Bayesian information criterion, k log n - 2 log L, n the training samples (Schwarz 1978).

    Cross-entropy is the negative log-likelihood of a sample. Half the squared error in units of the targets' standard
    deviation has one of its own for errors of unknown size: n/2 log(loss) for each output, up to a constant.
    """
    count = len(session.targets)
    if session.loss.task == "classification":
        surprise = count * loss
    else:
        surprise = 0.5 * count * session.targets.shape[1] * math.log(max(loss, 1e-300))
    return parameters * math.log(count) + 2 * surprise


def _touches(candidate: Pass, states: Sequence[StateView]) -> set[str]:
    """The states a move feeds or widens."""
    if isinstance(candidate, AddEdge | AddNode):
        return {candidate.target}
    assert isinstance(candidate, Widen)
    widened = next(state for state in states if state.post == candidate.node)
    return {widened.node, *(state.node for state, _ in fed_by(states, candidate.node))}
