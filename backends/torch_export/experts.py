"""Calls of mixtures of experts (`mixtures.py`) as nodes of a graph."""

from __future__ import annotations

from growir.backends.torch_export.calls import Call
from growir.backends.torch_export.layers import own
from growir.backends.torch_export.reading import Reader
from growir.backends.torch_export.values import Unsupported, Value
from growir.ops import Affine, Experts


def _routed(r: Reader, c: Call) -> Value:
    x, scores = c.value("x"), c.value("scores")
    up, down = own(c, "up"), own(c, "down")
    if up is None or down is None:
        raise Unsupported("has stacked weights that are computed; a graph keeps those of experts with the node")
    if x.layout != scores.layout:
        raise Unsupported("has its batch elsewhere in the tokens than in their scores")
    gated = bool(c.arguments["gated"])
    op = Experts(
        num_experts=up.tensor.shape[0],
        hidden_features=down.tensor.shape[2],
        out_features=down.tensor.shape[1],
        activation=c.arguments["activation"],
        gated=gated,
        top_k=c.whole("top_k"),
        weights="chosen" if c.arguments["chosen"] else "all",
    )
    found = r.emit(op, x, scores, layout=x.layout, params={op.up: up, "down_proj": down})
    scale = float(c.arguments["scale"])
    return found if scale == 1 else r.emit(Affine(scale=scale), found, layout=x.layout)


def _topk(r: Reader, c: Call) -> Value:
    raise Unsupported(
        "chooses by numbers of the input. A graph has that for experts with stacked weights alone: those of a router's "
        "highest scores, weighed by their softmax"
    )


TABLE = {"growir.routed_experts": _routed, "topk": _topk}
