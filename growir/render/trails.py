"""Points that are joined as one came from the other, in one plot, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from growir.plot import Axis
from growir.render.axes import ABOVE, BELOW, HEAD, LEFT, RIGHT, Panel, chart, marker
from growir.render.scatter import MARKERS

WIDTH, HEIGHT = 640, 320


@dataclass(frozen=True, slots=True)
class Stop:
    """A point of a trail.

    Attributes:
        x: Its place from left to right.
        y: Its place from below to above.
        text: What it is, in words.
        undone: Whether it was taken back: the trail goes on from the point before it.
    """

    x: float
    y: float
    text: str
    undone: bool


@dataclass(frozen=True, slots=True)
class Trail:
    """The points of one series, in order, and what it is called."""

    name: str
    stops: Sequence[Stop]


def trails(title: str, labels: tuple[str, str], axes: tuple[Axis, Axis], drawn: Sequence[Trail]) -> str:
    """A plot of trails.

    Args:
        title: The heading.
        labels: What stands along both sides.
        axes: Of both sides.
        drawn: The trails; each has a colour and a shape of its own, up to four.
    """
    panel = Panel(LEFT, HEAD + ABOVE, WIDTH, HEIGHT, *axes)
    body = panel.frame(f"{labels[1]} against {labels[0]}", *labels)
    legend: list[tuple[str, str]] = []
    for k, trail in enumerate(drawn):
        series = list(MARKERS)[k % len(MARKERS)]
        body += _drawn(panel, trail, series)
        line = f'<path class="{series} line" d="M-11 0H11"/>'
        legend.append((line + marker((0, 0), series, MARKERS[series]), trail.name))
    if any(stop.undone for trail in drawn for stop in trail.stops):
        legend.append((marker((0, 0), "other", MARKERS["edge"], hollow=True), "growth taken back"))
    description = "; ".join(f"{trail.name}: {len(trail.stops)} points" for trail in drawn)
    size = (LEFT + WIDTH + RIGHT, HEAD + ABOVE + HEIGHT + BELOW)
    return chart(title, f"{labels[1]} against {labels[0]}. {description}.", legend, body, size)


def _drawn(panel: Panel, trail: Trail, series: str) -> list[str]:
    lines, marks = list[str](), list[str]()
    last: tuple[float, float] | None = None
    for stop in trail.stops:
        at = panel.at(stop.x, stop.y)
        if last is not None:
            kind = f"{series} line dashed" if stop.undone else f"{series} line"
            lines.append(f'<path class="{kind}" d="M{last[0]} {last[1]}L{at[0]} {at[1]}"/>')
        marks.append(marker(at, series, MARKERS[series], hollow=stop.undone, text=stop.text))
        last = last if stop.undone else at
    return [*lines, *marks]
