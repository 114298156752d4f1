"""Files that are written: only over what growir wrote, and those that belong together swapped in as one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from growir.errors import ExportError


def replaceable(path: Path, ours: Callable[[Path], bool]) -> None:
    """Refuse to write where something lies that growir did not write.

    Args:
        path: The file to be written.
        ours: Whether growir wrote the file that is there.

    Raises:
        ExportError: It did not, or the path is a folder, or lies in none.
    """
    if path.is_dir():
        raise ExportError(f"{path}: is a folder; give the name of a file")
    if not path.parent.is_dir():
        if path.parent.exists():
            raise ExportError(f"{path}: {path.parent} is a file, so nothing can lie in it; choose another name")
        raise ExportError(f"{path}: the folder {path.parent} does not exist")
    if path.exists() and not ours(path):
        raise ExportError(f"{path}: is there already and was not written by growir; choose another name")


def write_parts(path: Path, parts: Iterable[bytes]) -> None:
    """Write a file and have the disk hold it. Raises OSError."""
    with path.open("wb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())


def swap_in(staging: Path, folder: Path, names: Sequence[str]) -> None:
    """Move files from a staging folder on the same disk into their place: all of them, or on an error none.

    The first is the one that readers open, the others are what it refers to. Raises OSError.
    """
    for name in names:
        if (folder / name).is_dir():
            raise IsADirectoryError(None, "a folder of that name is in the way", str(folder / name))
    if len(names) == 1:
        os.replace(staging / names[0], folder / names[0])
        return
    # Several files cannot be replaced in one step. The old ones go first: a crash in between must not leave an old
    # file that reads another's new one.
    aside = staging / "aside"
    aside.mkdir()
    arrived: list[str] = []
    try:
        for name in names:
            if (folder / name).exists():
                os.replace(folder / name, aside / name)
        for name in reversed(names):  # the first last: once it is there, all is
            os.replace(staging / name, folder / name)
            arrived.append(name)
    except BaseException:
        for name in arrived:
            (folder / name).unlink()
        for old in aside.iterdir():
            os.replace(old, folder / old.name)
        raise
