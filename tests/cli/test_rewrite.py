"""`growir rewrite`: passes from the command line, on documents and on networks; nothing is written where one fails."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from growir.network import Network, load_graph
from growir.passes import Widen
from tests.cli.command import GOLDEN, flat, growir, process

RESIDUAL = GOLDEN / "inspect" / "residual.json"
WIDEN = {"pass": "widen", "node": "stem", "by": 4}
AGAIN = {"pass": "widen", "node": "mix", "by": 2, "seed": 3}


@pytest.fixture
def network(tmp_path: Path) -> Path:
    Network.init(load_graph(RESIDUAL), seed=1).save(tmp_path / "net")
    return tmp_path / "net"


def test_a_document_gives_a_document(tmp_path: Path, golden: Callable[[Path, str], None]) -> None:
    out = tmp_path / "out.json"
    for _ in range(2):  # the second replaces the first
        done = growir("rewrite", RESIDUAL, "--pass", json.dumps([WIDEN, AGAIN]), "-o", out)
        assert (done.code, done.err) == (0, "")
    golden(GOLDEN / "rewrite.txt", done.out.replace(str(tmp_path), "."))
    graph = load_graph(out)
    assert graph.history is not None
    assert [step.fields["by"] for step in graph.history.steps] == [4, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def test_a_network_gives_a_network(network: Path, tmp_path: Path) -> None:
    done = growir("rewrite", network, "--pass", json.dumps(WIDEN), "--pass", json.dumps(AGAIN), "-o", tmp_path / "out")
    assert (done.code, done.err) == (0, "")
    found = Network.load(tmp_path / "out")
    wanted = Network.load(network).apply(Widen(node="stem", by=4)).apply(Widen(node="mix", by=2, seed=3))
    assert found.graph.hash == wanted.graph.hash
    assert all(np.array_equal(found.arrays[key], wanted.arrays[key]) for key in wanted.arrays)


def test_in_place(network: Path) -> None:
    assert growir("rewrite", network, "--pass", json.dumps(WIDEN), "-o", network).code == 0
    assert Network.load(network).history is not None


def test_given_weights(network: Path, tmp_path: Path) -> None:
    block = np.full((4, 3, 3, 3), 0.5)
    step = {**WIDEN, "values": {"stem.weight": block.tolist()}}
    done = growir("rewrite", network, "--pass", json.dumps(step), "-o", tmp_path / "out")
    assert (done.code, done.err) == (0, "")
    assert np.array_equal(Network.load(tmp_path / "out").arrays["stem.weight"][16:], block)


@pytest.mark.parametrize("what", ["network", "document"])
def test_verify(what: str, network: Path, tmp_path: Path) -> None:
    source = network if what == "network" else RESIDUAL
    done = growir("rewrite", source, "--pass", json.dumps(WIDEN), "-o", tmp_path / "out", "--verify")
    assert (done.code, done.err) == (0, "")
    assert "preserves exact, verified" in done.out


@pytest.mark.parametrize("what", ["network", "document"])
def test_verify_says_how_far_an_approximation_goes(what: str, network: Path, tmp_path: Path) -> None:
    prune = {"pass": "prune", "node": "stem", "channels": [0]}
    done = growir(
        "rewrite",
        network if what == "network" else RESIDUAL,
        "--pass",
        json.dumps(prune),
        "-o",
        tmp_path / "o",
        "--verify",
    )
    assert (done.code, done.err) == (0, "")
    assert re.search(r"preserves approximate, measured: outputs move by at most \d\.\de-0\d of", flat(done.out))


@pytest.mark.parametrize(
    "text", ['{"pass": "extend", "node": "head", "by": 2}', '{"pass": "widen", "node": "head", "by": 2}']
)
def test_more_outputs_say_what_callers_do(text: str, network: Path, tmp_path: Path) -> None:
    done = growir("rewrite", network, "--pass", text, "-o", tmp_path / "out", "--verify")
    assert (done.code, done.err) == (0, "")
    assert "preserves exact, verified" in flat(done.out)
    _, callers = done.out.split("\n   ", 1)
    assert flat(callers).startswith(
        "output head is (N, 12) where it was (N, 10): entries 10 to 11 of axis 1 are new; targets, class weights "
        "and metrics that count them must follow"
    )


def test_verify_measures(network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("growir.backends.torch_fx.probe.largest_change", lambda *args: {"head": 0.25})
    for source in (network, RESIDUAL):
        done = growir("rewrite", source, "--pass", json.dumps(WIDEN), "-o", tmp_path / "out", "--verify")
        assert (done.code, done.out) == (2, "")
        assert "changed by 2.5e-01" in done.err
        assert not (tmp_path / "out").exists()


def test_from_a_file_and_from_standard_input(tmp_path: Path) -> None:
    (tmp_path / "passes.json").write_text(json.dumps([WIDEN]), encoding="utf-8")
    outs = [tmp_path / f"{k}.json" for k in range(3)]
    assert growir("rewrite", RESIDUAL, "--pass", f"@{tmp_path / 'passes.json'}", "-o", outs[0]).code == 0
    assert growir("rewrite", RESIDUAL, "--pass", json.dumps(WIDEN), "-o", outs[1]).code == 0
    code = f"import io; sys.stdin = io.StringIO({json.dumps(WIDEN)!r}); main()"
    assert process("rewrite", RESIDUAL, "--pass", "-", "-o", outs[2], code=code).code == 0
    assert len({out.read_text(encoding="utf-8") for out in outs}) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("widen", ("not valid JSON", "@FILE")),
        ("{", ("not valid JSON",)),
        ("[]", ("holds no pass",)),
        ("[" * 100_000, ("nested too deeply",)),
        ('{"pass": "widen", "node": "stem", "by": ' + "9" * 5000 + "}", ("a whole number of thousands of digits",)),
        ('{"pass": "widen", "node": "stem", "by": 4, "by": 6}', ("the key 'by' stands twice",)),
        ('{"pass": "widen", "node": "stem", "by": NaN}', ("NaN is no JSON number",)),
        ('{"node": "stem", "by": 4}', ('a pass says its name, {"pass": "widen", ...}',)),
        ('{"pass": "widen"}', ("widen: it needs node; it needs by\n",)),
        ("7", ("a pass is an object", "7")),
        ('{"pass": "widne"}', ("no pass 'widne'", "Did you mean 'widen'?")),
        ('{"pass": "widen", "node": "stem"}', ("widen", "by")),
        ('{"pass": "widen", "node": "stem", "by": 4, "to": 1}', ("to",)),
        ('{"pass": "widen", "node": "stem", "by": 4, "values": [1]}', ("values map parameter keys to arrays",)),
        ('{"pass": "widen", "node": "stem", "by": 4, "values": {"stem.weight": [[1], [2, 3]]}}', ("values",)),
        ('{"pass": "split", "node": "head", "channels": [0]}', ("head", "pinned", "graph output")),
        ("@none.json", ("none.json", "No such file")),
        (
            '[{"pass": "widen", "node": "stem", "by": 4}, {"pass": "widen", "node": "x", "by": 1}]',
            ("pass 2 of 2: there is no node 'x'",),
        ),
    ],
)
def test_refused(text: str, words: tuple[str, ...], network: Path, tmp_path: Path) -> None:
    for source, out in ((RESIDUAL, tmp_path / "out.json"), (network, tmp_path / "out")):
        done = growir("rewrite", source, "--pass", text, "-o", out)
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith("growir: error: ")
        for word in words:
            assert word in done.err
        assert not out.exists()


def test_nothing_else_is_overwritten(network: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.json"
    mine.write_text("{}", encoding="utf-8")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "thesis.txt").touch()
    for source, out in ((RESIDUAL, mine), (RESIDUAL, folder), (network, mine), (network, folder)):
        done = growir("rewrite", source, "--pass", json.dumps(WIDEN), "-o", out)
        assert (done.code, done.out) == (2, "")
    assert mine.read_text(encoding="utf-8") == "{}"
    done = growir("rewrite", network, "--pass", '{"pass": "widen", "node": "x", "by": 1}', "-o", mine)
    assert "not overwritten" in done.err  # said before any work
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]
