"""Addresses: what places of fresh numbers are called, what shape their blocks have, and where these go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from growir import live, passes
from growir.addresses import Address, axis_names, by_pass
from growir.backends.torch_edits import TORCH
from growir.channels import analyse
from growir.edits import NUMPY, AxisMap, Edit, Fresh, Place, Remap, apply_edits, mapped
from growir.errors import PassRefused
from growir.graph import Graph, Node, Step
from growir.growth.measure.overgrown import OverGrown
from growir.network import Network
from growir.ops import AdaptiveAvgPool2d, Add, BatchNorm, Constant, Conv2d, Flatten, Linear, Relu
from growir.passes import Split, Widen, pass_from_data, pass_from_step
from growir.rewrite import Pass, Preserves
from growir.testing import assert_preserves, graphs, random_network
from tests.laws.test_resizing import shuffled
from tests.samples import graph_of

FEW = settings(max_examples=max(settings().max_examples // 4, 10))
Arrays = dict[str, NDArray[Any]]


def dense() -> Graph:
    """Four linear layers, so that two inner weights lie between spaces."""
    return graph_of(
        (3,),
        Node(name="a", op=Linear(out_features=4), inputs=("x",)),
        Node(name="ra", op=Relu(), inputs=("a",)),
        Node(name="b", op=Linear(out_features=5), inputs=("ra",)),
        Node(name="rb", op=Relu(), inputs=("b",)),
        Node(name="c", op=Linear(out_features=6), inputs=("rb",)),
        Node(name="rc", op=Relu(), inputs=("c",)),
        Node(name="head", op=Linear(out_features=2), inputs=("rc",)),
    )


def blocks_of(step: Pass, graph: Graph) -> Mapping[str, tuple[int, ...]]:
    done = step.rewrite(graph)
    return step.blocks(done.graph, done.edits)


def drawn(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    return {address: rng.normal(size=shape).astype(np.float32) for address, shape in shapes.items()}


def small(network: Network) -> Network:
    arrays = {k: a.astype(np.float32) if a.dtype.kind == "f" else a for k, a in network.arrays.items()}
    return network.with_arrays(arrays)


def equal(found: Mapping[str, NDArray[Any]], wanted: Mapping[str, NDArray[Any]]) -> None:
    assert found.keys() == wanted.keys()
    for key, array in wanted.items():
        assert found[key].dtype == array.dtype
        assert np.array_equal(found[key], array), key


@pytest.mark.parametrize(
    ("text", "place", "key", "axes"),
    [
        ("b.weight", (), "b.weight", ()),
        ("b.weight/in", (), "b.weight", ("in",)),
        ("b.weight/out+in", (), "b.weight", ("out", "in")),
        ("3/b.weight", (3,), "b.weight", ()),
        ("1/12/0.conv.weight/out0", (1, 12), "0.conv.weight", ("out0",)),
    ],
)
def test_an_address_is_text_with_parts(text: str, place: tuple[int, ...], key: str, axes: tuple[str, ...]) -> None:
    address = Address(text)
    assert (address.place, address.key, address.axes) == (place, key, axes)
    assert Address.of(key, axes, place) == text == address
    assert {text: 1}[address] == 1
    assert address.within(7).place == (7, *place)
    assert by_pass({address.within(7): 1, address.within(71): 2}, 7) == {text: 1}


def test_strange_text_is_an_address_that_nothing_has() -> None:
    for text in ("", "/", "3", "3/", "a/b/c", "//"):
        address = Address(text)
        assert isinstance(address.key, str)
        assert isinstance(address.axes, tuple)
    assert Address("3").key == ""


def test_axes_of_one_name_are_numbered() -> None:
    assert axis_names(("out", "in", "kernel", "kernel")) == ("out", "in", "kernel2", "kernel3")
    assert axis_names(("out",)) == ("out",)


def test_neighbours_have_blocks_in_the_shapes_of_the_graph_before() -> None:
    both = passes.Sequence(passes=(Widen(node="a", by=1), Widen(node="b", by=2), Widen(node="c", by=3)))
    assert blocks_of(both, dense()) == {
        "0/a.weight": (1, 3),
        "0/a.bias": (1,),
        "0/b.weight": (5, 1),
        "1/b.weight": (2, 4),
        "1/b.weight/out+in": (2, 1),
        "1/b.bias": (2,),
        "1/c.weight": (6, 2),
        "2/c.weight": (3, 5),
        "2/c.weight/out+in": (3, 2),
        "2/c.bias": (3,),
        "2/head.weight": (2, 3),
    }


def test_blocks_go_where_they_belong_and_corners_start_at_zero() -> None:
    graph = dense()
    step = passes.Sequence(passes=(Widen(node="a", by=1), Widen(node="b", by=2)))
    shapes = blocks_of(step, graph)
    values = drawn({address: shape for address, shape in shapes.items() if not address.endswith("out+in")})
    network = small(random_network(graph))
    after = network.apply(passes.Sequence(passes=step.passes, values=values)).arrays
    old = network.arrays["b.weight"]
    assert np.array_equal(after["b.weight"][:5, :4], old)
    assert np.array_equal(after["b.weight"][:5, 4:], values["0/b.weight"])
    assert np.array_equal(after["b.weight"][5:, :4], values["1/b.weight"])
    assert (after["b.weight"][5:, 4:] == 0).all()
    corner = drawn({"1/b.weight/out+in": (2, 1)}, 1)
    after = network.apply(passes.Sequence(passes=step.passes, values={**values, **corner})).arrays
    assert np.array_equal(after["b.weight"][5:, 4:], corner["1/b.weight/out+in"])
    assert np.array_equal(after["b.weight"][:5, 4:], values["0/b.weight"])
    alone = network.apply(passes.Sequence(passes=step.passes, values=corner)).arrays
    assert np.array_equal(alone["b.weight"][5:, 4:], corner["1/b.weight/out+in"])
    plain = network.apply(step).arrays["b.weight"]
    assert np.array_equal(alone["b.weight"][:, :4], plain[:, :4])
    assert (alone["b.weight"][:5, 4:] == 0).all()


def residual() -> Graph:
    """A stream that a convolution both reads and adds to, which the same pass widens on both of its axes."""
    return graph_of(
        (2, 4, 4),
        Node(name="stem", op=Conv2d(out_channels=3, kernel_size=1), inputs=("x",)),
        Node(name="conv", op=Conv2d(out_channels=3, kernel_size=3, padding=1, bias=False), inputs=("stem",)),
        Node(name="norm", op=BatchNorm(), inputs=("conv",)),
        Node(name="sum", op=Add(), inputs=("stem", "norm")),
        Node(name="pool", op=AdaptiveAvgPool2d(), inputs=("sum",)),
        Node(name="flat", op=Flatten(), inputs=("pool",)),
        Node(name="head", op=Linear(out_features=2), inputs=("flat",)),
    )


def test_one_pass_that_widens_both_axes_of_a_weight_has_three_places_there() -> None:
    graph = residual()
    step = Widen(node="stem", by=2)
    shapes = blocks_of(step, graph)
    assert {address: shape for address, shape in shapes.items() if Address(address).key == "conv.weight"} == {
        "conv.weight/out": (2, 3, 3, 3),
        "conv.weight/in": (3, 2, 3, 3),
        "conv.weight/out+in": (2, 2, 3, 3),
    }
    assert shapes["stem.weight"] == (2, 2, 1, 1)
    values = drawn({a: s for a, s in shapes.items() if Address(a).key == "conv.weight"})
    network = small(random_network(graph))
    after = network.apply(step.model_copy(update={"values": values})).arrays["conv.weight"]
    assert np.array_equal(after[3:, :3], values["conv.weight/out"])
    assert np.array_equal(after[:3, 3:], values["conv.weight/in"])
    assert np.array_equal(after[3:, 3:], values["conv.weight/out+in"])
    rows = Widen(node="stem", by=2, values={"conv.weight/out": values["conv.weight/out"]})
    assert rows.preserves(graph) is Preserves.EXACT
    assert_preserves(rows, graph)
    for axis in ("in", "out+in"):
        address = f"conv.weight/{axis}"
        assert Widen(node="stem", by=2, values={address: values[address]}).preserves(graph) is Preserves.NOTHING
        zero = Widen(node="stem", by=2, values={address: 0 * values[address]})
        assert zero.preserves(graph) is Preserves.EXACT


def test_three_axes_that_grow_meet_in_four_corners() -> None:
    """By hand: every region of the new tensor is the numbers that were given for it, and nothing is given twice."""
    index = [np.array([0, 1, -1]), np.array([0, -1, 1, -1]), np.array([-1, 0, 1, 2, -1])]
    new = [np.flatnonzero(each < 0) for each in index]
    rng = np.random.default_rng(0)
    old = rng.normal(size=(2, 2, 3))
    fresh = Fresh(Constant(0.0))
    axes = tuple(AxisMap(k, each, None, None, fresh) for k, each in enumerate(index))
    places: list[Place] = []
    for size in (1, 2, 3):
        for along in combinations(range(3), size):
            shape = tuple(len(new[k]) if k in along else old.shape[k] for k in range(3))
            address = Address.of("t.weight", [f"out{k}" for k in along])
            places.append(Place(address, shape, {k: new[k] for k in along}))
    given: dict[str, NDArray[Any]] = {place.address: rng.normal(size=place.shape) for place in places}
    edits = (Remap("t.weight", axes, tuple(reversed(places))),)
    (after,) = apply_edits(edits, {"t.weight": old}, NUMPY, np.dtype(np.float64), given).values()
    kept = [np.flatnonzero(each >= 0) for each in index]
    assert np.array_equal(after[np.ix_(*kept)], old)
    for place in places:
        region = np.ix_(*(new[k] if k in place.at else kept[k] for k in range(3)))
        assert np.array_equal(after[region], given[place.address]), place.address
    (tensor,) = apply_edits(
        edits,
        {"t.weight": torch.from_numpy(old)},
        TORCH,
        np.dtype(np.float64),
        {address: torch.from_numpy(block) for address, block in given.items()},
    ).values()
    assert np.array_equal(tensor.numpy(), after)


def test_given_numbers_are_copied_and_take_their_shares_as_old_ones_do() -> None:
    fresh = Fresh(Constant(0.0))
    rows = AxisMap(0, np.array([0, 0, 1]), np.array([0.25, 0.75, 1.0]), None, fresh)
    columns = AxisMap(1, np.array([0, -1]), None, None, fresh)
    place = Place(Address("t.weight/in"), (2, 1), {1: np.array([1])}, np.array([[4.0], [8.0]]))
    done = apply_edits(
        (Remap("t.weight", (rows, columns), (place,)),), {"t.weight": np.ones((2, 1))}, NUMPY, np.dtype(float)
    )
    assert done["t.weight"].tolist() == [[0.25, 1.0], [0.75, 3.0], [1.0, 8.0]]


def test_groups_that_take_different_channels_have_blocks_of_their_own_positions() -> None:
    """A grouped convolution behind a shuffle: each group of two rows reads three new positions in its own places."""
    graph = shuffled()
    step = passes.Sequence(passes=(Widen(node="rows@2:0", by=9), Widen(node="grouped", by=3)))
    shapes = {a: s for a, s in blocks_of(step, graph).items() if Address(a).key == "grouped.weight"}
    assert shapes == {
        "0/grouped.weight": (6, 3, 3, 3),
        "1/grouped.weight": (3, 5, 3, 3),
        "1/grouped.weight/out+in": (3, 3, 3, 3),
    }
    network = small(random_network(graph))
    old, values = network.arrays["grouped.weight"], drawn(shapes)
    after = network.apply(passes.Sequence(passes=step.passes, values=values)).arrays["grouped.weight"]
    (edit,) = [e for e in step.rewrite(graph).edits if isinstance(e, Remap) and e.key == "grouped.weight"]
    rows, columns = (part.index for part in edit.axes)
    assert columns.shape == (3, 8)
    assert len({tuple(np.flatnonzero(row < 0)) for row in columns}) == 3
    fresh_rows = 0
    for row, source in enumerate(rows):
        new, kept = np.flatnonzero(columns[row // 3] < 0), np.flatnonzero(columns[row // 3] >= 0)
        order = columns[row // 3][kept]
        if source < 0:
            assert np.array_equal(after[row][new], values["1/grouped.weight/out+in"][fresh_rows])
            assert np.array_equal(after[row][kept], values["1/grouped.weight"][fresh_rows][order])
            fresh_rows += 1
        else:
            assert np.array_equal(after[row][new], values["0/grouped.weight"][source])
            assert np.array_equal(after[row][kept], old[source][order])
    assert fresh_rows == 3


def test_numbers_for_two_neighbours_are_given_on_torch_too_and_slopes_flow_through() -> None:
    graph = dense()
    step = passes.Sequence(passes=(Widen(node="a", by=1), Widen(node="b", by=2)))
    done = step.rewrite(graph)
    values = drawn(step.blocks(done.graph, done.edits))
    arrays = small(random_network(graph)).arrays
    tensors = {key: torch.from_numpy(np.array(array)) for key, array in arrays.items()}
    blocks = {address: torch.tensor(block, requires_grad=True) for address, block in values.items()}
    new = apply_edits(done.edits, tensors, TORCH, np.dtype(np.float32), blocks)
    wanted = apply_edits(done.edits, arrays, NUMPY, np.dtype(np.float32), values)
    equal({key: tensor.detach().numpy() for key, tensor in new.items()}, wanted)
    torch.autograd.backward(sum((tensor.sum() for tensor in new.values()), torch.zeros(())))
    for address, block in blocks.items():
        assert block.grad is not None
        assert (block.grad == 1).all(), address


REFUSED: dict[str, tuple[Pass, str]] = {
    "no axis": (
        Widen(node="stem", by=1, values={"conv.weight": np.ones((1, 3, 3, 3))}),
        "widen: conv.weight has no fresh block that values could fill. "
        "Did you mean 'conv.weight/out' or 'conv.weight/in'?",
    ),
    "shape": (
        Widen(node="stem", by=1, values={"conv.weight/in": np.ones((4, 1, 3, 3))}),
        "widen: the fresh block of conv.weight/in has shape (3, 1, 3, 3), but values give (4, 1, 3, 3)",
    ),
    "no corner": (
        Widen(node="stem", by=1, values={"head.weight/out+in": np.ones((1, 1))}),
        "widen: head.weight/out+in has no fresh block that values could fill.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str) -> None:
    step, says = REFUSED[case]
    with pytest.raises(PassRefused) as caught:
        step.rewrite(residual())
    assert str(caught.value).startswith(says)


def test_a_sequence_refuses_blocks_in_the_shape_that_its_earlier_passes_left() -> None:
    step = passes.Sequence(
        passes=(Widen(node="a", by=1), Widen(node="b", by=2, values={"b.weight": np.ones((2, 5), np.float32)}))
    )
    says = r"widen: the fresh block of b\.weight has shape \(2, 4\), but values give \(2, 5\)"
    with pytest.raises(PassRefused, match=says):
        step.rewrite(dense())


def test_a_sequence_of_version_1_still_means_what_it_meant() -> None:
    """A pass with values was by itself: its blocks had the extents that earlier ones left, its draws their own key."""
    graph = dense()
    network = small(random_network(graph))
    values = drawn({"0/a.weight": (1, 3), "1/b.bias": (2,), "2/c.weight": (3, 7)})
    inner = [{"pass": "widen", "node": n, "by": by, "version": 1} for n, by in (("a", 1), ("b", 2), ("c", 3))]
    data = {"pass": "sequence", "version": 1, "passes": inner}
    old = pass_from_data(data, values)
    after = network.apply(old)
    one_by_one = network
    for k, each in enumerate(inner):
        one_by_one = one_by_one.apply(pass_from_data(each, by_pass(values, k)))
    for key in ("a.weight", "b.bias", "c.weight"):
        assert np.array_equal(after.arrays[key], one_by_one.arrays[key])
    assert (after.arrays["b.weight"][5:] != 0).all()  # drawn over all columns, those of the pass before too
    recorded = after.graph.history
    assert recorded is not None
    (step,) = recorded.steps
    assert (step.version, step.fields["joined"]) == (3, "unvalued")
    equal(after.replayed(network.arrays).arrays, after.arrays)
    # As a document of then has it, without the field.
    fields = {name: value for name, value in step.fields.items() if name != "joined"}
    was = Step.model_validate({"pass": "sequence", "version": 1, **fields, "values": step.values})
    found = {key: after.values[digest] for key, digest in was.values.items()}
    equal(network.apply(pass_from_step(was, found)).arrays, after.arrays)


@pytest.mark.parametrize(
    ("version", "more", "joined"),
    [(1, {}, "unvalued"), (2, {}, "spaces"), (2, {"valued": "apart"}, "unvalued"), (3, {}, "all")],
)
def test_a_sequence_means_what_its_version_meant(version: int, more: dict[str, str], joined: str) -> None:
    """Two widenings of one space were two rewrites, with numbers of their own, before they were joined."""
    widenings = [{"pass": "widen", "node": "a", "by": by} for by in (1, 2)]
    step = pass_from_data({"pass": "sequence", "version": version, "passes": widenings, **more})
    assert isinstance(step, passes.Sequence)
    assert step.joined == joined
    assert ("joined" in step.model_dump()) == (joined != "all")
    keys = [edit.key for edit in step.rewrite(dense()).edits if isinstance(edit, Remap)]
    assert (len(keys) == len(set(keys))) == (joined == "all")


def test_splits_with_numbers_are_carried_out_together() -> None:
    """As one after the other, to the bit: numbers of the graph before, shares that are powers of two."""
    graph = dense()
    splits = (Split(node="a", channels=(2,), shares=(0.5,)), Split(node="b", channels=(4, 0), shares=(0.5, 0.25)))
    assert blocks_of(passes.Sequence(passes=splits), graph)["1/b.weight"] == (2, 4)
    values = drawn({"0/a.weight": (1, 3), "0/a.bias": (1,), "1/b.weight": (2, 4)})
    step = passes.Sequence(passes=splits, values=values)
    done = step.rewrite(graph)
    keys = [edit.key for edit in done.edits if isinstance(edit, Remap)]
    assert len(keys) == len(set(keys)) == len(done.edits)
    network = small(random_network(graph))
    together = network.apply(step)
    one = network.apply(splits[0].model_copy(update={"values": by_pass(values, 0)}))
    theta = values["1/b.weight"][:, [0, 1, 2, 3, 2]] * np.array([1, 1, 0.5, 1, 0.5], np.float32)
    equal(together.arrays, one.apply(splits[1].model_copy(update={"values": {"b.weight": theta}})).arrays)
    equal(together.replayed(network.arrays).arrays, together.arrays)


def test_a_split_that_changes_a_weight_on_both_axes_takes_numbers_of_either_extent() -> None:
    """Those of the extents after the split are what histories from before there were places hold."""
    graph = residual()
    split = Split(node="stem", channels=(1,), shares=(0.5,))
    network = small(random_network(graph))
    assert blocks_of(split, graph)["conv.weight"] == (1, 3, 3, 3)
    theta = drawn({"conv.weight": (1, 3, 3, 3)})["conv.weight"]
    by_place = network.apply(split.model_copy(update={"values": {"conv.weight": theta}})).arrays
    lifted = theta[:, [0, 1, 2, 1]] * np.array([1, 0.5, 1, 0.5], np.float32).reshape(1, 4, 1, 1)
    shifted = network.apply(split.model_copy(update={"values": {"conv.weight": lifted}})).arrays
    equal(by_place, shifted)


def followed(block: NDArray[Any], address: Address, axis: int, before: Sequence[Edit]) -> NDArray[Any]:
    """A block in the extents of the tensor that earlier edits left: where old entries went, zero at what is fresh."""

    def move(array: NDArray[Any], part: AxisMap) -> NDArray[Any]:
        array = np.take(array, part.index.clip(0), part.axis)
        array = array if part.scale is None else NUMPY.scale(array, part.axis, part.scale)
        return NUMPY.put(array, part.axis, part.new, 0.0)

    for edit in before:
        if isinstance(edit, Remap) and edit.key == address.key:
            for part in edit.axes:
                if part.axis != axis:
                    block = mapped(block, part, NUMPY, move)
    return block


def meet_inside(edit: Remap) -> bool:
    """Whether units of one space hold another that grows too, as channels hold what is flattened behind them.

    One after the other, the later pass has a block of what is new in new units; together none has.
    """
    covered = {part.axis: 0 for part in edit.axes}
    for place in edit.places:
        if len(place.at) == 1:
            ((axis, at),) = place.at.items()
            covered[axis] += at.size
    return any(int((part.index < 0).sum()) != covered[part.axis] for part in edit.axes)


def extents_of(edits: Sequence[Edit]) -> dict[tuple[tuple[int, ...], str, int], int]:
    """By pass, tensor and axis, how many positions the pass makes fresh along it."""
    places = [place for edit in edits if isinstance(edit, Remap) for place in edit.places if len(place.at) == 1]
    return {(p.address.place, p.address.key, axis): at.shape[-1] for p in places for axis, at in p.at.items()}


@FEW
@given(data=st.data())
def test_together_is_one_after_the_other_to_the_bit(data: st.DataObject) -> None:
    """Passes of a sequence that are carried out together leave what each leaves by itself, given the same numbers."""
    graph = data.draw(graphs(moves=7))
    found: list[Widen] = []
    moved: set[Any] = set()
    for space in analyse(graph).spaces:
        # A name such as conv@2 means another place once what lies before it is wider.
        if space.pins or space.uniform or space.partial or "@" in space.name or moved & set(space.growth):
            continue
        moved |= set(space.growth)
        copied = data.draw(st.booleans()) and not space.tied
        units = space.growth[space.space]
        copies = tuple(k % space.units for k in range(units)) if copied else ()
        found.append(Widen(node=space.name, by=space.stride, copies=copies, shares=(0.5,) * len(copies)))
    assume(len(found) > 1)
    found = data.draw(st.permutations(found))
    step = passes.Sequence(passes=tuple(found))
    done = step.rewrite(graph)
    assume(max(Counter(edit.key for edit in done.edits if isinstance(edit, Remap)).values()) == 1)
    assume(not any(meet_inside(edit) for edit in done.edits if isinstance(edit, Remap)))
    # The same where copies of an inner unit come into what is new: together, they are part of its block.
    by_itself = [passes.Sequence(passes=(each,)).rewrite(graph).edits for each in found]
    lone = {((k,), *key): size for k, edits in enumerate(by_itself) for (_, *key), size in extents_of(edits).items()}
    assume(extents_of(done.edits).items() <= lone.items())
    places = {p.address: p for edit in done.edits if isinstance(edit, Remap) for p in edit.places if len(p.at) == 1}
    means = {e.key for e in done.edits if isinstance(e, Remap) and any(part.fresh.mean for part in e.axes)}
    values = drawn({address: place.shape for address, place in places.items() if address.key not in means})
    network = small(random_network(graph))
    together = network.apply(passes.Sequence(passes=tuple(found), values=values))

    apart, before = network, list[Edit]()
    for k, each in enumerate(found):
        mine: Arrays = {}
        for address, block in by_pass(values, k).items():
            (axis,) = places[Address(address).within(k)].at
            mine[address] = followed(block, Address(address), axis, before)
        each = each.model_copy(update={"values": mine})
        alone = each.rewrite(apart.graph)
        corners = {a: np.zeros(s) for a, s in each.blocks(alone.graph, alone.edits).items() if "+" in a}
        apart = apart.apply(each.model_copy(update={"values": {**mine, **corners}}))
        before += alone.edits
    assert apart.graph.nodes == together.graph.nodes
    equal(together.arrays, apart.arrays)
    equal(together.replayed(network.arrays).arrays, together.arrays)


@FEW
@given(st.data())
def test_a_space_that_is_split_and_widened_at_once_is_so_one_after_the_other(data: st.DataObject) -> None:
    """Copies lie behind the old units, fresh ones behind those; numbers of both go where they would have gone."""
    graph = data.draw(graphs())
    # A name that is a place, such as conv@4, means another space once the one before it has grown.
    free = [s for s in analyse(graph).spaces if s.name in graph and not (s.pins or s.uniform or s.tied or s.partial)]
    assume(free)
    space = data.draw(st.sampled_from(free))
    units = data.draw(st.lists(st.sampled_from(range(space.units)), min_size=1, unique=True).map(sorted))
    count = len(units) // space.growth[space.space] * space.growth[space.space]
    assume(count)
    pair = (
        Split(node=space.name, channels=tuple(units[:count]), shares=(0.5,) * count),
        Widen(node=space.name, by=2 * space.stride),
    )
    whole = passes.Sequence(passes=pair)
    values = drawn(blocks_of(whole, graph), data.draw(st.integers(0, 99)))
    apart = passes.Sequence(passes=pair, joined="spaces")
    shapes = blocks_of(apart, graph)
    assume(all(shapes.get(address) == values[address].shape for address in values))
    network = small(random_network(graph))
    one = network.apply(passes.Sequence(passes=pair, values=values))
    other = network.apply(passes.Sequence(passes=pair, values=values, joined="spaces"))
    assert one.graph.hash == other.graph.hash
    for key, array in one.arrays.items():
        np.testing.assert_allclose(array, other.arrays[key], rtol=1e-6, atol=1e-7)


def test_of_a_space_that_is_split_and_widened_at_once_any_unit_stays() -> None:
    graph = dense()
    both = passes.Sequence(passes=(Split(node="a", channels=(0, 1, 2, 3), shares=(0.5,) * 4), Widen(node="a", by=3)))
    module = random_network(graph).to_torch()
    over = OverGrown(module, both)
    generator = torch.Generator().manual_seed(0)
    numbers = {a: torch.randn(shape, generator=generator, dtype=torch.float64) for a, shape in over.places.items()}
    gates = {"0/a.weight": torch.tensor([0.0, 0.1, 0.0, 0.0])[:, None], "1/b.weight": torch.tensor([0.0, 0.0, 0.3])}
    numbers |= {address: numbers[address] * gate for address, gate in gates.items()}
    numbers["0/a.bias"] = torch.zeros(4, dtype=torch.float64)
    step = over.chosen({0: [1], 1: [2]}, numbers)
    x = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    grown, _ = live.grow(module, step)
    torch.testing.assert_close(grown(x), over(numbers, x)[0])
