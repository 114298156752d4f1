"""What each class of optimizer keeps and how that follows growth: one row a class, and no guess for any other.

A name alone says nothing: Muon's `momentum_buffer` is called like SGD's, and its step is another function of it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args

import torch
from torch import optim

from growir.errors import ModelError, cut
from growir.moments import ADAM, Entries, Follows
from growir.nearest import suggestion

Optimizer = optim.Optimizer


@dataclass(frozen=True, slots=True)
class Row:
    """How the state of one class of optimizer follows growth.

    Attributes:
        entries: How each entry with its parameter's shape follows the gradient; None if the state of a parameter that
            changes is dropped, so that the optimizer starts it anew.
        coordinatewise: Whether each entry of a parameter steps by its own gradient and state alone. Where it does not,
            the state is carried as exactly, but the next step of what grew is another one on old coordinates too.
    """

    entries: Entries | None
    coordinatewise: bool = True


_ROWS: dict[type[Optimizer], Row] = {
    optim.SGD: Row({"momentum_buffer": "gradient"}),
    optim.Adam: Row(ADAM),
    optim.AdamW: Row(ADAM),
    optim.NAdam: Row(ADAM),
    optim.RAdam: Row(ADAM),
    optim.SparseAdam: Row(ADAM),
    optim.Adamax: Row({"exp_avg": "gradient", "exp_inf": "magnitude"}),
    # Its momentum sums steps: gradients that are already divided by their size.
    optim.RMSprop: Row({"square_avg": "square", "grad_avg": "gradient", "momentum_buffer": "update"}),
    optim.Adagrad: Row({"sum": "square"}),
    optim.Adadelta: Row({"square_avg": "square", "acc_delta": "length"}),
    optim.Rprop: Row({"prev": "gradient", "step_size": "length"}),
    optim.ASGD: Row({"ax": "weight"}),
    optim.Muon: Row({"momentum_buffer": "gradient"}, coordinatewise=False),
}
_REFUSED: dict[type[Optimizer], str] = {
    optim.LBFGS: "keeps one flat history of all parameters, which cannot follow growth; make a new one",
    optim.Adafactor: (
        "keeps second moments of whole rows and columns, from which none of a new one follows; make a new one, or let "
        "what changes start anew: live.register(torch.optim.Adafactor, None)"
    ),
}
# What a subclass may define without changing what its parent keeps or does with it.
_HARMLESS = frozenset({"__init__", "__repr__", "__doc__", "zero_grad", "state_dict", "load_state_dict"})


def register(kind: type[Optimizer], entries: Mapping[str, Follows] | None, *, coordinatewise: bool = True) -> None:
    """Say how the state of a class of optimizers follows growth, for `live.grow` to carry it.

    Scalars, such as a number of steps, stay as they are and need no entry. An optimizer that holds another says what
    it keeps itself; the one it holds is carried by its own row.

        live.register(Lion, {"exp_avg": "gradient"})
        live.register(Lookahead, {"lookahead_slow_buff": "weight"})

    Args:
        kind: The class; subclasses that change nothing but their constructor go along.
        entries: For each entry with its parameter's shape, how it follows when a copy of a unit receives s times the
            old gradient: "gradient" (scales by s), "square" (by s^2), "magnitude" (by |s|), "update" (a sum of steps,
            which stays), "length" (how long steps are, which stays) or "weight" (made as the weight itself is). None:
            the state of a parameter that changes is dropped; the optimizer must start it when it finds none.
        coordinatewise: Whether each entry of a parameter steps by its own gradient and state alone; if not, the report
            says that growth changes the next step on old coordinates too.

    Raises:
        ModelError: It is no class of optimizers, or an entry follows in no known way.
    """
    given = cast("object", kind)
    if not (inspect.isclass(given) and issubclass(given, Optimizer)):
        raise ModelError(f"register: a subclass of torch.optim.Optimizer is needed, but this is {cut(repr(kind))}")
    for entry, follows in (entries or {}).items():
        if follows not in get_args(Follows):
            known = ", ".join(map(repr, get_args(Follows)))
            raise ModelError(f"register: entry {entry!r} follows {follows!r}, but must follow one of {known}")
    _ROWS[kind] = Row(None if entries is None else dict(entries), coordinatewise)
    _REFUSED.pop(kind, None)


def row_of(optimizer: Optimizer) -> Row:
    """The row of an optimizer's class.

    Raises:
        ModelError: The class has none, or the optimizer keeps tensors where no row speaks of them.
    """
    kind = type(optimizer)
    known = next((base for base in kind.__mro__ if base in _ROWS or base in _REFUSED), None)
    if known is None:
        raise ModelError(_unknown(optimizer, "is a class that growth does not know"))
    if changed := _overridden(kind, known):
        raise ModelError(_unknown(optimizer, f"replaces {', '.join(changed)} of {known.__name__}"))
    if known in _REFUSED:
        raise ModelError(f"{kind.__name__} {_REFUSED[known]}")
    loose = next(_loose_tensors(optimizer), None)
    if loose is not None:
        raise ModelError(
            f"{kind.__name__} keeps tensors outside of its `state`, in {loose}, and how they follow growth is unknown; "
            "make a new optimizer after growing"
        )
    return _ROWS[known]


def kinds_of(settings: Iterable[str], entries: Iterable[str]) -> list[type[Optimizer]]:
    """The classes of torch.optim that a saved optimizer may be of; several where they keep and settle the same.

    Every class has settings of its own, and a saved optimizer has them in its groups. What it keeps must be in the
    class's row, so that a version of torch that lacked a setting is not taken for another class.

    Args:
        settings: What its groups have.
        entries: What it keeps of a parameter in the parameter's shape.
    """
    found: dict[type[Optimizer], frozenset[str]] = {}
    for kind, row in _ROWS.items():
        if kind.__module__.startswith("torch.optim.") and set(entries) <= set(row.entries or ()):
            made: Any = kind
            # Muon takes nothing but matrices, and SparseAdam and others know their settings only once they are made.
            own = frozenset(made([torch.nn.Parameter(torch.zeros(1, 1))]).defaults)
            if own <= set(settings):
                found[kind] = own
    return [kind for kind, own in found.items() if not any(own < other for other in found.values())]


def kind_named(name: str) -> type[Optimizer]:
    """A class of torch.optim by its name. Raises ModelError if there is none."""
    known = {key: kind for key, kind in vars(optim).items() if inspect.isclass(kind) and issubclass(kind, Optimizer)}
    if name not in known:
        raise ModelError(f"torch.optim has no {cut(name)}.{suggestion(name, known)}")
    return known[name]


def _overridden(kind: type, known: type) -> list[str]:
    """The methods of a class with a row that a subclass replaces."""
    between = kind.__mro__[: kind.__mro__.index(known)]
    names = {name for base in between for name in vars(base) if name not in _HARMLESS and hasattr(Optimizer, name)}
    names |= {name for base in between for name in vars(base) if name not in _HARMLESS and name in vars(known)}
    return sorted(name for name in names if _replaces(getattr(kind, name), getattr(known, name)))


def _replaces(mine: object, theirs: object) -> bool:
    # torch wraps the `step` of every class that it first meets, also of one that inherits it.
    return callable(mine) and callable(theirs) and inspect.unwrap(mine) is not inspect.unwrap(theirs)


def _unknown(optimizer: Optimizer, because: str) -> str:
    name = type(optimizer).__name__
    entries: dict[str, str] = {}
    for slots in cast("Iterable[object]", optimizer.state.values()):
        for entry, value in cast("dict[str, object]", slots).items() if isinstance(slots, dict) else ():
            if isinstance(value, torch.Tensor) and value.ndim:
                entries.setdefault(entry, f"{entry!r} {list(value.shape)}")
    found = f" (of one parameter it keeps {cut(', '.join(entries.values()), 200)})" if entries else ""
    held = ", ".join(f"`{where}`, a {type(inner).__name__}" for where, inner in held_by(optimizer))
    holds = f"; it holds {held}, which follows by its own row" if held else ""
    return (
        f"{name} {because}, so its state cannot be carried{found}{holds}: say how each entry follows, with "
        f"live.register({name}, {{...}}), or make a new optimizer after growing (docs/live.md, Optimizers)"
    )


# -- optimizers that hold others --------------------------------------------------------------------------------------


def held_by(optimizer: Optimizer) -> Iterator[tuple[str, Optimizer]]:
    """The optimizers among an optimizer's own attributes, with where they stand."""
    for name, value in vars(optimizer).items():
        parts: Iterable[object] = (value,)
        if isinstance(value, list | tuple):
            parts = cast("Sequence[object]", value)
        elif isinstance(value, dict):
            parts = cast("dict[object, object]", value).values()
        for part in parts:
            if isinstance(part, Optimizer) and part is not optimizer:
                yield name, part


