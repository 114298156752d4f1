"""Policies by name: those that come with growir, those of installed packages, and any class by where it stands."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any, Literal, cast

from pydantic import SerializeAsAny, ValidationError, ValidationInfo, field_validator

from growir.errors import RunError, cut
from growir.fields import field_problems
from growir.growth.naming import is_named, named
from growir.growth.policy import Policy, PolicySettings, settings_of
from growir.names import allot
from growir.nearest import suggestion

GROUP = "growir.policies"
DEFAULT = "dag"  # where growth begins from nothing
GIVEN = "random"  # where it begins from a network: experiments/cifar has what was measured
CONTEST = "contest"
METHODS = ("propose", "score", "select", "build")
_DEFAULT_SETTINGS = "growir.growth.policies.dag.settings:DagConfig"
_OURS = {
    "dag": "growir.growth.policies.dag.policy:Dag",
    "random": "growir.growth.policies.random:RandomWidth",
    "net2net": "growir.growth.policies.net2net:Net2Net",
    "prune": "growir.growth.policies.prune:Pruning",
    "firefly": "growir.growth.policies.firefly:Firefly",
    "gradmax": "growir.growth.policies.gradmax:GradMax",
    "gauss_newton": "growir.growth.policies.gauss_newton:GaussNewton",
    "learnable": "growir.growth.policies.learnable:Learnable",
    "nash": "growir.growth.policies.nash:Nash",
    "tiny": "growir.growth.policies.tiny:Tiny",
    "autogrow": "growir.growth.policies.autogrow:AutoGrow",
    "turns": "growir.growth.policies.turns:Turns",
    "splitting_descent": "growir.growth.policies.splitting_descent:SplittingDescent",
}


Known = Mapping[str, type[PolicySettings]]  # the settings of policies that were given as classes or objects, by name


def policy_names() -> list[str]:
    """The names of all policies that are known here."""
    return sorted({*_OURS, *(point.name for point in entry_points(group=GROUP))})


def registered(name: str) -> bool:
    """Whether a policy of this name comes with growir or an installed package."""
    return name in policy_names()


def class_at(place: str) -> object | None:
    """What an imported module has at "package.module:Class"; None where it has nothing there."""
    module, _, names = place.partition(":")
    found: object = sys.modules.get(module)
    for name in names.split("."):
        found = getattr(found, name, None)
    return found


def policy_class(name: str) -> type[Policy]:
    """The class of a policy.

    Args:
        name: As run files have it, or "package.module:Class".

    Raises:
        RunError: There is none of this name, or it cannot be imported or is no policy.
    """
    if name == CONTEST:
        raise RunError('"contest" is no policy; it holds several, policy = ["random", "dag"]')
    if name in _OURS:
        return checked_class(_named(_OURS[name]), name)
    if ":" in name:
        return checked_class(_named(name), cut(name))
    points = [point for point in entry_points(group=GROUP) if point.name == name]
    if not points:
        known = ", ".join(policy_names())
        raise RunError(
            f'there is no policy {cut(name)!r}; there are {known}, and any class as "package.module:Class".'
            f"{suggestion(name, policy_names())}"
        )
    values = sorted({point.value for point in points})
    if len(values) > 1:
        raise RunError(
            f"installed packages have {len(values)} policies called {cut(name)!r}: {' and '.join(values)}; give the "
            "one that is meant by its place"
        )
    try:
        found: object = points[0].load()
    except (ImportError, AttributeError) as error:
        raise RunError(
            f"the policy {cut(name)!r} is {values[0]}, which cannot be imported: {error}; mend the package that has it"
        ) from None
    return checked_class(found, cut(name))


def checked_class(found: object, name: str) -> type[Policy]:
    """A class of policies. Raises RunError, saying what it lacks, if it is none."""
    if not isinstance(found, type):
        raise RunError(
            f"the policy {name!r} must be a class, with name, Settings, {', '.join(METHODS)}, but it is of "
            f"{cut(type(found).__name__)}"
        )
    lacking = [part for part in ("name", "Settings", *METHODS) if not hasattr(found, part)]
    if lacking:
        raise RunError(f"the policy {name!r} lacks {', '.join(lacking)}; docs/policies.md says what each is")
    settings: object = getattr(found, "Settings", None)
    if not (isinstance(settings, type) and issubclass(settings, PolicySettings)):
        raise RunError(f"the policy {name!r}: its Settings must be a subclass of growir.growth.policy.PolicySettings")
    _check_name(getattr(found, "name", None), name)
    return cast("type[Policy]", found)


def checked_policy(found: object) -> Policy:
    """An object that is a policy. Raises RunError, saying what it lacks, if it is none."""
    shown = cut(type(found).__name__)
    lacking = [part for part in ("name", *METHODS) if not hasattr(found, part)]
    if lacking:
        raise RunError(
            f"policy: a name, settings, or a policy is needed, but what is given is of {shown}, which lacks "
            f"{', '.join(lacking)}; docs/policies.md says what each is"
        )
    _check_name(getattr(found, "name", None), shown)
    return cast("Policy", found)


def _check_name(own: object, shown: str) -> None:
    """Raise RunError unless a policy's `name` can stand in a run file."""
    if not (isinstance(own, str) and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]{0,59}", own)) or own == CONTEST:
        raise RunError(
            f"the policy {shown!r}: its name must be a word of at most 60 letters, digits, - and _, and not "
            f'"contest", but it is {cut(repr(own))}'
        )


