"""What every test shares: how many examples a law gets, threads, and tests that need a GPU."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import Phase, settings

settings.register_profile("dev", max_examples=25, deadline=None)
# Derandomised, so that a red run is the change's doing and not the draw's.
settings.register_profile("ci", max_examples=25, deadline=None, derandomize=True)
settings.register_profile("all", max_examples=2000, deadline=None)
# Enough to notice broken code; what it finds is not made small.
settings.register_profile(
    "mutants", max_examples=200, deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate]
)


PROFILE = os.environ.get("GROWIR_HYPOTHESIS_PROFILE", "dev")
SEED = "GROWIR_TESTS_SEED"
settings.load_profile(PROFILE)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Give the long run a new seed before hypothesis asks for it; its workers read the one of their parent."""
    if PROFILE == "all" and config.getoption("--hypothesis-seed") is None:
        config.option.hypothesis_seed = os.environ.setdefault(SEED, str(secrets.randbelow(2**32)))


def pytest_report_header(config: pytest.Config) -> str:
    """Say what a failure can be drawn again with."""
    seed = config.getoption("--hypothesis-seed")
    return f"hypothesis: profile {PROFILE}" + (f", --hypothesis-seed={seed}" if seed else "")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the expected texts of golden tests anew")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """Compare a text with the expected file of a golden test."""

    def compare(expected: Path, found: str) -> None:
        if request.config.getoption("--update-golden"):
            expected.write_text(found, encoding="utf-8")
        assert expected.is_file(), f"{expected} is missing: write it with --update-golden, and read it"
        assert found == expected.read_text(encoding="utf-8")

    return compare


@pytest.fixture(scope="session", autouse=True)
def one_thread_per_worker() -> None:
    """Under xdist the workers already use the cores; threads of torch, and of commands that tests run, would fight."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        import torch

        torch.set_num_threads(1)
        os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def one_folder_per_run(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Where the processes of one run find what another has made already (tests/zoo/imported.py)."""
    own = tmp_path_factory.getbasetemp()
    shared = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    shared.mkdir(exist_ok=True)
    os.environ["GROWIR_TESTS_FOLDER"] = str(shared)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    on_gpu = [item for item in items if item.get_closest_marker("cuda")]
    if not on_gpu:
        return  # importing torch takes seconds
    import torch

    if not torch.cuda.is_available():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="torch sees no NVIDIA GPU"))
