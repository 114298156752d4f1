"""New neurons: which directions of their inputs they respond to, and at which thresholds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch

from growir.graph import Graph, Input, Node
from growir.growth.bottleneck import closed_form, combine, moment, ridged
from growir.growth.section import Values, run_section
from growir.ops import Op
from growir.params import initial_arrays

POOL = 256  # random directions that fitted ones are chosen from
Activation = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Neurons:
    """New neurons: incoming weights by source, a bias, and what they read."""

    reads: tuple[str, ...]
    incoming: tuple[torch.Tensor, ...]  # (source width, k) each
    bias: torch.Tensor  # (k,)
    activation: Activation

    def features(self, values: Values) -> torch.Tensor:
        """Their activations, (n, k)."""
        total = self.bias + combine([values[name] for name in self.reads], torch.cat(self.incoming).double())
        return self.activation(total)


def activation_of(op: Op, learned: Mapping[str, torch.Tensor] | None = None) -> Activation:
    """An activation as a function of tensors of any width.

    Args:
        op: The activation.
        learned: Its parameters by name, where one number serves all channels; others start as new ones do.
    """
    # Lowered code holds no width, so one module of width 1 serves all.
    node = Node(name="y", op=op, inputs=("x",))
    graph = Graph(inputs=(Input(name="x", shape=("N", 1)),), nodes=(node,), outputs=("y",))
    tensors = {key: torch.from_numpy(array) for key, array in initial_arrays(graph, 0).items()}
    for name, tensor in (learned or {}).items():
        if tensor.shape == tensors[f"y.{name}"].shape:
            tensors[f"y.{name}"] = tensor.detach()
    run = run_section(graph, tensors, ["x"], ["y"])
    return lambda values: run(values)[0].detach()


def random_directions(inputs: Sequence[torch.Tensor], count: int, draws: torch.Generator) -> torch.Tensor:
    """Isotropic directions, (inputs together, count)."""
    return torch.randn(sum(part.shape[1] for part in inputs), count, generator=draws, dtype=torch.float64)


def fitted_directions(
    inputs: Sequence[torch.Tensor],
    gram: torch.Tensor,
    rest: torch.Tensor,
    activation: Activation,
    count: int,
    ridge: float,
    draws: torch.Generator,
) -> torch.Tensor:
    """Directions chosen one after the other by how much of the bottleneck their activations explain.

    Args:
        inputs: What the neurons read, (n, width) each.
        gram: Its second moments.
        rest: v_perp of the states they feed, (n, widths together).
        activation: The neurons'.
        count: How many directions.
        ridge: Relative regularisation.
        draws: For the random part of the pool.
    """
    whole = torch.cat(list(inputs), dim=1)
    pool = [torch.randn(whole.shape[1], max(POOL, 2 * count), generator=draws, dtype=torch.float64)]
    best = closed_form(gram, rest, whole, count, ridge)
    pool += [best, -best]
    weight, bias = _scaled(inputs, torch.cat(pool, dim=1), 1.0, draws)
    features = activation(whole @ weight.float() + bias.float())
    features = features - features.mean(dim=0)
    own, coupling = moment(features, features), moment(features, rest)
    chosen: list[int] = []
    for _ in range(min(count, weight.shape[1])):
        left: torch.Tensor = coupling
        if chosen:
            part = ridged(own[chosen][:, chosen], 1e-6)
            known = cast("torch.Tensor", torch.linalg.solve(part, coupling[chosen]))
            left = coupling - own[:, chosen] @ known
        worth = left.square().sum(dim=1) / own.diagonal().clamp_min(1e-12)
        worth[chosen] = -1.0
        chosen.append(int(worth.argmax()))
    return weight[:, chosen]


def new_neurons(
    reads: tuple[str, ...],
    inputs: Sequence[torch.Tensor],
    directions: torch.Tensor,
    activation: Activation,
    draws: torch.Generator,
    *,
    threshold: bool,
    fitted: bool,
) -> Neurons:
    """Neurons of these directions, scaled to what they read.

    Args:
        reads: Names of what they read.
        inputs: Its activations.
        directions: (inputs together, count).
        activation: Theirs.
        draws: For thresholds.
        threshold: Whether they have a bias.
        fitted: Whether the directions were chosen for their gain. Large fitted ones win now and lose after training,
            so they start at half the scale.
    """
    weight, bias = _scaled(inputs, directions, 0.5 if fitted else 1.0, draws)
    sizes = [part.shape[1] for part in inputs]
    return Neurons(reads, torch.split(weight.float(), sizes), bias.float() * threshold, activation)


def _scaled(
    inputs: Sequence[torch.Tensor], weight: torch.Tensor, scale: float, draws: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Directions and biases that give pre-activations of std `scale` around random thresholds."""
    pre = combine(inputs, weight).double()
    spread = pre.std(dim=0).clamp_min(1e-6)
    weight = weight * (scale / spread)
    centre = pre.mean(dim=0) * (scale / spread)
    bias = scale * 0.5 * torch.randn(weight.shape[1], generator=draws, dtype=torch.float64) - centre
    return weight, bias
