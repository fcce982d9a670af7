"""Predictions: pictures in batches through an implementation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int, UInt8

from harness import models, registry
from harness.errors import UserError, starved
from harness.prediction.fitting import Fit, border, fitted
from harness.prediction.pictures import Item, Unreadable
from harness.prediction.trained import Trained, real_images
from harness.spec import ModelSpec, OptimSpec, Runtime

BATCH = 64
_KNOWN = 256  # images of the data set to compare backgrounds with
_FAR = 80  # levels of 255: farther from every background of the data set, a picture looks inverted


@dataclass(frozen=True)
class Prediction:
    """One picture: what the network saw, and what it says of it."""

    name: str
    classes: Int[np.ndarray, " K"]  # the K highest scores, highest first
    scores: Float[np.ndarray, " J"]
    pixels: UInt8[np.ndarray, "H W C"]
    notes: tuple[str, ...]  # how the picture was fitted
    reconstruction: Float[np.ndarray, "K H W C"] | None  # from the capsules of `classes`

    def without_pictures(self) -> Prediction:
        """Without pixels and reconstruction: of many thousands, only scores are kept."""
        return replace(self, pixels=self.pixels[:0], reconstruction=None)


@dataclass(frozen=True)
class Problem:
    """A picture that could not be read."""

    name: str
    why: str


def score_name(model: ModelSpec) -> str:
    """What a score is: "capsule length" or "probability"."""
    return "capsule length" if models.of(model).has_capsules else "probability"


def score_meaning(model: ModelSpec) -> str:
    """The same in a sentence."""
    if models.of(model).has_capsules:
        return (
            "capsule length: how long the output capsule of a class is, 0 to 1. Each says on its own whether its class "
            "is in the picture; they do not add up to 1. Normalised: divided by their sum"
        )
    if model.overlaid > 1:
        return "probability of each class on its own (sigmoid); they do not add up to 1"
    return "probability of each class (softmax); they add up to 1"


class Predictor:
    """An implementation with the trained weights, on the CPU. Raises `UserError` if it cannot be loaded."""

    def __init__(self, trained: Trained, entry: registry.Entry, threads: int) -> None:
        self.model, self.framing = trained.model, trained.framing
        # On a CPU, only the specification computes as TF32 does; the others would refuse.
        tf32 = trained.precision == "tf32" and not entry.any_precision
        self.precision = "fp32" if tf32 else trained.precision
        runtime = Runtime.model_validate({"precision": self.precision, "threads": threads})
        self._name, self._out_of_memory = entry.name, entry.out_of_memory
        self._net = registry.load(entry, adapter=True)(self.model, OptimSpec(), runtime)
        self._net.load(trained.weights)

    def __call__(
        self, pixels: UInt8[np.ndarray, "B H W C"], size: int
    ) -> tuple[Float[np.ndarray, "B J"], Int[np.ndarray, "B K"], Float[np.ndarray, "B K H W C"] | None]:
        """Scores, the classes of the K highest, and reconstructions. Always computed in batches of `size`.

        A picture is the first of a model's K overlaid digits, and the others are black: the network sees their sum.
        """
        count, model = len(pixels), self.model
        images = np.zeros((size, *model.several, *model.image), np.uint8)
        (images if model.overlaid == 1 else images[:, 0])[:count] = pixels
        try:
            outputs = self._net.forward(images)
        except Exception as error:  # whatever an implementation raises
            hint = f"; not enough memory: a smaller --batch than {size}" if starved(error, self._out_of_memory) else ""
            said = " ".join(str(error).split())[:300]
            raise UserError(f"{self._name} cannot compute predictions: {type(error).__name__}: {said}{hint}") from error
        scores = np.asarray(outputs.lengths)[:count]
        classes = np.argsort(-scores, axis=1, kind="stable")[:, : model.overlaid]
        decoded = outputs.reconstruction
        if decoded is not None:
            decoded = np.asarray(decoded)[:count].reshape(count, model.overlaid, *model.image)
        return scores, classes, decoded


def predictions(
    predictor: Predictor, items: Sequence[Item], fit: Fit | None, invert: bool, batch: int = BATCH
) -> Iterator[Prediction | Problem]:
    """A prediction or a problem for each of `items`, in their order. Raises `UserError` if the implementation fails."""
    size = min(batch, len(items))
    for start in range(0, len(items), max(1, size)):
        chunk = items[start : start + size]
        rows: list[Problem | tuple[str, np.ndarray, tuple[str, ...]]] = []
        for item in chunk:
            try:
                rows.append((item.name, *fitted(item.read(), predictor.model.image, fit, invert, predictor.framing)))
            except Unreadable as error:
                rows.append(Problem(item.name, str(error)))
        readable = [row for row in rows if not isinstance(row, Problem)]
        found = iter(_said(predictor, readable, size) if readable else ())
        yield from (row if isinstance(row, Problem) else next(found) for row in rows)


def _said(
    predictor: Predictor, rows: Sequence[tuple[str, np.ndarray, tuple[str, ...]]], size: int
) -> Iterator[Prediction]:
    scores, classes, decoded = predictor(np.stack([pixels for _, pixels, _ in rows]), size)
    for index, (name, pixels, notes) in enumerate(rows):
        drawn = None if decoded is None else decoded[index]
        yield Prediction(name, classes[index], scores[index], pixels, notes, drawn)


class Seen:
    """What the pictures look like: a white sheet is not the black of MNIST, and an empty picture shows nothing."""

    def __init__(self) -> None:
        self._backgrounds: list[float] = []
        self._blank = 0

    def see(self, pixels: UInt8[np.ndarray, "H W C"]) -> None:
        self._backgrounds.append(float(border(pixels).mean()))
        self._blank += bool(pixels.min() == pixels.max())

    def doubts(self, trained: Trained, inverted: bool) -> list[str]:
        """Warnings if pictures are blank, or look inverted beside the images that the model was trained for."""
        blank = f"{self._blank} of {len(self._backgrounds)} pictures are a single colour: nothing is in them"
        found = self._background(trained, "leave out --invert" if inverted else "try --invert")
        return [*([blank] if self._blank else []), *([found] if found else [])]

    def _background(self, trained: Trained, option: str) -> str | None:
        seen, known = np.array(self._backgrounds), real_images(trained.model, trained.data, _KNOWN)
        if known is None:
            if trained.model.image[2] == 3 or not (count := int((seen > 127).sum())):
                return None
            return (
                f"{count} of {len(seen)} pictures have a light background; whether the model was trained on such is not "
                f"known, for its data are not here. If on light digits on black, as MNIST's: {option}"
            )
        own = np.array([float(border(each).mean()) for each in known[0]])
        low, high = np.percentile(own, [2, 98])
        far = (seen < low - _FAR) | (seen > high + _FAR)
        if not far.any():
            return None
        lightness = "light" if seen[far].mean() > own.mean() else "dark"
        return (
            f"{int(far.sum())} of {len(seen)} pictures have a {lightness} background (level {np.median(seen[far]):.0f} of "
            f"255), where the images of {known[1].partition(',')[0]} have {low:.0f} to {high:.0f}: what is predicted for "
            f"them means little; {option}"
        )
