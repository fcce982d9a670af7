"""Names for the deviations of a `Variant`: faults, in the catalogue's words if it knows them, and conventions."""

from __future__ import annotations

from dataclasses import replace

from harness.parity.diagnosis.variant import Variant
from harness.parity.faults.capsnet import FAULTS
from harness.spec import RECONSTRUCTION_WEIGHT, ModelSpec
from harness.spec.conventions import Conventions, Epsilon

_CATALOGUE = {fault.name: fault.says for fault in FAULTS}
_DIVIDED = Epsilon(0.0, "inside")  # by |s|, even where that is zero
_WORDS: dict[str, dict[object, str]] = {
    "pixels": {
        "0-255": _CATALOGUE["pixels-0-to-255"],
        "256": "pixels divided by 256 instead of 255",
        "centred": "pixels scaled to -1..1",
        "normalised": "pixels normalised by MNIST's mean and deviation",
    },
    "windows": {
        "same": _CATALOGUE["same-padding-cropped"],
        "rolled": _CATALOGUE["windows-off-by-one"],
        "flipped": _CATALOGUE["kernel-flipped"],
        "transposed": _CATALOGUE["kernel-transposed"],
    },
    "conv1_relu": {False: _CATALOGUE["conv1-without-relu"]},
    "primary_scale": {
        "after": _CATALOGUE["primary-scale-over-bias"],
        "missing": _CATALOGUE["primary-scale-forgotten"],
    },
    "primary_relu": {True: _CATALOGUE["primary-relu"]},
    "split": {
        "spatial": _CATALOGUE["spatial-grouping"],
        "spatial by types": _CATALOGUE["spatial-grouping"],
        "dimensions first": _CATALOGUE["dimensions-before-types"],
    },
    "order": {
        "types first": _CATALOGUE["channels-first-order"],
        "columns first": "primary capsules counted column by column",
        "types and columns first": "primary capsules counted channels first, column by column",
    },
    "softmax": {
        "inputs": _CATALOGUE["softmax-over-inputs"],
        "images": "the softmax over the images of the batch, as an implicit axis may be",
        "single": "the softmax over an axis of size one: every coupling coefficient is 1",
    },
    "shared": {
        "mean": _CATALOGUE["shared-logits"],
        "sum": "routing logits summed over all images of the batch",
    },
    "agreement": {
        "s": _CATALOGUE["agreement-with-input"],
        "mean": "the agreement averaged over the dimensions instead of summed",
    },
    "logits": {"replaced": _CATALOGUE["logits-replaced"]},
    "iterations": {
        "fewer": _CATALOGUE["one-iteration-fewer"],
        "more": _CATALOGUE["one-iteration-more"],
        "first": _CATALOGUE["early-return"],
    },
    "digit_bias": {
        "last": _CATALOGUE["digit-bias-last-iteration"],
        "missing": "output capsules without their bias",
    },
    "flattened": {"dimensions first": _CATALOGUE["decoder-input-transposed"]},
    "hidden": {"linear": "a decoder without ReLU between its layers"},
    "pixel_output": {
        "linear": _CATALOGUE["sigmoid-missing"],
        "relu": "a decoder with a ReLU in the place of its sigmoid",
        "tanh": "a decoder with a tanh in the place of its sigmoid",
    },
    "pixel_order": {"columns": _CATALOGUE["pixels-transposed"]},
    "margin_lambda": {
        1.0: _CATALOGUE["lambda-dropped"],
        "present": "a margin loss with lambda at the class that is there instead of the others",
    },
    "margins": {"swapped": _CATALOGUE["margins-swapped"]},
    "margin_power": {1: _CATALOGUE["margin-not-squared"]},
    "margin_terms": {
        "present": "a margin loss without the term of the absent classes",
        "absent": "a margin loss without the term of the class that is there",
        "unclipped": "margins that are not cut off at zero",
    },
    "reconstruction_power": {1: "a reconstruction loss of absolute errors instead of squared ones"},
    "detached": {
        "all": _CATALOGUE["detached-iterations"],
        "votes": "an agreement whose votes are detached",
        "capsules": "an agreement whose output capsules are detached",
    },
    "reconstruction_detached": {True: _CATALOGUE["reconstruction-detached"]},
}
_FORMULAS = {
    "none": "no squash",
    "unit": _CATALOGUE["squash-to-unit-length"],
    "half": "a squash with 0.5 + |s|^2 for 1 + |s|^2",
    "norm": "a squash with |s| for |s|^2",
    "factor": "a squash that does not divide s by its length",
    "exponential": "a squash with 1 - exp(-|s|) for |s|^2 / (1 + |s|^2)",
}
_AXES = {
    "capsules": _CATALOGUE["squash-wrong-axis"],
    "single": "a squash along an axis of size one, of every number by itself",
    "images": "a squash over the images of the batch instead of the capsules' dimensions",
}


