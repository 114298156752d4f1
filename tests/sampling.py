"""Which of many alike cases `make test` has time for; `make test-all` runs them all."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from _pytest.mark import ParameterSet


def thinned(cases: Iterable[object], every: int = 3) -> list[ParameterSet]:
    """Parameters for a test: the first of each so many cases as they are, the others marked slow."""
    return [pytest.param(case, marks=[pytest.mark.slow] if k % every else []) for k, case in enumerate(cases)]
