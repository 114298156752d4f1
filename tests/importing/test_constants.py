"""What a model computes from sizes and constants: masks, positions, tables. It becomes a constant, or vanishes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import growir
from growir.errors import ModelError
from growir.ops import Attention, Parameter
from tests.importing.models import Model, imported, kinds, vectors
from tests.zoo import ZOO
from tests.zoo.masked import MaskedEncoder


def tokens(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 5, 4, generator=torch.Generator().manual_seed(batch), dtype=torch.float64)


def attentions(network: Any) -> list[Attention]:
    return [node.op for node in network.graph.nodes if isinstance(node.op, Attention)]


def constants(network: Any) -> list[tuple[int, ...]]:
    """The shapes of all constants."""
    return [n.op.shape for n in network.graph.nodes if isinstance(n.op, Parameter) and n.op.buffer]


# -- masks of attention ---------------------------------------------------------------------------------------------


def test_a_mask_that_hides_nothing_vanishes() -> None:
    network = growir.from_torch(ZOO["encoder_masked"].make(), ZOO["encoder_masked"].inputs(2))
    assert not constants(network)
    assert all(len(n.inputs) == 3 for n in network.graph.nodes if isinstance(n.op, Attention))


class Padded(MaskedEncoder):
    """The last two tokens are hidden from all."""

    def hidden(self, mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        mask[:, -2:] = 0
        return super().hidden(mask, dtype)


def test_a_mask_that_hides_something_is_one_row_for_all_layers() -> None:
    network = growir.from_torch(Padded().double(), ZOO["encoder_masked"].inputs(2))
    assert constants(network) == [(1, 1, 7, 7)]
    (key,) = [k for k in network.arrays if network.arrays[k].shape == (1, 1, 7, 7)]
    mask = network.arrays[key]
    assert (mask[..., :5] == 0).all()
    assert (mask[..., 5:] <= -1e30).all()
    assert abs(mask).max() < torch.finfo(torch.float32).max  # it stays finite when the network runs in float32


class Attends(Model):
    """Attention of two heads over five tokens, by a mask that subclasses make."""

    causal = False

    def mask(self, x: torch.Tensor) -> torch.Tensor | None:
        return None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q = self.fc(x).view(x.size(0), 5, 2, 2).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, q, q, self.mask(q), is_causal=self.causal)
        return self.fc(y.transpose(1, 2).flatten(2))


class Lower(Attends):
    def mask(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ones(x.size(-2), x.size(-2), dtype=torch.bool).tril()


class Upper(Attends):
    """Written into in place, and added."""

    def mask(self, x: torch.Tensor) -> torch.Tensor:
        mask = torch.empty(5, 5, dtype=x.dtype)
        mask.fill_(-math.inf)
        return mask.triu_(1).expand(x.size(0), 1, 5, 5)


class Mapped(Attends):
    """A rule for one pair of tokens, mapped over samples and tokens by torch.vmap."""

    def mask(self, x: torch.Tensor) -> torch.Tensor:
        def rule(sample: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
            return (key <= query) & (sample >= 0)

        over = torch.vmap(torch.vmap(torch.vmap(rule, (None, None, 0)), (None, 0, None)), (0, None, None))
        return over(torch.arange(x.size(0)), torch.arange(5), torch.arange(5))[:, None]


@pytest.mark.parametrize("model", [Lower, Upper, Mapped])
def test_a_mask_of_the_later_tokens_is_causal(model: type[Attends]) -> None:
    network = imported(model(), tokens())
    assert [op.is_causal for op in attentions(network)] == [True]
    assert not constants(network)


class Window(Attends):
    """Each token sees itself and the one before: causal and more."""

    def mask(self, x: torch.Tensor) -> torch.Tensor:
        places = torch.arange(x.size(-2))
        apart = places[:, None] - places[None, :]
        return (apart >= 0) & (apart < 2)


class Slopes(Attends):
    """Press et al. 2021: the farther, the less, by another slope in each head; made for each head of each sample."""

    def mask(self, x: torch.Tensor) -> torch.Tensor:
        slopes = torch.tensor([0.5, 0.25], dtype=x.dtype)
        places = torch.ones(x.size(0), 5, dtype=x.dtype).cumsum(-1)
        return (slopes[:, None, None] * places[:, None, None, :]).reshape(x.size(0) * 2, 1, 5).view(-1, 2, 1, 5)


@pytest.mark.parametrize(("model", "shape"), [(Window, (5, 5)), (Slopes, (1, 2, 1, 5))])
def test_other_masks_are_constants(model: type[Attends], shape: tuple[int, ...]) -> None:
    network = imported(model(), tokens())
    assert [op.is_causal for op in attentions(network)] == [False]
    assert constants(network) == [shape]
    assert "expand" not in kinds(network)


class HeadsInTheBatch(Model):
    """A mask for (samples * heads) at once, as torch.bmm takes it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = x.size(0)
        q = self.fc(x).view(n, 5, 2, 2).transpose(1, 2).reshape(n * 2, 5, 2)
        mask = torch.tensor([1.0, 2.0], dtype=x.dtype)[:, None].expand(n, 2, 5).reshape(n * 2, 1, 5).cumsum(-1)
        y = torch.bmm((torch.bmm(q, q.transpose(1, 2)) + mask).softmax(-1), q)
        return y.view(n, 2, 5, 2).transpose(1, 2).flatten(2)


