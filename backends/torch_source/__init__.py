"""Networks as stand-alone torch source: a class that imports only torch, and its weights beside it."""

from growir.backends.torch_source.checking import check_source
from growir.backends.torch_source.saving import is_ours, save_source
from growir.backends.torch_source.source import module_source

__all__ = ["check_source", "is_ours", "module_source", "save_source"]
