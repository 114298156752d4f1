"""`growir export`: a network as an ONNX file or as torch source, checked against torch."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from growir.cli.masters import network_at
from growir.cli.output import MAX_PARAMETERS, MaxParameters, print_lines, printable
from growir.staging import replaceable

if TYPE_CHECKING:
    from growir.network import Network

_IMPORTED = ("torch", "safetensors", "numpy", "growir")  # where an exported class runs


def export(
    net: Annotated[Path, typer.Argument(metavar="NET", help="A network or run directory.", show_default=False)],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="FILE", help="NET.onnx or NET.py, to be written.", show_default=False)
    ],
    no_check: Annotated[
        bool, typer.Option("--no-check", help="Do not run the file against torch, which takes seconds to import.")
    ] = False,
    opset: Annotated[int, typer.Option("--opset", metavar="N", help="The ONNX operator set.")] = 18,
    max_parameters: MaxParameters = MAX_PARAMETERS,
) -> None:
    """Write a network as a checked ONNX file, or as Python source with torch alone.

    NET.onnx: ONNX Runtime and torch have to agree on random batches first, within 1e-4 of each output's largest value.

    NET.py: a class torch.nn.Module to read and to change, and NET.safetensors beside it with the keys of its
    state_dict. The class has to give the network's outputs to the bit first.

    Only files that growir wrote are ever replaced.
    """
    from growir.errors import ExportError

    suffix = out.suffix.lower()
    if suffix not in (".onnx", ".py"):
        raise ExportError(
            f"{out}: only .onnx files and .py files with their weights can be written; give a name that ends in one"
        )
    network = network_at(net, max_parameters=max_parameters)
    if suffix == ".py":
        _export_source(network, out, check=not no_check)
    else:
        _export_onnx(network, out, opset, check=not no_check)


def _export_onnx(network: Network, out: Path, opset: int, *, check: bool) -> None:
    from growir.backends.onnx_ir import is_ours

    replaceable(out, is_ours)
    agreement = ""
    if check:
        from growir.backends.agreement import check_agreement

        with _rehearsed(out) as staged:
            network.to_onnx(staged, opset=opset)
            worst = check_agreement(network.graph, network.arrays, staged)
        agreement = f"; ONNX Runtime and torch differ by at most {worst:.1e}"
    for notice in network.to_onnx(out, opset=opset):
        print_lines(f"note: {notice}")
    print(printable(f"wrote {out}{agreement}"))


def _export_source(network: Network, out: Path, *, check: bool) -> None:
    from growir.backends.torch_source import check_source, is_ours, save_source
    from growir.errors import ExportError

    if out.stem in sys.stdlib_module_names or out.stem in _IMPORTED:
        raise ExportError(f"{out}: in its folder, this would hide the module {out.stem}; choose another name")
    for path in (out, out.with_suffix(".safetensors")):
        replaceable(path, is_ours)
    if check:
        with _rehearsed(out) as staged:
            save_source(network.graph, network.arrays, staged)
            check_source(network.graph, network.arrays, staged)
    weights = save_source(network.graph, network.arrays, out)
    print(printable(f"wrote {out} and {weights}{'; it gives the same outputs to the bit' if check else ''}"))


@contextmanager
def _rehearsed(out: Path) -> Generator[Path, None, None]:
    """Where to write a file for the check: where the real one will lie, so that a full or read-only disk shows first.

    Raises:
        ExportError: Nothing can be written there; it names the real file.
    """
    from growir.errors import ExportError

    try:
        with tempfile.TemporaryDirectory(prefix=".growir-", dir=out.parent) as folder:
            staged = Path(folder) / out.name
            try:
                yield staged
            except ExportError as error:
                raise ExportError(str(error).replace(str(staged), str(out))) from None
    except OSError as error:
        raise ExportError(f"{out}: cannot be written: {error.strerror or error}") from None
