"""What cells are searched and trained on: images with classes, and what a network has to know of their scale."""

from __future__ import annotations

from dataclasses import dataclass

from growir.cells.network import network
from growir.cells.plan import Plan
from growir.cellsearch.config import CellsConfig, CellSearchConfig, EvaluationConfig
from growir.data.dataset import Dataset
from growir.errors import DataError, GraphError, RunError
from growir.graph import Graph
from growir.growth.config import DataConfig
from growir.growth.data import load_data, one_scale
from growir.growth.problem import Problem, first_shape
from growir.network import Network


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """Images with classes.

    Attributes:
        problem: The data, and what is minimised.
        shape: Of an image.
        classes: How many there are.
    """

    problem: Problem
    shape: tuple[int, ...]
    classes: int

    def network(self, plan: Plan, size: CellsConfig | EvaluationConfig, name: str, seed: int) -> Network:
        """A stack of cells with fresh weights, and with the data's scale in front where growir read the data itself.

        Raises:
            RunError: The samples are no images, or too small.
        """
        dataset = self.problem.dataset
        try:
            graph: Graph = network(
                plan,
                self.shape,
                self.classes,
                cells=size.cells,
                width=size.width,
                stem=size.stem,
                reductions=size.reductions,
                standardised=dataset is not None,
                name=name,
            )
        except GraphError as error:
            section = "cells" if isinstance(size, CellsConfig) else "evaluation"
            raise RunError(f"[{section}] {error}") from None
        found = Network.init(graph, seed)
        return found if dataset is None else one_scale(found, dataset.x_train)


def images_of(config: CellSearchConfig) -> Images:
    """The data that a configuration names.

    Raises:
        DataError: It is unusable, or its targets are no classes.
        RunError: There is no such function, or a setting does not go with cells.
    """
    data, usual = config.data, DataConfig()
    if not data.path:
        raise DataError('no data is given: [data] path names an .npz file, a function, or "digits"')
    for key in ("standardise", "variance"):
        if getattr(data, key) != getattr(usual, key):
            raise RunError(f"[data] {key}: is said where growth begins from nothing; leave it out")
    loaded = load_data(data, config.seed)
    problem = Problem.of_loaded(loaded)
    if problem.task != "classification":
        raise DataError(f"{data.path}: cells are searched for by classes, but its targets are amounts")
    if isinstance(loaded, Dataset):
        if config.classes not in (None, loaded.outputs):
            raise RunError(f"classes is {config.classes}, but {data.path} has {loaded.outputs}; leave it out")
        return Images(problem, tuple(loaded.x_train.shape[1:]), loaded.outputs)
    if config.classes is None:
        raise RunError(f"classes: {data.path} gives batches, which do not say how many classes there are; say it")
    batch = next(iter(problem.data.train.batches(1, None)))
    return Images(problem, tuple(first_shape(batch)), config.classes)
