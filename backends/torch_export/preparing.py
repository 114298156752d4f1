"""The model and its example inputs, checked and copied, ready for torch.export."""

from __future__ import annotations

import itertools
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]
from torch.nn.utils import parametrize

from growir.backends.torch_export.attention import attend
from growir.backends.torch_export.caches import without_caches
from growir.backends.torch_export.copying import Owned, copied
from growir.backends.torch_export.folded_weights import fold_weight_norms, is_weight_norm
from growir.backends.torch_export.mixtures import stand_in
from growir.errors import ModelError, Problem, cut, listed

Example = torch.Tensor | Sequence[torch.Tensor] | Mapping[str, torch.Tensor]

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# Batch sizes to export with: primes, so that a size is a multiple of one only if it has to do with the batch.
_PRIMES = (3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A copy of the model on the CPU, and its arguments with the example repeated to a batch.

    Attributes:
        model: The copy, in eval mode.
        args: Positional arguments.
        kwargs: Arguments by name.
        batch: The batch size they have.
        own: The arrays that hold the copy's parameters.
        left_in_eval: Modules that are in eval mode although the model is in train mode.
        notices: What was changed in the copy, as the user should know.
    """

    model: nn.Module
    args: tuple[torch.Tensor, ...]
    kwargs: dict[str, torch.Tensor]
    batch: int
    own: Owned
    left_in_eval: tuple[str, ...]
    notices: tuple[str, ...] = ()

    def rows(self, count: int) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
        """Copies of the first samples of all arguments."""
        return tuple(t[:count].clone() for t in self.args), {k: t[:count].clone() for k, t in self.kwargs.items()}


def prepare(model: nn.Module, example: Example) -> Prepared:
    """Copy the model to the CPU and repeat the example to a batch of its own size.

    Raises:
        ModelError: The model or the inputs are none that can be exported.
    """
    model = unwrapped(model)
    args, kwargs = _arguments(example)
    problems = [*_tensor_problems(model), *_storage_problems(model), *_parametrisation_problems(model)]
    if problems:
        raise ModelError(listed(problems, "this model cannot be imported"))
    left = tuple(name for name, part in modules_of(model) if model.training and not part.training)
    arrays = Owned()
    own = copied(model, arrays)
    try:
        own = own.cpu().eval()
    except Exception as error:  # a model may have methods of these names of its own
        text = f"{type(error).__name__}: {cut(str(error), 200)}"
        raise ModelError(f"the model cannot be put on the CPU and into eval mode: {text}") from None
    notices = fold_weight_norms(own)
    for part in own.modules():
        if isinstance(part, nn.MultiheadAttention):
            part.__dict__["forward"] = types.MethodType(attend, part)
    stand_in(own)
    sizes = {d for _, t in _tensors(model) for d in t.shape}
    sizes |= {d for t in (*args, *kwargs.values()) for d in t.shape[1:]}
    batch = next((p for p in _PRIMES if not any(d % p == 0 for d in sizes if d)), _PRIMES[-1])

    def repeated(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().cpu()[torch.arange(batch) % tensor.shape[0]]

    notices += without_caches(own, args, kwargs)
    return Prepared(
        own,
        tuple(map(repeated, args)),
        {name: repeated(t) for name, t in kwargs.items()},
        batch,
        arrays,
        left,
        tuple(notices),
    )


def unwrapped(model: object) -> nn.Module:
    """The model itself, without what torch.compile and the data-parallel wrappers put around it."""
    while isinstance(model, nn.Module):
        inner: object = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = cast(object, model.module)
        if inner is None:
            break
        model = inner
    if isinstance(model, torch.jit.ScriptModule):
        raise ModelError("a compiled torch.jit module cannot be imported; give the torch.nn.Module it was made from")
    if not isinstance(model, nn.Module):
        raise ModelError(f"from_torch takes a torch.nn.Module, but gets an object of type {cut(type(model).__name__)}")
    return model  # pyright: ignore[reportUnknownVariableType]


def _arguments(example: object) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
    """Positional and named arguments of forward, checked."""
    named: dict[str, object] = {}
    if isinstance(example, torch.Tensor):
        named = {"example_inputs": example}
    elif isinstance(example, Mapping):
        entries = cast("Mapping[object, object]", example)
        named = {f"example_inputs[{name!r}]": value for name, value in entries.items()}
    elif isinstance(example, (tuple, list)):
        named = {f"example_inputs[{k}]": value for k, value in enumerate(cast("Iterable[object]", example))}
    else:
        raise ModelError(f"example_inputs is a tensor or a tuple of tensors, but is of type {type(example).__name__}")
    if not named:
        raise ModelError("example_inputs is empty; a graph has at least one input")
    problems: list[Problem] = []
    tensors: list[torch.Tensor] = []
    for where, value in named.items():
        if not isinstance(value, torch.Tensor):
            text = (
                f"of type {type(value).__name__}; a graph's inputs are tensors. Bind other arguments in a small module"
            )
            problems.append(Problem(where, f"is {text} whose forward takes tensors only"))
        elif value.dim() < 1 or 0 in value.shape:
            text = f"has the shape {list(value.shape)}; a graph's inputs are (batch, ...)"
            problems.append(Problem(where, text))
        elif value.layout != torch.strided:
            problems.append(Problem(where, f"is of layout {value.layout}; call to_dense() on it"))
        elif not (value.is_floating_point() or value.dtype in (torch.int64, torch.bool)):
            problems.append(Problem(where, f"is of {value.dtype}; a graph's inputs are floats, int64 or truth values"))
        else:
            tensors.append(value)
    if not problems and len({tensor.shape[0] for tensor in tensors}) > 1:
        rows = ", ".join(str(tensor.shape[0]) for tensor in tensors)
        problems.append(Problem("example_inputs", f"the first axis is the batch, but it differs: {rows}"))
    if problems:
        raise ModelError(listed(problems))
    if isinstance(example, Mapping):
        return (), dict(zip(cast("Mapping[str, object]", example), tensors, strict=True))
    return tuple(tensors), {}


def modules_of(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Every module under each of its paths."""
    return list(cast("Iterable[tuple[str, nn.Module]]", model.named_modules(remove_duplicate=False)))


def _tensors(model: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Every parameter and buffer under one of its names."""
    return [*model.named_parameters(), *model.named_buffers()]


def _tensor_problems(model: nn.Module) -> Iterable[Problem]:
    for name, tensor in _tensors(model):
        if isinstance(tensor, UninitializedTensorMixin):
            yield Problem(name, "has no shape yet; run the model once before importing it")
        elif tensor.device.type == "meta":
            yield Problem(name, "is on the meta device and holds no numbers; move the model with to_empty and load it")
        elif tensor.is_floating_point() and tensor.dtype not in FLOATS:
            yield Problem(name, f"is of {tensor.dtype}, which no network is; call model.float() first")
        elif tensor.is_complex() or tensor.layout != torch.strided or tensor.is_quantized:
            yield Problem(name, f"is a {tensor.dtype} tensor of layout {tensor.layout}; only dense floats are imported")


def _storage_problems(model: nn.Module) -> Iterable[Problem]:
    """Distinct tensors over the same memory: in a graph one would no longer follow the other."""
    spans: list[tuple[int, int, int, str]] = []
    for name, tensor in _tensors(model):
        if isinstance(tensor, UninitializedTensorMixin) or tensor.device.type == "meta":
            continue
        if tensor.layout == torch.strided and tensor.numel():
            start = tensor.data_ptr()
            reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
            spans.append((start, start + (reach + 1) * tensor.element_size(), len(spans), name))
    spans.sort()
    for first, second in itertools.pairwise(spans):
        if second[0] < first[1]:
            text = (
                f"shares memory with {cut(first[3])!r} but is another tensor; clone one of them, or use one parameter"
            )
            yield Problem(second[3], text)


def _parametrisation_problems(model: nn.Module) -> Iterable[Problem]:
    """Weights computed from others before each forward, which a graph does not keep apart."""
    for name, part in modules_of(model):
        if parametrize.is_parametrized(part) and not is_weight_norm(part):
            text = "is parametrised; call torch.nn.utils.parametrize.remove_parametrizations(module, 'weight') first"
            yield Problem(name or "the model", text)
        hooks = cast("dict[int, object]", part._forward_pre_hooks)  # pyright: ignore[reportPrivateUsage]
        if any(type(hook).__name__ == "SpectralNorm" for hook in hooks.values()):
            yield Problem(
                name or "the model", "has a SpectralNorm hook; call torch.nn.utils.remove_spectral_norm(module) first"
            )
