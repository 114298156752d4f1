"""Channel spaces of known graphs: names, widths, who makes and who uses them, and why some are pinned."""

from __future__ import annotations

import numpy as np
import pytest

from growir.channels import analyse, channel_spaces
from growir.errors import PassRefused
from growir.graph import Graph, Node
from growir.ops import (
    Add,
    Attention,
    BatchNorm,
    Concat,
    Conv1d,
    Conv2d,
    Dropout,
    Expand,
    Flatten,
    LayerNorm,
    Linear,
    MatMul,
    Mul,
    Parameter,
    Permute,
    Reshape,
    Slice,
    Standardise,
    Tanh,
)
from growir.passes import Prune, Sequence, Split, Widen
from growir.rewrite import Preserves
from growir.testing import assert_preserves, random_network
from growir.verify import verify
from tests.samples import graph_of, mlp, residual_convnet


def free(graph: Graph) -> dict[str, tuple[int, int]]:
    """Name, width and stride of every free space."""
    return {space.name: (space.width, space.stride) for space in channel_spaces(graph) if not space.pins}


def reasons(graph: Graph, node: str) -> list[str]:
    return [str(pin) for space in channel_spaces(graph) if node in space.nodes for pin in space.pins]


def test_an_mlp() -> None:
    hidden, out = channel_spaces(mlp())
    assert (hidden.name, hidden.width, hidden.stride) == ("fc1", 4, 1)
    assert hidden.nodes == ("fc1", "act1")
    assert {(slot.parameter, slot.axis) for slot in hidden.producers} == {("fc1.weight", 0), ("fc1.bias", 0)}
    assert {(slot.parameter, slot.axis) for slot in hidden.consumers} == {("head.weight", 1)}
    assert [str(pin) for pin in out.pins] == ["head (graph output)"]


def test_the_worked_case_of_spaces() -> None:
    """The numbers in the docstring of growir/ops/spaces.py."""

    def layer(name: str, channels: int) -> Node:
        return Node(name=name, op=Conv2d(out_channels=channels, kernel_size=1), inputs=("x",))

    graph = graph_of(
        (3, 2, 2),
        *(layer("a", 4), layer("b", 2), layer("c", 6)),
        Node(name="cat", op=Concat(), inputs=("a", "b")),
        Node(name="sum_", op=Add(), inputs=("cat", "c")),
        Node(name="all_", op=Concat(), inputs=("sum_", "x")),
        Node(name="flat", op=Flatten(), inputs=("all_",)),
        Node(name="head", op=Linear(out_features=1), inputs=("flat",)),
    )
    analysis = analyse(graph)
    a, b = (analysis.find(name, graph) for name in "ab")
    assert analysis.values["c"][1] == analysis.values["sum_"][1] == ((a.space, 1), (b.space, 1))
    assert analysis.values["all_"][1] == ((a.space, 1), (b.space, 1), (None, 3))
    assert analysis.values["flat"][1] == ((a.space, 4), (b.space, 4), (None, 12))
    wider = assert_preserves(Widen(node="a", by=1), graph).arrays
    before = random_network(graph).arrays
    assert np.array_equal(np.delete(wider["c.weight"], 4, axis=0), before["c.weight"])
    assert np.array_equal(np.delete(wider["head.weight"], range(16, 20), axis=1), before["head.weight"])


def test_the_worked_case_of_strides() -> None:
    """The numbers in the docstring of growir/strides.py."""
    graph = graph_of(
        (3, 4, 4),
        Node(name="a", op=Conv2d(out_channels=2, kernel_size=1), inputs=("x",)),
        Node(name="c", op=Conv2d(out_channels=1, kernel_size=1), inputs=("x",)),
        Node(name="cat", op=Concat(), inputs=("a", "a", "x", "c")),
        Node(name="grouped", op=Conv2d(out_channels=6, kernel_size=1, groups=2), inputs=("cat",)),
        Node(name="head", op=Conv2d(out_channels=1, kernel_size=1), inputs=("grouped",)),
    )
    a, c = (analyse(graph).find(name, graph) for name in "ac")
    assert a.growth == {a.space: 1, c.space: 2}
    assert c.growth == {c.space: 2, a.space: 1}
    assert (a.stride, c.stride) == (1, 2)
    assert_preserves(Widen(node="c", by=2), graph)
    normalised = graph_of(
        (3,),
        Node(name="a", op=Linear(out_features=2), inputs=("x",)),
        Node(name="c", op=Linear(out_features=1), inputs=("x",)),
        Node(name="cat", op=Concat(), inputs=("a", "c")),
        Node(name="norm", op=LayerNorm(), inputs=("cat",)),
        Node(name="head", op=Linear(out_features=1), inputs=("norm",)),
    )
    a, c = (analyse(normalised).find(name, normalised) for name in "ac")
    assert a.growth == c.growth == {a.space: 2, c.space: 1}


