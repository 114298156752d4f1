"""Calls with arguments that few people give: read as torch means them, or refused with their line; never misread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import growir
from growir.backends.torch_export import layout, pointwise, reductions, table
from growir.backends.torch_export.calls import Arguments, Call
from growir.backends.torch_export.reading import Reader
from growir.backends.torch_export.values import Value
from growir.errors import ModelError
from growir.ops import Celu, Mean
from tests.importing.models import Model, images, imported, vectors


class Calls(Model):
    """A model whose forward is one function of a linear or convolutional layer's output."""

    def __init__(self, function: Callable[[torch.Tensor], Any], images: bool) -> None:
        super().__init__()
        if images:
            self.fc = nn.Conv2d(4, 4, 1)  # type: ignore[assignment]
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self.fc(x))


ONES, STEPS = torch.ones(4, dtype=torch.float64), torch.arange(4, dtype=torch.float64) / 4

VECTORS: list[Callable[[torch.Tensor], Any]] = [
    lambda x: torch.add(x, x, alpha=3),
    lambda x: torch.sub(1.0, x, alpha=2),
    lambda x: torch.rsub(x, x, alpha=2),
    lambda x: torch.add(x, ONES * 0, alpha=2),
    lambda x: torch.div(x, 2.0, rounding_mode="floor"),
    lambda x: torch.clamp(x, STEPS, ONES),
    lambda x: x.clamp(min=-0.5),
    lambda x: torch.roll(x, (1, 2), (1, 1)),
    lambda x: torch.roll(x, 2),
    lambda x: x + torch.roll(STEPS, 1),
    lambda x: torch.roll(x, 0, 1),
    lambda x: torch.softmax(x, 1, dtype=torch.float64),
    lambda x: x.mean(1, keepdim=True, dtype=torch.float64),
    lambda x: x.sum(1, dtype=torch.int64),
    lambda x: x.sum((1,), keepdim=True),
    lambda x: torch.var(x, 1, correction=2, keepdim=True),
    lambda x: torch.std(x, dim=1, unbiased=False, keepdim=True),
    lambda x: torch.linalg.vector_norm(x, 3, dim=1, keepdim=True),
    lambda x: torch.linalg.vector_norm(x, 2, dim=1, keepdim=True, dtype=torch.float64),
    lambda x: F.celu(x, 0.5),
    lambda x: F.elu(x, 0.5),
    lambda x: F.softplus(x, 2.0, 5.0),
    lambda x: F.gelu(x, approximate="tanh"),
    lambda x: F.threshold(x, 0.1, 2.0),
    lambda x: F.hardtanh(x, -0.3, 0.4),
    lambda x: F.glu(x, 1),
    lambda x: torch.addmm(x, x, torch.eye(4, dtype=torch.float64), beta=0.5, alpha=2),
    lambda x: torch.addmm(x, x, torch.eye(4, dtype=torch.float64), beta=0),
    lambda x: F.layer_norm(x, (4,), STEPS, None, 0.1),
    lambda x: F.layer_norm(x, (4,), None, STEPS),
    lambda x: F.group_norm(x, 2, STEPS, ONES),
    lambda x: F.group_norm(x, 2, STEPS),
    lambda x: F.batch_norm(x, ONES, ONES, training=True),
    lambda x: F.batch_norm(x, ONES, ONES, STEPS, ONES),
    lambda x: F.pad(x, (1, -1)),
    lambda x: F.pad(x, (-1, 2), value=3.0),
    lambda x: F.pad(x, (0, 0, 1, 1)),
    lambda x: x.repeat(1, 0),
    lambda x: x.repeat(1, 2),
    lambda x: x.repeat(2, 1),
    lambda x: x.repeat_interleave(2),
    lambda x: x.repeat_interleave(torch.tensor([1, 2, 1, 1]), 1),
    lambda x: x.repeat_interleave(torch.tensor([1, 2, 1, 1]), dim=1, output_size=5),
    lambda x: x.narrow(1, -3, 2),
    lambda x: x[:, 1:1],
    lambda x: x[:, ::2],
    lambda x: x[:, [True, False, True, False]],
    lambda x: x[:, []],
    lambda x: x.index_select(1, torch.tensor([2, -1 % 4])),
    lambda x: torch.split(x, [1, 3], 1)[1],
    lambda x: x.tensor_split((1, 3), 1)[1],
    lambda x: x.chunk(3, 1)[1],
    lambda x: x.unfold(1, 2, 2),
    lambda x: x.view(torch.int64),
    lambda x: torch.unflatten(x, 1, (2, -1)),
    lambda x: x.squeeze(),
    lambda x: x[:, None].squeeze((1,)),
    lambda x: x.flatten(0),
    lambda x: x.max(),
    lambda x: x.max(1)[1],
    lambda x: torch.einsum("bi->b", x),
    lambda x: torch.einsum("bi,bi->b", x, x),
    lambda x: torch.einsum("bi,bj->bij", x, x).flatten(1),
    lambda x: torch.where(torch.tensor([True, False, True, False]), x, 2.0),
    lambda x: x.masked_fill(torch.tensor([True, False, True, False]), 2.0),
    lambda x: torch.pow(2.0, x),
    lambda x: x.to(torch.float64, copy=True),
    lambda x: x.clone(memory_format=torch.contiguous_format),
    lambda x: torch.cat([x, x[:, :0]], 1),
    lambda x: torch.stack([x, x], -1).flatten(1),
]
MAPS: list[Callable[[torch.Tensor], Any]] = [
    lambda x: F.interpolate(x, scale_factor=1.5, mode="nearest"),
    lambda x: F.interpolate(x, scale_factor=1.5, mode="bilinear", recompute_scale_factor=True),
    lambda x: F.interpolate(x, size=(9, 3), mode="bilinear", align_corners=True),
    lambda x: F.interpolate(x, size=(9, 3), mode="bilinear", antialias=True),
    lambda x: F.interpolate(x, size=(9, 3), mode="nearest-exact"),
    lambda x: F.avg_pool2d(x, 2, 1, 1, count_include_pad=False, divisor_override=3),
    lambda x: F.avg_pool2d(x, (3, 2), ceil_mode=True),
    lambda x: F.max_pool2d(x, 2, 2, dilation=2, ceil_mode=True),
    lambda x: F.max_pool2d(x, 2, return_indices=True)[1],
    lambda x: F.lp_pool2d(x, 2.0, 2),
    lambda x: F.adaptive_avg_pool2d(x, (None, 2)),
    lambda x: F.instance_norm(x, ONES, ONES, use_input_stats=True),
    lambda x: F.instance_norm(x, ONES, ONES, use_input_stats=False),
    lambda x: F.instance_norm(x, weight=STEPS, bias=ONES),
    lambda x: F.instance_norm(x, bias=ONES),
    lambda x: F.group_norm(x, 2, STEPS, ONES),
    lambda x: F.conv2d(x, torch.ones(4, 1, 2, 2, dtype=torch.float64), STEPS, padding="same", groups=4),
    lambda x: F.conv_transpose2d(x, torch.ones(4, 4, 2, 2, dtype=torch.float64)),
    lambda x: F.pad(x, (1, 1, 2, 0), mode="circular"),
    lambda x: F.pad(x, (1, 1), mode="constant", value=float("inf")),
    lambda x: torch.roll(x, (1, -1), (2, 3)),
    lambda x: torch.flip(x, (-1, 1)),
    lambda x: x.mean((2, 3), keepdim=True),
    lambda x: x.movedim((2, 3), (1, 2)),
    lambda x: x.permute(0, -1, 1, 2),
    lambda x: x.amax((1, -1)),
    lambda x: torch.cumsum(x, 1),
    lambda x: F.cosine_similarity(x, x, dim=1, eps=0.1),
    lambda x: F.normalize(x, p=1.0, dim=1),
]


