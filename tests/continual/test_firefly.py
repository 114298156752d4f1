"""Firefly in a sequence of tasks: what it chooses is what it gets, within its budget, and nothing is forgotten."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from growir.channels import analyse
from growir.continual.experiences import Experience, by_classes
from growir.continual.firefly import (
    Candidates,
    Chosen,
    Firefly,
    FireflySettings,
    Stage,
    Unit,
    locked_units,
    offered_sites,
)
from growir.continual.grown import Learned
from growir.continual.heads import heads
from growir.continual.learning import ContinualResult, learn
from growir.continual.master import Master
from growir.data import Data
from growir.errors import GrowirError, RunError
from growir.families import network
from growir.graph import Graph, Input, Node
from growir.growth.measure.sites import sites
from growir.network import Network
from growir.ops import Concat, Conv2d, Flatten, GroupNorm, Linear, Relu
from growir.shapes import shapes_of
from growir.verify import verify
from tests.continual.test_learning import SHORT, logits, mlp, tasks


def learned(**more: Any) -> ContinualResult:
    return learn(mlp(), tasks(), method="firefly", settings={**SHORT, **more})


# -- a sequence -------------------------------------------------------------------------------------------------------


def test_every_task_gives_the_bits_that_it_gave_when_it_was_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[torch.Tensor] = []
    real = Firefly.learn

    def told(self: Firefly, master: Master, output: str, experience: Experience, target: float | None) -> Learned:
        found = real(self, master, output, experience, target)
        given.append(logits(found.master, experience.name))
        return found

    monkeypatch.setattr(Firefly, "learn", told)
    found = learned(growths=2)
    assert found.master is not None
    assert list(found.master.tasks) == ["0, 1", "2, 3", "4, 5"]
    for name, before in zip(found.master.tasks, given, strict=True):
        assert torch.equal(logits(found.master, name), before)
    assert found.measures.forgetting == 0
    assert found.measures.accuracy > 0.7
    assert any(found.channels[1:]), "it has grown"


def test_the_same_seed_gives_the_same_bits() -> None:
    one, two = learned(epochs=1).master, learned(epochs=1).master
    assert one is not None
    assert two is not None
    assert one.to_data() == two.to_data()
    for key, array in one.arrays.items():
        assert np.array_equal(array, two.arrays[key])


def test_what_reaches_its_target_grows_no_more() -> None:
    found = learned(epochs=1, target=0.01)
    assert not any(found.channels)
    assert [len(stages) for stages in found.selected] == [1, 1, 1]
    again = learned(growths=2, epochs=1)
    assert max(len(stages) for stages in again.selected) == 3


@pytest.mark.parametrize(("units", "count"), [(0.3, 2), (0.65, 5), (0.01, 1)])
def test_a_growth_brings_as_many_units_as_its_share(units: float, count: int) -> None:
    found = learned(units=units, epochs=1)
    grown = [channels for channels in found.channels if channels]
    assert grown
    for channels in grown:
        assert sum(channels.values()) == count, "a share of the first network's 8"
    assert found.master is not None
    assert sum(space.units for space in analyse(found.master.graph).spaces if not space.pins) == 8 + sum(
        sum(channels.values()) for channels in grown
    )


# -- what is chosen is what there is ----------------------------------------------------------------------------------


def second_kernel(op: Conv2d) -> Graph:
    """Two convolutions, and neurons that read a map's positions side by side."""
    ops = (Conv2d(out_channels=4, kernel_size=3), Relu(), op, Relu(), Flatten(), Linear(out_features=4), Relu())
    nodes = [Node(name=f"n{k}", op=op, inputs=(f"n{k - 1}" if k else "x",)) for k, op in enumerate(ops)]
    nodes.append(Node(name="head", op=Linear(out_features=2), inputs=(nodes[-1].name,)))
    return verify(Graph(inputs=(Input(name="x", shape=("N", 1, 6, 6)),), nodes=tuple(nodes), outputs=("head",)))


def depthwise() -> Graph:
    """A kernel for each channel, which copies have to get."""
    return second_kernel(Conv2d(depthwise=True, kernel_size=3))


def grouped() -> Graph:
    """Units that lie in each of the groups."""
    return second_kernel(Conv2d(out_channels=4, groups=2, kernel_size=3))


