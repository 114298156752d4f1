"""Channel spaces and the pruning of 30 % of every width, beside Torch-Pruning on the same models in the same process.

Torch-Pruning (extra `bench`) is a dependency of this benchmark only. It changes a torch module in place; growir gives a
new network, and `to_torch` a module of it, timed apart. So is the import: a network is imported once, while its
spaces are worked out anew for each of its states. On both sides the importance of channels is part of the time.
"""

from __future__ import annotations

import copy
import gc
import importlib.util
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

import growir
from growir.channels import analyse
from growir.network import Network
from growir.passes import Prune, Sequence
from growir.shapes import owners

REPEATS = 7
RATIO = 0.3


class Basic(nn.Module):
    """The block of ResNet-18 (He et al. 2016)."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.down: nn.Module = nn.Identity()
        if stride > 1 or before != width:
            self.down = nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.down(x))


def resnet18() -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    layers.append(nn.MaxPool2d(3, 2, 1))
    before = 64
    for width in (64, 128, 256, 512):
        layers += [Basic(before, width, 2 if width > 64 else 1), Basic(width, width, 1)]
        before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


class Inverted(nn.Module):
    """The block of MobileNetV2 (Sandler et al. 2018)."""

    def __init__(self, before: int, width: int, stride: int, expand: int) -> None:
        super().__init__()
        inner = before * expand
        layers: list[nn.Module] = []
        if expand > 1:
            layers += [nn.Conv2d(before, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU6()]
        layers += [nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False), nn.BatchNorm2d(inner), nn.ReLU6()]
        self.conv = nn.Sequential(*layers, nn.Conv2d(inner, width, 1, bias=False), nn.BatchNorm2d(width))
        self.joins = stride == 1 and before == width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(x)
        return x + y if self.joins else y


def mobilenet_v2() -> nn.Module:
    plan = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6()]
    before = 32
    for expand, width, count, stride in plan:
        for k in range(count):
            layers.append(Inverted(before, width, stride if k == 0 else 1, expand))
            before = width
    layers += [nn.Conv2d(320, 1280, 1, bias=False), nn.BatchNorm2d(1280), nn.ReLU6()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(1280, 1000))


class Dense(nn.Module):
    """The layer of DenseNet-121 (Huang et al. 2017): what is new is concatenated to what was there."""

    def __init__(self, before: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(before), nn.Conv2d(before, 4 * growth, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(4 * growth), nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv1(torch.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(torch.relu(self.norm2(y)))], 1)


def densenet121(growth: int = 32) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    layers.append(nn.MaxPool2d(3, 2, 1))
    width = 64
    for block, count in enumerate((6, 12, 24, 16)):
        for _ in range(count):
            layers.append(Dense(width, growth))
            width += growth
        layers += [nn.BatchNorm2d(width), nn.ReLU()]
        if block < 3:
            layers += [nn.Conv2d(width, width // 2, 1, bias=False), nn.AvgPool2d(2)]
            width //= 2
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 1000))


def seconds(work: Callable[[], object]) -> float:
    gc.collect()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def norm_pruned(net: Network) -> Network:
    """30 % of the channels of every free space gone, those whose producing weights have the smallest L2 norm."""
    steps: list[Prune] = []
    for space in analyse(net.graph).spaces:
        gone = int(RATIO * space.units)
        if space.pins or not gone:
            continue
        size = torch.zeros(space.units)
        for slot in space.producers:
            array = torch.tensor(net.arrays[slot.parameter]).movedim(slot.axis, 0)
            for start, units, block in slot.runs:
                size += array[start : start + units * block].reshape(units, -1).square().sum(1)
        steps.append(Prune(node=space.name, channels=tuple(size.argsort()[:gone].tolist())))
    return net.apply(Sequence(passes=tuple(steps)))


def prune_into(found: list[Network], net: Network) -> None:
    found.append(norm_pruned(net))


def lower_into(found: list[nn.Module], net: Network) -> None:
    found.append(net.to_torch())


def torch_pruned(model: nn.Module, x: torch.Tensor) -> nn.Module:
    import torch_pruning as tp

    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    pruner: Any = tp.pruner.BasePruner(
        model, x, importance=tp.importance.GroupMagnitudeImportance(p=2), pruning_ratio=RATIO, ignored_layers=[last]
    )
    pruner.step()
    return model


def groups(model: nn.Module, x: torch.Tensor) -> object:
    import torch_pruning as tp

    graph: Any = tp.DependencyGraph().build_dependency(model, example_inputs=x)
    return list(graph.get_all_groups(root_module_types=[nn.Conv2d, nn.Linear]))


def compared(name: str, model: nn.Module, limits: tuple[float, float], side: int, repeats: int) -> list[dict[str, Any]]:
    x = torch.randn(1, 3, side, side)
    began = time.perf_counter()
    net = growir.from_torch(model, (x,))
    imported = time.perf_counter() - began
    spaces: list[float] = []
    whole: list[float] = []
    lowered: list[float] = []
    built: list[float] = []
    cut: list[float] = []
    for _ in range(repeats):
        fresh, again = (Network(net.graph.model_copy(), net.arrays) for _ in range(2))
        owners(fresh.graph)
        spaces.append(seconds(partial(analyse, fresh.graph)))
        ours: list[Network] = []
        modules: list[nn.Module] = []
        whole.append(seconds(partial(prune_into, ours, again)))
        lowered.append(seconds(partial(lower_into, modules, ours[0])))
        first, second = copy.deepcopy(model).eval(), copy.deepcopy(model).eval()
        built.append(seconds(partial(groups, first, x)))
        cut.append(seconds(partial(torch_pruned, second, x)))
        with torch.no_grad():  # both run
            modules[0].eval()(x)
            second(x)
    median = statistics.median
    return [
        {
            "what": f"{name}: channel spaces, ms",
            "value": 1e3 * median(spaces),
            "limit": limits[0],
            "torch-pruning ms": 1e3 * median(built),
            "faster": median(b / a for a, b in zip(spaces, built, strict=True)),
            "import s": imported,
        },
        {
            "what": f"{name}: prune 30 %, part of torch-pruning's time",
            "value": median(a / b for a, b in zip(whole, cut, strict=True)),
            "limit": limits[1],
            "ms": 1e3 * median(whole),
            "to_torch ms": 1e3 * median(lowered),
            "torch-pruning ms": 1e3 * median(cut),
            "faster": median(b / a for a, b in zip(whole, cut, strict=True)),
        },
    ]


def run(repeats: int = REPEATS, side: int = 224) -> dict[str, Any]:
    if importlib.util.find_spec("torch_pruning") is None:
        return {"rows": [{"what": "all", "note": "left out: pip install -c constraints.txt -e '.[bench]'"}]}
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    try:
        rows = compared("DenseNet-121", densenet121(), (20.0, 1 / 5), side, repeats)
        rows += compared("ResNet-18", resnet18(), (20.0, 1 / 2), side, repeats)
        rows += compared("MobileNetV2", mobilenet_v2(), (20.0, 1 / 2), side, repeats)
    finally:
        torch.set_num_threads(before)
    return {"rows": rows, "torch": torch.__version__, "threads": 1}
