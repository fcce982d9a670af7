"""What all tests share: quiet frameworks, MNIST where it is at hand, types checked at the project's borders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """A folder with the real MNIST files: `CAPSBENCH_DATA`, or `../shared/data` beside the checkout."""
    for folder in (os.environ.get("CAPSBENCH_DATA"), ROOT.parent / "shared" / "data"):
        if folder and (Path(folder) / "mnist" / "t10k-images-idx3-ubyte.gz").exists():
            return Path(folder)
    pytest.skip("needs the MNIST files: set CAPSBENCH_DATA to the folder that holds mnist/")
