"""What the plots of a run share: which score is meant, how an axis shows it, and what belongs to which branch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Literal, TypeVar

from growir.plot import Axis, linear_axis
from growir.runs.values import Metrics

Metric = Literal["accuracy", "loss"]
T = TypeVar("T")


def metric_of(scores: Iterable[Metrics | None]) -> Metric:
    """Accuracy where any score has one, else the loss."""
    return "accuracy" if any(found and found.get("accuracy") is not None for found in scores) else "loss"


def score_axis(metric: Metric, scores: Iterable[float]) -> Axis:
    """An axis of scores: per cent of what is correct, or losses."""
    return linear_axis(scores, lambda score: f"{100 * score:.4g}%" if metric == "accuracy" else f"{score:.4g}")


def by_branch(rows: Iterable[T], branch: Callable[[T], str | None]) -> list[tuple[str | None, list[T]]]:
    """The rows of each branch in order; branches in the order of their first rows."""
    found = list(rows)
    order = {name: k for k, name in enumerate(dict.fromkeys(map(branch, found)))}
    found.sort(key=lambda row: order[branch(row)])
    return [(name, list(group)) for name, group in groupby(found, key=branch)]
