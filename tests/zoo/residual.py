"""Residual networks: basic, bottleneck, grouped, wide, gated, with widths that grow on every block."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

Gate = Callable[[int], nn.Module]


def conv3x3(i: int, o: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(i, o, 3, stride=stride, padding=1, groups=groups, bias=False)


class SqueezeExcite(nn.Module):
    """Hu et al. 2017: a gate for each channel from its mean."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, max(width // 4, 2))
        self.fc2 = nn.Linear(max(width // 4, 2), width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, c, _, _ = x.size()
        y = x.mean((2, 3)).view(b, c)
        y = torch.sigmoid(self.fc2(F.relu(self.fc1(y)))).view(b, c, 1, 1)
        return x * y.expand_as(x)


class Cbam(nn.Module):
    """Woo et al. 2018: a gate for each channel, then one for each place from the channels' mean and maximum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width, 4), nn.ReLU(), nn.Linear(4, width))
        self.conv = nn.Conv2d(2, 1, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean, most = F.adaptive_avg_pool2d(x, 1).flatten(1), F.adaptive_max_pool2d(x, 1).flatten(1)
        gate = torch.sigmoid(self.mlp(mean) + self.mlp(most))
        x = x * gate.unsqueeze(2).unsqueeze(3)
        planes = torch.cat((torch.max(x, 1)[0].unsqueeze(1), torch.mean(x, 1).unsqueeze(1)), dim=1)
        return x * torch.sigmoid(self.bn(self.conv(planes)))


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, i: int, width: int, stride: int, groups: int, gate: Gate | None) -> None:
        super().__init__()
        self.conv1 = conv3x3(i, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv3x3(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.gate = gate(width) if gate else None
        self.downsample = None
        if stride != 1 or i != width:
            self.downsample = nn.Sequential(nn.Conv2d(i, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.gate is not None:
            out = self.gate(out)
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class Bottleneck(nn.Module):
    expansion = 2

    def __init__(self, i: int, width: int, stride: int, groups: int, gate: Gate | None) -> None:
        super().__init__()
        out = width * self.expansion
        self.conv1 = nn.Conv2d(i, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width, stride, groups)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.gate = gate(out) if gate else nn.Identity()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or i != out:
            self.shortcut = nn.Sequential(nn.Conv2d(i, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.gate(self.bn3(self.conv3(out)))
        return F.relu_(out + self.shortcut(x))


class ResNet(nn.Module):
    """He et al. 2015; with groups it is ResNeXt (Xie et al. 2016), with a gate SENet and its like."""

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        widths: tuple[int, ...] = (8, 12),
        groups: int = 1,
        gate: Gate | None = None,
        classes: int = 5,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        width = 8
        for k, size in enumerate(widths):
            blocks: list[nn.Module] = []
            for j in range(2):
                blocks.append(block(width, size, 2 if k and not j else 1, groups, gate))
                width = size * block.expansion
            self.add_module(f"layer{k + 1}", nn.Sequential(*blocks))
        self.stages = len(widths)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for k in range(self.stages):
            x = self.get_submodule(f"layer{k + 1}")(x)
        return self.fc(torch.flatten(self.avgpool(x), 1))


def resnet_basic() -> nn.Module:
    return ResNet(BasicBlock)


def resnet_bottleneck() -> nn.Module:
    return ResNet(Bottleneck, (4, 6))


def resnext() -> nn.Module:
    return ResNet(Bottleneck, (8, 12), groups=4)


def se_resnet() -> nn.Module:
    return ResNet(Bottleneck, (4, 6), gate=SqueezeExcite)


def cbam_resnet() -> nn.Module:
    return ResNet(BasicBlock, (8, 12), gate=Cbam)


class _PreActBlock(nn.Module):
    def __init__(self, i: int, o: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(i)
        self.conv1 = conv3x3(i, o, stride)
        self.bn2 = nn.BatchNorm2d(o)
        self.conv2 = conv3x3(o, o)
        if stride != 1 or i != o:
            self.shortcut = nn.Conv2d(i, o, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu(self.bn1(x))
        shortcut = self.shortcut(out) if hasattr(self, "shortcut") else x
        out = self.conv1(out)
        out = self.conv2(F.relu(self.bn2(out)))
        return out + shortcut


class PreActResNet(nn.Module):
    """He et al. 2016: norm and activation before the convolutions."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.conv = conv3x3(3, 8)
        self.layers = nn.ModuleList([_PreActBlock(8, 8, 1), _PreActBlock(8, 12, 2), _PreActBlock(12, 12, 1)])
        self.bn = nn.BatchNorm2d(12)
        self.linear = nn.Linear(12, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        for layer in self.layers:
            x = layer(x)
        x = F.avg_pool2d(F.relu(self.bn(x)), 8)
        return self.linear(x.view(x.size(0), -1))


class _WideBlock(nn.Module):
    def __init__(self, i: int, o: int, stride: int, rate: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(i)
        self.conv1 = conv3x3(i, o, stride)
        self.bn2 = nn.BatchNorm2d(o)
        self.conv2 = conv3x3(o, o)
        self.rate = rate
        self.equal = i == o
        self.convShortcut = None if self.equal else nn.Conv2d(i, o, 1, stride=stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.equal:
            x = F.relu(self.bn1(x))
        out = F.relu(self.bn1(x)) if self.equal else x
        out = F.relu(self.bn2(self.conv1(out)))
        if self.rate > 0:
            out = F.dropout(out, p=self.rate, training=self.training)
        out = self.conv2(out)
        return torch.add(x if self.convShortcut is None else self.convShortcut(x), out)


class WideResNet(nn.Module):
    """Zagoruyko and Komodakis 2016: wide blocks with dropout inside."""

    def __init__(self, widen: int = 2, rate: float = 0.3, classes: int = 5) -> None:
        super().__init__()
        widths = [4, 4 * widen, 6 * widen]
        self.conv1 = conv3x3(3, widths[0])
        self.block1 = nn.Sequential(
            _WideBlock(widths[0], widths[1], 1, rate), _WideBlock(widths[1], widths[1], 1, rate)
        )
        self.block2 = nn.Sequential(
            _WideBlock(widths[1], widths[2], 2, rate), _WideBlock(widths[2], widths[2], 1, rate)
        )
        self.bn1 = nn.BatchNorm2d(widths[2])
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(widths[2], classes)
        self.width = widths[2]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.block2(self.block1(self.conv1(x)))
        out = F.avg_pool2d(self.relu(self.bn1(out)), 8)
        return self.fc(out.view(-1, self.width))


class _PyramidBlock(nn.Module):
    """The shortcut is padded with zeros to the block's larger width."""

    def __init__(self, i: int, o: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(i)
        self.conv1 = conv3x3(i, o, stride)
        self.bn2 = nn.BatchNorm2d(o)
        self.conv2 = conv3x3(o, o)
        self.bn3 = nn.BatchNorm2d(o)
        self.pool = nn.AvgPool2d(2, 2) if stride == 2 else nn.Identity()
        self.more = o - i

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.conv1(self.bn1(x))
        out = self.bn3(self.conv2(F.relu(self.bn2(out))))
        return out + F.pad(self.pool(x), (0, 0, 0, 0, 0, self.more))


class PyramidNet(nn.Module):
    """Han et al. 2016: the width grows on every block."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv3x3(3, 5), nn.BatchNorm2d(5))
        self.blocks = nn.Sequential(_PyramidBlock(5, 7, 1), _PyramidBlock(7, 9, 2), _PyramidBlock(9, 11, 1))
        self.final = nn.Sequential(nn.BatchNorm2d(11), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.output = nn.Linear(11, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.output(self.final(self.blocks(self.stem(x))))


class _SplitAttention(nn.Module):
    """Two groups of channels, weighed against each other channel by channel."""

    def __init__(self, i: int, o: int, radix: int = 2) -> None:
        super().__init__()
        self.radix = radix
        self.conv = nn.Conv2d(i, o * radix, 3, padding=1, groups=radix, bias=False)
        self.bn0 = nn.BatchNorm2d(o * radix)
        self.fc1 = nn.Conv2d(o, 4, 1)
        self.bn1 = nn.BatchNorm2d(4)
        self.fc2 = nn.Conv2d(4, o * radix, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn0(self.conv(x)))
        batch, width, height, long = x.shape
        x = x.reshape((batch, self.radix, width // self.radix, height, long))
        gap = F.adaptive_avg_pool2d(x.sum(dim=1), 1)
        gates = self.fc2(F.relu(self.bn1(self.fc1(gap))))
        gates = F.softmax(gates.view(batch, self.radix, -1), dim=1)
        return (x * gates.view(batch, self.radix, -1, 1, 1)).sum(dim=1)


class SplitAttentionNet(nn.Module):
    """ResNeSt (Zhang et al. 2020): residual blocks with split attention."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv3x3(3, 8, 2), nn.BatchNorm2d(8), nn.ReLU())
        self.one = _SplitAttention(8, 8)
        self.two = _SplitAttention(8, 8)
        self.head = nn.Linear(8, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = F.relu(x + self.one(x))
        x = F.relu(x + self.two(x))
        return self.head(x.mean([2, 3]))
