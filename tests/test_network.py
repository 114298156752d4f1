"""Networks on disk and in memory: saved whole or not at all, loaded only where everything fits."""

from __future__ import annotations

import copy
import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch

import growir
from growir import live, store
from growir.document import dumps
from growir.edits import Edit, Remap
from growir.errors import ExportError, GraphError, ModelError, PassRefused
from growir.graph import Graph, Node
from growir.network import Network, load_graph, open_path
from growir.ops import Linear, Relu
from growir.passes import AddEdge, AddNode, EliminateDead, Prune, Sequence, Widen, needed_pass
from growir.rewrite import Change
from growir.testing import outputs, random_batch, random_network
from growir.verify import load
from tests.samples import empty, graph_of, mlp, residual_convnet


def saved(tmp_path: Path) -> tuple[Path, Network]:
    network = Network.init(mlp(), seed=1)
    network.save(tmp_path / "net")
    return tmp_path / "net", network


def equal(a: Network, b: Network) -> bool:
    same = a.arrays.keys() == b.arrays.keys() and all(np.array_equal(a.arrays[k], b.arrays[k]) for k in a.arrays)
    return same and dumps(a.graph) == dumps(b.graph)


def test_save_and_load(tmp_path: Path) -> None:
    path, network = saved(tmp_path)
    assert equal(Network.load(path), network)
    assert load_graph(path).hash == network.graph.hash
    assert isinstance(open_path(path), Network)
    assert sorted(p.name for p in path.iterdir()) == ["graph.json", "params.safetensors"]
    assert [p.name for p in tmp_path.iterdir()] == ["net"]


def test_scalars_and_integers_survive(tmp_path: Path) -> None:
    network = random_network(residual_convnet())
    network.save(tmp_path / "net")
    key = "block.norm.num_batches_tracked"
    loaded = Network.load(tmp_path / "net")
    assert loaded.arrays[key].shape == ()
    assert loaded.arrays[key].dtype == np.int64
    assert equal(loaded, network)


def test_saving_again_replaces_a_network(tmp_path: Path) -> None:
    path, network = saved(tmp_path)
    grown = network.apply(Widen(node="fc1", by=1))
    grown.save(path)
    assert equal(Network.load(path), grown)
    assert [p.name for p in tmp_path.iterdir()] == ["net"]


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_nothing_else_is_overwritten(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "net"
    if kind == "folder":
        path.mkdir()
        (path / "thesis.tex").write_text("precious")
    else:
        path.write_text("precious")
    with pytest.raises(ExportError, match="not overwritten"):
        Network.init(mlp()).save(path)
    assert (path / "thesis.tex" if kind == "folder" else path).read_text() == "precious"
    assert [p.name for p in tmp_path.iterdir()] == ["net"]


def test_links_and_the_current_folder_are_saved_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, network = saved(tmp_path)
    (tmp_path / "link").symlink_to(path)
    grown = network.apply(Widen(node="fc1", by=1))
    grown.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert equal(Network.load(path), grown)
    monkeypatch.chdir(path)
    network.save(".")
    assert equal(Network.load(path), network)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "net"]


def test_tensors_of_a_dtype_that_numpy_lacks_are_refused(tmp_path: Path) -> None:
    path, _ = saved(tmp_path)
    save_torch({"fc1.weight": torch.zeros(2, dtype=torch.float8_e4m3fn)}, path / "params.safetensors")
    with pytest.raises(GraphError, match=r"fc1.weight is of F8_E4M3, which numpy has not; save it as float32"):
        Network.load(path)


def test_a_run_killed_between_the_moves_of_a_checkpoint_is_found(tmp_path: Path) -> None:
    path, network = saved(tmp_path)
    (tmp_path / "run" / ".checkpoint.old").mkdir(parents=True)
    path.rename(tmp_path / "run" / ".checkpoint.old" / "network")
    assert equal(Network.load(tmp_path / "run"), network)


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    Network.init(mlp()).save(tmp_path / "net")
    Network.load(tmp_path / "net")


class Crash(BaseException):
    """The process dies here."""


CRASHES = ["write_text", "write_bytes", "rename-1", "rename-2", "rmtree"]


