"""Looking at what growir has (help, completion, `import *`) needs no package but those that growir itself needs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import growir
from growir.network import Network
from tests.documents.installed import site

LOOK = """
import importlib, inspect, pkgutil, pydoc, rlcompleter, sys

import growir

names = [info.name for info in pkgutil.walk_packages(growir.__path__, "growir.", onerror=lambda name: None)]
for name in ["growir", *names]:
    if name.endswith("__main__") or name.split(".")[1:2] and name.split(".")[1] in growir._EXTRAS:
        continue
    module = importlib.import_module(name)
    members = dict(inspect.getmembers(module))
    assert set(getattr(module, "__all__", ())) <= members.keys(), name
    exec(f"from {name} import *", {})
    rlcompleter.Completer({"module": module}).complete("module.", 0)
    if hasattr(module, "__path__"):
        assert pydoc.render_doc(module)
assert len(names) > 100, names
print(*sorted(sys.modules))
"""


def without(code: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Run code where nothing is installed but what growir itself needs."""
    (tmp_path / "sitecustomize.py").write_text(site(()), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
def test_looking_imports_no_package_of_an_extra(tmp_path: Path) -> None:
    done = without(LOOK, tmp_path)
    assert done.returncode == 0, done.stderr
    modules = {name.partition(".")[0] for name in done.stdout.split()}
    assert not modules & {"hypothesis", "pytest", "sklearn"}


def test_looking_does_not_import_the_extras_where_it_could() -> None:
    # Where hypothesis is installed its import would be slow, and its warnings be those of somebody else's test run.
    code = "import growir, inspect, pydoc, sys\nfrom growir import *\ninspect.getmembers(growir)\n"
    code += "pydoc.render_doc(growir)\n"
    code += "assert not {'growir.testing', 'hypothesis', 'growir.sklearn', 'sklearn'} & set(sys.modules)\n"
    code += "print(growir.testing.graphs, growir.sklearn.GrowingClassifier)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "graphs" in done.stdout
    assert "GrowingClassifier" in done.stdout


def test_asking_for_the_kit_says_what_to_install(tmp_path: Path) -> None:
    asked = ["import growir.testing", "growir.testing", "from growir import testing", "import growir.testing.laws"]
    code = "import growir\n"
    for line in asked:
        code += f"try:\n    {line}\nexcept ModuleNotFoundError as error:\n    print(error.name, str(error))\n"
    done = without(code, tmp_path)
    says = (
        "hypothesis growir.testing draws its graphs with hypothesis, which is not installed: pip install 'growir[test]'"
    )
    assert done.stdout.splitlines() == [says] * len(asked), done.stderr


def test_asking_for_the_estimators_says_what_to_install(tmp_path: Path) -> None:
    asked = ["import growir.sklearn", "growir.sklearn", "from growir.sklearn import GrowingClassifier"]
    code = "import growir\n"
    for line in asked:
        code += f"try:\n    {line}\nexcept ModuleNotFoundError as error:\n    print(error.name, str(error))\n"
    done = without(code, tmp_path)
    says = "sklearn growir.sklearn needs scikit-learn, which is not installed: pip install 'growir[sklearn]'"
    assert done.stdout.splitlines() == [says] * len(asked), done.stderr


def test_help_begins_with_calls_that_there_are() -> None:
    text = growir.__doc__ or ""
    for name in re.findall(r"(?<![\w.])([a-zA-Z_]\w*)\(", text):
        assert name in growir.__all__, name
    for name in re.findall(r"(?i)network\.(\w+)\(", text):
        assert callable(getattr(Network, name)), name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = growir.nothing
