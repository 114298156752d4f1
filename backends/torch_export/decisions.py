"""What a model compares its sizes with: `if x.shape[1] > 512`, `min(length, 64)`, x[:, :512].

The model runs once more on the example, and every size that it asks of a tensor is a whole number that writes down what
it is compared with. So the sizes at which it would decide otherwise are known, however far from the example's.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch.overrides import TorchFunctionMode

from growir.backends.torch_export.uses import Line, calling_line, line_text

LARGEST = 2**17  # no decision beyond this size is looked for
MAX_DECISIONS = 12


@dataclass(frozen=True, slots=True)
class Decision:
    """A size that the model compares with a number.

    Attributes:
        size: The size in the example; it may be one of an inner tensor.
        number: What it is compared with.
        line: The model's line, 'file:line: code', or '' if torch's own code compares.
    """

    size: int
    number: int
    line: str


def decisions(run: Callable[[], object]) -> list[Decision]:
    """All comparisons of sizes with other numbers in one run of a model."""
    asked: dict[tuple[int, int], Line | None] = {}
    try:
        with _Asking(asked):
            run()
    except Exception:  # code that minds what kind of whole number it gets: what it asked until then is known
        pass
    found = [Decision(size, number, line_text(line) if line else "") for (size, number), line in asked.items()]
    return found[:MAX_DECISIONS]


class _Asking(TorchFunctionMode):
    """Gives the model sizes that remember what they are compared with."""

    def __init__(self, asked: dict[tuple[int, int], Line | None]) -> None:
        super().__init__()
        self.asked = asked

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result: object = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Size):
            return torch.Size([_Size(size, self.asked) for size in result])
        if func is torch.Tensor.size:
            return _Size(cast("int", result), self.asked)
        if func is torch.Tensor.__getitem__:
            for size, number in _bounds(args[0], args[1]):
                _note(self.asked, size, number)
        return result


def _bounds(tensor: torch.Tensor, index: Any) -> list[tuple[int, int]]:
    """The sizes of a tensor that slices cut, each with a bound of the slice: x[:, :512] cuts at 512, x[:, -8:] at 8."""
    given = cast("Sequence[Any]", index if isinstance(index, tuple) else (index,))
    parts: list[Any] = [part for part in given if part is not None]
    ahead = next((k for k, part in enumerate(parts) if part is Ellipsis), len(parts))
    sizes = list(torch.Tensor.size(tensor))
    behind = len(parts) - ahead - 1  # the parts after an ellipsis
    cut = [*zip(parts[:ahead], sizes), *(zip(parts[-behind:], sizes[-behind:]) if behind > 0 else ())]
    found: list[tuple[int, int]] = []
    for part, size in cut:
        if isinstance(part, slice):
            bounds: list[Any] = [part.start, part.stop]
            found += [(size, abs(bound)) for bound in bounds if isinstance(bound, int)]
    return found


def _note(asked: dict[tuple[int, int], Line | None], size: int, number: object) -> None:
    if isinstance(number, int | float) and size > 0 and 0 < number <= LARGEST and number != size:
        asked.setdefault((int(size), int(number)), calling_line(inspect.currentframe()))


class _Size(int):
    """A whole number that writes down what it is compared with; what is computed from it by whole numbers does, too."""

    asked: dict[tuple[int, int], Line | None]

    def __new__(cls, value: int, asked: dict[tuple[int, int], Line | None]) -> _Size:
        made = super().__new__(cls, value)
        made.asked = asked
        return made

    def __hash__(self) -> int:
        return hash(int(self))


def _comparing(function: Callable[[Any, Any], bool]) -> Callable[[_Size, object], bool]:
    def compare(self: _Size, other: object) -> bool:
        if not isinstance(other, _Size):  # two sizes part as soon as one of them changes
            _note(self.asked, int(self), other)
        return function(int(self), int(other) if isinstance(other, _Size) else other)

    return compare


def _computing(function: Callable[[Any, Any], Any], turned: bool = False) -> Callable[[_Size, object], Any]:
    def compute(self: _Size, other: object) -> Any:
        plain = int(other) if isinstance(other, _Size) else other
        found = function(plain, int(self)) if turned else function(int(self), plain)
        return _Size(found, self.asked) if type(found) is int else found

    return compute


for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(_Size, f"__{_name}__", _comparing(getattr(operator, _name)))
for _name in ("add", "sub", "mul", "floordiv", "mod"):
    setattr(_Size, f"__{_name}__", _computing(getattr(operator, _name)))
    setattr(_Size, f"__r{_name}__", _computing(getattr(operator, _name), turned=True))
