"""Parameter groups of what growth creates: those of the layers that do the same, or those the caller names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import fx

from growir import live
from growir.document import to_data
from growir.errors import ModelError
from growir.graph import Graph, Node
from growir.live.groups import Groups
from growir.ops import Add, BatchNorm, Conv2d, Flatten, Gelu, LayerNorm, Linear, Op, Relu
from growir.passes import AddNode, EliminateDead, InsertBlock, InsertLayer
from growir.testing import random_batch
from tests.live.training import module_of, one_step
from tests.samples import graph_of, mlp

Made = tuple[str, Op, tuple[str, ...]]


def chain(shape: tuple[int, ...], *made: Made) -> Graph:
    return graph_of(shape, *(Node(name=name, op=op, inputs=inputs) for name, op, inputs in made))


def line(width: int) -> Linear:
    return Linear(out_features=width)


def conv(width: int) -> Conv2d:
    return Conv2d(out_channels=width, kernel_size=3, padding=1)


def residual(kind: str, blocks: int) -> Graph:
    """Some residual blocks between a stem and a head, whose last norm is the head's."""
    stem, last = ("stem", line(6), ("x",)), "stem"
    made: list[Made] = [("stem", conv(4), ("x",)) if kind == "maps" else stem]
    for k in range(blocks):
        b = f"blocks.{k}"
        if kind == "maps":
            inner: list[Made] = [
                (f"{b}.conv1", conv(4), (last,)),
                (f"{b}.bn1", BatchNorm(), (f"{b}.conv1",)),
                (f"{b}.act", Relu(), (f"{b}.bn1",)),
                (f"{b}.conv2", conv(4), (f"{b}.act",)),
                (f"{b}.end", BatchNorm(), (f"{b}.conv2",)),
            ]
        else:
            first: list[Made] = [(f"{b}.ln", LayerNorm(), (last,))] if kind == "normed" else []
            inner = [
                *first,
                (f"{b}.up", line(8), (f"{b}.ln" if first else last,)),
                (f"{b}.act", Gelu(), (f"{b}.up",)),
                (f"{b}.end", line(6), (f"{b}.act",)),
            ]
        made += [*inner, (f"{b}.sum", Add(), (last, f"{b}.end"))]
        last = f"{b}.sum"
    if kind == "normed":
        made.append(("final.ln", LayerNorm(), (last,)))
        last = "final.ln"
    if kind == "maps":
        made.append(("final.flat", Flatten(), (last,)))
        last = "final.flat"
    return chain((2, 5, 5) if kind == "maps" else (3,), *made, ("head", line(3), (last,)))


def block_of(graph: Graph) -> Any:
    """The first block by itself, its nodes called otherwise than those of the network."""
    nodes = [data for data in to_data(graph)["nodes"] if data["name"].startswith("blocks.0.") and data["op"] != "add"]
    names = {data["name"]: f"part{k}" for k, data in enumerate(nodes)}
    moved = [{**d, "name": names[d["name"]], "inputs": [names.get(i, "x") for i in d["inputs"]]} for d in nodes]
    shape = ["N", 4, 5, 5] if nodes[0]["op"] == "conv2d" else ["N", 6]
    return {"inputs": [{"name": "x", "shape": shape}], "nodes": moved, "outputs": [moved[-1]["name"]]}


def part(key: str) -> str:
    return key.partition(".")[0]


def by_part(module: fx.GraphModule, parts: list[str]) -> torch.optim.Optimizer:
    groups = [
        {"params": [p for key, p in module.named_parameters() if part(key) == name], "name": name} for name in parts
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=1e-2)


def names_of(module: fx.GraphModule, optimizer: torch.optim.Optimizer) -> dict[str, str]:
    """The name of the group that every parameter is in."""
    keys = {id(p): key for key, p in module.named_parameters()}
    return {keys[id(p)]: str(group.get("name")) for group in optimizer.param_groups for p in group["params"]}


PLACES = [(kind, blocks, at) for kind in ("plain", "normed", "maps") for blocks in (2, 3) for at in range(-1, blocks)]


