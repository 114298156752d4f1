"""Which groups of a tree a picture shows: all is opened as far as there is room, the outer modules first.

There is room for so many boxes, and for so many below each other. Modules of one parent are opened together, so that
what is alike is drawn alike. Where not all of them fit, the largest is opened as an example. The rest of a run of equal
groups is opened where there is room for every node of it. What has too many parts to be opened, such as a graph without
modules, is cut into runs of neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from growir.render.tree import Group, joined


def opened(root: Group, limit: int, rows: int, focus: frozenset[str] = frozenset()) -> list[Group]:
    """The groups to show, in order.

    Args:
        root: The tree of a graph.
        limit: The most boxes.
        rows: The most boxes below each other, the input that is read among them.
        focus: Nodes to show before others.
    """
    leaves = list(_leaves(root))
    if len(leaves) <= limit and depth(leaves) <= rows:
        return leaves
    shown, tried = [root], _Tried()
    while True:
        for step in _choices(shown, focus, tried):
            chosen = [part for group in shown for part in step.get(id(group), [group])]
            if len(chosen) <= limit and depth(chosen) <= rows:
                shown = chosen
                break
        else:
            return _cut(shown, limit, rows)


def depth(shown: Sequence[Group]) -> int:
    """How many boxes stand below each other, the inputs of the graph among them."""
    level: dict[str, int] = {}
    most = 0
    for group in shown:
        nodes = list(group.nodes())
        inside = {node.name for node in nodes}
        at = max((level.get(s, 0) + 1 for node in nodes for s in node.inputs if s not in inside), default=0)
        level.update(dict.fromkeys(inside, at))
        most = max(most, at)
    return most + 1


def _leaves(root: Group) -> Iterator[Group]:
    stack = [root]
    while stack:
        group = stack.pop()
        if group.node is not None:
            yield group
        stack.extend(reversed(group.parts))


class _Tried:
    """What need not be tried again: there is never more room than before."""

    def __init__(self) -> None:
        self.steps: set[tuple[int, ...]] = set()
        self.examples: set[object] = set()

    def first(self, step: _Step) -> bool:
        """Whether this was not yet tried."""
        key = (*step, *map(len, step.values()))
        new = key not in self.steps
        self.steps.add(key)
        return new


_Step = dict[int, list[Group]]  # what takes the place of which group, by its id


def _choices(shown: Sequence[Group], focus: frozenset[str], tried: _Tried) -> Iterator[_Step]:
    """What could be opened next: groups with nodes in focus, then all modules of one parent, outer ones first."""
    closed = [group for group in shown if group.parts]
    steps: list[_Step] = []
    if focus:
        steps += [{id(g): g.parts} for g in closed if any(node.name in focus for node in g.nodes())]
    families: dict[tuple[bool, int, str], list[Group]] = {}
    for group in closed:
        if not group.sealed:
            families.setdefault((group.stage, group.depth, group.path.rpartition(".")[0]), []).append(group)
    ordered = sorted(families, key=lambda key: key[:2])
    steps += [{id(group): group.parts for group in families[key]} for key in ordered]
    yield from filter(tried.first, steps)
    for key in ordered:
        if key not in tried.examples:
            tried.examples.add(key)
            example = max(families[key], key=lambda group: sum(1 for _ in group.nodes()))
            yield {id(example): example.parts}
    yield from filter(tried.first, ({id(group): list(_leaves(group))} for group in closed if group.sealed))


def _cut(shown: list[Group], limit: int, rows: int) -> list[Group]:
    """Too many parts at one place would leave the picture nearly empty: they are cut into as many runs as fit."""
    largest = max(shown, key=lambda group: 0 if group.sealed else len(group.parts))
    sparse = len(shown) == 1 or 4 * len(shown) <= min(limit, rows)
    if not sparse or largest.sealed or not largest.parts:
        return shown
    size = len(largest.parts)
    count = min(limit - len(shown) + 1, size)
    while count > 1:
        cuts = [largest.parts[k * size // count : (k + 1) * size // count] for k in range(count)]
        runs = [cut[0] if len(cut) == 1 else joined(cut, largest.path) for cut in cuts]
        chosen = [part for group in shown for part in (runs if group is largest else [group])]
        if depth(chosen) <= rows:
            return chosen
        count -= max(1, (depth(chosen) - rows) // 2)
    return shown