def balanced() -> Graph:
    """Groups that read different channels, which are normed in pairs: a's grow with b's or not at all."""
    nodes = (
        Node(name="a", op=Conv2d(out_channels=6, kernel_size=3), inputs=("x",)),
        Node(name="b", op=Conv2d(out_channels=4, kernel_size=3), inputs=("x",)),
        Node(name="norm_a", op=GroupNorm(num_groups=3), inputs=("a",)),
        Node(name="norm_b", op=GroupNorm(num_groups=2), inputs=("b",)),
        Node(name="both", op=Concat(), inputs=("norm_a", "norm_b")),
        Node(name="grouped", op=Conv2d(out_channels=4, groups=2, kernel_size=1), inputs=("both",)),
        Node(name="flat", op=Flatten(), inputs=("grouped",)),
        Node(name="head", op=Linear(out_features=2), inputs=("flat",)),
    )
    return verify(Graph(inputs=(Input(name="x", shape=("N", 1, 6, 6)),), nodes=nodes, outputs=("head",)))


def resnet() -> Graph:
    return network("Basic3ResNet-1-1-1", (1, 8, 8), 2, width=2)


GRAPHS: dict[str, Callable[[], Graph]] = {
    "mlp": mlp,
    "resnet": resnet,
    "depthwise": depthwise,
    "grouped": grouped,
    "balanced": balanced,
}


def drawn(net: Network, seed: int) -> dict[str, NDArray[Any]]:
    """All of a network's numbers drawn anew, so that no zero or one of a start hides a wrong read."""
    rng = np.random.default_rng(seed)
    found: dict[str, NDArray[Any]] = {}
    for key, array in net.arrays.items():
        sizes = rng.uniform(0.2, 1.0, array.shape)
        signs = 1 if key.endswith("var") else rng.choice([-1, 1], array.shape)
        found[key] = np.asarray(sizes * signs, array.dtype)
    return found


def second_stage(graph: Graph) -> Stage:
    """A master of three heads whose first task has half of the weights, and where the second stands."""
    wide, outputs = heads(graph, graph.outputs[0], [2, 2, 2])
    first = Network.init(wide, 0, np.float64)
    master = Master(wide, drawn(first, 1))
    told = Stage(master, outputs[0], {}).learner().result()
    rng = np.random.default_rng(2)
    masks = {key: rng.random(mask.shape) < 0.7 for key, mask in told["masks"].items()}
    master = master.learned("one", outputs[0], arrays=told["arrays"], own=told["own"], masks=masks)
    return Stage(master, outputs[1], {})


def candidates_of(stage: Stage, net: Network, fresh: int = 2, seed: int = 0) -> Candidates:
    offered = offered_sites(stage.master, net)
    return Candidates(net, offered, locked_units(stage, offered), fresh, (seed,), stage.replaced)


