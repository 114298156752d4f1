"""torch.export on a prepared model: in eval and train mode, with an open batch, errors in the user's own lines."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import traceback
import warnings
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.export import Dim, ExportedProgram, ShapesCollection
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from growir.backends.torch_export.comparing import tensors_of
from growir.backends.torch_export.gradless import followed, inline
from growir.backends.torch_export.mixtures import route
from growir.backends.torch_export.preparing import Prepared
from growir.backends.torch_export.values import Batch
from growir.errors import ModelError

_TORCH = str(Path(torch.__file__).parent)
_HERE = str(Path(__file__).parent)
_LEAST = (2, 6)  # the first whose export keeps aten.batch_norm, aten.dropout and their like whole


@dataclass(frozen=True, slots=True)
class Program:
    """What the model does, as torch.export wrote it down.

    Attributes:
        exported: In eval mode.
        training: In train mode, or None if that could not be exported.
        batch: How to tell the batch size in its sizes.
        outputs: What the model itself gives in eval mode for the first two samples.
        unknown: Why there is no training program; empty if there is one.
        notices: What the user should know about the export.
    """

    exported: ExportedProgram
    training: ExportedProgram | None
    batch: Batch
    outputs: tuple[torch.Tensor, ...]
    unknown: str
    notices: tuple[str, ...]


def export(prepared: Prepared) -> Program:
    """Export the model in eval mode, and in train mode if it can be.

    Raises:
        ModelError: torch.export cannot follow the model: the reason and the model's own line.
    """
    version = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if version < _LEAST:
        raise ModelError(f"from_torch needs torch {_LEAST[0]}.{_LEAST[1]} or newer, but this is {torch.__version__}")
    with as_exported():
        outputs = run(prepared, 2)
        notices: list[str] = []
        symbolic = True
        try:
            exported = _exported(prepared, symbolic)
        except _READS_VALUES as error:
            raise ModelError(_condensed(error)) from None
        except Exception as error:  # whatever the model's own code raises, too
            reason = error
            symbolic = False
            try:
                exported = _exported(prepared, symbolic)
            except Exception as again:  # the same code, traced otherwise
                run(prepared, prepared.batch)
                raise ModelError(_condensed(again)) from None
            notices.append(
                f"the model was exported with a fixed batch of {prepared.batch}, and its result is taken to be the "
                f"same for every batch size, because an open one failed: {failure(reason)}"
            )
        unknown = ""
        try:
            prepared.model.train()
            training = _exported(prepared, symbolic)
        except Exception as error:  # the model's own code again; without it eval mode still imports
            training, unknown = None, failure(error, folders=False)
            notices.append(f"train mode could not be exported, so only eval mode is known to agree: {failure(error)}")
        finally:
            prepared.model.eval()
    return Program(exported, training, Batch(prepared.batch, symbolic), outputs, unknown, tuple(notices))


def export_again(prepared: Prepared, program: Program, *, training: bool = False) -> ExportedProgram:
    """The same model with another example, in one of its modes; it is not run.

    Raises:
        ModelError: torch.export cannot follow it with this example.
    """
    with as_exported():
        try:
            prepared.model.train(training)
            return _exported(prepared, program.batch.symbolic)
        except Exception as error:  # whatever the model's own code raises
            raise ModelError(_condensed(error)) from None
        finally:
            prepared.model.eval()


def run(prepared: Prepared, count: int) -> tuple[torch.Tensor, ...]:
    """The model's outputs on some samples. Raises ModelError if it does not run."""
    args, kwargs = prepared.rows(count)
    try:
        with as_exported(), torch.no_grad():
            outputs: object = prepared.model(*args, **kwargs)
    except Exception as error:  # whatever the model's own code raises
        shapes = ", ".join(str(list(t.shape)) for t in (*args, *kwargs.values()))
        text = f"the model does not run on the example inputs, repeated to a batch of {count}: {shapes}"
        raise ModelError(f"{text}. {failure(error)}") from None
    return tensors_of(outputs)


