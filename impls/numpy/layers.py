"""The layers and their derivatives. `f` is the forward, `f_vjp` takes the gradient at f's output back to its inputs.

Axis letters: B images, y x image rows and columns, I primary capsules of d dimensions, J output capsules of e dimensions.
Equations and sections are those of Sabour, Frosst, Hinton 2017. Everything uses the array API standard
(data-apis.org/array-api), so that the same code runs on NumPy and CuPy: results are of the same library as the inputs.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from array_api_compat import array_namespace, device  # pyright: ignore[reportUnknownVariableType]
from jaxtyping import Bool, Float, Int

from harness.spec import SQUASH_EPSILON, Epsilon
from impls.numpy.conventions import length, squash_scale

Array = Any  # of any library that follows the standard
SPECIFIED = Epsilon()


def rounded(x: Array, digits: int) -> Array:
    """Rounds to `digits` binary digits by Veltkamp's splitting: finite if x * 2^(p - digits) is."""
    xp = array_namespace(x)
    precision = 53 if x.dtype == xp.float64 else 24
    split = x * (2.0 ** (precision - digits) + 1)
    return split - (split - x)


def exact(x: Array) -> Array:
    """An operand without rounding."""
    return x


def one_hot(classes: Int[Array, "*n"], like: Float[Array, "B J ..."]) -> Float[Array, "*n J"]:
    """1 at each class, with the width, precision and device of `like`."""
    xp = array_namespace(like)
    flat = xp.take(xp.eye(like.shape[1], dtype=like.dtype, device=device(like)), xp.reshape(classes, (-1,)), axis=0)
    return xp.reshape(flat, (*classes.shape, -1))


def present(labels: Int[Array, "B K"], like: Float[Array, "B J ..."]) -> Float[Array, "B J"]:
    """1 at the classes of all K digits that an image shows."""
    return array_namespace(like).max(one_hot(labels, like), axis=1)


def winners(scores: Float[Array, "B J"], count: int) -> Int[Array, "B K"]:
    """The classes of the `count` highest scores, highest first; ties go to the first class."""
    return array_namespace(scores).argsort(scores, axis=1, descending=True, stable=True)[:, :count]


def is_right(predicted: Int[Array, "B K"], labels: Int[Array, "B K"]) -> Bool[Array, " B"]:
    """Whether all K predictions are the labels, in any order."""
    xp = array_namespace(labels)
    return xp.all(xp.any(labels[:, :, None] == predicted[:, None, :], axis=2), axis=1)


def overlay(pixels: Float[Array, "B K y x c"]) -> Float[Array, "B y x c"]:
    """What the network sees of K digits: their sum, clipped at white (section 6.1)."""
    xp = array_namespace(pixels)
    return xp.minimum(xp.sum(pixels, axis=1), 1.0)


_LEANING: ContextVar[float] = ContextVar("leaning", default=0.0)


@contextmanager
def leaning(share: float) -> Generator[None]:
    """Within the block, a ReLU with an input close to zero passes the gradient or, for a negative share, blocks it.

    Close to zero means up to `share` of the layer's root mean square: rounding may change the sign. Values are
    unchanged to within that share. The difference between both ways shows how well a gradient is known in float32.
    """
    token = _LEANING.set(share)
    try:
        yield
    finally:
        _LEANING.reset(token)


def relu(x: Array) -> Array:
    xp, share = array_namespace(x), _LEANING.get()
    if not share:
        return xp.maximum(x, 0.0)
    least = -share * xp.sqrt(xp.mean(x * x))
    return xp.where(x > least, xp.maximum(x, 1e-300), 0.0)


def relu_vjp(y: Array, grad: Array) -> Array:
    """From relu's output y: the gradient passes where y > 0."""
    return grad * array_namespace(y).astype(y > 0, grad.dtype)


def sigmoid(x: Array) -> Array:
    return 0.5 * (1 + array_namespace(x).tanh(0.5 * x))  # the exponential form overflows at large negative x


def squash(s: Float[Array, "*n d"], epsilon: Epsilon = SPECIFIED) -> Float[Array, "*n d"]:
    """Eq. 1: |s|^2 / (1 + |s|^2) * s / |s|, with |s| = sqrt(s.s + epsilon). Finite wherever s.s is."""
    xp = array_namespace(s)
    if epsilon != SPECIFIED:
        return s * squash_scale(xp.sum(s * s, axis=-1, keepdims=True), epsilon)[0]
    square = xp.sum(s * s, axis=-1, keepdims=True)
    return s * (square / (1 + square) / xp.sqrt(square + SQUASH_EPSILON))


