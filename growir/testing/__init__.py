"""What the authors of passes and operators test with: random graphs, a pass's candidates, and the laws they obey.

A pass of one's own is under test in three lines:

    @given(st.data())
    def test_keeps_its_promise(data):
        graph = data.draw(graphs())
        assert_preserves(data.draw(candidates(MyPass, graph)), graph)
"""

from growir.testing.graphs import candidates, graphs
from growir.testing.laws import (
    TOLERANCE,
    Probe,
    assert_preserves,
    carried_pairs,
    close,
    outputs,
    random_batch,
    random_network,
    worst,
)
from growir.testing.masking import masked

__all__ = [
    "TOLERANCE",
    "Probe",
    "assert_preserves",
    "candidates",
    "carried_pairs",
    "close",
    "graphs",
    "masked",
    "outputs",
    "random_batch",
    "random_network",
    "worst",
]
