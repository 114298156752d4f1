"""ONNX files straight from the graph, without torch: inference form, float32, a dynamic batch.

Each operator has one function, in the module of its family; `table` compares them with the operators on import.
"""

from __future__ import annotations

from growir.backends.onnx_ir.model import build_model
from growir.backends.onnx_ir.saving import as_stored, is_ours, read_document, read_weights, save_model

__all__ = ["as_stored", "build_model", "is_ours", "read_document", "read_weights", "save_model"]
