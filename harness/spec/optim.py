"""The optimiser: Adam, its learning rate and its weight decay."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from harness.spec.model import Count, Positive, Section

ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON = 0.9, 0.999, 1e-8  # epsilon is added after bias correction


class LrDecay(Section):
    """How the learning rate falls with the completed steps t: max(lr * rate^n, floor).

    `exponential`, the released code's: n = t / steps. `staircase`: n is the whole part of that. `epoch`: n is the number of
    completed epochs, a staircase whose `steps` are those of an epoch; a suite fills them in. `constant`: lr, always.
    """

    kind: Literal["exponential", "staircase", "epoch", "constant"] = "exponential"
    rate: Annotated[float, Field(gt=0, le=1)] = 0.96
    steps: Count = 2000
    floor: Annotated[float, Field(ge=0)] = 1e-6


class DecoderOptim(Section):
    """The decoder's own settings; None means the same as for all other weights."""

    lr: Positive | None = None
    weight_decay: Annotated[float, Field(ge=0)] | None = None


class OptimSpec(Section):
    """Adam (Kingma & Ba 2015, Algorithm 1): betas 0.9/0.999, epsilon 1e-8 outside the bias-corrected root.

    `weight_decay` is L2 as in `torch.optim.Adam`: weight_decay * w is added to the gradient of every weight and bias,
    before the moments; it is not part of the loss. AdamW's decoupled weight decay is different.
    """

    lr: Positive = 1e-3
    lr_decay: LrDecay = LrDecay()
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    decoder: DecoderOptim = DecoderOptim()

    def lr_at(self, step: int) -> float:
        """The learning rate of the step that follows `step` completed ones."""
        decay = self.lr_decay
        if decay.kind == "constant":
            return self.lr
        periods = step / decay.steps if decay.kind == "exponential" else step // decay.steps
        return max(self.lr * decay.rate**periods, decay.floor)

    def lr_scale(self, name: str) -> float:
        """The factor of the learning rate for weight `name`: all share one schedule, floor included."""
        return (self.decoder.lr or self.lr) / self.lr if name.startswith("dec") else 1.0

    def weight_decay_of(self, name: str) -> float:
        """The weight decay of weight `name`."""
        own = self.decoder.weight_decay if name.startswith("dec") else None
        return self.weight_decay if own is None else own
