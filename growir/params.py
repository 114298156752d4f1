"""Parameters of a graph: which tensors there are, who owns them, and the numbers they start with."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, assert_never, cast

import ml_dtypes
import numpy as np
from numpy.typing import DTypeLike, NDArray

from growir.errors import Problem, cut
from growir.graph import Graph, per_graph
from growir.nearest import alternatives, suggestion
from growir.ops import Constant, Init, Normal, Param, Uniform
from growir.shapes import own_tables
from growir.shapes import owners as owners

if TYPE_CHECKING:
    Array = NDArray[Any]
Arrays = Mapping[str, "NDArray[Any]"]

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)  # which numpy itself does not have
FLOATS = ("float16", "bfloat16", "float32", "float64")


@per_graph
def param_table(graph: Graph) -> Mapping[str, Param]:
    """The stored tensors by key, in document order; these are the state_dict keys."""
    table: dict[str, Param] = {}
    own = owners(graph)
    for name, params in own_tables(graph).items():
        for parameter, param in params.items():
            key = f"{name}.{parameter}"
            if own[key] == key:
                table[key] = param
    return table


@per_graph
def frozen_keys(graph: Graph) -> frozenset[str]:
    """The keys of the stored parameters that training leaves as they are."""
    return frozenset(f"{node.name}.{parameter}" for node in graph.nodes for parameter in node.frozen)


def with_frozen(graph: Graph, keys: Collection[str]) -> Graph:
    """The same graph in which training leaves exactly these stored parameters as they are."""
    if frozen_keys(graph) == frozenset(keys):
        return graph
    found: dict[str, list[str]] = {}
    for key in keys:
        host, _, parameter = key.rpartition(".")
        found.setdefault(host, []).append(parameter)
    nodes = [node.model_copy(update={"frozen": tuple(sorted(found.get(node.name, ())))}) for node in graph.nodes]
    return graph.replace(nodes=nodes)


def draw(init: Init, shape: tuple[int, ...], *, seed: int, step: int, key: str) -> NDArray[np.float64]:
    """Fresh numbers in float64, a function of (seed, step, key) alone: no order of drawing can change them."""
    match init:
        case Constant(value):
            return np.full(shape, value)
        case Uniform(bound):
            return _generator(seed, step, key).uniform(-bound, bound, shape)
        case Normal(std, zero):
            drawn = _generator(seed, step, key).normal(0.0, std, shape)
            if zero is not None:
                drawn[zero] = 0.0
            return drawn
    assert_never(init)


def spread(init: Init) -> float:
    """The standard deviation of what an initialiser draws; 0 of a constant."""
    match init:
        case Uniform(bound):
            return bound / 3**0.5
        case Normal(std, _):
            return std
        case Constant(_):
            return 0.0
    assert_never(init)


def _generator(seed: int, step: int, key: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed}/{step}/{key}".encode()).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(digest[:16], dtype=np.uint64)))


def initial_arrays(graph: Graph, seed: int, dtype: DTypeLike = np.float32) -> dict[str, NDArray[Any]]:
    """Every stored tensor, drawn from its operator's initialiser."""
    return {
        key: draw(param.init, param.shape, seed=seed, step=0, key=key).astype(storage(param, dtype))
        for key, param in param_table(graph).items()
    }


def storage(param: Param, dtype: DTypeLike) -> np.dtype[Any]:
    """The dtype a tensor is stored in, in a network of this float dtype."""
    return np.dtype(np.int64 if param.dtype == "int64" else dtype)


def array_digest(array: NDArray[Any]) -> str:
    """sha256 of a tensor's dtype, shape and numbers, in hex."""
    whole = np.asarray(array, order="C")  # ascontiguousarray would make a scalar a vector
    digest = hashlib.sha256(f"{whole.dtype.str}{whole.shape}".encode())
    digest.update(whole.tobytes())
    return digest.hexdigest()


def array_problems(graph: Graph, arrays: Arrays) -> list[Problem]:
    """Everything that keeps these arrays from being this graph's weights."""
    table = param_table(graph)
    problems: list[Problem] = []
    for key, param in table.items():
        if key not in arrays:
            text = f"the tensor is missing; {list(param.shape)} is needed.{suggestion(key, set(arrays) - set(table))}"
            problems.append(Problem(cut(key), text))
            continue
        array = arrays[key]
        if not isinstance(cast("object", array), np.ndarray):
            text = f"a numpy array is needed, but this is of type {cut(type(array).__name__)}"
            problems.append(Problem(cut(key), text))
        elif array.shape != param.shape:
            text = f"the tensor has shape {list(array.shape)}, but the graph needs {list(param.shape)}"
            problems.append(Problem(cut(key), text))
        elif param.dtype == "int64" and array.dtype != np.int64:
            problems.append(Problem(cut(key), f"the tensor is of {array.dtype}, but int64 is needed"))
        elif param.dtype == "float" and array.dtype.name not in FLOATS:
            problems.append(
                Problem(cut(key), f"the tensor is of {array.dtype}, but one of {', '.join(FLOATS)} is needed")
            )
        elif not np.isfinite(array).all():
            bad = int(array.size - np.isfinite(array).sum())
            problems.append(Problem(cut(key), f"{bad} of its {array.size} numbers are NaN or infinite"))
    problems += _dtype_problems(table, arrays)
    for key in arrays:
        if key not in table:
            problems.append(Problem(cut(key), f"the graph has no such tensor.{alternatives(key, table)}"))
    return problems


def _dtype_problems(table: Mapping[str, Param], arrays: Arrays) -> list[Problem]:
    """The float tensors that are not of the dtype that most are of: torch computes with one alone."""
    dtypes = {
        key: arrays[key].dtype.name
        for key, param in table.items()
        if param.dtype == "float" and isinstance(cast("object", arrays.get(key)), np.ndarray)
    }
    dtypes = {key: dtype for key, dtype in dtypes.items() if dtype in FLOATS}  # the others are told anyway
    if len(set(dtypes.values())) <= 1:
        return []
    usual = Counter(dtypes.values()).most_common(1)[0][0]
    text = f"but most of the network's are of {usual}; all float tensors of a network have one dtype, so cast it"
    return [Problem(cut(key), f"the tensor is of {dtype}, {text}") for key, dtype in dtypes.items() if dtype != usual]


def frozen(array: NDArray[Any]) -> NDArray[Any]:
    """The array, C-contiguous, in the machine's byte order and read-only; nobody else can write to its memory.

    safetensors' numpy writer stores the memory as it lies, so a transposed or strided array would be saved wrong.
    """
    flags = array.flags
    if flags.c_contiguous and flags.owndata and not flags.writeable and array.dtype.isnative:
        return array
    whole = np.array(array, dtype=array.dtype.newbyteorder("="), order="C", copy=True)
    whole.flags.writeable = False
    return whole
