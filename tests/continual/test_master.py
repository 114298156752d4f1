"""The master: what a task sees of it, that nothing learned moves while it grows, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from growir.continual import Master, mask_shapes
from growir.continual.masks import Mask, packed, unpacked
from growir.errors import ExportError, GraphError, PassRefused
from growir.families import network
from growir.graph import Graph, Input, Node
from growir.network import Network
from growir.ops import Conv2d, Linear
from growir.params import param_table
from growir.passes import Prune, Sequence, Split, Widen
from growir.reach import live_nodes
from growir.testing import candidates, graphs

NET = network("Basic3ResNet-1-1-1", (1, 8, 8), 3, width=4)
X = np.random.default_rng(0).normal(size=(5, 1, 8, 8)).astype(np.float32)


def started(graph: Graph = NET) -> Master:
    first = Network.init(graph, 0)
    return Master(first.graph, first.arrays)


def drawn(master: Master, output: str, seed: int, share: float = 0.6) -> dict[str, Any]:
    """What a task could have learned: masks by chance, some of whole channels, and all else as its own."""
    rng = np.random.default_rng(seed)
    live = live_nodes(master.graph.replace(outputs=(output,), history=None))
    keys = [key for key in param_table(master.graph) if key.rpartition(".")[0] in live]
    shapes = mask_shapes(master.graph)
    masks = {key: rng.random(shapes[key]) < share for key in keys if key in shapes and key.rpartition(".")[0] != output}
    for mask in masks.values():
        mask[:, rng.random(mask.shape[1]) < 0.3] = False
    return {"masks": masks, "own": {key: np.asarray(master.arrays[key] + 1) for key in keys if key not in masks}}


def learned(master: Master, name: str, output: str = "head", seed: int = 0) -> Master:
    return master.learned(name, output, classes=[0, 1, 2], **drawn(master, output, seed))


def logits(master: Master, task: str) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = master.task(task).to_torch().eval()(torch.from_numpy(X))
    return found


def moved(master: Master, key: str, used: bool) -> dict[str, Any]:
    """A shared weight with another number, where some task uses it or where none does."""
    array = master.arrays[key].copy()
    at = np.argwhere(np.broadcast_to(master.locked[key] == used, array.shape))[0]
    array[tuple(at)] += 1
    return {key: array}


def two() -> Master:
    """A master that has learned a task, has grown, and has learned another with a head of its own."""
    master = learned(started(), "one")
    steps = (Widen(node="stem.conv", by=3, seed=1), Widen(node="stage2.0.conv1", by=2))
    master = master.apply(Sequence(passes=steps))
    head = Node(name="second", op=Linear(out_features=2), inputs=NET["head"].inputs)
    return learned(master.with_head([head], "second"), "two", "second", seed=1)


# -- what a task sees -------------------------------------------------------------------------------------------------


def test_a_view_computes_what_masks_and_own_tensors_say() -> None:
    master = learned(started(), "one")
    told = drawn(started(), "head", 0)
    arrays = {**master.arrays, **told["own"]}
    for key, mask in told["masks"].items():
        arrays[key] = np.where(mask, arrays[key], np.float32(0))
    whole = Network(NET, arrays).to_torch().eval()
    with torch.no_grad():
        torch.testing.assert_close(logits(master, "one"), whole(torch.from_numpy(X)), rtol=1e-4, atol=1e-4)
    view = master.task("one").graph
    assert view.costs().parameters < NET.costs().parameters, "channels that nothing reads have gone"
    assert view.outputs == ("head",)


def test_a_view_is_a_network_like_any_other(tmp_path: Path) -> None:
    master = two()
    for task in master.tasks:
        view = master.task(task)
        view.to_onnx(tmp_path / f"{task}.onnx")
        session = onnxruntime.InferenceSession(tmp_path / f"{task}.onnx", providers=["CPUExecutionProvider"])
        (given,) = session.run(None, {"image": X})
        np.testing.assert_allclose(given, logits(master, task).numpy(), rtol=1e-4, atol=1e-4)
        view.save(tmp_path / task)
        assert Network.load(tmp_path / task).graph.hash == view.graph.hash
    assert [master.task(task).graph.outputs for task in master.tasks] == [("head",), ("second",)]


def test_weights_that_nothing_reads_are_not_locked() -> None:
    """Masks hold no weight of a channel that is pruned from the view, so that later tasks may learn it anew."""
    start = started()
    told = drawn(start, "head", 0)
    for mask in told["masks"].values():
        mask[:] = True
    told["masks"]["stage1.0.conv2.weight"][:, 1] = False  # the only reader of stage1.0.conv1's channel 1
    master = start.learned("one", "head", **told)
    assert not master.tasks["one"].masks["stage1.0.conv1.weight"][1].any()
    assert master.tasks["one"].masks["stage1.0.conv1.weight"][0].all()
    assert master.task("one").graph["stage1.0.conv1"].op == Conv2d(out_channels=3, kernel_size=3, padding=1, bias=False)


def test_of_a_space_that_nobody_reads_one_channel_stays() -> None:
    start = started()
    told = drawn(start, "head", 0)
    told["masks"]["stage1.0.conv2.weight"][:] = False
    view = start.learned("one", "head", **told).task("one")
    assert param_table(view.graph)["stage1.0.conv1.weight"].shape[0] == 1


def test_what_only_unread_channels_read_is_unread() -> None:
    nodes = [Node(name=f"fc{k}", op=Linear(out_features=4), inputs=(f"fc{k - 1}" if k else "x",)) for k in range(3)]
    graph = Graph(inputs=(Input(name="x", shape=("N", 3)),), nodes=tuple(nodes), outputs=("fc2",))
    start = started(graph)
    own = {key: array for key, array in start.arrays.items() if key.endswith("bias")}
    masks = {key: np.ones(shape, bool) for key, shape in mask_shapes(graph).items()}
    masks["fc2.weight"][:] = False
    master = start.learned("one", "fc2", own=own, masks=masks)
    view = master.task("one")
    assert [view.arrays[f"fc{k}.weight"].shape for k in range(3)] == [(1, 3), (1, 1), (4, 1)]
    assert not any(mask.any() for mask in master.tasks["one"].masks.values())


# -- nothing is forgotten ---------------------------------------------------------------------------------------------


def test_what_was_learned_gives_the_same_bits_after_growth_and_another_task() -> None:
    before = logits(learned(started(), "one"), "one")
    after = two()
    assert torch.equal(logits(after, "one"), before)
    free = moved(after, "stage2.0.conv1.weight", used=False)
    third = after.learned("three", "head", arrays=free, **drawn(after, "head", 3))
    assert torch.equal(logits(third, "one"), before)
    assert list(third.tasks) == ["one", "two", "three"]


@given(st.data())
def test_no_growth_of_any_graph_moves_what_was_learned(data: st.DataObject) -> None:
    graph = data.draw(graphs(smooth=True))
    first = Network.init(graph, 0)
    master = Master(first.graph, first.arrays)
    output = data.draw(st.sampled_from(graph.outputs))
    master = master.learned("one", output, **drawn(master, output, data.draw(st.integers(0, 5))))
    seen = master.task("one")
    assume(next(Widen.candidates(master.graph), None) is not None)
    step = data.draw(candidates(Widen, master.graph))
    try:
        grown = master.apply(step)
    except PassRefused as refused:
        assert "would not stay as it is" in str(refused)  # noqa: PT017  # which growth is refused depends on the graph
        return
    after = grown.task("one")
    assert after.graph.hash == seen.graph.hash
    for key, array in seen.arrays.items():
        assert array.tobytes() == after.arrays[key].tobytes()


@pytest.mark.parametrize("node", ["stem.conv", "stage1.0.conv1", "stage2.0.conv1", "stage2.0.conv2", "stage3.0.conv2"])
def test_a_residual_network_grows_at_every_width(node: str) -> None:
    master = learned(started(), "one")
    grown = master.apply(Widen(node=node, by=2))
    assert grown.graph.costs().parameters > master.graph.costs().parameters
    assert torch.equal(logits(grown, "one"), logits(master, "one"))


@pytest.mark.parametrize("step", [Split(node="stem.conv", channels=(3,)), Prune(node="stem.conv", channels=(3,))])
def test_a_pass_that_moves_what_was_learned_is_refused(step: Any) -> None:
    told = drawn(started(), "head", 0)
    for mask in told["masks"].values():
        mask[:] = True
    master = started().learned("one", "head", **told)
    with pytest.raises(PassRefused, match=r"what was learned would not stay as it is: tasks\[0\] 'one': "):
        master.apply(step)


# -- files ------------------------------------------------------------------------------------------------------------


def test_a_master_is_saved_and_loaded(tmp_path: Path) -> None:
    master = two()
    master.save(tmp_path / "master")
    again = Master.load(tmp_path / "master")
    assert again.graph.hash == master.graph.hash
    assert again.to_data() == master.to_data()
    for task in master.tasks:
        assert torch.equal(logits(again, task), logits(master, task))
    again.save(tmp_path / "master")  # in place of itself
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("")
    with pytest.raises(ExportError, match="is a folder with other files, not a growir master"):
        master.save(tmp_path / "other")
    master.task("one").save(tmp_path / "network")
    with pytest.raises(ExportError, match="not a growir master"):
        master.save(tmp_path / "network")


def changed(file: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def do(folder: Path) -> None:
        from growir import store

        if file == "master.json":
            data = json.loads((folder / file).read_text())
            change(data)
            (folder / file).write_text(json.dumps(data))
            return
        arrays, metadata = store.read_tensors(folder / file)
        change(arrays)
        store.write_tensors(folder / file, arrays, metadata)

    return do


def tampered(arrays: dict[str, Any]) -> None:
    arrays["stage3.0.conv2.weight"] = arrays["stage3.0.conv2.weight"] + np.float32(1e-6)


def cut_short(folder: Path) -> None:
    text = (folder / "master.json").read_text()
    (folder / "master.json").write_text(text[: len(text) // 2])


def other_masks(arrays: dict[str, Any]) -> None:
    arrays["0/stem.conv.weight"] = np.zeros(9, np.uint8)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (changed("params.safetensors", tampered), "'one': stage3.0.conv2.weight has other numbers than when it was"),
        (changed("own.safetensors", lambda a: a["0/head.bias"].__iadd__(1)), "'one': head.bias has other numbers"),
        (changed("own.safetensors", lambda a: a.pop("1/second.bias")), "own: second.bias is not in own.safetensors"),
        (changed("own.safetensors", lambda a: a.update(x=np.zeros(1))), "own.safetensors: x is of no task"),
        (changed("masks.safetensors", other_masks), "the mask of stem.conv.weight is of another graph: 1 bytes are"),
        (changed("master.json", lambda d: d["tasks"][1].update(name="one")), "another task has this name"),
        (changed("master.json", lambda d: d["tasks"][0].update(output="out")), "output is out, but the graph's"),
        (changed("master.json", lambda d: d["tasks"][0].pop("output")), "output"),
        (changed("master.json", lambda d: d.update(schema="growir-master/2")), "is of version growir-master/2, and"),
        (changed("master.json", lambda d: d.update(task=[])), "task: unknown field"),
        (changed("master.json", lambda d: d.update(tasks={})), "an array of tasks"),
        (changed("master.json", lambda d: d["graph"]["nodes"].pop()), "master.json: graph"),
        (cut_short, "master.json"),
        (lambda folder: (folder / "masks.safetensors").unlink(), "there is no such file"),
        (lambda folder: (folder / "master.json").unlink(), "no master here: master.json is needed"),
    ],
)
def test_a_damaged_master_is_refused(harm: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    two().save(tmp_path / "master")
    harm(tmp_path / "master")
    with pytest.raises(GraphError) as refused:
        Master.load(tmp_path / "master")
    assert message in str(refused.value)


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"name": "one"}, "another task has this name; give each its own"),
        ({"name": ""}, "a task has a name"),
        ({"output": "stem.act"}, "output is stem.act, but the graph's outputs are head, second"),
        ({"own": {"head.biass": np.zeros(3)}}, "own has head.biass, which the graph has not. Did you mean"),
        ({"own": {"head.bias": np.float32(3)}}, "own: head.bias is no array"),
        ({"own": {"head.bias": np.zeros(3)}}, "own: head.bias is (3,) of float64, but the graph's is (3,) of float32"),
        ({"masks": {"head.bias": np.ones(3, bool)}}, "masks has head.bias, which is no layer's weight"),
        ({"masks": {"stem.conv.weight": np.ones((4, 1, 1, 1), bool)}}, "but (7, 1, 1, 1) of truth values is needed"),
        (
            {"own": {"head.weight": np.zeros((3, 16), np.float32)}, "masks": {"head.weight": np.ones((3, 16), bool)}},
            "head.weight is its own and has a mask too",
        ),
    ],
)
def test_a_task_that_does_not_fit_is_refused(told: Mapping[str, Any], message: str) -> None:
    master = two()
    with pytest.raises(GraphError) as refused:
        master.learned(**{"name": "three", "output": "head", **told})
    assert message in str(refused.value)


def test_a_locked_weight_that_moves_is_named() -> None:
    master = two()
    with pytest.raises(GraphError, match=r"'one': stage2\.0\.conv2\.weight has other numbers than when it was learned"):
        master.learned("three", "head", arrays=moved(master, "stage2.0.conv2.weight", used=True))
    with pytest.raises(GraphError, match=r"there is no task 'on'\. Did you mean 'one'"):
        master.task("on")


# -- masks ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 99))
def test_masks_are_packed_to_bits_and_back(shape: list[int], seed: int) -> None:
    mask: Mask = np.random.default_rng(seed).random(shape) < 0.5
    again = unpacked(packed(mask), shape)
    assert again.dtype == np.bool_
    np.testing.assert_array_equal(again, mask)
    with pytest.raises(ValueError, match="bytes are needed"):
        unpacked(packed(mask)[:-1], shape)


def test_a_mask_tells_kernels_and_weights_apart() -> None:
    shapes = mask_shapes(NET)
    assert shapes["stem.conv.weight"] == (4, 1, 1, 1)
    assert shapes["head.weight"] == (3, 16)
    assert "head.bias" not in shapes
    assert "stem.norm.weight" not in shapes
