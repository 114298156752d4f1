"""`growir log --calibration`: predicted against measured gains, as table, plot, picture and data."""

from __future__ import annotations

import json
import math
import random
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from growir.runs.calibration import fit
from tests.cli.command import GOLDEN, flat, growir, process
from tests.cli.test_inspect import stripped
from tests.cli.test_log import DAMAGED, EVENTS, run_of, text_of, written

SVG = "{http://www.w3.org/2000/svg}"
MOVES: list[dict[str, Any]] = [
    {"pass": "add_edge", "source": "x", "target": "out", "map": False},
    {"pass": "add_node", "source": "x", "target": "out", "width": 8, "activation": "relu", "map": False},
    {"pass": "widen", "node": "node_1.act", "by": 4, "map": False},
    {"pass": "add_edge", "source": "x", "target": "pool", "kernel_size": 3, "map": True},
]


def candidate(
    k: int, move: int, predicted: float, measured: float | None, small: float | None = None
) -> dict[str, Any]:
    entry = {
        **MOVES[move], "predicted_gain": predicted, "measured_gain": measured, "gain_error": 0.01, "amplitude": 0.5,
        "parameters": 100 + k, "outcome": "improving" if measured and measured > 0 else "no gain", "small": None,
    }  # fmt: skip
    if small is not None:
        entry["small"] = {"amplitude": 0.01, "predicted": predicted / 100, "measured": small}
    return entry


def growth(step: int, tried: list[Any], **more: Any) -> dict[str, Any]:
    return {**EVENTS[1], "step": step, "tried": tried, **more}


def run() -> list[dict[str, Any]]:
    edges = [candidate(k, 0, x, y, x / 100) for k, (x, y) in enumerate([(0.1, 0.2), (0.2, 0.4), (0.4, 0.8)])]
    nodes = [
        candidate(k, 1, x, y) for k, (x, y) in enumerate([(0.01, 0.005), (0.02, -0.01), (0.03, 0.02), (1.0, None)])
    ]
    maps = [candidate(k, 3, 0.002 * (k + 1), 0.001) for k in range(4)]
    return [EVENTS[0], growth(1, edges), growth(2, nodes + maps), *EVENTS[6:]]


def of_kind(found: dict[str, Any], move: str) -> dict[str, Any]:
    (row,) = (row for row in found["statistics"] if row["move"] == move)
    return dict(row)


def test_text(tmp_path: Path, golden: Callable[[Path, str], None]) -> None:
    done = growir("log", run_of(tmp_path, written(*run())), "--calibration")
    assert (done.code, done.err) == (0, "")
    golden(GOLDEN / "log" / "calibration.txt", stripped(done.out))


def test_data(tmp_path: Path) -> None:
    done = growir("log", run_of(tmp_path, written(*run())), "--calibration", "--json")
    found = json.loads(done.out)
    assert len(found["points"]) == 11
    assert found["points"][0] == {
        "branch": None, "step": 1, "move": "edge x -> out", "kind": "edge", "maps": False, "outcome": "improving",
        "parameters": 100, "full": {"amplitude": 0.5, "predicted": 0.1, "measured": 0.2, "error": 0.01},
        "small": {"amplitude": 0.01, "predicted": 0.001, "measured": 0.001, "error": None},
    }  # fmt: skip
    edges = of_kind(found, "edge of vectors")
    assert edges["full"] == pytest.approx({"points": 3, "pearson": 1.0, "slope": 2.0, "ratio": 2.0})
    assert edges["small"] == pytest.approx({"points": 3, "pearson": 1.0, "slope": 1.0, "ratio": 1.0})
    nodes = of_kind(found, "node of vectors")
    assert (nodes["candidates"], nodes["full"]["points"]) == (4, 3)  # one was never measured
    # Of 1, 2, 3 and 5, -10, 20: r = 15 / sqrt(2 * 450), slope = 45 / 14, and the ratios 5, -5, 20 / 3; all by 1 / 10.
    assert nodes["full"]["pearson"] == pytest.approx(0.5)
    assert nodes["full"]["slope"] == pytest.approx(4.5 / 14)
    assert nodes["full"]["ratio"] == pytest.approx(0.5)
    assert nodes["small"] == {"points": 0, "pearson": None, "slope": None, "ratio": None}
    maps = of_kind(found, "edge of maps")
    assert maps["full"]["pearson"] is None  # what was measured is always the same
    assert maps["full"]["slope"] == pytest.approx(0.02 / 0.12)
    assert [row["move"] for row in found["statistics"]][-1] == "all"


