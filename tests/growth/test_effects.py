"""Effects of single units on the loss: what brute force finds, to first order, on any graph."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from growir.addresses import Address
from growir.errors import GrowirError
from growir.graph import Graph, Node
from growir.growth.measure.effects import Effects, gauss_newton
from growir.growth.measure.sites import Site, sites
from growir.growth.measure.splits import Theta, split
from growir.network import Network
from growir.ops import (
    AdaptiveAvgPool2d,
    Add,
    BatchNorm,
    Conv2d,
    Flatten,
    Gelu,
    Linear,
    MaxPool2d,
    Mul,
    Op,
    Relu,
    Sigmoid,
    Tanh,
)
from growir.passes import Prune
from growir.testing import graphs, random_batch, random_network
from tests.laws.test_resizing import shuffled
from tests.samples import graph_of

Outputs = tuple[torch.Tensor, ...]


class Problem:
    """A network with a batch, and smooth losses of its outputs."""

    def __init__(self, graph: Graph, seed: int = 0) -> None:
        self.network = random_network(graph, seed)
        self.inputs = random_batch(graph, 4, seed)
        self.module = self.network.to_torch().eval()
        outputs = self.module(*self.inputs)
        draws = torch.Generator().manual_seed(seed)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        self.target = [torch.randn(value.shape, generator=draws, dtype=torch.float64) for value in outputs]

    @property
    def mixed(self) -> bool:
        """Whether norms that always take the statistics of the batch let each sample move the others."""
        return any(isinstance(n.op, BatchNorm) and not n.op.track_running_stats for n in self.network.graph.nodes)

    def losses(self, outputs: Outputs) -> torch.Tensor:
        parts = [
            (value / (1 + value.square()).sqrt() - wanted).square().flatten(1).mean(1)
            for value, wanted in zip(outputs, self.target, strict=True)
            if value.is_floating_point()
        ]
        return torch.stack(parts).sum(0)

    def after(self, network: Network) -> torch.Tensor:
        """(n,) the losses of another network."""
        with torch.no_grad():
            found = network.to_torch().eval()(*self.inputs)
        return self.losses(found if isinstance(found, tuple) else (found,))


def drawn(effects: Effects, site: Site, scale: float, seed: int = 0) -> Theta:
    draws = torch.Generator().manual_seed(seed)
    return {
        address: scale * torch.randn(block.shape, generator=draws, dtype=torch.float64)
        for address, block in effects.blocks[site.name].items()
    }


def check_splits(problem: Problem, *, most: int = 3) -> int:
    """Compare every predicted split with the split network; the number of those that had a prediction to compare.

    What is left over is of fourth order in theta, so where a norm makes much of little a smaller theta must do.
    """
    effects = Effects(problem.module, sites(problem.network.graph).sites)
    at = effects.at(problem.inputs, problem.losses)
    before = problem.after(problem.network)
    torch.testing.assert_close(at.losses, before)
    count = 0
    for site in effects.sites:
        for k in range(min(site.count, most)):
            apart, size = 1.0, 0.0
            for scale in (1e-3, 1e-4, 1e-5):
                theta = drawn(effects, site, scale)
                predicted = at.split(site, theta)[:, k]
                grown = problem.network.apply(split(site, effects.blocks[site.name], theta, [k]))
                found, size = problem.after(grown) - before, float(predicted.abs().max())
                off = (found - predicted).sum(0) if problem.mixed else found - predicted
                apart = float(off.abs().max()) - 1e-12
                if apart <= 1e-2 * size:
                    break
            assert apart <= 1e-2 * size, (site.name, k, apart, size)
            count += size > 1e-10
    return count


def block(x: str, name: str, width: int, *, squeeze: bool = False, shortcut: bool = False) -> list[Node]:
    """A residual block of two convolutions with batch norms, perhaps with squeeze and excitation, or a shortcut."""

    def node(part: str, op: Op, *inputs: str) -> Node:
        return Node(name=f"{name}.{part}", op=op, inputs=tuple(i if i == x else f"{name}.{i}" for i in inputs))

    found = [
        node("c1", Conv2d(out_channels=width, kernel_size=3, padding=1, bias=False), x),
        node("b1", BatchNorm(), "c1"),
        node("a1", Gelu(), "b1"),
        node("c2", Conv2d(out_channels=width, kernel_size=3, padding=1, bias=False), "a1"),
        node("b2", BatchNorm(), "c2"),
    ]
    last, side = "b2", x
    if squeeze:
        found += [
            node("pool", AdaptiveAvgPool2d(), "b2"),
            node("s1", Conv2d(out_channels=2, kernel_size=1), "pool"),
            node("sa", Tanh(), "s1"),
            node("s2", Conv2d(out_channels=width, kernel_size=1), "sa"),
            node("gate", Sigmoid(), "s2"),
            node("scaled", Mul(), "b2", "gate"),
        ]
        last = "scaled"
    if shortcut:
        found.append(node("short", Conv2d(out_channels=width, kernel_size=1), x))
        side = "short"
    return [*found, node("sum", Add(), last, side), node("out", Gelu(), "sum")]


def ended(nodes: list[Node]) -> Graph:
    return graph_of(
        (2, 6, 6),
        *nodes,
        Node(name="flat", op=Flatten(), inputs=(nodes[-1].name,)),
        Node(name="head", op=Linear(out_features=3), inputs=("flat",)),
    )


def vgg() -> Graph:
    return ended(
        [
            Node(name="c1", op=Conv2d(out_channels=3, kernel_size=3, padding=1), inputs=("x",)),
            Node(name="b1", op=BatchNorm(), inputs=("c1",)),
            Node(name="a1", op=Gelu(), inputs=("b1",)),
            Node(name="c2", op=Conv2d(out_channels=4, kernel_size=3, padding=1), inputs=("a1",)),
            Node(name="p2", op=MaxPool2d(kernel_size=2), inputs=("c2",)),
            Node(name="a2", op=Tanh(), inputs=("p2",)),
        ]
    )


def resnet() -> Graph:
    stem = Node(name="stem", op=Conv2d(out_channels=3, kernel_size=3, padding=1), inputs=("x",))
    return ended([stem, *block("stem", "p", 3), *block("p.out", "q", 4, shortcut=True), *block("q.out", "r", 4)])


def squeezed() -> Graph:
    stem = Node(name="stem", op=Conv2d(out_channels=3, kernel_size=3, padding=1), inputs=("x",))
    return ended([stem, *block("stem", "p", 3, squeeze=True), *block("p.out", "q", 3, squeeze=True)])


def single() -> Graph:
    """Blocks of one convolution, which both reads the stream and makes it."""
    nodes = [Node(name="stem", op=Conv2d(out_channels=3, kernel_size=3, padding=1), inputs=("x",))]
    for name, before in (("p", "stem"), ("q", "p.out")):
        nodes += [
            Node(name=f"{name}.act", op=Tanh(), inputs=(before,)),
            Node(name=f"{name}.conv", op=Conv2d(out_channels=3, kernel_size=3, padding=1), inputs=(f"{name}.act",)),
            Node(name=f"{name}.out", op=Add(), inputs=(before, f"{name}.conv")),
        ]
    return ended([*nodes, Node(name="last", op=Gelu(), inputs=("q.out",))])


def mobile() -> Graph:
    return ended(
        [
            Node(name="up", op=Conv2d(out_channels=4, kernel_size=1), inputs=("x",)),
            Node(name="au", op=Gelu(), inputs=("up",)),
            Node(name="deep", op=Conv2d(kernel_size=3, padding=1, depthwise=True, multiplier=2), inputs=("au",)),
            Node(name="bd", op=BatchNorm(), inputs=("deep",)),
            Node(name="ad", op=Tanh(), inputs=("bd",)),
            Node(name="down", op=Conv2d(out_channels=3, kernel_size=1), inputs=("ad",)),
            Node(name="a3", op=Gelu(), inputs=("down",)),
        ]
    )


FAMILIES = {
    "vgg": (vgg(), 7),
    "resnet": (resnet(), 13),
    "single": (single(), 3),
    "squeezed": (squeezed(), 12),
    "mobile": (mobile(), 7),
}


@given(st.data())
@pytest.mark.slow
def test_splits_do_what_is_predicted_on_any_graph(data: st.DataObject) -> None:
    graph = data.draw(graphs(smooth=True))
    assume(sites(graph).sites)
    check_splits(Problem(graph, data.draw(st.integers(0, 9))))


@pytest.mark.parametrize("family", FAMILIES)
def test_splits_do_what_is_predicted_on_a_family(family: str) -> None:
    """Residual streams and squeezed ones, of which several layers make the units, and units of two depthwise maps."""
    graph, units = FAMILIES[family]
    effects = Effects(random_network(graph).to_torch(), sites(graph).sites)
    assert not effects.skipped
    assert sum(site.count for site in effects.sites) >= units
    assert check_splits(Problem(graph), most=9) == sum(site.count for site in effects.sites)


@given(st.data())
def test_prunes_do_what_is_predicted_on_any_graph(data: st.DataObject) -> None:
    """To first order: with what reads a unit a thousandth smaller, a thousandth of the prediction comes about."""
    graph = data.draw(graphs(smooth=True))
    found = sites(graph).sites
    assume(found)
    check_prunes(Problem(graph, data.draw(st.integers(0, 9))))


@pytest.mark.parametrize("family", FAMILIES)
def test_prunes_do_what_is_predicted_on_a_family(family: str) -> None:
    check_prunes(Problem(FAMILIES[family][0]))


def check_prunes(problem: Problem, part: float = 1e-4) -> None:
    effects = Effects(problem.module, sites(problem.network.graph).sites)
    at = effects.at(problem.inputs, problem.losses)
    before = problem.after(problem.network)
    for site in effects.sites:
        predicted = at.prune(site)
        for k in range(min(site.count, 3)):
            found, wanted = (
                (problem.after(with_less_of(problem.network, site, k, part)) - before) / part,
                predicted[:, k],
            )
            apart = (found - wanted).sum(0) if problem.mixed else found - wanted
            assert float(apart.abs().max()) <= 1e-2 * float(wanted.abs().max()) + 1e-8, (site.name, k)


def with_less_of(network: Network, site: Site, k: int, part: float) -> Network:
    """The network with a part less of the weights that read one of a site's growths; all of them is a prune."""
    each = site.space.growth[site.space.space]
    arrays = {key: array.copy() for key, array in network.arrays.items()}
    for slot in site.reads:
        weight = arrays[slot.parameter]
        group = np.array_split(weight, slot.groups)[slot.group]  # a view
        for unit in range(k * each, (k + 1) * each):
            np.moveaxis(group, slot.axis, 0)[list(slot.positions[unit])] *= 1 - part
    return Network(network.graph, arrays, network.values)


