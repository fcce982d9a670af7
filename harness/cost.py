"""What a trial should cost: operations and memory counted from the model, and time from earlier results."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from harness import data
from harness.config import Trial
from harness.journal import read_json
from harness.spec import ModelSpec
from harness.weights import parameter_count

_START_S = 30.0  # interpreter, framework, compilation and small tensors of the parity gate, where nothing is known yet
_OVER_FLOOR = 1.5  # a training step over its matmul floor, where nothing is known yet
_EVAL_COST = 1 / 3  # forward alone, of forward and backward
_PROCESS_BYTES = 400e6  # interpreter, framework and compiled code, before the first array


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


def least_bytes(model: ModelSpec, batch: int, item_bytes: int = 4) -> int:
    """What no implementation does without in a training step of `batch` images: a lower bound on its memory.

    Weights, gradients and Adam's two moments; the outputs of the convolutions, kept for the backward pass, and their
    gradients. Not counted: votes, which can be made for a few images at a time, all temporary arrays, the framework.
    """
    return item_bytes * (4 * parameter_count(model) + 2 * batch * convolution_outputs(model))


def step_bytes(model: ModelSpec, batch: int, item_bytes: int = 4) -> int:
    """Peak memory to expect of a process that trains with `batch` images; right within a factor of about two.

    `least_bytes` and 400 MB of process and framework; of a CapsNet, the whole batch's votes once, and the spectra of the
    primary convolution's input, kernel and output; of a CNN, the convolutions' outputs once more, in another layout.
    """
    if model.kind == "cnn":
        return (
            round(_PROCESS_BYTES)
            + least_bytes(model, batch, item_bytes)
            + item_bytes * batch * convolution_outputs(model)
        )
    votes = model.primary_capsules * model.classes * model.digit_dim
    filters = model.primary_types * model.primary_dim
    inputs = 4 * model.conv_channels  # two by two phases
    spectra = spectral_products(model) * (inputs * filters + batch * (inputs + filters))
    return round(_PROCESS_BYTES) + least_bytes(model, batch, item_bytes) + item_bytes * (batch * votes + spectra)


def largest_batch(model: ModelSpec, memory_bytes: float, item_bytes: int = 4) -> int:
    """The largest batch whose `step_bytes` is at most `memory_bytes`, in steps of 8 from 8 on; 0 if none is."""
    fixed = step_bytes(model, 0, item_bytes)
    batch = max(0, int((memory_bytes - fixed) // (step_bytes(model, 1, item_bytes) - fixed)))
    return batch - batch % 8 if batch >= 8 else batch


@cache
def matmul_flops_per_s(size: int = 2048) -> float:
    """This machine's float32 matrix product rate in NumPy, best of three: the optimistic end of what a CPU trial gets."""
    a = np.random.default_rng(0).standard_normal((size, size), np.float32)
    best_s = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        np.matmul(a, a)
        best_s = min(best_s, time.perf_counter() - start)
    return 2 * size**3 / best_s


def estimate_s(trial: Trial, known: Iterable[tuple[Trial, dict[str, Any]]]) -> float | None:
    """Seconds that `trial` should take, at most if a rule may stop it; None on a GPU that has not run this model yet.

    From the finished trial in `known` with the same implementation, model and resources if there is one; else from the
    operations counted and this CPU's matmul rate, which is right within a factor of about two.
    """
    train, validation, test = data.sizes(trial.data)
    own_test = min(test, data.info(trial.data.name).test)  # whatever other data set it is tested on at the end
    each_epoch = validation + (own_test if trial.train.stop.images == "test" else 0)
    images = trial.train.epochs * (train + _EVAL_COST * each_epoch) + _EVAL_COST * test
    # the gate: two steps and a trajectory of full batches, and the specification, which takes about as long
    if trial.parity.gate:
        images += 2 * (2 + trial.parity.steps) * trial.train.batch
    for other, result in known:
        if result["img_per_s"] and _same_work(trial, other):
            return result["compile_s"] + _START_S / 2 + images / result["img_per_s"]
    if trial.gpus:
        return None
    return _START_S + images * step_flops(trial.model, 1) * _OVER_FLOOR / matmul_flops_per_s()


def _same_work(a: Trial, b: Trial) -> bool:
    def work(trial: Trial) -> tuple[Any, ...]:
        return trial.impl, trial.model, trial.train.batch, trial.runtime, trial.cpus, trial.gpus

    return work(a) == work(b)


def finished_trials(out: Path) -> Iterator[tuple[Trial, dict[str, Any]]]:
    """Every finished trial below the output folder, with its result; unreadable ones are passed over."""
    for path in sorted(out.glob("*/trials/*/result.json")):
        result = read_json(path)
        if result and result.get("status") == "finished":
            try:
                yield Trial.model_validate_json((path.parent / "trial.json").read_bytes()), result
            except (OSError, ValueError):
                continue