@pytest.mark.parametrize(("kind", "blocks", "at"), PLACES, ids=[f"{k}-{b}-{a}" for k, b, a in PLACES])
def test_a_new_block_joins_the_blocks_wherever_it_stands(kind: str, blocks: int, at: int) -> None:
    """Behind the stem, between blocks, and as the last one, next to the head: never the stem's group nor the head's."""
    graph = residual(kind, blocks)
    module = module_of(graph)
    optimizer = by_part(module, ["stem", "blocks", "final", "head"])
    step = InsertBlock(after="stem" if at < 0 else f"blocks.{at}.sum", block=block_of(graph))
    module, report = live.grow(module, step, optimizer)
    found = names_of(module, optimizer)
    created = {change.key for change in report.changes if change.before is None and change.place is not None}
    assert len(created) >= 4
    assert {found[key] for key in created} == {"blocks"}
    assert not [note for note in report.notes if "weak" in note]


def test_a_new_hidden_layer_joins_the_hidden_ones() -> None:
    graph = chain(
        (4,),
        ("fc1", line(6), ("x",)),
        ("r1", Relu(), ("fc1",)),
        ("fc2", line(6), ("r1",)),
        ("r2", Relu(), ("fc2",)),
        ("head", line(3), ("r2",)),
    )
    module = module_of(graph)
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for key, p in module.named_parameters() if part(key) != "head"], "name": "body"},
            {"params": [*module.get_submodule("head").parameters()], "name": "head"},
        ]
    )
    module, report = live.grow(module, InsertLayer(after="r2"), optimizer)
    (created,) = {part(name) for name in report.created if f"{name}.weight" in names_of(module, optimizer)}
    assert names_of(module, optimizer)[f"{created}.{report.created[0].partition('.')[2]}.weight"] == "body"


# -- groups= ----------------------------------------------------------------------------------------------------------


def grown(groups: Groups, *, pair: bool = False, named: bool = False) -> tuple[fx.GraphModule, list[Any], live.Report]:
    """A network with a new node, trained by one optimizer of three groups, the last mostly empty, or by two."""
    module = module_of(mlp())
    params: list[Any] = [(k, p) if named else p for k, p in module.named_parameters()]
    if pair:
        optimizers: list[Any] = [torch.optim.SGD(params[:2], lr=0.1), torch.optim.Adam(params[2:])]
    else:
        first: Any = {"params": params[:2], "name": "body"}
        # torch takes no empty group beside groups with names.
        cut = 3 if named else 4
        head, new = {"params": params[2:cut], "name": "head"}, {"params": params[cut:], "name": "new"}
        optimizers = [torch.optim.Adam([first, head, new])]
    batch = random_batch(mlp())
    for optimizer in optimizers:
        one_step(module, optimizer, batch)
    module, report = live.grow(module, AddNode(source="x", target="head", width=2), optimizers, groups=groups)
    for optimizer in optimizers:
        one_step(module, optimizer, batch)
    return module, optimizers, report


def test_a_group_is_named_by_its_index_its_name_or_not_at_all() -> None:
    seen: list[tuple[str, tuple[int, ...]]] = []

    def groups(key: str, parameter: torch.nn.Parameter) -> int | str | None:
        seen.append((key, tuple(parameter.shape)))
        if key == "node_1.linear.weight":
            return 2
        return "head" if key == "node_1.linear.bias" else None

    module, (optimizer,), report = grown(groups)
    found = names_of(module, optimizer)
    assert (found["node_1.linear.weight"], found["node_1.linear.bias"]) == ("new", "head")
    new = [key for key in found if key.startswith(("node", "edge"))]
    assert sorted(seen) == sorted((key, tuple(module.get_parameter(key).shape)) for key in new)
    assert set(found) == {key for key, _ in module.named_parameters()}
    assert not report.untrained
    assert "+ node_1.linear.weight  2x3, group 2" in str(report)


def test_with_several_optimizers_a_pair_says_which() -> None:
    module, (first, second), _ = grown(lambda key, p: (1, 0) if "weight" in key else (0, 0), pair=True)
    new = [(key, p) for key, p in module.named_parameters() if key.startswith(("node", "edge"))]
    ours = [{id(p) for group in optimizer.param_groups for p in group["params"]} for optimizer in (first, second)]
    assert all(id(p) in ours[int("weight" in key)] for key, p in new)
    assert len(ours[0] | ours[1]) == len(list(module.parameters()))


def test_names_that_the_optimizer_keeps_go_along() -> None:
    module, (optimizer,), _ = grown(lambda key, p: "new", named=True)
    group = optimizer.param_groups[2]
    new = [key for key, _ in module.named_parameters() if key.startswith(("node", "edge"))]
    assert set(group["param_names"]) == {*new, "head.bias"}
    assert [id(p) for p in group["params"]] == [id(module.get_parameter(key)) for key in group["param_names"]]


