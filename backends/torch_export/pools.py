"""Pooling and interpolation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from growir.backends.torch_export.calls import Call
from growir.backends.torch_export.layers import short
from growir.backends.torch_export.layout import framed
from growir.backends.torch_export.reading import Reader
from growir.backends.torch_export.values import Unsupported, Value
from growir.ops import (
    OP_BY_KIND,
    Upsample,
)

Handler = Callable[[Reader, Call], Any]


def window(kind: str, axes: int) -> Handler:
    """A pool with a sliding window; what the call does not say is the operator's default."""

    def handle(r: Reader, c: Call) -> Value:
        x = c.value("self")
        kernel = short(c.ints("kernel_size"), axes)
        if _covers(c, x, axes):
            whole = OP_BY_KIND[f"adaptive_{kind}"].model_validate({"output_size": 1, "frames": framed(x)})
            return r.emit(whole, x, layout=x.layout)
        fields: dict[str, Any] = {"kernel_size": kernel, "padding": short(c.ints("padding"), axes)}
        fields["frames"] = framed(x)
        stride = c.ints("stride")
        if stride and short(stride, axes) != kernel:
            fields["stride"] = short(stride, axes)
        fields["ceil_mode"] = bool(c.get("ceil_mode"))
        if kind.startswith("max"):
            fields["dilation"] = short(c.ints("dilation"), axes)
        else:
            fields["count_include_pad"] = bool(c.get("count_include_pad"))
            if c.arguments.get("divisor_override") is not None:
                fields["divisor_override"] = c.whole("divisor_override")
        return r.emit(OP_BY_KIND[kind].model_validate(fields), x, layout=x.layout)

    return handle


def _covers(c: Call, x: Value, axes: int) -> bool:
    """Whether one window, cut off at the edges (ceil_mode), takes in all there is: EfficientNet's is 2560 wide."""
    reach = c.ints("kernel_size") * (axes if len(c.ints("kernel_size")) == 1 else 1)
    larger = [size < wide for size, wide in zip(x.shape.sizes[-axes:], reach, strict=True)]
    told = bool(c.get("ceil_mode")) and not any(c.ints("padding")) and c.arguments.get("divisor_override") is None
    spaced = any(gap != 1 for gap in c.ints("dilation")) if "dilation" in c.arguments else False
    if told and any(larger) and not spaced:
        if not all(size <= wide for size, wide in zip(x.shape.sizes[-axes:], reach, strict=True)):
            raise Unsupported("has a window that is larger than its input along one axis alone")
        for name in ("stride", "count_include_pad"):  # a single window has no next one, and no padding
            c.arguments.get(name)
        return True
    return False


def window_and_places(kind: str, axes: int) -> Handler:
    """The same from a call that also gives where the maxima stand, which nobody may read."""
    pool = window(kind, axes)
    return lambda r, c: (pool(r, c), None)


def adaptive(kind: str, axes: int) -> Handler:
    """A pool to a grid of fixed size."""

    def handle(r: Reader, c: Call) -> Any:
        x = c.value("self")
        fields = {"output_size": short(c.ints("output_size"), axes), "frames": framed(x)}
        value = r.emit(OP_BY_KIND[kind].model_validate(fields), x, layout=x.layout)
        return value if "avg" in kind else (value, None)

    return handle


def upsample(mode: str, axes: int) -> Handler:
    """Interpolation by a factor or to a size."""

    def handle(r: Reader, c: Call) -> Value:
        x = c.value("self" if "self" in c.arguments else "input")
        sizes = c.arguments.get("output_size")
        factors = c.arguments.get("scale_factors")
        fields: dict[str, Any] = {"mode": mode, "frames": framed(x)}
        if c.arguments.get("align_corners"):
            fields["align_corners"] = True
        if factors is not None:
            fields["scale_factor"] = _alike([float(f) for f in factors])
        elif sizes is not None:
            fields["size"] = short(c.ints("output_size"), axes)
        else:
            raise Unsupported("is given neither a size nor a factor")
        return r.emit(Upsample.model_validate(fields), x, layout=x.layout)

    return handle


def _alike(factors: list[float]) -> float | tuple[float, ...]:
    return factors[0] if len(set(factors)) == 1 else tuple(factors)


TABLE: dict[str, Handler] = {
    **{f"{kind}_pool{n}d": window(f"{kind}_pool{n}d", n) for kind in ("max", "avg") for n in (1, 2, 3)},
    **{f"max_pool{n}d_with_indices": window_and_places(f"max_pool{n}d", n) for n in (1, 2, 3)},
    **{f"adaptive_avg_pool{n}d": adaptive(f"adaptive_avg_pool{n}d", n) for n in (1, 2, 3)},
    **{f"adaptive_max_pool{n}d": adaptive(f"adaptive_max_pool{n}d", n) for n in (1, 2, 3)},
    "upsample_nearest1d": upsample("nearest", 1),
    "upsample_nearest2d": upsample("nearest", 2),
    "upsample_nearest3d": upsample("nearest", 3),
    "upsample_linear1d": upsample("linear", 1),
    "upsample_bilinear2d": upsample("bilinear", 2),
    "upsample_trilinear3d": upsample("trilinear", 3),
    "upsample_bicubic2d": upsample("bicubic", 2),
}
