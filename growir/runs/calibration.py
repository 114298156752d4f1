"""What candidates were predicted to gain beside what they gained, by kind of move."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal

from growir.columns import Grid, listed
from growir.errors import RunError, cut
from growir.plot import SEVERAL, Canvas, decade_axis
from growir.render.scatter import Dot, scatter
from growir.runs.reading import RunLog
from growir.runs.records import Growth, Tried
from growir.runs.report import left_out
from growir.runs.words import describe, moves, what_grew

FEWEST = 3  # points that say anything about a line
Kind = Literal["edge", "node", "widening", "other"]
KINDS: Mapping[str, Kind] = {"add_edge": "edge", "add_node": "node", "widen": "widening"}
LETTERS: Mapping[Kind, str] = {"edge": "e", "node": "n", "widening": "w", "other": "o"}
NONE = "no growth records what it was chosen from, as runs of this version of growir do"
NO_PAIR = "no candidate has both gains"


@dataclass(frozen=True, slots=True)
class Gain:
    """A candidate's gain at one amplitude, in units of the mean loss; None for what was not recorded.

    Attributes:
        amplitude: Of what the candidate adds.
        predicted: To first order.
        measured: On the selection part of the data; at small amplitude on the one that amplitudes are searched on.
        error: The standard error of the measured gain.
    """

    amplitude: float | None
    predicted: float | None
    measured: float | None
    error: float | None = None

    @property
    def pair(self) -> tuple[float, float] | None:
        """Predicted and measured, if there are both."""
        return None if self.predicted is None or self.measured is None else (self.predicted, self.measured)


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something a growth could have added.

    Attributes:
        branch: The branch of a tournament it belongs to.
        step: The growth it was proposed for.
        move: What it adds, in words.
        kind: The kind of move.
        maps: Whether it adds convolutions.
        outcome: What came of it.
        parameters: How many the network would have with it.
        full: At the amplitude it was tried with.
        small: At a hundredth of the largest amplitude.
    """

    branch: str | None
    step: int | None
    move: str
    kind: Kind
    maps: bool
    outcome: str | None
    parameters: int | None
    full: Gain
    small: Gain | None


@dataclass(frozen=True, slots=True)
class Fit:
    """How measured gains follow predicted ones; None for what so few points or such points do not say.

    Attributes:
        points: How many there are.
        pearson: The correlation.
        slope: Of the line through the origin that fits best.
        ratio: The median of measured by predicted.
    """

    points: int
    pearson: float | None
    slope: float | None
    ratio: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    """The candidates of one kind of move, and how well their gains were predicted."""

    move: str
    candidates: int
    full: Fit
    small: Fit

    def to_json(self) -> dict[str, Any]:
        """The summary as JSON values."""
        return asdict(self)


# -- reading ----------------------------------------------------------------------------------------------------------


def candidates(log: RunLog) -> list[Candidate]:
    """Every candidate that a run's growths record, in the order proposed."""
    found: list[Candidate] = []
    last: tuple[int | None, list[Candidate]] | None = None
    for grown in log.growths:
        growth = grown.growth
        tried = [_candidate(growth, entry) for entry in growth.measured.tried]
        # Of several growths in one step each records them all.
        if (growth.step, tried) != last:
            found += tried
        last = (growth.step, tried)
    return found


def _candidate(growth: Growth, entry: Tried) -> Candidate:
    grew = moves(entry.passes)
    name = grew[0].get("pass") if len(grew) == 1 else None
    small = entry.small
    return Candidate(
        branch=growth.branch,
        step=growth.step,
        move=describe(entry.passes) if entry.passes else what_grew(entry.name),
        kind=KINDS.get(name, "other") if isinstance(name, str) else "other",
        maps=entry.map is True,
        outcome=entry.outcome,
        parameters=entry.parameters,
        full=Gain(entry.amplitude, entry.predicted_gain, entry.measured_gain, entry.gain_error),
        small=Gain(small.amplitude, small.predicted, small.measured) if small is not None else None,
    )


# -- statistics -------------------------------------------------------------------------------------------------------


def fit(pairs: Sequence[tuple[float, float]]) -> Fit:
    """How the second numbers of pairs follow the first."""
    if len(pairs) < FEWEST:
        return Fit(len(pairs), None, None, None)
    xs, ys = [x for x, _ in pairs], [y for _, y in pairs]
    ratios = [y / x for x, y in pairs if x]
    ratio = _finite(median(ratios)) if len(ratios) >= FEWEST else None
    return Fit(len(pairs), _pearson(xs, ys), _slope(xs, ys), ratio)


def _pearson(xs: Sequence[float], ys: Sequence[float]) -> float | None:
    if min(xs) == max(xs) or min(ys) == max(ys):
        return None
    (a, _), (b, _) = _scaled(xs), _scaled(ys)
    a, b = ([v - math.fsum(values) / len(values) for v in values] for values in (a, b))
    spread = math.sqrt(math.fsum(v * v for v in a)) * math.sqrt(math.fsum(v * v for v in b))
    return max(-1.0, min(1.0, math.fsum(v * w for v, w in zip(a, b, strict=True)) / spread)) if spread else None


def _slope(xs: Sequence[float], ys: Sequence[float]) -> float | None:
    (a, x), (b, y) = _scaled(xs), _scaled(ys)
    if not x:
        return None
    return _finite(math.fsum(v * w for v, w in zip(a, b, strict=True)) / math.fsum(v * v for v in a) * (y / x))


