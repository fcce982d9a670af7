"""Runs of several seeds, written as a journal: what the bench would say about figures chosen by a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.journal.journal import Journal
from harness.spec import ModelSpec
from harness.spec.trial import DataConfig, ParityConfig, RuntimeConfig, TrainConfig, Trial
from tests.helpers.event_helpers import event

START = 1_700_000_000.0


def make_trial(impl: str = "torch", seed: int = 0, epochs: int = 30, data: Any = None, **params: Any) -> Trial:
    """A trial of the paper's network on all of MNIST; `params` are settings of its model, by their short names."""
    model = params if params.get("kind") == "cnn" else {"routing": 3, "decoder": True, **params}
    name = "-".join([impl, *(f"{key}{value}" for key, value in params.items()), f"s{seed}"])
    return Trial(
        id=name, suite="seeds", impl=impl, seed=seed, params={f"model.{key}": value for key, value in params.items()},
        data=DataConfig(**(data or {"name": "mnist", "augment": {"shift": 2}})),
        model=ModelSpec(image=(28, 28, 1), classes=10, **model), train=TrainConfig(epochs=epochs),
        runtime=RuntimeConfig(), parity=ParityConfig(), cpus=2, gpus=0,
    )  # fmt: skip


def events_of(
    err_pct: float, epoch_s: float = 300.0, peak_bytes: int = 10**9, parity_ok: bool = True
) -> list[dict[str, Any]]:
    """A finished trial of two epochs, the first a warm-up; 55,000 images an epoch."""
    timing = {"img_per_s": 55_000 / epoch_s, "train_loss": 0.1, "val_err_pct": err_pct / 2}
    return [
        {"kind": "attempt"},
        {"kind": "parity", "ok": parity_ok, "max_rel_err": 1e-6, "worst": "L4 grad.digit.w", "tensors": {}},
        {"kind": "ready", "compile_s": 2.0},
        {"kind": "epoch", "epoch": 1, "epoch_s": 2 * epoch_s, **timing},
        {"kind": "epoch", "epoch": 2, "epoch_s": epoch_s, **timing},
        {"kind": "result", "test_err_pct": err_pct, "test_loss": 0.1, "peak_bytes": peak_bytes},
    ]


def write_events(journal: Journal, trial: Trial, events: Sequence[Mapping[str, Any]], start: float = START) -> None:
    for second, document in enumerate(events):
        journal.append(trial.id, event({"trial": trial.id, "attempt": 1, "time": start + second, **document}))


def write_plan(journal: Journal, trials: Sequence[Trial], cpu: str = "Some CPU") -> None:
    documents = [trial.model_dump(mode="json") for trial in trials]
    journal.write_plan(
        {"suite": journal.run_dir.name, "question": "Which, and why?", "trials": documents}, "name: seeds\n"
    )
    journal.write_environment({"cpu": cpu, "cores": 2})


def write_run(run_dir: Path, runs: Sequence[tuple[Trial, Sequence[Mapping[str, Any]]]], cpu: str = "Some CPU") -> Path:
    """A run directory of these trials; one without events has not begun."""
    with Journal(run_dir).open() as journal:
        write_plan(journal, [trial for trial, _ in runs], cpu)
        for index, (trial, events) in enumerate(runs):
            write_events(journal, trial, events, START + 100 * index)
    return run_dir
