"""Over-grown networks: what they give, what they leave alone, what they hold in memory, and what is cut out of them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from growir import live
from growir.addresses import Address
from growir.backends.torch_fx.lowering import lower_tensors
from growir.edits import Remap
from growir.errors import GrowirError, PassRefused
from growir.graph import Graph, Node
from growir.growth.measure import overgrown
from growir.growth.measure.overgrown import OverGrown
from growir.ops import AdaptiveAvgPool2d, Add, BatchNorm, Concat, Conv2d, Flatten, Linear, Relu, Tanh
from growir.passes import AddNode, InsertBlock, Sequence, Split, Update, Widen
from growir.rewrite import Pass
from growir.testing import random_network
from tests.laws.test_resizing import shuffled
from tests.samples import graph_of, mlp


def module_of(graph: Graph, dtype: torch.dtype = torch.float64, seed: int = 0) -> fx.GraphModule:
    return random_network(graph, seed).to_torch(dtype=dtype)


def batch_of(graph: Graph, dtype: torch.dtype = torch.float64, size: int = 6) -> torch.Tensor:
    (entry,) = graph.inputs
    sizes = [each for each in entry.shape if each != "N"]
    return torch.randn((size, *sizes), generator=torch.Generator().manual_seed(1), dtype=dtype)


def numbers(over: OverGrown, scale: float = 0.3, seed: int = 2) -> dict[str, torch.Tensor]:
    """Numbers for every place that is not a norm's variance, which must stay above zero."""
    generator = torch.Generator().manual_seed(seed)
    start = over.start()
    return {
        address: tensor
        if address.endswith("running_var")
        else scale * torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
        for address, tensor in start.items()
    }


def dense() -> Graph:
    return graph_of(
        (3,),
        Node(name="a", op=Linear(out_features=4), inputs=("x",)),
        Node(name="ra", op=Tanh(), inputs=("a",)),
        Node(name="b", op=Linear(out_features=5), inputs=("ra",)),
        Node(name="rb", op=Relu(), inputs=("b",)),
        Node(name="head", op=Linear(out_features=2), inputs=("rb",)),
    )


def residual() -> Graph:
    """A stem and two residual blocks with batch norm: three producers of one space, and a space inside each block."""
    nodes = [Node(name="stem", op=Conv2d(out_channels=3, kernel_size=3, padding=1), inputs=("x",))]
    before = "stem"
    for k in "pq":
        nodes += [
            Node(name=f"{k}.one", op=Conv2d(out_channels=4, kernel_size=3, padding=1, bias=False), inputs=(before,)),
            Node(name=f"{k}.norm1", op=BatchNorm(), inputs=(f"{k}.one",)),
            Node(name=f"{k}.act", op=Relu(), inputs=(f"{k}.norm1",)),
            Node(
                name=f"{k}.two", op=Conv2d(out_channels=3, kernel_size=3, padding=1, bias=False), inputs=(f"{k}.act",)
            ),
            Node(name=f"{k}.norm2", op=BatchNorm(), inputs=(f"{k}.two",)),
            Node(name=f"{k}.sum", op=Add(), inputs=(before, f"{k}.norm2")),
            Node(name=f"{k}.out", op=Relu(), inputs=(f"{k}.sum",)),
        ]
        before = f"{k}.out"
    return graph_of(
        (2, 6, 6),
        *nodes,
        Node(name="pool", op=AdaptiveAvgPool2d(), inputs=(before,)),
        Node(name="flat", op=Flatten(), inputs=("pool",)),
        Node(name="head", op=Linear(out_features=2), inputs=("flat",)),
    )


def depthwise() -> Graph:
    return graph_of(
        (2, 6, 6),
        Node(name="up", op=Conv2d(out_channels=4, kernel_size=1), inputs=("x",)),
        Node(name="norm", op=BatchNorm(), inputs=("up",)),
        Node(name="deep", op=Conv2d(kernel_size=3, padding=1, depthwise=True, multiplier=2), inputs=("norm",)),
        Node(name="act", op=Relu(), inputs=("deep",)),
        Node(name="down", op=Conv2d(out_channels=3, kernel_size=1), inputs=("act",)),
        Node(name="flat", op=Flatten(), inputs=("down",)),
        Node(name="head", op=Linear(out_features=2), inputs=("flat",)),
    )


