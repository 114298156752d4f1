"""Teacher and student (Douka et al. 2025): a random network labels random inputs, and growth must imitate it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from growir.graph import Graph, Input, Node
from growir.network import Network
from growir.ops import OP_BY_KIND, Add, Linear

# The paper does not say how far its uniform inputs reach. Over [-1, 1] a teacher with torch's initialisation is so
# nearly linear that a linear fit leaves 1 to 2 % of the targets' variance; over [-3, 3] it leaves three times as much.
REACH = 3.0


def teacher(inputs: int = 20, widths: Sequence[int] = (50, 50), outputs: int = 1, activation: str = "selu") -> Graph:
    """The teacher's architecture: two hidden states in a row, and an edge from the inputs to the second.

    By default 4701 parameters, the paper's. `Network.init` gives it torch's default initialisation.

    Args:
        inputs: Numbers per sample.
        widths: Of the first and of the second hidden state.
        outputs: Numbers to predict.
        activation: Kind of the activation of both states.
    """
    first, second = widths
    act = OP_BY_KIND[activation]
    nodes = (
        Node(name="first", op=Linear(out_features=first), inputs=("x",)),
        Node(name="first_act", op=act(), inputs=("first",)),
        Node(name="second", op=Linear(out_features=second), inputs=("first_act",)),
        Node(name="direct", op=Linear(out_features=second), inputs=("x",)),
        Node(name="sum", op=Add(), inputs=("second", "direct")),
        Node(name="sum_act", op=act(), inputs=("sum",)),
        Node(name="out", op=Linear(out_features=outputs), inputs=("sum_act",)),
    )
    return Graph(name="teacher", inputs=(Input(name="x", shape=("N", inputs)),), nodes=nodes, outputs=("out",))


def teacher_student(
    seed: int, samples: int = 1000, test: int = 5000, *, graph: Graph | None = None, reach: float = REACH
) -> dict[str, NDArray[np.float32]]:
    """Data for `growir.grow`: what a random teacher answers to random inputs, without noise.

    The targets are as the teacher gives them. `growir.grow` standardises them itself but reports the mean squared error
    in their own unit; divided by `y_train.var()` it says which part of the variance a student misses.

    Args:
        seed: Of the teacher's parameters and of the inputs.
        samples: Training samples in each of the three parts that growth makes.
        test: Test samples.
        graph: The teacher's architecture; `teacher()` if None.
        reach: Inputs are uniform over [-reach, reach].
    """
    network = Network.init(graph or teacher(), seed)
    shape = network.graph.inputs[0].shape[1:]
    # A stream of its own: the parameters are drawn from the same seed.
    draws = np.random.default_rng([seed, 1])
    x = draws.uniform(-reach, reach, size=(3 * samples + test, *map(int, shape))).astype(np.float32)
    with torch.no_grad():
        y: NDArray[np.float32] = network.to_torch()(torch.from_numpy(x)).numpy()
    cut = 3 * samples
    return {"x_train": x[:cut], "y_train": y[:cut], "x_test": x[cut:], "y_test": y[cut:]}
