"""Modules of the names: parts of a lowered module that have a forward, and slices that are one split."""

import copy
import pickle
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import distributed, fx, nn
from torch.distributed.fsdp import fully_shard
from torch.multiprocessing.spawn import spawn
from torch.utils.checkpoint import checkpoint

import growir
from growir import live
from growir.backends.torch_fx import lower
from growir.backends.torch_fx.building import NAME, Form
from growir.backends.torch_fx.parts import parts_of, splits_of
from growir.errors import ModelError
from growir.graph import Graph, Input, Node
from growir.network import Network
from growir.ops import Add, Linear, Mul, Op, Parameter, Relu, Slice
from growir.passes import Widen
from growir.verify import verify

BLOCKS = ("blocks.0", "blocks.1")
FORMS: tuple[Form, ...] = ("modules", "function", "nodes")


def graph_of(*rows: tuple[str, Op, str], outputs: tuple[str, ...] = ()) -> Graph:
    """A graph on x (N, 6): a node, its operator, and what it reads, in a row."""
    nodes = tuple(Node(name=name, op=op, inputs=tuple(read.split())) for name, op, read in rows)
    entry = Input(name="x", shape=("N", 6))
    return verify(Graph(name="net", inputs=(entry,), nodes=nodes, outputs=outputs or (nodes[-1].name,)))


def block(name: str, x: str) -> tuple[tuple[str, Op, str], ...]:
    """A residual block whose second half is a module of its own."""
    return (
        (f"{name}.qkv", Linear(out_features=18), x),
        (f"{name}.q", Slice(length=6), f"{name}.qkv"),
        (f"{name}.k", Slice(start=6, length=6), f"{name}.qkv"),
        (f"{name}.v", Slice(start=12, length=6), f"{name}.qkv"),
        (f"{name}.qk", Mul(), f"{name}.q {name}.k"),
        (f"{name}.sum", Add(), f"{name}.qk {name}.v {x} table"),
        (f"{name}.mlp.fc", Linear(out_features=8), f"{name}.sum"),
        (f"{name}.mlp.act", Relu(), f"{name}.mlp.fc"),
        (f"{name}.mlp.proj", Linear(out_features=6), f"{name}.mlp.act"),
        (f"{name}.out", Add(), f"{name}.sum {name}.mlp.proj"),
    )


def blocks() -> Graph:
    return graph_of(
        ("table", Parameter(shape=(6,)), ""),
        ("stem", Linear(out_features=6), "x"),
        *block("blocks.0", "stem"),
        *block("blocks.1", "blocks.0.out"),
        ("head", Linear(out_features=3), "blocks.1.out"),
    )


def module_of(graph: Graph | None = None) -> fx.GraphModule:
    return Network.init(graph or blocks(), 0).to_torch(dtype=torch.float64)


