"""Optimizers by name, by address and by function; what each refuses; where created parameters go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import nn

from growir import live
from growir.errors import RunError
from growir.graph import Graph, Input, Node
from growir.growth.optimizer_state import optimizer_state, restore_optimizer
from growir.growth.optimizing import groups_of, make
from growir.growth.rates import schedule
from growir.growth.recipe import OptimizerConfig, RateConfig
from growir.network import Network
from growir.ops import Linear, Relu
from growir.passes import InsertLayer, Widen
from tests.growth.before import make_optimizer

KEYS = ("a.weight", "a.bias", "b.weight", "b.bias")


def parameters() -> dict[str, nn.Parameter]:
    shapes = ((4, 3), (4,), (2, 4), (2,))
    return {key: nn.Parameter(torch.ones(shape)) for key, shape in zip(KEYS, shapes, strict=True)}


def config(**given: Any) -> OptimizerConfig:
    return OptimizerConfig.model_validate(given)


def settings(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """What its groups say, without how they are called."""
    return [{k: v for k, v in g.items() if k not in ("params", "name", "names")} for g in optimizer.param_groups]


def test_by_default_it_is_adamw_that_decays_matrices_only() -> None:
    given = parameters()
    before, now = make_optimizer(given, 1e-3, 0.3), make(given, rate=1e-3, weight_decay=0.3)
    assert type(now) is torch.optim.AdamW
    assert settings(now) == settings(before)
    assert [group["params"] for group in now.param_groups] == [group["params"] for group in before.param_groups]
    assert [group["name"] for group in now.param_groups] == ["decayed", "plain"]
    assert settings(make(given, OptimizerConfig())) == settings(make_optimizer(given, 3e-3, 0.1))


def test_where_nothing_learns_yet_the_groups_are_there_and_empty() -> None:
    for optimizer in (make({}), make({}, config(name="sgd"))):
        assert [(group["name"], group["params"]) for group in optimizer.param_groups] == [
            ("decayed", []),
            ("plain", []),
        ]
        optimizer.step()
    made = make({}, lambda given: torch.optim.SGD([{"params": given, "momentum": 0.5}], lr=0.1))
    assert [(group["params"], group["momentum"]) for group in made.param_groups] == [([], 0.5)]


@pytest.mark.parametrize(
    ("given", "kind", "expected"),
    [
        ({"name": "sgd", "learning_rate": 0.1, "momentum": 0.9, "nesterov": True}, torch.optim.SGD, {"momentum": 0.9}),
        ({"name": "Adam", "betas": [0.8, 0.99]}, torch.optim.Adam, {"betas": (0.8, 0.99), "lr": 1e-3}),
        ({"name": "ADAGRAD", "learning_rate": 1}, torch.optim.Adagrad, {"lr": 1}),
        ({"name": "adamw", "fused": False}, torch.optim.AdamW, {"fused": False, "lr": 3e-3}),
        ({"name": "adamw", "foreach": True}, torch.optim.AdamW, {"fused": None, "foreach": True}),
        ({"name": "torch.optim:RMSprop", "learning_rate": 0.01}, torch.optim.RMSprop, {"lr": 0.01}),
        ({"name": "Rprop"}, torch.optim.Rprop, {"lr": 1e-2}),
    ],
)
def test_any_optimizer_by_name_with_its_own_keywords(given: Any, kind: type, expected: dict[str, object]) -> None:
    optimizer = make(parameters(), config(**given))
    assert type(optimizer) is kind
    for group in optimizer.param_groups:
        assert {name: group[name] for name in expected} == expected


def test_weight_decay_is_of_matrices_or_of_all() -> None:
    for decay, expected in (("matrices", [0.2, 0.0, 0.2, 0.0]), ("all", [0.2] * 4)):
        given = parameters()
        optimizer = make(given, config(name="SGD", weight_decay=0.2, decay=decay))
        found = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
        assert [found[id(parameter)] for parameter in given.values()] == expected


def test_a_function_is_called_with_the_list() -> None:
    given = parameters()
    optimizer = make(given, lambda all_of_them: torch.optim.SGD(all_of_them, lr=0.5))
    assert optimizer.param_groups[0]["params"] == list(given.values())


def own(given: list[nn.Parameter], *, lr: float = 0.25, momentum: float = 0.0) -> torch.optim.Optimizer:
    return torch.optim.SGD(given, lr=lr, momentum=momentum)


number = 3


def test_a_function_by_address_takes_settings_too() -> None:
    address = f"{__name__}:own"
    assert make(parameters(), config(name=address)).param_groups[0]["lr"] == 0.25
    optimizer = make(parameters(), config(name=address, learning_rate=0.125, momentum=0.5))
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]) == (0.125, 0.5)
    with pytest.raises(RunError, match=r"\[optimizer\] weight_decay: own takes learning_rate, momentum\."):
        make(parameters(), config(name=address, weight_decay=0.1))


class Odd(torch.optim.SGD):
    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"name": "adamv"}, r"^\[optimizer\] name: torch.optim has no 'adamv'; it has .*Did you mean 'Adam'"),
        ({"name": "SGD", "momentun": 0.9}, r"^\[optimizer\] momentun: SGD takes .* Did you mean 'momentum'\?$"),
        ({"name": "SGD", "lr": 0.9}, r"^\[optimizer\] lr: the rate of every optimizer is learning_rate here$"),
        ({"name": "Rprop", "weight_decay": 0.1}, r"^\[optimizer\] weight_decay: Rprop takes learning_rate, etas"),
        ({"name": "SGD", "momentum": -1.0}, r"^\[optimizer\] SGD refuses its settings: Invalid momentum value: -1\.0$"),
        ({"name": "SGD", "momentum": "much"}, r"^\[optimizer\] SGD refuses its settings: "),
        (
            {"name": "Muon", "momentum": -1.0},
            r"^\[optimizer\] Muon refuses its settings: momentum should be >= 0 but is",
        ),
        (
            {"name": "Muon", "betas": [0.9, 0.9]},
            r"^\[optimizer\] betas: Muon takes learning_rate, weight_decay, momentum",
        ),
        ({"name": "LBFGS"}, r"^optimizer: LBFGS keeps one flat history of all parameters, which cannot follow growth"),
        ({"name": "adafactor"}, r"^optimizer: Adafactor keeps second moments of whole rows and columns"),
        ({"name": "SparseAdam"}, r"^\[optimizer\] SparseAdam takes sparse gradients"),
        ({"name": "no.such:thing"}, r"^\[optimizer\] name: no\.such:thing cannot be imported \(No module named 'no'\)"),
        ({"name": f"{__name__}:owm"}, r"^\[optimizer\] name: .*test_optimizing has no 'owm'\. Did you mean 'own'\?$"),
        ({"name": f"{__name__}:number"}, r"^\[optimizer\] name: .*:number is of int, but a function is needed$"),
        (lambda given: torch.optim.SGD(given[:2]), r"^optimizer <lambda>: it leaves out 2 parameters of 4 \(b\.weight"),
        (
            lambda given: 3,
            r"^optimizer <lambda>: a torch\.optim\.Optimizer is needed, but it gives a int; write lambda",
        ),
        (lambda given: Odd(given), r"^optimizer: Odd replaces step of SGD, so its state cannot be carried: say how"),
    ],
)
def test_what_is_refused_before_the_first_growth(how: Any, words: str) -> None:
    with pytest.raises(RunError, match=words):
        make(parameters(), config(**how) if isinstance(how, dict) else how)


# -- created parameters ------------------------------------------------------------------------------------------------


def small() -> Network:
    nodes = (
        Node(name="a", op=Linear(out_features=4), inputs=("x",)),
        Node(name="r", op=Relu(), inputs=("a",)),
        Node(name="b", op=Linear(out_features=4), inputs=("r",)),
    )
    return Network.init(Graph(inputs=(Input(name="x", shape=("N", 3)),), nodes=nodes, outputs=("b",)), seed=0)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (None, {"decayed": {"a.weight", "b.weight", "new.weight"}, "plain": {"a.bias", "b.bias", "new.bias"}}),
        (
            config(name="muon"),
            {
                "matrices": {"a.weight", "b.weight", "new.weight"},
                "decayed": set(),
                "plain": {"a.bias", "b.bias", "new.bias"},
            },
        ),
        (
            config(name="SGD", decay="all"),
            {"decayed": {f"{node}.{p}" for node in "a b new".split() for p in ("weight", "bias")}},
        ),
        (
            lambda given: torch.optim.SGD([{"params": given[::2], "name": "w"}, {"params": given[1::2], "name": "b"}]),
            {"w": {"a.weight", "b.weight", "new.weight"}, "b": {"a.bias", "b.bias", "new.bias"}},
        ),
    ],
)
def test_created_parameters_join_by_rank_or_by_relative(how: Any, expected: dict[str, set[str]]) -> None:
    module = small().to_torch()
    optimizer = make(dict(module.named_parameters()), how)
    grown, _ = live.grow(module, InsertLayer(after="r"), optimizer, groups=groups_of(optimizer))
    (new,) = {key.rpartition(".")[0] for key, _ in grown.named_parameters()} - {"a", "b"}
    keys = {id(parameter): key.replace(new, "new") for key, parameter in grown.named_parameters()}
    assert {g["name"]: {keys[id(p)] for p in g["params"]} for g in optimizer.param_groups} == expected


def test_what_a_function_left_without_parameters_takes_the_first_into_its_first_group() -> None:
    optimizer = make({}, lambda given: torch.optim.SGD(given, lr=0.1))
    where = groups_of(optimizer)
    assert where("a.bias", nn.Parameter(torch.zeros(3))) == 0
    optimizer.param_groups[0]["params"].append(nn.Parameter(torch.zeros(1)))
    assert where("a.bias", nn.Parameter(torch.zeros(3))) is None


# -- muon --------------------------------------------------------------------------------------------------------------


def stepped(
    parameters: Mapping[str, nn.Parameter], optimizers: Sequence[torch.optim.Optimizer], steps: int = 3
) -> None:
    for number in range(steps):
        drawing = torch.Generator().manual_seed(number)
        for parameter in parameters.values():
            parameter.grad = torch.randn(parameter.shape, generator=drawing)
        for optimizer in optimizers:
            optimizer.step()


def test_muon_steps_matrices_and_adamw_all_else() -> None:
    def given() -> dict[str, nn.Parameter]:
        return parameters() | {"kernel": nn.Parameter(torch.ones(2, 3, 3, 3))}

    one, other = given(), given()
    optimizer = make(one, config(name="muon", learning_rate=0.02, weight_decay=0.3, momentum=0.8, ns_steps=4))
    stepped(one, [optimizer])
    matrices = [parameter for parameter in other.values() if parameter.ndim == 2]
    vectors = [parameter for parameter in other.values() if parameter.ndim == 1]
    muon = torch.optim.Muon(
        matrices, lr=0.02, weight_decay=0.3, momentum=0.8, ns_steps=4, adjust_lr_fn="match_rms_adamw"
    )
    groups: list[dict[str, Any]] = [{"params": [other["kernel"]]}, {"params": vectors, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=0.02, weight_decay=0.3)
    stepped(other, [muon, adamw])
    assert all(torch.equal(one[key], other[key]) for key in one)
    everything = make(given(), config(name="Muon", weight_decay=0.5, decay="all"))
    assert [group["weight_decay"] for group in everything.param_groups] == [0.5] * 3
    for empty in (make({}, config(name="Muon")), make({"a.bias": nn.Parameter(torch.ones(3))}, config(name="Muon"))):
        empty.step()


def test_muon_is_called_and_scheduled_as_any_optimizer() -> None:
    given, calls = parameters(), list[str]()
    optimizer = make(given, config(name="muon", learning_rate=0.1))
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    scheduler = schedule(optimizer, RateConfig(name="one_cycle"), 8)
    assert scheduler is not None
    for _ in range(8):
        stepped(given, [optimizer], 1)
        scheduler.step()
    assert calls == ["before", "after"] * 8
    assert len({group["lr"] for group in optimizer.param_groups}) == 1
    stepped_by = optimizer.step(lambda: 2.5)
    assert stepped_by == 2.5


def test_muon_grows_as_one_optimizer_and_its_state_is_saved_as_one() -> None:
    module = small().to_torch()
    given = dict(module.named_parameters())
    optimizer = make(given, config(name="muon"))
    stepped(given, [optimizer])
    grown, report = live.grow(module, Widen(node="a", by=2), optimizer, groups=groups_of(optimizer))
    parameters_now = dict(grown.named_parameters())
    for key, parameter in parameters_now.items():
        slots = optimizer.state[parameter]
        entries = {"momentum_buffer"} if parameter.ndim == 2 else {"exp_avg", "exp_avg_sq"}
        assert entries <= slots.keys()
        assert all(slots[entry].shape == parameter.shape for entry in entries), key
    assert any("Muon" in note for note in report.notes)
    state = optimizer_state(optimizer, parameters_now)
    again = make(parameters_now, config(name="muon"))
    restore_optimizer(again, state, parameters_now)
    assert optimizer_state(again, parameters_now).rest == state.rest
