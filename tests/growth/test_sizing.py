"""The size of a network is found: loss after a fit against parameters, the smallest that is as good as the best."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import growir
from growir.data.parts import Data
from growir.errors import RunError
from growir.graph import Graph, Input, Node
from growir.growth.contest import Trial, run_trial
from growir.growth.divergence import Diverged
from growir.growth.grower import Grower
from growir.growth.observer import Observer
from growir.growth.schedule import Alternating, Done, Entry, Grow, Log, Plateau, Train, TrialFit
from growir.growth.sizing import compared, sized
from growir.growth.training import train_final, train_trial
from growir.network import Network
from growir.ops import Linear
from growir.passes import AddNode
from growir.runs.reading import read_run
from growir.runs.records import Ended, Fitted, Growth, Selected, Sized, Undone
from growir.runs.report import sized_text
from growir.runs.telling import Teller
from tests.cli.command import growir as command


def linear_network(inputs: int, frozen: tuple[str, ...] = ()) -> Network:
    """One output from so many inputs: a weight for each, and a bias."""
    layer = Node(name="out", op=Linear(out_features=1), inputs=("x",), frozen=frozen)
    return Network.init(
        Graph(name="linear", inputs=(Input(name="x", shape=("N", inputs)),), nodes=(layer,), outputs=("out",))
    )


def trial(parameters: int, losses: Sequence[float], step: int = 0, name: str | None = None) -> Trial:
    """One of a network with so many parameters: (parameters - 1) weights and a bias."""
    return Trial(name, linear_network(parameters - 1), torch.tensor(losses), step, 1, None)


LOSSES = st.integers(2, 5).flatmap(
    lambda count: st.lists(
        st.lists(st.floats(0, 4, width=16), min_size=count, max_size=count).map(tuple), min_size=1, max_size=6
    )
)


@given(LOSSES, st.randoms(use_true_random=False))
def test_the_smallest_within_one_standard_error_of_the_best_goes_on(
    losses: list[tuple[float, ...]], draws: Any
) -> None:
    sizes = [draws.randrange(2, 6) for _ in losses]
    found = sized([trial(size, each, step) for step, (size, each) in enumerate(zip(sizes, losses, strict=True))])
    table = np.array(losses)
    means = table.mean(1)
    best = min(range(len(losses)), key=lambda step: (means[step], sizes[step]))
    apart = table - table[best]
    within = apart.mean(1) <= apart.std(1) / np.sqrt(table.shape[1]) + 1e-12
    assert found.chosen.parameters == min(size for size, good in zip(sizes, within, strict=True) if good)
    assert [point.chosen for point in found.points].count(True) == 1
    assert [point.parameters for point in found.points] == sorted(sizes)


def test_what_pays_is_compared_with_the_last_that_did() -> None:
    # Each is .1 better than the one before it, with a standard error of .11: the third is .2 better than the first.
    noise = torch.tensor([0.22, -0.22, 0.22, -0.22])
    tried = [trial(3 + k, (1.0 - 0.1 * k + noise * (-1) ** k / 2).tolist(), k) for k in range(3)]
    first, second, third = (compared(tried[k], tried[:k]) for k in range(3))
    assert (first["gain"], first["error"], first["parameters"]) == (None, None, 3.0)
    assert second["gain"] == pytest.approx(0.1)
    assert second["error"] == pytest.approx(0.11)
    assert third["gain"] == pytest.approx(0.2)
    assert third["error"] == pytest.approx(0.0, abs=1e-6)


def followed(schedule: Any, gains: Sequence[float | None], factor: float, budget: int = 10**9) -> str:
    """The phases of a run whose network grows by a factor and whose trials gain so much, with errors of .1."""
    log, told, size, left = Log((Entry("started"),)), list[str](), 10.0, list(gains)
    for _ in range(100):
        phase = schedule.next(log)
        if isinstance(phase, TrialFit):
            told.append(f"try{size:.0f}")
            entry = Entry("tried", metrics={"parameters": size, "loss": 1.0, "gain": left.pop(0), "error": 0.1})
        elif isinstance(phase, Train):
            told.append("fit" if phase.fit == "final" else "t")
            entry = Entry("fitted") if phase.fit == "final" else Entry("trained", 1, {"loss": 1.0})
        elif isinstance(phase, Grow) and size * factor <= budget:
            told.append("g")
            size *= factor
            entry = Entry("growth", metrics={"parameters": size})
        elif log.ended:
            return " ".join(told)
        else:
            told.append(f"end:{phase.reason if isinstance(phase, Done) else 'budget'}")
            entry = Entry("ended")
        log = Log((*log.entries, entry))
    raise AssertionError(told)


@pytest.mark.parametrize(
    ("schedule", "gains", "factor", "budget", "phases"),
    [
        # Twice nothing, and it is over.
        (Alternating(trials=2.0), [None, 1.0, 0.05, -1.0], 2, 10**9,
         "try10 g t try20 g t try40 g t try80 end:size fit"),
        (Alternating(trials=2.0, patience=1), [None, 1.0, 0.05], 2, 10**9, "try10 g t try20 g t try40 end:size fit"),
        # What pays starts the count again.
        (Alternating(trials=2.0), [None, 0.0, 1.0, 0.0, 0.0], 2, 10**9,
         "try10 g t try20 g t try40 g t try80 g t try160 end:size fit"),
        # Only every so many parameters; and what growth ends with is tried too.
        (Alternating(trials=2.0), [None, 1.0, 1.0], 1.5, 40, "try10 g t g t try22 g t end:budget try34 fit"),
        (Alternating(trials=2.0, growths=1), [None, 1.0], 2, 10**9, "try10 g t end:growths try20 fit"),
        # Where training has come to rest, not before.
        (Plateau(window=1, trials=2.0, patience=1, most=2), [None], 2, 10**9, "t t try10 g t t end:no gain try20 fit"),
    ],
)  # fmt: skip
def test_when_a_fit_is_tried(schedule: Any, gains: list[float | None], factor: float, budget: int, phases: str) -> None:
    left = [*gains, None]
    assert followed(schedule, left, factor, budget) == phases


def lengths(first: int, losses: dict[int, float], error: float) -> list[int]:
    """The lengths that are tried, and the one of the final fit, where fits of so many epochs leave these losses."""
    schedule = Alternating(trials=2.0, lengths=True)
    log = Log((Entry("started"), Entry("ended"), Entry("selected", first, {"loss": losses[first]})))
    told, paid = [first], losses[first]
    for _ in range(20):
        phase = schedule.next(log)
        if isinstance(phase, Train):
            assert phase.epochs is not None
            return [*told, phase.epochs]
        assert isinstance(phase, TrialFit)
        assert phase.epochs is not None
        told.append(phase.epochs)
        gain = paid - losses[phase.epochs]
        paid = losses[phase.epochs] if gain > error else paid
        metrics = {"loss": losses[phase.epochs], "gain": gain, "error": error}
        log = Log((*log.entries, Entry("tried", phase.epochs, metrics)))
    raise AssertionError(told)


@pytest.mark.parametrize(
    ("losses", "told"),
    [
        # A shorter fit is better, until one is not.
        ({30: 1.0, 15: 0.8, 8: 0.7, 4: 0.9}, [30, 15, 8, 4, 8]),
        # None is shorter than an eighth.
        ({30: 1.0, 15: 0.8, 8: 0.7, 4: 0.6, 2: 0.5}, [30, 15, 8, 4, 4]),
        # A longer one is, by more than the error, until one is not; the lowest is taken all the same.
        ({30: 1.0, 15: 1.1, 60: 0.8, 120: 0.78}, [30, 15, 60, 120, 120]),
        ({30: 1.0, 15: 1.1, 60: 0.8, 120: 0.6, 240: 0.4, 480: 0.2}, [30, 15, 60, 120, 240, 240]),
        ({30: 1.0, 15: 1.1, 60: 1.2}, [30, 15, 60, 30]),
        # Of as good ones the shorter.
        ({30: 1.0, 15: 1.0, 8: 1.0, 4: 1.0}, [30, 15, 8, 4, 4]),
        ({1: 1.0, 2: 0.5, 4: 0.3, 8: 0.3}, [1, 2, 4, 8, 4]),
    ],
)
def test_which_lengths_of_the_final_fit_are_tried(losses: dict[int, float], told: list[int]) -> None:
    assert lengths(next(iter(losses)), losses, error=0.05) == told


def line(count: int = 240) -> dict[str, Any]:
    """Targets that are linear in the inputs, with noise."""
    draws = np.random.default_rng(0)
    x = draws.normal(size=(count, 6)).astype(np.float32)
    y = x @ np.array([1.0, -2.0, 0.5, 0.0, 3.0, 1.0], np.float32) + draws.normal(size=count).astype(np.float32)
    return {"x_train": x[:-40], "y_train": y[:-40], "x_test": x[-40:], "y_test": y[-40:]}


def hinge(count: int = 400) -> dict[str, Any]:
    """Targets that no linear network comes near."""
    draws = np.random.default_rng(0)
    x = draws.normal(size=(count, 4)).astype(np.float32)
    y = np.abs(x[:, 0]) + np.abs(x[:, 1] - x[:, 2]) + 0.1 * draws.normal(size=count).astype(np.float32)
    return {"x_train": x[:-40], "y_train": y[:-40], "x_test": x[-40:], "y_test": y[-40:]}


TRIALS = {"name": "alternating", "trials": 2.0, "lengths": True}
FEW = {"epochs_between": 5, "epochs_trial": 10, "epochs_final": 10, "batch_size": 32}


def run(data: dict[str, Any], policy: Any, **more: Any) -> growir.GrowthResult:
    settings: dict[str, Any] = {"schedule": TRIALS, "budget": {"parameters": 300}, "train": FEW, "threads": 1, **more}
    return growir.grow(None, data, policy=policy, task="regression", **settings)


def test_a_linear_problem_ends_linear_and_another_does_not() -> None:
    whole = {"name": "dag", "strategy": "whole", "significance": 1.0, "neurons": 8}
    linear, other = run(line(), whole), run(hinge(), whole)
    assert any(isinstance(event, Growth) and event.step == 2 for event in linear.events), "it has tried more"
    assert linear.finished.parameters == 7
    assert linear.finished.steps == 1
    assert (other.finished.parameters or 0) > 30
    (found,) = [event for event in linear.events if isinstance(event, Sized)]
    assert [point.parameters for point in found.points if point.chosen] == [7]
    assert "7 parameters" in sized_text(found)
    assert linear.network.graph.hash == linear.finished.hash
    assert linear.grown.graph.hash == linear.finished.hash


def test_a_contest_chooses_among_all_sizes_of_all_branches() -> None:
    policy = {"name": "dag", "branches": ["widen", "whole"], "significance": 1.0, "neurons": 8}
    found = run(line(800), policy, train={**FEW, "keep_final": 1.0})
    (chosen,) = [event for event in found.events if isinstance(event, Selected)]
    (size,) = [event for event in found.events if isinstance(event, Sized)]
    assert {point.branch for point in size.points} == {"widen", "whole"}
    assert (chosen.branch, size.branch, found.finished.branch) == ("whole", "whole", "whole")
    assert found.finished.parameters == 7, "widen has no linear network"
    assert len(chosen.tried) == 2


def text(result: growir.GrowthResult) -> list[dict[str, Any]]:
    clocks = ("seconds", "seconds_growing", "phases")
    kept = [event for event in result.events if event.event != "interrupted"]
    return [{k: v for k, v in event.to_json().items() if k not in clocks} for event in kept]


@pytest.mark.parametrize("policy", ["widen", "both"])
def test_it_goes_on_from_wherever_it_was_stopped(policy: str, tmp_path: Path) -> None:
    both: dict[str, Any] = {"name": "dag", "neurons": 8, "branches": ["widen", "whole"]}
    settings = both if policy == "both" else {"name": "dag", "neurons": 8, "strategy": "widen"}
    seen, short = (
        0,
        {"train": {**FEW, "epochs_between": 1, "epochs_trial": 2, "epochs_final": 2}, "budget": {"steps": 2}},
    )

    def count(session: object, progress: object) -> None:
        nonlocal seen
        seen += 1

    whole = run(line(120), settings, observer=Observer(checkpoint=count), **short)
    assert {"sized", "timed"} <= {event.event for event in whole.events}
    for stop in range(2, seen + 1, 3):
        at = itertools.count(1)

        def interrupt(session: object, progress: object, at: Any = at, stop: int = stop) -> None:
            if next(at) == stop:
                raise KeyboardInterrupt

        out = tmp_path / str(stop)
        with pytest.raises(KeyboardInterrupt):
            run(line(120), settings, out=out, observer=Observer(checkpoint=interrupt), **short)
        found = run(line(120), settings, out=out, resume=True, **short)
        assert text(found) == text(whole)
        for key, array in whole.network.arrays.items():
            np.testing.assert_array_equal(array, found.network.arrays[key])


def test_the_log_shows_the_curve_and_the_point(tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(line(), {"name": "dag", "strategy": "whole", "significance": 1.0, "neurons": 8}, out=out)
    log = read_run(out)
    assert log.sized is not None
    stands = [grown for grown in log.growths if grown.undone is None]
    assert [grown.growth.step for grown in stands] == [1], "those after it are taken back"
    shown = command("log", out).out
    assert "above lowest" in shown
    assert "chosen" in shown
    assert "taken back (size)" in shown
    assert log.timed is not None
    assert f"{log.timed.epochs} leaves the lowest loss" in " ".join(shown.split())
    assert sorted(path.stem for path in (out / "growth").glob("*.json")) == ["0000", "0001"]
    # Before it is over, what is known is shown.
    lines = (out / "events.jsonl").read_text().splitlines()
    kept = [line for line in lines if not any(f'"{kind}"' in line for kind in ("sized", "timed", "finished"))]
    (out / "events.jsonl").write_text("\n".join(kept) + "\n")
    assert "selection loss" in command("log", out).out


def test_without_trials_nothing_is_tried() -> None:
    found = run(line(), {"name": "dag", "strategy": "widen"}, schedule={"name": "alternating", "trials": 0})
    assert not [event for event in found.events if isinstance(event, Fitted | Sized)]


def test_a_network_that_is_given_is_a_size_too() -> None:
    start = linear_network(6)
    found = growir.grow(
        start, line(), policy={"name": "dag", "strategy": "whole", "neurons": 4}, schedule=TRIALS, train=FEW, threads=1
    )
    (size,) = [event for event in found.events if isinstance(event, Sized)]
    assert size.points[0].parameters == 7
    assert [event.reason for event in found.events if isinstance(event, Ended)] != []


@pytest.mark.parametrize("wrong", [1, 1.0, 0.5, "often", -2, 1e-9])
def test_a_factor_that_is_none_is_refused(wrong: Any) -> None:
    with pytest.raises(RunError, match=r"trials"):
        run(line(), {"name": "dag"}, schedule={"name": "alternating", "trials": wrong})


WHOLE: dict[str, Any] = {"name": "dag", "strategy": "whole", "significance": 1.0, "neurons": 8}


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ({"name": "every", "trials": 2.0}, r"but fit is false; set fit = true"),
        ({"name": "alternating", "trials": 0, "lengths": True}, r"set trials = 2\.0 too"),
        ({"name": "tests.growth.test_sizing:Twice", "trials": 2.0}, r"decides by itself when there are trials"),
    ],
)
def test_trials_that_would_say_nothing_are_refused(schedule: dict[str, Any], said: str) -> None:
    with pytest.raises(RunError, match=said):
        run(line(), WHOLE, schedule=schedule)


def test_pruning_has_its_own_goal() -> None:
    start = linear_network(6).apply(AddNode(source="x", target="out", width=4))
    with pytest.raises(RunError, match=r"as small as \[policy\] to says; leave trials out"):
        growir.grow(start, line(), policy="prune", schedule=TRIALS, train=FEW)


def test_a_loop_of_ones_own_has_no_trials() -> None:
    module = linear_network(6).to_torch()
    optimizer, data = torch.optim.SGD(module.parameters(), 0.1), Data.from_arrays(np.zeros((8, 6)), np.zeros((8, 1)))
    with pytest.raises(RunError, match=r"\[schedule\] trials asks for trial fits, which only a run can do"):
        Grower(module, optimizer, "mse", data, "random", TRIALS)


class Twice:
    """A schedule of one's own: tries before it grows and right after, and looks at what happened last."""

    def next(self, log: Log) -> Any:
        if log.last == "fitted":
            return Done("all")
        if log.ended:
            return Train(fit="final") if log.count("selected") or log.last == "ended" else Done("nothing")
        if log.count("tried") == log.growths:
            return TrialFit(2)
        if log.last == "growth" or (log.last == "tried" and log.growths):
            return Train(epochs=1)
        return Grow() if log.growths < 2 else Done("enough")


