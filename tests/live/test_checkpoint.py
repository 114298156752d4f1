"""A saved training state grown without its model: bit by bit what `grow_into` gives on the live objects."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import nn

import growir
from growir import live
from growir.errors import GrowirError, ModelError, PassRefused
from tests.live.test_into import SIZES, Aside, Make, Normed, loss, made, planned, trained

DEEPER, COPIED, BOTH = SIZES["deeper"], SIZES["copied"], SIZES["both"]


def by_ndim(kind: Callable[..., torch.optim.Optimizer], **settings: Any) -> Make:
    def make(module: nn.Module) -> torch.optim.Optimizer:
        groups: list[list[torch.Tensor]] = [
            [p for p in module.parameters() if (p.ndim > 1) is many] for many in (True, False)
        ]
        return kind([{"params": groups[0], "lr": 1e-2}, {"params": groups[1], "lr": 1e-3}], **settings)

    return make


def named(module: nn.Module) -> torch.optim.Optimizer:
    late = [(name, p) for name, p in module.named_parameters() if "blocks" in name]
    rest = [(name, p) for name, p in module.named_parameters() if "blocks" not in name]
    groups: list[dict[str, Any]] = [{"params": rest}, {"params": late, "lr": 1e-3}]
    return torch.optim.AdamW(groups, lr=1e-2)


MAKERS: Mapping[str, Make] = {
    "adamw": by_ndim(torch.optim.AdamW, amsgrad=True),
    "sgd": by_ndim(torch.optim.SGD, momentum=0.9),
    "named": named,
    "one group": lambda module: torch.optim.RMSprop(module.parameters(), momentum=0.9),
}


def saved(data: object) -> Any:
    """What comes back of a file."""
    file = io.BytesIO()
    torch.save(data, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def same(one: object, other: object) -> bool:
    """Whether two parts of checkpoints are equal to the bit."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.mark.parametrize("size", ["deeper", "copied", "both", "tokens"])
@pytest.mark.parametrize("maker", MAKERS)
def test_it_is_what_grow_into_gives(maker: str, size: str) -> None:
    depth, width, inner, tokens, tied, _ = SIZES[size]
    plan, make = planned(*SIZES[size]), MAKERS[maker]
    small, large = made(2, tied=tied, seed=1), made(depth, width, inner, tokens, tied=tied, seed=2)
    optimizer, into = make(small), make(large)
    trained(small, optimizer)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    checkpoint = saved(
        {
            "model": small.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
            "step": 7,
            "random": torch.get_rng_state(),
        }
    )
    found, report = live.grow_checkpoint(checkpoint, plan)
    small.zero_grad()
    live.grow_into(small, large, plan, optimizer, into)
    assert same(found["model"], large.state_dict())
    assert list(found["model"]) == list(large.state_dict())
    wanted = into.state_dict()
    assert same(found["optimizer"]["state"], wanted["state"])
    for group, other, old in zip(
        found["optimizer"]["param_groups"], wanted["param_groups"], optimizer.state_dict()["param_groups"], strict=True
    ):
        listed = {"params", "param_names"} & other.keys()
        assert all(group[name] == other[name] for name in listed)
        assert all(same(group[name], old[name]) for name in old.keys() - listed)
    assert all(found[part] is checkpoint[part] for part in ("scheduler", "step", "random"))
    assert report.carried == ("scheduler", "step", "random")
    again, again_optimizer = made(depth, width, inner, tokens, tied=tied), make(made(2))
    again_optimizer = make(again)
    stored = saved(found)
    again.load_state_dict(stored["model"])
    again_optimizer.load_state_dict(stored["optimizer"])
    assert len({id(p) for p in again.parameters()}) == len(
        again_optimizer.state_dict()["param_groups"][0]["params"]
    ) + (sum(len(group["params"]) for group in again_optimizer.state_dict()["param_groups"][1:]))
    before = loss(again).item()
    trained(again, again_optimizer, 5)
    assert loss(again).item() < before


def test_the_parts_are_found_by_what_they_are() -> None:
    plan = planned(*COPIED)
    small = made(2, seed=1)
    optimizer = MAKERS["adamw"](small)
    trained(small, optimizer)
    weights = small.state_dict()
    behind = {f"net.{name}": tensor for name, tensor in weights.items()} | {"metric": torch.ones(2)}
    wanted, _ = live.grow_checkpoint({"m": weights, "o": optimizer.state_dict()}, plan)
    lightning = {"state_dict": behind, "optimizer_states": [optimizer.state_dict()], "epoch": 3}
    found, report = live.grow_checkpoint(lightning, plan)
    assert same(
        {f"net.{name}": tensor for name, tensor in wanted["m"].items()} | {"metric": torch.ones(2)}, found["state_dict"]
    )
    assert same(found["optimizer_states"], [wanted["o"]])
    assert report.notes[:2] == ("weights: state_dict", "optimizer: optimizer_states.0, Adam or AdamW")
    alone, _ = live.grow_checkpoint(weights, plan)
    assert same(alone, wanted["m"])
    both = {"state": {"model": weights, "ema": {k: v / 2 for k, v in weights.items()}}}
    with pytest.raises(ModelError, match=r"state\.model and state\.ema are all state_dicts of the plan's small model"):
        live.grow_checkpoint(both, plan)
    found, report = live.grow_checkpoint(both, plan, weights=["state.model", "state.ema"])
    assert same(found["state"]["model"], wanted["m"])
    assert torch.equal(found["state"]["ema"]["wte.weight"], weights["wte.weight"] / 2)
    assert found["state"]["ema"].keys() == wanted["m"].keys()
    assert "averages: state.ema" in report.notes


