"""`growir log RUN`: the plot of score against parameters, in the terminal and as a picture."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from growir.plot import HEIGHT
from growir.runs.reading import Grown, RunLog, read_event
from growir.runs.records import Growth, Trained, Undone
from growir.runs.scores import Point, course_of, page, picture
from tests.cli.command import GOLDEN, growir, process
from tests.cli.test_inspect import stripped
from tests.cli.test_log import DAMAGED, EVENTS, run_of, text_of, tournament, written
from tests.cli.test_log_gaps import BAD, metrics

SVG = "{http://www.w3.org/2000/svg}"


def run(name: str = "accuracy") -> list[dict[str, Any]]:
    """Two branches; the last growth of the first is taken back, and another comes in its place."""
    events: list[dict[str, Any]] = [EVENTS[0]]
    for branch, base in (("widen", 0.1), ("whole", 0.3)):
        last = 0.1
        for step in (1, 2, 3):
            score = 0.45 if (branch, step) == ("widen", 3) else base + 0.2 * step
            growth = {**EVENTS[1], "step": step, "parameters": 600 * step, "branch": branch}
            growth["before"] = metrics(last, last, name)
            events += [growth, {**EVENTS[2], "step": step, **metrics(score, score - 0.05, name), "branch": branch}]
            last = score
        if branch == "widen":
            events.append({"event": "undone", "step": 3, "reason": "bic", "branch": branch})
            events.append({**EVENTS[1], "step": 3, "parameters": 2400, "branch": branch})
            events.append({**EVENTS[2], "step": 3, **metrics(0.9, 0.85, name), "branch": branch})
    return events


def marks(root: ET.Element) -> list[ET.Element]:
    return [e for e in root.iter(f"{SVG}path") if "mark" in e.attrib.get("class", "").split() and len(e)]


@pytest.mark.parametrize("name", ["accuracy", "loss"])
def test_text(name: str, tmp_path: Path, golden: Callable[[Path, str], None]) -> None:
    done = growir("log", run_of(tmp_path, written(*run(name))))
    assert (done.code, done.err) == (0, "")
    plot = done.out[done.out.index(f"{name} on the selection part") :]
    assert max(map(len, plot.splitlines())) <= 80
    golden(GOLDEN / "log" / f"picture_{name}.txt", stripped(plot))


def test_a_picture(tmp_path: Path, golden: Callable[[Path, str], None]) -> None:
    run_of(tmp_path, written(*run()))
    out = tmp_path / "run.svg"
    plain = growir("log", tmp_path).out
    for _ in range(2):  # what growir wrote may be replaced
        done = growir("log", tmp_path, "--svg", out)
        assert (done.code, done.err, done.out) == (0, "", f"{plain}\nwrote {out}\n")
    text = out.read_text(encoding="utf-8")
    golden(GOLDEN / "log" / "picture.svg", text)
    root = ET.fromstring(text)
    told = [mark[0].text for mark in marks(root)]
    assert told.count("the start") == 2
    assert told.count("step 3: edge standard -> out, taken back (bic)") == 1
    assert len(told) == 9
    words = {element.text for element in root.iter(f"{SVG}text")}
    assert words >= {"widen", "whole", "growth taken back", "parameters", "accuracy"}
    assert len({mark.attrib["d"] for mark in marks(root)}) == 2  # branches differ in shape
    assert json.loads(growir("log", tmp_path, "--svg", out, "--json").out)["state"] == "not finished"


def test_the_points_are_those_of_the_events() -> None:
    growths = [event for event in run() if event["event"] == "growth"][:2]
    trained = {"event": "trained", "step": 1, "branch": "widen", **metrics(0.3, 0.25)}
    undone = {"event": "undone", "step": 2, "branch": "widen", "reason": "bic"}
    read = [read_event(event) for event in (EVENTS[0], growths[0], trained, growths[1], undone)]
    log = RunLog.of(event for event in read if event is not None)
    assert course_of(log).points == (
        Point("widen", 10, 0.1, 0, "the start", undone=False),
        Point("widen", 600, 0.25, 1, "step 1: edge standard -> out", undone=False),
    )  # the second growth has no score


def test_a_run_of_an_earlier_version_has_its_losses(tmp_path: Path) -> None:
    done = growir("log", run_of(tmp_path, text_of(8)))
    assert "loss on the selection part" in done.out
    assert "o after each growth" in done.out


def test_a_run_without_scores(tmp_path: Path) -> None:
    run_of(tmp_path, text_of(2))
    assert "on the selection part\n" not in growir("log", tmp_path).out.split("A gain is")[-1].partition("part.")[2]
    done = growir("log", tmp_path, "--svg", tmp_path / "a.svg")
    assert (done.code, done.out) == (2, "")
    says = "no growth records a score and the parameters after it; there is nothing to draw"
    assert done.err == f"growir: error: digits, seed 0: {says}\n"
    assert not (tmp_path / "a.svg").exists()


def test_what_is_no_run_has_no_picture(tmp_path: Path) -> None:
    out = tmp_path / "a.svg"
    for path in (tmp_path, GOLDEN / "inspect" / "residual.json"):
        done = growir("log", path, "--svg", out)
        assert (done.code, done.out) == (2, "")
        assert done.err == f"growir: error: {path}: is no run directory: it has no events.jsonl, which --svg reads\n"
        assert not out.exists()


@pytest.mark.parametrize("line", DAMAGED, ids=range(len(DAMAGED)))
def test_damaged_lines(line: bytes, tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_bytes(written(*run()).encode() + line + b"\n")
    done = growir("log", tmp_path, "--svg", tmp_path / "a.svg")
    assert (done.code, done.err) == (0, "")
    assert "accuracy on the selection part" in done.out
    ET.parse(tmp_path / "a.svg")


@pytest.mark.parametrize("scores", BAD, ids=range(len(BAD)))
def test_damaged_scores(scores: Any, tmp_path: Path) -> None:
    events = run()
    events[1]["before"] = scores
    events[2]["selection"] = scores
    events[3]["parameters"] = scores
    assert growir("log", run_of(tmp_path, written(*events)), "--svg", tmp_path / "a.svg").code == 0
    ET.parse(tmp_path / "a.svg")


SIZES = st.none() | st.integers(-(10**299), 10**299)
VALUES = st.none() | st.floats(-1e299, 1e299, allow_nan=False)


@given(st.lists(st.tuples(SIZES, VALUES, st.booleans(), st.sampled_from(["a", "b"])), min_size=1, max_size=6))
def test_any_points_are_drawn(drawn: list[tuple[int | None, float | None, bool, str]]) -> None:
    growths = [
        Grown(
            Growth(step=k, parameters=size, branch=branch),
            Trained(step=k, selection_loss=loss, branch=branch),
            Undone(step=k, reason="bic", branch=branch) if undone else None,
        )
        for k, (size, loss, undone, branch) in enumerate(drawn)
    ]
    log = RunLog(growths=growths)
    known = sum(size is not None and loss is not None for size, loss, _, _ in drawn)
    assert len(course_of(log).points) == known
    if not known:
        return
    *_, plot = page(log)
    assert isinstance(plot, str)
    rows = plot.splitlines()[1 : HEIGHT + 1]
    assert sum(letter in row for row in rows for letter in "o+x*") >= 1
    assert max(map(len, plot.splitlines())) <= 80
    root = ET.fromstring(picture(log))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    assert len(marks(root)) == known
    for mark in marks(root):
        x, y = mark.attrib["transform"].removeprefix("translate(").removesuffix(")").split()
        assert 0 <= float(x) <= width
        assert 0 <= float(y) <= height


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", '"><b>', "a\u202eb\ud800", "]]>"])
def test_text_is_never_markup(name: str, tmp_path: Path) -> None:
    events = [{**event, "branch": name, "name": name, "source": name} for event in run()]
    out = tmp_path / "a.svg"
    assert growir("log", run_of(tmp_path, written(*events)), "--svg", out).code == 0
    root = ET.parse(out).getroot()
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= set(
        "svg title desc style path text g rect".split()
    )


def test_drawing_needs_no_torch(tmp_path: Path) -> None:
    code = "import atexit; atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr)); main()"
    run_of(tmp_path, written(*tournament()))
    done = process("log", tmp_path, "--svg", tmp_path / "a.svg", code=code)
    assert (done.code, done.err) == (0, "False\n")
