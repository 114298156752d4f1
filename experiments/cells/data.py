"""CIFAR-10 as the run files of this folder read it: `[data] path = "experiments.cells.data:augmented"`.

The archive is the one that GROWIR_CIFAR names, with x_train, y_train, x_test and y_test.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from growir.data.parts import Data
from growir.errors import DataError

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of the training images, by colour
MARGIN, HOLE = 4, 16  # pixels by which a crop moves, and the side of what is cut out


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """Images with classes, cropped, mirrored and cut as DARTS trains on them, or as they are."""

    def __init__(self, x: NDArray[np.uint8], y: NDArray[Any], *, changed: bool, cutout: bool = True) -> None:
        self._x, self._y = torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1))), y.ravel().astype(np.int64)
        self._changed, self._cutout = changed, cutout
        self._mean, self._std = (torch.tensor(each).view(3, 1, 1) for each in (MEAN, STD))

    def __len__(self) -> int:
        return len(self._y)

    def __getitem__(self, k: int) -> tuple[torch.Tensor, int]:
        image = (self._x[k].float() / 255 - self._mean) / self._std
        if self._changed:
            side = image.shape[-1]
            wide = torch.nn.functional.pad(image, (MARGIN,) * 4)
            top, left = (int(torch.randint(2 * MARGIN + 1, ())) for _ in range(2))
            image = wide[:, top : top + side, left : left + side]
            image = image.flip(-1) if torch.rand(()) < 0.5 else image.clone()
            if self._cutout:
                y, x = (int(torch.randint(side, ())) for _ in range(2))
                half = HOLE // 2
                image[:, max(0, y - half) : y + half, max(0, x - half) : x + half] = 0
        return image, int(self._y[k])


def augmented() -> Data:
    """All of CIFAR-10, the training part cropped, mirrored and cut."""
    with np.load(archive()) as found:
        x, y, x_test, y_test = (found[key] for key in ("x_train", "y_train", "x_test", "y_test"))
    test = Pictures(x_test, y_test, changed=False)
    return Data.from_dataset(Pictures(x, y, changed=True), test=test)


def archive() -> Path:
    """Where the archive is. Raises DataError where nobody says."""
    given = os.environ.get("GROWIR_CIFAR")
    if not given or not Path(given).is_file():
        raise DataError(f"GROWIR_CIFAR names the archive of CIFAR-10, an .npz file, but it is {given or 'not set'}")
    return Path(given)


def small(seed: int, train: int, test: int) -> dict[str, NDArray[Any]]:
    """So many images at 16 x 16 pixels, others with each seed, but for those that are tested on."""
    from experiments.networks import cifar

    x_train, y_train = cifar(archive(), "train", seed * train, train, 16)
    x_test, y_test = cifar(archive(), "test", 0, test, 16)
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
