"""Images of the size that a model takes, if no data set has them."""

from __future__ import annotations

import numpy as np

from harness.spec import ModelSpec


def fitted(images: np.ndarray, labels: np.ndarray, model: ModelSpec) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (N, H, W, C) repeated and cut to the model's images, each channel a little darker; labels within its classes."""
    height, width, channels = model.image
    if images.shape[1:] == model.image and labels.max() < model.classes:
        return images, labels
    rows, columns = -(-height // images.shape[1]), -(-width // images.shape[2])
    grey = np.tile(images[..., 0], (1, rows, columns))[:, :height, :width]
    darker = [(grey.astype(int) * (channels - channel) // channels).astype(np.uint8) for channel in range(channels)]
    return np.stack(darker, axis=-1), labels % model.classes
