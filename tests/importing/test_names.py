"""Every name of torch that works sample by sample is read rightly, or refused: never read wrongly, never a traceback.

The names are those that torch has today, called in a few usual ways; which of these calls work, and keep samples apart,
is tried without growir first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import growir
from growir.errors import ModelError

Function = Callable[..., Any]
PLACES: Mapping[str, object] = {"torch": torch, "Tensor": torch.Tensor, "F": F, "special": torch.special}
# Of names: what draws, allocates, writes or asks about the machine, and what is no function of numbers.
LEFT_OUT = (
    "rand empty dropout bernoulli multinomial poisson normal compile save load set_ cuda fork seed print numpy share "
    "register retain quant fft stft hook storage sparse to_ vmap cond export jit typename backward gumbel rrelu "
    "exponential geometric cauchy resize data_ptr untyped grad manual scan while binomial half float bfloat16"
).split()
WAYS: Mapping[str, Callable[[Function, torch.Tensor, torch.Tensor], Any]] = {
    "h": lambda f, h, p: f(h),
    "h, h": lambda f, h, p: f(h, h * 0.5 + 0.1),
    "h, 0.5": lambda f, h, p: f(h, 0.5),
    "h, p": lambda f, h, p: f(h, p),
    "h, h, p": lambda f, h, p: f(h, h * 2, p),
    "h, dim=1": lambda f, h, p: f(h, dim=1),
    "h, 1": lambda f, h, p: f(h, 1),
    "h, 2, 1": lambda f, h, p: f(h, 2, 1),
    "h, 1, 2, 1": lambda f, h, p: f(h, 1, 2, 1),
    "[h, h]": lambda f, h, p: f([h, h * 2]),
    "h, mask, 0": lambda f, h, p: f(h, torch.arange(6) > 2, 0.0),
}
# Of the sweep, what `make test` runs; `make test-all` runs the rest.
SAMPLE = 12
X = torch.rand(3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Case(NamedTuple):
    place: str
    name: str
    way: str


class Called(nn.Module):
    """One function of numbers between .1 and .9 that a layer makes, and of a parameter."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.layer, self.parameter = nn.Linear(6, 6).double(), nn.Parameter(torch.rand(6, dtype=torch.float64) + 0.1)
        self.function: Function = getattr(PLACES[case.place], case.name)
        self.way = WAYS[case.way]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.way(self.function, torch.sigmoid(self.layer(x)) * 0.8 + 0.1, self.parameter)
        return found


def works(case: Case) -> bool:
    """Whether the call gives finite floats with a gradient, and for each sample the same whatever the others are."""
    try:
        model = Called(case)
        whole, other = model(X), model(torch.cat([X[:1], X[:2]]))
        return bool(
            whole.is_floating_point()
            and whole.requires_grad
            and whole.shape[:1] == (3,)
            and whole.isfinite().all()
            and torch.allclose(whole[0], other[0])
            and torch.allclose(whole[1], other[2])
        )
    except Exception:  # whatever torch says of a call that it does not take
        return False


def cases() -> Iterator[Case]:
    for place, holder in PLACES.items():
        for name in sorted(dir(holder)):
            function = getattr(holder, name)
            plain = callable(function) and not isinstance(function, type) and not name.startswith("_")
            if plain and not name.endswith("_") and not any(word in name for word in LEFT_OUT):
                yield from [case for way in WAYS if works(case := Case(place, name, way))][:2]


def swept(case: Case) -> bool:
    """Whether the call is read; asserts that it is read rightly then, and refused with a ModelError otherwise."""
    model = Called(case)
    try:
        module = growir.from_torch(model, X).to_torch()
    except ModelError:
        return False
    found, wanted = module(X.flip(0)), model(X.flip(0))
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-8, msg=f"{case}: another value")
    weights = module.get_parameter("layer.weight"), model.layer.weight
    try:
        slope = torch.autograd.grad(wanted.cos().sum(), weights[1])[0]
    except RuntimeError:  # torch itself has no derivative of it
        return True
    (own,) = torch.autograd.grad(found.cos().sum(), weights[0])
    torch.testing.assert_close(own, slope, rtol=1e-7, atol=1e-8, msg=f"{case}: another gradient")
    return True


def test_a_sample_of_torchs_names() -> None:
    read = [swept(case) for case in list(cases())[::SAMPLE]]
    assert len(read) > 20
    assert sum(read) > 0.6 * len(read)


@pytest.mark.slow
def test_all_of_torchs_names() -> None:
    read = [swept(case) for case in cases()]
    assert sum(read) > 0.7 * len(read)
