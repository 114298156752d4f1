"""What operators refuse, and in which words; attributes in their shortest form; values without a batch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from growir.backends.onnx_ir import build_model
from growir.channels import analyse, channel_spaces
from growir.errors import GraphError
from growir.graph import Graph
from growir.network import Network
from growir.ops import OP_BY_KIND, OPS, Op, OpError, Shape
from growir.ops.base import batch_of
from growir.passes import Widen
from growir.testing import assert_preserves, random_batch, random_network
from growir.verify import load
from tests.backends.test_torch import alone

INTEGERS = Shape(("N", 3), "int64")


def made(kind: str, **attributes: Any) -> Op:
    return OP_BY_KIND[kind].model_validate(attributes)


REFUSED: list[tuple[Op, tuple[Shape, ...], str]] = [
    (made("permute", dims=(0, 2, 1)), (batch_of(3),), "must name each of the 2 axes of (N, 3)"),
    (made("permute", dims=(1, 0)), (batch_of(3),), "the batch stays first, so dims begin with 0; they are [1, 0]"),
    (made("unsqueeze", dim=0), (batch_of(3),), "there is no place 0 for a new axis in (N, 3); the batch stays first"),
    (made("unsqueeze", dim=3), (batch_of(3),), "there is no place 3 for a new axis"),
    (made("squeeze", dim=1), (batch_of(3),), "only an axis of width 1 can be dropped, but axis 1 of (N, 3) has 3"),
    (made("squeeze", dim=0), (batch_of(3),), "axis 0 of (N, 3) is the batch"),
    (made("pad", padding=(1, 1, 1, 1)), (batch_of(3),), "padding of 2 axes does not fit (N, 3), whose batch"),
    (made("pad", padding=(3, 0), mode="reflect"), (batch_of(2, 3),), "mode reflect can add at most 2 to axis 2"),
    (made("pad", padding=(4, 0), mode="circular"), (batch_of(2, 3),), "mode circular can add at most 3 to axis 2"),
    (made("pad", padding=(1, 0), mode="replicate"), (batch_of(2, 3, 4),), "mode replicate pads all axes behind"),
    (made("expand", shape=(4,)), (batch_of(3),), "axis 1 of (N, 3) has width 3, not 1, and cannot become 4"),
    (made("expand", shape=(4, 3)), (batch_of(3),), "(N, 3) does not fit into [4, 3], which leaves the batch out"),
    (made("expand", shape=(-1, 3)), (Shape((3,)),), "entry 0 of [-1, 3] makes a new axis, so it cannot be -1"),
    (made("expand", shape=(3,)), (Shape((2, 3)), batch_of(1)), "the first axis of (2, 3) becomes the batch"),
    (made("expand", shape=(3,)), (batch_of(3), batch_of(3)), "a second input supplies the batch to a first one"),
    (made("pixel_shuffle", upscale_factor=2), (batch_of(6, 2, 2),), "the 6 channels of (N, 6, 2, 2) must be a mult"),
    (made("pixel_unshuffle", downscale_factor=2), (batch_of(1, 3, 2),), "height and width of (N, 1, 3, 2) must be"),
    (made("upsample", size=3), (batch_of(3),), "mode nearest is for 1 or 2 or 3 spatial axes, but gets (N, 3)"),
    (made("upsample", size=(3, 2)), (batch_of(2, 3),), "size and scale_factor have one entry for each of the 1"),
    (made("upsample", scale_factor=0.1), (batch_of(2, 3),), "scale_factor 0.1 leaves nothing of (N, 2, 3)"),
    (made("max_pool1d", kernel_size=2), (batch_of(2, 3, 4),), "max_pool1d takes an input of rank 3, (N, C, L), but"),
    (made("avg_pool3d", kernel_size=2, padding=2), (batch_of(1, 4, 4, 4),), "padding 2 is more than half of the"),
    (made("conv3d", kernel_size=3), (batch_of(1, 4, 4, 4),), "out_channels is missing; give it, or a weight as second"),
    (made("conv1d", out_channels=2), (batch_of(1, 4),), "kernel_size is missing; give it, or a weight as second"),
    (made("conv1d"), (batch_of(2, 4), Shape((3, 3, 3))), "the weight must be (out, 2, kL), but is (3, 3, 3)"),
    (made("conv_transpose2d", kernel_size=2), (batch_of(2, 3, 3),), "out_channels is missing; give it, or depthwise"),
    (
        made("conv_transpose1d", kernel_size=2, out_channels=4, groups=2),
        (batch_of(3, 3),),
        "groups 2 must divide the 3",
    ),
    (made("conv_transpose1d", kernel_size=2, out_channels=4, padding=2), (batch_of(3, 2),), "padding 2 cuts away all"),
    (made("embedding", num_embeddings=3, embedding_dim=2), (batch_of(3),), "embedding takes integers, but its input"),
    (made("instance_norm"), (batch_of(3),), "instance_norm takes (N, C, L), (N, C, H, W) or (N, C, D, H, W), but"),
    (made("instance_norm"), (batch_of(3, 1),), "(N, 3, 1) has one number per channel"),
    (made("group_norm", num_groups=2), (batch_of(3),), "num_groups 2 must divide the 3 channels of (N, 3)"),
    (made("group_norm", num_groups=3), (batch_of(3),), "each group of (N, 3) has one number"),
    (made("rms_norm", dims=2), (batch_of(3),), "rms_norm over the last 2 axes leaves no batch axis in (N, 3)"),
    (made("local_response_norm", size=3), (batch_of(3),), "local_response_norm takes (N, C, ...) of rank 3 or more"),
    (made("dropout2d"), (batch_of(3, 4),), "dropout2d takes an input of rank 4, (N, C, H, W), but gets (N, 3, 4)"),
    (made("mean", dim=0), (batch_of(3),), "axis 0 of (N, 3) is the batch"),
    (made("mean", dim=(1, -1)), (batch_of(3),), "dim (1, -1) names an axis of (N, 3) twice"),
    (made("mean", dim=0), (Shape((3,)),), "no axis of (3,) is left; use keepdim"),
    (made("var", dim=1), (batch_of(1),), "var over 1 numbers needs a correction below that, not 1"),
    (made("matmul"), (batch_of(2, 3), batch_of(2, 3)), "3 columns of (N, 2, 3) meet 2 rows of (N, 2, 3)"),
    (made("matmul"), (batch_of(2), batch_of(2)), "the batch must lie before the last two axes"),
    (made("matmul"), (batch_of(2, 3), Shape((3,))), "matmul takes two values of rank 2 or more"),
    (made("attention"), (batch_of(2, 3), batch_of(2, 4), batch_of(2, 3)), "q (N, 2, 3) and k (N, 2, 4) must have one"),
    (made("attention"), (batch_of(2, 3), batch_of(1, 2, 3), batch_of(2, 3)), "q, k and v must be (N, ..., tokens"),
    (made("attention", is_causal=True), (batch_of(2, 3),) * 3 + (Shape((2, 2)),), "is_causal does not go with a mask"),
    (made("attention", mask="seen"), (batch_of(2, 3),) * 3, "mask is 'seen', but there is no mask"),
    (made("attention"), (batch_of(2, 3),) * 3 + (Shape((1, 1, 2, 2)),), "the mask (1, 1, 2, 2) does not broadcast"),
    (
        made("experts", num_experts=3, hidden_features=2, out_features=2),
        (batch_of(2, 4), batch_of(2, 4)),
        "the scores must be (N, 2, 3), one for each token and expert, but are (N, 2, 4)",
    ),
    (
        made("experts", num_experts=3, hidden_features=2, out_features=2),
        (Shape((2, 4)), Shape((2, 3))),
        "experts takes tokens of rank 2 or more, (N, ..., features), but gets (2, 4)",
    ),
    (made("sub"), (batch_of(2), batch_of(3)), "inputs must have one shape, but are (N, 2) and (N, 3)"),
]


@pytest.mark.parametrize(("op", "xs", "text"), REFUSED, ids=[f"{op.kind()}-{k}" for k, (op, *_) in enumerate(REFUSED)])
def test_inputs_that_do_not_fit_are_named(op: Op, xs: tuple[Shape, ...], text: str) -> None:
    with pytest.raises(OpError) as caught:
        op.infer(*xs)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "attributes", "text"),
    [
        ("permute", {"dims": [0, 2]}, "each of 0 to 1 must stand once"),
        ("pad", {"padding": [1, 2, 3]}, "padding holds a pair"),
        ("pad", {"padding": [1, 2], "mode": "reflect", "value": 1.0}, "value goes with mode constant"),
        ("expand", {"shape": [0]}, "entries are positive, or -1"),
        ("upsample", {}, "give either size or scale_factor"),
        ("upsample", {"size": 2, "scale_factor": 2.0}, "give either size or scale_factor"),
        ("upsample", {"size": 2, "align_corners": True}, "align_corners does not go with mode nearest"),
        ("clamp", {}, "give min, max or both"),
        ("clamp", {"min": 1.0, "max": 0.0}, r"min 1.0 lies above max 0.0"),
        ("conv_transpose2d", {"out_channels": 2}, "kernel_size is missing"),
        ("conv_transpose2d", {"kernel_size": 2, "output_padding": 1}, "output_padding 1 must be less than stride 1"),
        ("conv_transpose2d", {"kernel_size": 2, "depthwise": True, "groups": 2}, "a depthwise conv_transpose2d has"),
        ("conv1d", {"kernel_size": 2, "padding": "same", "stride": 2}, "padding 'same' needs stride 1"),
        ("conv1d", {"kernel_size": [2]}, "kernel_size"),
        ("embedding", {"num_embeddings": 2, "embedding_dim": 1, "padding_idx": 2}, "padding_idx 2 lies outside the 2"),
        (
            "experts",
            {"num_experts": 2, "hidden_features": 1, "out_features": 1, "top_k": 3},
            "top_k 3 is more than num_experts 2",
        ),
        ("parameter", {"shape": [2], "dtype": "int64"}, "integers cannot be trained; int64 goes with buffer: true"),
    ],
)
def test_attributes_that_contradict_each_other_are_named(kind: str, attributes: dict[str, Any], text: str) -> None:
    node = {"name": "it", "op": kind, "inputs": ["x"], **attributes}
    with pytest.raises(GraphError, match=r"nodes\[0\] 'it'") as caught:
        load({"schema": "growir/1", "inputs": [{"name": "x", "shape": ["N", 2]}], "nodes": [node], "outputs": ["it"]})
    assert text in str(caught.value)


def test_equal_extents_have_one_form() -> None:
    assert made("conv3d", out_channels=2, kernel_size=[3, 3, 3]) == made("conv3d", out_channels=2, kernel_size=3)
    assert made("upsample", scale_factor=[2.0, 2.0]) == made("upsample", scale_factor=2.0)
    assert made("mean", dim=[2]) == made("mean", dim=2)


def document(nodes: list[dict[str, Any]], **inputs: Any) -> Graph:
    entries = [{"name": name, **entry} for name, entry in inputs.items()]
    return load({"schema": "growir/1", "inputs": entries, "nodes": nodes, "outputs": [nodes[-1]["name"]]})


def text_encoder() -> Graph:
    """Tokens and positions, a class token, a causal head, a scale that is learned, in every form without a batch."""
    return document(
        [
            {"name": "tokens", "op": "embedding", "inputs": ["ids"], "num_embeddings": 5, "embedding_dim": 4},
            {"name": "places", "op": "parameter", "shape": [1, 6], "buffer": True, "dtype": "int64"},
            {"name": "first", "op": "slice", "inputs": ["places"], "axis": 1, "length": 3},
            {"name": "spots", "op": "embedding", "inputs": ["first"], "num_embeddings": 6, "embedding_dim": 4},
            {"name": "stream", "op": "add", "inputs": ["tokens", "spots"]},
            {"name": "token", "op": "parameter", "shape": [4]},
            {"name": "row", "op": "reshape", "inputs": ["token"], "shape": [1, -1]},
            {"name": "up", "op": "unsqueeze", "inputs": ["row"], "dim": 0},
            {"name": "down", "op": "squeeze", "inputs": ["up"], "dim": 0},
            {"name": "turned", "op": "permute", "inputs": ["down"], "dims": [1, 0]},
            {"name": "back", "op": "permute", "inputs": ["turned"], "dims": [1, 0]},
            {"name": "every", "op": "expand", "inputs": ["back", "ids"], "shape": [1, -1]},
            {"name": "all_", "op": "concat", "inputs": ["every", "stream"]},
            {"name": "mask", "op": "parameter", "shape": [4, 4], "buffer": True},
            {"name": "seen", "op": "attention", "inputs": ["all_", "all_", "all_", "mask"]},
            {"name": "mean", "op": "mean", "inputs": ["seen"], "dim": 1},
            {"name": "head", "op": "linear", "inputs": ["mean"], "out_features": 2},
        ],
        ids={"shape": ["N", 3], "dtype": "int64"},
    )


def test_stored_values_without_a_batch() -> None:
    graph = text_encoder()
    rng = np.random.default_rng(0)
    arrays = {key: rng.normal(size=a.shape) for key, a in Network.init(graph).arrays.items()}
    arrays["places.weight"] = np.array([[3, 0, 5, 1, 1, 1]])
    network = Network(graph, arrays)
    ids = torch.tensor([[0, 4, 2], [1, 1, 3]])
    p = {key: torch.tensor(array) for key, array in arrays.items()}
    stream = p["tokens.weight"][ids] + p["spots.weight"][[3, 0, 5]]
    x = torch.cat([p["token.weight"].expand(2, 1, 4), stream], 1)
    seen = torch.softmax(x @ x.transpose(1, 2) / 2 + p["mask.weight"], -1) @ x
    wanted = seen.mean(1) @ p["head.weight"].T + p["head.bias"]
    module = network.to_torch()
    torch.testing.assert_close(module(ids), wanted)
    assert {key for key, _ in module.named_buffers()} == {"places.weight", "mask.weight"}
    assert module.get_buffer("places.weight").dtype == torch.int64
    ort = pytest.importorskip("onnxruntime")
    for opset in (17, 18, 26):
        model = build_model(graph, arrays, opset=opset)
        (found,) = ort.InferenceSession(model.SerializeToString()).run(None, {"ids": ids.numpy()})
        np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4)


# -- what their channel rules say, beyond the law that all operators obey ---------------------------------------------


def test_channels_padded_with_zeros_are_a_space() -> None:
    graph = document(
        [
            {"name": "wide", "op": "conv2d", "inputs": ["x"], "out_channels": 5, "kernel_size": 1},
            {"name": "thin", "op": "conv2d", "inputs": ["x"], "out_channels": 3, "kernel_size": 1},
            {"name": "padded", "op": "pad", "inputs": ["thin"], "padding": [0, 0, 0, 0, 0, 2]},
            {"name": "sum_", "op": "add", "inputs": ["wide", "padded"]},
            {"name": "flat", "op": "flatten", "inputs": ["sum_"]},
            {"name": "head", "op": "linear", "inputs": ["flat"], "out_features": 2},
        ],
        x={"shape": ["N", 2, 3, 3]},
    )
    thin, zeros = (space for space in channel_spaces(graph) if not space.pins)
    assert (thin.name, thin.width, zeros.width) == ("thin", 3, 2)
    grown = assert_preserves(Widen(node=zeros.name, by=3), graph).graph
    assert grown["padded"].op.attributes()["padding"] == [0, 0, 0, 0, 0, 5]
    assert grown["wide"].op.attributes()["out_channels"] == 8
    assert grown["thin"].op.attributes()["out_channels"] == 3


def test_groups_that_are_normalised_come_whole() -> None:
    graph = document(
        [
            {"name": "fc", "op": "conv1d", "inputs": ["x"], "out_channels": 6, "kernel_size": 1},
            {"name": "norm", "op": "group_norm", "inputs": ["fc"], "num_groups": 2},
            {"name": "flat", "op": "flatten", "inputs": ["norm"]},
            {"name": "head", "op": "linear", "inputs": ["flat"], "out_features": 2},
        ],
        x={"shape": ["N", 2, 3]},
    )
    (space,) = [space for space in channel_spaces(graph) if not space.pins]
    assert (space.name, space.stride) == ("fc", 3)
    grown = assert_preserves(Widen(node="fc", by=3, copies=(1,)), graph).graph
    assert grown["norm"].op.attributes()["num_groups"] == 3


def test_heads_grow_and_their_size_does_not() -> None:
    def projection(name: str) -> list[dict[str, Any]]:
        return [
            {"name": name, "op": "linear", "inputs": ["x"], "out_features": 6},
            {"name": f"{name}_heads", "op": "reshape", "inputs": [name], "shape": [4, -1, 3]},
            {"name": f"{name}_first", "op": "permute", "inputs": [f"{name}_heads"], "dims": [0, 2, 1, 3]},
        ]

    graph = document(
        [
            *(node for name in ("q", "k", "v") for node in projection(name)),
            {"name": "seen", "op": "attention", "inputs": ["q_first", "k_first", "v_first"]},
            {"name": "back", "op": "permute", "inputs": ["seen"], "dims": [0, 2, 1, 3]},
            {"name": "joined", "op": "flatten", "inputs": ["back"], "start_dim": 2},
            {"name": "out", "op": "linear", "inputs": ["joined"], "out_features": 2},
        ],
        x={"shape": ["N", 4, 5]},
    )
    free = [space for space in channel_spaces(graph) if not space.pins]
    assert [(space.name, space.stride) for space in free if "k" in space.nodes] == [("q", 3)]
    grown = assert_preserves(Widen(node="q", by=3), graph).graph
    assert [grown[name].op.attributes()["out_features"] for name in "qkv"] == [9, 9, 9]


def test_groups_of_a_transposed_convolution_may_read_different_channels() -> None:
    graph = document(
        [
            {"name": "one", "op": "conv1d", "inputs": ["x"], "out_channels": 2, "kernel_size": 1},
            {"name": "two", "op": "conv1d", "inputs": ["x"], "out_channels": 2, "kernel_size": 1},
            {"name": "both", "op": "concat", "inputs": ["one", "two"]},
            {
                "name": "up",
                "op": "conv_transpose1d",
                "inputs": ["both"],
                "out_channels": 4,
                "kernel_size": 2,
                "groups": 2,
            },
            {"name": "flat", "op": "flatten", "inputs": ["up"]},
            {"name": "head", "op": "linear", "inputs": ["flat"], "out_features": 2},
        ],
        x={"shape": ["N", 2, 3]},
    )
    for space in [space for space in channel_spaces(graph) if not space.pins]:
        assert_preserves(Widen(node=space.name, by=space.stride), graph)
    grown = assert_preserves(Widen(node="one", by=1), graph)
    assert grown.arrays["up.weight"].shape == (6, 2, 2)


def test_a_stored_matrix_is_consumed_by_a_product() -> None:
    graph = document(
        [
            {"name": "fc", "op": "linear", "inputs": ["x"], "out_features": 3},
            {"name": "weight", "op": "parameter", "shape": [3, 2]},
            {"name": "out", "op": "matmul", "inputs": ["fc", "weight"]},
        ],
        x={"shape": ["N", 4]},
    )
    (space,) = [space for space in channel_spaces(graph) if not space.pins]
    assert [slot.parameter for slot in space.consumers] == ["weight.weight"]
    assert_preserves(Widen(node="fc", by=2), graph)
    assert_preserves(Widen(node="fc", by=1, copies=(1,)), graph)


@pytest.mark.parametrize(
    ("kind", "attributes", "partial"),
    [
        ("pow", {"exponent": 2.0}, False),
        ("pow", {"exponent": 0.5}, True),
        ("pow", {"exponent": -1.0}, True),
        ("log", {}, True),
        ("sqrt", {}, True),
        ("rsqrt", {}, True),
        ("exp", {}, False),
    ],
)
def test_partial_functions_say_so(kind: str, attributes: dict[str, Any], partial: bool) -> None:
    graph = document(
        [
            {"name": "fc", "op": "linear", "inputs": ["x"], "out_features": 3},
            {"name": "it", "op": kind, "inputs": ["fc"], **attributes},
            {"name": "out", "op": "linear", "inputs": ["it"], "out_features": 2},
        ],
        x={"shape": ["N", 4]},
    )
    assert analyse(graph).find("fc", graph).partial is partial


def test_only_the_denominator_may_fail() -> None:
    graph = document(
        [
            {"name": "above", "op": "linear", "inputs": ["x"], "out_features": 3},
            {"name": "below", "op": "linear", "inputs": ["x"], "out_features": 1},
            {"name": "ratio", "op": "div", "inputs": ["above", "below"]},
            {"name": "out", "op": "linear", "inputs": ["ratio"], "out_features": 2},
        ],
        x={"shape": ["N", 4]},
    )
    spaces = {space.name: space for space in channel_spaces(graph)}
    assert not spaces["above"].partial
    assert spaces["below"].partial
    assert spaces["below"].pins


def test_a_product_of_computed_values_holds_what_it_sums_over() -> None:
    graph = document(
        [
            {"name": "fc", "op": "linear", "inputs": ["x"], "out_features": 3},
            {"name": "turned", "op": "permute", "inputs": ["fc"], "dims": [0, 2, 1]},
            {"name": "all_", "op": "matmul", "inputs": ["fc", "turned"]},
            {"name": "out", "op": "linear", "inputs": ["all_"], "out_features": 2},
        ],
        x={"shape": ["N", 4, 5]},
    )
    (space,) = [space for space in channel_spaces(graph) if space.name == "fc"]
    assert [str(pin) for pin in space.pins] == ["all_ (is summed over, in a product of two computed values)"]


@pytest.mark.parametrize(("kind", "k"), [(kind, k) for kind in OPS for k in range(len(kind.examples()))])
def test_only_partial_operators_make_infinities(kind: type[Op], k: int) -> None:
    graph = alone(replace(kind.examples()[k], positive=False))
    numbers, generator = torch.tensor([-120.0, -3.0, -1.0, 0.0, 0.5, 2.0, 120.0]), torch.Generator().manual_seed(0)
    batch = [
        numbers[torch.randint(len(numbers), x.shape, generator=generator)] if x.is_floating_point() else x
        for x in random_batch(graph)
    ]
    with torch.no_grad():
        found = random_network(graph).to_torch(dtype=torch.float32).eval()(*batch)
    finite = all(bool(y.isfinite().all()) for y in (found if isinstance(found, tuple) else (found,)))
    assert finite is not any(node.op.partial for node in graph.nodes)
