"""Faults with which a CapsNet still trains well, as edits of the specification's source: the ladder must catch them.

Some are known from public implementations; others are likely mistakes, given their conventions and defaults.
"""

from __future__ import annotations

from harness.parity.faults.fault import Fault, has_decoder
from harness.parity.faults.mutate import Edit, in_impl, in_layers, in_model
from harness.spec import ModelSpec


def _two_iterations(model: ModelSpec) -> bool:
    return model.routing >= 2


def _three_iterations(model: ModelSpec) -> bool:
    return model.routing >= 3


def _mask_by_longest(model: ModelSpec) -> bool:
    return has_decoder(model) and model.evaluation_mask == "longest"


def _mask_by_label(model: ModelSpec) -> bool:
    return has_decoder(model) and model.evaluation_mask == "label"


def _official(model: ModelSpec) -> bool:
    return model.profile == "official"


def _official_routing(model: ModelSpec) -> bool:
    return model.digit_bias and model.routing >= 2


_ITERATIONS = "for _ in range(iterations):"
_PRIMARY = "xp.reshape(grid, (-1, model.primary_capsules, model.primary_dim))"
_SPLIT = "xp.reshape(grid, (-1, *model.primary_grid, "
_KERNEL = "xp.reshape(w, (-1, w.shape[3]))"
_CONV1 = 'F.convolution(operand(images), w["conv1.w"], 1) + w["conv1.b"]'
_AGREEMENT = "logits = logits + _agreement(u_hat, v)"
_ROOT = "(root + ADAM_EPSILON)"
_RATE = "self.optim.lr_at(self.moments.step)"
_DECAY = "self.optim.lr_decay"
_SHIFTED_ROWS = "np.arange(height) - shifts[:, :1].astype(int)"
_SHIFTED_COLUMNS = "np.arange(width) - shifts[:, 1:].astype(int)"
_STEP = "self._step(self.net.backward(self.model, self._operands(), acts, labels))"
_SUMS = "total += self._sums(acts, labels, labels)"
_GRID = 'F.convolution(operand(conv1), w["primary.w"], 2) * model.primary_scale + w["primary.b"]'
_WINDOW = "[x[:, rows, columns, :] for"


def _grouped(split: str, axes: str) -> tuple[Edit, ...]:
    """Primary capsules read from the grid with its channels split and its axes permuted in another way."""
    return (in_model(_PRIMARY, _PRIMARY.replace("grid", f"xp.permute_dims({_SPLIT}{split})), {axes})")),)


def _padded(after: str) -> str:
    """`x` padded with zeros: as many before it as SAME padding has, and `after` after it."""
    return f"xp.pad(x, ((0, 0), (kernel // 2, {after}), (kernel // 2, {after}), (0, 0)))"


_SHAPES = (
    Fault(
        "same-padding",
        "convolutions with SAME padding",
        "L1",
        (
            in_layers(
                "windows = patches(x, w.shape[0], stride)",
                f"kernel = w.shape[0]\n    windows = patches({_padded('kernel // 2')}, kernel, stride)",
            ),
        ),
    ),
)

