"""`growir cells`: a search for cells at the terminal.

run.toml          the configuration
search/           the growth run, as `growir grow` leaves it
genotype.txt      the found cells in DARTS' notation
normal.json       a normal cell as a document, with the inner channels that it grew, and reduce.json a reduction cell
cells.svg         both as papers draw them
evaluation/       what going on with the training needs, while it trains
network/          the network of found cells, trained from scratch
network.onnx      the same for ONNX Runtime
report.txt        widths, cells, sizes and scores
summary.json      written last: a search that has it is finished
"""

from __future__ import annotations

import json
import os
import shutil
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from growir import store
from growir.cells.genotype import Genotype, genotype
from growir.cellsearch.config import CellSearchConfig, located, parse_search, read_search
from growir.cellsearch.evaluating import Evaluated, check, train
from growir.cellsearch.problem import Images, images_of
from growir.cellsearch.report import cost_line, genotype_lines, search_cost, widths
from growir.cellsearch.searching import FOUND, GROWN, first_found, known, search
from growir.columns import Grid
from growir.document import decode
from growir.errors import GraphError, RunError
from growir.growth.contest import strategies_of
from growir.growth.naming import importing_from
from growir.growth.observer import Observer
from growir.network import load_graph
from growir.render import cells_of_plan, draw_cells
from growir.render.svg import WRITTEN
from growir.runs.display import Display
from growir.runs.folder import CONFIG, SUMMARY, latest_folder, new_folder, take_folder

REPORT, PICTURE, EVALUATION, NETWORK, ONNX = "report.txt", "cells.svg", "evaluation", "network", "network.onnx"
SAID = 20  # lines that a training says of itself at most


def run_search(path: Path, *, out: Path | None, resume: bool, quiet: bool) -> list[str | Grid]:
    """Run what a run file asks for; what came of it, as the command prints it.

    Args:
        path: The run file.
        out: The folder; by default a new runs/NAME-NNN, or where `resume` is asked for the last of these.
        resume: Whether to go on in it.
        quiet: Whether nothing is said meanwhile.

    Raises:
        GrowirError: Run file, data or folder are wrong; one message.
        KeyboardInterrupt: The user stopped it; the folder can be resumed.
    """
    with importing_from(path.parent, Path.cwd()):
        config = read_search(path)
        if resume:
            out = out or latest_folder(config.name)
            _same(config, out)
        if resume and out is not None and (out / SUMMARY).exists():
            return [(out / REPORT).read_text(encoding="utf-8").rstrip(), f"{out}: it is finished"]
        images = images_of(config)
        chosen = _checked(config, images)
        folder = out or new_folder(config.name)
        new = not folder.exists() or out is None
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(config.threads or before)
            take_folder(folder, config.to_toml(), resume=resume)
            return _run(config, images, chosen, folder, quiet=quiet)
        finally:
            torch.set_num_threads(before)
            if new and not any((folder / each).exists() for each in (GROWN, EVALUATION, SUMMARY)):
                for each in (CONFIG, PICTURE):  # what could not start leaves nothing behind
                    (folder / each).unlink(missing_ok=True)
                with suppress(OSError):
                    folder.rmdir()


def _checked(config: CellSearchConfig, images: Images) -> Genotype | None:
    """The genotype that is given, if one is; whatever cannot be done is said here, before there is a folder.

    Raises:
        GrowirError: As of the search or of the training.
    """
    chosen = None if config.genotype is None else genotype(config.genotype)
    any_found = chosen
    if any_found is None:
        start = images.network(config.cells.template(), config.cells, config.name, config.seed)
        any_found = first_found(config, start.graph)
    check(images.network(any_found, config.evaluation, config.name, config.seed), images, config.evaluation)
    return chosen


