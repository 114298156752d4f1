"""Running a recorded history again: to check a document, or to grow another network in the same way."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any, cast

from numpy.typing import NDArray

from growir.collecting import uncollected
from growir.document import function_hash
from growir.errors import GraphError, PassRefused, Problem, counted, cut
from growir.graph import Graph, Step
from growir.passes import pass_from_step
from growir.rewrite import Pass, Rewrite

MAX_CHECKED = 2_000_000  # steps times nodes, each some 20 microseconds


def rewrites(graph: Graph, values: Mapping[str, NDArray[Any]] | None = None) -> Iterator[Rewrite]:
    """The recorded rewrites, run one after the other from the history's base.

    Args:
        graph: A graph with a history.
        values: Recorded arrays by sha256; a step whose arrays are missing starts from its initialisers.

    Raises:
        GraphError: A step names an unknown pass or does not fit the graph before it.
    """
    if graph.history is None:
        return
    current = graph.history.base
    for k, step in enumerate(graph.history.steps):
        try:
            # The recorded step stays: replayed without its arrays it would forget their digests.
            done = recorded_pass(step, values or {}).rewrite(current, recorded=step)
        except (PassRefused, KeyError) as error:
            raise GraphError(
                [Problem(f"history.steps[{k}] {cut(step.kind)!r}", f"it does not replay: {error}")]
            ) from None
        if done.created != step.created:
            text = f"it created {list(done.created)}, but the document says {list(step.created)}"
            raise GraphError([Problem(f"history.steps[{k}] {cut(step.kind)!r}", text)])
        current = done.graph
        yield done


def missing_values(graph: Graph, values: Mapping[str, NDArray[Any]]) -> dict[str, list[str]]:
    """The arrays that a history's steps recorded and that are not at hand: by step, their parameters' keys."""
    steps = () if graph.history is None else graph.history.steps
    found = {
        f"history.steps[{k}] {cut(step.kind)!r}": [key for key, digest in step.values.items() if digest not in values]
        for k, step in enumerate(steps)
    }
    return {where: keys for where, keys in found.items() if keys}


def recorded_pass(step: Step, values: Mapping[str, NDArray[Any]]) -> Pass:
    """The pass a step records, with those of its arrays that are at hand."""
    given = {key: values[digest] for key, digest in step.values.items() if digest in values}
    return pass_from_step(step, given)


def check_history(graph: Graph) -> Graph:
    """Return the graph if its history leads to it.

    Unknown or older passes cannot be run, and long histories of large graphs take too long: such a history is kept
    unchecked, with a warning.

    Raises:
        GraphError: The history ran and led elsewhere, or did not run.
    """
    if graph.history is None:
        return graph
    why = obstacle(graph)
    if why is not None:
        warnings.warn(f"the history is not checked: {why}", stacklevel=2)
        return graph
    last = graph.history.base
    with uncollected():
        for done in rewrites(graph):
            last = done.graph
    if function_hash(last) != function_hash(graph):
        text = (
            f"it leads to a graph with hash {last.hash[:12]}, but the document's nodes hash to {graph.hash[:12]}; "
            "after an edit by hand, `growir validate --drop-history` makes the document its own beginning"
        )
        raise GraphError([Problem("history", text)])
    return graph


def obstacle(graph: Graph) -> str | None:
    """Why a graph's history is not run again here, in words: unknown passes, or too much work; None if it is."""
    if graph.history is None:
        return None
    strange = [step.kind for step in graph.history.steps if not replayable(step)]
    if strange:
        shown = ", ".join(sorted({cut(name) for name in strange}))
        return f"it uses passes unknown here or of another version: {shown}"
    steps = sum(_passes(step.fields) for step in graph.history.steps)
    nodes = max(len(graph.nodes), len(graph.history.base.nodes))
    if steps * nodes > MAX_CHECKED:
        return f"to run {counted(steps, 'step')} again on {counted(nodes, 'node')} would take too long"
    return None


def _passes(fields: Mapping[str, Any]) -> int:
    """How many passes a step runs: itself, and those that it lists."""
    inner = fields.get("passes")
    if not isinstance(inner, list):
        return 1
    found = cast("list[object]", inner)
    return 1 + sum(_passes(cast("Mapping[str, Any]", each)) for each in found if isinstance(each, dict))


def replayable(step: Step) -> bool:
    """Whether this growir has the step's pass, and can read what the recorded version wrote."""
    from growir.passes import find_pass

    kind = find_pass(step.kind)
    return kind is not None and kind.upgraded(step.version, step.fields) is not None
