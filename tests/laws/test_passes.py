"""What every pass obeys, over random graphs and its own candidates. A pass is under test as soon as it is listed."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from growir.backends.torch_edits import TORCH
from growir.backends.torch_fx import lower
from growir.backends.torch_fx.probe import lengthened
from growir.channels import analyse
from growir.document import dumps
from growir.edits import NUMPY, Derive, Remap, apply_edits
from growir.entries import UNCHANGED
from growir.graph import Graph, Node
from growir.identity import canonical
from growir.live.rows import row_of
from growir.moments import carry_moments, carry_optimizer
from growir.network import Network
from growir.ops import Attention, Dropout, Dropout1d, Op
from growir.params import owners, param_table
from growir.passes import PASSES, Canonicalise, EliminateDead, InsertBlock, Update, Widen
from growir.rewrite import Pass, Preserves
from growir.testing import (
    Probe,
    assert_preserves,
    candidates,
    candidates_on,
    carried_pairs,
    close,
    graphs,
    noisy_candidates,
    outputs,
    random_batch,
    random_network,
    worst,
)
from growir.verify import load
from tests.samples import graph_of, mlp

every_pass = pytest.mark.parametrize("kind", PASSES, ids=lambda kind: kind.name)
RARE = settings(max_examples=max(settings().max_examples // 20, 3))
FEW = settings(max_examples=max(settings().max_examples // 4, 10))


def a_chain(data: st.DataObject, graph: Graph, steps: int) -> list[Pass]:
    """Some steps one after the other, each a candidate on what the ones before it left."""
    chain: list[Pass] = []
    for _ in range(steps):
        kinds = [kind for kind in PASSES if next(kind.candidates(graph), None) is not None]
        assume(kinds)
        step = data.draw(candidates(data.draw(st.sampled_from(kinds)), graph))
        graph = step.rewrite(graph).graph
        chain.append(step)
    return chain


@every_pass
@given(data=st.data())
def test_keeps_function_and_gradients(kind: type[Pass], data: st.DataObject) -> None:
    assert_preserves(*data.draw(candidates_on(kind)))


@every_pass
@FEW
@given(data=st.data())
def test_exact_claims_hold_with_dropout(kind: type[Pass], data: st.DataObject) -> None:
    """In train mode the same numbers are drawn, or the claim is `eval`."""
    assert_preserves(*data.draw(noisy_candidates(kind)))


@pytest.mark.parametrize("kind", [EliminateDead, Canonicalise], ids=lambda kind: kind.name)
@pytest.mark.parametrize("op", [Dropout(p=0.3), Dropout1d(p=0.3), Attention(dropout_p=0.3)], ids=lambda op: op.kind())
def test_what_draws_and_is_not_read_is_not_removed_exactly(kind: type[Pass], op: Op) -> None:
    graph = graph_of(
        (3, 4),
        Node(name="unread", op=op, inputs=("x",) * (3 if isinstance(op, Attention) else 1)),
        Node(name="head", op=Dropout(p=0.3), inputs=("x",)),
    )
    step = kind.model_validate({})
    assert step.preserves(graph) is step.rewrite(graph).preserves is Preserves.EVAL
    assert_preserves(step, graph)
    rate = "dropout_p" if isinstance(op, Attention) else "p"
    still = graph.replace(nodes=[graph["unread"].with_op(**{rate: 0.0}), graph["head"]])
    assert EliminateDead().rewrite(still).preserves is Preserves.EXACT


@FEW
@given(data=st.data())
def test_a_block_that_draws_is_not_exact(data: st.DataObject) -> None:
    """Its numbers shift all those that others draw, in this step or the next."""
    step, graph = data.draw(noisy_candidates(InsertBlock))
    first, *rest = step.block.nodes
    noise = Node(name="noise", op=Dropout(p=0.3), inputs=first.inputs)
    block = step.block.replace(nodes=(noise, first.with_inputs(["noise"]), *rest))
    noisy = InsertBlock(after=step.after, block=block)
    assert noisy.preserves(graph) is noisy.rewrite(graph).preserves is Preserves.EVAL
    assert_preserves(noisy, graph)


@every_pass
@FEW
@given(data=st.data())
def test_numpy_and_torch_do_the_same(kind: type[Pass], data: st.DataObject) -> None:
    step, graph = data.draw(candidates_on(kind))
    done = step.rewrite(graph)
    rng = np.random.default_rng(0)
    dtype: np.dtype[Any] = np.dtype(data.draw(st.sampled_from(["float32", "float64"])))
    before = {k: a.astype(dtype) if a.dtype.kind == "f" else a for k, a in random_network(graph).arrays.items()}
    moments = {k: rng.normal(size=a.shape).astype(dtype) for k, a in before.items() if a.dtype.kind == "f"}
    state = {k: {"exp_avg": m, "exp_avg_sq": m * m, "step": np.float64(3)} for k, m in moments.items()}

    by_numpy = apply_edits(done.edits, before, NUMPY, dtype)
    by_torch = apply_edits(done.edits, tensors(before), TORCH, dtype)
    assert by_numpy.keys() == by_torch.keys() == param_table(done.graph).keys()
    derived = {edit.key for edit in done.edits if isinstance(edit, Derive)}
    derived |= {e.key for e in done.edits if isinstance(e, Remap) and any(part.fresh.mean for part in e.axes)}
    for key, array in by_numpy.items():
        if key in derived:  # torch's float32 square root is not always the nearest number, nor its sums numpy's
            assert array.dtype == by_torch[key].numpy().dtype
            assert close(array, by_torch[key].numpy(), 1e-6 if dtype == np.float32 else 1e-14), key
        else:
            same(array, by_torch[key])
    state_numpy = carry_optimizer(done.edits, state, NUMPY)
    state_torch = carry_optimizer(done.edits, {k: tensors(v) for k, v in state.items()}, TORCH)
    assert state_numpy.keys() == state_torch.keys()
    for key, slots in state_numpy.items():
        for entry, array in slots.items():
            assert entry == "step" or array.shape == by_numpy[key].shape
            # The mean that fills fresh second moments is summed in another order.
            assert close(array, state_torch[key][entry].numpy(), 1e-6), (key, entry)


def tensors(arrays: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(np.array(array)) for key, array in arrays.items()}


def same(array: NDArray[Any], tensor: torch.Tensor) -> None:
    found = tensor.numpy()
    assert array.dtype == found.dtype
    assert np.array_equal(array, found)


@every_pass
@FEW
@given(data=st.data())
def test_edits_are_differentiable(kind: type[Pass], data: st.DataObject) -> None:
    """On torch an old tensor's gradient is what its copies hand back, scaled as they are."""
    step, graph = data.draw(candidates_on(kind))
    done = step.rewrite(graph)
    arrays = {key: array for key, array in random_network(graph).arrays.items() if array.dtype.kind == "f"}
    old = {key: torch.tensor(array, requires_grad=True) for key, array in arrays.items()}
    integers = {key: torch.tensor(a) for key, a in random_network(graph).arrays.items() if key not in arrays}
    new = apply_edits(done.edits, {**old, **integers}, TORCH, np.dtype(np.float64))
    total = sum(value.sum() for value in new.values() if value.requires_grad)
    assume(isinstance(total, torch.Tensor))
    assert isinstance(total, torch.Tensor)
    torch.autograd.backward(total)
    # All edits but derivations are linear in the old numbers: the gradient is the change of the sum along each of them.
    derived = any(isinstance(edit, Derive) for edit in done.edits)
    stride, tolerance = (1e-5, 1e-6) if derived else (1.0, 1e-9)
    rest = {key: value.numpy() for key, value in integers.items()}
    before, after = (
        apply_edits(done.edits, {**{key: array + by for key, array in arrays.items()}, **rest}, NUMPY, np.dtype(float))
        for by in (-stride / 2, stride / 2)
    )
    sums = (float((after[key] - before[key]).sum()) for key in before if before[key].dtype.kind == "f")
    change = sum(sums) / stride
    slope = sum(float(value.grad.sum()) for value in old.values() if value.grad is not None)
    assert abs(change - slope) <= tolerance * max(1.0, abs(change))


