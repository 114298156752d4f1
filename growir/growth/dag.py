"""DAG growth by expressivity bottleneck (Douka et al. 2025): edges, new states, wider states, from the empty graph.

Every candidate gets its weights from one solve on the fitting part and its amplitude from a line search on the next;
the one that leaves the smallest loss on the third part is applied, exactly as it was measured.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from growir.errors import PassRefused
from growir.graph import Graph
from growir.growth.bottleneck import Bottleneck, Grams, combine, fit, measure, sources
from growir.growth.config import BudgetConfig, DagConfig, Directions
from growir.growth.downstream import Downstream
from growir.growth.neurons import Neurons, activation_of, fitted_directions, new_neurons, random_directions
from growir.growth.policy import Scored
from growir.growth.section import run_section
from growir.growth.session import Session, generator
from growir.growth.states import StateView, can_feed, fed_by, is_output, states_of, widenable
from growir.ops import OP_BY_KIND, Shape
from growir.passes import AddEdge, AddNode, Widen
from growir.rewrite import Pass, Rewrite
from growir.shapes import shapes_of


@dataclass(slots=True)
class _Measured:
    """What one pass over the data tells about the current network.

    Attributes:
        states: Its states.
        opt: Every value that plays a part, on the fitting part.
        ls: The same on the line search part.
        ls_targets: Targets there.
        gr: The constant prefix's values on the selection part.
        gr_targets: Targets there.
        selection_loss: The mean loss there.
        gram: Second moments on the fitting part.
        bottlenecks: By state.
        downstream: What lies behind the targets of a move, lowered once for all moves of these targets.
    """

    states: list[StateView]
    opt: dict[str, torch.Tensor]
    ls: dict[str, torch.Tensor]
    ls_targets: torch.Tensor
    gr: list[torch.Tensor]
    gr_targets: torch.Tensor
    selection_loss: float
    gram: Grams
    bottlenecks: dict[str, Bottleneck]
    downstream: dict[tuple[str, ...], Downstream] = field(default_factory=dict[tuple[str, ...], "Downstream"])

    def state(self, node: str) -> StateView:
        return next(state for state in self.states if state.node == node)


class Dag:
    """The policy; see DagConfig for its settings."""

    name = "dag"

    def __init__(self, config: DagConfig, budget: BudgetConfig) -> None:
        assert budget.parameters is not None, "a session's configuration is resolved"
        self.config = config
        self.budget = budget
        self.parameters = budget.parameters
        self._constant_grams: dict[tuple[str, str], torch.Tensor] = {}
        self._measured: _Measured | None = None
        self._rewrites_of: Graph | None = None
        self._rewrites: dict[Pass, Rewrite] = {}

    # -- propose ------------------------------------------------------------------------------------------------------

    def propose(self, session: Session) -> list[Pass]:
        """Every new edge, new state and widening that fits the budget, widths cut to what is left of it.

        Restricted, only those that feed or widen the state with the largest bottleneck. The strategy "widen" adds a
        state in front of the output where there is none that can be wider, and widens after that.
        """
        graph = session.graph
        moves = list(self._moves(graph, session))
        self._measured = None
        if self.config.strategy == "restricted":
            self._measured = self._measure(session)
            bottlenecks = self._measured.bottlenecks
            worst = max(self._measured.states, key=lambda s: bottlenecks[s.node].psi)
            moves = [move for move in moves if worst.node in _touches(move, self._measured.states)]
        return [fitting for step in moves if (fitting := self._fit_budget(graph, step))]

    def _moves(self, graph: Graph, session: Session) -> Iterator[Pass]:
        states = states_of(graph)
        values = [*self._constant_values(graph, session), *(s.post for s in states if s.post is not None)]
        shapes = shapes_of(graph)
        inputs = max((shapes[name].size(-1) for name in self._constant_values(graph, session)), default=1)
        price = inputs + 1 + shapes[session.output].size(-1)
        width = self.config.neurons or max(1, self.parameters // (3 * price))
        wider = [s.post for s in states if s.post is not None and widenable(graph, states, s)]
        for post in wider:
            yield Widen(node=post, by=width)
        if self.config.strategy == "widen":
            if not wider:
                for value, state in can_feed(graph, states, values):
                    if is_output(graph, state):
                        yield AddNode(source=value, target=state.node, width=width, activation=self.config.activation)
            return
        for value, state in can_feed(graph, states, values):
            if all(edge.source != value for edge in state.edges):
                yield AddEdge(source=value, target=state.node)
            if not _twin(states, value, state):
                yield AddNode(source=value, target=state.node, width=width, activation=self.config.activation)

    def _constant_values(self, graph: Graph, session: Session) -> list[str]:
        ranks = {name: len(value.shape) for name, value in zip(session.prefix(), session.constants(), strict=True)}
        return [name for name, rank in ranks.items() if rank == 2]

    def _fit_budget(self, graph: Graph, step: Pass) -> Pass | None:
        """The move, narrowed until it fits the budget; None if nothing of it does, or the graph refuses it."""
        try:
            over = self._excess(graph, step)
        except PassRefused:
            return None
        if over <= 0:
            return step
        if isinstance(step, AddEdge):
            return None
        field_name = "by" if isinstance(step, Widen) else "width"
        width = getattr(step, field_name)
        least = self._excess(graph, step.model_copy(update={field_name: 1}))
        if least > 0:
            return None
        # Costs are linear in the width, so two points give the widest that fits.
        widest = width if width == 1 else 1 + math.floor((width - 1) * -least / (over - least) + 1e-9)
        # Crumbs of the budget are not worth a growth.
        return step.model_copy(update={field_name: widest}) if widest >= width / 8 else None

    def _excess(self, graph: Graph, step: Pass) -> float:
        """How far the network would be over the budget, relative to it; not positive where it fits."""
        costs = self._rewritten(graph, step).graph.costs()
        over = [costs.parameters / self.parameters - 1]
        if self.budget.macs is not None:
            over.append(costs.macs / self.budget.macs - 1)
        return max(over)

    def _rewritten(self, graph: Graph, step: Pass) -> Rewrite:
        """The move carried out on the structure; asked for its cost, its names and its parameters, and done once."""
        if self._rewrites_of is not graph:
            self._rewrites_of, self._rewrites = graph, {}
        if step not in self._rewrites:
            self._rewrites[step] = step.rewrite(graph)
        return self._rewrites[step]

    # -- score --------------------------------------------------------------------------------------------------------

    def score(self, session: Session, candidates: Sequence[Pass], step: int) -> list[Scored]:
        """Weights, amplitude and gain of each candidate; those without gain on either later part are left out."""
        # What a proposal has just measured still holds; after any training it would not.
        measured = self._measured or self._measure(session)
        self._measured = None
        # Where no random draw gains anything, better directions may: growth should not end by bad luck.
        for directions in dict.fromkeys((self.config.directions, "fitted")):
            found: list[Scored] = []
            for k, candidate in enumerate(candidates):
                session.tick("scoring", k, len(candidates))
                scored = self._score(session, measured, candidate, step, directions)
                if scored is not None:
                    found.append(scored)
            if found:
                return found
        return []

    def _measure(self, session: Session) -> _Measured:
        graph = session.graph
        states = states_of(graph)
        names = session.prefix()
        read = [edge.source for s in states for edge in s.edges if edge.source not in names]
        posts = [s.post for s in states if s.post is not None]
        wanted = list(dict.fromkeys([*(s.node for s in states), *posts, *read, session.output]))
        run = run_section(graph, session.tensors, names, wanted)
        parts: list[dict[str, torch.Tensor]] = []
        fitting, searching, choosing = self._samples(session)
        for samples in (fitting, searching):
            given = [value[samples] for value in session.constants()]
            found = run(*given)
            parts.append({**dict(zip(names, given, strict=True)), **dict(zip(wanted, found, strict=True))})
        opt, ls = parts
        loss = session.loss.total(opt[session.output], session.targets[fitting])
        # A state that no output depends on has no slope, and nothing it could gain.
        slopes = torch.autograd.grad(loss, [opt[s.node] for s in states], allow_unused=True, materialize_grads=True)
        opt, ls = ({name: value.detach() for name, value in part.items()} for part in (opt, ls))
        gram = Grams(opt, set(names), self._constant_grams)
        bottlenecks = {
            state.node: measure(state, opt, -slope, gram, self.config.ridge)
            for state, slope in zip(states, slopes, strict=True)
        }
        gr = [value[choosing] for value in session.constants()]
        targets, gr_targets = session.targets[searching], session.targets[choosing]
        loss_now = session.loss_on(choosing)
        return _Measured(states, opt, ls, targets, gr, gr_targets, loss_now, gram, bottlenecks)

    def _samples(self, session: Session) -> list[torch.Tensor]:
        """What is measured on, of each part; the parts are in random order."""
        parts = session.parts
        return [part[: self.config.samples] for part in (parts.opt, parts.ls, parts.gr)]

    def _score(
        self, session: Session, measured: _Measured, candidate: Pass, step: int, directions: Directions
    ) -> Scored | None:
        reads, targets = _reads_and_targets(candidate, measured)
        if isinstance(candidate, AddEdge):
            neurons, features = None, [part[reads[0]] for part in (measured.opt, measured.ls)]
        else:
            neurons = self._neurons(session, measured, candidate, reads, targets, step, directions)
            features = [neurons.features(part) for part in (measured.opt, measured.ls)]
        ridge = self.config.ridge
        fits = {
            t.node: fit(measured.bottlenecks[t.node], sources(t, measured.opt), features[0], ridge) for t in targets
        }
        on_ls = [combine([*sources(t, measured.ls), features[1]], fits[t.node].whole) for t in targets]
        key = tuple(t.node for t in targets)
        if key not in measured.downstream:
            measured.downstream[key] = Downstream(session, measured.ls, measured.ls_targets, key)
        downstream = measured.downstream[key]
        limit = self._largest_amplitude(session, measured, targets, on_ls)
        amplitude = downstream.search(on_ls, limit)
        if amplitude == 0:
            return None  # applied, it would be dead neurons
        predicted = sum(fits[t.node].gain for t in targets)
        updates = {
            k: v for t in targets for k, v in self._updates(session, t, fits[t.node].existing, amplitude).items()
        }
        new = {t.node: amplitude * fits[t.node].new for t in targets}
        rewritten = self._rewritten(session.graph, candidate)
        final = _with_values(candidate, rewritten.created, neurons, measured, new)
        parameters = rewritten.graph.costs().parameters
        # Measured by applying it: where one target lies behind another, shifts alone leave out second-order terms.
        after = session.preview(final, updates, measured.gr, measured.gr_targets)
        before = measured.selection_loss
        if not after < before:
            return None
        return Scored(final, updates, amplitude, amplitude * predicted, before - after, after, parameters)

    def _largest_amplitude(
        self, session: Session, measured: _Measured, targets: Sequence[StateView], shifts: Sequence[torch.Tensor]
    ) -> float:
        """How far the line search may go.

        The direction is a least-squares step: of the squared error, a mean over outputs, the whole of it is as many
        times v as there are outputs. Cross-entropy rewards ever larger outputs on the search part and pays later, so
        there the step itself is the limit. An inner state may move by its own size.
        """
        limits: list[float] = []
        for target, shift in zip(targets, shifts, strict=True):
            if is_output(session.graph, target):
                limits.append(1.0 if session.loss.task == "classification" else float(target.width))
            else:
                size = float(measured.ls[target.node].double().square().mean().sqrt())
                move = float(shift.double().square().mean().sqrt())
                limits.append(max(size, 0.1) / max(move, 1e-30))
        return min(limits)

    def _neurons(
        self,
        session: Session,
        measured: _Measured,
        candidate: Pass,
        reads: tuple[str, ...],
        targets: Sequence[StateView],
        step: int,
        directions: Directions,
    ) -> Neurons:
        """Incoming weights of new neurons: random directions, or the best of a pool for what the targets lack."""
        if isinstance(candidate, Widen):
            op = session.graph[candidate.node].op
            learned = {name: session.tensors[f"{candidate.node}.{name}"] for name in op.params(Shape(("N", 1)))}
            count, activation = candidate.by, activation_of(op, learned)
            threshold = _widened(candidate, measured).bias is not None
        else:
            assert isinstance(candidate, AddNode)
            count, activation, threshold = candidate.width, activation_of(OP_BY_KIND[candidate.activation]()), True
        draws = generator(
            session.config.seed, 3, step, zlib.crc32(f"{candidate.name} {candidate.model_dump_json()}".encode())
        )
        inputs = [measured.opt[name] for name in reads]
        gram = torch.cat([torch.cat([measured.gram(a, b) for b in reads], dim=1) for a in reads])
        rest = torch.cat([measured.bottlenecks[t.node].rest for t in targets], dim=1)
        if directions == "random":
            weight = random_directions(inputs, count, draws)
        else:
            weight = fitted_directions(inputs, gram, rest, activation, count, self.config.ridge, draws)
        return new_neurons(reads, inputs, weight, activation, draws, threshold=threshold, fitted=directions == "fitted")

    def _updates(
        self, session: Session, target: StateView, existing: torch.Tensor, amplitude: float
    ) -> dict[str, torch.Tensor]:
        """The existing edges of a state, moved as the joint solve says."""
        found: dict[str, torch.Tensor] = {}
        start = 0
        for edge in target.edges:
            old = session.tensors[edge.weight].detach()
            found[edge.weight] = old + (amplitude * existing[start : start + old.shape[1]]).T.to(old.dtype)
            start += old.shape[1]
        if target.bias is not None:
            old = session.tensors[target.bias].detach()
            found[target.bias] = old + (amplitude * existing[start]).to(old.dtype)
        return found

    # -- select -------------------------------------------------------------------------------------------------------

    def select(self, session: Session, scored: Sequence[Scored]) -> list[Scored]:
        """The one that leaves the smallest loss on the selection part."""
        return [min(scored, key=lambda s: s.loss)] if scored else []


def _twin(states: list[StateView], value: str, target: StateView) -> bool:
    """Whether a state between exactly these two exists: a new one beside it is a widening of that one."""
    for state in states:
        if state.post is not None and [edge.source for edge in state.edges] == [value]:
            fed = fed_by(states, state.post)
            if len(fed) == 1 and fed[0][0].node == target.node:
                return True
    return False


def _touches(candidate: Pass, states: list[StateView]) -> set[str]:
    """The states a move feeds or widens."""
    if isinstance(candidate, AddEdge | AddNode):
        return {candidate.target}
    assert isinstance(candidate, Widen)
    widened = next(state for state in states if state.post == candidate.node)
    return {widened.node, *(state.node for state, _ in fed_by(states, candidate.node))}


def _widened(candidate: Widen, measured: _Measured) -> StateView:
    return next(state for state in measured.states if state.post == candidate.node)


def _reads_and_targets(candidate: Pass, measured: _Measured) -> tuple[tuple[str, ...], list[StateView]]:
    """What a move's new features read, and the states they feed."""
    if isinstance(candidate, AddEdge | AddNode):
        return (candidate.source,), [measured.state(candidate.target)]
    assert isinstance(candidate, Widen)
    widened = _widened(candidate, measured)
    return tuple(edge.source for edge in widened.edges), [s for s, _ in fed_by(measured.states, candidate.node)]


