"""The ready-made laws of growir.testing notice what is wrong with a pass or an operator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Self

import pytest

from growir.channels import analyse
from growir.edits import Remap
from growir.graph import Graph
from growir.ops import BatchNorm, LayerNorm, Linear, Relu, Shape, Softmax
from growir.passes import Widen
from growir.rewrite import Change, Pass, Preserves
from growir.testing import op_law, pass_law


class Careless(Pass):
    """Widens by one, and leaves the consumers' share out."""

    name: ClassVar[str] = "careless"

    node: str

    @classmethod
    def candidates(cls, graph: Graph) -> Iterator[Self]:
        for step in Widen.candidates(graph):
            if step.copies:
                yield cls(node=step.node)

    def check(self, graph: Graph) -> None:
        """Whatever it is offered for."""

    def preserves(self, graph: Graph) -> Preserves:
        return Preserves.EXACT

    def change(self, graph: Graph, step: int) -> Change:
        space = analyse(graph).find(self.node, graph)
        copies = (space.units - 1,) * space.growth[space.space]
        change = Widen(node=self.node, by=space.step, copies=copies).resolved(graph).change(graph, step)
        whole = [_unscaled(edit) if isinstance(edit, Remap) else edit for edit in change.edits]
        return Change(change.nodes, change.outputs, whole)


def _unscaled(edit: Remap) -> Remap:
    from dataclasses import replace

    return Remap(edit.key, tuple(replace(part, scale=None) for part in edit.axes))


class Idle(Pass):
    """Finds nothing to do."""

    name: ClassVar[str] = "idle"

    @classmethod
    def candidates(cls, graph: Graph) -> Iterator[Self]:
        return iter(())

    def check(self, graph: Graph) -> None:
        """It fits everywhere."""

    def preserves(self, graph: Graph) -> Preserves:
        return Preserves.EXACT

    def change(self, graph: Graph, step: int) -> Change:
        return Change(graph.nodes, graph.outputs, ())


def test_a_pass_that_keeps_its_promise_passes() -> None:
    pass_law(Widen, max_examples=30)()


def test_a_pass_that_breaks_its_promise_fails() -> None:
    with pytest.raises(AssertionError, match=r"careless .* changed by"):
        pass_law(Careless, max_examples=200)()


def test_a_pass_without_candidates_is_not_called_tested() -> None:
    with pytest.raises(Exception, match="filter"):
        pass_law(Idle, max_examples=30)()


def test_operators_pass() -> None:
    for kind in (Linear, BatchNorm, LayerNorm, Softmax):
        op_law(kind)()


def test_a_wrong_shape_rule_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Softmax.infer

    def wrong(self: Softmax, *inputs: Shape) -> Shape:
        found = right(self, *inputs)
        return Shape((*found.dims[:-1], found.size(-1) + 1), found.dtype)

    monkeypatch.setattr(Softmax, "infer", wrong)
    with pytest.raises(AssertionError, match="torch gives"):
        op_law(Softmax)()


def test_a_wrong_channel_rule_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    # As if each channel were taken by itself.
    monkeypatch.setattr(Softmax, "channels", Relu.channels)
    with pytest.raises(AssertionError, match=r"widen .* changed by"):
        op_law(Softmax)()


def test_an_operator_without_examples_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Relu, "examples", classmethod(lambda cls: ()))
    with pytest.raises(AssertionError, match="relu has no examples"):
        op_law(Relu)()
