"""The laws of split and prune: split keeps the function, prune gives the network that does not read the channels."""

from __future__ import annotations

from collections import Counter, abc

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from growir.backends.torch_edits import TORCH
from growir.channels import analyse
from growir.edits import Edit, Remap, apply_edits
from growir.errors import PassRefused
from growir.graph import Graph, Node
from growir.network import Network
from growir.ops import (
    Add,
    AvgPool2d,
    BatchNorm,
    Concat,
    Conv2d,
    Elu,
    Flatten,
    Hardswish,
    LeakyRelu,
    Linear,
    Log,
    Permute,
    Relu,
    Reshape,
    RmsNorm,
    Sigmoid,
    Silu,
    Softplus,
    Tanh,
)
from growir.ops.spaces import Space
from growir.passes import Prune, Sequence, Split, Widen, pass_from_data
from growir.resize import Units, axis_positions
from growir.rewrite import Preserves
from growir.shapes import shapes_of
from growir.testing import (
    assert_preserves,
    candidates_on,
    close,
    masked,
    outputs,
    random_batch,
    random_network,
    worst,
)
from tests.samples import graph_of


@given(st.data())
def test_prune_is_masking(data: st.DataObject) -> None:
    step, graph = data.draw(candidates_on(Prune))
    space = step.space(graph)
    assume(not (space.uniform or space.tied or space.partial))
    before = random_network(graph)
    after = before.apply(step)
    batch = random_batch(graph)
    for wanted, found in zip(outputs(masked(before, step), batch), outputs(after, batch), strict=True):
        assert close(wanted, found), worst(wanted, found)


def shuffled() -> Graph:
    """ShuffleNet's unit with 3 groups of 5 channels: a shuffle gives 5 x 3 positions, which 3 groups do not divide."""
    return graph_of(
        (3, 4, 4),
        Node(name="first", op=Conv2d(out_channels=15, kernel_size=1, groups=3), inputs=("x",)),
        Node(name="rows", op=Reshape(shape=(3, -1, 4, 4)), inputs=("first",)),
        Node(name="turned", op=Permute(dims=(0, 2, 1, 3, 4)), inputs=("rows",)),
        Node(name="back", op=Reshape(shape=(-1, 4, 4)), inputs=("turned",)),
        Node(name="grouped", op=Conv2d(out_channels=6, kernel_size=3, padding=1, groups=3), inputs=("back",)),
        Node(name="act", op=Relu(), inputs=("grouped",)),
        Node(name="flat", op=Flatten(), inputs=("act",)),
        Node(name="head", op=Linear(out_features=2), inputs=("flat",)),
    )


def test_groups_that_take_different_channels_stay_equally_long() -> None:
    """Rows of 5 over units of 3: two units are torn and stay, the others change so that the rows stay equal."""
    graph = shuffled()
    spaces = {space.name: space for space in analyse(graph).spaces}
    free = [space for space in spaces.values() if not space.pins]
    assert any(len(space.growth) > 1 for space in free)
    for space in free:
        assert_preserves(Widen(node=space.name, by=space.stride), graph)
        units = space.growth[space.space]
        copies = tuple(k % space.units for k in range(units))
        assert_preserves(Widen(node=space.name, by=space.stride, copies=copies), graph)
        if units <= space.units:
            assert_preserves(Split(node=space.name, channels=tuple(range(units))), graph)
        if all(other.size > n for other, n in space.shrink.items()):
            step = Prune(node=space.name, channels=tuple(range(units)))
            before = random_network(graph)
            batch = random_batch(graph)
            assert close(outputs(masked(before, step), batch)[0], outputs(before.apply(step), batch)[0])


def test_the_worked_case_of_resizing() -> None:
    """The numbers in the docstring of growir/resize.py."""
    a, b = Space(3), Space(2)
    copied = Units(np.array([0, 1, 2, 1]), np.array([1, 0.5, 1, 0.5]))
    fresh = Units(np.array([0, 1, -1]), np.ones(3))
    found = axis_positions(((a, 1), (b, 1)), {a: copied, b: fresh})
    assert found is not None
    assert found[0].tolist() == [0, 1, 2, 1, 3, 4, -1]
    assert found[1].tolist() == [1, 0.5, 1, 0.5, 1, 1, 1]
    group, row = Space(2), Space(1)
    found = axis_positions(((group, ((row, 2),)),), {row: Units(np.array([0, -1]), np.ones(2))})
    assert found is not None
    assert found[0].tolist() == [0, 1, -1, -1, 2, 3, -1, -1]


