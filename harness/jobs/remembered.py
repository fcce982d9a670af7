"""`job.json` in a run directory: the job that the run was submitted as, so that it is found again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from harness.disk import read_json, write_atomic
from harness.errors import UserError

_NAME = "job.json"


@dataclass(frozen=True)
class Job:
    """A job on a cluster, and what of it has come home."""

    id: str
    address: str
    session: str  # of Ray: two addresses of one cluster have the same
    request: str  # the archive's name: what was asked for
    brought: dict[str, str]  # path -> SHA-256 of what was brought home
    is_home: bool = False

    def write(self, run_dir: Path) -> None:
        write_atomic(run_dir / _NAME, json.dumps(asdict(self), indent=1))

    @staticmethod
    def read(run_dir: Path) -> Job | None:
        """None if the run was not submitted. Raises `UserError` for a damaged file."""
        path = run_dir / _NAME
        if not path.exists():
            return None
        found: dict[str, Any] = read_json(path) or {}
        brought: Any = found.get("brought")
        texts = [found.get(key) for key in ("id", "address", "session", "request")]
        if isinstance(brought, dict):
            texts += [*cast(dict[Any, Any], brought), *cast(dict[Any, Any], brought).values()]
        if not isinstance(brought, dict) or not all(isinstance(each, str) for each in texts):
            raise UserError(f"{path} is damaged; choose another folder with --out: what has finished is on the cluster")
        known = {key: found[key] for key in Job.__dataclass_fields__ if key in found}
        return Job(**known)
