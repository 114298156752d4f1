"""Break the code on purpose, one small change at a time, and require that the named test fails.

A mutant is a record in mutants.toml: a file, the text to replace, what replaces it, the test that must notice. Each is
applied to a copy of the tree, never to the tree itself. Unbroken, all the named tests must pass.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PARTS = ("growir", "passes", "backends", "schemas", "tests", "pyproject.toml", "docs", "README.md", "CONTRIBUTING.md")


@dataclass(frozen=True)
class Mutant:
    """One way to be wrong."""

    name: str
    file: str
    old: str
    new: str
    test: str


def read_mutants() -> list[Mutant]:
    """The records, each checked against the code it changes."""
    records = tomllib.loads((Path(__file__).parent / "mutants.toml").read_text(encoding="utf-8"))
    mutants = [Mutant(name=name, **record) for name, record in records.items()]
    stale = [m.name for m in mutants if (ROOT / m.file).read_text(encoding="utf-8").count(m.old) != 1]
    if stale:
        sys.exit(f"the text to replace no longer stands exactly once in its file: {', '.join(stale)}")
    return mutants


def run(tree: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    """Run tests on a copy of the code, which comes before any installed one."""
    environment = {
        **os.environ,
        "GROWIR_HYPOTHESIS_PROFILE": "mutants",
        "PYTHONPATH": str(tree),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)


def main() -> int:
    """Run all mutants, or those named as arguments; 1 if any survives."""
    mutants = read_mutants()
    unknown = set(sys.argv[1:]) - {m.name for m in mutants}
    if unknown:
        sys.exit(f"there is no mutant {', '.join(sorted(unknown))}; mutants.toml has them by name")
    mutants = [m for m in mutants if m.name in sys.argv[1:] or not sys.argv[1:]]
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, tree / part, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, tree / part)
        whole = run(tree, *dict.fromkeys(m.test for m in mutants))
        if whole.returncode:
            print(whole.stdout[-4000:])
            print("the named tests fail on the unbroken code")
            return 1
        survivors = 0
        for mutant in mutants:
            path = tree / mutant.file
            sound = path.read_text(encoding="utf-8")
            path.write_text(sound.replace(mutant.old, mutant.new), encoding="utf-8")
            started = time.monotonic()
            done = run(tree, mutant.test)
            path.write_text(sound, encoding="utf-8")
            # 1 is a failed test; a broken import or an unknown test proves nothing.
            killed = done.returncode == 1
            survivors += not killed
            verdict = "killed" if killed else f"SURVIVED (pytest exits {done.returncode})"
            print(f"{mutant.name:34} {verdict:10} {time.monotonic() - started:5.1f} s  {mutant.test}", flush=True)
    print(f"{len(mutants) - survivors} of {len(mutants)} mutants killed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
