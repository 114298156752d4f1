"""Schedules are pure functions of the log: which phases each gives, and that going on is reading."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from growir.errors import RunError
from growir.growth.checkpointing import _log, log_of
from growir.growth.config import parse_run
from growir.growth.schedule import (
    AfterTraining,
    Alternating,
    Done,
    Entry,
    Every,
    Grow,
    Log,
    Periodic,
    Plateau,
    Scheduled,
    Train,
    stagnant,
)

MOST = 400  # phases of a simulated run; whatever ends by a budget only goes on until then
Value = Callable[[int], float]


def falling(epoch: int) -> float:
    return 1 / (1 + epoch)


def run(schedule: Scheduled, loss: Value = falling, *, budget: int = 10**9, epochs: int = 2) -> tuple[list[str], Log]:
    """The phases of a run, in short, and its log; `loss` is of the epochs trained so far."""
    log, told, done = Log((Entry("started"),)), list[str](), 0
    for _ in range(MOST):
        phase = schedule.next(log)
        assert schedule.next(log) == phase, "it is a function of the log"
        if isinstance(phase, Train) and phase.fit == "final":
            told.append("fit")
            entry = Entry("fitted", 1)
        elif isinstance(phase, Train):
            length = phase.epochs or epochs
            done += length
            told.append(f"t{length}")
            entry = Entry("trained", length, {"loss": loss(done), "accuracy": 1 - loss(done)})
        elif isinstance(phase, Grow) and log.growths < budget:
            told.append("g")
            entry = Entry("growth")
        elif log.ended:
            return told, log
        else:
            told.append(f"end:{phase.reason}" if isinstance(phase, Done) else "end:budget")
            entry = Entry("ended")
        log = Log((*log.entries, entry))
    return told, log


def words(text: str) -> list[str]:
    return text.split()


@pytest.mark.parametrize(
    ("schedule", "phases"),
    [
        (Alternating(growths=2), "g t2 g t2 end:growths fit"),
        (Alternating(growths=2, epochs=5, first=3, fit=False), "t3 g t5 g t5 end:growths"),
        (Alternating(growths=1, first=3), "t3 g t2 end:growths fit"),
        (Every(epochs=3, growths=2), "t3 g t3 g t3 end:growths"),
        (Every(epochs=3, growths=2, last=9, fit=True), "t3 g t3 g t9 end:growths fit"),
        (AfterTraining(epochs=30, between=5, growths=2), "t30 g t5 g t5 end:growths"),
        (Periodic(epochs=3, growths=2, window=4), "t3 g t3 g t3 end:growths fit"),
    ],
)
def test_the_phases_of_each(schedule: Scheduled, phases: str) -> None:
    assert run(schedule)[0] == words(phases)


def test_a_budget_ends_any_of_them() -> None:
    for schedule in (Alternating(), Every(growths=9), AfterTraining(growths=9), Periodic(window=1000)):
        told, log = run(schedule, budget=2)
        assert (told.count("g"), "end:budget" in told, log.fitted) == (2, True, schedule.fit)


def test_planned_epochs_are_those_that_come() -> None:
    for schedule in (
        Every(epochs=3, growths=4),
        Every(epochs=2, growths=3, last=7),
        AfterTraining(epochs=9, growths=2),
    ):
        _, log = run(schedule)
        assert sum(entry.epochs for entry in log.entries if entry.what == "trained") == schedule.planned
    assert Alternating().planned is None


def test_what_was_taken_back_does_not_count_as_a_growth() -> None:
    log = Log((Entry("started"), Entry("growth"), Entry("trained", 1), Entry("undone")))
    assert log.growths == 0
    assert Alternating(growths=1).next(log) == Grow()


# -- AutoGrow -------------------------------------------------------------------------------------------------------


def gained(curve: list[float], window: int) -> float | None:
    """By how much the best of the last `window` epochs is above the best of those before; None without those."""
    return max(curve[-window:]) - max(curve[:-window]) if len(curve) > window else None


def rising(best: float, rate: float) -> Iterator[float]:
    """An accuracy that rises towards `best` and rests there."""
    value = 0.0
    while True:
        value += max(0.0, (best - value) * rate)
        yield value


@pytest.mark.parametrize(("every", "window"), [(1, 4), (3, 6), (3, 7), (5, 30)])
@pytest.mark.parametrize("tau", [0.0, 0.0005, 0.05])
def test_periodic_growth_goes_on_while_the_last_epochs_gained(every: int, window: int, tau: float) -> None:
    source = rising(0.9, 0.3)
    curve = [next(source) for _ in range(MOST * every)]
    schedule = Periodic(epochs=every, window=window, by=tau, measure="accuracy", fit=False)
    told, _ = run(schedule, lambda epoch: 1 - curve[epoch - 1])
    # The paper's rule, asked after each training of K epochs: what was measured is the accuracy after each of them.
    measured = curve[every - 1 :: every]
    whole = -(-window // every)  # a training counts among the last J epochs if any of them lies in those
    growths = next((k for k in range(1, len(measured)) if not _more(gained(measured[:k], whole), tau)), None)
    assert growths is not None
    assert told.count("g") == growths - 1
    assert told[-1] == "end:no gain"


def _more(gain: float | None, tau: float) -> bool:
    return gain is None or gain > tau


def test_periodic_growth_needs_more_epochs_than_the_window_to_end() -> None:
    told, log = run(Periodic(epochs=3, window=30, measure="accuracy", fit=False), lambda epoch: 0.5)
    assert told[-1] == "end:no gain"
    trained = sum(entry.epochs for entry in log.entries if entry.what == "trained")
    assert trained == 33


def test_convergent_growth_waits_until_training_rests() -> None:
    # It falls for five epochs after each growth, to a floor that two growths lower.
    floors = iter([0.5, 0.3, 0.3])
    log, told = Log((Entry("started"),)), list[str]()
    schedule = Plateau(window=2, by=0.01, fit=False)
    floor, since = next(floors), 0
    while not isinstance(phase := schedule.next(log), Done):
        told.append("g" if isinstance(phase, Grow) else "t")
        if isinstance(phase, Grow):
            floor, since, entry = next(floors), 0, Entry("growth")
        else:
            assert phase == Train(epochs=1)
            since += 1
            entry = Entry("trained", 1, {"loss": floor + 0.1 * max(0, 5 - since)})
        log = Log((*log.entries, entry))
    # Five epochs fall, two more bring nothing.
    assert "".join(told) == "tttttttgtttttttgttttttt"
    assert phase.reason == "no gain"


def test_convergent_growth_is_not_held_up_for_ever() -> None:
    told, _ = run(Plateau(window=2, most=5, growths=2, fit=False))
    assert told == words("t1 t1 t1 t1 t1 g t1 t1 t1 t1 t1 g t1 t1 t1 t1 t1 end:growths")


def test_convergent_growth_ends_where_the_last_one_gained_too_little() -> None:
    told, _ = run(Plateau(window=1, most=1, gain=0.3, fit=False), lambda epoch: 1.0 - 0.2 * epoch)
    assert told == ["t1", "g", "t1", "end:no gain"]


@pytest.mark.parametrize(
    ("losses", "window", "by", "rests"),
    [
        ([0.9, 0.5, 0.6, 0.55], 2, 0.0, True),
        ([0.9, 0.5, 0.6, 0.45], 2, 0.0, False),
        ([0.9, 0.5, 0.6, 0.45], 2, 0.1, True),
        ([0.5, 0.6], 2, 0.0, False),  # nothing to compare with
        ([], 1, 0.0, False),
        ([0.5, None], 1, 0.0, True),  # a loss that is not finite is no gain
    ],
)
def test_rest_is_when_the_last_epochs_bring_nothing(
    losses: list[float | None], window: int, by: float, rests: bool
) -> None:
    assert stagnant([Entry("trained", 1, {"loss": loss}) for loss in losses], "loss", window, by) == rests


# -- laws -------------------------------------------------------------------------------------------------------------

SCHEDULES = st.one_of(
    st.builds(Alternating, epochs=st.none() | st.integers(1, 4), first=st.integers(0, 3), growths=st.integers(1, 5)),
    st.builds(Every, epochs=st.integers(1, 4), growths=st.integers(1, 5), fit=st.booleans()),
    st.builds(
        Plateau, window=st.integers(1, 4), by=st.floats(0, 0.1), most=st.integers(1, 9), growths=st.integers(1, 5)
    ),
    st.builds(AfterTraining, epochs=st.integers(1, 9), between=st.integers(1, 4), growths=st.integers(1, 5)),
    st.builds(Periodic, epochs=st.integers(1, 4), window=st.integers(1, 9), growths=st.integers(1, 5)),
)
LOSSES = st.lists(st.floats(0, 1), min_size=1, max_size=30)


@given(SCHEDULES, LOSSES)
def test_growths_are_parted_by_training_and_all_comes_to_an_end(schedule: Scheduled, losses: list[float]) -> None:
    told, log = run(schedule, lambda epoch: losses[epoch % len(losses)])
    assert log.ended
    assert log.fitted == schedule.fit
    assert not any(a == b == "g" for a, b in itertools.pairwise(told))
    assert log.growths <= 5
    assert log.count("ended") == 1


@given(SCHEDULES, LOSSES)
def test_a_log_that_was_written_and_read_says_the_same(schedule: Scheduled, losses: list[float]) -> None:
    _, log = run(schedule, lambda epoch: losses[epoch % len(losses)])
    for k in range(1, len(log.entries) + 1):
        part = Log(log.entries[:k])
        written = json.dumps([[entry.what, entry.epochs, dict(entry.metrics)] for entry in part.entries])
        assert schedule.next(log_of(json.loads(written))) == schedule.next(part)


def test_a_run_of_before_there_were_schedules_reads_as_alternating() -> None:
    log = _log({"log": None, "step": 2, "ended": None})
    assert [entry.what for entry in log.entries] == words("started growth trained growth trained")
    assert Alternating().next(log) == Grow()
    assert Alternating().next(_log({"log": None, "step": 2, "ended": "steps"})) == Train(fit="final")


# -- settings ---------------------------------------------------------------------------------------------------------


def test_a_run_file_names_one() -> None:
    config = parse_run({"schedule": {"name": "every", "epochs": 20, "growths": 15}}, "test")
    assert config.schedule == Every(epochs=20, growths=15)
    assert parse_run({"schedule": "plateau"}, "test").schedule == Plateau()
    assert parse_run({}, "test").schedule == Alternating()


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"name": "evry"}, r"there is no schedule 'evry'; there are alternating, .*Did you mean 'every'\?"),
        ({"name": "every", "first": 3}, "schedule 'every' has no 'first'; 'alternating' has it"),
        ({"epochs": 0}, "epochs"),
        ({"name": 3}, "there is no schedule 3"),
    ],
)
def test_what_is_wrong_is_said(section: dict[str, object], says: str) -> None:
    with pytest.raises(RunError, match=says):
        parse_run({"schedule": section}, "test")