@pytest.mark.parametrize("where", CRASHES)
def test_a_crash_leaves_the_old_network_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    path, old = saved(tmp_path)
    new = old.apply(Widen(node="fc1", by=1))
    with monkeypatch.context() as patch:
        # Dead means dead: no clean-up runs either.
        patch.setattr(store, "recover", lambda path: None)
        if where == "rmtree":
            patch.setattr(shutil, "rmtree", _dies_when(lambda p, **_: str(p).endswith(".old") and Path(p).exists()))
        elif where.startswith("rename"):
            patch.setattr(shutil, "rmtree", lambda *_, **__: None)
            patch.setattr(Path, "rename", _dies_at(int(where[-1]), Path.rename))
        else:
            patch.setattr(shutil, "rmtree", lambda *_, **__: None)
            patch.setattr(Path, where, _dies_at(1, getattr(Path, where)))
        with pytest.raises(Crash):
            new.save(path)
    found = Network.load(path)
    assert equal(found, new if where == "rmtree" else old)
    new.save(path)
    assert equal(Network.load(path), new)


def _dies_at(call: int, real: Callable[..., Any]) -> Callable[..., Any]:
    left = [call]

    def stub(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise Crash
        return real(*args, **kwargs)

    return stub


def _dies_when(condition: Callable[..., bool]) -> Callable[..., None]:
    real = shutil.rmtree

    def stub(path: Path, **kwargs: Any) -> None:
        if condition(path):
            raise Crash
        real(path, **kwargs)

    return stub


def test_a_full_disk_leaves_the_old_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, old = saved(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(ExportError, match="No space left"):
            old.apply(Widen(node="fc1", by=1)).save(path)
    assert equal(Network.load(path), old)
    assert [p.name for p in tmp_path.iterdir()] == ["net"]


def test_weights_of_another_graph_are_refused(tmp_path: Path) -> None:
    path, network = saved(tmp_path)
    network.apply(Widen(node="fc1", by=1)).save(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "params.safetensors", path / "params.safetensors")
    with pytest.raises(GraphError, match="belong to the graph"):
        Network.load(path)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("truncated", "not a readable safetensors"),
        ("empty", "not a readable safetensors"),
        ("missing-tensor", r"head.bias: the tensor is missing; \[2\] is needed"),
        ("extra-tensor", "the graph has no such tensor"),
        ("shape", r"head.bias: the tensor has shape \[3\], but the graph needs \[2\]"),
        ("nan", "1 of its 2 numbers are NaN"),
        ("integers", "the tensor is of int64"),
        ("gone", "no network here"),
    ],
)
def test_tampered_weights_are_refused(tmp_path: Path, damage: str, says: str) -> None:
    path, _ = saved(tmp_path)
    file = path / "params.safetensors"
    arrays = load_file(file)
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-7])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "gone":
        file.unlink()
    else:
        if damage == "missing-tensor":
            del arrays["head.bias"]
        elif damage == "extra-tensor":
            arrays["more.bias"] = np.zeros(2, np.float32)
        elif damage == "shape":
            arrays["head.bias"] = np.zeros(3, np.float32)
        elif damage == "nan":
            arrays["head.bias"] = np.array([np.nan, 0], np.float32)
        else:
            arrays["head.bias"] = np.zeros(2, np.int64)
        save_file(arrays, file)
    with pytest.raises(GraphError, match=says):
        Network.load(path)


def test_a_document_changed_by_hand_no_longer_fits_its_weights(tmp_path: Path) -> None:
    path, _ = saved(tmp_path)
    document = path / "graph.json"
    document.write_text(document.read_text().replace('"relu"', '"tanh"'))
    with pytest.raises(GraphError, match="belong to the graph"):
        Network.load(path)


def test_given_values_are_kept_and_replayed(tmp_path: Path) -> None:
    network = random_network(empty())
    rng = np.random.default_rng(0)
    values = {"node_1.linear.weight": rng.normal(size=(2, 3)), "edge_1.weight": rng.normal(size=(2, 2))}
    grown = network.apply(AddNode(source="x", target="head", width=2, values=values))
    assert np.array_equal(grown.arrays["edge_1.weight"], values["edge_1.weight"])
    grown.save(tmp_path / "net")
    loaded = Network.load(tmp_path / "net")
    assert equal(loaded.replayed(network.arrays), grown)

    history = tmp_path / "net" / "history.safetensors"
    arrays = load_file(history)
    save_file({key: array + 1 for key, array in arrays.items()}, history)
    with pytest.raises(GraphError, match="other numbers than recorded"):
        Network.load(tmp_path / "net")
    history.unlink()
    packed = {**grown.to_dict(), "history": {}}
    for bare in (Network.load(tmp_path / "net"), Network.from_dict(packed)):
        assert equal(bare, grown)
        text = (
            r"^history\.steps\[0\] 'add_node': the values that it recorded for edge_1\.weight, node_1\.linear\.weight "
            r"are not here; put back the history\.safetensors they were saved in, or give live\.network_of the reports'"
        )
        with pytest.raises(GraphError, match=text):
            bare.replayed(network.arrays)


