"""What it costs to score all candidates of a network at once, beside training it and beside trying each by itself.

    python -m benchmarks scoring

VGG-19 with 16 channels everywhere at 32x32, and a VGG of six layers at 16x16; batch 64, Adam, one thread. Costs are CPU
seconds in multiples of a training step of the same network at the same batch. Work of all kinds takes turns, so that
other work on the machine meets all alike, and each cost is the median of its turns over the median of the steps.

- Firefly: a learning step (gates and directions of every split and of m' fresh units in each space), and the judging of
  a batch (three midpoints). All of its scoring is 25 of the former and 4 of the latter, the policy's defaults, from
  which it is extrapolated; an epoch is 50 000 samples.
- Gauss-Newton: a learning step of every direction, scores alone, prunes alone.
- Brute force: one candidate is applied and the loss measured on as many batches as Firefly judges on, times how many
  candidates there are: extrapolated, and without learning a direction.
- Saved for backward: the bytes of activations (whatever has the batch as its first axis) that autograd keeps, each
  storage once, over those of a training step; with sites in groups, the largest group.
- A growth with recorded values: half of all units of a gated network, as one sequence. `rewrite` is of structure alone,
  of a graph that has been analysed and of one that has not; `live.grow` takes weights and Adam's state along, against
  training steps of batch 16.

VGG-19, on a machine that others used too (benchmarks/results/scoring.json); what is aimed at stands in brackets:

| | |
|---|---|
| Firefly, m' = 6: a learning step, a batch judged, all scoring | 4.3, 13, 161 steps = .21 epochs |
| Firefly, m' = 50 (1056 candidates) | 16, 47, 592 steps = .76 epochs (1) |
| brute force of these, m' = 6 and 50 | 631, 1925 steps |
| Gauss-Newton: a learning step, scores alone, prunes alone | 2.4 (3), 1.5 (2), .72 (1) steps |
| saved for backward, m' = 6, 16, 50 | 2.3 (3), 2.9 (3), 5.0 (6) times a step's |
| the same in 4 groups, m' = 16 and 50; one site at a time | 2.7, 4.6; 1.6, 2.5 (1.5) |
| rewrite of 32 passes with 64 arrays, analysed and not | 19 (30), 123 ms |
| live.grow by them, batch 16 | 2.6 and 3.1 (3) steps, in two runs |

Groups bring less than their number: the first sites have the largest maps, and whatever lies behind a site is kept.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch

from growir import live
from growir.data.parts import Data
from growir.data.source import Batch
from growir.graph import Graph, Input, Node
from growir.growth.config import parse_run
from growir.growth.measure.directions import Learning, learned
from growir.growth.measure.effects import Effects, gauss_newton
from growir.growth.measure.gated import Gated, groups
from growir.growth.measure.judging import along_path
from growir.growth.measure.learning import batch_statistics, mean_loss, training_batches
from growir.growth.measure.learning import learned as gates_learned
from growir.growth.measure.sites import sites
from growir.growth.policies.firefly import FireflySettings
from growir.growth.problem import Problem
from growir.growth.session import Session
from growir.network import Network
from growir.ops import BatchNorm, Conv2d, Flatten, Linear, MaxPool2d, Op, Relu
from growir.rewrite import Pass
from growir.verify import verify

BATCH, SMALL_BATCH, EPOCH, REPEATS = 64, 16, 50_000, 3
Stages = tuple[tuple[int, ...], ...]
VGG19 = ((16, 16), (16, 16), (16,) * 4, (16,) * 4, (16,) * 4)
VGG6 = ((8, 8), (8, 8), (8, 8))


def vgg(stages: Stages, side: int) -> Graph:
    """A VGG with batch norm: the widths of each stage, behind which maps are halved."""
    nodes: list[Node] = []
    value = "x"

    def add(name: str, op: Op) -> None:
        nonlocal value
        nodes.append(Node(name=name, op=op, inputs=(value,)))
        value = name

    for k, widths in enumerate(stages):
        for j, width in enumerate(widths):
            add(f"conv{k}_{j}", Conv2d(out_channels=width, kernel_size=3, padding=1))
            add(f"norm{k}_{j}", BatchNorm())
            add(f"relu{k}_{j}", Relu())
        add(f"pool{k}", MaxPool2d(kernel_size=2, stride=2))
    add("flat", Flatten())
    add("head", Linear(out_features=10))
    entry = Input(name="x", shape=("N", 3, side, side))
    return verify(Graph(name="vgg", inputs=(entry,), nodes=tuple(nodes), outputs=("head",)))


def session_of(graph: Graph, batch: int = BATCH) -> Session:
    """The network, on noise."""
    shape = cast("tuple[int, ...]", graph.inputs[0].shape[1:])
    x = np.random.default_rng(0).standard_normal((8 * batch, *shape), np.float32)
    data = Data.from_arrays(x, np.arange(len(x)) % 10, select=1 / 8)
    config = parse_run({"policy": "firefly", "threads": 1, "train": {"batch_size": batch}}, "benchmark")
    return Session(Network.init(graph), Problem.of_data(data, "cross_entropy"), config)


def train(session: Session, batch: Batch) -> None:
    """A step of the optimizer."""
    session.module.train()
    session.optimizer.zero_grad(set_to_none=True)
    loss = session.objective.total((session.module(*batch.inputs),), batch.target) / len(batch)
    loss.backward()  # type: ignore[no-untyped-call]  # torch's own stub
    session.optimizer.step()


def medians(work: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """CPU seconds of each, in turns; the first turn warms up."""
    found: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(repeats + 1):
        for name, run_ in work.items():
            start = time.process_time()
            run_()
            if turn:
                found[name].append(time.process_time() - start)
    return {name: statistics.median(each) for name, each in found.items()}


def tried(session: Session, one: Pass, batch: Batch, batches: int) -> None:
    """Apply one candidate to a copy, and measure the loss."""
    module, _ = live.grow(session.module, one, train_as_imported=True)
    with torch.no_grad():
        for _ in range(batches):
            session.objective.total((module.eval()(*batch.inputs),), batch.target)


@contextmanager
def saved(batch: int) -> Generator[list[int]]:
    """Of what autograd saves meanwhile the bytes of activations, as the one entry of a list."""
    seen: dict[int, int] = {}
    total = [0]

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if tensor.ndim and tensor.shape[0] == batch:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield total
        total[0] = sum(seen.values())


def _row(what: str, net: str, value: float, unit: str, limit: float | None = None, **more: Any) -> dict[str, Any]:
    return {"what": what, "net": net, "value": value, "unit": unit, **({"limit": limit} if limit else {}), **more}


# -- Firefly ----------------------------------------------------------------------------------------------------------


def firefly(net: str, graph: Graph, fresh: int, repeats: int, *, limited: bool) -> list[dict[str, Any]]:
    """What scoring costs, to the policy's defaults, beside trying each candidate."""
    session, settings, found = session_of(graph), FireflySettings(fresh_units=fresh), sites(graph).sites
    batch = next(training_batches(session, 0))
    gated = Gated(session.module, found, fresh=fresh, key=(0,))
    loss = mean_loss(session, gated)
    gates = gated.gates(settings.gate / 2)
    one = gated.chosen([len(gated.units) - 1], gates)

    def scored(work: Callable[[], object]) -> Callable[[], object]:
        def judged() -> object:
            with batch_statistics(session.module, session.graph):
                return work()

        return judged

    work: dict[str, Callable[[], object]] = {
        "step": lambda: train(session, batch),
        "learn": scored(lambda: gates_learned(gated, loss, [batch], eps=settings.gate, rate=settings.learn_rate)),
        "judge": scored(lambda: along_path(gates, loss, [batch])),
        "brute": lambda: tried(session, one, batch, settings.judge_batches),
    }
    cpu = medians(work, repeats)
    steps = (settings.learn_steps * cpu["learn"] + settings.judge_batches * cpu["judge"]) / cpu["step"]
    brute = len(gated.units) * cpu["brute"] / cpu["step"]
    epochs, limit = steps * BATCH / EPOCH, 1.0 if limited else None
    more = {"candidates": len(gated.units), "step CPU ms": 1e3 * cpu["step"]}
    return [
        _row(f"Firefly, m'={fresh}: a learning step", net, cpu["learn"] / cpu["step"], "steps", **more),
        _row(f"Firefly, m'={fresh}: a batch judged", net, cpu["judge"] / cpu["step"], "steps", **more),
        _row(f"Firefly, m'={fresh}: all scoring", net, steps, "steps", **more),
        _row(f"Firefly, m'={fresh}: all scoring", net, epochs, "epochs", limit, **more),
        _row(f"brute force, m'={fresh}: extrapolated", net, brute, "steps", **more),
    ]


