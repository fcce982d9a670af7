"""CapsNets as people write them in Keras: a functional pair, a subclass with labels, a wrong one."""

from __future__ import annotations

import keras
import tensorflow as tf
from keras import layers, ops

SIDE, KERNEL, CHANNELS, TYPES, DIM, CLASSES, DIGIT = 14, 5, 6, 3, 4, 10, 5


def squash(s, axis=-1):
    square = ops.sum(ops.square(s), axis, keepdims=True)
    return square / (1 + square) / ops.sqrt(square + 1e-9) * s


class Capsules(layers.Layer):
    axis = 1

    def __init__(self, classes, dim, routings):
        super().__init__()
        self.classes, self.dim, self.routings = classes, dim, routings

    def build(self, shape):
        self.W = self.add_weight(shape=(self.classes, shape[1], self.dim, shape[2]), name="W")

    def call(self, u):
        u_hat = tf.einsum("jied,bid->bjie", self.W, u)
        logits = tf.zeros((tf.shape(u)[0], self.classes, u.shape[1]))
        for i in range(self.routings):
            c = tf.nn.softmax(logits, axis=self.axis)
            v = squash(tf.einsum("bji,bjie->bje", c, u_hat))
            if i < self.routings - 1:
                logits += tf.einsum("bjie,bje->bji", u_hat, v)
        return v


class WrongCapsules(Capsules):
    axis = 2


class Length(layers.Layer):
    def call(self, v):
        return ops.sqrt(ops.sum(ops.square(v), -1) + 1e-9)


class Mask(layers.Layer):
    def call(self, inputs):
        if isinstance(inputs, (list, tuple)):
            v, present = inputs
        else:
            v = inputs
            present = ops.one_hot(ops.argmax(ops.sum(ops.square(v), -1), 1), CLASSES, dtype=v.dtype)
        return ops.reshape(v * ops.expand_dims(present, -1), (-1, CLASSES * DIGIT))


def margin(y, length):
    present, absent = ops.square(ops.maximum(0.0, 0.9 - length)), ops.square(ops.maximum(0.0, length - 0.1))
    return ops.mean(ops.sum(y * present + 0.5 * (1 - y) * absent, 1))


def decoder():
    return keras.Sequential(
        [
            layers.Dense(7, activation="relu"),
            layers.Dense(9, activation="relu"),
            layers.Dense(SIDE * SIDE, activation="sigmoid"),
            layers.Reshape((SIDE, SIDE, 1)),
        ]
    )


def pair(routings=3, capsules=Capsules):
    """A model for training, with labels and a compiled loss, and one for evaluation."""
    x, y = layers.Input((SIDE, SIDE, 1)), layers.Input((CLASSES,))
    h = layers.Conv2D(CHANNELS, KERNEL, activation="relu")(x)
    u = layers.Reshape((-1, DIM))(layers.Conv2D(TYPES * DIM, KERNEL, strides=2)(h))
    v = capsules(CLASSES, DIGIT, routings)(layers.Lambda(squash)(u))
    length, decode = Length()(v), decoder()
    train = keras.Model([x, y], [length, decode(Mask()([v, y]))])
    train.compile(loss=[margin, "mse"], loss_weights=[1.0, 0.0005 * SIDE * SIDE])
    return train, keras.Model(x, [length, decode(Mask()(v))])


def wrong(routings=3):
    return pair(routings, WrongCapsules)


class Subclass(keras.Model):
    """A subclass, with labels as classes; a tuple comes out, the reconstruction first."""

    def __init__(self, n_class=CLASSES):
        super().__init__()
        self.first = layers.Conv2D(CHANNELS, KERNEL, activation="relu")
        self.second = layers.Conv2D(TYPES * DIM, KERNEL, strides=2)
        self.capsules = Capsules(n_class, DIGIT, 3)
        self.decode = decoder()
        self(tf.zeros((2, SIDE, SIDE, 1)))

    def call(self, images, labels=None, training=False):
        u = tf.reshape(self.second(self.first(images)), (tf.shape(images)[0], 9 * TYPES, DIM))
        v = self.capsules(squash(u))
        length = ops.sqrt(ops.sum(ops.square(v), -1) + 1e-9)
        chosen = ops.argmax(length, 1) if labels is None else labels
        present = tf.one_hot(tf.cast(chosen, tf.int32), CLASSES)
        return self.decode(tf.reshape(v * present[:, :, None], (-1, CLASSES * DIGIT))), length, v


def unbuilt():
    return keras.Sequential([layers.Conv2D(4, 3)])
