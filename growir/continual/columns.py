"""Progressive networks: a column for each task, which reads those before it (Rusu et al. 2016).

The first task trains the network as it is. Each later one is given as many channels again at every width. Their weights
and its head are trained; what earlier tasks have learned is read as it is, all of it, and no channel of theirs reads
the new ones. Biases and norms are the task's own all along, as everywhere in a master; and adapters that the paper puts
between columns are left out, since the new channels read the old ones themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from growir.channels import analyse
from growir.continual.experiences import Experience
from growir.continual.fitting import FitSettings
from growir.continual.grown import Grown, GrownSettings, Learned
from growir.continual.masks import Mask
from growir.continual.master import Master
from growir.continual.offering import added, fresh_weights
from growir.graph import Graph


class Columns(Grown):
    """Learns one task after the other, each with a column of its own."""

    def __init__(self, settings: FitSettings, seed: int = 0, first: Graph | None = None) -> None:
        whole = GrownSettings(**settings.model_dump(), select=False, retrain=False, sparse=False, offered=1.0)
        super().__init__(whole, seed, first)

    def weights(
        self, graph: Graph, shapes: Mapping[str, tuple[int, ...]], fresh: Mapping[str, Sequence[int]]
    ) -> dict[str, Mask]:
        """Those that make the channels."""
        return fresh_weights(graph, shapes, fresh, read=False)

    def learn(self, master: Master, output: str, experience: Experience, target: float | None = None) -> Learned:
        """One task more; what it reaches makes no difference to what it is given."""
        task, data = len(master.tasks), experience.data.cut(self.seed, self.settings.select_share)
        before = {space.name: space.units for space in analyse(master.graph).spaces}
        master, fresh = self.offered(master, task, 1) if task else (master, {})
        learner = self.learner(master, output, task, 1, fresh, gates=False)
        selected = self.fit(learner, data, task, 1)
        done = master.learned(experience.name, output, classes=experience.classes, **learner.result())
        return Learned(done, [selected], added(before, done))
