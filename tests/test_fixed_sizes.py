"""The record of sizes that became numbers: kept wherever the graph goes, and checked by whatever runs it in torch."""

from __future__ import annotations

import copy
import pickle
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from growir import live
from growir.backends.torch_source.checking import check_source
from growir.backends.torch_source.saving import save_source
from growir.difference import diff
from growir.document import dumps, to_data
from growir.errors import GraphError
from growir.graph import FixedSize, Graph, Input, Node
from growir.inspecting import inspection
from growir.network import Network, load_graph
from growir.ops import Linear, Sum
from growir.passes import Widen
from growir.verify import load, verify
from tests.cli.command import flat

WHY = 'net.py:12: return x.sum(1) / "five"'
FIXED = (FixedSize(input="x", axis=1, why=WHY), FixedSize(input="fixed_sizes", axis=1))
STEP = Widen(node="l", by=2)
MESSAGE = (
    f"x: axis 1 has the size 7, but this network needs 5, a number in it ({WHY}); resize the input, or import the "
    "model again with an example of the size you need"
)


def free() -> Graph:
    """Tokens of any number, but for what is said of it; one input is called like the module that checks."""
    nodes = (
        Node(name="l", op=Linear(op="linear", out_features=4), inputs=("x",)),
        Node(name="s", op=Sum(op="sum", dim=(1,)), inputs=("l",)),
        Node(name="m", op=Linear(op="linear", out_features=2), inputs=("s",)),
        Node(name="k", op=Sum(op="sum", dim=(1,)), inputs=("fixed_sizes",)),
    )
    inputs = (Input(name="x", shape=("N", 5, 6)), Input(name="fixed_sizes", shape=("N", 3, 2)))
    return verify(Graph(name="tokens", inputs=inputs, nodes=nodes, outputs=("m", "k")))


def marked() -> Graph:
    return free().replace(fixed_sizes=FIXED)


