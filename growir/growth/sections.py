"""What the sections of a run file share: frozen models that know no other key, and the kinds of their values."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, cast

from pydantic import AfterValidator, ConfigDict, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from growir.errors import GrowirError, Problem, RunError, listed
from growir.fields import Record
from growir.ops.base import MAX_REAL

MOST = 2**63 - 1  # the largest whole number of TOML
MAX_CHOICES = 1000  # of a list of which each is tried
Word = Annotated[str, Field(max_length=200)]


def _names_a_folder(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}", value):
        raise ValueError("it names folders: at most 60 letters, digits, - and _, starting with a letter or digit")
    return value


FolderName = Annotated[Word, AfterValidator(_names_a_folder)]
Count = Annotated[int, Field(strict=True, gt=0, le=MOST)]
Whole = Annotated[int, Field(strict=True, ge=0, le=MOST)]
Rate = Annotated[float, Field(strict=True, gt=0, le=10, allow_inf_nan=False)]
Share = Annotated[float, Field(strict=True, gt=0, le=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(strict=True, gt=0, le=MAX_REAL, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(strict=True, ge=0, le=MAX_REAL, allow_inf_nan=False)]


def told_as(what: str) -> WrapValidator:
    """One message for a value that is neither a number nor one of the words of a union.

    Pydantic's own would name one half of the union, by what was given.

    Args:
        what: What the value may be, which follows on "it is".
    """

    def validate(value: object, handler: ValidatorFunctionWrapHandler) -> object:
        try:
            return handler(value)
        except ValidationError:
            raise ValueError(f"it is {what}") from None

    return WrapValidator(validate)


def run_file(data: Mapping[str, Any]) -> str:
    """The text of a run file with these entries, those that are mappings as sections."""
    lines = [f"{key} = {_toml(value)}" for key, value in data.items() if not isinstance(value, dict)]
    for key, value in data.items():
        if isinstance(value, dict):
            section = cast("dict[str, object]", value)
            lines += ["", f"[{key}]", *(f"{name} = {_toml(entry)}" for name, entry in section.items())]
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, dict):
        entries = cast("dict[str, object]", value).items()
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(entry)}" for key, entry in entries) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, cast("list[object]", value))) + "]"
    # JSON's spelling is TOML's, but for characters: surrogate pairs are none, and DEL must be escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


class Section(Record):
    """A section of a run file; a subclass says under "Attributes" what each setting means.

    Its constructor raises a RunError that names what is wrong.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def refusal(cls, fields: Mapping[str, Any], problems: list[Problem]) -> GrowirError:
        """The error that the constructor raises."""
        return RunError(listed([Problem(cls.__name__, problem.text) for problem in problems]))
