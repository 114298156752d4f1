"""Networks for small devices: MobileNets, ShuffleNets, EfficientNet, GhostNet; and ConvNeXt."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def _separable(i: int, o: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(i, i, 3, stride, 1, groups=i, bias=False),
        nn.BatchNorm2d(i),
        nn.ReLU(inplace=True),
        nn.Conv2d(i, o, 1, bias=False),
        nn.BatchNorm2d(o),
        nn.ReLU(inplace=True),
    )


class MobileNetV1(nn.Module):
    """Howard et al. 2017: depthwise separable convolutions."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv2d(3, 6, 3, 2, 1, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(inplace=True),
            _separable(6, 8, 1),
            _separable(8, 12, 2),
            _separable(12, 12, 1),
            nn.AvgPool2d(4),
        )
        self.fc = nn.Linear(12, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.model(x).view(-1, 12))


class _InvertedResidual(nn.Module):
    def __init__(self, i: int, o: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = i * expand
        self.use_res_connect = stride == 1 and i == o
        layers: list[nn.Module] = []
        if expand != 1:
            layers += [nn.Conv2d(i, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(inplace=True)]
        layers += [
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(inplace=True),
            nn.Conv2d(hidden, o, 1, bias=False),
            nn.BatchNorm2d(o),
        ]
        self.conv = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.use_res_connect else self.conv(x)


class MobileNetV2(nn.Module):
    """Sandler et al. 2018: inverted residuals with linear bottlenecks."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU6(inplace=True)),
            _InvertedResidual(6, 4, 1, 1),
            _InvertedResidual(4, 6, 2, 3),
            _InvertedResidual(6, 6, 1, 3),
            nn.Sequential(nn.Conv2d(6, 16, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6(inplace=True)),
        )
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(16, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.features(x)
        x = F.adaptive_avg_pool2d(x, 1).reshape(x.shape[0], -1)
        return self.classifier(x)


class _HandHardswish(nn.Module):
    """As it was written before torch had it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * F.relu6(x + 3.0, inplace=True) / 6.0


class _SqueezeExcite(nn.Module):
    def __init__(self, width: int, squeeze: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(width, squeeze, 1)
        self.fc2 = nn.Conv2d(squeeze, width, 1)
        self.activation = nn.ReLU()
        self.scale_activation = nn.Hardsigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = self.fc2(self.activation(self.fc1(self.avgpool(x))))
        return self.scale_activation(scale) * x


class _MobileBlock(nn.Module):
    def __init__(self, i: int, hidden: int, o: int, kernel: int, stride: int, gated: bool, swish: bool) -> None:
        super().__init__()
        self.shortcut = stride == 1 and i == o
        act: type[nn.Module] = nn.Hardswish if swish else nn.ReLU
        self.block = nn.Sequential(
            nn.Conv2d(i, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden, eps=1e-3, momentum=0.01),
            act(),
            nn.Conv2d(hidden, hidden, kernel, stride, kernel // 2, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden, eps=1e-3, momentum=0.01),
            act(),
            _SqueezeExcite(hidden, 4) if gated else nn.Identity(),
            nn.Conv2d(hidden, o, 1, bias=False),
            nn.BatchNorm2d(o, eps=1e-3, momentum=0.01),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result = self.block(x)
        if self.shortcut:
            result += x
        return result


class MobileNetV3(nn.Module):
    """Howard et al. 2019: squeeze-and-excite, hard swish."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6), _HandHardswish())
        self.blocks = nn.Sequential(
            _MobileBlock(6, 8, 6, 3, 1, True, False),
            _MobileBlock(6, 12, 8, 5, 2, True, True),
            _MobileBlock(8, 12, 8, 3, 1, False, True),
        )
        self.classifier = nn.Sequential(
            nn.Linear(8, 12), nn.Hardswish(inplace=True), nn.Dropout(0.2, inplace=True), nn.Linear(12, classes)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(self.stem(x))
        return self.classifier(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


def channel_shuffle(x: torch.Tensor, groups: int) -> torch.Tensor:
    batch, channels, height, width = x.data.size()
    x = x.view(batch, groups, channels // groups, height, width)
    x = torch.transpose(x, 1, 2).contiguous()
    return x.view(batch, -1, height, width)


class _ShuffleUnit(nn.Module):
    def __init__(self, i: int, o: int, groups: int, stride: int) -> None:
        super().__init__()
        self.stride, self.groups = stride, groups
        middle = o // 2 if stride == 1 else (o - i) // 2 // groups * groups
        out = o if stride == 1 else o - i
        self.compress = nn.Sequential(nn.Conv2d(i, middle, 1, groups=groups, bias=False), nn.BatchNorm2d(middle))
        self.depthwise = nn.Conv2d(middle, middle, 3, stride, 1, groups=middle, bias=False)
        self.bn = nn.BatchNorm2d(middle)
        self.expand = nn.Sequential(nn.Conv2d(middle, out, 1, groups=groups, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = channel_shuffle(F.relu(self.compress(x)), self.groups)
        out = self.expand(self.bn(self.depthwise(out)))
        if self.stride == 1:
            return F.relu(out + x)
        return F.relu(torch.cat([F.avg_pool2d(x, 3, 2, 1), out], 1))


class ShuffleNetV1(nn.Module):
    """Zhang et al. 2017: grouped 1x1 convolutions with a shuffle between them."""

    def __init__(self, groups: int, classes: int = 5) -> None:
        super().__init__()
        first, second = 4 * groups, 12 * groups
        self.stem = nn.Conv2d(3, first, 3, 2, 1)
        self.stage = nn.Sequential(_ShuffleUnit(first, second, groups, 2), _ShuffleUnit(second, second, groups, 1))
        self.fc = nn.Linear(second, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.stage(self.stem(x)).mean([2, 3]))


class _ShuffleV2(nn.Module):
    def __init__(self, i: int, o: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        half = o // 2
        if stride > 1:
            self.branch1 = nn.Sequential(
                nn.Conv2d(i, i, 3, stride, 1, groups=i, bias=False),
                nn.BatchNorm2d(i),
                nn.Conv2d(i, half, 1, bias=False),
                nn.BatchNorm2d(half),
                nn.ReLU(inplace=True),
            )
        self.branch2 = nn.Sequential(
            nn.Conv2d(i if stride > 1 else half, half, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
            nn.Conv2d(half, half, 3, stride, 1, groups=half, bias=False),
            nn.BatchNorm2d(half),
            nn.Conv2d(half, half, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.stride == 1:
            x1, x2 = x.chunk(2, dim=1)
            out = torch.cat((x1, self.branch2(x2)), dim=1)
        else:
            out = torch.cat((self.branch1(x), self.branch2(x)), dim=1)
        return channel_shuffle(out, 2)


class ShuffleNetV2(nn.Module):
    """Ma et al. 2018: half of the channels pass by."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.stage2 = nn.Sequential(_ShuffleV2(6, 8, 2), _ShuffleV2(8, 8, 1), _ShuffleV2(8, 8, 1))
        self.conv5 = nn.Sequential(nn.Conv2d(8, 12, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU(inplace=True))
        self.fc = nn.Linear(12, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv5(self.stage2(self.conv1(x)))
        return self.fc(x.mean([2, 3]))


class _MBConv(nn.Module):
    def __init__(self, i: int, o: int, expand: int, kernel: int, stride: int) -> None:
        super().__init__()
        hidden = i * expand
        self.expand = nn.Conv2d(i, hidden, 1, bias=False)
        self.bn0 = nn.BatchNorm2d(hidden, momentum=0.01, eps=1e-3)
        self.depthwise = nn.Conv2d(hidden, hidden, kernel, stride, padding=kernel // 2, groups=hidden, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden, momentum=0.01, eps=1e-3)
        self.se_reduce = nn.Conv2d(hidden, max(i // 4, 1), 1)
        self.se_expand = nn.Conv2d(max(i // 4, 1), hidden, 1)
        self.project = nn.Conv2d(hidden, o, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(o, momentum=0.01, eps=1e-3)
        self.swish = nn.SiLU()
        self.skip = i == o and stride == 1

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        x = self.swish(self.bn0(self.expand(inputs)))
        x = self.swish(self.bn1(self.depthwise(x)))
        squeezed = F.adaptive_avg_pool2d(x, 1)
        squeezed = self.se_expand(self.swish(self.se_reduce(squeezed)))
        x = torch.sigmoid(squeezed) * x
        x = self.bn2(self.project(x))
        return x + inputs if self.skip else x


class EfficientNet(nn.Module):
    """Tan and Le 2019: inverted residuals with squeeze-and-excite and swish."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 8, 3, 2, bias=False), nn.BatchNorm2d(8), nn.SiLU()
        )
        self.blocks = nn.Sequential(_MBConv(8, 8, 2, 3, 1), _MBConv(8, 12, 2, 5, 2), _MBConv(12, 12, 2, 3, 1))
        self.head = nn.Sequential(nn.Conv2d(12, 16, 1, bias=False), nn.BatchNorm2d(16), nn.SiLU())
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(16, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.head(self.blocks(self.stem(x)))
        x = F.adaptive_avg_pool2d(x, 1).flatten(start_dim=1)
        return self.fc(self.dropout(x))


class _Ghost(nn.Module):
    """Half of the channels come from a cheap depthwise convolution of the others, cut to size."""

    def __init__(self, i: int, o: int, relu: bool) -> None:
        super().__init__()
        self.o = o
        first = (o + 1) // 2
        act: type[nn.Module] = nn.ReLU if relu else nn.Identity
        self.primary = nn.Sequential(nn.Conv2d(i, first, 1, bias=False), nn.BatchNorm2d(first), act())
        self.cheap = nn.Sequential(
            nn.Conv2d(first, first, 3, 1, 1, groups=first, bias=False), nn.BatchNorm2d(first), act()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x1 = self.primary(x)
        out = torch.cat([x1, self.cheap(x1)], dim=1)
        return out[:, : self.o, :, :]


class GhostNet(nn.Module):
    """Han et al. 2019: ghost modules, a depthwise convolution with two outputs a channel."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, 2, 1)
        self.ghost1, self.ghost2 = _Ghost(6, 11, True), _Ghost(11, 6, False)
        self.depthwise = nn.Conv2d(6, 12, 3, 2, 1, groups=6)
        self.prelu = nn.PReLU(12)
        self.head = nn.Conv2d(12, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.ghost2(self.ghost1(x))
        x = self.prelu(self.depthwise(x))
        return self.head(F.adaptive_avg_pool2d(x, 1))[:, :, 0, 0]


class _ConvNeXtBlock(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, kernel_size=7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(0.5 * torch.ones(dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x
        x = self.dwconv(x).permute(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C)
        x = self.pwconv2(self.act(self.pwconv1(self.norm(x))))
        x = self.gamma * x
        return shortcut + x.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """Liu et al. 2022: depthwise 7x7, layer norm over channels last, layer scale."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 4, stride=4)
        self.stage1 = nn.Sequential(_ConvNeXtBlock(6), _ConvNeXtBlock(6))
        self.down = nn.Conv2d(6, 8, 2, stride=2)
        self.stage2 = nn.Sequential(_ConvNeXtBlock(8), _ConvNeXtBlock(8))
        self.norm = nn.LayerNorm(8, eps=1e-6)
        self.head = nn.Linear(8, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stage2(self.down(self.stage1(self.stem(x))))
        return self.head(self.norm(x.mean([-2, -1])))
