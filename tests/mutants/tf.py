"""The faults in TensorFlow."""

from __future__ import annotations

from harness.parity.faults.mutate import Edit, in_impl, in_layers, in_model, in_steps


def _optim(old: str, new: str) -> Edit:
    return Edit("optim.py", old, new)


ITERATIONS = "for iteration in range(iterations):"
CONV1 = 'tf.nn.conv2d(images, kernel, 1, "VALID")'
SCALED = "scaled(conv1, self.model.primary_scale)"
PRIMARY = f"self.primary({SCALED}, spectrum)"
GRID = "squash(tf.reshape(grid, (images.shape[0],"
SPLIT = "tf.transpose(tf.reshape(grid, (images.shape[0], *self.model.primary_grid"
BEFORE = "(self.model.kernel // 2, 0)"
PADDED = f"tf.pad({{0}}, ((0, 0), {BEFORE}, {BEFORE}, (0, 0)))[:, : {{0}}.shape[1], : {{0}}.shape[2]]"
DIRECT = f'tf.nn.bias_add(tf.nn.conv2d({SCALED}, {{}}, 2, "{{}}"), self.primary.bias)'
KERNEL = "tf.convert_to_tensor(self.primary.kernel)"
COMPLETED = "completed = tf.cast(step, self.dtype)"
EPSILON = "(root + ADAM_EPSILON)"


def _kernels(changed: str) -> tuple[Edit, ...]:
    """Both convolutions with their kernels changed."""
    return (
        in_model(CONV1, CONV1.replace("kernel", changed.format("kernel"))),
        in_model(PRIMARY, DIRECT.format(changed.format(KERNEL), "VALID")),
    )


