"""What a rewrite really does to the loss, measured before anything grows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from growir.rewrite import Rewrite

if TYPE_CHECKING:
    from growir.growth.session import Session


def lessening(session: Session, done: Rewrite) -> float:
    """By how much the mean loss of the part that selects would decrease, on as many samples as growth is measured on.

    Args:
        session: The network.
        done: A rewrite of its graph, which has the numbers of all that it needs.
    """
    source, most = session.data.select, session.config.policy.samples
    assert source is not None, "the data is cut"
    before = session.measure(source, most).losses
    values, target = session.reading.gathered(source, session.reading.prefix(), len(before))
    after = session.preview(done, {}, {}, values, target)
    session.meter.count(2.0 * done.graph.costs().macs * len(before))
    return float((before - after.to(before)).mean())
