"""How many nodes become few boxes: by module, by stage, by what repeats; and what the boxes say of them."""

from __future__ import annotations

import re
from functools import cache

import pytest

import growir
from growir.graph import Graph
from growir.render import MAX_ROWS, Box, collapse, draw
from growir.render.repeats import gather_repeats
from growir.render.stages import gather_stages
from growir.render.svg import NAME_WIDTH, PADDING, TEXT_WIDTH
from growir.render.tree import module_tree
from tests.render.test_arrows import check, small
from tests.render.test_render import chain, document, of_class
from tests.zoo.registry import Entry
from tests.zoo.residual import BasicBlock, ResNet


@cache
def resnet_18() -> Graph:
    entry = Entry(lambda: ResNet(BasicBlock, (8, 12, 16, 20)), (3, 32, 32))
    return growir.from_torch(entry.make(), entry.inputs(1)).graph


def told(graph: Graph, limit: int | None = None) -> dict[str, str]:
    return {box.label: box.what for box in collapse(graph, limit).boxes}


def box(graph: Graph, label: str, limit: int | None = None) -> Box:
    return next(box for box in collapse(graph, limit).boxes if box.label == label)


def parts(graph: Graph) -> list[str]:
    """The labels of the tree's outermost groups."""
    root = module_tree(graph)
    gather_stages(root, graph)
    gather_repeats(root, graph)
    return [part.label for part in root.parts]


def test_a_resnet_18_fits_a_page() -> None:
    graph = resnet_18()
    blocks = {f"layer{k}.{j}": "2 conv2d, 2 batch_norm, 2 relu, add" for k in range(1, 5) for j in range(2)}
    blocks |= {f"layer{k}.0": "3 conv2d, 3 batch_norm, 2 relu, add" for k in range(2, 5)}
    stem = {"x": "input", "conv1": "conv2d", "bn1": "batch_norm", "relu": "relu", "maxpool": "max_pool2d"}
    head = {"avgpool": "adaptive_avg_pool2d", "flatten": "flatten", "fc": "linear"}
    assert told(graph) == stem | blocks | head
    assert len(graph.nodes) == 69
    second = box(graph, "layer2.0")
    assert (second.shape, second.family) == ("(N, 8, 8, 8) → (N, 12, 4, 4)", "module")
    assert second.parameters == 8 * 12 * 9 + 12 * 12 * 9 + 8 * 12 + 3 * 2 * 12
    assert box(graph, "layer2.1").shape == "(N, 12, 4, 4)"


def test_more_boxes_show_more_of_it() -> None:
    graph = resnet_18()
    counts = [len(collapse(graph, limit).boxes) for limit in (5, 16, 30, 60, 70)]
    assert counts == sorted(counts)
    assert counts[-1] == 70 == len(graph.nodes) + 1
    labels = list(told(graph, 30))
    at = labels.index("maxpool") + 1
    assert labels[at : at + 3] == ["layer1.0.conv1 to relu", "layer1.0.conv2 to bn2", "layer1.0.add to relu_1"]
    assert box(graph, "layer1.0.conv1 to relu", 30).family == "conv"


def test_a_long_chain_is_its_first_layer_and_the_rest() -> None:
    names = [f"{kind}{k}" for k in range(1, 101) for kind in ("fc", "act")]
    assert told(chain(names)) == {
        "x": "input",
        "fc1": "linear",
        "act1": "relu",
        "fc2 to act100": "99 x: linear, relu",
    }
    assert box(chain(names), "fc2 to act100").parameters == 99 * 20
    # All of it is shown where it fits.
    assert len(told(chain(names[:14]))) == 15
    assert len(told(chain(names), 201)) == 201


def test_a_chain_of_many_widths_is_cut_into_runs() -> None:
    nodes: list[dict[str, object]] = []
    for k in range(1, 61):
        nodes.append({"name": f"fc{k}", "op": "linear", "inputs": [f"act{k - 1}" if k > 1 else "x"], "out_features": k})
        nodes.append({"name": f"act{k}", "op": "relu", "inputs": [f"fc{k}"]})
    found = collapse(document(nodes, ["act60"])).boxes
    assert len(found) == MAX_ROWS
    assert (found[1].label, found[1].what, found[1].shape) == ("fc1 to act4", "4 linear, 4 relu", "(N, 4)")
    assert (found[2].label, found[2].shape) == ("fc5 to act8", "(N, 4) → (N, 8)")


