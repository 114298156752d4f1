"""The `growir` command: its subcommands, and what happens when one fails."""

from __future__ import annotations

import gc
import os
import sys
import warnings
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import growir
from growir.cli.cells import cells
from growir.cli.continual import continual
from growir.cli.diff import diff
from growir.cli.export import export
from growir.cli.grow import grow
from growir.cli.import_ import import_
from growir.cli.inspect import inspect
from growir.cli.log import log
from growir.cli.output import printable
from growir.cli.predict import predict
from growir.cli.render import render
from growir.cli.rewrite import rewrite
from growir.cli.schema import schema
from growir.cli.validate import validate
from growir.errors import GrowirError

_READERS = ("inspect", "diff", "validate", "rewrite", "render", "log")
WRONG, INTERRUPTED, PIPE_CLOSED = 2, 130, 141


class _Commands(TyperGroup):
    """A group whose commands end with one message instead of a traceback when the user's input is at fault."""

    def invoke(self, ctx: Any) -> Any:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            try:
                result = super().invoke(ctx)
                sys.stdout.flush()
                return result
            except GrowirError as error:
                _complain("error", str(error))
            except BrokenPipeError:
                _silence_stdout()
                raise typer.Exit(PIPE_CLOSED) from None
            except OSError as error:
                where = f"{error.filename}: " if error.filename else ""
                _complain("error", f"{where}{error.strerror or error}")
            except KeyboardInterrupt:
                _complain("interrupted", "")
                raise typer.Exit(INTERRUPTED) from None
            raise typer.Exit(WRONG)


def _complain(kind: str, text: str) -> None:
    print(f"growir: {kind}: {printable(text)}" if text else f"growir: {kind}", file=sys.stderr)


def _show_warning(message: Warning | str, category: type[Warning], *where: object, **more: object) -> None:
    # growir's own are UserWarnings for whoever uses it; other categories are for whoever works on a library.
    if issubclass(category, UserWarning):
        _complain("warning", str(message))


def _silence_stdout() -> None:
    """Send what is still buffered nowhere, or the interpreter complains about the closed pipe when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _version(wanted: bool) -> None:
    if wanted:
        print(f"growir {growir.__version__}")
        raise typer.Exit


# Plain help and plain errors: rich's would take as long to import as all the rest, and shows markup in arguments.
app = typer.Typer(
    cls=_Commands,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _about(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """A compiler for growable neural networks."""


for _command in (grow, continual, cells, predict, inspect, diff, validate, rewrite, render, log, export, schema):
    app.command()(_command)
app.command("import")(import_)


def run() -> None:
    """Run the command line and exit."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that lacks a character gets its number; that is no reason to fail.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if sys.argv[1:2] and sys.argv[1] in _READERS:
        # They build one big graph and end: looking for garbage in it would take a fifth of their time.
        gc.disable()
    app(prog_name="growir")
