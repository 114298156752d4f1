"""Extend: classes, tokens, positions and features, and what it refuses."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import growir
from growir import live
from growir.errors import PassRefused
from growir.graph import FixedSize, Graph, Node
from growir.network import Network
from growir.ops import (
    Add,
    BatchNorm,
    Conv2d,
    Flatten,
    LayerNorm,
    Linear,
    Log,
    LogSoftmax,
    Mean,
    Mul,
    Op,
    Parameter,
    Relu,
    Softmax,
    Standardise,
)
from growir.passes import Extend, Prune, Sequence, Widen
from growir.rewrite import Pass, Preserves
from growir.testing import assert_preserves, outputs, random_batch, random_network
from tests.samples import graph_of


def classifier(*after: Node, features: int = 4) -> Graph:
    """Two layers, and perhaps nodes behind them, the last of which is the output."""
    return graph_of(
        (features,),
        Node(name="fc", op=Linear(out_features=5), inputs=("x",)),
        Node(name="act", op=Relu(), inputs=("fc",)),
        Node(name="head", op=Linear(out_features=3), inputs=("act",)),
        *after,
        outputs=(after[-1].name if after else "head",),
    )


def read_through(op: Op, shape: tuple[int, ...]) -> Graph:
    """One operator on the input, and a layer."""
    head = Node(name="head", op=Linear(out_features=2), inputs=("op",))
    return graph_of(shape, Node(name="op", op=op, inputs=("x",)), head)


class Block(nn.Module):
    """Attention and a layer, with a residual around each."""

    def __init__(self, width: int, causal: bool, heads: int = 2) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.heads, self.causal = heads, causal

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = x.shape
        parts = self.qkv(self.norm(x)).chunk(3, -1)
        q, k, v = (p.view(batch, tokens, self.heads, width // self.heads).transpose(1, 2) for p in parts)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        found: torch.Tensor = x + self.out(seen.transpose(1, 2).reshape(batch, tokens, width))
        return found


class Language(nn.Module):
    """A small language model; its head may be tied to its embedding, its positions a table or a parameter."""

    def __init__(self, tied: bool = True, causal: bool = True, table: bool = True, rows: int = 5) -> None:
        super().__init__()
        self.emb, self.block, self.head = nn.Embedding(9, 8), Block(8, causal), nn.Linear(8, 9)
        if tied:
            self.head.weight = self.emb.weight
        self.pos = nn.Embedding(rows, 8) if table else nn.Parameter(torch.randn(1, rows, 8))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        tokens = ids.shape[1]
        pos = self.pos(torch.arange(tokens)) if isinstance(self.pos, nn.Embedding) else self.pos[:, :tokens]
        found: torch.Tensor = self.head(self.block(self.emb(ids) + pos))
        return found


def language(**how: Any) -> Network:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return growir.from_torch(Language(**how).double(), torch.randint(0, 9, (2, 5)))


# -- classes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [Extend(node="head", by=2), Widen(node="head", by=2)], ids=["extend", "widen"])
def test_more_classes(step: Pass) -> None:
    graph = classifier()
    net = random_network(graph)
    more = assert_preserves(step, graph)
    done = step.rewrite(graph)
    assert done.preserves is Preserves.EXACT
    assert done.callers == (
        "output head is (N, 5) where it was (N, 3): entries 3 to 4 of axis 1 are new; targets, class weights and "
        "metrics that count them must follow",
    )
    for key in ("head.weight", "head.bias"):
        assert np.array_equal(more.arrays[key][:3], net.arrays[key])
        assert more.arrays[key][3:].any()
    assert more.history is not None
    assert more.replayed(net.arrays).graph.hash == more.graph.hash
    batch = random_batch(graph)
    assert np.allclose(outputs(more, batch)[0][:, :3], outputs(net, batch)[0], rtol=1e-12)


def test_a_constant_along_the_classes_is_asked_for() -> None:
    """Logits are shifted by a constant, the logarithm of how often each class occurs, say."""
    prior = Node(name="prior", op=Parameter(shape=(3,), buffer=True))
    graph = classifier(prior, Node(name="shifted", op=Add(), inputs=("head", "prior")))
    for kind in (Extend, Widen):
        with pytest.raises(PassRefused, match=r"head: prior is a constant .* give them, values=\{'prior.weight': "):
            kind(node="head", by=1).rewrite(graph)
        step = kind(node="head", by=1, values={"prior.weight": np.full(1, -3.0)})
        more = assert_preserves(step, graph)
        assert more.arrays["prior.weight"][3] == -3.0
    assert_preserves(Extend(node="head", by=1, copies=(1,)), graph)  # a copy takes its class's


def test_widen_and_extend_are_one_mechanism() -> None:
    for net, node in ((random_network(classifier()), "head"), (random_network(measuring()), "x"), (language(), "head")):
        a, b = (net.apply(step) for step in (Extend(node=node, by=2), Widen(node=node, by=2)))
        assert a.graph == b.graph
        assert all(np.array_equal(a.arrays[key], b.arrays[key]) for key in a.arrays)


def test_new_entries_of_what_is_frozen_are_spoken_of() -> None:
    graph = classifier()
    frozen = [n.model_copy(update={"frozen": ("weight",)}) if n.name == "head" else n for n in graph.nodes]
    callers = Extend(node="head", by=1).rewrite(graph.replace(nodes=frozen)).callers
    assert callers[1:] == ("head.weight is frozen, so its new entries are not trained unless it is thawed",)


def test_what_asks_for_candidates_of_widen_never_changes_the_classes() -> None:
    graph = classifier()
    assert {step.node for step in Widen.candidates(graph)} == {"fc"}
    assert {(step.node, step.axis) for step in Extend.candidates(graph)} == {("head", 1), ("x", 1)}


def test_a_class_may_begin_as_another() -> None:
    net = random_network(classifier())
    more = net.apply(Extend(node="head", by=2, copies=(2, 0)))
    assert np.array_equal(more.arrays["head.weight"], net.arrays["head.weight"][[0, 1, 2, 2, 0]])
    assert np.array_equal(more.arrays["head.bias"], net.arrays["head.bias"][[0, 1, 2, 2, 0]])


@pytest.mark.parametrize(("fresh", "row"), [("zero", 0.0), ("mean", None)])
def test_how_a_class_starts(fresh: Any, row: float | None) -> None:
    net = random_network(classifier())
    weight = net.apply(Extend(node="head", by=1, fresh=fresh)).arrays["head.weight"]
    wanted = net.arrays["head.weight"].mean(0) if row is None else row
    assert np.allclose(weight[3], wanted)


def test_more_channels_of_a_map_and_of_what_else_reads_them() -> None:
    """Segmentation: a norm behind the head comes along, and a layer inside that reads the map stays as it was."""
    graph = graph_of(
        (2, 4, 4),
        Node(name="conv", op=Conv2d(out_channels=3, kernel_size=3, padding=1), inputs=("x",)),
        Node(name="norm", op=BatchNorm(), inputs=("conv",)),
        Node(name="flat", op=Flatten(), inputs=("norm",)),
        Node(name="side", op=Linear(out_features=2), inputs=("flat",)),
        outputs=("norm", "side"),
    )
    more = assert_preserves(Extend(node="norm", by=2), graph)
    assert more.arrays["conv.weight"].shape[0] == more.arrays["norm.running_var"].shape[0] == 5
    assert not more.arrays["side.weight"][:, 48:].any()


# -- tokens -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("node", ["emb", "head"])
def test_more_tokens_of_a_tied_embedding_and_head(node: str) -> None:
    net = language()
    step = Extend(node=node, by=2)
    more = net.apply(step, verify=True)
    assert_preserves(step, net.graph)
    assert more.arrays["emb.weight"].shape == (11, 8)
    assert more.arrays["head.bias"].shape == (11,)
    assert np.allclose(more.arrays["emb.weight"][9:], net.arrays["emb.weight"].mean(0))
    assert step.rewrite(net.graph).callers == (
        "embedding emb knows 11 integers where it knew 9: a tokenizer may give 9 to 10 too",
        "output head is (N, 5, 11) where it was (N, 5, 9): entries 9 to 10 of axis 2 are new; targets, class weights "
        "and metrics that count them must follow",
    )
    ids = torch.full((1, 5), 10)
    assert bool(more.to_torch()(ids).isfinite().all())


def test_more_tokens_where_the_head_has_weights_of_its_own() -> None:
    net = language(tied=False)
    only = net.apply(Extend(node="emb", by=2), verify=True)
    assert only.arrays["emb.weight"].shape == (11, 8)
    assert only.arrays["head.weight"].shape == (9, 8)
    both = Sequence(passes=(Extend(node="emb", by=2), Extend(node="head", by=2, fresh="mean")))
    more = net.apply(both, verify=True)
    assert more.arrays["head.weight"].shape == (11, 8)
    assert_preserves(both, net.graph)
    assert len(both.rewrite(net.graph).callers) == 2


def test_the_padding_entry_stays_the_only_one_at_zero() -> None:
    graph = growir.load_graph(
        {
            "schema": "growir/1",
            "inputs": [{"name": "ids", "shape": ["N", 3], "dtype": "int64"}],
            "nodes": [
                {"name": "e", "op": "embedding", "inputs": ["ids"], "num_embeddings": 4, "embedding_dim": 2,
                 "padding_idx": 3},
                {"name": "flat", "op": "flatten", "inputs": ["e"]},
                {"name": "head", "op": "linear", "inputs": ["flat"], "out_features": 2},
            ],
            "outputs": ["head"],
        }
    )  # fmt: skip
    weight = Network.init(graph).apply(Extend(node="e", by=5, fresh="drawn")).arrays["e.weight"]
    assert (np.abs(weight).sum(1) == 0).tolist() == [False, False, False, True] + [False] * 5


# -- positions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", [True, False], ids=["table", "parameter"])
def test_a_longer_context_of_a_causal_network(table: bool) -> None:
    net = language(table=table)
    step = Extend(node="ids", by=3)
    more = net.apply(step, verify=True)
    assert_preserves(step, net.graph)
    assert more.graph.inputs[0].shape == ("N", 8)
    assert more.arrays["pos"].size == 8 * 8 if "pos" in more.arrays else more.arrays["pos.weight"].size == 8 * 8
    ids = torch.randint(0, 9, (3, 8), generator=torch.Generator().manual_seed(1))
    old, new = net.to_torch(dtype=torch.float64)(ids[:, :5]), more.to_torch(dtype=torch.float64)(ids)
    torch.testing.assert_close(new[:, :5], old, rtol=1e-12, atol=1e-12)
    assert (
        step.rewrite(net.graph)
        .callers[0]
        .startswith("input ids takes (N, 8) where it took (N, 5): callers give entries 5 to 7 of axis 1 too")
    )
    # The rows for positions name the same entries.
    name = "pos"
    assert Extend(node=name, by=3, axis=-2).rewrite(net.graph).graph == more.graph


class Gated(nn.Module):
    """A norm written out, which divides by what might be zero, before causal attention with learned positions."""

    def __init__(self) -> None:
        super().__init__()
        self.pos, self.block, self.head = nn.Parameter(torch.randn(5, 8)), Block(8, causal=True), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.pos
        found: torch.Tensor = self.head(self.block(x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5)))
        return found


def test_positions_that_are_divided_by_start_like_any_others() -> None:
    net = growir.from_torch(Gated(), torch.randn(2, 5, 8))
    step = Extend(node="x", axis=1, by=2)
    assert step.resolved(net.graph).copies == ()
    more = assert_preserves(step, net.graph)
    assert more.arrays["pos.weight"].shape == (7, 8)


def test_all_tokens_that_see_each_other_have_no_old_entries() -> None:
    net = language(causal=False)
    with pytest.raises(PassRefused, match=r"extend ids: axis 1, of 5, is pinned by .* \(tokens attend to each other\)"):
        net.apply(Extend(node="ids", by=1))


class Suffix(nn.Module):
    """Causal attention over the input's rows and a learned one behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.block, self.head = nn.Parameter(torch.randn(1, 1, 8)), Block(8, causal=True), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = torch.cat([x, self.last.expand(x.shape[0], -1, -1)], 1)
        found: torch.Tensor = self.head(self.block(rows))
        return found


