"""The CapsNet of section 4 as a module, and its losses."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from harness.spec import MARGIN_LAMBDA, MARGIN_MINUS, MARGIN_PLUS, RECONSTRUCTION_WEIGHT, ModelSpec
from impls.torch.layers import lengths, route, scaled, squash, votes

# canonical name -> parameter of the module, and the permutation that takes it to the canonical layout
CANONICAL = {
    "conv1.w": ("conv1.weight", (2, 3, 1, 0)),
    "conv1.b": ("conv1.bias", (0,)),
    "primary.w": ("primary.weight", (2, 3, 1, 0)),
    "primary.b": ("primary.bias", (0,)),
    "digit.w": ("digit", (0, 1, 2, 3)),
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

    def __init__(self, model: ModelSpec) -> None:
        super().__init__()
        self.model = model
        self.conv1 = nn.Conv2d(model.image[2], model.conv_channels, model.kernel)
        self.primary = nn.Conv2d(model.conv_channels, model.primary_types * model.primary_dim, model.kernel, stride=2)
        self.digit = nn.Parameter(
            torch.empty(model.primary_capsules, model.classes, model.primary_dim, model.digit_dim)
        )
        self.digit_bias = nn.Parameter(torch.empty(model.classes, model.digit_dim)) if model.digit_bias else None
        if model.decoder:
            self.dec1 = nn.Linear(model.classes * model.digit_dim, model.decoder_units[0])
            self.dec2 = nn.Linear(model.decoder_units[0], model.decoder_units[1])
            self.dec3 = nn.Linear(model.decoder_units[1], model.pixels)

    def forward(self, images: Float[Tensor, "B y x c"]) -> tuple[Float[Tensor, "B J e"], Float[Tensor, "B J I"]]:
        """Pixels in 0..1 to output capsules and coupling coefficients: no ReLU after the primary convolution."""
        conv1 = F.relu(self.conv1(images.permute(0, 3, 1, 2)))
        # scaling its input scales the convolution, but not its bias
        grid = self.primary(scaled(conv1, self.model.primary_scale))
        # channel = type * dim + d, so capsule i = (row * width + column) * types + type
        primary = grid.permute(0, 2, 3, 1).reshape(-1, self.model.primary_capsules, self.model.primary_dim)
        return route(votes(squash(primary), self.digit), self.model.routing, self.digit_bias)

    def decode(self, v: Float[Tensor, "B J e"], mask: Int[Tensor, " B"]) -> Float[Tensor, "B p"]:
        """Section 4.1: all but the capsule of class `mask` zeroed, two ReLU layers, a sigmoid layer."""
        masked = (v * one_hot(mask, v)[..., None]).flatten(1)
        return torch.sigmoid(self.dec3(F.relu(self.dec2(F.relu(self.dec1(masked))))))


def one_hot(classes: Int[Tensor, " B"], v: Float[Tensor, "B J e"]) -> Float[Tensor, "B J"]:
    """Masks for the capsules `v`, in their precision."""
    return F.one_hot(classes, v.shape[1]).to(v.dtype)


def margin_loss(length: Float[Tensor, "B J"], present: Float[Tensor, "B J"]) -> Float[Tensor, " B"]:
    """Eq. 4, summed over the classes."""
    missed = F.relu(MARGIN_PLUS - length) ** 2
    imagined = F.relu(length - MARGIN_MINUS) ** 2
    return (present * missed + MARGIN_LAMBDA * (1 - present) * imagined).sum(1)


def reconstruction_loss(reconstruction: Float[Tensor, "B p"], images: Float[Tensor, "B y x c"]) -> Float[Tensor, " B"]:
    """Section 4.1: the sum of squared differences of an image's pixels, not yet scaled down by 0.0005."""
    return ((reconstruction - images.flatten(1)) ** 2).sum(1)


def losses(
    net: CapsNet,
    v: Float[Tensor, "B J e"],
    images: Float[Tensor, "B y x c"],
    labels: Int[Tensor, " B"],
    mask: Int[Tensor, " B"],
) -> Float[Tensor, "3 B"]:
    """Each image's total, margin and reconstruction loss; the decoder sees the capsule of class `mask`."""
    margin = scaled(margin_loss(lengths(v), one_hot(labels, v)), net.model.margin_scale)
    if not net.model.decoder:
        return torch.stack([margin, margin, torch.zeros_like(margin)])
    reconstruction = reconstruction_loss(net.decode(v, mask), images)
    return torch.stack([margin + RECONSTRUCTION_WEIGHT * reconstruction, margin, reconstruction])
