"""The CapsNet of section 4 as two functions: forward, keeping what the backward pass needs, and backward.

Weights, images, labels and results are arrays of one library (see `layers`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from array_api_compat import array_namespace
from jaxtyping import Float, Int

from harness.spec import (
    MARGIN_LAMBDA,
    MARGIN_MINUS,
    MARGIN_PLUS,
    RECONSTRUCTION_WEIGHT,
    Conventions,
    Loss,
    ModelSpec,
    Weights,
)
from impls.numpy import layers as F
from impls.numpy.layers import Array, exact, one_hot

SPECIFIED = Conventions()


@dataclass(frozen=True)
class Activations:
    """Everything computed on the way from B images of K digits each to the output capsules."""

    digits: Float[Array, "B K y x c"]  # one by one: what the decoder is to make
    images: Float[Array, "B y x c"]
    conv1: Float[Array, "B h w f"]  # after ReLU
    primary: Float[Array, "B I d"]  # before squash
    u: Float[Array, "B I d"]
    u_hat: Float[Array, "B J I e"]
    routing: F.Routing
    operand: Callable[[Array], Array]
    conventions: Conventions

    @property
    def v(self) -> Float[Array, "B J e"]:
        return self.routing[-1][2]


def forward(
    model: ModelSpec,
    w: Weights,
    digits: Float[Array, "B K y x c"],
    operand: Callable[[Array], Array] = exact,
    conventions: Conventions = SPECIFIED,
) -> Activations:
    """Pixels in 0..1, overlaid if there are several digits, to output capsules.

    ReLU convolution, primary capsules (no ReLU), votes, routing.
    `operand` rounds an operand of the convolutions, votes and decoder to the precision, here and in the
    backward pass; weights are already rounded.
    """
    xp = array_namespace(digits)
    images = F.overlay(digits)
    conv1 = F.relu(F.convolution(operand(images), w["conv1.w"], 1) + w["conv1.b"])
    grid = F.convolution(operand(conv1), w["primary.w"], 2) * model.primary_scale + w["primary.b"]
    # channel = type * dim + d, so capsule i = (row * width + column) * types + type
    primary = xp.reshape(grid, (-1, model.primary_capsules, model.primary_dim))
    u = F.squash(primary, conventions.squash_epsilon)
    u_hat = F.votes(operand(u), w["digit.w"])
    bias = w["digit.b"] if model.digit_bias else None
    routing = F.route(u_hat, model.routing, bias, conventions.squash_epsilon, model.none_of_the_above)
    return Activations(digits, images, conv1, primary, u, u_hat, routing, operand, conventions)


def decode(
    w: Weights, v: Float[Array, "B J e"], mask: Float[Array, "B K J"], operand: Callable[[Array], Array] = exact
) -> tuple[list[Float[Array, "BK n"]], Float[Array, "BK p"]]:
    """Section 4.1: all but the selected capsule zeroed, two ReLU layers, a sigmoid layer; also each layer's input.

    The K digits of an image are decoded one after the other, each only from its own capsule (section 6.2).
    """
    masked = v[:, None, :, :] * mask[..., None]
    inputs = [array_namespace(v).reshape(masked, (v.shape[0] * mask.shape[1], -1))]
    for layer in ("dec1", "dec2"):
        inputs.append(F.relu(operand(inputs[-1]) @ w[f"{layer}.w"] + w[f"{layer}.b"]))
    return inputs, F.sigmoid(operand(inputs[-1]) @ w["dec3.w"] + w["dec3.b"])


def scores(model: ModelSpec, acts: Activations) -> Float[Array, "B J"]:
    """The lengths of the output capsules: the probabilities of the classes (section 2)."""
    return F.lengths(acts.v, acts.conventions.length_epsilon)


def outputs(model: ModelSpec, w: Weights, acts: Activations) -> tuple[Array | None, ...]:
    """The fields of `harness.spec.Outputs`; the decoder sees the longest capsules."""
    xp = array_namespace(acts.v)
    lengths, reconstruction = scores(model, acts), None
    if model.decoder:
        _, pixels = decode(w, acts.v, one_hot(F.winners(lengths, model.overlaid), acts.v), acts.operand)
        reconstruction = xp.reshape(pixels, (-1, *model.several, *model.image))
    return acts.v, lengths, xp.permute_dims(acts.routing[-1][0], (0, 2, 1)), reconstruction


def margin_loss(lengths: Float[Array, "B J"], present: Float[Array, "B J"]) -> Float[Array, " B"]:
    """Eq. 4, summed over the classes."""
    missed, imagined = F.relu(MARGIN_PLUS - lengths) ** 2, F.relu(lengths - MARGIN_MINUS) ** 2
    xp = array_namespace(lengths)
    return xp.sum(present * missed + MARGIN_LAMBDA * (1 - present) * imagined, axis=1)


def reconstruction_loss(reconstruction: Float[Array, "BK p"], digits: Float[Array, "B K y x c"]) -> Float[Array, " B"]:
    """Section 4.1: the sum of squared pixel differences over all digits of an image, before scaling by 0.0005."""
    xp = array_namespace(digits)
    squares = (reconstruction - xp.reshape(digits, reconstruction.shape)) ** 2
    return xp.sum(xp.reshape(squares, (digits.shape[0], -1)), axis=1)


def mean_losses(
    model: ModelSpec, w: Weights, acts: Activations, labels: Int[Array, "B K"], mask: Int[Array, "B K"]
) -> Float[Array, "3"]:
    """Total, margin and reconstruction, means over the images; the decoder sees the capsules of the classes `mask`."""
    xp = array_namespace(acts.v)
    margin = model.margin_scale * xp.mean(margin_loss(scores(model, acts), F.present(labels, acts.v)))
    reconstruction = xp.zeros_like(margin)
    if model.decoder:
        _, pixels = decode(w, acts.v, one_hot(mask, acts.v), acts.operand)
        reconstruction = xp.mean(reconstruction_loss(pixels, acts.digits))
    return xp.stack([margin + RECONSTRUCTION_WEIGHT * reconstruction, margin, reconstruction])


def losses(model: ModelSpec, w: Weights, acts: Activations, labels: Int[Array, "B K"], mask: Int[Array, "B K"]) -> Loss:
    """`mean_losses`, copied back from the device."""
    means = mean_losses(model, w, acts, labels, mask)
    return Loss(float(means[0]), float(means[1]), float(means[2]))


def backward(model: ModelSpec, w: Weights, acts: Activations, labels: Int[Array, "B K"]) -> Weights:
    """The gradient of the mean training loss (decoder masked by the labels) for every weight."""
    xp, operand, epsilon = array_namespace(acts.v), acts.operand, acts.conventions.squash_epsilon
    count = acts.v.shape[0]
    grads: Weights = {}
    present, length = F.present(labels, acts.v), scores(model, acts)
    missed, imagined = F.relu(MARGIN_PLUS - length), F.relu(length - MARGIN_MINUS)
    grad_length = model.margin_scale / count * 2 * (MARGIN_LAMBDA * (1 - present) * imagined - present * missed)
    grad_v = F.lengths_vjp(acts.v, grad_length, acts.conventions.length_epsilon)
    if model.decoder:
        mask = one_hot(labels, acts.v)
        inputs, pixels = decode(w, acts.v, mask, operand)
        grad = 2 * RECONSTRUCTION_WEIGHT / count * (pixels - xp.reshape(acts.digits, pixels.shape))
        grad = grad * pixels * (1 - pixels)  # through the sigmoid
        for layer, x in zip(("dec3", "dec2", "dec1"), reversed(inputs), strict=True):
            grads[f"{layer}.w"], grads[f"{layer}.b"] = operand(x).T @ operand(grad), xp.sum(grad, axis=0)
            grad = operand(grad) @ w[f"{layer}.w"].T
            if layer != "dec1":
                grad = F.relu_vjp(x, grad)
        grad_v = grad_v + xp.sum(xp.reshape(grad, (*mask.shape, -1)) * mask[..., None], axis=1)
    grad_u_hat, grad_bias = F.route_vjp(acts.u_hat, acts.routing, grad_v, epsilon)
    if model.digit_bias:
        grads["digit.b"] = grad_bias
    grad_u, grads["digit.w"] = F.votes_vjp(operand(acts.u), w["digit.w"], operand(grad_u_hat))
    grad_grid = xp.reshape(F.squash_vjp(acts.primary, grad_u, epsilon), (count, *model.primary_grid, -1))
    grads["primary.b"] = xp.sum(grad_grid, axis=(0, 1, 2))
    grad_conv1, grads["primary.w"] = F.convolution_vjp(
        operand(acts.conv1), w["primary.w"], 2, operand(model.primary_scale * grad_grid)
    )
    grad_conv1 = F.relu_vjp(acts.conv1, grad_conv1)
    grads["conv1.b"] = xp.sum(grad_conv1, axis=(0, 1, 2))
    _, grads["conv1.w"] = F.convolution_vjp(operand(acts.images), w["conv1.w"], 1, operand(grad_conv1))
    return {name: grads[name] for name in w}
