"""What an image shows: one digit, or K of them overlaid (section 6), and which of them were found."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Int


def overlay(digits: Float[Array, "B K y x c"]) -> Float[Array, "B y x c"]:
    """What the network sees of K digits: their sum, clipped at white (section 6.1)."""
    return digits[:, 0] if digits.shape[1] == 1 else jnp.minimum(digits.sum(1), 1)


def one_hot(classes: Int[Array, "*n"], like: Float[Array, "B J *e"]) -> Float[Array, "*n J"]:
    """1 at each class, with the number of classes and the precision of `like`."""
    return jax.nn.one_hot(classes, like.shape[1], dtype=like.dtype)


def present(labels: Int[Array, "B K"], like: Float[Array, "B J *e"]) -> Float[Array, "B J"]:
    """1 at the classes of all K digits that an image shows."""
    return one_hot(labels, like).max(1)


def winners(scores: Float[Array, "B J"], count: int) -> Int[Array, "B K"]:
    """The classes of the `count` highest scores, highest first; ties go to the first class."""
    return lax.top_k(scores, count)[1]


def is_right(predicted: Int[Array, "B K"], labels: Int[Array, "B K"]) -> Bool[Array, " B"]:
    """Whether all K predictions are the labels, in any order."""
    return (labels[:, :, None] == predicted[:, None, :]).any(2).all(1)
