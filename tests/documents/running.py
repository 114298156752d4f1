"""Run the steps of one page, given as JSON in a file: by itself, where no more is installed than a reader has.

Each step is {"kind": "python" | "shell" | "file", "code": ..., "line": ..., "name": ...}. Python goes on in one
namespace, or for a page of programs in a new one each time; test functions among it are called at the end.
"""

from __future__ import annotations

import json
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

# As `bash -e`, but that `growir diff` of what differs is an answer and no failure.
SHELL = """trap 'code=$?; case "$code $BASH_COMMAND" in "1 growir diff "*) ;; *) exit $code ;; esac' ERR
"""


def fresh() -> types.ModuleType:
    """A module as a script has it: what is defined in it can be found again by its name."""
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    return module


def run(page: str, steps: list[dict[str, Any]], alone: bool) -> None:
    module = fresh()
    tests: dict[str, Callable[[], None]] = {}
    for step in steps:
        where = f"{page}:{step['line']}"
        print(f"-- {where}", flush=True)
        if step["kind"] == "file":
            Path(step["name"]).write_text(step["code"], encoding="utf-8")
        elif step["kind"] == "shell":
            done = subprocess.run(["bash", "-c", SHELL + step["code"]], check=False)
            if done.returncode:
                sys.exit(f"{where}: exit code {done.returncode} of\n{step['code']}")
        else:
            module = fresh() if alone else module
            # Empty lines above it, so that a traceback and inspect.getsource find the lines of the page.
            exec(compile("\n" * (step["line"] - 1) + step["code"], page, "exec"), module.__dict__)
            tests |= {name: value for name, value in vars(module).items() if name.startswith("test_")}
    for name, test in tests.items():
        print(f"-- {page}: {name}", flush=True)
        test()


def few_examples() -> None:
    """Let the laws of a page draw a few graphs: that they hold is for other tests to say."""
    from hypothesis import settings

    settings.register_profile("short", max_examples=10, deadline=None, derandomize=True, database=None)
    settings.load_profile("short")


if __name__ == "__main__":
    plan = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    sys.path[0] = ""  # as where a reader tries the page: modules are looked for in the folder
    if plan["tests"]:
        few_examples()
    run(plan["page"], plan["steps"], plan["alone"])
