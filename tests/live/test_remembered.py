"""What a module knows of itself over growths: its graph, which is not read anew, and the arrays of its history."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import fx, nn
from torch.optim.swa_utils import AveragedModel

from growir import live
from growir.backends.torch_fx import building, lowering
from growir.document import dumps
from growir.errors import ModelError
from growir.graph import Graph
from growir.live import growing, modules
from growir.network import Network
from growir.passes import AddEdge, Widen
from growir.testing import random_network
from growir.verify import load
from tests.samples import mlp


def module_of(graph: Graph) -> fx.GraphModule:
    return random_network(graph).to_torch(dtype=torch.float32)


def given() -> Widen:
    return Widen(node="fc1", by=2, values={"fc1.weight": np.full((2, 3), 0.25, np.float32)})


def pickled(module: nn.Module) -> nn.Module:
    found: nn.Module = pickle.loads(pickle.dumps(module))
    return found


WAYS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "itself": lambda module: module,
    "deep copy": copy.deepcopy,
    "pickle": pickled,
    "both": lambda module: pickled(copy.deepcopy(module)),
}


def test_a_graph_is_read_without_its_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    grown, _ = live.grow(module_of(mlp()), Widen(node="fc1", by=2))
    grown.get_parameter("fc1.weight").requires_grad_(False)
    wanted = live.network_of(grown).graph
    monkeypatch.setattr(growing, "read_back", None)  # what copies
    found = live.graph_of(grown)
    assert dumps(found) == dumps(wanted)
    assert found["fc1"].frozen
    with pytest.raises(ModelError, match="must be a GraphModule that growir made"):
        live.graph_of(nn.Linear(2, 2))


@pytest.mark.parametrize("way", WAYS)
def test_a_module_carries_what_its_history_recorded(way: str, tmp_path: Path) -> None:
    network = random_network(mlp())
    first, _ = live.grow(network.to_torch(), given())
    second, _ = live.grow(
        WAYS[way](first), AddEdge(source="x", target="head", values={"edge_1.weight": np.ones((2, 3))})
    )
    found = live.network_of(WAYS[way](second))
    assert len(found.values) == 2
    again = found.replayed(network.arrays)
    assert all(np.array_equal(again.arrays[key], array) for key, array in found.arrays.items())
    found.save(tmp_path / "net")
    loaded = live.network_of(Network.load(tmp_path / "net").to_torch())
    assert loaded.values.keys() == found.values.keys()


def test_averages_carry_them_too() -> None:
    module = module_of(mlp())
    average, kept = AveragedModel(module), copy.deepcopy(module)
    _, report = live.grow(module, given(), ema=[average, kept])
    for each in (average.module, report.ema[1]):
        assert isinstance(each, nn.Module)
        assert live.network_of(each).values.keys() == report.values.keys()


def test_copies_of_a_module_share_the_arrays() -> None:
    grown, report = live.grow(module_of(mlp()), given())
    (digest,) = report.values
    assert lowering.values_of(copy.deepcopy(grown))[digest] is lowering.values_of(grown)[digest]


class Counted:
    """How often documents are read and graphs lowered."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read = self.lowered = 0
        run = building._Lowering.run  # pyright: ignore[reportPrivateUsage]

        def reading(text: str) -> Graph:
            self.read += 1
            return load(text)

        def lowering_(which: Any) -> fx.GraphModule:
            self.lowered += 1
            return run(which)

        monkeypatch.setattr(modules, "load", reading)
        monkeypatch.setattr(building._Lowering, "run", lowering_)  # pyright: ignore[reportPrivateUsage]

    def since(self) -> tuple[int, int]:
        found = self.read, self.lowered
        self.read = self.lowered = 0
        return found


def test_growth_reads_no_document_and_lowers_once(monkeypatch: pytest.MonkeyPatch) -> None:
    module = module_of(mlp())
    counted = Counted(monkeypatch)
    for _ in range(3):
        module, _ = live.grow(module, Widen(node="fc1", by=1))
        assert counted.since() == (0, 1)
        live.network_of(module)
        assert counted.since() == (0, 0)


def test_a_copy_is_read_once_and_known_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for way in ("deep copy", "pickle"):
        module = WAYS[way](module_of(mlp()))
        with monkeypatch.context() as patch:
            counted = Counted(patch)
            live.network_of(module)
            assert counted.since() == (1, 1)
            module, _ = live.grow(module, Widen(node="fc1", by=1))
            assert counted.since() == (0, 1)


def test_spaces_are_derived_once_for_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    from growir import channels

    module = module_of(mlp())
    analysed: list[Graph] = []
    derived = channels._derived  # pyright: ignore[reportPrivateUsage]

    def counted(graph: Graph, *opening: Any) -> channels.Analysis:
        analysed.append(graph)
        return derived(graph, *opening)

    monkeypatch.setattr(channels, "_derived", counted)
    for _ in range(3):
        channels.channel_spaces(live.network_of(module))
    assert len(analysed) == 1


def test_code_that_is_changed_by_hand_is_noticed_on_a_module_that_is_known() -> None:
    module, _ = live.grow(module_of(mlp()), Widen(node="fc1", by=1))
    live.network_of(module)
    (act,) = [node for node in module.graph.nodes if node.name == "act1"]
    act.replace_all_uses_with(act.args[0])
    module.graph.erase_node(act)
    module.recompile()
    with pytest.raises(ModelError, match="code was changed after growir made it, at 'head'"):
        live.grow(module, Widen(node="fc1", by=1))


def test_a_document_that_was_put_there_is_the_truth() -> None:
    """What is remembered counts only as long as the module carries the text it was made with."""
    module = module_of(mlp())
    other = mlp().replace(name="other")
    module.meta[lowering.DOCUMENT] = dumps(other)
    assert live.network_of(module).graph.name == "other"


def test_freezing_is_seen_at_each_look() -> None:
    module = module_of(mlp())
    assert live.network_of(module).graph["fc1"].frozen == ()
    module.get_parameter("fc1.weight").requires_grad_(False)
    assert live.network_of(module).graph["fc1"].frozen == ("weight",)
    module.get_parameter("fc1.weight").requires_grad_(True)
    assert live.network_of(module).graph["fc1"].frozen == ()
