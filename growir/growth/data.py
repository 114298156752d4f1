"""Data for a growth run: loading, checking, splitting, and what is learned from it before any weight."""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from growir.errors import DataError, cut
from growir.graph import Graph, Input, Node
from growir.growth.config import DataConfig
from growir.network import Network
from growir.ops import Bias, Flatten, Op, Permute, Select, Standardise, Unsqueeze

KEYS = ("x_train", "y_train", "x_test", "y_test")
MIN_SAMPLES = 9  # three parts of three
# Between them float32 neither overflows nor loses its digits when data is centred and scaled.
SMALLEST, LARGEST = 1e-30, 1e30
CHANNELS = (1, 3, 4)  # of images, which tells (C, H, W) from (H, W, C)


@dataclass(frozen=True, slots=True)
class Dataset:
    """Checked training and test data in memory.

    Attributes:
        x_train: (n, ...) float32.
        y_train: (n,) int64 classes, or (n, outputs) float32.
        x_test: (m, ...) float32.
        y_test: Like y_train.
        task: What the targets are.
        outputs: Classes, or numbers to predict.
    """

    x_train: NDArray[np.float32]
    y_train: NDArray[Any]
    x_test: NDArray[np.float32]
    y_test: NDArray[Any]
    task: Literal["classification", "regression"]
    outputs: int


def load_data(config: DataConfig) -> Dataset:
    """The data a configuration names. Raises DataError saying what is wrong with it."""
    if config.path == "digits":
        return check_data(_digits(), config, "digits")
    if not config.path:
        raise DataError('no data is given: an .npz file, a mapping of arrays, or "digits" is needed')
    return check_data(_read(Path(config.path)), config, config.path)


