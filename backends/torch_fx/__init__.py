"""Graph -> torch.fx.GraphModule."""

from growir.backends.torch_fx.lowering import document_of, frozen_in, lower, read_back

__all__ = ["document_of", "frozen_in", "lower", "read_back"]
