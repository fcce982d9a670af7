"""Finds the losses in a total if an implementation gives nothing else: both at once, the fewest changes first.

The reconstruction's weight follows from the total: one number from several probes, so the other probes test it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from harness.parity.diagnosis import variant_net as net
from harness.parity.diagnosis.observed import FITS, Observed, as_good
from harness.parity.diagnosis.variant import Variant, subsets

MOST = 6  # changes in both losses together
_MOST_OF_ONE = 3
_FLOOR = 1e-4  # smallest scale of a loss
_NO_WEIGHT = 1e-12
Options = Mapping[str, Sequence[Any]]
Computed = list[tuple[list[Variant], np.ndarray]]
"""By number of changes: variants, and each one's losses at the probes (variants, probes)."""


def of_total(seen: Observed, start: Variant, probes: Sequence[str], margin: Options, made: Options) -> list[Variant]:
    """All that fit with the fewest changes in `margin`, `made` (the reconstruction) and its weight; may be empty."""
    totals = np.array([seen.losses[name].total for name in probes])
    scale = np.array([seen.tolerance("loss", name, "loss.total") for name in probes])
    scale *= np.maximum(np.abs(totals), _FLOOR)
    margins = _computed(start, margin, lambda variant: [_margin(seen, variant, name) for name in probes])
    others = _computed(start, made, lambda variant: [_reconstruction(seen, variant, name) for name in probes])
    for size, is_solved in itertools.product(range(MOST + 1), (False, True) if seen.model.decoder else (False,)):
        ranked: list[tuple[float, Variant]] = []
        for own, (firsts, values) in enumerate(margins):
            rest = size - own - is_solved
            if not 0 <= rest < len(others):
                continue
            seconds, weighed = others[rest]
            missing = (totals - values)[:, None, :]
            weights = np.full((len(firsts), len(seconds)), start.reconstruction_weight)
            if is_solved:
                weights = (missing * weighed).sum(-1) / np.square(weighed).sum(-1)
            apart = (np.abs(missing - weights[..., None] * weighed) / scale).max(-1)
            for first, second in zip(*np.nonzero(apart <= FITS), strict=True):
                weight = float(weights[first, second])
                both = _both(
                    start, firsts[int(first)], seconds[int(second)], 0.0 if abs(weight) < _NO_WEIGHT else weight
                )
                ranked.append((float(apart[first, second]), both))
        if fitting := as_good(ranked):
            return fitting
    return []


def _both(start: Variant, margin: Variant, made: Variant, weight: float) -> Variant:
    changes: dict[str, Any] = {name: getattr(made, name) for name in made.changed(start)}
    return replace(margin, **changes, reconstruction_weight=weight)


def _computed(start: Variant, options: Options, of: Callable[[Variant], list[float]]) -> Computed:
    found: Computed = []
    for size in range(min(_MOST_OF_ONE, len(options)) + 1):
        variants = list(subsets(start, options, size))
        found.append((variants, np.array([of(variant) for variant in variants])))
    return found


def _margin(seen: Observed, variant: Variant, name: str) -> float:
    return float(net.margin_of(variant, seen.model, seen.output(name, "digit"), seen.labels))


def _reconstruction(seen: Observed, variant: Variant, name: str) -> float:
    if not seen.model.decoder:
        return 0.0
    pixels, digit = net.pixels_of(variant, seen.images), seen.output(name, "digit")
    return float(net.reconstruction_of(variant, seen.model, seen.weights[name], digit, pixels, seen.labels))
