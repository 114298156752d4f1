"""Growth on the teacher-student problem of the paper: what it costs and what it finds, beside its authors' library.

Six growths of ten neurons, fewer where none is left that improves the third part, with 100 epochs after each, as in the
paper, then 100 epochs on all data. growir's own strategy, the tournament, has the same budget of growths and the
paper's mean of parameters, chooses its widths itself, trains 20 epochs between, 150 each branch and 500 at the end.
Inputs and targets are standardised by the training data, so every error is a part of the targets' variance. All
networks are trained by growir's own loop (AdamW), and each grown network stands beside two that were not grown, trained
on the same samples for as many epochs by the one-cycle schedule of the final fit: its architecture with new weights,
and one hidden layer with as many parameters. An epoch between growths passes over two of the three parts and counts
2/3. Those of all branches of a tournament count, and of what was taken back.

- **oracle**: the teacher's architecture, trained alike.
- **gromo**: see `benchmarks/_gromo.py`. It has the same data, parts, neurons and growths, and one training more: the
  edge that it starts with is what growir's first growth adds. growir then grows again ("as large"), with one growth
  more and at most as many parameters as GroMo reached on that seed.
- **grid search**: the paper's estimate for its Fig. 5b: 7 architectures of two states in a row with different
  shortcuts, in 5 widths, trained for 100 epochs each, and the best once more from scratch for as many as growth has.

`GROWIR_SEEDS` (6) is the number of seeds, `GROWIR_PEER=0` leaves out GroMo.
"""

from __future__ import annotations

import os
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

import growir
from benchmarks import _gromo
from benchmarks._fitting import between, final_fit, fit_module
from benchmarks.growth import Clock
from benchmarks.startup import Seconds
from growir.data.dataset import Dataset
from growir.data.memory import ArraySource
from growir.data.source import Source
from growir.errors import RunError
from growir.graph import Graph, Input, Node
from growir.growth import problem as solved
from growir.growth.config import DataConfig, RunConfig, parse_run
from growir.growth.data import check_data, split_parts
from growir.growth.objective import SquaredError
from growir.growth.observer import Observer
from growir.growth.session import Session
from growir.network import Network
from growir.ops import Add, Linear, Selu
from growir.runs.records import Event, Growth
from growir.testing.teacher import teacher, teacher_student

SEEDS = int(os.environ.get("GROWIR_SEEDS", "6"))
PEER = os.environ.get("GROWIR_PEER", "1") != "0"
STRATEGIES = ("whole", "restricted", "bic", "tournament")
PEER_STRATEGIES: tuple[_gromo.Strategy, ...] = ("whole", "restricted", "bic")
FIVE = "gromo, five amplitudes"
PATIENCE = 120.0  # seconds that a growth of GroMo may take on the first seed; beyond, it gets two seeds

Arrays = Mapping[str, NDArray[np.float32]]


