"""Blocks of random graphs that come from whole architectures: attention, shuffles, upsampling, norms in groups."""

from __future__ import annotations

from growir.ops import (
    Add,
    Affine,
    Amax,
    Attention,
    Clamp,
    Concat,
    Conv1d,
    ConvTranspose1d,
    ConvTranspose2d,
    Div,
    Embedding,
    Erf,
    Expand,
    Experts,
    Flatten,
    GroupNorm,
    InstanceNorm,
    Linear,
    Log,
    MatMul,
    Mean,
    Mul,
    Op,
    OpError,
    Pad,
    Parameter,
    Permute,
    PixelShuffle,
    PixelUnshuffle,
    Pow,
    Reshape,
    RmsNorm,
    Rsqrt,
    Sin,
    Sqrt,
    Sub,
    Tanh,
    Upsample,
    Var,
)
from growir.testing.sketch import Move, Sketch, divisors


def _in_groups(s: Sketch, x: str) -> str:
    """A norm over groups of channels, or over each channel."""
    shape = s.shapes[x]
    if shape.rank > 2 and s.flag():
        return s.add(InstanceNorm(affine=s.flag(), track_running_stats=s.flag()), x)
    return s.add(GroupNorm(num_groups=s.one_of(divisors(shape.size(1))), affine=s.flag()), x)


def _root_mean_square(s: Sketch, x: str) -> str:
    op = RmsNorm(dims=s.number(1, s.shapes[x].rank - 1), eps=1e-3, elementwise_affine=s.flag())
    return s.add(op, x)


def _permute(s: Sketch, x: str) -> str:
    left = list(range(1, s.shapes[x].rank))
    dims = [0]
    while left:
        dims.append(left.pop(s.number(0, len(left) - 1)))
    return s.add(Permute(dims=tuple(dims)), x)


def _pad(s: Sketch, x: str) -> str:
    rank = s.shapes[x].rank
    if s.flag():  # a shortcut between widths: channels padded with zeros
        return s.add(Pad(padding=(*(0,) * (2 * rank - 4), s.number(0, 1), s.number(0, 2))), x)
    if s.flag():
        return s.add(Pad(padding=(s.number(0, 1), s.number(1, 2)), value=0.5), x)
    padding = (1, 0, 0, 1)[: 2 * min(rank - 2, 2)]
    if not padding:
        raise OpError("nothing but channels")
    return s.add(Pad(padding=padding, mode=s.one_of(("reflect", "replicate", "circular"))), x)


def _shuffle(s: Sketch, x: str) -> str:
    """The channels dealt out anew: reshape, permute, reshape."""
    channels, *rest = s.shapes[x].sizes
    groups = s.one_of(divisors(channels))
    parts = s.add(Reshape(shape=(groups, -1, *rest)), x)
    dims = (0, 2, 1, *range(3, 3 + len(rest)))
    return s.add(Flatten(end_dim=2), s.add(Permute(dims=dims), parts))


def _pixels(s: Sketch, x: str) -> str:
    shape = s.shapes[x]
    if shape.size(1) % 4 == 0 and s.flag():
        return s.add(PixelShuffle(upscale_factor=2), x)
    return s.add(PixelUnshuffle(downscale_factor=2), x)


def _upsample(s: Sketch, x: str) -> str:
    factor = s.one_of((2.0, 0.5))
    return s.add(Upsample(scale_factor=factor) if s.flag() else Upsample(scale_factor=factor, mode="bilinear"), x)


def _transposed(s: Sketch, x: str) -> str:
    if s.number(0, 2) == 0:
        op = ConvTranspose2d(kernel_size=3, padding=1, depthwise=True, multiplier=s.number(1, 2), bias=s.flag())
    else:
        groups = s.one_of(divisors(s.shapes[x].size(1)))
        out = groups * s.number(1, 3)
        op = ConvTranspose2d(out_channels=out, kernel_size=2, stride=s.number(1, 2), groups=groups, bias=s.flag())
    return s.activation(s.add(op, x))


def _rows(s: Sketch, x: str) -> str:
    """A layer that slides along the rows of (channels, length)."""
    groups = s.one_of(divisors(s.shapes[x].size(1)))
    kind = s.one_of((Conv1d, ConvTranspose1d))
    return s.activation(s.add(kind(out_channels=groups * s.number(1, 3), kernel_size=2, padding=1, groups=groups), x))


