"""Which variant of the specification an implementation is: sets of choices, the smallest first, stage by stage.

Each stage is compared where nothing but its own choices shows: what comes after the output capsules on the capsules that
were found, what comes before routing where routing has nothing to decide, and gradients at last, of all that was explained.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from harness.parity import variant_net as net
from harness.parity.observed import FITS, TRAINED, Observed, relative
from harness.parity.variant import CHOICES, LENGTH_EPSILONS, SQUASH_EPSILONS, Variant

LOOSE = 0.02  # the relative error within which a variant may be the one, but for its epsilon
STRAIGHT = 0.005  # the angle within which capsules point where others do
STAGE_S = 5.0  # that each stage after the output capsules has in any case
ENOUGH = 3  # images that tell
AS_GOOD = 10.0  # variants up to this many times as far as the closest are indistinguishable from it
ROUNDING = 1e-2  # distances, in tolerances, that say nothing about which is closer
FLOOR = 1e-4  # of a loss, or of the largest gradient: what is less is held to this
MOST = 4  # choices of a stage that may be wrong at once
EXACT = 12  # loosely fitting variants of one size that are looked at closely
_BEFORE = ("pixels", "windows", "conv1_relu", "primary_scale", "primary_relu", "split", "order", "primary_squash",
           "primary_axis")  # fmt: skip
_ROUTING = ("softmax", "shared", "agreement", "logits", "iterations", "digit_squash", "digit_axis", "digit_bias")
_DECODER = ("mask", "flattened", "hidden", "pixel_output", "pixel_order")
_MARGIN = ("scores", "margin_lambda", "margins", "margin_power", "margin_terms", "margin_classes", "margin_images")
_RECONSTRUCTION = ("training_mask", "reconstruction_pixels", "reconstruction_images", "reconstruction_power")
_GRADIENT = ("detached", "reconstruction_detached")
_PLACES = ("inside", "outside", "square", "product")  # the most usual first
Distance = Callable[[Variant], float]


@dataclass(frozen=True)
class Explained:
    """All variants that fit as well, the closest first, and what none of them explains, in the ladder's terms."""

    variants: tuple[Variant, ...]
    unexplained: tuple[str, ...] = ()


def search(seen: Observed, seconds: float) -> Explained:
    """Explains as much as can be in about `seconds` of one core."""
    with np.errstate(all="ignore"):  # of what faults compute
        return _Search(seen, time.process_time() + seconds).all()


def subsets(base: Variant, options: Mapping[str, Sequence[Any]], size: int) -> Iterator[Variant]:
    """All variants that differ from the base in `size` of the options."""
    for names in itertools.combinations(options, size):
        for values in itertools.product(*(options[name] for name in names)):
            if all(getattr(base, name) != value for name, value in zip(names, values, strict=True)):
                variant = replace(base, **dict(zip(names, values, strict=True)))
                if not _cancels(variant):
                    yield variant


def _cancels(variant: Variant) -> bool:
    """Whether one choice leaves nothing for another to show, so that other pairs that nobody has made would look alike."""
    spatial = variant.split.startswith("spatial") and variant.order != Variant().order
    return spatial or (variant.softmax in ("images", "single") and variant.shared != "no")


