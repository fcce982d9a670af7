"""A bench that waits for cores says whose they are, even where the other one's notes cannot be seen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.executors.holders import with_runs
from harness.machine.claims import Holder
from tests.helpers.run_helpers import start, started, wait_for, write_suite

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who holds a claim")


def test_two_benches_side_by_side(tmp_path: Path) -> None:
    """Both of one user, with folders of their own for temporary files, so that neither sees the other's notes."""
    first, second = tmp_path / "first", tmp_path / "second"
    leases = f"beside-{os.getpid()}"
    for folder, impl in ((first, "run_helpers:HeldNet"), (second, "numpy")):
        folder.mkdir()
        write_suite(folder, grid={"impl": [impl]}, resources={"cpus": len(os.sched_getaffinity(0)), "gpus": 0})
    command = ("run", "small.yaml", "--executor", "inline", "--no-mlflow")
    with started(first, *command, CAPSBENCH_TEST_HOLD="1", CAPSBENCH_LEASES=leases) as holding:
        logs = "runs/small/trials/*/attempt-1.log"
        wait_for(lambda: "held in epoch 1" in "".join(log.read_text() for log in first.glob(logs)), "epoch 1", holding)
        waiting = start(second, *command, CAPSBENCH_LEASES=leases)
        try:
            assert waiting.stdout is not None
            line = next(line for line in waiting.stdout if "waiting for" in line)
        finally:
            waiting.terminate()
            waiting.communicate(timeout=60)
    [trial] = [path.name for path in (first / "runs/small/trials").iterdir()]
    assert f"process {holding.pid} (" in line
    assert f"which runs trial {trial} of {first / 'runs/small'}" in line


def test_what_cannot_be_seen_is_not_made_up() -> None:
    for message in (
        "waiting for 1 x core: in use by another trial on this host: process 12 (runs/mnist), since 14:05",
        f"waiting for 1 x core: in use by another trial on this host: {Holder(os.getpid(), 0)}",
        f"waiting for 1 x core: in use by another trial on this host: {Holder(0, 0)}; {Holder(2**22 + 1, 0)}",
    ):
        assert with_runs(message) == message


def test_each_process_of_several(tmp_path: Path) -> None:
    log = tmp_path / "runs" / "of (mine)" / "trials" / "0f3a9c21b7de" / "attempt-2.log"
    log.parent.mkdir(parents=True)
    with (
        log.open("w") as out,
        subprocess.Popen(["true"]) as ended,
        subprocess.Popen(["sleep", "60"], stdout=out) as child,
    ):
        try:
            os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # still listed, but it has no files any more
            holder = str(Holder(os.getpid(), os.getuid()))
            found = f", which runs trial 0f3a9c21b7de of {log.parents[2]}"
            childless = str(Holder(child.pid, os.getuid()))
            assert with_runs(f"{holder}; {childless}") == f"{holder}{found}; {childless}"
            for command in ("", " (python -c import os; import sys;f(1))", " (sh -c (a; b); c)"):
                holder = f"process {os.getpid()}{command} of user somebody"
                assert (
                    with_runs(f"{childless}; {holder}, as {holder}")
                    == f"{childless}; {holder}{found}, as {holder}{found}"
                )
                unseen = f"process {os.getpid()} (runs/mnist), since 14:05"
                assert with_runs(f"{unseen}; {holder}; {unseen}") == f"{unseen}; {holder}{found}; {unseen}"
        finally:
            child.kill()