def test_tokens_that_are_not_the_last_are_seen_by_those_behind() -> None:
    net = growir.from_torch(Suffix(), torch.randn(2, 5, 8))
    with pytest.raises(PassRefused, match=r"axis 1, of 5, is pinned by .* \(new positions would not be the last"):
        net.apply(Extend(node="x", axis=1, by=1))


def test_positions_that_are_there_already_are_not_made_again() -> None:
    net = language(rows=7)
    with pytest.raises(PassRefused, match=r"extend ids: pos has more rows than the 5 that this axis uses.* first$"):
        net.apply(Extend(node="ids", by=1))


# -- features ---------------------------------------------------------------------------------------------------------


def measuring() -> Graph:
    """Standardised features, normalised once more, and a layer."""
    return graph_of(
        (4,),
        Node(name="scale", op=Standardise(), inputs=("x",)),
        Node(name="norm", op=BatchNorm(), inputs=("scale",)),
        Node(name="head", op=Linear(out_features=3), inputs=("norm",)),
    )


@pytest.mark.parametrize("step", [Extend(node="x", by=2), Widen(node="x", by=2)], ids=["extend", "widen"])
def test_more_features(step: Pass) -> None:
    graph = measuring()
    net = random_network(graph)
    more = assert_preserves(step, graph)
    assert more.graph.inputs[0].shape == ("N", 6)
    assert not more.arrays["head.weight"][:, 4:].any()
    # A new deviation above all others would make an old entry count as constant.
    assert np.allclose(more.arrays["scale.std"][4:], net.arrays["scale.std"].mean())
    assert step.rewrite(graph).callers == (
        "input x takes (N, 6) where it took (N, 4): callers give entries 4 to 5 of axis 1 too",
    )
    trained = more.to_torch().train()
    loss = trained(torch.randn(8, 6)).square().sum()
    loss.backward()
    grad = trained.get_parameter("head.weight").grad
    assert grad is not None
    assert bool((grad[:, 4:].abs().sum(0) > 0).all())  # they learn from the first step


