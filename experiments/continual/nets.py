"""The networks: a perceptron, LeNet and a VGG16 with batch norm, of any width; they read images of any size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

import growir
from growir.graph import Graph

CLASSES = 2
VGG16: Sequence[Sequence[int]] = ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8))  # of the first width, between pools
Shape = tuple[int, int, int]


def mlp(shape: Shape, classes: int = CLASSES, widths: Sequence[int] = (16, 16)) -> nn.Module:
    """Linear layers of these widths."""
    layers: list[nn.Module] = [nn.Flatten()]
    before = shape[0] * shape[1] * shape[2]
    for width in widths:
        layers += [nn.Linear(before, width), nn.ReLU()]
        before = width
    return nn.Sequential(*layers, nn.Linear(before, classes))


def lenet(shape: Shape, classes: int = CLASSES, widths: Sequence[int] = (6, 12, 40, 20)) -> nn.Module:
    """Two convolutions of five by five, each with a pool behind it, and two linear layers."""
    first, second, third, fourth = widths
    side = tuple(((n - 4) // 2 - 4) // 2 for n in shape[1:])
    return nn.Sequential(
        nn.Conv2d(shape[0], first, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(second * side[0] * side[1], third),
        nn.ReLU(),
        nn.Linear(third, fourth),
        nn.ReLU(),
        nn.Linear(fourth, classes),
    )


def vgg16(shape: Shape, classes: int = CLASSES, width: int = 4) -> nn.Module:
    """Thirteen convolutions with norms, from `width` channels to eight times as many; VGG16-BN has 64.

    A pool that would leave no pixel is left out: four there are with MNIST's 28 pixels, five with CIFAR's 32.
    """
    layers: list[nn.Module] = []
    before, side = shape[0], min(shape[1:])
    for block in VGG16:
        for times in block:
            layers += [nn.Conv2d(before, times * width, 3, padding=1, bias=False), nn.BatchNorm2d(times * width)]
            layers.append(nn.ReLU())
            before = times * width
        if side >= 2:
            layers.append(nn.MaxPool2d(2))
            side //= 2
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))


NETS: Mapping[str, Callable[[Shape], nn.Module]] = {"mlp": mlp, "lenet": lenet, "vgg16": vgg16}


def graph_of(name: str, shape: Shape) -> Graph:
    """The graph of one of them."""
    with torch.random.fork_rng():
        return growir.from_torch(NETS[name](shape), torch.zeros(2, *shape)).graph
