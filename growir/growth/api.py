"""`growir.grow`: a growth run from Python, the same as the command's."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, cast

from numpy.typing import ArrayLike

from growir.errors import DataError, RunError
from growir.graph import Graph
from growir.growth.config import DIGITS, RunConfig, parse_run
from growir.growth.data import check_data, load_data
from growir.growth.engine import GrowthResult, Observer
from growir.growth.running import start_run
from growir.network import Network
from growir.trainable import check_trainable

Data = str | os.PathLike[str] | Mapping[str, ArrayLike]


def grow(
    start: Network | Graph | None,
    data: Data,
    *,
    policy: str | Mapping[str, Any] = "dag",
    train: Mapping[str, Any] | None = None,
    budget: Mapping[str, Any] | None = None,
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
        start: The network or graph to start from; None for the empty graph, input -> bias -> output. A graph gets fresh
            parameters.
        data: A table (.csv), an .npz file or a mapping with x_train and y_train, and x_test and y_test if there is a
            test part; or "digits". Samples are (n, ...) numbers, targets (n,) or (n, outputs) numbers or words.
        policy: A policy's name, or its settings as in a run file's [policy].
        train: As in a run file's [train].
        budget: As in a run file's [budget].
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
        resume: Go on with the run in `out` from its last completed step.
        observer: Told what happens.
        train_as_imported: Grow a network whose train mode is known not to be that of the model it was imported from
            (`Graph.train_differs`).

    Raises:
        DataError: The data is unusable.
        RunError: A setting is wrong, the run directory cannot be used, or the network has not the train mode of the
            model it was imported from, and `train_as_imported` is not given.
    """
    if not isinstance(cast("object", data), str | os.PathLike | Mapping):
        raise DataError(
            f'growir.grow: data is of {type(data).__name__}, but a file, "digits" or a mapping of arrays is needed: '
            '{"x_train": x, "y_train": y}, with x_test and y_test if there is a test part'
        )
    base = DIGITS if isinstance(data, str) and data == "digits" else RunConfig()
    path = str(data) if isinstance(data, str | os.PathLike) else ""
    held = os.fspath(test) if isinstance(test, os.PathLike) else test
    given: dict[str, Any] = {
        "name": name or base.name,
        "seed": seed,
        "threads": base.threads if threads is None else threads,
        "data": {
            "path": path,
            "task": task,
            "target": target,
            "ignore": ignore,
            "categories": categories,
            "separator": separator,
            "missing": missing,
            "test": held,
            "standardise": standardise,
            "variance": variance,
        },
        "policy": {"name": policy} if isinstance(policy, str) else policy,
        "train": train or {},
        "budget": budget or {},
    }
    settings = base.model_dump()
    for key, value in given.items():
        if isinstance(value, Mapping):
            section = cast("Mapping[str, Any]", value)
            settings[key] |= {name: entry for name, entry in section.items() if entry is not None}
        else:
            settings[key] = value
    config = parse_run(settings, "growir.grow")
    if start is not None:
        check_trainable(start if isinstance(start, Graph) else start.graph, train_as_imported, RunError)
    dataset = check_data(data, config.data, "data", seed) if isinstance(data, Mapping) else load_data(config.data, seed)
    network = Network.init(start, seed) if isinstance(start, Graph) else start
    return start_run(config, dataset, network, out=out, resume=resume, observer=observer)
