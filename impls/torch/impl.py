"""`TorchImpl`, of whatever kind the model is: staging, the compiled steps, Adam, the way to and from canonical weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Int8, UInt8
from torch import Tensor

from harness.spec import (
    ADAM_BETA1,
    ADAM_BETA2,
    ADAM_EPSILON,
    EpochPlan,
    EvalTotals,
    Loss,
    ModelSpec,
    Moments,
    OptimSpec,
    Outputs,
    Runtime,
    TrainTotals,
    Weights,
    batched,
)
from impls.torch import breakdown
from impls.torch.models import ARCHITECTURES
from impls.torch.overlay import is_right, overlay, winners
from impls.torch.precision import configure


def shift_images(images: UInt8[Tensor, "B H W C"], shifts: Int8[Tensor, "B 2"]) -> UInt8[Tensor, "B H W C"]:
    """Each image moved (down, right) by its own whole pixels; what comes in is zero."""
    height, width = images.shape[1:3]
    rows = torch.arange(height, device=images.device) - shifts[:, :1]
    columns = torch.arange(width, device=images.device) - shifts[:, 1:]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    each = torch.arange(len(images), device=images.device)[:, None, None]
    moved = images[each, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None, :]]
    return moved * inside[..., None]


class TorchImpl:
    """See `harness.spec.Impl`."""

    def __init__(self, model: ModelSpec, optim: OptimSpec, runtime: Runtime) -> None:
        torch.set_num_threads(runtime.threads)
        configure(runtime.precision)
        self.model, self.optim = model, optim
        self.device = torch.device("cuda" if runtime.device == "gpu" else "cpu")
        self.dtype = torch.float64 if runtime.precision == "fp64" else torch.float32
        # MKL chooses a kernel at its first square root; where two threads make it at once, one of them may get the kernel
        # of low accuracy (1e-4) for that call: pytorch/pytorch#188792. One element is one thread's work.
        torch.sqrt(torch.ones(1, dtype=self.dtype))
        self.kind = ARCHITECTURES[model.kind]
        self._layouts = self.kind.canonical(model)
        self.net = self.kind.Network(model, runtime.precision).to(self.device, self.dtype)
        # the optimiser's own learning rate is replaced before every step
        self.adam = torch.optim.Adam(
            self._groups(), lr=optim.lr, betas=(ADAM_BETA1, ADAM_BETA2), eps=ADAM_EPSILON, fused=True
        )
        self._train_losses: Callable[..., Tensor] = self._losses
        self._eval_losses: Callable[..., tuple[Tensor, Tensor]] = self._evaluate
        # on a CPU the gradient rules written by hand leave torch.compile nothing to gain, and it takes half a minute
        if runtime.compile and self.device.type == "cuda":
            self._train_losses = torch.compile(self._losses, fullgraph=True, dynamic=False)
            self._eval_losses = torch.compile(self._evaluate, fullgraph=True, dynamic=False)

    def _groups(self) -> list[dict[str, Any]]:
        """The parameters, a group for each pair of learning rate and weight decay."""
        groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
        for name, parameter in self.net.named_parameters():
            groups.setdefault((self.optim.lr_scale(name), self.optim.weight_decay_of(name)), []).append(parameter)
        return [
            {"params": parameters, "scale": scale, "weight_decay": decay}
            for (scale, decay), parameters in groups.items()
        ]

    def _canonical(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The module's tensors under canonical names, as views in the canonical layout."""
        return {name: tensors[own].permute(order) for name, (own, order) in self._layouts.items() if own in tensors}

    def _parameters(self) -> dict[str, Tensor]:
        return dict(self.net.named_parameters())

    def _state(self, key: str) -> dict[str, Tensor]:
        """Adam's tensors of one kind under the parameters' names."""
        return {name: self.adam.state[parameter][key] for name, parameter in self.net.named_parameters()}

    @torch.no_grad()
    def load(self, weights: Weights, moments: Moments | None = None) -> None:
        self.step = moments.step if moments else 0
        for parameter in self.net.parameters():
            self.adam.state[parameter] = {
                "step": torch.tensor(float(self.step), device=self.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        self._copy(weights, self._parameters())
        if moments:
            self._copy(moments.first, self._state("exp_avg"))
            self._copy(moments.second, self._state("exp_avg_sq"))

    def _copy(self, arrays: Weights, tensors: dict[str, Tensor]) -> None:
        for name, tensor in self._canonical(tensors).items():
            tensor.copy_(torch.tensor(arrays[name]))

    def _numpy(self, tensors: dict[str, Tensor]) -> Weights:
        canonical = self._canonical(tensors)
        return {name: tensor.detach().contiguous().cpu().numpy().copy() for name, tensor in canonical.items()}

    def dump(self) -> Weights:
        return self._numpy(self._parameters())

    def dump_moments(self) -> Moments:
        return Moments(self.step, self._numpy(self._state("exp_avg")), self._numpy(self._state("exp_avg_sq")))

    def stage(self, images: UInt8[np.ndarray, "N H W C"], labels: Int[np.ndarray, " N"]) -> None:
        self.images = torch.tensor(images, device=self.device)
        self.labels = torch.tensor(labels, dtype=torch.int64, device=self.device)

    def _digits(self, images: UInt8[Tensor, "*n H W C"]) -> Float[Tensor, "B K H W C"]:
        """Pixels in 0..1, with an axis for the digits of an image, one or more."""
        return images.view(-1, self.model.overlaid, *self.model.image).to(self.dtype) / 255

    def _classes(self, labels: Int[Tensor, " B *K"]) -> Int[Tensor, "B K"]:
        return labels.view(-1, self.model.overlaid)

    def moved_digits(self, order: Int[Tensor, " B *K"], shifts: Int8[Tensor, "B *K 2"]) -> Float[Tensor, "B K H W C"]:
        """Of staged images."""
        return self._digits(shift_images(self.images[order.flatten()], shifts.view(-1, 2)))

    @torch.no_grad()
    def forward(self, images: UInt8[np.ndarray, "B *K H W C"]) -> Outputs:
        found = self.kind.outputs(self.net, overlay(self._digits(torch.tensor(images, device=self.device))))
        return Outputs(*(None if tensor is None else tensor.cpu().numpy() for tensor in found))

    def loss_and_grads(
        self, images: UInt8[np.ndarray, "B *K H W C"], labels: Int[np.ndarray, " B *K"]
    ) -> tuple[Loss, Weights]:
        digits = self._digits(torch.tensor(images, device=self.device))
        classes = self._classes(torch.tensor(labels, dtype=torch.int64, device=self.device))
        top, *_ = self.net(overlay(digits))
        means = self.kind.losses(self.net, top, digits, classes, classes).mean(1)
        self.adam.zero_grad()
        means[0].backward()
        grads = {name: parameter.grad for name, parameter in self._parameters().items()}
        return Loss(*means.tolist()), self._numpy(grads)

    def _losses(
        self,
        order: Int[Tensor, " B *K"],
        shifts: Int8[Tensor, "B *K 2"],
        weight: Float[Tensor, " B"],
        *kept: UInt8[Tensor, "B U"],
    ) -> Float[Tensor, " values"]:
        """Training losses of one step, means over the images of weight 1, and how many of them are right."""
        digits, labels = self.moved_digits(order, shifts), self._classes(self.labels[order])
        top, *_ = self.net(overlay(digits), *kept)
        means = self.kind.losses(self.net, top, digits, labels, labels) @ weight / weight.sum()
        correct = (is_right(self._predicted(top), labels) * weight).sum()
        return torch.cat([means, correct[None]])

    def _predicted(self, top: Tensor) -> Int[Tensor, "B K"]:
        return winners(self.kind.scores(self.model, top), self.model.overlaid)

    def _evaluate(
        self,
        images: UInt8[Tensor, "B *K H W C"],
        labels: Int[Tensor, " B *K"],
        weight: Float[Tensor, " B"],
        *once: Tensor | None,
    ) -> tuple[Float[Tensor, " T"], Int[Tensor, "B K"]]:
        """Losses summed over the images of weight 1, and every image's predicted classes."""
        digits, classes = self._digits(images), self._classes(labels)
        top, *_ = self.net(overlay(digits), *once)
        predicted = self._predicted(top)
        mask = classes if self.model.evaluation_mask == "label" else predicted
        return self.kind.losses(self.net, top, digits, classes, mask) @ weight, predicted

    def compile(self, batch: int) -> None:
        self.batch = batch
        self._gradients(*(part[0] for part in self._steps(EpochPlan.blank(self.model, batch))))
        blank = np.zeros((1, *self.model.several, *self.model.image), np.uint8)
        self.evaluate(blank, np.zeros((1, *self.model.several), np.int64))

    def _steps(self, plan: EpochPlan) -> tuple[Tensor, ...]:
        """Order, shifts and weights of the steps, and the masks of dropout where the model has any."""
        order, shifts, weight = (torch.tensor(part, device=self.device) for part in plan.steps())
        masks = (torch.tensor(part, device=self.device) for part in plan.masks(self.model))
        return order.long(), shifts, weight.to(self.dtype), *masks

    def _gradients(self, *step: Tensor) -> Float[Tensor, " values"]:
        """The losses of a step, and their gradients where Adam finds them."""
        self.adam.zero_grad()
        values = self._train_losses(*step)
        values[0].backward()
        return values.detach()

    def train(self, plan: EpochPlan) -> TrainTotals:
        total = torch.zeros(len(self.model.loss_terms) + 1, dtype=torch.float64, device=self.device)
        for chosen, moved, real, *kept in zip(*self._steps(plan), strict=True):
            values = self._gradients(chosen, moved, real, *kept)
            for group in self.adam.param_groups:
                group["lr"] = self.optim.lr_at(self.step) * group["scale"]
            self.adam.step()
            self.step += 1
            values[:-1] *= real.sum()
            total += values
        *sums, correct = total.tolist()
        count = len(plan.order)
        return TrainTotals(count, Loss(*(value / count for value in sums)), round(correct))

    @torch.no_grad()
    def evaluate(self, images: UInt8[np.ndarray, "N *K H W C"], labels: Int[np.ndarray, " N *K"]) -> EvalTotals:
        parts = (images, labels.astype(np.int64), np.ones(len(labels)))
        pixels, classes, weight = (torch.tensor(batched(part, self.batch), device=self.device) for part in parts)
        total = torch.zeros(len(self.model.loss_terms), dtype=torch.float64, device=self.device)
        predicted: list[Tensor] = []
        once = self.net.once()
        for batch in zip(pixels, classes, weight.to(self.dtype), strict=True):
            values, winners = self._eval_losses(*batch, *once)
            total += values
            predicted.append(winners)
        found = torch.cat(predicted).cpu().numpy()[: len(labels)]
        loss = Loss(*(value / len(labels) for value in total.tolist()))
        return EvalTotals(loss, found.reshape(-1, *self.model.several))

    def parts(self) -> dict[str, Callable[[], None]]:
        return breakdown.parts(self)

    def trace(self, plan: EpochPlan, path: Path) -> None:
        breakdown.trace(self, plan, path)

    def peak_bytes(self) -> int | None:
        return torch.cuda.max_memory_allocated() if self.device.type == "cuda" else None
