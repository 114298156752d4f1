"""What a network in growth reads of its data: sources as its module takes them, and what the data alone decides.

Of arrays in memory, the values that no training changes (standardised inputs, say) are computed once for all samples,
and the module that is trained begins behind them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import fx, nn

from growir.backends.torch_fx.lowering import lower_tensors
from growir.cutting import section
from growir.data.feeding import Feed, InputSpec, dtype_of
from growir.data.memory import ArraySource
from growir.data.nests import joined, on_tensors, tensors_of
from growir.data.parts import Data, halves
from growir.data.shuffling import Shuffle
from growir.data.source import Batch, Indexed, Source
from growir.graph import Graph
from growir.growth.evaluating import ROWS, rows_at_once
from growir.growth.measure.section import Values, constant_prefix, run_section
from growir.growth.objective import Outputs, full_precision
from growir.shapes import shapes_of

# Values that the data alone decides are computed once for all samples, where they take no more bytes than this.
MOST_CONSTANT = 2**30


@dataclass(frozen=True, slots=True, eq=False)
class Ready:
    """A source and the module that reads it.

    Attributes:
        source: The samples; behind the constant prefix, where that is computed once.
        module: What makes outputs of a batch of them.
        feed: Brings batches into the module's order and types; None where they are that already.
        name: What messages call the source.
    """

    source: Source
    module: nn.Module
    feed: Feed | None
    name: str

    def batches(self, size: int, shuffle: Shuffle | None, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """One epoch, as `Source.batches` gives it. Raises DataError for a batch that does not fit."""
        if self.feed is None:
            return self.source.batches(size, shuffle, epoch, start)
        return self.feed.epoch(self.source, size, shuffle, epoch, start, self.name)

    def firsts(self, most: int | None) -> Iterator[Batch]:
        """The first samples in order, in batches that bound the memory; all if `most` is None."""
        count, source = len(self.source) if most is None else most, self.source
        if most is not None and most < len(source) and isinstance(source, Indexed):
            source = source.part(torch.arange(most))
        for batch in Ready(source, self.module, self.feed, self.name).batches(rows_at_once(elements(source)), None):
            yield batch if len(batch) <= count else cut_batch(batch, count)
            count -= len(batch)
            if count <= 0:
                return

    def forward(self, batch: Batch) -> Outputs:
        """The outputs of a batch."""
        return full_precision(self.module(*batch.inputs))


class Reading:
    """The data of a run as the present network reads it.

    Args:
        data: Cut into its parts.
        device: Where the network is.
    """

    def __init__(self, data: Data, device: torch.device) -> None:
        self.data = data
        self.device = device
        self._halves: tuple[Source, Source] | None = None
        self._known: dict[str, torch.Tensor] = {}
        self._target: Any = None

    def begin(self) -> None:
        """Forget what another network's graph made of the data."""
        self._known, self._target = {}, None

    def follow(self, module: fx.GraphModule, graph: Graph, tensors: Values) -> None:
        """Take the present network. Values that nothing learned touches stay what they were, whatever has grown."""
        self._module, self._graph, self._tensors = module, graph, tensors
        self._trunk: fx.GraphModule | None = None
        floats = next((str(t.dtype) for t in tensors.values() if t.is_floating_point()), "torch.float32")
        specs = [InputSpec(entry.name, tuple(entry.shape), entry.dtype) for entry in graph.inputs]
        self._floats = floats.removeprefix("torch.")
        self._feed = Feed(
            [InputSpec(s.name, s.dims, self._floats if s.dtype.startswith("float") else s.dtype) for s in specs],
            self.device,
            self._floats,
        )

    def first(self, count: int) -> tuple[torch.Tensor, ...]:
        """The inputs of at most so many first samples that are trained on, as the module takes them."""
        batch = next(self.whole(self.data.train).batches(count, None))
        # The feed has put them into the network's order.
        return tuple(tensors_of(cut_batch(batch, min(count, len(batch))).inputs))

    @property
    def halves(self) -> tuple[Source, Source]:
        """What is trained on between growths, in two parts of one size."""
        if self._halves is None:
            self._halves = halves(self.data.train)
        return self._halves

    def prefix(self) -> list[str]:
        """The values that no learned parameter touches and something learned reads."""
        return constant_prefix(self._graph)

    def ready(self, source: Source) -> Ready:
        """A source as the module reads it, and what runs it."""
        name = {id(self.data.select): "the selection data", id(self.data.test): "the test data"}.get(id(source))
        prefix = self.prefix()
        entries = {entry.name for entry in self._graph.inputs}
        whole = self._whole(source)
        if whole is not None and not entries.issuperset(prefix):
            shapes = shapes_of(self._graph)
            each = sum(shapes[value].elements for value in prefix if value not in entries)
            if 4 * each * len(whole) <= MOST_CONSTANT:
                values, target = self._constants(whole, prefix)
                known = ArraySource(tuple(values[value] for value in prefix), target)
                part = known if source is whole else known.part(_indices(source))
                return Ready(part, self._behind(prefix), None, name or "the training data")
        return Ready(source, self._module, self._feed, name or "the training data")

    def whole(self, source: Source) -> Ready:
        """A source as the whole network reads it, from its inputs on: for copies of it with candidates in place."""
        return Ready(source, self._module, self._feed, "the training data")

    def gathered(self, source: Source, names: Sequence[str], count: int) -> tuple[dict[str, torch.Tensor], Any]:
        """Constant values of a source's first samples by name, and their target.

        Args:
            source: One of the data's, or a part of it.
            names: Of values that no learned parameter touches.
            count: The most samples.
        """
        count = min(count, len(source))
        whole = self._whole(source)
        if whole is not None:
            values, target = self._constants(whole, names)
            chosen = _indices(source)[:count]
            return {name: values[name][chosen] for name in names}, on_tensors(lambda t: t[chosen], target)
        batch = self._feed(first_rows(source, count), "the training data")
        found = self._run([entry.name for entry in self._graph.inputs], names)(*batch.inputs)
        return dict(zip(names, found, strict=True)), batch.target

    def _whole(self, source: Source) -> ArraySource | None:
        """The arrays that a source is a part of, where what the data decides is kept for them."""
        train = self.data.train
        if not (isinstance(source, ArraySource) and isinstance(train, ArraySource)):
            return None
        return source.whole if source.whole is train.whole else None

    def _constants(self, whole: ArraySource, names: Sequence[str]) -> tuple[dict[str, torch.Tensor], Any]:
        """Constant values of all samples, computed once, and the target."""
        entries = [entry.name for entry in self._graph.inputs]
        missing = [name for name in names if name not in self._known]
        computed = [name for name in missing if name not in entries]
        if missing or self._target is None:
            fed = self._feed(Batch(whole.inputs, whole.target), "the training data")
            self._target = fed.target
            ordered = cast("tuple[torch.Tensor, ...]", fed.inputs)
            inputs = dict(zip(entries, ordered, strict=True))
            self._known |= {name: inputs[name] for name in missing if name in entries}
            if computed:
                run, rows = self._run(entries, computed), rows_at_once(sum(v[0].numel() for v in inputs.values()))
                chunks = [run(*(v[k : k + rows] for v in inputs.values())) for k in range(0, len(whole), rows)]
                self._known |= {name: torch.cat([chunk[k] for chunk in chunks]) for k, name in enumerate(computed)}
        return self._known, self._target

    def _run(self, given: Sequence[str], wanted: Sequence[str]) -> Any:
        return torch.no_grad()(run_section(self._graph, self._tensors, given, wanted))

    def _behind(self, prefix: Sequence[str]) -> fx.GraphModule:
        """The graph behind the constant prefix, on the live tensors."""
        if self._trunk is None:
            self._trunk = lower_tensors(
                section(self._graph, prefix, self._graph.outputs), self._tensors, form="function"
            )
        return self._trunk


