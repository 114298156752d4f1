"""When a training run grows: at shares of its compute or its tokens, or where its loss stops paying for them.

A run has a budget. `Schedule.step` is called once behind each step of the optimizer, counts what it cost, and grows the
module when the next growth is due. Compute is counted as the document counts it: two operations for a
multiply-accumulate, and a training step three times a forward pass. So a small network spends its budget on more
tokens, and runs that grow and runs that do not end at the same compute.

A growth is a pass, for a module that growir made, or a plan with what makes the large module, for one of the user's own
class. Either way the module that comes back takes the place of the old one, and the optimizer stays the object it was.
"""

from __future__ import annotations

import copy
import itertools
import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

from torch import nn
from torch.optim import Optimizer

from growir.costs import costs_of
from growir.errors import ModelError, PassRefused, counted, cut
from growir.graph import Graph
from growir.live.growing import grow
from growir.live.into import Filled, grow_into, side_of
from growir.live.modules import find
from growir.live.report import Report
from growir.live.rules import Progress, Rule, check_share
from growir.planning import Plan
from growir.rewrite import Pass
from growir.shapes import shapes_of

Unit = Literal["compute", "tokens", "steps"]
FLOPS_PER_MAC = 6  # two operations, and a backward pass costs twice a forward one
RESOLUTION = 2000  # means of the loss that are kept of a whole budget


@dataclass(frozen=True, slots=True)
class Growth:
    """One growth of a run.

    Attributes:
        at: The part of the budget after which it is due, from 0 to 1, or a rule such as `Plateau`.
        step: The pass, or a function of the graph of then that gives one; for a module of one's own class a plan.
        make: With a plan, what makes the large module, on the device and in the dtype that the small one has.
    """

    at: float | Rule
    step: Pass | Plan | Callable[[Graph], Pass]
    make: Callable[[], nn.Module] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.step, Plan) and not callable(self.make):
            raise ModelError("Growth: with a plan, `make` is needed: a function that makes the large module")
        if self.make is not None and not isinstance(self.step, Plan):
            raise ModelError("Growth: `make` goes with a plan (`growir.plan`); a pass makes the module itself")

    def due(self, progress: Progress) -> bool:
        """Whether it is due."""
        return self.at(progress) if callable(self.at) else progress.share >= self.at


@dataclass(slots=True)
class _Window:
    """The losses since the last growth, by two-thousandths of the budget."""

    losses: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    count: int = 0
    bucket: int = -1

    def add(self, share: float, loss: float) -> None:
        bucket = int(share * RESOLUTION)
        if bucket == self.bucket and self.losses:
            self.count += 1
            mean = self.losses[-1][1]
            self.losses[-1] = share, mean + (loss - mean) / self.count
        else:
            self.losses.append((share, loss))
            self.bucket, self.count = bucket, 1


