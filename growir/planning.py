"""Which passes lead from a graph to a larger one: depth, what callers hold, then widths, proved by equality of hashes.

    small   wte 100 x 32, blocks.0, blocks.1             large   wte 120 x 64, blocks.0 ... blocks.3

    depth     blocks has 2 blocks here and 4 there       two `stack`
    callers   wte knows 100 tokens here and 120 there    `extend`
    widths    each free space, by its size there         `widen`

Nothing here reads a tensor. A space of the one graph is found in the other by where it lies: on the same axis of the
value of the node of the same name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, cast

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    PlainSerializer,
    SerializeAsAny,
    ValidationError,
)

from growir.blocks import block_of, keeps_shape, members
from growir.channels import Analysis, ChannelSpace, analyse
from growir.columns import folded
from growir.difference import diff, lines
from growir.document import function_hash, parse, to_data
from growir.errors import GraphError, PassRefused, cut
from growir.fields import Record, field_problems
from growir.graph import Graph
from growir.ops import Embedding
from growir.ops.spaces import Axis, Space
from growir.passes import Extend, Sequence, Widen, deepen, pass_from_data
from growir.passes.deepening import Order, numbered_modules, numbers_of
from growir.passes.registry import pass_to_data
from growir.passes.resizing import in_turn
from growir.rewrite import Pass, Rewrite
from growir.shapes import shapes_of
from growir.verify import load

# How widths grow: as `widen` does it by itself, by copies of channels wherever these can be exact, or by fresh ones.
Widths = Literal["default", "copies", "fresh"]


def _read_pass(given: object) -> object:
    return pass_from_data(cast("Mapping[str, Any]", given)) if isinstance(given, Mapping) else given


def _read_graph(given: object) -> object:
    return load(dict(cast("Mapping[str, Any]", given))) if isinstance(given, Mapping) else given


class Saved(Record):
    """A tensor as a model's state_dict has it, under one of its names.

    Attributes:
        shape: Its shape.
        parameter: Its number among the model's parameters, which is that of its other names too; None for a buffer.
        trained: Whether it required a gradient when the plan was made.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    shape: tuple[int, ...]
    parameter: int | None = None
    trained: bool = False


