"""A linear softmax classifier: what the bench has to know about it."""

from __future__ import annotations

from typing import ClassVar

from capsbench import Layer, ModelKind, ModelSpec, Positive, WeightRow


class LinearSpec(ModelSpec):
    """Logits are x W / temperature + b; the loss is their cross-entropy."""

    kind: str = "linear"
    temperature: Positive = 1.0

    def check(self) -> None:
        if self.overlaid > 1:
            raise ValueError("model.kind: a linear model sees one digit in an image, not several")


class LinearKind(ModelKind):
    """A dense layer and a softmax."""

    name = "linear"
    spec = LinearSpec
    parts: ClassVar[dict[str, str]] = {"numpy": "linearkind.in_numpy", "torch": "linearkind.in_torch"}

    def weights(self, model: ModelSpec) -> tuple[WeightRow, ...]:
        return (
            WeightRow("fc1.w", (model.pixels, model.classes), "in out", 0.05),
            WeightRow("fc1.b", (model.classes,), "out", 0.0),
        )

    def layers(self, model: ModelSpec) -> list[Layer]:
        return [Layer("fc1", "dense, softmax", (model.classes,), model.pixels * model.classes)]


KIND = LinearKind()
