"""A run as it looks in MLflow: names, colours, tags and metric rows.

Pure functions of the journal's content; `harness.views.mlflow.sink` sends what they return.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

from harness.analysis.equivalence import Pair, sentence
from harness.analysis.labels import color
from harness.events import AttemptEvent, ParityEvent, ResultEvent, TrialEvent
from harness.journal.results import Result, kept_epochs, parity_of, summarise
from harness.spec.trial import Trial

_EPOCH_RECORD = (
    "train_loss", "train_margin", "train_reconstruction", "train_err_pct", "val_loss", "val_err_pct", "test_err_pct",
    "own_test_err_pct", "lr",
)  # fmt: skip
_EPOCH_TIMING = ("epoch_s", "eval_s", "img_per_s")
_NO_PARAMS: Any = {  # may change
    "id": True, "suite": True, "params": True, "data": {"dir"}, "train": {"start_from"}, "parity": {"margin_pct"},
}  # fmt: skip
_TAG_LENGTH = 5000
_MAX_TAGS = 90  # MLflow takes at most 100 in one call


class Row(NamedTuple):
    """One metric value as MLflow stores it. Time is in milliseconds since 1970; the value is rounded: see `row`."""

    key: str
    value: float
    time_ms: int
    step: int


def experiment_name(plan: Mapping[str, Any]) -> str:
    """The experiment of a suite; quick runs have their own, as they do not compare with full ones."""
    return f"capsbench/{plan['suite']}{'-quick' if plan.get('quick') else ''}"


def params(trial: Trial) -> dict[str, str]:
    """The configuration, flattened: {"impl": "torch", "model.routing": "3", ...}."""
    document = trial.model_dump(mode="json", exclude=_NO_PARAMS)
    return {key: str(value) for key, value in _flatten(document) if value is not None}


def metric_rows(trial: Trial, events: Sequence[TrialEvent]) -> list[Row]:
    """Every metric value of a trial: series `epoch/...` from step 1, finals under short names at step 0.

    A trial that has not passed parity has no timing among them. A row returned for a journal is also returned for
    every longer one, unless a later attempt or a failed audit made it void.
    """
    summary = summarise(trial, events)
    names = _EPOCH_RECORD if summary.timing_withheld else _EPOCH_RECORD + _EPOCH_TIMING
    rows = [
        row(f"epoch/{name}", value, time_ms(epoch), epoch.epoch)
        for epoch in kept_epochs(events)
        for name in names
        if (value := getattr(epoch, name, None)) is not None
    ]
    for epoch in kept_epochs(events):
        for number, change in enumerate(epoch.routing_logit_change or (), start=1):
            if change is not None:
                name = f"epoch/routing_logit_change_{number}"
                rows.append(row(name, change, time_ms(epoch), epoch.epoch))
    for count, event in enumerate(events, start=1):
        if isinstance(event, ParityEvent) and (parity := parity_of(events[:count])):
            rows.append(row("parity_ok", parity.ok, time_ms(event)))
            if parity.max_rel_err is not None:
                rows.append(row("parity_max_rel_err", parity.max_rel_err, time_ms(event)))
    if summary.status == "finished":
        finals = {
            "test_err_pct": summary.test_err_pct,
            "best_test_err_pct": summary.best_test_err_pct,
            "best_epoch": summary.best_epoch,
            "epochs_trained": summary.epochs_trained if summary.stopped_on else None,
            "val_err_pct": summary.val_err_pct,
            "test_loss": summary.test_loss,
            "audit_s": (summary.audit or {}).get("audit_s"),
            "epoch_s": summary.epoch_s,
            "img_per_s": summary.img_per_s,
            "gflops_per_s": summary.flops_per_s / 1e9 if summary.flops_per_s is not None else None,
            "joules_per_epoch": summary.joules_per_epoch,
            "compile_s": summary.compile_s,
            "peak_mem_mb": summary.peak_bytes / 1e6 if summary.peak_bytes is not None else None,
        }
        ended = max(time_ms(event) for event in events if isinstance(event, ResultEvent))
        rows += [row(key, value, ended) for key, value in finals.items() if value is not None]
    return rows


def trial_tags(
    trial: Trial, summary: Result, events: Sequence[TrialEvent], environment: Mapping[str, Any]
) -> dict[str, str]:
    """Tags of a trial's run except its key and parent: what it is, its outcome, and where it ran."""
    attempt = next((event for event in reversed(events) if isinstance(event, AttemptEvent)), None)
    parity = {None: "not checked", True: "good", False: "failed"}[summary.parity_ok]
    tags: dict[str, Any] = {
        "mlflow.runColor": color(trial.impl),
        "mlflow.note.content": _note(summary),
        "capsbench.kind": "trial",
        "capsbench.suite": trial.suite,
        "phase": trial.phase,
        "impl": trial.impl,
        "seed": trial.seed,
        "profile": trial.model.variant,
        "status": summary.status,
        "stopped_on": summary.stopped_on,
        "continued_from": summary.continued_from and ", ".join(f"{k} {v}" for k, v in summary.continued_from.items()),
        "parity": parity,
        "parity_worst": summary.parity_worst,
        "audit": summary.audit and {None: "off", True: "good", False: summary.flaw}[summary.audit["ok"]],
        "timing_withheld": summary.timing_withheld,
        "cause": summary.cause,
        "hint": summary.hint,
        "warnings": "\n".join(summary.warnings) or None,
        "device": summary.device,
        "node": ", ".join(dict.fromkeys(each.host for each in events if isinstance(each, AttemptEvent) and each.host)),
        "parameters": summary.parameters,
        "weights_sha256": summary.weights_sha256,
        "data_sha256": summary.data_sha256,
        "data_provenance": summary.data_provenance,
        **environment_tags(environment, attempt),
    }
    return tidy(tags)


