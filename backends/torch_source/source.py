"""A network's source as a class of torch.nn.

Written from the lowered graph, so there is no second table of operators: modules become constructor calls, function
calls stay what they are, and growir's own modules and functions come along as source.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from numpy.typing import NDArray
from torch import fx, nn

from growir import __version__
from growir.backends.torch_fx import lower
from growir.backends.torch_source.borrowed import Borrowed
from growir.backends.torch_source.constructor import Constructors, tensors_of
from growir.backends.torch_source.layout import Bracketed, Expression, call, literal, statement
from growir.backends.torch_source.targets import applied, belongs_to_growir, method
from growir.errors import cut
from growir.graph import Graph
from growir.names import RESERVED
from growir.ops import Constant, Normal, Param, Uniform
from growir.params import FLOATS, owners, param_table
from growir.shapes import own_tables, shapes_of

MARK = "# Written by growir"
CLASS = "Net"


def module_source(graph: Graph, arrays: Mapping[str, NDArray[Any]], stem: str = "net") -> str:
    """A file with a class `Net` that computes the graph and whose state_dict keys are the document's.

    Args:
        graph: A verified graph.
        arrays: Its stored tensors by key: their dtypes become the class's.
        stem: What the file and its weights are called, for the example in its docstring.

    Raises:
        ExportError: Something in the graph cannot be written as source.
    """
    return _Source(graph, arrays).text(stem)


class _Source:
    """One graph on its way to source."""

    def __init__(self, graph: Graph, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.graph = graph
        self.arrays = arrays
        self.borrowed = Borrowed()
        self.constructors = Constructors()
        # With every node as an output, the lowered graph says which of its values is which node's.
        all_values = graph.replace(outputs=[node.name for node in graph.nodes] or graph.outputs)
        whole = lower(all_values, arrays, device="cpu", form="function")
        self.module: fx.GraphModule = whole
        self.code: list[fx.Node] = list(whole.graph.nodes)
        values = self.code.pop().args[0]
        found = values if isinstance(values, tuple) else (values,)
        self.values: dict[str, Any] = dict(zip((node.name for node in graph.nodes), found, strict=False))
        self.values |= {str(node.target): node for node in self.code if node.op == "placeholder"}
        self.text_of: dict[fx.Node, Expression] = {}
        self.shared = self._shared()

    def text(self, stem: str) -> str:
        init = [*self._init()]
        for node in self.code:
            if node.op == "call_function" and belongs_to_growir(node.target):
                self.borrowed.take(node.target)
        shared = {"self", "torch", "nn", "F", CLASS, "float", "slice", "getattr", *self.borrowed.sources}
        forward = [*self._forward(shared | {line.split()[-1] for line in self.borrowed.imports})]
        parts = [self._heading(stem)]
        imports = ["import torch", "import torch.nn.functional as F", "from torch import nn"]
        plain = sorted({*imports[:2], *(line for line in self.borrowed.imports if line.startswith("import"))})
        rest = sorted({imports[2], *(line for line in self.borrowed.imports if line.startswith("from"))})
        body = "\n".join([*init, *forward, *self.borrowed.sources.values()])
        used = [line for line in (*plain, *rest) if line != imports[1] or "F." in body]
        parts.append("from __future__ import annotations\n\n" + "\n".join(used))
        parts += [f"\n{source}\n" for source in self.borrowed.sources.values()]
        parts.append("\n" + "\n".join([f"class {CLASS}(nn.Module):", *init, "", *forward]))
        return "\n".join(part.rstrip("\n") + "\n" for part in parts)

    def _heading(self, stem: str) -> str:
        shapes = shapes_of(self.graph)
        name = _plain(self.graph.name)
        where = f"from {stem} import {CLASS}" if stem.isidentifier() else f"# {CLASS} is the class in this file"
        inputs = [(entry.name, shapes[entry.name]) for entry in self.graph.inputs]
        outputs = [(name, shapes[name]) for name in self.graph.outputs]
        lines = [
            f"{MARK} {__version__} from the graph {self.graph.hash}.",
            f'"""The network {name}, which needs torch alone.',
            "",
            "The keys of its state_dict are those of the weights beside this file:",
            "",
            f"    {where}",
            "    from safetensors.torch import load_file",
            "",
            f"    net = {CLASS}()",
            f'    net.load_state_dict(load_file("{_plain(stem)}.safetensors"))',
            "    net.eval()",
            "",
            *(f"Input   {name} {shape}" for name, shape in inputs),
            *(f"Output  {name} {shape}" for name, shape in outputs),
            '"""',
            "",
        ]
        return "\n".join(lines)

    def _shared(self) -> dict[str, str]:
        """Modules all of whose tensors are another's: they are one module under two names."""
        found: dict[str, str] = {}
        for name, params in own_tables(self.graph).items():
            host = next((owners(self.graph)[f"{name}.{key}"].rpartition(".")[0] for key in params), name)
            same_keys = all(owners(self.graph)[f"{name}.{key}"] == f"{host}.{key}" for key in params)
            if host == name or not same_keys or own_tables(self.graph)[host].keys() != params.keys():
                continue
            pair = self.module.get_submodule(name), self.module.get_submodule(host)
            if str(self._made(pair[0])) == str(self._made(pair[1])):
                found[name] = host
        return found

    # -- the constructor ----------------------------------------------------------------------------------------------

    def _init(self) -> Iterator[str]:
        yield "    def __init__(self) -> None:"
        yield "        super().__init__()"
        yield from self._children(self.module, [])
        for name, owner in self.shared.items():
            yield from self._assigned(name.split("."), self._path(owner.split(".")))
        yield from self._dtypes()
        yield from self._ties()  # after the casts, which make new buffers
        yield from self._frozen()

    def _children(self, parent: nn.Module, path: list[str]) -> Iterator[str]:
        for name, child in parent.named_children():
            here = [*path, name]
            if ".".join(here) in self.shared:
                continue  # once all others are there
            yield from self._assigned(here, self._made(child))
            built = self._built(child)
            for key in own_tables(self.graph).get(".".join(here), ()):
                if key not in built:
                    yield from self._tensor(here, key)
            yield from self._children(child, here)

    def _made(self, module: nn.Module) -> Expression:
        if type(module) is nn.Module:
            return call("nn.ModuleDict" if _numbered(module) else "nn.Module", [])
        args, keywords, _ = self.constructors.of(module)
        kind = type(module)
        head = f"nn.{kind.__name__}" if getattr(nn, kind.__name__, None) is kind else self.borrowed.take(kind)
        return call(head, [literal(arg) for arg in args], {key: literal(value) for key, value in keywords.items()})

    def _built(self, module: nn.Module) -> set[str]:
        """The tensors a module's constructor makes in the shape they have."""
        if type(module) is nn.Module:
            return set()
        made, own = tensors_of(self.constructors.of(module)[2]), tensors_of(module)
        return {key for key, tensor in made.items() if tensor.shape == own[key].shape}

    def _tensor(self, path: list[str], key: str) -> Iterator[str]:
        node = ".".join(path)
        param = own_tables(self.graph)[node][key]
        if owners(self.graph)[f"{node}.{key}"] != f"{node}.{key}" and not param.buffer:
            return  # tied below
        where, start = self._path(path), _initial(param)
        if param.buffer:
            yield from statement("", call(f"{where}.register_buffer", [literal(key), start]))
        else:
            yield from statement(f"{where}.{key} = ", call("nn.Parameter", [start]))

    def _ties(self) -> Iterator[str]:
        for key, owner in owners(self.graph).items():
            if key != owner and key.rpartition(".")[0] not in self.shared:
                yield from statement(f"{self._key_path(key)} = ", self._key_path(owner))

    def _dtypes(self) -> Iterator[str]:
        """Casts, where tensors are not float32."""
        kinds = {
            k: a.dtype.name for k, a in self.arrays.items() if a.dtype.name in FLOATS and k in param_table(self.graph)
        }
        if not kinds:
            return
        usual = Counter(kinds.values()).most_common(1)[0][0]
        if usual != "float32":
            yield f"        self.to(torch.{usual})"
        for key, kind in kinds.items():
            if kind != usual:
                where = self._key_path(key)
                yield from statement(f"{where}.data = ", call(f"{where}.to", [f"torch.{kind}"]))

    def _frozen(self) -> Iterator[str]:
        for key, param in self.module.named_parameters():
            if not param.requires_grad:
                yield from statement("", call(f"{self._key_path(key)}.requires_grad_", ["False"]))

    def _assigned(self, path: list[str], value: Expression) -> Iterator[str]:
        name, parent = path[-1], self.module.get_submodule(".".join(path[:-1]))
        if _numbered(parent) or _attribute(name):
            yield from statement(f"{self._path(path)} = ", value)
        else:
            yield from statement("", call(f"{self._path(path[:-1])}.add_module", [literal(name), value]))

    def _key_path(self, key: str) -> str:
        *path, name = key.split(".")
        return f"{self._path(path)}.{name}"

    def _path(self, path: list[str]) -> str:
        """How code reaches a module."""
        text = "self"
        module: nn.Module = self.module
        for name in path:
            if _numbered(module):
                text = f'{text}["{name}"]'
            elif _attribute(name):
                text = f"{text}.{name}"
            else:
                text = f'getattr({text}, "{name}")'
            module = module.get_submodule(name)
        return text

    # -- forward ------------------------------------------------------------------------------------------------------

    def _forward(self, taken: set[str]) -> Iterator[str]:
        names = _variables(self.values, taken)
        arguments = [f"{names[self.values[entry.name]]}: torch.Tensor" for entry in self.graph.inputs]
        many = len(self.graph.outputs) > 1
        gives = "tuple[torch.Tensor, ...]" if many else "torch.Tensor"
        signature = Bracketed("def forward", (("", "self"), *(("", argument) for argument in arguments)))
        lines = [*statement("", signature, 4)]
        lines[-1] += f" -> {gives}:"
        yield from lines
        # A paragraph for each module, at most two levels deep.
        modules = {value: name.split(".")[:-1][:2] for name, value in reversed(self.values.items())}
        module: list[str] | None = None
        for node in self.code:
            if node.op == "placeholder":
                self.text_of[node] = names[node]
                continue
            value = self._value(node)
            if not node.users:  # a check of the inputs
                yield from statement("", value)
                continue
            if node not in names and (node.op == "get_attr" or _uses(node) == 1):
                self.text_of[node] = value  # a step on the way to a node's value
                continue
            name = names.setdefault(node, _free(node.name, {*taken, *names.values()}))
            self.text_of[node] = name
            if node in modules and modules[node] != module:
                if module is not None:
                    yield ""
                module = modules[node]
            yield from statement(f"{name} = ", value)
        results = [str(self.text_of[self.values[name]]) for name in self.graph.outputs]
        yield f"        return {', '.join(results)}"

    def _value(self, node: fx.Node) -> Expression:
        args = [self._argument(arg) for arg in node.args]
        keywords = {key: self._argument(value) for key, value in node.kwargs.items()}
        if node.op == "get_attr":
            return self._key_path(str(node.target))
        if node.op == "call_module":
            return call(self._path(str(node.target).split(".")), args, keywords)
        if node.op == "call_method":
            return method(args[0], str(node.target), args[1:], keywords)
        assert callable(node.target)
        return applied(node.target, args, keywords, self.borrowed)

    def _argument(self, value: Any) -> Expression:
        if isinstance(value, fx.Node):
            return self.text_of[value]
        if isinstance(value, list | tuple):
            parts = tuple(("", self._argument(part)) for part in cast("Sequence[Any]", value))
            return Bracketed("", parts, "[]" if isinstance(value, list) else "()")
        if isinstance(value, slice):
            bounds: list[Any] = [value.start, value.stop, value.step]
            return call("slice", [self._argument(part) for part in bounds])
        return literal(value)


