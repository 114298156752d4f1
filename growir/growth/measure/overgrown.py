"""Over-grown networks: a rewrite of a live module as a differentiable function of its fresh numbers.

    over = OverGrown(module, Sequence(passes=(Widen(node="fc1", by=8), Widen(node="fc2", by=8))))
    given = {address: tensor.requires_grad_() for address, tensor in over.start().items()}
    loss = objective(over(given, x), target)        # slopes of every new weight, of gates that `given` is made with
    step = over.chosen({0: [1, 5], 1: [0]}, given)  # what stays, as an ordinary pass

The network is grown beside the module, which stays as it is: the tensors that do not change are the module's own, and
of the others one grown copy is made for each call.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _NormBase  # pyright: ignore[reportPrivateUsage]  # every norm with statistics

from growir.addresses import Address
from growir.backends.torch_arrays import to_array
from growir.backends.torch_edits import TorchBackend
from growir.backends.torch_fx.lowering import lower_tensors
from growir.document import function_hash
from growir.edits import Create, Edit, Remap, Shift, apply_edits
from growir.errors import PassRefused, cut
from growir.graph import FixedSize, Graph
from growir.live.modules import find
from growir.ops.base import Constant
from growir.params import param_table
from growir.passes import Sequence as Passes
from growir.passes import Split, Widen
from growir.remap import Place, defaults
from growir.rewrite import Pass, Rewrite

Given = Mapping[str, torch.Tensor]
FLOAT64 = np.dtype(np.float64)  # fresh numbers are rounded once, to the module's dtype

Structure = tuple[str, tuple[FixedSize, ...], torch.device, torch.dtype]
KEPT = 8  # lowered structures; each holds code and one number a tensor
_LOWERED: OrderedDict[Structure, fx.GraphModule] = OrderedDict()


class OverGrown:
    """A module, grown by a pass, as a function of the numbers of all that is new.

    Numbers go by address (`growir.addresses`) in the shapes that `places` gives; those that are not given are what the
    pass starts with. Outputs are differentiable in what is given and in whatever it is computed from, such as gates.
    The module's own parameters are taken as they are at each call and get no slopes, unless `learns` asks for those
    that are trained. Its mode, train or eval, is kept part by part; statistics that train mode writes go nowhere.

    Attributes:
        step: The pass.
        graph: The grown graph.
        places: The shape of the numbers at each address. Those of `Split` part the two of each pair, and start at zero.
        lies: Where the numbers of each address lie: along which axes, and of which growth stride each position is.
        module: What is grown.
        learns: Whether slopes reach the module's trained parameters too.

    Raises:
        ModelError: It is no growir module.
        PassRefused: The pass does not fit it.
    """

    def __init__(self, module: nn.Module, step: Pass, *, learns: bool = False) -> None:
        live = find(module)
        self.step = step
        self.module = live.module
        self.learns = learns
        self._before = live.graph
        self._done: Rewrite = step.rewrite(live.graph)
        self.graph: Graph = self._done.graph
        self.lies: Mapping[Address, Place] = dict(_places(self._done.edits))
        self.places: Mapping[str, tuple[int, ...]] = {a: place.shape for a, place in self.lies.items()}
        self._keys = list(param_table(live.graph))

    def __call__(self, given: Given, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The outputs on a batch of the grown graph's inputs, as many as the graph has.

        Raises:
            GrowirError: Numbers are given for an address that is no place, or of another shape.
        """
        tensors = self.tensors(given)
        code = self._lowered(tensors)
        for name, part in cast("Iterator[tuple[str, nn.Module]]", code.named_modules()):
            if isinstance(part, _NormBase) and part.training:  # which writes its statistics in place
                tensors |= {key: tensors[key].clone() for key in _statistics(name, part) if key in tensors}
        found: torch.Tensor | tuple[torch.Tensor, ...] = functional_call(code, tensors, inputs)
        return found if isinstance(found, tuple) else (found,)

    def tensors(self, given: Given) -> dict[str, torch.Tensor]:
        """The grown network's tensors by key; those that the rewrite leaves alone are the module's own."""
        return apply_edits(self._done.edits, self._old(), self._backend(), FLOAT64, given)

    def start(self) -> dict[str, torch.Tensor]:
        """What the pass starts with, by address: every place, on the module's device and in its dtype.

        Where old rows are copied, a block that lies along another axis has the numbers of the first copies.
        """
        found: dict[str, torch.Tensor] = {}
        tensors, backend = self._old(), self._backend()
        with torch.no_grad():
            for edit in self._done.edits:
                if isinstance(edit, Remap):
                    found |= defaults(edit, tensors[edit.key], backend)
                tensors = apply_edits([edit], tensors, backend, FLOAT64)
                if isinstance(edit, Create):
                    found[edit.address] = tensors[edit.key]
                elif isinstance(edit, Shift):
                    found[edit.address] = backend.cast(edit.by, tensors[edit.key])
        return {address: tensor.clone() for address, tensor in found.items()}

    def chosen(self, units: Mapping[int, Sequence[int] | None], given: Given) -> Pass:
        """The pass that keeps some of what is new, with its numbers; what `live.grow` takes and a history records.

        It gives what the over-grown network gives where the numbers that others read of what goes are zero.

        Args:
            units: By the place of a pass in the sequence (0 for a pass by itself) which of its new units stay. A
                widening of fresh units and a split keep any of them, counted from 0 in growth strides of the space,
                the smallest growths it has: `by / space.stride` of a widening, and of a split, in most spaces, as many
                as it has `channels`. None keeps a pass whole, whatever it is. Passes that are not named go.
            given: The numbers, by address; the others are what `start` gives.

        Raises:
            PassRefused: A unit or pass is named that there is not, or nothing stays.
        """
        steps = self.step.passes if isinstance(self.step, Passes) else (self.step,)
        kept = {k: self._kept(k, steps, units[k]) for k in sorted(units)}
        kept = {k: each for k, each in kept.items() if each is None or each}
        if not kept:
            raise PassRefused("chosen: nothing of the pass stays; name a unit that does")
        twice = [
            key for key, count in Counter(e.key for e in self._done.edits if isinstance(e, Remap)).items() if count > 1
        ]
        if twice and any(each is not None for each in kept.values()):
            raise PassRefused(
                f"chosen: passes follow each other on {cut(twice[0])}, so the blocks of the later ones hold units of "
                "the earlier; give None to keep passes whole, or one pass for each space"
            )
        plain = [steps[k] if each is None else _smaller(self._before, steps[k], each) for k, each in kept.items()]
        values = self._values(kept, plain, {**self._drawn(), **given})
        if isinstance(self.step, Passes):
            return self.step.model_validate({**dict(self.step), "passes": tuple(plain), "values": values})
        return plain[0].model_copy(update={"values": values})

    def _kept(self, k: int, steps: Sequence[Pass], wanted: Sequence[int] | None) -> list[int] | None:
        if not 0 <= k < len(steps):
            raise PassRefused(f"chosen: there is no pass {k}; there are {len(steps)}, counted from 0")
        step = steps[k]
        if wanted is None:
            return None
        if not isinstance(step, Widen | Split) or (isinstance(step, Widen) and step.resolved(self._before).copies):
            raise PassRefused(
                f"chosen: passes[{k}] is {step.name}, of which no unit stays without the others; give None to keep it"
            )
        count = len(_strides(self._before, step))
        if len(set(wanted)) < len(wanted) or not all(0 <= unit < count for unit in wanted):
            raise PassRefused(
                f"chosen: passes[{k}], {step.name} {cut(step.node)}, has new units 0 to {count - 1}, each to be named "
                f"once, but {list(wanted)} are given"
            )
        return sorted(wanted)

    def _values(
        self, kept: Mapping[int, list[int] | None], plain: Sequence[Pass], given: Given
    ) -> dict[str, NDArray[Any]]:
        """The numbers of what stays, by the addresses that the smaller pass has for them."""
        sequence = isinstance(self.step, Passes)
        smaller = Passes(passes=tuple(plain)) if sequence else plain[0]
        new = _places(smaller.rewrite(self._before).edits)
        old = _places(self._done.edits)
        found: dict[str, NDArray[Any]] = {}
        for turn, k in enumerate(kept):
            # The same code made both lists, in one order, whatever a node that comes into being is called now.
            pairs = zip(_sides(new, turn if sequence else None), _sides(old, k if sequence else None), strict=True)
            for (name, now), (address, place) in pairs:
                if address in given:
                    found[name] = _sliced(given[address], place, kept)
                    if found[name].shape != now.shape:
                        raise PassRefused(
                            f"chosen: {cut(address)} is as long as passes[{k}] finds the network, with all new units "
                            "of the passes before it; put that pass in front of them, or keep them whole by None"
                        )
        corners = {(Address(a).key, Address(a).axes): (a, place) for a, place in old if _is_corner(place)}
        for address, place in new:
            if _is_corner(place):
                there, whole = corners[address.key, address.axes]
                if there in given:
                    found[address] = _sliced(given[there], whole, kept)
        return found

    def _drawn(self) -> dict[str, torch.Tensor]:
        """What the pass starts with, where it is drawn: another pass would draw other numbers."""
        drawn: set[str] = set()
        for edit in self._done.edits:
            if isinstance(edit, Create) and (edit.fresh.given is not None or not isinstance(edit.fresh.init, Constant)):
                drawn.add(edit.address)
            elif isinstance(edit, Remap):
                random = {part.axis for part in edit.axes if not isinstance(part.fresh.init, Constant)}
                means = {part.axis for part in edit.axes if part.fresh.mean}
                drawn |= {
                    place.address
                    for place in edit.places
                    if place.given is not None
                    or (len(place.at) == 1 and not place.partners and place.at.keys() & (random | means))
                }
            elif isinstance(edit, Shift) and np.any(edit.by):
                drawn.add(edit.address)
        return {address: tensor for address, tensor in self.start().items() if address in drawn}

    def _old(self) -> dict[str, torch.Tensor]:
        state: dict[str, torch.Tensor] = self.module.state_dict(keep_vars=True)
        return {key: state[key] if self.learns else state[key].detach() for key in self._keys}

    def _backend(self) -> TorchBackend:
        floats = (tensor for tensor in self.module.state_dict().values() if tensor.is_floating_point())
        return TorchBackend(next(floats, torch.empty(0)))

    def _lowered(self, tensors: Mapping[str, torch.Tensor]) -> fx.GraphModule:
        """The grown graph's code, without numbers, its parts in the modes of the module's."""
        floats = (tensor for tensor in tensors.values() if tensor.is_floating_point())
        like = next(floats, torch.empty(0))
        key = (function_hash(self.graph), self.graph.fixed_sizes, like.device, like.dtype)
        if key not in _LOWERED:
            table = param_table(self.graph)
            # One number a tensor, seen in its shape: `functional_call` puts the real ones in.
            hollow = {
                name: torch.zeros((), dtype=tensor.dtype, device=tensor.device).expand(tensor.shape)
                for name, tensor in tensors.items()
            }
            _LOWERED[key] = lower_tensors(
                self.graph,
                {name: t if table[name].buffer else nn.Parameter(t, requires_grad=False) for name, t in hollow.items()},
                like.device,
            )
            while len(_LOWERED) > KEPT:
                _LOWERED.popitem(last=False)
        _LOWERED.move_to_end(key)
        code = _LOWERED[key]
        modes = {
            name: part.training for name, part in cast("Iterator[tuple[str, nn.Module]]", self.module.named_modules())
        }
        for name, part in cast("Iterator[tuple[str, nn.Module]]", code.named_modules()):
            part.training = modes.get(name, self.module.training)
        return code


