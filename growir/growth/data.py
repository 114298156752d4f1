"""The data that a configuration names: files, tables, functions of the user's, arrays under their keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from growir.data.arrays import read_arrays, varying
from growir.data.columns import Columns, learn, test_part
from growir.data.dataset import Dataset, dataset, parts_of, test_arrays
from growir.data.parts import Data
from growir.data.table import is_table, read_table
from growir.errors import DataError, cut
from growir.growth.config import DataConfig
from growir.growth.naming import is_named, named
from growir.network import Network


def load_data(config: DataConfig, seed: int = 0) -> Dataset | Data:
    """The data a configuration names; what is held out is drawn by the seed.

    Raises:
        DataError: It is unusable.
        RunError: There is no such function as the configuration names.
    """
    if not config.path:
        raise DataError('no data is given: a .csv or .npz file, a mapping of arrays, or "digits" is needed')
    if is_named(config.path) and not Path(config.path).exists():
        return _from_function(config, seed)
    if is_table(config.path):
        return _from_tables(config, seed)
    if config.path == "digits":
        return check_data(_digits(), config, "digits", seed)
    return check_data(read_arrays(Path(config.path)), config, config.path, seed)


def _from_function(config: DataConfig, seed: int) -> Dataset | Data:
    """What a function of the user's gives: `Data`, or arrays under their keys."""
    function = named(config.path, "[data] path")
    if not callable(function):
        raise DataError(f"[data] path: {cut(config.path)} is of {type(function).__name__}, but a function is needed")
    found: object = function()
    if isinstance(found, Data):
        return found
    if isinstance(found, Mapping):
        return check_data(cast("Mapping[str, ArrayLike]", found), config, config.path, seed)
    raise DataError(
        f"[data] path: {cut(config.path)} gives {type(found).__name__}, but growir.data.Data is needed, or arrays "
        "under x_train and y_train"
    )


def _from_tables(config: DataConfig, seed: int) -> Dataset:
    said = Columns(
        target=config.target,
        ignore=config.ignore,
        categories=config.categories,
        drop=config.missing == "drop",
        task=config.task,
    )
    learned = learn(read_table(Path(config.path), config.separator), said)
    part, share = None, config.test
    if isinstance(share, str):
        if not is_table(share):
            raise DataError(f"{share}: the test part of a table is a table too, a .csv or .tsv file")
        part, share = test_part(read_table(Path(share), config.separator), learned.meaning, said), None
    return dataset(learned.part, part, task=config.task, share=share, seed=seed, meaning=learned.meaning)


def _digits() -> dict[str, NDArray[Any]]:
    """The UCI digits that scikit-learn bundles, one fixed stratified fifth held out."""
    try:
        from sklearn import model_selection
        from sklearn.datasets import load_digits
    except ImportError:
        raise DataError("digits comes with scikit-learn: pip install 'growir[demo]'") from None
    x, y = cast("tuple[Any, Any]", load_digits(return_X_y=True))
    split = cast("Any", model_selection).train_test_split  # scikit-learn is annotated in part
    x_train, x_test, y_train, y_test = split(x, y, test_size=0.2, stratify=y, random_state=0)
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


def check_data(arrays: Mapping[str, ArrayLike], config: DataConfig, source: str, seed: int = 0) -> Dataset:
    """Arrays under the Keras keys as a dataset. Raises DataError for the first thing wrong."""
    defaults = DataConfig()
    for key in ("target", "ignore", "categories", "separator", "missing"):
        if getattr(config, key) != getattr(defaults, key):
            raise DataError(f"{source}: [data] {key} is said of columns of a table, but these are arrays; leave it out")
    train, test = parts_of(arrays, source)
    share = config.test
    if isinstance(share, str):
        if test is not None:
            raise DataError(f"{source}: x_test is a test part, but [data] test names another, {share}; leave one out")
        test, share = test_arrays(Path(share)), None
    return dataset(train, test, task=config.task, share=share, seed=seed)


def target_statistics(data: Dataset) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and std of each regression target; a constant target keeps std 1."""
    mean = data.y_train.mean(axis=0, dtype=np.float64)
    std = data.y_train.std(axis=0, dtype=np.float64)
    return mean.astype(np.float32), np.where(varying(data.y_train), std, 1.0).astype(np.float32)


def one_scale(network: Network, x: NDArray[np.float32]) -> Network:
    """A network whose node `standard` takes the mean of all these numbers and divides by their deviation."""
    scales = {"standard.mean": x.mean(dtype=np.float64), "standard.std": x.std(dtype=np.float64) or 1.0}
    known = {key: np.array([value], np.float32) for key, value in scales.items() if key in network.arrays}
    return network.with_arrays(known)


@dataclass(frozen=True, slots=True)
class Parts:
    """The training data cut into three equal parts, as indices: fit new weights, find their amplitude, select."""

    opt: torch.Tensor
    ls: torch.Tensor
    gr: torch.Tensor

    @property
    def between(self) -> torch.Tensor:
        """What is trained on between growths."""
        return torch.cat([self.opt, self.ls])


def split_parts(samples: int, seed: int) -> Parts:
    """Three equal random parts of `samples` indices."""
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(seed))
    third = samples // 3
    return Parts(order[:third], order[third : 2 * third], order[2 * third :])