def _named(name: str) -> object:
    """What stands at "package.module:Class". Raises RunError if nothing does."""
    if not is_named(name):
        raise RunError(f'{cut(name)!r} is no place of a class; one is "package.module:Class"')
    return named(name, "policy")


def settings_class(section: Mapping[str, Any], known: Known | None = None) -> type[PolicySettings]:
    """The class of settings that a [policy] section is read by. Raises RunError if there is no such policy."""
    name = section.get("name", DEFAULT)
    if not isinstance(name, str):
        raise RunError(f"a policy's name is needed, but it is {cut(repr(name))}")
    if known and name in known:
        return known[name]
    if name == DEFAULT:  # read before any policy is: a policy's file knows the session, which knows the configuration
        return cast("type[PolicySettings]", _named(_DEFAULT_SETTINGS))
    return ContestSettings if name == CONTEST else settings_of(policy_class(name))


class SeveralSettings(PolicySettings):
    """What is told of several policies in one run.

    Attributes:
        policies: The policies, by name or with their settings.
    """

    policies: tuple[SerializeAsAny[PolicySettings], ...]

    @field_validator("policies", mode="before")
    @classmethod
    def _read(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, list | tuple) or not value:
            raise ValueError('a list of policies is needed, such as ["random", "dag"]')
        return tuple(_settings_of(each, info.context) for each in cast("Sequence[object]", value))

    @property
    def select_share(self) -> float:
        return max(each.select_share for each in self.policies)

    def most_parameters(self, samples: int, inputs: int, outputs: int, tried: bool) -> int | None:
        found = [each.most_parameters(samples, inputs, outputs, tried) for each in self.policies]
        return next((most for most in found if most is not None), None)

    @property
    def reads_maps(self) -> bool:
        return any(each.reads_maps for each in self.policies)


class ContestSettings(SeveralSettings):
    """Several policies from one start, of which the one that ends best goes on: policy = ["random", "dag"].

    Attributes:
        name: A contest.
        policies: The policies, by name or with their settings, the simplest first. A later one must be better by more
            than chance.
    """

    name: Literal["contest"] = "contest"

    def contestants(self) -> Sequence[tuple[str | None, PolicySettings]]:
        found: list[tuple[str | None, PolicySettings]] = []
        if len(self.policies) == 1:
            return self.policies[0].contestants()
        for each in self.policies:
            for name, settings in each.contestants():
                taken = [known for known, _ in found if known is not None]
                found.append((short_name(each, taken, f"-{name}" if name else ""), settings))
        return found


def short_name(settings: PolicySettings, taken: Sequence[str], more: str = "") -> str:
    """What one of several policies is called in a run, other than those that are taken."""
    stem = settings.name.rpartition(":")[2] + more
    return allot(stem, taken) if stem in taken else stem


def _settings_of(given: object, known: Known | None) -> PolicySettings:
    """The settings of one policy of a contest. Raises ValueError, which says what is wrong."""
    if isinstance(given, PolicySettings):
        return given
    section = {"name": given} if isinstance(given, str) else given
    if not isinstance(section, dict):
        raise ValueError(f"a policy is a name or a table with a name, but {cut(repr(given))} is given")
    named = {"name": DEFAULT, **cast("dict[str, Any]", section)}
    try:
        model = settings_class(named, known)
    except RunError as error:
        raise ValueError(str(error)) from None
    try:
        return model.model_validate(named)
    except ValidationError as error:
        raise ValueError("; ".join(str(each) for each in field_problems("", named["name"], error, model))) from None
