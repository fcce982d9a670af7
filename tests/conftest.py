"""What all tests share: quiet frameworks, their own cores, MNIST if it is available."""

from __future__ import annotations

import atexit
import importlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("CAPSBENCH_LEASES", f"tests-{os.getpid()}")  # whatever else runs on this machine
os.environ.setdefault("CAPSBENCH_GATE_CACHE", "off")  # tests change implementations as they go
# For the processes that run the tests, each on a core of its own: NumPy's threads would wait for one another at every product.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ["CAPSBENCH_CONFIG"] = os.devnull  # nobody's own environments
os.environ["CAPSBENCH_ENVIRONMENTS"] = os.path.join(os.devnull, "none")  # noqa: PTH118
os.environ.pop("MLFLOW_TRACKING_URI", None)  # tests have databases of their own
os.environ.pop("COLUMNS", None)  # tables are as wide as each test says, whatever terminal the suite was started from
# Every test builds its own models: let JAX compile each program once, and spend no time on making it fast. The programs
# that are timed are compiled as usual in test_frameworks_agree.py.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="capsbench-jax-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
# Trials too: for them these are part of the suite.
os.environ.setdefault(
    "CAPSBENCH_KEEP", "XLA_FLAGS,JAX_COMPILATION_CACHE_DIR,JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
)


# Tests that run side by side (pytest-xdist) divide the cores, and so do the processes that they start: trials of two tests do
# not know of each other, and would both take the first core. Three processes on two cores: one of them often waits.
_CORES = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set[int]()
if "PYTEST_XDIST_WORKER" in os.environ:
    _number, _workers = int(os.environ["PYTEST_XDIST_WORKER"][2:]), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ["CAPSBENCH_LEASES"] += f"-{_number}"  # those that share a core do not wait for one another's trials
    if _CORES:
        _ordered = sorted(_CORES)
        os.sched_setaffinity(0, _ordered[_number::_workers] or [_ordered[_number % len(_ordered)]])


ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def all_cores() -> Iterator[None]:
    """All cores of the machine, not this process's share alone: for tests of who gets which."""
    share = os.sched_getaffinity(0) if _CORES else None
    if share:
        os.sched_setaffinity(0, _CORES)
    yield
    if share:
        os.sched_setaffinity(0, share)


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """A folder with the real MNIST files: `CAPSBENCH_DATA`, or `../shared/data` beside the checkout."""
    for folder in (os.environ.get("CAPSBENCH_DATA"), ROOT.parent / "shared" / "data"):
        if folder and (Path(folder) / "mnist" / "t10k-images-idx3-ubyte.gz").exists():
            return Path(folder)
    pytest.skip("needs the MNIST files: set CAPSBENCH_DATA to the folder that holds mnist/")


_NAMED_OTHERWISE = {"ordinary": "parity"}
"""Modules of `harness.commands` whose documents are another command's."""


@pytest.fixture(autouse=True)
def documents_are_as_documented(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a test has printed with --json, in this process, is compared with docs/json.md at its end."""
    from harness.commands import output

    printed: list[tuple[str, Any]] = []

    def dumps(document: Any, **options: Any) -> str:
        module = sys._getframe(2).f_globals["__name__"].rpartition(".")[2]  # of whoever called `print_json`
        printed.append((str(_NAMED_OTHERWISE.get(module, module)), document))
        return json.dumps(document, **options)

    monkeypatch.setattr(output, "json", SimpleNamespace(dumps=dumps))
    yield
    if printed:
        from tests.docs.json_page import unlike

        wrong = [f"{command}: {each}" for command, document in printed for each in unlike(command, document)]
        assert not wrong, f"docs/json.md: {wrong}"


@pytest.fixture
def fifth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Installs the fifth framework: a copy in which edits, (file, old, new), have been made; gives its folder."""

    def install(*edits: tuple[str, str, str]) -> Path:
        folder = tmp_path / "site"
        shutil.copytree(ROOT / "tests" / "helpers" / "fifth", folder, ignore=shutil.ignore_patterns("__pycache__"))
        for name, old, new in edits:
            text = (folder / name).read_text()
            assert old in text, (name, old)
            (folder / name).write_text(text.replace(old, new))
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(ROOT), str(ROOT / "tests" / "helpers")]))
        importlib.invalidate_caches()
        return folder

    yield install
    for name in [name for name in sys.modules if name.partition(".")[0] in ("fifthlib", "fifthcaps")]:
        del sys.modules[name]
