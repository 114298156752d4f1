"""The expressivity bottleneck of a state, and the best weights of what could be added to it.

At a state with pre-activation a, v = -dL/da is the update each sample would like (L the summed loss). What the
existing incoming edges can give is the projection on their sources' activations B = [b_1 | ... | b_m | 1]:
dW* = S^-1 M with S = E[B^T B], M = E[B^T v]. The rest, v_perp = v - B dW*, is the bottleneck Psi = ||v_perp||
(Douka et al. 2025, section 2; Verbockhaven et al. 2024). New features F (a new edge's source, or new neurons) are
fitted to it jointly with the existing edges, by block elimination: one Cholesky factor of S serves every candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch

from growir.errors import DataError
from growir.growth.states import StateView

Values = Mapping[str, torch.Tensor]


class Grams:
    """Second moments E[a^T b] of values, in float64, each computed once; those of constant values outlive a growth."""

    def __init__(self, values: Values, constant: set[str], kept: dict[tuple[str, str], torch.Tensor]) -> None:
        self._values = values
        self._constant = constant
        self._kept = kept
        self._now: dict[tuple[str, str], torch.Tensor] = {}

    def __call__(self, a: str, b: str) -> torch.Tensor:
        """E[a^T b], (width of a, width of b)."""
        if a > b:
            return self(b, a).T
        store = self._kept if {a, b} <= self._constant else self._now
        if (a, b) not in store:
            store[a, b] = moment(self._values[a], self._values[b])
        return store[a, b]


def moment(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """E[a^T b] in float64: sums of chunks that are short enough for float32, which is several times faster."""
    total = torch.zeros(a.shape[1], b.shape[1], dtype=torch.float64)
    for k in range(0, len(a), 1024):
        total += a[k : k + 1024].T @ b[k : k + 1024]
    if not torch.isfinite(total).all():
        raise DataError("activations are so far from 1 that their squares overflow; standardise the data, or scale it")
    return total / len(a)


def ridged(gram: torch.Tensor, ridge: float) -> torch.Tensor:
    """A Gram matrix with a ridge relative to its mean diagonal, so that scaled inputs solve alike."""
    mean = gram.diagonal().mean().clamp_min(torch.finfo(torch.float64).tiny)
    return gram + ridge * mean * torch.eye(len(gram), dtype=gram.dtype)


def factor(gram: torch.Tensor, ridge: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """A solver for (gram + ridge) x = y: Cholesky, or by eigenvalues where rounding made it indefinite."""
    whole = ridged(gram, ridge)
    lower = cholesky(whole)
    if lower is not None:
        return lambda y: torch.cholesky_solve(y, lower)
    values, vectors = eigenvalues(whole)
    keep = values > values[-1] * 1e-12
    inverse = torch.where(keep, 1 / values.clamp_min(1e-300), 0.0)
    return lambda y: vectors @ (inverse[:, None] * (vectors.T @ y))


def cholesky(gram: torch.Tensor) -> torch.Tensor | None:
    """The lower factor, None where the matrix is not positive definite."""
    factored = cast("tuple[torch.Tensor, torch.Tensor]", torch.linalg.cholesky_ex(gram))
    return None if int(factored[1]) else factored[0]


def eigenvalues(gram: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvalues, ascending, and eigenvectors of a symmetric matrix."""
    return cast("tuple[torch.Tensor, torch.Tensor]", torch.linalg.eigh(gram))


@dataclass(frozen=True, slots=True, eq=False)
class Bottleneck:
    """What one state lacks.

    Attributes:
        state: The state.
        solve: Solver for the second moments of its sources, the constant 1 last if it has a bias.
        slope: M = E[B^T v], (sources, width): minus the gradient of the existing edges' weights.
        wish: dW* = S^-1 M, (sources, width): the best update of the existing edges.
        rest: v_perp, (n, width) float32.
        psi: The bottleneck, sqrt(E ||v_perp||^2).
        desired: v, (n, width) float32.
    """

    state: StateView
    solve: Callable[[torch.Tensor], torch.Tensor]
    slope: torch.Tensor
    wish: torch.Tensor
    rest: torch.Tensor
    psi: float
    desired: torch.Tensor


def sources(state: StateView, values: Values) -> list[torch.Tensor]:
    """What the state's existing parameters multiply: its sources' activations, and 1 for its bias."""
    found = [values[edge.source] for edge in state.edges]
    if state.bias is not None:
        found.append(torch.ones(len(values[state.node]), 1))
    return found


