"""What growth is compared with: a network for each task, one for all at once, and one that nothing protects, or EWC.

All have the graph's trunk and a head for each task, and are trained by the settings that GROWN is trained by. What each
keeps can be saved after a task and loaded into a new one of its kind, which then goes on to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from growir import store
from growir.backends.torch_arrays import to_array, to_tensor
from growir.continual.experiences import Experience
from growir.continual.fitting import FitSettings, fit, given, on
from growir.continual.scenarios import Shifted
from growir.continual.views import up_to
from growir.data.shuffling import Shuffle
from growir.data.source import Batch, Source
from growir.growth.sections import Count, NonNegative
from growir.live import network_of
from growir.network import Network
from growir.passes import Extend


class EwcSettings(FitSettings):
    """How a task is learned by elastic weight consolidation.

    Attributes:
        strength: Of the penalty, times the Fisher information; lambda of Kirkpatrick et al. 2017, equation 3.
        fisher_samples: Training samples of each task that its Fisher information is measured on, one by one.
    """

    strength: NonNegative = 1000.0
    fisher_samples: Count = 200


class Separate:
    """A network of its own for each task: nothing is forgotten, and nothing shared."""

    def __init__(self, first: Network, outputs: Sequence[str], settings: FitSettings, seed: int) -> None:
        self.settings, self.seed = settings, seed
        self.networks = [up_to(first, output) for output in outputs]
        self.learned: set[int] = set()

    def learn(self, task: int, experience: Experience) -> None:
        """Train the task's network."""
        module = self.networks[task].to_torch()
        data = experience.data.cut(self.seed, self.settings.select_share)
        fit(module, [{"params": list(module.parameters())}], data.train, self.settings, (self.seed, 72, task))
        self.networks[task] = network_of(module)
        self.learned.add(task)

    def network(self, task: int) -> Network:
        """The task's, learned or not."""
        return self.networks[task]

    @property
    def parameters(self) -> int:
        """How many numbers are kept."""
        return sum(array.size for task in self.learned for array in self.networks[task].arrays.values())

    @property
    def size(self) -> int:
        """How many bytes these are."""
        return sum(array.nbytes for task in self.learned for array in self.networks[task].arrays.values())

    def save(self, folder: Path) -> None:
        """Keep what was learned, in a folder of its own."""
        for task in sorted(self.learned):
            self.networks[task].save(folder / str(task))

    def load(self, folder: Path, learned: Iterable[Experience]) -> None:
        """Go on from there, when so many tasks were learned."""
        for task, _ in enumerate(learned):
            self.networks[task] = Network.load(folder / str(task))
            self.learned.add(task)