def test_init_is_a_function_of_graph_and_seed() -> None:
    assert equal(Network.init(mlp(), seed=3), Network.init(mlp(), seed=3))
    one, two = (Network.init(mlp(), seed=seed).arrays["fc1.weight"] for seed in (3, 4))
    assert not np.array_equal(one, two)
    wide = Network.init(Widen(node="fc1", by=4).rewrite(mlp()).graph, seed=3)
    assert np.abs(wide.arrays["fc1.weight"]).max() <= 1 / np.sqrt(3)


def test_fresh_numbers_depend_on_seed_step_and_key_alone() -> None:
    network = random_network(mlp())
    once = network.apply(Widen(node="fc1", by=2, seed=5))
    again = network.apply(Widen(node="fc1", by=2, seed=5))
    other = network.apply(Widen(node="fc1", by=2, seed=6))
    assert equal(once, again)
    assert not np.array_equal(once.arrays["fc1.weight"], other.arrays["fc1.weight"])
    rows = once.apply(Widen(node="fc1", by=2, seed=5)).arrays["fc1.weight"]
    assert not np.array_equal(rows[4:6], rows[6:8]), "two steps drew the same numbers"


def test_arrays_are_nobody_elses() -> None:
    mine = {key: array.copy() for key, array in Network.init(mlp()).arrays.items()}
    view = mine["fc1.bias"].view()
    view.flags.writeable = False
    network = Network(mlp(), {**mine, "fc1.bias": view})
    before = network.arrays["fc1.bias"].copy()
    mine["fc1.bias"][:] = 9
    assert np.array_equal(network.arrays["fc1.bias"], before)
    with pytest.raises(ValueError, match="read-only"):
        network.arrays["fc1.bias"][0] = 1
    module = network.to_torch()
    with torch.no_grad():
        module.get_parameter("fc1.bias").fill_(3)
    assert np.array_equal(network.arrays["fc1.bias"], before)
    assert (network.updated(module).arrays["fc1.bias"] == 3).all()


def test_weights_of_another_module_are_refused() -> None:
    network = Network.init(mlp())
    wider = network.apply(Widen(node="fc1", by=1))
    with pytest.raises(ModelError, match=r"fc1.weight: the module's tensor is \[5, 3\], the graph's \[4, 3\]"):
        network.updated(wider.to_torch())
    with pytest.raises(ModelError, match="has no tensor"):
        network.updated(torch.nn.Linear(3, 2))


def test_updated_sees_through_wrappers() -> None:
    network = Network.init(mlp())
    module = network.to_torch()
    compiled = torch.compile(module, backend="eager")
    assert isinstance(compiled, torch.nn.Module)
    assert equal(network.updated(compiled), network)
    assert equal(network.updated(torch.nn.DataParallel(module)), network)


def test_verify_measures() -> None:
    network = Network.init(mlp())
    grown = network.apply(Widen(node="fc1", by=3), verify=True)
    assert grown.graph["fc1"].op.attributes()["out_features"] == 7

    class Broken(Widen):
        """Forgets the shares."""

        name: ClassVar[str] = "broken"

        def change(self, graph: Graph, step: int) -> Change:
            change = super().change(graph, step)
            return replace(change, edits=[_without_scale(edit) for edit in change.edits])

    network.apply(Widen(node="fc1", by=4, copies=(0, 1, 2, 3)), verify=True)
    with pytest.raises(PassRefused, match=r"output 'head' changed by"):
        network.apply(Broken(node="fc1", by=4, copies=(0, 1, 2, 3)), verify=True)


def _without_scale(edit: Edit) -> Edit:
    assert isinstance(edit, Remap)
    return replace(edit, axes=tuple(replace(part, scale=None) for part in edit.axes))


