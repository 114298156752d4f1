"""A network as a dict for one's own checkpoint: plain text and tensors, which `torch.load(weights_only=True)` reads.

    {"format": "growir-network/1",
     "document": '{"schema": "growir/1", ...}',      the text of graph.json
     "hash": "5f1c...",                              of the graph that the tensors were packed with
     "tensors": {"fc1.weight": tensor, ...},         by state_dict key, a tied one once
     "history": {"9b0e...": tensor, ...}}            the arrays that steps recorded, by sha256

It says what a network's folder says, and is checked as that is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

from numpy.typing import NDArray

from growir.document import dumps
from growir.errors import GraphError, Problem, cut
from growir.graph import Graph
from growir.nearest import suggestion
from growir.params import array_digest, array_problems
from growir.replay import check_history
from growir.verify import load

FORMAT = "growir-network/1"
SOURCE = "Network.from_dict"
# What each entry is, in the words of a message.
_ENTRIES: Mapping[str, tuple[type[Any], str]] = {
    "format": (str, "text"),
    "document": (str, "text"),
    "hash": (str, "text"),
    "tensors": (Mapping, "a dict of tensors"),
    "history": (Mapping, "a dict of tensors"),
}

Arrays = dict[str, NDArray[Any]]


class Unpacked(NamedTuple):
    """What the dict of a network holds: its graph, its arrays by state_dict key, those of its history by sha256."""

    graph: Graph
    arrays: Arrays
    values: Arrays


def pack(graph: Graph, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """The dict of a network, with copies of its arrays as contiguous tensors on the CPU."""
    from growir.backends.torch_arrays import to_tensor

    return {
        "format": FORMAT,
        "document": dumps(graph),
        "hash": graph.hash,
        "tensors": {key: to_tensor(array) for key, array in arrays.items()},
        "history": {digest: to_tensor(array) for digest, array in values.items()},
    }


def unpack(data: object, max_parameters: int) -> Unpacked:
    """What `pack` put into a dict, with copies of its tensors, wherever they are.

    Raises:
        GraphError: It is no dict of a network, of another version, or its parts are wrong or do not belong together;
            all problems at once.
    """
    entries = _entries(data)
    problems = [
        Problem(cut(key), f"unknown entry; the dict of a network has {', '.join(_ENTRIES)}.{suggestion(key, _ENTRIES)}")
        for key in entries
        if key not in _ENTRIES
    ]
    found: dict[str, Any] = {}
    for key, (kind, what) in _ENTRIES.items():
        if key not in entries:
            problems.append(Problem(key, f"the entry is missing; {what} is needed"))
        elif not isinstance(entries[key], kind):
            problems.append(Problem(key, f"{what} is needed, but this is of type {_type(entries[key])}"))
        else:
            found[key] = entries[key]
    arrays, wrong = _arrays("tensors", found.get("tensors", {}))
    values, strange = _arrays("history", found.get("history", {}))
    problems += [*wrong, *strange, *_changed(values)]
    graph = _graph(found["document"], problems, max_parameters) if "document" in found else None
    if graph is not None:
        if "hash" in found and found["hash"] != graph.hash:
            text = (
                f"these tensors belong to the graph {cut(found['hash'])[:12]}, but the document beside them is "
                f"{graph.hash[:12]}; put back the document they were packed with"
            )
            problems.append(Problem("hash", text))
        elif "tensors" in found:
            told = {problem.where for problem in wrong}  # that a tensor cannot be read is not said twice
            placed = (Problem(f"tensors: {each.where}", each.text) for each in array_problems(graph, arrays))
            problems += [problem for problem in placed if problem.where not in told]
    if problems or graph is None:
        raise GraphError(problems, SOURCE)
    return Unpacked(graph, arrays, values)


def _entries(data: object) -> dict[str, object]:
    """The dict's entries, if it says that it is one of a network, of a version that is known."""
    if not isinstance(data, Mapping):
        raise GraphError(f"a dict that Network.to_dict() made is needed, but this is of type {_type(data)}", SOURCE)
    entries = {str(key): value for key, value in cast("Mapping[Any, object]", data).items()}
    version = entries.get("format")
    if version == FORMAT:
        return entries
    if isinstance(version, str) and (of := re.fullmatch(r"growir-network/([0-9]{1,18})", version)):
        newer = int(of[1]) > int(FORMAT.rpartition("/")[2])
        todo = "upgrade growir" if newer else f"there is no version {of[1]}"
        text = f"this dict is of version {cut(version)}, and this growir reads {FORMAT}; {todo}"
        raise GraphError([Problem("format", text)], SOURCE)
    raise GraphError(f"this is no dict that Network.to_dict() made: {_found(entries)}", SOURCE)


def _found(entries: Mapping[str, object]) -> str:
    """What a dict is that says nothing of itself, and what to do with it."""
    for key, value in entries.items():
        if isinstance(value, Mapping) and "format" in value and "document" in value:
            return f"it holds one as {cut(key)!r}, as a whole checkpoint does; give that entry alone"
    if entries and all(hasattr(value, "untyped_storage") for value in entries.values()):
        return (
            "it looks like a state_dict, which has no architecture; load it by load_state_dict into the module that "
            "Network.to_torch() makes of the network it was saved beside"
        )
    if not entries:
        return "it is empty"
    if "format" in entries:
        return f"its 'format' is {cut(entries['format'])}, and {FORMAT} is needed"
    return f"it has no 'format', but {', '.join(cut(key) for key in [*entries][:8])}"


def _graph(text: str, problems: list[Problem], max_parameters: int) -> Graph | None:
    try:
        return check_history(load(text, max_parameters=max_parameters))
    except GraphError as error:
        problems += [
            Problem(f"document: {each.where}" if each.where else "document", each.text) for each in error.problems
        ]
        return None


def _arrays(entry: str, tensors: Mapping[Any, object]) -> tuple[Arrays, list[Problem]]:
    """Copies of the tensors as arrays, and what is wrong with those that cannot be had."""
    from growir.backends.torch_arrays import read_tensor

    read: Callable[[object], NDArray[Any] | str] = read_tensor
    found: Arrays = {}
    problems: list[Problem] = []
    for key, value in tensors.items():
        array = read(value)
        if isinstance(array, str):
            problems.append(Problem(f"{entry}: {cut(key)}", array))
        else:
            found[str(key)] = array
    return found, problems


def _changed(values: Arrays) -> list[Problem]:
    return [
        Problem(f"history: {cut(digest)[:12]}", "the array has other numbers than recorded")
        for digest, array in values.items()
        if array_digest(array) != digest
    ]


def _type(value: object) -> str:
    return cut(type(value).__name__)
