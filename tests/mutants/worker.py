"""A process that climbs with one mutant after another: importing a framework takes longer than most climbs.

`python -m tests.mutants.worker FD FRAMEWORK` reads one job per line from stdin. It writes a line to file descriptor FD
once the framework is loaded, and then one with the outcome of each job.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import time
from typing import Any

from harness import data, registry
from harness.parity import LEVELS, Ladder
from harness.parity.faults.mutate import Edit, discard, mutant
from harness.spec.trial import Trial
from tests.mutants.setups import built, command_ladder, gate_ladder


def main() -> None:
    with os.fdopen(int(sys.argv[1]), "w", buffering=1) as answers:
        registry.load(registry.resolve(sys.argv[2]))
        answers.write("ready\n")
        for line in sys.stdin:
            answers.write(json.dumps(_answer(json.loads(line))) + "\n")


def _answer(job: dict[str, Any]) -> dict[str, Any]:
    started = time.monotonic()
    found = _climbed(job["setup"], Trial.model_validate_json(job["trial"]), [Edit(*edit) for edit in job["edits"]])
    gc.collect()
    seconds = round(time.monotonic() - started, 2)
    return found | {"seconds": seconds, "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


def _climbed(setup: str, trial: Trial, edits: list[Edit]) -> dict[str, Any]:
    """{"outcome": "passed"}, "failed" or "exception" with the level and what it was, or "not made"."""
    entry = registry.resolve(trial.impl)
    dataset = data.load(trial.data)
    _set_precision(trial)
    try:
        copy = mutant(entry.module, edits)
    except Exception as error:  # a fault that does not fit the source is none
        return {"outcome": "not made", "what": f"{type(error).__name__}: {error}"[:300]}
    ladder: Ladder | None = None
    try:
        implementation = getattr(copy, entry.class_name)
        if setup == "command":
            ladder = command_ladder(trial, implementation, dataset.train)
        else:
            ladder = gate_ladder(trial, built(trial, implementation, dataset), dataset.train)
        ladder.climb(LEVELS[-1] if setup == "command" else trial.parity.level, stop_at_failure=True)
    except Exception as error:
        level = ladder.level if ladder else LEVELS[0]
        return {"outcome": "exception", "level": level, "what": f"{type(error).__name__}: {error}"[:300]}
    finally:
        discard(copy)
    report = ladder.report(trial.impl)
    if report.ok:
        return {"outcome": "passed"}
    return {"outcome": "failed", "level": report.failed_level, "what": report.worst.name}


def _set_precision(trial: Trial) -> None:
    """A process of one trial has it from its environment."""
    if trial.impl == "jax":
        import jax

        jax.config.update("jax_enable_x64", trial.runtime.precision == "fp64")
        jax.clear_caches()  # of the mutants before


if __name__ == "__main__":
    main()