class Last:
    """One that says what comes next by what came last."""

    def next(self, log: Log) -> Any:
        if log.last == "ended":
            return Train(fit="final")
        if log.last == "fitted":
            return Done("all")
        return Train(epochs=1) if log.last == "growth" else Grow() if log.growths < 1 else Done("enough")


def test_a_schedule_of_ones_own_may_ask_for_trials() -> None:
    found = run(hinge(), WHOLE, schedule=Twice())
    assert [event.step for event in found.events if isinstance(event, Fitted)] == [0, 1, 2]
    assert found.finished.train_loss_final is not None


class Early:
    """One that tries right after a growth, before the training that justifies it."""

    def next(self, log: Log) -> Any:
        if log.ended:
            return Done("all") if log.fitted else Train(fit="final")
        if log.last == "growth" or not log.count("tried"):
            return TrialFit(2)
        return Train(epochs=1) if log.growths >= log.count("tried") - 1 > 0 and log.last == "tried" else Grow()


def test_a_size_that_was_refused_is_none() -> None:
    found = run(line(), {"name": "dag", "strategy": "bic", "neurons": 8}, schedule=Early(), budget={"steps": 4})
    refused = [event.step for event in found.events if isinstance(event, Undone)]
    (size,) = [event for event in found.events if isinstance(event, Sized)]
    assert refused
    assert not {point.step for point in size.points} & set(refused)


