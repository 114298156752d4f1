"""The graph document: one network, one text, one hash; strict in what it reads; older versions brought forward."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from growir import replay
from growir.channels import analyse
from growir.document import dumps, migrate, to_data
from growir.errors import GraphError, PassRefused
from growir.graph import Graph, Node
from growir.identity import canonical
from growir.network import load_graph
from growir.ops import OPS, LayerNorm, Linear, Op
from growir.passes import AddEdge, AddNode, Widen, pass_from_data
from growir.rewrite import Pass
from growir.verify import load
from tests.samples import empty, graph_of, mlp, residual_convnet

HASHES = Path(__file__).parent / "golden" / "hashes.json"
TINY: dict[str, Any] = {
    "schema": "growir/1",
    "name": "tiny",
    "inputs": [{"name": "x", "shape": ["N", 1, 4, 4], "dtype": "float32"}],
    "nodes": [
        {"name": "flat", "op": "flatten", "inputs": ["x"]},
        {"name": "fc1", "op": "linear", "inputs": ["flat"], "out_features": 32},
        {"name": "act1", "op": "relu", "inputs": ["fc1"]},
        {"name": "head", "op": "linear", "inputs": ["act1"], "out_features": 10},
    ],
    "outputs": ["head"],
}


def changed(*path: str | int, to: Any) -> dict[str, Any]:
    """TINY with one value replaced."""
    data = copy.deepcopy(TINY)
    place: Any = data
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = to
    return data


def example_graphs() -> dict[str, Graph]:
    """One small graph for each example of each operator, and the samples."""
    found = {"mlp": mlp(), "empty": empty(), "residual_convnet": residual_convnet(), "tiny": load(TINY)}
    for op in OPS:
        for k, example in enumerate(op.examples()):
            inputs, nodes, names = [], [], []
            for j, shape in enumerate(example.inputs):
                names.append(f"x{j}")
                if shape.batched:
                    inputs.append({"name": f"x{j}", "shape": list(shape.dims), "dtype": shape.dtype})
                else:
                    nodes.append({"name": f"x{j}", "op": "parameter", "shape": list(shape.dims)})
            inputs = inputs or [{"name": "x", "shape": ["N", *example.op.infer().dims]}]
            nodes.append({"name": "it", "op": op.kind(), "inputs": names, **example.op.attributes()})
            last = "it"
            if not names:
                nodes.append({"name": "sum", "op": "add", "inputs": ["x", "it"]})
                last = "sum"
            data = {"schema": "growir/1", "inputs": inputs, "nodes": nodes, "outputs": [last]}
            found[f"{op.kind()}-{k}"] = load(data)
    return found


def test_hashes_never_change() -> None:
    """A network's hash is its identity in files that are out there. Entries may be added, never changed."""
    recorded = json.loads(HASHES.read_text(encoding="utf-8"))["growir/1"]
    found = {name: graph.hash for name, graph in example_graphs().items()}
    assert {name: found.get(name) for name in recorded} == recorded
    assert found.keys() == recorded.keys(), "add the new examples' hashes to tests/golden/hashes.json"


def test_the_canonical_form_is_this() -> None:
    assert canonical(load(TINY)).decode() == (
        '{"inputs":[{"name":"x","shape":["N",1,4,4]}],'
        '"nodes":[{"inputs":["x"],"name":"flat","op":"flatten"},'
        '{"inputs":["flat"],"name":"fc1","op":"linear","out_features":32},'
        '{"inputs":["fc1"],"name":"act1","op":"relu"},'
        '{"inputs":["act1"],"name":"head","op":"linear","out_features":10}],"outputs":["head"]}'
    )


@pytest.mark.parametrize(
    "data",
    [
        changed("name", to="another"),
        changed("nodes", 1, to={**TINY["nodes"][1], "bias": True}),
        changed("nodes", 1, to={**TINY["nodes"][1], "source": "model.fc1"}),
        changed("nodes", 1, to={**TINY["nodes"][1], "tied": {}}),
        changed("inputs", 0, to={"name": "x", "shape": ["N", 1, 4, 4]}),
        changed("nodes", 0, to={"start_dim": 1, "end_dim": -1, **TINY["nodes"][0]}),
    ],
    ids=["name", "default", "source", "no-tied", "dtype", "key-order"],
)
def test_the_same_network_has_one_hash(data: dict[str, Any]) -> None:
    assert load(data).hash == load(TINY).hash