def batch() -> torch.Tensor:
    return torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def gradients(module: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    module.zero_grad()
    module(x).square().sum().backward()
    return [cast("torch.Tensor", p.grad).clone() for _, p in sorted(module.named_parameters())]


def test_a_prefix_with_one_value_for_the_others_is_a_part() -> None:
    found = parts_of(blocks())
    assert list(found) == ["blocks", "blocks.0", "blocks.0.mlp", "blocks.1", "blocks.1.mlp"]
    # What no input reaches comes last, though blocks.0.sum is not the only one that reads it.
    assert found["blocks.1"] == ("blocks.1", ("blocks.0.out", "table"), "blocks.1.out")
    assert found["blocks.0.mlp"] == ("blocks.0.mlp", ("blocks.0.sum",), "blocks.0.mlp.proj")


def test_a_part_computes_what_its_nodes_do() -> None:
    module, x = module_of(), batch()
    stem = module.get_submodule("stem")(x)
    table = module.get_parameter("table.weight")
    y = module.get_submodule("blocks.1")(module.get_submodule("blocks.0")(stem, table), table)
    assert torch.equal(module.get_submodule("head")(y), module(x))
    assert torch.equal(module.get_submodule("blocks")(stem, table), y)


def test_all_forms_are_one_function_with_the_same_keys() -> None:
    network, x = Network.init(blocks(), 0), batch()
    modules = [lower(network.graph, network.arrays, dtype=torch.float64, form=form) for form in FORMS]
    first, *others = modules
    for other in others:
        assert list(other.state_dict()) == list(first.state_dict())
        assert [name for name, _ in other.named_parameters()] == [name for name, _ in first.named_parameters()]
        assert torch.equal(first(x), other(x))
        assert all(map(torch.allclose, gradients(first, x), gradients(other, x)))
    nodes = [node for node in modules[-1].graph.nodes if node.op in ("call_module", "call_function")]
    assert [node.meta[NAME] for node in nodes if node.target is torch.narrow] == [
        f"blocks.{k}.{name}" for k in range(2) for name in "qkv"
    ]


def test_the_last_code_of_a_name_computes_its_value_in_parts_too() -> None:
    module = module_of()
    whole = {node.meta[NAME]: node for node in module.graph.nodes if NAME in node.meta}
    assert whole["blocks.1.out"].target == "blocks"
    inner = cast("fx.GraphModule", module.get_submodule("blocks.0"))
    assert [node.meta[NAME] for node in inner.graph.nodes if node.op == "placeholder"] == ["stem", "table"]


def test_several_values_dead_ones_and_no_reading_make_no_part() -> None:
    several = graph_of(
        ("two.a", Linear(out_features=6), "x"), ("two.b", Relu(), "two.a"), ("sum", Add(), "two.a two.b")
    )
    assert not parts_of(several)
    assert torch.isfinite(module_of(several)(batch())).all()
    constant = graph_of(("one.table", Parameter(shape=(6,)), ""), ("sum", Add(), "x one.table"))
    assert not parts_of(constant)
    # What is dead could read, from outside, what the part gives.
    dead = graph_of(
        ("part.a", Linear(out_features=6), "x"),
        ("other", Relu(), "part.a"),
        ("part.dead", Relu(), "other"),
        ("head", Linear(out_features=2), "other"),
    )
    assert not parts_of(dead)
    assert module_of(dead)(batch()).shape == (4, 2)
    # A prefix that all nodes have is the whole, which has a forward already.
    assert not parts_of(graph_of(("layers.0", Linear(out_features=6), "x"), ("layers.1", Relu(), "layers.0")))


def test_parts_may_stand_among_each_other() -> None:
    graph = graph_of(
        ("a.fc", Linear(out_features=6), "x"),
        ("b.fc", Linear(out_features=6), "x"),
        ("a.act", Relu(), "a.fc"),
        ("b.gate", Mul(), "b.fc a.act"),
        ("sum", Add(), "a.act b.gate"),
    )
    assert parts_of(graph)["b"].given == ("x", "a.act")
    module = module_of(graph)
    assert [node.target for node in module.graph.nodes if node.op == "call_module"] == ["a", "b"]
    whole = Network.init(graph, 0)
    flat = lower(whole.graph, whole.arrays, dtype=torch.float64, form="function")
    assert torch.equal(module(batch()), flat(batch()))


class Twice(nn.Module):
    """A block that runs twice, the second time on what another layer made of the first."""

    def __init__(self, between: bool) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(6, 6), nn.Tanh())
        self.other = nn.Linear(6, 6) if between else nn.Identity()
        self.head = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return cast("torch.Tensor", self.head(self.block(self.other(self.block(x)))))


@pytest.mark.parametrize("between", [False, True])
def test_a_module_called_twice(between: bool) -> None:
    model = Twice(between).eval()
    network = growir.from_torch(model, torch.zeros(2, 6))
    # With a layer between, both calls give a value to it or the head; without, one part makes both calls.
    assert ("block" in parts_of(network.graph)) is not between
    x = torch.randn(3, 6)
    assert torch.allclose(network.to_torch()(x), model(x), atol=1e-6)


