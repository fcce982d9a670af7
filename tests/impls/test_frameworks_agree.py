"""`capsbench parity` on the three frameworks: proves on every push that they agree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.impl_helpers import FRAMEWORKS

ROOT = Path(__file__).resolve().parents[2]


def parity(out: Path, *arguments: str, **environment: str) -> dict[str, dict[str, Any]]:
    """The reports by "impl precision". Compiled as in a run, not in haste as in other tests."""
    command = [sys.executable, "-m", "harness", "parity", *arguments, "--out", str(out), "--no-mlflow", "--json"]
    inherited = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=inherited | environment, check=False)
    assert done.returncode == 0, done.stderr
    return {f"{report['impl']} {report['precision']}": report for report in json.loads(done.stdout)["reports"]}


def levels(report: dict[str, Any]) -> list[str]:
    return sorted({check["level"] for check in report["checks"]})


@pytest.mark.timeout(600)
def test_the_compact_model_up_to_the_top(tmp_path: Path) -> None:
    reports = parity(tmp_path)
    assert list(reports) == [f"{impl} {precision}" for impl in FRAMEWORKS for precision in ("fp64", "fp32")]
    for report in reports.values():
        assert levels(report) == ["L1", "L2", "L3", "L4", "L5", "L6"]
        assert not report["skipped"]
        names = {check["name"] for check in report["checks"]}
        assert {f"r{iterations}.coupling" for iterations in range(1, 11)} <= names
        assert {f"step{step}.margin" for step in range(1, 9)} | {"epoch.margin"} <= names


@pytest.mark.timeout(600)
def test_the_paper_s_model_on_mnist(tmp_path: Path, mnist_dir: Path) -> None:
    """The gradients of all 8,215,568 parameters, in the precision that is timed; a weekly job compares float64 too."""
    suite = ("suites/mnist.yaml", "--level", "L4", "--precision", "fp32")
    reports = parity(tmp_path, *suite, CAPSBENCH_DATA=str(mnist_dir))
    assert list(reports) == [f"{impl} fp32" for impl in FRAMEWORKS]
    for report in reports.values():
        assert levels(report) == ["L1", "L2", "L3", "L4"]
        [count] = [check for check in report["checks"] if check["name"] == "parameters"]
        assert count["found"] == 8_215_568
