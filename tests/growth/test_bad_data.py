"""Data that makes statistics singular, small or absurd: growth copes or says why not, and no number is ever NaN."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import growir
from growir import store
from growir.errors import DataError, RunError
from growir.growth.observer import GrowthResult, Observer
from growir.growth.policies.dag.measuring import dead_units
from growir.growth.policies.dag.scored import Scored
from growir.growth.session import Session
from growir.network import Network
from growir.ops import ACTIVATIONS
from growir.passes import AddEdge, AddNode, Widen
from growir.rewrite import Pass
from growir.runs.records import Event, Growth
from tests.growth.problems import (
    SMALL,
    Arrays,
    added,
    apply,
    blobs,
    curve,
    parts_of,
    scored,
    small_config,
    small_session,
    spirals,
    trained,
)
from tests.growth.test_run import CONFIG, assert_same_run, logged, run
from tests.sampling import thinned

Change = Callable[[NDArray[Any]], NDArray[Any]]
SETTINGS: dict[str, Any] = {**SMALL, "budget": {"parameters": 300, "steps": 3}}


def inputs(change: Change, arrays: Arrays) -> Arrays:
    return {key: change(array) if key.startswith("x") else array for key, array in arrays.items()}


def assert_finite(found: GrowthResult) -> None:
    for network in (found.grown, found.network):
        assert all(np.isfinite(array).all() for array in network.arrays.values())
    assert np.isfinite(found.summary["test_after_fit"]["loss"])
    # Every number of every event is one that JSON has.
    json.dumps([event.to_json() for event in found.events], allow_nan=False)


# -- singular statistics ----------------------------------------------------------------------------------------------

SINGULAR: dict[str, Change] = {
    "constants": lambda x: np.column_stack([x, np.zeros(len(x)), np.full(len(x), 7.0)]),
    "duplicates": lambda x: np.column_stack([x, x, -3 * x[:, :1]]),
    "almost duplicates": lambda x: np.column_stack([x, x * (1 + 1e-7)]),
    "rank one": lambda x: x[:, :1] * np.array([[1.0, -2.0, 0.5, 4.0]]),
    "one feature": lambda x: x[:, :1],
    "mostly zero": lambda x: np.column_stack([x, np.eye(len(x), 40)]),
    "two values": lambda x: np.column_stack([x > 0, x > 0.5]).astype(float),
    "an outlier": lambda x: np.where(np.arange(x.size).reshape(x.shape) == 4, 1e6, x),
}


@pytest.mark.parametrize(
    "case",
    thinned(itertools.product(SINGULAR, ["feature", "global", "none"], [spirals, curve]), 5),
    ids=lambda case: f"{case[0]}-{case[1]}-{case[2].__name__}",
)
def test_singular_statistics_give_a_finite_network(case: tuple[str, str, Callable[[], Arrays]]) -> None:
    name, standardise, make = case
    policy = {"neurons": 4, "significance": 1.0, "directions": "fitted" if standardise == "global" else "random"}
    settings = {**SETTINGS, "policy": policy}
    found = growir.grow(None, inputs(SINGULAR[name], make()), **settings, standardise=standardise)
    assert_finite(found)
    # Beside one number of a million, all others are the same, and there may be nothing to gain from them.
    assert found.summary["steps"] > 0 or name == "an outlier"


@pytest.mark.parametrize("name", ["constants", "rank one"])
def test_singular_images_give_a_finite_network(name: str) -> None:
    changes: dict[str, Change] = {
        "constants": lambda x: np.where(np.arange(8) < 4, x, 0.0),
        "rank one": lambda x: x.mean(axis=(1, 2), keepdims=True) * np.linspace(-1, 1, 64).reshape(8, 8),
    }
    policy = {"kernels": [3], "neurons": 3, "significance": 1.0}
    settings = {**SETTINGS, "policy": policy, "budget": {"parameters": 2000, "steps": 3}}
    found = growir.grow(None, inputs(changes[name], blobs()), **settings)
    assert_finite(found)
    assert found.summary["steps"] > 0


@pytest.mark.parametrize(("samples", "features"), [(9, 40), (12, 100), (30, 200)])
@pytest.mark.parametrize("make", [spirals, curve])
def test_fewer_samples_than_features(samples: int, features: int, make: Callable[[], Arrays]) -> None:
    rng, arrays = np.random.default_rng(0), make()
    wide = inputs(lambda x: np.column_stack([x, rng.normal(size=(len(x), features))]), arrays)
    few = {key: array[:samples] if key.endswith("train") else array for key, array in wide.items()}
    found = growir.grow(None, few, **{**SETTINGS, "policy": {"neurons": 4, "significance": 1.0}, "budget": {}})
    assert_finite(found)


# -- units ------------------------------------------------------------------------------------------------------------


def decisions(found: GrowthResult) -> list[tuple[Any, ...]]:
    keys = ("pass", "source", "target", "node", "width", "by", "activation", "hash")
    growths = [event for event in found.events if isinstance(event, Growth)]
    return [tuple({**event.passes[0], "hash": event.hash}.get(key) for key in keys) for event in growths]


@pytest.mark.parametrize("scale", [1e-4, 1e4])
@pytest.mark.parametrize("make", [spirals, curve])
def test_the_unit_of_standardised_data_decides_nothing(scale: float, make: Callable[[], Arrays]) -> None:
    for standardise in ("feature", "global"):
        plain, other = (
            growir.grow(None, arrays, **SETTINGS, standardise=standardise)
            for arrays in (make(), inputs(lambda x: x * scale, make()))
        )
        assert len(decisions(plain)) > 1
        assert decisions(plain) == decisions(other)
        assert other.summary["test_after_fit"]["loss"] == pytest.approx(
            plain.summary["test_after_fit"]["loss"], rel=0.01
        )


@pytest.mark.parametrize("scale", [1e-4, 1e4])
@pytest.mark.parametrize("make", [spirals, curve])
def test_the_unit_of_raw_data_does_not_change_the_first_decision(scale: float, make: Callable[[], Arrays]) -> None:
    plain, other = (
        growir.grow(None, arrays, **{**SETTINGS, "budget": {"parameters": 300, "steps": 1}}, standardise="none")
        for arrays in (make(), inputs(lambda x: x * scale, make()))
    )
    assert decisions(plain) == decisions(other) != []
    first = [next(e for e in found.events if isinstance(e, Growth)) for found in (plain, other)]
    assert first[1].measured_gain == pytest.approx(first[0].measured_gain, rel=1e-3)


# -- splits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["opt", "ls", "gr"])
@pytest.mark.parametrize("strategy", ["whole", "tournament"])
def test_a_class_that_is_in_one_part_only(part: str, strategy: str) -> None:
    arrays = spirals()
    where = getattr(parts_of(180, 0), part)[:5].numpy()
    arrays["y_train"][where] = 2
    found = growir.grow(None, arrays, **{**SETTINGS, "policy": {"neurons": 4, "strategy": strategy}})
    assert_finite(found)
    assert found.summary["steps"] > 0


def test_a_class_that_one_part_lacks_in_images() -> None:
    arrays = blobs()
    arrays["y_train"][parts_of(180, 0).gr[:3].numpy()] = 4
    found = growir.grow(None, arrays, **{**SETTINGS, "policy": {"kernels": [3], "neurons": 2}})
    assert_finite(found)


@pytest.mark.parametrize("make", [spirals, curve, blobs])
def test_the_smallest_splits(make: Callable[[], Arrays]) -> None:
    arrays = make()
    policy = {"neurons": 2, "significance": 1.0, **({"kernels": [3]} if make is blobs else {})}
    settings = {**SETTINGS, "policy": policy, "budget": {"parameters": 1000, "steps": 2}}
    few = {key: array[:9] if key.endswith("train") else array[:1] for key, array in arrays.items()}
    if "y_train" in few and few["y_train"].ndim == 1:
        few["y_train"][:] = np.arange(9) % 2
        few["y_test"][:] = 0
    for seed in range(3):
        assert_finite(growir.grow(None, few, **settings, seed=seed))
    fewer = {key: array[:8] if key.endswith("train") else array for key, array in few.items()}
    with pytest.raises(DataError, match="x_train holds 8 samples; at least 9 are needed"):
        growir.grow(None, fewer, **settings)


# -- NaN in the middle of a run ---------------------------------------------------------------------------------------


class Spoilt:
    """Makes the weights NaN at the nth batch of a phase."""

    def __init__(self, phase: str, count: int) -> None:
        self.phase, self.left = phase, count
        self.session: Session | None = None
        self.observer = Observer(checkpoint=self.checkpoint, tick=self.tick)

    def checkpoint(self, session: Session, _: object) -> None:
        self.session = session

    def tick(self, phase: str, *_: int) -> None:
        self.left -= phase == self.phase
        if self.left == 0:
            assert self.session is not None
            for parameter in self.session.learned.values():
                parameter.data.fill_(float("nan"))


TOURNAMENT = small_config(policy={"strategy": "tournament"}, budget={"steps": 2}).model_copy(update={"threads": 1})


@pytest.mark.parametrize(
    ("phase", "count", "words"),
    [
        ("training", 1, r"training after growth 1 diverged: .*lower \[train\] learning_rate$"),
        ("training", 12, r"training after growth 2 diverged: .*lower \[train\] learning_rate$"),
        ("trial fit", 2, r"the fit of branch 'widen' diverged: .*lower \[train\] learning_rate_final$"),
        ("final fit", 2, r"the final fit diverged: .*lower \[train\] learning_rate_final$"),
    ],
)
def test_a_run_that_turns_nan_is_refused_and_leaves_what_was_before(
    phase: str, count: int, words: str, tmp_path: Path
) -> None:
    path, reference = tmp_path / "run", tmp_path / "reference"
    config = TOURNAMENT if phase == "trial fit" else CONFIG
    run(reference, config)
    with pytest.raises(RunError, match=words):
        run(path, config, observer=Spoilt(phase, count).observer)
    assert_nothing_is_nan(path)
    run(path, config, resume=True)
    assert_same_run(path, reference)


def assert_nothing_is_nan(path: Path) -> None:
    """What lies there is whole: every event is one line of JSON, every tensor is finite."""
    for line in (path / "events.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} in an event"))
    assert not (path / "summary.json").exists()
    assert not [p for p in path.rglob("*") if p.name.startswith(".")]
    network = Network.load(path / "checkpoint" / "network")
    state, _ = store.read_tensors(path / "checkpoint" / "optimizer.safetensors")
    assert all(np.isfinite(array).all() for array in [*network.arrays.values(), *state.values()])


# -- dead units -------------------------------------------------------------------------------------------------------


def slopes_of(session: Session, key: str) -> torch.Tensor:
    """dL/d(parameter) on what is trained on between growths."""
    ready = session.reading.ready(session.data.train)
    ready.module.eval()
    (batch,) = ready.firsts(None)
    loss = session.objective.total(ready.forward(batch), batch.target)
    (slope,) = torch.autograd.grad(loss, [session.learned[key]])
    return slope


def applied(session: Session, choice: Scored) -> torch.Tensor:
    """The size of the gradient that each new unit's incoming and outgoing weights get, right after the growth."""
    new = added(session, choice.step)
    assert new.incoming is not None
    count = new.incoming.count
    apply(session, choice)
    total = torch.zeros(count)
    for edge in new.incoming.edges:
        total += slopes_of(session, edge.weight)[-count:].flatten(1).norm(dim=1)
    for _, edges in new.outgoing:
        for edge in edges:
            slope = slopes_of(session, edge.weight)
            # The channels of a flattened map lie one behind the other.
            channels = int(edge.shape.size(1)) + (count if isinstance(choice.step, Widen) else 0)
            total += slope.reshape(len(slope), channels, -1)[:, -count:].norm(dim=(0, 2))
    return total


