"""Changing the widths of channel spaces: one mechanism for widen, extend, split and prune.

A resize says for each space which unit every new unit comes from and what share of its outgoing weight it takes. The
analysis then says where those units lie: attributes follow, and every parameter gathers along the axes that hold the
space. New units go where the terms put them, inside each group, row or block, never simply at the end of an axis.

A worked case. Channels lie on the axis ((A, 1), (B, 1)), 3 units of A and 2 of B. A copy of A's unit 1 comes, with half
of its share, and a fresh unit of B:

    A        index 0 1 2 1             share 1 1/2 1 1/2
    B        index 0 1 -1              share 1 1 1
    axis     index 0 1 2 1 3 4 -1      share 1 1/2 1 1/2 1 1 1

A tensor that makes these channels gathers its rows by that index: row 3 is row 1 again, and row 6 is drawn. One that
reads them gathers its columns by it and multiplies them by the shares: columns 1 and 3 are each half of the old column
1, and column 6 is zero. So the sums over the columns are what they were.

Units may hold units, as groups hold rows in ((G, ((R, 2),)),). Of 2 groups that hold one unit of R each, which has 2
positions, a fresh unit of R comes into every group:

    axis     index 0 1 -1 -1 2 3 -1 -1
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from growir.addresses import Address, axis_names
from growir.channels import Analysis, analyse
from growir.edits import Apart, AxisMap, Edit, Fresh, Place, Remap, Shift
from growir.entries import Entries, Moves, first_of_each
from growir.graph import Graph, Input, Node
from growir.ops import Constant, Init, Normal, Param, Shape, Uniform
from growir.ops.rule import ParamAxes, Selected
from growir.ops.spaces import Axis, Space, as_axis, extent, grown, length, spaces_on
from growir.pairs import pair_places
from growir.params import param_table
from growir.shapes import shapes_of

ZERO = Constant(0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """The new units of a space.

    Attributes:
        index: Each one's old unit, -1 for a fresh one.
        share: Its share of the old one's outgoing weight.
        apart: By how many deviations of their own the weights that read a unit and its copies differ.
    """

    index: NDArray[np.int64]
    share: NDArray[np.float64]
    apart: float = 0.0

    def adds_to(self, size: int) -> bool:
        """Whether all of so many old units are still where they were."""
        return np.array_equal(self.index[:size], np.arange(size))

    def only_fresh(self, size: int) -> bool:
        """Whether they are so many old units, as they were, with nothing but fresh ones behind them."""
        return self.adds_to(size) and bool((self.index[size:] < 0).all() and (self.share == 1).all())


@dataclass(frozen=True, slots=True, eq=False)
class Resize:
    """A resize carried out: inputs and nodes with their new widths, the edits, and where callers' entries are."""

    inputs: tuple[Input, ...]
    nodes: tuple[Node, ...]
    edits: tuple[Edit, ...]
    entries: Entries


@dataclass(frozen=True, slots=True)
class Start:
    """How fresh entries of learned tensors start, where no numbers are given.

    Attributes:
        made: Of what makes the new units: as the operator's initialiser draws, as the mean of the old ones, or zero. A
            norm's scales and statistics start as its operator says, unless as the mean.
        read: Of what reads them: zero, so that the function is kept, or drawn.
        like: Whether what is drawn has the deviation that the tensor has, in place of the initialiser's.
    """

    made: Literal["drawn", "mean", "zero"] = "drawn"
    read: Literal["drawn", "zero"] = "zero"
    like: bool = False


AS_EVER = Start()


