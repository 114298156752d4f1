"""Strategies: activations to choose from, the information criterion, significance, and tournaments."""

from __future__ import annotations

import json
import math
import shutil
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from growir.errors import RunError
from growir.growth.budget import Cost
from growir.growth.config import RunConfig, parse_run
from growir.growth.contest import ERROR, Trial, contest
from growir.growth.observer import Observer
from growir.growth.policies.dag.policy import bic
from growir.growth.policies.dag.scored import Scored, Small
from growir.growth.policies.dag.scoring import Scoring
from growir.growth.policies.dag.settings import DagConfig, Strategy
from growir.growth.policy import Candidate
from growir.growth.session import Session
from growir.network import Network, load_graph
from growir.ops import ACTIVATIONS
from growir.passes import AddEdge, AddNode, Widen
from growir.runs.records import Event, Fitted, Growth
from tests.cli.command import growir as command
from tests.growth.problems import (
    Arrays,
    curve,
    lose_weights,
    loss_on,
    policy_of,
    proposed,
    scored,
    select_of,
    selected,
    small_config,
    small_session,
    spirals,
)
from tests.growth.test_run import Dead, Stop, assert_same_run, assert_usable, logged, refused, run


def with_threads(config: RunConfig) -> RunConfig:
    return config.model_copy(update={"threads": 1})


def growths(path: Path, branch: str | None = None) -> list[dict[str, Any]]:
    events = [event for event in logged(path) if event["event"] == "growth"]
    return [event for event in events if branch is None or event["branch"] == branch]


# -- activations ------------------------------------------------------------------------------------------------------


def test_of_a_list_of_activations_each_is_tried() -> None:
    session = small_session(spirals(), small_config(policy={"activation": ["tanh", "relu", "tanh"]}))
    nodes = [m for m in proposed(session) if isinstance(m, AddNode)]
    assert [m.activation for m in nodes] == ["tanh", "relu"]
    session.grow(nodes[1].model_copy(update={"width": 2}))
    moves = proposed(session)
    # Beside a state of the one there may be a state of the other; of the same one it would be a widening.
    assert [
        m.activation for m in moves if isinstance(m, AddNode) and m.source == "standard" and m.target == "sum_1"
    ] == ["tanh"]
    assert Widen(node="node_1.act", by=4) in moves


def test_the_activation_that_does_best_is_chosen() -> None:
    # A bump in every direction is what a Gaussian is and a line is not.
    session = small_session(spirals(480), small_config(policy={"activation": ["tanh", "gaussian"]}))
    found = scored(session, key=1)
    assert selected(session, found).loss == min(s.loss for s in found if s.improves)
    assert {s.step.activation for s in found if isinstance(s.step, AddNode)} == {"tanh", "gaussian"}


def test_a_list_of_one_is_that_one() -> None:
    runs = [run(None, small_config(policy={"activation": given})) for given in ("tanh", ["tanh"])]
    assert runs[0].summary["hash"] == runs[1].summary["hash"]
    for key, array in runs[0].network.arrays.items():
        assert np.array_equal(array, runs[1].network.arrays[key])


# -- the information criterion ----------------------------------------------------------------------------------------


def test_the_criterion_of_classes_is_that_of_their_likelihood() -> None:
    session = small_session(spirals())
    probability = torch.tensor([0.9, 0.2, 0.5])
    loss = float(-probability.log().mean())
    likelihood = 180 * loss  # as if all 180 were like these
    assert bic(session, loss, 7) == pytest.approx(7 * math.log(180) + 2 * likelihood)


def test_the_criterion_of_numbers_is_that_of_gaussian_errors() -> None:
    session = small_session(curve())
    # Two targets with errors of variance .1 and .1 in units of their std: half the mean square is .05, and -2 log L is
    # n log(variance) for each, but for constants, which no two networks differ by.
    one, other = bic(session, 0.05, 7), bic(session, 0.5, 7)
    assert one == pytest.approx(7 * math.log(180) + 2 * 180 * math.log(0.05))
    assert other - one == pytest.approx(2 * 180 * math.log(10))


@pytest.mark.parametrize("make", [spirals, curve])
def test_of_equal_size_the_smaller_loss_is_better_and_of_equal_loss_the_smaller_network(make: Any) -> None:
    session = small_session(make())
    losses = [1e-12, 0.01, 0.3, 0.69, 1.5, 40.0]
    values = [bic(session, loss, 10) for loss in losses]
    assert values == sorted(values)
    assert len(set(values)) == len(values)
    assert bic(session, 0.3, 10) < bic(session, 0.3, 11)


