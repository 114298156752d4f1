"""Training from scratch: dropped paths, a second head, going on, and a network that comes back as the graph's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from growir import Network
from growir.backends.torch_fx.lowering import lower_tensors
from growir.cells import Genotype, genotype, network
from growir.cellsearch.config import EvaluationConfig, read_search
from growir.cellsearch.evaluating import DropPath, Training, WithSecond, dropping, middle_of, second_head, train
from growir.cellsearch.problem import Images, images_of
from growir.errors import RunError
from growir.growth.objective import CrossEntropy
from tests.cellsearch.small import write_run

SMALL = Genotype((("sep_conv_3x3", 0), ("skip_connect", 1)), (2,), (("max_pool_3x3", 0), ("skip_connect", 1)), (2,))
SETTINGS = EvaluationConfig(cells=3, reductions=(1,), width=3, stem=1, epochs=3, batch_size=32)


@pytest.fixture
def images(tmp_path: Path) -> Images:
    return images_of(read_search(write_run(tmp_path)))


def test_a_training_is_the_same_again_and_whatever_it_is_stopped_after(images: Images, tmp_path: Path) -> None:
    start = images.network(SMALL, SETTINGS, "small", 0)
    whole = train(start, images, SETTINGS, 0)
    again = train(start, images, SETTINGS, 0, tmp_path / "kept")
    assert all(np.array_equal(whole.network.arrays[key], again.network.arrays[key]) for key in whole.network.arrays)

    class Stop(Exception):
        pass

    def stop(done: int, total: int, loss: float) -> None:
        if done == 2:
            raise Stop

    folder = tmp_path / "stopped"
    with pytest.raises(Stop):
        train(start, images, SETTINGS, 0, folder, stop)
    seen: list[int] = []
    gone_on = train(start, images, SETTINGS, 0, folder, lambda done, total, loss: seen.append(done))
    assert seen == [2, 3]
    assert all(np.array_equal(whole.network.arrays[key], gone_on.network.arrays[key]) for key in whole.network.arrays)
    assert gone_on.metrics == whole.metrics
    assert gone_on.loss == whole.loss


def test_what_comes_back_is_the_graphs_own(images: Images) -> None:
    start = images.network(SMALL, SETTINGS, "small", 0)
    found = train(start, images, SETTINGS, 0)
    assert found.network.graph == start.graph
    assert set(found.network.arrays) == set(start.arrays)
    moved = [key for key in start.arrays if not np.array_equal(start.arrays[key], found.network.arrays[key])]
    assert "head.weight" in moved
    assert "standard.mean" not in moved
    dataset = images.problem.dataset
    assert dataset is not None
    assert float(start.arrays["standard.mean"][0]) == pytest.approx(dataset.x_train.mean(), abs=1e-6)
    test = images.problem.data.test
    assert test is not None
    batch = next(iter(test.batches(40, None)))
    logits = found.network.to_torch().eval()(*batch.inputs)
    assert float((logits.argmax(1) == batch.target).double().mean()) == found.metrics["accuracy"]


def test_nothing_is_trained_for_no_epochs(images: Images) -> None:
    start = images.network(SMALL, SETTINGS, "small", 0)
    found = train(start, images, SETTINGS.model_copy(update={"epochs": 0}), 0)
    assert all(np.array_equal(start.arrays[key], found.network.arrays[key]) for key in start.arrays)
    assert set(found.metrics) == {"loss", "accuracy"}


def test_paths_drop_whole_samples_and_keep_the_mean() -> None:
    torch.manual_seed(0)
    paths, x = DropPath(), torch.ones(4000, 2, 3, 3)
    assert torch.equal(paths.train()(x), x)
    paths.rate = 0.25
    found = paths(x)
    each = found.flatten(1)
    assert bool((each == each[:, :1]).all())
    assert sorted(set(each[:, 0].tolist())) == [0.0, pytest.approx(4 / 3)]
    assert float(found.mean()) == pytest.approx(1, abs=0.05)
    assert torch.equal(paths.eval()(x), x)


def test_paths_of_identities_stay_and_all_others_may_drop() -> None:
    graph = network(SMALL, (1, 8, 8), 2, cells=3, width=2, reductions=[1])
    made = Network.init(graph, 0)
    module, paths = made.to_torch(), DropPath()
    tensors = module.state_dict(keep_vars=True)
    dropped = dropping(lower_tensors(graph, tensors, form="nodes"), graph, paths)
    # A normal cell has one operation with nodes, the reduction cell two, since its identity halves the size.
    assert sum(node.target == "drop_path" for node in dropped.graph.nodes) == 1 + 2 + 1
    x = torch.randn(5, 1, 8, 8)
    torch.testing.assert_close(dropped.eval()(x), module.eval()(x))
    paths.rate = 0.5
    torch.manual_seed(0)
    assert not torch.allclose(dropped.train()(x), dropped(x))


def test_paths_drop_out_more_with_each_epoch(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    forward = DropPath.forward

    def watched(self: DropPath, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            rates.append(self.rate)
        return forward(self, x)

    monkeypatch.setattr(DropPath, "forward", watched)
    settings = SETTINGS.model_copy(update={"epochs": 4, "drop_path": 0.4})
    train(images.network(SMALL, settings, "small", 0), images, settings, 0)
    assert sorted(set(rates)) == [pytest.approx(rate) for rate in (0.0, 0.1, 0.2, 0.3)]
    assert rates == sorted(rates)


def test_the_second_heads_loss_counts_as_it_is_weighted() -> None:
    logits, second, target = torch.randn(6, 3), torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    plain, both = CrossEntropy(), WithSecond(CrossEntropy(), 0.4)
    first, ahead = plain.each((logits,), target), plain.each((second,), target)
    torch.testing.assert_close(both.each((logits, second), target), first + 0.4 * ahead)
    torch.testing.assert_close(both.total((logits, second), target), (first + 0.4 * ahead).sum())
    torch.testing.assert_close(both.total((logits,), target), first.sum())
    assert both.metrics((logits, second), target) == plain.metrics((logits,), target)


def test_the_second_head_has_the_windows_of_darts_where_they_fit() -> None:
    x = torch.randn(1, 4, 8, 8)
    for shape, pool in (((4, 8, 8), torch.nn.AvgPool2d(5, 3)), ((4, 7, 7), torch.nn.AdaptiveAvgPool2d(2))):
        graph = second_head(shape, 3)
        seen = Network.init(graph.replace(outputs=("pool",), history=None), 0).to_torch().eval()
        part = x[:, :, : shape[1], : shape[2]]
        torch.testing.assert_close(seen(part), pool(part.relu()))


def test_a_second_head_reads_the_last_reduction_cell_and_counts_while_it_trains() -> None:
    graph = network(genotype("DARTS_V1"), (1, 8, 8), 3, cells=3, width=2, reductions=[1])
    assert middle_of(graph) == "reduce.1.out"
    assert middle_of(network(SMALL, (1, 8, 8), 3, cells=1, width=2, reductions=[])) is None
    training = Training(Network.init(graph, 0), 3, torch.device("cpu"), second=True, seed=0)
    x = torch.randn(4, 1, 8, 8)
    assert [tuple(each.shape) for each in training.train()(x)] == [(4, 3), (4, 3)]
    assert [tuple(each.shape) for each in training.eval()(x)] == [(4, 3)]
    assert any(key.startswith("ahead.") for key in training.learned())
    training.train()(x)[1].sum().backward()
    assert training.tensors["normal.0.preprocess0.conv.weight"].grad is not None
    assert training.tensors["head.weight"].grad is None


def test_what_another_network_kept_is_refused_and_damage_is_named(images: Images, tmp_path: Path) -> None:
    start = images.network(SMALL, SETTINGS, "small", 0)
    train(start, images, SETTINGS, 0, tmp_path)
    other = SETTINGS.model_copy(update={"width": 4})
    with pytest.raises(RunError, match="what is kept here is of another network; give another --out"):
        train(images.network(SMALL, other, "small", 0), images, other, 0, tmp_path)
    (tmp_path / "state" / "tensors.safetensors").write_bytes(b"none")
    with pytest.raises(RunError, match="what going on needs is damaged"):
        train(start, images, SETTINGS, 0, tmp_path)
