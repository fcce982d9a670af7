"""The transforms of `impls.spectral`, against the specification's convolution."""

from __future__ import annotations

import numpy as np
import pytest

from impls.numpy.layers import convolution
from impls.spectral import Spectral, spectral


def by_spectra(x: np.ndarray, w: np.ndarray, t: Spectral) -> np.ndarray:
    """(B, y, x, c) and (k, k, c, f) to (B, h, w, f), as the docstring says."""
    s, (rows, columns), taps = t.stride, t.grid, t.taps
    cut = x[:, : s * rows, : s * columns]
    image = np.zeros((len(x), s * rows, s * columns, x.shape[3]))
    image[:, : cut.shape[1], : cut.shape[2]] = cut
    kernel = np.zeros((s * taps[0], s * taps[1], *w.shape[2:]))
    kernel[: len(w), : len(w)] = w
    image = image.reshape(len(x), rows, s, columns, s, -1).transpose(1, 3, 0, 2, 4, 5).reshape(rows * columns, -1)
    kernel = kernel.reshape(taps[0], s, taps[1], s, *w.shape[2:]).transpose(0, 2, 1, 3, 4, 5)
    kernel = kernel.reshape(taps[0] * taps[1], -1)
    image = (t.analysis @ image).reshape(len(t.analysis), len(x), -1)
    kernel = (t.kernel_analysis @ kernel).reshape(len(t.analysis), -1, w.shape[3])
    product = image @ kernel
    y = t.synthesis @ product.reshape(len(product), -1)
    return y.reshape(*t.outputs, len(x), -1).transpose(2, 0, 1, 3)


@pytest.mark.parametrize(
    ("image", "kernel", "stride"),
    [
        ((20, 20), 9, 2),
        ((28, 20), 9, 2),
        ((19, 22), 9, 2),
        ((11, 9), 3, 2),
        ((8, 9), 4, 2),
        ((7, 7), 3, 1),
        ((13, 14), 5, 3),
    ],
)
def test_equals_the_direct_convolution(image: tuple[int, int], kernel: int, stride: int) -> None:
    draw = np.random.default_rng(0).standard_normal
    x, w = draw((2, *image, 3)), draw((kernel, kernel, 3, 4))
    assert np.allclose(by_spectra(x, w, spectral(image, kernel, stride)), convolution(x, w, stride), atol=1e-12)


def test_takes_a_fifth_of_the_products_at_full_size() -> None:
    assert len(spectral((20, 20), 9, 2).analysis) == 148
