"""The CapsNet of section 4 as two functions: forward, keeping what the backward pass needs, and backward."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from harness.spec import MARGIN_LAMBDA, MARGIN_MINUS, MARGIN_PLUS, RECONSTRUCTION_WEIGHT, Loss, ModelSpec, Weights
from impls.numpy import layers as F

Array = np.ndarray


@dataclass(frozen=True)
class Activations:
    """Everything computed on the way from B images to the output capsules."""

    images: Float[Array, "B y x c"]
    conv1: Float[Array, "B h w f"]  # after ReLU
    primary: Float[Array, "B I d"]  # before squash
    u: Float[Array, "B I d"]
    u_hat: Float[Array, "B J I e"]
    routing: F.Routing

    @property
    def v(self) -> Float[Array, "B J e"]:
        return self.routing[-1][2]


def forward(model: ModelSpec, w: Weights, images: Float[Array, "B y x c"]) -> Activations:
    """Pixels in 0..1 to output capsules: ReLU convolution, primary capsules (no ReLU), votes, routing."""
    conv1 = np.maximum(F.convolution(images, w["conv1.w"], 1) + w["conv1.b"], 0)
    grid = F.convolution(conv1, w["primary.w"], 2) + w["primary.b"]
    # channel = type * dim + d, so capsule i = (row * width + column) * types + type
    primary = grid.reshape(len(images), model.primary_capsules, model.primary_dim)
    u = F.squash(primary)
    u_hat = F.votes(u, w["digit.w"])
    return Activations(images, conv1, primary, u, u_hat, F.route(u_hat, model.routing))


def one_hot(classes: Int[Array, " B"], v: Float[Array, "B J e"]) -> Float[Array, "B J"]:
    """Masks for the capsules `v`, in their precision."""
    return np.eye(v.shape[1], dtype=v.dtype)[classes]


def decode(
    w: Weights, v: Float[Array, "B J e"], mask: Float[Array, "B J"]
) -> tuple[list[Float[Array, "B n"]], Float[Array, "B p"]]:
    """Section 4.1: all but the masked-in capsule zeroed, two ReLU layers, a sigmoid layer; and each layer's input."""
    inputs = [(v * mask[..., None]).reshape(len(v), -1)]
    for layer in ("dec1", "dec2"):
        inputs.append(np.maximum(inputs[-1] @ w[f"{layer}.w"] + w[f"{layer}.b"], 0))
    return inputs, F.sigmoid(inputs[-1] @ w["dec3.w"] + w["dec3.b"])


def margin_loss(lengths: Float[Array, "B J"], present: Float[Array, "B J"]) -> Float[Array, " B"]:
    """Eq. 4, summed over the classes."""
    missed = np.maximum(0, MARGIN_PLUS - lengths) ** 2
    imagined = np.maximum(0, lengths - MARGIN_MINUS) ** 2
    return (present * missed + MARGIN_LAMBDA * (1 - present) * imagined).sum(1)


def reconstruction_loss(reconstruction: Float[Array, "B p"], images: Float[Array, "B y x c"]) -> Float[Array, " B"]:
    """Section 4.1: the sum of squared differences of an image's pixels, not yet scaled down by 0.0005."""
    return ((reconstruction - images.reshape(reconstruction.shape)) ** 2).sum(1)


def losses(model: ModelSpec, w: Weights, acts: Activations, labels: Int[Array, " B"], mask: Int[Array, " B"]) -> Loss:
    """Mean losses; the decoder sees the capsule of class `mask`."""
    margin = margin_loss(F.lengths(acts.v), one_hot(labels, acts.v)).mean()
    reconstruction = 0.0
    if model.decoder:
        _, pixels = decode(w, acts.v, one_hot(mask, acts.v))
        reconstruction = reconstruction_loss(pixels, acts.images).mean()
    return Loss(float(margin + RECONSTRUCTION_WEIGHT * reconstruction), float(margin), float(reconstruction))


def backward(model: ModelSpec, w: Weights, acts: Activations, labels: Int[Array, " B"]) -> Weights:
    """The gradient of the mean training loss (decoder masked by the label) for every weight."""
    count = len(labels)
    grads: Weights = {}
    present = one_hot(labels, acts.v)
    length = F.lengths(acts.v)
    missed, imagined = np.maximum(0, MARGIN_PLUS - length), np.maximum(0, length - MARGIN_MINUS)
    grad_length = (-2 * present * missed + 2 * MARGIN_LAMBDA * (1 - present) * imagined) / count
    grad_v = (grad_length / length)[..., None] * acts.v
    if model.decoder:
        inputs, pixels = decode(w, acts.v, present)
        grad = 2 * RECONSTRUCTION_WEIGHT / count * (pixels - acts.images.reshape(pixels.shape))
        grad = grad * pixels * (1 - pixels)
        for layer, x in zip(("dec3", "dec2", "dec1"), reversed(inputs), strict=True):
            grads[f"{layer}.w"], grads[f"{layer}.b"] = x.T @ grad, grad.sum(0)
            grad = grad @ w[f"{layer}.w"].T
            if layer != "dec1":
                grad = grad * (x > 0)
        grad_v = grad_v + grad.reshape(grad_v.shape) * present[..., None]
    grad_u_hat = F.route_vjp(acts.u_hat, acts.routing, grad_v)
    grad_u, grads["digit.w"] = F.votes_vjp(acts.u, w["digit.w"], grad_u_hat)
    grad_grid = F.squash_vjp(acts.primary, grad_u).reshape(count, *model.primary_grid, -1)
    grad_conv1, grads["primary.w"] = F.convolution_vjp(acts.conv1, w["primary.w"], 2, grad_grid)
    grads["primary.b"] = grad_grid.sum((0, 1, 2))
    grad_conv1 = grad_conv1 * (acts.conv1 > 0)
    _, grads["conv1.w"] = F.convolution_vjp(acts.images, w["conv1.w"], 1, grad_conv1)
    grads["conv1.b"] = grad_conv1.sum((0, 1, 2))
    return {name: grads[name] for name in w}
