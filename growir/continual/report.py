"""What is told of a sequence: a table of accuracies, sizes and new bytes by task, and the same as a heat map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from growir.columns import Grid, wrapped
from growir.continual.keeping import Kept
from growir.continual.measures import measures
from growir.errors import cut

SHOWN = 10  # tasks of which a table has columns; of more it has what they come to
CELL, LEFT, TOP = 44, 150, 54  # of the heat map, in pixels
LOW, HIGH = (253, 231, 227), (21, 94, 117)  # its colours, at the lowest accuracy and at 1
MEASURES = (
    "Forgetting is the best a task ever had before the end, less what it has at the end. Backward transfer is what a "
    "task has at the end, less what it had when it was learned. Forward transfer is what it has before it is learned, "
    "less what an untrained network has. Means over tasks, in points."
)


def accuracies(state: Kept) -> NDArray[np.float64]:
    """(done, tasks), NaN where nothing was measured."""
    return np.array([[np.nan if x is None else x for x in row] for row in state.accuracy], dtype=float)


def task_line(state: Kept, width: int) -> str:
    """What is said when a task is done.

    Args:
        state: After it.
        width: Columns that names take.
    """
    t = len(state.names) - 1
    note = f"; {state.notes[t]}" if state.notes[t:] and state.notes[t] else ""
    own, mean = accuracies(state)[t, t], float(np.mean(accuracies(state)[t, : t + 1]))
    return (
        f"{cut(state.names[t], 24):<{width}}  {_percent(own):>6} of it, {_percent(mean):>6} of all so far, "
        f"{state.parameters[t]:,} numbers, {new_bytes(state)[t]:+,} bytes"
        f"{note}"
    )


def new_bytes(state: Kept) -> list[int]:
    """What each task has added to the bytes that are kept."""
    return [int(x) for x in np.diff([0, *state.sizes])]


def page(state: Kept, method: str) -> Iterator[str | Grid]:
    """What is told at the end.

    Args:
        state: With one task or more.
        method: By which it was learned.
    """
    table, done = accuracies(state), len(state.names)
    several = "s" if done > 1 else ""
    yield f"{done} task{several} by {method}: accuracy on test data in percent, after each task"
    shown = range(done if done <= SHOWN else 0)
    heads = ("after", *(cut(state.names[k], 12) for k in shown), "mean", "numbers", "bytes", "new bytes")
    rows: list[tuple[str, ...]] = []
    for t, name in enumerate(state.names):
        figures = [_percent(table[t, k]) if k <= t else "" for k in shown]
        mean = _percent(float(np.mean(table[t, : t + 1])))
        sizes = (f"{state.parameters[t]:,}", f"{state.sizes[t]:,}", f"{new_bytes(state)[t]:,}")
        rows.append((cut(name, 24), *figures, mean, *sizes))
    yield Grid(heads, tuple(rows), numeric=frozenset(heads[1:]))
    untrained = np.array([np.nan if x is None else x for x in state.untrained[:done]])
    found = measures(table[:, :done], untrained)
    forward = "unknown" if found.forward is None else _points(found.forward)
    yield (
        f"accuracy {_percent(found.accuracy)}, forgetting {_points(found.forgetting)}, backward transfer "
        f"{_points(found.backward)}, forward transfer {forward}"
    )
    missed = [f"{cut(name, 24)}: {note}" for name, note in zip(state.names, state.notes, strict=False) if note]
    if missed:
        yield "\n".join(missed)
    yield wrapped(MEASURES)


def heat_map(state: Kept, title: str) -> str:
    """The accuracies as an SVG picture: a row for each time, a column for each task.

    Args:
        state: With one task or more.
        title: Of the picture.
    """
    table, done = accuracies(state), len(state.names)
    width, height = LEFT + CELL * done + 12, TOP + CELL * done + 12
    least = float(np.nanmin(table[:, :done]))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="ui-monospace, monospace" font-size="12" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="8" y="18" fill="#0f172a">{escape(cut(title, 60))}</text>',
        f'<text x="8" y="{TOP - 8}" fill="#475569">after / of</text>',
    ]
    for k, name in enumerate(state.names):
        across, down = LEFT + CELL * k + CELL / 2, TOP + CELL * k + CELL / 2 + 4
        parts.append(
            f'<text x="{across}" y="{TOP - 8}" text-anchor="middle" fill="#475569">{escape(_short(name))}</text>'
        )
        parts.append(f'<text x="8" y="{down}" fill="#475569">{escape(cut(name, 18))}</text>')
    for t, row in enumerate(table):
        parts += [_cell(t, k, float(x), least) for k, x in enumerate(row[:done]) if not np.isnan(x)]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _cell(t: int, k: int, value: float, least: float) -> str:
    """A square with its number; of a task that was not learned yet the number stands alone."""
    x, y = LEFT + CELL * k, TOP + CELL * t
    share = (value - least) / (1 - least) if least < 1 else 1.0
    colour = ", ".join(str(round(low + share * (high - low))) for low, high in zip(LOW, HIGH, strict=True))
    ink = "#ffffff" if share > 0.5 and k <= t else "#0f172a"
    text = f'<text x="{x + CELL / 2}" y="{y + CELL / 2 + 4}" text-anchor="middle" fill="{ink}">{100 * value:.0f}</text>'
    if k > t:
        return text
    return f'<rect x="{x}" y="{y}" width="{CELL - 2}" height="{CELL - 2}" rx="3" fill="rgb({colour})"/>{text}'


def _short(name: str) -> str:
    return name if len(name) <= 6 else f"{name[:5]}…"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


def summary(state: Kept, method: str) -> dict[str, object]:
    """The figures as JSON values."""
    done = len(state.names)
    found = measures(
        accuracies(state)[:, :done], np.array([np.nan if x is None else x for x in state.untrained[:done]])
    )
    return {
        "method": method,
        "tasks": list(state.names),
        "accuracy": [list(row) for row in state.accuracy],
        "untrained": list(state.untrained),
        "parameters": list(state.parameters),
        "bytes": list(state.sizes),
        "new_bytes": new_bytes(state),
        "notes": list(state.notes),
        "accuracy_at_the_end": found.accuracy,
        "forgetting": found.forgetting,
        "backward_transfer": found.backward,
        "forward_transfer": found.forward,
    }


def names_width(names: Sequence[str]) -> int:
    """Columns for the longest name, within reason."""
    return min(24, max(map(len, names), default=0))
