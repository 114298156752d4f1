"""Chains and their branches: LeNet, AlexNet, VGG, NIN, GoogLeNet, Inception, SqueezeNet."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class LeNet(nn.Module):
    """LeCun et al. 1998: convolutions, subsampling, tanh."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 5)
        self.conv2 = nn.Conv2d(4, 6, 5)
        self.fc1 = nn.Linear(6 * 2 * 2, 12)
        self.fc2 = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.avg_pool2d(torch.tanh(self.conv1(x)), 2)
        x = F.avg_pool2d(torch.tanh(self.conv2(x)), 2)
        x = x.view(-1, self.num_flat_features(x))
        return self.fc2(torch.tanh(self.fc1(x)))

    def num_flat_features(self, x: torch.Tensor) -> int:
        count = 1
        for size in x.size()[1:]:
            count *= size
        return count


class AlexNet(nn.Module):
    """Krizhevsky et al. 2012: local response normalisation, overlapping pools, dropout."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=2, padding=2),
            nn.ReLU(inplace=True),
            nn.LocalResponseNorm(5, alpha=1e-2, k=2.0),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(8, 12, 3, padding=1, groups=2),
            nn.ReLU(inplace=True),
            nn.LocalResponseNorm(3),
            nn.MaxPool2d(3, 2),
        )
        self.classifier = nn.Sequential(
            nn.Dropout(0.5), nn.Linear(12, 16), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(16, classes)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))


class VGG(nn.Module):
    """Simonyan and Zisserman 2014, with batch normalisation."""

    def __init__(self, plan: tuple[int | str, ...] = (8, 8, "M", 12, 12, "M"), classes: int = 5) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 3
        for entry in plan:
            if isinstance(entry, str):
                layers.append(nn.MaxPool2d(2, 2))
            else:
                layers += [nn.Conv2d(width, entry, 3, padding=1), nn.BatchNorm2d(entry), nn.ReLU(inplace=True)]
                width = entry
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d((2, 2))
        self.classifier = nn.Sequential(nn.Linear(width * 4, 16), nn.ReLU(True), nn.Dropout(), nn.Linear(16, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.avgpool(self.features(x))
        x = x.view(x.size(0), -1)
        return self.classifier(x)


class NetworkInNetwork(nn.Module):
    """Lin et al. 2013: 1x1 convolutions and a classifier that is an average over the image."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()

        def block(i: int, o: int, kernel: int) -> list[nn.Module]:
            return [
                nn.Conv2d(i, o, kernel, padding=kernel // 2), nn.ReLU(),
                nn.Conv2d(o, o, 1), nn.ReLU(),
            ]  # fmt: skip

        self.features = nn.Sequential(
            *block(3, 8, 5), nn.MaxPool2d(3, 2, ceil_mode=True), nn.Dropout(0.5), *block(8, classes, 3)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.features(x).mean(dim=(-2, -1))


class _Branches(nn.Module):
    """Four branches side by side (Szegedy et al. 2014, figure 2b)."""

    def __init__(self, i: int, one: int, three: tuple[int, int], five: tuple[int, int], pool: int) -> None:
        super().__init__()
        self.b1 = nn.Conv2d(i, one, 1)
        self.b2 = nn.Sequential(nn.Conv2d(i, three[0], 1), nn.ReLU(), nn.Conv2d(*three, 3, padding=1))
        self.b3 = nn.Sequential(nn.Conv2d(i, five[0], 1), nn.ReLU(), nn.Conv2d(*five, 5, padding=2))
        self.b4 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), nn.Conv2d(i, pool, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(torch.cat([self.b1(x), self.b2(x), self.b3(x), self.b4(x)], dim=1))


class GoogLeNet(nn.Module):
    """Szegedy et al. 2014."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.LocalResponseNorm(3, k=1.0)
        self.inception1 = _Branches(8, 4, (4, 6), (2, 3), 3)
        self.inception2 = _Branches(16, 5, (4, 6), (3, 4), 3)
        self.pool = nn.MaxPool2d(3, 2, padding=1)
        self.drop = nn.Dropout(0.4)
        self.fc = nn.Linear(18, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(F.relu(self.stem(x)))
        x = self.pool(self.inception1(x))
        x = self.inception2(x)
        x = F.avg_pool2d(x, kernel_size=x.shape[2:]).squeeze(-1).squeeze(-1)
        return self.fc(self.drop(x))


def _conv_bn(i: int, o: int, kernel: int | tuple[int, int], **kwargs: int | tuple[int, int]) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(i, o, kernel, bias=False, **kwargs),  # type: ignore[arg-type]
        nn.BatchNorm2d(o, eps=0.001),
        nn.ReLU(inplace=True),
    )


class _Factorised(nn.Module):
    """Asymmetric convolutions and a branch that is split again (Szegedy et al. 2015, figure 7)."""

    def __init__(self, i: int) -> None:
        super().__init__()
        self.b1 = _conv_bn(i, 4, 1)
        self.b2 = _conv_bn(i, 4, 1)
        self.b2a = _conv_bn(4, 3, (1, 3), padding=(0, 1))
        self.b2b = _conv_bn(4, 3, (3, 1), padding=(1, 0))
        self.b3 = _conv_bn(i, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        two = self.b2(x)
        two = torch.cat([self.b2a(two), self.b2b(two)], 1)
        three = self.b3(F.avg_pool2d(x, kernel_size=3, stride=1, padding=1))
        outputs = [self.b1(x), two, three]
        return torch.cat(outputs, 1)


class Inception(nn.Module):
    """Szegedy et al. 2015 (version 3): factorised convolutions, a stride-2 block of branches."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.stem = _conv_bn(3, 6, 3, padding=1)
        self.mixed1 = _Factorised(6)
        self.reduce = _conv_bn(15, 7, 3, stride=2)
        self.mixed2 = _Factorised(22)
        self.dropout = nn.Dropout()
        self.fc = nn.Linear(15, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.mixed1(self.stem(x))
        x = torch.cat([self.reduce(x), F.max_pool2d(x, kernel_size=3, stride=2)], 1)
        x = self.mixed2(x)
        x = F.adaptive_avg_pool2d(x, (1, 1))
        return self.fc(torch.flatten(self.dropout(x), 1))


class _Fire(nn.Module):
    def __init__(self, i: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(i, squeeze, 1)
        self.squeeze_activation = nn.ReLU(inplace=True)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand1x1_activation = nn.ReLU(inplace=True)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)
        self.expand3x3_activation = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.squeeze_activation(self.squeeze(x))
        return torch.cat(
            [self.expand1x1_activation(self.expand1x1(x)), self.expand3x3_activation(self.expand3x3(x))], 1
        )


class SqueezeNet(nn.Module):
    """Iandola et al. 2016: fire modules, a convolution as classifier."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            _Fire(8, 3, 5),
            _Fire(10, 4, 6),
        )
        self.classifier = nn.Sequential(
            nn.Dropout(0.5), nn.Conv2d(12, classes, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.flatten(self.classifier(self.features(x)), 1)
