"""What `growir grow` says of each event: words explained once, lines of at most 80 columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from growir.runs.display import Display
from growir.runs.reading import read_event
from growir.runs.records import Finished, Growth
from growir.runs.telling import Teller
from growir.runs.words import REASONS, UNDONE
from tests.cli.command import GOLDEN, flat

Event = dict[str, Any]
MEASURED = {"candidates": 1, "predicted_gain": 0.41319, "measured_gain": 0.3696, "probation": False}
STARTED: Event = {
    "event": "started", "name": "digits", "task": "classification", "samples": 1437, "parameters": 10,
}  # fmt: skip
SELECTED: Event = {
    "event": "selected", "branch": "widen", "significance": 0.05,
    "compared": [
        {"branch": "whole", "against": "widen", "gain": 0.0049, "gain_error": 0.0031, "p": 0.0571, "better": False}
    ],
}  # fmt: skip


def edge(step: int, source: str, target: str, *created: str, **more: Any) -> Event:
    fields = {"pass": "add_edge", "source": source, "target": target, "created": list(created)}
    return {"event": "growth", "step": step, **MEASURED, "parameters": 610, **fields, **more}


def node(step: int, source: str, made: str, target: str, *created: str, **more: Any) -> Event:
    names = [f"{made}.linear", f"{made}.act", *created]
    fields = {"pass": "add_node", "width": 23, "source": source, "target": target, "created": names}
    return {"event": "growth", "step": step, **MEASURED, "parameters": 1_234_567, **fields, **more}


def widening(step: int, name: str, **more: Any) -> Event:
    fields = {"pass": "widen", "node": name, "by": 9, "created": []}
    return {"event": "growth", "step": step, **MEASURED, "parameters": 4931, **fields, **more}


def of(branch: str, *events: Event) -> list[Event]:
    return [event | {"branch": branch} for event in events]


ENDED: Event = {"event": "ended", "reason": "parameters"}
TOURNAMENT = [
    STARTED,
    *of("widen", node(1, "standard", "node_1", "out", "edge_1", "sum_1"), widening(2, "node_1.act"), ENDED),
    *of("widen", {"event": "fitted", "loss": 0.0726}),
    *of("whole", edge(1, "standard", "out", "edge_1", "sum_1", candidates=2)),
    *of("whole", node(2, "standard", "node_2", "node_1.linear", "edge_3", candidates=3)),
    *of("whole", widening(3, "node_2.act", candidates=8), ENDED, {"event": "fitted", "loss": 0.0377}),
    SELECTED,
]
ALONE = [
    {"event": "inputs", "inputs": 38, "tried": [{"loss": k / 9, "inputs": 30 + k} for k in range(1, 5)]},
    STARTED | {"name": "a name of a run that is " + "very " * 20 + "long", "task": "regression"},
    node(1, "x", "node_1", "out", "edge_1", "sum_1", probation=True, candidates=5),
    {"event": "undone", "step": 1, "reason": "no gain"},
    ENDED | {"reason": "no gain"},
]
AT_ONCE = [STARTED, ENDED | {"reason": "no move"}, {"event": "trained", "loss": 0.1}]


def told(events: list[Event], *strategies: Any) -> str:
    teller = Teller(strategies)
    found = [read_event(event) for event in events]
    return "".join(f"{line}\n" for event in found if event is not None for line in teller.lines(event))


def assert_narrow(text: str) -> None:
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("name", "events", "strategies"),
    [("tournament", TOURNAMENT, ("widen", "whole")), ("alone", ALONE, ()), ("at_once", AT_ONCE, ())],
)
def test_what_is_told(
    name: str, events: list[Event], strategies: tuple[str, ...], golden: Callable[[Path, str], None]
) -> None:
    text = told(events, *strategies)
    assert_narrow(text)
    golden(GOLDEN / "telling" / f"{name}.txt", text)


@pytest.mark.parametrize("length", [1, 17, 30, 59, 200])
def test_long_names_fit(length: int) -> None:
    name, dotted = "n" * length, ".".join(["layer"] * (length // 5 + 1))
    for a, b in ((name, dotted), (dotted, name)):
        steps = [edge(1, a, b, "edge_1", a), node(2, b, a, b, b), widening(3, a, candidates=10**6)]
        assert_narrow(told([STARTED | {"name": dotted}, *steps]))


@pytest.mark.parametrize("reason", REASONS)
def test_every_end_fits(reason: str) -> None:
    assert_narrow(told([STARTED, ENDED | {"reason": reason}]))


def test_why_a_growth_is_taken_back() -> None:
    assert set(UNDONE) == {"no gain", "criterion"}  # what Dag.refuses gives
    for reason, words in UNDONE.items():
        text = told([{"event": "undone", "step": 1, "reason": reason}])
        assert_narrow(text)
        assert flat(text) == f"growth 1 is taken back: {words}"


def test_one_neuron_is_no_plural() -> None:
    text = told([widening(1, "node_1.act", by=1), node(2, "x", "node_2", "out", "edge_1", width=1)])
    assert "has 1 neuron more" in text
    assert "1 neuron x -> node_2 -> out" in text


def test_updates_beside_a_growth_are_not_told() -> None:
    plain = read_event(widening(1, "node_1.act"))
    assert isinstance(plain, Growth)
    update = {"pass": "update", "keys": ["out.weight"]}
    both = replace(plain, passes=(update, *plain.passes))
    assert list(Teller().lines(both)) == list(Teller().lines(plain))


def test_a_word_is_explained_once() -> None:
    steps = [node(k, "standard", f"node_{k}", "sum_1", candidates=k) for k in range(1, 4)]
    text = told([STARTED, *steps])
    assert text.count("is a new hidden layer") == text.count("stands for the inputs") == 1
    assert text.count("candidates that were measured") == 1
    assert text.count("A gain is") == text.count("step  growth") == 1
    assert "best of 1" not in text
    assert "best of 2" in text


@pytest.mark.parametrize("reason", REASONS)
def test_the_table_fits_and_names_the_next_commands(
    reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    scores = {"loss": 0.123456, "mse": 1234.56789}
    summary = {"seed": 3, "test_before_fit": scores, "test_after_fit": {"loss": None, "mse": None}, "steps": 3}
    summary |= {"parameters": 12_345_678, "macs": 12_345_678, "ended": reason, "reproducible": reason != "seconds"}
    summary |= {"seconds": 1234.5, "seconds_growing": 100.25}
    Display(Path("a run"), "a run", quiet=False).finished(Finished.from_json(summary))
    out = capsys.readouterr().out
    assert_narrow(out)
    assert "  growir log 'a run'\n  growir render 'a run' -o picture.svg\n" in out
    assert str(Path("a run") / "model.onnx") in out
    assert "another run may find another network" in out or reason != "seconds"


def test_a_long_path_can_be_copied(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    folder = Path("runs") / ("a-run-with-a-name-" * 8)
    Display(folder, "a run", quiet=False).finished(Finished(seed=0))
    lines = capsys.readouterr().out.splitlines()
    assert f"Run directory: {folder}" in lines
    assert f"ONNX model: {folder / 'model.onnx'}" in lines
