"""The law of policies: ours obey it, and each fault it speaks of is found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import Phase, settings
from hypothesis import strategies as st

from growir.channels import analyse
from growir.errors import RunError
from growir.graph import Graph, Input, Node
from growir.growth.budget import Budget
from growir.growth.measure.sites import free_spaces
from growir.growth.policies.dag.policy import Dag
from growir.growth.policies.net2net import Net2Net
from growir.growth.policies.random import RandomWidth
from growir.growth.policy import Candidate, PolicySettings, Score
from growir.growth.select import best
from growir.growth.session import Session
from growir.ops import BatchNorm, Dropout, Linear, Relu
from growir.params import param_table
from growir.passes import Widen
from growir.rewrite import Pass, Preserves
from growir.testing import policy_law
from growir.verify import verify
from tests.conftest import PROFILE


def dense(width: int = 4, dropout: bool = False) -> Graph:
    """A layer that may become wider, with a norm, in front of the output."""
    nodes = [
        Node(name="fc", op=Linear(out_features=width), inputs=("x",)),
        Node(name="norm", op=BatchNorm(), inputs=("fc",)),
        Node(name="act", op=Relu(), inputs=("norm",)),
    ]
    if dropout:
        nodes.append(Node(name="drop", op=Dropout(p=0.3), inputs=("act",)))
    nodes.append(Node(name="out", op=Linear(out_features=2), inputs=(nodes[-1].name,)))
    return verify(Graph(inputs=(Input(name="x", shape=("N", 3)),), nodes=tuple(nodes), outputs=("out",)))


GRAPHS = st.builds(dense, st.integers(2, 5), st.booleans())


test_random = policy_law(RandomWidth)
test_net2net = policy_law(Net2Net)
test_net2net_deeper = pytest.mark.slow(policy_law(Net2Net, settings={"move": "both", "layers": 0.5}))
test_dag = policy_law(Dag, settings={"strategy": "whole", "neurons": 2}, graphs=GRAPHS)
test_dag_tournament = pytest.mark.slow(policy_law(Dag, settings={"neurons": 2}, graphs=GRAPHS))


class Wide:
    """One channel more in each free space that has room: the sound policy that the broken ones derive from."""

    name: ClassVar[str] = "wide"
    Settings: ClassVar[type[PolicySettings]] = PolicySettings

    def __init__(self, settings: PolicySettings) -> None:
        self.settings = settings

    def propose(self, session: Session, budget: Budget) -> list[Candidate]:
        steps = [Widen(node=space.name, by=space.stride) for space in free_spaces(session.graph)]
        return [Candidate(step.node, budget.cost(step), step) for step in steps if budget.fits(step)]

    def score(self, session: Session, candidates: Sequence[Candidate], key: int) -> list[Score]:
        return [Score(candidate, 1.0) for candidate in candidates]

    def select(self, session: Session, scores: Sequence[Score], budget: Budget) -> list[Score]:
        return best(scores)

    def build(self, session: Session, chosen: Sequence[Score]) -> Pass:
        step: Pass = chosen[0].candidate.part
        return step


class OverBudget(Wide):
    """Builds more than was asked for."""

    def build(self, session: Session, chosen: Sequence[Score]) -> Pass:
        step = chosen[0].candidate.part
        return Widen(node=step.node, by=40 * step.by)


class Lying(Widen):
    """Widens, and says so of weights that move outputs."""

    name: ClassVar[str] = "lying_widen"

    def preserves(self, graph: Graph) -> Preserves:
        return Preserves.EXACT


def lying(session: Session, step: Widen, size: float) -> Pass:
    """A widening whose new channels are read at once, though it promises that nothing changes."""
    done = step.rewrite(session.graph)
    space = analyse(session.graph).find(step.node, session.graph)
    shapes = step.blocks(done.graph, done.edits)
    read = {key: np.full(shapes[key], size) for key in {slot.parameter for slot in space.consumers} if key in shapes}
    return Lying(node=step.node, by=step.by, values=read)


class Liar(Wide):
    """Moves outputs by more than any rounding."""

    size: ClassVar[float] = 3.0

    def build(self, session: Session, chosen: Sequence[Score]) -> Pass:
        return lying(session, chosen[0].candidate.part, self.size)


class SmallLiar(Liar):
    """Moves outputs by less than the engine looks at."""

    size: ClassVar[float] = 1e-5


class Global(Wide):
    """Draws from torch's generator, which belongs to nobody."""

    def score(self, session: Session, candidates: Sequence[Candidate], key: int) -> list[Score]:
        return [Score(candidate, float(torch.rand(()))) for candidate in candidates]