def test_a_size_that_became_a_number_stays_one_and_callers_hear_of_it() -> None:
    graph = measuring().replace(fixed_sizes=[FixedSize(input="x", axis=1, why="model.py:3: x / x.shape[1]")])
    done = Extend(node="x", by=1).rewrite(graph)
    assert done.graph.fixed_sizes == graph.fixed_sizes
    assert done.callers == (
        "input x takes (N, 5) where it took (N, 4): callers give entries 4 of axis 1 too; its size 4 became a number "
        "of the graph (model.py:3: x / x.shape[1]): where that is more than a length, a divisor say, it is still 4",
    )
    more = random_network(graph).apply(Extend(node="x", by=1), verify=True).to_torch()
    assert more(torch.randn(2, 5)).shape == (2, 3)


def test_more_channels_of_images_are_read_with_zeros() -> None:
    graph = graph_of(
        (3, 4, 4),
        Node(name="conv", op=Conv2d(out_channels=2, kernel_size=3), inputs=("x",)),
        Node(name="flat", op=Flatten(), inputs=("conv",)),
        Node(name="head", op=Linear(out_features=2), inputs=("flat",)),
    )
    more = assert_preserves(Extend(node="x", by=1), graph)  # the only axis that can: a kernel slides along the others
    assert more.graph.inputs[0].shape == ("N", 4, 4, 4)
    assert not more.arrays["conv.weight"][:, 3:].any()


