"""Where an operator's function writes: the ONNX graph so far, seen from one node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from growir.errors import ExportError, cut
from growir.graph import Node
from growir.ops import Shape

Array = NDArray[Any]
Symbols = tuple[str | None, ...]  # for each axis of a value, what its size is called where it is open
Attribute = int | float | str | Sequence[int]


@dataclass(slots=True)
class Draft:
    """An ONNX graph in the making.

    Attributes:
        opset: The version of the operator set that is written.
        arrays: The network's stored tensors by key.
        values: What each value of the graph is called in the file.
        nodes: The ONNX nodes so far.
        tensors: The initializers so far, float32 or int64.
        narrowed: The dtypes other than float32 that parameters had.
    """

    opset: int
    arrays: Mapping[str, Array]
    values: dict[str, str]
    nodes: list[NodeProto] = field(default_factory=list[NodeProto])
    tensors: dict[str, Array] = field(default_factory=dict[str, Array])
    narrowed: set[str] = field(default_factory=set[str])

    def float32(self, key: str, array: Array) -> Array:
        """The numbers as the file holds them. Raises ExportError for one that float32 cannot hold."""
        try:
            with np.errstate(over="raise"):
                return np.ascontiguousarray(array, dtype=np.float32).reshape(array.shape)
        except FloatingPointError:
            text = f"{cut(key)}: a number is too large for float32, which is what ONNX files hold"
            raise ExportError(text) from None


@dataclass(frozen=True, slots=True)
class Scope:
    """One node while its operator is spelled in ONNX.

    Values and constants that only the spelling needs are called "node/what": no name of a graph has a slash.

    Attributes:
        draft: The ONNX graph it is written into.
        node: The node.
        keys: The stored tensor behind each of its parameters.
        shapes: The shapes of its inputs.
        shape: The shape of its output.
        symbols: The open axes of its inputs, then of its output.
    """

    draft: Draft
    node: Node
    keys: Mapping[str, str]
    shapes: tuple[Shape, ...]
    shape: Shape
    symbols: tuple[Symbols, ...]

    @property
    def opset(self) -> int:
        return self.draft.opset

    @property
    def inputs(self) -> tuple[str, ...]:
        """The ONNX names of its inputs."""
        return tuple(self.draft.values[name] for name in self.node.inputs)

    @property
    def x(self) -> str:
        """The ONNX name of its first input."""
        return self.inputs[0]

    def array(self, parameter: str) -> Array:
        """The numbers of a parameter, in the network's own precision."""
        return self.draft.arrays[self.keys[parameter]]

    def param(self, parameter: str) -> str:
        """The initializer that holds a parameter: named, shaped and shared as in the state_dict."""
        key = self.keys[parameter]
        if key not in self.draft.tensors:
            array = self.array(parameter)
            if array.dtype.kind == "i":
                self.draft.tensors[key] = np.ascontiguousarray(array, dtype=np.int64)
                return key
            if array.dtype != np.float32:
                self.draft.narrowed.add(array.dtype.name)
            self.draft.tensors[key] = self.draft.float32(key, array)
        return key

    def column(self, parameter: str, trailing: int) -> str:
        """A vector parameter with `trailing` axes of length 1 behind it, to meet axis 1 of a value."""
        vector = self.param(parameter)
        if not trailing:
            return vector
        axes = self.integers(f"{parameter}_axes", range(1, trailing + 1))
        return self.call(f"{parameter}_column", "Unsqueeze", vector, axes)

    def floats(self, what: str, values: Array | float) -> str:
        """An initializer that holds a float constant."""
        name = f"{self.node.name}/{what}"
        self.draft.tensors[name] = self.draft.float32(name, np.asarray(values))
        return name

    def integers(self, what: str, values: Sequence[int]) -> str:
        """An initializer that holds a vector of integers."""
        name = f"{self.node.name}/{what}"
        self.draft.tensors[name] = np.array(values, dtype=np.int64)
        return name

    def integer(self, what: str, value: int) -> str:
        """An initializer that holds one integer."""
        name = f"{self.node.name}/{what}"
        self.draft.tensors[name] = np.array(value, dtype=np.int64)
        return name

    def matrix(self, what: str, values: Sequence[Sequence[int]]) -> str:
        """An initializer that holds a matrix of integers."""
        name = f"{self.node.name}/{what}"
        self.draft.tensors[name] = np.array(values, dtype=np.int64)
        return name

    def call(self, what: str, kind: str, *inputs: str, **attributes: Attribute) -> str:
        """Add an intermediate step and return the name of its value."""
        name = f"{self.node.name}/{what}"
        self._append(name, kind, inputs, attributes, name)
        return name

    def calls(self, what: Sequence[str], kind: str, *inputs: str, **attributes: Attribute) -> list[str]:
        """Add an intermediate step of several values and return their names."""
        names = [f"{self.node.name}/{each}" for each in what]
        self._append(names[0], kind, inputs, attributes, *names)
        return names

    def result(self, kind: str, *inputs: str, **attributes: Attribute) -> None:
        """Add the step that computes the node's value."""
        self._append(self.node.name, kind, inputs, attributes, self.draft.values[self.node.name])

    def put(self, what: str, kind: str, *inputs: str) -> None:
        """Add the step that computes the node's value behind those that are spelled under the node's own name."""
        self._append(f"{self.node.name}/{what}", kind, inputs, {}, self.draft.values[self.node.name])

    def result_is(self, value: str) -> None:
        """Say that the node's value is already there, under another name."""
        self.draft.values[self.node.name] = value

    def _append(
        self, name: str, kind: str, inputs: Sequence[str], attributes: Mapping[str, Attribute], *outputs: str
    ) -> None:
        node = helper.make_node(kind, inputs, outputs, name=name)
        node.attribute.extend(helper.make_attribute(key, attributes[key]) for key in sorted(attributes))
        self.draft.nodes.append(node)
