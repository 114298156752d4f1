"""Fewer tokens than the example's, and more where the model's own tables go on: in torch, as a class, and in ONNX."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import growir
from growir.backends.torch_source.saving import save_source
from growir.lengths import bounds_of
from growir.network import Network
from growir.passes import Extend, Widen
from growir.testing import assert_preserves

VOCABULARY, WIDTH, HEADS, EXAMPLE, ROWS = 11, 8, 2, 6, 10


class Attention(nn.Module):
    """Heads over tokens; how they see each other is said by `scores`, or by is_causal."""

    def __init__(self, causal: bool = False) -> None:
        super().__init__()
        self.causal = causal
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def turned(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        n, t, _ = x.shape
        q, k, v = (y.view(n, t, HEADS, -1).transpose(1, 2) for y in self.qkv(x).split(WIDTH, 2))
        seen = F.scaled_dot_product_attention(self.turned(q), self.turned(k), v, mask, is_causal=self.causal)
        found: torch.Tensor = x + self.out(seen.transpose(1, 2).reshape(n, t, WIDTH))
        return found


class Rotary(Attention):
    def turned(self, x: torch.Tensor) -> torch.Tensor:
        half = x.shape[-1] // 2
        angles = torch.arange(x.shape[-2])[:, None] * 10.0 ** -torch.arange(half)
        cos, sin = (torch.cat([table, table], -1).to(x.dtype) for table in (angles.cos(), angles.sin()))
        return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


class Tokens(nn.Module):
    """A language model without positions; its head is its embedding."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.embed, self.block, self.norm = nn.Embedding(VOCABULARY, WIDTH), block, nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.head.weight = self.embed.weight

    def placed(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def mask(self, x: torch.Tensor) -> torch.Tensor | None:
        return None

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.placed(self.embed(ids))
        found: torch.Tensor = self.head(self.norm(self.block(x, self.mask(x))))
        return found


class Learned(Tokens):
    """Learned positions, by their numbers, as GPT-2 has them."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__(block)
        self.position = nn.Embedding(ROWS, WIDTH)

    def placed(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = x + self.position(torch.arange(x.shape[1]))
        return found


class Numbered(Learned):
    """The numbers of the positions are kept in a buffer, as BERT has them."""

    numbers: torch.Tensor

    def __init__(self, block: nn.Module) -> None:
        super().__init__(block)
        self.register_buffer("numbers", torch.arange(ROWS)[None])

    def placed(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = x + self.position(self.numbers[:, : x.shape[1]])
        return found


class Sines(Tokens):
    """A buffer of sines, of which as many rows are added as there are tokens."""

    table: torch.Tensor

    def __init__(self, block: nn.Module) -> None:
        super().__init__(block)
        self.register_buffer("table", torch.sin(torch.arange(ROWS)[:, None] * 3.0 ** -torch.arange(WIDTH)))

    def placed(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.table[: x.shape[1]]


class Masked(Tokens):
    """A mask that is made for the tokens at hand: not later ones, and not those before the last three."""

    def mask(self, x: torch.Tensor) -> torch.Tensor | None:
        place = torch.arange(x.shape[1])
        apart = place[:, None] - place
        return torch.zeros(apart.shape, dtype=x.dtype).masked_fill((apart < 0) | (apart > 2), float("-inf"))


class Relative(Tokens):
    """A learned number for each head and distance, as T5 has them."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__(block)
        self.bias = nn.Embedding(7, HEADS)

    def mask(self, x: torch.Tensor) -> torch.Tensor | None:
        place = torch.arange(x.shape[1])
        found: torch.Tensor = self.bias((place[:, None] - place).clamp(-3, 3) + 3).permute(2, 0, 1)[None]
        return found


class Slopes(Tokens):
    """Each head sees far tokens less, by a slope of its own (ALiBi)."""

    def mask(self, x: torch.Tensor) -> torch.Tensor | None:
        place = torch.arange(x.shape[1])
        return -(place[:, None] - place).abs() * torch.tensor([0.5, 0.25], dtype=x.dtype)[:, None, None]


MODELS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "learned": (lambda: Learned(Attention(causal=True)), ROWS),
    "numbered": (lambda: Numbered(Attention()), ROWS),
    "sines": (lambda: Sines(Attention()), ROWS),
    "rotary": (lambda: Tokens(Rotary(causal=True)), 2048),
    "masked": (lambda: Masked(Attention()), 1024),
    "relative": (lambda: Relative(Attention()), 512),
    "slopes": (lambda: Slopes(Attention()), 512),
}


@cache
def imported(name: str) -> tuple[nn.Module, Network]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MODELS[name][0]().double().eval()
    return model, growir.from_torch(model, ids(EXAMPLE))


