"""Networks of stages by the names that papers give them: Basic3ResNet-2-3-2 read into a graph, and printed from one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

from growir.blocks import layer_count
from growir.drafting import Draft
from growir.errors import GraphError, GrowirError, counted, cut
from growir.graph import Graph
from growir.images import to_maps
from growir.nearest import suggestion
from growir.ops import Add, BatchNorm, Conv2d, Flatten, Linear, MaxPool2d, Op, Relu, Standardise
from growir.ops.pool import AdaptiveAvgPool2d
from growir.stages import Stage, is_residual, stages_of

LAYERS: Final[Mapping[str, int]] = {"Basic": 2, "Bottleneck": 3, "Plain": 2}
EXPANSION = 4  # of the last layer of a bottleneck
LARGE = 64  # pixels from which on images are first made smaller
DEEPEST = 1000  # blocks of a stage
_NAME = re.compile(r"(Basic|Bottleneck|Plain)([1-9])(ResNet|Net)((?:-[1-9][0-9]{0,5})*)\Z")


@dataclass(frozen=True, slots=True)
class Family:
    """What a name such as Basic3ResNet-2-3-2 says.

    Attributes:
        kind: "Basic" or "Bottleneck", which are residual, or "Plain".
        depths: The number of blocks of each stage.
    """

    kind: str
    depths: tuple[int, ...]

    @property
    def residual(self) -> bool:
        """Whether its blocks have shortcuts."""
        return self.kind != "Plain"

    def __str__(self) -> str:
        net = "ResNet" if self.residual else "Net"
        return f"{self.kind}{len(self.depths)}{net}-{'-'.join(map(str, self.depths))}"


def family(name: str) -> Family:
    """What a name says; without depths each stage has one block, as the seeds of AutoGrow (Wen et al. 2020) do.

    Raises:
        GrowirError: It is no such name, or its depths are not one number for each stage.
    """
    found = _NAME.match(name) if isinstance(cast("object", name), str) else None
    if found is None or (found[1] == "Plain") != (found[3] == "Net"):
        known = ["Basic3ResNet", "Basic4ResNet", "Bottleneck4ResNet", "Plain3Net", "Plain4Net"]
        raise GrowirError(
            f"{cut(name)!r} names no network; a name is Basic3ResNet-2-3-2, Bottleneck4ResNet or Plain3Net-1-1-1, say."
            f"{suggestion(str(name), known)}"
        )
    stages, depths = int(found[2]), tuple(int(depth) for depth in found[4].split("-")[1:])
    if depths and len(depths) != stages:
        raise GrowirError(
            f"{cut(name)}: it has {counted(stages, 'stage')}, but {counted(len(depths), 'depth')}; one each is needed"
        )
    if any(not 1 <= depth <= DEEPEST for depth in depths):
        raise GrowirError(f"{cut(name)}: a stage has 1 to {DEEPEST} blocks")
    return Family(found[1], depths or (1,) * stages)


def family_of(graph: Graph) -> Family | None:
    """The family of a graph, if all of its stages are of blocks of one kind."""
    stages = stages_of(graph)
    kinds = {kind_of(graph, stage) for stage in stages}
    kind = kinds.pop() if len(kinds) == 1 else None
    return None if kind is None or len(stages) > 9 else Family(kind, tuple(stage.depth for stage in stages))


def kind_of(graph: Graph, stage: Stage) -> str | None:
    """The kind of a stage's blocks, by whether they are residual and how many layers they have; None of others."""
    block = stage.blocks[-1]
    if not all(_plain(graph[name].op) for name in block.nodes):
        return None
    total = any(isinstance(graph[name].op, Add) for name in block.nodes)
    residual = is_residual(graph, block) if stage.repeated is not None else total
    layers = layer_count(graph, block)
    if not residual:
        return "Plain" if layers == LAYERS["Plain"] and not total else None
    if stage.repeated is None and layers - 1 in (2, 3):
        layers -= 1  # the projection of a head
    return next((kind for kind, count in LAYERS.items() if count == layers and kind != "Plain"), None)


