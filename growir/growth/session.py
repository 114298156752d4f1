"""A network in growth: live tensors, the data, the optimizer; the only thing policies and the engine share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn

from growir.backends.torch_edits import TORCH
from growir.backends.torch_fx.lowering import lower_tensors
from growir.data.dataset import Dataset
from growir.data.shuffling import generator as generator
from growir.edits import apply_edits
from growir.errors import RunError
from growir.graph import Graph
from growir.growth.config import MAX_THREADS, RunConfig, TrainConfig
from growir.growth.data import Parts, split_parts, target_statistics
from growir.growth.loss import Loss
from growir.growth.measure.section import constant_prefix, run_section, section
from growir.growth.train import grown_state, make_optimizer, named_state, predict, restore_state, train
from growir.network import Network
from growir.ops import BatchNorm
from growir.params import array_digest, frozen_keys, param_table
from growir.rewrite import Pass, Rewrite
from growir.runs.meter import Meter

Tick = Callable[[str, int, int], None]
Epoch = Callable[[str, int, int, float], None]


def resolved(config: RunConfig, data: Dataset, start: Network | None = None) -> RunConfig:
    """The configuration with every default filled in that depends on the data, the first network, or torch."""
    macs = 0 if start is None else start.graph.costs().macs
    found = config.resolved(len(data.x_train), data.x_train.shape[1:], data.outputs, macs)
    update: dict[str, object] = {"threads": found.threads or min(torch.get_num_threads(), MAX_THREADS)}
    if data.held_out is not None:
        update["data"] = found.data.model_copy(update={"test": data.held_out})
    return found.model_copy(update=update)


def live_tensors(network: Network) -> dict[str, torch.Tensor]:
    """Copies of a network's tensors, learned ones as Parameters."""
    return as_parameters(
        network.graph, {key: torch.from_numpy(np.array(array)) for key, array in network.arrays.items()}
    )


