"""`TfImpl`, of whatever kind the model is: staging, the `tf.function` steps, Adam, the way to and from canonical weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Float, Int, Int8, UInt8

from harness.spec import (
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
    batched,
)
from impls.tf import breakdown
from impls.tf.models import ARCHITECTURES
from impls.tf.optim import Adam
from impls.tf.overlay import is_right, overlay, winners

Tensor = tf.Tensor
Variables = dict[str, keras.Variable]


def shift_images(images: UInt8[Tensor, "B H W C"], shifts: Int8[Tensor, "B 2"]) -> UInt8[Tensor, "B H W C"]:
    """Each image moved (down, right) by its own whole pixels; what comes in is zero."""
    height, width = images.shape[1:3]
    moved = tf.cast(shifts, tf.int32)
    rows = tf.range(height) - moved[:, :1]
    columns = tf.range(width) - moved[:, 1:]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    images = tf.gather(images, tf.clip_by_value(rows, 0, height - 1), axis=1, batch_dims=1)
    images = tf.gather(
        tf.transpose(images, (0, 2, 1, 3)), tf.clip_by_value(columns, 0, width - 1), axis=1, batch_dims=1
    )
    return tf.transpose(images, (0, 2, 1, 3)) * tf.cast(inside, images.dtype)[..., None]


class TfImpl:
    """See `harness.spec.Impl`."""

    def __init__(self, model: ModelSpec, optim: OptimSpec, runtime: Runtime) -> None:
        _configure(runtime)
        self.model, self.optim = model, optim
        self.dtype = np.dtype(runtime.dtype).name
        self.device = "/GPU:0" if runtime.device == "gpu" else "/CPU:0"
        self.kind = ARCHITECTURES[model.kind]
        with tf.device(self.device):
            self.net = self.kind.Network(model, runtime)
            names = {variable.path: name for name, variable in self.net.canonical().items()}
            in_order = tuple(names[variable.path] for variable in self.net.trainable_variables)
            self.adam = Adam(optim, self.dtype, in_order)
            self.adam.build(self.net.trainable_variables)
        self._train_step, self._eval_step, self._once = self._train, self._evaluate, self.net.once
        self.compiled = runtime.compile
        if self.compiled:
            # XLA for Adam alone, which becomes one pass; the whole step takes as long with it, and a third more memory
            self.update = tf.function(self.update, jit_compile=True, autograph=False)
            self._train_step = tf.function(self._train, autograph=False)
            self._eval_step = tf.function(self._evaluate, autograph=False)
            self._once = tf.function(self.net.once, autograph=False)

    def _moments(self, kind: list[keras.Variable]) -> Variables:
        """Adam's variables of one kind under canonical names."""
        by_path = dict(zip((v.path for v in self.net.trainable_variables), kind, strict=True))
        return {name: by_path[variable.path] for name, variable in self.net.canonical().items()}

    def load(self, weights: Weights, moments: Moments | None = None) -> None:
        self.adam.iterations.assign(moments.step if moments else 0)
        zeros = {name: np.zeros_like(array) for name, array in weights.items()}
        self._assign(self.net.canonical(), weights)
        self._assign(self._moments(self.adam._momentums), moments.first if moments else zeros)
        self._assign(self._moments(self.adam._velocities), moments.second if moments else zeros)

    def _assign(self, variables: Variables, arrays: Weights) -> None:
        for name, variable in variables.items():
            variable.assign(arrays[name])

    def _numpy(self, variables: Variables) -> Weights:
        return {name: variable.numpy().copy() for name, variable in variables.items()}

    def dump(self) -> Weights:
        return self._numpy(self.net.canonical())

    def dump_moments(self) -> Moments:
        first, second = self._moments(self.adam._momentums), self._moments(self.adam._velocities)
        return Moments(int(self.adam.iterations.numpy()), self._numpy(first), self._numpy(second))

    def stage(self, images: UInt8[np.ndarray, "N H W C"], labels: Int[np.ndarray, " N"]) -> None:
        with tf.device(self.device):
            self.images, self.labels = tf.constant(images), tf.constant(labels, tf.int32)

    def _digits(self, images: UInt8[Tensor, "*n H W C"]) -> Float[Tensor, "B K H W C"]:
        """Pixels in 0..1, with an axis for the digits of an image, one or more."""
        digits = tf.reshape(images, (-1, self.model.overlaid, *self.model.image))
        return tf.cast(digits, self.dtype) / 255

    def _classes(self, labels: Int[Tensor, " B *K"]) -> Int[Tensor, "B K"]:
        return tf.reshape(labels, (-1, self.model.overlaid))

    def forward(self, images: UInt8[np.ndarray, "B *K H W C"]) -> Outputs:
        found = self.kind.outputs(self.net, overlay(self._digits(tf.constant(images))))
        return Outputs(*(None if tensor is None else tensor.numpy() for tensor in found))

    def loss_and_grads(
        self, images: UInt8[np.ndarray, "B *K H W C"], labels: Int[np.ndarray, " B *K"]
    ) -> tuple[Loss, Weights]:
        digits, classes = self._digits(tf.constant(images)), self._classes(tf.constant(labels, tf.int32))
        canonical = self.net.canonical()
        with tf.GradientTape() as tape:
            top, *_ = self.net(overlay(digits))
            means = tf.reduce_mean(self.kind.losses(self.net, top, digits, classes, classes), 1)
            total = means[0]
        grads = tape.gradient(total, {name: variable.value for name, variable in canonical.items()})
        return Loss(*means.numpy().tolist()), {name: grad.numpy() for name, grad in grads.items()}

    def batch_of(
        self, order: Int[Tensor, " B *K"], shifts: Int8[Tensor, "B *K 2"]
    ) -> tuple[Float[Tensor, "B K H W C"], Int[Tensor, "B K"]]:
        """Digits and labels of staged images."""
        each = tf.reshape(order, (-1,))
        moved = shift_images(tf.gather(self.images, each), tf.reshape(shifts, (-1, 2)))
        return self._digits(moved), self._classes(tf.gather(self.labels, each))

    def _train(
        self,
        order: Int[Tensor, " B *K"],
        shifts: Int8[Tensor, "B *K 2"],
        weight: Float[Tensor, " B"],
        *kept: UInt8[Tensor, "B U"],
    ) -> Float[Tensor, " values"]:
        """One step. Losses are means over the images of weight 1; the last value is how many of them are right."""
        digits, labels = self.batch_of(order, shifts)
        with tf.GradientTape() as tape:
            top, *_ = self.net(overlay(digits), *kept)
            values = self.kind.losses(self.net, top, digits, labels, labels)
            means = tf.reduce_sum(values * weight, 1) / tf.reduce_sum(weight)
            total = means[0]
        self.update(tape.gradient(total, [variable.value for variable in self.net.trainable_variables]))
        right = is_right(self._predicted(top), labels)
        correct = tf.reduce_sum(tf.cast(right, weight.dtype) * weight)
        return tf.concat([means, correct[None]], 0)

    def _predicted(self, top: Tensor) -> Int[Tensor, "B K"]:
        return winners(self.kind.scores(self.model, top), self.model.overlaid)

    def update(self, grads: list[Tensor]) -> None:
        """Adam's step, from gradients in the order of the network's variables."""
        self.adam.apply(grads, self.net.trainable_variables)

    def _evaluate(
        self,
        images: UInt8[Tensor, "B *K H W C"],
        labels: Int[Tensor, " B *K"],
        weight: Float[Tensor, " B"],
        *once: Tensor | None,
    ) -> tuple[Float[Tensor, " T"], Int[Tensor, "B K"]]:
        """Losses summed over the images of weight 1, and every image's predicted classes."""
        digits, classes = self._digits(images), self._classes(labels)
        top, *_ = self.net(overlay(digits), *once)
        predicted = self._predicted(top)
        mask = classes if self.model.evaluation_mask == "label" else predicted
        return tf.reduce_sum(self.kind.losses(self.net, top, digits, classes, mask) * weight, 1), predicted

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

    def parts(self) -> dict[str, Callable[[], None]]:
        """See `impls.tf.breakdown`."""
        return breakdown.parts(self)

    def trace(self, plan: EpochPlan, path: Path) -> None:
        """See `impls.tf.breakdown`."""
        breakdown.trace(self, plan, path)

    def peak_bytes(self) -> int | None:
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] if self.device == "/GPU:0" else None


def _configure(runtime: Runtime) -> None:
    """Process-wide settings, fixed once TensorFlow has started: threads, what a GPU may do to float32, memory as needed."""
    tf.config.experimental.enable_tensor_float_32_execution(runtime.precision in ("tf32", "bf16"))
    if tf.config.threading.get_intra_op_parallelism_threads() != runtime.threads:
        tf.config.threading.set_intra_op_parallelism_threads(runtime.threads)
        # one operation after the other, each on all threads: two at once only take the cache from each other, and memory
        tf.config.threading.set_inter_op_parallelism_threads(1)
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
