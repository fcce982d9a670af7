"""Which branches the comparisons of L3 and L4 take: a branch of a ReLU, margin or mask never taken proves nothing."""

from __future__ import annotations

from collections import Counter
from typing import Any

from harness import registry
from harness.parity.setting import Setting
from harness.spec import Runtime


def branches(at: Setting) -> Counter[str]:
    """How many elements took each side of each branch in the specification, summed over all probes.

    ReLUs of convolutions and dense layers ("conv1 on", "conv1 off"), and the branches of the loss: `ModelKind.relus` and
    `ModelKind.branches` of the model's kind.
    """
    counts: Counter[str] = Counter()
    specification: Any = registry.specification()(at.model, at.optim, Runtime(precision="fp64"))
    for weights in at.probes.values():
        specification.load(weights)
        acts = specification._forward(at.shown)
        classes = at.classes.reshape(len(at.shown), -1)
        for name, after in at.kind.relus(at.model, specification, acts, classes).items():
            counts[f"{name} on"] += int((after > 0).sum())
            counts[f"{name} off"] += int((after == 0).sum())
        for name, count in at.kind.branches(at.model, specification.net.scores(at.model, acts), classes).items():
            counts[name] += count
    return counts
