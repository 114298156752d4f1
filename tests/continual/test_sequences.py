"""A sequence as a run file tells it: tasks, network, and what the command leaves behind."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from typer.testing import CliRunner

from growir.cli.app import app
from growir.continual.benchmarks import from_benchmark
from growir.continual.config import ContinualConfig, parse_sequence
from growir.continual.experiences import Experience
from growir.continual.keeping import Kept
from growir.continual.learning import METHODS, learn
from growir.continual.master import Master
from growir.continual.report import heat_map, page, summary
from growir.continual.starting import experiences_of, first_network
from growir.errors import DataError, GraphError, RunError
from growir.network import Network
from growir.ops import Linear
from tests.continual.test_learning import X, Y, mlp

RUN = """
name = "six"
threads = 1

[data]
path = "six.npz"

[tasks]
each = 2

[method]
name = "{method}"
epochs = 3
batch_size = 16
learning_rate = 0.01
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    np.savez(tmp_path / "six.npz", x_train=X[:180], y_train=Y[:180], x_test=X[180:], y_test=Y[180:])
    (tmp_path / "run.toml").write_text(RUN.format(method="grown"))
    return tmp_path


def ran(place: Path, *more: str) -> Any:
    return CliRunner().invoke(app, ["continual", str(place / "run.toml"), "--out", str(place / "out"), *more])


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_command_leaves_report_master_and_onnx(place: Path) -> None:
    told = ran(place)
    assert told.exit_code == 0, told.output
    assert "3 tasks by grown: accuracy on test data" in told.output
    assert "forgetting +0.0" in told.output
    left = sorted(each.name for each in (place / "out").iterdir())
    wanted = "accuracy.svg master onnx report.txt run.toml state summary.json"
    assert left == wanted.split()
    master = Master.load(place / "out/master")
    assert list(master.tasks) == ["0, 1", "2, 3", "4, 5"]
    assert master.tasks["2, 3"].classes == (2, 3)
    figures = json.loads((place / "out/summary.json").read_text())
    assert figures["forgetting"] == 0
    assert figures["bytes"][-1] == sum(figures["new_bytes"])
    for k, name in enumerate(master.tasks):
        session = onnxruntime.InferenceSession(place / f"out/onnx/{k + 1}.onnx")
        (entry,) = session.get_inputs()
        (logits,) = session.run(None, {entry.name: X[:5]})
        with torch.no_grad():
            torch.testing.assert_close(
                torch.from_numpy(logits), master.task(name).to_torch().eval()(torch.from_numpy(X[:5]))
            )


