"""The faults of routing with "none of the above" in each implementation: framework -> fault -> edits of its source."""

from __future__ import annotations

from harness.parity.faults.leak import LEAK_FAULTS
from harness.parity.faults.mutate import Edit, in_layers

_PADDED = "F.pad(logits, (0, 0, 0, 1))"
TORCH: dict[str, tuple[Edit, ...]] = {
    "none-of-the-above-missing": (
        in_layers("if leak:", "if False:"),
        in_layers("coupling[:, :-1] if leak", "coupling if leak"),
    ),
    "none-of-the-above-first": (in_layers(_PADDED, "F.pad(logits, (0, 0, 1, 0))"),),
    "none-of-the-above-average": (in_layers(_PADDED, "torch.cat([logits, logits.mean(1, keepdim=True)], 1)"),),
    "none-of-the-above-without-gradient": (
        in_layers(
            "(coupling * grad).sum(1, keepdim=True)",
            "(coupling * grad).sum(1, keepdim=True) / coupling.sum(1, keepdim=True)",
        ),
    ),
}
_PADDING = "(logits, ((0, 0), (0, 1), (0, 0), (0, 0)))"
TF: dict[str, tuple[Edit, ...]] = {
    "none-of-the-above-missing": TORCH["none-of-the-above-missing"],
    "none-of-the-above-first": (in_layers(_PADDING, _PADDING.replace("(0, 1)", "(1, 0)")),),
    "none-of-the-above-average": (
        in_layers(f"tf.pad{_PADDING}", "tf.concat([logits, tf.reduce_mean(logits, 1, keepdims=True)], 1)"),
    ),
    "none-of-the-above-without-gradient": (
        in_layers(
            "tf.reduce_sum(coupling * grad, 1, keepdims=True)",
            "tf.reduce_sum(coupling * grad, 1, keepdims=True) / tf.reduce_sum(coupling, 1, keepdims=True)",
        ),
    ),
}
JAX: dict[str, tuple[Edit, ...]] = {
    "none-of-the-above-missing": TORCH["none-of-the-above-missing"],
    "none-of-the-above-first": TF["none-of-the-above-first"],
    "none-of-the-above-average": (
        in_layers(f"jnp.pad{_PADDING}", "jnp.concatenate([logits, logits.mean(1, keepdims=True)], 1)"),
    ),
    "none-of-the-above-without-gradient": (
        in_layers(
            "(coupling * grad).sum(1, keepdims=True)",
            "(coupling * grad).sum(1, keepdims=True) / coupling.sum(1, keepdims=True)",
        ),
    ),
}
EDITS = {"numpy": {fault.name: fault.edits for fault in LEAK_FAULTS}, "torch": TORCH, "tf": TF, "jax": JAX}
