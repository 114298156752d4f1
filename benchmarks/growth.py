"""What growing costs beside the training it interrupts, and what it finds beside fixed networks of its size.

Three yardsticks, each trained on the same data, standardised alike, with the same optimizer on the schedule of the
final fit, for as many passes over the data as growth took in all, with every branch of a tournament and every trial:
a hand-written network of one hidden layer with about as many parameters; the same reading the inputs that growth chose
to read, which has more neurons; and the grown architecture with new weights.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

import growir
from benchmarks._fitting import final_fit, fit_module
from benchmarks.startup import Seconds
from growir.data.dataset import Dataset
from growir.data.memory import ArraySource
from growir.errors import DataError
from growir.graph import Graph
from growir.growth.config import DIGITS, RunConfig, TrainConfig
from growir.growth.data import check_data, load_data
from growir.growth.objective import CrossEntropy
from growir.growth.observer import Observer
from growir.growth.policies.dag.empty import kept
from growir.growth.policies.dag.inputs import short_fit
from growir.growth.problem import Problem
from growir.growth.session import Session
from growir.network import Network
from growir.runs.records import Event, InputsChosen

# An .npz with Keras's keys.
MNIST = Path(os.environ.get("GROWIR_MNIST", "mnist.npz"))
SEEDS = int(os.environ.get("GROWIR_SEEDS", "5"))
SIZES = (12_700, 25_000, 51_000, 80_000)  # parameters of the networks on MNIST
CONVOLUTIONS: dict[str, Any] = {
    "policy": {"strategy": "widen", "kernels": [3, 5]},
    "training": {"epochs_between": 1, "epochs_final": 12},
    "budget": {"parameters": 50_000, "macs": 2_500_000},
}

Data = str | Mapping[str, ArrayLike]


class Run(NamedTuple):
    """One network from nothing to its test accuracy.

    Attributes:
        accuracy: On the test data.
        parameters: Learned ones.
        seconds: Of all growth and training; not of loading.
        epochs: Passes over the training data.
        growths: Seconds of each growth step.
        trainings: Seconds of the training after each.
        before: Accuracy of the grown network before the final fit.
        share: Of the inputs' variance that it reads.
        network: What was grown.
        branch: The strategy that won, of a tournament.
    """

    accuracy: float
    parameters: int
    seconds: Seconds
    epochs: float
    growths: Sequence[Seconds] = ()
    trainings: Sequence[Seconds] = ()
    before: float = math.nan
    share: float = 1.0
    network: Network | None = None
    branch: str = ""


class Clock:
    """Seconds between one look and the next."""

    def __init__(self) -> None:
        self.last = Seconds(time.perf_counter(), time.process_time())

    def lap(self) -> Seconds:
        last, self.last = self.last, Seconds(time.perf_counter(), time.process_time())
        return Seconds(self.last.wall - last.wall, self.last.cpu - last.cpu)


def configuration(data: Data, given: Mapping[str, Any], samples: int) -> TrainConfig:
    """The training settings `growir.grow` uses for this data."""
    base = DIGITS if data == "digits" else RunConfig()
    return TrainConfig.model_validate({**base.train.model_dump(), **given}).resolved(samples)


def dataset(data: Data) -> Dataset:
    """Raises DataError, as growing would."""
    config = (DIGITS if data == "digits" else RunConfig()).data
    if isinstance(data, Mapping):
        return check_data(data, config, "data")
    found = load_data(config.model_copy(update={"path": data}))
    assert isinstance(found, Dataset), "a file holds one"
    return found


def epochs_of(events: Sequence[Event], config: TrainConfig) -> float:
    """Passes over the whole training data of a run; all but the final fit train on two of three parts."""
    final, between = config.epochs_final or 1, config.epochs_between or 1
    of_event = {"trained": between, "fitted": config.epochs_trial or final}
    partial = sum(of_event.get(event.event, 0) for event in events)
    partial += sum(short_fit(final) * len(event.tried) for event in events if isinstance(event, InputsChosen))
    return partial * 2 / 3 + final


def grown(
    data: Data,
    config: TrainConfig,
    given: Mapping[str, Any],
    seed: int,
    budget: Mapping[str, Any],
    policy: Mapping[str, Any],
) -> Run:
    clock = Clock()
    laps: dict[str, list[Seconds]] = defaultdict(list)

    def event(event: Event) -> None:
        laps[event.event].append(clock.lap())

    observer = Observer(event=event)
    schedule = {"name": "alternating", "trials": 0}  # sizes are given here
    result = growir.grow(
        None, data, seed=seed, train=given, budget=budget, policy=policy, schedule=schedule, observer=observer
    )
    summary = result.summary
    # What comes before the first event is loading.
    first = result.events[0].event
    after_start = [lap for name, found in laps.items() for lap in (found[1:] if name == first else found)]
    seconds = Seconds(*(sum(column) for column in zip(*after_start, strict=True)))
    chosen = next((event for event in result.events if isinstance(event, InputsChosen)), None)
    if chosen is not None:  # its lap is loading and choosing
        choosing = chosen.seconds or 0.0
        seconds = Seconds(seconds.wall + choosing, seconds.cpu + choosing)
    return Run(
        summary["test_after_fit"]["accuracy"],
        summary["parameters"],
        seconds,
        epochs_of(result.events, config),
        laps["growth"],
        laps["trained"],
        summary["test_before_fit"]["accuracy"],
        (chosen.variance if chosen is not None else None) or (0.98 if policy.get("kernels") else 1.0),
        result.network,
        summary.get("branch", ""),
    )


def scratch(data: Data, loaded: Dataset, config: TrainConfig, seed: int, like: Run) -> Run:
    """The grown architecture with new weights, trained like the final fit, only longer."""
    assert like.network is not None
    graph = like.network.graph
    epochs = round(like.epochs)
    base = DIGITS if data == "digits" else RunConfig()
    settings = config.model_copy(update={"epochs_final": epochs, "keep_final": 1.0})
    training = base.model_copy(update={"train": settings, "seed": seed})
    session = Session(_new_weights(like.network, seed), Problem.of_dataset(loaded), training)
    session.reading.ready(session.data.everything())  # what no training changes is computed once
    clock = Clock()
    final_fit(session)
    seconds = clock.lap()
    assert session.data.test is not None
    accuracy = session.measure(session.data.test).metrics["accuracy"]
    return Run(accuracy, graph.costs().parameters, seconds, epochs)


def _new_weights(network: Network, seed: int) -> Network:
    """The same architecture on the same standardised data, with torch's default initialisation."""
    base = Graph(
        name=network.graph.name, inputs=network.graph.inputs, nodes=network.graph.nodes, outputs=network.graph.outputs
    )
    fresh = Network.init(base, seed)
    buffers = {key: array for key, array in network.arrays.items() if key.endswith((".mean", ".std"))}
    return fresh.with_arrays(buffers)


