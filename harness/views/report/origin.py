"""Where a run comes from and how it is repeated: machine, versions, commands, hashes."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from harness.analysis.cells import Cell
from harness.journal.journal import Journal
from harness.views.report.chart import Data


@dataclass(frozen=True)
class Origin:
    """What repeats a run: commands, the suite as it was given, hashes; and what it ran on."""

    environment: Data
    commands: str
    suite: str
    hashes: Data


def origin(journal: Journal, cells: Sequence[Cell]) -> Origin:
    """From the run's own records; what they lack is left out."""
    environment, plan = journal.environment(), journal.plan()
    suite_path = journal.run_dir / "suite.yaml"
    suite = suite_path.read_text("utf-8", "replace") if suite_path.is_file() else ""
    rows = [[name, value] for name, value in _named(environment)]
    return Origin(
        Data(["what", "value"], [False, False], rows),
        "\n".join(_commands(plan, environment)),
        suite,
        Data(["what", "SHA-256"], [False, False], list(_hashes(journal, cells))),
    )


def _named(document: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for key, value in document.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping):
            yield from _named(cast("Mapping[str, Any]", value), f"{name}: ")
        elif isinstance(value, list):
            yield name, ", ".join(str(each) for each in cast("list[Any]", value)) or "none"
        elif value is not None:
            yield name, f"{value:,}" if isinstance(value, int) and name == "memory_bytes" else str(value)


def _commands(plan: Mapping[str, Any], environment: Mapping[str, Any]) -> Iterator[str]:
    versions: dict[str, str] = environment.get("versions") or {}
    git: dict[str, Any] = environment.get("git") or {}
    if commit := git.get("commit"):
        yield f"git checkout {commit}" + ("   # with changes that were not committed" if git.get("dirty") else "")
    if versions:
        yield "pip install " + " ".join(shlex.quote(f"{name}=={version}") for name, version in versions.items())
    chosen = [word for override in plan.get("overrides") or () for word in ("-s", str(override))]
    quick = ["--quick"] if plan.get("quick") else []
    yield shlex.join(["capsbench", "run", str(plan.get("source") or "suite.yaml"), *quick, *chosen])
    yield shlex.join(["capsbench", "report", f"runs/{plan.get('suite')}"])


def _hashes(journal: Journal, cells: Sequence[Cell]) -> Iterator[list[str]]:
    for name in ("suite.yaml", "plan.json"):
        path = journal.run_dir / name
        if path.is_file():
            yield [name, hashlib.sha256(path.read_bytes()).hexdigest()]
    said: dict[str, dict[str, None]] = {}  # digest -> of what
    weights: dict[str, list[str]] = {}
    for cell in cells:
        for result in cell.results:
            if result.data_sha256:
                named = f"images and labels: {result.data_provenance or ''}"
                said.setdefault(result.data_sha256, {})[named] = None
            if result.weights_sha256:
                weights.setdefault(result.weights_sha256, []).append(result.id)
    yield from (["; ".join(names), digest] for digest, names in said.items())
    for digest, ids in weights.items():
        yield [f"initial weights of trial{'s' * (len(ids) > 1)} {', '.join(ids)}", digest]