def test_what_repeats_may_be_several_parts() -> None:
    nodes: list[dict[str, object]] = []
    last = "x"
    for k in range(20):
        nodes.append({"name": f"fc{k}", "op": "linear", "inputs": [last], "out_features": 4})
        nodes.append({"name": f"act{k}", "op": "relu", "inputs": [f"fc{k}"]})
        nodes.append({"name": f"sum{k}", "op": "add", "inputs": [f"act{k}", last]})
        last = f"sum{k}"
    graph = document(nodes, [last])
    assert told(graph) == {"x": "input", "fc0": "linear", "act0": "relu", "sum0": "add"} | {
        "fc1 to sum19": "19 x: linear, relu, add"
    }
    check(draw(graph))


def test_what_reads_from_elsewhere_is_not_alike() -> None:
    # Each reads from the one before it and from the first; that the first is read is the same for all, x is not.
    alike = {"a": "x", "b1": "a a", "b2": "b1 a", "b3": "b2 a", "b4": "b3 a", "b5": "b4 a"}
    assert parts(small(alike)) == ["a", "b1 to b5"]
    other = {"a": "x", "b1": "a x", "b2": "b1 x", "b3": "b2 a", "b4": "b3 x", "b5": "b4 x"}
    assert parts(small(other)) == ["a", "b1", "b2", "b3", "b4", "b5"]


def test_few_equal_branches_are_shown_side_by_side() -> None:
    nodes: list[dict[str, object]] = [
        {"name": name, "op": "linear", "inputs": ["x"], "out_features": 4} for name in ("query", "key", "value")
    ]
    nodes.append({"name": "out", "op": "add", "inputs": ["query", "key", "value"]})
    names = [f"n{k}" for k in range(30)]
    nodes += [{"name": name, "op": "relu", "inputs": [(["out", *names])[k]]} for k, name in enumerate(names)]
    graph = document(nodes, ["n29"])
    assert list(told(graph))[:4] == ["x", "query", "key", "value"]


def test_a_stage_is_a_node_with_what_carries_on_its_value() -> None:
    assert parts(small({"s": "x x", "a": "s", "t": "a x", "b": "t"})) == ["s to a", "t to b"]
    # A value that another reads as well is seen to leave its node.
    assert parts(small({"s": "x x", "a": "s", "t": "a s"})) == ["s", "a", "t"]
    assert parts(small({"m.s": "x x", "m.a": "m.s", "t": "m.a x"})) == ["m", "t"]
    graph = document(
        [{"name": "s", "op": "add", "inputs": ["x", "x"]}, {"name": "a", "op": "relu", "inputs": ["s"]}], ["s", "a"]
    )
    assert parts(graph) == ["s", "a"]


def test_a_node_in_focus_is_shown_out_of_its_run() -> None:
    graph = chain([f"b{k}.n{j}" for k in range(9) for j in range(4)])
    assert "b5.n2" not in told(graph, 20)
    labels = [found.label for found in collapse(graph, 20, focus=["b5.n2"]).boxes]
    assert "b5.n2" in labels


def test_many_kinds_are_cut() -> None:
    kinds = "relu sigmoid tanh gelu silu softplus elu selu mish hardswish softsign".split()
    nodes = [{"name": f"m.n{k}", "op": kind, "inputs": [f"m.n{k - 1}" if k else "x"]} for k, kind in enumerate(kinds)]
    assert box(document(nodes, ["m.n10"]), "m", 2).what == (
        "relu, sigmoid, tanh, gelu, silu, softplus, elu, selu, mish, 2 more"
    )


@pytest.mark.parametrize("limit", [2, 9, None])
def test_text_stands_inside_of_its_box(limit: int | None) -> None:
    svg = draw(resnet_18(), limit=limit)
    (ground,) = of_class(svg, "path", "ground")
    width, height = re.findall(r' (?:width|height)="(\d+)"', svg)[:2]
    assert ground.attrib["d"] == f"M0 0H{width}V{height}H0z"
    for group in of_class(svg, "g", "box"):
        rect = next(element for element in group if element.tag.endswith("rect"))
        lines = [element for element in group if element.tag.endswith("text")]
        low, high = (float(rect.attrib["y"]) + end * float(rect.attrib["height"]) for end in (0, 1))
        for line in lines:
            assert line.text is not None
            size = NAME_WIDTH if line.attrib.get("class") == "name" else TEXT_WIDTH
            assert len(line.text) * size + 2 * PADDING <= float(rect.attrib["width"]) + 1
            assert low + 10 < float(line.attrib["y"]) < high - 3