def batch(tokens: int = 5, others: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(2, tokens, 6), torch.randn(2, others, 2)


def test_it_is_not_part_of_the_identity_and_absent_where_there_is_none() -> None:
    assert marked() == free()
    assert marked().hash == free().hash
    assert "fixed_sizes" not in to_data(free())
    assert to_data(marked())["fixed_sizes"] == [
        {"input": "x", "axis": 1, "why": WHY},
        {"input": "fixed_sizes", "axis": 1},
    ]


def test_it_goes_where_the_graph_goes(tmp_path: Path) -> None:
    network = Network.init(marked()).apply(STEP)
    assert network.graph.fixed_sizes == FIXED
    network.save(tmp_path / "net")
    assert Network.load(tmp_path / "net").graph.fixed_sizes == FIXED
    network.to_onnx(tmp_path / "net.onnx")
    assert load_graph(tmp_path / "net.onnx").fixed_sizes == FIXED
    found = live.network_of(network.to_torch()).graph
    assert found.fixed_sizes == FIXED
    assert found.history is not None
    assert found.history.base.fixed_sizes == FIXED
    assert network.replayed().graph.fixed_sizes == FIXED
    assert network.graph.replace(fixed_sizes=()).fixed_sizes == ()


WRONG: dict[str, tuple[Any, str]] = {
    "no array": (None, "fixed_sizes: an array of objects is needed, but this is null"),
    "no object": (["x"], r"fixed_sizes[0]: an object with input and axis is needed, but this is a string"),
    "no axis": ([{"input": "x"}], "fixed_sizes[0]: a fixed size needs axis"),
    "unknown input": ([{"input": "xs", "axis": 1}], "fixed_sizes[0]: there is no input 'xs'. Did you mean 'x'?"),
    "batch": ([{"input": "x", "axis": 0}], "fixed_sizes[0]: axis is 0: input should be greater than or equal to 1"),
    "beyond": ([{"input": "x", "axis": 3}], "fixed_sizes[0]: 'x' has the axes 1 to 2 besides the batch, not 3"),
    "huge": (
        [{"input": "x", "axis": 2**31}],
        f"fixed_sizes[0]: axis is {2**31}: input should be less than or equal to {2**31 - 1}",
    ),
    "twice": ([{"input": "x", "axis": 1}] * 2, "fixed_sizes[1]: axis 1 of 'x' stands here twice"),
    "strange": (
        [{"input": "x", "axis": 1, "size": 5}],
        "fixed_sizes[0]: unknown attribute 'size'; a fixed size takes input, axis, why.",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_documents_with_wrong_entries_are_refused(case: str) -> None:
    value, message = WRONG[case]
    with pytest.raises(GraphError, match=f"^{re.escape(message)}$"):
        load({**to_data(free()), "fixed_sizes": value})


def test_graphs_with_wrong_entries_are_refused() -> None:
    with pytest.raises(GraphError, match="there is no input 'y'"):
        free().replace(fixed_sizes=[FixedSize(input="y", axis=1)])


def test_inspect_and_diff_show_it() -> None:
    lines = f"x axis 1, 5: {WHY}", "fixed_sizes axis 1, 3"
    assert marked().summary().endswith("only this size is right:\n  " + "\n  ".join(lines))
    assert "size" not in free().replace(fixed_sizes=()).summary().replace("fixed_sizes", "")
    whole = [{"input": "x", "axis": 1, "why": WHY}, {"input": "fixed_sizes", "axis": 1, "why": ""}]
    assert inspection(marked())["fixed_sizes"] == whole
    found = diff(free(), marked())
    assert found.same
    assert found.fixed_sizes == ((), FIXED)
    assert flat(f"  fixed sizes none -> {'; '.join(lines)}") in flat(str(found))
    assert found.to_json()["fixed_sizes"] == [[], whole]
    assert diff(marked(), marked()).fixed_sizes is None
    assert diff(marked(), marked()).to_json()["fixed_sizes"] is None


def lowered() -> nn.Module:
    return Network.init(marked()).to_torch()


def exported(folder: Path) -> nn.Module:
    network = Network.init(marked())
    save_source(network.graph, network.arrays, folder / "net.py")
    check_source(network.graph, network.arrays, folder / "net.py")
    made: nn.Module = runpy.run_path(str(folder / "net.py"))["Net"]()
    return made


def pickled(module: nn.Module) -> nn.Module:
    found: nn.Module = pickle.loads(pickle.dumps(module))
    return found


def grown(module: nn.Module) -> nn.Module:
    optimizer = torch.optim.Adam(module.parameters())
    found: nn.Module
    found, _ = live.grow(module, STEP, optimizer)
    return found


def cleaned(module: nn.Module) -> nn.Module:
    assert isinstance(module, torch.fx.GraphModule)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


WAYS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "as it is": lambda module: module,
    "copied": copy.deepcopy,
    "pickled": pickled,
    "pickled and copied": lambda module: copy.deepcopy(pickled(copy.deepcopy(module))),
    "grown": grown,
    "pickled and grown": lambda module: grown(pickled(module)),
    "cleaned of dead code": cleaned,
}


def assert_checks(module: Callable[..., Any], message: str = MESSAGE) -> None:
    module(*batch())
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        module(*batch(tokens=7))
    other = "fixed_sizes: axis 1 has the size 4, but this network needs 3, a number in it; resize"
    with pytest.raises(ValueError, match=f"^{other}"):
        module(*batch(others=4))


@pytest.mark.parametrize("way", WAYS)
def test_the_module_checks(way: str) -> None:
    assert_checks(WAYS[way](lowered()))


def test_the_exported_class_checks(tmp_path: Path) -> None:
    assert_checks(exported(tmp_path))


def test_modules_without_an_entry_take_every_size() -> None:
    module = Network.init(free()).to_torch()
    assert not any("sizes" in name for name, _ in module.named_modules())
    module(*batch(7, 4))


@pytest.mark.parametrize("dynamic", [None, True])
def test_compiled_modules_check(dynamic: bool | None, tmp_path: Path) -> None:
    for module in (lowered(), exported(tmp_path)):
        torch._dynamo.reset()
        compiled: Callable[..., Any] = torch.compile(module, fullgraph=True, dynamic=dynamic, backend="eager")
        compiled(*batch())
        with pytest.raises(Exception, match="axis 1 has the size 7, but this network needs 5"):
            compiled(*batch(tokens=7))


def test_exported_programs_keep_the_size_fixed() -> None:
    size = {0: torch.export.Dim("batch", min=2)}
    program = torch.export.export(lowered(), batch(), dynamic_shapes=(size, size))
    program.module()(*(x.repeat(3, 1, 1) for x in batch()))
    with pytest.raises(Exception, match="5"):
        program.module()(*batch(tokens=7))


def test_symbolic_traces_keep_the_check() -> None:
    traced = torch.fx.symbolic_trace(lowered())
    traced(*batch())
    with pytest.raises(AssertionError, match="axis 1 has another size, but this network needs 5"):
        traced(*batch(tokens=7))


def test_onnx_files_declare_the_size(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    network = Network.init(marked())
    network.to_onnx(tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"))
    names = [entry.name for entry in session.get_inputs()]
    session.run(None, dict(zip(names, (x.numpy() for x in batch()), strict=True)))
    with pytest.raises(Exception, match="Got: 7 Expected: 5"):
        session.run(None, dict(zip(names, (x.numpy() for x in batch(tokens=7)), strict=True)))


def test_a_copy_of_the_document_keeps_it() -> None:
    assert load(dumps(marked())).fixed_sizes == FIXED
    assert copy.deepcopy(marked()).fixed_sizes == FIXED