def flattened() -> Graph:
    """One channel of the convolution is nine columns of the linear layer, and the concatenation has it twice."""
    return graph_of(
        (2, 5, 5),
        Node(name="conv", op=Conv2d(out_channels=3, kernel_size=3), inputs=("x",)),
        Node(name="act", op=Tanh(), inputs=("conv",)),
        Node(name="cat", op=Concat(), inputs=("act", "conv")),
        Node(name="flat", op=Flatten(), inputs=("cat",)),
        Node(name="fc", op=Linear(out_features=4), inputs=("flat",)),
        Node(name="rfc", op=Relu(), inputs=("fc",)),
        Node(name="head", op=Linear(out_features=2), inputs=("rfc",)),
    )


CASES: dict[str, tuple[Graph, tuple[Widen, ...], dict[int, list[int]]]] = {
    "dense": (dense(), (Widen(node="a", by=3), Widen(node="b", by=4)), {0: [2], 1: [0, 3]}),
    "dense, one of two": (dense(), (Widen(node="a", by=3), Widen(node="b", by=4)), {1: [1]}),
    "residual": (
        residual(),
        (Widen(node="stem", by=3), Widen(node="p.one", by=2), Widen(node="q.one", by=3)),
        {0: [0, 2], 1: [1], 2: [2, 0]},
    ),
    "depthwise": (depthwise(), (Widen(node="up", by=3), Widen(node="down", by=2)), {0: [1], 1: [1]}),
    "flatten": (flattened(), (Widen(node="conv", by=3), Widen(node="fc", by=3)), {0: [0, 2], 1: [1]}),
    "groups": (shuffled(), (Widen(node="rows@2:0", by=18), Widen(node="grouped", by=9)), {0: [1], 1: [0, 2]}),
}


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("case", CASES)
def test_what_is_chosen_gives_what_the_over_grown_network_gives(case: str, train: bool) -> None:
    """The others' outgoing numbers at zero: then they are not there. Batch norm normalises each channel by itself."""
    graph, widen, units = CASES[case]
    step = Sequence(passes=widen)
    module = module_of(graph).train(train)
    over = OverGrown(module, step)
    given, x = numbers(over), batch_of(graph)
    # Where new units meet, those that go are read too: their corners are zero as a rule, and here.
    given = {a: torch.zeros_like(block) if "+" in a else block for a, block in given.items()}
    chosen = over.chosen(units, given)
    grown, _ = live.grow(copy.deepcopy(module), chosen)
    gates = dict(given)
    for k in range(len(widen)):
        for address, axis, unit_of in reading(over, k):
            gone = [at for at, unit in enumerate(unit_of) if unit not in units.get(k, [])]
            gates[address] = given[address].index_fill(axis, torch.tensor(gone, dtype=torch.int64), 0.0)
    before, found = module(x), grown(x)
    (wanted,) = over(gates, x)
    assert (wanted - before).abs().max() > 1e-3 * before.abs().max()
    assert (wanted - found).abs().max() <= 1e-10 * wanted.abs().max()
    assert chosen == over.chosen({k: [*reversed(each)] for k, each in units.items()}, given)


def reading(over: OverGrown, k: int) -> Iterator[tuple[Address, int, list[int]]]:
    """For each block of pass k that reads its new units: its address, its axis, and the unit of each position."""
    graph = live.network_of(over.module).graph
    assert isinstance(over.step, Sequence)
    widen = over.step.passes[k]
    assert isinstance(widen, Widen)
    slots = {(slot.parameter, slot.axis) for slot in widen.space(graph).consumers}
    for edit in over.step.rewrite(graph).edits:
        for place in edit.places if isinstance(edit, Remap) else ():
            (axis, *corner) = place.at
            if (place.address.key, axis) in slots and place.address.place == (k,) and not corner:
                strides = np.atleast_2d(place.strides[axis])
                assert (strides == strides[0]).all()
                yield place.address, axis, strides[0].tolist()


