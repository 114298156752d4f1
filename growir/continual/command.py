"""`growir continual`: a sequence of tasks at the terminal.

run.toml          the configuration
state/            what going on needs, after each task
report.txt        accuracies, sizes and new bytes by task
accuracy.svg      the accuracies as a heat map
master/           the master, of methods that have one
networks/         of other methods a network for each task
onnx/             each task's network for ONNX Runtime
summary.json      written last: a sequence that has it is finished
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

from growir import store
from growir.columns import Grid
from growir.continual.config import ContinualConfig, located, parse_sequence, read_sequence
from growir.continual.experiences import Experience
from growir.continual.keeping import STATE, Kept
from growir.continual.learning import ContinualResult, learn
from growir.continual.report import heat_map, names_width, page, summary, task_line
from growir.continual.starting import experiences_of, first_network
from growir.errors import RunError, counted
from growir.growth.naming import importing_from
from growir.network import Network
from growir.runs.folder import CONFIG, SUMMARY, latest_folder, new_folder, take_folder

REPORT, HEAT_MAP, MASTER, NETWORKS, ONNX = "report.txt", "accuracy.svg", "master", "networks", "onnx"


def run_sequence(path: Path, *, out: Path | None, resume: bool, quiet: bool) -> list[str | Grid]:
    """Run what a run file asks for; what came of it, as the command prints it.

    Args:
        path: The run file.
        out: The folder; by default a new runs/NAME-NNN, or where `resume` is asked for the last of these.
        resume: Whether to go on behind the last task that was finished there.
        quiet: Whether nothing is said after each task.

    Raises:
        GrowirError: Run file, data, network or folder are wrong; one message.
        KeyboardInterrupt: The user stopped it; the folder can be resumed.
    """
    with importing_from(path.parent, Path.cwd()):
        config = read_sequence(path)
        if resume:
            out = out or latest_folder(config.name)
            _same(config, out)
        experiences = experiences_of(config)
        first = first_network(config, experiences)
        folder = out or new_folder(config.name)
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(config.threads or before)
            return _run(config, experiences, first, folder, resume=resume, quiet=quiet)
        finally:
            torch.set_num_threads(before)
            if out is None and not (folder / STATE).exists():  # what could not start leaves nothing behind
                (folder / CONFIG).unlink(missing_ok=True)
                with suppress(OSError):
                    folder.rmdir()


def _run(
    config: ContinualConfig,
    experiences: Sequence[Experience],
    first: Network,
    folder: Path,
    *,
    resume: bool,
    quiet: bool,
) -> list[str | Grid]:
    take_folder(folder, config.to_toml(), resume=resume)
    kept: list[Kept] = []
    width = names_width([each.name for each in experiences])

    def told(state: Kept) -> None:
        if not quiet and not kept:
            print(f"{folder}: {counted(len(experiences), 'task')} by {config.method}", flush=True)
        kept.append(state)
        if not quiet:
            print(task_line(state, width), flush=True)

    found = learn(
        first,
        experiences,
        method=config.method,
        settings=config.settings.model_dump(),
        scenario=config.tasks.scenario,
        seed=config.seed,
        out=folder,
        resume=resume,
        told=told,
    )
    written = list(page(kept[-1], config.method))
    _write(folder, config, found, kept[-1], written)
    return written


def _same(config: ContinualConfig, folder: Path) -> None:
    """Refuse to go on with another configuration. Raises RunError."""
    import tomllib

    path = folder / CONFIG
    try:
        started = parse_sequence(tomllib.loads(path.read_text(encoding="utf-8")), str(path))
    except FileNotFoundError:
        if folder.is_dir() and not (folder / STATE).exists():
            return  # it was stopped before it began
        raise RunError(f"{path}: there is no run to resume here") from None
    except OSError as error:
        raise RunError(f"{path}: there is no run to resume here: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: this is not a valid TOML run file: {error}") from None
    now, then = (each.model_dump(mode="json") for each in (config, located(started, Path(os.sep))))
    changed = ["[method]" if key == "settings" else key for key in now if now[key] != then.get(key)]
    if changed:
        raise RunError(
            f"{folder}: the run was started with another {' and '.join(changed)}; give what {CONFIG} there has, or "
            "another --out"
        )


def _write(
    folder: Path, config: ContinualConfig, found: ContinualResult, state: Kept, written: Sequence[str | Grid]
) -> None:
    """Write what came of it. Raises ExportError with the system's reason."""
    store.write_file(folder / REPORT, ("\n\n".join(map(str, written)) + "\n").encode())
    title = f"{config.name}: accuracy by {config.method}, in percent"
    store.write_file(folder / HEAT_MAP, heat_map(state, title).encode())
    if found.master is not None:
        found.master.save(folder / MASTER)
    for k, network in enumerate(found.networks.values()):
        if found.master is None:
            network.save(folder / NETWORKS / str(k + 1))
        if config.onnx:
            (folder / ONNX).mkdir(exist_ok=True)
            network.to_onnx(folder / ONNX / f"{k + 1}.onnx")
    text = json.dumps({**summary(state, config.method), "name": config.name, "seed": config.seed}, indent=1)
    store.write_file(folder / SUMMARY, (text + "\n").encode())
