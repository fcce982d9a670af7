"""Where a training step's time goes: its parts, each by itself, and a trace by PyTorch's profiler."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from harness.spec import EpochPlan
from impls.torch.layers import CHUNK, route, route_vjp, votes, votes_vjp
from impls.torch.models import cnn
from impls.torch.models.capsnet import CapsNet, losses
from impls.torch.models.cnn import Cnn
from impls.torch.overlay import overlay
from impls.torch.precision import operand

if TYPE_CHECKING:
    from impls.torch.impl import TorchImpl


def parts(impl: TorchImpl) -> dict[str, Callable[[], None]]:
    """The parts of a training step of `impl.batch` images, on its weights and images; see `harness.spec.Profiled`."""
    shape = (impl.batch, impl.model.overlaid)
    order = torch.arange(math.prod(shape), device=impl.device).view(shape) % len(impl.labels)
    shifts = torch.ones((*shape, 2), dtype=torch.int8, device=impl.device)
    copies = [torch.nn.Parameter(parameter.detach().clone()) for parameter in impl.net.parameters()]
    for copy in copies:
        copy.grad = copy.detach()
    adam = torch.optim.Adam(copies, fused=True)
    layers = _cnn_layers if impl.model.kind == "cnn" else _capsnet_layers
    found: dict[str, Callable[[], object]] = {
        "data": lambda: overlay(impl.moved_digits(order, shifts)),
        **layers(impl.net, impl.moved_digits(order, shifts), impl.labels[order]),
        "optimiser": adam.step,
    }
    return {name: _blocking(part, impl.device) for name, part in found.items()}


def _capsnet_layers(net: CapsNet, digits: Tensor, labels: Tensor) -> dict[str, Callable[[], object]]:
    pixels = overlay(digits)
    with torch.no_grad():
        u = net.primary_capsules(pixels)
        v, _ = net.digit_capsules(u)
        w = operand(net.digit, net.precision)
        chunks = operand(u, net.precision).split(CHUNK if u.device.type == "cpu" else len(u))
        u_hats = [votes(chunk, w) for chunk in chunks]
    v.requires_grad_()
    convolutions = [*net.conv1.parameters(), *net.primary.parameters()]

    @torch.no_grad()
    def predict() -> None:
        """Votes twice: the backward pass makes them again."""
        for chunk, u_hat in zip(chunks, u_hats, strict=True):
            votes(chunk, w)
            votes(chunk, w)
            votes_vjp(chunk, w, u_hat)

    @torch.no_grad()
    def routing() -> None:
        for u_hat in u_hats:
            history = route(u_hat, net.model.classes, net.model.routing, net.digit_bias)
            route_vjp(u_hat, history, history[-1][2])

    found: dict[str, Callable[[], object]] = {
        "conv": lambda: _there_and_back(net.primary_capsules(pixels), convolutions),
        "votes": predict,
        "routing": routing,
        "decoder": lambda: _there_and_back(losses(net, v, digits, labels, labels).mean(1)[0], [v, *net.dense()]),
    }
    if not net.model.decoder:
        del found["decoder"]
    return found


def _cnn_layers(net: Cnn, digits: Tensor, labels: Tensor) -> dict[str, Callable[[], object]]:
    pixels = overlay(digits)
    features = net.features(pixels).detach().requires_grad_()
    shape = (len(pixels), net.model.dropped_units)
    kept = [torch.ones(shape, dtype=torch.uint8, device=pixels.device)] * bool(net.model.dropped_units)
    convolutions = [parameter for name, parameter in net.named_parameters() if name.startswith("conv")]
    dense = [parameter for name, parameter in net.named_parameters() if name.startswith("fc")]

    def loss() -> Tensor:
        return cnn.losses(net, net.logits(features, *kept), digits, labels, labels).mean()

    return {
        "conv": lambda: _there_and_back(net.features(pixels), convolutions),
        "dense": lambda: _there_and_back(loss(), [features, *dense]),
    }


def _there_and_back(result: Tensor, inputs: Sequence[Tensor]) -> None:
    torch.autograd.grad(result, inputs, torch.ones_like(result))


def _blocking(part: Callable[[], object], device: torch.device) -> Callable[[], None]:
    def run() -> None:
        part()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return run


def trace(impl: TorchImpl, plan: EpochPlan, path: Path) -> None:
    """Trains an epoch under PyTorch's profiler; `path`, which ends in .json.gz, opens in Perfetto (ui.perfetto.dev)."""
    with torch.profiler.profile() as profiler:
        impl.train(plan)
    profiler.export_chrome_trace(str(path))