def test_a_tied_tensor_is_stored_once(tmp_path: Path) -> None:
    graph = graph_of(
        (3,),
        Node(name="one", op=Linear(out_features=3), inputs=("x",)),
        Node(name="head", op=Linear(out_features=3), inputs=("one",), tied={"weight": "one.weight"}),
    )
    network = random_network(graph)
    assert set(network.arrays) == {"one.weight", "one.bias", "head.bias"}
    network.save(tmp_path / "net")
    assert set(load_file(tmp_path / "net" / "params.safetensors")) == set(network.arrays)
    module = network.to_torch()
    assert module.get_parameter("one.weight") is module.get_parameter("head.weight")
    assert set(module.state_dict()) == {"one.weight", "one.bias", "head.weight", "head.bias"}
    batch = random_batch(graph)
    x = batch[0].numpy()
    w = network.arrays["one.weight"]
    wanted = (x @ w.T + network.arrays["one.bias"]) @ w.T + network.arrays["head.bias"]
    assert np.allclose(outputs(network, batch)[0], wanted, rtol=1e-12)


def test_what_lies_beside_a_network_is_never_lost(tmp_path: Path) -> None:
    path, network = saved(tmp_path)
    (path / "thesis.txt").write_text("precious")
    with pytest.raises(ExportError, match=r"not overwritten, for 'thesis.txt' in it is no part of a network"):
        network.save(path)
    assert (path / "thesis.txt").read_text() == "precious"
    (path / "thesis.txt").unlink()
    (path / "history.safetensors").mkdir()
    with pytest.raises(ExportError, match=r"'history.safetensors' in it is no part"):
        network.save(path)
    (path / "history.safetensors").rmdir()
    (path / ".graph.json.new-123").touch()
    network.save(path)
    assert sorted(p.name for p in path.iterdir()) == ["graph.json", "params.safetensors"]


@pytest.mark.parametrize("document", ["{}", '{"schema": "other/1"}', "[]", '{"schema": "growir/1", "name'])
def test_a_folder_of_another_tool_is_not_overwritten(tmp_path: Path, document: str) -> None:
    path, network = saved(tmp_path)
    (path / "graph.json").write_text(document)
    with pytest.raises(ExportError, match=r"its graph.json is damaged or another tool's, so the folder is not overwri"):
        network.save(path)
    assert (path / "graph.json").read_text() == document


def test_a_module_of_another_graph_is_refused_though_its_tensors_fit() -> None:
    network = Network.init(mlp())
    graph = load(dumps(network.graph).replace('"relu"', '"tanh"'))
    other = Network(graph, network.arrays)
    for module in (other.to_torch(), torch.compile(other.to_torch(), backend="eager")):
        assert isinstance(module, torch.nn.Module)
        with pytest.raises(ModelError, match=rf"with hash {graph.hash[:12]}, this network's is 'sample' with"):
            network.updated(module)
    renamed = Network(network.graph.replace(name="renamed"), network.arrays)
    assert equal(network.updated(renamed.to_torch()), network)


def test_a_node_may_be_called_module() -> None:
    graph = graph_of(
        (3,),
        Node(name="module", op=Linear(out_features=3), inputs=("x",)),
        Node(name="head", op=Relu(), inputs=("module",)),
    )
    network = Network.init(graph)
    assert equal(network.updated(network.to_torch()), network)


def test_onnx_files_are_known_by_their_suffix_in_any_case(tmp_path: Path) -> None:
    network = Network.init(mlp())
    network.to_onnx(tmp_path / "net.ONNX")
    assert load_graph(tmp_path / "net.ONNX") == network.graph


@pytest.mark.parametrize("read", [load_graph, open_path, Network.load])
def test_what_is_no_path_is_refused(read: Callable[[Any], object]) -> None:
    with pytest.raises(GraphError, match="a path or a decoded document is needed, but this is of type int"):
        read(3)


@pytest.mark.parametrize("dtype", ["float8_e5m2", "int32", torch.float32, "nonsense", object])
def test_dtypes_that_no_network_has_are_refused(dtype: Any) -> None:
    with pytest.raises(GraphError, match=r"dtype is one of float16, bfloat16, float32, float64, but .* is given"):
        Network.init(mlp(), dtype=dtype)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_networks_are_copied_and_pickled(again: Callable[[Network], Network]) -> None:
    grown = random_network(mlp()).apply(Widen(node="fc1", by=1))
    other = again(grown)
    assert equal(other, grown)
    assert other.values.keys() == grown.values.keys()
    assert isinstance(other.arrays, MappingProxyType)
    with pytest.raises(ValueError, match="read-only"):
        other.arrays["fc1.bias"][0] = 1


