"""Laws as ready-made tests: one line puts a pass under test."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from growir.graph import Graph
from growir.ops import Dropout, Elementwise
from growir.rewrite import Pass
from growir.shapes import own_tables
from growir.testing.graphs import candidates, graphs
from growir.testing.laws import assert_preserves


def pass_law(kind: type[Pass], *, max_examples: int | None = None) -> Callable[[], None]:
    """A test, for pytest to collect, that a pass keeps what it promises on random graphs.

    It draws graphs, some with dropout in place of activations, and the pass's own candidates on them, with other seeds
    and given values, and asserts on each what `assert_preserves` says.

    Args:
        kind: The pass.
        max_examples: How many graphs are drawn; up to hypothesis's profile if None.
    """

    # No deadline: the first lowering of a process takes long, and so does everything on a busy machine.
    @settings(deadline=None, max_examples=settings().max_examples if max_examples is None else max_examples)
    @given(st.data())
    def law(data: st.DataObject) -> None:
        graph = data.draw(graphs())
        if data.draw(st.booleans()):
            graph = _noisy(data, graph)
        assert_preserves(data.draw(candidates(kind, graph)), graph)

    return law


def _noisy(data: st.DataObject, graph: Graph) -> Graph:
    """The graph with dropout for some of its activations: a pass that moves the draws cannot be exact there."""
    tables = own_tables(graph)
    plain = [n for n in graph.nodes if isinstance(n.op, Elementwise) and not n.op.integers and not tables[n.name]]
    noisy = {node.name for node in plain if data.draw(st.booleans())}
    drop = {"op": Dropout(p=0.3)}
    return graph.replace(nodes=[n.model_copy(update=drop) if n.name in noisy else n for n in graph.nodes])
