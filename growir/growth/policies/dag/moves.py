"""Which moves there are: new edges, new states and widenings, for vectors and maps, that a budget has room for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from growir.errors import GraphError, PassRefused
from growir.graph import Graph
from growir.growth.budget import Budget
from growir.growth.measure.section import constants_of
from growir.growth.policies.dag.additions import addition, twin_of
from growir.growth.policies.dag.settings import DagConfig
from growir.growth.policies.dag.shortcuts import block, hidden_maps
from growir.growth.policies.dag.states import Edge, Reach, StateView, can_feed, is_output, states_of, widenable
from growir.ops import Shape
from growir.passes import AddEdge, AddNode, InsertBlock, Widen
from growir.rewrite import Pass
from growir.shapes import shapes_of

Fields = dict[str, Any]
SMALL = 8  # positions a side from which on a map is halved for the next one
CHANNELS = 8  # of a new map, and the fewest neurons of a new state where the network is to double
MAX_NEURONS = 8192  # of a new state by default: their second moments are a matrix of half a gigabyte
GRIDS = (7, 4)  # a map is pooled to about so many positions a side where it feeds a vector


class Moves:
    """The moves of a growing graph, each rewritten once.

    Args:
        config: Of the policy.
    """

    def __init__(self, config: DagConfig) -> None:
        self.config = config
        self._reach = Reach()
        self._doubles = False

    def offered(self, graph: Graph) -> list[str]:
        """The constant values that new edges may read: the last vector, and where kernels are given the last map."""
        shapes = shapes_of(graph)
        constants = [name for name in constants_of(graph) if shapes[name].dtype == "float32"]
        last = {shapes[name].rank: name for name in constants}
        ranks = (2, 4) if self.config.kernels else (2,)
        return [last[rank] for rank in ranks if rank in last]

    def moves(self, budget: Budget, tried: bool = False) -> list[Pass]:
        """Every new edge, new state and widening that fits the budget, widths cut to what is left of it.

        Without cycles and without twins: a state beside one with the same source, layer, activation and target is that
        one's widening, where it can be wider.

        Args:
            budget: Of the run.
            tried: Whether trials find the size of the network, which then doubles unless the configuration says how
                many neurons are added.
        """
        graph = budget.graph
        self._doubles = self.config.neurons == "double" or (self.config.neurons is None and tried)
        self._reach.follow(graph)
        states = states_of(graph)
        every = self._all(graph, states, budget)
        found = dict.fromkeys(fitting for step in every if (fitting := _fit(budget, step)) is not None)
        wider = [state for state in states if widenable(graph, states, state)]

        def is_widening(step: Pass) -> bool:
            if not isinstance(step, AddNode):
                return False
            return twin_of(addition(step, budget.rewritten(step), states), graph, states) in wider

        return [step for step in found if not is_widening(step)]

    def _all(self, graph: Graph, states: Sequence[StateView], budget: Budget) -> Iterator[Pass]:
        shapes = shapes_of(graph)
        offered = self.offered(graph)
        values = {name: shapes[name] for name in [*offered, *(s.post for s in states if s.post is not None)]}
        if self.config.strategy == "widen":
            yield from self._one_after_the_other(graph, states, values, budget)
            return
        yield from self._widenings(graph, states, budget)
        yield from self._blocks(states)
        for value, state in can_feed(self._reach, states, values):
            yield from self._edges(value, values[value], state)
            width = self._width(graph, state.shape, values[value].elements, budget)
            yield from self._nodes(value, values[value], state, width, value not in offered)

    def _one_after_the_other(
        self, graph: Graph, states: Sequence[StateView], values: Mapping[str, Shape], budget: Budget
    ) -> Iterator[Pass]:
        """One hidden vector before the output, or a chain of maps, each of half the size; then what widens them."""
        outputs = [state for state in states if is_output(graph, state)]
        rank = 4 if self.config.kernels else 2
        hidden = [state for state in states if state.post is not None and state.shape.rank == rank]
        read = {edge.value for state in hidden for edge in state.edges}
        ends = [state.post for state in hidden if state.post is not None and state.post not in read]
        data = [value for value in self.offered(graph) if values[value].rank == rank]
        last = ends[-1] if ends else data[-1] if data else None
        deep = min(values[last].sizes[1:], default=0) < SMALL if last is not None else True
        if last is not None and not (ends and deep):
            for state in outputs:
                width = self._width(graph, state.shape, values[last].elements, budget)
                yield from self._nodes(last, values[last], state, width, learned=bool(ends))
        else:
            yield from self._widenings(graph, states, budget)

    def _widenings(self, graph: Graph, states: Sequence[StateView], budget: Budget) -> Iterator[Widen]:
        for state in states:
            if state.post is not None and widenable(graph, states, state):
                reads = sum(_features(edge) for edge in state.edges)
                yield Widen(node=state.post, by=self._width(graph, state.shape, reads, budget))

    def _blocks(self, states: Sequence[StateView]) -> Iterator[InsertBlock]:
        """Residual blocks, as wide as the map they stand behind unless the configuration says how wide."""
        for state in hidden_maps(states) if self.config.shortcuts else []:
            for activation in self.config.activations:
                for kernel in self.config.kernels:
                    width, norm = self.config.count or state.width, self.config.norm == "batch"
                    inner = block(state.shape, width, kernel, activation, norm=norm)
                    yield InsertBlock(after=str(state.post), block=inner)

    def _width(self, graph: Graph, shape: Shape, reads: int, budget: Budget) -> int:
        """Neurons to add, as given or by default: as many as a third of the budget pays for in one hidden layer.

        A map doubles, and so does every state where nothing limits the parameters. Where the network is to double, it
        is as many as its parameters pay for.

        Args:
            graph: The graph.
            shape: Of the state that is added or widened.
            reads: Numbers that a neuron reads, where the data is no vector that one could read.
            budget: Of the run.
        """
        if self.config.count is not None:
            return self.config.count
        most = budget.limits.parameters
        if shape.rank > 2 or (most is None and not self._doubles):
            return shape.size(1)
        shapes = shapes_of(graph)
        inputs = next((shapes[name].size(-1) for name in self.offered(graph) if shapes[name].rank == 2), reads)
        price = inputs + 1 + shapes[graph.outputs[0]].size(-1)
        least, paid = (CHANNELS, graph.costs().parameters) if self._doubles else (1, (most or 0) // 3)
        return max(least, min(paid // price, MAX_NEURONS))

    def _edges(self, value: str, here: Shape, state: StateView) -> Iterator[AddEdge]:
        there = state.shape
        if here.rank == there.rank == 2:
            yield AddEdge(source=value, target=state.node)
        elif here.rank == there.rank:
            for kernel in self.config.kernels:
                for shrink in _shrinking(here, there):
                    yield AddEdge(source=value, target=state.node, kernel_size=kernel, **shrink)
        elif there.rank == 2:
            for pool in _to_vector(here):
                yield AddEdge(source=value, target=state.node, **pool)

    def _nodes(self, value: str, here: Shape, state: StateView, width: int, learned: bool) -> Iterator[AddNode]:
        there = state.shape
        for activation in self.config.activations:
            common: Fields = {"source": value, "target": state.node, "activation": activation}
            if here.rank == there.rank == 2:
                yield AddNode(**common, width=width)
            elif here.rank == there.rank:
                for kernel in self.config.kernels:
                    for shrink in _shrinking(here, there):
                        yield AddNode(**common, **self._map, kernel_size=kernel, **shrink)
            elif there.rank == 2:
                yield from self._maps(common, here, learned)

    @property
    def _map(self) -> Fields:
        """Of every new map."""
        norm: Fields = {"norm": "batch_norm"} if self.config.norm == "batch" else {}
        return {"width": self.config.count or CHANNELS, **norm}

    def _maps(self, common: Fields, here: Shape, learned: bool) -> Iterator[AddNode]:
        """States that are maps between a map and a vector: at the resolution of the data, then at half of each map's.

        Behind a hidden map half the resolution is where convolutional networks put their next layer; all of it costs
        four times the multiply-accumulates and is left to moves between maps.
        """
        by = 2 if learned and min(here.sizes[1:]) >= SMALL else 1
        shrink: Fields = {"pool": "max", "stride": by} if by > 1 else {}
        side = min(here.sizes[1:]) // by
        for kernel in self.config.kernels:
            for stride in dict.fromkeys(max(1, side // grid) for grid in GRIDS):
                out: Fields = {"out_pool": "max", "out_stride": stride} if stride > 1 else {"out_pool": "flatten"}
                fields = {**common, **self._map, "kernel_size": kernel, **shrink, **out}
                yield AddNode.model_validate(fields)


def _fit(budget: Budget, step: Pass) -> Pass | None:
    """The move, narrowed until it fits the budget; None if nothing of it does, or the graph refuses it."""
    if budget.fits(step):
        return step
    field_name = "by" if isinstance(step, Widen) else "width"
    try:
        over = budget.excess(step)
        width = getattr(step, field_name, 0)
        least = budget.excess(step.model_copy(update={field_name: 1})) if width else over
    except (PassRefused, GraphError):  # GraphError: larger than any graph may be
        return None
    if least > 0:
        return None
    # Costs are linear in the width, so two points give the widest that fits.
    widest = width if width == 1 else 1 + math.floor((width - 1) * -least / (over - least) + 1e-9)
    # Crumbs of the budget are not worth a growth.
    return step.model_copy(update={field_name: widest}) if widest >= width / 8 else None


def _shrinking(here: Shape, there: Shape) -> list[Fields]:
    """Arguments that lead from a map to a smaller one, or one of the same size."""
    if here.sizes[1:] == there.sizes[1:]:
        return [{}]
    ratios = {a / b for a, b in zip(here.sizes[1:], there.sizes[1:], strict=True)}
    ratio = min(ratios)
    if len(ratios) > 1 or ratio < 1 or ratio != int(ratio):
        return []
    return [{"pool": "max", "stride": int(ratio)}]


def _to_vector(here: Shape) -> list[Fields]:
    """Arguments that lead from a map to a vector: pooled to a grid, coarser ones too."""
    side = min(here.sizes[1:])
    strides = dict.fromkeys(max(1, side // grid) for grid in GRIDS)
    found: list[Fields] = [{"pool": "max", "stride": s} if s > 1 else {"pool": "flatten"} for s in strides]
    return [*found, {"pool": "global_avg"}]


def _features(edge: Edge) -> int:
    """Numbers that one neuron of a vector reads through an edge."""
    return math.prod(edge.op.params(edge.shape)["weight"].shape[1:]) if not edge.carriers else edge.shape.elements
