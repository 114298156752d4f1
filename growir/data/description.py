"""What data was: how its rows become the numbers a network takes, and how the network's numbers become answers.

A description is learned from the data that a run trains on, never changes, and stands in the run directory as
data.json, so that whoever has the run can ask the network about new rows.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from growir.errors import DataError
from growir.fields import field_problems

SCHEMA = "growir-data/1"
FILE = "data.json"

Task = Literal["classification", "regression"]
Label = Annotated[bool, Field(strict=True)] | Annotated[int, Field(strict=True)] | Annotated[str, Field(strict=True)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Feature(_Record):
    """A column of a table that the network reads.

    Attributes:
        name: Of the column.
        categories: Its words, in the order of the inputs that stand for them; None where it holds numbers.
    """

    name: str
    categories: Annotated[tuple[str, ...], Field(min_length=1)] | None = None

    @property
    def width(self) -> int:
        """How many numbers of a sample it becomes: one, or one for each category, which is 1 where the word is it."""
        return 1 if self.categories is None else len(self.categories)


class Description(_Record):
    """How rows become numbers, and numbers answers.

    Attributes:
        task: What the network was trained for.
        sample: Shape of one sample, as the network takes it.
        outputs: Numbers that the network gives for a sample.
        classes: The label of each output, sorted; None for regression.
        features: The columns of the table that samples are made of, in order; None where they are arrays.
        target: The column that is learned; None where the targets are arrays.
    """

    task: Task
    sample: tuple[Annotated[int, Field(strict=True, gt=0)], ...]
    outputs: Annotated[int, Field(strict=True, gt=0)]
    classes: tuple[Label, ...] | None = None
    features: tuple[Feature, ...] | None = None
    target: str | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Description:
        if (self.classes is None) != (self.task == "regression"):
            raise ValueError("classes stand where the task is classification, and nowhere else")
        if self.classes is not None and (len(self.classes) != self.outputs or len(set(self.classes)) != self.outputs):
            raise ValueError(f"there must be one class for each of the {self.outputs} outputs, each its own")
        if self.features is not None:
            names = [feature.name for feature in self.features]
            if len(set(names)) != len(names):
                raise ValueError("two features have one name")
            if self.sample != (sum(feature.width for feature in self.features),):
                raise ValueError(f"the features do not make a sample of shape {list(self.sample)}")
        return self

    def numbers(self) -> int:
        """How many numbers one sample holds."""
        return math.prod(self.sample)

    def to_json(self) -> str:
        """The text of data.json."""
        entries = {"schema": SCHEMA, **self.model_dump(mode="json", exclude_none=True)}
        return json.dumps(entries, indent=1, ensure_ascii=False) + "\n"


def read_description(folder: Path) -> Description:
    """What the data of a run was. Raises DataError if its folder does not say."""
    path = folder / FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(
            f"{path}: there is no such file; it says how rows become numbers, and every run directory has one since "
            "growir 0.1.0. Grow the network again to have it written"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: this file is damaged: {error}") from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: this file is damaged: it holds no JSON object")
    entries = cast("dict[str, Any]", found)
    version = entries.pop("schema", None)
    if version != SCHEMA:
        raise DataError(f"{path}: schema is {version!r}, but this growir reads {SCHEMA!r}")
    try:
        return Description.model_validate(entries)
    except ValidationError as error:
        problem = next(iter(field_problems("", "a description", error, Description)))
        raise DataError(f"{path}: this file is damaged: {problem}") from None
