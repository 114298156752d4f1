"""Every arrow of every picture points down, whatever growth put where and whichever modules are closed."""

from __future__ import annotations

import random
import re
import xml.etree.ElementTree as ET
from collections.abc import Collection, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from growir.difference import diff
from growir.errors import PassRefused
from growir.graph import Graph
from growir.network import load_graph
from growir.passes import AddEdge, AddNode, InsertBlock, InsertLayer, Widen
from growir.render import MAX_BOXES, MAX_ROWS, collapse, difference_page, draw
from growir.render.layout import layers_of
from growir.render.order import crossings, ordered
from growir.render.tree import Group, module_tree
from growir.rewrite import Pass
from growir.testing import candidates, graphs
from tests.zoo import ZOO
from tests.zoo.imported import imported

LIMITS = (2, 5, 12, 25, 60)
KINDS: tuple[type[Pass], ...] = (AddNode, AddEdge, Widen, InsertLayer, InsertBlock)
CHEAP = ("resnet", "densenet", "googlenet", "vgg_bn")  # of the zoo; the others are drawn in `make test-all`
SVG = "{http://www.w3.org/2000/svg}"


def check(svg: str) -> None:
    """All arrows of an SVG element run downwards from a box's lower side to another's upper side, through no box."""
    drawn = ET.fromstring(svg)
    boxes = [tuple(int(e.attrib[key]) for key in ("x", "y", "width", "height")) for e in drawn.iter(f"{SVG}rect")]
    for path in (e.attrib["d"] for e in drawn.iter(f"{SVG}path") if e.attrib.get("class") == "edge"):
        points = path_points(path)
        heights = [y for _, y in points]
        assert heights == sorted(heights), path
        assert heights[0] < heights[-1], path
        (x, y), (to_x, to_y) = points[0], points[-1]
        assert any(left <= x <= left + w and y == top + h for left, top, w, h in boxes), path
        assert any(left <= to_x <= left + w and to_y == top for left, top, w, _ in boxes), path
        for (x, y), (to_x, to_y) in pairwise(points):
            for left, top, w, h in boxes:
                beside = max(x, to_x) <= left or left + w <= min(x, to_x)
                assert beside or to_y <= top or top + h <= y, path


def path_points(path: str) -> list[tuple[int, int]]:
    """The points that a path runs through, those that bend its curves among them."""
    points: list[tuple[int, int]] = []
    for command, text in re.findall(r"([MLVC])([^MLVC]*)", path):
        numbers = [int(number) for number in text.split()]
        if command == "V":
            points.append((points[-1][0], numbers[0]))
        else:
            points += zip(numbers[::2], numbers[1::2], strict=True)
    return points


def check_graph(graph: Graph, limits: Collection[int] = LIMITS) -> None:
    for limit in limits:
        picture = collapse(graph, limit)
        assert all(start < end for start, end in picture.edges)
        check(draw(graph, limit=limit))
    picture = collapse(graph)
    assert len(picture.boxes) <= MAX_BOXES
    assert max(layers_of(len(picture.boxes), picture.edges)) < MAX_ROWS
    check(draw(graph))


def grown(names: Sequence[str], seed: int, steps: int) -> Graph:
    """A chain of nodes with these names, grown at random: new nodes come to stand between the old ones."""
    nodes = [
        {"name": name, "op": "relu", "inputs": [names[k - 1] if k else "x"]}
        if k % 2
        else {"name": name, "op": "linear", "out_features": 3, "inputs": [names[k - 1] if k else "x"]}
        for k, name in enumerate(names)
    ]
    head = {"name": "head", "op": "linear", "out_features": 2, "inputs": [names[-1]]}
    document = {"schema": "growir/1", "inputs": [{"name": "x", "shape": ["N", 4]}]}
    graph = load_graph({**document, "nodes": [*nodes, head], "outputs": ["head"]})
    rng = random.Random(seed)
    for _ in range(steps):
        places = ["x", *(node.name for node in graph.nodes)]
        source, target = rng.choice(places), rng.choice(places)
        steps_: list[dict[str, object]] = [
            {"pass": "add_node", "source": source, "target": target, "width": 2},
            {"pass": "add_edge", "source": source, "target": target},
            {"pass": "widen", "node": source, "by": 1},
        ]
        graph = tried(graph, rng.choice(steps_))
    return graph