def test_a_contest_without_trials_ends_as_its_schedule_says() -> None:
    found = run(line(), {"name": "dag", "branches": ["widen", "whole"]}, schedule=Last())
    assert found.finished.train_loss_final is not None
    assert not [event for event in found.events if isinstance(event, Sized)]


def test_a_network_in_which_nothing_learns_may_be_the_best() -> None:
    train = {**FEW, "learning_rate_final": 1e-30}  # nothing that grows learns anything
    start, policy = linear_network(6, ("bias", "weight")), {**WHOLE, "neurons": 2}
    found = growir.grow(start, line(), policy=policy, schedule=TRIALS, train=train, threads=1)
    assert found.finished.train_loss_final is not None


def test_a_trial_that_diverges_does_not_pay(monkeypatch: pytest.MonkeyPatch) -> None:

    def spoiled(session: Any, epochs: int, keep: float, *key: int) -> Any:
        if session.graph.costs().parameters > 100:
            raise Diverged("a fit diverged", "its loss is NaN")
        return train_trial(session, epochs, keep, *key)

    def failing(*_: Any) -> Any:
        raise Diverged("a fit diverged", "its loss is NaN")

    monkeypatch.setattr("growir.growth.contest.train_trial", spoiled)
    found = run(hinge(), WHOLE)
    assert (found.finished.parameters or 0) <= 100
    losses = [event.loss for event in found.events if isinstance(event, Fitted)]
    assert losses.count(None) >= 1
    told = [line for event in found.events for line in Teller().lines(event)]
    assert any("it diverges" in line for line in told)
    monkeypatch.setattr("growir.growth.contest.train_trial", failing)
    with pytest.raises(RunError, match="every trial fit diverged; clip gradients"):
        run(hinge(), WHOLE)


