"""What the demo shows: a trained CapsNet, the shipped one or a trial's, and digits of its test set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from harness import models
from harness.data.base import Split
from harness.errors import UserError, nearest
from harness.prediction.trained import Trained, of_file, of_trial, test_part
from harness.weights.files import load_weights

WEIGHTS, DIGITS = (Path(__file__).with_name(name) for name in ("mnist.safetensors", "digits.safetensors"))
"""A compact CapsNet trained on MNIST, and MNIST's first three test digits of each class: see docs/demo.md."""
_EACH, _OVERLAID = 3, 24  # digits of each class; images of several digits
_LOOKED_AT = 2_000  # test images among which they are found


@dataclass(frozen=True)
class Examples:
    """Test images, each with its K digits apart."""

    images: UInt8[np.ndarray, "N K H W C"]
    labels: Int[np.ndarray, "N K"]
    said: str  # whose they are, or why there are none


def requested(words: Sequence[str], weights: str | None) -> Trained:
    """The model of `demo`, `demo RUN TRIAL` or `demo --weights FILE`. Raises `UserError` for one that cannot be shown."""
    which = weights or "last"
    is_file = not (which in ("best", "last") or which.isdigit())
    if len(words) not in (0, 2) or (is_file and words):
        given = f"found {' '.join(words)}" + (f" and --weights {which}" if is_file else "")
        hint = (
            " A file of weights is given as --weights FILE." if words[:1] and words[0].endswith(".safetensors") else ""
        )
        raise UserError(f"demo: expected RUN TRIAL, --weights FILE, or nothing for the shipped weights; {given}.{hint}")
    if words:
        return _fit(of_trial(Path(words[0]), words[1], which))
    if is_file:
        if not Path(which).is_file():
            hint = nearest(which, ("best", "last")).partition(" Valid")[0]
            found = "a folder." if Path(which).is_dir() else f"no such file{hint}"
            raise UserError(f"--weights {which}: {found} Expected a safetensors file of `capsbench run`")
        return _fit(of_file(Path(which)))
    if weights:
        raise UserError(f"--weights {weights}: of which trial? Expected RUN TRIAL --weights {weights}")
    return of_file(WEIGHTS)


def is_shipped(trained: Trained) -> bool:
    return trained.path == WEIGHTS


def _fit(trained: Trained) -> Trained:
    model = trained.model
    if models.of(model).output_shapes(model, 1).get("coupling") is None:
        raise UserError(
            f"{trained.path}: weights of a model of kind {model.kind}; the demo shows capsules and their routing, so it needs "
            "those of a capsnet. `capsbench predict` asks any model"
        )
    if model.image[2] != 1:
        raise UserError(
            f"{trained.path}: this model looks at images of {model.image[2]} channels; the demo's are drawn in grey, of one. "
            "`capsbench predict` asks it about pictures in colour"
        )
    return trained


def examples(trained: Trained) -> Examples:
    """Some test images of the data set that it was trained for, if that is here; of MNIST always."""
    model, config = trained.model, trained.data
    none = np.zeros((0, model.overlaid, *model.image), np.uint8), np.zeros((0, model.overlaid), np.int64)
    if config is None:
        return Examples(*none, "what it was trained on is not known")
    shipped = load_weights(DIGITS)
    if config.name == "mnist" and not config.test_from and model.image == shipped["images"].shape[1:]:
        return Examples(shipped["images"][:, None], shipped["labels"][:, None], "digits of MNIST's test set")
    try:
        name, split = _test_part(trained)
    except UserError as error:
        return Examples(*none, f"no test images: {str(error).partition(chr(10))[0]}")
    if split.images.shape[-3:] != model.image:
        return Examples(*none, f"{name}'s images have another size than the model's")
    images = split.images.reshape(-1, model.overlaid, *model.image)
    labels = split.labels.reshape(-1, model.overlaid)
    if model.overlaid > 1:
        return Examples(images[:_OVERLAID], labels[:_OVERLAID], f"test images of {name}")
    few = [np.flatnonzero(labels[:, 0] == each)[:_EACH] for each in range(min(model.classes, 10))]
    chosen = np.concatenate(few)
    return Examples(images[chosen], labels[chosen], f"test images of {name}")


def _test_part(trained: Trained) -> tuple[str, Split]:
    config = trained.data
    assert config is not None
    about, part = test_part(config, _LOOKED_AT)
    return about.name, part


def framing(trained: Trained) -> dict[str, Any]:
    """How a drawing becomes an image like those of the data set: lengths in pixels of the model's image.

    MNIST's digits were scaled into a box of 20x20 and put with their centre of mass in the middle of 28x28; larger images
    have these 28x28 in their middle. Those of scikit-learn fill the height of 8x8 cells, enlarged by 3.
    """
    height, width, _ = trained.model.image
    if trained.data and trained.data.name == "digits" and (height, width) == (28, 28):
        return {"inner": 28, "box": 24, "pen": 3.6, "centre": "box", "cells": 8, "pad": 2, "move": 0}
    inner = 28 if min(height, width) >= 28 else min(height, width)
    move = (min(height, width) - inner) // 2 if trained.model.overlaid > 1 else 0
    return {"inner": inner, "box": round(inner * 20 / 28), "pen": inner * 2.4 / 28, "centre": "mass", "move": move}
