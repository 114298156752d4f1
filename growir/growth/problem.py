"""What a run is to solve: data, what is minimised, and, where the data was described, what its numbers mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from growir.data.dataset import Dataset
from growir.data.parts import Data
from growir.data.source import Batch
from growir.errors import RunError
from growir.growth.data import target_statistics
from growir.growth.objective import CrossEntropy, Objective, SquaredError, as_objective


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """What a run is to solve.

    Attributes:
        data: What is trained on, what selects and what is tested on; not yet cut.
        objective: What is minimised.
        dataset: The arrays and their description, where the data came as a file or as arrays with keys.
    """

    data: Data
    objective: Objective
    dataset: Dataset | None = None

    @classmethod
    def of_loaded(cls, found: Dataset | Data, objective: Any = None) -> Problem:
        """The problem of what a file, or a function that a run file names, gave."""
        return cls.of_data(found, objective) if isinstance(found, Data) else cls.of_dataset(found, objective)

    @classmethod
    def of_dataset(cls, dataset: Dataset, objective: Any = None) -> Problem:
        """The problem that a data set with a description sets; by default cross-entropy of classes, else mse."""
        test = (dataset.x_test, dataset.y_test) if len(dataset.x_test) else None
        data = Data.from_arrays(dataset.x_train, dataset.y_train, test=test)
        scale = None
        if dataset.task == "regression":
            scale = torch.from_numpy(target_statistics(dataset)[1])
        if objective is None:
            return cls(data, SquaredError(scale) if dataset.task == "regression" else CrossEntropy(), dataset)
        return cls(data, as_objective(objective, scale), dataset)

    @classmethod
    def of_data(cls, data: Data, objective: Any = None) -> Problem:
        """The problem of sources; by default cross-entropy where targets are whole numbers, else mse.

        Raises:
            DataError: There is no sample.
            RunError: The objective is none.
        """
        if objective is None:
            target = next(iter(data.train.batches(1, None))).target
            if not isinstance(target, torch.Tensor):
                raise RunError(
                    f"the targets are of {type(target).__name__}, for which there is no usual objective; give one: "
                    "objective=lambda outputs, target: (n,) losses"
                )
            objective = "mse" if target.is_floating_point() else "cross_entropy"
        return cls(data, as_objective(objective))

    @property
    def samples(self) -> int:
        """Training samples, those that select among them."""
        return len(self.data.train) + (0 if self.data.select is None else len(self.data.select))

    @property
    def task(self) -> str:
        """What a run says of its targets."""
        if self.dataset is not None:
            return self.dataset.task
        if isinstance(self.objective, CrossEntropy):
            return "classification"
        return "regression" if isinstance(self.objective, SquaredError) else "custom"


def first_shape(batch: Batch) -> Sequence[int]:
    """The shape of one sample of a batch's first input."""
    inputs = batch.inputs
    first = next(iter(inputs.values())) if not isinstance(inputs, tuple) else inputs[0]
    return tuple(first.shape[1:])


def as_numpy(values: torch.Tensor) -> np.ndarray[Any, Any]:
    """A tensor's numbers on the CPU."""
    found: np.ndarray[Any, Any] = values.detach().cpu().numpy()
    return found
