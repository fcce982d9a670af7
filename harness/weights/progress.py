"""The progress of a trial's training: the best epoch so far on the validation images, and whether it is over."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from harness.spec import Weights
from harness.spec.trial import Stop


@dataclass(frozen=True)
class Best:
    """The epoch with the lowest validation error; ties go to the lowest validation loss, then to the earliest."""

    epoch: int
    val_err_pct: float
    val_loss: float
    weights: Weights = field(repr=False)


@dataclass(frozen=True)
class Ledger:
    """What the audit (`harness.worker.audit`) has seen and spent so far."""

    steps: int = 0  # training steps that were repeated
    trained_s: float = 0.0
    audit_s: float = 0.0
    fault: str | None = None  # the first one found


@dataclass(frozen=True)
class Progress:
    """Where training stands after `epoch` epochs. A checkpoint holds it, so that a resumed trial knows its past."""

    epoch: int = 0
    val_err_pct: float | None = None  # after the last epoch; None without validation images
    best: Best | None = None
    is_over: bool = False  # a stopping rule of the suite was met
    audit: Ledger = Ledger()

    def after(self, epoch: int, weights: Weights, val_err_pct: float | None, val_loss: float | None) -> Progress:
        """The progress after one more epoch, which ended with these weights; values are None without validation."""
        best = self.best
        if (
            val_err_pct is not None
            and val_loss is not None
            and (best is None or (val_err_pct, val_loss) < (best.val_err_pct, best.val_loss))
        ):
            best = Best(epoch, val_err_pct, val_loss, weights)
        return Progress(epoch, val_err_pct, best, audit=self.audit)

    def ends(self, stop: Stop, test_err_pct: float | None) -> bool:
        """Whether a stopping rule is met; a rule on the test images needs `test_err_pct`."""
        if stop.patience and self.best and self.epoch - self.best.epoch >= stop.patience:
            return True
        error = test_err_pct if stop.on == "test" else self.val_err_pct
        if stop.accuracy_pct is None or error is None:
            return False
        return error <= 100 - stop.accuracy_pct + 1e-9  # 100 - 99.23 is not 0.77 in binary

    def facts(self) -> dict[str, Any]:
        """Everything but the weights, as JSON."""
        best = self.best
        return {
            "epoch": self.epoch,
            "val_err_pct": self.val_err_pct,
            "best": best and {"epoch": best.epoch, "val_err_pct": best.val_err_pct, "val_loss": best.val_loss},
            "is_over": self.is_over,
            "audit": asdict(self.audit),
        }
