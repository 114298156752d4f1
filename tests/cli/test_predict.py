"""`growir predict`: labels and numbers for new samples, and one message for whatever is wrong."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

import growir
from growir.growth import predicting
from growir.growth.config import parse_run
from growir.growth.data import load_data
from growir.growth.observer import Observer
from growir.growth.problem import Problem
from growir.growth.running import start_run
from tests.cli.command import GOLDEN, Done, process
from tests.cli.command import growir as command

SMALL: dict[str, Any] = {
    "policy": {"strategy": "widen"},
    "budget": {"steps": 1, "parameters": 200},
    "schedule": {"trials": 0},
    "train": {"epochs_final": 10, "epochs_between": 1},
}
NEW = "colour,age\nred,31\nwhite,60\nrosé,20\n"


def people(seed: int = 0) -> str:
    drawn = random.Random(seed)
    lines = ["id,age,colour,bought"]
    for k in range(120):
        age, colour = drawn.randint(18, 80), drawn.choice(["red", "white", "rosé"])
        lines.append(f"{k},{age},{colour},{['no', 'yes'][age > 40 and colour != 'red']}")
    return "\n".join(lines) + "\n"


def grow_table(out: Path, **data: str) -> None:
    config = parse_run({"data": {"target": "bought", "ignore": ("id",), **data}, **SMALL}, "test")
    start_run(config, Problem.of_loaded(load_data(config.data)), out=out)


def images(count: int) -> NDArray[np.float64]:
    return np.random.default_rng(0).normal(size=(count, 3, 4))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of a table, of images and of two amounts."""
    path = tmp_path_factory.mktemp("predict")
    (path / "people.csv").write_text(people(), encoding="utf-8")
    grow_table(path / "table", path=str(path / "people.csv"))
    x = images(60)
    growir.grow(None, {"x_train": x, "y_train": 3 + 4 * (x[:, 0, 0] > 0)}, out=path / "images", **SMALL)
    growir.grow(None, {"x_train": x[:, 0], "y_train": x[:, 0, :2] * 2.5}, out=path / "amounts", **SMALL)
    growir.grow(None, {"x_train": x[:, 0], "y_train": x[:, 0, 0] * 2.5}, out=path / "amount", **SMALL)
    return path


