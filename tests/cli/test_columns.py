"""What commands print fits 80 columns where it is piped; only paths, which must not be cut, may be longer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import abc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.core import TyperGroup
from typer.main import get_command

from growir import live
from growir.cli.app import app
from growir.columns import columns_of
from growir.document import dumps
from growir.graph import Graph, Input, Node
from growir.network import Network, load_graph
from growir.ops import Add, Linear, Relu
from growir.passes import AddEdge, AddNode, Extend, Sequence, Widen
from tests.cli import test_log, test_log_calibration, test_log_gaps
from tests.cli.command import GOLDEN, growir
from tests.cli.test_log import DAMAGED, run_of, written
from tests.growth.problems import curve, spirals

DOCUMENTS = sorted((GOLDEN / "inspect").glob("*.json"))
LAST = f"{'n' * 64}.{'n' * 64}"
LONG = "a_very.long_name.of_some.module_deep.inside_of.a_model.that_has.many_levels.of_names.fc"
INSPECT: tuple[list[str], ...] = ([], ["--all"], ["--spaces"], ["--all", "--spaces"])


def assert_narrow(text: str, *paths: Path) -> None:
    """Every line fits, with a letter in place of each path."""
    for path in sorted(map(str, paths), key=len, reverse=True):
        text = text.replace(path, "P")
    long = [line for line in text.splitlines() if columns_of(line) > 80]
    assert not long


def long_names() -> Graph:
    """Names of 90 and more characters, a wide shape, and a history."""
    nodes = (
        Node(name=f"{LONG}1", op=Linear(out_features=123_456), inputs=("x",)),
        Node(name=f"{LONG}2.act", op=Relu(), inputs=(f"{LONG}1",)),
        Node(name="sum", op=Add(), inputs=(f"{LONG}1", f"{LONG}2.act")),
        Node(name=LAST, op=Linear(out_features=10, bias=False), inputs=("sum",)),
    )
    graph = Graph(inputs=(Input(name="x", shape=("N", 67_890)),), nodes=nodes, outputs=(LAST,))
    return Widen(node=f"{LONG}1", by=3).rewrite(graph).graph


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Those of the goldens, and one of long names before and after two growths."""
    folder = tmp_path_factory.mktemp("documents")
    first = long_names()
    grown = AddNode(source=f"{LONG}2.act", target=LAST, width=7).rewrite(first).graph
    grown = AddEdge(source=f"{LONG}1", target=LAST).rewrite(grown).graph
    found = list(DOCUMENTS)
    for name, graph in (("first", first), ("grown", grown)):
        (folder / f"{name}.json").write_text(dumps(graph), encoding="utf-8")
        found.append(folder / f"{name}.json")
    return found


@pytest.mark.parametrize("flags", INSPECT, ids="".join)
def test_inspect(flags: abc.Sequence[str], documents: list[Path]) -> None:
    for path in documents:
        done = growir("inspect", path, *flags)
        assert (done.code, done.err) == (0, "")
        assert_narrow(done.out)
        assert_narrow(load_graph(path).summary())


@pytest.mark.parametrize("command", ["validate", "log"])
def test_about_one_document(command: str, documents: list[Path]) -> None:
    for path in documents:
        done = growir(command, path)
        assert done.code == 0
        assert_narrow(done.out, path)


def test_diff(documents: list[Path]) -> None:
    for a in documents:
        for b in documents:
            done = growir("diff", a, b)
            assert done.code == (0 if a == b else 1)
            assert_narrow(done.out)


def test_diff_of_weights(tmp_path: Path) -> None:
    net = Network.init(load_graph(GOLDEN / "inspect" / "residual.json"), seed=0)
    net.save(tmp_path / "a")
    net.apply(Widen(node="stem", by=3)).save(tmp_path / "b")
    assert_narrow(growir("diff", tmp_path / "a", tmp_path / "b").out)


def test_rewrite(documents: list[Path], tmp_path: Path) -> None:
    step = json.dumps({"pass": "widen", "node": f"{LONG}1", "by": 100})
    done = growir("rewrite", documents[-1], "--pass", step, "-o", tmp_path / "out.json")
    assert (done.code, done.err) == (0, "")
    assert_narrow(done.out, tmp_path / "out.json")


def long_run() -> list[dict[str, Any]]:
    """A run of long names and large numbers, in two branches of a tournament."""
    events = [dict(event) for event in test_log.tournament()]
    for event in events:
        event.update({"name": LONG, "source": LONG, "target": f"{LONG}1", "created": [f"{LONG}2"]})
        event.update({"parameters": 10**12, "macs": 10**15} if event["event"] == "growth" else {})
    return events