def test_tied_tensors_have_as_many_names_as_before() -> None:
    plan = planned(*DEEPER)
    small = made(2, tied=True, seed=1)
    once = {name: tensor for name, tensor in small.state_dict().items() if name != "head.weight"}
    found, _ = live.grow_checkpoint(once, plan)
    assert "head.weight" not in found
    found, _ = live.grow_checkpoint(small.state_dict(), plan)
    assert found["head.weight"].data_ptr() == found["wte.weight"].data_ptr()
    parted = {**small.state_dict(), "head.weight": torch.ones_like(small.wte.weight)}
    with pytest.raises(ModelError, match=r"wte\.weight and head\.weight are one tensor in the plan, but differ"):
        live.grow_checkpoint(parted, plan)


def test_several_optimizers_share_the_model() -> None:
    plan = planned(*BOTH)
    small = made(2, seed=1)
    matrices = torch.optim.SGD([p for p in small.parameters() if p.ndim > 1], lr=1e-3, momentum=0.9)
    vectors = torch.optim.AdamW([p for p in small.parameters() if p.ndim < 2])
    trained(small, matrices)
    vectors.step()
    found, report = live.grow_checkpoint(
        {"model": small.state_dict(), "optimizers": [matrices.state_dict(), vectors.state_dict()]}, plan
    )
    large = made(3, 8, 9)
    large.load_state_dict(found["model"])
    for kind, many, stored in zip(
        (torch.optim.SGD, torch.optim.AdamW), (True, False), found["optimizers"], strict=True
    ):
        again = kind([p for p in large.parameters() if (p.ndim > 1) is many], lr=1e-3)
        again.load_state_dict(stored)
    assert "optimizer: optimizers.0, SGD" in report.notes
    assert "optimizer: optimizers.1, Adam or AdamW" in report.notes


