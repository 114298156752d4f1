"""Tables: what is read of them, what they teach, and one message for everything wrong with them."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import growir
from growir.data.columns import Columns, learn, rows
from growir.data.dataset import Dataset
from growir.data.description import Feature, read_description
from growir.data.table import read_table
from growir.errors import DataError
from growir.growth.config import DataConfig
from growir.growth.data import load_data
from growir.growth.target import read_run
from tests.cli.command import GOLDEN
from tests.growth.problems import SMALL

PEOPLE: list[tuple[str, ...]] = [("age", "colour", "bought")]
PEOPLE += [(str(20 + 3 * k), ("red", "white", "rosé")[k % 3], ("no", "yes")[k % 5 > 2]) for k in range(30)]


def text_of(table: Sequence[tuple[str, ...]], separator: str = ",") -> str:
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=separator).writerows(table)
    return stream.getvalue()


def changed(row: int, column: int, cell: str) -> str:
    """The people with one cell changed; row 0 is the header."""
    return text_of([(*r[:column], cell, *r[column + 1 :]) if k == row else r for k, r in enumerate(PEOPLE)])


def loaded(folder: Path, text: str | bytes, name: str = "people.csv", **settings: Any) -> Dataset:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return dataset_of(DataConfig(path=str(path), **{"target": "bought", **settings}))


def dataset_of(config: DataConfig) -> Dataset:
    found = load_data(config)
    assert isinstance(found, Dataset)
    return found


# -- what is read -----------------------------------------------------------------------------------------------------


def test_numbers_words_and_labels(tmp_path: Path) -> None:
    data = loaded(tmp_path, text_of(PEOPLE), test=0)
    assert data.description.features == (
        Feature(name="age"),
        Feature(name="colour", categories=("red", "rosé", "white")),
    )
    assert data.x_train[:4].tolist() == [[20, 1, 0, 0], [23, 0, 0, 1], [26, 0, 1, 0], [29, 1, 0, 0]]
    assert data.description.classes == ("no", "yes")
    assert data.y_train[:5].tolist() == [0, 0, 0, 1, 1]
    assert (data.description.target, data.task, data.outputs) == ("bought", "classification", 2)


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        (text_of(PEOPLE, ";"), {"separator": ";"}),
        (text_of(PEOPLE, "\t"), {"name": "people.tsv"}),
        (text_of(PEOPLE).replace("\r\n", "\n").encode("utf-8-sig"), {}),
        (text_of(PEOPLE).replace("\r\n", "\r"), {}),
        (text_of(PEOPLE).replace(",", " , "), {}),
        (text_of(PEOPLE).replace("\r\n", "\n\n"), {}),
        (text_of([(f'"{a}"', b, c) for a, b, c in PEOPLE]).replace('"""', '"'), {}),
        (text_of([(*row, str(k)) for k, row in enumerate(PEOPLE)]), {"ignore": ("0",)}),
    ],
)
def test_the_same_table_in_many_spellings(text: str | bytes, settings: dict[str, Any], tmp_path: Path) -> None:
    plain, other = loaded(tmp_path, text_of(PEOPLE)), loaded(tmp_path, text, **settings)
    for name in ("x_train", "y_train", "x_test", "y_test"):
        assert np.array_equal(getattr(plain, name), getattr(other, name))
    assert plain.description == other.description


@pytest.mark.parametrize(
    ("labels", "task", "classes"),
    [
        (("1", "2"), "classification", (1, 2)),
        (("1.0", "0.0"), "classification", (0, 1)),
        (("True", "False"), "classification", ("False", "True")),
        (("1.5", "2"), "regression", None),
        (("1e3", "2.5e-1"), "regression", None),
    ],
)
def test_targets_of_every_kind(labels: tuple[str, str], task: str, classes: object, tmp_path: Path) -> None:
    table = [PEOPLE[0], *((a, b, labels[c == "yes"]) for a, b, c in PEOPLE[1:])]
    data = loaded(tmp_path, text_of(table))
    assert (data.task, data.description.classes) == (task, classes)


