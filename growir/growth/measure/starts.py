"""What fresh units of widenings start with: silent ones are the passes' own, the others are found here.

    step = started(module, Sequence(passes=[Widen(node="fc1", by=4), ...]), "pairs", seed)

Pairs (units 0 and 2, 1 and 3) have equal incoming weights and opposite outgoing ones, so that the function stays to the
rounding while nothing is zero. Where variances are kept, all that reads a space becomes smaller as its width grows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from growir.addresses import Address
from growir.backends.torch_arrays import to_array
from growir.channels import ChannelSpace, analyse
from growir.data.shuffling import generator
from growir.graph import Graph
from growir.growth.measure.overgrown import OverGrown
from growir.growth.measure.sites import sites
from growir.live.modules import find
from growir.params import param_table, spread
from growir.passes import Sequence as Steps
from growir.passes import Update, Widen
from growir.remap import Place
from growir.rewrite import Pass

Start = Literal["silent", "pairs", "variance"]
Places = Mapping[Address, Place]


def even(space: ChannelSpace, step: Widen) -> Widen:
    """The widening by a whole number of pairs, at least one."""
    return step.model_copy(update={"by": max(2, round(step.by / space.stride / 2) * 2) * space.stride})


def started(module: nn.Module, step: Steps, start: Start, *key: int) -> Pass:
    """Widenings with the numbers that their fresh units start with.

    Spaces that are no sites (`measure.sites`), such as those that grow by copies only, start as ever.

    Args:
        module: A growir module.
        step: The widenings; where they make pairs, by `even` numbers of units.
        start: "silent" as the passes themselves do it: incoming weights are drawn, outgoing ones are zero. "pairs" have
            opposite outgoing weights, drawn as a new layer's. "variance" keeps the variance of what reads the units
            (Yuan et al. 2023, section 3.1, with the weights that there are in place of the initialiser's): of a
            fan-in that grows from n to m, outgoing weights, old and drawn ones alike, become smaller by sqrt(n / m).
        key: What numbers are drawn by, integers of at least 0.
    """
    if start == "silent":
        return step
    graph = find(module).graph
    known = {site.name for site in sites(graph).sites}
    turns = {k for k, each in enumerate(step.passes) if isinstance(each, Widen) and each.node in known}
    over = OverGrown(module, step)
    places = {address: place for address, place in sorted(over.lies.items()) if address.place[0] in turns}
    if start == "pairs":
        return step.model_validate({**dict(step), "values": _pairs(graph, over, places, key)})
    scales = _scales(graph, places)
    if not scales:
        return step
    state: dict[str, torch.Tensor] = module.state_dict()
    weights = {k: to_array(state[k]).astype(np.float64) for k in scales}
    plain = step.model_validate({**dict(step), "values": _kept(graph, over, places, weights, scales, key)})
    shrunk = Update(parameters=tuple(scales), values={k: (scales[k] - 1.0) * weights[k] for k in scales})
    return Steps(passes=(shrunk, plain))


def _pairs(graph: Graph, over: OverGrown, places: Places, key: tuple[int, ...]) -> dict[str, NDArray[np.float64]]:
    begun, table, found = over.start(), param_table(graph), dict[str, NDArray[np.float64]]()
    for turn, (address, place) in enumerate(places.items()):
        if len(place.at) != 1:
            continue  # between fresh units of two spaces there is nothing yet
        (axis,) = place.at
        block, sign = to_array(begun[address]).astype(np.float64), 1.0
        if axis in _read(graph, address):
            block, sign = spread(table[address.key].init) * _normal(place.shape, 51, *key, turn), -1.0
        found[address] = _mirrored(block, place.strides[axis], axis, sign)
    return found


def _mirrored(block: NDArray[np.float64], strides: NDArray[np.int64], axis: int, sign: float) -> NDArray[np.float64]:
    """A block in which the second half of an axis's growth strides has the numbers of the first, times the sign."""
    rows = np.atleast_2d(strides)
    parts = np.split(block, len(rows))
    for part, row in zip(parts, rows, strict=True):
        first, second = np.split(np.argsort(row, kind="stable"), 2)
        moved = np.moveaxis(part, axis, 0)
        moved[second] = sign * moved[first]
    return np.concatenate(parts)


def _scales(graph: Graph, places: Places) -> dict[str, float]:
    """By what each tensor that reads fresh units becomes smaller."""
    table, more = param_table(graph), dict[tuple[str, int], int]()
    for address, place in places.items():
        for axis in place.at.keys() & _read(graph, address):
            if len(place.at) == 1:
                more[address.key, axis] = more.get((address.key, axis), 0) + place.at[axis].shape[-1]
    found: dict[str, float] = {}
    for (key, axis), count in sorted(more.items()):
        size = table[key].shape[axis]
        found[key] = found.get(key, 1.0) * (size / (size + count)) ** 0.5
    return found


def _kept(
    graph: Graph,
    over: OverGrown,
    places: Places,
    weights: Mapping[str, NDArray[np.float64]],
    scales: Mapping[str, float],
    key: tuple[int, ...],
) -> dict[str, NDArray[np.float64]]:
    begun, found = over.start(), dict[str, NDArray[np.float64]]()
    for turn, (address, place) in enumerate(places.items()):
        scale = scales.get(address.key)
        if scale is None:
            continue
        if place.at.keys() & _read(graph, address):
            size = float(np.sqrt(np.mean(np.square(weights[address.key]))))
            found[address] = scale * size * _normal(place.shape, 52, *key, turn)
        else:  # new rows of a tensor whose columns grow too
            found[address] = scale * to_array(begun[address]).astype(np.float64)
    return found


def _read(graph: Graph, address: Address) -> frozenset[int]:
    """The axes of a parameter that it is summed over."""
    return analyse(graph).params[address.key].consumes


def _normal(shape: tuple[int, ...], *key: int) -> NDArray[np.float64]:
    return to_array(torch.randn(shape, generator=generator(*key), dtype=torch.float64))