@pytest.mark.parametrize(
    "data",
    [
        changed("nodes", 1, "out_features", to=33),
        changed("nodes", 1, to={**TINY["nodes"][1], "bias": False}),
        changed("inputs", 0, "shape", to=["N", 2, 4, 4]),
        changed("nodes", 2, "op", to="relu6"),
        changed("outputs", to=["head", "fc1"]),
    ],
    ids=["width", "bias", "shape", "op", "outputs"],
)
def test_another_network_has_another_hash(data: dict[str, Any]) -> None:
    assert load(data).hash != load(TINY).hash


def test_equal_pairs_are_stored_short() -> None:
    def conv(kernel: Any, padding: Any) -> Graph:
        node = {
            "name": "c",
            "op": "conv2d",
            "inputs": ["x"],
            "out_channels": 2,
            "kernel_size": kernel,
            "padding": padding,
        }
        return load({**TINY, "nodes": [node], "outputs": ["c"]})

    assert conv([3, 3], [1, 1]).hash == conv(3, 1).hash
    assert to_data(conv([3, 3], [1, 1]))["nodes"][0]["kernel_size"] == 3
    assert conv([3, 1], 1).hash != conv(3, 1).hash


def test_history_and_name_are_no_part_of_the_identity() -> None:
    graph = Widen(node="fc1", by=2).rewrite(mlp()).graph
    assert graph.history is not None
    assert graph.replace(history=None, name="other").hash == graph.hash


def test_whole_numbers_and_floats_make_one_hash_where_a_real_is_meant() -> None:
    def slope(value: Any) -> str:
        node = {"name": "a", "op": "leaky_relu", "inputs": ["x"], "negative_slope": value}
        return load({**TINY, "nodes": [node], "outputs": ["a"]}).hash

    assert slope(1) == slope(1.0)
    assert slope(0.5) != slope(1.0)


@pytest.mark.parametrize("wrong", [32.0, "32", True, None, [32], 0, -1, 1e400, 2**31, 10**400])
def test_integers_are_strict(wrong: Any) -> None:
    with pytest.raises(GraphError, match=r"fc1.*out_features|out_features"):
        load(changed("nodes", 1, "out_features", to=wrong))


@pytest.mark.parametrize("wrong", [1, 0, "true", None])
def test_booleans_are_strict(wrong: Any) -> None:
    with pytest.raises(GraphError, match="bias"):
        load(changed("nodes", 1, to={**TINY["nodes"][1], "bias": wrong}))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_no_number_that_is_none(number: str) -> None:
    text = json.dumps(
        {**TINY, "nodes": [{"name": "a", "op": "elu", "inputs": ["x"], "alpha": 0.125}], "outputs": ["a"]}
    )
    assert load(text)["a"].op.attributes() == {"alpha": 0.125}
    with pytest.raises(GraphError):
        load(text.replace("0.125", number))


@pytest.mark.parametrize("key", ["inputs", "nodes", "outputs"])
@pytest.mark.parametrize("wrong", [5, True, "abc", {"a": 1}, None, [5], [None], [[]], [{}]])
def test_wrong_types_are_problems_not_crashes(key: str, wrong: Any) -> None:
    with pytest.raises(GraphError, match=key):
        load(changed(key, to=wrong))
    data = copy.deepcopy(TINY)
    del data[key]
    with pytest.raises(GraphError, match=f"{key}.*missing"):
        load(data)


@pytest.mark.parametrize("wrong", [5, "x", [], {"base": 3, "steps": []}, {"base": {}, "steps": []}, {"steps": []}])
def test_a_wrong_history_is_a_problem(wrong: Any) -> None:
    with pytest.raises(GraphError, match=r"history"):
        load({**TINY, "history": wrong})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "JSON"),
        ("{", "line 1"),
        ("[]", "an array"),
        ("3", "a number"),
        (b"\xff\xfe{}", "UTF-8"),
        ('{"schema": "growir/1", "schema": "growir/1"}', "twice"),
        ("[" * 100_000, "nested"),
        ('{"schema": ' + "9" * 5000 + "}", "JSON"),
        (json.dumps(TINY)[:-20], "line 1"),
    ],
    ids=["empty", "open", "array", "number", "bytes", "twice", "deep", "digits", "truncated"],
)
def test_text_that_is_no_document(text: str | bytes, says: str) -> None:
    with pytest.raises(GraphError, match=says):
        load(text)


