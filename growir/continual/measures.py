"""What is said of learning one task after the other, from the accuracies of all tasks after each.

accuracy[t, k] is that of task k after task t was learned; NaN where it was not measured. With three tasks, rows being
times:

    .9  .5  .5
    .8  .9  .6        forgetting of the first .9 - .7, of the second .9 - .9; backward transfer -.1
    .7  .9  .9        forward transfer ((.5 - b) + (.6 - b)) / 2, b being what an untrained network has
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Measures:
    """Means over tasks.

    Attributes:
        accuracy: At the end.
        forgetting: The best that a task ever had before the end, less what it has at the end (Chaudhry et al. 2018).
        backward: What a task has at the end, less what it had when it was learned (Lopez-Paz and Ranzato 2017).
        forward: What a task has before it is learned, less what an untrained network has; None where that is unknown.
    """

    accuracy: float
    forgetting: float
    backward: float
    forward: float | None


def measures(accuracy: NDArray[np.float64], untrained: NDArray[np.float64] | None = None) -> Measures:
    """All of them.

    Args:
        accuracy: (tasks, tasks), of the column's task after the row's.
        untrained: (tasks,) that networks have before any training.

    Raises:
        ValueError: It is no square of at least one task, or what was just learned was not measured.
    """
    count = len(accuracy)
    if accuracy.shape != (count, count) or not count:
        raise ValueError(f"a square of accuracies is needed, tasks by tasks, but it is {accuracy.shape}")
    if np.isnan(np.diag(accuracy)).any() or np.isnan(accuracy[-1]).any():
        raise ValueError("each task is measured when it was learned and at the end")
    last, earlier = accuracy[-1], range(count - 1)
    best = [np.nanmax(accuracy[k:-1, k]) for k in earlier]
    forward = None
    if untrained is not None and count > 1 and not np.isnan(np.diag(accuracy, 1)).any():
        forward = float(np.mean(np.diag(accuracy, 1) - untrained[1:]))
    return Measures(
        float(last.mean()),
        float(np.mean([best[k] - last[k] for k in earlier])) if count > 1 else 0.0,
        float(np.mean([last[k] - accuracy[k, k] for k in earlier])) if count > 1 else 0.0,
        forward,
    )
