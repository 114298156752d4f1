"""How calls become nodes: names, ties, in-place writes, batches that move, constants, train mode."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import growir
from growir.backends.agreement import check_agreement
from growir.ops import Attention
from growir.params import frozen_keys
from tests.importing.models import Model, images, imported, kinds, names, vectors

# -- names ------------------------------------------------------------------------------------------------------------


def test_a_sequential_of_its_own_gets_a_name() -> None:
    network = imported(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 2))))
    assert names(network) == ["layers.0", "layers.1", "layers.2.0"]
    assert network.graph["layers.2.0"].source == "weight: 2.0.weight, bias: 2.0.bias"


class Awkward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({"graph": nn.Linear(4, 4), "3x3": nn.Linear(4, 4), "a-b": nn.ReLU()})

    def forward(self, code: torch.Tensor) -> torch.Tensor:
        x: torch.Tensor = self.parts["a-b"](self.parts["3x3"](self.parts["graph"](code)))
        return x


def test_names_that_a_document_may_not_have_are_changed() -> None:
    network = imported(Awkward())
    assert [entry.name for entry in network.graph.inputs] == ["code_"]
    assert names(network) == ["parts.graph_", "parts._3x3", "parts.a_b"]
    assert [node.source for node in network.graph.nodes] == [
        "weight: parts.graph.weight, bias: parts.graph.bias",
        "weight: parts.3x3.weight, bias: parts.3x3.bias",
        "parts.a-b",
    ]


class WithMore(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(super().forward(x)) * 2


def test_a_module_that_is_a_node_and_more() -> None:
    assert names(imported(nn.Sequential(WithMore(4, 4)))) == ["layers.0", "layers.relu_0", "layers.affine_0"]


class Bare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(3))
        self.table, self.scale = nn.Parameter(torch.randn(3, 5)), nn.Parameter(torch.randn(5))
        self.gain = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(F.linear(x, self.weight, self.bias)) @ self.table * self.scale * self.gain


def test_bare_parameters() -> None:
    network = imported(Bare())
    assert names(network) == ["linear", "relu", "table", "matmul", "scale", "mul", "gain", "mul_1"]
    assert network.arrays["gain.weight"].shape == (1,)


# -- parameters ---------------------------------------------------------------------------------------------------


def test_reused_and_tied_parameters_are_stored_once() -> None:
    layer, act = nn.Linear(4, 4), nn.ReLU()
    twin = nn.Linear(4, 4, bias=False)
    twin.weight = layer.weight
    network = imported(nn.Sequential(layer, act, layer, act, twin))
    assert set(network.arrays) == {"layers.0.weight", "layers.0.bias"}
    assert dict(network.graph["layers.2"].tied) == {"weight": "layers.0.weight", "bias": "layers.0.bias"}
    assert dict(network.graph["layers.4"].tied) == {"weight": "layers.0.weight"}


def test_frozen_parameters_stay_frozen() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    model[0].weight.requires_grad_(False)
    model[1].bias.requires_grad_(False)
    network = imported(model)
    assert frozen_keys(network.graph) == {"layers.0.weight", "layers.1.bias"}
    still = {name for name, p in network.to_torch().named_parameters() if not p.requires_grad}
    assert still == {"layers.0.weight", "layers.1.bias"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_numbers_keep_their_dtype(dtype: torch.dtype) -> None:
    model = nn.Linear(4, 4).to(dtype)
    network = growir.from_torch(model, vectors().to(dtype))
    assert network.dtype == np.dtype(str(dtype).removeprefix("torch."))


class Standardised(nn.Module):
    """A weight computed from a parameter, as in Qiao et al. 2019."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.conv.weight
        weight = weight - weight.mean(dim=(1, 2, 3), keepdim=True)
        return F.conv2d(x, weight / weight.std(dim=(1, 2, 3), keepdim=True), self.conv.bias, padding=1)


def test_a_computed_weight() -> None:
    network = imported(Standardised(), images())
    assert kinds(network)[-1] == "conv2d"
    assert len(network.graph.nodes[-1].inputs) == 2


# -- writes -------------------------------------------------------------------------------------------------------


