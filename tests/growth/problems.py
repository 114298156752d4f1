"""Small problems for growth tests."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from growir.growth.config import RunConfig, parse_run
from growir.growth.data import check_data, empty_network
from growir.growth.session import Session, resolved

Arrays = dict[str, NDArray[Any]]


def spirals(samples: int = 240, seed: int = 0, scale: float = 1.0) -> Arrays:
    """Two classes that no line separates: points inside and outside a ring."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(samples, 3)) * scale
    y = (np.linalg.norm(x, axis=1) > 1.5 * scale).astype(np.int64)
    cut = samples * 3 // 4
    return {"x_train": x[:cut], "y_train": y[:cut], "x_test": x[cut:], "y_test": y[cut:]}


def curve(samples: int = 240, seed: int = 0) -> Arrays:
    """A smooth function of four numbers, targets far from mean 0 and std 1."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, size=(samples, 4))
    y = 50 + 10 * np.stack([np.sin(3 * x[:, 0]) + x[:, 1], x[:, 2] * x[:, 3]], axis=1)
    cut = samples * 3 // 4
    return {"x_train": x[:cut], "y_train": y[:cut], "x_test": x[cut:], "y_test": y[cut:]}


def blobs(samples: int = 240, seed: int = 0, channels: str = "") -> Arrays:
    """Images of 8 x 8 with a bright or dark blob; the quarter it lies in is the class.

    Args:
        samples: Training and test images together.
        seed: Of all that is random.
        channels: "first" for (1, 8, 8), "last" for (8, 8, 3), else (8, 8).
    """
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, samples)
    high, wide = (np.where(half == 0, 2, 5) + rng.integers(-1, 2, samples) for half in (y // 2, y % 2))
    grid = np.arange(8)
    far = (grid[None, :, None] - high[:, None, None]) ** 2 + (grid[None, None, :] - wide[:, None, None]) ** 2
    sign = rng.choice([-1.0, 1.0], samples)[:, None, None]
    x = sign * np.exp(-far / 2) + 0.3 * rng.normal(size=far.shape)
    if channels == "first":
        x = x[:, None]
    elif channels == "last":
        x = x[..., None] * [1.0, -0.5, 2.0] + 0.1 * rng.normal(size=(*x.shape, 3))
    cut = samples * 3 // 4
    return {"x_train": x[:cut], "y_train": y[:cut], "x_test": x[cut:], "y_test": y[cut:]}


SMALL: dict[str, Any] = {
    "policy": {"strategy": "whole", "neurons": 4},
    "train": {"epochs_between": 2, "epochs_final": 3, "batch_size": 32},
    "budget": {"parameters": 150, "steps": 4},
}


def small_config(seed: int = 0, **sections: dict[str, Any]) -> RunConfig:
    """Settings of a run that takes a fraction of a second."""
    merged = {key: {**SMALL.get(key, {}), **sections.get(key, {})} for key in {*SMALL, *sections}}
    return parse_run({"name": "small", "seed": seed, **merged}, "test")


def small_session(arrays: Arrays, config: RunConfig | None = None) -> Session:
    """A session on the empty graph."""
    config = config or small_config()
    data = check_data(arrays, config.data, "test")
    start = empty_network(data, resolved(config, data).data, "small", maps=bool(config.policy.kernels))
    return Session(start, data, config)
