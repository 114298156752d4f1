"""The bottleneck's algebra: signs, projections, N = 0, scales, singular features."""

from __future__ import annotations

import pytest
import torch

from growir.growth.policies.dag.bottleneck import (
    RIDGES,
    Bottleneck,
    Grams,
    closed_form,
    combine,
    factor,
    fit,
    measure,
    moment,
)
from growir.growth.policies.dag.states import Edge, StateView
from growir.ops import Linear, Shape

RIDGE = 1e-9
Values = dict[str, torch.Tensor]


def edge(name: str, source: str, width: int) -> Edge:
    return Edge(name, Linear(out_features=2), source, source, (), Shape(("N", width)))


def made(n: int = 200, width: int = 2, seed: int = 0) -> tuple[StateView, Values, torch.Tensor]:
    draws = torch.Generator().manual_seed(seed)
    values = {"a": torch.randn(n, 3, generator=draws), "b": torch.randn(n, 2, generator=draws)}
    desired = torch.randn(n, width, generator=draws) + values["a"][:, :width]
    state = StateView("s", None, (edge("e1", "a", 3), edge("e2", "b", 2)), "e1.bias", Shape(("N", width)))
    return state, values, desired


def sources(state: StateView, values: Values) -> list[torch.Tensor]:
    parts = [values[edge.source] for edge in state.edges]
    return parts if state.bias is None else [*parts, torch.ones(len(parts[0]), 1)]


def measured(state: StateView, values: Values, desired: torch.Tensor, ridge: float | None) -> Bottleneck:
    keys = [(edge.source,) for edge in state.edges]
    grams = Grams(lambda key: values[str(key[0])], lambda key: False, {})
    return measure(state, keys, sources(state, values), desired, grams, ridge, 1)


def test_the_projection_is_least_squares_and_the_rest_orthogonal() -> None:
    state, values, desired = made()
    found = measured(state, values, desired, RIDGE)
    whole = torch.cat(sources(state, values), dim=1).double()
    expected = torch.linalg.lstsq(whole, desired.double()).solution
    assert torch.allclose(found.wish, expected, atol=1e-5)
    assert moment(whole.float(), found.rest).whole.abs().max() < 1e-5
    assert found.psi == pytest.approx(float(found.rest.square().sum(dim=1).mean().sqrt()), rel=1e-5)


def test_new_features_and_existing_edges_are_solved_jointly() -> None:
    state, values, desired = made()
    features = torch.randn(200, 4, generator=torch.Generator().manual_seed(1)) + values["a"][:, :1]
    found = fit(measured(state, values, desired, RIDGE), features, RIDGE)
    whole = torch.cat([*sources(state, values), features], dim=1).double()
    expected = torch.linalg.lstsq(whole, desired.double()).solution
    assert torch.allclose(torch.cat([found.existing, found.new]), expected, atol=1e-4)


def test_a_feature_the_sources_already_give_gets_no_exploding_weight() -> None:
    state, values, desired = made()
    found = fit(measured(state, values, desired, 1e-3), values["a"], 1e-3)
    assert found.new.abs().max() < 1.0
    assert torch.isfinite(found.existing).all()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_scaled_inputs_solve_alike(scale: float) -> None:
    state, values, desired = made()
    plain = measured(state, values, desired, 1e-3)
    scaled = {name: value * scale for name, value in values.items()}
    # Without the bias column, whose size is always 1, everything scales together.
    bare = StateView("s", None, state.edges, None, state.shape)
    a = measured(bare, values, desired, 1e-3)
    b = measured(bare, scaled, desired, 1e-3)
    assert torch.allclose(a.rest, b.rest, atol=1e-4)
    assert plain.psi <= a.psi * (1 + 1e-6)


def test_between_a_state_and_its_source_the_closed_form_finds_nothing() -> None:
    state, values, desired = made()
    found = measured(state, values, desired, 1e-6)
    # v_perp is orthogonal to what already feeds the state: N = 0, and the gain of neurons there is purely non-linear.
    assert closed_form(moment(values["a"], values["a"]).whole, found.rest, values["a"], 3, 1e-6).shape[1] == 0
    other = found.rest[:, :1] @ torch.ones(1, 3) + 0.1 * values["a"]
    assert closed_form(moment(other, other).whole, found.rest, other, 3, 1e-6).shape[1] >= 1


def test_an_indefinite_gram_still_solves() -> None:
    gram = torch.tensor([[1.0, 1.0], [1.0, 1.0]], dtype=torch.float64) - 1e-3 * torch.eye(2, dtype=torch.float64)
    solved = factor(gram, 1e-9)(torch.ones(2, 1, dtype=torch.float64))
    assert torch.isfinite(solved).all()
    assert solved.abs().max() < 10


def test_a_state_without_edges_lacks_everything() -> None:
    desired = torch.ones(10, 2)
    found = measured(StateView("s", None, (), None, Shape(("N", 2))), {}, desired, 1e-3)
    assert found.psi == pytest.approx(2**0.5)
    assert torch.equal(found.rest, desired)


def test_combine_is_the_product_with_the_concatenation() -> None:
    parts = [torch.randn(5, 2), torch.randn(5, 3)]
    weight = torch.randn(5, 4, dtype=torch.float64)
    assert torch.allclose(combine(parts, weight), torch.cat(parts, dim=1) @ weight.float(), atol=1e-6)


def test_moments_tell_the_held_out_rows_apart() -> None:
    a, b = torch.randn(10, 3), torch.randn(10, 2)
    found = moment(a, b)
    assert torch.allclose(found.whole, (a.T @ b).double() / 10, atol=1e-6)
    assert torch.allclose(found.held, (a[8:].T @ b[8:]).double() / 2, atol=1e-6)
    assert torch.allclose(found.fitting, (a[:8].T @ b[:8]).double() / 8, atol=1e-6)


def test_the_ridge_is_the_one_that_held_out_rows_choose() -> None:
    # Many features, few rows and noise alone: fitting any of it is wrong, so the largest ridge is right.
    draws = torch.Generator().manual_seed(0)
    values = {"a": torch.randn(60, 40, generator=draws)}
    state = StateView("s", None, (edge("e1", "a", 40),), None, Shape(("N", 1)))
    assert measured(state, values, torch.randn(60, 1, generator=draws), None).ridge == RIDGES[0]
    # An exact linear relation with directions of very different size: the smallest is.
    values["a"] = values["a"] * torch.logspace(0, -2.5, 40)
    exact = (values["a"] @ torch.logspace(0, 2.5, 40)).reshape(-1, 1)
    assert measured(state, values, exact, None).ridge == RIDGES[-1]


def test_a_bottleneck_is_summed_over_positions() -> None:
    state, values, desired = made()
    keys = [(edge.source,) for edge in state.edges]
    grams = Grams(lambda key: values[str(key[0])], lambda key: False, {})
    one, nine = (measure(state, keys, sources(state, values), desired, grams, RIDGE, k) for k in (1, 9))
    assert nine.psi == pytest.approx(3 * one.psi)
