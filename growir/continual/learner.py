"""A task in training: what others have learned as it is, behind gates, and everything else free to move.

    weight = where(locked, learned, free) * gate        of each layer that tasks share
    all else, norms and biases and the head, is the task's own

What is locked is no parameter, so that no optimizer has it: neither its weight decay nor momentum nor a second moment
from before can move it, and the statistics of norms are the task's own. `master.learned` compares the bits again.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.func import functional_call

from growir.backends.torch_arrays import to_array, to_tensor
from growir.continual.masks import Mask, mask_shapes
from growir.continual.master import Master
from growir.continual.views import up_to
from growir.data.shuffling import generator
from growir.errors import GraphError, cut
from growir.graph import Graph
from growir.growth.measure.gates import OPEN, TEMPERATURE, closed_or_open, sampled
from growir.layers import is_layer
from growir.network import Network
from growir.params import param_table


class Result(TypedDict):
    """What a task has come to, as `Master.learned` is told.

    Attributes:
        arrays: The tensors that tasks share, as they are now.
        own: The task's own.
        masks: Which of the shared weights it uses.
    """

    arrays: dict[str, NDArray[Any]]
    own: dict[str, NDArray[Any]]
    masks: dict[str, Mask]


@dataclass(frozen=True, slots=True, eq=False)
class Channels:
    """Channels that have a gate each: where it is closed, all who would read the channel read zero.

    Attributes:
        name: Of their space.
        readers: For each weight that reads them, by key: its axis, and for each channel its positions there.
    """

    name: str
    readers: Sequence[tuple[str, int, Sequence[Sequence[int]]]]

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.readers[0][2])

    def read_by(self, keys: Container[str]) -> Channels:
        """The same with those of the readers that are among some keys: other tasks' heads are not there in training."""
        return Channels(self.name, [reader for reader in self.readers if reader[0] in keys])