class Schedule:
    """A run's growths, in order, and its budget.

    Args:
        growths: What is grown when; one behind the other.
        budget: How much the run may spend, in its unit: floating-point operations, tokens, or steps.
        unit: What is counted.
        warmup: The part of the budget over which `factor` rises.
        decay: The part of the budget at its end over which `factor` falls to zero.
        options: What `live.grow`, or `live.grow_into` for plans, gets at each growth, such as `groups`.

    Raises:
        ModelError: A share does not lie between 0 and 1, growths are not in order, a plan does not begin where the one
            before it ends, or the budget is no positive number.
    """

    def __init__(
        self,
        growths: Sequence[Growth],
        *,
        budget: float,
        unit: Unit = "compute",
        warmup: float = 0.0,
        decay: float = 0.0,
        **options: Any,
    ) -> None:
        if unit not in get_args(Unit):
            raise ModelError(f"unit={unit!r} is none of {', '.join(get_args(Unit))}")
        if not (math.isfinite(budget) and budget > 0):
            raise ModelError(f"budget={budget!r}: a positive number of {_WHAT[unit]} is needed")
        _check_chain(growths)
        shares = [each.at for each in growths if not callable(each.at)]
        for share in shares:
            check_share("Growth", "at", share, zero=True)
        if shares != sorted(shares):
            raise ModelError(f"growths are due in their order, but their shares are {shares}")
        for name, value in (("warmup", warmup), ("decay", decay)):
            check_share("Schedule", name, value, zero=True)
        if warmup + decay > 1:
            raise ModelError(f"warmup={warmup:g} and decay={decay:g} are more than the whole budget")
        self.growths = tuple(growths)
        self.budget = float(budget)
        self.unit: Unit = unit
        self.warmup, self.decay = warmup, decay
        self.options = options
        self.spent = 0.0
        self.grown: list[float] = []
        self._window = _Window()
        self._graph: tuple[weakref.ref[nn.Module], Graph] | None = None

    @property
    def share(self) -> float:
        """The part of the budget that is spent."""
        return self.spent / self.budget

    @property
    def ended(self) -> bool:
        """Whether the budget is spent."""
        return self.spent >= self.budget

    def factor(self) -> float:
        """The learning rate now as a part of its peak: warm-up, stable, and linear decay to zero, by what is spent."""
        rise = min(1.0, self.share / self.warmup) if self.warmup else 1.0
        left = max(0.0, 1.0 - self.share)
        return min(rise, left / self.decay) if self.decay else rise

    def step(
        self,
        module: nn.Module,
        optimizer: Optimizer,
        tokens: int | None = None,
        *,
        samples: int | None = None,
        loss: float | None = None,
    ) -> tuple[nn.Module, Report | Filled | None]:
        """Count one step of the optimizer, and grow if a growth is due.

        Args:
            module: A growir module, or one of the class that the plans are of.
            optimizer: What trains it; changed in place where it grows.
            tokens: How many tokens the step was over: entries of the network's first input, which are whole numbers.
            samples: How many samples it was over, in place of tokens.
            loss: The training loss of the step, for rules that decide by it.

        Returns:
            The module to go on with, and what was done; None where nothing was.

        Raises:
            ModelError: Neither tokens nor samples are given, or tokens of a network that has none; the module is not
                what the schedule gave back last; or as `live.grow` and `live.grow_into`.
            PassRefused: The pass does not fit. What the step cost has been counted.
        """
        if self.growths and isinstance(self.growths[0].step, Plan):
            self._graph_of(module)  # that it is the one that was given back last no other unit than compute would see
        self.spent += self._cost(module, tokens, samples)
        if loss is not None:
            self._window.add(self.share, float(loss))
        if len(self.grown) == len(self.growths) or self.ended:
            return module, None
        growth = self.growths[len(self.grown)]
        since = self.grown[-1] if self.grown else 0.0
        if not growth.due(Progress(self.share, since, self._window.losses)):
            return module, None
        grown, report = self._carried_out(growth, module, optimizer)
        self.grown.append(self.share)
        self._window, self._graph = _Window(), None
        return grown, report

    def _carried_out(
        self, growth: Growth, module: nn.Module, optimizer: Optimizer
    ) -> tuple[nn.Module, Report | Filled]:
        """The module after a growth, and what was done."""
        if isinstance(growth.step, Plan):
            large = cast("Callable[[], nn.Module]", growth.make)()
            report = grow_into(module, large, growth.step, optimizer, **self.options)
            return large.train(module.training), report
        step = growth.step if isinstance(growth.step, Pass) else growth.step(find(module).graph)
        if not isinstance(cast("object", step), Pass):
            raise PassRefused(f"growth {len(self.grown)} of the schedule gives {cut(repr(step))}, which is no pass")
        return grow(module, step, optimizer, **self.options)

    def made(self, start: Callable[[], nn.Module]) -> nn.Module:
        """A module of the size that the run has come to, for one's own class: to load a checkpoint into.

        Args:
            start: What makes the module that the run begins with.
        """
        makers = [growth.make for growth in self.growths[: len(self.grown)] if growth.make is not None]
        return makers[-1]() if makers else start()

    def _cost(self, module: nn.Module, tokens: int | None, samples: int | None) -> float:
        if self.unit == "steps":
            return 1.0
        given = tokens if samples is None else samples
        if given is None or (tokens is not None and samples is not None):
            raise ModelError("give the step's tokens, or its samples: one of the two")
        if self.unit == "tokens" and samples is None:
            return float(given)
        graph = self._graph_of(module)
        length = _tokens_of(graph) if samples is None or self.unit == "tokens" else 1
        if self.unit == "tokens":
            return float(given) * length
        return FLOPS_PER_MAC * costs_of(graph).macs * given / length

    def _graph_of(self, module: nn.Module) -> Graph:
        """The module's graph, which stays the same as long as it is the same module."""
        if self._graph is None or self._graph[0]() is not module:
            self._graph = weakref.ref(module), self._planned_graph(module) or find(module).graph
        return self._graph[1]

    def _planned_graph(self, module: nn.Module) -> Graph | None:
        """The graph of a module of the user's class by the plans; None where growths are passes, and it has its own.

        Raises:
            ModelError: The module has not the tensors that it has to have by now.
        """
        done = len(self.grown)
        if done and isinstance(plan := self.growths[done - 1].step, Plan):
            graph, keys = plan.rewrite.graph, plan.large_keys
        elif done < len(self.growths) and isinstance(plan := self.growths[done].step, Plan):
            graph, keys = plan.graph, plan.small_keys
        else:
            return None
        try:
            side_of(module, "module", keys).tensors(graph)
        except ModelError as error:
            raise ModelError(
                f"after {counted(done, 'growth')} the schedule needs the module that was given back last "
                f"(module, report = schedule.step(module, ...)), or one that `schedule.made` makes: {error}"
            ) from None
        return graph

    def __deepcopy__(self, memo: dict[int, Any]) -> Schedule:
        options = copy.deepcopy(self.options, memo)
        made = Schedule(
            self.growths, budget=self.budget, unit=self.unit, warmup=self.warmup, decay=self.decay, **options
        )
        made.load_state_dict(self.state_dict())
        return made

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps, of plain numbers and lists."""
        window = self._window
        return {
            "unit": self.unit,
            "budget": self.budget,
            "growths": len(self.growths),
            "spent": self.spent,
            "grown": list(self.grown),
            "losses": [list(each) for each in window.losses],
            "bucket": [window.bucket, window.count],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint of the same schedule.

        Raises:
            ModelError: It is of another unit, budget or number of growths.
        """
        mine = self.state_dict()
        for name in ("unit", "budget", "growths"):
            if state.get(name) != mine[name]:
                raise ModelError(
                    f"the checkpoint's schedule has {name} {state.get(name)!r}, but this one {mine[name]!r}"
                )
        self.spent, self.grown = float(state["spent"]), [float(share) for share in state["grown"]]
        bucket, count = state["bucket"]
        losses = [(float(at), float(loss)) for at, loss in state["losses"]]
        self._window = _Window(losses, int(count), int(bucket))


def _check_chain(growths: Sequence[Growth]) -> None:
    """Raise ModelError unless all growths are passes, or all are plans of which each begins where the last one ends."""
    plans = [each.step for each in growths if isinstance(each.step, Plan)]
    if plans and len(plans) < len(growths):
        raise ModelError("growths are passes, for a module of growir's, or plans, for one of your class: not both")
    for k, (one, other) in enumerate(itertools.pairwise(plans)):
        if one.after != other.before:
            raise ModelError(
                f"growth {k} leads to a graph with hash {one.after[:12]}, but the plan of growth {k + 1} begins with "
                f"{other.before[:12]}; make each plan from the model that the one before it leads to"
            )


_WHAT: Mapping[Unit, str] = {"compute": "floating-point operations", "tokens": "tokens", "steps": "steps"}


def _tokens_of(graph: Graph) -> int:
    """How many tokens a sample has."""
    first = graph.inputs[0]
    shape = shapes_of(graph)[first.name]
    if shape.dtype != "int64" or shape.rank < 2:
        raise ModelError(
            f"input {cut(first.name)} is {shape} of {shape.dtype}, so there are no tokens to count; give samples "
            "instead"
        )
    return shape.elements
