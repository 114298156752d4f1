"""Records of a run: what their lines look like, and that whatever stands in one can be read."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from growir.runs import records
from growir.runs.reading import RunLog, read_event
from growir.runs.records import (
    KINDS,
    AtAmplitude,
    Chosen,
    Compared,
    Ended,
    Event,
    Finished,
    Fitted,
    Growth,
    Inputs,
    InputsChosen,
    Interrupted,
    Measured,
    Other,
    Point,
    Recalibrated,
    Selected,
    Sized,
    Skipped,
    Started,
    Timed,
    Trained,
    Tried,
    Undone,
    UnitScores,
)

TRIED = Tried(
    passes=({"pass": "widen", "node": "a", "by": 4},), map=False, predicted_gain=0.1, measured_gain=None,
    gain_error=0.01, amplitude=0.5, parameters=12, outcome="no gain",
    small=AtAmplitude(amplitude=0.01, predicted=0.001, measured=0.002),
)  # fmt: skip
GROWTH = Growth(
    branch="whole", step=2, policy="dag", what="a wider by 4", passes=({"pass": "widen", "node": "a", "by": 4},),
    created=("b",), candidates=3, chosen=(Chosen(name="a", parameters=4, macs=4, gain=0.1, error=0.02),),
    predicted_gain=0.1, measured_gain=0.2, gain_error=0.01, before={"train": {"loss": 1.0}},
    after={"train": {"loss": 0.5}, "selection": {"loss": None}}, parameters_before=8, parameters=12, macs_before=8,
    macs=12, hash="3e65", seconds=0.5,
    units=(UnitScores(space="a", kind="split", gains=(0.1, None, -0.02), chosen=(0,), ordinal=False),),
    notes=Measured(amplitude=0.5, probation=True, tried=(TRIED,)).to_json(),
)  # fmt: skip
FITTED = Fitted(branch="whole", parameters=12, loss=0.5, loss_error=0.1, step=2, ended="steps", selection={"loss": 0.5})
EXAMPLES: list[Event] = [
    Started(name="a run", seed=0, threads=1, task="regression", samples=9, sample_shape=(1, 8, 8), held_out=0.2),
    InputsChosen(variance=0.9, inputs=30, tried=(Inputs(variance=0.9, inputs=30, width=4, loss=0.5, loss_error=0.1),)),
    GROWTH,
    Trained(step=2, branch="whole", train_loss=0.5, selection_loss=0.6, train={"loss": 0.5}, selection={"mse": None}),
    Skipped(step=1, policy="firefly", spaces={"head": "its width 10 is pinned by head (graph output)"}),
    Recalibrated(step=2, when="after", batches=30, selection_loss=0.6),
    Undone(step=2, reason="no gain"),
    Ended(step=1, reason="parameters", why="the cheapest candidate adds 46 parameters where 12 are left"),
    FITTED,
    Sized(
        branch="whole", step=2, parameters=12,
        points=(Point(branch="whole", step=2, parameters=12, loss=0.5, loss_error=0.1, behind=0.0, behind_error=0.0,
                      chosen=True),),
    ),
    Timed(step=2, epochs=30, points=(Point(step=2, parameters=12, epochs=30, loss=0.5, chosen=True),)),
    Selected(
        branch="whole", tried=(FITTED,), significance=0.05, why="it is better",
        compared=(Compared(branch="whole", against="widen", gain=0.1, gain_error=0.01, p=0.001, better=True),),
    ),
    Finished(name="a run", test_after_fit={"accuracy": 0.5}, reproducible=True, phases={"growing": {"joules": None}}),
    Interrupted(hash="3e65"),
    Other(found={"event": "of a later version", "record": 1, "step": 3}),
]  # fmt: skip


def test_every_kind_has_an_example_and_a_name_of_its_own() -> None:
    assert {type(event) for event in EXAMPLES} == {*KINDS.values(), Other}
    defined = {kind for kind in vars(records).values() if isinstance(kind, type) and issubclass(kind, Event)}
    assert defined == {*KINDS.values(), Other, Event}
    assert all(kind.event == name for name, kind in KINDS.items())


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: event.event)
def test_a_line_gives_its_record_back(event: Event) -> None:
    line = json.dumps(event.to_json(), allow_nan=False)
    assert read_event(json.loads(line)) == event
    with pytest.raises(FrozenInstanceError):
        event.branch = "other"  # type: ignore[misc]


@pytest.mark.parametrize("event", EXAMPLES[:-1], ids=lambda event: event.event)
def test_a_line_says_what_it_is(event: Event) -> None:
    found = event.to_json()
    assert list(found)[:2] == ["event", "record"]
    assert (found["event"], found["record"]) == (event.event, event.version)
    names = {each.name for each in fields(event)}
    assert names - {"branch", "notes"} <= found.keys() <= names | {"event", "record"}
    assert ("branch" in found) == (event.branch is not None)


def test_notes_are_left_out_where_there_are_none() -> None:
    assert not {"notes", "units"} & replace(GROWTH, notes={}, units=()).to_json().keys()
    assert "notes" in GROWTH.to_json()


def test_the_notes_of_a_policy_that_measures() -> None:
    assert GROWTH.measured.tried == (TRIED,)
    assert (GROWTH.probation, GROWTH.measured.amplitude) == (True, 0.5)
    other = replace(GROWTH, notes={"temperature": 3})
    assert (other.probation, other.measured) == (False, Measured())
    assert read_event(other.to_json()) == other  # what a policy notes is kept, whatever it is


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    line = GROWTH.to_json() | {"record": 9, "surprise": {"a": 1}, "seconds": "short"}
    assert read_event(line) == replace(GROWTH, seconds=None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
KEYS = sorted({key for event in EXAMPLES for key in event.to_json()} - {"event"})


@given(st.sampled_from([*KINDS, "later"]), st.dictionaries(st.sampled_from([*KEYS, "pass", "tried"]), JSON, max_size=4))
def test_whatever_stands_in_a_line_can_be_read(kind: str, values: dict[str, Any]) -> None:
    event = read_event({**values, "event": kind})
    assert event is not None
    log = RunLog.of([event])
    json.dumps(log.to_json())
    again = read_event(event.to_json())
    assert again == event


@pytest.mark.parametrize("found", [3, None, [], {}, {"event": 3}, {"event": None}, "growth"])
def test_what_is_no_event(found: object) -> None:
    assert read_event(found) is None
