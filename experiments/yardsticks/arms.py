"""What is compared, one arm to a process: growth, nets that are fixed, nets that are searched for, and trees.

    python -m experiments.yardsticks.arms < request.json

prints one line of JSON; `experiments.yardsticks.run` asks for all of them. Everything runs on one thread, and before
the clock starts each process trains something tiny, so that imports and the first calls of torch count for nobody.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import growir
from experiments.yardsticks.nets import Design, fixed
from experiments.yardsticks.problems import PROBLEMS, Arrays, Files, Problem
from experiments.yardsticks.search import Asked, ByChance, ByOptuna, Limits, Unit, searched
from experiments.yardsticks.training import Prepared, prepared, r_squared
from growir.graph import Graph
from growir.growth.config import over
from growir.growth.observer import Observer
from growir.growth.policies.dag.settings import DagConfig
from growir.growth.progress import Progress
from growir.growth.session import Session
from growir.network import Network
from growir.params import param_table
from growir.runs.records import Event, Fitted, Trained
from growir.shapes import shapes_of

Line = dict[str, Any]
SHARES = (1 / 8, 1 / 4, 1 / 2, 1)  # of growth's operations, that the fixed net is trained for


class Request(NamedTuple):
    """One line that is wanted.

    Attributes:
        problem: Its name.
        seed: Of the data and of the method.
        arm: What is to run.
        settings: What growth is told beyond the problem's own, sections of a run file.
        network: The folder of the network that growth found.
        growth: The line of growth; None for growth itself and for trees.
        mnist: The archive, if it is given.
        cifar: The archive, if it is given.
        samples: How many training samples of MNIST are taken.
    """

    problem: str
    seed: int
    arm: str
    settings: Mapping[str, Any]
    network: str
    growth: Mapping[str, Any] | None = None
    mnist: str | None = None
    cifar: str | None = None
    samples: int | None = None

    @property
    def files(self) -> Files:
        """The data that does not come with scikit-learn."""
        mnist, cifar = (None if given is None else Path(given) for given in (self.mnist, self.cifar))
        return Files(mnist, cifar, self.samples)

    @property
    def spent(self) -> Mapping[str, Any]:
        """What growth did and took."""
        assert self.growth is not None, "growth has run before"
        return self.growth


# -- growth -----------------------------------------------------------------------------------------------------------


class Watch:
    """Tests on the side what grows, after each training, and each network that is fitted to be compared.

    What that costs is taken out of the clock.

    Attributes:
        trace: Operations, CPU seconds, score and parameters, each time.
    """

    def __init__(self, score: Callable[[Mapping[str, float]], float]) -> None:
        self.trace: list[Line] = []
        self._score = score
        self._session: Session | None = None
        self._began, self._aside = time.process_time(), 0.0
        self._known = 0.0  # what of the seconds the meter had counted at the last look

    @property
    def seconds(self) -> float:
        """CPU seconds of growth so far."""
        return time.process_time() - self._began - self._aside

    def all_seconds(self, metered: float) -> float:
        """CPU seconds of a run that is over, of which the meter has counted so many, without its test at the end."""
        return self.trace[-1]["cpu"] + metered - self._known if self.trace else self.seconds

    @property
    def observer(self) -> Observer:
        """What tells it."""
        return Observer(event=self._event, tried=self._tried, checkpoint=self._checkpoint)

    def _checkpoint(self, session: Session, progress: Progress) -> None:
        self._session = session

    def _event(self, event: Event) -> None:
        if isinstance(event, Trained) and self._session is not None:
            self._look(self._session)

    def _tried(self, session: Session, record: Fitted) -> None:
        self._look(session)

    def _look(self, session: Session) -> None:
        began, seconds = time.process_time(), self.seconds
        assert session.data.test is not None, "every problem has a test part"
        # A network that is given is measured on a copy, and is not counted.
        found = session.measure(session.data.test, network=session.network())
        # What a fork computes counts in the session that it is of.
        costs = (self._session or session).meter.costs.values()
        flops, self._known = sum(cost.flops for cost in costs), sum(cost.cpu_seconds for cost in costs)
        score, parameters = self._score(found.metrics), session.graph.costs().parameters
        self.trace.append({"flops": flops, "cpu": round(seconds, 4), "score": score, "parameters": parameters})
        self._aside += time.process_time() - began


def growth(request: Request, problem: Problem, arrays: Arrays) -> Line:
    """growir with all its defaults, or with the settings that are asked for."""
    settings = over(problem.settings, request.settings)

    def score(metrics: Mapping[str, float]) -> float:
        if problem.classes:
            return metrics["accuracy"]
        return r_squared(metrics["mse"], np.asarray(arrays["y_test"], np.float32))

    task = "classification" if problem.classes else "regression"
    _warm_growth()
    watch = Watch(score)
    result = growir.grow(None, arrays, task=task, seed=request.seed, threads=1, observer=watch.observer, **settings)
    summary = result.summary
    tested = summary["test_after_fit"]
    phases = {name: {"flops": c["flops"], "cpu": c["cpu_seconds"]} for name, c in summary["phases"].items()}
    flops = sum(cost["flops"] for cost in phases.values())
    seconds = watch.all_seconds(sum(cost["cpu"] for cost in phases.values()))
    found = score(tested)
    end = {"flops": flops, "cpu": round(seconds, 4), "score": found, "parameters": summary["parameters"]}
    result.network.save(request.network)
    return {
        "score": found,
        "loss": tested["loss"],
        "parameters": summary["parameters"],
        "macs": summary["macs"],
        "flops": flops,
        "cpu": round(seconds, 3),
        "phases": phases,
        "found": words(result.network.graph),
        "branch": summary.get("branch"),
        "ended": summary["ended"],
        "growths": summary["steps"],
        "before_fit": score(summary["test_before_fit"]),
        "trace": [*watch.trace, end],
    }


def words(graph: Graph) -> str:
    """The layers of a graph: what each computes, how wide it is, and what it reads."""
    shapes, costs = shapes_of(graph), graph.costs()
    layers = [node for node in graph.nodes if costs.nodes[node.name].macs]
    told = [f"{node.name}: {node.op.op} {shapes[node.name].dims[1]} of {', '.join(node.inputs)}" for node in layers]
    return "; ".join(told) or "nothing but a bias"


def _warm_growth() -> None:
    drawn = np.random.default_rng(0)
    x, y = drawn.normal(size=(60, 3)), drawn.normal(size=60)
    growir.grow(None, {"x_train": x, "y_train": y, "x_test": x, "y_test": y}, threads=1, budget={"steps": 1})


# -- yardsticks -------------------------------------------------------------------------------------------------------


def fixed_net(request: Request, problem: Problem, arrays: Arrays) -> Line:
    """A plain net as large as the one that grew, trained for an eighth, a quarter, half, and all of the operations."""
    data = prepared(problem, arrays)
    design = fixed(data.shape, data.outputs, request.spent["parameters"])
    _warm(data, design)
    runs: list[Line] = []
    for share in SHARES:
        epochs = data.epochs_for(share * request.spent["flops"], design.macs)
        if runs and runs[-1]["epochs"] == epochs:
            runs.append({**runs[-1], "share": share})
            continue
        began = time.process_time()
        torch.manual_seed(request.seed)
        module = design.module()
        data.fit(module, data.train, epochs, request.seed)
        seconds = time.process_time() - began
        scores = data.measured(module, data.test)._asdict()
        flops = data.flops(design.macs, epochs)
        runs.append({"share": share, **scores, "epochs": epochs, "flops": flops, "cpu": round(seconds, 4)})
    last = {key: runs[-1][key] for key in ("score", "loss", "epochs", "flops", "cpu")}
    return {**last, "parameters": design.parameters, "macs": design.macs, "found": design.words, "runs": runs}


def from_scratch(request: Request, problem: Problem, arrays: Arrays) -> Line:
    """The architecture that growth found with new weights, trained for as many operations as growth took in all."""
    plain, data = prepared(problem, arrays), prepared(problem, arrays, raw=True)
    network = new_weights(Network.load(Path(request.network)), request.seed)
    costs = network.graph.costs()
    module = network.to_torch()
    epochs = data.epochs_for(request.spent["flops"], costs.macs)
    _warm(plain, Design(plain.shape, plain.outputs, 1, 2))
    began = time.process_time()
    data.fit(module, data.train, epochs, request.seed)
    seconds = time.process_time() - began
    return {
        **data.measured(module, data.test)._asdict(),
        "parameters": costs.parameters,
        "macs": costs.macs,
        "flops": data.flops(costs.macs, epochs),
        "cpu": round(seconds, 3),
        "epochs": epochs,
    }


def new_weights(network: Network, seed: int) -> Network:
    """The same architecture as it would be initialised; what it knows of the data's scale stays."""
    fresh = Network.init(network.graph.model_copy(update={"history": None}), seed)
    standard = {node.name for node in network.graph.nodes if node.op.op == "standardise"}
    table = param_table(fresh.graph)
    kept = {key for key in table if key.rpartition(".")[0] in standard and table[key].buffer}
    return fresh.with_arrays({key: network.arrays[key] for key in kept})


