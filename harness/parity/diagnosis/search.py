"""Finds the variant of the specification that an implementation is: sets of choices, the smallest first, stage by stage.

Each stage is compared where only its own choices show: the part after the output capsules on the implementation's own
capsules, the part before routing where routing has nothing to decide, and last the gradients of all that was explained.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.parity.diagnosis import variant_net as net
from harness.parity.diagnosis.capsule_search import MOST, CapsuleSearch
from harness.parity.diagnosis.observed import FITS, TRAINED, Observed, as_good
from harness.parity.diagnosis.total_search import of_total
from harness.parity.diagnosis.variant import CHOICES, LENGTH_EPSILONS, Variant, options_of, subsets

STAGE_S = 5.0  # guaranteed to each stage after the output capsules
FLOOR = 1e-4  # smallest scale of a loss, or of the largest gradient
_DECODER = ("mask", "flattened", "hidden", "pixel_output", "pixel_order")
_MARGIN = ("scores", "margin_lambda", "margins", "margin_power", "margin_terms", "margin_classes", "margin_images")
_RECONSTRUCTION = ("training_mask", "reconstruction_pixels", "reconstruction_images", "reconstruction_power")
_GRADIENT = ("detached", "reconstruction_detached")
Distance = Callable[[Variant], float]


@dataclass(frozen=True)
class Explained:
    """All variants that fit equally well, the closest first, and what none of them explains, in the ladder's terms."""

    variants: tuple[Variant, ...]
    unexplained: tuple[str, ...] = ()


def search(seen: Observed, seconds: float) -> Explained:
    """Explains as much as possible in about `seconds` on one core."""
    with np.errstate(all="ignore"):  # faulty variants may overflow
        return _Search(seen, time.process_time() + seconds).all()