def faults_of(variant: Variant, model: ModelSpec) -> tuple[str, ...]:
    """A variant's faults, each completing "looks like ...", in the order of the forward pass."""
    plain = [_WORDS[name][getattr(variant, name)] for name in variant.changed() if name in _WORDS]
    before = {*_WORDS["pixels"].values(), *_WORDS["windows"].values(), *_WORDS["conv1_relu"].values()}
    before |= {
        phrase for name in ("primary_scale", "primary_relu", "split", "order") for phrase in _WORDS[name].values()
    }
    first = [phrase for phrase in plain if phrase in before]
    rest = [phrase for phrase in plain if phrase not in before]
    return (*first, *_squashes(variant), *rest, *_several(variant, model))


def _squashes(variant: Variant) -> list[str]:
    """Faults of both squashes, or of one of them."""
    says = list[str]()
    for words, primary, digit, default in (
        (_FORMULAS, variant.primary_squash, variant.digit_squash, "paper"),
        (_AXES, variant.primary_axis, variant.digit_axis, "dimensions"),
    ):
        if primary == digit:
            says += [words[primary]] if primary != default else []
            continue
        if primary == "none":
            says.append(_CATALOGUE["primary-not-squashed"])
        elif primary != default:
            says.append(f"{words[primary]} (primary capsules alone)")
        if digit != default:
            says.append(f"{words[digit]}" + ("" if primary == "none" else " (output capsules alone)"))
    if variant.squash_epsilon == _DIVIDED:
        says.append(_CATALOGUE["squash-without-epsilon"])
    return says


def _several(variant: Variant, model: ModelSpec) -> list[str]:
    """Faults that concern two fields at once: lengths and scores, both masks, both losses."""
    says = list[str]()
    if variant.length_epsilon == _DIVIDED:
        says.append(_CATALOGUE["length-without-epsilon"])
    says += _both(
        variant.lengths,
        variant.scores,
        "norm",
        {"softmax": "a softmax over the lengths", "square": "squared lengths"},
        ("among the outputs alone", "in the margin loss alone"),
    )
    every = _CATALOGUE["mask-missing"]
    if variant.mask == variant.training_mask == "none":
        says.append(every)
    else:
        says += [f"{every}, without labels alone"] if variant.mask == "none" else []
        says += [f"{every}, in training alone"] if variant.training_mask == "none" else []
    if variant.training_mask == "longest" or variant.mask == variant.training_mask == "relative":
        says.append(_CATALOGUE["mask-by-longest-in-training"])
    if "relative" in (variant.mask, variant.training_mask):
        relative = "a mask by the longest capsule after a softmax over the images of the batch"
        says.append(relative if variant.mask == "relative" else f"{relative}, in training alone")
    says += _margin_scale(variant, model)
    weight, mean = variant.reconstruction_weight, variant.reconstruction_pixels == "mean"
    made_up = mean and abs(weight / RECONSTRUCTION_WEIGHT / model.pixels - 1) < 1e-3
    if made_up:
        says.append(f"a reconstruction loss averaged over the pixels, and its weight {weight:.3g} to make up for it")
    elif mean:
        says.append(_CATALOGUE["reconstruction-mean"])
    if not made_up and weight != RECONSTRUCTION_WEIGHT:
        dropped = abs(weight - 1) < 1e-3
        says.append(
            _CATALOGUE["reconstruction-weight-dropped"]
            if dropped
            else "a loss without the reconstruction's"
            if not weight
            else f"a reconstruction loss of weight {weight:.4g} instead of {RECONSTRUCTION_WEIGHT}"
        )
    images = variant.margin_images, variant.reconstruction_images
    if images[0] == "sum" and (images[1] == "sum" or not model.decoder):
        says.append(_CATALOGUE["sum-over-images"])
    elif "sum" in images:
        says.append(f"a {'margin' if images[0] == 'sum' else 'reconstruction'} loss summed over the images")
    return says


def _margin_scale(variant: Variant, model: ModelSpec) -> list[str]:
    official = model.margin_scale != 1
    return {
        "mean": [_CATALOGUE["margin-mean-over-classes"] + (", and not halved" if official else "")],
        "sum": [_CATALOGUE["margin-scale-forgotten"]],
        "half mean": ["a margin loss that is halved and averaged over the classes"],
    }.get(variant.margin_classes, [])


def _both(first: str, second: str, default: str, words: dict[str, str], alone: tuple[str, str]) -> list[str]:
    if first == second:
        return [words[first]] if first != default else []
    return [f"{words[each]} {where}" for each, where in zip((first, second), alone, strict=True) if each != default]


def conventions_of(variant: Variant) -> Conventions:
    """Its epsilons, if they are no fault."""
    default = Conventions()
    squash, length = variant.squash_epsilon, variant.length_epsilon
    return replace(
        default,
        squash_epsilon=default.squash_epsilon if squash == _DIVIDED else squash,
        length_epsilon=default.length_epsilon if length == _DIVIDED else length,
    )
