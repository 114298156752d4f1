"""Growth morphisms: rewrites of a graph, with the edits its tensors need."""

if __name__ == "passes":
    raise ImportError("this folder imports as growir.passes")

from growir.passes import registry
from growir.passes.adapt import Adapt, MergeAdapter
from growir.passes.add_edge import AddEdge
from growir.passes.add_node import AddNode
from growir.passes.canonicalise import Canonicalise
from growir.passes.clone import clone
from growir.passes.deepening import deepen
from growir.passes.discretise import Discretise
from growir.passes.eliminate_dead import EliminateDead
from growir.passes.extend import Extend
from growir.passes.fold_batch_norm import FoldBatchNorm
from growir.passes.insert_block import InsertBlock
from growir.passes.insert_layer import InsertLayer
from growir.passes.prune import Prune
from growir.passes.registry import (
    all_passes,
    check_name,
    find_pass,
    needed_pass,
    pass_from_data,
    pass_from_step,
)
from growir.passes.remove_edge import RemoveEdge
from growir.passes.sequence import Sequence
from growir.passes.split import Split
from growir.passes.stack import Stack, Unstack
from growir.passes.upcycle import Upcycle
from growir.passes.update import Update
from growir.passes.widen import Widen
from growir.rewrite import Pass

PASSES: tuple[type[Pass], ...] = (
    AddEdge,
    AddNode,
    RemoveEdge,
    InsertLayer,
    InsertBlock,
    Stack,
    Unstack,
    Discretise,
    Widen,
    Extend,
    Split,
    Prune,
    Update,
    Upcycle,
    Adapt,
    MergeAdapter,
    FoldBatchNorm,
    EliminateDead,
    Canonicalise,
    Sequence,
)


registry.hold(PASSES)

__all__ = [
    "PASSES",
    "Adapt",
    "AddEdge",
    "AddNode",
    "Canonicalise",
    "Discretise",
    "EliminateDead",
    "Extend",
    "FoldBatchNorm",
    "InsertBlock",
    "InsertLayer",
    "MergeAdapter",
    "Prune",
    "RemoveEdge",
    "Sequence",
    "Split",
    "Stack",
    "Unstack",
    "Upcycle",
    "Update",
    "Widen",
    "all_passes",
    "check_name",
    "clone",
    "deepen",
    "find_pass",
    "needed_pass",
    "pass_from_data",
    "pass_from_step",
]
