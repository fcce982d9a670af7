"""An implementation in a framework that the bench has never heard of."""

from __future__ import annotations

import fifthlib

from harness import registry
from harness.spec import ModelSpec, OptimSpec, Runtime


class FifthNet(registry.specification()):
    def __init__(self, model: ModelSpec, optim: OptimSpec, runtime: Runtime) -> None:
        super().__init__(model, optim, runtime)
        self.threads = runtime.threads

    def compile(self, batch: int) -> None:
        fifthlib.start(self.threads)
        super().compile(batch)
