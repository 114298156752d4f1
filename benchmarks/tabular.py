"""Tables: `growir.grow` with all defaults beside what people would use instead, each tuned by a grid of its own.

Ten sets, named before this was first run: five that newcomers tried (wine, breast cancer, diabetes, Friedman's first
function, twenty thousand samples of 54 features in seven classes), and five that nobody had tried (iris, Friedman's
second and third function, ten squared normals of Hastie et al., quantiles of a normal). A seed draws generated data,
splits off a fifth to test on, and is the method's own seed. Every fit is a process of its own, so that CPU seconds
include imports, the grid and the final fit. The grids choose by three folds of the training part; growir sees the test
part only to score its end.

Scores are accuracy, or R^2 of amounts. `behind` is by how much growir is below the best of the others on the mean over
seeds, beside the standard error of that paired difference: within it, the two are level.

Finished fits are kept as lines in runs/tabular.jsonl, so that a run goes on where it was stopped.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

LINES = Path("runs") / "tabular.jsonl"
SEEDS = tuple(range(int(os.environ.get("GROWIR_SEEDS", "5"))))
SMALL = 2500  # samples; up to so many a set is small
Array = NDArray[Any]


class Table(NamedTuple):
    """A set to learn.

    Attributes:
        classes: Whether its targets are classes.
        draw: (x, y) by seed; a set that is given is the same by every seed.
    """

    classes: bool
    draw: Callable[[int], tuple[Array, Array]]


class Parts(NamedTuple):
    """Four fifths and one fifth of a set."""

    x_train: Array
    x_test: Array
    y_train: Array
    y_test: Array


def _given(name: str) -> Callable[[int], tuple[Array, Array]]:
    def draw(seed: int) -> tuple[Array, Array]:
        from sklearn import datasets

        found: tuple[Array, Array] = getattr(datasets, f"load_{name}")(return_X_y=True)
        return found

    return draw


def _made(name: str, **settings: Any) -> Callable[[int], tuple[Array, Array]]:
    def draw(seed: int) -> tuple[Array, Array]:
        from sklearn import datasets

        found: tuple[Array, Array] = getattr(datasets, f"make_{name}")(random_state=seed, **settings)
        return found

    return draw


_SEVEN = {"n_informative": 20, "n_redundant": 10, "n_classes": 7, "n_clusters_per_class": 2}
TABLES: Mapping[str, Table] = {
    "wine": Table(True, _given("wine")),
    "breast_cancer": Table(True, _given("breast_cancer")),
    "diabetes": Table(False, _given("diabetes")),
    "friedman1": Table(False, _made("friedman1", n_samples=2000, noise=1.0)),
    "seven classes": Table(True, _made("classification", n_samples=20_000, n_features=54, **_SEVEN)),
    "iris": Table(True, _given("iris")),
    "friedman2": Table(False, _made("friedman2", n_samples=2000, noise=100.0)),
    "friedman3": Table(False, _made("friedman3", n_samples=2000, noise=0.1)),
    "hastie": Table(True, _made("hastie_10_2", n_samples=4000)),
    "quantiles": Table(True, _made("gaussian_quantiles", n_samples=2000, n_features=10, n_classes=4)),
}


def parts(table: Table, seed: int) -> Parts:
    """A set drawn and split by a seed; classes in equal shares."""
    from sklearn.model_selection import train_test_split

    x, y = table.draw(seed)
    if table.classes:
        y = np.unique(y, return_inverse=True)[1]
    return Parts(*train_test_split(x, y, test_size=0.2, random_state=seed, stratify=y if table.classes else None))


# -- methods ----------------------------------------------------------------------------------------------------------


def linear(data: Parts, classes: bool, seed: int) -> float:
    """Ridge or logistic regression on standardised features."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if classes:
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        return _searched(model, {"logisticregression__C": [0.01, 0.1, 1, 10]}, data)
    return _searched(make_pipeline(StandardScaler(), Ridge()), {"ridge__alpha": [0.1, 1, 10, 100]}, data)


def mlp(data: Parts, classes: bool, seed: int) -> float:
    """scikit-learn's perceptron: one or two hidden layers, three decays."""
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    grid: dict[str, Sequence[Any]] = {"hidden_layer_sizes": [(32,), (128,), (64, 64)], "alpha": [1e-4, 1e-2, 1.0]}
    settings: dict[str, Any] = {"max_iter": 400, "early_stopping": len(data.x_train) > 10_000, "random_state": seed}
    if classes:
        model = make_pipeline(StandardScaler(), MLPClassifier(**settings))
        return _searched(model, {f"mlpclassifier__{key}": value for key, value in grid.items()}, data)
    inner = make_pipeline(StandardScaler(), MLPRegressor(**settings))
    outer = TransformedTargetRegressor(inner, transformer=StandardScaler())
    return _searched(outer, {f"regressor__mlpregressor__{key}": value for key, value in grid.items()}, data)


