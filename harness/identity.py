"""A trial's identity: the hash of everything that can change its result, and of nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness import registry
from harness.registry import Entry

_HARNESS = Path(__file__).parent
_SHARED = _HARNESS.parent / "impls"  # what its modules share, whichever implementation uses it
# The modules that compute, time or judge a result. Those that schedule, record or print it may change freely.
_DECISIVE = (
    "spec.py", "model_spec.py", "config.py", "weights.py", "plans.py", "progress.py", "insight.py", "audit.py",
    "audit_checks.py", "trial.py", "attempt.py", "worker.py", "timing.py",
    *(f"parity/{module}.py" for module in (
        "check", "inputs", "judge", "ladder", "measure", "probe", "relations", "setting", "setups", "tolerances"
    )), "data/**/*",
)  # fmt: skip
_SOURCES = {".py", ".pyx", ".c", ".cc", ".cpp", ".h", ".cu", ".cuh"}
_IRRELEVANT = {"id", "suite", "params"}  # of a trial; params only repeats what the sections say
_IRRELEVANT_INSIDE = {"data": {"dir"}, "train": {"start_from"}, "parity": {"margin_pct"}}
"""Of its sections: where files are, whose content counts instead; and the margin, which judges finished trials."""


def trial_id(document: Mapping[str, Any], impl_entry: Entry, fingerprint: Mapping[str, Any]) -> str:
    """12 hex digits of the SHA-256 of a trial's content, the code that determines its result, and its environment.

    Args:
        document: `Trial.model_dump(mode="json")`; id, suite, params, data.dir, train.start_from and parity.margin_pct do not
            count.
        impl_entry: the entry of the trial's implementation, whose sources count.
        fingerprint: JSON-serialisable facts of the environment that can change a result.
    """
    content = {key: value for key, value in document.items() if key not in _IRRELEVANT}
    for section, names in _IRRELEVANT_INSIDE.items():
        content[section] = {key: value for key, value in content.get(section, {}).items() if key not in names}
    identity = {"trial": content, "code": code_version(impl_entry), "environment": fingerprint}
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def code_version(entry: Entry) -> str:
    """SHA-256 over the names and contents of the sources that determine a result: decisive modules and implementation.

    A file that is not there is left out; line ends do not count.
    """
    harness = {path for pattern in _DECISIVE for path in _HARNESS.glob(pattern) if _is_source(path)}
    files = [(path.relative_to(_HARNESS), path) for path in harness]
    files += [(Path("impls", path.name), path) for path in _SHARED.glob("*.py")]
    files += _implementation(entry)
    sha = hashlib.sha256()
    for name, path in sorted(files):
        text = path.read_bytes().replace(b"\r\n", b"\n")
        sha.update(f"{name.as_posix()} {len(text)}\n".encode())
        sha.update(text)
    return sha.hexdigest()


def _implementation(entry: Entry) -> Iterator[tuple[Path, Path]]:
    """The sources of the innermost package around the class, or of its module alone if that is in no package."""
    spec = registry.locate(entry.module)
    if spec is None or not spec.has_location or spec.origin is None:
        return
    module = Path(spec.origin)
    if spec.submodule_search_locations is None and "." not in entry.module:
        yield Path("impl", module.name), module
        return
    for path in module.parent.rglob("*"):
        if _is_source(path):
            yield Path("impl", path.relative_to(module.parent)), path


def _is_source(path: Path) -> bool:
    return path.suffix in _SOURCES and path.is_file()
