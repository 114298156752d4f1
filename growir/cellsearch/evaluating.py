"""A network of cells trained from scratch, with paths dropped and a second head for as long as it trains.

Both are data of the training and no part of the graph: the network that comes back is the graph's own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import fx, nn

from growir import store
from growir.backends.torch_arrays import to_array, to_tensor
from growir.backends.torch_fx.building import NAME
from growir.backends.torch_fx.lowering import lower_tensors
from growir.cells.reading import cells_of
from growir.cellsearch.config import EvaluationConfig
from growir.cellsearch.problem import Images
from growir.data.feeding import Feed, InputSpec
from growir.data.shuffling import Shuffle
from growir.document import decode
from growir.drafting import Draft
from growir.errors import GraphError, RunError
from growir.graph import Graph
from growir.growth.device import amp_type, device_of
from growir.growth.evaluating import evaluate
from growir.growth.fit import fit
from growir.growth.objective import Objective, Outputs, full_precision
from growir.growth.optimizer_state import OptimizerState, optimizer_state, restore_optimizer
from growir.growth.optimizing import make
from growir.growth.phase import Hooks, Position
from growir.growth.rates import schedule
from growir.growth.reading import batch_count
from growir.growth.recipe import Recipe
from growir.network import Network
from growir.ops import AvgPool2d, BatchNorm, Conv2d, Flatten, Linear, Relu
from growir.ops.pool import AdaptiveAvgPool2d
from growir.params import param_table
from growir.shapes import shapes_of

STATE, AHEAD = "state", "ahead"  # what going on needs; and what a key of the second head begins with
BATCH = 256  # samples that are tested at a time
Told = Callable[[int, int, float], None]  # epochs done and in all, and the mean loss of the last one


@dataclass(frozen=True, slots=True, eq=False)
class Evaluated:
    """A network that was trained from scratch.

    Attributes:
        network: It.
        loss: Of its last epoch, the second head's share among it.
        metrics: On the test part; empty where there is none.
        cpu: CPU seconds of the process that this part of the training took.
    """

    network: Network
    loss: float
    metrics: dict[str, float]
    cpu: float


class DropPath(nn.Module):
    """Lets what it reads be zero for some samples while it trains, and scales the others up.

    Attributes:
        rate: The chance.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rate = 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W), each sample kept whole or not at all."""
        if not self.training or not self.rate:
            return x
        kept = torch.rand((x.shape[0], 1, 1, 1), device=x.device) >= self.rate
        return x * kept.to(x.dtype) / (1.0 - self.rate)


class WithSecond:
    """The loss of a network and, while it trains, so many times that of its second head."""

    def __init__(self, objective: Objective, weight: float) -> None:
        self._objective, self._weight = objective, weight

    def each(self, outputs: Outputs, target: Any) -> torch.Tensor:
        """(n,) losses."""
        found = self._objective.each(outputs[:1], target)
        return found + self._weight * self._objective.each(outputs[1:], target) if len(outputs) > 1 else found

    def total(self, outputs: Outputs, target: Any) -> torch.Tensor:
        """Their sum."""
        found = self._objective.total(outputs[:1], target)
        return found + self._weight * self._objective.total(outputs[1:], target) if len(outputs) > 1 else found

    def metrics(self, outputs: Outputs, target: Any) -> dict[str, torch.Tensor]:
        """Those of the first head."""
        return self._objective.metrics(outputs[:1], target)


class Training(nn.Module):
    """A network as it trains: paths drop out, and a second head reads a cell in the middle.

    Attributes:
        tensors: The network's own, by key.
        paths: What drops paths.
    """

    def __init__(self, network: Network, classes: int, device: torch.device, *, second: bool, seed: int) -> None:
        super().__init__()
        graph = network.graph
        self.paths = DropPath()
        self.tensors: dict[str, torch.Tensor] = {}
        for key, param in param_table(graph).items():
            tensor = to_tensor(network.arrays[key]).to(device)
            self.tensors[key] = tensor if param.buffer else nn.Parameter(tensor)
        middle = middle_of(graph) if second else None
        shown = graph if middle is None else graph.replace(outputs=(*graph.outputs, middle), history=None)
        self.net = dropping(lower_tensors(shown, self.tensors, device, form="nodes"), graph, self.paths)
        self.head: nn.Module | None = None
        if middle is not None:
            made = Network.init(second_head(shapes_of(graph)[middle].sizes, classes), seed)
            self.head = made.to_torch().to(device)

    def forward(self, *inputs: torch.Tensor) -> Outputs:
        """Logits, and while it trains the second head's."""
        found = self.net(*inputs)
        if self.head is None:
            return (found,)
        logits, read = found
        return (logits, self.head(read)) if self.training else (logits,)

    def all_tensors(self) -> dict[str, torch.Tensor]:
        """The network's tensors, and the second head's under names of their own."""
        head = {} if self.head is None else self.head.state_dict(keep_vars=True)
        return {**self.tensors, **{f"{AHEAD}.{key}": tensor for key, tensor in head.items()}}

    def learned(self) -> dict[str, nn.Parameter]:
        """What learns."""
        return {key: tensor for key, tensor in self.all_tensors().items() if isinstance(tensor, nn.Parameter)}


