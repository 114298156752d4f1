"""Normalisation, learned and from data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from growir.ops.base import (
    Bool,
    Constant,
    Example,
    Framed,
    NonNegativeInt,
    Op,
    OpError,
    Param,
    ParamTable,
    PositiveInt,
    PositiveReal,
    Real,
    Shape,
    batch_of,
)
from growir.ops.rule import Rule
from growir.ops.spaces import Axes, fixed

ONE, ZERO = Constant(1.0), Constant(0.0)


def _keeps_batch(op: LayerNorm | RmsNorm | Standardise, x: Shape) -> Shape:
    """The shape, if the last `dims` axes leave the batch alone; what has none, such as a table, has nothing to lose."""
    if op.dims > len(x.sizes):
        raise OpError(f"{op.kind()} over the last {op.dims} axes leaves no batch axis in {x}")
    return x


class _PerChannel(Framed):
    """A norm with a scale, an offset and running statistics for each channel on axis 1."""

    eps: PositiveReal = 1e-5
    momentum: Real | None = 0.1
    affine: Bool = True
    track_running_stats: Bool = True
    two_modes = True
    over_batch = True
    mixes: ClassVar[str]  # what pins the axes behind the channels

    @property
    def mixes_frames(self) -> bool:
        return True  # in what is kept as running statistics at least

    def params_one(self, *xs: Shape) -> ParamTable:
        shape, axes = (xs[0].size(1),), ("channel",)
        table: dict[str, Param] = {}
        if self.affine:
            table["weight"] = Param(shape, axes, ONE)
            table["bias"] = Param(shape, axes, ZERO)
        if self.track_running_stats:
            table["running_mean"] = Param(shape, axes, ZERO, buffer=True)
            table["running_var"] = Param(shape, axes, ONE, buffer=True)
            table["num_batches_tracked"] = Param((), (), ZERO, buffer=True, dtype="int64")
        return table

    def channels_one(self, rule: Rule, *xs: Axes) -> Axes:
        names = ["weight", "bias"] if self.affine else []
        if self.track_running_stats:
            names += ["running_mean", "running_var"]
            rule.param("num_batches_tracked", ())
        for name in names:
            rule.param(name, (xs[0][1],))
        rule.fixed(xs[0][2:], self.mixes)
        return xs[0]


class BatchNorm(_PerChannel):
    """Batch normalisation over axis 1 of (N, C), or with up to three more axes; carries every channel."""

    op: Literal["batch_norm"] = "batch_norm"
    mixes = "batch statistics are taken along this axis"

    def infer_one(self, *xs: Shape) -> Shape:
        if xs[0].rank not in (2, 3, 4, 5) or not xs[0].batched:
            raise OpError(f"batch_norm takes (N, C), (N, C, L), (N, C, H, W) or (N, C, D, H, W), but gets {xs[0]}")
        return xs[0]

    @classmethod
    def examples_one(cls) -> Sequence[Example]:
        return (
            Example(cls(), (batch_of(5),)),
            Example(cls(eps=1e-3, momentum=None), (batch_of(3, 4),)),
            Example(cls(affine=False), (batch_of(3, 4, 5),)),
            Example(cls(track_running_stats=False), (batch_of(3, 4, 5),)),
            Example(cls(), (batch_of(3, 2, 4, 3),)),
        )


class InstanceNorm(_PerChannel):
    """Normalisation of each sample's channels over one to three spatial axes; carries every channel.

    With track_running_stats it normalises by kept statistics in eval mode.
    """

    op: Literal["instance_norm"] = "instance_norm"
    mixes = "each channel is normalised along this axis"
    affine: Bool = False
    track_running_stats: Bool = False

    def infer_one(self, *xs: Shape) -> Shape:
        x = xs[0]
        if x.rank not in (3, 4, 5) or not x.batched:
            raise OpError(f"instance_norm takes (N, C, L), (N, C, H, W) or (N, C, D, H, W), but gets {x}")
        if x.elements == x.size(1):
            raise OpError(f"{x} has one number per channel, which would be normalised to 0")
        return x

    @classmethod
    def examples_one(cls) -> Sequence[Example]:
        return (
            Example(cls(), (batch_of(3, 4),)),
            Example(cls(affine=True, eps=1e-3), (batch_of(3, 4, 5),)),
            Example(cls(affine=True, track_running_stats=True), (batch_of(3, 4, 5),)),
            Example(cls(track_running_stats=True, momentum=0.3), (batch_of(2, 3, 2, 2),)),
        )


class GroupNorm(Framed):
    """Normalisation of each sample over num_groups groups of channels and all that lies behind; groups come whole."""

    op: Literal["group_norm"] = "group_norm"
    num_groups: PositiveInt
    eps: PositiveReal = 1e-5
    affine: Bool = True

    def infer_one(self, *xs: Shape) -> Shape:
        x = xs[0]
        if x.rank < 2 or not x.batched:
            raise OpError(f"group_norm takes (N, C, ...), but gets {x}")
        if x.size(1) % self.num_groups:
            raise OpError(f"num_groups {self.num_groups} must divide the {x.size(1)} channels of {x}")
        if x.elements == self.num_groups:
            raise OpError(f"each group of {x} has one number, which would be normalised to 0")
        return x

    def params_one(self, *xs: Shape) -> ParamTable:
        shape, axes = (xs[0].size(1),), ("channel",)
        return {"weight": Param(shape, axes, ONE), "bias": Param(shape, axes, ZERO)} if self.affine else {}

    def channels_one(self, rule: Rule, *xs: Axes) -> Axes:
        x = xs[0]
        groups = rule.new(self.num_groups)
        whole = rule.algebra.times(groups, rule.sizes[1] // self.num_groups)
        rule.algebra.unify(x[1], whole, "is normalised in groups")
        rule.follows("num_groups", groups)
        rule.fixed(x[2:], "each group is normalised along this axis")
        for name in ("weight", "bias") if self.affine else ():
            rule.param(name, (x[1],))
        return x

    @classmethod
    def examples_one(cls) -> Sequence[Example]:
        return (
            Example(cls(num_groups=3), (batch_of(6, 4, 5),)),
            Example(cls(num_groups=2, affine=False, eps=1e-3), (batch_of(6),)),
            Example(cls(num_groups=2), (batch_of(2, 4),)),
        )


class LayerNorm(Op):
    """Layer normalisation over the last `dims` axes; only copies of every channel keep its statistics."""

    op: Literal["layer_norm"] = "layer_norm"
    dims: PositiveInt = 1
    eps: PositiveReal = 1e-5
    elementwise_affine: Bool = True
    bias: Bool = True

    def infer(self, *xs: Shape) -> Shape:
        return _keeps_batch(self, xs[0])

    def params(self, *xs: Shape) -> ParamTable:
        shape = xs[0].sizes[-self.dims :]
        table: dict[str, Param] = {}
        if self.elementwise_affine:
            table["weight"] = Param(shape, ("channel",) * self.dims, ONE)
            if self.bias:
                table["bias"] = Param(shape, ("channel",) * self.dims, ZERO)
        return table

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        axes = xs[0][-self.dims :]
        for axis in axes:
            rule.only_whole(axis)
        if self.elementwise_affine:
            names = ("weight", "bias") if self.bias else ("weight",)
            for name in names:
                rule.param(name, axes)
            rule.scaled_by(names)
        return xs[0]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (
            Example(cls(), (batch_of(5),)),
            Example(cls(dims=2, eps=1e-3, bias=False), (batch_of(3, 4, 5),)),
            Example(cls(elementwise_affine=False), (batch_of(3, 4),)),
        )


class RmsNorm(Op):
    """Division by the root mean square of the last `dims` axes; only copies of every channel keep it.

    Without `eps` the least number is the float dtype's own epsilon.
    """

    op: Literal["rms_norm"] = "rms_norm"
    dims: PositiveInt = 1
    eps: PositiveReal | None = None
    elementwise_affine: Bool = True

    def infer(self, *xs: Shape) -> Shape:
        return _keeps_batch(self, xs[0])

    def params(self, *xs: Shape) -> ParamTable:
        if not self.elementwise_affine:
            return {}
        return {"weight": Param(xs[0].sizes[-self.dims :], ("channel",) * self.dims, ONE)}

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        axes = xs[0][-self.dims :]
        for axis in axes:
            rule.only_whole(axis)
        if self.elementwise_affine:
            rule.param("weight", axes)
            rule.scaled_by(["weight"])
        return xs[0]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (
            Example(cls(), (batch_of(5),)),
            Example(cls(dims=2, eps=1e-3), (batch_of(3, 4, 5),)),
            Example(cls(elementwise_affine=False, eps=1e-6), (batch_of(3, 4),)),
        )


class LocalResponseNorm(Op):
    """y = x / (k + alpha / size * sum of x^2 over the `size` nearest channels) ^ beta."""

    op: Literal["local_response_norm"] = "local_response_norm"
    size: PositiveInt
    alpha: Real = 1e-4
    beta: Real = 0.75
    k: Real = 1.0

    def infer(self, *xs: Shape) -> Shape:
        if xs[0].rank < 3 or not xs[0].batched:
            raise OpError(f"local_response_norm takes (N, C, ...) of rank 3 or more, but gets {xs[0]}")
        return xs[0]

    @property
    def partial(self) -> bool:
        return self.k <= 0

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        rule.fixed((xs[0][1],), "a window slides along the channels")
        if self.partial:
            rule.may_fail(xs[0])
        return xs[0]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (
            Example(cls(size=3, alpha=0.5), (batch_of(5, 4, 3),)),
            Example(cls(size=2, alpha=0.3, beta=0.5, k=2.0), (batch_of(4, 3),)),
        )


class Standardise(Op):
    """y = (x - mean) / std with statistics kept from the training data; `inverse` gives y = x * std + mean.

    `dims` trailing axes have statistics of their own (0: one mean and one std for all). An entry whose std is at most
    `eps` times the largest one counts as constant and gives 0, so a dead pixel never blows up.
    """

    op: Literal["standardise"] = "standardise"
    dims: NonNegativeInt = 1
    eps: PositiveReal = 1e-6
    inverse: Bool = False

    def infer(self, *xs: Shape) -> Shape:
        return _keeps_batch(self, xs[0])

    def params(self, *xs: Shape) -> ParamTable:
        shape = xs[0].sizes[-self.dims :] if self.dims else (1,)
        axes = ("channel",) * len(shape)
        return {
            "mean": Param(shape, axes, ZERO, buffer=True),
            "std": Param(shape, axes, ONE, buffer=True),
        }

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        axes = xs[0][-self.dims :] if self.dims else (fixed(1),)
        if not self.inverse and not rule.opened:
            rule.fixed(axes, "whether an entry counts as constant depends on the largest of all")
        rule.param("mean", axes)
        rule.param("std", axes, within=not self.inverse)
        return xs[0]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (
            Example(cls(), (batch_of(5),)),
            Example(cls(dims=0), (batch_of(3, 4),)),
            Example(cls(dims=2, inverse=True), (batch_of(2, 3, 4),)),
        )
