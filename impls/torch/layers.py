"""The capsule layers. Axis letters: B images, I primary capsules of d dimensions, J output capsules of e dimensions."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from harness.spec import SQUASH_EPSILON


def squash(s: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
    """Eq. 1: |s|^2 / (1 + |s|^2) * s / |s|, with |s| = sqrt(s.s + epsilon)."""
    square = (s * s).sum(-1, keepdim=True)
    return s * (square / (1 + square) / torch.sqrt(square + SQUASH_EPSILON))


def lengths(v: Float[Tensor, "*n e"]) -> Float[Tensor, "*n"]:
    """Capsule lengths |v| = sqrt(v.v + epsilon)."""
    return torch.sqrt((v * v).sum(-1) + SQUASH_EPSILON)


def scaled(x: Float[Tensor, "*n"], factor: float) -> Float[Tensor, "*n"]:
    """factor * x, at no cost where the profile's factor is 1."""
    return x if factor == 1 else factor * x


def votes(u: Float[Tensor, "B I d"], w: Float[Tensor, "I J d e"]) -> Float[Tensor, "B J I e"]:
    """Eq. 2: u_hat_j|i = W_ij u_i, as one matrix product per primary capsule."""
    capsules, classes, dim, digit_dim = w.shape
    product = torch.bmm(u.transpose(0, 1), w.transpose(1, 2).reshape(capsules, dim, classes * digit_dim))
    return product.view(capsules, -1, classes, digit_dim).permute(1, 2, 0, 3).contiguous()


def route(
    u_hat: Float[Tensor, "B J I e"], iterations: int, bias: Float[Tensor, "J e"] | None = None
) -> tuple[Float[Tensor, "B J e"], Float[Tensor, "B J I"]]:
    """Procedure 1, as matrix products over the votes: the output capsules, and the last coupling coefficients.

    `bias`, of profile `official`, is added to s_j in every iteration; the agreement is with the votes alone.
    """
    logits = u_hat.new_zeros((*u_hat.shape[:2], 1, u_hat.shape[2]))
    for iteration in range(iterations):
        coupling = torch.softmax(logits, dim=1)  # Eq. 3: over the output capsules
        s = coupling @ u_hat  # Eq. 2
        if bias is not None:
            s = s + bias[:, None]
        v = squash(s)
        if iteration < iterations - 1:
            logits = logits + v @ u_hat.mT
    return v.squeeze(2), coupling.squeeze(2)