@every_pass
@FEW
@given(data=st.data())
def test_graph_and_network_are_left_alone(kind: type[Pass], data: st.DataObject) -> None:
    step, graph = data.draw(candidates_on(kind))
    network = random_network(graph)
    text, arrays = dumps(graph), {key: array.copy() for key, array in network.arrays.items()}
    fields = step.model_dump_json()
    grown = network.apply(step)
    assert dumps(graph) == text
    assert step.model_dump_json() == fields
    assert all(np.array_equal(network.arrays[key], array) for key, array in arrays.items())
    assert not any(array.flags.writeable for array in grown.arrays.values())


@every_pass
@FEW
@given(data=st.data())
def test_candidates_are_accepted(kind: type[Pass], data: st.DataObject) -> None:
    graph = data.draw(graphs())
    for step in kind.candidates(graph):
        step.check(graph)
        done = step.rewrite(graph)
        assert done.preserves is not Preserves.NOTHING
        # A history is no part of the hash, and an update changes nothing else.
        assert (done.graph.hash == graph.hash) is isinstance(step, Update)
        assert done.graph.inputs == graph.inputs or (done.entries.inputs and done.callers)
        assert [entry.name for entry in done.graph.inputs] == [entry.name for entry in graph.inputs]
        assert len(done.graph.outputs) == len(graph.outputs)
        assert set(done.created) == set(done.graph.by_name) - set(graph.by_name)


