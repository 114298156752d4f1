"""The reserved names against the torch that is installed, and names that come near them."""

from __future__ import annotations

import builtins
import keyword

import pytest
import torch
from torch import fx, nn

from growir.backends.torch_fx.lowering import DOCUMENT
from growir.graph import Graph, Input, Node
from growir.names import MAX_LENGTH, RESERVED, allot, fault
from growir.network import Network
from growir.ops import Add, Linear, Relu
from growir.testing import outputs, random_batch, random_network


def of_torch() -> set[str]:
    """Every attribute that a lowered module has before any node is put on it, and the globals of generated code."""
    from torch.fx.graph import _custom_builtins

    graph = fx.Graph()
    graph.output(graph.placeholder("x"))
    module = fx.GraphModule(nn.Module(), graph)
    return {*dir(nn.Module()), *dir(fx.GraphModule), *dir(module), *_custom_builtins} - {"x"}


def test_the_reserved_list_covers_torch() -> None:
    # What dynamo puts on the class, once something has been compiled, starts with three underscores.
    missing = sorted(name for name in of_torch() if fault(name) is None and not name.startswith("___"))
    assert not missing, f"torch {torch.__version__} uses these too; add them to growir.names.RESERVED: {missing}"


def test_every_reserved_name_is_reserved_for_a_reason() -> None:
    # Older versions of torch are supported too, so a name may have gone; but not most of them.
    assert len(RESERVED & of_torch()) > 0.9 * len(RESERVED - {"self", "forward"})


@pytest.mark.parametrize("name", sorted(set(dir(builtins)) - {n for n in dir(builtins) if n.startswith("__")})[::4])
def test_words_of_python_that_are_no_keywords_work(name: str) -> None:
    if fault(name) is not None:
        assert keyword.iskeyword(name) or name in RESERVED
        return
    check_runs(name, f"{name}_1", f"block.{name}")


@pytest.mark.parametrize("name", ["getattr", "len", "operator", "math", "add", "linear", "functional", "nn", "_", "__"])
def test_names_of_things_that_generated_code_uses(name: str) -> None:
    if fault(name) is None:
        check_runs(name, "fc", f"m.{name}")
        check_runs("x", name, f"m.{name}.0")
        check_runs(name, "fc.0", "fc.1")


def test_names_that_differ_only_by_the_dot() -> None:
    check_runs("a_b", "a.b", "a.b_1")


def check_runs(source: str, first: str, second: str) -> None:
    """A network with these names computes what the same network with plain names does."""
    if fault(source) or fault(first) or fault(second) or len({source, first, second}) < 3:
        return
    found = []
    for names in ((source, first, second), ("x", "one", "two")):
        graph = Graph(
            inputs=(Input(name=names[0], shape=("N", 3)),),
            nodes=(
                Node(name=names[1], op=Linear(out_features=3), inputs=(names[0],)),
                Node(name=names[2], op=Relu(), inputs=(names[1],)),
                Node(name="sum_", op=Add(), inputs=(names[2], names[0])),
            ),
            outputs=("sum_",),
        )
        network = random_network(graph)
        assert set(network.to_torch().state_dict()) == {f"{names[1]}.weight", f"{names[1]}.bias"}
        found.append(outputs(network, random_batch(graph))[0])
        assert isinstance(network, Network)
    assert (found[0] == found[1]).all()


def test_names_are_allotted_past_the_highest() -> None:
    assert allot("edge", []) == "edge_1"
    assert allot("edge", ["edge_1", "edge_7", "edge_3x", "edgy_9", "edge_"]) == "edge_8"
    assert allot("edge", ["edge_007"]) == "edge_8"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "empty"),
        ("a" * (MAX_LENGTH + 1), "201 characters; at most 200"),
        ("a..b", "both sides of each dot"),
        ("1a", "segments joined by dots"),
        ("a.class", "'class' is a word of Python or torch; try class_ instead"),
    ],
)
def test_faults_say_what_would_be_right(name: str, says: str) -> None:
    assert says in (fault(name) or "")


def test_what_growir_puts_on_a_module_is_reserved() -> None:
    assert DOCUMENT in RESERVED
    assert "growir_document_ instead" in (fault(f"block.{DOCUMENT}") or "")


def test_only_numbers_that_can_be_counted_on_are_counted() -> None:
    assert allot("edge", ["edge_\u00b2", "edge_\u0663"]) == "edge_1"
    name = allot("edge", ["edge_" + "9" * 59])
    assert fault(name) is None
    assert name == "edge_1"


def test_a_stem_whose_numbers_are_used_up_gives_way() -> None:
    taken = ["edge_" + "9" * 18]
    for _ in range(3):
        name = allot("edge", taken)
        assert fault(name) is None
        assert name not in taken
        taken.append(name)
    assert taken[1:] == ["xedge_1", "xedge_2", "xedge_3"]
