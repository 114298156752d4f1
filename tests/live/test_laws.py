"""Growth in the middle of training, over random graphs, every pass and every optimizer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from growir import live
from growir.channels import analyse
from growir.edits import Derive, Remap
from growir.graph import Graph
from growir.ops import Detach
from growir.params import param_table
from growir.passes import PASSES, Split, Widen
from growir.rewrite import Pass, Preserves
from growir.testing import as_before, candidates, candidates_on, carried_pairs, close, graphs, random_batch, worst
from tests.live.training import loss_of, module_of, one_step, params_of, twins
from tests.samples import mlp

every_pass = pytest.mark.parametrize("kind", PASSES, ids=lambda kind: kind.name)
FEW = settings(max_examples=max(settings().max_examples // 4, 10))
KEPT = (Preserves.EXACT, Preserves.EVAL)
Make = Callable[[Sequence[nn.Parameter]], torch.optim.Optimizer]
EPS = 1e-12  # so that a step depends on the gradient's direction alone

# How to make each, how its step scales with the gradient, and how many steps it takes until it does.
OPTIMIZERS: dict[str, tuple[Make, int, int]] = {
    "sgd": (lambda p: torch.optim.SGD(p, lr=0.01), 1, 1),
    "momentum": (lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, dampening=0.1), 1, 2),
    "nesterov": (lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True), 1, 2),
    "adam": (lambda p: torch.optim.Adam(p, lr=0.01, eps=EPS), 0, 2),
    "amsgrad": (lambda p: torch.optim.Adam(p, lr=0.01, eps=EPS, amsgrad=True), 0, 2),
    "foreach": (lambda p: torch.optim.Adam(p, lr=0.01, eps=EPS, foreach=True), 0, 2),
    "fused": (lambda p: torch.optim.AdamW(p, lr=0.01, eps=EPS, weight_decay=0.0, fused=True), 0, 2),
    "adamw": (lambda p: torch.optim.AdamW(p, lr=0.01, eps=EPS, weight_decay=0.0), 0, 2),
    "nadam": (lambda p: torch.optim.NAdam(p, lr=0.01, eps=EPS), 0, 2),
    "radam": (lambda p: torch.optim.RAdam(p, lr=0.01, eps=EPS), 0, 7),  # without rectification its first are SGD's
    "rmsprop": (lambda p: torch.optim.RMSprop(p, lr=0.01, eps=EPS), 0, 2),
    "centered": (lambda p: torch.optim.RMSprop(p, lr=0.01, eps=EPS, centered=True, momentum=0.9), 0, 2),
    "adagrad": (lambda p: torch.optim.Adagrad(p, lr=0.01, eps=EPS), 0, 2),
    "adadelta": (lambda p: torch.optim.Adadelta(p, lr=0.01, eps=EPS), 0, 2),
    "adamax": (lambda p: torch.optim.Adamax(p, lr=0.01, eps=EPS), 0, 2),
    "rprop": (lambda p: torch.optim.Rprop(p, lr=0.01), 0, 3),
    "asgd": (lambda p: torch.optim.ASGD(p, lr=0.01, lambd=0.0, t0=1.0), 1, 2),
}


def drawn_step(data: st.DataObject, graph: Graph, among: Sequence[type[Pass]] = PASSES) -> Pass:
    """A candidate of some pass that keeps the function, in spaces where each copy's own gradient is determined."""
    assume(not any(space.uniform for space in analyse(graph).spaces))
    kinds = [kind for kind in among if any(step.preserves(graph) in KEPT for step in islice(kind.candidates(graph), 3))]
    assume(kinds)
    step = data.draw(candidates(data.draw(st.sampled_from(kinds)), graph))
    assume(step.preserves(graph) in KEPT)
    return step


@pytest.mark.parametrize("name", OPTIMIZERS)
@FEW
@given(data=st.data())
def test_the_next_step_is_the_one_the_old_network_takes(name: str, data: st.DataObject) -> None:
    make, power, steps = OPTIMIZERS[name]
    graph = data.draw(graphs(smooth=True))
    # Copies are what scales state; other passes leave it as it is.
    step = drawn_step(data, graph, data.draw(st.sampled_from([PASSES, (Widen, Split)])))
    module, batch = module_of(graph), random_batch(graph)
    params = list(params_of(graph, module).values())
    assume(params)
    optimizer = make(params)
    for _ in range(steps):
        one_step(module, optimizer, batch)
    assume(all(bool(p.isfinite().all()) for p in params))
    old, old_optimizer = twins(module, optimizer)

    grown, report = live.grow(module, step, optimizer)
    assert not report.untrained
    graph_after = live.network_of(grown).graph
    before = {key: p.detach().numpy().copy() for key, p in params_of(graph, old).items()}
    after = {key: p.detach().numpy().copy() for key, p in params_of(graph_after, grown).items()}
    one_step(old, old_optimizer, batch)
    done = step.rewrite(graph)
    one_step(as_before(grown, graph, done.entries), optimizer, batch)
    wanted = {key: p.detach().numpy() - before[key] for key, p in params_of(graph, old).items()}
    found = {key: p.detach().numpy() - after[key] for key, p in params_of(graph_after, grown).items()}
    sure = {key: steady(p) for key, p in params_of(graph, old).items()}
    masks = {key: mask > 0 for key, mask, _ in carried_pairs(done, graph, sure, found, power=0)}
    for key, a, b in carried_pairs(done, graph, wanted, found, power=power):
        assert close(np.where(masks[key], a, 0), np.where(masks[key], b, 0), 1e-5), (key, worst(a, b))


