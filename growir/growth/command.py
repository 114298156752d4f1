"""`growir grow`: a growth run at the terminal."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from growir.errors import RunError
from growir.growth.contest import strategies_of
from growir.growth.data import load_data
from growir.growth.naming import importing_from
from growir.growth.observer import Observer
from growir.growth.problem import Problem
from growir.growth.running import objective_of, read_config, start_of, start_run
from growir.growth.settings import Typed, read_settings
from growir.growth.target import read_target
from growir.runs.display import Display
from growir.runs.folder import latest_folder, new_folder
from growir.trainable import check_trainable


def run_command(target: str, *, settings: Sequence[Typed], out: Path | None, resume: bool, quiet: bool) -> None:
    """Run what the command line asks for and print what came of it.

    A run that is resumed keeps the settings that are not given, neither by its target nor beside it.

    Raises:
        GrowirError: Run file, settings, data or directory are wrong; one message.
        KeyboardInterrupt: The user stopped it; the directory is usable and can be resumed.
    """
    # What a run file names by "package.module:name" may stand beside it, or where one is.
    with importing_from(Path(target).parent, Path.cwd()):
        _run(target, settings=settings, out=out, resume=resume, quiet=quiet)


def _run(target: str, *, settings: Sequence[Typed], out: Path | None, resume: bool, quiet: bool) -> None:
    asked, typed = read_target(target), read_settings(settings)
    config = asked.config(typed)
    if resume:
        out = out or latest_folder(config.name)
        config = asked.config(typed, read_config(out))
    # The run directory must mean the same data from wherever it is resumed.
    config = config.located(os.path.abspath)
    problem = Problem.of_loaded(load_data(config.data, config.seed), objective_of(config.objective))
    start = start_of(config)
    if start is not None:
        check_trainable(start.graph, False, RunError)
    folder = out or new_folder(config.name)
    try:
        with Display(folder, config.name, strategies_of(config), quiet=quiet) as display:
            observer = Observer(event=display.event, tick=display.tick, epoch=display.epoch)
            result = start_run(config, problem, start, out=folder, resume=resume, observer=observer)
            display.finished(result.finished)
    finally:
        if out is None:
            # The folder was made to have its name; a run that could not start leaves nothing behind.
            with suppress(OSError):
                folder.rmdir()