def _attention(s: Sketch, x: str) -> str:
    """Several heads over (tokens, width), with the layers before them and the one behind, perhaps as a residual."""
    tokens, width = s.shapes[x].sizes
    heads, size = s.number(1, 2), s.number(1, 2)

    def split(value: str) -> str:
        return s.add(Permute(dims=(0, 2, 1, 3)), s.add(Reshape(shape=(tokens, -1, size)), value))

    q, k, v = (split(s.add(Linear(out_features=heads * size), x)) for _ in range(3))
    if s.flag():
        seen = s.add(Attention(is_causal=s.flag(), dropout_p=s.one_of((0.0, 0.0, 0.3))), q, k, v)
    else:
        seen = s.add(Attention(), q, k, v, s.add(Parameter(shape=(tokens, tokens), buffer=True)))
    joined = s.add(Flatten(start_dim=2), s.add(Permute(dims=(0, 2, 1, 3)), seen))
    out = s.add(Linear(out_features=width), joined)
    return s.add(Add(), x, out) if s.flag() else out


def _token(s: Sketch, x: str) -> str:
    """A learned row before all others, for every sample."""
    _, width = s.shapes[x].sizes
    token = s.add(Parameter(shape=(1, width) if s.flag() else (1, 1, width)))
    return s.add(Concat(), s.add(Expand(shape=(-1, -1) if s.shapes[token].rank == 3 else (1, -1)), token, x), x)


def _product(s: Sketch, x: str) -> str:
    shape = s.shapes[x]
    if shape.rank == 3 and s.flag():  # every row with every row
        return s.add(MatMul(), x, s.add(Permute(dims=(0, 2, 1)), x))
    return s.add(MatMul(), x, s.add(Parameter(shape=(shape.size(-1), s.width()))))


def _arithmetic(s: Sketch, x: str) -> str:
    """Functions without a parameter, on bounded numbers; where a function is partial, on positive ones."""
    small = s.add(s.one_of((Tanh(), Sin(), Erf())), x)
    square = s.add(Affine(scale=0.5, shift=0.5), s.add(Pow(exponent=2.0), small))
    last: Op = s.one_of((Sqrt(), Log(), Rsqrt(), Pow(exponent=-0.5), Affine(shift=-1.0)))
    value = s.add(last, square)
    if not s.smooth and s.flag():
        value = s.add(Clamp(max=0.4), value)
    return s.add(s.one_of((Sub, Mul))(), value, small) if s.flag() else s.add(Div(), small, square)


def _reduced(s: Sketch, x: str) -> str:
    """A statistic over an axis, alone or beside what it was taken from."""
    axis = s.number(1, s.shapes[x].rank - 1)
    if not s.smooth and s.flag():
        op: Op = Amax(dim=axis, keepdim=True)
    else:
        op = Mean(dim=axis, keepdim=True) if s.flag() else Var(dim=axis, correction=0, keepdim=True)
    found = s.add(op, x)
    return s.add(Sub(), x, found) if s.flag() else found


def _lookup(s: Sketch, x: str) -> str:
    """Vectors for the integers among the inputs, where there are any."""
    if "ids" not in s.shapes:
        raise OpError("there are no integers")
    return s.add(Embedding(num_embeddings=5, embedding_dim=s.width()), "ids")


def _mixture(s: Sketch, x: str) -> str:
    """Experts that a router on the same value chooses, by softly weighing all where a kink is no use."""
    count = s.number(2, 3)
    op = Experts(
        num_experts=count,
        hidden_features=s.width(),
        out_features=s.width(),
        activation="gelu",
        gated=s.flag(),
        top_k=0 if s.smooth else s.number(0, 2),
        weights=s.one_of(("chosen", "all")),
        bias=s.flag(),
    )
    return s.add(op, x, s.add(Linear(out_features=count), x))


def adapted(s: Sketch, x: str) -> str:
    """A layer with a low-rank adapter."""
    width = s.width()
    low = s.add(Linear(out_features=s.number(1, 2), bias=False), x)
    added = s.add(Linear(out_features=width, bias=False), low)
    if s.flag():
        added = s.add(Affine(scale=0.5), added)
    return s.add(Add(), s.add(Linear(out_features=width, bias=s.flag()), x), added)


BLOCKS: tuple[Move, ...] = (
    _in_groups,
    _root_mean_square,
    _permute,
    _pad,
    _shuffle,
    _product,
    _arithmetic,
    _reduced,
    _lookup,
    _mixture,
)
BLOCKS_ON_ROWS: tuple[Move, ...] = (_rows, _attention, _attention, _token)
BLOCKS_ON_IMAGES: tuple[Move, ...] = (_pixels, _upsample, _transposed)
