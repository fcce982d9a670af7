"""A typical CapsNet in PyTorch, and the three functions with which `capsbench parity` proves it right or wrong.

    cd examples
    capsbench parity --impl third_party_torch:Adapter

`CapsNet` knows nothing about the bench: images are (B, C, H, W), layers have its own names, and the primary capsules
are numbered type by type. `Adapter` loads the bench's weights and returns outputs and gradients. Copy it, replace this
network with your own, and change the lines that name its layers.

Break it to see what a verdict looks like: with `softmax(dim=2)`, the command says "L2 coupling after 1 routing
iteration: relative error 0.97", and where, what it found and what it expected there. Fix the lowest level first: the
errors above follow from it.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from capsbench import Loss, ModelSpec, OptimSpec, Outputs, Runtime, Weights

EPSILON = 1e-9  # under the root of every norm: for a capsule of zeros the plain norm has no gradient


def norm(x: Tensor, keepdim: bool = False) -> Tensor:
    return torch.sqrt((x * x).sum(-1, keepdim=keepdim) + EPSILON)


def squash(s: Tensor) -> Tensor:
    square = (s * s).sum(-1, keepdim=True)
    return square / (1 + square) / norm(s, keepdim=True) * s


class CapsNet(nn.Module):
    """Sabour, Frosst, Hinton 2017."""

    def __init__(
        self,
        image: tuple[int, int, int] = (1, 28, 28),
        classes: int = 10,
        channels: int = 256,
        kernel: int = 9,
        types: int = 32,
        dim: int = 8,
        digit_dim: int = 16,
        routing: int = 3,
        decoder_units: tuple[int, int] | None = (512, 1024),
    ) -> None:
        super().__init__()
        self.types, self.dim, self.routing = types, dim, routing
        grid = [(side - 2 * kernel + 1) // 2 + 1 for side in image[1:]]
        capsules = types * grid[0] * grid[1]
        self.conv = nn.Conv2d(image[0], channels, kernel)
        self.primary_caps = nn.Conv2d(channels, types * dim, kernel, stride=2)
        self.W = nn.Parameter(0.1 * torch.randn(classes, capsules, digit_dim, dim))
        self.decoder: nn.Sequential | None = None
        if decoder_units:
            first, second = decoder_units
            self.decoder = nn.Sequential(
                nn.Linear(classes * digit_dim, first),
                nn.ReLU(),
                nn.Linear(first, second),
                nn.ReLU(),
                nn.Linear(second, image[0] * image[1] * image[2]),
                nn.Sigmoid(),
            )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) -> digit capsules (B, classes, digit_dim), coupling coefficients (B, classes, capsules)."""
        u = self.primary_caps(F.relu(self.conv(x)))
        u = u.view(len(x), self.types, self.dim, -1).transpose(2, 3).reshape(len(x), -1, self.dim)
        u_hat = torch.einsum("jied,bid->bjie", self.W, squash(u))
        logits = torch.zeros(u_hat.shape[:3], dtype=x.dtype, device=x.device)
        for i in range(self.routing):
            c = logits.softmax(dim=1)  # over the classes
            v = squash((c[..., None] * u_hat).sum(2))
            if i < self.routing - 1:
                logits = logits + (u_hat * v[:, :, None]).sum(-1)
        return v, c  # pyright: ignore[reportPossiblyUnboundVariable]

    def reconstruct(self, v: Tensor, classes: Tensor) -> Tensor:
        """Digit capsules, all but each image's own class masked -> pixels (B, C * H * W)."""
        assert self.decoder is not None
        mask = F.one_hot(classes, v.shape[1]).to(v.dtype)
        return self.decoder((v * mask[:, :, None]).flatten(1))


