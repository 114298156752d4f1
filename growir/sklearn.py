"""Estimators for scikit-learn: `growir.grow` behind fit and predict, for pipelines, searches and cross-validation.

    from growir.sklearn import GrowingClassifier
    GrowingClassifier(budget=500).fit(X, y).predict(X)

The module imports scikit-learn, so `import growir` does not import it: pip install 'growir[sklearn]'.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Self, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

if find_spec("sklearn") is None:  # said once, and before the imports that would say less
    raise ModuleNotFoundError(
        "growir.sklearn needs scikit-learn, which is not installed: pip install 'growir[sklearn]'", name="sklearn"
    )

import sklearn
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import multiclass, validation

from growir.data.arrays import as_float32
from growir.data.dataset import MIN_SAMPLES, Part, dataset
from growir.data.description import Description, Feature, Task
from growir.errors import DataError, GrowirError, RunError
from growir.growth.config import RunConfig, parse_run
from growir.growth.predicting import outputs_of, probabilities
from growir.growth.problem import Problem
from growir.growth.running import start_run
from growir.network import Network

if not hasattr(validation, "validate_data"):
    raise ImportError(
        f"growir.sklearn needs scikit-learn 1.6 or later, but {sklearn.__version__} is installed: "
        "pip install --upgrade 'growir[sklearn]'",
        name="sklearn",
    )
# scikit-learn is annotated in part.
_checking, _targets = cast("Any", validation), cast("Any", multiclass)

__all__ = ["GrowingClassifier", "GrowingRegressor"]


class _Growing(BaseEstimator):
    """What the two estimators have in common."""

    network_: Network
    summary_: dict[str, Any]
    description_: Description
    n_features_in_: int

    def __init__(
        self,
        budget: int | np.integer[Any] | Mapping[str, Any] | None = None,
        policy: str | Mapping[str, Any] = "dag",
        train: Mapping[str, Any] | None = None,
        standardise: str | None = None,
        random_state: int | np.random.RandomState | None = 0,
        threads: int | None = None,
    ) -> None:
        self.budget = budget
        self.policy = policy
        self.train = train
        self.standardise = standardise
        self.random_state = random_state
        self.threads = threads

    def _config(self) -> RunConfig:
        """The settings as a run file has them. Raises RunError with every wrong one."""
        seed = self.random_state
        if not isinstance(seed, int | np.integer):
            seed = _checking.check_random_state(seed).randint(2**31)
        if seed < 0:
            raise RunError(f"{type(self).__name__}: random_state is {seed}, but must be 0 or more")
        # numpy makes grids of its own integers, which are none to a run file.
        most = int(self.budget) if isinstance(self.budget, np.integer) else self.budget
        given: dict[str, Any] = {
            "seed": int(seed),
            "data": {} if self.standardise is None else {"standardise": self.standardise},
            "policy": {"name": self.policy} if isinstance(self.policy, str) else _section(self.policy),
            "train": _section(self.train),
            "budget": _section(most) if isinstance(most, Mapping | None) else {"parameters": most},
        }
        if self.threads is not None:
            given["threads"] = self.threads
        return parse_run(given, type(self).__name__)

    def _grow(self, X: NDArray[Any], y: NDArray[Any], task: Task, labels: NDArray[Any] | None) -> Self:
        """Grow a network on checked arrays. Raises ValueError, as scikit-learn's estimators do, whatever is wrong."""
        name = type(self).__name__
        try:
            config = self._config()
            data = dataset(Part(X, y, name, "X", "y"), None, task=task, share=0.0, seed=config.seed)
            result = start_run(config, Problem.of_dataset(data))
        except GrowirError as error:
            raise ValueError(str(error)) from error
        columns = cast("NDArray[Any] | None", getattr(self, "feature_names_in_", None))
        self.network_ = result.network
        self.summary_ = result.summary
        self.description_ = Description(
            task=task,
            sample=data.description.sample,
            outputs=data.outputs,
            classes=None if labels is None else _plain(labels),
            features=None if columns is None else tuple(Feature(name=str(column)) for column in columns),
        )
        return self

    def _outputs(self, X: ArrayLike) -> NDArray[np.float64]:
        """The network's outputs, (samples, outputs). Raises ValueError or NotFittedError."""
        _checking.check_is_fitted(self, "network_")
        checked = _checking.validate_data(self, X, reset=False)
        try:
            return outputs_of(self.network_, as_float32(checked, f"{type(self).__name__}: X"))
        except DataError as error:
            raise ValueError(str(error)) from error