def steady(param: nn.Parameter) -> NDArray[np.float64]:
    """1 where the gradient is well above rounding and eps; elsewhere an adaptive step divides noise by noise."""
    if param.grad is None:
        return np.zeros(param.shape)
    return (param.grad.abs().numpy() > 1e-5).astype(np.float64)


@given(data=st.data())
def test_the_function_and_accumulated_gradients_stay(data: st.DataObject) -> None:
    """Growth between two backward passes: the gradients add up as if it had come after both."""
    graph = data.draw(graphs(smooth=True))
    step = drawn_step(data, graph)
    module, batch = module_of(graph), random_batch(graph)
    assume(params_of(graph, module))
    old = copy.deepcopy(module)
    for each, seeds in ((old, (1, 2)), (module, (1,))):
        for seed in seeds:
            backward(each, batch, seed)
    grown, _ = live.grow(module, step, verify=batch)
    done = step.rewrite(graph)
    backward(as_before(grown, graph, done.entries), batch, 2)
    grads = {key: gradient(p) for key, p in params_of(graph, old).items()}
    new_grads = {key: gradient(p) for key, p in params_of(done.graph, grown).items()}
    for key, a, b in carried_pairs(done, graph, grads, new_grads):
        assert close(a, b, 1e-7), (key, worst(a, b))


def backward(module: Callable[..., Any], batch: Sequence[torch.Tensor], seed: int) -> None:
    loss = loss_of(module, batch, seed)
    if loss is not None:
        torch.autograd.backward(loss)


def gradient(param: nn.Parameter) -> NDArray[Any]:
    return np.zeros(param.shape) if param.grad is None else param.grad.numpy().copy()


@every_pass
@FEW
@given(data=st.data())
def test_untouched_tensors_are_shared_and_others_are_those_of_the_network(
    kind: type[Pass], data: st.DataObject
) -> None:
    step, graph = data.draw(candidates_on(kind))
    module = module_of(graph)
    before = {key: t for key, t in module.state_dict(keep_vars=True).items() if key in param_table(graph)}
    wanted = live.network_of(module).apply(step)
    grown, report = live.grow(module, step)
    after: dict[str, torch.Tensor] = grown.state_dict(keep_vars=True)
    remaps = [edit for edit in step.rewrite(graph).edits if isinstance(edit, Remap)]
    changed = {edit.key for edit in remaps}
    # In float64 the two backends round the sum of a mean, or of a product of matrices, in their own order.
    means = {edit.key for edit in remaps if any(part.fresh.mean for part in edit.axes)}
    means |= {edit.key for edit in step.rewrite(graph).edits if isinstance(edit, Derive)}
    assert changed <= {change.key for change in report.changes}
    listed = {change.key for change in report.changes}
    for key, array in wanted.arrays.items():
        found = after[key].detach().numpy()
        assert np.array_equal(found, array) or (key in means and close(array, found, 1e-15)), key
        assert (key in before and after[key] is before[key]) == (key not in listed), key
    assert live.network_of(grown).graph.hash == report.after == wanted.graph.hash
    assert report.before == graph.hash


@FEW
@given(data=st.data())
def test_a_chain_of_growths_trains_on(data: st.DataObject) -> None:
    """Modes, ties and names survive several growths; a saved optimizer fits one made anew."""
    graph = data.draw(graphs(moves=5, smooth=True))
    module, batch = module_of(graph), random_batch(graph)
    assume(params_of(graph, module))
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    for _ in range(3):
        kinds = [kind for kind in PASSES if next(kind.candidates(graph), None) is not None]
        assume(kinds)
        step = data.draw(candidates(data.draw(st.sampled_from(kinds)), graph))
        one_step(module, optimizer, batch)
        module, report = live.grow(module, step, optimizer)
        graph = live.network_of(module).graph
        batch = random_batch(graph)
        one_step(module, optimizer, batch)
        assert not report.untrained
        held = optimizer.param_groups[0]["params"]
        assert list(map(id, held)) == list(map(id, module.parameters()))
        assert {id(p) for p in optimizer.state} <= {id(p) for p in held}
        if not held:
            return  # all of it was dead
        other = torch.optim.Adam(module.parameters(), lr=1e-3)
        other.load_state_dict(optimizer.state_dict())
        for p, slots in other.state.items():
            assert slots["exp_avg"].shape == p.shape


