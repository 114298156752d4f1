"""Cells drawn as papers draw them (Liu et al. 2018, figures 4 and 5): states as boxes, operations as labels of arrows.

    c_{k-2} --- sep_conv_3x3 --.
                                >  0  ----.
    c_{k-1} --- sep_conv_3x3 --'           > c_{k}
         '----- skip_connect ------>  1 --'

The layout is that of `layout.py` on its side. A label is a box of it, without a border, in a column of its own before
the boxes that arrows lead to. So no label meets a box, another label, or an arrow that is not its own, and two
operations between the same states have two arrows.
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from growir.cells.genotype import PER_NODE
from growir.cells.plan import INPUTS, KINDS, Edge, Kind, Plan, edge_problems
from growir.cells.reading import CellAt, OperationAt, cells_of
from growir.errors import GraphError, Problem, counted, cut
from growir.graph import Graph
from growir.render.layout import MARGIN, layered
from growir.render.svg import FAMILIES, HEADING_WIDTH, NAME_WIDTH, TEXT_WIDTH, Colours, opening, plain, style

TAG: Final = "cells"
GIVEN, RESULT = ("c_{k-2}", "c_{k-1}"), "c_{k}"
NODE, ENDS = 38, 58  # how wide the boxes of nodes are, and those of inputs and of the output
HEIGHT, HEAD = 34, 11  # how high a box is at least, and the room that the head of an arrow takes
LINE, RISE = 14, 5  # of labels: from line to line, and from an arrow to the last of them
GAP: Final = 46  # between columns, where arrows bend
TITLE, TITLE_CHARS, NOTE = 20, 64, 18  # over a cell: a line of its title, the characters in it, and a note
NUMBERED: Final = re.compile(r"(?:0|[1-9][0-9]{0,8})\Z")

Point = tuple[int, int]

# The colours of DARTS' figures, as near as ours come: green, blue and yellow.
ROLES: Mapping[str, Colours] = {
    "given": FAMILIES["activation"],
    "node": FAMILIES["linear"],
    "result": FAMILIES["norm"],
}
INDEX_WIDTH: Final = 6.1  # of a character of an index
RULES: Final = ".growir .index{font-weight:600;font-size:10px}"


@dataclass(frozen=True, slots=True)
class Arrow:
    """An arrow from a state to a node.

    Attributes:
        source: The state.
        target: The node, as a state.
        labels: What is written at it, line by line.
    """

    source: int
    target: int
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Drawn:
    """A cell as it is drawn.

    Attributes:
        title: What it is.
        nodes: Its nodes, as states: the inputs are 0 and 1, the first node is 2.
        arrows: Between states.
        concat: The states that its output consists of.
        note: What else is to be said of it.
    """

    title: str
    nodes: tuple[int, ...]
    arrows: tuple[Arrow, ...]
    concat: tuple[int, ...]
    note: str = ""


def cells_of_plan(plan: Plan) -> list[Drawn]:
    """Both cells of a genotype or of a template, as they are drawn."""
    found: list[Drawn] = []
    for kind in KINDS:
        edges = plan.edges(kind)
        nodes = tuple(range(INPUTS, 1 + max(edge.target for edge in edges)))
        # What adds nothing to a node is no arrow.
        given = [(edge, edge.operation) for edge in edges if edge.operation != "none"]
        found.append(Drawn(kind, nodes, _arrows(given, _searched(edges)), tuple(plan.concat(kind))))
    return found


def cells_of_graph(graph: Graph) -> list[Drawn]:
    """The cells of a graph as they are drawn: one of each kind and structure, normal ones first.

    Where edges have several operations, each says how many inner channels it has, in the mean over the cells that are
    drawn as one.

    Raises:
        GraphError: There are none, or names of nodes say what no cell is.
    """
    cells = cells_of(graph)
    if not cells:
        raise GraphError(
            f"there are no cells to draw: none of its {counted(len(graph.nodes), 'node')} is a cell's, such as the sum "
            "normal.0.node_2 of operations called normal.0.edge_0_2.OPERATION.*, or the output normal.0.out. Build it "
            "with growir.cells.network, or draw it whole, without --cell"
        )
    problems = [problem for at in cells for problem in _problems(at)]
    if problems:
        raise GraphError(problems)
    alike: dict[tuple[Kind, tuple[Edge, ...], tuple[int, ...]], list[CellAt]] = {}
    for at in cells:
        alike.setdefault((at.kind, tuple(sorted(at.edges, key=_place)), at.concat), []).append(at)
    return [_of_cells(kind, group) for kind in KINDS for (each, _, _), group in alike.items() if each == kind]


def _place(edge: Edge) -> tuple[int, int, str]:
    return edge.target, edge.source, edge.operation


def _problems(at: CellAt) -> Iterable[Problem]:
    """What is wrong with the names of a cell's nodes: an arrow leads back, or from a state that is not there."""
    where = at.module or at.kind
    states = {*range(INPUTS), *(state for state, _ in at.sums)}
    yield from edge_problems(where, at.edges, {edge.operation for edge in at.edges})
    for edge in at.edges:
        if edge.source < edge.target and edge.source not in states:
            known = ", ".join(map(str, sorted(states)))
            yield Problem(f"{where}: {edge}", f"there is no state {edge.source}; this cell has {known}")


