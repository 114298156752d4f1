"""A training checkpoint grown by a plan, for `growir rewrite --plan`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from growir.cli.output import print_lines, printable


@dataclass(frozen=True, slots=True)
class Where:
    """What people say of a checkpoint that does not show by itself.

    Attributes:
        file: The optimizer's own file, where it has one.
        weights: Where the state_dicts are.
        optimizers: Where the saved optimizers are; all if none is said.
        kinds: The names of their classes in torch.optim.
        names: A JSON file of the names in each group.
    """

    file: Path | None
    weights: Sequence[str]
    optimizers: Sequence[str]
    kinds: Sequence[str]
    names: Path | None


def grow_file(path: Path, plan: Path, out: Path, where: Where) -> None:
    """Write the large model's checkpoint, and print what was done. Raises GrowirError; nothing is written then."""
    from growir.live.checkpoint import grow_checkpoint
    from growir.live.files import check_free, read_state, write_state, write_states
    from growir.live.rows import kind_named
    from growir.planning import read_plan

    check_free(out)
    found = read_plan(plan.read_bytes(), str(plan))
    state, metadata = read_state(path)
    options: dict[str, Any] = {
        "weights": list(where.weights) or None,
        "optimizer": list(where.optimizers) or None,
        "kind": [kind_named(name) for name in where.kinds] or None,
        "names": _names(where.names),
    }
    if where.file is None:
        grown, report = grow_checkpoint(state, found, **options)
        write_state(out, grown, metadata)
    else:
        if path.name == where.file.name:
            _refuse(f"{path} and {where.file} have one name, so they cannot lie in one folder; rename one")
        both = {"weights": state, "optimizer": read_state(where.file)[0]}
        grown, report = grow_checkpoint(both, found, **options)
        weights, states = (grown["weights"], metadata), (grown["optimizer"], dict[str, str]())
        write_states(out.resolve(), {path.name: weights, where.file.name: states})
    print_lines(str(report))
    print(printable(f"wrote {out}"))


def _names(path: Path | None) -> list[list[str]] | None:
    from growir.document import parse
    from growir.errors import GraphError

    if path is None:
        return None
    try:
        found = parse(path.read_bytes(), "list of names")
    except GraphError as error:
        raise error.at(str(path)) from None
    groups = cast("list[object]", found) if isinstance(found, list) else [found]
    if not all(
        isinstance(group, list) and all(isinstance(name, str) for name in cast("list[object]", group))
        for group in groups
    ):
        _refuse(f"--names: {path} must hold a list for each group of the optimizer, of its parameters' names")
    return cast("list[list[str]]", groups)


def _refuse(text: str) -> None:
    from growir.errors import ModelError

    raise ModelError(text)