def test_the_criterion_chooses_the_candidate_with_the_smallest() -> None:
    session = small_session(curve(), small_config(policy={"strategy": "bic"}))
    small, large = worthy(0.2, 0.0, loss=0.30, parameters=10), worthy(0.21, 0.0, loss=0.29, parameters=90)
    assert selected(session, [large, small]) is small
    assert selected(session, [large, small], policy_of(small_session(curve()))) is large
    huge = worthy(0.4, 0.0, loss=0.001, parameters=90)
    assert selected(session, [huge, small]) is huge


BIC = with_threads(small_config(policy={"strategy": "bic"}, budget={"parameters": 200, "steps": 6}))


@pytest.fixture(scope="module")
def criterion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("criterion") / "run"
    run(path, BIC, curve())
    return path


def test_what_the_criterion_does_not_pay_for_is_undone_to_the_bit() -> None:
    kept: list[tuple[str, dict[str, torch.Tensor], dict[str, torch.Tensor]]] = []

    def keep(session: Session, _: object) -> None:
        tensors = {key: tensor.detach().clone() for key, tensor in session.tensors.items()}
        state = session.optimizer_state().tensors
        kept.append((session.graph.hash, tensors, state))

    done = run(None, BIC, curve(), observer=Observer(checkpoint=keep))
    names = [event.event for event in done.events]
    assert names[-4:] == ["trained", "undone", "ended", "finished"]
    assert (done.summary["ended"], done.summary["steps"]) == ("criterion", names.count("growth") - 1)
    (before, tensors, state), (after, again, state_again) = kept[-2:]
    assert state  # the optimizer had begun
    assert before == after == done.grown.graph.hash
    for old, new in ((tensors, again), (state, state_again)):
        assert old.keys() == new.keys()
        assert all(torch.equal(old[key], new[key]) for key in old)


def test_the_criterion_falls_with_every_growth_that_is_kept(criterion: Path) -> None:
    session, events = small_session(curve(), BIC), logged(criterion)
    found: list[tuple[float, float]] = []
    for k, event in enumerate(events):
        if event["event"] == "growth":
            before = load_graph(criterion / "growth" / f"{event['step'] - 1:04}.json").costs().parameters
            trained = events[k + 1]
            assert trained["event"] == "trained"
            found.append(
                (
                    bic(session, event["before"]["selection"]["loss"], before),
                    bic(session, trained["selection_loss"], event["parameters"]),
                )
            )
    assert len(found) > 1
    assert all(after < before for before, after in found[:-1])
    last, undone = found[-1]
    assert undone >= last


def test_nothing_of_an_undone_growth_is_left(criterion: Path) -> None:
    steps = json.loads((criterion / "summary.json").read_text())["steps"]
    assert sorted(p.name for p in (criterion / "growth").iterdir()) == [f"{k:04}.json" for k in range(steps + 1)]
    network = Network.load(criterion)
    assert network.history is not None
    assert len(network.history.steps) == steps
    assert network.replayed().graph.hash == network.graph.hash


@pytest.mark.parametrize("kind", ["checkpoint", "event", "accepted"])
def test_a_run_with_something_undone_is_resumed_as_if_nothing_had_been(
    kind: str, criterion: Path, tmp_path: Path
) -> None:
    for count in range(1, 20):
        path = tmp_path / str(count)
        try:
            run(path, BIC, curve(), observer=Stop(kind, count).observer)
        except KeyboardInterrupt:
            run(path, BIC, curve(), resume=True)
            assert_same_run(path, criterion)
        else:
            break
    assert 3 <= count < 20


# -- significance -----------------------------------------------------------------------------------------------------


def worthy(gain: float, error: float, loss: float = 0.1, parameters: int = 10) -> Scored:
    step = AddEdge(source="standard", target="out")
    return Scored(
        candidate=Candidate("edge", Cost(), step),
        step=step,
        updates={},
        amplitude=1.0,
        predicted=gain,
        gain=gain,
        error=error,
        loss=loss,
        loss_before=loss + gain,
        parameters=parameters,
        parameters_before=5,
        idle=step,
        outcome="improving" if gain > 0 else "no gain",
        small=Small(0.01, 0.0, 0.0),
        convolves=False,
    )


