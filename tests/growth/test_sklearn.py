"""The estimators: scikit-learn's own checks, and what those do not know of."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.datasets import load_iris
from sklearn.exceptions import DataConversionWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import validation
from sklearn.utils.estimator_checks import parametrize_with_checks

import growir
from growir.sklearn import GrowingClassifier, GrowingRegressor

# Enough for the scores that scikit-learn's checks ask for, in a twentieth of a second a fit.
SMALL: dict[str, Any] = {
    "budget": {"steps": 1, "parameters": 200},
    "policy": {"strategy": "widen"},
    "train": {"epochs_final": 20, "epochs_between": 1},
}
Arrays = tuple[NDArray[np.float64], NDArray[Any]]


@pytest.fixture(scope="module")
def iris() -> Arrays:
    x, y = load_iris(return_X_y=True)
    return x, y


@pytest.fixture(scope="module")
def fitted(iris: Arrays) -> GrowingClassifier:
    x, y = iris
    return GrowingClassifier(**SMALL).fit(x, np.array(["one", "three", "two"])[y])


@parametrize_with_checks([GrowingClassifier(**SMALL), GrowingRegressor(**SMALL)])  # type: ignore[untyped-decorator]
def test_what_scikit_learn_checks(estimator: BaseEstimator, check: Callable[[BaseEstimator], None]) -> None:
    check(estimator)


def test_a_fit_is_a_run_of_growir(iris: Arrays) -> None:
    x, y = iris
    found = GrowingClassifier(**SMALL, random_state=3).fit(x, y)
    same = growir.grow(None, {"x_train": x, "y_train": y}, **SMALL, test=0, seed=3)
    assert found.network_.graph.nodes == same.network.graph.nodes
    for key, array in same.network.arrays.items():
        assert np.array_equal(found.network_.arrays[key], array), key
    assert found.summary_["steps"] == 1
    assert found.summary_["seed"] == 3


def test_labels_and_their_probabilities(fitted: GrowingClassifier, iris: Arrays) -> None:
    x, y = iris
    assert fitted.classes_.tolist() == ["one", "three", "two"]
    assert fitted.score(x, np.array(["one", "three", "two"])[y]) > 0.9
    probable = fitted.predict_proba(x)
    assert np.array_equal(fitted.predict(x), fitted.classes_[probable.argmax(axis=1)])
    with torch.no_grad():
        logits = fitted.network_.to_torch().eval()(torch.from_numpy(x).float())
    np.testing.assert_allclose(probable, logits.softmax(1).numpy(), atol=1e-5)
    assert fitted.score(x, fitted.predict(x)) == 1


def test_the_description(fitted: GrowingClassifier, iris: Arrays) -> None:
    assert fitted.description_.task == "classification"
    assert (fitted.description_.sample, fitted.description_.classes) == ((4,), ("one", "three", "two"))
    assert fitted.description_.features is None
    x, y = iris
    assert GrowingClassifier(**SMALL).fit(x, y.astype(float) + 1).description_.classes == (1, 2, 3)
    truth = GrowingClassifier(**SMALL).fit(x, y == 1)
    assert truth.description_.classes == (False, True)
    assert truth.predict(x).dtype == bool


def test_names_of_columns(iris: Arrays, monkeypatch: pytest.MonkeyPatch) -> None:
    # What scikit-learn finds where a table of pandas or polars is given; neither is installed for tests.
    def named(names: str) -> None:
        found = np.array(list(names), object)
        monkeypatch.setattr(validation, "_get_feature_names", lambda samples: found)

    named("abcd")
    x, y = iris
    found = GrowingClassifier(**SMALL).fit(x, y)
    assert [feature.name for feature in found.description_.features or ()] == list("abcd")
    assert found.predict(x).shape == (150,)
    named("abdc")
    with pytest.raises(ValueError, match="feature names should match"):
        found.predict(x)


def test_copies(fitted: GrowingClassifier, iris: Arrays) -> None:
    x, _ = iris
    again = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(again.predict_proba(x), fitted.predict_proba(x))
    assert not hasattr(clone(fitted), "network_")
    assert clone(fitted).get_params() == fitted.get_params()


def test_a_grid_of_budgets(iris: Arrays) -> None:
    x, y = iris
    steps = make_pipeline(StandardScaler(), GrowingClassifier(policy=SMALL["policy"], train=SMALL["train"]))
    search = GridSearchCV(steps, {"growingclassifier__budget": np.array([20, 120])}, cv=3, error_score="raise")
    search.fit(x, y)
    best = search.best_estimator_[-1]
    assert best.network_.graph.costs().parameters <= best.budget == 120
    assert search.best_score_ > 0.9


def test_several_targets(iris: Arrays) -> None:
    x, _ = iris
    both = GrowingRegressor(**SMALL).fit(x[:, :2], x[:, 2:])
    assert both.predict(x[:, :2]).shape == (150, 2)
    assert both.score(x[:, :2], x[:, 2:]) > 0.5
    with pytest.warns(DataConversionWarning):
        one = GrowingRegressor(**SMALL).fit(x[:, :2], x[:, 2:3])
    assert one.predict(x[:, :2]).shape == (150,)
    assert one.description_.outputs == 1


def test_seeds(iris: Arrays) -> None:
    x, y = iris

    def grown(seed: Any) -> NDArray[Any]:
        return GrowingClassifier(**SMALL, random_state=seed).fit(x, y).predict_proba(x)

    assert np.array_equal(grown(0), grown(np.int64(0)))
    assert not np.array_equal(grown(0), grown(1))
    assert np.array_equal(grown(np.random.RandomState(5)), grown(np.random.RandomState(5)))
    state = np.random.RandomState(5)
    assert not np.array_equal(grown(state), grown(state))
    assert not np.array_equal(grown(None), grown(None))


def test_threads(iris: Arrays, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    GrowingClassifier(**SMALL, threads=3).fit(*iris)
    assert asked[0] == 3


SAMPLES = np.arange(24.0).reshape(12, 2)
TWO = np.arange(12) % 2


@pytest.mark.parametrize(
    ("estimator", "x", "y", "message"),
    [
        (GrowingClassifier(), SAMPLES[:8], TWO[:8], "Found array with 8 sample(s) (shape=(8, 2)) while a minimum of 9"),
        (GrowingClassifier(), SAMPLES, np.ones(12), "y holds one class only, 1.0; there is nothing to tell apart"),
        (
            GrowingClassifier(),
            SAMPLES,
            np.arange(12) // 1.5,
            "GrowingClassifier: y holds 8 classes among 12 samples, too many to learn; GrowingRegressor learns amounts",
        ),
        (GrowingClassifier(), np.ones((12, 2)), TWO, "GrowingClassifier: all samples of X are the same in float32"),
        (GrowingRegressor(), SAMPLES * 1e30, TWO, "GrowingRegressor: X holds numbers as large as 2e+31; scale them"),
        (GrowingRegressor(), SAMPLES, np.ones(12), "GrowingRegressor: y: all targets are the same in float32"),
        (GrowingClassifier(budget=0), SAMPLES, TWO, "GrowingClassifier: [budget]: parameters is 0: "),
        (
            GrowingClassifier(policy="tree"),
            SAMPLES,
            TWO,
            "GrowingClassifier: [policy] name: there is no policy 'tree'; ",
        ),
        (
            GrowingClassifier(train={"epoch": 1}),
            SAMPLES,
            TWO,
            "GrowingClassifier: [train]: unknown attribute 'epoch'; ",
        ),
        (GrowingClassifier(standardise="yes"), SAMPLES, TWO, 'GrowingClassifier: [data]: standardise is "yes": '),
        (GrowingClassifier(threads=0), SAMPLES, TWO, "GrowingClassifier: threads is 0: "),
        (
            GrowingClassifier(random_state=-1),
            SAMPLES,
            TWO,
            "GrowingClassifier: random_state is -1, but must be 0 or more",
        ),
    ],
)
def test_refusals(estimator: Any, x: NDArray[Any], y: NDArray[Any], message: str) -> None:
    with pytest.raises(ValueError) as refused:
        estimator.fit(x, y)
    assert message in str(refused.value)
    assert not hasattr(estimator, "network_")


def test_samples_too_large_to_predict(fitted: GrowingClassifier) -> None:
    with pytest.raises(ValueError, match="GrowingClassifier: X holds numbers as large as 1e\\+35; scale them"):
        fitted.predict(np.full((1, 4), 1e35))


def test_an_older_scikit_learn_is_named_when_it_is_imported() -> None:
    code = "import sklearn\nfrom sklearn.utils import validation\ndel validation.validate_data\n"
    code += "sklearn.__version__ = '1.4.2'\nimport growir.sklearn"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr.splitlines()[-1] == (
        "ImportError: growir.sklearn needs scikit-learn 1.6 or later, but 1.4.2 is installed: "
        "pip install --upgrade 'growir[sklearn]'"
    )
