"""Runs to report on, written as journals: with everything that a report shows, and with as many trials as are asked for."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from harness.journal.journal import FOLDER, Journal
from harness.spec.trial import Trial
from tests.helpers import seeds_helpers

LEVELS = ("L1 weight.conv1.w", "L2 loss.margin", "L4 grad.digit.w", "L6 moments.m")


def events(
    err_pct: float, epoch_s: float = 10.0, *, epochs: int = 7, parity_ok: bool = True, tests_all: bool = False
) -> list[dict[str, Any]]:
    """A finished trial; its second but last epoch has the lowest validation error. `tests_all`: its epochs have test errors."""
    tensors = {name: {"rel_err": 1e-6 * (place + 1), "tolerance": 1e-4} for place, name in enumerate(LEVELS)}
    if not parity_ok:
        tensors["L4 grad.digit.w"] = {"rel_err": 0.3, "tolerance": 1e-4}
    found: list[dict[str, Any]] = [
        {"kind": "attempt"},
        {"kind": "parity", "ok": parity_ok, "max_rel_err": 1e-6, "worst": "L4 grad.digit.w", "tensors": tensors},
        {"kind": "ready", "compile_s": 2.0},
    ]
    for epoch in range(1, epochs + 1):
        best = epoch == epochs - 1
        told = {"test_err_pct": err_pct + 0.1 * (epochs - epoch) - 0.8 * (epoch == 2)} if tests_all else {}
        found.append({
            "kind": "epoch", "epoch": epoch, "epochs": epochs, "epoch_s": epoch_s * (1 + 0.01 * epoch),
            "img_per_s": 55_000 / epoch_s, "train_loss": 1 / epoch, "train_err_pct": 20 / epoch, "val_loss": 1.1 / epoch,
            "val_err_pct": 0.1 if best else 1.0 / epoch + 0.2, **told,
        })  # fmt: skip
    best_err = err_pct + 0.1 if epochs > 1 else err_pct
    found.append({
        "kind": "result", "test_err_pct": err_pct, "test_loss": 0.1, "peak_bytes": 10**9, "best_epoch": epochs - 1,
        "best_test_err_pct": best_err,
    })  # fmt: skip
    return found


def write_run(run_dir: Path, *, impls: tuple[str, ...] = ("torch", "tf"), seeds: int = 3, routings: int = 2) -> Path:
    """A run over implementations, routing iterations and seeds; more routing is slower, tf is faster than torch."""
    runs: list[tuple[Trial, list[dict[str, Any]]]] = []
    for place, impl in enumerate(impls):
        for routing in range(1, routings + 1):
            for seed in range(seeds):
                seconds = (10 + routing + 0.1 * seed) / (1 + 0.25 * place)
                runs.append((
                    seeds_helpers.make_trial(impl, seed, routing=routing),
                    events(0.3 + 0.01 * seed + 0.005 * place, seconds),
                ))  # fmt: skip
    return seeds_helpers.write_run(run_dir, runs)


def add_pictures(run_dir: Path, name: str = "confusion", content: bytes | None = None) -> None:
    """Gives each trial a picture; by default a small grey PNG."""
    if content is None:
        from PIL import Image

        sink = io.BytesIO()
        Image.new("L", (40, 30), 128).save(sink, "PNG")
        content = sink.getvalue()
    journal = Journal(run_dir)
    for trial_id in journal.trial_ids():
        folder = journal.trial_dir(trial_id) / FOLDER
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.png").write_bytes(content)
