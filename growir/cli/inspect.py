"""`growir inspect`: what a graph consists of and costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from growir.cli.output import MAX_PARAMETERS, AsJson, GraphPath, MaxParameters, print_json

if TYPE_CHECKING:
    from growir.show import Grid


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
    from growir.network import load_graph
    from growir.show import inspection, page

    graph = load_graph(path, max_parameters=max_parameters)
    if as_json:
        print_json(inspection(graph, spaces=spaces))
        return
    for k, part in enumerate(page(graph, everything=everything, spaces=spaces)):
        if k:
            print()
        if everything or isinstance(part, str):
            print(part)
        else:
            _print_rich(part)


def _print_rich(grid: Grid) -> None:
    import sys

    from rich.console import Console

    # Piped, a table keeps its own width: cut to 80 columns it would be of no use to the next program.
    console = Console() if sys.stdout.isatty() else Console(width=10_000)
    console.print(grid.rich())
