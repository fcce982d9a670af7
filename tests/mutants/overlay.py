"""The faults of overlaid digits in each implementation: framework -> fault -> edits of its source."""

from __future__ import annotations

from harness.parity.faults.mutate import Edit, in_model, in_steps
from harness.parity.faults.overlay import OVERLAY_FAULTS


def in_overlay(old: str, new: str) -> Edit:
    return Edit("overlay.py", old, new)


TORCH: dict[str, tuple[Edit, ...]] = {
    "overlay-not-clipped": (in_overlay("digits.sum(1).clamp(max=1)", "digits.sum(1)"),),
    "overlay-averaged": (in_overlay("digits.sum(1).clamp(max=1)", "digits.mean(1)"),),
    "first-label-alone": (in_overlay("return one_hot(labels, like).amax(1)", "return one_hot(labels[:, 0], like)"),),
    "overlay-decoded": (
        in_model("digits.flatten(1)) ** 2", "(0 * digits + overlay(digits)[:, None]).flatten(1)) ** 2"),
    ),
    "capsules-decoded-together": (
        in_model("v[:, None] * one_hot(mask, v)", "v[:, None] * (0 * one_hot(mask, v) + present(mask, v)[:, None])"),
    ),
    "digits-shifted-alike": (in_steps("shifts.view(-1, 2)", "(0 * shifts + shifts[:, :1]).view(-1, 2)"),),
}
TF: dict[str, tuple[Edit, ...]] = {
    "overlay-not-clipped": (in_overlay("tf.minimum(tf.reduce_sum(digits, 1), 1)", "tf.reduce_sum(digits, 1)"),),
    "overlay-averaged": (in_overlay("tf.minimum(tf.reduce_sum(digits, 1), 1)", "tf.reduce_mean(digits, 1)"),),
    "first-label-alone": (
        in_overlay("return tf.reduce_max(one_hot(labels, like), 1)", "return one_hot(labels[:, 0], like)"),
    ),
    "overlay-decoded": (
        in_model(
            "tf.reshape(digits, reconstruction.shape)",
            "tf.reshape(0 * digits + overlay(digits)[:, None], reconstruction.shape)",
        ),
    ),
    "capsules-decoded-together": TORCH["capsules-decoded-together"],
    "digits-shifted-alike": (
        in_steps("tf.reshape(shifts, (-1, 2))", "tf.reshape(0 * shifts + shifts[:, :1], (-1, 2))"),
    ),
}
JAX: dict[str, tuple[Edit, ...]] = {
    "overlay-not-clipped": (in_overlay("jnp.minimum(digits.sum(1), 1)", "digits.sum(1)"),),
    "overlay-averaged": (in_overlay("jnp.minimum(digits.sum(1), 1)", "digits.mean(1)"),),
    "first-label-alone": (in_overlay("return one_hot(labels, like).max(1)", "return one_hot(labels[:, 0], like)"),),
    "overlay-decoded": (
        in_model("digits.reshape(len(digits), -1)", "(0 * digits + overlay(digits)[:, None]).reshape(len(digits), -1)"),
    ),
    "capsules-decoded-together": TORCH["capsules-decoded-together"],
    "digits-shifted-alike": (in_steps("shifts.reshape(-1, 2)", "(0 * shifts + shifts[:, :1]).reshape(-1, 2)"),),
}
EDITS = {"numpy": {fault.name: fault.edits for fault in OVERLAY_FAULTS}, "torch": TORCH, "tf": TF, "jax": JAX}
