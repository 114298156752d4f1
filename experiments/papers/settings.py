"""Seeds and data of the papers' settings, for the run files beside this one.

    growir grow experiments/papers/firefly_vgg19.toml

run where `cifar10.npz` lies, an archive of x_train (n, 32, 32, 3) and x_test of bytes with y_train and y_test. The
folder that holds `experiments` must be the one where the command runs, or on PYTHONPATH. Each of these runs takes hours
on a GPU ([train] device = "cuda"); `--set train.device=cpu` and fewer epochs show on a CPU that they run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

import growir
from growir.data.parts import Data
from growir.data.shuffling import generator
from growir.families import network as family_network
from growir.graph import Graph, Input, Node
from growir.network import Network
from growir.ops import Gaussian, Linear
from growir.verify import verify

ARCHIVE = Path("cifar10.npz")
STAGES = (2, 2, 4, 4, 4)  # convolutions of VGG-19 before each pool
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)  # of MobileNetV1's depthwise convolutions, for images of 32 pixels
SELECTS = 5000  # training images that select, and are not trained on before the end


def vgg19(width: int = 16) -> Network:
    """VGG-19 for CIFAR with batch norm and so many channels in every convolution."""
    layers: list[nn.Module] = []
    before = 3
    for count in STAGES:
        for _ in range(count):
            layers += [*_conv(before, width), nn.BatchNorm2d(width), nn.ReLU()]
            before = width
        layers.append(nn.MaxPool2d(2))
    return _imported(layers, width)


def mobilenet_v1(width: int = 32) -> Network:
    """MobileNetV1 for CIFAR with so many channels in every convolution."""
    layers: list[nn.Module] = [*_conv(3, width), nn.BatchNorm2d(width), nn.ReLU()]
    for stride in STRIDES:
        layers += [*_conv(width, width, stride, groups=width), nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return _imported(layers, width)


def _conv(before: int, width: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(before, width, 3, stride, 1, groups=groups, bias=False)]


def _imported(layers: Sequence[nn.Module], width: int) -> Network:
    torch.manual_seed(0)
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))
    return growir.from_torch(model, torch.zeros(2, 3, 32, 32))


def basic3() -> Graph:
    """AutoGrow's seed Basic3ResNet-1-1-1 for CIFAR."""
    return family_network("Basic3ResNet", (3, 32, 32), 10)


def plain3() -> Graph:
    """AutoGrow's seed Plain3Net-1-1-1 for CIFAR."""
    return family_network("Plain3Net", (3, 32, 32), 10)


class Images(Dataset[tuple[torch.Tensor, int]]):
    """Standardised images; for training flipped at random and shifted by up to four pixels."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, *, augment: bool) -> None:
        mean, std = np.array([0.4914, 0.4822, 0.4465]), np.array([0.2470, 0.2435, 0.2616])
        x = ((images / 255 - mean) / std).transpose(0, 3, 1, 2)
        self.x, self.y, self.augment = torch.from_numpy(np.ascontiguousarray(x, np.float32)), labels, augment

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, k: int) -> tuple[torch.Tensor, int]:
        image = self.x[k]
        if self.augment:
            if torch.rand(()) < 0.5:
                image = image.flip(-1)
            top, left = torch.randint(0, 9, (2,)).tolist()
            image = nn.functional.pad(image, (4, 4, 4, 4))[:, top : top + 32, left : left + 32]
        return image, int(self.y[k])


def cifar10() -> Data:
    """The archive's images: the first are trained on, the last of the training part select."""
    with np.load(ARCHIVE) as archive:
        arrays = {name: archive[name] for name in ("x_train", "y_train", "x_test", "y_test")}
    cut = max(len(arrays["x_train"]) - SELECTS, len(arrays["x_train"]) // 2)
    parts = [
        Images(arrays["x_train"][some], arrays["y_train"][some], augment=some.stop is not None)
        for some in (slice(cut), slice(cut, None))
    ]
    test = Images(arrays["x_test"], arrays["y_test"], augment=False)
    return Data.from_dataset(parts[0], select=parts[1], test=test)


# -- Firefly's toy ----------------------------------------------------------------------------------------------------


def rbf() -> Graph:
    """f(x) = w exp(-(a x + b)^2 / 2), of one unit."""
    nodes = (
        Node(name="units", op=Linear(out_features=1), inputs=("x",)),
        Node(name="rbf", op=Gaussian(), inputs=("units",)),
        Node(name="out", op=Linear(out_features=1, bias=False), inputs=("rbf",)),
    )
    return verify(Graph(inputs=(Input(name="x", shape=("N", 1)),), nodes=nodes, outputs=("out",)))


def teacher() -> Data:
    """What fifteen such units give at 1000 points."""
    draws = generator(0, 1)
    x = torch.linspace(-5, 5, 1000)[:, None]
    a, b, w = torch.randn(15, generator=draws), 3 * torch.randn(15, generator=draws), torch.randn(15, generator=draws)
    y = torch.exp(-0.5 * (a * x + b).square()) @ w[:, None]
    return Data.from_arrays(x.numpy(), (y / y.std()).numpy(), select=0.1)
