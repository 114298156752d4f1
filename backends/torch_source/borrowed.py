"""Classes and functions of growir that an exported file takes along, with all they mention."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from types import ModuleType
from typing import Any

from growir.backends.torch_source.layout import literal
from growir.errors import ExportError

_IMPORTS = {
    "torch": "import torch",
    "torch.nn": "from torch import nn",
    "torch.nn.functional": "import torch.nn.functional as F",
}


class Borrowed:
    """Definitions taken over so far, in the order they have to stand in.

    Attributes:
        sources: The text of each definition by its name.
        imports: Import lines they need besides torch's own three.
    """

    def __init__(self) -> None:
        self.sources: dict[str, str] = {}
        self.imports: set[str] = set()
        self._open: set[str] = set()  # being taken: two functions may mention each other

    def take(self, thing: Any) -> str:
        """Take a class or function of growir along; its name in the file."""
        name: str = thing.__name__
        if name not in self.sources and name not in self._open:
            self._open.add(name)
            source = textwrap.dedent(inspect.getsource(thing))
            home = vars(sys.modules[thing.__module__])
            for mentioned in _names(source):
                if mentioned in home:
                    self._need(mentioned, home[mentioned])
            self.sources[name] = source.rstrip()
        return name

    def _need(self, name: str, thing: Any) -> None:
        if isinstance(thing, ModuleType):
            line = _IMPORTS.get(thing.__name__)
            if line is None:
                if thing.__name__.split(".")[0] not in sys.stdlib_module_names:
                    raise ExportError(f"an exported file imports torch alone, but {name} is {thing.__name__}")
                self.imports.add(f"import {thing.__name__}")
        elif inspect.isclass(thing) or inspect.isroutine(thing):
            home = thing.__module__
            if home.split(".")[0] == "growir":
                self.take(thing)
            else:
                self.imports.add(f"from {home} import {thing.__name__}")
        elif name not in self.sources:
            self.sources[name] = f"{name} = {literal(thing)}"


def _names(source: str) -> list[str]:
    """The names that source code reads, annotations left out, for they are never evaluated."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
            for arg in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
                arg.annotation = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
    return list(dict.fromkeys(node.id for node in ast.walk(tree) if isinstance(node, ast.Name)))
