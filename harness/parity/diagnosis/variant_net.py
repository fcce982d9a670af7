"""What a `Variant` computes: the CapsNet of section 4 with its choices, and the gradient by automatic differentiation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from autograd import grad as _gradient  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]
from autograd.tracer import getval  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

from harness.parity.diagnosis.variant import Variant
from harness.parity.diagnosis.variant_layers import Array, convolution, length, np, relu, sigmoid, softmax, squash
from harness.spec import MARGIN_MINUS, MARGIN_PLUS, Loss, ModelSpec, Weights

gradient: Any = _gradient  # pyright: ignore[reportUnknownVariableType]
detached: Any = getval  # pyright: ignore[reportUnknownVariableType]
_MEAN, _DEVIATION = 0.1307, 0.3081  # of MNIST, as PyTorch's examples have them


class Capsules(NamedTuple):
    """Output capsules (B, J, e), and the coupling (B, J, I) of the iteration that made them."""

    v: Array
    coupling: Array


def pixels_of(variant: Variant, images: Array) -> Array:
    """uint8, or pixels in 0..1 times 255, to the network's input."""
    x = images / 255.0
    match variant.pixels:
        case "0-255":
            return images * 1.0
        case "256":
            return images / 256.0
        case "centred":
            return 2 * x - 1
        case "normalised":
            return (x - _MEAN) / _DEVIATION
        case _:
            return x


def _convolved(variant: Variant, x: Array, w: Array, stride: int) -> Array:
    match variant.windows:
        case "same":
            before = w.shape[0] // 2
            x = np.pad(x, ((0, 0), (before, 0), (before, 0), (0, 0)), "constant")
            x = x[:, : x.shape[1] - before, : x.shape[2] - before]
        case "rolled":
            x = np.roll(x, 1, axis=(1, 2))
        case "flipped":
            w = w[::-1, ::-1]
        case "transposed":
            w = np.transpose(w, (1, 0, 2, 3))
        case _:
            pass
    return convolution(x, w, stride)


def grid_of(variant: Variant, model: ModelSpec, w: Weights, pixels: Array) -> Array:
    """(B, y, x, c): both convolutions, before the primary capsules are read from them."""
    conv1 = _convolved(variant, pixels, w["conv1.w"], 1) + w["conv1.b"]
    conv1 = relu(conv1) if variant.conv1_relu else conv1
    product, bias = _convolved(variant, conv1, w["primary.w"], 2), w["primary.b"]
    match variant.primary_scale:
        case "after":
            return model.primary_scale * (product + bias)
        case "missing":
            return product + bias
        case _:
            return model.primary_scale * product + bias


def primary_of(variant: Variant, model: ModelSpec, grid: Array) -> Array:
    """(B, I, d), before the squash."""
    grid = relu(grid) if variant.primary_relu else grid
    types, dims, (rows, columns) = model.primary_types, model.primary_dim, model.primary_grid
    if variant.split.startswith("spatial"):  # a view of channels first: (c, y, x) cut into pieces of d
        flat = np.reshape(np.transpose(grid, (0, 3, 1, 2)), (-1, model.primary_capsules, dims))
        if variant.split == "spatial":
            return flat
        # the weights are in channels-first order, too
        split = np.transpose(np.reshape(flat, (-1, types, rows, columns, dims)), (0, 2, 3, 1, 4))
    elif variant.split == "dimensions first":
        split = np.swapaxes(np.reshape(grid, (-1, rows, columns, dims, types)), 3, 4)
    else:
        split = np.reshape(grid, (-1, rows, columns, types, dims))
    axes = {
        "types first": (0, 3, 1, 2, 4),
        "columns first": (0, 2, 1, 3, 4),
        "types and columns first": (0, 3, 2, 1, 4),
    }
    split = np.transpose(split, axes[variant.order]) if variant.order in axes else split
    return np.reshape(split, (-1, model.primary_capsules, dims))


def squashed_primary(variant: Variant, model: ModelSpec, grid: Array) -> Array:
    """u (B, I, d)"""
    primary = primary_of(variant, model, grid)
    return squash(primary, variant.primary_squash, variant.primary_axis, variant.squash_epsilon)


def votes_of(u: Array, w: Array) -> Array:
    """Eq. 2: (B, I, d) and (I, J, d, e) -> (B, J, I, e), as a product for each input."""
    inputs, outputs, d, e = w.shape
    product = np.matmul(np.transpose(u, (1, 0, 2)), np.reshape(np.transpose(w, (0, 2, 1, 3)), (inputs, d, outputs * e)))
    return np.transpose(np.reshape(product, (inputs, -1, outputs, e)), (1, 2, 0, 3))


