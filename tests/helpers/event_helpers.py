"""A trial's events as a test needs them: fields that it does not give are filled in, so that each event is complete."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from harness.events import TRIAL, TrialEvent

_FILLED: dict[str, dict[str, Any]] = {
    "attempt": {
        "host": "bench", "pid": 4242, "python": "3.11.9", "cores": [0], "cuda_visible_devices": None,
        "resumed_epoch": 0, "versions": {},
    },
    "parity": {"tensors": {}},
    "ready": {
        "import_s": 0.1, "data_s": 0.1, "build_s": 0.1, "compile_s": 0.1, "parity_s": 0.1, "parameters": 10,
        "weights_sha256": "ab" * 32, "data_sha256": "cd" * 32, "data_provenance": "invented", "device": "cpu",
    },
    "epoch": {
        "epochs": 1, "epoch_s": 1.0, "eval_s": 0.1, "img_per_s": 100.0, "train_loss": 0.1, "train_err_pct": 5.0,
        "val_loss": None, "val_err_pct": None, "lr": 1e-3, "plan_sha256": "ef" * 32, "checkpoint": "",
    },
    "result": {
        "test_err_pct": 1.5, "test_loss": 0.1, "test_s": 0.1, "test_images": 10, "peak_bytes": 2**20, "weights": "",
    },
}  # fmt: skip


def event(document: Mapping[str, Any]) -> TrialEvent:
    """The event, as it would be read from a journal; files that it need not name are "", which is none."""
    filled = {**_FILLED.get(document["kind"], {}), **document}
    return cast(TrialEvent, TRIAL.read(json.dumps(filled)))


def events(documents: list[dict[str, Any]]) -> list[TrialEvent]:
    return [event(document) for document in documents]
