"""Examines models of one file and climbs with each, in one process: python -m tests.ordinary.all_of FILE NAME...

A name may be followed by `=` and a JSON object: options of `harness.parity.ordinary.source.Source`. Prints one
JSON document: name -> findings and the checks of L1 to L4 in float64, or the error.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import numpy as np

from harness.errors import UserError
from harness.parity import Ladder
from harness.parity.diagnosis.diagnose import suspects
from harness.parity.ordinary.adapter import Ordinary
from harness.parity.ordinary.source import VARIABLE, Source
from harness.spec import OptimSpec, Runtime
from harness.spec.model import ModelSpec
from harness.worker.ordinary import examined


def climbed(source: Source, found: dict[str, Any]) -> dict[str, Any]:
    """As `capsbench parity --model` climbs, on images of four."""
    model = ModelSpec.model_validate(found["model"], strict=False)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (4, *model.image)).astype(np.uint8)
    os.environ[VARIABLE] = source.to_json()
    runtime = Runtime(precision="fp64", compile=False)

    def make(model: ModelSpec, optim: OptimSpec | None = None, compile: bool = False) -> Any:
        return Ordinary(model, optim or OptimSpec(), runtime)

    ladder = Ladder(
        make(model), model, OptimSpec(), runtime, images, np.arange(4) % model.classes, make=make, routing=(1, 2)
    )
    raised = ""
    try:
        ladder.climb("L4")
    except Exception as error:
        raised = str(error)
    report = ladder.report(source.name)
    failed = [check.name for check in report.checks if not check.ok]
    return {
        "failed": failed,
        "raised": raised,
        "checks": [check.name for check in report.checks],
        "skipped": report.skipped,
        "suspects": list(suspects(ladder)) if failed else [],
    }


def main() -> None:
    file, *names = sys.argv[1:]
    results: dict[str, Any] = {}
    for each in names:
        name, _, options = each.partition("=")
        source = Source(f"{file}:{name}", **json.loads(options or "{}"))
        try:
            found = examined({"source": source.to_json()})
            results[name] = {"found": found, **climbed(source, found)}
        except UserError as error:
            results[name] = {"error": str(error)}
    print(json.dumps(results))


if __name__ == "__main__":
    main()