_CAPSULES = (
    Fault(
        "same-padding-cropped",
        "convolutions with SAME padding, cropped to the size of VALID",
        "L2",
        (in_layers(_WINDOW, _WINDOW.replace("x[", f"{_padded('0')}[")),),
    ),
    Fault(
        "softmax-over-inputs",
        "the softmax over the input capsules",
        "L2",
        (
            in_layers("xp.max(logits, axis=1,", "xp.max(logits, axis=2,"),
            in_layers("xp.sum(exponential, axis=1,", "xp.sum(exponential, axis=2,"),
        ),
    ),
    Fault(
        "shared-logits",
        "routing logits shared by all images of the batch",
        "L2",
        (in_layers("softmax(logits, leak)", "softmax(0 * logits + logits.mean(0, keepdims=True), leak)"),),
        _two_iterations,
    ),
    Fault(
        "one-iteration-more",
        "one routing iteration too many",
        "L2",
        (in_layers(_ITERATIONS, f"iterations += 1\n    {_ITERATIONS}"),),
    ),
    Fault(
        "one-iteration-fewer",
        "one routing iteration too few",
        "L2",
        (in_layers(_ITERATIONS, f"iterations = max(1, iterations - 1)\n    {_ITERATIONS}"),),
        _two_iterations,
    ),
    Fault(
        "early-return",
        "a routing loop that returns in its first iteration",
        "L2",
        (in_layers("history.append((coupling, s, v))", "history.append((coupling, s, v))\n        break"),),
        _two_iterations,
    ),
    Fault(
        "logits-replaced",
        "routing logits replaced by the agreement instead of added to",
        "L2",
        (in_layers(_AGREEMENT, "logits = _agreement(u_hat, v)"),),
        _three_iterations,
    ),
    Fault(
        "agreement-with-input",
        "the agreement taken with s_j, before the squash",
        "L2",
        (in_layers(_AGREEMENT, "logits = logits + _agreement(u_hat, s)"),),
        _two_iterations,
    ),
    Fault(
        "spatial-grouping",
        "primary capsules grouped from spatial neighbours",
        "L2",
        (in_model(_PRIMARY, _PRIMARY.replace("grid", "xp.permute_dims(grid, (0, 3, 1, 2))")),),
    ),
    Fault(
        "channels-first-order",
        "primary capsules counted channels first (NCHW)",
        "L2",
        _grouped("model.primary_types, model.primary_dim", "(0, 3, 1, 2, 4)"),
    ),
    Fault(
        "dimensions-before-types",
        "primary channels split with the dimension before the type",
        "L2",
        _grouped("model.primary_dim, model.primary_types", "(0, 1, 2, 4, 3)"),
    ),
    Fault(
        "squash-without-epsilon",
        "a squash without epsilon",
        "L2",
        (in_layers("(1 + square) / xp.sqrt(square + SQUASH_EPSILON))", "(1 + square) / xp.sqrt(square))"),),
    ),
    Fault(
        "squash-wrong-axis",
        "a squash over the capsules instead of their dimensions",
        "L2",
        (
            in_layers(
                "square = xp.sum(s * s, axis=-1, keepdims=True)\n    return",
                "square = xp.sum(s * s, axis=1, keepdims=True)\n    return",
            ),
        ),
    ),
    Fault(
        "squash-to-unit-length",
        "a squash without the factor |s|^2 / (1 + |s|^2)",
        "L2",
        (in_layers("return s * (square / (1 + square) /", "return s * (1 /"),),
    ),
    Fault(
        "primary-not-squashed",
        "primary capsules without squash",
        "L2",
        (in_model("u = F.squash(primary, conventions.squash_epsilon)", "u = primary"),),
    ),
    Fault(
        "length-without-epsilon",
        "capsule lengths without epsilon",
        "L2",
        (in_layers("xp.sum(v * v, axis=-1) + SQUASH_EPSILON", "xp.sum(v * v, axis=-1)"),),
    ),
    Fault(
        "primary-relu",
        "a ReLU on the primary capsules",
        "L2",
        (in_model(_PRIMARY, _PRIMARY.replace("grid", "F.relu(grid)")),),
    ),
    Fault(
        "conv1-without-relu",
        "no ReLU after the first convolution",
        "L2",
        (in_model(f"F.relu({_CONV1})", _CONV1),),
    ),
    Fault(
        "windows-off-by-one",
        "convolution windows that are off by one pixel",
        "L2",
        (in_layers(_WINDOW, _WINDOW.replace("x[", "xp.roll(x, 1, axis=(1, 2))[")),),
    ),
    Fault(
        "kernel-flipped",
        "flipped kernels (a true convolution)",
        "L2",
        (in_layers(_KERNEL, "xp.reshape(xp.flip(w, axis=(0, 1)), (-1, w.shape[3]))"),),
    ),
    Fault(
        "kernel-transposed",
        "kernels with rows and columns swapped",
        "L2",
        (in_layers(_KERNEL, "xp.reshape(xp.permute_dims(w, (1, 0, 2, 3)), (-1, w.shape[3]))"),),
    ),
    Fault(
        "pixels-0-to-255",
        "pixels not divided by 255",
        "L2",
        (in_impl("self.xp.astype(digits, self.dtype) / 255", "self.xp.astype(digits, self.dtype)"),),
    ),
    Fault(
        "primary-scale-forgotten",
        "a primary convolution that is not divided by its types",
        "L2",
        (in_model(_GRID, _GRID.replace(" * model.primary_scale", "")),),
        _official,
    ),
    Fault(
        "primary-scale-over-bias",
        "a primary convolution that is divided by its types after the bias instead of before",
        "L2",
        (in_model(_GRID, 'model.primary_scale * (F.convolution(operand(conv1), w["primary.w"], 2) + w["primary.b"])'),),
        _official,
    ),
    Fault(
        "digit-bias-last-iteration",
        "output capsules whose bias is added in the last routing iteration alone",
        "L2",
        (in_layers("if bias is not None:", "if bias is not None and len(history) == iterations - 1:"),),
        _official_routing,
    ),
)