@FEW
@given(data=st.data())
def test_chains_replay_reload_and_run(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    graph = data.draw(graphs(moves=5))
    first = random_network(graph)
    network, used = first, set(graph.used_names)
    exact, entries = True, UNCHANGED
    for step in a_chain(data, graph, data.draw(st.integers(2, 10))):
        done = step.rewrite(network.graph)
        assert not used & set(done.created), "a name came back"
        used |= set(done.created)
        exact &= done.preserves in (Preserves.EXACT, Preserves.EVAL)
        entries = entries.then(done.entries)
        network = network.apply(step)
    assert used == network.graph.used_names
    if exact:
        batch = random_batch(graph)
        found, _ = Probe(network).run(lengthened(graph, batch, entries), entries=entries)
        for old, new in zip(outputs(first, batch), found, strict=True):
            assert close(old, new, 1e-8), worst(old, new)

    again = network.replayed(first.arrays)
    assert again.graph.hash == network.graph.hash
    assert dumps(again.graph) == dumps(network.graph)
    equal_arrays(again, network)

    path = tmp_path_factory.mktemp("chain") / "net"
    network.save(path)
    loaded = Network.load(path)
    assert dumps(loaded.graph) == dumps(network.graph)
    assert loaded.graph.hash == network.graph.hash
    equal_arrays(loaded, network)
    assert loaded.values.keys() == network.values.keys()
    equal_arrays(loaded.replayed(first.arrays), network)

    module = network.to_torch()
    own = owners(network.graph)
    state = module.state_dict()
    assert {own[key] for key in state} == set(param_table(network.graph))
    equal_arrays(network.updated(copy.deepcopy(module)), network)


def equal_arrays(a: Network, b: Network) -> None:
    assert a.arrays.keys() == b.arrays.keys()
    for key, array in a.arrays.items():
        assert array.dtype == b.arrays[key].dtype
        assert np.array_equal(array, b.arrays[key]), key


@given(graph=graphs())
def test_documents_come_back_as_they_went(graph: Graph) -> None:
    again = load(dumps(graph))
    assert (again.inputs, again.nodes, again.outputs) == (graph.inputs, graph.nodes, graph.outputs)
    assert canonical(again) == canonical(graph)
    assert dumps(again) == dumps(graph)
    assert load(canonical(graph).replace(b"{", b'{"schema":"growir/1",', 1)).hash == graph.hash


@FEW
@given(data=st.data())
def test_arrays_of_any_layout_survive(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Transposed, strided and fancy-indexed arrays, which safetensors would store as they lie in memory."""
    graph = data.draw(graphs(moves=4))
    arrays = {key: strange(data, array) for key, array in random_network(graph).arrays.items()}
    network = Network(graph, arrays)
    path = tmp_path_factory.mktemp("layout") / "net"
    network.save(path)
    loaded = Network.load(path)
    for key, array in arrays.items():
        assert np.array_equal(loaded.arrays[key], array), key
        array.flags.writeable and array.fill(7)  # type: ignore[func-returns-value]
    equal_arrays(loaded, network)


def strange(data: st.DataObject, array: NDArray[Any]) -> NDArray[Any]:
    """An equal array that lies differently in memory."""
    if array.ndim == 0:
        return array.copy()
    kind = data.draw(st.sampled_from(["transposed", "strided", "indexed", "reversed", "big-endian"]))
    if kind == "transposed":
        return array.T.copy().T
    if kind == "strided":
        return np.repeat(array, 2, axis=0)[::2]
    if kind == "indexed":
        order = np.random.default_rng(0).permutation(len(array))
        back = np.argsort(order)
        return array[order].T.copy().T[back]
    if kind == "reversed":
        return array[::-1].copy()[::-1]
    return array.astype(array.dtype.newbyteorder(">"))


OPTIMIZERS: dict[str, tuple[Any, int]] = {
    # How a step scales with the gradient: not at all where moments are divided by each other.
    "adam": (lambda p: torch.optim.Adam(p, lr=0.01, eps=0.0), 0),
    "amsgrad": (lambda p: torch.optim.Adam(p, lr=0.01, eps=0.0, amsgrad=True), 0),
    "adamw": (lambda p: torch.optim.AdamW(p, lr=0.01, eps=0.0, weight_decay=0.0), 0),
    "rmsprop": (lambda p: torch.optim.RMSprop(p, lr=0.01, eps=0.0), 0),
    "momentum": (lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9), 1),
    "nesterov": (lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True), 1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@FEW
@given(data=st.data())
def test_optimizer_state_grows_with_the_weights(name: str, data: st.DataObject) -> None:
    """After growth by copies the next step is the old network's, carried over.

    SGD's step follows the gradient, so a copy that takes the share s makes s times the step on its incoming weights.
    Adam divides moments (s against s^2), so all copies make the old unit's step. Fresh entries are not compared.
    """
    make, power = OPTIMIZERS[name]
    step, graph = data.draw(candidates_on(Widen, graphs(smooth=True)))
    done = step.rewrite(graph)
    assume(done.preserves is not Preserves.NOTHING)
    # Copies in a space that is normalised as a whole get gradients of their own; only their sums are determined.
    assume(not analyse(graph).find(step.node, graph).uniform)

    network = random_network(graph)
    batch = random_batch(graph)
    module = Probe(network).module.eval()
    params = {key: p for key, p in module.named_parameters() if key in param_table(graph)}
    assume(params)
    optimizer = make(list(params.values()))
    for _ in range(3):
        one_step(module, optimizer, batch)
    arrays = {**network.arrays, **{key: p.detach().numpy().copy() for key, p in params.items()}}
    # Copies, since the old network steps on with the same state.
    state = {key: copy.deepcopy(optimizer.state[p]) for key, p in params.items() if p in optimizer.state}

    grown = lower(done.graph, apply_edits(done.edits, arrays, NUMPY, np.dtype(np.float64))).eval()
    table = param_table(done.graph)
    grown_params = {key: p for key, p in grown.named_parameters() if key in table}
    grown_optimizer = make(list(grown_params.values()))
    entries = row_of(grown_optimizer).entries or {}
    for key, slots in carry_optimizer(done.edits, state, TORCH, entries).items():
        grown_optimizer.state[grown_params[key]] = dict(slots)
    before = {key: p.detach().numpy().copy() for key, p in grown_params.items()}

    one_step(module, optimizer, batch)
    one_step(grown, grown_optimizer, batch)
    steps = {key: p.detach().numpy() - arrays[key] for key, p in params.items()}
    found = {key: p.detach().numpy() - before[key] for key, p in grown_params.items()}
    settled = {key: steady(params[key]) for key in params}
    sure = {key: mask > 0 for key, mask, _ in carried_pairs(done, graph, settled, found, power=0)}
    for key, wanted, got in carried_pairs(done, graph, steps, found, power=power):
        assert close(np.where(sure[key], wanted, 0), np.where(sure[key], got, 0), 1e-5), key


def steady(param: torch.nn.Parameter) -> NDArray[np.float64]:
    """1 where the gradient is well above rounding; elsewhere Adam without eps divides noise by noise."""
    if param.grad is None:
        return np.zeros(param.shape)
    size = param.grad.abs().numpy()
    return (size > 1e-6).astype(np.float64)


def one_step(module: torch.nn.Module, optimizer: torch.optim.Optimizer, batch: tuple[torch.Tensor, ...]) -> None:
    optimizer.zero_grad()
    found = module(*batch)
    values = [v for v in (found if isinstance(found, tuple) else (found,)) if v.requires_grad]
    if values:
        generator = torch.Generator().manual_seed(7)
        torch.autograd.backward(values, [torch.randn(v.shape, generator=generator, dtype=v.dtype) for v in values])
    optimizer.step()


def test_fresh_second_moments_are_small_and_follow_their_inputs() -> None:
    """A ten-thousandth of the mean over the old units, or inputs: like the old ones' they would hold what is new."""
    graph = mlp()
    done = Widen(node="fc1", by=2).rewrite(graph)
    rng = np.random.default_rng(0)
    second = {key: rng.uniform(1, 2, p.shape) for key, p in param_table(graph).items()}
    first = carry_moments(done.edits, second, "gradient", NUMPY)
    carried = carry_moments(done.edits, second, "square", NUMPY)
    for key, axis in (("fc1.weight", 0), ("fc1.bias", 0), ("head.weight", 1)):
        assert close(np.moveaxis(carried[key], axis, 0)[-2:], np.stack([1e-4 * second[key].mean(axis)] * 2))
        assert (np.moveaxis(first[key], axis, 0)[-2:] == 0).all()


@every_pass
@RARE
@given(data=st.data())
def test_onnx_runtime_agrees_after_growth(kind: type[Pass], data: st.DataObject) -> None:
    import onnxruntime

    from growir.backends.onnx_ir import build_model

    step, graph = data.draw(candidates_on(kind))
    network = random_network(graph).apply(step)
    arrays = {key: a.astype(np.float32) if a.dtype.kind == "f" else a for key, a in network.arrays.items()}
    model = build_model(network.graph, arrays, opset=18)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    batch = random_batch(network.graph)
    feed = {
        entry.name: value.numpy().astype(np.float32) if entry.dtype == "float32" else value.numpy()
        for entry, value in zip(network.graph.inputs, batch, strict=True)
    }
    feed = {entry.name: feed[entry.name] for entry in session.get_inputs()}
    for wanted, found in zip(outputs(network, batch), session.run(None, feed), strict=True):
        assert close(wanted, found, 1e-3), worst(wanted, found)
