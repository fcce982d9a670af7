"""What goes on beside the trials of a run: MLflow follows, figures are drawn at the end."""

from __future__ import annotations

import importlib.util
import shlex
from collections.abc import Mapping

from harness.commands.plan import (
    Plan,
    RunRequest,
)
from harness.disk import obstacle
from harness.errors import UserError
from harness.journal.journal import Journal
from harness.journal.results import Result
from harness.supervisor.seat import as_interrupts
from harness.text import ended
from harness.views.figures.draw import draw_missing
from harness.views.mlflow import probe
from harness.views.mlflow.tracking import Tracker
from harness.views.mlflow.where import locate
from harness.views.screen import Screen

FEW = 24
"""Trials up to which all get figures unless told otherwise: these take some seconds each."""


def reached(request: RunRequest) -> str | None:
    """Tries MLflow, for some seconds at most. Returns what is wrong with it, in a sentence; None if nothing.

    Raises `UserError` for an address that is none, and if MLflow is required.
    """
    if not request.track:
        if request.mlflow_required:
            raise UserError("--mlflow-required and --no-mlflow exclude each other: drop one.")
        if request.register is not None:
            raise UserError("--register and --no-mlflow exclude each other: drop one.")
        return None
    if importlib.util.find_spec("mlflow") is None and not request.mlflow_required:
        return None  # told at the end, or refused if it was named
    where = locate(request.out, request.mlflow_uri)
    problem = probe.problem(where, request.out)
    if problem and request.mlflow_required:
        raise UserError(f"--mlflow-required: {ended(problem)} Nothing was started.")
    if problem is None or obstacle(request.out):  # without a run directory nothing begins, which is told next
        return None
    return f"MLflow cannot be used now: {ended(problem)}"


def begin_tracking(request: RunRequest, journal: Journal, screen: Screen, warnings: list[str]) -> Tracker | None:
    if not request.track:
        return None
    if importlib.util.find_spec("mlflow") is None:
        warnings.append(
            "MLflow is not installed: the journal holds everything; where it is installed, "
            f"capsbench sync {journal.run_dir} brings it in"
        )
        return None
    tracker = Tracker(journal, request.mlflow_uri, tell=screen.stand)
    tracker.start()
    return tracker


def draw(
    request: RunRequest,
    journal: Journal,
    plan: Plan,
    results: Mapping[str, Result],
    trained_s: float | None,
    tracker: Tracker | None,
) -> list[str]:
    """Draws the missing figures that are asked for, for no longer than the training took; warnings and notes on the rest."""
    finished = [each for each in plan.trials if results[each.id].status == "finished" and not each.is_proposal]
    wanted = request.figures or ("all" if len(finished) <= FEW else "last")
    chosen = {
        "all": [trial.id for trial in finished],
        "last": [*{trial.impl: trial.id for trial in finished}.values()],
        "none": [],
    }[wanted]
    notes: list[str] = []
    if wanted == "last" and request.figures is None:
        rest = f"--figures all, or capsbench figures {shlex.quote(str(journal.run_dir))}, draws all"
        notes = [f"figures of {len(chosen)} of {len(finished)} trials, the last one of each implementation: {rest}"]
    with as_interrupts():
        told = draw_missing(journal, chosen, tracker.notify if tracker else lambda _: None, trained_s)
    return [*notes, *told]
