"""A trial's epochs: curves of loss and error, the change of the routing logits, and all of it as CSV."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np

from harness import data, models
from harness.views.figures.material import LeftOut, Material
from harness.views.figures.style import TEST, TRAIN, VALIDATION, colormap, new_figure, plain, save

_WIDE = 20  # an axis is logarithmic from this ratio of largest to smallest value


def draw_epochs(material: Material, folder: Path) -> list[Path]:
    """epochs.csv: one line per epoch, one column per figure; value k of a list is in column NAME_k."""
    records = [_flat(epoch) for epoch in material.result.epochs]
    if not records:
        raise LeftOut("the run holds no epoch of this trial")
    with (folder / "epochs.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for record in records for name in record)))
        writer.writeheader()
        writer.writerows(records)
    return [folder / "epochs.csv"]


def draw_learning(material: Material, folder: Path) -> list[Path]:
    """learning.png: training and validation loss and error over the epochs, with the test result beside the last."""
    result, epochs = material.result, material.result.epochs
    if not epochs:
        raise LeftOut("the run holds no epoch of this trial")
    figure = new_figure(material, "loss and error by epoch", (10.5, 4.4))
    loss, error = (plain(axis) for axis in figure.subplots(1, 2))
    numbers = [epoch["epoch"] for epoch in epochs]
    for axis, name, test in ((loss, "loss", result.test_loss), (error, "err_pct", result.test_err_pct)):
        drawn: list[float] = []
        for part, label, color in (("train", "training", TRAIN), ("val", "validation", VALIDATION)):
            values = [epoch.get(f"{part}_{name}") for epoch in epochs]
            if any(value is not None for value in values):
                shown = [np.nan if value is None else value for value in values]
                axis.plot(numbers, shown, marker="o", ms=3.5, lw=1.4, color=color, label=label)
                drawn += [value for value in values if value is not None]
        if test is not None:
            label = f"test: {test:.4f}" if name == "loss" else f"test: {test:.2f}%"
            axis.plot(numbers[-1], test, marker="*", ms=13, ls="", color=TEST, label=label, zorder=3)
            drawn.append(test)
        _scale(axis, drawn)
        _by_epoch(axis)
        axis.legend(frameon=False)
    loss.set_ylabel(models.of(material.trial.model).loss_label(material.trial.model))
    error.set_ylabel("error (% of images)")
    return [save(figure, folder / "learning.png")]


def draw_routing_logits(material: Material, folder: Path) -> list[Path]:
    """routing_logits.png: how much each routing iteration changes the logits, during training and after it."""
    count = material.trial.measure.routing_logits
    epochs = [epoch for epoch in material.result.epochs if epoch.get("routing_logit_change")]
    if not epochs:
        reason = "nothing was measured" if count else "not asked for (measure.routing_logits in the suite)"
        raise LeftOut(reason, lacking=bool(count))
    part = "validation" if data.sizes(material.trial.data)[1] else "training"
    changes = np.array([epoch["routing_logit_change"] for epoch in epochs], float)
    title = f"mean change |b(k+1) - b(k)| of the routing logits in iteration k, over {count:,} {part} images"
    figure = new_figure(material, title, (10.5, 4.4))
    over, after = (plain(axis) for axis in figure.subplots(1, 2, sharey=True))
    iterations = changes.shape[1]
    shades = colormap("viridis")(np.linspace(0, 0.85, iterations))
    for index in range(iterations):
        over.plot(
            [epoch["epoch"] for epoch in epochs],
            changes[:, index],
            marker="o",
            ms=3.5,
            lw=1.4,
            color=shades[index],
            label=f"k = {index + 1}",
        )
    over.set_ylabel("mean change of a logit")
    _by_epoch(over)
    over.legend(frameon=False, loc="lower left", ncols=math.ceil(iterations / 3))  # usually below the curves
    after.plot(range(1, iterations + 1), changes[-1], color="0.6", lw=1.2, zorder=1)
    after.scatter(range(1, iterations + 1), changes[-1], color=shades, zorder=2)
    _scale(after, changes.ravel().tolist())  # over both
    after.set_xticks(range(1, iterations + 1))
    after.set_xlabel(f"routing iteration k, after epoch {epochs[-1]['epoch']}")
    return [save(figure, folder / "routing_logits.png")]


def _scale(axis: Any, values: list[float]) -> None:
    """Starts the axis at zero, or makes it logarithmic if the values are far apart."""
    if values and min(values) > 0 and max(values) / min(values) > _WIDE:
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter("{x:g}")
    else:
        axis.set_ylim(bottom=0)
        if values:  # points on the upper edge would be cut off
            axis.set_ylim(top=max(axis.get_ylim()[1], 1.04 * max(values)))


def _by_epoch(axis: Any) -> None:
    axis.set_xlabel("epoch")
    axis.xaxis.get_major_locator().set_params(integer=True)


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, list):
            flat |= {f"{name}_{number}": each for number, each in enumerate(value, start=1)}  # pyright: ignore
        else:
            flat[name] = value
    return flat
