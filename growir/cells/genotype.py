"""Genotypes: two cells in the notation of DARTS, which others' code reads and writes.

    Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ...], normal_concat=range(2, 6), reduce=[...], ...)

Of each node there are two pairs, in order: an operation, and the state that it reads.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from growir.cells.operations import OPERATIONS
from growir.cells.plan import INPUTS, MOST_NODES, Edge, Kind, concat_problems, edge_problems
from growir.errors import GraphError, Problem, cut
from growir.nearest import alternatives, neighbours

FIELDS: Final = ("normal", "normal_concat", "reduce", "reduce_concat")
LONGEST: Final = 1_000_000  # characters of a file of genotypes
PER_NODE: Final = 2  # operations of a node

Pair = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Genotype:
    """A normal and a reduction cell.

    Attributes:
        normal: Pairs of an operation and the state that it reads, two for each node.
        normal_concat: The states that the output consists of.
        reduce: The same of the cell that halves the size of maps.
        reduce_concat: The same.

    Raises:
        GraphError: With every problem: a cycle, an unknown operation, pairs that are not two for each node.
    """

    normal: tuple[Pair, ...]
    normal_concat: tuple[int, ...]
    reduce: tuple[Pair, ...]
    reduce_concat: tuple[int, ...]

    def __post_init__(self) -> None:
        problems: list[Problem] = []
        for kind, pairs, states in (
            ("normal", self.normal, self.normal_concat),
            ("reduce", self.reduce, self.reduce_concat),
        ):
            if not pairs or len(pairs) % PER_NODE or len(pairs) > PER_NODE * MOST_NODES:
                problems.append(
                    Problem(kind, f"a cell has two operations for each of its nodes, but {len(pairs)} are given")
                )
                continue
            problems += edge_problems(kind, _edges(pairs), OPERATIONS)
            problems += concat_problems(f"{kind}_concat", states, len(pairs) // PER_NODE)
        if problems:
            raise GraphError(problems, "genotype")

    @property
    def inner(self) -> None:
        """None: its operations have the inner channels that DARTS gives them."""
        return

    def edges(self, kind: Kind) -> tuple[Edge, ...]:
        """The operations of a cell, node by node."""
        return _edges(self.normal if kind == "normal" else self.reduce)

    def concat(self, kind: Kind) -> tuple[int, ...]:
        """The states that its output consists of."""
        return self.normal_concat if kind == "normal" else self.reduce_concat

    def __str__(self) -> str:
        return (
            f"Genotype(normal={list(self.normal)}, normal_concat={list(self.normal_concat)}, "
            f"reduce={list(self.reduce)}, reduce_concat={list(self.reduce_concat)})"
        )


def _edges(pairs: Sequence[Pair]) -> tuple[Edge, ...]:
    return tuple(Edge(source, INPUTS + k // PER_NODE, name) for k, (name, source) in enumerate(pairs))


def genotype(source: str | os.PathLike[str]) -> Genotype:
    """A genotype by the name it was published with, as text, or from a file.

    A file has one, as text, or several as Python assigns them, NAME = Genotype(...); then "file.py:NAME" says which.
    Nothing of it is run.

    Raises:
        GraphError: There is none, or something is wrong with it.
    """
    text = os.fspath(source)
    if text in PUBLISHED:
        return _read(PUBLISHED[text], "", None)
    if "Genotype(" in text:
        return _read(text, "genotype", None)
    path, name = Path(text), None
    if not _is_file(path) and ":" in text:
        place, _, name = text.rpartition(":")
        path = Path(place)
    if isinstance(source, str) and not path.suffix and not _is_file(path):
        near = alternatives(text, PUBLISHED)
        raise GraphError(
            f"there is no genotype {cut(text)!r}; one is a published name, a text that begins with Genotype(, or a "
            f"file.{near}"
        )
    if "\0" in text:
        raise GraphError(f"{cut(text)!r} is no name of a file, and no genotype")
    try:
        with path.open("rb") as file:
            data = file.read(LONGEST + 1)
        found = data.decode()
    except OSError as error:
        raise GraphError(f"{path}: there is no genotype here: {error.strerror or error}{neighbours(path)}") from None
    except UnicodeDecodeError:
        raise GraphError(f"{path}: this is no text, so no genotype") from None
    if len(data) > LONGEST:
        raise GraphError(f"{path}: this file is longer than {LONGEST:,} bytes, so no list of genotypes")
    return _read(found, str(path), name)


def _is_file(path: Path) -> bool:
    """Whether there is such a file; there is none of a name that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _read(text: str, where: str, name: str | None) -> Genotype:
    """One genotype of a text that Python could read."""
    try:
        tree = ast.parse(text.strip())
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else "it cannot be read"
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise GraphError(f"{where}{line}: this is no genotype as DARTS writes it: {reason}") from None
    calls: dict[str, ast.Call] = {}
    for statement in tree.body:
        value = statement.value if isinstance(statement, ast.Expr | ast.Assign) else None
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "Genotype":
            names = statement.targets if isinstance(statement, ast.Assign) else []
            called = names[0].id if names and isinstance(names[0], ast.Name) else ""
            calls[called] = value
    if name is not None and name not in calls:
        raise GraphError(f"{where}: it has no genotype {cut(name)!r}.{alternatives(name, calls)}")
    if not calls:
        raise GraphError(f"{where}: this is no genotype as DARTS writes it, Genotype(normal=[...], ...)")
    if name is None and len(calls) > 1:
        listed = ", ".join(cut(each) for each in calls)
        raise GraphError(f"{where}: it has several genotypes; say which, as in {where}:NAME. There are {listed}")
    return _made(calls[name or next(iter(calls))], where)