def route(variant: Variant, model: ModelSpec, u_hat: Array, bias: Array | None) -> Capsules:
    """Procedure 1, or a variant of it."""
    asked = model.routing
    count = {"fewer": max(1, asked - 1), "more": asked + 1, "first": 1}.get(variant.iterations, asked)
    logits: Array = np.zeros(u_hat.shape[:3])
    for iteration in range(count):
        is_last = iteration == count - 1
        votes = detached(u_hat) if variant.detached == "all" and not is_last else u_hat
        coupling = _coupling(variant, logits, model.none_of_the_above)
        s = np.matmul(coupling[:, :, None, :], votes)[:, :, 0, :]
        if bias is not None and (variant.digit_bias == "every" or (variant.digit_bias == "last" and is_last)):
            s = s + (detached(bias) if variant.detached == "all" and not is_last else bias)
        v = squash(s, variant.digit_squash, variant.digit_axis, variant.squash_epsilon)
        if is_last:
            return Capsules(v, coupling)
        other = s if variant.agreement == "s" else v
        agreement = np.matmul(
            detached(votes) if variant.detached == "votes" else votes,
            (detached(other) if variant.detached == "capsules" else other)[..., None],
        )[..., 0]
        agreement = agreement / u_hat.shape[3] if variant.agreement == "mean" else agreement
        logits = agreement if variant.logits == "replaced" else logits + agreement
    raise AssertionError("no iteration")


def _coupling(variant: Variant, logits: Array, leak: bool) -> Array:
    """(B, J, I); with `leak`, "none of the above" is one more output."""
    if variant.shared != "no":
        pooled = (np.mean if variant.shared == "mean" else np.sum)(logits, axis=0, keepdims=True)
        logits = pooled + 0 * logits
    if variant.softmax == "single":  # of an axis of size one
        return 0 * logits + 1
    if leak:
        logits = np.concatenate([logits, 0 * logits[:, :1]], axis=1)
    found = softmax(logits, {"outputs": 1, "inputs": 2, "images": 0}[variant.softmax])
    return found[:, :-1] if leak else found


def capsules_of(variant: Variant, model: ModelSpec, w: Weights, grid: Array) -> Capsules:
    u_hat = votes_of(squashed_primary(variant, model, grid), w["digit.w"])
    return route(variant, model, u_hat, w["digit.b"] if model.digit_bias else None)


def lengths_of(variant: Variant, v: Array, how: str) -> Array:
    """(B, J); `how` is the variant's `lengths` or its `scores`."""
    found = length(v, variant.length_epsilon)
    return softmax(found, 1) if how == "softmax" else found * found if how == "square" else found


def decoded(variant: Variant, w: Weights, v: Array, mask: str, labels: Array | None) -> Array:
    """(B, pixels): the decoder's output for the capsules that it sees."""
    if mask == "none":
        masked = v
    else:
        found = detached(v)
        lengths = length(found, variant.length_epsilon)
        lengths = softmax(lengths, 0) if mask == "relative" else lengths
        classes = labels if mask == "label" else np.argmax(lengths, axis=1)
        masked = v * np.eye(v.shape[1])[classes][..., None]
    masked = np.swapaxes(masked, 1, 2) if variant.flattened == "dimensions first" else masked
    x = np.reshape(masked, (v.shape[0], -1))
    for layer in ("dec1", "dec2"):
        x = np.dot(x, w[f"{layer}.w"]) + w[f"{layer}.b"]
        x = relu(x) if variant.hidden == "relu" else x
    x = np.dot(x, w["dec3.w"]) + w["dec3.b"]
    match variant.pixel_output:
        case "linear":
            return x
        case "relu":
            return relu(x)
        case "tanh":
            return np.tanh(x)
        case _:
            return sigmoid(x)


def images_of(variant: Variant, model: ModelSpec, pixels: Array) -> Array:
    """The decoder's pixels as images (B, H, W, C)."""
    height, width, channels = model.image
    if variant.pixel_order == "columns":
        return np.swapaxes(np.reshape(pixels, (-1, width, height, channels)), 1, 2)
    return np.reshape(pixels, (-1, height, width, channels))


