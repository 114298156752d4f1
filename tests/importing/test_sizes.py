"""Inputs of other sizes than the example's: the network gives what the model gives, or says why it does not."""

from __future__ import annotations

import itertools
import re
import runpy
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

import growir
from growir.backends.torch_source.saving import save_source
from growir.network import Network
from tests.importing import sized
from tests.importing.models import Model
from tests.importing.sized import PROGRAMS, Sized
from tests.sampling import thinned
from tests.zoo import ZOO
from tests.zoo.imported import imported

GOLDEN = Path(__file__).parents[1] / "golden"
Sizes = dict[tuple[int, int], int]


def opened(model: nn.Module) -> nn.Module:
    """The model with nothing hidden by parameters that are zero."""
    with torch.no_grad():
        for parameter in model.parameters():
            if not bool(parameter.any()):
                parameter.add_(0.3)
    return model


@cache
def program(name: str) -> tuple[nn.Module, Network, nn.Module]:
    """The model, its network and module, with gates opened after the import."""
    entry = PROGRAMS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = entry.make().double().eval()
    network = growir.from_torch(model, entry.inputs())
    opened(model)
    module = network.to_torch().eval()
    opened(module)
    return model, network.updated(module), module


def exported(network: Network, folder: Path) -> nn.Module:
    save_source(network.graph, network.arrays, folder / "net.py")
    made: nn.Module = runpy.run_path(str(folder / "net.py"))["Net"]()
    made.load_state_dict(network.to_torch().state_dict())
    return made.eval()


def others(shapes: tuple[tuple[int, ...], ...], few: bool = False) -> Iterator[Sizes]:
    """Every axis alone, and those of one size together, in several sizes, most of which the import did not try."""
    axes = {(k, axis): size for k, shape in enumerate(shapes) for axis, size in enumerate(shape, 1)}
    for size in dict.fromkeys(axes.values()):
        alike = [axis for axis, other in axes.items() if other == size]
        groups = [(axis,) for axis in alike] + [g for n in (2, len(alike)) for g in itertools.combinations(alike, n)]
        for group in dict.fromkeys(groups):
            for other in (1, size - 2, size + 5, 2 * size, *(() if few else (3 * size + 1, 4 * size, 40, 700))):
                if other not in (0, size) and other > 0:
                    yield dict.fromkeys(group, other)
    yield {axis: size + 2 + k for k, (axis, size) in enumerate(axes.items())}


def outputs(function: Callable[..., object], inputs: tuple[torch.Tensor, ...]) -> torch.Tensor | Exception:
    try:
        with torch.no_grad():
            found = function(*inputs)
    except Exception as error:
        return error
    assert isinstance(found, torch.Tensor)
    return found


def assert_right_or_refused(
    model: nn.Module, network: Network, module: nn.Module, entry: Sized, few: bool = False
) -> set[tuple[int, int]]:
    """The law; the axes on which the module gave what the model gives for a size above one."""
    fixed = {(entry.input, entry.axis) for entry in network.graph.fixed_sizes}
    names = [entry.name for entry in network.graph.inputs]
    took: set[tuple[int, int]] = set()
    for sizes in others(entry.shapes, few):
        inputs = entry.inputs(sizes, seed=1)
        wanted, found = outputs(model, inputs), outputs(module, inputs)
        checked = any((names[k], axis) in fixed for k, axis in sizes)
        if checked:
            assert isinstance(found, ValueError), sizes
            assert re.match(r"\w+: axis \d has the size \d+, but this network needs \d+, a number in it", str(found))
        elif isinstance(found, torch.Tensor):
            assert isinstance(wanted, torch.Tensor), f"{sizes}: the model says {wanted}"
            assert found.shape == wanted.shape, sizes
            assert float((found - wanted).abs().max()) <= 1e-9 * max(float(wanted.abs().max()), 1.0), sizes
            took |= {axis for axis, size in sizes.items() if size > 1}
    return took


@pytest.mark.parametrize("name", PROGRAMS)
def test_other_sizes_are_right_or_refused(name: str, tmp_path: Path) -> None:
    model, network, module = program(name)
    for made in (module, exported(network, tmp_path)):
        took = assert_right_or_refused(model, network, made, PROGRAMS[name])
        assert took == PROGRAMS[name].free


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_refuses_names_the_models_line(name: str) -> None:
    _, network, _ = program(name)
    lines = Path(sized.__file__).read_text().splitlines()
    for entry in network.graph.fixed_sizes:
        found = re.fullmatch(r"(?:the model refuses other sizes: )?sized\.py:(\d+): (.*)", entry.why)
        assert found is not None, entry
        assert lines[int(found[1]) - 1].strip() == found[2]
        kind = type(PROGRAMS[name].make()).__name__
        start = next(k for k, line in enumerate(lines, 1) if line.startswith(f"class {kind}("))
        assert start < int(found[1]) < start + 9


