"""What a network says of new samples: the label or the numbers, and how probable each label is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from growir.data.description import Description
from growir.network import Network

AT_ONCE = 4096  # samples, so that wide layers of many samples need not fit in memory


@dataclass(frozen=True, slots=True)
class Answers:
    """What a network says, sample by sample.

    Attributes:
        predicted: (n,) labels, as the description has them; of regression (n, outputs) float64.
        probabilities: (n, classes) float64 in the order of the description's classes; None of regression.
    """

    predicted: NDArray[Any]
    probabilities: NDArray[np.float64] | None


def answers(network: Network, description: Description, x: NDArray[np.float32]) -> Answers:
    """What a network says of samples of the shape that its description names.

    Args:
        network: Of one input and one output.
        description: Of the data that it was trained on.
        x: (n, ...) finite numbers.
    """
    found = outputs_of(network, x)
    if description.classes is None:
        return Answers(found, None)
    return Answers(np.array(description.classes)[found.argmax(axis=1)], probabilities(found))


def outputs_of(network: Network, x: NDArray[np.float32]) -> NDArray[np.float64]:
    """The outputs of a network in eval mode, (n, outputs).

    They are computed in float64, where what other samples stand in the batch moves no digit that a float32 has.
    """
    module = network.to_torch(dtype=torch.float64).eval()
    with torch.no_grad():
        batches = [module(torch.from_numpy(x[k : k + AT_ONCE]).double()) for k in range(0, len(x), AT_ONCE)]
    found: NDArray[np.float64] = torch.cat(batches).numpy()
    return found


def probabilities(outputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Softmax of each row: how probable each class is by a network that was trained by cross-entropy."""
    powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    found: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return found
