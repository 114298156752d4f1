"""What the operations of cells are: nodes between one value of a cell and another.

    @operation("conv_3x3")
    def conv_3x3(at: Spot) -> str | None:
        conv = Conv2d(out_channels=at.width, kernel_size=3, stride=at.stride, padding=1, bias=False)
        return at.chain(relu=Relu(), conv=conv, norm=BatchNorm())

Of an operation with inner channels (`at.inner`) the first layer gives as many, and the last one `at.width` again. Of
those of DARTS (Liu et al. 2018, section 3.1) separable convolutions have them by themselves, as many as the node has,
and a dilated one gets a second layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from growir.drafting import Draft
from growir.errors import GrowirError, cut
from growir.ops import AvgPool2d, BatchNorm, Concat, Conv2d, MaxPool2d, Op, Pad, Relu, Slice


@dataclass(frozen=True, slots=True)
class Spot:
    """Where an operation is put.

    Attributes:
        draft: The graph on its way.
        module: What the names of its nodes begin with.
        value: What it reads, (N, channels, H, W).
        width: The channels that it gives.
        stride: By how much it makes maps smaller, 1 or 2.
        inner: Its inner channels; None for those that it has by itself.
    """

    draft: Draft
    module: str
    value: str
    width: int
    stride: int = 1
    inner: int | None = None

    def add(self, name: str, op: Op, *inputs: str) -> str:
        """Put a node into the operation; what it is called."""
        return self.draft.add(f"{self.module}.{name}", op, *inputs)

    def chain(self, **ops: Op) -> str:
        """Put nodes into it that each read the one before, the first what the operation reads."""
        value = self.value
        for name, op in ops.items():
            value = self.add(name, op, value)
        return value


Operation = Callable[[Spot], "str | None"]  # gives the value at its end; None where it adds nothing to a node
OPERATIONS: dict[str, Operation] = {}


def operation(name: str) -> Callable[[Operation], Operation]:
    """Let cells have an operation of this name. Raises GrowirError if there is another one."""

    def known(build: Operation) -> Operation:
        other = OPERATIONS.setdefault(name, build)
        # One that a notebook or a reload defined anew is another object, but the same function.
        if (other.__module__, other.__qualname__) != (build.__module__, build.__qualname__):
            raise GrowirError(
                f"two operations are called {cut(name)!r}: {other.__module__}.{other.__qualname__} and "
                f"{build.__module__}.{build.__qualname__}; give the second another name"
            )
        OPERATIONS[name] = build
        return build

    return known


def pointwise(width: int, stride: int = 1) -> Conv2d:
    """A convolution of single positions."""
    return Conv2d(out_channels=width, kernel_size=1, stride=stride, bias=False)


def depthwise(kernel: int, stride: int = 1, dilation: int = 1) -> Conv2d:
    """A convolution of each channel by itself that keeps the size of maps but for its stride."""
    padding = dilation * (kernel - 1) // 2
    return Conv2d(depthwise=True, kernel_size=kernel, stride=stride, padding=padding, dilation=dilation, bias=False)


@operation("none")
def _none(at: Spot) -> None:
    """Nothing."""


@operation("skip_connect")
def _skip_connect(at: Spot) -> str:
    """The identity, or what makes maps smaller."""
    return at.value if at.stride == 1 else factorized_reduce(at)


def factorized_reduce(at: Spot) -> str:
    """Maps of half the size: every second position, and beside it the one below and to the right (DARTS)."""
    value = at.add("relu", Relu(), at.value)
    height, width = at.draft.shape(value).sizes[1:]
    even = at.add("conv_1", pointwise((at.width + 1) // 2, 2), value)
    if at.width == 1:
        return at.add("norm", BatchNorm(), even)
    if height % 2 or width % 2:  # so that both halves have one size
        value = at.add("pad", Pad(padding=(0, width % 2, 0, height % 2)), value)
    value = at.add("below", Slice(axis=2, start=1, length=height + height % 2 - 1), value)
    value = at.add("right", Slice(axis=3, start=1, length=width + width % 2 - 1), value)
    odd = at.add("conv_2", pointwise(at.width // 2, 2), value)
    return at.add("norm", BatchNorm(), at.add("both", Concat(), even, odd))


def _pool(at: Spot, pool: Op) -> str:
    """A pool, while it is searched for with a norm that neither scales nor shifts (DARTS, section 3.1)."""
    return at.chain(pool=pool) if at.inner is None else at.chain(pool=pool, norm=BatchNorm(affine=False))


@operation("max_pool_3x3")
def _max_pool(at: Spot) -> str:
    return _pool(at, MaxPool2d(kernel_size=3, stride=at.stride, padding=1))


@operation("avg_pool_3x3")
def _avg_pool(at: Spot) -> str:
    return _pool(at, AvgPool2d(kernel_size=3, stride=at.stride, padding=1, count_include_pad=False))


def _separable(kernel: int) -> Operation:
    """Twice a depthwise and a pointwise convolution, of which the first ones have the stride."""

    def sep_conv(at: Spot) -> str:
        return at.chain(
            relu1=Relu(),
            depthwise1=depthwise(kernel, at.stride),
            pointwise1=pointwise(at.inner or at.width),
            norm1=BatchNorm(),
            relu2=Relu(),
            depthwise2=depthwise(kernel),
            pointwise2=pointwise(at.width),
            norm2=BatchNorm(),
        )

    return sep_conv


def _dilated(kernel: int) -> Operation:
    """A depthwise convolution of every second position and a pointwise one; with inner channels two pointwise ones."""

    def dil_conv(at: Spot) -> str:
        spread = depthwise(kernel, at.stride, dilation=2)
        if at.inner is None:
            return at.chain(relu=Relu(), depthwise=spread, pointwise=pointwise(at.width), norm=BatchNorm())
        return at.chain(
            relu1=Relu(),
            depthwise=spread,
            pointwise1=pointwise(at.inner),
            norm1=BatchNorm(),
            relu2=Relu(),
            pointwise2=pointwise(at.width),
            norm2=BatchNorm(),
        )

    return dil_conv


for _size in (3, 5, 7):
    operation(f"sep_conv_{_size}x{_size}")(_separable(_size))
for _size in (3, 5):
    operation(f"dil_conv_{_size}x{_size}")(_dilated(_size))


@operation("conv_7x1_1x7")
def _conv_7x1_1x7(at: Spot) -> str:
    """A row of seven and a column of seven (AmoebaNet, Real et al. 2019)."""
    row = Conv2d(
        out_channels=at.inner or at.width, kernel_size=(1, 7), stride=(1, at.stride), padding=(0, 3), bias=False
    )
    column = Conv2d(out_channels=at.width, kernel_size=(7, 1), stride=(at.stride, 1), padding=(3, 0), bias=False)
    return at.chain(relu=Relu(), row=row, column=column, norm=BatchNorm())
