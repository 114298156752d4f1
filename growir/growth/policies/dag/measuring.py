"""One pass over the data: activations, desired updates and second moments, which all candidates of a growth share."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch

from growir.data.source import Source
from growir.graph import Graph
from growir.growth.measure.designs import Places, chain, design, window_of
from growir.growth.measure.section import constants_of, run_section
from growir.growth.policies.dag.bottleneck import Bottleneck, Grams, Key, Moment, Remembered, combine, measure, stacked
from growir.growth.policies.dag.downstream import Behind, Downstream
from growir.growth.policies.dag.shortcuts import hidden_maps, passed_on
from growir.growth.policies.dag.states import Edge, StateView, states_of
from growir.growth.session import Session, generator
from growir.ops import Op, Shape
from growir.params import frozen_keys
from growir.shapes import shapes_of

# Numbers held of one part, in all values together: where maps would be more, fewer samples are measured.
MAX_NUMBERS, FEWEST = 2 * 10**7, 500
Run = Callable[..., tuple[torch.Tensor, ...]]
CHUNK = 2048  # samples that go forward and backward together


@dataclass(slots=True)
class Part:
    """Some samples of one part of the data.

    Attributes:
        values: Activations by name.
        targets: Of these samples.
        slopes: dL/da by state, where they are asked for.
    """

    values: dict[str, torch.Tensor]
    targets: torch.Tensor
    slopes: Mapping[str, torch.Tensor]
    _carried: dict[tuple[str, tuple[Op, ...]], torch.Tensor] = field(
        default_factory=dict[tuple[str, tuple[Op, ...]], torch.Tensor]
    )

    def carried(self, edge: Edge) -> torch.Tensor:
        """What an edge reads, of a value that is there."""
        if edge.source in self.values:
            return self.values[edge.source]
        key = edge.value, edge.carriers
        if key not in self._carried:
            self._carried[key] = chain(edge.carriers, edge.shape)(self.values[edge.value])
        return self._carried[key]


@dataclass(slots=True)
class Measured:
    """What one pass over the data tells about the current network.

    Attributes:
        session: The network.
        states: Its states.
        opt: Activations on the fitting part.
        ls: The same on the line search part.
        gr: The same on the selection part.
        losses: (n,) of each sample of the selection part.
        ridge: Relative regularisation of all solves; chosen for each on held-out rows if None.
        kept: What earlier growths found of constant values.
    """

    session: Session
    states: Sequence[StateView]
    opt: Part
    ls: Part
    gr: Part
    losses: torch.Tensor
    ridge: float | None
    kept: Remembered
    _places: dict[tuple[int, ...], Places] = field(default_factory=dict[tuple[int, ...], Places])
    _edges: dict[Key, tuple[Edge, Shape]] = field(default_factory=dict[Key, tuple[Edge, Shape]])
    _designs: dict[Key, torch.Tensor] = field(default_factory=dict[Key, torch.Tensor])
    _bottlenecks: dict[str, Bottleneck] = field(default_factory=dict[str, Bottleneck])
    _downstream: dict[tuple[str, ...], Downstream] = field(default_factory=dict[tuple[str, ...], Downstream])
    _behind: dict[tuple[str, ...], Behind] = field(default_factory=dict[tuple[str, ...], Behind])
    _wished: dict[tuple[str, int], torch.Tensor] = field(default_factory=dict[tuple[str, int], torch.Tensor])
    gram: Grams = field(init=False)

    def __post_init__(self) -> None:
        constant = set(constants_of(self.session.graph))
        self.gram = Grams(self._design_of, lambda key: key[0] in constant, self.kept)

    def state(self, node: str) -> StateView:
        """The state of this node."""
        return next(state for state in self.states if state.node == node)

    def places(self, shape: Shape) -> Places:
        """The rows that are read of values of such a shape: the same ones of all, so that they can be summed."""
        sizes = shape.sizes[1:]
        if sizes not in self._places:
            rows = len(self.opt.targets)
            draws = generator(self.session.config.seed, 4, zlib.crc32(repr(sizes).encode()))
            self._places[sizes] = Places.draw(rows, shape, 4 * rows, draws)
        return self._places[sizes]

    def design(self, edge: Edge, state: Shape) -> torch.Tensor:
        """What the weight of an edge into a state of this shape multiplies, on the fitting part."""
        return self._design_of(self._key(edge, state))

    def moments(self, edge: Edge, target: StateView) -> tuple[Moment, Moment | None]:
        """Second moments of what an edge reads, and of what feeds its target with it, if anything does."""
        key = self._key(edge, target.shape)
        rows = [[self.gram(self._key(there, target.shape), key)] for there in target.moving]
        if target.moving_bias is not None:
            rows.append([self.gram.mean(key).T])
        return self.gram(key, key), stacked(rows) if rows else None

    def _key(self, edge: Edge, state: Shape) -> Key:
        key: Key = (edge.value, edge.carriers, window_of(edge.op), state.sizes[1:])
        self._edges[key] = edge, state
        return key

    def _design_of(self, key: Key) -> torch.Tensor:
        if key not in self._designs:
            edge, state = self._edges[key]
            self._designs[key] = design(edge.op, self.opt.carried(edge), self.places(state))
        return self._designs[key]

    def bottleneck(self, state: StateView) -> Bottleneck:
        """What a state lacks."""
        if state.node not in self._bottlenecks:
            places = self.places(state.shape)
            keys = [self._key(edge, state.shape) for edge in state.moving]
            parts = [self._design_of(key) for key in keys]
            desired = -places.of(self.opt.slopes[state.node])
            if state.moving_bias is not None:
                parts.append(torch.ones(len(desired), 1))
            found = measure(state, keys, parts, desired, self.gram, self.ridge, places.positions)
            features = len(found.wish)
            self.session.meter.count(2.0 * len(desired) * features * (features + state.width) + features**3 / 3)
            self._bottlenecks[state.node] = found
        return self._bottlenecks[state.node]

    def sources(self, state: StateView, part: Part) -> list[torch.Tensor]:
        """What the parameters of a vector's edges and its bias multiply, on some samples."""
        found = [part.carried(edge) for edge in state.moving]
        if state.moving_bias is not None:
            found.append(torch.ones(len(part.targets), 1))
        return found

    def wished(self, state: StateView, part: Part) -> torch.Tensor:
        """How the best update of a vector's own edges would change it, on some samples."""
        key = state.node, id(part)
        if key not in self._wished:
            self._wished[key] = combine(self.sources(state, part), self.bottleneck(state).wish)
        return self._wished[key]

    def downstream(self, targets: tuple[str, ...], *, choosing: bool = False) -> Downstream:
        """What lies behind some states, on the line search part or the selection part."""
        key = (*targets, str(choosing))
        if key not in self._downstream:
            part = self.gr if choosing else self.ls
            if targets not in self._behind:
                self._behind[targets] = Behind(self.session, targets)
            self._downstream[key] = Downstream(self._behind[targets], part.values, part.targets)
        return self._downstream[key]