class GlobalNumpy(Wide):
    """Draws from numpy's."""

    def score(self, session: Session, candidates: Sequence[Candidate], key: int) -> list[Score]:
        return [Score(candidate, np.random.random()) for candidate in candidates]  # noqa: NPY002


class Unfreezing(Wide):
    """Lets everything learn."""

    def propose(self, session: Session, budget: Budget) -> list[Candidate]:
        for key, tensor in session.tensors.items():
            if not param_table(session.graph)[key].buffer:
                tensor.requires_grad_()
        return super().propose(session, budget)


class Nudging(Wide):
    """Changes weights by the way, so that no history has it."""

    def build(self, session: Session, chosen: Sequence[Score]) -> Pass:
        with torch.no_grad():
            next(iter(session.learned.values())).mul_(1.01)
        return super().build(session, chosen)


class Counting(Wide):
    """Knows how often it grew, and forgets that where a run goes on."""

    def __init__(self, settings: PolicySettings) -> None:
        super().__init__(settings)
        self.times = 0

    def score(self, session: Session, candidates: Sequence[Candidate], key: int) -> list[Score]:
        self.times += 1
        return [Score(candidate, float(self.times)) for candidate in candidates]


class Remembering(Counting):
    """The same, mended."""

    def state(self) -> dict[str, Any]:
        return {"times": self.times, "array": np.full(3, self.times)}

    def restored(self, state: dict[str, Any]) -> None:
        assert (state["array"] == state["times"]).all()
        self.times = state["times"]


class Strange(Wide):
    """Scores what was not proposed."""

    def score(self, session: Session, candidates: Sequence[Candidate], key: int) -> list[Score]:
        return [Score(Candidate("another", each.cost, each.part), 1.0) for each in candidates]


class Inventing(Wide):
    """Selects what was not scored."""

    def select(self, session: Session, scores: Sequence[Score], budget: Budget) -> list[Score]:
        return [Score(Candidate("another", each.candidate.cost, each.candidate.part), 1.0) for each in best(scores)]


class Idle(Wide):
    """Never grows."""

    def propose(self, session: Session, budget: Budget) -> list[Candidate]:
        return []


FAULTS: dict[type[Wide], tuple[type[Exception], str]] = {
    OverBudget: (RunError, "goes beyond the budget"),
    Liar: (RunError, r"policy wide: lying_widen, which it built, promises that the function is kept \(exact\)"),
    SmallLiar: (AssertionError, "the pass promises exact, but output out changed by"),
    Global: (AssertionError, "a second run with the same seed differs in event"),
    GlobalNumpy: (AssertionError, "a second run with the same seed differs in event"),
    Unfreezing: (AssertionError, "requires a gradient, though the graph freezes it"),
    Nudging: (AssertionError, "weights changed while it proposed"),
    Counting: (AssertionError, "a run that was stopped at .* and went on differs in event"),
    Strange: (AssertionError, "scores 'another', which it did not propose"),
    Inventing: (AssertionError, "selects 'another', which it did not score"),
    Idle: (AssertionError, r"nothing grew in \d+ runs on random graphs"),
}


@pytest.fixture
def unshrunk() -> Iterator[None]:
    """Failing cases are not made small: that takes longer than all else, and nobody reads them here."""
    settings.register_profile("faults", phases=[Phase.generate], derandomize=True, database=None)
    settings.load_profile("faults")
    yield
    settings.load_profile(PROFILE)


@pytest.mark.usefixtures("unshrunk")
@pytest.mark.filterwarnings("ignore:the history is not checked")
@pytest.mark.parametrize("kind", FAULTS, ids=lambda kind: kind.__name__)
def test_a_fault_is_found(kind: type[Wide]) -> None:
    error, says = FAULTS[kind]
    with pytest.raises(error, match=says):
        policy_law(kind, graphs=GRAPHS, max_examples=20)()


@pytest.mark.parametrize("kind", [Wide, Remembering], ids=lambda kind: kind.__name__)
def test_the_sound_ones_pass(kind: type[Wide]) -> None:
    policy_law(kind, graphs=GRAPHS, max_examples=8)()


def test_what_is_no_policy_is_said_at_once() -> None:
    with pytest.raises(RunError, match="lacks name, Settings, propose, score, select, build"):
        policy_law(int)  # type: ignore[arg-type]
