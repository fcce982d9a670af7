"""Finds the variant with the implementation's output capsules; variants with few changes come first.

The choices before routing are searched where routing has nothing to decide, then those of routing, and last, for the
few variants that nearly fit, the epsilon.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from harness.parity.diagnosis import variant_net as net
from harness.parity.diagnosis.observed import FITS, Observed, as_good, relative
from harness.parity.diagnosis.variant import SQUASH_EPSILONS, Variant, options_of, subsets

MOST = 4  # choices before routing, or in it, that may be wrong at once
LOOSE = 0.02  # the relative error within which a variant may match except for its epsilon
STRAIGHT = 0.005  # the angle within which two capsules count as parallel
ENOUGH = 3  # number of informative images
EXACT = 12  # loosely fitting variants of one size that are compared closely
_PLACES = ("inside", "outside", "square", "product")  # the most usual first
_BEFORE = ("pixels", "windows", "conv1_relu", "primary_scale", "primary_relu", "split", "order", "primary_squash",
           "primary_axis")  # fmt: skip
_ROUTING = ("softmax", "shared", "agreement", "logits", "iterations", "digit_squash", "digit_axis", "digit_bias")


class CapsuleSearch:
    """The search over an implementation's results, until about `deadline` of the process's time."""

    def __init__(self, seen: Observed, deadline: float) -> None:
        self.seen, self.model, self.deadline = seen, seen.model, deadline

    def all(self) -> list[Variant]:
        """A loose comparison where routing shows, then a close one at every probe, with each epsilon; few choices first."""
        before: list[list[Variant]] = []
        for size in range(2 * MOST + 1):
            # starts that point the right way come first; others are tried only if routing explains nothing
            found = self._exact(before, size)
            if not found and size <= MOST and not any(before[:-1]):
                before.append(
                    [
                        v
                        for v in subsets(self.seen.base, options_of(_BEFORE, self._dead()), size)
                        if self._is_straight(v)
                    ]
                )
                found = self._exact(before[size:], 0) if before[size] else []
            if found or time.process_time() > self.deadline:
                return found
        return []

    def _exact(self, before: list[list[Variant]], size: int) -> list[Variant]:
        """The close fits with `size` changes in all; `before` lists the candidates before routing by number of changes."""
        loose = [
            each for own, starts in enumerate(before) for start in starts for each in self._routed(start, size - own)
        ]
        loose.sort(key=lambda each: each[0])
        return as_good([self._with_epsilon(variant) for _, variant in loose[:EXACT]])

    def _dead(self) -> set[str]:
        """Choices that make no difference to this model."""
        return set() if self.model.profile == "official" else {"primary_scale", "digit_bias"}

    def _is_straight(self, variant: Variant) -> bool:
        """Whether the capsules point the same way where routing has nothing to decide, whatever the squash."""
        found = self.seen.output("faint", "digit")
        if found is None or not np.isfinite(found).all():
            return False
        grid = self.seen.grid(variant, "faint")
        if variant.primary_axis != "images":
            grid, found = grid[:ENOUGH], found[:ENOUGH]
        u: Any = net.squashed_primary(variant, self.model, grid)
        s: Any = (u.reshape(len(u), -1) @ self._summed_votes).reshape(found.shape)
        if not np.isfinite(s).all():
            return False
        if any(_angle(s, found, axis) < STRAIGHT for axis in (-1, 1, 0)):
            return True
        large = np.abs(s) > 0.01 * np.abs(s).max()  # an elementwise squash keeps only the sign
        turned: Any = (np.sign(s) != np.sign(found))[large]
        return bool(turned.mean() < 0.005)

    @cached_property
    def _summed_votes(self) -> np.ndarray:
        """(I d, J e): the matrix that turns the flattened primary capsules into the sum of all votes."""
        w = self.seen.weights["faint"]["digit.w"]
        return w.transpose(0, 2, 1, 3).reshape(w.shape[0] * w.shape[2], -1)

    def _routed(self, start: Variant, size: int) -> Iterator[tuple[float, Variant]]:
        """The loose fits after `size` changes of routing; its squash is by default that of the primary capsules."""
        if size < 0 or size > MOST:
            return
        same = "paper" if start.primary_squash == "none" else start.primary_squash
        start = replace(start, digit_squash=same, digit_axis=start.primary_axis)
        u_hat: dict[str, np.ndarray] = {}
        for variant in subsets(start, options_of(_ROUTING, self._dead(), ("paper", "dimensions")), size):
            error = 0.0
            for name in ("middle", "probe"):
                if name not in u_hat:
                    u = net.squashed_primary(start, self.model, self.seen.grid(start, name))
                    u_hat[name] = net.votes_of(u, self.seen.weights[name]["digit.w"])
                bias = self.seen.weights[name]["digit.b"] if self.model.digit_bias else None
                v = net.route(variant, self.model, u_hat[name], bias).v
                error = max(error, relative(self.seen.output(name, "digit"), v))
                if error > LOOSE:
                    break
            if error <= LOOSE:
                yield error, variant

    def _with_epsilon(self, variant: Variant) -> tuple[float, Variant]:
        """The distance of the output capsules at every probe, with the best epsilon; the specification's if that fits."""
        distance = self._capsules_apart(variant, math.inf)
        if distance <= FITS:
            return distance, variant
        others = [replace(variant, squash_epsilon=epsilon) for epsilon in SQUASH_EPSILONS]
        ranked = [(self._capsules_apart(other, FITS), other) for other in others]
        fitting = as_good(ranked)
        if not fitting:
            return distance, variant
        distances = {other: distance for distance, other in ranked}
        # if places cannot be told apart, the most usual one
        likely = min(fitting, key=lambda each: (_PLACES.index(each.squash_epsilon.place), distances[each]))
        return distances[likely], likely

    def _capsules_apart(self, variant: Variant, limit: float) -> float:
        largest = 0.0
        for name in ("small", "tiny", "zero", "faint", "middle", "probe", "huge"):
            found = self.seen.output(name, "digit")
            if self.seen.outputs.get(name) is None:
                continue
            expected = self.seen.capsules(variant, name).v
            largest = max(largest, self.seen.distance(found, expected, "forward", name, "digit"))
            if largest > limit:
                break
        return largest

    def couplings_fit(self, variant: Variant) -> bool:
        for name in ("probe", "middle"):
            found = self.seen.output(name, "coupling")
            if found is None:
                continue
            expected = np.swapaxes(self.seen.capsules(variant, name).coupling, 1, 2)
            if self.seen.distance(found, expected, "forward", name, "coupling") > FITS:
                return False
        return True


def _angle(s: Any, found: np.ndarray, axis: int) -> float:
    """The largest angle between two sets of directions, with norms over `axis`."""
    units = [x / np.sqrt((x * x).sum(axis, keepdims=True)) for x in (s, found)]
    distance = np.sqrt(((units[0] - units[1]) ** 2).sum(axis))
    return float(np.nan_to_num(distance, nan=2.0).max())
