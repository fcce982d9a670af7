"""The primary convolution: in the frequency domain on a CPU, the framework's own on devices with matrix units."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from impls.spectral import Spectral, spectral
from impls.torch.precision import operand, result


class PrimaryConvolution(nn.Conv2d):
    """`nn.Conv2d`, VALID, (B, y, x, c) to (B, h, w, f), in a third of the time on a CPU: see `impls.spectral`."""

    analysis: Float[Tensor, "R grid"]
    kernel_analysis: Float[Tensor, "R taps"]
    synthesis: Float[Tensor, "outputs R"]

    def __init__(
        self, image: tuple[int, int], channels: int, filters: int, kernel: int, stride: int, precision: str
    ) -> None:
        super().__init__(channels, filters, kernel, stride)
        # memory layout that the products need: filters last
        self.weight = nn.Parameter(torch.empty(kernel, kernel, channels, filters).permute(3, 2, 0, 1))
        self.precision = precision
        self.plan = spectral(image, kernel, stride)
        for name in ("analysis", "kernel_analysis", "synthesis"):
            self.register_buffer(name, torch.tensor(getattr(self.plan, name)), persistent=False)

    def _is_direct(self) -> bool:
        """Whether matrix units make a direct convolution faster than the spectra's products in float32."""
        device = self.weight.device
        return device.type == "cuda" or (self.precision == "bf16" and _has_bf16_units(device))

    def spectrum(self) -> Float[Tensor, "R phases*c f"] | None:
        """The kernel's spectrum, valid while the kernel does not change; None if none is used."""
        if self._is_direct():
            return None
        kernel = _kernel_phases(operand(self.weight, self.precision), self.plan)
        return _spectrum(self.kernel_analysis, kernel, len(self.weight))

    def forward(
        self, x: Float[Tensor, "B y x c"], spectrum: Float[Tensor, "R phases*c f"] | None = None
    ) -> Float[Tensor, "B h w f"]:
        x, weight = operand(x, self.precision), operand(self.weight, self.precision)
        if self._is_direct():
            y = F.conv2d(x.permute(0, 3, 1, 2), weight, stride=self.stride).permute(0, 2, 3, 1)
        else:
            transforms = self.analysis, self.kernel_analysis, self.synthesis
            y = _Convolution.apply(x, weight, spectrum, self.plan, *transforms)
        return result(y, self.precision) + self.bias  # pyright: ignore[reportOperatorIssue]  # it has one


def _has_bf16_units(device: torch.device) -> bool:
    """Whether bfloat16 products are faster on the device than float32 ones."""
    return device.type == "cuda" or torch.cpu._is_amx_tile_supported()  # pyright: ignore[reportPrivateUsage]


def _image_phases(x: Float[Tensor, "B y x c"], plan: Spectral) -> Float[Tensor, "grid B*phases*c"]:
    """The image cropped or zero-padded to whole phases; a row for each place on the grid."""
    (rows, columns), stride = plan.grid, plan.stride
    height, width = rows * stride, columns * stride
    if x.shape[1:3] != (height, width):
        x = F.pad(x, (0, 0, 0, width - x.shape[2], 0, height - x.shape[1]))  # a negative number of zeros cuts
    x = x.unflatten(2, (columns, stride)).unflatten(1, (rows, stride))
    return x.permute(1, 3, 0, 2, 4, 5).reshape(rows * columns, -1)


def _image_of_phases(
    phases: Float[Tensor, "grid B*phases*c"], shape: torch.Size, plan: Spectral
) -> Float[Tensor, "B y x c"]:
    (rows, columns), stride = plan.grid, plan.stride
    x = phases.view(rows, columns, shape[0], stride, stride, shape[3]).permute(2, 0, 3, 1, 4, 5)
    x = x.reshape(shape[0], rows * stride, columns * stride, shape[3])
    return F.pad(x, (0, 0, 0, shape[2] - x.shape[2], 0, shape[1] - x.shape[1])) if x.shape != shape else x


