"""`NumpyImpl`: the specification, with the same interface as the implementations that are compared with it."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any, cast

import array_api_compat.numpy
import numpy as np
from array_api_compat import array_namespace, is_cupy_array
from jaxtyping import Float, Int, Int8, UInt8

from harness.spec import (
    ADAM_BETA1,
    ADAM_BETA2,
    ADAM_EPSILON,
    Conventions,
    EpochPlan,
    EvalTotals,
    Loss,
    ModelSpec,
    Moments,
    OptimSpec,
    Outputs,
    Runtime,
    TrainTotals,
    Weights,
)
from impls.numpy import layers as F
from impls.numpy.layers import Array, one_hot
from impls.numpy.models import architecture


def namespace(device: str) -> Any:
    """The array library of a device: NumPy for "cpu", CuPy (imported only then) for "gpu".

    Raises `ImportError` if CuPy is not installed, `RuntimeError` if it finds no GPU.
    """
    if device == "cpu":
        return array_api_compat.numpy
    try:
        xp: Any = importlib.import_module("array_api_compat.cupy")
    except ImportError as error:
        raise ImportError(
            f"numpy on a GPU computes with CuPy, which cannot be imported ({error}); install cupy-cuda13x or "
            "cupy-cuda12x, whichever the driver supports, or set resources.gpus=0"
        ) from error
    try:
        xp.cuda.runtime.getDeviceCount()
    except xp.cuda.runtime.CUDARuntimeError as error:
        raise RuntimeError(f"CuPy finds no GPU ({error}); see nvidia-smi, or set resources.gpus=0") from error
    return xp


def to_numpy(array: Array) -> np.ndarray:
    return array.get() if is_cupy_array(array) else np.asarray(array)


def shift_images(images: UInt8[np.ndarray, "B H W C"], shifts: Int8[np.ndarray, "B 2"]) -> UInt8[np.ndarray, "B H W C"]:
    """Each image shifted (down, right) by its own number of whole pixels, filled with zeros."""
    height, width = images.shape[1:3]
    rows = cast(np.ndarray, np.arange(height) - shifts[:, :1].astype(int))
    columns = cast(np.ndarray, np.arange(width) - shifts[:, 1:].astype(int))
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    each = np.arange(len(images))[:, None, None]
    moved = images[each, rows.clip(0, height - 1)[:, :, None], columns.clip(0, width - 1)[:, None, :]]
    return moved * inside[..., None].astype(images.dtype)


def middle(images: UInt8[np.ndarray, "B H W C"], model: ModelSpec) -> UInt8[np.ndarray, "B h w C"]:
    """What the network sees of larger images (section 7); if the middle is between two pixels, above and left of it."""
    height, width, _ = model.image
    top, left = (images.shape[1] - height) // 2, (images.shape[2] - width) // 2
    return images[:, top : top + height, left : left + width]


def adam(w: Array, grad: Array, first: Array, second: Array, step: int, lr: float) -> tuple[Array, Array, Array]:
    """Kingma & Ba, Algorithm 1, for step 1, 2, ...: epsilon is added to the root of the bias-corrected second moment."""
    first = ADAM_BETA1 * first + (1 - ADAM_BETA1) * grad
    second = ADAM_BETA2 * second + (1 - ADAM_BETA2) * grad**2
    root = array_namespace(w).sqrt(second / (1 - ADAM_BETA2**step))
    return w - lr * (first / (1 - ADAM_BETA1**step)) / (root + ADAM_EPSILON), first, second


def _has_conventions(net: Any) -> bool:
    """Whether `Conventions` apply to a kind of model."""
    return "conventions" in inspect.signature(net.forward).parameters


DIGITS = {"bf16": 8, "tf32": 11}
"""Binary digits that an operand of a matrix product keeps, the leading one included."""


class NumpyImpl:
    """See `harness.spec.Impl`. Nothing is compiled, and threads are those of NumPy's BLAS.

    Images are shifted in NumPy, and every batch goes to the device when it is used. `operands`, by default the
    runtime's precision, is the precision of operands only: bf16 in float64 is bf16 without any other rounding.
    `conventions` are a CapsNet's; other kinds have none. `scores` (N, J) are those that decided the predictions in the
    last `train` or `evaluate`, each from before its step: they tell how close the decisions were.
    """

    scores: Float[np.ndarray, "N J"]

    def __init__(
        self,
        model: ModelSpec,
        optim: OptimSpec,
        runtime: Runtime,
        operands: str | None = None,
        conventions: Conventions | None = None,
    ) -> None:
        self.model, self.optim, self.device = model, optim, runtime.device
        self.net: Any = architecture(model.kind)
        self._conventions: dict[str, Conventions] = (
            {"conventions": conventions or Conventions()} if _has_conventions(self.net) else {}
        )
        self._digits = DIGITS.get(operands or runtime.precision)
        self.xp = namespace(runtime.device)
        self.dtype = self.xp.float64 if runtime.precision == "fp64" else self.xp.float32

    def load(self, weights: Weights, moments: Moments | None = None) -> None:
        self.weights = self._own(weights)
        zeros = {name: np.zeros_like(w) for name, w in weights.items()}
        moments = moments or Moments(0, zeros, zeros)
        self.moments = Moments(moments.step, self._own(moments.first), self._own(moments.second))

    def _own(self, arrays: Weights) -> dict[str, Array]:
        return {name: self.xp.asarray(array, dtype=self.dtype, copy=True) for name, array in arrays.items()}

    def _numpy(self, arrays: Mapping[str, Array]) -> Weights:
        return {name: to_numpy(array).copy() for name, array in arrays.items()}  # not the arrays that are trained on

    def dump(self) -> Weights:
        return self._numpy(self.weights)

    def dump_moments(self) -> Moments:
        return Moments(self.moments.step, self._numpy(self.moments.first), self._numpy(self.moments.second))

    def stage(self, images: UInt8[np.ndarray, "N H W C"], labels: Int[np.ndarray, " N"]) -> None:
        # read-only arrays need no copy
        self.images, self.labels = (part.copy() if part.flags.writeable else part for part in (images, labels))

    def _classes(self, labels: Int[np.ndarray, " B *K"]) -> Int[Array, "B K"]:
        """The labels with an axis for the digits of an image, one or more."""
        return self.xp.reshape(self.xp.asarray(labels, dtype=self.xp.int64), (-1, self.model.overlaid))

    def _operand(self, x: Array) -> Array:
        return F.rounded(x, self._digits) if self._digits else x

    def _operands(self) -> dict[str, Array]:
        """The weights as operands; biases are not rounded, since they are added, not multiplied."""
        return {name: w if name.endswith(".b") else self._operand(w) for name, w in self.weights.items()}

    def _forward(self, images: UInt8[np.ndarray, "B *K H W C"], *kept: UInt8[np.ndarray, "B U"]) -> Any:
        """The activations; in training with dropout masks if the model has dropout."""
        digits = self.xp.reshape(self.xp.asarray(images), (-1, self.model.overlaid, *self.model.image))
        pixels = self.xp.astype(digits, self.dtype) / 255
        masks = [self.xp.astype(self.xp.asarray(mask), self.dtype) for mask in kept]
        return self.net.forward(self.model, self._operands(), pixels, self._operand, *masks, **self._conventions)

    def _predicted(self, acts: Any) -> Int[Array, "B K"]:
        """The longest capsules, or the most probable classes."""
        return F.winners(self.net.scores(self.model, acts), self.model.overlaid)

    def forward(self, images: UInt8[np.ndarray, "B *K H W C"]) -> Outputs:
        found = self.net.outputs(self.model, self._operands(), self._forward(images))
        fields: list[Any] = [None if array is None else to_numpy(array) for array in found]
        return Outputs(*fields)

    def routing_steps(
        self, images: UInt8[np.ndarray, "B *K H W C"]
    ) -> list[tuple[Float[np.ndarray, "B I J"], Float[np.ndarray, "B J D"], Float[np.ndarray, "B I J"]]]:
        """For each iteration of Procedure 1: coupling c, output capsules v, and the agreement u_hat . v added to the logits."""
        acts = self._forward(images)
        added = [(acts.u_hat @ v[..., None])[..., 0] for _, _, v in acts.routing]
        return [
            (to_numpy(c).transpose(0, 2, 1), to_numpy(v), to_numpy(agreement).transpose(0, 2, 1))
            for (c, _, v), agreement in zip(acts.routing, added, strict=True)
        ]

    def decode(self, digit: Float[np.ndarray, "B J D"], classes: Int[np.ndarray, " B"]) -> Float[np.ndarray, "B H W C"]:
        """Section 4.1: the decoder's output for each row's capsule of its class."""
        v = self.xp.asarray(digit, dtype=self.dtype)
        mask = one_hot(self.xp.asarray(classes, dtype=self.xp.int64), v)
        _, pixels = self.net.decode(self._operands(), v, mask[:, None, :], self._operand)
        return to_numpy(pixels).reshape(len(digit), *self.model.image)

    def loss_and_grads(
        self, images: UInt8[np.ndarray, "B *K H W C"], labels: Int[np.ndarray, " B *K"]
    ) -> tuple[Loss, Weights]:
        acts, classes = self._forward(images), self._classes(labels)
        loss = self.net.losses(self.model, self._operands(), acts, classes, classes)
        return loss, self._numpy(self.net.backward(self.model, self._operands(), acts, classes))

    def compile(self, batch: int) -> None:
        self.batch = batch

    def _sums(self, acts: Any, labels: Int[Array, "B K"], mask: Int[Array, "B K"]) -> Float[Array, " T"]:
        """Losses summed over the images, in float64: as many as `ModelSpec.loss_terms`."""
        means = self.net.mean_losses(self.model, self._operands(), acts, labels, mask)
        return labels.shape[0] * self.xp.astype(means, self.xp.float64)

    def _no_losses(self) -> Float[Array, " T"]:
        return self.xp.zeros(len(self.model.loss_terms), dtype=self.xp.float64)

    def train(self, plan: EpochPlan) -> TrainTotals:
        total, correct = self._no_losses(), self.xp.zeros((), dtype=self.xp.int64)
        scores: list[np.ndarray] = []
        masks = plan.masks(self.model)
        for step, start in enumerate(range(0, len(plan.order), plan.batch)):
            chosen = plan.order[start : start + plan.batch]
            shifts = plan.shifts[start : start + plan.batch]
            moved = shift_images(self.images[chosen.ravel()], shifts.reshape(-1, 2))
            acts = self._forward(middle(moved, self.model), *(mask[step, : len(chosen)] for mask in masks))
            labels = self._classes(self.labels[chosen])
            total += self._sums(acts, labels, labels)
            correct += self.xp.sum(self.xp.astype(F.is_right(self._predicted(acts), labels), self.xp.int64))
            scores.append(to_numpy(self.net.scores(self.model, acts)))
            self._step(self.net.backward(self.model, self._operands(), acts, labels))
        self.scores = np.concatenate([np.zeros((0, self.model.classes)), *scores])
        count = len(plan.order)
        return TrainTotals(count, Loss(*(to_numpy(total) / count).tolist()), int(correct))

    def _step(self, grads: dict[str, Array]) -> None:
        step, lr = self.moments.step + 1, self.optim.lr_at(self.moments.step)
        first, second = dict(self.moments.first), dict(self.moments.second)
        for name, w in self.weights.items():
            grad, own_lr = grads[name] + self.optim.weight_decay_of(name) * w, lr * self.optim.lr_scale(name)
            self.weights[name], first[name], second[name] = adam(w, grad, first[name], second[name], step, own_lr)
        self.moments = Moments(step, first, second)

    def evaluate(self, images: UInt8[np.ndarray, "N *K H W C"], labels: Int[np.ndarray, " N *K"]) -> EvalTotals:
        total = self._no_losses()
        predicted: list[Array] = []
        scores: list[np.ndarray] = []
        for start in range(0, len(labels), self.batch):
            acts = self._forward(images[start : start + self.batch])
            classes = self._classes(labels[start : start + self.batch])
            predicted.append(self._predicted(acts))
            scores.append(to_numpy(self.net.scores(self.model, acts)))
            by_label = self.model.evaluation_mask == "label"
            total += self._sums(acts, classes, classes if by_label else predicted[-1])
        self.scores = np.concatenate([np.zeros((0, self.model.classes)), *scores])
        found = to_numpy(self.xp.concat(predicted)).reshape(-1, *self.model.several)
        return EvalTotals(Loss(*(to_numpy(total) / len(labels)).tolist()), found)

    leaning = staticmethod(F.leaning)

    def peak_bytes(self) -> int | None:
        """The GPU memory taken by CuPy, whose pool never gives any back."""
        return self.xp.get_default_memory_pool().total_bytes() if self.device == "gpu" else None