Plan = Mapping[Space, Units]
OLD, MET = -1, -2  # of a position, in place of the one who makes it fresh: nobody does, several do


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What one of several passes brings to a resize that does all of them.

    Attributes:
        plan: The new units of the spaces that it changes.
        values: Its numbers for fresh blocks, by the addresses that it has for them.
        place: Where it stands in a sequence, in front of its addresses; empty for a pass by itself.
        stride: How many units of each space are the smallest growth; 1 where nothing is said.
        pairs: Of a split the space, and its units that get a partner each.
    """

    plan: Plan
    values: Mapping[str, NDArray[Any]]
    place: tuple[int, ...] = ()
    stride: Mapping[Space, int] = field(default_factory=dict[Space, int])
    pairs: tuple[Space, Sequence[int]] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Moved:
    """New positions of an axis: each one's old one (-1: fresh), its share, which part makes it fresh, in which stride.

    Where the groups of a tensor differ, each has a row of these. `apart` is what `Units` has, position by position.
    """

    index: NDArray[np.int64]
    share: NDArray[np.float64]
    apart: NDArray[np.float64]
    maker: NDArray[np.int64]
    stride: NDArray[np.int64]


def new_length(axis: Axis, plan: Plan) -> int:
    """Positions on an axis after the resize."""
    return grown(axis, {space: len(units.index) - space.size for space, units in plan.items()})


def axis_positions(axis: Axis, plan: Plan) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
    """For each new position of an axis the old one (-1: fresh) and its share; None where nothing changes."""
    found = _Moving(plan).along(axis)
    return None if found is None else (found.index, found.share)


def _touches(axis: Axis, plan: Plan) -> bool:
    return any(space in plan for space in spaces_on(axis))


@dataclass(frozen=True, slots=True, eq=False)
class _Moving:
    """Where positions go in one resize; many tensors have the same axes, and each axis is worked out once.

    Attributes:
        plan: The new units of each space that changes.
        makers: For each of these units which part makes it fresh; OLD where none does.
        strides: For each of them the how many-th it is of that part's smallest growths.
    """

    plan: Plan
    makers: Mapping[Space, NDArray[np.int64]] = field(default_factory=dict[Space, "NDArray[np.int64]"])
    strides: Mapping[Space, NDArray[np.int64]] = field(default_factory=dict[Space, "NDArray[np.int64]"])
    _known: dict[Axis, _Moved | None] = field(default_factory=dict[Axis, "_Moved | None"])

    def along(self, axis: Axis) -> _Moved | None:
        """The new positions of an axis; None where nothing changes."""
        if axis not in self._known:
            self._known[axis] = self.moved(axis) if _touches(axis, self.plan) else None
        return self._known[axis]

    def of(self, use: ParamAxes, axis: int) -> _Moved | None:
        """The new positions of one axis of a parameter, a row for each group where the groups differ."""
        if axis != 1 or not use.rows:
            return self.along(use.axes[axis])
        if not any(_touches(row, self.plan) for row in use.rows):
            return None
        rows = [self.moved(row) for row in use.rows]
        return _Moved(
            *(np.stack([getattr(row, name) for row in rows]) for name in ("index", "share", "apart", "maker", "stride"))
        )

    def moved(self, axis: Axis) -> _Moved:
        """The new positions of an axis, where something may change or not."""
        index: list[NDArray[np.int64]] = []
        share: list[NDArray[np.float64]] = []
        apart: list[NDArray[np.float64]] = []
        maker: list[NDArray[np.int64]] = []
        stride: list[NDArray[np.int64]] = []
        start = 0
        for space, block in axis:
            positions = extent(block)
            size = positions * (1 if space is None else space.size)
            if not _touches(((space, block),), self.plan):
                index.append(np.arange(start, start + size))
                share.append(np.ones(size))
                apart.append(np.zeros(size))
                maker.append(np.full(size, OLD))
                stride.append(np.zeros(size, np.int64))
            else:
                assert space is not None
                whole = Units(np.arange(space.size), np.ones(space.size))
                planned = self.plan.get(space, whole)
                units, shares = planned.index, planned.share
                # A unit's block may change too: what is fresh in the block is fresh in each unit, and shares multiply.
                inner = self.moved(as_axis(block))
                old = start + units[:, None] * positions + inner.index
                outer = self.makers.get(space, np.where(units < 0, 0, OLD))[:, None]
                met = (outer >= 0) & (inner.maker != OLD) & (inner.maker != outer)
                index.append(np.where((units[:, None] < 0) | (inner.index < 0), -1, old).ravel())
                share.append((shares[:, None] * inner.share).ravel())
                apart.append(np.maximum(np.full(len(units), planned.apart)[:, None], inner.apart).ravel())
                maker.append(np.where(met, MET, np.maximum(outer, inner.maker)).ravel())
                counted = self.strides.get(space, np.cumsum(units < 0) - 1)[:, None]
                stride.append(np.where(outer >= 0, counted, inner.stride).ravel())
            start += size
        where, taken = np.concatenate(index), np.concatenate(share)
        return _Moved(where, taken, np.concatenate(apart), np.concatenate(maker), np.concatenate(stride))


def resize(
    graph: Graph,
    plan: Plan,
    *,
    seed: int,
    step: int,
    values: Mapping[str, NDArray[Any]] | None = None,
    analysis: Analysis | None = None,
    start: Start = AS_EVER,
    stride: Mapping[Space, int] | None = None,
    pairs: tuple[Space, Sequence[int]] | None = None,
) -> Resize:
    """Change the widths of the spaces in `plan`, everywhere they appear.

    Args:
        graph: The graph.
        plan: The new units of each space that changes.
        seed: Keys the fresh numbers, with `step` and the parameter.
        step: Position of this rewrite in the history.
        values: Given numbers for fresh blocks, by address; others start as `start` says.
        analysis: The analysis that the spaces are of; `analyse`'s by default.
        start: How fresh entries start.
        stride: How many units of each space are its smallest growth; 1 where nothing is said.
        pairs: Of a split the space, and its units that get a partner each.
    """
    return resize_together(
        graph, [Part(plan, values or {}, (), stride or {}, pairs)], seed=seed, step=step, analysis=analysis, start=start
    )


def resize_together(
    graph: Graph,
    parts: Sequence[Part],
    *,
    seed: int,
    step: int,
    analysis: Analysis | None = None,
    start: Start = AS_EVER,
) -> Resize:
    """The same for several passes at once, with one copy of each tensor.

    Args:
        graph: The graph.
        parts: What each pass brings. Two may plan for one space where the later one has fresh units for it alone: they
            lie behind those of the earlier one.
        seed: As for `resize`, of all of them.
        step: As for `resize`.
        analysis: As for `resize`.
        start: How fresh entries start for which no numbers are given.
    """
    analysis = analysis or analyse(graph)
    plan: dict[Space, Units] = {}
    makers: dict[Space, NDArray[np.int64]] = {}
    strides: dict[Space, NDArray[np.int64]] = {}
    for k, part in enumerate(parts):
        for space, units in part.plan.items():
            maker = np.where(units.index < 0, k, OLD)
            stride = (np.cumsum(units.index < 0) - 1) // part.stride.get(space, 1)
            if space in plan:
                known, old = plan[space], space.size
                index, share = np.append(known.index, units.index[old:]), np.append(known.share, units.share[old:])
                units = Units(index, share, known.apart)
                maker, stride = np.append(makers[space], maker[old:]), np.append(strides[space], stride[old:])
            plan[space], makers[space], strides[space] = units, maker, stride
    moving = _Moving(plan, makers, strides)
    nodes = {node.name: node for node in _follow(graph, analysis, plan)}
    table = param_table(graph)
    edits: list[Edit] = []
    for key, use in analysis.params.items():
        if not any(_touches(axis, plan) for axis in (*use.axes, *use.rows)):
            continue
        host, _, parameter = key.rpartition(".")
        node = nodes[host]
        params = node.op.params(*(_new_shape(graph, analysis, plan, name) for name in node.inputs))
        maps: list[AxisMap] = []
        moved: dict[int, _Moved] = {}
        # Consuming axes last: where a new row meets a new column, the column's zero must win.
        for axis in sorted(range(len(use.axes)), key=lambda k: (k in use.consumes, k)):
            found = moving.of(use, axis)
            if found is not None:
                moved[axis] = found
                consumes = axis in use.consumes or axis in use.takes
                init, mean = _fresh(params[parameter], axis, start, consumes, use.within)
                fresh = Fresh(init, seed, step, mean=mean, like=start.like)
                maps.append(_axis_map(axis, found, consumes, fresh, params[parameter].init))
        if maps:
            places = [*_places(key, table[key], moved, parts), *_pairs(key, table[key], use, plan, moved, parts)]
            edits.append(Remap(key, tuple(maps), tuple(places)))
            edits += _from_zero(key, table[key], use, moved)
    return Resize(_inputs(graph, analysis, plan), tuple(nodes.values()), tuple(edits), _entries(graph, analysis, plan))


def _from_zero(key: str, param: Param, use: ParamAxes, moved: Mapping[int, _Moved]) -> Iterator[Edit]:
    """What is left to add where shares are not counted from zero: z + s (w - z) is s w, and (1 - s) z."""
    if not use.zero:
        return
    left = np.ones([moved[k].index.shape[-1] if k in moved else size for k, size in enumerate(param.shape)])
    for axis in moved.keys() & use.takes:
        left *= moved[axis].share.reshape([-1 if k == axis else 1 for k in range(left.ndim)])
    if (left != 1).any():
        yield Shift(key, use.zero * (1 - left))


def _places(key: str, param: Param, moved: Mapping[int, _Moved], parts: Sequence[Part]) -> Iterator[Place]:
    """Where numbers may be given to a tensor: what each part makes fresh on each axis, and where axes meet.

    Groups that differ have a place where a part makes as many positions fresh in each.
    """
    names = axis_names(param.axes)
    last: dict[int, int] = {}  # by axis that gains positions the last part that makes them
    for k in sorted({int(k) for each in moved.values() for k in np.unique(each.maker) if k >= 0}):
        mine = {axis: at for axis, each in sorted(moved.items()) if (at := _where(each.maker == k)) is not None}
        last |= dict.fromkeys(mine, k)
        for axis, at in mine.items():
            local = Address.of(key, [names[axis]] if len(mine) > 1 else [])
            yield _place(local, k, parts, param, {axis: at}, moved)
    gains = {axis: at for axis, each in sorted(moved.items()) if (at := _where(each.index < 0)) is not None}
    for size in range(2, len(gains) + 1):
        for axes in combinations(gains, size):
            # A corner belongs to the last pass that has a side of it: to the one that makes it, if they come in turn.
            k = max(last.get(axis, 0) for axis in axes)
            sides = {axis: gains[axis] for axis in axes}
            yield _place(Address.of(key, [names[axis] for axis in axes]), k, parts, param, sides, moved)


def _pairs(
    key: str, param: Param, use: ParamAxes, plan: Plan, moved: Mapping[int, _Moved], parts: Sequence[Part]
) -> Iterator[Place]:
    """Where what makes split units may part the two of each pair."""
    gains = {space: len(units.index) - space.size for space, units in plan.items()}
    plain = [axis for axis, each in moved.items() if each.index.ndim == 1]
    for part in parts:
        if part.pairs is not None:
            space = part.pairs[0]
            for place in pair_places(key, param, use, plain, gains, part.pairs, part.stride.get(space, 1)):
                local, number = place.address, part.place[-1] if part.place else 0
                address = Address.of(local.key, local.axes, part.place)
                makers = {axis: np.full(at.shape, number) for axis, at in place.at.items()}
                yield replace(place, address=address, given=part.values.get(local), makers=makers)


def _place(
    local: Address,
    k: int,
    parts: Sequence[Part],
    param: Param,
    at: Mapping[int, NDArray[np.int64]],
    moved: Mapping[int, _Moved],
) -> Place:
    """A place that parts[k] calls so."""
    shape = tuple(at[axis].shape[-1] if axis in at else size for axis, size in enumerate(param.shape))
    address = Address.of(local.key, local.axes, parts[k].place)
    numbers = np.array([part.place[-1] if part.place else 0 for part in parts])
    makers = {axis: numbers[np.take_along_axis(moved[axis].maker, where, -1).clip(0)] for axis, where in at.items()}
    strides = {axis: np.take_along_axis(moved[axis].stride, where, -1) for axis, where in at.items()}
    return Place(address, shape, at, parts[k].values.get(local), makers, strides)


def _where(holds: NDArray[np.bool_]) -> NDArray[np.int64] | None:
    """The positions where something holds; of several groups those of each, if they are equally many. None if none."""
    if holds.ndim == 1:
        return np.flatnonzero(holds) if holds.any() else None
    counts = holds.sum(1)
    if not counts[0] or (counts != counts[0]).any():
        return None
    return np.stack([np.flatnonzero(row) for row in holds])


def _inputs(graph: Graph, analysis: Analysis, plan: Plan) -> tuple[Input, ...]:
    """The graph's inputs after the resize."""
    return tuple(
        entry.model_copy(update={"shape": _new_shape(graph, analysis, plan, entry.name).dims})
        if _moves(analysis, plan, entry.name)
        else entry
        for entry in graph.inputs
    )


