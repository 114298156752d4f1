"""Firefly for continual learning: a task copies and changes old units, or adds new ones, where that helps most.

After Wu et al. 2020, section 2.4. Units of earlier tasks stay locked. Where they are not enough, what the task computes
is written with candidates, each behind a number that is 0 where it does nothing:

    f(x) = sum_i sigma(x; theta_i + eps_i delta_i) + sum_j eps_j sigma(x; delta_j)       i old, j new

First all eps and delta learn together for a few steps, then those units stay that change the loss most. An old unit
that stays becomes a new one in the master, which starts as theta_i + eps_i delta_i and which this task reads in place
of the old one:

    master    fc0: units 0 1 2 | 1'        the task reads 0 1' 2, earlier tasks read 0 1 2 as ever
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from growir.addresses import Address
from growir.channels import Slot, analyse
from growir.continual.experiences import Experience
from growir.continual.fitting import FitSettings, accuracy_of, fit, given
from growir.continual.grown import Learned
from growir.continual.learner import Learner, head_of
from growir.continual.masks import mask_shapes
from growir.continual.master import Master
from growir.continual.targets import Target, told_target
from growir.continual.views import up_to
from growir.data.parts import Data
from growir.data.shuffling import Shuffle, generator
from growir.data.source import Batch, Source
from growir.errors import GrowirError, PassRefused
from growir.graph import Graph
from growir.growth.measure.choice import Order
from growir.growth.measure.judging import along_path
from growir.growth.measure.learning import batch_statistics, endless, finite_loss, learned
from growir.growth.measure.overgrown import OverGrown
from growir.growth.measure.sites import Site, sites
from growir.growth.sections import Count, Positive, Whole
from growir.network import Network
from growir.params import param_table, spread
from growir.passes import Sequence as Passes
from growir.passes import Update, Widen
from growir.rewrite import Pass


class FireflySettings(FitSettings):
    """How a task is learned; each stage has all the epochs.

    Attributes:
        target: The accuracy on the samples that select from which on nothing grows, as GrownSettings have it.
        growths: Times that a task may grow. Of the network before and those after each growth the one stays that is
            best on the samples that select, of equals the smallest.
        units: New units that a growth brings, copies among them, as a share of all units of the first network that can
            grow; one at least.
        order: "gain" takes those first that change the loss most, "per_parameter" those that change it most for each
            weight they add, which leaves out layers with many inputs.
        fresh_units: New ones that each space is offered, beside copies of its old ones.
        gate: The largest gates: old units move, and new ones write, by so many standard deviations of the layer's
            initialiser.
        learn_steps: Batches that gates and directions learn on.
        learn_rate: How far they go by each, as a share of the largest gate.
        judge_batches: Batches that candidates are judged on.
    """

    target: Target = 1.0
    growths: Count = 1
    units: Positive = 0.1
    order: Order = "gain"
    fresh_units: Whole = 6
    gate: Positive = 0.2
    learn_steps: Count = 25
    learn_rate: Positive = 0.1
    judge_batches: Count = 4


@dataclass(frozen=True, slots=True)
class Unit:
    """A candidate.

    Attributes:
        site: The name of its space.
        kind: Whether an old unit is copied and the copy unlocked, or a fresh one comes.
        index: The old unit, or the how many-th of the fresh ones it is, from 0.
    """

    site: str
    kind: Literal["copy", "fresh"]
    index: int


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """What a growth brings.

    Attributes:
        step: The pass that grows the task's network by fresh units and moves the old ones where they are.
        copies: Which old units that moves, by the names of their spaces: the master has to get copies of these.
        fresh: How many fresh units come, by space.
    """

    step: Pass
    copies: Mapping[str, Sequence[int]]
    fresh: Mapping[str, int]

    @property
    def channels(self) -> dict[str, int]:
        """How many units the master gets, by space."""
        names = dict.fromkeys((*self.copies, *self.fresh))
        return {name: len(self.copies.get(name, ())) + self.fresh.get(name, 0) for name in names}


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Where a direction lies, whose rows (rows, ...) are those of a block with one of its axes in front.

    Attributes:
        address: Of the block, in the over-grown network.
        shape: Of the block.
        axis: Which is in front.
        places: (rows,) where each row lies on it.
        gates: (rows,) whose row each is, as a place in `Candidates.units`.
        gated: Whether the gates multiply it: they do not where fresh units read.
        kept: Zeros and ones of the shape: zero where the block would read a unit that the task reads no more.
    """

    address: Address
    shape: tuple[int, ...]
    axis: int
    places: torch.Tensor
    gates: torch.Tensor
    gated: bool
    kept: torch.Tensor

    @property
    def front(self) -> tuple[int, ...]:
        """The shape with the axis in front."""
        return (self.shape[self.axis], *self.shape[: self.axis], *self.shape[self.axis + 1 :])

    def block(self, direction: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
        """The numbers of the block; zero where no row lies."""
        rows = direction * _beside(gates[self.gates], direction) if self.gated else direction
        return direction.new_zeros(self.front).index_copy(0, self.places, rows).movedim(0, self.axis) * self.kept


class Candidates:
    """A task's network with every locked unit free to move and fresh units beside them, as a function of gates.

    Attributes:
        units: What the gates are of, in their order.
        directions: By address the numbers (rows, ...) that gates multiply, or that fresh units read by; drawn with the
            standard deviation of the operator's own initialiser. Leaves that an optimizer may train in place.
        spreads: Those standard deviations.
        over: The network with all of them.

    Args:
        network: As the task sees the master now.
        offered: Where there are candidates; no slot of them is of groups that take different channels.
        locked: The units of each that may be copied, by its name.
        fresh: How many fresh units each is offered.
        key: What directions are drawn by.
        replaced: The units of each space that the task reads copies of; nothing reads them here.

    Raises:
        GrowirError: There is nothing to choose from.
    """

    def __init__(
        self,
        network: Network,
        offered: Sequence[Site],
        locked: Mapping[str, Sequence[int]],
        fresh: int,
        key: Sequence[int],
        replaced: Mapping[str, Collection[int]] | None = None,
    ) -> None:
        copied = [site for site in offered if locked.get(site.name)]
        if not (offered and fresh) and not copied:
            raise GrowirError("candidates are locked units and fresh ones, but there is none of either")
        self.graph = network.graph
        moved = tuple(dict.fromkeys(slot.parameter for site in copied for slot in site.makes))
        passes: list[Pass] = [Update(parameters=moved)] if moved else []
        passes += [Widen(node=site.name, by=fresh * site.space.stride) for site in offered if fresh]
        self.over = OverGrown(network.to_torch(), Passes(passes=tuple(passes)))
        self.units: tuple[Unit, ...] = (
            *(Unit(site.name, "copy", k) for site in copied for k in locked[site.name]),
            *(Unit(site.name, "fresh", k) for site in offered for k in range(fresh)),
        )
        self._at = {unit: k for k, unit in enumerate(self.units)}
        self._turn = {step.node: k for k, step in enumerate(passes) if isinstance(step, Widen)}
        self._like = next(t for t in self.over.module.state_dict().values() if t.is_floating_point())
        self._replaced = replaced or {}
        self._rows = {**self._old_rows(copied, locked), **self._fresh_rows(offered)}
        self.directions: dict[Address, torch.Tensor] = {}
        self.spreads: dict[Address, float] = {}
        table = param_table(network.graph)
        for turn, (name, rows) in enumerate(self._rows.items()):
            shape = (len(rows.places), *rows.front[1:])
            drawn = torch.randn(shape, generator=generator(*key, turn), dtype=torch.float64)
            self.spreads[name] = spread(table[rows.address.key].init)
            self.directions[name] = (drawn * self.spreads[name]).to(self._like)

    def _old_rows(self, copied: Sequence[Site], locked: Mapping[str, Sequence[int]]) -> dict[Address, _Rows]:
        """The rows that make locked units, in all that make them: of a residual sum, each of its producers."""
        found: dict[tuple[str, int], list[tuple[int, int]]] = {}
        for site in copied:
            for slot in site.makes:
                rows = found.setdefault((slot.parameter, slot.axis), [])
                for unit in locked[site.name]:
                    rows += [(at, self._at[Unit(site.name, "copy", unit)]) for at in slot.positions[unit]]
        made: dict[Address, _Rows] = {}
        for (key, axis), rows in found.items():
            address = Address.of(key, place=(0,))
            places, gates = torch.tensor(rows).T
            # The axis tells directions of one tensor apart, if that should make units on two.
            name = Address.of(key, (str(axis),), (0,))
            made[name] = _Rows(address, self.over.places[address], axis, places, gates, True, self._kept(address, axis))
        return made

    def _fresh_rows(self, offered: Sequence[Site]) -> dict[Address, _Rows]:
        """The rows that make fresh units, and those that read them."""
        turns = {self._turn[site.name]: site for site in offered if site.name in self._turn}
        found: dict[Address, _Rows] = {}
        for address, place in sorted(self.over.lies.items()):
            site = turns.get(address.place[0])
            if site is None or len(place.at) != 1:
                continue
            (axis,) = place.at
            makes, reads = (_has(slots, address.key, axis) for slots in (site.makes, site.reads))
            if makes or reads:  # what carries fresh units, such as norms, starts as it always does
                gates = torch.from_numpy(place.strides[axis] + self._at[Unit(site.name, "fresh", 0)])
                places, kept = torch.arange(len(gates)), self._kept(address, axis)
                found[address] = _Rows(address, place.shape, axis, places, gates, reads, kept)
        return found

    def _kept(self, address: Address, axis: int) -> torch.Tensor:
        """Zero where a block reads a replaced unit by another axis than the one that it is new on, else one."""
        found = np.ones(self.over.places[address])
        for space in analyse(self.graph).spaces:
            for slot in space.consumers:
                if slot.parameter == address.key and slot.axis != axis:
                    for unit in self._replaced.get(space.name, ()):
                        found[_at(slot, unit)] = 0
        return torch.from_numpy(found).to(self._like)

    def gates(self, value: float = 0.0) -> torch.Tensor:
        """(units,) one number for each, in the network's dtype."""
        return torch.full((len(self.units),), value, dtype=self._like.dtype)

    @torch.no_grad()
    def bound(self) -> None:
        """Shorten directions, of each unit by itself, to the root mean square that a new layer's weights have."""
        for name, direction in self.directions.items():
            gates = self._rows[name].gates
            squares = self.gates().index_add_(0, gates, direction.square().flatten(1).mean(1))
            count = self.gates().index_add_(0, gates, torch.ones_like(gates, dtype=squares.dtype))
            longest = self.spreads[name] * count.sqrt()
            shrink = (longest / squares.sqrt().clamp_min(torch.finfo(squares.dtype).tiny)).clamp_max(1.0)
            direction *= _beside(shrink[gates], direction)

    def given(self, gates: torch.Tensor) -> dict[str, torch.Tensor]:
        """The numbers of all that is new or moves, by address."""
        found: dict[str, torch.Tensor] = {}
        for name, rows in self._rows.items():
            block = rows.block(self.directions[name], gates)
            found[rows.address] = found[rows.address] + block if rows.address in found else block
        return found

    def __call__(self, gates: torch.Tensor, *inputs: torch.Tensor) -> torch.Tensor:
        """The logits (n, classes) of a batch; differentiable in gates and directions."""
        (found,) = self.over(self.given(gates), *inputs)
        return found

    def chosen(self, units: Sequence[int], gates: torch.Tensor) -> Chosen:
        """Some of them, with their directions and gates as they stand.

        Args:
            units: Places in `units`.
            gates: (units,) of all.

        Raises:
            PassRefused: None is named.
        """
        copies: dict[str, list[int]] = {}
        fresh: dict[str, list[int]] = {}
        for unit in (self.units[k] for k in sorted(units)):
            (copies if unit.kind == "copy" else fresh).setdefault(unit.site, []).append(unit.index)
        kept: dict[int, Sequence[int] | None] = {self._turn[name]: each for name, each in fresh.items()}
        if copies:
            kept[0] = None
        closed = self.gates()
        closed[list(units)] = gates[list(units)]
        with torch.no_grad():
            step = self.over.chosen(kept, self.given(closed))
        return Chosen(step, copies, {name: len(each) for name, each in fresh.items()})


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """Where a task stands.

    Attributes:
        master: What earlier tasks have learned, with channels for this one, which start with its numbers.
        output: The task's head.
        replaced: The old units that it has copies of, by space, which it reads no more.
    """

    master: Master
    output: str
    replaced: Mapping[str, frozenset[int]]

    def learner(self) -> Learner:
        """What is trained: everything that no task uses, and the task's own."""
        graph = up_to(Network(self.master.graph, self.master.arrays), self.output).graph
        used = {key: np.ones(shape, bool) for key, shape in _shared(graph, self.output).items()}
        for space in analyse(graph).spaces:
            for slot in space.consumers:
                for unit in self.replaced.get(space.name, ()) if slot.parameter in used else ():
                    used[slot.parameter][_at(slot, unit)] = False
        return Learner(self.master, self.output, gated={}, used=used)

    def network(self, learner: Learner) -> Network:
        """What the learner computes, with all channels of the master."""
        told = learner.result()
        arrays = {key: np.where(mask, told["arrays"][key], 0) for key, mask in told["masks"].items()}
        alone = up_to(Network(self.master.graph, self.master.arrays), self.output)
        numbers = {key: array.astype(alone.arrays[key].dtype) for key, array in {**arrays, **told["own"]}.items()}
        return alone.with_arrays(numbers)

    def grown(self, network: Network, chosen: Chosen) -> Stage:
        """The stage with what was chosen: what its learner computes is what the grown network does.

        The task's network is grown first, with old units moved where they are. Each of these then gets a copy, with
        all that makes and carries it, and whatever reads the unit reads the copy instead. These are the numbers of all
        weights that are free in the master, which was widened by as many channels.

        Args:
            network: As `network` gives it.
            chosen: Of its candidates.

        Raises:
            PassRefused: A view of an earlier task would change.
        """
        stride = {space.name: space.stride for space in analyse(network.graph).spaces}
        wider = [Widen(node=name, by=count * stride[name]) for name, count in chosen.channels.items()]
        master = self.master.apply(Passes(passes=tuple(wider)))
        copies = tuple(
            Widen(node=name, by=len(units) * stride[name], copies=tuple(units), shares=(0.0,) * len(units))
            for name, units in chosen.copies.items()
        )
        mine = network.apply(chosen.step)
        if copies:
            mine = mine.apply(Passes(passes=copies))
        numbers: dict[str, NDArray[Any]] = {key: array.copy() for key, array in mine.arrays.items()}
        for space in analyse(mine.graph).spaces:
            olds = chosen.copies.get(space.name, ())
            for slot in space.consumers:
                for new, old in enumerate(olds, space.units - len(olds)):
                    array = numbers[slot.parameter]
                    array[_at(slot, new)] = array[_at(slot, old)]
                    array[_at(slot, old)] = 0
        for key in master.locked.keys() & _shared(mine.graph, self.output).keys():
            numbers[key] = np.where(master.locked[key], master.arrays[key], numbers[key])
        replaced = {
            name: self.replaced.get(name, frozenset()) | frozenset(chosen.copies.get(name, ()))
            for name in dict.fromkeys((*self.replaced, *chosen.copies))
        }
        whole = Master(master.graph, {**master.arrays, **numbers}, list(master.tasks.values()))
        return Stage(whole, self.output, replaced)


class Firefly:
    """Learns one task after the other; see FireflySettings."""

    def __init__(self, settings: FireflySettings | None = None, seed: int = 0, first: Graph | None = None) -> None:
        self.settings, self.seed, self.first = settings or FireflySettings(), seed, first

    def learn(self, master: Master, output: str, experience: Experience, target: float | None = None) -> Learned:
        """One task more.

        Args:
            master: What was learned before.
            output: The task's head, as wide as its classes.
            experience: The task.
            target: The accuracy from which on nothing grows; by default as the settings say it, where they do.

        Raises:
            RunError: The loss is not finite where candidates are measured.
        """
        task, data = len(master.tasks), experience.data.cut(self.seed, self.settings.select_share)
        enough = told_target(self.settings.target, task) if target is None else target
        stage = Stage(master, output, {})
        learner = stage.learner()
        selected = [self._fit(learner, data, task, 0)]
        channels: dict[str, int] = {}
        best = selected[0], stage, learner, channels
        for growth in range(1, self.settings.growths + 1):
            if selected[-1] >= enough:
                break
            network = stage.network(learner)
            chosen = self._chosen(stage, network, data.train, task, growth)
            if chosen is None:
                break
            stage = stage.grown(network, chosen)
            channels = {
                name: channels.get(name, 0) + chosen.channels.get(name, 0)
                for name in dict.fromkeys((*channels, *chosen.channels))
            }
            learner = stage.learner()
            selected.append(self._fit(learner, data, task, growth))
            if selected[-1] > best[0]:  # what is no better than less goes again
                best = selected[-1], stage, learner, channels
        _, stage, learner, channels = best
        told = learner.result()
        done = stage.master.learned(experience.name, output, classes=experience.classes, **told)
        return Learned(done, selected, channels, enough)

    def _fit(self, learner: Learner, data: Data, task: int, growth: int) -> float:
        """Train; returns the accuracy on the samples that select."""
        groups = [{"params": [*learner.free.parameters(), *learner.own.parameters()]}]
        fit(learner, groups, data.train, self.settings, (self.seed, 76, task, growth))
        assert data.select is not None, "the data is cut"
        return accuracy_of(learner, data.select, self.settings.device)

    def _chosen(self, stage: Stage, network: Network, source: Source, task: int, growth: int) -> Chosen | None:
        """The units that change the loss most, each with the sign that lowers it; None where none changes it."""
        settings = self.settings
        offered = offered_sites(stage.master, network)
        locked = locked_units(stage, offered)
        if not offered or not (settings.fresh_units or any(locked.values())):
            return None
        key = (self.seed, 77, task, growth)
        candidates = Candidates(network, offered, locked, settings.fresh_units, key, stage.replaced)

        def loss(gates: torch.Tensor, batch: Batch) -> torch.Tensor:
            return finite_loss(F.cross_entropy(candidates(gates, *given(batch.inputs)), batch.target))

        batches = endless(source, settings.batch_size, Shuffle((self.seed, 78, task, growth)))
        with batch_statistics(candidates.over.module, network.graph):
            few = islice(batches, settings.learn_steps)
            gates = learned(candidates, loss, few, eps=settings.gate, rate=settings.learn_rate)
            changes = along_path(gates, loss, islice(batches, settings.judge_batches))
        whole = offered if self.first is None else sites(self.first).sites
        names = {site.name for site in offered}
        count = max(1, round(settings.units * sum(site.count for site in whole if site.name in names)))
        worth = changes.abs()
        if settings.order == "per_parameter":
            weights = {site.name: _weights(network, site) for site in offered}
            worth = worth / torch.tensor([weights[unit.site] for unit in candidates.units], dtype=worth.dtype)
        order = cast("list[int]", worth.argsort(descending=True, stable=True).tolist())
        best = [k for k in order[:count] if changes[k] != 0]
        return candidates.chosen(best, torch.where(changes > 0, -gates, gates)) if best else None


def _weights(network: Network, site: Site) -> float:
    """How many weights one more unit of a site brings, at the widths that there are."""
    slots = (*site.makes, *site.carries, *site.reads)
    return sum(network.arrays[slot.parameter].size / site.count for slot in slots)


def offered_sites(master: Master, network: Network) -> list[Site]:
    """Where a task may grow: the sites at which the master can, too, by single units.

    Args:
        master: It.
        network: The task's, with all channels of the master.
    """
    found: list[Site] = []
    whole = {space.name: space for space in analyse(master.graph).spaces}
    for site in sites(network.graph).sites:
        space = whole.get(site.name)
        single = len(site.space.growth) == 1 and site.space.growth[site.space.space] == 1
        plain = all(slot.groups == 1 for slot in (*site.makes, *site.carries, *site.reads))
        if space is None or space.pins or space.units != site.space.units or not (single and plain):
            continue
        try:
            master.apply(Widen(node=site.name, by=site.space.stride))
        except PassRefused:  # a view would move
            continue
        found.append(site)
    return found


def locked_units(stage: Stage, offered: Sequence[Site]) -> dict[str, list[int]]:
    """The units of each site that an earlier task holds, but for those that this task has copies of already."""
    locked = stage.master.locked
    found: dict[str, list[int]] = {}
    for site in offered:
        left = [unit for unit in range(site.space.units) if unit not in stage.replaced.get(site.name, ())]
        slots = [slot for slot in site.makes if slot.parameter in locked]
        found[site.name] = [u for u in left if any(locked[slot.parameter][_at(slot, u)].any() for slot in slots)]
    return found


def _shared(graph: Graph, output: str) -> dict[str, tuple[int, ...]]:
    """The shapes of the masks of all that a head's task shares with others."""
    head = head_of(graph, output)
    return {key: shape for key, shape in mask_shapes(graph).items() if key.rpartition(".")[0] not in head}


def _at(slot: Slot, unit: int) -> tuple[slice | list[int], ...]:
    """What takes those positions of a parameter that are a unit's."""
    return (*(slice(None),) * slot.axis, list(slot.positions[unit]))


def _has(slots: Sequence[Slot], key: str, axis: int) -> bool:
    return any(slot.parameter == key and slot.axis == axis for slot in slots)


def _beside(numbers: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """One number for each row, in a form that multiplies them."""
    return numbers.reshape(-1, *(1,) * (rows.ndim - 1))
