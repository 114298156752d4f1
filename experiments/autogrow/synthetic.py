"""AutoGrow's periodic policy on a curve that saturates: how deep three stages become, by the epochs between growths.

    python -m experiments.autogrow.synthetic --figure synthetic.svg

The accuracy after an epoch goes towards what the depth allows, by one part of twelve of the way:

    a <- a + (1 - .1 exp(-depth / 12) - a) (1 - exp(-1 / 12))

A stage is closed where 100 epochs have gained no more than .05 %, as in the paper; the policy is growir's own. Three
stages begin with one block each. Nothing here trains, so this says what the policy does by itself.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.tables import grid
from growir.growth.circle import circle, unrewarded
from growir.growth.schedule import Entry, Grow, Log, Periodic
from growir.plot import linear_axis
from growir.render.axes import ABOVE, BELOW, HEAD, LEFT, RIGHT, Panel, chart

STAGES = ("stage1", "stage2", "stage3")
PERIODS = (1, 3, 10, 50)  # K
WINDOW, GAINED = 100, 0.0005  # J and tau
SCALE, WAY, LOST = 12.0, 12.0, 0.1
MOST = 20_000  # epochs, by which all of them have ended
PAPER = {1: "77-76-76", 3: "42-42-42", 10: "19-19-19", 50: "6-5-3"}  # CIFAR-10, table 5


class Grown(NamedTuple):
    """What became of the stages.

    Attributes:
        depths: Of each in the end.
        trace: Epochs and blocks in all, after each growth.
    """

    depths: tuple[int, ...]
    trace: tuple[tuple[int, int], ...]


def after_epoch(accuracy: float, depth: int) -> float:
    """The accuracy one epoch later, of so many blocks in all."""
    allowed = 1.0 - LOST * math.exp(-depth / SCALE)
    return accuracy + (allowed - accuracy) * (1.0 - math.exp(-1.0 / WAY))


def run(period: int) -> Grown:
    """The policy to its end, with so many epochs between two growths."""
    schedule = Periodic(epochs=period, window=0, fit=False)
    entries, accuracy, epochs = [Entry("started")], 0.0, 0
    depths = dict.fromkeys(STAGES, 1)
    trace = [(0, len(STAGES))]
    while epochs < MOST:
        phase = schedule.next(Log(tuple(entries)))
        if not isinstance(phase, Grow):
            # An entry for each epoch, so that the best of them counts, as in the paper.
            for _ in range(period):
                accuracy, epochs = after_epoch(accuracy, sum(depths.values())), epochs + 1
                entries.append(Entry("trained", 1, {"accuracy": accuracy}))
            continue
        turn = circle(Log(tuple(entries)), STAGES, lambda log: unrewarded(log, "accuracy", WINDOW, GAINED)).following
        if turn is None:
            return Grown(tuple(depths.values()), tuple(trace))
        depths[turn] += 1
        trace.append((epochs, sum(depths.values())))
        entries.append(Entry("growth", chosen=(turn,)))
    raise RuntimeError(f"growth every {period} epochs has not ended after {MOST} of them")


def table() -> Iterator[str]:
    """Depths by the epochs between growths."""
    found = {period: run(period) for period in PERIODS}
    rows = (
        [period, "-".join(map(str, grown.depths)), grown.trace[-1][0], PAPER[period]] for period, grown in found.items()
    )
    yield from grid(["epochs between growths", "depths", "epochs until the last growth", "paper, CIFAR-10"], rows)


def figure() -> str:
    """The blocks in all over the epochs, a line for each, as SVG."""
    found = {period: run(period).trace for period in PERIODS}
    epochs = linear_axis([epoch for trace in found.values() for epoch, _ in trace])
    blocks = linear_axis([count for trace in found.values() for _, count in trace])
    panel = Panel(LEFT, HEAD + ABOVE, 640, 320, epochs, blocks)
    body = panel.frame("growth every 1, 3, 10 and 50 epochs, from the steepest to the flattest", "epoch", "blocks")
    for trace in found.values():
        path = "".join(f"{'L' if k else 'M'}{x} {y}" for k, (x, y) in enumerate(panel.at(*each) for each in trace))
        body.append(f'<path class="train line" d="{path}"/>')
    title = "AutoGrow's periodic policy on a curve that saturates"
    described = "Blocks of three stages in all over the epochs, for growth every 1, 3, 10 and 50 epochs."
    return chart(title, described, [], body, (LEFT + 640 + RIGHT, HEAD + ABOVE + 320 + BELOW))


def main(given: Sequence[str] | None = None) -> None:
    """Print the table, and write the figure where one is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args(given)
    print("\n".join(table()))
    if options.figure is not None:
        options.figure.write_text(figure(), encoding="utf-8")


if __name__ == "__main__":
    main()
