"""CapsNets as people write them in PyTorch: small, each in its own style; first the right ones, then the wrong ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

SIDE, KERNEL, CHANNELS, TYPES, DIM, CLASSES, DIGIT = 14, 5, 6, 3, 4, 10, 5
INPUTS = 9 * TYPES


def squash(s, dim=-1):
    square = (s**2).sum(dim, keepdim=True)
    return square / (1 + square) / torch.sqrt(square + 1e-9) * s


def norm(v):
    return torch.sqrt((v**2).sum(-1) + 1e-9)


def route(u_hat, iterations, axis):
    """u_hat (B, J, I, e)."""
    logits = torch.zeros(u_hat.shape[:3])
    for i in range(iterations):
        c = F.softmax(logits, dim=axis)
        v = squash((c[..., None] * u_hat).sum(2))
        if i < iterations - 1:
            logits = logits + (u_hat * v[:, :, None]).sum(-1)
    return v, c


def dense(last=nn.Sigmoid):
    return nn.Sequential(
        nn.Linear(CLASSES * DIGIT, 7), nn.ReLU(), nn.Linear(7, 9), nn.ReLU(), nn.Linear(9, SIDE * SIDE), last()
    )


def masked(v, present):
    return (v * present[:, :, None]).flatten(1)


class Plain(nn.Module):
    """One primary convolution, capsules type by type; a decoder by itself; capsules and coupling come out."""

    axis = 1

    def __init__(self, routing=3):
        super().__init__()
        self.routing = routing
        self.first = nn.Conv2d(1, CHANNELS, KERNEL)
        self.second = nn.Conv2d(CHANNELS, TYPES * DIM, KERNEL, stride=2)
        self.W = nn.Parameter(torch.randn(CLASSES, INPUTS, DIGIT, DIM))
        self.decoder = dense()

    def capsules(self, x):
        u = self.second(F.relu(self.first(x)))
        return self.squash(u.view(len(x), TYPES, DIM, -1).transpose(2, 3).reshape(len(x), -1, DIM))

    def squash(self, s):
        return squash(s)

    def forward(self, x):
        return route(torch.einsum("jied,bid->bjie", self.W, self.capsules(x)), self.routing, self.axis)

    def reconstruct(self, v, classes):
        return self.decoder(masked(v, F.one_hot(classes, CLASSES).to(v.dtype)))


class DimensionList(nn.Module):
    """A convolution for each dimension; labels may be given, one-hot; a dictionary comes out, the reconstruction first."""

    last = nn.Sigmoid

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, CHANNELS, KERNEL)
        self.dims = nn.ModuleList([nn.Conv2d(CHANNELS, TYPES, KERNEL, stride=2) for _ in range(DIM)])
        self.route_weights = nn.Parameter(torch.randn(1, INPUTS, CLASSES, DIGIT, DIM))
        self.decoder = dense(self.last)

    def squash(self, s):
        return squash(s)

    def forward(self, x, y=None):
        x = F.relu(self.first(x), inplace=True)
        u = self.squash(torch.cat([conv(x).view(len(x), -1, 1) for conv in self.dims], dim=-1))
        u_hat = (self.route_weights @ u[:, :, None, :, None]).squeeze(-1).transpose(1, 2)
        v, _ = route(u_hat, 3, 1)
        length = norm(v)
        if y is None:
            y = torch.eye(CLASSES).index_select(0, length.argmax(1))
        return {"recon": self.decoder(masked(v, y)).view(-1, 1, SIDE, SIDE), "probs": length}


class Answer(NamedTuple):
    pixels: torch.Tensor
    probabilities: torch.Tensor
    digits: torch.Tensor


class TypeList(nn.Module):
    """A convolution for each type; labels must be given, as classes; a named tuple comes out."""

    def __init__(self, num_iterations):
        super().__init__()
        self.num_iterations = num_iterations
        self.first = nn.Conv2d(1, CHANNELS, KERNEL)
        self.types = nn.ModuleList([nn.Conv2d(CHANNELS, DIM, KERNEL, stride=2) for _ in range(TYPES)])
        self.W = nn.Parameter(torch.randn(INPUTS, DIM, CLASSES * DIGIT))
        self.decoder = dense()

    def forward(self, x, target):
        x = F.relu(self.first(x))
        u = torch.stack([conv(x) for conv in self.types], dim=1)
        u = squash(u.permute(0, 1, 3, 4, 2).reshape(len(x), -1, DIM))
        u_hat = u[:, :, None].matmul(self.W).view(len(x), INPUTS, CLASSES, DIGIT).transpose(1, 2)
        v, _ = route(u_hat, self.num_iterations, 1)
        present = torch.zeros(len(x), CLASSES).scatter_(1, target.view(-1, 1), 1.0)
        return Answer(self.decoder(masked(v, present)), norm(v), v.unsqueeze(-1))


@dataclass
class Thing:
    lengths: torch.Tensor
    strange: torch.Tensor


class ChannelsLast(nn.Module):
    """Images (B, H, W, C); squashed before the capsules are put in a row; a data class with a stranger in it; no decoder."""

    how_often = 3

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, CHANNELS, KERNEL)
        self.second = nn.Conv2d(CHANNELS, TYPES * DIM, KERNEL, stride=2)
        self.W = nn.Parameter(torch.randn(INPUTS, CLASSES, DIM, DIGIT))

    def forward(self, images):
        assert images.shape[-1] == 1
        u = self.second(F.relu(self.first(images.permute(0, 3, 1, 2))))
        u = squash(u.view(len(u), TYPES, DIM, 3, 3), dim=2).permute(0, 3, 4, 1, 2).reshape(len(u), -1, DIM)
        v, _ = route(torch.einsum("ijde,bid->bjie", self.W, u), self.how_often, 1)
        return Thing(norm(v), torch.zeros(len(u), 23))


class AllAlike(nn.Module):
    """As many classes as dimensions, before and after: shapes say nothing of the transformation's axes."""

    def __init__(self, routing=3):
        super().__init__()
        self.routing = routing
        self.first = nn.Conv2d(1, CHANNELS, KERNEL)
        self.second = nn.Conv2d(CHANNELS, 12, KERNEL, stride=2)
        self.W = nn.Parameter(torch.randn(1, 4, 27, 4, 4, 1))  # J, I, e, d

    def forward(self, x):
        u = self.second(F.relu(self.first(x)))
        u = squash(u.view(len(x), 3, 4, -1).transpose(2, 3).reshape(len(x), -1, 4))
        return route(torch.einsum("jied,bid->bjie", self.W[0, ..., 0], u), self.routing, 1)[0]


