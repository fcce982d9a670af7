"""Faults in carrying out an epoch's plan: order, shifts, dropout masks, and the division into steps and blocks.

`PLANS` has those that are a single expression over the plan, the same in every implementation.
"""

from __future__ import annotations

from typing import NamedTuple

from harness.parity.faults.fault import Fault, any_model, has_capsules, has_dropout
from harness.parity.faults.mutate import in_impl, in_layers
from harness.spec import ModelSpec


def official(model: ModelSpec) -> bool:
    return has_capsules(model) and model.profile == "official"


class Planned(NamedTuple):
    """A fault that replaces the plan; fields left out stay as they are."""

    says: str
    level: str
    order: str = "plan.order"
    shifts: str = "plan.shifts"
    kept: str = "plan.kept"

    @property
    def statement(self) -> str:
        return f"plan = EpochPlan({self.order}, {self.shifts}, plan.batch, {self.kept})"


_PLACE = "(np.arange(len(plan.order)) % plan.batch).reshape(-1, *(1,) * plan.shifts[0].ndim)"

PLANS = {
    "order-sorted": Planned("images that are sorted within the epoch", "L6", order="np.sort(plan.order, axis=0)"),
    "order-ignored": Planned(
        "images in the order in which they were staged",
        "L6",
        order="np.resize(np.arange(len(self.labels), dtype=np.int32), plan.order.shape)",
    ),
    "order-off-by-one": Planned(
        "indices that are counted from one", "L5", order="np.maximum(plan.order - 1, 0).astype(np.int32)"
    ),
    "last-image-unused": Planned(
        "a last staged image that is never used",
        "L5",
        order="np.minimum(plan.order, max(0, len(self.labels) - 2)).astype(np.int32)",
    ),
    "indices-uint8": Planned("indices in uint8", "L6", order="plan.order.astype(np.uint8).astype(np.int32)"),
    "indices-int16": Planned("indices in int16", "L6", order="plan.order.astype(np.int16).astype(np.int32)"),
    "indices-uint16": Planned("indices in uint16", "L6", order="plan.order.astype(np.uint16).astype(np.int32)"),
    "order-of-equal-size": Planned(
        "plans of equal size that share the first one's order",
        "L6",
        order='plan.order if not plan.order.any() else self.__dict__.setdefault("orders", {}).setdefault('
        "plan.order.shape, plan.order)",
    ),
    "shifts-of-previous-step": Planned(
        "shifts that are those of the step before",
        "L6",
        shifts="np.concatenate([plan.shifts[: plan.batch], plan.shifts[: -plan.batch]])[: len(plan.order)]",
    ),
    "shifts-of-previous-image": Planned(
        "shifts that are those of the image before", "L5", shifts="np.roll(plan.shifts, 1, axis=0)"
    ),
    "one-shift-a-batch": Planned(
        "batches whose images all move alike",
        "L5",
        shifts="np.repeat(plan.shifts[:: plan.batch], plan.batch, axis=0)[: len(plan.order)]",
    ),
    "shifts-missing": Planned("no shifts", "L5", shifts="0 * plan.shifts"),
    "shifts-clipped-at-1": Planned("shifts of at most one pixel", "L5", shifts="plan.shifts.clip(-1, 1)"),
    "shifts-clipped-at-2": Planned("shifts of at most two pixels", "L6", shifts="plan.shifts.clip(-2, 2)"),
    "shifts-down-and-right": Planned("shifts down and right alone", "L5", shifts="np.abs(plan.shifts)"),
    "shifts-of-rows-alone": Planned("shifts of rows alone", "L5", shifts="plan.shifts * np.int8([1, 0])"),
    "negative-shifts-short": Planned(
        "shifts up and left that are a pixel short", "L5", shifts="plan.shifts + (plan.shifts < 0).astype(np.int8)"
    ),
    "shifts-beyond-image-32-missing": Planned(
        "a batch's first 32 images alone that are shifted",
        "L6",
        shifts=f"plan.shifts * ({_PLACE} < 32).astype(np.int8)",
    ),
    "masks-of-first-step": Planned(
        "dropout that drops in every step what it did in the first",
        "L6",
        kept="plan.kept[np.arange(len(plan.kept)) % plan.batch]",
    ),
    "one-mask-a-batch": Planned(
        "dropout that drops the same units of a batch's images",
        "L5",
        kept="plan.kept[np.arange(len(plan.kept)) // plan.batch * plan.batch]",
    ),
}

_MASKS = "masks = plan.masks(self.model)"
_INSIDE = "((rows >= 0) & (rows < height))"

PLAN_FAULTS = (
    *(
        Fault(
            name,
            planned.says,
            planned.level,
            (in_impl(_MASKS, f"{planned.statement}\n        {_MASKS}"),),
            has_dropout if planned.kept != "plan.kept" else any_model,
        )
        for name, planned in PLANS.items()
    ),
    Fault(
        "labels-in-staged-order",
        "labels in the order in which they were staged",
        "L6",
        (
            in_impl(
                "self._classes(self.labels[chosen])",
                "self._classes(self.labels[np.arange(chosen.size).reshape(chosen.shape) % len(self.labels)])",
            ),
        ),
    ),
    Fault(
        "shift-repeats-edge",
        "shifts that repeat the edge instead of bringing in zeros",
        "L5",
        (in_impl("return moved * inside[..., None].astype(images.dtype)", "return moved"),),
    ),
    Fault(
        "shift-up-repeats-edge",
        "shifts up that repeat the lowest row",
        "L5",
        (in_impl(_INSIDE, "(rows >= 0)"),),
    ),
    Fault(
        "first-row-lost",
        "shifts that take the first row for outside",
        "L5",
        (in_impl(_INSIDE, _INSIDE.replace(">=", ">")),),
    ),
    Fault("padding-counted", "an incomplete last batch whose padding counts", "L6", ()),
    Fault("image-63-left-out", "a batch's 64th image that is left out", "L6", ()),
    Fault("images-beyond-32-left-out", "a batch's first 32 images alone that are trained on", "L6", ()),
    Fault(
        "steps-beyond-128-left-out",
        "an epoch's steps after the 128th that are left out",
        "L6",
        (
            in_impl(
                "range(0, len(plan.order), plan.batch)", "range(0, min(len(plan.order), 128 * plan.batch), plan.batch)"
            ),
        ),
        has_capsules,
    ),
    Fault("chunk-gradient-replaced", "a gradient of the last chunk of images alone", "L4", (), has_capsules),
    Fault(
        "chunk-bias-replaced", "a gradient of the capsules' bias of the last chunk of images alone", "L4", (), official
    ),
    Fault("frequencies-replaced", "a kernel's gradient of the last frequencies alone", "L4", (), has_capsules),
    Fault("block-last-step-skipped", "a block's last step that is left out", "L6", ()),
    Fault("block-state-lost", "blocks of steps that all start from the epoch's first weights", "L6", ()),
    Fault("evaluation-block-replaced", "losses of an evaluation's last block of batches alone", "L6", ()),
    Fault(
        "gradient-of-first-image-alone",
        "gradients that reach a batch's first image alone",
        "L4",
        (
            in_layers(
                "grad_u_hat, grad_bias = xp.zeros_like(u_hat), xp.zeros_like(u_hat[0, :, 0, :])",
                "grad_u_hat, grad_bias = xp.zeros_like(u_hat), xp.zeros_like(u_hat[0, :, 0, :])\n"
                "    grad = xp.concat([grad[:1], 0 * grad[1:]])",
            ),
        ),
        has_capsules,
    ),
)
