"""Every benchmark still runs, at its smallest; how fast anything is, is not a matter of tests."""

from __future__ import annotations

import dataclasses
import importlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import growir
from benchmarks import (
    calibration,
    fresh,
    growth,
    live,
    loader,
    lowered,
    pruning,
    scaling,
    scoring,
    startup,
    step,
    tabular,
    teacher,
    threads,
    training,
)
from benchmarks.__main__ import exceeded, names
from benchmarks._fresh import PROBLEMS, SPLITS, Problem, started
from growir.passes import Widen
from growir.verify import load
from tests.sampling import thinned


@pytest.mark.parametrize("name", names())
def test_every_module_has_a_run(name: str) -> None:
    assert callable(importlib.import_module(f"benchmarks.{name}").run)


def test_a_limit_is_exceeded_from_above() -> None:
    assert exceeded({"value": 1.1, "limit": 1.0})
    assert not exceeded({"value": 1.0, "limit": 1.0})
    assert not exceeded({"value": 1.1})
    assert not exceeded({"note": "left out"})


def test_startup_documents_have_the_size_asked_for() -> None:
    graph = load(startup.document(26))
    assert len(graph.nodes) == 26
    assert startup.load(startup.document(26)).wall > 0


CASES = [training.mlp(4, 6, 3, 3, 10), training.convnet(4, 8, 2, 2, 4)]


@pytest.mark.parametrize("case", CASES, ids=["mlp", "convnet"])
def test_training_steps_are_measured(case: training.Case) -> None:
    row = training.measure(case, blocks=3, block_seconds=0.0)
    assert row["what"] == case.name
    assert row["value"] > 0


@pytest.mark.parametrize("kind", ["a loader", "a data set"])
def test_a_source_is_measured_beside_the_bare_loop(kind: str) -> None:
    before = torch.get_num_threads()
    row = loader.measure(kind, 0, 1, batch=2, side=16, batches=2, repeats=2, widths=(4, 4, 4, 4))
    assert row["value"] > 0
    assert ("limit" in row) == (kind == "a loader")
    assert torch.get_num_threads() == before


@pytest.mark.cuda
@pytest.mark.parametrize("case", CASES, ids=["mlp", "convnet"])
def test_training_steps_are_measured_on_a_gpu(case: training.Case) -> None:
    assert training.measure(case, "cuda", blocks=3, block_seconds=0.0)["value"] > 0


def test_a_network_that_learns_otherwise_is_not_measured() -> None:
    case = CASES[0]._replace(by_hand=lambda: torch.nn.Sequential(training.Mlp((6, 3, 3, 10)), torch.nn.Flatten()))
    with pytest.raises(RuntimeError, match="Missing key"):
        training.measure(case, blocks=1)


def test_growth_is_compared() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((120, 5))
    y = (x[:, 0] > x[:, 1]).astype(np.int64)
    data = {"x_train": x[:90], "y_train": y[:90], "x_test": x[90:], "y_test": y[90:]}
    rows = growth.compare(
        "tiny", data, 1, training={"epochs_between": 2, "epochs_final": 2}, budget={"parameters": 200, "steps": 2}
    )
    found = {row["what"]: row for row in rows}
    assert found["tiny, growth over training, in all"]["value"] > 0
    grown, fixed = found["tiny, grown"], found["tiny, fixed"]
    assert 0 <= grown["value"] <= 100
    assert math.isclose(grown["parameters"], fixed["parameters"], rel_tol=0.2)
    again = found["tiny, the same, from scratch"]
    assert again["parameters"] == grown["parameters"]
    assert again["epochs"] == round(grown["epochs"])
    assert grown["epochs"] > 2 + 2 * 2 * 2 / 3  # the final fit, and a trial of each branch


def test_predictions_are_compared_with_what_was_measured() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((150, 4))
    y = np.tanh(x[:, :1]) * x[:, 1:2]
    data = {"x_train": x[:120], "y_train": y[:120], "x_test": x[120:], "y_test": y[120:]}
    settings = {"policy": {"strategy": "whole", "neurons": 3}, "train": {"epochs_between": 1, "epochs_final": 1}}
    rows = calibration.calibrated("tiny", lambda seed: data, {**settings, "budget": {"steps": 3}}, 2)
    everything = rows[-1]
    assert everything["what"] == "tiny, all"
    assert everything["candidates"] > 6
    assert 0.5 < everything["value"] <= 1


