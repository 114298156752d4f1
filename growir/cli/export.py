"""`growir export`: a network as an ONNX file, checked against torch."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from growir.cli.output import MAX_PARAMETERS, MaxParameters, printable, replaceable


def export(
    net: Annotated[Path, typer.Argument(metavar="NET", help="A network or run directory.", show_default=False)],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="NET.onnx", help="The file to write.", show_default=False)
    ],
    no_check: Annotated[
        bool, typer.Option("--no-check", help="Do not run the file against torch, which takes seconds to import.")
    ] = False,
    opset: Annotated[int, typer.Option("--opset", metavar="N", help="The ONNX operator set.")] = 18,
    max_parameters: MaxParameters = MAX_PARAMETERS,
) -> None:
    """Write a network as a checked ONNX file.

    First ONNX Runtime and torch have to agree on random batches, within 1e-4 of each output's largest value. Only an
    .onnx file that growir wrote is ever replaced.
    """
    from growir.errors import ExportError
    from growir.network import Network

    if out.suffix.lower() != ".onnx":
        raise ExportError(f"{out}: only .onnx files can be written; give a name that ends in .onnx")
    network = Network.load(net, max_parameters=max_parameters)
    replaceable(out, _is_ours)
    agreement = ""
    if not no_check:
        from growir.backends.agreement import check_agreement

        # The staged file lies where the real one will: a full or read-only disk shows before the check.
        with tempfile.TemporaryDirectory(prefix=".growir-", dir=out.parent) as folder:
            staged = Path(folder) / out.name
            network.to_onnx(staged, opset=opset)
            worst = check_agreement(network.graph, network.arrays, staged)
        agreement = f"; ONNX Runtime and torch differ by at most {worst:.1e}"
    for notice in network.to_onnx(out, opset=opset):
        print(printable(f"note: {notice}"))
    print(printable(f"wrote {out}{agreement}"))


def _is_ours(path: Path) -> bool:
    from growir.backends.onnx_ir import read_document
    from growir.errors import GraphError

    try:
        read_document(path)
    except GraphError:
        return False
    return True
