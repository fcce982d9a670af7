"""One step of a network of any kind: training, evaluation, or only the gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from jaxtyping import Float, Int, Int8, UInt8
from tensorflow import Tensor

from harness.spec import ModelSpec, OptimSpec, Runtime
from impls.tf.models import architecture
from impls.tf.optim import adam
from impls.tf.overlay import is_right, overlay, winners
from impls.tf.precision import configure


def shift_images(images: UInt8[Tensor, "B H W C"], shifts: Int8[Tensor, "B 2"]) -> UInt8[Tensor, "B H W C"]:
    """Each image shifted (down, right) by its own number of whole pixels, filled with zeros."""
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


def middle(images: UInt8[Tensor, "B H W C"], model: ModelSpec) -> UInt8[Tensor, "B h w C"]:
    """What the network sees of larger images (section 7); if the middle is between two pixels, above and left of it."""
    height, width, _ = model.image
    top, left = (images.shape[1] - height) // 2, (images.shape[2] - width) // 2
    return images[:, top : top + height, left : left + width]


class Steps:
    """The network, its optimiser and the staged images on their device, and the operations of one step."""

    images: UInt8[Tensor, "N H W C"]  # staged
    labels: Int[Tensor, " N"]

    def __init__(self, model: ModelSpec, optim: OptimSpec, runtime: Runtime) -> None:
        configure(runtime.precision)
        _start(runtime.threads)
        self.model, self.optim = model, optim
        self.dtype = np.dtype(runtime.dtype).name
        self.device = "/GPU:0" if runtime.device == "gpu" else "/CPU:0"
        self.kind = architecture(model.kind)
        with tf.device(self.device):
            self.net = self.kind.Network(model, runtime)
            names = {variable.path: name for name, variable in self.net.canonical().items()}
            in_order = tuple(names[variable.path] for variable in self.net.trainable_variables)
            self.adam = adam(optim, self.dtype, in_order)
            self.adam.build(self.net.trainable_variables)
        self.is_compiled = runtime.compile
        # XLA only for Adam, which becomes one pass; for the whole step it saves no time and takes a third more memory
        self.update = self.compiled(self.update, jit_compile=True)
        self._train_step, self._eval_step = self.compiled(self.train_step), self.compiled(self.eval_step)
        self._once = self.compiled(self.net.once)

    def compiled(self, function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        """The compiled function; unchanged in eager mode."""
        return tf.function(function, autograph=False, **options) if self.is_compiled else function

    def digits(self, images: UInt8[Tensor, "*n H W C"]) -> Float[Tensor, "B K H W C"]:
        """Pixels in 0..1, with an axis for the digits of an image, one or more."""
        digits = tf.reshape(images, (-1, self.model.overlaid, *self.model.image))
        return tf.cast(digits, self.dtype) / 255

    def classes(self, labels: Int[Tensor, " B *K"]) -> Int[Tensor, "B K"]:
        """The labels with an axis for the digits of an image, one or more."""
        return tf.reshape(labels, (-1, self.model.overlaid))

    def batch_of(
        self, order: Int[Tensor, " B *K"], shifts: Int8[Tensor, "B *K 2"]
    ) -> tuple[Float[Tensor, "B K H W C"], Int[Tensor, "B K"]]:
        """Digits and classes of staged images, gathered, shifted and cut to the middle."""
        each = tf.reshape(order, (-1,))
        moved = shift_images(tf.gather(self.images, each), tf.reshape(shifts, (-1, 2)))
        return self.digits(middle(moved, self.model)), self.classes(tf.gather(self.labels, each))

    def predicted(self, top: Tensor) -> Int[Tensor, "B K"]:
        """The classes of the highest scores, highest first."""
        return winners(self.kind.scores(self.model, top), self.model.overlaid)

    def outputs(self, images: UInt8[Tensor, "B *K H W C"]) -> tuple[Tensor | None, ...]:
        """The fields of `harness.spec.Outputs`."""
        return self.kind.outputs(self.net, overlay(self.digits(images)))

    def gradients(
        self, images: UInt8[Tensor, "B *K H W C"], labels: Int[Tensor, " B *K"]
    ) -> tuple[dict[str, Tensor], Float[Tensor, " T"]]:
        """Gradients of the mean training loss without dropout, under canonical names, and the means of all its terms."""
        digits, classes = self.digits(images), self.classes(labels)
        canonical = self.net.canonical()
        with tf.GradientTape() as tape:
            top, *_ = self.net(overlay(digits))
            means = tf.reduce_mean(self.kind.losses(self.net, top, digits, classes, classes), 1)
            total = means[0]
        return tape.gradient(total, {name: variable.value for name, variable in canonical.items()}), means

    def training_losses(
        self,
        order: Int[Tensor, " B *K"],
        shifts: Int8[Tensor, "B *K 2"],
        weight: Float[Tensor, " B"],
        *kept: UInt8[Tensor, "B U"],
    ) -> Float[Tensor, " values"]:
        """A step's forward pass. Losses are means over the images of weight 1; the last value is how many are right."""
        digits, labels = self.batch_of(order, shifts)
        top, *_ = self.net(overlay(digits), *kept)
        values = self.kind.losses(self.net, top, digits, labels, labels)
        means = tf.reduce_sum(values * weight, 1) / tf.reduce_sum(weight)
        right = is_right(self.predicted(top), labels)
        correct = tf.reduce_sum(tf.cast(right, weight.dtype) * weight)
        return tf.concat([means, correct[None]], 0)

    def training_gradients(self, *step: Tensor) -> tuple[list[Tensor], Float[Tensor, " values"]]:
        """A step's gradients, in the order of the network's variables, and its losses."""
        with tf.GradientTape() as tape:
            values = self.training_losses(*step)
            total = values[0]
        return tape.gradient(total, [variable.value for variable in self.net.trainable_variables]), values

    def train_step(self, *step: Tensor) -> Float[Tensor, " values"]:
        """One step, from `order`, `shifts`, `weight` and the dropout mask if the model has dropout."""
        grads, values = self.training_gradients(*step)
        self.update(grads)
        return values

    def update(self, grads: list[Tensor]) -> None:
        """Adam's step, from gradients in the order of the network's variables."""
        self.adam.apply(grads, self.net.trainable_variables)

    def eval_step(
        self,
        images: UInt8[Tensor, "B *K H W C"],
        labels: Int[Tensor, " B *K"],
        weight: Float[Tensor, " B"],
        *once: Tensor | None,
    ) -> tuple[Float[Tensor, " T"], Int[Tensor, "B K"]]:
        """Losses summed over the images of weight 1, and every image's predicted classes."""
        digits, classes = self.digits(images), self.classes(labels)
        top, *_ = self.net(overlay(digits), *once)
        predicted = self.predicted(top)
        mask = classes if self.model.evaluation_mask == "label" else predicted
        return tf.reduce_sum(self.kind.losses(self.net, top, digits, classes, mask) * weight, 1), predicted


def _start(threads: int) -> None:
    """Process-wide settings, fixed once TensorFlow has started: threads, and GPU memory on demand."""
    if tf.config.threading.get_intra_op_parallelism_threads() != threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        # one operation at a time, each on all threads: two at once only compete for cache and memory
        tf.config.threading.set_inter_op_parallelism_threads(1)
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
