"""A phase of training: the bits of before, going on anywhere, and what is refused."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from growir.data.memory import ArraySource
from growir.data.shuffling import Shuffle, generator
from growir.data.source import Batch
from growir.errors import DataError, RunError
from growir.growth.device import amp_type, device_of
from growir.growth.fit import _not_finite, fit
from growir.growth.objective import as_objective
from growir.growth.optimizer_state import OptimizerState, optimizer_state, restore_optimizer
from growir.growth.optimizing import make
from growir.growth.phase import Fitted, Hooks, Position
from growir.growth.rates import schedule
from growir.growth.recipe import OptimizerConfig, RateConfig, Recipe, Stopping
from tests.growth.before import Loss, make_optimizer, train

SAMPLES, SIZE = 50, 12
X = torch.randn(SAMPLES, 6, generator=torch.Generator().manual_seed(0))
CLASSES = (X[:, 0] * X[:, 1] > 0).long() + (X[:, 2] > 0).long()
NUMBERS = torch.stack([X[:, 0] * X[:, 1], X[:, 3]], dim=1)


def net(*, dropout: float = 0.0, norm: bool = False, outputs: int = 3, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(1)
    layers: list[nn.Module] = [nn.Linear(6, 16), *([nn.BatchNorm1d(16)] if norm else []), nn.ReLU()]
    return nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(16, outputs)).to(dtype)


def recipe_of(**given: Any) -> Recipe:
    return Recipe.model_validate({"batch_size": SIZE, **given})


def data(target: torch.Tensor = CLASSES, x: torch.Tensor = X) -> ArraySource:
    return ArraySource(x, target)


def bytes_of(tensor: torch.Tensor) -> bytes:
    return tensor.detach().numpy().tobytes()


def bits(module: nn.Module) -> list[bytes]:
    return [bytes_of(tensor) for tensor in module.state_dict().values()]


# -- the bits of before ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("size", [12, 7, 64])
@pytest.mark.parametrize("anneals", [False, True])
def test_by_default_it_does_what_train_did(task: Any, dropout: float, size: int, anneals: bool) -> None:
    target = CLASSES if task == "classification" else NUMBERS
    scale = torch.tensor([2.0, 0.5]) if task == "regression" else torch.ones(1)
    before = net(dropout=dropout, norm=True, outputs=3 if task == "classification" else 2)
    now = copy.deepcopy(before)
    epochs, source = 3, data(target)
    told: tuple[list[Any], list[Any]] = ([], [])

    def scheduler(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler | None:
        steps = epochs * source.batch_count(size)
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps + 1) if anneals else None

    optimizer = make_optimizer(dict(before.named_parameters()), 3e-3, 0.1)
    loss = train(
        before,
        Loss(task, scale),
        [X],
        target,
        torch.arange(SAMPLES),
        optimizer,
        epochs=epochs,
        batch_size=size,
        generator=generator(3),
        scheduler=scheduler(optimizer),
        tick=lambda *said: told[0].append(said),
        epoch=lambda *said: told[0].append(said),
    )
    optimizer_now = make(dict(now.named_parameters()), rate=3e-3, weight_decay=0.1)
    found = fit(
        now,
        as_objective({"classification": "cross_entropy", "regression": "mse"}[task], scale),
        source,
        optimizer_now,
        recipe_of(epochs=epochs, batch_size=size),
        shuffle=Shuffle((3,)),
        scheduler=scheduler(optimizer_now),
        draws=True,
        hooks=Hooks(tick=lambda *said: told[1].append(said), epoch=lambda *said: told[1].append(said)),
    )
    assert found == Fitted(loss, epochs, epochs * source.batch_count(size), stopped=False)
    assert bits(now) == bits(before)
    assert told[0] == told[1]
    for one, other in zip(before.parameters(), now.parameters(), strict=True):
        states = optimizer.state[one], optimizer_now.state[other]
        assert all(np.array_equal(states[0][entry], states[1][entry]) for entry in states[0] | states[1])
    names = ["lr", "weight_decay", "betas", "fused"]
    groups = [[[g[name] for name in names] for g in o.param_groups] for o in (optimizer, optimizer_now)]
    assert groups[0] == groups[1]


# -- going on ----------------------------------------------------------------------------------------------------------


@dataclass
class Saved:
    """What a checkpoint keeps, as a run would: module, optimizer and position, the latter two through JSON."""

    position: str
    module: dict[str, torch.Tensor]
    tensors: dict[str, torch.Tensor]
    rest: str


def norm_of(module: nn.Module) -> float:
    return float(torch.stack([p.grad.norm() for p in module.parameters() if p.grad is not None]).norm())


class Run:
    """A phase that can be begun anew from each of its checkpoints."""

    def __init__(self, how: dict[str, Any], recipe: dict[str, Any], **about: Any) -> None:
        self.how = OptimizerConfig.model_validate(how)
        self.recipe = recipe_of(**recipe)
        self.about = about
        self.saved: list[Saved] = []
        self.norms: list[float] = []

    def build(self) -> tuple[nn.Module, torch.optim.Optimizer]:
        dtype = torch.float64 if self.about.get("double") else torch.float32
        module = net(dropout=self.about.get("dropout", 0.0), norm=True, dtype=dtype)
        return module, make(dict(module.named_parameters()), self.how)

    def fit(self, at: Saved | None = None) -> tuple[Fitted, list[bytes], OptimizerState]:
        module, optimizer = self.build()
        parameters = dict(module.named_parameters())
        start = Position()
        if at is not None:
            module.load_state_dict(at.module)
            restore_optimizer(optimizer, OptimizerState(at.tensors, json.loads(at.rest)), parameters)
            start = Position(**json.loads(at.position))

        def save(position: Position) -> None:
            state = optimizer_state(optimizer, parameters)
            weights = {key: tensor.clone() for key, tensor in module.state_dict().items()}
            self.saved.append(Saved(json.dumps(asdict(position)), weights, state.tensors, json.dumps(state.rest)))

        source = data(x=X.double() if self.about.get("double") else X)
        total = self.recipe.all_steps(source.batch_count(SIZE))
        losses = iter(self.about.get("measured", [])[start.epoch :])
        found = fit(
            module,
            as_objective("cross_entropy"),
            source,
            optimizer,
            self.recipe,
            shuffle=Shuffle((7,)),
            scheduler=schedule(optimizer, self.recipe.rate, total, step=start.steps),
            draws="dropout" in self.about,
            start=start,
            hooks=Hooks(
                checkpoint=save,
                every=1,
                measure=lambda: next(losses),
                after_step=lambda: self.norms.append(norm_of(module)),
            ),
        )
        return found, bits(module), optimizer_state(optimizer, parameters)


SGD = {"name": "SGD", "learning_rate": 0.1, "momentum": 0.9, "nesterov": True}
RUNS: dict[str, Run] = {
    "sgd-cosine": Run(SGD, {"epochs": 3, "rate": {"name": "cosine", "warmup": 4}}),
    "adamw-one-cycle": Run({"learning_rate": 0.01}, {"epochs": 3, "rate": {"name": "one_cycle"}}),
    "steps": Run({"name": "Adagrad"}, {"steps": 11, "rate": {"name": "wsd"}}),
    "clip": Run(SGD, {"epochs": 2, "clip": 0.5}),
    "dropout": Run(SGD, {"epochs": 2}, dropout=0.4),
    "dropout-accumulated": Run({"name": "rmsprop", "momentum": 0.5}, {"epochs": 3, "accumulate": 2}, dropout=0.2),
    "bfloat16": Run({}, {"epochs": 2, "amp": "bfloat16"}, dropout=0.2),
    "float64": Run({}, {"epochs": 2, "rate": {"name": "steps", "milestones": [0.5]}}, double=True),
    "stopping": Run({}, {"epochs": 9, "stopping": {"patience": 2}}, measured=[3.0, 2.0, 2.5, 2.0, 1.0]),
}


@pytest.mark.parametrize("name", RUNS)
def test_going_on_at_any_step_ends_at_the_same_bits(name: str) -> None:
    run = RUNS[name]
    run.saved.clear()
    whole, weights, state = run.fit()
    saved = list(run.saved)
    assert len(saved) >= whole.steps
    assert sorted({json.loads(each.position)["steps"] for each in saved}) == list(range(1, whole.steps + 1))
    for each in saved:
        found, again, kept = run.fit(each)
        assert found == whole
        assert again == weights
        assert json.dumps(kept.rest) == json.dumps(state.rest)
        assert kept.tensors.keys() == state.tensors.keys()
        assert all(bytes_of(kept.tensors[entry]) == bytes_of(state.tensors[entry]) for entry in state.tensors)


def test_what_is_saved_differs_from_step_to_step() -> None:
    run = RUNS["dropout"]
    run.saved.clear()
    run.fit()
    assert len({bytes_of(saved.module["0.weight"]) for saved in run.saved}) == 10


def test_without_checkpoints_dropout_keeps_the_stream_of_the_whole_phase() -> None:
    def weights(**hooks: Any) -> list[bytes]:
        module = net(dropout=0.4)
        optimizer = make(dict(module.named_parameters()))
        objective = as_objective("cross_entropy")
        fit(
            module,
            objective,
            data(),
            optimizer,
            recipe_of(epochs=1),
            shuffle=Shuffle((7,)),
            draws=True,
            hooks=Hooks(**hooks),
        )
        return bits(module)

    assert weights() == weights()
    assert weights(checkpoint=lambda position: None) == weights(checkpoint=lambda position: None, every=1)
    assert weights() != weights(checkpoint=lambda position: None)


def test_nothing_outside_a_phase_draws_other_numbers_for_it() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    module = net(dropout=0.4)
    torch.manual_seed(5)
    fit(module, as_objective("cross_entropy"), data(), make({}), recipe_of(steps=2), shuffle=Shuffle((7,)))
    assert torch.equal(torch.rand(3), expected)


# -- how long ----------------------------------------------------------------------------------------------------------


def trained(recipe: Recipe, **hooks: Any) -> tuple[Fitted, nn.Module, torch.optim.Optimizer]:
    module = net()
    optimizer = make(dict(module.named_parameters()), OptimizerConfig.model_validate(SGD))
    objective = as_objective("cross_entropy")
    found = fit(module, objective, data(), optimizer, recipe, shuffle=Shuffle((0,)), hooks=Hooks(**hooks))
    return found, module, optimizer


def test_steps_may_end_within_an_epoch() -> None:
    told: list[Any] = []
    found, _, _ = trained(recipe_of(steps=6), tick=lambda *s: told.append(s), epoch=lambda *s: told.append(s[:2]))
    assert (found.steps, found.epochs) == (6, 2)
    assert told == [(0, 6), (1, 6), (2, 6), (3, 6), (4, 6), (1, 2), (5, 6), (2, 2)]
    whole, _, _ = trained(recipe_of(epochs=1))
    assert trained(recipe_of(steps=5))[0] == whole


class Endless(ArraySource):
    def batch_count(self, size: int) -> int:
        raise AssertionError("whoever counts an endless stream does not come back")


def test_so_many_steps_need_no_end_of_the_data() -> None:
    module, told = net(), list[tuple[int, int]]()
    optimizer = make(dict(module.named_parameters()))
    hooks = Hooks(epoch=lambda done, total, loss: told.append((done, total)))
    objective, source = as_objective("cross_entropy"), Endless(X, CLASSES)
    fit(module, objective, source, optimizer, recipe_of(steps=13), shuffle=Shuffle((0,)), hooks=hooks)
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_accumulated_batches_make_the_step_of_one_large_batch() -> None:
    large, small = net(dtype=torch.float64), net(dtype=torch.float64)
    for module, size, accumulate in ((large, 24, 1), (small, 12, 2)):
        optimizer = make(dict(module.named_parameters()), OptimizerConfig.model_validate(SGD))
        recipe = recipe_of(epochs=2, batch_size=size, accumulate=accumulate)
        fit(module, as_objective("cross_entropy"), data(x=X.double()), optimizer, recipe, shuffle=Shuffle((0,)))
    for one, other in zip(large.parameters(), small.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-14)


def test_stopping_early_waits_for_its_patience() -> None:
    losses = iter([3.0, 2.0, 1.95, 1.9, 0.0])
    found, _, _ = trained(recipe_of(epochs=9, stopping=Stopping(patience=2, by=0.2)), measure=lambda: next(losses))
    assert (found.epochs, found.stopped) == (4, True)
    with pytest.raises(RunError, match=r"^training: the recipe says when to stop early, but nothing measures a loss"):
        trained(recipe_of(epochs=9, stopping=Stopping(patience=2)))


def test_clipping_bounds_the_gradient() -> None:
    norms: list[float] = []
    for clip in (None, 0.25):
        module = net()
        optimizer = make(dict(module.named_parameters()))
        hooks = Hooks(after_step=lambda module=module: norms.append(norm_of(module)))  # type: ignore[misc]
        objective = as_objective("cross_entropy")
        fit(module, objective, data(), optimizer, recipe_of(steps=1, clip=clip), shuffle=Shuffle((0,)), hooks=hooks)
    assert norms[0] > 0.3
    assert norms[1] == pytest.approx(0.25, rel=1e-4)


# -- what surrounds it -------------------------------------------------------------------------------------------------


def test_hooks_surround_the_phase_and_each_step() -> None:
    said: list[str] = []

    @contextmanager
    def around() -> Iterator[None]:
        said.append("in")
        yield
        said.append("out")

    steps = {name: (lambda name=name: said.append(name)) for name in ("before_step", "after_step")}
    trained(recipe_of(steps=2), around=around, **steps)
    assert said == ["in", "before_step", "after_step", "before_step", "after_step", "out"]


def test_gradients_may_be_masked_and_weights_put_back() -> None:
    module = net()
    first = module.get_submodule("0").weight
    assert isinstance(first, nn.Parameter)
    kept = first.detach().clone()

    def mask() -> None:
        assert first.grad is not None
        first.grad[:8] = 0

    optimizer = make(dict(module.named_parameters()), OptimizerConfig(name="SGD", learning_rate=0.1))
    hooks = Hooks(before_step=mask)
    fit(
        module,
        as_objective("cross_entropy"),
        data(),
        optimizer,
        recipe_of(epochs=1),
        shuffle=Shuffle((0,)),
        hooks=hooks,
    )
    assert torch.equal(first[:8], kept[:8])
    assert not torch.equal(first[8:], kept[8:])


def test_a_penalty_is_part_of_what_is_minimised_and_not_of_what_is_told() -> None:
    def penalty(outputs: tuple[torch.Tensor, ...], batch: Any) -> torch.Tensor:
        assert len(outputs[0]) == len(batch.target)
        return torch.mean(1e3 * outputs[0].square())

    plain, module, _ = trained(recipe_of(steps=1))
    drawn, shrunk, _ = trained(recipe_of(steps=1), penalty=penalty)
    assert drawn == plain
    assert bits(module) != bits(shrunk)


def test_a_module_trains_though_it_was_measured_between_epochs() -> None:
    modes: list[bool] = []
    module = net(dropout=0.5)

    def epoch(*_: object) -> None:
        modes.append(module.training)
        module.eval()

    optimizer = make(dict(module.named_parameters()))
    objective = as_objective("cross_entropy")
    fit(module, objective, data(), optimizer, recipe_of(epochs=2), shuffle=Shuffle((0,)), hooks=Hooks(epoch=epoch))
    assert modes == [True, True]


# -- precision ---------------------------------------------------------------------------------------------------------


def test_a_loss_is_computed_in_float32_under_autocast_and_float64_stays() -> None:
    seen: list[tuple[torch.dtype, bool]] = []

    def loss(outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        seen.append((outputs.dtype, torch.is_autocast_enabled("cpu")))
        return nn.functional.cross_entropy(outputs, target, reduction="none")

    for dtype, amp in ((torch.float32, "bfloat16"), (torch.float64, None)):
        module = net(dtype=dtype)
        hidden: list[torch.dtype] = []
        module.get_submodule("0").register_forward_hook(lambda m, x, y, hidden=hidden: hidden.append(y.dtype))
        optimizer = make(dict(module.named_parameters()))
        recipe = recipe_of(steps=1, amp=amp)
        found = fit(module, as_objective(loss), data(x=X.to(dtype)), optimizer, recipe, shuffle=Shuffle((0,)))
        assert hidden == [torch.bfloat16 if amp else dtype]
        assert math.isfinite(found.loss)
    assert seen == [(torch.float32, False), (torch.float64, False)]


@pytest.mark.parametrize(
    ("amp", "dtype", "words"),
    [
        ("float16", torch.float32, r'^amp: "float16" needs a CUDA device, but the run is on cpu; take "bfloat16"$'),
        (
            "bfloat16",
            torch.float64,
            r'^amp: "bfloat16" computes float32 weights in half precision, .* are float64',
        ),
    ],
)
def test_precision_that_cannot_be(amp: Any, dtype: torch.dtype, words: str) -> None:
    module = net(dtype=dtype)
    optimizer = make(dict(module.named_parameters()))
    with pytest.raises(RunError, match=words):
        fit(module, as_objective("mse"), data(), optimizer, recipe_of(steps=1, amp=amp), shuffle=Shuffle((0,)))


def on_any_device(amp: str | None, device: torch.device, dtype: torch.dtype) -> torch.dtype | None:
    return torch.float16 if amp == "float16" else amp_type(amp, device, dtype)


@pytest.mark.filterwarnings("error")
def test_scaled_gradients_step_and_go_on_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU, where torch scales gradients too, though a run is refused there: it is slower than float32."""
    monkeypatch.setattr("growir.growth.fit.amp_type", on_any_device)
    run = Run(SGD, {"epochs": 2, "amp": "float16", "clip": 0.5, "rate": {"name": "cosine"}}, dropout=0.2)
    whole, weights, state = run.fit()
    saved = list(run.saved)
    scales = [json.loads(each.position)["scaler"] for each in saved]
    assert 0 < scales[-1]["scale"] < 65536  # the first steps were left out
    assert 0 < scales[-1]["_growth_tracker"] < whole.steps
    assert max(norm for norm in run.norms if math.isfinite(norm)) < 0.51
    assert sorted(run.norms)[len(run.norms) // 2] > 0.1
    for each in saved:
        found, again, kept = run.fit(each)
        assert (found, again) == (whole, weights)
        assert kept.rest == state.rest
    assert weights != Run(SGD, {"epochs": 2, "clip": 0.5}, dropout=0.2).fit()[1]


@pytest.mark.filterwarnings("error")
def test_a_step_whose_scaled_gradients_are_infinite_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("growir.growth.fit.amp_type", on_any_device)
    module = net()
    before = bits(module)
    seen: list[list[bytes]] = []
    # Above 65 504 / 65 536, which the scale begins with, gradients in float16 are infinite; the scale then halves.
    objective = as_objective(lambda o, t: 9.0 * nn.functional.cross_entropy(o, t, reduction="none"))
    optimizer = make(dict(module.named_parameters()), OptimizerConfig.model_validate(SGD))
    recipe, hooks = recipe_of(steps=12, amp="float16"), Hooks(after_step=lambda: seen.append(bits(module)))
    scheduler = schedule(optimizer, RateConfig(name="cosine"), 12)
    found = fit(module, objective, data(), optimizer, recipe, shuffle=Shuffle((0,)), scheduler=scheduler, hooks=hooks)
    assert seen[0] == before
    assert seen[-1] != before
    assert found.steps == 12


@pytest.mark.cuda
@pytest.mark.parametrize("amp", [None, "bfloat16", "float16"])
def test_a_phase_on_a_gpu_goes_on_as_it_was(amp: str | None) -> None:
    device = device_of("cuda")
    target = CLASSES.to(device)

    def on_gpu(saved: dict[str, Any] | None) -> tuple[Fitted, list[bytes], list[dict[str, Any]]]:
        module = net(dropout=0.3).to(device)
        parameters = dict(module.named_parameters())
        optimizer, kept, start = make(parameters), list[dict[str, Any]](), Position()
        if saved is not None:
            module.load_state_dict(saved["weights"])
            restore_optimizer(optimizer, saved["state"], parameters)
            start = saved["position"]

        def save(position: Position) -> None:
            weights = copy.deepcopy(module.state_dict())
            kept.append({"position": position, "weights": weights, "state": optimizer_state(optimizer, parameters)})

        source = ArraySource(X.to(device), target)
        recipe = recipe_of(epochs=2, amp=amp, clip=1.0, rate={"name": "cosine"})
        found = fit(
            module,
            as_objective("cross_entropy"),
            source,
            optimizer,
            recipe,
            shuffle=Shuffle((0,)),
            scheduler=schedule(optimizer, recipe.rate, 10, step=start.steps),
            draws=True,
            device=device,
            start=start,
            hooks=Hooks(checkpoint=save, every=1),
        )
        return found, bits(module.cpu()), kept

    whole, weights, saved = on_gpu(None)
    assert math.isfinite(whole.loss)
    for each in saved:
        assert on_gpu(each)[:2] == (whole, weights)


@pytest.mark.cuda
def test_on_a_gpu_a_loss_that_diverges_ends_the_phase_at_its_batch() -> None:
    device = device_of("cuda")
    module = net().to(device)
    optimizer = make(dict(module.named_parameters()), OptimizerConfig(name="SGD", learning_rate=1e30))
    source, recipe = ArraySource(X.to(device), CLASSES.to(device)), recipe_of(epochs=40)
    words = r"^training, epoch 1, batch [2-5]: the loss is (nan|inf); lower the learning rate"
    with pytest.raises(RunError, match=words):
        fit(module, as_objective("cross_entropy"), source, optimizer, recipe, shuffle=Shuffle((0,)), device=device)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("tpu", r"^device: 'tpu' is no device; take \"cpu\", \"cuda\", \"cuda:1\" or \"mps\"$"),
        ("meta", r"^device: meta holds no numbers"),
        ("xpu", r"^device: xpu cannot be used here"),
    ],
)
def test_a_device_that_is_none(given: str, words: str) -> None:
    with pytest.raises(RunError, match=words):
        device_of(given)


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_of(None) == device_of("cpu") == device_of(torch.device("cpu")) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RunError, match=r"^device: cuda, but torch .* sees no CUDA device; take \"cpu\"$"):
        device_of("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(RunError, match=r"^device: cuda:7, but there is 1 CUDA device, numbered from 0$"):
        device_of("cuda:7")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(RunError, match=r"^device: mps, but torch .* sees no Apple GPU; take \"cpu\"$"):
        device_of("mps")


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def test_a_loss_that_diverges_ends_the_phase() -> None:
    class Poisoned(ArraySource):
        def batches(self, size: int, shuffle: Shuffle | None, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
            for k, batch in enumerate(super().batches(size, shuffle, epoch, start)):
                assert isinstance(batch.inputs, tuple)
                yield Batch((batch.inputs[0] * (math.inf if (epoch, k) == (1, 2) else 1.0),), batch.target)

    module = net()
    optimizer = make(dict(module.named_parameters()))
    source, recipe = Poisoned(X, CLASSES), recipe_of(epochs=3, batch_size=SIZE)
    words = r"^final fit, epoch 2, batch 3: the loss is nan; lower the learning rate \(0\.003\), or clip gr"
    with pytest.raises(RunError, match=words):
        fit(module, as_objective("cross_entropy"), source, optimizer, recipe, shuffle=Shuffle((0,)), phase="final fit")


def test_the_message_follows_the_recipe() -> None:
    module = net()
    optimizer = make(dict(module.named_parameters()), OptimizerConfig(name="SGD", learning_rate=1e30))
    recipe = recipe_of(epochs=30, clip=2.0, amp="bfloat16")
    words = r"learning rate \(1e\+30\) or the largest gradient norm \(clip = 2\), or take amp = \"bfloat16\" or none$"
    with pytest.raises(RunError, match=words):
        fit(module, as_objective("cross_entropy"), data(), optimizer, recipe, shuffle=Shuffle((0,)))


def test_where_a_look_at_a_loss_waits_for_the_device_it_is_taken_at_many() -> None:
    losses = [(k, torch.tensor(math.nan if k in (3, 5) else 1.0)) for k in range(7)]
    assert [number for number, _ in _not_finite(losses)] == [3, 5]
    assert _not_finite([]) == []


class Empty(ArraySource):
    def batches(self, size: int, shuffle: Shuffle | None, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        return iter(())


def test_data_without_batches_and_a_bad_objective() -> None:
    module = net()
    optimizer = make(dict(module.named_parameters()))
    with pytest.raises(DataError, match=r"^training: the data gives no batch in epoch 1; give one sample or more$"):
        fit(module, as_objective("mse"), Empty(X, CLASSES), optimizer, recipe_of(epochs=1), shuffle=Shuffle((0,)))
    for function, words in (
        (lambda o, t: o.sum(), "it gives a scalar"),
        (
            lambda o, t: o.sum(1) * math.nan,
            "the loss of sample 0 of the first batch is nan, though the outp",
        ),
        (lambda o, t: o.detach().sum(1), "no gradient comes back from its losses"),
    ):
        with pytest.raises(RunError, match=words):
            fit(module, as_objective(function), data(), optimizer, recipe_of(epochs=1), shuffle=Shuffle((0,)))
    source = data(x=X * math.nan)
    with pytest.raises(RunError, match="the network's output 0 is not finite in the first batch; look for NaN in the"):
        fit(module, as_objective("cross_entropy"), source, optimizer, recipe_of(epochs=1), shuffle=Shuffle((0,)))


def test_a_function_computes_and_a_feed_comes_before_it() -> None:
    module, said = net(), list[str]()
    objective = as_objective("cross_entropy")

    def feed(batch: Batch, where: str) -> Batch:
        said.append(where)
        return Batch({"x": 2 * batch.inputs["x"]}, batch.target)  # type: ignore[call-overload]

    def forward(batch: Batch) -> tuple[torch.Tensor, ...]:
        assert isinstance(batch.inputs, dict)
        return (module(batch.inputs["x"] / 2),)

    other = copy.deepcopy(module)
    for computes, source, given in ((forward, ArraySource({"x": X}, CLASSES), feed), (other, data(), None)):
        weights = dict(other.named_parameters() if given is None else module.named_parameters())
        recipe = recipe_of(epochs=2, batch_size=30)
        fit(computes, objective, source, make(weights), recipe, shuffle=Shuffle((0,)), feed=given)
    assert bits(module) == bits(other)
    assert said == [f"training, epoch {k}, batch {b}" for k in (1, 2) for b in (1, 2)]


def test_a_module_takes_inputs_by_name_too() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.layer(left - right)
            return found

    source = ArraySource({"right": X, "left": 3 * X}, CLASSES)
    module = Sum()
    found = fit(
        module,
        as_objective("cross_entropy"),
        source,
        make(dict(module.named_parameters())),
        recipe_of(steps=1),
        shuffle=Shuffle((0,)),
    )
    assert math.isfinite(found.loss)
