"""What a user sees of a run: a live line of progress, a line for each growth, a table at the end."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column, Table
from rich.text import Text

from growir.runs.liveline import LiveLine
from growir.runs.records import Event, Finished
from growir.runs.telling import Teller
from growir.runs.values import Metrics
from growir.runs.words import amount, decimal, reason_text

REFRESH = 0.1  # seconds between updates of the live line; each costs about a millisecond


class _Console(Console):
    """A console whose reader may leave: a run does not end because nobody looks on."""

    def on_broken_pipe(self) -> None:
        """Print no more."""
        with suppress(SystemExit):
            super().on_broken_pipe()


class Display:
    """Shows a run; quiet shows nothing but the final table's line.

    Args:
        folder: The run directory.
        name: The run's.
        branches: The names of the branches of a tournament, in order; none where there is no tournament.
        quiet: Whether to show little.
    """

    def __init__(self, folder: Path, name: str, branches: Sequence[str] = (), *, quiet: bool) -> None:
        self.console: Console = _Console(highlight=False)
        self.folder = folder
        self.name = name
        self.quiet = quiet
        self._shown = 0.0
        self._task: TaskID | None = None
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=10),
            TextColumn("{task.fields[said]}", table_column=Column(no_wrap=True)),
            console=self.console,
            transient=True,
            auto_refresh=False,
            disable=quiet or not self.console.is_terminal,
        )
        self._teller = Teller(branches)
        self._live = LiveLine()
        self.epoch = self._live.epoch

    def __enter__(self) -> Self:
        self._progress.start()
        self._task = self._progress.add_task("starting", total=None, said="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        config = self.folder / "run.toml"
        if kind is not None and issubclass(kind, KeyboardInterrupt) and config.is_file():
            self._print(f"stopped; go on with: growir grow {config} --out {self.folder} --resume")

    def _print(self, line: str) -> None:
        # Piped or in a narrow terminal, a line stays a line.
        self.console.print(Text(line), soft_wrap=True)

    def tick(self, phase: str, done: int, total: int) -> None:
        """Show how much of a phase is done."""
        now = time.monotonic()
        if self._task is None or now - self._shown < REFRESH:
            return
        self._shown = now
        said = self._live.said(phase, done, total, now)
        self._progress.update(self._task, description=phase, completed=done, total=total, said=said, refresh=True)

    def event(self, event: Event) -> None:
        """Show an event."""
        self._live.event(event)
        if self.quiet:
            return
        for line in self._teller.lines(event):
            self._print(line)

    def finished(self, found: Finished) -> None:
        """Print what came of the run."""
        self._progress.stop()
        if self.quiet:
            self._print(f"{self.folder}: {_score(found.test_after_fit)}, {amount(found.parameters)} parameters")
            return
        table = Table(title=Text(f"{self.name}, seed {found.seed}"), show_header=False)
        for _ in range(2):
            table.add_column(overflow="fold")
        table.add_row("test before the final fit", _score(found.test_before_fit))
        table.add_row("test after the final fit", _score(found.test_after_fit))
        table.add_row("parameters", amount(found.parameters))
        table.add_row("multiply-accumulates", amount(found.macs))
        table.add_row("growths", f"{amount(found.steps)}; {reason_text(found.ended)}")
        seconds, growing = (decimal(value, ".1f") for value in (found.seconds, found.seconds_growing))
        table.add_row("seconds", f"{seconds}, {growing} of them growing")
        self.console.print(table)
        # Below the table, for a cell would break a long path, and it could not be copied.
        self._print(f"Run directory: {self.folder}")
        self._print(f"ONNX model: {self.folder / 'model.onnx'}")
        self._print("To look at it:")
        folder = shlex.quote(str(self.folder))
        for command in (f"growir log {folder}", f"growir render {folder} -o picture.svg"):
            self._print(f"  {command}")
        if found.reproducible is False:
            self.console.print("The time budget ended growth: another run may find another network.")


def _score(metrics: Metrics | None) -> str:
    if metrics is None:
        return "not tested, no test part"
    loss = _number(metrics.get("loss"), ".4f")
    if "accuracy" in metrics:
        return f"{_number(metrics['accuracy'], '.2%')} correct, loss {loss}"
    return f"mean squared error {_number(metrics.get('mse'), '.4g')}, loss {loss}"


def _number(value: float | None, form: str) -> str:
    return "beyond float32" if value is None else format(value, form)
