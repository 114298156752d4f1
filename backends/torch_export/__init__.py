"""torch.nn.Module -> graph and tensors, through torch.export."""

from growir.backends.torch_export.factory import example_input, made, made_by
from growir.backends.torch_export.model import Imported, import_model

__all__ = ["Imported", "example_input", "import_model", "made", "made_by"]
