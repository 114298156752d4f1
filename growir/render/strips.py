"""Units of a node as strips of cells, coloured by what each is worth; those that were chosen have a border."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

CELL, HEIGHT, ROW, MOST, LABEL = 10, 11, 15, 24, 46  # of a cell, a line of cells, and the words before it
LEVELS = 3  # on each side of zero
# Fill on light ground, then on dark, from the largest loss over nothing to the largest gain.
COLOURS: Sequence[tuple[str, str]] = (
    ("#b45309", "#f59e0b"),
    ("#f0b26b", "#b45309"),
    ("#fbe3c3", "#6b3a0c"),
    ("#d4d4d8", "#3f3f46"),
    ("#c7e4f5", "#0c4a6e"),
    ("#6db7e0", "#0284c7"),
    ("#0369a1", "#7dd3fc"),
)
UNKNOWN = ("none", "none")
CHOSEN = ("#0f172a", "#f8fafc")


@dataclass(frozen=True, slots=True)
class Strip:
    """Candidates of one kind.

    Attributes:
        label: What they are, in a word.
        scores: Of each; None where it has none.
        chosen: Which of them were.
    """

    label: str
    scores: tuple[float | None, ...]
    chosen: frozenset[int] = frozenset()

    @property
    def lines(self) -> int:
        """How many lines of cells it takes."""
        return max(1, -(-len(self.scores) // MOST))


@dataclass(frozen=True, slots=True)
class Scale:
    """What the colours mean: levels of equal size on both sides of zero.

    Attributes:
        largest: The largest score there is, without its sign.
        unit: What scores are in, in words.
    """

    largest: float
    unit: str

    def level(self, score: float) -> int:
        """From -LEVELS to LEVELS; 0 is less than half a level from nothing."""
        if not self.largest:
            return 0
        return max(-LEVELS, min(LEVELS, round(score / self.largest * LEVELS)))

    @classmethod
    def of(cls, strips: Mapping[str, Sequence[Strip]], unit: str) -> Scale:
        """The scale that all scores of some nodes fit."""
        sizes = [
            abs(score) for each in strips.values() for strip in each for score in strip.scores if score is not None
        ]
        return cls(max(sizes, default=0.0), unit)


def size_of(strips: Sequence[Strip]) -> tuple[int, int]:
    """Width and height of some strips below each other."""
    width = max((LABEL + CELL * min(len(strip.scores), MOST) for strip in strips), default=0)
    return width, sum(ROW * strip.lines for strip in strips)


def drawn(strips: Sequence[Strip], scale: Scale, x: int, y: int) -> list[str]:
    """The strips with their corner at a point."""
    parts: list[str] = []
    for strip in strips:
        parts.append(f'<text class="kind" x="{x}" y="{y + HEIGHT - 2}">{strip.label}</text>')
        for k, score in enumerate(strip.scores):
            at = (x + LABEL + CELL * (k % MOST), y + ROW * (k // MOST))
            parts.append(_cell(at, strip.label, k, score, scale, chosen=k in strip.chosen))
        y += ROW * strip.lines
    return parts


def _cell(at: tuple[int, int], kind: str, k: int, score: float | None, scale: Scale, *, chosen: bool) -> str:
    said = "no score" if score is None else f"{score:.3g}"
    level = "u" if score is None else f"s{scale.level(score) + LEVELS}"
    classes = f"cell {level}{' chosen' if chosen else ''}"
    title = f"<title>{kind} {k}: {said}{', chosen' if chosen else ''}</title>"
    return f'<rect class="{classes}" x="{at[0]}" y="{at[1]}" width="{CELL - 2}" height="{HEIGHT}">{title}</rect>'


def legend(scale: Scale, x: int, y: int) -> tuple[list[str], int]:
    """What the colours mean, from the largest loss to the largest gain, and where it ends."""
    parts: list[str] = []
    first, last = f"{-scale.largest:.3g}", f"{scale.largest:.3g} {scale.unit}, chosen: "
    parts.append(f'<text x="{x}" y="{y}">{first}</text>')
    x += math.ceil(7.0 * (len(first) + 1))
    for level in range(len(COLOURS)):
        parts.append(f'<rect class="cell s{level}" x="{x}" y="{y - 9}" width="{CELL - 2}" height="{HEIGHT}"/>')
        x += CELL
    parts.append(f'<text x="{x + 4}" y="{y}">{last}</text>')
    x += 4 + math.ceil(7.0 * len(last))
    parts.append(f'<rect class="cell s{LEVELS} chosen" x="{x}" y="{y - 9}" width="{CELL - 2}" height="{HEIGHT}"/>')
    return parts, x + CELL


def rules() -> tuple[list[str], list[str]]:
    """The colours, for light ground and for dark."""
    light, dark = [".growir .kind{font-size:10px}"], list[str]()
    for name, colours in {**{f"s{k}": pair for k, pair in enumerate(COLOURS)}, "u": UNKNOWN}.items():
        for sheet, colour in zip((light, dark), colours, strict=True):
            sheet.append(f".growir .box .{name},.growir .{name}{{fill:{colour};stroke:none}}")
    for sheet, colour in zip((light, dark), CHOSEN, strict=True):
        sheet.append(f".growir .box .chosen,.growir .chosen{{stroke:{colour};stroke-width:1.6}}")
    return light, dark
