"""`JaxImpl`: epochs as blocks of steps, and conversion to and from canonical weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Int, UInt8

from harness.spec import Cut, EpochPlan, EvalTotals, Loss, Moments, Outputs, TrainTotals, Weights, batched
from impls.jax import breakdown
from impls.jax.steps import BLOCK, Steps


class JaxImpl(Steps):
    """See `harness.spec.Impl`."""

    def _put(self, array: np.ndarray, dtype: type | None = None) -> Array:
        return jax.device_put(np.array(array, dtype), self.device)

    def _params(self, arrays: Weights) -> dict[str, Array]:
        return {name: self._put(array, self.dtype) for name, array in arrays.items()}

    def load(self, weights: Weights, moments: Moments | None = None) -> None:
        params = self._params(weights)
        optimiser = self.adam.init(params)
        if moments:
            first, second = self._params(moments.first), self._params(moments.second)
            optimiser = optax.ScaleByAdamState(jnp.int32(moments.step), first, second)
        # all committed to the device: a step is compiled once for each mixture of committed and uncommitted arrays
        self.state = (params, jax.device_put(optimiser, self.device))

    def _numpy(self, params: dict[str, Array]) -> Weights:
        return {name: np.array(array) for name, array in params.items()}

    def dump(self) -> Weights:
        return self._numpy(self.state[0])

    def dump_moments(self) -> Moments:
        optimiser = self.state[1]
        return Moments(int(optimiser.count), self._numpy(optimiser.mu), self._numpy(optimiser.nu))

    def stage(self, images: UInt8[np.ndarray, "N H W C"], labels: Int[np.ndarray, " N"]) -> None:
        self.images, self.labels = self._put(images), self._put(labels, np.int32)

    def forward(self, images: UInt8[np.ndarray, "B *K H W C"]) -> Outputs:
        found = self._outputs(self.state[0], self._put(images))
        fields: list[Any] = [None if array is None else np.array(array) for array in found]
        return Outputs(*fields)

    def loss_and_grads(
        self, images: UInt8[np.ndarray, "B *K H W C"], labels: Int[np.ndarray, " B *K"]
    ) -> tuple[Loss, Weights]:
        grads, means = self._gradients(self.state[0], self._put(images), self._put(labels, np.int32))
        return Loss(*means.tolist()), self._numpy(grads)

    def compile(self, batch: int) -> None:
        self.batch = batch
        weights = self.dump()
        moments = self.dump_moments() if int(self.state[1].count) else None  # `load` makes fresh ones
        self.train(EpochPlan.blank(self.model, batch))
        blank = np.zeros((1, *self.model.several, *self.model.image), np.uint8)
        self.evaluate(blank, np.zeros((1, *self.model.several), np.int32))
        self.load(weights, moments)

    def train(self, plan: EpochPlan) -> TrainTotals:
        order, shifts, weight = plan.steps()
        values: list[Array] = []
        for steps, count in _blocks((order, shifts, weight.astype(self.dtype), *plan.masks(self.model))):
            self.state, losses_and_correct = self._train_steps(self.state, (self.images, self.labels), steps, count)
            values.append(losses_and_correct)
        totals = np.concatenate(values, dtype=np.float64)[: len(order)]  # waits for the device, and compiles nothing
        count = len(plan.order)
        means = weight.sum(1) @ totals[:, :-1] / count
        return TrainTotals(count, Loss(*means.tolist()), round(totals[:, -1].sum()))

    def evaluate(self, images: UInt8[np.ndarray, "N *K H W C"], labels: Int[np.ndarray, " N *K"]) -> EvalTotals:
        parts = (images, labels.astype(np.int32), np.ones(len(labels), self.dtype))
        total = np.zeros(len(self.model.loss_terms))
        predicted: list[np.ndarray] = []
        for steps, count in _blocks(tuple(batched(part, self.batch) for part in parts)):
            sums, found = self._eval_steps(self.state[0], steps, count)
            total += np.array(sums, np.float64).sum(0)
            predicted.append(np.array(found, np.int64).reshape(-1, *self.model.several))
        return EvalTotals(Loss(*(total / len(labels)).tolist()), np.concatenate(predicted)[: len(labels)])

    def truncated(self) -> list[Cut]:
        return breakdown.truncated(self, self.train)

    def trace(self, plan: EpochPlan, path: Path) -> None:
        breakdown.trace(lambda: self.train(plan), path)

    def peak_bytes(self) -> int | None:
        return None if self.on_cpu else self.device.memory_stats()["peak_bytes_in_use"]


def _blocks(parts: tuple[np.ndarray, ...]) -> Iterator[tuple[tuple[np.ndarray, ...], int]]:
    """Arrays of steps in blocks of `BLOCK`, the last padded with zeros, and the number of real steps in each."""
    blocks = zip(*(batched(part, BLOCK) for part in parts), strict=True)
    for index, block in enumerate(blocks):
        yield block, min(BLOCK, len(parts[0]) - index * BLOCK)
