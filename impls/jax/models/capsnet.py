"""The CapsNet of section 4 as a value made from its weights, and its losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from harness.spec import MARGIN_LAMBDA, MARGIN_MINUS, MARGIN_PLUS, RECONSTRUCTION_WEIGHT, ModelSpec
from impls.jax.convolution import PrimaryConvolution, convolution
from impls.jax.layers import digit_capsules, digit_votes, lengths, scaled, squash
from impls.jax.overlay import one_hot, present, winners
from impls.jax.precision import Precision, linear


@dataclass(frozen=True)
class CapsNet:
    """A network with weights `w`, under canonical names and in canonical layouts."""

    model: ModelSpec
    precision: Precision
    w: dict[str, Array]

    @property
    def primary(self) -> PrimaryConvolution:
        """The convolution whose channels are the primary capsules'."""
        weight, bias = self.w["primary.w"], self.w["primary.b"]
        return PrimaryConvolution(self.model.conv_grid, weight, bias, 2, self.precision)

    def __call__(
        self, images: Float[Array, "B y x c"], spectrum: Array | None = None
    ) -> tuple[Float[Array, "B J e"], Float[Array, "B J I"]]:
        """Pixels in 0..1 to output capsules and coupling coefficients: no ReLU after the primary convolution.

        `spectrum` is `primary.spectrum()`, given if the weights stay the same over many batches.
        """
        return self.digit_capsules(self.primary_capsules(images, spectrum))

    def once(self) -> tuple[Float[Array, "R phases*c f"] | None]:
        """The network's inputs besides the images, which stay the same over the batches of an evaluation."""
        return (self.primary.spectrum(),)

    def features(self, images: Float[Array, "B y x c"]) -> Float[Array, "B h w f"]:
        """The first convolution with its ReLU."""
        return jax.nn.relu(convolution(images, self.w["conv1.w"], 1, self.precision) + self.w["conv1.b"])

    def primary_capsules(self, images: Float[Array, "B y x c"], spectrum: Array | None = None) -> Float[Array, "B I d"]:
        conv1 = self.features(images)
        # scaling its input scales the convolution, but not its bias
        grid = self.primary(scaled(conv1, self.model.primary_scale), spectrum)
        # channel = type * dim + d, so capsule i = (row * width + column) * types + type
        return squash(grid.reshape(-1, self.model.primary_capsules, self.model.primary_dim))

    def digit_capsules(self, u: Float[Array, "B I d"]) -> tuple[Float[Array, "B J e"], Float[Array, "B J I"]]:
        bias = self.w["digit.b"] if self.model.digit_bias else None
        routing, leak = self.model.routing, self.model.none_of_the_above
        return digit_capsules(u, self.w["digit.w"], bias, routing, leak, self.precision)

    def decode(self, v: Float[Array, "B J e"], mask: Int[Array, "B K"]) -> Float[Array, "BK p"]:
        """Section 4.1: all but the capsule of class `mask` zeroed, two ReLU layers, a sigmoid layer.

        The K digits of an image are decoded one after the other, each only from its own capsule (section 6.2).
        """
        masked = (v[:, None] * one_hot(mask, v)[..., None]).reshape(mask.size, -1)
        hidden1 = jax.nn.relu(self._dense("dec1", masked))
        hidden2 = jax.nn.relu(self._dense("dec2", hidden1))
        return jax.nn.sigmoid(self._dense("dec3", hidden2))

    def _dense(self, layer: str, x: Float[Array, "B n"]) -> Float[Array, "B m"]:
        return linear(x, self.w[f"{layer}.w"], self.w[f"{layer}.b"], self.precision)


Network = CapsNet


def scores(model: ModelSpec, v: Float[Array, "B J e"]) -> Float[Array, "B J"]:
    """The lengths of the output capsules: the probabilities of the classes (section 2)."""
    return lengths(v)


def outputs(net: CapsNet, images: Float[Array, "B y x c"]) -> tuple[Array | None, ...]:
    """The fields of `harness.spec.Outputs`; the decoder sees the longest capsules."""
    model = net.model
    v, coupling = net(images)
    length, reconstruction = scores(model, v), None
    if model.decoder:
        found = net.decode(v, winners(length, model.overlaid))
        reconstruction = found.reshape(-1, *model.several, *model.image)
    return v, length, coupling.mT, reconstruction


def margin_loss(length: Float[Array, "B J"], present: Float[Array, "B J"]) -> Float[Array, " B"]:
    """Eq. 4, summed over the classes."""
    missed = jax.nn.relu(MARGIN_PLUS - length) ** 2
    imagined = jax.nn.relu(length - MARGIN_MINUS) ** 2
    return (present * missed + MARGIN_LAMBDA * (1 - present) * imagined).sum(1)


def reconstruction_loss(reconstruction: Float[Array, "BK p"], digits: Float[Array, "B K y x c"]) -> Float[Array, " B"]:
    """Section 4.1: the sum of squared pixel differences over all digits of an image, before scaling by 0.0005."""
    return ((reconstruction.reshape(len(digits), -1) - digits.reshape(len(digits), -1)) ** 2).sum(1)


def losses(
    net: CapsNet,
    v: Float[Array, "B J e"],
    digits: Float[Array, "B K y x c"],
    labels: Int[Array, "B K"],
    mask: Int[Array, "B K"],
) -> Float[Array, "3 B"]:
    """Each image's total, margin and reconstruction loss; the decoder sees the capsules of the classes `mask`."""
    margin = scaled(margin_loss(lengths(v), present(labels, v)), net.model.margin_scale)
    if not net.model.decoder:
        return jnp.stack([margin, margin, jnp.zeros_like(margin)])
    reconstruction = reconstruction_loss(net.decode(v, mask), digits)
    return jnp.stack([margin + RECONSTRUCTION_WEIGHT * reconstruction, margin, reconstruction])


def stages(model: ModelSpec) -> dict[str, Callable[..., Array]]:
    """See `impls.architecture`."""

    def conv1(net: CapsNet, images: Array, labels: Array) -> Float[Array, "B h w f"]:
        return net.features(images)

    def primary(net: CapsNet, images: Array, labels: Array) -> Float[Array, "B I d"]:
        return net.primary_capsules(images)

    def votes(net: CapsNet, images: Array, labels: Array) -> Float[Array, "B J I e"]:
        return digit_votes(net.primary_capsules(images), net.w["digit.w"], net.precision)

    def routing(net: CapsNet, images: Array, labels: Array) -> Float[Array, "B J e"]:
        return net(images)[0]

    def decoder(net: CapsNet, images: Array, labels: Array) -> Float[Array, "BK p"]:
        return net.decode(net(images)[0], labels)

    found: dict[str, Callable[..., Array]] = {"conv1": conv1, "primary": primary, "votes": votes, "routing": routing}
    return found | ({"decoder": decoder} if model.decoder else {})
