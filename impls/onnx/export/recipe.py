"""A trained model in ONNX Runtime alone; model.onnx and config.json lie beside this file.

    from model import load

    net = load()
    found = net(pixels)  # pixels / 255 as float32 (B, C, H, W) -> {name: float32 array}
    predicted = found["lengths"].argmax(1)  # of a CNN: found["probabilities"]

model.onnx takes any batch size B. Its input and outputs, for J classes:

    pixels          (B, C, H, W)            values in 0..1
    lengths         (B, J)                  of a CapsNet: the lengths of the class capsules; the longest is predicted
    capsules        (B, J, dimensions)      the class capsules
    reconstruction  (B, C, H, W)            with a decoder: from the longest capsule; if images show K digits ("overlaid"
                                            in config.json), (B, K, C, H, W), the longest first
    probabilities   (B, J)                  of a CNN
    logits          (B, J)

config.json is in its metadata too. In the browser, in C++ or C#, or on a phone, ONNX Runtime reads the same file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime  # pyright: ignore[reportMissingTypeStubs]


def load(folder: str | Path = Path(__file__).parent) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """The trained model, on the CPU."""
    session = onnxruntime.InferenceSession(Path(folder) / "model.onnx", providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]

    def net(pixels: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, map(np.asarray, session.run(names, {"pixels": pixels})), strict=True))

    return net
