"""Small graphs that several tests start from."""

from __future__ import annotations

from growir.graph import Graph, Input, Node
from growir.ops import (
    AdaptiveAvgPool2d,
    Add,
    BatchNorm,
    Bias,
    Concat,
    Conv2d,
    Flatten,
    Linear,
    Relu,
)
from growir.verify import verify


def graph_of(shape: tuple[int, ...], *nodes: Node, outputs: tuple[str, ...] = ("head",)) -> Graph:
    """A graph of one input `x`."""
    return verify(Graph(name="sample", inputs=(Input(name="x", shape=("N", *shape)),), nodes=nodes, outputs=outputs))


def mlp() -> Graph:
    """linear, relu, linear."""
    return graph_of(
        (3,),
        Node(name="fc1", op=Linear(out_features=4), inputs=("x",)),
        Node(name="act1", op=Relu(), inputs=("fc1",)),
        Node(name="head", op=Linear(out_features=2), inputs=("act1",)),
    )


def empty() -> Graph:
    """What growth from nothing starts with."""
    return graph_of((3,), Node(name="head", op=Bias(features=2), inputs=("x",)))


def residual_convnet() -> Graph:
    """A stem, a residual block with batch norm, a concatenation, a head."""
    return graph_of(
        (2, 5, 5),
        Node(name="stem", op=Conv2d(out_channels=3, kernel_size=3, padding=1), inputs=("x",)),
        Node(name="block.conv", op=Conv2d(out_channels=3, kernel_size=3, padding=1, bias=False), inputs=("stem",)),
        Node(name="block.norm", op=BatchNorm(), inputs=("block.conv",)),
        Node(name="sum", op=Add(), inputs=("stem", "block.norm")),
        Node(name="act", op=Relu(), inputs=("sum",)),
        Node(name="cat", op=Concat(), inputs=("act", "x")),
        Node(name="pool", op=AdaptiveAvgPool2d(), inputs=("cat",)),
        Node(name="flat", op=Flatten(), inputs=("pool",)),
        Node(name="head", op=Linear(out_features=2), inputs=("flat",)),
    )
