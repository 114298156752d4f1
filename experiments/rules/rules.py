"""Which of the networks that a run has tried should go on: rules beside each other, by what each ends at.

    python -m experiments.rules.rules --out rules.jsonl --seeds 0-4
    python -m experiments.rules.table rules.jsonl

Of each set (`benchmarks/tabular.py`) and seed one run grows by both strategies, and another by "whole" where any
improvement lets a growth stay (significance 1). What they tried, one network for each doubling, is all that a rule may
choose from, by losses on the selection part after the trial fits. Each network that some rule chooses is then fitted on
all training data, by a final fit of the usual length that starts as its trial did, and measured on test data, which no
rule sees. The rules are

    one error      the smallest within one standard error of the best, of both strategies: growir's default
    two errors     the same with two standard errors
    lowest         the lowest loss
    branches       the last network of "widen", unless that of "whole" is better by a one-sided test at 5 %
    widen, whole   one error, of one strategy alone
    whole, any     one error, of the run in which any improvement lets a growth stay

A line of JSON is written for each set, seed and rule. What is there already is not run again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import growir
from benchmarks.tabular import TABLES, parts
from experiments.lines import add, read
from experiments.yardsticks.run import seed_range
from growir.growth.contest import Trial, contest
from growir.growth.loss import mean_and_error
from growir.growth.observer import Observer
from growir.growth.progress import Progress
from growir.growth.schedule import Train
from growir.growth.session import Session
from growir.growth.sizing import sized
from growir.growth.training import Keeping, train_final

Tried = Sequence[Trial]


def lowest(tried: Tried) -> Trial:
    """The one with the lowest loss."""
    return min(tried, key=lambda trial: (trial.loss, trial.parameters))


def within(tried: Tried, errors: float) -> Trial:
    """The smallest whose loss is within so many standard errors of the lowest."""
    best = lowest(tried)

    def near(trial: Trial) -> bool:
        loss, error = mean_and_error(trial.losses - best.losses)
        return loss <= errors * error

    return min(filter(near, tried), key=lambda trial: trial.parameters)


def of(tried: Tried, branch: str) -> Tried:
    """Those of one branch."""
    return [trial for trial in tried if trial.name == branch]


RULES: Mapping[str, Callable[[Tried], Trial]] = {
    "one error": lambda tried: sized(tried).chosen,
    "two errors": lambda tried: within(tried, 2.0),
    "lowest": lowest,
    "branches": lambda tried: contest([of(tried, "widen")[-1], of(tried, "whole")[-1]])[0],
    "widen": lambda tried: sized(of(tried, "widen")).chosen,
    "whole": lambda tried: sized(of(tried, "whole")).chosen,
}
ANY = "whole, any"
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "both": {"name": "dag"},
    ANY: {"name": "dag", "strategy": "whole", "significance": 1.0},
}


def grown(arrays: Mapping[str, Any], task: str, policy: Mapping[str, Any], seed: int) -> tuple[Session, Tried]:
    """A run's session, and all networks that it tried; lengths are not."""
    kept: list[tuple[Session, Progress]] = []

    def checkpoint(session: Session, progress: Progress) -> None:
        kept[:] = [(session, progress)]

    growir.grow(
        None,
        arrays,
        task=task,
        policy=policy,
        schedule={"name": "alternating", "lengths": False},
        seed=seed,
        threads=1,
        observer=Observer(checkpoint=checkpoint),
    )
    session, progress = kept[0]
    return session, progress.trials


def fitted(session: Session, trial: Trial) -> Mapping[str, float]:
    """Scores on the test data after a final fit of a network that was tried."""
    session.begin(trial.network)
    train_final(session, Train(fit="final"), Keeping(), trial.keep)
    assert session.data.test is not None
    return session.measure(session.data.test).metrics


def lines(table: str, seed: int) -> list[dict[str, Any]]:
    """What each rule ends at, of one set and seed."""
    data, classes = parts(TABLES[table], seed), TABLES[table].classes
    found: list[dict[str, Any]] = []
    for run, policy in SETTINGS.items():
        began = time.process_time()
        session, tried = grown(data._asdict(), "classification" if classes else "regression", policy, seed)
        rules = RULES if run == "both" else {ANY: RULES["one error"]}
        chosen = {rule: choose(tried) for rule, choose in rules.items()}
        ends = {(trial.name, trial.step): fitted(session, trial) for trial in chosen.values()}
        cpu = time.process_time() - began
        for rule, trial in chosen.items():
            test = ends[trial.name, trial.step]
            found.append(
                {
                    "set": table,
                    "seed": seed,
                    "rule": rule,
                    "branch": trial.name,
                    "parameters": trial.parameters,
                    "selection": trial.loss,
                    "test": test["loss"],
                    "accuracy": test.get("accuracy"),
                    "tried": len(tried),
                    "cpu": round(cpu, 2),
                }
            )
    return found


def main(given: Sequence[str] | None = None) -> None:
    """Run what is asked for and is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("rules.jsonl"))
    parser.add_argument("--sets", nargs="*", choices=list(TABLES), default=list(TABLES))
    parser.add_argument("--seeds", type=seed_range, default=(0, 4), help="the first and the last, as in 0-4")
    options = parser.parse_args(given)
    torch.set_num_threads(1)
    low, high = options.seeds
    done = {(line["set"], line["seed"]) for line in read(options.out)}
    for seed in range(low, high + 1):
        for table in options.sets:
            if (table, seed) in done:
                continue
            add(options.out, lines(table, seed))


if __name__ == "__main__":
    main()
