"""Frames, crops or groups of tokens that a model puts into the batch for a while."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import growir
from growir.backends.onnx_ir import build_model
from growir.passes import FoldBatchNorm, Prune, Widen
from tests.importing.models import kinds
from tests.importing.test_inputs import agreed

Body = Callable[[nn.Module, torch.Tensor], torch.Tensor]


class Video(nn.Module):
    """A convolution, a norm and a pool on each of four images, then their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.pool = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.MaxPool2d(2)
        self.out = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        samples, frames = x.shape[:2]
        maps = self.pool(torch.relu(self.norm(self.conv(x.flatten(0, 1)))))
        found: torch.Tensor = self.out(maps.mean((2, 3)).view(samples, frames, -1).mean(1))
        return found


VIDEO = torch.randn(3, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("training", [False, True])
def test_a_convolution_of_each_frame(training: bool) -> None:
    network = agreed(Video().train(training), VIDEO)
    assert kinds(network) == ["conv2d", "batch_norm", "relu", "max_pool2d", "mean", "mean", "linear"]
    assert [node.op.attributes().get("frames") for node in network.graph.nodes[:2]] == [1, 1]
    assert {"conv.weight", "norm.running_mean"} <= set(network.arrays)
    wider = network.apply(Widen(node="conv", by=3), verify=True)
    wider.apply(Prune(node="conv", channels=(0, 5)), verify=True)
    network.apply(FoldBatchNorm(node="norm"), verify=True)


def test_frames_in_onnx() -> None:
    network = growir.from_torch(Video().eval(), VIDEO.float())
    session = onnxruntime.InferenceSession(build_model(network.graph, network.arrays).SerializeToString())
    found = np.array(session.run(None, {network.graph.inputs[0].name: VIDEO.float().numpy()})[0])
    wanted = network.to_torch().eval()(VIDEO.float()).detach().numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-5)


class Framed(nn.Module):
    """Whatever works on images, on the frames of a video in either order."""

    def __init__(self, body: Body, order: tuple[int, int]) -> None:
        super().__init__()
        self.first, self.body, self.order = nn.Conv2d(3, 4, 1), body, order
        self.groups, self.up = nn.GroupNorm(2, 4), nn.ConvTranspose2d(4, 4, 2, stride=2)
        self.each, self.line = nn.InstanceNorm2d(4, affine=True), nn.Conv1d(4, 2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        turned = x.transpose(0, 1) if self.order == (1, 0) else x
        maps = self.body(self, self.first(turned.flatten(0, 1)))
        back = maps.reshape(*turned.shape[:2], *maps.shape[1:])
        return back.transpose(0, 1) if self.order == (1, 0) else back


BODIES: list[Body] = [
    lambda m, h: m.get_submodule("groups")(h),
    lambda m, h: m.get_submodule("each")(h) * h,
    lambda m, h: m.get_submodule("up")(h),
    lambda m, h: m.get_submodule("line")(h.mean(3)),
    lambda m, h: F.adaptive_avg_pool2d(F.avg_pool2d(h, 2), 1),
    lambda m, h: F.interpolate(F.adaptive_max_pool2d(h, 3), scale_factor=2.0, mode="bilinear"),
    lambda m, h: F.pixel_unshuffle(F.pixel_shuffle(h, 2), 2),
    lambda m, h: F.conv2d(h, m.get_parameter("up.weight").exp(), m.get_parameter("up.bias").exp(), padding=1),
    lambda m, h: F.pad(h, (1, 2, 0, 1)),
]


@pytest.mark.parametrize(("body", "order"), [*((body, (0, 1)) for body in BODIES), (BODIES[0], (1, 0))])
def test_what_works_on_images_works_on_frames(body: Body, order: tuple[int, int]) -> None:
    agreed(Framed(body, order), VIDEO)