class Learner(nn.Module):
    """A module to be trained on one task, as any other.

    Attributes:
        free: What may move of the shared weights, by number and key, with `_` for `.`; where a weight is locked it
            counts for nothing.
        gates: The gates' numbers, of the masks' shapes.
        channels: The numbers of the channels' gates, by the names of their spaces.
        own: The task's own parameters.
    """

    def __init__(
        self,
        master: Master,
        output: str,
        *,
        gated: Mapping[str, Mask] | None = None,
        used: Mapping[str, Mask] | None = None,
        channels: Sequence[Channels] = (),
        closed: Sequence[Channels] = (),
        start: float = OPEN,
        temperature: float = TEMPERATURE,
        seed: int = 0,
    ) -> None:
        """Begin a task.

        Args:
            master: What was learned before.
            output: The task's head.
            gated: Which weights have a gate, by key; by default those that are locked. All others are used.
            used: Which weights take part at all; by default all.
            channels: Those that have gates.
            closed: Those that nothing reads, whatever is trained.
            start: The gates' first number.
            temperature: Of the gates.
            seed: Of their noise.

        Raises:
            GraphError: The graph has no such output, or masks are of other shapes.
        """
        super().__init__()
        self.output, self.temperature = output, temperature
        if output not in master.graph.outputs:
            outputs = ", ".join(map(cut, master.graph.outputs))
            raise GraphError(f"there is no output {cut(output)!r}; there are {outputs}")
        alone = up_to(Network(master.graph, master.arrays), output)
        self._lowered = (alone.to_torch(),)  # in a tuple: its tensors are none of those that learn
        self._graph, self._noise = alone.graph, generator(70, seed)
        table, head = param_table(self._graph), head_of(self._graph, output)
        shapes = {key: shape for key, shape in mask_shapes(self._graph).items() if key.rpartition(".")[0] not in head}
        locked = {key: mask for key, mask in master.locked.items() if key in shapes}
        gated = locked if gated is None else gated
        for name, given in (("gated", gated), ("used", used or {})):
            for key, mask in given.items():
                if shapes.get(key) != mask.shape:
                    needs = f"{shapes[key]} is needed" if key in shapes else "it is no weight that tasks share"
                    raise GraphError(f"{name}: {cut(key)} is {mask.shape}, but {needs}")
        self.free, self.gates, self.own = nn.ParameterDict(), nn.ParameterDict(), nn.ParameterDict()
        self._keys = {key: f"{k}_{key.replace('.', '_')}" for k, key in enumerate(table)}
        for key, name in self._keys.items():
            tensor = to_tensor(alone.arrays[key])
            if key not in shapes:
                if table[key].buffer:
                    self.register_buffer(f"own_{name}", tensor)
                else:
                    self.own[name] = nn.Parameter(tensor)
                continue
            self.free[name] = nn.Parameter(tensor.clone())
            self.register_buffer(f"learned_{name}", tensor)
            self._mask(f"locked_{name}", locked.get(key), shapes[key])
            self._mask(f"gated_{name}", gated.get(key), shapes[key])
            self._mask(f"used_{name}", (used or {}).get(key, np.ones(shapes[key], bool)), shapes[key])
            if key in gated and gated[key].any():
                self.gates[name] = nn.Parameter(torch.full(shapes[key], float(start)))
        self._shapes = shapes
        self._channels = [each for given in channels if (each := given.read_by(table)).readers]
        self._closed = [each for given in closed if (each := given.read_by(table)).readers]
        self.channels = nn.ParameterDict(
            {str(k): nn.Parameter(torch.full((each.count,), float(start))) for k, each in enumerate(self._channels)}
        )

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Learner:
        """Move what is lowered too: its tensors are replaced, but for constants in it."""
        (module,) = self._lowered
        module._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch's own
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def _mask(self, name: str, mask: Mask | None, shape: tuple[int, ...]) -> None:
        self.register_buffer(name, torch.from_numpy(np.zeros(shape, bool) if mask is None else mask.copy()))

    def forward(self, *inputs: torch.Tensor) -> Any:
        """The task's outputs: with noise on the gates in training, as they are in use otherwise."""
        (module,) = self._lowered
        module.train(self.training)
        return functional_call(module, self._tensors(), inputs)

    def _tensors(self) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}
        for key, name in self._keys.items():
            if key not in self._shapes:
                found[key] = self.own[name] if name in self.own else self.get_buffer(f"own_{name}")
            else:
                found[key] = self._merged(name) * self._open(name)
        for k, each in enumerate(self._channels):
            gates = self.channels[str(k)]
            opened = sampled(gates, self._noise, self.temperature) if self.training else closed_or_open(gates)
            for key, axis, positions in each.readers:
                found[key] = found[key] * _along(opened, found[key], axis, positions)
        for each in self._closed:
            for key, axis, positions in each.readers:
                found[key] = found[key] * _along(torch.zeros(each.count), found[key], axis, positions)
        return found

    def shut(self) -> dict[str, list[int]]:
        """Which of the channels with gates are closed, by space, counted among them."""
        found = {each.name: self.channels[str(k)] for k, each in enumerate(self._channels)}
        return {name: [int(at) for at in torch.nonzero(gates <= 0)] for name, gates in found.items()}

    def _merged(self, name: str) -> torch.Tensor:
        locked = self.get_buffer(f"locked_{name}")
        return torch.where(locked, self.get_buffer(f"learned_{name}"), self.free[name])

    def _open(self, name: str) -> torch.Tensor:
        used = self.get_buffer(f"used_{name}").to(self.free[name])
        if name not in self.gates:
            return used
        gates = self.gates[name]
        opened = sampled(gates, self._noise, self.temperature) if self.training else closed_or_open(gates)
        return torch.where(self.get_buffer(f"gated_{name}"), opened, torch.ones_like(opened)) * used

    def result(self) -> Result:
        """What `Master.learned` is told."""
        arrays: dict[str, NDArray[Any]] = {}
        own: dict[str, NDArray[Any]] = {}
        masks: dict[str, Mask] = {}
        with torch.no_grad():
            training, self.training = self.training, False
            tensors = self._tensors()
            for key, name in self._keys.items():
                if key in self._shapes:
                    masks[key] = to_array(self._open(name)).astype(bool)
                    arrays[key] = to_array(self._merged(name))
                else:
                    own[key] = to_array(tensors[key])
            gates = [closed_or_open(self.channels[str(k)]) for k in range(len(self._channels))]
            gates += [torch.zeros(each.count) for each in self._closed]
            for each, opened in zip((*self._channels, *self._closed), gates, strict=True):
                for key, axis, positions in each.readers:
                    if key in masks:
                        masks[key] = masks[key] & to_array(_along(opened, tensors[key], axis, positions)).astype(bool)
            self.training = training
        return Result(arrays=arrays, own=own, masks=masks)


def _along(opened: torch.Tensor, weight: torch.Tensor, axis: int, positions: Sequence[Sequence[int]]) -> torch.Tensor:
    """Zeros and ones of channels as a factor of a weight that reads them, in which all else is one."""
    factor = torch.ones(weight.shape[axis], dtype=weight.dtype, device=weight.device)
    places = torch.tensor([at for channel in positions for at in channel], device=weight.device)
    factor = factor.index_copy(0, places, opened.repeat_interleave(len(positions[0])).to(factor))
    return factor.reshape([-1 if k == axis else 1 for k in range(weight.ndim)])


def head_of(graph: Graph, output: str) -> frozenset[str]:
    """The nodes of a head: from its output back to the first layers, these included."""
    found, stack = set[str](), [output]
    while stack:
        name = stack.pop()
        if name in found or name not in graph:
            continue
        found.add(name)
        if not is_layer(graph, name):
            stack.extend(graph[name].inputs)
    return frozenset(found)
