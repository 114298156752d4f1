"""The next block of a stage, and what the last parameters on its way to the sum start with."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Literal

import torch
from numpy.typing import NDArray

from growir.backends.torch_arrays import to_array
from growir.data.shuffling import generator
from growir.errors import RunError, cut
from growir.graph import Graph
from growir.params import param_table
from growir.passes import Stack
from growir.passes.stack import next_module
from growir.stages import Stage, repeat_of

if TYPE_CHECKING:
    from growir.growth.session import Session

BETTER = 0.999  # of the loss that there was before, which counts as no worse


def next_block(graph: Graph, stage: Stage, seed: int, *, copy_weights: bool = False) -> Stack:
    """One more block at the end of a stage: as the last one, or where there is only a head what repeats behind it.

    It is exact where it can be.

    Args:
        graph: The graph.
        stage: One of its stages.
        seed: Of fresh numbers.
        copy_weights: Whether it has the weights of the block before it, where that is one of its kind.

    Raises:
        RunError: The stage has only a head, which cannot stand behind itself.
    """
    block = stage.repeated
    if block is not None:
        step = Stack(block=block.nodes, input=block.input, copy_weights=copy_weights, seed=seed)
    else:
        head = stage.blocks[0]
        document = repeat_of(graph, head)
        if isinstance(document, str):
            raise RunError(f"stage {cut(stage.name)} cannot become deeper: {document}")
        step = Stack(block=document, after=head.output, module=next_module(graph, head), seed=seed)
    return step.model_copy(update={"exact": not isinstance(step.identity(graph), str)})


def drawn(
    graph: Graph, step: Stack, keys: Collection[str], how: Literal["uniform", "gaussian"], *key: int
) -> dict[str, NDArray[Any]]:
    """Numbers with std 1 by chance for vectors among the keys, such as a norm's; matrices start as ever.

    Args:
        graph: The graph.
        step: The new block.
        keys: Of its parameters.
        how: The distribution.
        key: What they are drawn by, integers of at least 0.
    """
    table = param_table(step.rewrite(graph).graph)
    found: dict[str, NDArray[Any]] = {}
    for number, name in enumerate(sorted(keys)):
        shape = table[name].shape
        if len(shape) != 1:
            continue
        random = generator(60, *key, number)
        if how == "gaussian":
            found[name] = to_array(torch.randn(shape, generator=random, dtype=torch.float64))
        else:
            found[name] = to_array((2 * torch.rand(shape, generator=random, dtype=torch.float64) - 1) * math.sqrt(3))
    return found


def learned_alone(
    session: Session, step: Stack, keys: Collection[str], epochs: int, key: int
) -> dict[str, NDArray[Any]]:
    """What some parameters of a new block come to where they alone are trained, by Adam, on a fork.

    It ends as soon as the training loss is no worse than it was before the block was there.

    Args:
        session: What grows.
        step: The new block.
        keys: Of its parameters.
        epochs: The most.
        key: Of the draws.
    """
    most = session.config.policy.samples
    before = session.measure(session.data.train, most).metrics["loss"]
    fork = session.fork()
    fork.grow(step)
    fork.recalibrate(3, key)
    for name, parameter in fork.learned.items():
        parameter.requires_grad_(name in keys)
    fork.optimizer = torch.optim.Adam(list(fork.learned.values()), lr=0.01)
    size = session.train_config.batch_size or 64
    for epoch in range(epochs):
        fork.train({"epochs": 1, "batch_size": size}, 60, key, epoch)
        if fork.measure(fork.data.train, most).metrics["loss"] * BETTER <= before:
            break
    return {name: to_array(parameter) for name, parameter in fork.learned.items()}