def _exported(prepared: Prepared, symbolic: bool) -> ExportedProgram:
    shapes: Any = None
    if symbolic:
        shapes = ShapesCollection()  # type: ignore[no-untyped-call]  # torch's own stub
        size = Dim("batch", min=2)
        for tensor in (*prepared.args, *prepared.kwargs.values()):
            shapes[tensor] = {0: size}
    # Batch norm without a momentum counts its batches, and the count is no constant to the exporter.
    averaging = [part for part in prepared.model.modules() if getattr(part, "momentum", 0.0) is None]
    for part in averaging:
        part.momentum = 0.1  # type: ignore[assignment]
    try:
        with followed():
            program = torch.export.export(
                prepared.model, prepared.args, prepared.kwargs, dynamic_shapes=shapes, strict=False
            )
        inline(program)
        route(program)
        return program
    finally:
        for part in averaging:
            part.momentum = None  # type: ignore[assignment]


@contextlib.contextmanager
def as_exported() -> Generator[None, None, None]:
    """Run the model as it is exported, without what it prints and warns of."""
    with _slow_path(), _quietly():
        yield


@contextlib.contextmanager
def _slow_path() -> Generator[None, None, None]:
    """Without the fused inference path of nn.TransformerEncoder, which is one opaque call."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextlib.contextmanager
def _quietly() -> Generator[None, None, None]:
    """Without what the exporter logs, prints and warns of; what matters of it is in the error."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


# What torch raises where the model asks for a number that is in a tensor: in an `if`, a size, torch.equal or allclose.
_READS_VALUES = (GuardOnDataDependentSymNode, DataDependentOutputException, DynamicOutputShapeException)
_CHECKS = re.compile(r": (assert|raise) |\b_assert\(")


def _condensed(error: Exception) -> str:
    if isinstance(error, _READS_VALUES) or "data-dependent" in str(error):
        where = _user_line(error)
        if _CHECKS.search(where):
            return (
                f"{where}checks the values of a tensor, which a graph cannot do. Leave the check out, or make it "
                "before the model is called"
            )
        return (
            f"{where}what the model does depends on the values of its input, which a graph cannot say. "
            "Decide it by the configuration of the model, or compute both branches and blend them by a mask"
        )
    if ".numpy() is not supported" in str(error):
        return (
            f"{_user_line(error)}computes with numpy, outside of what torch.export follows. Write it with torch's own "
            "functions, or compute it in the model's constructor and keep it as a buffer"
        )
    return f"torch.export cannot follow the model. {failure(error)}"


def failure(error: BaseException, *, folders: bool = True) -> str:
    """What went wrong in the model's own code, on one line: 'file:line: code: kind: message'."""
    if "Constraints violated" in str(error):
        return "its code decides by the batch size, or makes it a plain number"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return f"{_user_line(error, folders)}{type(error).__name__}: {text[:300]}"


def _user_line(error: BaseException, folders: bool = True) -> str:
    """'file:line: code: ' of the innermost frame outside torch and growir, or nothing."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if foreign(frame.filename):
            file = frame.filename if folders else Path(frame.filename).name
            return f"{file}:{frame.lineno}: {frame.line}: "
    return ""


def foreign(file: str) -> bool:
    """Whether a file belongs neither to torch nor to this package, so may be the user's."""
    return not file.startswith((_TORCH, _HERE, "<")) and not file.endswith(_PASSING)


_PASSING = ("/contextlib.py", "/importlib/__init__.py")  # of Python: they only pass on what the code asks
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in \S+\n\s*(?P<code>.*)')


def source_line(node: fx.Node, *, folders: bool = True) -> str:
    """The line of the model that a call of the program comes from, 'file:line: code', or the module it ran in."""
    frames = [match for match in _FRAME.finditer(node.meta.get("stack_trace") or "") if foreign(match["file"])]
    if frames:
        found = frames[-1]
        file = found["file"] if folders else Path(found["file"]).name
        return f"{file}:{found['line']}: {found['code'].strip()}"
    path, kind = module_of(node)
    return f"{path or 'the model'} ({kind})" if kind else path or "the model"


def module_of(node: fx.Node) -> tuple[str, str]:
    """Path and class of the innermost module that a call ran in."""
    stack: dict[str, tuple[str, object]] = node.meta.get("nn_module_stack") or {}
    path, kind = next(reversed(stack.values()), ("", ""))
    name = kind if isinstance(kind, str) else getattr(kind, "__name__", "")
    return ("" if path.startswith("_empty_nn_module_stack") else path), name.rpartition(".")[2]