def _with_values(
    candidate: Pass,
    created: Sequence[str],
    neurons: Neurons | None,
    measured: _Measured,
    new: Mapping[str, torch.Tensor],
) -> Pass:
    """The move with its weights; `new` holds each target's weights on the new features, (features, width)."""

    def block(weight: torch.Tensor) -> NDArray[np.float32]:
        return np.ascontiguousarray(weight.T.numpy(), dtype=np.float32)

    values: dict[str, NDArray[np.float32]] = {}
    if isinstance(candidate, Widen):
        assert neurons is not None
        widened = _widened(candidate, measured)
        for edge, weight in zip(widened.edges, neurons.incoming, strict=True):
            values[edge.weight] = block(weight)
        if widened.bias is not None:
            values[widened.bias] = neurons.bias.numpy()
        for target, edge in fed_by(measured.states, candidate.node):
            values[edge.weight] = block(new[target.node])
    else:
        (outgoing,) = new.values()
        if neurons is None:
            values[f"{created[0]}.weight"] = block(outgoing)
        else:
            values[f"{created[0]}.weight"] = block(neurons.incoming[0])
            values[f"{created[0]}.bias"] = neurons.bias.numpy()
            values[f"{created[2]}.weight"] = block(outgoing)
    return candidate.model_copy(update={"values": values})