def test_several_growths_of_a_step_share_their_candidates(tmp_path: Path) -> None:
    tried = [candidate(0, 0, 0.1, 0.2)]
    events = [growth(1, tried), growth(1, tried), growth(2, tried), growth(1, tried, branch="b")]
    found = json.loads(growir("log", run_of(tmp_path, written(*events)), "--calibration", "--json").out)
    assert [(point["branch"], point["step"]) for point in found["points"]] == [(None, 1), (None, 2), ("b", 1)]


def test_a_policy_may_have_no_more_than_a_name_for_a_candidate(tmp_path: Path) -> None:
    tried = [{"name": f"unit {k} of a", "predicted_gain": 0.1 * k, "measured_gain": 0.1} for k in (1, 2, 3)]
    line = {"event": "growth", "record": 2, "step": 1, "policy": "of another package", "notes": {"tried": tried}}
    run_of(tmp_path, written(line))
    found = json.loads(growir("log", tmp_path, "--calibration", "--json").out)
    assert [point["move"] for point in found["points"]] == ["unit 1 of a", "unit 2 of a", "unit 3 of a"]
    assert of_kind(found, "other of vectors")["candidates"] == 3
    assert growir("log", tmp_path, "--calibration").code == 0


# -- statistics -------------------------------------------------------------------------------------------------------

FLOATS = st.floats(-1e299, 1e299, allow_nan=False)


@given(st.lists(st.tuples(FLOATS, FLOATS), max_size=6))
def test_statistics_of_any_numbers(pairs: list[tuple[float, float]]) -> None:
    found = fit(pairs)
    for value in (found.pearson, found.slope, found.ratio):
        assert value is None or math.isfinite(value)
    assert found.pearson is None or -1 <= found.pearson <= 1
    assert len(pairs) > 2 or (found.pearson, found.slope, found.ratio) == (None, None, None)


def test_statistics_as_numpy_has_them() -> None:
    draw = random.Random(0)
    pairs = [(draw.gauss(1, 1), draw.gauss(0, 1)) for _ in range(50)]
    x, y = np.array(pairs).T
    found = fit(pairs)
    assert found.pearson == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert found.slope == pytest.approx(np.linalg.lstsq(x[:, None], y, rcond=None)[0][0])
    assert found.ratio == pytest.approx(np.median(y / x))


@pytest.mark.parametrize(
    ("pairs", "numbers"),
    [
        ([(1, 2), (2, 1)], (None, None, None)),
        ([(0, 1), (0, 2), (0, 3)], (None, None, None)),
        ([(1, 0), (2, 0), (3, 0)], (None, 0.0, 0.0)),
        ([(1e200, 1e-200), (2e200, 2e-200), (3e200, 3e-200)], (1.0, 0.0, 0.0)),
        ([(1e-200, 1e200), (2e-200, 2e200), (3e-200, 3e200)], (1.0, None, None)),
        ([(0, 0), (1, 1), (2, 2)], (1.0, 1.0, None)),  # two ratios are too few
    ],
)
def test_numbers_that_do_not_exist(pairs: list[tuple[float, float]], numbers: tuple[float | None, ...]) -> None:
    found = fit(pairs)
    expected = [value if value is None else pytest.approx(value, rel=1e-12, abs=1e-300) for value in numbers]
    assert [found.pearson, found.slope, found.ratio] == expected


# -- old and damaged runs ---------------------------------------------------------------------------------------------


