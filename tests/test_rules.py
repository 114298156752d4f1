"""Rules for which network goes on: what each chooses, and what the table makes of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from experiments.rules import rules, table
from growir.growth.contest import Trial
from growir.network import Network
from tests.growth.test_sizing import linear_network


def tried(branch: str, parameters: int, losses: list[float]) -> Trial:
    network: Network = linear_network(parameters - 1)
    return Trial(branch, network, torch.tensor(losses), parameters, 1, None)


# Behind the lowest by .095 ± .098, .3 ± .2 and 1 ± 0.
TRIED = [
    tried("widen", 9, [0.0, 0.0, 0.0, 0.0]),
    tried("widen", 5, [0.29, -0.1, 0.29, -0.1]),
    tried("whole", 3, [0.7, -0.1, 0.7, -0.1]),
    tried("whole", 2, [1.0, 1.0, 1.0, 1.0]),
]


@pytest.mark.parametrize(
    ("rule", "parameters"),
    [("one error", 5), ("two errors", 3), ("lowest", 9), ("branches", 5), ("widen", 5), ("whole", 3)],
)
def test_what_a_rule_chooses(rule: str, parameters: int) -> None:
    assert rules.RULES[rule](TRIED).parameters == parameters


def test_losses_are_shares_of_the_lowest() -> None:
    head = {"set": "iris", "parameters": 10}
    lines = [
        {**head, "seed": seed, "rule": rule, "test": seed * (2.0 if rule == "lowest" else 1.0)}
        for seed in (1, 2)
        for rule in table.NAMES
    ]
    shown = list(table.table(lines))
    assert "| iris | 2 | 1.000 (10) | 1.000 (10) | 2.000 (10)" in shown[2]
    assert "| lowest | +69.3 | times 1.00 |" in shown


@pytest.mark.slow
def test_a_run_gives_a_line_for_each_rule_and_is_not_run_again(tmp_path: Path) -> None:
    out = tmp_path / "rules.jsonl"
    rules.main(["--out", str(out), "--sets", "iris", "--seeds", "20"])
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["rule"] for line in lines] == [*rules.RULES, rules.ANY]
    assert all(line["tried"] > 2 and line["parameters"] > 3 for line in lines)
    rules.main(["--out", str(out), "--sets", "iris", "--seeds", "20"])
    assert len(out.read_text().splitlines()) == len(lines)
