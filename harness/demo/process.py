"""The process of one implementation: `python -P -m harness.demo.process --events-fd N`.

`harness.demo.frameworks` starts it and keeps it; `harness.worker.channel` describes its life. Its orders are lines of
JSON, each with an image.
"""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any, NoReturn

from harness.worker.channel import Channel, serve


def main() -> NoReturn:
    """Answers until its supervisor ends."""
    serve("One implementation of the demo", _work)


def _work(job: dict[str, Any], channel: Channel) -> None:
    import numpy as np

    from harness import registry
    from harness.demo.messages import AnswerEvent, WarmEvent
    from harness.machine.environment import versions
    from harness.spec import ModelSpec, OptimSpec, Runtime
    from harness.weights.files import load_weights

    model = ModelSpec.model_validate_json(json.dumps(job["model"]))
    entry = registry.resolve(job["impl"])
    runtime = Runtime.model_validate({"precision": job["precision"], "threads": 1})
    net = registry.load(entry, adapter=True)(model, OptimSpec(), runtime)
    net.load(load_weights(Path(job["weights"])))

    def answer(layers: list[bytes]) -> tuple[float, dict[str, str]]:
        images = np.stack([np.frombuffer(layer, np.uint8).reshape(model.image) for layer in layers])
        began = time.perf_counter()
        found = net.forward(images.reshape(1, *model.several, *model.image))
        took = time.perf_counter() - began
        fields = {name: getattr(found, name) for name in ("lengths", "digit", "coupling", "reconstruction")}
        kept = {name: np.asarray(array)[0].astype("<f8") for name, array in fields.items() if array is not None}
        return took, {name: base64.b64encode(array.tobytes()).decode() for name, array in kept.items()}

    answer([bytes(model.pixels)] * model.overlaid)  # compiles
    found = versions(entry.distributions)
    channel.emit(WarmEvent(library=", ".join(f"{name} {version}" for name, version in found.items()) or entry.library))
    while True:
        order = json.loads(channel.listen())
        took, outputs = answer([base64.b64decode(layer) for layer in order["layers"]])
        channel.emit(AnswerEvent(number=order["number"], seconds=took, outputs=outputs))


if __name__ == "__main__":
    main()
