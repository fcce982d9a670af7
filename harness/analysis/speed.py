"""From measurements to reported figures: medians with intervals, the machine's floor, doubts. Pure functions."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from harness import models
from harness.analysis.labels import setting as setting_of
from harness.analysis.parts import alone, in_place, mismatch
from harness.cost.fit import TimedTrial, fit, sentence
from harness.machine.noise import Observation, doubts, drift, wide
from harness.stats import FEWEST, median_interval
from harness.supervisor.speed import Method, Record, Session

EPOCH_IMAGES = 60_000
"""An epoch of MNIST, whatever the training set."""


def document(session: Session, method: Method) -> dict[str, Any]:
    """The output of `speed --json` except for the machine: the rates, one row per measurement, warnings."""
    rates = _rates(session)
    cpu = {library: max(found) for library, found in rates.items()}
    rows = [_row(record, session, method, max(cpu.values(), default=None)) for record in session.records]
    return {
        "ok": all(row["status"] == "ok" for row in rows),
        "rounds": method.rounds,
        "steps": method.steps,
        "epoch_images": EPOCH_IMAGES,
        "cost_models": _cost_models(session.records, rows),
        "matmul": {"size": method.matmul, "precision": "fp32", "flops_per_s": cpu},
        "cells": rows,
        "warnings": [*session.warnings, *_falling(rates)],
    }


def _cost_models(records: Sequence[Record], rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One for each implementation, precision, device and kind of model with enough measurements.

    `errors` are by measurement, each predicted from the others.
    """
    lines: dict[tuple[str, ...], list[tuple[Record, dict[str, Any]]]] = {}
    for record, row in zip(records, rows, strict=True):
        if row["status"] == "ok":
            lines.setdefault((row["impl"], row["precision"], row["device"], row["model"]), []).append((record, row))
    found: list[dict[str, Any]] = []
    for line, members in lines.items():
        timed = [TimedTrial(record.trial.model, record.trial.train.batch, row["step_s"]) for record, row in members]
        names = [row["name"] for _, row in members]
        if model := fit(timed):
            found.append(
                {
                    **dict(zip(("impl", "precision", "device", "model"), line, strict=True)),
                    **{key: value for key, value in asdict(model).items() if key not in ("residuals", "leave_one_out")},
                    "residuals": dict(zip(names, model.residuals, strict=True)),
                    "errors": dict(zip(names, model.leave_one_out, strict=True)),
                    "sentence": sentence(" ".join(line[:2]), setting_of(members[0][0].trial.params), timed[0], model),
                }
            )
    return found


def _rates(session: Session) -> dict[str, list[float]]:
    """float32 matrix products on the CPU: library -> operations per second, in the order of measurement."""
    on_cpu = [each["rate"] for record in session.records if not record.trial.gpus for each in record.rounds]
    found: dict[str, list[float]] = {}
    for rate in (*session.rates, *on_cpu):
        found.setdefault(rate["library"], []).append(rate["flops_per_s"])
    return dict(sorted(found.items()))


def _falling(rates: dict[str, list[float]]) -> list[str]:
    """A sentence if matrix products became slower and slower: the mean over libraries, each relative to its median."""
    relative = [[rate / statistics.median(found) for rate in found] for found in rates.values()]
    by_round = [statistics.fmean(each) for each in zip(*relative, strict=False)]
    fall = drift([-rate for rate in by_round])
    if fall is None:
        return []
    return [f"matrix products became {fall:.0%} slower from the first rounds to the last: heat, or other load"]


def _row(record: Record, session: Session, method: Method, cpu_rate: float | None) -> dict[str, Any]:
    trial = record.trial
    row: dict[str, Any] = {
        "name": record.name,
        "impl": trial.impl,
        "precision": trial.runtime.precision,
        "batch": trial.train.batch,
        "model": trial.model.kind,
        "routing": trial.model.routing if models.of(trial.model).has_capsules else None,
        "params": trial.params,
        "device": "gpu" if trial.gpus else "cpu",
        "cpus": trial.cpus,
        "status": "failed" if record.failure else "ok",
        "log": str(record.log_path),
    }
    if record.failure:
        return row | {
            "verdict": record.failure.verdict,
            "cause": record.failure.cause,
            "hint": record.failure.hint,
            "warnings": record.warnings,
        }
    figures = _figures(record, _floor(record, session, cpu_rate))
    doubts = [*_doubts(record, method), *mismatch(figures)]
    return row | figures | {"parity_ok": True if method.gate else None, "warnings": doubts}


