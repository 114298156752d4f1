"""The fresh units that a network lacks most, in closed form (Verbockhaven et al. 2024, TINY).

What a reader of a site should do differently, v, is the negative gradient at what it computes. Its own weights can do a
part of it; the rest is v_perp. Where B are the inputs of what makes the site's units, S = E[B^T B] and
N = E[B^T v_perp], the singular vectors of S^-1/2 N = U L V^T give units with incoming weights S^-1/2 U sqrt(L) and
outgoing ones V sqrt(L), each of which lessens the loss by L^2 to first order.

Nothing here unfolds an input. The site's own units carry weights that are zero but in one place through the network, so
that N is the slope of a reader's weights, whatever is in between: it is linear near zero, where relu has half its slope
and a norm over the batch is not there. Layers that make units of one site are taken as uncorrelated. Each unit carries
one number at a time, so thin sites with large kernels are passed many times: of 4 units with 36 numbers each, 9 times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import fx, nn
from torch.func import functional_call

from growir.backends.torch_fx.building import NAME
from growir.channels import Slot, analyse
from growir.growth.measure.effects import Effects, called
from growir.growth.measure.learning import finite_loss
from growir.growth.measure.sites import Site
from growir.growth.objective import Outputs, full_precision
from growir.ops.base import Constant
from growir.params import param_table

MOST = 2048  # numbers that come into a unit: of so many a matrix is decomposed
NEAR = 0.01  # how far from zero slopes are taken
RIDGE = 1e-6  # of the largest eigenvalue
STEPS, EXACT = 40, 1e-10  # of conjugate gradients; where a squared slope is nothing beside the first one
COLUMNS = 20_000  # that a matrix of second moments is taken from, about


@dataclass(frozen=True, slots=True, eq=False)
class Lacking:
    """Fresh units of a site, the one that lessens the loss most first.

    Attributes:
        gains: (k,) the first-order decrease of the mean loss by each, for an amplitude of one.
        incoming: By parameter and axis, (k, ...) the numbers that make each unit, positions of the axis first.
        outgoing: By parameter and axis, (k, ...) the numbers that read it.
    """

    gains: torch.Tensor
    incoming: Mapping[tuple[str, int], torch.Tensor]
    outgoing: Mapping[tuple[str, int], torch.Tensor]


class Bottlenecks(Effects):
    """A module and those of some sites whose layers are plain enough, ready for a batch; see `Effects`."""

    def __init__(self, module: nn.Module, sites: Sequence[Site]) -> None:
        super().__init__(module, sites)
        refused = {site.name: why for site in self.sites if (why := self._refused(site)) is not None}
        self.sites = tuple(site for site in self.sites if site.name not in refused)
        self.skipped = {**self.skipped, **refused}

    def _refused(self, site: Site) -> str | None:
        table = param_table(self.graph)
        if site.count != site.space.units:
            return "it grows by several units at a time"
        if any(slot.groups > 1 for slot in (*site.makes, *site.reads)):
            return "a layer has a part for each of several groups of its units"
        if any(len(table[slot.parameter].shape) > 1 for slot in site.carries):
            return "a kernel carries each of its units by itself"
        for edge, value in self._edges[site.name]:
            found = self._reader(value, edge.reader)
            if found is None or not any(slot.parameter in self._own(found).values() for slot in site.reads):
                return f"{edge.reader} reads its units, but not by one weight"
        for slot in site.makes:
            if self._maker(site, slot) is None:
                return f"{slot.parameter} makes its units in several places"
        inputs = sum(_numbers(self.parameter(slot.parameter), slot) for slot in site.makes)
        return f"{inputs} numbers come into a unit, more than {MOST}" if inputs > MOST else None

    def lacking(
        self, inputs: Sequence[torch.Tensor], losses: Callable[[Outputs], torch.Tensor], most: int
    ) -> dict[str, Lacking | str]:
        """By name of each site at most so many units, or why there are none.

        Args:
            inputs: Of the graph, in its order.
            losses: Of its outputs the (n,) losses of the samples.
            most: How many units.

        Raises:
            RunError: The loss is not finite.
        """
        edges = {site.name: self._edges[site.name] for site in self.sites}
        readers = {self._reader(value, edge.reader): value for each in edges.values() for edge, value in each}
        keeper = _Keeper(self._code, {node for node in readers if node is not None})
        with torch.enable_grad():
            each = losses(full_precision(keeper.run(*inputs)))
            finite_loss(each.mean())
            probes = keeper.probes
            slopes = (
                torch.autograd.grad(each.sum(), list(probes.values()), allow_unused=True, materialize_grads=True)
                if each.requires_grad
                else [torch.zeros_like(probe) for probe in probes.values()]
            )
        wanted = {
            node: self._not_expressed(node, keeper.values[readers[node]], -slope.detach())
            for node, slope in zip(probes, slopes, strict=True)
        }
        return {site.name: self._of(site, keeper.values, wanted, len(each), most) for site in self.sites}

    def operations(self, samples: int) -> float:
        """The floating-point operations that `lacking` takes on so many samples, two for a multiply-accumulate."""
        macs = {name: cost.macs for name, cost in self.graph.costs().nodes.items()}
        total = 6.0 * sum(macs.values())
        for site in self.sites:
            edges = self._edges[site.name]
            on_the_way = sum(macs.get(name, 0) for name in {str(node.meta[NAME]) for node in self._code_of[site.name]})
            reading = sum(macs.get(edge.reader, 0) for edge, _ in edges)
            inputs = sum(_numbers(self.parameter(slot.parameter), slot) for slot in site.makes)
            turns = -(-inputs // site.count)
            total += turns * (4.0 * on_the_way + 4.0 * reading) + 4.0 * STEPS * reading
        return total * samples

    def _of(
        self,
        site: Site,
        values: Mapping[fx.Node, Any],
        wanted: Mapping[fx.Node, torch.Tensor],
        samples: int,
        most: int,
    ) -> Lacking | str:
        inverse, crossed = list[torch.Tensor](), list[torch.Tensor]()
        for slot in site.makes:
            maker, made, parts = self._maker(site, slot), list[torch.Tensor](), list[torch.Tensor]()
            assert maker is not None, "the site was refused"
            places, axis = self._places(site, str(maker.meta[NAME]))
            for first in range(0, _numbers(self.parameter(slot.parameter), slot), site.count):
                seen = self._near_zero(site, values, slot, first, NEAR)
                if not first and not self._alike(site, seen, self._near_zero(site, values, slot, first, 2 * NEAR)):
                    return "what lies between what makes its units and what reads them is not linear near zero"
                columns = torch.stack([seen[maker].index_select(axis, at).flatten() for at in places])
                thin = columns.shape[1] // COLUMNS | 1  # odd, so that not one column of a map is taken alone
                made.append(columns[:, ::thin].double() * (thin / samples) ** 0.5)
                parts.append(self._slopes(site, seen, wanted))
            count = _numbers(self.parameter(slot.parameter), slot)
            rows, slopes = torch.cat(made)[:count], torch.cat(parts)[:count].double()
            if not (bool(rows.isfinite().all()) and bool(slopes.isfinite().all())):
                return "what its readers lack is not finite"
            inverse.append(_inverse_root(rows @ rows.T))
            crossed.append(inverse[-1] @ slopes / samples)
        left, sizes, right = cast(
            "tuple[torch.Tensor, torch.Tensor, torch.Tensor]",
            torch.linalg.svd(torch.cat(crossed), full_matrices=False),
        )
        kept = sizes[:most] > RIDGE * sizes[0] if len(sizes) else sizes.bool()
        count = int(kept.sum())
        if not count or not float(sizes[0]):
            return "its readers lack nothing that its inputs could give"
        roots = sizes[:count].sqrt()
        begin, incoming, outgoing = 0, dict[tuple[str, int], torch.Tensor](), dict[tuple[str, int], torch.Tensor]()
        for slot, root in zip(site.makes, inverse, strict=True):
            incoming[slot.parameter, slot.axis] = (root @ left[begin : begin + len(root), :count] * roots).T
            begin += len(root)
        begin, columns = 0, right[:count] * roots[:, None]
        for slot in site.reads:
            size = _numbers(self.parameter(slot.parameter), slot)
            outgoing[slot.parameter, slot.axis] = columns[:, begin : begin + size]
            begin += size
        return Lacking(sizes[:count].square(), incoming, outgoing)

    # -- what the code of a site computes ------------------------------------------------------------------------------

    def _near_zero(
        self, site: Site, values: Mapping[fx.Node, Any], slot: Slot, first: int, near: float
    ) -> dict[fx.Node, torch.Tensor]:
        """What a site's way computes, to first order, where unit k has one weight that is not 0, that in first + k."""
        table, sides = param_table(self.graph), list[dict[fx.Node, torch.Tensor]]()
        for sign in (1.0, -1.0):
            moved: dict[str, torch.Tensor] = {}
            for carried in site.carries:
                init = table[carried.parameter].init
                start = init.value if isinstance(init, Constant) else 0.0
                moved[carried.parameter] = torch.full_like(self.parameter(carried.parameter), start)
            moved |= {made.parameter: torch.zeros_like(self.parameter(made.parameter)) for made in site.makes}
            weight, count = moved[slot.parameter], _numbers(moved[slot.parameter], slot)
            along = weight.movedim(slot.axis, 0)
            for unit, at in enumerate(slot.positions):
                if first + unit < count:
                    block = torch.zeros_like(along[list(at)]).flatten()
                    block[first + unit] = sign * near
                    along[list(at)] = block.reshape(len(at), *along.shape[1:])
            with torch.no_grad():
                sides.append(self.walk(site, values, moved))
        return {node: (found - sides[1][node]) / (2 * near) for node, found in sides[0].items() if _is_real(found)}

    def _alike(self, site: Site, one: Mapping[fx.Node, torch.Tensor], other: Mapping[fx.Node, torch.Tensor]) -> bool:
        """Whether readers see nearly the same."""
        pairs = [(one[node], other[node]) for _, node in self._edges[site.name]]
        return all(float((a - b).square().sum()) <= 0.1**2 * float(a.square().sum()) for a, b in pairs)

    def _slopes(
        self, site: Site, seen: Mapping[fx.Node, torch.Tensor], wanted: Mapping[fx.Node, torch.Tensor]
    ) -> torch.Tensor:
        """(units, numbers) how what readers lack depends on the weights by which they read what each unit is."""
        found = {slot: torch.zeros_like(self.parameter(slot.parameter)) for slot in site.reads}
        for edge, value in self._edges[site.name]:
            reader = self._reader(value, edge.reader)
            assert reader is not None, "the site was refused"
            part, own = self._code.get_submodule(str(reader.target)), self._own(reader)
            weights = {name: self.parameter(key).requires_grad_() for name, key in own.items()}
            with torch.enable_grad():
                given = functional_call(part, weights, (seen[value],))
                slopes = torch.autograd.grad(given, list(weights.values()), wanted[reader], allow_unused=True)
            by_key = dict(zip(own.values(), slopes, strict=True))
            for slot in site.reads:
                slope = by_key.get(slot.parameter)
                if slope is not None:
                    found[slot] = found[slot] + slope
        return torch.cat([_rows(found[slot], slot) for slot in site.reads], 1)

    def _not_expressed(self, reader: fx.Node, value: torch.Tensor, wish: torch.Tensor) -> torch.Tensor:
        """What no change of a reader's own weights gives of a wish for its output, by conjugate gradients."""
        part, own = self._code.get_submodule(str(reader.target)), self._own(reader)
        weights = [torch.zeros_like(self.parameter(key)).requires_grad_() for key in own.values()]
        with torch.enable_grad():
            given = functional_call(part, dict(zip(own, weights, strict=True)), (value,))

        def back(left: torch.Tensor) -> list[torch.Tensor]:
            return list(torch.autograd.grad(given, weights, left, retain_graph=True, materialize_grads=True))

        def gives(change: Sequence[torch.Tensor]) -> torch.Tensor:
            with torch.no_grad():
                found: torch.Tensor = functional_call(part, dict(zip(own, change, strict=True)), (value,))
            return found

        rest = wish
        slope = back(rest)
        way, size = slope, _dot(slope, slope)
        least = EXACT * size
        for _ in range(STEPS):
            if size <= least:
                break
            moves = gives(way)
            step = size / float(moves.square().sum()) if bool(moves.any()) else 0.0
            rest = rest - step * moves
            slope = back(rest)
            before, size = size, _dot(slope, slope)
            way = [s + size / before * w for s, w in zip(slope, way, strict=True)]
        return rest

    # -- its nodes -----------------------------------------------------------------------------------------------------

    def _own(self, node: fx.Node) -> dict[str, str]:
        """The parameters of a layer of the code: by their names there, their keys."""
        part = self._code.get_submodule(str(node.target))
        names = {name: f"{node.target}.{name}" for name, _ in part.named_buffers()}
        return {name: self._owners[full] for name, full in names.items() if full in self._owners}

    def _reader(self, value: fx.Node, name: str) -> fx.Node | None:
        """The layer that reads a value, where that is all it reads."""
        users = [node for node in value.users if node.meta.get(NAME) == name]
        plain = len(users) == 1 and users[0].op == "call_module" and users[0].args == (value,) and not users[0].kwargs
        return users[0] if plain else None

    def _maker(self, site: Site, slot: Slot) -> fx.Node | None:
        """The layer with a parameter that makes units, where there is one."""
        layers = [node for node in self._code_of[site.name] if node.op == "call_module"]
        found = [node for node in layers if slot.parameter in self._own(node).values()]
        return found[0] if len(found) == 1 else None

    def _places(self, site: Site, value: str) -> tuple[list[torch.Tensor], int]:
        """Where each unit lies in a value, and on which axis."""
        analysis = analyse(self.graph)
        (axis,) = analysis.axes_of(site.space, value)
        places = analysis.positions(site.space, value, axis)
        return [torch.tensor(at, device=next(self._code.buffers()).device) for at in places], axis


