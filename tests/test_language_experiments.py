"""Language models at equal compute: what is text, what runs spend, what growth does, and what tables say."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from experiments.language import corpus as texts
from experiments.language.corpus import Corpus, corpus, is_held, sources
from experiments.language.run import RATES, SCALES, TUNING, main, tuned
from experiments.language.table import curve, saving, table
from experiments.language.training import ARMS, NEVER, PRESETS, Request, trained, unit_flops
from experiments.lines import read

TEXT = Corpus(torch.arange(4000).remainder(97).byte(), torch.arange(3000).remainder(97).byte(), (1, 1))


def test_the_text_is_split_by_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "test").mkdir()
    for k in range(60):
        (tmp_path / f"m{k:02}.py").write_text(f"x{k:02} = 1\n" * 90, encoding="ascii")
    (tmp_path / "test" / "left_out.py").write_text("x = 1\n" * 200, encoding="ascii")
    (tmp_path / "foreign.py").write_text("x = 'é'\n" * 200, encoding="utf-8")
    (tmp_path / "short.py").write_text("x\n", encoding="ascii")
    assert next(path.name for path in sources(tmp_path)) == "foreign.py"
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"stdlib": str(tmp_path), "purelib": str(tmp_path)})
    with pytest.raises(RuntimeError, match="bytes of Python sources lie in"):
        corpus()
    monkeypatch.setattr(texts, "LARGEST", 1000)
    found = corpus()
    held = sum(is_held(f"m{k:02}.py") for k in range(60))
    assert found.files == (60 - held, held)
    assert held > 0
    train = bytes(found.train.tolist()).decode()
    assert all((f"x{k:02} = 1" in train) != is_held(f"m{k:02}.py") for k in range(60))


def test_all_runs_spend_the_budget_and_small_nets_see_more_text() -> None:
    request = Request("tiny", "scratch", 0, 1.0, 8e-3, 0.64)
    budget = unit_flops(PRESETS["tiny"], request)
    lines = {arm: trained(request._replace(arm=arm), TEXT) for arm in ("scratch", "shallow", "depth", "both")}
    assert lines["scratch"]["steps"] == PRESETS["tiny"].steps
    for line in lines.values():
        step = line["flops"] / line["steps"]
        assert budget <= line["flops"] < budget + 2 * step
        assert math.isfinite(line["loss"])
    assert lines["shallow"]["tokens"] > lines["depth"]["tokens"] > lines["scratch"]["tokens"]
    for arm in ("depth", "both"):
        assert lines[arm]["parameters"] == lines["scratch"]["parameters"] > lines["shallow"]["parameters"]
        assert 0 < lines[arm]["growth_step"] < lines[arm]["steps"]


@pytest.mark.parametrize("arm", ["width", "depth, exact"])
def test_growth_that_keeps_the_function_changes_no_loss(arm: str) -> None:
    line = trained(Request("tiny", arm, 1, 1.0, 8e-3, 0.64), TEXT)
    assert line["after"] == pytest.approx(line["before"], abs=1e-4)
    again = trained(Request("tiny", arm, 1, 1.0, 8e-3, 0.64), TEXT)
    assert again["loss"] == line["loss"]


def test_settings_are_tuned_by_a_seed_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "lines.jsonl"
    asked: list[Request] = []

    def fake(request: Request, text: Corpus) -> dict[str, object]:
        asked.append(request)
        loss = 2 + abs(request.rate - 8e-3) + abs(request.scale - 0.32)
        return {**request._asdict(), "loss": loss, "cpu": 1.0, "tokens": 1e6, "parameters": 10}

    monkeypatch.setattr("experiments.language.run.trained", fake)
    monkeypatch.setattr("experiments.language.run.corpus", lambda packages: TEXT)
    given = ["--out", str(out), "--preset", "tiny", "--arms", "scratch", "depth"]
    with pytest.raises(SystemExit):
        main(given)
    assert "has no tuned rate for the large net; run with --tune first" in capsys.readouterr().err
    main([*given, "--tune"])
    assert {request.arm for request in asked} == {"scratch"}
    assert {request.seed for request in asked} == {TUNING}
    assert tuned(read(out), "tiny") == {"scratch": (8e-3, 0.32)}
    asked.clear()
    main([*given, "--units", "1", "2", "--seeds", "0-1"])
    assert len(asked) == 8
    assert {(request.rate, request.scale) for request in asked} == {(8e-3, 0.32)}
    asked.clear()
    main([*given, "--units", "1", "2", "--seeds", "0-1"])
    assert not asked
    assert "| scratch | 10 |" in "\n".join(table(read(out)))
    assert all(json.loads(row)["seed"] != TUNING for row in out.read_text().splitlines()[len(RATES) * len(SCALES) :])


def test_what_is_saved_is_read_off_the_other_curve() -> None:
    other = [(1.0, 2.0), (4.0, 1.0), (8.0, 0.9)]
    saved = saving(other, 1.0, 1.5)  # half way between 1 and 4 on the logarithm: 2
    assert saved is not None
    assert saved[0] == pytest.approx(0.5)
    assert saved[1]
    worse = saving(other, 4.0, 1.5)
    assert worse is not None
    assert worse[0] == pytest.approx(-1.0)
    beyond = saving(other, 8.0, 0.8)
    assert beyond is not None
    assert beyond[0] == pytest.approx(0.5)
    assert not beyond[1]
    assert saving(other[:1], 1.0, 1.5) is None
    assert saving([(1.0, 1.0), (2.0, 1.1)], 1.0, 0.5) is None
    found = {(arm, 1.0, 0): {"loss": loss} for arm, loss in (("scratch", 2.0), ("shallow", 1.5), ("depth", 1.0))}
    assert curve(found, NEVER, 0) == [(1.0, 1.5)]
    assert {arm for arm in ARMS if ARMS[arm].at is None} == set(NEVER)
