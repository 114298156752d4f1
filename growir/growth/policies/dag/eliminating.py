"""Which neurons a network misses least, and what its other weights become without them.

A state reads B W, B being all that feeds it and a column of ones, and S = E[B^T B]. Without the columns u the best that
the others can do is to take over what u gave as far as they know it: they get -A_ru A_uu^-1 W_u more, where A is the
inverse of S, and E ||change of B W||^2 is tr(W_u^T A_uu^-1 W_u). This is optimal brain surgery (Hassibi and Stork 1993)
of each state by itself, as a least-squares problem. So a duplicate costs nothing, nor does a neuron that is constant:
its twin, or the bias, takes over. Neurons go one after the other, since of two duplicates only one is needless.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch

from growir.growth.measure.designs import as_matrix, as_weight
from growir.growth.policies.dag.bottleneck import RIDGES, factor
from growir.growth.policies.dag.measuring import Measured
from growir.growth.policies.dag.states import StateView

Shifts = dict[str, torch.Tensor]
ROUNDS = 64  # in which all neurons of a state would go: of more than so many several go together


@dataclass(slots=True, eq=False)
class Fed:
    """A state that reads what may go.

    Attributes:
        state: The state.
        inverse: A = S^-1, (features, features); zero where they have gone.
        weight: W, (features, width): of its edges that may move, and its bias.
        first: The same before anything went.
        blocks: (units, columns) which features each unit gives; one unit is a whole edge, where that may go.
        sizes: How many features each of its edges that may move reads.
        power: E ||B W||^2, so that costs of several states can be added.
    """

    state: StateView
    inverse: torch.Tensor
    weight: torch.Tensor
    first: torch.Tensor
    blocks: torch.Tensor
    sizes: list[int]
    power: float

    def costs(self, units: Sequence[int]) -> torch.Tensor:
        """(units,) how much of what the state reads would change, as a part of its mean square."""
        at = self.blocks[list(units)]
        inner, weight = self.inverse[at[:, :, None], at[:, None, :]], self.weight[at]
        return (weight * solved(inner, weight)).sum(dim=(1, 2)) / self.power

    def remove(self, units: Sequence[int]) -> None:
        """Take units away, and let what is left take over what it can."""
        at = self.blocks[list(units)].flatten()
        moved = solved(self.inverse[at[:, None], at], self.inverse[at])  # A_uu^-1 A_u.
        self.weight = self.weight - moved.T @ self.weight[at]
        self.inverse = self.inverse - self.inverse[:, at] @ moved
        self.weight[at] = 0.0

    def shifts(self, gone: Sequence[int]) -> Shifts:
        """What is added to the weights of what stays, by key; zero where they go."""
        change = self.weight - self.first
        change[self.blocks[list(gone)].flatten()] = 0.0
        found: Shifts = {}
        parts = torch.split(change[: sum(self.sizes)], self.sizes)
        for edge, part in zip(self.state.moving, parts, strict=True):
            found[edge.weight] = as_weight(edge.op, part).float().contiguous()
        if self.state.moving_bias is not None:
            found[self.state.moving_bias] = change[-1].float()
        return found


def fed(measured: Measured, state: StateView, edges: Sequence[str], units: int) -> Fed:
    """A state before anything goes.

    Args:
        measured: The network.
        state: The state.
        edges: The edges into it that lose units.
        units: How many there are; 1 where the edges go whole.
    """
    tensors, gram = measured.session.tensors, measured.bottleneck(state).gram.whole
    parts = [as_matrix(tensors[edge.weight].detach()) for edge in state.moving]
    if state.moving_bias is not None:
        parts.append(tensors[state.moving_bias].detach()[None, :])
    weight = torch.cat(parts).double()
    # With more of a ridge a twin would cost more than a neuron of small weights that has none.
    inverse = factor(gram, RIDGES[-1])(torch.eye(len(gram), dtype=gram.dtype))
    sizes = [len(part) for part, _ in zip(parts, state.moving, strict=False)]
    places = torch.split(torch.arange(sum(sizes)), sizes)
    # The features of a unit stand together: channels come first.
    named = zip(state.moving, places, strict=True)
    blocks = [place.reshape(units, -1) for edge, place in named if edge.name in edges]
    power = float((weight * (gram @ weight)).sum().clamp_min(1e-300))
    return Fed(state, inverse, weight, weight.clone(), torch.cat(blocks, dim=1), sizes, power)


def eliminated(states: Sequence[Fed], counts: Sequence[int]) -> Iterator[tuple[tuple[int, ...], Shifts]]:
    """Which units go, where so many do, and what is added to the weights of what stays.

    Args:
        states: All that read them.
        counts: How many go, ascending; what goes first goes with more of them too.
    """
    left, gone = list(range(len(states[0].blocks))), list[int]()
    at_once = max(1, len(left) // ROUNDS)
    for count in counts:
        while len(gone) < count:
            costs = torch.stack([state.costs(left) for state in states]).sum(dim=0)
            order = costs.argsort(stable=True)[: min(at_once, count - len(gone))]
            going = [left[int(k)] for k in order]
            for state in states:
                state.remove(going)
            gone += going
            left = [unit for unit in left if unit not in going]
        yield tuple(sorted(gone)), {key: shift for state in states for key, shift in state.shifts(gone).items()}


def solved(matrix: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The solution of matrix @ x = values, of each matrix of a stack."""
    return cast("torch.Tensor", torch.linalg.solve(matrix, values))
