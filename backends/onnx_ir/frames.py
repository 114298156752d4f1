"""Operators on several frames of each sample, in ONNX: the frames are put into the batch, and taken out again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from growir.backends.onnx_ir.scope import Scope
from growir.ops.base import Framed


def spell_framed(s: Scope, op: Framed, spell: Callable[[Scope, Any], None]) -> None:
    """Write an operator for (N, T, ...): as it is for (N * T, ...), between two reshapes."""
    values, source, name = s.draft.values, s.node.inputs[0], s.node.name
    whole, result = values[source], values[name]
    one, out = op.frame(s.shapes[0]), op.frame(s.shape)
    values[source] = s.call("frames", "Reshape", whole, s.integers("frame", [-1, *one.sizes]))
    values[name] = f"{name}/each"
    spell(replace(s, shapes=(one, *s.shapes[1:]), shape=out), op)
    each, values[source], values[name] = values[name], whole, result
    s.put("samples", "Reshape", each, s.integers("sample", [-1, *s.shape.sizes]))
