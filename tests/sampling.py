"""Which of many alike cases `make test` has time for; `make test-all` runs them all."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from _pytest.mark import ParameterSet


def thinned(cases: Iterable[object], every: int = 3, first: int = 0) -> list[ParameterSet]:
    """Parameters for a test: one of each so many cases as it is, the others marked slow.

    Args:
        cases: All of them.
        every: So many.
        first: Which of the first so many is taken, so that tests of the same cases take others.
    """
    return [pytest.param(case, marks=[pytest.mark.slow] if (k - first) % every else []) for k, case in enumerate(cases)]
