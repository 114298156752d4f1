"""GradMax: the law, the function that is kept, slopes as they are, and larger ones after learning."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from growir.growth.budget import Budget
from growir.growth.measure.choice import Choice
from growir.growth.measure.gated import Gated
from growir.growth.measure.learning import batch_statistics, training_batches
from growir.growth.measure.outgoing import strengthened, strengths
from growir.growth.policies.gradmax import GradMax, GradMaxSettings
from growir.growth.session import Session
from growir.passes import Sequence, Widen
from growir.testing import policy_law
from tests.growth.test_firefly import SITED
from tests.growth.test_judging import session_of, some_batches
from tests.growth.test_policy_law import GRAPHS

FEW: dict[str, Any] = {"learn_steps": 2, "judge_batches": 1, "fresh_units": 2}
test_learned = policy_law(GradMax, settings=FEW, graphs=GRAPHS, max_examples=4)
test_drawn_in_groups = policy_law(
    GradMax, settings={**FEW, "learn_steps": 0, "groups": 2, "order": "per_parameter"}, graphs=SITED, max_examples=4
)


def tried(session: Session) -> Gated:
    choice = Choice(session.graph)
    return choice.gated(session.module, choice.sites, split=False, fresh=3, key=(5,))


@pytest.mark.parametrize("name", ["dense", "residual", "depthwise"])
def test_the_strength_is_the_slope_of_the_grown_network(name: str) -> None:
    session = session_of(name)
    gated = tried(session)
    (batch,) = some_batches(session, 1)
    session.module.eval()
    found = strengths(session, gated, batch)
    step = gated.chosen([1], gated.gates())
    session.grow(step)
    session.module.eval()
    loss = session.objective.total((session.module(*batch.inputs),), batch.target) / len(batch)
    loss.backward()  # type: ignore[no-untyped-call]  # torch's own
    reads = Choice(session.graph).sites[0].reads
    assert reads
    squares = 0.0
    for slot in reads:
        gradient = session.learned[slot.parameter].grad
        assert gradient is not None
        squares += float(gradient.index_select(slot.axis, torch.tensor(slot.positions[-1])).square().sum())
    assert float(found[1]) == pytest.approx(squares, rel=1e-3)


def test_what_learns_asks_more_strongly() -> None:
    session = session_of("residual")
    gated = tried(session)
    (batch,) = some_batches(session, 1)
    with batch_statistics(session.module, session.graph):
        before = strengths(session, gated, batch)
        strengthened(session, gated, [batch] * 10, rate=0.2)
        after = strengths(session, gated, batch)
    assert (after > before).all()
    assert float(after.mean()) > 1.5 * float(before.mean())
    assert not any(direction.requires_grad for direction in gated.directions.values())


def test_units_come_with_outgoing_weights_of_zero_and_learn() -> None:
    session = session_of("residual")
    policy = GradMax(GradMaxSettings(**FEW))
    budget = Budget(session.config.budget, session.graph)
    scores = policy.score(session, policy.propose(session, budget), 1)
    assert all(score.ordinal for score in scores)
    step = policy.build(session, policy.select(session, scores, budget))
    assert isinstance(step, Sequence)
    assert all(isinstance(each, Widen) for each in step.passes)
    batch = next(training_batches(session, 9))
    session.module.eval()
    before = session.module(*batch.inputs)
    session.grow(step)
    session.module.eval()
    torch.testing.assert_close(session.module(*batch.inputs), before, rtol=1e-4, atol=1e-5)
