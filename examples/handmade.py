"""A network by hand: document, rewrites, difference, torch, ONNX. Writes handmade.json and handmade.onnx here."""

from __future__ import annotations

import json
from pathlib import Path

import torch

import growir
from growir.passes import AddEdge, AddNode, Widen

DOCUMENT = {
    "schema": "growir/1",
    "name": "handmade",
    "inputs": [{"name": "image", "shape": ["N", 1, 8, 8]}],
    "nodes": [
        {"name": "stem", "op": "conv2d", "inputs": ["image"], "out_channels": 4, "kernel_size": 3, "padding": 1},
        {"name": "act", "op": "relu", "inputs": ["stem"]},
        {"name": "conv", "op": "conv2d", "inputs": ["act"], "out_channels": 4, "kernel_size": 3, "padding": 1},
        {"name": "join", "op": "add", "inputs": ["conv", "stem"]},
        {"name": "pool", "op": "max_pool2d", "inputs": ["join"], "kernel_size": 4},
        {"name": "flat", "op": "flatten", "inputs": ["pool"]},
        {"name": "head", "op": "linear", "inputs": ["flat"], "out_features": 3},
    ],
    "outputs": ["head"],
}


def main() -> None:
    """Build, grow, compare, train a step, export."""
    Path("handmade.json").write_text(json.dumps(DOCUMENT, indent=1) + "\n", encoding="utf-8")
    graph = growir.load_graph("handmade.json")
    net = growir.Network.init(graph, seed=0)

    # The residual join makes one channel space of stem and conv: both widen, and the columns of head, behind pooling
    # and flatten, follow.
    for space in growir.channel_spaces(graph):
        print(space.name, space.width, "pinned" if space.pins else "free", ", ".join(space.nodes))

    # Each pass promises to keep the function; verify measures it on a random batch, in float64.
    grown = net.apply(Widen(node="join", by=2), verify=True)
    grown = grown.apply(AddNode(source="flat", target="head", width=5, activation="tanh"), verify=True)
    print(growir.diff(net, grown))

    # What does not fit is refused with a reason, and nothing has changed.
    try:
        grown.apply(AddEdge(source="node_1.act", target="head"))
    except growir.PassRefused as error:
        print(f"refused: {error}")

    images, classes = torch.randn(32, 1, 8, 8), torch.randint(3, (32,))
    module = grown.to_torch()
    with torch.no_grad():
        change = (module(images) - net.to_torch()(images)).abs().max()
    print("largest change of an output:", float(change))
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    for _ in range(20):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(module(images), classes)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own stub
        optimizer.step()
    print("loss after 20 steps:", loss.item())

    grown.updated(module).to_onnx("handmade.onnx")


if __name__ == "__main__":
    main()
