"""Continual learning: a master network that grows over a sequence of tasks, and a view of it for each."""

from growir.continual.baselines import EwcSettings
from growir.continual.benchmarks import from_benchmark
from growir.continual.compacting import CpgSettings
from growir.continual.experiences import Experience, by_classes
from growir.continual.firefly import FireflySettings
from growir.continual.fitting import FitSettings
from growir.continual.grown import GrownSettings
from growir.continual.learning import ContinualResult, learn
from growir.continual.masks import mask_shapes
from growir.continual.master import Master, Task
from growir.continual.measures import Measures, measures

__all__ = [
    "ContinualResult",
    "CpgSettings",
    "EwcSettings",
    "Experience",
    "FireflySettings",
    "FitSettings",
    "GrownSettings",
    "Master",
    "Measures",
    "Task",
    "by_classes",
    "from_benchmark",
    "learn",
    "mask_shapes",
    "measures",
]
