"""Policies that are given to `growir.grow` as classes or objects, and the settings that stand for them in a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from growir.errors import RunError, cut
from growir.growth.policy import Policy, PolicySettings, name_of, settings_of
from growir.growth.registry import Known, checked_class, checked_policy, class_at, policy_class, registered


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """The policies of a run that did not come by name.

    Attributes:
        objects: Policies that are made already, each with the settings that stand for it.
        kinds: Classes by the name of their settings; one is made for each run.
    """

    objects: Sequence[tuple[PolicySettings, Policy]] = ()
    kinds: Mapping[str, type[Policy]] = field(default_factory=dict[str, type[Policy]])

    @property
    def known(self) -> Known:
        """The settings of all of them by name, with which the section of a run file is read."""
        objects = {settings.name: type(settings) for settings, _ in self.objects}
        return objects | {name: settings_of(kind) for name, kind in self.kinds.items()}

    def policy(self, settings: PolicySettings) -> Policy:
        """The policy that settings mean. Raises RunError if there is none."""
        for own, policy in self.objects:
            if own == settings:
                return policy
        kind = self.kinds.get(settings.name) or policy_class(settings.name)
        return kind(settings)


def given_policy(given: object) -> tuple[Any, Given]:
    """The section of a run file that stands for what was given as policy, and the policies themselves.

    Args:
        given: A name, settings, a class, an object, or a list of those.

    Raises:
        RunError: It is none of those, or two objects of a list cannot be told apart.
    """
    if not isinstance(given, list | tuple):
        return _one(given)
    each = [_one(one) for one in cast("Sequence[object]", given)]
    objects: list[tuple[PolicySettings, Policy]] = []
    kinds: dict[str, type[Policy]] = {}
    for _, found in each:
        for settings, policy in found.objects:
            if any(own == settings for own, _ in objects):
                raise RunError(
                    f"policy: two objects of the list are called {cut(settings.name)!r} and have the same settings, so "
                    "that a run that goes on could not tell them apart; give each class a name of its own"
                )
            objects.append((settings, policy))
        for name, kind in found.kinds.items():
            if kinds.setdefault(name, kind) is not kind:
                raise RunError(f"policy: two classes of the list are called {cut(name)!r}; give each a name of its own")
    return [section for section, _ in each], Given(objects, kinds)


def _one(given: object) -> tuple[Any, Given]:
    if isinstance(given, str | Mapping | PolicySettings):
        return cast("object", given), Given()
    if isinstance(given, type):
        kind = checked_class(given, cut(given.__name__))
        settings = settings_of(kind)()
        if not settings.name:
            settings = settings.model_copy(update={"name": place_of(kind)})
        return settings, Given(kinds={settings.name: kind})
    policy = checked_policy(given)
    own = getattr(policy, "settings", None)
    # Without settings nothing is known of how it was made, so that only the object itself can go on with its run.
    settings = own if isinstance(own, PolicySettings) else PolicySettings(name=policy.name)
    if not settings.name:
        settings = settings.model_copy(update={"name": place_of(type(policy))})
    return settings, Given(objects=[(settings, policy)])


def place_of(kind: type[Policy]) -> str:
    """What a run file calls a class of policies: a registered name, else "module:Class", else its own name.

    The last only where no other process could import it, as of a class that a script or a function defines.
    """
    if registered(name_of(kind)) and policy_class(name_of(kind)) is kind:
        return name_of(kind)
    place = f"{kind.__module__}:{kind.__qualname__}"
    return place if kind.__module__ != "__main__" and class_at(place) is kind else name_of(kind)
