"""The master: one graph, the weights that tasks share, and the tasks, each of which sees a part of it that stays.

master = Master.start(graph, {"zero or one": "head_0"})
master = master.learned("zero or one", arrays, own=[...], masks={...})
master.task("zero or one").to_onnx("zero_or_one.onnx")
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError

from growir import store
from growir.continual import masks as bits
from growir.continual.masks import Mask, mask_shapes
from growir.continual.views import View, view_of
from growir.document import decode, to_data
from growir.edits import NUMPY, apply_edits
from growir.errors import GraphError, PassRefused, Problem, counted, cut
from growir.fields import field_problems
from growir.graph import Graph, Node
from growir.moments import carry_moments
from growir.names import title_fault
from growir.nearest import alternatives, neighbours
from growir.network import Network
from growir.params import array_digest, frozen, initial_arrays, param_table
from growir.passes import needed_pass
from growir.rewrite import Pass
from growir.verify import load as verified
from growir.verify import verify

SCHEMA = "growir-master/1"
DOCUMENT, OWN, MASKS = "master.json", "own.safetensors", "masks.safetensors"
FILES = (DOCUMENT, store.PARAMS, OWN, MASKS)
MAX_TASKS = 10_000
_SEPARATOR = "/"  # between a task's number and a key, in files of tensors

Arrays = Mapping[str, NDArray[Any]]
Label = StrictInt | StrictStr


class _TaskRecord(BaseModel):
    """A task as the document has it; its tensors and masks lie beside."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: StrictStr
    output: StrictStr
    classes: tuple[Label, ...] | None = None
    own: tuple[StrictStr, ...] = ()
    masks: tuple[StrictStr, ...] = ()
    graph: StrictStr = Field(description="The hash of the view's graph.")
    digests: dict[str, StrictStr] = Field(description="Of each tensor of the view.")


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """What was learned.

    Attributes:
        name: What the task is called.
        output: Its head, an output of the master's graph.
        own: Tensors that are its own, by key: those of its head, biases, norms and their statistics.
        masks: Which of the shared weights it uses, by key, each as `mask_shapes` says; weights without one are used
            whole.
        classes: What its outputs stand for, in order, where they are classes.
        graph: The hash of its view's graph.
        digests: sha256 of each tensor of its view, by key.
    """

    name: str
    output: str
    own: Arrays
    masks: Mapping[str, Mask]
    classes: tuple[int | str, ...] | None = None
    graph: str = ""
    digests: Mapping[str, str] = field(default_factory=dict[str, str])


