"""`growir inspect`: what a graph consists of and costs."""

from __future__ import annotations

from typing import Annotated

import typer

from growir.cli.masters import graph_at
from growir.cli.output import MAX_PARAMETERS, AsJson, GraphPath, MaxParameters, print_json, print_page


def inspect(
    path: GraphPath,
    as_json: AsJson = False,
    everything: Annotated[bool, typer.Option("--all", help="Every node, as plain text, however many.")] = False,
    spaces: Annotated[bool, typer.Option("--spaces", help="Channel spaces too.")] = False,
    max_parameters: MaxParameters = MAX_PARAMETERS,
) -> None:
    """Show nodes, shapes, costs and history of a graph.

    Over 200 nodes are collapsed by module.
    """
    from growir.inspecting import inspection, page

    graph = graph_at(path, max_parameters=max_parameters)
    if as_json:
        print_json(inspection(graph, spaces=spaces))
        return
    print_page(page(graph, everything=everything, spaces=spaces), as_text=everything)
