"""What every operator is: typed attributes, a shape rule, parameters with named axes, a channel rule, a cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BeforeValidator, ConfigDict, Field, StrictBool

from growir.errors import GraphError, GrowirError, Problem
from growir.fields import Record
from growir.ops.rule import Rule
from growir.ops.spaces import Axes

BATCH: Final = "N"
Dim = int | Literal["N"]
DType = Literal["float32", "int64"]

# Of the sizes that every framework can count in, and the numbers that float32 holds at full precision.
MAX_INT: Final = 2**31 - 1
MAX_ENTRIES: Final = 10**8  # of a list; a document of the most bytes that are read holds hardly more
MAX_REAL: Final = 3.4e38
LEAST_REAL: Final = 1.2e-38

PositiveInt = Annotated[int, Field(strict=True, gt=0, le=MAX_INT)]
NonNegativeInt = Annotated[int, Field(strict=True, ge=0, le=MAX_INT)]
Int = Annotated[int, Field(strict=True, ge=-MAX_INT - 1, le=MAX_INT)]
Real = Annotated[float, Field(strict=True, ge=-MAX_REAL, le=MAX_REAL, allow_inf_nan=False)]
PositiveReal = Annotated[float, Field(strict=True, ge=LEAST_REAL, le=MAX_REAL, allow_inf_nan=False)]
Probability = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
Bool = StrictBool


def _shortest(count: int) -> BeforeValidator:
    """Store equal numbers in one form, 3 rather than [3, 3], so that one network has one hash."""

    def shorten(value: Any) -> Any:
        match value:
            case [first, *rest] if len(rest) == count - 1 and all(
                type(n) is type(first) is int and n == first for n in rest
            ):
                return first
            case _:
                return value

    return BeforeValidator(shorten)


Pair = Annotated[PositiveInt | tuple[PositiveInt, PositiveInt], _shortest(2)]
Pair0 = Annotated[NonNegativeInt | tuple[NonNegativeInt, NonNegativeInt], _shortest(2)]
Triple = Annotated[PositiveInt | tuple[PositiveInt, PositiveInt, PositiveInt], _shortest(3)]
Triple0 = Annotated[NonNegativeInt | tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt], _shortest(3)]
# What a family over several ranks declares; each of its kinds narrows it to its own number of axes.
Extents = PositiveInt | tuple[PositiveInt, ...]
Extents0 = NonNegativeInt | tuple[NonNegativeInt, ...]


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    """Return a shortened pair in full."""
    return (value, value) if isinstance(value, int) else value


def in_full(value: int | tuple[int, ...], axes: int) -> tuple[int, ...]:
    """Return shortened extents in full, one for each axis."""
    return (value,) * axes if isinstance(value, int) else value


def extents(axes: int, *sizes: int) -> Extents:
    """The first sizes, for as many axes."""
    return sizes[0] if axes == 1 else sizes[:axes]


class OpError(ValueError):
    """An operator does not fit its inputs; the caller adds which node it is."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A value's dimensions, the batch written "N", and whether it holds floats or integers."""

    dims: tuple[Dim, ...]
    dtype: DType = "float32"

    def __str__(self) -> str:
        return "(" + ", ".join(str(d) for d in self.dims) + ("," if len(self.dims) == 1 else "") + ")"

    @property
    def rank(self) -> int:
        return len(self.dims)

    @property
    def batched(self) -> bool:
        return bool(self.dims) and self.dims[0] == BATCH

    @property
    def alike(self) -> bool:
        """Whether its first axis is the batch, or a single row in the batch's place that is for all samples."""
        return bool(self.dims) and self.dims[0] in (BATCH, 1)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The dimensions without the batch."""
        return tuple(d for d in self.dims if isinstance(d, int))

    @property
    def elements(self) -> int:
        """Numbers held per sample."""
        return math.prod(self.sizes)

    def size(self, axis: int) -> int:
        """The extent of one axis that is not the batch."""
        dim = self.dims[axis]
        if not isinstance(dim, int):
            raise OpError(f"axis {axis} of {self} is the batch; a width is needed there")
        return dim

    def with_dim(self, axis: int, size: int) -> Shape:
        """The same shape with another extent on one axis."""
        dims = list(self.dims)
        dims[axis] = size
        return Shape(tuple(dims), self.dtype)


@dataclass(frozen=True, slots=True)
class Uniform:
    """Draws from U(-bound, bound)."""

    bound: float


@dataclass(frozen=True, slots=True)
class Normal:
    """Draws from N(0, std^2); the entry `zero` of axis 0, if there is one, starts at zero instead."""

    std: float
    zero: int | None = None


@dataclass(frozen=True, slots=True)
class Constant:
    """The same number everywhere."""

    value: float


Init = Uniform | Normal | Constant


@dataclass(frozen=True, slots=True)
class Param:
    """A learned tensor or a buffer of one node: its shape, what its axes mean, how it starts."""

    shape: tuple[int, ...]
    axes: tuple[str, ...]
    init: Init
    buffer: bool = False
    dtype: Literal["float", "int64"] = "float"

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


ParamTable = Mapping[str, Param]


@dataclass(frozen=True, slots=True)
class Example:
    """One legal use of an operator, from which the law tests are made.

    Attributes:
        op: The operator.
        inputs: The shapes of its inputs.
        positive: Its value is finite for positive inputs only.
    """

    op: Op
    inputs: tuple[Shape, ...]
    positive: bool = False


def batch_of(*sizes: int) -> Shape:
    """The shape of a batch of float arrays of these sizes."""
    return Shape((BATCH, *sizes))


class Op(Record):
    """One operator with its attributes; subclasses hold everything that is true of a kind, whoever runs it.

    To add an operator: subclass with a literal `op`, list it in `growir.ops.OPS`, and give it one function in each
    backend's table. The law tests find it through `examples`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    op: str = ""  # each kind narrows it to its own name
    arity: ClassVar[tuple[int, int | None]] = (1, 1)
    unsaid: ClassVar[frozenset[str]] = frozenset({"op"})
    integers: ClassVar[bool] = False  # whether inputs may hold integers
    two_modes: ClassVar[bool] = False  # whether train and eval mode compute different things
    over_batch: ClassVar[bool] = False  # whether train mode takes statistics over the batch, of two samples or more

    @property
    def draws(self) -> bool:
        """Whether it draws random numbers in train mode: where such a node comes or goes, all others draw anew."""
        return False

    @property
    def partial(self) -> bool:
        """Whether it is infinite or NaN for some finite numbers: zero times what it gives is not always zero."""
        return False

    @classmethod
    def kind(cls) -> str:
        """The operator's name in documents."""
        return str(cls.model_fields["op"].default)

    @classmethod
    def record_title(cls) -> str:
        return cls.kind()

    @classmethod
    def refusal(cls, fields: Mapping[str, Any], problems: list[Problem]) -> GrowirError:
        return GraphError([Problem(cls.kind(), problem.text) for problem in problems])

    def infer(self, *xs: Shape) -> Shape:
        """The output shape. Raises OpError if the inputs do not fit."""
        raise NotImplementedError

    def followed(self, old: Shape, new: Shape) -> Op:
        """The operator with those of its sizes that are an axis of its first input, as they are for another size."""
        return self

    def params(self, *xs: Shape) -> ParamTable:
        """Parameters and buffers by name, for inputs of these shapes."""
        return {}

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        """The output's axes as terms of channel spaces, derived from the inputs' axes."""
        raise NotImplementedError

    def macs(self, out: Shape, *xs: Shape) -> int:
        """Multiply-accumulate operations per sample; bias, activations and pooling count nothing."""
        return 0

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Legal uses, at least one for each thing an attribute switches."""
        raise NotImplementedError

    def attributes(self) -> dict[str, Any]:
        """The attributes that differ from their defaults, as JSON values."""
        if not self.model_fields_set:
            return {}
        return self.model_dump(mode="json", exclude_defaults=True, exclude={"op"})


class Elementwise(Op):
    """y_i = f(x_i): keeps the shape and carries every channel."""

    def infer(self, *xs: Shape) -> Shape:
        return xs[0]

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        return xs[0]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (Example(cls(), (batch_of(5),)), Example(cls(), (batch_of(3, 4, 4),)))


def window(size: int, kernel: int, stride: int, pads: tuple[int, int], dilation: int, ceil: bool = False) -> int:
    """The number of window positions along one axis, by torch's rule. Raises OpError when there is none."""
    span = dilation * (kernel - 1) + 1
    room = size + sum(pads) - span
    if room < 0:
        raise OpError(f"a window of {span} does not fit into {size} + {sum(pads)} padding")
    count = -(-room // stride) + 1 if ceil else room // stride + 1
    # torch drops a last window that would start in the right-hand padding.
    if ceil and (count - 1) * stride >= size + pads[0]:
        count -= 1
    return count


SPATIAL = {1: "L", 2: "H, W", 3: "D, H, W"}


def check_spatial(x: Shape, name: str, axes: int = 2) -> None:
    """Require (N, C, ...) with this many spatial axes."""
    if x.rank != axes + 2 or not x.alike:
        raise OpError(f"{name} takes an input of rank {axes + 2}, (N, C, {SPATIAL[axes]}), but gets {x}")


class Framed(Op):
    """An operator on (N, C, ...), which may take `frames` more axes behind the batch.

    Each of their positions is a sample of its own to it: (N, T, C, H, W) with one frame axis is a video whose T images
    a convolution works on one by one. Subclasses say what one frame does, by the methods that end in `one`.
    """

    aside: ClassVar[frozenset[str]] = frozenset({"frames"})

    frames: Annotated[int, Field(strict=True, ge=0, le=8)] = 0

    @property
    def mixes_frames(self) -> bool:
        """Whether one frame has to do with another, as all samples of a batch have to do with each other."""
        return False

    def frame(self, x: Shape) -> Shape:
        """The shape of one frame."""
        if not self.frames:
            return x
        if x.rank <= 1 + self.frames or not x.batched:
            raise OpError(f"{self.kind()} with frames {self.frames} takes (N, ...) and as many more axes, but gets {x}")
        return Shape((x.dims[0], *x.dims[1 + self.frames :]), x.dtype)

    def infer(self, *xs: Shape) -> Shape:
        if not self.frames:
            return self.infer_one(*xs)
        out = self.infer_one(self.frame(xs[0]), *xs[1:])
        return Shape((*xs[0].dims[: 1 + self.frames], *out.dims[1:]), out.dtype)

    def infer_one(self, *xs: Shape) -> Shape:
        """The output shape of one frame. Raises OpError if the inputs do not fit."""
        raise NotImplementedError

    def params(self, *xs: Shape) -> ParamTable:
        return self.params_one(self.frame(xs[0]), *xs[1:])

    def params_one(self, *xs: Shape) -> ParamTable:
        """Parameters and buffers, which all frames share."""
        return {}

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        if not self.frames:
            return self.channels_one(rule, *xs)
        x, sizes = xs[0], rule.sizes
        if self.mixes_frames:
            rule.fixed(x[1 : 1 + self.frames], "statistics are taken over its frames")
        # The rule of one frame sees the output as it is for one.
        rule.sizes = (sizes[0], *sizes[1 + self.frames :])
        out = self.channels_one(rule, (x[0], *x[1 + self.frames :]), *xs[1:])
        rule.sizes = sizes
        return (out[0], *x[1 : 1 + self.frames], *out[1:])

    def channels_one(self, rule: Rule, *xs: Axes) -> Axes:
        """The axes of one frame of the output."""
        raise NotImplementedError

    def macs(self, out: Shape, *xs: Shape) -> int:
        many = math.prod(xs[0].sizes[: self.frames])
        return many * self.macs_one(self.frame(out), self.frame(xs[0]), *xs[1:])

    def macs_one(self, out: Shape, *xs: Shape) -> int:
        """Multiply-accumulate operations for one frame."""
        return 0

    @classmethod
    def examples(cls) -> Sequence[Example]:
        ones = cls.examples_one()
        op, (x, *rest) = ones[0].op, ones[0].inputs
        several = type(op).model_validate({**op.attributes(), "frames": 1})
        return (*ones, Example(several, (batch_of(2, *x.sizes), *rest), ones[0].positive))

    @classmethod
    def examples_one(cls) -> Sequence[Example]:
        """Legal uses without frames."""
        raise NotImplementedError
