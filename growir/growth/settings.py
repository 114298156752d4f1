"""The settings of a run by name: which there are, and what the command line says of them.

--set train.epochs_final=20    {"train": {"epochs_final": 20}}
--set epochs_final=20          the same, since no other section has such a key
--set activation=[relu,tanh]   {"policy": {"activation": ["relu", "tanh"]}}: words stand without quotes
--budget 5000                  {"budget": {"parameters": 5000}}, a spelling of --set budget.parameters=5000
"""

from __future__ import annotations

import inspect
import itertools
import re
import textwrap
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from pydantic import BaseModel

from growir.errors import Problem, RunError, cut, listed
from growir.growth.config import SECTIONS, RunConfig, checked_run, section_models
from growir.nearest import one_of, suggestion

WIDTH = 80
_HEAD = """\
Settings of a run: KEY=DEFAULT, or KEY alone where the default depends on
something, and what it means. In a run file they stand as KEY = VALUE, below
their [SECTION]; on the command line as --set SECTION.KEY=VALUE, or without the
section where only one has such a key.
"""
# What was typed, as a message repeats it, and the KEY=VALUE that it means.
Typed = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting of a run.

    Attributes:
        section: Of the run file; empty for those above the first.
        key: Within it.
        default: None where it depends on something.
        about: All that is said of it.
        of: What the section's `name` must be for it to hold; empty where the section has no name.
    """

    section: str
    key: str
    default: object
    about: str
    of: str = ""

    @property
    def name(self) -> str:
        """As `--set` takes it."""
        return f"{self.section}.{self.key}" if self.section else self.key

    @property
    def summary(self) -> str:
        """The first sentence of what is said, and where there is no one default the sentence that says how it comes."""
        first, *others = re.split(r"(?<=\.) (?=[A-Z])", self.about)
        by_default = [each for each in others if each.startswith("By default") and not self.default]
        return " ".join([first, *by_default])


@cache
def all_settings() -> tuple[Setting, ...]:
    """Every setting, in the order of a run file; of a section whose name decides what else it takes, those of each."""
    found = [each for each in _settings_of("", RunConfig) if each.key not in SECTIONS]
    for section in SECTIONS:
        for name, model in section_models(section).items():
            found += _settings_of(section, model, name)
    return tuple(found)


def _settings_of(section: str, model: type[BaseModel], of: str = "") -> Iterator[Setting]:
    said: dict[str, str] = {}
    for kind in reversed(model.__mro__):  # a model says no more than what is its own
        said |= attributes(inspect.cleandoc(kind.__doc__ or ""))
    for key, field in model.model_fields.items():
        yield Setting(section, key, field.default, said.get(key, ""), of)


def attributes(docstring: str) -> dict[str, str]:
    """What a docstring says under "Attributes", by name, each on one line."""
    _, _, text = docstring.partition("\nAttributes:\n")
    entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", text, re.MULTILINE)
    return {name: " ".join(said.split()) for name, said in entries}


def read_settings(typed: Sequence[Typed]) -> dict[str, Any]:
    """What was typed as a decoded run file. Raises RunError naming all that is wrong, as it was typed."""
    kinds: dict[str, list[str]] = {}
    for setting in all_settings():
        kinds.setdefault(setting.name, []).append(setting.of)
    names = list(kinds)
    given: dict[str, str] = {}
    found: dict[str, Any] = {}
    problems: list[Problem] = []
    for said, text in typed:
        key, equals, value = text.partition("=")
        matches = _meant(full_names(key.strip(), names))
        if not equals:
            problem = "there is no = in it; give a setting and its value, as in --set seed=3"
        elif not matches:
            near = suggestion(key.strip(), [*names, *(name.rpartition(".")[2] for name in names)])
            problem = f"there is no setting {cut(key.strip())!r}.{near} For the list: growir grow --settings"
        elif len(matches) > 1:
            problem = f"{key.strip()} may be {one_of(matches)}; give its section too"
        elif matches[0] in given:
            problem = f"{matches[0]} is given by {given[matches[0]]} already; leave one of them out"
        else:
            section, _, last = matches[0].rpartition(".")
            given[matches[0]] = cut(said)
            reading, wrong = _read_value(section, last, value, kinds[matches[0]])
            problems += [Problem(cut(said), str(each)) for each in wrong]
            (found.setdefault(section, {}) if section else found)[last] = reading
            continue
        problems.append(Problem(cut(said), problem))
    if problems:
        raise RunError(listed(problems, "", "wrong settings"))
    return found


def full_names(key: str, names: Iterable[str]) -> list[str]:
    """The names that a key may mean: itself, or those of all sections that have it."""
    found = list(names)
    return [key] if key in found else [name for name in found if "." in name and name.partition(".")[2] == key]


def _meant(names: list[str]) -> list[str]:
    """Without those of [optimizer] where [train] has the same: it has had them from the first."""
    later = [name for name in names if name.startswith("optimizer.") and name.replace("optimizer", "train", 1) in names]
    return [name for name in names if name not in later]


def _read_value(section: str, key: str, text: str, kinds: Sequence[str]) -> tuple[object, list[Problem]]:
    """A value in the first reading that the setting takes; if it takes none, the first, and what is wrong with it.

    Args:
        section: Of the run file.
        key: Within it.
        text: What was typed.
        kinds: The names of the section with which it has the setting.
    """
    readings = list(_readings(text))
    found: list[list[Problem]] = []
    for of, reading in itertools.product(kinds, readings):
        named = {"name": of} if of and key != "name" else {}
        checked = checked_run({section: {**named, key: reading}} if section else {key: reading})
        if isinstance(checked, RunConfig):
            return reading, []
        found.append(checked)
    return readings[0], found[0]


def _readings(text: str) -> Iterator[object]:
    """What a text may mean: what it is in TOML, a list of words, and itself: a run may be named 2026.

    Last, without the blanks around it, and with its escapes: a separator may be typed as "\\t".
    """
    bare = text.strip()
    if re.fullmatch(r"[+-]?\.\d+", bare):  # many people type a half so; TOML wants 0.5
        yield float(bare)
    values = _toml_values(text)
    if values is not None and len(values) == 1:
        yield values[0]
    if re.fullmatch(r"\[[^][{}\"']*\]", bare):
        words = [word.strip() for word in bare[1:-1].split(",")]
        yield [values[0] if (values := _toml_values(word)) else word for word in words]
        yield words
    yield text
    yield bare
    yield from _toml_values(f'"{text}"') or ()


def _toml_values(text: str) -> list[object] | None:
    """The values in a TOML list of this text, None if that is no list. A # is no comment: it would hide the bracket."""
    try:
        found = tomllib.loads(f"x = [{text}]")
    except (ValueError, RecursionError):
        return None
    return cast("list[object]", found["x"]) if set(found) == {"x"} else None


def settings_page() -> str:
    """How settings are made, and all there are with their defaults and what they mean, in lines of 80 characters."""
    settings = all_settings()
    heads = [f"  {setting.key}{_assigned(setting.default)}  " for setting in settings]
    margin = max(map(len, heads))
    lines, before = [_HEAD], settings[0]
    for setting, head in zip(settings, heads):
        if setting.section != before.section:
            lines += ["", f"[{setting.section}]"]
        elif setting.of != before.of:
            lines += ["", f"[{setting.section}] with another name"]
        before = setting
        wrapped = textwrap.wrap(
            setting.summary, WIDTH, initial_indent=head.ljust(margin), subsequent_indent=" " * margin
        )
        lines += wrapped
    return "\n".join(lines) + "\n"


def _assigned(default: object) -> str:
    """A default behind its key, as one would type it; nothing where it depends."""
    if isinstance(default, bool):
        return f"={default}".lower()
    if isinstance(default, tuple):
        return f"=[{','.join(map(str, cast('tuple[object, ...]', default)))}]"
    if isinstance(default, BaseModel):
        default = getattr(default, "name", None)
    return "" if default in (None, "") else f"={default}"
