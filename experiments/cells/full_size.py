"""A published genotype at full size: built, every width made larger, function kept, and exported, with seconds.

python -m experiments.cells.full_size DARTS_V2
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from growir import Network, channel_spaces
from growir.cells import genotype, genotype_of, network
from growir.passes import Sequence, Widen

T = TypeVar("T")
CELLS, WIDTH, SHAPE, CLASSES = 20, 36, (3, 32, 32), 10


def moved(network: Network) -> Network:
    """A network with all numbers moved by chance: with fresh norms the last bias would be most of the output."""
    rng = np.random.default_rng(0)
    arrays = {key: array for key, array in network.arrays.items() if array.dtype == np.float32}
    drawn = {key: (array + 0.2 * rng.normal(size=array.shape)).astype(np.float32) for key, array in arrays.items()}
    positive = {key: np.abs(array) + np.float32(0.1) for key, array in drawn.items() if key.endswith("running_var")}
    return network.with_arrays({**drawn, **positive})


def main(name: str) -> dict[str, Any]:
    """Do it; sizes, the largest change of an output, relative to the largest output, and seconds."""
    seconds: dict[str, float] = {}

    def timed(what: str, do: Callable[[], T]) -> T:
        began = time.perf_counter()
        found = do()
        seconds[what] = round(time.perf_counter() - began, 2)
        return found

    found = genotype(name)
    graph = timed("graph", lambda: network(found, SHAPE, CLASSES, cells=CELLS, width=WIDTH))
    assert genotype_of(graph) == found
    start = timed("weights", lambda: moved(Network.init(graph, 0)))
    spaces = [space for space in channel_spaces(graph) if not space.pins]
    step = Sequence(passes=tuple(Widen(node=space.name, by=space.stride) for space in spaces))
    wider = timed("widen", lambda: start.apply(step))
    x = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = timed("run", lambda: start.to_torch().eval()(x))
        after = timed("run wider", lambda: wider.to_torch().eval()(x))
    change = float((after - before).abs().max() / before.abs().max())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        timed("export", lambda: wider.to_onnx(path))
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (onnx,) = timed("run in ONNX Runtime", lambda: session.run(None, {"image": x.numpy()}))
    apart = float(np.abs(onnx - after.numpy()).max() / np.abs(after.numpy()).max())
    return {
        "genotype": name,
        "parameters": graph.costs().parameters,
        "macs": graph.costs().macs,
        "nodes": len(graph.nodes),
        "widened spaces": len(spaces),
        "parameters then": wider.graph.costs().parameters,
        "function moved by": change,
        "onnx apart by": apart,
        "seconds": seconds,
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(main(sys.argv[1] if len(sys.argv) > 1 else "DARTS_V2"), indent=1))
