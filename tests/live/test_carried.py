"""What goes along beside the weights: averages, masks, generators; and that an error leaves all as it was."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Self

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils._python_dispatch import TorchDispatchMode

import growir
from growir import live
from growir.errors import GrowirError, ModelError, PassRefused
from growir.graph import Graph, Node
from growir.ops import Linear
from growir.passes import AddNode, Split, Widen
from growir.rewrite import Change, Pass, Preserves
from growir.testing import random_batch
from tests.live.training import module_of, one_step, params_of, snapshot
from tests.samples import graph_of, mlp, residual_convnet

STEP = Widen(node="sum", by=2)


def averaged(module: nn.Module, use_buffers: bool = False) -> AveragedModel:
    return AveragedModel(module, avg_fn=lambda old, new, _: 0.9 * old + 0.1 * new, use_buffers=use_buffers)


@pytest.mark.parametrize("use_buffers", [False, True])
def test_an_averaged_model_grows_in_place_and_goes_on(use_buffers: bool) -> None:
    module, batch = module_of(residual_convnet()), random_batch(residual_convnet())
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    ema = averaged(module, use_buffers)
    for _ in range(3):
        one_step(module.train(), optimizer, batch)
        ema.update_parameters(module)
    wanted = ema.eval()(*batch)
    grown, report = live.grow(module, STEP, optimizer, [ema])
    assert report.ema == (ema,)
    torch.testing.assert_close(ema(*batch), wanted)
    # A fresh weight starts as the module's, not as zero.
    inner = ema.module
    assert isinstance(inner, nn.Module)
    assert torch.equal(inner.get_parameter("stem.weight")[3:], grown.get_parameter("stem.weight")[3:])
    assert not torch.equal(inner.get_parameter("stem.weight")[:3], grown.get_parameter("stem.weight")[:3])
    assert not any(a is b for a in inner.parameters() for b in grown.parameters())
    one_step(grown, optimizer, batch)
    ema.update_parameters(grown)  # which goes by the order of the parameters
    stem = inner.get_parameter("stem.weight").detach().clone()
    for _ in range(200):
        ema.update_parameters(grown)
    for a, b in zip(inner.parameters(), grown.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    assert not torch.equal(stem, inner.get_parameter("stem.weight"))


def test_a_module_and_a_state_dict_come_back_grown() -> None:
    graph = residual_convnet()
    module, old = module_of(graph), module_of(graph)
    with torch.no_grad():
        for p in old.parameters():
            p.mul_(0.5)
    state = copy.deepcopy(old.state_dict())
    weights = {key: tensor for key, tensor in state.items() if key in params_of(graph, old)}
    before = {key: tensor.clone() for key, tensor in state.items()}
    _, report = live.grow(module, STEP, ema=[old, state, weights])
    grown, whole, part = report.ema
    assert isinstance(grown, torch.fx.GraphModule)
    found = grown.state_dict()
    assert list(whole) == list(found) or set(whole) == set(found)
    assert set(part) == set(dict(grown.named_parameters()))
    for key, tensor in found.items():
        assert torch.equal(tensor, whole[key])
        assert key not in part or torch.equal(tensor, part[key])
    assert all(torch.equal(state[key], tensor) for key, tensor in before.items())  # mappings are not changed
    grown.load_state_dict(whole)


def test_created_parameters_are_in_the_average_too() -> None:
    module = module_of(mlp())
    state = module.state_dict()
    step = AddNode(source="x", target="head", width=2)
    ema = averaged(module)
    grown, report = live.grow(module, step, ema=[ema, state])
    assert set(report.ema[1]) == set(grown.state_dict())
    created = "node_1.linear.weight"
    inner = ema.module
    assert isinstance(inner, nn.Module)
    assert torch.equal(report.ema[1][created], grown.get_parameter(created))
    assert torch.equal(inner.get_parameter(created), grown.get_parameter(created))
    assert inner.get_parameter(created) is not grown.get_parameter(created)


def test_an_average_in_another_dtype_keeps_it() -> None:
    module = module_of(mlp(), torch.float32)
    ema = copy.deepcopy(module).double()
    _, report = live.grow(module, AddNode(source="x", target="head", width=2), ema=[ema])
    assert {p.dtype for p in report.ema[0].parameters()} == {torch.float64}


def test_tied_tensors_are_one_in_the_average() -> None:
    graph = graph_of(
        (3,),
        Node(name="start", op=Linear(out_features=4), inputs=("x",)),
        Node(name="once", op=Linear(out_features=4), inputs=("start",)),
        Node(name="again", op=Linear(out_features=4), inputs=("once",), tied={"weight": "once.weight"}),
        Node(name="head", op=Linear(out_features=2), inputs=("again",)),
    )
    module = module_of(graph)
    grown, report = live.grow(module, Widen(node="once", by=2), ema=[module.state_dict(), copy.deepcopy(module)])
    assert grown.get_parameter("once.weight") is grown.get_parameter("again.weight")
    assert report.ema[0]["once.weight"] is report.ema[0]["again.weight"]
    assert report.ema[1].get_parameter("once.weight") is report.ema[1].get_parameter("again.weight")


def test_masks_follow() -> None:
    graph = residual_convnet()
    module = module_of(graph)
    masks = {
        "stem.weight": torch.rand(3, 2, 3, 3) > 0.5,
        "head.weight": torch.rand(2, 5),
    }
    _, report = live.grow(module, STEP, masks=masks)
    assert report.masks.keys() == masks.keys()
    assert torch.equal(report.masks["stem.weight"][:3], masks["stem.weight"])
    assert report.masks["stem.weight"].dtype == torch.bool
    assert bool(report.masks["stem.weight"][3:].all())
    kept = [0, 1, 2, 5, 6]  # the first three channels are the sum's, the last two the input's
    assert torch.equal(report.masks["head.weight"][:, kept], masks["head.weight"])
    assert bool((report.masks["head.weight"][:, 3:5] == 1).all())
    assert masks["stem.weight"].shape == (3, 2, 3, 3)


def test_growth_draws_from_no_generator_and_records_them() -> None:
    module = module_of(residual_convnet())
    before = torch.get_rng_state()
    _, report = live.grow(module, STEP)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(report.rng["cpu"], before)


def test_frozen_parameters_stay_frozen_and_spaces_with_them_grow() -> None:
    module, batch = module_of(residual_convnet()), random_batch(residual_convnet())
    module.get_submodule("stem").requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.1)
    grown, report = live.grow(module, STEP, optimizer)
    frozen = {key for key, p in grown.named_parameters() if not p.requires_grad}
    assert frozen == {"stem.weight", "stem.bias"}
    assert not report.untrained
    places = {change.key: change.place for change in report.changes}
    assert places["stem.weight"] is None
    before = grown.get_parameter("stem.weight").detach().clone()
    one_step(grown, optimizer, batch)
    assert torch.equal(grown.get_parameter("stem.weight"), before)


def test_what_hangs_on_a_parameter_goes_along() -> None:
    module = module_of(mlp())
    weight = module.get_parameter("fc1.weight")
    vars(weight)["lr_scale"] = 0.5
    grown, _ = live.grow(module, Widen(node="fc1", by=1))
    assert grown.get_parameter("fc1.weight") is not weight
    assert vars(grown.get_parameter("fc1.weight"))["lr_scale"] == 0.5


def test_layout_and_dtype_stay() -> None:
    module = module_of(residual_convnet(), torch.bfloat16)
    for p in module.parameters():
        if p.ndim == 4:
            p.data = p.data.contiguous(memory_format=torch.channels_last)
    grown, _ = live.grow(module, STEP)
    kernel = grown.get_parameter("block.conv.weight")
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    assert not kernel.is_contiguous()
    grown, _ = live.grow(grown, AddNode(source="flat", target="head", width=2))
    assert {p.dtype for p in grown.parameters()} == {torch.bfloat16}
    assert grown(torch.zeros(2, 2, 5, 5, dtype=torch.bfloat16)).isfinite().all()


def test_a_sparse_gradient_is_refused() -> None:
    graph = mlp()
    module = module_of(graph)
    weight = module.get_parameter("fc1.weight")
    weight.grad = torch.zeros_like(weight).to_sparse()
    with pytest.raises(ModelError, match=r"fc1\.weight has a sparse gradient.*zero the gradients"):
        live.grow(module, Widen(node="fc1", by=1))


# -- a rewrite instead of a pass, and the network that comes out ------------------------------------------------------


def test_a_rewrite_of_this_graph_is_taken_and_of_another_refused() -> None:
    module = module_of(mlp())
    step = Widen(node="fc1", by=2)
    done = step.rewrite(mlp())
    grown, report = live.grow(module, done)
    assert report.what.startswith("widen  node=")
    assert report.after == done.graph.hash
    with pytest.raises(ModelError, match=r"the rewrite is not of this module's graph \('sample', .*, 1 step\)"):
        live.grow(grown, done)
    with pytest.raises(ModelError, match="the rewrite is not of this module's graph"):
        live.grow(module, Widen(node="stem", by=2).rewrite(residual_convnet()))


def test_the_network_keeps_history_and_values(tmp_path: Any) -> None:
    module = module_of(mlp())
    block = np.arange(6.0).reshape(2, 3)
    step = Widen(node="fc1", by=2, values={"fc1.weight": block})
    grown, report = live.grow(module, step)
    network = live.network_of(grown, report.values)
    assert network.history is not None
    assert [s.kind for s in network.history.steps] == ["widen"]
    network.save(tmp_path / "net")
    loaded = growir.Network.load(tmp_path / "net")
    again = loaded.replayed(live.network_of(module).arrays)
    assert np.array_equal(again.arrays["fc1.weight"], grown.get_parameter("fc1.weight").detach().numpy())


def test_the_report_reads_well() -> None:
    module = module_of(mlp())
    optimizer = torch.optim.Adam(module.parameters())
    _, report = live.grow(module, Widen(node="fc1", by=2), optimizer, verify=random_batch(mlp()))
    assert str(report).splitlines()[:5] == [
        'widen  node="fc1" by=2',
        f"  {report.before[:12]} -> {report.after[:12]}, preserves exact",
        "  ~ fc1.weight  4x3 -> 6x3, group 0",
        "  ~ fc1.bias  4 -> 6, group 0",
        "  ~ head.weight  2x4 -> 2x6, group 0",
    ]
    assert report.measured is not None
    assert report.measured < 1e-12
    assert report.seconds > 0
    assert report.preserves is Preserves.EXACT


def test_a_change_within_the_limit_is_taken() -> None:
    _, report = live.grow(module_of(mlp()), Liar(), verify=random_batch(mlp()), at_most=10.0)
    assert report.measured is not None
    assert 1e-3 < report.measured < 10


# -- nothing has changed ----------------------------------------------------------------------------------------------


class Liar(Pass):
    """Shrinks a weight and calls that exact."""

    name: ClassVar[str] = "liar"

    @classmethod
    def candidates(cls, graph: Graph) -> Iterator[Self]:
        yield cls()

    def check(self, graph: Graph) -> None:
        """It fits everywhere."""

    def preserves(self, graph: Graph) -> Preserves:
        return Preserves.EXACT

    def change(self, graph: Graph, step: int) -> Change:
        done = Widen(node="fc1", by=1).change(graph, step)
        from growir.edits import Shift

        return Change(done.nodes, done.outputs, (*done.edits, Shift("head.bias", np.full(2, 0.1))))


def other_graph() -> torch.fx.GraphModule:
    return module_of(residual_convnet())


def inputs_of(*shape: int) -> torch.Tensor:
    return torch.ones(shape, dtype=torch.float64)


FAILURES: dict[str, tuple[Callable[[], dict[str, Any]], type[GrowirError], str]] = {
    "pass": (lambda: {"step": Split(node="head", channels=(0,))}, PassRefused, "pinned"),
    "unknown node": (lambda: {"step": Widen(node="fc", by=1)}, PassRefused, "fc"),
    "promise": (lambda: {"step": Liar(), "verify": random_batch(mlp())}, PassRefused, "an output changed by .*exact"),
    "limit": (
        lambda: {"step": Liar(), "verify": random_batch(mlp()), "at_most": 1e-6},
        PassRefused,
        "although at most 1e-06 is allowed",
    ),
    "one tensor": (lambda: {"step": Liar(), "verify": random_batch(mlp())[0]}, PassRefused, "an output changed by"),
    "ema module": (lambda: {"ema": [other_graph()]}, ModelError, r"ema\[0\] has another graph"),
    "ema kind": (
        lambda: {"ema": [3]},
        ModelError,
        r"the ema\[0\] must be a GraphModule that growir made, but is a int",
    ),
    "ema key": (lambda: {"ema": [{"fc.weight": torch.zeros(1)}]}, ModelError, "no tensor of the module.*fc1.weight"),
    "ema shape": (lambda: {"ema": [{"fc1.weight": torch.zeros(1)}]}, ModelError, r"fc1\.weight has shape \[1\]"),
    "ema lacks": (lambda: {"ema": [{"fc1.weight": torch.zeros(4, 3)}]}, ModelError, r"lacks fc1\.bias"),
    "mask key": (lambda: {"masks": {"fc1": torch.zeros(4, 3)}}, ModelError, "masks: fc1 is no tensor"),
    "mask shape": (
        lambda: {"masks": {"fc1.weight": torch.zeros(4)}},
        ModelError,
        r"masks: fc1\.weight has shape \[4\]",
    ),
    "no pass": (lambda: {"step": {"pass": "widen"}}, PassRefused, r"a pass such as Widen\(.*pass_from_data makes"),
    "list of passes": (lambda: {"step": [Widen(node="fc1", by=1)]}, PassRefused, r"but this is .*Sequence\(passes="),
    "scheduler": (
        lambda: {"optimizer": torch.optim.lr_scheduler.StepLR(torch.optim.SGD([torch.ones(1)]), 3)},
        ModelError,
        "a torch.optim.Optimizer is needed, but this is a StepLR",
    ),
    "mask kind": (lambda: {"masks": {"fc1.weight": [1.0]}}, ModelError, "masks: tensors by the key"),
    "masks kind": (lambda: {"masks": [torch.zeros(4)]}, ModelError, "masks: tensors by the key"),
    "batch kind": (lambda: {"verify": "x"}, ModelError, r"verify: one tensor for each input is needed: x \['N', 3\]"),
    "batch number": (lambda: {"verify": [inputs_of(2, 3)] * 2}, ModelError, "verify: one tensor for each input"),
    "batch shape": (lambda: {"verify": inputs_of(2, 4)}, ModelError, r"verify: the batch has shape \[2, 4\], but x is"),
    "batch empty": (lambda: {"verify": inputs_of(0, 3)}, ModelError, "verify: at least one sample"),
    "batch nan": (lambda: {"verify": inputs_of(2, 3) * np.nan}, ModelError, "NaN or infinite numbers on this batch"),
    "limit alone": (lambda: {"at_most": 0.1}, ModelError, "a batch to `verify` are needed, but it is 0.1"),
    "limit nan": (lambda: {"verify": inputs_of(2, 3), "at_most": np.nan}, ModelError, "from 0 on .*, but it is nan"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_an_error_leaves_everything_as_it_was(name: str) -> None:
    arguments, error, says = FAILURES[name]
    module, batch = module_of(mlp()).train(), random_batch(mlp())
    optimizer = torch.optim.Adam(module.parameters())
    one_step(module, optimizer, batch)
    ema = averaged(module)
    inner = ema.module
    unchanged, ema_unchanged = snapshot(module, optimizer), snapshot(ema, optimizer)
    given: dict[str, Any] = {"step": Widen(node="fc1", by=2), "optimizer": optimizer, **arguments()}
    # The good average comes first: it must not have grown when a later one is refused.
    given["ema"] = [*given.get("ema", ()), ema]
    with pytest.raises(error, match=says):
        live.grow(module, **given)
    given["ema"] = given["ema"][::-1]
    with pytest.raises(error, match=says.replace(r"ema\[0\]", r"ema\[1\]")):
        live.grow(module, **given)
    unchanged()
    ema_unchanged()
    assert ema.module is inner
    one_step(module, optimizer, batch)


@pytest.mark.parametrize("part", ["heirs_of", "rebuilt", "plan_optimizers", "_measure", "places_of", "Report"])
def test_so_does_an_error_in_growth_itself(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object, **more: object) -> None:
        raise RuntimeError(part)

    module, batch = module_of(mlp()).train(), random_batch(mlp())
    optimizer = torch.optim.Adam(module.parameters())
    one_step(module, optimizer, batch)
    ema = averaged(module)
    inner = ema.module
    unchanged = snapshot(module, optimizer)
    monkeypatch.setattr(f"growir.live.growing.{part}", fails)
    with pytest.raises(RuntimeError, match=f"^{part}$"):
        live.grow(module, Widen(node="fc1", by=2), optimizer, [ema], verify=batch)
    unchanged()
    assert ema.module is inner


def test_numbers_beyond_the_dtype_are_refused() -> None:
    module = module_of(mlp(), torch.float32)
    step = Widen(node="fc1", by=2, values={"fc1.weight": np.full((2, 3), 1e200)})
    with pytest.raises(
        PassRefused, match=r"the values for fc1\.weight reach 1e\+200, which torch\.float32 cannot hold"
    ):
        live.grow(module, step)
    live.grow(module.double(), step)


def test_a_single_average_says_that_it_wants_a_list() -> None:
    module = module_of(mlp())
    with pytest.raises(ModelError, match=r"ema: a list of averages is needed; give \[average\]"):
        live.grow(module, Widen(node="fc1", by=2), ema=module_of(mlp()))  # type: ignore[arg-type]


def test_inference_mode_is_refused() -> None:
    module = module_of(mlp())
    with torch.inference_mode(), pytest.raises(ModelError, match="grow outside"):
        live.grow(module, Widen(node="fc1", by=2))


def test_a_module_left_behind_is_noticed() -> None:
    module, batch = module_of(mlp()), random_batch(mlp())
    optimizer = torch.optim.Adam(module.parameters())
    grown, _ = live.grow(module, Widen(node="fc1", by=2), optimizer)
    unchanged = snapshot(grown, optimizer)
    with pytest.raises(ModelError, match="this module was grown before, and the optimizer went on with what came back"):
        live.grow(module, Widen(node="fc1", by=2), optimizer)
    unchanged()
    live.grow(module, Widen(node="fc1", by=2))  # without the optimizer it may be tried out
    grown, _ = live.grow(grown, Widen(node="fc1", by=2), optimizer)
    one_step(grown, optimizer, batch)


# -- memory -----------------------------------------------------------------------------------------------------------


class Peak(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own stub
    """The most bytes of storage made within it that are alive at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own stub
        self.now = self.most = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        given = {a.untyped_storage().data_ptr() for a in args if isinstance(a, torch.Tensor)}
        if isinstance(found, torch.Tensor) and (pointer := found.untyped_storage().data_ptr()) not in given:
            size = found.untyped_storage().nbytes()
            if pointer not in self._seen:
                self._seen.add(pointer)
                self.now += size
                self.most = max(self.most, self.now)
                weakref.finalize(found.untyped_storage(), self._free, pointer, size)
        return found

    def _free(self, pointer: int, size: int) -> None:
        if pointer in self._seen:
            self._seen.discard(pointer)
            self.now -= size


