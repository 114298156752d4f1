"""The run directory: everything a growth run leaves behind, and how it goes on after a stop.

run.toml            the resolved configuration
events.jsonl        what happened, one JSON object a line
growth/NNNN.json    the document after each accepted growth, 0000 the start
checkpoint/         network/, optimizer.safetensors and state.json after the last completed step
network/            the found network after the final fit (after an interrupt: the last completed step's)
model.onnx          the same for ONNX Runtime
summary.json        written last: a run that has it is finished
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from growir import __version__, store
from growir.document import dumps
from growir.errors import ExportError, GraphError, RunError
from growir.graph import Graph
from growir.growth.config import RunConfig, parse_run
from growir.growth.data import Dataset, empty_network
from growir.growth.engine import Event, GrowthResult, Observer, Progress, run_growth
from growir.growth.session import Session
from growir.network import Network

CONFIG, EVENTS, GROWTH = "run.toml", "events.jsonl", "growth"
CHECKPOINT, OPTIMIZER, STATE = "checkpoint", "optimizer.safetensors", "state.json"
NETWORK, MODEL, SUMMARY = "network", "model.onnx", "summary.json"


class RunFolder:
    """A run directory, new or resumed."""

    def __init__(self, path: Path, observer: Observer) -> None:
        self.path = path
        self.observer = observer
        self.events: list[Event] = []

    # -- writing ------------------------------------------------------------------------------------------------------

    def create(self, config: RunConfig) -> None:
        """Make the folder. Raises RunError if there is anything in it, or it cannot be written."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if any(self.path.iterdir()):
                raise RunError(f"{self.path}: this folder is not empty; choose another --out, or --resume a run in it")
            (self.path / GROWTH).mkdir()
        except OSError as error:
            raise RunError(f"{self.path}: cannot be written: {error.strerror or error}") from None
        store.write_file(self.path / CONFIG, config.to_toml().encode())

    def event(self, event: Event) -> None:
        """Append an event and pass it on."""
        self.events.append(event)
        line = json.dumps(event, allow_nan=False, default=str) + "\n"
        try:
            with (self.path / EVENTS).open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            raise RunError(f"{self.path / EVENTS}: cannot be written: {error.strerror or error}") from None
        self.observer.event(event)

    def accepted(self, step: int, graph: Graph) -> None:
        """Keep the document of an accepted growth."""
        store.write_file(self.path / GROWTH / f"{step:04}.json", dumps(graph).encode())
        self.observer.accepted(step, graph)

    def checkpoint(self, session: Session, progress: Progress) -> None:
        """Keep all that going on needs, in one move."""
        state = {
            **asdict(progress),
            "events": len(self.events),
            "threads": torch.get_num_threads(),
            "growir": __version__,
        }
        network = session.network()
        optimizer = {key: tensor.numpy() for key, tensor in session.optimizer_tensors().items()}

        def fill(folder: Path) -> None:
            store.save_network(folder / NETWORK, network.graph, network.arrays, network.values)
            store.write_tensors(folder / OPTIMIZER, optimizer)
            (folder / STATE).write_text(json.dumps(state) + "\n", encoding="utf-8")

        store.write_folder(self.path / CHECKPOINT, fill)
        self.observer.checkpoint(session, progress)

    def finish(self, result: GrowthResult) -> None:
        """Write what users take away; the summary last."""
        result.network.save(self.path / NETWORK)
        result.network.to_onnx(self.path / MODEL)
        store.write_file(self.path / SUMMARY, (json.dumps(result.summary, indent=1) + "\n").encode())

    def interrupted(self) -> None:
        """After a stop in mid-run: leave the last completed step's network where the final one would be."""
        checkpoint = self.path / CHECKPOINT / NETWORK
        if not store.is_network(checkpoint):
            return
        network = Network.load(checkpoint)
        network.save(self.path / NETWORK)
        network.to_onnx(self.path / MODEL)
        self.event({"event": "interrupted", "hash": network.graph.hash})

    # -- reading ------------------------------------------------------------------------------------------------------

    def config(self) -> RunConfig:
        """The run's resolved configuration. Raises RunError if this is no run."""
        import tomllib

        path = self.path / CONFIG
        try:
            return parse_run(tomllib.loads(path.read_text(encoding="utf-8")), str(path))
        except OSError as error:
            raise RunError(f"{path}: there is no run to resume here: {error.strerror or error}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise RunError(f"{path}: this is not a valid TOML run file: {error}") from None

    def finished(self) -> GrowthResult | None:
        """The result of a finished run."""
        if not (self.path / SUMMARY).is_file():
            return None
        summary = json.loads((self.path / SUMMARY).read_text(encoding="utf-8"))
        grown = Network.load(self.path / CHECKPOINT / NETWORK)
        return GrowthResult(Network.load(self.path / NETWORK), grown, summary, self._read_events(None))

    def last(self) -> tuple[Network, dict[str, torch.Tensor], Progress] | None:
        """Network, optimizer state and progress after the last completed step; None before the first."""
        folder = self.path / CHECKPOINT
        store.recover(folder)
        if not folder.is_dir():
            return None
        try:
            state: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
            progress = Progress(**{key: state[key] for key in ("step", "seconds", "growing", "ended")})
            count, threads = int(state["events"]), int(state["threads"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{folder / STATE}: this checkpoint is damaged and cannot be resumed: {error}") from None
        try:
            network = Network.load(folder / NETWORK)
            arrays, _ = store.read_tensors(folder / OPTIMIZER)
        except GraphError as error:
            raise RunError(f"{folder}: this checkpoint is damaged and cannot be resumed: {error}") from None
        self.events = self._read_events(count)
        # Another number of threads sums in another order, and the run would no longer be the same to the bit.
        torch.set_num_threads(threads)
        lines = "".join(json.dumps(event) + "\n" for event in self.events)
        store.write_file(self.path / EVENTS, lines.encode())
        return network, {key: torch.from_numpy(np.array(array)) for key, array in arrays.items()}, progress

    def _read_events(self, count: int | None) -> list[Event]:
        lines = (self.path / EVENTS).read_text(encoding="utf-8").splitlines()
        try:
            return [json.loads(line) for line in lines[:count]]
        except ValueError as error:
            raise RunError(f"{self.path / EVENTS}: this file is damaged: {error}") from None


def next_folder(name: str, runs: Path = Path("runs")) -> Path:
    """The first runs/NAME-NNN that is past all there are."""
    numbers = [int(p.name[len(name) + 1 :]) for p in _runs_of(name, runs)]
    return runs / f"{name}-{max(numbers, default=0) + 1:03}"


def latest_folder(name: str, runs: Path = Path("runs")) -> Path:
    """The last runs/NAME-NNN. Raises RunError if there is none."""
    found = _runs_of(name, runs)
    if not found:
        raise RunError(f"{runs}/{name}-NNN: there is no run to resume; give its folder with --out")
    return max(found, key=lambda p: int(p.name[len(name) + 1 :]))


def _runs_of(name: str, runs: Path) -> list[Path]:
    if not runs.is_dir():
        return []
    return [p for p in runs.iterdir() if p.name.startswith(f"{name}-") and p.name[len(name) + 1 :].isdigit()]


def start_run(
    config: RunConfig,
    data: Dataset,
    start: Network | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    observer: Observer | None = None,
) -> GrowthResult:
    """Run, or go on with, a growth run; with a run directory if `out` is given.

    Raises:
        RunError: The directory cannot be used, or the run in it was started with other settings.
        KeyboardInterrupt: As it came; the directory holds the last completed step.
    """
    observer = observer or Observer()
    config = config.model_copy(update={"train": config.train.resolved(len(data.x_train))})
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    start = start or empty_network(data, config.data, config.name)
    if out is None:
        return run_growth(Session(start, data, config, observer.tick), data, observer)
    folder = RunFolder(Path(out), observer)
    session, progress = Session(start, data, config, observer.tick), None
    if resume:
        _same_settings(folder, config)
        done = folder.finished()
        if done is not None:
            return done
        last = folder.last()
        if last is not None:
            network, optimizer, progress = last
            session = Session(network, data, config, observer.tick)
            session.restore_optimizer(optimizer)
    else:
        folder.create(config)
    recording = replace(observer, event=folder.event, accepted=folder.accepted, checkpoint=folder.checkpoint)
    try:
        result = run_growth(session, data, recording, progress, folder.events)
        folder.finish(result)
    except KeyboardInterrupt:
        folder.interrupted()
        raise
    except ExportError as error:
        raise RunError(str(error)) from None
    return result


def _same_settings(folder: RunFolder, config: RunConfig) -> None:
    saved, asked = folder.config().model_dump(mode="json"), config.model_dump(mode="json")
    if saved == asked:
        return
    differ = []
    for key in saved:
        if isinstance(saved[key], dict):
            differ += [
                f"[{key}] {k}: {saved[key][k]}, now {asked[key][k]}"
                for k in saved[key]
                if saved[key][k] != asked[key][k]
            ]
        elif saved[key] != asked[key]:
            differ.append(f"{key}: {saved[key]}, now {asked[key]}")
    raise RunError(
        f"{folder.path}: this run was started with other settings and cannot go on ({'; '.join(differ[:4])})"
    )
