"""Blocks and stages: found by the names of modules and by structure, equal or headed, and what repeats in them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import growir
from growir.blocks import Block, block_of, document_of, members, structure
from growir.families import family, family_of, network
from growir.graph import Graph, Input, Node
from growir.ops import Add, BatchNorm, Conv2d, Gelu, LayerNorm, Linear, Mul, Op, Relu
from growir.passes import Widen
from growir.shapes import shapes_of
from growir.stages import Stage, repeat_of, stages_of
from growir.verify import verify
from tests.zoo.registry import ZOO


def node(name: str, op: Op, *inputs: str, **fields: Any) -> Node:
    return Node(name=name, op=op, inputs=inputs, **fields)


def of(shape: tuple[int, ...], *nodes: Node) -> Graph:
    entry = Input(name="x", shape=("N", *shape))
    return verify(Graph(name="sample", inputs=(entry,), nodes=nodes, outputs=(nodes[-1].name,)))


def found(graph: Graph) -> list[tuple[str, int, bool]]:
    return [(stage.name, stage.depth, stage.headed) for stage in stages_of(graph)]


def residual(module: str, x: str, width: int = 6, act: Op = Gelu()) -> list[Node]:  # noqa: B008  # it is frozen
    return [
        node(f"{module}.norm", LayerNorm(), x),
        node(f"{module}.up", Linear(out_features=width), f"{module}.norm"),
        node(f"{module}.act", act, f"{module}.up"),
        node(f"{module}.down", Linear(out_features=4), f"{module}.act"),
        node(f"{module}.sum", Add(), x, f"{module}.down"),
    ]


def test_the_children_of_a_module_that_are_equal_are_a_stage() -> None:
    graph = of((4,), *residual("layers.0", "x"), *residual("layers.1", "layers.0.sum"))
    assert found(graph) == [("layers", 2, False)]
    first, second = stages_of(graph)[0].blocks
    assert (first.input, first.output, second.input) == ("x", "layers.0.sum", "layers.0.sum")
    assert structure(graph, first) == structure(graph, second)


def test_a_module_lists_several_stages_where_its_children_differ() -> None:
    sharp = residual("layers.2", "layers.1.sum", act=Relu())
    parts = [*residual("layers.0", "x"), *residual("layers.1", "layers.0.sum"), *sharp]
    graph = of((4,), *parts, *residual("layers.3", "layers.2.sum", act=Relu()))
    assert found(graph) == [("layers.0", 2, False), ("layers.2", 2, False)]


def test_blocks_may_differ_by_what_is_wide_inside() -> None:
    parts = [*residual("layers.0", "x"), *residual("layers.1", "layers.0.sum", width=7)]
    graph = of((4,), *parts, *residual("layers.2", "layers.1.sum", width=9))
    assert found(graph) == [("layers", 3, False)]
    grown = Widen(node="layers.1.up", by=2).rewrite(graph).graph
    assert found(grown) == [("layers", 3, False)]


def test_what_repeats_without_names_is_a_stage() -> None:
    names = "abcdef"
    nodes = [node("head", Linear(out_features=4), "x")]
    for name in names:
        nodes += [node(name, Linear(out_features=4), nodes[-1].name), node(f"{name}_act", Relu(), name)]
    graph = of((7,), *nodes, node("last", Linear(out_features=2), nodes[-1].name))
    assert found(graph) == [("a", 6, False)]
    assert stages_of(graph)[0].blocks[1].nodes == ("b", "b_act")
    shorter = of((7,), *nodes[:3])
    assert found(shorter) == []


def test_nodes_that_stand_in_another_order_are_the_same_block() -> None:
    one = [node("b.0.u", Gelu(), "x"), node("b.0.v", Relu(), "x"), node("b.0.y", Mul(), "b.0.u", "b.0.v")]
    other = [node("b.1.v", Relu(), "b.0.y"), node("b.1.u", Gelu(), "b.0.y"), node("b.1.y", Mul(), "b.1.u", "b.1.v")]
    assert found(of((4,), *one, *other)) == [("b", 2, False)]
    swapped = other[2].with_inputs(["b.1.v", "b.1.u"])
    assert found(of((4,), *one, *other[:2], swapped)) == []


def test_blocks_differ_by_their_ties_and_by_what_they_read_beside() -> None:
    nodes = [*residual("layers.0", "x"), *residual("layers.1", "layers.0.sum"), *residual("layers.2", "layers.1.sum")]
    nodes[11] = nodes[11].model_copy(update={"tied": {"weight": "layers.0.up.weight"}})
    graph = of((4,), *nodes)
    assert found(graph) == [("layers.0", 2, True)]  # the first shares a weight with the third
    beside = [*residual("layers.0", "x"), *residual("layers.1", "layers.0.sum")]
    beside[-1] = beside[-1].with_inputs(["layers.0.sum", "layers.1.down", "layers.0.down"])
    graph = of((4,), *beside)
    block = block_of(graph, members(graph, "layers.1"))
    assert isinstance(block, Block)
    assert (block.input, block.beside) == ("layers.0.sum", ("layers.0.down",))
    assert document_of(graph, block) == "it reads layers.0.down beside layers.0.sum"


@pytest.mark.parametrize(
    ("nodes", "entry", "why"),
    [
        ([], None, "there are no nodes in it"),
        (["a", "b"], None, "a block has one output, but of these nodes others read a, b"),
        (["c"], "x", "the block does not read x; it reads a, b"),
        (["none"], None, "there are no nodes in it"),
    ],
)
def test_why_nodes_are_no_block(nodes: list[str], entry: str | None, why: str) -> None:
    graph = of((4,), node("a", Relu(), "x"), node("b", Gelu(), "x"), node("c", Add(), "a", "b"))
    assert block_of(graph, nodes, entry) == why


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("resnet", [("layer1", 2, False), ("layer2", 2, True)]),
        ("resnet_bottleneck", [("layer1", 2, False), ("layer2", 2, True)]),
        ("mobilenet_v2", [("features.1", 1, True), ("features.2", 2, True)]),
        ("vgg_bn", []),
        ("densenet", []),
        ("decoder_rotary", [("layers", 2, False)]),
        ("encoder_torch", [("encoder.layers", 2, False)]),
    ],
)
def test_imported_networks_have_the_stages_that_they_were_written_with(
    name: str, stages: list[tuple[str, int, bool]]
) -> None:
    entry = ZOO[name]
    assert found(growir.from_torch(entry.make().eval(), *entry.inputs()).graph) == stages


def test_of_nested_lists_the_inner_one_counts() -> None:
    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.add(x, self.parts(x))

    class Net(torch.nn.Module):
        def __init__(self, *depths: int) -> None:
            super().__init__()
            self.stages = torch.nn.Sequential(*(torch.nn.Sequential(*(Block() for _ in range(n))) for n in depths))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.stages(x)
            return out

    for depths in ((2, 3), (2, 2)):
        graph = growir.from_torch(Net(*depths), torch.zeros(2, 4)).graph
        assert found(graph) == [("stages.0", depths[0], False), ("stages.1", depths[1], False)]


# -- families ---------------------------------------------------------------------------------------------------------

NAMES = [
    "Basic3ResNet-2-3-2",
    "Basic4ResNet-1-1-1-1",
    "Bottleneck4ResNet-1-2-1-1",
    "Plain3Net-1-1-4",
    "Plain4Net-2-2-2-2",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_read_into_a_graph_and_printed_from_it(name: str) -> None:
    graph = network(name, (3, 16, 16), 10, width=4)
    assert str(family_of(graph)) == str(family(name)) == graph.name == name
    assert [stage.name for stage in stages_of(graph)] == [
        f"stage{k + 1}" for k in range(len(graph.name.split("-")) - 1)
    ]
    assert shapes_of(graph)["head"].dims == ("N", 10)


def test_a_name_without_depths_is_a_seed() -> None:
    assert str(family("Basic3ResNet")) == "Basic3ResNet-1-1-1"
    assert network("Plain3Net", (1, 28, 28), 10).hash == network("Plain3Net-1-1-1", (1, 28, 28), 10).hash


def test_the_networks_are_those_of_the_papers() -> None:
    """ResNet-20 has .27 million parameters; with projections in its shortcuts, 2 752 more (He et al. 2016, table 6)."""
    parameters = network("Basic3ResNet-3-3-3", (3, 32, 32), 10).costs().parameters
    assert parameters == 269_722 + 16 * 32 + 32 * 64 + 2 * (32 + 64)
    large = network("Basic4ResNet-2-2-2-2", (3, 224, 224), 1000)
    assert large.costs().parameters == 11_689_512  # ResNet-18
    assert network("Bottleneck4ResNet-3-4-6-3", (3, 224, 224), 1000).costs().parameters == 25_557_032  # ResNet-50


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "Basic3Resnet",
            "names no network; a name is Basic3ResNet-2-3-2, Bottleneck4ResNet or Plain3Net-1-1-1, say. Did you mean ",
        ),
        ("Plain3ResNet", "names no network"),
        ("Basic3ResNet-01-1-1", "names no network"),
        (3, "names no network"),
        ("Basic3ResNet-1-2", "it has 3 stages, but 2 depths; one each is needed"),
        ("Basic3ResNet-1-2-0", "names no network"),
        ("Basic3ResNet-1-2-99999", "a stage has 1 to 1000 blocks"),
    ],
)
def test_a_wrong_name_is_refused(name: Any, message: str) -> None:
    with pytest.raises(growir.GrowirError) as refused:
        family(name)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("shape", "classes", "width", "message"),
    [
        ((28,), 10, None, "convolutions read images, (H, W), (C, H, W) or (H, W, C) with 1, 3 or 4 channels, but"),
        ((3, 8, 8), 0, None, "it has one class or more, but classes is 0"),
        ((3, 8, 8), 2, 0, "the first stage has one channel or more, but width is 0"),
    ],
)
def test_a_network_of_nothing_is_refused(shape: tuple[int, ...], classes: int, width: int | None, message: str) -> None:
    with pytest.raises(growir.GrowirError) as refused:
        network("Plain3Net", shape, classes, width=width)
    assert message in str(refused.value)


def test_other_networks_have_no_family() -> None:
    assert family_of(of((4,), *residual("layers.0", "x"), *residual("layers.1", "layers.0.sum"))) is None
    grouped = network("Basic3ResNet-2-2-2", (3, 8, 8), 2, width=4)
    nodes = [n.with_op(groups=2) if n.name.endswith("conv2") else n for n in grouped.nodes]
    assert family_of(grouped.replace(nodes=nodes)) is None


# -- what repeats -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Basic3ResNet", "Bottleneck4ResNet", "Plain3Net"])
def test_what_repeats_behind_a_head_is_the_block_that_stands_there_in_deeper_networks(name: str) -> None:
    seed = network(name, (3, 8, 8), 10, width=4)
    deeper = network(f"{name}{'-2' * len(stages_of(seed))}", (3, 8, 8), 10, width=4)
    for stage, other in zip(stages_of(seed), stages_of(deeper), strict=True):
        repeat = repeat_of(seed, stage.blocks[0])
        assert isinstance(repeat, Graph)
        wanted = document_of(deeper, other.blocks[1])
        assert isinstance(wanted, Graph)
        assert repeat.hash == wanted.hash


def test_what_cannot_repeat_says_why() -> None:
    conv = Conv2d(out_channels=4, kernel_size=2, stride=2)
    graph = of((2, 8, 8), node("b.0.conv", conv, "x"), node("b.0.norm", BatchNorm(), "b.0.conv"))
    block = block_of(graph, members(graph, "b.0"))
    assert isinstance(block, Block)
    assert repeat_of(graph, block) == "behind itself it gives (N, 4, 3, 3) and reads (N, 4, 4, 4)"
    assert Stage("b", (block,), headed=True).repeated is None