def some_of(candidates: Candidates, seed: int) -> tuple[list[int], torch.Tensor]:
    """Every third candidate, in another order, and gates of any sign."""
    gates = torch.rand(len(candidates.units), generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 0.5
    return list(range(seed % 3, len(gates), 3))[::-1], gates


@pytest.mark.parametrize("name", list(GRAPHS))
def test_what_is_trained_starts_as_the_network_that_was_chosen(name: str) -> None:
    graph = GRAPHS[name]()
    stage = second_stage(graph)
    x = torch.randn(
        7,
        *shapes_of(graph)[graph.inputs[0].name].sizes,
        generator=torch.Generator().manual_seed(3),
        dtype=torch.float64,
    )
    learner, predicted = stage.learner(), torch.zeros(0)
    for growth in range(2):  # of which the second finds units that are replaced
        net = stage.network(learner)
        candidates = candidates_of(stage, net, seed=growth)
        kinds = {unit.kind for unit in candidates.units}
        assert kinds == {"copy", "fresh"}
        picked, gates = some_of(candidates, growth)
        chosen = candidates.chosen(picked, gates)
        closed = torch.zeros_like(gates)
        closed[picked] = gates[picked]
        candidates.over.module.eval()
        with torch.no_grad():
            predicted, nothing = candidates(closed, x), candidates(candidates.gates(), x)
        assert not torch.allclose(predicted, nothing, rtol=1e-3)
        torch.testing.assert_close(nothing, ran(learner, x), rtol=1e-9, atol=1e-9)
        stage = stage.grown(net, chosen)
        learner = stage.learner()
        torch.testing.assert_close(ran(learner, x), predicted, rtol=1e-9, atol=1e-9)
        for site, units in chosen.copies.items():
            assert stage.replaced[site] >= set(units)
    done = stage.master.learned("two", stage.output, **learner.result())
    torch.testing.assert_close(ran(done.task("two").to_torch(), x), predicted, rtol=1e-9, atol=1e-9)


def ran(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    module.eval()
    with torch.no_grad():
        found: torch.Tensor = module(x)
    return found


def test_a_copy_is_one_unit_that_the_task_reads_in_place_of_the_old_one() -> None:
    stage = second_stage(mlp())
    net = stage.network(stage.learner())
    candidates = candidates_of(stage, net)
    place = candidates.units.index(Unit("fc0", "copy", 1))
    gates = candidates.gates(0.5)
    chosen = candidates.chosen([place], gates)
    assert (chosen.channels, chosen.copies) == ({"fc0": 1}, {"fc0": [1]})
    after = stage.grown(net, chosen)
    (direction,) = (d for name, d in candidates.directions.items() if name.startswith("0/fc0.weight"))
    of_unit_1 = [unit for unit in candidates.units if unit.site == "fc0" and unit.kind == "copy"].index(
        Unit("fc0", "copy", 1)
    )
    moved = net.arrays["fc0.weight"][1] + 0.5 * direction[of_unit_1].numpy()
    np.testing.assert_allclose(after.master.arrays["fc0.weight"][4], moved)
    locked = stage.master.locked["fc0.weight"]
    before = stage.master.arrays["fc0.weight"]
    np.testing.assert_array_equal(after.master.arrays["fc0.weight"][:4][locked], before[locked])
    used = after.learner().result()["masks"]["fc1.weight"]
    assert used[:, 4].all()
    assert not used[:, 1].any()
    assert used[:, [0, 2, 3]].all()
    head = after.master.arrays["task_1.head.weight"]
    np.testing.assert_array_equal(head, stage.master.arrays["task_1.head.weight"])
    assert 1 not in locked_units(after, offered_sites(after.master, after.network(after.learner())))["fc0"]


def test_of_a_residual_sum_each_producer_gets_the_copy() -> None:
    stage = second_stage(resnet())
    net = stage.network(stage.learner())
    candidates = candidates_of(stage, net)
    joint = next(site for site in offered_sites(stage.master, net) if len(site.makes) > 1)
    place = candidates.units.index(Unit(joint.name, "copy", 0))
    after = stage.grown(net, candidates.chosen([place], candidates.gates(0.1)))
    for slot in joint.makes:
        old, new = (s.master.arrays[slot.parameter].shape[slot.axis] for s in (stage, after))
        assert new == old + 1
        rows = after.master.arrays[slot.parameter][-1], net.arrays[slot.parameter][0]
        assert 0 < np.abs(rows[0] - rows[1]).max() < 0.2


def test_channels_that_grow_only_with_others_are_left_out() -> None:
    """Also before the first task, when there is no view that they could move."""
    assert len(sites(balanced()).sites) > 1
    none = Stage(Master(balanced(), Network.init(balanced(), 0).arrays), "head", {})
    for stage in (none, second_stage(balanced())):
        assert [site.name for site in offered_sites(stage.master, stage.network(stage.learner()))] == ["grouped"]


def test_what_another_head_holds_is_left_out() -> None:
    graph = mlp().replace(outputs=("head", "fc1"))
    master = Master(graph, Network.init(graph, 0).arrays)
    stage = Stage(master, "head", {})
    net = stage.network(stage.learner())
    assert [site.name for site in sites(net.graph).sites] == ["fc0", "fc1"]
    assert [site.name for site in offered_sites(master, net)] == ["fc0"]


# -- what is chosen ---------------------------------------------------------------------------------------------------


def narrow(width: int) -> Graph:
    nodes = (
        Node(name="fc", op=Linear(out_features=width), inputs=("x",)),
        Node(name="act", op=Relu(), inputs=("fc",)),
        Node(name="head", op=Linear(out_features=2), inputs=("act",)),
    )
    return verify(Graph(inputs=(Input(name="x", shape=("N", 2)),), nodes=nodes, outputs=("head",)))


def chosen_for(strength: float, monkeypatch: pytest.MonkeyPatch) -> Chosen:
    """What a second task chooses, one unit, whose head may read old units by so much.

    The first task's unit is relu(x0); the second has to tell x1 > 0. Head and biases stay as they are.
    """
    wide, outputs = heads(narrow(1), "head", [2, 2])
    arrays = {
        **Network.init(wide, 0).arrays,
        "fc.weight": np.array([[1.0, 0.0]], np.float32),
        "fc.bias": np.array([0.5], np.float32),
        f"{outputs[1]}.weight": np.array([[-strength], [strength]], np.float32),
        f"{outputs[1]}.bias": np.zeros(2, np.float32),
    }
    master = Master(wide, arrays)
    master = master.learned("one", outputs[0], **Stage(master, outputs[0], {}).learner().result())
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2)).astype(np.float32)
    second = Experience("two", Data.from_arrays(x, (x[:, 1] > 0).astype(np.int64)), (0, 1))
    seen: list[Chosen] = []
    real = Stage.grown

    def told(self: Stage, network: Network, chosen: Chosen) -> Stage:
        seen.append(chosen)
        return real(self, network, chosen)

    monkeypatch.setattr(Stage, "grown", told)
    settings = FireflySettings(epochs=1, learning_rate=1e-9, units=0.5, fresh_units=3)
    Firefly(settings).learn(master, outputs[1], second)
    return seen[0]


