"""Groups, names, schedulers and scalers: what holds the optimizer goes on as if nothing had happened."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from growir import live
from growir.graph import Graph, Node
from growir.live.relatives import Relative, nearest
from growir.ops import Add, BatchNorm, Conv2d, Flatten, Linear, Relu
from growir.passes import AddNode, EliminateDead, Widen
from growir.testing import random_batch
from tests.live.training import module_of, one_step, params_of, twins
from tests.samples import graph_of, mlp, residual_convnet


def two_towers() -> Graph:
    """A convolution with a norm, then linear layers: matrices and vectors of several kinds."""
    return graph_of(
        (2, 3, 3),
        Node(name="conv", op=Conv2d(out_channels=3, kernel_size=3, padding=1), inputs=("x",)),
        Node(name="norm", op=BatchNorm(), inputs=("conv",)),
        Node(name="act", op=Relu(), inputs=("norm",)),
        Node(name="flat", op=Flatten(), inputs=("act",)),
        Node(name="fc1", op=Linear(out_features=4), inputs=("flat",)),
        Node(name="act1", op=Relu(), inputs=("fc1",)),
        Node(name="fc2", op=Linear(out_features=4), inputs=("act1",)),
        Node(name="act2", op=Relu(), inputs=("fc2",)),
        Node(name="head", op=Linear(out_features=2), inputs=("act2",)),
    )


def names_in(optimizer: torch.optim.Optimizer, module: nn.Module) -> list[list[str]]:
    """The keys of each group's parameters."""
    keys = {id(p): key for key, p in module.named_parameters()}
    return [[keys[id(p)] for p in group["params"]] for group in optimizer.param_groups]


def test_membership_goes_by_name_and_settings_stay() -> None:
    module, batch = module_of(two_towers()), random_batch(two_towers())
    matrices = [p for p in module.parameters() if p.ndim > 1]
    vectors = [p for p in module.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": vectors, "weight_decay": 0.0, "lr": 0.02}, {"params": matrices, "lr": 0.01, "mine": "kept"}]
    )
    groups, lists = list(optimizer.param_groups), [group["params"] for group in optimizer.param_groups]
    before = names_in(optimizer, module)
    one_step(module, optimizer, batch)
    module, report = live.grow(module, Widen(node="fc1", by=2), optimizer)
    assert names_in(optimizer, module) == before
    module, report = live.grow(module, AddNode(source="act1", target="fc2", width=3, activation="relu"), optimizer)
    assert names_in(optimizer, module) == [
        ["conv.bias", "norm.weight", "norm.bias", "fc1.bias", "node_1.linear.bias", "fc2.bias", "head.bias"],
        ["conv.weight", "fc1.weight", "node_1.linear.weight", "edge_1.weight", "fc2.weight", "head.weight"],
    ] or names_in(optimizer, module) == [
        ["conv.bias", "norm.weight", "norm.bias", "fc1.bias", "fc2.bias", "node_1.linear.bias", "head.bias"],
        ["conv.weight", "fc1.weight", "fc2.weight", "node_1.linear.weight", "edge_1.weight", "head.weight"],
    ]
    places = {change.key: change.place for change in report.changes}
    assert places == {
        "node_1.linear.weight": live.Place(0, 1),
        "node_1.linear.bias": live.Place(0, 0),
        "edge_1.weight": live.Place(0, 1),
    }
    for group, params, was in zip(optimizer.param_groups, lists, groups, strict=True):
        assert group is was
        assert group["params"] is params
    assert optimizer.param_groups[0]["weight_decay"] == 0
    assert optimizer.param_groups[1]["mine"] == "kept"
    one_step(module, optimizer, batch)


def test_a_dropped_parameter_leaves_and_its_state_with_it() -> None:
    graph = residual_convnet()
    dead = Node(name="dead", op=Linear(out_features=3), inputs=("flat",))
    module = module_of(graph.replace(nodes=[*graph.nodes, dead]))
    batch = random_batch(graph)
    extra = [module.get_parameter("dead.weight"), module.get_parameter("dead.bias")]
    rest = [p for p in module.parameters() if not any(p is e for e in extra)]
    optimizer = torch.optim.SGD([{"params": extra}, {"params": rest}], lr=0.1, momentum=0.9)
    for p in extra:
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert extra[0] in optimizer.state
    module, report = live.grow(module, EliminateDead(), optimizer)
    # An empty group stays: schedulers count groups.
    assert [len(group["params"]) for group in optimizer.param_groups] == [0, len(rest)]
    assert not any(p in optimizer.state for p in extra)
    assert [str(change) for change in report.changes] == ["- dead.weight  3x6", "- dead.bias  3"] or len(
        report.changes
    ) == 2
    one_step(module, optimizer, batch)


def test_parameters_of_other_modules_stay_where_they_are() -> None:
    module, batch = module_of(mlp()), random_batch(mlp())
    temperature = nn.Parameter(torch.ones(1))
    head = [module.get_parameter("head.weight"), module.get_parameter("head.bias")]
    body = [module.get_parameter("fc1.weight"), temperature, module.get_parameter("fc1.bias")]
    first = torch.optim.Adam(body, lr=0.01)
    second = torch.optim.SGD(head, lr=0.01, momentum=0.9)
    one_step(module, first, batch)
    one_step(module, second, batch)
    module, report = live.grow(module, Widen(node="fc1", by=1), [first, second])
    assert first.param_groups[0]["params"][1] is temperature
    assert [tuple(p.shape) for p in first.param_groups[0]["params"]] == [(5, 3), (1,), (5,)]
    places = {change.key: change.place for change in report.changes}
    assert places == {
        "fc1.weight": live.Place(0, 0),
        "fc1.bias": live.Place(0, 0),
        "head.weight": live.Place(1, 0),
    }
    assert second.state[second.param_groups[0]["params"][0]]["momentum_buffer"].shape == (2, 5)