class Plan(NamedTuple):
    """The sizes of an experiment.

    Attributes:
        samples: Of each of the three parts.
        test: Test samples.
        steps: Growths.
        neurons: Of each growth; 0 for growir's own choice, a third of the budget.
        between: Epochs after each growth.
        final: Epochs of the final fit.
        trial: Of a branch of a tournament.
        parameters: The most that a tournament may spend; 1454 is what the paper's growth ended with.
        widths: Of the grid search.
    """

    samples: int = 1000
    test: int = 5000
    steps: int = 6
    neurons: int = 10
    between: int = 100
    final: int = 100
    trial: int = 100
    parameters: int = 1454
    widths: tuple[int, ...] = (10, 20, 30, 40, 50)

    def epochs(self, steps: int, fits: int = 0) -> float:
        """Passes over all training data, with so many trainings after growths and fits of a tournament's branches."""
        return (steps * self.between + fits * self.trial) * 2 / 3 + self.final

    def config(self, strategy: str, seed: int, budget: Mapping[str, int]) -> RunConfig:
        """Raises RunError if there is no such strategy."""
        given: dict[str, Any] = {"name": "teacher", "seed": seed, "policy": self.policy(strategy)}
        return parse_run({**given, "train": self.training, "budget": dict(budget)}, "benchmarks.teacher")

    def policy(self, strategy: str) -> dict[str, Any]:
        found: dict[str, Any] = {"name": "dag", "strategy": strategy, "activation": "selu"}
        return found if self.neurons == 0 else found | {"neurons": self.neurons}

    def of(self, strategy: str) -> Plan:
        """The same for one strategy: growir's own trains little between few large growths, and long at the end."""
        if strategy != "tournament":
            return self
        return self._replace(
            neurons=0, between=max(1, self.between // 5), trial=3 * self.final // 2, final=5 * self.final
        )

    def budget(self, strategy: str) -> dict[str, int]:
        """Of a run that no other network is compared with."""
        found = {"steps": self.steps}
        return found | {"parameters": self.parameters} if strategy == "tournament" else found

    @property
    def training(self) -> dict[str, Any]:
        return {
            "batch_size": 128,
            "epochs_between": self.between,
            "epochs_trial": self.trial,
            "epochs_final": self.final,
        }


PAPER = Plan()


class Run(NamedTuple):
    """One network from nothing to its test error.

    Attributes:
        error: On the test data, a part of the targets' variance.
        parameters: Learned ones.
        growing: Seconds of all growth.
        training: Seconds of all training.
        epochs: Passes over the training data.
        graph: What was trained.
        steps: Seconds of each growth.
        candidates: Moves measured in all of them.
        idle: Growths whose amplitude was below 1e-3.
    """

    error: float
    parameters: int
    growing: Seconds
    training: Seconds
    epochs: float
    graph: Graph
    steps: tuple[float, ...] = ()
    candidates: int = 0
    idle: int = 0

    @property
    def seconds(self) -> Seconds:
        return total([self.growing, self.training])


@dataclass(frozen=True)
class Problem:
    """The data of one seed, standardised."""

    seed: int
    arrays: Arrays
    data: Dataset
    plan: Plan

    @classmethod
    def of(cls, seed: int, plan: Plan) -> Problem:
        raw = teacher_student(seed, plan.samples, plan.test)
        arrays: dict[str, NDArray[np.float32]] = {}
        for axis in "xy":
            mean, std = raw[f"{axis}_train"].mean(axis=0), raw[f"{axis}_train"].std(axis=0)
            arrays |= {key: (raw[key] - mean) / std for key in (f"{axis}_train", f"{axis}_test")}
        return cls(seed, arrays, check_data(arrays, DataConfig(), "teacher"), plan)

    def session(self, graph: Graph, epochs: float) -> Session:
        """A session on fresh weights; `epochs` are those of its final fit."""
        config = self.plan.config("whole", self.seed, {})
        fitting = config.train.model_copy(update={"epochs_final": max(1, round(epochs))})
        # Growth's weights are drawn from the seed itself.
        network = Network.init(graph, self.seed + 1000)
        return Session(network, solved.Problem.of_dataset(self.data), config.model_copy(update={"train": fitting}))


def total(seconds: Iterable[Seconds]) -> Seconds:
    pairs = list(seconds)
    return Seconds(sum(pair.wall for pair in pairs), sum(pair.cpu for pair in pairs))


def _given(source: Source | None) -> Source:
    assert source is not None, "the data is cut, and has a test part"
    return source


# -- one network ------------------------------------------------------------------------------------------------------


def grown(problem: Problem, strategy: str, budget: Mapping[str, int]) -> Run:
    """Grown by growir."""
    plan = problem.plan.of(strategy)
    clock = Clock()
    laps: list[tuple[Event, Seconds]] = []
    observer = Observer(event=lambda event: laps.append((event, clock.lap())))
    result = growir.grow(
        None,
        problem.arrays,
        policy=plan.policy(strategy),
        train=plan.training,
        budget=dict(budget),
        schedule={"name": "alternating", "trials": 0},  # growth ends where the paper's does
        seed=problem.seed,
        observer=observer,
    )
    growths = [(event, lap) for event, lap in laps if isinstance(event, Growth)]
    # The last look for a move, which found none, is growth too.
    growing = [lap for event, lap in laps if event.event in ("growth", "ended")]
    training = [lap for event, lap in laps if event.event not in ("growth", "ended", "started")]
    happened = Counter(event.event for event, _ in laps)
    return Run(
        result.summary["test_after_fit"]["mse"],
        result.summary["parameters"],
        total(growing),
        total(training),
        plan.epochs(happened["trained"], fits=happened["fitted"]),
        result.network.graph.model_copy(update={"history": None}),
        tuple(lap.wall for _, lap in growths),
        sum(event.candidates or 0 for event, _ in growths),
        sum((event.measured.amplitude or 0.0) < 1e-3 for event, _ in growths),
    )


def scratch(problem: Problem, graph: Graph, epochs: float) -> Run:
    """Trained from new weights on all training data."""
    session = problem.session(graph, epochs)
    clock = Clock()
    final_fit(session)
    seconds = clock.lap()
    error = session.measure(_given(session.data.test)).metrics["mse"]
    return Run(error, graph.costs().parameters, Seconds(0.0, 0.0), seconds, round(epochs), graph)


def peer_grown(problem: Problem, strategy: _gromo.Strategy, search: _gromo.Search = "line") -> Run:
    """Grown by GroMo, trained as growir trains."""
    plan, seed = problem.plan, problem.seed
    x, y = (torch.from_numpy(problem.arrays[f"{axis}_train"]) for axis in "xy")
    parts = split_parts(len(x), seed)
    torch.manual_seed(seed)
    peer = _gromo.Peer(
        [(x[part], y[part]) for part in (parts.opt, parts.ls, parts.gr)], torch.nn.MSELoss(), y.shape[1], plan.neurons
    )
    clock = Clock()
    peer_train(peer, x, y, parts.between, plan, seed)
    training, steps = [clock.lap()], list[_gromo.Grown]()
    for step in range(1, plan.steps + 1):
        steps.append(peer.grow(strategy, search))
        clock.lap()
        peer_train(peer, x, y, parts.between, plan, seed + step)
        training.append(clock.lap())
    peer_train(peer, x, y, torch.arange(len(x)), plan, seed, final=True)
    training.append(clock.lap())
    with torch.no_grad():
        found = peer.net.eval()(torch.from_numpy(problem.arrays["x_test"]))
    error = float((found - torch.from_numpy(problem.arrays["y_test"])).square().mean())
    return Run(
        error,
        sum(p.numel() for p in peer.parameters().values()),
        total(step.seconds for step in steps),
        total(training),
        plan.epochs(plan.steps + 1),
        peer.graph(),
        tuple(step.seconds.wall for step in steps),
        sum(step.candidates for step in steps),
        sum(step.amplitude < 1e-3 for step in steps),
    )


def peer_train(
    peer: _gromo.Peer,
    x: torch.Tensor,
    y: torch.Tensor,
    samples: torch.Tensor,
    plan: Plan,
    seed: int,
    final: bool = False,
) -> None:
    """Between growths at a constant rate, at the end on the one-cycle schedule, both as in growir."""
    config = plan.config("whole", seed, {}).train
    source, epochs = ArraySource(x, y).part(samples), plan.final if final else plan.between
    fit_module(peer.net, peer.parameters(), SquaredError(), source, config, epochs=epochs, seed=seed, final=final)


# -- architectures ----------------------------------------------------------------------------------------------------


def one_hidden(inputs: int, outputs: int, parameters: int) -> Graph:
    """One hidden layer, with about as many parameters."""
    width = max(1, round((parameters - outputs) / (inputs + 1 + outputs)))
    nodes = (
        Node(name="hidden", op=Linear(out_features=width), inputs=("x",)),
        Node(name="act", op=Selu(), inputs=("hidden",)),
        Node(name="out", op=Linear(out_features=outputs), inputs=("act",)),
    )
    return Graph(name="plain", inputs=(Input(name="x", shape=("N", inputs)),), nodes=nodes, outputs=("out",))


def structures(inputs: int, outputs: int, width: int) -> list[Graph]:
    """Two hidden states in a row with every choice of the three shortcuts but all of them: seven."""
    shortcuts = [("x", "second"), ("first_act", "out"), ("x", "out")]
    chosen = [some for count in range(3) for some in combinations(shortcuts, count)]
    return [_two_states(inputs, outputs, width, some) for some in chosen]


def _two_states(inputs: int, outputs: int, width: int, shortcuts: Sequence[tuple[str, str]]) -> Graph:
    nodes: list[Node] = []
    value = "x"
    for state, size in (("first", width), ("second", width), ("out", outputs)):
        sources = [value, *(source for source, target in shortcuts if target == state)]
        edges = [
            Node(name=f"{state}_{k}", op=Linear(out_features=size), inputs=(name,)) for k, name in enumerate(sources)
        ]
        nodes += edges
        value = edges[0].name
        if len(edges) > 1:
            nodes.append(Node(name=f"{state}_sum", op=Add(), inputs=tuple(edge.name for edge in edges)))
            value = nodes[-1].name
        if state != "out":
            nodes.append(Node(name=f"{state}_act", op=Selu(), inputs=(value,)))
            value = nodes[-1].name
    return Graph(name="grid", inputs=(Input(name="x", shape=("N", inputs)),), nodes=tuple(nodes), outputs=(value,))


def grid_search(problem: Problem) -> Run:
    """Every structure in every width, chosen on the third part; the best once more from scratch."""
    clock = Clock()
    losses: list[tuple[float, Graph]] = []
    for width, which in product(problem.plan.widths, range(7)):
        graph = structures(problem.data.x_train.shape[1], problem.data.outputs, width)[which]
        session = problem.session(graph, 1)
        between(session, 1)
        losses.append((float(session.measure(_given(session.data.select)).losses.mean()), graph))
    best = min(losses, key=lambda pair: pair[0])[1]
    searching = clock.lap()
    found = scratch(problem, best, problem.plan.epochs(problem.plan.steps))
    return found._replace(growing=searching, candidates=len(losses))


# -- tables -----------------------------------------------------------------------------------------------------------


def row(what: str, runs: Sequence[Run]) -> dict[str, Any]:
    """Means over the seeds; `s a growth` is the median, `of training` the seconds of growth over those of training."""

    def mean(of: Callable[[Run], float]) -> float:
        return statistics.fmean(map(of, runs))

    errors = [run.error for run in runs]
    found: dict[str, Any] = {
        "what": what,
        "value": statistics.fmean(errors),
        "std": statistics.pstdev(errors),
        "runs": len(runs),
        "parameters": round(mean(lambda run: run.parameters)),
        "epochs": mean(lambda run: run.epochs),
        "s": mean(lambda run: run.seconds.wall),
        "cpu s": mean(lambda run: run.seconds.cpu),
        "training s": mean(lambda run: run.training.wall),
    }
    steps = [seconds for run in runs for seconds in run.steps]
    if steps:
        found |= {
            "growing s": mean(lambda run: run.growing.wall),
            "growing cpu s": mean(lambda run: run.growing.cpu),
            "growths": mean(lambda run: len(run.steps)),
            "idle": mean(lambda run: run.idle),
            "moves": mean(lambda run: run.candidates),
            "s a move": per_candidate(runs),
            "s a growth": statistics.median(steps),
            "of training": over_training(runs),
        }
    return found


def per_candidate(runs: Sequence[Run]) -> float:
    return sum(sum(run.steps) for run in runs) / sum(run.candidates for run in runs)


def over_training(runs: Sequence[Run]) -> float:
    return total(run.growing for run in runs).wall / total(run.training for run in runs).wall


class Runs(dict[str, list[Run]]):
    """Runs by what was run, in the order of the table."""

    def add(self, what: str, run: Run) -> Run:
        self.setdefault(what, []).append(run)
        return run

    def add_grown(self, what: str, problem: Problem, run: Run) -> Run:
        """A grown network and the two that were not grown."""
        self.add(what, run)
        self.add(f"- {what}: same, new weights", scratch(problem, run.graph, run.epochs))
        plain = one_hidden(problem.data.x_train.shape[1], problem.data.outputs, run.parameters)
        self.add(f"- {what}: one hidden layer", scratch(problem, plain, run.epochs))
        return run


def known(plan: Plan, strategy: str) -> bool:
    try:
        plan.config(strategy, 0, {})
    except RunError:
        return False
    return True


def compare(plan: Plan, seeds: int, peer: bool) -> list[dict[str, Any]]:
    """All rows."""
    # What a process does once, such as the imports of the lowering, is no part of anyone's growth.
    tiny = Plan(samples=30, test=30, steps=2, neurons=2, between=1, final=1)
    grown(Problem.of(0, tiny), "whole", {"steps": 2})
    runs = Runs()
    strategies = [name for name in STRATEGIES if known(plan, name)]
    for seed in range(seeds):  # in turn, so that what else the machine does falls on all
        problem = Problem.of(seed, plan)
        runs.add("oracle", scratch(problem, teacher(), plan.epochs(plan.steps)))
        for strategy in strategies:
            run = grown(problem, strategy, plan.budget(strategy))
            runs.add_grown(f"growir, {strategy}", problem, run)
        if peer:
            peers(problem, runs, strategies)
    runs.add("grid search", grid_search(Problem.of(0, plan)))
    rows = [row(what, found) for what, found in runs.items()]
    for what in rows:
        if peer and what["runs"] < seeds and what["what"] != "grid search":
            what["note"] = f"more than {PATIENCE:.0f} s of growth a seed: fewer seeds"
    rows += [{"what": f"growir, {name}", "note": "no such strategy"} for name in STRATEGIES if name not in strategies]
    return [*rows, *grid_rows(runs, strategies), *claims(runs, strategies)]


def peers(problem: Problem, runs: Runs, strategies: Sequence[str]) -> None:
    """GroMo's growth on one seed, and growir's with as many parameters."""
    for strategy in PEER_STRATEGIES:
        name = f"gromo, {strategy}"
        if enough(runs, name):
            continue
        run = runs.add_grown(name, problem, peer_grown(problem, strategy))
        budget = {"steps": problem.plan.steps + 1, "parameters": run.parameters}
        if strategy in strategies:
            runs.add(f"- {name}: growir, as large", grown(problem, strategy, budget))
    if not enough(runs, FIVE):
        runs.add(FIVE, peer_grown(problem, "whole", "five"))


def enough(runs: Runs, name: str) -> bool:
    """Whether something so dear has had its two seeds."""
    found = runs.get(name, [])
    return len(found) >= 2 and found[0].growing.wall > PATIENCE


def grid_rows(runs: Runs, strategies: Sequence[str]) -> list[dict[str, Any]]:
    """What growth costs in all, as a part of what the grid search does."""
    grid = runs["grid search"][0].seconds
    found: list[dict[str, Any]] = []
    for strategy in strategies:
        spent = [run.seconds for run in runs[f"growir, {strategy}"]]
        part = statistics.fmean(seconds.wall for seconds in spent) / grid.wall
        found.append({"what": f"{strategy}, seconds / grid search's", "value": part})
    return found


def claims(runs: Runs, strategies: Sequence[str]) -> list[dict[str, Any]]:
    """What growth must not exceed; `error ratio` says what that costs, as growing nothing is the cheapest."""

    def ratio(a: str, b: str, of: Callable[[Run], float]) -> float:
        return statistics.fmean(map(of, runs[a])) / statistics.fmean(map(of, runs[b]))

    def step(name: str) -> float:
        return statistics.median(seconds for run in runs[name] for seconds in run.steps)

    found = [{"what": "whole, seconds a move", "value": per_candidate(runs["growir, whole"]), "limit": 0.05}]
    for strategy in strategies:
        value = over_training(runs[f"growir, {strategy}"])
        found.append({"what": f"{strategy}, growing / training", "value": value, "limit": 2.0})
    if "restricted" in strategies:
        value = ratio("growir, restricted", "growir, whole", lambda run: run.growing.wall)
        error = ratio("growir, restricted", "growir, whole", lambda run: run.error)
        found.append({"what": "restricted / whole, growing", "value": value, "limit": 0.77, "error ratio": error})
    if "bic" in strategies:
        value = ratio("growir, bic", "growir, whole", lambda run: run.parameters)
        error = ratio("growir, bic", "growir, whole", lambda run: run.error)
        found.append({"what": "bic / whole, parameters", "value": value, "limit": 0.5, "error ratio": error})
    for name in ("gromo, whole", FIVE):
        if name in runs:
            candidates = per_candidate(runs["growir, whole"]) / per_candidate(runs[name])
            value = step("growir, whole") / step(name)
            found.append({"what": f"growir / {name}, growth", "value": value, "a move": candidates, "limit": 0.05})
    return found


def run(plan: Plan = PAPER, seeds: int = SEEDS, peer: bool = PEER) -> dict[str, Any]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a second one waits for whatever else the machine does
    try:
        rows = compare(plan, seeds, peer and _gromo.installed())
    finally:
        torch.set_num_threads(threads)
    if peer and not _gromo.installed():
        rows.append({"what": "gromo", "note": "left out: pip install -c constraints.txt -e '.[bench]'"})
    return {"rows": rows, "torch": torch.__version__, "threads": 1, "plan": plan._asdict()}
