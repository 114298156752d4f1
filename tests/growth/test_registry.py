"""Policies by name, by entry point, by place, as classes, as objects and in lists; and what is said of wrong ones."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

import pytest

import growir
from growir.errors import RunError
from growir.growth.budget import Budget
from growir.growth.config import parse_run
from growir.growth.given import Given, given_policy, place_of
from growir.growth.observer import GrowthResult
from growir.growth.policies.dag.policy import Dag
from growir.growth.policies.net2net import Net2Net, Net2NetSettings
from growir.growth.policies.random import RandomSettings, RandomWidth
from growir.growth.policy import Candidate, Policy, PolicySettings, Score
from growir.growth.registry import policy_class, policy_names
from growir.growth.running import read_config
from growir.growth.session import Session
from growir.rewrite import Pass
from tests.growth.problems import spirals
from tests.growth.test_policy_law import Wide, dense


class ByMore(Wide):
    """A policy with a setting of its own."""

    name: ClassVar[str] = "by_more"

    class Settings(PolicySettings):
        """Attributes:
        by: Units.
        """

        by: int = 1


class Bare:
    """The least that is a policy: an object with a name and four methods."""

    name = "bare"

    def propose(self, session: Session, budget: Budget) -> list[Candidate]:
        return Wide(PolicySettings()).propose(session, budget)

    def score(self, session: Session, candidates: Sequence[Candidate], key: int) -> list[Score]:
        return Wide(PolicySettings()).score(session, candidates, key)

    def select(self, session: Session, scores: Sequence[Score], budget: Budget) -> list[Score]:
        return list(scores[:1])

    def build(self, session: Session, chosen: Sequence[Score]) -> Pass:
        return Wide(PolicySettings()).build(session, chosen)


HERE = "tests.growth.test_registry"
FEW: dict[str, Any] = {
    "train": {"epochs_between": 1, "epochs_final": 1, "batch_size": 32},
    "budget": {"steps": 2, "parameters": 60},
}


def grown(policy: Any, **others: Any) -> GrowthResult:
    return growir.grow(dense(), spirals(80), policy=policy, **{**FEW, **others})


def policies_of(result: GrowthResult) -> set[str]:
    return {event.to_json()["policy"] for event in result.events if event.event == "growth"}


# -- where a policy is found ------------------------------------------------------------------------------------------


def test_ours_have_names() -> None:
    assert [policy_class(name) for name in ("dag", "random", "net2net")] == [Dag, RandomWidth, Net2Net]
    assert {"dag", "random", "net2net"} <= set(policy_names())


def test_any_class_is_found_where_it_stands() -> None:
    assert policy_class(f"{HERE}:ByMore") == ByMore
    config = parse_run({"policy": {"name": f"{HERE}:ByMore", "by": 3}}, "test")
    assert config.policy == ByMore.Settings(name=f"{HERE}:ByMore", by=3)


def test_an_installed_one_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    entries(monkeypatch, by_more=f"{HERE}:ByMore")
    assert policy_class("by_more") == ByMore
    assert "by_more" in policy_names()
    assert place_of(ByMore) == "by_more"


def entries(monkeypatch: pytest.MonkeyPatch, **places: str) -> None:
    points = [EntryPoint(name, place, "growir.policies") for name, place in places.items()]
    monkeypatch.setattr("growir.growth.registry.entry_points", lambda group: points)


class NoSettings(Wide):
    Settings = dict  # type: ignore[assignment]


class NoName(Wide):
    name = "two words"


class Half:
    name = "half"
    Settings = PolicySettings

    def propose(self) -> None: ...


number = 3


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "randm",
            r"no policy 'randm'; there are autogrow, dag, firefly, .*random.*Did you mean 'random'\?",
        ),
        ("contest", '"contest" is no policy; it holds several'),
        ("nowhere:Policy", "policy: nowhere:Policy cannot be imported .No module named 'nowhere'.; write it as"),
        (f"{HERE}:ByMor", r"policy: tests.growth.test_registry has no 'ByMor'\. Did you mean 'ByMore'\?"),
        (":ByMore", "':ByMore' is no place of a class; one is"),
        (f"{HERE}:", "is no place of a class"),
        (".relative:ByMore", "is no place of a class"),
        (f"{HERE}:number", "must be a class, with name, Settings, propose, score, select, build, but it is of int"),
        (f"{HERE}:Half", "lacks score, select, build"),
        (f"{HERE}:NoSettings", "its Settings must be a subclass of growir.growth.policy.PolicySettings"),
        (f"{HERE}:NoName", "its name must be a word of at most 60 letters, .* but it is 'two words'"),
    ],
)
def test_each_wrong_form_is_one_message(name: str, says: str) -> None:
    with pytest.raises(RunError, match=says):
        policy_class(name)
    with pytest.raises(RunError, match=r"\[policy\] name"):
        parse_run({"policy": {"name": name} if name != "contest" else {"name": 3}}, "test")


def test_entry_points_that_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    entries(monkeypatch, gone="nowhere:Policy", number=f"{HERE}:number")
    with pytest.raises(RunError, match=r"'gone' is nowhere:Policy, which cannot be imported: .*; mend the package"):
        policy_class("gone")
    with pytest.raises(RunError, match="'number' must be a class"):
        policy_class("number")


def test_two_packages_with_one_name_are_told_apart_by_place(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("mine", f"{HERE}:{kind}", "growir.policies") for kind in ("ByMore", "Wide")]
    monkeypatch.setattr("growir.growth.registry.entry_points", lambda group: points)
    with pytest.raises(RunError, match=r"installed packages have 2 policies called 'mine': .*ByMore and .*Wide"):
        policy_class("mine")


def test_a_policy_with_a_setting_it_does_not_have() -> None:
    with pytest.raises(RunError, match=r"unknown attribute 'spacs'; .* Did you mean 'spaces'"):
        parse_run({"policy": {"name": "random", "spacs": 0.5}}, "test")


# -- what growir.grow takes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "named"),
    [
        ("random", "random"),
        ({"name": "random", "spaces": 0.2}, "random"),
        (RandomWidth, "random"),
        (RandomWidth(RandomSettings(spaces=0.2)), "random"),
        (f"{HERE}:ByMore", "by_more"),
        ({"name": f"{HERE}:ByMore", "by": 2}, "by_more"),
        (ByMore, "by_more"),
        (ByMore(ByMore.Settings(by=2)), "by_more"),
        (Bare(), "bare"),
        (["random"], "random"),
        ([ByMore], "by_more"),
    ],
)
def test_every_form_grows(policy: Any, named: str) -> None:
    assert policies_of(grown(policy)) == {named}


def test_the_forms_of_one_policy_are_one_run() -> None:
    by_name, by_class, by_object = (grown(policy) for policy in ("random", RandomWidth, RandomWidth(RandomSettings())))
    assert by_name.network.graph.hash == by_class.network.graph.hash == by_object.network.graph.hash


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        (3, "a name, settings, or a policy is needed, but what is given is of int, which lacks name, propose, score"),
        (int, "the policy 'int' lacks name, Settings, propose"),
        (Bare, "the policy 'Bare' lacks Settings"),
        ([3], "is of int"),
        ([], "a list of policies is needed"),
        ([Bare(), Bare()], "two objects of the list are called 'bare' and have the same settings"),
        ({"name": ByMore}, "a policy's name is needed"),
    ],
)
def test_what_is_no_policy_is_said(policy: Any, says: str) -> None:
    with pytest.raises(RunError, match=says):
        grown(policy)


def test_two_classes_of_one_name_are_refused() -> None:
    def made() -> type[Policy]:
        class Local(Wide):
            name: ClassVar[str] = "local"

        return Local

    with pytest.raises(RunError, match="two classes of the list are called 'local'"):
        given_policy([made(), made()])


def test_objects_of_one_class_are_told_apart_by_their_settings() -> None:
    one, two = (Net2Net(Net2NetSettings(spaces=share)) for share in (0.2, 0.9))
    section, given = given_policy([one, two, {"name": "net2net", "spaces": 0.4}])
    config = parse_run({"policy": section}, "test", given.known)
    names = [name for name, _ in config.policy.contestants()]
    assert names == ["net2net", "net2net_1", "net2net_2"]
    found = [given.policy(settings) for _, settings in config.policy.contestants()]
    assert found[:2] == [one, two]
    assert isinstance(found[2], Net2Net)
    assert found[2].settings.spaces == 0.4


# -- runs that go on --------------------------------------------------------------------------------------------------


def test_a_run_directory_says_where_a_class_stands(tmp_path: Path) -> None:
    grown(ByMore(ByMore.Settings(by=2)), out=tmp_path / "run")
    config = read_config(tmp_path / "run")
    assert config.policy == ByMore.Settings(name=f"{HERE}:ByMore", by=2)
    assert grown({"name": f"{HERE}:ByMore", "by": 2}, out=tmp_path / "run", resume=True).summary["steps"] == 2


def test_an_object_that_no_name_leads_to_goes_on_where_it_is_given_again(tmp_path: Path) -> None:
    first = grown(Bare(), out=tmp_path / "run")
    assert grown(Bare(), out=tmp_path / "run", resume=True).network.graph.hash == first.network.graph.hash
    with pytest.raises(
        RunError, match=r"the policy of this run is 'bare', which has no such name here: .* give it again"
    ):
        grown("random", out=tmp_path / "run", resume=True)


def test_a_class_of_a_script_has_only_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ByMore, "__module__", "__main__")
    assert place_of(ByMore) == "by_more"
    monkeypatch.undo()
    assert place_of(ByMore) == f"{HERE}:ByMore"
    assert HERE in sys.modules


def test_given_policies_are_made_once_for_each_run() -> None:
    given = Given(kinds={"by_more": ByMore})
    settings = ByMore.Settings(name="by_more")
    assert given.policy(settings) is not given.policy(settings)