def ids(tokens: int, rows: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randint(VOCABULARY, (rows, tokens), generator=torch.Generator().manual_seed(seed))


def lengths(name: str) -> list[int]:
    return list(dict.fromkeys((1, EXAMPLE // 2, EXAMPLE, MODELS[name][1])))


@pytest.mark.parametrize("name", MODELS)
def test_each_length_gives_what_the_model_gives(name: str, tmp_path: Path) -> None:
    model, network = imported(name)
    assert network.graph.fixed_sizes == ()
    assert [(place, bound.most) for place, bound in bounds_of(network.graph).items()] == [(("ids", 1), MODELS[name][1])]
    assert network.graph.inputs[0].shape == ("N", EXAMPLE)
    save_source(network.graph, network.arrays, tmp_path / "net.py")
    exported: nn.Module = runpy.run_path(str(tmp_path / "net.py"))["Net"]()
    module = network.to_torch()
    exported.load_state_dict(module.state_dict())
    for tokens in lengths(name):
        wanted = model(ids(tokens, seed=1))
        for made in (module.eval(), exported.double().eval()):
            torch.testing.assert_close(made(ids(tokens, seed=1)), wanted, rtol=1e-9, atol=1e-9)
        with pytest.raises(ValueError, match="ids: axis 1 has the size"):
            exported(ids(MODELS[name][1] + 1))


@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_fewer_tokens(name: str) -> None:
    model, network = imported(name)
    module = network.to_torch()
    for made in (model, module):
        made.zero_grad()
        made(ids(3)).square().sum().backward()
    wanted = sorted(float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None)
    found = sorted(float(p.grad.square().sum()) for p in module.parameters() if p.grad is not None)
    assert found == pytest.approx(wanted, rel=1e-8, abs=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_files_for_onnx_take_each_length(name: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model, network = imported(name)
    network.to_onnx(tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"))
    assert session.get_inputs()[0].shape == ["N", "ids_1"]
    assert session.get_outputs()[0].shape == ["N", "ids_1", VOCABULARY]
    for rows in (1, 3):
        for tokens in lengths(name):
            (found,) = session.run(None, {"ids": ids(tokens, rows).numpy()})
            np.testing.assert_allclose(found, model(ids(tokens, rows)).detach().numpy(), rtol=1e-4, atol=1e-4)


def test_a_length_beyond_is_refused() -> None:
    _, network = imported("learned")
    message = (
        r"^ids: axis 1 has the size 11, but this network takes at most 10, the length of its table position; cut the "
        "input, or import the model again with an example of the size you need$"
    )
    with pytest.raises(ValueError, match=message):
        network.to_torch()(ids(11))
    assert network.graph.summary().endswith("any size up to these is right:\n  ids axis 1, at most 10: table position")


def test_growth_keeps_every_length() -> None:
    _, network = imported("rotary")
    space = next(space for space in growir.channel_spaces(network.graph) if not space.pins)
    step = Widen(node=space.name, by=space.stride)
    assert_preserves(step, network.graph)
    more = network.apply(step)
    for tokens in lengths("rotary"):
        old, new = network.to_torch().eval()(ids(tokens)), more.to_torch().eval()(ids(tokens))
        torch.testing.assert_close(new, old, rtol=1e-9, atol=1e-9)
    assert bounds_of(more.graph) == bounds_of(network.graph)


def test_a_longer_table_moves_the_bound() -> None:
    model = Learned(Attention(causal=True)).double().eval()
    network = growir.from_torch(model, ids(ROWS))
    more = network.apply(Extend(node="ids", by=3), verify=True)
    assert [bound.most for bound in bounds_of(more.graph).values()] == [ROWS + 3]
    module = more.to_torch().eval()
    assert module(ids(ROWS + 3)).shape == (2, ROWS + 3, VOCABULARY)
    torch.testing.assert_close(module(ids(4)), model(ids(4)), rtol=1e-9, atol=1e-9)


class WithMask(Learned):
    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        x = self.placed(self.embed(ids))
        hidden = torch.zeros(mask.shape, dtype=x.dtype).masked_fill(mask == 0, -1e9)[:, None, None, :]
        found: torch.Tensor = self.head(self.norm(self.block(x, hidden)))
        return found


def test_ids_and_their_mask_change_together(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = WithMask(Attention()).double().eval()
    mask = torch.ones(2, EXAMPLE, dtype=torch.int64)
    mask[1, 4:] = 0
    network = growir.from_torch(model, (ids(EXAMPLE), mask))
    assert network.graph.fixed_sizes == ()
    network.to_onnx(tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"))
    assert [given.shape for given in session.get_inputs()] == [["N", "ids_1"], ["N", "ids_1"]]
    for tokens in (1, 3, EXAMPLE, ROWS):
        given = ids(tokens), torch.ones(2, tokens, dtype=torch.int64)
        given[1][1, tokens // 2 + 1 :] = 0
        wanted = model(*given)
        torch.testing.assert_close(network.to_torch().eval()(*given), wanted, rtol=1e-9, atol=1e-9)
        (found,) = session.run(None, {"ids": given[0].numpy(), "mask": given[1].numpy()})
        np.testing.assert_allclose(found, wanted.detach().numpy(), rtol=1e-4, atol=1e-4)


class Patches(nn.Module):
    """A vision transformer: learned positions for the patches of one size of image."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.block, self.head = nn.Conv2d(3, WIDTH, 4, 4), Attention(), nn.Linear(WIDTH, 5)
        self.token, self.position = nn.Parameter(torch.randn(1, 1, WIDTH)), nn.Parameter(torch.randn(1, 10, WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(x).flatten(2).mT
        tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], 1) + self.position
        found: torch.Tensor = self.head(self.block(tokens)[:, 0])
        return found


def test_images_whose_patches_have_positions_stay_as_large() -> None:
    network = growir.from_torch(Patches().double().eval(), torch.randn(2, 3, 12, 12, dtype=torch.float64))
    assert bounds_of(network.graph) == {}
    with pytest.raises((ValueError, RuntimeError)):
        network.to_torch()(torch.randn(2, 3, 8, 8, dtype=torch.float64))
