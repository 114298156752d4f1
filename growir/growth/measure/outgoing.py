"""How strongly a network asks for fresh units: the slopes of the loss by their outgoing weights, which are zero.

Evci et al. 2022 (GradMax) let the incoming weights be zero and choose the outgoing ones by such slopes. Under relu,
whose slope at zero is zero, such a unit is dead for ever. Mirrored, with the incoming weights chosen and the outgoing
ones at zero, the function is kept as well, and the unit learns from its first step.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from growir.data.nests import tensors_of
from growir.data.source import Batch
from growir.errors import RunError
from growir.growth.measure.gated import Gated
from growir.growth.measure.learning import finite_loss
from growir.growth.objective import full_precision

if TYPE_CHECKING:
    from growir.growth.session import Session


def strengths(session: Session, gated: Gated, batch: Batch, *, learns: bool = False) -> torch.Tensor:
    """(units,) of each fresh unit the squared norm of the mean loss's gradient by its outgoing weights, at zero.

    Args:
        session: Whose loss it is.
        gated: The candidates, without splits.
        batch: What the loss is of.
        learns: Whether the result is to be differentiable in the directions.

    Raises:
        RunError: The loss is not finite.
    """
    session.meter.count(6.0 * gated.over.graph.costs().macs * len(batch) * (2 if learns else 1))
    given = gated.given(gated.gates())
    places = gated.behind_gates
    outgoing = [torch.zeros_like(given[address], requires_grad=True) for address in places]
    outputs = full_precision(
        gated.over({**given, **dict(zip(places, outgoing, strict=True))}, *tensors_of(batch.inputs))
    )
    loss = finite_loss(session.objective.total(outputs, batch.target) / len(batch))
    found = gated.gates()
    if not loss.requires_grad:  # no candidate reaches an output
        return found
    slopes = torch.autograd.grad(loss, outgoing, create_graph=learns, allow_unused=True, materialize_grads=True)
    for address, slope in zip(places, slopes, strict=True):
        found = found + gated.sums(address, slope.square())
    return found


def _lacks_a_derivative(error: RuntimeError) -> bool:
    """Whether torch says that an operator cannot be differentiated twice; it has no class of errors for that."""
    said = str(error)
    return "once_differentiable" in said or ("derivative for" in said and "not implemented" in said)


def strengthened(session: Session, gated: Gated, batches: Iterable[Batch], *, rate: float) -> None:
    """Let the incoming directions learn, in place, to make the strength of each unit large: a step for each batch.

    Their logarithms are summed, so that every unit gains, whatever the layer's scale.

    Args:
        session: Whose loss it is.
        gated: The candidates, without splits.
        batches: One for each step of Adam.
        rate: The step, as a part of the spread of each direction's initialiser.

    Raises:
        RunError: The loss is not finite, or an operator has no second derivative.
    """
    free = {a: d for a, d in gated.directions.items() if a not in gated.behind_gates}
    optimizer = torch.optim.Adam([{"params": [d], "lr": rate * gated.spreads[a]} for a, d in free.items()])
    gated.bound()
    for direction in free.values():
        direction.requires_grad_()
    for batch in batches:
        found = strengths(session, gated, batch, learns=True)
        if not found.requires_grad:
            break
        optimizer.zero_grad()
        asked = found.clamp_min(torch.finfo(found.dtype).tiny).log().sum()
        try:
            (-asked).backward()  # type: ignore[no-untyped-call]  # torch's own
        except RuntimeError as error:
            if not _lacks_a_derivative(error):
                raise
            raise RunError(
                f"growing: incoming weights learn by second derivatives, which torch lacks here ({error}); draw them "
                "by chance, [policy] learn_steps = 0"
            ) from None
        optimizer.step()
        gated.bound()
    for direction in free.values():
        direction.requires_grad_(False)
        direction.grad = None