def _entries(graph: Graph, analysis: Analysis, plan: Plan) -> Entries:
    """Where the entries of inputs and outputs went."""
    inputs = {entry.name: _moves(analysis, plan, entry.name) for entry in graph.inputs}
    outputs = {k: _moves(analysis, plan, name) for k, name in enumerate(graph.outputs)}
    return Entries({n: moves for n, moves in inputs.items() if moves}, {k: m for k, m in outputs.items() if m})


def _moves(analysis: Analysis, plan: Plan, value: str) -> Moves:
    found = {k: axis_positions(axis, plan) for k, axis in enumerate(analysis.values[value])}
    return {k: first_of_each(moved[0]) for k, moved in found.items() if moved is not None}


def _new_shape(graph: Graph, analysis: Analysis, plan: Plan, value: str) -> Shape:
    """A value's shape after the resize."""
    old = shapes_of(graph)[value]
    axes = zip(old.dims, analysis.values[value], strict=True)
    return Shape(tuple(dim if dim == "N" else new_length(axis, plan) for dim, axis in axes), old.dtype)


def _fresh(param: Param, axis: int, start: Start, consumes: bool, within: bool) -> tuple[Init, bool]:
    """What fresh entries along an axis are drawn from, and whether they are the mean of the old ones instead."""
    init = param.init
    if isinstance(init, Normal) and axis == 0:
        init = Normal(init.std)  # the entry that starts at zero is an old one
    if consumes:
        return (ZERO if start.read == "zero" else init), False
    if start.made == "zero" and isinstance(init, Uniform | Normal):
        init = ZERO
    return init, within or start.made == "mean"