_LOSSES = (
    Fault(
        "lambda-dropped",
        "a margin loss without lambda",
        "L3",
        (in_model("MARGIN_LAMBDA * (1 - present) * imagined, axis", "(1 - present) * imagined, axis"),),
    ),
    Fault(
        "margin-mean-over-classes",
        "a margin loss averaged over the classes",
        "L3",
        (in_model("xp.sum(present * missed", "xp.mean(present * missed"),),
    ),
    Fault(
        "margins-swapped",
        "m+ and m- swapped",
        "L3",
        (
            in_model("F.relu(MARGIN_PLUS - lengths)", "F.relu(MARGIN_MINUS - lengths)"),
            in_model("F.relu(lengths - MARGIN_MINUS)", "F.relu(lengths - MARGIN_PLUS)"),
        ),
    ),
    Fault(
        "margin-not-squared",
        "margins that are not squared",
        "L3",
        (
            in_model("F.relu(MARGIN_PLUS - lengths) ** 2", "F.relu(MARGIN_PLUS - lengths)"),
            in_model("F.relu(lengths - MARGIN_MINUS) ** 2", "F.relu(lengths - MARGIN_MINUS)"),
        ),
    ),
    Fault(
        "reconstruction-mean",
        "a reconstruction loss averaged over the pixels",
        "L3",
        (in_model("xp.sum(xp.reshape(squares", "xp.mean(xp.reshape(squares"),),
        has_decoder,
    ),
    Fault(
        "reconstruction-weight-dropped",
        "a reconstruction loss without its weight 0.0005",
        "L3",
        (in_model("margin + RECONSTRUCTION_WEIGHT * reconstruction", "margin + reconstruction"),),
        has_decoder,
    ),
    Fault(
        "mask-by-longest-in-training",
        "a decoder that sees the longest capsule in training",
        "L3",
        (
            in_model(
                "decode(w, acts.v, one_hot(mask, acts.v), acts.operand)",
                "decode(w, acts.v, one_hot(F.winners(F.lengths(acts.v), model.overlaid), acts.v))",
            ),
        ),
        has_decoder,
    ),
    Fault(
        "mask-missing",
        "a decoder that sees every capsule",
        "L3",
        (in_model("v[:, None, :, :] * mask[..., None]", "v[:, None, :, :] + 0 * mask[..., None]"),),
        has_decoder,
    ),
    Fault(
        "decoder-input-transposed",
        "a decoder whose input is flattened dimensions first",
        "L3",
        (in_model("reshape(masked,", "reshape(masked.swapaxes(2, 3),"),),
        has_decoder,
    ),
    Fault(
        "pixels-transposed",
        "a decoder whose pixels are in columns instead of rows",
        "L3",
        (
            in_model(
                "xp.reshape(digits, reconstruction.shape)", "xp.reshape(digits.swapaxes(2, 3), reconstruction.shape)"
            ),
            in_model(
                "xp.reshape(pixels, (-1, *model.several, *model.image))",
                "xp.reshape(xp.reshape(pixels, (-1, *acts.images.swapaxes(1, 2).shape[1:])).swapaxes(1, 2),"
                " (-1, *model.several, *model.image))",
            ),
        ),
        has_decoder,
    ),
    Fault(
        "sigmoid-missing",
        "a decoder without its sigmoid",
        "L3",
        (
            in_model(
                'F.sigmoid(operand(inputs[-1]) @ w["dec3.w"] + w["dec3.b"])', 'inputs[-1] @ w["dec3.w"] + w["dec3.b"]'
            ),
        ),
        has_decoder,
    ),
    Fault(
        "sum-over-images",
        "losses summed over the images instead of averaged",
        "L3",
        (
            in_model("xp.mean(margin_loss(", "xp.sum(margin_loss("),
            in_model("xp.mean(reconstruction_loss(", "xp.sum(reconstruction_loss("),
        ),
    ),
    Fault(
        "margin-scale-forgotten",
        "a margin loss that is not halved and averaged over the classes",
        "L3",
        (in_model("margin = model.margin_scale * xp.mean(", "margin = xp.mean("),),
        _official,
    ),
)

_GRADIENTS = (
    Fault(
        "detached-iterations",
        "routing iterations that are detached: a gradient through the last one alone",
        "L4",
        (
            in_layers("for k in reversed(range(len(history))):", "for k in [len(history) - 1]:"),
            in_layers("        if k:\n", "        if False:\n"),
        ),
        _two_iterations,
    ),
    Fault(
        "reconstruction-detached",
        "a reconstruction loss whose gradient stops at the decoder",
        "L4",
        (in_model("grad_v = grad_v + xp.sum(", "grad_v = grad_v + 0 * xp.sum("),),
        has_decoder,
    ),
)

