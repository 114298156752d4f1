"""What growth is compared with: each learns what it is given, and forgets as far as nothing protects it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call, grad, vmap

from growir.continual.baselines import Consolidated, EwcSettings, FineTuned
from growir.continual.fitting import FitSettings
from growir.continual.grown import heads
from growir.continual.learning import METHODS, ContinualResult, learn
from growir.continual.views import up_to
from growir.errors import RunError
from growir.network import Network
from tests.continual.test_learning import X, mlp, tasks

SHORT: dict[str, Any] = {"epochs": 6, "batch_size": 16, "learning_rate": 0.01}


def ran(method: str, **more: Any) -> ContinualResult:
    return learn(mlp(8), tasks(), method=method, settings={**SHORT, **more})


@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_learns_its_tasks(method: str) -> None:
    found = ran(method)
    assert np.diag(found.accuracy).min() > 0.7
    assert list(found.networks) == ["0, 1", "2, 3", "4, 5"]
    assert list(found.parameters) == sorted(found.parameters)
    assert (found.master is not None) == method.startswith(("grow", "firefly"))
    for network in found.networks.values():
        assert network.to_torch().eval()(torch.from_numpy(X)).shape == (len(X), 2)


def test_what_is_separate_forgets_nothing_and_shares_nothing() -> None:
    found = ran("separate")
    assert found.measures.forgetting == 0
    one = sum(array.size for array in found.networks["0, 1"].arrays.values())
    assert found.parameters == [one, 2 * one, 3 * one]


def test_one_trunk_is_kept_once() -> None:
    found = ran("fine_tuned")
    first, second, third = found.networks.values()
    np.testing.assert_array_equal(first.arrays["fc0.weight"], third.arrays["fc0.weight"])
    head = sum(array.size for key, array in second.arrays.items() if "head" in key)
    assert np.diff(found.parameters).tolist() == [head, head]


def moved(network: Network, first: Network) -> float:
    return sum(float(((network.arrays[key] - first.arrays[key]) ** 2).sum()) for key in ("fc0.weight", "fc1.weight"))


def test_consolidation_holds_weights_where_they_counted() -> None:
    wide, outputs = heads(mlp(8), "head", [2, 2, 2])
    distances: dict[str, float] = {}
    for name, strength in (("fine_tuned", None), ("none", 0.0), ("strong", 1e5)):
        told = SHORT if strength is None else {**SHORT, "strength": strength}
        method = (
            FineTuned(wide, outputs, FitSettings(**told), 0)
            if strength is None
            else Consolidated(wide, outputs, EwcSettings(**told), 0)
        )
        first, second, _ = tasks()
        method.learn(0, first)
        before = method.network(0)
        method.learn(1, second)
        distances[name] = moved(method.network(0), before)
    assert distances["none"] == pytest.approx(distances["fine_tuned"])
    assert distances["strong"] < 0.5 * distances["none"]


def test_fisher_information_is_the_mean_square_of_each_sample_s_gradient() -> None:
    wide, outputs = heads(mlp(4), "head", [2, 2])
    method = Consolidated(wide, outputs, EwcSettings(**{**SHORT, "fisher_samples": 10_000}), 0)
    first, _ = tasks(2)
    method.learn(0, first)
    module = method.network(0).to_torch().eval()
    weights = {key: parameter.detach() for key, parameter in module.named_parameters()}
    buffers = dict(module.named_buffers())
    train = first.data.cut(0, 0.1).train
    ((given, target),) = train.batches(10_000, None)
    assert isinstance(given, tuple)
    (x,) = given

    def loss(weights: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(functional_call(module, {**weights, **buffers}, (x[None],)), y[None])

    each = vmap(grad(loss), in_dims=(None, 0, 0))(weights, x, target)
    for key, (_, fisher) in method.kept[0].items():
        torch.testing.assert_close(fisher, (each[key] ** 2).mean(0), rtol=1e-4, atol=1e-8)


def test_joint_training_knows_all_tasks_so_far() -> None:
    found = ran("joint", epochs=10)
    assert found.accuracy[-1].min() > 0.7


def test_up_to_is_the_network_up_to_one_output() -> None:
    wide, outputs = heads(mlp(4), "head", [2, 3])
    net = Network.init(wide, 0)
    second = up_to(net, outputs[1])
    assert "task_0.head.weight" not in second.arrays
    assert second.arrays["task_1.head.weight"].shape == (3, 4)
    single = Network.init(mlp(4), 0)
    assert up_to(single, "head").graph.hash == single.graph.hash


def test_what_there_is_not_is_refused() -> None:
    with pytest.raises(RunError, match=r"there is no method 'grow'\. Did you mean"):
        learn(mlp(), tasks(), method="grow")
    with pytest.raises(RunError, match="strength"):
        learn(mlp(), tasks(), method="separate", settings={"strength": 1.0})