def _made(call: ast.Call, where: str) -> Genotype:
    given: dict[str, Any] = dict(zip(FIELDS, map(_value, call.args), strict=False))
    given |= {word.arg: _value(word.value) for word in call.keywords if word.arg}
    problems: list[Problem] = []
    for field in FIELDS:
        value = given.get(field)
        of_states = field.endswith("_concat")
        if field not in given:
            problems.append(Problem(field, f"a genotype has {', '.join(FIELDS)}, but this one is missing"))
        elif not (_are_whole if of_states else _are_pairs)(value):
            wanted = "states" if of_states else "pairs of an operation and a state"
            problems.append(Problem(field, f"a list of {wanted} is needed"))
    more = [field for field in given if field not in FIELDS]
    problems += [Problem(field, f"a genotype has only {', '.join(FIELDS)}") for field in more]
    if len(call.args) > len(FIELDS):
        problems.append(Problem("", f"a genotype has {len(FIELDS)} parts, but {len(call.args)} are given"))
    if problems:
        raise GraphError(problems, where or "genotype")
    try:
        pairs = {kind: tuple((str(name), int(state)) for name, state in given[kind]) for kind in ("normal", "reduce")}
        return Genotype(pairs["normal"], tuple(given["normal_concat"]), pairs["reduce"], tuple(given["reduce_concat"]))
    except GraphError as error:
        raise GraphError(error.problems, where or "genotype") from None


