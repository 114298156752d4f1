"""Data: what is understood, what is refused and how, and what the empty graph takes from it."""

from __future__ import annotations

import io
import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

import growir
from growir.data.dataset import Dataset
from growir.errors import DataError
from growir.growth.config import DataConfig
from growir.growth.data import check_data, load_data, split_parts, target_statistics
from growir.growth.policies.dag.empty import empty_network
from growir.network import Network
from growir.testing import outputs
from tests.cli.command import growir as command
from tests.growth.problems import SMALL, Arrays, curve, spirals

RING, CURVE = spirals(), curve()
ONE_HOT = np.eye(2)


def ring(**arrays: Any) -> Arrays:
    return {**RING, **arrays}


def bent(**arrays: Any) -> Arrays:
    return {**CURVE, **arrays}


def both(change: Callable[[NDArray[Any]], NDArray[Any]], key: str, base: Arrays = RING) -> Arrays:
    """The problem with both parts of x or y changed."""
    return {k: change(array) if k.startswith(key) else array for k, array in base.items()}


def checked(arrays: Arrays, **settings: Any) -> Dataset:
    return check_data(arrays, DataConfig(**settings), "it")


def predicted(network: Network, x: NDArray[np.float32]) -> NDArray[Any]:
    return outputs(network, [torch.from_numpy(x)])[0]


# -- what is understood -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda y: y[:, None],
        lambda y: y > 0,
        lambda y: y.astype(np.uint8),
        lambda y: y.astype(">i2"),
        lambda y: y.astype(np.uint64),
        lambda y: ONE_HOT[y],
        lambda y: ONE_HOT[y].astype(bool),
        lambda y: ONE_HOT[y].astype(np.int8),
    ],
)
def test_classes_in_every_spelling(change: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
    data = checked(both(change, "y"))
    assert (data.task, data.outputs) == ("classification", 2)
    assert data.y_train.dtype == np.int64
    assert np.array_equal(data.y_train, RING["y_train"])
    assert np.array_equal(data.y_test, RING["y_test"])


def test_one_part_may_be_one_hot_and_the_other_not() -> None:
    assert np.array_equal(checked(ring(y_train=ONE_HOT[RING["y_train"]])).y_train, RING["y_train"])
    assert np.array_equal(checked(ring(y_test=ONE_HOT[RING["y_test"]])).y_test, RING["y_test"])


def test_the_task_may_be_said() -> None:
    floats = both(lambda y: y.astype(float), "y")
    assert checked(floats).task == "classification"
    assert checked(floats, task="regression").y_train.dtype == np.float32
    assert checked(AMOUNTS, task="regression").outputs == 1
    assert checked(RING, task="regression").y_train.shape == (180, 1)
    assert checked(both(lambda y: ONE_HOT[y], "y"), task="regression").y_train.shape == (180, 2)


def test_targets_of_one_number() -> None:
    flat = checked(both(lambda y: y[:, 0], "y", CURVE))
    assert (flat.task, flat.outputs, flat.y_train.shape) == ("regression", 1, (180, 1))
    mixed = checked(bent(y_train=CURVE["y_train"][:, 0], y_test=CURVE["y_test"][:, :1]))
    assert np.array_equal(mixed.y_train, flat.y_train)


SPELLINGS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "float16": lambda x: x.astype(np.float16),
    "long double": lambda x: x.astype(np.longdouble),
    "big endian": lambda x: x.astype(">f4"),
    "Fortran order": np.asfortranarray,
    "strided": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "bool": lambda x: x > 0,
    "uint8 images": lambda x: (np.abs(x[:, :, None] * x[:, None, :]) * 20).astype(np.uint8),
    "five axes": lambda x: x[:, :, None, None, None] * np.ones((1, 1, 2, 1, 2)),
    "one feature": lambda x: x[:, :1],
    "a constant feature": lambda x: np.column_stack([x, np.full(len(x), 0.1)]),
    "units from nano to giga": lambda x: x * [1e-9, 1.0, 1e9],
    "far from zero": lambda x: x + 1e4,
    "large": lambda x: x * 1e29,
    "small": lambda x: x * 1e-28,
}


