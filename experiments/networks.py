"""Thin networks for images that the experiments grow: VGG, ResNet, SE-ResNet and MobileNetV1, of any widths."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Widths = Sequence[int]
Images = tuple[NDArray[np.float32], NDArray[np.int64]]
STAGES = 3  # each but the first halves the image


class Block(nn.Module):
    """A residual block, with squeeze and excitation perhaps, and a shortcut where shapes change."""

    def __init__(self, before: int, inner: int, width: int, stride: int, squeeze: bool) -> None:
        super().__init__()
        self.c1, self.b1 = nn.Conv2d(before, inner, 3, stride, 1, bias=False), nn.BatchNorm2d(inner)
        self.c2, self.b2 = nn.Conv2d(inner, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.squeeze = squeeze
        if squeeze:
            self.s1, self.s2 = nn.Conv2d(width, max(width // 4, 2), 1), nn.Conv2d(max(width // 4, 2), width, 1)
        same = stride == 1 and before == width
        self.short = nn.Identity() if same else nn.Conv2d(before, width, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.b2(self.c2(torch.relu(self.b1(self.c1(x)))))
        if self.squeeze:
            out = out * torch.sigmoid(self.s2(torch.relu(self.s1(out.mean((2, 3), keepdim=True)))))
        return torch.relu(out + self.short(x))


def _conv(before: int, width: int, size: int = 3, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(before, width, size, stride, size // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(width), nn.ReLU()]


def _head(before: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10)]


def vgg(widths: Widths) -> nn.Module:
    """Two convolutions with norms in each of three stages, each stage behind a pool."""
    layers: list[nn.Module] = []
    before = 3
    for k, width in enumerate(widths):
        layers += _conv(before, width) + ([nn.MaxPool2d(2)] if k % 2 else [])
        before = width
    return nn.Sequential(*layers, *_head(before))


def resnet(widths: Widths, *, squeeze: bool = False) -> nn.Module:
    """A stem, and a residual block for each stage, as wide inside as outside."""
    layers = _conv(3, widths[0])
    before = widths[0]
    for k, width in enumerate(widths):
        layers.append(Block(before, width, width, 1 if k == 0 else 2, squeeze))
        before = width
    return nn.Sequential(*layers, *_head(before))


def seresnet(widths: Widths) -> nn.Module:
    """The same with squeeze and excitation."""
    return resnet(widths, squeeze=True)


def mobilenet(widths: Widths) -> nn.Module:
    """MobileNetV1: a stem, and then depthwise and pointwise convolutions by turns."""
    layers = _conv(3, widths[0])
    for k, (before, width) in enumerate(itertools.pairwise(widths)):
        layers += _conv(before, before, stride=2 if k % 2 else 1, groups=before) + _conv(before, width, 1)
    return nn.Sequential(*layers, *_head(widths[-1]))


NETS: Mapping[str, Callable[[Widths], nn.Module]] = {
    "vgg": vgg,
    "resnet": resnet,
    "seresnet": seresnet,
    "mobilenet": mobilenet,
}


def cifar(path: Path, part: str, first: int, count: int, size: int) -> Images:
    """Images (count, 3, size, size), standardised by channel with the training part's numbers, and their labels.

    Args:
        path: An archive of x_train (n, 32, 32, 3) and x_test of bytes, y_train (n,) and y_test.
        part: "train" or "test".
        first: The first of them.
        count: How many.
        size: 32, or 16 for means of two by two pixels.
    """
    with np.load(path) as archive:
        known = archive["x_train"][:5000].reshape(-1, 3) / 255
        images, labels = (archive[f"{name}_{part}"][first : first + count] for name in "xy")
    x = (images / 255 - known.mean(0)) / known.std(0)
    by = 32 // size
    x = x.reshape(count, size, by, size, by, 3).mean((2, 4)).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(x, np.float32), labels.astype(np.int64)
