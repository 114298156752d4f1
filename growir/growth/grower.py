"""Growth in a training loop of one's own: the loop trains, and asks after each epoch whether the network grows now.

    grower = Grower(module, optimizer, "cross_entropy", Data.from_dataset(dataset), policy="random", schedule="every")
    for epoch in range(60):
        for x, y in loader:
            ...  # a step of optimizer on grower.module
        grower.step()

What it decides is what the engine decides: the same policies, schedules, budgets and records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn

from growir.data.parts import Data
from growir.errors import RunError
from growir.growth.api import Policies, schedule_section
from growir.growth.checkpointing import log_of, of_log
from growir.growth.config import parse_run
from growir.growth.engine import Engine
from growir.growth.given import given_policy
from growir.growth.objective import as_objective
from growir.growth.observer import Event, Observer
from growir.growth.policy import Judges, Remembers
from growir.growth.problem import Problem
from growir.growth.schedule import Done, Entry, Grow, Schedule, Train
from growir.growth.session import Session
from growir.live.growing import network_of
from growir.live.modules import find


class Grower:
    """Grows a module that somebody else trains.

    Args:
        module: A module that growir made (`Network.to_torch`).
        optimizer: What trains it. Each growth changes it in place, as `live.grow` does.
        objective: "cross_entropy", "mse", or a function (outputs, target) -> (n,) losses.
        data: What growth measures on, `train` and `select`; the loop may train on anything.
        policy: A policy's name, its settings, or a policy itself.
        schedule: A schedule's name, its settings, or a schedule itself. An epoch is a call of `step`.
        budget: As in a run file's [budget].
        seed: Everything random is a function of it.

    Attributes:
        events: The records of what happened, as a run's.

    Raises:
        RunError: A setting is wrong; or the policy takes growths back, which only a run can, since the loop holds the
            optimizer.
        ModelError: The module is none that growir made.
    """

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        objective: Any,
        data: Data,
        policy: Policies | Sequence[Policies],
        schedule: str | Mapping[str, Any] | Schedule = "every",
        *,
        budget: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        section, policies = given_policy(policy)
        given = {"policy": section, "schedule": schedule_section(schedule)}
        config = parse_run({**given, "budget": budget or {}, "seed": seed}, "Grower", policies.known)
        live, network = find(module), network_of(module)
        problem = Problem.of_data(data, as_objective(objective))
        session = Session(network, problem, config, of=(live.module, optimizer))
        chosen = schedule if isinstance(schedule, Schedule) else None
        self._engine = Engine(session, Observer(), network, policies=policies, schedule=chosen)
        branches = self._engine.branches
        if len(branches) > 1 or isinstance(branches[0].policy, Judges):
            raise RunError(
                f"Grower: {branches[0].policy.name} takes growths back, which only a run can do: growir.grow"
            )
        if config.schedule.trials:
            raise RunError("Grower: [schedule] trials asks for trial fits, which only a run can do: growir.grow")
        self._epochs = 0

    @property
    def module(self) -> fx.GraphModule:
        """The module as it is now, to be trained."""
        return self._engine.session.module

    @property
    def events(self) -> list[Event]:
        """What happened so far."""
        return self._engine.events

    @property
    def ended(self) -> str | None:
        """Why growth is over; None while it is not."""
        return self._engine.progress.ended

    def step(self) -> bool:
        """Say that an epoch is over. Returns whether the network has grown, so that `module` is another one.

        Raises:
            RunError: The policy does what it must not.
            DataError: The data does not fit the network.
        """
        engine = self._engine
        if engine.progress.ended is not None:
            return False
        self._epochs += 1
        phase = engine.schedule.next(engine.progress.log)
        if isinstance(phase, Train):
            if self._epochs < (phase.epochs or 1):
                return False
            standing = engine.session.standing()
            metrics = engine.tell_of_training(standing, standing.metrics["train"]["loss"])
            engine.progress = replace(
                engine.progress,
                log=engine.progress.noting(Entry("trained", self._epochs, metrics)),
                metrics=standing.metrics,
            )
            self._epochs = 0
        before = engine.session.module
        while engine.progress.ended is None:
            phase = engine.schedule.next(engine.progress.log)
            if isinstance(phase, Train):
                break
            if engine.trim():
                continue
            if isinstance(phase, Grow):
                engine.grow()
            elif isinstance(phase, Done):
                engine.end(phase.reason)
            else:
                raise RunError("Grower: the schedule asks for a trial fit, which only a run can do: growir.grow")
        return engine.session.module is not before

    def state_dict(self) -> dict[str, Any]:
        """What going on needs besides the module and its optimizer, as JSON values (and a policy's own)."""
        progress, policy = self._engine.progress, self._engine.branches[0].policy
        return {
            "log": of_log(progress.log),
            "growths": progress.step,
            "ended": progress.ended,
            "epochs": self._epochs,
            "policy": dict(policy.state()) if isinstance(policy, Remembers) else {},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave. Raises KeyError, TypeError or ValueError if it is something else."""
        engine, policy = self._engine, self._engine.branches[0].policy
        engine.progress = replace(
            engine.progress, log=log_of(state["log"]), step=int(state["growths"]), ended=state["ended"]
        )
        self._epochs = int(state["epochs"])
        if isinstance(policy, Remembers):
            policy.restored(state["policy"])