class Alias(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = y = self.fc(x)
        y += 1
        return y * z


class Clone(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.fc(x)
        z = y.clone()
        z.mul_(2)
        return y + z


class ViewOfWritten(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.fc(x)
        view = y.view(-1, 2, 2)
        y.mul_(2)
        return view.flatten(1) + y


class OtherPart(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.fc(x)
        a, b = y[:, :2], y[:, 2:]
        return torch.cat([a.mul_(2), b], 1)


class WritesInput(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x.mul_(2)
        return self.fc(x)


class FillsParts(Model):
    """As latent attention puts keys together: room for both parts, then each part written into it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.fc(x)
        both = y.new_empty(*y.shape[:-1], 7)
        both[..., :4].copy_(y)
        both[..., 4:].copy_(y[..., 1:] * 2)
        return both


class WritesSomeParts(Model):
    """Slices that meet and overlap, between numbers that stay."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.fc(x)
        y[:, 1:3].mul_(2)
        y[:, 2:4].add_(1)
        both = y.new_zeros(x.shape[0], 7)
        both[:, 2:6] = y
        both[:, 6:] = y[:, :1]
        return torch.cat([both, y], 1)


@pytest.mark.parametrize("model", [Alias, Clone, ViewOfWritten, OtherPart, WritesInput, FillsParts, WritesSomeParts])
def test_writes_are_seen_by_every_name_of_the_tensor(model: type[Model]) -> None:
    imported(model())


# -- batches ------------------------------------------------------------------------------------------------------


class TokensFirst(Model):
    """The batch on the second axis, then merged with the first one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.view(x.size(0), 2, 2).transpose(0, 1)
        y = y + self.offset
        tokens, batch, width = y.shape
        y = self.mix(y.reshape(tokens * batch, width)).view(tokens, batch, 3)
        y = torch.cat([y, y.flip(0)], 0)
        return y.permute(1, 0, 2).flatten(1)


def test_a_batch_that_moves_and_merges() -> None:
    imported(TokensFirst(mix=nn.Linear(2, 3), offset=nn.Parameter(torch.randn(2, 1, 2))))


class HeadsInBatch(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.fc(x).view(x.size(0), 2, 2)  # tokens, width
        heads = y.transpose(0, 1).reshape(2, x.size(0) * 2, 1).transpose(0, 1)
        scores = torch.bmm(heads, heads.transpose(1, 2)).softmax(-1)
        out = torch.bmm(scores, heads).transpose(0, 1).reshape(2, x.size(0), 2)
        return out.transpose(0, 1).flatten(1)


def test_heads_inside_the_batch() -> None:
    assert kinds(imported(HeadsInBatch())).count("matmul") == 2


class PlainNumber(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x).view(int(x.shape[0]), 2, 2)


def test_a_fixed_batch_is_opened_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="exported with a fixed batch of 3.*its code decides by the batch size"):
        imported(PlainNumber())


class Pads(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.cat([self.fc(x), torch.zeros(x.size(0), 3, dtype=x.dtype), torch.ones_like(x)], 1)
        return y * torch.arange(1, 12, dtype=x.dtype)


def test_constants_over_the_batch() -> None:
    network = imported(Pads())
    assert not any(p.requires_grad for p in network.to_torch().parameters() if p.shape == (11,))


# -- inputs and outputs ---------------------------------------------------------------------------------------------


class Outputs(Model):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor | None]:
        return {"sum": self.fc(x) + y, "rest": None, "same": x}


def test_several_inputs_by_name_and_a_dict_of_outputs() -> None:
    model = Outputs().double()
    batch = {"y": vectors(3), "x": vectors(2).repeat(2, 1)[:3]}
    with pytest.warns(UserWarning, match="the model|output 1") as caught:
        network = growir.from_torch(model, batch)
    texts = [str(warning.message) for warning in caught]
    assert "the model returns a dict; the network returns a tuple in its order: sum, same" in texts
    assert "output 1 of the model is None and is left out" in texts
    order = [entry.name for entry in network.graph.inputs]
    total, same = network.to_torch()(*(batch[name] for name in order))
    assert torch.equal(total, model(**batch)["sum"])
    assert torch.equal(same, batch["x"])
    assert network.graph.outputs[1] == "x"


# -- patterns -----------------------------------------------------------------------------------------------------


class HandWritten(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.fc(x)
        x = x * F.relu6(x + 3) / 6
        x = x * F.hardsigmoid(x)
        return x * (F.hardtanh(x + 3, 0.0, 6.0) / 6) * 2 + 1


def test_hard_swish_in_three_spellings() -> None:
    assert kinds(imported(HandWritten())) == ["linear", "hardswish", "hardswish", "hardswish", "affine"]


def test_local_response_norm_is_one_node() -> None:
    network = imported(nn.Sequential(nn.LocalResponseNorm(3, alpha=0.1, beta=0.5, k=2.0)), images())
    (node,) = network.graph.nodes
    assert node.op.attributes() == {"size": 3, "alpha": 0.1, "beta": 0.5, "k": 2.0}


class Gate(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = torch.sigmoid(x.mean(1, keepdim=True)).expand_as(x)
        offset = self.offset.expand(x.size(0), 4)
        return self.fc(x) * gate + offset + (gate * offset)


def test_what_is_joined_is_broadcast_without_an_expansion() -> None:
    assert "expand" not in kinds(imported(Gate(offset=nn.Parameter(torch.randn(1, 4)))))


class HandRms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(4) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight


def test_a_norm_written_by_hand_is_one_node_with_its_weight() -> None:
    network = imported(nn.Sequential(nn.Linear(4, 4), HandRms(), nn.Linear(4, 2)))
    assert kinds(network) == ["linear", "rms_norm", "linear"]
    assert "layers.1.weight" in network.arrays


class Einsum(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.fc(x).view(x.size(0), 2, 2)
        a = torch.einsum("nij,njk->nik", y, y)
        b = torch.einsum("nij,kj->nki", y, self.weight)
        c = torch.einsum("n i j, i j k -> n i k", y, self.cube)
        d = torch.einsum("nij,nik->njk", y, y)
        e = torch.einsum("nij,ij->ni", y, self.cube[0]).unsqueeze(1)
        return torch.cat([a, b, c, d, e], 1)


def test_einsum_of_two() -> None:
    weight, cube = nn.Parameter(torch.randn(2, 2)), nn.Parameter(torch.randn(2, 2, 2))
    assert "matmul" in kinds(imported(Einsum(weight=weight, cube=cube)))


# -- masks --------------------------------------------------------------------------------------------------------


class Normalised(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.fc(x)
        return F.normalize(y, dim=1) + torch.linalg.vector_norm(y, dim=1, keepdim=True)


def test_the_gradient_of_a_norm_of_zeros_is_torchs() -> None:
    model = Normalised()
    nn.init.zeros_(model.fc.weight)
    nn.init.zeros_(model.fc.bias)
    module = imported(model).to_torch()
    for each in (model, module):
        each.double()(vectors()).sum().backward()
    wanted, found = model.fc.weight.grad, module.get_parameter("fc.weight").grad
    assert wanted is not None
    assert found is not None
    torch.testing.assert_close(found, wanted)


class Causal(Model):
    """Attention to earlier tokens, hidden in four ways."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.fc(x).view(x.size(0), 4, 1)
        later = torch.ones(4, 4, dtype=torch.bool).triu(1)
        scores = y @ y.transpose(1, 2)
        one = scores.masked_fill(later, float("-inf")).softmax(-1) @ y
        two = torch.where(later, -1e9, scores).softmax(-1) @ y
        three = (scores + torch.full((4, 4), float("-inf"), dtype=x.dtype).triu(1)).softmax(-1) @ y
        four = F.scaled_dot_product_attention(y, y, y, ~later) + F.scaled_dot_product_attention(y, y, y, is_causal=True)
        return (one + two + three + four).flatten(1)


def test_constant_masks() -> None:
    imported(Causal())


class Padded(Model):
    """Attention whose boolean masks hide every key from some tokens: a constant one, and one that the input says."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.fc(x).view(x.size(0), 4, 1)
        some = torch.ones(4, 4, dtype=torch.bool)
        some[1] = False
        keys = (x > 0).all(-1)[:, None, None] & torch.ones(4, 4, dtype=torch.bool)
        one = F.scaled_dot_product_attention(y, y, y, some)
        return (one + F.scaled_dot_product_attention(y, y, y, keys)).flatten(1)


def test_a_token_that_sees_no_key_gets_zeros(tmp_path: Path) -> None:
    network = imported(Padded())
    network.to_onnx(tmp_path / "padded.onnx")
    assert check_agreement(network.graph, network.arrays, tmp_path / "padded.onnx") <= 1e-5
    kinds = [node.op.mask for node in network.graph.nodes if isinstance(node.op, Attention)]
    assert kinds == ["seen", "seen"]


class HiddenTokens(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.fc(x).view(x.size(0), 2, 2)
        causal = nn.Transformer.generate_square_subsequent_mask(2, dtype=x.dtype)
        y = self.layer(y, src_mask=causal, is_causal=True)
        z, shown = self.attention(y, y + 1, y)
        return torch.cat([y.flatten(1), z.flatten(1), shown.flatten(1)], 1)


@pytest.mark.parametrize("batch_first", [True, False])
def test_torchs_own_attention(batch_first: bool) -> None:
    class TokensFirst(HiddenTokens):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.fc(x).view(x.size(0), 2, 2).transpose(0, 1)
            y = self.layer(y, src_mask=nn.Transformer.generate_square_subsequent_mask(2, dtype=x.dtype))
            return self.attention(y, y + 1, y)[0].transpose(0, 1).flatten(1)

    layer = nn.TransformerEncoderLayer(2, 1, 4, batch_first=batch_first)
    attention = nn.MultiheadAttention(2, 2, batch_first=batch_first)
    nn.init.normal_(attention.in_proj_bias)
    model = HiddenTokens if batch_first else TokensFirst
    imported(model(layer=layer, attention=attention).eval())


# -- train mode ---------------------------------------------------------------------------------------------------


class Drops(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.dropout(self.fc(x), 0.2, self.training)
        x = F.dropout(x, 0.3, training=False)
        return self.module(F.dropout(x, 0.0, self.training))


def test_dropout_is_that_of_train_mode() -> None:
    model = Drops(module=nn.Dropout(0.1))
    network = imported(model.eval())
    rates = {node.name: node.op.attributes()["p"] for node in network.graph.nodes if node.op.kind() == "dropout"}
    assert rates == {"dropout": 0.2, "module": 0.1}


def test_whole_channels_are_dropped_as_such() -> None:
    assert kinds(imported(nn.Sequential(nn.Conv2d(4, 4, 1), nn.Dropout2d(0.2)), images())) == ["conv2d", "dropout2d"]


@pytest.mark.parametrize("momentum", [0.3, None])
def test_batch_norm_keeps_its_momentum(momentum: float | None) -> None:
    model = nn.Sequential(nn.BatchNorm1d(4, momentum=momentum, eps=1e-3))
    network = imported(model)
    assert network.graph["layers.0"].op.model_dump()["momentum"] == momentum
    module = network.to_torch().train()
    model.train()
    for seed in (3, 4, 5):
        module(vectors(seed))
        model(vectors(seed))
    assert torch.allclose(module.get_buffer("layers.0.running_var"), model.get_buffer("0.running_var"), rtol=1e-12)
    assert int(module.get_buffer("layers.0.num_batches_tracked")) == 3


class Asks(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.fc(x)
        if self.training:
            x = torch.sigmoid(x)
        return x


def test_code_that_asks_for_the_mode_is_warned_of_with_its_lines() -> None:
    with pytest.warns(UserWarning, match=r"train mode, which the network does not have:\n  .*x = torch.sigmoid\(x\)$"):
        imported(Asks())


class OnlyEval(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and x.sum() > 0:
            return x
        return self.fc(x)


def test_a_train_mode_that_cannot_be_exported_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="train mode could not be exported.*if self.training and x.sum"):
        imported(OnlyEval())


def test_norms_left_in_eval_mode_are_warned_of() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).train()
    model[1].eval()
    with pytest.warns(UserWarning, match="stays in eval mode in the model, but goes to train mode.*: 1"):
        imported(model)


def test_the_graph_keeps_what_train_mode_does_otherwise_without_folders() -> None:
    norms = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).train()
    norms[1].eval()
    with pytest.warns(UserWarning, match="train mode"):
        asks, only, left = (imported(model).graph for model in (Asks(), OnlyEval(), norms))
    assert [re.sub(r":\d+:", ":_:", text) for text in asks.train_differs] == ["test_reading.py:_: x = torch.sigmoid(x)"]
    (reason,) = only.train_differs
    assert re.match(r"it could not be exported: test_reading.py:\d+: if self.training and x.sum\(\) > 0:: ", reason)
    assert left.train_differs == ("stays in eval mode: 1",)


class NormTwice(Model):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.fc(self.norm(x)))


def test_a_norm_used_twice_does_nothing_else_in_train_mode() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        imported(NormTwice())


def test_nothing_is_warned_of_otherwise() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graph = imported(
            nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.2), nn.ReLU(inplace=True)).eval()
        ).graph
    assert graph.train_differs == ()
