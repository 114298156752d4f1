"""Splits whose two units part in the best direction, learned for every unit of every site at once while weights stand.

Directions theta are learned by Adam on what effects predict, batch by batch. Steps are measured in norm(w) / sqrt(n) of
the n weights w that make a unit in a layer, so that they mean the same in every layer; and theta stays in a ball, or on
a sphere, of a share of norm(w): an estimate of first order says nothing of what lies far off (Gauss-Newton morphisms).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from growir.addresses import Address
from growir.data.nests import on_tensors
from growir.data.shuffling import generator
from growir.growth.measure.effects import Effects
from growir.growth.measure.learning import finite_loss
from growir.growth.measure.sites import Site
from growir.growth.measure.splits import Block
from growir.growth.objective import Outputs

if TYPE_CHECKING:
    from growir.growth.session import Session

Estimate = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # of effects (n, count) and losses (n,) the (count,)
BETAS, TINY = (0.9, 0.99), 1e-12


@dataclass(frozen=True, slots=True)
class Learning:
    """How directions are learned.

    Attributes:
        steps: Of Adam, one a batch.
        batch: Samples in each.
        samples: The most samples that batches are drawn from.
        rate: Of Adam, in norm(w) / sqrt(n).
        trust: The largest norm of theta, as a share of norm(w).
        sphere: Whether theta has this norm, and not only at most.
        memory: What the running mean of the estimates keeps at each step.
    """

    steps: int
    batch: int
    samples: int
    rate: float
    trust: float
    sphere: bool = False
    memory: float = 0.9


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """What was learned.

    Attributes:
        effects: Of the module.
        theta: By the name of a site its directions, by address.
        splits: By the name of a site the predicted change of the mean loss by a split of each unit, (count,).
        prunes: And by a prune of each; empty where nobody asked.
    """

    effects: Effects
    theta: dict[str, dict[Address, torch.Tensor]]
    splits: dict[str, torch.Tensor]
    prunes: dict[str, torch.Tensor]


def learned(
    session: Session, sites: Sequence[Site], how: Learning, estimate: Estimate, key: int, *, prunes: bool = False
) -> Learned:
    """Learn a direction for every unit of some sites, and what its split would bring.

    Nothing of the session changes. Predictions are running means over batches, the first of which weigh as much as
    the later ones do (Adam's correction); directions move meanwhile, as in the paper.

    Args:
        session: The network, with the data it is trained on.
        sites: Of its graph; those without effects are left out.
        how: For how long, and how far.
        estimate: What effects come to, such as `gauss_newton`. Its sum over units is made small.
        key: Of the growth, for random numbers.
        prunes: Whether prunes are predicted too.

    Raises:
        RunError: The loss is not finite.
    """
    effects = Effects(session.module, sites)
    found = Learned(effects, {}, {}, {})
    keys = {site.name: (session.seed, 40, key, turn) for turn, site in enumerate(effects.sites)}
    ways = {site.name: _Way(effects, site, how, keys[site.name]) for site in effects.sites}
    for step, (inputs, target) in enumerate(_batches(session, how, key), 1):

        def losses(outputs: Outputs, target: Any = target) -> torch.Tensor:
            return session.objective.each(outputs, target)

        point = effects.at(inputs, losses)
        finite_loss(point.losses.mean())
        for site in effects.sites:
            way = ways[site.name]
            predicted = estimate(point.split(site, way.theta), point.losses)
            _follow(found.splits, site.name, predicted.detach(), how.memory)
            way.step(predicted.sum(), step)
            if prunes:
                _follow(found.prunes, site.name, estimate(point.prune(site), point.losses), how.memory)
    correction = 1 - how.memory**how.steps
    for site in effects.sites:
        found.theta[site.name] = {address: numbers.detach() for address, numbers in ways[site.name].theta.items()}
        if not all(bool(numbers.isfinite().all()) for numbers in found.theta[site.name].values()):
            found.splits[site.name] = torch.full_like(found.splits[site.name], torch.nan)  # slopes beyond all numbers
        for means in (found.splits, found.prunes):
            if site.name in means:
                means[site.name] = means[site.name] / correction
    # Two walks each way over what lies between layers cost about as much as the pass itself.
    session.meter.count(2 * 6.0 * session.graph.costs().macs * how.steps * how.batch)
    return found


class _Way:
    """Directions of one site, and Adam's means of their slopes."""

    def __init__(self, effects: Effects, site: Site, how: Learning, key: tuple[int, ...]) -> None:
        self.how = how
        self.blocks = effects.blocks[site.name]
        self.radius: dict[Address, torch.Tensor] = {}  # (count,) by address
        self.theta: dict[Address, torch.Tensor] = {}
        self.means: dict[Address, tuple[torch.Tensor, torch.Tensor]] = {}
        draws = generator(*key)
        for address, block in self.blocks.items():
            weight = block.own(effects.parameter(block.key))
            self.radius[address] = how.trust * block.norms(weight)
            # At 0 the effect of a split is flat, so directions start halfway to the border.
            drawn = torch.randn(block.shape, generator=draws, dtype=torch.float64).to(weight)
            factors = 0.5 * self.radius[address] / block.norms(drawn).clamp_min(TINY)
            self.theta[address] = block.scaled(drawn, factors)
            self.means[address] = torch.zeros_like(weight), torch.zeros_like(weight)
            self._bound(address, block)
        self._lead()

    def step(self, total: torch.Tensor, step: int) -> None:
        """One step of Adam towards a smaller total, and back into the ball."""
        numbers = list(self.theta.values())
        if not (numbers and total.requires_grad):
            return
        slopes = torch.autograd.grad(total, numbers, allow_unused=True, materialize_grads=True)
        for (address, theta), slope in zip(list(self.theta.items()), slopes, strict=True):
            block, (first, second) = self.blocks[address], self.means[address]
            first.lerp_(slope, 1 - BETAS[0])
            second.lerp_(slope.square(), 1 - BETAS[1])
            way = first / (1 - BETAS[0] ** step) / ((second / (1 - BETAS[1] ** step)).sqrt() + TINY)
            per_weight = (
                self.radius[address] / self.how.trust / max(theta.numel() / len(self.radius[address]), 1) ** 0.5
            )
            self.theta[address] = theta.detach() - self.how.rate * block.scaled(way, per_weight)
            self._bound(address, block)
        self._lead()

    def _bound(self, address: Address, block: Block) -> None:
        theta, radius = self.theta[address], self.radius[address]
        factors = radius / block.norms(theta).clamp_min(TINY)
        self.theta[address] = block.scaled(theta, factors if self.how.sphere else factors.clamp_max(1.0))

    def _lead(self) -> None:
        for theta in self.theta.values():
            theta.requires_grad_()


def _follow(means: dict[str, torch.Tensor], name: str, value: torch.Tensor, memory: float) -> None:
    before = means.get(name, torch.zeros_like(value))
    means[name] = memory * before + (1 - memory) * value


def _batches(session: Session, how: Learning, key: int) -> Iterator[tuple[list[torch.Tensor], Any]]:
    """Inputs and targets of random samples that are trained on; of each walk through them every sample at most once."""
    names = [entry.name for entry in session.graph.inputs]
    values, target = session.reading.gathered(session.data.train, names, how.samples)
    count = len(values[names[0]])
    draws, order = generator(session.seed, 41, key), torch.empty(0, dtype=torch.int64)
    for _ in range(how.steps):
        if len(order) < min(how.batch, count):
            order = torch.randperm(count, generator=draws)
        chosen, order = order[: how.batch], order[how.batch :]
        yield [_rows(chosen, values[name]) for name in names], on_tensors(partial(_rows, chosen), target)


def _rows(chosen: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    return tensor[chosen.to(tensor.device)]