@pytest.mark.parametrize("version", ["growir/2", "growir/10", "growir/" + "9" * 4000])
def test_a_newer_version_is_refused(version: str) -> None:
    with pytest.raises(GraphError, match="upgrade growir") as error:
        load({**TINY, "schema": version})
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    "version", [None, 1, "growir", "growir/0", "growir/x", "other/1", "growir/-1", "growir/\u00b2", ""]
)
def test_an_unknown_version_is_refused(version: Any) -> None:
    with pytest.raises(GraphError, match="schema"):
        load({**TINY, "schema": version})


def from_version_0(data: dict[str, Any]) -> dict[str, Any]:
    """A made-up older form: `layers` for nodes and `width` for a linear layer's out_features."""
    nodes = []
    for node in data.pop("layers"):
        if node["op"] == "linear":
            node["out_features"] = node.pop("width")
        nodes.append(node)
    return {**data, "schema": "growir/1", "nodes": nodes}


def older(graph: Graph) -> dict[str, Any]:
    data = to_data(graph)
    history = data.pop("history", None)
    layers = data.pop("nodes")
    for node in layers:
        if node["op"] == "linear":
            node["width"] = node.pop("out_features")
    found = {**data, "schema": "growir/0", "layers": layers}
    if history is not None:
        found["history"] = {"base": older(load(history["base"])), "steps": history["steps"]}
    return found


def test_an_older_version_is_brought_forward() -> None:
    migrations = {"growir/0": from_version_0}
    graph = Widen(node="fc1", by=2).rewrite(mlp()).graph
    found = load(older(graph), migrations=migrations)
    assert found.hash == graph.hash
    assert dumps(found) == dumps(graph)
    with pytest.raises(GraphError, match="growir/0"):
        load(older(graph))


def test_migrations_go_step_by_step_and_never_in_circles() -> None:
    def to(version: str) -> Any:
        return lambda data: {**data, "schema": version}

    chain = {"growir/a": to("growir/b"), "growir/b": to("growir/1")}
    assert migrate({"schema": "growir/a", "kept": 1}, chain) == {"schema": "growir/1", "kept": 1}
    with pytest.raises(GraphError, match="no version"):
        migrate({"schema": "growir/a"}, {"growir/a": to("growir/b"), "growir/b": to("growir/a")})


@pytest.mark.parametrize(
    "name",
    [
        "fс1",  # a Cyrillic с
        "fc１",  # a full-width digit
        "ﬁlter",  # a ligature that Python would normalise
        "a b",
        "a/b",
        "../a",
        "a\\b",
        "a.",
        ".a",
        "a..b",
        "1a",
        "",
        "a-b",
        "a\n",
        "a\u0000",
        "class",
        "x.class",
        "self",
        "torch",
        "forward",
        "training",
        "x.training",
        "__init__",
        "a" * 65,
        ".".join(["ab"] * 70),
        "x" * 10_000,
    ],
)
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(GraphError) as error:
        load(changed("nodes", 3, to={**TINY["nodes"][3], "name": name}))
    assert any("nodes[3]" in problem.where for problem in error.value.problems)
    assert len(str(error.value)) < 1500
    assert str(error.value).isprintable() or "\n" in str(error.value)


@pytest.mark.parametrize("name", ["a", "_", "A1", "a.0.b", "layer4.1.conv2", "a" * 64, "len", "Print", "match"])
def test_names_that_are_accepted(name: str) -> None:
    data = changed("nodes", 3, to={**TINY["nodes"][3], "name": name})
    assert name in load({**data, "outputs": [name]})


def test_all_problems_are_told_at_once() -> None:
    data = changed("nodes", 1, "out_features", to="32")
    data["nodes"][2]["op"] = "rellu"
    data["outputs"] = ["haed"]
    with pytest.raises(GraphError) as error:
        load(data)
    text = str(error.value)
    assert len(error.value.problems) == 3
    assert "nodes[1] 'fc1': out_features" in text
    assert "Did you mean 'relu'?" in text
    assert "Did you mean 'head'?" in text


