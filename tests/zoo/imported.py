"""The zoo as networks. An import takes a second, so one run of the tests makes each once, for all its processes."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import nn

import growir
from growir.network import Network
from tests.zoo import ZOO

FOLDER = "GROWIR_TESTS_FOLDER"  # the environment variable that says where one run of the tests keeps what it shares


def once(name: str, make: Callable[[], Network]) -> Network:
    """A network that is made by whichever process needs it first; the others load what that saved."""
    shared = os.environ.get(FOLDER)
    if shared is None:
        return make()
    folder = Path(shared) / "".join(c if c.isalnum() else "-" for c in name)
    if folder.is_dir():
        return Network.load(folder)
    network = make()
    mine = folder.with_name(f"{folder.name}.{os.getpid()}")
    network.save(mine)
    try:
        mine.rename(folder)
    except OSError:  # another process was quicker
        shutil.rmtree(mine)
    return network


@cache
def imported(name: str) -> tuple[nn.Module, Network]:
    """The model and its network, imported with a batch of one. Any warning is an error."""
    entry = ZOO[name]
    model = entry.make()

    def make() -> Network:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return growir.from_torch(model, entry.inputs(1))

    return model, once(f"imported {name}", make)


@cache
def dropless(name: str) -> tuple[nn.Module, Network]:
    """The model without dropout, whose draws would differ, with no two parameters alike, and its network."""
    model = varied(without_dropout(ZOO[name].make()))
    return model, once(f"dropless {name}", lambda: growir.from_torch(model, ZOO[name].inputs(3)))


def without_dropout(model: nn.Module) -> nn.Module:
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        if isinstance(part, nn.MultiheadAttention):
            part.dropout = 0.0
        if isinstance(getattr(part, "rate", None), float):  # of F.dropout, in the zoo's own modules
            part.rate = 0.0  # type: ignore[assignment]
    return model


def varied(model: nn.Module) -> nn.Module:
    """No two parameters alike, so that those of the network are known by their numbers."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype), alpha=0.01)
    return model
