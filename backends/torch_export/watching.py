"""What a model does to gradients and no exported program shows: functions with a backward of their own, and hooks.

Export writes down what `forward` of a torch.autograd.Function computes, and nothing of its `backward`; a hook leaves no
trace at all. Both are watched where the model calls them, which also says its line. Many change nothing: a function
that only saves memory, a hook that only looks. So while the model runs on numbers, each is tried: the function beside
the gradients of its own forward, on small and large inputs and gradients; the hook by what it makes of a gradient.
"""

from __future__ import annotations

import contextlib
import linecache
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.autograd.function import Function, _SingleLevelFunction  # pyright: ignore[reportPrivateUsage]

from growir.backends.torch_export.exporting import foreign
from growir.backends.torch_export.preparing import modules_of, unwrapped

BACKWARD = "its backward is its own"
HOOK = "a hook changes the gradient"
_INPUTS = (1.0, 30.0)  # how much larger than the model's a function's inputs are made when it is tried
_GRADIENTS = (1.0, 1e3)
_ALIKE = 1e-5  # float32 rounds to this

Hook = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Place:
    """A line of the model, or one of its parts, and what happens there.

    Attributes:
        file: The file of the line; empty for a part.
        text: The line with its number, or the part's name.
        what: What happens to the gradient.
    """

    file: str
    text: str
    what: str

    def shown(self, folders: bool) -> str:
        """'file:line: code: what'."""
        if not self.file:
            return f"{self.text}: {self.what}"
        return f"{self.file if folders else Path(self.file).name}:{self.text}: {self.what}"


@dataclass(slots=True)
class Watch:
    """What was seen.

    Attributes:
        seen: Everything that may change a gradient.
        changing: What was found to change one.
    """

    seen: dict[Place, None] = field(default_factory=dict[Place, None])
    changing: dict[Place, None] = field(default_factory=dict[Place, None])

    def blamed(self) -> list[Place]:
        """What to name where gradients differ: what is known to change one, else all that may."""
        return list(self.changing or self.seen)


@contextlib.contextmanager
def watching(watch: Watch, *, trying: bool) -> Generator[None, None, None]:
    """Note what the model does to gradients; `trying` also says which of it changes one."""

    def apply(cls: type[Function], *args: Any, **kwargs: Any) -> Any:
        if cls.__module__.partition(".")[0] != "torch":
            place = _here(BACKWARD)
            if trying and place not in watch.seen and _has_its_own_backward(cls, args):
                watch.changing[place] = None
            watch.seen[place] = None
        return super(_SingleLevelFunction, cls).apply(*args, **kwargs)  # type: ignore[misc]

    def register_hook(tensor: torch.Tensor, hook: Hook) -> Any:
        place = _here(HOOK)
        watch.seen[place] = None
        return registered(tensor, tried(hook, place, watch) if trying else hook)

    registered = cast(Hook, torch.Tensor.register_hook)
    torch.Tensor.register_hook = register_hook  # type: ignore[method-assign]
    # Functions are often called by a name that was bound before, `ste = STE.apply`; all of them look here.
    _SingleLevelFunction.apply = classmethod(apply)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.Tensor.register_hook = registered  # type: ignore[method-assign]
        del _SingleLevelFunction.apply  # type: ignore[attr-defined]


def tried(hook: Hook, place: Place, watch: Watch) -> Hook:
    """A hook on gradients that also says whether it changed one: the last of its arguments."""

    def call(*args: Any) -> Any:
        given = args[-1]
        before = _copied(given)
        result = hook(*args)
        if not _same(before, given if result is None else result):
            watch.changing[place] = None
        return result

    return call


def watch_modules(model: nn.Module, original: nn.Module, watch: Watch) -> None:
    """Note the hooks that a model's modules and parameters have, and try those of the copy when it runs.

    Args:
        model: The copy that will be run; copying leaves out the hooks of parameters, which are put on it here.
        original: The model it was copied from.
        watch: Where to note them.
    """
    for name, part in modules_of(model):
        for kind in ("_backward_hooks", "_backward_pre_hooks"):
            known = cast("dict[int, Hook]", getattr(part, kind))
            for key, hook in list(known.items()):
                place = Place("", name or "the model", "its backward hook changes the gradient")
                watch.seen[place] = None
                known[key] = tried(hook, place, watch)
    copies = dict(model.named_parameters())
    for name, parameter in unwrapped(original).named_parameters():
        copy = copies.get(name)  # none of what weight norm was computed from
        for kind in ("_backward_hooks", "_post_accumulate_grad_hooks"):
            found = cast("Mapping[int, Hook] | None", getattr(parameter, kind, None))
            for hook in list((found or {}).values()):
                place = Place("", name, HOOK)
                watch.seen[place] = None
                if copy is None or not copy.requires_grad:
                    continue
                if kind == "_backward_hooks":
                    copy.register_hook(tried(hook, place, watch))  # type: ignore[no-untyped-call]
                else:
                    last = _tried_at_the_end(hook, place, watch)
                    copy.register_post_accumulate_grad_hook(last)  # type: ignore[no-untyped-call]