def boosting(data: Parts, classes: bool, seed: int) -> float:
    """Gradient boosting: rate, leaves, regularisation."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind = HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor
    grid: dict[str, Sequence[Any]] = {
        "learning_rate": [0.03, 0.1, 0.3],
        "max_leaf_nodes": [7, 31],
        "l2_regularization": [0.0, 1.0],
    }
    return _searched(kind(max_iter=200, random_state=seed), grid, data)


def forest(data: Parts, classes: bool, seed: int) -> float:
    """A random forest: features a split, samples a leaf."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    kind = RandomForestClassifier if classes else RandomForestRegressor
    grid: dict[str, Sequence[Any]] = {"max_features": ["sqrt", 0.5], "min_samples_leaf": [1, 5]}
    return _searched(kind(n_estimators=200, random_state=seed), grid, data)


def grown(data: Parts, classes: bool, seed: int) -> float:
    """growir with all its defaults."""
    import growir

    task = "classification" if classes else "regression"
    result = growir.grow(None, data._asdict(), task=task, seed=seed)
    found: Mapping[str, float] = result.summary["test_after_fit"]
    return found["accuracy"] if classes else 1 - found["mse"] / float(np.var(data.y_test))


METHODS: Mapping[str, Callable[[Parts, bool, int], float]] = {
    "growir": grown,
    "linear": linear,
    "MLP": mlp,
    "boosting": boosting,
    "forest": forest,
}


def _searched(model: Any, grid: Mapping[str, Sequence[Any]], data: Parts) -> float:
    """The test score of the model that three folds of the training part choose."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import GridSearchCV

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of one grid point; the folds judge it all the same
        search = GridSearchCV(model, dict(grid), cv=3).fit(data.x_train, data.y_train)
    return float(search.score(data.x_test, data.y_test))


# -- measuring --------------------------------------------------------------------------------------------------------


def fit(table: str, method: str, seed: int) -> dict[str, Any]:
    """One fit in a process of its own."""
    code = f"from benchmarks.tabular import fitted; fitted({table!r}, {method!r}, {seed})"
    # Everybody on one thread; growir by its own choice.
    environment = dict(os.environ) if method == "growir" else {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"{method} on {table}, seed {seed}: {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def fitted(table: str, method: str, seed: int) -> None:
    """Print one fit as a line of JSON: its test score and the CPU seconds of this whole process."""
    import time

    data = parts(TABLES[table], seed)
    score = METHODS[method](data, TABLES[table].classes, seed)
    line = {"set": table, "method": method, "seed": seed, "score": score, "samples": len(data.x_train)}
    print(json.dumps({**line, "cpu s": time.process_time()}))


def measured(lines: Path, tables: Sequence[str], methods: Sequence[str], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Every fit that is asked for, those that `lines` has read from there and the others added to it."""
    known: dict[tuple[str, str, int], dict[str, Any]] = {}
    if lines.is_file():
        for text in lines.read_text(encoding="utf-8").splitlines():
            found = json.loads(text)
            known[found["set"], found["method"], found["seed"]] = found
    wanted = [(table, method, seed) for seed in seeds for table in tables for method in methods]
    lines.parent.mkdir(parents=True, exist_ok=True)
    for key in wanted:
        if key not in known:
            known[key] = fit(*key)
            with lines.open("a", encoding="utf-8") as file:
                file.write(json.dumps(known[key]) + "\n")
    return [known[key] for key in wanted]


def rows(fits: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each set: the mean score of each method, how far growir is behind, and CPU seconds."""
    found: list[dict[str, Any]] = []
    for table in dict.fromkeys(fit["set"] for fit in fits):
        own = [fit for fit in fits if fit["set"] == table]
        names = dict.fromkeys(fit["method"] for fit in own)
        scores = {name: [fit["score"] for fit in own if fit["method"] == name] for name in names}
        seconds = {name: statistics.median(fit["cpu s"] for fit in own if fit["method"] == name) for name in names}
        best = max((name for name in names if name != "growir"), key=lambda name: statistics.fmean(scores[name]))
        gaps = [other - ours for other, ours in zip(scores[best], scores["growir"], strict=True)]
        error = statistics.stdev(gaps) / math.sqrt(len(gaps)) if len(gaps) > 1 else 0.0
        behind = statistics.fmean(gaps)
        row: dict[str, Any] = {"what": table, "samples": own[0]["samples"], "seeds": len(gaps)}
        row |= {method: statistics.fmean(values) for method, values in scores.items()}
        row |= {"best other": best, "behind": behind, "standard error": error}
        row["verdict"] = "first" if behind <= 0 else "level" if behind <= error else "behind"
        row |= {f"{method} cpu s": value for method, value in seconds.items()}
        found.append(row)
    return found


def run(
    tables: Sequence[str] = tuple(TABLES),
    methods: Sequence[str] = tuple(METHODS),
    seeds: Sequence[int] = SEEDS,
    lines: Path = LINES,
) -> dict[str, Any]:
    fits = measured(lines, tables, methods, seeds)
    found = rows(fits)
    held = sum(row["verdict"] != "behind" for row in found)
    small = max((row["growir cpu s"] for row in found if row["samples"] <= SMALL), default=0.0)
    return {"rows": found, "first or level": held, "of": len(found), "most cpu s of a small set": small, "fits": fits}