def test_a_residual_block_is_one_space() -> None:
    graph = residual_convnet()
    assert free(graph) == {"stem": (3, 1)}
    (space,) = [space for space in channel_spaces(graph) if not space.pins]
    assert {"stem", "block.conv", "block.norm", "sum", "act"} <= set(space.nodes)
    assert {slot.parameter for slot in space.consumers} == {"block.conv.weight", "head.weight"}
    assert "block.norm.running_var" in {slot.parameter for slot in space.producers}


def test_a_value_joined_twice_takes_two_positions() -> None:
    graph = graph_of(
        (3,),
        Node(name="fc", op=Linear(out_features=2), inputs=("x",)),
        Node(name="cat", op=Concat(), inputs=("fc", "fc")),
        Node(name="cut", op=Slice(start=1, length=2), inputs=("cat",)),
        Node(name="head", op=Linear(out_features=1), inputs=("cut",)),
    )
    assert free(graph) == {"fc@0": (1, 1), "fc@1": (1, 1)}
    for name in free(graph):
        grown = assert_preserves(Widen(node=name, by=2), graph)
        assert grown.graph["head"].op == graph["head"].op


def test_groups_grow_alike() -> None:
    graph = graph_of(
        (2, 3, 3),
        Node(name="one", op=Conv2d(out_channels=4, kernel_size=1), inputs=("x",)),
        Node(name="two", op=Conv2d(out_channels=6, kernel_size=3, groups=2), inputs=("one",)),
        Node(name="flat", op=Flatten(), inputs=("two",)),
        Node(name="head", op=Linear(out_features=1), inputs=("flat",)),
    )
    assert free(graph) == {"one": (4, 2), "two": (6, 2)}
    with pytest.raises(PassRefused, match=r"grows by multiples of 2 .* but by is 3; try by=4"):
        Widen(node="one", by=3).rewrite(graph)


def test_a_shuffle_written_as_reshapes() -> None:
    graph = graph_of(
        (2, 2, 2),
        Node(name="conv", op=Conv2d(out_channels=6, kernel_size=1), inputs=("x",)),
        Node(name="split_", op=Reshape(shape=(2, 3, 2, 2)), inputs=("conv",)),
        Node(name="again", op=Reshape(shape=(6, 2, 2)), inputs=("split_",)),
        Node(name="flat", op=Flatten(), inputs=("again",)),
        Node(name="head", op=Linear(out_features=1), inputs=("flat",)),
    )
    assert free(graph) == {"conv": (6, 2)}
    grown = Widen(node="conv", by=2).rewrite(graph).graph
    assert grown["split_"].op.attributes()["shape"] == [2, 4, 2, 2]
    assert grown["again"].op.attributes()["shape"] == [8, 2, 2]


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        (
            [Node(name="it", op=LayerNorm(dims=1), inputs=("cat",))],
            "is normalised together with channels that cannot change",
        ),
        ([Node(name="it", op=Standardise(), inputs=("fc",))], "counts as constant"),
    ],
)
def test_reasons(nodes: list[Node], reason: str) -> None:
    graph = graph_of(
        (3,),
        Node(name="fc", op=Linear(out_features=2), inputs=("x",)),
        Node(name="cat", op=Concat(), inputs=("fc", "x")),
        *nodes,
        Node(name="head", op=Linear(out_features=1), inputs=("it",)),
    )
    assert any(reason in text for text in reasons(graph, "fc"))
    with pytest.raises(PassRefused, match=reason):
        Widen(node="fc", by=1).rewrite(graph)