def test_an_earlier_task_s_onnx_file_gives_the_same_bits_when_others_are_learned(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    better = iter([0.5, 0.6] * 3)  # so that what was grown stays
    monkeypatch.setattr("growir.continual.grown.accuracy_of", lambda *rest: next(better))
    config = config_of(place, width=1)
    first: dict[str, np.ndarray[Any, Any]] = {}

    def logits(file: Path) -> np.ndarray[Any, Any]:
        session = onnxruntime.InferenceSession(file)
        (entry,) = session.get_inputs()
        (found,) = session.run(None, {entry.name: X})
        return np.asarray(found)

    def told(state: Kept) -> None:
        master = Master.load(tmp_path / "out/state/method/master")
        name = state.names[-1]
        master.task(name).to_onnx(tmp_path / "now.onnx")
        first[name] = logits(tmp_path / "now.onnx")

    experiences = experiences_of(config)
    start = first_network(config, experiences)
    settings = {**config.settings.model_dump(), "penalty": 0.0}
    found = learn(start, experiences, settings=settings, out=tmp_path / "out", told=told)
    for name, before in first.items():
        found.networks[name].to_onnx(tmp_path / "end.onnx")
        np.testing.assert_array_equal(logits(tmp_path / "end.onnx"), before)
    assert any(found.channels)


@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_is_told_by_its_name(method: str, place: Path) -> None:
    (place / "run.toml").write_text(RUN.format(method=method))
    told = ran(place, "--quiet")
    assert told.exit_code == 0, told.output
    assert told.output.startswith(f"3 tasks by {method}")
    assert (place / "out/master").exists() != (place / "out/networks").exists()


def test_a_run_goes_on_and_a_finished_one_is_told_again(place: Path) -> None:
    whole = ran(place)
    again = ran(place, "--resume")
    assert again.exit_code == 0, again.output
    assert again.output.splitlines()[-12:] == whole.output.splitlines()[-12:]
    occupied = ran(place)
    assert occupied.exit_code == 2
    assert "this folder is not empty" in occupied.output
    (place / "run.toml").write_text(RUN.format(method="ewc"))
    other = ran(place, "--resume")
    assert other.exit_code == 2
    assert "started with another method and [method]" in other.output


def test_a_sequence_that_cannot_start_leaves_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    np.savez(place / "six.npz", x_train=X[:, :5], y_train=Y, x_test=X, y_test=Y)
    told = CliRunner().invoke(app, ["continual", "run.toml"])
    assert told.exit_code == 2
    assert "(5,) in x_train and (8,) in x_test" in told.output
    assert not (place / "runs").exists()


# -- run files --------------------------------------------------------------------------------------------------------


def config_of(place: Path, **more: Mapping[str, Any] | str | int) -> ContinualConfig:
    short = {"epochs": 2, "batch_size": 16, "learning_rate": 0.01}
    data = {"data": {"path": str(place / "six.npz")}, "tasks": {"each": 2}, "method": short, **more}
    return parse_sequence(data, "run.toml")


def test_a_configuration_is_its_run_file(place: Path) -> None:
    import tomllib

    config = config_of(place, method={"name": "cpg", "target": [0.5, 0.75, 1.0]}, network="Basic3ResNet-1-1-1", width=4)
    assert parse_sequence(tomllib.loads(config.to_toml()), "again") == config


@pytest.mark.parametrize(
    ("tasks", "names", "classes"),
    [
        ({"each": 3}, ["0, 1, 2", "3, 4, 5"], [(0, 1, 2), (3, 4, 5)]),
        ({"classes": [[5, 0], [1, 2]]}, ["5, 0", "1, 2"], [(5, 0), (1, 2)]),
        ({"classes": [[5, 0]], "names": ["odd"]}, ["odd"], [(5, 0)]),
        ({"permuted": 2}, ["permuted 1", "permuted 2"], [(0, 1, 2, 3, 4, 5)] * 2),
        ({"each": 2, "shuffle": 0}, ["4, 5", "0, 1", "2, 3"], [(4, 5), (0, 1), (2, 3)]),
    ],
)
def test_tasks_as_they_are_told(
    tasks: dict[str, Any], names: list[str], classes: list[tuple[int, ...]], place: Path
) -> None:
    found = experiences_of(config_of(place, tasks=tasks))
    assert [each.name for each in found] == names
    assert [each.classes for each in found] == classes


def test_permuted_tasks_have_the_same_numbers_in_another_order(place: Path) -> None:
    one, two = experiences_of(config_of(place, tasks={"permuted": 2}))
    x, y = (next(iter(each.data.train.batches(500, None))) for each in (one, two))
    assert isinstance(x.inputs, tuple)
    assert isinstance(y.inputs, tuple)
    a, b = x.inputs[0].numpy(), y.inputs[0].numpy()
    assert not np.array_equal(a, b)
    np.testing.assert_array_equal(np.sort(a, axis=1), np.sort(b, axis=1))
    moved = [int(np.flatnonzero((a == b[:, [k]]).all(0))[0]) for k in range(8)]
    np.testing.assert_array_equal(a[:, moved], b)
    assert torch.equal(torch.as_tensor(x.target), torch.as_tensor(y.target))


def test_networks_that_growir_makes_read_the_first_task_with_mean_0_and_variance_1(place: Path) -> None:
    config = config_of(place, width=5)
    experiences = experiences_of(config)
    first = first_network(config, experiences)
    assert first.graph["fc2"].op == Linear(out_features=5)
    batch = next(iter(experiences[0].data.train.batches(500, None)))
    assert isinstance(batch.inputs, tuple)
    x = batch.inputs[0].numpy()
    assert first.arrays["standard.mean"].item() == pytest.approx(float(x.mean()), abs=1e-5)
    assert first.arrays["standard.std"].item() == pytest.approx(float(x.std()), rel=1e-4)


def test_a_network_that_is_given_is_where_learning_begins(place: Path) -> None:
    start = Network.init(mlp(), 3)
    start.save(place / "net")
    config = config_of(place, network=str(place / "net"))
    experiences = experiences_of(config)
    assert first_network(config, experiences).graph.hash == start.graph.hash
    found = learn(start, experiences[:1], method="separate", settings={"epochs": 1, "learning_rate": 1e-9})
    (network,) = found.networks.values()
    np.testing.assert_allclose(network.arrays["fc0.weight"], start.arrays["fc0.weight"], atol=1e-6)


def test_wrong_run_files_are_refused(place: Path) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"tasks": {"each": 2, "permuted": 2}}, "one of classes, each and permuted"),
        ({"tasks": {"each": 1}}, "each is 1"),
        ({"method": {"name": "gronw"}}, "there is no method gronw. Did you mean 'grown'"),
        ({"method": {"name": "ewc", "penalty": 1.0}}, "unknown attribute 'penalty'"),
        ({"method": 3}, r"this is a section, \[method\]"),
        ({"name": "a/b"}, "it names folders"),
        ({"colour": 1}, "unknown attribute 'colour'"),
    ]
    for more, message in wrong:
        with pytest.raises(RunError, match=message):
            config_of(place, **more)
    data: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"tasks": {}}, RunError, "says which tasks there are"),
        ({"tasks": {"classes": [[0, 9]]}}, DataError, "there is no class 9; there are 0, 1, 2"),
        ({"tasks": {"each": 5}}, DataError, "6 classes by 5 leave a task of one"),
        ({"tasks": {"permuted": 2, "names": ["a"]}}, RunError, "there are 1, but 2 tasks"),
        ({"data": {}}, DataError, "no data is given"),
        ({"data": {"path": "digits", "standardise": "none"}}, RunError, "leave it out"),
    ]
    for more, kind, message in data:
        with pytest.raises(kind, match=message):
            experiences_of(config_of(place, **more))
    config = config_of(place, network="net.json", width=3)
    experiences = experiences_of(config)
    with pytest.raises(RunError, match='width: is said of "perceptron"'):
        first_network(config, experiences)


