"""Any torch model brought in as a network."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from growir.network import Network

if TYPE_CHECKING:
    import torch


def from_torch(
    model: torch.nn.Module,
    example_inputs: torch.Tensor | Sequence[torch.Tensor] | Mapping[str, torch.Tensor],
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
