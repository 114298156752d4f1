"""A sweep that imports tiny models of the `transformers` package and grows each in every way that it can grow.

    python -m tests.importing.growing OUT.jsonl NETWORKS [--only llama,bert] [--fast] [--deeper]

Each line of OUT.jsonl is a model: how far it and its network are apart, also with fewer tokens; what every free width
says to each pass; what its lists of blocks say to `deepen`; and what ONNX Runtime makes of it before and after. What
was tried is counted, and what of it does not hold is told. A model that OUT.jsonl has already is left out, so that a
sweep goes on where it ended; networks in the folder NETWORKS are not imported again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from growir.backends.agreement import check_agreement
from growir.channels import ChannelSpace, analyse
from growir.document import function_hash
from growir.graph import Graph
from growir.network import Network
from growir.passes import Prune, Split, Widen, deepen
from growir.passes.deepening import numbered_modules
from growir.passes.resizing import in_turn
from growir.planning import leading
from growir.rewrite import Pass, Preserves
from growir.testing.laws import GRADIENT, TOLERANCE, deviations
from tests.importing.families import CLOSE, FAMILIES, Family, apart, calls, imported, in_doubles

# What configurations call the number of blocks in a list.
DEPTHS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer", "encoder_layers", "num_encoder_layers")
AGREES = 1e-5  # of float32, relative to the largest output
Batch = tuple[torch.Tensor, ...]


class Line:
    """What is found of one model: what was tried by kind, and what of it does not hold."""

    def __init__(self, family: str, way: str) -> None:
        self.found: dict[str, Any] = {"family": family, "call": way}
        self.tried: dict[str, int] = {}
        self.faults: dict[str, str] = {}

    def trying(self, kind: str, what: str, run: Callable[[], str | None]) -> None:
        """Count one trial; it fails by what it raises or says."""
        self.tried[kind] = self.tried.get(kind, 0) + 1
        try:
            said = run()
        except Exception as error:  # whatever stands in the way is what the sweep is after
            said = f"{type(error).__name__}: {error}"
        if said is not None:
            self.faults[f"{kind} {what}".rstrip()] = said[:600]


def steps(space: ChannelSpace) -> Iterator[tuple[str, Pass]]:
    """One pass of each kind for a free space: as the candidates of the passes have them."""
    yield "widen", Widen(node=space.name, by=space.stride)
    units = space.growth[space.space]
    if not (space.uniform or space.tied):
        yield "copies", Widen(node=space.name, by=space.stride, copies=in_turn(space.space, units))
    if not (space.uniform or space.partial):
        yield "like", Widen(node=space.name, by=space.stride, init="like")
    most = space.units if space.uniform else units
    if not space.tied and most <= space.units:
        yield "split", Split(node=space.name, channels=tuple(range(most)))
    if all(other.size > gone for other, gone in space.shrink.items()):
        yield "prune", Prune(node=space.name, channels=tuple(range(space.shrink[space.space])))


def kept(step: Pass, network: Network, batch: Batch) -> str | None:
    """What is wrong with a pass on a network: it cannot run afterwards, or keeps less than it says."""
    if step.preserves(network.graph) not in (Preserves.EXACT, Preserves.EVAL):
        network.apply(step).to_torch().double()(*batch)
        return None
    for one in deviations(step, network, batch):
        if one.error > (GRADIENT if one.gradient else TOLERANCE):
            what = "gradient of" if one.gradient else "output"
            return f"{'train' if one.train else 'eval'} mode: {what} {one.name} is {one.error:.1e} apart"
    return None


def alike(spaces: tuple[ChannelSpace, ...]) -> Iterator[ChannelSpace]:
    """The first of those spaces whose names differ in numbers only, as the same width of each layer does."""
    seen: set[str] = set()
    for space in spaces:
        name = re.sub(r"\d+", "#", space.name)
        if name not in seen:
            seen.add(name)
            yield space


def lists(graph: Graph) -> list[str]:
    """The modules that list blocks."""
    return sorted({name.rpartition(".")[0] for name in numbered_modules(graph)} - {""})


def in_onnx(network: Network, step: Pass | None = None) -> str | None:
    """What ONNX Runtime says of the file of a network, or of what a pass makes of it."""
    grown = network if step is None else network.apply(step)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        grown.to_onnx(path)
        found = check_agreement(grown.graph, grown.arrays, path)
    return None if found <= AGREES else f"{found:.1e} apart"


def deepened(network: Network, module: str, batch: Batch, *, exact: bool) -> str | None:
    """What is wrong with the run of blocks of a module put twice."""
    return kept(deepen(network.graph, module, exact=exact), network, batch)


def leads(graph: Graph, wanted: Graph) -> str | None:
    """What keeps a plan from leading to the graph of a deeper class, which its hash then proves."""
    if function_hash(graph) == function_hash(wanted):
        return "the class is no deeper"
    done = leading(graph, wanted).rewrite(graph).graph
    return None if function_hash(done) == function_hash(wanted) else "it has another hash"


class Sweep:
    """Where the networks of a sweep come from: imported, or imported before."""

    def __init__(self, folder: Path, *, check: bool) -> None:
        self.folder, self.check = folder, check

    def network(self, family: Family, way: str, line: Line) -> tuple[Network, dict[str, torch.Tensor]]:
        """The network of a family in float64, compared with its model if it was not imported before."""
        path = self.folder / family.name
        if path.exists():
            return Network.load(path), dict(calls(family)[way])
        model, network, example = imported(family, way, check=self.check)

        def equal(given: Mapping[str, torch.Tensor], key: str) -> Callable[[], str | None]:
            def run() -> str | None:
                line.found[key] = found = apart(model, network, given)
                return None if found <= CLOSE else f"{found:.1e} apart"

            return run

        line.trying("import", "", equal(example, "apart"))
        if family.kind == "text" and self.check:
            line.trying("length", "shorter", equal({name: x[:, 1:-1] for name, x in example.items()}, "shorter"))
        # In float32 a share of a third alone would show.
        network = Network(network.graph, {key: _doubled(array) for key, array in network.arrays.items()})
        network.save(path)
        return network, example

    def deeper(self, family: Family, way: str, line: Line) -> Graph | None:
        """The graph of the class with twice as many blocks, or None where its configuration does not say how."""
        double = {name: 4 for name in DEPTHS if family.config.get(name, 2) == 2}
        grown = dataclasses.replace(family, name=f"{family.name}-deeper", config={**family.config, **double})
        try:
            return self.network(grown, way, Line("", ""))[0].graph
        except Exception as error:  # a configuration that has no such name, mostly
            line.found["no deeper class"] = str(error)[:200]
            return None


def _doubled(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def swept(family: Family, way: str, sweep: Sweep, *, deeper: bool) -> Mapping[str, Any]:
    """The line of one model."""
    begun, line = time.time(), Line(family.name, way)
    try:
        network, example = sweep.network(family, way, line)
    except Exception as error:  # as above
        return {**line.found, "error": f"{type(error).__name__}: {error}"}
    graph, batch = network.graph, tuple(in_doubles(example, 3).values())
    spaces = analyse(graph).spaces
    line.found |= {
        "nodes": len(graph.nodes),
        "fixed": [str(one) for one in graph.fixed_sizes],
        "free": [space.name for space in spaces if not space.pins],
        "pinned": {s.name: [s.width, *sorted({str(p) for p in s.pins})] for s in spaces if s.pins},
    }
    line.trying("onnx", "", partial(in_onnx, network))
    free = list(alike(tuple(space for space in spaces if not space.pins)))
    for space in free:
        for kind, step in steps(space):
            line.trying(kind, space.name, partial(kept, step, network, batch))
    for space in (*free[:1], *free[1:][-1:]):
        line.trying("onnx", space.name, partial(in_onnx, network, Widen(node=space.name, by=space.stride)))
    for module in lists(graph):
        line.trying("deepen exact", module, partial(deepened, network, module, batch, exact=True))
        line.trying("deepen", module, partial(deepened, network, module, batch, exact=False))
    if deeper and (wanted := sweep.deeper(family, way, line)) is not None:
        line.trying("deeper", "", partial(leads, graph, wanted))
    return {**line.found, "tried": line.tried, "faults": line.faults, "seconds": round(time.time() - begun, 1)}


def main() -> None:
    """Append a line for each model that is not there yet, under the first or last of the ways to call it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("networks", type=Path, help="a folder for networks that were imported")
    parser.add_argument("--only", default="", help="names of families, separated by commas")
    parser.add_argument("--fast", action="store_true", help="import without the import's own comparison")
    parser.add_argument("--deeper", action="store_true", help="compare with the class of twice the depth")
    args = parser.parse_args()
    only = set(args.only.split(",")) - {""}
    old = args.out.read_text(encoding="utf-8").splitlines() if args.out.exists() else []
    done = {json.loads(text)["family"] for text in old}
    sweep = Sweep(args.networks, check=not args.fast)
    with args.out.open("a", encoding="utf-8") as out:
        for family in FAMILIES:
            if family.name in done or (only and family.name not in only):
                continue
            way = [*calls(family)][-1]
            found = swept(family, way, sweep, deeper=args.deeper)
            out.write(json.dumps(found) + "\n")
            out.flush()
            print(family.name, found.get("error") or found["faults"] or "grows", flush=True)


if __name__ == "__main__":
    main()
