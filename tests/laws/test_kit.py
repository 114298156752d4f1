"""The ready-made laws of growir.testing notice what is wrong with a pass or an operator."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import ClassVar, Self

import numpy as np
import pytest
from hypothesis import strategies as st

from growir.channels import analyse
from growir.edits import Remap
from growir.graph import Graph, Node
from growir.ops import BatchNorm, LayerNorm, Linear, Relu, Shape, Softmax
from growir.passes import AddNode, Widen
from growir.rewrite import Change, Pass, Preserves
from growir.testing import assert_preserves, op_law, pass_law
from growir.testing.laws import rebuildable
from growir.verify import load
from tests.samples import graph_of, mlp


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
        change = Widen(node=self.node, by=space.stride, copies=copies).resolved(graph).change(graph, step)
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


class AtLayerNorm(Idle):
    """Would do nothing at a layer norm, which one random graph in ten has."""

    name: ClassVar[str] = "at_layer_norm"
    shown: ClassVar[int] = 0

    @classmethod
    def candidates(cls, graph: Graph) -> Iterator[Self]:
        AtLayerNorm.shown += 1
        yield from (cls() for node in graph.nodes if isinstance(node.op, LayerNorm))


class SecondRelu(Idle):
    """Would do nothing at a relu of a relu, which no random graph has."""

    name: ClassVar[str] = "second_relu"

    @classmethod
    def candidates(cls, graph: Graph) -> Iterator[Self]:
        relus = {node.name for node in graph.nodes if isinstance(node.op, Relu)}
        yield from (cls() for node in graph.nodes if node.name in relus and node.inputs[0] in relus)


def test_a_pass_that_keeps_its_promise_passes() -> None:
    pass_law(Widen, max_examples=30)()


def test_a_pass_that_breaks_its_promise_fails() -> None:
    with pytest.raises(AssertionError, match=r"careless .* changed by"):
        pass_law(Careless, max_examples=60)()


def test_a_failure_prints_what_makes_its_graph_and_pass_again() -> None:
    with pytest.raises(AssertionError, match=r"careless .* changed by") as caught:
        pass_law(Careless, max_examples=60)()
    step, graph = (note.split("\n", 1) for note in caught.value.__notes__[:2])
    assert (step[0], graph[0]) == (
        "The pass is Careless of",
        "growir.verify.load makes the graph again from this document:",
    )
    fields = json.loads(step[1])
    assert fields.pop("pass") == "careless"
    with pytest.raises(AssertionError, match=r"careless .* changed by"):
        assert_preserves(Careless(**fields), load(graph[1]))


def test_given_values_are_printed_too() -> None:
    step, graph = AddNode(source="x", target="head", width=1), mlp()
    done = step.rewrite(graph)
    values = {key: np.full(shape, 0.5) for key, shape in step.blocks(done.graph, done.edits).items()}
    step = AddNode(source="x", target="head", width=1, values=values)
    with pytest.raises(ValueError, match="on purpose") as caught, rebuildable(graph, step):
        raise ValueError("on purpose")
    found = json.loads(caught.value.__notes__[0].split("\n", 1)[1])["values"]
    assert found == {key: array.tolist() for key, array in values.items()}


def test_a_pass_without_candidates_is_not_called_tested() -> None:
    with pytest.raises(AssertionError) as caught:
        pass_law(Idle, max_examples=2)()
    assert str(caught.value) == (
        "idle: `candidates` found nothing on 40 random graphs, so nothing of the pass is tested. "
        "Give the law graphs that have some, as a hypothesis strategy: pass_law(Idle, graphs=...)."
    )


def test_a_pass_with_few_candidates_passes() -> None:
    AtLayerNorm.shown = 0
    pass_law(AtLayerNorm, max_examples=20)()
    assert AtLayerNorm.shown > 40


def test_graphs_of_ones_own() -> None:
    with pytest.raises(AssertionError, match="`candidates` found nothing"):
        pass_law(SecondRelu, max_examples=2)()
    relus = [Node(name=name, op=Relu(), inputs=(before,)) for name, before in (("first", "x"), ("head", "first"))]
    pass_law(SecondRelu, graphs=st.just(graph_of((3,), *relus)), max_examples=2)()


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
