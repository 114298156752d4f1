"""Choosing inputs: a short fit for each share of the variance, before growth, the same after a resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from growir.growth.config import RunConfig
from growir.growth.observer import Observer
from growir.growth.problem import Problem
from growir.growth.running import start_run
from growir.network import Network
from tests.growth.problems import Arrays, small_config, small_problem
from tests.growth.test_run import Stop, assert_same_run, logged, run

SHARES = (0.5, 0.9, 1.0)


def images(samples: int = 240, useful: int = 4) -> Arrays:
    """Images whose classes only the few pixels that vary most can tell; the other pixels are noise of less size."""
    rng = np.random.default_rng(0)
    x = 0.3 * rng.normal(size=(samples, 6, 6))
    x[:, 0, :useful] += 2 * rng.normal(size=(samples, useful))
    y = (x[:, 0, :useful].sum(axis=1) > 0).astype(np.int64)
    cut = samples * 3 // 4
    return {"x_train": x[:cut], "y_train": y[:cut], "x_test": x[cut:], "y_test": y[cut:]}


def config(seed: int = 0, **policy: Any) -> RunConfig:
    return small_config(
        seed, data={"variance": list(SHARES)}, policy=policy, train={"epochs_final": 10}, budget={"parameters": 300}
    )


def problem() -> Problem:
    return small_problem(images(), config())


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inputs") / "run"
    run(path, config(), images())
    return path


def test_the_selection_part_decides(chosen: Path) -> None:
    first, started = logged(chosen)[:2]
    assert (first["event"], started["event"]) == ("inputs", "started")
    tried = first["tried"]
    assert {each["variance"] for each in tried} == set(SHARES)
    assert [each["loss"] for each in tried] == sorted(each["loss"] for each in tried)
    assert (first["variance"], first["inputs"]) == (tried[0]["variance"], tried[0]["inputs"])
    inputs = {each["variance"]: each["inputs"] for each in tried}
    assert inputs[0.5] < inputs[0.9] < inputs[1.0] == 36
    for each in tried:  # fewer inputs pay for more neurons
        assert 200 < each["width"] * (each["inputs"] + 3) <= 300
    assert first["variance"] < 1.0  # the noise is left out
    network = Network.load(chosen)
    assert network.history is not None
    assert network.history.base.hash == started["hash"]
    assert len(network.graph["varying"].op.attributes()["indices"]) == first["inputs"]
    assert logged(chosen)[-1]["phases"]["choosing"]["flops"] > 0


@pytest.mark.slow
def test_a_run_stopped_after_the_choice_ends_as_if_nothing_had_been(chosen: Path, tmp_path: Path) -> None:
    for kind in ("event", "checkpoint"):
        for count in range(1, 6):
            path = tmp_path / f"{kind}{count}"
            with pytest.raises(KeyboardInterrupt):
                run(path, config(), images(), observer=Stop(kind, count).observer)
            run(path, config(), images(), resume=True)
            assert_same_run(path, chosen)


@pytest.mark.slow
def test_every_branch_of_a_tournament_reads_the_chosen_inputs(tmp_path: Path) -> None:
    settings = config(strategy="tournament")
    run(tmp_path / "whole", settings, images())
    seen: list[str] = []
    observer = Observer(accepted=lambda step, graph: seen.append(graph.hash) if step == 0 else None)
    run(tmp_path / "again", settings, images(), observer=observer)
    assert len(seen) == 3  # two branches, and the winner's beginning
    assert set(seen) == {logged(tmp_path / "whole")[1]["hash"]}
    path = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):  # in the second branch
        run(path, settings, images(), observer=Stop("checkpoint", 5).observer)
    run(path, settings, images(), resume=True)
    assert_same_run(path, tmp_path / "whole")


def test_a_given_network_chooses_nothing() -> None:
    first = start_run(config(), problem(), None)
    assert first.events[0].event == "inputs"
    assert first.network.history is not None
    start = Network.init(first.network.history.base)
    start = start.with_arrays({key: a for key, a in first.network.arrays.items() if key in start.arrays})
    again = start_run(config(), problem(), start)
    assert again.events[0].event == "started"


def test_one_share_is_no_choice() -> None:
    settings = small_config(data={"variance": 0.9})
    assert start_run(settings, problem(), None).events[0].event == "started"