def test_at_most_one_copy_of_what_changes_is_made() -> None:
    nodes = [Node(name="fc0", op=Linear(out_features=64), inputs=("x",))]
    nodes += [Node(name=f"fc{k}", op=Linear(out_features=64), inputs=(f"fc{k - 1}",)) for k in range(1, 9)]
    nodes.append(Node(name="head", op=Linear(out_features=2), inputs=("fc8",)))
    graph = graph_of((64,), *nodes)
    module, batch = module_of(graph, torch.float32), [x.float() for x in random_batch(graph)]
    optimizer = torch.optim.Adam(module.parameters())
    one_step(module, optimizer, batch)
    optimizer.zero_grad()
    ema = copy.deepcopy(module)
    with Peak() as peak:
        grown, report = live.grow(module, Widen(node="fc3", by=64), optimizer, ema=[ema])
    changed = [change for change in report.changes if change.after is not None]
    assert {change.key for change in changed} == {"fc3.weight", "fc3.bias", "fc4.weight"}
    bytes_of = [4 * int(np.prod(change.after or ())) for change in changed]
    # The weights, two moments, the average; and what one tensor's edits pass through.
    bound = 4 * sum(bytes_of) + 4 * max(bytes_of)
    assert sum(bytes_of) * 4 <= peak.most <= bound, (peak.most, bound)
    for key, tensor in grown.state_dict().items():
        shared = tensor.untyped_storage().data_ptr() == module.state_dict()[key].untyped_storage().data_ptr()
        assert shared == (key not in {change.key for change in changed})


@pytest.mark.cuda
def test_growth_stays_on_the_device() -> None:
    graph = residual_convnet()
    module = module_of(graph, torch.float32).to("cuda")
    batch = [x.float().cuda() for x in random_batch(graph)]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Adam(module.parameters(), capturable=True),
        torch.optim.AdamW(module.parameters(), fused=True),
    ]
    ema = averaged(module)
    for step in (STEP, AddNode(source="flat", target="head", width=3)):
        for optimizer in optimizers:
            one_step(module, optimizer, batch)
        module, report = live.grow(module, step, optimizers, [ema], verify=batch)
        assert {p.device.type for p in module.parameters()} == {"cuda"}
        assert {b.device.type for b in module.buffers()} == {"cuda"}
        assert "cuda:0" in report.rng
    for optimizer in optimizers:
        one_step(module, optimizer, batch)
    ema.update_parameters(module)
