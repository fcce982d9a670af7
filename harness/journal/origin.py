"""Who ran a suite, on which cluster, from which commit of their own: for colleagues who see it in MLflow. No paths."""

from __future__ import annotations

import getpass
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_SOURCE = Path(__file__).resolve().parents[2]


def origin(suite: Path, ray_address: str | None) -> dict[str, Any]:
    """JSON-able: "user"; "cluster", by what it is (empty: this machine alone); "project", the suite's checkout.

    `project` is {commit, dirty, branch, url}, the last two None if there is none; it is None where the suite is in no
    checkout, or in that of capsbench itself, whose commit is recorded anyway.
    """
    return {"user": _user(), "cluster": cluster(ray_address), "project": project(suite)}


def _user() -> str | None:
    with suppress(OSError, KeyError, ImportError):  # no entry in the list of users
        return getpass.getuser()
    return None


def cluster(ray_address: str | None, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Where the trials run, beyond this machine: {"ray": "10.0.0.1:6379", "slurm": "alpha", "slurm_job": "17", ...}."""
    found: dict[str, str | None] = {"ray": _ray(ray_address) if ray_address else None}
    found["slurm"], found["slurm_job"] = environ.get("SLURM_CLUSTER_NAME"), environ.get("SLURM_JOB_ID")
    if "KUBERNETES_SERVICE_HOST" in environ:
        found["kubernetes"] = "default"
        with suppress(OSError, UnicodeError):
            found["kubernetes"] = _NAMESPACE.read_text().strip()
    return {name: value for name, value in found.items() if value}


def _ray(address: str) -> str:
    """The address of the cluster's head, which "auto" does not say; Ray is asked if it is connected."""
    with suppress(Exception):  # whatever Ray raises where it is not connected
        ray: Any = sys.modules["ray"]
        return str(ray.get_runtime_context().gcs_address)
    return address


def project(suite: Path) -> dict[str, Any] | None:
    """The state of the git checkout that a suite's file is in; without one (a built-in suite, a pipe), of this folder."""
    folder = suite.absolute().parent if suite.is_file() else Path.cwd()
    top = _git(folder, "rev-parse", "--show-toplevel")
    if not top or Path(top.strip()).resolve() == _SOURCE:
        return None
    state = _git(folder, "status", "--porcelain=v2", "--branch", "--untracked-files=no")
    if state is None or not (commit := re.search(r"^# branch\.oid ([0-9a-f]+)$", state, re.MULTILINE)):
        return None  # a repository without a commit
    branch = re.search(r"^# branch\.head (.+)$", state, re.MULTILINE)
    return {
        "commit": commit[1],
        "dirty": any(not line.startswith("#") for line in state.splitlines()),
        "branch": branch[1] if branch and branch[1] != "(detached)" else None,
        "url": public(_git(folder, "config", "--get", "remote.origin.url") or ""),
    }


def public(url: str) -> str | None:
    """A remote's address without user, password and token; None for a folder, whose path may name a person."""
    url = url.strip()
    if found := re.fullmatch(r"(https?|ssh|git)://(?:.*@)?([^@]+)", url):
        return f"{found[1]}://{found[2]}"
    return url if re.fullmatch(r"[\w.-]+@[\w.-]+:[^@]+", url) else None


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says; None if there is none, it fails, or takes long."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, errors="replace",
            stdin=subprocess.DEVNULL, timeout=5, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
