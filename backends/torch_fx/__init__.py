"""Graph -> torch.fx.GraphModule."""

from growir.backends.torch_fx.lowering import lower, read_back

__all__ = ["lower", "read_back"]
