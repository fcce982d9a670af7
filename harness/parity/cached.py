"""Known verdicts of the gate: a second seed on the same machine need not climb the ladder again."""

from __future__ import annotations

import hashlib
import json
import os
import site
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import platformdirs

from harness import __version__, registry
from harness.disk import write_atomic
from harness.events import ParityEvent
from harness.machine.environment import environment, fingerprint
from harness.sources import code_version
from harness.spec.trial import Trial

FOLDER = "CAPSBENCH_GATE_CACHE"
"""The environment variable with the folder of the verdicts, or "off"; default: `parity` in the user's cache."""
_ASIDE = {"warm"}  # keys of `runtime` that change no verdict
_DECISIVE = ("impl", "model", "parity", "cpus", "gpus")  # of a trial, beside its batch and its optimiser


def known(path: Path | None) -> ParityEvent | None:
    """The "parity" event of an earlier gate that passed under identical conditions; None if there is none."""
    with suppress(OSError, ValueError):
        if path is not None:
            event = ParityEvent.model_validate_json(path.read_bytes())
            return event.model_copy(update={"cached": True}) if event.ok else None
    return None


def keep(path: Path | None, event: ParityEvent) -> None:
    """Keeps a verdict if it is a pass: failures are checked again."""
    with suppress(OSError):
        if path is not None and event.ok:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, json.dumps(event.to_json()))


def place(trial: Trial, data_sha256: str) -> Path | None:
    """Where the verdict on this trial is kept, keyed by all that it depends on; None if it must not be kept."""
    chosen = os.environ.get(FOLDER)
    if chosen == "off":
        return None
    folder = Path(chosen) if chosen else platformdirs.user_cache_path("capsbench") / "parity"
    document = trial.model_dump(mode="json")
    decisive = {
        **{name: document[name] for name in _DECISIVE},
        "runtime": {key: value for key, value in document["runtime"].items() if key not in _ASIDE},
        "batch": [trial.train.batch, trial.train.epochs],
        "optim": trial.train.optim.model_dump(mode="json"),
        "data": data_sha256,
        "version": __version__,
        "code": [code_version(registry.resolve(trial.impl), trial.model.kind), _loaded()],
        "environment": facts(trial.impl),
    }
    return folder / f"{hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:32]}.json"


@cache
def facts(impl: str) -> dict[str, Any]:
    """What counts of the environment for this implementation; asked once in a process and its forks."""
    return fingerprint(environment(), impl)


def _loaded() -> str:
    """SHA-256 over the sources of all loaded modules that are not installed, an implementation's own helpers included."""
    installed = tuple({prefix + os.sep for prefix in (sys.prefix, sys.base_prefix, *site.getsitepackages())})
    files = {file for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))}
    sha = hashlib.sha256()
    for file in sorted(file for file in files if not file.startswith(installed) and Path(file).is_file()):
        sha.update(Path(file).read_bytes())
    return sha.hexdigest()
