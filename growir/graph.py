"""The graph document in memory: inputs, nodes in topological order, outputs, and how it came to be."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, Self, TypeVar, cast
from weakref import ref

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    PlainSerializer,
    PrivateAttr,
    SerializeAsAny,
    StrictStr,
    WithJsonSchema,
    model_validator,
)

from growir import names
from growir.errors import MAX_PROBLEMS, GraphError, GrowirError, Problem, cut
from growir.fields import Record
from growir.identity import content_hash
from growir.nearest import alternatives, suggestion
from growir.ops import OP_BY_KIND, DType, Op
from growir.ops.base import MAX_ENTRIES, MAX_INT, PositiveInt

if TYPE_CHECKING:
    import networkx

    from growir.costs import Costs

SCHEMA = "growir/1"
MAX_RANK = 64  # axes of an input; torch has no more
MAX_STEPS = 10_000
MAX_TEXT = 10_000  # characters of a source or a difference
MAX_DIFFERENCES = 100  # entries of `train_differs`
MAX_REFERENCE = 1000  # characters of what names a value or a space in a pass

T = TypeVar("T")


class _Frozen(Record):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _named(name: str) -> str:
    if wrong := names.fault(name):
        raise ValueError(wrong)
    return name


Name = Annotated[
    StrictStr,
    AfterValidator(_named),
    WithJsonSchema({"type": "string", "maxLength": names.MAX_LENGTH, "pattern": names.PATTERN}),
]
# What a pass is told to work on.
Reference = Annotated[str, Field(max_length=MAX_REFERENCE)]


def _input_shape(shape: object) -> object:
    """Say in one sentence what pydantic would say of each axis."""
    if not isinstance(shape, list | tuple):
        raise ValueError('a list is needed, ["N", size, ...]')
    axes = cast("Sequence[object]", shape)
    if not axes or axes[0] != "N" or "N" in axes[1:]:
        raise ValueError('it must be ["N", size, ...] with the batch first')
    if len(axes) > MAX_RANK:
        raise ValueError(f"it has {len(axes)} axes; at most {MAX_RANK} may be")
    if not all(type(size) is int and 1 <= size <= MAX_INT for size in axes[1:]):
        raise ValueError(f"sizes are whole numbers from 1 to {MAX_INT}")
    return axes


def _named_refusal(what: str, fields: Mapping[str, Any], problems: list[Problem]) -> GraphError:
    """The problems of an input or a node, which is called by its name if it was given one."""
    where = f"{what} {cut(fields['name'])!r}" if "name" in fields else what
    return GraphError([Problem(where, problem.text) for problem in problems])


class Input(_Frozen):
    """A value the caller supplies; the first axis is the batch "N".

    Raises:
        GraphError: The shape is none that an input can have, or the dtype is unknown.
    """

    name: StrictStr
    shape: Annotated[
        tuple[Literal["N"] | PositiveInt, ...], Field(min_length=1, max_length=MAX_RANK), BeforeValidator(_input_shape)
    ]
    dtype: DType = "float32"

    @classmethod
    def record_title(cls) -> str:
        return "an input"

    @classmethod
    def refusal(cls, fields: Mapping[str, Any], problems: list[Problem]) -> GrowirError:
        return _named_refusal("input", fields, problems)


class UnknownName(GraphError, KeyError):
    """There is no node of a name that was looked up in a graph."""

    __str__ = Exception.__str__  # a KeyError would show its text in quotes


class FixedSize(_Frozen):
    """An axis of an input whose size in the import's example became a number of the graph: no other size is right.

    The size itself is the one in the input's shape.

    Attributes:
        input: The input's name.
        axis: The axis, 1 or more; the batch is never fixed.
        why: The line of the model that uses the size as a number; empty if it is not known.
    """

    input: StrictStr
    axis: Annotated[int, Field(strict=True, ge=1, le=MAX_INT)]
    why: Annotated[StrictStr, Field(max_length=MAX_TEXT)] = ""


class Ties(Mapping[str, str]):
    """Which parameters of a node belong to others; like the node, it does not change."""

    # Not a MappingProxyType, which can be neither pickled nor copied deeply.
    __slots__ = ("_owners",)

    def __init__(self, owners: Mapping[str, str] | None = None) -> None:
        self._owners = dict(owners or {})

    def __getitem__(self, parameter: str) -> str:
        return self._owners[parameter]

    def __iter__(self) -> Iterator[str]:
        return iter(self._owners)

    def __len__(self) -> int:
        return len(self._owners)

    def __repr__(self) -> str:
        return f"Ties({self._owners})"


def _in_order(names: tuple[str, ...]) -> tuple[str, ...]:
    """Each name once, in alphabetical order, so that one graph has one hash."""
    return tuple(sorted(set(names)))


def _operator(op: object) -> object:
    """Say how to write an operator where its name stands alone, as it does in a document."""
    if not isinstance(op, str):
        return op
    if op not in OP_BY_KIND:
        raise ValueError(f"there is no such operator.{suggestion(op, OP_BY_KIND)}")
    raise ValueError(f"an operator with its attributes is needed, op=growir.ops.{OP_BY_KIND[op].__name__}(...)")


class Node(_Frozen):
    """One operator applied to named values; its own name is the name of its one output.

    Attributes:
        tied: Parameter names that are not stored here but belong to another node: {"weight": "emb.weight"}.
        frozen: Parameter names that training leaves as they are (requires_grad is false), in alphabetical order.
        source: What the node was called where it was imported from; not part of the graph's identity.
    """

    name: StrictStr
    op: Annotated[SerializeAsAny[Op], BeforeValidator(_operator)]
    inputs: tuple[StrictStr, ...] = ()
    tied: Annotated[Mapping[str, str], AfterValidator(Ties), PlainSerializer(dict)] = Field(default_factory=Ties)
    frozen: Annotated[tuple[StrictStr, ...], AfterValidator(_in_order)] = ()
    source: str | None = None

    @classmethod
    def record_title(cls) -> str:
        return "a node"

    @classmethod
    def refusal(cls, fields: Mapping[str, Any], problems: list[Problem]) -> GrowirError:
        return _named_refusal("node", fields, problems)

    def with_op(self, **changes: Any) -> Node:
        """The same node with other attributes. Raises GraphError if they are none that the operator has."""
        op = type(self.op)(**{**self.op.attributes(), **changes})
        return self.model_copy(update={"op": op})

    def with_inputs(self, inputs: Iterable[str]) -> Node:
        """The same node reading other values."""
        return self.model_copy(update={"inputs": tuple(inputs)})


Digest = Annotated[str, Field(strict=True, pattern="^[0-9a-f]{64}$")]


class Step(BaseModel):
    """One recorded rewrite: the pass, its fields, what came into being, and its arrays by sha256."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)

    kind: StrictStr = Field(alias="pass", max_length=names.MAX_LENGTH)
    version: PositiveInt = 1
    created: Annotated[tuple[Name, ...], Field(max_length=MAX_ENTRIES)] = ()
    values: Mapping[Annotated[str, Field(max_length=MAX_REFERENCE)], Digest] = Field(
        default_factory=dict[str, str], max_length=MAX_ENTRIES
    )

    @property
    def fields(self) -> dict[str, Any]:
        """The pass's own arguments, as JSON values."""
        return dict(self.model_extra or {})


