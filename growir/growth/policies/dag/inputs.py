"""Which inputs to read, as a growth decision: networks that read fewer or more of them, fitted and told apart.

An input costs a neuron one weight. Where inputs are many and the budget is small, leaving out those that hardly vary
pays for more neurons; how many is best depends on the data and the budget.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from growir.data.dataset import Dataset
from growir.errors import RunError
from growir.growth.config import RunConfig
from growir.growth.divergence import telling
from growir.growth.loss import mean_and_error
from growir.growth.objective import Objective, SquaredError
from growir.growth.policies.dag.empty import empty_network
from growir.growth.policies.dag.settings import DagConfig
from growir.growth.problem import Problem
from growir.growth.session import Session
from growir.growth.training import fit_anew
from growir.network import Network
from growir.passes import AddNode
from growir.runs.records import Inputs
from growir.shapes import shapes_of


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """One choice of inputs.

    Attributes:
        variance: The share of the inputs' variance that is kept.
        inputs: How many of them that are.
        network: The network growth would start from.
        width: Neurons of the one hidden layer it was tried with, which spends the budget.
        loss: The mean loss on the selection part after a short fit.
        error: Its standard error.
    """

    variance: float
    inputs: int
    network: Network
    width: int
    loss: float
    error: float

    @property
    def record(self) -> Inputs:
        """As the events hold it."""
        return Inputs(
            variance=self.variance, inputs=self.inputs, width=self.width, loss=self.loss, loss_error=self.error
        )


def start_network(data: Dataset, config: RunConfig, policy: DagConfig, share: float | None = None) -> Network:
    """The network that growth starts from where none is given.

    Args:
        data: The data.
        config: Resolved.
        policy: The settings of the policy that will grow it.
        share: Of the inputs' variance that it reads; the first that the configuration names if None.
    """
    kept = config.data.keeping(config.data.shares[0] if share is None else share)
    return empty_network(data, kept, config.name, maps=bool(policy.kernels))


def dataset_of(problem: Problem) -> Dataset:
    """The arrays that a first network is made for. Raises RunError where the data is none."""
    if problem.dataset is None:
        raise RunError(
            "policy dag: it makes the first network from arrays that it knows the meaning of (a table, an .npz file, "
            "x_train and y_train); give a network to start from, growir.grow(network, data)"
        )
    return problem.dataset


def unit_of(objective: Objective) -> torch.Tensor | None:
    """The targets' standard deviation where the squared error is minimised; None for any other objective."""
    if not isinstance(objective, SquaredError):
        return None
    return torch.ones(1) if objective.scale is None else objective.scale


def short_fit(final: int) -> int:
    """Epochs of a trial, for a final fit of so many."""
    return max(1, min(3, final // 5))


def select_inputs(session: Session, policy: DagConfig) -> list[Reading]:
    """Every choice that the configuration names, the one with the smallest loss first; the session is left anywhere.

    Each is tried by one hidden layer that spends the budget, fitted for up to three epochs on what is trained on
    between growths, and measured on the selection part. Raises RunError if a fit diverges.
    """
    config, data = session.config, dataset_of(session.problem)
    select = session.data.select
    assert select is not None, "the data is cut"
    found: list[Reading] = []
    for k, share in enumerate(config.data.shares):
        network = start_network(data, config, policy, share)
        session.begin(network)
        source, target = network.graph["out"].inputs[0], "out"
        inputs = shapes_of(network.graph)[source].size(-1)
        budget = (config.budget.parameters or 0) - network.graph.costs().parameters
        width = max(1, budget // (inputs + 1 + data.outputs))
        activation = policy.activations[0]
        session.grow(AddNode(source=source, target=target, width=width, activation=activation, seed=config.seed))
        what = f"a short fit that reads {inputs} inputs"
        advice = "lower [train] learning_rate_final or weight_decay, or give [data] variance as one number"
        with telling(what, advice):
            fit_anew(session, short_fit(session.train_config.epochs_final or 1), k)
        loss, error = mean_and_error(session.measure(select).losses)
        if not math.isfinite(loss):
            raise RunError(f"{what} diverged: its loss is NaN or infinite; {advice}")
        found.append(Reading(share, inputs, network, width, loss, error))
    return sorted(found, key=lambda reading: reading.loss)
