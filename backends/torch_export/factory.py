"""A model from a function that makes it, and with its example inputs from what stands on a command line."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import torch
from torch import nn

from growir.backends.torch_export.exporting import failure
from growir.errors import ModelError, cut
from growir.nearest import suggestion


def example_input(text: str) -> torch.Tensor:
    """Random floats, or zeros for integers, of a shape like 1,3,224,224 or 1,128:int64. Raises ModelError."""
    sizes, _, dtype = text.partition(":")
    parts = sizes.split(",")
    if dtype not in ("", "float32", "int64") or not all(part.strip().isdecimal() for part in parts):
        raise ModelError(f"--input {text}: a shape such as 1,3,224,224 is needed, or 1,128:int64 for integers")
    shape = [int(part) for part in parts]
    if len(shape) < 2 or 0 in shape:
        raise ModelError(f"--input {text}: the batch and at least one more size are needed, none of them 0")
    try:
        if dtype == "int64":
            return torch.zeros(shape, dtype=torch.int64)
        return torch.randn(shape, generator=torch.Generator().manual_seed(0))
    except (RuntimeError, TypeError):  # of torch's allocator, and of sizes beyond 64 bits
        raise ModelError(f"--input {text}: there is no memory for so large an input; a batch of 1 will do") from None


def made_by(source: str) -> torch.nn.Module:
    """What MODULE:FACTORY() returns, the module looked for in the current folder first, whose code this runs.

    Raises:
        ModelError: There is no such module or factory, its code fails, or it gives no torch.nn.Module.
    """
    module, _, factory = source.partition(":")
    if not factory or not all(part.isidentifier() for part in (*module.split("."), *factory.split("."))):
        raise ModelError(f"{source}: package.module:function is needed, such as nets:resnet18")
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` does
    try:
        found: object = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and module.startswith(error.name):
            hint = f"; leave out .py: {module.removesuffix('.py')}:{factory}" if module.endswith(".py") else ""
            raise ModelError(f"{source}: there is no module {error.name!r} in this folder or installed{hint}") from None
        raise ModelError(f"{source}: importing {module} failed. {failure(error)}") from error
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        raise ModelError(f"{source}: importing {module} failed. {failure(error)}") from error
    finally:
        sys.path.pop(0)
    for part in factory.split("."):
        if not hasattr(found, part):
            raise ModelError(f"{source}: {module} has no {factory!r}.{suggestion(part, dir(found))}")
        found = getattr(found, part)
    try:
        model: object = found if isinstance(found, torch.nn.Module) else found() if callable(found) else found
    except (Exception, SystemExit) as error:  # as above
        raise ModelError(f"{source}: {factory}() failed. {failure(error)}") from error
    if not isinstance(model, torch.nn.Module):
        raise ModelError(f"{source}: gives an object of type {type(model).__name__}, no torch.nn.Module")
    return model


def made(model: object, what: str) -> nn.Module:
    """A model, or what a function makes. Raises ModelError if that is none, by the name that the caller gives it."""
    found: object = model() if callable(model) and not isinstance(model, nn.Module) else model
    if not isinstance(found, nn.Module):
        raise ModelError(
            f"{what}: a torch.nn.Module is needed, or a function that makes one, but it is {cut(repr(found))}"
        )
    return found
