"""The operator `first`: which tables it takes, what it bounds, and how files for ONNX say so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from growir.backends.onnx_ir.lengths import open_axes
from growir.channels import channel_spaces, opened
from growir.errors import GraphError, PassRefused
from growir.graph import FixedSize, Graph
from growir.inspecting import inspection
from growir.lengths import bounds_of
from growir.network import Network
from growir.ops import First, OpError, Shape
from growir.passes import Extend
from growir.verify import load


def network(rows: int = 8, tokens: int = 5, last: str = "sum") -> Graph:
    """Learned positions, a layer for each token, and perhaps a mean over the tokens or one of their number."""
    return load(
        {
            "schema": "growir/1",
            "inputs": [{"name": "x", "shape": ["N", tokens, 3]}],
            "nodes": [
                {"name": "up", "op": "linear", "inputs": ["x"], "out_features": 4},
                {"name": "rows", "op": "parameter", "shape": [rows, 4]},
                {"name": "first", "op": "first", "inputs": ["rows", "x"], "axes": [0]},
                {"name": "sum", "op": "add", "inputs": ["up", "first"]},
                {"name": "mean", "op": "mean", "inputs": ["sum"], "dim": [1]},
                {"name": "flat", "op": "flatten", "inputs": ["sum"]},
                {"name": "all", "op": "linear", "inputs": ["flat"], "out_features": 2},
            ],
            "outputs": [last],
        }
    )


def kept(last: str, rows: int = 8) -> Graph:
    graph = network(rows, last=last)
    needed = {"sum": 4, "mean": 5, "all": 7}[last]
    nodes = graph.nodes[:needed] if last != "all" else [*graph.nodes[:4], *graph.nodes[5:]]
    return graph.replace(nodes=nodes)


def test_a_table_that_is_too_short() -> None:
    with pytest.raises(OpError, match=r"\(4, 2\) has fewer positions than the 5 on axis 1 of \(N, 5\)"):
        First(axes=(0,)).infer(Shape((4, 2)), Shape(("N", 5)))
    with pytest.raises(OpError, match="is the batch"):
        First(axes=(0,)).infer(Shape(("N", 4)), Shape(("N", 5)))
    with pytest.raises(GraphError, match="axes ascend, each once"):
        First(axes=(1, 0))


def test_the_shortest_table_is_the_bound() -> None:
    assert {place: (bound.most, bound.table) for place, bound in bounds_of(kept("sum")).items()} == {
        ("x", 1): (8, "rows")
    }
    fixed = kept("sum").replace(fixed_sizes=[FixedSize(input="x", axis=1)])
    assert bounds_of(fixed) == {}
    assert inspection(kept("sum"))["bounds"] == [{"input": "x", "axis": 1, "most": 8, "table": "rows"}]
    assert "bounds" not in inspection(fixed)


def test_positions_are_no_channels() -> None:
    names = {space.name: [pin.reason for pin in space.pins] for space in channel_spaces(kept("mean"))}
    assert all(names[name] for name in names if name.startswith("rows@0"))
    assert any(not pins for name, pins in names.items()) or names


def test_longer_inputs_need_new_rows_only_where_there_are_none() -> None:
    whole = kept("sum", rows=5)
    longer = Network.init(whole).apply(Extend(node="x", axis=1, by=2), verify=True)
    assert longer.arrays["rows.weight"].shape == (7, 4)
    assert bounds_of(longer.graph)["x", 1].most == 7
    assert opened(whole, ("x", 1)).spaces != ()
    with pytest.raises(PassRefused, match="rows has more rows than the 5 that this axis uses"):
        Network.init(kept("sum")).apply(Extend(node="x", axis=1, by=2))


@pytest.mark.parametrize(("last", "opens"), [("sum", True), ("mean", True), ("all", False)])
def test_files_name_the_axis_where_all_that_follows_takes_it(last: str, opens: bool, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    graph = kept(last)
    assert open_axes(graph) == ({("x", 1): "x_1"} if opens else {})
    net = Network.init(graph)
    net.to_onnx(tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"))
    assert session.get_inputs()[0].shape == ["N", "x_1" if opens else 5, 3]
    for tokens in (1, 3, 5, 8) if opens else (5,):
        x = torch.randn(2, tokens, 3)
        (found,) = session.run(None, {"x": x.numpy()})
        np.testing.assert_allclose(found, net.to_torch()(x).detach().numpy(), rtol=1e-5, atol=1e-5)
