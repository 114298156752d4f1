"""The expressivity bottleneck of a state, and the best weights of what could be added to it.

At a state with pre-activation a, v = -dL/da is the update each sample would like (L the summed loss). What the
existing incoming edges can give is the projection on their sources' activations B = [b_1 | ... | b_m | 1]:
dW* = S^-1 M with S = E[B^T B], M = E[B^T v]. The rest, v_perp = v - B dW*, is the bottleneck Psi = ||v_perp||
(Douka et al. 2025, section 2; Verbockhaven et al. 2024). New features F (a new edge's source, or new neurons) are
fitted to it jointly with the existing edges, by block elimination: one Cholesky factor of S serves every candidate.

Everything is a matrix of rows: a row is a sample of a vector, or a position of a map (growth/measure/designs.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar, cast

import torch

from growir.errors import DataError
from growir.growth.policies.dag.states import StateView

T = TypeVar("T")
Solver = Callable[[torch.Tensor], torch.Tensor]
RIDGES = (1e-2, 1e-3, 1e-4)  # what is tried where none is given; of equals the first
MANY = 256  # features from which on no ridge is searched for
SEEN = 32  # neurons of a state that a ridge is chosen by, if it has more
HELD = 4  # one in so many rows is held out, to choose the ridge by
Key = tuple[object, ...]  # what names a design: the value that is read first, then how
Remembered = dict[Key, object]


@dataclass(frozen=True, eq=False)
class Moment:
    """E[a^T b] in float64, of all rows and of the last ones, which are held out when a ridge is chosen.

    Attributes:
        whole: Of all rows.
        held: Of those that are held out.
        share: How many of all rows these are.
    """

    whole: torch.Tensor
    held: torch.Tensor
    share: float

    @cached_property
    def fitting(self) -> torch.Tensor:
        """Of the rows that are not held out."""
        return (self.whole - self.share * self.held) / (1 - self.share)

    @property
    def T(self) -> Moment:  # noqa: N802  # as tensors have it
        """E[b^T a]."""
        return Moment(self.whole.T, self.held.T, self.share)


def stacked(rows: Sequence[Sequence[Moment]]) -> Moment:
    """A matrix of blocks."""
    return Moment(
        torch.cat([torch.cat([part.whole for part in row], dim=1) for row in rows]),
        torch.cat([torch.cat([part.held for part in row], dim=1) for row in rows]),
        rows[0][0].share,
    )


class Grams:
    """Second moments of designs, each computed once; those of constant values outlive a growth.

    Args:
        designs: What gives a design, (rows, features), by its key.
        constant: Whether a key's design is the same after training.
        kept: Moments and factors of constant designs from earlier growths; more are added.
    """

    def __init__(
        self, designs: Callable[[Key], torch.Tensor], constant: Callable[[Key], bool], kept: Remembered
    ) -> None:
        self._designs = designs
        self._constant = constant
        self._kept = kept
        self._now: Remembered = {}

    def __call__(self, a: Key, b: Key) -> Moment:
        """E[a^T b], (width of a, width of b)."""
        if repr(a) > repr(b):
            return self(b, a).T
        return self._once((a, b), ("moment", a, b), lambda: moment(self._designs(a), self._designs(b)))

    def mean(self, a: Key) -> Moment:
        """E[a], (width of a, 1)."""
        return self._once((a,), ("mean", a), lambda: means(self._designs(a)))

    def solver(self, keys: Sequence[Key], ridge: float, gram: torch.Tensor, held: bool) -> Solver:
        """`factor`, remembered for these designs."""
        return self._once(keys, ("factor", *keys, ridge, held, len(gram)), lambda: factor(gram, ridge))

    def _once(self, keys: Sequence[Key], what: Key, compute: Callable[[], T]) -> T:
        store = self._kept if all(map(self._constant, keys)) else self._now
        if what not in store:
            store[what] = compute()
        return cast("T", store[what])


def moment(a: torch.Tensor, b: torch.Tensor) -> Moment:
    """E[a^T b] in float64: sums of chunks that are short enough for float32, which is several times faster."""
    count = len(a)
    split = count - count // HELD
    first, last = _summed(a[:split], b[:split]), _summed(a[split:], b[split:])
    if not torch.isfinite(first + last).all():
        raise DataError("activations are so far from 1 that their squares overflow; standardise the data, or scale it")
    return Moment((first + last) / count, last / max(count - split, 1), (count - split) / count)


def _summed(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    total = torch.zeros(a.shape[1], b.shape[1], dtype=torch.float64, device=a.device)
    for k in range(0, len(a), 1024):
        total += a[k : k + 1024].T @ b[k : k + 1024]
    return total


def means(a: torch.Tensor) -> Moment:
    """E[a] as a column."""
    return moment(a, torch.ones(len(a), 1, device=a.device))


def ridged(gram: torch.Tensor, ridge: float, scale: torch.Tensor | None = None) -> torch.Tensor:
    """A Gram matrix with a ridge relative to `scale`, or its mean diagonal, so that scaled inputs solve alike."""
    mean = (gram.diagonal().mean() if scale is None else scale).clamp_min(torch.finfo(torch.float64).tiny)
    found = gram.clone()
    found.diagonal().add_(ridge * mean)
    return found


def factor(gram: torch.Tensor, ridge: float, scale: torch.Tensor | None = None) -> Solver:
    """A solver for (gram + ridge) x = y: Cholesky, or by eigenvalues where rounding made it indefinite."""
    whole = ridged(gram, ridge, scale)
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


@dataclass(frozen=True, eq=False)
class Bottleneck:
    """What one state lacks.

    Attributes:
        state: The state.
        keys: Of its edges' designs.
        parts: Those designs, then 1 for its bias, (rows, features) each.
        gram: S = E[B^T B].
        solve: Solver for their second moments.
        slope: M = E[B^T v], (sources, width): minus the gradient of the existing edges' weights.
        wish: dW* = S^-1 M, (sources, width): the best update of the existing edges.
        rest: v_perp, (rows, width) float32.
        psi: The bottleneck, sqrt(E ||v_perp||^2), over all positions of a sample.
        desired: v, (rows, width) float32.
        ridge: The relative ridge that was chosen or given.
    """

    state: StateView
    keys: Sequence[Key]
    parts: Sequence[torch.Tensor]
    gram: Moment
    solve: Solver
    slope: Moment
    wish: torch.Tensor
    rest: torch.Tensor
    psi: float
    desired: torch.Tensor
    ridge: float

    @cached_property
    def wanting(self) -> torch.Tensor:
        """(rows,) 1 for the rows at which the state would like to move, else 0, float32."""
        return (self.desired != 0).any(dim=1).float()

    @cached_property
    def beyond(self) -> torch.Tensor:
        """M - S dW*, what the best update leaves of the slope: not zero, as the solve has a ridge."""
        return self.slope.whole - self.gram.whole @ self.wish

    @cached_property
    def beyond_held(self) -> torch.Tensor:
        """The same of the rows that are held out."""
        return self.slope.held - self.gram.held @ self.wish


def measure(
    state: StateView,
    keys: Sequence[Key],
    parts: Sequence[torch.Tensor],
    desired: torch.Tensor,
    gram: Grams,
    ridge: float | None,
    positions: int,
) -> Bottleneck:
    """Project the desired update on what the state's edges can do.

    Args:
        state: The state.
        keys: Of its edges' designs.
        parts: Those designs, and 1 for its bias, if it has one.
        desired: v, (rows, width).
        gram: Second moments of designs.
        ridge: Relative regularisation; chosen on held-out rows if None.
        positions: Positions of a sample.
    """
    if not parts:
        psi = math.sqrt(positions * float(desired.double().square().sum(dim=1).mean()))
        empty = torch.zeros(0, state.width, dtype=torch.float64)
        nothing, none = Moment(empty, empty, 0.0), Moment(empty[:, :0], empty[:, :0], 0.0)
        chosen = ridge or RIDGES[1]
        return Bottleneck(state, (), (), none, _unsolved, nothing, empty, desired, psi, desired, chosen)
    rows = [[gram(a, b) for b in keys] for a in keys]
    if len(parts) > len(keys):
        ones = parts[-1]
        side = [gram.mean(key) for key in keys]
        rows = [*([*row, last] for row, last in zip(rows, side, strict=True)), [*(s.T for s in side), means(ones)]]
    inner = stacked(rows)
    slopes = [moment(part, desired) for part in parts]
    slope = stacked([[part] for part in slopes])

    fitting, held = slope.fitting[:, :SEEN], slope.held[:, :SEEN]

    def held_out(tried: float) -> float:
        solve = gram.solver(keys, tried, inner.fitting, held=True)
        return _held_residual(solve(fitting), inner.held, held)

    chosen = ridge or (min(RIDGES, key=held_out) if keys else RIDGES[1])
    solve = gram.solver(keys, chosen, inner.whole, held=False)
    wish = solve(slope.whole)
    rest = desired - combine(parts, wish)
    psi = math.sqrt(positions * float(rest.double().square().sum(dim=1).mean()))
    return Bottleneck(state, keys, parts, inner, solve, slope, wish, rest, psi, desired, chosen)


def _unsolved(y: torch.Tensor) -> torch.Tensor:
    """The solver of no unknowns."""
    return y


def _held_residual(weight: torch.Tensor, gram: torch.Tensor, slope: torch.Tensor) -> float:
    """E||v - B w||^2 less E||v||^2."""
    return float((weight * (gram @ weight)).sum() - 2 * (weight * slope).sum())


def combine(parts: Sequence[torch.Tensor], weight: torch.Tensor) -> torch.Tensor:
    """[p_1 | p_2 | ...] @ weight without the concatenation."""
    total = torch.zeros(len(parts[0]), weight.shape[1], device=weight.device) if parts else torch.zeros(0)
    start = 0
    for part in parts:
        total += part @ weight[start : start + part.shape[1]].to(part.dtype)
        start += part.shape[1]
    return total


def joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """[p_1 | p_2 | ...], without a copy of a part that is alone."""
    return parts[0] if len(parts) == 1 and parts[0].is_contiguous() else torch.cat(list(parts), dim=1)


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """New weights of one state.

    Attributes:
        existing: Changes of its edges and bias, (sources, width).
        new: Weights of the added features, (features, width).
        known: K, (sources, features), what the sources give of the features; None without sources.
    """

    existing: torch.Tensor
    new: torch.Tensor
    known: torch.Tensor | None


def fit(
    bottleneck: Bottleneck,
    features: torch.Tensor,
    ridge: float | None,
    own: Moment | None = None,
    cross: Moment | None = None,
) -> Fit:
    """The ridge least squares of v on the existing sources and the new features together.

    Args:
        bottleneck: The state.
        features: F, (rows, k) the new ones.
        ridge: Relative regularisation; chosen on held-out rows if None.
        own: E[F^T F], where it is known.
        cross: E[B^T F], where it is known.
    """
    own = own or moment(features, features)
    target = moment(features, bottleneck.rest)
    beyond, wish = own, bottleneck.wish
    known: torch.Tensor | None = None
    if len(wish):
        cross = cross or stacked([[moment(part, features)] for part in bottleneck.parts])
        known = bottleneck.solve(cross.whole)
        # F - B K is what the existing sources do not already give of the features; these are its moments.
        searched = ridge is None and len(own.whole) <= MANY
        beyond = _residual(own, cross, bottleneck.gram, known, searched)
        target = _rest(target, bottleneck, known, searched)
    # The ridge is relative to the features themselves, so that a feature the sources do give gets no exploding weight.
    scale = own.whole.diagonal().mean()

    def held_out(tried: float) -> float:
        lower = cholesky(ridged(beyond.fitting, tried, scale))
        if lower is None:
            return math.inf
        return _held_residual(torch.cholesky_solve(target.fitting, lower), beyond.held, target.held)

    # Of many features the search would cost more than all else: the ridge that served the state's edges serves them.
    chosen = ridge or (min(RIDGES, key=held_out) if len(beyond.whole) <= MANY else bottleneck.ridge)
    new = factor(beyond.whole, chosen, scale)(target.whole)
    existing = wish if known is None else wish - known @ new
    return Fit(existing, new, known)


def _residual(own: Moment, cross: Moment, gram: Moment, known: torch.Tensor, held: bool) -> Moment:
    """E[(F - B K)^T (F - B K)]: positive definite for any K, unlike a Schur complement with a ridge inside.

    What is held out stays as it is where nobody asks for it.
    """

    def of(own: torch.Tensor, cross: torch.Tensor, gram: torch.Tensor) -> torch.Tensor:
        half = cross.T @ known
        # In place, as what is made anew of hundreds of features costs more than to compute it.
        return (own - half).sub_(half.T).add_(known.T @ (gram @ known))

    last = of(own.held, cross.held, gram.held) if held else own.held
    return Moment(of(own.whole, cross.whole, gram.whole), last, own.share)


def _rest(target: Moment, bottleneck: Bottleneck, known: torch.Tensor, held: bool) -> Moment:
    """E[(F - B K)^T v_perp] from E[F^T v_perp]; likewise."""

    last = target.held - known.T @ bottleneck.beyond_held if held else target.held
    return Moment(target.whole - known.T @ bottleneck.beyond, last, target.share)


def closed_form(gram: torch.Tensor, rest: torch.Tensor, inputs: torch.Tensor, count: int, ridge: float) -> torch.Tensor:
    """Incoming weights of the neurons that reduce the bottleneck fastest, (inputs, at most count).

    S^-1/2 N = U diag(l) V^T with N = E[b^T v_perp]; the directions are S^-1/2 U (Verbockhaven et al. 2024, prop. 3.2).
    There are none where N = 0, as between a state and one that it already feeds: what they could add there is purely
    non-linear.
    """
    coupling = moment(inputs, rest).whole
    values, vectors = eigenvalues(ridged(gram, ridge))
    root = vectors @ (values.clamp_min(values[-1] * 1e-12).rsqrt()[:, None] * vectors.T)
    left, strength, _ = cast(
        "tuple[torch.Tensor, torch.Tensor, torch.Tensor]", torch.linalg.svd(root @ coupling, full_matrices=False)
    )
    scale = float(rest.double().square().sum(dim=1).mean().sqrt())
    keep = min(count, int((strength > 1e-2 * scale).sum()))
    return root @ left[:, :keep]