def test_the_final_fit_starts_as_the_better_trial_did(monkeypatch: pytest.MonkeyPatch) -> None:
    tried, ended = list[Trial](), list[float | None]()

    def trying(*given: Any) -> Trial:
        tried.append(run_trial(*given))
        return tried[-1]

    def ending(session: Any, phase: Any, keeping: Any, keep: float | None = None) -> Any:
        ended.append(keep)
        return train_final(session, phase, keeping, keep)

    monkeypatch.setattr("growir.growth.engine.run_trial", trying)
    monkeypatch.setattr("growir.growth.engine.train_final", ending)
    short = {"budget": {"steps": 2}, "train": {**FEW, "epochs_trial": 4}}
    found = run(hinge(), {"name": "dag", "strategy": "widen", "neurons": 4}, **short)
    fits = [event for event in found.events if isinstance(event, Fitted)]
    (size,) = [event for event in found.events if isinstance(event, Sized)]
    for fit in fits[: len(size.points)]:
        both = [trial for trial in tried if (trial.step, trial.epochs) == (fit.step, 4)]
        assert [trial.keep for trial in both] == [1.0, 0.2]
        best = min(both, key=lambda trial: trial.loss)
        assert (fit.loss, fit.keep) == (best.loss, best.keep)
    assert {fit.keep for fit in fits[len(size.points) :]} <= set(ended), (
        "lengths are tried from the start that is chosen"
    )
    assert ended == [fit.keep for fit in fits if fit.step == size.step][:1]
    tried.clear()
    run(hinge(), {"name": "dag", "strategy": "widen"}, train={**FEW, "keep_final": 0.5}, budget={"steps": 1})
    assert {trial.keep for trial in tried} == {0.5}
    assert ended[1:] == [0.5]


def test_a_start_cannot_be_found_without_trials() -> None:
    with pytest.raises(RunError, match=r"keep_final = \"found\".*set \[schedule\] trials = 2\.0"):
        run(line(), {"name": "dag"}, schedule={"name": "alternating", "trials": 0}, train={"keep_final": "found"})


def test_growths_are_told_below_their_columns() -> None:
    found, teller = run(line(), WHOLE), Teller()
    told = [line for event in found.events for line in teller.lines(event)]
    assert sum("predicted measured" in line for line in told) == 1


def test_networks_keep_what_they_had_before_the_fit() -> None:
    found = run(line(), {"name": "dag", "strategy": "whole", "neurons": 8})
    assert isinstance(found.grown, Network)
    assert any((found.grown.arrays[key] != array).any() for key, array in found.network.arrays.items())
