"""What requires no gradient is frozen, and the other way round: between module, network and file, through growth."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import fx, nn
from torch.optim.swa_utils import AveragedModel

import growir
from growir import live
from growir.document import dumps
from growir.graph import Graph, Node
from growir.live.carrying import heirs_of
from growir.network import Network
from growir.ops import BatchNorm, Linear
from growir.params import frozen_keys, param_table
from growir.passes import PASSES, FoldBatchNorm, Widen
from growir.replay import check_history
from growir.testing import candidates, graphs
from growir.verify import load
from tests.live.test_laws import FEW
from tests.live.training import module_of, params_of
from tests.samples import graph_of, mlp


def frozen_in(graph: Graph, module: nn.Module) -> set[str]:
    """The keys of the parameters that require no gradient."""
    return {key for key, parameter in params_of(graph, module).items() if not parameter.requires_grad}


def switch(data: st.DataObject, graph: Graph, module: nn.Module) -> set[str]:
    """Freeze some parameters of a module and thaw the others; the keys of those that are frozen."""
    params = params_of(graph, module)
    still = data.draw(st.sets(st.sampled_from(sorted(params)))) if params else set[str]()
    for key, parameter in params.items():
        parameter.requires_grad_(key not in still)
    return still


def saved_and_loaded(network: Network) -> Network:
    with tempfile.TemporaryDirectory() as folder:
        network.save(Path(folder) / "net")
        return Network.load(Path(folder) / "net")


def assert_one_fact(network: Network, module: fx.GraphModule, still: set[str]) -> None:
    """Module, network and file say the same."""
    graph = network.graph
    assert frozen_in(graph, module) == still
    found = live.network_of(module)
    for same in (found, network.updated(module), network.updated(copy.deepcopy(module))):
        assert frozen_keys(same.graph) == still
        assert same.graph.hash == found.graph.hash
    again = saved_and_loaded(found)
    assert again.graph.hash == found.graph.hash
    assert frozen_in(graph, again.to_torch()) == still
    assert frozen_keys(again.updated(module).graph) == still


@FEW
@given(data=st.data())
def test_it_survives_files_and_growth(data: st.DataObject) -> None:
    graph = data.draw(graphs(smooth=True))
    module = module_of(graph)
    network = live.network_of(module)
    still = switch(data, graph, module)
    assert_one_fact(network, module, still)

    kinds = [kind for kind in PASSES if next(kind.candidates(graph), None) is not None]
    assume(kinds)
    step = data.draw(candidates(data.draw(st.sampled_from(kinds)), graph))
    # A rewrite that was worked out before anything was frozen does as well as the pass.
    done = step.rewrite(graph)
    # Only the pass knows the numbers that it was given.
    as_pass = data.draw(st.booleans())
    grown, _ = live.grow(module, step if as_pass or step.values else done)
    heirs = heirs_of(done.edits, list(param_table(graph)))
    kept = {heirs[key] for key in still if key in heirs}
    after = live.network_of(grown).graph
    old = set(heirs.values())
    assert {key for key in frozen_in(after, grown) if key in old} == kept
    assert_one_fact(live.network_of(grown), grown, frozen_in(after, grown))

    network = live.network_of(grown)
    still = switch(data, network.graph, grown)
    assert_one_fact(network, grown, still)
    again = saved_and_loaded(live.network_of(grown))
    if again.history is not None:
        assert frozen_keys(again.replayed().graph) == still


def test_what_growth_makes_of_frozen_parameters_says_the_document() -> None:
    """A folded norm leaves a weight as it was trained, and its bias learns if anything of it did."""
    graph = graph_of(
        (3,),
        Node(name="fc", op=Linear(out_features=4, bias=False), inputs=("x",)),
        Node(name="norm", op=BatchNorm(), inputs=("fc",)),
        Node(name="head", op=Linear(out_features=2), inputs=("norm",)),
    )
    for frozen, still in (
        (["fc.weight"], {"fc.weight"}),
        (["fc.weight", "norm.weight", "norm.bias"], {"fc.weight", "fc.bias"}),
        (["norm.weight", "norm.bias"], set()),
    ):
        module = module_of(graph)
        for key in frozen:
            module.get_parameter(key).requires_grad_(False)
        grown, _ = live.grow(module, FoldBatchNorm(node="norm"))
        assert frozen_in(live.network_of(grown).graph, grown) == still


def test_a_frozen_document_learns_once_its_module_does() -> None:
    graph = graph_of((3,), Node(name="head", op=Linear(out_features=2), inputs=("x",), frozen=("bias", "weight")))
    network = Network.init(graph)
    module = network.to_torch()
    module.get_parameter("head.weight").requires_grad_(True)
    thawed = saved_and_loaded(network.updated(module))
    assert frozen_keys(thawed.graph) == {"head.bias"}
    assert not thawed.to_torch().get_parameter("head.bias").requires_grad


def test_a_tied_tensor_is_frozen_under_its_owner() -> None:
    tied = {"weight": "fc.weight"}
    graph = graph_of(
        (3,),
        Node(name="fc", op=Linear(out_features=3), inputs=("x",)),
        Node(name="head", op=Linear(out_features=3), inputs=("fc",), tied=tied),
    )
    module = Network.init(graph).to_torch()
    module.get_parameter("head.weight").requires_grad_(False)
    assert frozen_keys(live.network_of(module).graph) == {"fc.weight"}


def test_a_wrapped_module_is_read_too() -> None:
    network = Network.init(mlp())
    module = network.to_torch()
    module.get_parameter("fc1.weight").requires_grad_(False)
    assert frozen_keys(network.updated(torch.nn.DataParallel(module)).graph) == {"fc1.weight"}


def test_an_average_that_requires_no_gradient_can_keep_what_its_document_freezes() -> None:
    module = module_of(mlp())
    module.get_parameter("fc1.bias").requires_grad_(False)
    average = copy.deepcopy(module).requires_grad_(False)
    module, report = live.grow(module, Widen(node="fc1", by=2), ema=[average])
    (average,) = report.ema
    assert not any(parameter.requires_grad for parameter in average.parameters())
    network = live.network_of(module)
    assert frozen_keys(network.graph) == {"fc1.bias"}
    assert frozen_keys(live.network_of(average).graph) == {key for key, p in param_table(network.graph).items()}
    assert frozen_keys(live.network_of(average, keep_frozen=True).graph) == {"fc1.bias"}
    assert frozen_keys(network.updated(average, keep_frozen=True).graph) == {"fc1.bias"}


@pytest.mark.parametrize("still", [False, True])
def test_an_average_grows_whatever_of_it_requires_a_gradient(still: bool) -> None:
    module = module_of(mlp())
    average = AveragedModel(module)
    if still:
        average.requires_grad_(False)
    module.get_parameter("fc1.weight").requires_grad_(False)
    for _ in range(2):
        module, _ = live.grow(module, Widen(node="fc1", by=2), ema=[average])
    assert not module.get_parameter("fc1.weight").requires_grad
    assert all(parameter.requires_grad is not still for parameter in average.parameters())


def test_a_history_leads_to_the_network_whatever_is_trained() -> None:
    module, _ = live.grow(module_of(mlp()), Widen(node="fc1", by=2))
    module.get_parameter("fc1.weight").requires_grad_(False)
    graph = live.network_of(module).graph
    assert check_history(load(dumps(graph))).hash == graph.hash
    assert 'fc1  frozen [] -> ["weight"]' in str(growir.diff(mlp(), graph))
