"""What grew, when, why, at what gain and cost: from a run's events, or from a graph's history."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from growir.columns import Grid, wrapped
from growir.document import step_data
from growir.errors import cut
from growir.graph import Graph
from growir.replay import MAX_CHECKED, replayable, rewrites
from growir.runs.reading import EVENTS, Grown, RunLog
from growir.runs.records import Compared, Finished, Fitted, Point, Selected, Sized, Timed
from growir.runs.values import Metrics
from growir.runs.words import (
    GAIN,
    PROBATION,
    TRIMMED,
    amount,
    decimal,
    describe_step,
    end_text,
    selection_part,
    skipped_text,
    what_grew,
)
from growir.show import MAX_LINE, si_text, some

# -- as text ----------------------------------------------------------------------------------------------------------


def run_page(log: RunLog) -> Iterator[str | Grid]:
    """What `growir log` prints of a run before its plot."""
    task = ""
    if log.started is not None and log.started.task is not None:
        start = log.started
        begins = f", starting at {amount(start.parameters)} parameters" if start.parameters is not None else ""
        task = f"\n{cut(start.task)}, {amount(start.samples)} samples{begins}"
    yield f"{log.name}: {log.state}{task}"
    if log.inputs is not None:
        tried = ", ".join(f"{decimal(entry.loss, '.4f')} with {amount(entry.inputs)}" for entry in log.inputs.tried)
        yield f"reads {amount(log.inputs.inputs)} inputs: loss after a short fit {tried or '-'}"
    if log.growths:
        yield from _growth_grids(log)
        said = f"{wrapped(selection_part(log.started))}\n{wrapped(GAIN)}"
        yield f"{said}\nmacs are the multiply-accumulates for one sample."
        if any(grown.growth.probation for grown in log.growths):
            yield wrapped(PROBATION)
        if any(grown.growth.trims for grown in log.growths):
            yield wrapped(TRIMMED)
    else:
        yield "no growths yet" if not log.reason else "no growths"
    if log.ends:
        ends = log.ends.items()
        yield "\n".join(wrapped(f"growth of {cut(name)} ended: {end_text(e.reason or '?', e.why)}") for name, e in ends)
    elif log.reason:
        yield wrapped(f"growth ended: {end_text(log.reason, log.why)}")
    for event in log.skipped:
        of = f" ({cut(event.branch)})" if event.branch is not None else ""
        yield wrapped(f"{skipped_text(event)}{of}")
    yield from _contest(log)
    yield from _sizes(log)
    if log.finished is not None:
        yield _result(log.finished)
        if log.finished.phases:
            yield _phase_grid(log.finished.phases)


def left_out(log: RunLog) -> Iterator[str]:
    """Which lines could not be read, if any."""
    if log.unreadable:
        which, one = some([str(line) for line in log.unreadable]), len(log.unreadable) == 1
        holds = "it holds" if one else "they hold"
        yield f"{'line' if one else 'lines'} {which} of {EVENTS} left out: {holds} no event"


_CHOSEN = ("step", "growth", "best of", "predicted gain", "measured gain")
_BECAME = ("step", "parameters", "added", "macs", "train loss", "selection loss", "seconds")


def _growth_grids(log: RunLog) -> Iterator[Grid]:
    """What grew and why; and what the network became by it, with the losses after the training that followed."""
    chosen, became = list[tuple[str, ...]](), list[tuple[str, ...]]()
    # Of runs of earlier versions, branches start from the run's own network unless they say otherwise.
    start = log.started.parameters if log.started is not None else None
    sizes: dict[str | None, int | None] = {grown.growth.branch: start for grown in log.growths}
    sizes |= {branch: begun.parameters for branch, begun in log.starts.items()}
    for grown in log.growths:
        growth, trained = grown.growth, grown.trained
        after, before = growth.parameters, growth.parameters_before
        before = sizes.get(growth.branch) if before is None else before
        added = f"{after - before:+,}" if after is not None and before is not None else "-"
        if grown.undone is None:
            sizes[growth.branch] = after
        key = ((cut(growth.branch or "-"),) if log.branched else ()) + (amount(growth.step),)
        gains = [decimal(gain, ".4f") for gain in (growth.predicted_gain, growth.measured_gain)]
        candidates = "" if growth.candidates == 1 else amount(growth.candidates)
        chosen.append((*key, growth_text(grown), candidates, *gains))
        losses = (trained.train_loss, trained.selection_loss) if trained is not None else (None, None)
        spent = (*(decimal(loss, ".4f") for loss in losses), decimal(growth.seconds, ".2f"))
        became.append((*key, amount(after), added, amount(growth.macs), *spent))
    for headers, rows in ((_CHOSEN, chosen), (_BECAME, became)):
        named = ("branch", *headers) if log.branched else headers
        yield Grid(named, tuple(rows), frozenset(headers) - {"growth"})


def growth_text(grown: Grown) -> str:
    """A growth in a few words, and whether it was taken back."""
    probation = ", on probation" if grown.growth.probation else ""
    undone = "" if grown.taken_back is None else f", taken back ({grown.taken_back})"
    trimmed = ", trimmed" if grown.growth.trims else ""
    return f"{what_grew(grown.growth.what)}{probation}{trimmed}{undone}"


def _contest(log: RunLog) -> Iterator[str | Grid]:
    """What the branches came to, and which was chosen."""
    if not log.fitted and log.selected is None:
        return
    chosen = log.selected.branch if log.selected is not None else None
    ends = [fitted for fitted in log.fitted if not fitted.trial]
    branches = {fitted.branch: _branch_row(fitted, fitted.selection or {}) for fitted in ends}
    for entry in log.selected.tried if log.selected is not None else ():
        scores = {"loss": entry.loss, "loss_error": entry.loss_error}
        branches[entry.branch] = _branch_row(entry, scores, branches.get(entry.branch))
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
    if log.selected is not None:
        yield selection_text(log.selected)


_TRIED = ("selection loss", "standard error", "above lowest", "error")


def _sizes(log: RunLog) -> Iterator[str | Grid]:
    """The loss after a fit against parameters, and the size that was chosen; then against the length of the fit."""
    tried = [
        Point(
            branch=each.branch, step=each.step, parameters=each.parameters, loss=each.loss, loss_error=each.loss_error
        )
        for each in log.fitted
        if each.trial
    ]
    points = log.sized.points if log.sized is not None else tried
    if points:
        named = any(point.branch is not None for point in points)
        keys = [(cut(p.branch or "-"),) * named + (amount(p.step), amount(p.parameters)) for p in points]
        yield _tried_grid((*("branch",) * named, "step", "parameters"), keys, points)
    if log.sized is not None:
        yield wrapped(sized_text(log.sized))
    if log.timed is not None:
        yield _tried_grid(("epochs",), [(amount(point.epochs),) for point in log.timed.points], log.timed.points)
        yield wrapped(timed_text(log.timed))


def _tried_grid(names: Sequence[str], keys: Sequence[tuple[str, ...]], points: Sequence[Point]) -> Grid:
    """Trials as a table: what tells them apart, and what they came to."""
    rows: list[tuple[str, ...]] = []
    for key, point in zip(keys, points, strict=True):
        numbers = (point.loss, point.loss_error, point.behind, point.behind_error)
        rows.append((*key, *(decimal(number, ".4f") for number in numbers), "chosen" if point.chosen else ""))
    return Grid((*names, *_TRIED, ""), tuple(rows), frozenset((*names, *_TRIED)) - {"branch"})


def timed_text(event: Timed) -> str:
    """How long the final fit is."""
    lengths = [amount(point.epochs) for point in event.points]
    return (
        f"Of fits of {', '.join(lengths[:-1])} and {lengths[-1]} epochs, {amount(event.epochs)} leaves the lowest loss."
    )


def sized_text(event: Sized) -> str:
    """Which size was chosen and why, with the numbers that the rule compared."""
    chosen = next((point for point in event.points if point.chosen), None)
    size = f"{amount(event.parameters)} parameters"
    if chosen is None or len(event.points) == 1:
        return f"The network of {size} goes on."
    if not chosen.behind:
        return f"Of {len(event.points)} sizes the loss after a fit is lowest with {size}: that network goes on."
    lowest = min(event.points, key=lambda point: math.inf if point.loss is None else point.loss)
    above, error = decimal(chosen.behind, ".2g"), decimal(chosen.behind_error, ".2g")
    return (
        f"After a fit, the loss is lowest with {amount(lowest.parameters)} parameters. With {size} it is higher by "
        f"{above}, which is within the standard error of this difference, {error}: the smaller network goes on."
    )


def selection_text(event: Selected) -> str:
    """Which branch was chosen and why, with the numbers that the rule compared; runs of earlier versions have none."""
    chosen = cut(event.branch or "-")
    if not event.compared:
        return wrapped(f"chosen: {chosen}{f': {cut(event.why, MAX_LINE)}' if event.why else ''}")
    said = [_comparison_text(each, event.significance) for each in event.compared]
    return wrapped(" ".join([*said, f"The network of {chosen} is chosen."]))


def _comparison_text(found: Compared, allowed: float | None) -> str:
    """What the rule made of two branches: why the one that comes later is taken, or is not."""
    later, earlier = cut(found.branch or "-"), cut(found.against or "-")
    gain, error = found.gain, decimal(found.gain_error, ".2g")
    if gain is None:
        return f"What {later} gains over {earlier} is not recorded."
    if gain <= 0:
        by = f"higher than that of {earlier} by {-gain:.2g} (standard error {error})" if gain else f"that of {earlier}"
        return f"On the selection part the loss of {later} is {by}, so {earlier} stays ahead."
    lower = f"is lower than that of {earlier} by {gain:.2g} (standard error {error})"
    by = f"On the selection part the loss of {later} {lower}"
    limit = decimal(allowed, "g")
    chance = "-" if found.p is None else "below 0.0001" if found.p < 1e-4 else f"{found.p:.3g}"
    if found.better:
        return f"{by}. Chance does that with probability {chance}, less than {limit}, so {later} is ahead."
    return (
        f"{by}. Chance does that with probability {chance}, which has to be less than {limit} for {later} to take the "
        f"place of {earlier}, the simpler strategy."
    )


def _branch_row(event: Fitted, scores: Metrics, known: Sequence[str] | None = None) -> list[str]:
    """The cells of a branch; what is not measured stays as it was known before."""
    cells = [
        amount(event.parameters),
        decimal(scores.get("loss"), ".4f"),
        decimal(scores.get("loss_error"), ".4f"),
        decimal(scores.get("accuracy"), ".2%"),
        decimal(event.seconds, ".1f"),
    ]
    return [old if new == "-" else new for new, old in zip(cells, known or cells, strict=True)]


_COSTS = ("seconds", "cpu_seconds", "flops", "joules")


def _phase_grid(phases: Mapping[str, Metrics]) -> Grid:
    """What each phase cost, and what growing costs beside training."""
    rows: list[tuple[str, ...]] = []
    for name, cost in phases.items():
        seconds, cpu, flops, joules = (cost.get(key) for key in _COSTS)
        times = (decimal(seconds, ".1f"), decimal(cpu, ".1f"))
        rows.append((cut(name), *times, "-" if flops is None else si_text(flops), decimal(joules, ",.1f")))
    ratios: list[str] = []
    for key in _COSTS:
        growing, training = (phases.get(name, {}).get(key) for name in ("growing", "training"))
        ratios.append(decimal(growing / training, ".3g") if growing is not None and training else "-")
    if any(ratio != "-" for ratio in ratios):
        rows.append(("growing / training", *ratios))
    headers = ("phase", "seconds", "CPU seconds", "FLOPs", "joules")
    return Grid(headers, tuple(rows), frozenset(headers[1:]))


def _result(event: Finished) -> str:
    scores: list[str] = []
    for metrics, when in ((event.test_before_fit, "before the final fit"), (event.test_after_fit, "after it")):
        if metrics is None:
            continue
        if "accuracy" in metrics:
            scores.append(f"{decimal(metrics['accuracy'], '.2%')} correct {when}")
        else:
            scores.append(f"loss {decimal(metrics.get('loss'), '.4g')} {when}")
    seconds, growing = (decimal(value, ".1f") for value in (event.seconds, event.seconds_growing))
    size = f"{amount(event.parameters)} parameters, {amount(event.macs)} macs"
    tested = f"test: {', '.join(scores)}" if scores else ""
    dead, unreached = event.dead_units or 0, ""
    if dead > 0:
        unreached = f"{amount(dead)} dead {'unit' if dead == 1 else 'units'}, which no gradient reaches"
    return "\n".join(filter(None, (tested, f"{size}, {seconds} seconds, {growing} of them growing", unreached)))


# -- a history --------------------------------------------------------------------------------------------------------


def history_log(graph: Graph) -> list[dict[str, Any]]:
    """Each step of a graph's history, with the costs before and after where the history can be run again."""
    if graph.history is None:
        return []
    found: list[dict[str, Any]] = [{"step": k + 1, **step_data(step)} for k, step in enumerate(graph.history.steps)]
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
