"""Genotypes are read and written as DARTS writes them, and what is wrong with one is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from growir.cells import PUBLISHED, Genotype, cell, cells_of, fragment, genotype, genotype_of, network
from growir.cells.plan import Kind
from growir.errors import GraphError

# What the authors' own code counts, without the second head, at 20 cells of width 36 on CIFAR-10.
PARAMETERS = {"DARTS_V2": 3_349_342, "PDARTS": 3_433_798, "PC_DARTS_cifar": 3_634_678}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_genotype_is_read_built_written_and_found_again(name: str) -> None:
    found = genotype(name)
    assert genotype(str(found)) == found
    graph = network(found, (3, 16, 16), 10, cells=3, width=4)
    assert genotype_of(graph) == found
    assert [at.module for at in cells_of(graph)] == ["normal.0", "reduce.1", "reduce.2"]


@pytest.mark.parametrize("name", PARAMETERS)
def test_networks_have_the_parameters_that_their_authors_report(name: str) -> None:
    assert network(genotype(name), (3, 32, 32), 10, cells=20, width=36).costs().parameters == PARAMETERS[name]


@pytest.mark.parametrize("kind", ["normal", "reduce"])
def test_a_cell_alone_is_the_fragment_of_a_network(kind: Kind) -> None:
    found = genotype("DARTS_V1")
    graph = network(found, (3, 16, 16), 10, cells=3, width=4, reductions=[1])
    shape = (4, 16, 16) if kind == "normal" else (8, 16, 16)
    module = "normal.0" if kind == "normal" else "reduce.1"
    alone = cell(found, kind, shape)
    assert fragment(graph, module) == alone
    assert fragment(alone) == alone
    assert cells_of(alone)[0].edges == found.edges(kind)


def test_a_file_has_one_genotype_or_says_which(tmp_path: Path) -> None:
    one, several = tmp_path / "one.txt", tmp_path / "several.py"
    one.write_text(PUBLISHED["SNAS"])
    several.write_text(f"from x import y\n\nA = {PUBLISHED['SNAS']}\nB = {PUBLISHED['NASNet']}\nC = A\n")
    assert genotype(one) == genotype(str(one)) == genotype(f"{several}:A") == genotype("SNAS")
    assert genotype(f"{several}:B") == genotype("NASNet")
    with pytest.raises(GraphError, match=r"several\.py: it has several genotypes; say which.*There are A, B"):
        genotype(several)
    with pytest.raises(GraphError, match=r"it has no genotype 'D'\. There are A, B"):
        genotype(f"{several}:D")


GOOD = "normal=[('none', 0), ('skip_connect', 1)], normal_concat=[2], reduce=[('none', 0), ('skip_connect', 1)]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("DARTS_V3", r"there is no genotype 'DARTS_V3'.*Did you mean 'DARTS_V1' or 'DARTS_V2'"),
        ("Genotype(", "genotype, line 1: this is no genotype as DARTS writes it"),
        ("Genotype(1)", "normal: a list of pairs of an operation and a state is needed"),
        (f"Genotype({GOOD})", "reduce_concat: a genotype has .*, but this one is missing"),
        (f"Genotype({GOOD}, reduce_concat='2')", "reduce_concat: a list of states is needed"),
        (
            f"Genotype({GOOD}, reduce_concat=[3])",
            "reduce_concat: there is no state 3; a cell of 1 nodes has states 0 to 2",
        ),
        (f"Genotype({GOOD}, reduce_concat=[])", "reduce_concat: the output of a cell consists of one state or more"),
        (f"Genotype({GOOD}, reduce_concat=[2, 2])", "reduce_concat: a state is there twice"),
        (f"Genotype({GOOD}, reduce_concat=[2], more=1)", "more: a genotype has only normal"),
        (
            f"Genotype({GOOD.replace('1)]', '2)]', 1)}, reduce_concat=[2])",
            "normal: skip_connect from 2 to 2: a cell has no",
        ),
        (f"Genotype({GOOD.replace('skip_c', 'skipc', 1)}, reduce_concat=[2])", "there is no operation 'skipconnect'"),
        (f"Genotype({GOOD.replace(chr(39) + 'none' + chr(39), '7', 1)}, reduce_concat=[2])", "normal: a list of pairs"),
        (
            f"Genotype({GOOD.replace(chr(40) + chr(39) + 'none' + chr(39) + ', 0), ', '', 1)}, reduce_concat=[2])",
            "but 1 are",
        ),
        ("[" * 5000, "genotype"),
    ],
)
def test_what_is_wrong_with_a_genotype_is_said(text: str, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        genotype(text if text.startswith(("Genotype", "DARTS")) else f"Genotype({text}")


def test_a_text_may_assign_and_no_name_is_too_long() -> None:
    assert genotype(f"MINE = {PUBLISHED['SNAS']}") == genotype("SNAS")
    for name in ("x" * 400, "a\0b.txt", "a\0b"):
        with pytest.raises(GraphError, match=r"no genotype|is no name of a file"):
            genotype(name)
    with pytest.raises(GraphError, match="a genotype has 4 parts, but 5 are given"):
        genotype("Genotype([('none', 0), ('none', 1)], [2], [('none', 0), ('none', 1)], [2], 3)")
    with pytest.raises(GraphError, match="normal: a list of pairs"):
        genotype(f"Genotype({GOOD.replace('1)]', '0x' + 'f' * 5000 + ')]', 1)}, reduce_concat=[2])")


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="there is no genotype here: No such file"):
        genotype(tmp_path / "missing.txt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(GraphError, match="this is no text"):
        genotype(tmp_path / "binary.txt")
    (tmp_path / "other.txt").write_text("x = 1")
    with pytest.raises(GraphError, match="this is no genotype as DARTS writes it"):
        genotype(tmp_path / "other.txt")


def test_a_genotype_that_adds_nothing_to_a_node_is_refused_where_it_is_built() -> None:
    empty = Genotype((("none", 0), ("none", 1)), (2,), (("none", 0), ("skip_connect", 1)), (2,))
    with pytest.raises(GraphError, match="normal: no operation leads to node 2"):
        network(empty, (3, 8, 8), 2, cells=3, width=2)
