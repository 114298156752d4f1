"""docs/exactness.md: it lists every operator and pass, and what it says keeps the bounds."""

from __future__ import annotations

import re
from pathlib import Path

from growir.ops import OPS
from growir.passes import PASSES
from growir.testing import TOLERANCE
from growir.testing.laws import GRADIENT
from tests.exactness.__main__ import measure, power, table
from tests.samples import residual_convnet

PAGE = Path(__file__).parent.parent / "docs" / "exactness.md"
NEVER = {"remove_edge", "unstack", "discretise"}  # it promises an approximation


def rows() -> dict[str, list[str]]:
    lines = [line.split("|")[1:-1] for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    return {name.strip().strip("`"): [cell.strip().strip("`") for cell in cells] for name, *cells in lines}


def test_every_operator_and_pass_is_listed() -> None:
    found = rows()
    assert set(found) == {"op", *(op.kind() for op in OPS)}
    assert found["op"] == [*(kind.name for kind in PASSES if kind.name not in NEVER), "gradients"]


def test_the_bounds_hold() -> None:
    for name, cells in rows().items():
        if name != "op":
            *values, slope = cells
            assert all(float(error) <= TOLERANCE for cell in values for error in re.findall(r"[0-9e-]*[0-9]", cell))
            assert slope == "–" or float(slope) <= GRADIENT


def test_a_row_is_what_is_measured() -> None:
    worst: dict[tuple[str, str, bool, bool], float] = {}
    measure(residual_convnet(), worst)
    assert {"widen", "split", "prune", "add_edge"} <= {name for _, name, _, _ in worst}
    assert all(error <= (GRADIENT if gradient else TOLERANCE) for (_, _, _, gradient), error in worst.items())
    line = next(line for line in table(worst, 0).splitlines() if line.startswith("| `conv2d`"))
    assert power(worst["conv2d", "widen", False, False]) in line


def test_powers_are_rounded_up() -> None:
    assert [power(error) for error in (None, 0.0, 1e-9, 1.1e-9, 9.9e-10)] == ["–", "0", "1e-9", "1e-8", "1e-9"]
