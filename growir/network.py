"""A network: a graph with its parameters and buffers; and opening whatever a path holds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from growir import store, verify
from growir.edits import NUMPY, apply_edits
from growir.errors import GraphError, PassRefused, Problem, cut
from growir.graph import Graph, History, graph_of
from growir.nearest import neighbours
from growir.packing import pack, unpack
from growir.params import (
    FLOATS,
    array_digest,
    array_problems,
    frozen,
    frozen_keys,
    initial_arrays,
    param_table,
    with_frozen,
)
from growir.passes import needed_pass
from growir.replay import check_history, missing_values, rewrites
from growir.rewrite import Pass, Preserves, Rewrite
from growir.show import some

if TYPE_CHECKING:
    import torch
    from torch import fx

Source = str | os.PathLike[str]


class Network:
    """A graph with its tensors. Nothing in it changes: growing and training give new networks.

    Attributes:
        graph: The architecture, with its history.
        arrays: Every tensor by its state_dict key, read-only; a tied one once, under its owner.
        values: The arrays that history steps recorded, by sha256.

    Raises:
        GraphError: The arrays do not fit the graph, or hold NaN; all problems at once.
    """

    def __init__(
        self,
        graph: Graph,
        arrays: Mapping[str, NDArray[Any]],
        values: Mapping[str, NDArray[Any]] | None = None,
        *,
        source: str = "",
    ) -> None:
        graph = graph_of(graph)
        _check_mapping(arrays)
        problems = array_problems(graph, arrays)
        if problems:
            raise GraphError(problems, source)
        self.graph = graph
        self.arrays: Mapping[str, NDArray[Any]] = MappingProxyType({k: frozen(arrays[k]) for k in param_table(graph)})
        self.values: Mapping[str, NDArray[Any]] = MappingProxyType({k: frozen(v) for k, v in (values or {}).items()})

    def __reduce__(self) -> tuple[type[Network], tuple[Any, ...]]:
        # The views that keep the mappings read-only can be neither copied nor pickled.
        return (type(self), (self.graph, dict(self.arrays), dict(self.values)))

    def __repr__(self) -> str:
        return f"Network({self.graph.name!r}, {self.graph.costs().parameters} parameters, {self.graph.hash[:12]})"

    @property
    def params(self) -> Mapping[str, NDArray[Any]]:
        """Every tensor by its state_dict key; the same as `arrays`."""
        return self.arrays

    @property
    def history(self) -> History | None:
        """The graph growth started from and every rewrite since, or None if it has not grown."""
        return self.graph.history

    @property
    def dtype(self) -> np.dtype[Any]:
        """The float dtype of its tensors; float32 if it has none."""
        for key, param in param_table(self.graph).items():
            if param.dtype == "float":
                return self.arrays[key].dtype
        return np.dtype(np.float32)

    @classmethod
    def init(cls, graph: Graph, seed: int = 0, dtype: DTypeLike = np.float32) -> Network:
        """A network with fresh parameters, a function of the graph and the seed alone.

        Raises:
            GraphError: The graph is wrong, or the dtype is none that a network's tensors can have.
        """
        graph = verify.verify(graph_of(graph))
        return cls(graph, initial_arrays(graph, seed, _float_dtype(dtype)))

    @classmethod
    def load(cls, path: Source, *, max_parameters: int = verify.MAX_PARAMETERS) -> Network:
        """Load a network folder, or a run folder's network.

        Raises:
            GraphError: The document, the weights or the history are wrong or do not belong together.
        """
        folder = _network_folder(_path(path))
        if folder is None:
            text = f"no network here: {store.GRAPH} and {store.PARAMS} are needed{neighbours(_path(path))}"
            raise GraphError([Problem(str(path), text)])
        return _read_network(folder, max_parameters)

    def save(self, path: Source) -> None:
        """Save as a folder, whole or not at all; only a growir network is ever overwritten.

        Raises:
            ExportError: Something else is at `path`, or it cannot be written.
        """
        store.save_network(Path(path), self.graph, self.arrays, self.values)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, max_parameters: int = verify.MAX_PARAMETERS) -> Network:
        """The network that `to_dict` put into a dict, equal to the bit, wherever the dict's tensors are.

        Raises:
            GraphError: It is no such dict, or its document, tensors or history are wrong or do not belong together;
                all problems at once.
        """
        return cls(*unpack(data, max_parameters))

    def to_dict(self) -> dict[str, Any]:
        """The network as a dict for one's own checkpoint, which torch.save writes and torch.load reads.

        Document and history as text, tensors by state_dict key on the CPU. They are copies, which nothing else reads;
        with `torch.load(..., weights_only=True)` nothing in it runs code.
        """
        return pack(self.graph, self.arrays, self.values)

    def apply(self, pass_: Pass, verify: bool | float = False) -> Network:
        """A new network with the pass applied to graph and tensors.

        Args:
            pass_: The pass.
            verify: Measure on a random batch how far the outputs move; where inputs or outputs become longer, at the
                old entries. True refuses a change that the pass excludes (more than rounding, 1e-9 of the largest
                value, where it promises to keep the function); a number refuses a larger change than that part of each
                output's largest value, whatever the pass promises.

        Raises:
            PassRefused: It is no pass, does not fit, or has another's name, or `verify` measured a change that is not
                allowed; nothing is applied.
        """
        done = needed_pass(pass_).rewrite(self.graph)
        arrays = apply_edits(done.edits, self.arrays, NUMPY, self.dtype)
        given = {array_digest(array): array for array in pass_.values.values()}
        if verify is not False:
            self._check(done, pass_, verify)
        return Network(done.graph, arrays, {**self.values, **given})

    def measure(self, pass_: Pass) -> dict[str, float]:
        """How far a pass would move each output on a random batch in eval mode, as a part of its largest value.

        What a pass that promises no more than an approximation really does: the prune of a dead channel measures as
        rounding. Computed in float64. Raises PassRefused if the pass does not fit.
        """
        return self._changes(needed_pass(pass_).rewrite(self.graph))

    def _changes(self, done: Rewrite) -> dict[str, float]:
        from growir.backends.torch_fx.probe import largest_change

        # In float64, where a share such as 1/3 does not drown in the rounding of the weights.
        exact = {k: a.astype(np.float64) if a.dtype.name in FLOATS else a for k, a in self.arrays.items()}
        moved = apply_edits(done.edits, exact, NUMPY, np.dtype(np.float64))
        return largest_change((self.graph, exact), (done.graph, moved), done.entries)

    def _check(self, done: Rewrite, pass_: Pass, limit: bool | float) -> None:
        keeps = done.preserves in (Preserves.EXACT, Preserves.EVAL)
        if limit is True and not keeps:
            return
        most, why = (
            (1e-9, f"the pass promises {done.preserves}") if limit is True else (limit, f"at most {limit:g} is allowed")
        )
        for name, worst in self._changes(done).items():
            if not worst <= most:
                raise PassRefused(
                    f"{pass_.name}: output {cut(name)!r} changed by {worst:.1e} of its largest value on a random "
                    f"batch, although {why}; nothing was applied"
                )

    def replayed(self, arrays: Mapping[str, NDArray[Any]] | None = None, seed: int = 0) -> Network:
        """The recorded growth run again from the history's base.

        Args:
            arrays: Weights of the base graph to grow; drawn from `seed` if None.
            seed: For the base's weights.

        Raises:
            GraphError: There is no history, arrays that its steps recorded are missing (`values`), a step does not run
                here, or the weights do not fit the base.
        """
        if self.history is None:
            raise GraphError("the network has no history to replay")
        missing = missing_values(self.graph, self.values)
        if missing:
            todo = f"put back the {store.HISTORY} they were saved in, or give live.network_of the reports' values"
            raise GraphError(
                Problem(where, f"the values that it recorded for {some(keys)} are not here; {todo}")
                for where, keys in missing.items()
            )
        base = self.history.base
        current = Network(base, arrays) if arrays is not None else Network.init(base, seed, self.dtype)
        # What has grown may have lost every tensor that could say the dtype, and what it grew from may have had none.
        floats = any(param.dtype == "float" for param in param_table(base).values())
        dtype = current.dtype if floats else self.dtype
        for done in rewrites(self.graph, self.values):
            tensors = apply_edits(done.edits, current.arrays, NUMPY, dtype)
            current = Network(done.graph, tensors, self.values)
        # What is trained may have changed since, and no step says so.
        return Network(with_frozen(current.graph, frozen_keys(self.graph)), current.arrays, current.values)

    def with_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> Network:
        """The same graph and history with other tensors; those not given stay."""
        _check_mapping(arrays)
        return Network(self.graph, {**self.arrays, **arrays}, self.values)

    def to_torch(self, device: torch.device | str | None = "cpu", dtype: torch.dtype | None = None) -> fx.GraphModule:
        """A trainable torch.fx.GraphModule with copies of the tensors; state_dict keys are the document's.

        A prefix of names whose nodes give one value to the others, such as a block of a transformer, is a module with a
        forward of its own: `module.get_submodule("blocks.0")` can be checkpointed, compiled or sharded by itself.
        """
        from growir.backends.torch_fx import lower

        return lower(self.graph, self.arrays, device=device, dtype=dtype, values=self.values)

    def updated(self, module: torch.nn.Module, *, keep_frozen: bool = False) -> Network:
        """This network with the module's weights, and frozen where they require no gradient.

        Args:
            module: A module of this graph, whatever it was wrapped in.
            keep_frozen: Leave as it is what this network freezes: for an average of the weights, say, none of which
                requires a gradient.

        Raises:
            ModelError: It is a module of another graph.
        """
        from growir.backends.torch_fx import frozen_in, read_back

        arrays = read_back(self.graph, module)
        graph = self.graph if keep_frozen else with_frozen(self.graph, frozen_in(self.graph, module))
        return Network(graph, arrays, self.values)

    def to_onnx(self, path: Source, opset: int = 18) -> list[str]:
        """Write a checked ONNX model with a dynamic batch; returns notices, such as that float64 became float32.

        An ONNX file that growir wrote before is replaced, any other file is left as it is.

        Raises:
            ExportError: The opset is not supported, another file is at `path`, or the file cannot be written.
        """
        from growir.backends.onnx_ir import save_model

        return save_model(self.graph, self.arrays, Path(path), opset=opset)


def _float_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    with suppress(TypeError):
        if (found := np.dtype(dtype)).name in FLOATS:
            return found
    raise GraphError(f"a network's dtype is one of {', '.join(FLOATS)}, but {cut(dtype)} is given")


def _check_mapping(arrays: object) -> None:
    """Raise GraphError unless these can be arrays by key."""
    if isinstance(arrays, Mapping):
        return
    todo = "; give its .arrays" if isinstance(arrays, Network) else ""
    kind = cut(type(arrays).__name__)
    raise GraphError(f"arrays by key are needed, as Network.arrays has them, but this is of type {kind}{todo}")


def _path(source: Source) -> Path:
    try:
        return Path(source)
    except TypeError:
        kind = type(source).__name__
        raise GraphError(f"a path or a decoded document is needed, but this is of type {cut(kind)}") from None


def _network_folder(path: Path) -> Path | None:
    # A run that was killed has no network yet, but its last completed growth.
    store.recover(path / "checkpoint")
    for folder in (path, path / "network", path / "checkpoint" / "network"):
        store.recover(folder)
        if store.is_network(folder):
            return folder
    return None


def _read_network(folder: Path, max_parameters: int) -> Network:
    graph = _read_document(folder / store.GRAPH, max_parameters)
    arrays = store.read_params(folder, graph)
    return Network(graph, arrays, store.read_values(folder), source=str(folder / store.PARAMS))


def _read_document(path: Path, max_parameters: int) -> Graph:
    try:
        text = path.read_bytes()
    except OSError as error:
        why = f"cannot be read: {error.strerror or error}{neighbours(path)}"
        raise GraphError([Problem(str(path), why)]) from None
    graph = verify.load(text, str(path), max_parameters=max_parameters)
    try:
        return check_history(graph)
    except GraphError as error:
        raise error.at(str(path)) from None


def load_graph(source: Source | Mapping[str, Any], *, max_parameters: int = verify.MAX_PARAMETERS) -> Graph:
    """A validated graph from a document, a network or run folder, an ONNX file growir wrote, or decoded JSON.

    Raises:
        GraphError: With every problem of the document.
    """
    if isinstance(source, Mapping):
        return check_history(verify.load(dict(source), max_parameters=max_parameters))
    path = _path(source)
    folder = _network_folder(path) if path.is_dir() else None
    if folder is not None:
        return _read_document(folder / store.GRAPH, max_parameters)
    if path.is_dir():
        raise GraphError(
            [Problem(str(path), f"no network in this folder: {store.GRAPH} and {store.PARAMS} are needed")]
        )
    if path.suffix.lower() == ".onnx":
        from growir.backends.onnx_ir import read_document

        return check_history(verify.load(read_document(path), str(path), max_parameters=max_parameters))
    return _read_document(path, max_parameters)


def open_path(source: Source, *, max_parameters: int = verify.MAX_PARAMETERS) -> Graph | Network:
    """A network where the path holds weights, else a graph. Raises GraphError as `load_graph` does."""
    path = _path(source)
    folder = _network_folder(path) if path.is_dir() else None
    if folder is not None:
        return _read_network(folder, max_parameters)
    return load_graph(path, max_parameters=max_parameters)
