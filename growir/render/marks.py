"""What growth did to each node, as a picture says it: which step made it, and by how much others changed its width."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from growir.errors import cut
from growir.graph import Graph, Node, Step
from growir.replay import obstacle, rewrites
from growir.shapes import shapes_of
from growir.show import sequence_parts

SHOWN_STEPS = 4  # so many changes of one width are listed; more are summed up
SHOWN_SENTENCES = 2  # so much of what was done to several nodes is said; of more only how many there are
SHOWN_NODES = 3  # so many nodes of a box are named, each with what was done to it
# Passes that resize, take away or change numbers; any other may be what made a node.
MAKE_NO_NODES = frozenset(
    {"widen", "split", "prune", "extend", "update", "fold_batch_norm", "eliminate_dead", "canonicalise"}
)

Kind = Literal["new", "resized", "added", "removed", "changed"]


@dataclass(frozen=True, slots=True)
class Mark:
    """What a picture says of a node besides what it is; several sentences are parted by "; "."""

    kind: Kind
    text: str


def growth_marks(graph: Graph) -> dict[str, Mark]:
    """Which nodes growth made or changed in width, and in which steps.

    Widths are read from the history by running it again, and compared from step to step, so that it does not matter
    which pass changed them. Where that cannot be done or would take long (growir.replay.obstacle), only the nodes that
    were made are marked.

    Raises:
        GraphError: The history does not run; a document that was loaded has been checked for that.
    """
    steps = graph.history.steps if graph.history else ()
    made = {
        name: f"new in step {k}: {_maker(step)}"
        for k, step in enumerate(steps, 1)
        for name in step.created
        if name in graph
    }
    sizes: dict[str, list[tuple[int, int]]] = {}
    for k, name, by in _resizings(graph):
        if name in graph:
            sizes.setdefault(name, []).append((k, by))
    marks: dict[str, Mark] = {}
    for node in graph.nodes:
        texts = [made[node.name]] if node.name in made else []
        texts += [_told(sizes[node.name])] if node.name in sizes else []
        if texts:
            marks[node.name] = Mark("new" if node.name in made else "resized", "; ".join(texts))
    return marks


def _maker(step: Step) -> str:
    """The pass that made a step's nodes; of a sequence those inside that may have."""
    stack, kinds = sequence_parts(step.kind, step.fields)[::-1], dict[str, None]()
    while stack:
        part = stack.pop()
        inside = sequence_parts(part["pass"], part)
        stack.extend(reversed(inside))
        if not inside and part["pass"] not in MAKE_NO_NODES:
            kinds[cut(part["pass"])] = None
    return ", ".join(kinds) or step.kind


def gathered(found: Mapping[str, Mark], size: int, path: str = "") -> Mark | None:
    """The mark of a box of so many nodes.

    Args:
        found: The marks of those of them that have one, by their names.
        size: How many nodes there are.
        path: The module that all of them are in, which their names need not say again.
    """
    marks = list(found.values())
    if not marks or size == 1:
        return marks[0] if marks else None
    kinds = Counter(mark.kind for mark in marks)
    if len(marks) == size and (len(set(marks)) == 1 or set(kinds) == {"new"}):
        # Of a layer and its activation: the step that made both, and those that widened one.
        told = dict.fromkeys(sentence for mark in marks for sentence in mark.text.split("; "))
        if len(told) <= SHOWN_SENTENCES:
            return Mark(marks[0].kind, "; ".join(told))
    # A box is added only if all of it is; one with some new nodes is a changed one.
    whole = len(kinds) == 1 and len(marks) == size
    growth = set(kinds) <= {"new", "resized"}
    kind: Kind = marks[0].kind if whole else "changed"
    if growth and not whole:
        kind = "new" if "new" in kinds else "resized"
    counts = f"{', '.join(f'{count} {name}' for name, count in kinds.items())}, of {size} nodes"
    return Mark(kind, _each(found, path) or counts)


def _each(found: Mapping[str, Mark], path: str) -> str:
    """What is to be said of each of a few nodes: "conv1 +4 in step 1; conv2 +4 in step 1"; "" of many."""
    if len(found) > SHOWN_NODES or {mark.kind for mark in found.values()} & {"added", "removed"}:
        return ""
    start = f"{path}." if path else ""
    return "; ".join(f"{name.removeprefix(start)} {mark.text.replace('; ', ', ')}" for name, mark in found.items())


def _resizings(graph: Graph) -> Iterator[tuple[int, str, int]]:
    """The step, the node and the units of each change of a width that is written at a node."""
    if graph.history is None or obstacle(graph) is not None:
        return
    before = graph.history.base
    for k, done in enumerate(rewrites(graph), 1):
        after = done.graph
        for node in after.nodes:
            old = before.by_name.get(node.name)
            if old is not None and old is not node and old.op != node.op:
                by = _units(before, old, after, node)
                if by:
                    yield k, node.name, by
        before = after


def _units(before: Graph, old: Node, after: Graph, new: Node) -> int:
    """By how much a node's width changed: that of an attribute that sizes numbers of the node's own.

    Of a convolution in groups `groups` may change besides `out_channels`: the width is what changed as the node's value
    did. Where the value kept its shape (the rows of an embedding) it is the first that changed. Nodes that only follow,
    such as a reshape, have no numbers of their own.
    """
    if old.op.kind() != new.op.kind() or not new.op.params(*(shapes_of(after)[name] for name in new.inputs)):
        return 0
    changes = list(_changes(old.op.attributes(), new.op.attributes()))
    dims = zip(shapes_of(before)[old.name].dims, shapes_of(after)[new.name].dims, strict=False)
    value = [b - a for a, b in dims if isinstance(a, int) and isinstance(b, int) and a != b]
    return next((by for by in changes if by in value), next(iter(changes), 0))


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[int]:
    """The differences of whole numbers, also in lists of one length."""
    for key, value in new.items():
        yield from (b - a for a, b in zip(_numbers(old.get(key)), _numbers(value), strict=False) if a != b)


def _numbers(value: object) -> list[int]:
    """A whole number, or a list's; none if it is anything else."""
    found = cast("list[object]", value) if isinstance(value, list) else [value]
    return [each for each in found if isinstance(each, int) and not isinstance(each, bool)]


def _told(sizes: Sequence[tuple[int, int]]) -> str:
    """For example "+23 in step 2, +23 in step 3", or "+230 in 10 steps, 2 to 14"."""
    if len(sizes) <= SHOWN_STEPS:
        return ", ".join(f"{by:+} in step {k}" for k, by in sizes)
    return f"{sum(by for _, by in sizes):+} in {len(sizes)} steps, {sizes[0][0]} to {sizes[-1][0]}"