def suite_tags(plan: Mapping[str, Any], environment: Mapping[str, Any]) -> dict[str, str]:
    """Tags of the parent run except its key and its note."""
    tags = {
        "capsbench.kind": "suite",
        "capsbench.suite": plan["suite"],
        "overrides": json.dumps(plan["overrides"]) if plan.get("overrides") else None,
        **environment_tags(environment),
    }
    return tidy(tags)


def equivalence_tag(pairs: Sequence[Pair]) -> str:
    """One line per pair of implementations compared over seeds (L7); "-" if there are no longer any."""
    return "\n".join(map(sentence, pairs))[:_TAG_LENGTH] or "-"


def environment_tags(environment: Mapping[str, Any], attempt: AttemptEvent | None = None) -> dict[str, Any]:
    """Who, where and from what: user, cluster, system, git states and library versions.

    What the worker reported in `attempt` takes precedence. Environments of older runs tell less.
    """
    git, project = _section(environment, "git"), _section(environment, "project")
    versions = _section(environment, "versions") | (attempt.versions if attempt else {})
    system = ("os", "cpu", "cores", "memory_bytes", "gpus")
    return {
        "mlflow.user": environment.get("user"),
        "mlflow.source.git.commit": git.get("commit") or project.get("commit"),
        "mlflow.source.git.branch": project.get("branch"),
        "mlflow.source.git.repoURL": project.get("url"),
        "git.dirty": git.get("dirty"),
        **{f"project.{name}": project.get(name) for name in ("commit", "dirty")},
        "cluster": ", ".join(f"{name} {value}" for name, value in _section(environment, "cluster").items()),
        "system.host": (attempt and attempt.host) or environment.get("host"),
        "system.python": (attempt and attempt.python) or environment.get("python"),
        **{f"system.{name}": environment.get(name) for name in system},
        **{f"version.{name}": version for name, version in versions.items()},
    }


def time_ms(event: TrialEvent) -> int:
    """When the event happened, in MLflow's unit."""
    return round(event.time * 1000)


def row(key: str, value: float, at_ms: int, step: int = 0) -> Row:
    """A value rounded to five significant digits, since MLflow's table shows all it has. The journal keeps them all."""
    return Row(key, float(f"{value:.5g}"), at_ms, step)


def _flatten(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in document.items():
        if isinstance(value, Mapping):
            yield from _flatten(cast(Mapping[str, Any], value), f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _section(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    return document.get(name) or {}


def _note(summary: Result) -> str | None:
    """Shown at the top of the run's page: why it failed, why it has no timing, what is doubtful."""
    lines = [f"**{summary.status}**: {summary.cause}"] if summary.cause else []
    lines += [summary.hint] if summary.hint else []
    lines += [f"No timing verdict: {summary.timing_withheld}."] if summary.timing_withheld else []
    lines += [f"Warning: {text}" for text in summary.warnings]
    return "\n\n".join(lines) or None


def tidy(tags: Mapping[str, Any]) -> dict[str, str]:
    """The tags that are not empty, as text that MLflow accepts."""
    known = [(key, str(value)[:_TAG_LENGTH]) for key, value in tags.items() if value not in (None, "", [])]
    return dict(known[:_MAX_TAGS])
