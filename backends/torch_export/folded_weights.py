"""Weight norm, put into the weights that it gives: a graph keeps one tensor for each weight of a layer.

g * v / |v|, with g and v learned      ->      one weight, learned
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

from torch import nn
from torch.nn.utils import parametrize, remove_weight_norm
from torch.nn.utils.parametrizations import _WeightNorm  # pyright: ignore[reportPrivateUsage]  # what weight_norm adds

MAX_NAMED = 4  # modules in one notice


def is_weight_norm(part: nn.Module) -> bool:
    """Whether all that a module computes its weights with is torch.nn.utils.parametrizations.weight_norm."""
    return all(
        isinstance(step, _WeightNorm) for steps in _parametrised(part).values() for step in cast("nn.ModuleList", steps)
    )


def _parametrised(part: nn.Module) -> Mapping[str, nn.Module]:
    """The steps that each computed tensor of a module is made by, by its name."""
    if not parametrize.is_parametrized(part):
        return {}
    return dict(cast("nn.ModuleDict", part.parametrizations).items())


def _with_own_class(part: nn.Module) -> None:
    """Give a parametrised module a class of its own: torch removes the computed weight from the class of all copies."""
    shared = type(part)
    members = {name: member for name, member in vars(shared).items() if name not in ("__dict__", "__weakref__")}
    part.__class__ = cast("type[nn.Module]", type(shared.__name__, shared.__bases__, members))


def fold_weight_norms(model: nn.Module) -> list[str]:
    """Put the weight that it gives in the place of every weight norm, of both of torch's kinds.

    Returns:
        What the user should know of it, if there was one.
    """
    found: list[str] = []
    for path, part in list(cast("Iterator[tuple[str, nn.Module]]", model.named_modules())):
        parametrised = list(_parametrised(part))
        if parametrised:
            _with_own_class(part)
        for name in parametrised:
            parametrize.remove_parametrizations(part, name, leave_parametrized=True)
            found.append(f"{path}.{name}" if path else name)
        hooks = cast("dict[int, object]", part._forward_pre_hooks)  # pyright: ignore[reportPrivateUsage]
        for hook in [hook for hook in hooks.values() if type(hook).__name__ == "WeightNorm"]:
            name = str(getattr(hook, "name", "weight"))
            remove_weight_norm(part, name)
            found.append(f"{path}.{name}" if path else name)
    if not found:
        return []
    more = f" and {len(found) - MAX_NAMED} more" if len(found) > MAX_NAMED else ""
    return [
        f"weight norm is folded: {', '.join(found[:MAX_NAMED])}{more}. The network computes the same, and trains the "
        "weight where the model trains its direction and its length"
    ]
