"""A live module and its tensors: finding the growir module in what the caller holds, and building the grown one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from numpy.typing import NDArray
from torch import fx, nn

from growir.backends.torch_fx.lowering import (
    Call,
    calls_of,
    codes_of,
    document_of,
    frozen_among,
    lower_tensors,
    made_of,
    part_of,
    remember,
    values_of,
)
from growir.backends.torch_fx.probe import lengthened, old_entries
from growir.entries import Entries
from growir.errors import ModelError, cut
from growir.graph import Graph
from growir.nearest import suggestion
from growir.params import frozen_keys, owners, param_table, with_frozen
from growir.verify import load

Tensors = dict[str, torch.Tensor]
WRAPPERS: tuple[type[nn.Module], ...] = (nn.parallel.DistributedDataParallel, nn.DataParallel)
# Zero columns change the order of a sum: the bar is the rounding of many terms, as a part of the largest value.
ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4}


class Live(NamedTuple):
    """A growir module as it stands.

    Attributes:
        module: The GraphModule, out of its wrappers.
        graph: Its graph, with its history, and frozen where the tensors require no gradient.
        tensors: Its tensors by key, tied ones once; learned ones are Parameters.
        switched: The parameters whose `requires_grad` is not what the module's document says, and whether they are
            frozen now.
        notes: What its wrappers and hooks leave to the caller.
    """

    module: fx.GraphModule
    graph: Graph
    tensors: Tensors
    switched: Mapping[str, bool]
    notes: tuple[str, ...]


def parts_of(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The module, as "", and all within it by name."""
    return cast("Iterator[tuple[str, nn.Module]]", module.named_modules())


def find(module: object, what: str = "module") -> Live:
    """The growir module in what the caller holds.

    Raises:
        ModelError: It is no module made by growir, is wrapped in something that cannot follow, or was changed by hand.
    """
    inner, notes = _unwrapped(module, what)
    made, document = made_of(inner), document_of(inner)
    assert document is not None
    said_graph = load(document) if made is None else made.graph
    tensors = _tensors(inner, said_graph, what)
    _check_code(inner, calls_of(lower_tensors(said_graph, tensors)) if made is None else made.calls, what)
    if made is None:
        remember(inner, said_graph)
    said, held = frozen_keys(said_graph), frozen_among(said_graph, tensors)
    graph = with_frozen(said_graph, held)
    return Live(inner, graph, tensors, {key: key in held for key in said ^ held}, (*notes, *_hooks(inner, what)))


def _unwrapped(module: object, what: str) -> tuple[fx.GraphModule, list[str]]:
    notes: list[str] = []
    inner = module
    if isinstance(inner, nn.Module) and not isinstance(inner, fx.GraphModule):
        compiled = dict(inner.named_children()).get("_orig_mod")  # what torch.compile returns keeps it under that name
        if compiled is not None:
            inner = compiled
            notes.append(f"the {what} was compiled, and the grown one is not: call torch.compile on it")
    if isinstance(inner, nn.Module) and getattr(inner, "_compiled_call_impl", None) is not None:
        notes.append(f"the {what} was compiled in place, and the grown one is not: call its compile()")
    if isinstance(inner, WRAPPERS):
        kind = type(inner).__name__
        raise ModelError(
            f"the {what} is wrapped in {kind}, which keeps the parameters it was made with and would go on without the "
            f"grown ones, silently; on every rank alike, grow {what}.module and wrap what comes back in a new {kind}"
        )
    part = part_of(inner) if isinstance(inner, nn.Module) else None
    if part is not None:
        raise ModelError(
            f"the {what} is the part {cut(part)!r} of a module that growir made; grow the whole, and take the part of "
            "what comes back"
        )
    if isinstance(inner, fx.GraphModule) and document_of(inner) is not None:
        return inner, notes
    kind = type(inner).__name__
    if isinstance(inner, nn.Module):
        parts = [n for n, m in parts_of(inner) if isinstance(m, fx.GraphModule) and document_of(m) is not None]
        if parts:
            raise ModelError(
                f"the {what} is a {kind}, which growir did not make, but its {cut(parts[0])!r} is growir's: grow that, "
                "and put what comes back in its place"
            )
    raise ModelError(
        f"the {what} must be a GraphModule that growir made, but is a {kind}; import a model with "
        "growir.from_torch(model, example_inputs).to_torch(), and train what comes back"
    )


def _tensors(module: fx.GraphModule, graph: Graph, what: str) -> Tensors:
    """The module's tensors by key, if they are the graph's."""
    found: Tensors = module.state_dict(keep_vars=True)  # the tensors themselves, under each of their names
    own, table = owners(graph), param_table(graph)
    for key in found:
        if key not in own:
            raise ModelError(
                f"the {what} has a tensor {cut(key)!r} that its document does not, and the grown module would lack it; "
                f"undo what added it (a parametrisation, say), or keep it outside.{suggestion(key, own)}"
            )
    for key, owner in own.items():
        if key not in found:
            raise ModelError(f"the {what} lacks the tensor {cut(key)!r} of its document")
        if found[key] is not found[owner]:
            raise ModelError(
                f"the {what}: {cut(key)} and {cut(owner)} are one tied tensor in the document, but two in the module; "
                "tie them again"
            )
    for key, param in table.items():
        tensor = found[key]
        if type(tensor) not in (torch.Tensor, nn.Parameter):
            raise ModelError(
                f"the {what}: {cut(key)} is a {type(tensor).__name__}; growth takes plain tensors: grow before "
                "sharding, and shard what comes back"
            )
        if tuple(tensor.shape) != param.shape:
            shapes = f"{list(tensor.shape)} in the module and {list(param.shape)} in its document"
            raise ModelError(f"the {what}: {cut(key)} has shape {shapes}")
    return {key: found[key] for key in table}


