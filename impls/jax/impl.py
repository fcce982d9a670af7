"""`JaxImpl`, of whatever kind the model is: staging, the compiled steps, Adam, the way to and from canonical weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from jaxtyping import Float, Int, Int8, UInt8

from harness.spec import (
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
from impls.jax import breakdown
from impls.jax.models import ARCHITECTURES
from impls.jax.models.capsnet import Params
from impls.jax.optim import adam, add_decayed_weights
from impls.jax.overlay import is_right, overlay, winners
from impls.jax.precision import Products

State = tuple[Params, optax.ScaleByAdamState]

BLOCK = 64
"""Steps in one call of a compiled program, which does fewer if fewer are left."""


def shift_images(images: UInt8[Array, "B H W C"], shifts: Int8[Array, "B 2"]) -> UInt8[Array, "B H W C"]:
    """Each image moved (down, right) by its own whole pixels; what comes in is zero."""
    height, width = images.shape[1:3]
    rows = jnp.arange(height) - shifts[:, :1]
    columns = jnp.arange(width) - shifts[:, 1:]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    each = jnp.arange(len(images))[:, None, None]
    moved = images[each, rows.clip(0, height - 1)[:, :, None], columns.clip(0, width - 1)[:, None, :]]
    return moved * inside[..., None]


def _blocks(parts: tuple[np.ndarray, ...]) -> Iterator[tuple[tuple[np.ndarray, ...], int]]:
    """Arrays of steps in blocks of `BLOCK`, the last filled up with zeros, and how many steps of each are real."""
    blocks = zip(*(batched(part, BLOCK) for part in parts), strict=True)
    for index, block in enumerate(blocks):
        yield block, min(BLOCK, len(parts[0]) - index * BLOCK)


def _eager_loop(count: int, step: Callable[[int, Any], Any], carry: Any) -> Any:
    """`lax.fori_loop` from 0, which would compile the step."""
    for index in range(count):
        carry = step(index, carry)
    return carry


class JaxImpl:
    """See `harness.spec.Impl`. The weights are a dictionary under canonical names; every step returns a new one."""

    def __init__(self, model: ModelSpec, optim: OptimSpec, runtime: Runtime) -> None:
        if runtime.precision == "fp64":
            jax.config.update("jax_enable_x64", True)
        jax.config.update("jax_default_matmul_precision", "highest")  # strict float32 where the device has less
        self.model, self.optim, self.dtype = model, optim, runtime.dtype
        self.kind = ARCHITECTURES[model.kind]
        self.on_cpu = runtime.device == "cpu"
        self.products = Products(self.on_cpu, runtime.precision)
        self.device = jax.devices(runtime.device)[0]
        self._loop = partial(lax.fori_loop, 0) if runtime.compile else _eager_loop
        self.adam = adam(optim, self.dtype)
        # what is compared and never timed is compiled for haste
        haste = {"xla_backend_optimization_level": 0} if self.on_cpu else None
        self.compiled, self.compiler_options = runtime.compile, haste if runtime.precision == "fp64" else None
        # the old state's memory is given to the new one
        self._train_block = self.jit(self._train_steps, donate_argnums=0)
        self._eval_block = self.jit(self._evaluate_steps)
        self._outputs = self.jit(self._forward, compiler_options=haste)
        self._grads = self.jit(self._loss_and_grads, compiler_options=haste)

    def jit(self, function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        """The function compiled, as training is unless `options` say otherwise; or as it is, in eager mode."""
        return jax.jit(function, **{"compiler_options": self.compiler_options} | options) if self.compiled else function

    def _device(self, array: np.ndarray, dtype: type | None = None) -> Array:
        return jax.device_put(np.array(array, dtype), self.device)

    def _params(self, arrays: Weights) -> Params:
        return {name: self._device(array, self.dtype) for name, array in arrays.items()}

    def load(self, weights: Weights, moments: Moments | None = None) -> None:
        params = self._params(weights)
        optimiser = self.adam.init(params)
        if moments:
            first, second = self._params(moments.first), self._params(moments.second)
            optimiser = optax.ScaleByAdamState(jnp.int32(moments.step), first, second)
        # all of it bound to the device, or a step would be compiled once for each mixture of bound and free
        self.state: State = (params, jax.device_put(optimiser, self.device))

    def _numpy(self, params: Params) -> Weights:
        return {name: np.array(array) for name, array in params.items()}

    def dump(self) -> Weights:
        return self._numpy(self.state[0])

    def dump_moments(self) -> Moments:
        optimiser = self.state[1]
        return Moments(int(optimiser.count), self._numpy(optimiser.mu), self._numpy(optimiser.nu))

    def stage(self, images: UInt8[np.ndarray, "N H W C"], labels: Int[np.ndarray, " N"]) -> None:
        self.images, self.labels = self._device(images), self._device(labels, np.int32)

    def _digits(self, images: UInt8[Array, "*n H W C"]) -> Float[Array, "B K H W C"]:
        """Pixels in 0..1, with an axis for the digits of an image, one or more."""
        return images.reshape(-1, self.model.overlaid, *self.model.image).astype(self.dtype) / 255

    def _classes(self, labels: Int[Array, " B *K"]) -> Int[Array, "B K"]:
        return labels.reshape(-1, self.model.overlaid)

    def moved_digits(
        self, images: UInt8[Array, "N H W C"], order: Int[Array, " B *K"], shifts: Int8[Array, "B *K 2"]
    ) -> Float[Array, "B K H W C"]:
        """A batch of the staged images, gathered and shifted."""
        return self._digits(shift_images(images[order.ravel()], shifts.reshape(-1, 2)))

    def _forward(self, params: Params, images: UInt8[Array, "B *K H W C"]) -> tuple[Array | None, ...]:
        return self.kind.outputs(self.model, params, overlay(self._digits(images)), self.products)

    def forward(self, images: UInt8[np.ndarray, "B *K H W C"]) -> Outputs:
        found = self._outputs(self.state[0], self._device(images))
        return Outputs(*(None if array is None else np.array(array) for array in found))

    def _loss_and_grads(
        self, params: Params, images: UInt8[Array, "B *K H W C"], labels: Int[Array, " B *K"]
    ) -> tuple[Params, Float[Array, " T"]]:
        digits, classes = self._digits(images), self._classes(labels)

        def mean_losses(params: Params) -> tuple[Float[Array, ""], Float[Array, " T"]]:
            top, *_ = self.kind.network(self.model, params, overlay(digits), self.products)
            means = self.kind.losses(self.model, params, top, digits, classes, classes, self.products).mean(1)
            return means[0], means

        return jax.grad(mean_losses, has_aux=True)(params)

    def loss_and_grads(
        self, images: UInt8[np.ndarray, "B *K H W C"], labels: Int[np.ndarray, " B *K"]
    ) -> tuple[Loss, Weights]:
        grads, means = self._grads(self.state[0], self._device(images), self._device(labels, np.int32))
        return Loss(*means.tolist()), self._numpy(grads)

    def _train(
        self,
        state: State,
        data: tuple[UInt8[Array, "N H W C"], Int[Array, " N"]],
        order: Int[Array, " B *K"],
        shifts: Int8[Array, "B *K 2"],
        weight: Float[Array, " B"],
        *kept: UInt8[Array, "B U"],
    ) -> tuple[State, Float[Array, " values"]]:
        """One step. Losses are means over the images of weight 1; the last value is how many of them are right."""
        params, optimiser = state
        digits = self.moved_digits(data[0], order, shifts)
        labels = self._classes(data[1][order])

        def mean_losses(params: Params) -> tuple[Float[Array, ""], Float[Array, " values"]]:
            top, *_ = self.kind.network(self.model, params, overlay(digits), self.products, *kept)
            values = self.kind.losses(self.model, params, top, digits, labels, labels, self.products)
            means = values @ weight / weight.sum()
            correct = (is_right(self._predicted(top), labels) * weight).sum()
            return means[0], jnp.append(means, correct)

        grads, values = jax.grad(mean_losses, has_aux=True)(params)
        grads = add_decayed_weights(self.optim, grads, params)
        updates, optimiser = self.adam.update(grads, optimiser)
        return (optax.apply_updates(params, updates), optimiser), values

    def _train_steps(
        self,
        state: State,
        data: tuple[UInt8[Array, "N H W C"], Int[Array, " N"]],
        steps: tuple[Array, ...],
        count: int | Int[Array, ""],
    ) -> tuple[State, Float[Array, "S values"]]:
        """The first `count` steps of a block, as one program: it takes its memory from the system once.

        `steps` are order, shifts and weights of each, and the masks of dropout where the model has any.
        """

        def step(
            index: Int[Array, ""], carry: tuple[State, Float[Array, "S values"]]
        ) -> tuple[State, Float[Array, "S values"]]:
            state, values = self._train(carry[0], data, *(part[index] for part in steps))
            return state, carry[1].at[index].set(values)

        return self._loop(count, step, (state, jnp.zeros((BLOCK, len(self.model.loss_terms) + 1), self.dtype)))

    def _predicted(self, top: Array) -> Int[Array, "B K"]:
        return winners(self.kind.scores(self.model, top), self.model.overlaid)

    def _evaluate(
        self,
        params: Params,
        once: tuple[Array | None, ...],
        images: UInt8[Array, "B *K H W C"],
        labels: Int[Array, " B *K"],
        weight: Float[Array, " B"],
    ) -> tuple[Float[Array, " T"], Int[Array, "B K"]]:
        """Losses summed over the images of weight 1, and every image's predicted classes."""
        digits, classes = self._digits(images), self._classes(labels)
        top, *_ = self.kind.network(self.model, params, overlay(digits), self.products, *once)
        predicted = self._predicted(top)
        mask = classes if self.model.evaluation_mask == "label" else predicted
        return self.kind.losses(self.model, params, top, digits, classes, mask, self.products) @ weight, predicted

    def _evaluate_steps(
        self,
        params: Params,
        steps: tuple[UInt8[Array, "S B *K H W C"], Int[Array, "S B *K"], Float[Array, "S B"]],
        count: int | Int[Array, ""],
    ) -> tuple[Float[Array, "S T"], Int[Array, "S B K"]]:
        """The first `count` steps of a block, as `_train_steps`."""
        once = self.kind.once(self.model, params, self.products)

        def step(
            index: Int[Array, ""], found: tuple[Float[Array, "S T"], Int[Array, "S B K"]]
        ) -> tuple[Float[Array, "S T"], Int[Array, "S B K"]]:
            sums, predicted = self._evaluate(params, once, *(part[index] for part in steps))
            return found[0].at[index].set(sums), found[1].at[index].set(predicted.astype(jnp.int32))

        sums = jnp.zeros((BLOCK, len(self.model.loss_terms)), self.dtype)
        return self._loop(count, step, (sums, jnp.zeros((*steps[2].shape, self.model.overlaid), jnp.int32)))

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
            self.state, losses_and_correct = self._train_block(self.state, (self.images, self.labels), steps, count)
            values.append(losses_and_correct)
        totals = np.concatenate(values, dtype=np.float64)[: len(order)]  # waits for the device, and compiles nothing
        count = len(plan.order)
        means = weight.sum(1) @ totals[:, :-1] / count
        return TrainTotals(count, Loss(*means.tolist()), round(totals[:, -1].sum()))

    def evaluate(self, images: UInt8[np.ndarray, "N *K H W C"], labels: Int[np.ndarray, " N *K"]) -> EvalTotals:
        parts = (images, labels.astype(np.int32), np.ones(len(labels), self.dtype))
        total, predicted = np.zeros(len(self.model.loss_terms)), []
        for steps, count in _blocks(tuple(batched(part, self.batch) for part in parts)):
            sums, found = self._eval_block(self.state[0], steps, count)
            total += np.array(sums, np.float64).sum(0)
            predicted.append(np.array(found, np.int64).reshape(-1, *self.model.several))
        return EvalTotals(Loss(*(total / len(labels)).tolist()), np.concatenate(predicted)[: len(labels)])

    def parts(self) -> dict[str, Callable[[], None]]:
        return breakdown.parts(self)

    def trace(self, plan: EpochPlan, path: Path) -> None:
        breakdown.trace(self, plan, path)

    def peak_bytes(self) -> int | None:
        return None if self.on_cpu else self.device.memory_stats()["peak_bytes_in_use"]