def test_missing_data_is_left_out() -> None:
    (row,) = growth.compare("absent", "absent.npz", 1)
    assert row["note"].startswith("left out: absent.npz")


def test_growth_events_are_measured() -> None:
    graph = live.resnet18(32, (2, 3, 4, 5))
    row = live.measure(graph, Widen(node="layer2.0.add", by=2), 32, 1, batch=2, steps=1, repeats=2)
    assert row["value"] > 0
    assert row["growth ms"] > 0


def test_the_benchmarked_resnet_is_the_known_one() -> None:
    assert live.resnet18(224, classes=1000).costs().parameters == 11_689_512


def test_lowered_steps_stand_beside_the_module_they_were_imported_from() -> None:
    found = lowered.training(32, 1)
    assert found["value"] > 0
    assert lowered.lowering(2, 1, 1)["value"] > 0


def test_scaling_is_measured() -> None:
    found = scaling.run((30, 60), repeats=1)
    assert len(found["rows"]) == 6
    assert all(row["value"] > 0 for row in found["rows"])


def test_pruning_is_compared_where_the_other_tool_is_there() -> None:
    pytest.importorskip("torch_pruning")
    spaces, pruned = pruning.compared("tiny", pruning.resnet18(), (20.0, 0.5), 32, 1)
    assert spaces["value"] > 0
    assert pruned["value"] > 0


@pytest.mark.slow
def test_a_benchmark_model_shrinks_in_every_free_space() -> None:
    net = growir.from_torch(pruning.resnet18(), (torch.randn(1, 3, 32, 32),))
    before = {space.name: space.width for space in growir.channel_spaces(net.graph) if not space.pins}
    after = {space.name: space.width for space in growir.channel_spaces(pruning.norm_pruned(net).graph)}
    assert all(after[name] == width - int(0.3 * width) for name, width in before.items())


TINY = teacher.Plan(samples=40, test=20, steps=2, neurons=3, between=1, final=2, widths=(2, 3))


def test_growth_on_a_teacher_is_compared_without_the_other_library() -> None:
    found = {row["what"]: row for row in teacher.run(TINY, seeds=1, peer=False)["rows"]}
    grown, again, plain = (
        found[name]
        for name in ("growir, whole", "- growir, whole: same, new weights", "- growir, whole: one hidden layer")
    )
    assert grown["value"] > 0
    assert grown["moves"] >= grown["growths"] > 0
    assert grown["parameters"] == again["parameters"]
    assert math.isclose(grown["parameters"], plain["parameters"], rel_tol=0.2)
    assert found["oracle"]["parameters"] == 4701
    assert {"whole, seconds a move", "whole, growing / training", "restricted / whole, growing"} <= set(found)
    assert not any("gromo" in name for name in found)


def test_a_strategy_that_is_not_there_is_known_as_such() -> None:
    assert teacher.known(TINY, "whole")
    assert not teacher.known(TINY, "clairvoyant")


def test_the_grid_has_seven_architectures() -> None:
    graphs = teacher.structures(20, 1, 50)
    assert len({graph.hash for graph in graphs}) == 7
    # The teacher itself is one of them.
    assert sum(graph.costs().parameters == 4701 for graph in graphs) == 1


def test_growth_on_a_teacher_is_compared_where_the_other_library_is_there() -> None:
    pytest.importorskip("gromo")
    problem = teacher.Problem.of(0, TINY._replace(steps=1))
    for run in (teacher.peer_grown(problem, "whole", "line"), teacher.peer_grown(problem, "bic", "five")):
        assert run.error > 0
        assert run.candidates >= len(run.steps) == 1
        assert run.graph.costs().parameters == run.parameters


def test_a_growth_step_stands_beside_an_epoch() -> None:
    row = step.beside_an_epoch(4, samples=120, features=6, repeats=1)
    assert row["value"] > 0
    assert row["moves"] > 0


def test_steps_are_measured_by_states() -> None:
    rows = step.power([step.by_states(states, samples=40) for states in (1, 2)])
    assert rows[1]["moves"] > rows[0]["moves"] > 0
    assert rows[1]["m^, moves"] > 0