_TRAINING = (
    Fault(
        "epsilon-hat",
        "Adam's epsilon added to the uncorrected root",
        "L5",
        (in_impl(_ROOT, "(root + ADAM_EPSILON / (1 - ADAM_BETA2**step) ** 0.5)"),),
    ),
    Fault("epsilon-1e-7", "Adam's epsilon at 1e-7", "L5", (in_impl(_ROOT, "(root + 1e-7)"),)),
    Fault(
        "no-bias-correction",
        "Adam without bias correction",
        "L5",
        (
            in_impl("sqrt(second / (1 - ADAM_BETA2**step))", "sqrt(second)"),
            in_impl("(first / (1 - ADAM_BETA1**step))", "first"),
        ),
    ),
    Fault("no-decay", "a learning rate that does not decay", "L5", (in_impl(_RATE, "self.optim.lr"),)),
    Fault(
        "staircase-decay",
        "a learning rate that decays in a staircase",
        "L5",
        (in_impl(_RATE, f"self.optim.lr_at(self.moments.step // {_DECAY}.steps * {_DECAY}.steps)"),),
    ),
    Fault(
        "decay-per-epoch",
        "a learning rate whose exponent counts calls of train instead of steps",
        "L5",
        (
            in_impl(_RATE, "self.optim.lr_at(self.epoch)"),
            in_impl("self.weights = self._own(weights)", "self.weights, self.epoch = self._own(weights), 0"),
            in_impl("count = len(plan.order)", "self.epoch += 1\n        count = len(plan.order)"),
        ),
    ),
    Fault(
        "decay-a-step-early",
        "a learning rate that is one step ahead",
        "L5",
        (in_impl(_RATE, "self.optim.lr_at(self.moments.step + 1)"),),
    ),
    Fault(
        "decay-without-floor",
        "a learning rate without its floor",
        "L5",
        (in_impl(_RATE, f"self.optim.lr * {_DECAY}.rate ** (self.moments.step / {_DECAY}.steps)"),),
    ),
    Fault(
        "weight-decay",
        "weight decay",
        "L5",
        (in_impl("    first = ADAM_BETA1 * first", "    grad = grad + 1e-4 * w\n    first = ADAM_BETA1 * first"),),
    ),
    Fault(
        "shift-reversed",
        "shifts in the opposite direction",
        "L5",
        (
            in_impl(_SHIFTED_ROWS, _SHIFTED_ROWS.replace("-", "+")),
            in_impl(_SHIFTED_COLUMNS, _SHIFTED_COLUMNS.replace("-", "+")),
        ),
    ),
    Fault(
        "shift-axes-swapped",
        "shifts of rows and columns swapped",
        "L5",
        (
            in_impl(_SHIFTED_ROWS, _SHIFTED_ROWS.replace(":1", "1:")),
            in_impl(_SHIFTED_COLUMNS, _SHIFTED_COLUMNS.replace("1:", ":1")),
        ),
    ),
    Fault(
        "shift-wraps-around",
        "shifts that bring in the other edge instead of zeros",
        "L5",
        (
            in_impl("rows.clip(0, height - 1)", "(rows % height)"),
            in_impl("columns.clip(0, width - 1)", "(columns % width)"),
            in_impl("return moved * inside[..., None].astype(images.dtype)", "return moved"),
        ),
    ),
    Fault(
        "last-batch-dropped",
        "an incomplete last batch that is dropped",
        "L6",
        (in_impl("range(0, len(plan.order), plan.batch)", "range(0, len(plan.order) - plan.batch + 1, plan.batch)"),),
    ),
    Fault(
        "last-batch-mean-over-full-size",
        "an incomplete last batch whose loss is divided by the full batch",
        "L6",
        (
            in_impl(
                _STEP,
                "grads = self.net.backward(self.model, self._operands(), acts, labels)\n"
                "            self._step({name: len(chosen) / plan.batch * grad for name, grad in grads.items()})",
            ),
            in_impl(_SUMS, _SUMS.replace("= ", "= len(chosen) / plan.batch * ")),
        ),
    ),
    Fault(
        "evaluation-mask-by-label",
        "a decoder that sees the label's capsule in evaluation",
        "L6",
        (in_impl('by_label = self.model.evaluation_mask == "label"', "by_label = True"),),
        _mask_by_longest,
    ),
    Fault(
        "evaluation-mask-by-longest",
        "a decoder that sees the longest capsule in evaluation",
        "L6",
        (in_impl('by_label = self.model.evaluation_mask == "label"', "by_label = False"),),
        _mask_by_label,
    ),
)

FAULTS = (*_SHAPES, *_CAPSULES, *_LOSSES, *_GRADIENTS, *_TRAINING)
