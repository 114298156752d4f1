"""The score on the selection part of the data against parameters, over the growths of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from growir.columns import Grid, listed
from growir.errors import RunError, cut
from growir.plot import SEVERAL, Axis, Canvas, linear_axis
from growir.render.trails import Stop, Trail, trails
from growir.runs.metrics import Metric, by_branch, metric_of, score_axis
from growir.runs.reading import Grown, RunLog
from growir.runs.report import growth_text, left_out, run_page
from growir.show import si_text

NONE = "no growth records a score and the parameters after it"
LETTERS = "o+#@%&"  # of one branch after the other
UNDONE = "x"


@dataclass(frozen=True, slots=True)
class Point:
    """A network on the way.

    Attributes:
        branch: The branch of a tournament it belongs to.
        parameters: How many it has.
        score: On the selection part, after the training that followed the growth; of the first network, before any.
        step: The number of the growth, 0 of the first network; None where it is not known.
        text: What grew, in words.
        undone: Whether the growth was taken back.
    """

    branch: str | None
    parameters: float
    score: float
    step: int | None
    text: str
    undone: bool


@dataclass(frozen=True, slots=True)
class Course:
    """Every network of a run that has a score, and which score is meant: accuracy where there is one."""

    metric: Metric
    points: tuple[Point, ...]

    @property
    def branches(self) -> list[tuple[str | None, list[Point]]]:
        """The points of each branch, in order."""
        return by_branch(self.points, lambda point: point.branch)

    @property
    def axes(self) -> tuple[Axis, Axis]:
        """Of the parameters and of the scores."""
        sizes = linear_axis((point.parameters for point in self.points), si_text)
        return sizes, score_axis(self.metric, (point.score for point in self.points))


def course_of(log: RunLog) -> Course:
    """The networks of a run: each branch's first, and the one after each growth."""
    befores = [grown.growth.before.get("selection") for grown in log.growths]
    metric = metric_of([*befores, *(grown.trained.selection for grown in log.growths if grown.trained is not None)])
    points: list[Point] = []
    begun = set[str | None]()
    for grown, before in zip(log.growths, befores, strict=True):
        growth, undone = grown.growth, grown.undone is not None
        if growth.branch not in begun:
            begun.add(growth.branch)
            start = log.starts.get(growth.branch or "", log.started)
            score = before.get(metric) if before is not None else None
            points += _point(growth.branch, start.parameters if start else None, score, 0, "the start", undone=False)
        text = f"step {'?' if growth.step is None else cut(growth.step)}: {growth_text(grown)}"
        score = _trained(grown, metric)
        points += _point(growth.branch, growth.parameters, score, growth.step, text, undone=undone)
    return Course(metric, tuple(points))


def _trained(grown: Grown, metric: Metric) -> float | None:
    """The score after the training that followed; the loss is all that runs of earlier versions have."""
    if grown.trained is None:
        return None
    score = (grown.trained.selection or {}).get(metric)
    return grown.trained.selection_loss if score is None and metric == "loss" else score


def _point(
    branch: str | None, size: int | None, score: float | None, step: int | None, text: str, *, undone: bool
) -> list[Point]:
    return [] if size is None or score is None else [Point(branch, float(size), score, step, text, undone)]


# -- as text and as a picture -----------------------------------------------------------------------------------------


def page(log: RunLog) -> Iterator[str | Grid]:
    """What `growir log` prints of a run: all there is to say, and a plot."""
    yield from run_page(log)
    found = course_of(log)
    if found.points:
        yield _plot(found)
    yield from left_out(log)


def _spurs(points: Sequence[Point]) -> Iterator[tuple[Point, Point]]:
    """What is joined by a line: each network and the one that it grew from, the last of a smaller step.

    One that was taken back at once has no smaller step than what came after it.
    """
    before: list[Point] = []
    for point in points:
        earlier = [each for each in before if None in (each.step, point.step) or (each.step or 0) < (point.step or 0)]
        if earlier:
            yield earlier[-1], point
        before.append(point)


def _plot(found: Course) -> str:
    canvas = Canvas(*found.axes)
    keys: list[str] = []
    for k, (branch, points) in enumerate(found.branches):
        letter = LETTERS[k % len(LETTERS)]
        for a, b in _spurs(points):
            canvas.line((a.parameters, a.score), (b.parameters, b.score))
        keys.append(f"{letter} {'after each growth' if branch is None else cut(branch)}")
    for k, (_, points) in enumerate(found.branches):
        for point in points:
            canvas.put(point.parameters, point.score, UNDONE if point.undone else LETTERS[k % len(LETTERS)])
    keys += [f"{UNDONE} growth taken back"] if any(point.undone for point in found.points) else []
    keys += [f"{SEVERAL} several"] if canvas.crowded else []
    better = ", lower is better" if found.metric == "loss" else ""
    return f"{canvas.text('parameters', f'{found.metric} on the selection part{better}')}\n\n{listed(keys)}"


def picture(log: RunLog) -> str:
    """The same as an SVG file. Raises RunError if there is nothing to draw."""
    found = course_of(log)
    if not found.points:
        raise RunError(f"{log.name}: {NONE}; there is nothing to draw")
    drawn = [
        Trail(
            "after each growth" if branch is None else cut(branch),
            [Stop(point.parameters, point.score, point.text, point.undone) for point in points],
        )
        for branch, points in found.branches
    ]
    title = f"{log.name}: {found.metric} on the selection part"
    return trails(title, ("parameters", found.metric), found.axes, drawn)
