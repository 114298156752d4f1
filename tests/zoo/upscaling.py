"""Networks that give images: U-Net, super resolution, style transfer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class _DoubleConv(nn.Module):
    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.double_conv = nn.Sequential(
            nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU(inplace=True),
            nn.Conv2d(o, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU(inplace=True),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.double_conv(x)


class _Up(nn.Module):
    def __init__(self, i: int, skip: int, o: int, how: str) -> None:
        super().__init__()
        self.up: nn.Module
        if how == "transposed":
            self.up = nn.ConvTranspose2d(i, i // 2, kernel_size=2, stride=2)
            i //= 2
        else:
            self.up = nn.Upsample(scale_factor=2, mode=how, align_corners=True)
        self.conv = _DoubleConv(i + skip, o)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        x = self.up(x)
        high, wide = skip.size()[2] - x.size()[2], skip.size()[3] - x.size()[3]
        x = F.pad(x, [wide // 2, wide - wide // 2, high // 2, high - high // 2])
        return self.conv(torch.cat([skip, x], dim=1))


class UNet(nn.Module):
    """Ronneberger et al. 2015, with transposed convolutions or interpolation on the way up."""

    def __init__(self, how: str, classes: int = 2) -> None:
        super().__init__()
        self.inc = _DoubleConv(3, 4)
        self.down1, self.down2 = _DoubleConv(4, 6), _DoubleConv(6, 8)
        self.pool = nn.MaxPool2d(2)
        self.up1, self.up2 = _Up(8, 6, 6, how), _Up(6, 4, 4, how)
        self.outc = nn.Conv2d(4, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x1 = self.inc(x)
        x2 = self.down1(self.pool(x1))
        x3 = self.down2(self.pool(x2))
        return self.outc(self.up2(self.up1(x3, x2), x1))


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.PReLU(), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x) * 0.1


class SuperResolution(nn.Module):
    """Shi et al. 2016 with the residual blocks of Lim et al. 2017: a pixel shuffle, colours shifted by a mean."""

    def __init__(self, scale: int = 2) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.45, 0.44, 0.4]).view(1, 3, 1, 1))
        self.mean: torch.Tensor
        self.head = nn.Conv2d(3, 6, 5, padding=2)
        self.body = nn.Sequential(_Residual(6), _Residual(6), nn.Conv2d(6, 6, 3, padding=1))
        self.tail = nn.Sequential(nn.Conv2d(6, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.head(x - self.mean)
        x = self.tail(x + self.body(x))
        return torch.clamp(x + self.mean, -5.0, 5.0)


class _Up2(nn.Module):
    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.pad = nn.ReflectionPad2d(1)
        self.conv = nn.Conv2d(i, o, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(self.pad(F.interpolate(x, mode="nearest", scale_factor=2)))


class StyleTransfer(nn.Module):
    """Johnson et al. 2016: reflection padding, instance norm, group norm, nearest-neighbour upsampling."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.in1 = nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.InstanceNorm2d(6, affine=True)
        self.conv2, self.gn = nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.GroupNorm(4, 8)
        self.up, self.in2 = _Up2(8, 6), nn.InstanceNorm2d(6, affine=True, track_running_stats=True)
        self.out = _Up2(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.leaky_relu(self.in1(self.conv1(x)), 0.2)
        x = F.leaky_relu(self.gn(self.conv2(x)), 0.2)
        return torch.tanh(self.out(F.relu(self.in2(self.up(x)))))
