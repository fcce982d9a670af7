"""Faults of routing with a category for what is none of the outputs, as edits of the specification's source."""

from __future__ import annotations

from harness.parity.faults.fault import Fault
from harness.parity.faults.mutate import in_layers, in_model
from harness.spec import ModelSpec


def _leaks(model: ModelSpec) -> bool:
    return model.none_of_the_above


def _twice(model: ModelSpec) -> bool:
    return _leaks(model) and model.routing >= 2


_LOGIT = "xp.zeros_like(logits[:, :1])"

LEAK_FAULTS = (
    Fault(
        "none-of-the-above-missing",
        'a softmax without "none of the above"',
        "L2",
        (in_model(", model.none_of_the_above)", ", False)"),),
        _leaks,
    ),
    Fault(
        "none-of-the-above-first",
        'a softmax whose "none of the above" is taken for the first class',
        "L2",
        (in_layers(f"[logits, {_LOGIT}]", f"[{_LOGIT}, logits]"),),
        _twice,
    ),
    Fault(
        "none-of-the-above-average",
        'a "none of the above" whose logit is the mean of the others, instead of 0',
        "L2",
        (in_layers(_LOGIT, "xp.mean(logits, axis=1, keepdims=True)"),),
        _twice,
    ),
    Fault(
        "none-of-the-above-without-gradient",
        'a gradient as if "none of the above" took no share',
        "L4",
        (
            in_layers(
                "xp.sum(coupling * grad, axis=1, keepdims=True)",
                "xp.sum(coupling * grad, axis=1, keepdims=True) / xp.sum(coupling, axis=1, keepdims=True)",
            ),
        ),
        _twice,
    ),
)
