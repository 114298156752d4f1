"""A network in growth: the live module, its optimizer, the data; the only thing policies and the engine share."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn

from growir import live
from growir.backends.torch_arrays import to_array, to_tensor
from growir.backends.torch_edits import TorchBackend
from growir.backends.torch_fx.lowering import lower_tensors
from growir.collecting import uncollected
from growir.data.memory import ArraySource
from growir.data.parts import Data
from growir.data.shuffling import generator
from growir.data.source import Source
from growir.edits import apply_edits
from growir.errors import RunError
from growir.graph import Graph
from growir.growth.config import MAX_THREADS, RunConfig, TrainConfig
from growir.growth.device import device_of
from growir.growth.evaluating import ROWS, Evaluated, evaluate
from growir.growth.measure.overgrown import OverGrown
from growir.growth.measure.section import run_section
from growir.growth.objective import Objective, full_precision
from growir.growth.optimizer_state import OptimizerState, optimizer_state, restore_optimizer
from growir.growth.optimizing import Factory, groups_of, make
from growir.growth.phase import Fitted
from growir.growth.policy import Standing
from growir.growth.problem import Problem
from growir.growth.rates import set_apart
from growir.growth.reading import Reading, Ready, batch_count, float_dtype
from growir.growth.recalibrating import recalibrate
from growir.growth.recipe import OptimizerConfig, Recipe, recipe_from
from growir.growth.schedule import Entry, Log
from growir.growth.training import train_by
from growir.network import Network
from growir.params import array_digest, frozen_keys, param_table
from growir.rewrite import Pass, Preserves, Rewrite
from growir.runs.meter import Meter
from growir.shapes import shapes_of

__all__ = ["Session", "generator", "resolved"]

Tick = Callable[[str, int, int], None]
Epoch = Callable[[str, int, int, float], None]
# On so many samples a growth is looked at before it is applied. It is refused where an output is no longer finite, and,
# if it promises to keep the function, where one moves by more than this part of its largest value: float32, TF32 and
# bfloat16 round by less.
LOOKED_AT, ROUNDED = 8, 1e-2
LARGER = 4  # times as many parameters, where a network is given and no budget


def resolved(config: RunConfig, problem: Problem, start: Network | None = None) -> RunConfig:
    """The configuration with every default filled in that depends on the data, the first network, or torch.

    Raises:
        RunError: Neither the data nor a network says what samples are.
    """
    macs = 0 if start is None else start.graph.costs().macs
    data = problem.dataset
    if data is not None:
        shape, outputs = data.x_train.shape[1:], data.outputs
    elif start is not None:
        graph = start.graph
        shape = tuple(size for size in graph.inputs[0].shape[1:] if isinstance(size, int))
        outputs = shapes_of(graph)[graph.outputs[0]].elements
    else:
        raise RunError(
            "nothing says what to grow: sources of data have no description that a first network could be made from; "
            "give a network, growir.grow(network, data)"
        )
    found = config.resolved(problem.samples, shape, outputs, macs)
    update: dict[str, object] = {"threads": found.threads or min(torch.get_num_threads(), MAX_THREADS)}
    if start is not None and found.budget.parameters is found.budget.macs is None and not config.policy.ends_growth:
        most = LARGER * start.graph.costs().parameters
        update["budget"] = found.budget.model_copy(update={"parameters": most})
    if data is not None and data.held_out is not None:
        update["data"] = found.data.model_copy(update={"test": data.held_out})
    return found.model_copy(update=update)


def live_tensors(network: Network, device: torch.device | None = None) -> dict[str, torch.Tensor]:
    """Copies of a network's tensors, learned ones as Parameters that require a gradient unless they are frozen."""
    table, still = param_table(network.graph), frozen_keys(network.graph)
    found: dict[str, torch.Tensor] = {}
    for key, array in network.arrays.items():
        tensor = to_tensor(array).to(device or "cpu")
        found[key] = tensor if table[key].buffer else nn.Parameter(tensor, requires_grad=key not in still)
    return found