def _check_code(module: fx.GraphModule, wanted: Sequence[Call], what: str) -> None:
    """Raise ModelError unless the module does what its document says, call by call."""
    found = calls_of(module)
    if found != wanted:
        at = next((k for k, (a, b) in enumerate(zip(found, wanted)) if a != b), min(len(found), len(wanted)))
        names = [f"{path}{node.name}" for path, code in codes_of(module) for node in code.graph.nodes]
        where = names[at] if at < len(found) else wanted[at][1].rpartition(".")[0]  # in a part that is not there
        raise ModelError(
            f"the {what}'s code was changed after growir made it, at {cut(where)!r}; growth starts from the "
            "document and would lose that: undo the change, or make it to what comes back"
        )


def _hooks(module: nn.Module, what: str) -> list[str]:
    """Notes on the modules whose hooks the caller must register again."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    held = [name or "the whole" for name, part in parts_of(module) if any(getattr(part, kind) for kind in kinds)]
    replaced = [name or "the whole" for name, part in parts_of(module) if "forward" in vars(part)]
    notes = list[str]()
    if held:
        names = ", ".join(cut(name) for name in held)
        notes.append(f"hooks of the {what} are not carried along, register them again: {names}")
    if replaced:
        names = ", ".join(cut(name) for name in replaced)
        notes.append(f"forwards that were put into the {what} are not carried along, put them there again: {names}")
    return notes


def rebuilt(
    old: nn.Module, graph: Graph, tensors: Mapping[str, torch.Tensor], values: Mapping[str, NDArray[Any]]
) -> fx.GraphModule:
    """A module of the grown graph on these very tensors, each part in the mode, train or eval, that it was in.

    It carries the arrays that the old one does, and these new ones.
    """
    device = next((tensor.device for tensor in old.parameters()), None)
    module = lower_tensors(graph, tensors, device, {**values_of(old), **values})
    modes = {name: part.training for name, part in parts_of(old)}
    for name, part in parts_of(module):
        part.training = modes.get(name, old.training)
    return module


def fitting_batch(graph: Graph, verify: object) -> tuple[torch.Tensor, ...]:
    """What was given to measure outputs on, as a batch of every input. Raises ModelError if it is none."""
    batch = (verify,) if isinstance(verify, torch.Tensor) else verify
    wanted = ", ".join(f"{entry.name} {list(entry.shape)}" for entry in graph.inputs)
    if not isinstance(batch, list | tuple) or len(cast("list[object]", batch)) != len(graph.inputs):
        raise ModelError(f"verify: one tensor for each input is needed: {wanted}")
    found: list[torch.Tensor] = []
    for entry, tensor in zip(graph.inputs, cast("list[object]", batch), strict=True):
        if not isinstance(tensor, torch.Tensor):
            raise ModelError(f"verify: one tensor for each input is needed: {wanted}")
        sizes = list(tensor.shape)
        if len(sizes) != len(entry.shape) or any(
            isinstance(size, int) and size != given for size, given in zip(entry.shape, sizes)
        ):
            raise ModelError(f"verify: the batch has shape {sizes}, but {entry.name} is {list(entry.shape)}")
        if not tensor.numel():
            raise ModelError("verify: at least one sample is needed to measure anything")
        found.append(tensor)
    return tuple(found)


def largest_change(
    before: nn.Module, after: nn.Module, batch: Sequence[torch.Tensor], entries: Entries, graph: Graph
) -> tuple[float, float]:
    """The largest change of an output in eval mode, as a part of its largest value, and how much rounding explains.

    Where inputs or outputs of the graph became longer, at the old `entries`.

    Neither module is changed: eval mode moves no statistics, and every part goes back to the mode it was in.

    Raises:
        ModelError: The outputs before are not finite, so that nothing can be compared with them.
    """
    worst, rounding = 0.0, ROUNDING[torch.float64]
    grown = old_entries(_eval_outputs(after, lengthened(graph, batch, entries)), entries)
    for wanted, found in zip(_eval_outputs(before, batch), grown, strict=True):
        rounding = max(rounding, ROUNDING.get(wanted.dtype, 0.1))
        if wanted.numel():
            wide = wanted.double()
            if not bool(wide.isfinite().all()):
                raise ModelError(
                    "verify: the module gives NaN or infinite numbers on this batch, before growth already; "
                    "look for them in its weights and in the batch"
                )
            change = (wide - found.double()).abs().max() / wide.abs().max().clamp_min(1e-3)
            worst = max(worst, float(change) if bool(change.isfinite()) else float("inf"))
    return worst, rounding


def _eval_outputs(module: nn.Module, batch: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    modes = [(part, part.training) for part in module.modules()]
    try:
        with torch.no_grad():
            found: torch.Tensor | tuple[torch.Tensor, ...] = module.eval()(*batch)
    finally:
        for part, training in modes:
            part.training = training
    return found if isinstance(found, tuple) else (found,)
