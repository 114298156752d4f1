"""A module of one's own class filled from a smaller one: as `live.grow` grows a lowered one, on one's own tensors."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import growir
from growir import live
from growir.errors import GrowirError, ModelError, PassRefused

Make = Callable[[Any], torch.optim.Optimizer]
TOKENS = torch.tensor([[0, 1, 2, 3], [4, 5, 6, 0], [7, 7, 1, 2]])


class Block(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = x + self.down(functional.gelu(self.up(self.norm(x))))
        return found


class Model(nn.Module):
    """Tokens to logits: residual blocks, a head that may be tied, and buffers that are saved and that are not."""

    def __init__(self, depth: int, width: int = 4, inner: int = 6, tokens: int = 8, *, tied: bool = False) -> None:
        super().__init__()
        self.wte = nn.Embedding(tokens, width)
        self.blocks = nn.ModuleList([Block(width, inner) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, tokens, bias=False)
        self.register_buffer("scale", torch.linspace(1, 2, 4)[:, None].clone())
        self.register_buffer("shift", torch.linspace(0, 1, 4)[:, None].clone(), persistent=False)
        if tied:
            self.head.weight = self.wte.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.wte(ids)
        for block in self.blocks:
            x = block(x)
        found: torch.Tensor = self.head(self.norm(x)) * self.scale + self.shift
        return found


class Normed(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc, self.norm, self.head = nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(functional.relu(self.norm(self.fc(x))))
        return found


def made(*args: Any, seed: int = 0, **fields: Any) -> Model:
    torch.manual_seed(seed)
    return Model(*args, **fields).double()


@functools.cache
def planned(depth: int, width: int, inner: int, tokens: int, tied: bool, exact: bool) -> growir.Plan:
    large = made(depth, width, inner, tokens, tied=tied)
    return growir.plan(made(2, tied=tied), large, TOKENS, exact=exact)


SIZES = {
    "deeper": (4, 4, 6, 8, True, True),
    "copied": (3, 4, 6, 8, False, False),
    "wider": (2, 8, 12, 8, False, True),
    "both": (3, 8, 9, 8, False, True),
    "tokens": (2, 4, 6, 11, True, True),
}


def loss(module: nn.Module) -> torch.Tensor:
    found: torch.Tensor = functional.log_softmax(module(TOKENS)[..., :8], -1)[..., 1:3].square().mean()
    return found


def trained(module: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 2) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        torch.autograd.backward(loss(module))
        optimizer.step()
    optimizer.zero_grad()
    torch.autograd.backward(loss(module))


def adamw(module: nn.Module) -> torch.optim.Optimizer:
    late = [p for key, p in module.named_parameters() if "blocks" in key and p.requires_grad]
    rest = [p for key, p in module.named_parameters() if "blocks" not in key and p.requires_grad]
    return torch.optim.AdamW([{"params": late, "lr": 1e-3}, {"params": rest, "lr": 1e-2}], amsgrad=True)


def sgd(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=1e-4, momentum=0.9)


@pytest.mark.parametrize("make", [adamw, sgd])
@pytest.mark.parametrize("size", SIZES)
def test_it_is_what_live_grow_makes_of_the_lowered_module(size: str, make: Make) -> None:
    depth, width, inner, tokens, tied, exact = SIZES[size]
    plan = planned(*SIZES[size])
    small, large = made(2, tied=tied, seed=1), made(depth, width, inner, tokens, tied=tied, seed=2)
    for module in (small, large):
        module.get_parameter("blocks.0.up.bias").requires_grad_(False)
    lowered = growir.from_torch(small, TOKENS, check=False).to_torch()
    optimizers = make(small), make(lowered)
    trained(small, optimizers[0])
    trained(lowered, optimizers[1])
    into = make(large)
    tensors = {key: id(tensor) for key, tensor in large.state_dict(keep_vars=True).items()}
    report = live.grow_into(small, large, plan, optimizers[0], into)
    grown, _ = live.grow(lowered, plan.step, optimizers[1])
    assert {key: id(tensor) for key, tensor in large.state_dict(keep_vars=True).items()} == tensors
    wanted: dict[str, Any] = dict(grown.state_dict(keep_vars=True))
    found: dict[str, Any] = dict(large.named_parameters(remove_duplicate=False))
    found |= dict(large.named_buffers())
    close = functools.partial(torch.testing.assert_close, rtol=1e-9, atol=1e-12)
    for key, name in plan.large_keys.items():
        close(found[name].detach(), wanted[key].detach())
        if wanted[key].grad is not None:
            close(found[name].grad, wanted[key].grad)
        slots = [optimizer.state.get(p, {}) for optimizer, p in ((into, found[name]), (optimizers[1], wanted[key]))]
        assert slots[0].keys() == slots[1].keys()
        for entry, value in slots[0].items():
            close(value, slots[1][entry])
    assert not report.left
    if exact:
        close(large(TOKENS)[..., :8], small(TOKENS))
    assert [group["lr"] for group in into.param_groups] == [group["lr"] for group in make(large).param_groups]
    start = loss(large).item()
    trained(large, into, 5)
    assert loss(large).item() < start


def test_the_plan_can_be_read_and_says_what_it_is() -> None:
    plan = planned(*SIZES["both"])
    again = growir.Plan.model_validate_json(plan.model_dump_json())
    assert again == plan
    assert again.rewrite.graph.hash == plan.after
    assert str(plan).startswith(f"{plan.before[:12]} -> {plan.after[:12]}, preserves exact\n  stack ")
    with pytest.raises(PassRefused, match="it was changed, or made by another growir"):
        _ = growir.Plan.model_validate({**plan.model_dump(), "after": "0" * 64}).rewrite


def test_statistics_and_counts_of_norms_come_along() -> None:
    torch.manual_seed(0)
    small, large = Normed(4).double(), Normed(6).double()
    plan = growir.plan(lambda: small, lambda: large, torch.randn(5, 3).double())
    small(torch.randn(9, 3).double())
    live.grow_into(small, large, plan)
    kept = [module.get_buffer("norm.running_mean") for module in (small, large)]
    assert torch.equal(kept[1][:4], kept[0])
    assert large.norm.num_batches_tracked == small.norm.num_batches_tracked == 1
    x = torch.randn(7, 3).double()
    torch.testing.assert_close(large.eval()(x), small.eval()(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("large", "text"),
    [
        (lambda: made(2, 3), "4 wide in the small model and 3 in the large one; growth takes none away"),
        (lambda: made(2, tokens=5), "wte: the table has 8 entries, tokens or positions, in the small model and 5"),
        (lambda: made(1), "blocks has 2 blocks in the small model and 1 in the large one"),
        (lambda: made(2), "the two models have one graph, so there is nothing to grow"),
        (
            lambda: nn.Sequential(nn.Embedding(8, 4), nn.Linear(4, 4)),
            "is no growth .* The first difference that is left",
        ),
        (lambda: 3, "large: a torch.nn.Module is needed"),
    ],
)
def test_what_is_no_growth_is_told(large: Callable[[], Any], text: str) -> None:
    with pytest.raises(GrowirError, match=text):
        growir.plan(made(2), large, TOKENS.clamp(max=4))


def test_after_an_error_both_are_as_they_were() -> None:
    plan = planned(*SIZES["copied"])
    small, large = made(2), made(3, seed=1)
    optimizer, into = adamw(small), adamw(large)
    trained(small, optimizer)
    kept = {key: tensor.clone() for key, tensor in large.state_dict().items()}
    changes: dict[str, dict[str, Any]] = {
        "into is SGD, but the small model's optimizer AdamW": {"into": sgd(large)},
        "into, a AdamW, holds no parameter of the large model": {"into": adamw(made(3))},
        "holds no parameter of this module": {"optimizer": adamw(made(2))},
        "one of the large model goes on: optimizer has 1, into has 0": {"into": []},
        r"the large model has no blocks.2.norm.weight, but that of the plan has": {"large": made(2)},
        r"the small model: wte.weight has shape \[8, 5\], but in the plan \[8, 4\]": {"small": made(2, 5)},
        "the large model must be a torch.nn.Module, but is a int": {"large": 3},
    }
    for text, change in changes.items():
        fields: dict[str, Any] = {"small": small, "large": large, "optimizer": optimizer, "into": into, **change}
        with pytest.raises(ModelError, match=text):
            live.grow_into(plan=plan, **fields)
        assert all(torch.equal(tensor, kept[key]) for key, tensor in large.state_dict().items())
        assert not into.state


@pytest.mark.parametrize("make", [adamw, sgd])
def test_an_optimizer_goes_on_in_place_as_one_made_for_the_large_module_does(make: Make) -> None:
    plan = planned(*SIZES["both"])
    small, larges = made(2, seed=1), [made(3, 8, 9, seed=2) for _ in range(2)]
    optimizer = make(small)
    trained(small, optimizer)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    into = make(larges[0])
    handed = live.grow_into(small, larges[0], plan, optimizer, into)
    report = live.grow_into(small, larges[1], plan, optimizer)
    own = {id(p): name for name, p in larges[1].named_parameters()}
    theirs = {id(p): name for name, p in larges[0].named_parameters()}
    for group, wanted in zip(optimizer.param_groups, into.param_groups, strict=True):
        assert [own[id(p)] for p in group["params"]] == [theirs[id(p)] for p in wanted["params"]]
    found, wanted = optimizer.state_dict(), into.state_dict()
    assert found["state"].keys() == wanted["state"].keys()
    for k, slots in wanted["state"].items():
        assert all(torch.equal(found["state"][k][entry], value) for entry, value in slots.items())
    assert set(report.stateless) == set(handed.stateless) == {"blocks.2.down.weight", "blocks.2.down.bias"}
    trained(larges[1], optimizer)
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == [g["lr"] / 2 for g in make(small).param_groups]
    with pytest.raises(ModelError, match="holds no parameter of this module"):
        live.grow_into(small, larges[1], plan, optimizer)


def test_in_place_dtypes_stay_and_new_parameters_join_the_group_that_is_named() -> None:
    plan = planned(*SIZES["copied"])
    small, large = made(2), made(3, seed=1)
    optimizer = adamw(small)
    trained(small, optimizer)
    with pytest.raises(ModelError, match=r"is torch\.float32 on cpu in the large model, and was"):
        live.grow_into(small, made(3).float(), plan, optimizer)
    with pytest.raises(ModelError, match="groups= says where an optimizer that goes on in place"):
        live.grow_into(small, large, plan, optimizer, adamw(large), groups=lambda key, p: 1)
    live.grow_into(small, large, plan, optimizer, groups=lambda key, p: 1)
    rest = {id(p) for p in optimizer.param_groups[1]["params"]}
    assert all(id(p) in rest for name, p in large.named_parameters() if name.startswith("blocks.2"))


class Aside(nn.Module):
    """A layer in use, and one that no output depends on."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.unused = nn.Linear(2, 2)
        self.fc, self.head = nn.Linear(3, width), nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(functional.relu(self.fc(x)))
        return found


def test_in_place_parameters_that_no_output_depends_on_are_the_large_modules() -> None:
    small, large = Aside(4), Aside(6)
    plan = growir.plan(small, large, torch.zeros(2, 3))
    optimizer = torch.optim.AdamW(small.parameters())
    small(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    report = live.grow_into(small, large, plan, optimizer)
    assert report.left == ("unused.weight", "unused.bias")
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [id(p) for p in large.parameters()]


def test_what_no_output_depends_on_is_nobodys_relative() -> None:
    small, large = made(2), made(3, 8, 9, seed=1)
    for module in (small, large):
        module.unused = nn.Linear(2, 2).double()
    optimizer = adamw(small)
    trained(small, optimizer)
    live.grow_into(small, large, planned(*SIZES["both"]), optimizer)
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(map(id, large.parameters()))
