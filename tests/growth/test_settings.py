"""Settings by name: on the command line of `growir grow`, in its list, and as arguments of `growir.grow`."""

from __future__ import annotations

import inspect
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import growir
from growir.data.description import read_description
from growir.errors import DataError, RunError
from growir.growth.config import DIGITS, SECTIONS, RunConfig, parse_run, section_models
from growir.growth.running import read_config
from growir.growth.settings import all_settings, full_names, read_settings, settings_page
from growir.growth.target import read_run
from growir.network import Network
from tests.cli.command import GOLDEN, Done
from tests.cli.command import growir as command
from tests.growth.problems import SMALL, spirals

QUICK = [
    *("--set", "strategy=whole", "--set", "neurons=4", "--set", "batch_size=32", "--set", "epochs_between=2"),
    *("--set", "train.epochs_final=3", "--set", "budget.steps=2"),
]


def settings(*texts: str) -> dict[str, Any]:
    return read_settings([(f"--set {text}", text) for text in texts])


@pytest.fixture
def ring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Data in the current folder."""
    monkeypatch.chdir(tmp_path)
    np.savez("ring.npz", **spirals())  # type: ignore[arg-type]  # the stub takes allow_pickle for one of them
    return tmp_path / "ring.npz"


# -- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("train.epochs_final=20", {"train": {"epochs_final": 20}}),
        ("epochs_final = 20", {"train": {"epochs_final": 20}}),
        ("seed=3", {"seed": 3}),
        ("parameters=50_000", {"budget": {"parameters": 50_000}}),
        ("learning_rate=1e-3", {"train": {"learning_rate": 0.001}}),
        ("data.test=.3", {"data": {"test": 0.3}}),
        ("policy.kernels=[3,5]", {"policy": {"kernels": [3, 5]}}),
        ("policy.kernels=[]", {"policy": {"kernels": []}}),
        ("task=regression", {"data": {"task": "regression"}}),
        ('task="regression"', {"data": {"task": "regression"}}),
        ('activation=["relu", "tanh"]', {"policy": {"activation": ["relu", "tanh"]}}),
        ("activation=[relu, tanh]", {"policy": {"activation": ["relu", "tanh"]}}),
        ("variance=[0.5,1]", {"data": {"variance": [0.5, 1]}}),
        ("name=2026", {"name": "2026"}),
        ("name=run", {"name": "run"}),
        ("policy.name=dag", {"policy": {"name": "dag"}}),
        ("path=data.npz", {"data": {"path": "data.npz"}}),
        ("path=1=2#3.npz", {"data": {"path": "1=2#3.npz"}}),
        ("path=a,b", {"data": {"path": "a,b"}}),
        ("path=1]\ny=[2", {"data": {"path": "1]\ny=[2"}}),
        ("target=3", {"data": {"target": "3"}}),
        ("ignore=[id,2024]", {"data": {"ignore": ["id", "2024"]}}),
        ("separator=;", {"data": {"separator": ";"}}),
        ("separator=,", {"data": {"separator": ","}}),
        ("separator=\t", {"data": {"separator": "\t"}}),
        ("separator=\\t", {"data": {"separator": "\t"}}),
        ("test=0.3", {"data": {"test": 0.3}}),
        ("test=test.csv", {"data": {"test": "test.csv"}}),
        ("test=./1", {"data": {"test": "./1"}}),
        (" task = regression ", {"data": {"task": "regression"}}),
    ],
)
def test_values_are_toml_and_words_need_no_quotes(text: str, value: dict[str, Any]) -> None:
    assert settings(text) == value


def test_a_key_that_two_sections_have_needs_its_section() -> None:
    names = ["name", "data.name", "data.size", "train.size", "train.rate"]
    assert full_names("size", names) == ["data.size", "train.size"]
    assert full_names("rate", names) == ["train.rate"]
    assert full_names("name", names) == ["name"]  # which could not be named otherwise
    assert full_names("data.name", names) == ["data.name"]
    assert full_names("data", names) == full_names("", names) == []


def test_a_key_that_two_sections_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    more = [*all_settings(), all_settings()[-1].__class__("train", "steps", 1, "Of another kind.")]
    monkeypatch.setattr("growir.growth.settings.all_settings", lambda: more)
    with pytest.raises(RunError, match=r"^--set steps=3: steps may be budget\.steps or train\.steps; give its section"):
        settings("steps=3")


def test_settings_go_before_the_run_file_and_its_sections_stay(tmp_path: Path) -> None:
    path = tmp_path / "ring.toml"
    path.write_text('seed = 1\ndata = {path = "ring.npz", task = "regression"}\n[train]\nepochs_final = 5\n')
    typed = [("--seed 2", "seed=2"), ("--set train.batch_size=8", "train.batch_size=8"), ("--budget 9", "parameters=9")]
    config = read_run(str(path), typed)
    assert (config.seed, config.name, config.data.task) == (2, "ring", "regression")
    assert (config.train.epochs_final, config.train.batch_size, config.budget.parameters) == (5, 8, 9)
    assert config.data.path == str(tmp_path / "ring.npz")
    found = read_run("digits", [("--seed 2", "seed=2"), ("--budget 9", "budget.parameters=9")])
    budget = DIGITS.budget.model_copy(update={"parameters": 9})
    assert found == DIGITS.model_copy(update={"seed": 2, "budget": budget})


def test_a_run_file_may_leave_the_data_to_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "small.toml"
    path.write_text("[train]\nepochs_final = 5\n")
    with pytest.raises(RunError, match="path is missing"):
        read_run(str(path))
    assert read_run(str(path), [("", "data.path=here.npz")]).data.path == "here.npz"


# -- messages ---------------------------------------------------------------------------------------------------------

WRONG: list[list[object]] = [
    ["--set", "train.epochs_final=x"],
    ["--set", "epoch_final=20"],
    ["--set", "trian.epochs_final=20"],
    ["--set", "policy=dag"],
    ["--set", "firefly=1"],
    ["--set", "=1"],
    ["--set", "train.epochs_final"],
    ["--set", "policy.activation=[relu,tahn]"],
    ["--set", "policy.kernels=[3,4]"],
    ["--set", "policy.move=wider"],
    ["--set", "policy.name=dga"],
    ["--set", "schedule.name=evry"],
    ["--set", "growths=0"],
    ["--set", "first=3", "--set", "schedule.name=every"],
    ["--set", "policy.kernels=[3,5"],
    ["--set", "name="],
    ["--set", f"name={'x' * 90}"],
    ["--set", "seed=1\nthreads=2"],
    ["--set", "seed=3", "--seed", 4],
    ["--set", "train.batch_size=8", "--set", "batch_size=9"],
    ["--budget", 0],
    ["--budget", "1e4"],
    ["--threads", "many"],
    ["--seed", -1],
    ["--task", "ranking"],
    ["--test", 1],
    ["--test", "1."],
    ["--budget", 0, "--task", "ranking", "--set", "epoch_final=20"],
]


def test_messages_name_what_was_typed(
    golden: Callable[[Path, str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = ""
    for arguments in WRONG:
        done = command("grow", "digits", *arguments)
        assert (done.code, done.out) == (2, "")
        assert not list(tmp_path.iterdir())
        typed = " ".join(repr(str(argument)) for argument in arguments)
        said += f"$ growir grow digits {typed}\n{done.err}\n"
    golden(GOLDEN / "settings" / "wrong.txt", said)


# -- the list ---------------------------------------------------------------------------------------------------------


def test_the_list_of_settings(golden: Callable[[Path, str], None]) -> None:
    done = command("grow", "--settings")
    assert done == Done(0, settings_page(), "")
    assert max(map(len, done.out.splitlines())) <= 80
    golden(GOLDEN / "settings" / "list.txt", done.out)


def test_every_setting_says_what_it_means() -> None:
    found = {setting.name: setting for setting in all_settings()}
    keys = {*RunConfig.model_fields.keys() - set(SECTIONS)}
    for section in SECTIONS:
        keys |= {f"{section}.{key}" for model in section_models(section).values() for key in model.model_fields}
    assert sorted(found) == sorted(keys)
    for setting in found.values():
        assert setting.summary.endswith("."), setting.name
        assert setting.default not in (None, "") or "By default" in setting.summary, setting.name


def test_a_default_in_the_list_can_be_typed() -> None:
    section, named, seen = "", list[str](), 0
    for line in settings_page().splitlines():
        if line.startswith("["):
            section, named = f"{line[1:].partition(']')[0]}.", []
        shown = re.match(r"  (\w+=\S+)", line)
        if shown:
            seen += 1
            if shown[1].startswith("name=") and section in ("policy.", "schedule."):
                named = [section + shown[1]]  # which decides what else the section takes
            typed = {section + shown[1], *named}
            config = parse_run(settings(*typed), "test")
            assert config == parse_run(settings(*named), "test"), line
            assert named or config == RunConfig(), line
    assert seen > 10


# -- runs -------------------------------------------------------------------------------------------------------------


def test_a_run_set_on_the_command_line_is_that_of_python(ring: Path) -> None:
    done = command("grow", "ring.npz", *QUICK, "--budget", 300, "--seed", 2, "--threads", 1, "--quiet")
    assert done.code == 0, done.err
    network = Network.load(Path("runs/ring-001"))
    found = growir.grow(
        None,
        ring,
        policy={"strategy": "whole", "neurons": 4},
        train={"epochs_between": 2, "epochs_final": 3, "batch_size": 32},
        budget={"parameters": 300, "steps": 2},
        seed=2,
        threads=1,
        name="ring",
    )
    assert network.graph.hash == found.network.graph.hash
    assert all(np.array_equal(network.arrays[key], found.network.arrays[key]) for key in network.arrays)


def test_a_resumed_run_keeps_what_is_not_given(ring: Path, tmp_path: Path) -> None:
    assert command("grow", "ring.npz", *QUICK, "--seed", 2, "--out", "run", "--quiet").code == 0
    resolved = read_config(Path("run"))
    before = Network.load(Path("run")).graph.hash

    def resumed(*arguments: object) -> Done:
        shutil.rmtree("again", ignore_errors=True)
        shutil.copytree("run", "again")
        Path("again/summary.json").unlink()
        done = command("grow", *arguments, "--out", "again", "--resume", "--quiet")
        assert read_config(Path("again")) == resolved
        if done.code == 0:
            assert Network.load(Path("again")).graph.hash == before
        return done

    for same in (["ring.npz"], ["run/run.toml"], ["ring.npz", "--seed", 2], ["ring.npz", "--set", "epochs_final=3"]):
        assert resumed(*same).err == ""
    for other, words in (
        (["ring.npz", "--seed", 3], "(seed: 2, now 3)"),
        (["run/run.toml", "--set", "epochs_final=4"], "([train] epochs_final: 3, now 4)"),
        (["digits"], "now digits"),
    ):
        done = resumed(*other)
        assert done.code == 2
        assert "started with other settings" in done.err
        assert words in done.err
    # Without --out it is the last run of that name.
    assert command("grow", "ring.npz", *QUICK, "--set", "name=mine", "--quiet").code == 0
    assert command("grow", "ring.npz", "--set", "name=mine", "--resume", "--quiet").code == 0
    assert [path.name for path in Path("runs").iterdir()] == ["mine-001"]


# -- Python -----------------------------------------------------------------------------------------------------------


def test_every_setting_is_an_argument_of_grow_or_in_one() -> None:
    arguments = inspect.signature(growir.grow).parameters
    flat = [setting for setting in all_settings() if setting.section in ("", "data")]
    assert {setting.key for setting in flat} - {"path", "network"} <= arguments.keys()  # which are data and start
    assert set(SECTIONS) <= arguments.keys()


def test_arguments_of_grow_have_the_limits_of_a_run_file() -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"threads": 0}, "threads is 0: input should be greater than 0"),
        ({"variance": [0.5, 2.0]}, "a list holds shares above 0 and at most 1, but 2.0 is none"),
        ({"train": {"epoch_final": 3}}, r"unknown attribute 'epoch_final'.*Did you mean 'epochs_final'\?"),
        ({"budget": {"parameter": 3}}, r"Did you mean 'parameters'\?"),
        ({"budget": 3}, r"budget: this is a section, \[budget\], but 3 is given"),
    ]
    for given, words in wrong:
        with pytest.raises(RunError, match=words):
            growir.grow(None, spirals(), **given)


def test_threads_and_variance_reach_the_run(tmp_path: Path) -> None:
    growir.grow(None, spirals(), **{**SMALL, "budget": {"steps": 1}}, threads=1, variance=0.5, out=tmp_path / "run")
    config = read_config(tmp_path / "run")
    assert (config.threads, config.data.variance) == (1, 0.5)


@pytest.mark.parametrize("data", [(1, 2), None, 3])
def test_data_of_another_type(data: Any) -> None:
    with pytest.raises(DataError, match=rf"growir.grow: data is of {type(data).__name__}, but a file, .* is needed"):
        growir.grow(None, data)


def test_a_file_that_is_no_run_file(tmp_path: Path) -> None:
    path = tmp_path / "data.txt"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(RunError, match=r"data.txt: this is no run file; tables end in .csv or .tsv, arrays in .npz"):
        read_run(str(path))


def test_a_table_grows_without_a_run_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [f"{k};{k % 7};{90_000 + k % 3};{'yes' if k % 7 > 3 else 'no'}\n" for k in range(60)]
    (tmp_path / "people.csv").write_text("id;age;zip;bought\n" + "".join(rows))
    (tmp_path / "others.csv").write_text("bought;zip;age\n" + "no;90001;1\nyes;90002;6\n" * 5)
    asked = ["--target", "bought", "--ignore", "id", "--categories", "zip", "--separator", ";"]
    done = command("grow", "people.csv", *asked, *QUICK, "--test", "others.csv", "--quiet")
    assert done.code == 0, done.err
    run = tmp_path / "runs" / "people-001"
    described = read_description(run)
    assert described.classes == ("no", "yes")
    assert [feature.name for feature in described.features or ()] == ["age", "zip"]
    assert described.sample == (4,)
    assert read_config(run).data.test == str(tmp_path / "others.csv")
    monkeypatch.chdir(run)  # it is the same run from anywhere
    (run / "summary.json").unlink()
    assert command("grow", "run.toml", "--out", run, "--resume", "--quiet").code == 0