def _numbered(module: nn.Module) -> bool:
    """Whether a module only holds others under numbers, as torch's Sequential and ModuleList do."""
    names = [name for name, _ in module.named_children()]
    return type(module) is nn.Module and bool(names) and all(name.isdigit() for name in names)


def _uses(value: fx.Node) -> int:
    """How many times a value is read."""
    found: list[fx.Node] = []
    for user in value.users:
        fx.map_arg((user.args, user.kwargs), found.append)
    return found.count(value)


def _attribute(name: str) -> bool:
    # Inside a class, Python changes names that begin with two underscores.
    return not name[0].isdigit() and not name.startswith("__")


def _initial(param: Param) -> Expression:
    """Numbers a tensor starts with where no weights are loaded."""
    shape = literal(list(param.shape))
    if param.dtype != "float":
        return call("torch.zeros", [shape], {"dtype": f"torch.{param.dtype}"})
    match param.init:
        case Constant(value):
            return call("torch.full", [shape, literal(float(value))])
        case Uniform(bound):
            return call(f"{call('torch.empty', [shape])}.uniform_", [literal(-bound), literal(bound)])
        case Normal(std):
            return call(f"{call('torch.empty', [shape])}.normal_", ["0.0", literal(std)])


def _variables(values: Mapping[str, Any], taken: set[str]) -> dict[fx.Node, str]:
    """The variable of each value, called after the first node that has it; inputs keep their names if they can."""
    names: dict[fx.Node, str] = {}
    used = set(taken)
    inputs = [name for name, node in values.items() if node.op == "placeholder"]
    for name in (*inputs, *values):
        if values[name] not in names:
            names[values[name]] = _free(name.replace(".", "_"), used)
            used.add(names[values[name]])
    return names


def _free(name: str, used: set[str]) -> str:
    while name in used or name in RESERVED:
        name += "_"
    return name


def _plain(text: str) -> str:
    """Text that can stand in a docstring, whatever it holds."""
    return ascii(cut(text))[1:-1].replace('"', '\\"')
