"""What a run costs, by phase: seconds, CPU seconds, floating-point operations, and joules where the machine tells."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Phase = Literal["growing", "training", "choosing", "final fit"]
RAPL = Path("/sys/class/powercap")  # Linux's counters of what processors have used


@dataclass(slots=True)
class Cost:
    """What one phase has cost.

    Attributes:
        seconds: Wall-clock time.
        cpu_seconds: Processor time of all threads.
        flops: Floating-point operations of layers and least-squares problems, two for a multiply-accumulate.
        joules: Energy the machine's processors have used meanwhile, whatever ran on them; None where it does not tell.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    flops: float = 0.0
    joules: float | None = None

    def to_json(self) -> dict[str, float | None]:
        """As the summary and the checkpoint hold it."""
        joules = None if self.joules is None else round(self.joules, 3)
        return {
            "seconds": round(self.seconds, 4),
            "cpu_seconds": round(self.cpu_seconds, 4),
            "flops": self.flops,
            "joules": joules,
        }


@dataclass(slots=True)
class Meter:
    """The costs of a run so far.

    Attributes:
        costs: By phase.
        outer: Where operations are counted too: a fork's are its session's, whose clock runs meanwhile.
    """

    costs: dict[str, Cost] = field(default_factory=dict[str, Cost])
    outer: Meter | None = None
    _now: Cost = field(default_factory=Cost)
    _since: tuple[float, float, float | None] = (0.0, 0.0, None)

    @contextmanager
    def phase(self, name: Phase) -> Generator[None]:
        """Count what happens inside as a phase, and not as the one around it; also where it ends by an error."""
        self._settle()
        outer, self._now = self._now, self.costs.setdefault(name, Cost())
        try:
            yield
        finally:
            self._settle()
            self._now = outer

    def _settle(self) -> None:
        """Put what was used since the last time to the present phase."""
        before, self._since = self._since, (time.perf_counter(), time.process_time(), joules())
        cost, (seconds, cpu, used) = self._now, self._since
        cost.seconds += seconds - before[0]
        cost.cpu_seconds += cpu - before[1]
        # The counters start over from time to time; what one of them counted around that is lost.
        if used is not None and before[2] is not None and used >= before[2]:
            cost.joules = (cost.joules or 0.0) + used - before[2]

    def count(self, flops: float) -> None:
        """Floating-point operations of the present phase."""
        self._now.flops += flops
        if self.outer is not None:
            self.outer.count(flops)

    def to_json(self) -> dict[str, dict[str, float | None]]:
        """The phases that there were."""
        return {name: cost.to_json() for name, cost in self.costs.items()}

    def restore(self, phases: Mapping[str, Mapping[str, float | None]]) -> None:
        """Go on from what `to_json` gave. Raises KeyError or TypeError if it is something else."""
        self.costs = {}
        for name, found in phases.items():
            seconds, cpu, flops = (float(found[key] or 0.0) for key in ("seconds", "cpu_seconds", "flops"))
            joules = found["joules"]
            self.costs[name] = Cost(seconds, cpu, flops, None if joules is None else float(joules))


def joules() -> float | None:
    """What the processors' energy counters show; None where there are none or they may not be read."""
    total: float | None = None
    for counter in sorted(RAPL.glob("intel-rapl:*/energy_uj")):
        if counter.parent.name.count(":") > 1:
            continue  # a part of another
        try:
            if (counter.parent / "name").read_text().strip() == "psys":
                continue  # the whole machine, which the others are parts of
            total = (total or 0.0) + int(counter.read_text()) / 1e6
        except (OSError, ValueError):
            return None
    return total
