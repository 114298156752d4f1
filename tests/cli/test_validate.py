"""`growir validate`, and the way back after an edit by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from growir.document import dumps
from growir.network import Network, load_graph
from growir.passes import AddNode
from growir.verify import load
from tests.cli.command import GOLDEN, growir
from tests.cli.test_inspect import grown_base

DENSE = GOLDEN / "diff" / "by_hand.a.json"


@pytest.fixture
def edited(tmp_path: Path) -> Path:
    """A grown document in which somebody has changed a width."""
    grown = AddNode(source="x", target="out", width=2).rewrite(load(grown_base())).graph
    data = json.loads(dumps(grown))
    first = next(node for node in data["nodes"] if node["op"] == "linear")
    first["out_features"] = 7
    path = tmp_path / "edited.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def test_valid(tmp_path: Path) -> None:
    graph = load_graph(DENSE)
    done = growir("validate", DENSE)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"{DENSE}: a valid document: 5 nodes, 467 parameters\nhash {graph.hash}\n"
    Network.init(graph).save(tmp_path / "net")
    assert "a valid network: 5 nodes" in growir("validate", tmp_path / "net").out


def test_recorded_values_that_are_missing(tmp_path: Path) -> None:
    network = Network.init(load(grown_base()))
    step = AddNode(source="x", target="out", width=2)
    done = step.rewrite(network.graph)
    blocks = step.blocks(done.graph, done.edits)
    values = {key: np.ones(shape) for key, shape in blocks.items() if key.endswith("weight")}
    network.apply(step.model_copy(update={"values": values})).save(tmp_path / "net")
    whole = growir("validate", tmp_path / "net").out
    (tmp_path / "net" / "history.safetensors").unlink()
    left = growir("validate", tmp_path / "net")
    assert (left.code, left.err) == (0, "")
    assert left.out.startswith(whole)
    assert " ".join(left.out[len(whole) :].split()) == (
        "note: history.steps[0] 'add_node' holds values that are not here, so it cannot be replayed: "
        + ", ".join(sorted(values))
    )


def test_drop_history_to_standard_output(edited: Path) -> None:
    refused = growir("validate", edited)
    assert refused.code == 2
    assert "--drop-history" in refused.err
    done = growir("validate", "--drop-history", edited)
    assert (done.code, done.err) == (0, "")
    assert load(done.out).history is None
    assert '"out_features": 7' in done.out


def test_drop_history_in_place(edited: Path) -> None:
    done = growir("validate", "--drop-history", edited, "-o", edited)
    assert (done.code, done.out) == (0, f"wrote {edited}\n")
    assert growir("validate", edited).code == 0


def test_drop_history_keeps_other_files(edited: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text('{"mine": 1}', encoding="utf-8")
    done = growir("validate", "--drop-history", edited, "-o", path)
    assert (done.code, done.out) == (2, "")
    assert path.read_text(encoding="utf-8") == '{"mine": 1}'


def test_drop_history_still_checks(tmp_path: Path) -> None:
    path = GOLDEN / "bad" / "shape_conflict.json"
    done = growir("validate", "--drop-history", path, "-o", tmp_path / "out.json")
    assert (done.code, done.out) == (2, "")
    assert str(path) in done.err
    assert not (tmp_path / "out.json").exists()


def test_an_unknown_pass_is_a_warning(edited: Path) -> None:
    data = json.loads(edited.read_text(encoding="utf-8"))
    data["history"]["steps"][0]["pass"] = "from_another_package"
    edited.write_text(json.dumps(data), encoding="utf-8")
    done = growir("validate", edited)
    assert done.code == 0
    assert done.err.startswith("growir: warning: the history is not checked")
    assert done.err.count("\n") == 1