class FineTuned:
    """One trunk, which each task goes on training: what that forgets is what protection is worth.

    Args:
        first: What learning begins from.
        outputs: A head for each task; or one head, where a sample does not say its task.
        settings: Of the training.
        seed: Of all that is drawn.
    """

    def __init__(self, first: Network, outputs: Sequence[str], settings: FitSettings, seed: int) -> None:
        self.outputs, self.settings, self.seed = outputs, settings, seed
        self.whole = first
        self.classes: list[int] = []  # of each task so far, where all have one head
        self.learned: set[int] = set()

    @property
    def one_head(self) -> bool:
        """Whether a sample does not say its task."""
        return len(set(self.outputs)) < len(self.outputs)

    def learn(self, task: int, experience: Experience) -> None:
        """Train the trunk and the task's head, or the one head with the task's classes behind those it had."""
        self.whole = self._extended(self.whole, experience)
        module = self.network(task).to_torch()
        groups = [{"params": list(module.parameters())}]
        fit(module, groups, self.source(task, experience), self.settings, (self.seed, 73, task), self.penalty(module))
        self.whole = self.whole.with_arrays(network_of(module).arrays)
        self.learned.add(task)

    def _extended(self, network: Network, experience: Experience) -> Network:
        """A network whose one head has the classes of a task more; the same where each task has a head."""
        if not self.one_head:
            return network
        if self.classes:
            step = Extend(node=self.outputs[0], by=len(experience.classes), seed=self.seed + len(self.classes))
            network = network.apply(step)
            network = Network(network.graph.replace(history=None), network.arrays)
        self.classes.append(len(experience.classes))
        return network

    def source(self, task: int, experience: Experience) -> Source:
        """What is trained on."""
        train = experience.data.cut(self.seed, self.settings.select_share).train
        return Shifted(train, sum(self.classes[:task])) if self.one_head else train

    def penalty(self, module: nn.Module) -> Callable[[], torch.Tensor] | None:
        """What is added to the loss; nothing here."""
        return None

    def network(self, task: int) -> Network:
        """Trunk and head as they are now."""
        return up_to(self.whole, self.outputs[task])

    @property
    def parameters(self) -> int:
        """How many numbers are kept: the trunk, and the heads of what was learned."""
        return sum(array.size for array in self._kept().values())

    @property
    def size(self) -> int:
        """How many bytes these are."""
        return sum(array.nbytes for array in self._kept().values())

    def _kept(self) -> dict[str, NDArray[Any]]:
        return {key: array for task in self.learned for key, array in self.network(task).arrays.items()}

    def save(self, folder: Path) -> None:
        """Keep what was learned, in a folder of its own."""
        self.whole.save(folder / "whole")

    def load(self, folder: Path, learned: Iterable[Experience]) -> None:
        """Go on from there, when these tasks were learned."""
        self.whole = Network.load(folder / "whole")
        seen = list(learned)
        self.learned |= set(range(len(seen)))
        self.classes = [len(each.classes) for each in seen] if self.one_head else []


class Consolidated(FineTuned):
    """The same, with a penalty on moving what counted for earlier tasks (EWC, Kirkpatrick et al. 2017).

    Of each task that was learned the weights are kept and the diagonal of their Fisher information, the mean square of
    the gradient of one sample's log-likelihood.
    """

    def __init__(self, first: Network, outputs: Sequence[str], settings: EwcSettings, seed: int) -> None:
        super().__init__(first, outputs, settings, seed)
        self.strength, self.samples = settings.strength, settings.fisher_samples
        self.kept: list[dict[str, tuple[torch.Tensor, torch.Tensor]]] = []  # weights and Fisher information, by key

    def learn(self, task: int, experience: Experience) -> None:
        """Train as before, and keep what counts."""
        super().learn(task, experience)
        module = self.network(task).to_torch().eval()
        weights = {key: parameter.detach().clone() for key, parameter in module.named_parameters()}
        squares = {key: torch.zeros_like(weight) for key, weight in weights.items()}
        count = 0
        for inputs, target in _samples(self.source(task, experience), self.samples, (self.seed, 74, task)):
            module.zero_grad()
            F.cross_entropy(module(*inputs), target).backward()  # type: ignore[no-untyped-call]  # torch's own
            for key, parameter in module.named_parameters():
                squares[key] += 0 if parameter.grad is None else parameter.grad**2
            count += 1
        self.kept.append({key: (weight, squares[key] / count) for key, weight in weights.items()})

    @property
    def size(self) -> int:
        """How many bytes there are, with weights and information of each task."""
        numbers = (tensor for kept in self.kept for pair in kept.values() for tensor in pair)
        return super().size + sum(tensor.nbytes for tensor in numbers)

    def save(self, folder: Path) -> None:
        """Keep what was learned, in a folder of its own."""
        super().save(folder)
        for task, kept in enumerate(self.kept):
            pairs = {f"{k}/{key}": to_array(pair[k]) for key, pair in kept.items() for k in range(2)}
            store.write_tensors(folder / f"{task}.safetensors", pairs)

    def load(self, folder: Path, learned: Iterable[Experience]) -> None:
        """Go on from there, when these tasks were learned."""
        super().load(folder, learned)
        self.kept = []
        for task in sorted(self.learned):
            arrays, _ = store.read_tensors(folder / f"{task}.safetensors")
            keys = [key.removeprefix("0/") for key in arrays if key.startswith("0/")]
            self.kept.append({key: (to_tensor(arrays[f"0/{key}"]), to_tensor(arrays[f"1/{key}"])) for key in keys})

    def penalty(self, module: nn.Module) -> Callable[[], torch.Tensor] | None:
        """Half the strength times the Fisher information times the squared way from each earlier task's weights."""
        now = dict(module.named_parameters())
        terms = [(now[key], *each) for kept in self.kept for key, each in kept.items() if key in now]
        if not terms:
            return None

        def added() -> torch.Tensor:
            total = torch.zeros(())
            for parameter, weight, fisher in terms:
                there = parameter[tuple(slice(size) for size in weight.shape)]  # a head may have become longer
                away = there - weight.to(there.device)
                total = total.to(there.device) + (fisher.to(there.device) * away**2).sum()
            return 0.5 * self.strength * total

        return added


