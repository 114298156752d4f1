"""A network in a dict comes back equal to the bit; what is no network is refused, with all that is wrong."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from growir.document import dumps
from growir.errors import GraphError
from growir.graph import FixedSize, Graph
from growir.network import Network
from growir.params import FLOATS, array_digest, frozen_keys, param_table, with_frozen
from growir.passes import PASSES, Widen
from growir.testing import candidates, graphs, random_network
from tests.samples import mlp, residual_convnet

Packed = dict[str, Any]


def through_a_file(data: Packed) -> Packed:
    file = io.BytesIO()
    torch.save({"network": data, "epoch": 3}, file)
    file.seek(0)
    found: Packed = torch.load(file, weights_only=True)["network"]
    return found


def bits(arrays: Mapping[str, Any]) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {key: (array.dtype.name, array.shape, array.tobytes()) for key, array in arrays.items()}


def assert_equal(found: Network, wanted: Network) -> None:
    assert dumps(found.graph) == dumps(wanted.graph)
    assert bits(found.arrays) == bits(wanted.arrays)
    assert bits(found.values) == bits(wanted.values)


@settings(max_examples=max(settings().max_examples // 2, 10))
@given(st.data())
def test_any_grown_network_comes_back_to_the_bit(data: st.DataObject) -> None:
    network = random_network(data.draw(graphs()))
    for _ in range(data.draw(st.integers(0, 2))):
        network = network.apply(data.draw(candidates(data.draw(st.sampled_from(PASSES)), network.graph)))
    dtype = data.draw(st.sampled_from(FLOATS))
    cast = {k: a.astype(np.dtype(dtype)) if a.dtype.kind == "f" else a for k, a in network.arrays.items()}
    learned = [key for key, param in param_table(network.graph).items() if not param.buffer]
    frozen = data.draw(st.lists(st.sampled_from(learned), max_size=2, unique=True)) if learned else []
    wanted = Network(with_frozen(network.graph, frozen), cast, network.values)
    packed = through_a_file(wanted.to_dict())
    assert_equal(Network.from_dict(packed), wanted)
    with TemporaryDirectory() as folder:
        wanted.save(Path(folder) / "net")
        assert_equal(Network.load(Path(folder) / "net"), Network.from_dict(packed))


def test_all_that_a_document_says_comes_back() -> None:
    given = np.full((2, 3), 0.1, ml_dtypes.bfloat16)
    grown = Network.init(mlp(), dtype="bfloat16").apply(Widen(node="fc1", by=2, values={"fc1.weight": given}))
    fixed = [FixedSize(input=grown.graph.inputs[0].name, axis=1, why="line 3")]
    graph = with_frozen(grown.graph.replace(train_differs=["line 4"], fixed_sizes=fixed), ["fc1.bias"])
    found = Network.from_dict(through_a_file(Network(graph, grown.arrays, grown.values).to_dict()))
    assert found.graph.train_differs == ("line 4",)
    assert found.graph.fixed_sizes == tuple(fixed)
    assert frozen_keys(found.graph) == {"fc1.bias"}
    assert bits(found.values) == {array_digest(given): ("bfloat16", (2, 3), given.tobytes())}
    assert bits(found.replayed(dict(Network.init(mlp(), dtype="bfloat16").arrays)).arrays) == bits(found.arrays)


def test_the_dict_is_nobody_elses() -> None:
    network = random_network(residual_convnet())
    wanted = bits(network.arrays)
    packed = network.to_dict()
    assert all(tensor.is_contiguous() and tensor.device.type == "cpu" for tensor in packed["tensors"].values())
    again = Network.from_dict(packed)
    for tensor in packed["tensors"].values():
        tensor.zero_()
    assert bits(network.arrays) == wanted
    assert bits(again.arrays) == wanted


def test_tensors_may_be_any_torch_has_of_these_numbers() -> None:
    network = random_network(mlp())
    packed = network.to_dict()
    strange = {key: torch.nn.Parameter(t.t().contiguous().t()) for key, t in packed["tensors"].items() if t.ndim == 2}
    assert_equal(Network.from_dict({**packed, "tensors": {**packed["tensors"], **strange}}), network)


def grown() -> Network:
    network = Network.init(mlp(), seed=1)
    return network.apply(Widen(node="fc1", by=2, values={"fc1.weight": np.ones((2, 3), np.float32)}))


def other_tensors(**tensors: object) -> Callable[[Packed], Packed]:
    return lambda packed: {**packed, "tensors": {**packed["tensors"], **tensors}}


def without(entry: str, key: str) -> Callable[[Packed], Packed]:
    return lambda packed: {**packed, entry: {k: v for k, v in packed[entry].items() if k != key}}


def document(graph: Graph) -> Callable[[Packed], Packed]:
    return lambda packed: {**packed, "document": dumps(graph)}


WRONG: dict[str, tuple[Callable[[Packed], object], str]] = {
    "no dict": (
        lambda d: 3,
        "Network.from_dict: a dict that Network.to_dict() made is needed, but this is of type int",
    ),
    "empty": (lambda d: {}, "this is no dict that Network.to_dict() made: it is empty"),
    "another dict": (lambda d: {"epoch": 3, "lr": 1}, "it has no 'format', but epoch, lr"),
    "a whole checkpoint": (
        lambda d: {"epoch": 3, "net": d},
        "it holds one as 'net', as a whole checkpoint does; give th",
    ),
    "a state_dict": (
        lambda d: d["tensors"],
        "it looks like a state_dict, which has no architecture; load it by load_st",
    ),
    "newer": (
        lambda d: {**d, "format": "growir-network/2"},
        "format: this dict is of version growir-network/2, and this growir reads growir-network/1; upgrade growir",
    ),
    "no version": (lambda d: {**d, "format": "growir-network/0"}, "reads growir-network/1; there is no version 0"),
    "no format": (lambda d: {**d, "format": 1}, "its 'format' is 1, and growir-network/1 is needed"),
    "unknown entry": (
        lambda d: {**d, "tensor": 1},
        "tensor: unknown entry; the dict of a network has format, document, hash, tensors, history. Did you mean 't",
    ),
    "lacking entry": (
        lambda d: {key: value for key, value in d.items() if key != "history"},
        "history: the entry is missing; a dict of tensors is needed",
    ),
    "entry of another type": (
        lambda d: {**d, "document": b"{}"},
        "document: text is needed, but this is of type bytes",
    ),
    "no JSON": (lambda d: {**d, "document": "{"}, "document: line 1, column 2: this is not valid JSON"),
    "a wrong document": (
        lambda d: {**d, "document": d["document"].replace('"relu"', '"rleu"', 1)},
        "unknown op 'rleu'. Did you mean",
    ),
    "another document": (document(mlp()), "hash: these tensors belong to the graph"),
    "a history that leads elsewhere": (
        lambda d: {**d, "document": d["document"].replace('"by": 2', '"by": 1')},
        "document: history",
    ),
    "missing tensor": (without("tensors", "fc1.bias"), "tensors: fc1.bias: the tensor is missing; [6] is needed"),
    "one too many": (other_tensors(fc9=torch.zeros(2)), "tensors: fc9: the graph has no such tensor"),
    "misshapen": (
        other_tensors(**{"fc1.bias": torch.zeros(3)}),
        "tensors: fc1.bias: the tensor has shape [3], but the graph needs [6]",
    ),
    "NaN": (
        other_tensors(**{"fc1.bias": torch.full((6,), torch.nan)}),
        "tensors: fc1.bias: 6 of its 6 numbers are NaN or infinite",
    ),
    "no tensor": (
        other_tensors(**{"fc1.bias": [0.0]}),
        "tensors: fc1.bias: a tensor is needed, but this is of type list",
    ),
    "on meta": (
        other_tensors(**{"fc1.bias": torch.zeros(6, device="meta")}),
        "tensors: fc1.bias: the tensor is on the device meta, without numbers; load it with map_location='cpu'",
    ),
    "sparse": (
        other_tensors(**{"fc1.bias": torch.zeros(6).to_sparse()}),
        "tensors: fc1.bias: the tensor is sparse_coo, but a dense one is needed",
    ),
    "a dtype that numpy lacks": (
        other_tensors(**{"fc1.bias": torch.zeros(6, dtype=torch.float8_e4m3fn)}),
        "tensors: fc1.bias: the tensor is of float8_e4m3fn, which cannot be read",
    ),
    "a dtype that networks lack": (
        other_tensors(**{"fc1.bias": torch.zeros(6, dtype=torch.int32)}),
        "tensors: fc1.bias: the tensor is of int32, but one of float16",
    ),
    "recorded numbers that changed": (
        lambda d: {**d, "history": {key: value + 1 for key, value in d["history"].items()}},
        "the array has other numbers than recorded",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_network_is_refused(name: str) -> None:
    damage, says = WRONG[name]
    with pytest.raises(GraphError) as error:
        Network.from_dict(damage(grown().to_dict()))  # type: ignore[arg-type]
    assert says in str(error.value)
    assert str(error.value).startswith("Network.from_dict: ")
    assert len(error.value.problems) == 1


def test_all_problems_come_at_once() -> None:
    packed = grown().to_dict()
    packed["tensors"].update({"fc1.bias": torch.zeros(2), "fc1.weight": None, "fc9": torch.zeros(1)})
    packed["history"] = {"0" * 64: torch.zeros(1)}
    with pytest.raises(GraphError) as error:
        Network.from_dict({**packed, "more": 1})
    wheres = [problem.where for problem in error.value.problems]
    assert wheres == ["more", "tensors: fc1.weight", "history: 000000000000", "tensors: fc1.bias", "tensors: fc9"]


def test_the_limit_of_parameters_holds() -> None:
    with pytest.raises(GraphError, match=r"document: nodes: the graph has .* parameters"):
        Network.from_dict(grown().to_dict(), max_parameters=5)
