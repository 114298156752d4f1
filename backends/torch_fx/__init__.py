"""Graph -> torch.fx.GraphModule."""

from growir.backends.torch_fx.lowering import document_of, lower, read_back

__all__ = ["document_of", "lower", "read_back"]
