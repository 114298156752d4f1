"""A graph of any size as at most sixty boxes.

Nodes are gathered by module. Modules are opened, the outer ones first and the modules of one parent together, as long
as all fits; a run of equal modules (the layers of an encoder) is one box until there is room for each. What has too
many parts to be opened, such as a graph without modules, is cut into runs of neighbours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from growir.costs import costs_of
from growir.graph import Graph, Node
from growir.render.marks import Mark, gathered
from growir.render.tree import Group, module_tree
from growir.shapes import shapes_of
from growir.show import field_text

MAX_BOXES = 60
MANY_INPUTS = 6  # more are one box
EQUAL_RUN = 3  # so many equal neighbours are one box at first
LONG_RUN = 12  # so many stay one


@dataclass(frozen=True, slots=True)
class Box:
    """One box of a picture.

    Attributes:
        label: A node's name, a module's, or the first and last of a run.
        members: The nodes inside; empty for inputs.
        what: The operator, or how many nodes of which.
        shape: Of the value that leaves it; the last one's where several do.
        parameters: Learned numbers inside.
        family: Of its operator: the room of growir.ops it lives in; "module" for several nodes, "input" for inputs.
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
    limit: int = MAX_BOXES,
    marks: Mapping[str, Mark] | None = None,
    focus: Collection[str] = (),
) -> Picture:
    """The graph as at most `limit` boxes.

    Args:
        graph: A verified graph.
        limit: At least 2: the inputs and the rest.
        marks: What is to be said of nodes.
        focus: Nodes whose modules are opened before others.
    """
    inputs = [[entry.name for entry in graph.inputs]]
    if len(graph.inputs) <= min(MANY_INPUTS, limit - 1):
        inputs = [[entry.name] for entry in graph.inputs]
    groups = _opened(_tree(graph), limit - len(inputs), frozenset(focus)) if graph.nodes else []
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
    return Picture(tuple(boxes), tuple(sorted(edges)))


# -- which boxes ------------------------------------------------------------------------------------------------------


def _tree(graph: Graph) -> Group:
    """The module tree, with runs of equal modules put together."""
    root = module_tree(graph)
    shapes = {node.name: str(shapes_of(graph)[node.name]) for node in graph.nodes}
    _gather(root, shapes, {})
    _measure(root)
    return root


def _gather(group: Group, shapes: Mapping[str, str], known: dict[object, int]) -> int:
    """Put runs of equal modules together; returns a number that is the same for equal groups."""
    if group.node is not None:
        node = group.node
        return known.setdefault((node.op.kind(), field_text(node.op.attributes()), shapes[node.name]), len(known))
    start = len(group.path) + 1 if group.path else 0
    kinds = [_gather(part, shapes, known) for part in group.parts]
    identity = tuple((part.label[start:], kind) for part, kind in zip(group.parts, kinds, strict=True))
    parts: list[Group] = []
    first = 0
    for k in range(1, len(kinds) + 1):
        if k == len(kinds) or kinds[k] != kinds[first]:
            run, first = group.parts[first:k], k
            if len(run) < EQUAL_RUN or run[0].node is not None:
                parts += run
            elif len(run) == len(kinds):
                group.alike, parts = len(run), _pieces(run)
            else:
                parts.append(Group(_span(run), run[0].path, _pieces(run), alike=len(run)))
    group.parts = parts
    return known.setdefault(identity, len(known))


def _pieces(run: list[Group]) -> list[Group]:
    """What an opened run of equal modules shows: each, or of a long one the first and the rest."""
    if len(run) <= LONG_RUN:
        return run
    return [run[0], Group(_span(run[1:]), run[0].path, run[1:], alike=len(run) - 1, sealed=True)]


def _span(run: Sequence[Group]) -> str:
    return run[0].label if len(run) == 1 else f"{run[0].label} to {run[-1].label}"


def _measure(root: Group) -> None:
    """Fill in depths."""
    stack = [root]
    while stack:
        group = stack.pop()
        for part in group.parts:
            part.depth = group.depth + 1
            stack.append(part)


def _opened(root: Group, limit: int, focus: frozenset[str]) -> list[Group]:
    """The groups to show, in order."""
    shown = [root]
    while True:
        step = next((opened for opened in _choices(shown, focus) if _growth(opened) + len(shown) <= limit), None)
        if step is None:
            break
        shown = [part for group in shown for part in (group.parts if group in step else [group])]
    # Too many parts at one place would leave the picture nearly empty.
    largest = max(shown, key=lambda group: 0 if group.sealed else len(group.parts))
    if 2 * len(shown) <= limit and largest.parts and not largest.sealed:
        count, size = limit - len(shown) + 1, len(largest.parts)
        cuts = [largest.parts[k * size // count : (k + 1) * size // count] for k in range(count)]
        runs = [cut[0] if len(cut) == 1 else Group(_span(cut), largest.path, cut) for cut in cuts if cut]
        shown = [part for group in shown for part in (runs if group is largest else [group])]
    return shown


def _growth(opened: Iterable[Group]) -> int:
    return sum(len(group.parts) - 1 for group in opened)


def _choices(shown: Sequence[Group], focus: frozenset[str]) -> Iterator[list[Group]]:
    """What could be opened next: groups with nodes in focus, then all modules of one parent, outer ones first."""
    closed = [group for group in shown if group.parts and not group.sealed]
    if focus:
        yield from ([group] for group in closed if any(node.name in focus for node in group.nodes()))
    families: dict[tuple[int, str], list[Group]] = {}
    for group in closed:
        families.setdefault((group.depth, group.path.rpartition(".")[0]), []).append(group)
    yield from (families[key] for key in sorted(families, key=lambda key: key[0]))
    # Where not all fit, one is better than none: the outermost, and of these the largest.
    yield from ([group] for group in sorted(closed, key=lambda g: (g.depth, -sum(1 for _ in g.nodes()))))


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
    family = type(nodes[0].op).__module__.rpartition(".")[2]
    return Box(
        label=group.label or graph.name,
        members=tuple(node.name for node in nodes),
        what=nodes[0].op.kind() if group.node is not None else _contents(group, nodes),
        shape=str(shapes_of(graph)[(leaving or [nodes[-1].name])[-1]]),
        parameters=sum(costs.nodes[node.name].parameters for node in nodes),
        family=family if group.node is not None else "module",
        output=any(name in graph.outputs for name in inside),
        mark=gathered([marks[name] for name in (node.name for node in nodes) if name in marks], len(nodes)),
    )


def _contents(group: Group, nodes: Sequence[Node]) -> str:
    if group.alike:
        return f"{group.alike} alike, {len(nodes)} nodes"
    kinds = Counter(node.op.kind() for node in nodes)
    return f"{len(nodes)} {next(iter(kinds))}" if len(kinds) == 1 else f"{len(nodes)} nodes"
