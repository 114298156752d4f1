"""Cells: no text meets a box, another text or an arrow, operations are those of the plan, the same bytes each time."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable
from itertools import combinations, pairwise
from pathlib import Path

import pytest

from growir.cells import PUBLISHED, Genotype, Template, cell, genotype, network
from growir.cells.plan import KINDS, Plan
from growir.document import dumps
from growir.errors import GraphError
from growir.graph import Graph
from growir.network import load_graph
from growir.passes import Discretise, Widen
from growir.render import Arrow, Drawn, cells_of_graph, cells_of_plan, draw_cells
from growir.render.cells import INDEX_WIDTH
from growir.render.svg import HEADING_WIDTH, NAME_WIDTH, TEXT_WIDTH
from tests.cli.command import GOLDEN
from tests.samples import mlp

SVG = "{http://www.w3.org/2000/svg}"
Rectangle = tuple[float, float, float, float]
Point = tuple[float, float]
# Width of a character, and how far letters reach above the line that they stand on, and below it.
SIZES = {"name": (NAME_WIDTH, 10, 3), "heading": (HEADING_WIDTH, 12, 4), "index": (INDEX_WIDTH, 8, 2)}
SAMPLES = 16  # points of an arrow, between each two that it runs through


def searched(cells: int = 3) -> Graph:
    return network(Template(nodes=2), (3, 16, 16), 10, cells=cells, width=4)


def widened(graph: Graph, operation: str, by: int) -> Graph:
    """The graph with more inner channels of an operation."""
    return Widen(node=f"{operation}.pointwise1", by=by).rewrite(graph).graph


def shift_of(group: ET.Element) -> Point:
    found = re.match(r"translate\((-?\d+) (-?\d+)\)", group.attrib.get("transform", ""))
    return (float(found[1]), float(found[2])) if found else (0.0, 0.0)


class Seen:
    """Where everything stands in a picture of cells."""

    def __init__(self, svg: str) -> None:
        self.texts: list[tuple[str, Rectangle]] = []
        self.labels: list[tuple[str, Rectangle]] = []
        self.boxes: list[Rectangle] = []
        self.arrows: list[tuple[str, list[Point]]] = []
        root = ET.fromstring(svg)
        self.size = float(root.attrib["width"]), float(root.attrib["height"])
        self._read(root, (0.0, 0.0))

    def _read(self, element: ET.Element, at: Point) -> None:
        for child in element:
            tag, kind = child.tag.removeprefix(SVG), child.attrib.get("class", "")
            if tag == "g":
                dx, dy = shift_of(child)
                self._read(child, (at[0] + dx, at[1] + dy))
            elif tag == "text":
                assert "text-anchor" not in child.attrib
                wide, above, below = SIZES.get(kind, (TEXT_WIDTH, 9, 3))
                x, y = at[0] + float(child.attrib["x"]), at[1] + float(child.attrib["y"])
                found = child.text or "", (x, y - above, x + wide * len(child.text or ""), y + below)
                # Names stand in their boxes.
                (self.labels if kind in ("", "heading", "operation") else self.texts).append(found)
            elif tag == "rect":
                x, y, wide, high = (float(child.attrib[key]) for key in ("x", "y", "width", "height"))
                self.boxes.append((at[0] + x, at[1] + y, at[0] + x + wide, at[1] + y + high))
            elif tag == "path" and kind == "edge":
                points = [(at[0] + x, at[1] + y) for x, y in sampled(child.attrib["d"])]
                self.arrows.append((child.findtext(f"{SVG}title") or "", points))


def sampled(path: str) -> list[Point]:
    """Points of an arrow, close to each other."""
    found: list[Point] = []
    for command, text in re.findall(r"([MLC])([^MLC]*)", path):
        numbers = [float(number) for number in text.split()]
        ends = list(zip(numbers[::2], numbers[1::2], strict=True))
        if command == "M":
            found += ends
            continue
        corners = [found[-1], *ends] if command == "C" else [found[-1], found[-1], ends[0], ends[0]]
        for k in range(1, SAMPLES + 1):
            t = k / SAMPLES
            shares = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
            found.append(
                (
                    sum(share * x for share, (x, _) in zip(shares, corners, strict=True)),
                    sum(share * y for share, (_, y) in zip(shares, corners, strict=True)),
                )
            )
    return found


def overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def check(cells: list[Drawn]) -> Seen:
    """Nothing meets anything else, all of it is in the picture, and arrows lead to the right, from box to box."""
    seen = Seen(draw_cells(cells))
    placed = [*seen.labels, *((f"box {k}", box) for k, box in enumerate(seen.boxes))]
    for (name, a), (other, b) in combinations(placed, 2):
        assert not overlap(a, b), (name, other)
    for name, text in seen.texts:
        assert any(b[0] <= text[0] and b[1] <= text[1] and text[2] <= b[2] and text[3] <= b[3] for b in seen.boxes), (
            name
        )
    for name, (left, top, right, below) in placed:
        assert left >= 0 <= top, name
        assert right <= seen.size[0], name
        assert below <= seen.size[1], name
    for said, points in seen.arrows:
        assert all(x <= to_x for (x, _), (to_x, _) in pairwise(points)), said
        for x, y in points[1:-1]:
            for name, (left, top, right, below) in placed:
                assert not (left < x < right and top < y < below), (said, name)
        (x, y), (to_x, to_y) = points[0], points[-1]
        assert any(x == box[2] and box[1] < y < box[3] for box in seen.boxes), said
        assert any(to_x == box[0] and box[1] < to_y < box[3] for box in seen.boxes), said
    ends = [points[-1] for _, points in seen.arrows]
    assert len(set(ends)) == len(ends)
    assert len(seen.boxes) == sum(3 + len(drawn.nodes) for drawn in cells)
    assert len(seen.arrows) == sum(len(drawn.arrows) + len(set(drawn.concat)) for drawn in cells)
    return seen


@pytest.mark.parametrize("name", PUBLISHED)
def test_published(name: str) -> None:
    found = genotype(name)
    seen = check(cells_of_plan(found))
    operations = Counter(edge.operation for kind in KINDS for edge in found.edges(kind))
    assert Counter(text for text, _ in seen.labels) == operations + Counter(KINDS)


PLANS: dict[str, Plan] = {
    "template": Template(nodes=4),
    "one node": Template(nodes=1),
    "many nodes": Template(nodes=9),  # more labels than fit a column
    "no input is read": Template(nodes=2, between={(0, 2): ("none", "skip_connect"), (2, 3): ("skip_connect",)}),
    "an input is given on": Genotype(
        (("sep_conv_3x3", 0), ("sep_conv_3x3", 0)), (0, 2), (("none", 0), ("none", 1)), (2, 1)
    ),
}


@pytest.mark.parametrize("name", PLANS)
def test_plans(name: str) -> None:
    normal, reduce = cells_of_plan(PLANS[name])
    check([normal])
    if normal.arrows != reduce.arrows:
        check([reduce])


def test_an_arrow_of_a_template_has_a_line_for_each_operation() -> None:
    drawn = cells_of_plan(Template(nodes=4, operations=("skip_connect", "max_pool_3x3", "sep_conv_3x3")))[0]
    assert [(arrow.source, arrow.target) for arrow in drawn.arrows[:5]] == [(0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]
    assert {arrow.labels for arrow in drawn.arrows} == {("skip_connect", "max_pool_3x3", "sep_conv_3x3")}


def test_equal_operations_between_two_states_have_an_arrow_each() -> None:
    (normal, _) = cells_of_plan(genotype("NASNet"))
    seen = check([normal])
    paths = [points for said, points in seen.arrows if said == "c_{k-2} to 3: avg_pool_3x3"]
    assert len(paths) == 2
    assert paths[0][1:] != paths[1][1:]
    # The graph of a genotype is drawn like it.
    graph = network(genotype("NASNet"), (3, 16, 16), 10, cells=3, width=4)
    drawn = cells_of_graph(graph)
    assert Counter(drawn[0].arrows) == Counter(normal.arrows)
    assert [each.note for each in drawn] == ["", ""]
    check(drawn)


def test_golden(golden: Callable[[Path, str], None]) -> None:
    golden(GOLDEN / "cells.svg", draw_cells(cells_of_plan(genotype("DARTS_V2")), "cells of DARTS_V2"))


def test_from_the_left_to_the_right() -> None:
    seen = check(cells_of_plan(genotype("DARTS_V2"))[:1])
    first, second, *nodes, result = seen.boxes
    assert first[0] == second[0] < nodes[0][0] == nodes[1][0] == nodes[2][0] < nodes[3][0] < result[0]
    assert first[1] < second[1]
    assert [text for text, _ in seen.texts] == ["c", "k-2", "c", "k-1", "0", "1", "2", "3", "c", "k"]


def test_inner_channels_are_a_mean_over_cells() -> None:
    graph = searched()
    assert [drawn.title for drawn in cells_of_graph(graph)] == ["normal: 0", "reduce: 1, 2"]
    graph = network(Template(nodes=2), (3, 16, 16), 10, cells=4, width=4, reductions=[2])
    drawn = cells_of_graph(widened(graph, "normal.1.edge_0_2.sep_conv_3x3", 2))
    assert [each.title for each in drawn] == ["normal: 0, 1, 3", "reduce: 2"]
    notes = ["numbers: inner channels, in the mean over 3 cells", "numbers: inner channels"]
    assert [each.note for each in drawn] == notes
    labels = ("skip_connect", "sep_conv_3x3 4.7", "sep_conv_5x5 4", "dil_conv_3x3 4", "dil_conv_5x5 4")
    assert drawn[0].arrows[0].labels == labels
    assert drawn[0].arrows[1].labels[1] == "sep_conv_3x3 4"
    check(drawn)


def test_discretised() -> None:
    graph = searched()
    for operation in ("normal.0.edge_0_2.sep_conv_3x3", "normal.0.edge_1_3.dil_conv_5x5"):
        graph = widened(graph, operation, 3)
    drawn = cells_of_graph(Discretise().rewrite(graph).graph)
    labels = {(arrow.source, arrow.target): arrow.labels for arrow in drawn[0].arrows}
    assert labels[0, 2] == ("sep_conv_3x3",)
    assert labels[1, 3] == ("dil_conv_5x5",)
    assert [len(each.arrows) for each in drawn] == [4, 4]
    assert [each.note for each in drawn] == ["", ""]
    check(drawn)


def test_a_cell_of_each_structure() -> None:
    graph = searched(4)
    assert [drawn.title for drawn in cells_of_graph(graph)] == ["normal: 0, 3", "reduce: 1, 2"]
    kept = {f"{module}.edge_{k}_{node}.skip_connect" for module in names(graph) for k in (0, 1) for node in (2, 3)}
    changed = kept - {"normal.3.edge_0_2.skip_connect"} | {"normal.3.edge_0_2.sep_conv_3x3"}
    drawn = cells_of_graph(Discretise(operations=tuple(sorted(changed))).rewrite(graph).graph)
    assert [each.title for each in drawn] == ["normal: 0", "normal: 3", "reduce: 1, 2"]
    check(drawn)


def names(graph: Graph) -> list[str]:
    return [node.name.removesuffix(".out") for node in graph.nodes if node.name.endswith(".out")]


def test_titles() -> None:
    graph = network(genotype("SNAS"), (3, 8, 8), 10, cells=12, width=2)
    assert [drawn.title for drawn in cells_of_graph(graph)] == ["normal: 0 to 3, 5 to 7, 9 to 11", "reduce: 4, 8"]
    assert [drawn.title for drawn in cells_of_graph(cell(genotype("SNAS"), "reduce", (4, 8, 8)))] == ["reduce"]
    moved = renamed(searched(), "normal.", "body.normal.")
    assert [drawn.title for drawn in cells_of_graph(moved)] == ["normal: body.normal.0", "reduce: 1, 2"]


def renamed(graph: Graph, old: str, new: str) -> Graph:
    """The graph with other names of nodes."""
    called = {node.name: node.name.replace(old, new, 1) for node in graph.nodes}
    nodes = [
        node.model_copy(update={"name": called[node.name], "inputs": tuple(called.get(n, n) for n in node.inputs)})
        for node in graph.nodes
    ]
    return graph.replace(nodes=nodes, outputs=[called.get(name, name) for name in graph.outputs])


def test_long_titles_have_several_lines() -> None:
    drawn = cells_of_plan(genotype("SNAS"))[0]
    title = "normal: " + ", ".join(f"a.long.name.of.a.module.normal.{k}" for k in range(9))
    seen = check([Drawn(title, drawn.nodes, drawn.arrows, drawn.concat, "a note")])
    assert " ".join(text for text, _ in seen.labels if "module" in text) == title


def test_no_cells() -> None:
    with pytest.raises(GraphError, match=r"no cells to draw: none of its \d+ nodes is a cell's, .* without --cell"):
        cells_of_graph(mlp())


@pytest.mark.parametrize(("new", "words"), [("edge_3_2.", "a cell has no cycle"), ("edge_7_9.", "no state 7")])
def test_names_that_lie(new: str, words: str) -> None:
    graph = cell(genotype("DARTS_V2"), "normal", (4, 8, 8))
    if new == "edge_7_9.":
        graph = renamed(renamed(graph, "node_5", "node_9"), "edge_2_5.", new)
        graph = renamed(graph, "edge_0_5.", "edge_0_9.")
    else:
        graph = renamed(graph, "edge_0_2.", new)
    with pytest.raises(GraphError, match=words):
        cells_of_graph(graph)


def test_text_is_never_markup() -> None:
    drawn = cells_of_plan(genotype("DARTS_V2"))[0]
    arrow = Arrow(0, 2, ("<script>&\u202e",))
    svg = draw_cells([Drawn("<b>", drawn.nodes, (arrow,), drawn.concat, "</svg>")], "]]>\x00<")
    tags = {element.tag.removeprefix(SVG) for element in ET.fromstring(svg).iter()}
    assert tags == set("svg title desc style defs marker path text g rect".split())


def test_it_is_accessible_and_loads_nothing() -> None:
    svg = draw_cells(cells_of_plan(genotype("DARTS_V2")), "cells of DARTS_V2")
    root = ET.fromstring(svg)
    said = {each.attrib["id"]: each.text or "" for each in root.iter() if "id" in each.attrib and each.text}
    title, description = (said[name] for name in root.attrib["aria-labelledby"].split())
    assert title == "cells of DARTS_V2"
    assert "; 3 is skip_connect of c_{k-2} + dil_conv_3x3 of 0; c_{k} has 0, 1, 2, 3." in description
    assert not re.search(
        r"https?:|src=|href=|@import|url\((?!#)|<script", svg.replace("http://www.w3.org/2000/svg", "")
    )


def test_the_same_each_time() -> None:
    graph = searched()
    assert draw_cells(cells_of_graph(graph)) == draw_cells(cells_of_graph(load_graph(json.loads(dumps(graph)))))
