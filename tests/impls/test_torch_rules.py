"""The PyTorch implementation's hand-written gradient rules against autograd's gradients of the forward pass."""

from __future__ import annotations

import pytest
import torch

from impls.torch import convolution, layers
from impls.torch.convolution import PrimaryConvolution
from impls.torch.layers import digit_capsules, route, votes
from impls.torch.precision import linear


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last piece is smaller than the others."""
    monkeypatch.setattr(layers, "CHUNK", 2)
    monkeypatch.setattr(convolution._Convolution, "AT_ONCE", 5)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("routing", [1, 2, 4])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("leak", [False, True])
def test_routing(small_pieces: None, routing: int, has_bias: bool, leak: bool) -> None:
    u, w = draw(5, 6, 3).requires_grad_(), draw(6, 3, 4, 2).requires_grad_()
    bias = draw(4, 2).requires_grad_() if has_bias else None
    inputs = [each for each in (u, w, bias) if each is not None]
    v, coupling = digit_capsules(u, w, bias, routing, leak, "fp64")
    expected_coupling, _, expected = route(votes(u, w), 4, routing, bias, leak)[-1]
    assert torch.equal(v, expected)
    assert torch.equal(coupling, expected_coupling)
    grad = draw(5, 4, 2)
    for found, by_autograd in zip(
        torch.autograd.grad(v, inputs, grad), torch.autograd.grad(expected, inputs, grad), strict=True
    ):
        assert torch.allclose(found, by_autograd, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("image", "kernel"), [((9, 12), 3), ((10, 10), 4), ((13, 11), 5)])
def test_convolution(small_pieces: None, image: tuple[int, int], kernel: int) -> None:
    conv = PrimaryConvolution(image, 3, 4, kernel, 2, "fp64").double()
    torch.nn.init.normal_(conv.weight)
    x = draw(2, *image, 3).requires_grad_()
    found = conv(x)
    expected = torch.nn.functional.conv2d(x.permute(0, 3, 1, 2), conv.weight, conv.bias, stride=2).permute(0, 2, 3, 1)
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)
    assert torch.allclose(conv(x, conv.spectrum()), expected, rtol=1e-12, atol=1e-12)
    inputs, grad = [x, conv.weight, conv.bias], draw(*expected.shape)
    for ours, by_autograd in zip(
        torch.autograd.grad(found, inputs, grad), torch.autograd.grad(expected, inputs, grad), strict=True
    ):
        assert torch.allclose(ours, by_autograd, rtol=1e-12, atol=1e-12)


def test_bf16_rounds_operands_in_both_directions_and_nothing_else() -> None:
    def rounded(x: torch.Tensor) -> torch.Tensor:
        return x.bfloat16().double()

    x, w, bias, grad = draw(3, 5).requires_grad_(), draw(4, 5).requires_grad_(), draw(4).requires_grad_(), draw(3, 4)
    y = linear(x, w, bias, "bf16")
    assert torch.equal(y, rounded(x) @ rounded(w).mT + bias)
    grad_x, grad_w, grad_bias = torch.autograd.grad(y, [x, w, bias], grad)
    assert torch.equal(grad_x, rounded(grad) @ rounded(w))
    assert torch.equal(grad_w, rounded(grad).mT @ rounded(x))
    assert torch.equal(grad_bias, grad.sum(0))
