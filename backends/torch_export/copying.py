"""A copy of a model that can be run, traced and changed without the model noticing."""

from __future__ import annotations

import builtins
import contextlib
import copy
import copyreg
import functools
import types
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, cast

import torch
from numpy.typing import NDArray
from torch import nn

from growir.backends.torch_arrays import sharing, to_array
from growir.errors import ModelError, cut

Memo = dict[int, Any]  # what copy.deepcopy has made of each object so far, by the object's id
Hook = Callable[..., Any]

_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
_GLOBAL_HOOKS = tuple(f"_global{kind}" for kind in _HOOKS)
# What copy.deepcopy gives back as it is.
_WHOLE = (
    *(type(None), bool, int, float, complex, str, bytes, range, type, property),
    *(types.FunctionType, types.BuiltinFunctionType, types.CodeType, torch.dtype, torch.device),
)


def copied(model: nn.Module, arrays: Owned | None = None) -> nn.Module:
    """A deep copy of a model, with whatever it holds beside its parts.

    Tensors that are the result of a computation, such as a kept activation or the weight of a pruned layer, are copied
    without their history. What cannot be copied, such as a lock or an open file, is shared: forward may need it, and
    rarely changes it. Hooks are copied with what they store into, so that running the copy does not write there.

    Args:
        model: The model.
        arrays: Where to note the arrays that hold the copied parameters.

    Raises:
        ModelError: Something in the model refuses to be copied; names the module and the attribute.
    """
    memo: Memo = {}
    _prepare(model, memo)
    if arrays is not None:
        arrays.hold(model, memo)
    try:
        made = copy.deepcopy(model, memo)
    except Exception as error:  # whatever a __deepcopy__ or __setstate__ of the model's own raises
        raise ModelError(_culprit(model, error)) from None
    for part, own in zip(model.modules(), made.modules(), strict=True):
        for kind in _HOOKS:
            hooks = cast("Mapping[int, Hook]", getattr(part, kind))
            setattr(own, kind, OrderedDict((key, _own_hook(hook, memo)) for key, hook in hooks.items()))
    return made


class Owned:
    """Arrays of numpy's that hold the parameters of a copied model, so that they outlive it without another copy."""

    def __init__(self) -> None:
        self._arrays: dict[int, NDArray[Any]] = {}  # by where their memory begins

    def hold(self, model: nn.Module, memo: Memo) -> None:
        """Copy a model's parameters, and tell a deep copy of it so. Of other devices and layouts it copies its own."""
        for tensor in model.parameters():
            if type(tensor) is nn.Parameter and tensor.device.type == "cpu" and tensor.is_contiguous():
                array = to_array(tensor)
                self._arrays[array.ctypes.data] = array
                memo[id(tensor)] = nn.Parameter(sharing(array), requires_grad=tensor.requires_grad)

    def taken(self, tensor: torch.Tensor) -> NDArray[Any]:
        """The array that holds a tensor, or a copy of it."""
        array = self._arrays.get(tensor.data_ptr())
        if array is None or array.shape != tensor.shape or not tensor.is_contiguous():
            return to_array(tensor)
        return array


def _prepare(root: object, memo: Memo) -> None:
    """Say what takes the place of all that copy.deepcopy fails at.

    The walk goes where copy.deepcopy will go: into containers, and into what each object says that it is made of.
    """
    seen: dict[int, object] = {}  # holds what it names, since the parts of an object may be made for the asking
    todo: list[object] = [root]
    while todo:
        thing = todo.pop()
        if id(thing) in seen or id(thing) in memo or isinstance(thing, _WHOLE):
            continue
        seen[id(thing)] = thing
        if isinstance(thing, torch.Tensor):
            if not thing.is_leaf:
                memo[id(thing)] = thing.detach().clone()
        elif isinstance(thing, torch.Generator):
            memo[id(thing)] = thing.clone_state()
        elif isinstance(thing, types.MethodType):
            todo.append(thing.__self__)
        elif type(thing) in (list, tuple, set, frozenset):
            todo += cast("Iterable[object]", thing)
        elif type(thing) is dict:
            for pair in cast("dict[object, object]", thing).items():
                todo += pair
        elif not hasattr(type(thing), "__deepcopy__"):
            parts = _parts(thing)
            if parts is None:
                memo[id(thing)] = thing
            else:
                todo += parts