def _floor(record: Record, session: Session, cpu_rate: float | None) -> float | None:
    """Seconds that the machine itself takes for the step's operations.

    On a GPU the rate is for the training's precision; if moving the step's bytes takes longer, that counts instead.
    """
    flops = record.ready["flops_per_step"]
    if not record.trial.gpus:
        return flops / cpu_rate if cpu_rate else None
    alike = [
        each["rate"]
        for other in session.records
        if other.trial.gpus and other.trial.runtime.precision == record.trial.runtime.precision
        for each in other.rounds
    ]
    everywhere = [each["rate"] for other in session.records if other.trial.gpus for each in other.rounds]
    computing = flops / max(rate["flops_per_s"] for rate in alike)
    copied = [rate["bytes_per_s"] for rate in everywhere if "bytes_per_s" in rate]
    return max(computing, record.ready["bytes_per_step"] / max(copied)) if copied else computing


def _figures(record: Record, floor_s: float | None) -> dict[str, Any]:
    """Seconds, images and operations per second, bytes, joules; what cannot be measured here is left out."""
    batch, ready = record.trial.train.batch, record.ready
    steps = [each["step_s"] for each in record.rounds]
    step_s, interval = statistics.median(steps), median_interval(steps)
    found: dict[str, Any] = {
        "step_s": step_s,
        "step_s_ci": interval,
        "epoch_s": -(-EPOCH_IMAGES // batch) * step_s,
        "img_per_s": batch / step_s,
        "floor_s": floor_s,
        "step_over_floor": step_s / floor_s if floor_s else None,
        "step_over_floor_ci": interval and floor_s and [end / floor_s for end in interval],
        **_interval("eval_over_train", [each["eval_s"] / each["step_s"] for each in record.rounds]),
        **{name: ready[name] for name in ("import_s", "build_s", "compile_s", "warmup_s", "peak_bytes")},
        "flops_per_step": ready["flops_per_step"],
        "flops_per_s": ready["flops_per_step"] / step_s,
        "samples": {
            "step_s": steps,
            "eval_s": [each["eval_s"] for each in record.rounds],  # per batch
            "matmul_flops_per_s": [each["rate"]["flops_per_s"] for each in record.rounds],  # in its own library
        },
    }
    device_peaks = [each["device_peak_bytes"] for each in (ready, *record.rounds) if each["device_peak_bytes"]]
    if device_peaks:
        found["device_peak_bytes"] = max(device_peaks)
    joules = [each["joules_per_step"] for each in record.rounds if "joules_per_step" in each]
    if joules:
        found |= _interval("joules_per_step", joules)
    if record.cuts:
        found["parts"] = in_place(record.cuts, statistics.median(record.beside))
        found["breakdown"] = {row["part"]: row["s"] for row in found["parts"]["rows"]}
    elif record.parts:
        found["breakdown"] = alone(record.parts, step_s)
    if record.trace:
        found["trace"] = record.trace
    return found


def _interval(name: str, values: Sequence[float]) -> dict[str, Any]:
    """The median under `name`, and its 95% interval, which is None with fewer than six values."""
    return {name: statistics.median(values), f"{name}_ci": median_interval(values)}


def _doubts(record: Record, method: Method) -> list[str]:
    calls = [method.steps * each["step_s"] for each in record.rounds]
    advice = f"take more rounds (--rounds {max(FEWEST + 1, 2 * method.rounds)}) on a machine with no other load"
    found = wide(calls, "its training steps", advice)
    observed = [Observation(**each) for turn in record.rounds for each in turn["observed"]]
    return list(dict.fromkeys([*record.warnings, *doubts(observed), *([found] if found else [])]))
