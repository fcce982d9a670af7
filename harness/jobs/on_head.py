"""Runs on the cluster's head, as the job's entry point: checks capsbench, runs the suite, lists the files to be fetched.

It is sent along with the suite, so it needs nothing but Python until it knows that capsbench is there. Beside it are
`request.json` and the folder `work`, in which the suite runs.
"""

from __future__ import annotations

import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
sys.path[:] = [
    path for path in sys.path if os.path.realpath(path) != os.path.realpath(_HERE)
]  # its files are no libraries

import contextlib  # noqa: E402
import hashlib  # noqa: E402
import json  # noqa: E402
import signal  # noqa: E402
import subprocess  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

_OWN = {"mlflow.json", "job.json"}
"""What of a run directory belongs to the machine that it is on."""


def main() -> int:
    request = json.loads(Path(_HERE, "request.json").read_text())
    try:
        logs = Path(f"/proc/{os.getpid()}/fd/2").readlink().parent  # Ray has this job's output in its folder of logs
    except OSError:
        print("capsbench: the head has no /proc: `submit` needs one that runs Linux", flush=True)
        return 2
    if problem := _lacking(request["version"]):
        print(f"capsbench: {problem}", flush=True)
        return 2
    run_dir = Path(request["out"]).expanduser().absolute() / request["name"]
    try:
        run_dir.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(
            f"capsbench: the head cannot write {run_dir.parent}: {error.strerror}; choose a folder: --cluster-out DIR"
        )
        return 2
    name = f"capsbench-{request['id']}"
    if not (logs / name).is_symlink():
        (logs / name).symlink_to(run_dir)  # the dashboard serves what is in this folder
    outcome = logs / f"{name}.outcome"
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the run gets it, too, and ends as on Ctrl-C; then files are listed
    with outcome.open("wb") as stdout:
        code = subprocess.run(
            [sys.executable, "-m", "harness", "run", *request["arguments"], "--out", str(run_dir.parent), "--json"],
            cwd=Path(_HERE, "work"), env=_environment(), stdout=stdout, check=False,
            preexec_fn=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL),
        ).returncode  # fmt: skip
    document = {"code": code, "outcome": _json(outcome), "files": listed(run_dir)}
    partial = logs / f".{name}.json"
    partial.write_text(json.dumps(document))
    partial.replace(logs / f"{name}.json")
    return code if code >= 0 else 130


def listed(run_dir: Path) -> list[tuple[str, int, str]]:
    """Path, size and SHA-256 of each file of a run directory that is to be fetched."""
    found: list[tuple[str, int, str]] = []
    for path in sorted(run_dir.rglob("*")):
        relative = path.relative_to(run_dir)
        if path.is_symlink() or not path.is_file() or str(relative) in _OWN:
            continue
        if any(part.startswith(".") for part in relative.parts):  # a lock, or a file that was being written
            continue
        with path.open("rb") as file:
            sha = hashlib.file_digest(file, "sha256").hexdigest()
        found.append((relative.as_posix(), path.stat().st_size, sha))
    return found


def _lacking(version: str) -> str | None:
    """What is wrong with the capsbench of this Python, for one that was sent from version `version`."""
    try:
        import harness
    except ImportError as error:
        where = f"{sys.executable} on the head"
        return (
            f"{where} has no capsbench ({error}): install capsbench {version} on every node and start Ray in that "
            "environment, or name another interpreter: --python /path/to/python"
        )
    if harness.__version__ != version:
        return (
            f"the head has capsbench {harness.__version__}, but the suite was sent by {version}: install the same "
            f"on both ({sys.executable} on the head)"
        )
    return None


def _environment() -> dict[str, str]:
    """The job's, without the folder of this file on the import path, where Ray puts it first."""
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    kept = os.pathsep.join(path for path in paths if path and os.path.realpath(path) != os.path.realpath(_HERE))
    return {**os.environ, "PYTHONPATH": kept, "PYTHONUNBUFFERED": "1"}


def _json(path: Path) -> dict[str, Any] | None:
    with contextlib.suppress(OSError, ValueError):
        return json.loads(path.read_text())
    return None


if __name__ == "__main__":
    sys.exit(main())
