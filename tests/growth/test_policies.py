"""Random growth and Net2Net, on nets of any kind: function kept as promised, budget kept, same seed same run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import growir
from growir.data import Data
from growir.errors import RunError
from growir.growth.budget import Budget, BudgetConfig
from growir.growth.config import parse_run
from growir.growth.measure.gradients import gradients
from growir.growth.measure.magnitudes import magnitudes
from growir.growth.measure.sites import free_spaces, wider
from growir.growth.policies.net2net import Net2Net, Net2NetSettings
from growir.growth.policies.random import RandomSettings, RandomWidth
from growir.growth.problem import Problem
from growir.growth.session import Session
from growir.network import Network
from growir.passes import InsertLayer, Widen
from growir.rewrite import Preserves
from growir.runs.records import Growth
from growir.testing import assert_preserves
from tests.sampling import thinned


class Residual(nn.Module):
    """Two convolutions beside a path that adds to them, each with batch norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner: torch.Tensor = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(x + inner)


class Attending(nn.Module):
    """A transformer's block: attention and a feed-forward part, each behind a layer norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        x = x + self.out(nn.functional.scaled_dot_product_attention(q, k, v))
        fed: torch.Tensor = self.down(nn.functional.gelu(self.up(self.norm2(x))))
        return x + fed


class Tokens(nn.Module):
    """Rows of an image as tokens."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.embed, self.block, self.head = nn.Linear(8, width), Attending(width), nn.Linear(width, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.block(self.embed(x.flatten(1, 2))).mean(1))
        return found


def dense() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 4))


def residual(width: int = 3) -> nn.Module:
    stem = nn.Conv2d(1, width, 3, padding=1)
    return nn.Sequential(stem, Residual(width), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 4))


def depthwise(width: int = 4) -> nn.Module:
    layers = [
        nn.Conv2d(1, width, 1),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1, groups=width),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 1),
        nn.ReLU(),
    ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 4))


# Where there is no activation that an identity may stand before, as of GELU, nothing becomes deeper.
PAIRS = [(n, p) for n in ("dense", "residual", "depthwise", "attention") for p in ("random", "wider", "deeper", "both")]
PAIRS.remove(("attention", "deeper"))
NETS = {"dense": dense, "residual": residual, "depthwise": depthwise, "attention": Tokens}
POLICIES: dict[str, dict[str, Any]] = {
    "random": {"name": "random"},
    "wider": {"name": "net2net", "spaces": 1.0},
    "deeper": {"name": "net2net", "move": "deeper", "layers": 1.0},
    "both": {"name": "net2net", "move": "both"},
}


def net(name: str) -> Network:
    torch.manual_seed(0)
    return growir.from_torch(NETS[name](), torch.zeros(2, 1, 8, 8))


def images(samples: int = 64) -> Data:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, samples)
    x = rng.normal(size=(samples, 1, 8, 8)).astype(np.float32) + 0.5 * y[:, None, None, None].astype(np.float32)
    return Data.from_arrays(x, y)


def grown(name: str, policy: Any, **budget: Any) -> growir.GrowthResult:
    few = {"epochs_between": 1, "epochs_final": 1, "batch_size": 16}
    return growir.grow(net(name), images(), policy=policy, budget={"steps": 2, **budget}, train=few)


def session_of(name: str, policy: Any, **budget: Any) -> Session:
    config = parse_run({"policy": policy, "budget": {"parameters": 10**6, **budget}, "threads": 1}, "test")
    return Session(net(name), Problem.of_data(images(), "cross_entropy"), config)


def costs(event: Growth) -> tuple[int, int]:
    """Parameters before and after a growth."""
    assert event.parameters is not None
    assert event.parameters_before is not None
    return event.parameters_before, event.parameters


@pytest.mark.parametrize(("name", "policy"), PAIRS)
def test_every_net_grows_twice_and_trains(name: str, policy: str) -> None:
    result = grown(name, POLICIES[policy])
    growths = [event for event in result.events if isinstance(event, Growth)]
    assert len(growths) == 2
    first, second = map(costs, growths)
    assert net(name).graph.costs().parameters == first[0] < first[1] == second[0] < second[1]
    assert all(event.policy == POLICIES[policy]["name"] for event in growths)


@pytest.mark.parametrize(("name", "policy"), PAIRS)
def test_what_is_built_keeps_the_function(name: str, policy: str) -> None:
    session = session_of(name, POLICIES[policy])
    made = Net2Net(Net2NetSettings(**POLICIES[policy])) if policy != "random" else RandomWidth(RandomSettings())
    budget = Budget(BudgetConfig(), session.graph)
    scores = made.score(session, made.propose(session, budget), 1)
    step = made.build(session, made.select(session, scores, budget))
    assert step.preserves(session.graph) in (Preserves.EXACT, Preserves.EVAL)
    assert_preserves(step, session.graph)


@pytest.mark.parametrize(("name", "policy"), [pair for pair in PAIRS if pair[0] in ("residual", "attention")])
def test_a_budget_is_used_and_never_passed(name: str, policy: str) -> None:
    start = net(name).graph.costs().parameters
    result = grown(name, POLICIES[policy], parameters=start + 60, per_growth={"parameters": 45}, steps=9)
    growths = [event for event in result.events if isinstance(event, Growth)]
    assert all(after <= start + 60 and after - before <= 45 for before, after in map(costs, growths))
    assert result.summary["ended"] == "parameters"


