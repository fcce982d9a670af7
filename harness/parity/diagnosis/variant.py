"""A CapsNet with a field for every choice that real code makes differently; the defaults are the specification.

`harness.parity.diagnosis.words` names each deviation; `harness.parity.diagnosis.variant_net` computes it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from harness.spec.conventions import NO_EPSILON, Conventions, Epsilon

CHOICES: dict[str, tuple[Any, ...]] = {
    # up to the primary capsules
    "pixels": ("0-255", "256", "centred", "normalised"),
    "windows": ("same", "rolled", "flipped", "transposed"),
    "conv1_relu": (False,),
    "primary_scale": ("after", "missing"),
    "primary_relu": (True,),
    "split": ("spatial", "spatial by types", "dimensions first"),
    "order": ("types first", "columns first", "types and columns first"),
    "primary_squash": ("none", "unit", "half", "norm", "factor", "exponential"),
    "primary_axis": ("capsules", "single", "images"),
    # routing
    "softmax": ("inputs", "images", "single"),
    "shared": ("mean", "sum"),
    "agreement": ("s", "mean"),
    "logits": ("replaced",),
    "iterations": ("fewer", "more", "first"),
    "digit_squash": ("unit", "half", "norm", "factor", "exponential"),
    "digit_axis": ("capsules", "single", "images"),
    "digit_bias": ("last", "missing"),
    # lengths and decoder
    "lengths": ("softmax", "square"),
    "scores": ("softmax", "square"),
    "mask": ("relative", "none"),
    "training_mask": ("longest", "relative", "none"),
    "flattened": ("dimensions first",),
    "hidden": ("linear",),
    "pixel_output": ("linear", "relu", "tanh"),
    "pixel_order": ("columns",),
    # losses
    "margin_lambda": (1.0, "present"),
    "margins": ("swapped",),
    "margin_power": (1,),
    "margin_terms": ("present", "absent", "unclipped"),
    "margin_classes": ("mean", "sum", "half mean"),
    "margin_images": ("sum",),
    "reconstruction_pixels": ("mean",),
    "reconstruction_images": ("sum",),
    "reconstruction_power": (1,),
    # gradients
    "detached": ("all", "votes", "capsules"),
    "reconstruction_detached": (True,),
}
"""Field -> its possible values other than the default."""

EPSILON_VALUES = tuple(float(f"1e-{exponent}") for exponent in range(3, 17))
SQUASH_EPSILONS = (
    Epsilon(0.0, "inside"),
    NO_EPSILON,
    *(Epsilon(value, place) for value in EPSILON_VALUES for place in ("inside", "outside", "product", "square")),
)
LENGTH_EPSILONS = (
    NO_EPSILON,
    *(Epsilon(value, place) for value in EPSILON_VALUES for place in ("inside", "outside")),
)

_EPSILON = Epsilon()


@dataclass(frozen=True)
class Variant:
    """One network. Fields are in the order of the forward pass; `CHOICES` has their possible values."""

    pixels: str = "0-1"
    windows: str = "valid"  # of both convolutions; "same" is cropped to the size of VALID
    conv1_relu: bool = True
    primary_scale: str = "before"  # the bias is added; of profile official
    primary_relu: bool = False
    split: str = "types first"  # how type and dimension make a channel's number; "spatial": neither does
    order: str = "places first"  # how capsules are counted: row, column, type
    primary_squash: str = "paper"
    primary_axis: str = "dimensions"
    squash_epsilon: Epsilon = _EPSILON
    softmax: str = "outputs"
    shared: str = "no"  # logits, among all images of a batch
    agreement: str = "v"  # what u_hat is multiplied with
    logits: str = "added to"
    iterations: str = "as asked"
    digit_squash: str = "paper"
    digit_axis: str = "dimensions"
    digit_bias: str = "every"  # iteration; of profile official
    lengths: str = "norm"  # as they are returned
    scores: str = "norm"  # the lengths in the margin loss
    length_epsilon: Epsilon = _EPSILON
    mask: str = "longest"  # what the decoder sees without labels; "relative": to the batch's other images
    training_mask: str = "label"
    flattened: str = "capsules first"
    hidden: str = "relu"
    pixel_output: str = "sigmoid"
    pixel_order: str = "rows"
    margin_lambda: float | str = 0.5  # "present": it multiplies the other term
    margins: str = "as in Eq. 4"
    margin_power: int = 2
    margin_terms: str = "both"
    margin_classes: str = "as specified"
    margin_images: str = "mean"
    reconstruction_pixels: str = "sum"
    reconstruction_images: str = "mean"
    reconstruction_power: int = 2
    reconstruction_weight: float = 0.0005
    detached: str = "no"  # iterations before the last: all of it, or only u_hat, or only v in the agreement
    reconstruction_detached: bool = False

    def changed(self, base: Variant | None = None) -> tuple[str, ...]:
        """The names of the fields that differ from the base's, by default the specification's."""
        base = base or SPECIFIED
        return tuple(field.name for field in fields(self) if getattr(self, field.name) != getattr(base, field.name))

    def without(self, name: str, base: Variant | None = None) -> Variant:
        """The same variant with one field as in the base."""
        changes: dict[str, Any] = {name: getattr(base or SPECIFIED, name)}
        return replace(self, **changes)


SPECIFIED = Variant()


def specified(conventions: Conventions) -> Variant:
    """The specification with its accepted conventions."""
    return replace(SPECIFIED, squash_epsilon=conventions.squash_epsilon, length_epsilon=conventions.length_epsilon)


def subsets(base: Variant, options: Mapping[str, Sequence[Any]], size: int) -> Iterator[Variant]:
    """All variants that differ from the base in `size` of the options."""
    for names in itertools.combinations(options, size):
        for values in itertools.product(*(options[name] for name in names)):
            if all(getattr(base, name) != value for name, value in zip(names, values, strict=True)):
                variant = replace(base, **dict(zip(names, values, strict=True)))
                if not _cancels(variant):
                    yield variant


def _cancels(variant: Variant) -> bool:
    """Whether one choice hides another, so that unlikely pairs of choices would look alike."""
    spatial = variant.split.startswith("spatial") and variant.order != Variant().order
    return spatial or (variant.softmax in ("images", "single") and variant.shared != "no")


def options_of(
    names: Iterable[str], dead: Iterable[str] = (), defaults: Sequence[Any] = ()
) -> dict[str, Sequence[Any]]:
    """Field -> the values to try; `defaults` are values from which a base may already differ."""
    own = {name: (*CHOICES[name], *(each for each in defaults if each == getattr(Variant(), name))) for name in names}
    return {name: values for name, values in own.items() if name not in dead}
