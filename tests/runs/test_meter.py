"""What a run costs: phases, operations, energy where the machine tells, and how a resumed run goes on counting."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from growir.growth.observer import Observer
from growir.growth.training import train_trial, trial_epochs
from growir.passes import AddNode
from growir.runs import meter as metering
from growir.runs.meter import Meter, joules
from tests.growth.problems import curve, fitted, select_of, small_config, small_session, spirals, trained
from tests.growth.test_run import CONFIG, run


class Clock:
    """Time and energy that pass when they are told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.used = 0.0
        self.counted: float | None = 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(time, "process_time", lambda: self.used)
        monkeypatch.setattr(metering, "joules", lambda: self.counted)

    def work(self, seconds: float, energy: float = 0.0) -> None:
        self.now += seconds
        self.used += 2 * seconds  # two threads
        if self.counted is not None:
            self.counted += energy


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_a_phase_costs_what_happens_inside_it(clock: Clock) -> None:
    meter = Meter()
    clock.work(100, 100)
    with meter.phase("growing"):
        clock.work(3, 5)
        meter.count(7)
    clock.work(100, 100)
    meter.count(1000)
    with meter.phase("training"):
        clock.work(1)
    with meter.phase("growing"):
        clock.work(2, 1)
        meter.count(2)
    assert meter.to_json() == {
        "growing": {"seconds": 5.0, "cpu_seconds": 10.0, "flops": 9, "joules": 6.0},
        "training": {"seconds": 1.0, "cpu_seconds": 2.0, "flops": 0.0, "joules": 0.0},
    }


def test_what_happens_in_a_phase_inside_another_is_counted_once(clock: Clock) -> None:
    meter = Meter()
    with meter.phase("growing"):
        clock.work(1, 1)
        meter.count(1)
        with meter.phase("training"):
            clock.work(10, 10)
            meter.count(10)
        clock.work(4, 4)
        meter.count(4)
    costs = meter.costs
    for name, expected in (("growing", 5), ("training", 10)):
        found = costs[name]
        assert (found.seconds, found.cpu_seconds, found.flops, found.joules) == (
            expected,
            2 * expected,
            expected,
            expected,
        )