def test_an_old_run(tmp_path: Path) -> None:
    done = growir("log", run_of(tmp_path, text_of(8)), "--calibration")
    assert (done.code, done.err) == (0, "")
    says = "no growth records what it was chosen from, as runs of this version of growir do"
    assert flat(done.out) == f"digits, seed 0: {says}"
    found = json.loads(growir("log", tmp_path, "--calibration", "--json").out)
    assert (found["points"], found["statistics"]) == ([], [])
    out = tmp_path / "a.svg"
    done = growir("log", tmp_path, "--calibration", "--svg", out)
    assert (done.code, done.out) == (2, "")
    assert done.err == f"growir: error: digits, seed 0: {says}; there is nothing to draw\n"
    assert not out.exists()


def test_nothing_was_measured(tmp_path: Path) -> None:
    run_of(tmp_path, written(growth(1, [candidate(0, 0, 0.1, None), {}])))
    done = growir("log", tmp_path, "--calibration")
    assert "no candidate has both gains; there is nothing to plot" in done.out
    assert "1 no gain, 1 not told" in done.out
    done = growir("log", tmp_path, "--calibration", "--svg", tmp_path / "a.svg")
    assert (done.code, done.out) == (2, "")
    assert done.err == "growir: error: a run, seed ?: no candidate has both gains; there is nothing to draw\n"


BAD: list[Any] = [
    3, None, [], {}, {"pass": ["a"]}, {"pass": "add_edge", "source": {}, "predicted_gain": "NaN"},
    {"pass": "widen", "node": "\u001b[31m", "predicted_gain": 0.1, "measured_gain": "NaN", "map": 1},
    {"pass": "add_node", "predicted_gain": 10**400, "measured_gain": 0.1, "small": 3, "outcome": {}},
    {"pass": "add_node", "predicted_gain": True, "measured_gain": 0.1, "small": {"predicted": [], "measured": 0.1}},
    {"pass": "widen", "predicted_gain": 1e299, "measured_gain": -1e299, "gain_error": 1e299, "parameters": 1.5},
    {"pass": "third.party", "predicted_gain": 5e-324, "measured_gain": 0, "gain_error": -1, "outcome": "<b>"},
]  # fmt: skip


@pytest.mark.parametrize("entry", BAD, ids=range(len(BAD)))
def test_damaged_candidates(entry: Any, tmp_path: Path) -> None:
    good = [candidate(0, 0, 0.1, 0.2)]
    run_of(tmp_path, written(growth(1, [entry]), growth(2, [*good, entry]) | {"step": "2"}, growth(3, entry)))
    out = tmp_path / "a.svg"
    for flags in ([], ["--json"], ["--svg", out]):
        done = growir("log", tmp_path, "--calibration", *flags)
        assert (done.code, done.err) == (0, "")
        assert "\x1b" not in done.out
    ET.parse(out)