def measured(
    session: Session,
    offered: Sequence[str],
    samples: int,
    ridge: float | None,
    kept: Remembered,
    *,
    blocks: bool = False,
) -> Measured:
    """Run the network over the three parts and backward over the first.

    Args:
        session: The network.
        offered: Constant values that new edges may read, besides those that something reads already.
        samples: The most samples of each part.
        ridge: Relative regularisation, or None.
        kept: What earlier growths found of constant values; more is added.
        blocks: Whether blocks may be added to what hidden maps pass on.
    """
    graph = session.graph
    states = states_of(graph)
    names = session.reading.prefix()
    constant = constants_of(graph)
    wanted = dict.fromkeys([*(s.node for s in states), *(s.post for s in states if s.post is not None)])
    wanted |= dict.fromkeys(edge.value for s in states for edge in s.edges if edge.value not in constant)
    wanted[session.output] = None
    given = list(dict.fromkeys([*names, *offered, *_constant_values(states, constant)]))
    count = _affordable(graph, [*given, *wanted], samples)

    plain, sloped = _runs(session, names, list(wanted))

    def part_of(source: Source, most: int, fitting: Sequence[str] = ()) -> Part:
        values, targets = session.reading.gathered(source, given, most)  # the parts are in random order
        slopes: dict[str, torch.Tensor] = {}
        run = sloped if fitting else plain
        found = _run(session, run, names, list(wanted), values, targets, fitting, slopes)
        return Part(values | found, targets, slopes)

    fitted, searched = session.reading.halves
    assert session.data.select is not None, "the data is cut"
    nodes = [state.node for state in [*states, *map(passed_on, hidden_maps(states) if blocks else [])]]
    opt, gr = part_of(fitted, count, nodes), part_of(session.data.select, count)
    # One number is searched for: half of the samples say it as well.
    ls = part_of(searched, min(count, max(FEWEST, count // 2)), nodes)
    losses = session.objective.each((gr.values[session.output],), gr.targets)
    # Two operations a multiply-accumulate forward, four more where backward too.
    passes = 6.0 * (len(opt.targets) + len(ls.targets)) + 2.0 * len(gr.targets)
    session.meter.count(passes * graph.costs().macs)
    return Measured(session, states, opt, ls, gr, losses, ridge, _of_samples(kept, count))


def _of_samples(kept: Remembered, count: int) -> Remembered:
    """Of what is kept, that of so many samples."""
    if (count,) not in kept:
        kept.clear()  # fewer samples fit since maps have grown: the earlier ones will not be asked for again
    return cast("Remembered", kept.setdefault((count,), dict[Key, object]()))


def _constant_values(states: Sequence[StateView], constant: Sequence[str]) -> list[str]:
    return [edge.value for state in states for edge in state.edges if edge.value in constant]


def _affordable(graph: Graph, names: Sequence[str], samples: int) -> int:
    shapes = shapes_of(graph)
    each = sum(shapes[name].elements for name in dict.fromkeys(names))
    return min(samples, max(FEWEST, MAX_NUMBERS // max(each, 1)))


def _runs(session: Session, names: Sequence[str], wanted: Sequence[str]) -> tuple[Run, Run]:
    """What gives the wanted values, and what gives them such that each has its slope."""
    plain = run_section(session.graph, session.tensors, names, wanted)
    still = frozen_keys(session.graph)
    return plain, run_section(session.graph, session.sloped_tensors(), names, wanted) if still else plain


def _run(
    session: Session,
    run: Run,
    names: Sequence[str],
    wanted: Sequence[str],
    values: Mapping[str, torch.Tensor],
    targets: torch.Tensor,
    fitting: Sequence[str],
    slopes: dict[str, torch.Tensor],
) -> dict[str, torch.Tensor]:
    """The wanted values, and dL/d(value) of those in `fitting`, L the loss summed over samples."""
    chunks: list[Sequence[torch.Tensor]] = []
    found: list[Sequence[torch.Tensor]] = []
    for k in range(0, len(targets), CHUNK):
        rows = slice(k, k + CHUNK)
        with torch.set_grad_enabled(bool(fitting)):
            got = dict(zip(wanted, run(*(values[name][rows] for name in names)), strict=True))
        if fitting:
            loss = session.objective.total((got[session.output],), targets[rows])
            # A state that no output depends on has no slope, and nothing it could gain.
            found.append(
                torch.autograd.grad(loss, [got[n] for n in fitting], allow_unused=True, materialize_grads=True)
            )
        chunks.append([value.detach() for value in got.values()])
    slopes |= dict(zip(fitting, map(torch.cat, zip(*found, strict=True)), strict=True))
    return dict(zip(wanted, map(torch.cat, zip(*chunks, strict=True)), strict=True))


def dead_units(session: Session, samples: int = 2000) -> int:
    """Hidden neurons and channels that no sample gives a gradient, of the data that is trained on between growths."""
    states = [state for state in states_of(session.graph) if state.post is not None]
    if not states:
        return 0
    names = session.reading.prefix()
    most = _affordable(session.graph, [s.node for s in states], samples)
    values, targets = session.reading.gathered(session.data.train, names, most)
    slopes: dict[str, torch.Tensor] = {}
    nodes = [state.node for state in states]
    wanted = [*nodes, session.output]
    _, run = _runs(session, names, wanted)
    _run(session, run, names, wanted, values, targets, nodes, slopes)
    return sum(int((slope.transpose(0, 1).flatten(1) == 0).all(dim=1).sum()) for slope in slopes.values())
