"""Methods beside GROWN that grow a master, and where targets come from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from growir.continual.compacting import Compacting, CpgSettings
from growir.continual.fitting import FitSettings, accuracy_of
from growir.continual.growing import Growing
from growir.continual.grown import Grown, GrownSettings, Had
from growir.continual.heads import heads
from growir.continual.keeping import Kept
from growir.continual.learner import Learner
from growir.continual.learning import ContinualResult, learn
from growir.continual.master import Master
from growir.continual.targets import Targets
from growir.errors import RunError
from growir.graph import Graph, Input, Node
from growir.network import Network
from growir.ops import Linear
from growir.verify import verify
from tests.continual.test_learning import X, mlp, tasks

SHORT: dict[str, Any] = {"epochs": 4, "batch_size": 16, "learning_rate": 0.01}


def ran(method: str, **more: Any) -> ContinualResult:
    return learn(mlp(), tasks(), method=method, settings={**SHORT, **more})


def test_columns_add_the_first_network_again_and_read_all_that_is_there() -> None:
    found = ran("columns")
    assert found.master is not None
    assert found.measures.forgetting == 0
    assert list(found.channels) == [{}, {"fc0": 4, "fc1": 4}, {"fc0": 4, "fc1": 4}]
    first, _, third = found.master.tasks.values()
    assert first.masks["fc1.weight"].sum() == 16, "its own column alone"
    assert third.masks["fc1.weight"][8:].all(), "the new column reads every one"
    assert not third.masks["fc1.weight"][:4, 4:].any(), "nothing old reads what is new"


def test_what_a_task_releases_the_next_may_use() -> None:
    kept = ran("cpg", growths=1, target=0.01, release=0.5, releases=1, tolerance=1.0)
    assert kept.master is not None
    first, second, _ = kept.master.tasks.values()
    assert first.masks["fc0.weight"].sum() <= 16, "half of 32 weights"
    free = ~first.masks["fc0.weight"]
    assert (second.masks["fc0.weight"] & free).any()
    assert kept.measures.forgetting == 0


def test_what_is_released_are_the_weakest_kernels_that_no_other_task_uses() -> None:
    net = Network.init(heads(mlp(), "head", [2])[0], 0)
    weight = np.arange(1, 33, dtype=np.float32).reshape(4, 8)
    compacting = Compacting(CpgSettings(**SHORT, release=0.25, releases=1, tolerance=1.0))
    master = Master(net.graph, {**net.arrays, "fc0.weight": weight})
    learner = compacting.learner(master, "task_0.head", 0, 0)
    data = tasks()[0].data.cut(0, 0.1)
    _, thinner, selected = compacting.compacted(master, learner, data, 0, 0.0, Had())
    mask = thinner.result()["masks"]["fc0.weight"]
    assert not mask.ravel()[:8].any()
    assert mask.ravel()[8:].all()
    assert len(selected) == 1


def test_nothing_is_released_where_the_task_would_miss_what_it_has_to_keep() -> None:
    found = ran("cpg", release=1.0, releases=1, tolerance=0.0)
    assert found.master is not None
    assert found.master.tasks["0, 1"].masks["fc0.weight"].sum() == 32, "without a weight nothing is told apart"


def test_targets_come_from_runs_beside() -> None:
    graph, outputs = heads(mlp(), "head", [2, 2, 2])
    first = Network.init(graph, 0)
    best = Targets("best", first, outputs, GrownSettings(**SHORT), 0)
    each = {kind: Targets(kind, first, outputs, FitSettings(**SHORT), 0) for kind in ("scratch", "fine_tuned")}
    for k, task in enumerate(tasks()):
        alone = {kind: targets.of(k, task) for kind, targets in each.items()}
        assert best.of(k, task) == max(alone.values())
        data = task.data.cut(0, 0.1)
        assert data.select is not None
        run = each["scratch"].runs["scratch"]
        assert alone["scratch"] == accuracy_of(run.network(k).to_torch(), data.select)


def test_a_task_grows_where_it_is_below_the_target_of_its_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Targets, "of", lambda self, task, experience: [0.01, 2.0, 0.01][task])
    found = ran("grown", target="best", penalty=0.0)
    assert [len(stages) for stages in found.selected] == [1, 2, 1]
    listed = ran("grown", target=(0.01, 1.0, 0.01))
    assert [len(stages) > 1 for stages in listed.selected][::2] == [False, False]


def test_targets_that_are_not_there_are_refused() -> None:
    net = Network.init(heads(mlp(), "head", [2])[0], 0)
    master = Master(net.graph, net.arrays)
    with pytest.raises(RunError, match="'best' comes from runs"):
        Grown(GrownSettings(target="best")).learn(master, "task_0.head", tasks()[0])
    with pytest.raises(RunError, match="target: there are 1 target and 2 tasks; each has one"):
        learn(mlp(), tasks(2), settings={**SHORT, "epochs": 1, "target": (0.01,)})
    with pytest.raises(RunError, match='a share above 0 and at most 1, a list of them, or "scratch"'):
        GrownSettings(target="worst")  # type: ignore[arg-type]


def test_what_is_offered_is_a_share_of_the_first_widths() -> None:
    found = ran("grown", penalty=0.0, sparse=False, offered=0.5, target=(0.01, 1.0, 1.0))
    offered = [set(each.values()) for each in found.channels]
    assert all(sizes <= {1, 2} for sizes in offered), "half of 4, however wide the master has become"
    assert any(offered)


def test_gates_can_close_within_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[object] = []

    def told(module: object, groups: Any, *rest: object) -> None:
        rates.extend(group["lr"] for group in groups if "lr" in group)

    monkeypatch.setattr("growir.continual.grown.trained", told)
    net = Network.init(heads(mlp(), "head", [2])[0], 0)
    data = tasks()[0].data.cut(0, 0.1)
    for rate in (None, 0.5):
        grown = Grown(GrownSettings(**SHORT, gate_rate=rate))
        master, fresh = grown.offered(Master(net.graph, net.arrays), 0, 1)
        grown.fit(grown.learner(master, "task_0.head", 0, 1, fresh), data, 0, 1)
    assert rates == [3.0 / 16, 4 * 3.0 / 16, 0.5, 2.0]


def test_a_grown_master_is_counted_as_it_is_stored() -> None:
    found = ran("grow_only", penalty=0.0)
    assert found.master is not None
    growing = Growing(Grown, Network(found.master.graph, found.master.arrays), [], GrownSettings(), 0)
    growing.master = found.master
    tensors = sum(found.master.arrays[key].nbytes for key in found.master.locked)
    own = sum(array.nbytes for task in found.master.tasks.values() for array in task.own.values())
    bits = sum(-(-mask.size // 8) for task in found.master.tasks.values() for mask in task.masks.values())
    assert growing.size == tensors + own + bits == found.sizes[-1]
    assert found.master.graph["fc0"].op != Linear(out_features=4)


class Told:
    """Accuracies that are told in turn, whatever is measured."""

    def __init__(self, values: list[float]) -> None:
        self.values = iter(values)

    def __call__(self, *measured: object) -> float:
        return next(self.values)


class Noted:
    """Keeps what is noted of each task."""

    def __init__(self, notes: list[str]) -> None:
        self.notes = notes

    def __call__(self, state: Kept) -> None:
        self.notes.append(state.notes[-1])


@pytest.mark.parametrize("method", ["grown", "firefly"])
def test_a_growth_that_helps_nothing_goes_again_and_a_missed_target_is_said(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for reached, grows in (([0.5, 0.5] * 3, False), ([0.5, 0.625] * 3, True)):
        monkeypatch.setattr(f"growir.continual.{method}.accuracy_of", Told(reached))
        notes: list[str] = []
        found = learn(
            mlp(),
            tasks(),
            method=method,
            settings={**SHORT, "epochs": 1, "target": 0.75, **({"penalty": 0.0} if method == "grown" else {})},
            told=Noted(notes),
        )
        assert [list(each) for each in found.selected] == [reached[:2]] * 3
        assert any(found.channels) == grows
        best = "62.5" if grows else "50.0"
        assert notes == [f"below its target on the samples that select: {best} of 75.0 %"] * 3


@pytest.mark.parametrize("method", ["grown", "grow_only"])
def test_a_second_growth_goes_on_from_the_first(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the first one brought is used, and what it closed stays closed."""
    better = iter(k / 10 for k in range(1, 10))
    monkeypatch.setattr("growir.continual.grown.accuracy_of", lambda *rest: next(better))
    hads: list[tuple[Had, Learner]] = []
    real = Grown.learner

    def told(self: Grown, master: Master, output: str, task: int, growth: int, *rest: Any, **more: Any) -> Learner:
        found = real(self, master, output, task, growth, *rest, **more)
        if growth == 2:
            hads.append((rest[1].copied(), found))
        return found

    def half_shut(self: Grown, learner: Learner, *rest: Any) -> float:
        with torch.no_grad():
            for gates in learner.channels.values():
                gates[0] = -1.0
        return real_fit(self, learner, *rest)

    real_fit = Grown.fit
    monkeypatch.setattr(Grown, "learner", told)
    monkeypatch.setattr(Grown, "fit", half_shut)
    more = {**SHORT, "epochs": 1, "growths": 2, "offered": 0.5, "channel_rate": 1e-6, "penalty": 0.0}
    found = learn(mlp(), tasks(1), method=method, settings=more)
    ((had, learner),) = hads
    assert had.closed == {"fc0": [4], "fc1": [4]}
    masks = learner.result()["masks"]
    for key, mask in had.open.items():
        assert masks[key][mask].all(), "what was open is used"
        assert not masks[key][had.idle[key]].any(), "and what was not stays out"
    (network,) = found.networks.values()
    assert [network.arrays[f"{name}.weight"].shape[0] for name in ("fc0", "fc1")] == [6, 6]


def test_names_that_look_alike_are_told_apart() -> None:
    nodes, value = list[Node](), "x"
    for name in ("a", "s.t", "s_t", "head"):
        width = 2 if name == "head" else 8
        nodes.append(Node(name=name, op=Linear(out_features=width), inputs=(value,)))
        value = name
    entry = Input(name="x", shape=("N", 8))
    net = Network.init(verify(Graph(inputs=(entry,), nodes=tuple(nodes), outputs=("head",))), 0)
    learner = Learner(Master(net.graph, net.arrays), "head").eval()
    assert len(learner.free) == 3
    with torch.no_grad():
        assert torch.equal(learner(torch.from_numpy(X)), net.to_torch()(torch.from_numpy(X)))
