"""The way from what makes a site's units to what reads them, through a graph that carries each unit by itself.

In conv1 -> norm -> relu -> conv2 the way of conv1's units is conv1, norm and relu, and its one edge is relu -> conv2.
Of a residual stream every layer that writes to the sum makes units, and where a block reads it there is an edge. There
the way ends, so the inputs of the block's last layer are held fixed. A skip is no edge, since nothing on it reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from growir.channels import Analysis, analyse
from growir.graph import Graph, Node, per_graph
from growir.growth.measure.sites import Site, Sites, sites
from growir.shapes import own_tables, owners, shapes_of


@dataclass(frozen=True, slots=True)
class Edge:
    """Where a unit is read: a value on its way into a node.

    Attributes:
        value: The value.
        reader: The node.
        axis: The axis of the value where the units lie.
        positions: For each of the site's smallest growths the positions on that axis, all equally many.
    """

    value: str
    reader: str
    axis: int
    positions: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """A site's way through a graph.

    Attributes:
        site: The site.
        passed: The nodes on the way, those that make units included.
        edges: Where it ends.
    """

    site: Site
    passed: frozenset[str]
    edges: tuple[Edge, ...]


def route_of(graph: Graph, site: Site) -> Route | str:
    """The way of a site's units; or why there is none."""
    if len(site.space.growth) > 1:
        return "its units come only together with those of other spaces"
    analysis, shapes = analyse(graph), shapes_of(graph)
    owner, own = owners(graph), own_tables(graph)
    made = {slot.parameter for slot in site.makes}
    read = {slot.parameter for slot in site.reads}
    passed: set[str] = set()
    edges: list[Edge] = []
    for node in graph.nodes:
        keys = {owner[f"{node.name}.{parameter}"] for parameter in own[node.name]}
        moved = [name for name in dict.fromkeys(node.inputs) if name in passed]
        held = analysis.axes_of(site.space, node.name)
        if moved and (keys & read or (not held and _reads_by_a_value(node, moved, site, analysis))):
            for name in moved:
                if not shapes[name].batched:
                    return f"{node.name} reads them of {name}, which all samples share"
                edges.append(_edge(site, analysis, name, node.name))
            moved = []
        if len(held) > 1 and (moved or keys & made):
            return f"{node.name} has them on two axes, where they meet each other"
        # Where the value holds them no more they are left out, as a slice leaves some: whatever mixes units without a
        # parameter that reads them would not be kept by a split, so their space would be none that is free.
        if held and (moved or keys & made):
            passed.add(node.name)
    if not edges:
        return "nothing that reads them is behind what makes them"
    return Route(site, frozenset(passed), tuple(edges))


@per_graph
def routed(graph: Graph) -> Sites:
    """The sites of a graph whose units have a way, and why its other spaces are none."""
    found = sites(graph)
    ways = {site: route_of(graph, site) for site in found.sites}
    lost = {site.name: way for site, way in ways.items() if isinstance(way, str)}
    return Sites(tuple(site for site in found.sites if site.name not in lost), {**found.skipped, **lost})


def _reads_by_a_value(node: Node, moved: Sequence[str], site: Site, analysis: Analysis) -> bool:
    """Whether a node sums over the units with an input that is no unit itself, as a layer whose weight is a value."""
    return any(name not in moved and analysis.axes_of(site.space, name) for name in node.inputs)


def _edge(site: Site, analysis: Analysis, value: str, reader: str) -> Edge:
    each = site.space.growth[site.space.space]
    (axis,) = analysis.axes_of(site.space, value)
    units = analysis.positions(site.space, value, axis)
    joined = [tuple(at for unit in units[k : k + each] for at in unit) for k in range(0, site.count * each, each)]
    return Edge(value, reader, axis, tuple(joined))
