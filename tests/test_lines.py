"""Lines of results: what was cut short is run again, and what is damaged is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.lines import add, read


def test_lines_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "lines.jsonl"
    assert read(path) == []
    add(path, [{"arm": "a"}, {"arm": "ä"}])
    add(path, [{"arm": "c"}])
    assert read(path) == [{"arm": "a"}, {"arm": "ä"}, {"arm": "c"}]


@pytest.mark.parametrize("before", ['{"arm": "a"}', '{"arm": "a"}\n', '{"arm": "a"}\n{"arm"'])
def test_a_line_that_was_cut_short_is_written_anew(before: str, tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text(before)
    assert read(path) == [{"arm": "a"}]
    add(path, [{"arm": "b"}])
    assert read(path) == [{"arm": "a"}, {"arm": "b"}]
    (tmp_path / "short.jsonl").write_text('{"ar')
    assert read(tmp_path / "short.jsonl") == []


@pytest.mark.parametrize("line", ['{"arm"', "[1]", ""])
def test_a_damaged_line_is_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('{"arm": "a"}\n' + line + "\n")
    with pytest.raises(ValueError, match=r"lines\.jsonl, line 2: "):
        read(path)
