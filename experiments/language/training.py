"""One training at a fixed compute, fully decayed: of one size throughout, or grown on the way.

Everything that is trained is growir's module of the same class, and every step is counted by its document, so that runs
of all sizes spend the same floating-point operations and see as many tokens as these pay for.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional

import growir
from experiments.language.corpus import Corpus
from experiments.language.nets import Gpt
from experiments.lines import Line
from growir import live
from growir.costs import costs_of
from growir.graph import Graph
from growir.live.schedule import FLOPS_PER_MAC
from growir.passes import Sequence, clone, deepen
from growir.rewrite import Pass

WARMUP, DECAY = 0.05, 0.3  # parts of the budget
DECAYED = 0.1  # weight decay of matrices


class Preset(NamedTuple):
    """Sizes of the experiment, and where it runs.

    Attributes:
        layers: Of the large net.
        width: Of its stream.
        size: Of a head.
        context: Tokens of a window.
        batch: Windows of a step.
        steps: Steps of the large net that are one unit of budget.
        judged: Batches of held-out text.
        packages: Whether installed packages are text too.
        device: Where it runs.
        half: Whether products are taken in bfloat16.
        compiled: Whether torch compiles the net, anew after a growth.
    """

    layers: int
    width: int
    size: int
    context: int
    batch: int
    steps: int
    judged: int = 100
    packages: bool = False
    device: str = "cpu"
    half: bool = False
    compiled: bool = False


PRESETS: Mapping[str, Preset] = {
    "tiny": Preset(2, 16, 4, 16, 4, 12, judged=4),
    "cpu": Preset(4, 32, 8, 64, 32, 750),
    "gpu": Preset(8, 384, 64, 256, 128, 4000, packages=True, device="cuda", half=True, compiled=True),
}


class Arm(NamedTuple):
    """What a run starts as, in parts of the large net, and what it grows into it by.

    Attributes:
        layers: The part of the layers that it starts with; one layer if 0.
        width: The part of the width.
        at: The part of the budget after which it grows; None for never.
        exact: Whether new blocks start as the identity.
    """

    layers: float = 1.0
    width: float = 1.0
    at: float | None = None
    exact: bool = False

    def sizes(self, preset: Preset) -> tuple[int, int]:
        """The layers and the width that it starts with."""
        return max(1, round(self.layers * preset.layers)), round(self.width * preset.width)


ARMS: Mapping[str, Arm] = {
    "scratch": Arm(),
    "shallow": Arm(layers=0.5),
    "narrow": Arm(width=0.5),
    "one layer": Arm(layers=0.0),
    "depth": Arm(layers=0.5, at=0.5),
    "depth, exact": Arm(layers=0.5, at=0.5, exact=True),
    "depth, late": Arm(layers=0.5, at=0.65),
    "depth from one": Arm(layers=0.0, at=0.5),
    "width": Arm(width=0.5, at=0.5),
    "both": Arm(layers=0.5, width=0.5, at=0.5),
}
NEVER = tuple(name for name, arm in ARMS.items() if arm.at is None)  # of one size throughout


class Request(NamedTuple):
    """One training.

    Attributes:
        preset: By its name.
        arm: By its name.
        seed: Of weights and batches.
        units: The budget.
        rate: The peak of the learning rate.
        scale: Of the initial weights, as `Gpt` has it.
    """

    preset: str
    arm: str
    seed: int
    units: float
    rate: float
    scale: float


def trained(request: Request, text: Corpus) -> Line:
    """Train, and say how the net does on held-out text, in nats a byte."""
    preset, arm = PRESETS[request.preset], ARMS[request.arm]
    device = torch.device(preset.device)
    module: nn.Module = _module(preset, *arm.sizes(preset), request).to(device)
    optimizer = torch.optim.AdamW(_groups(module), lr=request.rate, betas=(0.9, 0.95))
    growths = [] if arm.at is None else [live.Growth(arm.at, _growth(preset, arm))]
    schedule = live.Schedule(
        growths, budget=request.units * unit_flops(preset, request), warmup=WARMUP, decay=DECAY, groups=_group_of
    )
    generator = torch.Generator().manual_seed(request.seed)
    judged = text.judged(preset.batch, preset.context, preset.judged)
    run = _compiled(module, preset)
    steps, around = 0, dict[str, float]()
    began, used = time.perf_counter(), _cpu()
    while not schedule.ended:
        ids = text.batch(preset.batch, preset.context, generator).to(device)
        for group in optimizer.param_groups:
            group["lr"] = request.rate * schedule.factor()
        optimizer.zero_grad()
        torch.autograd.backward(_loss(run, ids, preset))
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        steps += 1
        before = module
        module, report = schedule.step(module, optimizer, preset.batch * preset.context)
        if report is not None:
            around["before"] = _judge(before, judged, preset)
            run = _compiled(module, preset)
            around |= {"after": _judge(module, judged, preset), "growth_seconds": report.seconds, "growth_step": steps}
    wall, cpu = time.perf_counter() - began, _cpu() - used
    return {
        **request._asdict(),
        "loss": _judge(module, judged, preset),
        "steps": steps,
        "tokens": steps * preset.batch * preset.context,
        "flops": schedule.spent,
        "parameters": sum(p.numel() for p in module.parameters()),
        "wall": wall,
        "cpu": cpu,
        **around,
    }


def unit_flops(preset: Preset, request: Request) -> float:
    """Floating-point operations of one unit: so many steps of the large net."""
    graph = live.graph_of(_module(preset, preset.layers, preset.width, request))
    return FLOPS_PER_MAC * costs_of(graph).macs * preset.batch * preset.steps


def _module(preset: Preset, layers: int, width: int, request: Request) -> nn.Module:
    torch.manual_seed(request.seed)
    model = Gpt(layers, width, preset.size, preset.context, request.scale)
    example = torch.zeros((2, preset.context), dtype=torch.int64)
    return growir.from_torch(model, example, check=False).to_torch()


def _growth(preset: Preset, arm: Arm) -> Any:
    def step(graph: Graph) -> Pass:
        layers, width = arm.sizes(preset)
        parts: list[Pass] = []
        if layers < preset.layers:
            parts.append(deepen(graph, "blocks", depth=preset.layers, exact=arm.exact))
        if width < preset.width:
            grown = parts[0].rewrite(graph).graph if parts else graph
            parts.append(clone(grown, preset.width // width))
        return parts[0] if len(parts) == 1 else Sequence(passes=tuple(parts))

    return step


def _groups(module: nn.Module) -> list[dict[str, Any]]:
    """Matrices decay; vectors do not."""
    parameters = list(module.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": DECAYED},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _group_of(key: str, parameter: torch.Tensor) -> int:
    return 0 if parameter.ndim > 1 else 1


def _compiled(module: nn.Module, preset: Preset) -> Any:
    return torch.compile(module) if preset.compiled else module


def _loss(run: Any, ids: torch.Tensor, preset: Preset) -> torch.Tensor:
    with torch.autocast(preset.device, torch.bfloat16, enabled=preset.half):
        logits = run(ids[:, :-1])
    return functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())


def _judge(module: nn.Module, batches: list[torch.Tensor], preset: Preset) -> float:
    """The mean loss on held-out text, in nats a byte."""
    module.eval()
    with torch.no_grad():
        losses = [_loss(module, ids.to(preset.device), preset).item() for ids in batches]
    module.train()
    return math.fsum(losses) / len(losses)


def _cpu() -> float:
    found = resource.getrusage(resource.RUSAGE_SELF)
    return found.ru_utime + found.ru_stime
