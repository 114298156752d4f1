"""Several passes as one step of a history: which versions it records, and which names it gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from growir import channels
from growir.document import dumps, to_data
from growir.edits import Remap
from growir.errors import PassRefused
from growir.graph import Graph, Node
from growir.network import load_graph
from growir.ops import Add, Linear, Relu, Tanh
from growir.passes import AddEdge, AddNode, RemoveEdge, Sequence, Widen, pass_from_data
from growir.testing import assert_preserves, random_network
from tests.samples import graph_of
from tests.test_channels import heads


def state() -> Graph:
    """A hidden state that `a` leads to from x and `edge_1` from h, and two more values, u and v."""
    return graph_of(
        (3,),
        *(Node(name=name, op=Tanh(), inputs=("x",)) for name in "huv"),
        Node(name="a", op=Linear(out_features=4), inputs=("x",)),
        Node(name="edge_1", op=Linear(out_features=4), inputs=("h",)),
        Node(name="sum", op=Add(), inputs=("a", "edge_1")),
        Node(name="act", op=Relu(), inputs=("sum",)),
        Node(name="head", op=Linear(out_features=2), inputs=("act",)),
    )


def recorded(graph: Graph) -> dict[str, Any]:
    assert graph.history is not None
    found: dict[str, Any] = to_data(graph)["history"]["steps"][-1]
    return found


def test_every_pass_in_it_records_its_version() -> None:
    done = Sequence(passes=(Widen(node="a", by=1), AddEdge(source="u", target="act"))).rewrite(state()).graph
    versions = [(step["pass"], step["version"]) for step in recorded(done)["passes"]]
    assert versions == [("widen", Widen.version), ("add_edge", AddEdge.version)]
    assert AddEdge.version > 1


def test_a_pass_of_an_older_version_is_upgraded_in_replay_and_in_json() -> None:
    graph = state()
    add = {"pass": "add_edge", "source": "u", "target": "act"}
    old = pass_from_data({"pass": "sequence", "passes": [{**add, "version": 1}]})
    assert old == Sequence(passes=(AddEdge(source="u", target="act", layer="linear"),))
    assert old != Sequence(passes=(AddEdge(source="u", target="act"),))
    data = to_data(old.rewrite(graph).graph)
    (inner,) = data["history"]["steps"][0]["passes"]
    del inner["layer"]
    inner["version"] = 1
    assert load_graph(data).hash == old.rewrite(graph).graph.hash


@pytest.mark.parametrize("inner", [{"version": 99}, {"version": "1"}, {"version": True}, {"pass": "unheard_of"}])
def test_a_pass_of_an_unknown_version_leaves_the_history_unchecked(inner: dict[str, Any]) -> None:
    data = to_data(Sequence(passes=(Widen(node="a", by=1),)).rewrite(state()).graph)
    data["history"]["steps"][0]["passes"][0] |= inner
    with pytest.warns(UserWarning, match="the history is not checked.*sequence"):
        load_graph(data)


@pytest.mark.parametrize("version", [99, "1", True, None, 1.0])
def test_a_pass_of_an_unknown_version_is_refused_as_an_argument(version: Any) -> None:
    data = {"pass": "widen", "node": "a", "by": 1, "version": version}
    with pytest.raises(PassRefused, match=f"^widen: version {version} of this pass cannot be run here$"):
        pass_from_data(data)
    with pytest.raises(PassRefused, match=f"version {version} of this pass cannot be run here"):
        Sequence(passes=(data,))  # type: ignore[arg-type]


def test_a_name_of_the_graph_that_is_removed_in_it_never_comes_back() -> None:
    steps = (RemoveEdge(source="edge_1", target="act"), AddEdge(source="u", target="act"))
    done = Sequence(passes=steps).rewrite(state())
    assert done.created == ("edge_2",)
    one = steps[1].rewrite(steps[0].rewrite(state()).graph)
    assert one.graph.hash == done.graph.hash
    assert load_graph(to_data(done.graph)) == done.graph


def test_a_name_made_and_removed_in_it_never_comes_back() -> None:
    add, remove = AddEdge(source="u", target="act"), RemoveEdge(source="edge_2", target="act")
    first = Sequence(passes=(add, remove, AddEdge(source="v", target="act"))).rewrite(state())
    assert first.created == ("edge_2", "edge_3")
    assert "edge_2" not in first.graph
    # And in the next step neither of them.
    assert AddNode(source="x", target="act", width=2).rewrite(first.graph).created[-1] == "edge_4"
    assert load_graph(to_data(first.graph)) == first.graph


def test_one_in_another_knows_the_names_of_both() -> None:
    add, remove = AddEdge(source="u", target="act"), RemoveEdge(source="edge_2", target="act")
    whole = Sequence(
        passes=(
            add,
            Sequence(passes=(remove, AddEdge(source="v", target="act"))),
            AddNode(source="x", target="head", width=2),
        )
    )
    done = whole.rewrite(state())
    assert len(set(done.created)) == len(done.created)
    assert "edge_2" in done.created
    assert "edge_2" not in done.graph
    assert dumps(load_graph(to_data(done.graph))) == dumps(done.graph)


def chain(layers: int) -> Graph:
    """Linear layers of width 4, each behind a relu."""
    nodes: list[Node] = []
    for k in range(layers):
        source = nodes[-1].name if nodes else "x"
        nodes.append(Node(name=f"fc{k}", op=Linear(out_features=4), inputs=(source,)))
        nodes.append(Node(name=f"act{k}", op=Relu(), inputs=(f"fc{k}",)))
    return graph_of((3,), *nodes, Node(name="head", op=Linear(out_features=2), inputs=(nodes[-1].name,)))


def test_thirty_widenings_with_numbers_are_one_analysis_and_one_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = chain(30)
    widen = tuple(Widen(node=f"fc{k}", by=1 + k % 2) for k in range(30))
    done = Sequence(passes=widen).rewrite(graph)
    blocks = Sequence(passes=widen).blocks(done.graph, done.edits)
    values = {address: np.full(shape, 0.5) for address, shape in blocks.items()}
    step = Sequence(passes=widen, values=values)

    analysed: list[Graph] = []
    derived = channels._derived  # pyright: ignore[reportPrivateUsage]

    def counted(graph: Graph, *opening: Any) -> channels.Analysis:
        analysed.append(graph)
        return derived(graph, *opening)

    monkeypatch.setattr(channels, "_derived", counted)
    again = graph.replace(name="again")  # which remembers nothing of the graph's own analysis
    done = step.rewrite(again)
    assert analysed == [again]
    keys = [edit.key for edit in done.edits if isinstance(edit, Remap)]
    assert len(set(keys)) == len(keys) == len(done.edits) == 2 * 30 + 1
    arrays = random_network(again).apply(step).arrays
    assert sum(int((array == 0.5).sum()) for array in arrays.values()) == sum(block.size for block in values.values())


def test_what_is_new_in_new_units_around_it_has_no_block_and_starts_by_itself() -> None:
    """Two groups of three heads of size 4: a group more, and a head more in each. The new group's new head is drawn."""
    graph = heads(6, kv=2)
    passes = (Widen(node="k", by=4), Widen(node="q", by=8))
    for order in (passes, passes[::-1]):
        done = Sequence(passes=order).rewrite(graph)
        blocks = Sequence(passes=order).blocks(done.graph, done.edits)
        group, each = ("0", "1") if order is passes else ("1", "0")
        assert blocks[f"{group}/q.weight"] == (12, 5)
        assert blocks[f"{each}/q.weight"] == (8, 5)
        assert not [address for address in blocks if "+" in address]
        values = {address: np.full(shape, 0.5) for address, shape in blocks.items() if "q.weight" in address}
        step = Sequence(passes=order, values=values)
        before = random_network(graph)
        found, old = before.apply(step).arrays["q.weight"].reshape(3, 4, 4, 5), before.arrays["q.weight"]
        assert np.array_equal(found[:2, :3], old.reshape(2, 3, 4, 5))
        assert (found[2, :3] == 0.5).all()
        assert (found[:2, 3] == 0.5).all()
        assert (found[2, 3] != 0.5).all()
        assert (found[2, 3] != 0.0).all()
        assert_preserves(step, graph)
