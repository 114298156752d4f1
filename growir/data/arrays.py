"""Arrays as they come, from a file or from Python, and the checks that each passes before anything is learned."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from growir.errors import DataError, cut

# Between them float32 neither overflows nor loses its digits when data is centred and scaled.
SMALLEST, LARGEST = 1e-30, 1e30
TRAIN, TEST = ("x_train", "y_train"), ("x_test", "y_test")


def read_arrays(
    path: Path, choose: Callable[[Collection[str], str], Sequence[str]] | None = None
) -> dict[str, NDArray[Any]]:
    """Arrays of an .npz file.

    Args:
        path: The file.
        choose: Which of the names in it to read, given these and what a message begins with; by default those to train
            on, and those to test on if there are any.

    Raises:
        DataError: The file cannot be read, is none, is damaged, or lacks an array.
    """
    spared = "plain arrays, words with np.array([...], dtype=str)"
    with reading(path, "npz", spared, "np.savez"), path.open("rb") as stream:
        if not zipfile.is_zipfile(stream):
            raise DataError(
                f"{path}: this is not an .npz file; np.savez(path, x_train=..., y_train=...) writes one, with "
                "x_test=..., y_test=... if it has a test part of its own"
            )
        stream.seek(0)
        with np.load(stream, allow_pickle=False) as file:
            keys = (choose or needed)(file.files, str(path))
            return {key: file[key] for key in keys}


@contextmanager
def reading(path: Path, kind: str, plain: str, writer: str) -> Generator[None]:
    """Whatever goes wrong while numpy reads a file, as a DataError.

    Args:
        path: The file.
        kind: How its name ends.
        plain: What to save in place of Python objects.
        writer: What writes such a file.
    """
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    except DataError:
        raise
    except Exception as error:  # whatever zipfile, zlib and numpy make of a damaged file, MemoryError too
        if "allow_pickle" in str(error):
            raise DataError(
                f"{path}: it holds Python objects, which are pickles and are refused; save {plain}"
            ) from None
        raise DataError(f"{path}: this .{kind} file is damaged: {cut(error)}; write it anew with {writer}") from None


def needed(found: Collection[str], source: str, wanted: Sequence[str] = ()) -> Sequence[str]:
    """Which keys to read: those wanted, else those to train on, and of the test part both or none.

    Raises:
        DataError: One is missing.
    """
    keys = wanted or (TRAIN + TEST if any(key in found for key in TEST) else TRAIN)
    missing = [key for key in keys if key not in found]
    if missing:
        shown = ", ".join(cut(key) for key in list(found)[:8]) or "nothing"
        needs = f"{' and '.join(wanted or TRAIN)} are needed"
        if not wanted:
            needs += f", and {' and '.join(TEST)} where it has a test part of its own"
        raise DataError(f"{source}: {', '.join(missing)} missing; it holds {shown}, but {needs}")
    return keys


def plain(given: ArrayLike, where: str, *, words: bool = False) -> NDArray[Any]:
    """An array of at least one sample, of finite real numbers; of words too where they may be.

    Raises:
        DataError: It is something else.
    """
    try:
        array = np.asarray(given)
    except (ValueError, TypeError, RuntimeError) as error:
        raise DataError(f"{where} is no array of numbers: {cut(error)}") from None
    if array.dtype.kind == "O":
        array = _settled(array, where)
    if array.dtype.kind == "U" and words:
        pass
    elif array.dtype.kind not in "biuf":
        raise DataError(f"{where} is of {array.dtype}, but real numbers {'or words ' if words else ''}are needed")
    if array.ndim == 0 or not len(array):
        raise DataError(f"{where} holds no samples; its shape is {array.shape}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int(array.size - np.isfinite(array).sum())
        raise DataError(f"{where}: {bad} of its {array.size} numbers are NaN or infinite; leave those samples out")
    return array


def _settled(array: NDArray[Any], where: str) -> NDArray[Any]:
    """An array of Python objects, as pandas gives them, as one of words or numbers, if they are of one kind."""
    kinds = sorted({type(entry).__name__ for entry in array.flat})
    if len(kinds) == 1 and kinds[0] in ("str", "bool", "int", "float"):
        try:
            return array.astype({"str": str, "bool": bool, "int": np.int64, "float": np.float64}[kinds[0]])
        except OverflowError:
            raise DataError(f"{where} holds whole numbers beyond 64 bits") from None
    shown = ", ".join(kinds[:4]) or "nothing"
    raise DataError(f"{where} holds Python objects of {shown}; all must be numbers, or all words where those may be")


def as_float32(array: NDArray[Any], where: str) -> NDArray[np.float32]:
    """Numbers as float32. Raises DataError where they are too large for it."""
    largest = max(float(array.max()), -float(array.min()))
    if largest > LARGEST:
        raise DataError(f"{where} holds numbers as large as {largest:.0e}; scale them to below {LARGEST:.0e}")
    return np.ascontiguousarray(array, dtype=np.float32)


def varying(array: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which columns, of all axes but the first, are not constant."""
    flat = array.reshape(len(array), -1)
    spread: NDArray[np.bool_] = flat.max(axis=0) - flat.min(axis=0) > SMALLEST
    return spread


def is_one_hot(y: NDArray[Any]) -> bool:
    """Whether each row is 1 in one place and 0 elsewhere."""
    if y.ndim != 2 or y.shape[1] < 2 or y.dtype.kind == "U":
        return False
    return bool((((y == 0) | (y == 1)).all()) and ((y != 0).sum(axis=1) == 1).all())