class History(_Frozen):
    """The graph growth started from, and every rewrite since."""

    base: InstanceOf[Graph]  # a graph is checked when it is made, not once for each history it begins
    steps: tuple[Step, ...] = ()


class Graph(_Frozen):
    """A network's architecture as data.

    Frozen: a change is a new graph. The constructor checks names and references; `growir.verify` checks shapes too,
    and everything that loads or rewrites a graph goes through it.

    Attributes:
        train_differs: What the model it was imported from does in train mode and the graph does not, mostly lines of
            its source; empty for every other graph. Rewrites keep it; it is not part of the graph's identity.
        fixed_sizes: The axes of its inputs for which only the size in the input's shape is right, each once. Torch
            modules and exported classes check them; like `train_differs` they are no part of the graph's identity.

    Raises:
        GraphError: Names or references are wrong; all problems at once.
    """

    name: StrictStr = "graph"
    inputs: tuple[Input, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[StrictStr, ...]
    train_differs: tuple[StrictStr, ...] = ()
    fixed_sizes: tuple[FixedSize, ...] = ()
    history: History | None = None

    @classmethod
    def record_title(cls) -> str:
        return "a graph"

    _memo: dict[object, Any] = PrivateAttr(default_factory=dict[object, Any])
    _origin: ref[Graph] | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _sound(self) -> Self:
        problems = structure_problems(self.inputs, self.nodes, self.outputs)
        problems += fixed_size_problems(self.inputs, self.fixed_sizes)
        if problems:
            raise GraphError(problems)
        return self

    def __getitem__(self, name: str) -> Node:
        try:
            return self.by_name[name]
        except KeyError:
            raise UnknownName(f"there is no node {cut(name)!r}.{alternatives(str(name), self.by_name)}") from None

    def __contains__(self, name: object) -> bool:
        return name in self.by_name

    def __hash__(self) -> int:
        return hash(self.hash)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Graph) and self.hash == other.hash

    def __repr__(self) -> str:
        return f"Graph({self.name!r}, {len(self.nodes)} nodes, {self.hash[:12]})"

    __str__ = __repr__

    @property
    def by_name(self) -> Mapping[str, Node]:
        """Nodes by their names."""
        return _by_name(self)

    @property
    def consumers(self) -> Mapping[str, tuple[str, ...]]:
        """For every input and node, the nodes that read it, in document order, each once."""
        return _consumers(self)

    @property
    def hash(self) -> str:
        """sha256 of the canonical JSON of inputs, nodes and outputs, in hex."""
        return self.recall(content_hash)

    @property
    def used_names(self) -> frozenset[str]:
        """Every name this graph has or ever had."""
        return _used_names(self)

    @property
    def origin(self) -> Graph | None:
        """The graph that `replace` made this one of; None where it was made otherwise, or that graph is gone.

        Most nodes of the two are the very same objects, and what was worked out for those need not be worked out again:
        that makes a hundred candidate rewrites of one graph cheap.
        """
        return None if self._origin is None else self._origin()

    def recall(self, function: Callable[[Graph], T]) -> T:
        """What the function says of this graph, computed once."""
        # Asked for thousands of times a growth: pydantic's way to a private attribute takes twenty times as long.
        private = self.__pydantic_private__
        assert private is not None, "a graph is made with its memo"
        memo: dict[object, Any] = private["_memo"]
        if function not in memo:
            memo[function] = function(self)
        found: T = memo[function]
        return found

    # A copy may be given other nodes, and a pickle other code: neither takes along what was worked out here.

    def __copy__(self) -> Self:
        copied = super().__copy__()
        copied._memo, copied._origin = {}, None
        return copied

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return self.__copy__()  # its parts never change

    def __getstate__(self) -> dict[Any, Any]:
        return {**super().__getstate__(), "__pydantic_private__": {"_memo": {}, "_origin": None}}

    def replace(
        self,
        *,
        inputs: Iterable[Input] | None = None,
        nodes: Iterable[Node] | None = None,
        outputs: Iterable[str] | None = None,
        history: History | Literal["keep"] | None = "keep",
        name: str | None = None,
        train_differs: Iterable[str] | None = None,
        fixed_sizes: Iterable[FixedSize] | None = None,
    ) -> Graph:
        """A new graph with some parts replaced and references checked, unless they are this graph's."""
        parts: dict[str, Any] = {
            "name": self.name if name is None else name,
            "inputs": self.inputs if inputs is None else tuple(inputs),
            "nodes": self.nodes if nodes is None else tuple(nodes),
            "outputs": self.outputs if outputs is None else tuple(outputs),
            "train_differs": self.train_differs if train_differs is None else tuple(train_differs),
            "fixed_sizes": self.fixed_sizes if fixed_sizes is None else tuple(fixed_sizes),
            "history": self.history if history == "keep" else history,
        }
        alike = name is None and fixed_sizes is None
        sound = alike and self._refers_alike(parts["inputs"], parts["nodes"], parts["outputs"])
        made = Graph.model_construct(**parts) if sound else Graph(**parts)
        made._origin = ref(self)
        return made

    def _refers_alike(self, inputs: Sequence[Input], nodes: Sequence[Node], outputs: Sequence[str]) -> bool:
        """Whether the nodes differ from this graph's at most in their attributes, and nothing else does."""
        if len(nodes) != len(self.nodes) or len(inputs) != len(self.inputs) or outputs != self.outputs:
            return False
        if not all(a is b for a, b in zip(self.inputs, inputs, strict=True)):
            return False
        return all(
            a is b or (a.name, a.inputs, a.op.arity) == (b.name, b.inputs, b.op.arity)
            for a, b in zip(self.nodes, nodes, strict=True)
        )

    def summary(self) -> str:
        """A table of nodes, shapes and costs."""
        import growir

        text: str = growir.summary(self)
        return text

    def costs(self) -> Costs:
        """Parameters, multiply-accumulates and activation memory."""
        import growir

        return growir.costs_of(self)

    def to_networkx(self) -> networkx.DiGraph[str]:
        """The values as vertices (attribute `op`) and the reads as edges."""
        import networkx

        net: networkx.DiGraph[str] = networkx.DiGraph()
        for entry in self.inputs:
            net.add_node(entry.name, op="input")
        for node in self.nodes:
            net.add_node(node.name, op=node.op.kind())
            net.add_edges_from((source, node.name) for source in node.inputs)
        return net


