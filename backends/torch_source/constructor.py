"""The shortest call that builds a module again, found out from the module itself.

A constructor's arguments are read from the attributes they are kept in, and the call is tried: what it builds has to
have the same attributes and tensors. So no list of modules has to be kept in step with the operators.
"""

from __future__ import annotations

import inspect
from typing import Any, cast

import torch
from torch import nn

from growir.errors import ExportError

_PLACEMENT = ("device", "dtype")


class Constructors:
    """Finds constructor calls, each kind of module once."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[Any, ...], dict[str, Any], nn.Module]] = {}

    def of(self, module: nn.Module) -> tuple[tuple[Any, ...], dict[str, Any], nn.Module]:
        """Positional arguments, keywords, and what the call builds, without memory for its tensors.

        Raises:
            ExportError: No call was found; a module of torch_fx keeps an argument under another name.
        """
        given = _given(module)
        key = f"{type(module).__qualname__} {given}"
        if key not in self._known:
            self._known[key] = _shortest(module, given)
        return self._known[key]


def _given(module: nn.Module) -> dict[str, Any]:
    """Every argument of the constructor as the module keeps it."""
    return {
        name: _kept(module, name, parameter.default)
        for name, parameter in inspect.signature(type(module)).parameters.items()
        if name not in _PLACEMENT
    }


def _kept(module: nn.Module, name: str, default: object) -> object:
    if name in vars(module):
        return vars(module)[name]
    if hasattr(module, name):
        tensor: object = getattr(module, name)
        if isinstance(tensor, torch.Tensor) and name not in module.state_dict():
            return _numbers(cast("object", tensor.tolist()))  # what no state_dict holds is made from the argument
        return tensor is not None  # such as bias=True
    if default is inspect.Parameter.empty:
        raise ExportError(f"{type(module).__name__} does not keep its argument {name!r}, so it cannot be written")
    return default


def _numbers(found: object) -> object:
    return tuple(_numbers(part) for part in cast("list[object]", found)) if isinstance(found, list) else found


def _shortest(module: nn.Module, given: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any], nn.Module]:
    built = _build(module, given)
    if built is None or not _attributes(built).items() <= _attributes(module).items():
        raise ExportError(f"{type(module).__name__}({given}) does not build the module it was read from")
    wanted = _attributes(built), _tensors(built)

    def alike(arguments: dict[str, Any]) -> bool:
        other = _build(module, arguments)
        return other is not None and (_attributes(other), _tensors(other)) == wanted

    parameters = inspect.signature(type(module)).parameters
    needed = dict(given)
    for name in given:
        value = needed[name]
        if parameters[name].default is not inspect.Parameter.empty:
            without = {key: kept for key, kept in needed.items() if key != name}
            if alike(without):
                needed = without
                continue
        one = _repeated(value)
        if one is not None and alike({**needed, name: one}):
            needed[name] = one
    positional = [
        name
        for name in needed
        if parameters[name].default is inspect.Parameter.empty
        and parameters[name].kind is not inspect.Parameter.KEYWORD_ONLY
    ]
    keywords = {name: value for name, value in needed.items() if name not in positional}
    return tuple(needed[name] for name in positional), keywords, built


def _repeated(value: object) -> object:
    """The one number a tuple repeats, or None."""
    if not isinstance(value, tuple) or not value:
        return None
    numbers = cast("tuple[object, ...]", value)
    return numbers[0] if numbers == numbers[:1] * len(numbers) else None


def _build(module: nn.Module, arguments: dict[str, Any]) -> nn.Module | None:
    """What the constructor makes of arguments, or None where it refuses them."""
    try:
        with torch.device("meta"):
            return type(module)(**arguments)
    except (TypeError, ValueError, RuntimeError):
        return None


def _attributes(module: nn.Module) -> dict[str, str]:
    # As text: 1 and True, or 2 and 2.0, are not the same argument.
    return {name: repr(value) for name, value in vars(module).items() if name[0] != "_" and name != "training"}


def tensors_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """A module's own parameters and buffers."""
    return {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}


def _tensors(module: nn.Module) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors_of(module).items()}
