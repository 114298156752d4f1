"""A random graph of which something holds, drawn again and again within one example, and a pass's candidate on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import assume
from hypothesis import strategies as st

from growir.graph import Graph
from growir.rewrite import Pass
from growir.testing.graphs import candidates, graphs
from growir.testing.laws import rebuildable

P = TypeVar("P", bound=Pass)
Draw = Callable[[st.SearchStrategy[Any]], Any]
TRIES = 20
GRAPHS = graphs()


def first_of(draw: Draw, strategy: st.SearchStrategy[Graph], holds: Callable[[Graph], bool]) -> Graph | None:
    """The first of at most TRIES graphs of which something holds; None if it holds of none of them.

    Hypothesis counts the examples that a `filter` rejects, after three tries each, and fails a test that rejects most
    of them: one graph in four has an edge that may be removed, so that 14 of 318 runs of that law failed by chance.
    """
    return next(filter(holds, (draw(strategy) for _ in range(TRIES))), None)


def until(draw: Draw, strategy: st.SearchStrategy[Graph], holds: Callable[[Graph], bool]) -> Graph:
    """The same as `first_of`; where there is none, hypothesis tries another example."""
    found = first_of(draw, strategy, holds)
    assume(found is not None)
    assert found is not None
    return found


def takes(kind: type[Pass], graph: Graph) -> bool:
    """Whether a pass has a candidate on a graph."""
    with rebuildable(graph):
        return next(kind.candidates(graph), None) is not None


@st.composite
def candidates_on(draw: Draw, kind: type[P], graphs: st.SearchStrategy[Graph] = GRAPHS) -> tuple[P, Graph]:
    """One of a pass's candidates, and the graph that it is for, out of at most 20 graphs an example.

    Args:
        draw: Hypothesis's.
        kind: The pass.
        graphs: What graphs are drawn from.
    """
    graph = until(draw, graphs, lambda graph: takes(kind, graph))
    return draw(candidates(kind, graph)), graph
