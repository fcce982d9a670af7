"""An ordinary model with the interface of the ladder: the three methods of an adapter, which its author need not write."""

from __future__ import annotations

import numpy as np

from harness.parity.ordinary.examined import Examined
from harness.parity.ordinary.own_loss import OwnLoss
from harness.parity.ordinary.source import Source
from harness.spec import Loss, ModelSpec, OptimSpec, Outputs, Runtime, Weights


class Ordinary:
    """See `harness.registry.ADAPTER`; the model is the one that `Source.from_environment` names."""

    def __init__(self, model: ModelSpec, optim: OptimSpec, runtime: Runtime) -> None:
        asked = {
            key: getattr(model, key)
            for key in (
                "image",
                "classes",
                "routing",
                "conv_channels",
                "primary_types",
                "primary_dim",
                "digit_dim",
                "kernel",
            )
        }
        self.examined = Examined(Source.from_environment(), runtime.precision, runtime.threads, asked)
        self.loss = OwnLoss(self.examined)
        self.model = model

    def load(self, weights: Weights) -> None:
        self.examined.network.assign(self.examined.match.spread(weights))

    def forward(self, images: np.ndarray) -> Outputs:
        examined = self.examined
        pixels = examined.pixels(images)
        ran = examined.run(pixels, examined.guessed(pixels), keep=examined.watched(len(images)))
        found = examined.outputs(ran, len(images))
        return found if self.model.decoder else Outputs(found.digit, found.lengths, found.coupling, None)

    def loss_and_grads(self, images: np.ndarray, labels: np.ndarray) -> tuple[Loss, Weights]:
        """The model's own loss, its total only; if it has none, the specification's loss on the model's outputs."""
        examined = self.examined
        terms, whose = self.loss.terms(examined.pixels(images), np.asarray(labels))
        values, grads = examined.network.differentiate(terms)
        loss = Loss(values[0]) if whose == "own" else Loss(*values)
        return loss, examined.match.gather(grads)
