"""What the authors of passes, policies and operators test with: random graphs, and the laws that are obeyed on them.

A pass or a policy of one's own is under test in three lines:

    from mine import MyPass
    from growir.testing import pass_law
    test_my_pass_keeps_its_promise = pass_law(MyPass)

    from mine import MyPolicy
    from growir.testing import policy_law
    test_my_policy_obeys = policy_law(MyPolicy)
"""

from importlib.util import find_spec

if find_spec("hypothesis") is None:  # said once and before all else, whichever module of the kit is asked for
    raise ModuleNotFoundError(
        "growir.testing draws its graphs with hypothesis, which is not installed: pip install 'growir[test]'",
        name="hypothesis",
    )

from growir.testing.drawing import candidates_on
from growir.testing.graphs import candidates, graphs
from growir.testing.laws import (
    TOLERANCE,
    Deviation,
    Probe,
    as_before,
    assert_preserves,
    carried_pairs,
    close,
    deviations,
    outputs,
    random_batch,
    random_network,
    worst,
)
from growir.testing.masking import masked
from growir.testing.noise import noisy_candidates, noisy_graphs
from growir.testing.operators import assert_example, example_graph, op_law
from growir.testing.policies import policy_law
from growir.testing.promises import pass_law

__all__ = [
    "TOLERANCE",
    "Deviation",
    "Probe",
    "as_before",
    "assert_example",
    "assert_preserves",
    "candidates",
    "candidates_on",
    "carried_pairs",
    "close",
    "deviations",
    "example_graph",
    "graphs",
    "masked",
    "noisy_candidates",
    "noisy_graphs",
    "op_law",
    "outputs",
    "pass_law",
    "policy_law",
    "random_batch",
    "random_network",
    "worst",
]