def margin_of(variant: Variant, model: ModelSpec, v: Array, labels: Array) -> Array:
    """Eq. 4 or a variant of it: one number for all images."""
    lengths, present = lengths_of(variant, v, variant.scores), np.eye(v.shape[1])[labels]
    plus, minus = (MARGIN_PLUS, MARGIN_MINUS) if variant.margins != "swapped" else (MARGIN_MINUS, MARGIN_PLUS)
    missed, imagined = plus - lengths, lengths - minus
    if variant.margin_terms != "unclipped":
        missed, imagined = relu(missed), relu(imagined)
    missed, imagined = missed**variant.margin_power, imagined**variant.margin_power
    by_presence = variant.margin_lambda == "present"
    factor = 0.5 if by_presence else variant.margin_lambda
    here, elsewhere = present * missed, (1 - present) * imagined
    here, elsewhere = (factor * here, elsewhere) if by_presence else (here, factor * elsewhere)
    terms = (
        here
        if variant.margin_terms == "present"
        else elsewhere
        if variant.margin_terms == "absent"
        else here + elsewhere
    )
    scale = {"sum": 1.0, "mean": 1 / v.shape[1], "half mean": 0.5 / v.shape[1]}
    each = scale.get(variant.margin_classes, model.margin_scale) * np.sum(terms, axis=1)
    return np.sum(each) if variant.margin_images == "sum" else np.mean(each)


def reconstruction_of(variant: Variant, model: ModelSpec, w: Weights, v: Array, pixels: Array, labels: Array) -> Array:
    """The unweighted loss: one number for all images."""
    v = detached(v) if variant.reconstruction_detached else v
    made = images_of(variant, model, decoded(variant, w, v, variant.training_mask, labels))
    errors = np.abs(made - pixels) if variant.reconstruction_power == 1 else (made - pixels) ** 2
    each = (np.mean if variant.reconstruction_pixels == "mean" else np.sum)(errors, axis=(1, 2, 3))
    return np.sum(each) if variant.reconstruction_images == "sum" else np.mean(each)


def losses_of(
    variant: Variant, model: ModelSpec, w: Weights, v: Array, pixels: Array, labels: Array
) -> tuple[Array, ...]:
    """Total, margin, reconstruction."""
    margin = margin_of(variant, model, v, labels)
    reconstruction = reconstruction_of(variant, model, w, v, pixels, labels) if model.decoder else 0.0
    return margin + variant.reconstruction_weight * reconstruction, margin, reconstruction


def loss_and_grads(
    variant: Variant, model: ModelSpec, w: Weights, images: Array, labels: Array
) -> tuple[Loss, Weights]:
    """The losses of B images, and the total's gradient for every weight."""
    pixels = pixels_of(variant, images)
    kept: list[Loss] = []

    def total(weights: Weights) -> Array:
        v = capsules_of(variant, model, weights, grid_of(variant, model, weights, pixels)).v
        terms = losses_of(variant, model, weights, v, pixels, labels)
        kept.append(Loss(*(float(detached(term)) for term in terms)))
        return terms[0]

    grads = gradient(total)(w)
    return kept[-1], grads


class Activations(NamedTuple):
    """What `VariantNet` keeps of a forward pass."""

    images: Array  # (B, H, W, C), in 0..255
    capsules: Capsules


class VariantNet:
    """A variant in place of the specification's network, to train and evaluate: see `impls.numpy.models.capsnet`."""

    def __init__(self, variant: Variant) -> None:
        self.variant = variant

    def forward(self, model: ModelSpec, w: Weights, digits: Array, *_: Any, **__: Any) -> Activations:
        images = 255.0 * digits[:, 0]
        return Activations(
            images,
            capsules_of(self.variant, model, w, grid_of(self.variant, model, w, pixels_of(self.variant, images))),
        )

    def scores(self, model: ModelSpec, acts: Activations) -> Array:
        return lengths_of(self.variant, acts.capsules.v, self.variant.lengths)

    def outputs(self, model: ModelSpec, w: Weights, acts: Activations) -> tuple[Array | None, ...]:
        v, coupling = acts.capsules
        made = (
            images_of(self.variant, model, decoded(self.variant, w, v, self.variant.mask, None))
            if model.decoder
            else None
        )
        return v, self.scores(model, acts), np.swapaxes(coupling, 1, 2), made

    def mean_losses(self, model: ModelSpec, w: Weights, acts: Activations, labels: Array, mask: Array) -> Array:
        """As the specification's; a mask that differs from the labels means evaluation."""
        own, pixels, classes = self.variant, pixels_of(self.variant, acts.images), labels[:, 0]
        evaluated = not np.array_equal(mask, labels)
        if evaluated:
            own = replace(own, training_mask=own.mask)
        return np.stack(losses_of(own, model, w, acts.capsules.v, pixels, classes))

    def losses(self, model: ModelSpec, w: Weights, acts: Activations, labels: Array, mask: Array) -> Loss:
        return Loss(*self.mean_losses(model, w, acts, labels, mask).tolist())

    def backward(self, model: ModelSpec, w: Weights, acts: Activations, labels: Array) -> Weights:
        return loss_and_grads(self.variant, model, w, acts.images, labels[:, 0])[1]