def worth(significance: float, *candidates: Scored) -> list[bool]:
    session = small_session(spirals(), small_config(policy={"significance": significance}))
    chosen = policy_of(session)._worth(candidates)
    return [candidate in chosen for candidate in candidates]


# One-sided quantiles of the normal distribution, from any table.
@pytest.mark.parametrize(("significance", "quantile"), [(0.05, 1.6449), (0.01, 2.3263), (0.5, 0.0), (1e-20, 9.2623)])
def test_a_gain_counts_where_chance_gives_it_less_often(significance: float, quantile: float) -> None:
    more, less = worthy(0.01 * (quantile + 1e-3), 0.01), worthy(0.01 * (quantile - 1e-3), 0.01)
    assert worth(significance, more, less, worthy(-0.01, 0.001)) == [True, False, False]
    assert worth(significance, worthy(0.01, 0.0)) == [True]  # the same of every sample


@pytest.mark.parametrize("error", [0.0, 1e-9, 1e3])
def test_any_gain_counts_where_all_are_asked_for(error: float) -> None:
    assert worth(1.0, worthy(1e-9, error), worthy(0.0, error), worthy(-1e-9, error)) == [True, False, False]


def noise(seed: int) -> Arrays:
    arrays = spirals(seed=seed)
    arrays["y_train"] = np.random.default_rng(seed + 100).permutation(arrays["y_train"])
    return arrays


def test_noise_ends_growth_unless_any_gain_is_taken() -> None:
    steps = {0.01: 0, 1.0: 0}
    for seed in range(6):
        for significance in steps:
            config = small_config(policy={"significance": significance}, budget={"steps": 1})
            done = run(None, config, noise(seed))
            steps[significance] += done.summary["steps"]
            assert done.summary["ended"] == ("steps" if done.summary["steps"] else "no gain")
    # The better of two candidates is taken, so of noise one run in fifty grows; by luck alone, some do.
    assert steps[0.01] == 0
    assert steps[1.0] >= 2


# -- tournaments ------------------------------------------------------------------------------------------------------

# Three branches, the last of which has the criterion that takes growths back.
BRANCHES: tuple[Strategy, ...] = ("widen", "whole", "bic")
TOURNAMENT = with_threads(
    small_config(
        policy={"strategy": "tournament", "branches": list(BRANCHES)},
        budget={"parameters": 120, "steps": 3},
        train={"epochs_trial": 2},
    )
)


