"""Growing a live module: everything is worked out first, so that an error leaves all as it was."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args
from weakref import WeakKeyDictionary, WeakSet

import torch
from numpy.typing import NDArray
from torch import distributed, fx, nn

from growir.backends.torch_fx.lowering import read_back, values_of
from growir.document import function_hash
from growir.errors import ModelError, PassRefused, counted, cut
from growir.graph import Graph
from growir.live.carrying import AveragePlan, grown_masks, grown_tensors, heirs_of, switched
from growir.live.groups import Groups
from growir.live.modules import Live, find, fitting_batch, largest_change, rebuilt
from growir.live.normalised import uneven_copies
from growir.live.optimizers import Grown, OptimizerPlan, places_of, plan_optimizers
from growir.live.ranks import alike_on_all_ranks, world_size
from growir.live.report import Place, Report, TensorChange
from growir.moments import CopyState, FreshState
from growir.network import Network
from growir.params import array_digest, frozen_keys, with_frozen
from growir.passes import needed_pass
from growir.rewrite import Pass, Preserves, Rewrite
from growir.show import step_text
from growir.trainable import check_trainable

# By module, the optimizers that went on with what it grew into. Someone who forgets to take that would train the old
# one, whose parameters no optimizer holds any more.
_OUTGROWN: WeakKeyDictionary[nn.Module, WeakSet[torch.optim.Optimizer]] = WeakKeyDictionary()


def grow(
    module: nn.Module,
    step: Pass | Rewrite,
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | None = None,
    ema: Sequence[object] = (),
    masks: Mapping[str, torch.Tensor] | None = None,
    *,
    verify: torch.Tensor | Sequence[torch.Tensor] | None = None,
    at_most: float | None = None,
    fresh: FreshState = "small",
    copies: CopyState = "carried",
    groups: Groups | None = None,
    train_as_imported: bool = False,
    on_all_ranks: bool = False,
) -> tuple[fx.GraphModule, Report]:
    """Grow a module that is being trained; what comes back takes its place.

    Everything stays on its device and in its dtype. A tensor that does not change is the same object in both modules,
    so the old one is to be dropped; one that changes is new, requires a gradient as before, and keeps its accumulated
    gradient. Buffers and the mode (train or eval) of every part go along.

    The optimizer is changed in place: state by the row of its class (`live.register`), groups by name. A created
    parameter starts without state in the group that `groups` says, or in that of its nearest relative
    (`growir.live.relatives`); one that is gone leaves. Schedulers and GradScaler hold the optimizer and need nothing.

    Args:
        module: A module that `Network.to_torch` made; one that torch.compile wrapped is unwrapped, and to be compiled
            anew. DistributedDataParallel is refused, since it would go on with its old parameters: grow what it wraps,
            on all ranks alike, and wrap again.
        step: A pass, or its rewrite of this module's graph.
        optimizer: The optimizers that train the module; they may train other things too.
        ema: Averages of the weights: growir modules, AveragedModels (changed in place) or state_dicts; the grown ones
            are in the report. Fresh weights are the module's.
        masks: Masks of weights by key, of any dtype; the grown ones are in the report, with 1 for fresh weights.
        verify: A batch of every input, on which outputs are measured in eval mode; they must stay where the pass
            promises that (to 1e-9 of the largest value in float64, 1e-4 in float32). Where inputs or outputs become
            longer, the batch is of the old shape, and the old entries are compared.
        at_most: With `verify`, refuse a larger change than this part of an output's largest value, whatever the pass
            promises; of infinity, only outputs that are no longer finite.
        fresh: What fresh entries of optimizer state start with, where they are sizes such as Adam's second moment:
            "small" (a ten-thousandth of the mean of the old ones along the axis that grows), "mean" or "zero". The
            smaller, the longer are the first steps of what is new; docs/live.md has what was measured.
        copies: What the state of added copies starts with: "carried", so that each makes the old unit's step, or
            "fresh", so that copies part under an optimizer that looks at the gradient's direction only, such as Adam.
        groups: A function of a created parameter's key and the parameter that says where it is trained: the index of
            the optimizer's group, (optimizer, group) where several are given, a group's "name", or None for the group
            of its nearest relative. Without it the report notes where likeness was weak.
        train_as_imported: Go on with a network whose train mode is known not to be that of the model it was imported
            from (`Graph.train_differs`).
        on_all_ranks: Where a process group of several ranks is up: every rank makes this same call, and whatever wraps
            the module is wrapped anew afterwards. Before anything changes, the ranks compare what they are about to do.

    Returns:
        The grown module, and what was done.

    Raises:
        PassRefused: The pass does not fit, or `verify` measured a change it had excluded.
        ModelError: The module, an optimizer, an average, a mask or the batch is not what is needed, or the network has
            not the train mode of the model it was imported from, and `train_as_imported` is not given. Or several
            ranks are up, and `on_all_ranks` is not given or they do not grow alike.
        GrowirError: An optimizer has state that cannot follow.
    """
    optimizers: list[Any] = [] if optimizer is None else [optimizer]
    if isinstance(optimizer, list | tuple):
        optimizers = [*optimizer]

    def work() -> _Planned:
        return _planned(module, step, optimizers, ema, masks, verify, at_most, fresh, copies, groups, train_as_imported)

    planned = alike_on_all_ranks(work, _Planned.summary, on_all_ranks)
    planned.commit()
    return planned.grown, planned.report


@dataclass(frozen=True, slots=True, eq=False)
class _Planned:
    """A growth that is worked out and has changed nothing yet."""

    before: nn.Module
    grown: fx.GraphModule
    report: Report
    step: str
    given: Sequence[torch.optim.Optimizer]
    optimizers: Sequence[OptimizerPlan]
    averages: Sequence[AveragePlan]

    def summary(self) -> str:
        """What ranks that grow alike have in common."""
        changes = "; ".join(map(str, self.report.changes))
        return f"{self.report.before[:12]} -> {self.report.after[:12]} by {self.step}: {changes}"

    def commit(self) -> None:
        """Change optimizers and averages in place; nothing here can fail."""
        for plan in self.optimizers:
            plan.commit()
        for average in self.averages:
            average.commit()
        if self.report.changes:
            _OUTGROWN.setdefault(self.before, WeakSet()).update(self.given)


def _planned(
    module: nn.Module,
    step: Pass | Rewrite,
    optimizers: Sequence[Any],
    ema: Sequence[object],
    masks: Mapping[str, torch.Tensor] | None,
    verify: torch.Tensor | Sequence[torch.Tensor] | None,
    at_most: float | None,
    fresh: FreshState,
    copies: CopyState,
    groups: Groups | None,
    train_as_imported: bool,
) -> _Planned:
    """Everything that `grow` does and that may fail."""
    start = time.perf_counter()
    rng = _generators()
    live = find(module)
    check_trainable(live.graph, train_as_imported, ModelError)
    done = _rewrite(step, live.graph)
    _check_arguments(live.module, optimizers, ema, verify, at_most)
    _check_words(fresh, copies)
    if not (groups is None or (callable(cast("object", groups)) and optimizers)):
        raise ModelError("groups: a function (key, parameter) -> group is needed, and an optimizer that has groups")
    _check_range(step, live.tensors)
    heirs = heirs_of(done.edits, list(live.tensors))
    if isinstance(step, Rewrite):  # perhaps of the module's document, which does not say what was frozen since
        done = switched(done, {heirs[key]: held for key, held in live.switched.items() if key in heirs})
    tensors = grown_tensors(live, done, heirs)
    values = {array_digest(array): array for array in step.values.values()} if isinstance(step, Pass) else {}
    grown = rebuilt(live.module, done.graph, tensors, values)
    orders = _order(live.module, live.tensors), _order(grown, tensors)
    plans, unsure = plan_optimizers(
        optimizers, Grown(done.graph, done.edits, live.tensors, tensors, heirs, *orders, fresh, copies), groups
    )
    averages = [AveragePlan(average, k, live, done, values) for k, average in enumerate(ema)]
    carried = grown_masks({} if masks is None else masks, live.graph, done)
    measured = None
    if verify is not None:
        measured = _measure(live, grown, fitting_batch(live.graph, verify), done, at_most)
    carries = bool(plans) or any(tensor.grad is not None for tensor in live.tensors.values())
    uneven = uneven_copies(live.graph, done.edits) if carries else ()
    places = places_of(plans)
    untrained = [key for key, p in grown.named_parameters() if p.requires_grad and key not in places] if plans else []
    report = Report(
        what=_last_step(done.graph),
        before=live.graph.hash,
        after=done.graph.hash,
        created=done.created,
        preserves=done.preserves,
        changes=tuple(_changes(live.tensors, tensors, heirs, places)),
        untrained=tuple(untrained),
        ema=tuple(average.grown for average in averages),
        masks=carried,
        values=values,
        measured=measured,
        rng=rng,
        notes=(
            *unsure,
            *live.notes,
            *(note for plan in plans for note in plan.notes),
            *(note for average in averages for note in average.notes),
            *uneven,
            *_single_rank(),
        ),
        seconds=time.perf_counter() - start,
        callers=done.callers,
    )
    recorded = _recorded(done.graph)
    return _Planned(live.module, grown, report, recorded, optimizers, plans, averages)


def graph_of(module: nn.Module) -> Graph:
    """The graph of a live module with its history, frozen where the module's tensors require no gradient.

    No tensor is copied: for costs, spaces and candidates of passes between two growths.

    Raises:
        ModelError: It is no growir module.
    """
    return find(module).graph


def network_of(
    module: nn.Module, values: Mapping[str, NDArray[Any]] | None = None, *, keep_frozen: bool = False
) -> Network:
    """The network a live module is, to save or export it: what requires no gradient is frozen.

    Args:
        module: A growir module.
        values: Arrays that passes were given, by sha256, as reports have them, beside those that the module carries.
            It carries those of the network it was made of and of the passes that it grew by since; the history is
            replayed with them.
        keep_frozen: Freeze what the module's document does, whatever requires a gradient now: for an average of the
            weights or another copy that is only kept, none of whose parameters requires one.

    Raises:
        ModelError: It is no growir module.
    """
    live = find(module)
    said = {key for key in frozen_keys(live.graph) if key not in live.switched}
    said |= {key for key, held in live.switched.items() if not held}
    graph = with_frozen(live.graph, said) if keep_frozen else live.graph
    return Network(graph, read_back(graph, live.module), {**values_of(live.module), **(values or {})})


def _check_arguments(
    module: nn.Module, optimizers: Sequence[object], ema: object, verify: object, at_most: float | None
) -> None:
    """Raise ModelError for what no later step would notice, or would name less clearly."""
    if torch.is_inference_mode_enabled():
        raise ModelError("growth inside torch.inference_mode() gives tensors that cannot be trained; grow outside")
    if any(optimizer in _OUTGROWN.get(module, ()) for optimizer in optimizers):
        raise ModelError(
            "this module was grown before, and the optimizer went on with what came back: "
            "module, report = live.grow(module, ...)"
        )
    if isinstance(ema, nn.Module | Mapping):
        raise ModelError("ema: a list of averages is needed; give [average]")
    if at_most is not None and (verify is None or not at_most >= 0):
        raise ModelError(f"at_most: a number from 0 on and a batch to `verify` are needed, but it is {at_most}")


def _check_words(fresh: object, copies: object) -> None:
    for name, word, known in (("fresh", fresh, get_args(FreshState)), ("copies", copies, get_args(CopyState))):
        if word not in known:
            raise ModelError(f"{name}: one of {', '.join(map(repr, known))} is needed, but it is {word!r}")


def _check_range(step: Pass | Rewrite, tensors: Mapping[str, torch.Tensor]) -> None:
    """Raise PassRefused if the numbers that a pass was given are too large for the module's dtype."""
    dtypes = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    for key, array in step.values.items() if isinstance(step, Pass) and dtypes else ():
        narrow = min(dtypes, key=lambda dtype: torch.finfo(dtype).max)
        largest = float(abs(array).max()) if array.size else 0.0
        if largest > torch.finfo(narrow).max:
            raise PassRefused(f"the values for {cut(key)} reach {largest:.3g}, which {narrow} cannot hold")


