"""Tasks in a sequence: nothing is forgotten, growth comes where it is needed, and what is said of it all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from growir.continual.experiences import Experience, by_classes
from growir.continual.growing import size_of
from growir.continual.grown import Grown, GrownSettings, Learned
from growir.continual.heads import heads
from growir.continual.learning import ContinualResult, learn
from growir.continual.master import Master
from growir.continual.measures import Measures, measures
from growir.data import Data
from growir.errors import DataError, GraphError, RunError
from growir.families import network
from growir.graph import Graph, Input, Node
from growir.network import Network
from growir.ops import BatchNorm, Linear, Relu
from growir.verify import verify

RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(6, 8)) * 2
Y = np.arange(240) % 6
X = (CENTRES[Y] + RNG.normal(size=(240, 8))).astype(np.float32)
SHORT: dict[str, Any] = {"epochs": 4, "batch_size": 16, "learning_rate": 0.01}


def mlp(width: int = 4, outputs: int = 2) -> Graph:
    nodes, value = list[Node](), "x"
    for k in range(2):
        for name, op in ((f"fc{k}", Linear(out_features=width)), (f"norm{k}", BatchNorm()), (f"act{k}", Relu())):
            nodes.append(Node(name=name, op=op, inputs=(value,)))
            value = name
    nodes.append(Node(name="head", op=Linear(out_features=outputs), inputs=(value,)))
    return verify(Graph(inputs=(Input(name="x", shape=("N", 8)),), nodes=tuple(nodes), outputs=("head",)))


def tasks(count: int = 3) -> list[Experience]:
    groups = [[2 * k, 2 * k + 1] for k in range(count)]
    return by_classes(X[:180], Y[:180], groups, test=(X[180:], Y[180:]))


def learned(**more: Any) -> ContinualResult:
    return learn(mlp(), tasks(), settings={**SHORT, **more})


# -- a sequence -------------------------------------------------------------------------------------------------------


def test_every_task_gives_the_bits_that_it_gave_when_it_was_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[torch.Tensor] = []
    real = Grown.learn

    def told(self: Grown, master: Master, output: str, experience: Experience, target: float | None) -> Learned:
        found = real(self, master, output, experience, target)
        given.append(logits(found.master, experience.name))
        return found

    monkeypatch.setattr(Grown, "learn", told)
    found = learned(penalty=0.0)
    assert found.master is not None
    assert list(found.master.tasks) == ["0, 1", "2, 3", "4, 5"]
    for name, before in zip(found.master.tasks, given, strict=True):
        assert torch.equal(logits(found.master, name), before)
    assert found.measures.forgetting == 0
    assert found.measures.accuracy > 0.7
    assert np.isnan(found.accuracy[0, 2:]).all()
    assert found.measures.forward is not None
    assert any(found.channels), "it has grown"
    assert list(found.parameters) == sorted(found.parameters)
    assert found.parameters[-1] == size_of(found.master)


def logits(master: Master, task: str) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = master.task(task).to_torch().eval()(torch.from_numpy(X))
    return found


def test_what_reaches_its_target_grows_no_more() -> None:
    found = learned(target=0.01)
    assert not any(found.channels)
    assert [len(stages) for stages in found.selected] == [1, 1, 1]
    again = learned(growths=2, epochs=1)
    assert max(len(stages) for stages in again.selected) == 3


def test_what_stays_closed_is_pruned_again() -> None:
    found = learned(penalty=1e4, gate_rate=1.0)
    assert any(len(stages) > 1 for stages in found.selected), "channels were offered"
    assert not any(found.channels)
    assert found.master is not None
    assert found.master.graph["fc0"].op == Linear(out_features=4)


def test_the_same_seed_gives_the_same_bits() -> None:
    one, two = learned().master, learned().master
    assert one is not None
    assert two is not None
    assert one.to_data() == two.to_data()
    for key, array in one.arrays.items():
        assert np.array_equal(array, two.arrays[key])


def test_without_gates_a_task_uses_all_that_others_do() -> None:
    master = learned(select=False, sparse=False).master
    assert master is not None
    first, *_, last = master.tasks.values()
    for key, mask in first.masks.items():
        assert (last.masks[key] | ~mask).all()


@pytest.mark.parametrize("retrain", [True, False])
def test_what_no_task_uses_is_trained_or_left_out(retrain: bool) -> None:
    net = Network.init(heads(mlp(), "head", [2, 2])[0], 0)
    half = {"fc0.weight": np.arange(32).reshape(4, 8) % 2 == 0, "fc1.weight": np.arange(16).reshape(4, 4) % 3 > 0}
    own = {key: array for key, array in net.arrays.items() if key not in half and not key.startswith("task_1")}
    master = Master(net.graph, net.arrays).learned("one", "task_0.head", own=own, masks=half)
    grown = Grown(GrownSettings(**{**SHORT, "retrain": retrain, "target": 0.01}))
    after = grown.learn(master, "task_1.head", tasks()[1]).master
    free = ~master.tasks["one"].masks["fc0.weight"]
    assert after.tasks["2, 3"].masks["fc0.weight"][free].any() == retrain
    same = np.array_equal(after.arrays["fc0.weight"][free], master.arrays["fc0.weight"][free])
    assert same is not retrain or not retrain


def test_convolutions_learn_too() -> None:
    rng = np.random.default_rng(1)
    y = np.arange(48) % 4
    x = (rng.normal(size=(48, 1, 8, 8)) + y[:, None, None, None]).astype(np.float32)
    pairs = by_classes(x, y, [[0, 1], [2, 3]], test=(x, y))
    graph = network("Basic3ResNet-1-1-1", (1, 8, 8), 2, width=2)
    found = learn(graph, pairs, settings={"epochs": 1, "batch_size": 8})
    assert found.measures.forgetting == 0
    assert found.master is not None
    assert len(found.master.graph.outputs) == 2


# -- tasks and measures -----------------------------------------------------------------------------------------------


def test_each_head_is_as_wide_as_its_task_has_classes() -> None:
    graph = mlp().replace(
        nodes=(*mlp().nodes, Node(name="out", op=Relu(), inputs=("head",))), outputs=("out",), history=None
    )
    wide, outputs = heads(graph, "out", [2, 3])
    assert outputs == ["task_0.out", "task_1.out"]
    assert wide["task_1.head"].op == Linear(out_features=3)
    assert wide["task_1.out"].inputs == ("task_1.head",)
    verify(wide)


def test_classes_are_divided_into_tasks() -> None:
    first, *_ = tasks()
    assert (first.name, first.classes) == ("0, 1", (0, 1))
    assert len(first.data.train) == 60
    (_, target) = next(iter(first.data.train.batches(100, None)))
    assert sorted(set(target.tolist())) == [0, 1]
    words = by_classes(X, np.array(["b", "a"])[Y % 2], [["a", "b"]], names=["letters"])
    assert words[0].classes == ("a", "b")


def test_the_measures_of_the_worked_example() -> None:
    accuracy = np.array([[0.9, 0.5, 0.5], [0.8, 0.9, 0.6], [0.7, 0.9, 0.9]])
    found = measures(accuracy, np.full(3, 0.5))
    assert found.accuracy == pytest.approx(0.8333333)
    assert found.forgetting == pytest.approx((0.2 + 0.0) / 2)
    assert found.backward == pytest.approx(-0.1)
    assert found.forward == pytest.approx(0.05)
    assert measures(np.array([[0.5]])) == Measures(0.5, 0.0, 0.0, None)
    late = np.array([[0.5, np.nan], [0.5, 0.7]])
    assert measures(late, np.zeros(2)).forward is None
    for wrong in (np.zeros((2, 3)), np.zeros((0, 0)), np.array([[np.nan]])):
        with pytest.raises(ValueError, match=r"square|measured"):
            measures(wrong)


# -- refusals ---------------------------------------------------------------------------------------------------------


def given(x: NDArray[Any], y: Sequence[float]) -> list[Experience]:
    arrays = x.astype(np.float32), np.array(y)
    return [Experience("one", Data.from_arrays(*arrays, test=arrays), (0, 1))]


def wrong_tasks() -> Sequence[tuple[list[Experience], str]]:
    good = tasks(2)
    narrow = by_classes(X[:, :5], Y, [[0, 1]], test=(X, Y))
    untested = by_classes(X, Y, [[0, 1]])
    return [
        ([], "there are no experiences"),
        (given(np.full((6, 8), np.nan), [0, 1, 0, 1, 0, 1]), r"48 of its 48 numbers are NaN or infinite"),
        (given(np.ones((6, 8)), [0, 1, 0, 1, 0, 2]), "has a sample of class 2, but its classes are numbered 0 to 1"),
        (given(np.ones((6, 8)), [0, 1, 0, 1, 0, -1]), "has a sample of class -1, but its classes are numbered 0 to 1"),
        (
            given(np.ones((6, 8)), [0.5] * 6),
            r"targets are numbers of .*, \(n,\), but these are \(6,\)",
        ),
        ([good[0], good[0]], "two experiences are called '0, 1'"),
        (untested, "experience '0, 1' has no test data"),
        (narrow, r"experience '0, 1': the training data.* input x is .*5\), but the network takes \(N, 8\)"),
    ]


@pytest.mark.parametrize(("experiences", "message"), wrong_tasks())
def test_tasks_that_cannot_be_learned_are_refused(experiences: list[Experience], message: str) -> None:
    with pytest.raises(DataError, match=message):
        learn(mlp(), experiences, settings=SHORT)


def test_what_else_cannot_be_is_refused() -> None:
    with pytest.raises(GraphError, match="a network of one input and one output is needed"):
        learn(heads(mlp(), "head", [2, 2])[0], tasks())
    with pytest.raises(DataError, match="the training data has no sample of class 7"):
        by_classes(X, Y, [[0, 7]])
    with pytest.raises(DataError, match="1 groups of classes and 2 names"):
        by_classes(X, Y, [[0, 1]], names=["a", "b"])
    with pytest.raises(DataError, match="two experiences are called 'a'"):
        by_classes(X, Y, [[0, 1], [2, 3]], names=["a", "a"])
    with pytest.raises(DataError, match="240 inputs and 3 labels"):
        by_classes(X, Y[:3], [[0, 1]])
    with pytest.raises(DataError, match="two classes or more are needed"):
        Experience("a", Data.from_arrays(X, Y), (1,))
    with pytest.raises(DataError, match="an experience has a name"):
        Experience("", Data.from_arrays(X, Y), (1, 2))
    with pytest.raises(RunError, match="target"):
        GrownSettings(target=1.5)
