"""What train mode does otherwise than eval mode: dropout, batch statistics, and code that asks `self.training`."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

from torch import fx
from torch.export import ExportedProgram

from growir.backends.torch_export.calls import holds_tensor, name_of, overload, writes
from growir.backends.torch_export.exporting import source_line

MAX_LINES = 8


def twins(exported: ExportedProgram, training: ExportedProgram) -> tuple[dict[fx.Node, fx.Node], list[fx.Node]]:
    """The train-mode call for each eval-mode call, and the calls of either that the other has not."""
    one, two = _calls(exported), _calls(training)
    names = [name_of(node) for node in one], [name_of(node) for node in two]
    if names[0] == names[1]:
        return dict(zip(one, two, strict=True)), []
    found: dict[fx.Node, fx.Node] = {}
    strange: list[fx.Node] = []
    for tag, a, b, c, d in SequenceMatcher(None, *names, autojunk=False).get_opcodes():
        if tag == "equal":
            found.update(zip(one[a:b], two[c:d], strict=True))
        else:
            strange += [*one[a:b], *two[c:d]]
    return found, strange


def _calls(program: ExportedProgram) -> list[fx.Node]:
    """The calls that make the result, in order; batch norm's counters and arithmetic on sizes are none."""
    result: list[fx.Node] = []
    for node in program.graph.nodes:
        called = node.op == "call_function" and overload(node) is not None and holds_tensor(node)
        if called and not _counts(node) and not _lifts(node):
            result.append(node)
    return result


def _lifts(node: fx.Node) -> bool:
    """Whether a call only brings in a number of the model's code."""
    if name_of(node) == "detach" and isinstance(node.args[0], fx.Node) and node.args[0].op == "call_function":
        node = node.args[0]
    return name_of(node) == "lift_fresh_copy"


def _counts(node: fx.Node) -> bool:
    """Whether a call changes a buffer in place; of a module used twice, the second changes the first one's result."""
    while writes(node) and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    return node.op == "placeholder"


def notice_of(strange: Sequence[fx.Node]) -> str:
    """One warning for all the lines of the model that these calls come from."""
    lines = list(dict.fromkeys(source_line(node) for node in strange))
    shown = "".join(f"\n  {line}" for line in lines[:MAX_LINES])
    more = f"\n  ... and {len(lines) - MAX_LINES} more" if len(lines) > MAX_LINES else ""
    return f"the model does something else in train mode, which the network does not have:{shown}{more}"
