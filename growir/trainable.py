"""Whether a graph may be trained for the model it was imported from: both are known to agree in eval mode only."""

from __future__ import annotations

from growir.errors import MAX_PROBLEMS, GrowirError, cut
from growir.graph import Graph

MAX_LINE = 200


def check_trainable(graph: Graph, as_imported: bool, error: type[GrowirError]) -> None:
    """Raise `error`, saying what differs, unless the graph has its model's train mode or the caller knows it has not.

    Args:
        graph: What is to be trained.
        as_imported: Whether the caller has said `train_as_imported=True`.
        error: The type of the error.
    """
    if as_imported or not graph.train_differs:
        return
    lines = [f"  {cut(text, MAX_LINE)}" for text in graph.train_differs[:MAX_PROBLEMS]]
    if len(graph.train_differs) > MAX_PROBLEMS:
        lines.append(f"  ... and {len(graph.train_differs) - MAX_PROBLEMS} more")
    listed = "\n".join(lines)
    raise error(
        f"the model that {cut(graph.name)!r} was imported from differs in train mode, which the network does not "
        f"have:\n{listed}\nto train the network as it is, give train_as_imported=True"
    )
