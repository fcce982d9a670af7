"""The CapsNet of section 4 as a module, and its losses."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from harness.spec import MARGIN_LAMBDA, MARGIN_MINUS, MARGIN_PLUS, RECONSTRUCTION_WEIGHT, ModelSpec
from impls.torch.convolution import PrimaryConvolution
from impls.torch.layers import digit_capsules, digit_votes, lengths, scaled, squash
from impls.torch.overlay import one_hot, present, winners
from impls.torch.precision import linear

_CANONICAL = {
    "conv1.w": ("conv1.weight", (2, 3, 1, 0)),
    "conv1.b": ("conv1.bias", (0,)),
    "primary.w": ("primary.weight", (2, 3, 1, 0)),
    "primary.b": ("primary.bias", (0,)),
    "digit.w": ("digit", (0, 2, 1, 3)),
    "digit.b": ("digit_bias", (0, 1)),
    "dec1.w": ("dec1.weight", (1, 0)),
    "dec1.b": ("dec1.bias", (0,)),
    "dec2.w": ("dec2.weight", (1, 0)),
    "dec2.b": ("dec2.bias", (0,)),
    "dec3.w": ("dec3.weight", (1, 0)),
    "dec3.b": ("dec3.bias", (0,)),
}


class CapsNet(nn.Module):
    """Weights are set by `load`: the module's own initial values are never used."""

    def __init__(self, model: ModelSpec, precision: str) -> None:
        super().__init__()
        self.model, self.precision = model, precision
        self.conv1 = nn.Conv2d(model.image[2], model.conv_channels, model.kernel)
        filters = model.primary_types * model.primary_dim
        self.primary = PrimaryConvolution(model.conv_grid, model.conv_channels, filters, model.kernel, 2, precision)
        self.digit = nn.Parameter(
            torch.empty(model.primary_capsules, model.primary_dim, model.classes, model.digit_dim)
        )
        self.digit_bias = nn.Parameter(torch.empty(model.classes, model.digit_dim)) if model.digit_bias else None
        if model.decoder:
            self.dec1 = nn.Linear(model.classes * model.digit_dim, model.decoder_units[0])
            self.dec2 = nn.Linear(model.decoder_units[0], model.decoder_units[1])
            self.dec3 = nn.Linear(model.decoder_units[1], model.pixels)

    @staticmethod
    def canonical(model: ModelSpec) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Canonical name -> parameter of the module, and the permutation that takes it to the canonical layout.

        It lists all weights that a CapsNet can have, even those that the model lacks.
        """
        return _CANONICAL

    def forward(
        self, images: Float[Tensor, "B y x c"], spectrum: Tensor | None = None
    ) -> tuple[Float[Tensor, "B J e"], Float[Tensor, "B J I"]]:
        """Pixels in 0..1 to output capsules and coupling coefficients: no ReLU after the primary convolution.

        `spectrum` is `primary.spectrum()`, given if the weights stay the same over many batches.
        """
        return self.digit_capsules(self.primary_capsules(images, spectrum))

    def once(self) -> tuple[Tensor | None]:
        """The arguments of `forward` besides the images, which stay the same over the batches of an evaluation."""
        return (self.primary.spectrum(),)

    def features(self, images: Float[Tensor, "B y x c"]) -> Float[Tensor, "B h w f"]:
        """The first convolution with its ReLU."""
        # few input channels: as one product of all windows with all filters, faster than `Conv2d`
        windows = images.unfold(1, self.model.kernel, 1).unfold(2, self.model.kernel, 1)
        flat = windows.reshape(-1, self.conv1.weight[0].numel())
        conv1 = F.relu(linear(flat, self.conv1.weight.flatten(1), self.conv1.bias, self.precision), inplace=True)  # pyright: ignore[reportArgumentType]
        return conv1.view(*windows.shape[:3], -1)

    def primary_capsules(
        self, images: Float[Tensor, "B y x c"], spectrum: Tensor | None = None
    ) -> Float[Tensor, "B I d"]:
        conv1 = self.features(images)
        # scaling its input scales the convolution, but not its bias
        grid = self.primary(scaled(conv1, self.model.primary_scale), spectrum)
        # channel = type * dim + d, so capsule i = (row * width + column) * types + type
        return squash(grid.reshape(-1, self.model.primary_capsules, self.model.primary_dim))

    def digit_capsules(self, u: Float[Tensor, "B I d"]) -> tuple[Float[Tensor, "B J e"], Float[Tensor, "B J I"]]:
        return digit_capsules(
            u, self.digit, self.digit_bias, self.model.routing, self.model.none_of_the_above, self.precision
        )

    def decode(self, v: Float[Tensor, "B J e"], mask: Int[Tensor, "B K"]) -> Float[Tensor, "BK p"]:
        """Section 4.1: all but the capsule of class `mask` zeroed, two ReLU layers, a sigmoid layer.

        The K digits of an image are decoded one after the other, each only from its own capsule (section 6.2).
        """
        masked = v[:, None] * one_hot(mask, v)[..., None]
        hidden1 = F.relu(self._dense(self.dec1, masked.flatten(2).flatten(0, 1)))
        hidden2 = F.relu(self._dense(self.dec2, hidden1))
        return torch.sigmoid(self._dense(self.dec3, hidden2))

    def _dense(self, layer: nn.Linear, x: Float[Tensor, "B n"]) -> Float[Tensor, "B m"]:
        return linear(x, layer.weight, layer.bias, self.precision)


Network = CapsNet


def scores(model: ModelSpec, v: Float[Tensor, "B J e"]) -> Float[Tensor, "B J"]:
    """The lengths of the output capsules: the probabilities of the classes (section 2)."""
    return lengths(v)


def outputs(net: CapsNet, images: Float[Tensor, "B y x c"]) -> tuple[Tensor | None, ...]:
    """The fields of `harness.spec.Outputs`; the decoder sees the longest capsules."""
    model = net.model
    v, coupling = net(images)
    length, reconstruction = scores(model, v), None
    if model.decoder:
        reconstruction = net.decode(v, winners(length, model.overlaid)).reshape(-1, *model.several, *model.image)
    return v, length, coupling.mT, reconstruction


def margin_loss(length: Float[Tensor, "B J"], present: Float[Tensor, "B J"]) -> Float[Tensor, " B"]:
    """Eq. 4, summed over the classes."""
    missed = F.relu(MARGIN_PLUS - length) ** 2
    imagined = F.relu(length - MARGIN_MINUS) ** 2
    return (present * missed + MARGIN_LAMBDA * (1 - present) * imagined).sum(1)


def reconstruction_loss(
    reconstruction: Float[Tensor, "BK p"], digits: Float[Tensor, "B K y x c"]
) -> Float[Tensor, " B"]:
    """Section 4.1: the sum of squared pixel differences over all digits of an image, before scaling by 0.0005."""
    return ((reconstruction.view(len(digits), -1) - digits.flatten(1)) ** 2).sum(1)


def losses(
    net: CapsNet,
    v: Float[Tensor, "B J e"],
    digits: Float[Tensor, "B K y x c"],
    labels: Int[Tensor, "B K"],
    mask: Int[Tensor, "B K"],
) -> Float[Tensor, "3 B"]:
    """Each image's total, margin and reconstruction loss; the decoder sees the capsules of the classes `mask`."""
    margin = scaled(margin_loss(lengths(v), present(labels, v)), net.model.margin_scale)
    if not net.model.decoder:
        return torch.stack([margin, margin, torch.zeros_like(margin)])
    reconstruction = reconstruction_loss(net.decode(v, mask), digits)
    return torch.stack([margin + RECONSTRUCTION_WEIGHT * reconstruction, margin, reconstruction])


def stages(model: ModelSpec) -> dict[str, Callable[..., Tensor]]:
    """See `impls.architecture`."""

    def conv1(net: CapsNet, images: Tensor, labels: Tensor) -> Float[Tensor, "B h w f"]:
        return net.features(images)

    def primary(net: CapsNet, images: Tensor, labels: Tensor) -> Float[Tensor, "B I d"]:
        return net.primary_capsules(images)

    def votes(net: CapsNet, images: Tensor, labels: Tensor) -> Float[Tensor, "I B je"]:
        return digit_votes(net.primary_capsules(images), net.digit, net.precision)

    def routing(net: CapsNet, images: Tensor, labels: Tensor) -> Float[Tensor, "B J e"]:
        return net(images)[0]

    def decoder(net: CapsNet, images: Tensor, labels: Tensor) -> Float[Tensor, "BK p"]:
        return net.decode(net(images)[0], labels)

    found: dict[str, Callable[..., Tensor]] = {"conv1": conv1, "primary": primary, "votes": votes, "routing": routing}
    return found | ({"decoder": decoder} if model.decoder else {})
