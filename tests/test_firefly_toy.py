"""Firefly's toy: what is written down is what autograd says, and growing does what the methods say."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
import torch

from experiments.firefly.toy import (
    ALL,
    POINTS,
    REPEATS,
    Nets,
    branches,
    drawn,
    figure,
    firefly,
    losses,
    outputs,
    problem,
    search,
    slopes,
    split,
    steepest,
    table,
)
from growir.data.shuffling import generator


def nets(units: int = 3) -> Nets:
    draws = generator(0, 9)
    return Nets(drawn(units, draws), torch.randn(REPEATS, units, generator=draws))


def test_slopes_are_those_of_autograd() -> None:
    found, task = nets(), problem(0)
    theta, w = (each.clone().requires_grad_() for each in found)
    right = torch.autograd.grad(losses(Nets(theta, w), task).sum(), [theta, w])
    for mine, wanted in zip(slopes(found, task), right, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-5)


def test_branches_compute_what_the_tensors_do() -> None:
    found, task = nets(), problem(0)
    network = branches(found)
    inputs = torch.stack([task.x, torch.ones(POINTS)], 1) * torch.tensor([6**0.5, 3 * 6**0.5])
    torch.testing.assert_close(torch.cat(network.to_torch()(inputs), 1).T, outputs(found, task.x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("grow", [firefly(2, steps=6), firefly(0, steps=6), search(2, 5), steepest])
def test_every_method_brings_one_unit_to_each_repeat(grow: object) -> None:
    assert callable(grow)
    found, task = nets(), problem(0)
    grown = grow(found, task, (0, 1))
    assert grown.theta.shape == (REPEATS, 4, 2)
    assert float(losses(grown, task).mean()) < 1.02 * float(losses(found, task).mean())
    unchanged = torch.isclose(grown.theta[:, :3], found.theta, rtol=1e-5, atol=1e-6).all(2).sum(1)
    assert bool((unchanged >= 2).all())  # all but the one that is split


def test_firefly_lowers_the_loss_right_away() -> None:
    found, task = nets(), problem(0)
    assert bool((losses(firefly(3)(found, task, (0, 1)), task) < losses(found, task)).all())


def test_the_steepest_split_is_better_than_others() -> None:
    found, task = nets(2), problem(0)
    best = losses(steepest(found, task, ()), task)
    draws = generator(0, 8)
    for _ in range(20):
        unit, by = torch.randint(0, 2, (REPEATS,), generator=draws), torch.randn(REPEATS, 2, generator=draws)
        other = losses(split(found, unit, 0.1 * by / by.norm(dim=1, keepdim=True)), task)
        assert bool((best < other + 1e-3 * other).all())


def test_results_are_a_table_and_a_figure() -> None:
    lines: list[dict[str, object]] = [
        {"method": name, "units": n, "mean": 1 / n**k, "error": 0.1, "seconds_growing": 1.0, "seconds_training": 2.0}
        for k, name in enumerate(ALL)
        for n in (2, 4, 7, 10)
    ]
    rows = list(table(lines))
    assert len(rows) == 2 + len(ALL)
    assert "| 4.0 | 8.0 |" in "\n".join(rows)
    picture = ET.fromstring(figure(lines))
    assert len([each for each in picture.iter() if "line" in each.get("class", "").split()]) == len(ALL)