def test_measure_says_how_far_a_prune_goes() -> None:
    graph = mlp()
    network = Network.init(graph, seed=0)
    step = Prune(node="fc1", channels=(1,))
    assert network.measure(step)["head"] > 1e-3
    dead = {key: array.copy() for key, array in network.arrays.items()}
    dead["fc1.weight"][1], dead["fc1.bias"][1] = 0, 0
    still = network.with_arrays(dead)
    assert still.measure(step)["head"] < 1e-12
    assert still.apply(step, verify=1e-9).graph.hash == network.apply(step, verify=True).graph.hash
    with pytest.raises(PassRefused, match=r"changed by .* although at most 1e-09 is allowed; nothing was applied"):
        network.apply(step, verify=1e-9)


def test_one_dtype_of_floats(tmp_path: Path) -> None:
    path, network = saved(tmp_path)
    mixed = dict(network.arrays)
    mixed["fc1.bias"] = mixed["fc1.bias"].astype(np.float16)
    mixed["head.bias"] = mixed["head.bias"].astype(np.float64)
    packed = network.to_dict()
    packed["tensors"] = {key: torch.from_numpy(array.copy()) for key, array in mixed.items()}
    save_file(mixed, path / "params.safetensors")
    ways: list[Callable[[], object]] = [
        lambda: Network(network.graph, mixed),
        lambda: Network.from_dict(packed),
        lambda: Network.load(path),
        lambda: open_path(path),
        lambda: network.with_arrays(mixed),
    ]
    for way in ways:
        with pytest.raises(GraphError) as caught:
            way()
        text = "but most of the network's are of float32; all float tensors of a network have one dtype, so cast it"
        assert [problem.where.removeprefix("tensors: ") for problem in caught.value.problems] == [
            "fc1.bias",
            "head.bias",
        ]
        assert [problem.text for problem in caught.value.problems] == [
            f"the tensor is of float16, {text}",
            f"the tensor is of float64, {text}",
        ]
    batch_norm = random_network(residual_convnet())
    assert {array.dtype.name for array in batch_norm.arrays.values()} == {"float64", "int64"}  # integers are apart


def test_tensors_that_are_no_arrays() -> None:
    network = Network.init(mlp())
    strange: Any = {**network.arrays, "fc1.bias": torch.zeros(4)}
    with pytest.raises(GraphError, match=r"^fc1\.bias: a numpy array is needed, but this is of type Tensor$"):
        Network(network.graph, strange)
    another: Any = Network.init(mlp(), seed=1)
    grown = network.apply(Widen(node="fc1", by=1))
    text = r"^arrays by key are needed, as Network\.arrays has them, but this is of type Network; give its \.arrays$"
    for way in (grown.replayed, network.with_arrays, lambda given: Network(network.graph, given)):
        with pytest.raises(GraphError, match=text):
            way(another)
    with pytest.raises(GraphError, match=r"^arrays by key are needed, .*, but this is of type int$"):
        grown.replayed(3)  # type: ignore[arg-type]


NO_PASSES: dict[str, tuple[Any, str]] = {
    "name": ("widen", r"but this is 'widen'; several passes go into one Sequence\(passes=\.\.\.\)$"),
    "JSON": ({"pass": "widen"}, r"but this is \{'pass': 'widen'\}; growir\.passes\.pass_from_data makes a pass of its"),
    "list": ([Widen(node="fc1", by=1)], r"but this is \[Widen\(.*Sequence\(passes=\.\.\.\)$"),
    "class": (Widen, r"but this is <class '.*'>; make one of the class: Widen\(\.\.\.\)$"),
    "nothing": (None, "but this is None"),
}


@pytest.mark.parametrize("case", NO_PASSES)
def test_what_is_no_pass_is_refused(case: str) -> None:
    given, says = NO_PASSES[case]
    network = Network.init(mlp())
    for way in (network.apply, network.measure):
        with pytest.raises(PassRefused, match=r"^a pass such as Widen\(node=\.\.\., by=\.\.\.\) is needed, " + says):
            way(given)
    with pytest.raises(PassRefused, match=r"by=\.\.\.\) or its rewrite is needed, " + says):
        live.grow(network.to_torch(), given)