def _places(edits: Sequence[Edit]) -> list[tuple[Address, Place]]:
    """Every address of some edits with its place; a tensor that is new, or added to, is one as a whole."""
    found: list[tuple[Address, Place]] = []
    for edit in edits:
        if isinstance(edit, Create):
            found.append((edit.address, Place(edit.address, edit.param.shape, {})))
        elif isinstance(edit, Shift):
            found.append((edit.address, Place(edit.address, edit.by.shape, {})))
        elif isinstance(edit, Remap):
            found += [(place.address, place) for place in edit.places]
    return found


def _sides(places: Sequence[tuple[Address, Place]], k: int | None) -> list[tuple[Address, Place]]:
    """The places of one pass, in its order, corners left out."""
    return [(a, place) for a, place in places if not _is_corner(place) and (k is None or a.place[:1] == (k,))]


def _statistics(name: str, norm: nn.Module) -> list[str]:
    return [f"{name}.{key}" for key, _ in norm.named_buffers()]


def _is_corner(place: Place) -> bool:
    return len(place.at) > 1


def _sliced(block: torch.Tensor, place: Place, kept: Mapping[int, list[int] | None]) -> NDArray[Any]:
    """The numbers of those units that stay."""
    found = to_array(block)
    for axis in place.at:
        makers, strides = place.makers[axis], place.strides[axis]
        stays = np.zeros(makers.shape, bool)
        for k, units in kept.items():
            stays |= (makers == k) & (np.isin(strides, units) if units is not None else True)
        if stays.ndim == 1:
            found = found.compress(stays, axis)
        else:  # of each group its own, equally many
            groups = np.split(found, len(stays))
            found = np.concatenate([each.compress(row, axis) for each, row in zip(groups, stays, strict=True)])
    return found


def _strides(graph: Graph, step: Widen | Split) -> list[range]:
    """The new units of a pass's space, stride by stride; those of a split as places in its `channels`."""
    space = step.space(graph)
    each = space.growth[space.space]
    count = step.by // space.stride if isinstance(step, Widen) else len(step.channels) // each
    return [range(k * each, (k + 1) * each) for k in range(count)]


def _smaller(graph: Graph, step: Pass, kept: Sequence[int]) -> Pass:
    """The same pass with some of its growth strides."""
    assert isinstance(step, Widen | Split)
    if isinstance(step, Widen):
        return step.model_copy(update={"by": len(kept) * step.space(graph).stride, "values": {}})
    strides, shares = _strides(graph, step), step.resolved(graph).shares
    units = [unit for k in kept for unit in strides[k]]
    some = {"channels": tuple(step.channels[k] for k in units), "shares": tuple(shares[k] for k in units)}
    return step.model_copy(update={**some, "values": {}})
