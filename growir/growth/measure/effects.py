"""What a split or a prune of any one unit would do to the loss of each sample, from one forward and one backward pass.

    effects = Effects(module, sites(graph).sites)
    at = effects.at(inputs, losses)              # one forward pass, one backward pass
    at.split(site, theta)                        # (samples, units) by pairs with w - theta and w + theta
    at.prune(site)                               # (samples, units) without the unit

Effects are of first order in what readers see of a unit: where its value in front of a reader is f(u), they are the
slope there times da, with da = 1/2 [f(u + theta h) + f(u - theta h)] - f(u) of a split (Gauss-Newton morphisms, section
3), and -f(u) of a prune. What lies between the layers that make the units and those that read them is computed anew,
with the inputs h of the former held fixed, so da itself is not linearised.

All is in eval mode. A norm that takes the statistics of the batch even there lets samples move each other: the sum over
them is right then, and what falls to each is what it does to all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import fx, nn
from torch.func import functional_call

from growir.addresses import Address
from growir.backends.torch_fx.building import NAME
from growir.backends.torch_fx.lowering import lower_tensors
from growir.errors import GrowirError, cut
from growir.growth.measure.routes import Edge, Route, route_of
from growir.growth.measure.sites import Site
from growir.growth.measure.sites import sites as sites_of
from growir.growth.measure.splits import Block, Theta, blocks_of
from growir.growth.objective import Outputs, full_precision
from growir.live.modules import find
from growir.params import param_table
from growir.shapes import owners

LEAST = 1e-3  # of a sample's loss: the estimate divides by it


def gauss_newton(effects: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
    """(units,) the predicted change of the mean loss, from effects of first order (Gauss-Newton morphisms, eq. 5).

    The Hessian of a sample's loss L is taken to be g g^T / 2L: exact where it has rank one and some output has no loss.

    Args:
        effects: (samples, units).
        losses: (samples,), none of them negative.
    """
    return (effects + effects.square() / (4 * losses.clamp_min(LEAST))[:, None]).mean(0)


class Effects:
    """A module and some of its sites, ready for batches.

    Attributes:
        sites: Those that have effects.
        skipped: Why the others have none, by name.
        blocks: By the name of a site where its splits have numbers.

    Args:
        module: A growir module; its tensors are read as they are at each call, and get no gradients.
        sites: Of its graph.

    Raises:
        ModelError: It is no growir module.
    """

    def __init__(self, module: nn.Module, sites: Sequence[Site]) -> None:
        live = find(module)
        self.graph = live.graph
        self._module = live.module
        self._owners = owners(live.graph)
        state: dict[str, torch.Tensor] = live.module.state_dict(keep_vars=True)
        tensors = {key: state[key].detach() for key in param_table(live.graph)}
        self._code = lower_tensors(live.graph, tensors, form="nodes").eval()
        own = sites_of(live.graph)  # the same, in terms of the spaces of this very graph
        wanted = {site.name for site in sites}
        found = {site.name: route_of(live.graph, site) for site in own.sites if site.name in wanted}
        unknown = {name: own.skipped.get(name, "there is no such site in the module") for name in wanted - found.keys()}
        self._routes = {name: route for name, route in found.items() if isinstance(route, Route)}
        self.sites: tuple[Site, ...] = tuple(route.site for route in self._routes.values())
        self.skipped: Mapping[str, str] = {n: why for n, why in found.items() if isinstance(why, str)} | unknown
        self.blocks: Mapping[str, Mapping[Address, Block]] = {
            site.name: blocks_of(live.graph, site) for site in self.sites
        }
        values = _values(live.graph, self._code)
        # Values that are one node of the code, handed on by an identity, are one edge of a reader of both.
        self._edges: dict[str, list[tuple[Edge, fx.Node]]] = {
            name: list({(values[edge.value], edge.reader): (edge, values[edge.value]) for edge in route.edges}.values())
            for name, route in self._routes.items()
        }
        self._code_of: dict[str, list[fx.Node]] = {
            name: [node for node in self._code.graph.nodes if node.meta.get(NAME) in route.passed]
            for name, route in self._routes.items()
        }

    def at(self, inputs: Sequence[torch.Tensor], losses: Callable[[Outputs], torch.Tensor]) -> Point:
        """Where the network stands on a batch.

        Args:
            inputs: Of the graph, in its order.
            losses: Of its outputs the (n,) losses of the samples.
        """
        readers = {(value, edge.reader) for edges in self._edges.values() for edge, value in edges}
        recorder = _Recorder(self._code, readers)
        with torch.enable_grad():
            found: Any = recorder.run(*inputs)
            each = losses(full_precision(found))
            probes = recorder.probes
            slopes = (
                torch.autograd.grad(each.sum(), list(probes.values()), allow_unused=True, materialize_grads=True)
                if each.requires_grad
                else [torch.zeros_like(probe) for probe in probes.values()]
            )
        return Point(self, recorder.values, dict(zip(probes, slopes, strict=True)), each.detach())

    # -- for Point ----------------------------------------------------------------------------------------------------

    def route(self, site: Site) -> tuple[list[tuple[Edge, fx.Node]], list[fx.Node]]:
        """A site's edges, each with what its value is in the code, and the code on its way."""
        if site.name not in self._routes:
            why = self.skipped.get(site.name, "it was not among the sites that effects were asked of")
            raise GrowirError(f"{cut(site.name)} has no effects: {why}")
        return self._edges[site.name], self._code_of[site.name]

    def walk(
        self,
        site: Site,
        values: Mapping[fx.Node, Any],
        moved: Mapping[str, torch.Tensor],
        mirrored: Mapping[fx.Node, torch.Tensor] | None = None,
    ) -> dict[fx.Node, torch.Tensor]:
        """What a site's way computes with other parameters, by their keys.

        Args:
            site: The site.
            values: What the code computes with those that there are.
            moved: The other ones.
            mirrored: What the way computes with parameters that lie as far on the other side of those there are. A
                layer that makes units is affine in its parameter, so what it gives is a mirror image too.
        """
        edges, code = self.route(site)
        cut_at = {(value, edge.reader) for edge, value in edges}
        run, found = fx.Interpreter(self._code, garbage_collect_values=False), dict[fx.Node, Any]()
        for node in code:
            name = node.meta[NAME]

            def look(read: fx.Node, name: str = name) -> Any:
                return values[read] if read not in found or (read, name) in cut_at else found[read]

            if node.op == "get_attr" and (key := self._owners.get(str(node.target))) in moved:
                found[node] = moved[cast("str", key)]
                continue
            args, kwargs = fx.map_arg(node.args, look), fx.map_arg(node.kwargs, look)
            if node.op != "call_module":
                found[node] = called(run, node, cast("tuple[Any, ...]", args), cast("dict[str, Any]", kwargs))
                continue
            part = self._code.get_submodule(str(node.target))
            own = {
                p: self._owners[f"{node.target}.{p}"]
                for p, _ in part.named_buffers()  # all of them are, here
                if f"{node.target}.{p}" in self._owners
            }
            given = {p: moved[key] for p, key in own.items() if key in moved}
            alone = not any(read in found and (read, name) not in cut_at for read in node.all_input_nodes)
            if given and alone and mirrored is not None:
                found[node] = 2 * values[node] - mirrored[node]
            else:
                found[node] = functional_call(part, given, cast("tuple[Any, ...]", args)) if given else part(*args)
        return found

    def parameter(self, key: str) -> torch.Tensor:
        """A parameter as it is, without gradients."""
        found: torch.Tensor = self._module.state_dict(keep_vars=True)[key]
        return found.detach()


