"""A search that takes seconds: stripes of two directions, cells of one node."""

from __future__ import annotations

from pathlib import Path

import numpy as np

RUN = """
name = "stripes"
threads = 1

[data]
path = "stripes.npz"

[cells]
nodes = 1
operations = ["skip_connect", "sep_conv_3x3", "dil_conv_3x3"]
inner = 1
cells = 3
reductions = [1]
width = 2
stem = 1

[search.policy]
fresh_units = 1
learn_steps = 2
judge_batches = 1

[search.schedule]
epochs = 1
growths = 2

[search.train]
batch_size = 32

[evaluation]
cells = 3
reductions = [1]
width = 3
stem = 1
epochs = 3
batch_size = 32
"""


def write_run(folder: Path, text: str = RUN) -> Path:
    """Data and a run file in a folder."""
    rng = np.random.default_rng(0)
    y = np.arange(120) % 2
    stripes = np.where(np.arange(8) % 2, 1.0, -1.0)
    across = np.where(y[:, None, None] == 0, stripes[None, :, None], stripes[None, None, :])
    x = (across + rng.normal(size=(120, 8, 8))).astype(np.float32)[:, None]
    np.savez(folder / "stripes.npz", x_train=x[:80], y_train=y[:80], x_test=x[80:], y_test=y[80:])
    path = folder / "run.toml"
    path.write_text(text)
    return path
