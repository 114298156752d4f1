"""docs/passes.md lists every pass, and its examples are passes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from growir.passes import PASSES, pass_from_data

TEXT = (Path(__file__).parents[2] / "docs" / "passes.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)


def test_every_pass_is_listed() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE)) == {kind.name for kind in PASSES}


@pytest.mark.parametrize("text", EXAMPLES)
def test_examples_are_passes(text: str) -> None:
    data = json.loads(text)
    assert pass_from_data(data).name == data["pass"]
