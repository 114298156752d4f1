"""Why a call has no place in a graph, in the words of what the model's author wrote.

A call may be refused for the first thing that does not fit: nn.Embedding with max_norm for writing into a tensor, say.
Where another reason stands behind it, that reason is named, with what to write instead.
"""

from __future__ import annotations

import torch
from torch import fx

from growir.backends.torch_export.calls import bound, full_name, name_of, overload, writes

_IN_EVAL = "draws random numbers in eval mode, too; a graph draws only in dropout, and in train mode alone"
_PARTS = ("copy", "fill", "zero", "index_put", "index_fill", "index_copy", "masked_scatter", "scatter", "set")
_DERIVATIVE = "takes a derivative inside the model, with torch.func; write out the derivative as a forward of its own"
_RECURRENT = "works token by token, each from the one before; a graph has no recurrence"
_CONTROL = "is control flow on values, which a graph does not have; decide it by the model's configuration"
_VMAP = "maps over slices of an input, with torch.vmap; write it for the whole tensor"
_COMPLEX = "computes with complex numbers; write the real and the imaginary parts"
_CHOOSES = "has a size that depends on the numbers in a tensor; keep every entry, and multiply by a mask"
_BAG = (
    "takes the rows of each bag together, as nn.EmbeddingBag does, and has no operator in growir; "
    "use nn.Embedding, and a mean, sum or amax over the tokens"
)
_MAX_NORM = (
    "rescales rows of the table at each call, because the embedding has max_norm; a graph changes no weights. "
    "Leave max_norm out, and clip the rows in the training loop"
)
_CAUSES: dict[str, str] = {
    "embedding_renorm": _MAX_NORM,
    **dict.fromkeys(("embedding_bag", "_embedding_bag", "_embedding_bag_forward_only"), _BAG),
    **dict.fromkeys(
        ("lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"), _RECURRENT
    ),
    **dict.fromkeys(("nonzero", "nonzero_numpy", "masked_select", "argwhere", "_unique2", "unique_dim"), _CHOOSES),
    **dict.fromkeys(("unique_consecutive", "bincount"), _CHOOSES),
    **dict.fromkeys(("view_as_complex", "complex", "polar", "stft", "fft_fft", "fft_rfft", "fft_fft2"), _COMPLEX),
    **dict.fromkeys(("fft_rfft2", "fft_fftn", "fft_rfftn"), _COMPLEX),
    **dict.fromkeys(("_to_sparse", "to_sparse", "sparse_coo_tensor"), "makes a sparse tensor; keep it a dense one"),
}
_WITHOUT_SCHEMA: dict[str, str] = {
    **dict.fromkeys(("cond", "while_loop", "map_impl", "scan"), _CONTROL),
    **dict.fromkeys(("_add_batch_dim", "_remove_batch_dim"), _VMAP),
    **dict.fromkeys(("_make_dual", "_unpack_dual", "_wrap_for_grad", "_unwrap_for_grad"), _DERIVATIVE),
}


def cause(node: fx.Node) -> str | None:
    """Why no graph has this call, whatever it is given; None if the table is to decide."""
    return _opaque(node) if overload(node) is None else _CAUSES.get(name_of(node))


def no_operator(node: fx.Node) -> str:
    """What to say of a call that is not in the table."""
    if writes(node) and name_of(node) in _PARTS:
        return "writes into a tensor in place; put the parts together with torch.cat, or use a mask"
    return "has no operator in growir"


def draws(node: fx.Node) -> bool:
    """Whether a call draws random numbers, as its arguments have it: dropout in eval mode does not."""
    op = overload(node)
    if op is None or torch.Tag.nondeterministic_seeded not in op.tags:
        return False
    arguments = bound(node)
    rate = arguments.get("dropout_p", arguments.get("p"))
    return arguments.get("train", arguments.get("training")) is not False and rate != 0


def drawing(node: fx.Node) -> str:
    """What to say of a call that draws random numbers, and what to write instead."""
    told = bound(node)
    if "dropout_p" in told:
        return f"{_IN_EVAL}. Say dropout_p=0.0 if not self.training"
    if "train" in told or "training" in told:
        return f"{_IN_EVAL}. Say training=self.training, or use the module of that name, such as nn.Dropout"
    return "draws random numbers; a graph draws only in dropout"


def _opaque(node: fx.Node) -> str:
    return _WITHOUT_SCHEMA.get(full_name(node), "is no operator of torch.aten; write it with torch's own functions")
