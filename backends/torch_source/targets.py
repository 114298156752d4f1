"""How source code writes the functions that lowered graphs call."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from growir.backends.torch_source.borrowed import Borrowed
from growir.backends.torch_source.layout import Expression, Infix, call
from growir.errors import ExportError

INFIX: dict[Any, str] = {
    operator.add: "+",
    operator.sub: "-",
    operator.mul: "*",
    operator.truediv: "/",
    operator.floordiv: "//",
    operator.mod: "%",
    operator.pow: "**",
    operator.matmul: "@",
}


def _named(namespace: object, prefix: str) -> dict[int, str]:
    found: dict[int, str] = {}
    for name in dir(namespace):
        thing: object = getattr(namespace, name) if name[0] != "_" else None
        own = getattr(thing, "__name__", "") == name
        if callable(thing) and (own or id(thing) not in found):
            found[id(thing)] = f"{prefix}{name}"
    return found


# By identity: many of torch's functions say they are called otherwise, or live elsewhere, than where users find them.
_NAMES = {**_named(torch.linalg, "torch.linalg."), **_named(torch, "torch."), **_named(F, "F.")}
_METHODS = _named(torch.Tensor, "")


def applied(
    function: Callable[..., Any], args: Sequence[Expression], keywords: dict[str, Expression], borrowed: Borrowed
) -> Expression:
    """A function of torch, an operator, or a function of growir applied to arguments.

    Raises:
        ExportError: It is none of these.
    """
    if function in INFIX and len(args) == 2 and not keywords:
        return Infix(INFIX[function], *args)
    if function is operator.neg:
        return call("torch.neg", args)
    if function is operator.getitem:
        return f"{args[0]}[{args[1]}]"
    if function is getattr:
        return f"{args[0]}.{str(args[1])[1:-1]}"
    if id(function) in _NAMES:
        return call(_NAMES[id(function)], args, keywords)
    if id(function) in _METHODS and args:
        return method(args[0], _METHODS[id(function)], args[1:], keywords)
    if belongs_to_growir(function):
        return call(borrowed.take(function), args, keywords)
    raise ExportError(f"{function!r} cannot be written as torch source")


def method(receiver: Expression, name: str, args: Sequence[Expression], keywords: dict[str, Expression]) -> Expression:
    """A method of a tensor applied to arguments."""
    start = f"({receiver})" if isinstance(receiver, Infix) else str(receiver)
    return call(f"{start}.{name}", args, keywords)


def belongs_to_growir(function: Any) -> bool:
    """Whether a function is growir's own, whose source has to come along."""
    return str(getattr(function, "__module__", "")).split(".")[0] == "growir"
