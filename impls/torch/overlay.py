"""What an image shows: one digit, or K of them overlaid (section 6), and which of them were found."""

from __future__ import annotations

from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F


def overlay(digits: Float[Tensor, "B K y x c"]) -> Float[Tensor, "B y x c"]:
    """What the network sees of K digits: their sum, clipped at white (section 6.1)."""
    return digits[:, 0] if digits.shape[1] == 1 else digits.sum(1).clamp(max=1)


def one_hot(classes: Int[Tensor, "*n"], like: Float[Tensor, "B J *e"]) -> Float[Tensor, "*n J"]:
    """1 at each class, with the number of classes and the precision of `like`."""
    return F.one_hot(classes, like.shape[1]).to(like.dtype)


def present(labels: Int[Tensor, "B K"], like: Float[Tensor, "B J *e"]) -> Float[Tensor, "B J"]:
    """1 at the classes of all K digits that an image shows."""
    return one_hot(labels, like).amax(1)


def winners(scores: Float[Tensor, "B J"], count: int) -> Int[Tensor, "B K"]:
    """The classes of the `count` highest scores, highest first; ties go to the first class."""
    return scores.sort(dim=1, descending=True, stable=True).indices[:, :count]


def is_right(predicted: Int[Tensor, "B K"], labels: Int[Tensor, "B K"]) -> Bool[Tensor, " B"]:
    """Whether all K predictions are the labels, in any order."""
    return (labels[:, :, None] == predicted[:, None, :]).any(2).all(1)