@pytest.fixture(scope="module")
def tournament(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tournament") / "run"
    run(path, TOURNAMENT, curve())
    return path


def test_every_branch_is_fitted_and_the_best_is_selected(tournament: Path) -> None:
    events = logged(tournament)
    fitted = [event for event in events if event["event"] == "fitted"]
    (selected,) = [event for event in events if event["event"] == "selected"]
    assert [event["branch"] for event in fitted] == list(BRANCHES)
    assert events.index(selected) == events.index(fitted[-1]) + 1
    assert len({event["loss"] for event in fitted}) == 3
    losses = load_file(tournament / "checkpoint" / "losses.safetensors")
    for event in fitted:
        assert event["loss"] == pytest.approx(losses[event["branch"]].mean(), rel=1e-5)
    best = fitted[0]
    for event in fitted[1:]:  # a later one must be better by more than chance
        better = (losses[best["branch"]] - losses[event["branch"]]).astype(np.float64)
        best = event if better.mean() > 1.6449 * better.std() / len(better) ** 0.5 else best
        number = next(each for each in selected["compared"] if each["branch"] == event["branch"])
        assert number["gain"] == pytest.approx(better.mean(), rel=1e-4)
        assert number["gain_error"] == pytest.approx(better.std() / len(better) ** 0.5, rel=1e-4)
        assert number["better"] is (best is event)
    assert selected["branch"] == best["branch"]
    shown = ("branch", "parameters", "loss", "loss_error", "step", "ended")
    tried = [{key: each[key] for key in shown} for each in selected["tried"]]
    assert tried == [{key: event[key] for key in shown} for event in fitted]
    summary = json.loads((tournament / "summary.json").read_text())
    assert (summary["branch"], summary["steps"], summary["ended"]) == (best["branch"], best["step"], best["ended"])
    assert summary["parameters"] == best["parameters"]
    for event in events:
        assert ("branch" in event) == (event["event"] not in ("started",))


def trial(name: Any, losses: Sequence[float]) -> Trial:
    return Trial(name, Network.init(small_session(curve()).graph), torch.tensor(losses), 1, 1, "steps")


def test_a_later_branch_wins_only_by_more_than_chance() -> None:
    draws = torch.Generator().manual_seed(0)
    base = torch.rand(100, generator=draws)
    noise = 0.1 * torch.randn(100, generator=draws)
    noise = noise - noise.mean()
    first = trial("widen", base.tolist())
    by_chance = trial("whole", (base + noise - 0.01).tolist())  # a tenth of a deviation, one standard error
    better = trial("restricted", (base + noise - 0.05).tolist())
    assert contest([first, by_chance])[0] is first
    assert contest([first, by_chance, better])[0] is better
    assert contest([better, first])[0] is better


def test_the_numbers_of_a_contest_are_those_of_the_rule() -> None:
    base = torch.rand(100, generator=torch.Generator().manual_seed(0))
    noise = torch.tensor([0.1, -0.1] * 50)
    trials = [
        trial("widen", base.tolist()),
        trial("whole", (base + noise - 0.01).tolist()),  # one standard error
        trial("restricted", (base + noise - 0.05).tolist()),  # five
        trial("bic", (base + noise).tolist()),
    ]
    best, found = contest(trials)
    assert best is trials[2]
    assert [(each.branch, each.against, each.better) for each in found] == [
        ("whole", "widen", False),
        ("restricted", "widen", True),
        ("bic", "restricted", False),
    ]
    assert [each.gain for each in found] == pytest.approx([0.01, 0.05, -0.05], abs=1e-6)
    assert [each.gain_error for each in found[:2]] == pytest.approx([0.01, 0.01], abs=1e-6)
    # The probabilities that a normal number is one and five deviations above its mean.
    assert [each.p for each in found] == pytest.approx([0.158655, 2.86652e-7, 1.0], rel=1e-3)
    assert [each.p is not None and each.p < ERROR for each in found] == [each.better for each in found]


def test_branches_that_are_the_same_are_no_better() -> None:
    same = [trial(name, [0.5, 0.25]) for name in ("widen", "whole")]
    best, (found,) = contest(same)
    assert best is same[0]
    assert (found.gain, found.gain_error, found.p, found.better) == (0.0, 0.0, 1.0, False)
    assert contest([same[0], trial("whole", [0.25, 0.0])])[1][0].p == 0.0


def test_what_is_left_is_the_winners(tournament: Path) -> None:
    network = Network.load(tournament)
    (selected,) = [event for event in logged(tournament) if event["event"] == "selected"]
    mine = growths(tournament, selected["branch"])
    undone = sum(e["event"] == "undone" and e["branch"] == selected["branch"] for e in logged(tournament))
    mine = mine[: len(mine) - undone]
    documents = sorted((tournament / "growth").iterdir())
    assert [p.name for p in documents] == [f"{k:04}.json" for k in range(len(mine) + 1)]
    hashes = [load_graph(path).hash for path in documents]
    assert hashes[1:] == [event["hash"] for event in mine]
    assert network.history is not None
    assert hashes[0] == network.history.base.hash
    assert hashes[-1] == network.graph.hash == network.replayed().graph.hash
    assert_same_weights(network, Network.load(tournament / "checkpoint" / "trials" / selected["branch"]))
    others = {e["hash"] for e in growths(tournament)} - {e["hash"] for e in mine}
    assert others
    assert others.isdisjoint(hashes)


def assert_same_weights(fitted: Network, grown: Network) -> None:
    """The same graph, and weights that the final fit has moved."""
    assert fitted.graph.hash == grown.graph.hash
    assert any(not np.array_equal(array, fitted.arrays[key]) for key, array in grown.arrays.items())


def test_the_winner_goes_on_from_its_weights_before_the_fit(tournament: Path) -> None:
    found: list[dict[str, torch.Tensor]] = []

    def seen(session: Session, _: object) -> None:
        found.append({key: tensor.detach().clone() for key, tensor in session.tensors.items()})

    done = run(None, TOURNAMENT, curve(), observer=Observer(checkpoint=seen))
    trial = Network.load(tournament / "checkpoint" / "trials" / done.summary["branch"])
    assert found[-1].keys() == trial.arrays.keys() == done.grown.arrays.keys()
    for key, array in trial.arrays.items():
        assert np.array_equal(found[-1][key].numpy(), array)
        assert np.array_equal(done.grown.arrays[key], array)


def test_a_branch_grows_as_it_does_alone() -> None:
    events = run(None, TOURNAMENT, curve()).events
    policy = TOURNAMENT.policy
    assert isinstance(policy, DagConfig)
    alone = TOURNAMENT.model_copy(update={"policy": policy.branch("widen")})
    first = next(e for e in run(None, alone, curve()).events if isinstance(e, Growth))
    branch = next(e for e in events if isinstance(e, Growth) and e.branch == "widen")
    assert replace(branch, branch=None, seconds=first.seconds) == first


def test_named_twice_a_branch_grows_once() -> None:
    policy = {"strategy": "tournament", "branches": ["widen", "whole", "widen"]}
    events = run(None, small_config(policy=policy, budget={"steps": 1}), curve()).events
    assert [event.branch for event in events if isinstance(event, Fitted)] == ["widen", "whole"]


def test_a_tournament_of_one_needs_no_trial() -> None:
    policy = {"strategy": "tournament", "branches": ["whole"]}
    alone = run(None, small_config(policy=policy), curve())
    plain = run(None, small_config(policy={"strategy": "whole"}), curve())
    assert {event.branch for event in alone.events} == {None}
    assert alone.summary["hash"] == plain.summary["hash"]


def test_the_selection_loss_is_that_of_the_fitted_network(tournament: Path) -> None:
    found: list[float] = []
    sessions: list[Session] = []

    def watch(event: Event) -> None:
        if isinstance(event, Fitted):
            session = sessions[-1]
            assert event.loss is not None
            found.append(event.loss - loss_on(session, select_of(session)))

    def keep(session: Session, _: object) -> None:
        sessions.append(session)

    run(None, TOURNAMENT, curve(), observer=Observer(event=watch, checkpoint=keep))
    assert found == [0.0] * 3


# A trial or final fit is stopped in its middle; every event, document and checkpoint right after it was told.
TICKS = [("tick:trial fit", 3), ("tick:trial fit", 12), ("tick:final fit", 2), ("tick:scoring", 9)]


@pytest.mark.parametrize("kind", ["checkpoint", "event", "accepted", "tick"])
def test_a_tournament_stopped_anywhere_ends_as_if_nothing_had_been(kind: str, tournament: Path, tmp_path: Path) -> None:
    stops = TICKS if kind == "tick" else [(kind, count) for count in range(1, 60, 1 if kind == "checkpoint" else 4)]
    for done, (where, count) in enumerate(stops):
        path = tmp_path / str(done)
        try:
            run(path, TOURNAMENT, curve(), observer=Stop(where, count).observer)
        except KeyboardInterrupt:
            if (path / "checkpoint").is_dir():
                assert_inspectable(path)
            run(path, TOURNAMENT, curve(), resume=True)
            assert_same_run(path, tournament)
        else:
            break
    if kind == "tick":
        assert done == len(TICKS) - 1
    else:
        assert 3 < done < len(stops) - 1


def assert_inspectable(path: Path) -> None:
    assert logged(path)[-1]["event"] == "interrupted"
    assert Network.load(path / "network").graph.hash == logged(path)[-1]["hash"]


def test_a_tournament_that_died_ends_as_if_nothing_had_been(tournament: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    for count in (9, 5, 3):  # again and again, in another branch each time
        with pytest.raises(Dead):
            run(path, TOURNAMENT, curve(), resume=path.exists(), observer=Stop("accepted", count, Dead).observer)
    run(path, TOURNAMENT, curve(), resume=True)
    assert_same_run(path, tournament)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _state(**changes: Any) -> Callable[[Path], None]:
    return lambda path: _put(path, {**json.loads(path.read_text()), **changes})


def _trial(**changes: Any) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        state = json.loads(path.read_text())
        state["trials"][0] |= changes
        _put(path, state)

    return damage


def _put(path: Path, state: object) -> None:
    path.write_text(json.dumps(state))


DAMAGE: list[tuple[str, Callable[[Path], None]]] = [
    *[(f"trials/widen/{name}", _cut) for name in ("graph.json", "params.safetensors", "history.safetensors")],
    *[(f"trials/whole/{name}", Path.unlink) for name in ("graph.json", "params.safetensors")],
    ("trials/widen", shutil.rmtree),
    ("trials", shutil.rmtree),
    ("state.json", _state(branch=-1)),
    ("state.json", _state(branch=7)),
    ("state.json", _state(branch=0)),
    ("state.json", _state(branch="whole")),
    ("state.json", _state(trials=7)),
    ("state.json", _state(trials=["widen"])),
    ("state.json", _state(trials=[])),
    ("state.json", _trial(branch="../../growth")),
    ("state.json", _trial(branch="tournament")),
    ("losses.safetensors", _cut),
    ("losses.safetensors", Path.unlink),
    ("state.json", _trial(step=1.5)),
    ("state.json", _trial(ended="boredom")),
    ("state.json", _state(metrics=7)),
    ("state.json", _state(metrics={"train": {"loss": "low"}})),
    ("state.json", _state(phases=7)),
    ("state.json", _state(phases={"growing": {}})),
]


@pytest.mark.parametrize(("name", "damage"), DAMAGE)
def test_a_damaged_tournament_is_one_clear_error(
    name: str, damage: Callable[[Path], None], stopped: Path, tmp_path: Path
) -> None:
    shutil.copytree(stopped, tmp_path / "run")
    damage(tmp_path / "run" / "checkpoint" / name)
    refused(tmp_path / "run", "damaged", resume=True, config=TOURNAMENT, arrays=curve())


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tournament that was stopped in its last branch."""
    path = tmp_path_factory.mktemp("stopped") / "run"

    def stop(_: object, progress: Any) -> None:
        if progress.branch == 2 and progress.step == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(path, TOURNAMENT, curve(), observer=Observer(checkpoint=stop))
    assert_usable_on(path)
    return path


def assert_usable_on(path: Path) -> None:
    assert sorted(p.name for p in (path / "checkpoint" / "trials").iterdir()) == ["whole", "widen"]
    assert (path / "model.onnx").is_file()


def test_a_tournament_on_classes_is_usable(tmp_path: Path) -> None:
    run(tmp_path / "run", TOURNAMENT)
    assert_usable(tmp_path / "run")


def test_a_trial_that_diverges_says_which_rate_is_too_high() -> None:
    sessions: list[Session] = []

    def spoil(phase: str, *_: int) -> None:
        if phase == "trial fit":
            lose_weights(sessions[-1])

    observer = Observer(tick=spoil, checkpoint=lambda session, _: sessions.append(session))
    with pytest.raises(RunError, match=r"the fit of branch 'widen' diverged.*lower \[train\] learning_rate_final$"):
        run(None, TOURNAMENT, curve(), observer=observer)


def test_each_branch_has_its_share_of_the_time() -> None:
    policy = {"strategy": "tournament", "branches": ["widen", "whole"]}
    done = run(None, small_config(policy=policy, budget={"seconds": 1e-9}), curve())
    assert [e.ended for e in done.events if isinstance(e, Fitted)] == ["seconds", "seconds"]
    assert not done.summary["reproducible"]


# -- run files --------------------------------------------------------------------------------------------------------

KEYS = """
[policy]
strategy = "tournament"
branches = ["whole", "bic"]
activation = ["relu", "selu"]
kernels = [3, 5, 3]
directions = "fitted"
samples = 300
ridge = 1e-3
significance = 1
[train]
epochs_trial = 7
"""


def test_every_new_key_is_read_and_said_again() -> None:
    config = parse_run(tomllib.loads(KEYS), "test")
    policy = config.policy
    assert isinstance(policy, DagConfig)
    assert (policy.strategy, policy.branches, policy.activations) == ("tournament", ("whole", "bic"), ("relu", "selu"))
    assert (policy.kernels, policy.directions, policy.samples) == ((3, 5), "fitted", 300)
    assert (policy.ridge, policy.significance, config.train.epochs_trial) == (1e-3, 1.0, 7)
    assert parse_run(tomllib.loads(config.to_toml()), "again") == config
    resolved = config.resolved(100, (8, 8), 2)
    assert parse_run(tomllib.loads(resolved.to_toml()), "again") == resolved
    train = RunConfig().resolved(1000, (3,), 2).train
    assert (train.epochs_final, train.epochs_trial) == (60, 30)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"strategy": "tournaments"}, "'whole', 'restricted', 'bic', 'widen' or 'tournament'"),
        ({"branches": []}, "branches is []: list should have at least 1 item"),
        ({"branches": "whole"}, 'branches is "whole": input should be a list'),
        ({"branches": ["whole", "tournament"]}, "branches is \"tournament\": input should be 'whole', 'restricted', "),
        ({"activation": []}, "the list is empty; name at least one activation"),
        ({"activation": ["relu", "tnah"]}, f"there are {', '.join(ACTIVATIONS)}. Did you mean 'tanh'?"),
        ({"activation": 3}, "activation is 3: input should be a valid string"),
        ({"neurons": "many"}, 'neurons is "many": it is a whole number above 0, or "double"'),
        ({"activation": ["relu", 3]}, 'activation is ["relu", 3]'),
        ({"ridge": 0}, "ridge is 0: input should be greater than 0"),
        ({"ridge": 11}, "ridge is 11: input should be less than or equal to 10"),
        ({"ridge": "auto"}, 'ridge is "auto": input should be a valid number'),
        ({"significance": 0}, "significance is 0: input should be greater than 0"),
        ({"significance": 1.5}, "significance is 1.5: input should be less than or equal to 1"),
        ({"significances": 0.5}, "Did you mean 'significance'?"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(RunError) as caught:
        parse_run({"policy": settings}, "test")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    for epochs in (0, 1.5, "many"):
        with pytest.raises(RunError, match="epochs_trial is"):
            parse_run({"train": {"epochs_trial": epochs}}, "test")


def test_resuming_with_other_branches_is_refused(stopped: Path) -> None:
    policy = {**TOURNAMENT.policy.model_dump(), "branches": ["widen", "whole"]}
    config = with_threads(parse_run({**TOURNAMENT.model_dump(exclude_none=True), "policy": policy}, "test"))
    words = "[policy] branches: ['widen', 'whole', 'bic'], now ['widen', 'whole']"
    refused(stopped, "other settings", words, resume=True, config=config, arrays=curve())


@pytest.mark.parametrize(
    ("given", "found"), [([], "the list is empty"), ([0.9, 1.5], "1.5 is none"), (["much"], "'much' is none")]
)
def test_a_list_of_shares_says_which_is_none(given: list[object], found: str) -> None:
    words = rf"\[data\]: variance is .*: a list holds shares above 0 and at most 1, but {found}"
    with pytest.raises(RunError, match=words):
        parse_run({"data": {"variance": given}}, "test")


# -- probation --------------------------------------------------------------------------------------------------------


def _idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """New neurons that never vary when they are measured, so that nothing gains at once."""
    real = Scoring._draft

    def useless(self: Scoring, *args: Any) -> Any:
        draft = real(self, *args)
        return replace(draft, weight=0 * draft.weight, spare=lambda: (0 * draft.weight, draft.bias))

    monkeypatch.setattr(Scoring, "_draft", useless)


def test_what_gains_nothing_at_once_is_justified_by_its_training(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _idle(monkeypatch)
    settings = small_config(budget={"steps": 3}, train={"epochs_between": 40, "epochs_final": 2})
    path = tmp_path / "run"
    run(path, settings, spirals())
    events = logged(path)
    on_probation = [event for event in events if event["event"] == "growth" and event["notes"]["probation"]]
    assert on_probation
    for event in on_probation:
        assert event["measured_gain"] is event["predicted_gain"] is None
        assert event["notes"]["amplitude"] == 0
        for part, metrics in event["after"].items():  # idle: the function stays
            assert metrics == pytest.approx(event["before"][part])
        assert [tried["outcome"] for tried in event["notes"]["tried"]].count("chosen") == 1
    step = on_probation[0]["step"]
    trained = next(event for event in events if event["event"] == "trained" and event["step"] == step)
    undone = [event["step"] for event in events if event["event"] == "undone"]
    assert (step in undone) == (trained["selection"]["loss"] >= on_probation[0]["before"]["selection"]["loss"])


def test_what_training_does_not_justify_is_undone_to_the_bit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _idle(monkeypatch)
    arrays = spirals()
    rng = np.random.default_rng(1)
    arrays["y_train"] = rng.permutation(arrays["y_train"])  # nothing to learn
    settings = small_config(budget={"steps": 4}, train={"epochs_between": 3, "epochs_final": 1})
    path = tmp_path / "run"
    run(path, settings, arrays)
    events = logged(path)
    undone = [event for event in events if event["event"] == "undone"]
    assert [event["reason"] for event in undone] == ["no gain"]
    ended = next(event for event in events if event["event"] == "ended")
    assert (ended["reason"], ended["step"]) == ("no gain", undone[0]["step"] - 1)
    assert len(list((path / "growth").iterdir())) == undone[0]["step"]
    assert command("log", path).code == 0