def test_a_phase_that_ends_by_an_error_is_counted(clock: Clock) -> None:
    meter = Meter()

    def interrupted() -> None:
        with meter.phase("growing"), meter.phase("training"):
            clock.work(2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    clock.work(50)
    meter.count(50)
    with meter.phase("growing"):
        clock.work(1)
    assert (meter.costs["training"].seconds, meter.costs["growing"].seconds) == (2, 1)
    assert meter.costs["training"].flops == meter.costs["growing"].flops == 0


def test_a_meter_goes_on_from_where_it_was(clock: Clock) -> None:
    meter, other = Meter(), Meter()
    with meter.phase("growing"):
        clock.work(1.5, 3)
        meter.count(1e15 + 1)
    with other.phase("choosing"):
        clock.work(9)
    other.restore(json.loads(json.dumps(meter.to_json())))
    assert other.to_json() == meter.to_json()
    with other.phase("growing"):
        clock.work(1, 2)
        other.count(1)
    assert other.to_json() == {"growing": {"seconds": 2.5, "cpu_seconds": 5.0, "flops": 1e15 + 2, "joules": 5.0}}


@pytest.mark.parametrize(
    "phases", [{"growing": {}}, {"growing": 3}, {"growing": {"seconds": 1, "flops": 1, "joules": 1}}]
)
def test_what_is_no_meter_is_refused(phases: dict[str, dict[str, float | None]]) -> None:
    with pytest.raises((KeyError, TypeError)):
        Meter().restore(phases)


# -- energy -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with two processors, of which a core and memory have counters too, and one for the whole platform."""
    monkeypatch.setattr(metering, "RAPL", tmp_path)
    for folder, name, used in (
        ("intel-rapl:0", "package-0", 5_000_000),
        ("intel-rapl:0:0", "core", 4_000_000),
        ("intel-rapl:1", "package-1", 2_500_000),
        ("intel-rapl:1:0", "dram", 1_000_000),
        ("intel-rapl:2", "psys", 90_000_000),
        ("intel-rapl-mmio:0", "package-0", 5_000_000),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "name").write_text(f"{name}\n")
        (tmp_path / folder / "energy_uj").write_text(f"{used}\n")
    return tmp_path


def use(counters: Path, processor: int, microjoules: int) -> None:
    path = counters / f"intel-rapl:{processor}" / "energy_uj"
    path.write_text(str(int(path.read_text()) + microjoules))


def test_energy_is_that_of_all_processors_each_once(counters: Path) -> None:
    assert joules() == 7.5
    meter = Meter()
    with meter.phase("training"):
        use(counters, 0, 1_250_000)
        use(counters, 1, 250_000)
        use(counters, 2, 7_000_000)
    assert meter.costs["training"].joules == pytest.approx(1.5)


def test_a_counter_that_starts_over_takes_nothing_away(counters: Path) -> None:
    meter = Meter()
    with meter.phase("training"):
        use(counters, 0, 1_000_000)
    with meter.phase("training"):
        use(counters, 0, -6_000_000)
    assert meter.costs["training"].joules == pytest.approx(1.0)


def test_without_counters_energy_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for root in (tmp_path, tmp_path / "none"):
        monkeypatch.setattr(metering, "RAPL", root)
        meter = Meter()
        with meter.phase("training"):
            assert joules() is None
        assert meter.to_json()["training"]["joules"] is None
        assert meter.costs["training"].seconds > 0


@pytest.mark.parametrize("text", [None, "", "many"])
def test_a_counter_that_cannot_be_read_makes_energy_unknown(text: str | None, counters: Path) -> None:
    path = counters / "intel-rapl:1" / "energy_uj"
    path.unlink()
    if text is None:
        path.mkdir()  # which root cannot read either
    else:
        path.write_text(text)
    assert joules() is None


# -- operations -------------------------------------------------------------------------------------------------------


def test_training_costs_six_operations_a_multiply_accumulate_sample_and_epoch() -> None:
    session = small_session(spirals(), small_config(train={"epochs_between": 3, "epochs_final": 5, "epochs_trial": 7}))
    session.grow(AddNode(source="standard", target="out", width=4))
    macs = session.graph.costs().macs
    assert macs >= 3 * 4 + 4 * 2
    with session.meter.phase("training"):
        trained(session, 1)
    with session.meter.phase("choosing"):
        train_trial(session, trial_epochs(session.train_config), 1.0, 0)
    with session.meter.phase("final fit"):
        fitted(session)
    flops = {name: cost.flops for name, cost in session.meter.costs.items()}
    assert flops == {
        "training": 6 * macs * 120 * 3,
        "choosing": 6 * macs * 120 * 7,
        "final fit": 6 * macs * 180 * 5,
    }


def test_predicting_costs_two_operations_a_multiply_accumulate_and_sample() -> None:
    session = small_session(spirals())
    session.grow(AddNode(source="standard", target="out", width=4))
    with session.meter.phase("growing"):
        session.measure(select_of(session))
    assert session.meter.costs["growing"].flops == 2 * session.graph.costs().macs * len(select_of(session))


def test_the_phases_of_a_run_are_all_it_does(tmp_path: Path) -> None:
    started = time.perf_counter()
    policy = {"strategy": "tournament", "branches": ["widen", "whole"]}
    done = run(None, small_config(policy=policy), curve())
    whole = time.perf_counter() - started
    phases = done.summary["phases"]
    assert phases.keys() == {"growing", "training", "choosing", "final fit"}
    assert all(phase["flops"] > 0 and phase["seconds"] > 0 for phase in phases.values())
    total = sum(phase["seconds"] for phase in phases.values())
    assert 0.5 * done.summary["seconds"] < total <= whole
    again = run(None, small_config(policy=policy), curve()).summary["phases"]
    assert {name: phase["flops"] for name, phase in again.items()} == {n: p["flops"] for n, p in phases.items()}


def test_a_resumed_run_counts_every_operation_once(tmp_path: Path) -> None:
    whole = run(None, CONFIG).summary["phases"]

    def stop(_: object, progress: object) -> None:
        raise KeyboardInterrupt

    stops = 0
    while not (tmp_path / "run" / "summary.json").exists():
        try:
            run(tmp_path / "run", resume=stops > 0, observer=Observer(checkpoint=stop))
        except KeyboardInterrupt:
            stops += 1
    assert stops > 3
    found = json.loads((tmp_path / "run" / "summary.json").read_text())["phases"]
    assert {n: p["flops"] for n, p in found.items()} == pytest.approx({n: p["flops"] for n, p in whole.items()})
