"""A growth event on ResNet-18 in training (pass, lowering, weights, Adam's state, first step) against ten steps."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import fx

from growir import live
from growir.graph import Graph, Input, Node
from growir.network import Network
from growir.ops import AdaptiveAvgPool2d, Add, BatchNorm, Conv2d, Flatten, Linear, MaxPool2d, Op, Relu
from growir.passes import Widen
from growir.rewrite import Pass
from growir.verify import verify

REPEATS = 5
STEPS = 10
WIDTHS = (64, 128, 256, 512)


def resnet18(side: int, widths: tuple[int, ...] = WIDTHS, classes: int = 10) -> Graph:
    """ResNet-18 (He et al. 2016) for images of side x side, under the names that torchvision gives its parts."""
    nodes: list[Node] = []

    def add(name: str, op: Op, *inputs: str) -> str:
        nodes.append(Node(name=name, op=op, inputs=inputs))
        return name

    def conv(name: str, norm: str, x: str, width: int, kernel: int, stride: int = 1) -> str:
        op = Conv2d(out_channels=width, kernel_size=kernel, stride=stride, padding=kernel // 2, bias=False)
        return add(norm, BatchNorm(), add(name, op, x))

    x = add("relu", Relu(), conv("conv1", "bn1", "x", widths[0], 7, 2))
    x = add("maxpool", MaxPool2d(kernel_size=3, stride=2, padding=1), x)
    for stage, (before, width) in enumerate(pairwise([widths[0], *widths]), start=1):
        for block in range(2):
            at = f"layer{stage}.{block}"
            stride = 2 if block == 0 and stage > 1 else 1
            y = add(f"{at}.relu1", Relu(), conv(f"{at}.conv1", f"{at}.bn1", x, width, 3, stride))
            y = conv(f"{at}.conv2", f"{at}.bn2", y, width, 3)
            if stride == 2 or (block == 0 and before != width):
                x = conv(f"{at}.downsample.0", f"{at}.downsample.1", x, width, 1, stride)
            x = add(f"{at}.relu2", Relu(), add(f"{at}.add", Add(), y, x))
    flat = add("flat", Flatten(), add("avgpool", AdaptiveAvgPool2d(), x))
    head = add("fc", Linear(out_features=classes), flat)
    entry = Input(name="x", shape=("N", 3, side, side))
    return verify(Graph(name="resnet18", inputs=(entry,), nodes=tuple(nodes), outputs=(head,)))


class Event(NamedTuple):
    """Seconds of one growth and of what surrounds it."""

    steps: float
    grow: float
    first: float


def trained(graph: Graph) -> tuple[fx.GraphModule, torch.optim.Optimizer]:
    torch.manual_seed(0)
    module = Network.init(graph).to_torch().train()
    return module, torch.optim.Adam(module.parameters(), 1e-4)


def step_of(module: fx.GraphModule, optimizer: torch.optim.Optimizer, batch: int, side: int) -> Callable[[], None]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 3, side, side, generator=generator)
    y = torch.randint(10, (batch,), generator=generator)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(module(x), y).backward()  # type: ignore[no-untyped-call]  # torch's own stub
        optimizer.step()

    return step


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def event(graph: Graph, growth: Pass, batch: int, side: int, steps: int, order: random.Random) -> Event:
    """Ten steps, and a growth with the step after it, of two copies in either order."""
    found: dict[str, Any] = {}

    def train() -> None:
        step = step_of(*trained_once(graph, batch, side), batch, side)
        found["steps"] = seconds(lambda: [step() for _ in range(steps)])

    def grow() -> None:
        module, optimizer = trained_once(graph, batch, side)
        start = time.perf_counter()
        grown, _ = live.grow(module, growth, optimizer)
        found["grow"] = time.perf_counter() - start
        found["first"] = seconds(step_of(grown, optimizer, batch, side))

    for part in order.sample([train, grow], 2):
        part()
    return Event(**found)


def trained_once(graph: Graph, batch: int, side: int) -> tuple[fx.GraphModule, torch.optim.Optimizer]:
    """A module and its optimizer after one step, so that Adam has its state."""
    module, optimizer = trained(graph)
    step_of(module, optimizer, batch, side)()
    return module, optimizer


def measure(
    graph: Graph, growth: Pass, side: int, threads: int, *, batch: int = 64, steps: int = STEPS, repeats: int = REPEATS
) -> dict[str, Any]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        order = random.Random(0)
        events = [event(graph, growth, batch, side, steps, order) for _ in range(repeats)]
    finally:
        torch.set_num_threads(before)
    ratios = [(e.grow + e.first) / e.steps for e in events]
    low, middle, high = statistics.quantiles(ratios, n=4)
    milliseconds = {name: 1e3 * statistics.median(getattr(e, name) for e in events) for name in Event._fields}
    return {
        "what": f"{graph.name}, {growth.name} {getattr(growth, 'node', '')}, {side}x{side}, batch {batch}, "
        f"{threads} thread{'s' if threads > 1 else ''}",
        "value": middle,
        "unit": f"x {steps} steps",
        "limit": 1.0,
        "quartiles": f"{low:.3f} to {high:.3f}",
        "growth ms": milliseconds["grow"],
        "step after ms": milliseconds["first"],
        "one step ms": milliseconds["steps"] / steps,
        "repeats": repeats,
    }


def run() -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    # A whole residual class of stage 2, and the channels inside one block.
    for side, node in ((32, "layer2.0.add"), (32, "layer3.1.conv1"), (64, "layer2.0.add")):
        rows += [measure(resnet18(side), Widen(node=node, by=16), side, threads) for threads in (1, 2)]
    return {"rows": rows, "torch": torch.__version__}
