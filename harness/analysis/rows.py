"""A run as plain tables: a row a trial, a row an epoch, a row for each tensor of the gate, and all figures in one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

from harness import progress
from harness.analysis.choice import errors_by_epoch
from harness.journal.journal import Journal
from harness.journal.results import Result, parity_of, summarise
from harness.journal.retested import completed
from harness.spec.trial import Trial

Row = dict[str, Any]

COLUMNS = {
    "suite": "The suite's name.",
    "trial": "The trial's id.",
    "impl": "The implementation.",
    "seed": "The seed of initial weights and plans.",
    "epoch": "The epoch's number, from 1; empty for a trial without epochs.",
    "warmup": "Whether the epoch is left out of the trial's median times: the first of each attempt.",
    "attempt": "The attempt that trained the epoch, from 1.",
    "time": "When the epoch ended, in seconds since 1970.",
    "epochs": "The number of epochs planned at most.",
    "epoch_s": "Seconds of training; empty where timing is withheld.",
    "eval_s": "Seconds of validation; likewise.",
    "img_per_s": "Training images per second; likewise.",
    "joules": "Energy of training in joules, where the hardware measures it.",
    "lr": "Learning rate of the epoch's first step.",
    "train_loss": "Mean loss over the training images.",
    "train_err_pct": "Training images told wrong while it learned, in percent.",
    "val_loss": "Mean loss over the validation images after the epoch.",
    "val_err_pct": "Validation images told wrong after the epoch, in percent.",
    "test_err_pct": "Test images told wrong after the epoch, in percent; by the stopping rule or `capsbench retest`.",
    "own_test_err_pct": "The same of the data set trained on, where the trial is tested on another.",
    "audit_fault": "What the audit found wrong in the epoch.",
    "plan_sha256": "SHA-256 of the epoch's order of images and their shifts.",
    "weights": "The file of the epoch's weights, where they are kept.",
    "trial_phase": "Of a search: proposal or confirmation; a proposal has no test error.",
    "trial_status": "finished, failed, interrupted or pending.",
    "trial_test_err_pct": "Test images that the last epoch's weights tell wrong, in percent.",
    "trial_test_loss": "Mean loss over the test images.",
    "trial_val_err_pct": "Validation images told wrong after the last epoch, in percent.",
    "trial_best_epoch": "The epoch of the lowest validation error.",
    "trial_best_test_err_pct": "Test images that its weights tell wrong, in percent.",
    "trial_claimed_test_err_pct": "The lowest known test error of any epoch: no estimate, since test images chose it.",
    "trial_claimed_epochs": "Of how many epochs the test error is known.",
    "trial_epochs_trained": "How many epochs were trained.",
    "trial_stopped_on": "The images that the stopping rule looks at: validation or test.",
    "trial_epoch_s": "Median seconds per epoch of the steady epochs.",
    "trial_epoch_s_low": "Lower end of its 95% interval.",
    "trial_epoch_s_high": "Upper end of its 95% interval.",
    "trial_img_per_s": "Median training images per second of the steady epochs.",
    "trial_flops_per_s": "Operations of the direct algorithm per second.",
    "trial_joules_per_epoch": "Median energy of the steady epochs in joules.",
    "trial_compile_s": "Seconds to compile.",
    "trial_peak_bytes": "The most memory held, in bytes.",
    "trial_parity_ok": "Whether the gate found the implementation equal to the specification; empty: not checked.",
    "trial_parity_max_rel_err": "Relative error of the gate's worst tensor.",
    "trial_parity_worst": "Level and name of that tensor.",
    "trial_audit_ok": "Whether the audit found nothing wrong; empty: off, or not known yet.",
    "trial_timing_withheld": "Why there is no timing.",
    "trial_steady_epochs": "How many epochs the medians are over.",
    "trial_warnings": "What makes the result doubtful; sentences are separated by \" | \".",
    "trial_cause": "Why it failed or was interrupted.",
    "trial_error": "The type of the error.",
    "trial_hint": "What to do about it.",
    "trial_parameters": "How many numbers the model learns.",
    "trial_device": "cpu or gpu.",
    "trial_weights_sha256": "SHA-256 of the initial weights.",
    "trial_data_sha256": "SHA-256 of images and labels.",
    "trial_data_provenance": "Which images of which data set.",
    "trial_attempts": "How many attempts it took.",
    "trial_continued_from": "The shorter trial that it goes on from; empty: trained from the start.",
    "trial_continued_from_epoch": "After which epoch of that trial.",
    "trial_log": "The last attempt's log, in the run's directory.",
}  # fmt: skip
"""The columns of `capsbench table`, and what they say; empty: not known, or does not apply.

