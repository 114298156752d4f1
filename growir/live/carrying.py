"""Tensors of a live module through a rewrite's edits: weights, gradients, averages and masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn
from torch.optim.swa_utils import AveragedModel

from growir.backends.torch_edits import TORCH, TorchBackend
from growir.document import function_hash
from growir.edits import Copy, Create, Derive, Drop, Edit, Pack, Rename, apply_edits
from growir.errors import GrowirError, ModelError, cut
from growir.graph import Graph
from growir.live.modules import Live, Tensors, find, rebuilt
from growir.moments import carry_masks, carry_moments
from growir.nearest import alternatives
from growir.params import frozen_keys, owners, param_table, with_frozen
from growir.rewrite import Rewrite


def heirs_of(edits: Sequence[Edit], keys: Sequence[str]) -> dict[str, str]:
    """The new key of every old one that is still there."""
    found = {key: key for key in keys}  # by the present key, the old one
    for edit in edits:
        match edit:
            case Drop(key):
                found.pop(key, None)
            case Create(key) | Copy(key):
                found.pop(key, None)  # made anew under a name that was dropped
            case Rename(old, new) if old in found:
                found[new] = found.pop(old)
            case Pack(key, sources):
                parts = [found.pop(source, None) for source in sources]
                found.pop(key, None)
                if parts[0] is not None:
                    found[key] = parts[0]
            case _:
                pass
    return {old: key for key, old in found.items()}


def edited(tensors: Mapping[str, torch.Tensor], edits: Sequence[Edit]) -> Tensors:
    """The numbers after the edits; untouched tensors are the same objects, created ones are like the first float.

    Where there is none, they have torch's default dtype and device.
    """
    like = next((tensor for tensor in tensors.values() if tensor.is_floating_point()), torch.empty(0))
    with torch.no_grad():
        # float64, so that numbers are rounded once, to the module's own dtype, which numpy may lack.
        found = apply_edits(edits, tensors, TorchBackend(like), np.dtype(np.float64))
    return {key: _laid_out_like(tensors[key], tensor) if key in tensors else tensor for key, tensor in found.items()}


def _laid_out_like(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """A kernel stays channels last, on which the speed of a convolution hangs."""
    last = torch.channels_last
    if (
        new is not old
        and old.ndim == new.ndim == 4
        and not old.is_contiguous()
        and old.is_contiguous(memory_format=last)
    ):
        return new.contiguous(memory_format=last)
    return new


def switched(done: Rewrite, frozen: Mapping[str, bool]) -> Rewrite:
    """The same rewrite, with some parameters of the grown graph frozen or not."""
    table = param_table(done.graph)
    keys = {key for key in frozen_keys(done.graph) if frozen.get(key, True)}
    keys |= {key for key, held in frozen.items() if held and not table[key].buffer}
    return replace(done, graph=with_frozen(done.graph, keys))


def grown_tensors(live: Live, done: Rewrite, heirs: Mapping[str, str]) -> Tensors:
    """The module's tensors after a rewrite, with their gradients.

    Learned ones are Parameters that require a gradient unless the grown graph freezes them. Untouched ones are the old
    objects.
    """
    before = live.tensors
    sparse = [key for key, tensor in before.items() if tensor.grad is not None and tensor.grad.is_sparse]
    if sparse:
        raise ModelError(
            f"{cut(sparse[0])} has a sparse gradient, which cannot follow; zero the gradients before growing"
        )
    after = edited(before, done.edits)
    # A copied tensor stands elsewhere: what its source has accumulated is not its gradient.
    moved = [edit for edit in done.edits if not isinstance(edit, Copy)]
    grads = carry_moments(moved, {k: t.grad for k, t in before.items() if t.grad is not None}, "gradient", TORCH)
    old_keys = {new: old for old, new in heirs.items()}
    found: Tensors = {}
    for key, param in param_table(done.graph).items():
        if tuple(after[key].shape) != param.shape:
            raise ModelError(
                f"the rewrite gives {cut(key)} the shape {list(after[key].shape)}, but its graph needs "
                f"{list(param.shape)}; it belongs to another graph"
            )
        old = before[old_keys[key]] if key in old_keys else None
        learns = key not in frozen_keys(done.graph)
        if param.buffer or (old is after[key] and after[key].requires_grad is learns):
            found[key] = after[key]
            continue
        found[key] = nn.Parameter(after[key], requires_grad=learns)
        if old is not None:
            vars(found[key]).update(vars(old))  # what users hang on a parameter, such as its own learning rate
        if key in grads:
            found[key].grad = grads[key]
    return found


# -- averages and masks -----------------------------------------------------------------------------------------------


class AveragePlan:
    """What an average of the weights will be after growth: a module, an AveragedModel, or tensors by key.

    Attributes:
        grown: The grown average; an AveragedModel is itself, and grown once `commit` is called.
        notes: What it leaves to the caller.
    """

    def __init__(
        self, average: object, number: int, live: Live, done: Rewrite, values: Mapping[str, NDArray[Any]]
    ) -> None:
        what = f"ema[{number}]"
        self._averaged = average if isinstance(average, AveragedModel) else None
        self.notes: tuple[str, ...] = ()
        if isinstance(average, Mapping):
            self.grown: object = _grown_state(cast("Mapping[str, Any]", average), live.graph, done, what)
            return
        inner = find(average.module if isinstance(average, AveragedModel) else average, what)
        if function_hash(inner.graph) != function_hash(live.graph):
            raise ModelError(
                f"{what} has another graph than the module: {inner.graph.hash[:12]}, {live.graph.hash[:12]}"
            )
        self.notes = inner.notes
        self._inner = self._module(inner, done, values)
        self.grown = self._averaged or self._inner

    def _module(self, inner: Live, done: Rewrite, values: Mapping[str, NDArray[Any]]) -> fx.GraphModule:
        # An average is often kept with no gradients at all: what its parameters require is its own affair. What its
        # document freezes is the module's, so that it can be saved as what will be trained.
        heirs = heirs_of(done.edits, list(inner.tensors))
        own = {heirs[key]: key in frozen_keys(inner.graph) for key in inner.tensors if key in heirs}
        if not any(parameter.requires_grad for parameter in inner.module.parameters()):
            own |= dict.fromkeys(param_table(done.graph).keys() - own.keys(), True)
        return rebuilt(inner.module, done.graph, grown_tensors(inner, switched(done, own), heirs), values)

    def commit(self) -> None:
        """Change an AveragedModel, in place."""
        if self._averaged is not None:
            self._averaged.module = self._inner


def _grown_state(state: Mapping[Any, Any], graph: Graph, done: Rewrite, what: str) -> Tensors:
    """A state_dict after the edits; it holds every parameter, and all buffers or none."""
    own, table = owners(graph), param_table(graph)
    tensors: Tensors = {}
    for key, tensor in state.items():
        if key not in own or not isinstance(tensor, torch.Tensor):
            near = alternatives(str(key), own)
            raise ModelError(f"{what}: {cut(key)} is no tensor of the module; a state_dict is needed.{near}")
        if tuple(tensor.shape) != table[own[key]].shape:
            shapes = f"{list(tensor.shape)}, but the module's {list(table[own[key]].shape)}"
            raise ModelError(f"{what}: {cut(key)} has shape {shapes}")
        if key == own[key] or own[key] not in state:
            tensors[own[key]] = tensor
    buffers = [key for key, param in table.items() if param.buffer]
    whole = any(key in tensors for key in buffers)
    lacking = [key for key, param in table.items() if key not in tensors and (whole or not param.buffer)]
    if lacking:
        raise ModelError(f"{what} lacks {cut(lacking[0])}; give every parameter, and all buffers or none")
    edits = done.edits if whole or not buffers else [edit for edit in done.edits if not _touches(edit, buffers, done)]
    after = edited(tensors, edits)
    names = owners(done.graph)
    tied = any(key != owner for key, owner in own.items() if key in state)
    return {name: after[owner] for name, owner in names.items() if owner in after and (tied or name == owner)}


def _touches(edit: Edit, buffers: Sequence[str], done: Rewrite) -> bool:
    table = param_table(done.graph)
    match edit:
        case Create(key) if key in table and table[key].buffer:
            return True
        case Rename(old, _):
            return old in buffers
        case Copy(_, source):
            return source in buffers
        case Pack(_, sources):
            return any(source in buffers for source in sources)
        case Derive(_, _, sources):
            if any(source in buffers for source in sources):
                raise ModelError("the rewrite works weights out from buffers, which an average must then hold too")
            return False
        case _:
            return edit.key in buffers


def grown_masks(masks: Mapping[str, torch.Tensor], graph: Graph, done: Rewrite) -> Tensors:
    """Masks after the edits, where fresh weights count; a created parameter has no mask, which means the same.

    Raises:
        GrowirError: A mask is of no tensor of the module or has not its shape, or its tensor is worked out anew.
    """
    table = param_table(graph)
    given = cast("object", masks)
    if not isinstance(given, Mapping) or not all(
        isinstance(mask, torch.Tensor) for mask in cast("Mapping[Any, object]", given).values()
    ):
        raise ModelError("masks: tensors by the key of their parameter are needed, {'fc1.weight': mask}")
    for key, mask in masks.items():
        if key not in table:
            raise ModelError(f"masks: {cut(key)} is no tensor of the module.{alternatives(key, table)}")
        if tuple(mask.shape) != table[key].shape:
            raise ModelError(f"masks: {cut(key)} has shape {list(mask.shape)}, its tensor {list(table[key].shape)}")
    try:
        return carry_masks(done.edits, masks, TORCH)
    except GrowirError as error:
        raise ModelError(f"masks: {error}") from None
