"""Where a model computes with a size: the calls of torch it makes for two sizes, laid side by side."""

from __future__ import annotations

import inspect
import linecache
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, cast

import torch
from torch.overrides import TorchFunctionMode

from growir.backends.torch_export.exporting import foreign

_HERE = str(Path(__file__).parent)
# Calls whose numbers say how much there is, not what is computed with it: blamed only if nothing else differs.
_SHAPING = frozenset(
    "view reshape expand expand_as repeat tile broadcast_to unflatten flatten split chunk view_as reshape_as "
    "as_strided unsqueeze squeeze tensor_split repeat_interleave".split()
)
_MAKING = frozenset(
    "arange zeros ones full empty linspace eye rand randn tril triu tensor new_zeros new_ones new_full new_empty "
    "zeros_like ones_like full_like meshgrid outer".split()
)


@dataclass(frozen=True, slots=True)
class _Use:
    """A call of torch: its function, its arguments without the tensors, and the model's line as file and number."""

    function: str
    numbers: str
    line: Line | None

    @property
    def rank(self) -> int:
        """How likely a size in it matters, the likeliest first."""
        return 2 if self.function in _SHAPING else 1 if self.function in _MAKING else 0


def first_use(one: Callable[[], object], two: Callable[[], object]) -> str:
    """The line that computes with a size, 'file:line: code', where two runs on inputs of two sizes part.

    Returns:
        The first line whose call has other numbers in the second run or is in one run only; empty if there is none.
    """
    uses = _recorded(one), _recorded(two)
    names = tuple([use.function for use in side] for side in uses)
    found: list[_Use] = []
    for tag, a, b, c, d in SequenceMatcher(None, names[0], names[1], autojunk=False).get_opcodes():
        if tag == "equal":
            pairs = zip(uses[0][a:b], uses[1][c:d], strict=True)
            found += [first for first, second in pairs if first.numbers != second.numbers]
        else:
            found += [*uses[0][a:b], *uses[1][c:d]]
    known = [use for use in found if use.line is not None]
    if not known:
        return ""
    return line_text(cast("Line", min(known, key=lambda use: use.rank).line))


class Line(NamedTuple):
    """A line of code."""

    file: str
    number: int


def line_text(line: Line) -> str:
    """A line as messages show it, 'file:line: code', without the folders of this machine."""
    return f"{Path(line.file).name}:{line.number}: {linecache.getline(line.file, line.number).strip()}"


def calling_line(frame: FrameType | None) -> Line | None:
    """The innermost line of the model that led to a frame of this package; none if torch's own code alone did."""
    inside = True
    while frame is not None:
        file = frame.f_code.co_filename
        own = file.startswith(_HERE)
        if own and not inside:
            return None  # whoever runs the model
        inside = inside and own
        if foreign(file):
            return Line(file, frame.f_lineno)
        frame = frame.f_back
    return None


class _Recorder(TorchFunctionMode):
    """Writes down every call of torch's functions that the model makes."""

    def __init__(self) -> None:
        super().__init__()
        self.uses: list[_Use] = []

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = str(getattr(func, "__name__", func))
        self.uses.append(_Use(name, repr(_numbers((args, kwargs or {}))), calling_line(inspect.currentframe())))
        return func(*args, **(kwargs or {}))


def _recorded(run: Callable[[], object]) -> list[_Use]:
    recorder = _Recorder()
    with recorder:
        run()
    return recorder.uses


def _numbers(value: Any) -> Any:
    """An argument with every tensor, and all that is no number, left out."""
    if isinstance(value, torch.Tensor):
        return "tensor"
    if isinstance(value, slice):
        return [_numbers(value.start), _numbers(value.stop), _numbers(value.step)]
    if isinstance(value, tuple | list):
        return [_numbers(part) for part in cast("Sequence[Any]", value)]
    if isinstance(value, dict):
        return {key: _numbers(part) for key, part in cast("dict[str, Any]", value).items()}
    return value if isinstance(value, int | float | str | torch.dtype | None) else type(value).__name__
