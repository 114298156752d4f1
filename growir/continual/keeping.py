"""What is kept of a sequence after each task, so that it goes on from there: figures, and what the method has.

state/state.json    which sequence it is, and the figures of the tasks that are done
state/method/       what the method keeps
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from growir import store
from growir.document import decode
from growir.errors import GraphError, RunError

SCHEMA = "growir-sequence/1"
STATE, FIGURES, METHOD = "state", "state.json", "method"
Row = Annotated[tuple[float | None, ...], Field(max_length=10_000)]


class Kept(BaseModel):
    """A sequence after a task.

    Attributes:
        given: A digest of network, tasks, method, settings and seed: another sequence does not go on here.
        names: Of the tasks that are done.
        accuracy: A row for each, as `ContinualResult.accuracy`; None where it was not measured.
        untrained: What networks have before any training, for every task of the sequence.
        parameters: How many numbers were kept after each.
        sizes: How many bytes these were.
        notes: What is to be said of each task, such as a target that it missed; empty where there is nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    given: str
    names: tuple[str, ...] = ()
    accuracy: tuple[Row, ...] = ()
    untrained: Row = ()
    parameters: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


def keep(folder: Path, state: Kept, fill: Callable[[Path], None]) -> None:
    """Write the state of a sequence, in place of the one before.

    Args:
        folder: Of the sequence.
        state: Its figures.
        fill: Writes what the method keeps into a folder.

    Raises:
        ExportError: It cannot be written; the state before is there.
    """

    def whole(place: Path) -> None:
        (place / METHOD).mkdir()
        fill(place / METHOD)
        text = json.dumps({"schema": SCHEMA, **state.model_dump(mode="json")}, indent=1, allow_nan=False)
        (place / FIGURES).write_text(text + "\n", encoding="utf-8")

    store.write_folder(folder.resolve() / STATE, whole)


def kept(folder: Path, given: str) -> Kept | None:
    """The state of a sequence; None where no task is done.

    Raises:
        RunError: What is there is of another sequence, or damaged.
    """
    place = folder.resolve() / STATE
    store.recover(place)
    if not place.exists():
        return None
    where = place / FIGURES
    try:
        data = decode(where.read_bytes())
        if data.pop("schema", None) != SCHEMA:
            raise RunError(f"{where}: this is no {SCHEMA}; give another folder")
        found = Kept.model_validate(data)
    except OSError as error:
        raise RunError(f"{where}: cannot be read: {error.strerror or error}; give another folder") from None
    except (GraphError, ValidationError) as error:
        raise RunError(f"{where}: is damaged; give another folder: {error}") from None
    if found.given != given:
        raise RunError(
            f"{folder}: the sequence in it has another network, tasks, method, settings or seed; give those it was "
            "started with, or another folder"
        )
    return found


def row(values: Sequence[float]) -> Row:
    """A row of figures as JSON takes it."""
    return tuple(None if math.isnan(value) else float(value) for value in values)


def method_folder(folder: Path) -> Path:
    """Where the method's part of the state is."""
    return folder.resolve() / STATE / METHOD