class SamplesInside(Model):
    """The same with the heads outside: (heads * samples)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = x.size(0)
        q = self.fc(x).view(n, 5, 2, 2).permute(2, 0, 1, 3).reshape(2 * n, 5, 2)
        mask = torch.tensor([1.0, 2.0], dtype=x.dtype)[:, None, None].expand(2, n, 5).reshape(2 * n, 1, 5).cumsum(-1)
        y = torch.bmm((torch.bmm(q, q.transpose(1, 2)) + mask).softmax(-1), q)
        return y.view(2, n, 5, 2).permute(1, 2, 0, 3).flatten(2)


@pytest.mark.parametrize("model", [HeadsInTheBatch, SamplesInside])
def test_a_constant_that_is_merged_with_the_batch(model: type[Model]) -> None:
    network = imported(model(), tokens())
    assert constants(network) == [(1, 2, 1, 5)]
    assert "expand" not in kinds(network)


class Shares(Model):
    """Four heads of queries, two of keys and values; torch itself matches them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q = torch.cat([self.fc(x), self.fc(-x)], -1).view(x.size(0), 5, 4, 2).transpose(1, 2)
        k = self.fc(x).view(x.size(0), 5, 2, 2).transpose(1, 2)
        return F.scaled_dot_product_attention(q, k, k.sin(), enable_gqa=True).transpose(1, 2).flatten(2)


def test_groups_of_heads_that_share_keys() -> None:
    assert len(attentions(imported(Shares(), tokens()))) == 1


class OneForAll(Model):
    """Shazeer 2019: all heads share one head of keys and values, which torch broadcasts."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q = self.fc(x).view(x.size(0), 5, 2, 2).transpose(1, 2)
        k = self.fc(x)[:, None, :, :2]
        return F.scaled_dot_product_attention(q, k, k.sin()).transpose(1, 2).flatten(2)


def test_one_head_of_keys_for_all_heads() -> None:
    assert len(attentions(imported(OneForAll(), tokens()))) == 1


class TokensFirst(Model):
    """Ids and a norm with the tokens, or the samples and tokens as one, in front of the channels."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.words(ids.t())
        x = self.bn(self.fc(x).flatten(0, 1)).view(5, -1, 4) * torch.arange(5)[:, None, None]
        return x.transpose(0, 1)


def test_ids_and_batch_norm_with_the_batch_elsewhere() -> None:
    model = TokensFirst(words=nn.Embedding(9, 4), bn=nn.BatchNorm1d(4)).double()
    ids = torch.arange(10).view(2, 5) % 9
    network = imported(model, ids)
    torch.testing.assert_close(network.to_torch().train()(ids), model.train()(ids), rtol=1e-12, atol=1e-12)


