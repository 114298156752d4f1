"""The run directory: everything a growth run leaves behind, and how it goes on after a stop.

run.toml            the resolved configuration
data.json           how rows become numbers, and the network's numbers answers
events.jsonl        what happened, one JSON object a line
growth/NNNN.json    the document after each accepted growth, 0000 the start
checkpoint/         all that going on needs, as it was after a completed growth or in the middle of training: network/,
                    optimizer.safetensors and state.json, policy.safetensors if the policy keeps arrays; in a contest
                    also trials/, each network that was fitted to be compared, and losses.safetensors, what judges them
network/            the found network after the final fit (after an interrupt: the last checkpoint's)
model.onnx          the same for ONNX Runtime
summary.json        written last: a run that has it is finished
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from growir import store
from growir.data.description import FILE as DATA
from growir.data.description import Description
from growir.document import dumps
from growir.errors import ExportError, GraphError, GrowirError, RunError, cut
from growir.graph import Graph
from growir.network import Network
from growir.runs.reading import EVENTS, read_event
from growir.runs.records import Event, Finished, Interrupted
from growir.runs.values import entries, mapping

CONFIG, GROWTH = "run.toml", "growth"
CHECKPOINT, OPTIMIZER, POLICY, STATE = "checkpoint", "optimizer.safetensors", "policy.safetensors", "state.json"
TRIALS, LOSSES, GROWN = "trials", "losses.safetensors", "grown"
NETWORK, MODEL, SUMMARY = "network", "model.onnx", "summary.json"


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A run after a completed growth, or in the middle of training: all that going on needs.

    Attributes:
        network: The network that is growing.
        optimizer: The optimizer's arrays of whatever shape and dtype: "entry:parameter" for each parameter, with
            "place/" before it for those of an optimizer that another one holds. Parameters that are not the network's
            are called "#" and something.
        state: How far the run is, as JSON values. By custom "position" says where in a phase of training it stands,
            and is None between two; "optimizer" and "policy" hold what of these is no array.
        events: Every event until then; those of the folder where it is written.
        policy: The policy's arrays, by names of its own.
        trials: The networks that were fitted to be compared, of branches that are done or of several sizes, by name.
        losses: (n,) what each of them is judged by.
        grown: The network that growth came to, while the final fit is under way; None before.
    """

    network: Network
    optimizer: Mapping[str, NDArray[Any]]
    state: Mapping[str, Any]
    events: Sequence[Event] = ()
    policy: Mapping[str, NDArray[Any]] = field(default_factory=dict[str, NDArray[Any]])
    trials: Mapping[str, Network] = field(default_factory=dict[str, Network])
    losses: Mapping[str, NDArray[Any]] = field(default_factory=dict[str, NDArray[Any]])
    grown: Network | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What a finished run left: the network before and after the final fit, and its events, of which one is last."""

    grown: Network
    network: Network
    finished: Finished
    events: list[Event]


class RunFolder:
    """A run directory, new or resumed.

    Args:
        path: The folder.
        given: Digest of data and first network: a run goes on only with the ones it was started with.

    Attributes:
        events: Every event so far.
    """

    def __init__(self, path: Path, given: str) -> None:
        self.path = path
        self.given = given
        self.events: list[Event] = []
        self._trials: Mapping[str, Network] = {}  # that the present checkpoint holds

    # -- writing ------------------------------------------------------------------------------------------------------

    def create(self, config: str, description: Description | None) -> None:
        """Make the folder; `config` is the text of run.toml.

        Raises RunError if there is anything in it, or it cannot be written; nothing has changed.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"{self.path}: is a file, but a run needs a folder; choose another --out")
        occupied = RunError(f"{self.path}: this folder is not empty; choose another --out, or --resume the run in it")
        new = not self.path.exists()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if any(self.path.iterdir()):
                raise occupied
            (self.path / GROWTH).mkdir()
        except FileExistsError:  # another run was faster
            raise occupied from None
        except OSError as error:
            raise RunError(f"{self.path}: cannot be written: {error.strerror or error}") from None
        try:
            if description is not None:
                store.write_file(self.path / DATA, description.to_json().encode())
            store.write_file(self.path / CONFIG, config.encode())
        except BaseException:
            (self.path / GROWTH).rmdir()
            (self.path / DATA).unlink(missing_ok=True)
            if new:
                self.path.rmdir()
            raise

    @contextmanager
    def alone(self) -> Generator[None]:
        """Keep other processes out, where the system has file locks. Raises RunError if one is at work here."""
        try:
            import fcntl
        except ImportError:
            yield
            return
        with (self.path / CONFIG).open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(f"{self.path}: another process is at work on this run; wait until it ends") from None
            except OSError:
                pass  # a file system without locks
            yield

    def event(self, event: Event) -> None:
        """Append an event. Raises ExportError if it cannot be written."""
        self.events.append(event)
        line = _line(event)
        try:
            with (self.path / EVENTS).open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            raise ExportError(f"{self.path / EVENTS}: cannot be written: {error.strerror or error}") from None

    def accepted(self, step: int, graph: Graph) -> None:
        """Keep the document of an accepted growth, and none that followed it in another branch."""
        for stale in (self.path / GROWTH).glob("*.json"):
            if stale.stem.isdigit() and int(stale.stem) > step:
                stale.unlink()
        store.write_file(self.path / GROWTH / f"{step:04}.json", dumps(graph).encode())

    def checkpoint(self, found: Checkpoint) -> None:
        """Keep all that going on needs, in one move."""
        events = [event.to_json() for event in self.events]
        arrays = {"optimizer": _forms(found.optimizer), "policy": _forms(found.policy)}
        state = {**found.state, "given": self.given, "arrays": arrays, "events": events}

        def fill(folder: Path) -> None:
            store.save_network(folder / NETWORK, found.network.graph, found.network.arrays, found.network.values)
            if found.grown is not None:
                kept = found.grown
                store.save_network(folder / GROWN, kept.graph, kept.arrays, kept.values)
            for name, network in found.trials.items():
                place, written = folder / TRIALS / name, self.path / CHECKPOINT / TRIALS / name
                if self._trials.get(name) is network and written.is_dir():
                    shutil.copytree(written, place, copy_function=_link)  # a branch that is done changes no more
                else:
                    store.save_network(place, network.graph, network.arrays, network.values)
            if found.losses:
                store.write_tensors(folder / LOSSES, found.losses)
            if found.policy:
                store.write_tensors(folder / POLICY, found.policy)
            store.write_tensors(folder / OPTIMIZER, found.optimizer)
            (folder / STATE).write_text(json.dumps(state) + "\n", encoding="utf-8")

        store.write_folder(self.path / CHECKPOINT, fill)
        self._trials = dict(found.trials)

    def finish(self, network: Network, found: Finished) -> None:
        """Write what users take away; the summary last."""
        network.save(self.path / NETWORK)
        network.to_onnx(self.path / MODEL)
        store.write_file(self.path / SUMMARY, (json.dumps(found.summary, indent=1, allow_nan=False) + "\n").encode())

    def interrupted(self) -> Event | None:
        """After a stop in mid-run: leave the last completed growth's network where the final one would be.

        Returns the event that says so; None where there is nothing to leave.
        """
        checkpoint = self.path / CHECKPOINT / NETWORK
        if (self.path / SUMMARY).is_file() or not store.is_network(checkpoint):
            return None  # it came after all was done, or before anything was
        with suppress(GrowirError):  # the checkpoint serves as well
            network = Network.load(checkpoint)
            network.save(self.path / NETWORK)
            network.to_onnx(self.path / MODEL)
            event = Interrupted(hash=network.graph.hash)
            self.event(event)
            return event
        return None

    # -- reading ------------------------------------------------------------------------------------------------------

    @property
    def resumable(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return (self.path / CHECKPOINT).is_dir()

    def finished(self) -> Found | None:
        """What a finished run left; None of one that is not."""
        if not (self.path / SUMMARY).is_file():
            return None
        (_, events), finished = self._state(), Finished.from_json(_read_json(self.path / SUMMARY))
        kept, network = self.path / CHECKPOINT / GROWN, Network.load(self.path / NETWORK)
        grown = Network.load(kept if store.is_network(kept) else self.path / CHECKPOINT / NETWORK)
        return Found(grown, network, finished, [*events, finished])

    def last(self) -> Checkpoint | None:
        """All that going on needs, as it was after the last completed growth; None before the first.

        Raises RunError if the checkpoint is damaged.
        """
        for pattern in (".*.new-*", f"{GROWTH}/.*.new-*", ".growir-*"):  # of a process that was killed
            for leftover in self.path.glob(pattern):
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        folder = self.path / CHECKPOINT
        store.recover(folder)
        if not folder.is_dir():
            return None
        state, events = self._state()
        try:
            network = Network.load(folder / NETWORK)
            trials = {path.name: Network.load(path) for path in sorted((folder / TRIALS).glob("*"))}
            losses = store.read_tensors(folder / LOSSES)[0] if trials else {}
            grown = Network.load(folder / GROWN) if store.is_network(folder / GROWN) else None
            optimizer, _ = store.read_tensors(folder / OPTIMIZER)
            policy = store.read_tensors(folder / POLICY)[0] if (folder / POLICY).is_file() else {}
        except GraphError as error:
            raise damaged(folder, error) from None
        _check_slots(folder / OPTIMIZER, network, optimizer)
        recorded: object = state.get("arrays")
        if recorded is None:  # of an earlier version, whose optimizer was AdamW
            _check_adamw(folder / OPTIMIZER, network, optimizer)
        elif recorded != {"optimizer": _forms(optimizer), "policy": _forms(policy)}:
            _refuse_other_arrays(folder, mapping(recorded), {OPTIMIZER: optimizer, POLICY: policy})
        return Checkpoint(network, optimizer, state, events, policy, trials, losses, grown)

    def rewind(self, events: Sequence[Event]) -> None:
        """Take back every event that was written after these."""
        self.events = list(events)
        store.write_file(self.path / EVENTS, "".join(map(_line, self.events)).encode())

    def _state(self) -> tuple[dict[str, Any], list[Event]]:
        """How far the run is, and its events until then."""
        path = self.path / CHECKPOINT / STATE
        store.recover(path.parent)
        state = _read_json(path)
        found: object = state.get("events")
        events = [read_event(event) for event in cast("list[object]", found)] if isinstance(found, list) else [None]
        known = [event for event in events if event is not None]
        if len(known) < len(events):
            raise RunError(f"{path}: this file is damaged: it holds no list of events")
        if state.get("given") != self.given:
            raise RunError(
                f"{self.path}: the data, or the network it started from, is not what it was; it cannot go on"
            )
        return state, known


def damaged(path: Path, what: object) -> RunError:
    """What is said of a checkpoint, or a file of one, that something is wrong with."""
    return RunError(f"{path}: this checkpoint is damaged and cannot be resumed: {what}")


def _link(source: str, target: str) -> None:
    """Give a file that nobody changes in place a second name, or where that cannot be, copy it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _line(event: Event) -> str:
    return json.dumps(event.to_json(), allow_nan=False) + "\n"


def _read_json(path: Path) -> dict[str, Any]:
    """A file of a run that holds one JSON object. Raises RunError if it does not."""
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: this file is damaged: {error}") from None
    if not isinstance(found, dict):
        raise RunError(f"{path}: this file is damaged: it holds no JSON object")
    return cast("dict[str, Any]", found)


def _forms(arrays: Mapping[str, NDArray[Any]]) -> dict[str, list[Any]]:
    """The dtype and shape of each array, as state.json holds them."""
    return {name: [array.dtype.name, *array.shape] for name, array in arrays.items()}


def _check_slots(path: Path, network: Network, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Refuse what is no optimizer state of a network's parameters, or no number. Raises RunError."""
    for name, array in arrays.items():
        entry, _, key = name.partition(":")
        if not entry or not (key in network.arrays or key.startswith("#")):
            raise damaged(path, f"{cut(name)} is no optimizer state of the network beside it")
        if not np.isfinite(array.astype(np.float64) if array.dtype.kind not in "biu" else array).all():
            raise damaged(path, f"{cut(name)} holds NaN or infinite numbers")


def _check_adamw(path: Path, network: Network, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Refuse what AdamW on float32 does not keep, which is all that there was. Raises RunError."""
    for name, array in arrays.items():
        parameter = network.arrays.get(name.partition(":")[2])
        if parameter is None or array.shape not in ((), parameter.shape) or array.dtype != np.float32:
            raise damaged(path, f"{cut(name)} is no optimizer state of the network beside it")


def _refuse_other_arrays(
    folder: Path, recorded: Mapping[str, Any], found: Mapping[str, Mapping[str, NDArray[Any]]]
) -> None:
    """Say which arrays are not those that state.json was written with. Raises RunError."""
    for file, arrays in found.items():
        known, forms = mapping(recorded.get(file.partition(".")[0])), _forms(arrays)
        for name in [*known, *forms]:
            if known.get(name) != forms.get(name):
                here, there = (_form_text(forms.get(name)), _form_text(known.get(name)))
                raise damaged(folder / file, f"{cut(name)} is {here}, but {there} by {STATE} beside it")
    raise damaged(folder / STATE, "it does not say which arrays belong to it")


def _form_text(form: object) -> str:
    """A dtype and shape in words."""
    parts = entries(form)
    return f"{cut(parts[0])} {cut(list(parts[1:]))}" if parts else "missing"


def new_folder(name: str, runs: Path = Path("runs")) -> Path:
    """Make the first runs/NAME-NNN that is past all there are; nobody else gets it. Raises RunError if it cannot."""
    while True:
        numbers = [_number(p, name) for p in _runs_of(name, runs)]
        path = runs / f"{name}-{max(numbers, default=0) + 1:03}"
        try:
            path.mkdir(parents=True)
        except OSError as error:
            if isinstance(error, FileExistsError) and runs.is_dir():
                continue  # another run was faster
            raise RunError(f"{path}: cannot be made: {error.strerror or error}; choose another --out") from None
        else:
            return path


def take_folder(folder: Path, config: str, *, resume: bool) -> None:
    """Take a folder for a run that keeps no records of growth, and leave its configuration there if there is none.

    Args:
        folder: It; made if it is not there.
        config: The text of the run file.
        resume: Whether there is a run in it; else it is empty.

    Raises:
        RunError: It cannot be used, or is not empty.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".*.new-*") if resume else ():  # of a process that was killed as it wrote
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        occupied = any(folder.iterdir())
    except OSError as error:
        raise RunError(f"{folder}: cannot be used: {error.strerror or error}; choose another --out") from None
    if occupied and not resume:
        raise RunError(f"{folder}: this folder is not empty; choose another --out, or --resume the run in it")
    if not (folder / CONFIG).exists():
        store.write_file(folder / CONFIG, config.encode())


def latest_folder(name: str, runs: Path = Path("runs")) -> Path:
    """The last runs/NAME-NNN. Raises RunError if there is none."""
    found = _runs_of(name, runs)
    if not found:
        raise RunError(f"{runs}/{name}-NNN: there is no run to resume; give its folder with --out")
    return max(found, key=lambda path: _number(path, name))


def _runs_of(name: str, runs: Path) -> list[Path]:
    if not runs.is_dir():
        return []
    return [p for p in runs.iterdir() if re.fullmatch(re.escape(name) + "-[0-9]+", p.name)]


def _number(path: Path, name: str) -> int:
    return int(path.name[len(name) + 1 :])