def test_what_it_starts_with_is_what_growth_starts_with() -> None:
    """Given every number that the pass would start with, it is the grown module, to the bit."""
    for graph, widen, _ in CASES.values():
        module = module_of(graph).eval()
        step = Sequence(passes=widen)
        over, x = OverGrown(module, step), batch_of(graph)
        grown, _ = live.grow(copy.deepcopy(module), step)
        start = over.start()
        assert {address: tuple(block.shape) for address, block in start.items()} == dict(over.places)
        for given in ({}, start):
            (found,) = over(given, x)
            assert torch.equal(found, grown(x))
        new = over.tensors(start)
        assert all(torch.equal(new[key], value) for key, value in grown.state_dict().items())


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_what_is_chosen_of_splits_gives_what_the_others_give_as_one(train: bool) -> None:
    """Residual streams, spaces inside blocks and a widened one beside them; a pair that nothing parts is its unit."""
    graph = residual()
    module = module_of(graph).train(train)
    step = Sequence(
        passes=(
            Split(node="stem", channels=(2, 0), shares=(0.5, 0.5)),
            Split(node="p.one", channels=(3, 1, 0), shares=(0.5, 0.25, 0.5)),
            Widen(node="q.one", by=2),
        )
    )
    over, x = OverGrown(module, step), batch_of(graph)
    assert over.places["1/p.one.weight"] == (3, 3, 3, 3)
    assert torch.allclose(over({}, x)[0], module(x), rtol=1e-9)
    assert not any(block.any() for address, block in over.start().items() if address.startswith(("0/", "1/")))
    given = {
        address: torch.zeros_like(block) if "norm" in address or "running" in address else block
        for address, block in numbers(over).items()
        if not address.startswith("2/")
    }
    for units, gone in (({0: [1], 1: [0, 2]}, {0: [0], 1: [1]}), ({1: [1]}, {0: [0, 1], 1: [0, 2]})):
        gates = {
            address: block.index_fill(0, torch.tensor(gone[int(address[0])]), 0.0) for address, block in given.items()
        }
        chosen = over.chosen(units, given)
        grown, _ = live.grow(copy.deepcopy(module), chosen)
        (wanted,) = over(gates, x)
        assert (wanted - module(x)).abs().max() > 1e-3 * wanted.abs().max()
        assert (wanted - grown(x)).abs().max() <= 1e-10 * wanted.abs().max()


def test_slopes_reach_what_the_numbers_are_made_of_and_nothing_else() -> None:
    graph = dense()
    module = module_of(graph)
    step = Sequence(passes=(Widen(node="a", by=2), Widen(node="b", by=1)))
    over, x = OverGrown(module, step), batch_of(graph)
    gate = torch.full((2,), 0.5, dtype=torch.float64, requires_grad=True)
    directions = {address: block.requires_grad_() for address, block in numbers(over).items()}

    def outputs(gate: torch.Tensor, corner: torch.Tensor) -> torch.Tensor:
        given = {**directions, "0/b.weight": directions["0/b.weight"] * gate, "1/b.weight/out+in": corner}
        (found,) = over(given, x)
        return found

    assert torch.autograd.gradcheck(outputs, (gate, directions["1/b.weight/out+in"]))
    outputs(gate, directions["1/b.weight/out+in"]).square().sum().backward()  # type: ignore[no-untyped-call]
    assert gate.grad is not None
    assert all(block.grad is not None and bool(block.grad.any()) for block in directions.values())
    assert all(parameter.grad is None for parameter in module.parameters())


def test_slopes_of_the_modules_own_parameters_are_to_be_had_but_not_of_frozen_ones() -> None:
    module = module_of(dense())
    module.get_parameter("a.weight").requires_grad_(False)
    over = OverGrown(module, Widen(node="b", by=1), learns=True)
    (found,) = over({}, batch_of(dense()))
    found.square().sum().backward()  # type: ignore[no-untyped-call]
    assert {key for key, p in module.named_parameters() if p.grad is None} == {"a.weight"}


def test_the_module_is_left_alone_and_its_modes_are_kept() -> None:
    graph = residual()
    module = module_of(graph).train()
    module.get_submodule("p.norm1").eval()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    over, x = OverGrown(module, Widen(node="p.one", by=1)), batch_of(graph)
    grown, _ = live.grow(copy.deepcopy(module), Widen(node="p.one", by=1))
    (found,) = over({}, x)
    assert torch.equal(found, grown(x))
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    (again,) = over({}, x)
    assert torch.equal(again, found)
    grown.eval()
    module.eval()
    (still,) = over({}, x)
    live.grow(module, Widen(node="p.one", by=1))
    assert not torch.equal(still, found)


def test_it_follows_the_module_as_it_is_trained() -> None:
    module = module_of(dense())
    over, x = OverGrown(module, Widen(node="b", by=1)), batch_of(dense())
    (first,) = over({}, x)
    with torch.no_grad():
        module.get_parameter("head.weight").mul_(2)
        module.get_parameter("head.bias").mul_(2)
    assert torch.allclose(over({}, x)[0], 2 * first)


