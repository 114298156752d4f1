"""`growir log`: of runs that are finished, under way, killed or damaged, and of histories."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from growir.document import dumps
from growir.graph import Graph
from growir.network import load_graph
from growir.passes import AddEdge, AddNode, Widen
from growir.runs.records import Selected
from growir.runs.report import selection_text
from growir.runs.words import describe_step
from growir.show import si_text
from tests.cli.command import GOLDEN, growir, process
from tests.cli.test_inspect import stripped

RESIDUAL = GOLDEN / "inspect" / "residual.json"
EVENTS: list[dict[str, Any]] = [
    {
        "event": "started", "name": "digits", "seed": 0, "threads": 1, "task": "classification", "samples": 1437,
        "hash": "3e65", "parameters": 10,
    },
    {
        "event": "growth", "step": 1, "pass": "add_edge", "seed": 0, "source": "standard", "target": "out",
        "version": 1, "created": ["edge_1", "sum_1"], "values": {}, "candidates": 2, "improving": 2,
        "predicted_gain": 0.61, "measured_gain": 0.53, "amplitude": 1.0, "loss_before": 2.3, "loss_after": 1.8,
        "parameters": 610, "macs": 600, "hash": "e6a1", "seconds": 0.02,
    },
    {"event": "trained", "step": 1, "train_loss": 0.25, "selection_loss": 0.32, "seconds": 0.07},
    {
        "event": "growth", "step": 2, "pass": "add_node", "seed": 0, "source": "standard", "target": "sum_1",
        "width": 23, "activation": "relu", "version": 1, "created": ["node_1.linear"], "candidates": 1,
        "improving": 1, "predicted_gain": 0.026, "measured_gain": 0.016, "parameters": 2243, "macs": 2210,
        "seconds": 0.01,
    },
    {"event": "trained", "step": 2, "train_loss": 0.05, "selection_loss": 0.13, "seconds": 0.07},
    {
        "event": "growth", "step": 3, "pass": "third.party", "seed": 0, "where": "fc1", "version": 1, "created": [],
        "candidates": 7, "predicted_gain": 0.1, "measured_gain": 0.1, "parameters": 2250, "macs": 2220, "seconds": 1,
    },
    {"event": "ended", "step": 3, "reason": "parameters"},
    {
        "event": "finished", "name": "digits", "test_before_fit": {"loss": 0.1, "accuracy": 0.97},
        "test_after_fit": {"loss": 0.05, "accuracy": 0.98}, "parameters": 2250, "macs": 2220, "seconds": 0.9,
        "seconds_growing": 0.1, "steps": 3,
    },
]  # fmt: skip


def run_of(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "events.jsonl").write_text(text, encoding="utf-8")
    return folder


def text_of(count: int) -> str:
    return "".join(json.dumps(event) + "\n" for event in EVENTS[:count])


@pytest.mark.parametrize("count", [0, 1, 2, 3, 6, 7, 8])
def test_as_far_as_it_came(count: int, tmp_path: Path, golden: Callable[[Path, str], None]) -> None:
    done = growir("log", run_of(tmp_path, text_of(count)))
    assert (done.code, done.err) == (0, "")
    golden(GOLDEN / "log" / f"{count}.txt", stripped(done.out))


@pytest.mark.parametrize("stop", [1, 40, 300])
def test_a_last_line_that_was_cut_short(stop: int, tmp_path: Path) -> None:
    whole = growir("log", run_of(tmp_path / "a", text_of(3))).out
    last = json.dumps(EVENTS[3])[:stop]
    done = growir("log", run_of(tmp_path / "b", text_of(3) + last))
    assert (done.code, done.err) == (0, "")
    assert done.out == f"{whole}\nline 4 of events.jsonl left out: it holds no event\n"
    found = json.loads(growir("log", tmp_path / "b", "--json").out)
    assert (found["state"], found["unreadable_lines"]) == ("not finished", [4])
    assert found["growths"][0]["selection_loss"] == 0.32


DAMAGED = [
    b"\xff\xfe", b"[]", b"7", b"null", b"{}", b'{"event": 3}', b"[" * 100_000, b'{"event": "growth"}',
    b'{"event": "growth", "step": 1e999}', b'{"event": "growth", "step": NaN, "pass": "add_edge"}',
    b'{"event": "growth", "step": "x", "pass": "add_node", "created": 3, "parameters": [1], "measured_gain": "a"}',
    b'{"event": "growth", "step": 1, "pass": ["a"], "predicted_gain": 1' + b"0" * 400 + b"}",
    b'{"event": "growth", "pass": "widen", "node": "\\u001b[31m", "by": {}}',
    b'{"event": "trained", "step": {}}', b'{"event": "ended"}', b'{"event": "finished", "test_after_fit": 3}',
    b'{"event": "finished", "test_after_fit": {"accuracy": "all"}, "seconds": true}', b'{"event": "started"}',
    b'{"event": "growth", "step": {}, "branch": 3, "tried": 7, "before": [], "undone": true, "trained": {}}',
    b'{"event": "growth", "parameters": 1' + b"0" * 400 + b', "branch": "\\u001b[31m"}', b'{"event": "undone"}',
    b'{"event": "undone", "step": 1, "reason": {"a": "\\u001b"}, "branch": {}}', b'{"event": "fitted", "selection": 1}',
    b'{"event": "fitted", "branch": [], "parameters": "NaN", "selection": {"loss": "NaN"}}', b'{"event": "selected"}',
    b'{"event": "selected", "branch": 3, "why": ["\\u001b"], "tried": [3, {}, {"branch": "a", "loss": true}]}',
    b'{"event": "finished", "phases": {"growing": 3, "training": {"seconds": 0, "flops": "1"}}, "dead_units": -1.5}',
    b'{"event": "finished", "phases": [1], "dead_units": 1' + b"0" * 400 + b"}",
    b'{"event": "of a later version"}', b'{"event": "interrupted"}', b'{"event": "started", "name": {}, "task": 3}',
]  # fmt: skip


@pytest.mark.parametrize("line", DAMAGED, ids=range(len(DAMAGED)))
def test_damaged_lines(line: bytes, tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_bytes(text_of(2).encode() + line + b"\n" + text_of(3).encode())
    for flags in ([], ["--json"]):
        done = growir("log", tmp_path, *flags)
        assert (done.code, done.err) == (0, "")
        assert "\x1b" not in done.out
    assert len(json.loads(done.out)["growths"]) >= 2


def test_a_run_that_was_stopped(tmp_path: Path) -> None:
    events = [*EVENTS[:3], {"event": "interrupted", "hash": "e6a1"}]
    done = growir("log", run_of(tmp_path, "".join(json.dumps(event) + "\n" for event in events)))
    assert done.out.splitlines()[0].endswith(": stopped")


def written(*events: dict[str, Any]) -> str:
    return "".join(json.dumps(event) + "\n" for event in events)


def tournament() -> list[dict[str, Any]]:
    """Two branches of two growths each, the last of one taken back."""
    events: list[dict[str, Any]] = [EVENTS[0]]
    for branch, size in (("whole", 600), ("widen", 50)):
        for step in (1, 2):
            growth = {**EVENTS[3], "step": step, "parameters": size * step, "branch": branch}
            trained = {**EVENTS[4], "step": step, "branch": branch, "train_loss": step / size}
            events += [growth, trained]
        if branch == "whole":
            events.append({"event": "undone", "step": 2, "reason": "bic"})  # of the branch that grew last
            events.append({**EVENTS[3], "step": 3, "parameters": 700, "branch": branch})
        events.append({"event": "ended", "step": 2, "reason": "steps", "branch": branch})
        score = {"loss": 0.1, "accuracy": 0.975}
        events.append({"event": "fitted", "branch": branch, "parameters": size, "selection": score, "seconds": 2.5})
    tried = [
        {"branch": "whole", "parameters": 700, "loss": 0.11, "loss_error": 0.01, "seconds": 2.5},
        {"branch": "widen", "parameters": 100, "loss": 0.12, "loss_error": 0.02, "seconds": 1.5},
    ]
    events.append({"event": "selected", "branch": "widen", "tried": tried, "why": "as good, and smaller"})
    phases = {
        "growing": {"seconds": 2.0, "cpu_seconds": 3.9, "flops": 3.2e12, "joules": None},
        "training": {"seconds": 5.0, "cpu_seconds": 7.8, "flops": 9.996e15, "joules": 1200.5},
        "choosing": {"seconds": 0.1, "cpu_seconds": 0.1, "flops": 12},
        "final fit": "damaged",
    }
    events.append({**EVENTS[7], "phases": phases, "dead_units": 1})
    return events


def test_a_tournament(tmp_path: Path, golden: Callable[[Path, str], None]) -> None:
    done = growir("log", run_of(tmp_path, written(*tournament())))
    assert (done.code, done.err) == (0, "")
    golden(GOLDEN / "log" / "tournament.txt", stripped(done.out))
    found = json.loads(growir("log", tmp_path, "--json").out)
    steps = [(growth["branch"], growth["step"], growth.get("undone")) for growth in found["growths"]]
    assert steps == [
        ("whole", 1, None),
        ("whole", 2, "bic"),
        ("whole", 3, None),
        ("widen", 1, None),
        ("widen", 2, None),
    ]
    # Steps begin anew in each branch, so the step alone does not say which growth was trained.
    assert [growth.get("train_loss") for growth in found["growths"]] == [1 / 600, 2 / 600, None, 1 / 50, 2 / 50]
    assert found["branches"]["ended"] == {"whole": "steps", "widen": "steps"}
    assert found["branches"]["selected"]["branch"] == "widen"


COMPARED: dict[str, tuple[str, dict[str, Any]]] = {
    "chance": ("widen", {"gain": 0.0049, "gain_error": 0.0031, "p": 0.0571, "better": False}),
    "better": ("whole", {"gain": 0.0349, "gain_error": 0.0081, "p": 8.2e-6, "better": True}),
    "just_better": ("whole", {"gain": 0.0349, "gain_error": 0.0181, "p": 0.0269, "better": True}),
    "worse": ("widen", {"gain": -0.0055, "gain_error": 0.0089, "p": 0.73, "better": False}),
    "same": ("widen", {"gain": 0.0, "gain_error": 0.0, "p": 1.0, "better": False}),
    "damaged": ("widen", {"gain": "much", "gain_error": None, "p": [], "better": 3}),
}


@pytest.mark.parametrize("kind", COMPARED)
def test_a_choice_says_what_the_rule_compared(kind: str, golden: Callable[[Path, str], None]) -> None:
    branch, numbers = COMPARED[kind]
    compared = [{"branch": "whole", "against": "widen", **numbers}]
    event = Selected.from_json({"branch": branch, "compared": compared, "significance": 0.05})
    text = selection_text(event)
    assert max(map(len, text.splitlines())) <= 80
    golden(GOLDEN / "log" / f"selected_{kind}.txt", f"{text}\n")


def test_a_tournament_under_way(tmp_path: Path) -> None:
    events = [event for event in tournament() if event["event"] not in ("selected", "finished")]
    for event in events:
        if event["event"] == "fitted":
            event["selection"] = {"loss": 0.25, "mse": 3.0}
    lines = growir("log", run_of(tmp_path, written(*events))).out.splitlines()
    at = next(k for k, line in enumerate(lines) if line.split()[:3] == ["branch", "parameters", "selection"])
    assert lines[at].split() == ["branch", "parameters", "selection", "loss", "seconds"]
    assert lines[at + 2].split() == ["whole", "600", "0.2500", "2.5"]
    assert not any("chosen" in line for line in lines)


def test_a_branch_that_says_where_it_starts(tmp_path: Path) -> None:
    events = [EVENTS[0], {"event": "started", "branch": "widen", "parameters": 40, "name": "other"}]
    events.append({**EVENTS[3], "step": 1, "branch": "widen"})
    lines = growir("log", run_of(tmp_path, written(*events))).out.splitlines()
    assert lines[1] == "classification, 1,437 samples, starting at 10 parameters"
    at = next(k for k, line in enumerate(lines) if line.split()[:3] == ["branch", "step", "parameters"])
    assert f"{2243 - 40:+,}" in lines[at + 2].split()


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (12, "12"), (999.4, "999"), (999.6, "1 k"), (3.2e12, "3.2 T"), (-2e6, "-2 M"), (4e18, "4 E"),
     (9.996e20, "1e+21")],
)  # fmt: skip
def test_prefixes(count: float, text: str) -> None:
    assert si_text(count) == text


def grown() -> Graph:
    base = {
        "schema": "growir/1",
        "inputs": [{"name": "x", "shape": ["N", 4]}],
        "nodes": [{"name": "out", "op": "bias", "inputs": ["x"], "features": 3}],
        "outputs": ["out"],
    }
    graph = AddNode(source="x", target="out", width=2).rewrite(load_graph(base)).graph
    graph = AddEdge(source="x", target="out").rewrite(graph).graph
    return Widen(node="node_1.act", by=3).rewrite(graph).graph


def test_history(tmp_path: Path, golden: Callable[[Path, str], None]) -> None:
    path = tmp_path / "net.json"
    path.write_text(dumps(grown()), encoding="utf-8")
    done = growir("log", path)
    assert (done.code, done.err) == (0, "")
    golden(GOLDEN / "log" / "history.txt", stripped(done.out))
    found = json.loads(growir("log", path, "--json").out)
    assert found["hash"] == grown().hash
    costs = [step["cost"]["parameters"] for step in found["steps"]]
    assert costs[-1][1] == grown().costs().parameters
    assert all(a[1] == b[0] for a, b in pairwise(costs))


def test_a_history_with_unknown_passes(tmp_path: Path) -> None:
    data = json.loads(dumps(grown()))
    data["history"]["steps"][1]["pass"] = "of_another_package"
    path = tmp_path / "net.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    done = growir("log", path)
    assert done.code == 0
    assert "of_another_package" in done.out
    assert "cost" not in json.loads(growir("log", path, "--json").out)["steps"][0]


def sequence(*passes: dict[str, Any]) -> dict[str, Any]:
    return {"pass": "sequence", "passes": list(passes)}


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({"pass": "prune", "node": "stem", "channels": [1, 2]}, "stem narrower by 2"),
        ({"pass": "sequence", "passes": [{"pass": "widen", "node": "mix", "by": 4}]}, "mix wider by 4"),
        ({"pass": "split", "node": "stem", "channels": [3]}, "stem: 1 channel split"),
        ({"pass": "split", "node": "stem", "channels": [3, 4]}, "stem: 2 channels split"),
        ({"pass": "eliminate_dead"}, "eliminate_dead"),
        ({"pass": "of_another_package", "node": "a", "deep": False, "seed": 1}, 'of_another_package node="a"'),
        ({"pass": "sequence", "passes": [3, {"pass": "split", "node": "a"}]}, "a: ? channels split"),
        ({"pass": "add_node", "source": "a", "target": "b", "width": 3}, "3 neurons a -> b"),
        (sequence({"pass": "update"}, {"pass": "widen", "node": "a", "by": 1}), "a wider by 1"),
        (sequence({"pass": "update", "keys": ["a.weight"]}), 'update keys=["a.weight"]'),
        (
            sequence(*({"pass": "widen", "node": f"n{k}", "by": 1} for k in range(9))),
            "; ".join([*(f"n{k} wider by 1" for k in range(6)), "+3"]),
        ),
    ],
)
def test_steps_in_words(step: dict[str, Any], words: str) -> None:
    assert describe_step(step) == words


def test_without_history() -> None:
    assert growir("log", RESIDUAL).out == "residual: has not grown\n"


def test_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        done = growir("log", path)
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith("growir: error: ")
    (tmp_path / "events.jsonl").mkdir()
    assert growir("log", tmp_path).code == 2


@pytest.mark.parametrize("flags", ["", "--calibration", "--gaps"])
def test_reading_a_run_needs_no_torch(flags: str, tmp_path: Path) -> None:
    code = "import atexit; atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr)); main()"
    done = process("log", run_of(tmp_path, text_of(8)), *flags.split(), code=code)
    assert (done.code, done.err) == (0, "False\n")