class Alike(nn.Module):
    """Two layers of one shape, whose parameters no shape tells apart."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, 2)
        self.stem = nn.Linear(3, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.two(self.one(self.stem(x).relu()).relu()).relu())
        return found


def test_numbers_that_shapes_leave_open_need_names() -> None:
    small, large = Alike(4), Alike(6)
    plan = growir.plan(small, large, torch.zeros(2, 3))

    def make(module: nn.Module) -> tuple[torch.optim.Optimizer, list[list[str]]]:
        names = [[n for n, _ in module.named_parameters() if n.startswith("two") is late] for late in (True, False)]
        return torch.optim.AdamW([{"params": [module.get_parameter(n) for n in group]} for group in names]), names

    optimizer, names = make(small)
    small(torch.randn(5, 3)).square().sum().backward()
    optimizer.step()
    checkpoint = saved({"model": small.state_dict(), "optimizer": optimizer.state_dict()})
    with pytest.raises(
        ModelError, match=r"do not say which parameter is which: one\.weight may be in group 0 or in group"
    ):
        live.grow_checkpoint(checkpoint, plan)
    found, _ = live.grow_checkpoint(checkpoint, plan, names=names)
    into, _ = make(large)
    small.zero_grad()
    live.grow_into(small, large, plan, optimizer, into)
    assert same(found["optimizer"]["state"], into.state_dict()["state"])
    for given, text in (
        (names[:1], r"has groups of 2, 6 parameters, but the names are for groups of 2"),
        ([names[0][::-1], names[1]], r"group 0 of the optimizer has state of shape \[4, 4\] for two\.bias"),
        ([["two.weight", "three"], names[1]], r"group 0 of the optimizer trains three, which is no parameter"),
    ):
        with pytest.raises(ModelError, match=text):
            live.grow_checkpoint(checkpoint, plan, names=given)


def test_names_in_place_of_numbers_stay_names() -> None:
    """As torch.distributed.checkpoint.state_dict writes optimizers."""
    plan = planned(*COPIED)
    small = made(2, seed=1)
    optimizer = named(small)
    trained(small, optimizer)
    state = optimizer.state_dict()
    names = [name for group in state["param_groups"] for name in group["param_names"]]
    groups = [
        {
            **{k: v for k, v in group.items() if k != "param_names"},
            "params": [f"module.{n}" for n in group["param_names"]],
        }
        for group in state["param_groups"]
    ]
    by_name = {"state": {f"module.{names[k]}": slots for k, slots in state["state"].items()}, "param_groups": groups}
    wanted, _ = live.grow_checkpoint({"m": small.state_dict(), "o": state}, plan)
    found, _ = live.grow_checkpoint({"m": small.state_dict(), "o": by_name}, plan)
    new = [f"module.{name}" for group in wanted["o"]["param_groups"] for name in group["param_names"]]
    assert same(found["o"]["state"], {new[k]: slots for k, slots in wanted["o"]["state"].items()})
    assert [name for group in found["o"]["param_groups"] for name in group["params"]] == new


def test_buffers_and_tensors_that_no_output_depends_on_come_along() -> None:
    torch.manual_seed(0)
    small, large = Normed(4), Normed(6)
    plan = growir.plan(small, large, torch.randn(5, 3))
    small(torch.randn(9, 3))
    found, _ = live.grow_checkpoint(small.state_dict(), plan)
    live.grow_into(small, large, plan)
    assert same(found, large.state_dict())
    aside = Aside(4)
    found, _ = live.grow_checkpoint(aside.state_dict(), growir.plan(aside, Aside(6), torch.zeros(2, 3)))
    assert torch.equal(found["unused.weight"], aside.unused.weight)
    assert found["fc.weight"].shape == (6, 3)


class Own(torch.optim.Adam):
    """A class of one's own, with a setting that torch's lacks."""

    def __init__(self, params: Any, lr: float = 1e-3) -> None:
        super().__init__(params, lr)


def test_classes_of_optimizers_are_told_by_their_settings_or_said() -> None:
    plan = planned(*COPIED)
    small = made(2, seed=1)
    optimizer = torch.optim.AdamW(small.parameters())
    trained(small, optimizer)
    state = optimizer.state_dict()
    lion = {"state": state["state"], "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99), "params": list(range(16))}]}
    checkpoint = {"model": small.state_dict(), "optimizer": lion}
    with pytest.raises(ModelError, match=r"optimizer is of no class of torch\.optim by its settings: it has betas, lr"):
        live.grow_checkpoint(checkpoint, plan)
    found, report = live.grow_checkpoint(checkpoint, plan, kind=Own)
    wanted, _ = live.grow_checkpoint({"model": small.state_dict(), "optimizer": state}, plan)
    assert same(found["optimizer"]["state"], wanted["optimizer"]["state"])
    assert "optimizer: optimizer, Own" in report.notes
    with pytest.raises(GrowirError, match="LBFGS keeps one flat history"):
        live.grow_checkpoint(checkpoint, plan, kind=torch.optim.LBFGS)


def test_what_does_not_fit_is_told_in_one_message() -> None:
    plan = planned(*COPIED)
    small = made(2, seed=1)
    optimizer = MAKERS["adamw"](small)
    trained(small, optimizer)
    weights, state = small.state_dict(), optimizer.state_dict()
    first, second = state["param_groups"]
    swapped = {**state, "param_groups": [{**first, "params": second["params"]}, {**second, "params": first["params"]}]}
    fewer = {**state, "param_groups": [first]}
    half = {name: tensor[:2] if name == "wte.weight" else tensor for name, tensor in weights.items()}
    cases: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        ({"a": 3}, {}, "the checkpoint has no state_dict, which maps names to tensors; it holds a"),
        ({"m": half}, {}, r"m is nearest to its small model, but wte.weight has shape \[2, 4\] there, and \[8, 4\]"),
        ({"m": made(3).state_dict()}, {}, "but has blocks.2.norm.weight, which the plan's small model has not"),
        ({"m": made(1).state_dict()}, {}, "of another model than the plan: m is nearest .* but has no blocks.1.norm"),
        ({"m": weights}, {"weights": "ema"}, "there is no ema in the checkpoint; it holds m"),
        ({"m": weights, "o": state}, {"weights": "o"}, "o is no state_dict of the plan's small model: has no scale"),
        ({"m": weights, "o": state}, {"optimizer": "m"}, "m is no saved optimizer: there are o"),
        ({"m": weights, "o": fewer}, {}, r"has 6 parameters and no names for them, but the model has 16"),
        ({"m": weights, "o": {"state": 3, "param_groups": []}}, {}, "o is no optimizer's state_dict as torch writes"),
    ]
    for checkpoint, options, text in cases:
        with pytest.raises(ModelError, match=text):
            live.grow_checkpoint(checkpoint, plan, **options)
    found, _ = live.grow_checkpoint({"m": weights, "o": swapped}, plan)  # by shapes, whatever stands first
    assert len(found["o"]["param_groups"][0]["params"]) == len(second["params"]) + 4
    old = plan.model_copy(update={"small_saved": {}})
    with pytest.raises(PassRefused, match="the plan does not say how the two models are saved; make it anew"):
        live.grow_checkpoint({"m": weights}, old)
