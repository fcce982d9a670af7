"""CapsNets as people write them in PyTorch, with the habits that the diagnosis must name. Nothing here knows the bench.

`Network` is an ordinary module, channels first, with capsules numbered type by type; `Habits` say how its author read
the paper. `adapter(habits)` is the class that `capsbench parity` takes.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.spec import Loss, ModelSpec, OptimSpec, Outputs, Runtime, Weights


@dataclass(frozen=True)
class Habits:
    """The defaults are right."""

    grouping: str = "types"  # "neighbours", "dimensions"
    conv_relu: bool = True
    primary_relu: bool = False
    primary_squashed: bool = True
    epsilon: float = 1e-9
    place: str = "inside"  # "outside", "product", "square"
    squash_dim: int = -1
    formula: str = "paper"  # "unit", "half"
    softmax_dim: int | None = 1  # of logits (B, J, I)
    detach: bool = False
    first: bool = False  # returns after the first iteration
    extra: int = 0  # iterations
    replaced: bool = False
    with_input: bool = False  # the agreement with s
    shared: bool = False
    length_softmax: bool = False
    length_epsilon: float = 1e-9
    shown: str = "label"  # what the decoder sees in training; "longest", "relative" (to the batch), "all"
    shown_later: str = "longest"  # "all"
    transposed: bool = False  # what the decoder sees
    sigmoid: bool = True
    swapped: bool = False
    squared: bool = True
    lam: float = 0.5
    margin: str = "right"  # "mean", "sum"
    reconstruction: str = "right"  # "mean", "sum"
    weight: float = 0.0005
    stopped: bool = False  # the reconstruction's gradient


def squash(s: Tensor, habits: Habits) -> Tensor:
    e, square = habits.epsilon, (s**2).sum(habits.squash_dim, keepdim=True)
    if habits.place == "square":
        square = square + e
        return square.sqrt() / ((0.5 if habits.formula == "half" else 1) + square) * s
    norm = (square + e).sqrt() if habits.place == "inside" else s.norm(dim=habits.squash_dim, keepdim=True)
    if habits.formula == "unit":
        return s / norm
    whole = (0.5 if habits.formula == "half" else 1) + square
    if habits.place == "product":
        return square * s / (whole * norm + e)
    return square / whole * s / (norm + e if habits.place == "outside" else norm)


class Network(nn.Module):
    def __init__(self, model: ModelSpec, habits: Habits) -> None:
        super().__init__()
        self.model, self.habits = model, habits
        height, width, channels = model.image
        self.conv = nn.Conv2d(channels, model.conv_channels, model.kernel)
        self.primary = nn.Conv2d(model.conv_channels, model.primary_types * model.primary_dim, model.kernel, stride=2)
        self.W = nn.Parameter(torch.empty(model.classes, model.primary_capsules, model.digit_dim, model.primary_dim))
        first, second = model.decoder_units
        self.fc1 = nn.Linear(model.classes * model.digit_dim, first)
        self.fc2 = nn.Linear(first, second)
        self.fc3 = nn.Linear(second, channels * height * width)

    def capsules(self, x: Tensor) -> Tensor:
        habits, types, dim = self.habits, self.model.primary_types, self.model.primary_dim
        x = self.conv(x)
        x = self.primary(F.relu(x) if habits.conv_relu else x)
        x = F.relu(x) if habits.primary_relu else x
        if habits.grouping == "neighbours":
            x = x.reshape(len(x), -1, dim)
        elif habits.grouping == "dimensions":
            x = x.reshape(len(x), dim, -1).transpose(1, 2)
        else:
            x = x.view(len(x), types, dim, -1).transpose(2, 3).reshape(len(x), -1, dim)
        return squash(x, habits) if habits.primary_squashed else x

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, J, e) and couplings (B, J, I)"""
        habits = self.habits
        u_hat = torch.einsum("jied,bid->bjie", self.W, self.capsules(x))
        b = u_hat.new_zeros(u_hat.shape[:3])
        count = self.model.routing + habits.extra
        for i in range(count):
            is_last = i == count - 1
            votes = u_hat.detach() if habits.detach and not is_last else u_hat
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the implicit axis
                c = F.softmax(b) if habits.softmax_dim is None else F.softmax(b, habits.softmax_dim)
            s = (c[..., None] * votes).sum(2)
            v = squash(s, habits)
            if habits.first or is_last:
                break
            agreement = (votes * (s if habits.with_input else v)[:, :, None]).sum(-1)
            if habits.shared:
                agreement = agreement.mean(0, keepdim=True).expand_as(b)
            b = agreement if habits.replaced else b + agreement
        return v, c

    def lengths(self, v: Tensor) -> Tensor:
        e = self.habits.length_epsilon
        found = ((v**2).sum(-1) + e).sqrt() if e else v.norm(dim=-1)
        return found.softmax(-1) if self.habits.length_softmax else found

    def decode(self, v: Tensor, shown: str, y: Tensor | None) -> Tensor:
        if shown != "all":
            lengths = self.lengths(v).softmax(0) if shown == "relative" else self.lengths(v)
            classes = y if shown == "label" and y is not None else lengths.argmax(1)
            v = v * F.one_hot(classes, v.shape[1]).to(v.dtype)[..., None]
        v = v.transpose(1, 2) if self.habits.transposed else v
        x = self.fc3(F.relu(self.fc2(F.relu(self.fc1(v.flatten(1))))))
        return x.sigmoid() if self.habits.sigmoid else x

    def losses(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        habits = self.habits
        v, _ = self(x)
        lengths, there = self.lengths(v), F.one_hot(y, v.shape[1]).to(v.dtype)
        plus, minus = (0.1, 0.9) if habits.swapped else (0.9, 0.1)
        missed, imagined = F.relu(plus - lengths), F.relu(lengths - minus)
        if habits.squared:
            missed, imagined = missed**2, imagined**2
        margin = there * missed + habits.lam * (1 - there) * imagined
        margin = {"right": margin.sum(1).mean(), "mean": margin.mean(), "sum": margin.sum()}[habits.margin]
        made = self.decode(v.detach() if habits.stopped else v, habits.shown, y)
        squares = (made - x.flatten(1)) ** 2
        reconstruction = {"right": squares.sum(1).mean(), "mean": squares.mean(), "sum": squares.sum()}
        made_up = reconstruction[habits.reconstruction]
        return margin + habits.weight * made_up, margin, made_up


def adapter(habits: Habits) -> type:
    """A class with the three functions that the bench asks for."""

    class Adapter:
        def __init__(self, model: ModelSpec, optim: OptimSpec, runtime: Runtime) -> None:
            torch.set_num_threads(runtime.threads)
            self.model, self.dtype = model, torch.float64 if runtime.precision == "fp64" else torch.float32
            self.net = Network(model, habits).to(self.dtype)

        def canonical(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            model, (height, width, channels) = self.model, self.model.image
            w = tensors["W"].unflatten(1, (model.primary_types, *model.primary_grid))
            return {
                "conv1.w": tensors["conv.weight"].permute(2, 3, 1, 0),
                "conv1.b": tensors["conv.bias"],
                "primary.w": tensors["primary.weight"].permute(2, 3, 1, 0),
                "primary.b": tensors["primary.bias"],
                "digit.w": w.permute(2, 3, 1, 0, 5, 4),
                **{f"dec{n}.w": tensors[f"fc{n}.weight"].T for n in (1, 2)},
                **{f"dec{n}.b": tensors[f"fc{n}.bias"] for n in (1, 2)},
                "dec3.w": tensors["fc3.weight"].T.unflatten(1, (channels, height, width)).permute(0, 2, 3, 1),
                "dec3.b": tensors["fc3.bias"].unflatten(0, (channels, height, width)).permute(1, 2, 0),
            }

        def load(self, weights: Weights) -> None:
            self.shapes = {name: w.shape for name, w in weights.items()}
            for name, view in self.canonical({n: p.data for n, p in self.net.named_parameters()}).items():
                view.copy_(torch.tensor(weights[name]).reshape(view.shape))

        def pixels(self, images: np.ndarray) -> Tensor:
            return torch.tensor(images).permute(0, 3, 1, 2).to(self.dtype).contiguous() / 255

        @torch.no_grad()
        def forward(self, images: np.ndarray) -> Outputs:
            v, c = self.net(self.pixels(images))
            c = c.unflatten(2, (self.model.primary_types, *self.model.primary_grid)).permute(0, 3, 4, 2, 1)
            height, width, channels = self.model.image
            made = self.net.decode(v, habits.shown_later, None).unflatten(1, (channels, height, width))
            return Outputs(
                v.numpy(), self.net.lengths(v).numpy(), c.flatten(1, 3).numpy(), made.permute(0, 2, 3, 1).numpy()
            )

        def loss_and_grads(self, images: np.ndarray, labels: np.ndarray) -> tuple[Loss, Weights]:
            self.net.zero_grad()
            total, margin, reconstruction = self.net.losses(self.pixels(images), torch.tensor(labels).long())
            total.backward()
            grads = self.canonical({name: p.grad for name, p in self.net.named_parameters() if p.grad is not None})
            arrays = {name: grad.numpy().reshape(self.shapes[name]) for name, grad in grads.items()}
            return Loss(total.item(), margin.item(), reconstruction.item()), arrays

    return Adapter


# What the diagnosis is to survive, by description.
A = Habits(softmax_dim=2, length_softmax=True, epsilon=0, length_epsilon=0)
B = Habits(grouping="neighbours", primary_relu=True, epsilon=1e-7)
C = Habits(grouping="neighbours", detach=True, epsilon=1e-7, place="outside", margin="sum", reconstruction="sum")
D = Habits(squash_dim=1, shared=True, shown="longest")
E = Habits(first=True, softmax_dim=None, shown="all", shown_later="all")
ONLY_EPSILON = Habits(epsilon=1e-7)
MEANS = Habits(margin="mean", reconstruction="mean", epsilon=0, length_epsilon=0)


class Softmaxes(adapter(A)): ...


class Neighbours(adapter(B)): ...


class Detached(adapter(C)): ...


class Shared(adapter(D)): ...


class Returns(adapter(E)): ...


class OnlyEpsilon(adapter(ONLY_EPSILON)): ...


class Means(adapter(MEANS)): ...


RELATIVE = Habits(squared=False, shown="relative", shown_later="relative", reconstruction="mean")
