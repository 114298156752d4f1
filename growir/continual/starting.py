"""What a configuration names: the tasks of its data, and the network that learning begins from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from growir.continual.benchmarks import from_benchmark, is_benchmark
from growir.continual.config import PERCEPTRON, ContinualConfig, TasksConfig, is_family
from growir.continual.experiences import Experience, Label, by_classes
from growir.data.dataset import Dataset
from growir.errors import DataError, RunError, cut
from growir.families import network
from growir.graph import Graph, Input, Node
from growir.growth.config import DataConfig
from growir.growth.data import check_data, load_data
from growir.growth.naming import is_named, named
from growir.growth.running import network_named
from growir.network import Network
from growir.ops import BatchNorm, Flatten, Linear, Relu, Standardise
from growir.verify import verify

WIDTH, LAYERS = 16, 2  # of a perceptron


def experiences_of(config: ContinualConfig) -> list[Experience]:
    """The tasks that a configuration names, in their order.

    Raises:
        DataError: The data is unusable, or has no such classes.
        RunError: Nothing says which tasks there are, or there is no such function.
    """
    data, usual = config.data, DataConfig()
    if not data.path:
        raise DataError('no data is given: [data] path names a .csv or .npz file, a function, or "digits"')
    for key in ("standardise", "variance"):
        if getattr(data, key) != getattr(usual, key):
            raise RunError(f"[data] {key}: is said where growth begins from nothing; leave it out")
    found: object = None
    if is_named(data.path) and not Path(data.path).exists():
        function = named(data.path, "[data] path")
        if not callable(function):
            raise DataError(f"[data] path: {cut(data.path)} is of {type(function).__name__}, but a function is needed")
        found = function()
        if is_benchmark(found):
            found = from_benchmark(found)
        if isinstance(found, list | tuple):
            return _given(cast("Sequence[object]", found), config.tasks, data.path)
        if not isinstance(found, Mapping):
            raise DataError(
                f"[data] path: {cut(data.path)} gives {type(found).__name__}; experiences in a list are needed, a "
                "benchmark with a train_stream and a test_stream, or arrays under x_train and y_train"
            )
        found = check_data(cast("Mapping[str, ArrayLike]", found), data, data.path, config.seed)
    else:
        found = load_data(data, config.seed)
    if not isinstance(found, Dataset) or found.description.classes is None:
        raise DataError(f"{cut(data.path)}: its targets are amounts; a task tells classes apart")
    return _divided(found, config.tasks)


def _given(found: Sequence[object], tasks: TasksConfig, source: str) -> list[Experience]:
    """Tasks that are there already, perhaps in another order."""
    experiences = [each for each in found if isinstance(each, Experience)]
    if len(experiences) < len(found) or not found:
        raise DataError(f"[data] path: {cut(source)} gives a list, but not of experiences")
    for key in ("classes", "each", "permuted", "names"):
        if getattr(tasks, key) is not None:
            raise RunError(f"[tasks] {key}: {cut(source)} gives the tasks already; leave it out")
    return _ordered(experiences, tasks)


def _divided(data: Dataset, tasks: TasksConfig) -> list[Experience]:
    """The tasks of a set with classes."""
    labels = cast("tuple[Label, ...]", data.description.classes)
    if not len(data.x_test):
        raise DataError("there is no test part, on which tasks are judged; let [data] test hold one out")
    y, y_test = (np.array([labels[k] for k in each], dtype=object) for each in (data.y_train, data.y_test))
    if tasks.permuted is not None:
        return _ordered(_permuted(data, labels, tasks), tasks)
    groups: Sequence[Sequence[Label]]
    if tasks.classes is not None:
        groups = tasks.classes
        unknown = [label for group in groups for label in group if label not in labels]
        if unknown:
            raise DataError(
                f"[tasks] classes: there is no class {cut(repr(unknown[0]))}; there are "
                f"{', '.join(cut(repr(label)) for label in labels[:8])}{', ...' if len(labels) > 8 else ''}"
            )
    elif tasks.each is not None:
        groups = [labels[k : k + tasks.each] for k in range(0, len(labels), tasks.each)]
        if len(groups[-1]) < 2:
            raise DataError(f"[tasks] each: {len(labels)} classes by {tasks.each} leave a task of one; two are needed")
    else:
        raise RunError("[tasks] says which tasks there are: each = 2, classes = [[0, 1], [2, 3]], or permuted = 5")
    found = by_classes(data.x_train, y, groups, test=(data.x_test, y_test), names=tasks.names)
    return _ordered(found, tasks)


def _permuted(data: Dataset, labels: Sequence[Label], tasks: TasksConfig) -> list[Experience]:
    """Tasks of all classes, each but the first with the inputs of a sample in an order of its own."""
    count = tasks.permuted or 1
    names = tasks.names or [f"permuted {k + 1}" for k in range(count)]
    if len(names) != count:
        raise RunError(f"[tasks] names: there are {len(names)}, but {count} tasks")
    rng, found = np.random.default_rng(0), list[Experience]()
    size = int(np.prod(data.x_train.shape[1:]))
    for k, name in enumerate(names):
        order = rng.permutation(size) if k else np.arange(size)

        def moved(x: NDArray[np.float32], order: NDArray[np.intp] = order) -> NDArray[np.float32]:
            return x.reshape(len(x), -1)[:, order].reshape(x.shape)

        test = moved(data.x_test), data.y_test
        groups = [range(len(labels))]
        (one,) = by_classes(moved(data.x_train), data.y_train, groups, test=test, names=[name])
        found.append(Experience(one.name, one.data, tuple(labels)))
    return found


def _ordered(found: list[Experience], tasks: TasksConfig) -> list[Experience]:
    if tasks.shuffle is None:
        return found
    return [found[k] for k in np.random.default_rng(tasks.shuffle).permutation(len(found))]


def first_network(config: ContinualConfig, experiences: Sequence[Experience]) -> Network:
    """What learning begins from.

    Raises:
        GraphError: The file is no network and no document.
        RunError: There is no such function, or it gives something else.
    """
    batch = next(iter(experiences[0].data.train.batches(2, None)))
    (x,) = batch.inputs.values() if isinstance(batch.inputs, Mapping) else batch.inputs
    shape, classes = tuple(int(n) for n in x.shape[1:]), len(experiences[0].classes)
    if config.network == PERCEPTRON:
        return _standardised(_perceptron(shape, classes, config.width or WIDTH), config.seed, experiences)
    if config.width is not None and not is_family(config.network):
        raise RunError('width: is said of "perceptron" and of names such as Basic3ResNet-1-1-1; leave it out')
    if is_family(config.network):
        graph = network(config.network, shape, classes, width=config.width, standardised=True)
        return _standardised(graph, config.seed, experiences)
    return network_named(config.network, config.seed)


def _perceptron(shape: Sequence[int], classes: int, width: int) -> Graph:
    """Two layers with norms behind inputs of any shape."""
    nodes = [Node(name="standard", op=Standardise(dims=0), inputs=("x",))]
    value = "standard"
    if len(shape) > 1:
        nodes.append(Node(name="flat", op=Flatten(), inputs=(value,)))
        value = "flat"
    for k in range(1, LAYERS + 1):
        for name, op in ((f"fc{k}", Linear(out_features=width)), (f"norm{k}", BatchNorm()), (f"act{k}", Relu())):
            nodes.append(Node(name=name, op=op, inputs=(value,)))
            value = name
    nodes.append(Node(name="head", op=Linear(out_features=classes), inputs=(value,)))
    entry = Input(name="x", shape=("N", *shape))
    return verify(Graph(name=PERCEPTRON, inputs=(entry,), nodes=tuple(nodes), outputs=("head",)))


def _standardised(graph: Graph, seed: int, experiences: Sequence[Experience]) -> Network:
    """A network that reads the first task's numbers with mean 0 and variance 1: of others nothing is known yet."""
    found = Network.init(graph, seed)
    count, total, squares = 0, 0.0, 0.0
    for batch in experiences[0].data.train.batches(512, None):
        (x,) = batch.inputs.values() if isinstance(batch.inputs, Mapping) else batch.inputs
        numbers = x.double()
        count, total = count + numbers.numel(), total + float(numbers.sum())
        squares += float(numbers.square().sum())
    mean = total / count
    std = max(squares / count - mean**2, 0.0) ** 0.5 or 1.0
    told: dict[str, Any] = {"standard.mean": mean, "standard.std": std}
    arrays = {key: np.full_like(array, told[key]) for key, array in found.arrays.items() if key in told}
    return found.with_arrays(arrays)