def as_parameters(graph: Graph, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A graph's tensors with parameters as Parameters, of which those that it freezes require no gradient."""
    table, still = param_table(graph), frozen_keys(graph)
    return {
        key: tensor if table[key].buffer else nn.Parameter(tensor, requires_grad=key not in still)
        for key, tensor in tensors.items()
    }


class Session:
    """A network that is being grown, with its data.

    Attributes:
        graph: The current graph with its history.
        tensors: The live tensors by key; learned ones are Parameters.
        parts: The three parts of the training data.
        loss: What is minimised.
        config: The configuration, resolved for this data.
        train_config: Its training section.
        meter: What it all costs.
    """

    def __init__(
        self,
        network: Network,
        data: Dataset,
        config: RunConfig,
        tick: Tick = lambda phase, done, total: None,
        epoch: Epoch = lambda phase, done, total, loss: None,
    ) -> None:
        if len(network.graph.inputs) != 1 or len(network.graph.outputs) != 1:
            raise RunError("a growth run takes a network of one input and one output")
        self.config = resolved(config, data, network)
        self.train_config: TrainConfig = self.config.train
        if self.train_config.batch_size == 1 and any(isinstance(node.op, BatchNorm) for node in network.graph.nodes):
            raise RunError("[train] batch_size is 1, but batch norm needs two samples or more to train on")
        self.parts: Parts = split_parts(len(data.x_train), config.seed)
        _, std = target_statistics(data) if data.task == "regression" else (None, np.ones(1, np.float32))
        self.loss = Loss(data.task, torch.from_numpy(std))
        self.data = data
        self.targets = torch.from_numpy(data.y_train)
        self.tick = tick
        self.epoch = epoch
        self.meter = Meter()
        self.begin(network)

    def begin(self, network: Network) -> None:
        """Start over from a network, with a new optimizer."""
        self.graph: Graph = network.graph
        self.tensors: dict[str, torch.Tensor] = live_tensors(network)
        self._values = dict(network.values)
        self._constants: dict[str, torch.Tensor] = {}
        self.optimizer = self._new_optimizer({})

    def keep(self) -> Callable[[], None]:
        """What takes everything that follows back."""
        network, state = self.network(), self.optimizer_tensors()
        copies = {key: tensor.clone() for key, tensor in state.items()}

        def restore() -> None:
            self.begin(network)
            self.restore_optimizer(copies)

        return restore

    def _new_optimizer(self, state: Mapping[str, Mapping[str, torch.Tensor]]) -> torch.optim.AdamW:
        optimizer = make_optimizer(self.learned, self.train_config.learning_rate, self.train_config.weight_decay)
        restore_state(optimizer, state)
        return optimizer

    @property
    def learned(self) -> dict[str, nn.Parameter]:
        """The parameters that are trained, by key: all but those that the graph freezes."""
        parameters = {key: tensor for key, tensor in self.tensors.items() if isinstance(tensor, nn.Parameter)}
        return {key: parameter for key, parameter in parameters.items() if parameter.requires_grad}

    def sloped_tensors(self) -> dict[str, torch.Tensor]:
        """The tensors, of which frozen ones require a gradient too, so that every value has its slope."""
        still = frozen_keys(self.graph)
        return {key: t.detach().requires_grad_() if key in still else t for key, t in self.tensors.items()}

    @property
    def output(self) -> str:
        """The value that predicts."""
        return self.graph.outputs[0]

    def network(self) -> Network:
        """The current network; later training does not change it."""
        arrays = {key: tensor.detach().numpy().copy() for key, tensor in self.tensors.items()}
        return Network(self.graph, arrays, self._values)

    # -- values -----------------------------------------------------------------------------------------------------

    def prefix(self) -> list[str]:
        """The values that no learned parameter touches and something learned reads."""
        return constant_prefix(self.graph)

    def constants(self, names: Sequence[str] | None = None) -> list[torch.Tensor]:
        """The prefix's values for all training samples, or those of other constant values, computed once."""
        names = self.prefix() if names is None else names
        missing = [name for name in names if name not in self._constants]
        if missing:
            found = self._from_input(torch.from_numpy(self.data.x_train), missing)
            self._constants.update(zip(missing, found, strict=True))
        return [self._constants[name] for name in names]

    def _from_input(self, x: torch.Tensor, wanted: Sequence[str]) -> list[torch.Tensor]:
        run = run_section(self.graph, self.tensors, [self.graph.inputs[0].name], wanted)
        with torch.no_grad():
            chunks = [run(x[k : k + 8192]) for k in range(0, len(x), 8192)]
        return [torch.cat([chunk[k] for chunk in chunks]) for k in range(len(wanted))]

    def trunk(self) -> fx.GraphModule:
        """What is trained: the graph behind the constant prefix, on the live tensors."""
        return lower_tensors(section(self.graph, self.prefix(), [self.output]), self.tensors)

    def metrics(self, x: NDArray[np.float32], y: NDArray[Any], network: Network | None = None) -> dict[str, float]:
        """Loss and accuracy or squared error on raw data, of the current network or another one."""
        graph, tensors = (network.graph, live_tensors(network)) if network else (self.graph, self.tensors)
        run = run_section(graph, tensors, [graph.inputs[0].name], [graph.outputs[0]])
        found = predict(lambda *batch: run(*batch)[0], [torch.from_numpy(x)])
        return self.loss.metrics(found, torch.from_numpy(y))

    def losses_on(self, samples: torch.Tensor) -> torch.Tensor:
        """The loss of each of some training samples."""
        return self.loss.each(self._predictions(samples), self.targets[samples])

    def selection_losses(self) -> torch.Tensor:
        """The loss of each sample of the part that chooses, of as many as candidates are measured on at most."""
        return self.losses_on(self.parts.gr[: self.config.policy.samples])

    def loss_on(self, samples: torch.Tensor) -> float:
        """The mean loss on some training samples."""
        return float(self.losses_on(samples).mean())

    def metrics_on(self, samples: torch.Tensor) -> dict[str, float]:
        """Loss and accuracy or squared error on some training samples."""
        return self.loss.metrics(self._predictions(samples), self.targets[samples])

    def measure_parts(self) -> tuple[dict[str, dict[str, float]], torch.Tensor]:
        """The same on what is trained on between growths, and on the part that chooses; and each loss on the latter.

        On as many samples of each as candidates are measured on at most.
        """
        most = self.config.policy.samples
        chosen = self.parts.gr[:most]
        predictions, targets = self._predictions(chosen), self.targets[chosen]
        metrics = {
            "train": self.metrics_on(self.parts.between[:most]),
            "selection": self.loss.metrics(predictions, targets),
        }
        return metrics, self.loss.each(predictions, targets)

    def metrics_by_part(self) -> dict[str, dict[str, float]]:
        """The metrics of both parts alone."""
        return self.measure_parts()[0]

    def _predictions(self, samples: torch.Tensor) -> torch.Tensor:
        self.meter.count(2.0 * self.graph.costs().macs * len(samples))
        return predict(self.trunk().eval(), [value[samples] for value in self.constants()])

    # -- change -----------------------------------------------------------------------------------------------------

    def grow(self, step: Pass, updates: Mapping[str, torch.Tensor]) -> tuple[str, ...]:
        """Change some tensors, then rewrite graph, tensors and optimizer state; return the names created."""
        done = step.rewrite(self.graph)
        grown = self._grown_tensors(done, updates)
        state = grown_state(named_state(self.optimizer), done.edits, self.train_config.fresh or "small")
        self.graph = done.graph
        self._values |= {array_digest(array): array for array in step.values.values()}
        table = param_table(done.graph)
        copies = {key: tensor if table[key].buffer else tensor.detach().clone() for key, tensor in grown.items()}
        self.tensors = as_parameters(done.graph, copies)
        self.optimizer = self._new_optimizer(state)
        return done.created

    def _grown_tensors(self, done: Rewrite, updates: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        before = {key: updates[key] if key in updates else tensor.detach() for key, tensor in self.tensors.items()}
        return apply_edits(done.edits, before, TORCH, np.dtype(np.float32))

    def preview(
        self, step: Pass, updates: Mapping[str, torch.Tensor], values: Mapping[str, torch.Tensor], targets: torch.Tensor
    ) -> torch.Tensor:
        """The loss of each sample that `grow` with these arguments would lead to.

        Args:
            step: The rewrite.
            updates: Tensors that change together with it.
            values: The constant prefix's values of these samples, by name.
            targets: Theirs.
        """
        done = step.rewrite(self.graph)
        tensors = self._grown_tensors(done, updates)
        names = self.prefix()
        run = run_section(done.graph, tensors, names, done.graph.outputs)
        return self.loss.each(predict(lambda *batch: run(*batch)[0], [values[name] for name in names]), targets)

    def train_between(self, step: int, *branch: int) -> float:
        """Train at a constant rate on the first two parts; the optimizer goes on from where it is.

        Where nothing learns, this only says the loss.
        """
        config = self.train_config
        if not self.learned:
            return self.loss_on(self.parts.between)
        # Two operations a multiply-accumulate, as many again for each of the two gradients.
        self.meter.count(6.0 * self.graph.costs().macs * len(self.parts.between) * (config.epochs_between or 1))
        return train(
            self.trunk(),
            self.loss,
            self.constants(),
            self.targets,
            self.parts.between,
            self.optimizer,
            epochs=config.epochs_between or 1,
            batch_size=config.batch_size or 64,
            generator=generator(self.config.seed, 1, step, *branch),
            tick=lambda done, total: self.tick("training", done, total),
            epoch=lambda done, total, loss: self.epoch("training", done, total, loss),
        )

    def train_final(self) -> float:
        """Fit on all training data: from the grown weights, with a new optimizer, on a one-cycle schedule."""
        config = self.train_config
        everything = torch.arange(len(self.targets))
        return self._anneal(everything, config.epochs_final or 1, config.keep_final or 1.0, (2,), "final fit")

    def train_trial(self, branch: int) -> float:
        """The same on the first two parts, so that the third can tell which of several networks ends best."""
        config = self.train_config
        epochs = config.epochs_trial or config.epochs_final or 1
        return self._anneal(self.parts.between, epochs, config.keep_final or 1.0, (5, branch), "trial fit")

    def fit_between(self, epochs: int, which: int) -> float:
        """Fit new weights on the first two parts on a one-cycle schedule; `which` keys random numbers."""
        return self._anneal(self.parts.between, epochs, 1.0, (6, which), "choosing inputs")

    def _anneal(self, samples: torch.Tensor, epochs: int, keep: float, key: tuple[int, ...], what: str) -> float:
        config = self.train_config
        if not self.learned:
            return float("nan")
        with torch.no_grad():
            for parameter in self.learned.values():
                if parameter.ndim > 1:
                    parameter.mul_(keep)
        optimizer = make_optimizer(self.learned, config.learning_rate_final / 25, config.weight_decay)
        batch = config.batch_size or 64
        # `train` may join the last two batches, never make more than this.
        steps = epochs * -(-len(samples) // batch)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, config.learning_rate_final, total_steps=max(steps, 4) + 1, pct_start=0.25
        )
        self.meter.count(6.0 * self.graph.costs().macs * len(samples) * epochs)
        found = train(
            self.trunk(),
            self.loss,
            self.constants(),
            self.targets,
            samples,
            optimizer,
            epochs=epochs,
            batch_size=batch,
            generator=generator(self.config.seed, *key),
            scheduler=scheduler,
            tick=lambda done, total: self.tick(what, done, total),
            epoch=lambda done, total, loss: self.epoch(what, done, total, loss),
        )
        self.optimizer = optimizer
        return found

    def optimizer_tensors(self) -> dict[str, torch.Tensor]:
        """The optimizer's state, flat: "entry:parameter" to tensor."""
        state = named_state(self.optimizer)
        return {f"{entry}:{key}": tensor for key, slots in state.items() for entry, tensor in slots.items()}

    def restore_optimizer(self, flat: Mapping[str, torch.Tensor]) -> None:
        """Take up the state that `optimizer_tensors` gave."""
        state: dict[str, dict[str, torch.Tensor]] = {}
        for name, tensor in flat.items():
            entry, _, key = name.partition(":")
            state.setdefault(key, {})[entry] = tensor
        self.optimizer = self._new_optimizer(state)
