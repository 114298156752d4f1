"""How far one step of a channel space reaches: which other spaces must change with it, and by how many units.

Most spaces change alone, one unit at a time. Two things couple them. What is normalised as a whole keeps its function
only if every unit of every space on the axis is copied equally often. And a grouped convolution whose groups take
different channels needs rows of one length: a small system of linear equations in the numbers of new units.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from growir.ops.rule import Balance
from growir.ops.spaces import Algebra, Axis, Pin, Space

MAX_FACTOR = 12  # smallest steps that are tried; larger ones have not been met

Step = Mapping[Space, int]  # new units of each space


@dataclass(slots=True)
class _Equation:
    """One balance: for each row, how many positions a unit of each space takes in it."""

    node: str
    rows: tuple[Counter[Space], ...]

    def short(self, units: Mapping[Space, int]) -> list[tuple[int, int]]:
        """(row, positions missing) of every row that is not as long as the longest."""
        gains = [sum(block * units.get(space, 0) for space, block in row.items()) for row in self.rows]
        return [(k, max(gains) - gain) for k, gain in enumerate(gains) if gain < max(gains)]


class Steps:
    """The smallest joint steps of a graph's spaces."""

    def __init__(self, algebra: Algebra, balances: Iterable[Balance], uniform: Iterable[tuple[str, Axis]]) -> None:
        self._equations: list[_Equation] = []
        self._by_space: dict[Space, list[_Equation]] = {}
        self._whole: dict[Space, set[Space]] = {}
        for balance in balances:
            self._add_balance(algebra, balance)
        for node, axis in uniform:
            self._add_uniform(algebra, node, axis)

    @property
    def uniform(self) -> frozenset[Space]:
        """Spaces that only grow by copies of every channel."""
        return frozenset(self._whole)

    def _add_balance(self, algebra: Algebra, balance: Balance) -> None:
        rows: list[Counter[Space]] = []
        for row in balance.rows:
            count: Counter[Space] = Counter()
            for space, block in algebra.resolve(row):
                if space is not None and not space.pins:
                    count[space] += block
            rows.append(count)
        equation = _Equation(balance.node, tuple(rows))
        self._equations.append(equation)
        for space in dict.fromkeys(space for row in rows for space in row):
            self._by_space.setdefault(space, []).append(equation)

    def _add_uniform(self, algebra: Algebra, node: str, axis: Axis) -> None:
        terms = algebra.resolve(axis)
        spaces = [space for space, _ in terms if space is not None]
        if not spaces:
            return
        algebra.node = node
        if any(space is None for space, _ in terms):
            algebra.pin(axis, "is normalised together with channels that cannot change")
        joint: set[Space] = set()
        for space in spaces:
            joint |= self._whole.get(space, {space})
        for space in joint:
            self._whole[space] = joint

    def of(self, space: Space, keep: bool = True) -> tuple[Step, Pin | None]:
        """The smallest step that changes a space, and why there is none.

        With `keep`, one that can keep the function; else any that leaves the graph sound.
        """
        whole = self._whole.get(space) if keep else None
        if whole is None and space not in self._by_space:
            return {space: 1}, None
        start = {s: s.size for s in sorted(whole, key=lambda s: s.size)} if whole is not None else {space: 1}
        for held in start:
            if held.pins:
                return start, held.pins[0]
        for factor in range(1, 2 if whole is not None else MAX_FACTOR + 1):
            found = self._repaired({s: n * factor for s, n in start.items()}, self.uniform if keep else frozenset())
            if found is not None:
                return found, None
        node = next((equation.node for s in start for equation in self._by_space.get(s, ())), "")
        return start, Pin(node, "its groups take different channels, and would not stay equally long")

    def _repaired(self, units: dict[Space, int], whole: frozenset[Space]) -> dict[Space, int] | None:
        """Add units of other spaces, none of `whole`, until every balance holds; None where this comes to no end."""
        for _ in range(8 * len(self._equations) + 8):
            wrong = [e for e in self._touched(units) if e.short(units)]
            if not wrong:
                return units
            for equation in wrong:
                for row, missing in equation.short(units):
                    space = self._filler(equation.rows[row], missing, whole)
                    if space is None:
                        return None
                    units[space] = units.get(space, 0) + missing // equation.rows[row][space]
        return None

    def _touched(self, units: Mapping[Space, int]) -> Sequence[_Equation]:
        return list({id(e): e for space in units for e in self._by_space.get(space, ())}.values())

    def _filler(self, row: Counter[Space], missing: int, whole: frozenset[Space]) -> Space | None:
        """The least coupled space that fills a gap: one that fewest balances, and fewest of their rows, hold."""
        fits = [space for space, block in row.items() if missing % block == 0 and space not in whole]
        return min(fits, key=self._coupling, default=None)

    def _coupling(self, space: Space) -> tuple[int, int]:
        equations = self._by_space[space]
        return len(equations), sum(space in row for equation in equations for row in equation.rows)
