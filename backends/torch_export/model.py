"""A torch model as a graph with its tensors: the steps of an import, one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import fx, nn
from torch.export import ExportedProgram

from growir.backends.torch_arrays import to_array
from growir.backends.torch_export.calls import full_name
from growir.backends.torch_export.checking import Reading, Verdict, check_example, judge, wrongly
from growir.backends.torch_export.copying import Owned, undisturbed
from growir.backends.torch_export.decomposing import decompose
from growir.backends.torch_export.exporting import Program, export, export_again, source_line
from growir.backends.torch_export.lengths import Lengths, Whole
from growir.backends.torch_export.naming import name_drafts, valid
from growir.backends.torch_export.preparing import Example, Prepared, prepare
from growir.backends.torch_export.reading import Draft, Reader
from growir.backends.torch_export.recognising import recognise
from growir.backends.torch_export.sizes import Pair, all_fixed, fixed_sizes, paired
from growir.backends.torch_export.table import TABLE, knows
from growir.backends.torch_export.training import Match, matched, notice_of, shown, text_of
from growir.backends.torch_export.values import Held
from growir.backends.torch_export.watching import Place, Watch, watch_modules, watching
from growir.errors import ModelError, listed
from growir.graph import MAX_DIFFERENCES, FixedSize, Graph, Input, Node
from growir.ops import Shape
from growir.verify import verify

MAX_SHOWN = 8  # parts in one warning


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of a model.

    Attributes:
        graph: Its architecture.
        arrays: Its tensors by the graph's keys.
        keys: What the model calls each of them, a parameter or a buffer; constants of its code have no name there.
        notices: What the user should know.
    """

    graph: Graph
    arrays: Mapping[str, NDArray[Any]]
    keys: Mapping[str, str]
    notices: tuple[str, ...]


def import_model(model: nn.Module, example: Example, *, name: str | None = None, check: bool = True) -> Imported:
    """The model as a graph with its tensors.

    Args:
        model: Any module that torch.export follows; it is copied and stays as it is.
        example: Its inputs, a batch of any size.
        name: The graph's name; the model's class if None.
        check: Run the model and the result and compare: on the example, and with all weights drawn anew outputs and
            gradients in both modes.

    Raises:
        ModelError: Everything in the model that has no place in a graph, with the model's own lines; or what of the
            result computes something else than the model in eval mode.
    """
    with undisturbed() as hooked:
        found = _imported(prepare(model, example), model, name, check)
    if hooked:
        text = "the hooks of all modules (register_module_forward_hook and its like) are no part of the model; none ran"
        found = replace(found, notices=(*found.notices, text))
    return found


def _imported(prepared: Prepared, model: nn.Module, name: str | None, check: bool) -> Imported:
    traced = Watch()
    with watching(traced, trying=False):
        program = export(prepared)
    match = matched(program.exported, program.training) if program.training else Match({})
    title = name or type(prepared.model).__name__
    read = _read(prepared, program, program.exported, match.pairs, title)
    if check:
        check_example(prepared, program, read.reading)
        read, match, verdict, places = _judged(prepared, model, program, read, match, title, traced)
        names = list(read.reading.inputs)
        found = fixed_sizes(prepared, read.whole.graph, read.whole.tensors, names, read.whole.lines, read.reader.dtypes)
        whole, fixed = _opened(prepared, program, read, match, names, title, found)
    else:
        watch_modules(prepared.model, model, traced)
        whole = _plain(read)
        verdict, places = Verdict(), list(traced.seen)
        why = "it was imported without a comparison, so that no other size is known to be right"
        fixed = all_fixed(read.whole.graph, why)
    differs = _differences(prepared, program, read.reader, match, verdict, places)
    graph = whole.graph.replace(train_differs=differs, fixed_sizes=fixed)
    notices = tuple(_notices(prepared, program, read.reader, match, verdict, places))
    keys = {key: called for key, called in read.whole.keys.items() if key in whole.arrays}
    for array in whole.arrays.values():  # nobody runs the copy any more
        array.flags.writeable = False
    return Imported(graph, whole.arrays, keys, notices)


class _Read(NamedTuple):
    """One program as a graph: how it was read, what the comparison needs of it, and all of it."""

    reader: Reader
    reading: Reading
    whole: _Assembled


def _read(
    prepared: Prepared, program: Program, exported: ExportedProgram, pairs: Mapping[fx.Node, fx.Node], title: str
) -> _Read:
    """One program as a graph. Raises ModelError with everything in it that has no place in one."""
    decompose(exported, knows)
    reader = Reader(exported, program.batch, pairs, prepared.model, TABLE)
    reader.run()
    if reader.problems:
        raise ModelError(listed(list(reader.problems), what="things in the model have no place in a graph"))
    found = _assembled(reader, title, prepared.own)
    names = tuple(given for given, _ in reader.inputs)
    return _Read(reader, Reading(found.graph, found.arrays, found.sources, names, frozenset(reader.dtypes)), found)


