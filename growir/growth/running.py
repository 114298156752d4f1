"""Starting a growth run, or going on with the one in a run directory."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from growir import store
from growir.data.dataset import Dataset
from growir.data.nests import tensors_of
from growir.data.source import Source
from growir.errors import ExportError, RunError, cut
from growir.graph import Graph
from growir.growth.checking import check_policies
from growir.growth.checkpointing import checkpoint_of, gone_on
from growir.growth.config import DataConfig, ObjectiveConfig, RunConfig, parse_run
from growir.growth.contest import branches_of
from growir.growth.engine import Engine
from growir.growth.given import Given
from growir.growth.naming import is_named, named
from growir.growth.objective import Called
from growir.growth.observer import Event, GrowthResult, Observer
from growir.growth.optimizing import Factory
from growir.growth.policy import Starts
from growir.growth.problem import Problem, as_numpy
from growir.growth.progress import Progress
from growir.growth.registry import CONTEST, Known, registered
from growir.growth.schedule import Schedule
from growir.growth.session import Session, resolved
from growir.network import Network, load_graph
from growir.params import array_digest, param_table
from growir.runs.folder import CHECKPOINT, CONFIG, STATE, RunFolder
from growir.shapes import shapes_of

DIGESTED = 64  # samples of a source that tell it from another


def start_run(
    config: RunConfig,
    problem: Problem,
    start: Network | None = None,
    *,
    policies: Given | None = None,
    schedule: Schedule | None = None,
    optimizing: Factory | None = None,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    observer: Observer | None = None,
) -> GrowthResult:
    """Run, or go on with, a growth run; with a run directory if `out` is given.

    Raises:
        RunError: The directory cannot be used, or the run in it was started with other settings.
        KeyboardInterrupt: As it came; the directory holds the last completed growth.
    """
    observer = observer or Observer()
    if resume and out is None:
        raise RunError("a run is resumed in its folder; give it as out")
    given = start
    saved = read_config(Path(out), policies) if resume and out is not None else None
    config = (config.going_on_from(saved) if saved else config).started_from(given is not None)
    config = resolved(config, problem, start)
    start = start or first_network(problem, config, policies)
    check_start(start, problem, config)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(config.threads or threads)
        session = Session(start, problem, config, observer.tick, observer.epoch, optimizing)

        def engine(session: Session, observer: Observer, progress: Progress | None, earlier: Sequence[Event]) -> Engine:
            return Engine(session, observer, given, progress, earlier, policies, schedule)

        if out is None:
            return engine(session, observer, None, ()).run()
        check_policies(session, branches_of(config, policies))  # before there is a folder
        folder = RunFolder(Path(out), _digest(start, problem))
        if saved:
            _same_settings(folder, resolved(saved.going_on_from(saved), problem, given), config)
        else:
            folder.create(config.to_toml(), None if problem.dataset is None else problem.dataset.description)
        with folder.alone():
            return _run_in(folder, observer, session, engine, resume=resume)
    finally:
        torch.set_num_threads(threads)


Making = Callable[[Session, Observer, "Progress | None", "Sequence[Event]"], Engine]


def objective_of(config: ObjectiveConfig) -> Any:
    """What [objective] names, as `as_objective` takes it; None where it names nothing."""
    if config.name is None:
        return None
    if ":" in config.name:
        return named(config.name, "[objective] name")
    return {"name": config.name} | ({} if config.axis is None else {"axis": config.axis})


def start_of(config: RunConfig) -> Network | None:
    """The network that a configuration names, if it names one.

    Raises:
        GraphError: The file is no network and no document.
        RunError: There is no such function, or it gives something else.
    """
    return None if config.network is None else network_named(config.network, config.seed)


def network_named(where: str, seed: int) -> Network:
    """The network in a folder, of a document, or that a function gives.

    Args:
        where: The folder, the document, or "package.module:function".
        seed: Of the weights, where a graph is all there is.

    Raises:
        GraphError: The file is no network and no document.
        RunError: There is no such function, or it gives something else.
    """
    found: object = named(where, "network") if is_named(where) and not Path(where).exists() else None
    if found is None:
        found = Network.load(where) if store.is_network(Path(where)) else load_graph(where)
    if callable(found):
        found = found()
    if isinstance(found, Graph):
        return Network.init(found, seed)
    if not isinstance(found, Network):
        raise RunError(
            f"network: {cut(where)} gives {type(found).__name__}, but a Network or a Graph is needed; of a torch model "
            "growir.from_torch(model, example_inputs) makes one"
        )
    return found


def first_network(problem: Problem, config: RunConfig, policies: Given | None = None) -> Network:
    """The network that growth starts from where none is given. Raises RunError if no policy of the run supplies one."""
    found = [branch.policy for branch in branches_of(config, policies)]
    for policy in found:
        if isinstance(policy, Starts):
            return policy.start(problem, config)
    raise RunError(
        f"policy {found[0].name}: it grows a network that is there, but none is given; give one to start from: "
        f"growir.grow(network, data, policy={found[0].name!r})"
    )


@dataclass(frozen=True, slots=True)
class _Recorder:
    """Writes what happens into a run directory before anybody else hears of it."""

    folder: RunFolder
    observer: Observer

    def event(self, event: Event) -> None:
        self.folder.event(event)
        self.observer.event(event)

    def accepted(self, step: int, graph: Graph) -> None:
        self.folder.accepted(step, graph)
        self.observer.accepted(step, graph)

    def checkpoint(self, session: Session, progress: Progress) -> None:
        self.folder.checkpoint(checkpoint_of(session, progress))
        self.observer.checkpoint(session, progress)


def _run_in(folder: RunFolder, observer: Observer, session: Session, engine: Making, *, resume: bool) -> GrowthResult:
    """Go on with the run in a folder, or with the one that `session` starts."""
    progress = None
    recorder = _Recorder(folder, observer)
    recording = dataclasses.replace(
        observer, event=recorder.event, accepted=recorder.accepted, checkpoint=recorder.checkpoint
    )
    try:
        if resume:
            done = folder.finished()
            if done is not None:
                return GrowthResult(done.network, done.grown, done.finished, done.events)
            last = folder.last()
            if last is not None:
                session, progress = gone_on(last, folder.path / CHECKPOINT / STATE, session)
            folder.rewind(last.events if last else [])
        result = engine(session, recording, progress, folder.events).run()
        folder.finish(result.network, result.finished)
    except KeyboardInterrupt:
        stopped = folder.interrupted()
        if stopped is not None:
            observer.event(stopped)
        raise
    except ExportError as error:
        hint = "; the last completed growth is kept: once that is mended, --resume goes on from it"
        raise RunError(f"{error}{hint if folder.resumable else ''}") from None
    return result


def check_start(start: Network, problem: Problem, config: RunConfig) -> None:
    """Refuse a network that the data or the budget does not fit. Raises RunError."""
    graph, data = start.graph, problem.dataset
    if all(param.buffer for param in param_table(graph).values()):
        raise RunError(f"the network {cut(graph.name)!r} has no parameter to train; put a bias before its output")
    if data is not None:
        _check_arrays(graph, data, problem)
    costs, budget = graph.costs(), config.budget
    for what, has, most in (("parameters", costs.parameters, budget.parameters), ("macs", costs.macs, budget.macs)):
        if most is not None and has > most:
            raise RunError(f"[budget] {what} is {most}, but the network has {has} before it grows; raise it")


def _check_arrays(graph: Graph, data: Dataset, problem: Problem) -> None:
    """Refuse a network that takes or gives something else than a data set with a description has. Raises RunError."""
    if len(graph.inputs) != 1:
        raise RunError(
            f"the network {cut(graph.name)!r} has {len(graph.inputs)} inputs, but x_train is one array; give "
            "growir.data.Data.from_arrays with one array for each input"
        )
    shapes = shapes_of(graph)
    takes, gives = shapes[graph.inputs[0].name], shapes[graph.outputs[0]]
    sample = ("N", *data.x_train.shape[1:])
    if takes.dims != sample or not takes.dtype.startswith("float"):
        raise RunError(f"the network takes {takes} of {takes.dtype}, but the samples are {sample} of float32")
    if isinstance(problem.objective, Called):
        return
    if len(graph.outputs) != 1:
        raise RunError(
            f"the network {cut(graph.name)!r} has {len(graph.outputs)} outputs, but this objective takes one; give a "
            "function of the tuple of outputs as objective"
        )
    if gives.dims != ("N", data.outputs):
        what = "classes" if data.task == "classification" else "targets"
        raise RunError(f"the network gives {gives}, but the data has {data.outputs} {what}: ('N', {data.outputs})")


def _digest(start: Network, problem: Problem) -> str:
    """What tells one run's data and first network from another's."""
    parts = [problem.task, start.graph.hash, *(array_digest(array) for array in start.arrays.values())]
    data = problem.dataset
    if data is not None:
        parts += [array_digest(array) for array in (data.x_train, data.y_train, data.x_test, data.y_test)]
        description = data.description
        if description.features is not None or description.classes not in (None, tuple(range(data.outputs))):
            parts.append(description.to_json())  # the same numbers may mean something else
    else:
        parts += [source_digest(each) for each in (problem.data.train, problem.data.select, problem.data.test)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def source_digest(source: Source | None) -> str:
    """What tells one source from another: its length and the first and last samples."""
    if source is None:
        return "none"
    first = next(iter(source.batches(DIGESTED, None)))
    digests = [array_digest(as_numpy(tensor)) for tensor in tensors_of((first.inputs, first.target))]
    return "\n".join([str(len(source)), *digests])


def _same_settings(folder: RunFolder, started: RunConfig, config: RunConfig) -> None:
    saved, asked = started.model_dump(mode="json"), config.model_dump(mode="json")
    if saved == asked:
        return
    differ: list[str] = []
    for key, value in saved.items():
        now = asked[key]
        if isinstance(value, dict) and isinstance(now, dict):
            before, after = cast("dict[str, Any]", value), cast("dict[str, Any]", now)
            # Where the name of a section is another, so are all its keys.
            keys = ["name"] if before.get("name") != after.get("name") else [*before, *(after.keys() - before.keys())]
            differ += [
                f"[{key}] {k}: {before.get(k)}, now {after.get(k)}" for k in keys if before.get(k) != after.get(k)
            ]
        elif value != now:
            differ.append(f"{key}: {value}, now {now}")
    raise RunError(
        f"{folder.path}: this run was started with other settings and cannot go on with these "
        f"({'; '.join(differ[:4])}); {folder.path / CONFIG} holds its own"
    )


def read_config(folder: Path, policies: Given | None = None) -> RunConfig:
    """The resolved configuration of a run directory.

    Args:
        folder: The run directory.
        policies: Those that did not come by name.

    Raises:
        RunError: This is no run, or its policy is not known here.
    """
    sections = _sections(folder)
    known: Known = policies.known if policies else {}
    section: object = sections.get("policy", {})
    name = cast("dict[str, object]", section).get("name") if isinstance(section, dict) else None
    if isinstance(name, str) and not (name in known or ":" in name or name == CONTEST or registered(name)):
        raise RunError(
            f"{folder / CONFIG}: the policy of this run is {cut(name)!r}, which has no such name here: it was given as "
            "an object, or is of a package that is gone; give it again, growir.grow(..., policy=..., resume=True)"
        )
    return parse_run(sections, str(folder / CONFIG), known)


def read_data_config(folder: Path) -> DataConfig:
    """What a run directory says of its data, whatever its policy. Raises RunError if this is no run."""
    return parse_run({"data": _sections(folder).get("data", {})}, str(folder / CONFIG)).data


def _sections(folder: Path) -> dict[str, Any]:
    import tomllib

    path = folder / CONFIG
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{path}: there is no run to resume here: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: this is not a valid TOML run file: {error}") from None
