"""Which optimizers grow along: one row a class, what others say of theirs, and nothing by the look of its state."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from growir import live
from growir.errors import GrowirError, ModelError
from growir.live import rows
from growir.live.rows import Row
from growir.passes import AddNode, Split, Widen
from growir.testing import random_batch
from tests.live.thirdparty import (
    Clipping,
    EightBit,
    KellerMuon,
    Lamb,
    LightningOptimizer,
    Lion,
    ListLookahead,
    Lookahead,
    Prodigy,
    Sam,
    ScheduleFree,
    Shampoo,
)
from tests.live.training import loss_of, module_of, one_step, snapshot
from tests.samples import mlp

STEP = Widen(node="fc1", by=2)
Make = Callable[[list[nn.Parameter]], Optimizer]


@pytest.fixture(autouse=True)
def own_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(rows, "_ROWS", dict(rows._ROWS))
    monkeypatch.setattr(rows, "_REFUSED", dict(rows._REFUSED))


def trained(make: Make, steps: int = 3) -> tuple[nn.Module, Optimizer, Any]:
    module, batch = module_of(mlp()), random_batch(mlp())
    optimizer = make(list(module.parameters()))
    for _ in range(steps):
        step(module, optimizer, batch)
    return module, optimizer, batch


def step(module: nn.Module, optimizer: Optimizer, batch: Any) -> None:
    if not isinstance(optimizer, Sam):
        one_step(module, optimizer, batch)
        return

    def closure() -> None:
        optimizer.zero_grad()
        loss = loss_of(module, batch)
        assert loss is not None
        torch.autograd.backward(loss)

    closure()
    optimizer.step(closure)


# -- carried ----------------------------------------------------------------------------------------------------------

CARRIED: dict[str, tuple[Make, dict[type[Optimizer], dict[str, live.Follows]]]] = {
    "lion": (Lion, {Lion: {"exp_avg": "gradient"}}),
    "schedule free": (ScheduleFree, {ScheduleFree: {"z": "weight", "exp_avg_sq": "square"}}),
    "lookahead": (
        lambda p: Lookahead(torch.optim.AdamW(p, weight_decay=0.0)),
        {Lookahead: {"lookahead_slow_buff": "weight"}},
    ),
    "lookahead of lion": (
        lambda p: Lookahead(Lion(p)),
        {Lookahead: {"lookahead_slow_buff": "weight"}, Lion: {"exp_avg": "gradient"}},
    ),
    "clipping": (lambda p: Clipping(torch.optim.Adam(p)), {}),
    "lightning": (lambda p: cast("Optimizer", LightningOptimizer(torch.optim.Adam(p))), {}),
    "asgd": (lambda p: torch.optim.ASGD(p, t0=1.0), {}),
    "fused subclass": (lambda p: type("Mine", (torch.optim.Adam,), {"helper": lambda self: 1})(p, lr=0.01), {}),
}


@pytest.mark.parametrize("name", CARRIED)
def test_the_old_coordinates_go_on(name: str) -> None:
    """Several steps after growth by what no loss reads yet, the old coordinates are where they would have been."""
    make, known = CARRIED[name]
    for kind, entries in known.items():
        live.register(kind, entries)
    module, optimizer, batch = trained(make)
    old, old_optimizer, _ = trained(make)  # the same again: torch's copies of optimizers keep state and groups alone
    grown, report = live.grow(module, STEP, optimizer)
    assert not report.notes
    assert not report.untrained
    # The first step only: from then on the fresh units feed what follows.
    step(old, old_optimizer, batch)
    step(grown, optimizer, batch)
    for key, p in grown.named_parameters():
        wanted = old.get_parameter(key)
        place = tuple(slice(0, n) for n in wanted.shape)
        torch.testing.assert_close(p[place], wanted.data, rtol=1e-9, atol=1e-9)
    # All that has a weight's shape has the grown one's, in every optimizer, and nothing of the old is left behind.
    for each in (optimizer, *(other for _, other in rows.held_by(optimizer))):
        assert {id(p) for p in each.state} <= {id(p) for p in grown.parameters()}
        for held, slots in each.state.items():
            assert all(v.shape == held.shape for v in slots.values() if isinstance(v, torch.Tensor) and v.ndim)
        assert [id(p) for p in each.param_groups[0]["params"]] == [id(p) for p in grown.parameters()]
    grown, report = live.grow(grown, AddNode(source="x", target="head", width=2), optimizer)
    assert not report.untrained
    step(grown, optimizer, batch)


def test_slow_weights_start_where_fresh_ones_do() -> None:
    live.register(Lookahead, {"lookahead_slow_buff": "weight"})
    module, optimizer, _ = trained(lambda p: Lookahead(torch.optim.Adam(p)), steps=4)
    grown, _ = live.grow(module, STEP, optimizer)
    weight = grown.get_parameter("fc1.weight")
    assert torch.equal(optimizer.state[weight]["lookahead_slow_buff"][4:], weight[4:])


BY_TENSOR: dict[str, tuple[Make, dict[str, live.Follows]]] = {
    "Muon": (lambda p: torch.optim.Muon([each for each in p if each.ndim == 2], lr=0.01), {}),
    "KellerMuon": (KellerMuon, {"momentum_buffer": "gradient"}),
    "Lamb": (Lamb, {"exp_avg": "gradient", "exp_avg_sq": "square"}),
    "Prodigy": (Prodigy, {"p0": "weight", "s": "gradient", "exp_avg_sq": "square"}),
    "Sam": (lambda p: Sam(p, torch.optim.SGD, lr=0.01, momentum=0.9), {"old_p": "weight"}),
}


@pytest.mark.parametrize("name", BY_TENSOR)
def test_what_steps_by_whole_tensors_is_carried_and_noted(name: str) -> None:
    make, entries = BY_TENSOR[name]
    if entries:
        kind = {"KellerMuon": KellerMuon, "Lamb": Lamb, "Prodigy": Prodigy, "Sam": Sam}[name]
        live.register(kind, entries, coordinatewise=False)
    module, optimizer, batch = trained(make)
    before = {k: dict(optimizer.state[p]) for k, p in module.named_parameters() if p in optimizer.state}
    grown, report = live.grow(module, STEP, optimizer)
    assert any(note.startswith(f"{name} steps by whole tensors") for note in report.notes)
    assert "another one on old coordinates too" in " ".join(str(report).split())
    for key, slots in before.items():
        for entry, value in slots.items():
            if isinstance(value, torch.Tensor) and value.ndim:
                found = optimizer.state[grown.get_parameter(key)][entry]
                assert torch.equal(found[tuple(slice(0, n) for n in value.shape)], value), (key, entry)
    step(grown, optimizer, batch)
    # Of a rewrite that changes none of its tensors there is nothing to say.
    _, report = live.grow(grown, AddNode(source="x", target="head", width=2), optimizer)
    assert not report.notes


def test_what_starts_anew_is_dropped_and_only_that() -> None:
    live.register(Shampoo, None)
    module, optimizer, batch = trained(Shampoo)
    bias = optimizer.state[module.get_parameter("head.bias")]
    grown, _ = live.grow(module, STEP, optimizer)
    assert optimizer.state[grown.get_parameter("head.bias")] is bias
    assert not any(grown.get_parameter(key) in optimizer.state for key in ("fc1.weight", "fc1.bias", "head.weight"))
    step(grown, optimizer, batch)
    assert optimizer.state[grown.get_parameter("fc1.weight")]["step"] == 1
    assert bias["step"] == 4


# -- refused ----------------------------------------------------------------------------------------------------------


class Overriding(torch.optim.Adam):
    """Looks like Adam, and is not."""

    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


class Stepping:
    def step(self, closure: Any = None) -> Any:
        """Another step."""


class Mixed(Stepping, torch.optim.SGD):
    """A step from one parent, a row from the other."""


def refusals() -> Iterator[tuple[str, Make, str]]:
    yield "lion", Lion, r"Lion is a class that growth does not know.*'exp_avg' \[4, 3\].*live\.register\(Lion, "
    yield "keller muon", KellerMuon, "KellerMuon is a class that growth does not know"
    yield "lookahead", lambda p: Lookahead(torch.optim.AdamW(p)), r"Lookahead is .*`_base_optimizer`, a AdamW, which"
    yield "inner", lambda p: Clipping(Lion(p)), "Lion is a class that growth does not know"
    yield "sam", lambda p: Sam(p, torch.optim.SGD, lr=0.01), "Sam is a class that growth does not know"
    yield "lists", lambda p: ListLookahead(torch.optim.SGD(p)), "ListLookahead is a class that growth does not know"
    yield "overriding", Overriding, "Overriding replaces step of Adam"
    yield "mixed", Mixed, "Mixed replaces .*step of SGD"
    yield "lbfgs", torch.optim.LBFGS, "LBFGS keeps one flat history of all parameters"
    yield "adafactor", torch.optim.Adafactor, r"Adafactor keeps second moments of whole rows.*register\(torch"


@pytest.mark.parametrize(("make", "words"), [r[1:] for r in refusals()], ids=[r[0] for r in refusals()])
def test_what_is_not_known_is_refused_by_name(make: Make, words: str) -> None:
    module, batch = module_of(mlp()), random_batch(mlp())
    optimizer = make(list(module.parameters()))
    if not isinstance(optimizer, torch.optim.LBFGS):
        for _ in range(2):
            step(module, optimizer, batch)
    unchanged = snapshot(module, optimizer)
    with pytest.raises(ModelError, match=words):
        live.grow(module, STEP, optimizer)
    unchanged()


def test_an_optimizer_whose_inner_one_is_unknown_is_refused() -> None:
    live.register(Lookahead, {"lookahead_slow_buff": "weight"})
    module, optimizer, _ = trained(lambda p: Lookahead(Lion(p)))
    with pytest.raises(ModelError, match="Lion is a class that growth does not know"):
        live.grow(module, STEP, optimizer)


def test_state_that_is_not_as_its_row_says_is_refused() -> None:
    live.register(EightBit, {"state1": "gradient"})
    module, optimizer, _ = trained(EightBit)
    with pytest.raises(
        GrowirError, match=r"EightBit's state 'state1' of \w+\.\w+ is uint8, a code.*register\(EightBit, None"
    ):
        live.grow(module, STEP, optimizer)
    live.register(Shampoo, {})
    module, optimizer, _ = trained(Shampoo)
    with pytest.raises(GrowirError, match=r"Shampoo's state 'precond' of \w+\.\w+ is a list"):
        live.grow(module, STEP, optimizer)
    live.register(Lion, {})
    module, optimizer, _ = trained(Lion)
    with pytest.raises(GrowirError, match=r"'exp_avg' of \w+\.\w+ is no scalar.*known are none"):
        live.grow(module, STEP, optimizer)
    module, optimizer, _ = trained(torch.optim.Adam)
    optimizer.state[module.get_parameter("fc1.weight")]["exp_avg"] = torch.zeros(3)
    with pytest.raises(GrowirError, match=r"Adam's state 'exp_avg' of fc1\.weight has shape \[3\]"):
        live.grow(module, STEP, optimizer)


def test_tensors_beside_the_state_are_refused() -> None:
    live.register(ListLookahead, {})
    module, optimizer, _ = trained(lambda p: ListLookahead(torch.optim.SGD(p)))
    with pytest.raises(
        ModelError, match="ListLookahead keeps tensors outside of its `state`, in its attribute 'slow_w"
    ):
        live.grow(module, STEP, optimizer)
    module, optimizer, _ = trained(torch.optim.SGD)
    optimizer.param_groups[0]["update_buffer"] = torch.zeros(7)
    with pytest.raises(ModelError, match="SGD keeps tensors outside of its `state`, in group 0's 'update_buffer'"):
        live.grow(module, STEP, optimizer)
    optimizer.param_groups[0]["update_buffer"] = torch.zeros(())  # a number, such as a rate for CUDA graphs
    live.grow(module, STEP, optimizer)


def test_no_optimizer_and_a_strange_one_are_refused() -> None:
    module = module_of(mlp())
    with pytest.raises(ModelError, match="the Adam holds no parameter of this module"):
        live.grow(module, STEP, torch.optim.Adam(module_of(mlp()).parameters()))
    with pytest.raises(ModelError, match=r"a torch\.optim\.Optimizer is needed, but this is a dict"):
        live.grow(module, STEP, [{}])  # type: ignore[list-item]


def test_register_checks_what_it_is_told() -> None:
    with pytest.raises(
        ModelError, match=r"register: a subclass of torch\.optim\.Optimizer is needed, but this is 'Lion'"
    ):
        live.register("Lion", {})  # type: ignore[arg-type]
    with pytest.raises(
        ModelError, match="entry 'exp_avg' follows 'slope', but must follow one of 'gradient', 'square'"
    ):
        live.register(Lion, {"exp_avg": "slope"})  # type: ignore[dict-item]


def test_every_optimizer_of_torch_has_a_row_or_a_reason() -> None:
    kinds = {k for k in vars(torch.optim).values() if isinstance(k, type) and issubclass(k, Optimizer)} - {Optimizer}
    known = rows._ROWS.keys() | rows._REFUSED.keys()
    assert kinds == {kind for kind in known if kind.__module__.startswith("torch.")}
    assert all(isinstance(row, Row) for row in rows._ROWS.values())


def test_fresh_is_one_of_three_words() -> None:
    module, optimizer, _ = trained(torch.optim.Adam)
    with pytest.raises(ModelError, match="fresh: one of 'small', 'mean', 'zero' is needed, but it is 'tiny'"):
        live.grow(module, STEP, optimizer, fresh="tiny")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="copies: one of 'carried', 'fresh' is needed, but it is 'anew'"):
        live.grow(module, STEP, optimizer, copies="anew")  # type: ignore[arg-type]
    for fresh, factor in (("small", 1e-4), ("mean", 1.0), ("zero", 0.0)):
        other, other_optimizer = copy.deepcopy((module, optimizer))
        old = other_optimizer.state[other.get_parameter("fc1.weight")]["exp_avg_sq"]
        grown, _ = live.grow(other, STEP, other_optimizer, fresh=fresh)  # type: ignore[arg-type]
        new = other_optimizer.state[grown.get_parameter("fc1.weight")]["exp_avg_sq"]
        assert torch.equal(new[:4], old)
        torch.testing.assert_close(new[4:], factor * old.mean(0, keepdim=True).expand(2, -1))


@pytest.mark.parametrize(("copies", "apart"), [("carried", False), ("fresh", True)])
def test_copies_of_equal_shares_part_under_adam_only_with_state_of_their_own(
    copies: live.CopyState, apart: bool
) -> None:
    """The first of each pair goes on with the old unit's next step in either case."""
    module, optimizer, batch = trained(torch.optim.Adam)
    old, old_optimizer, _ = trained(torch.optim.Adam)
    split = Split(node="fc1", channels=(0, 1, 2, 3), shares=(0.5,) * 4)
    grown, _ = live.grow(module, split, optimizer, copies=copies)
    before = grown.get_parameter("fc1.weight").detach().clone()
    first = [int(before.eq(row).all(1).nonzero()[0]) for row in old.get_parameter("fc1.weight").detach()]
    assert len(set(first)) == 4
    step(grown, optimizer, batch)
    step(old, old_optimizer, batch)
    after = grown.get_parameter("fc1.weight").detach()
    torch.testing.assert_close(after[first], old.get_parameter("fc1.weight").detach(), rtol=1e-6, atol=1e-6)
    for _ in range(20):
        step(grown, optimizer, batch)
    after = grown.get_parameter("fc1.weight").detach()
    others = [k for k in range(8) if k not in first]
    partner = [others[int(before[others].eq(before[k]).all(1).nonzero()[0])] for k in first]
    moved = (after[first] - before[first]).abs().max()
    assert (float((after[first] - after[partner]).abs().max()) > 1e-2 * float(moved)) == apart