WHY = {
    "divides by almost length": "return total / (x.shape[1] + 1)",
    "divides by five": "return total / 5",
    "behind a zero gate": "return y + self.gate * (y.cos().sum(1, keepdim=True) * x.shape[1] ** -0.5)",
    "pads to a multiple": "y: torch.Tensor = self.f(F.pad(x, (0, -wide % 8, 0, -high % 8)))",
    "last by index": "return y[:, x.shape[1] - 1]",
    "last from the end": "return y[:, -1]",
    "back to the input's size": 'return F.interpolate(self.f(F.max_pool2d(x, 3)), size=x.shape[-2:], mode="bilinear")',
    "decides far away": "if x.shape[1] > 512:",
    "reads the last": "return y[:, -70:]",
    "decides by length": "return torch.relu(y) if x.shape[1] > 8 else y",
    "token by token": "y = torch.tanh(self.f(x[:, k]) + y)",
    "one of two by number": "return (queries @ keys.mT / y.shape[1]).softmax(-1) @ keys",
}


@pytest.mark.parametrize("name", WHY)
def test_the_line_is_the_one_that_computes_with_the_size(name: str) -> None:
    _, network, _ = program(name)
    assert {entry.why.partition(": ")[2] for entry in network.graph.fixed_sizes} == {WHY[name]}


def zoo_entry(name: str) -> Sized:
    return Sized(ZOO[name].make, (ZOO[name].shape,), vocabulary=ZOO[name].vocabulary)


@pytest.mark.parametrize("name", thinned(ZOO, 6, 2))
def test_architectures_are_right_or_refuse(name: str) -> None:
    model, network = imported(name)
    assert_right_or_refused(model.eval(), network, network.to_torch().eval(), zoo_entry(name), few=True)


def test_what_stays_free(golden: Callable[[Path, str], None]) -> None:
    """The axes of which each network of the zoo takes the double size, and those that are fixed."""
    lines: list[str] = []
    for name in sorted(ZOO):
        _, network = imported(name)
        module, entry = network.to_torch().eval(), zoo_entry(name)
        sizes = {axis: 2 * size for axis, size in enumerate(ZOO[name].shape, 1)}
        free = [
            axis
            for axis, size in sizes.items()
            if isinstance(outputs(module, entry.inputs({(0, axis): size})), torch.Tensor)
        ]
        fixed = sorted(fixed.axis for fixed in network.graph.fixed_sizes)
        lines.append(f"{name} free {free} fixed {fixed}\n")
    golden(GOLDEN / "zoo_sizes.txt", "".join(lines))


class Tires(Model):
    """Gives something else after it was run twice and exported twice."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.f(x)
        return y if next(CALLS) < 4 else -y


CALLS = itertools.count()


def test_a_model_that_changes_promises_no_other_size() -> None:
    entry = PROGRAMS["perceptron"]
    network = growir.from_torch(Tires(f=sized.vector()).double(), entry.inputs())
    assert [fixed.axis for fixed in network.graph.fixed_sizes] == [1, 2]
    assert network.graph.fixed_sizes[0].why.startswith("the model does not give the same twice")


def test_an_import_without_a_comparison_promises_no_other_size() -> None:
    entry = PROGRAMS["two sequences"]
    network = growir.from_torch(entry.make().double(), entry.inputs(), check=False)
    assert [(fixed.input, fixed.axis) for fixed in network.graph.fixed_sizes] == [
        ("x", 1), ("x", 2), ("y", 1), ("y", 2),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="imported without a comparison"):
        network.to_torch()(*entry.inputs({(0, 1): 9, (1, 1): 9}))


class PartInFloat32(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.f(x)
        z = y.float().softmax(-1).double() * y
        return z / x.shape[1] if self.divides else z


def test_a_part_in_a_coarser_dtype_is_no_difference() -> None:
    example = PROGRAMS["perceptron"].inputs()
    with pytest.warns(UserWarning, match="computes a part in"):
        free = growir.from_torch(PartInFloat32(f=sized.vector(), divides=False).double(), example)
    with pytest.warns(UserWarning, match="computes a part in"):
        fixed = growir.from_torch(PartInFloat32(f=sized.vector(), divides=True).double(), example)
    assert free.graph.fixed_sizes == ()
    assert [entry.axis for entry in fixed.graph.fixed_sizes] == [1]


def test_the_model_is_left_as_it_was() -> None:
    model = PROGRAMS["behind a zero gate"].make().double()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    network = growir.from_torch(model, PROGRAMS["behind a zero gate"].inputs())
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
    assert (network.arrays["gate.weight"] == 0).all()
