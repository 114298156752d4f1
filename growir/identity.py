"""What makes a graph that graph: the canonical bytes of its inputs, nodes and outputs, and their hash.

`Graph.hash` needs this, so it stands below the graph and sees one only as a type.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from growir.graph import Graph, Node

Json = dict[str, Any]


def node_data(node: Node) -> Json:
    """A node as its document shows it, default-valued fields omitted."""
    data: Json = {"name": node.name, "op": node.op.kind()}
    if node.inputs:
        data["inputs"] = list(node.inputs)
    data.update(node.op.attributes())
    if node.tied:
        data["tied"] = dict(sorted(node.tied.items()))
    if node.frozen:
        data["frozen"] = list(node.frozen)
    if node.source is not None:
        data["source"] = node.source
    return data


def canonical(graph: Graph, *, frozen: bool = True) -> bytes:
    """The bytes that make a graph's identity: inputs, nodes and outputs without defaults.

    Neither what it is called, nor where it comes from, nor how it got there; without `frozen`, nor what is trained.
    """
    inputs = []
    for entry in graph.inputs:
        data: Json = {"name": entry.name, "shape": list(entry.shape)}
        if entry.dtype != "float32":
            data["dtype"] = entry.dtype
        inputs.append(data)
    nodes = []
    for node in graph.nodes:
        data = node_data(node)
        data.pop("source", None)
        if not frozen:
            data.pop("frozen", None)
        nodes.append(data)
    whole = {"inputs": inputs, "nodes": nodes, "outputs": list(graph.outputs)}
    return json.dumps(whole, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def content_hash(graph: Graph) -> str:
    """sha256 of the canonical bytes, in hex."""
    return hashlib.sha256(canonical(graph)).hexdigest()
