"""What all tests share: quiet frameworks, MNIST where it is at hand, types checked at the project's borders."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# Every test builds its own models: let JAX compile each program once, and spend no time on making it fast. The programs
# that are timed are compiled as usual in test_frameworks_agree.py.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="capsbench-jax-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")


ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """A folder with the real MNIST files: `CAPSBENCH_DATA`, or `../shared/data` beside the checkout."""
    for folder in (os.environ.get("CAPSBENCH_DATA"), ROOT.parent / "shared" / "data"):
        if folder and (Path(folder) / "mnist" / "t10k-images-idx3-ubyte.gz").exists():
            return Path(folder)
    pytest.skip("needs the MNIST files: set CAPSBENCH_DATA to the folder that holds mnist/")
