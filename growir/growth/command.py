"""`growir grow`: a growth run at the terminal."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from growir.growth.config import read_run
from growir.growth.data import load_data
from growir.growth.display import Display
from growir.growth.run import latest_folder, new_folder, start_run


def run_command(target: str, *, out: Path | None, seed: int | None, resume: bool, quiet: bool) -> None:
    """Run what the command line asks for and print what came of it.

    Raises:
        GrowirError: Run file, data or directory are wrong; one message.
        KeyboardInterrupt: The user stopped it; the directory is usable and can be resumed.
    """
    config = read_run(target)
    # The run directory must mean the same data from wherever it is resumed.
    config = config.located(os.path.abspath).updated(seed=seed)
    data = load_data(config.data, config.seed)
    folder = out or (latest_folder(config.name) if resume else new_folder(config.name))
    try:
        with Display(folder, config, quiet=quiet) as display:
            result = start_run(config, data, out=folder, resume=resume, observer=display.observer)
            display.finished(result)
    finally:
        if out is None:
            # The folder was made to have its name; a run that could not start leaves nothing behind.
            with suppress(OSError):
                folder.rmdir()
