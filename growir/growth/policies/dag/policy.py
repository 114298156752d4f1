"""DAG growth by expressivity bottleneck (Douka et al. 2025): edges, new states, wider states, from the empty graph.

Every candidate gets its weights from one solve on the fitting part and its amplitude from a line search on the next;
the one that leaves the smallest loss on the third part is applied, exactly as it was measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, cast

import torch

from growir.collecting import uncollected
from growir.errors import RunError
from growir.graph import Graph
from growir.growth.budget import Budget
from growir.growth.config import RunConfig
from growir.growth.loss import certain, certainly_positive
from growir.growth.policies.dag.additions import addition
from growir.growth.policies.dag.bottleneck import Remembered
from growir.growth.policies.dag.inputs import dataset_of, select_inputs, start_network, unit_of
from growir.growth.policies.dag.measuring import Measured, dead_units, measured
from growir.growth.policies.dag.moves import Moves
from growir.growth.policies.dag.notes import notes_of
from growir.growth.policies.dag.scored import Scored
from growir.growth.policies.dag.scoring import Scoring
from growir.growth.policies.dag.settings import DagConfig
from growir.growth.policies.dag.states import StateView, fed_by, states_of
from growir.growth.policies.dag.trimming import Trim, trimmed
from growir.growth.policies.dag.trimming import notes_of as notes_of_trimming
from growir.growth.policy import Candidate, Score, Standing, Trimmed
from growir.growth.problem import Problem
from growir.growth.reading import float_dtype
from growir.growth.session import Session
from growir.network import Network
from growir.passes import AddEdge, AddNode, InsertBlock, Update, Widen
from growir.passes import Sequence as Steps
from growir.rewrite import Pass
from growir.shapes import shapes_of


class Dag:
    """The policy; see DagConfig for its settings."""

    name: ClassVar[str] = "dag"
    Settings: ClassVar[type[DagConfig]] = DagConfig

    def __init__(self, settings: DagConfig) -> None:
        self.settings = self.config = settings
        self.moves = Moves(settings)
        self._kept: Remembered = {}
        self._measured: tuple[Graph, Measured] | None = None
        self._budget: Budget | None = None
        self._chosen: Scored | None = None

    # -- start --------------------------------------------------------------------------------------------------------

    def start(self, problem: Problem, config: RunConfig, chosen: Mapping[str, Any] | None = None) -> Network:
        """The graph input -> (what the data teaches) -> bias -> output."""
        share = None if chosen is None else chosen["variance"]
        return start_network(dataset_of(problem), config, self.config, share)

    def select_start(self, session: Session) -> tuple[Network, Mapping[str, Any]] | None:
        """Where the share of the inputs that is read is a choice, the one that a short fit does best with."""
        if len(session.config.data.shares) == 1:
            return None
        tried = select_inputs(session, self.config)
        scores = {"variance": tried[0].variance, "inputs": tried[0].inputs}
        return tried[0].network, {**scores, "tried": [each.record.to_json() for each in tried]}

    def check(self, session: Session) -> None:
        """Raises RunError where a network, its data or its place is none that this policy computes with."""
        _refuse(session)
        if self.config.norm == "batch" and session.train_config.batch_size == 1:
            raise RunError(
                'policy dag: norm is "batch", which needs two samples or more to train on, but [train] batch_size is 1'
            )

    # -- propose ------------------------------------------------------------------------------------------------------

    @uncollected()
    def propose(self, session: Session, budget: Budget) -> list[Candidate]:
        """Every new edge, new state and widening that fits the budget.

        Restricted, and with the Bayesian information criterion, only those that feed or widen the state with the
        largest bottleneck, of those that any move feeds or widens.
        """
        self._budget = budget
        moves = self.moves.moves(budget, bool(session.config.schedule.trials))
        self._measured = None
        if self.config.strategy in ("restricted", "bic") and moves:
            found = self._measure(session)
            self._measured = session.graph, found
            touched = set[str]().union(*(_touches(move, found.states) for move in moves))
            worst = max((s for s in found.states if s.node in touched), key=lambda state: found.bottleneck(state).psi)
            moves = [move for move in moves if worst.node in _touches(move, found.states)]
        return [
            Candidate(f"{move.name} {move.model_dump_json(exclude_defaults=True)}", budget.cost(move), move)
            for move in moves
        ]

    # -- score --------------------------------------------------------------------------------------------------------

    @uncollected()
    def score(self, session: Session, candidates: Sequence[Candidate], key: int) -> list[Scored]:
        """Weights, amplitude and gain of each candidate."""
        graph, budget = session.graph, self._budget
        assert budget is not None, "candidates come from propose"
        # What a proposal has just measured still holds; after any training it would not.
        known, self._measured = self._measured, None
        scoring = Scoring(known[1] if known and known[0] is graph else self._measure(session), self.config, key)
        states = states_of(graph)
        moves = [(c.part, addition(c.part, budget.rewritten(c.part), states)) for c in candidates]
        found: list[Scored] = []
        made = scoring.neurons(moves, self.config.directions)
        for k, (candidate, (_, new), neurons) in enumerate(zip(candidates, moves, made, strict=True)):
            session.tick("scoring", k, len(candidates))
            found.append(scoring.score(candidate, budget.rewritten(candidate.part), new, neurons))
        return found

    def _measure(self, session: Session) -> Measured:
        offered = self.moves.offered(session.graph)
        config = self.config
        return measured(session, offered, config.samples, config.ridge, self._kept, blocks=config.shortcuts)

    # -- select -------------------------------------------------------------------------------------------------------

    def _worth(self, scores: Sequence[Scored]) -> list[Scored]:
        """Those that improve the selection part by a paired one-sided test."""
        rate = self.config.error_rate
        return [s for s in scores if s.improves and certain(s.gain, s.error or 0.0, rate)]

    def select(self, session: Session, scores: Sequence[Score], budget: Budget) -> list[Scored]:
        """The one that leaves the smallest loss on the selection part, or the smallest criterion.

        Where none improves it, the one with the largest prediction, idle at first, on probation: untrained neurons may
        gain nothing where trained ones would gain much. What a few samples say about the first non-linear part of a
        nearly linear problem, say, is noise.
        """
        found = cast("Sequence[Scored]", scores)
        worth = self._worth(found)
        if not worth:
            return self._last_resort(found)
        if self.config.strategy == "bic":
            return [min(worth, key=lambda s: bic(session, s.loss, s.parameters))]
        return [min(worth, key=lambda s: s.loss)]

    def _last_resort(self, scores: Sequence[Scored]) -> list[Scored]:
        if not scores:
            return []
        best = max(scores, key=lambda s: s.small.predicted / max(s.small.amplitude, 1e-300))
        idle = replace(best, step=best.idle, updates={}, amplitude=0.0, predicted=None, gain=math.nan, error=None)
        return [replace(idle, loss=best.loss_before, outcome="on probation")]

    # -- build --------------------------------------------------------------------------------------------------------

    def build(self, session: Session, chosen: Sequence[Score]) -> Pass:
        """The move with its weights, and what moves of the edges that were there."""
        (choice,) = cast("Sequence[Scored]", chosen)
        self._chosen = choice
        if not choice.updates:
            return choice.step
        shifts = {key: shift.numpy() for key, shift in choice.updates.items()}
        return Steps(passes=(Update(parameters=tuple(shifts), values=shifts), choice.step))

    # -- judge --------------------------------------------------------------------------------------------------------

    def refuses(self, session: Session, before: Standing, after: Standing) -> str | None:
        """Whether the training that followed has not justified a growth, and why.

        On probation, it must have lowered the loss of the selection part by the paired test. With the information
        criterion, that must have fallen: without the training it would stop at the first edge, since untrained neurons
        gain too little.
        """
        choice = self._chosen
        assert choice is not None, "only what was built is judged"
        probation = choice.outcome == "on probation"
        if probation and not certainly_positive(before.losses - after.losses, self.config.error_rate):
            return "no gain"
        if self.config.strategy != "bic":
            return None
        now = bic(session, float(after.losses.mean()), choice.parameters)
        return None if now < bic(session, float(before.losses.mean()), choice.parameters_before) else "criterion"

    # -- trim ---------------------------------------------------------------------------------------------------------

    @uncollected()
    def trim(self, session: Session, budget: Budget) -> Trimmed | None:
        """Edges and neurons that the selection part does not miss, where the settings say so."""
        if not self.config.trim:
            return None
        return trimmed(self._measure(session), budget, self.config.error_rate)

    def explain(self, scores: Sequence[Score], chosen: Sequence[Score]) -> Mapping[str, Any]:
        """The choice, and every candidate as it was scored."""
        if isinstance(chosen[0], Trim):
            return notes_of_trimming(cast("Sequence[Trim]", scores), cast("Sequence[Trim]", chosen))
        (choice,) = cast("Sequence[Scored]", chosen)
        return notes_of(choice, cast("Sequence[Scored]", scores))

    def describe(self, session: Session) -> Mapping[str, Any]:
        """How many hidden neurons and channels no sample gives a gradient."""
        return {"dead_units": dead_units(session)}


def _refuse(session: Session) -> None:
    """Raises RunError where a network, its data or its place is none that this policy computes with."""
    graph = session.graph
    shapes = shapes_of(graph)
    given = [shapes[entry.name] for entry in graph.inputs]
    outputs = [shapes[name] for name in graph.outputs]
    wrong = None
    if len(given) != 1 or not given[0].dtype.startswith("float"):
        wrong = f"networks of one input of floats, but this one takes {', '.join(f'{s} of {s.dtype}' for s in given)}"
    elif len(outputs) != 1 or outputs[0].rank != 2:
        wrong = f"networks of one output (N, outputs), but this one gives {', '.join(map(str, outputs))}"
    elif float_dtype(session.tensors) != torch.float32:
        floats = str(float_dtype(session.tensors)).removeprefix("torch.")
        wrong = f"networks of float32, but this one has {floats}"
    elif session.device.type != "cpu":
        wrong = f"networks on the CPU, where its least squares are solved, but this one is on {session.device}"
    if wrong is not None:
        raise RunError(f'policy dag: it grows {wrong}; take another policy, such as "random" or "net2net"')


def bic(session: Session, loss: float, parameters: int) -> float:
    """The Bayesian information criterion, k log n - 2 log L, n the training samples (Schwarz 1978).

    Cross-entropy is the negative log-likelihood of a sample. Half the squared error in units of the targets' standard
    deviation has one of its own for errors of unknown size: n/2 log(loss) for each output, up to a constant.
    """
    count = session.problem.samples
    if unit_of(session.objective) is None:
        surprise = count * loss
    else:
        outputs = shapes_of(session.graph)[session.output].elements
        surprise = 0.5 * count * outputs * math.log(max(loss, 1e-300))
    return parameters * math.log(count) + 2 * surprise


def _touches(candidate: Pass, states: Sequence[StateView]) -> set[str]:
    """The states a move feeds or widens."""
    if isinstance(candidate, AddEdge | AddNode):
        return {candidate.target}
    if isinstance(candidate, InsertBlock):
        return {next(state.node for state in states if state.post == candidate.after)}
    assert isinstance(candidate, Widen)
    widened = next(state for state in states if state.post == candidate.node)
    return {widened.node, *(state.node for state, _ in fed_by(states, candidate.node))}