@pytest.mark.parametrize("name", SPELLINGS)
@pytest.mark.parametrize("standardise", ["auto", "global", "none"])
def test_inputs_of_every_kind_grow_and_run_as_they_are(name: str, standardise: str, tmp_path: Path) -> None:
    arrays = both(SPELLINGS[name], "x")
    if standardise == "none" and name == "large":
        with pytest.raises(DataError, match="standardise the data"):
            growir.grow(None, arrays, **SMALL, standardise=standardise)
        return
    budget = {"parameters": 60, "steps": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        found = growir.grow(None, arrays, **{**SMALL, "budget": budget}, standardise=standardise, out=tmp_path / "run")
    x = arrays["x_test"].astype(np.float32)
    session = onnxruntime.InferenceSession(tmp_path / "run" / "model.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["N", *x.shape[1:]]
    scores = session.run(None, {"x": x})[0]
    assert np.isfinite(scores).all()
    assert found.summary["test_after_fit"]["accuracy"] == np.mean(scores.argmax(axis=1) == arrays["y_test"])


def test_a_feature_of_small_unit_is_worth_as_much_as_one_of_large() -> None:
    units = both(SPELLINGS["units from nano to giga"], "x")
    found = [growir.grow(None, arrays, **SMALL).summary["test_after_fit"]["accuracy"] for arrays in (RING, units)]
    assert found[0] == found[1] > 0.7  # one in two by chance


@pytest.mark.parametrize("scale", [1e-28, 1.0, 1e27])
def test_targets_of_every_scale_grow_alike(scale: float) -> None:
    found = growir.grow(None, both(lambda y: y * scale, "y", CURVE), **SMALL).summary
    assert found["test_after_fit"]["mse"] / scale**2 == pytest.approx(9.4, rel=0.2)


def test_a_constant_target_beside_others_is_kept() -> None:
    arrays = both(lambda y: np.column_stack([y, np.full(len(y), 0.1)]), "y", CURVE)
    assert target_statistics(checked(arrays))[1][2] == 1
    found = growir.grow(None, arrays, **SMALL)
    assert np.allclose(predicted(found.network, checked(arrays).x_test)[:, 2], 0.1, atol=0.1)


def test_few_samples() -> None:
    for count in (9, 10, 12):
        arrays = {key: array[:count] if key.endswith("train") else array[:1] for key, array in RING.items()}
        assert np.isfinite(growir.grow(None, arrays, **SMALL).summary["test_after_fit"]["loss"])


def test_a_class_that_one_part_lacks() -> None:
    y = RING["y_train"].copy()
    y[0] = 2
    found = growir.grow(None, ring(y_train=y), **SMALL)
    assert found.network.graph.costs().parameters >= 3
    assert found.summary["steps"] > 0


# -- what the data teaches before any weight --------------------------------------------------------------------------


def test_inputs_that_never_vary_are_left_out() -> None:
    arrays = both(lambda x: np.column_stack([np.full(len(x), 0.1), x, np.zeros(len(x))]), "x")
    arrays["x_test"][:, 0] = 1e6  # and if one does at last, nothing happens
    data = checked(arrays)
    network = empty_network(data, DataConfig(), "ring")
    assert [node.op.kind() for node in network.graph.nodes] == ["select", "standardise", "bias"]
    assert network.graph.nodes[0].op.attributes() == {"indices": [1, 2, 3]}
    assert (predicted(network, data.x_test) == 0).all()


def test_inputs_that_hardly_vary_are_left_out_where_that_is_asked() -> None:
    arrays = both(lambda x: x * [1.0, 0.01, 3.0], "x")
    data = checked(arrays)

    def left(share: float) -> list[int]:
        first = empty_network(data, DataConfig(variance=share), "ring").graph.nodes[0]
        return first.op.attributes()["indices"] if first.op.kind() == "select" else [0, 1, 2]

    variance = data.x_train.var(axis=0, dtype=np.float64)
    largest = variance[2] / variance.sum()
    assert left(largest - 1e-6) == [2]
    assert left(largest + 1e-6) == left(0.99) == [0, 2]
    assert left(1 - 1e-9) == left(1.0) == [0, 1, 2]


def test_images_have_one_mean_and_std_and_features_their_own() -> None:
    images = checked(both(lambda x: x[:, :, None] * np.ones(2), "x"))
    assert empty_network(images, DataConfig(), "it").arrays["standard.mean"].shape == (1,)
    assert empty_network(checked(RING), DataConfig(), "it").arrays["standard.mean"].shape == (3,)
    bare = empty_network(checked(RING), DataConfig(standardise="none"), "it")
    assert [node.op.kind() for node in bare.graph.nodes] == ["bias"]


def test_parts_are_disjoint_and_all_there_is() -> None:
    for samples in (9, 10, 11, 1000):
        parts = split_parts(samples, seed=1)
        whole = [*parts.opt.tolist(), *parts.ls.tolist(), *parts.gr.tolist()]
        assert sorted(whole) == list(range(samples))
        assert len(parts.opt) == len(parts.ls) == samples // 3 <= len(parts.gr)
    assert split_parts(30, 1).opt.tolist() != split_parts(30, 2).opt.tolist()


# -- what is refused --------------------------------------------------------------------------------------------------

X, Y = RING["x_train"], RING["y_train"]
AMOUNTS = both(lambda y: 100 * y[:, 0].astype(int), "y", CURVE)
REFUSED: dict[str, tuple[Arrays, str]] = {
    "wrong keys": (
        {"x": X, "y": Y},
        "y_train missing; it holds x, y, but x_train and y_train are needed, and",
    ),
    "a missing key": ({k: a for k, a in RING.items() if k != "y_test"}, "y_test missing"),
    "nothing": ({}, "it holds nothing"),
    "objects": (ring(x_train=np.array([{"a": 1}] * 180, dtype=object)), "pickles and are refused"),
    "strings": (ring(x_train=X.astype(str)), "x_train is of <U32, but real numbers are needed"),
    "words and numbers": (ring(y_train=Y.astype(str)), "y_test holds numbers, but y_train words"),
    "complex": (ring(x_train=X + 1j), "x_train is of complex128"),
    "dates": (ring(x_train=X.astype("M8[s]")), "datetime64"),
    "records": (ring(x_train=np.zeros(180, [("a", float)])), "real numbers"),
    "a NaN": (ring(x_train=np.where(X.max() <= X, np.nan, X)), "x_train: 1 of its 540 numbers are NaN or infinite"),
    "infinity": (bent(y_test=CURVE["y_test"] * np.inf), "y_test: 120 of its 120 numbers"),
    "one class": (ring(y_train=Y * 0), "one class only, 0"),
    "one class, one-hot": (ring(y_train=ONE_HOT[Y * 0]), "one class only, 0"),
    "amounts": (AMOUNTS, 'could be amounts or classes; say task = "regression" or task = "classification"'),
    "float amounts": ({k: a.astype(float) for k, a in AMOUNTS.items()}, "which could be amounts or classes"),
    "names": (ring(y_train=np.arange(180).astype(str)), "holds 180 classes among 180 samples (0, 1, 10, 100, 101, 102"),
    "a one-hot class without samples": (both(lambda y: np.eye(3)[y], "y"), "no sample of class 2; leave column 2 of"),
    "one-hot of two widths": (ring(y_train=ONE_HOT[Y], y_test=np.eye(3)[RING["y_test"]]), "(180, 2) and (60, 3)"),
    "a class only in the test": (ring(y_test=RING["y_test"] + 1), "y_test holds class 2, which y_train does not"),
    "no samples": (ring(x_train=X[:0], y_train=Y[:0]), "x_train holds no samples"),
    "no test samples": (ring(x_test=X[:0], y_test=Y[:0]), "x_test holds no samples"),
    "no numbers": (both(lambda x: x[:, :0], "x"), "at least one number each"),
    "no targets": (both(lambda y: y[:, :0], "y", CURVE), "y_train must be (samples,) or (samples, outputs)"),
    "targets of three axes": (both(lambda y: y[:, None], "y", CURVE), "but is (180, 1, 2)"),
    "targets of two sizes": (bent(y_test=CURVE["y_test"][:, :1]), "y_train holds 2 and y_test 1 targets a sample"),
    "a scalar": (ring(y_train=np.array(3)), "y_train holds no samples"),
    "x of one axis": (both(lambda x: x[:, 0], "x"), "x_train must be (samples, ...)"),
    "two shapes": (ring(x_test=RING["x_test"][:, :2]), "(3,) in x_train and (2,) in x_test"),
    "two lengths": (ring(y_train=Y[:-1]), "x_train holds 180 samples, but y_train 179"),
    "eight samples": (ring(x_train=X[:8], y_train=Y[:8]), "8 samples; at least 9 are needed"),
    "beyond float32": (ring(x_train=X * 1e300), "x_train holds numbers as large as 4e+300; scale them to below 1e+30"),
    "far targets": (both(lambda y: y * 1e30, "y", CURVE), "y_train holds numbers as large as"),
    "tiny": (both(lambda x: x * 1e-42, "x"), "all samples of x_train are the same in float32"),
    "too far from zero": (both(lambda x: x + 1e12, "x"), "the same in float32"),
    "constant inputs": (both(lambda x: x * 0 + 0.1, "x"), "all samples of x_train are the same"),
    "constant targets": (both(lambda y: y * 0 + 0.1, "y", CURVE), "y_train: all targets are the same"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_data_that_cannot_be_used(name: str, tmp_path: Path) -> None:
    arrays, words = REFUSED[name]
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]  # the stub takes allow_pickle for one of them
    refused(path, words)
    if name != "objects":  # pickles come from files only
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            with pytest.raises(DataError) as caught:
                growir.grow(None, arrays)
        assert str(caught.value).startswith("data: ")
        assert words in str(caught.value)


def refused(path: Path, *words: str) -> None:
    before = sorted(path.parent.iterdir())
    done = command("grow", path, "--out", path.parent / "run")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"growir: error: {path}: ")
    assert done.err.count("\n") == 1
    for word in words:
        assert word in done.err
    assert sorted(path.parent.iterdir()) == before


def test_class_labels_with_fractions() -> None:
    with pytest.raises(DataError, match="y_train holds fractions"):
        checked(both(lambda y: y + 0.5, "y"), task="classification")
    with pytest.raises(DataError, match=r"one class per sample, or one-hot rows, but is \(180, 2\)"):
        checked(CURVE, task="classification")


def test_files_that_are_no_npz(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    refused(path, "cannot be read", "No such file")
    path.mkdir()
    refused(path, "cannot be read", "Is a directory")
    path.rmdir()
    for content in (b"", b"hello", b"\x80\x04\x95", os.urandom(1000)):
        path.write_bytes(content)
        refused(path, "this is not an .npz file; np.savez(path, x_train=..., ")
    with path.open("wb") as file:
        np.save(file, X)
    refused(path, "this is not an .npz file")
    with zipfile.ZipFile(path, "w") as archive:
        for key in RING:
            archive.writestr(key, b"text")
    refused(path, "x_train is of |S4, but real numbers")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    path.touch(mode=0)
    refused(path, "Permission denied")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_files_never_show_a_traceback(save: Callable[..., None], tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    buffer = io.BytesIO()
    save(buffer, **{key: array[:20] for key, array in RING.items()})
    whole = buffer.getvalue()
    rng = np.random.default_rng(0)
    wrong = [whole[: len(whole) * k // 20] for k in range(20)]
    for _ in range(300):
        spoilt = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            spoilt[place] = rng.integers(256)
        wrong.append(bytes(spoilt))
    messages = []
    for content in wrong:
        path.write_bytes(content)
        try:
            load_data(DataConfig(path=str(path)))
        except DataError as error:
            messages.append(str(error))
    assert len(messages) > 100
    assert all(message.startswith(f"{path}: ") and "\n" not in message for message in messages)


def test_a_header_that_promises_more_than_there_is(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 1000), }"
    lie = b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        for key in RING:
            archive.writestr(f"{key}.npy", lie)
    refused(path, "damaged")
