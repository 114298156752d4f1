"""Models that keep what they computed for the next call, such as the keys and values of the tokens until now.

A graph computes one call from its inputs alone. Models of the `transformers` package give such a cache back beside
their outputs, unless their configuration says otherwise:

    model.config.use_cache = False
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

# What configurations call it; XLNet has a memory in each mode.
SWITCHES = ("use_cache", "use_mems_eval", "use_mems_train")


def without_caches(model: nn.Module, args: Sequence[torch.Tensor], kwargs: Mapping[str, torch.Tensor]) -> list[str]:
    """Switch caches off, for good, in every configuration that the modules of a model hold.

    Returns:
        What the user should know of it; nothing if the model gives as much with a cache as without.
    """
    found: dict[str, None] = {}
    before = None
    for path, part in cast("Iterator[tuple[str, nn.Module]]", model.named_modules()):
        config: object = getattr(part, "config", None)
        for name in SWITCHES:
            if getattr(config, name, None) is True:
                before = before if found else _given(model, args, kwargs)
                try:
                    setattr(config, name, False)
                except (AttributeError, TypeError, ValueError):  # it is frozen: the model is exported as it is
                    continue
                found[f"{path}.config.{name}" if path else f"config.{name}"] = None
    if not found or before == _given(model, args, kwargs):
        return []
    name = next(iter(found))
    return [
        f"the model was imported with {name} = False: a graph computes a call from its inputs alone and "
        "gives no cache for the next one. Nothing changes in the model itself"
    ]


def _given(model: nn.Module, args: Sequence[torch.Tensor], kwargs: Mapping[str, torch.Tensor]) -> list[str] | None:
    """The kinds of things that a call gives, in order; None if it fails, which is reported where the model is run."""
    try:
        with torch.no_grad():
            outputs: object = model(*(x[:1].clone() for x in args), **{key: x[:1].clone() for key, x in kwargs.items()})
    except Exception:  # whatever the model's own code raises
        return None
    return [type(leaf).__name__ for leaf in tree_leaves(outputs)]
