"""`growir inspect`, and what it prints in Python: Graph.summary and growir.show."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from growir.errors import GraphError
from growir.graph import Graph, Input, Node
from growir.inspecting import inspection, summary
from growir.network import Network, load_graph
from growir.ops import Linear, Relu
from growir.show import MAX_ROWS, byte_text, module_groups
from tests.cli.command import GOLDEN, growir

DOCUMENTS = sorted((GOLDEN / "inspect").glob("*.json"))
RESIDUAL = GOLDEN / "inspect" / "residual.json"


def stripped(text: str) -> str:
    """Without the blanks a table ends its lines with, which editors take away."""
    return "".join(line.rstrip() + "\n" for line in text.splitlines())


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
@pytest.mark.parametrize(("name", "flags"), [("table", []), ("all", ["--all", "--spaces"])])
def test_text(path: Path, name: str, flags: list[str], golden: Callable[[Path, str], None]) -> None:
    done = growir("inspect", path, *flags)
    assert (done.code, done.err) == (0, "")
    golden(path.with_suffix(f".{name}.txt"), stripped(done.out))


def test_json() -> None:
    graph = load_graph(RESIDUAL)
    done = growir("inspect", "--json", "--spaces", RESIDUAL)
    found: dict[str, Any] = json.loads(done.out)
    assert found["hash"] == graph.hash
    assert [node["name"] for node in found["nodes"]] == [node.name for node in graph.nodes]
    assert found["outputs"] == [{"name": "head", "shape": ["N", 10]}]
    assert found["costs"]["parameters"] == graph.costs().parameters
    assert sum(node["macs"] for node in found["nodes"]) == found["costs"]["macs"]
    by_name = {node["name"]: node for node in found["nodes"]}
    assert by_name["again"]["tied"] == {"weight": "mix.weight"}
    assert by_name["again"]["parameters"] == 16  # its bias; the weight is counted at its owner
    assert {space["name"] for space in found["spaces"]} >= {"stem", "head"}
    assert json.loads(json.dumps(inspection(graph, spaces=True))) == found


def test_why_a_space_is_pinned() -> None:
    out = growir("inspect", GOLDEN / "inspect" / "spaces.json", "--spaces").out
    lines = [line.strip() for line in out.splitlines()]
    assert lines[lines.index("gate, width 3") + 1 :][:2] == ["soft: softmax over this axis", "soft: graph output"]
    found: dict[str, Any] = json.loads(growir("inspect", GOLDEN / "inspect" / "spaces.json", "--spaces", "--json").out)
    spaces = {space["name"]: space for space in found["spaces"]}
    assert spaces["gate"]["pins"][0] == {"node": "soft", "reason": "softmax over this axis"}
    assert (spaces["gate"]["free"], spaces["body.fc1"]["free"]) == (False, True)
    assert [name for name, space in spaces.items() if space["extend"]] == ["last"]
    assert (spaces["body.fc1"]["random"], spaces["stem"]["uniform"], spaces["stem"]["stride"]) == (True, True, 8)
    assert spaces["stem"]["made_by"] == ["stem", "body.fc2"]  # norm only carries them
    assert spaces["stem"]["read_by"] == ["body.fc1", "mix_in", "gate", "head"]


def test_history(tmp_path: Path, golden: Callable[[Path, str], None]) -> None:
    from growir.document import dumps
    from growir.passes import AddEdge, AddNode

    graph = load_graph(grown_base())
    graph = AddNode(source="x", target="out", width=2).rewrite(graph).graph
    graph = AddEdge(source="x", target="out").rewrite(graph).graph
    path = tmp_path / "grown.json"
    path.write_text(dumps(graph), encoding="utf-8")
    done = growir("inspect", path, "--all")
    golden(GOLDEN / "inspect" / "history.txt", done.out)
    steps = json.loads(growir("inspect", path, "--json").out)["history"]["steps"]
    assert [step["pass"] for step in steps] == ["add_node", "add_edge"]


def grown_base() -> dict[str, Any]:
    """The empty graph: nothing but a learned constant."""
    return {
        "schema": "growir/1",
        "inputs": [{"name": "x", "shape": ["N", 4]}],
        "nodes": [{"name": "out", "op": "bias", "inputs": ["x"], "features": 3}],
        "outputs": ["out"],
    }


def test_network_and_run_directories(tmp_path: Path) -> None:
    graph = load_graph(RESIDUAL)
    Network.init(graph).save(tmp_path / "run" / "network")
    for path in (tmp_path / "run", tmp_path / "run" / "network"):
        assert growir("inspect", path).out == growir("inspect", RESIDUAL).out


def test_names_are_never_markup(tmp_path: Path) -> None:
    document = json.loads(RESIDUAL.read_text(encoding="utf-8"))
    document["name"] = "[red]\u202e[31m[/nothing]"
    path = tmp_path / "net.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    assert growir("inspect", path).out.startswith("[red]\\u202e[31m[/nothing]  growir/1  ")


def chain(names: list[str]) -> Graph:
    """Linear layers one after the other."""
    nodes, last = [], "x"
    for name in names:
        nodes.append(Node(name=name, op=Linear(out_features=2), inputs=(last,)))
        last = name
    return Graph(inputs=(Input(name="x", shape=("N", 2)),), nodes=tuple(nodes), outputs=(last,))


@pytest.mark.parametrize(
    ("names", "first", "count"),
    [
        ([f"n{k}" for k in range(1000)], "n0 to n4", 200),
        ([f"block{k}.fc{j}" for k in range(100) for j in range(10)], "block0.*", 100),
        ([f"body.n{k}" for k in range(201)], "body.n0 to body.n1", 101),
        ([f"stage{s}.b{k}.n{j}" for s in range(4) for k in range(60) for j in range(3)], "stage0.b0 to stage0.b1", 120),
        (["stem", *(f"s{s}.b{b}.n{j}" for s in range(5) for b in range(30) for j in range(4)), "head"], "stem", 152),
        ([f"a{k}" for k in range(150)] + [f"m.n{k}" for k in range(1000)], "a0", 151),
    ],
)
def test_collapsing(names: list[str], first: str, count: int) -> None:
    groups = module_groups(chain(names).nodes)
    labels = [label for label, _ in groups]
    assert (labels[0], len(labels)) == (first, count)
    assert len(set(labels)) == count <= MAX_ROWS
    assert sorted(node.name for _, members in groups for node in members) == sorted(names)


def test_summary_of_many_nodes_stays_short() -> None:
    text = summary(chain([f"n{k}" for k in range(3000)]))
    assert len(text.splitlines()) < MAX_ROWS + 20
    assert "3,000 nodes, collapsed" in text


def test_summary_of_a_wrong_graph() -> None:
    wrong = chain(["a"]).replace(nodes=[Node(name="a", op=Relu(), inputs=("x",)), *chain(["b"]).nodes])
    wrong = wrong.replace(nodes=[*wrong.nodes, Node(name="c", op=Linear(), inputs=("b",))])
    with pytest.raises(GraphError, match="out_features"):
        wrong.summary()


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (6272, "6.27 kB"), (1.5e9, "1.5 GB"), (4e16, "40,000 TB")],
)
def test_byte_text(count: int, text: str) -> None:
    assert byte_text(int(count)) == text
