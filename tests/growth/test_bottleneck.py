"""The bottleneck's algebra: signs, projections, N = 0, scales, singular features."""

from __future__ import annotations

import pytest
import torch

from growir.growth.bottleneck import Grams, closed_form, combine, factor, fit, measure, moment, sources
from growir.growth.states import Edge, StateView

RIDGE = 1e-9


def made(n: int = 200, width: int = 2, seed: int = 0) -> tuple[StateView, dict[str, torch.Tensor], torch.Tensor]:
    draws = torch.Generator().manual_seed(seed)
    values = {"a": torch.randn(n, 3, generator=draws), "b": torch.randn(n, 2, generator=draws)}
    values["s"] = torch.zeros(n, width)
    desired = torch.randn(n, width, generator=draws) + values["a"][:, :width]
    state = StateView("s", None, (Edge("e1", "a"), Edge("e2", "b")), "e1.bias", width)
    return state, values, desired


def grams(values: dict[str, torch.Tensor]) -> Grams:
    return Grams(values, set(), {})


def test_the_projection_is_least_squares_and_the_rest_orthogonal() -> None:
    state, values, desired = made()
    found = measure(state, values, desired, grams(values), RIDGE)
    whole = torch.cat(sources(state, values), dim=1).double()
    expected = torch.linalg.lstsq(whole, desired.double()).solution
    assert torch.allclose(found.wish, expected, atol=1e-5)
    assert moment(whole.float(), found.rest).abs().max() < 1e-5
    assert found.psi == pytest.approx(float(found.rest.square().sum(dim=1).mean().sqrt()), rel=1e-5)


def test_new_features_and_existing_edges_are_solved_jointly() -> None:
    state, values, desired = made()
    features = torch.randn(200, 4, generator=torch.Generator().manual_seed(1)) + values["a"][:, :1]
    found = fit(measure(state, values, desired, grams(values), RIDGE), sources(state, values), features, RIDGE)
    whole = torch.cat([*sources(state, values), features], dim=1).double()
    expected = torch.linalg.lstsq(whole, desired.double()).solution
    assert torch.allclose(torch.cat([found.existing, found.new]), expected, atol=1e-4)


def test_a_feature_the_sources_already_give_gets_no_exploding_weight() -> None:
    state, values, desired = made()
    found = fit(measure(state, values, desired, grams(values), 1e-3), sources(state, values), values["a"], 1e-3)
    assert found.new.abs().max() < 1.0
    assert torch.isfinite(found.existing).all()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_scaled_inputs_solve_alike(scale: float) -> None:
    state, values, desired = made()
    plain = measure(state, values, desired, grams(values), 1e-3)
    scaled = {name: value * scale for name, value in values.items()}
    # Without the bias column, whose size is always 1, everything scales together.
    bare = StateView("s", None, state.edges, None, 2)
    a = measure(bare, values, desired, grams(values), 1e-3)
    b = measure(bare, scaled, desired, grams(scaled), 1e-3)
    assert torch.allclose(a.rest, b.rest, atol=1e-4)
    assert plain.psi <= a.psi * (1 + 1e-6)


def test_between_a_state_and_its_source_the_closed_form_finds_nothing() -> None:
    state, values, desired = made()
    found = measure(state, values, desired, grams(values), 1e-6)
    # v_perp is orthogonal to what already feeds the state: N = 0, and the gain of neurons there is purely non-linear.
    assert closed_form(moment(values["a"], values["a"]), found.rest, values["a"], 3, 1e-6).shape[1] == 0
    other = found.rest[:, :1] @ torch.ones(1, 3) + 0.1 * values["a"]
    assert closed_form(moment(other, other), found.rest, other, 3, 1e-6).shape[1] >= 1


def test_an_indefinite_gram_still_solves() -> None:
    gram = torch.tensor([[1.0, 1.0], [1.0, 1.0]], dtype=torch.float64) - 1e-3 * torch.eye(2, dtype=torch.float64)
    solved = factor(gram, 1e-9)(torch.ones(2, 1, dtype=torch.float64))
    assert torch.isfinite(solved).all()
    assert solved.abs().max() < 10


def test_a_state_without_edges_lacks_everything() -> None:
    desired = torch.ones(10, 2)
    state = StateView("s", None, (), None, 2)
    found = measure(state, {"s": torch.zeros(10, 2)}, desired, grams({}), 1e-3)
    assert found.psi == pytest.approx(2**0.5)
    assert torch.equal(found.rest, desired)


def test_combine_is_the_product_with_the_concatenation() -> None:
    parts = [torch.randn(5, 2), torch.randn(5, 3)]
    weight = torch.randn(5, 4, dtype=torch.float64)
    assert torch.allclose(combine(parts, weight), torch.cat(parts, dim=1) @ weight.float(), atol=1e-6)
