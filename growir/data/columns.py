"""Columns of a table as numbers: which are read, what each holds, and rows as samples.

    age,colour,bought        features   age: a number          colour: red or white
    31,red,yes               sample     31                     1  0
    45,white,no                         45                     0  1

A column whose cells are all numbers is a number; one without any is words, each of them a category. A mixture is
refused, since nobody but the user knows which is the mistake.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from growir.data.arrays import LARGEST, varying
from growir.data.dataset import Meaning, Part
from growir.data.description import Description, Feature
from growir.data.table import MISSING, Table, number
from growir.data.targets import Asked
from growir.errors import DataError, cut
from growir.nearest import suggestion

MANY = 50  # categories of a column, above which it takes a word that they are meant
MOST = 1000  # categories of a column
SHOWN = 3  # places that a message names


@dataclass(frozen=True, slots=True)
class Columns:
    """What is said of a table.

    Attributes:
        target: The column to learn.
        ignore: Columns that are not read.
        categories: Columns that hold words, even if they look like numbers, and however many there are.
        drop: Whether rows with missing values are left out; else they are refused.
        task: What the target sets.
    """

    target: str | None = None
    ignore: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    drop: bool = False
    task: Asked = "auto"


@dataclass(frozen=True, slots=True)
class Learned:
    """A table as samples.

    Attributes:
        part: Samples and targets.
        meaning: Its columns.
    """

    part: Part
    meaning: Meaning


def learn(table: Table, said: Columns) -> Learned:
    """What a table to train on holds.

    Raises:
        DataError: A column that is named is not there, or cells are missing, mixed or of too many kinds.
    """
    _check_names(table, said)
    assert said.target is not None
    read = [name for name in table.names if name != said.target and name not in said.ignore]
    if not read:
        raise DataError(f"{table.source}: no column is left to learn {cut(said.target)!r} from; ignore fewer")
    table = _complete(table, [*read, said.target], drop=said.drop)
    features = tuple(_feature(table, name, said) for name in read)
    part = Part(_samples(table, features), _targets(table, said), table.source, "the table", _column(said.target))
    _tell_of_lost_digits(table, features)
    for feature in features:
        if feature.categories is None and _counts(table.columns[feature.name]):
            warnings.warn(
                f"{table.source}: column {cut(feature.name)!r} counts the rows, and the network will read it; "
                f'ignore = ["{cut(feature.name)}"] leaves it out',
                stacklevel=2,
            )
    return Learned(part, Meaning(features, said.target))


def rows(table: Table, description: Description) -> NDArray[np.float64]:
    """Rows of another table as samples, its columns taken by name.

    Raises:
        DataError: A column is not there, or a cell holds what no row of the training data could.
    """
    features = description.features
    if features is None:
        shape = ", ".join(map(str, description.sample))
        raise DataError(
            f"{table.source}: the network was trained on arrays of shape ({shape}), not on a table; give an .npz file"
        )
    _need(table, [feature.name for feature in features])
    _complete(table, [feature.name for feature in features], drop=None)
    return _samples(table, features)


def test_part(table: Table, meaning: Meaning, said: Columns) -> Part:
    """A table to test on, by what another taught. Raises DataError."""
    _need(table, [feature.name for feature in meaning.features])
    _need(table, [meaning.target])
    table = _complete(table, [*(feature.name for feature in meaning.features), meaning.target], drop=said.drop)
    target = _targets(table, said)
    return Part(_samples(table, meaning.features), target, table.source, "the table", _column(meaning.target))


def _column(name: str) -> str:
    return f"column {cut(name, 40)!r}"


def _quoted(names: Sequence[str]) -> str:
    shown = ", ".join(cut(name, 24) for name in names[:12])
    return shown + (", ..." if len(names) > 12 else "")


def _check_names(table: Table, said: Columns) -> None:
    """Refuse names that the table has not, or that contradict each other."""
    if said.target is None:
        last = table.names[-1]
        raise DataError(
            f"{table.source}: say which column is to be learned, as with --target {_argument(last)}, or "
            f'target = "{cut(last)}" in [data]; there are {_quoted(table.names)}'
        )
    for key, names in (("target", (said.target,)), ("ignore", said.ignore), ("categories", said.categories)):
        for name in names:
            if name not in table.columns:
                near = suggestion(name, table.names)
                raise DataError(
                    f"{table.source}: {key} names {cut(name)!r}, but there is no such column; there are "
                    f"{_quoted(table.names)}.{near}"
                )
    if said.target in said.ignore:
        raise DataError(f"{table.source}: column {cut(said.target)!r} is the target and ignored too; leave one out")
    both = next((name for name in said.categories if name in said.ignore), None)
    if both is not None:
        raise DataError(f"{table.source}: column {cut(both)!r} is in categories and in ignore; leave one out")


def _argument(name: str) -> str:
    return name if re.fullmatch(r"[\w.-]+", name) else f"'{name}'"


def _need(table: Table, names: Sequence[str]) -> None:
    missing = [name for name in names if name not in table.columns]
    if missing:
        near = suggestion(missing[0], [name for name in table.names if name not in names])
        raise DataError(
            f"{table.source}: there is no column {cut(missing[0])!r}"
            f"{f' ({len(missing)} columns are missing)' if len(missing) > 1 else ''}, which the network was trained "
            f"with; there are {_quoted(table.names)}; name them as in the training data, in any order.{near}"
        )


def _complete(table: Table, names: Sequence[str], *, drop: bool | None) -> Table:
    """The table without missing values in some of its columns.

    Args:
        table: The table.
        names: The columns to look at.
        drop: Whether rows that lack a value are left out; None where nobody is asked.

    Raises:
        DataError: Values are missing, and their rows are not to be left out.
    """
    holes = [(row, name) for name in names for row, cell in enumerate(table.columns[name]) if cell in MISSING]
    if not holes:
        return table
    empty = {row for row, _ in holes}
    if drop:
        if len(empty) == len(table):
            raise DataError(f"{table.source}: every row lacks a value; none is left")
        warnings.warn(f"{table.source}: {len(empty)} of {len(table)} rows lack a value and are left out", stacklevel=2)
        return table.without(empty)
    holes.sort(key=lambda hole: hole[0])
    places = ", ".join(f"line {table.lines[row]} column {cut(name, 24)!r}" for row, name in holes[:SHOWN])
    more = f" and {len(holes) - SHOWN} more" if len(holes) > SHOWN else ""
    one = len(holes) == 1
    fill = f"fill {'it' if one else 'them'} in"
    row = "row" if len(empty) == 1 else "rows"
    raise DataError(
        f"{table.source}: {'a value is' if one else f'{len(holes)} values are'} missing: {places}{more}; "
        + (
            f"{fill}, or leave the {row} out"
            if drop is None
            else f'{fill}, leave {len(empty)} {row} out with missing = "drop", or a column with ignore'
        )
    )


def _feature(table: Table, name: str, said: Columns) -> Feature:
    """What a column holds."""
    cells = table.columns[name]
    if name not in said.categories:
        if _numbers(cells) is not None:
            return Feature(name=name)
        _refuse_mixture(table, name, f'categories = ["{cut(name)}"] if all of them are words')
        _refuse_commas(table, name)
    words = sorted(set(cells))
    if name not in said.categories and (len(words) > MANY or 2 * len(words) > max(len(cells), 20)):
        raise DataError(
            f"{table.source}: column {cut(name)!r} holds {len(words)} different words in {len(cells)} rows, such as "
            f'{cut(words[0], 24)!r}; say ignore = ["{cut(name)}"] to leave it out, or categories = ["{cut(name)}"] if '
            "each is to be an input of its own"
        )
    if len(words) > MOST:
        raise DataError(
            f"{table.source}: column {cut(name)!r} holds {len(words)} categories; at most {MOST} are possible"
        )
    return Feature(name=name, categories=tuple(words))


def _numbers(cells: Sequence[str]) -> NDArray[np.float64] | None:
    """The numbers of a column, or None if a cell holds none."""
    try:
        found = np.array(cells, dtype=np.float64)
    except ValueError:
        return None
    # float reads more than numbers: 1_000, inf.
    return found if np.isfinite(found).all() and not any("_" in cell for cell in cells) else None


def _tell_of_lost_digits(table: Table, features: Sequence[Feature]) -> None:
    """Warn of columns that vary by less than float32 tells apart, such as seconds since 1970 within a minute."""
    for feature in features:
        cells = table.columns[feature.name]
        if feature.categories is None and len(set(cells)) > 1:
            numbers = np.array(cells, dtype=np.float64)
            if not varying(numbers[:, None].astype(np.float32))[0] and np.ptp(numbers) > 0:
                warnings.warn(
                    f"{table.source}: column {cut(feature.name)!r} is the same in every row in float32, so it is not "
                    f"read; subtract {numbers.min():g} from it, or scale it",
                    stacklevel=3,
                )


def _counts(cells: Sequence[str]) -> bool:
    """Whether a column only numbers the rows, from 0 or 1."""
    first = cells[0]
    return first in ("0", "1") and all(cell == str(row) for row, cell in enumerate(cells, int(first)))


def _refuse_commas(table: Table, name: str) -> None:
    """Raise DataError if a column holds numbers with commas, which are two things in two countries."""
    for row, cell in enumerate(table.columns[name]):
        if re.fullmatch(r"[+-]?\d+(,\d+)+", cell):
            raise DataError(
                f"{table.source}: line {table.lines[row]} column {cut(name)!r}: {cut(cell, 24)} has a comma; write a "
                "decimal comma as a point, and leave a comma between thousands out"
            )


def _refuse_mixture(table: Table, name: str, remedy: str) -> None:
    """Raise DataError if some cells of a column are numbers and some are not."""
    cells = table.columns[name]
    numeric = [number(cell) is not None for cell in cells]
    count = sum(numeric)
    if not count:
        return
    if count == len(cells):
        row = next(row for row, cell in enumerate(cells) if not np.isfinite(float(cell)))
        raise DataError(
            f"{table.source}: line {table.lines[row]} column {cut(name)!r}: {cut(cells[row], 24)} is beyond the range "
            "of floating-point numbers"
        )
    words = count * 2 < len(cells)
    row = numeric.index(words)
    what = "is a number" if words else "is no number"
    others = f"{len(cells) - count} of {len(cells)} are words" if words else f"{count} of {len(cells)} are numbers"
    raise DataError(
        f"{table.source}: line {table.lines[row]} column {cut(name)!r}: {cut(cells[row], 24)!r} {what}, but {others}; "
        f"mend the cell, or say {remedy}"
    )


def _samples(table: Table, features: Sequence[Feature]) -> NDArray[np.float64]:
    """Rows as numbers, (rows, sum of the features' widths)."""
    found = np.zeros((len(table), sum(feature.width for feature in features)))
    place = 0
    for feature in features:
        cells = table.columns[feature.name]
        if feature.categories is None:
            numbers = _numbers(cells)
            if numbers is None:
                row = next(row for row, cell in enumerate(cells) if _numbers([cell]) is None)
                raise DataError(
                    f"{table.source}: line {table.lines[row]} column {cut(feature.name)!r}: {cut(cells[row], 24)!r} is "
                    "no number, but all were in the training data; mend the cell"
                )
            if len(numbers) and np.abs(numbers).max() > LARGEST:
                row = int(np.abs(numbers).argmax())
                raise DataError(
                    f"{table.source}: line {table.lines[row]} column {cut(feature.name)!r}: {cut(cells[row], 24)} is "
                    f"too large; scale the column to below {LARGEST:.0e}"
                )
            found[:, place] = numbers
        else:
            index = {word: k for k, word in enumerate(feature.categories)}
            for row, cell in enumerate(cells):
                if cell not in index:
                    raise DataError(
                        f"{table.source}: line {table.lines[row]} column {cut(feature.name)!r}: {cut(cell, 24)!r} is "
                        f"none of the categories of the training data, {_quoted(feature.categories)}; mend the cell, "
                        f"or train on data that has it.{suggestion(cell, feature.categories)}"
                    )
                found[row, place + index[cell]] = 1
        place += feature.width
    return found


def _targets(table: Table, said: Columns) -> NDArray[Any]:
    """The target column: whole numbers, other numbers, or words."""
    assert said.target is not None
    cells = table.columns[said.target]
    if said.target in said.categories:
        return np.array(cells, dtype=str)
    numbers = _numbers(cells)
    if numbers is None:
        _refuse_commas(table, said.target)
        if said.task != "classification":
            remedy = 'task = "classification" if all of them are labels'
            _refuse_mixture(table, said.target, remedy if said.task == "auto" else 'task = "classification"')
        return np.array(cells, dtype=str)
    if said.task != "regression" and any(re.fullmatch(r"0\d+", cell) for cell in cells):
        return np.array(cells, dtype=str)  # 01067 is a code and no amount, and its answer is to be found again
    if all(re.fullmatch(r"[+-]?\d+", cell) for cell in cells) and np.abs(numbers).max() < 2**63:
        return np.array([int(cell) for cell in cells], np.int64)
    return numbers
