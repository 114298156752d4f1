"""A graph of any size as few boxes: at most sixty, of which at most sixteen stand below each other, so it fits a page.

Nodes are gathered by module, then with what only carries on their value, and runs of equal ones into one. `opening.py`
says which of all these groups a picture shows; here each becomes a box that says what it holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from growir.costs import costs_of
from growir.graph import Graph, Node
from growir.render.marks import Mark, gathered
from growir.render.opening import opened
from growir.render.repeats import gather_repeats
from growir.render.stages import family, gather_stages
from growir.render.tree import Group, module_tree
from growir.shapes import shapes_of

MAX_BOXES = 60
MAX_ROWS = 16  # so many boxes below each other are as high as a page, at a size that can be read
MANY_INPUTS = 6  # more are one box
MANY_KINDS = 60  # characters of the operators inside


@dataclass(frozen=True, slots=True)
class Box:
    """One box of a picture.

    Attributes:
        label: A node's name, a module's, or the first and last of a run; each label is that of one box.
        members: The nodes inside; empty for inputs.
        what: The operator, or how many nodes of which; those with parameters first.
        shape: Of the value that leaves it; the last one's where several do. Of several nodes also of the value that
            comes in, if that has another shape.
        parameters: Learned numbers inside.
        family: Of its operator: the room of growir.ops it lives in; of a stage its first node's; "module" for other
            boxes of several nodes, "input" for inputs.
        output: Whether a value of the graph's outputs comes from here.
        mark: What is to be said of its nodes, if anything.
    """

    label: str
    members: tuple[str, ...]
    what: str
    shape: str
    parameters: int
    family: str
    output: bool
    mark: Mark | None = None


@dataclass(frozen=True, slots=True)
class Picture:
    """Boxes, each after those that it reads from, and the arrows between them by their numbers."""

    boxes: tuple[Box, ...]
    edges: tuple[tuple[int, int], ...]


def collapse(
    graph: Graph,
    limit: int | None = None,
    marks: Mapping[str, Mark] | None = None,
    focus: Collection[str] = (),
) -> Picture:
    """The graph as few boxes.

    Args:
        graph: A verified graph.
        limit: The most boxes, at least 2: the inputs and the rest. If None, at most `MAX_BOXES`, of which at most
            `MAX_ROWS` stand below each other.
        marks: What is to be said of nodes.
        focus: Nodes whose modules are opened before others.
    """
    rows = MAX_ROWS if limit is None else limit
    limit = MAX_BOXES if limit is None else limit
    inputs = [[entry.name for entry in graph.inputs]]
    if len(graph.inputs) <= min(MANY_INPUTS, limit - 1):
        inputs = [[entry.name] for entry in graph.inputs]
    groups = opened(_tree(graph), limit - len(inputs), rows, frozenset(focus)) if graph.nodes else []
    boxes = [*(_input_box(graph, names) for names in inputs)]
    holders: dict[str, int] = {name: k for k, names in enumerate(inputs) for name in names}
    for group in groups:
        holders.update((node.name, len(boxes)) for node in group.nodes())
        boxes.append(_box(graph, group, marks or {}))
    edges = {
        (holders[source], holders[node.name])
        for node in graph.nodes
        for source in node.inputs
        if holders[source] != holders[node.name]
    }
    labels = told_apart([box.label for box in boxes])
    titled = tuple(replace(box, label=label) for box, label in zip(boxes, labels, strict=True))
    return Picture(titled, tuple(sorted(edges)))


def told_apart(labels: Sequence[str]) -> list[str]:
    """The same, those that occur more than once with their number: "block (1 of 2)", "block (2 of 2)"."""
    count, seen = Counter(labels), Counter[str]()
    found: list[str] = []
    for label in labels:
        seen[label] += 1
        found.append(f"{label} ({seen[label]} of {count[label]})" if count[label] > 1 else label)
    return found


def _tree(graph: Graph) -> Group:
    """The module tree, with stages and runs of equal parts put together."""
    root = module_tree(graph)
    gather_stages(root, graph)
    gather_repeats(root, graph)
    stack = [root]
    while stack:
        group = stack.pop()
        for part in group.parts:
            part.depth = group.depth + 1
            stack.append(part)
    return root


# -- what stands in them ----------------------------------------------------------------------------------------------


def _input_box(graph: Graph, names: Sequence[str]) -> Box:
    shape = str(shapes_of(graph)[names[0]])
    output = any(name in graph.outputs for name in names)
    label, what = (names[0], "input") if len(names) == 1 else (f"{names[0]} to {names[-1]}", f"{len(names)} inputs")
    return Box(label, (), what, shape, 0, "input", output)


def _box(graph: Graph, group: Group, marks: Mapping[str, Mark]) -> Box:
    nodes = list(group.nodes())
    inside = {node.name for node in nodes}
    leaving = [n.name for n in nodes if n.name in graph.outputs or not inside.issuperset(graph.consumers[n.name])]
    costs = costs_of(graph)
    return Box(
        label=group.label or graph.name,
        members=tuple(node.name for node in nodes),
        what=nodes[0].op.kind() if group.node is not None else _contents(graph, group, nodes),
        shape=_shape(graph, nodes, (leaving or [nodes[-1].name])[-1]),
        parameters=sum(costs.nodes[node.name].parameters for node in nodes),
        family=family(nodes[0]) if group.node is not None or group.stage else "module",
        output=any(name in graph.outputs for name in inside),
        mark=gathered({n.name: marks[n.name] for n in nodes if n.name in marks}, len(nodes), group.path),
    )


def _shape(graph: Graph, nodes: Sequence[Node], leaves: str) -> str:
    """The shape of the value that leaves some nodes, behind that of the one that comes in if both say something."""
    shapes = shapes_of(graph)
    left = str(shapes[leaves])
    inside = {node.name for node in nodes}
    read = {str(shapes[source]) for node in nodes for source in node.inputs if source not in inside}
    return left if len(nodes) == 1 or len(read) != 1 or read == {left} else f"{read.pop()} → {left}"


def _contents(graph: Graph, group: Group, nodes: Sequence[Node]) -> str:
    """What is inside: "99 x: linear, relu" of a run of equal groups, "2 conv2d, 2 batch_norm, relu, add" of others."""
    each = len(nodes) // group.alike if group.alike else len(nodes)
    costs = costs_of(graph)
    kinds = Counter(node.op.kind() for node in nodes[:each])
    learned = {node.op.kind() for node in nodes[:each] if costs.nodes[node.name].parameters}
    texts = [f"{kinds[k]} {k}" if kinds[k] > 1 else k for k in sorted(kinds, key=lambda kind: kind not in learned)]
    if group.alike and each == 1:
        return f"{group.alike} {nodes[0].op.kind()}"
    shown = len(texts)
    while shown > 1 and len(", ".join(texts[:shown])) > MANY_KINDS:
        shown -= 1
    left = each - sum(kinds[kind] for kind in sorted(kinds, key=lambda kind: kind not in learned)[:shown])
    text = ", ".join([*texts[:shown], *([f"{left} more"] if left else [])])
    return f"{group.alike} x: {text}" if group.alike else text
