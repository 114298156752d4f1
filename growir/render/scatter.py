"""Gains that were predicted against gains that were measured, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from growir.plot import Axis
from growir.render.axes import ABOVE, BELOW, HEAD, LEFT, RIGHT, Panel, chart, marker

SIDE = 380
# Colour and shape say the same, so that either will do.
MARKERS: Mapping[str, str] = {"edge": "circle", "node": "triangle", "widening": "square", "other": "diamond"}


@dataclass(frozen=True, slots=True)
class Dot:
    """A candidate in a scatter plot.

    Attributes:
        predicted: Its place from left to right.
        measured: Its place from below to above.
        error: The standard error of `measured`, if known.
        kind: Of move, one of MARKERS.
        maps: Whether it is drawn hollow.
        text: What it is, in words.
    """

    predicted: float
    measured: float
    error: float | None
    kind: str
    maps: bool
    text: str


def scatter(title: str, panels: Sequence[tuple[str, Axis, Sequence[Dot]]]) -> str:
    """A scatter plot for each panel, side by side: a heading, the axis of both sides, and the dots."""
    body: list[str] = []
    left = 0.0
    for heading, axis, dots in panels:
        panel = Panel(left + LEFT, HEAD + ABOVE, SIDE, SIDE, axis, axis)
        body += panel.frame(heading, "predicted gain", "measured gain")
        (x, y), (to_x, to_y) = panel.at(axis.low, axis.low), panel.at(axis.high, axis.high)
        body.append(f'<path class="guide line dashed" d="M{x} {y}L{to_x} {to_y}"/>')
        for dot in dots:
            body += _drawn(panel, dot)
        left += LEFT + SIDE + RIGHT
    kinds = {(dot.kind, dot.maps) for _, _, dots in panels for dot in dots}
    legend = [
        (marker((0, 0), kind, shape, hollow=maps), f"{kind} of {'maps' if maps else 'vectors'}")
        for kind, shape in MARKERS.items()
        for maps in (False, True)
        if (kind, maps) in kinds
    ]
    legend.append(('<path class="guide line dashed" d="M-8 0H8"/>', "measured as predicted"))
    count = "; ".join(f"{heading}: {len(dots)} candidates" for heading, _, dots in panels)
    description = f"Scatter plots of measured over predicted gains. {count}."
    return chart(title, description, legend, body, (left, HEAD + ABOVE + SIDE + BELOW))


def _drawn(panel: Panel, dot: Dot) -> list[str]:
    parts: list[str] = []
    if dot.error is not None:
        x, low = panel.at(dot.predicted, dot.measured - dot.error)
        _, high = panel.at(dot.predicted, dot.measured + dot.error)
        parts.append(f'<path class="{dot.kind}" d="M{x} {low}V{high}"/>')
    at = panel.at(dot.predicted, dot.measured)
    return [*parts, marker(at, dot.kind, MARKERS[dot.kind], hollow=dot.maps, text=dot.text)]
