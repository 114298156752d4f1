"""Training steps of lowered networks against the same networks written by hand in torch."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.startup import Seconds
from growir.graph import Graph, Input, Node
from growir.network import Network
from growir.ops import AdaptiveAvgPool2d, Add, BatchNorm, Conv2d, Flatten, Linear, Relu
from growir.verify import verify

BLOCKS = 41
BLOCK_SECONDS = 0.06
LIMIT = 1.03


class Case(NamedTuple):
    """A network twice: as a graph and by hand, with the same state_dict keys.

    Attributes:
        name: Of the row.
        graph: What is lowered.
        by_hand: Makes the hand-written module.
        optimizer: Makes an optimizer for parameters.
        shape: Of an input batch.
    """

    name: str
    graph: Graph
    by_hand: Callable[[], nn.Module]
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
    shape: tuple[int, ...]


# -- the networks -----------------------------------------------------------------------------------------------------


class Mlp(nn.Module):
    """linear - relu - linear - relu - linear, as one writes it for speed."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.fc1 = nn.Linear(sizes[0], sizes[1])
        self.fc2 = nn.Linear(sizes[1], sizes[2])
        self.fc3 = nn.Linear(sizes[2], sizes[3])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)  # type: ignore[no-any-return]  # torch's modules return Any


def mlp(batch: int, *sizes: int) -> Case:
    nodes: list[Node] = []
    last = "x"
    for k, size in enumerate(sizes[1:], start=1):
        nodes.append(Node(name=f"fc{k}", op=Linear(out_features=size), inputs=(last,)))
        last = f"fc{k}"
        if k < len(sizes) - 1:
            nodes.append(Node(name=f"act{k}", op=Relu(), inputs=(last,)))
            last = f"act{k}"
    name = f"MLP {'-'.join(map(str, sizes))}, Adam, batch {batch}"
    return Case(
        name, _graph((sizes[0],), nodes), lambda: Mlp(sizes), lambda p: torch.optim.Adam(p, 1e-4), (batch, sizes[0])
    )


class Residual(nn.Module):
    """conv - norm - relu - conv - norm, added to the input or its 1x1 convolution, relu."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        stride = 1 if before == width else 2
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.skip = nn.Conv2d(before, width, 1, stride, bias=False) if before != width else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return F.relu((x if self.skip is None else self.skip(x)) + y)


class ConvNet(nn.Module):
    """A stem, residual blocks, global average pooling, a head."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        pairs = pairwise([widths[0], *widths])
        self.blocks = nn.Sequential(*(Residual(before, width) for before, width in pairs))
        self.head = nn.Linear(widths[-1], 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.conv(x)))
        x = self.blocks(x)
        x = torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)
        return self.head(x)  # type: ignore[no-any-return]  # torch's modules return Any