def activations(net: str, graph: Graph, *, limited: bool) -> list[dict[str, Any]]:
    """What is saved for backward while all candidates are scored."""
    session, found = session_of(graph), sites(graph).sites
    batch = next(training_batches(session, 0))
    session.module.train()
    with saved(BATCH) as bytes_:
        total = session.objective.total((session.module(*batch.inputs),), batch.target)
    plain = bytes_[0]
    del total
    rows: list[dict[str, Any]] = []
    for fresh, count, limit in (
        (6, 1, 3.0),
        (16, 1, 3.0),
        (50, 1, 6.0),
        (50, 4, None),
        (50, 16, None),
        (16, 4, None),
        (16, 16, None),
    ):
        most = 0
        for some in groups(found, count):
            gated = Gated(session.module, some, fresh=fresh, key=(0,))
            for direction in gated.directions.values():
                direction.requires_grad_()
            gates = gated.gates(0.1).requires_grad_()
            with batch_statistics(session.module, session.graph), saved(BATCH) as bytes_:
                value = mean_loss(session, gated)(gates, batch)
            most = max(most, bytes_[0])
            del value
        within = f", {count} groups" if count > 1 else ""
        rows.append(
            _row(
                f"saved, m'={fresh}{within}",
                net,
                most / plain,
                "of a step's",
                limit if limited else None,
                MiB=most / 2**20,
            )
        )
    return rows


