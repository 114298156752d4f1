"""What a network said of samples, and the files that hold it.

predicted,p(no),p(yes)      labels as in the training data, and how probable each is
yes,0.125,0.875

predicted_1,predicted_2     numbers; `predicted` where there is one a sample
0.5,-3
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from growir.errors import ExportError

PREDICTED = "predicted"


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What a network said, sample by sample.

    Attributes:
        predicted: (n,) labels as in the training data; of a regression float64, (n,), or (n, outputs) of several.
        classes: The labels in the order of the probabilities; None for a regression.
        probabilities: (n, classes) float64, of which each row sums to 1; None for a regression.
    """

    predicted: NDArray[Any]
    classes: tuple[bool | int | str, ...] | None
    probabilities: NDArray[np.float64] | None

    def header(self) -> list[str]:
        """The names of the columns of `to_csv`."""
        if self.classes is not None:
            return [PREDICTED, *(f"p({label})" for label in self.classes)]
        if self.predicted.ndim == 1:
            return [PREDICTED]
        return [f"{PREDICTED}_{k}" for k in range(1, self.predicted.shape[1] + 1)]

    def to_csv(self) -> str:
        """A table with a line for each sample: six digits of probabilities, nine of numbers, which a float32 has."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.header())
        if self.probabilities is None:
            writer.writerows(_numbers(row, 9) for row in self.predicted.reshape(len(self.predicted), -1).tolist())
        else:
            labels, shares = self.predicted.tolist(), self.probabilities.tolist()
            writer.writerows([label, *_numbers(row, 6)] for label, row in zip(labels, shares))
        return text.getvalue()

    def to_npz(self) -> bytes:
        """An .npz file with `predicted`; of a classification also with `classes` and `probabilities`."""
        arrays: dict[str, Any] = {PREDICTED: self.predicted}
        if self.probabilities is not None:
            arrays |= {"classes": np.array(self.classes), "probabilities": self.probabilities}
        data = io.BytesIO()
        np.savez(data, **arrays)
        return data.getvalue()


def _numbers(row: Sequence[float], digits: int) -> list[str]:
    return [f"{number:.{digits}g}" for number in row]


WRITERS: dict[str, Callable[[Answers], bytes]] = {
    ".csv": lambda answers: answers.to_csv().encode(),
    ".npz": Answers.to_npz,
}


def writer_of(path: Path) -> Callable[[Answers], bytes]:
    """What makes the bytes of a file of this name. Raises ExportError if nothing does."""
    found = WRITERS.get(path.suffix.lower())
    if found is None:
        raise ExportError(f"{path}: answers can be written as .csv or .npz; give a name that ends in one")
    return found


def is_answers(path: Path) -> bool:
    """Whether a file holds answers and nothing else: somebody's own column beside them is not to be lost."""
    if path.suffix.lower() == ".npz":
        named = {f"{PREDICTED}.npy"}, {f"{PREDICTED}.npy", "classes.npy", "probabilities.npy"}
        return zipfile.is_zipfile(path) and set(zipfile.ZipFile(path).namelist()) in named
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        columns = next(csv.reader(file), list[str]())
    if columns[:1] == [PREDICTED]:
        return all(name.startswith("p(") and name.endswith(")") for name in columns[1:])
    return bool(columns) and columns == [f"{PREDICTED}_{k}" for k in range(1, len(columns) + 1)]
