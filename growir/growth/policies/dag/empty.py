"""The graph that growth starts from, and what it learns from the data before any weight: what varies, on what scale."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from growir.data.arrays import SMALLEST, varying
from growir.data.dataset import Dataset
from growir.errors import DataError, GraphError
from growir.graph import Graph, Input, Node
from growir.growth.config import DataConfig
from growir.growth.data import target_statistics
from growir.images import CHANNELS, to_maps
from growir.network import Network
from growir.ops import Bias, Flatten, Op, Select, Standardise


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
        try:
            brought = to_maps(sample)
        except GraphError as error:
            raise DataError(f"[policy] kernels: {error}; leave kernels out") from None
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
