"""A task in training: what others have learned stays to the bit, whatever the optimizer does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from growir.continual import Master, mask_shapes
from growir.continual.learner import Learner, Result, head_of
from growir.data.shuffling import generator
from growir.errors import GraphError
from growir.families import network
from growir.graph import Graph, Input, Node
from growir.growth.measure.gates import closed_or_open, expected_open, sampled
from growir.network import Network
from growir.ops import BatchNorm, Linear, Relu
from growir.passes import Widen
from growir.verify import verify

X = torch.randn(48, 5, generator=torch.Generator().manual_seed(0))
FIRST, SECOND = (X[:, 0] > 0).long(), (X[:, 1] * X[:, 2] > 0).long()


def mlp() -> Graph:
    """Two hidden layers with norms, and two heads."""
    nodes, value = list[Node](), "x"
    for k, width in enumerate((8, 6)):
        for name, op in ((f"fc{k}", Linear(out_features=width)), (f"norm{k}", BatchNorm()), (f"act{k}", Relu())):
            nodes.append(Node(name=name, op=op, inputs=(value,)))
            value = name
    nodes += [Node(name=name, op=Linear(out_features=2), inputs=(value,)) for name in ("first", "second")]
    return verify(Graph(inputs=(Input(name="x", shape=("N", 5)),), nodes=tuple(nodes), outputs=("first", "second")))


def started(seed: int = 0) -> Master:
    net = Network.init(mlp(), seed)
    return Master(net.graph, net.arrays)


OPTIMIZERS: dict[str, Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]] = {
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "decay": lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.1),
}


def fit(learner: nn.Module, y: torch.Tensor, optimizer: torch.optim.Optimizer, steps: int = 60) -> None:
    learner.train()
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(learner(X), y).backward()  # type: ignore[no-untyped-call]  # torch's own
        optimizer.step()


def right(module: nn.Module, y: torch.Tensor) -> float:
    module.eval()
    with torch.no_grad():
        return float((module(X).argmax(1) == y).float().mean())


def half_used(master: Master) -> dict[str, Any]:
    """Half of the shared weights."""
    rng = np.random.default_rng(0)
    shapes = {key: shape for key, shape in mask_shapes(master.graph).items() if key.startswith("fc")}
    return {key: rng.random(shape) < 0.5 for key, shape in shapes.items()}


def after_first(optimizer: str = "adamw") -> Master:
    master = started()
    learner = Learner(master, "first", used=half_used(master))
    fit(learner, FIRST, OPTIMIZERS[optimizer](learner.parameters()))
    return master.learned("one", "first", **learner.result())


def logits(master: Master, task: str) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = master.task(task).to_torch().eval()(X)
    return found


# -- nothing that was learned moves -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_a_second_task_leaves_the_first_as_it_is(name: str) -> None:
    master = after_first(name)
    before = logits(master, "one")
    learner = Learner(master, "second")
    fit(learner, SECOND, OPTIMIZERS[name](learner.parameters()))
    after = master.learned("two", "second", **learner.result())
    assert torch.equal(logits(after, "one"), before)
    moved = [key for key, array in after.arrays.items() if not np.array_equal(array, master.arrays[key])]
    assert "fc0.weight" in moved, "what no task used was free"
    assert right(after.task("two").to_torch(), SECOND) > 0.6


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_without_locks_the_same_training_forgets(name: str) -> None:
    """What is locked must be no parameter: decay and momentum move it also where its gradient is set to zero."""
    master = after_first(name)
    learner = Learner(master, "second")
    locked = {key: mask for key, mask in master.locked.items() if key.startswith("fc")}
    module = Network(master.graph.replace(outputs=("second",)), master.arrays).to_torch()
    weights = dict(module.named_parameters())
    optimizer = OPTIMIZERS[name](module.parameters())
    if name == "momentum":  # carried over from a task before, in which nothing was locked
        fit(module, FIRST, optimizer, 1)
        for key in locked:
            weights[key].data.copy_(torch.from_numpy(master.arrays[key].copy()))
    module.train()
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(module(X), SECOND).backward()  # type: ignore[no-untyped-call]  # torch's own
        for key, mask in locked.items():
            gradient = weights[key].grad
            assert gradient is not None
            gradient[torch.from_numpy(mask.copy())] = 0
        optimizer.step()
    told = learner.result()
    told["arrays"] = {key: weights[key].detach().numpy() for key in locked}
    with pytest.raises(GraphError, match=r"'one': fc0\.weight has other numbers than when it was learned"):
        master.learned("two", "second", **told)


@pytest.mark.parametrize("key", ["norm0.running_mean", "norm0.weight", "fc0.bias"])
def test_what_no_mask_protects_is_the_task_s_own(key: str) -> None:
    master = after_first()
    learner = Learner(master, "second")
    fit(learner, SECOND, OPTIMIZERS["adamw"](learner.parameters()), 5)
    own = learner.result()["own"]
    assert key in own
    assert not np.array_equal(own[key], master.tasks["one"].own[key])
    assert np.array_equal(after_first().tasks["one"].own[key], master.tasks["one"].own[key])
    told = learner.result()
    told["arrays"][key] = own[key]
    after = master.learned("two", "second", **told)
    assert torch.equal(logits(after, "one"), logits(master, "one")), "the first has one of its own"


def test_a_master_grows_between_tasks_and_the_second_uses_what_is_new() -> None:
    master = after_first().apply(Widen(node="fc0", by=4))
    before = logits(master, "one")
    learner = Learner(master, "second")
    fit(learner, SECOND, OPTIMIZERS["adamw"](learner.parameters()))
    after = master.learned("two", "second", **learner.result())
    assert torch.equal(logits(after, "one"), before)
    assert after.tasks["two"].masks["fc0.weight"][8:].any()
    assert not after.tasks["one"].masks["fc0.weight"][8:].any()


# -- what is trained is what is kept ----------------------------------------------------------------------------------


def test_the_view_computes_what_the_learner_does() -> None:
    master = after_first()
    learner = Learner(master, "second")
    fit(learner, SECOND, OPTIMIZERS["adamw"](learner.parameters()), 20)
    after = master.learned("two", "second", **learner.result())
    learner.eval()
    with torch.no_grad():
        torch.testing.assert_close(logits(after, "two"), learner(X), rtol=1e-5, atol=1e-5)


def test_gates_learn_to_close() -> None:
    """Where what was learned is in the way, a penalty on open gates closes those that are of no use."""
    master = after_first()
    learner = Learner(master, "second")
    optimizer = torch.optim.Adam(learner.gates.parameters(), lr=0.1)
    learner.train()
    for _ in range(100):
        optimizer.zero_grad()
        loss = F.cross_entropy(learner(X), SECOND)
        loss = loss + 0.05 * sum(expected_open(gates) for gates in learner.gates.values())
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        optimizer.step()
    used = learner.result()["masks"]
    locked = master.locked
    shares = [used[key][locked[key]].mean() for key in ("fc0.weight", "fc1.weight")]
    assert max(shares) < 0.5
    assert all(used[key][~locked[key]].all() for key in ("fc0.weight", "fc1.weight")), "others have no gate"


def test_the_same_seed_gives_the_same_bits() -> None:
    results: list[Result] = []
    for _ in range(2):
        learner = Learner(after_first(), "second", seed=3)
        fit(learner, SECOND, OPTIMIZERS["adamw"](learner.parameters()), 10)
        results.append(learner.result())
    for part in ("arrays", "own", "masks"):
        for key, array in results[0][part].items():
            assert np.array_equal(array, results[1][part][key])


def test_a_residual_network_learns_behind_masks() -> None:
    net = Network.init(network("Basic3ResNet-1-1-1", (1, 8, 8), 2, width=4), 0)
    master = Master(net.graph, net.arrays)
    learner = Learner(master, "head")
    x = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    learner.train()
    F.cross_entropy(learner(x), torch.arange(8) % 2).backward()  # type: ignore[no-untyped-call]  # torch's own
    still = [name for name, parameter in learner.named_parameters() if parameter.grad is None]
    assert not still
    after = master.learned("one", "head", **learner.result())
    learner.eval()
    with torch.no_grad():
        torch.testing.assert_close(after.task("one").to_torch().eval()(x), learner(x), rtol=1e-4, atol=1e-5)


# -- gates ------------------------------------------------------------------------------------------------------------


def test_a_gate_is_open_as_often_as_its_sigmoid_says() -> None:
    gates = torch.tensor([-2.0, 0.0, 2.0]).repeat(20_000, 1)
    share = sampled(gates, generator(0)).mean(0)
    torch.testing.assert_close(share, torch.sigmoid(gates[0]), atol=0.015, rtol=0)
    assert set(sampled(gates, generator(0)).flatten().tolist()) == {0.0, 1.0}
    assert closed_or_open(torch.tensor([-0.1, 0.0, 0.1])).tolist() == [0.0, 0.0, 1.0]
    torch.testing.assert_close(expected_open(gates[:1]), torch.sigmoid(gates[0]).sum())


def test_a_gradient_reaches_a_gate_that_is_closed() -> None:
    gates = torch.full((50,), -1.0, requires_grad=True)
    sampled(gates, generator(0)).sum().backward()  # type: ignore[no-untyped-call]  # torch's own
    assert gates.grad is not None
    assert (gates.grad > 0).all()


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_the_head_is_what_stands_behind_the_last_layer() -> None:
    assert head_of(mlp(), "second") == {"second"}
    nodes = (*mlp().nodes, Node(name="out", op=Relu(), inputs=("second",)))
    graph = verify(mlp().replace(nodes=nodes, outputs=("first", "out")))
    assert head_of(graph, "out") == {"out", "second"}


def test_what_does_not_fit_is_refused() -> None:
    master = started()
    with pytest.raises(GraphError, match="there is no output 'third'; there are first, second"):
        Learner(master, "third")
    with pytest.raises(GraphError, match=r"gated: fc0\.weight is \(2, 2\), but \(8, 5\) is needed"):
        Learner(master, "first", gated={"fc0.weight": np.ones((2, 2), bool)})
    with pytest.raises(GraphError, match=r"used: first\.weight is \(2, 6\), but it is no weight that tasks share"):
        Learner(master, "first", used={"first.weight": np.ones((2, 6), bool)})
