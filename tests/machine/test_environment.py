"""The description of the environment, and the part of it that affects results."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from harness.machine import environment as env
from harness.machine.environment import environment, fingerprint, git_state
from harness.machine.leases import local_cores

ROOT = Path(__file__).resolve().parents[2]


def run(code: str) -> str:
    """What Python prints that runs `code` in the project's root."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip()


def test_environment() -> None:
    found = environment()
    assert json.loads(json.dumps(found)) == found
    assert list(found) == [
        "host",
        "os",
        "cpu",
        "cores",
        "memory_bytes",
        "gpus",
        "python",
        "versions",
        "git",
        "variables",
    ]
    assert found["host"] == platform.node()
    assert found["python"] == platform.python_version()
    assert found["cpu"]
    assert 1 <= found["cores"] <= (os.cpu_count() or 1)
    assert found["versions"]["numpy"] == importlib.metadata.version("numpy")
    assert "tensorflow-metal" not in found["versions"]


def test_no_framework_is_imported() -> None:
    code = (
        "import sys; from harness.machine.environment import environment; environment(); "
        "print(sorted({'torch', 'tensorflow', 'jax', 'ray', 'mlflow', 'numpy'} & set(sys.modules)))"
    )
    assert run(code) == "[]"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this platform")
def test_cores_are_those_of_the_affinity() -> None:
    """A process bound to one core has one, whatever the machine has."""
    core = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, {{{core}}}); from harness.machine import environment as e; "
    assert run(code + "print(e.available_cores())") == "1"


@pytest.mark.parametrize(("quota", "cores"), [(None, 4), (64.0, 4), (2.5, 2), (0.5, 1)])
def test_cores_are_at_most_the_quota_s(quota: float | None, cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setattr(env.cgroups, "cpu_quota", lambda: quota)
    assert env.available_cores() == cores
    assert len(local_cores()) == cores  # what `plan` and `run` divide is what `doctor` tells


def test_memory_is_at_most_the_limit_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(env.cgroups, "memory_limit", lambda: 123_456_789)
    monkeypatch.setattr(env.cgroups, "memory_left", lambda: 12_345)
    assert env.memory_bytes() == 123_456_789
    assert env.available_memory_bytes() == 12_345


def test_fingerprint() -> None:
    dists = ["numpy", "torch", "tensorflow-cpu", "keras", "jax", "optax", "ray"]
    found = environment() | {
        "cpu": "a",
        "cores": 2,
        "gpus": ["g"],
        "python": "3.11.1",
        "versions": dict(zip(dists, "2345678", strict=True)),
    }
    machine = {"cpu": "a", "cores": 2, "gpus": ["g"], "python": "3.11.1"}
    assert fingerprint(found, "torch") == machine | {"versions": {"numpy": "2", "torch": "3"}}
    assert fingerprint(found, "tf") == machine | {"versions": {"numpy": "2", "tensorflow-cpu": "4", "keras": "5"}}
    assert fingerprint(found, "jax") == machine | {"versions": {"numpy": "2", "jax": "6", "optax": "7"}}
    assert fingerprint(found, "numpy") == machine | {"versions": {"numpy": "2"}}
    anyone = {dist: version for dist, version in found["versions"].items() if dist != "ray"}
    assert fingerprint(found, "package.module:Class") == machine | {"versions": anyone}


def git(folder: Path, *arguments: str) -> str:
    settings = ["-c", "user.name=n", "-c", "user.email=e@x", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *settings, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_git_state(tmp_path: Path) -> None:
    assert git_state(tmp_path) is None
    git(tmp_path, "init")
    assert git_state(tmp_path) is None  # nothing committed
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert git_state(tmp_path) == {"commit": commit, "dirty": False}
    (tmp_path / "a").write_text("2")
    assert git_state(tmp_path) == {"commit": commit, "dirty": True}
    (tmp_path / "site-packages").mkdir()
    assert git_state(tmp_path / "site-packages") is None  # somebody else's checkout