@pytest.fixture
def here(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of all that to change, as the working directory."""
    path = tmp_path / "work"
    shutil.copytree(folder, path)
    monkeypatch.chdir(path)
    (path / "new.csv").write_text(NEW, encoding="utf-8")
    return path


def table_of(text: str) -> list[list[str]]:
    return list(csv.reader(text.splitlines()))


# -- answers ----------------------------------------------------------------------------------------------------------


def test_a_table(here: Path) -> None:
    done = command("predict", "table", "new.csv")
    assert (done.code, done.err) == (0, "")
    header, *rows = table_of(done.out)
    assert header == ["predicted", "p(no)", "p(yes)"]
    assert [row[0] for row in rows] == ["no", "yes", "no"]
    for label, *shares in rows:
        numbers = [float(share) for share in shares]
        assert sum(numbers) == pytest.approx(1, abs=1e-5)
        assert label == header[1 + int(np.argmax(numbers))][2:-1]


def test_the_table_that_it_was_trained_on(here: Path) -> None:
    wanted = [line.rsplit(",", 1)[1] for line in people().splitlines()[1:]]
    found = [row[0] for row in table_of(command("predict", "table", "people.csv").out)[1:]]
    assert np.mean(np.array(found) == np.array(wanted)) > 0.9


def test_files(here: Path) -> None:
    printed = command("predict", "table", "new.csv").out
    for _ in range(2):  # the second time it replaces its own
        done = command("predict", "table", "new.csv", "-o", "answers.csv")
        assert done == Done(0, "wrote answers.csv: 3 samples\n", "")
        assert Path("answers.csv").read_text(encoding="utf-8") == printed
        assert command("predict", "table", "new.csv", "-o", "answers.npz").code == 0
    with np.load("answers.npz") as found:
        assert found["predicted"].tolist() == ["no", "yes", "no"]
        assert found["classes"].tolist() == ["no", "yes"]
        assert found["probabilities"].shape == (3, 2)
    assert not list(here.glob(".*")), "something is left over"


def test_arrays_and_the_exported_file(here: Path) -> None:
    x = images(9)
    np.save("x.npy", x)
    np.savez("x.npz", x=x, x_test=x[:1])
    np.savez("test.npz", x_train=x[:2], x_test=x)
    found = [command("predict", "images", name).out for name in ("x.npy", "x.npz", "test.npz")]
    assert found[0] == found[1] == found[2]
    answers = growir.predict("images", x)
    assert answers.predicted.dtype == np.int64
    assert answers.to_csv() == found[0]
    assert answers.header() == ["predicted", "p(3)", "p(7)"]
    session = onnxruntime.InferenceSession("images/model.onnx", providers=["CPUExecutionProvider"])
    logits = session.run(None, {"x": x.astype(np.float32)})[0]
    assert np.array_equal(answers.predicted, np.where(logits[:, 1] > logits[:, 0], 7, 3))
    assert answers.probabilities is not None
    ratio = np.log(answers.probabilities[:, 1] / answers.probabilities[:, 0])
    np.testing.assert_allclose(ratio, logits[:, 1] - logits[:, 0], atol=1e-4)


def test_numbers(here: Path) -> None:
    x = images(5)[:, 0]
    two, one = growir.predict("amounts", x), growir.predict("amount", x)
    assert (two.classes, two.probabilities) == (None, None)
    assert two.predicted.shape == (5, 2)
    assert two.header() == ["predicted_1", "predicted_2"]
    assert one.header() == ["predicted"]
    np.save("x.npy", x)
    printed = np.array(table_of(command("predict", "amounts", "x.npy").out)[1:], float)
    np.testing.assert_allclose(printed, two.predicted, rtol=1e-8)
    for name, answers in (("amounts", two), ("amount", one)):
        for file in ("a.csv", "a.npz"):
            assert command("predict", name, "x.npy", "-o", file).code == 0
        with np.load("a.npz") as found:
            assert found.files == ["predicted"]
            assert np.array_equal(found["predicted"], answers.predicted)


def test_more_samples_than_are_computed_at_once(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = images(50)
    whole = growir.predict("amounts", x[:, 0]).predicted
    monkeypatch.setattr(predicting, "AT_ONCE", 7)
    np.testing.assert_allclose(growir.predict("amounts", x[:, 0]).predicted, whole, rtol=1e-12)


def test_labels_of_every_kind(here: Path) -> None:
    x = images(30)[:, 0]
    for labels in ([False, True], ['a,"b"', "two\nlines"]):
        y = np.array(labels)[(x[:, 0] > 0).astype(int)]
        shutil.rmtree("labels", ignore_errors=True)
        growir.grow(None, {"x_train": x, "y_train": y}, out="labels", **SMALL)
        np.save("x.npy", x)
        assert command("predict", "labels", "x.npy", "-o", "l.csv").code == 0
        with Path("l.csv").open(newline="", encoding="utf-8") as file:
            found = list(csv.reader(file))
        assert found[0] == ["predicted", *(f"p({label})" for label in labels)]
        assert {row[0] for row in found[1:]} == {str(label) for label in labels}


def test_a_terminal_obeys_no_label(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = Path("table/data.json").read_text(encoding="utf-8")
    Path("table/data.json").write_text(text.replace('"no"', '"\\u001b[2Jno"'), encoding="utf-8")
    code = "sys.stdout.isatty = lambda: True\nmain()"
    done = process("predict", "table", "new.csv", code=code)
    assert "\x1b" not in done.out
    assert "\\x1b[2Jno" in done.out
    assert "\x1b[2Jno" in process("predict", "table", "new.csv").out


def test_the_separator_is_the_run_s_own(here: Path) -> None:
    Path("semi.csv").write_text(people().replace(",", ";"), encoding="utf-8")
    grow_table(Path("semi"), path="semi.csv", separator=";")
    Path("new_semi.csv").write_text(NEW.replace(",", ";"), encoding="utf-8")
    wanted = command("predict", "semi", "new_semi.csv").out
    assert wanted == command("predict", "semi", "new.csv", "--separator", ",").out
    assert len(table_of(wanted)) == 4
    Path("tabs.csv").write_text(NEW.replace(",", "\t"), encoding="utf-8")
    assert wanted == command("predict", "semi", "tabs.csv", "--separator", r"\t").out


def test_an_interrupted_run_answers_and_says_so(here: Path) -> None:
    def stop(phase: str, done: int, total: int) -> None:
        if phase == "final fit":
            raise KeyboardInterrupt

    x = images(60)[:, 0]
    with pytest.raises(KeyboardInterrupt):
        growir.grow(None, {"x_train": x, "y_train": x[:, 0] > 0}, out="stopped", observer=Observer(tick=stop), **SMALL)
    np.save("x.npy", x)
    done = command("predict", "stopped", "x.npy")
    assert done.code == 0
    assert len(table_of(done.out)) == 61
    assert done.err == (
        "growir: warning: stopped: the run was interrupted; this is the network of its last completed growth. growir "
        "grow stopped/run.toml --out stopped --resume goes on with it\n"
    )


def test_it_needs_no_scikit_learn(here: Path) -> None:
    code = (
        'import atexit\natexit.register(lambda: print(sorted({"sklearn", "onnx", "torch"} & set(sys.modules))))\nmain()'
    )
    assert process("predict", "table", "new.csv", code=code).out.splitlines()[-1] == "['torch']"


# -- what is refused --------------------------------------------------------------------------------------------------

Prepare = Callable[[], object]


def edited(path: str, old: str, new: str) -> Prepare:
    def edit() -> None:
        text = Path(path).read_text(encoding="utf-8")
        assert old in text
        Path(path).write_text(text.replace(old, new), encoding="utf-8")

    return edit


def killed() -> None:
    shutil.rmtree("table/network")
    for name in ("summary.json", "model.onnx"):
        Path("table", name).unlink()


def halved(path: str, **arrays: NDArray[Any]) -> Prepare:
    def halve() -> None:
        if path.endswith(".npz"):
            np.savez(path, **arrays)  # type: ignore[arg-type]  # the stub takes allow_pickle for one of them
        else:
            np.save(path, arrays["x"])
        data = Path(path).read_bytes()
        Path(path).write_bytes(data[: len(data) // 2])

    return halve


def saved(x: object) -> Prepare:
    return lambda: np.save("x.npy", np.asarray(x))


OBJECTS = np.array([[{}]], object)
WRONG: dict[str, tuple[str, Prepare]] = {
    "no such folder": ("tabel new.csv", lambda: None),
    "a file in place of the run": ("new.csv new.csv", lambda: None),
    "another folder": ("other new.csv", lambda: Path("other").mkdir()),
    "the network of a run": ("table/network new.csv", lambda: None),
    "a run that was killed": ("table new.csv", killed),
    "no data.json": ("table new.csv", Path("table/data.json").unlink),
    "a damaged data.json": ("table new.csv", edited("table/data.json", "{", "[")),
    "a data.json of another version": ("table new.csv", edited("table/data.json", "growir-data/1", "growir-data/2")),
    "a data.json with a wrong entry": ("table new.csv", edited("table/data.json", '"outputs": 2', '"outputs": 3')),
    "the data.json of another run": ("table new.csv", lambda: shutil.copy("images/data.json", "table/data.json")),
    "a damaged network": ("table new.csv", edited("table/network/graph.json", '"schema"', '"shcema"')),
    "no such data": ("table nwe.csv", lambda: None),
    "no such arrays": ("images x.npz", lambda: None),
    "no such array": ("images x.npy", lambda: None),
    "data of another kind": ("table new.txt", lambda: None),
    "an .npz file that is none": ("images x.npz", lambda: Path("x.npz").write_text("x")),
    "an .npy file that is none": ("images x.npy", lambda: Path("x.npy").write_text("x")),
    "a damaged .npz file": ("images x.npz", halved("x.npz", x=images(9))),
    "a damaged .npy file": ("images x.npy", halved("x.npy", x=images(9))),
    "Python objects in an .npy file": ("images x.npy", lambda: np.save("x.npy", OBJECTS, allow_pickle=True)),
    "an .npz file with other names": ("images x.npz", lambda: np.savez("x.npz", a=images(2), b=images(2))),
    "one sample": ("images x.npy", saved(images(1)[0])),
    "flat images": ("images x.npy", saved(images(5).reshape(5, 12))),
    "too few numbers": ("images x.npy", saved(images(5)[:, :, :3])),
    "arrays of another shape for a table": ("table x.npy", saved(np.ones((5, 3)))),
    "a single number": ("images x.npy", saved(1.0)),
    "no samples": ("images x.npy", saved(images(0))),
    "NaN": ("images x.npy", saved(np.where(images(5) > 1, np.nan, 0))),
    "words": ("images x.npy", saved(np.full((5, 3, 4), "a"))),
    "numbers beyond float32": ("images x.npy", saved(np.full((5, 3, 4), 1e40))),
    "a table for a run of arrays": ("images new.csv", lambda: None),
    "a table with other columns": ("table new.csv", edited("new.csv", "colour", "color")),
    "a table with another category": ("table new.csv", edited("new.csv", "white", "White")),
    "a table with a hole": ("table new.csv", edited("new.csv", "60", "")),
    "a table with holes": ("table new.csv", edited("new.csv", "31\nwhite,60", "\n,NA")),
    "another separator": ("table new.csv", edited("new.csv", ",", ";")),
    "a separator of arrays": ("images x.npy --separator ;", saved(images(2))),
    "a separator of two characters": ("table new.csv --separator ;;", lambda: None),
    "another kind of answers": ("table new.csv -o answers.json", lambda: None),
    "answers over the data": ("table new.csv -o new.csv", lambda: None),
    "answers over another's arrays": ("table new.csv -o x.npz", lambda: np.savez("x.npz", x=images(2))),
    "answers over a folder": ("table new.csv -o other.csv", lambda: Path("other.csv").mkdir()),
    "answers into no folder": ("table new.csv -o results/a.csv", lambda: None),
}


def test_every_message(
    here: Path, folder: Path, golden: Callable[[Path, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[str] = []
    for k, (case, (args, prepare)) in enumerate(WRONG.items()):
        work = here.parent / str(k)
        shutil.copytree(folder, work)
        (work / "new.csv").write_text(NEW, encoding="utf-8")
        monkeypatch.chdir(work)
        prepare()
        before = {path: path.read_bytes() for path in work.rglob("*") if path.is_file()}
        done = command("predict", *args.split())
        assert (done.code, done.out) == (2, ""), case
        assert done.err.startswith("growir: error: "), case
        assert {path: path.read_bytes() for path in work.rglob("*") if path.is_file()} == before, case
        found.append(f"{case}\n  {done.err.removeprefix('growir: error: ')}")
    golden(GOLDEN / "predict.txt", "".join(found))


def test_nothing_is_left_of_a_file_that_cannot_be_written(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    done = command("predict", "table", "new.csv", "-o", "answers.csv")
    assert done == Done(2, "", "growir: error: answers.csv: cannot be written: No space left on device\n")
    assert not [path for path in here.iterdir() if "answers" in path.name]


def test_shapes_of_the_description_are_those_of_the_network(here: Path) -> None:
    # Every number of it: what is asked about must be what the network takes.
    data = json.loads(Path("amounts/data.json").read_text(encoding="utf-8"))
    for key, value in (("sample", [5]), ("sample", [4, 1]), ("outputs", 3)):
        Path("amounts/data.json").write_text(json.dumps({**data, key: value}), encoding="utf-8")
        with pytest.raises(growir.RunError, match=r"data\.json is not of this network"):
            growir.predict("amounts", np.zeros((1, 4)))


def test_samples_from_python_are_called_so(here: Path) -> None:
    with pytest.raises(growir.DataError, match=r"the array of samples is \(2, 4\), but the network takes \(n, 3, 4\)"):
        growir.predict("images", images(2)[:, 0])


class Frame:
    """What a table of pandas has, and would be read by place for."""

    columns = ("age", "colour")

    def __array__(self, *args: object, **more: object) -> NDArray[np.float64]:
        return np.zeros((2, 4))


def test_named_columns_are_not_read_by_place(here: Path) -> None:
    with pytest.raises(growir.DataError, match=r"named columns, .* is read by place; write them to a \.csv"):
        growir.predict("table", Frame())