class _Keeper(fx.Interpreter):
    """Keeps every value, and lets slopes be taken at some."""

    def __init__(self, code: fx.GraphModule, wanted: set[fx.Node]) -> None:
        super().__init__(code, garbage_collect_values=False)
        self.wanted = wanted
        self.probes: dict[fx.Node, torch.Tensor] = {}
        self.values: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        found = called(self, n, args, kwargs)
        self.values[n] = found.detach() if isinstance(found, torch.Tensor) else found
        if n in self.wanted:
            found = self.probes[n] = found.view_as(found) if found.requires_grad else found.detach().requires_grad_()
        return found


def _rows(tensor: torch.Tensor, slot: Slot) -> torch.Tensor:
    """(units, numbers) those of each unit."""
    along = tensor.movedim(slot.axis, 0)
    return torch.stack([along[list(at)].flatten() for at in slot.positions])


def _numbers(tensor: torch.Tensor, slot: Slot) -> int:
    """How many a unit has."""
    return tensor.numel() // tensor.shape[slot.axis] * len(slot.positions[0])


def _inverse_root(moments: torch.Tensor) -> torch.Tensor:
    """The inverse square root of a symmetric matrix, of its part that is not nearly singular."""
    sizes, vectors = cast("tuple[torch.Tensor, torch.Tensor]", torch.linalg.eigh(moments))
    most = sizes[-1].clamp_min(torch.finfo(sizes.dtype).tiny)
    roots = torch.where(sizes > RIDGE * most, sizes.clamp_min(RIDGE * most).rsqrt(), torch.zeros_like(sizes))
    found: torch.Tensor = (vectors * roots) @ vectors.T
    return found


def _dot(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> float:
    return sum(float((a.double() * b.double()).sum()) for a, b in zip(one, other, strict=True))


def _is_real(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()
