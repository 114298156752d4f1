"""Objects of other packages by where they stand, "package.module:name", and where an object stands."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from growir.errors import RunError, cut
from growir.nearest import suggestion


def is_named(text: str) -> bool:
    """Whether a text may name an object, as no file's name does."""
    module, colon, name = text.partition(":")
    parts = [*module.split("."), *name.split(".")]
    return bool(colon) and all(part.isidentifier() for part in parts)


def named(text: str, what: str) -> object:
    """What stands at "package.module:name". Raises RunError, which begins with `what`, if nothing does."""
    module, _, name = text.partition(":")
    try:
        found: object = import_module(module)
    except (ImportError, ValueError) as error:
        raise RunError(
            f'{what}: {cut(text)} cannot be imported ({cut(error, 200)}); write it as "package.module:name", and have '
            "the module where Python finds it, beside the run file say"
        ) from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise RunError(f"{what}: {cut(module)} has no {cut(part)!r}.{suggestion(part, vars(found))}")
        found = getattr(found, part)
    return found


def name_of(given: object) -> str:
    """Where an object, or its class, stands: a run file that has it can be gone on with where it is importable."""
    kind: Any = given if hasattr(given, "__qualname__") else type(given)
    return f"{kind.__module__}:{kind.__qualname__}"


@contextmanager
def importing_from(*folders: Path) -> Generator[None]:
    """Find modules in some folders, after those that are installed."""
    added = [str(folder.absolute()) for folder in folders if str(folder.absolute()) not in sys.path]
    sys.path.extend(added)
    try:
        yield
    finally:
        for folder in added:
            sys.path.remove(folder)