class _Search:
    def __init__(self, seen: Observed, deadline: float) -> None:
        self.seen, self.model, self.deadline = seen, seen.model, deadline
        self.unexplained: list[str] = []

    def all(self) -> Explained:
        capsules = CapsuleSearch(self.seen, self.deadline)
        variants = capsules.all() or self._lost("output capsules", [self.seen.base])
        for what, stage in (
            ("lengths", self._lengths),
            ("reconstruction", self._decoder),
            ("margin loss", self._margin),
            ("reconstruction loss", self._reconstruction),
            ("total loss", self._total),
            ("total loss", self._total_alone),
        ):
            self.deadline = max(self.deadline, time.process_time() + STAGE_S)
            # if capsules are indistinguishable, the first: what follows is compared on the implementation's capsules
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
        if "output capsules" not in self.unexplained and not capsules.couplings_fit(variants[0]):
            self.unexplained.append("coupling coefficients")
        return Explained(tuple(variants), tuple(self.unexplained))

    def _lost(self, what: str, variants: list[Variant]) -> list[Variant]:
        self.unexplained.append(what)
        return variants

    def _smallest(self, base: Variant, options: Mapping[str, Sequence[Any]], distance: Distance) -> list[Variant]:
        """All variants that fit with the fewest changes, the closest first."""
        for size in range(min(MOST, len(options)) + 1):
            ranked = [(distance(variant), variant) for variant in subsets(base, options, size)]
            if fitting := as_good(ranked):
                return fitting
            if time.process_time() > self.deadline:
                break
        return []

    # on the implementation's output capsules

    def _lengths(self, start: Variant) -> list[Variant]:
        probes = self.seen.known("lengths", ("small", "tiny", "zero", "faint", "middle", "probe"))

        def distance(variant: Variant) -> float:
            return max(
                self.seen.distance(
                    self.seen.output(name, "lengths"),
                    net.lengths_of(variant, self.seen.output(name, "digit"), variant.lengths),
                    "forward",
                    name,
                    "lengths",
                )
                for name in probes
            )

        if not probes:
            return [start]
        options = {"lengths": CHOICES["lengths"], "length_epsilon": LENGTH_EPSILONS}
        return [self._at_zero(each) for each in closest_epsilon(self._smallest(start, options, distance))]

    def _at_zero(self, variant: Variant) -> Variant:
        """If gradients at zero are not finite, gives a length without epsilon the root's own gradient."""
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
                    made[name][certain[name, variant.mask]],
                    net.images_of(
                        variant,
                        self.model,
                        net.decoded(variant, self.seen.weights[name], digits[name], variant.mask, None),
                    )[certain[name, variant.mask]],
                    "forward",
                    name,
                    "reconstruction",
                )
                for name in probes
            )

        digits, made, certain = dict[str, np.ndarray](), dict[str, np.ndarray](), dict[tuple[str, str], np.ndarray]()
        for name in list(probes):
            digit, images = self.seen.output(name, "digit"), self.seen.output(name, "reconstruction")
            assert digit is not None
            assert images is not None
            digits[name], made[name] = digit, images
            certain[name, "longest"] = certain[name, "none"] = _certain(lengths := np.sqrt((digit * digit).sum(-1)))
            certain[name, "relative"] = _certain(net.softmax(lengths, 0))
            if not certain[name, "longest"].any():
                probes.remove(name)
        if not probes:
            return [start]

        return self._smallest(start, options_of(_DECODER), distance)

    def _losses(self, field: str) -> list[str]:
        """Probes with both this loss and the capsules it is computed from."""
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
                "margin",
                probes,
                lambda name: net.margin_of(variant, self.model, self.seen.output(name, "digit"), self.seen.labels),
            )

        start = replace(start, scores=start.lengths)
        options = options_of(_MARGIN, defaults=("norm",))
        found = self._smallest(start, options, distance)
        if not found and not self.seen.known("lengths", ("tiny",)):
            options["length_epsilon"] = LENGTH_EPSILONS
            found = [self._at_zero(each) for each in closest_epsilon(self._smallest(start, options, distance))]
        if not self.seen.known("lengths", TRAINED):  # then the loss sees these
            found = [replace(each, lengths=each.scores) for each in found]
        return found

    def _reconstruction(self, start: Variant) -> list[Variant]:
        probes = self._losses("reconstruction") if self.model.decoder else []
        if not probes:
            return [start]

        def distance(variant: Variant) -> float:
            pixels = net.pixels_of(variant, self.seen.images)
            return self._loss_apart(
                "reconstruction",
                probes,
                lambda name: net.reconstruction_of(
                    variant,
                    self.model,
                    self.seen.weights[name],
                    self.seen.output(name, "digit"),
                    pixels,
                    self.seen.labels,
                ),
            )

        start = replace(start, training_mask="none" if start.mask == "none" else start.training_mask)
        options = options_of(_RECONSTRUCTION, defaults=("label",))
        if not self.seen.known("reconstruction", TRAINED):
            options = {**options, **options_of(_DECODER[1:])}
        return self._smallest(start, options, distance)

    def _total(self, start: Variant) -> list[Variant]:
        """The weight of the reconstruction in the total, whatever it is."""
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

    def _total_alone(self, start: Variant) -> list[Variant]:
        """If only the total loss is known. The lengths in the loss may have another epsilon than the lengths returned."""
        probes = [] if self._losses("margin") else self._losses("total")
        if not probes:
            return [start]
        start = replace(start, scores=start.lengths, training_mask="label" if start.mask == "longest" else start.mask)
        margin, made = options_of(_MARGIN, defaults=("norm",)), options_of(_RECONSTRUCTION, defaults=("label",))
        if not self.seen.known("reconstruction", TRAINED):
            made = {**made, **options_of(_DECODER[1:])}
        made = made if self.model.decoder else {}
        if found := of_total(self.seen, start, probes, margin, made):
            return found
        found = of_total(self.seen, start, probes, {**margin, "length_epsilon": LENGTH_EPSILONS}, made)
        return [self._at_zero(each) for each in closest_epsilon(found)]

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
        options = options_of(_GRADIENT)
        if found := self._smallest(start, options, distance):
            return found
        # in float32 the epsilon of a length may show only in its gradient
        found = self._smallest(start, {**options, "length_epsilon": LENGTH_EPSILONS}, distance)
        return [self._at_zero(each) for each in closest_epsilon(found)]


def closest_epsilon(variants: list[Variant]) -> list[Variant]:
    """One of the variants that differ only in their epsilons: one without any if it fits as well, else the closest."""
    kept: dict[Variant, Variant] = {}
    for variant in sorted(variants, key=lambda each: each.length_epsilon.value > 0):
        kept.setdefault(replace(variant, length_epsilon=Variant().length_epsilon), variant)
    return list(kept.values())


def _certain(lengths: np.ndarray) -> np.ndarray:
    """(B,) whether the longest capsule is clear, beyond rounding."""
    ordered = np.sort(lengths, axis=1)
    return ordered[:, -1] - ordered[:, -2] > 1e-5 * ordered[:, -1]
