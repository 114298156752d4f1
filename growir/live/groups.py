"""Which parameter group a created parameter joins: the one its caller names, or its nearest relative's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from torch import nn

from growir.errors import ModelError, cut
from growir.graph import Graph
from growir.live.relatives import Relative
from growir.live.report import Place
from growir.nearest import suggestion
from growir.params import param_table

# From a created parameter's key and itself to where it goes: the index of a group; the numbers of an optimizer and of
# its group; what a group's "name" is; or None, to its nearest relative.
Groups = Callable[[str, nn.Parameter], "int | tuple[int, int] | str | None"]


ParamGroups = Sequence[Mapping[str, Any]]  # of one optimizer


def asked(
    groups: Groups, key: str, parameter: nn.Parameter, given: Sequence[Sequence[Mapping[str, Any]]]
) -> Place | None:
    """Where the caller wants a created parameter; None leaves it to its nearest relative.

    Args:
        groups: The caller's function.
        key: The parameter's key.
        parameter: It.
        given: The groups of each optimizer.

    Raises:
        ModelError: There is no such group, or several.
    """
    answer = cast("object", groups(key, parameter))
    said = f"groups({key!r}, ...) gives {cut(repr(answer))}"
    if answer is None:
        return None
    if isinstance(answer, str):
        return _named(answer, said, given)
    if type(answer) is int:
        if len(given) > 1:
            raise ModelError(f"{said}, but there are {len(given)} optimizers; give (optimizer, group)")
        answer = (0, answer)
    pair = cast("tuple[object, ...]", answer) if isinstance(answer, tuple) else ()
    if len(pair) != 2 or not all(type(number) is int for number in pair):
        raise ModelError(
            f"{said}; the index of a group is needed, or (optimizer, group), the name of a group, or None for the "
            "nearest relative's"
        )
    place = Place(*cast("tuple[int, int]", pair))
    if not 0 <= place.optimizer < len(given):
        raise ModelError(f"{said}, but the optimizers are numbered 0 to {len(given) - 1}")
    count = len(given[place.optimizer])
    if not 0 <= place.group < count:
        which = f"optimizer {place.optimizer}" if len(given) > 1 else "the optimizer"
        raise ModelError(f"{said}, but the groups of {which} are numbered 0 to {count - 1}")
    return place


def _named(name: str, said: str, given: Sequence[ParamGroups]) -> Place:
    names = [(Place(k, g), group.get("name")) for k, groups in enumerate(given) for g, group in enumerate(groups)]
    found = [place for place, known in names if known == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise ModelError(f"{said}, but {len(found)} groups have that name; give (optimizer, group)")
    known = [str(known) for _, known in names if known is not None]
    listed = f"there are {', '.join(map(cut, known))}" if known else 'no group has a "name"'
    raise ModelError(f"{said}, but {listed}.{suggestion(name, known)}")


def weakness(graph: Graph, key: str, relative: Relative, places: Mapping[str, Place]) -> str | None:
    """Why a created parameter might belong elsewhere than with its nearest relative; None if nothing speaks for it.

    Args:
        graph: The grown graph.
        key: The created parameter.
        relative: Its nearest relative.
        places: Where each parameter that was there is trained.
    """
    mine = places[relative.key]
    if len(set(places.values())) == 1:
        return None
    host, _, name = key.rpartition(".")
    kind, its_host = graph[host].op.kind(), relative.key.rpartition(".")[0]
    alike = "matrix" if len(param_table(graph)[key].shape) > 1 else "vector"
    others = [other for other in relative.alike if places[other] != mine]
    rivals = [other for other in relative.rivals if places[other] != mine]
    if relative.likeness == 3:
        why = f"no {alike} is trained"
    elif relative.likeness == 2:
        why = f"no other {name} that is a {alike} is trained"
    elif relative.likeness == 1:
        why = f"no {name} of another {kind} is trained, and this is of {graph[its_host].op.kind()}"
    elif not relative.role and others:
        why = f"no other {kind} feeds what this one does, and {cut(others[0])} is in {places[others[0]]}"
    elif rivals:
        why = f"{cut(rivals[0])} of {places[rivals[0]]} does the same"
    else:
        return None
    return f"weak likeness: {cut(key)} joins {mine} of {cut(relative.key)}, but {why}; groups= decides otherwise"