def middle_of(graph: Graph) -> str | None:
    """What the last reduction cell gives, which a second head reads (DARTS); None where there is none."""
    reductions = [at.output for at in cells_of(graph) if at.kind == "reduce"]
    return reductions[-1] if reductions else None


def second_head(shape: tuple[int, ...], classes: int) -> Graph:
    """A small head of two convolutions, as DARTS has it beside its network.

    Args:
        shape: (C, H, W) of what it reads. Its pool gives maps of 2 x 2, by the windows of DARTS where these fit.
        classes: Its outputs.
    """
    draft = Draft({"x": shape})
    draft.add("act0", Relu())
    usual = shape[1:] == (8, 8)  # of images of 32 x 32 pixels
    draft.add("pool", AvgPool2d(kernel_size=5, stride=3) if usual else AdaptiveAvgPool2d(output_size=2))
    draft.add("conv1", Conv2d(out_channels=128, kernel_size=1, bias=False))
    draft.add("norm1", BatchNorm())
    draft.add("act1", Relu())
    draft.add("conv2", Conv2d(out_channels=768, kernel_size=2, bias=False))
    draft.add("norm2", BatchNorm())
    draft.add("act2", Relu())
    draft.add("flat", Flatten())
    draft.add("linear", Linear(out_features=classes))
    return draft.graph("second_head")


def dropping(module: fx.GraphModule, graph: Graph, paths: DropPath) -> fx.GraphModule:
    """The same module with paths that drop out: behind each operation of a cell but the identity."""
    ends = {each.value for at in cells_of(graph) for each in at.operations if each.nodes}
    last = {node.meta[NAME]: node for node in module.graph.nodes if node.meta.get(NAME) in ends}
    module.add_submodule("drop_path", paths)
    for node in last.values():
        with module.graph.inserting_after(node):
            dropped = module.graph.call_module("drop_path", (node,))
        node.replace_all_uses_with(dropped, delete_user_cb=_other_than(dropped))
    module.recompile()
    return module


