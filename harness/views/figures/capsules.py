"""What the output capsules hold and how routing fills them, computed by the specification with the trial's weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from harness.parity.specification import Inspectable
from harness.spec import MARGIN_MINUS, MARGIN_PLUS
from harness.views.figures.material import Examples, LeftOut, Material
from harness.views.figures.overlaid import draw_overlaid
from harness.views.figures.style import TEST, TRAIN, VALIDATION, new_figure, plain, save, short, show_mosaic

STEPS = np.arange(-5, 6) * 0.05
"""How far section 5.1 moves one dimension of a capsule at a time: from -0.25 to 0.25, with exactly 0 in the middle."""


_MOST_INCHES = 64.0


def perturbed(net: Inspectable, digit: Float[np.ndarray, "J D"], label: int) -> Float[np.ndarray, "D 11 H W C"]:
    """The decoder's images for the capsule of class `label`, with each of its D dimensions moved by each of `STEPS`."""
    dims = digit.shape[1]
    moved = np.broadcast_to(digit, (dims, len(STEPS), *digit.shape)).copy()
    for dim in range(dims):
        moved[dim, :, label, dim] += STEPS
    flat = moved.reshape(-1, *digit.shape)
    decoded = net.decode(flat, np.full(len(flat), label))
    return decoded.reshape(dims, len(STEPS), *decoded.shape[1:])


def draw_perturbations(material: Material, folder: Path) -> list[Path]:
    """perturbations.png: the paper's Fig. 4 in full. One grid per class, one row per dimension, one column per step."""
    net, shown = material.decoding, material.right
    if not len(shown):
        raise LeftOut("no test image is rightly classified")
    # the first, if there are several digits
    labels: list[int] = shown.labels.reshape(len(shown), -1)[:, 0].tolist()
    grids = [perturbed(net, digit, label) for digit, label in zip(shown.digit, labels, strict=True)]
    across = min(5, len(grids))
    down = math.ceil(len(grids) / across)
    dims, _, height, width, _ = grids[0].shape
    # at least one pixel in the file for each pixel of an image, unless the images are large
    wide, high = across * (len(STEPS) * (width + 2) / 100 + 0.35), down * (dims * (height + 2) / 100 + 0.6) + 0.6
    within = min(1.0, _MOST_INCHES / max(wide, high))  # larger pictures than that no longer open
    inches = (wide * within, high * within)
    title = "each dimension of the output capsule of a test image of its class, moved by -0.25 ... 0.25, decoded"
    figure = new_figure(material, title, inches, dpi=125)
    axes = figure.subplots(down, across, squeeze=False)
    columns = [
        f"{step:+.2f}" if index in (0, len(STEPS) - 1) else "0" if index == 5 else ""
        for index, step in enumerate(STEPS)
    ]
    for index, axis in enumerate(axes.flat):
        if index >= len(grids):
            axis.axis("off")
            continue
        show_mosaic(axis, grids[index], [str(dim + 1) for dim in range(dims)], columns)
        axis.set_title(f"class {short(material.names[labels[index]])}", fontsize=10)
    for axis in axes[:, 0]:
        axis.set_ylabel("dimension")
    return [save(figure, folder / "perturbations.png")]


def draw_reconstructions(material: Material, folder: Path) -> list[Path]:
    """reconstructions.png: test images above their reconstructions, for right and for wrong predictions.

    The decoder sees the capsule of the predicted class. For wrong predictions another row shows the true class too.
    """
    if material.trial.model.overlaid > 1:
        return draw_overlaid(material, folder)
    net, right, wrong = material.decoding, material.right, material.wrong
    blocks = [(right, ["image", "reconstructed"], "rightly classified")] if len(right) else []
    if len(wrong):
        blocks.append((wrong, ["image", "from the\npredicted class", "from the\ntrue class"], "wrongly classified"))
    if not blocks:
        raise LeftOut("there are no test images to show")
    lines = [len(rows) for _, rows, _ in blocks]
    title = "test images and their reconstructions" + ("" if len(wrong) else " (none is wrongly classified)")
    figure = new_figure(material, title, (10.5, 0.9 + 0.97 * sum(lines) + 0.5 * len(blocks)))
    axes = figure.subplots(len(blocks), 1, squeeze=False, height_ratios=lines)[:, 0]
    across = max(len(shown) for shown, _, _ in blocks)
    for axis, (shown, rows, heading) in zip(axes, blocks, strict=True):
        tiles = _beside(net, shown, len(rows))
        blank = [(0, 0), (0, across - len(shown)), *[(0, 0)] * 3]  # so that all images have the same size
        show_mosaic(axis, np.pad(tiles, blank, constant_values=1.0), rows, _captions(shown, material.names))
        axis.set_title(heading, fontsize=10, loc="left")
    return [save(figure, folder / "reconstructions.png")]


