"""`growir cells`: a search from a run file to a trained network, stopped and gone on with, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from growir import Network
from growir.cells import cells_of, genotype, genotype_of
from growir.cellsearch import evaluating
from growir.cellsearch.command import run_search
from growir.cellsearch.config import EvaluationConfig, read_search
from growir.errors import GrowirError, RunError
from growir.growth import running
from growir.network import load_graph
from tests.cellsearch.small import RUN, write_run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search that was not stopped."""
    folder = tmp_path_factory.mktemp("cells")
    run_search(write_run(folder), out=folder / "out", resume=False, quiet=True)
    return folder / "out"


def test_a_search_leaves_cells_and_a_trained_network(whole: Path) -> None:
    summary = json.loads((whole / "summary.json").read_text())
    found = genotype(whole / "genotype.txt")
    assert str(found) == summary["genotype"]
    network = Network.load(whole / "network")
    assert genotype_of(network.graph) == found
    assert summary["evaluation"]["parameters"] == network.graph.costs().parameters
    assert set(summary["evaluation"]["test"]) == {"loss", "accuracy"}
    assert summary["search"]["growths"] == 2
    assert (whole / "network.onnx").stat().st_size > 1000
    assert not (whole / "evaluation").exists()
    assert "<svg" in (whole / "cells.svg").read_text()
    report = (whole / "report.txt").read_text()
    assert "inner channels of 2 normal cells" in report
    assert str(found) in report
    for kind in ("normal", "reduce"):
        (at,) = cells_of(load_graph(whole / f"{kind}.json"))
        assert at.kind == kind
        assert [(e.operation, e.source) for e in at.edges] == list(getattr(found, kind))


def test_only_inner_channels_grow_and_cells_of_a_kind_alike(whole: Path) -> None:
    grown = load_graph(whole / "search")
    history = grown.history
    assert history is not None
    cells = cells_of(grown)
    first = {at.kind: at for at in reversed(cells)}
    before = {at.module: at for at in cells_of(history.base)}
    for at in cells:
        assert [each.inner for each in at.operations] == [each.inner for each in first[at.kind].operations]
    assert any(
        (now.inner or 0) > (was.inner or 0)
        for at in cells
        for now, was in zip(at.operations, before[at.module].operations, strict=True)
    )
    table = {space: width for space, width in _widths(grown).items() if "pointwise1" not in space}
    assert table == {space: width for space, width in _widths(history.base).items() if "pointwise1" not in space}


def _widths(graph: Any) -> dict[str, int]:
    from growir import channel_spaces

    return {space.name: space.width for space in channel_spaces(graph)}


