"""Identity shortcuts: residual blocks behind hidden maps, x + layer(activation(layer(x)))."""

from __future__ import annotations

from collections.abc import Sequence

from growir.graph import Graph, Input, Node
from growir.growth.policies.dag.states import StateView
from growir.ops import ACTIVATIONS, BatchNorm, Conv2d, Op, Shape


def block(shape: Shape, width: int, kernel: int, activation: str, *, norm: bool) -> Graph:
    """The block behind a map of this shape: two convolutions that keep its size and, together, its channels.

    Args:
        shape: Of the map.
        width: Channels between the two.
        kernel: Their kernel size, odd.
        activation: Between the two.
        norm: Whether a batch norm stands in front of the activation.
    """

    def layer(channels: int, *, bias: bool) -> Op:
        return Conv2d(out_channels=channels, kernel_size=kernel, padding=kernel // 2, bias=bias)

    ops: dict[str, Op] = {"first": layer(width, bias=not norm)}
    if norm:
        ops["norm"] = BatchNorm()
    ops |= {"act": ACTIVATIONS[activation](), "last": layer(shape.size(1), bias=False)}
    nodes = tuple(
        Node(name=name, op=op, inputs=(source,))
        for (name, op), source in zip(ops.items(), ["x", *list(ops)[:-1]], strict=True)
    )
    return Graph(name="block", inputs=(Input(name="x", shape=("N", *shape.sizes)),), nodes=nodes, outputs=("last",))


def passed_on(state: StateView) -> StateView:
    """What a state passes on, as a state: the sum of its activations and of nothing that could be moved yet."""
    assert state.post is not None, "only what is activated is passed on"
    return StateView(state.post, None, (), None, state.shape)


def hidden_maps(states: Sequence[StateView]) -> list[StateView]:
    """The states that a block may stand behind."""
    return [state for state in states if state.post is not None and state.shape.rank == 4]
