"""Adam as Kingma & Ba define it, and the learning rate per step, as a Keras optimiser."""

from __future__ import annotations

import math

import keras
import tensorflow as tf

from harness.spec import ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON, OptimSpec


def adam(optim: OptimSpec, dtype: str, names: tuple[str, ...]) -> _Adam:
    """Algorithm 1: epsilon is added to the root of the *bias-corrected* second moment.

    `names` are the canonical ones of the variables, in the order in which `build` gets them.
    """
    return _Adam(optim, dtype, names)


class _Decay(keras.optimizers.schedules.LearningRateSchedule):
    """`OptimSpec.lr_at`, after `step` completed steps: Keras's own ExponentialDecay has no floor."""

    def __init__(self, optim: OptimSpec, dtype: str) -> None:
        self.optim, self.dtype = optim, dtype

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        decay = self.optim.lr_decay
        if decay.kind == "constant":
            return tf.constant(self.optim.lr, self.dtype)
        completed = tf.cast(step, self.dtype)
        is_smooth = decay.kind == "exponential"
        periods = completed / decay.steps if is_smooth else tf.cast(step // decay.steps, self.dtype)
        return tf.maximum(self.optim.lr * decay.rate**periods, decay.floor)


def _correction(beta: float, step: tf.Tensor) -> tf.Tensor:
    """1 - beta^step. The plain form loses three digits of float32 in its first steps, where beta^step is nearly 1."""
    return -tf.math.expm1(step * math.log(beta))


class _Adam(keras.optimizers.Adam):
    """Keras adds epsilon to the uncorrected root ("epsilon hat"), about 32 times as large an epsilon at the first step.

    It takes the plain form of the bias correction, too.
    """

    def __init__(self, optim: OptimSpec, dtype: str, names: tuple[str, ...]) -> None:
        super().__init__(_Decay(optim, dtype), ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON, name="adam")
        self.optim, self.names = optim, names

    @property
    def first(self) -> list[keras.Variable]:
        """The first moments, in the order of the variables."""
        return self._momentums

    @property
    def second(self) -> list[keras.Variable]:
        """The second moments, likewise."""
        return self._velocities

    def update_step(self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor) -> None:
        index = self._get_variable_index(variable)
        first, second = self._momentums[index], self._velocities[index]
        name = self.names[index]
        step = tf.cast(self.iterations + 1, variable.dtype)
        if decay := self.optim.weight_decay_of(name):
            gradient = gradient + decay * variable
        first.assign(ADAM_BETA1 * first + (1 - ADAM_BETA1) * gradient)
        second.assign(ADAM_BETA2 * second + (1 - ADAM_BETA2) * gradient**2)
        root = tf.sqrt(second / _correction(ADAM_BETA2, step))
        learning_rate = learning_rate * self.optim.lr_scale(name)
        variable.assign_sub(learning_rate * (first / _correction(ADAM_BETA1, step)) / (root + ADAM_EPSILON))