class Master:
    """A master network. Nothing in it changes: learning and growing give new ones.

    Attributes:
        graph: With a head for each task; without a history.
        arrays: Every tensor by its key, read-only, as shared: where a task has one of its own, that counts for it.
        tasks: In the order in which they were learned, by name.

    Raises:
        GraphError: Tasks do not fit the graph, or a view is not what it was when its task was learned; all problems at
            once.
    """

    def __init__(self, graph: Graph, arrays: Arrays, tasks: Sequence[Task] = (), *, source: str = "") -> None:
        self.graph = verify(graph.replace(history=None))
        self.arrays: Arrays = Network(self.graph, arrays, source=source).arrays
        problems = [problem for k, task in enumerate(tasks) for problem in self._problems(k, task)]
        names = [task.name for task in tasks]
        problems += [
            Problem(_place(k, name), "another task has this name; give each its own")
            for k, name in enumerate(names)
            if name in names[:k]
        ]
        if len(tasks) > MAX_TASKS:
            problems.append(Problem("tasks", f"there are {len(tasks)} of them; at most {MAX_TASKS} are allowed"))
        if problems:
            raise GraphError(problems, source)
        self.tasks: Mapping[str, Task] = MappingProxyType({task.name: _frozen(task) for task in tasks})
        self._views = {
            task.name: view_of(self.graph, self.arrays, task.output, task.own, task.masks, task.name).network
            for task in tasks
        }
        moved = [problem for k, name in enumerate(names) for problem in self._moved(k, name)]
        if moved:
            raise GraphError(moved, source)

    def __repr__(self) -> str:
        return f"Master({self.graph.name!r}, {counted(len(self.tasks), 'task')}, {self.graph.hash[:12]})"

    # -- tasks --------------------------------------------------------------------------------------------------------

    def task(self, name: str) -> Network:
        """The network of a task, with what it does not use pruned away. Raises GraphError if there is no such task."""
        if name not in self._views:
            raise GraphError(f"there is no task {cut(name)!r}.{alternatives(name, self.tasks)}")
        return self._views[name]

    @property
    def locked(self) -> Mapping[str, Mask]:
        """Which weights must not move, since a task uses them: a mask of each shared tensor that a view holds."""
        shapes, table = mask_shapes(self.graph), param_table(self.graph)
        found: dict[str, list[Mask]] = {}
        for task in self.tasks.values():
            for key in set(self.task(task.name).arrays) - set(task.own):
                whole = np.ones(shapes.get(key, (1,) * len(table[key].shape)), bool)
                found.setdefault(key, []).append(task.masks.get(key, whole))
        return {key: bits.union(used[0].shape, used) for key, used in found.items()}

    def learned(
        self,
        name: str,
        output: str,
        *,
        arrays: Arrays | None = None,
        own: Arrays | None = None,
        masks: Mapping[str, Mask] | None = None,
        classes: Sequence[int | str] | None = None,
    ) -> Master:
        """The master with one more task.

        Args:
            name: Of the task.
            output: Its head.
            arrays: Shared tensors that learning it has moved, by key; none that is locked.
            own: Its own tensors.
            masks: Which shared weights it uses.
            classes: What its outputs stand for.

        Raises:
            GraphError: It does not fit the graph, has another's name, or a locked weight has moved.
        """
        task = Task(name, output, dict(own or {}), dict(masks or {}), None if classes is None else tuple(classes))
        shared = {**self.arrays, **(arrays or {})}
        Master(self.graph, shared, [*self.tasks.values()])  # says first if what others have learned has moved
        problems = self._problems(len(self.tasks), task)
        if problems:
            raise GraphError(problems)
        seen = view_of(self.graph, shared, output, task.own, task.masks, name)
        return Master(self.graph, shared, [*self.tasks.values(), _told(task, seen)])

    def _problems(self, k: int, task: Task) -> list[Problem]:
        """What keeps a task from being one of this graph's."""
        place, table, shapes = _place(k, task.name), param_table(self.graph), mask_shapes(self.graph)
        found: list[Problem] = []
        if fault := title_fault(task.name) or (None if task.name else "a task has a name"):
            found.append(Problem(place, fault))
        if task.output not in self.graph.outputs:
            outputs = ", ".join(cut(name) for name in self.graph.outputs)
            found.append(Problem(place, f"output is {cut(task.output)}, but the graph's outputs are {outputs}"))
        for key, array in task.own.items():
            if key not in table:
                found.append(Problem(place, f"own has {cut(key)}, which the graph has not.{alternatives(key, table)}"))
            elif not isinstance(cast("object", array), np.ndarray):
                found.append(Problem(place, f"own: {cut(key)} is no array but of type {cut(type(array).__name__)}"))
            elif array.shape != table[key].shape or array.dtype != self.arrays[key].dtype:
                has, needs = (f"{each.shape} of {each.dtype}" for each in (array, self.arrays[key]))
                found.append(Problem(place, f"own: {cut(key)} is {has}, but the graph's is {needs}"))
        for key, mask in task.masks.items():
            if key not in shapes:
                found.append(Problem(place, f"masks has {cut(key)}, which is no layer's weight"))
            elif key in task.own:
                found.append(Problem(place, f"{cut(key)} is its own and has a mask too; leave one of them out"))
            elif mask.shape != shapes[key] or mask.dtype != np.bool_:
                needs = f"{shapes[key]} of truth values"
                found.append(
                    Problem(place, f"masks: {cut(key)} is {mask.shape} of {mask.dtype}, but {needs} is needed")
                )
        return found

    def _moved(self, k: int, name: str) -> list[Problem]:
        """What of a task's view is not as it was when it was learned."""
        task, seen = self.tasks[name], self.task(name)
        if not task.digests:
            return []
        again = "put back the weights that its view was learned with"
        if seen.graph.hash != task.graph or seen.arrays.keys() != task.digests.keys():
            return [Problem(_place(k, name), f"its view is another graph than when it was learned; {again}")]
        return [
            Problem(_place(k, name), f"{cut(key)} has other numbers than when it was learned; {again}")
            for key, array in seen.arrays.items()
            if array_digest(array) != task.digests[key]
        ]

    # -- growth -------------------------------------------------------------------------------------------------------

    def apply(self, pass_: Pass) -> Master:
        """The master after a pass that leaves every view as it is, to the bit.

        Raises:
            PassRefused: It does not fit, or a view would change; nothing is applied.
        """
        done = needed_pass(pass_).rewrite(self.graph)
        dtype = Network(self.graph, self.arrays).dtype
        arrays = apply_edits(done.edits, self.arrays, NUMPY, dtype)
        tasks: list[Task] = []
        for task in self.tasks.values():
            own = carry_moments(done.edits, task.own, "weight", NUMPY)
            masks = bits.carried(done.edits, self.graph, done.graph, task.masks)
            tasks.append(Task(task.name, task.output, own, masks, task.classes, task.graph, task.digests))
        try:
            return Master(done.graph, arrays, tasks)
        except GraphError as error:
            raise PassRefused(f"{pass_.name}: what was learned would not stay as it is: {error}") from None

    def with_head(self, nodes: Sequence[Node], output: str, seed: int = 0) -> Master:
        """The master with one more head.

        Args:
            nodes: Of the head; they read values of the graph.
            output: The one that is the head's output.
            seed: Of its weights.

        Raises:
            GraphError: The nodes do not fit the graph.
        """
        graph = verify(self.graph.replace(nodes=(*self.graph.nodes, *nodes), outputs=(*self.graph.outputs, output)))
        dtype = Network(self.graph, self.arrays).dtype
        fresh = initial_arrays(graph, seed, dtype)
        return Master(graph, {**fresh, **self.arrays}, list(self.tasks.values()))

    def tasks_apart(self, other: Master) -> list[str]:
        """What the tasks of this master and of another have not in common, a line for each; empty if nothing."""
        found = [f"task {cut(name)!r} is in the first alone" for name in self.tasks if name not in other.tasks]
        found += [f"task {cut(name)!r} is in the second alone" for name in other.tasks if name not in self.tasks]
        for name, task in self.tasks.items():
            there = other.tasks.get(name)
            if there is None:
                continue
            if task.classes != there.classes:
                found.append(f"task {cut(name)!r} has other classes")
            if task.graph == there.graph and task.digests == there.digests:
                continue
            moved = [key for key, digest in task.digests.items() if there.digests.get(key, digest) != digest]
            what = "another network" if task.graph != there.graph else f"other numbers in {', '.join(map(cut, moved))}"
            found.append(f"task {cut(name)!r} has {what}")
        if not found and list(self.tasks) != list(other.tasks):
            found.append("the tasks were learned in another order")
        return found

    # -- files --------------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Save as a folder, whole or not at all; only a growir master is ever overwritten.

        Raises:
            ExportError: Something else is at `path`, or it cannot be written.
        """
        place = Path(path).resolve()
        store.recover(place)
        store.check_folder(place, FILES, (), "master", "growir-master")

        def fill(folder: Path) -> None:
            (folder / DOCUMENT).write_text(json.dumps(self.to_data(), indent=1) + "\n", encoding="utf-8")
            store.write_tensors(folder / store.PARAMS, self.arrays, {"growir.hash": self.graph.hash})
            store.write_tensors(folder / OWN, _numbered(task.own for task in self.tasks.values()))
            packed = ({key: bits.packed(mask) for key, mask in task.masks.items()} for task in self.tasks.values())
            store.write_tensors(folder / MASKS, _numbered(packed))

        store.write_folder(place, fill)

    def to_data(self) -> dict[str, Any]:
        """The document as JSON values."""
        tasks = [
            _TaskRecord(
                name=task.name,
                output=task.output,
                classes=task.classes,
                own=tuple(task.own),
                masks=tuple(task.masks),
                graph=task.graph,
                digests=dict(task.digests),
            ).model_dump(mode="json", exclude_none=True)
            for task in self.tasks.values()
        ]
        return {"schema": SCHEMA, "graph": to_data(self.graph), "tasks": tasks}

    @classmethod
    def load(cls, path: str | Path) -> Master:
        """Load a master's folder.

        Raises:
            GraphError: Document, tensors or masks are wrong or do not belong together, or a view is not what it was
                when its task was learned.
        """
        folder = Path(path)
        store.recover(folder)
        place = folder / DOCUMENT
        if not place.is_file():
            raise GraphError([Problem(str(path), f"no master here: {DOCUMENT} is needed{neighbours(folder)}")])
        graph, records = _document(place)
        arrays = store.read_params(folder, graph)
        own, packed = ({**store.read_tensors(folder / name)[0]} for name in (OWN, MASKS))
        tasks, shapes = list[Task](), mask_shapes(graph)
        problems: list[Problem] = []
        for k, record in enumerate(records):
            at = _place(k, record.name)
            mine = _taken(own, k, record.own, f"{at}: own", OWN, problems)
            masks: dict[str, Mask] = {}
            for key, array in _taken(packed, k, record.masks, f"{at}: masks", MASKS, problems).items():
                try:
                    masks[key] = bits.unpacked(array, shapes[key])
                except (KeyError, ValueError) as error:
                    why = "is no layer's weight" if isinstance(error, KeyError) else f"is of another graph: {error}"
                    problems.append(Problem(at, f"the mask of {cut(key)} {why}"))
            if not record.digests:
                problems.append(Problem(at, "it has no digests, which say that its tensors are what was learned"))
            told = record.classes, record.graph, record.digests
            tasks.append(Task(record.name, record.output, mine, masks, *told))
        for name, left in ((OWN, own), (MASKS, packed)):
            problems += [Problem(name, f"{cut(key)} is of no task in {DOCUMENT}") for key in left]
        if problems:
            raise GraphError(problems, str(folder))
        return cls(graph, arrays, tasks, source=str(folder))


def _document(place: Path) -> tuple[Graph, list[_TaskRecord]]:
    """Graph and tasks of a master's document. Raises GraphError."""
    source = str(place)
    try:
        data = decode(place.read_bytes())
    except GraphError as error:
        raise error.at(source) from None
    except OSError as error:
        raise GraphError([Problem(source, f"cannot be read: {error.strerror or error}")]) from None
    version = data.get("schema")
    if version != SCHEMA:
        text = f"this document is of version {cut(version)}, and this growir reads {SCHEMA}"
        raise GraphError([Problem("schema", text)], source)
    problems = [
        Problem(cut(key), "unknown field; a master has schema, graph and tasks")
        for key in data.keys() - {"schema", "graph", "tasks"}
    ]
    given, graph = data.get("tasks"), data.get("graph")
    if not isinstance(graph, dict) or not isinstance(given, list):
        problems.append(Problem("", "a master has a graph document as graph and an array of tasks"))
        raise GraphError(problems, source)
    records: list[_TaskRecord] = []
    for k, each in enumerate(cast("list[object]", given)):
        try:
            records.append(_TaskRecord.model_validate(each))
        except ValidationError as error:
            problems += field_problems(f"tasks[{k}]", "a task", error, _TaskRecord)
    if problems:
        raise GraphError(problems, source)
    return verified(cast("dict[str, Any]", graph), f"{source}: graph"), records