def residual() -> Graph:
    return graph_of(
        (2, 4, 4),
        Node(name="stem", op=Conv2d(out_channels=4, kernel_size=3, padding=1), inputs=("x",)),
        Node(name="norm", op=BatchNorm(), inputs=("stem",)),
        Node(name="act", op=Relu(), inputs=("norm",)),
        Node(name="body", op=Conv2d(out_channels=4, kernel_size=3, padding=1), inputs=("act",)),
        Node(name="sum_", op=Add(), inputs=("act", "body")),
        Node(name="flat", op=Flatten(), inputs=("sum_",)),
        Node(name="head", op=Linear(out_features=2), inputs=("flat",)),
    )


def test_a_residual_class_splits_jointly() -> None:
    graph = residual()
    before = random_network(graph)
    after = assert_preserves(Split(node="stem", channels=(2, 0), shares=(0.3, 0.6)), graph)
    index = [0, 1, 2, 3, 2, 0]
    share = np.array([0.4, 1, 0.7, 1, 0.3, 0.6])
    for key in ("stem.weight", "body.bias", "norm.weight", "norm.running_var"):
        assert np.array_equal(after.arrays[key], before.arrays[key][index])
    body = before.arrays["body.weight"][index][:, index] * share[:, None, None]
    assert np.allclose(after.arrays["body.weight"], body, rtol=1e-15, atol=0)


def test_theta_parts_the_pair_and_nothing_else() -> None:
    graph = residual()
    before = random_network(graph)
    plain = before.apply(Split(node="stem", channels=(1,), shares=(0.5,)))
    step = Split(node="stem", channels=(1,), theta=0.1)
    assert step.preserves(graph) is Preserves.APPROXIMATE
    after = before.apply(step)
    for key in ("stem.weight", "body.weight"):
        moved = after.arrays[key] - plain.arrays[key]
        assert np.allclose(moved[4], -moved[1])
        assert np.abs(moved[4]).min() > 0
        assert not moved[[0, 2, 3]].any()
    for key in ("stem.bias", "norm.weight", "norm.running_mean", "head.weight"):
        assert np.array_equal(after.arrays[key], plain.arrays[key])


def test_a_given_theta_is_used_and_recorded() -> None:
    graph = residual()
    theta = np.random.default_rng(0).normal(size=(1, 2, 3, 3))
    step = Split(node="stem", channels=(3,), values={"stem.weight": theta})
    after = random_network(graph).apply(step)
    weight = after.arrays["stem.weight"]
    assert np.allclose((weight[4] - weight[3]) / 2, theta[0])
    assert after.graph.history is not None
    assert set(after.values) == set(after.graph.history.steps[0].values.values())
    again = random_network(graph)
    assert np.array_equal(after.replayed(again.arrays).arrays["stem.weight"], weight)
    with pytest.raises(PassRefused, match=r"has shape \(1, 2, 3, 3\), but values give \(2, 2, 3, 3\)"):
        Split(node="stem", channels=(3,), values={"stem.weight": np.zeros((2, 2, 3, 3))}).rewrite(graph)


def moves(edits: abc.Sequence[Edit]) -> int:
    """How often the most moved tensor is copied."""
    return max(Counter(edit.key for edit in edits if isinstance(edit, Remap)).values())


def test_a_sequence_on_different_spaces_is_one_copy() -> None:
    graph = residual()
    both = Sequence(passes=(Widen(node="stem", by=2), Prune(node="stem", channels=(0,))))
    assert moves(both.rewrite(graph).edits) > 1  # one space twice: one after the other
    wide = graph_of(
        (3,),
        Node(name="a", op=Linear(out_features=4), inputs=("x",)),
        Node(name="b", op=Linear(out_features=5), inputs=("a",)),
        Node(name="head", op=Linear(out_features=2), inputs=("b",)),
    )
    done = Sequence(passes=(Widen(node="a", by=2), Split(node="b", channels=(1,)))).rewrite(wide)
    assert moves(done.edits) == 1
    assert done.graph.history is not None
    (step,) = done.graph.history.steps
    assert step.kind == "sequence"
    once = random_network(wide).apply(Widen(node="a", by=2)).apply(Split(node="b", channels=(1,)))
    joint = random_network(wide).apply(Sequence(passes=(Widen(node="a", by=2), Split(node="b", channels=(1,)))))
    assert once.graph.hash == joint.graph.hash


