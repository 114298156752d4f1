"""The records fit the code they change: one whose text is gone tests nothing, and `make mutate` would stop at it."""

from __future__ import annotations

from pathlib import Path

from tests.mutants.__main__ import ROOT, read_mutants


def test_every_record_fits_its_code_and_names_a_test() -> None:
    for mutant in read_mutants():
        file, _, test = mutant.test.partition("::")
        text = Path(ROOT / file).read_text(encoding="utf-8")
        name = test.partition("[")[0].rpartition("::")[2]
        assert f"def {name}(" in text or f"{name} = " in text, f"{mutant.name}: {file} has no {name}"
