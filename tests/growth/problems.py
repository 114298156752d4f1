"""Small problems for growth tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray

from growir.data.memory import ArraySource
from growir.data.parts import Data, halves
from growir.data.source import Source
from growir.growth.budget import Budget
from growir.growth.config import RunConfig, parse_run
from growir.growth.data import check_data
from growir.growth.policies.dag.additions import Addition, addition
from growir.growth.policies.dag.policy import Dag
from growir.growth.policies.dag.scored import Scored
from growir.growth.policies.dag.settings import DagConfig
from growir.growth.policies.dag.states import states_of
from growir.growth.policy import Candidate
from growir.growth.problem import Problem
from growir.growth.running import first_network
from growir.growth.schedule import Train
from growir.growth.session import Session, resolved
from growir.growth.training import Keeping, Span, train_between, train_final
from growir.rewrite import Pass

Arrays = dict[str, NDArray[Any]]


def spirals(samples: int = 240, seed: int = 0, scale: float = 1.0) -> Arrays:
    """Two classes that no line separates: points inside and outside a ring."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(samples, 3)) * scale
    y = (np.linalg.norm(x, axis=1) > 1.5 * scale).astype(np.int64)
    cut = samples * 3 // 4
    return {"x_train": x[:cut], "y_train": y[:cut], "x_test": x[cut:], "y_test": y[cut:]}


def curve(samples: int = 240, seed: int = 0) -> Arrays:
    """A smooth function of four numbers, targets far from mean 0 and std 1."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, size=(samples, 4))
    y = 50 + 10 * np.stack([np.sin(3 * x[:, 0]) + x[:, 1], x[:, 2] * x[:, 3]], axis=1)
    cut = samples * 3 // 4
    return {"x_train": x[:cut], "y_train": y[:cut], "x_test": x[cut:], "y_test": y[cut:]}


def blobs(samples: int = 240, seed: int = 0, channels: str = "") -> Arrays:
    """Images of 8 x 8 with a bright or dark blob; the quarter it lies in is the class.

    Args:
        samples: Training and test images together.
        seed: Of all that is random.
        channels: "first" for (1, 8, 8), "last" for (8, 8, 3), else (8, 8).
    """
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, samples)
    high, wide = (np.where(half == 0, 2, 5) + rng.integers(-1, 2, samples) for half in (y // 2, y % 2))
    grid = np.arange(8)
    far = (grid[None, :, None] - high[:, None, None]) ** 2 + (grid[None, None, :] - wide[:, None, None]) ** 2
    sign = rng.choice([-1.0, 1.0], samples)[:, None, None]
    x = sign * np.exp(-far / 2) + 0.3 * rng.normal(size=far.shape)
    if channels == "first":
        x = x[:, None]
    elif channels == "last":
        x = x[..., None] * [1.0, -0.5, 2.0] + 0.1 * rng.normal(size=(*x.shape, 3))
    cut = samples * 3 // 4
    return {"x_train": x[:cut], "y_train": y[:cut], "x_test": x[cut:], "y_test": y[cut:]}


SMALL: dict[str, Any] = {
    "policy": {"name": "dag", "strategy": "whole", "neurons": 4},
    "train": {"epochs_between": 2, "epochs_final": 3, "batch_size": 32},
    "budget": {"parameters": 150, "steps": 4},
    "schedule": {"trials": 0.0},
}


def small_config(seed: int = 0, **sections: dict[str, Any]) -> RunConfig:
    """Settings of a run that takes a fraction of a second."""
    merged = {key: {**SMALL.get(key, {}), **sections.get(key, {})} for key in {*SMALL, *sections}}
    return parse_run({"name": "small", "seed": seed, **merged}, "test")


def small_session(arrays: Arrays, config: RunConfig | None = None) -> Session:
    """A session on the empty graph."""
    config = config or small_config()
    problem = small_problem(arrays, config)
    return Session(first_network(problem, resolved(config, problem)), problem, config)


def small_problem(arrays: Arrays, config: RunConfig | None = None) -> Problem:
    """The problem that arrays set."""
    config = config or small_config()
    return Problem.of_dataset(check_data(arrays, config.data, "test"))


# -- what tests do with a session -------------------------------------------------------------------------------------


def policy_of(session: Session) -> Dag:
    """The policy of a session's configuration."""
    return Dag(cast("DagConfig", session.config.policy))


def budget_of(session: Session, config: RunConfig | None = None) -> Budget:
    """What one growth may cost now, by the session's configuration or another one."""
    return Budget((config or session.config).budget, session.graph)


def proposed(session: Session, policy: Dag | None = None) -> list[Pass]:
    """The moves that the policy proposes."""
    found = (policy or policy_of(session)).propose(session, budget_of(session))
    return [candidate.part for candidate in found]


def scored(
    session: Session, moves: Iterable[Pass] | None = None, key: int = 4, policy: Dag | None = None
) -> list[Scored]:
    """What moves are worth, or all that are proposed; `key` keys random numbers."""
    policy, budget = policy or policy_of(session), budget_of(session)
    found = policy.propose(session, budget)
    if moves is not None:
        found = [Candidate(f"{k}", budget.cost(move), move) for k, move in enumerate(moves)]
    return policy.score(session, found, key)


def selected(session: Session, scores: Sequence[Scored], policy: Dag | None = None) -> Scored:
    """The one that the policy selects."""
    (choice,) = (policy or policy_of(session)).select(session, scores, budget_of(session))
    return choice


def added(session: Session, move: Pass) -> Addition:
    """What a move adds; its values decide nothing."""
    bare = move.model_copy(update={"values": {}})
    return addition(bare, bare.rewrite(session.graph), states_of(session.graph))


def apply(session: Session, choice: Scored) -> tuple[str, ...]:
    """Grow as the policy would; the names that were created."""
    return session.grow(policy_of(session).build(session, [choice])).created


def trained(session: Session, step: int) -> float:
    """Train as a run would after so many growths; the mean loss of the last epoch."""
    return train_between(session, Train(), (1, step), Span(), Keeping()).loss


def fitted(session: Session) -> float:
    """Fit as a run does at its end; the mean loss of the last epoch."""
    return train_final(session, Train(fit="final"), Keeping()).loss


def loss_on(session: Session, source: Source) -> float:
    """The mean loss."""
    return float(session.measure(source).losses.double().mean())


def values_of(session: Session, source: Source, names: Sequence[str] | None = None) -> list[torch.Tensor]:
    """Values that no training changes, by default those that the network begins with, for all samples of a source."""
    wanted = session.reading.prefix() if names is None else list(names)
    found, _ = session.reading.gathered(source, wanted, len(source))
    return [found[name] for name in wanted]


def select_of(session: Session) -> Source:
    """The part of the data that selects."""
    assert session.data.select is not None
    return session.data.select


def lose_weights(session: Session) -> None:
    """Make every weight NaN, as after training that diverged."""
    for parameter in session.learned.values():
        parameter.data.fill_(float("nan"))


class Parts(NamedTuple):
    """Which samples are fitted to, searched on, selected by, and trained on between growths."""

    opt: torch.Tensor
    ls: torch.Tensor
    gr: torch.Tensor
    between: torch.Tensor


def parts_of(samples: int, seed: int) -> Parts:
    """The parts of a run on so many samples."""
    data = Data.from_arrays(np.zeros((samples, 1)), np.zeros(samples)).cut(seed)
    sources = [source for source in (*halves(data.train), data.select, data.train) if isinstance(source, ArraySource)]
    return Parts(*(source.indices for source in sources))
