"""Networks and data of GROWN's and Firefly's settings on CIFAR-100, for the run files beside this one.

    growir continual experiments/continual/cifar100_split.toml
    growir continual experiments/continual/cifar100_superclass.toml

run where `cifar100.npz` lies, an archive of x_train (n, 32, 32, 3) and x_test of bytes with y_train and y_test, the
fine labels 0 to 99. The folder that holds `experiments` must be the one where the command runs, or on PYTHONPATH.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import growir
from experiments.continual.nets import lenet, vgg16
from growir.continual import Experience, by_classes
from growir.network import Network

ARCHIVE = Path("cifar100.npz")
SHAPE = (3, 32, 32)
MEAN, STD = (129.3, 124.1, 112.4), (68.2, 65.4, 70.4)  # of each channel over the training images
# The superclass of each class, in the order of the labels.
COARSE: Sequence[int] = (
    *(4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7),
    *(6, 13, 15, 3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10),
    *(16, 4, 17, 4, 2, 0, 17, 4, 18, 17, 10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16),
    *(12, 9, 13, 15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13),
)


def split() -> list[Experience]:
    """Ten tasks of ten classes, in the order of the labels."""
    return _tasks([range(k, k + 10) for k in range(0, 100, 10)], [f"classes {k} to {k + 9}" for k in range(0, 100, 10)])


def superclasses() -> list[Experience]:
    """Twenty tasks, each of the five classes of a superclass."""
    groups = [[label for label, coarse in enumerate(COARSE) if coarse == k] for k in range(20)]
    return _tasks(groups, [f"superclass {k}" for k in range(20)])


def lenet_half() -> Network:
    """LeNet with half of the weights of 20-50-800-500: what GROWN begins from where the whole counts as 1."""
    return _network(lenet(SHAPE, 10, (14, 35, 567, 354)))


def lenet_whole() -> Network:
    """LeNet with 20-50-800-500 channels and neurons."""
    return _network(lenet(SHAPE, 10, (20, 50, 800, 500)))


def vgg16_third() -> Network:
    """VGG16-BN with 35 channels for 64, .3 of its weights: what GROWN begins from where the whole counts as 1."""
    return _network(vgg16(SHAPE, 5, 35))


def vgg16_whole() -> Network:
    """VGG16-BN with 64 channels in its first layers, without fully connected ones but the head."""
    return _network(vgg16(SHAPE, 5, 64))


def _network(module: torch.nn.Module) -> Network:
    return growir.from_torch(module, torch.zeros(2, *SHAPE))


def _tasks(groups: Sequence[Sequence[int]], names: Sequence[str]) -> list[Experience]:
    with np.load(ARCHIVE) as archive:
        parts = [archive[name] for name in ("x_train", "y_train", "x_test", "y_test")]
    x, x_test = (_maps(each) for each in (parts[0], parts[2]))
    y, y_test = (each.ravel().astype(np.int64) for each in (parts[1], parts[3]))
    return by_classes(x, y, groups, test=(x_test, y_test), names=names)


def _maps(x: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Images of bytes with the channels in front, each of mean 0 and variance 1."""
    found = (x - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return np.ascontiguousarray(np.moveaxis(found, -1, 1).astype(np.float32))
