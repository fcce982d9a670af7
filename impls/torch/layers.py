"""The capsule layers. Axis letters: B images, I primary capsules of d dimensions, J output capsules of e dimensions.

`f` is the forward; `f_vjp` takes the gradient at f's output back to its inputs.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from harness.spec import SQUASH_EPSILON
from impls.torch.precision import operand, result, rounded

CHUNK = 32
"""The number of images whose full-size votes fit in a processor's cache; a GPU takes the whole batch."""

Routing = list[tuple[Float[Tensor, "B J I"], Float[Tensor, "B J e"], Float[Tensor, "B J e"]]]
"""One (coupling c, input s, output v) per iteration."""


def squash(s: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
    """Eq. 1: |s|^2 / (1 + |s|^2) * s / |s|, with |s| = sqrt(s.s + epsilon)."""
    square = (s * s).sum(-1, keepdim=True)
    return s * (square / (1 + square) / torch.sqrt(square + SQUASH_EPSILON))


def squash_vjp(s: Float[Tensor, "*n d"], grad: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
    """squash(s) = s f(n) with n = s.s, so its gradient is f(n) g + 2 f'(n) (s.g) s."""
    square = (s * s).sum(-1, keepdim=True)
    root = torch.sqrt(square + SQUASH_EPSILON)
    scale = square / (1 + square) / root
    slope = 1 / (1 + square) / (1 + square) / root - 0.5 * scale / root / root  # no power of n: it could overflow
    return scale * grad + 2 * slope * (s * grad).sum(-1, keepdim=True) * s


def lengths(v: Float[Tensor, "*n e"]) -> Float[Tensor, "*n"]:
    """Capsule lengths |v| = sqrt(v.v + epsilon)."""
    return torch.sqrt((v * v).sum(-1) + SQUASH_EPSILON)


def scaled(x: Float[Tensor, "*n"], factor: float) -> Float[Tensor, "*n"]:
    """factor * x, at no cost if the profile's factor is 1."""
    return x if factor == 1 else factor * x


def softmax(logits: Float[Tensor, "B J I"], leak: bool = False) -> Float[Tensor, "B J I"]:
    """Eq. 3: over the output capsules.

    `leak` adds a category that is none of them: its logit stays 0, and its share is left out (section 7).
    """
    if leak:
        logits = F.pad(logits, (0, 0, 0, 1))
    coupling = torch.softmax(logits, dim=1)
    return coupling[:, :-1] if leak else coupling


def softmax_vjp(coupling: Float[Tensor, "B J I"], grad: Float[Tensor, "B J I"]) -> Float[Tensor, "B J I"]:
    """From softmax's output c: c (g - c.g), summed over the output capsules; what leaks has no gradient."""
    return coupling * (grad - (coupling * grad).sum(1, keepdim=True))


def votes(u: Float[Tensor, "B I d"], w: Float[Tensor, "I d J e"]) -> Float[Tensor, "I B je"]:
    """Eq. 2: u_hat_j|i = W_ij u_i, as one matrix product per primary capsule, in the order that it gives."""
    return torch.bmm(u.transpose(0, 1), w.flatten(2))


def votes_vjp(
    u: Float[Tensor, "B I d"], w: Float[Tensor, "I d J e"], grad: Float[Tensor, "I B je"]
) -> tuple[Float[Tensor, "B I d"], Float[Tensor, "I d J e"]]:
    """Gradients for the input capsules and for the matrices."""
    grad_u = torch.bmm(grad, w.flatten(2).mT)
    grad_w = torch.bmm(u.permute(1, 2, 0), grad)
    return grad_u.transpose(0, 1), grad_w.unflatten(2, w.shape[2:])


# On a CPU, sums over the votes are matrix products, one per image, of all output capsules with all votes; only the
# diagonal blocks are needed. This takes J times the operations, but runs as fast as the votes can be read, without
# transposing. On a GPU the compiler fuses plain sums, which are float32 whatever the precision of matrix products.


def _apart(v: Float[Tensor, "B n J e"]) -> Float[Tensor, "B nJ je"]:
    """Every vector in a separate row, at its capsule's place, with zeros elsewhere."""
    classes = torch.eye(v.shape[2], dtype=v.dtype, device=v.device)
    return (classes[:, :, None] * v[:, :, :, None]).flatten(3).flatten(1, 2)


def _weighted_votes(numbers: Float[Tensor, "B J I"], u_hat: Float[Tensor, "I B je"]) -> Float[Tensor, "B J e"]:
    """sum_i c_ij u_hat_j|i"""
    if u_hat.is_cuda:
        return (numbers.permute(2, 0, 1)[..., None] * u_hat.unflatten(2, (numbers.shape[1], -1))).sum(0)
    sums = torch.bmm(numbers, u_hat.transpose(0, 1)).unflatten(2, (numbers.shape[1], -1))
    return sums.diagonal(dim1=1, dim2=2).mT


def _agreement(v: Float[Tensor, "B J e"], u_hat: Float[Tensor, "I B je"]) -> Float[Tensor, "B J I"]:
    """u_hat_j|i . v_j"""
    if u_hat.is_cuda:
        return (u_hat.unflatten(2, v.shape[1:]) * v).sum(3).permute(1, 2, 0)
    return torch.bmm(_apart(v[:, None]), u_hat.permute(1, 2, 0))


def route(
    u_hat: Float[Tensor, "I B je"],
    classes: int,
    iterations: int,
    bias: Float[Tensor, "J e"] | None = None,
    leak: bool = False,
) -> Routing:
    """Procedure 1.

    `bias`, of profile `official`, is added to s_j in every iteration; the agreement uses only the votes. `leak` as in
    `softmax`.
    """
    history: Routing = []
    logits = u_hat.new_zeros((u_hat.shape[1], classes, u_hat.shape[0]))
    for iteration in range(iterations):
        coupling = softmax(logits, leak)
        s = _weighted_votes(coupling, u_hat)  # Eq. 2
        if bias is not None:
            s = s + bias
        v = squash(s)
        history.append((coupling, s, v))
        if iteration < iterations - 1:
            logits = logits + _agreement(v, u_hat)
    return history


def route_vjp(
    u_hat: Float[Tensor, "I B je"], history: Routing, grad: Float[Tensor, "B J e"]
) -> tuple[Float[Tensor, "I B je"], Float[Tensor, "J e"]]:
    """Gradients for the votes and for the bias, even if there is none.

    Every use of the votes adds a product of a number per vote and a vector per output capsule to their gradient. These
    are collected, and the gradient is written once.
    """
    numbers: list[Tensor] = []
    vectors: list[Tensor] = []
    grad_bias = torch.zeros_like(grad[0])
    grad_logits = torch.zeros_like(history[0][0])
    for k in reversed(range(len(history))):
        coupling, s, _ = history[k]
        grad_s = squash_vjp(s, grad)
        grad_bias = grad_bias + grad_s.sum(0)
        numbers.append(coupling)
        vectors.append(grad_s)
        if k:
            grad_logits = grad_logits + softmax_vjp(coupling, _agreement(grad_s, u_hat))
            numbers.append(grad_logits)
            vectors.append(history[k - 1][2])
            grad = _weighted_votes(grad_logits, u_hat)
    grad_u_hat = torch.bmm(torch.cat(numbers, 1).mT, _apart(torch.stack(vectors, 1)))
    return grad_u_hat.transpose(0, 1).contiguous(), grad_bias


def digit_votes(u: Float[Tensor, "B I d"], w: Float[Tensor, "I d J e"], precision: str) -> Float[Tensor, "I B je"]:
    """The votes as `digit_capsules` computes them; on a CPU only those of the last few images, see `_DigitVotes`."""
    u, w = operand(u, precision), operand(w, precision)
    return result(votes(u, w), precision) if u.is_cuda else _DigitVotes.apply(u, w, precision)


def digit_capsules(
    u: Float[Tensor, "B I d"],
    w: Float[Tensor, "I d J e"],
    bias: Float[Tensor, "J e"] | None,
    routing: int,
    leak: bool,
    precision: str,
) -> tuple[Float[Tensor, "B J e"], Float[Tensor, "B J I"]]:
    """The output capsules, and the last coupling coefficients."""
    u, w = operand(u, precision), operand(w, precision)
    if not u.is_cuda:
        return _DigitCaps.apply(u, w, bias, routing, leak, precision)
    coupling, _, v = route(result(votes(u, w), precision), w.shape[2], routing, bias, leak)[-1]
    return v, coupling


class _DigitCaps(torch.autograd.Function):
    """Votes and routing, a few images at a time, so that their votes stay in the processor's cache.

    A batch's votes (94 MB at full size) never exist all at once; the backward pass recomputes them.
    """

    @staticmethod
    def forward(
        ctx: Any,
        u: Float[Tensor, "B I d"],
        w: Float[Tensor, "I d J e"],
        bias: Float[Tensor, "J e"] | None,
        routing: int,
        leak: bool,
        precision: str,
    ) -> tuple[Float[Tensor, "B J e"], Float[Tensor, "B J I"]]:
        """The output capsules, and the last coupling coefficients, which have no gradient."""
        histories = [route(votes(some, w), w.shape[2], routing, bias, leak) for some in u.split(CHUNK)]
        ctx.save_for_backward(u, w, *(tensor for history in histories for state in history for tensor in state))
        ctx.has_bias, ctx.routing, ctx.precision = bias is not None, routing, precision
        coupling, _, v = (torch.cat(last) for last in zip(*(history[-1] for history in histories), strict=True))
        ctx.mark_non_differentiable(coupling)
        return v, coupling

    @staticmethod
    def backward(ctx: Any, grad: Float[Tensor, "B J e"], _: Tensor) -> tuple[Tensor | None, ...]:
        u, w, *saved = ctx.saved_tensors
        states = list(zip(saved[::3], saved[1::3], saved[2::3], strict=True))
        grad_u: list[Tensor] = []
        grad_w, grad_bias = torch.zeros_like(w), torch.zeros_like(grad[0])
        for some_u, some_grad in zip(u.split(CHUNK), grad.split(CHUNK), strict=True):
            history, states = states[: ctx.routing], states[ctx.routing :]
            grad_u_hat, more_bias = route_vjp(votes(some_u, w), history, some_grad)
            more_u, more_w = votes_vjp(some_u, w, rounded(grad_u_hat) if ctx.precision == "bf16" else grad_u_hat)
            grad_u.append(more_u)
            grad_w += more_w
            grad_bias += more_bias
        return torch.cat(grad_u), grad_w, grad_bias if ctx.has_bias else None, None, None, None


class _DigitVotes(torch.autograd.Function):
    """`_DigitCaps` without routing: the votes and their gradients a few images at a time, twice.

    The gradient at the votes is the votes themselves, whatever comes in: they never exist all at once.
    """

    @staticmethod
    def forward(
        ctx: Any, u: Float[Tensor, "B I d"], w: Float[Tensor, "I d J e"], precision: str
    ) -> Float[Tensor, "I B je"]:
        ctx.save_for_backward(u, w)
        ctx.precision = precision
        *most, last = u.split(CHUNK)
        for some in most:
            votes(some, w)
        return votes(last, w)

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor | None, ...]:
        u, w = ctx.saved_tensors
        grad_u: list[Tensor] = []
        grad_w = torch.zeros_like(w)
        for some_u in u.split(CHUNK):
            u_hat = votes(some_u, w)
            more_u, more_w = votes_vjp(some_u, w, rounded(u_hat) if ctx.precision == "bf16" else u_hat)
            grad_u.append(more_u)
            grad_w.add_(more_w)
        return torch.cat(grad_u), grad_w, None