def squash_vjp(
    s: Float[Array, "*n d"], grad: Float[Array, "*n d"], epsilon: Epsilon = SPECIFIED
) -> Float[Array, "*n d"]:
    """squash(s) = s f(n) with n = s.s, so its gradient is f(n) g + 2 f'(n) (s.g) s."""
    xp = array_namespace(s)
    square = xp.sum(s * s, axis=-1, keepdims=True)
    if epsilon == SPECIFIED:
        root = xp.sqrt(square + SQUASH_EPSILON)
        scale = square / (1 + square) / root
        slope = 1 / (1 + square) / (1 + square) / root - 0.5 * scale / root / root  # no power of n: it could overflow
    else:
        scale, slope = squash_scale(square, epsilon)
    return scale * grad + 2 * slope * xp.sum(s * grad, axis=-1, keepdims=True) * s


def lengths(v: Float[Array, "*n e"], epsilon: Epsilon = SPECIFIED) -> Float[Array, "*n"]:
    """Capsule lengths |v| = sqrt(v.v + epsilon): the probability that the entity is present (section 2)."""
    xp = array_namespace(v)
    if epsilon != SPECIFIED:
        return length(xp.sum(v * v, axis=-1), epsilon)[0]
    return xp.sqrt(xp.sum(v * v, axis=-1) + SQUASH_EPSILON)


def lengths_vjp(
    v: Float[Array, "*n e"], grad: Float[Array, "*n"], epsilon: Epsilon = SPECIFIED
) -> Float[Array, "*n e"]:
    """A length's slope is v / |v|."""
    if epsilon != SPECIFIED:
        return (grad * length(array_namespace(v).sum(v * v, axis=-1), epsilon)[1])[..., None] * v
    return (grad / lengths(v))[..., None] * v