@pytest.mark.parametrize("problem", thinned([*PROBLEMS, *SPLITS], 4), ids=lambda problem: problem.name)
def test_what_is_fresh_is_compared(problem: Problem) -> None:
    """Every problem grows with its function kept, and all variants go on from there with the same batches."""
    short = dataclasses.replace(problem, before=3, after=(5, 10))
    run = started(short, 0)
    loss = run.measured()
    variants = fresh.OF_COPIES if problem in SPLITS else fresh.VARIANTS
    for variant in variants:
        found = fresh.grown(short, run, 0, variant)
        assert math.isclose(found.measured(), loss, rel_tol=1e-4)
        a, b = found.data.batch(), run.copied().data.batch()
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    measured = [each for seed in (0, 1) for each in fresh.measure(short, seed, variants[:2])]
    rows = fresh.rows(measured)
    assert [(row["problem"], row["steps after"]) for row in rows] == [(problem.name, 5), (problem.name, 10)]
    assert all(row[variants[1]] > 0 for row in rows)


@pytest.mark.parametrize("case", [threads.mlp(4, 3, 100), threads.convnet(4, 5, 2)], ids=["mlp", "convnet"])
def test_threads_are_compared(case: threads.Case) -> None:
    before = torch.get_num_threads()
    try:
        row = threads.measure(case, repeats=1, seconds=0.001)
    finally:
        torch.set_num_threads(before)
    assert row["one thread"]
    assert min(row["value"], row["CPU x"], row["1: CPU ms"], row["2: wall ms"]) > 0


def test_work_is_counted_as_a_graph_counts_it() -> None:
    for case in (threads.mlp(4, 3, 100), threads.convnet(4, 5, 2)):
        network = growir.from_torch(case.module(), torch.randn(2, *case.shape))
        assert network.graph.costs().macs == case.macs


@pytest.mark.slow
def test_tables_are_compared_and_the_comparison_goes_on_where_it_stopped(tmp_path: Path) -> None:
    lines = tmp_path / "lines.jsonl"
    found = tabular.run(["iris"], ["growir", "linear"], [0], lines)
    (row,) = found["rows"]
    assert row["best other"] == "linear"
    assert 0.8 < row["growir"] <= 1
    assert row["linear"] - row["growir"] == row["behind"]
    before = lines.read_text(encoding="utf-8")
    assert tabular.run(["iris"], ["growir", "linear"], [0], lines) == found
    assert lines.read_text(encoding="utf-8") == before


def test_level_is_within_the_standard_error_of_the_paired_difference() -> None:
    scores = {"growir": [0.8, 0.7, 0.9], "linear": [0.82, 0.69, 0.9], "forest": [0.5, 0.5, 0.5]}
    fits: list[dict[str, Any]] = [
        {"set": "made", "method": method, "seed": seed, "score": score, "samples": 10, "cpu s": 1.0}
        for method, each in scores.items()
        for seed, score in enumerate(each)
    ]
    (row,) = tabular.rows(fits)
    assert (row["best other"], row["verdict"]) == ("linear", "level")
    for fit in fits[:3]:
        fit["score"] -= 0.1
    assert tabular.rows(fits)[0]["verdict"] == "behind"
    for fit in fits[:3]:
        fit["score"] += 0.2
    assert tabular.rows(fits)[0]["verdict"] == "first"


def test_every_table_can_be_drawn_and_is_the_same_by_the_same_seed() -> None:
    for table in tabular.TABLES.values():
        a, b = tabular.parts(table, 1), tabular.parts(table, 1)
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
        assert len(a.x_test) < len(a.x_train) / 3


def test_scoring_measures_every_policy_on_the_smallest_vgg() -> None:
    stages, side = ((2,), (3,)), 4
    graph = scoring.vgg(stages, side)
    assert [node.name for node in scoring.vgg(scoring.VGG19, 32).nodes][-2:] == ["flat", "head"]
    rows = [
        *scoring.growths("tiny", stages, side, 1, limited=True),
        *scoring.morphisms("tiny", graph, 1, limited=False),
        *scoring.activations("tiny", graph, limited=False),
        *scoring.firefly("tiny", graph, 1, 1, limited=True),
    ]
    assert all(math.isfinite(row["value"]) for row in rows)
    kept = {row["what"]: row["value"] for row in rows if row["what"].startswith("saved")}
    assert kept["saved, m'=6"] < kept["saved, m'=16"] < kept["saved, m'=50"]
    assert kept["saved, m'=50, 4 groups"] < kept["saved, m'=50"]
    assert {row["what"] for row in rows if "limit" in row} >= {"Firefly, m'=1: all scoring", "live.grow, batch 16"}
