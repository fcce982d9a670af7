"""The roles of a model's outputs, by their shapes and values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from harness.parity.ordinary.layout import layouts


def roles(
    outputs: Sequence[tuple[str, np.ndarray]], sizes: Mapping[str, int], image: tuple[int, int, int]
) -> tuple[dict[str, str], list[str]]:
    """Role -> the output's name; and the outputs without a role, with their shapes.

    Roles: "digit" capsules, their "lengths" or probabilities, "coupling", "reconstruction", "loss"; "prediction" is a class,
    or a one-hot.
    """
    found: dict[str, str] = {}
    unknown: list[str] = []
    for name, array in outputs:
        role = _role(array, sizes, image)
        if role is None or role in found:
            unknown.append(f"{name} {array.shape}")
        else:
            found[role] = name
    return found, unknown


def _role(array: np.ndarray, sizes: Mapping[str, int], image: tuple[int, int, int]) -> str | None:
    batch, classes = sizes["B"], sizes["J"]
    if array.size == 1:
        return "loss"
    if array.size == batch and array.dtype.kind in "iu":
        return "prediction"
    if batch not in array.shape:
        return None
    if array.size == batch * classes:
        # one class per image: lengths may all be zero
        is_mask = bool(np.isin(array, (0, 1)).all() and (array.reshape(batch, classes).sum(1) == 1).all())
        return "prediction" if is_mask else "lengths"
    for role, axes in (("digit", "BJe"), ("coupling", "BIJ")):
        size = math.prod(sizes[axis] for axis in axes)
        if array.size == size and any(layouts(array.shape, {axis: sizes[axis] for axis in axes})):
            return role
    return "reconstruction" if array.size == batch * math.prod(image) else None


def as_pixels(array: np.ndarray, image: tuple[int, int, int], channels_first: bool) -> np.ndarray:
    """A reconstruction, flat or as an image, as (B, H, W, C)."""
    height, width, channels = image
    if array.ndim >= 4 and array.shape[-3:] == image and array.shape[-3:] != (channels, height, width):
        channels_first = False
    shape = (len(array), channels, height, width) if channels_first else (len(array), *image)
    made = array.reshape(shape)
    return made.transpose(0, 2, 3, 1) if channels_first else made