class Joint(FineTuned):
    """All tasks at once, which no sequence can: each time a task comes, one network is trained on all so far, anew."""

    def __init__(self, first: Network, outputs: Sequence[str], settings: FitSettings, seed: int) -> None:
        super().__init__(first, outputs, settings, seed)
        self.first = first
        self.seen: list[Experience] = []

    def learn(self, task: int, experience: Experience) -> None:
        """Train on this task and all before it, with samples of each in every batch."""
        self.seen.append(experience)
        self.first = self._extended(self.first, experience)
        whole = self.first.to_torch()
        sources = [self.source(k, each) for k, each in enumerate(self.seen)]
        with on(self.settings.device, whole) as device:
            optimizer = torch.optim.Adam(whole.parameters(), lr=self.settings.learning_rate)
            whole.train()
            for epoch in range(self.settings.epochs):
                for batches in _together(sources, self.settings.batch_size, (self.seed, 75, task), epoch):
                    optimizer.zero_grad()
                    self._loss(whole, batches, device).backward()  # type: ignore[no-untyped-call]  # torch's own
                    optimizer.step()
        self.whole = network_of(whole)
        self.learned.add(task)

    def _loss(self, whole: nn.Module, batches: Sequence[tuple[int, Batch]], device: torch.device) -> torch.Tensor:
        """The mean loss of batches of several tasks, each by its head."""
        parts = [given(inputs, device) for _, (inputs, _) in batches]
        found: torch.Tensor | Sequence[torch.Tensor]
        found = whole(*(torch.cat(same) for same in zip(*parts, strict=True)))
        heads = [found] if isinstance(found, torch.Tensor) else found
        loss, at = torch.zeros((), device=device), 0
        for k, batch in batches:
            logits = heads[0 if self.one_head else k][at : at + len(batch)]
            loss = loss + F.cross_entropy(logits, batch.target.to(device), reduction="sum")
            at += len(batch)
        return loss / at

    def load(self, folder: Path, learned: Iterable[Experience]) -> None:
        """Go on from there, when these tasks were learned."""
        seen = list(learned)
        for each in seen:
            self.first = self._extended(self.first, each)
        super().load(folder, seen)
        self.seen = seen


def _samples(source: Source, count: int, key: Sequence[int]) -> Iterator[tuple[Sequence[torch.Tensor], torch.Tensor]]:
    """Some samples, one by one, whatever the size of the source's batches."""
    left = count
    for inputs, target in source.batches(64, Shuffle(tuple(key))):
        for k in range(min(left, len(target))):
            yield [each[k : k + 1] for each in given(inputs)], target[k : k + 1]
        left -= min(left, len(target))
        if not left:
            return


def _together(
    sources: Sequence[Source], size: int, key: Sequence[int], epoch: int
) -> Iterator[list[tuple[int, Batch]]]:
    """Batches of several sources at a time, about `size` in all, until the longest is at its end."""
    share = max(2, size // len(sources))
    walks = [iter(source.batches(share, Shuffle((*key, k)), epoch)) for k, source in enumerate(sources)]
    while True:
        found = [(k, batch) for k, walk in enumerate(walks) if (batch := next(walk, None)) is not None]
        if not found:
            return
        yield found
