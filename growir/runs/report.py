"""What grew, when, why, at what gain and cost: from a run's events, or from a graph's history."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard, cast

from growir.columns import Grid, wrapped
from growir.document import step_data
from growir.errors import cut
from growir.graph import Graph
from growir.replay import MAX_CHECKED, replayable, rewrites
from growir.runs.reading import EVENTS, HUGE, Event, RunLog, branch_of, mapping, mappings, number
from growir.show import MAX_DEPTH, MAX_LINE, field_text, si_text, some

REASONS: Mapping[str, str] = {
    "parameters": "nothing more fits the budget",
    "no move": "there is no state that could grow",
    "steps": "the number of growths is reached",
    "seconds": "the time is over",
    "no gain": "no candidate lowers the loss of the selection part by more than chance would, at once or trained",
    "criterion": "the information criterion no longer falls",
}
# Of a growth that was taken back after the training that followed it.
UNDONE: Mapping[str, str] = {
    "no gain": "trained, it does not lower the loss of the selection part by more than chance would",
    "criterion": "the information criterion does not fall by it",
}
GAIN = (
    "A gain is by how much a growth lowers the loss before it is trained: as predicted to first order, and as measured "
    "on the selection part."
)
SELECTION = (
    "While it grows, a network is trained on two thirds of the samples; the last third, the selection part, measures "
    "what each growth is worth."
)
PROBATION = (
    "on probation: nothing gains at once, so the most promising candidate is trained; it stays if that lowers the loss "
    "on the selection part by more than chance would; by the strategy widen, in any case"
)
# Of a growth event, what is no argument of the pass.
_MEASURED = frozenset(
    "event step pass version created values candidates improving predicted_gain measured_gain amplitude loss_before "
    "loss_after parameters macs hash seconds seed train_loss selection_loss seconds_training cost branch tried before "
    "after trained undone map gain_error outcome small probation".split()
)


def short(name: object) -> str:
    """A node's name as a growth is told: of the layer and the activation of a state that growth made, the state's."""
    return re.sub(r"^(node_[0-9]+)\.[a-z0-9_]+$", r"\1", cut(name))


def neurons(count: object) -> str:
    """So many neurons in words."""
    return f"{cut(count)} {'neuron' if count == 1 else 'neurons'}"


def describe_step(event: Mapping[str, Any], depth: int = 0) -> str:
    """A recorded pass in a few words; it may be damaged, or from another package."""
    created = event.get("created")
    made = short(cast("list[object]", created)[0]) if isinstance(created, list) and created else "?"
    source, target, node = (short(event.get(key, "?")) for key in ("source", "target", "node"))
    match event.get("pass"):
        case "add_edge":
            return f"edge {source} -> {target}"
        case "add_node":
            way = (source, target) if made == "?" else (source, made, target)  # what was only tried made nothing
            return f"{neurons(event.get('width', '?'))} {' -> '.join(way)}"
        case "widen":
            return f"{node} wider by {cut(event.get('by', '?'))}"
        case "prune" | "split" as name:
            channels = event.get("channels")
            count = len(cast("list[object]", channels)) if isinstance(channels, list) else "?"
            return f"{node} narrower by {count}" if name == "prune" else f"{node}: {count} channels split"
        case "sequence":
            if depth == MAX_DEPTH:
                return "..."
            return "; ".join(describe_step(part, depth + 1) for part in mappings(event.get("passes")))
        case name:
            fields = {k: v for k, v in event.items() if k not in _MEASURED and v not in ([], {}, None, False)}
            return " ".join(filter(None, (cut(name), field_text(fields))))


# -- as text ----------------------------------------------------------------------------------------------------------


def run_page(log: RunLog) -> Iterator[str | Grid]:
    """What `growir log` prints of a run before its plot."""
    start = log.started
    begins = f", starting at {_count(start.get('parameters'))} parameters" if "parameters" in start else ""
    task = f"\n{cut(start['task'])}, {_count(start.get('samples'))} samples{begins}" if "task" in start else ""
    yield f"{log.name}: {log.state}{task}"
    if log.inputs:
        tried = ", ".join(
            f"{_decimal(entry.get('loss'), '.4f')} with {_count(entry.get('inputs'))}"
            for entry in mappings(log.inputs.get("tried"))
        )
        yield f"reads {_count(log.inputs.get('inputs'))} inputs: loss after a short fit {tried or '-'}"
    if log.growths:
        yield from _growth_grids(log)
        yield f"{wrapped(SELECTION)}\n{wrapped(GAIN)}\nmacs are the multiply-accumulates for one sample."
        if any(growth.get("probation") is True for growth in log.growths):
            yield wrapped(PROBATION)
    else:
        yield "no growths yet" if not log.reason else "no growths"
    if log.ends:
        yield "\n".join(f"growth of {cut(branch)} ended: {_why(reason)}" for branch, reason in log.ends.items())
    elif log.reason:
        yield f"growth ended: {_why(log.reason)}"
    yield from _tournament(log)
    if log.finished:
        yield _result(log.finished)
        phases = mapping(log.finished.get("phases"))
        if phases:
            yield _phase_grid(phases)


def left_out(log: RunLog) -> Iterator[str]:
    """Which lines could not be read, if any."""
    if log.unreadable:
        which, one = some([str(line) for line in log.unreadable]), len(log.unreadable) == 1
        holds = "it holds" if one else "they hold"
        yield f"{'line' if one else 'lines'} {which} of {EVENTS} left out: {holds} no event"


def _why(reason: str) -> str:
    return REASONS.get(reason, cut(reason))


_CHOSEN = ("step", "growth", "best of", "predicted gain", "measured gain")
_BECAME = ("step", "parameters", "added", "macs", "train loss", "selection loss", "seconds")


def _growth_grids(log: RunLog) -> Iterator[Grid]:
    """What grew and why; and what the network became by it, with the losses after the training that followed."""
    chosen, became = list[tuple[str, ...]](), list[tuple[str, ...]]()
    # Branches start from the run's own network unless they say otherwise.
    start = log.started.get("parameters")
    sizes: dict[str | None, Any] = {branch_of(growth): start for growth in log.growths}
    sizes |= {branch: begun.get("parameters") for branch, begun in log.starts.items()}
    for growth in log.growths:
        branch, after = branch_of(growth), growth.get("parameters")
        before = sizes.get(branch)
        added = f"{after - before:+,}" if _countable(after) and _countable(before) else "-"
        if "undone" not in growth:
            sizes[branch] = after
        key = ((cut(branch or "-"),) if log.branched else ()) + (_count(growth.get("step")),)
        gains = [_decimal(growth.get(name), ".4f") for name in ("predicted_gain", "measured_gain")]
        candidates = "" if growth.get("candidates") == 1 else _count(growth.get("candidates"))
        chosen.append((*key, growth_text(growth), candidates, *gains))
        losses = [_decimal(growth.get(name), ".4f") for name in ("train_loss", "selection_loss")]
        seconds = _decimal(growth.get("seconds"), ".2f")
        became.append((*key, _count(after), added, _count(growth.get("macs")), *losses, seconds))
    for headers, rows in ((_CHOSEN, chosen), (_BECAME, became)):
        named = ("branch", *headers) if log.branched else headers
        yield Grid(named, tuple(rows), frozenset(headers) - {"growth"})


def growth_text(growth: Mapping[str, Any]) -> str:
    """A growth in a few words, and whether it was taken back."""
    probation = ", on probation" if growth.get("probation") is True else ""
    undone = f", taken back ({cut(growth['undone'])})" if "undone" in growth else ""
    return f"{describe_step(growth)}{probation}{undone}"


def _tournament(log: RunLog) -> Iterator[str | Grid]:
    """What the branches came to, and which was chosen."""
    if not log.fitted and not log.selected:
        return
    chosen = branch_of(log.selected)
    branches = {branch_of(event): _branch_row(event, mapping(event.get("selection"))) for event in log.fitted}
    for entry in mappings(log.selected.get("tried")):
        branches[branch_of(entry)] = _branch_row(entry, {**entry, "accuracy": None}, branches.get(branch_of(entry)))
    rows = [
        (cut(name or "-"), *cells, "chosen" if name is not None and name == chosen else "")
        for name, cells in branches.items()
    ]
    headers = ("branch", "parameters", "selection loss", "standard error", "correct", "seconds", "")
    # Targets have no share that is correct, and what goes on has chosen nothing.
    used = [k for k in range(len(headers)) if not {row[k] for row in rows} <= {"-", ""}]
    if rows and used:
        chosen_headers = tuple(headers[k] for k in used)
        yield Grid(chosen_headers, tuple(tuple(row[k] for k in used) for row in rows), frozenset(headers[1:-1]))
    if log.selected:
        yield selection_text(log.selected)


def selection_text(event: Event) -> str:
    """Which branch was chosen and why, with the numbers that the rule compared; runs of earlier versions have none."""
    chosen, compared = cut(branch_of(event) or "-"), mappings(event.get("compared"))
    if not compared:
        why = f": {cut(event['why'], MAX_LINE)}" if event.get("why") else ""
        return wrapped(f"chosen: {chosen}{why}")
    said = [_comparison_text(each, event.get("significance")) for each in compared]
    return wrapped(" ".join([*said, f"The network of {chosen} is chosen."]))


def _comparison_text(found: Event, allowed: object) -> str:
    """What the rule made of two branches: why the one that comes later is taken, or is not."""
    later, earlier = cut(found.get("branch", "-")), cut(found.get("against", "-"))
    gain, error = number(found.get("gain")), _decimal(found.get("gain_error"), ".2g")
    if gain is None:
        return f"What {later} gains over {earlier} is not recorded."
    if gain <= 0:
        by = f"higher than that of {earlier} by {-gain:.2g} (standard error {error})" if gain else f"that of {earlier}"
        return f"On the selection part the loss of {later} is {by}, so {earlier} stays ahead."
    lower = f"is lower than that of {earlier} by {gain:.2g} (standard error {error})"
    by = f"On the selection part the loss of {later} {lower}"
    p, limit = number(found.get("p")), _decimal(allowed, "g")
    chance = "-" if p is None else "below 0.0001" if p < 1e-4 else f"{p:.3g}"
    if found.get("better") is True:
        return f"{by}. Chance does that with probability {chance}, less than {limit}, so {later} is ahead."
    return (
        f"{by}. Chance does that with probability {chance}, which has to be less than {limit} for {later} to take the "
        f"place of {earlier}, the simpler strategy."
    )


def _branch_row(event: Event, scores: Event, known: Sequence[str] | None = None) -> list[str]:
    """The cells of a branch; what is not measured stays as it was known before."""
    cells = [
        _count(event.get("parameters")),
        _decimal(scores.get("loss"), ".4f"),
        _decimal(scores.get("loss_error"), ".4f"),
        _decimal(scores.get("accuracy"), ".2%"),
        _decimal(event.get("seconds"), ".1f"),
    ]
    return [old if new == "-" else new for new, old in zip(cells, known or cells, strict=True)]


_COSTS = ("seconds", "cpu_seconds", "flops", "joules")


def _phase_grid(phases: Event) -> Grid:
    """What each phase cost, and what growing costs beside training."""
    rows: list[tuple[str, ...]] = []
    for name, cost in phases.items():
        seconds, cpu, flops, joules = (number(mapping(cost).get(key)) for key in _COSTS)
        times = (_decimal(seconds, ".1f"), _decimal(cpu, ".1f"))
        rows.append((cut(name), *times, "-" if flops is None else si_text(flops), _decimal(joules, ",.1f")))
    ratios: list[str] = []
    for key in _COSTS:
        growing, training = (number(mapping(phases.get(name)).get(key)) for name in ("growing", "training"))
        ratios.append(_decimal(growing / training, ".3g") if growing is not None and training else "-")
    if any(ratio != "-" for ratio in ratios):
        rows.append(("growing / training", *ratios))
    headers = ("phase", "seconds", "CPU seconds", "FLOPs", "joules")
    return Grid(headers, tuple(rows), frozenset(headers[1:]))


def _result(event: Event) -> str:
    scores: list[str] = []
    for key, when in (("test_before_fit", "before the final fit"), ("test_after_fit", "after it")):
        metrics: object = event.get(key)
        if isinstance(metrics, dict):
            found = cast("dict[str, object]", metrics)
            if "accuracy" in found:
                scores.append(f"{_decimal(found['accuracy'], '.2%')} correct {when}")
            else:
                scores.append(f"loss {_decimal(found.get('loss'), '.4g')} {when}")
    seconds, growing = (_decimal(event.get(key), ".1f") for key in ("seconds", "seconds_growing"))
    size = f"{_count(event.get('parameters'))} parameters, {_count(event.get('macs'))} macs"
    tested = f"test: {', '.join(scores)}" if scores else ""
    dead, unreached = event.get("dead_units"), ""
    if _countable(dead) and dead > 0:
        unreached = f"{_count(dead)} dead {'unit' if dead == 1 else 'units'}, which no gradient reaches"
    return "\n".join(filter(None, (tested, f"{size}, {seconds} seconds, {growing} of them growing", unreached)))


def _countable(value: object) -> TypeGuard[int]:
    return type(value) is int and abs(value) < HUGE


def _count(value: object) -> str:
    return f"{value:,}" if _countable(value) else "-"


def _decimal(value: object, form: str) -> str:
    found = number(value)
    return "-" if found is None else format(found, form)


# -- a history --------------------------------------------------------------------------------------------------------


def history_log(graph: Graph) -> list[Event]:
    """Each step of a graph's history, with the costs before and after where the history can be run again."""
    if graph.history is None:
        return []
    found: list[Event] = [{"step": k + 1, **step_data(step)} for k, step in enumerate(graph.history.steps)]
    costs = graph.history.base.costs()
    nodes = max(len(graph.nodes), len(graph.history.base.nodes))
    if len(found) * nodes > MAX_CHECKED or not all(map(replayable, graph.history.steps)):
        return found  # as loading has said, it cannot be run again
    for event, done in zip(found, rewrites(graph), strict=True):
        after = done.graph.costs()
        event["cost"] = {
            "parameters": [costs.parameters, after.parameters],
            "macs": [costs.macs, after.macs],
            "preserves": str(done.preserves),
        }
        costs = after
    return found


def history_page(graph: Graph) -> Iterator[str | Grid]:
    """What `growir log` prints of a document or network."""
    steps = history_log(graph)
    if not steps:
        yield f"{cut(graph.name)}: has not grown"
        return
    yield f"{cut(graph.name)}: {len(steps)} {'step' if len(steps) == 1 else 'steps'}"
    headers = ("step", "growth", "created", "preserves", "parameters", "added", "macs")
    rows: list[tuple[str, ...]] = []
    for event in steps:
        cost: Mapping[str, Any] = event.get("cost", {})
        numbers: Sequence[str] = ("-", "-", "-")
        if cost:
            before, after = cost["parameters"]
            numbers = (f"{after:,}", f"{after - before:+,}", f"{cost['macs'][1]:,}")
        created = some([str(name) for name in event["created"]], 3)
        rows.append((str(event["step"]), describe_step(event), created, str(cost.get("preserves", "-")), *numbers))
    yield Grid(headers, tuple(rows), frozenset({"step", "parameters", "added", "macs"}))
