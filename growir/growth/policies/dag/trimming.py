"""Moves that make a network smaller: an edge that goes, or the neurons of a state that are missed least.

Each is measured like those that make it larger, on the part that selects and by the rewritten graph. What would not
raise the loss there by more than chance would, by the test that growths have to pass, goes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from growir.errors import PassRefused
from growir.growth.budget import Budget
from growir.growth.loss import certain, mean_and_error
from growir.growth.measure.section import constants_of
from growir.growth.policies.dag.eliminating import eliminated, fed
from growir.growth.policies.dag.measuring import Measured
from growir.growth.policies.dag.states import Edge, StateView, fed_by, widenable
from growir.growth.policy import Candidate, Score, Trimmed
from growir.passes import Prune, RemoveEdge, Update
from growir.passes import Sequence as Steps
from growir.rewrite import Pass, Rewrite

SHARES = (2, 4, 8)  # a half, a quarter and an eighth of a state's neurons are tried
Shifts = Mapping[str, torch.Tensor]


@dataclass(frozen=True, eq=False, kw_only=True)
class Trim(Score):
    """What could go, and what is left of the loss without it.

    Attributes:
        place: The state that it is of, or that goes with it, else the edge that it is: of one place one thing goes.
        step: The rewrite.
        shifts: What is added to the weights of what stays, by key.
        needless: Whether the network does as well without it.
    """

    place: str
    step: Pass
    shifts: Shifts
    needless: bool


def trimmed(measured: Measured, budget: Budget, rate: float) -> Trimmed:
    """All that could go, and what of it goes together.

    What costs least goes first, of each state the largest share that is needless; then smaller ones.

    Args:
        measured: The network.
        budget: Of the run.
        rate: The probability of error that a growth may have.
    """
    scores = [_scored(measured, budget, place, step, shifts, rate) for place, step, shifts in _parts(measured, budget)]
    needless = sorted((s for s in scores if s.needless), key=lambda s: s.candidate.cost.parameters)
    largest = {id(next(s for s in needless if s.place == place)) for place in {s.place for s in needless}}
    chosen: list[Trim] = []
    for score in sorted(needless, key=lambda s: (id(s) not in largest, -s.gain)):
        together = [*chosen, score]
        if score.place not in {s.place for s in chosen} and _spared(measured, together, rate):
            chosen = together
    return Trimmed(scores, chosen, _built(chosen) if chosen else None)


def notes_of(scores: Sequence[Trim], chosen: Sequence[Trim]) -> Mapping[str, Any]:
    """The notes of a growth that only trims: everything that could have gone."""

    def noted(score: Trim) -> Mapping[str, Any]:
        outcome = "chosen" if score in chosen else "needless" if score.needless else "needed"
        gain, error = (x if x is not None and math.isfinite(x) else None for x in (score.gain, score.error))
        named = {"name": score.candidate.name, "parameters": score.candidate.cost.parameters}
        return {**named, "gain": gain, "error": error, "outcome": outcome}

    return {"trimmed": list(map(noted, scores))}


def _parts(measured: Measured, budget: Budget) -> Iterator[tuple[str, Pass, Shifts]]:
    """What could go: where, by which rewrite, and what is added to what stays."""
    graph = budget.graph
    for state in measured.states:
        for edge in state.moving:
            if state.post is None or len(state.edges) > 1:  # a hidden state goes with what it feeds
                step = _removal(budget, state, edge)
                if step is not None:
                    ((_, shifts),) = eliminated([fed(measured, state, [edge.name], 1)], [1])
                    yield _place(measured.states, edge), step, shifts
    for state in measured.states:
        readers = _readers(measured.states, state)
        if state.post is not None and readers and widenable(graph, measured.states, state) and not state.frozen:
            counts = sorted({max(1, state.width // share) for share in SHARES if state.width > 1})
            reading = [fed(measured, target, edges, state.width) for target, edges in readers]
            for gone, shifts in eliminated(reading, counts):
                yield state.node, Prune(node=state.post, channels=gone), shifts


def _place(states: Sequence[StateView], edge: Edge) -> str:
    """Where an edge's removal belongs: to the state that goes with it, if nothing else reads that."""
    read = (state.node for state in states if state.post == edge.value and len(fed_by(states, edge.value)) == 1)
    return next(read, edge.name)


def _readers(states: Sequence[StateView], state: StateView) -> list[tuple[StateView, list[str]]]:
    """The states that read one, each with the edges it does it by; none where one of them is frozen."""
    found: dict[str, tuple[StateView, list[str]]] = {}
    for target, edge in fed_by(states, state.post or state.node):
        if edge not in target.moving:
            return []
        found.setdefault(target.node, (target, []))[1].append(edge.name)
    return list(found.values())


def _removal(budget: Budget, state: StateView, edge: Edge) -> Pass | None:
    """The removal of an edge, named by the value that it comes from where that says which; None if it cannot go.

    What the data alone decides has to stay: it is what later growths read. An edge whose bias only a new node could
    hold stays too.
    """
    constant = constants_of(budget.graph)
    for source in (edge.value, edge.name):
        step = RemoveEdge(source=source, target=state.node)
        try:
            done = budget.rewritten(step)
        except PassRefused:
            continue
        stays = set(done.graph.by_name) | {entry.name for entry in done.graph.inputs}
        whole = edge.name not in stays and not done.created
        return step if whole and stays.issuperset(constant) else None
    return None


def _scored(measured: Measured, budget: Budget, place: str, step: Pass, shifts: Shifts, rate: float) -> Trim:
    done = budget.rewritten(step)
    gain, error = mean_and_error(measured.losses - _losses(measured, done, shifts))
    name = f"{step.name} {step.model_dump_json(exclude_defaults=True)}"
    candidate, needless = Candidate(name, budget.cost(step), step), _needless(gain, error, rate)
    return Trim(candidate, gain, error, place=place, step=step, shifts=shifts, needless=needless)


def _spared(measured: Measured, chosen: Sequence[Trim], rate: float) -> bool:
    """Whether the network does as well without several things."""
    if len(chosen) == 1:
        return chosen[0].needless
    try:
        done = Steps(passes=_steps(chosen)).rewrite(measured.session.graph)
    except PassRefused:  # one of them has taken the other with it
        return False
    return _needless(*mean_and_error(measured.losses - _losses(measured, done, _shifts(chosen))), rate)


def _needless(gain: float, error: float, rate: float) -> bool:
    """Whether what was lost is no more than chance would take: what went would not pass as a growth."""
    return gain >= 0 or (math.isfinite(gain) and not certain(-gain, error, rate))


def _losses(measured: Measured, done: Rewrite, shifts: Shifts) -> torch.Tensor:
    session, part = measured.session, measured.gr
    session.meter.count(2.0 * done.graph.costs().macs * len(part.targets))
    return session.preview(done, {}, shifts, part.values, part.targets)


def _steps(chosen: Sequence[Trim]) -> tuple[Pass, ...]:
    """Neurons first, while all states are there, then edges."""
    return tuple(score.step for score in sorted(chosen, key=lambda score: isinstance(score.step, RemoveEdge)))


def _shifts(chosen: Sequence[Trim]) -> Shifts:
    total: dict[str, torch.Tensor] = {}
    for score in chosen:
        for key, shift in score.shifts.items():
            total[key] = total[key] + shift if key in total else shift
    return total


def _built(chosen: Sequence[Trim]) -> Pass:
    shifts = {key: shift.numpy() for key, shift in _shifts(chosen).items()}
    moved = (Update(parameters=tuple(shifts), values=shifts),) if shifts else ()
    return Steps(passes=(*moved, *_steps(chosen)))