def _read(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz file that are needed."""
    try:
        with path.open("rb") as stream:
            if not zipfile.is_zipfile(stream):
                keys = ", ".join(f"{key}=..." for key in KEYS)
                raise DataError(f"{path}: this is not an .npz file; np.savez(path, {keys}) writes one")
            stream.seek(0)
            with np.load(stream, allow_pickle=False) as file:
                _refuse_missing(file.files, str(path))
                return {key: file[key] for key in KEYS}
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    except DataError:
        raise
    except Exception as error:  # whatever zipfile, zlib and numpy make of a damaged file
        if "allow_pickle" in str(error):
            raise DataError(
                f"{path}: it holds Python objects, which are pickles and are refused; save plain numeric arrays"
            ) from None
        raise DataError(f"{path}: this .npz file is damaged: {cut(error)}; write it anew with np.savez") from None


def _refuse_missing(found: Collection[str], source: str) -> None:
    missing = [key for key in KEYS if key not in found]
    if missing:
        shown = ", ".join(cut(key) for key in list(found)[:8]) or "nothing"
        raise DataError(f"{source}: {', '.join(missing)} missing; it holds {shown}, but {', '.join(KEYS)} are needed")


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


def check_data(arrays: Mapping[str, ArrayLike], config: DataConfig, source: str) -> Dataset:
    """Arrays under the Keras keys as a dataset. Raises DataError for the first thing wrong."""
    _refuse_missing(arrays, source)
    raw = {key: _plain(arrays[key], f"{source}: {key}") for key in KEYS}
    for part in ("train", "test"):
        x, y = raw[f"x_{part}"], raw[f"y_{part}"]
        if len(x) != len(y):
            raise DataError(f"{source}: x_{part} holds {len(x)} samples, but y_{part} {len(y)}")
        if x.ndim < 2 or 0 in x.shape:
            raise DataError(
                f"{source}: x_{part} must be (samples, ...) with at least one number each, but is {x.shape}"
            )
        if y.ndim > 2 or 0 in y.shape:
            raise DataError(f"{source}: y_{part} must be (samples,) or (samples, outputs), but is {y.shape}")
    if raw["x_train"].shape[1:] != raw["x_test"].shape[1:]:
        shapes = f"{raw['x_train'].shape[1:]} in x_train and {raw['x_test'].shape[1:]} in x_test"
        raise DataError(f"{source}: samples must have one shape, but it is {shapes}")
    if len(raw["x_train"]) < MIN_SAMPLES:
        raise DataError(f"{source}: x_train holds {len(raw['x_train'])} samples; at least {MIN_SAMPLES} are needed")
    x_train, x_test = _floats(raw["x_train"], "x_train", source), _floats(raw["x_test"], "x_test", source)
    if not varying(x_train).any():
        raise DataError(f"{source}: all samples of x_train are the same in float32; there is nothing to learn from")
    y_train, y_test = raw["y_train"], raw["y_test"]
    task = config.task
    if task == "auto":
        whole = y_train.dtype.kind in "biu" and y_train.size == len(y_train)
        task = "classification" if whole or _is_one_hot(y_train) else "regression"
    if task == "classification":
        y_train, y_test, outputs = _classes(y_train, y_test, source)
    else:
        y_train, y_test, outputs = _targets(y_train, y_test, source)
    return Dataset(x_train, y_train, x_test, y_test, task, outputs)


def _plain(given: ArrayLike, where: str) -> NDArray[Any]:
    """An array of at least one sample, of finite numbers."""
    try:
        array = np.asarray(given)
    except (ValueError, TypeError, RuntimeError) as error:
        raise DataError(f"{where} is no array of numbers: {cut(error)}") from None
    if array.dtype.kind not in "biuf":
        raise DataError(f"{where} is of {array.dtype}, but real numbers are needed")
    if array.ndim == 0 or not len(array):
        raise DataError(f"{where} holds no samples; its shape is {array.shape}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int(array.size - np.isfinite(array).sum())
        raise DataError(f"{where}: {bad} of its {array.size} numbers are NaN or infinite; leave those samples out")
    return array


def _floats(array: NDArray[Any], key: str, source: str) -> NDArray[np.float32]:
    largest = max(float(array.max()), -float(array.min()))
    if largest > LARGEST:
        raise DataError(f"{source}: {key} holds numbers as large as {largest:.0e}; scale them to below {LARGEST:.0e}")
    return np.ascontiguousarray(array, dtype=np.float32)


def varying(array: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which columns, of all axes but the first, are not constant."""
    flat = array.reshape(len(array), -1)
    spread: NDArray[np.bool_] = flat.max(axis=0) - flat.min(axis=0) > SMALLEST
    return spread


def kept(array: NDArray[np.float32], share: float) -> NDArray[np.intp]:
    """The columns, of all axes but the first, that vary most and together hold this share of the variance.

    Of 1, all that vary.
    """
    varies = np.flatnonzero(varying(array))
    if share == 1:
        return varies
    variance = array.reshape(len(array), -1)[:, varies].var(axis=0, dtype=np.float64)
    order = np.argsort(-variance, kind="stable")
    held = np.cumsum(variance[order]) / variance.sum()
    count = int(np.searchsorted(held, share)) + 1
    return np.sort(varies[order[:count]])


def _is_one_hot(y: NDArray[Any]) -> bool:
    return y.ndim == 2 and y.shape[1] > 1 and bool((((y == 0) | (y == 1)).all()) and ((y != 0).sum(axis=1) == 1).all())


def _classes(
    y_train: NDArray[Any], y_test: NDArray[Any], source: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    found: list[NDArray[Any]] = []
    for key, y in (("y_train", y_train), ("y_test", y_test)):
        if _is_one_hot(y):
            if _is_one_hot(y_train) and y.shape[1:] != y_train.shape[1:]:
                shapes = f"{y_train.shape} and {y.shape}"
                raise DataError(f"{source}: y_train and y_test must have the same classes, but are {shapes}")
            found.append(y.argmax(axis=1))
            continue
        if y.size != len(y):
            raise DataError(f"{source}: {key} must hold one class per sample, or one-hot rows, but is {y.shape}")
        if (y != np.floor(y)).any():
            raise DataError(f'{source}: {key} holds fractions; classes are whole numbers (task = "regression"?)')
        found.append(y.reshape(-1))
    train, test = found
    labels = np.unique(train)
    count = y_train.shape[1] if _is_one_hot(y_train) else len(labels)
    if len(labels) < 2:
        raise DataError(f"{source}: y_train holds one class only, {labels.tolist()[0]}; there is nothing to tell apart")
    if not np.array_equal(labels, np.arange(count)):
        shown = ", ".join(str(label) for label in labels[:8].tolist()) + (", ..." if len(labels) > 8 else "")
        raise DataError(
            f"{source}: classes must be numbered 0 to {count - 1}, but y_train holds {shown}; "
            'renumber them, or say task = "regression" if they are amounts'
        )
    strange = np.setdiff1d(test, labels)
    if len(strange):
        raise DataError(f"{source}: y_test holds class {strange.tolist()[0]}, which y_train does not")
    return train.astype(np.int64), test.astype(np.int64), count


def _targets(
    y_train: NDArray[Any], y_test: NDArray[Any], source: str
) -> tuple[NDArray[np.float32], NDArray[np.float32], int]:
    train = _floats(y_train.reshape(len(y_train), -1), "y_train", source)
    test = _floats(y_test.reshape(len(y_test), -1), "y_test", source)
    if train.shape[1] != test.shape[1]:
        raise DataError(
            f"{source}: targets must have one size, but y_train has {train.shape[1]} and y_test {test.shape[1]}"
        )
    if not varying(train).any():
        raise DataError(f"{source}: all targets of y_train are the same in float32; there is nothing to learn")
    return train, test, train.shape[1]


def empty_network(data: Dataset, config: DataConfig, name: str, *, maps: bool = False) -> Network:
    """The graph growth starts from: input -> (what the data teaches) -> bias -> output.

    Inputs that never vary in the training data are left out, and those that vary least where the configuration says so;
    the rest is standardised; for regression a last node undoes the standardisation of the targets. All of it is in the
    graph, so a deployed file takes raw data.

    Args:
        data: The data.
        config: Its section of a run file.
        name: Of the graph.
        maps: Whether convolutions will read the samples, which then stand in the graph as maps (N, C, H, W) too,
            standardised by one mean and std.

    Raises:
        DataError: Maps are wanted of samples that are none, or are standardised for each input.
    """
    sample = data.x_train.shape[1:]
    images = data.x_train
    nodes: list[Node] = []
    arrays: dict[str, NDArray[np.float32]] = {}
    last = "x"

    def add(node_name: str, op: Op) -> None:
        nonlocal last
        nodes.append(Node(name=node_name, op=op, inputs=(last,)))
        last = node_name

    how = config.standardise
    if how == "auto":
        how = "global" if len(sample) > 1 else "feature"
    if maps:
        brought = _to_maps(sample)
        if how == "feature":
            raise DataError(
                "[policy] kernels: convolutions read maps, which one mean and std serves; [data] standardise "
                'must be "global" or "none", but is "feature"'
            )
        for op in brought:
            add("image", op)
        if len(sample) == 3 and sample[0] not in CHANNELS:
            images = images.transpose(0, 3, 1, 2)
    flat = images.reshape(len(images), -1)
    varies = kept(images, config.shares[0])

    def standardise(array: NDArray[np.float32]) -> None:
        add("standard", Standardise(dims=0))
        arrays["standard.mean"] = np.array([array.mean(dtype=np.float64)], np.float32)
        arrays["standard.std"] = np.array([array.std(dtype=np.float64)], np.float32)

    if maps and how == "global":
        standardise(flat[:, varies])
    if len(sample) > 1:
        add("flat", Flatten())
    if len(varies) < flat.shape[1]:
        add("varying", Select(indices=tuple(int(k) for k in varies)))
        flat = flat[:, varies]
    if not maps and how == "global":
        standardise(flat)
    elif how == "feature":
        # Every feature here varies, in units of its own: none is small beside another.
        add("standard", Standardise(eps=SMALLEST))
        arrays["standard.mean"] = flat.mean(axis=0, dtype=np.float64).astype(np.float32)
        arrays["standard.std"] = flat.std(axis=0, dtype=np.float64).astype(np.float32)
    add("out", Bias(features=data.outputs))
    if data.task == "regression":
        add("undo", Standardise(inverse=True))
        mean, std = target_statistics(data)
        arrays["undo.mean"], arrays["undo.std"] = mean, std
    graph = Graph(name=name, inputs=(Input(name="x", shape=("N", *sample)),), nodes=tuple(nodes), outputs=(last,))
    network = Network.init(graph)
    return network.with_arrays(arrays)


def _to_maps(sample: Sequence[int]) -> list[Op]:
    """What makes (N, C, H, W) of samples, if anything needs to. Raises DataError if they are no images."""
    if len(sample) == 2:
        return [Unsqueeze(dim=1)]
    if len(sample) == 3 and sample[0] in CHANNELS:
        return []
    if len(sample) == 3 and sample[-1] in CHANNELS:
        return [Permute(dims=(0, 3, 1, 2))]
    raise DataError(
        f"[policy] kernels: convolutions read images, (H, W), (C, H, W) or (H, W, C) with 1, 3 or 4 channels, but "
        f"samples are {tuple(sample)}; leave kernels out"
    )


def target_statistics(data: Dataset) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and std of each regression target; a constant target keeps std 1."""
    mean = data.y_train.mean(axis=0, dtype=np.float64)
    std = data.y_train.std(axis=0, dtype=np.float64)
    return mean.astype(np.float32), np.where(varying(data.y_train), std, 1.0).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Parts:
    """The training data cut into three equal parts, as indices: fit new weights, find their amplitude, choose."""

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
