"""`NumpyCapsNet`: the specification behind the same interface as the implementations that are measured against it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, Int8, UInt8

from harness.spec import (
    ADAM_BETA1,
    ADAM_BETA2,
    ADAM_EPSILON,
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
from impls.numpy.model import Activations, backward, decode, forward, losses, one_hot

Array = np.ndarray


def shift_images(images: UInt8[Array, "B H W C"], shifts: Int8[Array, "B 2"]) -> UInt8[Array, "B H W C"]:
    """Each image moved (down, right) by its own whole pixels; what comes in is zero."""
    height, width = images.shape[1:3]
    rows = np.arange(height) - shifts[:, :1].astype(int)
    columns = np.arange(width) - shifts[:, 1:].astype(int)
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    each = np.arange(len(images))[:, None, None]
    moved = images[each, rows.clip(0, height - 1)[:, :, None], columns.clip(0, width - 1)[:, None, :]]
    return moved * inside[..., None].astype(images.dtype)


def adam(w: Array, grad: Array, first: Array, second: Array, step: int, lr: float) -> tuple[Array, Array, Array]:
    """Kingma & Ba, Algorithm 1, for step 1, 2, ...: epsilon is added to the root of the bias-corrected second moment."""
    first = ADAM_BETA1 * first + (1 - ADAM_BETA1) * grad
    second = ADAM_BETA2 * second + (1 - ADAM_BETA2) * grad**2
    root = np.sqrt(second / (1 - ADAM_BETA2**step))
    return w - lr * (first / (1 - ADAM_BETA1**step)) / (root + ADAM_EPSILON), first, second


class NumpyCapsNet:
    """See `harness.spec.Impl`. Nothing is compiled, and threads are those of NumPy's BLAS."""

    def __init__(self, model: ModelSpec, optim: OptimSpec, runtime: Runtime) -> None:
        self.model, self.optim, self.dtype = model, optim, runtime.dtype

    def load(self, weights: Weights, moments: Moments | None = None) -> None:
        self.weights = self._own(weights)
        zeros = {name: np.zeros_like(w) for name, w in weights.items()}
        self.moments = moments or Moments(0, zeros, zeros)
        self.moments = Moments(self.moments.step, self._own(self.moments.first), self._own(self.moments.second))

    def _own(self, arrays: Weights) -> Weights:
        return {name: array.astype(self.dtype) for name, array in arrays.items()}

    def dump(self) -> Weights:
        return dict(self.weights)

    def dump_moments(self) -> Moments:
        return self.moments

    def stage(self, images: UInt8[Array, "N H W C"], labels: Int[Array, " N"]) -> None:
        self.images, self.labels = images, labels

    def _forward(self, images: UInt8[Array, "B H W C"]) -> Activations:
        return forward(self.model, self.weights, images.astype(self.dtype) / self.dtype(255))

    def forward(self, images: UInt8[Array, "B H W C"]) -> Outputs:
        acts = self._forward(images)
        lengths = F.lengths(acts.v)
        reconstruction: Float[Array, "B H W C"] | None = None
        if self.model.decoder:
            mask = one_hot(lengths.argmax(1), acts.v)
            reconstruction = decode(self.weights, acts.v, mask)[1].reshape(images.shape)
        return Outputs(acts.v, lengths, acts.routing[-1][0].transpose(0, 2, 1), reconstruction)

    def loss_and_grads(self, images: UInt8[Array, "B H W C"], labels: Int[Array, " B"]) -> tuple[Loss, Weights]:
        acts = self._forward(images)
        loss = losses(self.model, self.weights, acts, labels, labels)
        return loss, backward(self.model, self.weights, acts, labels)

    def compile(self, batch: int) -> None:
        self.batch = batch

    def train(self, plan: EpochPlan) -> TrainTotals:
        total, correct = np.zeros(3), 0
        for start in range(0, len(plan.order), plan.batch):
            chosen = plan.order[start : start + plan.batch]
            images = shift_images(self.images[chosen], plan.shifts[start : start + plan.batch])
            labels = self.labels[chosen]
            acts = self._forward(images)
            loss = losses(self.model, self.weights, acts, labels, labels)
            self._step(backward(self.model, self.weights, acts, labels))
            total += len(chosen) * np.array([loss.total, loss.margin, loss.reconstruction])
            correct += int((F.lengths(acts.v).argmax(1) == labels).sum())
        count = len(plan.order)
        return TrainTotals(count, Loss(*(float(x) / count for x in total)), correct)

    def _step(self, grads: Weights) -> None:
        step, lr = self.moments.step + 1, self.optim.lr_at(self.moments.step)
        first, second = dict(self.moments.first), dict(self.moments.second)
        for name, w in self.weights.items():
            self.weights[name], first[name], second[name] = adam(w, grads[name], first[name], second[name], step, lr)
        self.moments = Moments(step, first, second)

    def evaluate(self, images: UInt8[Array, "N H W C"], labels: Int[Array, " N"]) -> EvalTotals:
        total, predicted = np.zeros(3), np.zeros(len(labels), np.int64)
        for start in range(0, len(labels), self.batch):
            part = slice(start, start + self.batch)
            acts = self._forward(images[part])
            predicted[part] = F.lengths(acts.v).argmax(1)
            loss = losses(self.model, self.weights, acts, labels[part], predicted[part])
            total += len(labels[part]) * np.array([loss.total, loss.margin, loss.reconstruction])
        return EvalTotals(Loss(*(float(x) / len(labels) for x in total)), predicted)

    def peak_bytes(self) -> int | None:
        return None
