"""`growir import`: a torch model from the user's own code as a network folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from growir.cli.output import printable


def import_(
    source: Annotated[
        str, typer.Argument(metavar="MODULE:FACTORY", help="Where the model is made: package.module:function.")
    ],
    inputs: Annotated[
        list[str],
        typer.Option(
            "--input",
            metavar="SHAPE",
            help="The shape of an input with its batch, 1,3,224,224; once for each. 1,128:int64 for token numbers.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="OUT", help="The network folder to write.", show_default=False)
    ],
) -> None:
    """Import a torch model as a network.

    This runs the module named, looked for in the current folder first, and calls FACTORY() for the model: give only
    code that you trust.
    """
    from growir.backends.torch_export import example_input, made_by
    from growir.errors import ModelError
    from growir.importing import from_torch
    from growir.store import check_place

    check_place(out.resolve())  # before work that may take minutes
    examples = [example_input(text) for text in inputs]
    model = made_by(source)
    try:
        network = from_torch(model, tuple(examples))
    except ModelError as error:
        raise ModelError(f"{source}: {error}") from None
    network.save(out)
    parameters = network.graph.costs().parameters
    print(printable(f"wrote {out}: {len(network.graph.nodes)} nodes, {parameters:,} parameters"))
