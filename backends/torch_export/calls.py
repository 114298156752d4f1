"""One call of an exported program: which operator of torch it is, and its arguments by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import fx
from torch._ops import OpOverload

from growir.backends.torch_export.values import Held, Item, Spread, Unsupported, Value

if TYPE_CHECKING:
    from growir.backends.torch_export.reading import Reader


def overload(node: fx.Node) -> OpOverload[..., Any] | None:
    """The operator that a call calls, or None if it is a plain function or a higher-order operator."""
    return cast("OpOverload[..., Any]", node.target) if isinstance(node.target, OpOverload) else None


def default_of(node: fx.Node) -> dict[str, Any]:
    """The arguments of a call that have a default, and those."""
    op = overload(node)
    arguments = _schema(op).arguments if op is not None else []
    return {argument.name: argument.default_value for argument in arguments if argument.has_default_value()}


def _schema(op: OpOverload[..., Any]) -> torch.FunctionSchema:
    found: torch.FunctionSchema = op._schema  # pyright: ignore[reportPrivateUsage]  # torch has no public name for it
    return found


def full_name(node: fx.Node) -> str:
    """What a call calls, as messages say it: aten.relu_."""
    op = overload(node)
    if op is None:
        return str(getattr(node.target, "__name__", node.target))
    return _schema(op).name.replace("::", ".")


def writes(node: fx.Node) -> bool:
    """Whether a call changes its first argument; detach_ changes none of its numbers."""
    op = overload(node)
    if op is not None and _schema(op).name == "aten::detach_":
        return False
    first = _schema(op).arguments[:1] if op is not None else []
    return any(argument.alias_info is not None and argument.alias_info.is_write for argument in first)


def name_of(node: fx.Node) -> str:
    """The name of a call's entry in the table: relu for aten.relu_ as for aten.relu."""
    name = full_name(node).removeprefix("aten.")
    return name.rstrip("_") if writes(node) or name == "detach_" else name


def bound(node: fx.Node) -> dict[str, Any]:
    """A call's arguments by the names of its schema, defaults filled in."""
    op = overload(node)
    found: dict[str, Any] = {}
    for k, argument in enumerate(_schema(op).arguments if op is not None else []):
        if not argument.kwarg_only and k < len(node.args):
            found[argument.name] = node.args[k]
        elif argument.name in node.kwargs:
            found[argument.name] = node.kwargs[argument.name]
        else:
            found[argument.name] = argument.default_value if argument.has_default_value() else None
    return found


def tensor_of(node: fx.Node) -> torch.Tensor:
    """What export knows of a call's result: its sizes, dtype and memory."""
    found: torch.Tensor = node.meta["val"]
    return found


def cut_of(node: fx.Node) -> tuple[int, int, int]:
    """The axis, start and stop of a slice, narrow or select call, as far as they are plain numbers."""
    arguments, name = bound(node), name_of(node)
    source = tensor_of(cast(fx.Node, node.args[0]))
    dim = arguments["dim"] % source.dim()
    size = cast(object, source.shape[dim])
    if not isinstance(size, int):  # the batch
        return dim, 0, 2**62
    if name == "select":
        start = int(arguments["index"]) % size
        return dim, start, start + 1
    if name == "narrow":
        start = int(arguments["start"]) % size
        return dim, start, start + int(arguments["length"])
    start, stop, _ = slice(arguments["start"], arguments["end"]).indices(size)
    return dim, start, stop


def holds_tensor(node: fx.Node) -> bool:
    """Whether a call gives a tensor or several, and no size or number."""
    value = node.meta.get("val")
    if isinstance(value, (tuple, list)):
        return any(isinstance(part, torch.Tensor) for part in cast("Sequence[object]", value))
    return isinstance(value, torch.Tensor)


class Arguments(Mapping[str, Any]):
    """The arguments of a call by name; it knows which of them somebody has looked at."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given
        self.looked_at: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.looked_at.add(name)
        return self._given[name]

    def unseen(self, name: str) -> Any:
        """The same without taking note of it."""
        return self._given[name]

    def __contains__(self, name: object) -> bool:  # asking what there is tells nothing of what it says
        return name in self._given

    def __iter__(self) -> Iterator[str]:
        return iter(self._given)

    def __len__(self) -> int:
        return len(self._given)


class Call:
    """A call with its arguments as the reader knows them."""

    def __init__(self, reader: Reader, node: fx.Node) -> None:
        self.reader = reader
        self.node = node
        self.arguments = Arguments(bound(node))

    @property
    def name(self) -> str:
        """The name of its entry in the table."""
        return name_of(self.node)

    @property
    def result(self) -> torch.Tensor:
        """What export knows of the result: its sizes and dtype."""
        return tensor_of(self.node)

    @property
    def subject(self) -> Value:
        """The first argument, which calls that write name otherwise than those that do not."""
        return self.value(next(iter(self.arguments)))

    def item(self, name: str) -> Item | None:
        """A tensor argument as it stands, or None."""
        argument = self.arguments.get(name)
        return None if argument is None else cast(Item, self.reader.env[argument])

    def held(self, name: str) -> Held | None:
        """A tensor argument that does not depend on the inputs and needs no node, or None if it is not given."""
        found = self.item(name)
        return found if isinstance(found, Held) else None

    def constant(self, name: str) -> Held | Spread | None:
        """A tensor argument that is no parameter and depends on no input, or None."""
        found = self.item(name)
        if isinstance(found, Spread) or (isinstance(found, Held) and not found.trained):
            return found
        return None

    def value(self, name: str) -> Value:
        """A tensor argument as a value of the graph."""
        found = self.item(name)
        if found is None:
            raise Unsupported(f"is called without {name}")
        return self.reader.value(found)

    def values(self, name: str) -> list[Value]:
        """A list of tensors as values of the graph."""
        nodes = cast("Sequence[fx.Node]", self.arguments[name])
        return [self.reader.value(cast(Item, self.reader.env[node])) for node in nodes]

    def shape(self, name: str) -> torch.Size:
        """The sizes of a tensor argument, as export reports them."""
        return tensor_of(cast(fx.Node, self.arguments[name])).shape

    def is_tensor(self, name: str) -> bool:
        """Whether the argument is a tensor and no number."""
        argument = self.arguments.get(name)
        return isinstance(argument, fx.Node) and isinstance(argument.meta.get("val"), torch.Tensor)

    def get(self, name: str) -> Any:
        """A number, flag or None."""
        return self.reader.number(self.arguments.get(name))

    def whole(self, name: str) -> int:
        """A whole number."""
        return int(self.get(name))

    def real(self, name: str) -> float:
        """A number; also of a constant tensor that holds one."""
        held = self.held(name) if self.is_tensor(name) else None
        return float(held.tensor) if held is not None else float(self.get(name))

    def ints(self, name: str) -> list[int]:
        """Whole numbers; one given for all stands alone."""
        found = self.arguments.get(name)
        if found is None:
            return []
        listed = cast("Sequence[Any]", found if isinstance(found, (list, tuple)) else [found])
        return [int(self.reader.number(entry)) for entry in listed]