class Session:
    """A network that is being grown, with its data.

    Attributes:
        module: The live module.
        graph: Its graph, with its history.
        tensors: Its tensors by key; learned ones are Parameters.
        optimizer: What trains them.
        data: What is trained on, what selects, and what is tested on.
        reading: The same as the present module reads it.
        objective: What is minimised.
        problem: Where data and objective are from.
        config: The configuration, resolved for this data.
        optimizing: Which optimizer: settings, or a function of the parameters.
        device: Where the module is.
        seed: Everything random is a function of it.
        meter: What it all costs.
        log: What happened so far in this branch, as a schedule sees it; brought up to date before each growth.

    Args:
        network: What is grown.
        problem: Data and objective.
        config: Of the run.
        tick: Called with the name of a phase, the work done and in all.
        epoch: Called with the name of a phase, epochs done and in all, and the mean loss.
        optimizing: A function of the parameters that makes the optimizer; the configuration's if None.
        of: A module of this very network that somebody trains, and its optimizer, to be grown in place of new ones.

    Raises:
        RunError: The configuration does not fit the network or the machine.
    """

    def __init__(
        self,
        network: Network,
        problem: Problem,
        config: RunConfig,
        tick: Tick = lambda phase, done, total: None,
        epoch: Epoch = lambda phase, done, total, loss: None,
        optimizing: Factory | None = None,
        of: tuple[fx.GraphModule, torch.optim.Optimizer] | None = None,
    ) -> None:
        self.problem = problem
        self.config = resolved(config, problem, network)
        self.train_config: TrainConfig = self.config.train
        if self.train_config.batch_size == 1 and any(node.op.over_batch for node in network.graph.nodes):
            raise RunError("[train] batch_size is 1, but batch norm needs two samples or more to train on")
        self.seed = self.config.seed
        self.device = device_of(self.train_config.device) if of is None else _place(of[0])
        self.data: Data = problem.data.cut(self.seed, self.config.policy.select_share)
        self.objective: Objective = problem.objective
        self.optimizing: OptimizerConfig | Factory = optimizing or self.config.optimizer
        self.tick = tick
        self.epoch = epoch
        self.meter = Meter()
        self.log = Log((Entry("started"),))
        self.optimizer: torch.optim.Optimizer
        self.reading = Reading(self.data, self.device)
        self._first: tuple[torch.Tensor, ...] | None = None
        if of is None:
            self.begin(network)
            return
        self._values = dict(network.values)
        module, self.optimizer = of
        named = module.state_dict(keep_vars=True)
        self._take(module, network.graph, {key: named[key] for key in param_table(network.graph)})

    def begin(self, network: Network) -> None:
        """Start over from a network, with a new optimizer."""
        tensors = live_tensors(network, self.device)
        self._values = dict(network.values)
        self.reading.begin()
        self._take(lower_tensors(network.graph, tensors, self.device), network.graph, tensors)
        self.optimizer = self._new_optimizer()

    def _new_optimizer(self) -> torch.optim.Optimizer:
        rate, decay = self.train_config.learning_rate, self.train_config.weight_decay
        return make(self.learned, self.optimizing, rate=rate, weight_decay=decay)

    def _take(self, module: fx.GraphModule, graph: Graph, tensors: dict[str, torch.Tensor]) -> None:
        self.module, self.graph, self.tensors = module, graph, tensors
        self.reading.follow(module, graph, tensors)

    def keep(self) -> Callable[[], None]:
        """What takes everything that follows back."""
        network, state = self.network(), self.optimizer_state()

        def restore() -> None:
            self.begin(network)
            self.restore_optimizer(state)

        return restore

    def fork(self) -> Session:
        """A session of its own that goes on from here: what happens to one does not happen to the other.

        Only what the fork computes counts here too.
        """
        found = copy.copy(self)
        found.meter, found.reading = Meter(outer=self.meter), Reading(self.data, self.device)
        found.begin(self.network())
        found.restore_optimizer(self.optimizer_state())
        return found

    def optimizer_state(self) -> OptimizerState:
        """All that the optimizer keeps, copied."""
        return optimizer_state(self.optimizer, self.learned)

    def restore_optimizer(self, state: OptimizerState) -> None:
        """Take up what `optimizer_state` gave. Raises RunError if it is another optimizer's."""
        restore_optimizer(self.optimizer, state, self.learned)

    # -- the network --------------------------------------------------------------------------------------------------

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
        """The first value that the network gives."""
        return self.graph.outputs[0]

    @property
    def draws(self) -> bool:
        """Whether the network draws random numbers in train mode."""
        return any(node.op.draws for node in self.graph.nodes)

    def network(self) -> Network:
        """The current network; later training does not change it."""
        arrays = {key: to_array(tensor) for key, tensor in self.tensors.items()}
        return Network(self.graph, arrays, self._values)

    # -- measuring ----------------------------------------------------------------------------------------------------

    def batch_count(self, source: Source) -> int | None:
        """Batches of an epoch, before the last two may join; None where nobody knows without reading them all."""
        size = self.train_config.batch_size or 64
        return batch_count(source, size)

    def measure(self, source: Source, most: int | None = None, network: Network | None = None) -> Evaluated:
        """How the network, or another one, does on the first samples of a source, in eval mode.

        Args:
            source: One of the data's, or a part of it.
            most: The most samples; all if None.
            network: The other one.

        Raises:
            DataError: A batch does not fit the network.
        """
        if network is not None:
            other, tensors = Reading(self.data, self.device), live_tensors(network, self.device)
            module = lower_tensors(network.graph, tensors, self.device)
            other.follow(module, network.graph, tensors)
            ready = Ready(source, module, other.ready(source).feed, "the test data")
        else:
            ready = self.reading.ready(source)
            self.meter.count(2.0 * self.graph.costs().macs * (len(source) if most is None else min(most, len(source))))
        ready.module.eval()
        return evaluate(ready.forward, self.objective, ready.firsts(most))

    def standing(self) -> Standing:
        """How the network stands: on what is trained on between growths, and on the part that selects.

        On as many samples of each as growth is measured on at most.
        """
        most = self.config.policy.samples
        assert self.data.select is not None, "the data is cut"
        select = self.measure(self.data.select, most)
        train = self.measure(self.data.train, most)
        metrics = {"train": train.metrics, "selection": select.metrics}
        return Standing(select.losses, metrics, self.graph.costs().parameters)

    def recalibrate(self, *key: int) -> int:
        """Take running statistics of norms anew, from as many batches as the configuration says.

        Args:
            key: Of the order of the batches, integers of at least 0.

        Returns:
            How many batches were read; 0 where the network keeps no statistics.
        """
        return recalibrate(self, self.train_config.recalibrate, *key)

    # -- training -----------------------------------------------------------------------------------------------------

    def train(self, recipe: Recipe | Mapping[str, Any], *key: int) -> Fitted:
        """Train on what is trained on between growths, as a policy wants it: on a fork, say, to try something.

        Args:
            recipe: How long and how; or settings of it, {"epochs": 1, "batch_size": 64}.
            key: Of all draws, integers of at least 0, such as the key of the growth.

        Raises:
            RunError: The recipe is none, or the loss is not finite.
        """
        return train_by(self, recipe_from(recipe), key)

    # -- change -----------------------------------------------------------------------------------------------------

    @uncollected()
    def grow(self, pass_: Pass, steps: int = 0) -> live.Report:
        """Rewrite the module, its tensors and its optimizer's state, as `live.grow` does.

        Args:
            pass_: The pass.
            steps: Steps of the optimizer so far, from which the rates of what is new may rise anew.

        Raises:
            PassRefused: The pass does not fit the graph, it moves outputs although it promises to keep them, or outputs
                are not finite after it; nothing has changed.
        """
        # What was accumulated is of a step that is done; to carry it along would only cost.
        self.optimizer.zero_grad(set_to_none=True)
        done = pass_.rewrite(self.graph)
        # Where nothing learned, the optimizer holds nothing that could follow.
        learning, fresh = bool(self.learned), self.train_config.fresh or "small"
        promised = done.preserves in (Preserves.EXACT, Preserves.EVAL)
        module, report = live.grow(
            self.module,
            done,
            self.optimizer if learning else None,
            verify=self._looked_at(),
            at_most=ROUNDED if promised else math.inf,
            fresh=fresh,
            groups=groups_of(self.optimizer) if learning else None,
            train_as_imported=True,  # asked for before the run began
        )
        self._values |= {array_digest(array): array for array in pass_.values.values()}
        named, before = module.state_dict(keep_vars=True), self.tensors
        self._take(module, done.graph, {key: named[key] for key in param_table(done.graph)})
        if not learning:
            self.optimizer = self._new_optimizer()
        if self.train_config.rate.rewarm == "new":
            set_apart(self.optimizer, [p for key, p in self.learned.items() if key not in before], steps)
        return report

    def overgrown(self, pass_: Pass) -> OverGrown:
        """The network after a pass, as a function of the pass's fresh numbers that autograd can follow.

        Raises:
            PassRefused: The pass does not fit the graph.
        """
        return OverGrown(self.module, pass_)

    def _looked_at(self) -> tuple[torch.Tensor, ...]:
        """The inputs of the first samples that are trained on."""
        if self._first is None:
            self._first = self.reading.first(LOOKED_AT)
        return self._first

    def preview(
        self,
        done: Rewrite,
        given: Mapping[str, NDArray[Any]],
        shifts: Mapping[str, torch.Tensor],
        values: Mapping[str, torch.Tensor],
        target: Any,
    ) -> torch.Tensor:
        """The loss of each sample that growing by a rewrite would lead to.

        Args:
            done: The rewrite, of this graph.
            given: The numbers of its fresh places.
            shifts: What is added to tensors before it, by key.
            values: The constant prefix's values of these samples, by name.
            target: Theirs.
        """
        before = {key: t.detach() + shifts[key] if key in shifts else t.detach() for key, t in self.tensors.items()}
        like = torch.empty(0, dtype=float_dtype(self.tensors), device=self.device)
        blocks = {key: to_tensor(array).to(like) for key, array in given.items()}
        tensors = apply_edits(done.edits, before, TorchBackend(like), np.dtype(np.float64), blocks)
        names = self.reading.prefix()
        run = run_section(done.graph, tensors, names, done.graph.outputs)
        known = ArraySource(tuple(values[name] for name in names), target)
        return evaluate(
            lambda batch: full_precision(run(*batch.inputs)), self.objective, known.batches(ROWS, None)
        ).losses


def _place(module: fx.GraphModule) -> torch.device:
    """Where a module is."""
    return next((tensor.device for tensor in module.parameters()), torch.device("cpu"))
