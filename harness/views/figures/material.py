"""What the figures of one trial are made from: events, predictions, weights, and activations from the specification."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int, UInt8

from harness import data, models
from harness.data.base import Dataset, Split, order
from harness.errors import UserError
from harness.events import ResultEvent
from harness.journal.journal import Journal
from harness.journal.results import named_files, summarise
from harness.parity.specification import CHUNK, Inspectable, specification
from harness.spec import is_right
from harness.spec.trial import DataConfig
from harness.weights.whole import read_predictions, read_weights, recorded

SAMPLE = 256  # test images whose activations are computed; takes seconds for the paper's model
EXAMPLES = 10  # images of each kind that are shown


class LeftOut(Exception):
    """Why a figure is not drawn: it makes no sense for the trial or, if `lacking`, the data for it is missing."""

    def __init__(self, reason: str, *, lacking: bool = True) -> None:
        super().__init__(reason)
        self.lacking = lacking


@dataclass(frozen=True)
class Sample:
    """N test images as the specification computes them, over r routing iterations."""

    labels: Int[np.ndarray, " N *K"]
    lengths: Float[np.ndarray, "N J"]
    entropies: Float[np.ndarray, "r N I"]
    """-sum_j c_ij ln c_ij of each primary capsule's coupling coefficients, in nats: ln J if they are uniform."""


@dataclass(frozen=True)
class Examples:
    """Images to show, with their predicted classes and output capsules."""

    images: UInt8[np.ndarray, "N *K H W C"]
    labels: Int[np.ndarray, " N *K"]
    predicted: Int[np.ndarray, " N *K"]
    digit: Float[np.ndarray, "N J D"]

    def __len__(self) -> int:
        return len(self.labels)