def fixed(data: Dataset, config: TrainConfig, seed: int, like: Run, share: float = 1.0) -> Run:
    """A hand-written network of one hidden layer, trained like the final fit, only longer.

    Args:
        data: The data.
        config: Its training.
        seed: Of its weights and of the order of the samples.
        like: What it has as many parameters and epochs as.
        share: Of the inputs' variance that it reads.
    """
    columns = kept(data.x_train, share)
    x_train, x_test = (x.reshape(len(x), -1)[:, columns] for x in (data.x_train, data.x_test))
    mean, std = x_train.mean(dtype=np.float64), x_train.std(dtype=np.float64)
    values, tests = (torch.from_numpy(((x - mean) / std).astype(np.float32)) for x in (x_train, x_test))
    features = values.shape[1]
    width = max(1, round((like.parameters - data.outputs) / (features + 1 + data.outputs)))
    epochs = round(like.epochs)

    clock = Clock()
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, data.outputs))
    parameters = dict(module.named_parameters())
    source = ArraySource(values, torch.from_numpy(data.y_train))
    fit_module(module, parameters, CrossEntropy(), source, config, epochs=epochs, seed=seed, final=True)
    seconds = clock.lap()
    with torch.no_grad():
        hits = module.eval()(tests).argmax(dim=1).numpy() == data.y_test
    return Run(float(hits.mean()), sum(p.numel() for p in parameters.values()), seconds, epochs)