def test_features_read_with_drawn_weights_keep_the_function_while_they_are_zero() -> None:
    graph = measuring()
    step = Extend(node="x", by=2, fresh="drawn")
    more = assert_preserves(step, graph)
    assert more.arrays["head.weight"][:, 4:].any()
    assert step.rewrite(graph).entries.zero
    given = Extend(node="x", by=1, values={"head.weight": np.ones((3, 1))})
    assert given.rewrite(graph).entries.zero
    sums = classifier(Node(name="shift", op=Mul(), inputs=("head", "head")))
    assert Extend(node="x", by=1, fresh="drawn").preserves(sums) is Preserves.EXACT
    known = Extend(node="x", by=1, fresh="drawn", values={"norm.bias": np.ones(1)})
    assert known.preserves(graph) is Preserves.NOTHING  # a zero does not stay one


def test_statistics_may_be_given_for_what_is_known_of_new_features() -> None:
    graph = measuring()
    step = Extend(node="x", by=1, values={"scale.std": np.full(1, 7.0)})
    assert step.preserves(graph) is Preserves.APPROXIMATE
    assert random_network(graph).apply(step).arrays["scale.std"][4] == 7.0


# -- all together -----------------------------------------------------------------------------------------------------


def test_one_after_another() -> None:
    """Entries of several steps are those of one sequence; what is removed inside stands in no one's way."""
    graph = classifier()
    step = Sequence(
        passes=(
            Extend(node="head", by=1),
            Widen(node="fc", by=2),
            Widen(node="x", by=1),
            Extend(node="head", by=2, copies=(3, 0)),
        )
    )
    more = assert_preserves(step, graph)
    assert more.arrays["head.weight"].shape == (6, 7)
    assert step.rewrite(graph).entries.outputs[0][1].tolist() == [0, 1, 2, -1, -1, -1]
    assert more.replayed(random_network(graph).arrays).graph.hash == more.graph.hash