History.model_rebuild()


class HasGraph(Protocol):
    """What is made of a graph, such as a Network."""

    @property
    def graph(self) -> Graph:
        """The architecture."""
        ...


def graph_of(given: object) -> Graph:
    """A graph itself, or that of a network. Raises GraphError for anything else."""
    graph = given if isinstance(given, Graph) else getattr(given, "graph", None)
    if isinstance(graph, Graph):
        return graph
    if isinstance(given, str | os.PathLike):
        path = os.fspath(cast("str | os.PathLike[str]", given))
        found, todo = f"this is {cut(repr(path))}", "growir.load_graph or growir.Network.load reads it from there"
    elif isinstance(given, Mapping):
        found, todo = "this is a dict", "growir.load_graph reads a decoded document"
    else:
        found = f"this is of type {cut(type(given).__name__)}"
        todo = "growir.from_torch makes a network of a torch model, growir.live.network_of of a grown module"
    raise GraphError(f"a graph or a network is needed, but {found}; {todo}")


def per_graph(function: Callable[[Graph], T]) -> Callable[[Graph | HasGraph], T]:
    """Cache a function of a graph on the graph: it is frozen, so the answer never changes.

    What comes back takes a network too, and raises GraphError for what is neither.
    """

    def cached(graph: Graph | HasGraph) -> T:
        return graph_of(graph).recall(function)

    cached.__doc__ = function.__doc__
    cached.__name__ = function.__name__
    _CACHED[cached] = function
    return cached