def test_what_is_finished_is_not_done_again(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("growir.cellsearch.command.train", None)
    lines = run_search(write_run(whole.parent), out=whole, resume=True, quiet=True)
    assert lines[0] == (whole / "report.txt").read_text().rstrip()


def test_found_cells_are_whole_documents_with_the_channels_that_they_grew(whole: Path) -> None:
    grown = load_graph(whole / "search")
    for kind in ("normal", "reduce"):
        graph = load_graph(whole / f"{kind}.json")
        assert [each.name for each in graph.inputs] == ["s0", "s1"]
        (at,) = cells_of(graph)
        inner = {each.edge: each.inner for each in next(c for c in cells_of(grown) if c.kind == kind).operations}
        assert all(each.inner == inner[each.edge] for each in at.operations)
        assert any(node.name.startswith("preprocess0.") for node in graph.nodes)


@pytest.mark.parametrize("kept", [None, "{", "{}"])
def test_a_search_whose_summary_is_gone_says_so(kept: str | None, whole: Path, tmp_path: Path) -> None:
    import shutil

    path = write_run(tmp_path)
    shutil.copytree(whole, tmp_path / "out")
    (tmp_path / "out" / "summary.json").unlink()
    (tmp_path / "out" / "run.toml").unlink()
    place = tmp_path / "out" / "search" / "summary.json"
    place.unlink()
    if kept is not None:
        place.write_text(kept)
    (tmp_path / "out" / "run.toml").write_text(read_search(path).to_toml())
    with pytest.raises(RunError, match="the search is over, but this is no summary of it"):
        run_search(path, out=tmp_path / "out", resume=True, quiet=True)


@pytest.mark.parametrize("when", ["search", "training"])
def test_a_search_that_is_stopped_goes_on_to_the_same_network(
    when: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_run(tmp_path)
    calls = [0]

    class Stop(KeyboardInterrupt):
        pass

    if when == "search":
        real = running.start_run

        def stopped(*args: Any, observer: Any, **more: Any) -> Any:
            import dataclasses

            def accepted(step: int, graph: Any) -> None:
                calls[0] += step > 0
                if calls[0] == 2:
                    raise Stop

            return real(*args, observer=dataclasses.replace(observer, accepted=accepted), **more)

        monkeypatch.setattr("growir.cellsearch.searching.start_run", stopped)
    else:

        def cut(*args: Any) -> Any:
            def heard(done: int, total: int, loss: float) -> None:
                if done == 2:
                    raise Stop

            network, images, settings, seed, folder, _ = args
            return evaluating.train(network, images, settings, seed, folder, heard)

        monkeypatch.setattr("growir.cellsearch.command.train", cut)
    with pytest.raises(KeyboardInterrupt):
        run_search(path, out=tmp_path / "out", resume=False, quiet=True)
    monkeypatch.undo()
    assert not (tmp_path / "out" / "summary.json").exists()
    run_search(path, out=tmp_path / "out", resume=True, quiet=True)
    found, expected = (Network.load(folder / "network") for folder in (tmp_path / "out", whole))
    assert found.graph.hash == expected.graph.hash
    assert all(np.array_equal(found.arrays[key], expected.arrays[key]) for key in expected.arrays)


def test_a_genotype_that_is_given_is_only_trained(tmp_path: Path) -> None:
    text = 'genotype = "DARTS_V1"\n' + RUN.replace("epochs = 3", "epochs = 1")
    run_search(write_run(tmp_path, text), out=tmp_path / "out", resume=False, quiet=True)
    assert not (tmp_path / "out" / "search").exists()
    assert genotype_of(Network.load(tmp_path / "out" / "network").graph) == genotype("DARTS_V1")


def test_a_genotype_beside_the_run_file_is_found_and_none_may_be_trained(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text(str(genotype("SNAS")))
    text = 'genotype = "mine.txt"\n' + RUN.replace("epochs = 3", "epochs = 0")
    lines = run_search(write_run(tmp_path, text), out=tmp_path / "out", resume=False, quiet=True)
    assert str(genotype("SNAS")) in map(str, lines)
    assert not (tmp_path / "out" / "network").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("nodes = 1", "nodes = 0", r"\[cells\]: nodes is 0"),
        ("sep_conv_3x3", "sep_conv", r"\[cells\]: .*there is no operation 'sep_conv'.* Did you mean 'sep_conv_3x3'"),
        ("cells = 3", "cells = 1", r"\[cells\]: .*a search needs a normal and a reduction cell"),
        ("inner = 1", 'between = {"2-2" = ["skip_connect"]}', r"\[cells\]: .*a cell has no cycle"),
        ("inner = 1", 'between = {"0-2" = []}', r"\[cells\]: between"),
        ("inner = 1", 'between = {"ab" = ["skip_connect"]}', r"'ab' is no edge"),
        ("[search.train]", "[search.training]", r"\[search\]: there is no 'training' in it; it has \[search.policy\]"),
        ("fresh_units = 1", "fresh_unit = 1", r"unknown attribute 'fresh_unit'"),
        ("epochs = 3", "epochs = -1", r"\[evaluation\]: epochs is -1"),
        ('path = "stripes.npz"', 'path = "stripe.npz"', r"stripe.npz.*No such file"),
        ('path = "stripes.npz"', 'path = "stripes.npz"\nstandardise = "none"', r"\[data\] standardise: is said where"),
        ("threads = 1", 'genotype = "DARTS_V9"', "there is no genotype 'DARTS_V9'"),
        ("threads = 1", 'operation = "x"', "unknown attribute 'operation'"),
        ("reductions = [1]", "reductions = [0, 1, 2]", "a search needs a normal and a reduction cell"),
        ("[data]", "[data", "this is not a valid TOML run file"),
        ("threads = 1", "threads = 1\nclasses = 7", r"classes is 7, but .*stripes.npz has 2; leave it out"),
        ("inner = 1", "threshold = 2e6", r"\[cells\]: threshold is 2000000.0"),
        ("inner = 1", 'between = {"0-2" = ["skip_connect", "sep_conv_3x3"]}', "what is left of them is no genotype"),
        ("inner = 1", 'between = {"²-2" = ["skip_connect"]}', "is no edge"),
        ('["skip_connect", "sep_conv_3x3", "dil_conv_3x3"]', '["skip_connect"]', "none has inner channels"),
        (
            "[search.policy]\nfresh_units = 1\nlearn_steps = 2\njudge_batches = 1",
            '[search.policy]\nname = "random"',
            "random has no setting `sites`",
        ),
        ("learn_steps = 2", 'sites = ["zzz"]', "sites: no space that can grow is called 'zzz'"),
        ("epochs = 3", 'epochs = 3\ndevice = "cuda"', "cuda"),
        ("epochs = 3", 'epochs = 3\noptimizer = "LBFGS"', "LBFGS"),
        ("epochs = 3", 'epochs = 3\nrate = {name = "cosine", warmup = 1000}', "warmup"),
        (
            "reductions = [1]\nwidth = 3",
            "reductions = []\nwidth = 3\nauxiliary = 0.4",
            r"auxiliary: a second head reads",
        ),
        ("reductions = [1]\nwidth = 3", "reductions = [30]\nwidth = 3", r"\[evaluation\] reductions names cell 30"),
    ],
)
def test_bad_run_files_are_refused_before_anything_is_written(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = write_run(tmp_path, RUN.replace(old, new, 1))
    with pytest.raises(GrowirError, match=message):
        run_search(path, out=tmp_path / "out", resume=False, quiet=True)
    assert not (tmp_path / "out").exists()


def test_what_others_have_in_a_folder_stays(tmp_path: Path) -> None:
    mine = tmp_path / "out" / ".mine.new-stuff"
    mine.mkdir(parents=True)
    (mine / "thesis").touch()
    with pytest.raises(RunError, match="this folder is not empty"):
        run_search(write_run(tmp_path), out=tmp_path / "out", resume=False, quiet=True)
    assert (mine / "thesis").exists()


def test_settings_of_the_usual_optimizer_are_said_one_by_one() -> None:
    found = EvaluationConfig.model_validate({"optimizer": {"learning_rate": 0.1}}).optimizer
    assert (found.name, found.learning_rate, found.weight_decay, found.keywords) == (
        "SGD",
        0.1,
        3e-4,
        {"momentum": 0.9},
    )
    found = EvaluationConfig.model_validate({"optimizer": "Adam"}).optimizer
    assert (found.name, found.weight_decay, found.keywords) == ("Adam", None, {})


def test_other_settings_do_not_go_on(whole: Path, tmp_path: Path) -> None:
    path = write_run(whole.parent, RUN.replace("width = 2", "width = 3", 1))
    with pytest.raises(RunError, match="the run was started with another cells; give what"):
        run_search(path, out=whole, resume=True, quiet=True)
    path = write_run(whole.parent)
    with pytest.raises(RunError, match="this folder is not empty"):
        run_search(path, out=whole, resume=False, quiet=True)
    with pytest.raises(RunError, match="there is no run to resume here"):
        run_search(path, out=tmp_path / "none", resume=True, quiet=True)


def test_images_that_are_too_small_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    path = write_run(tmp_path, RUN.replace("reductions = [1]", "reductions = [0, 1]"))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 1, 1, 3)).astype(np.float32)
    np.savez(tmp_path / "stripes.npz", x_train=x, y_train=np.arange(40) % 2)
    with pytest.raises(RunError, match=r"\[cells\] cell 0 cannot halve maps"):
        run_search(path, out=tmp_path / "out", resume=False, quiet=True)
    assert not (tmp_path / "out").exists()


def test_amounts_are_refused(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    x = np.random.default_rng(0).normal(size=(40, 1, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "stripes.npz", x_train=x, y_train=x[:, 0, 0, 0])
    with pytest.raises(GrowirError, match="cells are searched for by classes, but its targets are amounts"):
        run_search(path, out=tmp_path / "out", resume=False, quiet=True)