def test_one_lowering_serves_batches_and_growths_of_one_structure(monkeypatch: pytest.MonkeyPatch) -> None:
    lowered: list[Graph] = []

    def counted(graph: Graph, *rest: Any) -> fx.GraphModule:
        lowered.append(graph)
        return lower_tensors(graph, *rest)

    monkeypatch.setattr(overgrown, "lower_tensors", counted)
    overgrown._LOWERED.clear()  # pyright: ignore[reportPrivateUsage]
    x = batch_of(dense())
    for seed in range(3):
        over = OverGrown(module_of(dense(), seed=seed), Widen(node="b", by=1))
        for _ in range(2):
            over({}, x)
    assert len(lowered) == 1
    for by in range(2, 12):
        OverGrown(module_of(dense()), Widen(node="b", by=by))({}, x)
    assert len(lowered) == 11
    assert len(overgrown._LOWERED) == overgrown.KEPT  # pyright: ignore[reportPrivateUsage]


class Allocated(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors that operations bring into being, views left out."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.storages: dict[int, torch.UntypedStorage] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        known = {
            each.untyped_storage().data_ptr() for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)
        }
        for each in tree_leaves(found):
            if isinstance(each, torch.Tensor) and each.untyped_storage().data_ptr() not in known:
                self.storages[each.untyped_storage().data_ptr()] = each.untyped_storage()
        return found

    @property
    def bytes(self) -> int:
        return sum(storage.nbytes() for storage in self.storages.values())


def test_memory_is_the_grown_tensors_and_one_set_of_activations() -> None:
    """Everything that is made while it runs, kept alive: no copy of what does not change, no second forward pass."""
    graph = graph_of(
        (64,),
        Node(name="first", op=Linear(out_features=2000), inputs=("x",)),
        Node(name="act", op=Relu(), inputs=("first",)),
        Node(name="fc", op=Linear(out_features=16), inputs=("act",)),
        Node(name="rfc", op=Relu(), inputs=("fc",)),
        Node(name="head", op=Linear(out_features=2), inputs=("rfc",)),
    )
    module = module_of(graph, torch.float32)
    over = OverGrown(module, Widen(node="fc", by=2))
    x = batch_of(graph, torch.float32, 10)
    over({}, x)
    new = over.tensors({})
    for key in ("first.weight", "first.bias"):
        assert new[key].data_ptr() == module.state_dict()[key].data_ptr()
    code = next(reversed(overgrown._LOWERED.values()))  # pyright: ignore[reportPrivateUsage]
    assert all(p.untyped_storage().nbytes() == 4 for p in code.parameters())
    with Allocated() as forward:
        module(x)
    with Allocated() as whole:
        over({}, x)
    grown = sum(4 * value.numel() for key, value in new.items() if not key.startswith("first"))
    # Each grown axis is gathered, filled and, at most, zeroed: three tensors of that size on the way.
    assert whole.bytes <= 1.05 * forward.bytes + 4 * grown
    assert 4 * new["first.weight"].numel() > 0.5 * (whole.bytes - forward.bytes)  # had it been copied, it would show


def test_passes_of_other_kinds_stay_whole_or_go() -> None:
    graph = mlp()
    block = graph_of((4,), Node(name="head", op=Linear(out_features=4), inputs=("x",)))
    step = Sequence(
        passes=(
            AddNode(source="x", target="head", width=2),
            AddNode(source="act1", target="head", width=1),
            Widen(node="fc1", by=3),
            Update(parameters=("head.bias",)),
        )
    )
    module = module_of(graph)
    over, x = OverGrown(module, step), batch_of(graph)
    given = numbers(over)
    whole, _ = live.grow(copy.deepcopy(module), over.chosen({0: None, 1: None, 2: None, 3: None}, given))
    assert torch.allclose(whole(x), over(given, x)[0], rtol=1e-12)
    # The second new node alone has the name of the first, and its own numbers.
    second = over.chosen({1: None, 2: [0, 2]}, given)
    grown, _ = live.grow(copy.deepcopy(module), second)
    assert torch.equal(grown.get_parameter("node_1.linear.weight").detach()[:, :4], given["1/node_2.linear.weight"])
    off = {a: torch.zeros_like(b) if a in ("0/edge_1.weight", "3/head.bias") else b for a, b in given.items()}
    for address in ("2/head.weight", "2/node_2.linear.weight"):
        off[address] = given[address].index_fill(1, torch.tensor([1]), 0.0)
    assert torch.allclose(grown(x), over(off, x)[0], rtol=1e-12)
    inserted = OverGrown(module, InsertBlock(after="act1", block=block))
    assert inserted.places
    alone = inserted.chosen({0: None}, numbers(inserted))
    assert isinstance(alone, InsertBlock)
    moved, _ = live.grow(copy.deepcopy(module), alone)
    assert torch.allclose(moved(x), inserted(numbers(inserted), x)[0], rtol=1e-12)


