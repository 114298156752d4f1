"""A saved training state grown as `grow_into` grows a live one: weights, averages and optimizers of a checkpoint.

What the file calls its parts is found by what they are: a mapping that has the plan's tensors is a state_dict, one with
`state` and `param_groups` a saved optimizer. No model and no optimizer of the user's is made. The edits and the laws
for optimizer state are those of `grow_into`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

from growir.errors import ModelError, PassRefused, counted, cut
from growir.live.groups import Groups
from growir.live.into import Filled, moved_in_place
from growir.live.normalised import uneven_copies
from growir.live.numbers import named_groups
from growir.live.parts import find_optimizers, find_weights, parts_of, replaced, rest_of, spelled
from growir.live.rows import kinds_of, row_of
from growir.live.statedicts import Kind, SavedOptimizer, StateDict, of_kind
from growir.moments import CopyState, FreshState
from growir.planning import Plan, Saved


def grow_checkpoint(
    checkpoint: Mapping[str, Any],
    plan: Plan,
    *,
    weights: str | Sequence[str] | None = None,
    optimizer: str | Sequence[str] | None = None,
    kind: Kind | Sequence[Kind] | None = None,
    names: Sequence[Sequence[str]] | None = None,
    fresh: FreshState = "small",
    copies: CopyState = "carried",
    groups: Groups | None = None,
) -> tuple[dict[str, Any], Filled]:
    """A checkpoint of the large model, out of one of the small model, as `grow_into` would have made it.

    Parameters of new blocks stand in the optimizer where one that is made of the large model has them. Everything else
    in the checkpoint is the same object in both, and so are tensors that do not change.

    Args:
        checkpoint: What was saved; state_dicts lie at its top, or up to three levels deep, and may have a prefix.
        plan: What `growir.plan` made of two models of these sizes.
        weights: Where the model's state_dict is, as "model" or "state.model"; several are the weights and averages of
            them, each of which grows by itself. None: the only state_dict that is the plan's small model's.
        optimizer: Where saved optimizers are; an empty list for none. None: all that there are.
        kind: The class of each. None: the class of torch.optim that has the settings of its groups.
        names: The names of the parameters in each group, where the optimizer has none and their order does not tell.
        fresh: What fresh entries of optimizer state start with, as in `live.grow`.
        copies: What the state of added copies starts with, as in `live.grow`.
        groups: Where created parameters are trained, as in `live.grow`, by the keys of the plan's document.

    Returns:
        The large model's checkpoint, and what was done.

    Raises:
        ModelError: The checkpoint is not of the plan's small model, parts of it are not found or not told apart, or an
            optimizer's groups do not fit.
        PassRefused: The plan does not lead where it says, or was made before plans knew what checkpoints hold.
        GrowirError: An optimizer has state that cannot follow.
    """
    start = time.perf_counter()
    if not plan.small_saved or not plan.large_saved:
        raise PassRefused("the plan does not say how the two models are saved; make it anew with growir.plan")
    parts = dict(parts_of((), checkpoint))
    sets = [
        StateDict(path, parts[path], prefix, plan) for path, prefix in find_weights(parts, weights, plan.small_saved)
    ]
    first = sets[0]
    saved = [SavedOptimizer(path, parts[path], plan.small_saved) for path in find_optimizers(parts, optimizer)]
    classes = _classes(saved, kind)
    kinds = [several[0] for several in classes]  # they keep the same, and all that follows is what they keep
    members = _members(saved, kinds, names, plan.small_saved)
    live = [each.live(kind, own, first.small) for each, kind, own in zip(saved, kinds, members, strict=True)]
    moves = moved_in_place(live, first.grown(fresh, copies), plan.large_keys, groups)
    moves.commit()
    grown = {each.path: each.written() for each in sets}
    grown |= {each.path: each.written(made, first.large) for each, made in zip(saved, live, strict=True)}
    carried = [spelled(path) for path in rest_of(checkpoint, (), set(grown))]
    report = Filled(
        preserves=first.work.done.preserves,
        filled=tuple(plan.large_keys[key] for key in first.work.targets),
        left=(),
        stateless=moves.stateless,
        notes=(
            *_found(sets, saved, classes),
            *moves.notes,
            *(uneven_copies(plan.graph, first.work.edits) if live else ()),
        ),
        callers=first.work.done.callers,
        seconds=time.perf_counter() - start,
        carried=tuple(carried),
    )
    return cast("dict[str, Any]", replaced(checkpoint, (), grown)), report


def _classes(saved: Sequence[SavedOptimizer], given: Kind | Sequence[Kind] | None) -> list[list[Kind]]:
    """The class of each optimizer; several, where these have the same settings and keep the same."""
    if given is not None:
        kinds = list(given) if isinstance(given, list | tuple) else [cast("Kind", given)] * len(saved)
        if len(kinds) != len(saved):
            raise ModelError(f"kind: {counted(len(kinds), 'class')} are given for {counted(len(saved), 'optimizer')}")
        return [[each] for each in kinds]
    found: list[list[Kind]] = []
    for each in saved:
        settings = {name for group in each.groups[:1] for name in group if all(name in other for other in each.groups)}
        kinds = kinds_of(settings, entries := each.entries())
        if not kinds:
            kept = f" and keeps {', '.join(sorted(entries))}" if entries else ""
            raise ModelError(
                f"{cut(spelled(each.path))} is of no class of torch.optim by its settings: it has "
                f"{', '.join(sorted(settings - {'params', 'param_names'}))}{kept}. Say which it is, with `kind` "
                "(--kind NAME for one of torch.optim); live.register tells growth of others"
            )
        found.append(kinds)
    return found


def _members(
    saved: Sequence[SavedOptimizer],
    kinds: Sequence[Kind],
    names: Sequence[Sequence[str]] | None,
    small: Mapping[str, Saved],
) -> list[list[list[str]]]:
    """The names of the parameters in each group of each optimizer."""
    rows = [row_of(of_kind(kind, [{"params": []}])) for kind in kinds]
    shapes = [each.shapes(row.entries) for each, row in zip(saved, rows, strict=True)]
    known: Sequence[Sequence[str]] | None = names
    own = [each.names() for each in saved]
    if names is None and all(each is not None for each in own):
        known = [group for each in own for group in each or ()]
    # All groups of all optimizers at once: together they train the model.
    flat = named_groups([group for each in shapes for group in each], known, small) if saved else []
    found: list[list[list[str]]] = []
    for each in shapes:
        found.append(flat[: len(each)])
        flat = flat[len(each) :]
    return found


def _found(sets: Sequence[StateDict], saved: Sequence[SavedOptimizer], classes: Sequence[Sequence[Kind]]) -> list[str]:
    """What was taken for what."""
    weights, *averages = (spelled(each.path) for each in sets)
    lines = [f"weights: {cut(weights)}"]
    lines += [f"averages: {', '.join(map(cut, averages))}"] if averages else []
    for each, kinds in zip(saved, classes, strict=True):
        lines.append(f"optimizer: {cut(spelled(each.path))}, {' or '.join(kind.__name__ for kind in kinds)}")
    return lines
