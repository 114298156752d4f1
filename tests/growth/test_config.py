"""Run files: what they mean, and every way in which one can be wrong."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from growir.errors import RunError
from growir.growth.budget import BudgetConfig
from growir.growth.config import DIGITS, RunConfig, parse_run
from growir.growth.policies.dag.settings import DagConfig
from growir.growth.schedule import Named, Plateau
from growir.growth.target import read_run
from tests.cli.command import growir as command


def written(tmp_path: Path, text: str | bytes, name: str = "ring.toml") -> Path:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_every_key_is_read(tmp_path: Path) -> None:
    text = """
        name = "ring-1"
        seed = 3
        threads = 2
        [data]
        path = "ring.npz"
        task = "classification"
        standardise = "none"
        [policy]
        name = "dag"
        strategy = "restricted"
        neurons = 5
        activation = "tanh"
        [train]
        batch_size = 16
        epochs_between = 1
        epochs_final = 2
        learning_rate = 1
        weight_decay = 0
        [budget]
        parameters = 100
        macs = 200
        steps = 3
        seconds = 60
    """
    config = read_run(str(written(tmp_path, text)))
    assert (config.name, config.seed, config.threads) == ("ring-1", 3, 2)
    assert config.data.path == str(tmp_path / "ring.npz")
    assert isinstance(config.policy, DagConfig)
    assert (config.policy.strategy, config.policy.neurons, config.policy.activation) == ("restricted", 5, "tanh")
    assert (config.train.batch_size, config.train.learning_rate, config.train.weight_decay) == (16, 1.0, 0.0)
    assert (config.budget.macs, config.budget.seconds) == (200, 60.0)
    assert parse_run(tomllib.loads(config.to_toml()), "again") == config


def test_names_come_from_the_file() -> None:
    assert read_run("data/My rings_2.npz").name == "My-rings-2"
    assert read_run("_.NPZ").name == "run"
    assert read_run("-rings.npz").name == "rings"
    assert read_run(f"{'a' * 100}.npz").name == "a" * 60
    assert read_run("digits") == DIGITS


def test_a_relative_path_counts_from_the_run_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").mkdir()
    written(tmp_path / "runs", 'data = {path = "../ring.npz"}')
    monkeypatch.chdir(tmp_path)
    assert Path(read_run("runs/ring.toml").data.path).resolve() == tmp_path / "ring.npz"
    written(tmp_path, 'data = {path = "/data/ring.npz"}')
    assert read_run("ring.toml").data.path == "/data/ring.npz"
    written(tmp_path, 'data = {path = "digits"}')
    assert read_run("ring.toml").data.path == "digits"


WRONG = [
    ("[data", "not a valid TOML run file"),
    (b"\xff\xfe", "not a valid TOML run file"),
    ("seed = " + "9" * 5000, "not a valid TOML run file"),
    ("a = " + "[" * 100_000, "not a valid TOML run file"),
    ("seed = 1\nseed = 2", "not a valid TOML run file"),
    ("", "[data] path is missing"),
    ('[data]\npath = ""', "[data] path is missing"),
    ("data = 3", "data: this is a section, [data], but 3 is given"),
    ("[[train]]", "train: this is a section, [train]"),
    ("sede = 3", "'sede'; a run file takes name, network, seed, threads, data, policy, objective, optimizer, sched"),
    ("sede = 3", "train, budget. Did you mean 'seed'?"),
    ("[trian]\nepochs_final = 3", "Did you mean 'train'?"),
    ("[train]\nepoch_final = 3", "[train]: unknown attribute 'epoch_final'"),
    ("[train]\nepoch_final = 3", "Did you mean 'epochs_final'?"),
    ("[data]\npaht = 'a.npz'", "Did you mean 'path'?"),
    ("[data]\npath = 3", "[data]: path is 3"),
    ("[data]\ntask = 'ranking'", "'classification' or 'regression'"),
    (
        "[policy]\nname = 'glowworm'",
        "[policy] name: there is no policy 'glowworm'; there are autogrow, dag, firefly, gauss_newton, ",
    ),
    (
        "[policy]\nname = 'dga'",
        "there is no policy 'dga'; there are autogrow, dag, firefly, gauss_newton, ",
    ),
    ("[policy]\nname = 'dga'", "\"package.module:Class\". Did you mean 'dag'?"),
    ("[[policy]]\nname = 'glowworm'", "there is no policy 'glowworm'"),
    ("[schedule]\nname = {}", "there is no schedule {}; there are alternating, every, "),
    ("[policy]\nactivation = 'rleu'", "Did you mean 'relu'?"),
    ("[train]\ncheckpoint = -3", 'checkpoint is -3: it is "phase", "epoch", or a whole number of steps above 0'),
    ("[policy]\nneurons = 0", 'neurons is 0: it is a whole number above 0, or "double"'),
    ("[policy]\nneurons = 2.0", 'neurons is 2.0: it is a whole number above 0, or "double"'),
    ("[policy]\nridge = -1", "ridge is -1"),
    ("[train]\nlearning_rate = nan", "learning_rate is NaN: input should be a finite number"),
    ("[train]\nlearning_rate = inf", "learning_rate is Infinity"),
    ("[train]\nlearning_rate = 0", "learning_rate is 0: input should be greater than 0"),
    ("[train]\nlearning_rate = '1e-3'", 'learning_rate is "1e-3": input should be a valid number'),
    ("[train]\nbatch_size = true", "batch_size is true: input should be a valid integer"),
    ("[train]\nweight_decay = -0.1", "weight_decay is -0.1"),
    ("[budget]\nseconds = inf", "seconds is Infinity: input should be a finite number"),
    ("[budget]\nseconds = '5'", 'seconds is "5": input should be a valid number'),
    ("[budget]\nparameters = -5", "parameters is -5"),
    ("seed = -1", "seed is -1: input should be greater than or equal to 0"),
    ("seed = 9223372036854775808", "input should be less than or equal to 9223372036854775807"),
    ("seed = 1.0", "seed is 1.0: input should be a valid integer"),
    ("seed = 1979-05-27", "seed is 1979-05-27"),
    ("threads = 1000000", "threads is 1000000: input should be less than or equal to 1024"),
    ("name = '../x'", 'name is "../x": it names folders: at most 60 letters, digits, - and _'),
    ("name = ''", "it names folders"),
    ("name = 'a\u2028b'", "it names folders"),
]


@pytest.mark.parametrize(("text", "words"), WRONG)
def test_what_is_wrong_is_said_in_one_message(text: str | bytes, words: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    done = command("grow", path, "--out", tmp_path / "run")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("growir: error: ")
    assert "ring.toml: " in done.err or "\u2026: " in done.err
    assert done.err.count("\n") == 1
    assert words in done.err
    assert [p.name for p in tmp_path.iterdir()] == ["ring.toml"]


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, "sede = 3\ndata = 3\n[train]\nepochs = 3\nlearning_rate = -1\n[bugdet]\n")
    with pytest.raises(RunError) as caught:
        read_run(str(path))
    first, *lines = str(caught.value).splitlines()
    assert first.endswith(": 5 wrong entries")
    assert len(lines) == 5
    for words in ("'sede'", "[data]", "'epochs'", "learning_rate is -1", "'bugdet'"):
        assert words in str(caught.value)


def test_a_file_of_another_kind_gives_no_endless_list(tmp_path: Path) -> None:
    path = written(tmp_path, "".join(f"key_{k} = {k}\n" for k in range(500)))
    with pytest.raises(RunError) as caught:
        read_run(str(path))
    first, *lines = str(caught.value).splitlines()
    assert first.endswith(": 500 wrong entries")
    assert len(lines) == 21
    assert lines[-1] == "  ... and 480 more wrong entries"


def test_no_run_file(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"No such file.*give a run file, a \.csv or \.npz file, or digits"):
        read_run(str(tmp_path / "none.toml"))
    with pytest.raises(RunError, match="Is a directory"):
        read_run(str(tmp_path))


def test_seeds_on_the_command_line_have_the_same_limits(tmp_path: Path) -> None:
    for seed in ("-1", str(2**63), "1.5"):
        done = command("grow", "digits", "--seed", seed, "--out", tmp_path / "run")
        assert (done.code, done.out) == (2, "")
        assert "seed" in done.err
    assert not list(tmp_path.iterdir())


@given(st.text(), st.integers(0, 2**63 - 1), st.floats(1e-9, 10), st.one_of(st.none(), st.floats(1e-6, 1e9)))
def test_a_resolved_run_file_says_the_same(path: str, seed: int, rate: float, seconds: float | None) -> None:
    data = {"seed": seed, "data": {"path": path}, "train": {"learning_rate": rate}, "budget": {"seconds": seconds}}
    config = parse_run(data, "test")
    assert parse_run(tomllib.loads(config.to_toml()), "again") == config


def test_a_path_that_no_file_can_repeat_is_refused() -> None:
    with pytest.raises(RunError, match="not valid UTF-8"):
        parse_run({"data": {"path": "a\udcff.npz"}}, "test")


def test_defaults_depend_on_the_data() -> None:
    config = RunConfig().train
    assert config.resolved(1000).batch_size == 64
    assert config.resolved(100_000).batch_size == 256
    assert config.resolved(9999).keep_final == 1
    assert config.resolved(10_000).keep_final == 0.2
    assert (config.resolved(64).epochs_trial, config.resolved(1000).epochs_trial) == (100, 30)
    assert parse_run({"train": {"weights_final": "new"}}, "test").train.resolved(10_000).keep_final == 1
    for samples in (9, 1000, 10**7):
        resolved = config.resolved(samples)
        assert resolved.epochs_final
        assert resolved.epochs_between
        assert resolved.resolved(3) == resolved


@pytest.mark.parametrize(
    ("threads", "settings", "samples", "inputs", "macs"),
    [
        (1, {}, 150, (4,), 0),
        (1, {}, 60_000, (784,), 0),  # 256 samples a step, 50 000 parameters
        (1, {"budget": {"parameters": 780_000}}, 5_000, (20,), 0),
        (None, {"budget": {"parameters": 790_000}}, 5_000, (20,), 0),
        (1, {"budget": {"parameters": 790_000}}, 60, (20,), 0),  # fewer samples than a batch may have
        (None, {"train": {"batch_size": 5_000}}, 60_000, (784,), 0),
        (1, {"budget": {"parameters": 790_000, "macs": 700_000}}, 5_000, (20,), 0),
        (1, {"policy": {"kernels": [3]}}, 1_500, (8, 8), 0),  # each parameter at 64 positions
        (None, {"policy": {"kernels": [3]}}, 1_500, (3, 32, 32), 0),
        (None, {}, 1_500, (32, 32, 3), 800_000),  # the network it starts from
        (3, {"threads": 3}, 150, (4,), 0),
        (1, {"threads": 1, "policy": {"kernels": [3]}}, 60_000, (28, 28), 0),
    ],
)
def test_a_small_training_step_takes_one_thread(
    threads: int | None, settings: dict[str, Any], samples: int, inputs: tuple[int, ...], macs: int
) -> None:
    config = parse_run(settings, "test").resolved(samples, inputs, 10, macs)
    assert config.threads == threads
    assert ("threads" in tomllib.loads(config.to_toml())) == (threads is not None)


def test_sizes_and_lengths_are_tried_where_growth_begins_from_nothing_and_ends_in_a_fit() -> None:
    def tried(given: bool, **schedule: object) -> tuple[object, object]:
        found = parse_run({"schedule": schedule}, "test").started_from(given).schedule
        return found.trials, found.lengths

    assert tried(False) == (2.0, True)
    assert tried(False, lengths=False) == (2.0, False)
    assert tried(False, trials=0) == tried(True) == (0.0, False)
    assert tried(True, trials=3.0) == (3.0, True)
    assert tried(False, name="every") == (0.0, False)
    said = parse_run({"train": {"epochs_final": 20}}, "test").started_from(given=False)
    assert (said.schedule.trials, said.schedule.lengths) == (2.0, False)
    assert tried(False, name="every", fit=True) == (2.0, True)
    decided = RunConfig().started_from(given=False)
    assert decided.resolved(1000, (3,), 2).budget.parameters == 10_000
    assert decided.resolved(10**6, (3,), 2).budget.parameters == 100_000
    assert RunConfig().started_from(given=True).resolved(1000, (3,), 2).budget.parameters == 2000
    assert parse_run(tomllib.loads(decided.to_toml()), "again") == decided


def test_what_an_older_run_does_not_name_stays_off() -> None:
    older = parse_run({"schedule": {"name": "plateau"}, "policy": {"name": "dag"}}, "older")
    goes_on = RunConfig(schedule=Plateau()).going_on_from(older).started_from(given=False)
    assert (goes_on.schedule.trials, goes_on.schedule.lengths, goes_on.train.keep_final) == (0.0, False, 1.0)
    assert RunConfig(schedule=Named(name="a.b:C")).going_on_from(older).schedule == Named(name="a.b:C")


def test_a_given_networks_weights_are_kept_unless_told_otherwise() -> None:
    config = RunConfig()
    assert config.started_from(given=False).resolved(20_000, (3,), 2).train.keep_final == "found"
    briefly = parse_run({"schedule": {"trials": 0}}, "test").started_from(given=False)
    assert briefly.resolved(20_000, (3,), 2).train.keep_final == 0.2
    anew = parse_run({"train": {"weights_final": "new"}}, "test").started_from(given=False)
    assert anew.resolved(20_000, (3,), 2).train.keep_final == 1
    assert config.started_from(given=True).resolved(20_000, (3,), 2).train.keep_final == 1
    asked = parse_run({"train": {"keep_final": 0.5}}, "test")
    assert asked.started_from(given=True).resolved(20_000, (3,), 2).train.keep_final == 0.5


def test_images_leave_out_what_hardly_varies() -> None:
    assert RunConfig().resolved(100, (3,), 2).data.variance == 1
    assert RunConfig().resolved(100, (3, 3), 2).data.variance == (0.9, 0.95, 0.98)
    asked = parse_run({"data": {"variance": 0.5}}, "test")
    assert asked.resolved(100, (3, 3), 2).data.variance == 0.5


def test_of_no_weight_more_is_kept_than_there_is() -> None:
    for share in (0.0, 1.5, -1.0):
        with pytest.raises(RunError, match="keep_final"):
            parse_run({"train": {"keep_final": share}}, "test")
    with pytest.raises(RunError, match=r'keep_final is "some": it is a share above 0 and at most 1, or "found"'):
        parse_run({"train": {"keep_final": "some"}}, "test")


def test_a_section_that_python_writes_is_refused_in_the_same_words() -> None:
    with pytest.raises(RunError, match=r"^BudgetConfig: parameters is 0: input should be greater than 0$"):
        BudgetConfig(parameters=0)
    with pytest.raises(RunError, match=r"^BudgetConfig: unknown attribute .* Did you mean 'parameters'\?$"):
        BudgetConfig(**cast("Any", {"parametrs": 3}))
