"""Files that hold answers and nothing else, which alone may be replaced by new ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from growir.data.answers import Answers, is_answers
from growir.data.description import Description
from growir.data.samples import samples
from growir.errors import DataError

LABELS = Answers(np.array(["a", "b, c"]), ("a", "b, c"), np.array([[1.0, 0.0], [0.0, 1.0]]))
ONE = Answers(np.array([0.5, 2.0]), None, None)
TWO = Answers(np.array([[0.5, 2.0]]), None, None)


@pytest.mark.parametrize("answers", [LABELS, ONE, TWO])
def test_answers_are_known_again(answers: Answers, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(answers.to_csv())
    (tmp_path / "a.npz").write_bytes(answers.to_npz())
    assert is_answers(tmp_path / "a.csv")
    assert is_answers(tmp_path / "a.npz")


@pytest.mark.parametrize("text", ["predicted,actual\n1,2\n", "predicted,p(a),note\n", "predicted_1,x\n", "a\n", ""])
def test_a_column_of_ones_own_is_not_lost(text: str, tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text(text)
    assert not is_answers(tmp_path / "own.csv")


def test_an_array_of_ones_own_is_not_lost(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", predicted=np.zeros(3), mine=np.zeros(3))
    assert not is_answers(tmp_path / "own.npz")


def test_one_number_a_sample_has_no_axis_of_its_own() -> None:
    assert ONE.to_csv() == "predicted\n0.5\n2\n"
    assert TWO.to_csv() == "predicted_1,predicted_2\n0.5,2\n"


def test_an_array_that_promises_more_than_there_is(tmp_path: Path) -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 1000), }\n"
    path = tmp_path / "x.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(DataError, match=r"x\.npy: this \.npy file is damaged: .*; write it anew with np\.save"):
        samples(path, Description(task="regression", sample=(2,), outputs=1))
