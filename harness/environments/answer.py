"""What an interpreter says of itself: run there by `harness.environments.probe`, as `boot.py harness.environments.answer`.

Its answer is the line of JSON that begins with "@". Nothing that is not Python's own is imported before it is known to be
there, and no framework.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import platform
import sys
from pathlib import Path
from typing import Any

import harness
from harness import registry
from harness.errors import UserError

MARK = "@"


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """Facts of this interpreter for the implementation `asked["impl"]`; see `harness.environments.probe.Answer`."""
    sys.path += [path for path in asked["paths"] if path not in sys.path]
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "prefix": sys.prefix,
        "version": harness.__version__,
        "sources": str(Path(harness.__file__).resolve().parent),
        "installed": _version("capsbench"),
        "needs": {name: _version(name) for name in asked["needs"]},
        "versions": {},
        "missing": None,
        "without_gpu": None,
        "fault": None,
    }
    if any(version is None for version in found["needs"].values()):
        return found
    try:
        entry = registry.resolve(asked["impl"])
        found["versions"] = {name: version for name in registry.used_by(entry) if (version := _version(name))}
        found["missing"] = registry.missing(entry)
        found["without_gpu"] = registry.without_gpu(entry)
    except UserError as error:
        found["fault"] = str(error)
        return found
    if found["missing"] is None and asked["deep"]:
        found["fault"] = _fault()
    return found


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _fault() -> str | None:
    """Why a worker could not begin here, found by importing what it imports; None if it can."""
    try:
        importlib.import_module("harness.worker.training")
    except BaseException as error:  # a library built for another Python may raise anything
        said = " ".join(str(error).split())[:300]
        return f"importing capsbench there raised {type(error).__name__}: {said}"
    return None


if __name__ == "__main__":
    document = json.dumps(answer(json.loads(sys.argv[1])))
    print(f"\n{MARK}{document}", flush=True)
