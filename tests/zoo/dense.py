"""Networks that concatenate: DenseNet, CondenseNet, dual paths, VoVNet."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class _DenseLayer(nn.Module):
    def __init__(self, i: int, growth: int, rate: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(i)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(i, 2 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(2 * growth)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False)
        self.rate = rate

    def forward(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        bottleneck = self.conv1(self.relu1(self.norm1(torch.cat(inputs, 1))))
        new = self.conv2(self.relu2(self.norm2(bottleneck)))
        return F.dropout(new, p=self.rate, training=self.training) if self.rate > 0 else new


class _DenseBlock(nn.ModuleDict):
    def __init__(self, layers: int, i: int, growth: int, rate: float) -> None:
        super().__init__({f"denselayer{k + 1}": _DenseLayer(i + k * growth, growth, rate) for k in range(layers)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = [x]
        for layer in self.values():
            features.append(layer(features))
        return torch.cat(features, 1)


class DenseNet(nn.Module):
    """Huang et al. 2016: every layer reads all before it."""

    def __init__(self, growth: int = 4, layers: tuple[int, ...] = (3, 3), rate: float = 0.2, classes: int = 5) -> None:
        super().__init__()
        width = 8
        self.features = nn.Sequential()
        self.features.add_module("conv0", nn.Conv2d(3, width, 3, padding=1, bias=False))
        for k, count in enumerate(layers):
            self.features.add_module(f"denseblock{k + 1}", _DenseBlock(count, width, growth, rate))
            width += count * growth
            if k + 1 < len(layers):
                transition = nn.Sequential(
                    nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.Conv2d(width, width // 2, 1, bias=False),
                    nn.AvgPool2d(2, 2),
                )  # fmt: skip
                self.features.add_module(f"transition{k + 1}", transition)
                width //= 2
        self.features.add_module("norm5", nn.BatchNorm2d(width))
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.features(x)
        out = F.relu(features, inplace=True)
        out = torch.flatten(F.adaptive_avg_pool2d(out, (1, 1)), 1)
        return self.classifier(out)


class _LearnedGroups(nn.Module):
    """A grouped 1x1 convolution over channels picked by a fixed index, as left behind by CondenseNet's training."""

    def __init__(self, i: int, o: int, groups: int, seed: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(i)
        self.conv = nn.Conv2d(i, o, 1, groups=groups, bias=False)
        order = torch.randperm(i, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("index", order)
        self.index: torch.Tensor
        self.groups = groups

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.index_select(x, 1, self.index)
        x = self.conv(F.relu(self.norm(x)))
        n, c, h, w = x.size()
        x = x.view(n, self.groups, c // self.groups, h, w)
        return x.transpose(1, 2).contiguous().view(n, c, h, w)


class CondenseNet(nn.Module):
    """Huang et al. 2017, after its training: index layers, grouped convolutions, shuffles, dense connections."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.init_conv = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.squeeze1, self.grow1 = _LearnedGroups(8, 8, 4, 1), nn.Conv2d(8, 4, 3, padding=1, groups=4, bias=False)
        self.squeeze2, self.grow2 = _LearnedGroups(12, 8, 4, 2), nn.Conv2d(8, 4, 3, padding=1, groups=4, bias=False)
        self.last = nn.BatchNorm2d(16)
        self.register_buffer("order", torch.randperm(16, generator=torch.Generator().manual_seed(3)))
        self.order: torch.Tensor
        self.classifier = nn.Linear(16, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.init_conv(x)
        x = torch.cat([x, self.grow1(self.squeeze1(x))], 1)
        x = torch.cat([x, self.grow2(self.squeeze2(x))], 1)
        x = F.relu(self.last(x)).mean((2, 3))
        return self.classifier(x.index_select(1, self.order))


class _DualPath(nn.Module):
    """A block whose output is added to one part of the stream and appended to the other."""

    def __init__(self, i: int, middle: int, residual: int, more: int) -> None:
        super().__init__()
        self.residual = residual
        self.conv1 = nn.Sequential(nn.BatchNorm2d(i), nn.ReLU(), nn.Conv2d(i, middle, 1, bias=False))
        self.conv2 = nn.Sequential(
            nn.BatchNorm2d(middle), nn.ReLU(), nn.Conv2d(middle, middle, 3, padding=1, groups=2, bias=False)
        )
        self.conv3 = nn.Sequential(nn.BatchNorm2d(middle), nn.ReLU(), nn.Conv2d(middle, residual + more, 1, bias=False))

    def forward(self, x: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        out = self.conv3(self.conv2(self.conv1(torch.cat(x, dim=1))))
        added, appended = out[:, : self.residual], out[:, self.residual :]
        return x[0] + added, torch.cat([x[1], appended], dim=1)


class DualPathNet(nn.Module):
    """Chen et al. 2017: a residual and a dense stream side by side."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 10, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(_DualPath(10, 8, 6, 3), _DualPath(13, 8, 6, 3))
        self.bn = nn.BatchNorm2d(16)
        self.classifier = nn.Conv2d(16, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one, two = torch.split(self.stem(x), [6, 4], dim=1)
        x = torch.cat(self.blocks((one, two)), dim=1)
        x = self.classifier(F.adaptive_avg_pool2d(F.elu(self.bn(x)), 1))
        return x.squeeze(3).squeeze(2)


class _OneShot(nn.Module):
    """Layers in a row, all of their outputs concatenated once and gated."""

    def __init__(self, i: int, width: int, o: int, layers: int = 3) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i if not k else width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(True))
            for k in range(layers)
        )
        self.concat = nn.Sequential(nn.Conv2d(i + layers * width, o, 1), nn.BatchNorm2d(o), nn.ReLU(True))
        self.gate = nn.Conv2d(o, o, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs = [x]
        for layer in self.layers:
            outputs.append(layer(outputs[-1]))
        out = self.concat(torch.cat(outputs, 1))
        return out * F.hardsigmoid(self.gate(out.mean((2, 3), keepdim=True)))


class VoVNet(nn.Module):
    """Lee et al. 2019, with the effective squeeze-excitation of its second version."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.osa1 = _OneShot(6, 4, 8)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.osa2 = _OneShot(8, 5, 8)
        self.head = nn.Linear(8, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.osa1(self.stem(x)))
        x = x + self.osa2(x)
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))
