"""Whether a registered implementation works as it should: for `capsbench doctor`, in a separate process."""

from __future__ import annotations

import numpy as np

from harness import registry
from harness.errors import UserError
from harness.parity.ladder import Ladder
from harness.parity.words import sentence
from harness.spec import ModelSpec, OptimSpec, Runtime

_MODEL = ModelSpec(
    image=(13, 14, 1), classes=4, kernel=5, conv_channels=4, primary_types=2, primary_dim=4, digit_dim=4,
    decoder_units=(6, 5), routing=2,
)  # fmt: skip
_LEVEL = "L4"  # names, shapes, routing, outputs, losses, every gradient
_PRODUCT = 64  # rows and columns


def lacking(name: str) -> str | None:
    """What an adapter lacks for training; None for a complete implementation. Raises `UserError` if it is neither."""
    entry = registry.resolve(name)
    registry.load(entry, adapter=True)
    try:
        registry.load(entry)
    except UserError as error:
        return str(error).partition(" lacks ")[2].partition(";")[0]
    return None


def fault(name: str) -> str | None:
    """Why implementation `name` cannot be used, in one line; None if it is complete and correct for a tiny model.

    It is imported, compared with the specification on the CPU if it runs there, and its matrix product is tried.
    """
    try:
        entry = registry.resolve(name)
        implementation = registry.load(entry, adapter=True)
        framework = registry.framework_of(entry)
        if framework.has("product"):
            framework.product(np.ones((_PRODUCT, _PRODUCT), np.float32), "fp32", False)
    except UserError as error:
        return str(error).removeprefix(f'implementation "{name}": ')
    if "cpu" not in entry.devices:
        return None
    images = np.random.default_rng(0).integers(0, 256, (2, *_MODEL.image)).astype(np.uint8)
    runtime, optim = Runtime(compile=False), OptimSpec()
    try:
        impl = implementation(_MODEL, optim, runtime)
        ladder = Ladder(impl, _MODEL, optim, runtime, images, np.arange(2))
        ladder.climb(_LEVEL, stop_at_failure=True)
    except Exception as error:
        said = " ".join(str(error).split())
        return f"with a tiny model it raised {type(error).__name__}: {said}".removesuffix(": ")
    report = ladder.report(name)
    return None if report.ok else f"with a tiny model, {sentence(report)}"