def _parts(thing: object) -> list[object] | None:
    """What an object is made of, as it says itself to copy and pickle; None if it can be neither."""
    reducer = copyreg.dispatch_table.get(type(thing))
    try:
        reduced: Any = reducer(thing) if reducer else thing.__reduce_ex__(4)
    except Exception:  # objects refuse with a TypeError, or with whatever their own __reduce__ raises
        return None
    if isinstance(reduced, str):
        return []
    whole: tuple[Any, ...] = (*reduced, None, None, None)
    _, arguments, state, items, pairs = whole[:5]
    return [*arguments, state, *(items or ()), *(part for pair in pairs or () for part in pair)]


def _culprit(model: nn.Module, error: Exception) -> str:
    """Which attribute of which module cannot be copied, and what to do."""
    reason = f"{type(error).__name__}: {cut(str(error).partition(chr(10))[0], 200)}"
    for name, part in cast("Iterable[tuple[str, nn.Module]]", model.named_modules()):
        for attribute, value in vars(part).items():
            if attribute == "_modules":
                continue
            memo: Memo = {id(child): child for child in part.modules()}
            _prepare(part, memo)
            try:
                copy.deepcopy(value, memo)
            except Exception:  # the same again, in one attribute alone
                where = f"{name or 'the model'} ({type(part).__name__})"
                return (
                    f"{where}: its attribute {cut(attribute)!r} cannot be copied: {reason}. "
                    "Set it to None or remove it before importing, if forward does not need it"
                )
    return f"the model ({type(model).__name__}) cannot be copied: {reason}"


def _own_hook(hook: Hook, memo: Memo) -> Hook:
    """A hook that stores into copies of what it would store into.

    Of a function these are the variables it closes over and the global ones that its code names:

        seen = {}
        layer.register_forward_hook(lambda module, args, out: seen.update(out=out))

    The copy of this hook updates a copy of `seen`. What belongs to the model is the copied model's.
    """
    if isinstance(hook, functools.partial):
        return _own_partial(hook, memo)  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(hook, types.MethodType):
        owner = _isolated(hook.__self__, memo)
        return types.MethodType(_own_hook(hook.__func__, memo), owner)
    if not isinstance(hook, types.FunctionType):
        return cast(Hook, _isolated(hook, memo))
    if str(hook.__module__).partition(".")[0] == "torch":
        return hook
    if id(hook) in memo:
        return cast(Hook, memo[id(hook)])
    named = {name: hook.__globals__[name] for name in _names(hook.__code__) if name in hook.__globals__}
    cells = tuple(types.CellType() for _ in hook.__closure__ or ())
    space = {"__builtins__": builtins, **hook.__globals__}
    made = types.FunctionType(hook.__code__, space, hook.__name__, None, cells)
    memo[id(hook)] = made  # before what it names is copied, which may name it
    space.update({name: _isolated(value, memo) for name, value in named.items()})
    for own, cell in zip(cells, hook.__closure__ or (), strict=True):
        try:
            own.cell_contents = _isolated(cell.cell_contents, memo)
        except ValueError:  # the variable has no value yet
            continue
    made.__defaults__ = _isolated(hook.__defaults__, memo)
    made.__kwdefaults__ = _isolated(hook.__kwdefaults__, memo)
    vars(made).update(vars(hook))
    return made


def _own_partial(hook: functools.partial[Any], memo: Memo) -> Hook:
    arguments, keywords = _isolated(hook.args, memo), _isolated(hook.keywords, memo)
    return functools.partial(_own_hook(hook.func, memo), *arguments, **keywords)


def _names(code: types.CodeType) -> set[str]:
    """The global variables, among other names, that a function's code mentions, inner functions included."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= _names(constant)
    return found


def _isolated(thing: Any, memo: Memo) -> Any:
    """A copy of something that a hook mentions; itself, if it cannot be copied."""
    if isinstance(thing, types.FunctionType):
        return _own_hook(thing, memo)
    if isinstance(thing, _WHOLE):
        return thing
    _prepare(thing, memo)
    try:
        return copy.deepcopy(thing, memo)
    except Exception:  # whatever it raises to say that it cannot be copied
        return thing


@contextlib.contextmanager
def undisturbed() -> Generator[bool, None, None]:
    """A block in which the model's code draws no numbers of the caller's, nor runs the hooks of all modules.

    Yields:
        Whether there are such hooks, which torch runs around each call of any module.
    """
    from torch.nn.modules import module

    kept = {kind: dict(getattr(module, kind)) for kind in _GLOBAL_HOOKS}
    with torch.random.fork_rng(devices=[]):
        try:
            for kind in _GLOBAL_HOOKS:
                getattr(module, kind).clear()
            yield any(kept.values())
        finally:
            for kind, hooks in kept.items():
                getattr(module, kind).update(hooks)