def test_an_input_that_is_added_to_an_output_grows_with_it() -> None:
    graph = growir.load_graph(
        {
            "schema": "growir/1",
            "inputs": [{"name": "x", "shape": ["N", 4]}, {"name": "y", "shape": ["N", 3]}],
            "nodes": [
                {"name": "head", "op": "linear", "inputs": ["x"], "out_features": 3},
                {"name": "sum_", "op": "add", "inputs": ["head", "y"]},
            ],
            "outputs": ["sum_"],
        }
    )
    for node in ("head", "sum_", "y"):
        assert_preserves(Extend(node=node, by=2), graph)
        assert [entry.shape for entry in Extend(node=node, by=2).rewrite(graph).graph.inputs] == [("N", 4), ("N", 5)]


def test_an_axis_in_two_parts_is_named_by_its_parts() -> None:
    graph = growir.load_graph(
        {
            "schema": "growir/1",
            "inputs": [{"name": "x", "shape": ["N", 4]}],
            "nodes": [
                {"name": "a", "op": "linear", "inputs": ["x"], "out_features": 2},
                {"name": "b", "op": "linear", "inputs": ["x"], "out_features": 3},
                {"name": "both", "op": "concat", "inputs": ["a", "b"]},
            ],
            "outputs": ["both"],
        }
    )
    with pytest.raises(PassRefused, match=r"more than one .*axis 1 \(a, 5\), axis 1 \(b, 5\); give axis, or another"):
        Extend(node="both", by=1).rewrite(graph)
    assert_preserves(Extend(node="a", by=2), graph)
    assert Extend(node="a", by=2).rewrite(graph).entries.kept(0)[1].tolist() == [0, 1, 4, 5, 6]


def test_live_growth_carries_optimizer_averages_and_masks() -> None:
    net = Network.init(classifier())
    module, batch = net.to_torch(), torch.randn(6, 4)
    optimizer = torch.optim.Adam(module.parameters())
    average = torch.optim.swa_utils.AveragedModel(module)
    for _ in range(3):
        optimizer.zero_grad()
        module(batch).square().sum().backward()
        optimizer.step()
    first = {k: optimizer.state[p]["exp_avg"].clone() for k, p in module.named_parameters()}
    masks = {"head.weight": torch.zeros(3, 5)}
    step = Extend(node="head", by=2)
    module, report = live.grow(module, step, optimizer, [average], masks, verify=batch)
    moments = {k: optimizer.state[p]["exp_avg"] for k, p in module.named_parameters()}
    for key in ("head.weight", "head.bias"):
        assert torch.equal(moments[key][:3], first[key])
        assert not moments[key][3:].any()
    assert average(batch).shape == (6, 5)
    assert report.masks["head.weight"].tolist() == [[0.0] * 5] * 3 + [[1.0] * 5] * 2
    assert report.measured is not None
    assert report.measured < 1e-4
    assert "  callers: output head is (N, 5) where it was (N, 3)" in str(report)
    module, report = live.grow(module, Extend(node="x", by=1), optimizer, verify=batch)
    assert module(torch.randn(2, 5)).shape == (2, 5)


