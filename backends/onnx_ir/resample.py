"""Between channels and positions, and between resolutions, in ONNX."""

from __future__ import annotations

from growir import ops
from growir.backends.onnx_ir.scope import Scope


def pixel_shuffle(s: Scope, op: ops.PixelShuffle) -> None:
    s.result("DepthToSpace", s.x, blocksize=op.upscale_factor, mode="CRD")


def pixel_unshuffle(s: Scope, op: ops.PixelUnshuffle) -> None:
    # ONNX's SpaceToDepth puts the pixel before the channel; torch's order takes three steps.
    r = op.downscale_factor
    channels, height, width = s.shapes[0].sizes
    parts = s.integers("parts", [0, channels, height // r, r, width // r, r])
    split = s.call("split", "Reshape", s.x, parts)
    moved = s.call("moved", "Transpose", split, perm=[0, 1, 3, 5, 2, 4])
    s.result("Reshape", moved, s.integers("shape", [0, *s.shape.sizes]))
