"""What a task is to reach, where that comes from other runs: GROWN takes the better of two for each task.

"scratch" trains a network for the task alone, "fine_tuned" goes on from the network of the task before; nothing
protects that one, so it counts only when it was just trained. Both are judged on the samples that select.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from growir.continual.baselines import FineTuned, Separate
from growir.continual.experiences import Experience
from growir.continual.fitting import FitSettings, accuracy_of
from growir.continual.master import MAX_TASKS
from growir.errors import RunError, counted
from growir.growth.sections import Share, told_as
from growir.network import Network

Runs = Literal["scratch", "fine_tuned", "best"]
Target = Annotated[
    Share | Runs | Annotated[tuple[Share, ...], Field(min_length=1, max_length=MAX_TASKS)],
    told_as('a share above 0 and at most 1, a list of them, or "scratch", "fine_tuned" or "best"'),
]


def told_target(target: float | Runs | tuple[float, ...], task: int) -> float:
    """What settings say of a task's target. Raises RunError where that takes other runs, or it is not there."""
    if isinstance(target, str):
        raise RunError(f"the target {target!r} comes from runs that `learn` makes; give a share here")
    if isinstance(target, tuple) and task >= len(target):
        check_targets(target, task + 1)
    return target[task] if isinstance(target, tuple) else target


def check_targets(target: float | str | tuple[float, ...] | None, tasks: int) -> None:
    """Raise RunError where a list of targets is not as long as there are tasks."""
    if isinstance(target, tuple) and len(target) != tasks:
        raise RunError(f"target: there are {counted(len(target), 'target')} and {counted(tasks, 'task')}; each has one")


class Targets:
    """The runs that give targets.

    Args:
        kind: "scratch", "fine_tuned" or "best".
        first: What learning begins from, with a head for each task.
        outputs: The heads.
        settings: Of the training.
        seed: Of all that is drawn.
    """

    def __init__(self, kind: str, first: Network, outputs: Sequence[str], settings: FitSettings, seed: int) -> None:
        plain = FitSettings(**{name: getattr(settings, name) for name in FitSettings.model_fields})
        kinds: dict[str, type[Separate | FineTuned]] = {"scratch": Separate, "fine_tuned": FineTuned}
        self.settings, self.seed = plain, seed
        self.runs: dict[str, Separate | FineTuned] = {
            name: made(first, outputs, plain, seed) for name, made in kinds.items() if kind in (name, "best")
        }

    def of(self, task: int, experience: Experience) -> float:
        """The accuracy that a task is to reach on the samples that select."""
        data = experience.data.cut(self.seed, self.settings.select_share)
        assert data.select is not None, "the data is cut"
        found: list[float] = []
        for run in self.runs.values():
            run.learn(task, experience)
            found.append(accuracy_of(run.network(task).to_torch(), data.select, self.settings.device))
        return max(found)

    def save(self, folder: Path) -> None:
        """Keep what the next task needs, in an empty folder."""
        for name, run in self.runs.items():
            run.save(folder / name)

    def load(self, folder: Path, learned: Sequence[Experience]) -> None:
        """Go on from there, when these tasks were learned."""
        for name, run in self.runs.items():
            run.load(folder / name, learned)
