"""`TfImpl`: epochs of steps, and conversion to and from canonical weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Int, UInt8

from harness.spec import Cut, EpochPlan, EvalTotals, Loss, Moments, Outputs, TrainTotals, Weights, batched
from impls.tf import breakdown
from impls.tf.steps import Steps

_Variables = dict[str, keras.Variable]


class TfImpl(Steps):
    """See `harness.spec.Impl`."""

    def _moments(self, kind: list[keras.Variable]) -> _Variables:
        """Adam's variables of one kind under canonical names."""
        by_path = dict(zip((v.path for v in self.net.trainable_variables), kind, strict=True))
        return {name: by_path[variable.path] for name, variable in self.net.canonical().items()}

    def load(self, weights: Weights, moments: Moments | None = None) -> None:
        self.adam.iterations.assign(moments.step if moments else 0)
        zeros = {name: np.zeros_like(array) for name, array in weights.items()}
        self._assign(self.net.canonical(), weights)
        self._assign(self._moments(self.adam.first), moments.first if moments else zeros)
        self._assign(self._moments(self.adam.second), moments.second if moments else zeros)

    def _assign(self, variables: _Variables, arrays: Weights) -> None:
        for name, variable in variables.items():
            variable.assign(arrays[name])

    def _numpy(self, variables: _Variables) -> Weights:
        return {name: variable.numpy().copy() for name, variable in variables.items()}

    def dump(self) -> Weights:
        return self._numpy(self.net.canonical())

    def dump_moments(self) -> Moments:
        first, second = self._moments(self.adam.first), self._moments(self.adam.second)
        return Moments(int(self.adam.iterations.numpy()), self._numpy(first), self._numpy(second))

    def stage(self, images: UInt8[np.ndarray, "N H W C"], labels: Int[np.ndarray, " N"]) -> None:
        with tf.device(self.device):
            self.images, self.labels = tf.constant(images), tf.constant(labels, tf.int32)

    def forward(self, images: UInt8[np.ndarray, "B *K H W C"]) -> Outputs:
        found = self.outputs(tf.constant(images))
        fields: list[Any] = [None if tensor is None else tensor.numpy() for tensor in found]
        return Outputs(*fields)

    def loss_and_grads(
        self, images: UInt8[np.ndarray, "B *K H W C"], labels: Int[np.ndarray, " B *K"]
    ) -> tuple[Loss, Weights]:
        grads, means = self.gradients(tf.constant(images), tf.constant(labels, tf.int32))
        return Loss(*means.numpy().tolist()), {name: grad.numpy() for name, grad in grads.items()}

    def compile(self, batch: int) -> None:
        self.batch = batch
        weights = self.dump()
        moments = self.dump_moments() if int(self.adam.iterations) else None  # `load` makes fresh ones
        self.train(EpochPlan.blank(self.model, batch))
        blank = np.zeros((1, *self.model.several, *self.model.image), np.uint8)
        self.evaluate(blank, np.zeros((1, *self.model.several), np.int32))
        self.load(weights, moments)

    def train(self, plan: EpochPlan) -> TrainTotals:
        order, shifts, weight = plan.steps()
        with tf.device(self.device):
            masks = map(tf.constant, plan.masks(self.model))
            parts = (tf.constant(order), tf.constant(shifts), tf.constant(weight, self.dtype), *masks)
            values = [self._train_step(*step) for step in zip(*map(tf.unstack, parts), strict=True)]
            totals = tf.stack(values).numpy().astype(np.float64)  # waits for the device
        count = len(plan.order)
        means = weight.sum(1) @ totals[:, :-1] / count
        return TrainTotals(count, Loss(*means.tolist()), round(totals[:, -1].sum()))

    def evaluate(self, images: UInt8[np.ndarray, "N *K H W C"], labels: Int[np.ndarray, " N *K"]) -> EvalTotals:
        parts = (images, labels.astype(np.int32), np.ones(len(labels), self.dtype))
        with tf.device(self.device):
            once = self._once()
            results = [
                self._eval_step(*map(tf.constant, batch), *once)
                for batch in zip(*(batched(part, self.batch) for part in parts), strict=True)
            ]
        total = np.sum([values.numpy().astype(np.float64) for values, _ in results], axis=0)
        found = np.concatenate([predicted.numpy() for _, predicted in results])[: len(labels)]
        return EvalTotals(Loss(*(total / len(labels)).tolist()), found.reshape(-1, *self.model.several))

    def truncated(self) -> list[Cut]:
        return breakdown.truncated(self, self.train)

    def trace(self, plan: EpochPlan, path: Path) -> None:
        breakdown.trace(lambda: self.train(plan), path)

    def peak_bytes(self) -> int | None:
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] if self.device == "/GPU:0" else None
