"""The paper's baseline CNNs (sections 4.1 and 6.1) as two functions: forward, keeping what backward needs, and backward.

Weights, images, labels and results are arrays of one library (see `layers`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from array_api_compat import array_namespace, device  # pyright: ignore[reportUnknownVariableType]
from jaxtyping import Float, Int

from harness.spec import Loss, ModelSpec, Weights
from impls.numpy import layers as F
from impls.numpy.layers import Array, exact


@dataclass(frozen=True)
class Activations:
    """Everything computed on the way from B images to the logits."""

    inputs: dict[str, Array]  # of each layer, by its name
    unpooled: dict[str, Float[Array, "B y x f"]]  # each convolution's output, after ReLU
    logits: Float[Array, "B J"]
    factor: Float[Array, "B U"] | None  # what dropout multiplied the last hidden layer's units by
    operand: Callable[[Array], Array]


def same_convolution(x: Float[Array, "B y x c"], w: Float[Array, "k k c f"]) -> Float[Array, "B y x f"]:
    """Cross-correlation with stride 1 and SAME padding: zeros around; an even kernel has one more after than before."""
    return F.convolution(_padded(x, w.shape[0]), w, 1)


def same_convolution_vjp(
    x: Float[Array, "B y x c"], w: Float[Array, "k k c f"], grad: Float[Array, "B y x f"]
) -> tuple[Float[Array, "B y x c"], Float[Array, "k k c f"]]:
    """Gradients for the input and for the kernel; the padding's gradient is dropped."""
    grad_x, grad_w = F.convolution_vjp(_padded(x, w.shape[0]), w, 1, grad)
    return grad_x[_inside(x, w.shape[0])], grad_w


def _padded(x: Float[Array, "B y x c"], kernel: int) -> Float[Array, "B h w c"]:
    xp = array_namespace(x)
    count, height, width, channels = x.shape
    padded = xp.zeros((count, height + kernel - 1, width + kernel - 1, channels), dtype=x.dtype, device=device(x))
    padded[_inside(x, kernel)] = x
    return padded


def _inside(x: Float[Array, "B y x c"], kernel: int) -> tuple[slice, ...]:
    """The region of the images within their padding."""
    before = (kernel - 1) // 2
    return slice(None), slice(before, before + x.shape[1]), slice(before, before + x.shape[2]), slice(None)


def max_pool(x: Float[Array, "B y x f"], side: int) -> Float[Array, "B h w f"]:
    """The maximum of each side x side window; incomplete windows at the end are dropped."""
    if side == 1:
        return x
    return array_namespace(x).max(_windows(x, side), axis=-1)


def max_pool_vjp(x: Float[Array, "B y x f"], side: int, grad: Float[Array, "B h w f"]) -> Float[Array, "B y x f"]:
    """From max_pool's input: the gradient goes to the maximum; ties go to the first, row by row."""
    if side == 1:
        return grad
    xp = array_namespace(x)
    count, height, width, filters = grad.shape
    windows = _windows(x, side)
    places = xp.astype(xp.argmax(windows, axis=-1)[..., None] == xp.arange(side * side, device=device(x)), x.dtype)
    spread = xp.reshape(places * grad[..., None], (count, height, width, filters, side, side))
    grad_x = xp.zeros_like(x)
    inside = xp.reshape(xp.permute_dims(spread, (0, 1, 4, 2, 5, 3)), (count, height * side, width * side, filters))
    grad_x[:, : height * side, : width * side, :] = inside
    return grad_x


def _windows(x: Float[Array, "B y x f"], side: int) -> Float[Array, "B h w f taps"]:
    xp = array_namespace(x)
    count, height, width, filters = x.shape[0], x.shape[1] // side, x.shape[2] // side, x.shape[3]
    inside = x[:, : height * side, : width * side, :]
    split = xp.permute_dims(xp.reshape(inside, (count, height, side, width, side, filters)), (0, 1, 3, 5, 2, 4))
    return xp.reshape(split, (count, height, width, filters, side * side))


