"""What a model holds beside its layers: it is copied, shared or named, and the model stays as it was."""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import growir
from growir.backends.torch_export import import_model
from growir.backends.torch_export.copying import Owned, copied
from growir.backends.torch_export.preparing import modules_of
from growir.errors import ModelError
from tests.importing.models import Model, vectors


class Keeps(nn.Module):
    """Keeps what it computed, as models do that show their attention or take a loss from their features."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.kept: Any = None
        self.mean: torch.Tensor
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.fc(x))
        self.kept = {"features": [h, (h * 2,)]}
        return h


class Refuses:
    """An object that says how it is copied, and does not."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Refuses:
        raise ValueError("there is one of me")


def plain(h: torch.Tensor) -> torch.Tensor:
    return torch.relu(h)


def simple() -> Model:
    class Simple(Model):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return plain(self.fc(x))

    return Simple().double()


def masked() -> Model:
    model = simple()
    prune.ln_structured(model.fc, "weight", amount=0.5, n=2, dim=0)  # type: ignore[no-untyped-call]
    return model


def history_in_a_buffer() -> nn.Module:
    model = Keeps().double()
    model.mean = 0.9 * model.mean + 0.1 * model(vectors()).mean(0)  # with its history, as happens without detach
    return model


def kept() -> nn.Module:
    model = Keeps().double()
    model(vectors()).sum().backward()
    return model


