"""A torch model as a graph with its tensors: the steps of an import, one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import fx, nn

from growir.backends.torch_arrays import to_array
from growir.backends.torch_export.copying import undisturbed
from growir.backends.torch_export.decomposing import decompose
from growir.backends.torch_export.exporting import Program, export, source_line
from growir.backends.torch_export.naming import name_drafts, valid
from growir.backends.torch_export.preparing import Example, Prepared, prepare
from growir.backends.torch_export.reading import Draft, Reader
from growir.backends.torch_export.recognising import recognise
from growir.backends.torch_export.sizes import all_fixed, fixed_sizes
from growir.backends.torch_export.table import knows
from growir.backends.torch_export.training import notice_of, twins
from growir.backends.torch_export.values import Held
from growir.backends.torch_fx import lower
from growir.errors import ModelError, listed
from growir.graph import MAX_DIFFERENCES, Graph, Input, Node
from growir.verify import verify

MAX_SHOWN = 8  # parts in one warning
# How far apart the model and the network may be, as a part of the largest output.
_CLOSE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of a model.

    Attributes:
        graph: Its architecture.
        arrays: Its tensors by the graph's keys.
        notices: What the user should know.
    """

    graph: Graph
    arrays: Mapping[str, NDArray[Any]]
    notices: tuple[str, ...]


def import_model(model: nn.Module, example: Example, *, name: str | None = None, check: bool = True) -> Imported:
    """The model as a graph with its tensors.

    Args:
        model: Any module that torch.export follows; it is copied and stays as it is.
        example: Its inputs, a batch of any size.
        name: The graph's name; the model's class if None.
        check: Run the model and the result on the example and compare.

    Raises:
        ModelError: Everything in the model that has no place in a graph, with the model's own lines.
    """
    with undisturbed() as hooked:
        found = _imported(prepare(model, example), name, check)
    if hooked:
        text = "the hooks of all modules (register_module_forward_hook and its like) are no part of the model; none ran"
        found = replace(found, notices=(*found.notices, text))
    return found


def _imported(prepared: Prepared, name: str | None, check: bool) -> Imported:
    program = export(prepared)
    notices = [*program.notices]
    pairs, strange = twins(program.exported, program.training) if program.training else ({}, [])
    if strange:
        notices.append(notice_of(strange))
    decompose(program.exported, knows)
    reader = Reader(program.exported, program.batch, pairs, prepared.model)
    reader.run()
    if reader.problems:
        raise ModelError(listed(list(reader.problems), what="things in the model have no place in a graph"))
    left = [*prepared.left_in_eval, *(source_line(call) for call in reader.stays)]
    notices += reader.notices
    if left:
        shown = ", ".join(left[:MAX_SHOWN])
        notices.append(f"stays in eval mode in the model, but goes to train mode with the network: {shown}")
    graph, arrays, tensors, lines = _assembled(reader, name or type(prepared.model).__name__)
    graph = graph.replace(train_differs=_differences(prepared, program, reader, strange))
    if check:
        _compare(prepared, program, graph, arrays, reader)
        names = [given for given, _ in reader.inputs]
        fixed = fixed_sizes(prepared, graph, tensors, names, lines, reader.dtypes)
    else:
        fixed = all_fixed(graph, "it was imported without a comparison, so that no other size is known to be right")
    graph = graph.replace(fixed_sizes=fixed)
    return Imported(graph, arrays, tuple(notices))


def _differences(prepared: Prepared, program: Program, reader: Reader, strange: Sequence[fx.Node]) -> list[str]:
    """All that the model's train mode is known to do otherwise, or may, as the document keeps it."""
    # Documents go to other people and machines: the folders of this one stay out of them.
    found = [source_line(call, folders=False) for call in strange]
    if program.unknown:
        found.append(f"it could not be exported: {program.unknown}")
    norms = [source_line(call, folders=False) for call in reader.stays]
    found += [f"stays in eval mode: {part}" for part in (*prepared.left_in_eval, *norms)]
    return list(dict.fromkeys(found))[:MAX_DIFFERENCES]


class _Assembled(NamedTuple):
    """The graph of everything that the outputs need.

    Attributes:
        graph: The graph.
        arrays: Its tensors by key.
        tensors: The same in the memory of the model's own.
        lines: The model's line for each node.
    """

    graph: Graph
    arrays: dict[str, NDArray[Any]]
    tensors: dict[str, torch.Tensor]
    lines: dict[str, str]


