"""`growir grow`: a growth run at the terminal."""

from __future__ import annotations

import os
from pathlib import Path

from growir.growth.config import read_run
from growir.growth.data import load_data
from growir.growth.display import Display
from growir.growth.run import latest_folder, next_folder, start_run


def run_command(target: str, *, out: Path | None, seed: int | None, resume: bool, quiet: bool) -> None:
    """Run what the command line asks for and print what came of it.

    Raises:
        GrowirError: Run file, data or directory are wrong; one message.
        KeyboardInterrupt: The user stopped it; the directory is usable and can be resumed.
    """
    config = read_run(target)
    if config.data.path != "digits":
        # The run directory must mean the same data from wherever it is resumed.
        path = os.path.abspath(config.data.path)
        config = config.model_copy(update={"data": config.data.model_copy(update={"path": path})})
    if seed is not None:
        config = config.model_copy(update={"seed": seed})
    folder = out or (latest_folder(config.name) if resume else next_folder(config.name))
    data = load_data(config.data)
    with Display(folder, config, quiet=quiet) as display:
        result = start_run(config, data, out=folder, resume=resume, observer=display.observer)
        display.finished(result)