def _plain(read: _Read) -> Whole:
    return Whole(read.whole.graph, read.whole.arrays, read.whole.tensors)


def _opened(
    prepared: Prepared,
    program: Program,
    read: _Read,
    match: Match,
    names: list[str],
    title: str,
    fixed: list[FixedSize],
) -> tuple[Whole, list[FixedSize]]:
    """The network with as many open axes as can be, and those that stay fixed."""
    if not fixed or not program.batch.symbolic:  # with a fixed batch, its size must differ from all others
        return _plain(read), fixed
    in_train = read.reader.exported is program.training

    def again(other: Prepared) -> Whole | None:
        try:
            made = export_again(other, program, training=in_train)
            if in_train:
                pairs = {node: node for node in made.graph.nodes}
            elif (known := match.carried(made)) is not None or program.training is None:
                pairs = known or {}
            else:
                pairs = matched(made, export_again(other, program, training=True)).pairs
            return _plain(_read(other, program, made, pairs, title))
        except ModelError:  # then the axis stays fixed, as the message for other sizes says
            return None

    def side_by_side(whole: Whole) -> AbstractContextManager[Pair | None]:
        return paired(prepared, whole.graph, whole.tensors, names, read.reader.dtypes)

    return Lengths(prepared, _plain(read), names, again, side_by_side).opened(fixed)


def _judged(
    prepared: Prepared, model: nn.Module, program: Program, first: _Read, match: Match, title: str, traced: Watch
) -> tuple[_Read, Match, Verdict, list[Place]]:
    """What was read compared with the model on weights drawn anew, and what remains of the differences.

    A call that only one mode has, and that depends on no input, is no difference where the numbers agree. A model may
    keep in eval mode what it computes from a parameter in train mode:

        bias = self.table[:, self.index] if self.training else self.kept

    The eval-mode program then has a constant. Read from the train-mode program the network has the parameter, so that
    one is taken if it agrees with the model in both modes. Its gradients count in train mode alone: in eval mode the
    model has none for what it keeps, and nobody trains there.

    Raises:
        ModelError: An output differs in eval mode.
    """
    open_question = bool(match.strange) and match.settled
    known = bool(
        program.unknown
        or prepared.left_in_eval
        or first.reader.stays
        or match.written
        or (match.strange and not match.settled)
    )

    def judged(exported: ExportedProgram, pairs: Mapping[fx.Node, fx.Node], in_eval: bool) -> tuple[Verdict, Watch]:
        watch = Watch()
        again = lambda: _read(prepared, program, exported, pairs, title).reading  # noqa: E731
        return judge(prepared, model, program, again, watch, training=not known, in_eval=in_eval), watch

    chosen = first
    verdict, watch = judged(program.exported, match.pairs, in_eval=True)
    if open_question and verdict.clean and not match.drops:
        match = replace(match, strange=())
    elif open_question and program.training is not None:
        decompose(program.training, knows)
        twins = {node: node for node in program.training.graph.nodes}
        try:
            other = _read(prepared, program, program.training, twins, title)
            check_example(prepared, program, other.reading)
        except ModelError:  # the network stays what the eval-mode program says
            pass
        else:
            second, watched = judged(program.training, twins, in_eval=False)
            if second.clean:
                chosen, match, verdict, watch = other, replace(match, strange=()), second, watched
    if verdict.output is not None and not match.strange:
        raise ModelError(wrongly(verdict.output, "with its numbers drawn anew"))
    places = list(watch.changing) or (list(watch.seen) if verdict.gradient is not None else [])
    if known:  # then train mode was not run, and what is called only there not tried
        places += [place for place in traced.seen if place not in watch.seen]
    return chosen, match, verdict, places


def _differences(
    prepared: Prepared, program: Program, reader: Reader, match: Match, verdict: Verdict, places: Sequence[Place]
) -> list[str]:
    """All that the model is known to train otherwise, or may, as the document keeps it."""
    # Documents go to other people and machines: the folders of this one stay out of them.
    found = [source_line(call, folders=False) for call in match.strange]
    found += [text_of(written, folders=False) for written in match.written]
    if program.unknown:
        found.append(f"it could not be exported: {program.unknown}")
    norms = [source_line(call, folders=False) for call in reader.stays]
    found += [f"stays in eval mode: {part}" for part in (*prepared.left_in_eval, *norms)]
    found += [place.shown(folders=False) for place in places]
    if verdict.output is not None:
        found.append(f"with its numbers drawn anew, {verdict.output}")
    if verdict.gradient is not None and not places:
        found.append(str(verdict.gradient))
    if verdict.train is not None:
        found.append(str(verdict.train))
    if verdict.unknown:
        found.append(f"it could not be compared: {verdict.unknown}")
    return list(dict.fromkeys(found))[:MAX_DIFFERENCES]