@pytest.mark.parametrize(
    ("answer", "pair", "says"),
    [
        (
            3,
            False,
            r"groups\('node_1.linear.weight', ...\) gives 3, but the groups of the optimizer are numbered 0 to 2",
        ),
        (-1, False, "gives -1, but the groups of the optimizer are numbered 0 to 2"),
        (0, True, r"gives 0, but there are 2 optimizers; give \(optimizer, group\)"),
        ((2, 0), True, "but the optimizers are numbered 0 to 1"),
        ((1, 1), True, "but the groups of optimizer 1 are numbered 0 to 0"),
        ("boby", False, "gives 'boby', but there are body, head, new. Did you mean 'body'?"),
        ("body", True, "gives 'body', but no group has a \"name\""),
        (True, False, "the index of a group is needed"),
        (1.0, False, "the index of a group is needed"),
        ((0, 1, 2), False, "the index of a group is needed"),
    ],
)
def test_a_group_that_there_is_not_is_refused(answer: Any, pair: bool, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        grown(lambda key, p: answer, pair=pair)


def test_a_name_of_two_groups_is_refused() -> None:
    module = module_of(mlp())
    params = list(module.parameters())
    optimizer = torch.optim.SGD([{"params": [p], "name": "one"} for p in params], lr=0.1)
    with pytest.raises(ModelError, match=r"gives 'one', but 4 groups have that name; give \(optimizer, group\)"):
        live.grow(module, AddNode(source="x", target="head", width=2), optimizer, groups=lambda key, p: "one")


@pytest.mark.parametrize("groups", [5, {"a": 1}])
def test_what_is_no_function_is_refused(groups: Any) -> None:
    module = module_of(mlp())
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    with pytest.raises(ModelError, match=r"groups: a function \(key, parameter\) -> group is needed"):
        live.grow(module, AddNode(source="x", target="head", width=2), optimizer, groups=groups)


# -- weak likeness ----------------------------------------------------------------------------------------------------


def notes_on(graph: Graph, step: Any, groups: list[list[str]]) -> list[str]:
    module = module_of(graph)
    optimizer = torch.optim.SGD([{"params": [module.get_parameter(k) for k in keys]} for keys in groups], lr=0.1)
    _, report = live.grow(module, step, optimizer)
    found = [note for note in report.notes if note.startswith("weak likeness: ")]
    printed = " ".join(str(report).split())  # in lines of 80 columns
    assert all(f"note: {note}" in printed for note in found)
    return found


def test_weak_likeness_is_told() -> None:
    body, head = ["fc1.weight", "fc1.bias"], ["head.weight", "head.bias"]
    normed = InsertLayer(after="act1", residual=True, norm="layer_norm")
    found = notes_on(mlp(), normed, [body, head])
    assert any(
        "norm.weight joins group" in note and "no other weight that is a vector is trained" in note for note in found
    )
    assert all(note.endswith("groups= decides otherwise") for note in found)


def test_equal_likeness_in_two_groups_is_told() -> None:
    """A rate for each block: the nearest block's is taken, and the others are named."""
    graph = residual("plain", 3)
    keys = [key for key, _ in module_of(graph).named_parameters()]
    each = [[key for key in keys if key.startswith(f"blocks.{k}")] for k in range(3)]
    rest = [key for key in keys if not key.startswith("blocks")]
    found = notes_on(graph, InsertBlock(after="blocks.1.sum", block=block_of(graph)), [rest, *each])
    assert any("weight joins group 2 of" in note and note.count("does the same; groups= decides") for note in found)


def test_one_group_or_one_for_matrices_and_one_for_vectors_raises_no_alarm() -> None:
    graph = residual("normed", 2)
    params = dict(module_of(graph).named_parameters())
    step = InsertBlock(after="blocks.1.sum", block=block_of(graph))
    matrices = [key for key, p in params.items() if p.ndim > 1]
    vectors = [key for key, p in params.items() if p.ndim <= 1]
    assert notes_on(graph, step, [list(params)]) == []
    assert notes_on(graph, step, [matrices, vectors]) == []


def bare() -> Graph:
    """A network without parameters, as a growth from nothing may start with."""
    return chain((3,), ("head", Relu(), ("x",)))


def by_rank(key: str, parameter: torch.nn.Parameter) -> str:
    return "matrices" if parameter.ndim > 1 else "vectors"


def test_a_run_may_start_with_no_parameters_and_empty_groups() -> None:
    """torch wants one group at least, but takes empty ones; what growth creates goes where `groups` says."""
    module = module_of(bare())
    optimizer = torch.optim.AdamW(
        [
            {"params": [], "name": "matrices", "weight_decay": 0.1},
            {"params": [], "name": "vectors", "weight_decay": 0.0},
        ],
        lr=0.01,
    )
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    block = graph_of((3,), Node(name="one", op=line(4), inputs=("x",)), Node(name="head", op=line(3), inputs=("one",)))
    grown, report = live.grow(module, InsertBlock(after="x", block=block), optimizer, groups=by_rank)
    places = {group["name"]: [tuple(p.shape) for p in group["params"]] for group in optimizer.param_groups}
    assert places == {"matrices": [(4, 3), (3, 4)], "vectors": [(4,), (3,)]}
    assert report.untrained == ()
    one_step(grown, optimizer, tuple(value.float() for value in random_batch(bare())))  # torch's default dtype
    scheduler.step()
    assert len(optimizer.state) == 4
    again, _ = live.grow(grown, AddNode(source="x", target="head", width=2), optimizer, groups=by_rank)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(again.parameters()))


