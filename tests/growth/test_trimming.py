"""Trimming: what a trained network does as well without goes again, and what it needs stays."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import growir
from growir.growth.budget import Budget
from growir.growth.checking import applied, checked_pass
from growir.growth.config import RunConfig
from growir.growth.loss import mean_and_error
from growir.growth.policies.dag.bottleneck import factor, ridged
from growir.growth.policies.dag.eliminating import Fed, eliminated, solved
from growir.growth.policies.dag.states import StateView, states_of
from growir.growth.policies.dag.trimming import Trim
from growir.growth.policy import Policy, Trimmed
from growir.growth.schedule import Alternating, Entry, Log, TrialFit
from growir.growth.session import Session
from growir.network import Network, load_graph
from growir.ops import Shape
from growir.params import with_frozen
from growir.passes import AddEdge, AddNode, Prune, RemoveEdge, Sequence
from growir.rewrite import Pass, Preserves
from growir.runs.reading import read_run
from growir.runs.records import Ended, Growth
from tests.cli.command import growir as command
from tests.growth.problems import (
    blobs,
    budget_of,
    curve,
    loss_on,
    policy_of,
    select_of,
    small_config,
    small_session,
    trained,
)
from tests.growth.test_run import CONFIG, Dead, Stop, assert_same_run, logged, run

TRIM = small_config(
    policy={"trim": True}, budget={"parameters": 4000}, train={"epochs_between": 40, "learning_rate": 0.01}
)


def grown(width: int = 6, config: RunConfig = TRIM) -> Session:
    """A trained network of one hidden layer beside a linear one."""
    session = small_session(curve(600), config)
    session.grow(AddEdge(source="standard", target="out"))
    session.grow(AddNode(source="standard", target="sum_1", width=width, activation="tanh"))
    trained(session, 2)
    return session


def trim(session: Session) -> Trimmed:
    found = policy_of(session).trim(session, budget_of(session))
    assert found is not None
    return found


def prunes(found: Trimmed) -> list[tuple[Trim, Prune]]:
    """The neurons that could go."""
    trims = [score for score in found.scores if isinstance(score, Trim)]
    return [(score, score.step) for score in trims if isinstance(score.step, Prune)]


def passes_of(step: Pass | None) -> list[Pass]:
    """What a rewrite takes away."""
    inner = step.passes if isinstance(step, Sequence) else ()
    return [each for each in inner if each.name != "update"]


def neurons_gone(found: Trimmed) -> set[int]:
    return {unit for each in passes_of(found.step) if isinstance(each, Prune) for unit in each.channels}


def weights(session: Session) -> tuple[torch.Tensor, torch.Tensor]:
    """Those that make the hidden neurons, and those that read them."""
    hidden = next(state for state in states_of(session.graph) if state.post is not None)
    out = next(e for s in states_of(session.graph) for e in s.edges if e.value == hidden.post)
    return session.tensors[hidden.edges[0].weight].data, session.tensors[out.weight].data


# -- what goes --------------------------------------------------------------------------------------------------------


def test_what_nothing_reads_goes() -> None:
    session = grown(8)
    _, out = weights(session)
    out[:, [1, 4]] = 0.0
    found = trim(session)
    assert {1, 4} in [set(step.channels) for _, step in prunes(found)]
    assert {1, 4} <= neurons_gone(found)


def test_of_duplicates_one_goes_and_the_other_takes_over() -> None:
    session = grown(8)
    made, _ = weights(session)
    hidden = next(state for state in states_of(session.graph) if state.post is not None)
    assert hidden.bias is not None
    for tensor in (made, session.tensors[hidden.bias].data):
        tensor[4:] = tensor[:4]
    before = session.standing()
    ((half, step),) = [each for each in prunes(trim(session)) if len(each[1].channels) == 4]
    assert half.needless
    assert sorted(unit % 4 for unit in step.channels) == [0, 1, 2, 3]
    assert abs(half.gain) < 0.01 * float(before.losses.mean())


def test_an_edge_that_gives_nothing_goes() -> None:
    session = grown(1)
    linear = next(e for s in states_of(session.graph) for e in s.edges if s.post is None and e.value == "standard")
    session.tensors[linear.weight].data.zero_()
    assert passes_of(trim(session).step) == [RemoveEdge(source="standard", target="sum_1")]


def test_what_the_loss_would_miss_stays() -> None:
    session = grown(4)
    found = trim(session)
    needed = [score for score in found.scores if isinstance(score, Trim) and not score.needless]
    assert needed, "a linear network is worse"
    assert not {id(score) for score in needed} & {id(score) for score in found.chosen}
    for score in needed:
        assert score.error is not None
        assert score.gain < -1.6 * score.error


def test_channels_of_a_map_that_nothing_reads_go() -> None:
    train = {"epochs_between": 10}
    config = small_config(policy={"trim": True, "kernels": [3]}, budget={"parameters": 9000}, train=train)
    session = small_session(blobs(), config)
    data = next(node.name for node in session.graph.nodes if node.op.kind() == "standardise")
    session.grow(AddNode(source=data, target="out", width=4, kernel_size=3, out_pool="max", out_stride=2))
    trained(session, 1)
    _, out = weights(session)
    out.reshape(len(out), 4, -1)[:, 2] = 0.0
    assert 2 in neurons_gone(trim(session))


def test_frozen_weights_stay() -> None:
    start = grown(8).network()
    hidden = next(state for state in states_of(start.graph) if state.post is not None)
    frozen = Network(with_frozen(start.graph, {hidden.edges[0].weight}), start.arrays)
    session = small_session(curve(600), TRIM)
    session.begin(frozen)
    assert not prunes(trim(session))


# -- what is measured -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [5, 8])
def test_what_was_measured_is_what_is_applied(width: int) -> None:
    session = grown(width)
    _, out = weights(session)
    out[:, 0] = 0.0
    found, before = trim(session), session.measure(select_of(session)).losses
    assert found.step is not None
    assert found.step.preserves(session.graph) not in (Preserves.EXACT, Preserves.EVAL)
    assert all(each.preserves(session.graph) is Preserves.APPROXIMATE for each in passes_of(found.step))
    size = session.graph.costs().parameters
    policy = cast("Policy", policy_of(session))
    applied(policy, session, checked_pass(policy, found.step, budget_of(session)), 0)
    gain, error = mean_and_error(before - session.measure(select_of(session)).losses)
    assert session.graph.costs().parameters < size
    assert gain >= -1.645 * error - 1e-6
    if len(found.chosen) == 1:
        assert gain == pytest.approx(found.chosen[0].gain, abs=1e-5)


def test_each_score_is_the_loss_without_it() -> None:
    session = grown()
    before = loss_on(session, select_of(session))
    for score in trim(session).scores:
        assert isinstance(score, Trim)
        fork = session.fork()
        shifts = {key: shift.numpy() for key, shift in score.shifts.items()}
        update = growir.passes.Update(parameters=tuple(shifts), values=shifts)
        fork.grow(Sequence(passes=(update, score.step)))
        assert before - loss_on(fork, select_of(fork)) == pytest.approx(score.gain, abs=1e-5)
        assert score.candidate.cost.parameters < 0


STATE = StateView("a", None, (), None, Shape(("N", 2)))


@settings(deadline=None)
@given(st.data())
def test_what_is_left_takes_over_what_it_can(data: st.DataObject) -> None:
    """One after the other comes to the same as the least squares of all that went, however many columns a unit has."""
    units, block, width = data.draw(st.integers(2, 6)), data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    draws = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    features = units * block + data.draw(st.integers(0, 3))
    rows = torch.randn(60, features, generator=draws, dtype=torch.float64)
    rows[:, block : 2 * block] = rows[:, :block] + 0.01 * rows[:, block : 2 * block]  # nearly twins
    weight = torch.randn(features, width, generator=draws, dtype=torch.float64)
    gram = rows.T @ rows / 60
    whole = ridged(gram, 1e-6)
    inverse = factor(gram, 1e-6)(torch.eye(features, dtype=torch.float64))
    blocks = torch.arange(units * block).reshape(units, block)
    fed = Fed(STATE, inverse, weight, weight.clone(), blocks, [], float((weight * (gram @ weight)).sum()))
    for gone, _ in eliminated([fed], range(1, units)):
        at = blocks[list(gone)].flatten()
        left = torch.tensor([k for k in range(features) if not bool((at == k).any())])
        wanted = weight[left] + solved(whole[left][:, left], whole[left][:, at] @ weight[at])
        assert torch.allclose(fed.weight[left], wanted, rtol=1e-5, atol=1e-7)
        assert torch.allclose(fed.weight[at], torch.zeros(()).double(), atol=1e-9)


def test_no_two_things_of_one_state_go_and_all_together_are_measured() -> None:
    session = grown(8)
    weights(session)[1].zero_()
    found = trim(session)
    places = [score.place for score in found.chosen if isinstance(score, Trim)]
    assert len(places) == len(set(places)) > 0
    # The state goes with the one edge that reads it: no neurons of it go beside that.
    assert passes_of(found.step) == [RemoveEdge(source="node_1.act", target="sum_1")]


def test_nothing_is_trimmed_unless_the_settings_say_so() -> None:
    session = small_session(curve())
    assert policy_of(session).trim(session, Budget(session.config.budget, session.graph)) is None


# -- when -------------------------------------------------------------------------------------------------------------


def log_of(*entries: tuple[str, float | None]) -> Log:
    told = [Entry(what, metrics={} if size is None else {"parameters": size}) for what, size in entries]
    return Log((Entry("started"), *told))


def test_a_network_is_trimmed_once_after_each_growth_that_was_trained() -> None:
    growth, train, done = ("growth", 20.0), ("trained", None), ("trimmed", None)
    assert not log_of().untrimmed
    assert not log_of(train).untrimmed
    assert not log_of(growth).untrimmed
    assert log_of(growth, train, train).untrimmed
    assert not log_of(growth, train, done).untrimmed
    assert not log_of(growth, train, done, ("tried", 20.0)).untrimmed
    assert log_of(growth, train, done, growth, train).untrimmed


def test_a_trial_is_due_by_what_is_left() -> None:
    tried = ("tried", 10.0)
    assert log_of(tried, ("growth", 20.0)).larger(2.0)
    assert not log_of(tried, ("growth", 20.0), ("trimmed", 15.0)).larger(2.0)
    assert log_of(tried, ("growth", 20.0), ("trimmed", None)).larger(2.0)
    assert isinstance(Alternating(trials=2.0).next(log_of(tried, ("growth", 20.0), ("trained", None))), TrialFit)


def test_growth_that_only_goes_again_is_in_vain() -> None:
    def rounds(*sizes: tuple[float, float | None]) -> int:
        return log_of(*(e for a, b in sizes for e in (("growth", a), ("trimmed", b)))).in_vain

    assert rounds() == rounds((10, None)) == rounds((10, 8), (20, 9)) == 0
    assert rounds((10, 8), (20, 8)) == rounds((10, 8), (20, 9), (30, 7)) == 1
    assert rounds((10, 8), (20, 7), (20, 8)) == 2
    assert rounds((10, 8), (20, 7), (20, None)) == 0


# -- a run ------------------------------------------------------------------------------------------------------------

RUN = small_config(policy={"trim": True}, budget={"parameters": 400}).model_copy(update={"threads": 1})


@pytest.fixture(scope="module")
def trimmed_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trimmed") / "run"
    run(path, RUN, curve())
    return path


def growths(path: Path) -> list[Growth]:
    return [grown.growth for grown in read_run(path).growths]


def trims(path: Path) -> list[Growth]:
    return [growth for growth in growths(path) if growth.trims]


def test_a_run_says_what_went(trimmed_run: Path) -> None:
    found = trims(trimmed_run)
    assert found, "this run trims"
    for growth in found:
        assert growth.parameters is not None
        assert growth.parameters_before is not None
        assert growth.gain_error is not None
        assert growth.measured_gain is not None
        assert growth.parameters < growth.parameters_before
        assert growth.measured_gain >= -1.645 * growth.gain_error - 1e-6
        assert {entry["outcome"] for entry in growth.notes["trimmed"]} >= {"chosen"}
    numbers = [growth.step for growth in growths(trimmed_run)]
    assert numbers == list(range(1, len(numbers) + 1))
    said = command("log", trimmed_run).out
    assert ", trimmed" in said
    assert "does not miss what went by more than chance would" in said


def test_what_went_is_in_the_history(trimmed_run: Path) -> None:
    network = Network.load(trimmed_run)
    assert network.replayed().graph.hash == network.graph.hash
    for growth in trims(trimmed_run):
        assert load_graph(trimmed_run / "growth" / f"{growth.step:04}.json").hash == growth.hash


@pytest.mark.parametrize("count", [3, 4, 5])
def test_a_run_that_died_trims_as_if_nothing_had_been(count: int, trimmed_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    with pytest.raises(Dead):
        run(path, RUN, curve(), observer=Stop("checkpoint", count, Dead).observer)
    run(path, RUN, curve(), resume=True)
    assert_same_run(path, trimmed_run)


def test_growth_ends_where_what_grows_goes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def whatever(gain: float, error: float, rate: float) -> bool:
        return math.isfinite(gain)

    monkeypatch.setattr("growir.growth.policies.dag.trimming._needless", whatever)
    config = small_config(policy={"trim": True, "significance": 1.0}, budget={"parameters": 400, "steps": 20})
    done = run(None, config.model_copy(update={"threads": 1}), curve())
    grown = [event for event in done.events if isinstance(event, Growth) and not event.trims]
    assert [event.reason for event in done.events if isinstance(event, Ended)] == ["no larger"]
    assert len(grown) < 20


def test_off_it_is_a_run_as_before(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"policy": {"trim": False}}
    run(tmp_path / "off", small_config(**settings).model_copy(update={"threads": 1}))
    run(tmp_path / "plain", CONFIG)
    assert logged(tmp_path / "off")[-1]["hash"] == logged(tmp_path / "plain")[-1]["hash"]
    weights = [Network.load(tmp_path / name).arrays for name in ("off", "plain")]
    assert all(np.array_equal(array, weights[1][key]) for key, array in weights[0].items())
