"""What a growth run learns from its data before any weight: which inputs vary, their scale, the first graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from growir.data.arrays import SMALLEST, read_arrays, varying
from growir.data.columns import Columns, learn, test_part
from growir.data.dataset import Dataset, dataset, parts_of, test_arrays
from growir.data.table import is_table, read_table
from growir.errors import DataError
from growir.graph import Graph, Input, Node
from growir.growth.config import DataConfig
from growir.network import Network
from growir.ops import Bias, Flatten, Op, Permute, Select, Standardise, Unsqueeze

CHANNELS = (1, 3, 4)  # of images, which tells (C, H, W) from (H, W, C)


def load_data(config: DataConfig, seed: int = 0) -> Dataset:
    """The data a configuration names; what is held out is drawn by the seed. Raises DataError if it is unusable."""
    if not config.path:
        raise DataError('no data is given: a .csv or .npz file, a mapping of arrays, or "digits" is needed')
    if is_table(config.path):
        return _from_tables(config, seed)
    if config.path == "digits":
        return check_data(_digits(), config, "digits", seed)
    return check_data(read_arrays(Path(config.path)), config, config.path, seed)


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