def _search(make: Callable[[int, int], Asked], unit: Unit) -> Callable[[Request, Problem, Arrays], Line]:
    def arm(request: Request, problem: Problem, arrays: Arrays) -> Line:
        data = prepared(problem, arrays)
        given = problem.budget
        # What growth may have by default may change; a search may have as large a net as growth took.
        usual = DagConfig().most_parameters(len(data.train), int(np.prod(data.shape)), data.outputs, True)
        most = given.parameters or usual
        limits = Limits(max(most, request.spent["parameters"]), given.macs)
        asked = make(request.seed, data.epochs)
        _warm(data, Design(data.shape, data.outputs, 1, 2))
        limit = request.spent["flops" if unit == "FLOPs" else "cpu"]
        return searched(asked, data, limits, unit, limit, request.seed)

    return arm


def trees(request: Request, problem: Problem, arrays: Arrays) -> Line:
    """Gradient boosting and a random forest, each by a grid over three folds; the better of them there counts."""
    from sklearn import ensemble
    from sklearn.model_selection import GridSearchCV

    kind = "Classifier" if problem.classes else "Regressor"
    boosting = {"learning_rate": [0.03, 0.1, 0.3], "max_leaf_nodes": [7, 31], "l2_regularization": [0.0, 1.0]}
    forest = {"max_features": ["sqrt", 0.5], "min_samples_leaf": [1, 5]}
    searches = {
        "boosting": (f"HistGradientBoosting{kind}", {"max_iter": 200}, boosting),
        "forest": (f"RandomForest{kind}", {"n_estimators": 200}, forest),
    }
    each: dict[str, Line] = {}
    for name, (model, settings, grid) in searches.items():
        began = time.process_time()
        made = getattr(ensemble, model)(random_state=request.seed, **settings)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of classes with fewer members than folds
            search = GridSearchCV(made, grid, cv=3).fit(arrays["x_train"], np.ravel(arrays["y_train"]))
        score = float(search.score(arrays["x_test"], np.ravel(arrays["y_test"])))
        seconds = round(time.process_time() - began, 3)
        each[name] = {"score": score, "folds": float(search.best_score_), "cpu": seconds, "found": search.best_params_}
    best = max(each, key=lambda name: each[name]["folds"])
    seconds = sum(found["cpu"] for found in each.values())
    return {"score": each[best]["score"], "cpu": round(seconds, 3), "found": best, "each": each}


def _warm(data: Prepared, design: Design) -> None:
    few = data.train.part(range(min(32, len(data.train))))
    data.fit(design.module(), few, 2, 0)


ARMS: Mapping[str, Callable[[Request, Problem, Arrays], Line]] = {
    "growth": growth,
    "fixed": fixed_net,
    "scratch": from_scratch,
    "random FLOPs": _search(lambda seed, epochs: ByChance(seed), "FLOPs"),
    "random CPU": _search(lambda seed, epochs: ByChance(seed), "CPU"),
    "optuna FLOPs": _search(ByOptuna, "FLOPs"),
    "optuna CPU": _search(ByOptuna, "CPU"),
    "trees": trees,
}


def line(request: Request) -> Line:
    """What an arm comes to."""
    torch.set_num_threads(1)
    problem = PROBLEMS[request.problem]
    return ARMS[request.arm](request, problem, problem.draw(request.seed, request.files))


def main() -> None:
    """Read a request and print its line."""
    request = Request(**json.load(sys.stdin))
    print(json.dumps(line(request)))


if __name__ == "__main__":
    main()
