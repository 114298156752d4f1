"""From a source's batches to a network's inputs on a device, with every check that data of users need."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from growir.data.nests import on_tensors, tensors_of
from growir.data.shuffling import Shuffle
from growir.data.source import Batch, Source
from growir.errors import DataError, counted, cut
from growir.nearest import suggestion


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What a network takes as one of its inputs.

    Attributes:
        name: Of the input.
        dims: Its shape, the first axis being the samples; a word stands for any size.
        dtype: "float32", "float64", "int64", ...
    """

    name: str
    dims: tuple[int | str, ...]
    dtype: str = "float32"

    def __str__(self) -> str:
        return shape_text(self.dims)


class Feed:
    """Batches as a network takes them: its inputs in order, in its types and on its device.

    What fits is converted: floats of another precision, and whole numbers where floats are wanted, which bytes of an
    image are. Floats where whole numbers are wanted, as tokens are, are refused, since that would lose their fractions.
    Targets keep their type, but floats come in the network's precision.

    Args:
        inputs: What the network takes, in order.
        device: Where to.
        floats: The type of the network's parameters, in which targets of floats come.
    """

    def __init__(
        self, inputs: Sequence[InputSpec], device: str | torch.device = "cpu", floats: str = "float32"
    ) -> None:
        self.specs = tuple(inputs)
        self.device = torch.device(device)
        self.floats = dtype_of(floats)
        self._dtypes = [dtype_of(spec.dtype) for spec in self.specs]

    def epoch(
        self,
        source: Source,
        size: int,
        shuffle: Shuffle | None = None,
        epoch: int = 0,
        start: int = 0,
        name: str = "the training data",
    ) -> Iterator[Batch]:
        """An epoch of a source, as `Source.batches` gives it.

        Args:
            source: Where from.
            size: Samples of a batch.
            shuffle: As in `Source.batches`; so are epoch and start.
            epoch: Which epoch.
            start: Batches that are left out.
            name: What messages call the source.

        Raises:
            DataError: A batch does not fit, or there is none.
        """
        number = start
        for number, batch in enumerate(source.batches(size, shuffle, epoch, start), start=start + 1):
            yield self(batch, f"{name}, batch {number - 1}")
        if not number:
            raise DataError(f"{name}: there is no batch in it; give one sample or more")

    def __call__(self, batch: Batch, where: str = "the batch") -> Batch:
        """A batch for the network, its inputs in a tuple.

        Args:
            batch: As a source gives it.
            where: What a message begins with, as in "the training data, batch 3".

        Raises:
            DataError: An input is missing, or of another shape or type than the network takes; a number is NaN or
                infinite; or inputs and target are not as long as each other.
        """
        found = self._in_order(batch, where)
        fed = [self._fitted(*each, where) for each in zip(found, self.specs, self._dtypes)]
        count = len(fed[0])
        for tensor, spec in zip(found, self.specs):
            if len(tensor) != count:
                raise DataError(
                    f"{where}: input {self.specs[0].name} holds {counted(count, 'sample')}, but input {spec.name} "
                    f"{len(tensor)}; give as many of each"
                )
        for tensor in tensors_of(batch.target):
            if tensor.ndim and len(tensor) != count:
                raise DataError(
                    f"{where}: the inputs hold {counted(count, 'sample')}, but the target {len(tensor)}; give a target "
                    "for each sample, along the first axis"
                )
        if not count:
            raise DataError(f"{where}: there are no samples in it; give batches of one or more")
        return Batch(tuple(fed), on_tensors(lambda t: self._target(t, where), batch.target))

    def _in_order(self, batch: Batch, where: str) -> list[torch.Tensor]:
        names = [spec.name for spec in self.specs]
        inputs = batch.inputs
        if not isinstance(inputs, Mapping):
            if len(inputs) != len(names):
                raise DataError(
                    f"{where}: it has {counted(len(inputs), 'input')}, but the network takes {len(names)}: "
                    f"{', '.join(map(cut, names))}; give them in a tuple, in this order, or in a mapping by name"
                )
            return list(inputs)
        missing = [name for name in names if name not in inputs]
        unknown = [str(name) for name in inputs if name not in names]
        if missing:
            shown = ", ".join(map(cut, inputs)) or "nothing"
            raise DataError(
                f"{where}: input {cut(missing[0])} is missing; it has {shown}, but the network takes "
                f"{', '.join(map(cut, names))}; give each under its name.{suggestion(missing[0], unknown)}"
            )
        if unknown:
            raise DataError(
                f"{where}: the network has no input {cut(unknown[0])}; it takes {', '.join(map(cut, names))}; leave "
                f"the other out.{suggestion(unknown[0], names)}"
            )
        return [inputs[name] for name in names]

    def _fitted(self, tensor: torch.Tensor, spec: InputSpec, dtype: torch.dtype, where: str) -> torch.Tensor:
        if not fits(tuple(tensor.shape), spec.dims):
            raise DataError(
                f"{where}: input {spec.name} is {shape_text(tuple(tensor.shape))}, but the network takes {spec}; "
                "reshape or resize the samples where they are made, or take a network for these"
            )
        if tensor.is_complex() or (tensor.is_floating_point() and not dtype.is_floating_point):
            raise DataError(
                f"{where}: input {spec.name} is of {type_text(tensor.dtype)}, but the network takes {spec.dtype}; "
                + ("give real numbers" if tensor.is_complex() else "give whole numbers, as tokens are: x.long()")
            )
        return self._moved(tensor, dtype, f"{where}: input {spec.name}")

    def _target(self, tensor: torch.Tensor, where: str) -> torch.Tensor:
        dtype = self.floats if tensor.is_floating_point() else tensor.dtype
        return self._moved(tensor, dtype, f"{where}: the target")

    def _moved(self, tensor: torch.Tensor, dtype: torch.dtype, where: str) -> torch.Tensor:
        """On the device and in a type; only pinned memory can be copied while this goes on."""
        pinned = self.device.type == "cuda" and tensor.is_pinned()
        if not tensor.is_floating_point():
            return tensor.to(self.device, non_blocking=pinned).to(dtype)  # after the move, while it is small
        cast = tensor.to(dtype)
        if not is_finite(cast):
            beyond = f" as {type_text(dtype)}" if is_finite(tensor) else ""
            bad = int(cast.numel() - torch.isfinite(cast).sum())
            raise DataError(
                f"{where}: {bad} of its {cast.numel()} numbers are NaN or infinite{beyond}; leave those samples out, "
                "or mend what makes them"
            )
        return cast.to(self.device, non_blocking=pinned)


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether no number is NaN or infinite."""
    # One pass with nothing written: NaN and infinity stay in a sum. A sum of finite numbers may overflow, so it alone
    # accuses nobody. Halves are added up as float32.
    total = tensor.sum(dtype=torch.float32 if tensor.element_size() < 4 else tensor.dtype)
    return math.isfinite(total.item()) or bool(torch.isfinite(tensor).all())


def fits(shape: tuple[int, ...], dims: tuple[int | str, ...]) -> bool:
    """Whether a shape is what some dims ask for."""
    return len(shape) == len(dims) and all(isinstance(dim, str) or dim == size for size, dim in zip(shape, dims))


def shape_text(dims: Sequence[int | str]) -> str:
    """(64, 3, 32, 32), with a comma behind a single one, as Python writes it."""
    return f"({', '.join(map(str, dims))}{',' if len(dims) == 1 else ''})"


def dtype_of(name: str) -> torch.dtype:
    """torch's type of a name, such as "float32"."""
    found = getattr(torch, name)
    assert isinstance(found, torch.dtype), name
    return found


def type_text(dtype: torch.dtype) -> str:
    """A type's name, without torch's."""
    return str(dtype).removeprefix("torch.")
