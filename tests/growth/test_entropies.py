"""Cross-entropies of many samples of few classes are torch's own, bit by bit, however they are computed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from growir.growth import entropies as module
from growir.growth.entropies import entropies

CLASSES = (2, 3, 7, 8, 10, 15, 16, 40)
SAMPLES = (1, 255, 256, 300, 1025, 3000)


def logits_of(samples: int, classes: int, scale: float) -> torch.Tensor:
    draws = torch.Generator().manual_seed(samples * classes)
    return scale * torch.randn(samples, classes, generator=draws)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 100.0])
@pytest.mark.parametrize("classes", CLASSES)
def test_are_the_bits_of_torch(classes: int, scale: float) -> None:
    for samples in SAMPLES:
        logits = logits_of(samples, classes, scale)
        target = torch.arange(samples) % classes
        for laid_out in (logits, logits.T.contiguous().T):
            assert torch.equal(entropies(laid_out, target), F.cross_entropy(logits, target, reduction="none"))


def test_infinite_logits_and_targets_that_do_not_count_are_torchs() -> None:
    logits, target = logits_of(600, 10, 1.0), torch.arange(600) % 10
    logits[3, 3], logits[7, 2], logits[11, 5] = torch.inf, -torch.inf, torch.nan
    target[20] = -100
    found, wanted = entropies(logits, target), F.cross_entropy(logits, target, reduction="none")
    assert torch.equal(found.nan_to_num(-1.0), wanted.nan_to_num(-1.0))
    assert found[11].isnan()
    assert found[20] == 0
    with pytest.raises(IndexError):
        entropies(logits, target + 5)


def test_gradients_and_other_types_take_torchs_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*given: object, **named: object) -> torch.Tensor:
        raise AssertionError("the short way is for float32 without gradients")

    logits, target = logits_of(600, 4, 1.0), torch.arange(600) % 4
    monkeypatch.setattr(F, "nll_loss", never)
    assert entropies(logits.requires_grad_(), target).requires_grad
    assert entropies(logits.detach().double(), target).dtype == torch.float64
    if module.LANES > 4:
        with pytest.raises(AssertionError, match="the short way"):
            entropies(logits.detach(), target)
