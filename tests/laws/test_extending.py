"""The law of extend over small language models: tokens, positions and classes, tied or not, in every order of parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from growir.graph import Graph, Input, Node
from growir.ops import (
    Add,
    Attention,
    Dropout,
    Embedding,
    Flatten,
    Gelu,
    LayerNorm,
    Linear,
    Mean,
    Parameter,
    Permute,
    Reshape,
)
from growir.passes import Extend
from growir.testing import assert_preserves
from growir.verify import verify

FEW = settings(deadline=None, max_examples=max(settings().max_examples // 4, 10))
WIDTH, HEADS, VOCABULARY = 4, 2, 5  # random batches hold integers below 5
PARTS = ("layer", "norm", "dropout", "causal", "attention", "positions")


class Model:
    """Nodes so far, each with the name of its part."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.nodes: list[Node] = []

    def add(self, op: Any, *inputs: str, **more: Any) -> str:
        name = f"{op.kind()}_{len(self.nodes)}"
        self.nodes.append(Node(name=name, op=op, inputs=inputs, **more))
        return name

    def part(self, kind: str, x: str) -> str:
        match kind:
            case "layer":
                return self.add(Add(), x, self.add(Linear(out_features=WIDTH), self.add(Gelu(), x)))
            case "norm":
                return self.add(LayerNorm(), x)
            case "dropout":
                return self.add(Dropout(p=0.3), x)
            case "positions":
                shape = (self.tokens, WIDTH)
                return self.add(Add(), x, self.add(Parameter(shape=shape)))
            case _:
                return self.add(Add(), x, self._attention(x, kind == "causal"))

    def _attention(self, x: str, causal: bool) -> str:
        def heads() -> str:
            made = self.add(Linear(out_features=WIDTH), x)
            return self.add(
                Permute(dims=(0, 2, 1, 3)), self.add(Reshape(shape=(self.tokens, HEADS, WIDTH // HEADS)), made)
            )

        seen = self.add(Attention(is_causal=causal), heads(), heads(), heads())
        flat = self.add(Flatten(start_dim=2), self.add(Permute(dims=(0, 2, 1, 3)), seen))
        return self.add(Linear(out_features=WIDTH), flat)


@st.composite
def language_models(draw: Callable[[st.SearchStrategy[Any]], Any]) -> tuple[Graph, bool]:
    """A model of token numbers, and whether a token depends on earlier ones only."""
    tokens = draw(st.integers(1, 4))
    model = Model(tokens)
    emb = x = model.add(Embedding(num_embeddings=VOCABULARY, embedding_dim=WIDTH), "ids")
    parts: list[str] = draw(st.lists(st.sampled_from(PARTS), max_size=4))
    for kind in parts:
        x = model.part(kind, x)
    pooled = draw(st.integers(0, 3)) == 0
    if pooled:
        x = model.add(Mean(dim=1), x)
    tied = {"tied": {"weight": f"{emb}.weight"}} if draw(st.booleans()) else {}
    out = model.add(Linear(out_features=VOCABULARY, bias=draw(st.booleans())), x, **tied)
    outputs = [out, x] if draw(st.integers(0, 4)) == 0 else [out]
    ids = Input(name="ids", shape=("N", tokens), dtype="int64")
    graph = verify(Graph(inputs=(ids,), nodes=tuple(model.nodes), outputs=tuple(outputs)))
    return graph, not (pooled or "attention" in parts)


@FEW
@given(st.data())
def test_old_entries_stay(data: st.DataObject) -> None:
    graph, in_order = data.draw(language_models())
    found = list(Extend.candidates(graph))
    for step in found:
        assert_preserves(step, graph)
    longer = {entry for step in found for entry in step.rewrite(graph).entries.inputs}
    assert longer == ({"ids"} if in_order else set())  # where it can be promised, it is offered
    assert any(step.rewrite(graph).graph.nodes[0].op != graph.nodes[0].op for step in found)


@FEW
@given(st.data())
def test_one_after_another(data: st.DataObject) -> None:
    """Steps of any kind in any order, as one network and again from its history."""
    graph, _ = data.draw(language_models())
    base = graph
    for _ in range(3):
        step = data.draw(st.sampled_from(list(Extend.candidates(graph))))
        step = step.model_copy(update={"by": step.by * data.draw(st.integers(1, 2)), "copies": ()})
        grown = assert_preserves(step, graph)
        graph = grown.graph
    assert graph.history is not None
    assert graph.history.base == base
    assert grown.replayed().graph.hash == graph.hash
