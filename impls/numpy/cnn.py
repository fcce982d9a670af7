"""The paper's baseline CNN (section 4.1) as two functions: forward, keeping what the backward pass needs, and backward.

Weights, images and labels are arrays of one library (see `layers`), and so is what comes out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from array_api_compat import array_namespace, device
from jaxtyping import Float, Int

from harness.spec import Loss, ModelSpec, Weights
from impls.numpy import layers as F
from impls.numpy.layers import Array, exact, one_hot

CONVOLUTIONS, DENSE = ("conv1", "conv2", "conv3"), ("fc1", "fc2", "fc3")


@dataclass(frozen=True)
class Activations:
    """Everything computed on the way from B images to the logits."""

    inputs: dict[str, Array]  # of each layer, by its name
    logits: Float[Array, "B J"]
    factor: Float[Array, "B U"] | None  # what dropout multiplied fc2's units by
    operand: Callable[[Array], Array]


def same_convolution(x: Float[Array, "B y x c"], w: Float[Array, "k k c f"]) -> Float[Array, "B y x f"]:
    """Cross-correlation with stride 1 and SAME padding: zeros around, of an even kernel one more after than before."""
    return F.convolution(_padded(x, w.shape[0]), w, 1)


def same_convolution_vjp(
    x: Float[Array, "B y x c"], w: Float[Array, "k k c f"], grad: Float[Array, "B y x f"]
) -> tuple[Float[Array, "B y x c"], Float[Array, "k k c f"]]:
    """Gradients for the input and for the kernel; the padding's goes nowhere."""
    grad_x, grad_w = F.convolution_vjp(_padded(x, w.shape[0]), w, 1, grad)
    return grad_x[_inside(x, w.shape[0])], grad_w


def _padded(x: Float[Array, "B y x c"], kernel: int) -> Float[Array, "B h w c"]:
    xp = array_namespace(x)
    count, height, width, channels = x.shape
    padded = xp.zeros((count, height + kernel - 1, width + kernel - 1, channels), dtype=x.dtype, device=device(x))
    padded[_inside(x, kernel)] = x
    return padded


def _inside(x: Float[Array, "B y x c"], kernel: int) -> tuple[slice, ...]:
    """Where the images lie in their padding."""
    before = (kernel - 1) // 2
    return slice(None), slice(before, before + x.shape[1]), slice(before, before + x.shape[2]), slice(None)


def forward(
    model: ModelSpec,
    w: Weights,
    images: Float[Array, "B y x c"],
    operand: Callable[[Array], Array] = exact,
    kept: Float[Array, "B U"] | None = None,
) -> Activations:
    """Pixels in 0..1 to logits: ReLU convolutions, two ReLU layers, dropout, a linear layer.

    In training `kept` is 1 where dropout keeps a unit and 0 where not; in evaluation there is none. `operand` is what the
    precision makes of an operand of a layer's product, here and in the backward pass; weights come as operands already.
    """
    xp = array_namespace(images)
    inputs: dict[str, Array] = {}
    x = images
    for layer in CONVOLUTIONS:
        inputs[layer] = x
        x = F.relu(same_convolution(operand(x), w[f"{layer}.w"]) + w[f"{layer}.b"])
    x = xp.reshape(x, (x.shape[0], -1))  # rows, columns, channels
    for layer in ("fc1", "fc2"):
        inputs[layer] = x
        x = F.relu(operand(x) @ w[f"{layer}.w"] + w[f"{layer}.b"])
    factor = None if kept is None else kept / (1 - model.dropout)  # so that evaluation need not scale
    inputs["fc3"] = x if factor is None else x * factor
    logits = operand(inputs["fc3"]) @ w["fc3.w"] + w["fc3.b"]
    return Activations(inputs, logits, factor, operand)


def scores(acts: Activations) -> Float[Array, "B J"]:
    """The probabilities of the classes."""
    return F.softmax(acts.logits)


def outputs(model: ModelSpec, w: Weights, acts: Activations) -> tuple[Array | None, ...]:
    """The fields of `harness.spec.Outputs`."""
    return None, scores(acts), None, None


def cross_entropy(logits: Float[Array, "B J"], present: Float[Array, "B J"]) -> Float[Array, " B"]:
    """-log of the softmax at the label, in nats."""
    xp = array_namespace(logits)
    above = logits - xp.max(logits, axis=1, keepdims=True)
    return xp.log(xp.sum(xp.exp(above), axis=1)) - xp.sum(present * above, axis=1)


def mean_losses(
    model: ModelSpec, w: Weights, acts: Activations, labels: Int[Array, " B"], mask: Int[Array, " B"]
) -> Float[Array, "1"]:
    """The total alone, a mean over the images; there is no decoder that `mask` could mean anything to."""
    xp = array_namespace(acts.logits)
    return xp.stack([xp.mean(cross_entropy(acts.logits, one_hot(labels, acts.logits)))])


def losses(model: ModelSpec, w: Weights, acts: Activations, labels: Int[Array, " B"], mask: Int[Array, " B"]) -> Loss:
    """`mean_losses`, read back from where they were computed."""
    return Loss(float(mean_losses(model, w, acts, labels, mask)[0]))


def backward(model: ModelSpec, w: Weights, acts: Activations, labels: Int[Array, " B"]) -> Weights:
    """The gradient of the mean training loss for every weight."""
    xp, operand = array_namespace(acts.logits), acts.operand
    count = acts.logits.shape[0]
    grads: Weights = {}
    grad = (scores(acts) - one_hot(labels, acts.logits)) / count
    for layer in reversed(DENSE):
        x = acts.inputs[layer]
        grads[f"{layer}.w"], grads[f"{layer}.b"] = operand(x).T @ operand(grad), xp.sum(grad, axis=0)
        grad = operand(grad) @ w[f"{layer}.w"].T
        if layer == "fc3" and acts.factor is not None:
            grad = grad * acts.factor
        grad = F.relu_vjp(x, grad)  # a dropped unit is zero like one that ReLU stopped
    grad = xp.reshape(grad, (count, *model.image[:2], model.cnn_channels[-1]))
    for layer in reversed(CONVOLUTIONS):
        x = acts.inputs[layer]
        grads[f"{layer}.b"] = xp.sum(grad, axis=(0, 1, 2))
        grad, grads[f"{layer}.w"] = same_convolution_vjp(operand(x), w[f"{layer}.w"], operand(grad))
        grad = F.relu_vjp(x, grad)
    return {name: grads[name] for name in w}