def tried(graph: Graph, step: dict[str, object]) -> Graph:
    from growir.passes import pass_from_data

    try:
        return pass_from_data(step).rewrite(graph).graph
    except PassRefused:
        return graph


@given(graphs(moves=12))
def test_random_graphs(graph: Graph) -> None:
    check_graph(graph)


@given(st.data())
def test_random_growths(data: st.DataObject) -> None:
    graph = before = data.draw(graphs(moves=6))
    for kind in data.draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=6)):
        if next(iter(kind.candidates(graph)), None) is not None:
            graph = data.draw(candidates(kind, graph)).rewrite(graph).graph
    check_graph(graph, LIMITS[:3])
    page = difference_page(diff(before, graph), 9)
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        check(svg)


NAMES = ["a.fc", "a.act", "a.b.fc", "a.b.act", "c.fc", "a.d", "c.e.fc", "c.e.act"]


@pytest.mark.parametrize("seed", range(12))
def test_grown_inside_of_modules(seed: int) -> None:
    check_graph(grown(NAMES, seed, 12))


@pytest.mark.parametrize("name", [n if n in CHEAP else pytest.param(n, marks=pytest.mark.slow) for n in ZOO])
def test_zoo(name: str) -> None:
    check_graph(imported(name)[1].graph)


def runs(group: Group) -> list[tuple[str, list[str]]]:
    return [(part.label, [node.name for node in part.nodes()]) for part in group.parts]


def small(nodes: dict[str, str]) -> Graph:
    """Sums of the nodes that are named, the input being x."""
    entries = [
        {"name": name, "op": "add" if " " in reads else "relu", "inputs": reads.split()}
        for name, reads in nodes.items()
    ]
    inputs = [{"name": "x", "shape": ["N", 4]}]
    return load_graph({"schema": "growir/1", "inputs": inputs, "nodes": entries, "outputs": [entries[-1]["name"]]})


def test_a_module_is_cut_where_others_stand_between() -> None:
    graph = small({"m.a": "x", "m.b": "m.a", "out": "x", "sum_": "m.b out", "m.c": "sum_", "m.d": "m.c"})
    assert runs(module_tree(graph)) == [
        ("out", ["out"]),
        ("m (1 of 2)", ["m.a", "m.b"]),
        ("sum_", ["sum_"]),
        ("m (2 of 2)", ["m.c", "m.d"]),
    ]


def test_a_module_stays_whole_where_it_can() -> None:
    # In the document `out` stands between, but what it reads does not come from the module.
    graph = small({"m.a": "x", "out": "x", "n.a": "x", "m.b": "m.a out", "n.b": "n.a m.b"})
    assert runs(module_tree(graph)) == [("out", ["out"]), ("m", ["m.a", "m.b"]), ("n", ["n.a", "n.b"])]
    # `late` waits for a module that has to be cut, and is not cut itself although it could begin.
    graph = small({"late.a": "x", "m.a": "x", "s": "m.a x", "m.b": "s", "late.b": "late.a m.b"})
    assert runs(module_tree(graph))[-1] == ("late", ["late.a", "late.b"])


def test_a_layer_is_the_longest_path() -> None:
    edges = [(0, 1), (1, 2), (0, 3), (2, 4), (3, 4), (4, 5), (6, 7), (5, 7), (0, 7)]
    assert layers_of(8, edges, {0}) == [0, 1, 2, 1, 3, 4, 4, 5]
    # All that depends only on 1, which reads nothing, stands right above its reader.
    assert layers_of(6, [(0, 3), (1, 2), (2, 5), (3, 4), (4, 5)], {0}) == [0, 1, 2, 1, 2, 3]


def test_crossings_are_undone() -> None:
    rows = [["a", "b", "c"], ["p", "q", "r"], ["u", "v", "w"]]
    down = {"a": {"r"}, "b": {"q"}, "c": {"p"}, "p": {"u", "w"}, "q": {"v"}, "r": {"u"}}
    up: dict[str, set[str]] = {}
    for start, ends in down.items():
        for end in ends:
            up.setdefault(end, set()).add(start)
    assert crossings(rows, down) == 6
    better = ordered(rows, up, down)
    assert [sorted(row) for row in better] == rows
    assert crossings(better, down) == 0
