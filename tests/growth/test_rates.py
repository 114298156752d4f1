"""Learning rates: what each schedule is, that it goes on anywhere, and that it reaches created parameters."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import nn

from growir import live
from growir.errors import RunError
from growir.graph import Graph, Input, Node
from growir.growth.optimizing import groups_of, make
from growir.growth.rates import put_back, schedule, set_apart
from growir.growth.recipe import OptimizerConfig, RateConfig, Recipe, Schedule
from growir.network import Network
from growir.ops import Linear, Relu
from growir.passes import InsertLayer
from tests.growth.before import make_optimizer

TOTAL = 40


def config(name: str, **given: Any) -> RateConfig:
    return RateConfig.model_validate({"name": name, **given})


EVERY = [
    config("constant"),
    config("constant", warmup=5),
    config("cosine"),
    config("cosine", warmup=0.25, least=0.1),
    config("one_cycle"),
    config("one_cycle", warmup=10),
    config("steps", milestones=[0.5, 0.75], gamma=0.5),
    config("steps", milestones=[7, 30], warmup=3),
    config("wsd", warmup=8, decay=0.25, least=0.01),
]


def optimizer(name: str = "SGD", **given: Any) -> torch.optim.Optimizer:
    weights = {"w": nn.Parameter(torch.ones(2, 2)), "b": nn.Parameter(torch.ones(2))}
    return make(weights, OptimizerConfig.model_validate({"name": name, "learning_rate": 0.1, **given}))


def rates(made: torch.optim.Optimizer, scheduler: Any, steps: int, group: int = 0) -> list[tuple[float, ...]]:
    """Rate and momentum of each step."""
    found = []
    for _ in range(steps):
        of = made.param_groups[group]
        found.append((of["lr"], of.get("momentum", 0.0), *of.get("betas", ())))
        made.step()
        if scheduler is not None:
            scheduler.step()
    return found


def curve(rate: RateConfig, total: int | None = TOTAL, steps: int = TOTAL, **given: Any) -> list[float]:
    made = optimizer()
    return [found[0] for found in rates(made, schedule(made, rate, total, **given), steps)]


# -- what each is ------------------------------------------------------------------------------------------------------


def test_constant_stays_and_needs_no_scheduler() -> None:
    made = optimizer()
    assert schedule(made, config("constant"), None) is None
    assert curve(config("constant"), total=None) == [0.1] * TOTAL
    warm = curve(config("constant", warmup=5), total=None)
    assert warm[:5] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])
    assert warm[5:] == [0.1] * (TOTAL - 5)


def test_cosine_falls_from_its_peak_to_its_least() -> None:
    found = curve(config("cosine"))
    assert found == pytest.approx([0.05 * (1 + math.cos(math.pi * k / TOTAL)) for k in range(TOTAL)])
    found = curve(config("cosine", warmup=0.25, least=0.1), steps=TOTAL + 3)
    assert found[:10] == pytest.approx([0.01 * (k + 1) for k in range(10)])
    assert found[10] == pytest.approx(0.1)
    assert found[25] == pytest.approx(0.1 * (0.1 + 0.9 / 2))
    assert found[40:] == pytest.approx([0.01] * 3)  # behind the end it stays there
    assert found[10:41] == sorted(found[10:41], reverse=True)


def test_steps_fall_by_gamma_at_each_milestone() -> None:
    found = curve(config("steps", milestones=[0.5, 0.75], gamma=0.5))
    assert found == pytest.approx([0.1] * 20 + [0.05] * 10 + [0.025] * 10)
    assert curve(config("steps", milestones=[20, 30], gamma=0.5), total=None) == found


def test_wsd_rises_stays_and_falls() -> None:
    found = curve(config("wsd", warmup=8, decay=0.25, least=0.01), steps=TOTAL + 1)
    assert found[:8] == pytest.approx([0.1 * (k + 1) / 8 for k in range(8)])
    assert found[8:30] == pytest.approx([0.1] * 22)
    assert found[30:] == pytest.approx([0.1 * (0.01 + 0.99 * (40 - k) / 10) for k in range(30, 41)])


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 40])
def test_one_cycle_is_what_it_was(steps: int) -> None:
    peak, weights = 1e-2, {"w": nn.Parameter(torch.ones(2, 2)), "b": nn.Parameter(torch.ones(2))}
    before, now = make_optimizer(weights, peak / 25, 0.1), make(weights, rate=peak)
    one = torch.optim.lr_scheduler.OneCycleLR(before, peak, total_steps=max(steps, 4) + 1, pct_start=0.25)
    other = schedule(now, config("one_cycle"), steps)
    for group in (0, 1):
        assert [g["lr"] for g in before.param_groups] == [g["lr"] for g in now.param_groups]
        assert before.param_groups[group]["betas"] == now.param_groups[group]["betas"]
    assert rates(before, one, steps) == rates(now, other, steps)


def test_one_cycle_leaves_an_optimizer_without_momentum_without() -> None:
    for momentum, least, most in ((0.0, 0.0, 0.0), (0.9, 0.85, 0.95)):
        made = optimizer(momentum=momentum)
        found = [row[1] for row in rates(made, schedule(made, config("one_cycle"), TOTAL), TOTAL)]
        assert (min(found), max(found)) == pytest.approx((least, most), abs=1e-3)


# -- going on ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
@pytest.mark.parametrize("rate", EVERY, ids=lambda rate: f"{rate.name}-{rate.warmup}")
def test_from_any_step_on_the_rates_are_the_same_to_the_bit(name: str, rate: RateConfig) -> None:
    momentum = {"momentum": 0.9} if name == "SGD" else {}
    made = optimizer(name, **momentum)
    whole = rates(made, schedule(made, rate, TOTAL), TOTAL)
    for step in range(TOTAL):
        again = optimizer(name, **momentum)
        rates(again, schedule(again, rate, TOTAL), 3)  # where an earlier schedule left it
        assert rates(again, schedule(again, rate, TOTAL, step=step), TOTAL - step) == whole[step:]


def test_the_next_schedule_starts_from_what_the_optimizer_was_made_with() -> None:
    made = optimizer("AdamW", betas=[0.8, 0.99])
    rates(made, schedule(made, config("one_cycle"), TOTAL), 17)
    assert made.param_groups[0]["betas"] != (0.8, 0.99)
    assert schedule(made, config("constant"), TOTAL) is None
    for group in made.param_groups:
        assert (group["lr"], group["betas"]) == (0.1, (0.8, 0.99))
        assert "max_lr" not in group


def test_groups_of_a_users_optimizer_keep_their_proportion() -> None:
    weights = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))]
    for rate in EVERY:
        made = torch.optim.SGD([{"params": weights[:1], "lr": 0.1}, {"params": weights[1:], "lr": 0.01}], momentum=0.9)
        scheduler = schedule(made, rate, TOTAL)
        for _ in range(TOTAL):
            first, second = (group["lr"] for group in made.param_groups)
            assert second == pytest.approx(first / 10)
            made.step()
            if scheduler is not None:
                scheduler.step()


# -- after a growth ----------------------------------------------------------------------------------------------------


def test_symmetric_rewarming_lets_all_rise_again() -> None:
    rate = config("cosine", rewarm="symmetric", rewarm_steps=4)
    plain = curve(config("cosine"))
    assert curve(rate) == plain  # it never grew
    again = curve(rate, steps=TOTAL - 10, step=10, grown=10)
    assert again == pytest.approx([value * min(1, (k + 1) / 4) for k, value in enumerate(plain[10:])])
    later = curve(rate, steps=TOTAL - 12, step=12, grown=10)
    assert later == again[2:]


@pytest.mark.parametrize("named", [False, True])
def test_new_parameters_rise_in_groups_of_their_own(named: bool) -> None:
    old, new, bias = (nn.Parameter(torch.ones(size)) for size in (2, 3, 1))
    given: Any = [("old", old), ("new", new)] if named else [old, new]
    made = torch.optim.SGD([{"params": given, "name": "w"}, {"params": [("b", bias)] if named else [bias]}], lr=0.1)
    rate = config("constant", rewarm="new", rewarm_steps=4)
    assert [row[0] for row in rates(made, schedule(made, rate, None, step=8), 2)] == [0.1, 0.1]
    set_apart(made, [new], 10)
    scheduler = schedule(made, rate, None, step=10)
    assert [group["params"] for group in made.param_groups] == [[old], [bias], [new]]
    for k in range(6):
        expected = 0.1 * min(1, (k + 1) / 4)
        assert [group["lr"] for group in made.param_groups] == pytest.approx([0.1, 0.1, expected])
        made.step()
        assert scheduler is not None
        scheduler.step()
    # The next growth: what was new is old, and back where it was.
    set_apart(made, [bias], 16)
    assert [group["params"] for group in made.param_groups] == [[old, new], [], [bias]]
    put_back(made)
    assert [group["params"] for group in made.param_groups] == [[old, new], [bias]]
    if named:
        assert [group["param_names"] for group in made.param_groups] == [["old", "new"], ["b"]]
    schedule(made, config("constant"), None)
    assert [group["lr"] for group in made.param_groups] == [0.1, 0.1]


@pytest.mark.parametrize("how", [None, OptimizerConfig(name="muon"), "function"])
def test_created_parameters_rise_after_each_of_several_growths(how: Any) -> None:
    nodes = (
        Node(name="a", op=Linear(out_features=4), inputs=("x",)),
        Node(name="r", op=Relu(), inputs=("a",)),
        Node(name="b", op=Linear(out_features=4), inputs=("r",)),
    )
    graph = Graph(inputs=(Input(name="x", shape=("N", 3)),), nodes=nodes, outputs=("b",))
    module: nn.Module = Network.init(graph, seed=0).to_torch()
    rate = config("cosine", rewarm="new", rewarm_steps=4)

    def plain(given: list[nn.Parameter]) -> torch.optim.Optimizer:
        groups: list[dict[str, Any]] = [{"params": given[:2], "name": "body"}, {"params": given[2:], "lr": 0.05}]
        return torch.optim.SGD(groups, lr=0.1, momentum=0.9)

    made = make(dict(module.named_parameters()), plain if how == "function" else how)
    homes = len(made.param_groups)
    for growth in range(3):
        before = dict(module.named_parameters())
        module, _ = live.grow(module, InsertLayer(after="r"), made, groups=groups_of(made))
        now = dict(module.named_parameters())
        created = [parameter for key, parameter in now.items() if key not in before]
        set_apart(made, created, 10 * growth)
        scheduler = schedule(made, rate, TOTAL, step=10 * growth)
        held = [id(parameter) for group in made.param_groups for parameter in group["params"]]
        assert sorted(held) == sorted(map(id, now.values()))
        assert {id(p) for group in made.param_groups[homes:] for p in group["params"]} == set(map(id, created))
        of = {id(parameter): group for group in made.param_groups for parameter in group["params"]}
        assert of[id(created[0])]["lr"] == pytest.approx(of[id(now["a.weight"])]["lr"] / 4)
        for parameter in now.values():
            parameter.grad = torch.ones_like(parameter)
        made.step()
        assert scheduler is not None
        scheduler.step()
        assert all(parameter in made.state for parameter in now.values())


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "total", "words"),
    [
        (config("cosine"), None, r'^rate "cosine" needs to know how many steps there will be, .*; give steps in place'),
        (config("one_cycle"), None, r'^rate "one_cycle" needs to know how many steps'),
        (config("constant", warmup=0.1), None, r'^rate "constant", for warmup = 0\.1, needs to know how many steps'),
        (config("steps", milestones=[0.5]), None, r'^rate "steps", for milestones = 0\.5, needs to know'),
        (config("cosine", warmup=50), 40, r'^rate "cosine": warmup 50 are more than the 40 steps in all; make'),
        (config("wsd", warmup=30, decay=20), 40, r'^rate "wsd": warmup 30 and decay 20 are more than the 40 steps'),
        (config("one_cycle", warmup=50), 40, r'^rate "one_cycle": warmup 50 is more than the 40 steps in all'),
    ],
)
def test_a_schedule_that_does_not_fit(rate: RateConfig, total: int | None, words: str) -> None:
    with pytest.raises(RunError, match=words):
        schedule(optimizer(), rate, total)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": "cosin"}, r"RateConfig: name is \"cosin\": input should be 'constant', 'cosine'"),
        ({"name": "steps"}, r"RateConfig: \"steps\" needs milestones, as in milestones = \[0\.5, 0\.75\]"),
        ({"milestones": (0.5,)}, r"milestones belong to \"steps\", but the schedule is \"constant\"; leave them out"),
        ({"name": "steps", "milestones": (0.5, 30)}, r"steps or shares, one kind, and ascend, but \[0\.5, 30\] do not"),
        ({"name": "steps", "milestones": (30, 20)}, r"\[30, 20\] do not"),
        ({"name": "one_cycle", "rewarm": "new"}, r"\"one_cycle\" rises and falls as one curve, so that it takes no"),
        ({"warm": 3}, r"RateConfig: unknown attribute 'warm'; it takes name, warmup, .*Did you mean 'warmup'"),
    ],
)
def test_settings_that_are_wrong(given: dict[str, Any], words: str) -> None:
    with pytest.raises(RunError, match=words):
        RateConfig(**given)


def test_a_recipe_is_so_many_epochs_or_steps() -> None:
    for given, words in (({}, "neither is given"), ({"epochs": 1, "steps": 2}, "both are given")):
        with pytest.raises(RunError, match=rf"Recipe: epochs or steps say how long, one of them, but {words}"):
            Recipe(**given)  # type: ignore[arg-type]
    assert Recipe(epochs=3).all_steps(10) == 30
    assert Recipe(epochs=3, accumulate=4).all_steps(10) == 9
    assert Recipe(epochs=3).all_steps(None) is None
    assert Recipe(steps=7).all_steps(None) == 7


def test_the_page_names_every_setting() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| (\w+) \|", text, re.MULTILINE))
    for model in (OptimizerConfig, RateConfig, Recipe):
        assert model.model_fields.keys() <= named
    assert set(get_args(Schedule)) <= named
