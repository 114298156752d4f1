"""Pictures: few boxes that never overlap, arrows around them, text escaped, the same bytes each time."""

from __future__ import annotations

import itertools
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from growir.document import dumps
from growir.graph import Graph
from growir.network import load_graph
from growir.passes import AddEdge, AddNode, Widen
from growir.render import MAX_BOXES, collapse, draw, graph_page, growth_marks
from growir.render.layout import layered
from growir.render.svg import FAMILIES, GROUND, MARKS, TEXT
from growir.testing import graphs
from growir.verify import load
from tests.cli.command import GOLDEN
from tests.samples import mlp, residual_convnet
from tests.sampling import thinned

SVG = "{http://www.w3.org/2000/svg}"
Rectangle = tuple[float, float, float, float]


def document(nodes: list[dict[str, Any]], outputs: list[str], inputs: int = 1) -> Graph:
    entries = [{"name": f"x{k}" if k else "x", "shape": ["N", 4]} for k in range(inputs)]
    return load({"schema": "growir/1", "inputs": entries, "nodes": nodes, "outputs": outputs})


def chain(names: list[str]) -> Graph:
    nodes = [
        {"name": name, "op": "relu" if k % 2 else "linear", "inputs": [names[k - 1] if k else "x"]}
        | ({} if k % 2 else {"out_features": 4})
        for k, name in enumerate(names)
    ]
    return document(nodes, [names[-1]])


def branches(count: int) -> Graph:
    names = [f"b{k}" for k in range(count)]
    nodes = [{"name": name, "op": "linear", "inputs": ["x"], "out_features": 4} for name in names]
    return document([*nodes, {"name": "sum_", "op": "add", "inputs": names}], ["sum_"])


def dense(count: int) -> Graph:
    nodes: list[dict[str, Any]] = []
    values = ["x"]
    for k in range(count):
        nodes.append({"name": f"d{k}.cat", "op": "concat", "inputs": list(values)})
        nodes.append({"name": f"d{k}.fc", "op": "linear", "inputs": [f"d{k}.cat"], "out_features": 4})
        values.append(f"d{k}.fc")
    return document(nodes, [values[-1]])


def crossed(count: int) -> Graph:
    """Two modules whose nodes take turns, so that each reads from the other."""
    return chain([f"{'ab'[k % 2]}.n{k}" for k in range(count)])


def many_inputs(count: int) -> Graph:
    names = [f"x{k}" if k else "x" for k in range(count)]
    return document([{"name": "sum_", "op": "add", "inputs": names}], ["sum_"], count)


GRAPHS: dict[str, Graph] = {
    "flat": chain([f"n{k}" for k in range(1000)]),
    "one module": chain([f"m.n{k}" for k in range(1000)]),
    "equal blocks": chain([f"b{k}.n{j}" for k in range(100) for j in range(10)]),
    "unequal blocks": chain([f"b{k}.n{j}" for k in range(90) for j in range(5 + k % 7)]),
    "deep": chain([f"a{a}.b{b}.c{c}.n{k}" for a in range(4) for b in range(5) for c in range(10) for k in range(5)]),
    "lopsided": chain([*(f"s{k}" for k in range(58)), *(f"m.n{k}" for k in range(942))]),
    "branches": branches(1000),
    "few branches": branches(50),
    "dense": dense(500),
    "crossed": crossed(1000),
    "inputs": many_inputs(100),
    "nothing": document([], ["x"]),
}
every_graph = pytest.mark.parametrize("name", GRAPHS)


def rectangles(svg: str) -> list[Rectangle]:
    found: list[Rectangle] = []
    for element in ET.fromstring(svg).iter(f"{SVG}rect"):
        x, y, width, height = (float(element.attrib[key]) for key in ("x", "y", "width", "height"))
        found.append((x, y, x + width, y + height))
    return found


def of_class(svg: str, tag: str, name: str) -> list[ET.Element]:
    return [e for e in ET.fromstring(svg).iter(f"{SVG}{tag}") if name in e.attrib.get("class", "").split()]


def overlap(a: Rectangle, b: Rectangle, room: float = 0.0) -> bool:
    return a[0] < b[2] + room and b[0] < a[2] + room and a[1] < b[3] + room and b[1] < a[3] + room


def check(graph: Graph, limit: int = MAX_BOXES) -> None:
    svg = draw(graph, limit=limit)
    boxes = rectangles(svg)
    picture = collapse(graph, limit)
    assert 1 <= len(boxes) == len(picture.boxes) <= limit
    for k, a in enumerate(boxes):
        assert not any(overlap(a, b, 4) for b in boxes[:k])
    shown = sorted(name for box in picture.boxes for name in box.members)
    assert shown == sorted(node.name for node in graph.nodes)
    root = ET.fromstring(svg)
    width, height = (float(root.attrib[key]) for key in ("width", "height"))
    shift = re.search(r'<g transform="translate\((\d+) (\d+)\)">', svg)
    assert shift is not None
    right, down = float(shift[1]), float(shift[2])
    assert all(a[0] + right >= 0 and a[2] + right <= width and a[3] + down <= height for a in boxes)
    assert len(of_class(svg, "path", "edge")) == len(picture.edges)


@every_graph
def test_few_boxes_that_do_not_overlap(name: str) -> None:
    check(GRAPHS[name])


@pytest.mark.parametrize("case", thinned(itertools.product(GRAPHS, [2, 3, 7, 200]), 3), ids=str)
def test_other_limits(case: tuple[str, int]) -> None:
    name, limit = case
    check(GRAPHS[name], limit)


@given(graphs(moves=12))
def test_random_graphs(graph: Graph) -> None:
    check(graph)