class Tied(nn.Module):
    """Two blocks that share the weight of a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(2))
        self.blocks.get_submodule("1.0").weight = self.blocks.get_parameter("0.0.weight")
        self.head = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for each in self.blocks:
            x = each(x)
        return cast("torch.Tensor", self.head(x))


def test_tensors_are_tied_across_parts() -> None:
    model = Tied()
    module = growir.from_torch(model, torch.zeros(2, 6)).to_torch()
    assert set(module.state_dict()) == set(model.state_dict())
    assert module.get_parameter("blocks.0.0.weight") is module.get_parameter("blocks.1.0.weight")
    assert all(isinstance(module.get_submodule(name), fx.GraphModule) for name in BLOCKS)
    x = torch.randn(3, 6)
    assert all(map(torch.allclose, gradients(module, x), gradients(model, x)))


def test_blocks_are_checkpointed_one_by_one() -> None:
    module, x = module_of(), batch()
    wanted = gradients(module, x)
    runs: list[str] = []
    for name in BLOCKS:
        part = module.get_submodule(name)
        forward = part.forward

        def again(*given: Any, name: str = name, forward: Any = forward) -> Any:
            def run(*inner: Any) -> Any:
                runs.append(name)
                return forward(*inner)

            return checkpoint(run, *given, use_reentrant=False)

        part.forward = again
    assert all(map(torch.equal, gradients(module, x), wanted))
    assert runs == [*BLOCKS, *reversed(BLOCKS)]


def test_hooks_of_blocks_fire_and_growth_names_them() -> None:
    module, seen = module_of(), list[torch.Size]()
    part = module.get_submodule("blocks.1")
    part.register_forward_hook(lambda _part, _given, found: seen.append(found.shape))
    module(batch())
    assert seen == [(4, 6)]
    _, report = live.grow(module, Widen(node="blocks.1.mlp.fc", by=2))
    assert any("blocks.1" in note and "hooks" in note for note in report.notes)


def test_a_block_is_compiled_by_itself() -> None:
    module, x = module_of(), batch()
    part, table = module.get_submodule("blocks.0"), module.get_parameter("table.weight")
    assert torch.equal(torch.compile(part, backend="eager")(x, table), part(x, table))
    assert torch.equal(torch.compile(module, backend="aot_eager")(x), module(x))


def test_tracing_and_export_see_one_function() -> None:
    module, x = module_of(), batch()
    traced = fx.symbolic_trace(module)
    assert not any(isinstance(part, fx.GraphModule) for part in traced.children())
    assert torch.equal(traced(x), module(x))
    assert torch.equal(torch.export.export(module, (x,)).module()(x), module(x))


def test_copies_and_pickles_keep_their_parts_and_grow() -> None:
    module, x = module_of(), batch()
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(x), module(x))
        grown, _ = live.grow(other, Widen(node="blocks.1.mlp.fc", by=2), verify=x)
        assert isinstance(grown.get_submodule("blocks.1"), fx.GraphModule)
        kept = grown.get_parameter("blocks.0.mlp.fc.weight")
        assert kept is other.get_parameter("blocks.0.mlp.fc.weight")


def test_code_of_a_part_that_was_changed_is_found() -> None:
    module = module_of()
    part = cast("fx.GraphModule", module.get_submodule("blocks.1.mlp"))
    act = next(node for node in part.graph.nodes if node.target is F.relu)
    act.target = torch.tanh
    part.recompile()
    with pytest.raises(ModelError, match=r"code was changed after growir made it, at 'blocks\.1\.mlp\.act'"):
        live.grow(module, Widen(node="blocks.0.mlp.fc", by=1))


def test_a_part_that_was_replaced_is_found() -> None:
    class Wrapper(nn.Module):
        def __init__(self, part: nn.Module) -> None:
            super().__init__()
            for name, child in part.named_children():
                self.add_module(name, child)
            self.part = (part,)

        def forward(self, *given: torch.Tensor) -> torch.Tensor:
            return cast("torch.Tensor", self.part[0](*given))

    module = module_of()
    module.get_submodule("blocks").add_module("1", Wrapper(module.get_submodule("blocks.1")))
    with pytest.raises(ModelError, match=r"code was changed after growir made it, at 'blocks\.1"):
        live.grow(module, Widen(node="blocks.0.mlp.fc", by=1))


@pytest.mark.parametrize("copied", [False, True])
def test_a_part_does_not_grow_alone(copied: bool) -> None:
    module = module_of()
    part = copy.deepcopy(module).get_submodule("blocks.0") if copied else module.get_submodule("blocks.0")
    with pytest.raises(ModelError, match=r"is the part 'blocks\.0' of a module that growir made"):
        live.grow(part, Widen(node="blocks.0.mlp.fc", by=1))


# -- splits -----------------------------------------------------------------------------------------------------------


def targets(module: nn.Module) -> list[Any]:
    parts = [part for part in module.modules() if isinstance(part, fx.GraphModule)]
    return [node.target for part in parts for node in part.graph.nodes if node.op == "call_function"]


def test_slices_that_cut_a_value_up_are_one_split_whose_sizes_follow_growth() -> None:
    module, x = module_of(), batch()
    assert targets(module).count(torch.split) == 2
    assert torch.narrow not in targets(module)
    grown, _ = live.grow(module, Widen(node="blocks.0.q", by=2), verify=x)
    part = cast("fx.GraphModule", grown.get_submodule("blocks.0"))
    (split,) = (node for node in part.graph.nodes if node.target is torch.split)
    assert split.args[1:] == ([8, 8, 8], 1)


@pytest.mark.parametrize(
    ("slices", "split"),
    [
        (((0, 2), (2, 4)), True),
        (((2, 4), (0, 2)), True),  # in any order
        (((0, 2), (3, 3)), False),  # a gap
        (((0, 3), (2, 3)), False),  # an overlap, and a rest
        (((0, 3), (2, 4)), False),
        (((0, 2), (2, 2)), False),  # a rest
        (((0, 2), (0, 2), (2, 4)), False),  # one twice
        (((0, 6),), False),  # all in one
    ],
)
def test_only_slices_that_tile_an_axis_are_a_split(slices: tuple[tuple[int, int], ...], split: bool) -> None:
    rows: list[tuple[str, Op, str]] = [("fc", Linear(out_features=6), "x")]
    rows += [(f"s{k}", Slice(start=start, length=length), "fc") for k, (start, length) in enumerate(slices)]
    names = [f"s{k}" for k in range(len(slices))]
    rows += [(f"h{k}", Linear(out_features=2), name) for k, name in enumerate(names)]
    graph = graph_of(*rows, outputs=tuple(f"h{k}" for k in range(len(slices))))
    assert sorted(splits_of(graph.nodes, graph)) == (names if split else [])
    network = Network.init(graph, 0)
    found = network.to_torch()(batch().float())
    flat = lower(graph, network.arrays, form="nodes")(batch().float())
    pairs = [(found, flat)] if isinstance(found, torch.Tensor) else list(zip(found, flat, strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)


# -- sharding ---------------------------------------------------------------------------------------------------------


def train_sharded(rank: int, ranks: int, path: str, found: str) -> None:
    """Two steps of a module whose blocks are sharded one by one, and of one that is not."""
    distributed.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=ranks)
    try:
        mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (ranks,))
        sharded, plain, x = module_of(), module_of(), batch()
        for name in BLOCKS:
            fully_shard(sharded.get_submodule(name), mesh=mesh)
        fully_shard(sharded, mesh=mesh)
        for module in (sharded, plain):
            optimizer = torch.optim.AdamW(module.parameters(), 1e-2)
            for _ in range(2):
                optimizer.zero_grad()
                module(x).square().mean().backward()
                optimizer.step()
        whole = {key: cast("Any", tensor).full_tensor() for key, tensor in sharded.state_dict().items()}
        assert all(torch.allclose(whole[key], tensor) for key, tensor in plain.state_dict().items())
        assert all(isinstance(module, nn.Module) for module in sharded.modules())
        with pytest.raises(ModelError, match="grow before sharding"):
            live.grow(sharded, Widen(node="blocks.0.mlp.fc", by=1), on_all_ranks=True)
        Path(f"{found}{rank}").touch()
    finally:
        distributed.destroy_process_group()


def test_blocks_are_sharded_one_by_one(tmp_path: Path) -> None:
    train_sharded(0, 1, str(tmp_path / "store"), str(tmp_path / "done"))
    assert (tmp_path / "done0").exists()


@pytest.mark.slow
def test_blocks_are_sharded_over_two_processes(tmp_path: Path) -> None:
    spawn(train_sharded, (2, str(tmp_path / "store"), str(tmp_path / "done")), nprocs=2)  # type: ignore[no-untyped-call]
    assert sorted(path.name for path in tmp_path.glob("done*")) == ["done0", "done1"]
