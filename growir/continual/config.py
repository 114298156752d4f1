"""What a sequence of tasks is told in a run file: data, tasks, network, method.

network = "perceptron"
[data]
path = "digits"
[tasks]
each = 2
[method]
name = "grown"
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self, cast

from pydantic import Field, SerializeAsAny, ValidationError, model_validator

from growir.continual.experiences import Label
from growir.continual.fitting import FitSettings
from growir.continual.learning import METHODS
from growir.continual.scenarios import Scenario
from growir.errors import GrowirError, Problem, RunError, cut, listed
from growir.families import family
from growir.fields import field_problems
from growir.growth.config import MAX_PATH, MAX_THREADS, DataConfig
from growir.growth.naming import is_named
from growir.growth.sections import MOST, Count, FolderName, Section, Whole, Word, run_file
from growir.nearest import alternatives, neighbours

PERCEPTRON = "perceptron"
SECTIONS = ("data", "tasks", "method")


class TasksConfig(Section):
    """Which tasks there are; one of `classes`, `each` and `permuted` says it.

    Attributes:
        classes: The labels of each task's classes, in order.
        each: So many classes to a task, in the order of their labels; the last task may have fewer, but two.
        permuted: So many tasks of all classes. The first is the data as it is, each other has the inputs of a sample in
            an order of its own.
        names: Of the tasks. By default their classes, or "permuted 1" and so on.
        shuffle: Draws the order of the tasks by this number. By default they come as they are told.
        scenario: "task" where a sample says which task it is of, "class" where it does not.
    """

    classes: Annotated[tuple[Annotated[tuple[Label, ...], Field(min_length=2)], ...], Field(min_length=1)] | None = None
    each: Annotated[int, Field(strict=True, ge=2, le=MOST)] | None = None
    permuted: Annotated[int, Field(strict=True, ge=1, le=1000)] | None = None
    names: tuple[Word, ...] | None = None
    shuffle: Whole | None = None
    scenario: Scenario = "task"

    @model_validator(mode="after")
    def _told_once(self) -> Self:
        if sum(each is not None for each in (self.classes, self.each, self.permuted)) > 1:
            raise ValueError("one of classes, each and permuted says which tasks there are; leave the others out")
        return self


class ContinualConfig(Section):
    """One sequence of tasks.

    Attributes:
        name: Of the folder; a file's name.
        network: What learning begins from: "perceptron", of two layers, a name such as Basic3ResNet-1-1-1, a network's
            folder, a document (.json), or "package.module:function", which gives a network or a graph. Those growir
            makes take one mean from all numbers and divide them by one std; the others read the data as it is.
        width: Of the perceptron's layers, by default 16, or of the first stage.
        seed: Everything random is a function of it.
        threads: Of torch. By default torch's choice. Results are the same to the bit only at one number.
        onnx: Whether each task's network is written for ONNX Runtime too.
    """

    name: FolderName = "tasks"
    network: Annotated[str, Field(max_length=MAX_PATH)] = PERCEPTRON
    width: Count | None = None
    seed: Annotated[int, Field(strict=True, ge=0, le=MOST)] = 0
    threads: Annotated[int, Field(strict=True, gt=0, le=MAX_THREADS)] | None = None
    onnx: bool = True
    data: DataConfig = DataConfig()
    tasks: TasksConfig = TasksConfig()
    method: Word = "grown"
    settings: SerializeAsAny[FitSettings] = Field(default_factory=FitSettings)

    def to_toml(self) -> str:
        """The run file that gives this configuration."""
        data = self.model_dump(mode="json", exclude_none=True)
        settings = data.pop("settings")
        return run_file({**data, "method": {"name": self.method, **settings}})


def parse_sequence(data: Mapping[str, Any], source: str) -> ContinualConfig:
    """The configuration that decoded TOML gives. Raises RunError with all that is wrong."""
    problems: list[Problem] = []
    rest, found = dict(data), dict[str, Any]()
    sections: dict[str, dict[str, Any]] = {}
    for key in SECTIONS:
        section: object = rest.pop(key, {})
        if not isinstance(section, dict):
            problems.append(Problem(key, f"this is a section, [{key}], but {cut(section)} is given"))
            section = {}
        sections[key] = cast("dict[str, Any]", section)
    method: object = sections["method"].pop("name", "grown")
    if not isinstance(method, str) or method not in METHODS:
        problems.append(
            Problem("[method] name", f"there is no method {cut(method)}.{alternatives(str(method), METHODS)}")
        )
        method = "grown"
    _, kind, preset = METHODS[method]
    for key, model in (("data", DataConfig), ("tasks", TasksConfig), ("settings", kind)):
        where = "method" if key == "settings" else key
        given = {**preset, **sections[where]} if key == "settings" else sections[where]
        try:
            found[key] = model.model_validate(given)
        except ValidationError as error:
            problems += field_problems(f"[{where}]", f"[{where}]", error, model)
    try:
        config = ContinualConfig.model_validate(rest)
    except ValidationError as error:
        problems += field_problems("", "a run file of tasks", error, ContinualConfig)
    else:
        if not problems:
            return config.model_copy(update={**found, "method": method})
    raise RunError(listed(problems, cut(source), "wrong entries"))


def is_family(name: str) -> bool:
    """Whether growir makes networks of this name, such as Basic3ResNet-1-1-1."""
    try:
        family(name)
    except GrowirError:
        return False
    return True


def read_sequence(path: Path) -> ContinualConfig:
    """The configuration in a run file; relative paths in it count from where it is. Raises RunError."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror or error}{neighbours(path)}") from None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: this is not a valid TOML run file: {error}") from None
    return located(parse_sequence(data, str(path)), path.parent)


def located(config: ContinualConfig, folder: Path) -> ContinualConfig:
    """The same with its files in a folder, where they are told without one."""
    data = config.data.located(folder)
    built = config.network == PERCEPTRON or is_family(config.network)
    there = folder / config.network
    network = str(there.absolute()) if not built and not is_named(config.network) and there.exists() else config.network
    return config.model_copy(update={"data": data, "network": network})
