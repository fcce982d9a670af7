"""Which branches the comparisons of L3 and L4 take: a side of a ReLU, a margin or a mask that is never taken proves nothing."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from harness import registry
from harness.parity.setting import Setting
from harness.spec import MARGIN_MINUS, MARGIN_PLUS, Runtime


def branches(at: Setting) -> Counter[str]:
    """How many elements took each side of each branch, over all probes, by the specification; 0 where none did.

    ReLUs of convolutions and dense layers ("conv1 on", "conv1 off"); of a CapsNet the margins of Eq. 4 ("present below m+",
    ...), and whether the longest capsules are the labels' ("longest right").
    """
    counts: Counter[str] = Counter()
    specification: Any = registry.specification()(at.model, at.optim, Runtime(precision="fp64"))
    for weights in at.probes.values():
        specification.load(weights)
        acts = specification._forward(at.shown)
        layers, classes = _relus(at, specification, acts), at.classes.reshape(len(at.shown), -1)
        for name, after in layers.items():
            counts[f"{name} on"] += int((after > 0).sum())
            counts[f"{name} off"] += int((after == 0).sum())
        if at.model.kind != "capsnet":
            continue
        lengths = specification.net.scores(at.model, acts)
        present = np.zeros(lengths.shape, bool)
        np.put_along_axis(present, classes, True, axis=1)
        counts["present below m+"] += int((present & (lengths < MARGIN_PLUS)).sum())
        counts["present above m+"] += int((present & (lengths >= MARGIN_PLUS)).sum())
        counts["absent above m-"] += int((~present & (lengths > MARGIN_MINUS)).sum())
        counts["absent below m-"] += int((~present & (lengths <= MARGIN_MINUS)).sum())
        winners = np.argsort(-lengths, axis=1, kind="stable")[:, : at.model.overlaid]
        right = (np.sort(winners, axis=1) == np.sort(classes, axis=1)).all(axis=1)
        counts["longest right"] += int(right.sum())
        counts["longest wrong"] += int((~right).sum())
    return counts


def _relus(at: Setting, specification: Any, acts: Any) -> dict[str, np.ndarray]:
    """What every ReLU gave, by the name of its layer."""
    model = at.model
    if model.kind == "cnn":
        hidden = {
            layer: acts.inputs[following]
            for layer, following in zip(model.cnn_dense, model.cnn_dense[1:], strict=False)
        }
        return dict(acts.unpooled) | hidden
    found = {"conv1": acts.conv1}
    if model.decoder:
        mask = np.eye(model.classes)[at.classes.reshape(len(at.shown), -1)]
        inputs, _ = specification.net.decode(specification._operands(), acts.v, mask)
        found |= {"dec1": inputs[1], "dec2": inputs[2]}
    return found