class Point:
    """Effects at one batch.

    Attributes:
        losses: (n,) of the samples.
    """

    def __init__(
        self,
        effects: Effects,
        values: Mapping[fx.Node, Any],
        slopes: Mapping[tuple[fx.Node, str], torch.Tensor],
        losses: torch.Tensor,
    ) -> None:
        self.losses = losses
        self._effects = effects
        self._values = values
        self._slopes = slopes

    def split(self, site: Site, theta: Theta) -> torch.Tensor:
        """(n, count) by how much a split of each unit would change each sample's loss; differentiable in theta.

        Args:
            site: One of `Effects.sites`.
            theta: Numbers by address, in the shapes of `Effects.blocks`; zeros where none are given.

        Raises:
            GrowirError: The site has no effects, or numbers are given for an address that is none of its blocks.
        """
        blocks = self._effects.blocks.get(site.name, {})
        for address, numbers in theta.items():
            if address not in blocks or tuple(numbers.shape) != blocks[address].shape:
                shapes = ", ".join(f"{name} {list(block.shape)}" for name, block in blocks.items())
                raise GrowirError(
                    f"{cut(site.name)}: theta is {cut(address)} {list(numbers.shape)}; blocks are {shapes}"
                )
        ahead = {name: self._effects.parameter(block.key) for name, block in blocks.items()}
        moved: dict[str, torch.Tensor] = {}
        opposite: dict[str, torch.Tensor] = {}
        for address, numbers in theta.items():
            block = blocks[address]
            moved[block.key] = block.moved(moved.get(block.key, ahead[address]), numbers)
            opposite[block.key] = block.moved(opposite.get(block.key, ahead[address]), -numbers)
        plus = self._effects.walk(site, self._values, moved)
        minus = self._effects.walk(site, self._values, opposite, plus)
        return self._summed(site, lambda node: 0.5 * (plus[node] + minus[node]) - self._values[node])

    def prune(self, site: Site) -> torch.Tensor:
        """(n, count) by how much each sample's loss would change if no reader saw a unit any more."""
        return self._summed(site, lambda node: -self._values[node])

    def _summed(self, site: Site, change: Callable[[fx.Node], torch.Tensor]) -> torch.Tensor:
        edges, _ = self._effects.route(site)
        total = self.losses.new_zeros(len(self.losses), site.count)
        changes = {node: change(node) for node in dict.fromkeys(node for _, node in edges)}
        for edge, node in edges:
            each = (
                (changes[node] * self._slopes[node, edge.reader]).movedim(edge.axis, 1).unsqueeze(2).flatten(2).sum(2)
            )
            places = torch.tensor(edge.positions, device=each.device)
            total = total + each[:, places.flatten()].reshape(len(each), *places.shape).sum(2)
        return total


