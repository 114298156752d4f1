"""Running the command line inside the test's process, and as a process of its own."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from growir.cli.app import app

GOLDEN = Path(__file__).resolve().parent.parent / "golden"


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


def growir(*args: object) -> Done:
    """Run a command in this process; what is no user's mistake is raised."""
    result = CliRunner().invoke(app, [str(arg) for arg in args], catch_exceptions=False, prog_name="growir")
    return Done(result.exit_code, result.stdout, result.stderr)


def flat(text: str) -> str:
    """A text without the ends of its lines, so that words are found wherever they were folded."""
    return " ".join(text.split())


def process(*args: object, code: str = "") -> Done:
    """Run a command as a process, or with `code` in front of it or in its place."""
    start = f"import sys; sys.argv[0] = 'growir'\nfrom growir.cli import main\n{code or 'main()'}"
    result = subprocess.run(
        [sys.executable, "-c", start, *map(str, args)], capture_output=True, text=True, timeout=120, check=False
    )
    return Done(result.returncode, result.stdout, result.stderr)
