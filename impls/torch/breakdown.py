"""Where a training step's time goes: steps cut short after each of their parts, and a trace by PyTorch's profiler."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from harness.spec import Cut, EpochPlan
from impls.architecture import stages_of
from impls.torch.overlay import overlay
from impls.torch.steps import Steps

_Train = Callable[[EpochPlan], object]


def truncated(steps: Steps, train: _Train) -> list[Cut]:
    """See `harness.spec.Truncated`. Every step runs in `train` itself, in the place of the whole one."""
    nothing = torch.zeros(len(steps.model.loss_terms) + 1, dtype=steps.dtype, device=steps.device)

    def within(step: Callable[..., object]) -> _Train:
        """`train` with another step."""

        def ended(*inputs: Tensor) -> Tensor:
            step(*inputs)
            return nothing

        def run(plan: EpochPlan) -> None:
            vars(steps)["train_step"] = ended
            try:
                train(plan)
            finally:
                del vars(steps)["train_step"]
            if steps.device.type == "cuda":
                torch.cuda.synchronize(steps.device)

        return run

    def data(order: Tensor, shifts: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
        digits, labels = steps.batch_of(order, shifts)
        return overlay(digits), labels

    def cut(part: str, stage: Callable[..., Tensor]) -> Cut:
        def output(order: Tensor, shifts: Tensor, weight: Tensor, *kept: Tensor) -> Tensor:
            images, labels = data(order, shifts)
            return stage(steps.net, images, labels, *kept)

        forward = steps.compiled(output)

        def both(*inputs: Tensor) -> None:
            steps.adam.zero_grad()
            found = forward(*inputs)
            found.backward(found.detach())

        return Cut(part, within(both), within(forward))

    return [
        Cut("other", within(lambda *rest: None)),
        Cut("data", within(steps.compiled(data))),
        *(cut(part, stage) for part, stage in stages_of(steps.kind, steps.model).items()),
        Cut("loss", within(steps.training_gradients), within(steps.losses)),
        Cut("optimiser", train),
    ]


def trace(train: Callable[[], object], path: Path) -> None:
    """Runs `train` under PyTorch's profiler; `path`, which ends in .json.gz, opens in Perfetto (ui.perfetto.dev)."""
    with torch.profiler.profile() as profiler:
        train()
    profiler.export_chrome_trace(str(path))
