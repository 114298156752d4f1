"""Scores of units in the log of a run, and the picture of them."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import growir as package
from growir.errors import RunError
from growir.passes import Widen
from growir.render.strips import LEVELS, MOST, Scale, Strip, size_of
from growir.runs.reading import RunLog, read_run
from growir.runs.records import Growth, Selected, Started, UnitScores
from growir.runs.units import before, growth_of, picture
from tests.cli.command import GOLDEN, growir
from tests.growth.test_policies import images, net
from tests.samples import mlp

GRAPH = Widen(node="fc1", by=2).rewrite(mlp()).graph
UNITS = (
    UnitScores(space="fc1", kind="split", gains=(0.03, -0.012, None, 0.001), chosen=(0,), ordinal=False),
    UnitScores(space="fc1", kind="fresh", gains=(0.02, 0.0), chosen=(0,), ordinal=False),
)
GROWTH = Growth(step=1, policy="firefly", what="fc1 wider by 2", units=UNITS, hash=GRAPH.hash)
LOG = RunLog.of([Started(name="a run", seed=0), GROWTH, Growth(step=2, policy="dag")])
FEW = {"epochs_between": 1, "epochs_final": 1, "batch_size": 16}
FIREFLY = {"name": "firefly", "learn_steps": 2, "judge_batches": 1, "fresh_units": 2}


def cells(svg: str) -> list[tuple[str, str]]:
    """Class and title of each cell of a box."""
    return re.findall(r'<rect class="cell ([^"]*)"[^>]*><title>([^<]*)</title>', svg)


def test_golden(golden: Callable[[Path, str], None]) -> None:
    golden(GOLDEN / "scores.svg", picture(LOG, GRAPH))


def test_each_unit_is_a_cell_with_its_score_and_a_border_where_it_was_chosen() -> None:
    svg = picture(LOG, GRAPH)
    ET.fromstring(svg)
    assert cells(svg) == [
        ("s6 chosen", "split 0: 0.03, chosen"),
        ("s2", "split 1: -0.012"),
        ("u", "split 2: no score"),
        ("s3", "split 3: 0.001"),
        ("s5 chosen", "fresh 0: 0.02, chosen"),
        ("s3", "fresh 1: 0"),
    ]
    assert "0.03 decrease of the mean loss" in svg
    assert "(N, 4)" in svg  # the network that the growth found
    ranks = replace(GROWTH, units=tuple(replace(each, ordinal=True) for each in UNITS))
    assert "(a rank, not the loss)" in picture(RunLog.of([ranks]), GRAPH)


def test_units_of_a_layer_that_may_come_in_stand_where_it_would() -> None:
    units = (UnitScores(space="block after fc1", kind="fresh", gains=(0.1, -0.1), chosen=(0,)),)
    svg = picture(RunLog.of([replace(GROWTH, units=units)]), GRAPH)
    assert cells(svg) == [("s6 chosen", "layer 0: 0.1, chosen"), ("s0", "layer 1: -0.1")]


def test_strips_lie_within_their_box() -> None:
    many = replace(GROWTH, units=(UnitScores(space="fc1", kind="fresh", gains=(0.1,) * 60),))
    svg = picture(RunLog.of([many]), GRAPH)
    x, y, width, height = (
        float(found)
        for found in re.findall(r'<rect class="fill" x="(\d+)" y="(\d+)" width="(\d+)" height="(\d+)"', svg)[1]
    )  # behind the input's
    places = re.findall(r'<rect class="cell s6" x="(\d+)" y="(\d+)" width="(\d+)" height="(\d+)"><title>', svg)
    assert len(places) == 60
    for left, top, wide, tall in (map(float, place) for place in places):
        assert x <= left
        assert left + wide <= x + width
        assert y <= top
        assert top + tall <= y + height


def test_levels_are_even_on_both_sides_of_nothing() -> None:
    scale = Scale.of({"a": [Strip("split", (0.6, -0.2, None))]}, "")
    assert [scale.level(score) for score in (0.6, -0.6, 0.0, 0.09, 0.11, 0.4)] == [LEVELS, -LEVELS, 0, 0, 1, 2]
    assert Scale.of({}, "").level(0.0) == 0
    assert size_of([]) == (0, 0)
    assert Strip("fresh", (0.0,) * (MOST + 1)).lines == 2


def test_the_graph_is_the_one_that_the_growth_found() -> None:
    assert before(GRAPH, GROWTH).hash == mlp().hash
    assert before(GRAPH, replace(GROWTH, hash="another")) is GRAPH
    assert before(mlp(), GROWTH).hash == mlp().hash


def test_a_growth_without_scores_is_refused() -> None:
    assert growth_of(LOG) is growth_of(LOG, 1)
    with pytest.raises(RunError, match="growth 2 records no scores of units; these do: 1"):
        growth_of(LOG, 2)
    with pytest.raises(RunError, match=r"no growth records scores of units; .* such as firefly"):
        growth_of(RunLog.of([Growth(step=2)]))


def test_of_a_contest_it_is_a_growth_of_the_branch_that_goes_on() -> None:
    one, other = replace(GROWTH, branch="firefly"), replace(GROWTH, branch="gradmax")
    assert growth_of(RunLog.of([one, other])) is other
    assert growth_of(RunLog.of([one, other, Selected(branch="firefly")]), 1) is one
    with pytest.raises(RunError, match="no growth records scores of units"):
        growth_of(RunLog.of([one, other, Selected(branch="random")]))


def test_a_run_is_drawn(tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "scores.svg"
    found = package.grow(net("dense"), images(), policy=FIREFLY, train=FEW, budget={"steps": 2}, out=run)
    growths = [event for event in found.events if isinstance(event, Growth)]
    for growth in growths:
        assert sum(len(each.gains) for each in growth.units) == growth.candidates
        assert sum(len(each.chosen) for each in growth.units) == len(growth.chosen)
        best = max(gain for each in growth.units for gain in each.gains if gain is not None)
        assert best == pytest.approx(max(each.gain or 0.0 for each in growth.chosen), rel=1e-3)
    assert [each.growth.units for each in read_run(run).growths] == [growth.units for growth in growths]
    done = growir("render", run, "-o", out, "--scores", "--growth", 1)
    assert (done.code, done.err) == (0, "")
    assert len(cells(out.read_text(encoding="utf-8"))) == growths[0].candidates
    assert growir("render", run, "-o", out, "--scores").code == 0
    assert "--scores are drawn" in growir("render", run, "-o", out, "--growth", 1).err
    assert "scores are drawn as .svg" in growir("render", run, "-o", tmp_path / "net.html", "--scores").err
