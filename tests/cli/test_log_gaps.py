"""`growir log --gaps`: scores on the training and the selection part, around each growth."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from growir.runs.gaps import gaps_page, gaps_picture
from growir.runs.reading import Grown, RunLog
from growir.runs.records import Growth, Trained
from tests.cli.command import GOLDEN, flat, growir
from tests.cli.test_inspect import stripped
from tests.cli.test_log import DAMAGED, EVENTS, run_of, text_of, written

SVG = "{http://www.w3.org/2000/svg}"


def metrics(train: float, selection: float, name: str = "accuracy") -> dict[str, Any]:
    other = {"loss": 0.5} if name == "accuracy" else {"mse": 7.0}
    return {"train": {**other, name: train}, "selection": {**other, name: selection}}


def run(name: str = "accuracy") -> list[dict[str, Any]]:
    scores = [((0.5, 0.45), (0.6, 0.58), (0.7, 0.62)), ((0.7, 0.62), (0.72, 0.7), (0.8, 0.71))]
    events: list[dict[str, Any]] = [EVENTS[0]]
    for step, (before, after, trained) in enumerate(scores, 1):
        growth = {**EVENTS[1], "step": step, "before": metrics(*before, name), "after": metrics(*after, name)}
        events += [growth, {**EVENTS[2], "step": step, **metrics(*trained, name)}]
    return [*events, {"event": "undone", "step": 2, "reason": "bic"}, *EVENTS[6:]]


@pytest.mark.parametrize("name", ["accuracy", "loss"])
def test_text(name: str, tmp_path: Path, golden: Callable[[Path, str], None]) -> None:
    done = growir("log", run_of(tmp_path, written(*run(name))), "--gaps")
    assert (done.code, done.err) == (0, "")
    golden(GOLDEN / "log" / f"gaps_{name}.txt", stripped(done.out))


@pytest.mark.parametrize(("name", "sign"), [("accuracy", 1), ("loss", -1)])
def test_data(name: str, sign: int, tmp_path: Path) -> None:
    found = json.loads(growir("log", run_of(tmp_path, written(*run(name))), "--gaps", "--json").out)
    assert (found["metric"], len(found["growths"])) == (name, 2)
    first, second = found["growths"]
    assert (first["step"], first["move"], first["undone"], second["undone"]) == (1, "edge standard -> out", None, "bic")
    assert first["before"] == pytest.approx({"train": 0.5, "selection": 0.45, "gap": sign * 0.05})
    assert second["trained"] == pytest.approx({"train": 0.8, "selection": 0.71, "gap": sign * 0.09})


def test_branches(tmp_path: Path) -> None:
    events = run()[1:5]
    branched = [{**event, "branch": branch} for branch in ("whole", "widen") for event in events]
    out = tmp_path / "gaps.svg"
    done = growir("log", run_of(tmp_path, written(*branched)), "--gaps", "--svg", out)
    assert "growing narrowed the gap in 4 of 4 growths" in done.out
    lines = done.out.splitlines()
    assert lines.count("whole") == lines.count("widen") == 1
    assert lines.count("accuracy") == 2
    frames = [e for e in ET.parse(out).getroot().iter(f"{SVG}rect") if e.attrib.get("class") == "frame"]
    assert len(frames) == 2


def test_training_follows_the_last_growth_of_a_step(tmp_path: Path) -> None:
    events = run()
    events.insert(2, events[1])
    found = json.loads(growir("log", run_of(tmp_path, written(*events)), "--gaps", "--json").out)
    assert [growth["trained"]["train"] for growth in found["growths"]] == [None, 0.7, 0.8]
    # One that was taken back had its own training, if the next has its number too.
    again = [*run()[:4], {**EVENTS[2], "step": 2, **metrics(0.75, 0.7)}, run()[5], *run()[3:5]]
    found = json.loads(growir("log", run_of(tmp_path, written(*again)), "--gaps", "--json").out)
    assert [growth["trained"]["train"] for growth in found["growths"]] == [0.7, 0.75, 0.8]


def test_an_old_run(tmp_path: Path) -> None:
    done = growir("log", run_of(tmp_path, text_of(8)), "--gaps")
    assert (done.code, done.err) == (0, "")
    says = "no growth records scores before and after it, as runs of this version of growir do"
    assert flat(done.out) == f"digits, seed 0: {says}"
    done = growir("log", tmp_path, "--gaps", "--svg", tmp_path / "a.svg")
    assert (done.code, done.out) == (2, "")
    assert done.err == f"growir: error: digits, seed 0: {says}; there is nothing to draw\n"
    assert not (tmp_path / "a.svg").exists()


BAD: list[Any] = [
    3, None, [], {}, {"train": 3}, {"train": {"accuracy": "NaN"}, "selection": {"accuracy": None}},
    {"train": {"accuracy": 10**400}, "selection": {"accuracy": True}},
    {"train": {"accuracy": 1e299}, "selection": {"accuracy": -1e299}}, {"selection": {"accuracy": 0.5}},
]  # fmt: skip


@pytest.mark.parametrize("scores", BAD, ids=range(len(BAD)))
def test_damaged_scores(scores: Any, tmp_path: Path) -> None:
    events = run()
    events[1]["before"] = scores
    events[3]["after"] = scores
    events[4]["train"] = scores
    events[3]["step"] = events[4]["step"] = {"a": "\u001b"}
    out = tmp_path / "a.svg"
    for flags in ([], ["--json"], ["--svg", out]):
        done = growir("log", run_of(tmp_path, written(*events)), "--gaps", *flags)
        assert (done.code, done.err) == (0, "")
        assert "\x1b" not in done.out
    ET.parse(out)


@pytest.mark.parametrize("line", DAMAGED, ids=range(len(DAMAGED)))
def test_damaged_lines(line: bytes, tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_bytes(written(*run()).encode() + line + b"\n")
    done = growir("log", tmp_path, "--gaps")
    assert (done.code, done.err) == (0, "")
    assert "growing narrowed the gap in 2 of 2 growths" in done.out


SCORES = st.none() | st.floats(-1e299, 1e299, allow_nan=False)


@given(st.lists(st.tuples(SCORES, SCORES, SCORES, SCORES), min_size=1, max_size=6))
def test_any_scores_are_drawn(drawn: list[tuple[float | None, ...]]) -> None:
    growths = [
        Grown(
            Growth(step=k, before={"train": {"loss": a}, "selection": {"loss": b}}),
            Trained(step=k, train={"loss": c}, selection={"loss": d}),
        )
        for k, (a, b, c, d) in enumerate(drawn)
    ]
    log = RunLog(growths=growths)
    known = sum(value is not None for scores in drawn for value in scores)
    *_, last = gaps_page(log)
    assert isinstance(last, str)
    if not known:
        assert "no growth records scores" in last
        return
    root = ET.fromstring(gaps_picture(log))
    marks = [e for e in root.iter(f"{SVG}path") if e.attrib.get("class", "").startswith("mark")]
    assert len(marks) == known + 2  # and the legend's


def test_a_picture(tmp_path: Path) -> None:
    out = tmp_path / "gaps.svg"
    events = run()
    del events[1]["after"]["train"]
    run_of(tmp_path, written(*events))
    done = growir("log", tmp_path, "--gaps", "--svg", out)
    assert (done.code, done.err) == (0, "")
    assert done.out.endswith(f"\n\nwrote {out}\n")
    root = ET.parse(out).getroot()
    classes = [e.attrib.get("class", "") for e in root.iter()]
    assert classes.count("band undone") == 2  # the growth's and the legend's
    # Lines differ in dashes, points in shape.
    lines = [
        e.attrib["d"] for e in root.iter(f"{SVG}path") if "line" in e.attrib.get("class", "") and "L" in e.attrib["d"]
    ]
    assert [d.count("M") for d in lines] == [2, 1]  # one has a hole
    assert {"train line", "selection line dashed"} <= set(classes)
    words = [e.text for e in root.iter(f"{SVG}text")]
    assert {"train", "selection", "growth", "growth taken back", "step", "accuracy"} <= set(words)


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", '"><b>', "a\u202eb\ud800", "]]>"])
def test_text_is_never_markup(name: str, tmp_path: Path) -> None:
    events = [{**event, "branch": name, "name": name, "source": name} for event in run()]
    out = tmp_path / "a.svg"
    assert growir("log", run_of(tmp_path, written(*events)), "--gaps", "--svg", out).code == 0
    root = ET.parse(out).getroot()
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= set(
        "svg title desc style path text g rect".split()
    )