def _indices(source: Source) -> torch.Tensor:
    assert isinstance(source, Indexed)
    return source.indices


def cut_batch(batch: Batch, count: int) -> Batch:
    """The first samples of a batch."""
    return Batch(on_tensors(lambda t: t[:count], batch.inputs), on_tensors(lambda t: t[:count], batch.target))


def first_rows(source: Source, count: int) -> Batch:
    """The first samples of a source as one batch."""
    if isinstance(source, Indexed):
        return source.rows(torch.arange(count))
    found: list[Batch] = []
    for batch in source.batches(min(ROWS, count), None):
        found.append(batch if len(batch) <= count else cut_batch(batch, count))
        count -= len(batch)
        if count <= 0:
            break
    return Batch(joined([batch.inputs for batch in found]), joined([batch.target for batch in found]))


def batch_count(source: Source, size: int) -> int | None:
    """Batches of an epoch, before the last two may join; None where nobody knows without reading them all."""
    return -(-len(source) // size) if isinstance(source, ArraySource) else source.batch_count(size)


def elements(source: Source) -> int:
    """Numbers of one sample, as far as they can be told without reading one."""
    if not isinstance(source, ArraySource):
        return 2**12
    return sum(tensor[0].numel() for tensor in tensors_of(source.inputs))


def float_dtype(tensors: Mapping[str, torch.Tensor]) -> torch.dtype:
    """The type of a network's floats."""
    return next((t.dtype for t in tensors.values() if t.is_floating_point()), dtype_of("float32"))
