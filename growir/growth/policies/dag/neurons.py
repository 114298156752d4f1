"""New neurons: which directions of what they read they respond to, and at which thresholds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from growir.graph import Graph, Input, Node
from growir.growth.measure.designs import along_channels, as_weight, run_layer
from growir.growth.measure.section import run_section
from growir.growth.policies.dag.additions import Incoming
from growir.growth.policies.dag.bottleneck import closed_form, combine, factor, moment
from growir.growth.policies.dag.measuring import Part
from growir.growth.policies.dag.norms import started
from growir.ops import Op
from growir.params import initial_arrays

POOL = 256  # random directions that fitted ones are chosen from
FLAT = 1e-3  # a neuron whose pre-activations or activations vary less, beside their size, is drawn anew
Activation = Callable[[torch.Tensor], torch.Tensor]
Blocks = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Neurons:
    """New neurons.

    Attributes:
        new: What they read.
        incoming: Weights of the layers that feed them, in those layers' layout.
        bias: (k,) what is added to their sums.
        scale: (k,) what these are multiplied by before; None for 1.
        shifts: Numbers by key that add the bias and scale: the bias, or what a norm has.
        activation: What is applied to the sum.
    """

    new: Incoming
    incoming: tuple[torch.Tensor, ...]
    bias: torch.Tensor
    scale: torch.Tensor | None
    shifts: Mapping[str, torch.Tensor]
    activation: Activation
    _done: dict[int, torch.Tensor] = field(default_factory=dict[int, torch.Tensor])

    def activations(self, part: Part) -> torch.Tensor:
        """Their activations on some samples, (n, k) or (n, k, height, width), computed once."""
        if id(part) not in self._done:
            with torch.no_grad():
                total = torch.zeros(())
                for edge, weight in zip(self.new.edges, self.incoming, strict=True):
                    total = total + run_layer(edge.op, part.carried(edge), weight)
                if self.scale is not None:
                    total = total * along_channels(self.scale, total)
                self._done[id(part)] = self.activation(total + along_channels(self.bias, total))
        return self._done[id(part)]


def neurons_of(
    new: Incoming, weight: torch.Tensor, bias: torch.Tensor, inputs: Sequence[torch.Tensor], activation: Activation
) -> Neurons:
    """Neurons with these incoming weights.

    Args:
        new: What they read.
        weight: (features of all edges together, k).
        bias: (k,).
        inputs: The designs of what they read, (rows, features of an edge) each.
        activation: Theirs.
    """
    blocks = torch.split(weight.float(), [part.shape[1] for part in inputs])
    incoming = tuple(as_weight(edge.op, block) for edge, block in zip(new.edges, blocks, strict=True))
    bias, scale = bias.float() * new.shifted, None
    shifts = {} if new.bias is None else {new.bias: bias if new.norm is None else torch.zeros_like(bias)}
    if new.norm is not None:
        shifts |= started(new.norm, combine(inputs, weight), bias)
        if not new.norm.op.affine:
            mean, variance = (shifts[key] for key in new.norm.keys)
            scale = (variance + new.norm.op.eps).rsqrt()
            bias = -mean * scale
    return Neurons(new, incoming, bias, scale, shifts, activation)


def activation_of(op: Op, learned: Mapping[str, torch.Tensor] | None = None, rank: int = 2) -> Activation:
    """An activation as a function of tensors of any width.

    Args:
        op: The activation.
        learned: Its parameters by name, where one number serves all channels; others start as new ones do.
        rank: Axes of the values, 2 for vectors.
    """
    # Lowered code holds no width, so one module of width 1 serves all.
    node = Node(name="y", op=op, inputs=("x",))
    graph = Graph(inputs=(Input(name="x", shape=("N", *[1] * (rank - 1))),), nodes=(node,), outputs=("y",))
    tensors = {key: torch.from_numpy(array) for key, array in initial_arrays(graph, 0).items()}
    for name, tensor in (learned or {}).items():
        if tensor.shape == tensors[f"y.{name}"].shape:
            tensors[f"y.{name}"] = tensor.detach()
    run = run_section(graph, tensors, ["x"], ["y"])
    return lambda values: run(values)[0]


def random_directions(inputs: Sequence[torch.Tensor], count: int, draws: torch.Generator) -> torch.Tensor:
    """Isotropic directions, (features together, count)."""
    return torch.randn(sum(part.shape[1] for part in inputs), count, generator=draws, dtype=torch.float64)


def fitted_directions(
    inputs: Sequence[torch.Tensor],
    rest: torch.Tensor,
    blocks: Blocks,
    count: int,
    ridge: float,
    draws: torch.Generator,
    *,
    aligned: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Directions and thresholds chosen one after the other by how much of the bottleneck their neurons explain.

    Args:
        inputs: Designs of what the neurons read, (rows, features) each.
        rest: v_perp of the states they feed, (rows there, widths together).
        blocks: Gives what neurons with these weights and biases feed on, (rows there, neurons, features of each).
        count: How many directions.
        ridge: Relative regularisation.
        draws: For the random part of the pool.
        aligned: Whether a row of `inputs` and the same row of `rest` are of one sample and position.
    """
    whole = torch.cat(list(inputs), dim=1)
    pool = [torch.randn(whole.shape[1], max(POOL, 2 * count), generator=draws, dtype=torch.float64)]
    if aligned:
        # Where the new neurons are rows of what they feed, the linearised solution joins the pool.
        best = closed_form(moment(whole, whole).whole, rest, whole, count, ridge)
        pool += [best, -best]
    weight, bias = scaled(inputs, torch.cat(pool, dim=1), 1.0, draws)
    # A few neurons at a time: maps are large before they are pooled.
    parts = zip(torch.split(weight, 32, dim=1), torch.split(bias, 32), strict=True)
    features = torch.cat([blocks(*part) for part in parts], dim=1)
    features = features - features.mean(dim=0)
    size = features.square().mean(dim=0).clamp_min(1e-12)
    left, chosen = rest, list[int]()
    for _ in range(min(count, weight.shape[1])):
        coupling = torch.einsum("npf,nt->pft", features, left) / len(rest)
        worth = (coupling.square().sum(dim=2) / size).sum(dim=1)
        worth[chosen] = -1.0
        chosen.append(int(worth.argmax()))
        taken = features[:, chosen].reshape(len(rest), -1)
        solved = factor(moment(taken, taken).whole, 1e-6)(moment(taken, rest).whole)
        left = rest - combine([taken], solved)
    return weight[:, chosen], bias[chosen]


def scaled(
    inputs: Sequence[torch.Tensor], weight: torch.Tensor, scale: float, draws: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Directions and biases that give pre-activations of std `scale` around random thresholds."""
    pre = combine(inputs, weight).double()
    size, spread = pre.square().mean(dim=0).sqrt(), pre.std(dim=0)
    # What does not vary beside its size cannot be scaled by how it varies.
    spread = torch.where(spread > 1e-6 * size, spread, torch.where(size > 0, size, 1.0))
    weight = weight * (scale / spread)
    centre = pre.mean(dim=0) * (scale / spread)
    bias = scale * 0.5 * torch.randn(weight.shape[1], generator=draws, dtype=torch.float64) - centre
    return weight, bias