class GrowingClassifier(ClassifierMixin, _Growing):
    """A classifier whose network grows from nothing to the size that the data and the budget allow.

    Args:
        budget: The most parameters that the network may have, or settings as in a run file's [budget]. By default it
            follows from the data: two parameters a sample, at most 50 000, but enough for eight hidden neurons.
        policy: A policy's name, or its settings as in a run file's [policy].
        train: Settings as in a run file's [train].
        standardise: As in a run file's [data]; by default each column is centred and scaled inside the network.
        random_state: The seed of everything random; it is drawn where this is None or a RandomState.
        threads: torch's threads; by default one where the network is small.

    Attributes:
        classes_: (classes,) the labels, sorted.
        network_: The network: its outputs are logits in the order of `classes_`, its input is `X` as it came.
        summary_: What summary.json of a run directory holds.
        description_: What data.json of a run directory holds.
        n_features_in_: The columns of `X`.
        feature_names_in_: Their names, where `X` was a table whose columns have names.
    """

    classes_: NDArray[Any]

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Grow a network.

        Args:
            X: (samples, columns) finite numbers, at least nine samples.
            y: (samples,) labels of at least two classes.

        Raises:
            ValueError: Samples, labels or settings are unusable.
        """
        checked, given = _checking.validate_data(self, X, y, multi_output=True, ensure_min_samples=MIN_SAMPLES)
        given = _checking.column_or_1d(given, warn=True)
        _targets.check_classification_targets(given)
        labels, codes = np.unique(given, return_inverse=True)
        if len(labels) < 2:
            raise ValueError(
                f"{type(self).__name__}: y holds one class only, {labels[0]}; there is nothing to tell apart"
            )
        if len(labels) > len(given) // 2:
            raise ValueError(
                f"{type(self).__name__}: y holds {len(labels)} classes among {len(given)} samples, too many to learn; "
                "GrowingRegressor learns amounts"
            )
        self._grow(checked, codes.reshape(-1), "classification", labels)
        self.classes_ = labels
        return self

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The most probable label of each sample.

        Args:
            X: (samples, columns) finite numbers.

        Raises:
            ValueError: Samples are unusable, or of other columns.
            NotFittedError: `fit` was not called.
        """
        outputs = self._outputs(X)
        found: NDArray[Any] = self.classes_[outputs.argmax(axis=1)]
        return found

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """How probable each label is: (samples, classes), in the order of `classes_`; rows sum to 1.

        Args:
            X: (samples, columns) finite numbers.

        Raises:
            ValueError: Samples are unusable, or of other columns.
            NotFittedError: `fit` was not called.
        """
        return probabilities(self._outputs(X))


class GrowingRegressor(RegressorMixin, _Growing):
    """A regressor whose network grows from nothing to the size that the data and the budget allow.

    Args:
        budget: The most parameters that the network may have, or settings as in a run file's [budget]. By default it
            follows from the data: two parameters a sample, at most 50 000, but enough for eight hidden neurons.
        policy: A policy's name, or its settings as in a run file's [policy].
        train: Settings as in a run file's [train].
        standardise: As in a run file's [data]; by default each column is centred and scaled inside the network.
        random_state: The seed of everything random; it is drawn where this is None or a RandomState.
        threads: torch's threads; by default one where the network is small.

    Attributes:
        network_: The network: it takes `X` and gives `y`, each in its own units.
        summary_: What summary.json of a run directory holds.
        description_: What data.json of a run directory holds.
        n_features_in_: The columns of `X`.
        feature_names_in_: Their names, where `X` was a table whose columns have names.
    """

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Grow a network.

        Args:
            X: (samples, columns) finite numbers, at least nine samples.
            y: (samples,) or (samples, outputs) finite numbers, not all the same.

        Raises:
            ValueError: Samples, targets or settings are unusable.
        """
        checked, targets = _checking.validate_data(
            self, X, y, multi_output=True, y_numeric=True, ensure_min_samples=MIN_SAMPLES
        )
        if targets.ndim == 2 and targets.shape[1] == 1:
            targets = _checking.column_or_1d(targets, warn=True)
        self._grow(checked, targets, "regression", None)
        return self

    def predict(self, X: ArrayLike) -> NDArray[np.float64]:
        """The targets of each sample: (samples,), or (samples, outputs) if `y` had several.

        Args:
            X: (samples, columns) finite numbers.

        Raises:
            ValueError: Samples are unusable, or of other columns.
            NotFittedError: `fit` was not called.
        """
        found = self._outputs(X)
        return found[:, 0] if found.shape[1] == 1 else found

    def __sklearn_tags__(self) -> Any:
        tags = cast("Any", super().__sklearn_tags__())
        tags.target_tags.multi_output = True
        return tags


def _section(given: object) -> object:
    """Settings as a section of a run file, which says itself what else is wrong with them."""
    if given is None:
        return {}
    return dict(cast("Mapping[str, Any]", given)) if isinstance(given, Mapping) else given


def _plain(labels: NDArray[Any]) -> tuple[bool | int | str, ...]:
    """Labels as data.json holds them: truth values, whole numbers, whole numbers that are floats, or words."""
    found: list[object] = labels.tolist()
    return tuple(int(x) if isinstance(x, float) else x if isinstance(x, bool | int) else str(x) for x in found)
