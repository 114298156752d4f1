"""Asking the network of a run about new samples."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from growir import store
from growir.data.answers import Answers
from growir.data.description import FILE, Description, read_description
from growir.data.samples import samples
from growir.data.table import is_table
from growir.errors import RunError
from growir.growth.config import parse_run
from growir.growth.running import read_data_config
from growir.nearest import neighbours
from growir.network import Network
from growir.runs.folder import CONFIG, NETWORK, SUMMARY
from growir.shapes import shapes_of

AT_ONCE = 4096  # samples, so that those of wide layers need not all fit in memory


def predict(
    run: str | os.PathLike[str], data: str | os.PathLike[str] | ArrayLike, *, separator: str | None = None
) -> Answers:
    """What the network of a run says of new samples.

    Args:
        run: The run directory.
        data: A .csv or .tsv table with the columns of the training data, by name; an .npz file with x, or x_test where
            it has no x; an .npy file; or an array. Arrays are (n, ...) finite numbers, in the training data's units.
        separator: Between the cells of a table; by default as in the run's own.

    Raises:
        RunError: It is no run directory, or one without a network; or the separator cannot be one.
        GraphError: The network is damaged.
        DataError: data.json is missing or damaged, or the samples are not like those that the run trained on.
    """
    folder = Path(run)
    description = _description(folder)
    network = _network(folder, description)
    if separator is not None:
        separator = parse_run({"data": {"separator": separator}}, "growir.predict").data.separator
    elif isinstance(data, str | os.PathLike) and is_table(data) and (folder / CONFIG).is_file():
        separator = read_data_config(folder).separator
    return answers(network, description, samples(data, description, separator))


def _description(folder: Path) -> Description:
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "there is no such folder"
        raise RunError(f"{folder}: {what}; give a run directory, as growir grow writes{neighbours(folder)}")
    if not any((folder / name).is_file() for name in (FILE, CONFIG)):
        if (folder.parent / FILE).is_file():
            raise RunError(f"{folder}: is a part of the run directory {folder.parent}; give that")
        raise RunError(f"{folder}: is no run directory, such as growir grow writes: it has no {FILE}")
    return read_description(folder)


def _network(folder: Path, description: Description) -> Network:
    store.recover(folder / NETWORK)
    if not store.is_network(folder / NETWORK):
        raise RunError(
            f"{folder}: there is no {NETWORK} in it, for the run is not finished; {_going_on(folder)} goes on with it"
        )
    network = Network.load(folder / NETWORK)
    if (folder / CONFIG).is_file() and not (folder / SUMMARY).is_file():
        grown = network.graph.history is not None and network.graph.history.steps
        what = "" if grown else ", which has not grown yet and says the same of every sample"
        warnings.warn(
            f"{folder}: the run was interrupted; this is the network of its last completed growth{what}. "
            f"{_going_on(folder)} goes on with it",
            stacklevel=3,
        )
    shapes = shapes_of(network.graph)
    takes = [shapes[entry.name] for entry in network.graph.inputs]
    gives = [shapes[name] for name in network.graph.outputs]
    if [shape.dims for shape in takes + gives] != [("N", *description.sample), ("N", description.outputs)]:
        raise RunError(
            f"{folder}: {FILE} is not of this network: of samples {description.sample} it has {description.outputs} "
            f"outputs, but the network takes {', '.join(map(str, takes))} and gives {', '.join(map(str, gives))}; put "
            "back the one that the run wrote"
        )
    return network


def _going_on(folder: Path) -> str:
    """The command that goes on with a run."""
    return f"growir grow {folder / CONFIG} --out {folder} --resume"


def answers(network: Network, description: Description, x: NDArray[np.float32]) -> Answers:
    """What a network says of samples.

    Args:
        network: Of one input and one output.
        description: Of the data that it was trained on.
        x: (n, ...) finite numbers.
    """
    found = outputs_of(network, x)
    if description.classes is None:
        return Answers(found[:, 0] if found.shape[1] == 1 else found, None, None)
    labels = np.array(description.classes)
    return Answers(labels[found.argmax(axis=1)], description.classes, probabilities(found))


def outputs_of(network: Network, x: NDArray[np.float32]) -> NDArray[np.float64]:
    """The outputs of a network in eval mode, (n, outputs).

    They are computed in float64, so that which samples stand beside one moves no digit of it that a float32 has.
    """
    module = network.to_torch(dtype=torch.float64).eval()
    with torch.no_grad():
        batches = [module(torch.from_numpy(x[k : k + AT_ONCE]).double()) for k in range(0, len(x), AT_ONCE)]
    found: NDArray[np.float64] = torch.cat(batches).numpy()
    return found


def probabilities(outputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Softmax of each row: how probable each class is, by a network that cross-entropy trained."""
    powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    found: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return found
