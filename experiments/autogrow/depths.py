"""What depth AutoGrow finds on thin networks, and what it is worth beside the found network from scratch.

    python -m experiments.autogrow.depths --mnist mnist.npz --cifar cifar10.npz --out depths.jsonl --seeds 0-2
    python -m experiments.autogrow.table depths.jsonl

Images are means of four by four pixels; 600 train, 300 others select, and all test images are read once. A stage is
closed where WINDOW epochs have gained nothing of the accuracy on what selects. Training is SGD with momentum, at a
constant rate while the network grows, and a one-cycle fit of FITTED epochs after that. The arms are

    period 1, period 3         growth every so many epochs, each initialiser of a residual block's last norm
    converged                  growth only where WINDOW epochs have gained nothing
    seed 3                     the same as period 3, from three blocks in each stage
    half, quarter              of the training images, with as many batches between two growths
    AdamW                      period 3, where what is new starts with small second moments, or the old ones' mean

and of periods 1 and 3 with the paper's initialiser the found network from scratch, for as many epochs and for as many
operations. A line of JSON is written for each. What is there already is not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import growir
from experiments.lines import Line, add, read
from growir.data.parts import Data
from growir.families import family_of, network
from growir.growth.config import parse_run
from growir.growth.problem import Problem, first_shape
from growir.growth.schedule import Train
from growir.growth.session import Session
from growir.growth.training import Keeping, train_final
from growir.network import Network
from growir.runs.records import Trained

SAMPLES, SELECTS, BATCH, POOLED = 600, 300, 50, 4
WIDTH, RATES = 4, {"Basic3ResNet": 0.1, "Plain3Net": 0.01}
WINDOW, FITTED, MOST_GROWTHS = 6, 10, 60
INITIALISERS = ("zero", "adam", "uniform", "gaussian")


class Arm(NamedTuple):
    """One way to grow.

    Attributes:
        net: The family.
        period: Epochs between growths.
        initialiser: Of the last norm of residual blocks.
        converged: Whether it grows only where nothing is gained any more.
        seed_depth: Blocks in each stage of the seed.
        share: Of the training images.
        fresh: How AdamW's second moments of new weights start, where it trains instead of SGD.
    """

    net: str
    period: int = 3
    initialiser: str = "gaussian"
    converged: bool = False
    seed_depth: int = 1
    share: float = 1.0
    fresh: str | None = None

    @property
    def has_twins(self) -> bool:
        """Whether the found network is trained from scratch too."""
        usual = self.initialiser in ("gaussian", "default") and not self.converged
        return usual and self.seed_depth == 1 and self.share == 1 and self.fresh is None

    @property
    def name(self) -> str:
        """What the line is called."""
        parts = [f"period {self.period}" if not self.converged else "converged", self.initialiser]
        parts += [f"seed {self.seed_depth}"] if self.seed_depth > 1 else []
        parts += [f"{self.share:g} of the images"] if self.share < 1 else []
        parts += [f"AdamW with {self.fresh} second moments"] if self.fresh is not None else []
        return ", ".join(parts)


def arms() -> Iterator[Arm]:
    """All that is compared. Plain blocks have no norm that starts apart."""
    for period in (1, 3):
        yield Arm("Plain3Net", period, "default")
        for initialiser in INITIALISERS:
            yield Arm("Basic3ResNet", period, initialiser)
    for initialiser in ("zero", "gaussian"):
        yield Arm("Basic3ResNet", 3, initialiser, converged=True)
    for net, initialiser in (("Basic3ResNet", "gaussian"), ("Plain3Net", "default")):
        yield Arm(net, 3, initialiser, seed_depth=3)
        for share in (0.5, 0.25):
            yield Arm(net, round(3 / share), initialiser, share=share)
    for fresh in ("small", "mean"):
        for initialiser in ("zero", "gaussian"):
            yield Arm("Basic3ResNet", 3, initialiser, fresh=fresh)


def images(archive: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Means of POOLED by POOLED pixels (n, channels, height, width), as floats, and labels."""
    with np.load(archive) as found:
        x, y = found[f"x_{part}"], found[f"y_{part}"].astype(np.int64)
    x = x[:, None] if x.ndim == 3 else x.transpose(0, 3, 1, 2)
    count, channels, height, width = x.shape
    x = x.reshape(count, channels, height // POOLED, POOLED, width // POOLED, POOLED).mean((3, 5)) / 255
    return np.ascontiguousarray(x, np.float32), y


def parts(archive: Path, seed: int, share: float) -> Data:
    """Images by chance: some train, others select; all that the test part has test."""
    (x, y), test = images(archive, "train"), images(archive, "test")
    order = np.random.default_rng([seed, 7]).permutation(len(x))
    train, select = order[: round(share * SAMPLES)], order[SAMPLES : SAMPLES + SELECTS]
    mean, std = x[train].mean(), x[train].std()
    scaled = {"train": (x[train], y[train]), "select": (x[select], y[select]), "test": test}
    named = {name: ((part - mean) / std, labels) for name, (part, labels) in scaled.items()}
    return Data.from_arrays(*named["train"], select=named["select"], test=named["test"])


def settings(arm: Arm) -> dict[str, Any]:
    """What a run is told."""
    sgd = {"name": "SGD", "learning_rate": RATES[arm.net], "momentum": 0.9, "weight_decay": 1e-4}
    return {
        "policy": {"name": "autogrow", "window": 0 if arm.converged else max(WINDOW, arm.period), "by": 0.0,
                   "initialiser": arm.initialiser},
        "schedule": {"name": "periodic", "window": 0, "measure": "accuracy",
                     **({"epochs": WINDOW, "converged": True} if arm.converged else {"epochs": arm.period})},
        "optimizer": sgd if arm.fresh is None else {"name": "AdamW"},
        "train": {"batch_size": BATCH, "epochs_final": FITTED, **({} if arm.fresh is None else {"fresh": arm.fresh})},
        "budget": {"steps": MOST_GROWTHS},
    }  # fmt: skip


def grown(data: Data, arm: Arm, seed: int) -> tuple[Network, Line]:
    """The network that growth finds, and what there is to say of it."""
    shape = first_shape(next(iter(data.train.batches(1, None))))
    depths = "".join(f"-{arm.seed_depth}" for _ in range(3))
    start = Network.init(network(arm.net + depths, shape, 10, width=WIDTH), seed)
    began = time.process_time()
    found = growir.grow(start, data, seed=seed, threads=1, **settings(arm))
    seconds = time.process_time() - began
    phases_of = WINDOW if arm.converged else arm.period
    epochs = phases_of * sum(isinstance(event, Trained) for event in found.events)
    costs = found.network.graph.costs()
    phases = found.summary["phases"].items()
    return found.network, {
        "found": str(family_of(found.network.graph)),
        "ended": found.summary["ended"],
        "growths": found.summary["steps"],
        "accuracy": 100 * found.summary["test_after_fit"]["accuracy"],
        "before_fit": 100 * found.summary["test_before_fit"]["accuracy"],
        "parameters": costs.parameters,
        "macs": costs.macs,
        "epochs": epochs + FITTED,
        "flops": sum(cost["flops"] for _, cost in phases),
        "growing_flops": sum(cost["flops"] for name, cost in phases if name != "final fit"),
        "cpu": round(seconds, 2),
    }


def from_scratch(data: Data, arm: Arm, found: str, epochs: int, seed: int) -> Line:
    """The same architecture with new weights, in one fit of so many epochs."""
    shape = first_shape(next(iter(data.train.batches(1, None))))
    start = Network.init(network(found, shape, 10, width=WIDTH), seed + 1000)
    config = parse_run({**settings(arm), "seed": seed, "threads": 1}, "from scratch")
    session = Session(start, Problem.of_data(data), config.started_from(given=True))
    began = time.process_time()
    train_final(session, Train(fit="final", epochs=epochs), Keeping(), 1.0)
    seconds = time.process_time() - began
    assert session.data.test is not None, "there are test images"
    accuracy = 100 * session.measure(session.data.test).metrics["accuracy"]
    return {"accuracy": accuracy, "epochs": epochs, "flops": flops_of(session, epochs), "cpu": round(seconds, 2)}


def flops_of(session: Session, epochs: int) -> float:
    """Of a final fit of so many epochs, which reads all training data."""
    return 6.0 * session.graph.costs().macs * len(session.data.everything()) * epochs


def line(archive: Path, arm: Arm, seed: int) -> Line:
    """Growth, and where it has twins its network from scratch by epochs and by operations."""
    data = parts(archive, seed, arm.share)
    net, told = grown(data, arm, seed)
    if not arm.has_twins:
        return told
    each = 6.0 * net.graph.costs().macs * (len(data.train) + SELECTS)
    scratch = {
        "equal epochs": from_scratch(data, arm, told["found"], told["epochs"], seed),
        "equal FLOPs": from_scratch(data, arm, told["found"], max(1, round(told["flops"] / each)), seed),
    }
    return {**told, "scratch": scratch}


def main(given: Sequence[str] | None = None) -> None:
    """Run what is asked for and is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path)
    parser.add_argument("--cifar", type=Path)
    parser.add_argument("--out", type=Path, default=Path("depths.jsonl"))
    parser.add_argument("--seeds", default="0-2", help="the first and the last")
    options = parser.parse_args(given)
    archives: Mapping[str, Path | None] = {"mnist": options.mnist, "cifar": options.cifar}
    torch.set_num_threads(1)
    low, high = map(int, options.seeds.split("-"))
    done = {(each["data"], each["net"], each["arm"], each["seed"]) for each in read(options.out)}
    for seed in range(low, high + 1):
        for name, archive in archives.items():
            if archive is None:
                continue
            for arm in arms():
                if (name, arm.net, arm.name, seed) in done:
                    continue
                head = {"data": name, "net": arm.net, "arm": arm.name, "seed": seed}
                add(options.out, [{**head, **line(archive, arm, seed)}])
                print(json.dumps(head), flush=True)


if __name__ == "__main__":
    main()
