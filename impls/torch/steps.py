"""One step of a network of any kind: training, evaluation, or only the gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int, Int8, UInt8
from torch import Tensor

from harness.spec import ModelSpec, OptimSpec, Runtime
from impls.torch.models import architecture
from impls.torch.optim import adam
from impls.torch.overlay import is_right, overlay, winners
from impls.torch.precision import configure


def shift_images(images: UInt8[Tensor, "B H W C"], shifts: Int8[Tensor, "B 2"]) -> UInt8[Tensor, "B H W C"]:
    """Each image shifted (down, right) by its own number of whole pixels, filled with zeros."""
    height, width = images.shape[1:3]
    rows = torch.arange(height, device=images.device) - shifts[:, :1]
    columns = torch.arange(width, device=images.device) - shifts[:, 1:]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    each = torch.arange(len(images), device=images.device)[:, None, None]
    moved = images[each, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None, :]]
    return moved * inside[..., None]


def middle(images: UInt8[Tensor, "B H W C"], model: ModelSpec) -> UInt8[Tensor, "B h w C"]:
    """What the network sees of larger images (section 7); if the middle is between two pixels, above and left of it."""
    height, width, _ = model.image
    top, left = (images.shape[1] - height) // 2, (images.shape[2] - width) // 2
    return images[:, top : top + height, left : left + width].contiguous()


class Steps:
    """The network, its optimiser and the staged images on their device, and the operations of one step."""

    images: UInt8[Tensor, "N H W C"]  # staged
    labels: Int[Tensor, " N"]
    step: int  # how many have been completed

    def __init__(self, model: ModelSpec, optim: OptimSpec, runtime: Runtime) -> None:
        torch.set_num_threads(runtime.threads)
        configure(runtime.precision)
        self.model, self.optim = model, optim
        self.device = torch.device("cuda" if runtime.device == "gpu" else "cpu")
        self.dtype = torch.float64 if runtime.precision == "fp64" else torch.float32
        # MKL chooses a kernel at its first square root; if two threads do so at once, one of them may get a kernel of
        # low accuracy (1e-4) for that call: pytorch/pytorch#188792. A single element uses only one thread.
        torch.sqrt(torch.ones(1, dtype=self.dtype))
        self.kind = architecture(model.kind)
        self.net = self.kind.Network(model, runtime.precision).to(self.device, self.dtype)
        self.adam = adam(optim, self.net)
        # on a CPU, torch.compile gains nothing over the hand-written gradient rules, and takes half a minute
        self.is_compiled = runtime.compile and self.device.type == "cuda"
        self.losses, self._eval_step = self.compiled(self.training_losses), self.compiled(self.eval_step)

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The compiled function; unchanged in eager mode."""
        return torch.compile(function, fullgraph=True, dynamic=False) if self.is_compiled else function

    def digits(self, images: UInt8[Tensor, "*n H W C"]) -> Float[Tensor, "B K H W C"]:
        """Pixels in 0..1, with an axis for the digits of an image, one or more."""
        return images.view(-1, self.model.overlaid, *self.model.image).to(self.dtype) / 255

    def classes(self, labels: Int[Tensor, " B *K"]) -> Int[Tensor, "B K"]:
        """The labels with an axis for the digits of an image, one or more."""
        return labels.view(-1, self.model.overlaid)

    def batch_of(
        self, order: Int[Tensor, " B *K"], shifts: Int8[Tensor, "B *K 2"]
    ) -> tuple[Float[Tensor, "B K H W C"], Int[Tensor, "B K"]]:
        """Digits and classes of staged images, gathered, shifted and cut to the middle."""
        moved = shift_images(self.images[order.flatten()], shifts.view(-1, 2))
        return self.digits(middle(moved, self.model)), self.classes(self.labels[order])

    def predicted(self, top: Tensor) -> Int[Tensor, "B K"]:
        """The classes of the highest scores, highest first."""
        return winners(self.kind.scores(self.model, top), self.model.overlaid)

    def outputs(self, images: UInt8[Tensor, "B *K H W C"]) -> tuple[Tensor | None, ...]:
        """The fields of `harness.spec.Outputs`."""
        return self.kind.outputs(self.net, overlay(self.digits(images)))

    def gradients(
        self, images: UInt8[Tensor, "B *K H W C"], labels: Int[Tensor, " B *K"]
    ) -> tuple[dict[str, Tensor], Float[Tensor, " T"]]:
        """Gradients of the mean training loss without dropout, by parameter name, and the means of all its terms."""
        digits, classes = self.digits(images), self.classes(labels)
        top, *_ = self.net(overlay(digits))
        means = self.kind.losses(self.net, top, digits, classes, classes).mean(1)
        self.adam.zero_grad()
        means[0].backward()
        return {name: parameter.grad for name, parameter in self.net.named_parameters()}, means

    def training_losses(
        self,
        order: Int[Tensor, " B *K"],
        shifts: Int8[Tensor, "B *K 2"],
        weight: Float[Tensor, " B"],
        *kept: UInt8[Tensor, "B U"],
    ) -> Float[Tensor, " values"]:
        """A step's forward pass. Losses are means over the images of weight 1; the last value is how many are right."""
        digits, labels = self.batch_of(order, shifts)
        top, *_ = self.net(overlay(digits), *kept)
        means = self.kind.losses(self.net, top, digits, labels, labels) @ weight / weight.sum()
        correct = (is_right(self.predicted(top), labels) * weight).sum()
        return torch.cat([means, correct[None]])

    def training_gradients(self, *step: Tensor) -> Float[Tensor, " values"]:
        """Computes a step's losses, and leaves the gradients where Adam finds them."""
        self.adam.zero_grad()
        values = self.losses(*step)
        values[0].backward()
        return values.detach()

    def train_step(self, *step: Tensor) -> Float[Tensor, " values"]:
        """One step, from `order`, `shifts`, `weight` and the dropout mask if the model has dropout."""
        values = self.training_gradients(*step)
        self.update()
        return values

    def update(self) -> None:
        """Adam's step, with the current gradients."""
        for group in self.adam.param_groups:
            group["lr"] = self.optim.lr_at(self.step) * group["scale"]
        self.adam.step()
        self.step += 1

    def eval_step(
        self,
        images: UInt8[Tensor, "B *K H W C"],
        labels: Int[Tensor, " B *K"],
        weight: Float[Tensor, " B"],
        *once: Tensor | None,
    ) -> tuple[Float[Tensor, " T"], Int[Tensor, "B K"]]:
        """Losses summed over the images of weight 1, and every image's predicted classes."""
        digits, classes = self.digits(images), self.classes(labels)
        top, *_ = self.net(overlay(digits), *once)
        predicted = self.predicted(top)
        mask = classes if self.model.evaluation_mask == "label" else predicted
        return self.kind.losses(self.net, top, digits, classes, mask) @ weight, predicted
