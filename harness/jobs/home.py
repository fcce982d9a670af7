"""A run directory comes home: what the head lists is fetched, checked by its SHA-256, and put in place."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from harness.errors import UserError
from harness.jobs.client import Jobs, Unreachable, read_all

_SHA = re.compile(r"[0-9a-f]{64}")
_EVENTS = "events.jsonl"


@dataclass(frozen=True)
class Listing:
    """What the head has: the run's exit code, the document of `run --json`, and its files with size and SHA-256."""

    code: int
    outcome: dict[str, Any] | None
    files: dict[str, tuple[int, str]]


def listing(jobs: Jobs, id: str, node: str) -> Listing | None:
    """What the job `id` left on the head; None if it ended before it could say so. Raises `Unreachable`, `UserError`."""
    try:
        text = b"".join(jobs.read(node, f"capsbench-{id}.json"))
    except FileNotFoundError:
        return None
    try:
        found = json.loads(text)
        files = {str(path): (int(size), str(sha)) for path, size, sha in found["files"]}
        code, outcome = int(found["code"]), found["outcome"]
    except (ValueError, KeyError, TypeError) as error:
        raise Unreachable("the list of its files is damaged") from error
    for path, (_, sha) in files.items():
        _require_inside(path)
        if not _SHA.fullmatch(sha):
            raise Unreachable("the list of its files is damaged")
    return Listing(code, outcome, files)


def fetch(
    jobs: Jobs,
    id: str,
    node: str,
    listed: Listing,
    run_dir: Path,
    before: Mapping[str, str],
    told: Callable[[str], None],
) -> int:
    """Brings the files home that are not here yet; returns how many were fetched. The journal's lock must be held.

    `before`: path -> SHA-256 of what was fetched earlier; of these, what the head has no more is removed. A file is here in
    full or not at all, and what the journal names is here before its events. Raises `UserError` if the journal here has
    what the head's has not, before anything is written; `Unreachable`.
    """
    for path, (size, sha) in listed.files.items():
        if PurePosixPath(path).name == _EVENTS and not _is_same(run_dir / path, size, sha):
            _require_beginning(jobs, id, node, path, run_dir)
    count = 0
    for path in sorted(listed.files, key=_turn):
        size, sha = listed.files[path]
        target = run_dir / path
        if _is_same(target, size, sha):
            continue
        if any(parent.is_symlink() for parent in (target, *target.parents) if run_dir in parent.parents):
            raise UserError(f"{target} leads elsewhere by a link: remove the link, or choose another folder with --out")
        told(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        try:
            read_all(jobs.read(node, f"capsbench-{id}/{path}"), partial)
            if not _is_same(partial, size, sha):
                raise Unreachable(f"{path} did not arrive as it was sent")
            partial.replace(target)
        except FileNotFoundError as error:
            raise Unreachable(f"{path} is no longer on the head") from error
        finally:
            partial.unlink(missing_ok=True)
        count += 1
    for path in before.keys() - listed.files.keys():
        with suppress(ValueError, OSError):
            _require_inside(path)
            if _sha(run_dir / path) == before[path]:
                (run_dir / path).unlink()
    return count


def _turn(path: str) -> tuple[int, str]:
    """Files, then the events that name them, then results, then the plan."""
    name = PurePosixPath(path).name
    order = {"trial.json": 1, _EVENTS: 2, "result.json": 3, "plan.json": 4}
    return order.get(name, 0), path


def _require_inside(path: str) -> None:
    """Raises `Unreachable` for a path that is not within a run directory."""
    parts = PurePosixPath(path).parts
    is_plain = parts and not path.startswith(("/", "~")) and "\\" not in path and "\0" not in path
    if not is_plain or any(part in ("..", ".") or part.startswith(".") for part in parts):
        raise Unreachable(f"the head lists {path!r}, which is no file of a run directory")


def _require_beginning(jobs: Jobs, id: str, node: str, path: str, run_dir: Path) -> None:
    """Raises `UserError` if the events here are not the beginning of those on the head."""
    try:
        here = (run_dir / path).read_bytes()
    except OSError:
        return
    there = b"".join(jobs.read(node, f"capsbench-{id}/{path}"))
    if not there.startswith(here):
        raise UserError(
            f"{run_dir / path} has events that the run on the cluster has not, so it is left as it is. "
            "Bring the run home into another folder: --out DIR"
        )


def _is_same(path: Path, size: int, sha: str) -> bool:
    try:
        return not path.is_symlink() and path.stat().st_size == size and _sha(path) == sha
    except OSError:
        return False


def _sha(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