def test_batch_statistics_pin_the_axis_they_run_along() -> None:
    graph = graph_of(
        (2, 3),
        Node(name="fc", op=Linear(out_features=4), inputs=("x",)),
        Node(name="norm", op=BatchNorm(), inputs=("fc",)),
        Node(name="flat", op=Flatten(), inputs=("norm",)),
        Node(name="head", op=Linear(out_features=1), inputs=("flat",)),
    )
    assert not free(graph)
    assert "norm (batch statistics are taken along this axis)" in reasons(graph, "fc")


def test_heads_grow_where_all_of_them_share_keys_and_values() -> None:
    graph = graph_of(
        (3, 5),
        *(Node(name=name, op=Linear(out_features=n), inputs=("x",)) for name, n in (("q", 8), ("k", 2), ("v", 2))),
        *(
            Node(name=f"{name}_rows", op=Reshape(shape=(3, n, 2)), inputs=(name,))
            for name, n in (("q", 4), ("k", 1), ("v", 1))
        ),
        *(
            Node(name=f"{name}_heads", op=Permute(dims=(0, 2, 1, 3)), inputs=(f"{name}_rows",))
            for name in ("q", "k", "v")
        ),
        *(Node(name=f"{name}_all", op=Expand(shape=(4, 3, 2)), inputs=(f"{name}_heads",)) for name in ("k", "v")),
        Node(name="attend", op=Attention(), inputs=("q_heads", "k_all", "v_all")),
        Node(name="rows", op=Permute(dims=(0, 2, 1, 3)), inputs=("attend",)),
        Node(name="flat", op=Flatten(start_dim=2), inputs=("rows",)),
        Node(name="head", op=Linear(out_features=1), inputs=("flat",)),
    )
    assert free(graph) == {"q": (8, 2)}
    assert reasons(graph, "v") == ["attend (heads come and go whole, their size stays)"]
    assert_preserves(Widen(node="q", by=2), graph)
    assert_preserves(Split(node="q", channels=(1,)), graph)


def adapted(*nodes: Node, outputs: tuple[str, ...] = ("head",)) -> Graph:
    """A linear layer whose weight others read turned around."""
    return graph_of(
        (6,),
        Node(name="fc", op=Linear(out_features=4), inputs=("x",)),
        Node(name="act", op=Tanh(), inputs=("fc",)),
        Node(name="again", op=Parameter(shape=(4, 6)), tied={"weight": "fc.weight"}),
        Node(name="turned", op=Permute(dims=(1, 0)), inputs=("again",)),
        *nodes,
        outputs=outputs,
    )


def heads(count: int, size: int = 4, kv: int = 0) -> Graph:
    """Attention of so many heads; keys and values in one layer, or of `kv` heads which each serve as many queries."""
    rows = 3
    each = count // kv if kv else 1
    nodes = [Node(name="q", op=Linear(out_features=count * size), inputs=("x",))]
    if kv:
        for name in ("k", "v"):
            nodes += [
                Node(name=name, op=Linear(out_features=kv * size), inputs=("x",)),
                Node(name=f"{name}_rows", op=Reshape(shape=(rows, kv, size)), inputs=(name,)),
                Node(name=f"{name}_heads", op=Permute(dims=(0, 2, 1, 3)), inputs=(f"{name}_rows",)),
                Node(name=f"{name}_new", op=Reshape(shape=(kv, 1, rows, size)), inputs=(f"{name}_heads",)),
                Node(name=f"{name}_many", op=Expand(shape=(-1, each, -1, -1)), inputs=(f"{name}_new",)),
                Node(name=f"{name}_all", op=Flatten(start_dim=1, end_dim=2), inputs=(f"{name}_many",)),
            ]
    else:
        nodes += [
            Node(name="kv", op=Linear(out_features=count * 3 * size), inputs=("x",)),
            Node(name="rows_kv", op=Reshape(shape=(rows, count, 3 * size)), inputs=("kv",)),
            Node(name="kv_heads", op=Permute(dims=(0, 2, 1, 3)), inputs=("rows_kv",)),
            Node(name="k_all", op=Slice(axis=3, start=0, length=size), inputs=("kv_heads",)),
            Node(name="v_all", op=Slice(axis=3, start=size, length=2 * size), inputs=("kv_heads",)),
        ]
    nodes += [
        Node(name="q_rows", op=Reshape(shape=(rows, count, size)), inputs=("q",)),
        Node(name="q_heads", op=Permute(dims=(0, 2, 1, 3)), inputs=("q_rows",)),
        Node(name="attend", op=Attention(), inputs=("q_heads", "k_all", "v_all")),
        Node(name="turned", op=Permute(dims=(0, 2, 1, 3)), inputs=("attend",)),
        Node(name="flat", op=Flatten(start_dim=2), inputs=("turned",)),
        Node(name="head", op=Linear(out_features=2), inputs=("flat",)),
    ]
    return graph_of((rows, 5), *nodes)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 8, 11, 12, 13, 16])
