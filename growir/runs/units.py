"""What a growth was chosen from, unit by unit, as a picture of the network before it."""

from __future__ import annotations

from growir.errors import RunError
from growir.graph import Graph
from growir.render.strips import Scale, Strip
from growir.render.svg import draw
from growir.replay import replayable, rewrites
from growir.runs.reading import RunLog
from growir.runs.records import LAYER, Growth


def growth_of(log: RunLog, number: int | None = None) -> Growth:
    """The growth of a number that has scores of units, or the last one that has. Raises RunError if there is none.

    Of a contest that is decided it is one of the branch that goes on: the graph is of that.
    """
    branch = None if log.selected is None else log.selected.branch
    stands = [each.growth for each in log.growths if each.undone is None]
    known = [growth for growth in stands if growth.units and branch in (None, growth.branch)]
    found = [growth for growth in known if number is None or growth.step == number]
    if found:
        return found[-1]
    if not known:
        raise RunError(
            f"{log.name}: no growth records scores of units; those of policies that choose units do, such as firefly"
        )
    steps = ", ".join(str(growth.step) for growth in known)
    raise RunError(f"{log.name}: growth {number} records no scores of units; these do: {steps}")


def before(graph: Graph, growth: Growth) -> Graph:
    """The graph that a growth of its history found; the graph itself where the history has no such growth."""
    if graph.history is None or not all(map(replayable, graph.history.steps)):
        return graph
    known = graph.history.base
    for done in rewrites(graph):
        if done.graph.hash == growth.hash:
            return known
        known = done.graph
    return graph


def picture(log: RunLog, graph: Graph, number: int | None = None, boxes: int | None = None) -> str:
    """The network before a growth as SVG, each space's units coloured by score at the node that names it.

    Units of a layer that may come in stand at the node that it would come behind.

    Args:
        log: Of a run.
        graph: What it has grown.
        number: Of the growth; the last that has scores of units if None.
        boxes: The most boxes.

    Raises:
        RunError: No growth, or not this one, records such scores.
    """
    growth = growth_of(log, number)
    strips: dict[str, list[Strip]] = {}
    for each in growth.units:
        if each.space is not None:
            comes_in = each.space.startswith(LAYER)
            node, label = (each.space.removeprefix(LAYER), "layer") if comes_in else (each.space, each.kind or "?")
            strips.setdefault(node, []).append(Strip(label, each.gains, frozenset(each.chosen)))
    ranks = any(each.ordinal for each in growth.units)
    scale = Scale.of(strips, "(a rank, not the loss)" if ranks else "decrease of the mean loss")
    return draw(before(graph, growth), {}, boxes, focus=list(strips), strips=strips, scale=scale)