def test_what_no_optimizer_trains_is_told() -> None:
    module = module_of(mlp())
    optimizer = torch.optim.Adam([module.get_parameter("fc1.weight")])
    _, report = live.grow(module, Widen(node="fc1", by=1), optimizer)
    assert report.untrained == ("fc1.bias", "head.weight", "head.bias")
    assert "in no optimizer: fc1.bias, head.weight, head.bias" in str(report)


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_names_that_an_optimizer_keeps_follow(prefix: str) -> None:
    module = module_of(mlp())
    named = [(prefix + key, p) for key, p in module.named_parameters()]
    optimizer = torch.optim.Adam(named)
    module, _ = live.grow(module, AddNode(source="x", target="head", width=2), optimizer)
    (group,) = optimizer.param_groups
    assert group["param_names"] == [prefix + key for key, _ in module.named_parameters()]
    assert [id(p) for p in group["params"]] == [id(p) for p in module.parameters()]


SCHEDULERS: dict[str, Any] = {
    "step": lambda o: torch.optim.lr_scheduler.StepLR(o, 2, 0.5),
    "lambda": lambda o: torch.optim.lr_scheduler.LambdaLR(o, [lambda k: 1 / (k + 1), lambda k: 2 / (k + 2)]),
    "one cycle": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, [0.1, 0.2], total_steps=12),
    "cosine": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 10),
    "swa": lambda o: torch.optim.swa_utils.SWALR(o, swa_lr=0.05, anneal_epochs=5),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_go_on(name: str) -> None:
    """Rates, momenta and steps after growth are those of a run that did not grow."""
    module, batch = module_of(mlp()), random_batch(mlp())
    optimizer = torch.optim.AdamW(
        [{"params": [p for p in module.parameters() if (p.ndim > 1) is flag]} for flag in (True, False)], lr=0.1
    )
    scheduler = SCHEDULERS[name](optimizer)
    other = copy.deepcopy((module, optimizer))
    other_scheduler = SCHEDULERS[name](other[1])
    for step in range(6):
        if step == 3:
            module, _ = live.grow(module, Widen(node="fc1", by=2), optimizer)
        one_step(module, optimizer, batch)
        scheduler.step()
        one_step(other[0], other[1], batch)
        other_scheduler.step()
        kept = ("lr", "betas", "weight_decay")
        found = [[group[key] for key in kept] for group in optimizer.param_groups]
        assert found == [[group[key] for key in kept] for group in other[1].param_groups]


def test_a_gradient_scaler_goes_on() -> None:
    module, batch = module_of(mlp(), torch.float32), [x.float() for x in random_batch(mlp())]
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    # Between unscale_ and step: the accumulated gradients go along.
    torch.autograd.backward(scaler.scale(module(*batch).square().sum()))
    scaler.unscale_(optimizer)
    wanted = module.get_parameter("head.bias").grad
    module, _ = live.grow(module, Widen(node="fc1", by=2), optimizer)
    before = module.get_parameter("head.bias").detach().clone()
    scaler.step(optimizer)
    scaler.update()
    assert wanted is not None
    torch.testing.assert_close(module.get_parameter("head.bias").detach(), before - 0.01 * wanted)
    assert scaler.get_scale() == 1024.0


def key_of(relative: Relative | None) -> str | None:
    return None if relative is None else relative.key


def test_the_nearest_relative_is_alike_first_and_close_second() -> None:
    graph = two_towers().replace(
        nodes=[
            *two_towers().nodes[:-1],
            Node(name="new", op=Linear(out_features=4), inputs=("act1",)),
            Node(name="newnorm", op=BatchNorm(), inputs=("new",)),
            Node(name="sum", op=Add(), inputs=("act2", "newnorm")),
            two_towers().nodes[-1].with_inputs(["sum"]),
        ]
    )
    old = list(params_of(two_towers(), module_of(two_towers())))
    assert key_of(nearest(graph, "new.weight", old)) == "fc2.weight"  # as near as fc1, and reads an activation too
    assert key_of(nearest(graph, "new.bias", old)) == "fc2.bias"
    assert key_of(nearest(graph, "newnorm.weight", old)) == "norm.weight"  # far away, but a norm's
    assert key_of(nearest(graph, "new.weight", ["conv.weight", "head.bias"])) == "conv.weight"
    assert key_of(nearest(graph, "new.weight", ["conv.bias", "head.bias"])) == "head.bias"
    assert nearest(graph, "new.weight", []) is None


def test_a_copy_trained_beside_takes_no_part() -> None:
    """The old module's optimizer copy keeps its own tensors."""
    module, batch = module_of(mlp()), random_batch(mlp())
    optimizer = torch.optim.Adam(module.parameters())
    one_step(module, optimizer, batch)
    other, other_optimizer = twins(module, optimizer)
    live.grow(module, Widen(node="fc1", by=1), optimizer)
    assert all(slots["exp_avg"].shape == p.shape for p, slots in other_optimizer.state.items())
    one_step(other, other_optimizer, batch)