def _plain(op: Op) -> bool:
    """Whether an operator is one of those that the blocks of He et al. 2016 are made of."""
    if isinstance(op, Conv2d):
        return op.groups == 1 and not op.depthwise
    return isinstance(op, BatchNorm | Relu | Add)


def network(
    name: str, shape: Sequence[int], classes: int, *, width: int | None = None, standardised: bool = False
) -> Graph:
    """The graph of a name, for images: (channels, height, width), (height, width, channels) or (height, width).

    The first convolution and the first stage have `width` channels, and each stage twice as many as the one before, at
    half the size. The last layer of a bottleneck has four times the channels of its stage. Shortcuts across stages are
    1 x 1 convolutions with norms. Images of at least 64 pixels are first made smaller four times (He et al. 2016).

    Args:
        name: As `family` reads it.
        shape: Of an image; it has 1, 3 or 4 channels where these come last.
        classes: Outputs of the last layer.
        width: By default 16 for three stages and 64 for any other number, as in the paper.
        standardised: Whether a node in front takes one mean from all numbers and divides them by one std.

    Raises:
        GrowirError: The name is none, or the shape is not that of images.
    """
    found = family(name)
    try:
        front = to_maps(tuple(shape))
    except (GraphError, TypeError) as error:
        raise GrowirError(f"{found}: {error}") from None
    if type(classes) is not int or classes < 1:
        raise GrowirError(f"{found}: it has one class or more, but classes is {classes!r}")
    if width is not None and (type(width) is not int or width < 1):
        raise GrowirError(f"{found}: the first stage has one channel or more, but width is {width!r}")
    build = Draft({"image": shape})
    first = width or (16 if len(found.depths) == 3 else 64)
    for op in front:
        build.add("map", op)
    if standardised:
        build.add("standard", Standardise(dims=0))
    if min(sorted(shape)[-2:]) >= LARGE:
        build.add("stem.conv", Conv2d(out_channels=first, kernel_size=7, stride=2, padding=3, bias=False))
        build.add("stem.norm", BatchNorm())
        build.add("stem.act", Relu())
        build.add("stem.pool", MaxPool2d(kernel_size=3, stride=2, padding=1))
    else:
        build.add("stem.conv", Conv2d(out_channels=first, kernel_size=3, padding=1, bias=False))
        build.add("stem.norm", BatchNorm())
        build.add("stem.act", Relu())
    before = first
    for k, depth in enumerate(found.depths):
        inner = first * 2**k
        outer = inner * EXPANSION if found.kind == "Bottleneck" else inner
        for j in range(depth):
            stride = 2 if k and not j else 1
            _block(build, f"stage{k + 1}.{j}", found, inner, outer, stride, projected=stride != 1 or before != outer)
            before = outer
    build.add("pool", AdaptiveAvgPool2d(output_size=1))
    build.add("flat", Flatten())
    build.add("head", Linear(out_features=classes))
    return build.graph(str(found))


def _block(build: Draft, name: str, of: Family, inner: int, outer: int, stride: int, *, projected: bool) -> None:
    entry = build.value
    # Of a bottleneck the convolution in the middle has the stride.
    layers = [(1, 1, inner), (3, stride, inner), (1, 1, outer)]
    for k, (kernel, step, width) in enumerate(
        layers if of.kind == "Bottleneck" else [(3, stride, inner), (3, 1, outer)], 1
    ):
        if k > 1:
            build.add(f"{name}.act{k - 1}", Relu())
        conv = Conv2d(out_channels=width, kernel_size=kernel, stride=step, padding=kernel // 2, bias=False)
        build.add(f"{name}.conv{k}", conv)
        build.add(f"{name}.norm{k}", BatchNorm())
    if of.residual:
        value, shortcut = build.value, entry
        if projected:
            conv = Conv2d(out_channels=outer, kernel_size=1, stride=stride, bias=False)
            build.add(f"{name}.shortcut.conv", conv, entry)
            shortcut = build.add(f"{name}.shortcut.norm", BatchNorm())
        build.add(f"{name}.sum", Add(), value, shortcut)
    build.add(f"{name}.act", Relu())