def _rewrite(step: Pass | Rewrite, graph: Graph) -> Rewrite:
    if not isinstance(step, Rewrite):
        return needed_pass(step, " or its rewrite").rewrite(graph)
    history = step.graph.history
    base, steps = (graph, ()) if graph.history is None else (graph.history.base, graph.history.steps)
    if history is None or function_hash(history.base) != function_hash(base) or history.steps[:-1] != steps:
        raise ModelError(
            f"the rewrite is not of this module's graph ({graph.name!r}, {graph.hash[:12]}, "
            f"{counted(len(steps), 'step')}); give the pass itself, or rewrite the graph of network_of(module)"
        )
    return step


def _order(module: nn.Module, tensors: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """Where each parameter stands among the module's."""
    position = {id(parameter): k for k, parameter in enumerate(module.parameters())}
    return {key: position[id(tensor)] for key, tensor in tensors.items() if id(tensor) in position}


def _last_step(graph: Graph) -> str:
    return step_text(graph.history.steps[-1]) if graph.history and graph.history.steps else "rewrite"


def _measure(
    before: Live,
    after: nn.Module,
    batch: Sequence[torch.Tensor],
    done: Rewrite,
    at_most: float | None,
) -> float:
    worst, rounding = largest_change(before.module, after, batch, done.entries, before.graph)
    if at_most is not None:
        limit, why = at_most, f"at most {at_most:g} is allowed"
    elif done.preserves in (Preserves.EXACT, Preserves.EVAL):
        limit, why = rounding, f"the pass promises {done.preserves}"
    else:
        return worst
    if math.isinf(worst):
        raise PassRefused("an output becomes NaN or infinite on the given batch; nothing was applied")
    if not worst <= limit:
        raise PassRefused(
            f"an output changed by {worst:.1e} of its largest value on the given batch, although {why}; "
            "nothing was applied"
        )
    return worst


def _changes(
    before: Mapping[str, torch.Tensor],
    after: Mapping[str, torch.Tensor],
    heirs: Mapping[str, str],
    places: Mapping[str, Place],
) -> list[TensorChange]:
    old = {new: key for key, new in heirs.items()}
    found = [
        TensorChange(
            key, old.get(key), tuple(before[old[key]].shape) if key in old else None, tuple(t.shape), places.get(key)
        )
        for key, t in after.items()
        if old.get(key) != key or before[key] is not t
    ]
    gone = [key for key in before if key not in heirs]
    return [*found, *(TensorChange(key, key, tuple(before[key].shape), None, None) for key in gone)]


def _recorded(graph: Graph) -> str:
    """The last step of a history, with its place, which keys fresh numbers."""
    if graph.history is None:
        return "rewrite"
    return f"step {len(graph.history.steps)}, {graph.history.steps[-1].model_dump_json(by_alias=True)}"


def _single_rank() -> tuple[str, ...]:
    """A note where a wrapper further out, which cannot be seen from here, may hold the old module."""
    if not (distributed.is_available() and distributed.is_initialized()) or world_size() > 1:
        return ()
    return (
        "torch.distributed runs: a DistributedDataParallel around what holds the module goes on with the old "
        "parameters; wrap anew, on all ranks",
    )


def _generators() -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch's own stub
        states |= {f"cuda:{k}": torch.cuda.get_rng_state(k) for k in range(torch.cuda.device_count())}
    return states
