"""Scores on two parts of the data over the steps of a run, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from growir.plot import Axis
from growir.render.axes import ABOVE, BELOW, HEAD, LEFT, RIGHT, Panel, chart, marker
from growir.render.svg import plain

HEIGHT, NARROWEST, WIDEST, PLACE = 260, 520, 2400, 16
# Line and shape say what the colour says.
MARKERS: Mapping[str, str] = {"train": "circle", "selection": "square"}


@dataclass(frozen=True, slots=True)
class Band:
    """A growth: from which place to which, in words, and whether it was taken back."""

    start: float
    end: float
    text: str
    undone: bool


@dataclass(frozen=True, slots=True)
class Curve:
    """The scores on one part, `series` of MARKERS, at the places 0, 1, ...; None where there is none."""

    series: str
    scores: Sequence[float | None]


def curves(
    title: str, score: str, panels: Sequence[tuple[str, Axis, Sequence[Curve], Sequence[Band]]], scores: Axis
) -> str:
    """A plot for each panel, one below the other.

    Args:
        title: The heading.
        score: What the scores are.
        panels: A heading, the axis of the places, the curves and the growths of each.
        scores: The axis of the scores, for all.
    """
    widest = max(len(curve.scores) for _, _, found, _ in panels for curve in found)
    width = min(WIDEST, max(NARROWEST, PLACE * widest))
    body: list[str] = []
    top = float(HEAD)
    for heading, places, found, bands in panels:
        panel = Panel(LEFT, top + ABOVE, width, HEIGHT, places, scores)
        body += [_band(panel, band) for band in bands]
        body += panel.frame(heading, "step", score)
        for curve in found:
            body += _drawn(panel, curve)
        top += ABOVE + HEIGHT + BELOW
    legend = [(_key(series), series) for series in MARKERS]
    legend.append(('<rect class="band" x="-7" y="-7" width="14" height="14"/>', "growth"))
    if any(band.undone for _, _, _, bands in panels for band in bands):
        legend.append(('<rect class="band undone" x="-7" y="-7" width="14" height="14"/>', "growth taken back"))
    description = f"{score} before and after each growth and after the training that followed, in {len(panels)} plots."
    return chart(title, description, legend, body, (LEFT + width + RIGHT, top))


def _key(series: str) -> str:
    drawn = marker((0, 0), series, MARKERS[series], hollow=_hollow(series))
    return f'<path class="{_line(series)}" d="M-11 0H11"/>{drawn}'


def _line(series: str) -> str:
    return f"{series} line dashed" if _hollow(series) else f"{series} line"


def _hollow(series: str) -> bool:
    return series != "train"


def _band(panel: Panel, band: Band) -> str:
    (x, y), (to_x, _) = panel.at(band.start, panel.y.high), panel.at(band.end, panel.y.high)
    kind = "band undone" if band.undone else "band"
    return (
        f'<rect class="{kind}" x="{x}" y="{y}" width="{round(to_x - x, 1)}" height="{panel.height}">'
        f"<title>{plain(band.text)}</title></rect>"
    )


def _drawn(panel: Panel, curve: Curve) -> list[str]:
    path, marks, pen = "", list[str](), "M"
    for place, score in enumerate(curve.scores):
        if score is None:
            pen = "M"  # the line has a gap
            continue
        x, y = panel.at(place, score)
        path, pen = f"{path}{pen}{x} {y}", "L"
        marks.append(marker((x, y), curve.series, MARKERS[curve.series], hollow=_hollow(curve.series)))
    return [f'<path class="{_line(curve.series)}" d="{path}"/>', *marks] if marks else []
