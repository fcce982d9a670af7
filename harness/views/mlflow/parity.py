"""Parity reports in MLflow: one run per implementation and precision, in an experiment beside the suite's."""

from __future__ import annotations

import importlib.util
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.analysis import labels
from harness.disk import file_lock, finite, write_atomic
from harness.journal.journal import CURSOR
from harness.machine.environment import environment
from harness.parity.check import Report
from harness.parity.words import sentence
from harness.spec.trial import Trial
from harness.views.mlflow import trials as view
from harness.views.mlflow.client import connect, reason
from harness.views.mlflow.saved import parity_view
from harness.views.mlflow.where import artifacts_of, locate, redact, shown

_LOCK_TIMEOUT_S = 30
_COLUMNS = ("level", "name", "rel_err", "tolerance", "ok", "where", "found", "expected", "note")


def record(
    reports: Sequence[Report], trials: Sequence[Trial], out: Path, uri: str | None
) -> tuple[str | None, str | None]:
    """Sends the reports to MLflow at `uri`, by default the database of the output folder.

    Returns where they are, or else what to tell the user: a verdict does not depend on being recorded.
    """
    where = locate(out, uri).uri
    if importlib.util.find_spec("mlflow") is None:
        return None, 'MLflow is not installed, so nothing was recorded: pip install "capsbench[mlflow]", or --no-mlflow'
    try:
        with file_lock(out / ".mlflow.lock", _LOCK_TIMEOUT_S) as locked:
            if not locked:
                raise TimeoutError("another process is writing to MLflow from the same output folder")
            client = connect(where, out)
            experiment = _experiment(client, f"capsbench-parity/{trials[0].suite}", where, out)
            facts = environment()
            for report, trial in zip(reports, trials, strict=True):
                _send(client, experiment, report, trial, facts)
            write_atomic(out / CURSOR, json.dumps({"uri": redact(where), "experiment_id": experiment}))
    except Exception as error:  # whatever goes wrong in its server, database or client
        return None, f"MLflow at {shown(where)} did not take the reports: {reason(error, where)}"
    return where, None


def metrics(report: Report) -> dict[str, float]:
    """`parity_ok`, and for each level `L4.ok`, `L4.checks` and `L4.max_rel_err`, the last only if it is a number.

    Booleans are 1 and 0. `max_rel_err` is that of the worst check: the one farthest beyond its tolerance.
    """
    values: dict[str, float] = {"parity_ok": float(report.ok)}
    for level, worst in report.level_errors().items():
        values[f"{level}.ok"] = float(worst.ok)
        values[f"{level}.checks"] = float(sum(check.level == level for check in report.checks))
        if math.isfinite(worst.rel_err):
            values[f"{level}.max_rel_err"] = worst.rel_err
    return values


def run_name(report: Report) -> str:
    """At most 20 characters, the implementation first: `torch fp64 parity`."""
    tail = f" {report.precision} parity"
    return labels.impl_name(report.impl)[: labels.NAME_LENGTH - len(tail)] + tail


def _experiment(client: Any, name: str, uri: str, out: Path) -> str:
    """The experiment's id. If it does not exist yet, it is created with the view that its page opens with."""
    found = client.get_experiment_by_name(name)
    if found and found.lifecycle_stage == "deleted":  # its name stays taken, so nothing else would help
        client.restore_experiment(found.experiment_id)
    if found:
        return found.experiment_id
    files = artifacts_of(uri, out)
    experiment = client.create_experiment(name, (files / name).as_uri() if files else None)
    client.set_experiment_tag(experiment, "mlflow.experimentKind", "custom_model_development")
    saved_view = parity_view()
    client.set_experiment_tag(experiment, saved_view.tag, saved_view.value(round(time.time() * 1000)))
    return experiment


def _send(client: Any, experiment: str, report: Report, trial: Trial, facts: dict[str, Any]) -> None:
    from mlflow.entities import Metric, Param, RunTag

    now = round(time.time() * 1000)
    tags: dict[str, Any] = {
        "capsbench.kind": "parity",
        "capsbench.suite": trial.suite,
        "impl": report.impl,
        "precision": report.precision,
        "profile": report.profile,
        "parity": "good" if report.ok else "failed",
        "failed_level": report.failed_level,
        "suspects": ", ".join(report.suspects),
        "conventions": ", ".join(report.conventions),
        "mlflow.note.content": None if report.ok else sentence(report),
        "mlflow.runColor": labels.color(report.impl),
        "mlflow.source.name": "capsbench",
        **view.environment_tags(facts),
    }
    known = [RunTag(key, str(value)) for key, value in tags.items() if value not in (None, "", [])]
    run = client.create_run(experiment, now, None, run_name(report)).info.run_id
    client.log_batch(
        run,
        [Metric(key, float(f"{value:.5g}"), now, 0) for key, value in metrics(report).items()],
        [Param(key, value) for key, value in view.params(trial).items()],
        known,
        synchronous=True,
    )
    document = finite(report.to_json())
    rows = document["checks"]
    client.log_table(run, {key: [_cell(row.get(key)) for row in rows] for key in _COLUMNS}, "parity.json")
    client.log_dict(run, document, "report.json")
    client.set_terminated(run, "FINISHED")


def _cell(value: Any) -> Any:
    """A value that fits a column of MLflow's table: an index becomes text."""
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
