"""How far scores on the training and the selection part lie apart, around each growth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from growir.columns import Grid, fold
from growir.errors import RunError, cut
from growir.plot import SEVERAL, Axis, Canvas
from growir.render.curves import Band, Curve, curves
from growir.runs.metrics import Metric, by_branch, metric_of, score_axis
from growir.runs.reading import RunLog
from growir.runs.report import left_out
from growir.runs.values import Metrics
from growir.runs.words import what_grew

STAGES = ("before", "after", "trained")  # growing; and the training that follows
_COLUMNS = ("before", "after", "later")
_WORDS = 27  # columns of what grew in the table
NONE = "no growth records scores before and after it, as runs of this version of growir do"


@dataclass(frozen=True, slots=True)
class Scores:
    """A score on two parts of the data; None for what was not recorded.

    Attributes:
        train: On what is trained on between growths.
        selection: On the selection part.
        gap: By how much the first is better.
    """

    train: float | None
    selection: float | None
    gap: float | None


@dataclass(frozen=True, slots=True)
class Growth:
    """The scores around a growth.

    Attributes:
        branch: The branch of a tournament it belongs to.
        step: Its number.
        move: What grew, in words.
        undone: Why it was taken back, if it was.
        scores: Right before it, right after it, and after the training that followed.
    """

    branch: str | None
    step: int | None
    move: str
    undone: str | None
    scores: tuple[Scores, Scores, Scores]


@dataclass(frozen=True, slots=True)
class Gaps:
    """Every growth of a run, and which score is meant: accuracy where there is one."""

    metric: Metric
    growths: tuple[Growth, ...]

    @property
    def values(self) -> list[float]:
        """Every score there is."""
        found = (
            score for growth in self.growths for scores in growth.scores for score in (scores.train, scores.selection)
        )
        return [score for score in found if score is not None]

    @property
    def branches(self) -> list[tuple[str | None, list[Growth]]]:
        """The growths of each branch, in order."""
        return by_branch(self.growths, lambda growth: growth.branch)

    @property
    def axis(self) -> Axis:
        """Of the scores."""
        return score_axis(self.metric, self.values)

    @property
    def meaning(self) -> str:
        """What the gap is."""
        return "train less selection" if self.metric == "accuracy" else "selection less train"


def gaps_of(log: RunLog) -> Gaps:
    """The scores around each growth of a run."""
    stages: list[tuple[Mapping[str, Metrics | None], ...]] = []
    for grown, following in zip_longest(log.growths, log.growths[1:]):
        # One training follows all growths of a step; it is told of the last.
        own = grown.trained if following is None or grown.trained is not following.trained else None
        later = {"train": own.train, "selection": own.selection} if own is not None else {}
        stages.append((grown.growth.before, grown.growth.after, later))
    metric = metric_of(stage.get(part) for found in stages for stage in found for part in _PARTS)
    growths: list[Growth] = []
    for grown, found in zip(log.growths, stages, strict=True):
        before, after, trained = (_scores(stage, metric) for stage in found)
        growths.append(
            Growth(
                branch=grown.growth.branch,
                step=grown.growth.step,
                move=what_grew(grown.growth.what),
                undone=None if grown.undone is None else grown.undone.reason or "?",
                scores=(before, after, trained),
            )
        )
    return Gaps(metric, tuple(growths))


_PARTS = ("train", "selection")


def _scores(found: Mapping[str, Metrics | None], metric: Metric) -> Scores:
    train, selection = ((found.get(part) or {}).get(metric) for part in _PARTS)
    gap = None
    if train is not None and selection is not None:
        gap = train - selection if metric == "accuracy" else selection - train
    return Scores(train, selection, gap)


# -- as text and as data ----------------------------------------------------------------------------------------------


def gaps_page(log: RunLog) -> Iterator[str | Grid]:
    """What `growir log --gaps` prints of a run."""
    found = gaps_of(log)
    if not found.values:
        yield f"{log.name}: {NONE}"
        yield from left_out(log)
        return
    yield (
        f"{log.name}: {found.metric} right before and right after each growth, and later, after the training that "
        f"followed it, on the training part (train) and the selection part (selection); gap: {found.meaning}"
    )
    yield _grid(found)
    both = [
        (before.gap, after.gap)
        for before, after, _ in (growth.scores for growth in found.growths)
        if before.gap is not None and after.gap is not None
    ]
    if both:
        narrower = sum(abs(after) < abs(before) for before, after in both)
        yield f"growing narrowed the gap in {narrower:,} of {len(both):,} growths"
    for branch, growths in found.branches:
        title = f"{cut(branch)}\n\n" if branch is not None else ""
        yield f"{title}{_plot(found, growths)}"
    yield from left_out(log)


def _grid(found: Gaps) -> Grid:
    """Three rows for each growth: the scores on both parts, and the gap between them."""
    form = ".2%" if found.metric == "accuracy" else ".4g"
    branched = any(growth.branch is not None for growth in found.growths)
    rows: list[tuple[str, ...]] = []
    for growth in found.growths:
        step = "-" if growth.step is None else cut(growth.step)
        names = ([cut(growth.branch or "-")] if branched else []) + [step]
        scores = [
            ("train", *(_cell(scores.train, form) for scores in growth.scores)),
            ("selection", *(_cell(scores.selection, form) for scores in growth.scores)),
            ("gap", *(_cell(scores.gap, f"+{form}") for scores in growth.scores)),
        ]
        # What grew goes on beside the rows that follow.
        for k, (words, part) in enumerate(zip_longest(fold(_move(growth), _WORDS), scores)):
            names = names if k == 0 else [""] * len(names)
            rows.append((*names, words or "", *(part or [""] * (1 + len(STAGES)))))
    headers = (*(["branch"] if branched else []), "step", "growth", "part", *_COLUMNS)
    return Grid(headers, tuple(rows), frozenset({"step", *_COLUMNS}))


def _cell(score: float | None, form: str) -> str:
    return "-" if score is None else format(score, form)


def step_axis(growths: Sequence[Growth]) -> Axis:
    """An axis with three places for each growth, one for each stage."""
    ticks = tuple((3.0 * k + 0.5, "?" if g.step is None else cut(g.step, 8)) for k, g in enumerate(growths))
    return Axis(-0.5, 3.0 * len(growths) - 0.5, ticks)


def _plot(found: Gaps, growths: Sequence[Growth]) -> str:
    canvas = Canvas(step_axis(growths), found.axis)
    for k, growth in enumerate(growths):
        for j, scores in enumerate(growth.scores):
            for score, letter in ((scores.train, "t"), (scores.selection, "s")):
                if score is not None:
                    canvas.put(3 * k + j, score, letter)
    below = [(3 * k + 0.5, "^" if growth.undone is None else "x") for k, growth in enumerate(growths)]
    legend = f"t train, s selection, {SEVERAL} both, ^ growth"
    legend += ", x growth taken back" if any(growth.undone is not None for growth in growths) else ""
    return f"{canvas.text('step', found.metric, below)}\n\n{legend}"


def gaps_picture(log: RunLog) -> str:
    """The scores as lines in an SVG file. Raises RunError if there is nothing to draw."""
    found = gaps_of(log)
    if not found.values:
        raise RunError(f"{log.name}: {NONE}; there is nothing to draw")
    panels = [
        (f"{found.metric} around each growth{'' if branch is None else f' of {cut(branch)}'}", *_panel(growths))
        for branch, growths in found.branches
    ]
    title = f"{log.name}: {found.metric} on the training and the selection part"
    return curves(title, found.metric, panels, found.axis)


def _panel(growths: Sequence[Growth]) -> tuple[Axis, list[Curve], list[Band]]:
    scores = [scores for growth in growths for scores in growth.scores]
    lines = [Curve("train", [s.train for s in scores]), Curve("selection", [s.selection for s in scores])]
    bands = [
        Band(3 * k, 3 * k + 1, f"step {'?' if g.step is None else cut(g.step)}: {_move(g)}", g.undone is not None)
        for k, g in enumerate(growths)
    ]
    return step_axis(growths), lines, bands


def _move(growth: Growth) -> str:
    return f"{growth.move}{'' if growth.undone is None else f', taken back ({cut(growth.undone)})'}"


def gaps_data(log: RunLog) -> dict[str, Any]:
    """The same as JSON values."""
    found = gaps_of(log)
    return {
        "name": log.started.name if log.started is not None else None,
        "metric": found.metric,
        "growths": [_row(growth) for growth in found.growths],
        "unreadable_lines": log.unreadable,
    }


def _row(growth: Growth) -> dict[str, Any]:
    scores = {
        stage: {"train": found.train, "selection": found.selection, "gap": found.gap}
        for stage, found in zip(STAGES, growth.scores, strict=True)
    }
    return {"branch": growth.branch, "step": growth.step, "move": growth.move, "undone": growth.undone, **scores}
