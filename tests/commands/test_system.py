"""What the operating system refuses: one sentence, and no traceback. File systems are mounted in a namespace of their own."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import of_the_system
from tests.helpers.run_helpers import environment, write_suite


def _can_mount() -> bool:
    if not shutil.which("unshare"):
        return False
    done = subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/tmp"], capture_output=True)
    return done.returncode == 0


mounting = pytest.mark.skipif(not _can_mount(), reason="needs `unshare -rm`")


def shell(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    """bash, in a namespace in which it may mount; `capsbench` as the installed script starts it."""
    begin = "from harness.commands.cli import main; main()"
    script = f'capsbench() {{ "{sys.executable}" -P -c "{begin}" "$@"; }}; {line}'
    return subprocess.run(
        ["unshare", "-rm", "bash", "-c", script], cwd=folder, env=environment(folder), capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip


@mounting
def test_a_disk_that_is_too_small(tmp_path: Path) -> None:
    write_suite(tmp_path)
    (tmp_path / "runs").mkdir()
    run = "capsbench run small.yaml --executor inline --no-mlflow --no-figures"
    done = shell(tmp_path, f"mount -t tmpfs -o size=40k none runs && {run}")
    assert done.returncode == 2  # see tests/commands/test_full_disk.py for one that fills up later
    assert done.stderr.startswith("capsbench: no space left on ")
    assert "needs it for weights and checkpoints in runs/small. Make room" in done.stderr


@mounting
def test_read_only_places(tmp_path: Path) -> None:
    write_suite(tmp_path)
    (tmp_path / "runs").mkdir()
    done = shell(
        tmp_path, "mount -t tmpfs -o ro none runs; capsbench run small.yaml --executor inline --no-mlflow; echo $?"
    )
    assert done.stdout == "2\n"
    assert done.stderr.startswith("capsbench: cannot write the run directory runs/small: ")
    assert done.stderr.count("\n") == 1
    everywhere = (
        "for place in /tmp /var/tmp $TMPDIR .; do mount --bind $place $place; mount -o remount,ro,bind $place; done"
    )
    done = shell(tmp_path, f"{everywhere}; cd $PWD; capsbench parity --level L1 --impl numpy --no-mlflow; echo $?")
    assert done.stdout == "2\n"
    assert re.fullmatch(r"capsbench: .*folder for temporary files.*set TMPDIR to one.*\n", done.stderr)


@mounting
def test_a_folder_that_was_deleted(tmp_path: Path) -> None:
    done = shell(tmp_path, "mkdir gone; cd gone; rmdir ../gone; capsbench parity --impl numpy --no-mlflow; echo $?")
    assert done.stdout == "2\n"
    assert done.stderr == "capsbench: the working directory has been removed; change to another one\n"


def test_what_is_no_fault_of_the_system() -> None:
    assert of_the_system(OSError("made by a library")) is None
    assert of_the_system(ChildProcessError(10, "No child processes")) is None
    assert of_the_system(PermissionError(13, "Permission denied", "a/b")) == (
        "a/b: Permission denied; name something that you may read and write"
    )