def _scaled(values: Sequence[float]) -> tuple[list[float], float]:
    """Values divided by the largest, which keeps their squares in range, and the largest."""
    largest = max(map(abs, values))
    return ([value / largest for value in values] if largest else list(values)), largest


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def summaries(found: Sequence[Candidate]) -> list[Summary]:
    """A summary for each kind of move there is, and one for all."""
    rows = [
        _summary(f"{kind} of {'maps' if maps else 'vectors'}", chosen)
        for kind in LETTERS
        for maps in (False, True)
        if (chosen := [c for c in found if (c.kind, c.maps) == (kind, maps)])
    ]
    return [*rows, _summary("all", found)]


def _summary(name: str, found: Sequence[Candidate]) -> Summary:
    small = [pair for c in found if c.small and (pair := c.small.pair)]
    return Summary(name, len(found), fit([pair for c in found if (pair := c.full.pair)]), fit(small))


# -- as text and as data ----------------------------------------------------------------------------------------------


def calibration_page(log: RunLog) -> Iterator[str | Grid]:
    """What `growir log --calibration` prints of a run."""
    found = candidates(log)
    if not found:
        yield f"{log.name}: {NONE}"
        yield from left_out(log)
        return
    counts = Counter(cut(c.outcome or "not told") for c in found)
    yield f"{log.name}: {len(found):,} candidates; {', '.join(f'{n:,} {name}' for name, n in counts.items())}"
    yield _grid(summaries(found))
    drawn = False
    for title, points in panels(found):
        yield f"{title}\n\n{_plot(points)}"
        drawn = True
    if not drawn:
        yield f"{NO_PAIR}; there is nothing to plot"
    yield from left_out(log)


def panels(found: Sequence[Candidate]) -> Iterator[tuple[str, list[tuple[Candidate, Gain]]]]:
    """What is plotted: the candidates that have both gains, at full and at small amplitude."""
    full = [(c, c.full) for c in found if c.full.pair]
    small = [(c, c.small) for c in found if c.small and c.small.pair]
    if full:
        yield "gains at the amplitude tried", full
    if small:
        yield "gains at a hundredth of the largest amplitude", small


_HEADERS = ("move", "candidates", "amplitude", "measured", "Pearson", "slope", "median ratio")


def _grid(rows: Sequence[Summary]) -> Grid:
    """Two rows for each kind of move: at the amplitude tried, and at a small one."""
    cells: list[tuple[str, ...]] = []
    for row in rows:
        cells.append((row.move, f"{row.candidates:,}", "as tried", *_cells(row.full)))
        cells.append(("", "", "small", *_cells(row.small)))
    return Grid(_HEADERS, tuple(cells), frozenset(_HEADERS) - {"move", "amplitude"})


def _cells(found: Fit) -> tuple[str, ...]:
    numbers = (
        "-" if value is None else format(value, form)
        for value, form in ((found.pearson, ".3f"), (found.slope, ".3g"), (found.ratio, ".3g"))
    )
    return f"{found.points:,}", *numbers


def letter(candidate: Candidate) -> str:
    """How a candidate stands in a plot: by the kind of move, upper case for maps."""
    return LETTERS[candidate.kind].upper() if candidate.maps else LETTERS[candidate.kind]


def _plot(points: Sequence[tuple[Candidate, Gain]]) -> str:
    pairs = [(c, pair) for c, gain in points if (pair := gain.pair)]
    axis = decade_axis(value for _, pair in pairs for value in pair)
    canvas = Canvas(axis, axis)
    canvas.diagonal()
    for candidate, (predicted, measured) in pairs:
        canvas.put(predicted, measured, letter(candidate))
    used = {letter(c): f"{letter(c)} {c.kind} of {'maps' if c.maps else 'vectors'}" for c, _ in pairs}
    shown = [used[key] for kind in LETTERS.values() for key in (kind, kind.upper()) if key in used]
    shown += [f"{SEVERAL} several"] if len(used) > 1 else []
    legend = listed([*shown, ". measured as predicted"])
    return f"{canvas.text('predicted gain', 'measured gain')}\n\n{legend}"


def calibration_picture(log: RunLog) -> str:
    """The scatter plots as an SVG file. Raises RunError if there is nothing to draw."""
    found = candidates(log)
    drawn = [
        (title, decade_axis(value for dot in dots for value in (dot.predicted, dot.measured)), dots)
        for title, points in panels(found)
        if (dots := [_dot(c, gain.error, *pair) for c, gain in points if (pair := gain.pair)])
    ]
    if not drawn:
        raise RunError(f"{log.name}: {NO_PAIR if found else NONE}; there is nothing to draw")
    return scatter(f"{log.name}: gains predicted and measured", drawn)


def _dot(c: Candidate, error: float | None, predicted: float, measured: float) -> Dot:
    where = f"{cut(c.branch)}, " if c.branch is not None else ""
    step = "?" if c.step is None else cut(c.step)
    text = f"{where}step {step}: {c.move}; predicted {predicted:.4g}, measured {measured:.4g}"
    text += f", {cut(c.outcome)}" if c.outcome else ""
    return Dot(predicted, measured, error, c.kind, c.maps, text)


def calibration_data(log: RunLog) -> dict[str, Any]:
    """The same as JSON values."""
    found = candidates(log)
    return {
        "name": log.started.name if log.started is not None else None,
        "points": [asdict(candidate) for candidate in found],
        "statistics": [row.to_json() for row in summaries(found)] if found else [],
        "unreadable_lines": log.unreadable,
    }
