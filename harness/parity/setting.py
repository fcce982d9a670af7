"""Where everyone is compared: model, weights, images, and the plans and evaluations that are made of them."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Int, UInt8

from harness import models
from harness.models.base import ModelKind
from harness.parity.inputs import chosen, drawn
from harness.parity.probe import image_count
from harness.spec import EpochPlan, ModelSpec, OptimSpec, Weights
from harness.spec.plans import kept_units, overlays

_BATCHES = 8  # of an evaluation of several: an error may show in a later one
_LITTLE = np.array([(down, right) for down in (1, -1, 2, 0, -2) for right in (-2, 1, 0, 2, -1)], np.int8)
"""Every shift by at most two pixels."""


@dataclass(frozen=True)
class Setting:
    """Where everyone is compared: `images` uint8 (N, H, W, C) and `labels` (N,) as staged, weights, `steps` of a trajectory.

    `batch` is what the implementation is compiled for. A step has `images_a_step` different images. The specification gets
    each of them once; an implementation, which is given `whole` batches, so often that every place of them is used: the
    means are the same. Where the model's images show several digits, staged are the single ones, and `shown` is what is
    made of them.
    """

    model: ModelSpec
    optim: OptimSpec
    images: UInt8[np.ndarray, "N H W C"]
    labels: Int[np.ndarray, " N"]
    probes: dict[str, Weights]
    steps: int
    batch: int
    first_step: int = 0  # completed ones before the trajectory
    brief: bool = False  # some of what is compared has to do for all: nobody waits for a gate
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
        """The weights at which each image has a winner of its own."""
        return self.probes.get("even", self.probe)

    @property
    def initial(self) -> Weights:
        return self.probes["initial"]

    def compared(self, probe: str) -> tuple[UInt8[np.ndarray, "B *K H W C"], Int[np.ndarray, " B *K"]]:
        """What is shown at a probe, and its labels. In brief, half of it at all but the first.

        At the initial weights all is dim: nothing may hang on a batch's brightest pixel. Nor is there a black image, whose
        ReLUs would see rounding alone.
        """
        some = np.arange(len(self._is_black))
        if self.brief and self.probes[probe] is not self.probe:
            some = some[::2]
        if probe != "initial":
            return self.shown[some], self.classes[some]
        some = np.where(self._is_black[some], np.argmin(self._is_black), some)
        return self.shown[some] // 2, self.classes[some]

    @property
    def repeat(self) -> int:
        return self.batch // self.images_a_step if self.whole else 1

    @property
    def fills(self) -> bool:
        """Whether a step's images, repeated, are a whole batch."""
        return self.batch % self.images_a_step == 0

    @cached_property
    def shown_indices(self) -> Int[np.ndarray, " B *K"]:
        """Which of the staged images each image that is compared is made of."""
        indices = chosen(self.model, len(self.labels))
        count, digits = len(indices), self.model.overlaid
        if digits == 1:
            return indices
        draws = np.arange(1, count * (digits - 1) + 1) * 0.618034 % 1
        return indices[overlays(self.labels[indices], draws.reshape(count, digits - 1))]

    @property
    def shown(self) -> UInt8[np.ndarray, "B *K H W C"]:
        """What is put in."""
        return self.images[self.shown_indices]

    @property
    def classes(self) -> Int[np.ndarray, " B *K"]:
        """The labels of `shown`."""
        return self.labels[self.shown_indices]

    def plan(self, images: int, offset: int = 0, gentle: bool = False) -> EpochPlan:
        """`images` of those shown, from the one at `offset` on, over and over, each time shifted in another way.

        A step has `images_a_step` of them, `repeat` times; the last step may have fewer. Where the model has dropout, units
        are dropped, other ones each time. A gentle plan moves by little, and has no black image: at the initial weights, whose
        biases are zero, every ReLU's input would be nothing but rounding.
        """
        numbers = np.arange(offset, offset + images)
        shown = self.shown_indices[~self._is_black] if gentle else self.shown_indices
        order = shown[numbers % len(shown)]
        # of several digits, each in a way of its own
        turns = (numbers[:, None] + 7 * np.arange(self.model.overlaid)).reshape(order.shape)
        shifts = _LITTLE[turns % len(_LITTLE)] if gentle else self._shifts[turns % len(self._shifts)]
        generator = np.random.Generator(np.random.Philox(key=[images + offset, zlib.crc32(b"dropout")]))
        kept = kept_units(generator, self.model, images)
        batch = self.images_a_step * self.repeat if self.fills else self.batch
        kept = None if kept is None else self._whole(kept)
        return EpochPlan(self._whole(order.astype(np.int32)), self._whole(shifts), batch, kept)

    @cached_property
    def _is_black(self) -> np.ndarray:
        """(B,): whether there is nothing on what is shown."""
        return np.logical_not(self.shown.reshape(len(self.shown_indices), -1).any(axis=1))

    def all_shifts(self) -> EpochPlan:
        """One step of images that are lit up to their border, shifted in every way, as many as a batch has room for."""
        drawn_from = len(self.labels) - len(drawn(self.model)[1])
        lit = self.shown_indices[(self.shown_indices.reshape(len(self.shown_indices), -1) >= drawn_from + 3).all(1)]
        count = min(self.batch, len(self._shifts))
        order = lit[np.arange(count) % len(lit)] if len(lit) else self.shown_indices[:count]
        shifts = np.repeat(self._shifts[: len(order), None], self.model.overlaid, 1).reshape(*order.shape, 2)
        generator = np.random.Generator(np.random.Philox(key=[count, zlib.crc32(b"shifts")]))
        return EpochPlan(order.astype(np.int32), shifts, self.batch, kept_units(generator, self.model, len(order)))

    @cached_property
    def _shifts(self) -> np.ndarray:
        """By half an image, to the last row and column, and beyond; then every shift by little, in brief each distance once."""
        height, width = (min(side, 127) for side in self.model.image[:2])
        half_up, half_left = height // 2, width // 2
        far = [(half_up, -half_left), (-half_up, half_left), (height - 1, 0), (1 - height, 1), (0, width - 1),
               (-1, 1 - width), (0, -width), (height, 0)]  # fmt: skip
        return np.concatenate([np.array(far, np.int8), _LITTLE[:: 6 if self.brief else 1]])

    def _whole(self, examples: np.ndarray) -> np.ndarray:
        """Each step's examples `repeat` times, mixed: no two chunks of a batch have the same ones."""
        step = self.images_a_step
        mixed = (
            np.random.Generator(np.random.Philox(key=[0, zlib.crc32(b"places")])).permutation(step * self.repeat) % step
        )
        parts = (examples[first : first + step] for first in range(0, len(examples), step))
        return np.concatenate([part[mixed[mixed < len(part)]] for part in parts])

    def evaluated(self, of_several: bool) -> tuple[UInt8[np.ndarray, "N *K H W C"], Int[np.ndarray, " N *K"]]:
        """Images and labels to evaluate: those shown; `of_several` whole batches, so often that the last is incomplete."""
        count, times = len(self.shown_indices), 1
        count -= count % self.batch == 0  # of which no multiple has an incomplete batch
        if self.whole and of_several:
            times = (1 if self.brief else _BATCHES) * self.batch // count + 1
            times += times * count % self.batch == 0
        return np.concatenate([self.shown[:count]] * times), np.concatenate([self.classes[:count]] * times)
