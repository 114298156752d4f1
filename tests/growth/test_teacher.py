"""The teacher-student problem: the paper's network, and data that is a function of the seed."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import growir
from growir.network import Network
from growir.testing.teacher import teacher, teacher_student


class ByHand(nn.Module):
    """The paper's teacher, written in torch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(20, 50), nn.Linear(50, 50)
        self.direct, self.out = nn.Linear(20, 50), nn.Linear(50, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = F.selu(self.second(F.selu(self.first(x))) + self.direct(x))
        answer: torch.Tensor = self.out(hidden)
        return answer


def by_hand(seed: int) -> ByHand:
    module = ByHand()
    arrays = Network.init(teacher(), seed).arrays
    module.load_state_dict({key: torch.tensor(array) for key, array in arrays.items()})
    return module


def test_it_has_the_paper_s_parameters() -> None:
    assert teacher().costs().parameters == 4701
    assert sum(p.numel() for p in ByHand().parameters()) == 4701


def test_the_targets_are_the_teacher_s_answers() -> None:
    data = teacher_student(seed=3, samples=20, test=30)
    assert {key: array.shape for key, array in data.items()} == {
        "x_train": (60, 20),
        "y_train": (60, 1),
        "x_test": (30, 20),
        "y_test": (30, 1),
    }
    for part in ("train", "test"):
        with torch.no_grad():
            expected = by_hand(3)(torch.from_numpy(data[f"x_{part}"]))
        assert np.allclose(data[f"y_{part}"], expected.numpy(), atol=1e-6)


def test_the_inputs_are_uniform_and_all_different() -> None:
    data = teacher_student(seed=0, samples=500, test=500)
    x = np.concatenate([data["x_train"], data["x_test"]])
    assert len(np.unique(x[:, 0])) == len(x)
    assert -3 <= x.min() < -2.9
    assert 2.9 < x.max() <= 3
    assert abs(x.var() - 3) < 0.1


def test_the_weights_are_drawn_as_torch_draws_them() -> None:
    arrays = Network.init(teacher(), 0).arrays
    for key, parameter in ByHand().named_parameters():
        if parameter.numel() > 1:
            ours, theirs = float(np.abs(arrays[key]).max()), float(parameter.detach().abs().max())
            assert 0.7 < ours / theirs < 1.4, key


def test_everything_is_a_function_of_the_seed() -> None:
    first, again, other = (teacher_student(seed, samples=5, test=5) for seed in (1, 1, 2))
    for key in first:
        assert np.array_equal(first[key], again[key])
        assert not np.array_equal(first[key], other[key])


def test_other_sizes_are_grown_too() -> None:
    small = teacher(4, (6, 3), 2, "tanh")
    data = teacher_student(0, 40, 20, graph=small)
    assert data["y_train"].shape == (120, 2)
    result = growir.grow(
        None,
        data,
        policy={"name": "dag", "neurons": 4, "activation": "tanh"},
        train={"epochs_between": 2, "epochs_final": 4},
        budget={"steps": 2},
    )
    assert result.summary["task"] == "regression"
    assert result.summary["test_after_fit"]["mse"] < data["y_test"].var()