Besides these: what the suite's grid varies under its keys, such as `model.routing`, after `seed`; each further term of
the loss as `train_TERM`; and each iteration k of `measure.routing_logits` as `routing_logit_change_K`.
"""

_TOLD = ("id", "impl", "seed", "params", "epochs", "warmup_epochs")
"""Fields of a result that other columns tell."""


def whose(trial: Trial) -> Row:
    """What identifies a trial, and what the grid varies."""
    return {"trial": trial.id, "impl": trial.impl, "seed": trial.seed, **trial.params}


def trial_rows(journal: Journal, trial: Trial) -> list[Row]:
    """One row: the fields of `capsbench run --json` except the epochs."""
    result = summarise(trial, journal.events(trial.id)).to_json()
    return [{key: value for key, value in result.items() if key not in ("id", "impl", "seed", "params", "epochs")}]


def epoch_rows(journal: Journal, trial: Trial) -> list[Row]:
    """A row for each epoch that counts."""
    return summarise(trial, journal.events(trial.id)).epochs


def parity_rows(journal: Journal, trial: Trial) -> list[Row]:
    """A row for each tensor that the gate compared."""
    parity = parity_of(journal.events(trial.id))
    rows: list[Row] = []
    for name, found in parity.tensors.items() if parity else ():
        level, _, tensor = name.partition(" ")
        error, tolerance = found["rel_err"], found["tolerance"]
        is_ok = error is not None and error <= tolerance
        rows.append({"level": level, "tensor": tensor, "rel_err": error, "tolerance": tolerance, "ok": is_ok})
    return rows


def all_rows(journal: Journal) -> list[Row]:
    """A row for each epoch of each trial, with the trial's own figures in each; a trial without epochs has one row.

    Every row has the same columns in the same order: see `COLUMNS`. Raises `UserError` for files that cannot be read.
    """
    rows: list[Row] = []
    varied: dict[str, None] = {}
    for id in progress.track(journal.trial_ids(), f"reading {journal.run_dir.name}"):
        trial = journal.trial(id)
        events = journal.events(id)
        result = completed(journal, summarise(trial, events), events)
        varied |= dict.fromkeys(trial.params)
        own, epochs = _own(result), [_flat(epoch) for epoch in result.epochs]
        rows += [{"suite": trial.suite, **whose(trial), **epoch, **own} for epoch in epochs or [{}]]
    columns = _ordered([*varied], dict.fromkeys(name for row in rows for name in row))
    return [{column: row.get(column) for column in columns} for row in rows]


def _own(result: Result) -> Row:
    """A trial's own figures, as columns."""
    record = {key: value for key, value in result.to_json().items() if key not in _TOLD}
    low, high = record.pop("epoch_s_ci") or (None, None)
    audit = record.pop("audit")
    origin: dict[str, Any] = record.pop("continued_from", None) or {}
    known = errors_by_epoch(result)
    told: Row = {"claimed_test_err_pct": min(known.values(), default=None), "claimed_epochs": len(known) or None}
    told |= {"epoch_s_low": low, "epoch_s_high": high, "audit_ok": audit and audit["ok"]}
    told |= {"continued_from": origin.get("trial"), "continued_from_epoch": origin.get("epoch")}
    told["warnings"] = " | ".join(record.pop("warnings")) or None
    return {f"trial_{key}": value for key, value in _flat(record | told).items()}


def _flat(record: Row) -> Row:
    """The record with value k of a list under NAME_k."""
    flat: Row = {}
    for name, value in record.items():
        if isinstance(value, list):
            flat |= {f"{name}_{number}": each for number, each in enumerate(cast("list[Any]", value), start=1)}
        else:
            flat[name] = value
    return flat


def _ordered(varied: Sequence[str], found: Iterable[str]) -> list[str]:
    """The columns of any run in their order, and between them what this one has besides."""
    fixed, more = [*COLUMNS], [name for name in found if name not in COLUMNS and name not in varied]
    of_trial = [name for name in more if name.startswith("trial_")]
    of_epoch = [name for name in more if not name.startswith("trial_")]
    identified, trained = fixed.index("seed") + 1, fixed.index("plan_sha256")
    return [*fixed[:identified], *varied, *fixed[identified:trained], *of_epoch, *fixed[trained:], *of_trial]