def compare(
    name: str,
    data: Data,
    seeds: int,
    *,
    training: Mapping[str, Any] | None = None,
    budget: Mapping[str, Any] | None = None,
    policy: Mapping[str, Any] | None = None,
    first: int = 0,
) -> list[dict[str, Any]]:
    """The rows of one data set, over `seeds` seeds from `first` on; one that says why if it is not there."""
    try:
        loaded = dataset(data)
    except DataError as error:
        return [{"what": name, "note": f"left out: {error}"}]
    given = training or {}
    config = configuration(data, given, len(loaded.x_train))
    growing: list[Run] = []
    yardsticks: dict[str, list[Run]] = defaultdict(list)
    for seed in range(first, first + seeds):  # in turn, so that what else the machine does falls on all
        run = grown(data, config, given, seed, budget or {}, policy or {})
        growing.append(run)
        yardsticks["fixed"].append(fixed(loaded, config, seed, run))
        if run.share < 1:
            yardsticks["fixed, same inputs"].append(fixed(loaded, config, seed, run, run.share))
        yardsticks["the same, from scratch"].append(scratch(data, loaded, config, seed, run))
    before = [run._replace(accuracy=run.before) for run in growing]
    everything = {"grown": growing, "grown, before the final fit": before, **yardsticks}
    outcomes = [outcome(f"{name}, {which}", runs) for which, runs in everything.items()]
    branches = [run.branch for run in growing if run.branch]
    outcomes[0] |= {"won by": ", ".join(f"{b} {branches.count(b)}" for b in dict.fromkeys(branches))}
    for row, runs in zip(outcomes[2:], yardsticks.values(), strict=True):
        row |= difference(growing, runs)
    return [*cost_rows(name, growing), *outcomes]


def difference(growing: Sequence[Run], others: Sequence[Run]) -> dict[str, Any]:
    """How far growth is ahead, in points, paired by seed, with the standard error of the mean."""
    ahead = [100 * (a.accuracy - b.accuracy) for a, b in zip(growing, others, strict=True)]
    error = statistics.stdev(ahead) / len(ahead) ** 0.5 if len(ahead) > 1 else math.nan
    return {"growth ahead by": statistics.fmean(ahead), "standard error": error}


def cost_rows(name: str, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Growth over the training after it: in all, and by step."""
    pairs = [pair for run in runs for pair in zip(run.growths, run.trainings, strict=True)]
    if not pairs:
        return [{"what": f"{name}, growth over training", "note": "nothing grew"}]
    whole = Seconds(*(sum(g[k] for g, _ in pairs) / sum(t[k] for _, t in pairs) for k in range(2)))
    steps = sorted((Seconds(g.wall / t.wall, g.cpu / t.cpu) for g, t in pairs), key=lambda ratio: ratio.wall)
    middle = Seconds(*(statistics.median(column) for column in zip(*steps, strict=True)))
    found = {"in all": whole, "median step": middle, "dearest step": steps[-1]}
    return [
        {
            "what": f"{name}, growth over training, {which}",
            "value": ratio.wall,
            "unit": "x",
            "cpu ratio": ratio.cpu,
            **({"limit": 2.0} if which != "dearest step" else {}),
        }
        for which, ratio in found.items()
    ]


def outcome(name: str, runs: Sequence[Run]) -> dict[str, Any]:
    accuracies = [100 * run.accuracy for run in runs]
    mean = Seconds(*(statistics.fmean(column) for column in zip(*(run.seconds for run in runs), strict=True)))
    return {
        "what": name,
        "value": statistics.fmean(accuracies),
        "unit": "% test accuracy",
        "spread": f"{min(accuracies):.2f} to {max(accuracies):.2f}, std {statistics.pstdev(accuracies):.2f}",
        "runs": len(runs),
        "parameters": round(statistics.fmean(run.parameters for run in runs)),
        "epochs": statistics.fmean(run.epochs for run in runs),
        "seconds": mean.wall,
        "cpu seconds": mean.cpu,
    }


def run() -> dict[str, Any]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a second one waits for whatever else the machine does
    try:
        # Settings were chosen by runs with seeds 0 to 5; what is reported has seeds that chose nothing.
        rows = compare("digits", "digits", SEEDS, first=10)
        for size in SIZES:
            rows += compare(f"mnist {size}", str(MNIST), SEEDS, budget={"parameters": size}, first=10)
        rows += compare("mnist, convolutions", str(MNIST), min(SEEDS, 3), **CONVOLUTIONS, first=10)
        return {"rows": rows, "torch": torch.__version__, "threads": 1}
    finally:
        torch.set_num_threads(threads)