class _Recorder(fx.Interpreter):
    """Keeps every value, and gives each reader a value of its own to take slopes at."""

    def __init__(self, code: fx.GraphModule, readers: set[tuple[fx.Node, str]]) -> None:
        super().__init__(code, garbage_collect_values=False)
        self.readers = readers
        self.probes: dict[tuple[fx.Node, str], torch.Tensor] = {}
        self.values: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        name = str(n.meta.get(NAME))

        def look(read: fx.Node) -> Any:
            return self._probe(read, name) if (read, name) in self.readers else self.env[read]

        args, kwargs = fx.map_arg(n.args, look), fx.map_arg(n.kwargs, look)
        found = called(self, n, cast("tuple[Any, ...]", args), cast("dict[str, Any]", kwargs))
        self.values[n] = found.detach() if isinstance(found, torch.Tensor) else found
        return found

    def _probe(self, read: fx.Node, reader: str) -> torch.Tensor:
        if (read, reader) not in self.probes:
            value: torch.Tensor = self.env[read]
            self.probes[read, reader] = value.view_as(value) if value.requires_grad else value.detach().requires_grad_()
        return self.probes[read, reader]


def called(run: fx.Interpreter, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a node of the code gives. What holds gradients back in training moves the loss none the less."""
    if node.target is torch.detach:
        return args[0]
    return getattr(run, node.op)(node.target, args, kwargs)


def _values(graph: Any, code: fx.GraphModule) -> dict[str, fx.Node]:
    """By the name of a value what computes it: the last node of the code that bears its name, or its input's."""
    found: dict[str, fx.Node] = {node.meta[NAME]: node for node in code.graph.nodes if NAME in node.meta}
    for node in graph.nodes:
        if node.name not in found:  # it hands its input on
            found[node.name] = found[node.inputs[0]]
    return found