def _run(
    config: CellSearchConfig, images: Images, chosen: Genotype | None, folder: Path, *, quiet: bool
) -> list[str | Grid]:
    lines: list[str | Grid] = []
    summary: dict[str, Any] = {"name": config.name, "seed": config.seed}
    if chosen is None:
        chosen = known(folder) or _search(config, images, folder, quiet=quiet)
        grown = load_graph(folder / GROWN)
        told = _summary(folder / GROWN / SUMMARY)
        summary["search"] = {
            **search_cost(told),
            "growths": told["steps"],
            "parameters": grown.costs().parameters,
            "most_hardly_grown": config.cells.most,
        }
        lines.append(cost_line("grown", grown, config.cells.cells))
        lines += widths(grown)
    summary["genotype"] = str(chosen)
    picture = draw_cells(cells_of_plan(chosen), config.name)
    store.write_file(folder / PICTURE, f"{WRITTEN}\n{picture}".encode())
    lines.append("\n".join(genotype_lines(chosen)))
    lines.append(str(chosen))
    if config.evaluation.epochs:
        found = _train(config, images, chosen, folder, quiet=quiet)
        costs = found.network.graph.costs()
        summary["evaluation"] = {
            "parameters": costs.parameters,
            "macs": costs.macs,
            "loss": found.loss,
            "test": found.metrics,
            "cpu_seconds": round(found.cpu, 2),
        }
        lines.append(cost_line("trained from scratch", found.network.graph, config.evaluation.cells))
        if found.metrics:
            lines.append("test " + ", ".join(f"{name} {value:.4f}" for name, value in found.metrics.items()))
    store.write_file(folder / REPORT, ("\n\n".join(map(str, lines)) + "\n").encode())
    store.write_file(folder / SUMMARY, (json.dumps(summary, indent=1) + "\n").encode())
    shutil.rmtree(folder / EVALUATION, ignore_errors=True)  # only now, since a summary says that nothing is left to do
    made = [
        REPORT,
        PICTURE,
        *([FOUND] if config.genotype is None else []),
        *([NETWORK, ONNX] if config.evaluation.epochs else []),
    ]
    lines.append(f"{folder}: {', '.join(made)}")
    return lines


def _search(config: CellSearchConfig, images: Images, folder: Path, *, quiet: bool) -> Genotype:
    growth = config.growth()
    with Display(folder / GROWN, config.name, strategies_of(growth), quiet=quiet) as display:
        observer = Observer(event=display.event, tick=display.tick, epoch=display.epoch)
        found = search(config, images, folder, observer)
    return found.genotype


def _train(config: CellSearchConfig, images: Images, chosen: Genotype, folder: Path, *, quiet: bool) -> Evaluated:
    settings = config.evaluation
    start = images.network(chosen, settings, config.name, config.seed)
    every = max(1, settings.epochs // SAID)

    def told(done: int, total: int, loss: float) -> None:
        if not quiet and (done % every == 0 or done == total):
            print(f"training from scratch: epoch {done} of {total}, loss {loss:.4f}", flush=True)

    found = train(start, images, settings, config.seed, folder / EVALUATION, told)
    found.network.save(folder / NETWORK)
    found.network.to_onnx(folder / ONNX)
    return found


def _summary(path: Path) -> dict[str, Any]:
    """What a growth run says of itself. Raises RunError where that is gone or damaged."""
    try:
        found: dict[str, Any] = decode(path.read_bytes())
        search_cost(found)
        int(found["steps"])
    except (OSError, GraphError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"{path}: the search is over, but this is no summary of it: {error}; give another --out"
        ) from None
    return found


def _same(config: CellSearchConfig, folder: Path) -> None:
    """Refuse to go on with another configuration. Raises RunError."""
    path = folder / CONFIG
    try:
        started = parse_search(tomllib.loads(path.read_text(encoding="utf-8")), str(path))
    except OSError as error:
        raise RunError(f"{path}: there is no run to resume here: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: this is not a valid TOML run file: {error}") from None
    now, then = (each.model_dump(mode="json") for each in (config, located(started, Path(os.sep))))
    changed = [key for key in now if now[key] != then.get(key)]
    if changed:
        raise RunError(
            f"{folder}: the run was started with another {' and '.join(changed)}; give what {CONFIG} there has, or "
            "another --out"
        )
