"""What a network freezes no growth run moves, whatever it grows around it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import growir
from growir.graph import Graph, Input, Node
from growir.growth.policies.dag.settings import Strategy
from growir.growth.policies.dag.states import states_of
from growir.growth.session import Session
from growir.network import Network
from growir.ops import Add, BatchNorm, Conv2d, Flatten, Linear, MaxPool2d, Op, Relu
from growir.params import frozen_keys, param_table, with_frozen
from growir.verify import verify
from tests.growth.problems import Arrays, blobs, curve, small_config, small_problem, spirals, trained


def graph_of(shape: tuple[int, ...], *nodes: tuple[str, Op, tuple[str, ...]]) -> Graph:
    made = tuple(Node(name=name, op=op, inputs=inputs) for name, op, inputs in nodes)
    entry = Input(name="x", shape=("N", *shape))
    return verify(Graph(name="given", inputs=(entry,), nodes=made, outputs=(made[-1].name,)))


def line(width: int) -> Linear:
    return Linear(out_features=width)


DENSE = graph_of(
    (3,),
    ("a", line(6), ("x",)),
    ("r", Relu(), ("a",)),
    ("b", line(6), ("r",)),
    ("s", Add(), ("a", "b")),
    ("t", Relu(), ("s",)),
    ("o", line(2), ("t",)),
)
SMOOTH = graph_of((4,), ("a", line(5), ("x",)), ("r", Relu(), ("a",)), ("o", line(2), ("r",)))
MAPS = graph_of(
    (1, 8, 8),
    ("a", Conv2d(out_channels=2, kernel_size=3, padding=1), ("x",)),
    ("n", BatchNorm(), ("a",)),
    ("r", Relu(), ("n",)),
    ("p", MaxPool2d(kernel_size=2), ("r",)),
    ("f", Flatten(), ("p",)),
    ("o", line(4), ("f",)),
)
PROBLEMS: dict[str, tuple[Graph, Arrays, list[int]]] = {
    "dense": (DENSE, spirals(), []),
    "regression": (SMOOTH, curve(), []),
    "maps": (MAPS, blobs(channels="first"), [3]),
}
STRATEGIES: tuple[Strategy, ...] = ("whole", "restricted", "bic", "widen")


def choices(graph: Graph) -> list[set[str]]:
    """Which parameters to freeze: one layer or another, some of a layer, all but one, all."""
    keys = [key for key, param in param_table(graph).items() if not param.buffer]
    rng = np.random.default_rng(1)
    mixed = [{key for key in keys if rng.random() < 0.5} for _ in range(2)]
    return [{f"{keys[0][0]}.weight", f"{keys[0][0]}.bias"}, {"o.weight"}, {"o.weight", "o.bias"}, *mixed, set(keys)]


CASES = [(name, k) for name, (graph, _, _) in PROBLEMS.items() for k in range(len(choices(graph)))]


def run(name: str, frozen: set[str], **policy: Any) -> tuple[Network, Any]:
    graph, arrays, kernels = PROBLEMS[name]
    start = Network.init(with_frozen(graph, frozen))
    settings: dict[str, Any] = {
        "policy": {"name": "dag", "neurons": 3, "kernels": kernels, "significance": 1.0, **policy},
        "budget": {"parameters": 2000, "steps": 2},
        "train": {"epochs_between": 1, "epochs_final": 2, "keep_final": 0.5},
    }
    return start, growir.grow(start, arrays, **settings)


@pytest.mark.parametrize(("name", "k"), CASES, ids=[f"{name}-{k}" for name, k in CASES])
def test_what_is_frozen_stays_to_the_bit(name: str, k: int) -> None:
    """New entries of a frozen tensor too: after the growth that brought them nothing touches them."""
    frozen = choices(PROBLEMS[name][0])[k]
    start, found = run(name, frozen, strategy=STRATEGIES[k % len(STRATEGIES)])
    end = found.network
    # The same growth of the same weights, without any training.
    grown = end.replayed(start.arrays) if end.history is not None else start
    assert frozen_keys(end.graph) == frozen
    for key in frozen:
        assert np.array_equal(end.arrays[key], grown.arrays[key]), key
    learned = {key for key, param in param_table(start.graph).items() if not param.buffer} - frozen
    assert all(not np.array_equal(end.arrays[key], grown.arrays[key]) for key in learned)


def test_every_branch_of_a_tournament_leaves_it_alone() -> None:
    start, found = run("dense", {"a.weight", "b.bias"}, strategy="tournament")
    grown = found.network.replayed(start.arrays) if found.network.history is not None else start
    for key in ("a.weight", "b.bias"):
        assert np.array_equal(found.network.arrays[key], grown.arrays[key])


def test_a_frozen_network_grows_around_what_it_has() -> None:
    keys = {key for key, param in param_table(DENSE).items() if not param.buffer}
    start, found = run("dense", keys, strategy="whole")
    assert found.summary["steps"] >= 1
    before, after = found.summary["test_before_fit"]["loss"], found.summary["test_after_fit"]["loss"]
    assert after != before
    for key in keys:
        old = start.arrays[key]
        cut = found.network.arrays[key][tuple(map(slice, old.shape))]
        assert np.array_equal(cut, old)


def test_the_joint_solve_is_over_what_may_move() -> None:
    """Of a state with a frozen edge beside one that learns, the growth moves the latter."""
    graph = with_frozen(DENSE, {"a.weight", "a.bias"})
    (state,) = [state for state in states_of(graph) if state.node == "s"]
    assert [edge.name for edge in state.edges] == ["b"]  # what something else reads is no edge
    assert [edge.name for edge in state.moving] == ["b"]
    still = states_of(with_frozen(DENSE, {"b.weight"}))
    (state,) = [state for state in still if state.node == "s"]
    assert (state.moving, state.moving_bias) == ((), "b.bias")


def test_a_run_trains_what_was_not_frozen_as_before() -> None:
    """Nothing frozen: the tensors, the optimizer's order and so every bit are those of a run that knows no freezing."""
    session = Session(Network.init(DENSE), small_problem(spirals()), small_config())
    assert list(session.learned) == [key for key, param in param_table(DENSE).items() if not param.buffer]
    assert all(a is b for a, b in itertools.zip_longest(session.sloped_tensors().values(), session.tensors.values()))


def test_a_network_of_which_nothing_learns_is_only_measured() -> None:
    keys = {key for key, param in param_table(SMOOTH).items() if not param.buffer}
    session = Session(Network.init(with_frozen(SMOOTH, keys)), small_problem(curve()), small_config())
    before = session.network().arrays
    assert trained(session, 1) == session.measure(session.data.train).metrics["loss"]
    assert all(np.array_equal(array, before[key]) for key, array in session.network().arrays.items())
