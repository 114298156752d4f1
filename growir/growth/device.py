"""Where a run computes, and in which precision: what is not there is refused before anything starts."""

from __future__ import annotations

import torch

from growir.errors import RunError, counted, cut


def device_of(given: str | torch.device | None) -> torch.device:
    """The device of a name such as "cuda:1"; the CPU for None. Raises RunError where there is none such."""
    try:
        device = torch.device("cpu" if given is None else given)
    except (RuntimeError, TypeError) as error:
        raise RunError(f'device: {cut(repr(given))} is no device; take "cpu", "cuda", "cuda:1" or "mps"') from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            raise RunError(f'device: {device}, but torch {torch.__version__} sees no CUDA device; take "cpu"')
        if (device.index or 0) >= count:
            raise RunError(f"device: {device}, but there {_are(count)}, numbered from 0")
    elif device.type == "mps":
        if not torch.backends.mps.is_available():
            raise RunError(f'device: mps, but torch {torch.__version__} sees no Apple GPU; take "cpu"')
    elif device.type != "cpu":
        try:
            torch.empty(1, device=device)
        except (RuntimeError, NotImplementedError, AssertionError) as error:
            raise RunError(f"device: {device} cannot be used here ({cut(error, 120)})") from error
        if device.type == "meta":
            raise RunError('device: meta holds no numbers, so that nothing can be trained on it; take "cpu"')
    return device


def _are(count: int) -> str:
    return f"{'is' if count == 1 else 'are'} {counted(count, 'CUDA device')}"


def amp_type(amp: str | None, device: torch.device, dtype: torch.dtype) -> torch.dtype | None:
    """The type that autocast computes in; None without autocast.

    Args:
        amp: "bfloat16" or "float16", or None.
        device: Where the run computes.
        dtype: Of the weights.

    Raises:
        RunError: The device or the weights cannot do that.
    """
    if amp is None:
        return None
    if dtype != torch.float32:
        of = str(dtype).removeprefix("torch.")
        raise RunError(f'amp: "{amp}" computes float32 weights in half precision, but these are {of}; leave amp out')
    if amp == "float16" and device.type != "cuda":
        raise RunError(f'amp: "float16" needs a CUDA device, but the run is on {device}; take "bfloat16"')
    if not torch.amp.is_autocast_available(device.type):
        raise RunError(f"amp: torch has no autocast on {device}; leave amp out")
    if amp == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise RunError(f'amp: {torch.cuda.get_device_name(device)} cannot compute in bfloat16; take "float16"')
    return {"bfloat16": torch.bfloat16, "float16": torch.float16}[amp]