def taken_for(optimizer: Optimizer) -> Optimizer:
    """The optimizer that another one only stands for: it has that one's very state and groups, and keeps no tensor.

    So have Lightning's and Accelerate's wrappers.
    """
    inner = [other for _, other in held_by(optimizer)]
    if len(inner) != 1 or inner[0].state is not optimizer.state or inner[0].param_groups is not optimizer.param_groups:
        return optimizer
    return optimizer if any(_loose_tensors(optimizer)) else taken_for(inner[0])


def _loose_tensors(optimizer: Optimizer) -> Iterator[str]:
    """Where an optimizer keeps tensors that are neither parameters of its groups nor in its state, scalars aside."""
    for k, group in enumerate(optimizer.param_groups):
        for name, value in group.items():
            if name != "params" and _has_tensor(value):
                yield f"group {k}'s {name!r}"
    for name, value in vars(optimizer).items():
        if name not in ("state", "param_groups", "defaults") and _has_tensor(value):
            yield f"its attribute {name!r}"


def _has_tensor(value: object, depth: int = 3) -> bool:
    if isinstance(value, torch.Tensor):
        return value.numel() > 1
    if depth and isinstance(value, dict):
        mapping = cast("dict[object, object]", value)
        return any(_has_tensor(part, depth - 1) for pair in mapping.items() for part in pair)
    if depth and isinstance(value, list | tuple | set):
        return any(_has_tensor(part, depth - 1) for part in cast("list[object]", value))
    return False