REFUSED: list[tuple[Graph, Extend, str]] = [
    (classifier(), Extend(node="fc", by=1), r"extend fc: no input or output of the graph.*\(N, 5\).*changed by widen"),
    (classifier(), Extend(node="hed", by=1), r"there is no node or input 'hed'\. Did you mean 'head'\?"),
    (classifier(), Extend(node="head", axis=2, by=1), r"axis 2 is none of head, \(N, 3\), or its batch"),
    (classifier(), Extend(node="head", axis=0, by=1), r"axis 0 is none of head"),
    (classifier(), Extend(node="head", by=1, copies=(3,)), "copies must be 1 channel numbers below 3"),
    (classifier(), Extend(node="head", by=10**8), "it would have 1e.08 channels; at most 1e.07 are allowed"),
    (classifier(), Extend(node="x", by=1, copies=(0,)), "a new feature has numbers of its own"),
    (classifier(), Extend(node="x", by=1, fresh="mean"), 'what reads new features starts at "zero", or "drawn"'),
    (
        classifier(Node(name="soft", op=Softmax(dim=1), inputs=("head",))),
        Extend(node="head", by=1),
        r"extend head: axis 1, of 3, is pinned by soft \(softmax over this axis\)",
    ),
    (
        classifier(Node(name="soft", op=LogSoftmax(dim=1), inputs=("head",))),
        Extend(node="soft", by=1),
        r"extend soft: axis 1, of 3, is pinned by soft",
    ),
    (
        classifier(Node(name="norm", op=LayerNorm(), inputs=("head",))),
        Extend(node="norm", by=1),
        r"it grows by multiples of 3 \(it is normalised as a whole\), but by is 1; try by=3",
    ),
    (
        read_through(LayerNorm(), (4,)),
        Extend(node="x", by=4),
        "axis 1, of 4, is averaged or normalised as a whole, so new entries would move the old ones",
    ),
    (
        read_through(Mean(dim=1), (4, 3)),
        Extend(node="x", axis=1, by=4),
        "averaged or normalised as a whole",
    ),
    (
        read_through(Log(), (4,)),
        Extend(node="x", by=1),
        "axis 1, of 4, passes a function that is not finite everywhere, as new features might not be",
    ),
]


@pytest.mark.parametrize(("graph", "step", "reason"), REFUSED, ids=lambda value: getattr(value, "node", None))
def test_refusals(graph: Graph, step: Extend, reason: str) -> None:
    with pytest.raises(PassRefused, match=reason):
        step.rewrite(graph)


def test_other_passes_leave_callers_alone() -> None:
    graph = classifier()
    for step in (Widen(node="fc", by=1), Prune(node="fc", channels=(0,))):
        done = step.rewrite(graph)
        assert done.callers == ()
        assert not done.entries.inputs
        assert not done.entries.outputs


class Queries(nn.Module):
    """Learned queries that attend to the input; each is one row of the output."""

    def __init__(self) -> None:
        super().__init__()
        self.queries, self.kv, self.head = nn.Parameter(torch.randn(4, 6)), nn.Linear(6, 12), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        k, v = self.kv(x).chunk(2, -1)
        found: torch.Tensor = self.head(F.scaled_dot_product_attention(self.queries.expand(x.shape[0], -1, -1), k, v))
        return found


def test_queries_that_are_answered_each_by_itself_may_become_more() -> None:
    net = growir.from_torch(Queries(), torch.randn(2, 5, 6))
    more = net.apply(Extend(node="head", axis=1, by=2), verify=True)
    assert_preserves(Extend(node="queries", by=2), net.graph)
    assert more.to_torch()(torch.randn(3, 5, 6)).shape == (3, 6, 2)
    with pytest.raises(
        PassRefused, match=r"more than one axis could become longer: axis 1 \(.*, 4\), axis 2 \(.*, 2\)"
    ):
        net.apply(Extend(node="head", by=2))