def test_a_history_that_leads_elsewhere_is_refused() -> None:
    graph = Widen(node="fc1", by=2).rewrite(mlp()).graph
    data = to_data(graph)
    assert load_graph(data).hash == graph.hash
    data["history"]["steps"][0]["by"] = 3
    with pytest.raises(GraphError, match="drop-history"):
        load_graph(data)
    data["history"]["steps"][0]["node"] = "nobody"
    with pytest.raises(GraphError, match=r"history.steps\[0\] 'widen'.*nobody"):
        load_graph(data)


def test_a_history_with_other_names_is_refused() -> None:
    data = to_data(AddNode(source="x", target="head", width=2).rewrite(empty()).graph)
    data["history"]["steps"][0]["created"] = ["other"]
    with pytest.raises(GraphError, match="it created"):
        load_graph(data)


@pytest.mark.parametrize("change", [{"pass": "graft"}, {"version": 99}])
def test_steps_of_unknown_passes_load_unchecked_with_a_warning(change: dict[str, Any]) -> None:
    data = to_data(Widen(node="fc1", by=2).rewrite(mlp()).graph)
    data["history"]["steps"][0] |= change
    with pytest.warns(UserWarning, match="not checked"):
        graph = load_graph(data)
    assert graph.history is not None
    assert dumps(graph) == dumps(load(dumps(graph)))


def test_steps_keep_fields_that_are_not_known_here() -> None:
    data = to_data(Widen(node="fc1", by=2).rewrite(mlp()).graph)
    data["history"]["steps"][0] |= {"pass": "graft", "odd": {"deep": [1, 2.5, None]}}
    assert to_data(load(data))["history"] == data["history"]


def test_names_in_the_history_are_never_given_again() -> None:
    graph = AddEdge(source="x", target="head").rewrite(empty()).graph
    without = load({**to_data(empty()), "history": to_data(graph)["history"]})
    again = AddEdge(source="x", target="head").rewrite(without)
    assert not set(again.created) & set(graph.by_name)


@pytest.mark.parametrize("by", [10**7, 10**12, 10**30])
def test_an_absurd_step_is_refused_before_anything_is_allocated(by: int) -> None:
    data = to_data(Widen(node="fc1", by=2).rewrite(mlp()).graph)
    data["history"]["steps"][0]["by"] = by
    with pytest.raises(GraphError, match="history"):
        load_graph(data)


def test_examples_name_every_operator() -> None:
    assert {name.rpartition("-")[0] for name in example_graphs()} >= {op.kind() for op in OPS}
    assert all(isinstance(node.op, Op) for graph in example_graphs().values() for node in graph.nodes)


def conv(**attributes: Any) -> dict[str, Any]:
    return changed("nodes", 0, to={"name": "flat", "op": "conv2d", "inputs": ["x"], **attributes})


@pytest.mark.parametrize("wrong", [[3, 3.0], [3.0, 3], [1, True], [True, True], [2, 2, 2]])
def test_integers_are_strict_in_pairs(wrong: Any) -> None:
    with pytest.raises(GraphError, match="kernel_size is"):
        load(conv(out_channels=2, kernel_size=wrong))
    with pytest.raises(GraphError, match="stride is"):
        load(conv(out_channels=2, kernel_size=1, stride=wrong))


@pytest.mark.parametrize(
    ("op", "attribute", "wrong"),
    [
        ("elu", "alpha", 1e300),
        ("leaky_relu", "negative_slope", -1e39),
        ("softplus", "beta", 1e-40),
        ("layer_norm", "eps", 1e-320),
        ("flatten", "start_dim", -(10**400)),
        ("slice", "start", 2**31),
    ],
)
def test_numbers_that_no_framework_holds_are_problems(op: str, attribute: str, wrong: float) -> None:
    node = {"name": "flat", "op": op, "inputs": ["x"], attribute: wrong}
    with pytest.raises(GraphError, match=f"{attribute} is .*: input should be"):
        load(changed("nodes", 0, to=node))