def _assembled(reader: Reader, title: str) -> _Assembled:
    count = len(reader.inputs)
    outputs = reader.outputs
    drafts = recognise(reader.drafts, outputs, [shape for _, shape in reader.inputs])
    needed = _needed(drafts, outputs, count)
    inputs = [valid(name.replace(".", "_")) for name, _ in reader.inputs]
    inputs = [name if not name.startswith("layers.") else f"x{name[7:]}" for name in inputs]
    kept = [drafts[k] for k in needed]
    leaves = {path for path, part in reader.modules.items() if next(part.children(), None) is None}
    named = name_drafts(kept, inputs, leaves)
    name_of = dict(enumerate(inputs)) | {count + k: name for k, (name, _) in zip(needed, named, strict=True)}
    owners: dict[int, str] = {}
    arrays: dict[str, NDArray[Any]] = {}
    tensors: dict[str, torch.Tensor] = {}
    nodes: list[Node] = []
    for draft, (name, source) in zip(kept, named, strict=True):
        tied: dict[str, str] = {}
        frozen: list[str] = []
        for parameter, held in draft.params.items():
            key = f"{name}.{parameter}"
            owner = owners.setdefault(id(held.tensor), key)
            if owner != key:
                tied[parameter] = owner
                continue
            tensors[key] = _tensor(held, draft)
            arrays[key] = to_array(tensors[key])
            if held.trained and not held.tensor.requires_grad:
                frozen.append(parameter)
        reads = tuple(name_of[source_] for source_ in draft.inputs)
        nodes.append(Node(name=name, op=draft.op, inputs=reads, tied=tied, frozen=tuple(frozen), source=source))
    entries = tuple(
        Input(name=name, shape=shape.dims, dtype=shape.dtype) for name, (_, shape) in zip(inputs, reader.inputs)
    )
    graph = Graph(name=title, inputs=entries, nodes=tuple(nodes), outputs=tuple(name_of[k] for k in outputs))
    lines = {name: source_line(draft.call, folders=False) for draft, (name, _) in zip(kept, named, strict=True)}
    return _Assembled(verify(graph), arrays, tensors, lines)


def _tensor(held: Held, draft: Draft) -> torch.Tensor:
    tensor = held.tensor.detach()
    return tensor.reshape(1) if tensor.dim() == 0 and draft.op.kind() == "parameter" else tensor


def _needed(drafts: list[Draft], outputs: list[int], inputs: int) -> list[int]:
    """The drafts that the outputs are computed from, in order."""
    seen: set[int] = set()
    todo = list(outputs)
    while todo:
        source = todo.pop() - inputs
        if source >= 0 and source not in seen:
            seen.add(source)
            todo += drafts[source].inputs
    return sorted(seen)


def _compare(
    prepared: Prepared, program: Program, graph: Graph, arrays: Mapping[str, NDArray[Any]], reader: Reader
) -> None:
    """Run both on the example. Raises ModelError if they differ, which is better known now than after training."""
    module = lower(graph, arrays, device="cpu").eval()
    args, kwargs = prepared.rows(2)
    names = [given for given, _ in reader.inputs]
    # No closer than the coarsest dtype that the model computes in.
    coarsest = max(_CLOSE.get(dtype, 1e-4) for dtype in (*reader.dtypes, torch.float64))
    with torch.no_grad():
        found: torch.Tensor | tuple[torch.Tensor, ...] = module(*args, *(kwargs[name] for name in names[len(args) :]))
    results = found if isinstance(found, tuple) else (found,)
    for k, (one, two) in enumerate(zip(program.outputs, results, strict=True)):
        alike = (one == two) | (one.isnan() & two.isnan())
        apart = torch.where(alike, 0.0, (one - two).abs())
        worst = float(apart.max()) / max(float(one.nan_to_num(0.0, 0.0, 0.0).abs().max()), 1e-30)
        if not worst <= max(_CLOSE.get(one.dtype, 1e-4), coarsest):
            raise ModelError(
                f"output {k} of the imported network differs from the model's by {worst:.1e} of its largest value on "
                "the example; the model does something that the import reads wrongly"
            )
