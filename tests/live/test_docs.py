"""The code in docs/live.md and docs/testing.md runs, one block after the other."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize("name", ["live.md", "testing.md"])
def test_code_runs(name: str, tmp_path: Path) -> None:
    text = (DOCS / name).read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL))
    assert code
    (tmp_path / "test_code.py").write_text(code, encoding="utf-8")
    short = "from hypothesis import settings\nsettings.register_profile('short', max_examples=20)\n"
    (tmp_path / "conftest.py").write_text(f"{short}settings.load_profile('short')\n", encoding="utf-8")
    # As pytest runs it: what is a test there is run too.
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", "--hypothesis-seed=1"]
    done = subprocess.run(
        [*command, "test_code.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode in (0, 5), done.stdout + done.stderr  # 5: no tests among it
    assert "error" not in done.stdout