class Adapter:
    """What `capsbench parity` asks for: `load`, `forward`, `loss_and_grads`. All arrays are NumPy's."""

    def __init__(self, model: ModelSpec, optim: OptimSpec, runtime: Runtime) -> None:
        if model.profile != "paper":
            raise ValueError(f'model.profile is "{model.profile}", but this network is the paper\'s')
        torch.set_num_threads(runtime.threads)
        self.model = model
        self.dtype = torch.float64 if runtime.precision == "fp64" else torch.float32
        height, width, channels = model.image
        self.net = CapsNet(
            (channels, height, width),
            model.classes,
            model.conv_channels,
            model.kernel,
            model.primary_types,
            model.primary_dim,
            model.digit_dim,
            model.routing,
            model.decoder_units if model.decoder else None,
        ).to(self.dtype)

    def canonical(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The network's tensors (weights, or their gradients) under the bench's names, as views in its layouts."""
        model, (height, width, channels) = self.model, self.model.image
        # (J, I, e, d) -> (I, J, d, e), and capsules from type by type to position by position
        w = tensors["W"].unflatten(1, (model.primary_types, *model.primary_grid))
        views = {
            "conv1.w": tensors["conv.weight"].permute(2, 3, 1, 0),  # OIHW -> HWIO
            "conv1.b": tensors["conv.bias"],
            "primary.w": tensors["primary_caps.weight"].permute(2, 3, 1, 0),
            "primary.b": tensors["primary_caps.bias"],
            "digit.w": w.permute(2, 3, 1, 0, 5, 4),  # (y, x, type, J, d, e)
        }
        if model.decoder:
            for number, layer in enumerate(("decoder.0", "decoder.2", "decoder.4"), start=1):
                views[f"dec{number}.w"] = tensors[f"{layer}.weight"].T
                views[f"dec{number}.b"] = tensors[f"{layer}.bias"]
            # pixels from (C, H, W) to (H, W, C)
            views["dec3.w"] = views["dec3.w"].unflatten(1, (channels, height, width)).permute(0, 2, 3, 1)
            views["dec3.b"] = views["dec3.b"].unflatten(0, (channels, height, width)).permute(1, 2, 0)
        return views

    def load(self, weights: Weights) -> None:
        """Loads the bench's weights: `capsbench.weight_table` has their names, shapes and layouts."""
        self.shapes = {name: array.shape for name, array in weights.items()}
        for name, view in self.canonical({n: p.data for n, p in self.net.named_parameters()}).items():
            view.copy_(torch.tensor(weights[name]).reshape(view.shape))

    def pixels(self, images: np.ndarray) -> Tensor:
        """uint8 (B, H, W, C) -> (B, C, H, W) in 0..1.

        The memory layout is channels first: with channels-last strides, convolutions use other kernels.
        """
        moved = torch.tensor(images).permute(0, 3, 1, 2)
        return moved.to(self.dtype, memory_format=torch.contiguous_format) / 255

    @torch.no_grad()
    def forward(self, images: np.ndarray) -> Outputs:
        """Without labels: the decoder sees the longest capsule."""
        v, c = self.net(self.pixels(images))
        lengths = norm(v)
        c = c.unflatten(2, (self.model.primary_types, *self.model.primary_grid)).permute(0, 3, 4, 2, 1)
        reconstruction = None
        if self.model.decoder:
            height, width, channels = self.model.image
            flat = self.net.reconstruct(v, lengths.argmax(1))
            reconstruction = flat.unflatten(1, (channels, height, width)).permute(0, 2, 3, 1).numpy()
        return Outputs(v.numpy(), lengths.numpy(), c.flatten(1, 3).numpy(), reconstruction)

    def loss_and_grads(self, images: np.ndarray, labels: np.ndarray) -> tuple[Loss, Weights]:
        """Training: the decoder sees the label's capsule. Losses are means over the images, `reconstruction` unweighted."""
        x, y = self.pixels(images), torch.tensor(labels).long()
        v, _ = self.net(x)
        target, lengths = F.one_hot(y, v.shape[1]).to(self.dtype), norm(v)
        margin = target * F.relu(0.9 - lengths) ** 2 + 0.5 * (1 - target) * F.relu(lengths - 0.1) ** 2
        margin, reconstruction = margin.sum(1).mean(), torch.zeros((), dtype=self.dtype)
        if self.model.decoder:
            reconstruction = ((self.net.reconstruct(v, y) - x.flatten(1)) ** 2).sum(1).mean()
        total = margin + 0.0005 * reconstruction
        self.net.zero_grad()
        total.backward()
        grads = self.canonical({name: p.grad for name, p in self.net.named_parameters() if p.grad is not None})
        arrays = {name: grad.numpy().reshape(self.shapes[name]) for name, grad in grads.items()}
        return Loss(total.item(), margin.item(), reconstruction.item()), arrays