@pytest.mark.parametrize("line", DAMAGED, ids=range(len(DAMAGED)))
def test_damaged_lines(line: bytes, tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_bytes(written(*run()).encode() + line + b"\n")
    done = growir("log", tmp_path, "--calibration")
    assert (done.code, done.err) == (0, "")
    assert "edge of vectors" in done.out


@given(st.lists(st.tuples(FLOATS, FLOATS), min_size=1, max_size=6))
def test_any_gains_are_drawn(pairs: list[tuple[float, float]]) -> None:
    from growir.runs.calibration import calibration_page, calibration_picture
    from growir.runs.reading import RunLog, read_event

    tried = [candidate(k, k % 4, x, y) for k, (x, y) in enumerate(pairs)]
    event = read_event(growth(1, tried))
    assert event is not None
    log = RunLog.of([event])
    *_, plot = calibration_page(log)
    assert isinstance(plot, str)
    rows = plot.splitlines()[3:19]
    assert all(len(row) <= 80 for row in rows)
    assert sum(letter in row for row in rows for letter in "enwE*") >= 1
    root = ET.fromstring(calibration_picture(log))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for mark in marks(root):
        x, y = mark.attrib["transform"].removeprefix("translate(").removesuffix(")").split()
        assert 0 <= float(x) <= width
        assert 0 <= float(y) <= height


# -- pictures ---------------------------------------------------------------------------------------------------------


def marks(root: ET.Element) -> list[ET.Element]:
    return [e for e in root.iter(f"{SVG}path") if "mark" in e.attrib.get("class", "").split() and len(e)]


def test_a_picture(tmp_path: Path) -> None:
    out = tmp_path / "gains.SVG"
    run_of(tmp_path, written(*run()))
    plain = growir("log", tmp_path, "--calibration").out
    for _ in range(2):  # what growir wrote may be replaced
        done = growir("log", tmp_path, "--calibration", "--svg", out)
        assert (done.code, done.err) == (0, "")
        assert done.out == f"{plain}\nwrote {out}\n"
    assert json.loads(growir("log", tmp_path, "--calibration", "--svg", out, "--json").out)["points"]
    text = out.read_text(encoding="utf-8")
    root = ET.fromstring(text)
    assert len(marks(root)) == 10 + 3  # at full, and at small amplitude
    words = {element.text for element in root.iter(f"{SVG}text")}
    assert words >= {"edge of vectors", "node of vectors", "edge of maps", "measured as predicted", "predicted gain"}
    # Kinds differ in shape, and vectors from maps in being solid.
    shapes = {(e.attrib["class"], e.attrib["d"]) for e in marks(root)}
    assert len(shapes) == 3
    assert len({d for _, d in shapes}) == 2
    ids = {element.attrib["id"] for element in root.iter() if "id" in element.attrib}
    assert set(root.attrib["aria-labelledby"].split()) <= ids
    assert not any(word in text.replace(SVG.strip("{}"), "") for word in ("http", "href", "<script", "url(", "@import"))


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", '"><b>', "a\u202eb\ud800", "]]>"])
def test_text_is_never_markup(name: str, tmp_path: Path) -> None:
    entry = {**candidate(0, 0, 0.1, 0.2), "source": name, "outcome": name}
    out = tmp_path / "a.svg"
    run_of(tmp_path, written({**EVENTS[0], "name": name}, growth(1, [entry], branch=name)))
    assert growir("log", tmp_path, "--calibration", "--svg", out).code == 0
    root = ET.parse(out).getroot()
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= set(
        "svg title desc style path text g rect".split()
    )


def test_drawing_needs_no_torch(tmp_path: Path) -> None:
    code = "import atexit; atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr)); main()"
    run_of(tmp_path, written(*run()))
    done = process("log", tmp_path, "--calibration", "--svg", tmp_path / "a.svg", code=code)
    assert (done.code, done.err) == (0, "False\n")


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["--calibration", "--gaps"])
def test_no_run(flag: str, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none", GOLDEN / "inspect" / "residual.json"):
        done = growir("log", path, flag)
        assert (done.code, done.out) == (2, "")
        assert done.err == f"growir: error: {path}: is no run directory: it has no events.jsonl, which {flag} reads\n"


def test_flags_that_exclude_each_other(tmp_path: Path) -> None:
    run_of(tmp_path, written(*run()))
    done = growir("log", tmp_path, "--calibration", "--gaps")
    assert (done.code, done.out) == (2, "")
    assert done.err.endswith("Invalid value for --gaps: give one of --calibration and --gaps, not both\n")


def test_pictures_that_are_not_written(tmp_path: Path) -> None:
    run_of(tmp_path, written(*run()))
    mine = tmp_path / "mine.svg"
    mine.write_text("<svg/>", encoding="utf-8")
    for out, words in (
        (mine, "is there already and was not written by growir"),
        (tmp_path / "a.png", "only .svg can be drawn; give a name that ends in it"),
        (tmp_path / "no" / "a.svg", "does not exist"),
    ):
        done = growir("log", tmp_path, "--calibration", "--svg", out)
        assert (done.code, done.out) == (2, "")
        assert words in done.err
    assert mine.read_text(encoding="utf-8") == "<svg/>"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.jsonl", "mine.svg"]
