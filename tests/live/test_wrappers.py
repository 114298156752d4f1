"""What wraps a module: compiled, data parallel, within a larger one, copied, pickled."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch._C._distributed_c10d import FileStore, GradBucket
from torch.nn.parallel import DistributedDataParallel

import growir
from growir import live
from growir.errors import ModelError
from growir.passes import AddNode, Widen
from growir.testing import random_batch
from tests.live.training import module_of, one_step, snapshot
from tests.samples import mlp, residual_convnet

STEP = Widen(node="fc1", by=2)


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A process group of this process only."""
    dist.init_process_group("gloo", store=FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_a_compiled_module_is_unwrapped_and_compiled_anew() -> None:
    module, batch = module_of(mlp()), random_batch(mlp())
    optimizer = torch.optim.Adam(module.parameters())
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    assert isinstance(compiled, nn.Module)
    one_step(compiled, optimizer, batch)
    wanted = compiled(*batch)
    grown, report = live.grow(compiled, STEP, optimizer)
    assert report.notes == ("the module was compiled, and the grown one is not: call torch.compile on it",)
    assert isinstance(grown, torch.fx.GraphModule)
    again = torch.compile(grown, backend="eager", fullgraph=True)
    torch.testing.assert_close(again(*batch), wanted)
    one_step(again, optimizer, batch)
    assert not torch.equal(again(*batch), wanted)
    torch.testing.assert_close(again(*batch), grown(*batch))


def test_a_module_compiled_in_place_is_noted() -> None:
    module = module_of(mlp())
    module.compile(backend="eager")
    _, report = live.grow(module, STEP)
    assert report.notes == ("the module was compiled in place, and the grown one is not: call its compile()",)


@pytest.mark.usefixtures("alone")
def test_distributed_data_parallel_is_refused_and_wrapped_again() -> None:
    module, batch = module_of(mlp()), random_batch(mlp())
    wrapped = DistributedDataParallel(module)
    optimizer = torch.optim.Adam(wrapped.parameters())
    one_step(wrapped, optimizer, batch)
    unchanged = snapshot(module, optimizer)
    for outer in (wrapped, torch.compile(wrapped, backend="eager")):
        assert isinstance(outer, nn.Module)
        with pytest.raises(ModelError, match=r"wrapped in DistributedDataParallel.*grow module\.module and wrap"):
            live.grow(outer, STEP, optimizer)
    unchanged()
    other, other_optimizer = copy.deepcopy((module, optimizer))
    grown, report = live.grow(wrapped.module, STEP, optimizer)
    assert report.notes == (
        "torch.distributed runs: a DistributedDataParallel around what holds the module goes on with the old "
        "parameters; wrap anew, on all ranks",
    )
    plain, _ = live.grow(other, STEP, other_optimizer)
    # The old wrapper is still there and hooked to the parameters that both modules share.
    again = DistributedDataParallel(grown)
    for _ in range(3):
        one_step(again, optimizer, batch)
        one_step(plain, other_optimizer, batch)
    for wanted, found in zip(plain.parameters(), grown.parameters(), strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.usefixtures("alone")
def test_a_stale_wrapper_trains_without_the_grown_parameters() -> None:
    """Why it is refused: what one would do by hand runs, and never reduces the new parameter's gradient."""
    module, batch = module_of(mlp()), random_batch(mlp())
    wrapped = DistributedDataParallel(module)
    reduced: list[int] = []

    def count(state: object, bucket: Any) -> torch.futures.Future[torch.Tensor]:
        reduced.append(bucket.buffer().numel())
        done: torch.futures.Future[torch.Tensor] = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    count.__annotations__ = {"bucket": GradBucket, "return": torch.futures.Future[torch.Tensor]}
    wrapped.register_comm_hook(None, count)
    grown, _ = live.grow(module, AddNode(source="x", target="head", width=3))
    wrapped.module = grown
    wrapped(*batch).square().sum().backward()
    assert sum(reduced) == sum(p.numel() for p in module.parameters())
    assert sum(reduced) < sum(p.numel() for p in grown.parameters() if p.grad is not None)


def test_data_parallel_is_refused() -> None:
    with pytest.raises(ModelError, match="wrapped in DataParallel"):
        live.grow(nn.DataParallel(module_of(mlp())), STEP)


class Plain(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


class Lit(nn.Module):
    """What a LightningModule is to growth: a module with the network as an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.net = module_of(mlp())
        self.scale = nn.Parameter(torch.ones(1, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.net(x) * self.scale
        return found


def test_a_module_that_holds_one_says_which_to_grow() -> None:
    lit, batch = Lit(), random_batch(mlp())
    optimizer = torch.optim.Adam(lit.parameters())
    one_step(lit, optimizer, batch)
    wanted = lit(*batch)
    with pytest.raises(ModelError, match=r"is a Lit, which growir did not make, but its 'net' is growir's: grow that"):
        live.grow(lit, STEP, optimizer)
    lit.net, report = live.grow(lit.net, STEP, optimizer)
    assert not report.untrained
    torch.testing.assert_close(lit(*batch), wanted)
    # The order of the whole module's parameters, so that a checkpoint's optimizer fits.
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [id(p) for p in lit.parameters()]
    one_step(lit, optimizer, batch)
    assert not torch.equal(lit(*batch), wanted)


def test_a_subclass_that_shares_an_optimizers_parts_stands_for_it() -> None:
    """What Lightning gives as `self.optimizers()`: a subclass made on the fly, with the optimizer's own attributes."""
    module, batch = module_of(mlp()), random_batch(mlp())
    inner = torch.optim.Adam(module.parameters())
    one_step(module, inner, batch)
    outer = type("LightningAdam", (torch.optim.Adam,), {"__init__": lambda self: None})()
    outer.__dict__ = {key: value for key, value in vars(inner).items() if key != "step"}
    grown, report = live.grow(module, STEP, outer)
    assert not report.untrained
    assert [id(p) for p in inner.param_groups[0]["params"]] == [id(p) for p in grown.parameters()]
    assert {id(p) for p in inner.state} == {id(p) for p in grown.parameters()}
    one_step(grown, inner, batch)


def test_an_imported_model_grows_and_its_frozen_layers_stay_so() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)).double()
    model[0].requires_grad_(False)
    module = growir.from_torch(model, (torch.randn(2, 1, 4, 4, dtype=torch.float64),)).to_torch()
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
    batch = [torch.randn(5, 1, 4, 4, dtype=torch.float64)]
    one_step(module, optimizer, batch)
    network = live.network_of(module)
    space = next(space for space in growir.channel_spaces(network.graph) if not space.pins)
    grown, report = live.grow(module, Widen(node=space.name, by=2), optimizer, verify=batch)
    assert report.measured is not None
    assert report.measured < 1e-12
    frozen = [key for key, p in grown.named_parameters() if not p.requires_grad]
    assert [grown.get_parameter(key).ndim for key in frozen] == [4, 1]
    one_step(grown, optimizer, batch)


def test_what_growir_did_not_make_is_refused() -> None:
    with pytest.raises(ModelError, match=r"is a Linear; import a model with growir\.from_torch"):
        live.grow(nn.Linear(2, 2), STEP)
    with pytest.raises(ModelError, match=r"is a Plain; import a model with growir\.from_torch"):
        live.grow(torch.fx.symbolic_trace(Plain()), STEP)
    with pytest.raises(ModelError, match="is a str"):
        live.grow("module", STEP)  # type: ignore[arg-type]


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_copies_grow_like_the_original(way: str) -> None:
    module, batch = module_of(residual_convnet()), random_batch(residual_convnet())
    if way == "deepcopy":
        copied = copy.deepcopy(module)
    else:
        buffer = io.BytesIO()
        torch.save(module, buffer)
        buffer.seek(0)
        copied = torch.load(buffer, weights_only=False)  # what users do with their own checkpoints
    step = Widen(node="sum", by=2)
    a, _ = live.grow(module, step)
    b, _ = live.grow(copied, step)
    torch.testing.assert_close(b(*batch), a(*batch), rtol=0, atol=0)


def test_a_module_changed_by_hand_is_refused() -> None:
    module = module_of(mlp())
    module.extra = nn.Linear(2, 2)
    with pytest.raises(ModelError, match=r"a tensor 'extra\.weight' that its document does not"):
        live.grow(module, STEP)
    module = module_of(mlp())
    nn.utils.parametrizations.weight_norm(module.get_submodule("fc1"))
    with pytest.raises(ModelError, match=r"fc1\.parametrizations\.weight\.original0.*parametrisation"):
        live.grow(module, STEP)
    module = module_of(mlp())
    module.get_submodule("fc1").weight = nn.Parameter(torch.zeros(9, 3))
    with pytest.raises(ModelError, match=r"fc1\.weight has shape \[9, 3\] in the module and \[4, 3\] in its document"):
        live.grow(module, STEP)
    module = module_of(mlp())
    module.get_submodule("fc1").register_parameter("bias", None)
    with pytest.raises(ModelError, match=r"lacks the tensor 'fc1\.bias'"):
        live.grow(module, STEP)


def test_code_changed_by_hand_is_refused() -> None:
    module = module_of(mlp())
    act = next(node for node in module.graph.nodes if node.name == "act1")
    with module.graph.inserting_after(act):
        act.replace_all_uses_with(module.graph.call_function(torch.abs, (act,)), lambda user: user.op == "call_module")
    module.recompile()
    with pytest.raises(ModelError, match="the module's code was changed after growir made it, at 'abs_1'"):
        live.grow(module, STEP)
    module.graph.eliminate_dead_code()  # of what is unchanged there is none
    with pytest.raises(ModelError, match=r"ema\[0\]'s code was changed"):
        live.grow(module_of(mlp()), STEP, ema=[module])


def test_hooks_are_noted() -> None:
    module = module_of(mlp())
    module.get_submodule("fc1").register_forward_hook(lambda *_: None)
    _, report = live.grow(module, STEP)
    assert report.notes == ("hooks of the module are not carried along, register them again: fc1",)
    assert "note: hooks of the module" in str(report)


def test_parts_keep_their_mode() -> None:
    module = module_of(residual_convnet()).train()
    module.get_submodule("block.norm").eval()
    grown, _ = live.grow(module, Widen(node="sum", by=1))
    assert grown.training
    assert not grown.get_submodule("block.norm").training
    assert grown.get_submodule("block.conv").training
