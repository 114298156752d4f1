"""Where a copy's own gradient is not a share of the old one: in spaces that are normalised as a whole.

Let a layer norm, or an RMS norm, take n units u with gradient g behind it: with y the normalised units, sigma their
deviation, and mean() over units,

    du_j = (g_j - mean(g) - y_j mean(g y)) / sigma    (an RMS norm has no second term).

When each unit has k copies of shares s_c, y and sigma are as before, g_j becomes s_c g_j, and a mean over kn units is
the old one divided by k. So the gradient of a copy is

    s_c du_j + (s_c - 1/k) (mean(g) + y_j mean(g y)) / sigma.

Summed over the copies it is du_j, and with equal shares it is du_j / k. Else the second term remains: it is of the part
of g that the norm keeps from du, so no map of old gradients or moments of the layer gives it. Live growth carries s_c
du_j and says so.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from growir.channels import analyse
from growir.edits import Edit, Remap
from growir.errors import cut
from growir.graph import Graph


def uneven_copies(graph: Graph, edits: Sequence[Edit]) -> tuple[str, ...]:
    """A note for each normalised space whose copies take unequal shares.

    Args:
        graph: The graph before the edits.
        edits: What is done to it.
    """
    analysis = analyse(graph)
    uniform = {space.space: space.name for space in analysis.spaces if space.uniform}
    found: dict[str, None] = {}
    for edit in edits:
        if not isinstance(edit, Remap) or edit.key not in analysis.params:
            continue
        for part in edit.axes:
            terms = analysis.params[edit.key].axes[part.axis]
            names = [uniform[space] for space, _ in terms if space in uniform]
            if names and part.moment is not None and np.ptp(part.moment) > 1e-9:  # thirds are rounded
                found[names[0]] = None
    return tuple(
        f"{cut(name)} is normalised as a whole and its copies take unequal shares: of the gradients and moments of "
        "what makes it, what is carried is right in the sum over a unit's copies, not for each; equal shares are exact "
        "(docs/live.md, Normalised spaces)"
        for name in found
    )
