"""Charts as SVG: panels with axes, a legend, markers told apart by shape; readable on light and on dark ground."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from growir.plot import Axis
from growir.render.svg import ARROW, FAMILIES, GROUND, TEXT, TEXT_WIDTH, WRITTEN, plain

LEFT, RIGHT, ABOVE, BELOW = 72, 24, 34, 52  # around a panel
HEAD = 84  # title and legend
SIZE = 4.5  # of markers, from the middle

# Stroke on light ground, then on dark.
SERIES: Mapping[str, tuple[str, str]] = {
    "edge": (FAMILIES["linear"][1], FAMILIES["linear"][3]),
    "node": (FAMILIES["norm"][1], FAMILIES["norm"][3]),
    "widening": (FAMILIES["activation"][1], FAMILIES["activation"][3]),
    "other": (FAMILIES["pool"][1], FAMILIES["pool"][3]),
    "train": (FAMILIES["linear"][1], FAMILIES["linear"][3]),
    "selection": (FAMILIES["join"][1], FAMILIES["join"][3]),
}
_S = SIZE
SHAPES: Mapping[str, str] = {
    "circle": f"M{-_S} 0a{_S} {_S} 0 1 0 {2 * _S} 0a{_S} {_S} 0 1 0 {-2 * _S} 0z",
    "triangle": f"M0 {-_S}L{_S} {_S}H{-_S}z",
    "square": f"M{-_S} {-_S}H{_S}V{_S}H{-_S}z",
    "diamond": f"M0 {-_S - 1}L{_S + 1} 0L0 {_S + 1}L{-_S - 1} 0z",
}


@dataclass(frozen=True, slots=True)
class Panel:
    """The inside of one plot: its corner, its size and its axes."""

    left: float
    top: float
    width: float
    height: float
    x: Axis
    y: Axis

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point stands in the picture."""
        right, down = self.x.place(x) * self.width, (1 - self.y.place(y)) * self.height
        return round(self.left + right, 1), round(self.top + down, 1)

    def frame(self, title: str, x_label: str, y_label: str) -> list[str]:
        """Border, ticks and labels."""
        left, top, right, bottom = self.left, self.top, self.left + self.width, self.top + self.height
        middle = round(top + self.height / 2, 1)
        parts = [
            f'<rect class="frame" x="{left}" y="{top}" width="{self.width}" height="{self.height}"/>',
            f'<text class="name" x="{left}" y="{top - 10}">{plain(title)}</text>',
            _text(left + self.width / 2, bottom + 40, x_label, "middle"),
            f'<text x="{left - 58}" y="{middle}" text-anchor="middle" '
            f'transform="rotate(-90 {left - 58} {middle})">{plain(y_label)}</text>',
        ]
        free = left - LEFT
        for value, label in self.x.ticks:
            x, _ = self.at(value, self.y.low)
            half = len(label) * TEXT_WIDTH / 2
            if x - half >= free:
                parts.append(f'<path class="tick" d="M{x} {top}V{bottom}"/>')
                parts.append(_text(x, bottom + 17, label, "middle"))
                free = x + half + TEXT_WIDTH
        free = bottom + 20
        for value, label in self.y.ticks:
            _, y = self.at(self.x.low, value)
            if y + 7 <= free:
                parts.append(f'<path class="tick" d="M{left} {y}H{right}"/>')
                parts.append(_text(left - 7, y + 4, label, "end"))
                free = y - 7
        return parts


def marker(at: tuple[float, float], series: str, shape: str, *, hollow: bool = False, text: str = "") -> str:
    """A marker in the colour of its series, and what a reader who points at it is told."""
    title = f"<title>{plain(text)}</title>" if text else ""
    kind = series if hollow else f"{series} solid"
    return f'<path class="mark {kind}" transform="translate({at[0]} {at[1]})" d="{SHAPES[shape]}">{title}</path>'


def chart(
    title: str,
    description: str,
    legend: Sequence[tuple[str, str]],
    body: Sequence[str],
    size: tuple[float, float],
) -> str:
    """A whole SVG file.

    Args:
        title: The heading.
        description: For those who do not see it.
        legend: Markers drawn at the origin, with what they mean.
        body: What is drawn below the heading, from HEAD on.
        size: Of the body's right and bottom ends.
    """
    keys: list[str] = []
    x = 30.0
    for drawn, text in legend:
        keys.append(f'<g transform="translate({x} 62)">{drawn}</g>{_text(x + 13, 66, text, "start")}')
        x += 42 + len(text) * TEXT_WIDTH
    width, height = round(max(size[0], x, 48 + len(title) * 9.1)), round(size[1])
    return "\n".join(
        [
            WRITTEN,
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-labelledby="chart-title chart-desc" '
            f'viewBox="0 0 {width} {height}" width="{width}" height="{height}" class="growir-chart">',
            f'<title id="chart-title">{plain(title)}</title>',
            f'<desc id="chart-desc">{plain(description)}</desc>',
            f"<style>{_style()}</style>",
            f'<rect class="ground" width="{width}" height="{height}"/>',
            f'<text class="heading" x="24" y="32">{plain(title)}</text>',
            *keys,
            *body,
            "</svg>\n",
        ]
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{round(x, 1)}" y="{round(y, 1)}" text-anchor="{anchor}">{plain(text)}</text>'


def _style() -> str:
    light, dark = (_colours(side) for side in (0, 1))
    font = ".growir-chart{font-family:ui-monospace,Menlo,Consolas,monospace;font-size:11.5px}"
    names = ".growir-chart .name{font-weight:600;font-size:13px}.growir-chart .heading{font-weight:600;font-size:15px}"
    lines = (
        ".growir-chart path{fill:none}.growir-chart .frame{fill:none;stroke-width:1.2}"
        ".growir-chart .tick{stroke-width:.5;stroke-opacity:.5}.growir-chart .mark{stroke-width:1.4;fill-opacity:.55}"
        ".growir-chart .line{stroke-width:1.6}.growir-chart .dashed{stroke-dasharray:5 4}"
        ".growir-chart .band{fill-opacity:.18}.growir-chart .undone{stroke-width:1.6;stroke-dasharray:2 3}"
    )
    return f"{font}{names}{lines}{light}@media (prefers-color-scheme:dark){{{dark}}}"


def _colours(side: int) -> str:
    grey = ARROW[side]
    rules = [
        f".growir-chart .ground{{fill:{GROUND[side]}}}.growir-chart text{{fill:{TEXT[side]}}}",
        f".growir-chart .frame,.growir-chart .tick,.growir-chart .guide,.growir-chart .undone{{stroke:{grey}}}",
        f".growir-chart .band{{fill:{grey}}}",
    ]
    for name, colours in SERIES.items():
        rules.append(f".growir-chart .{name}{{stroke:{colours[side]}}}")
        rules.append(f".growir-chart .solid.{name}{{fill:{colours[side]}}}")
    return "".join(rules)