def test_a_sequence_on_one_space_may_fit_only_one_after_the_other() -> None:
    """A space that is normalised as a whole grows by copies of every channel: the second time there are two of them."""
    graph = graph_of(
        (3,),
        Node(name="a", op=Linear(out_features=1), inputs=("x",)),
        Node(name="norm", op=RmsNorm(), inputs=("a",)),
        Node(name="head", op=Linear(out_features=2), inputs=("norm",)),
    )
    step = Sequence(passes=(Widen(node="a", by=1), Widen(node="a", by=2)))
    grown = random_network(graph).apply(step)
    assert shapes_of(grown.graph)["a"].size(1) == 4
    (recorded,) = grown.graph.history.steps if grown.graph.history else ()
    assert [len(each["copies"]) for each in recorded.fields["passes"]] == [1, 2]
    assert_preserves(step, graph)


def test_a_sequence_says_which_pass_does_not_fit_and_changes_nothing() -> None:
    graph = residual()
    with pytest.raises(
        PassRefused, match=r"sequence, passes\[1\]: prune stem: channels must be different numbers below 6"
    ):
        Sequence(passes=(Widen(node="stem", by=2), Prune(node="stem", channels=(6,)))).rewrite(graph)
    assert graph.history is None


def test_a_sequence_carries_arrays_for_its_passes() -> None:
    graph = residual()
    block = np.random.default_rng(0).normal(size=(1, 2, 3, 3))
    step = Sequence(passes=(Prune(node="stem", channels=(0,)), Widen(node="stem", by=1, values={"stem.weight": block})))
    assert set(step.values) == {"1/stem.weight"}
    after = random_network(graph).apply(step)
    assert np.array_equal(after.arrays["stem.weight"][3], block[0])
    assert after.graph.history is not None
    recorded = after.graph.history.steps[0]
    again = pass_from_data(
        {"pass": "sequence", **recorded.fields}, {k: after.values[v] for k, v in recorded.values.items()}
    )
    assert random_network(graph).apply(again).graph.hash == after.graph.hash
    assert np.array_equal(after.replayed(random_network(graph).arrays).arrays["stem.weight"][3], block[0])


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (Prune(node="stem", channels=(0, 1, 2, 3)), "one must stay; at most 3"),
        (Prune(node="stem", channels=(4,)), "different numbers below 4"),
        (Prune(node="stem", channels=(1, 1)), "different numbers below 4"),
        (Split(node="stem", channels=(0,), shares=(0.2, 0.3)), "shares must be as many as channels, 1, but are 2"),
        (Split(node="head", channels=(0,)), r"pinned by head \(graph output\)"),
        (Split(node="stem", channels=(0,), values={"head.weight": np.zeros(1)}), "head.weight does not produce"),
    ],
)
def test_refusals(step: Prune | Split, reason: str) -> None:
    with pytest.raises(PassRefused, match=reason):
        step.rewrite(residual())


def test_a_shuffle_by_reshapes_keeps_its_order() -> None:
    graph = graph_of(
        (2, 2, 2),
        Node(name="conv", op=Conv2d(out_channels=6, kernel_size=1), inputs=("x",)),
        Node(name="rows", op=Reshape(shape=(2, -1, 2, 2)), inputs=("conv",)),
        Node(name="back", op=Reshape(shape=(-1, 2, 2)), inputs=("rows",)),
        Node(name="flat", op=Flatten(), inputs=("back",)),
        Node(name="head", op=Linear(out_features=2), inputs=("flat",)),
    )
    assert_preserves(Split(node="conv", channels=(1,)), graph)


def plain(*acts: Node, padding: int = 0, bias: bool = False) -> Graph:
    """conv, norm, what is between, conv: the ordinary place of pruning."""
    last = acts[-1].name if acts else "norm"
    return graph_of(
        (2, 6, 6),
        Node(name="conv", op=Conv2d(out_channels=4, kernel_size=3), inputs=("x",)),
        Node(name="norm", op=BatchNorm(), inputs=("conv",)),
        *acts,
        Node(name="next_", op=Conv2d(out_channels=3, kernel_size=3, padding=padding, bias=bias), inputs=(last,)),
        Node(name="flat", op=Flatten(), inputs=("next_",)),
        Node(name="head", op=Linear(out_features=2), inputs=("flat",)),
    )


