"""Exported source of imported architectures: the same to the bit, and it can be imported again."""

from __future__ import annotations

import pytest
import torch

from growir.importing import from_torch
from tests.source.test_source import both, run
from tests.zoo.registry import ZOO

QUICK = ("shufflenet_v1_g2", "vit_packed")


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in ZOO])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_same_as_to_torch(name: str) -> None:
    entry = ZOO[name]
    network = from_torch(entry.make(), entry.inputs())
    lowered, exported, source = both(network)
    # A string that stands alone quotes a line of the model, and stays whole as in common formatters.
    assert max(len(line) for line in source.splitlines() if not line.strip().startswith('"')) <= 120
    batch = list(entry.inputs(batch=3, seed=1))
    for train in (False, True):
        (wanted, grads), (found, new) = (run(module, batch, train) for module in (lowered, exported))
        assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))
        assert all((g is None) == (new[key] is None) for key, g in grads.items())
        assert all(torch.equal(g, new[key]) for key, g in grads.items() if g is not None)
    again = from_torch(exported.eval(), entry.inputs()).to_torch().eval()
    with torch.no_grad():
        reimported, original = again(*batch), lowered.eval()(*batch)
    pairs = zip(*((v if isinstance(v, tuple) else (v,)) for v in (reimported, original)), strict=True)
    assert all(torch.allclose(a, b, rtol=1e-10, atol=1e-12) for a, b in pairs)
