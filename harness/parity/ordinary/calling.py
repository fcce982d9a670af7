"""How a model is called: channels first or last, with or without labels, labels as classes or one-hot."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from harness.errors import UserError
from harness.parity.ordinary.source import said
from harness.spec.network import Network, Ran

Labels = Literal["one-hot", "classes"]


@dataclass(frozen=True)
class Calling:
    """A way to call a model; `labels` is None if it takes only images."""

    channels_first: bool
    labels: Labels | None = None
    needs_labels: bool = False
    as_list: bool = False

    def pixels(self, images: np.ndarray) -> np.ndarray:
        """Pixels (B, H, W, C) in 0..1 in the model's layout."""
        return images.transpose(0, 3, 1, 2) if self.channels_first else images

    def arguments(self, images: np.ndarray, labels: np.ndarray | None, classes: int) -> list[np.ndarray]:
        """The model's arguments; if it needs labels and there are none, zeros."""
        found = [self.pixels(images)]
        if labels is None and self.needs_labels:
            labels = np.zeros(len(images), np.int64)
        if labels is not None and self.labels:
            found.append(labels.astype(np.int64) if self.labels == "classes" else np.eye(classes)[labels])
        return found

    def told(self) -> str:
        text = f"images with channels {'first' if self.channels_first else 'last'}"
        if self.labels:
            text += f", {'and' if self.needs_labels else 'and for training'} labels as {self.labels}"
        return text


def find_calling(network: Network, image: tuple[int, int, int], classes: int, batch: int) -> tuple[Calling, Ran]:
    """The first way of calling it that does not raise, and its result. Raises `UserError` with all errors if none works."""
    least, most = network.takes()
    if least > 2:
        raise UserError(
            f"--model: it takes {least} inputs; expected images, or images and labels. Name a function that returns a model "
            "with these alone"
        )
    images = np.random.default_rng(0).uniform(0, 1, (batch, *image))
    labels = np.arange(batch) % classes
    failures = list[str]()
    for channels_first in (network.channels_first, not network.channels_first):
        if least <= 1:
            plain = Calling(channels_first)
            try:
                ran = network.run(plain.arguments(images, None, classes))
            except Exception as error:
                failures.append(said(error))
            else:
                return _with_labels(network, plain, most, images, labels, classes), ran
            continue
        for kind in ("one-hot", "classes"):
            calling = Calling(channels_first, kind, True, network.takes_lists)
            try:
                return calling, network.run(calling.arguments(images, labels, classes), as_list=calling.as_list)
            except Exception as error:
                failures.append(said(error))
    raise UserError(
        f"--model: called with {batch} images of {'x'.join(map(str, image))} it raised {failures[0]}"
        + (f"; called otherwise, {failures[-1]}" if failures[-1] != failures[0] else "")
    )


def _with_labels(
    network: Network, plain: Calling, most: int, images: np.ndarray, labels: np.ndarray, classes: int
) -> Calling:
    """How labels are passed if the model takes a second input."""
    if most < 2:
        return plain
    for kind in ("one-hot", "classes"):
        calling = replace(plain, labels=kind)
        try:
            network.run(calling.arguments(images, labels, classes))
        except Exception:
            continue
        return calling
    return plain


def fits(ran: Ran, batch: int, sizes: dict[str, Any]) -> bool:
    """Whether some output's number of values per image fits the architecture."""
    wanted = {sizes["classes"], sizes["classes"] * sizes["digit_dim"]}
    shapes = [tuple(tensor.shape) for _, tensor in ran.outputs]
    return any(math.prod(shape) in {batch * each for each in wanted} for shape in shapes)