_CACHED: dict[Any, Callable[[Graph], Any]] = {}


def known(function: Callable[[Graph | HasGraph], T], graph: Graph) -> T | None:
    """What a `per_graph` function has said of a graph; None if nobody has asked it yet."""
    private = graph.__pydantic_private__
    assert private is not None, "a graph is made with its memo"
    found: T | None = private["_memo"].get(_CACHED[function])
    return found


@per_graph
def _by_name(graph: Graph) -> Mapping[str, Node]:
    return {node.name: node for node in graph.nodes}


@per_graph
def _consumers(graph: Graph) -> Mapping[str, tuple[str, ...]]:
    readers: dict[str, list[str]] = {entry.name: [] for entry in graph.inputs}
    for node in graph.nodes:
        readers[node.name] = []
        for source in dict.fromkeys(node.inputs):
            readers[source].append(node.name)
    return {name: tuple(found) for name, found in readers.items()}


@per_graph
def _used_names(graph: Graph) -> frozenset[str]:
    used = {entry.name for entry in graph.inputs} | set(graph.by_name)
    if graph.history is not None:
        used |= graph.history.base.used_names
        for step in graph.history.steps:
            used.update(step.created)
    return frozenset(used)


def node_place(index: int, name: object) -> str:
    """How a message points at a node."""
    return f"nodes[{index}] {cut(name)!r}"


def structure_problems(
    inputs: Sequence[Input],
    nodes: Sequence[Node],
    outputs: Sequence[str],
    unread: frozenset[str] = frozenset(),
    index: Sequence[int] | None = None,
    input_index: Sequence[int] | None = None,
) -> list[Problem]:
    """Everything wrong with names and references.

    `unread` are the names of nodes that could not be read; `index` and `input_index` say where in the document each of
    `nodes` and `inputs` stands.
    """
    wheres = [node_place(k, node.name) for k, node in zip(index or range(len(nodes)), nodes, strict=True)]
    problems: list[Problem] = []
    places: dict[str, str] = {}

    def claim(name: str, where: str) -> None:
        wrong = names.fault(name)
        if wrong:
            problems.append(Problem(where, wrong))
        if name in places:
            problems.append(Problem(where, f"the name is taken by {places[name]}; names are unique"))
        places.setdefault(name, where)

    if not inputs:
        problems.append(Problem("inputs", "a graph has at least one input"))
    for k, entry in zip(input_index or range(len(inputs)), inputs, strict=True):
        where = f"inputs[{k}] {cut(entry.name)!r}"
        claim(entry.name, where)
        if "." in entry.name:
            problems.append(Problem(where, "the name of an input has no dots; it is an argument of forward"))
    for where, node in zip(wheres, nodes, strict=True):
        claim(node.name, where)
    everything = frozenset(places) | unread
    asked = itertools.count()

    def near(name: str) -> str:
        # Looked for among all names, so only for as many as a message shows.
        return alternatives(name, sorted(everything)) if next(asked) < MAX_PROBLEMS else ""

    problems += _prefix_problems(nodes, wheres)
    problems += _reference_problems(inputs, nodes, wheres, everything, unread, near)
    if not outputs:
        problems.append(Problem("outputs", "a graph has at least one output"))
    for k, name in enumerate(outputs):
        if name not in everything:
            text = f"there is no node or input {cut(name)!r}.{near(name)}"
            problems.append(Problem(f"outputs[{k}]", text))
    return problems