def test_words_that_look_like_numbers(tmp_path: Path) -> None:
    table = [("zip", *PEOPLE[0]), *(((f"0{k % 4}", *row) for k, row in enumerate(PEOPLE[1:])))]
    assert loaded(tmp_path, text_of(table)).description.sample == (5,)
    data = loaded(tmp_path, text_of(table), categories=("zip",))
    assert data.description.features is not None
    assert data.description.features[0] == Feature(name="zip", categories=("00", "01", "02", "03"))


def test_rows_that_lack_a_value_are_left_out_where_that_is_said(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"people.csv: 1 of 30 rows lack a value and are left out"):
        data = loaded(tmp_path, changed(3, 0, ""), missing="drop", test=0)
    assert len(data.x_train) == 29
    # In a column that nobody reads it is no matter.
    assert len(loaded(tmp_path, changed(3, 0, ""), ignore=("age",), test=0).x_train) == 30


def test_a_column_that_counts_the_rows_is_told_of(tmp_path: Path) -> None:
    table = [("id", *PEOPLE[0]), *((str(k), *row) for k, row in enumerate(PEOPLE[1:]))]
    with pytest.warns(UserWarning, match=r"column 'id' counts the rows, and the network will read it; ignore = \[\"id"):
        loaded(tmp_path, text_of(table))


def test_a_column_that_is_constant_in_float32_is_told_of(tmp_path: Path) -> None:
    table = [("time", *PEOPLE[0]), *((str(1_700_000_000 + k % 9), *row) for k, row in enumerate(PEOPLE[1:]))]
    with pytest.warns(UserWarning, match=r"column 'time' is the same in every row in float32, so it is not read; sub"):
        loaded(tmp_path, text_of(table))


def test_labels_with_leading_zeros_are_words(tmp_path: Path) -> None:
    table = [PEOPLE[0], *((a, b, {"no": "01067", "yes": "99084"}[c]) for a, b, c in PEOPLE[1:])]
    assert loaded(tmp_path, text_of(table)).description.classes == ("01067", "99084")
    assert loaded(tmp_path, text_of(table), task="regression").task == "regression"


def test_a_table_to_test_on(tmp_path: Path) -> None:
    test = tmp_path / "test.csv"
    # Its columns stand in another order, with one that nobody reads.
    test.write_text("bought,more,colour,age\nyes,1,white,31\nno,2,red,40\n")
    data = loaded(tmp_path, text_of(PEOPLE), test=str(test))
    assert (len(data.x_train), data.held_out) == (30, None)
    assert (data.x_test.tolist(), data.y_test.tolist()) == ([[31, 0, 0, 1], [40, 1, 0, 0]], [1, 0])


def test_arrays_to_test_on(tmp_path: Path) -> None:
    x, y = np.random.default_rng(0).normal(size=(40, 2)), np.arange(40) % 2
    np.savez(tmp_path / "train.npz", x_train=x[:30], y_train=y[:30])
    np.savez(tmp_path / "test.npz", x_test=x[30:], y_test=y[30:])
    config = DataConfig(path=str(tmp_path / "train.npz"), test=str(tmp_path / "test.npz"))
    data = dataset_of(config)
    assert (len(data.x_train), len(data.x_test)) == (30, 10)
    np.savez(tmp_path / "train.npz", x_train=x[:30], y_train=y[:30], x_test=x, y_test=y)
    with pytest.raises(DataError, match=r"x_test is a test part, but .* names another, .*test\.npz; leave one out"):
        load_data(config)


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.text("ab, \"'\n;é", max_size=4)), min_size=2, max_size=20))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[float, str]]) -> None:
    path = tmp_path_factory.mktemp("table") / "t.csv"
    written = [("number", "word"), *((repr(a), f"w{b}w") for a, b in cells)]
    path.write_bytes(text_of(written).encode())
    found = read_table(path)
    assert list(zip(*found.columns.values(), strict=True)) == written[1:]
    text = path.read_bytes().decode()
    for line, (number, _) in zip(found.lines, written[1:], strict=True):
        assert text.split("\n")[line - 1].startswith(number)


