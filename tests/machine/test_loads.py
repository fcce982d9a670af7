"""Who had the processor is told by name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.machine.loads import busiest, usage
from harness.machine.noise import Observation, doubts


def _stat(proc: Path, pid: int, name: str, ticks: int, start: int = 5) -> None:
    (proc / str(pid)).mkdir(parents=True, exist_ok=True)
    fields = ["R", *["0"] * 10, str(ticks), "0", *["0"] * 6, str(start)]
    (proc / str(pid) / "stat").write_text(f"{pid} ({name}) {' '.join(fields)}")


def test_shares_between_two_moments(tmp_path: Path) -> None:
    hertz = os.sysconf("SC_CLK_TCK")
    own, parent = os.getpid(), os.getppid()
    _stat(tmp_path, parent, "a (b)", 100 * hertz)
    _stat(tmp_path, own, "self", 0)
    before = usage(tmp_path)
    assert {*before} == {parent}
    assert busiest(before, 10.0, [], tmp_path) is None
    _stat(tmp_path, parent, "a (b)", 105 * hertz)
    _stat(tmp_path, own, "self", 10 * hertz)
    told = busiest(before, 10.0, [], tmp_path)
    assert told is not None
    assert told.startswith(f"a (b) (process {parent}, user ")
    assert told.endswith(") 50% of a core")
    _stat(tmp_path, parent, "c", 3 * hertz, start=6)  # the id of another process by now
    assert "c (process" in (busiest(before, 10.0, [], tmp_path) or "")


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_process_that_runs_is_seen() -> None:
    before = usage()
    busy = "import sys, time\nwhile time.process_time() < 0.5: pass\nprint(flush=True)\nsys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        used = usage()[process.pid]
        assert used.cpu_s >= 0.4
        assert process.pid not in before
        process.kill()


def test_the_doubt_names_them() -> None:
    observed = [Observation(3.0, others=0.4)]
    assert "; most: x 93% of a core: end them" in doubts(observed, lambda: "x 93% of a core")[0]
    assert "none that can be seen from here" in doubts(observed, lambda: None)[0]
