"""Grow a regression network from nothing and run the ONNX file. Writes the run directory ripple/ here."""

from __future__ import annotations

import numpy as np
import onnxruntime
from numpy.typing import NDArray

import growir
from growir.growth.observer import Observer
from growir.runs.records import Event, Growth


def ripple(samples: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points of the plane, and a wave around the origin as seen there, in units far from mean 0 and std 1."""
    x = np.random.default_rng(seed).uniform(-1, 1, size=(samples, 2))
    return x, 300 + 40 * np.cos(5 * np.linalg.norm(x, axis=1))


def show(event: Event) -> None:
    """Print each growth as it is chosen."""
    if isinstance(event, Growth):
        gain = "no gain yet" if event.measured_gain is None else f"gain {event.measured_gain:.4f}"
        print(f"{event.step}: {event.what}, {gain}, {event.parameters} parameters")


def main() -> None:
    """Grow, compare the first step with the last, predict."""
    x_train, y_train = ripple(900, seed=0)
    x_test, y_test = ripple(300, seed=1)
    result = growir.grow(
        None,
        {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test},
        policy={"name": "dag", "neurons": 8, "activation": "tanh"},
        budget={"parameters": 150},
        name="ripple",
        out="ripple",
        observer=Observer(event=show),
    )
    print(growir.diff(growir.load_graph("ripple/growth/0001.json"), result.network.graph))
    print("mean squared error on the test data:", result.summary["test_after_fit"]["mse"])

    # Standardisation of inputs and targets is part of the graph: the file takes and gives raw numbers.
    session = onnxruntime.InferenceSession("ripple/model.onnx")
    (predicted,) = session.run(None, {"x": x_test[:5].astype(np.float32)})
    for target, found in zip(y_test[:5], predicted[:, 0], strict=True):
        print(f"target {target:6.1f}   predicted {found:6.1f}")


if __name__ == "__main__":
    main()