@pytest.mark.parametrize("policy", thinned(POLICIES, 2))
def test_same_seed_same_run_and_another_seed_another_one(policy: str) -> None:
    runs = [
        growir.grow(net("residual"), images(), policy=POLICIES[policy], budget={"steps": 2}, seed=seed, train=FEW)
        for seed in (0, 0, 1)
    ]
    what = [[event.what for event in run.events if isinstance(event, Growth)] for run in runs]
    assert what[0] == what[1]
    assert runs[0].network.graph.hash == runs[1].network.graph.hash
    assert all(np.array_equal(a, runs[1].network.arrays[key]) for key, a in runs[0].network.arrays.items())
    other = runs[2].network.arrays
    assert any(key not in other or not np.array_equal(a, other[key]) for key, a in runs[0].network.arrays.items())


FEW = {"epochs_between": 1, "epochs_final": 1, "batch_size": 16}


def test_net2net_copies_channels_that_chance_picks() -> None:
    session = session_of("dense", {"name": "net2net"})
    policy = Net2Net(Net2NetSettings(by=1.0))
    steps = [each.part for each in policy.propose(session, Budget(BudgetConfig(), session.graph))]
    assert all(isinstance(step, Widen) and len(step.copies) == step.by for step in steps)
    again = [each.part for each in policy.propose(session, Budget(BudgetConfig(), session.graph))]
    assert steps == again
    session.grow(steps[0])
    later = [each.part for each in policy.propose(session, Budget(BudgetConfig(), session.graph))]
    assert later[1].copies != steps[1].copies


def test_net2net_inserts_layers_with_an_activation_only() -> None:
    session = session_of("residual", {"name": "net2net"})
    policy = Net2Net(Net2NetSettings(move="deeper"))
    steps = [each.part for each in policy.propose(session, Budget(BudgetConfig(), session.graph))]
    assert steps
    assert all(isinstance(step, InsertLayer) and step.activation != "identity" and not step.residual for step in steps)


def test_shares_of_spaces_and_widths_are_what_the_settings_say() -> None:
    session = session_of("dense", {"name": "random"})
    budget = Budget(BudgetConfig(), session.graph)
    for spaces, count in ((0.01, 1), (0.5, 1), (1.0, 2)):
        policy = RandomWidth(RandomSettings(spaces=spaces, by=0.4))
        scores = policy.score(session, policy.propose(session, budget), 1)
        assert len(policy.select(session, scores, budget)) == count
    assert [wider(space, 0.4).by for space in free_spaces(session.graph)] == [2, 2]


def test_where_nothing_is_free_growth_ends_with_a_word() -> None:
    torch.manual_seed(0)
    start = growir.from_torch(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), torch.zeros(2, 1, 8, 8))
    assert growir.grow(start, images(), policy="random", train=FEW).summary["ended"] == "no move"
    assert grown("attention", POLICIES["deeper"]).summary["ended"] == "no move"


@pytest.mark.parametrize("policy", ["random", "net2net"])
def test_a_policy_that_grows_what_is_there_needs_something(policy: str) -> None:
    with pytest.raises(RunError, match=rf"policy {policy}: it grows a network that is there, but none is given"):
        growir.grow(None, {"x_train": np.eye(30), "y_train": [0, 1, 2] * 10}, policy=policy)


# -- what policies measure with ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_gradients_are_those_of_the_mean_loss(name: str) -> None:
    session = session_of(name, {"name": "random"})
    found = gradients(session)
    assert found.keys() == session.learned.keys()
    source = session.data.train
    batch = source.rows(torch.arange(len(source)))  # type: ignore[attr-defined]
    module = session.network().to_torch().eval()
    loss = nn.functional.cross_entropy(module(*batch.inputs), batch.target)
    loss.backward()  # type: ignore[no-untyped-call]
    for key, parameter in module.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(found[key], parameter.grad, rtol=1e-4, atol=1e-6)
    assert all(parameter.grad is None for parameter in session.learned.values())


def test_magnitudes_are_norms_over_all_that_makes_a_channel() -> None:
    session = session_of("residual", {"name": "random"})
    spaces = {space.name: space for space in free_spaces(session.graph)}
    stem = next(space for space in spaces.values() if len([s for s in space.producers if s.axis == 0]) > 2)
    weights = [session.tensors[slot.parameter].detach().double() for slot in stem.producers]
    kernels = [weight for weight in weights if weight.ndim > 1]
    assert len(kernels) == 2  # the stem's and the block's second, which are summed
    wanted = sum(weight.square().flatten(1).sum(1) for weight in kernels)
    assert isinstance(wanted, torch.Tensor)
    torch.testing.assert_close(magnitudes(session, stem), wanted.sqrt())


def test_magnitudes_of_channels_that_own_several_positions() -> None:
    class Flat(nn.Module):
        """Each channel owns four columns of the head."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 3, 4, stride=4), nn.Linear(12, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.head(torch.relu(self.conv(x)).flatten(1))
            return found

    torch.manual_seed(0)
    start = growir.from_torch(Flat(), torch.zeros(2, 1, 8, 8))
    config = parse_run({"policy": "random", "budget": {"parameters": 10**6}, "threads": 1}, "test")
    session = Session(start, Problem.of_data(images(), "cross_entropy"), config)
    (space,) = free_spaces(session.graph)
    weight = session.tensors["conv.weight"].detach().double()
    torch.testing.assert_close(magnitudes(session, space), weight.flatten(1).norm(dim=1))