def test_an_old_unit_that_the_head_reads_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = chosen_for(3.0, monkeypatch)
    assert (chosen.copies, chosen.fresh) == ({"fc": [0]}, {})


def test_where_the_head_reads_no_old_unit_a_fresh_one_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = chosen_for(0.0, monkeypatch)
    assert (chosen.copies, chosen.fresh) == ({}, {"fc": 1})


@pytest.mark.parametrize("strength", [3.0, 0.0])
def test_what_is_chosen_lowers_the_loss(strength: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever sign its gate learned."""

    def untrained(candidates: Candidates, *_: Any, **__: Any) -> torch.Tensor:
        return candidates.gates(0.2)

    monkeypatch.setattr("growir.continual.firefly.learned", untrained)
    losses: list[float] = []
    real = Stage.grown

    def told(self: Stage, network: Network, chosen: Chosen) -> Stage:
        rng = np.random.default_rng(5)
        x = rng.normal(size=(400, 2)).astype(np.float32)
        y = torch.from_numpy((x[:, 1] > 0).astype(np.int64))
        for each in (network, network.apply(chosen.step)):
            out = ran(each.to_torch(), torch.from_numpy(x))
            losses.append(float(torch.nn.functional.cross_entropy(out, y)))
        return real(self, network, chosen)

    monkeypatch.setattr(Stage, "grown", told)
    chosen_for(strength, monkeypatch)
    before, after = losses
    assert after < before


@pytest.mark.parametrize("name", ["resnet", "depthwise"])
def test_directions_are_no_longer_than_a_layer_s_weights(name: str) -> None:
    """Of each unit by itself, which in front of neurons has a column for each position of a map."""
    stage = second_stage(GRAPHS[name]())
    candidates = candidates_of(stage, stage.network(stage.learner()))
    short = {address: 0.01 * direction for address, direction in candidates.directions.items()}
    candidates.directions |= short
    before = {address: direction.clone() for address, direction in short.items()}
    candidates.bound()
    for address, direction in before.items():
        assert torch.equal(candidates.directions[address], direction)
        candidates.directions[address] = 1e5 * direction
    candidates.bound()
    for address, direction in candidates.directions.items():
        found = direction.square().mean().sqrt()
        torch.testing.assert_close(found, torch.full_like(found, candidates.spreads[address]))


def test_the_first_task_is_an_ordinary_training_that_only_fresh_units_can_join() -> None:
    wide, outputs = heads(mlp(), "head", [2, 2])
    master = Master(wide, Network.init(wide, 0).arrays)
    stage = Stage(master, outputs[0], {})
    net = stage.network(stage.learner())
    offered = offered_sites(master, net)
    assert locked_units(stage, offered) == {"fc0": [], "fc1": []}
    assert {unit.kind for unit in candidates_of(stage, net).units} == {"fresh"}
    with pytest.raises(GrowirError, match="there is none of either"):
        Candidates(net, offered, locked_units(stage, offered), 0, (0,))
    found = learn(mlp(), tasks(1), method="firefly", settings={**SHORT, "epochs": 1, "fresh_units": 0})
    assert not any(found.channels)


# -- networks ---------------------------------------------------------------------------------------------------------


def test_residual_networks_of_convolutions_learn_too(monkeypatch: pytest.MonkeyPatch) -> None:
    better = iter([0.5, 0.6] * 2)
    monkeypatch.setattr("growir.continual.firefly.accuracy_of", lambda *rest: next(better))
    rng = np.random.default_rng(1)
    y = np.arange(48) % 4
    x = (rng.normal(size=(48, 1, 8, 8)) + y[:, None, None, None]).astype(np.float32)
    pairs = by_classes(x, y, [[0, 1], [2, 3]], test=(x, y))
    found = learn(resnet(), pairs, method="firefly", settings={"epochs": 1, "batch_size": 8, "learn_steps": 3})
    assert found.measures.forgetting == 0
    assert any(found.channels)
    assert found.master is not None
    assert len(found.master.graph.outputs) == 2


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(RunError, match="units"):
        FireflySettings(units=0.0)
    with pytest.raises(RunError, match="offered"):
        learn(mlp(), tasks(), method="firefly", settings={"offered": 0.3})
