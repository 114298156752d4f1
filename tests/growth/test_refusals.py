"""What a policy gives back is checked: one message each, which names the policy, and the run directory stays whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import growir
from growir.data import Data
from growir.errors import RunError
from growir.graph import Graph, Input, Node
from growir.growth.budget import Budget, Cost
from growir.growth.memory import checked_memory, divided
from growir.growth.observer import Observer
from growir.growth.policy import Candidate, Score
from growir.growth.session import Session
from growir.network import Network
from growir.ops import Add, Linear
from growir.passes import Widen
from growir.rewrite import Pass
from tests.growth.problems import spirals
from tests.growth.test_policy_law import Liar, OverBudget, Remembering, Wide, dense

FEW: dict[str, Any] = {"epochs_between": 1, "epochs_final": 1, "batch_size": 32}


class Twice(Wide):
    def propose(self, session: Session, budget: Budget) -> list[Candidate]:
        return [*super().propose(session, budget), *super().propose(session, budget)]


class NoPass(Wide):
    def build(self, session: Session, chosen: Sequence[Score]) -> Pass:
        return {"pass": "widen"}  # type: ignore[return-value]


class Elsewhere(Wide):
    def build(self, session: Session, chosen: Sequence[Score]) -> Pass:
        return Widen(node="nowhere", by=1)


class Late(Wide):
    """Lies at its second growth only."""

    def build(self, session: Session, chosen: Sequence[Score]) -> Pass:
        built = super().build(session, chosen)
        again = session.graph.history is not None and bool(session.graph.history.steps)
        return Liar(self.settings).build(session, chosen) if again else built


WRONG: dict[type[Wide], str] = {
    Twice: "policy wide: two of its candidates are called 'fc'; name each",
    NoPass: "policy wide: build gives dict, but a pass is needed",
    Elsewhere: "policy wide: what it built does not fit the network: there is no node 'nowhere'",
    OverBudget: "policy wide: what it built goes beyond the budget: it adds .* where there is room for",
    Liar: r"policy wide: lying_widen, .* promises that the function is kept \(exact\), but it is not: an output",
}


@pytest.mark.filterwarnings("ignore:the history is not checked")
@pytest.mark.parametrize("kind", WRONG, ids=lambda kind: kind.__name__)
def test_what_is_wrong_is_one_message(kind: type[Wide]) -> None:
    with pytest.raises(RunError, match=WRONG[kind]):
        growir.grow(dense(), spirals(80), policy=kind, budget={"parameters": 60}, train=FEW)


def two_inputs() -> Network:
    def read(name: str) -> Node:
        return Node(name=f"of_{name}", op=Linear(out_features=2), inputs=(name,))

    graph = Graph(
        inputs=tuple(Input(name=name, shape=("N", 3)) for name in "ab"),
        nodes=(read("a"), read("b"), Node(name="sum", op=Add(), inputs=("of_a", "of_b"))),
        outputs=("sum",),
    )
    return Network.init(graph, seed=0)


@pytest.mark.parametrize(
    ("start", "shapes", "says"),
    [
        (
            two_inputs(),
            [(40, 3), (40, 3)],
            r"networks of one input of floats, but this one takes \(N, 3\) of float",
        ),
        (Network.init(two_inputs().graph, dtype=np.float64), [(40, 3), (40, 3)], "networks of one input of floats"),
        (Network.init(dense(), dtype=np.float64), [(40, 2)], "networks of float32, but this one has float64"),
    ],
    ids=["two inputs", "two inputs of float64", "float64"],
)
def test_what_a_policy_cannot_grow_is_refused_before_there_is_a_folder(
    start: Network, shapes: list[tuple[int, ...]], says: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    x = tuple(rng.normal(size=shape).astype(next(iter(start.arrays.values())).dtype) for shape in shapes)
    data = Data.from_arrays(x if len(x) > 1 else x[0], rng.integers(0, 2, 40))
    with pytest.raises(RunError, match=f"policy dag: it grows {says}"):
        growir.grow(start, data, policy="dag", objective="cross_entropy", train=FEW, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore:the history is not checked")
def test_a_late_refusal_leaves_the_last_completed_step(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="promises that the function is kept"):
        growir.grow(dense(), spirals(80), policy=Late, train=FEW, out=tmp_path / "run")
    kept = Network.load(tmp_path / "run" / "checkpoint" / "network")
    assert kept.graph.history is not None
    assert len(kept.graph.history.steps) == 1
    with pytest.raises(RunError, match="promises that the function is kept"):
        growir.grow(dense(), spirals(80), policy=Late, train=FEW, out=tmp_path / "run", resume=True)


# -- what is remembered -----------------------------------------------------------------------------------------------


class Forgetting(Remembering):
    memory: Any = None

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = self.memory
        return found


@pytest.mark.parametrize(
    ("memory", "says"),
    [
        ([1, 2], "state gives list, but a mapping by name is needed"),
        ({1: 2}, "state has the name 1, but names are text"),
        ({"a": (1, 2)}, "state has tuple as 'a', which a checkpoint cannot give back as it is"),
        ({"a": {1: 2}}, "state has dict as 'a'"),
        ({"a": float("nan")}, "state has float as 'a'"),
        ({"a": {1, 2}}, "state has set as 'a'"),
        ({"a": np.array(["x"])}, "state has ndarray as 'a'"),
        ({"a": Cost()}, "state has Cost as 'a'"),
    ],
)
def test_what_no_checkpoint_can_give_back_is_refused(memory: Any, says: str) -> None:
    class Mine(Forgetting):
        pass

    Mine.memory = memory
    with pytest.raises(RunError, match=f"policy wide: {says}"):
        growir.grow(dense(), spirals(80), policy=Mine, budget={"steps": 1}, train=FEW)


def test_what_is_remembered_comes_back_as_it_is(tmp_path: Path) -> None:
    memory = {"a": [1, 2.5, None, "x"], "b": {"c": True}, "d": np.arange(6.0).reshape(2, 3), "e": np.array([True])}
    assert checked_memory("mine", memory) == memory
    values, arrays = divided(memory)
    assert (set(values), set(arrays)) == ({"a", "b"}, {"d", "e"})
    seen: list[dict[str, Any]] = []

    class Mine(Remembering):
        def state(self) -> dict[str, Any]:
            return memory

        def restored(self, state: dict[str, Any]) -> None:
            seen.append(state)

    def grow(**others: Any) -> Any:
        return growir.grow(dense(), spirals(80), policy=Mine, budget={"steps": 2}, train=FEW, out=tmp_path, **others)

    def stop(session: Session, progress: Any) -> None:
        if progress.step == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        grow(observer=Observer(checkpoint=stop))
    grow(resume=True)
    (found,) = seen
    assert found.keys() == memory.keys()
    for name, value in memory.items():
        assert np.array_equal(found[name], value) if isinstance(value, np.ndarray) else found[name] == value
