"""Stages: runs of equal blocks, found by the names of modules and, where these say nothing, by structure.

stem -> layer1.0 -> layer1.1 -> layer2.0 -> layer2.1 -> fc          layer1 of 2 blocks, layer2 of 2
x -> conv, relu -> conv, relu -> conv, relu -> fc                   one stage of as many pairs as are equal
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from growir.blocks import Block, Structure, block_of, document_of, keeps_shape, layer_count, structure
from growir.errors import GraphError, cut
from growir.graph import Graph, Node, per_graph
from growir.layers import is_layer, ranges_of
from growir.ops import Add
from growir.ops.conv import Convolution
from growir.ops.pool import WindowPool
from growir.shapes import shapes_of
from growir.verify import verify
from growir.zeroing import identity_at

PERIOD = 12  # the most parts that are looked at as one that repeats
PROJECTED = 2  # layers that a head may have more than the blocks behind it: a projection in its shortcut
LEAST = 2  # layers of a module that is a stage by itself; a single layer is a layer


@dataclass(frozen=True, slots=True)
class Stage:
    """A run of blocks, each of which reads what the one before it gives.

    Attributes:
        name: Of the module that lists the blocks; where there is none, or it lists several stages, of the first block.
        blocks: In the order in which values pass through them.
        headed: Whether the first block is another than the rest, because it changes the size or the width.
    """

    name: str
    blocks: tuple[Block, ...]
    headed: bool

    @property
    def depth(self) -> int:
        """How many blocks it has, the head included."""
        return len(self.blocks)

    @property
    def repeated(self) -> Block | None:
        """The last of the blocks that can be repeated as they are; None where there is only the head."""
        return None if self.headed and self.depth == 1 else self.blocks[-1]


@per_graph
def stages_of(graph: Graph) -> tuple[Stage, ...]:
    """All stages of a graph, in the order in which values pass through them; no two have a node in common."""
    found: list[Stage] = []
    taken: set[str] = set()

    def take(stages: Sequence[Stage]) -> None:
        for stage in stages:
            nodes = {name for block in stage.blocks for name in block.nodes}
            if not nodes & taken:
                taken.update(nodes)
                found.append(stage)

    # The innermost lists first, since a list of stages is a list of blocks too; but what has one layer is no block
    # where it stands in one. Of lists of a single block nobody knows that they are lists.
    listed = sorted(_by_modules(graph), key=lambda stage: -stage.name.count("."))
    large = [layer_count(graph, stage.blocks[-1]) >= LEAST for stage in listed]
    take([stage for stage, several in zip(listed, large, strict=True) if stage.depth > 1 and several])
    take([stage for stage in listed if stage.depth == 1])
    take([stage for stage, several in zip(listed, large, strict=True) if stage.depth > 1 and not several])
    take(_by_structure(graph, taken))
    order = {node.name: k for k, node in enumerate(graph.nodes)}
    return tuple(sorted(found, key=lambda stage: order[stage.blocks[0].output]))


# -- by names ---------------------------------------------------------------------------------------------------------


def _by_modules(graph: Graph) -> Iterator[Stage]:
    """The stages of every module whose children are numbers."""
    lists: dict[str, dict[str, list[str]]] = {}
    for node in graph.nodes:
        parts = node.name.split(".")
        for k in range(1, len(parts) - 1):
            if parts[k].isdigit():
                children = lists.setdefault(".".join(parts[:k]), {})
                children.setdefault(".".join(parts[: k + 1]), []).append(node.name)
    for name, children in lists.items():
        blocks = _linked(graph, [b for nodes in children.values() if isinstance(b := block_of(graph, nodes), Block)])
        runs = [run for chain in _chains(blocks) for run in _runs(graph, chain)]
        for run in runs:
            headed = not _repeats(graph, run)
            if len(run) == 1 and (layer_count(graph, run[0]) < LEAST or isinstance(repeat_of(graph, run[0]), str)):
                continue
            yield Stage(name if len(runs) == 1 else _child(name, run[0]), tuple(run), headed)


def _linked(graph: Graph, blocks: Sequence[Block]) -> list[Block]:
    """The same blocks, of which each that reads what another gives reads that as the value of its chain."""
    outputs = {block.output for block in blocks}
    found: list[Block] = []
    for block in blocks:
        given = [name for name in block.beside if name in outputs and block.input not in outputs]
        other = block_of(graph, block.nodes, given[0]) if len(given) == 1 else block
        found.append(other if isinstance(other, Block) else block)
    return found


def _child(name: str, block: Block) -> str:
    """The path of the child of a module that a block is."""
    return ".".join(block.nodes[0].split(".")[: name.count(".") + 2])


def _chains(blocks: Sequence[Block]) -> Iterator[list[Block]]:
    """Blocks in the order in which values pass through them, as far as one reads what another gives."""
    after = {block.input: block for block in reversed(blocks)}
    outputs = {block.output for block in blocks}
    seen: set[str] = set()
    for first in blocks:
        if first.input in outputs or first.output in seen:
            continue
        chain = [first]
        while (following := after.get(chain[-1].output)) is not None:
            chain.append(following)
        seen.update(block.output for block in chain)
        yield chain


def _runs(graph: Graph, chain: Sequence[Block]) -> Iterator[list[Block]]:
    """A chain cut where a block is neither equal to the one before it nor what a head is followed by."""
    run: list[Block] = []
    before: Structure = ()  # of the last block of the run
    for block in chain:
        now = structure(graph, block)
        follows = bool(run) and keeps_shape(graph, block)
        if follows and now != before:
            follows = len(run) == 1 and _heads(graph, run[0], block)
        if run and not follows:
            yield run
            run = []
        run.append(block)
        before = now
    if run:
        yield run


def _heads(graph: Graph, head: Block, block: Block) -> bool:
    """Whether a block may be the first of a stage: as what follows, with a projection or another size or width."""
    mine, theirs = _kinds(graph, head), _kinds(graph, block)
    more = layer_count(graph, head) - layer_count(graph, block)
    return theirs <= mine and 0 <= more <= PROJECTED and layer_count(graph, block) >= LEAST


def _kinds(graph: Graph, block: Block) -> Counter[str]:
    """The operators of a block but for sums, which a head without a shortcut lacks."""
    return Counter(graph[name].op.kind() for name in block.nodes if not isinstance(graph[name].op, Add))


def _repeats(graph: Graph, run: Sequence[Block]) -> bool:
    """Whether the first block of a run is as all others."""
    if not keeps_shape(graph, run[0]):
        return False
    return len(run) == 1 or structure(graph, run[0]) == structure(graph, run[1])


# -- by structure -----------------------------------------------------------------------------------------------------


def _by_structure(graph: Graph, taken: set[str]) -> list[Stage]:
    """The longest repetitions between values that everything passes through, outside of some nodes."""
    found: list[Stage] = []
    for parts in _spine(graph, taken):
        blocks = [block_of(graph, part) for part in parts]
        known: dict[Structure, int] = {}  # numbers, which are quick to compare
        kinds = [
            known.setdefault(structure(graph, block), len(known)) if isinstance(block, Block) else None
            for block in blocks
        ]
        at = 0
        while at < len(parts):
            period, count = _repetition(kinds, at)
            units = [
                block_of(graph, [name for part in parts[k : k + period] for name in part])
                for k in range(at, at + period * count, period)
            ]
            run = [unit for unit in units if isinstance(unit, Block) and keeps_shape(graph, unit)]
            if count > 1 and len(run) == count and layer_count(graph, run[0]):
                found.append(Stage(run[0].nodes[0], tuple(run), headed=False))
                at += period * count
            else:
                at += 1
    return found


def _spine(graph: Graph, taken: set[str]) -> Iterator[list[list[str]]]:
    """The nodes between values that everything passes through, in runs that the nodes already taken interrupt."""
    position = {node.name: k for k, node in enumerate(graph.nodes)}
    last = {name: max(map(position.__getitem__, readers), default=-1) for name, readers in graph.consumers.items()}
    last |= dict.fromkeys(graph.outputs, len(graph.nodes))
    run: list[list[str]] = []
    part: list[str] = []
    reach = max(last[entry.name] for entry in graph.inputs)  # the last node that reads what came before this one
    for k, node in enumerate(graph.nodes):
        part.append(node.name)
        if reach <= k:
            if taken.isdisjoint(part):
                run.append(part)
            elif run:
                yield run
                run = []
            part = []
        reach = max(reach, last[node.name])
    if run:
        yield run


def _repetition(kinds: Sequence[int | None], at: int) -> tuple[int, int]:
    """How many parts from one on repeat, and how often: what covers most, and of these the shortest."""
    best = (1, 1)
    for period in range(1, min(PERIOD, (len(kinds) - at) // 2) + 1):
        unit = kinds[at : at + period]
        if None in unit:
            break
        count = 1
        while kinds[at + count * period : at + (count + 1) * period] == unit:
            count += 1
        if count > 1 and count * period > best[0] * best[1]:
            best = (period, count)
    return best


# -- what repeats -----------------------------------------------------------------------------------------------------


def repeat_of(graph: Graph, block: Block) -> Graph | str:
    """A document of what can stand behind a block again and again; or why there is none.

    It is the block itself where that keeps its shape. Of one that changes the size or the width, strides become 1 and
    what stands in the shortcut goes.
    """
    document = document_of(graph, block)
    if isinstance(document, str) or keeps_shape(graph, block):
        return document
    shape = shapes_of(graph)[block.output]
    if not shape.batched:
        return f"its output {cut(block.output)} has no batch axis"
    try:
        entry = document.inputs[0].model_copy(update={"shape": ("N", *shape.sizes), "dtype": shape.dtype})
        nodes = _without_shortcut([_steady(node) for node in document.nodes], document)
        steady = verify(document.replace(inputs=[entry], nodes=nodes))
        found = shapes_of(steady)[steady.outputs[0]]
    except GraphError as error:
        return f"it cannot stand behind itself: {error}"
    return steady if found == shape else f"behind itself it gives {found} and reads {shape}"


def _steady(node: Node) -> Node:
    """A node that leaves the size of its map as it is, where it is a layer or a pool."""
    return node.with_op(stride=1) if isinstance(node.op, Convolution | WindowPool) else node


def _without_shortcut(nodes: Sequence[Node], document: Graph) -> list[Node]:
    """The nodes without what stands between the input and the last sum on the way with the fewest layers."""
    entry = document.inputs[0].name
    total = next((node for node in reversed(nodes) if isinstance(node.op, Add)), None)
    if total is None or entry in total.inputs:
        return list(nodes)
    ways = [_before(document, value) for value in total.inputs]
    short = min(range(len(ways)), key=lambda k: sum(is_layer(document, name) for name in ways[k]))
    rest = set[str]().union(*(way for k, way in enumerate(ways) if k != short))
    inputs = [entry if k == short else value for k, value in enumerate(total.inputs)]
    gone = ways[short] - rest
    kept = [node for node in nodes if node.name not in gone]
    return [node.with_inputs(inputs) if node.name == total.name else node for node in kept]


def _before(graph: Graph, name: str) -> set[str]:
    """A node and all that it depends on."""
    found: set[str] = set()
    stack = [name]
    while stack:
        name = stack.pop()
        if name in graph and name not in found:
            found.add(name)
            stack.extend(graph[name].inputs)
    return found


def is_residual(graph: Graph, block: Block) -> bool:
    """Whether a block gives back what it reads where its last weights are zero."""
    return not isinstance(identity_at(graph, block, ranges_of(graph)[block.output]), str)
