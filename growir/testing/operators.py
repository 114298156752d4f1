"""The laws of an operator, on its own examples: shape rule, torch function, channel rule, document form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from growir.channels import analyse
from growir.document import dumps
from growir.graph import Graph, Input, Node
from growir.ops import Bias, Conv2d, Example, Flatten, Linear, Mul, Op, Parameter, Softplus
from growir.passes.widen import Widen
from growir.shapes import shapes_of
from growir.testing.laws import Probe, assert_preserves, draws_numbers, random_batch, random_network
from growir.verify import load, verify

Side = Literal["first", "last"]
SIDES: tuple[Side, ...] = ("first", "last")


def op_law(kind: type[Op]) -> Callable[[], None]:
    """A test, for pytest to collect, that an operator does what its class says, on each of its `examples`.

    The operator is listed in `growir.ops.OPS` and in the backends' tables; its examples should have one for each thing
    that an attribute switches.
    """

    def law() -> None:
        examples = kind.examples()
        assert examples, f"{kind.kind()} has no examples, so nothing of it is tested"
        for example in examples:
            for side in SIDES:
                assert_example(example, side)

    return law


def assert_example(example: Example, side: Side) -> Graph:
    """Assert what an operator's class says of one example, between layers that make channels and layers that use them.

    Its document comes back as it went; torch computes the shape that `infer` says, and draws random numbers in train
    mode only where `draws` says so; and every channel space that its channel rule leaves free widens with the function
    kept, by fresh channels and by copies with unequal shares.

    Args:
        example: One of the operator's.
        side: Whether the channels lie on the first axis after the batch or on the last.

    Returns:
        The graph it was tested in; the operator is the node `it`.
    """
    graph = example_graph(example, side)
    assert load(dumps(graph)).hash == graph.hash, f"{example}: its document does not come back as it went"
    if shapes_of(graph)["it"].batched:
        rows = 3
        upto = [node.name for node in graph.nodes].index("it") + 1
        alone = graph.replace(nodes=graph.nodes[:upto], outputs=["it"])
        (found,) = Probe(random_network(alone)).run(random_batch(alone, rows))[0]
        wanted = (rows, *shapes_of(graph)["it"].sizes)
        assert found.shape == wanted, f"{example}: infer says {wanted}, torch gives {found.shape}"
        drew = draws_numbers(random_network(alone), random_batch(alone, rows))
        says = example.op.draws
        assert drew == says, f"{example}: its draws is {says}, but whether it moves torch's generator is {drew}"
    for space in analyse(graph).spaces:
        if space.pins:
            continue
        assert_preserves(Widen(node=space.name, by=space.stride), graph)
        if not (space.uniform or space.tied):
            times = space.growth[space.space]
            copies = tuple(range(space.units)) * times
            shares = tuple((0.1 + 0.7 * (j + 1) / space.units) / times for j in copies)
            assert_preserves(Widen(node=space.name, by=space.stride * space.units, copies=copies, shares=shares), graph)
    return graph


def example_graph(example: Example, side: Side) -> Graph:
    """The example, as node `it`, between layers that make channels and layers that use them."""
    inputs: list[Input] = []
    nodes: list[Node] = []
    names: list[str] = []
    for k, shape in enumerate(example.inputs):
        name = f"in{k}"
        if not shape.batched:
            nodes.append(Node(name=name, op=Parameter(shape=shape.sizes)))
        elif shape.dtype == "int64":
            inputs.append(Input(name=name, shape=shape.dims, dtype="int64"))
        else:
            entry, made = _producer(name, shape.sizes, side, f"x{k}")
            inputs.append(entry)
            nodes += made
            if example.positive:
                nodes.append(Node(name=f"{name}_positive", op=Softplus(), inputs=(name,)))
                name = f"{name}_positive"
        names.append(name)
    nodes.append(Node(name="it", op=example.op, inputs=tuple(names)))
    last = "it"
    if not inputs:  # a value without a batch meets one that has it
        entry, made = _producer("met", example.op.infer().sizes, side, "x0")
        inputs.append(entry)
        nodes += [*made, Node(name="used", op=Mul(), inputs=("met", "it"))]
        last = "used"
    nodes.append(Node(name="flat", op=Flatten(), inputs=(last,)))
    nodes.append(Node(name="head", op=Linear(out_features=2), inputs=("flat",)))
    return verify(Graph(inputs=tuple(inputs), nodes=tuple(nodes), outputs=("head",)))


def _producer(name: str, sizes: tuple[int, ...], side: Side, x: str) -> tuple[Input, list[Node]]:
    """An input, and a layer on it that makes channels on one axis of a value of these sizes."""
    if side == "last" or len(sizes) == 1:
        entry = Input(name=x, shape=("N", *sizes[:-1], 3))
        return entry, [Node(name=name, op=Linear(out_features=sizes[-1]), inputs=(x,))]
    if len(sizes) == 3:
        entry = Input(name=x, shape=("N", 2, *sizes[1:]))
        return entry, [Node(name=name, op=Conv2d(out_channels=sizes[0], kernel_size=1), inputs=(x,))]
    row = Node(name=f"{name}_row", op=Bias(features=sizes[0], dims=len(sizes) - 1), inputs=(x,))
    return Input(name=x, shape=("N", 1, *sizes[1:])), [row, Node(name=name, op=Mul(), inputs=(x, row.name))]
