"""Every architecture of the zoo imported: the same function in eval and train mode, the same keys, forth and back."""

from __future__ import annotations

import copy

import pytest
import torch

from growir.network import Network
from tests.sampling import thinned
from tests.zoo import ZOO
from tests.zoo.imported import dropless, imported

EXACT = 1e-12


def error(one: torch.Tensor, two: torch.Tensor) -> float:
    return float((one - two).abs().max()) / float(two.abs().max())


@pytest.mark.parametrize("name", thinned(ZOO, 4))
def test_the_network_computes_the_same(name: str) -> None:
    model, network = imported(name)
    batch = ZOO[name].inputs(5, seed=1)
    module = network.to_torch().eval()
    with torch.no_grad():
        assert error(module(*batch), model.eval()(*batch)) <= EXACT


@pytest.mark.parametrize("name", thinned(ZOO, 4, 1))
def test_the_network_trains_the_same(name: str) -> None:
    model, network = dropless(name)
    model = copy.deepcopy(model).train()
    batch = ZOO[name].inputs(5, seed=1)
    module = network.to_torch().train()
    with torch.no_grad():
        assert error(module(*batch), model(*batch)) <= EXACT
    # What batch norm has learned from the batch, too.
    after, before = network.updated(module).arrays, network.arrays
    state = model.state_dict()
    moved = [key for key in after if key.endswith("running_mean") and key in state]
    for key in moved:
        assert error(torch.from_numpy(after[key].copy()), state[key]) <= EXACT
        assert (after[key] != before[key]).any()


@pytest.mark.parametrize("name", thinned(ZOO, 4, 1))
def test_gradients_are_the_same(name: str) -> None:
    model, network = dropless(name)
    model = copy.deepcopy(model).train()
    batch = ZOO[name].inputs(4, seed=2)
    module = network.to_torch().train()
    module(*batch).square().mean().backward()
    model(*batch).square().mean().backward()
    gradients = {key: p.grad for key, p in module.named_parameters(remove_duplicate=False) if p.grad is not None}
    same = 0
    for key, parameter in model.named_parameters():
        if key in gradients and parameter.grad is not None:
            assert (gradients[key] - parameter.grad).abs().max() <= 1e-10 * max(1.0, float(parameter.grad.abs().max()))
            same += 1
    assert same > 3


# nn.MultiheadAttention's packed projection is no module of its own, and bare parameters are nodes.
RENAMED = {
    "vit_packed": {"cls_token", "pos_embed"},
    "vit_multihead": {"cls_token", "pos_embed", "attn.attention.in_proj_weight", "attn.attention.in_proj_bias"},
    "swin_like": {"bias"},
    "convnext": {"gamma"},
    "encoder_torch": {"position", "self_attn.in_proj_weight", "self_attn.in_proj_bias"},
    "condensenet": {"index", "order"},
    "super_resolution": {"mean"},
}


@pytest.mark.parametrize("name", ZOO)
def test_keys_are_the_models(name: str) -> None:
    model, network = imported(name)
    missing = set(model.state_dict()) - set(network.to_torch().state_dict())
    tails = {tail for key in missing for tail in [key] if not any(key.endswith(r) for r in RENAMED.get(name, ()))}
    assert not tails


@pytest.mark.parametrize("name", ["resnet", "vit_multihead", "encoder"])
def test_it_is_saved_and_loaded(name: str, tmp_path: object) -> None:
    from pathlib import Path

    _, network = imported(name)
    folder = Path(str(tmp_path)) / "net"
    network.save(folder)
    again = Network.load(folder)
    assert again.graph.hash == network.graph.hash
    assert all((again.arrays[key] == network.arrays[key]).all() for key in network.arrays)