def _other_than(node: fx.Node) -> Callable[[fx.Node], bool]:
    return lambda user: user is not node


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A training that could begin.

    Attributes:
        module: What trains.
        optimizer: Of all that learns.
        recipe: How long and how; None where nothing is trained.
        steps: Of the optimizer, in all; None where nobody knows.
        feed: Makes of batches what the module takes.
    """

    module: Training
    optimizer: torch.optim.Optimizer
    recipe: Recipe | None
    steps: int | None
    feed: Feed


def prepared(network: Network, images: Images, settings: EvaluationConfig, seed: int) -> Prepared:
    """All that a training needs before its first step.

    Raises:
        RunError: The settings do not go with each other, with the network or with this machine.
    """
    device = device_of(settings.device)
    if settings.auxiliary and settings.epochs and middle_of(network.graph) is None:
        raise RunError(
            "[evaluation] auxiliary: a second head reads the last cell that halves the size, but none does; let it be "
            "0, or let reductions name one"
        )
    module = Training(network, images.classes, device, second=settings.auxiliary > 0, seed=seed)
    optimizer = make(module.learned(), settings.optimizer)
    feed = Feed([InputSpec(each.name, tuple(each.shape), each.dtype) for each in network.graph.inputs], device)
    if not settings.epochs:
        return Prepared(module, optimizer, None, None, feed)
    recipe = Recipe(
        epochs=settings.epochs, batch_size=settings.batch_size, rate=settings.rate, clip=settings.clip, amp=settings.amp
    )
    amp_type(settings.amp, device, torch.float32)
    steps = recipe.all_steps(batch_count(images.problem.data.everything(), settings.batch_size))
    return Prepared(module, optimizer, recipe, steps, feed)


def check(network: Network, images: Images, settings: EvaluationConfig) -> None:
    """Refuse a training that could not begin. Raises RunError as `prepared` does."""
    ready = prepared(network, images, settings, 0)
    if ready.recipe is not None:
        schedule(ready.optimizer, settings.rate, ready.steps)


def train(
    network: Network,
    images: Images,
    settings: EvaluationConfig,
    seed: int,
    folder: Path | None = None,
    told: Told = lambda done, total, loss: None,
) -> Evaluated:
    """Train a network of cells on all training data, or go on where it was stopped.

    Args:
        network: With fresh weights.
        images: The data.
        settings: How.
        seed: Of all draws.
        folder: Where what going on needs is kept after each epoch; None keeps nothing.
        told: Hears of each epoch.

    Raises:
        RunError: The loss is not finite, or what is in the folder is of another network or damaged.
        DataError: The data does not fit.
    """
    began = time.process_time()
    ready = prepared(network, images, settings, seed)
    module, optimizer, feed = ready.module, ready.optimizer, ready.feed
    start = None if folder is None else _gone_on(folder / STATE, module, optimizer)
    loss = float("nan")
    if ready.recipe is not None:

        def drop(done: int) -> None:
            module.paths.rate = settings.drop_path * done / settings.epochs

        def save(position: Position) -> None:
            if folder is not None:
                _save(folder / STATE, module, optimizer, position)

        def after(done: int, total: int, mean: float) -> None:
            drop(done)
            told(done, total, mean)

        drop(0 if start is None else start.epoch)
        fitted = fit(
            module,
            WithSecond(images.problem.objective, settings.auxiliary),
            images.problem.data.everything(),
            optimizer,
            ready.recipe,
            shuffle=Shuffle((seed, 60)),
            scheduler=schedule(optimizer, settings.rate, ready.steps, step=0 if start is None else start.steps),
            feed=feed,
            draws=settings.drop_path > 0,
            device=feed.device,
            start=start,
            hooks=Hooks(epoch=after, checkpoint=save),
            phase="evaluation",
        )
        loss = fitted.loss
    metrics: dict[str, float] = {}
    test = images.problem.data.test
    if test is not None:
        module.eval()
        metrics = evaluate(
            lambda batch: full_precision(module(*batch.inputs)),
            images.problem.objective,
            feed.epoch(test, BATCH, name="the test data"),
        ).metrics
    arrays = {key: to_array(tensor) for key, tensor in module.tensors.items()}
    return Evaluated(Network(network.graph, arrays), loss, metrics, time.process_time() - began)


def _save(path: Path, module: Training, optimizer: torch.optim.Optimizer, position: Position) -> None:
    kept = optimizer_state(optimizer, module.learned())
    text = json.dumps({"position": asdict(position), "optimizer": kept.rest})

    def fill(folder: Path) -> None:
        store.write_tensors(folder / "tensors.safetensors", _arrays(module.all_tensors()))
        store.write_tensors(folder / "optimizer.safetensors", _arrays(kept.tensors))
        store.write_file(folder / "state.json", text.encode())

    store.write_folder(path, fill)


def _arrays(tensors: dict[str, torch.Tensor]) -> dict[str, NDArray[Any]]:
    return {key: to_array(tensor) for key, tensor in tensors.items()}


def _gone_on(path: Path, module: Training, optimizer: torch.optim.Optimizer) -> Position | None:
    """Put what a folder holds in place; where it stood, None where there is nothing. Raises RunError."""
    store.recover(path)
    if not path.exists():
        return None
    try:
        tensors, _ = store.read_tensors(path / "tensors.safetensors")
        slots, _ = store.read_tensors(path / "optimizer.safetensors")
        state = decode((path / "state.json").read_bytes())
        mine = module.all_tensors()
        forms = {key: (tuple(array.shape), str(array.dtype)) for key, array in tensors.items()}
        if forms != {key: (tuple(array.shape), str(array.dtype)) for key, array in _arrays(mine).items()}:
            raise RunError(f"{path}: what is kept here is of another network; give another --out")
        with torch.no_grad():
            for key, tensor in mine.items():
                tensor.copy_(to_tensor(tensors[key]))
        kept = OptimizerState({key: to_tensor(array) for key, array in slots.items()}, state["optimizer"])
        restore_optimizer(optimizer, kept, module.learned())
        return Position(**state["position"])
    except (GraphError, KeyError, TypeError, ValueError, OSError) as error:
        raise RunError(f"{path}: what going on needs is damaged: {error}; give another --out") from None
