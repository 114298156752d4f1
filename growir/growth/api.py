"""`growir.grow`: a growth run from Python, the same as the command's."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from numpy.typing import ArrayLike

from growir.data.parts import Data
from growir.errors import DataError, RunError
from growir.graph import Graph
from growir.growth.config import DIGITS, RunConfig, over, parse_run
from growir.growth.data import check_data, load_data
from growir.growth.given import given_policy
from growir.growth.naming import name_of
from growir.growth.objective import Objective
from growir.growth.observer import GrowthResult, Observer
from growir.growth.optimizing import Factory
from growir.growth.policy import Policy, PolicySettings
from growir.growth.problem import Problem
from growir.growth.registry import DEFAULT, GIVEN
from growir.growth.running import objective_of, start_run
from growir.growth.schedule import Named, Schedule, Scheduled
from growir.network import Network
from growir.trainable import check_trainable

Given = str | os.PathLike[str] | Mapping[str, ArrayLike] | Data
# A name, settings, or a policy itself: its class or an object of it.
Policies = str | Mapping[str, Any] | PolicySettings | Policy | type[Policy]


def grow(
    start: Network | Graph | None,
    data: Given,
    *,
    policy: Policies | Sequence[Policies] | None = None,
    objective: str | Mapping[str, Any] | Callable[[Any, Any], torch.Tensor] | Objective | None = None,
    optimizer: str | Mapping[str, Any] | Factory | None = None,
    schedule: str | Mapping[str, Any] | Schedule | None = None,
    train: Mapping[str, Any] | None = None,
    budget: Mapping[str, Any] | None = None,
    device: str | torch.device | None = None,
    amp: str | None = None,
    task: str | None = None,
    target: str | None = None,
    ignore: Sequence[str] | None = None,
    categories: Sequence[str] | None = None,
    separator: str | None = None,
    missing: str | None = None,
    test: float | str | os.PathLike[str] | None = None,
    standardise: str | None = None,
    variance: float | Sequence[float] | None = None,
    seed: int = 0,
    threads: int | None = None,
    name: str | None = None,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    observer: Observer | None = None,
    train_as_imported: bool = False,
) -> GrowthResult:
    """Grow a network on data and fit it.

    Args:
        start: The network or graph to start from; None for the empty graph, input -> bias -> output, of policies that
            grow from nothing. A graph gets fresh parameters.
        data: A table (.csv), an .npz file or a mapping with x_train and y_train, and x_test and y_test if there is a
            test part; or "digits". Samples are (n, ...) numbers, targets (n,) or (n, outputs) numbers or words. Or
            `growir.data.Data`, of arrays, data sets or loaders.
        policy: A policy's name or "package.module:Class", its settings as in a run file's [policy], its class, or an
            object; of a list, the one that ends best goes on (docs/policies.md). By default "dag" from nothing, and
            "random" where a network is given.
        objective: "cross_entropy", "mse", or a function of the outputs (a tuple of several) and the target that gives
            (n,) losses; as the targets are if None.
        optimizer: A name of torch.optim, settings as in a run file's [optimizer], or a function from a list of
            parameters to an optimizer; AdamW if None.
        schedule: When to train and when to grow: a schedule's name, its settings as in a run file's [schedule], or a
            schedule itself.
        train: As in a run file's [train].
        budget: As in a run file's [budget].
        device: Where the network is; the CPU if None.
        amp: The type that autocast computes in, "bfloat16" or "float16".
        task: "classification" or "regression"; guessed from the targets if None.
        target: The column of a table that is learned.
        ignore: Columns of a table that are not read.
        categories: Columns of a table that hold words, also where they look like numbers.
        separator: The character between the cells of a table; a comma, or a tab in .tsv files, if None.
        missing: Whether rows of a table that lack a value are refused ("refuse", as if None) or left out ("drop").
        test: A file to test on, or the share of the samples to hold out where there is none: 0 for no test scores, a
            fifth if None.
        standardise: As in a run file's [data].
        variance: The share of the inputs' total variance to keep, or several to try; as in a run file's [data].
        seed: For everything random.
        threads: Of torch while it grows; if None one where a training step is small, else as many as it has.
        name: Of the run and the graph.
        out: A run directory to write, as the command does; nothing is written if None.
        resume: Go on with the run in `out` from its last completed growth.
        observer: Told what happens.
        train_as_imported: Grow a network whose train mode is known not to be that of the model it was imported from
            (`Graph.train_differs`).

    Raises:
        DataError: The data is unusable.
        RunError: A setting is wrong, the run directory cannot be used, or the network has not the train mode of the
            model it was imported from, and `train_as_imported` is not given.
    """
    if not isinstance(cast("object", data), str | os.PathLike | Mapping | Data):
        raise DataError(
            f'growir.grow: data is of {type(data).__name__}, but a file, "digits", a mapping of arrays, '
            '{"x_train": x, "y_train": y}, with x_test and y_test if there is a test part, or growir.data.Data is '
            "needed: Data.from_dataset(dataset), Data.from_loaders(loader)"
        )
    base = DIGITS if isinstance(data, str) and data == "digits" else RunConfig()
    section, policies = given_policy({} if policy is None else policy)
    if isinstance(section, Mapping):
        section = {"name": DEFAULT if start is None else GIVEN, **cast("Mapping[str, Any]", section)}
    held = os.fspath(test) if isinstance(test, os.PathLike) else test
    about = {
        "path": str(data) if isinstance(data, str | os.PathLike) else "",
        "task": task,
        "target": target,
        "ignore": ignore,
        "categories": categories,
        "separator": separator,
        "missing": missing,
        "test": held,
        "standardise": standardise,
        "variance": variance,
    }
    said = {key: value for key, value in about.items() if value is not None}
    if isinstance(data, Data) and len(said) > 1:
        key = next(key for key in said if key != "path")
        raise DataError(f"growir.grow: {key} is said of files and arrays; Data has its parts already, leave it out")
    place = {"device": None if device is None else str(device), "amp": amp}
    given: dict[str, Any] = {
        "name": name or base.name,
        "seed": seed,
        "threads": base.threads if threads is None else threads,
        "data": said,
        "policy": section,
        "objective": {"name": name_of(objective)} if _is_object(objective) else objective or {},
        "optimizer": {"name": name_of(optimizer)} if _is_object(optimizer) else optimizer or {},
        "schedule": schedule_section(schedule),
        "train": {**{key: value for key, value in place.items() if value is not None}, **(train or {})},
        "budget": budget or {},
    }
    config = parse_run(over(base.model_dump(exclude={"schedule"}), given), "growir.grow", policies.known)
    if start is not None:
        check_trainable(start if isinstance(start, Graph) else start.graph, train_as_imported, RunError)
    minimised = objective if _is_object(objective) else objective_of(config.objective)
    if isinstance(data, Data):
        problem = Problem.of_data(data, minimised)
    else:
        problem = Problem.of_loaded(
            check_data(data, config.data, "data", seed) if isinstance(data, Mapping) else load_data(config.data, seed),
            minimised,
        )
    return start_run(
        config,
        problem,
        Network.init(start, seed) if isinstance(start, Graph) else start,
        policies=policies,
        schedule=schedule if isinstance(schedule, Schedule) else None,
        optimizing=cast("Factory", optimizer) if _is_object(optimizer) else None,
        out=out,
        resume=resume,
        observer=observer,
    )


def _is_object(given: object) -> bool:
    """Whether something is given itself, not by name or settings."""
    return given is not None and not isinstance(given, str | Mapping)


def schedule_section(given: object) -> Any:
    """What a run file would say of a schedule. Raises RunError if it is none."""
    if given is None or isinstance(given, str | Mapping):
        return cast("str | Mapping[str, Any] | None", given) or {}
    if not isinstance(given, Schedule):
        raise RunError(f"growir.grow: schedule is of {type(given).__name__}, which has no method next(log)")
    if isinstance(given, Scheduled) and not isinstance(given, Named):
        return given.model_dump()
    return {"name": name_of(given)}