def test_a_run_on_a_table(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text(text_of(PEOPLE))
    found = growir.grow(None, path, target="bought", **SMALL, out=tmp_path / "run")
    assert found.summary["test_after_fit"] is not None
    description = read_description(tmp_path / "run")
    assert description.classes == ("no", "yes")
    samples = rows(read_table(path), description)
    assert samples.shape == (30, *description.sample)


def test_paths_count_from_the_run_file(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('[data]\npath = "people.csv"\ntarget = "bought"\ntest = "more/test.csv"\n')
    data = read_run(str(tmp_path / "run.toml")).data
    assert (data.path, data.test) == (str(tmp_path / "people.csv"), str(tmp_path / "more/test.csv"))


# -- what is wrong ----------------------------------------------------------------------------------------------------

NUMBERS = "\n".join(["a,b,y", *(f"{k},{k * k % 7},{k % 2}" for k in range(12))])
AMOUNTS = text_of([(*row, str(100 + 7 * k)) for k, row in enumerate(PEOPLE)]).replace("bought,100", "bought,spent")
WRONG: dict[str, tuple[str | bytes, dict[str, Any]]] = {
    "no target": (text_of(PEOPLE), {"target": None}),
    "an unknown target": (text_of(PEOPLE), {"target": "bougth"}),
    "an unknown column to ignore": (text_of(PEOPLE), {"ignore": ("Age",)}),
    "an unknown column of words": (text_of(PEOPLE), {"categories": ("shape",)}),
    "the target ignored": (text_of(PEOPLE), {"ignore": ("bought",)}),
    "words ignored": (text_of(PEOPLE), {"ignore": ("colour",), "categories": ("colour",)}),
    "everything ignored": (text_of(PEOPLE), {"ignore": ("age", "colour")}),
    "an empty file": ("", {}),
    "blank lines": ("\n\n", {}),
    "names alone": ("age,colour,bought\n", {}),
    "no names": (NUMBERS[6:], {"target": "y"}),
    "a column without a name": (NUMBERS.replace("a,b", ",b"), {"target": "y"}),
    "a last column without a name": (NUMBERS.replace("\n", ",\n") + ",", {"target": "y"}),
    "one name twice": (NUMBERS.replace("a,b", "b,b"), {"target": "y"}),
    "semicolons": (text_of(PEOPLE, ";"), {}),
    "tabs": (text_of(PEOPLE, "\t"), {}),
    "a short row": (text_of(PEOPLE).replace("32,white", "32"), {}),
    "a long row": (text_of(PEOPLE).replace("32,white", "32,5,white"), {}),
    "a quote left open": (text_of(PEOPLE).replace("32,", '"32,'), {}),
    "latin 1": (text_of(PEOPLE).encode("latin-1"), {}),
    "UTF-16": ("age,bought\n".encode("utf-16-le"), {}),
    "a missing number": (changed(4, 0, ""), {}),
    "missing values": (changed(4, 0, "NA").replace("yes", "?"), {}),
    "every row lacks one": (text_of(PEOPLE).replace("yes", "").replace("no", ""), {"missing": "drop"}),
    "a word among numbers": (changed(4, 0, "abc"), {}),
    "a unit": (changed(4, 0, "31 years"), {}),
    "a number among words": (changed(5, 1, "7"), {}),
    "infinity": (changed(5, 0, "inf"), {}),
    "a number beyond all bounds": (changed(5, 0, "1e999"), {}),
    "a number beyond float32": (changed(5, 0, "1e300"), {}),
    "decimal commas": (
        text_of([PEOPLE[0], *((f"{a},5", b, c) for a, b, c in PEOPLE[1:])], ";"),
        {"separator": ";"},
    ),
    "a few decimal commas": (changed(2, 1, "1,5"), {}),
    "thousands": (text_of([PEOPLE[0], *((f"{a},000", b, c) for a, b, c in PEOPLE[1:])]), {}),
    "decimal commas to learn": (text_of([PEOPLE[0], *((a, b, f"{a},5") for a, b, c in PEOPLE[1:])]), {}),
    "names of people": (text_of([("name", *PEOPLE[0]), *((f"n{a}", a, b, c) for a, b, c in PEOPLE[1:])]), {}),
    "one class": (text_of(PEOPLE).replace("yes", "no"), {}),
    "as many classes as rows": (text_of(PEOPLE), {"target": "age", "task": "classification"}),
    "amounts or classes": (AMOUNTS, {"target": "spent"}),
    "words for amounts": (text_of(PEOPLE), {"task": "regression"}),
    "a word among amounts": (changed(5, 2, "12"), {"task": "regression"}),
    "constant columns": (NUMBERS.replace("a,b,y", "a,b,y").replace(",0", ",1"), {"target": "b", "ignore": ("a",)}),
    "few rows": (text_of(PEOPLE[:9]), {}),
    "settings of tables": (b"", {"name": "it.npz"}),
}


def message(folder: Path, case: str) -> str:
    text, settings = WRONG[case]
    if settings.get("name") == "it.npz":
        np.savez(folder / "source.npz", x_train=np.eye(12), y_train=np.arange(12) % 2)
        text = (folder / "source.npz").read_bytes()
    with pytest.raises(DataError) as caught:
        loaded(folder, text, **settings)
    return str(caught.value).replace(f"{folder}/", "")


def test_every_message(tmp_path: Path, golden: Callable[[Path, str], None]) -> None:
    found = "".join(f"{case}\n  {message(tmp_path, case)}\n" for case in WRONG)
    golden(GOLDEN / "tables.txt", found)


OTHERS: dict[str, str] = {
    "a column is missing": "age\n31\n",
    "a column is named otherwise": "age,color\n31,red\n",
    "another category": "age,colour\n31,red\n45,Red\n",
    "a word for a number": "age,colour\n31,red\nold,red\n",
    "a missing value": "age,colour\n31,red\n,red\n",
    "a ragged row": "age,colour\n31,red\n45\n",
}


def test_every_message_of_rows_to_ask_about(tmp_path: Path, golden: Callable[[Path, str], None]) -> None:
    description = loaded(tmp_path, text_of(PEOPLE)).description
    found: list[str] = []
    for case, text in OTHERS.items():
        (tmp_path / "new.csv").write_text(text)
        with pytest.raises(DataError) as caught:
            rows(read_table(tmp_path / "new.csv"), description)
        found.append(f"{case}\n  {caught.value}\n".replace(f"{tmp_path}/", ""))
    golden(GOLDEN / "rows.txt", "".join(found))


def test_rows_for_a_network_that_knows_arrays(tmp_path: Path) -> None:
    arrays = {"x_train": np.eye(12), "y_train": np.arange(12) % 2}
    np.savez(tmp_path / "it.npz", **arrays)  # type: ignore[arg-type]  # the stub takes allow_pickle for one of them
    description = dataset_of(DataConfig(path=str(tmp_path / "it.npz"))).description
    (tmp_path / "new.csv").write_text("a\n1\n")
    with pytest.raises(DataError, match=r"trained on arrays of shape \(12\), not on a table; give an .npz file"):
        rows(read_table(tmp_path / "new.csv"), description)


def test_a_damaged_file_never_shows_a_traceback(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    whole = text_of(PEOPLE).encode()
    messages: list[str] = []
    for _ in range(300):
        spoilt = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            spoilt[place] = rng.integers(256)
        path = tmp_path / "people.csv"
        path.write_bytes(bytes(spoilt))
        try:
            learn(read_table(path), Columns(target="bought"))
        except DataError as error:
            messages.append(str(error))
    assert len(messages) > 100
    assert all(message.startswith(f"{path}: ") and "\n" not in message for message in messages)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(DataError, match=r"cannot be read: (No such file|Is a directory)"):
            read_table(path)