def starved(graph: Graph, rows: tuple[int, ...]) -> Network:
    """A network in which nothing feeds these channels of `conv` but biases and norms."""
    net = random_network(graph)
    weight = net.arrays["conv.weight"].copy()
    weight[list(rows)] = 0
    return net.with_arrays({"conv.weight": weight})


CHAINS = [
    [],
    [Node(name="act", op=Relu(), inputs=("norm",))],
    [Node(name="act", op=Silu(), inputs=("norm",))],
    [
        Node(name="act", op=Tanh(), inputs=("norm",)),
        Node(name="pool", op=AvgPool2d(kernel_size=2, stride=1), inputs=("act",)),
    ],
    [
        Node(name="act", op=Elu(alpha=0.5), inputs=("norm",)),
        Node(name="wide", op=Conv2d(kernel_size=1, depthwise=True, multiplier=2), inputs=("act",)),
    ],
    [Node(name="act", op=Hardswish(), inputs=("norm",)), Node(name="sum_", op=Add(), inputs=("act", "norm"))],
    [Node(name="act", op=LeakyRelu(), inputs=("norm",)), Node(name="cat", op=Concat(), inputs=("norm", "act"))],
]  # fmt: skip


@pytest.mark.parametrize("acts", CHAINS, ids=lambda acts: "-".join(node.op.kind() for node in acts) or "norm")
@pytest.mark.parametrize("bias", [False, True])
def test_folding_keeps_what_starved_channels_give(acts: list[Node], bias: bool) -> None:
    net = starved(plain(*acts, bias=bias), (1, 2))
    step = Prune(node="conv", channels=(1, 2), fold=True)
    assert net.measure(step)["head"] < 1e-12
    assert net.measure(Prune(node="conv", channels=(1, 2)))["head"] > 1e-4
    module = net.to_torch()
    tensors = {key: value.detach() for key, value in module.state_dict().items()}
    done = step.rewrite(net.graph)
    live = apply_edits(done.edits, tensors, TORCH, np.dtype(np.float64))
    for key, array in net.apply(step).arrays.items():
        assert np.allclose(live[key].numpy(), array, rtol=1e-12)


def test_folding_past_a_zero_border_is_an_approximation() -> None:
    act = Node(name="act", op=Sigmoid(), inputs=("norm",))
    net = starved(plain(act, padding=1), (0,))
    step = Prune(node="conv", channels=(0,), fold=True)
    assert step.preserves(net.graph) is Preserves.APPROXIMATE
    assert net.measure(step)["head"] > 1e-6
    zero = {"norm.weight": np.zeros(4), "norm.bias": np.full(4, -40.0)}  # sigmoid gives 0, within rounding
    assert net.with_arrays(zero).measure(step)["head"] < 1e-9


def test_folding_refuses_what_it_does_not_know() -> None:
    act = Node(name="act", op=Softplus(), inputs=("norm",))
    with pytest.raises(PassRefused, match=r"cannot be folded into next_: what act \(softplus\) makes of constant"):
        Prune(node="conv", channels=(0,), fold=True).rewrite(plain(act))


def test_the_named_channels_go() -> None:
    graph = residual()
    before = random_network(graph)
    after = before.apply(Prune(node="stem", channels=(1, 3)))
    for key in ("stem.weight", "stem.bias", "norm.running_var"):
        assert np.array_equal(after.arrays[key], before.arrays[key][[0, 2]])
    assert np.array_equal(after.arrays["body.weight"], before.arrays["body.weight"][[0, 2]][:, [0, 2]])


def test_what_goes_through_a_logarithm_starts_from_weights_that_are_known_to_work() -> None:
    graph = graph_of(
        (3,),
        Node(name="fc", op=Linear(out_features=3), inputs=("x",)),
        Node(name="log", op=Log(), inputs=("fc",)),
        Node(name="head", op=Linear(out_features=2), inputs=("log",)),
    )
    net = random_network(graph)
    net = net.with_arrays({key: np.abs(net.arrays[key]) for key in ("fc.weight", "fc.bias")})
    batch = (torch.rand(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),)
    step = Widen(node="fc", by=4)
    grown = net.apply(step)
    assert close(outputs(net, batch)[0], outputs(grown, batch)[0])
    assert np.array_equal(grown.arrays["fc.weight"], net.arrays["fc.weight"][[0, 1, 2, 0, 1, 2, 0]])
    assert not grown.arrays["head.weight"][:, 3:].any()
    assert grown.graph.history is not None
    assert grown.graph.history.steps[0].fields["shares"] == [0.0] * 4
