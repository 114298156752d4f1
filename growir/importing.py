"""Any torch model brought in as a network."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from growir.edits import NUMPY, among, apply_edits
from growir.errors import PassRefused, cut
from growir.network import Network

if TYPE_CHECKING:
    import torch

    from growir.passes.deepening import Order
    from growir.planning import Plan, Saved, Widths

    Example = torch.Tensor | Sequence[torch.Tensor] | Mapping[str, torch.Tensor]
    Model = torch.nn.Module | Callable[[], torch.nn.Module]


def from_torch(
    model: torch.nn.Module,
    example_inputs: Example,
    *,
    name: str | None = None,
    check: bool = True,
) -> Network:
    """A network that computes what a torch.nn.Module computes, with the module's weights, in eval and in train mode.

    The model is exported (torch.export) as a copy and stays as it is. Nodes are named by its module hierarchy, and a
    parameter keeps its state_dict key wherever a document can have it; where not, `Node.source` holds the model's key.
    Tied parameters stay tied, frozen ones (requires_grad false) frozen. `net.to_torch()` is the way back.

    Args:
        model: Any module that torch.export can follow. In train mode or not makes no difference.
        example_inputs: The inputs of one call, with the batch as their first axis; floats or int64. The batch may have
            any size, also one: the network's is open.
        name: The name of the graph; the model's class if None.
        check: Run the model and the network on the example and on other sizes of it, and compare the outputs. Axes of
            the inputs for which only the example's size is right stand in the graph (`fixed_sizes`), and the network's
            modules refuse other sizes there; without the comparison these are all axes.

    Warns:
        UserWarning: What the network does not take over: lines that do something else in train mode, a batch size that
            could not be left open. What train mode does otherwise stays written in the graph (`train_differs`), and
            `growir.grow` and `growir.live.grow` ask for `train_as_imported=True` before they go on with it.

    Raises:
        ModelError: The model has parts that a graph cannot express; the message lists all of them, each with the line
            of the model it comes from and what would work instead.
    """
    from growir.backends.torch_export import import_model

    found = import_model(model, example_inputs, name=name, check=check)
    for notice in found.notices:
        warnings.warn(notice, UserWarning, stacklevel=2)
    return Network(found.graph, found.arrays)


def plan(
    small: Model,
    large: Model,
    example_inputs: Example,
    *,
    large_inputs: Example | None = None,
    widths: Widths = "default",
    exact: bool = False,
    order: Order = "whole",
) -> Plan:
    """The passes that lead from a model to a larger one of the same code, proved by equality of their graphs' hashes.

    Both are exported and compared as graphs; of their numbers only constants of the code count. `live.grow_into`
    carries the plan out on the two models, and `network.apply(plan.step)` on the network of the small one.

    Args:
        small: The model that is to grow, or a function that makes it.
        large: One of the size that it is to have, or a function that makes it.
        example_inputs: The inputs of one call, as `from_torch` takes them.
        large_inputs: Those of the large model, where they are others.
        widths: How channels are added: as `widen` does it by "default", by "copies", or "fresh".
        exact: Whether new blocks start as the identity, which keeps the function; else they are whole copies.
        order: Which blocks the new ones are copies of, and where: "whole" (0 1 0 1), "each" (0 0 1 1) or "middle".

    Raises:
        ModelError: A model cannot be exported.
        PassRefused: The large model is no growth of the small one; the message has the first difference that is left.
    """
    from growir.backends.torch_export import import_model, made
    from growir.document import function_hash
    from growir.planning import Plan, leading

    models = made(small, "small"), made(large, "large")
    before = import_model(models[0], example_inputs, check=False)
    after = import_model(models[1], example_inputs if large_inputs is None else large_inputs, check=False)
    step = leading(before.graph, after.graph, widths=widths, exact=exact, order=order)
    found = Plan(
        graph=before.graph,
        step=step,
        before=function_hash(before.graph),
        after=function_hash(after.graph),
        small_keys=before.keys,
        large_keys=after.keys,
        small_saved=_saved(models[0]),
        large_saved=_saved(models[1]),
    )
    _check_constants(found, before.arrays, after.arrays)
    return found


def _saved(model: torch.nn.Module) -> dict[str, Saved]:
    """A model's state_dict without its numbers; what is no tensor in it is left out."""
    from growir.planning import Saved

    number = {id(parameter): k for k, parameter in enumerate(model.parameters())}
    named: Mapping[str, Any] = model.state_dict(keep_vars=True)
    return {
        name: Saved(shape=tuple(value.shape), parameter=number.get(id(value)), trained=value.requires_grad)
        for name, value in named.items()
        if hasattr(value, "requires_grad")
    }


def _check_constants(found: Plan, small: Mapping[str, NDArray[Any]], large: Mapping[str, NDArray[Any]]) -> None:
    """Raise PassRefused if a constant of the code is another one in the large model: no rewrite can know that."""
    own = {key: array for key, array in small.items() if key not in found.small_keys}
    edits = among(found.rewrite.edits, own)
    grown = apply_edits(edits, own, NUMPY, np.dtype(np.float32))
    for key, array in grown.items():
        if key in large and key not in found.large_keys and not np.allclose(array, large[key], 1e-5, 1e-6):
            raise PassRefused(
                f"{cut(key)} is a constant of the model's code, and the large model has other numbers in it than the "
                "small one leads to (by another base of rotary positions, say); let both compute it alike"
            )
