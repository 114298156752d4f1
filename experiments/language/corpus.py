"""Python's own sources as text: ASCII files, bytes as tokens, split so that no file or package is in both parts."""

from __future__ import annotations

import hashlib
import os
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

VOCABULARY = 128
LEFT_OUT = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test", "lib2to3", "__pycache__"})
SMALLEST, LARGEST = 500, 200_000  # bytes of a file
HELD_OUT = 10  # one part in so many


@dataclass(frozen=True, slots=True, eq=False)
class Corpus:
    """Text to learn and text to be judged by.

    Attributes:
        train: Tokens, uint8.
        held: Tokens that no training sees.
        files: How many files each is of.
    """

    train: torch.Tensor
    held: torch.Tensor
    files: tuple[int, int]

    def batch(self, size: int, length: int, generator: torch.Generator) -> torch.Tensor:
        """Windows of the training text with their next tokens, (size, length + 1)."""
        at = torch.randint(0, len(self.train) - length, (size, 1), generator=generator)
        return self.train[at + torch.arange(length + 1)].long()

    def judged(self, size: int, length: int, batches: int) -> list[torch.Tensor]:
        """The same windows of the held-out text each time, spread over all of it."""
        at = torch.linspace(0, len(self.held) - length - 1, size * batches).long()[:, None]
        return list(torch.split(self.held[at + torch.arange(length + 1)].long(), size))


def corpus(*, packages: bool = False) -> Corpus:
    """The standard library's sources, split by file, or those of all installed packages too, split by package.

    Raises:
        RuntimeError: There are too few sources here to learn from.
    """
    paths = sysconfig.get_paths()
    roots = [Path(paths["stdlib"]), *([Path(paths["purelib"])] if packages else [])]
    parts: tuple[list[bytes], list[bytes]] = ([], [])
    for root in roots:
        for path in sources(root):
            raw = path.read_bytes()
            if SMALLEST <= len(raw) <= LARGEST and max(raw) < VOCABULARY:
                name = path.relative_to(root)
                parts[is_held(name.parts[0] if packages else name.as_posix())].append(raw)
    train, held = (torch.from_numpy(np.frombuffer(b"\0".join(part), np.uint8).copy()) for part in parts)
    if min(len(train), len(held)) < LARGEST:
        raise RuntimeError(f"only {len(train) + len(held):,} bytes of Python sources lie in {roots[0]}")
    return Corpus(train, held, (len(parts[0]), len(parts[1])))


def sources(root: Path) -> list[Path]:
    """The Python files below a folder, in one order everywhere."""
    found: list[Path] = []
    for folder, names, files in os.walk(root):
        names[:] = sorted(name for name in names if name not in LEFT_OUT)
        found += [Path(folder) / file for file in sorted(files) if file.endswith(".py")]
    return found


def is_held(name: str) -> bool:
    """Whether what goes by a name is held out."""
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % HELD_OUT == 0
