"""Where a copy's own gradient is not a share of the old one: in spaces that are normalised as a whole.

Let a layer norm, or an RMS norm, take n units u with gradient g behind it: with y the normalised units, sigma their
deviation, and mean() over units,

    du_j = (g_j - mean(g) - y_j mean(g y)) / sigma    (an RMS norm has no second term).

When each unit has k copies of shares s_c, y and sigma are as before, g_j becomes s_c g_j, and a mean over kn units is
the old one divided by k. So the gradient of a copy is

    s_c du_j + (s_c - 1/k) (mean(g) + y_j mean(g y)) / sigma.

Summed over the copies it is du_j, and with equal shares it is du_j / k. Else the second term remains: it is of the part
of g that the norm keeps from du, so no map of old gradients or moments of the layer gives it. Copies that are kept
apart are read by other weights each, so that g_j becomes s_c g_j + d_c with the d_c of a unit's copies summing to zero:
what follows from d_c no map gives either, and in the sum over copies it is zero. Live growth carries s_c du_j and says
so in both cases.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from growir.channels import analyse
from growir.edits import Edit, Remap
from growir.errors import cut
from growir.graph import Graph
from growir.ops.spaces import spaces_on


def uneven_copies(graph: Graph, edits: Sequence[Edit]) -> tuple[str, ...]:
    """A note for each space where what is carried is right for a unit's copies together, but not for each.

    Args:
        graph: The graph before the edits.
        edits: What is done to it.
    """
    analysis = analyse(graph)
    names_of = {space.space: space.name for space in analysis.spaces}
    uniform = {space.space: space.name for space in analysis.spaces if space.uniform}
    uneven: dict[str, None] = {}
    apart: dict[str, None] = {}
    for edit in edits:
        if not isinstance(edit, Remap) or edit.key not in analysis.params:
            continue
        for part in edit.axes:
            terms = analysis.params[edit.key].axes[part.axis]
            names = [uniform[space] for space, _ in terms if space in uniform]
            if names and part.moment is not None and np.ptp(part.moment) > 1e-9:  # thirds are rounded
                uneven[names[0]] = None
            if part.apart is not None and part.apart.by.any():
                apart |= {names_of[space]: None for space in spaces_on(terms) if space in names_of}
    why = dict.fromkeys(uneven, "is normalised as a whole and its copies take unequal shares")
    why |= dict.fromkeys(apart, "has copies that are kept apart by the weights that read them")
    return tuple(
        f"{cut(name)} {reason}: of the gradients and moments of what makes it, what is carried is right in the sum "
        "over a unit's copies, not for each; with equal shares and apart=0 it is exact (docs/live.md, Copies)"
        for name, reason in why.items()
    )
