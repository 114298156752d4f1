"""docs/passes.md lists every pass."""

from __future__ import annotations

import re
from pathlib import Path

from growir.passes import PASSES

TEXT = (Path(__file__).parents[2] / "docs" / "passes.md").read_text(encoding="utf-8")


def test_every_pass_is_listed() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE)) == {kind.name for kind in PASSES}