class WithLoss(DimensionList):
    """The loss is a method, in the order data, output, target, reconstructions."""

    reduction = "sum"

    def loss(self, data, output, target, reconstructions):
        margin = target * F.relu(0.9 - output) ** 2 + 0.5 * (1 - target) * F.relu(output - 0.1) ** 2
        pixels = F.mse_loss(reconstructions, data, reduction=self.reduction)
        return (margin.sum() + 0.0005 * pixels) / len(data)


class Coloured(Plain):
    """Three channels in, and out of the decoder."""

    def __init__(self, routing=3):
        super().__init__(routing)
        self.first = nn.Conv2d(3, CHANNELS, KERNEL)
        self.decoder[4] = nn.Linear(9, 3 * SIDE * SIDE)

    def reconstruct(self, v, classes):
        return super().reconstruct(v, classes).view(-1, 3, SIDE, SIDE)


class ByImage(Plain):
    """Votes are computed image by image: how many operations there are depends on the batch."""

    def forward(self, x):
        u = self.capsules(x)
        votes = [torch.einsum("jied,bid->bjie", self.W, u[i : i + 1]) for i in range(len(u))]
        return route(torch.cat(votes), self.routing, self.axis)


class OnlyForward(ChannelsLast):
    """Made for evaluation alone."""

    @torch.no_grad()
    def forward(self, images):
        return super().forward(images)


class ReturnsLoss(WithLoss):
    """The loss comes out where labels go in."""

    def forward(self, x, y=None):
        found = super().forward(x, y)
        if y is None:
            return found["recon"], found["probs"]
        return WithLoss.loss(self, x, found["probs"], y, found["recon"]), found["recon"], found["probs"]

    loss = None


class ForGpu(Plain):
    """Moves itself to a GPU, wherever it is."""

    def __init__(self):
        super().__init__()
        self.cuda()

    def forward(self, x):
        return super().forward(x.cuda() + torch.zeros(1, device="cuda").float())


made = Plain()


class WrongSoftmax(Plain):
    axis = 2


class WrongLoss(WithLoss):
    reduction = "mean"


class TwoFaults(DimensionList):
    """The squash of the primary capsules lacks its denominator, and the decoder ends in a tanh."""

    last = nn.Tanh

    def squash(self, s):
        return s * torch.sqrt((s**2).sum(-1, keepdim=True) + 1e-9)


class Neighbours(Plain):
    """Primary capsules are read from neighbouring places of one channel."""

    def capsules(self, x):
        return squash(self.second(F.relu(self.first(x))).view(len(x), -1, DIM))


class Early(Plain):
    """Makes one iteration of the three."""

    def forward(self, x):
        u_hat = torch.einsum("jied,bid->bjie", self.W, self.capsules(x))
        return route(u_hat, 1, 1)


class EarlyForGood(ChannelsLast):
    """Makes one iteration, and nothing says how many it should make."""

    how_often = 1


class Detached(Plain):
    """No gradient flows through the first iterations."""

    def forward(self, x):
        u_hat = torch.einsum("jied,bid->bjie", self.W, self.capsules(x))
        logits = torch.zeros(u_hat.shape[:3])
        for i in range(self.routing):
            c = F.softmax(logits, dim=1)
            used = u_hat if i == self.routing - 1 else u_hat.detach()
            v = squash((c[..., None] * used).sum(2))
            logits = logits + (used * v[:, :, None]).sum(-1)
        return v, c


def raises():
    raise RuntimeError("no luck")


class NeedsMore(Plain):
    def __init__(self, num_frobs):
        super().__init__()


class NoWeights(nn.Module):
    def forward(self, x):
        return x


class OneConvolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.only = nn.Conv2d(1, 10, 3)

    def forward(self, x):
        return self.only(x).mean((2, 3))


class FailsForward(Plain):
    def forward(self, x):
        raise ValueError("not today")


not_a_model = {"a": 1}


def scripted():
    return torch.jit.trace(Plain(), torch.zeros(1, 1, SIDE, SIDE))