def test_a_rewrite_is_no_pass() -> None:
    network = Network.init(mlp())
    done: Any = Widen(node="fc1", by=1).rewrite(network.graph)
    with pytest.raises(PassRefused, match=r"but this is a rewrite; give the pass that made it$"):
        network.apply(done)


def test_no_pass_has_the_name_of_another() -> None:
    class Mine(Prune):
        """Prunes, but says that it widens."""

        name: ClassVar[str] = "widen"

    mine, network = Mine(node="fc1", channels=(0,)), Network.init(mlp())
    text = (
        r"^two passes are called 'widen': growir\.passes\.widen\.Widen and "
        r"tests\.test_network\.test_no_pass_has_the_name_of_another\.<locals>\.Mine; give the second another name$"
    )
    for way in (
        network.apply,
        network.measure,
        lambda step: live.grow(network.to_torch(), step),
        lambda step: Sequence(passes=(step,)),
    ):
        with pytest.raises(PassRefused, match=text):
            way(mine)

    class Anew(Widen):
        """The same class defined once more, as a notebook does."""

    Anew.__module__, Anew.__qualname__ = Widen.__module__, Widen.__qualname__
    step = Anew(node="fc1", by=1)
    assert needed_pass(step) is step


def test_a_pass_without_a_name() -> None:
    class Nameless(growir.Pass):
        """It fits everywhere and does nothing."""

        @classmethod
        def candidates(cls, graph: Graph) -> Iterator[Self]:
            yield cls()

        def check(self, graph: Graph) -> None:
            """It fits."""

        def preserves(self, graph: Graph) -> growir.Preserves:
            return growir.Preserves.EXACT

        def change(self, graph: Graph, step: int) -> Change:
            return Change(graph.nodes, graph.outputs, ())

    with pytest.raises(PassRefused, match=r"the pass .*Nameless has no name; say in the class what histories call it"):
        Network.init(mlp()).apply(Nameless())


def test_a_network_serves_where_its_graph_does() -> None:
    network = Network.init(mlp())
    graph = network.graph
    assert growir.summary(network) == growir.summary(graph)
    assert growir.costs_of(network) == growir.costs_of(graph)
    assert [str(space) for space in growir.channel_spaces(network)] == [
        str(space) for space in growir.channel_spaces(graph)
    ]
    assert growir.diff(network, graph).same


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("a.json", r"this is 'a\.json'; growir\.load_graph or growir\.Network\.load reads it from there$"),
        (Path("a.json"), r"this is 'a\.json'; growir\.load_graph or growir\.Network\.load reads it from there$"),
        ({"schema": "growir/1"}, r"this is a dict; growir\.load_graph reads a decoded document$"),
        (torch.nn.Linear(1, 1), r"this is of type Linear; growir\.from_torch makes a network of a torch model, growir"),
        (torch.fx.symbolic_trace(torch.nn.Linear(1, 1)), r"this is of type Linear; growir\.from_torch makes"),
        (None, "this is of type NoneType; "),
    ],
)
def test_what_is_neither_graph_nor_network(given: Any, says: str) -> None:
    graph = mlp()
    ways: list[Callable[[Any], object]] = [
        growir.summary,
        growir.costs_of,
        growir.channel_spaces,
        Network.init,
        Widen(node="fc1", by=1).rewrite,
        lambda thing: growir.diff(thing, graph),
        lambda thing: growir.diff(graph, thing),
        lambda thing: Network(thing, {}),
    ]
    for way in ways:
        with pytest.raises(GraphError, match="^a graph or a network is needed, but " + says):
            way(given)


def test_a_replay_is_in_the_dtype_of_the_weights_although_none_are_left() -> None:
    """The layer that said it is dead and gone; the edge that came before is replayed beside float64 weights."""
    graph = graph_of(
        (3,),
        Node(name="dead", op=Linear(out_features=3), inputs=("x",)),
        Node(name="head", op=Relu(), inputs=("x",)),
    )
    first = Network.init(graph, dtype=np.float64)
    grown = first.apply(AddEdge(source="head", target="dead"))
    bare = grown.apply(EliminateDead())
    assert bare.arrays == {}
    assert bare.replayed(first.arrays).graph.hash == bare.graph.hash