def test_an_integer_that_python_does_not_spell_out_is_a_problem() -> None:
    with pytest.raises(GraphError, match="out_features is such a number: input should be less than"):
        load(changed("nodes", 1, "out_features", to=10**5000))


def test_a_value_that_is_too_large_is_one_problem() -> None:
    wide = {"name": "flat", "op": "linear", "inputs": ["x"], "out_features": 2**31 - 1}
    data = {**changed("inputs", 0, "shape", to=["N", 2, 4, 4]), "nodes": [wide, *TINY["nodes"][1:]]}
    with pytest.raises(GraphError) as caught:
        load(data)
    text = "its value (N, 2, 4, 2147483647) holds 1.72e+10 numbers per sample; at most 1e+10 may be"
    assert str(caught.value) == f"nodes[0] 'flat': {text}"


def test_an_input_of_endless_size_is_a_problem() -> None:
    with pytest.raises(
        GraphError, match=r"inputs\[0\] 'x': its value .* holds over 1e\+100 numbers per sample"
    ) as caught:
        load(changed("inputs", 0, "shape", to=["N", *[2**31 - 1] * 63]))
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    "make", [lambda n: Widen(node="fc1", by=n), lambda n: AddNode(source="x", target="fc1", width=n)]
)
@pytest.mark.parametrize("size", [2**31, 10**400])
def test_passes_take_no_absurd_sizes(make: Callable[[int], Pass], size: int) -> None:
    with pytest.raises(PassRefused, match="less than or equal to 2147483647"):
        make(size)


@pytest.mark.parametrize("name", ["\ud800", "a\x00b", "\x1b[31m", "line\n", "\x85"])
def test_a_graph_name_that_files_cannot_hold_is_a_problem(name: str) -> None:
    with pytest.raises(GraphError, match=r"^name: the character '\\.*' cannot be written") as caught:
        load(json.dumps(changed("name", to=name)))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["edge_\u00b2", "", "a..b", "class"])
def test_created_names_are_names(name: str) -> None:
    data = to_data(AddEdge(source="x", target="head").rewrite(empty()).graph)
    data["history"]["steps"][0]["created"] = [name]
    with pytest.raises(GraphError, match=r"history.steps\[0\].created\[0\]: it is .*: .*(name|word)"):
        load(data)


def test_tied_tensors_are_of_one_kind() -> None:
    def norms(tied: dict[str, str]) -> dict[str, Any]:
        nodes: list[dict[str, Any]] = [
            {"name": "one", "op": "batch_norm", "inputs": ["x"]},
            {"name": "two", "op": "batch_norm", "inputs": ["one"], "tied": tied},
        ]
        return {**TINY, "nodes": nodes, "outputs": ["two"]}

    load(norms({"weight": "one.weight", "running_var": "one.running_var"}))
    says = "a trained parameter of float there and a buffer of float here"
    with pytest.raises(GraphError, match=f"tied running_var and 'one.weight' must be of one kind, but it is {says}"):
        load(norms({"running_var": "one.weight"}))
    with pytest.raises(GraphError, match="a buffer of float there and a trained parameter of float here"):
        load(norms({"weight": "one.running_mean"}))


def test_a_copy_works_out_its_own_answers() -> None:
    graph = mlp()
    before = graph.hash
    shorter = graph.model_copy(update={"nodes": graph.nodes[:1], "outputs": (graph.nodes[0].name,)})
    assert shorter.hash != before
    assert list(shorter.by_name) == [graph.nodes[0].name]
    deep = graph.model_copy(update={"outputs": (graph.nodes[0].name,)}, deep=True)
    assert deep.hash != before
    assert graph.hash == before


def test_a_graph_in_use_can_be_pickled_and_copied() -> None:
    graph = load_graph(to_data(Widen(node="fc1", by=2).rewrite(mlp()).graph))
    analyse(graph)
    for copied in (pickle.loads(pickle.dumps(graph)), copy.deepcopy(graph), copy.copy(graph)):
        assert dumps(copied) == dumps(graph)


