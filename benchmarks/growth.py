"""What growing costs beside the training it interrupts, and what it finds beside a fixed network of its size.

The fixed network is written by hand: one hidden layer with about as many parameters as the grown network has. It is
trained on the same data, standardised alike, with the same optimizer on the schedule of the final fit, for as many
passes over the data as growth and final fit take together. Where growth leaves out inputs that hardly vary, a second
fixed network, and wider one, reads what growth reads: the harder one to equal.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

import growir
from benchmarks.startup import Seconds
from growir.errors import DataError
from growir.growth.config import DIGITS, RunConfig, TrainConfig
from growir.growth.data import Dataset, check_data, kept, load_data
from growir.growth.engine import Event, Observer
from growir.growth.loss import Loss
from growir.growth.session import resolved
from growir.growth.train import make_optimizer, predict, train

# An .npz with Keras's keys.
MNIST = Path(os.environ.get("GROWIR_MNIST", "mnist.npz"))
SEEDS = {"digits": 5, "mnist": 5}

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
    """

    accuracy: float
    parameters: int
    seconds: Seconds
    epochs: float
    growths: Sequence[Seconds] = ()
    trainings: Sequence[Seconds] = ()


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
    return load_data(config.model_copy(update={"path": data}))


def grown(data: Data, config: TrainConfig, given: Mapping[str, Any], seed: int, budget: Mapping[str, Any]) -> Run:
    clock = Clock()
    laps: dict[str, list[Seconds]] = {name: [] for name in ("started", "growth", "trained", "ended", "finished")}

    def event(event: Event) -> None:
        laps[event["event"]].append(clock.lap())

    summary = growir.grow(None, data, seed=seed, train=given, budget=budget, observer=Observer(event=event)).summary
    # Between growths it trains on two of three parts.
    epochs = summary["steps"] * (config.epochs_between or 0) * 2 / 3 + (config.epochs_final or 0)
    after_start = [lap for name, found in laps.items() for lap in found if name != "started"]
    seconds = Seconds(*(sum(column) for column in zip(*after_start, strict=True)))
    accuracy = summary["test_after_fit"]["accuracy"]
    return Run(accuracy, summary["parameters"], seconds, epochs, laps["growth"], laps["trained"])


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
    epochs, batch = round(like.epochs), config.batch_size or 64

    clock = Clock()
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, data.outputs))
    parameters = dict(module.named_parameters())
    optimizer = make_optimizer(parameters, config.learning_rate_final / 25, config.weight_decay)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate_final, total_steps=epochs * -(-len(values) // batch) + 1, pct_start=0.25
    )
    train(
        module,
        Loss("classification", torch.ones(1)),
        [values],
        torch.from_numpy(data.y_train),
        torch.arange(len(values)),
        optimizer,
        epochs=epochs,
        batch_size=batch,
        generator=torch.Generator().manual_seed(seed),
        scheduler=scheduler,
    )
    seconds = clock.lap()
    hits = predict(module.eval(), [tests]).argmax(dim=1).numpy() == data.y_test
    return Run(float(hits.mean()), sum(p.numel() for p in parameters.values()), seconds, epochs)


def compare(
    name: str,
    data: Data,
    seeds: int,
    *,
    training: Mapping[str, Any] | None = None,
    budget: Mapping[str, Any] | None = None,
    first: int = 0,
) -> list[dict[str, Any]]:
    """The rows of one data set, over `seeds` seeds from `first` on; one that says why if it is not there."""
    try:
        loaded = dataset(data)
    except DataError as error:
        return [{"what": name, "note": f"left out: {error}"}]
    given = training or {}
    config = configuration(data, given, len(loaded.x_train))
    share = resolved(RunConfig(), loaded).data.variance or 1.0
    shares = {"fixed": 1.0} | ({"fixed, same inputs": share} if share < 1 else {})
    growing: list[Run] = []
    fixing: dict[str, list[Run]] = {which: [] for which in shares}
    for seed in range(first, first + seeds):  # in turn, so that what else the machine does falls on all
        growing.append(grown(data, config, given, seed, budget or {}))
        for which, of_variance in shares.items():
            fixing[which].append(fixed(loaded, config, seed, growing[-1], of_variance))
    outcomes = [outcome(f"{name}, {which}", runs) for which, runs in {"grown": growing, **fixing}.items()]
    return [*cost_rows(name, growing), *outcomes]


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
            **({"limit": 1.0} if which != "dearest step" else {}),
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
        rows = compare("digits", "digits", SEEDS["digits"], first=10)
        rows += compare("mnist", str(MNIST), SEEDS["mnist"], first=10)
        return {"rows": rows, "torch": torch.__version__, "threads": 1}
    finally:
        torch.set_num_threads(threads)
