"""What an image shows: one digit, or K of them overlaid (section 6), and which of them were found."""

from __future__ import annotations

import tensorflow as tf
from jaxtyping import Bool, Float, Int
from tensorflow import Tensor


def overlay(digits: Float[Tensor, "B K y x c"]) -> Float[Tensor, "B y x c"]:
    """What the network sees of K digits: their sum, clipped at white (section 6.1)."""
    return digits[:, 0] if digits.shape[1] == 1 else tf.minimum(tf.reduce_sum(digits, 1), 1)


def one_hot(classes: Int[Tensor, "*n"], like: Float[Tensor, "B J *e"]) -> Float[Tensor, "*n J"]:
    """1 at each class, with the number of classes and the precision of `like`."""
    return tf.one_hot(classes, like.shape[1], dtype=like.dtype)


def present(labels: Int[Tensor, "B K"], like: Float[Tensor, "B J *e"]) -> Float[Tensor, "B J"]:
    """1 at the classes of all K digits that an image shows."""
    return tf.reduce_max(one_hot(labels, like), 1)


def winners(scores: Float[Tensor, "B J"], count: int) -> Int[Tensor, "B K"]:
    """The classes of the `count` highest scores, highest first; ties go to the first class."""
    return tf.math.top_k(scores, count).indices


def is_right(predicted: Int[Tensor, "B K"], labels: Int[Tensor, "B K"]) -> Bool[Tensor, " B"]:
    """Whether all K predictions are the labels, in any order."""
    return tf.reduce_all(tf.reduce_any(labels[:, :, None] == predicted[:, None, :], 2), 1)