def test_the_only_group_takes_what_is_created_where_nothing_is_trained_yet() -> None:
    module = module_of(bare())
    optimizer = torch.optim.SGD([{"params": []}], lr=0.1)
    block = graph_of((3,), Node(name="head", op=line(3), inputs=("x",)))
    grown, report = live.grow(module, InsertBlock(after="x", block=block), optimizer)
    assert optimizer.param_groups[0]["params"] == list(grown.parameters())
    assert report.untrained == ()


def test_of_several_empty_groups_none_is_chosen_by_chance() -> None:
    module = module_of(bare())
    optimizer = torch.optim.SGD([{"params": []}, {"params": []}], lr=0.1)
    block = graph_of((3,), Node(name="head", op=line(3), inputs=("x",)))
    _, report = live.grow(module, InsertBlock(after="x", block=block), optimizer)
    assert len(report.untrained) == 2


def test_an_optimizer_with_empty_groups_is_not_one_of_a_module_that_is_trained() -> None:
    optimizer = torch.optim.SGD([{"params": []}], lr=0.1)
    with pytest.raises(ModelError, match="the SGD holds no parameter of this module"):
        live.grow(module_of(mlp()), AddNode(source="x", target="head", width=2), optimizer)


def test_frozen_parameters_need_not_be_in_the_optimizer() -> None:
    module = module_of(mlp())
    module.get_submodule("fc1").requires_grad_(False)
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad])
    grown, report = live.grow(module, AddNode(source="x", target="head", width=2), optimizer)
    assert report.untrained == ()
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert {key for key, p in grown.named_parameters() if id(p) not in held} == {"fc1.weight", "fc1.bias"}
    frozen = module_of(mlp()).requires_grad_(False)
    waiting = torch.optim.AdamW([{"params": []}])
    grown, report = live.grow(frozen, AddNode(source="x", target="head", width=2), waiting)
    assert {key for key, p in grown.named_parameters() if p.requires_grad} == {
        key for key in dict(grown.named_parameters()) if key.startswith(("node_1", "edge_1"))
    }
    assert len(waiting.param_groups[0]["params"]) == 3


def test_a_tensor_that_a_later_layer_takes_over_moves_to_where_that_is() -> None:
    """What owned it is gone; an optimizer that is made anew has it behind what comes before its new owner."""

    def layer(name: str, source: str, tied: bool = False) -> Node:
        owners = {"weight": "a.weight", "bias": "a.bias"} if tied else {}
        return Node(name=name, op=line(3), inputs=(source,), tied=owners)

    graph = graph_of((3,), layer("a", "x"), layer("m", "x"), layer("c", "m", tied=True), outputs=("c",))
    module = module_of(graph)
    optimizer = torch.optim.Adam(module.parameters())
    one_step(module, optimizer, random_batch(graph))
    grown, _ = live.grow(module, EliminateDead(), optimizer)
    assert [key for key, _ in grown.named_parameters()] == ["m.weight", "m.bias", "c.weight", "c.bias"]
    assert list(map(id, optimizer.param_groups[0]["params"])) == list(map(id, grown.parameters()))
