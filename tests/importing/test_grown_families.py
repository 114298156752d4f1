"""Tiny models of the `transformers` package grown into larger ones of their own class, with their optimizers."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import nn

import growir
from growir import live
from growir.testing.laws import TOLERANCE
from tests.importing.families import Family, InDoubles, calls, in_doubles, made

pytest.importorskip("transformers")

GPT2 = Family("gpt2", "text", "GPT2LMHeadModel")
LLAMA = Family("llama", "text", "LlamaForCausalLM")
BERT = Family("bert", "text", "BertForMaskedLM")
VIT = Family("vit", "image", "ViTForImageClassification", {"num_labels": 5})
FAMILIES = {family.name: family for family in (GPT2, LLAMA, BERT, VIT)}
# What grows inside blocks, where the optimizer's law is exact for every entry, and the stream through all norms.
INNER: Mapping[str, Mapping[str, Any]] = {
    "gpt2": {"num_hidden_layers": 4, "n_inner": 160},
    "llama": {"num_hidden_layers": 4, "intermediate_size": 64},
    "bert": {"intermediate_size": 64},  # no block whose end is a norm starts as the identity
    "vit": {"num_hidden_layers": 4, "intermediate_size": 64},
}
STREAM: Mapping[str, Mapping[str, Any]] = {
    "gpt2": {"hidden_size": 64, "num_attention_heads": 8},
    "llama": {"hidden_size": 64, "num_attention_heads": 8, "num_key_value_heads": 4},
    "bert": {"hidden_size": 64, "num_attention_heads": 8},
    "vit": {"hidden_size": 64, "num_attention_heads": 8},
}


def sized(family: Family, sizes: Mapping[str, Any]) -> nn.Module:
    """A model in float64 that keeps nothing of its last call, and draws nothing."""
    model = made(dataclasses.replace(family, config={**family.config, **sizes})).double()
    config: Any = model.config
    config.use_cache = False
    return model


def adamw(model: nn.Module, lr: float) -> torch.optim.Optimizer:
    """As people group: weights decay, biases and norms do not."""
    groups = [[p for p in model.parameters() if (p.ndim > 1) is many] for many in (True, False)]
    return torch.optim.AdamW(
        [{"params": groups[0], "weight_decay": 0.1 * (lr > 0)}, {"params": groups[1], "weight_decay": 0.0}], lr
    )


@contextlib.contextmanager
def all_in_doubles() -> Iterator[None]:
    with InDoubles():
        yield


def logits(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    with all_in_doubles():
        found: torch.Tensor = model(**batch).logits
    return found


def loss(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    found = logits(model, batch)
    mixture = torch.randn(found.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return (found.log_softmax(-1) * mixture).sum() / mixture.numel()


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, batches: Sequence[Mapping[str, torch.Tensor]]) -> None:
    for batch in batches:
        optimizer.zero_grad()
        torch.autograd.backward(loss(model, batch))
        optimizer.step()
    optimizer.zero_grad()


def batches_of(family: Family) -> list[dict[str, torch.Tensor]]:
    example = list(calls(family).values())[-1]
    return [in_doubles(example, size) for size in (2, 3, 1)]


def grown(
    name: str, sizes: Mapping[str, Any]
) -> tuple[nn.Module, nn.Module, growir.Plan, list[dict[str, torch.Tensor]]]:
    """A small model after three steps, a large one that is to be filled, their plan, and batches."""
    family = FAMILIES[name]
    example = list(calls(family).values())[-1]
    small, large = sized(family, {}), sized(family, sizes)
    plan = growir.plan(
        lambda: sized(family, {}).float(), lambda: sized(family, sizes).float(), dict(example), exact=True
    )
    batches = batches_of(family)
    steps(small, adamw(small, 1e-3), batches)
    return small, large, plan, batches


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the package's own
@pytest.mark.parametrize("name", FAMILIES)
def test_inside_blocks_every_entry_of_the_optimizer_follows_the_law(name: str) -> None:
    small, large, plan, batches = grown(name, INNER[name])
    # Three steps of no length: what is kept is of these gradients alone, and so the large model's own can be held
    # against it, wherever the entry is not new.
    optimizer, into = adamw(small, 0.0), adamw(large, 1e-3)
    steps(small, optimizer, batches)
    report = live.grow_into(small, large, plan, optimizer, into)
    # Of a block with a power in it, as in GPT-2's activation, nothing is promised; the logits decide.
    assert report.preserves == ("nothing" if name == "gpt2" else "exact")
    for batch in batches:
        torch.testing.assert_close(logits(large, batch), logits(small, batch), rtol=TOLERANCE, atol=TOLERANCE)
    own = adamw(large, 0.0)
    steps(large, own, batches)
    there = {key for key, _ in small.named_parameters()}
    followed = 0
    for key, parameter in large.named_parameters():
        found, wanted = into.state.get(parameter, {}), own.state[parameter]
        if key not in there:
            continue  # of a new block, a copy: its state is its source's, so that both make the same step
        old = found["exp_avg"] != 0
        followed += int(old.sum())
        for entry in ("exp_avg", "exp_avg_sq"):
            scale = float(wanted[entry].abs().max())
            torch.testing.assert_close(found[entry][old], wanted[entry][old], rtol=1e-7, atol=1e-9 * scale)
        assert found["step"] == 3
    assert followed > 0.9 * sum(int((optimizer.state[p]["exp_avg"] != 0).sum()) for p in small.parameters())
    before = loss(large, batches[0]).item()
    steps(large, into, batches[:1] * 3)
    assert loss(large, batches[0]).item() < before


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FAMILIES)
def test_the_stream_grows_and_training_goes_on(name: str) -> None:
    small, large, plan, batches = grown(name, STREAM[name])
    optimizer = adamw(small, 1e-3)
    steps(small, optimizer, batches)
    into = adamw(large, 1e-3)
    report = live.grow_into(small, large, plan, optimizer, into)
    assert report.preserves in ("exact", "eval")  # in train mode its dropouts draw for more channels
    for batch in batches:
        torch.testing.assert_close(logits(large, batch), logits(small, batch), rtol=TOLERANCE, atol=TOLERANCE)
    assert not report.stateless
    before = loss(large, batches[0]).item()
    steps(large, into, batches[:1] * 3)
    assert loss(large, batches[0]).item() < before
