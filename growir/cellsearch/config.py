"""What a search for cells is told in a run file: data, the template, how it grows, and how the found cells are trained.

[data]
path = "cifar10.npz"

[cells]
nodes = 4

[search.budget]
per_growth = {share = 0.2}

[evaluation]
cells = 20
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, cast

from pydantic import Field, ValidationError, field_validator, model_validator

from growir.cells.genotype import genotype
from growir.cells.template import SEARCHED, Template
from growir.errors import GraphError, GrowirError, Problem, RunError, cut, listed
from growir.fields import field_problems
from growir.growth.config import MAX_PATH, MAX_THREADS, DataConfig, RunConfig, over, parse_run
from growir.growth.naming import is_named, named
from growir.growth.recipe import OptimizerConfig, RateConfig
from growir.growth.sections import MOST, Count, FolderName, NonNegative, Positive, Section, Whole, Word, run_file
from growir.nearest import neighbours

SECTIONS: Final = ("data", "cells", "search", "evaluation")
GROWING: Final = ("policy", "schedule", "optimizer", "train", "budget")  # sections of [search]
# The paper's: a hundred epochs, with a growth after every ten but the last (Wu et al. 2020, section 3).
SEARCH: Final[Mapping[str, Any]] = {
    "policy": {"name": "firefly", "alike": ("normal", "reduce")},
    "schedule": {"name": "every", "epochs": 10, "growths": 9},
    "budget": {"per_growth": {"share": 0.2}},
}
SGD: Final = {"name": "SGD", "learning_rate": 0.025, "momentum": 0.9, "weight_decay": 3e-4, "decay": "all"}
GROWN: Final = 1.25  # times the inner channels at first is hardly grown, where nobody says
Listed = Annotated[tuple[Word, ...], Field(min_length=1, max_length=1000)]


class CellsConfig(Section):
    """The cells that are searched for, and the small network in which they grow.

    Attributes:
        nodes: Of a cell, beside its inputs and its output.
        operations: On each edge, as growir.cells knows them, or "package.module:function" for one of your own.
        between: The operations of single edges, "0-2" from the first input to the first node; edges that are not named
            are not there. By default all edges have all operations.
        inner: The inner channels that each operation begins with.
        cells: How many are stacked.
        width: Channels of each node of the first ones.
        stem: As many times `width` channels has the stem.
        reductions: Which cells halve the size, counted from 0. By default those at a third and two thirds.
        threshold: Inner channels up to which an operation counts as hardly grown. By default a quarter more than inner.
    """

    nodes: Count = 4
    operations: Listed = SEARCHED
    between: Mapping[str, Listed] | None = None
    inner: Count = 4
    cells: Count = 5
    width: Count = 16
    stem: Count = 3
    reductions: Annotated[tuple[Whole, ...], Field(max_length=1000)] | None = None
    threshold: Annotated[float, Field(strict=True, ge=0, le=1_000_000, allow_inf_nan=False)] | None = None

    @field_validator("between")
    @classmethod
    def _edges(cls, value: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        for name in value or {}:
            if not re.fullmatch(r"(0|[1-9][0-9]{0,4})-(0|[1-9][0-9]{0,4})", name):
                raise ValueError(f'{cut(name)!r} is no edge; "0-2" leads from the first input to the first node')
        return value

    @model_validator(mode="after")
    def _sound(self) -> Self:
        try:
            self.template()
        except GraphError as error:
            raise ValueError("; ".join(map(str, error.problems))) from None
        halved = {self.cells // 3, 2 * self.cells // 3} if self.reductions is None else set(self.reductions)
        if not 0 < len(halved) < self.cells:
            raise ValueError(
                f"of {self.cells} cells {len(halved)} halve the size, but a search needs a normal and a reduction "
                "cell; take three cells or more, or other reductions"
            )
        return self

    @property
    def most(self) -> float:
        """Inner channels up to which an operation counts as hardly grown."""
        return GROWN * self.inner if self.threshold is None else self.threshold

    def template(self) -> Template:
        """The cell that is searched. Raises GraphError if it is none, RunError if an operation cannot be imported."""
        between = None
        if self.between is not None:
            between = {
                (int(edge.partition("-")[0]), int(edge.partition("-")[2])): tuple(map(_operation, names))
                for edge, names in self.between.items()
            }
        return Template(self.nodes, tuple(map(_operation, self.operations)), self.inner, between)


def _operation(name: str) -> str:
    """The name of an operation; one that is told by its place is imported."""
    from growir.cells.operations import operation

    if not is_named(name):
        return name
    found = named(name, "[cells] operations")
    if not callable(found):
        raise RunError(f"[cells] operations: {cut(name)} is of {type(found).__name__}, but a function is needed")
    called = name.rpartition(":")[2]
    operation(called)(cast("Any", found))
    return called


class EvaluationConfig(Section):
    """The network of found cells, and how it is trained from scratch; by default as DARTS does on CIFAR-10.

    Attributes:
        cells: How many are stacked.
        width: Channels of each node of the first ones.
        stem: As many times `width` channels has the stem.
        reductions: Which cells halve the size. By default those at a third and two thirds.
        epochs: Passes over all training data; 0 trains nothing.
        batch_size: Samples a step.
        optimizer: As [optimizer] of a growth run.
        rate: How the learning rate goes, as [train] rate of a growth run.
        clip: The largest norm of all gradients together.
        drop_path: The chance that an operation, other than an identity, gives nothing for a sample, at the end; it
            rises from 0 by equal steps an epoch. What is left is scaled up.
        auxiliary: How much the loss of a second head counts, which reads the last cell of half the size and is left
            out in the end; 0 for none.
        amp: The type that autocast computes in, "bfloat16" or "float16". By default none.
        device: Where it is trained, "cpu" or "cuda". By default the CPU.
    """

    cells: Count = 20
    width: Count = 36
    stem: Count = 3
    reductions: Annotated[tuple[Whole, ...], Field(max_length=1000)] | None = None
    epochs: Whole = 600
    batch_size: Annotated[int, Field(strict=True, ge=2, le=MOST)] = 96
    optimizer: OptimizerConfig = OptimizerConfig.model_validate(SGD)
    rate: RateConfig = RateConfig(name="cosine")
    clip: Positive | None = 5.0
    drop_path: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.2
    auxiliary: NonNegative = 0.4
    amp: Literal["bfloat16", "float16"] | None = None
    device: Word | None = None

    @field_validator("rate", mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("optimizer", mode="before")
    @classmethod
    def _over_sgd(cls, value: object) -> object:
        """What is said over what is usual, as long as it is the same optimizer."""
        if isinstance(value, OptimizerConfig):
            return value
        return over({"optimizer": SGD}, {"optimizer": value})["optimizer"]


class CellSearchConfig(Section):
    """One search for cells.

    Attributes:
        name: Of the folder; a file's name.
        genotype: Cells that are there already, by a published name, as DARTS writes them, or in a file. By default
            none, and cells are searched for.
        classes: Of data that a function gives as batches. By default as the data says.
        seed: Everything random is a function of it.
        threads: Of torch. By default torch's choice. Results are the same to the bit only at one number.
    """

    name: FolderName = "cells"
    genotype: Annotated[str, Field(max_length=MAX_PATH)] | None = None
    classes: Count | None = None
    seed: Annotated[int, Field(strict=True, ge=0, le=MOST)] = 0
    threads: Annotated[int, Field(strict=True, gt=0, le=MAX_THREADS)] | None = None
    data: DataConfig = DataConfig()
    cells: CellsConfig = CellsConfig()
    search: Mapping[str, Any] = Field(default_factory=dict)
    evaluation: EvaluationConfig = EvaluationConfig()

    def growth(self, sites: Sequence[str] = ()) -> RunConfig:
        """The growth run that searches.

        Args:
            sites: The spaces that grow where [search.policy] names none.

        Raises:
            RunError: With all that is wrong with [search].
        """
        given: Mapping[str, Any] = {"name": self.name, "seed": self.seed, "threads": self.threads}
        usual = {key: dict(value) for key, value in SEARCH.items()}
        if sites:
            usual["policy"]["sites"] = tuple(sites)
        sections = over(usual, self.search)
        settings = {key: value for key, value in given.items() if value is not None}
        found = parse_run({**settings, **sections}, "[search]")
        if getattr(found.policy, "sites", ()) == ():
            raise RunError(
                f"[search.policy] name: {found.policy.name} has no setting `sites`, by which inner channels alone grow"
                "; take firefly"
            )
        return found

    def to_toml(self) -> str:
        """The run file that gives this configuration."""
        return run_file(self.model_dump(mode="json", exclude_none=True))


def parse_search(data: Mapping[str, Any], source: str) -> CellSearchConfig:
    """The configuration that decoded TOML gives. Raises RunError with all that is wrong."""
    problems: list[Problem] = []
    rest, found = dict(data), dict[str, Any]()
    models: dict[str, type[Section]] = {"data": DataConfig, "cells": CellsConfig, "evaluation": EvaluationConfig}
    for key in SECTIONS:
        section: object = rest.pop(key, {})
        if not isinstance(section, dict):
            problems.append(Problem(key, f"this is a section, [{key}], but {cut(section)} is given"))
        elif key == "search":
            found[key] = cast("dict[str, Any]", section)
            unknown = [name for name in found[key] if name not in GROWING]
            if unknown:
                known = ", ".join(f"[search.{name}]" for name in GROWING)
                problems.append(Problem("[search]", f"there is no {cut(unknown[0])!r} in it; it has {known}"))
        else:
            try:
                found[key] = models[key].model_validate(section)
            except ValidationError as error:
                problems += field_problems(f"[{key}]", f"[{key}]", error, models[key])
    config = CellSearchConfig()
    try:
        config = CellSearchConfig.model_validate(rest)
    except ValidationError as error:
        problems += field_problems("", "a run file of cells", error, CellSearchConfig)
    if not problems:
        config = config.model_copy(update=found)
        try:
            config.growth()
            if config.genotype is not None:
                genotype(config.genotype)
        except GrowirError as error:
            problems.append(Problem("", str(error)))
    if problems:
        raise RunError(listed(problems, cut(source), "wrong entries"))
    return config


def read_search(path: Path) -> CellSearchConfig:
    """The configuration in a run file; relative paths in it count from where it is. Raises RunError."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror or error}{neighbours(path)}") from None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: this is not a valid TOML run file: {error}") from None
    chosen = data.get("genotype")
    if isinstance(chosen, str) and "Genotype(" not in chosen and "\0" not in chosen:
        beside = path.parent / chosen
        if os.path.isfile(beside) or (":" in chosen and os.path.isfile(str(beside).rpartition(":")[0])):
            data["genotype"] = str(beside.absolute())
    return located(parse_search(data, str(path)), path.parent)


def located(config: CellSearchConfig, folder: Path) -> CellSearchConfig:
    """The same with its data in a folder, where it is told without one."""
    return config.model_copy(update={"data": config.data.located(folder)})