def _of_cells(kind: Kind, cells: Sequence[CellAt]) -> Drawn:
    """One cell for several of one structure."""
    numbered = [_numbered(at) for at in cells]
    searched = _searched(cells[0].edges)
    given: list[tuple[Edge, str]] = []
    for edge, which in numbered[0]:
        inner = [each.inner for of_cell in numbered if (each := of_cell[edge, which]).inner is not None]
        mean = f" {fmean(inner):.1f}".removesuffix(".0") if inner and searched else ""
        given.append((edge, f"{edge.operation}{mean}"))
    note = "numbers: inner channels" if any(text != edge.operation for edge, text in given) else ""
    note += f", in the mean over {len(cells)} cells" if note and len(cells) > 1 else ""
    nodes = tuple(state for state, _ in cells[0].sums)
    title = _title(kind, [at.module for at in cells])
    return Drawn(title, nodes, _arrows(given, searched), cells[0].concat, note)


def _numbered(at: CellAt) -> dict[tuple[Edge, int], OperationAt]:
    """A cell's operations by their edge, and by which of equal ones they are."""
    # Not by their place, so that cells whose sums name the same operations in another order are one structure.
    seen = Counter[Edge]()
    found: dict[tuple[Edge, int], OperationAt] = {}
    for operation in at.operations:
        found[operation.edge, seen[operation.edge]] = operation
        seen[operation.edge] += 1
    return found


def _searched(edges: Sequence[Edge]) -> bool:
    """Whether edges still have several operations: more than the two that a genotype may have between two states."""
    into = Counter(edge.target for edge in edges)
    between = Counter((edge.source, edge.target) for edge in edges)
    return any(many > 1 and into[target] > PER_NODE for (_, target), many in between.items())


def _arrows(given: Iterable[tuple[Edge, str]], searched: bool) -> tuple[Arrow, ...]:
    """An arrow for each operation, or, where all are searched, one for each edge, with a line for each operation."""
    if not searched:
        return tuple(Arrow(edge.source, edge.target, (text,)) for edge, text in given)
    lines: dict[tuple[int, int], list[str]] = {}
    for edge, text in given:
        lines.setdefault((edge.source, edge.target), []).append(text)
    return tuple(Arrow(*between, tuple(texts)) for between, texts in lines.items())


def _title(kind: Kind, modules: Sequence[str]) -> str:
    """A kind, and the modules that are of it: "normal: 0, 1, 3 to 5" for normal.0, normal.1, normal.3 and so on."""
    numbers = [module.removeprefix(f"{kind}.") for module in modules]
    if not all(map(NUMBERED.match, numbers)):
        named = ", ".join(cut(module) for module in modules if module)
        return f"{kind}: {named}" if named else kind
    runs: list[list[int]] = []
    for number in sorted(map(int, numbers)):
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    texts = [f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]
    return f"{kind}: {', '.join(texts)}"


