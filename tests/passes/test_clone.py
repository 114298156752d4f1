"""Clone: every free width by one factor, and what it says where that does not fit."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from growir.channels import analyse
from growir.errors import PassRefused
from growir.graph import Graph, Node
from growir.ops import Add, Gelu, LayerNorm, Linear
from growir.passes import Widen, clone
from growir.testing import assert_preserves, graphs, random_network
from tests.samples import graph_of, mlp


def stream(width: int = 6) -> Graph:
    return graph_of(
        (5,),
        Node(name="stem", op=Linear(out_features=width), inputs=("x",)),
        Node(name="norm0", op=LayerNorm(), inputs=("stem",)),
        Node(name="up", op=Linear(out_features=4), inputs=("norm0",)),
        Node(name="act", op=Gelu(), inputs=("up",)),
        Node(name="down", op=Linear(out_features=width), inputs=("act",)),
        Node(name="sum", op=Add(), inputs=("stem", "down")),
        Node(name="norm", op=LayerNorm(), inputs=("sum",)),
        Node(name="head", op=Linear(out_features=2), inputs=("norm",)),
    )


def widths(graph: Graph) -> dict[str, int]:
    return {space.name: space.width for space in analyse(graph).spaces if not space.pins}


@pytest.mark.parametrize("factor", [2, 3])
def test_every_free_width_is_so_many_times_as_large_and_copies_are_apart(factor: int) -> None:
    graph = stream()
    step = clone(graph, factor)
    assert all(isinstance(each, Widen) and each.apart == 1.0 for each in step.passes)
    grown = assert_preserves(step, graph)
    assert widths(grown.graph) == {name: factor * width for name, width in widths(graph).items()}
    read = grown.arrays["up.weight"]
    assert abs(read[:, :6] - read[:, 6:12]).min() > 0


def test_some_widths_may_grow_by_parts_of_themselves() -> None:
    graph = stream()
    grown = assert_preserves(clone(graph, 1.5, nodes=["up"]), graph)
    assert widths(grown.graph) == {"stem": 6, "up": 6}


@given(st.data())
def test_the_function_of_any_graph_is_kept(data: st.DataObject) -> None:
    graph = data.draw(graphs(smooth=True))
    assume(widths(graph))
    fits = None
    with suppress(PassRefused):  # where a width grows by larger steps than itself
        fits = clone(graph, data.draw(st.integers(2, 3)))
    assume(fits is not None)
    assert fits is not None
    assert_preserves(fits, graph)


def test_what_does_not_fit_is_said() -> None:
    graph = stream()
    with pytest.raises(
        PassRefused,
        match=r"the width 6 of stem times 1\.5 is 9, but it grows by multiples of 6 \(it is normalised as a whole, and "
        r"every channel has as many copies\); 12 would do, which is factor=2",
    ):
        clone(graph, 1.5)
    with pytest.raises(PassRefused, match=r"the width 4 of up times 1\.1 is 4\.4.* 5 would do, which is factor=1\.25"):
        clone(graph, 1.1, nodes=["up"])
    for factor in (1, 0.5, -2, float("nan"), float("inf"), True):
        with pytest.raises(PassRefused, match="is no number above 1, such as 2"):
            clone(graph, factor)
    with pytest.raises(PassRefused, match="there is no node 'upp'"):
        clone(graph, nodes=["upp"])
    with pytest.raises(PassRefused, match="the width 2 of head is pinned by head"):
        clone(graph, nodes=["head"])
    only = graph_of((5,), Node(name="head", op=Linear(out_features=2), inputs=("x",)))
    with pytest.raises(PassRefused, match="every width of this graph is pinned"):
        clone(only)


def test_fresh_weights_may_be_as_large_as_those_beside_them() -> None:
    """torch's own initialiser would draw them at 1 / sqrt(5) / sqrt(3), whatever the model was given."""
    graph = mlp()
    net = random_network(graph)
    small = net.with_arrays({key: 0.001 * array for key, array in net.arrays.items()})
    grown = small.apply(Widen(node="fc1", by=400, init="like"))
    old, new = grown.arrays["fc1.weight"][:4], grown.arrays["fc1.weight"][4:]
    assert new.std() == pytest.approx(old.std(), rel=0.1)
