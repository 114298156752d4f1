"""Names of nodes from the model's module hierarchy, so that parameters keep the keys of the model's state_dict."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable, Sequence

from growir import names
from growir.backends.torch_export.exporting import module_of
from growir.backends.torch_export.reading import Draft
from growir.ops import Parameter

_TAIL = ".weight"


def name_drafts(drafts: Sequence[Draft], inputs: Iterable[str], leaves: Container[str]) -> list[tuple[str, str | None]]:
    """A name for each draft, and what the model calls it where that is another; `leaves` are modules without others.

    A node with parameters is called as the module that holds them; a module that is one node, as the module; anything
    else, as the module it ran in and its kind. Modules called again get a number.
    """
    book = _Book(inputs)
    found: dict[int, str] = {}
    stems = [_stem(draft) for draft in drafts]
    calls = Counter(map(_instance, drafts))
    # Those that parameters are filed under come first, then modules, then calls: the later ones make way.
    wanted = {stem: k for k, stem in reversed(list(enumerate(stems))) if stem}
    modules = {prefix for stem in wanted for prefix in _prefixes(stem)}
    for stem, k in sorted(wanted.items(), key=lambda item: item[1]):
        kind = drafts[k].op.kind()
        found[k] = book.take(valid(f"{stem}.{kind}" if stem in modules else stem), kind)
    for single in (True, False):
        for k, draft in enumerate(drafts):
            path, kind = _path(draft), draft.op.kind()
            is_single = bool(path) and path in leaves and calls[_instance(draft)] == 1 and not stems[k]
            if k in found or is_single != single:
                continue
            # A module that has parameters and was named already runs again.
            wish = stems[k] or (path if single else ".".join(filter(None, (path, kind))))
            found[k] = book.take(valid(wish), kind)
    return [(found[k], _source(draft, found[k])) for k, draft in enumerate(drafts)]


def _path(draft: Draft) -> str:
    """The module that the call ran in."""
    if isinstance(draft.op, Parameter):
        return ""
    return module_of(draft.call)[0]


def _instance(draft: Draft) -> str:
    """The module and which of its calls it was: the exporter puts "@1" behind a module that runs again."""
    stack: dict[str, tuple[str, object]] = draft.call.meta.get("nn_module_stack") or {}
    return next(reversed(stack), "")


def _stem(draft: Draft) -> str:
    """The module whose parameters the node has, by their keys; nothing if it has none."""
    own = [(name, held.keys) for name, held in draft.params.items() if held.keys]
    if not own:
        return ""
    name, keys = own[0]
    path = module_of(draft.call)[0]
    key = next((key for key in keys if key == f"{path}.{name}"), keys[0])
    if isinstance(draft.op, Parameter):
        return key.removesuffix(_TAIL)
    stem = key.removesuffix(name).rstrip("._")  # attn.in_proj_weight is the weight of attn.in_proj
    return stem if key.endswith(name) else ""


def _source(draft: Draft, name: str) -> str | None:
    """The model's own keys of its parameters, or its module, where the node is called otherwise."""
    renamed = [
        f"{parameter}: {held.keys[0]}"
        for parameter, held in draft.params.items()
        if held.keys and f"{name}.{parameter}" not in held.keys
    ]
    path = _path(draft)
    if renamed:
        return ", ".join(renamed)
    return path if path and not name.startswith(path) else None


def valid(path: str) -> str:
    """The path as a document may have it."""
    segments = [_segment(part) for part in path.split(".")]
    if segments[0].isdigit():
        segments.insert(0, "layers")
    return ".".join(segments)


def _segment(text: str) -> str:
    clean = re.sub(r"[^A-Za-z0-9_]", "_", text)[:60] or "_"
    if clean[0].isdigit() and not clean.isdigit():
        clean = f"_{clean}"
    if clean.isdigit():
        return clean
    return clean if names.fault(clean) is None else f"{clean.strip('_') or 'node'}_"


def _prefixes(path: str) -> list[str]:
    """The modules that a path lies in."""
    parts = path.split(".")
    return [".".join(parts[:k]) for k in range(1, len(parts))]


class _Book:
    """The names taken so far, and the modules they make."""

    def __init__(self, inputs: Iterable[str]) -> None:
        self.taken = set(inputs)
        self.modules: set[str] = set()
        self.counts: dict[str, int] = {}  # the last number behind each name

    def take(self, wanted: str, kind: str) -> str:
        """The wanted name, or one like it that is free; `kind` stands for a name that is only a number."""
        name = self._beside(wanted)
        stem, _, last = name.rpartition(".")
        if name in self.taken and last.isdigit():
            name = wanted = f"{stem}.{kind}"
        count = self.counts.get(wanted, 0)
        while name in self.taken or name in self.modules:
            count += 1
            name = f"{self._beside(wanted)}_{count}"
        self.counts[wanted] = count
        self.taken.add(name)
        self.modules.update(_prefixes(name))
        return name

    def _beside(self, name: str) -> str:
        """The name, moved out of a node: one that is a node already cannot be a module too."""
        parts = name.split(".")
        for k in range(1, len(parts)):
            if ".".join(parts[:k]) in self.taken:
                number = parts[k - 1].isdigit()
                joined = [*parts[k:], parts[k - 1]] if number else parts[k - 1 :]
                return self._beside(".".join([*parts[: k - 1], "_".join(joined)]))
        return name