class _Search:
    def __init__(self, seen: Observed, deadline: float) -> None:
        self.seen, self.model, self.deadline = seen, seen.model, deadline
        self.unexplained: list[str] = []

    def all(self) -> Explained:
        variants = self._capsules() or self._lost("output capsules", [self.seen.base])
        for what, stage in (
            ("lengths", self._lengths),
            ("reconstruction", self._decoder),
            ("margin loss", self._margin),
            ("reconstruction loss", self._reconstruction),
            ("total loss", self._total),
        ):
            self.deadline = max(self.deadline, time.process_time() + STAGE_S)
            # of indistinguishable capsules the first: what follows is compared on the capsules found
            found = stage(variants[0])
            later = found or self._lost(what, [variants[0]])
            changed = [each.changed(variants[0]) for each in later]
            variants = [
                replace(variant, **{name: getattr(each, name) for name in names})
                for variant in variants
                for each, names in zip(later, changed, strict=True)
            ][:8]
        self.deadline = max(self.deadline, time.process_time() + STAGE_S)
        if not self.unexplained:
            fits = list(itertools.chain.from_iterable(self._gradients(variant) for variant in variants))
            smallest = min((len(each.changed(self.seen.base)) for each in fits), default=0)
            fits = [each for each in fits if len(each.changed(self.seen.base)) == smallest]
            variants = fits or self._lost("gradients", variants)
        if "output capsules" not in self.unexplained and not self._couplings_fit(variants[0]):
            self.unexplained.append("coupling coefficients")
        return Explained(tuple(variants), tuple(self.unexplained))

    def _lost(self, what: str, variants: list[Variant]) -> list[Variant]:
        self.unexplained.append(what)
        return variants

    def _smallest(self, base: Variant, options: Mapping[str, Sequence[Any]], distance: Distance) -> list[Variant]:
        """All that fit with the fewest changes; of several as good the closest first."""
        for size in range(min(MOST, len(options)) + 1):
            ranked = [(distance(variant), variant) for variant in subsets(base, options, size)]
            if fitting := as_good(ranked):
                return fitting
            if time.process_time() > self.deadline:
                break
        return []

    # up to the output capsules

    def _capsules(self) -> list[Variant]:
        """Loosely where routing shows, then closely at every probe, with each epsilon; few choices before many."""
        before: list[list[Variant]] = []
        for size in range(2 * MOST + 1):
            # what is known to point the right way first: other beginnings are looked for where routing explains nothing
            found = self._exact(before, size)
            if not found and size <= MOST and not any(before[:-1]):
                before.append(
                    [v for v in subsets(self.seen.base, _options(_BEFORE, self._dead()), size) if self._is_straight(v)]
                )
                found = self._exact(before[size:], 0) if before[size] else []
            if found or time.process_time() > self.deadline:
                return found
        return []

    def _exact(self, before: list[list[Variant]], size: int) -> list[Variant]:
        """What fits closely of `size` changes in all, given what may come before routing, by its number of changes."""
        loose = [
            each for own, starts in enumerate(before) for start in starts for each in self._routed(start, size - own)
        ]
        loose.sort(key=lambda each: each[0])
        return as_good([self._with_epsilon(variant) for _, variant in loose[:EXACT]])

    def _dead(self) -> set[str]:
        """Choices that make no difference to this model."""
        return set() if self.model.profile == "official" else {"primary_scale", "digit_bias"}

    def _is_straight(self, variant: Variant) -> bool:
        """Whether capsules that routing has nothing to decide about point where these do, whatever the squash."""
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
        large = np.abs(s) > 0.01 * np.abs(s).max()  # a squash of every number by itself keeps the sign alone
        return float(np.mean((np.sign(s) != np.sign(found))[large])) < 0.005

    @cached_property
    def _summed_votes(self) -> np.ndarray:
        """(I d, J e): what makes the sum of all votes of the primary capsules, one after the other."""
        w = self.seen.weights["faint"]["digit.w"]
        return w.transpose(0, 2, 1, 3).reshape(w.shape[0] * w.shape[2], -1)

    def _routed(self, start: Variant, size: int) -> Iterator[tuple[float, Variant]]:
        """What fits loosely after `size` changes of routing; its squash is by default that of the primary capsules."""
        if size < 0 or size > MOST:
            return
        same = "paper" if start.primary_squash == "none" else start.primary_squash
        start = replace(start, digit_squash=same, digit_axis=start.primary_axis)
        u_hat: dict[str, np.ndarray] = {}
        for variant in subsets(start, _options(_ROUTING, self._dead(), ("paper", "dimensions")), size):
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
        """The distance of output capsules at every probe, with the epsilon that fits best; the specification's if it does."""
        distance = self._capsules_apart(variant, math.inf)
        if distance <= FITS:
            return distance, variant
        others = [replace(variant, squash_epsilon=epsilon) for epsilon in SQUASH_EPSILONS]
        ranked = [(self._capsules_apart(other, FITS), other) for other in others]
        fitting = as_good(ranked)
        if not fitting:
            return distance, variant
        distances = {other: distance for distance, other in ranked}
        # where places cannot be told apart, the most usual one
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

    def _couplings_fit(self, variant: Variant) -> bool:
        for name in ("probe", "middle"):
            found = self.seen.output(name, "coupling")
            if found is None:
                continue
            expected = np.swapaxes(self.seen.capsules(variant, name).coupling, 1, 2)
            if self.seen.distance(found, expected, "forward", name, "coupling") > FITS:
                return False
        return True

    # on the output capsules that were found

    def _lengths(self, start: Variant) -> list[Variant]:
        probes = self.seen.known("lengths", ("small", "tiny", "zero", "faint", "middle", "probe"))

        def distance(variant: Variant) -> float:
            return max(
                self.seen.distance(
                    self.seen.output(name, "lengths"),
                    net.lengths_of(variant, self.seen.output(name, "digit"), variant.lengths),
                    "forward", name, "lengths",
                )
                for name in probes
            )  # fmt: skip

        if not probes:
            return [start]
        options = {"lengths": CHOICES["lengths"], "length_epsilon": LENGTH_EPSILONS}
        return [self._at_zero(each) for each in closest_epsilon(self._smallest(start, options, distance))]

    def _at_zero(self, variant: Variant) -> Variant:
        """A length without epsilon, whose gradient is not finite: the root's own."""
        if variant.length_epsilon.value or self.seen.gradients_finite_at_zero():
            return variant
        return replace(variant, length_epsilon=replace(variant.length_epsilon, place="inside"))

    def _decoder(self, start: Variant) -> list[Variant]:
        probes = self.seen.known("reconstruction", ("probe", "middle", "faint")) if self.model.decoder else []
        if not probes:
            return [start]

        def distance(variant: Variant) -> float:
            return max(
                self.seen.distance(
                    made[name],
                    net.images_of(
                        variant, self.model,
                        net.decoded(variant, self.seen.weights[name], digits[name], variant.mask, None),
                    ),
                    "forward", name, "reconstruction",
                )
                for name in probes
            )  # fmt: skip

        digits, made = dict[str, np.ndarray](), dict[str, np.ndarray]()
        for name in list(probes):
            digit, images = self.seen.output(name, "digit"), self.seen.output(name, "reconstruction")
            assert digit is not None
            assert images is not None
            certain = _certain(digit)
            digits[name], made[name] = digit[certain], images[certain]
            if not certain.any():
                probes.remove(name)
        if not probes:
            return [start]

        return self._smallest(start, _options(_DECODER), distance)

    def _losses(self, field: str) -> list[str]:
        """Probes at which that loss was found, and the capsules that it is of."""
        return [
            name
            for name in self.seen.known("digit", TRAINED)
            if name in self.seen.losses and getattr(self.seen.losses[name], field, None) is not None
        ]

    def _loss_apart(self, field: str, names: Iterable[str], computed: Callable[[str], Any]) -> float:
        return max(
            self.seen.distance(
                getattr(self.seen.losses[name], field), float(computed(name)), "loss", name, f"loss.{field}", FLOOR
            )
            for name in names
        )

    def _margin(self, start: Variant) -> list[Variant]:
        probes = self._losses("margin")
        if not probes:
            return [start]

        def distance(variant: Variant) -> float:
            return self._loss_apart(
                "margin", probes,
                lambda name: net.margin_of(variant, self.model, self.seen.output(name, "digit"), self.seen.labels),
            )  # fmt: skip

        start = replace(start, scores=start.lengths)
        options = _options(_MARGIN, defaults=("norm",))
        found = self._smallest(start, options, distance)
        if not found and not self.seen.known("lengths", ("tiny",)):
            options["length_epsilon"] = LENGTH_EPSILONS
            found = [self._at_zero(each) for each in closest_epsilon(self._smallest(start, options, distance))]
        return found

    def _reconstruction(self, start: Variant) -> list[Variant]:
        probes = self._losses("reconstruction") if self.model.decoder else []
        if not probes:
            return [start]

        def distance(variant: Variant) -> float:
            pixels = net.pixels_of(variant, self.seen.images)
            return self._loss_apart(
                "reconstruction", probes,
                lambda name: net.reconstruction_of(
                    variant, self.model, self.seen.weights[name], self.seen.output(name, "digit"), pixels,
                    self.seen.labels,
                ),
            )  # fmt: skip

        start = replace(start, training_mask="none" if start.mask == "none" else start.training_mask)
        options = _options(_RECONSTRUCTION, defaults=("label",))
        if not self.seen.known("reconstruction", TRAINED):
            options = {**options, **_options(_DECODER[1:])}
        return self._smallest(start, options, distance)

    def _total(self, start: Variant) -> list[Variant]:
        """The weight that the total gives the reconstruction, whatever it is."""
        probes = [name for name in self._losses("total") if name in self._losses("margin")]
        if not probes:
            return [start]
        found = [self.seen.losses[name] for name in probes]
        parts = [(each.total, each.margin or 0.0, each.reconstruction or 0.0) for each in found]
        weights = [start.reconstruction_weight]
        if self.model.decoder and all(reconstruction for _, _, reconstruction in parts):
            solved = [(total - margin) / reconstruction for total, margin, reconstruction in parts]
            weights.append(float(np.median(solved)))
        for weight in weights:
            sums = {name: margin + weight * other for name, (_, margin, other) in zip(probes, parts, strict=True)}
            if self._loss_apart("total", probes, sums.__getitem__) <= FITS:
                return [replace(start, reconstruction_weight=weight)]
        return []

    # and back

    def _gradients(self, start: Variant) -> list[Variant]:
        probes = [name for name in ("middle", "probe", "faint") if name in self.seen.grads]

        def distance(variant: Variant) -> float:
            largest = 0.0
            for name in probes:
                _, grads = net.loss_and_grads(
                    variant, self.model, self.seen.weights[name], self.seen.images, self.seen.labels
                )
                floor = FLOOR * max(float(np.abs(grad).max()) for grad in grads.values())
                for key, expected in grads.items():
                    found = self.seen.grads[name].get(key)
                    largest = max(largest, self.seen.distance(found, expected, "grad", name, key, floor))
                if largest > FITS:
                    break
            return largest

        if not probes:
            return [start]
        options = _options(_GRADIENT)
        if found := self._smallest(start, options, distance):
            return found
        # in float32 the epsilon of a length may show in its gradient alone
        found = self._smallest(start, {**options, "length_epsilon": LENGTH_EPSILONS}, distance)
        return [self._at_zero(each) for each in closest_epsilon(found)]


