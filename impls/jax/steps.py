"""One step of a network of any kind: training, evaluation, or only the gradient.

Every step is a function of the weights, a dictionary under canonical names, and returns new ones.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from jaxtyping import Float, Int, Int8, UInt8

from harness.spec import ModelSpec, OptimSpec, Runtime
from impls.architecture import Network
from impls.jax.models import architecture
from impls.jax.optim import adam
from impls.jax.overlay import is_right, overlay, winners
from impls.jax.precision import Precision, configure

_Params = dict[str, Array]
_State = tuple[_Params, optax.ScaleByAdamState]
_Data = tuple[UInt8[Array, "N H W C"], Int[Array, " N"]]

BLOCK = 64
"""Steps per call of a compiled program, which runs fewer if fewer are left."""


def shift_images(images: UInt8[Array, "B H W C"], shifts: Int8[Array, "B 2"]) -> UInt8[Array, "B H W C"]:
    """Each image shifted (down, right) by its own number of whole pixels, filled with zeros."""
    height, width = images.shape[1:3]
    rows = jnp.arange(height) - shifts[:, :1]
    columns = jnp.arange(width) - shifts[:, 1:]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    each = jnp.arange(len(images))[:, None, None]
    moved = images[each, rows.clip(0, height - 1)[:, :, None], columns.clip(0, width - 1)[:, None, :]]
    return moved * inside[..., None]


def middle(images: UInt8[Array, "B H W C"], model: ModelSpec) -> UInt8[Array, "B h w C"]:
    """What the network sees of larger images (section 7); if the middle is between two pixels, above and left of it."""
    height, width, _ = model.image
    top, left = (images.shape[1] - height) // 2, (images.shape[2] - width) // 2
    return images[:, top : top + height, left : left + width]


class Steps:
    """The network, its optimiser and the staged images on their device, and the operations of one step."""

    images: UInt8[Array, "N H W C"]  # staged
    labels: Int[Array, " N"]
    state: _State  # the weights, and Adam's

    def __init__(self, model: ModelSpec, optim: OptimSpec, runtime: Runtime) -> None:
        configure(runtime.precision)
        self.model, self.optim, self.dtype = model, optim, runtime.dtype
        self.kind = architecture(model.kind)
        self.on_cpu = runtime.device == "cpu"
        self.precision = Precision(self.on_cpu, runtime.precision)
        self.device = jax.devices(runtime.device)[0]
        self.adam = adam(optim, self.dtype)
        # code that is compared but never timed is compiled for fast compilation
        haste = {"xla_backend_optimization_level": 0} if self.on_cpu else None
        self.is_compiled, self._options = runtime.compile, haste if runtime.precision == "fp64" else None
        self.loop: Callable[..., Any] = partial(lax.fori_loop, 0) if runtime.compile else _eager_loop
        # the new state reuses the old one's memory
        self._train_steps = self.compiled(self.train_steps, donate_argnums=0)
        self._eval_steps = self.compiled(self.eval_steps)
        self._outputs = self.compiled(self.outputs, compiler_options=haste)
        self._gradients = self.compiled(self.gradients, compiler_options=haste)

    def compiled(self, function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        """The function, compiled like training unless `options` differ; unchanged in eager mode."""
        settings: dict[str, Any] = {"compiler_options": self._options} | options
        return jax.jit(function, **settings) if self.is_compiled else function

    def net(self, params: _Params) -> Network:
        """The network with these weights."""
        return self.kind.Network(self.model, self.precision, params)

    def digits(self, images: UInt8[Array, "*n H W C"]) -> Float[Array, "B K H W C"]:
        """Pixels in 0..1, with an axis for the digits of an image, one or more."""
        return images.reshape(-1, self.model.overlaid, *self.model.image).astype(self.dtype) / 255

    def classes(self, labels: Int[Array, " B *K"]) -> Int[Array, "B K"]:
        """The labels with an axis for the digits of an image, one or more."""
        return labels.reshape(-1, self.model.overlaid)

    def batch_of(
        self, data: _Data, order: Int[Array, " B *K"], shifts: Int8[Array, "B *K 2"]
    ) -> tuple[Float[Array, "B K H W C"], Int[Array, "B K"]]:
        """Digits and classes of staged images, gathered, shifted and cut to the middle; `data` are images and labels."""
        moved = shift_images(data[0][order.ravel()], shifts.reshape(-1, 2))
        return self.digits(middle(moved, self.model)), self.classes(data[1][order])

    def predicted(self, top: Array) -> Int[Array, "B K"]:
        """The classes of the highest scores, highest first."""
        return winners(self.kind.scores(self.model, top), self.model.overlaid)

    def outputs(self, params: _Params, images: UInt8[Array, "B *K H W C"]) -> tuple[Array | None, ...]:
        """The fields of `harness.spec.Outputs`."""
        return self.kind.outputs(self.net(params), overlay(self.digits(images)))

    def gradients(
        self, params: _Params, images: UInt8[Array, "B *K H W C"], labels: Int[Array, " B *K"]
    ) -> tuple[_Params, Float[Array, " T"]]:
        """Gradients of the mean training loss without dropout, under canonical names, and the means of all its terms."""
        digits, classes = self.digits(images), self.classes(labels)

        def mean_losses(params: _Params) -> tuple[Float[Array, ""], Float[Array, " T"]]:
            net = self.net(params)
            top, *_ = net(overlay(digits))
            means = self.kind.losses(net, top, digits, classes, classes).mean(1)
            return means[0], means

        return jax.grad(mean_losses, has_aux=True)(params)

    def training_losses(
        self,
        params: _Params,
        data: _Data,
        order: Int[Array, " B *K"],
        shifts: Int8[Array, "B *K 2"],
        weight: Float[Array, " B"],
        *kept: UInt8[Array, "B U"],
    ) -> tuple[Float[Array, ""], Float[Array, " values"]]:
        """A step's forward pass: what training minimises, and all values.

        Losses are means over the images of weight 1; the last value is how many are right.
        """
        digits, labels = self.batch_of(data, order, shifts)
        net = self.net(params)
        top, *_ = net(overlay(digits), *kept)
        means = self.kind.losses(net, top, digits, labels, labels) @ weight / weight.sum()
        correct = (is_right(self.predicted(top), labels) * weight).sum()
        return means[0], jnp.append(means, correct)

    def training_gradients(self, params: _Params, data: _Data, *step: Array) -> tuple[_Params, Float[Array, " values"]]:
        """A step's gradients under canonical names, and its losses."""
        return jax.grad(self.training_losses, has_aux=True)(params, data, *step)

    def train_step(self, state: _State, data: _Data, *step: Array) -> tuple[_State, Float[Array, " values"]]:
        """One step, from `order`, `shifts`, `weight` and the dropout mask if the model has dropout."""
        grads, values = self.training_gradients(state[0], data, *step)
        return self.update(state, grads), values

    def update(self, state: _State, grads: _Params) -> _State:
        """Adam's step."""
        params, moments = state
        updates, moments = self.adam.update(grads, moments, params)
        return optax.apply_updates(params, updates), moments

    def eval_step(
        self,
        params: _Params,
        once: tuple[Array | None, ...],
        images: UInt8[Array, "B *K H W C"],
        labels: Int[Array, " B *K"],
        weight: Float[Array, " B"],
    ) -> tuple[Float[Array, " T"], Int[Array, "B K"]]:
        """Losses summed over the images of weight 1, and every image's predicted classes."""
        digits, classes, net = self.digits(images), self.classes(labels), self.net(params)
        top, *_ = net(overlay(digits), *once)
        predicted = self.predicted(top)
        mask = classes if self.model.evaluation_mask == "label" else predicted
        return self.kind.losses(net, top, digits, classes, mask) @ weight, predicted

    def train_steps(
        self, state: _State, data: _Data, steps: tuple[Array, ...], count: int | Int[Array, ""]
    ) -> tuple[_State, Float[Array, "S values"]]:
        """The first `count` steps of a block as one program, which gets its memory from the system only once.

        `steps` are the order, shifts and weights of each, and the dropout masks if the model has dropout.
        """

        def step(
            index: Int[Array, ""], carry: tuple[_State, Float[Array, "S values"]]
        ) -> tuple[_State, Float[Array, "S values"]]:
            state, values = self.train_step(carry[0], data, *(part[index] for part in steps))
            return state, carry[1].at[index].set(values)

        return self.loop(count, step, (state, jnp.zeros((BLOCK, len(self.model.loss_terms) + 1), self.dtype)))

    def eval_steps(
        self,
        params: _Params,
        steps: tuple[UInt8[Array, "S B *K H W C"], Int[Array, "S B *K"], Float[Array, "S B"]],
        count: int | Int[Array, ""],
    ) -> tuple[Float[Array, "S T"], Int[Array, "S B K"]]:
        """The first `count` evaluation steps of a block, like `train_steps`."""
        once = self.net(params).once()

        def step(
            index: Int[Array, ""], found: tuple[Float[Array, "S T"], Int[Array, "S B K"]]
        ) -> tuple[Float[Array, "S T"], Int[Array, "S B K"]]:
            sums, predicted = self.eval_step(params, once, *(part[index] for part in steps))
            return found[0].at[index].set(sums), found[1].at[index].set(predicted.astype(jnp.int32))

        sums = jnp.zeros((BLOCK, len(self.model.loss_terms)), self.dtype)
        return self.loop(count, step, (sums, jnp.zeros((*steps[2].shape, self.model.overlaid), jnp.int32)))


def _eager_loop(count: int, step: Callable[[int, Any], Any], carry: Any) -> Any:
    """Replaces `lax.fori_loop` from 0, which would compile the step."""
    for index in range(count):
        carry = step(index, carry)
    return carry
