"""Between channels and positions, and between resolutions, in ONNX."""

from __future__ import annotations

import numpy as np

from growir import ops
from growir.backends.onnx_ir.scope import Attribute, Scope


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


def upsample(s: Scope, op: ops.Upsample) -> None:
    attributes: dict[str, Attribute] = {"mode": "linear"}
    if op.mode.startswith("nearest"):
        exact = op.mode == "nearest-exact"
        attributes = {"mode": "nearest", "nearest_mode": "round_prefer_ceil" if exact else "floor"}
        attributes["coordinate_transformation_mode"] = "half_pixel" if exact else "asymmetric"
    else:
        if op.mode == "bicubic":
            attributes = {"mode": "cubic", "cubic_coeff_a": -0.75}
        attributes["coordinate_transformation_mode"] = "align_corners" if op.align_corners else "half_pixel"
    factors = op.factors(s.shape.rank - 2)
    if factors is not None:
        s.result("Resize", s.x, "", s.floats("scales", np.array([1, 1, *factors])), **attributes)
        return
    front = s.call("front", "Shape", s.x, start=0, end=2)
    sizes = s.call("sizes", "Concat", front, s.integers("size", s.shape.sizes[2 - s.shape.rank :]), axis=0)
    s.result("Resize", s.x, "", "", sizes, **attributes)
