"""Records that people write by hand, in JSON or as a call, and what is wrong with one, in growir's words.

Widen("layers.0", 8)              widen: its arguments are given by name: Widen(node="layers.0", by=8)
Linear(out_feature=8)             linear: unknown attribute 'out_feature'; it takes ... Did you mean 'out_features'?
Widen(node="fc", by=np.int64(8))  by=8: numbers of numpy are as good as Python's
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from datetime import date, time
from typing import TYPE_CHECKING, Any, ClassVar, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from growir.errors import GraphError, GrowirError, Problem, cut
from growir.nearest import suggestion

if TYPE_CHECKING:  # to type checkers the constructor is pydantic's, which takes each field by its type
    from pydantic._internal._model_construction import ModelMetaclass as _Made
else:

    class _Made(type(BaseModel)):
        """The class of classes whose calls, unlike `model_validate`, raise growir's errors instead of pydantic's.

        A constructor of the class's own could not do it: pydantic would call that in `model_validate` too.
        """

        def __call__(cls, *values, **fields):
            if values:
                raise cls.refusal(fields, [Problem("", _by_name(cls, values, fields))])
            fields = {name: _plain(value) for name, value in fields.items()}
            try:
                return super().__call__(**fields)
            except ValidationError as error:
                raise cls.refusal(fields, list(field_problems("", "it", error, cls))) from None


class Record(BaseModel, metaclass=_Made):
    """A model that is written by hand as well as read: its constructor refuses in growir's words.

    Attributes:
        unsaid: Fields that nobody gives.
        aside: Fields that a message names last, though they are a base class's.
    """

    unsaid: ClassVar[frozenset[str]] = frozenset()
    aside: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def record_title(cls) -> str:
        """What a message calls it."""
        return cls.__name__.lower()

    @classmethod
    def refusal(cls, fields: Mapping[str, Any], problems: list[Problem]) -> GrowirError:
        """The error that the constructor raises, for what it was given by name."""
        return GraphError([Problem(cls.__name__, problem.text) for problem in problems])


def _plain(value: object) -> object:
    """The same with Python's numbers for numpy's, in lists and tuples too; arrays are left as they are."""
    numpy = sys.modules.get("numpy")  # who has one of its numbers has imported it; a document needs none
    if numpy is None:
        return value
    if isinstance(value, numpy.generic):
        return cast("object", cast("Any", value).item())
    if not isinstance(value, (list, tuple)):
        return value
    parts = cast("list[object]", value)
    return [_plain(each) for each in parts] if any(isinstance(each, numpy.generic) for each in parts) else parts


def field_names(model: type[BaseModel]) -> list[str]:
    """The fields that a user gives, in the order to name them in."""
    record = model if issubclass(model, Record) else Record
    said = [name for name in model.model_fields if name not in record.unsaid]
    return sorted(said, key=lambda name: name in record.aside)


def _by_name(model: type[Record], values: tuple[object, ...], fields: Mapping[str, Any]) -> str:
    """How to write a call that gave values without names, if there is one way to read it."""
    names = field_names(model)
    proposed = dict(zip(names, values)) | dict(fields)
    if len(proposed) == len(values) + len(fields):
        try:
            model.model_validate(proposed)
        except (ValidationError, GrowirError):
            pass  # other values were meant, in whatever order
        else:
            shown = ", ".join(f"{name}={_literal(value)}" for name, value in proposed.items())
            return f"its arguments are given by name: {model.__name__}({shown})"
    return f"its arguments are given by name, and they are {', '.join(names) or 'none'}"


def _literal(value: object) -> str:
    """A value as the documentation types it, text in double quotes."""
    if isinstance(value, str):
        return json.dumps(cut(value))
    if isinstance(value, list):
        return cut(f"[{', '.join(map(_literal, cast('list[object]', value)))}]")
    return cut(repr(value))


def field_problems(where: str, what: str, error: ValidationError, model: type[BaseModel]) -> Iterator[Problem]:
    """What pydantic found, in the words of a document."""
    known = field_names(model)
    seen: set[str] = set()
    for fault in error.errors(include_url=False):
        field = str(fault["loc"][0]) if fault["loc"] else ""
        if field in seen:
            continue
        seen.add(field)
        if fault["type"] == "extra_forbidden":
            takes = ", ".join(known) or "no attributes"
            text = f"unknown attribute {cut(field)!r}; {what} takes {takes}.{suggestion(field, known)}"
        elif fault["type"] == "missing":
            text = f"{what} needs {field}"
        else:
            text = f"{field} is {shown(fault['input'])}: {wrong(fault)}" if field else wrong(fault)
        yield Problem(where, text)


def wrong(fault: ErrorDetails) -> str:
    """What pydantic says of one value, as a clause."""
    # Documents and run files know lists; that they become tuples is nobody's business but ours.
    said = fault["msg"].removeprefix("Value error, ").replace("valid tuple", "list").replace("Tuple", "List")
    return said[:1].lower() + said[1:]


def shown(value: object) -> str:
    """A value as a message shows it, in JSON."""
    try:
        return cut(json.dumps(value))
    except TypeError:  # no value of JSON, so that a number may look like one and is of a type that has to be told
        return cut(str(value) if isinstance(value, date | time) else repr(value))  # TOML has dates, written so
    except ValueError:  # Python spells out no integer of thousands of digits
        return "such a number"
    except RecursionError:
        return "nested deeply"