EDITS: dict[str, tuple[Edit, ...]] = {
    "same-padding": (
        in_model(CONV1, CONV1.replace("VALID", "SAME")),
        in_model(PRIMARY, DIRECT.format(KERNEL, "SAME")),
    ),
    "same-padding-cropped": (
        in_model(CONV1, CONV1.replace("images", PADDED.format("images"))),
        in_model("scaled(conv1,", f"scaled({PADDED.format('conv1')},"),
    ),
    "softmax-over-inputs": (in_layers("coupling = softmax(logits, leak)", "coupling = tf.nn.softmax(logits)"),),
    "shared-logits": (
        in_layers("softmax(logits, leak)", "softmax(0 * logits + tf.reduce_mean(logits, 0, keepdims=True), leak)"),
    ),
    "one-iteration-more": (in_layers(ITERATIONS, f"iterations += 1\n    {ITERATIONS}"),),
    "one-iteration-fewer": (in_layers(ITERATIONS, f"iterations = max(1, iterations - 1)\n    {ITERATIONS}"),),
    "early-return": (
        in_layers("history.append((coupling, s, v))\n", "history.append((coupling, s, v))\n        break\n"),
    ),
    "logits-replaced": (in_layers("logits = logits + tf", "logits = tf"),),
    "agreement-with-input": (in_layers("tf.matmul(v, u_hat,", "tf.matmul(s, u_hat,"),),
    "spatial-grouping": (in_model(GRID, GRID.replace("grid", "tf.transpose(grid, (0, 3, 1, 2))")),),
    "channels-first-order": (
        in_model(
            GRID,
            GRID.replace("grid", f"{SPLIT}, self.model.primary_types, self.model.primary_dim)), (0, 3, 1, 2, 4))"),
        ),
    ),
    "dimensions-before-types": (
        in_model(
            GRID,
            GRID.replace("grid", f"{SPLIT}, self.model.primary_dim, self.model.primary_types)), (0, 1, 2, 4, 3))"),
        ),
    ),
    "squash-without-epsilon": (in_layers("/ tf.sqrt(square + SQUASH_EPSILON))", "/ tf.sqrt(square))"),),
    "squash-wrong-axis": (
        in_layers(
            "square = tf.reduce_sum(s * s, -1, keepdims=True)\n    return",
            "square = tf.reduce_sum(s * s, 1, keepdims=True)\n    return",
        ),
    ),
    "squash-to-unit-length": (in_layers("s * (square / (1 + square) /", "s * (1 /"),),
    "primary-not-squashed": (in_model(GRID, GRID.removeprefix("squash")),),
    "length-without-epsilon": (in_layers("tf.reduce_sum(v * v, -1) + SQUASH_EPSILON", "tf.reduce_sum(v * v, -1)"),),
    "primary-relu": (in_model(GRID, GRID.replace("grid", "tf.nn.relu(grid)")),),
    "conv1-without-relu": (
        in_model("tf.nn.relu(tf.nn.bias_add(product, self.conv1.bias))", "tf.nn.bias_add(product, self.conv1.bias)"),
    ),
    "windows-off-by-one": (
        in_model(CONV1, CONV1.replace("images", "tf.roll(images, (1, 1), (1, 2))")),
        in_model("scaled(conv1,", "scaled(tf.roll(conv1, (1, 1), (1, 2)),"),
    ),
    "kernel-flipped": _kernels("{}[::-1, ::-1]"),
    "kernel-transposed": _kernels("tf.transpose({}, (1, 0, 2, 3))"),
    "pixels-0-to-255": (in_steps("tf.cast(digits, self.dtype) / 255", "tf.cast(digits, self.dtype)"),),
    "primary-scale-forgotten": (in_model(SCALED, "conv1"),),
    "primary-scale-over-bias": (in_model(PRIMARY, "scaled(self.primary(conv1, spectrum), self.model.primary_scale)"),),
    "digit-bias-last-iteration": (
        in_layers("if bias is not None:", "if bias is not None and iteration == iterations - 1:"),
    ),
    "lambda-dropped": (in_model("MARGIN_LAMBDA * (1 - present)", "(1 - present)"),),
    "margin-mean-over-classes": (in_model("tf.reduce_sum(present * missed", "tf.reduce_mean(present * missed"),),
    "margins-swapped": (
        in_model("tf.nn.relu(MARGIN_PLUS - length)", "tf.nn.relu(MARGIN_MINUS - length)"),
        in_model("tf.nn.relu(length - MARGIN_MINUS)", "tf.nn.relu(length - MARGIN_PLUS)"),
    ),
    "margin-not-squared": (
        in_model("(MARGIN_PLUS - length) ** 2", "(MARGIN_PLUS - length)"),
        in_model("(length - MARGIN_MINUS) ** 2", "(length - MARGIN_MINUS)"),
    ),
    "reconstruction-mean": (in_model("tf.reduce_sum(tf.reshape(squares", "tf.reduce_mean(tf.reshape(squares"),),
    "reconstruction-weight-dropped": (
        in_model("margin + RECONSTRUCTION_WEIGHT * reconstruction", "margin + reconstruction"),
    ),
    "mask-by-longest-in-training": (
        in_model("net.decode(v, mask)", "net.decode(v, winners(lengths(v), net.model.overlaid))"),
    ),
    "mask-missing": (
        in_model("v[:, None] * one_hot(mask, v)[..., None]", "v[:, None] + 0 * one_hot(mask, v)[..., None]"),
    ),
    "decoder-input-transposed": (in_model("tf.reshape(masked,", "tf.reshape(tf.transpose(masked, (0, 1, 3, 2)),"),),
    "pixels-transposed": (
        in_model(
            "tf.reshape(digits, reconstruction.shape)",
            "tf.reshape(tf.transpose(digits, (0, 1, 3, 2, 4)), reconstruction.shape)",
        ),
        in_model(
            "tf.reshape(found, (-1, *model.several, *model.image))",
            "tf.reshape(tf.transpose(tf.reshape(found, (-1, model.image[1], model.image[0], model.image[2])), (0, 2, 1, 3)),"
            " (-1, *model.several, *model.image))",
        ),
    ),
    "sigmoid-missing": (in_model("return tf.sigmoid(", "return ("),),
    "sum-over-images": (in_steps("tf.reduce_mean(self.kind.losses(", "tf.reduce_sum(self.kind.losses("),),
    "margin-scale-forgotten": (
        in_model(
            "scaled(margin_loss(lengths(v), present(labels, v)), net.model.margin_scale)",
            "margin_loss(lengths(v), present(labels, v))",
        ),
    ),
    "detached-iterations": (in_layers("grad_logits + softmax_vjp(", "grad_logits + 0 * softmax_vjp("),),
    "reconstruction-detached": (in_model("net.decode(v, mask)", "net.decode(tf.stop_gradient(v), mask)"),),
    "epsilon-hat": (_optim(EPSILON, "(root + ADAM_EPSILON / tf.sqrt(1 - ADAM_BETA2**step))"),),
    "epsilon-1e-7": (_optim(EPSILON, "(root + 1e-7)"),),
    "no-bias-correction": (_optim("step = tf.cast(self.iterations + 1,", "step = tf.cast(1e9,"),),
    "no-decay": (_optim(COMPLETED, "completed = tf.cast(0, self.dtype)"),),
    "staircase-decay": (_optim(COMPLETED, "completed = tf.cast(step // decay.steps * decay.steps, self.dtype)"),),
    "decay-per-epoch": (
        _optim(COMPLETED, "completed = tf.cast(self.epoch, self.dtype)"),
        _optim(
            "self.optim, self.dtype = optim, dtype",
            "self.optim, self.dtype, self.epoch = optim, dtype, tf.Variable(-1)",
        ),
        in_impl(
            "self.adam.iterations.assign(",
            "self.adam._learning_rate.epoch.assign(-1)\n        self.adam.iterations.assign(",
        ),
        in_impl(
            "order, shifts, weight = plan.steps()",
            "self.adam._learning_rate.epoch.assign_add(1)\n        order, shifts, weight = plan.steps()",
        ),
    ),
    "decay-a-step-early": (_optim(COMPLETED, "completed = tf.cast(step + 1, self.dtype)"),),
    "decay-without-floor": (_optim("decay.floor)", "0.0)"),),
    "weight-decay": (_optim("first.assign(", "gradient = gradient + 1e-4 * variable\n        first.assign("),),
    "shift-reversed": (in_steps("moved = tf.cast(shifts, tf.int32)", "moved = -tf.cast(shifts, tf.int32)"),),
    "shift-axes-swapped": (
        in_steps("moved = tf.cast(shifts, tf.int32)", "moved = tf.reverse(tf.cast(shifts, tf.int32), (1,))"),
    ),
    "shift-wraps-around": (
        in_steps("tf.clip_by_value(rows, 0, height - 1)", "rows % height"),
        in_steps("tf.clip_by_value(columns, 0, width - 1)", "columns % width"),
        in_steps(" * tf.cast(inside, images.dtype)[..., None]", ""),
    ),
    "last-batch-dropped": (
        in_impl(
            "strict=True)]\n            totals",
            "strict=True) if tf.reduce_all(step[2] > 0)] or [tf.zeros(4)]\n            totals",
        ),
    ),
    "last-batch-mean-over-full-size": (in_steps("/ tf.reduce_sum(weight)", "/ weight.shape[0]"),),
    "evaluation-mask-by-label": (
        in_steps('mask = classes if self.model.evaluation_mask == "label" else predicted', "mask = classes"),
    ),
    "evaluation-mask-by-longest": (
        in_steps('mask = classes if self.model.evaluation_mask == "label" else predicted', "mask = predicted"),
    ),
}