class Plan(Record):
    """The pass that leads from a small model to a large one, with what is needed to carry it out on both of them.

    It is frozen and prints itself; `plan.model_dump_json()` writes it, and `Plan.model_validate_json(text)` reads it.

    Attributes:
        graph: The small model as a document.
        step: The pass; `step.passes` are its parts.
        before: The hash of the small graph, with nothing frozen.
        after: The hash of the large graph, with nothing frozen, to which the pass leads.
        small_keys: What the small model calls each tensor, by the document's key; constants have no name there.
        large_keys: The same of the large model, by the key of the large document.
        small_saved: The small model's state_dict without its numbers, for checkpoints of it.
        large_saved: The same of the large model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    graph: Annotated[InstanceOf[Graph], BeforeValidator(_read_graph), PlainSerializer(to_data)] = Field(repr=False)
    step: Annotated[SerializeAsAny[Pass], BeforeValidator(_read_pass), PlainSerializer(pass_to_data)]
    before: str
    after: str
    small_keys: Mapping[str, str] = Field(default_factory=dict[str, str], repr=False)
    large_keys: Mapping[str, str] = Field(default_factory=dict[str, str], repr=False)
    small_saved: Mapping[str, Saved] = Field(default_factory=dict[str, Saved], repr=False)
    large_saved: Mapping[str, Saved] = Field(default_factory=dict[str, Saved], repr=False)

    @cached_property
    def rewrite(self) -> Rewrite:
        """The pass carried out on the small graph. Raises PassRefused if it does not lead where the plan says."""
        done = self.step.rewrite(self.graph)
        if function_hash(done.graph) != self.after:
            raise PassRefused(
                f"the plan leads to a graph with hash {function_hash(done.graph)[:12]}, but says {self.after[:12]}; it "
                "was changed, or made by another growir: make it anew"
            )
        return done

    def __str__(self) -> str:
        parts = self.step.passes if isinstance(self.step, Sequence) else (self.step,)
        head = f"{self.before[:12]} -> {self.after[:12]}, preserves {self.rewrite.preserves}"
        callers = [f"  callers: {text}" for text in self.rewrite.callers]
        return folded("\n".join([head, *(f"  {part}" for part in parts), *callers]))


def read_plan(text: str | bytes, source: str = "") -> Plan:
    """The plan that `plan.model_dump_json()` wrote. Raises GraphError saying what is wrong with it, and where it is."""
    try:
        data = parse(text, "plan")
        if not isinstance(data, dict):
            raise GraphError("a plan is an object, as plan.model_dump_json() writes it")
        return Plan.model_validate(data)
    except ValidationError as error:
        raise GraphError(field_problems("", "a plan", error, Plan), source) from None
    except PassRefused as error:
        raise GraphError(f"step: {error}", source) from None
    except GraphError as error:
        raise error.at(source) from None


def leading(
    small: Graph, large: Graph, *, widths: Widths = "default", exact: bool = False, order: Order = "whole"
) -> Sequence:
    """The passes that lead from a graph to a larger one, as one.

    Args:
        small: The graph to grow.
        large: What it is to become, but for what is frozen.
        widths: How channels are added.
        exact: Whether new blocks start as the identity, so that the function is kept; else they are whole copies.
        order: Of which blocks the new ones are copies, and where they stand, as `deepen` says.

    Raises:
        PassRefused: The one is no growth of the other; the message has the first difference that is left.
    """
    depth = list(_depth(small, large, exact, order))
    current = Sequence(passes=tuple(depth)).rewrite(small).graph if depth else small
    held = list(_held(current, large))
    for step in held:
        current = step.rewrite(current).graph
    wider, stuck = _widths(current, large, widths)
    steps = (*depth, *held, *wider)
    if not steps:
        if function_hash(small) == function_hash(large):
            raise PassRefused("the two models have one graph, so there is nothing to grow")
        raise PassRefused(_left(small, large, stuck))
    whole = Sequence(passes=steps)
    done = whole.rewrite(small).graph
    if function_hash(done) != function_hash(large):
        raise PassRefused(_left(done, large, stuck))
    return whole


def _left(grown: Graph, large: Graph, stuck: list[str]) -> str:
    """What still differs between the small model, grown as far as was found, and the large one."""
    found = [
        line.text.strip() for line in lines(diff(grown, large)) if line.kind in ("added", "removed", "changed", "width")
    ]
    told = [text for text in found if not text.startswith(("---", "+++"))]
    why = f"; {stuck[0]}" if stuck else ""
    return (
        "the large model is no growth of the small one that passes lead to. The first difference that is left, from "
        f"the small one as far as it grows to the large one: {cut(told[0] if told else 'what is frozen', 300)}{why}"
    )


# -- depth ------------------------------------------------------------------------------------------------------------


def _depth(small: Graph, large: Graph, exact: bool, order: Order) -> Iterator[Pass]:
    """The blocks to add, list by list, the outer ones first, since their new blocks have inner lists too."""
    current = small
    for module in sorted(_lists(large), key=lambda name: (name.count("."), name)):
        have, want = numbers_of(current, module), numbers_of(large, module)
        if not have or len(have) == len(want):
            continue
        if len(have) > len(want):
            raise PassRefused(
                f"{cut(module)} has {len(have)} blocks in the small model and {len(want)} in the large one; growth "
                "takes none away"
            )
        first = next((n for k, n in enumerate(have) if all(_repeats(current, module, m) for m in have[k:])), have[-1])
        depth = len(want) - have.index(first)
        steps = deepen(current, module, depth=depth, first=first, order=order, exact=exact).passes
        yield from steps
        current = Sequence(passes=steps).rewrite(current).graph


def _lists(graph: Graph) -> set[str]:
    return {module.rpartition(".")[0] for module in numbered_modules(graph)}


def _repeats(graph: Graph, module: str, number: int) -> bool:
    block = block_of(graph, members(graph, f"{module}.{number}"))
    return not isinstance(block, str) and keeps_shape(graph, block)


# -- what callers hold ------------------------------------------------------------------------------------------------


def _held(graph: Graph, large: Graph) -> Iterator[Pass]:
    """The tables, inputs and outputs to lengthen."""
    current = graph
    for step in (*_tables(graph, large), *_inputs(graph, large)):
        yield step
        current = step.rewrite(current).graph
    for name in dict.fromkeys(current.outputs):
        if name not in large or name not in current:
            continue
        for axis, (old, new) in enumerate(zip(shapes_of(current)[name].dims, shapes_of(large)[name].dims)):
            if isinstance(old, int) and isinstance(new, int) and old != new:
                _check_larger(name, f"axis {axis} of its value", old, new)
                longer = Extend(node=name, axis=axis, by=new - old)
                yield longer
                current = longer.rewrite(current).graph


def _tables(graph: Graph, large: Graph) -> Iterator[Extend]:
    owners = set[str]()
    for node in graph.nodes:
        other = large[node.name].op if node.name in large else None
        if not (isinstance(node.op, Embedding) and isinstance(other, Embedding)):
            continue
        old, new = node.op.num_embeddings, other.num_embeddings
        owner = node.tied.get("weight", f"{node.name}.weight")
        if old != new and owner not in owners:
            _check_larger(node.name, "the table", old, new, "entries, tokens or positions,")
            yield Extend(node=node.name, by=new - old)
        owners.add(owner)


def _inputs(graph: Graph, large: Graph) -> Iterator[Extend]:
    there = {entry.name: entry.shape for entry in large.inputs}
    for entry in graph.inputs:
        for axis, (old, new) in enumerate(zip(entry.shape, there.get(entry.name, ()))):
            if isinstance(old, int) and isinstance(new, int) and old != new:
                _check_larger(entry.name, f"axis {axis}", old, new)
                yield Extend(node=entry.name, axis=axis, by=new - old)


def _check_larger(name: str, what: str, old: int, new: int, of: str = "entries") -> None:
    if new < old:
        raise PassRefused(
            f"{cut(name)}: {what} has {old} {of} in the small model and {new} in the large one; growth takes none away"
        )


# -- widths -----------------------------------------------------------------------------------------------------------


def _widths(graph: Graph, large: Graph, widths: Widths) -> tuple[list[Widen], list[str]]:
    """The spaces to widen, and why those that differ cannot be.

    Raises:
        PassRefused: A space is smaller in the large graph.
    """
    mine = analyse(graph)
    sizes = _sizes(mine, analyse(large))
    moved = set[Space]()
    found: list[Widen] = []
    stuck: list[str] = []
    for space in mine.spaces:
        size, wanted = space.space.size, sizes.get(space.space, space.space.size)
        if wanted == size or space.space in moved:
            continue
        if space.pins:
            reasons = "; ".join(str(pin) for pin in space.pins)
            stuck.append(f"{cut(space.name)} would go from {size} to {wanted}, but is pinned by {reasons}")
            continue
        if wanted < size:
            raise PassRefused(
                f"{cut(space.name)} is {space.width} wide in the small model and {space.width * wanted // size} in the "
                "large one; growth takes none away"
            )
        found.append(_widened(space, wanted - size, widths))
        moved.update(space.growth)
    return found, stuck


def _widened(space: ChannelSpace, more: int, widths: Widths) -> Widen:
    strides, rest = divmod(more, space.growth[space.space])
    # What is no whole number of strides `widen` refuses, saying which would be.
    by = more * space.width // space.units if rest else strides * space.stride
    if widths == "copies" and not space.tied:
        return Widen(node=space.name, by=by, copies=in_turn(space.space, more))
    return Widen(node=space.name, by=by)


def _sizes(mine: Analysis, theirs: Analysis) -> dict[Space, int]:
    """How large each space is in the other graph, by the first value that both have it on."""
    found: dict[Space, int] = {}
    for name, axes in mine.values.items():
        for axis, other in zip(axes, theirs.values.get(name, ())):
            for space, size in _matched(axis, other):
                found.setdefault(space, size)
    return found


def _matched(axis: Axis, other: Axis) -> Iterator[tuple[Space, int]]:
    if len(axis) != len(other):
        return
    for (space, block), (theirs, within) in zip(axis, other, strict=True):
        if space is not None and theirs is not None:
            yield space, theirs.size
        if not isinstance(block, int) and not isinstance(within, int):
            yield from _matched(block, within)
