"""What a rewrite really does to the loss: at once, measured before anything grows, or after a short training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from growir.graph import Graph
from growir.growth.divergence import Diverged
from growir.growth.recipe import Recipe
from growir.network import Network
from growir.params import frozen_keys
from growir.passes import Update
from growir.rewrite import Pass

if TYPE_CHECKING:
    from growir.growth.session import Session


def lessening(session: Session, step: Pass) -> float:
    """By how much the mean loss of the part that selects would decrease, on as many samples as growth is measured on.

    Statistics of norms are taken anew behind the growth, as those of a growth that is applied are.

    Args:
        session: The network, whose statistics have been taken anew; it stays as it is.
        step: What grows.
    """
    grown = session.fork()
    grown.grow(step)
    grown.recalibrate(3)
    return selection_loss(session) - selection_loss(grown)


def selection_loss(session: Session) -> float:
    """The mean loss of the part that selects, on as many samples as growth is measured on."""
    source = session.data.select
    assert source is not None, "the data is cut"
    return session.measure(source, session.config.policy.samples).metrics["loss"]


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """What a rewrite and a training after it come to.

    Attributes:
        loss: Of the part that selects; infinite where training diverged.
        learned: What training has changed, statistics included: a pass for the grown graph. None where nothing has.
    """

    loss: float
    learned: Update | None


def trained(session: Session, step: Pass, recipe: Recipe, *key: int) -> Trained:
    """Grow and train a fork, take its statistics anew, and judge it; the session stays as it is.

    Args:
        session: The network.
        step: What grows.
        recipe: Of the training.
        key: Of all draws, integers of at least 0.
    """
    child = session.fork()
    child.grow(step)
    start = child.network()
    try:
        if child.learned:
            child.train(recipe, *key)
    except Diverged:
        return Trained(math.inf, None)
    child.recalibrate(2, *key)
    loss = selection_loss(child)
    return Trained(loss, between(start, child.network())) if math.isfinite(loss) else Trained(math.inf, None)


def price(session: Session, grown: Graph, recipe: Recipe) -> float:
    """The floating-point operations that `trained` takes for what grows to this graph."""
    select, config = session.data.select, session.config
    assert select is not None, "the data is cut"
    read = min(config.policy.samples, len(select))
    if any(node.op.over_batch for node in grown.nodes):
        size = config.train.batch_size or 64
        read += min(config.train.recalibrate, -(-len(session.data.train) // size)) * size
    return operations(session, grown, recipe) + 2.0 * grown.costs().macs * read


def operations(session: Session, graph: Graph, recipe: Recipe) -> float:
    """Those of training alone: two a multiply-accumulate, and as many again for each of the two gradients."""
    return 6.0 * graph.costs().macs * recipe.seen(len(session.data.train))


def between(start: Network, end: Network) -> Update | None:
    """What leads from one network to another one of the same graph."""
    still = frozen_keys(start.graph)
    changed = {
        key: _difference(end.arrays[key], array)
        for key, array in start.arrays.items()
        if array.dtype.kind not in "biu" and key not in still and not np.array_equal(end.arrays[key], array)
    }
    return Update(parameters=tuple(changed), values=changed) if changed else None


def _difference(end: NDArray[Any], start: NDArray[Any]) -> NDArray[Any]:
    """What was added, in float32 at least: a difference of half precision would be rounded."""
    wide = np.promote_types(start.dtype, np.float32)
    return np.asarray(end.astype(wide) - start.astype(wide))