def _taps(x: Float[Array, "B y x c"], kernel: int, stride: int) -> list[tuple[slice, slice]]:
    """For each kernel element, row by row, the image rows and columns that it is multiplied with."""
    rows, columns = ((size - kernel) // stride * stride + 1 for size in x.shape[1:3])
    return [(slice(i, i + rows, stride), slice(j, j + columns, stride)) for i in range(kernel) for j in range(kernel)]


def patches(x: Float[Array, "B y x c"], kernel: int, stride: int) -> Float[Array, "B h w k"]:
    """Every kernel-sized window, flattened in the order (row, column, channel)."""
    xp = array_namespace(x)
    windows = xp.stack([x[:, rows, columns, :] for rows, columns in _taps(x, kernel, stride)], axis=3)
    return xp.reshape(windows, (*windows.shape[:3], -1))


def convolution(x: Float[Array, "B y x c"], w: Float[Array, "k k c f"], stride: int) -> Float[Array, "B h w f"]:
    """Cross-correlation, VALID padding: one matrix product, of all windows with all filters."""
    xp = array_namespace(x)
    windows = patches(x, w.shape[0], stride)
    product = xp.reshape(windows, (-1, windows.shape[3])) @ xp.reshape(w, (-1, w.shape[3]))
    return xp.reshape(product, (*windows.shape[:3], -1))


def convolution_vjp(
    x: Float[Array, "B y x c"], w: Float[Array, "k k c f"], stride: int, grad: Float[Array, "B h w f"]
) -> tuple[Float[Array, "B y x c"], Float[Array, "k k c f"]]:
    """Gradients for the input (every window's gradient is added at its place) and for the kernel."""
    xp = array_namespace(x)
    kernel, filters = w.shape[0], w.shape[3]
    windows, flat_grad = patches(x, kernel, stride), xp.reshape(grad, (-1, filters))
    grad_w = xp.reshape(windows, (-1, windows.shape[3])).T @ flat_grad
    grad_windows = flat_grad @ xp.reshape(w, (-1, filters)).T
    grad_windows = xp.reshape(grad_windows, (*grad.shape[:3], kernel * kernel, -1))
    grad_x = xp.zeros_like(x)
    for tap, (rows, columns) in enumerate(_taps(x, kernel, stride)):
        grad_x[:, rows, columns, :] += grad_windows[:, :, :, tap, :]
    return grad_x, xp.reshape(grad_w, w.shape)


def softmax(logits: Float[Array, "B J *I"], leak: bool = False) -> Float[Array, "B J *I"]:
    """Eq. 3: over the output capsules (or classes) J, not over the inputs.

    `leak` adds a category that is none of them: its logit stays 0, and its share is left out (section 7).
    """
    xp = array_namespace(logits)
    if leak:
        logits = xp.concat([logits, xp.zeros_like(logits[:, :1])], axis=1)
    exponential = xp.exp(logits - xp.max(logits, axis=1, keepdims=True))
    coupling = exponential / xp.sum(exponential, axis=1, keepdims=True)
    return coupling[:, :-1] if leak else coupling


def softmax_vjp(coupling: Float[Array, "B J I"], grad: Float[Array, "B J I"]) -> Float[Array, "B J I"]:
    """From softmax's output c: c (g - c.g), summed over the output capsules; what leaks has no gradient."""
    xp = array_namespace(coupling)
    return coupling * (grad - xp.sum(coupling * grad, axis=1, keepdims=True))


def _permuted(x: Array, axes: tuple[int, ...], shape: tuple[int, ...]) -> Array:
    """`x` with its axes in another order, then some of them merged or split."""
    xp = array_namespace(x)
    return xp.reshape(xp.permute_dims(x, axes), shape)


def votes(u: Float[Array, "B I d"], w: Float[Array, "I J d e"]) -> Float[Array, "B J I e"]:
    """Eq. 2: the prediction vectors u_hat_j|i = W_ij u_i, as one matrix product for each input i."""
    xp = array_namespace(u)
    inputs, outputs, d, e = w.shape
    product = xp.permute_dims(u, (1, 0, 2)) @ _permuted(w, (0, 2, 1, 3), (inputs, d, outputs * e))  # I B (J e)
    return xp.permute_dims(xp.reshape(product, (inputs, -1, outputs, e)), (1, 2, 0, 3))


def votes_vjp(
    u: Float[Array, "B I d"], w: Float[Array, "I J d e"], grad: Float[Array, "B J I e"]
) -> tuple[Float[Array, "B I d"], Float[Array, "I J d e"]]:
    """Gradients for the input capsules and for the matrices, again one product for each input i."""
    xp = array_namespace(u)
    inputs, outputs, d, e = w.shape
    grad_product = _permuted(grad, (2, 0, 1, 3), (inputs, -1, outputs * e))  # I B (J e)
    grad_u = grad_product @ _permuted(w, (0, 1, 3, 2), (inputs, outputs * e, d))
    grad_w = xp.permute_dims(u, (1, 2, 0)) @ grad_product
    return xp.permute_dims(grad_u, (1, 0, 2)), xp.permute_dims(
        xp.reshape(grad_w, (inputs, d, outputs, e)), (0, 2, 1, 3)
    )


Routing = list[tuple[Float[Array, "B J I"], Float[Array, "B J e"], Float[Array, "B J e"]]]
"""One (coupling c, input s, output v) per iteration."""


def _weighted_votes(c: Float[Array, "B J I"], u_hat: Float[Array, "B J I e"]) -> Float[Array, "B J e"]:
    """sum_i c_ij u_hat_j|i"""
    return (c[:, :, None, :] @ u_hat)[:, :, 0, :]


def _agreement(u_hat: Float[Array, "B J I e"], v: Float[Array, "B J e"]) -> Float[Array, "B J I"]:
    """u_hat_j|i . v_j"""
    return (u_hat @ v[..., None])[..., 0]


def route(
    u_hat: Float[Array, "B J I e"],
    iterations: int,
    bias: Float[Array, "J e"] | None = None,
    epsilon: Epsilon = SPECIFIED,
    leak: bool = False,
) -> Routing:
    """Procedure 1: `iterations` softmaxes and squashes; logits start at zero, and the agreement u_hat . v is added to them.

    `bias`, of profile `official`, is added to s_j in every iteration; `leak` as in `softmax`.
    """
    logits = array_namespace(u_hat).zeros_like(u_hat[..., 0])
    history: Routing = []
    for _ in range(iterations):
        coupling = softmax(logits, leak)
        s = _weighted_votes(coupling, u_hat)  # Eq. 2
        if bias is not None:
            s = s + bias
        v = squash(s, epsilon)
        history.append((coupling, s, v))
        logits = logits + _agreement(u_hat, v)
    return history


def route_vjp(
    u_hat: Float[Array, "B J I e"], history: Routing, grad: Float[Array, "B J e"], epsilon: Epsilon = SPECIFIED
) -> tuple[Float[Array, "B J I e"], Float[Array, "J e"]]:
    """Gradients for the votes and for the bias, even if there is none.

    They go through every iteration: iteration k's logits are those of k - 1 plus u_hat . v_(k-1).
    """
    xp = array_namespace(u_hat)
    grad_u_hat, grad_bias = xp.zeros_like(u_hat), xp.zeros_like(u_hat[0, :, 0, :])
    grad_logits = xp.zeros_like(u_hat[..., 0])
    for k in reversed(range(len(history))):
        coupling, s, _ = history[k]
        grad_s = squash_vjp(s, grad, epsilon)
        grad_bias += xp.sum(grad_s, axis=0)
        grad_u_hat += coupling[..., None] * grad_s[:, :, None, :]
        grad_logits += softmax_vjp(coupling, _agreement(u_hat, grad_s))
        if k:
            previous_v = history[k - 1][2]
            grad_u_hat += grad_logits[..., None] * previous_v[:, :, None, :]
            grad = _weighted_votes(grad_logits, u_hat)
    return grad_u_hat, grad_bias