def _value(node: ast.expr) -> object:
    """A literal, or range(2, 6), which is how published genotypes write states; None for anything else."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("range", "list"):
        bounds = [_value(each) for each in node.args]
        if node.func.id == "list":
            return bounds[0] if len(bounds) == 1 else None
        if 1 <= len(bounds) <= 2 and all(type(bound) is int and 0 <= bound <= MOST_NODES for bound in bounds):
            return list(range(*cast("list[int]", bounds)))
        return None
    try:
        found: object = ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError, MemoryError):
        return None
    return found


def _are_pairs(value: object) -> bool:
    listed = cast("Sequence[object]", value) if isinstance(value, list | tuple) else None
    return listed is not None and all(map(_is_pair, listed))


def _is_pair(value: object) -> bool:
    parts = cast("Sequence[object]", value) if isinstance(value, list | tuple) else ()
    return len(parts) == 2 and isinstance(parts[0], str) and _is_state(parts[1])


def _are_whole(value: object) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_state, cast("Sequence[object]", value)))


def _is_state(value: object) -> bool:
    """Whether a value can be the number of a state; of thousands of digits none could even be told."""
    return type(value) is int and abs(value) < 10**9


# As their authors published them: DARTS (Liu et al. 2018), its two orders; NASNet (Zoph et al. 2018); AmoebaNet (Real
# et al. 2019); SNAS (Xie et al. 2019); P-DARTS (Chen et al. 2019); PC-DARTS (Xu et al. 2020), by CIFAR-10 and ImageNet.
PUBLISHED: Final[dict[str, str]] = {
    "DARTS_V1": (
        "Genotype(normal=[('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 0), ('sep_conv_3x3', 1), "
        "('skip_connect', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 2)], "
        "normal_concat=range(2, 6), reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), "
        "('max_pool_3x3', 0), ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('avg_pool_3x3', 0)], "
        "reduce_concat=range(2, 6))"
    ),
    "DARTS_V2": (
        "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
        "('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], "
        "normal_concat=range(2, 6), reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), "
        "('max_pool_3x3', 1), ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], "
        "reduce_concat=range(2, 6))"
    ),
    "NASNet": (
        "Genotype(normal=[('sep_conv_5x5', 1), ('sep_conv_3x3', 0), ('sep_conv_5x5', 0), ('sep_conv_3x3', 0), "
        "('avg_pool_3x3', 1), ('skip_connect', 0), ('avg_pool_3x3', 0), ('avg_pool_3x3', 0), ('sep_conv_3x3', 1), "
        "('skip_connect', 1)], normal_concat=[2, 3, 4, 5, 6], reduce=[('sep_conv_5x5', 1), ('sep_conv_7x7', 0), "
        "('max_pool_3x3', 1), ('sep_conv_7x7', 0), ('avg_pool_3x3', 1), ('sep_conv_5x5', 0), ('skip_connect', 3), "
        "('avg_pool_3x3', 2), ('sep_conv_3x3', 2), ('max_pool_3x3', 1)], reduce_concat=[4, 5, 6])"
    ),
    "AmoebaNet": (
        "Genotype(normal=[('avg_pool_3x3', 0), ('max_pool_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_5x5', 2), "
        "('sep_conv_3x3', 0), ('avg_pool_3x3', 3), ('sep_conv_3x3', 1), ('skip_connect', 1), ('skip_connect', 0), "
        "('avg_pool_3x3', 1)], normal_concat=[4, 5, 6], reduce=[('avg_pool_3x3', 0), ('sep_conv_3x3', 1), "
        "('max_pool_3x3', 0), ('sep_conv_7x7', 2), ('sep_conv_7x7', 0), ('avg_pool_3x3', 1), ('max_pool_3x3', 0), "
        "('max_pool_3x3', 1), ('conv_7x1_1x7', 0), ('sep_conv_3x3', 5)], reduce_concat=[3, 4, 6])"
    ),
    "SNAS": (
        "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('skip_connect', 0), ('dil_conv_3x3', 1), "
        "('skip_connect', 1), ('skip_connect', 0), ('skip_connect', 0), ('sep_conv_3x3', 1)], "
        "normal_concat=range(2, 6), reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('max_pool_3x3', 1), "
        "('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), ('dil_conv_5x5', 2)], "
        "reduce_concat=range(2, 6))"
    ),
    "PDARTS": (
        "Genotype(normal=[('skip_connect', 0), ('dil_conv_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 1), "
        "('sep_conv_3x3', 1), ('sep_conv_3x3', 3), ('sep_conv_3x3', 0), ('dil_conv_5x5', 4)], "
        "normal_concat=range(2, 6), reduce=[('avg_pool_3x3', 0), ('sep_conv_5x5', 1), ('sep_conv_3x3', 0), "
        "('dil_conv_5x5', 2), ('max_pool_3x3', 0), ('dil_conv_3x3', 1), ('dil_conv_3x3', 1), ('dil_conv_5x5', 3)], "
        "reduce_concat=range(2, 6))"
    ),
    "PC_DARTS_cifar": (
        "Genotype(normal=[('sep_conv_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 0), ('dil_conv_3x3', 1), "
        "('sep_conv_5x5', 0), ('sep_conv_3x3', 1), ('avg_pool_3x3', 0), ('dil_conv_3x3', 1)], "
        "normal_concat=range(2, 6), reduce=[('sep_conv_5x5', 1), ('max_pool_3x3', 0), ('sep_conv_5x5', 1), "
        "('sep_conv_5x5', 2), ('sep_conv_3x3', 0), ('sep_conv_3x3', 3), ('sep_conv_3x3', 1), ('sep_conv_3x3', 2)], "
        "reduce_concat=range(2, 6))"
    ),
    "PC_DARTS_image": (
        "Genotype(normal=[('skip_connect', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 0), ('skip_connect', 1), "
        "('sep_conv_3x3', 1), ('sep_conv_3x3', 3), ('sep_conv_3x3', 1), ('dil_conv_5x5', 4)], "
        "normal_concat=range(2, 6), reduce=[('sep_conv_3x3', 0), ('skip_connect', 1), ('dil_conv_5x5', 2), "
        "('max_pool_3x3', 1), ('sep_conv_3x3', 2), ('sep_conv_3x3', 1), ('sep_conv_5x5', 0), ('sep_conv_3x3', 3)], "
        "reduce_concat=range(2, 6))"
    ),
}
