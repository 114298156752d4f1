"""Stages for people: how deep each is, what its blocks are, and the name of the whole."""

from __future__ import annotations

from growir.blocks import layer_count
from growir.columns import Grid
from growir.errors import counted, cut
from growir.families import family_of
from growir.graph import Graph
from growir.shapes import shapes_of
from growir.show import Json
from growir.stages import Stage, is_residual, stages_of


def stage_parts(graph: Graph) -> list[str | Grid]:
    """The table of stages under the name of their family, if they have one; nothing where there are none."""
    stages = stages_of(graph)
    if not stages:
        return []
    shapes = shapes_of(graph)
    rows = tuple(
        (
            cut(stage.name),
            str(stage.depth),
            _words(graph, stage),
            str(shapes[stage.blocks[-1].output]),
        )
        for stage in stages
    )
    family = family_of(graph)
    parts: list[str | Grid] = [] if family is None else [f"stages   {family}"]
    return [*parts, Grid(("stage", "blocks", "each", "gives"), rows, frozenset({"blocks"}))]


def _words(graph: Graph, stage: Stage) -> str:
    block = stage.blocks[-1]
    kind = "residual, " if stage.repeated is not None and is_residual(graph, block) else ""
    head = ", the first another" if stage.headed and stage.depth > 1 else ""
    return f"{kind}{counted(layer_count(graph, block), 'layer')}{head}"


def stage_data(graph: Graph) -> Json:
    """The same as JSON values."""
    family = family_of(graph)
    stages = [
        {
            "name": stage.name,
            "headed": stage.headed,
            "blocks": [
                {"nodes": list(block.nodes), "input": block.input, "output": block.output, "beside": list(block.beside)}
                for block in stage.blocks
            ],
        }
        for stage in stages_of(graph)
    ]
    return {"family": None if family is None else str(family), "stages": stages}