@pytest.mark.parametrize(("functions", "example", "least"), [(VECTORS, None, 40), (MAPS, images(), 16)])
def test_calls_are_understood_or_refused(
    functions: list[Callable[[torch.Tensor], Any]], example: torch.Tensor | None, least: int
) -> None:
    """Whatever is not refused by growir's own word computes what the model computes."""
    texts: list[str] = []
    for function in functions:
        try:
            imported(Calls(function, example is not None).eval(), example)
        except ModelError as error:
            texts.append(str(error))
    assert [text for text in texts if "reads the model wrongly" in text or "test_arguments.py" not in text] == []
    assert len(functions) - len(texts) >= least  # a table that refuses everything is right and of no use


def forgets_alpha(r: Reader, c: Call) -> Value:
    return pointwise.each(r, Celu(), c.value("self"))


def keeps_the_axis(r: Reader, c: Call) -> Value:
    c.get("keepdim")
    return reductions.reduced(r, Mean, c.value("self"), c.ints("dim"), keepdim=True)


def stays(r: Reader, c: Call) -> Value:
    return c.value("self")


def test_asking_what_there_is_is_no_look() -> None:
    arguments = Arguments({"self": 1, "dim": 2})
    assert "dim" in arguments
    assert len(arguments) == len(list(arguments)) == 2
    assert arguments.unseen("dim") == 2
    assert arguments.looked_at == set()
    assert arguments["self"] == 1
    assert arguments.get("dim") == 2
    assert arguments.looked_at == {"self", "dim"}


@pytest.mark.parametrize(
    ("name", "handler", "function", "says"),
    [
        ("celu", forgets_alpha, lambda x: F.celu(x, 0.5), "aten.celu is given alpha=0.5, which growir does not know"),
        ("mean", keeps_the_axis, lambda x: x[:, :, None].mean(1), "but is read as one of ['N', 1, 1]"),
        ("permute", layout.permute, lambda x: x[:, :, None].permute(0, 2, 1), ""),
        ("sort", stays, lambda x: x.sort(1, descending=True)[0], "is given dim=1, which growir does not know here"),
    ],
)
def test_a_careless_function_of_the_table_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    handler: Callable[[Reader, Call], Value],
    function: Callable[[torch.Tensor], Any],
    says: str,
) -> None:
    monkeypatch.setitem(table.TABLE, name, handler)
    model = Calls(function, False).double().eval()
    if not says:
        growir.from_torch(model, vectors(), check=False)
        return
    with pytest.raises(ModelError) as caught:
        growir.from_torch(model, vectors(), check=False)
    assert says in str(caught.value)


def test_one_parameter_twice_in_a_call() -> None:
    class Twice(Model):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.layer_norm(self.fc(x), (4,), self.scale, self.scale)

    with pytest.raises(ModelError, match=r"aten.layer_norm takes one parameter as \S+.weight and as \S+.bias; use two"):
        imported(Twice(scale=nn.Parameter(torch.ones(4))))