def _beside(net: Inspectable, shown: Examples, rows: int) -> Float[np.ndarray, "R N H W C"]:
    decoded = [net.decode(shown.digit, classes) for classes in (shown.predicted, shown.labels)]
    return np.stack([shown.images / 255, *decoded])[:rows]


def _captions(shown: Examples, names: Sequence[str]) -> list[str]:
    def name(label: int) -> str:
        return short(names[label], 9)

    return [
        name(label) if label == said else f"true {name(label)}\npredicted {name(said)}"
        for label, said in zip(shown.labels, shown.predicted, strict=True)
    ]


def draw_lengths(material: Material, folder: Path) -> list[Path]:
    """lengths.png: the lengths of the output capsules, for the true class and for all others."""
    sample = material.sample
    is_true = np.zeros(sample.lengths.shape, bool)
    np.put_along_axis(is_true, sample.labels.reshape(len(sample.labels), -1), True, axis=1)
    figure = new_figure(material, f"lengths of the output capsules of {len(sample.labels):,} test images", (8, 4.4))
    axis = plain(figure.subplots())
    bins = np.linspace(0, 1, 41)
    true = "the true class" if material.trial.model.overlaid == 1 else "the true classes"
    for chosen, label, color in ((~is_true, "the other classes", VALIDATION), (is_true, true, TRAIN)):
        lengths = sample.lengths[chosen]
        share = np.full(len(lengths), 100 / max(1, len(lengths)))
        axis.hist(lengths, bins, weights=share, color=color, alpha=0.6, label=f"{label}: mean {lengths.mean():.3f}")
    for bound, name in ((MARGIN_MINUS, "m-"), (MARGIN_PLUS, "m+")):
        axis.axvline(bound, color=TEST, lw=1, ls="--")
        axis.annotate(
            f"{name} = {bound}",
            (bound, 1),
            (3, -2),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            va="top",
            fontsize=9,
        )
    axis.set_xlim(0, 1)
    axis.set_xlabel("length of a capsule: the probability of its class")
    axis.set_ylabel("share of these capsules (%)")
    axis.legend(frameon=False, loc="upper center")
    return [save(figure, folder / "lengths.png")]


def draw_entropy(material: Material, folder: Path) -> list[Path]:
    """entropy.png: how undecided the coupling coefficients are in each routing iteration."""
    entropies = material.sample.entropies
    iterations, images, capsules = entropies.shape
    categories = material.trial.model.classes + material.leaks
    title = f"entropy of the coupling coefficients: {capsules:,} primary capsules, {images:,} test images"
    figure = new_figure(material, title, (7.5, 4.4))
    axis = plain(figure.subplots())
    numbers = range(1, iterations + 1)
    flat = entropies.reshape(iterations, -1)
    low, high = np.percentile(flat, [10, 90], axis=1)
    means, most = flat.mean(1), math.log(categories)
    axis.fill_between(numbers, low, high, color=TRAIN, alpha=0.2, lw=0, label="10% to 90% of the primary capsules")
    axis.plot(numbers, means, marker="o", color=TRAIN, label="mean")
    for number, mean in zip(numbers, means, strict=True):
        axis.annotate(f"{mean:.4f}", (number, mean), (0, -14), textcoords="offset points", ha="center", fontsize=9)
    axis.axhline(most, color=TEST, lw=1, ls="--", label=f"even couplings: ln {categories} = {most:.4f}")
    span = max(most - min(low.min(), means.min()), 1e-3)  # the change can be small, so the axis need not start at zero
    axis.set_ylim(max(0.0, most - 1.8 * span), most + 0.15 * span)
    axis.ticklabel_format(axis="y", useOffset=False)
    axis.set_xticks(numbers)
    axis.set_xlim(0.6, iterations + 0.4)
    axis.set_xlabel("routing iteration")
    axis.set_ylabel("entropy (nats)")
    axis.legend(frameon=False, loc="lower left")
    return [save(figure, folder / "entropy.png")]
