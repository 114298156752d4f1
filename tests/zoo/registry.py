"""All architectures by name, each with a seeded model and its inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from tests.zoo import dense, efficient, masked, plain, residual, tokens, upscaling

Inputs = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Entry:
    """One architecture.

    Attributes:
        build: Makes the model; weights are whatever torch draws.
        shape: The shape of one input without the batch.
        vocabulary: For inputs of token numbers, how many there are; 0 for images.
    """

    build: Callable[[], nn.Module]
    shape: tuple[int, ...] = (3, 16, 16)
    vocabulary: int = 0

    def make(self, seed: int = 0) -> nn.Module:
        """The model in float64, with random batch-norm statistics, the same for each seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return randomise(self.build(), seed).double()

    def inputs(self, batch: int = 4, seed: int = 0) -> Inputs:
        """A batch of inputs."""
        generator = torch.Generator().manual_seed(seed)
        if self.vocabulary:
            return (torch.randint(self.vocabulary, (batch, *self.shape), generator=generator),)
        return (torch.randn((batch, *self.shape), generator=generator, dtype=torch.float64),)


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Statistics and scales of the norms drawn at random, so that no two channels are alike.

    Scales that start at zero, of residual branches and layer scale, would hide all that lies before them.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(tensor: object, low: float, high: float) -> None:
        assert isinstance(tensor, torch.Tensor)
        tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    with torch.no_grad():
        for part in model.modules():
            tracked = isinstance(part, (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm))
            if tracked and part.running_mean is not None:
                draw(part.running_mean, -0.2, 0.2)
                draw(part.running_var, 0.5, 1.5)
            if (tracked or isinstance(part, (nn.LayerNorm, nn.GroupNorm))) and part.weight is not None:
                draw(part.weight, 0.5, 1.5)
                draw(part.bias, -0.2, 0.2)
    return model


ZOO: dict[str, Entry] = {
    # plain
    "lenet": Entry(plain.LeNet, (1, 20, 20)),
    "alexnet_lrn": Entry(plain.AlexNet),
    "vgg_bn": Entry(plain.VGG),
    "nin": Entry(plain.NetworkInNetwork),
    "googlenet": Entry(plain.GoogLeNet),
    "inception": Entry(plain.Inception),
    "squeezenet": Entry(plain.SqueezeNet),
    # residual
    "resnet": Entry(residual.resnet_basic),
    "resnet_bottleneck": Entry(residual.resnet_bottleneck),
    "resnet_preact": Entry(residual.PreActResNet),
    "resnext": Entry(residual.resnext),
    "wide_resnet": Entry(residual.WideResNet),
    "se_resnet": Entry(residual.se_resnet),
    "pyramidnet": Entry(residual.PyramidNet),
    "resnest": Entry(residual.SplitAttentionNet),
    "cbam_resnet": Entry(residual.cbam_resnet),
    # dense
    "densenet": Entry(dense.DenseNet),
    "condensenet": Entry(dense.CondenseNet),
    "dual_path": Entry(dense.DualPathNet),
    "vovnet": Entry(dense.VoVNet),
    # efficient
    "mobilenet_v1": Entry(efficient.MobileNetV1),
    "mobilenet_v2": Entry(efficient.MobileNetV2),
    "mobilenet_v3": Entry(efficient.MobileNetV3),
    "shufflenet_v1_g2": Entry(lambda: efficient.ShuffleNetV1(2)),
    "shufflenet_v1_g3": Entry(lambda: efficient.ShuffleNetV1(3)),
    "shufflenet_v2": Entry(efficient.ShuffleNetV2),
    "efficientnet": Entry(efficient.EfficientNet),
    "ghostnet": Entry(efficient.GhostNet),
    "convnext": Entry(efficient.ConvNeXt),
    # upscaling
    "unet_transposed": Entry(lambda: upscaling.UNet("transposed")),
    "unet_upsample": Entry(lambda: upscaling.UNet("bilinear")),
    "super_resolution": Entry(upscaling.SuperResolution),
    "style_transfer": Entry(upscaling.StyleTransfer),
    # tokens
    "vit_packed": Entry(lambda: tokens.VisionTransformer("packed")),
    "vit_multihead": Entry(lambda: tokens.VisionTransformer("multihead")),
    "swin_like": Entry(tokens.WindowTransformer),
    "mlp_mixer": Entry(tokens.MLPMixer),
    "encoder": Entry(lambda: tokens.TextEncoder("layer"), (7,), vocabulary=19),
    "encoder_rms_swiglu": Entry(lambda: tokens.TextEncoder("rms"), (7,), vocabulary=19),
    "encoder_torch": Entry(tokens.TorchEncoder, (7,), vocabulary=19),
    "encoder_masked": Entry(masked.MaskedEncoder, (7,), vocabulary=19),
    "decoder_causal": Entry(masked.CausalDecoder, (7,), vocabulary=19),
    "decoder_rotary": Entry(masked.RotaryDecoder, (7,), vocabulary=19),
    "gated_conv": Entry(tokens.GatedConvNet, (7,), vocabulary=19),
}