def test_a_node_cannot_be_tied_otherwise_afterwards() -> None:
    made = Node(name="fc", op=Linear(out_features=2), inputs=("x",), tied={"weight": "emb.weight"})
    read = load(dumps(graph_of((4,), Node(name="head", op=Linear(out_features=2), inputs=("x",)))))["head"]
    for node in (made, read, pickle.loads(pickle.dumps(made)), made.model_copy(deep=True)):
        with pytest.raises(TypeError):
            node.tied["weight"] = "other.weight"  # type: ignore[index]
    assert made.model_dump()["tied"] == {"weight": "emb.weight"}


def test_a_change_of_attributes_alone_keeps_the_references_checked() -> None:
    graph = mlp()
    with pytest.raises(GraphError, match="does not exist"):
        graph.replace(nodes=[node.with_inputs(["nobody"]) for node in graph.nodes])
    with pytest.raises(GraphError, match="there is no node"):
        graph.replace(outputs=["nobody"])


def test_steps_say_every_choice_and_their_version() -> None:
    graph = Widen(node="fc1", by=2, copies=(0, 0)).rewrite(mlp()).graph
    (step,) = to_data(graph)["history"]["steps"]
    shares = step.pop("shares")
    assert step == {"pass": "widen", "version": 2, "node": "fc1", "by": 2, "copies": [0, 0], "seed": 0, "created": []}
    assert shares == pytest.approx([1 / 6, 2 / 6])


def test_a_uniform_space_records_its_copies_and_shares() -> None:
    norm = Node(name="norm", op=LayerNorm(), inputs=("fc",))
    head = Node(name="head", op=Linear(out_features=3), inputs=("norm",))
    graph = graph_of((4,), Node(name="fc", op=Linear(out_features=2), inputs=("x",)), norm, head)
    grown = Widen(node="fc", by=4).rewrite(graph).graph
    (step,) = to_data(grown)["history"]["steps"]
    assert step["copies"] == [0, 1, 0, 1]
    assert step["shares"] == pytest.approx([1 / 3] * 4)
    assert step["apart"] == 1.0
    assert load_graph(to_data(grown)) == grown


def test_steps_recorded_in_the_short_form_replay() -> None:
    data = to_data(Widen(node="fc1", by=2, copies=(0, 1)).rewrite(mlp()).graph)
    short = {"pass": "widen", "node": "fc1", "by": 2, "copies": [0, 1], "created": []}
    data["history"]["steps"] = [short]
    graph = load_graph(data)
    assert graph.history is not None
    assert graph.history.steps[0].fields == {"node": "fc1", "by": 2, "copies": [0, 1]}


def test_a_history_too_long_to_run_loads_unchecked_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    data = to_data(Widen(node="fc1", by=2).rewrite(mlp()).graph)
    monkeypatch.setattr(replay, "MAX_CHECKED", 2)
    with pytest.warns(UserWarning, match=r"not checked: to run 1 step again on \d nodes"):
        load_graph(data)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"node": "a", "by": 0}, "by is 0"),
        ({"node": "a"}, "it needs by"),
        ({"node": "a", "by": 1, "width": 2}, "unknown attribute 'width'; it takes .*node, by"),
        ({"node": "a", "by": 1, "self": 2}, "unknown attribute 'self'"),
        ({"node": "a", "by": 1, "values": [1.0]}, "values"),
        ({"node": "a", "by": 1, "values": {"a.bias": np.array([object()])}}, "object"),
        ({"node": "a", "by": 1, "values": {"a.bias": np.array(["one"])}}, "a.bias is of <U3"),
        ({"node": "a", "by": 1, "values": {"a.bias": np.array([1j])}}, "a.bias is of complex128"),
        ({"node": "a", "by": 1, "values": {"a.bias": np.array([np.nan])}}, "NaN or infinite"),
    ],
)
def test_wrong_arguments_are_refused_alike_in_python_and_json(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(PassRefused, match=message) as error:
        Widen(**fields)
    values = fields.pop("values", None)
    if not isinstance(values, list):
        with pytest.raises(PassRefused) as told:
            pass_from_data({"pass": "widen", **fields}, values)
        assert str(told.value) == str(error.value)


@pytest.mark.parametrize(("given", "stored"), [(np.int32, np.float64), (bool, np.float64), (np.float16, np.float16)])
def test_values_are_stored_as_floats(given: Any, stored: Any) -> None:
    step = Widen(node="a", by=1, values={"a.bias": np.ones(1, given)})
    assert step.values["a.bias"].dtype == stored
