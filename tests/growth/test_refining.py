"""The batched descent: what it gains, that candidates do not see each other, that a worse fit is not taken."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
import torch

from growir.growth.policies.dag import refining, scoring
from growir.growth.policies.dag.refining import Draft, refined
from tests.growth.problems import curve, scored, small_config, small_session


def draft(seed: int, kind: object = "tanh", neurons: int = 2, scale: float = 1.0) -> Draft:
    """Targets that two tanh neurons give, and others to start from."""
    draws = torch.Generator().manual_seed(seed)
    inputs = scale * torch.randn(300, 3, generator=draws)
    teacher = torch.randn(3, 2, generator=draws) / scale
    rest = torch.tanh(inputs @ teacher) @ torch.randn(2, 2, generator=draws)
    weight = torch.randn(3, neurons, generator=draws, dtype=torch.float64) / scale
    return Draft(inputs, rest, weight, torch.zeros(neurons, dtype=torch.float64), torch.tanh, kind)


def left(draft: Draft, weight: torch.Tensor, bias: torch.Tensor) -> float:
    """What the best outgoing weights leave, a share of all."""
    features = torch.tanh(draft.inputs @ weight.float() + bias.float()).double()
    rest = draft.rest.double()
    best = torch.linalg.lstsq(features, rest).solution
    return float((rest - features @ best).square().mean() / rest.square().mean())


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_the_descent_finds_what_random_directions_miss(scale: float) -> None:
    gains = []
    for seed in range(5):
        before = draft(seed, scale=scale)
        ((weight, bias),) = refined([before])
        gains.append(left(before, before.weight, before.bias) - left(before, weight, bias))
    assert min(gains) >= -1e-6
    assert sum(gains) > 0.2


def test_candidates_do_not_see_each_other() -> None:
    drafts = [draft(0), draft(1), draft(2, neurons=3), draft(3, kind="another")]
    together = refined(drafts)
    for one, (weight, bias) in zip(drafts, together, strict=True):
        ((alone, threshold),) = refined([one])
        assert torch.allclose(weight, alone, atol=1e-5)
        assert torch.allclose(bias, threshold, atol=1e-5)


def test_a_fit_that_gets_worse_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refining, "RATE", 1e6)
    before = draft(0)
    ((weight, bias),) = refined([before])
    assert torch.allclose(weight, before.weight, atol=1e-5)
    assert torch.allclose(bias, before.bias, atol=1e-5)


def test_targets_without_anything_left_stay_finite() -> None:
    nothing = dataclasses.replace(draft(0), rest=torch.zeros(300, 2))
    ((weight, bias),) = refined([nothing])
    assert torch.isfinite(weight).all()
    assert torch.isfinite(bias).all()


@pytest.mark.parametrize("activation", ["relu", "tanh", "prelu"])
def test_growth_descends_where_directions_are_fitted(activation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[float] = []

    def seen(drafts: Sequence[Draft]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        found = refined(drafts)
        moved.extend(float((w - d.weight).abs().max() / d.weight.abs().max()) for d, (w, _) in zip(drafts, found))
        return found

    monkeypatch.setattr(scoring, "refined", seen)
    session = small_session(curve(), small_config(policy={"directions": "fitted", "activation": activation}))
    scored(session, key=1)
    assert max(moved) > 1e-3