def _notices(
    prepared: Prepared, program: Program, reader: Reader, match: Match, verdict: Verdict, places: Sequence[Place]
) -> list[str]:
    """What the user is warned of, one text for each kind."""
    found = [*prepared.notices, *program.notices]
    if match.strange or match.written:
        found.append(notice_of(match.strange, match.written))
    found += reader.notices
    left = [*prepared.left_in_eval, *(source_line(call) for call in reader.stays)]
    if left:
        parts = ", ".join(left[:MAX_SHOWN])
        found.append(f"stays in eval mode in the model, but goes to train mode with the network: {parts}")
    if places:
        lines = [place.shown(folders=True) for place in places]
        found.append(shown("the model changes gradients on their way, which the network does not", lines))
    elif verdict.gradient is not None:
        found.append(f"the network trains otherwise than the model: {verdict.gradient}")
    if verdict.output is not None:
        found.append(f"with its numbers drawn anew the network is another than the model: {verdict.output}")
    if verdict.train is not None:
        found.append(f"the network trains otherwise than the model: {verdict.train}")
    if verdict.unknown:
        found.append(f"the model could not be compared with its numbers drawn anew: {verdict.unknown}")
    return found


class _Assembled(NamedTuple):
    """The graph of everything that the outputs need.

    Attributes:
        graph: The graph.
        arrays: Its tensors by key.
        tensors: The same in the memory of the model's own.
        lines: The model's line for each node.
        sources: The model's name of each parameter, by key.
        keys: The same of buffers too.
    """

    graph: Graph
    arrays: dict[str, NDArray[Any]]
    tensors: dict[str, torch.Tensor]
    lines: dict[str, str]
    sources: dict[str, str]
    keys: dict[str, str]


def _assembled(reader: Reader, title: str, own: Owned) -> _Assembled:
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
    sources: dict[str, str] = {}
    keys: dict[str, str] = {}
    nodes: list[Node] = []
    for draft, (name, source) in zip(kept, named, strict=True):
        tied: dict[str, str] = {}
        frozen: list[str] = []
        read = (_shape_at(source, reader.inputs, drafts) for source in draft.inputs)
        learnable = {key for key, param in draft.op.params(*read).items() if not param.buffer}
        for parameter, held in draft.params.items():
            key = f"{name}.{parameter}"
            owner = owners.setdefault(id(held.tensor), key)
            if owner != key and owner.rpartition(".")[0] == name:  # one tensor twice in a call, which no graph ties
                if held.trained:
                    where, text = source_line(draft.call), f"takes one parameter as {owner} and as {key}; use two"
                    raise ModelError(f"{where}: {full_name(draft.call)} {text}")
                owner = key
            if owner != key:
                tied[parameter] = owner
                continue
            tensors[key] = _tensor(held, draft)
            # A parameter's memory is the model's until the import is done, and the network's then.
            arrays[key] = own.taken(tensors[key]) if held.trained else to_array(tensors[key])
            if held.keys:
                keys[key] = held.keys[0]
            if held.trained:
                sources[key] = held.keys[0]
            # What is learned in general, such as an embedding, may be a buffer in this model, a table of sines say.
            learned = parameter in learnable
            if learned and not (held.trained and held.tensor.requires_grad):
                frozen.append(parameter)
        reads = tuple(name_of[source_] for source_ in draft.inputs)
        nodes.append(Node(name=name, op=draft.op, inputs=reads, tied=tied, frozen=tuple(frozen), source=source))
    entries = tuple(
        Input(name=name, shape=shape.dims, dtype=shape.dtype) for name, (_, shape) in zip(inputs, reader.inputs)
    )
    graph = Graph(name=title, inputs=entries, nodes=tuple(nodes), outputs=tuple(name_of[k] for k in outputs))
    lines = {name: source_line(draft.call, folders=False) for draft, (name, _) in zip(kept, named, strict=True)}
    return _Assembled(verify(graph), arrays, tensors, lines, sources, keys)


def _shape_at(source: int, inputs: Sequence[tuple[str, Shape]], drafts: Sequence[Draft]) -> Shape:
    return inputs[source][1] if source < len(inputs) else drafts[source - len(inputs)].shape


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
