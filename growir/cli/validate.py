"""`growir validate`: everything wrong with a graph or network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from growir.cli.masters import opened
from growir.cli.output import MAX_PARAMETERS, GraphPath, MaxParameters, print_lines, printable
from growir.staging import replaceable

if TYPE_CHECKING:
    from growir.graph import Graph


def validate(
    path: GraphPath,
    drop_history: Annotated[
        bool, typer.Option("--drop-history", help="Print the document without its history, say after an edit by hand.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE", help="Where --drop-history writes.", show_default=False),
    ] = None,
    max_parameters: MaxParameters = MAX_PARAMETERS,
) -> None:
    """Check a graph or network, and report all problems at once."""
    if out is not None and not drop_history:
        raise typer.BadParameter("goes with --drop-history", param_hint="-o")
    if drop_history:
        _write(_without_history(path, max_parameters), out)
        return
    from growir.graph import Graph
    from growir.replay import missing_values
    from growir.show import some

    found = opened(path, max_parameters=max_parameters)
    graph, what = (found, "document") if isinstance(found, Graph) else (found.graph, "network")
    parameters = f"{graph.costs().parameters:,} parameters"
    print(printable(f"{path}: a valid {what}: {len(graph.nodes):,} nodes, {parameters}\nhash {graph.hash}"))
    if isinstance(found, Graph):
        return
    for where, keys in missing_values(graph, found.values).items():
        print_lines(f"note: {where} holds values that are not here, so it cannot be replayed: {some(keys)}")


def _without_history(path: Path, max_parameters: int) -> Graph:
    from growir import verify
    from growir.document import decode
    from growir.errors import GraphError

    try:
        # Removed before the check: a history that no longer fits is why one is here.
        data = decode(_document_text(path))
        data.pop("history", None)
        return verify.load(data, max_parameters=max_parameters)
    except GraphError as error:
        raise error.at(str(path)) from None


def _document_text(path: Path) -> str | bytes:
    from growir.store import GRAPH

    if path.suffix.lower() == ".onnx" and not path.is_dir():
        from growir.backends.onnx_ir import read_document

        return read_document(path)
    for file in (path / GRAPH, path / "network" / GRAPH):
        if file.is_file():
            return file.read_bytes()
    return path.read_bytes()


def _write(graph: Graph, out: Path | None) -> None:
    from growir.document import dumps
    from growir.store import is_document, write_file

    if out is None:
        print(dumps(graph), end="")
        return
    replaceable(out, is_document)
    write_file(out, dumps(graph).encode())
    print(printable(f"wrote {out}"))