def measure(state: StateView, values: Values, desired: torch.Tensor, gram: Grams, ridge: float) -> Bottleneck:
    """Project the desired update on what the state's edges can do.

    Args:
        state: The state.
        values: Activations by name on the fitting part.
        desired: v, (n, width).
        gram: Second moments of those activations.
        ridge: Relative regularisation.
    """
    parts = sources(state, values)
    if not parts:
        psi = float(desired.double().square().sum(dim=1).mean().sqrt())
        empty = torch.zeros(0, state.width, dtype=torch.float64)
        return Bottleneck(state, lambda y: y, empty, empty, desired, psi, desired)
    names = [edge.source for edge in state.edges]
    rows = [torch.cat([gram(a, b) for b in names], dim=1) for a in names]
    inner = torch.cat(rows) if rows else torch.zeros(0, 0, dtype=torch.float64)
    if state.bias is not None:
        ones = parts[-1]
        side = torch.cat([moment(p, ones) for p in parts])
        inner = torch.cat([torch.cat([inner, side[:-1]], dim=1), side.T])
    solve = factor(inner, ridge)
    slope = torch.cat([moment(p, desired) for p in parts])
    wish = solve(slope)
    rest = desired - combine(parts, wish)
    psi = float(rest.double().square().sum(dim=1).mean().sqrt())
    return Bottleneck(state, solve, slope, wish, rest, psi, desired)


def combine(parts: Sequence[torch.Tensor], weight: torch.Tensor) -> torch.Tensor:
    """[p_1 | p_2 | ...] @ weight without the concatenation."""
    total = torch.zeros(len(parts[0]), weight.shape[1]) if parts else torch.zeros(0)
    start = 0
    for part in parts:
        total = total + part @ weight[start : start + part.shape[1]].to(part.dtype)
        start += part.shape[1]
    return total


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """New weights of one state.

    Attributes:
        existing: Changes of its edges and bias, (sources, width).
        new: Weights of the added features, (features, width).
        gain: First-order decrease of the mean loss, E[v . (change of the pre-activation)].
    """

    existing: torch.Tensor
    new: torch.Tensor
    gain: float

    @property
    def whole(self) -> torch.Tensor:
        """Both, one below the other."""
        return torch.cat([self.existing, self.new])


def fit(bottleneck: Bottleneck, parts: Sequence[torch.Tensor], features: torch.Tensor, ridge: float) -> Fit:
    """The ridge least squares of v on the existing sources and the new features together.

    Args:
        bottleneck: The state.
        parts: Its sources on the fitting part, as `sources` gives them.
        features: (n, k) the new ones.
        ridge: Relative regularisation.
    """
    own = moment(features, features)
    if not parts:
        slope = moment(features, bottleneck.desired)
        new = factor(own, ridge)(slope)
        return Fit(bottleneck.wish, new, float((slope * new).sum()))
    cross = torch.cat([moment(part, features) for part in parts])
    known = bottleneck.solve(cross)
    # The Schur complement is what of the features the existing sources do not already give; its ridge is relative to
    # the features themselves, so that a feature they do give gets no weight instead of an exploding one.
    mean = own.diagonal().mean().clamp_min(torch.finfo(torch.float64).tiny)
    beyond = own - cross.T @ known + ridge * mean * torch.eye(len(own), dtype=own.dtype)
    lower = cholesky(beyond)
    target = moment(features, bottleneck.rest)
    new = factor(beyond, ridge)(target) if lower is None else torch.cholesky_solve(target, lower)
    existing = bottleneck.wish - known @ new
    # v = v_perp + B dW*, so what the features see of v is what they see of both.
    seen = target + cross.T @ bottleneck.wish
    return Fit(existing, new, float((bottleneck.slope * existing).sum() + (seen * new).sum()))


def closed_form(gram: torch.Tensor, rest: torch.Tensor, inputs: torch.Tensor, count: int, ridge: float) -> torch.Tensor:
    """Incoming weights of the neurons that reduce the bottleneck fastest, (inputs, at most count).

    S^-1/2 N = U diag(l) V^T with N = E[b^T v_perp]; the directions are S^-1/2 U (Verbockhaven et al. 2024, prop. 3.2).
    There are none where N = 0, as between a state and one that it already feeds: what they could add there is purely
    non-linear.
    """
    coupling = moment(inputs, rest)
    values, vectors = eigenvalues(ridged(gram, ridge))
    root = vectors @ (values.clamp_min(values[-1] * 1e-12).rsqrt()[:, None] * vectors.T)
    left, strength, _ = cast(
        "tuple[torch.Tensor, torch.Tensor, torch.Tensor]", torch.linalg.svd(root @ coupling, full_matrices=False)
    )
    scale = float(rest.double().square().sum(dim=1).mean().sqrt())
    keep = min(count, int((strength > 1e-2 * scale).sum()))
    return root @ left[:, :keep]
