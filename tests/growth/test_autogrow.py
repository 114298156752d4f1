"""AutoGrow: whose turn it is, what ends a stage, how new blocks start, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import growir
from growir.blocks import Block, block_of
from growir.data import Data
from growir.errors import RunError
from growir.families import family_of, network
from growir.graph import Graph, Input, Node
from growir.growth.checkpointing import log_of
from growir.growth.circle import Circle, circle, unrewarded
from growir.growth.config import parse_run
from growir.growth.measure.stacking import next_block
from growir.growth.policies.autogrow import AutoGrow
from growir.growth.schedule import Done, Entry, Grow, Log, Periodic, Train
from growir.network import Network
from growir.ops import Add, Conv2d, Gelu, LayerNorm, Linear, Relu
from growir.runs.records import Growth, Trained
from growir.runs.telling import Teller
from growir.stages import Stage, stages_of
from growir.testing import policy_law
from growir.verify import verify

ABC = ("a", "b", "c")


def trained(value: float, epochs: int = 1) -> Entry:
    return Entry("trained", epochs, {"accuracy": value})


def grown(name: str) -> Entry:
    return Entry("growth", chosen=(name,))


def of(*entries: Entry) -> Log:
    return Log((Entry("started"), *entries))


def played(curve: Sequence[float], names: Sequence[str] = ABC, window: int = 2, by: float = 0.0) -> list[str]:
    """The stages that grow where the accuracy after each epoch, with a growth behind each, is this."""
    entries: list[Entry] = []
    found: list[str] = []
    for value in curve:
        entries.append(trained(value))
        turn = circle(of(*entries), names, lambda log: unrewarded(log, "accuracy", window, by)).following
        if turn is None:
            return [*found, "-"]
        found.append(turn)
        entries.append(grown(turn))
    return found


# -- whose turn it is -------------------------------------------------------------------------------------------------


def test_stages_take_turns_and_each_is_closed_after_one_more_growth_of_its_neighbour() -> None:
    # Nothing is gained from the fourth epoch on; a window of two notices that after the sixth.
    assert played([0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4]) == ["a", "b", "c", "a", "b", "c", "a", "-"]


def test_a_gain_lets_the_others_go_on() -> None:
    # c is closed after the stand-still, a and b go on.
    found = played([0.1, 0.2, 0.2, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert found == ["a", "b", "c", "a", "b", "a", "b", "a"]


def test_where_a_growth_was_taken_back_its_stage_is_closed() -> None:
    log = of(trained(0.1), grown("a"), trained(0.2), Entry("undone"))
    assert circle(log, ABC, lambda entries: False) == Circle(("b", "c"), "b")
    assert Circle(("b", "c"), "c").turns() == ("c", "b")
    went = of(trained(0.1), grown("a"), trained(0.1), Entry("trimmed", chosen=("a",)), trained(0.9))
    assert circle(went, ABC, lambda entries: False) == Circle(("b", "c"), "b")
    looked = of(trained(0.1), grown("a"), trained(0.2), Entry("trimmed"))
    assert circle(looked, ABC, lambda entries: False) == Circle(ABC, "b")
    assert circle(of(trained(0.1), grown("a"), trained(0.1)), ABC, lambda entries: len(entries) > 3).barren == "a"
    assert circle(of(), (), lambda entries: False).turns() == ()


def test_since_the_last_growth_something_must_have_been_gained() -> None:
    entries = of(trained(0.5), grown("a"), trained(0.4), trained(0.6)).entries
    assert not unrewarded(entries, "accuracy", 0, 0.05)
    assert unrewarded(entries, "accuracy", 0, 0.11)
    assert not unrewarded(entries[:3], "accuracy", 0, 0.0)  # nothing was trained since
    losses = of(Entry("trained", 1, {"loss": 0.5}), grown("a"), Entry("trained", 1, {"loss": 0.45})).entries
    assert not unrewarded(losses, "loss", 0, 0.01)
    assert unrewarded(losses, "loss", 0, 0.1)


@given(
    st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.4]), min_size=1, max_size=30),
    st.integers(1, 4),
    st.integers(0, 4),
)
def test_it_ends_and_what_is_closed_stays_so(steps: list[float], count: int, window: int) -> None:
    """Of any curve; after it nothing is gained any more, and depths are then within one of where they were."""
    names = [f"s{k}" for k in range(count)]
    curve = [sum(steps[: k + 1]) for k in range(len(steps))]
    still = [curve[-1]] * (2 * window + 2 * count + 3)
    turns = played([*curve, *still], names, window)
    assert turns[-1] == "-"
    entries: list[Entry] = []
    open_before = set(names)
    for value, turn in zip([*curve, *still], turns, strict=False):
        entries.append(trained(value))
        now = circle(of(*entries), names, lambda log: unrewarded(log, "accuracy", window, 0.0))
        # A prefix of the log says all there is to know, whatever follows.
        assert now.following == (None if turn == "-" else turn)
        assert set(now.growing) <= open_before
        open_before = set(now.growing)
        entries.append(grown(turn))


@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 12))
def test_under_stagnation_depths_stay_within_one(count: int, window: int, gains: int) -> None:
    names = [f"s{k}" for k in range(count)]
    turns = played([*(0.1 * k for k in range(gains)), *[1.0] * (window + 2 * count + 3)], names, window)
    depths = [turns.count(name) for name in names]
    assert max(depths) - min(depths) <= 1


def test_what_grew_is_in_the_log_and_in_its_file() -> None:
    found = log_of([["started", 0, {}], ["growth", 0, {"parameters": 3.0}, ["a"]], ["trained", 2, {"loss": 1.0}]])
    assert [entry.chosen for entry in found.entries] == [(), ("a",), ()]


# -- when it grows ----------------------------------------------------------------------------------------------------


def test_convergent_growth_trains_on_while_that_brings_something() -> None:
    schedule = Periodic(epochs=2, converged=True, window=0, by=0.05, measure="accuracy", fit=False)
    begun = of(trained(0.5, 2))
    assert schedule.next(of()) == Train(epochs=2)
    assert schedule.next(begun) == Train(epochs=2)  # nothing to compare with yet... so it is not known to rest
    assert schedule.next(of(trained(0.5, 2), trained(0.6, 2))) == Train(epochs=2)
    assert schedule.next(of(trained(0.5, 2), trained(0.52, 2))) == Grow()


def test_without_a_window_the_schedule_ends_nothing() -> None:
    still = of(*[trained(0.5)] * 100)
    assert Periodic(epochs=1, window=0, fit=False).next(still) == Grow()
    assert Periodic(epochs=1, window=5, measure="accuracy", fit=False).next(still) == Done("no gain")


def test_its_schedule_is_the_paper_s_unless_another_is_named() -> None:
    assert parse_run({"policy": {"name": "autogrow"}}, "x").schedule == Periodic(epochs=3, window=0)
    own = parse_run({"policy": {"name": "autogrow"}, "schedule": {"epochs": 1}}, "x").schedule
    assert own == Periodic(epochs=1, window=0)
    assert parse_run({"policy": {"name": "autogrow"}, "schedule": {"name": "every"}}, "x").schedule.name == "every"
    assert parse_run({"policy": {"name": "random"}}, "x").schedule.name == "alternating"


# -- runs -------------------------------------------------------------------------------------------------------------


def images(count: int = 60) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    y = np.arange(count) % 3
    x = rng.normal(size=(count, 6, 6)).astype(np.float32) + y[:, None, None].astype(np.float32)
    return {"x_train": x, "y_train": y, "x_test": x[:15], "y_test": y[:15]}


SHORT: Mapping[str, Any] = {
    "schedule": {"epochs": 1},
    "train": {"epochs_final": 1, "batch_size": 15},
    "budget": {"steps": 4},
    "threads": 1,
}


@pytest.mark.parametrize("net", ["Basic3ResNet", "Plain3Net"])
@pytest.mark.parametrize("initialiser", ["default", "gaussian", "uniform", "zero", "adam"])
def test_stages_become_deeper_in_turn(net: str, initialiser: str) -> None:
    policy = {"name": "autogrow", "net": net, "width": 2, "initialiser": initialiser}
    if net == "Plain3Net" and initialiser in ("zero", "adam"):
        with pytest.raises(RunError, match=f"initialiser '{initialiser}' needs residual blocks, but in stage stage1"):
            growir.grow(None, images(), policy=policy, **SHORT)
        return
    found = growir.grow(None, images(), policy=policy, **SHORT)
    assert str(family_of(found.network.graph)) == f"{net}-3-2-2"
    growths = [event for event in found.events if isinstance(event, Growth)]
    assert [event.chosen[0].name for event in growths] == ["stage1", "stage2", "stage3", "stage1"]
    assert "stage2.1.conv1" in found.network.graph
    exact = net == "Basic3ResNet" and initialiser == "zero"
    assert [event.passes[0]["exact"] for event in growths] == [exact] * 4
    assert found.summary["ended"] == "steps"


def test_the_seed_reads_raw_images_and_knows_their_scale() -> None:
    data = images()
    found = growir.grow(None, data, policy={"name": "autogrow", "width": 2}, **{**SHORT, "budget": {"steps": 1}})
    assert found.network.graph["map"].op.kind() == "unsqueeze"
    assert found.network.arrays["standard.std"] == pytest.approx(data["x_train"].std(), rel=1e-6)
    raw = growir.grow(
        None, data, policy={"name": "autogrow", "width": 2}, standardise="none", **{**SHORT, "budget": {"steps": 1}}
    )
    assert "standard" not in raw.network.graph


def test_a_stage_that_brings_nothing_is_closed_and_the_rest_goes_on() -> None:
    policy = {"name": "autogrow", "width": 2, "window": 1, "by": 2.0}  # nothing can gain as much
    found = growir.grow(None, images(), policy=policy, **{**SHORT, "budget": {"steps": 20}})
    growths = [event.chosen[0].name for event in found.events if isinstance(event, Growth)]
    assert growths == ["stage1", "stage2", "stage3"]
    assert found.summary["ended"] == "no move"


def test_a_block_that_brought_nothing_goes_again_where_that_is_asked() -> None:
    policy = {"name": "autogrow", "width": 2, "window": 1, "by": 2.0, "shrink": True}
    found = growir.grow(None, images(), policy=policy, **{**SHORT, "budget": {"steps": 20}})
    assert str(family_of(found.network.graph)) == "Basic3ResNet-1-1-1"
    growths = [event for event in found.events if isinstance(event, Growth)]
    assert [(event.chosen[0].name, event.trims) for event in growths] == [
        (name, trims) for name in ("stage1", "stage2", "stage3") for trims in (False, True)
    ]
    assert found.summary["ended"] == "no move"  # two in a row in vain end nothing here: the stages do
    teller = Teller()
    told = " ".join(" ".join(line for event in found.events for line in teller.lines(event)).split())
    assert told.count("trimmed: a block that brought nothing goes again, and its stage grows no more") == 1


def test_a_block_that_paid_stays() -> None:
    policy = {"name": "autogrow", "width": 2, "window": 0, "by": 0.0, "measure": "loss", "shrink": True}
    found = growir.grow(None, images(), policy=policy, seed=1, **{**SHORT, "budget": {"steps": 6}})
    losses: list[float] = []
    at, went, paid = 0, 0, 0
    for event in found.events:
        if isinstance(event, Trained):
            assert event.selection_loss is not None
            losses.append(event.selection_loss)
        elif isinstance(event, Growth):
            gained = at > 0 and min(losses[at:]) < min(losses[:at])
            assert event.trims is (at > 0 and not gained)
            went, paid = went + event.trims, paid + gained
            at = 0 if event.trims else len(losses)
    assert went, "one has gone"
    assert paid, "one has stayed"


def test_only_stages_that_are_named_grow_and_no_deeper_than_said() -> None:
    policy = {"name": "autogrow", "width": 2, "stages": ["stage3"], "deepest": 2, "by": 0.0}
    found = growir.grow(None, images(), policy=policy, **SHORT)
    assert str(family_of(found.network.graph)) == "Basic3ResNet-1-1-2"
    assert found.summary["ended"] == "no move"


def test_a_copy_has_the_weights_of_the_block_before_it() -> None:
    start = Network.init(network("Basic3ResNet-2-1-1", (1, 6, 6), 3, width=2), 0)
    data = {key: value[:, None] if key.startswith("x") else value for key, value in images().items()}
    policy = {"name": "autogrow", "copy_weights": True, "initialiser": "zero", "stages": ["stage1"]}
    found = growir.grow(start, data, policy=policy, schedule={"epochs": 1, "fit": False}, train={"batch_size": 15},
                        budget={"steps": 1}, threads=1)  # fmt: skip
    assert found.network.graph.history is not None
    step = found.network.graph.history.steps[-1]
    assert (step.kind, step.fields["copy_weights"], step.fields["exact"]) == ("stack", True, True)


def blocks(count: int, width: int) -> Graph:
    """Residual blocks on vectors, behind one another, and a head."""
    nodes: list[Node] = []
    value = "x"
    for k in range(count):
        parts: list[tuple[str, Any]] = [("norm", LayerNorm()), ("up", Linear(out_features=width)), ("act", Gelu())]
        last = value
        for name, op in [*parts, ("down", Linear(out_features=3))]:
            nodes.append(Node(name=f"layers.{k}.{name}", op=op, inputs=(last,)))
            last = nodes[-1].name
        nodes.append(Node(name=f"layers.{k}.sum", op=Add(), inputs=(value, last)))
        value = nodes[-1].name
    nodes.append(Node(name="head", op=Linear(out_features=2), inputs=(value,)))
    return verify(Graph(inputs=(Input(name="x", shape=("N", 3)),), nodes=tuple(nodes), outputs=("head",)))


DEEP = st.builds(blocks, st.integers(2, 3), st.integers(1, 3))
test_law = policy_law(AutoGrow, graphs=DEEP)
test_law_zero = pytest.mark.slow(
    policy_law(AutoGrow, settings={"initialiser": "zero", "copy_weights": True}, graphs=DEEP)
)
test_law_shrink = pytest.mark.slow(policy_law(AutoGrow, settings={"window": 0, "shrink": True}, graphs=DEEP))
test_law_adam = pytest.mark.slow(policy_law(AutoGrow, settings={"initialiser": "adam"}, graphs=DEEP))


def test_a_transformer_s_layers_are_a_stage_like_any_other() -> None:
    graph = blocks(2, 4)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3)).astype(np.float32)
    data = Data.from_arrays(x, x @ np.ones((3, 2), np.float32))
    found = growir.grow(graph, data, policy={"name": "autogrow", "by": 0.0}, schedule={"epochs": 1, "fit": False},
                        train={"batch_size": 10}, budget={"steps": 2}, threads=1)  # fmt: skip
    assert [stage.depth for stage in stages_of(found.network.graph)] == [4]


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"deepest": 1}, "policy autogrow: deepest is 1, and no stage has fewer blocks"),
        (
            {"window": 2},
            "policy autogrow: window is 2, less than the 3 epochs between two growths; make",
        ),
        ({"by": -0.1}, "[policy]: by is -0.1"),
        ({"stages": ["stage1", "stage1"]}, "'stage1' is there twice; name each stage once"),
        ({"stages": []}, "name a stage at least"),
        ({"stages": ["stage9"]}, "policy autogrow: there is no stage 'stage9' in the network."),
        ({"net": "Basic3Net"}, "policy autogrow: 'Basic3Net' names no network"),
        ({"net": "Basic3ResNet-1-1"}, "it has 3 stages, but 2 depths; one each is needed"),
    ],
)
def test_settings_that_cannot_be_are_refused(policy: dict[str, Any], message: str) -> None:
    with pytest.raises(RunError) as refused:
        growir.grow(None, images(), policy={"name": "autogrow", "width": 2, **policy})
    assert message in str(refused.value)


def test_a_network_without_stages_is_refused() -> None:
    graph = Graph(
        name="shallow",
        inputs=(Input(name="x", shape=("N", 3)),),
        nodes=(Node(name="fc", op=Linear(out_features=2), inputs=("x",)),),
        outputs=("fc",),
    )
    x = np.zeros((20, 3), np.float32)
    with pytest.raises(RunError, match="the network 'shallow' has no stages, runs of equal blocks"):
        growir.grow(graph, Data.from_arrays(x, x[:, :2]), policy="autogrow")


def test_data_without_classes_is_refused() -> None:
    with pytest.raises(RunError, match="Basic3ResNet tells classes, but the targets are amounts"):
        growir.grow(None, {**images(), "y_train": np.linspace(0, 1, 60), "y_test": np.zeros(15)}, policy="autogrow")
    rows = {"x_train": np.zeros((20, 3)) + np.arange(20)[:, None], "y_train": np.arange(20) % 2}
    with pytest.raises(RunError, match="convolutions read images"):
        growir.grow(None, rows, policy="autogrow")


def test_a_head_that_cannot_repeat_is_refused() -> None:
    conv = Conv2d(out_channels=4, kernel_size=2, stride=2)
    nodes = (Node(name="b.0.conv", op=conv, inputs=("x",)), Node(name="b.0.act", op=Relu(), inputs=("b.0.conv",)))
    entry = Input(name="x", shape=("N", 2, 8, 8))
    graph = verify(Graph(inputs=(entry,), nodes=nodes, outputs=("b.0.act",)))
    block = block_of(graph, [node.name for node in nodes])
    assert isinstance(block, Block)
    with pytest.raises(RunError, match="stage b cannot become deeper: behind itself it gives"):
        next_block(graph, Stage("b", (block,), headed=True), 0)
