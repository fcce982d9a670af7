"""`TorchImpl`: epochs of steps, and conversion to and from canonical weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from harness.spec import Cut, EpochPlan, EvalTotals, Loss, Moments, Outputs, TrainTotals, Weights, batched
from impls.torch import breakdown
from impls.torch.steps import Steps


class TorchImpl(Steps):
    """See `harness.spec.Impl`."""

    def _canonical(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The module's tensors under canonical names, as views in the canonical layout."""
        layouts = self.net.canonical(self.model).items()
        return {name: tensors[own].permute(order) for name, (own, order) in layouts if own in tensors}

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

    @torch.no_grad()
    def forward(self, images: UInt8[np.ndarray, "B *K H W C"]) -> Outputs:
        found = self.outputs(torch.tensor(images, device=self.device))
        fields: list[Any] = [None if tensor is None else tensor.cpu().numpy() for tensor in found]
        return Outputs(*fields)

    def loss_and_grads(
        self, images: UInt8[np.ndarray, "B *K H W C"], labels: Int[np.ndarray, " B *K"]
    ) -> tuple[Loss, Weights]:
        classes = torch.tensor(labels, dtype=torch.int64, device=self.device)
        grads, means = self.gradients(torch.tensor(images, device=self.device), classes)
        return Loss(*means.tolist()), self._numpy(grads)

    def compile(self, batch: int) -> None:
        self.batch = batch
        self.training_gradients(*(part[0] for part in self._steps(EpochPlan.blank(self.model, batch))))
        blank = np.zeros((1, *self.model.several, *self.model.image), np.uint8)
        self.evaluate(blank, np.zeros((1, *self.model.several), np.int64))

    def _steps(self, plan: EpochPlan) -> tuple[Tensor, ...]:
        """Order, shifts and weights of the steps, and dropout masks if the model has dropout."""
        order, shifts, weight = (torch.tensor(part, device=self.device) for part in plan.steps())
        masks = (torch.tensor(part, device=self.device) for part in plan.masks(self.model))
        return order.long(), shifts, weight.to(self.dtype), *masks

    def train(self, plan: EpochPlan) -> TrainTotals:
        total = torch.zeros(len(self.model.loss_terms) + 1, dtype=torch.float64, device=self.device)
        for chosen, moved, real, *kept in zip(*self._steps(plan), strict=True):
            values = self.train_step(chosen, moved, real, *kept)
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
            values, winners = self._eval_step(*batch, *once)
            total += values
            predicted.append(winners)
        found = torch.cat(predicted).cpu().numpy()[: len(labels)]
        loss = Loss(*(value / len(labels) for value in total.tolist()))
        return EvalTotals(loss, found.reshape(-1, *self.model.several))

    def truncated(self) -> list[Cut]:
        return breakdown.truncated(self, self.train)

    def trace(self, plan: EpochPlan, path: Path) -> None:
        breakdown.trace(lambda: self.train(plan), path)

    def peak_bytes(self) -> int | None:
        return torch.cuda.max_memory_allocated() if self.device.type == "cuda" else None
