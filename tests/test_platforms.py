"""Linux and macOS; everywhere else one sentence. What only Linux has is done without where it is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.platforms import refusal
from tests.helpers.run_helpers import environment, write_suite

# As on Windows: none of these can be imported there.
_WINDOWS = """
import sys
sys.platform = "win32"
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
import runpy
sys.argv = ["capsbench", "run", "quickstart"]
runpy.run_module("harness", run_name="__main__")
"""

# As on macOS: without these functions, and without /proc and /sys. `sys.platform` is set once all is imported, since the
# standard library's own modules look at it.
_MAC = """
import os, sys
import builtins, ctypes, io, multiprocessing, numpy, pathlib, platform, selectors, socket, subprocess, sysconfig, tempfile, uuid
sysconfig.get_config_vars()
for name in ("sched_getaffinity", "sched_setaffinity", "waitid", "posix_fadvise", "fdatasync"):
    if hasattr(os, name):
        delattr(os, name)

def absent(function):
    def only_elsewhere(path, *rest, **more):
        if isinstance(path, (str, bytes, os.PathLike)) and os.fsdecode(path).startswith(("/proc", "/sys")):
            raise FileNotFoundError(2, "No such file or directory", path)
        return function(path, *rest, **more)
    return only_elsewhere

io.open = builtins.open = absent(io.open)
os.open, os.stat, os.scandir, os.listdir = map(absent, (os.open, os.stat, os.scandir, os.listdir))
real = ctypes.CDLL

class Library:
    def __init__(self, *given, **more):
        self._real = real(*given, **more)
    def __getattr__(self, name):
        if name in ("prctl", "malloc_trim", "sched_setaffinity"):
            raise AttributeError(name)
        return getattr(self._real, name)

ctypes.CDLL = Library
sys.platform = "darwin"
"""


def test_windows_is_told_to_use_wsl(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WINDOWS], cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == f"capsbench: {refusal('win32')}\n"
    assert "WSL" in done.stderr


@pytest.mark.parametrize("platform", ["linux", "darwin", "freebsd14"])
def test_where_posix_is_nothing_is_refused(platform: str) -> None:
    assert refusal(platform) is None


def test_a_trial_runs_without_what_only_linux_has(tmp_path: Path) -> None:
    """The driver and the worker both, by a module that every interpreter of the run loads first."""
    (tmp_path / "mac").mkdir()
    (tmp_path / "mac" / "sitecustomize.py").write_text(_MAC)
    env = environment(tmp_path)
    env["PYTHONPATH"] = f"{tmp_path / 'mac'}:{env['PYTHONPATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "harness", "run", str(write_suite(tmp_path, train={"epochs": 1})), "--executor", "inline",
         "--no-mlflow", "--no-figures"],
        cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "finished: test error" in done.stdout
    log = next(tmp_path.glob("runs/small/trials/*/attempt-1.log"))
    assert "Traceback" not in log.read_text()
