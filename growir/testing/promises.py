"""Laws as ready-made tests: one line puts a pass under test."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from growir.graph import Graph
from growir.rewrite import Pass
from growir.testing.drawing import first_of, takes
from growir.testing.graphs import candidates
from growir.testing.graphs import graphs as random_graphs
from growir.testing.laws import assert_preserves
from growir.testing.noise import noisy_graphs


def pass_law(
    kind: type[Pass], *, graphs: st.SearchStrategy[Graph] | None = None, max_examples: int | None = None
) -> Callable[[], None]:
    """A test, for pytest to collect, that a pass keeps what it promises on random graphs.

    It draws graphs, some with dropouts and attention that drops in place of activations, and the pass's own candidates
    on them, with other seeds and given values, and asserts on each what `assert_preserves` says. Of graphs without
    candidates it draws up to 20 for each example. The test fails where no graph of all examples has any.

    Args:
        kind: The pass.
        graphs: What graphs are drawn from; if None, growir's own random ones, with noise and without.
        max_examples: How many graphs are drawn; up to hypothesis's profile if None.
    """

    def law() -> None:
        shown, tested = 0, 0

        def fits(graph: Graph) -> bool:
            nonlocal shown
            shown += 1
            return takes(kind, graph)

        # No deadline: the first lowering of a process takes long, and so does everything on a busy machine. What the
        # health checks guard against, that little is tested, is counted here, over all examples instead of the first.
        @settings(
            deadline=None,
            max_examples=settings().max_examples if max_examples is None else max_examples,
            suppress_health_check=(HealthCheck.filter_too_much, HealthCheck.data_too_large, HealthCheck.too_slow),
        )
        @given(st.data())
        def on_one(data: st.DataObject) -> None:
            nonlocal tested
            drawn = graphs
            if drawn is None:
                drawn = noisy_graphs() if data.draw(st.booleans()) else random_graphs()
            graph = first_of(data.draw, drawn, fits)
            if graph is not None:
                tested += 1
                assert_preserves(data.draw(candidates(kind, graph)), graph)

        on_one()
        assert tested, (
            f"{kind.name}: `candidates` found nothing on {shown} random graphs, so nothing of the pass is tested. "
            f"Give the law graphs that have some, as a hypothesis strategy: pass_law({kind.__name__}, graphs=...)."
        )

    return law