def _axis_map(axis: int, moved: _Moved, consumes: bool, fresh: Fresh, init: Init) -> AxisMap:
    changes = None if (moved.share == 1).all() else moved.share
    if consumes:
        # Groups that take different channels are a norm's in no network known; their copies part by shares alone.
        parts = bool(moved.apart.any()) and moved.index.ndim == 1
        apart = Apart(moved.apart, init, fresh.seed, fresh.step) if parts else None
        return AxisMap(axis, moved.index, changes, None, fresh, apart)
    # Norm statistics and the like are copied as they are too; they have no moments.
    return AxisMap(axis, moved.index, None, changes, fresh)


def _follow(graph: Graph, analysis: Analysis, plan: Plan) -> list[Node]:
    """The nodes with every attribute that is a width brought up to date."""
    changes: dict[str, dict[str, Any]] = {}
    for follower in analysis.followers:
        if not _touches(follower.axis, plan):
            continue
        size = new_length(follower.axis, plan)
        mine = changes.setdefault(follower.node, {})
        if follower.index is None:
            mine[follower.attribute] = size
        else:
            old = mine.get(follower.attribute, list(getattr(graph[follower.node].op, follower.attribute)))
            old[follower.index] = size
            mine[follower.attribute] = old
    for picked in analysis.selected:
        if _touches(picked.axis, plan):
            changes.setdefault(picked.node, {})[picked.attribute] = _moved(picked, plan)
    for each in analysis.counted:
        found = axis_positions(each.axis, plan)
        if found is not None:
            many: int = getattr(graph[each.node].op, each.attribute)
            changes.setdefault(each.node, {})[each.attribute] = _counted(many, found[0])
    return [node.with_op(**changes[node.name]) if node.name in changes else node for node in graph.nodes]


def _counted(old: int, index: NDArray[np.int64]) -> int:
    """How many positions the same choice takes: all copies of each; of fewer than there were, those that are left."""
    copies = np.bincount(index[index >= 0])
    return min(old * int(copies[copies > 0].min()), len(index))


def _moved(picked: Selected, plan: Plan) -> list[int]:
    """Where selected positions lie after the resize; a unit's copies and fresh neighbours are selected with it.

    The selected positions are whole runs of the axis's terms, so the new ones are the same runs at their new places.
    """
    terms: list[tuple[int, int]] = []  # for each old position the start and length of its term, before
    places: list[tuple[int, int]] = []  # and after
    old = new = 0
    for term in picked.axis:
        before, after = length((term,)), new_length((term,), plan)
        terms += [(old, before)] * before
        places += [(new, after)] * before
        old, new = old + before, new + after
    out: list[int] = []
    at = 0
    while at < len(picked.positions):
        (start, before), (place, after) = terms[picked.positions[at]], places[picked.positions[at]]
        if before == after:
            out.append(place + picked.positions[at] - start)
            at += 1
        else:
            out += range(place, place + after)
            at += before
    return out