def fixed_size_problems(inputs: Sequence[Input], fixed: Sequence[FixedSize]) -> list[Problem]:
    """Entries of `fixed_sizes` that name no axis of an input, or one that another names."""
    ranks = {entry.name: len(entry.shape) for entry in inputs}
    problems: list[Problem] = []
    seen: set[tuple[str, int]] = set()
    for k, entry in enumerate(fixed):
        where = f"fixed_sizes[{k}]"
        if entry.input not in ranks:
            problems.append(
                Problem(where, f"there is no input {cut(entry.input)!r}.{alternatives(entry.input, ranks)}")
            )
        elif entry.axis >= ranks[entry.input]:
            most = ranks[entry.input] - 1
            text = f"{cut(entry.input)!r} has the axes 1 to {most} besides the batch, not {entry.axis}"
            problems.append(Problem(where, text))
        elif (entry.input, entry.axis) in seen:
            problems.append(Problem(where, f"axis {entry.axis} of {cut(entry.input)!r} stands here twice"))
        seen.add((entry.input, entry.axis))
    return problems


def _prefix_problems(nodes: Sequence[Node], wheres: Sequence[str]) -> Iterator[Problem]:
    node_names = {node.name for node in nodes}
    for where, node in zip(wheres, nodes, strict=True):
        parts = node.name.split(".")
        if len(parts) > 1 and len(node.name) <= names.MAX_LENGTH:
            for stop in range(1, len(parts)):
                prefix = ".".join(parts[:stop])
                if prefix in node_names:
                    text = f"{cut(prefix)!r} is a node and cannot be a module too; rename one of the two"
                    yield Problem(where, text)


def _reference_problems(
    inputs: Sequence[Input],
    nodes: Sequence[Node],
    wheres: Sequence[str],
    everything: frozenset[str],
    unread: frozenset[str],
    near: Callable[[str], str],
) -> Iterator[Problem]:
    defined = {entry.name for entry in inputs} | unread
    late = False
    for where, node in zip(wheres, nodes, strict=True):
        least, most = node.op.arity
        if len(node.inputs) < least or (most is not None and len(node.inputs) > most):
            takes = f"{least}" if least == most else f"{least} or more" if most is None else f"{least} to {most}"
            yield Problem(where, f"{node.op.kind()} takes {takes} inputs, but gets {len(node.inputs)}")
        for source in node.inputs:
            if source not in everything:
                text = f"its input {cut(source)!r} does not exist.{near(source)}"
                yield Problem(where, text)
            elif source not in defined:
                late = True
                if source == node.name:
                    yield Problem(where, "it is its own input")
        defined.add(node.name)
    if late:
        yield from _order_problems(nodes, wheres, everything)


def _order_problems(nodes: Sequence[Node], wheres: Sequence[str], everything: frozenset[str]) -> Iterator[Problem]:
    """Tell a cycle, which no order mends, from nodes that only stand in the wrong order."""
    import networkx

    net: networkx.DiGraph[str] = networkx.DiGraph()
    net.add_edges_from((s, node.name) for node in nodes for s in node.inputs if s != node.name and s in everything)
    cyclic = [part for part in networkx.strongly_connected_components(net) if len(part) > 1]
    for part in sorted(cyclic, key=min):
        edges = cast("list[tuple[str, str]]", networkx.find_cycle(net.subgraph(sorted(part))))
        path: list[str] = [edge[0] for edge in edges]
        shown = " -> ".join(cut(name) for name in [*path[:8], *(["..."] if len(path) > 8 else []), path[0]])
        yield Problem("nodes", f"they form a cycle: {shown}; a graph has none")
    if not cyclic:
        position = {node.name: k for k, node in enumerate(nodes)}
        for k, node in enumerate(nodes):
            for source in node.inputs:
                if position.get(source, -1) > k:
                    text = f"its input {cut(source)!r} comes later; nodes stand in topological order"
                    yield Problem(wheres[k], text)