def draw_cells(cells: Sequence[Drawn], name: str = "cells") -> str:
    """Cells below each other as an SVG element.

    Args:
        cells: From `cells_of_plan` or `cells_of_graph`.
        name: What they are cells of, for those who do not see the picture.
    """
    panels = [_panel(drawn) for drawn in cells]
    width = max((panel.size[0] for panel in panels), default=2 * MARGIN)
    height = sum(panel.size[1] for panel in panels)
    described = " ".join(_described(drawn) for drawn in cells)
    parts = opening((width, height), (name, described), style(families=ROLES) + RULES, TAG)
    top = 0
    for panel in panels:
        x = MARGIN
        for k, line in enumerate(panel.title):
            parts.append(f'<text class="heading" x="{x}" y="{top + MARGIN + 8 + TITLE * k}">{plain(line)}</text>')
        if panel.note:
            at = top + MARGIN + 8 + TITLE * len(panel.title)
            parts.append(f'<text x="{x}" y="{at}">{plain(panel.note)}</text>')
        shift = (width - panel.size[0]) // 2 + panel.shift
        parts += [f'<g transform="translate({shift} {top + panel.header})">', *panel.parts, "</g>"]
        top += panel.size[1]
    return "\n".join([*parts, "</svg>"]) + "\n"


@dataclass(frozen=True, slots=True)
class _Panel:
    """A cell's part of the picture.

    Attributes:
        title: Its lines.
        note: Below the title.
        header: How high these are.
        shift: How far the cell stands to the right, where its title is wider than it.
        size: Width and height of all.
        parts: The cell.
    """

    title: tuple[str, ...]
    note: str
    header: int
    shift: int
    size: tuple[int, int]
    parts: tuple[str, ...]


