"""`growir rewrite --plan`: training checkpoints as files, grown whole or not at all."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import growir as package
from growir import live
from tests.cli.command import flat, growir
from tests.live.test_planned_growth import Net, X, optimizer_of


@functools.cache
def plan() -> package.Plan:
    return package.plan(Net(4), Net(6), X)


def state() -> dict[str, Any]:
    torch.manual_seed(0)
    module = Net(4)
    optimizer = optimizer_of(module)
    module(X).square().mean().backward()
    optimizer.step()
    return {"model": module.state_dict(), "optimizer": optimizer.state_dict(), "step": 3}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.save(state(), tmp_path / "small.pt")
    (tmp_path / "plan.json").write_text(plan().model_dump_json(), encoding="utf-8")
    return tmp_path


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)


def test_one_file(folder: Path) -> None:
    out = folder / "large.pt"
    done = growir("rewrite", folder / "small.pt", "--plan", folder / "plan.json", "-o", out)
    assert (done.code, done.err) == (0, "")
    wanted, _ = live.grow_checkpoint(state(), plan())
    found = torch.load(out, weights_only=True)
    assert equal(found, wanted)
    for words in (
        "6 tensors filled, preserves exact",
        "carried unchanged: step",
        "note: optimizer: optimizer, Adam or AdamW",
        f"wrote {out}",
    ):
        assert words in flat(done.out)
    assert sorted(path.name for path in folder.iterdir()) == ["large.pt", "plan.json", "small.pt"]
    large = Net(6)
    large.load_state_dict(found["model"])
    optimizer_of(large).load_state_dict(found["optimizer"])
    small = Net(4)
    small.load_state_dict(state()["model"])
    torch.testing.assert_close(large(X), small(X))


def test_two_files(folder: Path) -> None:
    both = state()
    save_file(both["model"], folder / "model.safetensors", {"format": "pt"})
    torch.save(both["optimizer"], folder / "optimizer.pt")
    given = ("rewrite", folder / "model.safetensors", "--optimizer-file", folder / "optimizer.pt")
    done = growir(*given, "--plan", folder / "plan.json", "-o", folder / "large")
    assert (done.code, done.err) == (0, "")
    wanted, _ = live.grow_checkpoint(both, plan())
    assert equal(load_file(folder / "large" / "model.safetensors"), dict(wanted["model"]))
    assert equal(torch.load(folder / "large" / "optimizer.pt", weights_only=True), wanted["optimizer"])
    done = growir(*given, "--plan", folder / "plan.json", "-o", folder / "large")
    assert done.code == 2
    assert "is there already, and a checkpoint is not overwritten" in flat(done.err)
    weights = growir("rewrite", folder / "model.safetensors", "--plan", folder / "plan.json", "-o", folder / "w.pt")
    assert weights.code == 0
    assert equal(torch.load(folder / "w.pt", weights_only=True), dict(wanted["model"]))


def test_names_kinds_and_places_can_be_said(folder: Path) -> None:
    names = [[n for n, p in Net(4).named_parameters() if (p.ndim > 1) is many] for many in (True, False)]
    (folder / "names.json").write_text(json.dumps(names), encoding="utf-8")
    said = ("--weights", "model", "--optimizer", "optimizer", "--kind", "AdamW", "--names", folder / "names.json")
    given = ("rewrite", folder / "small.pt", "--plan", folder / "plan.json", "-o")
    done = growir(*given, folder / "large.pt", *said)
    assert (done.code, done.err) == (0, "")
    assert "note: optimizer: optimizer, AdamW" in done.out
    wanted, _ = live.grow_checkpoint(state(), plan())
    assert equal(torch.load(folder / "large.pt", weights_only=True), wanted)
    for option, value, words in (
        ("--kind", "AdamV", "torch.optim has no AdamV. Did you mean 'Adam"),
        ("--weights", "net", "there is no net in the checkpoint; it holds model, optimizer, step"),
        ("--names", folder / "plan.json", "must hold a list for each group of the optimizer"),
        ("--names", folder / "small.pt", "small.pt: byte "),
    ):
        done = growir(*given, folder / "other.pt", option, value)
        assert (done.code, done.out) == (2, "")
        assert words in flat(done.err)


class Code:
    """What weights_only does not read."""


def test_bad_files_are_one_message_and_nothing_is_written(folder: Path) -> None:
    whole = (folder / "small.pt").read_bytes()
    (folder / "cut.pt").write_bytes(whole[: len(whole) // 2])
    (folder / "cut.safetensors").write_bytes(whole[:100])
    (folder / "text.pt").write_text("hello", encoding="utf-8")
    torch.save({"model": Code()}, folder / "code.pt")
    torch.save([1, 2], folder / "list.pt")
    torch.save({"model": Net(5).state_dict()}, folder / "other.pt")
    state_ = state()
    state_["optimizer"]["param_groups"].pop()
    torch.save(state_, folder / "groups.pt")
    for name, text in (("old", '{"graph": 3}'), ("cut", plan().model_dump_json()[:99]), ("list", "[]")):
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
    cases = [
        ("cut.pt", "plan.json", "cut.pt: is no checkpoint that torch.load(weights_only=True) reads: "),
        ("cut.safetensors", "plan.json", "cut.safetensors: not a readable safetensors file"),
        ("text.pt", "plan.json", "text.pt: is no checkpoint that torch.load(weights_only=True) reads: "),
        ("code.pt", "plan.json", "nsupported"),
        ("list.pt", "plan.json", "list.pt: a checkpoint is a dict, but this is a list"),
        (".", "plan.json", "is a folder; a checkpoint is a file of torch.save or of safetensors"),
        ("none.pt", "plan.json", "none.pt: there is no such file"),
        ("other.pt", "plan.json", "the checkpoint is of another model than the plan: model is nearest"),
        ("groups.pt", "plan.json", "the optimizer has 2 parameters and no names for them, but the model has 6"),
        ("small.pt", "none.json", "none.json: No such file"),
        ("small.pt", "old.json", "old.json: "),
        ("small.pt", "cut.json", "cut.json: line 1, column"),
        ("small.pt", "list.json", "a plan is an object, as plan.model_dump_json() writes it"),
    ]
    for checkpoint, path, words in cases:
        done = growir("rewrite", folder / checkpoint, "--plan", folder / path, "-o", folder / "large.pt")
        assert (done.code, done.out) == (2, ""), done.out
        assert done.err.startswith("growir: error: ")
        assert words in flat(done.err), done.err
    done = growir("rewrite", folder / "small.pt", "--plan", folder / "plan.json", "-o", folder / "none" / "large.pt")
    assert "the folder" in done.err
    done = growir("rewrite", folder / "small.pt", "--plan", folder / "plan.json", "-o", folder / "large.safetensors")
    assert (done.code, done.out) == (2, "")
    assert "holds tensors alone, but model is of type OrderedDict; choose a name that ends in .pt" in flat(done.err)
    assert not [path for path in folder.iterdir() if "large" in path.name]


def test_options_that_do_not_go_together(folder: Path) -> None:
    given = ("rewrite", folder / "small.pt", "-o", folder / "large.pt")
    a_pass = ("--pass", '{"pass": "eliminate_dead"}')
    for options, words in (
        ((), "give passes with --pass, or a plan with --plan: one of the two"),
        ((*a_pass, "--plan", folder / "plan.json"), "one of the two"),
        ((*a_pass, "--kind", "AdamW"), "say what is in a checkpoint; give --plan"),
        (("--plan", folder / "plan.json", "--verify"), "--verify measures passes on a network"),
    ):
        done = growir(*given, *options)
        assert (done.code, done.out) == (2, "")
        assert words in flat(done.err)