def _taken(
    arrays: dict[str, NDArray[Any]], k: int, keys: Iterable[str], place: str, file: str, problems: list[Problem]
) -> dict[str, NDArray[Any]]:
    """A task's part of what a file has, which is taken out of it."""
    found: dict[str, NDArray[Any]] = {}
    for key in keys:
        array = arrays.pop(f"{k}{_SEPARATOR}{key}", None)
        if array is None:
            problems.append(Problem(place, f"{cut(key)} is not in {file}"))
        else:
            found[key] = array
    return found


def _numbered(tasks: Iterable[Arrays]) -> dict[str, NDArray[Any]]:
    """The tensors of all tasks, each behind its task's number."""
    return {f"{k}{_SEPARATOR}{key}": array for k, task in enumerate(tasks) for key, array in task.items()}


def _place(k: int, name: str) -> str:
    return f"tasks[{k}] {cut(name)!r}"


def _told(task: Task, seen: View) -> Task:
    """A task with what says that its view stays as it is, and without what it does not use."""
    network = seen.network
    digests = {key: array_digest(array) for key, array in network.arrays.items()}
    return Task(task.name, task.output, task.own, seen.masks, task.classes, network.graph.hash, digests)


def _frozen(task: Task) -> Task:
    own = MappingProxyType({key: frozen(array) for key, array in task.own.items()})
    masks = MappingProxyType({key: cast("Mask", frozen(mask)) for key, mask in task.masks.items()})
    return Task(task.name, task.output, own, masks, task.classes, task.graph, MappingProxyType(dict(task.digests)))