# -- benchmark objects ------------------------------------------------------------------------------------------------


class Samples:
    """As a data set of Avalanche: (x, y, task)."""

    def __init__(self, x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> None:
        self.x, self.y = torch.from_numpy(x), y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, k: int) -> tuple[torch.Tensor, int, int]:
        return self.x[k], int(self.y[k]), 0


def benchmark() -> Any:
    def stream(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> list[Any]:
        groups = [(1, 0), (4, 2)]
        parts = [np.isin(y, group) for group in groups]
        return [
            SimpleNamespace(dataset=Samples(x[part], y[part]), classes_in_this_experience=list(group))
            for group, part in zip(groups, parts, strict=True)
        ]

    return SimpleNamespace(train_stream=stream(X[:180], Y[:180]), test_stream=stream(X[180:], Y[180:]))


def test_the_experiences_of_a_benchmark_object() -> None:
    found = from_benchmark(benchmark())
    assert [(each.name, each.classes) for each in found] == [("experience 0", (0, 1)), ("experience 1", (2, 4))]
    batch = next(iter(found[1].data.train.batches(60, None)))
    target = torch.as_tensor(batch.target)
    assert sorted(set(target.tolist())) == [0, 1]
    result = learn(mlp(), found, settings={"epochs": 6, "batch_size": 16, "learning_rate": 0.01})
    assert result.measures.accuracy > 0.7


def test_a_run_file_may_name_a_function_that_gives_tasks(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "mine.py").write_text(
        "from tests.continual.test_sequences import benchmark, made\n"
        "def tasks():\n    return made()\n"
        "def arrays():\n    from tests.continual.test_learning import X, Y\n"
        "    return {'x_train': X, 'y_train': Y, 'x_test': X, 'y_test': Y}\n"
        "def none():\n    return 3\n"
    )
    monkeypatch.syspath_prepend(place)
    assert len(experiences_of(config_of(place, data={"path": "mine:benchmark"}, tasks={}))) == 2
    assert [e.name for e in experiences_of(config_of(place, data={"path": "mine:tasks"}, tasks={}))] == ["a"]
    assert len(experiences_of(config_of(place, data={"path": "mine:arrays"}))) == 3
    for path, tasks, message in (
        ("mine:none", {}, "gives int; experiences in a list are needed"),
        ("mine:tasks", {"each": 2}, "gives the tasks already"),
    ):
        with pytest.raises((DataError, RunError), match=message):
            experiences_of(config_of(place, data={"path": path}, tasks=tasks))


def made() -> list[Experience]:
    first, *_ = from_benchmark(benchmark(), names=["a", "b"])
    return [first]


def test_benchmarks_that_cannot_be_read_are_refused() -> None:
    with pytest.raises(DataError, match="a benchmark with a train_stream"):
        from_benchmark(3)
    short = benchmark()
    short.test_stream.pop()
    with pytest.raises(DataError, match="2 experiences and the test_stream 1"):
        from_benchmark(short)
    with pytest.raises(DataError, match="2 experiences and 1 names"):
        from_benchmark(benchmark(), names=["a"])
    silent = benchmark()
    del silent.train_stream[0].classes_in_this_experience
    with pytest.raises(DataError, match="does not say its classes_in_this_experience"):
        from_benchmark(silent)
    strange = benchmark()
    strange.train_stream[0].classes_in_this_experience = [0, 7]
    found = from_benchmark(strange)
    with pytest.raises(DataError, match="experience 0: sample 1 is of class 1, which is none of its"):
        next(iter(found[0].data.train.batches(60, None)))


# -- the report -------------------------------------------------------------------------------------------------------

STATE = Kept(
    given="",
    names=("a", "b"),
    accuracy=((0.9, 0.5, None), (0.8, 1.0, 0.4)),
    untrained=(0.5, 0.25, 0.5),
    parameters=(10, 14),
    sizes=(100, 130),
)


def test_the_report_says_what_was_measured() -> None:
    found = [str(part) for part in page(STATE, "ewc")]
    assert found[1].split("\n")[1].split() == ["a", "90.0", "90.0", "10", "100", "100"]
    assert found[1].split("\n")[2].split() == ["b", "80.0", "100.0", "90.0", "14", "130", "30"]
    assert found[2] == "accuracy 90.0, forgetting +10.0, backward transfer -10.0, forward transfer +25.0"
    figures = summary(STATE, "ewc")
    assert figures["new_bytes"] == [100, 30]
    assert figures["forgetting"] == pytest.approx(0.1)


def test_the_heat_map_has_a_square_for_each_accuracy() -> None:
    import xml.etree.ElementTree as ET

    picture = heat_map(STATE, "a <b> & c")
    root = ET.fromstring(picture)
    squares = [each for each in root.iter() if each.tag.endswith("rect") and each.get("rx")]
    assert len(squares) == 3
    numbers = [each.text for each in root.iter() if each.tag.endswith("text")]
    assert [text for text in numbers if text and text.isdigit()] == ["90", "50", "80", "100"]


def test_what_a_killed_process_left_is_cleared_away(place: Path) -> None:
    (place / "out").mkdir()
    (place / "out/.run.toml.new-1").write_text("half")
    (place / "out/.state.new-1").mkdir()
    told = ran(place, "--resume")
    assert told.exit_code == 0, told.output
    assert not list((place / "out").glob(".*"))


def test_a_damaged_state_is_said(place: Path) -> None:
    ran(place)
    kept = place / "out/state/method/tasks.json"
    for text, message in (("[{", "is damaged"), ("[]", "is of other tasks")):
        kept.write_text(text)
        told = ran(place, "--resume")
        assert told.exit_code == 2
        assert message in told.output


def test_a_file_of_the_built_in_network_s_name_is_not_meant(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    (place / "perceptron").mkdir()
    assert ran(place).exit_code == 0


def test_what_cannot_be_learned_is_refused_before_the_first_task(place: Path) -> None:
    config = config_of(place)
    experiences = experiences_of(config)
    start = first_network(config, experiences)
    twice = [Experience(name, experiences[0].data, (0, 1)) for name in ("a", "b")]
    long = [Experience("a" * 300, experiences[0].data, (0, 1))]
    none = start.graph.replace(outputs=("standard",), nodes=start.graph.nodes[:1], history=None)
    wrong: list[tuple[Any, list[Experience], dict[str, Any], type[Exception], str]] = [
        (start, experiences, {"settings": {"target": (0.5,)}}, RunError, "there are 1 target and 3 tasks"),
        (start, experiences, {"settings": {"device": "nowhere"}}, RunError, "is no device"),
        (start, experiences, {"settings": {"batch_size": 1}}, RunError, "batch_size"),
        (start, twice, {"scenario": "class"}, DataError, "class 0 is of an earlier one too"),
        (start, long, {}, DataError, "give names"),
        (none, experiences, {}, GraphError, "ends in one layer with out_features"),
    ]
    for network, given, more, kind, message in wrong:
        with pytest.raises(kind, match=message):
            learn(network, given, **more)