def _tried_at_the_end(hook: Hook, place: Place, watch: Watch) -> Hook:
    def call(parameter: torch.Tensor) -> None:
        before = _copied(parameter.grad)
        hook(parameter)
        if not _same(before, parameter.grad):
            watch.changing[place] = None

    return call


def _here(what: str) -> Place:
    """The innermost line outside torch and this package."""
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]  # inspect's way reads the files of all frames
    while frame.f_back is not None and not foreign(frame.f_code.co_filename):
        frame = frame.f_back
    file, line = frame.f_code.co_filename, frame.f_lineno
    return Place(file, f"{line}: {linecache.getline(file, line).strip()}", what)


def _copied(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return tuple(_copied(part) for part in cast("Sequence[Any]", value))
    return value.detach().clone() if isinstance(value, torch.Tensor) else value


def _same(one: Any, two: Any) -> bool:
    if isinstance(one, (tuple, list)) or isinstance(two, (tuple, list)):
        ones, twos = _several(one), _several(two)
        return len(ones) == len(twos) and all(_same(a, b) for a, b in zip(ones, twos, strict=True))
    if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
        return torch.equal(one.nan_to_num(), two.detach().nan_to_num())
    return one is two


def _several(value: Any) -> tuple[Any, ...]:
    return tuple(cast("Sequence[Any]", value)) if isinstance(value, (tuple, list)) else (value,)


class _Context:
    """What forward of a function gets where its backward is not asked for."""

    def __init__(self, count: int) -> None:
        self.needs_input_grad = (True,) * count
        self.saved_tensors: tuple[Any, ...] = ()

    def save_for_backward(self, *tensors: Any) -> None:
        self.saved_tensors = tensors

    def nothing(self, *args: Any) -> None:
        """Hints to a backward that is not used."""

    mark_dirty = mark_non_differentiable = set_materialize_grads = save_for_forward = nothing


def _has_its_own_backward(cls: type[Function], args: Sequence[Any]) -> bool:
    """Whether a function's gradients are other than those of its forward; True where that cannot be found out."""
    state = torch.get_rng_state()
    try:
        with torch.enable_grad():
            return any(_differs(cls, args, size) for size in _INPUTS)
    except Exception:  # whatever the function raises on these numbers
        return True
    finally:
        torch.set_rng_state(state)


def _differs(cls: type[Function], args: Sequence[Any], size: float) -> bool:
    results: list[list[torch.Tensor | None]] = []
    own_context = cls.setup_context is not _SingleLevelFunction.setup_context
    for real in (True, False):
        torch.manual_seed(0)
        leaves = [
            a.detach().mul(size).requires_grad_() if isinstance(a, torch.Tensor) and a.is_floating_point() else a
            for a in args
        ]
        # Of a function that writes into its input, the input must be no leaf.
        given = [a * 1 if isinstance(a, torch.Tensor) and a.requires_grad else a for a in leaves]
        plain = cast(Any, super(_SingleLevelFunction, cls)).apply if real else cast(Any, cls.forward)
        found = plain(*given) if real or own_context else plain(_Context(len(args)), *given)
        outputs, inputs = _differentiable(_several(found)), _differentiable(leaves)
        gradients: list[torch.Tensor | None] = []
        for scale in _GRADIENTS if outputs and inputs else ():
            torch.manual_seed(1)
            weights = [torch.randn_like(y) * scale for y in outputs]
            gradients += torch.autograd.grad(outputs, inputs, weights, retain_graph=True, allow_unused=True)
        results.append(gradients)
    if len(results[0]) != len(results[1]):
        return True
    return any(not _close(one, two) for one, two in zip(*results, strict=True))


def _differentiable(values: Sequence[Any]) -> list[torch.Tensor]:
    return [value for value in values if isinstance(value, torch.Tensor) and value.requires_grad]


def _close(one: torch.Tensor | None, two: torch.Tensor | None) -> bool:
    if one is None or two is None:
        other = one if two is None else two
        return other is None or not bool(other.any())
    most = max(float(one.nan_to_num().abs().max()), float(two.nan_to_num().abs().max()), 1e-30) if one.numel() else 1.0
    return bool(torch.allclose(one, two, rtol=_ALIKE, atol=_ALIKE * most, equal_nan=True))