def _panel(drawn: Drawn) -> _Panel:
    title = tuple(textwrap.wrap(drawn.title, TITLE_CHARS))
    header = TITLE * len(title) + (NOTE if drawn.note else 0)
    (across, down), parts = _placed(drawn)
    words = max([*(len(line) * HEADING_WIDTH for line in title), len(drawn.note) * TEXT_WIDTH])
    width = max(across, 2 * MARGIN + round(words))
    return _Panel(title, drawn.note, header, (width - across) // 2, (width, down + header), tuple(parts))


def _placed(drawn: Drawn) -> tuple[tuple[int, int], list[str]]:
    """The size of a cell, and its arrows and boxes."""
    plan = _Boxes(drawn)
    # The layout goes downwards: what it calls a width is a height here, and the other way round.
    layout = layered(plan.heights, plan.widths, plan.links, layers=plan.columns, gap=GAP)
    down, across = layout.size
    middles = [corner[0] + height // 2 for corner, height in zip(layout.corners, plan.heights, strict=True)]
    # The mirror image of a layout has as few crossings as it; papers have the last cell but one above.
    turned = middles[0] > middles[1]
    middles = [down - y for y in middles] if turned else middles
    routes = {link: [(x, down - y if turned else y) for y, x in route] for link, route in layout.routes.items()}
    paths: list[tuple[str, list[Point]]] = []
    labels: list[str] = []
    for arrow, label in zip(drawn.arrows, plan.labels, strict=True):
        # One line of text stands above the middle of its box, so that its arrow may go straight on; more fill it.
        line = middles[label] + (plan.heights[label] // 2 - RISE if len(arrow.labels) > 1 else 0)
        into, out = routes[plan.states[arrow.source], label], routes[label, plan.states[arrow.target]]
        into[-1], out[0] = (into[-1][0], line), (out[0][0], line)
        said = f"{_name(arrow.source)} to {_name(arrow.target)}: {', '.join(arrow.labels)}"
        paths.append((said, [*into, *out]))
        first = line - RISE - LINE * (len(arrow.labels) - 1)
        longest = max(len(cut(text)) for text in arrow.labels)
        left = (into[-1][0] + out[0][0] - longest * TEXT_WIDTH) / 2
        for k, text in enumerate(arrow.labels):
            labels.append(f'<text class="operation" x="{left:.1f}" y="{first + LINE * k}">{plain(cut(text))}</text>')
    for state in dict.fromkeys(drawn.concat):
        paths.append((f"{_name(state)} to {RESULT}", routes[plan.states[state], plan.result]))
    _spread([path for _, path in paths])
    parts = [
        f'<path class="edge" d="{_path(path)}" marker-end="url(#{TAG}-head)"><title>{plain(said)}</title></path>'
        for said, path in paths
    ]
    parts += labels
    roles = [(box, "given" if state < INPUTS else "node", _name(state)) for state, box in plan.states.items()]
    for box, role, name in [*roles, (plan.result, "result", RESULT)]:
        corner = layout.corners[box][1], middles[box] - plan.heights[box] // 2
        parts += _box(role, name, corner, (plan.widths[box], plan.heights[box]))
    return (across, down), parts


def _height(arrows: int) -> int:
    """How high a box is that so many arrows lead to."""
    return max(HEIGHT, HEAD * (arrows + 1) // 2 * 2)


class _Boxes:
    """What a layout is given: boxes of states, of labels and of the output, and what leads from one to another."""

    def __init__(self, drawn: Drawn) -> None:
        self.columns: list[int] = []
        self.widths: list[int] = []
        self.heights: list[int] = []
        self.links: list[tuple[int, int]] = []
        self.states: dict[int, int] = {}
        self.labels: list[int] = [0] * len(drawn.arrows)
        for state in range(INPUTS):
            self.states[state] = self._add(0, ENDS, HEIGHT)
        for state in drawn.nodes:
            into = [k for k, arrow in enumerate(drawn.arrows) if arrow.target == state]
            column = 2 + max((self.columns[self.states[drawn.arrows[k].source]] for k in into), default=0)
            for k in into:
                arrow = drawn.arrows[k]
                wide = round(max(len(cut(text)) for text in arrow.labels) * TEXT_WIDTH) + 8
                # One line leaves as much room below its arrow as it takes above.
                lines = max(2, len(arrow.labels))
                self.labels[k] = self._add(column - 1, wide, LINE * lines + 2 * RISE)
                self.links.append((self.states[arrow.source], self.labels[k]))
            self.states[state] = self._add(column, NODE, _height(len(into)))
            self.links += [(self.labels[k], self.states[state]) for k in into]
        self.result = self._add(1 + max(self.columns), ENDS, _height(len(set(drawn.concat))))
        self.links += [(self.states[state], self.result) for state in drawn.concat]

    def _add(self, column: int, wide: int, high: int) -> int:
        self.columns.append(column)
        self.widths.append(wide)
        self.heights.append(high)
        return len(self.columns) - 1


def _box(role: str, name: str, corner: tuple[int, int], size: tuple[int, int]) -> list[str]:
    """A box with a name in the middle of it; what stands after an underscore is its index."""
    x, y = corner
    word, _, index = name.partition("_")
    index = index.strip("{}")
    left = x + (size[0] - len(word) * NAME_WIDTH - len(index) * INDEX_WIDTH) / 2
    base = y + size[1] // 2 + (3 if index else 4)
    parts = [
        f'<g class="box {role}"><title>{name}</title>',
        f'<rect class="fill" x="{x}" y="{y}" width="{size[0]}" height="{size[1]}" rx="6"/>',
        f'<text class="name" x="{left:.1f}" y="{base}">{word}</text>',
    ]
    if index:
        after = left + len(word) * NAME_WIDTH
        parts.append(f'<text class="index" x="{after:.1f}" y="{base + 4}">{index}</text>')
    return [*parts, "</g>"]


def _spread(paths: Iterable[list[Point]]) -> None:
    """Let arrows into the same box end below each other, in the order in which they come, in place."""
    ends: dict[Point, list[list[Point]]] = {}
    for path in paths:
        ends.setdefault(path[-1], []).append(path)
    for (x, y), into in ends.items():
        first = y - HEAD * (len(into) - 1) // 2
        for k, path in enumerate(sorted(into, key=lambda path: path[-2][1])):
            path[-1] = (x, first + HEAD * k)


def _path(points: Sequence[Point]) -> str:
    """Bent from an even point to the next, where columns have room between them, and straight from an odd one."""
    (x, y), *rest = points
    text = f"M{x} {y}"
    for k, (to_x, to_y) in enumerate(rest):
        if k % 2 or y == to_y:
            text += f"L{to_x} {to_y}"
        else:
            middle = (x + to_x) // 2
            text += f"C{middle} {y} {middle} {to_y} {to_x} {to_y}"
        x, y = to_x, to_y
    return text


def _name(state: int) -> str:
    """A state as papers call it; they count nodes from 0."""
    return GIVEN[state] if state < INPUTS else str(state - INPUTS)


def _described(drawn: Drawn) -> str:
    """A cell in words: what each node is the sum of."""
    nodes: list[str] = []
    for node in drawn.nodes:
        into = [f"{', '.join(a.labels)} of {_name(a.source)}" for a in drawn.arrows if a.target == node]
        nodes.append(f"{_name(node)} is {' + '.join(into) or 'nothing'}")
    return f"{drawn.title}: {'; '.join(nodes)}; {RESULT} has {', '.join(map(_name, drawn.concat))}."
