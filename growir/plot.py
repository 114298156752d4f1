"""Axes, and plots in characters for a terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 60, 16
TINY = 1e-300  # as good as zero: its logarithm is of no use
BENT = 3  # decades that axes with both signs show on either side of zero
SEVERAL = "*"


@dataclass(frozen=True, slots=True)
class Axis:
    """What stands where along one side of a plot.

    Attributes:
        low: The value at the beginning.
        high: The value at the end, above `low`.
        ticks: Values with their labels.
        warp: Rises; equal distances of what it gives are equal distances along the axis.
    """

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    warp: Callable[[float], float] = float

    def place(self, value: float) -> float:
        """Where a value stands, from 0 to 1; what is outside stands at the end."""
        start, end = self.warp(self.low), self.warp(self.high)
        return (self.warp(min(max(value, self.low), self.high)) - start) / (end - start)

    def cell(self, value: float, count: int) -> int:
        """In which of so many equal parts a value stands."""
        return min(count - 1, int(self.place(value) * count))


def linear_axis(values: Iterable[float], label: Callable[[float], str] = "{:.4g}".format) -> Axis:
    """An axis around values, with a handful of round ticks."""
    found = list(values) or [0.0]
    low, high = min(found), max(found)
    biggest = max(abs(low), abs(high))
    pad = 0.05 * (high - low)
    if high - low <= max(TINY, 1e-9 * biggest):
        pad = 0.05 * biggest if biggest > TINY else 0.5
    low, high = low - pad, high + pad
    rough = (high - low) / 8
    decade = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * decade for factor in (1, 2, 5, 10, 20) if factor * decade >= rough)
    ticks = [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return Axis(low, high, tuple((tick, label(tick)) for tick in ticks))


def decade_axis(values: Iterable[float]) -> Axis:
    """An axis of whole decades: logarithmic, or around zero too where values are not all above it."""
    found = list(values)
    biggest = max(map(abs, found), default=0.0)
    if biggest <= TINY:
        return linear_axis([-1.0, 1.0])
    top, least = _up(biggest), min(found)
    if least > TINY:
        bottom = min(math.floor(math.log10(least)), top - 1)
        return Axis(10.0**bottom, 10.0**top, _decades(bottom, top), math.log10)
    bend = 10.0 ** (top - BENT)
    low = -(10.0 ** _up(-least)) if least < -TINY else 0.0
    high = 10.0 ** _up(max(found)) if max(found) > TINY else 0.0
    above = _decades(top - BENT + 1, top)
    below = [(-value, f"-{text}") for value, text in reversed(above)]
    ticks = tuple((value, text) for value, text in (*below, (0.0, "0"), *above) if low <= value <= high)
    return Axis(low, high, ticks, lambda value: math.asinh(value / bend))


def _up(value: float) -> int:
    return math.ceil(math.log10(value))


def _decades(bottom: int, top: int, most: int = 6) -> tuple[tuple[float, str], ...]:
    step = -(-(top - bottom) // most) or 1
    return tuple((10.0**k, f"{10.0**k:g}") for k in range(bottom, top + 1, step))


class Canvas:
    """A plot in characters, 60 by 16."""

    def __init__(self, x: Axis, y: Axis) -> None:
        self.x = x
        self.y = y
        self._rows = [[" "] * WIDTH for _ in range(HEIGHT)]
        self._drawn: set[tuple[int, int]] = set()

    def diagonal(self) -> None:
        """Dots from corner to corner, under whatever is drawn."""
        for column in range(WIDTH):
            self._rows[int((column + 0.5) / WIDTH * HEIGHT)][column] = "."

    @property
    def crowded(self) -> bool:
        """Whether several letters stand at one place."""
        return any(SEVERAL in row for row in self._rows)

    def line(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Dots from one point to another, under whatever is drawn."""
        (row, column), (to_row, to_column) = ((self.y.cell(y, HEIGHT), self.x.cell(x, WIDTH)) for x, y in (start, end))
        steps = max(abs(to_row - row), abs(to_column - column))
        for k in range(1, steps):
            at = row + round((to_row - row) * k / steps), column + round((to_column - column) * k / steps)
            if at not in self._drawn:
                self._rows[at[0]][at[1]] = "."

    def put(self, x: float, y: float, letter: str) -> None:
        """Draw a letter; where another is drawn already, `*`."""
        row, column = self.y.cell(y, HEIGHT), self.x.cell(x, WIDTH)
        taken = (row, column) in self._drawn and self._rows[row][column] != letter
        self._rows[row][column] = SEVERAL if taken else letter
        self._drawn.add((row, column))

    def text(self, x_label: str, y_label: str, below: Sequence[tuple[float, str]] = ()) -> str:
        """The plot with its axes; `below` are letters under it, at places of the x axis."""
        labels: dict[int, str] = {}
        for value, text in self.y.ticks:
            labels.setdefault(self.y.cell(value, HEIGHT), text)
        margin = max(map(len, labels.values()), default=0)
        lines = [y_label]
        for row in reversed(range(HEIGHT)):
            side = f"{labels.get(row, ''):>{margin}} {'+' if row in labels else '|'}"
            lines.append((side + "".join(self._rows[row])).rstrip())
        rule, names = ["-"] * WIDTH, [" "] * (margin + WIDTH + 12)
        free = 0
        for value, text in self.x.ticks:
            column = self.x.cell(value, WIDTH)
            start = max(0, margin + 2 + column - len(text) // 2)
            if start >= free:
                rule[column] = "+"
                names[start : start + len(text)] = text
                free = start + len(text) + 1
        lines.append(f"{'':{margin}} +{''.join(rule)}")
        if below:
            letters = [" "] * WIDTH
            for value, letter in below:
                letters[self.x.cell(value, WIDTH)] = letter
            lines.append(f"{'':{margin}}  {''.join(letters)}".rstrip())
        lines += ["".join(names).rstrip(), f"{'':{margin}}  {x_label:^{WIDTH}}".rstrip()]
        return "\n".join(lines)
