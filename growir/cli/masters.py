"""Paths of commands that may name a master of several tasks, or one of its tasks.

runs/digits-001/master          the graph of all tasks, with the weights that they share
runs/digits-001/master@2, 3     what the task "2, 3" sees, an ordinary network
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from growir.continual.master import Master
    from growir.graph import Graph
    from growir.network import Network

DOCUMENT = "master.json"  # continual.master.DOCUMENT, which would cost an import of numpy; a test compares the two
AT = "@"


def master_of(path: Path) -> Master | None:
    """The master in a folder, or in the folder of a sequence; None where there is none."""
    for folder in (path, path / "master"):
        if (folder / DOCUMENT).is_file():
            from growir.continual.master import Master

            return Master.load(folder)
    return None


def opened(path: Path, *, max_parameters: int) -> Graph | Network:
    """A network where the path holds weights, else a graph. Raises GraphError as `growir.network.open_path` does."""
    from growir.network import Network, open_path

    if path.exists():
        master = master_of(path) if path.is_dir() else None
        return (
            open_path(path, max_parameters=max_parameters) if master is None else Network(master.graph, master.arrays)
        )
    place, at, task = str(path).partition(AT)
    while at:
        master = master_of(Path(place))
        if master is not None:
            return master.task(task)
        more, at, task = task.partition(AT)
        place = f"{place}{AT}{more}"
    return open_path(path, max_parameters=max_parameters)


def names_graph(path: Path) -> bool:
    """Whether `graph_at` is what reads a path: that of a folder, of a graph document, of ONNX, or MASTER@TASK."""
    text = str(path)
    # os.path says no of text that is too long for a path, where Path raises.
    if os.path.isdir(text) or path.suffix.lower() in (".json", ".onnx"):
        return True
    if os.path.isfile(text):
        try:
            with path.open("rb") as file:
                return file.read(100).lstrip().startswith(b"{")
        except OSError:  # whoever reads it next says so
            return False
    return any(c == AT and os.path.isdir(text[:k]) and master_of(Path(text[:k])) for k, c in enumerate(text))


def graph_at(path: Path, *, max_parameters: int) -> Graph:
    """The graph of what is there. Raises GraphError as `growir.network.load_graph` does."""
    from growir.graph import Graph

    found = opened(path, max_parameters=max_parameters)
    return found if isinstance(found, Graph) else found.graph


def network_at(path: Path, *, max_parameters: int) -> Network:
    """The network that is there. Raises GraphError as `Network.load` does, and for a master as a whole."""
    from growir.errors import GraphError
    from growir.network import Network

    if path.is_dir() and (master := master_of(path)) is not None:
        first = next(iter(master.tasks), "TASK")
        raise GraphError(
            f"{path}: this is a master of several tasks, which have norms and biases of their own; give one of them, "
            f'"{path}{AT}{first}"'
        )
    found = None if path.exists() else opened(path, max_parameters=max_parameters)
    return found if isinstance(found, Network) else Network.load(path, max_parameters=max_parameters)