def holding(things: Callable[[], Any]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        model = simple()
        model.things = things()
        return model

    return make


AWKWARD: dict[str, Callable[[], nn.Module]] = {
    "kept activations": kept,
    "a buffer with a history": history_in_a_buffer,
    "torch.nn.utils.prune": masked,
    "a lock": holding(threading.Lock),
    "locks in containers": holding(lambda: {"a": [threading.Lock()], "b": (threading.RLock(),)}),
    "a generator": holding(lambda: (k for k in range(3))),
    "a random generator": holding(torch.Generator),
    "an open file": holding(lambda: Path(__file__).open()),  # noqa: SIM115  # held open on purpose
    "a module of Python": holding(lambda: threading),
    "a bound method": holding(lambda: threading.Event().wait),
    "a function": holding(lambda: plain),
}


@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_models_import_and_stay_as_they_are(name: str) -> None:
    model = AWKWARD[name]().train()
    x = vectors(5)
    attributes = {part: dict(vars(module)) for part, module in modules_of(model)}
    tensors = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    rng = torch.get_rng_state()
    network = growir.from_torch(model, x)
    assert torch.equal(torch.get_rng_state(), rng)
    for part, module in modules_of(model):
        assert vars(module).keys() == attributes[part].keys()
        assert all(value is attributes[part][key] for key, value in vars(module).items())
    assert all(torch.equal(tensor, tensors[key]) for key, tensor in model.state_dict().items())
    model.eval()
    assert torch.allclose(network.to_torch().eval()(x), model(x), rtol=1e-12, atol=1e-12)


def test_what_refuses_to_be_copied_is_named_with_its_module() -> None:
    model = simple()
    vars(model.fc)["things"] = {"x": Refuses()}
    with pytest.raises(ModelError) as error:
        growir.from_torch(model, vectors())
    assert str(error.value) == (
        "fc (Linear): its attribute 'things' cannot be copied: ValueError: there is one of me. "
        "Set it to None or remove it before importing, if forward does not need it"
    )


class Trains(Model):
    """Has a method of its own under the name of one of nn.Module's."""

    def train(self, mode: bool = True, epochs: int = 1) -> Trains:
        raise RuntimeError(f"no data for {epochs} epochs")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return plain(self.fc(x))


def test_a_model_whose_train_means_something_else_is_refused_in_one_line() -> None:
    with pytest.raises(ModelError) as error:
        growir.from_torch(Trains().double(), vectors())
    text = "the model cannot be put on the CPU and into eval mode: RuntimeError: no data for 1 epochs"
    assert str(error.value) == text


STORE: dict[str, Any] = {}


def into_global(module: nn.Module, given: Any, out: Any) -> None:
    STORE["out"] = out


def count(store: list[int], module: nn.Module, given: Any) -> None:
    store.append(1)


class Recorder:
    """Stores what a layer gives, and gives twice that."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def hook(self, module: nn.Module, given: Any, out: Any) -> Any:
        self.seen.append(out)
        return out * 2


def test_hooks_take_part_but_store_nothing() -> None:
    model = simple()
    closed: dict[str, Any] = {}

    def into_closure(module: nn.Module, given: Any, out: Any) -> None:
        closed["out"] = out

    counted: list[int] = []
    recorder = Recorder()
    model.fc.register_forward_hook(into_global)
    model.fc.register_forward_hook(into_closure)
    model.fc.register_forward_hook(recorder.hook)
    model.fc.register_forward_pre_hook(functools.partial(count, counted))
    x = vectors()
    model(x)
    before = STORE["out"], closed["out"], list(recorder.seen), list(counted)
    network = growir.from_torch(model, x)
    assert STORE["out"] is before[0]
    assert closed["out"] is before[1]
    assert all(a is b for a, b in zip(recorder.seen, before[2], strict=True))
    assert counted == before[3]
    assert torch.allclose(network.to_torch().eval()(x), model.eval()(x))


def test_a_hook_that_names_the_model_gets_the_copy() -> None:
    model = simple()

    def shifted(module: nn.Module, given: Any, out: torch.Tensor) -> torch.Tensor:
        bias: torch.Tensor = model.fc.bias
        return out + bias

    model.fc.register_forward_hook(shifted)
    own = copied(model)
    with torch.no_grad():
        model.fc.bias.fill_(1.0)
    x = vectors()
    assert not torch.equal(own(x), model(x))


def test_hooks_for_all_modules_do_not_run_and_are_named() -> None:
    ran: list[str] = []

    def note(module: nn.Module, given: Any, out: Any) -> None:
        ran.append(type(module).__name__)

    handle = nn.modules.module.register_module_forward_hook(note)
    try:
        with pytest.warns(UserWarning, match="hooks of all modules"):
            growir.from_torch(simple(), vectors())
    finally:
        handle.remove()
    assert not ran


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_copys_parameters_are_the_networks(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Conv2d(1, 2, (2, 2))).to(dtype)
    tied = cast("nn.Parameter", model[0].weight)
    model[1].register_parameter("again", tied)
    model[1].register_parameter("turned", nn.Parameter(torch.zeros(3, 2, dtype=dtype).t()))
    owned = Owned()
    made = copied(model, owned)
    assert [(name, p.data_ptr() == owned.taken(p).ctypes.data) for name, p in made.named_parameters()] == [
        ("0.weight", True),
        ("0.bias", True),
        ("1.weight", True),
        ("1.bias", True),
        ("1.turned", False),
    ]
    named = dict(made.named_parameters(remove_duplicate=False))
    assert named["1.again"] is named["0.weight"] is not tied
    for one, two in zip(model.parameters(), made.parameters(), strict=True):
        assert torch.equal(one, two)
        assert one.requires_grad == two.requires_grad
    row = named["0.weight"][0]
    assert owned.taken(row).ctypes.data != row.data_ptr()


def test_a_network_has_memory_of_its_own() -> None:
    model = simple()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for check in (False, True):
        found = import_model(model, vectors(), check=check)
        net = growir.Network(found.graph, found.arrays)
        assert all(net.arrays[key] is array for key, array in found.arrays.items())
        assert {key: array.tolist() for key, array in net.arrays.items()} == {k: p.tolist() for k, p in before.items()}
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        assert all(array.any() for array in net.arrays.values())
        model.load_state_dict(before)


def test_a_part_that_cannot_be_copied_has_its_numbers_back() -> None:
    class Alone(nn.Linear):
        def __reduce_ex__(self, protocol: Any) -> Any:
            raise TypeError("there is one of me")

    parts = {"alone": Alone(4, 4), "act": nn.ReLU(), "head": nn.Linear(4, 2)}
    model = nn.Sequential(OrderedDict(parts)).double()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    net = growir.from_torch(model, vectors())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
        assert net.arrays[name].tolist() == before[name].tolist()
