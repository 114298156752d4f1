"""What a network may cost, and one growth of it. Costs are always asked of the rewritten graph, never of a formula."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from growir.channels import analyse
from growir.errors import GraphError, PassRefused
from growir.graph import Graph
from growir.growth.sections import MOST, Count, Section
from growir.ops.base import MAX_REAL
from growir.params import param_table
from growir.rewrite import Pass, Rewrite


class GrowthLimits(Section):
    """The most that one growth may add.

    Attributes:
        parameters: Parameters. By default no limit.
        macs: Multiply-accumulates per sample. By default no limit.
        units: Channels and neurons, in all spaces together. By default no limit.
        layers: Nodes that have a weight matrix or a kernel. By default no limit.
        share: Parameters, as a share of those that there are. By default no limit.
    """

    parameters: Count | None = None
    macs: Count | None = None
    units: Count | None = None
    layers: Count | None = None
    share: Annotated[float, Field(strict=True, gt=0, le=1000, allow_inf_nan=False)] | None = None


class BudgetConfig(Section):
    """Where growth ends, whichever comes first.

    Attributes:
        parameters: The most parameters the network may have. By default ten per sample, at most 100 000, where trials
            find the size, else two, at most 50 000, and at least enough for eight neurons; four times what it has,
            where growth begins from a network and nothing else limits that. The eight neurons stand beside a linear
            layer. Without trials it also decides how many neurons a growth adds.
        macs: The most multiply-accumulates per sample. By default no limit.
        steps: The most growths, without those that only trim.
        seconds: A safety stop on wall-clock time. By default no limit. A run that it ended says so and is not
            reproducible.
        per_growth: The most that one growth may add: parameters, macs, units, layers, or a share of the parameters.
            By default no limit.
    """

    parameters: Count | None = None
    macs: Count | None = None
    steps: Count = 20
    seconds: Annotated[float, Field(strict=True, gt=0, le=MAX_REAL, allow_inf_nan=False)] | None = None
    per_growth: GrowthLimits | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """What a network costs, or what one costs more than another.

    Attributes:
        parameters: Learned numbers, tied ones once.
        macs: Multiply-accumulates per sample.
        units: Channels and neurons: the units of all channel spaces. 0 where nothing limits them.
        layers: Nodes that have a learned weight of two or more axes.
    """

    parameters: int = 0
    macs: int = 0
    units: int = 0
    layers: int = 0

    @classmethod
    def of(cls, graph: Graph, *, units: bool = False) -> Cost:
        """What a graph costs; its units only where they are asked for, since that takes an analysis of its spaces."""
        costs, table = graph.costs(), param_table(graph)
        hosts = {key.rpartition(".")[0] for key, param in table.items() if not param.buffer and len(param.shape) > 1}
        found = sum(space.units for space in analyse(graph).spaces) if units else 0
        return cls(costs.parameters, costs.macs, found, len(hosts))

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.parameters + other.parameters,
            self.macs + other.macs,
            self.units + other.units,
            self.layers + other.layers,
        )

    def __sub__(self, other: Cost) -> Cost:
        return Cost(
            self.parameters - other.parameters,
            self.macs - other.macs,
            self.units - other.units,
            self.layers - other.layers,
        )


class Budget:
    """What there is room for in one growth.

    Each rewrite that it is asked about is carried out once and remembered until the next growth.

    Args:
        limits: Of the run.
        graph: What is about to grow.
        since: What it was when this growth began, where a part of the growth is done.

    Attributes:
        refused: Whether something did not fit since the budget was made: that is why growth ends, if nothing else fits.
    """

    def __init__(self, limits: BudgetConfig, graph: Graph, since: Graph | None = None) -> None:
        self.limits = limits
        self.graph = graph
        self._since = since or graph
        self.refused = False
        self._nearest: tuple[float, Pass] | None = None  # of what did not fit
        self._now: Cost | None = None
        self._done: dict[Pass, Rewrite] = {}

    def rewritten(self, pass_: Pass) -> Rewrite:
        """A pass carried out on the structure. Raises PassRefused if it does not fit the graph."""
        done = self._done.get(pass_)
        if done is None:
            done = self._done[pass_] = pass_.rewrite(self.graph)
        return done

    def cost(self, pass_: Pass) -> Cost:
        """What the network would cost more after a pass. Raises PassRefused if it does not fit the graph."""
        units = self.limits.per_growth is not None and self.limits.per_growth.units is not None
        if self._now is None:
            self._now = Cost.of(self.graph, units=units)
        return Cost.of(self.rewritten(pass_).graph, units=units) - self._now

    def after(self, pass_: Pass) -> Budget:
        """What a pass leaves of the budget of this growth. Raises PassRefused if it does not fit the graph."""
        return Budget(self.limits, self.rewritten(pass_).graph, self._since)

    @property
    def room(self) -> Cost:
        """The most that this growth may still add; the largest whole number there is where nothing limits it."""
        limits, each = self.limits, self.limits.per_growth or GrowthLimits()
        now, used = self.graph.costs(), Cost()
        if self._since is not self.graph:
            counted = each.units is not None
            used = Cost.of(self.graph, units=counted) - Cost.of(self._since, units=counted)
        share = None if each.share is None else int(each.share * self._since.costs().parameters)
        units, layers = [(each.units, used.units)], [(each.layers, used.layers)]
        parameters = [(each.parameters, used.parameters), (share, used.parameters), (limits.parameters, now.parameters)]
        macs = [(each.macs, used.macs), (limits.macs, now.macs)]
        return Cost(_left(parameters), _left(macs), _left(units), _left(layers))

    def excess(self, pass_: Pass) -> float:
        """How far a pass would go beyond the budget, relative to it; not positive where it fits.

        Raises:
            PassRefused: It does not fit the graph.
            GraphError: It would be larger than any graph may be.
        """
        grown, now = self.rewritten(pass_).graph, self.graph.costs()
        costs, each = grown.costs(), self.limits.per_growth
        over = [-1.0]
        for has, most in ((costs.parameters, self.limits.parameters), (costs.macs, self.limits.macs)):
            if most is not None:
                over.append(has / most - 1)
        if each is not None:
            room = self.room
            added = [(costs.parameters - now.parameters, room.parameters), (costs.macs - now.macs, room.macs)]
            if each.units is not None or each.layers is not None:
                cost = self.cost(pass_)
                added += [(cost.units, room.units), (cost.layers, room.layers)]
            over += [has / most - 1 if most > 0 else float(has > 0) for has, most in added]
        return max(over)

    def beyond(self, least: Cost) -> bool:
        """Whether there is no room for what costs at least so much, which is known before it is carried out."""
        room = self.room
        over = least.parameters > room.parameters or least.macs > room.macs
        over = over or least.units > room.units or least.layers > room.layers
        self.refused = self.refused or over
        return over

    def fits(self, pass_: Pass) -> bool:
        """Whether the network after a pass is within the budget, and the pass fits the graph at all."""
        try:
            over = self.excess(pass_)
        except PassRefused:
            return False
        except GraphError:  # larger than any graph may be
            self.refused = True
            return False
        if over > 0:
            self.refused = True
            if self._nearest is None or over < self._nearest[0]:
                self._nearest = over, pass_
        return over <= 0

    @property
    def lacking(self) -> str | None:
        """What the nearest of all that did not fit would cost, and what is left, in words; None where all fitted."""
        if self._nearest is None:
            return None
        cost, room = self.cost(self._nearest[1]), self.room
        names = ("parameters", "macs", "units", "layers")
        over = [(name, getattr(cost, name), getattr(room, name)) for name in names]
        beyond = [(name, has, f"{most:,} {'is' if most == 1 else 'are'}") for name, has, most in over if has > most]
        said = [f"{has:,} {name} where {most} left" for name, has, most in beyond]
        if not said:
            return "the network itself is beyond the budget"
        return f"the cheapest candidate adds {' and '.join(said)}"

    def narrowed(self, make: Callable[[int], Pass], units: int, *, multiple: int = 1) -> Pass | None:
        """The pass for as many units as the budget has room for.

        Args:
            make: The pass for a number of units.
            units: The most, a multiple of `multiple`.
            multiple: What the number of units must be a multiple of.

        Returns:
            The pass; None if the budget has room for none, or the graph refuses it.
        """
        most = units // multiple
        if most < 1 or self.fits(make(most * multiple)):
            return make(most * multiple) if most >= 1 else None
        low, high = 0, most  # low fits, high does not
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.fits(make(middle * multiple)) else (low, middle)
        return make(low * multiple) if low else None


def _left(limits: list[tuple[int | None, int]]) -> int:
    """The least that several limits leave beside what is used of them."""
    known = [limit - used for limit, used in limits if limit is not None]
    return max(0, min(known)) if known else MOST
