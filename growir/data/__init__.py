"""Data for a run: from a file, arrays, a data set or a loader to numbers, with a description of what they mean.

`Data` is imported when it is first asked for: it needs torch, and who reads a table does not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from growir.data.parts import Data as Data

__all__ = ["Data"]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name == "Data":
        return import_module("growir.data.parts").Data
    raise AttributeError(f"module 'growir.data' has no attribute {name!r}")
