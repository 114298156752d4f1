"""Growth inside one's own training loop: a new module, with optimizer, averages and masks carried along.

module, report = growir.live.grow(module, Widen(node="fc1", by=8), optimizer)
"""

from growir.live.growing import grow, network_of
from growir.live.report import Place, Report, TensorChange
from growir.live.rows import register
from growir.moments import CopyState, Follows, FreshState

__all__ = ["CopyState", "Follows", "FreshState", "Place", "Report", "TensorChange", "grow", "network_of", "register"]
