"""Laws as ready-made tests: one line puts a pass under test."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from growir.rewrite import Pass
from growir.testing.graphs import candidates, graphs
from growir.testing.laws import assert_preserves
from growir.testing.noise import noisy_candidates


def pass_law(kind: type[Pass], *, max_examples: int | None = None) -> Callable[[], None]:
    """A test, for pytest to collect, that a pass keeps what it promises on random graphs.

    It draws graphs, some with dropouts and attention that drops in place of activations, and the pass's own candidates
    on them, with other seeds and given values, and asserts on each what `assert_preserves` says.

    Args:
        kind: The pass.
        max_examples: How many graphs are drawn; up to hypothesis's profile if None.
    """

    # No deadline: the first lowering of a process takes long, and so does everything on a busy machine.
    @settings(deadline=None, max_examples=settings().max_examples if max_examples is None else max_examples)
    @given(st.data())
    def law(data: st.DataObject) -> None:
        if data.draw(st.booleans()):
            assert_preserves(*data.draw(noisy_candidates(kind)))
        else:
            graph = data.draw(graphs())
            assert_preserves(data.draw(candidates(kind, graph)), graph)

    return law