def convnet(batch: int, side: int, *widths: int) -> Case:
    nodes: list[Node] = []

    def conv(name: str, source: str, width: int, kernel: int = 3, stride: int = 1) -> str:
        op = Conv2d(out_channels=width, kernel_size=kernel, stride=stride, padding=kernel // 2, bias=False)
        nodes.append(Node(name=name, op=op, inputs=(source,)))
        return name

    def conv_norm(conv_name: str, norm: str, source: str, width: int, stride: int = 1) -> str:
        nodes.append(Node(name=norm, op=BatchNorm(), inputs=(conv(conv_name, source, width, 3, stride),)))
        return norm

    def relu(name: str, source: str) -> str:
        nodes.append(Node(name=name, op=Relu(), inputs=(source,)))
        return name

    x = relu("act", conv_norm("conv", "norm", "x", widths[0]))
    for k, (before, width) in enumerate(pairwise([widths[0], *widths])):
        at, stride = f"blocks.{k}", 1 if before == width else 2
        y = relu(f"{at}.act1", conv_norm(f"{at}.conv1", f"{at}.norm1", x, width, stride))
        y = conv_norm(f"{at}.conv2", f"{at}.norm2", y, width)
        x = x if before == width else conv(f"{at}.skip", x, width, 1, stride)
        nodes.append(Node(name=f"{at}.add", op=Add(), inputs=(x, y)))
        x = relu(f"{at}.act2", f"{at}.add")
    nodes += [
        Node(name="pool", op=AdaptiveAvgPool2d(), inputs=(x,)),
        Node(name="flat", op=Flatten(), inputs=("pool",)),
        Node(name="head", op=Linear(out_features=10), inputs=("flat",)),
    ]
    return Case(
        f"residual convnet {'-'.join(map(str, widths))}, SGD, {side}x{side}, batch {batch}",
        _graph((3, side, side), nodes),
        lambda: ConvNet(widths),
        lambda p: torch.optim.SGD(p, 1e-3, momentum=0.9),
        (batch, 3, side, side),
    )


def _graph(shape: tuple[int, ...], nodes: Sequence[Node]) -> Graph:
    entry = Input(name="x", shape=("N", *shape))
    return verify(Graph(name="benchmark", inputs=(entry,), nodes=tuple(nodes), outputs=(nodes[-1].name,)))


# -- timing -----------------------------------------------------------------------------------------------------------


def stepper(case: Case, module: nn.Module, compiled: bool, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    """One step of training: forward, loss, backward, optimizer."""
    optimizer = case.optimizer(module.parameters())
    forward = torch.compile(module, fullgraph=True) if compiled else module

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(forward(x), y).backward()  # type: ignore[no-untyped-call]  # torch's own stub
        optimizer.step()

    return step


def timed(step: Callable[[], None], count: int, device: str) -> Seconds:
    """Seconds per step; work queued on a GPU is waited for."""
    wait: Callable[[], None] = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    cpu, start = time.process_time(), time.perf_counter()
    for _ in range(count):
        step()
    wait()
    wall = time.perf_counter() - start
    return Seconds(wall / count, (time.process_time() - cpu) / count)


def measure(
    case: Case,
    device: str = "cpu",
    *,
    compiled: bool = False,
    blocks: int = BLOCKS,
    block_seconds: float = BLOCK_SECONDS,
) -> dict[str, Any]:
    """Blocks of steps of three modules in turn: lowered, by hand, and by hand once more, to see what chance does."""
    torch.manual_seed(0)
    lowered = Network.init(case.graph).to_torch(device)
    modules: dict[str, nn.Module] = {"hand": case.by_hand().to(device), "lowered": lowered}
    modules["again"] = case.by_hand().to(device)
    x = torch.randn(case.shape, device=device)
    y = torch.randint(10, case.shape[:1], device=device)
    for module in modules.values():
        module.load_state_dict(lowered.state_dict())
        torch.testing.assert_close(module.eval()(x), lowered.eval()(x))
    for module in modules.values():
        module.train()
    steps = {name: stepper(case, module, compiled, x, y) for name, module in modules.items()}
    for step in steps.values():
        timed(step, 3, device)  # allocates, tunes, compiles
    for module in modules.values():
        # They learn the same too; batch norm in eval mode, say, would be quicker.
        torch.testing.assert_close(module.state_dict(), lowered.state_dict(), rtol=1e-2, atol=1e-3)
    count = max(1, round(block_seconds / timed(steps["hand"], 3, device).wall))
    found: dict[str, list[Seconds]] = {name: [] for name in steps}
    order = random.Random(0)
    for _ in range(blocks):
        # In a new order each time: none always runs in the caches that another left.
        for name in order.sample(sorted(steps), len(steps)):
            found[name].append(timed(steps[name], count, device))

    def ratios(name: str, clock: str) -> list[float]:
        return [getattr(a, clock) / getattr(b, clock) for a, b in zip(found[name], found["hand"], strict=True)]

    wall = ratios("lowered", "wall")
    low, _, high = statistics.quantiles(wall, n=4)
    again = statistics.quantiles(ratios("again", "wall"), n=4)
    milliseconds = {name: 1e3 * statistics.median(s.wall for s in seconds) for name, seconds in found.items()}
    return {
        "what": case.name + (", compiled" if compiled else ""),
        "value": statistics.median(wall),
        "unit": "x",
        "quartiles": f"{low:.3f} to {high:.3f}",
        "cpu ratio": statistics.median(ratios("lowered", "cpu")),
        "by hand again": f"{again[1]:.3f} ({again[0]:.3f} to {again[2]:.3f})",
        "lowered ms": milliseconds["lowered"],
        "by hand ms": milliseconds["hand"],
        "steps": f"{blocks} x {count}",
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
    }


def run() -> dict[str, Any]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a second one waits for whatever else the machine does
    try:
        promised = [mlp(128, 784, 256, 256, 10), convnet(32, 16, 16, 16, 32, 32)]
        # So small that the calls around the arithmetic show.
        tiny = mlp(32, 64, 16, 16, 10)
        rows: list[dict[str, Any]] = []
        for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
            rows += [{**measure(case, device), "limit": LIMIT} for case in promised]
            rows.append(measure(tiny, device))
        rows += compiled_rows(promised)
    finally:
        torch.set_num_threads(threads)
    return {"rows": rows, "torch": torch.__version__, "threads": 1}


def compiled_rows(cases: Sequence[Case]) -> list[dict[str, Any]]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows: list[dict[str, Any]] = []
    for case in cases:
        try:
            rows.append(measure(case, device, compiled=True))
        except torch._dynamo.exc.BackendCompilerFailed as error:  # inductor needs a C++ compiler
            reason = str(error).strip().splitlines()[0]
            rows.append({"what": f"{case.name}, compiled", "note": reason})
    return rows
