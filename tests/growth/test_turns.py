"""Policies that take turns: whose turn it is, what each reads of the log, and that a run goes on where it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import strategies as st

import growir
from growir.errors import RunError
from growir.families import family_of
from growir.growth.budget import Budget
from growir.growth.config import parse_run
from growir.growth.policies.random import RandomWidth
from growir.growth.policies.turns import Turns, TurnsSettings
from growir.growth.policy import Candidate, Score
from growir.growth.schedule import Entry, Log, Periodic
from growir.growth.session import Session
from growir.runs.records import Growth
from growir.stages import stages_of
from growir.testing import policy_law
from tests.growth.test_autogrow import SHORT, blocks, images

HERE = "tests.growth.test_turns"
DEEP: Mapping[str, Any] = {"name": "autogrow", "width": 2}


class Never(RandomWidth):
    """Offers units and chooses none."""

    name: ClassVar[str] = "never"

    def select(self, session: Session, scores: Sequence[Score], budget: Budget) -> list[Score]:
        return []


class Watching(RandomWidth):
    """Counts the phases of training that it surrounds, and their steps."""

    name: ClassVar[str] = "watching"
    phases: ClassVar[int] = 0
    steps: ClassVar[int] = 0

    @contextmanager
    def around(self, session: Session) -> Iterator[None]:
        Watching.phases += 1
        yield

    def after_step(self, session: Session) -> None:
        Watching.steps += 1

    def describe(self, session: Session) -> Mapping[str, Any]:
        return {"dead_units": 7}


def run(*policies: object, **more: Any) -> tuple[list[str], growir.growth.observer.GrowthResult]:
    """What was chosen in each growth, the first candidate of it, and the run."""
    settings: dict[str, Any] = {**SHORT, "budget": {"steps": 6, "parameters": 30_000, "per_growth": {"share": 1.0}}}
    settings["schedule"] = {"epochs": 1, "trials": 0}
    found = growir.grow(None, images(), policy={"name": "turns", "policies": list(policies)}, **{**settings, **more})
    return [str(event.chosen[0].name) for event in found.events if isinstance(event, Growth)], found


def test_depth_and_width_grow_in_one_run_and_stages_stay_whole() -> None:
    chosen, found = run({**DEEP, "by": 0.0}, "firefly")
    assert [name.partition(" ")[0] for name in chosen] == ["autogrow:", "firefly:"] * 3
    assert chosen[::2] == ["autogrow: stage1", "autogrow: stage2", "autogrow: stage3"]
    graph = found.network.graph
    assert str(family_of(graph)) == "Basic3ResNet-2-2-2"
    grown = {step.node for event in found.events if isinstance(event, Growth) for step in widened(event)}
    assert any(name.startswith("stage") for name in grown), "what is wide inside of blocks has grown"
    assert graph.costs().parameters <= 30_000


def widened(event: Growth) -> Iterator[Any]:
    for each in event.passes:
        if each["pass"] == "widen":
            yield growir.passes.Widen(node=each["node"], by=each["by"])


def test_who_finds_nothing_is_passed_over() -> None:
    # Nothing can gain as much as 2.0, so that each stage is closed at the first look.
    chosen, _ = run({**DEEP, "window": 1, "by": 2.0}, "random", budget={"steps": 8, "parameters": 30_000})
    assert [name.partition(":")[0] for name in chosen] == [*["autogrow", "random"] * 3, "random", "random"]
    chosen, found = run(f"{HERE}:Never", {**DEEP, "by": 0.0})
    assert [name.partition(":")[0] for name in chosen] == ["autogrow"] * 6
    assert found.summary["ended"] == "steps"
    chosen, found = run(DEEP, f"{HERE}:Never", budget={"steps": 3, "parameters": 1330})
    assert (chosen, found.summary["ended"]) == ([], "parameters")


def test_where_nobody_chooses_growth_ends() -> None:
    start = run({**DEEP, "by": 0.0}, "random", budget={"steps": 1})[1].network
    policy = {"name": "turns", "policies": [f"{HERE}:Never", f"{HERE}:Never"]}
    found = growir.grow(start, images(), policy=policy, **{**SHORT, "schedule": {"fit": False}})
    assert found.summary["ended"] == "no gain"


def test_a_stage_that_has_shrunk_stays_closed_whatever_others_bring() -> None:
    deep = {**DEEP, "window": 1, "by": 2.0, "shrink": True}
    chosen, found = run(deep, "random", budget={"steps": 8, "parameters": 30_000})
    names = [name.partition(":")[0] if name.startswith("random") else name for name in chosen]
    each = [[f"autogrow: stage{k}"] * 2 + ["random"] for k in (1, 2, 3)]
    assert names == [*(name for some in each for name in some), "random", "random"]
    assert [stage.depth for stage in stages_of(found.network.graph)] == [1, 1, 1]


def test_each_reads_what_it_did_itself() -> None:
    turns = Turns(TurnsSettings.model_validate({"policies": ["autogrow", "random", "autogrow"]}))
    assert turns.names == ["autogrow", "random", "autogrow_1"]
    trained = Entry("trained", 1, {"loss": 1.0})
    log = Log(
        (
            Entry("started"),
            Entry("growth", chosen=("autogrow: stage: 1",)),
            trained,
            Entry("trimmed", chosen=("autogrow: stage: 1",)),
            Entry("growth", chosen=("random: a", "random: b")),
            trained,
        )
    )
    own = turns.log_of(log, 0)
    assert [(entry.what, entry.chosen) for entry in own.entries] == [
        ("started", ()),
        ("growth", ("stage: 1",)),
        ("trained", ()),
        ("trimmed", ("stage: 1",)),
        ("trained", ()),
    ]
    assert [entry.chosen for entry in turns.log_of(log, 1).entries if entry.what == "growth"] == [("a", "b")]
    assert turns.log_of(log, 2).count("growth") == 0


def test_whoever_surrounds_training_does_so_and_tells() -> None:
    Watching.phases = Watching.steps = 0
    _, found = run({**DEEP, "by": 0.0}, f"{HERE}:Watching", budget={"steps": 2})
    assert Watching.phases == 4  # before, between and behind two growths, and the fit
    assert Watching.steps > Watching.phases
    assert found.summary["dead_units"] == 7


def test_settings_are_of_all() -> None:
    policy = parse_run({"policy": {"name": "turns"}}, "x").policy
    assert isinstance(policy, TurnsSettings)
    assert [each.name for each in policy.policies] == ["autogrow", "firefly"]
    assert parse_run({"policy": {"name": "turns"}}, "x").schedule == Periodic(epochs=3, window=0)
    assert not policy.ends_growth
    assert policy.reads_maps
    both = parse_run({"policy": {"name": "turns", "policies": ["autogrow"]}}, "x").policy
    assert both.ends_growth


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        ([], 'a list of policies is needed, such as ["random", "dag"]'),
        (["random", "turns"], "'turns' is several policies, and each that takes turns is one"),
        ([["random"], "firefly"], "a policy is a name or a table with a name"),
        (["autogro"], "Did you mean 'autogrow'"),
        ([{"name": "autogrow", "window": -1}], "window is -1"),
        (["random", "firefly"], "policy turns: random, firefly grow a network that is there, but none is given"),
        ([DEEP, {"name": "dag", "strategy": "widen"}], "policy turns: dag takes a growth back"),
        ([{**DEEP, "stages": ["stage9"]}, "random"], "there is no stage 'stage9' in the network"),
    ],
)
def test_what_cannot_be_is_refused(policies: list[Any], message: str) -> None:
    with pytest.raises(RunError) as refused:
        growir.grow(None, images(), policy={"name": "turns", "policies": policies}, budget={"parameters": 30_000})
    assert message in str(refused.value)


BOTH = {"policies": [{"name": "autogrow", "initialiser": "zero", "window": 0, "shrink": True}, "random"]}
test_law = policy_law(Turns, settings=BOTH, graphs=st.builds(blocks, st.integers(2, 3), st.integers(1, 3)))
test_law_of_one_that_remembers = policy_law(Turns, settings={"policies": ["random", {"name": "prune"}]})


def test_numbers_are_the_same_again() -> None:
    """Firefly keeps what it measured between its methods; a turn of another one in between changes nothing."""
    (one, first), (two, second) = (run({**DEEP, "by": 0.0}, "firefly", budget={"steps": 4}) for _ in range(2))
    assert one == two
    assert first.network.graph.hash == second.network.graph.hash
    for key, array in first.network.arrays.items():
        np.testing.assert_array_equal(array, second.network.arrays[key])


def test_a_candidate_is_called_by_its_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Sequence[Candidate]] = []
    real = Turns.propose

    def propose(self: Turns, session: Session, budget: Budget) -> list[Candidate]:
        seen.append(found := real(self, session, budget))
        return found

    monkeypatch.setattr(Turns, "propose", propose)
    run({**DEEP, "by": 0.0}, "random", budget={"steps": 2})
    first, second, *_ = ([each.name.partition(": ")[0] for each in candidates] for candidates in seen)
    assert (first[0], first[-1]) == ("autogrow", "random")
    assert (second[0], second[-1]) == ("random", "autogrow")
