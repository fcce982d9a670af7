"""What happens on a disk that runs full: scenes that are played on a small file system of their own.

`python -m tests.helpers.small_disk SCENE FOLDER` is started in a mount namespace of its own (`command`), mounts a tmpfs on
FOLDER/disk, plays the scene, and prints as JSON what came of it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from harness.commands.cli import main
from harness.journal.journal import Journal
from tests.helpers.event_helpers import event
from tests.helpers.run_helpers import HELPERS, ROOT, write_suite

_NAMESPACE = ("unshare", "-m") if os.geteuid() == 0 else ("unshare", "-rm")
_MODEL = {
    "conv_channels": 16, "primary_types": 4, "primary_dim": 4, "digit_dim": 4, "decoder_units": [64, 64],
}  # fmt: skip
"""0.4 MB of weights, 1.6 MB a checkpoint."""


@cache
def forbidden() -> str | None:
    """Why this machine lets nobody mount a file system of one's own; None: it does."""
    try:
        done = subprocess.run(
            [*_NAMESPACE, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return "there is no unshare(1)"
    return done.stderr.strip() or None if done.returncode else None


def needs_own_disk(test: Any) -> Any:
    """Skips the test where the kernel forbids such a file system, and says why."""
    reason = forbidden()
    return pytest.mark.skipif(reason is not None, reason=f"no file system of one's own: {reason}")(test)


def play(scene: str, folder: Path) -> dict[str, Any]:
    """What came of the scene."""
    command = [*_NAMESPACE, sys.executable, "-m", "tests.helpers.small_disk", scene, str(folder)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, HELPERS)))}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200, cwd=folder, env=environ)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _mount(disk: Path, size: str) -> None:
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(disk)], check=True)


def _fill(disk: Path) -> None:
    subprocess.run(f"cat /dev/zero > {disk}/filling", shell=True, check=False, stderr=subprocess.DEVNULL)


def _bench(*arguments: object) -> dict[str, Any]:
    """Exit code and output of `capsbench ARGUMENTS`."""
    given = [*map(str, arguments)]
    said, sys.argv = io.StringIO(), ["capsbench", *given]
    code: Any = 0
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            main(given)
        except SystemExit as ended:
            code = ended.code
    return {"code": code, "said": " ".join(said.getvalue().split())}


def _suite(folder: Path, **more: Any) -> list[object]:
    """The command that runs two trials of four epochs on the disk."""
    suite = write_suite(
        folder, model=_MODEL, train={"epochs": 4}, parity={"gate": False},
        grid={"impl": ["run_helpers:CommandNet"], "seed": [0, 1]}, **more,
    )  # fmt: skip
    return ["run", suite, "--executor", "inline", "--no-mlflow", "--no-figures", "--out", folder / "disk" / "runs"]


def _left(disk: Path) -> list[str]:
    """Files that nobody would miss."""
    return [path.name for path in disk.rglob(".*") if path.name != ".lock"]


def _epochs(disk: Path) -> list[int]:
    journal = Journal(disk / "runs" / "small")
    return [
        getattr(each, "epoch", 0) for id in journal.trial_ids() for each in journal.events(id) if each.kind == "epoch"
    ]


def full(folder: Path) -> dict[str, Any]:
    """The disk runs full in epoch 2; the same command at once, and after room was made."""
    disk = folder / "disk"
    _mount(disk, "20m")
    run = _suite(folder)
    os.environ |= {"CAPSBENCH_TEST_EPOCH": "2", "CAPSBENCH_TEST_COMMAND": f"cat /dev/zero > {disk}/filling"}
    first = _bench(*run)
    found = {"first": first, "left": _left(disk), "epochs": _epochs(disk)}
    del os.environ["CAPSBENCH_TEST_EPOCH"]
    found["again"] = _bench(*run)
    found["json"] = _bench(*run, "--json")
    (disk / "filling").unlink()
    return {**found, "after": _bench(*run), "all_epochs": _epochs(disk)}


def scarce(folder: Path) -> dict[str, Any]:
    """There is never enough; then enough, until in epoch 1 something else leaves too little for the checkpoint of epoch 2."""
    disk = folder / "disk"
    _mount(disk, "2m")
    run = _suite(folder)
    found: dict[str, Any] = {"plan": _bench("plan", run[1], "--executor", "inline", "--out", run[-1])}
    found["refused"] = _bench(*run)
    found["is_untouched"] = not list(disk.iterdir())
    subprocess.run(["mount", "-o", "remount,size=12m", str(disk)], check=True)
    leaving = f"head -c $(( $(stat -f -c '%f*%S' {disk}) - 1800000 )) /dev/zero > {disk}/filling"
    os.environ |= {"CAPSBENCH_TEST_EPOCH": "1", "CAPSBENCH_TEST_COMMAND": leaving}
    return {**found, "ahead": _bench(*run, "--json"), "epochs": _epochs(disk)}


def read_only(folder: Path) -> dict[str, Any]:
    """The trial's folder becomes read-only in epoch 2, as after an error of the disk."""
    disk = folder / "disk"
    _mount(disk, "20m")
    run = [*_suite(folder), "seed=0"]
    trials = f"{disk}/runs/small/trials"
    os.environ |= {"CAPSBENCH_TEST_EPOCH": "2", "CAPSBENCH_TEST_COMMAND": f"mount -t tmpfs -o ro none {trials}"}
    first = _bench(*run)
    again = _bench(*run)
    del os.environ["CAPSBENCH_TEST_EPOCH"]
    subprocess.run(["umount", trials], check=True)
    return {"first": first, "again": again, "left": _left(disk), "after": _bench(*run), "all_epochs": _epochs(disk)}


def journal(folder: Path) -> dict[str, Any]:
    """A journal on a full disk: what cannot be written is not there in part."""
    disk = folder / "disk"
    _mount(disk, "1m")
    with Journal(disk / "run").open() as own:
        own.append("t1", event({"kind": "attempt"}))
        own.write_result("t1", {"a": 1})
        path = own.trial_dir("t1") / "events.jsonl"
        before = path.read_bytes()
        _fill(disk)
        refused: list[str] = []
        for write in (
            lambda: own.append("t1", event({"kind": "warning", "message": "x" * 10_000})),
            lambda: own.write_result("t1", {"a": "x" * 10_000}),
            lambda: own.append("t2", event({"kind": "warning", "message": "x"})),
        ):
            try:
                write()
            except OSError as error:
                refused.append(str(error.strerror))
        found = {"refused": refused, "is_same": path.read_bytes() == before, "left": _left(disk)}
        found["result"] = own.result("t1")
        (disk / "filling").unlink()
        own.append("t1", event({"kind": "interrupted"}))
        own.append("t2", event({"kind": "attempt"}))
        return {**found, "kinds": [each.kind for id in ("t1", "t2") for each in own.events(id)]}


if __name__ == "__main__":
    scenes: dict[str, Callable[[Path], dict[str, Any]]] = {
        "full": full, "scarce": scarce, "read_only": read_only, "journal": journal,
    }  # fmt: skip
    print(json.dumps(scenes[sys.argv[1]](Path(sys.argv[2]))))