def living(session: Session) -> int:
    """How many candidates with new units improve the network, none of which is dead right after it is applied."""
    some = 0
    for choice in scored(session, key=2):
        if choice.improves and not isinstance(choice.step, AddEdge):
            restore = session.keep()
            sizes = applied(session, choice)
            restore()
            assert (sizes > 0).all(), choice.step
            some += 1
    return some


def small(activation: str, seed: int, arrays: Arrays, **policy: object) -> Session:
    settings = {"neurons": 8, "activation": activation, **policy}
    return small_session(arrays, small_config(seed, policy=settings, budget={"parameters": 4000}))


@pytest.mark.parametrize("case", thinned(itertools.product(sorted(ACTIVATIONS), ["random", "fitted"]), 3), ids="-".join)
def test_no_new_neuron_is_dead(case: tuple[str, str]) -> None:
    activation, directions = case
    some = 0
    for seed, make in itertools.product((1, 2), (spirals, curve)):
        session = small(activation, seed, make(), directions=directions)
        session.grow(AddNode(source="standard", target="out", width=2, activation=activation, seed=seed))
        trained(session, 1)
        some += living(session)
    assert some > 2


@pytest.mark.parametrize("activation", ["relu", "tanh", "relu6", "hardsigmoid", "gaussian"])
@pytest.mark.parametrize("directions", ["random", "fitted"])
def test_no_new_channel_is_dead(activation: str, directions: str) -> None:
    step = AddNode(source="standard", target="out", width=2, kernel_size=3, out_pool="max", out_stride=2)
    some = 0
    for seed in range(2):
        session = small(activation, seed, blobs(), directions=directions, kernels=[3])
        session.grow(step.model_copy(update={"activation": activation, "seed": seed}))
        trained(session, 1)
        some += living(session)
    assert some > 1


