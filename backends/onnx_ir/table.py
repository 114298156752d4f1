"""Which function spells which operator in ONNX."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar, cast

from growir.backends.onnx_ir.scope import Scope
from growir.ops import Op

O = TypeVar("O", bound=Op)
Spelling = Callable[[Scope, O], None]

SPELLINGS: dict[type[Op], Spelling[Op]] = {}


def spells(kind: type[O]) -> Callable[[Spelling[O]], Spelling[O]]:
    """Enter a function as the spelling of one operator."""

    def enter(function: Spelling[O]) -> Spelling[O]:
        if kind in SPELLINGS:
            raise ImportError(f"growir.backends.onnx_ir spells {kind.kind()} twice")
        SPELLINGS[kind] = cast("Spelling[Op]", function)  # it is looked up by the class it takes
        return function

    return enter


def require_all(ops: Iterable[type[Op]]) -> None:
    """Compare the table with the operators there are. Raises ImportError where they differ."""
    known, spelled = set(ops), set(SPELLINGS)
    missing = ", ".join(sorted(op.kind() for op in known - spelled))
    surplus = ", ".join(sorted(op.kind() for op in spelled - known))
    if missing:
        raise ImportError(f"growir.backends.onnx_ir has no function for {missing}; write one and decorate it")
    if surplus:
        raise ImportError(f"growir.backends.onnx_ir spells {surplus}, which growir.ops.OPS does not list")
