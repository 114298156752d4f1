"""`growir rewrite`: passes applied to a network or a document, and plans to a training checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from growir.cli.checkpoints import Where, grow_file
from growir.cli.output import MAX_PARAMETERS, PATH_HELP, MaxParameters, print_lines, printable
from growir.staging import replaceable

if TYPE_CHECKING:
    from growir.graph import Graph
    from growir.network import Network
    from growir.rewrite import Pass, Preserves

CHECKPOINT_HELP = "With --plan, a checkpoint: a .pt or .safetensors file."
PLAN_HELP = "A plan of two models, as growir.plan(small, large, ...).model_dump_json() writes it."
FILE_HELP = "The optimizer's own file, if it has one; OUT is then a folder that holds both."
WEIGHTS_HELP = (
    "Where in the checkpoint the state_dict is, as model or state.model; more of them are averages. By default it is "
    "found."
)
OPTIMIZER_HELP = "Where a saved optimizer is; by default all that are found."
KIND_HELP = "The class of an optimizer in torch.optim; by default the one that has its settings."
NAMES_HELP = "A JSON list for each group of the optimizer, of its parameters' names; needed where shapes do not tell."
PASS_HELP = (
    'A pass as JSON, {"pass": "widen", "node": "fc1", "by": 8}, or a list of them; @FILE reads it from a file, - from '
    "standard input. May be given several times."
)


def rewrite(
    net: Annotated[Path, typer.Argument(metavar="NET", help=f"{PATH_HELP} {CHECKPOINT_HELP}", show_default=False)],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="OUT", help="The folder or file to write.", show_default=False)
    ],
    passes: Annotated[list[str] | None, typer.Option("--pass", metavar="JSON", help=PASS_HELP)] = None,
    plan: Annotated[Path | None, typer.Option("--plan", metavar="FILE", help=PLAN_HELP)] = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Measure on a random batch what each pass does to the outputs; needs torch."),
    ] = False,
    optimizer_file: Annotated[Path | None, typer.Option(metavar="FILE", help=FILE_HELP)] = None,
    weights: Annotated[list[str] | None, typer.Option(metavar="KEY", help=WEIGHTS_HELP)] = None,
    optimizer: Annotated[list[str] | None, typer.Option(metavar="KEY", help=OPTIMIZER_HELP)] = None,
    kind: Annotated[list[str] | None, typer.Option(metavar="NAME", help=KIND_HELP)] = None,
    names: Annotated[Path | None, typer.Option(metavar="FILE", help=NAMES_HELP)] = None,
    max_parameters: MaxParameters = MAX_PARAMETERS,
) -> None:
    """Apply passes to a network or a document, one after another, or a plan to a training checkpoint.

    A network or run directory gives a network directory, anything else a document. Prints a line for each pass: what
    it changed, what it cost, what it keeps. Where one is refused, or breaks its promise under --verify, nothing is
    written.

    With --plan, a checkpoint of the plan's small model gives one of its large model, as torch.save wrote it: weights,
    averages and optimizer state follow by the laws of growir.live.grow_into, and all else is carried unchanged.
    """
    parts_at = Where(optimizer_file, weights or (), optimizer or (), kind or (), names)
    _check_options(plan, passes, parts_at, verify)
    if plan is not None:
        grow_file(net, plan, out, parts_at)
        return
    from growir.document import dumps
    from growir.graph import Graph
    from growir.network import open_path
    from growir.store import check_place, is_document, write_file

    parts = [pass_ for text in passes or () for pass_ in _read(text)]
    found = open_path(net, max_parameters=max_parameters)
    if isinstance(found, Graph):
        replaceable(out, is_document)
    else:
        check_place(out.resolve())  # before work that may take minutes
    lines: list[str] = []
    for k, pass_ in enumerate(parts):
        where = f"pass {k + 1} of {len(parts)}: " if len(parts) > 1 else ""
        found, line, callers = _apply(found, pass_, verify, where)
        lines.append(f"{k + 1}  {line}")
        lines += [f"   {text}" for text in callers]
    if isinstance(found, Graph):
        write_file(out, dumps(found).encode())
    else:
        found.save(out)
    for line in lines:
        print_lines(line)
    print(printable(f"wrote {out}"))


def _check_options(plan: Path | None, passes: list[str] | None, where: Where, verify: bool) -> None:
    """Raise PassRefused for options that do not go together."""
    from growir.errors import PassRefused

    if (plan is None) is not bool(passes):
        raise PassRefused("give passes with --pass, or a plan with --plan: one of the two")
    if plan is None and where != Where(None, (), (), (), None):
        raise PassRefused(
            "--optimizer-file, --weights, --optimizer, --kind and --names say what is in a checkpoint; give --plan"
        )
    if plan is not None and verify:
        raise PassRefused("--verify measures passes on a network; a plan says what it preserves")


def _read(text: str) -> list[Pass]:
    """The passes of one --pass. Raises PassRefused saying what is wrong with it."""
    from growir.document import parse
    from growir.errors import GraphError, PassRefused, cut

    if text == "-":
        text = sys.stdin.read()
    elif text.startswith("@"):
        try:
            text = Path(text[1:]).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise PassRefused(f"--pass: {cut(text[1:])} is no UTF-8 text") from None
    try:
        data = parse(text, "pass")
    except GraphError as error:
        hint = "" if text.lstrip().startswith(("{", "[")) else "; give an object, or @FILE for a file"
        raise PassRefused(f"--pass: {error}{hint}") from None
    entries = cast("list[object]", data) if isinstance(data, list) else [data]
    if not entries:
        raise PassRefused("--pass: the list holds no pass")
    return [_pass(entry) for entry in entries]


def _pass(entry: object) -> Pass:
    from growir.errors import PassRefused, cut
    from growir.passes import pass_from_data

    if not isinstance(entry, dict):
        raise PassRefused(f'--pass: a pass is an object such as {{"pass": "widen", ...}}, but this is {cut(entry)}')
    fields = cast("dict[str, Any]", entry)
    values = fields.pop("values", {})
    if not isinstance(values, dict):
        raise PassRefused("--pass: values map parameter keys to arrays")
    return pass_from_data(fields, cast("dict[str, Any]", values))


def _apply(
    found: Graph | Network, pass_: Pass, verify: bool, where: str
) -> tuple[Graph | Network, str, tuple[str, ...]]:
    """A graph or network after a pass, the line that says what the pass did, and what it asks of callers."""
    from growir.errors import PassRefused
    from growir.graph import Graph
    from growir.network import Network

    before = found if isinstance(found, Graph) else found.graph
    try:
        done = pass_.rewrite(before)
        after: Graph | Network = done.graph
        measured = ""
        if verify:
            # A document has no weights; any will do to see whether the function is kept.
            network = found if isinstance(found, Network) else Network.init(found, dtype="float64")
            measured = _verified(network, pass_, done.preserves)
        if isinstance(found, Network):
            after = found.apply(pass_)
    except PassRefused as error:
        raise PassRefused(f"{where}{error}") from None
    return after, f"{_line(pass_, before, done.graph, done.preserves)}{measured}", done.callers


def _verified(network: Network, pass_: Pass, preserves: Preserves) -> str:
    """What a measurement says of a pass. Raises PassRefused if it breaks its promise."""
    from growir.rewrite import Preserves

    if preserves in (Preserves.EXACT, Preserves.EVAL):
        network.apply(pass_, verify=True)
        return ", verified"
    moved = max(network.measure(pass_).values(), default=0.0)
    return f", measured: outputs move by at most {moved:.1e} of their largest value"


def _line(pass_: Pass, before: Graph, after: Graph, preserves: Preserves) -> str:
    from growir.difference import change_text

    old, new = before.costs().parameters, after.costs().parameters
    costs = f"parameters {old:,} -> {new:,} ({new - old:+,})" if new != old else f"parameters {new:,} as before"
    return f"{pass_.name}: {change_text(before, after)}; {costs}; preserves {preserves}"