def _kernel_phases(weight: Float[Tensor, "f c k k"], plan: Spectral) -> Float[Tensor, "taps phases*c*f"]:
    taps, stride = plan.taps[0], plan.stride
    missing = taps * stride - weight.shape[2]
    w = F.pad(weight.permute(2, 3, 1, 0), (0, 0, 0, 0, 0, missing, 0, missing))
    w = w.unflatten(1, (taps, stride)).unflatten(0, (taps, stride))
    return w.permute(0, 2, 1, 3, 4, 5).reshape(taps * taps, -1)


def _kernel_of_phases(
    phases: Float[Tensor, "taps phases*c*f"], shape: torch.Size, plan: Spectral
) -> Float[Tensor, "f c k k"]:
    taps, stride = plan.taps[0], plan.stride
    w = phases.view(taps, taps, stride, stride, shape[1], shape[0]).permute(0, 2, 1, 3, 4, 5)
    w = w.reshape(taps * stride, taps * stride, shape[1], shape[0])
    return w[: shape[2], : shape[3]].permute(3, 2, 0, 1)


class _Convolution(torch.autograd.Function):
    """Keeps the image's spectrum for the backward pass; the kernel's, twice as large, is recomputed.

    In training, only some of its frequencies exist at a time.
    """

    AT_ONCE = 37  # frequencies: 74 would take 3 to 5% less time and some 100 MB more

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "B y x c"],
        weight: Float[Tensor, "f c k k"],
        spectrum: Float[Tensor, "R phases*c f"] | None,
        plan: Spectral,
        analysis: Float[Tensor, "R grid"],
        kernel_analysis: Float[Tensor, "R taps"],
        synthesis: Float[Tensor, "outputs R"],
    ) -> Float[Tensor, "B h w f"]:
        image = (analysis @ _image_phases(x, plan)).view(len(analysis), len(x), -1)
        ctx.save_for_backward(image, weight, analysis, kernel_analysis, synthesis)
        ctx.plan, ctx.shape = plan, x.shape
        if spectrum is not None:
            product = torch.bmm(image, spectrum)
        else:
            product, kernel = image.new_empty((*image.shape[:2], len(weight))), _kernel_phases(weight, plan)
            for rows in _Convolution.some(len(analysis)):
                torch.bmm(image[rows], _spectrum(kernel_analysis[rows], kernel, len(weight)), out=product[rows])
        return (synthesis @ product.flatten(1)).view(*plan.outputs, len(x), -1).permute(2, 0, 1, 3)

    @staticmethod
    def backward(ctx: Any, grad: Float[Tensor, "B h w f"]) -> tuple[Tensor | None, ...]:
        image, weight, analysis, kernel_analysis, synthesis = ctx.saved_tensors
        grad = synthesis.mT @ grad.permute(1, 2, 0, 3).reshape(synthesis.shape[0], -1)
        grad = grad.view(*image.shape[:2], -1)
        kernel = _kernel_phases(weight, ctx.plan)
        grad_kernel = torch.zeros_like(kernel)
        for rows in _Convolution.some(len(analysis)):
            grad_spectrum = torch.bmm(image[rows].mT, grad[rows])
            grad_kernel.addmm_(kernel_analysis[rows].mT, grad_spectrum.flatten(1))
            spectrum = _spectrum(kernel_analysis[rows], kernel, len(weight))
            torch.bmm(grad[rows], spectrum.mT, out=image[rows])  # the image's gradient takes its place
        grad_x = _image_of_phases(analysis.mT @ image.flatten(1), ctx.shape, ctx.plan)
        return grad_x, _kernel_of_phases(grad_kernel, weight.shape, ctx.plan), None, None, None, None, None

    @staticmethod
    def some(frequencies: int) -> list[slice]:
        step = _Convolution.AT_ONCE
        return [slice(first, min(first + step, frequencies)) for first in range(0, frequencies, step)]


def _spectrum(
    kernel_analysis: Float[Tensor, "R taps"], kernel: Float[Tensor, "taps phases*c*f"], filters: int
) -> Float[Tensor, "R phases*c f"]:
    return (kernel_analysis @ kernel).view(len(kernel_analysis), -1, filters)
