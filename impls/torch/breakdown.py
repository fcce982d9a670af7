"""Where a training step's time goes: its parts, each timed separately, and a trace by PyTorch's profiler."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from impls.torch.overlay import overlay
from impls.torch.steps import Steps


def parts(steps: Steps, batch: int) -> dict[str, Callable[[], None]]:
    """The parts of a training step of `batch` images, on the current weights and images.

    See `harness.spec.Profiled`.
    """
    shape = (batch, steps.model.overlaid)
    order = torch.arange(math.prod(shape), device=steps.device).view(shape) % len(steps.labels)
    shifts = torch.ones((*shape, 2), dtype=torch.int8, device=steps.device)
    copies = [torch.nn.Parameter(parameter.detach().clone()) for parameter in steps.net.parameters()]
    for copy in copies:
        copy.grad = copy.detach()
    adam = torch.optim.Adam(copies, fused=True)
    found: dict[str, Callable[[], object]] = {
        "data": lambda: overlay(steps.batch_of(order, shifts)[0]),
        **steps.kind.parts(steps.net, *steps.batch_of(order, shifts), _both),
        "optimiser": adam.step,
    }
    return {name: _blocking(part, steps.device) for name, part in found.items()}


def _both(function: Callable[..., Tensor], inputs: Sequence[Tensor], weights: Sequence[Tensor]) -> Callable[[], object]:
    """Runs the function, and computes the gradients for its inputs and the weights from a gradient of ones."""
    sources = [*inputs, *weights]

    def run() -> None:
        result = function(*inputs)
        torch.autograd.grad(result, sources, torch.ones_like(result))

    return run


def _blocking(part: Callable[[], object], device: torch.device) -> Callable[[], None]:
    def run() -> None:
        part()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return run


def trace(train: Callable[[], object], path: Path) -> None:
    """Runs `train` under PyTorch's profiler; `path`, which ends in .json.gz, opens in Perfetto (ui.perfetto.dev)."""
    with torch.profiler.profile() as profiler:
        train()
    profiler.export_chrome_trace(str(path))