def test_no_size_decides_which_factor_scales(count: int) -> None:
    """One layer for keys and values, cut along the size of a head: heads are free, however many there are."""
    graph = heads(count)
    assert free(graph) == {"q": (4 * count, 4)}
    grown = assert_preserves(Widen(node="q", by=4), graph)
    assert free(grown.graph) == {"q": (4 * count + 4, 4)}
    assert Prune(node="q", channels=(count,)).rewrite(grown.graph).graph.hash == graph.hash


@pytest.mark.parametrize(("count", "kv"), [(4, 2), (6, 2), (6, 3), (4, 1), (8, 4)])
def test_groups_of_heads_and_the_heads_of_each(count: int, kv: int) -> None:
    """Keys and values of each group serve several queries: whole groups may come and go, and heads in every group."""
    graph = heads(count, kv=kv)
    assert free(graph) == {"q": (4 * count, 4 * kv), "k": (4 * kv, 4)}
    for name, by in (("q", 4 * kv), ("k", 4)):
        grown = assert_preserves(Widen(node=name, by=by), graph)
        assert free(grown.graph).keys() == {"q", "k"}
        assert_preserves(Widen(node=name, by=by, copies=(0,), shares=(0.3,)), graph)
        assert_preserves(Split(node=name, channels=(0,)), graph)
        units = count // kv if name == "q" else kv
        assert Prune(node=name, channels=(units,)).rewrite(grown.graph).graph.hash == graph.hash
    both = Sequence(passes=(Widen(node="k", by=4, copies=(0,)), Widen(node="q", by=4 * kv, copies=(0,))))
    grown = assert_preserves(both, graph)
    assert grown.graph["q"].op == Linear(out_features=4 * (kv + 1) * (count // kv + 1))


def test_the_heads_of_a_group_are_normalised_apart_from_whole_groups() -> None:
    graph = heads(6, kv=2)
    norm = Node(name="norm", op=LayerNorm(dims=1), inputs=("flat",))
    nodes = [*graph.nodes[:-1], norm, graph.nodes[-1].with_inputs(["norm"])]
    graph = verify(graph.replace(nodes=nodes))
    assert free(graph) == {"q": (24, 24), "k": (8, 8)}
    for name, width in (("q", 24), ("k", 8)):
        assert_preserves(Widen(node=name, by=width), graph)


def test_a_space_that_is_normalised_is_pruned_channel_by_channel() -> None:
    """Growing it exactly takes copies of every channel; less of it is asked for nothing but one that stays."""
    graph = graph_of(
        (3,),
        Node(name="fc", op=Linear(out_features=5), inputs=("x",)),
        Node(name="norm", op=LayerNorm(dims=1), inputs=("fc",)),
        Node(name="head", op=Linear(out_features=2), inputs=("norm",)),
    )
    assert free(graph) == {"fc": (5, 5)}
    for channels in ((1,), (0, 2), (0, 1, 2, 4)):
        pruned = assert_preserves(Prune(node="fc", channels=channels), graph)
        assert free(pruned.graph) == {"fc": (5 - len(channels), 5 - len(channels))}
    assert Prune(node="fc", channels=(0,)) in Prune.candidates(graph)


def test_a_space_that_is_normalised_and_tied_at_once_is_pinned() -> None:
    """Copies would double what the tied weight sums, fresh channels would move the norm's statistics."""
    norm = Node(name="norm", op=LayerNorm(dims=1, elementwise_affine=False), inputs=("act",))
    graph = adapted(norm, Node(name="head", op=Linear(bias=False), inputs=("norm", "turned")))
    assert "fc (is normalised and tied at once, so neither copies nor fresh channels are exact)" in reasons(graph, "fc")
    with pytest.raises(PassRefused, match="normalised and tied at once"):
        Widen(node="act", by=4, copies=(0, 1, 2, 3)).rewrite(graph)


def test_a_channel_is_split_once_at_a_time() -> None:
    for wrong in ((1, 1), (0, 2, 0), (4,)):
        with pytest.raises(PassRefused, match="fc1: channels must be different numbers below 4"):
            Split(node="fc1", channels=wrong).rewrite(mlp())
        with pytest.raises(PassRefused, match="fc1: channels must be different numbers below 4"):
            Prune(node="fc1", channels=wrong).rewrite(mlp())


def test_a_square_of_one_space_is_pinned() -> None:
    """Rows and columns of the same channels: twice as many would be four times as many numbers."""
    graph = graph_of(
        (5,),
        Node(name="fc", op=Linear(out_features=9), inputs=("x",)),
        Node(name="rows", op=Reshape(shape=(3, 3)), inputs=("fc",)),
        Node(name="columns", op=Permute(dims=(0, 2, 1)), inputs=("rows",)),
        Node(name="sum", op=Add(), inputs=("rows", "columns")),
        Node(name="flat", op=Flatten(), inputs=("sum",)),
        Node(name="head", op=Linear(out_features=1), inputs=("flat",)),
    )
    assert not free(graph)
    assert "fc (is several factors of one axis)" in reasons(graph, "fc")


def test_what_changes_with_a_dropped_space_draws_too() -> None:
    """What is normalised as a whole changes together, and one half of it is dropped."""
    graph = graph_of(
        (2,),
        Node(name="a", op=Linear(out_features=2), inputs=("x",)),
        Node(name="b", op=Linear(out_features=2), inputs=("x",)),
        Node(name="noise", op=Dropout(p=0.5), inputs=("b",)),
        Node(name="cat", op=Concat(), inputs=("a", "noise")),
        Node(name="norm", op=LayerNorm(dims=1), inputs=("cat",)),
        Node(name="head", op=Linear(out_features=1), inputs=("norm",)),
    )
    assert {space.name: space.random for space in channel_spaces(graph) if not space.pins} == {"a": True, "b": True}
    assert Widen(node="a", by=2).rewrite(graph).preserves is Preserves.EVAL
    assert_preserves(Widen(node="a", by=2), graph)


def test_a_weight_turned_around_produces_what_it_consumed() -> None:
    graph = adapted(Node(name="head", op=Linear(bias=False), inputs=("act", "turned")))
    (hidden,) = [space for space in channel_spaces(graph) if not space.pins]
    assert hidden.tied
    assert_preserves(Widen(node=hidden.name, by=2), graph)
    with pytest.raises(PassRefused, match="both produces and consumes"):
        Split(node=hidden.name, channels=(0,)).rewrite(graph)


def test_a_weight_made_of_two_factors_grows_between_them() -> None:
    graph = graph_of(
        (6,),
        *(Node(name=name, op=Parameter(shape=shape)) for name, shape in (("down", (2, 6)), ("up", (5, 2)))),
        *(Node(name=f"{name}_t", op=Permute(dims=(1, 0)), inputs=(name,)) for name in ("down", "up")),
        Node(name="rank", op=MatMul(), inputs=("x", "down_t")),
        Node(name="head", op=MatMul(), inputs=("rank", "up_t")),
    )
    (rank,) = [space for space in channel_spaces(graph) if not space.pins]
    assert not rank.tied
    assert [(slot.parameter, slot.axis) for slot in rank.producers] == [("down.weight", 0)]
    assert [(slot.parameter, slot.axis) for slot in rank.consumers] == [("up.weight", 1)]
    assert_preserves(Widen(node=rank.name, by=2), graph)
    assert_preserves(Split(node=rank.name, channels=(1,)), graph)


def test_a_weight_used_both_ways_round_is_tied_along_both_axes() -> None:
    graph = graph_of(
        (6,),
        Node(name="fc", op=Linear(out_features=6), inputs=("x",)),
        Node(name="down", op=Parameter(shape=(4, 6))),
        Node(name="turned", op=Permute(dims=(1, 0)), inputs=("down",)),
        Node(name="small", op=Linear(bias=False), inputs=("fc", "down")),
        Node(name="back", op=Linear(bias=False), inputs=("small", "turned")),
        Node(name="head", op=Linear(out_features=1), inputs=("back",)),
    )
    assert [space.tied for space in channel_spaces(graph) if not space.pins] == [True, True]
    for space in channel_spaces(graph):
        if not space.pins:
            assert_preserves(Widen(node=space.name, by=1), graph)


def test_a_convolution_of_one_position_slides_along_nothing() -> None:
    def gated(width: int, padding: int) -> Graph:
        return graph_of(
            (3, 4),
            Node(name="fc", op=Linear(out_features=6), inputs=("x",)),
            Node(name="tokens", op=Conv1d(out_channels=3, kernel_size=width, padding=padding), inputs=("fc",)),
            Node(name="both", op=Mul(), inputs=("fc", "tokens")),
            Node(name="head", op=Linear(out_features=1), inputs=("both",)),
        )

    assert free(gated(1, 0)) == {"fc": (6, 1)}
    assert_preserves(Widen(node="fc", by=2), gated(1, 0))
    assert_preserves(Split(node="fc", channels=(1,)), gated(1, 0))
    assert "tokens (a convolution slides along this axis)" in reasons(gated(3, 1), "fc")


def test_one_channel_broadcast_over_many_is_pinned() -> None:
    graph = graph_of(
        (3,),
        Node(name="gate", op=Linear(out_features=1), inputs=("x",)),
        Node(name="fc", op=Linear(out_features=4), inputs=("x",)),
        Node(name="both", op=Mul(), inputs=("fc", "gate")),
        Node(name="head", op=Linear(out_features=1), inputs=("both",)),
    )
    assert free(graph) == {"fc": (4, 1)}
    assert reasons(graph, "gate") == ["both (one channel is broadcast over many here)"]


def test_a_kernel_that_is_a_value_keeps_its_extent() -> None:
    graph = graph_of(
        (2, 3, 3),
        Node(name="kernel", op=Parameter(shape=(4, 2, 3, 3)), inputs=()),
        Node(name="conv", op=Conv2d(padding=1), inputs=("x", "kernel")),
        Node(name="flat", op=Flatten(), inputs=("conv",)),
        Node(name="head", op=Linear(out_features=1), inputs=("flat",)),
    )
    assert free(graph) == {"kernel": (4, 1)}


@pytest.mark.parametrize(
    ("node", "says"),
    [
        ("fc2", "there is no node 'fc2'. Did you mean 'fc1'?"),
        ("x", r"x \(graph input\): its value holds no channel space"),
        ("fc1@3", "does not name one space; its value holds: fc1"),
    ],
)
def test_names_that_mean_no_space(node: str, says: str) -> None:
    with pytest.raises(PassRefused, match=says):
        analyse(mlp()).find(node, mlp())


def test_any_node_of_a_space_names_it() -> None:
    assert analyse(mlp()).find("act1", mlp()).name == "fc1"


def test_a_slot_lists_the_positions_of_each_unit() -> None:
    graph = graph_of(
        (2, 2, 2),
        Node(name="conv", op=Conv2d(out_channels=4, kernel_size=1, groups=2), inputs=("x",)),
        Node(name="flat", op=Flatten(), inputs=("conv",)),
        Node(name="head", op=Linear(out_features=1), inputs=("flat",)),
    )
    (space,) = [space for space in analyse(graph).spaces if not space.pins]
    (made,) = [slot for slot in space.producers if slot.parameter == "conv.bias"]
    assert made.positions == ((0, 2), (1, 3))
    (read,) = space.consumers
    assert read.positions == ((0, 1, 2, 3, 8, 9, 10, 11), (4, 5, 6, 7, 12, 13, 14, 15))
    with pytest.raises(PassRefused, match="below 2: one channel of this space is 2 of the 4 positions"):
        Split(node="conv", channels=(3,)).rewrite(graph)
