"""Offered channels: fresh ones at every site, behind gates that learn together with all weights of the network.

    offered = Offered(module, sites(graph).sites, {"conv1": 2}, sparse=True, key=(seed, 56))
    learned(session, offered, batches, penalty=0.1, rate=0.1, key=(seed, 57))
    step = offered.chosen([0, 5])          # those channels stay, as one recorded pass

Learnable growth (Yuan, Savarese and Maire 2020, as GROWN restates it in equations 1 and 2) has a gate for each channel,
the grown mask m^g. Learnable sparse growth (GROWN, equation 3) has another one for each kernel that makes or reads a
fresh channel, the attentive mask m^a, and learns

    min over w, m^g, m^a:   L(w . m^g . m^a)  +  penalty * (expected number of open m^g) / (number of them)

GROWN multiplies the filter that makes a channel. Here the gate is at all that reads the channel instead, so that a
closed one gives nothing whatever biases and norms lie behind the filter, and leaving it out changes nothing else:

    conv1.weight/out   (2, 3, 3, 3) * m^a (2, 3, 1, 1)                      makes 2 fresh channels of 3 old ones
    conv2.weight/in    (8, 2, 3, 3) * m^a (8, 2, 1, 1) * m^g (1, 2, 1, 1)   reads them for 8 old channels
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from growir.addresses import Address
from growir.data.nests import tensors_of
from growir.data.shuffling import generator
from growir.data.source import Batch
from growir.errors import GrowirError
from growir.growth.measure.gated import Lane, Unit, growth
from growir.growth.measure.gates import OPEN, closed_or_open, expected_open, sampled
from growir.growth.measure.learning import finite_loss
from growir.growth.measure.overgrown import OverGrown
from growir.growth.measure.sites import Site
from growir.growth.objective import full_precision
from growir.growth.optimizing import make
from growir.live.modules import find
from growir.params import frozen_keys, param_table, spread
from growir.passes import Sequence as Passes
from growir.remap import Place
from growir.rewrite import Pass

if TYPE_CHECKING:
    from growir.growth.session import Session

Kernels = Mapping[Address, torch.Tensor]  # factors of the kernels, by where they lie


class Offered:
    """A module with fresh channels at some sites, as a function of zeros and ones for channels and for kernels.

    Attributes:
        units: The channels, site by site: each is one of the smallest growths of its site.
        over: The network with all of them; slopes reach the module's trained parameters too.
        weights: The numbers of what is new, by address, that an optimizer may train in place. Kernels and matrices are
            drawn with the standard deviation that the operator's own initialiser has; what carries channels (biases,
            norms) starts as a widening has it.
        old: The module's own parameters that are trained, by key.
        grown: (units,) the numbers of the channels' gates.
        attentive: Those of the kernels' gates by address, where an axis of a kernel's own has extent 1; empty unless
            the growth is sparse.

    Args:
        module: A growir module.
        sites: Where; none twice.
        counts: How many channels each is offered, in its smallest growths, by name; at least 1.
        sparse: Whether kernels have gates of their own.
        key: What weights are drawn by.
        start: What all gates start with.

    Raises:
        GrowirError: There is nothing to choose from.
    """

    def __init__(
        self,
        module: nn.Module,
        sites: Sequence[Site],
        counts: Mapping[str, int],
        *,
        sparse: bool,
        key: Sequence[int],
        start: float = OPEN,
    ) -> None:
        if not sites:
            raise GrowirError("offered channels need sites, but there is none")
        self._first = np.cumsum([0, *(counts[site.name] for site in sites)])
        self.units = tuple(Unit(site.name, "fresh", k) for site in sites for k in range(counts[site.name]))
        passes = [growth(site, "fresh", range(counts[site.name])) for site in sites]
        self.over = OverGrown(module, Passes(passes=tuple(passes)), learns=True)
        self.old = {key: parameter for key, parameter in module.named_parameters() if parameter.requires_grad}
        self.weights: dict[Address, nn.Parameter] = {}
        self.attentive: dict[Address, nn.Parameter] = {}
        self._lanes: dict[Address, list[tuple[Lane, bool]]] = {}  # of each axis where kernels lie, and whether it reads
        self._like: torch.Tensor = next(t for t in module.state_dict().values() if t.is_floating_point())
        self.grown = nn.Parameter(self.all(start))
        reads = {(slot.parameter, slot.axis) for site in sites for slot in site.reads}
        makes = {(slot.parameter, slot.axis) for site in sites for slot in site.makes}
        table, still, begun = param_table(self.over.graph), frozen_keys(find(module).graph), self.over.start()
        for turn, (address, place) in enumerate(sorted(self.over.lies.items())):
            param = table[address.key]
            if param.buffer or address.key in still:
                continue
            if not any((address.key, axis) in reads | makes for axis in place.at):
                self.weights[address] = nn.Parameter(begun[address])
                continue
            drawn = torch.randn(place.shape, generator=generator(*key, turn), dtype=torch.float64)
            self.weights[address] = nn.Parameter((drawn * spread(param.init)).to(self._like))
            self._lanes[address] = [(self._lane(place, axis), (address.key, axis) in reads) for axis in place.at]
            if sparse:
                shape = [1 if name == "kernel" else n for name, n in zip(param.axes, place.shape, strict=True)]
                self.attentive[address] = nn.Parameter(torch.full(shape, start).to(self._like))

    def all(self, value: float) -> torch.Tensor:
        """(units,) one number for each channel, on the module's device and in its dtype."""
        return torch.full((len(self.units),), value, dtype=self._like.dtype, device=self._like.device)

    def open(self) -> torch.Tensor:
        """(units,) ones where a channel is used."""
        return closed_or_open(self.grown.detach())

    def kernels(self) -> dict[Address, torch.Tensor]:
        """Ones where kernels are used."""
        return {address: closed_or_open(gates.detach()) for address, gates in self.attentive.items()}

    def kernel_shares(self) -> torch.Tensor:
        """(units,) the share of open gates among those of the kernels that make or read each channel; 1 without any."""
        opened, whole = self.all(0.0), self.all(0.0)
        for address, ones in self.kernels().items():
            for lane, _ in self._lanes[address]:
                opened += lane.sums(ones, len(self.units))
                whole += lane.sums(torch.ones_like(ones), len(self.units))
        return torch.where(whole > 0, opened / whole.clamp_min(1), 1.0)

    def given(self, channels: torch.Tensor, kernels: Kernels) -> dict[str, torch.Tensor]:
        """The numbers of all that is new, by address.

        Args:
            channels: (units,) factors of what reads each channel.
            kernels: Factors of kernels; those that are left out count as 1.
        """
        found: dict[str, torch.Tensor] = {}
        for address, weight in self.weights.items():
            block: torch.Tensor = weight
            if address in kernels:
                block = block * kernels[address]
            for lane, reads in self._lanes.get(address, ()):
                if reads:
                    block = block * lane.along(channels, block.shape)
            found[address] = block
        return found

    def __call__(self, channels: torch.Tensor, kernels: Kernels, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The outputs on a batch, as many as the graph has; differentiable in all numbers."""
        return self.over(self.given(channels, kernels), *inputs)

    def chosen(self, units: Sequence[int]) -> Pass:
        """The pass that brings some channels, their gates open, with their numbers; closed kernels are zero in them.

        Args:
            units: Places in `units`.

        Raises:
            PassRefused: None is named, or one that there is not.
        """
        kept: dict[int, list[int]] = {}
        for unit in sorted(units):
            turn = int(np.searchsorted(self._first, unit, side="right")) - 1
            kept.setdefault(turn, []).append(unit - int(self._first[turn]))
        with torch.no_grad():
            return self.over.chosen(kept, self.given(self.all(1.0), self.kernels()))

    def _lane(self, place: Place, axis: int) -> Lane:
        """Which channel each position along an axis is of."""
        return Lane(axis, torch.from_numpy(self._first[place.makers[axis]] + place.strides[axis]).to(self._like.device))


def loss_of(session: Session, offered: Offered, kernels: Kernels | None = None) -> Callable[..., torch.Tensor]:
    """The mean loss of a batch as a function of the channels' factors: `loss(channels, batch)`.

    Args:
        session: Whose objective it is.
        offered: The channels.
        kernels: Factors of kernels; by default they are used as they are.

    The function raises a RunError where the loss is not finite.
    """
    macs, used = offered.over.graph.costs().macs, offered.kernels() if kernels is None else kernels

    def loss(channels: torch.Tensor, batch: Batch) -> torch.Tensor:
        session.meter.count(6.0 * macs * len(batch))
        outputs = full_precision(offered(channels, used, *tensors_of(batch.inputs)))
        return finite_loss(session.objective.total(outputs, batch.target) / len(batch))

    return loss


def learned(
    session: Session, offered: Offered, batches: Iterable[Batch], *, penalty: float, rate: float, key: Sequence[int]
) -> None:
    """Let gates and all weights learn together, old ones too, in place: a step for each batch.

    Weights learn by the run's optimizer, made anew, at its rate (by the default one where somebody's own loop trains);
    gates by Adam. Gates are open or closed by chance (`gates.sampled`), with a straight-through slope.

    Args:
        session: Whose objective and optimizer it is; its own module stays as it is if `offered` is of a copy.
        offered: The channels, of a module whose weights may move.
        batches: One for each step.
        penalty: On the share of channel gates that are open, in the unit of the mean loss.
        rate: Adam's.
        key: Of the gates' noise.

    Raises:
        RunError: The loss is not finite.
    """
    config, draws = session.train_config, generator(*key)
    fresh: dict[str, nn.Parameter] = {str(address): weight for address, weight in offered.weights.items()}
    weights = make(
        {**offered.old, **fresh},
        session.optimizing,
        rate=config.learning_rate,
        weight_decay=config.weight_decay,
    )
    gates = torch.optim.Adam([offered.grown, *offered.attentive.values()], lr=rate)
    for batch in batches:
        channels = sampled(offered.grown, draws)
        kernels = {address: sampled(each, draws) for address, each in offered.attentive.items()}
        loss = loss_of(session, offered, kernels)(channels, batch)
        loss = loss + penalty * expected_open(offered.grown) / len(offered.units)
        weights.zero_grad()
        gates.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        weights.step()
        gates.step()
