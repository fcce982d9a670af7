"""Images of two overlaid digits, and the reconstruction of each digit: the paper's Fig. 5."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from harness.data.overlay import composite
from harness.parity.specification import Inspectable
from harness.views.figures.material import Examples, LeftOut, Material
from harness.views.figures.style import new_figure, save, short, show_mosaic

_COLOURS = np.array([[1.0, 0.25, 0.2], [0.2, 0.95, 0.4], [0.35, 0.5, 1.0]])  # of the first digit, the second, others
ROWS = ["image", "its digits", "reconstructed"]


def draw_overlaid(material: Material, folder: Path) -> list[Path]:
    """reconstructions.png: test images, their digits in colour, and the predicted digits as decoded.

    A digit is decoded from its own capsule alone (section 6.2). A digit that was found keeps its colour from the image.
    """
    net, right, wrong = material.decoding, material.right, material.wrong
    blocks = [
        (shown, heading)
        for shown, heading in ((right, "both digits right"), (wrong, "not both digits right"))
        if len(shown)
    ]
    if not blocks:
        raise LeftOut("there are no test images to show")
    digits = material.trial.model.overlaid
    rows = [*ROWS, *(f"digit {number}\nalone" for number in range(1, digits + 1))]
    title = "overlaid test images and the reconstruction of each digit"
    figure = new_figure(material, title, (10.5, 0.9 + (0.97 * len(rows) + 0.6) * len(blocks)))
    axes = figure.subplots(len(blocks), 1, squeeze=False)[:, 0]

    def name(classes: list[int]) -> str:
        return " + ".join(short(material.names[each], 8) for each in classes)

    across = max(len(shown) for shown, _ in blocks)
    for axis, (shown, heading) in zip(axes, blocks, strict=True):
        blank = [(0, 0), (0, across - len(shown)), *[(0, 0)] * 3]  # so that all images have the same size
        predicted = aligned(shown.labels, shown.predicted)
        show_mosaic(
            axis,
            np.pad(_tiles(net, shown, predicted), blank, constant_values=1.0),
            rows,
            [
                name(label) if set(label) == set(said) else f"true {name(label)}\npredicted {name(said)}"
                for label, said in zip(shown.labels.tolist(), predicted.tolist(), strict=True)
            ],
        )
        axis.set_title(heading, fontsize=10, loc="left")
    return [save(figure, folder / "reconstructions.png")]


def aligned(labels: Int[np.ndarray, "N K"], predicted: Int[np.ndarray, "N K"]) -> Int[np.ndarray, "N K"]:
    """The predicted classes, reordered so that each correct one is in the position of its label."""
    rows: list[list[int]] = []
    for true, said in zip(labels.tolist(), predicted.tolist(), strict=True):
        others = iter([each for each in said if each not in true])
        rows.append([each if each in said else next(others) for each in true])
    return np.array(rows, np.int64)


def _tiles(net: Inspectable, shown: Examples, predicted: Int[np.ndarray, "N K"]) -> Float[np.ndarray, "R N H W 3"]:
    decoded = np.stack([net.decode(shown.digit, classes) for classes in predicted.T], axis=1)
    single = [_grey(decoded[:, digit]) for digit in range(decoded.shape[1])]
    return np.stack([_grey(composite(shown.images) / 255), _coloured(shown.images / 255), _coloured(decoded), *single])


def _grey(images: Float[np.ndarray, "N H W C"]) -> Float[np.ndarray, "N H W 3"]:
    return np.repeat(images.mean(-1, keepdims=True), 3, axis=-1)


def _coloured(digits: Float[np.ndarray, "N K H W C"]) -> Float[np.ndarray, "N H W 3"]:
    """The sum of the digits, each in its own colour: yellow where the first two overlap."""
    colours = _COLOURS[[min(digit, len(_COLOURS) - 1) for digit in range(digits.shape[1])]]
    return (digits.mean(-1, keepdims=True) * colours[None, :, None, None, :]).sum(1).clip(0, 1)