@given(
    st.lists(st.integers(20, 200), min_size=1, max_size=25).flatmap(
        lambda widths: st.tuples(
            st.just(widths),
            st.lists(st.tuples(st.integers(0, len(widths) - 1), st.integers(0, len(widths) - 1)), max_size=60),
        )
    )
)
def test_arrows_run_down_and_around_boxes(drawn: tuple[list[int], list[tuple[int, int]]]) -> None:
    widths, pairs = drawn
    edges = [(min(pair), max(pair)) for pair in pairs if pair[0] != pair[1]]
    layout = layered(widths, [40 + width % 30 for width in widths], edges)
    boxes = [(x, y, x + w, y + h) for (x, y), w, h in zip(layout.corners, widths, layout.heights, strict=True)]
    for k, a in enumerate(boxes):
        assert not any(overlap(a, b) for b in boxes[:k])
        assert layout.heights[k] >= 40 + widths[k] % 30
    assert layout.routes.keys() == set(edges)
    for (start, end), route in layout.routes.items():
        assert boxes[start][0] <= route[0][0] <= boxes[start][2]
        assert boxes[end][0] <= route[-1][0] <= boxes[end][2]
        assert (route[0][1], route[-1][1]) == (boxes[start][3], boxes[end][1])
        assert all(y < to_y for (_, y), (_, to_y) in pairwise(route))
        # From gap to gap it goes straight down, where no box stands.
        for (x, y), (to_x, to_y) in list(pairwise(route))[1::2]:
            assert x == to_x
            assert not any(overlap((x, y, x, to_y), box) for box in boxes)


def test_an_arrow_that_would_lead_up_is_refused() -> None:
    with pytest.raises(ValueError, match="from box 1 to box 0; boxes stand after those they read from"):
        layered([30, 30], [20, 20], [(1, 0)])


def test_modules_are_opened_where_there_is_room() -> None:
    labels = [box.label for box in collapse(residual_convnet()).boxes]
    assert labels == ["x", "stem", "block.conv", "block.norm", "sum", "act", "cat", "pool", "flat", "head"]
    # Modules before the nodes that only carry on another's value.
    labels = [box.label for box in collapse(residual_convnet(), 8).boxes]
    assert labels == ["x", "stem", "block.conv", "block.norm", "sum to act", "cat", "pool to flat", "head"]
    labels = [box.label for box in collapse(residual_convnet(), 7).boxes]
    assert labels == ["x", "stem", "block", "sum to act", "cat", "pool to flat", "head"]


def test_equal_modules_are_one_box_behind_the_first() -> None:
    picture = collapse(GRAPHS["equal blocks"])
    assert [box.label for box in picture.boxes[:3]] == ["x", "b0.n0", "b0.n1"]
    assert (picture.boxes[-1].label, picture.boxes[-1].what) == ("b1 to b99", "99 x: 5 linear, 5 relu")
    changed = Widen(node="b50.n4", by=2).rewrite(GRAPHS["equal blocks"]).graph
    focused = collapse(changed, focus=["b50.n4"])
    assert "b50.n4" in [box.label for box in focused.boxes]


def test_a_box_says_what_it_holds() -> None:
    block = next(box for box in collapse(residual_convnet(), 7).boxes if box.label == "block")
    assert (block.what, block.shape, block.family) == ("conv2d, batch_norm", "(N, 3, 5, 5)", "conv")
    assert block.parameters == 3 * 3 * 9 + 6
    head = collapse(residual_convnet()).boxes[-1]
    assert (head.output, head.what, head.family) == (True, "linear", "linear")


def grown() -> Graph:
    graph = AddNode(source="x", target="head", width=2).rewrite(mlp()).graph
    return AddEdge(source="x", target="head").rewrite(graph).graph


def test_what_growth_made_is_marked() -> None:
    marks = growth_marks(grown())
    assert {mark.text for mark in marks.values()} >= {"new in step 1: add_node"}
    assert len(of_class(draw(grown()), "g", "marked")) == len(marks)
    assert "new in step 1: add_node" in graph_page(grown())
    assert not of_class(draw(mlp()), "g", "marked")


def test_golden(golden: Callable[..., None]) -> None:
    golden(GOLDEN / "render.svg", draw(grown()))


def test_the_same_each_time() -> None:
    assert draw(grown()) == draw(load_graph(json.loads(dumps(grown()))))


@pytest.mark.parametrize("title", ["<script>alert(1)</script>", '"><b>', "&amp;", "a\u202eb\ufffe", "]]>", "x" * 200])
def test_text_is_never_markup(title: str) -> None:
    graph = mlp().replace(name=title)
    root = ET.fromstring(draw(graph))
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= set(
        "svg title desc style defs marker path text g circle rect".split()
    )
    page = graph_page(graph)
    assert "<script" not in page
    assert "<b>" not in page


def test_it_is_accessible_and_loads_nothing() -> None:
    root = ET.fromstring(draw(grown()))
    assert root.attrib["role"] == "img"
    ids = {element.attrib["id"]: element.text for element in root.iter() if "id" in element.attrib}
    for name in root.attrib["aria-labelledby"].split():
        assert ids[name]
    for text in (draw(grown()), graph_page(grown())):
        found = re.sub(re.escape('xmlns="http://www.w3.org/2000/svg"'), "", text)
        assert not re.search(r"https?:|src=|href=|@import|url\((?!#)|<script", found)


def luminance(colour: str) -> float:
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_text_can_be_read_on_light_and_on_dark_ground() -> None:
    fills = [*((GROUND[k], k) for k in (0, 1)), *((c[2 * k], k) for c in FAMILIES.values() for k in (0, 1))]
    for fill, side in fills:
        assert contrast(fill, TEXT[side]) > 7, fill
        for name, pair in MARKS.items():
            assert contrast(fill, pair[side]) > 3.5, (fill, name)