@pytest.mark.parametrize(
    ("make", "step"),
    [
        (spirals, AddNode(source="standard", target="out", width=5)),
        (blobs, AddNode(source="standard", target="out", width=5, kernel_size=3, out_pool="flatten")),
    ],
)
def test_dead_units_are_counted(make: Callable[[], Arrays], step: Pass) -> None:
    session = small("relu", 0, make(), **({"kernels": [3]} if make is blobs else {}))
    assert dead_units(session) == 0
    session.grow(step)
    trained(session, 1)
    (bias,) = [key for key in session.learned if key.startswith("node_1.") and key.endswith("bias")]
    living = session.learned[bias].data.clone()
    counts: list[int] = []
    for dead in ([], [1], [1, 3], range(5)):
        session.learned[bias].data.copy_(living.clamp_min(0.0))  # any of zero inputs at least is above its threshold
        session.learned[bias].data[list(dead)] = -1e6
        counts.append(dead_units(session))
    assert counts == [0, 1, 2, 5]


def test_dead_units_are_in_the_log(tmp_path: Path) -> None:
    sessions: list[Session] = []

    def kill(event: Event) -> None:
        if isinstance(event, Growth) and event.step == 2:
            for key, tensor in sessions[-1].learned.items():
                if key.endswith(("linear.bias", "conv2d.bias")):
                    tensor.data.fill_(-1e6)

    observer = Observer(event=kill, checkpoint=lambda session, _: sessions.append(session))
    done = run(tmp_path / "run", CONFIG, observer=observer)
    trained = {e["step"]: e["dead_units"] for e in logged(tmp_path / "run") if e["event"] == "trained"}
    assert trained[2] > trained[1]
    assert done.summary["dead_units"] >= 0
