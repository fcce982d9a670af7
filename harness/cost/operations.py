"""What a trial should cost: operations and memory counted from the model, and time from earlier results."""

from __future__ import annotations

import itertools
import math

from harness.spec import ModelSpec
from harness.weights import parameter_count


def products(model: ModelSpec) -> dict[str, int]:
    """Multiplications, each with an addition, of one image's forward pass by layer, the convolutions as they are written."""
    if model.kind == "cnn":
        return _cnn_products(model)
    pairs = model.primary_capsules * model.classes * model.digit_dim
    height, width = model.conv_grid
    counted = {
        "conv1": height * width * model.conv_channels * model.kernel**2 * model.image[2],
        "primary": model.primary_capsules * model.primary_dim * model.kernel**2 * model.conv_channels,
        "votes": pairs * model.primary_dim,
        # each iteration sums the votes and, but for the last, measures the agreement
        "routing": pairs * (2 * model.routing - 1),
    }
    if model.decoder:
        first, second = model.decoder_units
        once = model.classes * model.digit_dim * first + first * second + second * model.pixels
        counted["decoder"] = model.overlaid * once  # for each digit that the image shows
    return counted


def _cnn_products(model: ModelSpec) -> dict[str, int]:
    """As `products`: a window for each pixel, SAME padding or not."""
    channels = itertools.pairwise((model.image[2], *model.cnn_channels))
    layers = zip(model.cnn_convolutions, model.cnn_grids[:-1], model.cnn_kernels, channels, strict=True)
    counted = {name: math.prod(grid) * kernel**2 * fan_in * fan_out for name, grid, kernel, (fan_in, fan_out) in layers}
    return {**counted, "dense": sum(fan_in * fan_out for fan_in, fan_out in itertools.pairwise(model.cnn_widths))}


def convolution_outputs(model: ModelSpec) -> int:
    """Numbers that the convolutions put out for one image."""
    if model.kind == "cnn":
        grids = zip(model.cnn_grids[:-1], model.cnn_channels, strict=True)
        return sum(math.prod(grid) * channels for grid, channels in grids)
    return math.prod(model.conv_grid) * model.conv_channels + model.primary_capsules * model.primary_dim


def forward_flops(model: ModelSpec) -> int:
    """Floating-point operations of one image's forward pass; a multiply and an add count as two."""
    return 2 * sum(products(model).values())


def step_flops(model: ModelSpec, batch: int) -> int:
    """One training step: the backward pass costs twice the forward pass, but for the images, which need no gradient."""
    return batch * (3 * forward_flops(model) - 2 * products(model)["conv1"])


def moved_bytes(model: ModelSpec, batch: int) -> int:
    """Bytes of float32 that any algorithm for one training step moves, were it to keep everything else on the chip.

    The weights are read by both passes and by Adam, its moments read, all three written; their gradients are written and
    read. The outputs of the convolutions are written, read by both passes, and so are their gradients, read once.
    """
    return 4 * (10 * parameter_count(model) + 5 * batch * convolution_outputs(model))


def spectral_products(model: ModelSpec) -> int:
    """Real matrix products of the primary convolution in the frequency domain (`impls.spectral`): 148 for the paper's."""
    taps = -(-model.kernel // 2)
    rows, columns = (side + taps - 1 for side in model.primary_grid)
    real = (2 - rows % 2) * (2 - columns % 2)  # frequencies that are their own conjugates; of the others half is enough
    return real + 3 * (rows * columns - real) // 2