class Rounds(Model):
    """A part in float32, as norms often are."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.fc(x).float().square().double())


def test_a_part_in_a_coarser_dtype_is_compared_as_such() -> None:
    with pytest.warns(UserWarning, match="computes a part in torch.float32"):
        network = growir.from_torch(Rounds().double(), vectors())
    assert all(array.dtype == "float64" for array in network.arrays.values())


# -- numbers and positions ------------------------------------------------------------------------------------------


class Chooses(Model):
    """where and masked_fill by constant masks: of all, of none, of some."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.fc(x)
        all_, some = torch.ones_like(x, dtype=torch.bool), torch.arange(4) % 2 == 0
        y = torch.where(all_, y, x).masked_fill(~all_, 3.0)
        return torch.where(some, y, -y).masked_fill(some, -2.0) * all_


def test_choices_by_constant_masks() -> None:
    network = imported(Chooses())
    assert kinds(network).count("mul") == 3  # by `some`, by its opposite, and by what is not filled
    assert len(constants(network)) == 3  # some, its opposite, and -2 times it


class Coarse(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x) + torch.linspace(0, 1, 4, dtype=torch.bfloat16)


def test_a_constant_of_a_dtype_that_numpy_does_not_have() -> None:
    assert constants(imported(Coarse())) == [(4,)]


class Complex(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.fc(x) * torch.polar(torch.ones(4), torch.ones(4))).real


class Buckets(Model):
    """Raffel et al. 2019: a learned number for each distance, looked up at fixed places."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        places = torch.arange(x.size(1))
        apart = (places[None, :] - places[:, None]).abs().clamp(max=2)
        return self.fc(x) + self.far(apart).sum(0)


def test_a_table_looked_up_at_fixed_places() -> None:
    imported(Buckets(far=nn.Embedding(3, 4)), tokens())


class Writes(Model):
    """A constant that is written into by inputs is none."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = torch.zeros_like(x)
        total += self.fc(x)
        total.add_(1)
        return total * 2


def test_a_constant_that_takes_up_inputs() -> None:
    assert "concat" not in kinds(imported(Writes()))


class Shows(Model):
    """What is written into a constant is seen by its views."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = torch.zeros_like(x)
        first = total[:, :2]
        total += self.fc(x)
        return torch.cat([first, first * 3], 1) + total


def test_views_of_a_constant_that_takes_up_inputs() -> None:
    imported(Shows())


class Changes(Model):
    """A constant that changes while it is used, by another name."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        numbers = torch.zeros(4, dtype=x.dtype)
        half = numbers[:2]
        y = self.fc(x) + numbers
        half += 1.5
        y = y * (numbers + 2)
        numbers[3] = 7
        return y + numbers


def test_a_constant_is_what_it_was_when_it_was_read() -> None:
    imported(Changes())


class Reads(Model):
    """A size computed by tensors."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        half = torch.tensor([3, 2]).min().item()
        return self.fc(x) * half


def test_a_number_read_from_a_constant() -> None:
    assert "affine" in kinds(imported(Reads()))


class Unused(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.cumsum(x, 1).sort(1)
        return self.fc(x)


def test_what_nothing_comes_of_is_left_out() -> None:
    assert kinds(imported(Unused())) == ["linear"]


# -- what is not the same for every sample ---------------------------------------------------------------------------


class Numbered(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x) + torch.arange(x.size(0))[:, None]


class Counts(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x) + torch.ones(x.size(0)).sum()


class Pairs(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.eye(x.size(0), dtype=x.dtype) @ self.fc(x)


class Rolls(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x) + torch.zeros(4).bernoulli(0.5)


class Fails(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError("no such\nmodel")


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (Numbered, r"arange\(x.size\(0\)\)\[:, None\]: aten.add reads what makes a tensor that differs from sample"),
        (Counts, r"ones\(x.size\(0\)\).sum\(\): aten.add reads what depends on the batch size"),
        (Pairs, r"eye\(.* @ self.fc\(x\): aten.matmul reads what makes a tensor of the sizes \[3, 3\]"),
        (Rolls, r"bernoulli\(0.5\): aten.bernoulli draws random numbers; a graph draws only in dropout"),
        (Complex, r"torch.ones\(4\)\)\).real: aten.mul uses complex numbers; write the real and the imaginary parts"),
        (Fails, r"test_constants.py:\d+: raise NotImplementedError.*: NotImplementedError: no such$"),
    ],
)
def test_refused(model: type[Model], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        growir.from_torch(model().double(), vectors())