@FEW
@given(data=st.data())
def test_gradients_flow_through_growth(data: st.DataObject) -> None:
    """An over-grown network is a function of the old parameters and of what growth adds (design.md)."""
    from torch.func import functional_call, grad

    from growir.backends.torch_edits import TORCH
    from growir.edits import apply_edits
    from growir.rewrite import fresh_blocks

    graph = data.draw(graphs(moves=4, smooth=True))
    assume(not any(isinstance(node.op, Detach) for node in graph.nodes))  # a measured slope sees what it hides
    step = Widen.model_validate(data.draw(candidates(Widen, graph)).model_dump())
    done = step.rewrite(graph)
    blocks = fresh_blocks(done.graph, done.edits)
    module, batch = module_of(graph), random_batch(graph)
    old = {key: tensor for key, tensor in module.state_dict().items() if key in param_table(graph)}  # tied ones once
    grown, _ = live.grow(module, step)
    keys = [key for key in blocks if not key.endswith(("running_mean", "running_var"))]
    assume(keys)
    generator = torch.Generator().manual_seed(0)
    delta = {key: torch.randn(blocks[key], generator=generator, dtype=torch.float64) for key in keys}

    def loss(given: dict[str, torch.Tensor], params: dict[str, torch.Tensor]) -> torch.Tensor:
        new = apply_edits(done.edits, {**old, **params}, TORCH, np.dtype(np.float64), given)
        found = functional_call(grown, new, batch, tie_weights=True)
        first = found[0] if isinstance(found, tuple) else found
        total: torch.Tensor = first.square().sum()
        return total

    params = {key: old[key] for key in params_of(graph, module)}
    slopes = grad(loss, argnums=(0, 1))(delta, params)
    for point, slope in zip((delta, params), slopes, strict=True):
        key = data.draw(st.sampled_from(sorted(point)))
        towards = torch.randn(point[key].shape, generator=generator, dtype=torch.float64)
        size = 1e-5

        def moved(by: float, point: Any = point, key: str = key, towards: torch.Tensor = towards) -> float:
            there = {**point, key: point[key] + by * towards}
            return float(loss(there, params) if point is delta else loss(delta, there))

        measured = (moved(size) - moved(-size)) / (2 * size)
        computed = float((slope[key] * towards).sum())
        assert abs(measured - computed) <= 1e-4 * max(1.0, abs(computed), abs(measured)), key


def test_adams_first_step_on_fresh_weights_is_bounded() -> None:
    """A fresh weight of gradient g that starts with the second moment v makes the step

    lr (1 - b1) / (1 - b1^t) |g| / sqrt((b2 v + (1 - b2) g^2) / (1 - b2^t)),

    where v, by default, is a ten-thousandth of the old ones' mean in its row.
    """
    graph = mlp()
    module, batch = module_of(graph), random_batch(graph)
    rate = 0.01
    optimizer = torch.optim.Adam(module.parameters(), lr=rate, eps=EPS)
    for _ in range(20):
        one_step(module, optimizer, batch)
    old = optimizer.state[module.get_parameter("head.weight")]["exp_avg_sq"]
    grown, _ = live.grow(module, Widen(node="fc1", by=3), optimizer)
    params = params_of(live.network_of(grown).graph, grown)
    second = 1e-4 * old.mean(1, keepdim=True)
    before = params["head.weight"].detach().clone()
    one_step(grown, optimizer, batch)
    moved = (params["head.weight"].detach() - before)[:, -3:].abs()
    grad = params["head.weight"].grad
    assert grad is not None
    size = grad[:, -3:].abs()
    bound = rate * 0.1 / (1 - 0.9**21) * size / ((0.999 * second + 0.001 * size**2) / (1 - 0.999**21)).sqrt()
    torch.testing.assert_close(moved, bound, rtol=1e-6, atol=1e-12)
    assert float(moved.max()) > 0
    # A zero second moment would divide by the new gradient alone, and the step would be this, whatever the gradient:
    assert float(moved.max()) < rate * 0.1 / (1 - 0.9**21) / (0.001 / (1 - 0.999**21)) ** 0.5


def test_without_migration_the_next_step_differs() -> None:
    """The control: an optimizer made anew does not take the step that the old one would have taken."""
    graph = mlp()
    module, batch = module_of(graph), random_batch(graph)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    for _ in range(5):
        one_step(module, optimizer, batch)
    old, old_optimizer = twins(module, optimizer)
    grown, _ = live.grow(module, Widen(node="fc1", by=1))
    one_step(old, old_optimizer, batch)
    one_step(grown, torch.optim.Adam(grown.parameters(), lr=0.01), batch)
    wanted, found = (params_of(graph, m)["fc1.weight"].detach().numpy()[:4] for m in (old, grown))
    assert not close(wanted, found, 1e-5)
