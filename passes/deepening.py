"""Several blocks more in a list of them, as one sequence of `stack`: which block each place starts as.

Blocks 0 1 2 3, two more     "whole"   0 1 2 3 0 1      the run again behind itself (Shen et al. 2022, Du et al. 2024)
                             "each"    0 0 1 2 2 3      every block again behind itself, as evenly as it goes
                             "middle"  0 1 2 1 2 3      those around the middle again (Saunshi et al. 2024)
"""

from __future__ import annotations

from collections.abc import Sequence as Sequence_
from typing import Literal, get_args

from growir.blocks import Block, block_of, keeps_shape, members
from growir.errors import PassRefused, cut
from growir.graph import Graph
from growir.nearest import alternatives, one_of
from growir.passes.sequence import Sequence
from growir.passes.stack import Stack

Order = Literal["whole", "each", "middle"]


def deepen(
    graph: Graph,
    module: str,
    *,
    times: int = 2,
    depth: int | None = None,
    first: int | None = None,
    last: int | None = None,
    order: Order = "whole",
    exact: bool = False,
    copy_weights: bool = True,
) -> Sequence:
    """A list of blocks made deeper by one sequence of passes, with the numbers that a deeper class would give.

    Args:
        graph: The graph.
        module: The module that lists the blocks, such as "blocks" or "transformer.h".
        times: How often the run of blocks is there afterwards.
        depth: How many blocks it has afterwards, in place of `times`.
        first: The number of the first block that is repeated; by default the first of the list.
        last: The number of the last; by default the last of the list.
        order: Which blocks the new ones are copies of, and where they stand: "whole", "each" or "middle".
        exact: Whether new blocks start as the identity, so that the function is kept; else it changes.
        copy_weights: Whether new blocks have the weights of those that they repeat, and their optimizer state.

    Raises:
        PassRefused: There is no such list, its blocks do not follow one another, or it would not become deeper.
    """
    numbers = numbers_of(graph, module)
    if not numbers:
        lists = sorted({name.rpartition(".")[0] for name in numbered_modules(graph)})
        raise PassRefused(f"deepen: {cut(module)!r} lists no blocks.{alternatives(module, lists)}")
    run = [n for n in numbers if (first is None or n >= first) and (last is None or n <= last)]
    if not run or (first is not None and first != run[0]) or (last is not None and last != run[-1]):
        raise PassRefused(
            f"deepen: {cut(module)!r} has no blocks {first} to {last}; it has {numbers[0]} to {numbers[-1]}"
        )
    if order not in get_args(Order):
        raise PassRefused(f"deepen: order is {order!r}, but it is {one_of([repr(one) for one in get_args(Order)])}")
    wanted = times * len(run) if depth is None else depth
    if wanted <= len(run):
        raise PassRefused(f"deepen: {cut(module)!r} has {len(run)} such blocks and would have {wanted}; give more")
    return Sequence(passes=_steps(graph, module, run, sources_of(len(run), wanted, order), exact, copy_weights))


def numbers_of(graph: Graph, module: str) -> list[int]:
    """The numbers of the blocks that a module lists."""
    return sorted(
        {int(name.rpartition(".")[2]) for name in numbered_modules(graph) if name.rpartition(".")[0] == module}
    )


def sources_of(depth: int, wanted: int, order: Order) -> list[int]:
    """For each place of the deeper run, the block of the old one that it is or starts as."""
    if order == "each":
        return [place * depth // wanted for place in range(wanted)]
    if order == "whole":
        return [place % depth for place in range(wanted)]
    found = list(range(depth))
    while len(found) < wanted:
        more = min(wanted - len(found), len(found))
        start = (len(found) - more) // 2
        found = [*found[: start + more], *found[start:]]
    return found


def _steps(
    graph: Graph, module: str, run: Sequence_[int], sources: Sequence_[int], exact: bool, copy_weights: bool
) -> tuple[Stack, ...]:
    """One pass for each place that is new, from the front to the back."""
    blocks = _chain(graph, module, run)
    kept = [sources.index(k) for k in range(len(run))]  # where each old block comes to stand
    behind = numbers_of(graph, module)[-1] > run[-1]
    found: list[Stack] = []
    chain = list(range(len(run)))  # by place, the old block that stands there, or that the new one there repeats
    old = list(range(len(run)))  # by old block, where it stands by now
    for place, source in enumerate(sources):
        if place == kept[source]:
            continue
        end = f"{module}.{run[0] + place - 1}{_inside(blocks[chain[place - 1]].output, module)}"
        between = place < len(chain) or behind
        found.append(
            Stack(
                block=f"{module}.{run[0] + old[source]}",
                after=end,
                copy_weights=copy_weights,
                exact=exact,
                module=f"{module}.{run[0] + place}",
                shift=between,
            )
        )
        chain.insert(place, source)
        old = [at + (at >= place) for at in old]
    return tuple(found)


def _chain(graph: Graph, module: str, run: Sequence_[int]) -> list[Block]:
    """The blocks of a run, each of which reads what the one before it gives. Raises PassRefused if they do not."""
    found: list[Block] = []
    for number in run:
        name = f"{module}.{number}"
        block = block_of(graph, members(graph, name))
        if isinstance(block, str):
            raise PassRefused(f"deepen: {cut(name)!r} is no block: {block}")
        if found and (other := found[-1].output) != block.input:
            following = block_of(graph, block.nodes, other) if other in block.beside else block
            if isinstance(following, str) or following.input != other:
                raise PassRefused(f"deepen: {cut(name)!r} does not read what {module}.{number - 1} gives, {cut(other)}")
            block = following
        if not keeps_shape(graph, block):
            raise PassRefused(
                f"deepen: {cut(name)!r} does not give the shape that it reads, so it cannot be repeated; say by first "
                "and last which blocks are"
            )
        found.append(block)
    return found


def _inside(name: str, module: str) -> str:
    """What stands behind the number of a block in a node's name, the dot included."""
    rest = name[len(module) + 1 :]
    return rest[rest.index(".") :]


def numbered_modules(graph: Graph) -> set[str]:
    """The paths of all modules of a graph whose last part is a number."""
    found: set[str] = set()
    for node in graph.nodes:
        parts = node.name.split(".")
        found.update(".".join(parts[: k + 1]) for k in range(1, len(parts) - 1) if parts[k].isdigit())
    return found
