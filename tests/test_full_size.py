"""The paper's model at full size, as it is timed: compiled, on real digits, in all three frameworks at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.impl_helpers import FRAMEWORKS

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.timeout(600)
def test_frameworks_agree_on_mnist_at_full_size(tmp_path: Path, mnist_dir: Path) -> None:
    """Two steps of 16 images; gradients of all 8,215,568 parameters within the gate's tolerances."""
    settings = {
        "data.train": 32, "data.validation": 8, "data.test": 32, "train.batch": 16, "train.epochs": 1,
        "parity.steps": 1, "seed": 0,
    }  # fmt: skip
    command = [
        sys.executable,
        "-m",
        "harness",
        "run",
        "suites/mnist.yaml",
        "--executor",
        "inline",
        "--no-mlflow",
        "--json",
    ]
    command += ["--out", str(tmp_path), *(f"-s{key}={value}" for key, value in settings.items())]
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment["CAPSBENCH_DATA"] = str(mnist_dir)
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    trials = json.loads(done.stdout)["trials"]
    assert [trial["impl"] for trial in trials] == list(FRAMEWORKS)
    assert all(trial["parity_ok"] and trial["parameters"] == 8_215_568 for trial in trials)
    for key in ("weights_sha256", "data_sha256"):
        assert len({trial[key] for trial in trials}) == 1, key
    epochs = [trial["epochs"][0] for trial in trials]
    assert len({epoch["plan_sha256"] for epoch in epochs}) == 1
    assert [epoch["train_loss"] for epoch in epochs] == pytest.approx([epochs[0]["train_loss"]] * 3, rel=1e-4)
