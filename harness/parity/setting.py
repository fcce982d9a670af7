"""The setting of a comparison: model, weights, images, and the plans and evaluations made from them."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Int, UInt8

from harness import models
from harness.data.frame import middle
from harness.models.base import ModelKind
from harness.parity.inputs import chosen, drawn
from harness.parity.probe import image_count
from harness.spec import EpochPlan, ModelSpec, OptimSpec, Weights
from harness.spec.plans import kept_units, overlays

_BATCHES = 8  # in an evaluation of several batches: an error may show in a later one
_LITTLE = np.array([(down, right) for down in (1, -1, 2, 0, -2) for right in (-2, 1, 0, 2, -1)], np.int8)
"""Every shift by at most two pixels."""


@dataclass(frozen=True)
class Setting:
    """The setting of a comparison: staged `images` uint8 (N, H, W, C) and `labels` (N,), weights, `steps` of a trajectory.

    `batch` is the implementation's compiled batch size. A step has `images_a_step` different images. The specification
    gets each of them once; an implementation gets `whole` batches, in which the images are repeated to fill every
    place: the means are the same. If the model's images show several digits, single digits are staged, and `shown` has
    the overlaid ones. If they are larger than the network's, it sees their middle.
    """

    model: ModelSpec
    optim: OptimSpec
    images: UInt8[np.ndarray, "N H W C"]
    labels: Int[np.ndarray, " N"]
    probes: dict[str, Weights]
    steps: int
    batch: int
    first_step: int = 0  # completed ones before the trajectory
    brief: bool = False  # fewer comparisons, since a gate must not take long
    whole: bool = False
    trained_on: list[EpochPlan] = field(default_factory=list[EpochPlan])

    @property
    def kind(self) -> ModelKind:
        return models.of(self.model)

    @property
    def probe(self) -> Weights:
        return next(iter(self.probes.values()))

    @property
    def images_a_step(self) -> int:
        return image_count(self.batch)

    @property
    def even(self) -> Weights:
        """The weights at which each image has a different winner."""
        return self.probes.get("even", self.probe)

    @property
    def initial(self) -> Weights:
        return self.probes["initial"]

    def compared(self, probe: str) -> tuple[UInt8[np.ndarray, "B *K H W C"], Int[np.ndarray, " B *K"]]:
        """The images compared at a probe, and their labels.

        At the initial weights all images are dim: nothing may depend on a batch's brightest pixel. Black images are
        left out, since their ReLUs would see only rounding.
        """
        if probe != "initial":
            return self.compared_images, self.classes[self._some]
        some = np.where(self._is_black[self._some], np.argmin(self._is_black), self._some)
        return self.shown[some] // 2, self.classes[some]

    @property
    def compared_images(self) -> UInt8[np.ndarray, "B *K H W C"]:
        """What is compared up to L4: the images shown. In brief, of the trial's own only the first and the last."""
        return self.shown[self._some]

    @property
    def _some(self) -> Int[np.ndarray, " b"]:
        """Places of these among the images shown. Their number is the same at every probe: a new shape is compiled anew."""
        count, own = len(self.shown_indices), len(self.shown_indices) - len(drawn(self.model)[1])
        return np.array([0, *range(max(own - 1, 1), count)]) if self.brief else np.arange(count)

    @property
    def repeat(self) -> int:
        return self.batch // self.images_a_step if self.whole else 1

    @property
    def fills(self) -> bool:
        """Whether a step's images, repeated, fill a whole batch."""
        return self.batch % self.images_a_step == 0

    @cached_property
    def shown_indices(self) -> Int[np.ndarray, " B *K"]:
        """Which staged images each compared image is made of."""
        indices = chosen(self.model, len(self.labels))
        count, digits = len(indices), self.model.overlaid
        if digits == 1:
            return indices
        draws = np.arange(1, count * (digits - 1) + 1) * 0.618034 % 1
        return indices[overlays(self.labels[indices], draws.reshape(count, digits - 1))]

    @property
    def shown(self) -> UInt8[np.ndarray, "B *K H W C"]:
        """The network's input images."""
        return self.seen(self.shown_indices)

    def seen(self, indices: Int[np.ndarray, " B *K"]) -> UInt8[np.ndarray, "B *K H W C"]:
        """Staged images, unshifted, as the network sees them."""
        return middle(self.images[indices], self.model.image)

    @property
    def classes(self) -> Int[np.ndarray, " B *K"]:
        """The labels of `shown`."""
        return self.labels[self.shown_indices]

    def plan(self, images: int, offset: int = 0, gentle: bool = False) -> EpochPlan:
        """`images` of those shown, cyclically from the one at `offset`, each time shifted differently.

        A step has `images_a_step` of them, `repeat` times; the last step may have fewer. If the model has dropout,
        units are dropped, different ones each time. A gentle plan has small shifts and no black image: at the initial
        weights, whose biases are zero, every ReLU's input would be mere rounding.
        """
        numbers = np.arange(offset, offset + images)
        shown = self.shown_indices[~self._is_black] if gentle else self.shown_indices
        order = shown[numbers % len(shown)]
        # several digits are shifted independently
        turns = (numbers[:, None] + 7 * np.arange(self.model.overlaid)).reshape(order.shape)
        shifts = _LITTLE[turns % len(_LITTLE)] if gentle else self._shifts[turns % len(self._shifts)]
        generator = np.random.Generator(np.random.Philox(key=[images + offset, zlib.crc32(b"dropout")]))
        kept = kept_units(generator, self.model, images)
        batch = self.images_a_step * self.repeat if self.fills else self.batch
        kept = None if kept is None else self._whole(kept)
        return EpochPlan(self._whole(order.astype(np.int32)), self._whole(shifts), batch, kept)

    @cached_property
    def _is_black(self) -> np.ndarray:
        """(B,): whether the image shown is black."""
        return np.logical_not(self.shown.reshape(len(self.shown_indices), -1).any(axis=1))

    def all_shifts(self) -> EpochPlan:
        """One step of images lit up to their borders, shifted in every way, as many as fit in a batch."""
        drawn_from = len(self.labels) - len(drawn(self.model)[1])
        lit = self.shown_indices[(self.shown_indices.reshape(len(self.shown_indices), -1) >= drawn_from + 3).all(1)]
        count = min(self.batch, len(self._shifts))
        order = lit[np.arange(count) % len(lit)] if len(lit) else self.shown_indices[:count]
        shifts = np.repeat(self._shifts[: len(order), None], self.model.overlaid, 1).reshape(*order.shape, 2)
        generator = np.random.Generator(np.random.Philox(key=[count, zlib.crc32(b"shifts")]))
        return EpochPlan(order.astype(np.int32), shifts, self.batch, kept_units(generator, self.model, len(order)))

    @cached_property
    def _shifts(self) -> np.ndarray:
        """By half an image, to the last row and column, and beyond; then all small shifts, in brief each distance once."""
        height, width = (min(side, 127) for side in self.images.shape[1:3])
        half_up, half_left = height // 2, width // 2
        far = [(half_up, -half_left), (-half_up, half_left), (height - 1, 0), (1 - height, 1), (0, width - 1),
               (-1, 1 - width), (0, -width), (height, 0)]  # fmt: skip
        return np.concatenate([np.array(far, np.int8), _LITTLE[:: 6 if self.brief else 1]])

    def _whole(self, examples: np.ndarray) -> np.ndarray:
        """Each step's examples `repeat` times, shuffled: no two chunks of a batch have the same ones."""
        step = self.images_a_step
        mixed = (
            np.random.Generator(np.random.Philox(key=[0, zlib.crc32(b"places")])).permutation(step * self.repeat) % step
        )
        parts = (examples[first : first + step] for first in range(0, len(examples), step))
        return np.concatenate([part[mixed[mixed < len(part)]] for part in parts])

    def evaluated(self, of_several: bool) -> tuple[UInt8[np.ndarray, "N *K H W C"], Int[np.ndarray, " N *K"]]:
        """Images and labels to evaluate: those shown, or with `of_several` repeated to several batches, the last incomplete."""
        count, times = len(self.shown_indices), 1
        count -= count % self.batch == 0  # otherwise no multiple would have an incomplete batch
        if self.whole and of_several:
            times = (1 if self.brief else _BATCHES) * self.batch // count + 1
            times += times * count % self.batch == 0
        return np.concatenate([self.shown[:count]] * times), np.concatenate([self.classes[:count]] * times)