def _options(names: Iterable[str], dead: Iterable[str] = (), defaults: Sequence[Any] = ()) -> dict[str, Sequence[Any]]:
    """What may be changed, and to what; `defaults` are values that a base may have departed from already."""
    own = {name: (*CHOICES[name], *(each for each in defaults if each == getattr(Variant(), name))) for name in names}
    return {name: values for name, values in own.items() if name not in dead}


def as_good(ranked: Sequence[tuple[float, Variant]]) -> list[Variant]:
    """Those that fit, and as well as the closest; the closest first."""
    fitting = sorted(
        ((distance, index, variant) for index, (distance, variant) in enumerate(ranked) if distance <= FITS),
        key=lambda each: each[:2],
    )
    return [variant for distance, _, variant in fitting if distance <= AS_GOOD * fitting[0][0] + ROUNDING]


def closest_epsilon(variants: list[Variant]) -> list[Variant]:
    """Of those that differ in their epsilons alone, the first."""
    kept: dict[Variant, Variant] = {}
    for variant in variants:
        kept.setdefault(replace(variant, length_epsilon=Variant().length_epsilon), variant)
    return list(kept.values())


def _certain(digit: np.ndarray) -> np.ndarray:
    """(B,) whether rounding does not decide which capsule is the longest."""
    lengths = np.sort(np.sqrt((digit * digit).sum(-1)), axis=1)
    return lengths[:, -1] - lengths[:, -2] > 1e-5 * lengths[:, -1]


def _angle(s: Any, found: np.ndarray, axis: int) -> float:
    """How far two directions are apart, at the worst, where norms are over `axis`."""
    units = [x / np.sqrt((x * x).sum(axis, keepdims=True)) for x in (s, found)]
    distance = np.sqrt(((units[0] - units[1]) ** 2).sum(axis))
    return float(np.nan_to_num(distance, nan=2.0).max())
