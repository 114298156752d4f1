"""Networks on disk: graph.json, params.safetensors, history.safetensors; written whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from growir.document import decode, dumps
from growir.errors import ExportError, GraphError, Problem, cut
from growir.graph import Graph
from growir.params import array_digest

GRAPH, PARAMS, HISTORY = "graph.json", "params.safetensors", "history.safetensors"
NUMPY_KINDS = frozenset("BOOL U8 I8 U16 I16 U32 I32 U64 I64 F16 BF16 F32 F64".split())  # as safetensors calls them


def write_file(path: Path, data: bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file whole or not at all: bytes, or what a function writes. Raises ExportError with the reason."""
    temporary = path.with_name(f".{path.name}.new-{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            if callable(data):
                data(file)
            else:
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise ExportError(f"{path}: cannot be written: {error.strerror or error}") from None
        raise


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Make a folder whole or not at all, in place of one that is there.

    The new one is written beside it, the old one is moved aside, the new one moved in, the old one removed: whenever
    this is cut short, `recover` finds either the old state or the new one.

    Raises:
        ExportError: It cannot be written; what was there is still there.
    """
    new, old = path.with_name(f".{path.name}.new-{os.getpid()}"), _aside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        recover(path)
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        fill(new)
        _flush(new)
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
            path.rename(old)
        new.rename(path)
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        recover(path)
        raise ExportError(f"{path}: cannot be written: {error.strerror or error}") from None
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        recover(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _flush(folder: Path) -> None:
    """Have the disk hold what a folder's files hold: the move that follows must not get there first."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def recover(path: Path) -> None:
    """Bring back the folder that a crash left aside."""
    if not path.exists() and _aside(path).is_dir():
        with suppress(OSError):  # where nothing may be written, the folder is missing
            _aside(path).rename(path)


def is_network(path: Path) -> bool:
    """Whether a folder is a saved network."""
    return (path / GRAPH).is_file() and (path / PARAMS).is_file()


def is_document(path: Path, kind: str = "growir") -> bool:
    """Whether a file is a document of growir, of a graph if no other kind is said, and of whatever version."""
    try:
        return str(decode(path.read_bytes()).get("schema")).startswith(f"{kind}/")
    except (GraphError, OSError):
        return False


def check_place(path: Path) -> None:
    """Raise ExportError unless `path` is free, an empty folder, or a network and nothing else."""
    check_folder(path, [GRAPH, PARAMS], [HISTORY], "network")


def check_folder(path: Path, needed: Sequence[str], more: Collection[str], what: str, kind: str = "growir") -> None:
    """Raise ExportError unless `path` is free, an empty folder, or one of growir's and nothing else.

    Args:
        path: Where it is to be.
        needed: The files that it has at least, its document first.
        more: Those that it may have.
        what: What it is called.
        kind: What the schema of its document begins with.
    """
    if not path.exists():
        return
    if not all((path / name).is_file() for name in needed):
        if path.is_dir() and not any(path.iterdir()):
            return
        kind = "a folder with other files" if path.is_dir() else "a file"
        raise ExportError(f"{path}: is {kind}, not a growir {what}, and is not overwritten; choose another place")
    if not is_document(path / needed[0], kind):
        raise ExportError(
            f"{path}: its {needed[0]} is damaged or another tool's, so the folder is not overwritten; "
            "choose another place"
        )
    ours = {*needed, *more}
    for entry in sorted(path.iterdir()):
        leftover = any(entry.name.startswith(f".{name}.new-") for name in ours)  # of a `write_file` cut short
        if not entry.is_file() or not (entry.name in ours or leftover):
            raise ExportError(
                f"{path}: is not overwritten, for {cut(entry.name)!r} in it is no part of a {what}; "
                "move that away, or choose another place"
            )


def save_network(
    path: Path, graph: Graph, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, NDArray[Any]]
) -> None:
    """Save a network as a folder.

    Raises:
        ExportError: There is something else at `path`, or it cannot be written; nothing has changed.
    """
    path = path.resolve()  # a link stays a link, and "." has a name
    recover(path)
    check_place(path)

    def fill(folder: Path) -> None:
        (folder / GRAPH).write_text(dumps(graph), encoding="utf-8")
        write_tensors(folder / PARAMS, arrays, {"growir.hash": graph.hash})
        if values:
            write_tensors(folder / HISTORY, values, {})

    write_folder(path, fill)


def write_tensors(path: Path, arrays: Mapping[str, NDArray[Any]], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file. Raises OSError."""
    from safetensors.numpy import save

    # Through bytes and our own write: a full disk is then an OSError, not a half-written file.
    path.write_bytes(save({key: np.asarray(array, order="C") for key, array in arrays.items()}, metadata))


def read_tensors(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Tensors and metadata of a safetensors file. Raises GraphError if it is missing, truncated or none."""
    from safetensors import SafetensorError, safe_open

    try:
        opened: Any = safe_open(path, framework="np")  # it ships no types
        with opened as file:
            arrays: dict[str, NDArray[Any]] = {}
            for key in list(file.keys()):
                # Not left to numpy, which has more dtypes once some other package has registered them.
                kind = file.get_slice(key).get_dtype()
                if kind not in NUMPY_KINDS:
                    text = f"{cut(key)} is of {cut(kind)}, which numpy has not; save it as float32"
                    raise GraphError([Problem(str(path), text)])
                arrays[key] = file.get_tensor(key)
            return arrays, dict(file.metadata() or {})
    except FileNotFoundError:
        raise GraphError([Problem(str(path), "there is no such file")]) from None
    except (SafetensorError, OSError, TypeError, ValueError, AttributeError) as error:
        raise GraphError([Problem(str(path), f"not a readable safetensors file: {error}")]) from None


def read_params(folder: Path, graph: Graph) -> dict[str, NDArray[Any]]:
    """The weights of a saved network. Raises GraphError if they belong to another graph."""
    arrays, metadata = read_tensors(folder / PARAMS)
    claimed = metadata.get("growir.hash")
    if claimed is not None and claimed != graph.hash:
        text = (
            f"these weights belong to the graph {cut(claimed)[:12]}, but {GRAPH} beside them is {graph.hash[:12]}; "
            "put back the graph they were saved with"
        )
        raise GraphError([Problem(str(folder / PARAMS), text)])
    return arrays


def read_values(folder: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a saved history by their sha256. Raises GraphError if one is not what its key says."""
    if not (folder / HISTORY).is_file():
        return {}
    values, _ = read_tensors(folder / HISTORY)
    for digest, array in values.items():
        if array_digest(array) != digest:
            raise GraphError(
                [Problem(str(folder / HISTORY), f"the array {cut(digest)[:12]} has other numbers than recorded")]
            )
    return values
