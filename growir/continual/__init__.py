"""Continual learning: a master network that grows over a sequence of tasks, and a view of it for each."""

from growir.continual.masks import mask_shapes
from growir.continual.master import Master, Task

__all__ = ["Master", "Task", "mask_shapes"]
