"""The paper's baseline CNNs (sections 4.1 and 6.1)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from harness.models.base import Layer, ModelKind, WeightRow
from harness.spec.model import Count, ModelSpec

_TRUNCATED_SD = 0.87962566  # standard deviation of a normal truncated at two sigmas
_Several = Annotated[tuple[Count, ...], Field(min_length=1, max_length=9)]


class CnnSpec(ModelSpec):
    """A CNN; the defaults are the paper's baseline on MNIST (section 4.1).

    ReLU convolutions, stride 1, SAME padding, each followed by max pooling over cnn_pool x cnn_pool pixels; ReLU
    layers; dropout; a softmax, or sigmoids for images that show several digits.
    """

    kind: str = "cnn"
    cnn_channels: _Several = Field(default=(256, 256, 128), strict=False)
    cnn_kernel: Count | Annotated[_Several, Field(strict=False)] = 5  # one for all convolutions, or one for each
    cnn_pool: Count = 1
    cnn_units: _Several = Field(default=(328, 192), strict=False)
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5  # of the last hidden layer; the paper gives no rate

    def check(self) -> None:
        height, width = self.image[:2]
        if len(self.cnn_kernels) != len(self.cnn_channels):
            raise ValueError(
                f"model.cnn_kernel: {len(self.cnn_kernels)} kernels, but model.cnn_channels has {len(self.cnn_channels)} "
                "convolutions; give one kernel for each, or a single number for all"
            )
        if min(self.cnn_grids[-1]) < 1:
            raise ValueError(
                f"model.cnn_pool: images of {height}x{width} are too small to be pooled {len(self.cnn_channels)} times by "
                f"{self.cnn_pool}"
            )

    @property
    def dropped_units(self) -> int:
        return self.cnn_units[-1] if self.dropout else 0

    @property
    def cnn_kernels(self) -> tuple[int, ...]:
        """Side of each convolution's kernel."""
        return (self.cnn_kernel,) * len(self.cnn_channels) if isinstance(self.cnn_kernel, int) else self.cnn_kernel

    @property
    def cnn_grids(self) -> tuple[tuple[int, int], ...]:
        """Height and width of the image, and after each convolution and its pooling, which drops incomplete windows."""
        height, width, _ = self.image
        pooled = (self.cnn_pool**layer for layer in range(len(self.cnn_channels) + 1))
        return tuple((height // by, width // by) for by in pooled)

    @property
    def cnn_convolutions(self) -> tuple[str, ...]:
        """Names of the convolutions."""
        return tuple(f"conv{layer}" for layer in range(1, len(self.cnn_channels) + 1))

    @property
    def cnn_dense(self) -> tuple[str, ...]:
        """Names of the layers after the convolutions; the last has one output per class."""
        return tuple(f"fc{layer}" for layer in range(1, len(self.cnn_units) + 2))

    @property
    def cnn_widths(self) -> tuple[int, ...]:
        """Inputs of each of those layers, and the outputs of the last; the first sees the grid flattened (y, x, channel)."""
        return (math.prod(self.cnn_grids[-1]) * self.cnn_channels[-1], *self.cnn_units, self.classes)


class CnnKind(ModelKind):
    """Convolutions, dense layers, dropout, a softmax or sigmoids."""

    name = "cnn"
    spec = CnnSpec
    size_settings = ("cnn_channels",)

    def skipped(self, level: str) -> str | None:
        return "a CNN has neither capsules nor routing" if level == "L2" else None

    def weights(self, model: ModelSpec) -> tuple[WeightRow, ...]:
        """The convolutions, the ReLU layers, and the layer before the softmax or the sigmoids: 35,445,522 parameters on
        MNIST, and 24,563,978 for the paper's network on MultiMNIST.

        The paper does not say how they start. Here: variance 2 / fan-in before a ReLU (He et al. 2015), 1 / fan-in in the
        last layer, biases zero.
        """
        shapes: dict[str, tuple[tuple[int, ...], str]] = {}
        channels = itertools.pairwise((model.image[2], *model.cnn_channels))
        for name, k, (fan_in, fan_out) in zip(model.cnn_convolutions, model.cnn_kernels, channels, strict=True):
            shapes[name] = (k, k, fan_in, fan_out), "y x channel filter"
        for name, widths in zip(model.cnn_dense, itertools.pairwise(model.cnn_widths), strict=True):
            shapes[name] = widths, "in out"
        rows: list[WeightRow] = []
        for name, (shape, layout) in shapes.items():
            variance = (1 if name == model.cnn_dense[-1] else 2) / math.prod(shape[:-1])
            rows.append(WeightRow(f"{name}.w", shape, layout, math.sqrt(variance) / _TRUNCATED_SD))
            rows.append(WeightRow(f"{name}.b", shape[-1:], layout.split()[-1], 0.0))
        return tuple(rows)

    def layers(self, model: ModelSpec) -> list[Layer]:
        multiplied, pool = self.products(model), model.cnn_pool
        pooled = f", max {pool}x{pool}" if pool > 1 else ""
        convolutions = zip(
            model.cnn_convolutions, model.cnn_kernels, model.cnn_grids[1:], model.cnn_channels, strict=True
        )
        found = [
            Layer(name, f"{k}x{k} SAME, ReLU{pooled}", (*grid, channels), multiplied[name])
            for name, k, grid, channels in convolutions
        ]
        kinds = ["dense, ReLU"] * len(model.cnn_units)
        kinds[-1] += f", dropout {model.dropout:g}" if model.dropout else ""
        kinds.append("dense, softmax" if model.overlaid == 1 else "dense, sigmoid")
        widths = itertools.pairwise(model.cnn_widths)
        for name, what, (fan_in, fan_out) in zip(model.cnn_dense, kinds, widths, strict=True):
            found.append(Layer(name, what, (fan_out,), fan_in * fan_out))
        return found

    def products(self, model: ModelSpec) -> dict[str, int]:
        """Counts a full window for each pixel, even where it overlaps the padding."""
        channels = itertools.pairwise((model.image[2], *model.cnn_channels))
        layers = zip(model.cnn_convolutions, model.cnn_grids[:-1], model.cnn_kernels, channels, strict=True)
        counted = {
            name: math.prod(grid) * kernel**2 * fan_in * fan_out for name, grid, kernel, (fan_in, fan_out) in layers
        }
        return {**counted, "dense": sum(fan_in * fan_out for fan_in, fan_out in itertools.pairwise(model.cnn_widths))}

    def activations(self, model: ModelSpec) -> int:
        """The outputs of the convolutions before pooling. A training step holds a second copy in another layout."""
        grids = zip(model.cnn_grids[:-1], model.cnn_channels, strict=True)
        return sum(math.prod(grid) * channels for grid, channels in grids)

    def late_biases(self, model: ModelSpec) -> tuple[str, ...]:
        return tuple(f"{name}.b" for name in model.cnn_dense)

    def relu_pairs(self, model: ModelSpec) -> tuple[tuple[str, str], ...]:
        return ("conv1", "conv2"), ("fc1", "fc2")

    def relus(self, model: ModelSpec, net: Any, acts: Any, classes: np.ndarray) -> Mapping[str, np.ndarray]:
        pairs = itertools.pairwise(model.cnn_dense)
        return dict(acts.unpooled) | {layer: acts.inputs[following] for layer, following in pairs}

    def faults(self) -> Sequence[Any]:
        from harness.parity.faults import cnn  # the ladder imports kinds

        return cnn.KNOWN


CNN = CnnKind()
