"""The tables of the language experiment: losses at each budget, and what growth saves of the compute.

    python -m experiments.language.table runs/language.jsonl

*Saved* is 1 - C / B, where B is the budget at which another way has the loss that growth has at C: from scratch, and
the best of the sizes that never grow at each budget. Between budgets losses are interpolated on the logarithm; what
would lie beyond the budgets measured is marked, since nobody has seen it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from experiments.language.run import TUNING
from experiments.language.training import ARMS, NEVER
from experiments.lines import Line
from experiments.tables import grid, print_table, spread

Found = Mapping[tuple[str, float, int], Line]  # by arm, budget and seed
Curve = Sequence[tuple[float, float]]  # (budget, loss), budgets rising


def table(lines: Sequence[Line]) -> Iterator[str]:
    """Everything that there is to say of the lines, in Markdown."""
    found = {(line["arm"], line["units"], line["seed"]): line for line in lines if line["seed"] != TUNING}
    budgets = sorted({units for _, units, _ in found})
    yield "### Held-out loss in nats a byte, mean ± standard deviation"
    yield ""
    yield from grid(("arm", "parameters", *(f"{units:g} C" for units in budgets)), _losses(found, budgets))
    yield ""
    yield "### Compute saved, %, mean ± standard deviation over seeds"
    yield ""
    yield from grid(("arm", "budget", "against scratch", "against the best that never grew"), _savings(found, budgets))
    yield ""
    yield "### CPU seconds, tokens, and the loss around growth"
    yield ""
    yield from grid(("arm", "budget", "CPU s", "million tokens", "before growth", "after"), _rest(found, budgets))


def _of(found: Found, arm: str, units: float) -> list[Line]:
    return [line for key, line in sorted(found.items()) if key[:2] == (arm, units)]


def _losses(found: Found, budgets: Sequence[float]) -> Iterator[list[str]]:
    for arm in ARMS:
        mine = [_of(found, arm, units) for units in budgets]
        if any(mine):
            parameters = next(line["parameters"] for lines in mine for line in lines)
            yield [arm, f"{parameters:,}", *(spread([line["loss"] for line in lines], 4) for lines in mine)]


def _savings(found: Found, budgets: Sequence[float]) -> Iterator[list[str]]:
    for arm in (arm for arm in ARMS if arm not in NEVER):
        for units in budgets:
            lines = _of(found, arm, units)
            if lines:
                ways = (("scratch",), NEVER)
                yield [arm, f"{units:g} C", *(_saved(found, names, units, lines) for names in ways)]


def _saved(found: Found, names: Sequence[str], units: float, lines: Sequence[Line]) -> str:
    each = [saving(curve(found, names, line["seed"]), units, line["loss"]) for line in lines]
    told = [one for one in each if one is not None]
    beyond = "" if all(inside for _, inside in told) else " (beyond what was measured)"
    return spread([100 * share for share, _ in told], 0) + beyond


def _rest(found: Found, budgets: Sequence[float]) -> Iterator[list[str]]:
    for arm in ARMS:
        for units in budgets:
            lines = _of(found, arm, units)
            if lines:
                cpu = statistics.fmean(line["cpu"] for line in lines)
                tokens = statistics.fmean(line["tokens"] for line in lines) / 1e6
                around = [[line[name] for line in lines if name in line] for name in ("before", "after")]
                yield [arm, f"{units:g} C", f"{cpu:.0f}", f"{tokens:.2f}", *(spread(values, 3) for values in around)]


def curve(found: Found, arms: Sequence[str], seed: int) -> Curve:
    """The lowest loss that a seed has of some arms at each budget."""
    best: dict[float, float] = {}
    for (arm, units, of), line in found.items():
        if arm in arms and of == seed:
            best[units] = min(best.get(units, math.inf), line["loss"])
    return sorted(best.items())


def saving(other: Curve, units: float, loss: float) -> tuple[float, bool] | None:
    """1 - C / B, and whether B lies within the budgets measured; None where these do not say.

    Args:
        other: What the other way has at which budget.
        units: C.
        loss: What growth has at C.
    """
    at = [(math.log(budget), value) for budget, value in other]
    if len(at) < 2:
        return None
    within = [pair for pair in pairwise(at) if pair[0][1] >= loss >= pair[1][1]]
    nearest = (at[0], at[1]) if loss > at[0][1] else (at[-2], at[-1])
    left, right = within[0] if within else nearest
    slope = (right[1] - left[1]) / (right[0] - left[0])
    if not slope < 0:
        return None
    return 1 - units / math.exp(left[0] + (loss - left[1]) / slope), bool(within)


def main(given: Sequence[str] | None = None) -> None:
    """Print the tables of a file of lines."""
    print_table(__doc__, table, given)


if __name__ == "__main__":
    main()
