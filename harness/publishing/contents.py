"""What of a run directory is published: all that its figures can be recomputed from, and no checkpoints or logs."""

from __future__ import annotations

import re
from collections.abc import Container
from pathlib import Path
from typing import Any, cast

from harness.errors import UserError
from harness.journal import retested
from harness.journal.directory import require_run
from harness.journal.journal import Journal
from harness.journal.results import named_files

_OF_THE_RUN = ("plan.json", "suite.yaml", "environment.json")
_OF_A_TRIAL = ("trial.json", "events.jsonl", "result.json", retested.NAME)


def contents(run_dir: Path, weights_of: Container[str] | None = None, *, figures: bool = True) -> list[str]:
    """Paths relative to the run directory, sorted. Logs, which show the user's own paths, and checkpoints stay behind.

    Args:
        weights_of: ids of the trials whose weights are published; None: all.

    Raises `UserError` for what is no run directory, a run that is in progress, or one in which no trial has finished.
    """
    require_run(run_dir)
    journal = Journal(run_dir)
    if journal.is_live():
        raise UserError(f"{run_dir} is being run. Wait until it ends, or stop it with Ctrl-C; then publish it.")
    found = [name for name in _OF_THE_RUN if (run_dir / name).is_file()]
    is_any_finished = False
    for id in journal.trial_ids():
        folder = journal.trial_dir(id)
        named = named_files(journal.events(id))
        is_any_finished |= (journal.result(id) or {}).get("status") == "finished"
        weights = weights_of is None or id in weights_of
        wanted = [*_OF_A_TRIAL, *(name for name, event in named.items() if weights or name == _predictions(event))]
        wanted = [name for name in wanted if not name.startswith("epoch-")]
        if figures:
            wanted += [str(path.relative_to(folder)) for path in folder.glob("figures/**/*") if path.is_file()]
        found += [f"trials/{id}/{name}" for name in wanted if (folder / name).is_file()]
    if not is_any_finished:
        raise UserError(f"{run_dir}: no trial has finished, so there is nothing to publish. Run its suite again.")
    return sorted(found)


def without_places(environment: dict[str, Any]) -> dict[str, Any]:
    """`environment.json` for others: of the folders in its variables, such as PYTHONPATH's, the names alone."""

    def cut(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: cut(each) for name, each in cast("dict[str, Any]", value).items()}
        if not isinstance(value, str):
            return value
        return re.sub(r"(^|[:=, ])/[^:=, ]*/(?=[^:=, /])", r"\1.../", value)

    return environment | {name: cut(each) for name, each in environment.items() if name == "variables"}


def _predictions(event: object) -> str | None:
    return getattr(event, "predictions", None)
