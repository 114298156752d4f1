"""The mark of a graph whose model trains otherwise: kept wherever the graph goes, and heeded where it is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import growir
from growir import live
from growir.difference import diff
from growir.document import dumps, to_data
from growir.errors import GraphError, ModelError, RunError
from growir.graph import Graph
from growir.inspecting import inspection
from growir.network import Network, load_graph
from growir.passes import Widen
from growir.verify import load
from tests.cli.command import flat
from tests.growth.problems import SMALL, spirals
from tests.samples import mlp

LINES = ("net.py:12: x = torch.sigmoid(x)", "stays in eval mode: norm")
STEP = Widen(node="fc1", by=2)


def marked() -> Graph:
    return mlp().replace(train_differs=LINES)


def test_it_is_not_part_of_the_identity_and_absent_where_there_is_none() -> None:
    assert marked() == mlp()
    assert marked().hash == mlp().hash
    assert "train_differs" not in to_data(mlp())
    assert to_data(marked())["train_differs"] == list(LINES)


def test_it_goes_where_the_graph_goes(tmp_path: Path) -> None:
    network = Network.init(marked()).apply(STEP)
    assert network.graph.train_differs == LINES
    network.save(tmp_path / "net")
    assert Network.load(tmp_path / "net").graph.train_differs == LINES
    network.to_onnx(tmp_path / "net.onnx")
    assert load_graph(tmp_path / "net.onnx").train_differs == LINES
    found = live.network_of(network.to_torch()).graph
    assert found.train_differs == LINES
    assert found.history is not None
    assert found.history.base.train_differs == LINES
    assert network.replayed().graph.train_differs == LINES
    assert network.graph.replace(train_differs=()).train_differs == ()


@pytest.mark.parametrize("wrong", ["a line", [1], [""], ["x" * 10_001], ["x"] * 101, None, {"a": 1}])
def test_anything_but_lines_is_refused(wrong: Any) -> None:
    data = {**to_data(mlp()), "train_differs": wrong}
    says = r"^train_differs: an array of at most 100 strings of 1 to 10,000 characters is needed$"
    with pytest.raises(GraphError, match=says):
        load(data)


def test_inspect_and_diff_show_it() -> None:
    shown = marked().summary()
    assert shown.endswith("train mode of the model it was imported from differs:\n  " + "\n  ".join(LINES))
    assert "train mode" not in mlp().summary()
    assert inspection(marked())["train_differs"] == list(LINES)
    found = diff(mlp(), marked())
    assert found.same
    assert found.train_differs == ((), LINES)
    assert flat(f"  train mode of the model differs in nothing -> {'; '.join(LINES)}") in flat(str(found))
    assert found.to_json()["train_differs"] == ((), LINES)
    assert diff(marked(), marked()).train_differs is None


def test_escapes_of_a_terminal_are_not_shown() -> None:
    graph = load(dumps(mlp().replace(train_differs=["a\x1b[2J"])))
    assert graph.train_differs == ("a\x1b[2J",)
    assert "\x1b" not in graph.summary()


def test_a_live_module_asks_for_the_flag() -> None:
    module = Network.init(marked()).to_torch()
    optimizer = torch.optim.Adam(module.parameters())
    with pytest.raises(ModelError) as error:
        live.grow(module, STEP, optimizer)
    assert str(error.value) == (
        f"the model that '{mlp().name}' was imported from differs in train mode, which the network does not have:\n"
        "  net.py:12: x = torch.sigmoid(x)\n  stays in eval mode: norm\n"
        "to train the network as it is, give train_as_imported=True"
    )
    grown, _ = live.grow(module, STEP, optimizer, train_as_imported=True)
    assert live.network_of(grown).graph.train_differs == LINES


def test_a_growth_run_asks_for_the_flag() -> None:
    for start in (marked(), Network.init(marked())):
        with pytest.raises(RunError, match=r"net.py:12: x = torch.sigmoid"):
            growir.grow(start, spirals(), **SMALL)
    result = growir.grow(marked(), spirals(), **SMALL, train_as_imported=True)
    assert result.summary["steps"] >= 1
    assert result.network.graph.train_differs == LINES