def test_what_is_drawn_and_not_given_is_recorded_too() -> None:
    module = module_of(dense())
    over, x = OverGrown(module, Widen(node="b", by=3)), batch_of(dense())
    readers = {"head.weight": torch.ones(2, 3, dtype=torch.float64)}
    chosen = over.chosen({0: [1]}, readers)
    grown, _ = live.grow(copy.deepcopy(module), chosen)
    gated = {"head.weight": torch.tensor([[0.0, 1.0, 0.0]] * 2, dtype=torch.float64)}
    assert torch.allclose(grown(x), over(gated, x)[0], rtol=1e-12)
    assert set(chosen.values) == {"b.weight", "b.bias", "head.weight"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_dtype(dtype: torch.dtype) -> None:
    module = module_of(dense(), dtype)
    over = OverGrown(module, Widen(node="b", by=2))
    given = numbers(over)
    assert {block.dtype for block in given.values()} == {dtype}
    grown, report = live.grow(copy.deepcopy(module), over.chosen({0: [1]}, given))
    assert torch.equal(grown.get_parameter("b.weight")[5:].detach(), given["b.weight"][1:])
    assert report.values


REFUSED: dict[str, tuple[Pass, dict[int, Any], str]] = {
    "no unit": (
        Widen(node="b", by=2),
        {0: [2]},
        "chosen: passes[0], widen b, has new units 0 to 1, each to be named once, but [2] are given",
    ),
    "twice": (
        Widen(node="b", by=2),
        {0: [1, 1]},
        "chosen: passes[0], widen b, has new units 0 to 1, each to be named once, but [1, 1] are given",
    ),
    "no pass": (Widen(node="b", by=2), {1: [0]}, "chosen: there is no pass 1; there are 1, counted from 0"),
    "nothing": (Widen(node="b", by=2), {0: []}, "chosen: nothing of the pass stays; name a unit that does"),
    "whole": (
        Sequence(passes=(Widen(node="b", by=1, copies=(0,)),)),
        {0: [0]},
        "chosen: passes[0] is widen, of which no unit stays without the others; give None to keep it",
    ),
    "made for all": (
        Sequence(passes=(Widen(node="b", by=2), AddNode(source="rb", target="head", width=1))),
        {0: [0], 1: None},
        "chosen: 1/node_1.linear.weight is as long as passes[1] finds the network, with all new units of the passes "
        "before it; put that pass in front of them, or keep them whole by None",
    ),
    "no split": (
        Split(node="b", channels=(0, 3)),
        {0: [3]},
        "chosen: passes[0], split b, has new units 0 to 1, each to be named once, but [3] are given",
    ),
    "one after the other": (
        Sequence(passes=(Widen(node="b", by=2), Split(node="b", channels=(0,)))),
        {0: [0]},
        "chosen: passes follow each other on b.weight, so the blocks of the later ones hold units of the earlier; "
        "give None to keep passes whole, or one pass for each space",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str) -> None:
    step, units, says = REFUSED[case]
    over = OverGrown(module_of(dense()), step)
    with pytest.raises(PassRefused) as caught:
        over.chosen(units, {})
    assert str(caught.value) == says


def test_numbers_for_no_place_are_refused() -> None:
    over, x = OverGrown(module_of(dense()), Widen(node="b", by=2)), batch_of(dense())
    with pytest.raises(GrowirError, match=r"a\.weight: no edit has new numbers there"):
        over({"a.weight": torch.zeros(2, 3)}, x)
    with pytest.raises(GrowirError, match=r"b\.weight: its new numbers have shape \(2, 4\), but \(2, 3\) are given"):
        over({"b.weight": torch.zeros(2, 3)}, x)