class Material:
    """One trial's material. Each piece is made on first use; a missing one raises `LeftOut`.

    Args:
        dataset: a trial's data section -> its images; raises `UserError`.
    """

    def __init__(self, journal: Journal, trial_id: str, dataset: Callable[[DataConfig], Dataset]) -> None:
        self._folder = journal.trial_dir(trial_id)
        self._dataset = dataset
        self.trial = journal.trial(trial_id)
        events = journal.events(trial_id)
        self.result = summarise(self.trial, events)
        self._named = named_files(events)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The classes' names, by class: their numbers if nothing says more."""
        count = self.trial.model.classes
        try:
            names = data.class_names(self.trial.data)
        except UserError:  # a data set that is not installed here
            names = ()
        return names if len(names) == count else tuple(map(str, range(count)))

    @cached_property
    def test(self) -> Split:
        """The test images."""
        try:
            dataset = self._dataset(self.trial.data)
        except UserError as error:
            raise LeftOut(str(error)) from error
        if self.result.data_sha256 not in (None, dataset.sha256):
            raise LeftOut(f"the images of {self.trial.data.name} are not those that the trial had (another SHA-256)")
        return dataset.test

    @cached_property
    def predictions(self) -> tuple[Int[np.ndarray, " N *K"], Int[np.ndarray, " N *K"]]:
        """The trained model's predictions for all N test images, and their labels. Raises `Damaged`."""
        path = self._folder / "predictions.safetensors"
        named = self._named.get(path.name)
        if not path.exists() or not isinstance(named, ResultEvent):
            raise LeftOut(
                f"the run holds no predictions of this trial ({path.name}): it was made by an older capsbench"
            )
        return read_predictions(path, self.trial, named)

    @cached_property
    def net(self) -> Inspectable:
        """The specification with the trial's weights, in its precision. Raises `Damaged`."""
        trial, path = self.trial, self._folder / "weights.safetensors"
        if not models.of(trial.model).has_capsules:
            raise LeftOut(f"a model of kind {trial.model.kind} has no capsules", lacking=False)
        if self.result.parity_ok is False:
            raise LeftOut("its parity failed: the specification with these weights is another network", lacking=False)
        if self.result.flaw:
            raise LeftOut("its audit failed: it is not known what these weights are", lacking=False)
        if not path.exists() or path.name not in self._named:
            raise LeftOut(f"the run holds no weights of this trial ({path.name})")
        weights = read_weights(path, trial, recorded(self._named[path.name], path.name))
        return specification(trial.model, weights, trial.runtime.precision)

    def read(self) -> None:
        """Reads the files that exist, before anything is drawn. Raises `Damaged`."""
        for name in ("predictions", "net"):
            with suppress(LeftOut):
                getattr(self, name)

    @cached_property
    def decoding(self) -> Inspectable:
        """Like `net`, but only if the model has a decoder."""
        net = self.net
        if not models.of(self.trial.model).has_decoder(self.trial.model):
            raise LeftOut("the model has no decoder", lacking=False)
        return net

    @property
    def leaks(self) -> bool:
        """Whether couplings leave a share to "none of the above"."""
        return models.of(self.trial.model).has_capsules and getattr(self.trial.model, "none_of_the_above", False)

    @cached_property
    def sample(self) -> Sample:
        """`SAMPLE` test images drawn by one fixed permutation, or all if there are fewer."""
        net, test = self.net, self.test
        chosen = test.take(np.sort(order(len(test))[:SAMPLE]))
        lengths: list[np.ndarray] = []
        entropies: list[np.ndarray] = []
        for start in range(0, len(chosen), CHUNK):
            steps = net.routing_steps(chosen.images[start : start + CHUNK])
            lengths.append(np.linalg.norm(steps[-1][1], axis=-1))
            entropies.append(np.stack([_entropy(coupling, self.leaks) for coupling, _, _ in steps]))
        return Sample(chosen.labels, np.concatenate(lengths), np.concatenate(entropies, axis=1))

    @cached_property
    def right(self) -> Examples:
        """The first correctly classified test image of each of the first `EXAMPLES` classes (by the first digit)."""
        labels, predicted = self._said
        right, firsts = is_right(predicted, labels), labels.reshape(len(labels), -1)[:, 0]
        shown = [np.flatnonzero(right & (firsts == each))[:1] for each in np.unique(firsts)[:EXAMPLES]]
        return self._examples(np.concatenate(shown))

    @cached_property
    def wrong(self) -> Examples:
        """The first `EXAMPLES` misclassified test images; there may be fewer, or none."""
        labels, predicted = self._said
        return self._examples(np.flatnonzero(~is_right(predicted, labels))[:EXAMPLES])

    @cached_property
    def _said(self) -> tuple[Int[np.ndarray, " N *K"], Int[np.ndarray, " N *K"]]:
        """Labels and predictions of the first N test images: all, or `SAMPLE` predicted now if none were recorded."""
        try:
            predicted, labels = self.predictions
            return labels, predicted
        except LeftOut:
            seen = self.test.take(np.arange(min(SAMPLE, len(self.test))))
            return seen.labels, self._digit(seen.images)[1]

    def _digit(self, images: np.ndarray) -> tuple[Float[np.ndarray, "N J D"], Int[np.ndarray, " N *K"]]:
        """The output capsules, and which of them are the longest."""
        net, model = self.net, self.trial.model
        chunks = [np.zeros((0, model.classes, model.digit_dim))]
        chunks += [net.routing_steps(images[start : start + CHUNK])[-1][1] for start in range(0, len(images), CHUNK)]
        digit = np.concatenate(chunks)
        longest = np.argsort(-np.linalg.norm(digit, axis=-1), axis=1, kind="stable")[:, : model.overlaid]
        return digit, longest.reshape(-1, *model.several)

    def _examples(self, indices: Int[np.ndarray, " N"]) -> Examples:
        labels, predicted = self._said
        images = self.test.images[indices]
        return Examples(images, labels[indices], predicted[indices], self._digit(images)[0])


def _entropy(coupling: Float[np.ndarray, "B I J"], leaks: bool) -> Float[np.ndarray, "B I"]:
    """In nats; a coefficient of zero adds nothing. With `leaks`, what is missing of one is a coefficient too."""
    c = coupling.astype(np.float64)
    if leaks:
        c = np.concatenate([c, (1 - c.sum(-1, keepdims=True)).clip(min=0)], axis=-1)
    return -(c * np.log(np.where(c > 0, c, 1.0))).sum(-1)