# -- Gauss-Newton -----------------------------------------------------------------------------------------------------


def morphisms(net: str, graph: Graph, repeats: int, *, limited: bool) -> list[dict[str, Any]]:
    """What a batch costs that directions are learned on, that only scores, and that only prunes."""
    session, found = session_of(graph), sites(graph).sites
    batch = next(training_batches(session, 0))
    effects = Effects(session.module, found)
    known = learned(session, found, Learning(1, BATCH, 4 * BATCH, 0.01, 0.1), gauss_newton, 1).theta
    many = 4

    def learn(steps: int) -> None:
        learned(session, found, Learning(steps, BATCH, 4 * BATCH, 0.01, 0.1), gauss_newton, 1)

    def score(what: str) -> None:
        point = effects.at(batch.inputs, lambda outputs: session.objective.each(outputs, batch.target))  # type: ignore[arg-type]
        with torch.no_grad():
            for site in effects.sites:
                each = point.split(site, known[site.name]) if what == "split" else point.prune(site)
                gauss_newton(each, point.losses)

    gated = Gated(session.module, found, key=(0,))
    one = gated.chosen([0], gated.gates(0.1))
    work: dict[str, Callable[[], object]] = {
        "step": lambda: train(session, batch),
        "brute": lambda: tried(session, one, batch, FireflySettings().judge_batches),
        "one": lambda: learn(1),
        "many": lambda: learn(1 + many),
        "split": lambda: score("split"),
        "prune": lambda: score("prune"),
    }
    cpu = medians(work, repeats)
    cpu["learn"] = (cpu["many"] - cpu["one"]) / many  # without what is done once
    limits = {"learn": 3.0, "split": 2.0, "prune": 1.0} if limited else {}
    said = {"learn": "a learning step", "split": "scores of splits alone", "prune": "prunes alone"}
    more = {"candidates": sum(site.count for site in found), "step CPU ms": 1e3 * cpu["step"]}
    rows = [
        _row(f"Gauss-Newton: {words}", net, cpu[name] / cpu["step"], "steps", limits.get(name), **more)
        for name, words in said.items()
    ]
    brute = sum(site.count for site in found) * cpu["brute"] / cpu["step"]
    return [*rows, _row("brute force, splits: extrapolated", net, brute, "steps", **more)]


# -- a growth ---------------------------------------------------------------------------------------------------------


def half(module: torch.nn.Module, graph: Graph) -> Pass:
    """Every second unit of a gated network with six fresh units in each space, with their numbers."""
    gated = Gated(module, sites(graph).sites, fresh=6, key=(0,))
    return gated.chosen(range(0, len(gated.units), 2), gated.gates(0.1))


def growths(net: str, stages: Stages, side: int, repeats: int, *, limited: bool) -> list[dict[str, Any]]:
    """What a growth with values costs."""
    graph = vgg(stages, side)
    session = session_of(graph, SMALL_BATCH)
    batch = next(training_batches(session, 0))
    train(session, batch)
    step = half(session.module, graph)
    anew = iter([vgg(stages, side) for _ in range(repeats + 1)])
    state = session.optimizer_state()

    work: dict[str, Callable[[], object]] = {
        "step": lambda: train(session, batch),
        "rewrite": lambda: step.rewrite(graph),
        "anew": lambda: step.rewrite(next(anew)),
    }
    cpu = medians(work, repeats)
    times: list[float] = []
    for _ in range(repeats):
        other = session.fork()
        other.restore_optimizer(state)
        start = time.process_time()
        live.grow(other.module, step, other.optimizer, train_as_imported=True)
        times.append(time.process_time() - start)
    cpu["grow"] = statistics.median(times)
    most = 3.0 if limited else None
    more = {"passes": len(step.passes), "arrays": len(step.values), "step CPU ms": 1e3 * cpu["step"]}  # type: ignore[attr-defined]
    return [
        _row("rewrite with values, analysed", net, 1e3 * cpu["rewrite"], "CPU ms", 30.0 if limited else None, **more),
        _row("rewrite with values, not analysed", net, 1e3 * cpu["anew"], "CPU ms", **more),
        _row(f"live.grow, batch {SMALL_BATCH}", net, cpu["grow"] / cpu["step"], "steps", most, **more),
    ]


def run(repeats: int = REPEATS, *, small: bool = False) -> dict[str, Any]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows: list[dict[str, Any]] = []
        nets = [("VGG-6 x 8", VGG6, 16, False)] + ([] if small else [("VGG-19 x 16", VGG19, 32, True)])
        for net, stages, side, limited in nets:
            graph = vgg(stages, side)
            rows += growths(net, stages, side, repeats, limited=limited)
            rows += morphisms(net, graph, repeats, limited=limited)
            rows += activations(net, graph, limited=limited)
            for fresh in (6,) if small else (6, 50):
                rows += firefly(net, graph, fresh, repeats, limited=limited)
    finally:
        torch.set_num_threads(before)
    return {"rows": rows, "threads": 1, "batch": BATCH, "torch": torch.__version__}
