"""The stride of a channel space: by how much it may change, and which other spaces must then change with it.

Most spaces change alone, one unit at a time. Two things couple them. What is normalised as a whole keeps its function
only if every unit of every space on the axis is copied equally often. And a grouped convolution whose groups take
different channels needs rows of one length: a small system of linear equations in the numbers of new units.

A worked case. `a` makes 2 channels, `c` makes 1, and the input `x` has 3 that nobody may change. A convolution in two
groups reads them joined as (a, a, x, c), so that each group has a row of 4 positions:

    row 0    2 positions for each unit of a
    row 1    1 position for each unit of c, and 3 of x

The rows stay equally long if 2 da = dc, where da and dc are the new units of a and c. To find the stride of a, start
with da = 1: row 0 is 2 longer, row 1 misses 2, c fills them, and the stride is {a: 1, c: 2}. To find that of c, start
with dc = 1: row 0 misses 1 position, which no whole unit of a fills. So start with dc = 2: the stride is {c: 2, a: 1},
and c grows by multiples of 2.

Were a and c instead normalised together, of 2 and 1 units, both would have the stride {a: 2, c: 1}: each unit copied
once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from growir.ops.algebra import Algebra
from growir.ops.rule import Balance
from growir.ops.spaces import Axis, Pin, Space, shares_of, spaces_on

MAX_FACTOR = 12  # strides that start with more units of the space itself have not been met

Joint = Mapping[Space, int]  # new units of each space


@dataclass(slots=True)
class _Equation:
    """One balance: for each row, how many positions a unit of each space takes in it."""

    node: str
    rows: tuple[Counter[Space], ...]

    def short(self, units: Mapping[Space, int]) -> list[tuple[int, int]]:
        """(row, positions missing) of every row that is not as long as the longest."""
        gains = [sum(block * units.get(space, 0) for space, block in row.items()) for row in self.rows]
        return [(k, max(gains) - gain) for k, gain in enumerate(gains) if gain < max(gains)]


def _levels(axis: Axis) -> list[set[Space]]:
    """The sets of spaces of which each, if all its units are copied, copies all positions of the axis equally often.

    ((G, ((R, 4),)),) has two, G alone and R alone; of several terms only the innermost spaces together are one.
    """
    if len(axis) != 1:
        inner = [_levels((term,)) for term in axis]
        return [set[Space]().union(*(level[-1] for level in inner))] if all(inner) else []
    space, block = axis[0]
    own = [] if space is None else [{space}]
    return own if isinstance(block, int) else own + _levels(block)


class Strides:
    """The strides of a graph's spaces."""

    def __init__(
        self,
        algebra: Algebra,
        read: Callable[[Axis], Axis],
        balances: Iterable[Balance],
        uniform: Iterable[tuple[str, Axis]],
    ) -> None:
        self._algebra, self._read = algebra, read
        self._equations: list[_Equation] = []
        self._by_space: dict[Space, list[_Equation]] = {}
        self._whole: dict[Space, set[Space]] = {}
        self._nested: dict[Space, set[Space]] = {}  # spaces in whose blocks a space lies, or which lie in its own
        for balance in balances:
            self._add_balance(balance)
        for node, axis in uniform:
            self._add_uniform(node, axis)

    @property
    def uniform(self) -> frozenset[Space]:
        """Spaces that only grow by copies of every channel."""
        return frozenset(self._whole)

    def _add_balance(self, balance: Balance) -> None:
        rows: list[Counter[Space]] = []
        for row in balance.rows:
            count: Counter[Space] = Counter()
            terms = self._read(row)
            for space, positions in shares_of(terms):
                if not space.pins:
                    count[space] += positions
            self._add_nested(terms)
            rows.append(count)
        equation = _Equation(balance.node, tuple(rows))
        self._equations.append(equation)
        for space in dict.fromkeys(space for row in rows for space in row):
            self._by_space.setdefault(space, []).append(equation)

    def _add_nested(self, axis: Axis) -> None:
        for space, block in axis:
            if space is None or isinstance(block, int):
                continue
            for inner in spaces_on(block):
                self._nested.setdefault(space, set()).add(inner)
                self._nested.setdefault(inner, set()).add(space)
            self._add_nested(block)

    def _add_uniform(self, node: str, axis: Axis) -> None:
        terms = self._read(axis)
        if all(space is None for space, _ in terms):
            return
        self._algebra.node = node
        if any(space is None for space, _ in terms):
            self._algebra.pin(axis, "is normalised together with channels that cannot change")
        levels = _levels(terms)
        for space in spaces_on(terms):
            if not any(space in level for level in levels):
                self._algebra.pin(((space, 1),), "is a factor of channels that are normalised together with others")
        for level in levels:
            joint: set[Space] = set()
            for space in level:
                joint |= self._whole.get(space, {space})
            for space in joint:
                self._whole[space] = joint
        self._add_nested(terms)

    def of(self, space: Space, keep: bool = True) -> tuple[Joint, Pin | None]:
        """The fewest new units, of the space and of others, that change a space; and why there are none.

        With `keep`, those that can keep the function; else any that leave the graph sound.
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
            if found is not None and not any(self._nested.get(s, set[Space]()) & found.keys() for s in found):
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
                    barred = whole.union(*(self._nested.get(s, ()) for s in units))
                    space = self._filler(equation.rows[row], missing, barred)
                    if space is None:
                        return None
                    units[space] = units.get(space, 0) + missing // equation.rows[row][space]
        return None

    def _touched(self, units: Mapping[Space, int]) -> Sequence[_Equation]:
        return list({id(e): e for space in units for e in self._by_space.get(space, ())}.values())

    def _filler(self, row: Counter[Space], missing: int, barred: frozenset[Space]) -> Space | None:
        """The least coupled space that fills a gap: one that fewest balances, and fewest of their rows, hold."""
        fits = [space for space, block in row.items() if missing % block == 0 and space not in barred]
        return min(fits, key=self._coupling, default=None)

    def _coupling(self, space: Space) -> tuple[int, int]:
        equations = self._by_space[space]
        return len(equations), sum(space in row for equation in equations for row in equation.rows)
