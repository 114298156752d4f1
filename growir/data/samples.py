"""Samples that a network is asked about: read from a file, and checked against what it was trained on."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from growir.data.arrays import as_float32, plain, read_arrays, reading
from growir.data.columns import rows
from growir.data.description import Description
from growir.data.table import is_table, read_table
from growir.errors import DataError, cut
from growir.nearest import neighbours

KEYS = ("x", "x_test")


def samples(
    data: str | os.PathLike[str] | ArrayLike, description: Description, separator: str | None = None
) -> NDArray[np.float32]:
    """Samples as the network takes them, (n, ...).

    Args:
        data: A .csv or .tsv table with the columns of the training data, by name; an .npz file with x, or x_test where
            it has no x; an .npy file; or an array. Arrays are (n, ...) finite numbers.
        description: Of the data that the network was trained on.
        separator: Between the cells of a table; by default a comma, or a tab in a .tsv file.

    Raises:
        DataError: The file cannot be read or is of another kind, or its samples are not like those.
    """
    if not isinstance(data, str | os.PathLike):
        if hasattr(data, "columns"):
            raise DataError(
                "the samples have named columns, as of pandas or polars, but an array is read by place; write them to "
                "a .csv file, which is read by name, or give .to_numpy() of the columns in the order of training"
            )
        return _fitting(data, description, "the array of samples")
    path = Path(data)
    if not path.exists():
        raise DataError(f"{path}: there is no such file; give samples to ask about{neighbours(path)}")
    if is_table(path):
        return as_float32(rows(read_table(path, separator, learning=False), description), str(path))
    if separator is not None:
        raise DataError(f"{path}: a separator is said of a .csv or .tsv table, but this is neither; leave it out")
    match path.suffix.lower():
        case ".npz":
            if not zipfile.is_zipfile(path):
                raise DataError(f"{path}: this is not an .npz file; np.savez(path, x=...) writes one")
            ((key, array),) = read_arrays(path, _key).items()
            return _fitting(array, description, f"{path}: {key}")
        case ".npy":
            return _fitting(_read_array(path), description, f"{path}: the array")
        case _:
            raise DataError(
                f"{path}: samples are read from .csv, .tsv, .npz and .npy files; give one whose name ends so"
            )


def _key(found: Collection[str], source: str) -> tuple[str]:
    """Which array of a file holds the samples. Raises DataError if none does."""
    for key in KEYS:
        if key in found:
            return (key,)
    shown = ", ".join(cut(key) for key in list(found)[:8]) or "nothing"
    raise DataError(
        f"{source}: it holds {shown}, but the samples are read from x, or from x_test where there is no x; "
        "np.savez(path, x=...) writes it"
    )


def _read_array(path: Path) -> NDArray[Any]:
    """The array of an .npy file. Raises DataError."""
    with reading(path, "npy", "a plain array of numbers", "np.save"), path.open("rb") as stream:
        if stream.read(6) != b"\x93NUMPY":
            raise DataError(f"{path}: this is not an .npy file; np.save(path, x) writes one")
        stream.seek(0)
        found: NDArray[Any] = np.load(stream, allow_pickle=False)
        return found


def _fitting(given: ArrayLike, description: Description, where: str) -> NDArray[np.float32]:
    """Checked samples. Raises DataError."""
    x = plain(given, where)
    if x.shape[1:] != description.sample:
        wanted = ", ".join(["n", *map(str, description.sample)])
        raise DataError(
            f"{where} is {x.shape}, but the network takes ({wanted}){_remedy(x, description.sample, description)}"
        )
    return as_float32(x, where)


def _remedy(x: NDArray[Any], sample: tuple[int, ...], description: Description) -> str:
    """What would make an array of another shape fit, as a sentence behind another."""
    if x.shape == sample:
        return "; one sample is x[None]"
    if x.ndim > 1 and math.prod(x.shape[1:]) == description.numbers():
        return f"; x.reshape({', '.join(['-1', *map(str, sample)])}) makes it so, if the numbers stand in that order"
    if description.features is not None:
        names = ", ".join(cut(feature.name, 24) for feature in description.features[:8])
        more = ", ..." if len(description.features) > 8 else ""
        return f": it was trained on the columns {names}{more}"
    return "; give the same numbers of each sample as in training, in the same order"