RUNS: dict[str, list[dict[str, Any]]] = {
    "plain": test_log.EVENTS,
    "tournament": test_log.tournament(),
    "long": long_run(),
    "gaps": test_log_gaps.run(),
    "gaps_loss": test_log_gaps.run("loss"),
    "calibration": test_log_calibration.run(),
    "branches": [{**event, "branch": LONG} for event in (*test_log_gaps.run(), *test_log_calibration.run())],
}


@pytest.mark.parametrize("flags", [[], ["--gaps"], ["--calibration"]], ids="".join)
@pytest.mark.parametrize("name", RUNS)
def test_runs(name: str, flags: abc.Sequence[str], tmp_path: Path) -> None:
    done = growir("log", run_of(tmp_path, written(*RUNS[name])), *flags)
    assert (done.code, done.err) == (0, "")
    assert_narrow(done.out)


@pytest.mark.parametrize("line", DAMAGED, ids=range(len(DAMAGED)))
def test_log_of_damaged_runs(line: bytes, tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_bytes(line + b"\n" + written(*test_log_gaps.run()).encode() + line)
    for flags in ([], ["--gaps"], ["--calibration"]):
        assert_narrow(growir("log", tmp_path, *flags).out)


@pytest.mark.parametrize("strategy", ["tournament", "whole", "bic"])
@pytest.mark.parametrize("kind", ["classes", "amounts"])
def test_grow(kind: str, strategy: str, tmp_path: Path) -> None:
    path, out = tmp_path / "data.npz", tmp_path / "run"
    arrays: dict[str, Any] = spirals(120) if kind == "classes" else curve(120)
    np.savez(path, **arrays)
    settings = [
        "--budget",
        150,
        "--set",
        f"strategy={strategy}",
        "--set",
        "epochs_between=1",
        "--set",
        "epochs_final=2",
    ]
    done = growir("grow", path, "--out", out, *settings)
    assert done.code == 0
    assert "step  growth" in done.out
    assert_narrow(done.out, out)
    for flags in ([], ["--gaps"], ["--calibration"]):
        assert_narrow(growir("log", out, *flags).out, out)


def nothing(*_: object) -> None:
    """A hook."""


def test_the_report_of_live_grow() -> None:
    """Of names of 90 characters, two passes in one, hooks, parameters that nothing trains and a longer output."""
    graph = long_names()
    shorter = [node.with_op(out_features=5) if node.op.kind() == "linear" else node for node in graph.nodes]
    graph = Graph(inputs=(Input(name="x", shape=("N", 4)),), nodes=tuple(shorter), outputs=graph.outputs)
    module = Network.init(graph).to_torch()
    module.register_forward_hook(nothing)
    optimizer = torch.optim.SGD([module.get_parameter(f"{LONG}1.weight")], lr=0.1)
    steps = (Widen(node=f"{LONG}1", by=3), AddNode(source="x", target=LAST, width=2), Extend(node=LAST, by=1))
    grown, report = live.grow(module, Sequence(passes=steps), optimizer, verify=torch.randn(2, 4))
    text = str(report)
    assert_narrow(text)
    flat = " ".join(text.split())
    assert flat.startswith(f'sequence widen node="{LONG[:50]}')
    for words in ("extend node=", "in no optimizer:", "note: hooks", "callers:", "largest change"):
        assert words in flat
    _, report = live.grow(grown, Widen(node=f"{LONG}1", by=1).rewrite(live.network_of(grown).graph), optimizer)
    assert_narrow(str(report))


def test_settings() -> None:
    done = growir("grow", "--settings")
    assert done.code == 0
    assert_narrow(done.out)


def commands() -> list[str]:
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    return [*group.commands]


@pytest.mark.parametrize("command", ["", *commands()])
def test_help(command: str) -> None:
    done = growir(*filter(None, [command]), "--help")
    assert (done.code, done.err) == (0, "")
    assert_narrow(done.out)


def test_a_wide_terminal_gets_no_wider_pipe() -> None:
    """A process whose output is piped, where the environment says that the terminal is wide."""
    path = GOLDEN / "inspect" / "residual.json"
    for columns in ("80", "200"):
        done = subprocess.run(
            [sys.executable, "-m", "growir", "inspect", str(path)],
            env={**os.environ, "COLUMNS": columns},
            capture_output=True,
            text=True,
            check=True,
        )
        assert_narrow(done.stdout)
        assert done.stdout == growir("inspect", path).out
