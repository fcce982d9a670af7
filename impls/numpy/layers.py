"""The layers and their derivatives. `f` is the forward, `f_vjp` takes the gradient at f's output back to its inputs.

Axis letters: B images, y x image rows and columns, I primary capsules of d dimensions, J output capsules of e dimensions.
Equations and sections are those of Sabour, Frosst, Hinton 2017.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from harness.spec import SQUASH_EPSILON

Array = np.ndarray


def squash(s: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
    """Eq. 1: |s|^2 / (1 + |s|^2) * s / |s|, with |s| = sqrt(s.s + epsilon)."""
    square = (s * s).sum(-1, keepdims=True)
    return s * (square / (1 + square) / np.sqrt(square + SQUASH_EPSILON))


def squash_vjp(s: Float[Array, "*n d"], grad: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
    """squash(s) = s f(n) with n = s.s, so its gradient is f(n) g + 2 f'(n) (s.g) s."""
    square = (s * s).sum(-1, keepdims=True)
    root = np.sqrt(square + SQUASH_EPSILON)
    scale = square / (1 + square) / root
    slope = 1 / (1 + square) ** 2 / root - 0.5 * square / (1 + square) / root**3
    return scale * grad + 2 * slope * (s * grad).sum(-1, keepdims=True) * s


def lengths(v: Float[Array, "*n e"]) -> Float[Array, "*n"]:
    """Capsule lengths |v| = sqrt(v.v + epsilon): the probability that the entity is there (section 2)."""
    return np.sqrt((v * v).sum(-1) + SQUASH_EPSILON)


def patches(x: Float[Array, "B y x c"], kernel: int, stride: int) -> Float[Array, "B h w k"]:
    """Every kernel-sized window, flattened in the order (row, column, channel)."""
    windows = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(1, 2))[:, ::stride, ::stride]
    return windows.transpose(0, 1, 2, 4, 5, 3).reshape(*windows.shape[:3], -1)


def convolution(x: Float[Array, "B y x c"], w: Float[Array, "k k c f"], stride: int) -> Float[Array, "B h w f"]:
    """Cross-correlation, VALID padding."""
    return patches(x, w.shape[0], stride) @ w.reshape(-1, w.shape[3])


def convolution_vjp(
    x: Float[Array, "B y x c"], w: Float[Array, "k k c f"], stride: int, grad: Float[Array, "B h w f"]
) -> tuple[Float[Array, "B y x c"], Float[Array, "k k c f"]]:
    """Gradients for the input (every window's added where it came from) and for the kernel."""
    kernel, filters = w.shape[0], w.shape[3]
    windows = patches(x, kernel, stride)
    grad_w = windows.reshape(-1, windows.shape[3]).T @ grad.reshape(-1, filters)
    grad_windows = (grad @ w.reshape(-1, filters).T).reshape(*grad.shape[:3], kernel, kernel, -1)
    grad_x = np.zeros_like(x)
    rows, columns = stride * grad.shape[1], stride * grad.shape[2]
    for i in range(kernel):
        for j in range(kernel):
            grad_x[:, i : i + rows : stride, j : j + columns : stride] += grad_windows[:, :, :, i, j]
    return grad_x, grad_w.reshape(w.shape)


def softmax(logits: Float[Array, "B J I"]) -> Float[Array, "B J I"]:
    """Eq. 3: over the output capsules J, not over the inputs."""
    exponential = np.exp(logits - logits.max(1, keepdims=True))
    return exponential / exponential.sum(1, keepdims=True)


def softmax_vjp(coupling: Float[Array, "B J I"], grad: Float[Array, "B J I"]) -> Float[Array, "B J I"]:
    return coupling * (grad - (coupling * grad).sum(1, keepdims=True))


def votes(u: Float[Array, "B I d"], w: Float[Array, "I J d e"]) -> Float[Array, "B J I e"]:
    """Eq. 2: the prediction vectors u_hat_j|i = W_ij u_i."""
    return np.einsum("bid,ijde->bjie", u, w, optimize=True)


def votes_vjp(
    u: Float[Array, "B I d"], w: Float[Array, "I J d e"], grad: Float[Array, "B J I e"]
) -> tuple[Float[Array, "B I d"], Float[Array, "I J d e"]]:
    return np.einsum("bjie,ijde->bid", grad, w, optimize=True), np.einsum("bid,bjie->ijde", u, grad, optimize=True)


Routing = list[tuple[Float[Array, "B J I"], Float[Array, "B J e"], Float[Array, "B J e"]]]
"""One (coupling c, input s, output v) per iteration."""


def route(u_hat: Float[Array, "B J I e"], iterations: int) -> Routing:
    """Procedure 1: `iterations` softmaxes and squashes; the logits start at zero, the agreement u_hat . v is added."""
    logits = np.zeros(u_hat.shape[:3], u_hat.dtype)
    history: Routing = []
    for _ in range(iterations):
        coupling = softmax(logits)
        s = np.einsum("bji,bjie->bje", coupling, u_hat, optimize=True)
        v = squash(s)
        history.append((coupling, s, v))
        logits = logits + np.einsum("bjie,bje->bji", u_hat, v, optimize=True)
    return history


def route_vjp(u_hat: Float[Array, "B J I e"], history: Routing, grad: Float[Array, "B J e"]) -> Float[Array, "B J I e"]:
    """Through every iteration: iteration k's logits are those of k - 1 plus u_hat . v_(k-1)."""
    grad_u_hat = np.zeros_like(u_hat)
    grad_logits = np.zeros(u_hat.shape[:3], u_hat.dtype)
    for k in reversed(range(len(history))):
        coupling, s, _ = history[k]
        grad_s = squash_vjp(s, grad)
        grad_u_hat += coupling[..., None] * grad_s[:, :, None]
        grad_logits += softmax_vjp(coupling, np.einsum("bjie,bje->bji", u_hat, grad_s, optimize=True))
        if k:
            previous_v = history[k - 1][2]
            grad_u_hat += grad_logits[..., None] * previous_v[:, :, None]
            grad = np.einsum("bji,bjie->bje", grad_logits, u_hat, optimize=True)
    return grad_u_hat


def sigmoid(x: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * x))  # the exponential form overflows at large negative x
