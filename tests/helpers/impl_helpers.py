"""Small models and data for the tests of implementations."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness import registry
from harness.spec import Impl, ModelSpec, OptimSpec, Runtime

FRAMEWORKS = ("torch", "tf", "jax")
# Of every implementation that tests build in their own process. One, since another test runs beside them; and the same for
# all, since TensorFlow keeps what it starts with.
THREADS = 1


def small_model(image: tuple[int, int, int] = (13, 14, 1), **changes: Any) -> ModelSpec:
    """The paper's architecture with few channels and a smaller kernel."""
    sizes: dict[str, Any] = {
        "kernel": 5,
        "conv_channels": 6,
        "primary_types": 3,
        "primary_dim": 4,
        "digit_dim": 5,
        "classes": 4,
    }
    return ModelSpec(image=image, decoder_units=(7, 9), **(sizes | changes))


def batch_of(model: ModelSpec, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random images with a blank band, as digits have, and labels."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (count, *model.image)).astype(np.uint8)
    images[:, :5] = 0
    return images, generator.integers(0, model.classes, count)


def one_digit(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (B, 1, H, W, C) and classes (B, 1), as the specification's functions have them."""
    return images[:, None] / 255, labels[:, None]


def build(name: str, model: ModelSpec, precision: str = "fp64", compile: bool | None = None, **optim: Any) -> Impl:
    """An implementation without weights yet; compiled or not, whichever is sooner done with a small model."""
    compile = name == "jax" if compile is None else compile
    runtime = Runtime.model_validate({"precision": precision, "compile": compile, "threads": THREADS})
    return registry.load(registry.resolve(name))(model, OptimSpec(**optim), runtime)


def start_tensorflow() -> None:
    """Starts TensorFlow as `build` does, for a test that uses it by another way: it would take all cores, for good."""
    build("tf", small_model())


def loaded(name: str, model: ModelSpec, weights: dict[str, np.ndarray], **options: Any) -> Impl:
    """The same, with weights."""
    impl = build(name, model, **options)
    impl.load(weights)
    return impl
