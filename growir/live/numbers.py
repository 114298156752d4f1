"""Which parameter of the model each number in a saved optimizer is.

A saved optimizer counts its parameters through its groups. Where it has names they say which is which. Where not, a
group has its parameters in the model's order, as `[p for p in model.parameters() if ...]` gives them, and the shapes of
their state must say which group each is in:

    the model           fc.weight (8, 3)   fc.bias (8)   head.weight (2, 8)   head.bias (2)
    group 0, numbers 0, 1    state of shape (8, 3), (2, 8)     fc.weight, head.weight
    group 1, numbers 2, 3    state of shape (8), (2)           fc.bias, head.bias

Every way to deal the parameters out is tried, and there must be exactly one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from growir.errors import ModelError, counted, cut
from growir.planning import Saved

Shape = tuple[int, ...]
MOST = 10_000  # ways in which groups may be filled half; beyond that they count as undecided
_Way = tuple[int, "_Way"] | None
_SAY = "give the names of each group's parameters as `names` (--names FILE), a list of lists"


def named_groups(
    shapes: Sequence[Sequence[Shape | None]], given: Sequence[Sequence[str]] | None, saved: Mapping[str, Saved]
) -> list[list[str]]:
    """The names of the parameters in each group.

    Args:
        shapes: For each group and each parameter in it the shape of its state; None where it has none.
        given: Their names, where they are known.
        saved: What the model saves.

    Raises:
        ModelError: The groups are not the model's, or there are several ways to read their numbers.
    """
    known = _first_names(saved)
    if given is None:
        return _dealt(shapes, known)
    if [len(group) for group in given] != [len(group) for group in shapes]:
        raise ModelError(
            f"the optimizer has groups of {_sizes(shapes)} parameters, but the names are for groups of {_sizes(given)}"
        )
    firsts = {entry.parameter: name for name, entry in known.items()}
    found: list[list[str]] = []
    for k, (names, group) in enumerate(zip(given, shapes, strict=True)):
        for name, shape in zip(names, group, strict=True):
            entry = saved.get(name)
            if entry is None or entry.parameter is None:
                raise ModelError(f"group {k} of the optimizer trains {cut(name)}, which is no parameter of the model")
            if shape not in (None, entry.shape):
                raise ModelError(
                    f"group {k} of the optimizer has state of shape {list(shape)} for {cut(name)}, which has shape "
                    f"{list(entry.shape)}; the optimizer is another model's, or its names are"
                )
        found.append([firsts[saved[name].parameter] for name in names])
    return found


def _first_names(saved: Mapping[str, Saved]) -> dict[str, Saved]:
    """The parameters under the first of their names, in the model's order."""
    found: dict[int, tuple[str, Saved]] = {}
    for name, entry in saved.items():
        if entry.parameter is not None:
            found.setdefault(entry.parameter, (name, entry))
    return dict(found[number] for number in sorted(found))


def _sizes(groups: Sequence[Sequence[object]]) -> str:
    return ", ".join(str(len(group)) for group in groups)


def _dealt(shapes: Sequence[Sequence[Shape | None]], known: Mapping[str, Saved]) -> list[list[str]]:
    total = sum(map(len, shapes))
    trained = {name: entry for name, entry in known.items() if entry.trained}
    pool = known if total == len(known) else trained
    if total != len(pool):
        frozen = f", {len(trained)} of them trained" if len(trained) != len(known) else ""
        raise ModelError(
            f"the optimizer has {counted(total, 'parameter')} and no names for them, but the model has "
            f"{len(known)}{frozen}; {_SAY}"
        )
    ways = _ways(shapes, [entry.shape for entry in pool.values()])
    if not ways:
        raise ModelError(
            "the optimizer is another model's, or its groups do not have their parameters in the model's order: "
            f"{_mismatch(shapes, pool)}; {_SAY}"
        )
    names = list(pool)
    if len(ways) > 1:
        k = next(k for k, (one, other) in enumerate(zip(*ways, strict=True)) if one != other)
        raise ModelError(
            f"the shapes of the optimizer's state do not say which parameter is which: {cut(names[k])} may be in group "
            f"{ways[0][k]} or in group {ways[1][k]}; {_SAY}"
        )
    found: list[list[str]] = [[] for _ in shapes]
    for name, group in zip(names, ways[0], strict=True):
        found[group].append(name)
    return found


def _ways(shapes: Sequence[Sequence[Shape | None]], pool: Sequence[Shape]) -> list[list[int]]:
    """Up to two ways to deal parameters out in order, each the group of every parameter."""
    # By how far each group is filled, up to two ways to get there: each the last group, and the way before it.
    reached: dict[tuple[int, ...], list[_Way]] = {(0,) * len(shapes): [None]}
    for shape in pool:
        further: dict[tuple[int, ...], list[_Way]] = {}
        for filled, ways in reached.items():
            for k, group in enumerate(shapes):
                if filled[k] < len(group) and group[filled[k]] in (None, shape):
                    there = further.setdefault((*filled[:k], filled[k] + 1, *filled[k + 1 :]), [])
                    there += [(k, way) for way in ways[: 2 - len(there)]]
        if len(further) > MOST:
            raise ModelError(f"the optimizer's groups are too much alike to tell their parameters by shapes; {_SAY}")
        reached = further
    return [_groups_of(way) for way in reached.get(tuple(map(len, shapes)), ())]


def _groups_of(way: _Way) -> list[int]:
    found: list[int] = []
    while way is not None:
        group, way = way
        found.append(group)
    return found[::-1]


def _mismatch(shapes: Sequence[Sequence[Shape | None]], pool: Mapping[str, Saved]) -> str:
    """What there is most to say of groups that fit in no way."""
    if len(shapes) == 1:
        for k, (shape, (name, entry)) in enumerate(zip(shapes[0], pool.items(), strict=True)):
            if shape not in (None, entry.shape):
                return f"number {k} has state of shape {list(shape)}, where {cut(name)} has shape {list(entry.shape)}"
    there = [entry.shape for entry in pool.values()]
    for k, group in enumerate(shapes):
        for shape in group:
            if shape is not None and shape not in there:
                return f"group {k} has state of shape {list(shape)}, which no parameter of the model has"
    return "no order of the model's parameters gives the shapes of their state"


def prefix_of(names: Sequence[str], known: Mapping[str, Any]) -> str | None:
    """What stands before each of some names where what is behind it is known; None if nothing does."""
    first = next(iter(names), "")
    parts = first.split(".")
    for k in range(len(parts)):
        prefix = "".join(f"{part}." for part in parts[:k])
        if all(name.startswith(prefix) and name.removeprefix(prefix) in known for name in names):
            return prefix
    return None