def test_what_is_predicted_of_a_prune_is_of_the_pass() -> None:
    problem = Problem(squeezed())
    for site in sites(problem.network.graph).sites:
        gone = problem.network.apply(Prune(node=site.name, channels=(1,)))
        torch.testing.assert_close(problem.after(gone), problem.after(with_less_of(problem.network, site, 1, 1.0)))


@given(
    seed=st.integers(0, 99),
    widths=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    activation=st.sampled_from([Relu, Tanh, Gelu]),
    scale=st.sampled_from([0.1, 1.0, 10.0]),
)
def test_the_estimate_is_exact_where_the_hessian_has_rank_one(
    seed: int, widths: tuple[int, int], activation: type[Op], scale: float
) -> None:
    """Appendix D of the paper: half the squared error of one number, linear in what the last layer reads."""
    graph = graph_of(
        (3,),
        Node(name="one", op=Linear(out_features=widths[0]), inputs=("x",)),
        Node(name="act", op=activation(), inputs=("one",)),
        Node(name="two", op=Linear(out_features=widths[1]), inputs=("act",)),
        Node(name="last", op=Tanh(), inputs=("two",)),
        Node(name="head", op=Linear(out_features=1), inputs=("last",)),
    )
    network, (x,) = random_network(graph, seed), random_batch(graph, 5, seed)
    wanted = torch.randn(5, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 3

    def losses(outputs: Outputs) -> torch.Tensor:
        return (outputs[0] - wanted).square().sum(1) / 2

    effects = Effects(network.to_torch(), sites(graph).sites)
    at = effects.at([x], losses)
    assume(bool((at.losses > 1e-3).all()))
    site = next(site for site in effects.sites if site.name == "two")
    theta = drawn(effects, site, scale, seed)
    effect = at.split(site, theta)
    for k in range(site.count):
        grown = network.apply(split(site, effects.blocks[site.name], theta, [k])).to_torch().eval()
        found = losses((grown(x),)).mean() - at.losses.mean()
        torch.testing.assert_close(gauss_newton(effect, at.losses)[k], found.detach(), rtol=1e-8, atol=1e-10)
    gone = torch.stack(
        [losses((with_less_of(network, site, k, 1.0).to_torch()(x),)) - at.losses for k in range(site.count)], 1
    )
    torch.testing.assert_close(gauss_newton(at.prune(site), at.losses), gone.mean(0).detach(), rtol=1e-8, atol=1e-10)


def test_slopes_reach_theta_and_stay_away_from_weights() -> None:
    problem = Problem(resnet())
    module = problem.network.to_torch()
    effects = Effects(module, sites(problem.network.graph).sites)
    at = effects.at(problem.inputs, problem.losses)
    for site in effects.sites:
        theta = {address: numbers.requires_grad_() for address, numbers in drawn(effects, site, 0.1).items()}
        gauss_newton(at.split(site, theta), at.losses).sum().backward()  # type: ignore[no-untyped-call]  # torch's own
        assert all(numbers.grad is not None and bool((numbers.grad != 0).any()) for numbers in theta.values())
    assert all(parameter.grad is None for parameter in module.parameters())
    assert module.training
    assert len(next(iter(effects.blocks["stem"]))) > 0
    assert {address.key for address in effects.blocks["stem"]} == {"stem.weight", "p.c2.weight"}


def test_weights_are_read_as_they_are() -> None:
    problem = Problem(vgg())
    effects = Effects(problem.module, sites(problem.network.graph).sites)
    first = effects.at(problem.inputs, problem.losses)
    with torch.no_grad():
        problem.module.get_parameter("head.weight").mul_(2)
    again = effects.at(problem.inputs, problem.losses)
    assert not torch.allclose(first.losses, again.losses)
    site = effects.sites[0]
    torch.testing.assert_close(
        again.split(site, drawn(effects, site, 0.1)),
        Effects(problem.module, [site]).at(problem.inputs, problem.losses).split(site, drawn(effects, site, 0.1)),
    )


def test_sites_without_effects_are_named_with_the_reason() -> None:
    problem = Problem(shuffled())
    found = sites(problem.network.graph)
    effects = Effects(problem.module, found.sites)
    assert {site.name for site in found.sites} == {site.name for site in effects.sites} | effects.skipped.keys()
    gone = next(site for site in found.sites if site.name in effects.skipped)
    at = effects.at(problem.inputs, problem.losses)
    with pytest.raises(GrowirError, match=f"{gone.name} has no effects: its units come only together with those of"):
        at.prune(gone)
    with pytest.raises(GrowirError, match="c1 has no effects: it was not among the sites"):
        at.prune(sites(vgg()).sites[0])
    other = Effects(problem.module, sites(vgg()).sites)
    assert other.skipped["c1"] == "there is no such site in the module"


def test_numbers_for_another_place_are_refused() -> None:
    problem = Problem(vgg())
    effects = Effects(problem.module, sites(problem.network.graph).sites)
    at = effects.at(problem.inputs, problem.losses)
    with pytest.raises(GrowirError, match=r"c1: theta is c2.weight \[1\]; blocks are c1.weight \[3, 2, 3, 3\]"):
        at.split(effects.sites[0], {Address("c2.weight"): torch.zeros(1, dtype=torch.float64)})
