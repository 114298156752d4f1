"""Growth on images: every move between maps and vectors, and that what it measures is what is applied."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

import growir
from growir.data.memory import ArraySource
from growir.errors import DataError, RunError
from growir.graph import Graph
from growir.growth.config import parse_run
from growir.growth.measure.designs import Places
from growir.growth.policies.dag import bottleneck, neurons
from growir.growth.policies.dag.scored import Scored
from growir.growth.session import Session
from growir.network import Network, load_graph
from growir.passes import AddEdge, AddNode, Widen
from growir.rewrite import Pass
from growir.runs.records import Growth
from growir.shapes import shapes_of
from tests.growth.problems import (
    Arrays,
    added,
    apply,
    blobs,
    curve,
    loss_on,
    policy_of,
    proposed,
    scored,
    select_of,
    small_config,
    small_problem,
    small_session,
    spirals,
    trained,
    values_of,
)
from tests.sampling import thinned

POLICY: dict[str, Any] = {"name": "dag", "kernels": [3], "neurons": 3}
SETTINGS: dict[str, Any] = {
    "policy": POLICY,
    "train": {"epochs_between": 3, "epochs_final": 4, "batch_size": 32},
    "budget": {"parameters": 2000, "steps": 4},
    "schedule": {"trials": 0},
}
TO_VECTOR: dict[str, Any] = {"kernel_size": 3, "out_pool": "max", "out_stride": 2}


def image_session(arrays: Arrays | None = None, **policy: object) -> Session:
    """Maps behind one another and side by side, of two sizes, and a vector; three states are fed by one of the maps."""
    config = small_config(policy={**POLICY, **policy}, budget={"parameters": 4000})
    session = small_session(blobs() if arrays is None else arrays, config)
    steps: list[Pass] = [
        AddNode(source="standard", target="out", width=3, **TO_VECTOR),
        AddNode(source="standard", target="node_1.act", width=2, kernel_size=3, activation="tanh"),
        AddNode(source="node_1.act", target="out", width=2, pool="max", stride=2, kernel_size=3, out_pool="flatten"),
        AddNode(source="flat", target="out", width=3),
        AddEdge(source="node_1.act", target="node_4.act", pool="global_avg"),
    ]
    for k, step in enumerate(steps):
        session.grow(step)
        trained(session, k)
    return session


def kind_of(session: Session, step: Pass) -> tuple[str, ...]:
    """The pass and the axes of what it joins: 2 of a vector, 4 of a map."""
    shapes = shapes_of(session.graph)
    if isinstance(step, Widen):
        return (step.name, str(shapes[step.node].rank))
    assert isinstance(step, AddEdge | AddNode)
    made = step.rewrite(session.graph)
    new = [str(shapes_of(made.graph)[name].rank) for name in made.created if name.endswith(".act")]
    return (step.name, str(shapes[step.source].rank), *new, str(shapes[step.target].rank))


EVERY_KIND = {
    *[("add_edge", "2", "2"), ("add_edge", "4", "4"), ("add_edge", "4", "2")],
    *[("add_node", "2", "2", "2"), ("add_node", "4", "4", "4"), ("add_node", "4", "4", "2")],
    *[("widen", "2"), ("widen", "4")],
}

USELESS = {("add_edge", "2", "2")}  # a bright and a dark blob of one class cancel, so it may find no amplitude


def at(session: Session, choice: Scored, factor: float) -> Scored:
    """A candidate at a share of its amplitude."""
    outgoing = {edge.weight for _, edges in added(session, choice.step).outgoing for edge in edges}
    assert outgoing <= choice.step.values.keys()
    values = {k: a * np.float32(factor) if k in outgoing else a for k, a in choice.step.values.items()}
    updates = {key: factor * value for key, value in choice.updates.items()}
    return replace(choice, step=choice.step.model_copy(update={"values": values}), updates=updates)


def node(name: str, op: str, source: str, **attributes: Any) -> dict[str, Any]:
    return {"name": name, "op": op, "inputs": [source], **attributes}


def images_into(nodes: Sequence[dict[str, Any]]) -> Graph:
    """A graph from images of one channel to the node `o`."""
    inputs = [{"name": "x", "shape": ["N", 1, 8, 8]}]
    return growir.load_graph({"schema": "growir/1", "inputs": inputs, "nodes": list(nodes), "outputs": ["o"]})


# -- what is proposed -------------------------------------------------------------------------------------------------


def test_the_empty_graph_is_fed_from_the_map_and_from_its_vector() -> None:
    session = small_session(blobs(), small_config(policy=POLICY, budget={"parameters": 4000}))
    found = {kind_of(session, move) for move in proposed(session)}
    assert found == {
        ("add_edge", "2", "2"),
        ("add_edge", "4", "2"),
        ("add_node", "2", "2", "2"),
        ("add_node", "4", "4", "2"),
    }


def test_every_kind_of_move_is_proposed_once_and_fits_the_budget() -> None:
    session = image_session()
    moves = proposed(session)
    assert {kind_of(session, move) for move in moves} == EVERY_KIND
    assert len(set(moves)) == len(moves)
    for move in moves:
        assert move.rewrite(session.graph).graph.costs().parameters <= 4000


def test_every_kernel_size_is_tried() -> None:
    session = image_session(kernels=[1, 5])
    kernels = {m.kernel_size for m in proposed(session) if isinstance(m, AddEdge | AddNode)}
    assert kernels == {None, 1, 5}


def test_without_kernels_images_are_vectors() -> None:
    session = small_session(blobs(), small_config(budget={"parameters": 4000}))
    assert "image" not in session.graph
    assert all(kind_of(session, move)[1] == "2" for move in proposed(session))


@pytest.mark.parametrize("channels", ["", "first", "last"])
@pytest.mark.parametrize("standardise", ["auto", "none"])
def test_the_samples_stand_in_the_graph_as_maps(channels: str, standardise: str) -> None:
    config = small_config(policy=POLICY, data={"standardise": standardise}, budget={"parameters": 9000})
    session = small_session(blobs(channels=channels), config)
    (move,) = {m.source for m in proposed(session) if isinstance(m, AddNode) and m.kernel_size}
    shape = shapes_of(session.graph)[move]
    assert shape.sizes == ((3 if channels == "last" else 1), 8, 8)
    train = session.problem.data.train
    assert isinstance(train, ArraySource)
    assert isinstance(train.inputs, tuple)
    (x,) = train.inputs
    expected = {"": lambda: x[:, None], "first": lambda: x, "last": lambda: x.permute(0, 3, 1, 2)}[channels]()
    (found,) = values_of(session, session.data.everything(), [move])
    if standardise == "auto":
        # One mean and std serve all pixels, and are those of the pixels that vary.
        found = found * session.tensors["standard.std"] + session.tensors["standard.mean"]
        (vector,) = values_of(session, session.data.everything(), [session.reading.prefix()[0]])
        assert vector.mean().abs() < 1e-3
        assert vector.std() == pytest.approx(1.0, abs=1e-2)
    assert torch.allclose(found, expected, atol=1e-5)


# -- what is measured -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", ["", "last"])
@pytest.mark.parametrize("directions", thinned(["random", "fitted"], 2, 1))
def test_the_preview_of_every_candidate_equals_what_is_applied(channels: str, directions: str) -> None:
    session = image_session(blobs(channels=channels), directions=directions)
    moves = proposed(session)
    several = {m for m in moves if isinstance(m, Widen) and len(added(session, m).outgoing) > 1}
    before = loss_on(session, select_of(session))
    kinds: set[tuple[str, ...]] = set()
    for choice in scored(session, moves, 5):
        if choice.amplitude == 0:
            continue
        kinds.add(kind_of(session, choice.step))
        several.discard(choice.step.model_copy(update={"values": {}}))
        restore = session.keep()
        apply(session, choice)
        after = loss_on(session, select_of(session))
        restore()
        assert after == pytest.approx(choice.loss, abs=2e-6 + 1e-5 * after), choice.step.name
        assert before - after == pytest.approx(choice.gain, abs=2e-6 + 1e-5 * after)
    assert EVERY_KIND - kinds <= USELESS
    assert not several, "a widening that feeds several states was not measured"


def test_the_predicted_gain_is_the_first_order_one() -> None:
    session = image_session()
    _, searched = session.reading.halves
    before = loss_on(session, searched)
    kinds: set[tuple[str, ...]] = set()
    for choice in scored(session, key=5):
        if choice.amplitude == 0:
            continue
        smaller, restore = at(session, choice, 0.01), session.keep()
        apply(session, smaller)
        fallen = before - loss_on(session, searched)
        restore()
        assert choice.predicted is not None
        assert fallen == pytest.approx(0.01 * choice.predicted, rel=0.15, abs=1e-6), choice.step
        kinds.add(kind_of(session, choice.step))
    assert EVERY_KIND - kinds <= USELESS


def test_some_positions_predict_what_all_of_them_would(monkeypatch: pytest.MonkeyPatch) -> None:
    def psis() -> dict[str, float]:
        session = image_session(blobs(960))
        measured = policy_of(session)._measure(session)
        return {state.node: measured.bottleneck(state).psi for state in measured.states}

    some, drawn = psis(), Places.draw
    monkeypatch.setattr(Places, "draw", lambda samples, shape, most, draws: drawn(samples, shape, 10**6, draws))
    every = psis()
    assert some.keys() == every.keys()
    assert some == pytest.approx(every, rel=0.15)
    assert some != every


@pytest.mark.slow
def test_closed_form_directions_are_of_the_same_places(monkeypatch: pytest.MonkeyPatch) -> None:
    session, real, called = image_session(directions="fitted"), bottleneck.closed_form, list[Pass]()
    policy = policy_of(session)

    def seen(*arguments: Any) -> torch.Tensor:
        called.append(move)
        return real(*arguments)

    monkeypatch.setattr(neurons, "closed_form", seen)
    alike: list[Pass] = []
    for move in proposed(session, policy):
        scored(session, [move], 5, policy)
        new = added(session, move)
        if new.incoming and new.incoming.shape.sizes[1:] == new.outgoing[0][0].shape.sizes[1:]:
            alike.append(move)
    assert called == alike
    assert {kind_of(session, move) for move in alike} == {
        *[("add_node", "2", "2", "2"), ("add_node", "4", "4", "4"), ("widen", "2"), ("widen", "4")]
    }


def test_a_map_and_a_smaller_one_have_no_places_in_common(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [
        node("a", "conv2d", "x", out_channels=2, kernel_size=3, padding=1),
        node("r", "relu", "a"),
        node("p", "max_pool2d", "r", kernel_size=2),
        node("b", "conv2d", "p", out_channels=2, kernel_size=3, padding=1),
        node("s", "relu", "b"),
        node("f", "flatten", "s"),
        node("o", "linear", "f", out_features=4),
    ]
    config = small_config(policy={**POLICY, "directions": "fitted"}, budget={"parameters": 4000})
    session = Session(Network.init(images_into(nodes)), small_problem(blobs(channels="first"), config), config)
    called: list[int] = []
    monkeypatch.setattr(neurons, "closed_form", lambda *given: called.append(1))
    # There are as many rows of both, but at other positions.
    (choice,) = scored(session, [Widen(node="r", by=2)], 1)
    assert choice.amplitude > 0
    assert not called


# -- whole runs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", thinned(["", "first", "last"]))
def test_a_run_on_images(channels: str, tmp_path: Path) -> None:
    arrays = blobs(channels=channels)
    found = growir.grow(None, arrays, **SETTINGS, out=tmp_path / "run")
    assert found.summary["steps"] >= 2
    assert found.summary["test_after_fit"]["accuracy"] > 0.4  # one in four by chance
    growths = [event for event in found.events if isinstance(event, Growth)]
    assert any(tried.map and tried.outcome == "chosen" for event in growths for tried in event.measured.tried)
    network = Network.load(tmp_path / "run")
    assert network.history is not None
    assert network.history.base.hash == load_graph(tmp_path / "run" / "growth" / "0000.json").hash
    assert network.replayed().graph.hash == network.graph.hash == found.summary["hash"]
    x = arrays["x_test"].astype(np.float32)
    session = onnxruntime.InferenceSession(tmp_path / "run" / "model.onnx", providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = network.to_torch().eval()(torch.from_numpy(x)).numpy()
    scores = session.run(None, {"x": x})[0]
    assert np.abs(scores - expected).max() < 1e-5 * max(1.0, np.abs(expected).max())
    assert found.summary["test_after_fit"]["accuracy"] == np.mean(scores.argmax(axis=1) == arrays["y_test"])
    again = growir.grow(None, arrays, **SETTINGS)
    assert all(np.array_equal(array, again.network.arrays[key]) for key, array in network.arrays.items())


def test_a_regression_on_images() -> None:
    arrays = blobs()
    for part in ("train", "test"):
        y = arrays[f"y_{part}"]
        arrays[f"y_{part}"] = np.stack([100.0 + 5.0 * (y // 2), -3.0 + (y % 2)], axis=1)
    found = growir.grow(None, arrays, **SETTINGS)
    assert found.summary["steps"] >= 1
    assert found.summary["test_after_fit"]["loss"] < 0.5  # of the mean alone


def test_a_given_network_of_maps_grows() -> None:
    nodes = [
        node("a", "conv2d", "x", out_channels=2, kernel_size=3, padding=1),
        node("n", "batch_norm", "a"),
        node("r", "relu", "n"),
        node("p", "max_pool2d", "r", kernel_size=2),
        node("f", "flatten", "p"),
        node("o", "linear", "f", out_features=4),
    ]
    found = growir.grow(images_into(nodes), blobs(channels="first"), **SETTINGS)
    assert found.summary["steps"] >= 1
    assert found.network.replayed().graph.hash == found.network.graph.hash


def test_a_linear_layer_over_the_last_axis_of_an_image_is_left_alone() -> None:
    nodes = [
        node("a", "linear", "x", out_features=5),
        node("r", "relu", "a"),
        node("f", "flatten", "r"),
        node("o", "linear", "f", out_features=4),
    ]
    graph = images_into(nodes)
    for kernels in ([], [3]):
        settings = {**SETTINGS, "policy": {**POLICY, "kernels": kernels, "significance": 1.0}}
        found = growir.grow(graph, blobs(channels="first"), **settings)
        assert found.summary["ended"] in ("no move", "parameters", "steps", "no gain")
        for done in (each for event in found.events if isinstance(event, Growth) for each in event.passes):
            assert not {done.get("node"), done.get("target")} & {"a", "r"}


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [spirals, curve])
def test_kernels_need_images(make: Any, tmp_path: Path) -> None:
    words = r"\[policy\] kernels: convolutions read images, \(H, W\), .* but samples are \([34],\); leave kernels out"
    with pytest.raises(DataError, match=words):
        growir.grow(None, make(), **SETTINGS, out=tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_kernels_need_one_mean_and_std() -> None:
    words = r'\[policy\] kernels: .*\[data\] standardise must be "global" or "none", but is "feature"'
    with pytest.raises(DataError, match=words):
        growir.grow(None, blobs(), **SETTINGS, standardise="feature")


def test_images_of_many_channels_are_refused() -> None:
    arrays = {k: np.repeat(a[:, None], 5, axis=1) if k[0] == "x" else a for k, a in blobs().items()}
    with pytest.raises(DataError, match=r"with 1, 3 or 4 channels, but samples are \(5, 8, 8\)"):
        growir.grow(None, arrays, **SETTINGS)


@pytest.mark.parametrize(
    ("kernels", "words"),
    [
        ([4], "kernel sizes must be odd, to keep positions centred: 5 instead of 4"),
        ([3, 2], "must be odd, to keep positions centred: 3 instead of 2"),
        ([0], "[policy]: kernels"),
        ([33], "[policy]: kernels"),
        ([3.0], "[policy]: kernels"),
        (3, "[policy]: kernels is 3"),
    ],
)
def test_kernels_that_are_none(kernels: object, words: str) -> None:
    with pytest.raises(RunError) as caught:
        parse_run({"policy": {"kernels": kernels}}, "test")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_log_tells_which_candidates_are_maps(tmp_path: Path) -> None:
    policy = {**SETTINGS["policy"], "strategy": "whole"}
    settings = {**SETTINGS, "policy": policy, "budget": {"parameters": 2000, "steps": 1}}
    growir.grow(None, blobs(), **settings, out=tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    (growth,) = [line for line in lines if line["event"] == "growth"]
    tried = [(each["passes"][0], each["map"]) for each in growth["notes"]["tried"]]
    told = {(done["pass"], done.get("kernel_size")): maps for done, maps in tried}
    assert told == {("add_edge", None): False, ("add_node", None): False, ("add_node", 3): True}