def forward(
    model: ModelSpec,
    w: Weights,
    digits: Float[Array, "B K y x c"],
    operand: Callable[[Array], Array] = exact,
    kept: Float[Array, "B U"] | None = None,
) -> Activations:
    """Pixels in 0..1, overlaid if there are several digits, to logits.

    ReLU convolutions, each with max pooling, ReLU layers, dropout, a linear layer.

    In training `kept` is 1 if dropout keeps a unit, else 0; in evaluation there is none. `operand` rounds an operand of
    a layer's product to the precision, here and in the backward pass; weights are already rounded.
    """
    xp = array_namespace(digits)
    inputs: dict[str, Array] = {}
    unpooled: dict[str, Array] = {}
    x = F.overlay(digits)
    for layer in model.cnn_convolutions:
        inputs[layer] = x
        unpooled[layer] = F.relu(same_convolution(operand(x), w[f"{layer}.w"]) + w[f"{layer}.b"])
        x = max_pool(unpooled[layer], model.cnn_pool)
    x = xp.reshape(x, (x.shape[0], -1))  # rows, columns, channels
    *hidden, last = model.cnn_dense
    for layer in hidden:
        inputs[layer] = x
        x = F.relu(operand(x) @ w[f"{layer}.w"] + w[f"{layer}.b"])
    factor = None if kept is None else kept / (1 - model.dropout)  # so that evaluation need not scale
    inputs[last] = x if factor is None else x * factor
    logits = operand(inputs[last]) @ w[f"{last}.w"] + w[f"{last}.b"]
    return Activations(inputs, unpooled, logits, factor, operand)


def scores(model: ModelSpec, acts: Activations) -> Float[Array, "B J"]:
    """The probabilities of the classes; for several digits, independent ones."""
    return F.softmax(acts.logits) if model.overlaid == 1 else F.sigmoid(acts.logits)


def outputs(model: ModelSpec, w: Weights, acts: Activations) -> tuple[Array | None, ...]:
    """The fields of `harness.spec.Outputs`."""
    return None, scores(model, acts), None, None


def cross_entropy(model: ModelSpec, logits: Float[Array, "B J"], present: Float[Array, "B J"]) -> Float[Array, " B"]:
    """-log of the softmax at the label, in nats; for several digits, that of each class's sigmoid, summed over classes."""
    xp = array_namespace(logits)
    if model.overlaid > 1:  # no exponential of a large number
        soft = F.relu(logits) + xp.log1p(xp.exp(-xp.abs(logits)))
        return xp.sum(soft - present * logits, axis=1)
    above = logits - xp.max(logits, axis=1, keepdims=True)
    return xp.log(xp.sum(xp.exp(above), axis=1)) - xp.sum(present * above, axis=1)


def mean_losses(
    model: ModelSpec, w: Weights, acts: Activations, labels: Int[Array, "B K"], mask: Int[Array, "B K"]
) -> Float[Array, "1"]:
    """Only the total, a mean over the images; `mask`, meant for a decoder, is ignored."""
    xp = array_namespace(acts.logits)
    return xp.stack([xp.mean(cross_entropy(model, acts.logits, F.present(labels, acts.logits)))])


def losses(model: ModelSpec, w: Weights, acts: Activations, labels: Int[Array, "B K"], mask: Int[Array, "B K"]) -> Loss:
    """`mean_losses`, copied back from the device."""
    return Loss(float(mean_losses(model, w, acts, labels, mask)[0]))


def backward(model: ModelSpec, w: Weights, acts: Activations, labels: Int[Array, "B K"]) -> Weights:
    """The gradient of the mean training loss for every weight."""
    xp, operand = array_namespace(acts.logits), acts.operand
    count = acts.logits.shape[0]
    grads: Weights = {}
    grad = (scores(model, acts) - F.present(labels, acts.logits)) / count  # of softmax and sigmoids alike
    for layer in reversed(model.cnn_dense):
        x = acts.inputs[layer]
        grads[f"{layer}.w"], grads[f"{layer}.b"] = operand(x).T @ operand(grad), xp.sum(grad, axis=0)
        grad = operand(grad) @ w[f"{layer}.w"].T
        if layer == model.cnn_dense[-1] and acts.factor is not None:
            grad = grad * acts.factor
        grad = F.relu_vjp(x, grad)  # a dropped unit is zero like one that ReLU stopped
    grad = xp.reshape(grad, (count, *model.cnn_grids[-1], model.cnn_channels[-1]))
    for layer in reversed(model.cnn_convolutions):
        x, y = acts.inputs[layer], acts.unpooled[layer]
        grad = F.relu_vjp(y, max_pool_vjp(y, model.cnn_pool, grad))
        grads[f"{layer}.b"] = xp.sum(grad, axis=(0, 1, 2))
        grad, grads[f"{layer}.w"] = same_convolution_vjp(operand(x), w[f"{layer}.w"], operand(grad))
    return {name: grads[name] for name in w}
