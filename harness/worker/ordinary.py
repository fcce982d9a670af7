"""The process that examines a model: `python -P -m harness.worker.ordinary --events-fd N`.

`harness.supervisor.ordinary` starts it; `harness.worker.channel` describes its life. Its one event is "examined", with
what was found.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, NoReturn

import numpy as np

from harness.events.processes import ExaminedEvent
from harness.worker.channel import Channel, serve

IMAGES, SEED = 3, 0


def main() -> NoReturn:
    """Runs the job read from stdin; the exit code is 0 only after an event that says what was found."""
    serve("Examines an ordinary model", _work)


def _work(job: dict[str, Any], channel: Channel) -> None:
    if "pair" in job:
        from harness.parity.ordinary.pair import compared

        found = compared(job["pair"], job["source"], job["model"])
        channel.emit(ExaminedEvent(**found))
    else:
        channel.emit(ExaminedEvent(**examined(job)))


def examined(job: dict[str, Any]) -> dict[str, Any]:
    """The model that `job["source"]` names: its architecture, which tensor is which weight, and its layers."""
    from harness.parity.ordinary.examined import Examined
    from harness.parity.ordinary.fitted import conventions
    from harness.parity.ordinary.layers import report, specified
    from harness.parity.ordinary.notes import notes
    from harness.parity.ordinary.own_loss import OwnLoss
    from harness.parity.ordinary.source import Source
    from harness.parity.probe import probe_weights

    source = Source(**json.loads(job["source"]))
    found = Examined(source, "fp64", 1)
    model = found.spec()
    weights = probe_weights(model, SEED)
    images = drawn(IMAGES, model.image)
    found.network.assign(found.match.spread(weights))
    expected = specified(model, weights, images)
    fitted = conventions(found, expected, images)
    if fitted.named():
        expected = specified(model, weights, images, fitted)
    rows = list(report(found, expected, images, fitted.squash_epsilon))
    return {
        "framework": found.built.framework,
        "model": model.model_dump(mode="json"),
        "calling": found.match.calling.told(),
        "weights": found.match.table(),
        "outputs": found.roles,
        "unknown": found.unknown,
        "notes": [
            *(f"{each}: the layers are compared with a specification that does so" for each in fitted.said()),
            *notes(found, OwnLoss(found)),
        ],
        "conventions": fitted.named(),
        "layers": [asdict(row) | {"ok": row.ok, "at_fault": row.is_at_fault} for row in rows],
    }


def drawn(count: int, image: tuple[int, int, int]) -> np.ndarray:
    """uint8 (B, H, W, C) of all values."""
    return np.random.default_rng(SEED).integers(0, 256, (count, *image)).astype(np.uint8)


if __name__ == "__main__":
    main()
