"""The faults in JAX."""

from __future__ import annotations

from harness.parity.faults.mutate import Edit, in_impl, in_layers, in_model, in_steps

ITERATIONS = "for iteration in range(iterations):"
GRID = "grid.reshape(-1, self.model.primary_capsules"
CONVOLUTION = "spectrum=spectrum)\n    return result("
PADDED = "jnp.pad(x, ((0, 0), {0}, {0}, (0, 0)))"
RATE = "_lr_at(optim, state.count, dtype)"
EPSILON = "(root + ADAM_EPSILON)"
STEP = "step.astype(dtype)"
SCALED = "scaled(conv1, self.model.primary_scale)"
PRIMARY = f"self.primary({SCALED}, spectrum)"


def _convolution(before: str) -> tuple[Edit, ...]:
    return (Edit("convolution.py", CONVOLUTION, f"spectrum=spectrum)\n    {before}\n    return result("),)


def _optim(old: str, new: str) -> Edit:
    return Edit("optim.py", old, new)


EDITS: dict[str, tuple[Edit, ...]] = {
    "same-padding": _convolution(f"p = w.shape[0] // 2\n    x = {PADDED.format('(p, p)')}"),
    "same-padding-cropped": _convolution(
        f"p = w.shape[0] // 2\n    x = {PADDED.format('(p, 0)')}[:, : x.shape[1], : x.shape[2]]"
    ),
    "softmax-over-inputs": (in_layers("jax.nn.softmax(logits, axis=1)", "jax.nn.softmax(logits, axis=3)"),),
    "shared-logits": (
        in_layers("jax.nn.softmax(logits,", "jax.nn.softmax(0 * logits + logits.mean(0, keepdims=True),"),
    ),
    "one-iteration-more": (in_layers(ITERATIONS, f"iterations += 1\n    {ITERATIONS}"),),
    "one-iteration-fewer": (in_layers(ITERATIONS, f"iterations = max(1, iterations - 1)\n    {ITERATIONS}"),),
    "early-return": (
        in_layers("history.append((coupling, s, v))\n", "history.append((coupling, s, v))\n        break\n"),
    ),
    "logits-replaced": (in_layers("logits = logits + v @", "logits = v @"),),
    "agreement-with-input": (in_layers("logits + v @", "logits + s @"),),
    "spatial-grouping": (in_model(GRID, "grid.transpose(0, 3, 1, 2).reshape(-1, self.model.primary_capsules"),),
    "channels-first-order": (
        in_model(
            GRID,
            "grid.reshape(*grid.shape[:3], self.model.primary_types, self.model.primary_dim).transpose(0, 3, 1, 2, 4)"
            ".reshape(-1, self.model.primary_capsules",
        ),
    ),
    "dimensions-before-types": (
        in_model(
            GRID,
            "grid.reshape(*grid.shape[:3], self.model.primary_dim, self.model.primary_types).transpose(0, 1, 2, 4, 3)"
            ".reshape(-1, self.model.primary_capsules",
        ),
    ),
    "squash-without-epsilon": (in_layers("jnp.sqrt(square + SQUASH_EPSILON)", "jnp.sqrt(square)"),),
    "squash-wrong-axis": (in_layers("(s * s).sum(-1,", "(s * s).sum(1,"),),
    "squash-to-unit-length": (in_layers("s * (square / (1 + square) /", "s * (1 /"),),
    "primary-not-squashed": (in_model("return squash(grid", "return (grid"),),
    "length-without-epsilon": (in_layers("(v * v).sum(-1) + SQUASH_EPSILON", "(v * v).sum(-1)"),),
    "primary-relu": (in_model(GRID, "jax.nn.relu(grid).reshape(-1, self.model.primary_capsules"),),
    "conv1-without-relu": (in_model("return jax.nn.relu(convolution(", "return (convolution("),),
    "windows-off-by-one": _convolution("x = jnp.roll(x, (1, 1), (1, 2))"),
    "kernel-flipped": _convolution("w = w[::-1, ::-1]"),
    "kernel-transposed": _convolution("w = w.transpose(1, 0, 2, 3)"),
    "pixels-0-to-255": (in_steps(".astype(self.dtype) / 255", ".astype(self.dtype)"),),
    "primary-scale-forgotten": (in_model(SCALED, "conv1"),),
    "primary-scale-over-bias": (
        in_model(
            PRIMARY,
            f"scaled({PRIMARY.replace(SCALED, 'conv1')}, self.model.primary_scale)",
        ),
    ),
    "digit-bias-last-iteration": (
        in_layers("if bias is not None:", "if bias is not None and iteration == iterations - 1:"),
    ),
    "lambda-dropped": (in_model("MARGIN_LAMBDA * (1 - present)", "(1 - present)"),),
    "margin-mean-over-classes": (in_model("* imagined).sum(1)", "* imagined).mean(1)"),),
    "margins-swapped": (
        in_model("jax.nn.relu(MARGIN_PLUS - length)", "jax.nn.relu(MARGIN_MINUS - length)"),
        in_model("jax.nn.relu(length - MARGIN_MINUS)", "jax.nn.relu(length - MARGIN_PLUS)"),
    ),
    "margin-not-squared": (
        in_model("(MARGIN_PLUS - length) ** 2", "(MARGIN_PLUS - length)"),
        in_model("(length - MARGIN_MINUS) ** 2", "(length - MARGIN_MINUS)"),
    ),
    "reconstruction-mean": (in_model("-1)) ** 2).sum(1)", "-1)) ** 2).mean(1)"),),
    "reconstruction-weight-dropped": (
        in_model("margin + RECONSTRUCTION_WEIGHT * reconstruction", "margin + reconstruction"),
    ),
    "mask-by-longest-in-training": (
        in_model(
            "net.decode(v, mask)",
            "net.decode(v, winners(lengths(v), net.model.overlaid))",
        ),
    ),
    "mask-missing": (in_model("(v[:, None] * one_hot", "(v[:, None] + 0 * one_hot"),),
    "decoder-input-transposed": (
        in_model("one_hot(mask, v)[..., None]).reshape", "one_hot(mask, v)[..., None]).mT.reshape"),
    ),
    "pixels-transposed": (
        in_model("digits.reshape(len(digits), -1)", "digits.swapaxes(2, 3).reshape(len(digits), -1)"),
        in_model(
            "found.reshape(-1, *model.several, *model.image)",
            "found.reshape(-1, model.image[1], model.image[0], model.image[2]).swapaxes(1, 2)"
            ".reshape(-1, *model.several, *model.image)",
        ),
    ),
    "sigmoid-missing": (in_model("return jax.nn.sigmoid(", "return ("),),
    "sum-over-images": (in_steps("classes, classes).mean(1)", "classes, classes).sum(1)"),),
    "margin-scale-forgotten": (
        in_model(
            "scaled(margin_loss(lengths(v), present(labels, v)), net.model.margin_scale)",
            "margin_loss(lengths(v), present(labels, v))",
        ),
    ),
    "detached-iterations": (in_layers("grad_logits + softmax_vjp(", "grad_logits + 0 * softmax_vjp("),),
    "reconstruction-detached": (
        in_model("net.decode(v, mask)", "net.decode(lax.stop_gradient(v), mask)"),
        in_model("from jax import Array", "from jax import Array, lax"),
    ),
    "epsilon-hat": (_optim(EPSILON, "(root + ADAM_EPSILON / jnp.sqrt(1 - ADAM_BETA2**step))"),),
    "epsilon-1e-7": (_optim(EPSILON, "(root + 1e-7)"),),
    "no-bias-correction": (_optim("step, lr = (state.count + 1).astype(dtype)", "step, lr = jnp.asarray(1e9, dtype)"),),
    "no-decay": (_optim(RATE, "optim.lr"),),
    "staircase-decay": (_optim(STEP, "(step // decay.steps * decay.steps).astype(dtype)"),),
    "decay-per-epoch": (
        _optim(RATE, '_lr_at(optim, params["epoch"], dtype)'),
        in_steps(
            "self.adam.update(grads, moments, params)",
            'self.adam.update(grads, moments, {**params, "epoch": jnp.int32(self.epoch)})',
        ),
        in_impl("params = self._params(weights)", "params, self.epoch = self._params(weights), -1"),
        in_impl(
            "order, shifts, weight = plan.steps()", "self.epoch += 1\n        order, shifts, weight = plan.steps()"
        ),
    ),
    "decay-a-step-early": (_optim(STEP, "(step + 1).astype(dtype)"),),
    "decay-without-floor": (_optim("decay.floor)", "0.0)"),),
    "weight-decay": (
        in_steps("self.adam.update(grads,", "self.adam.update(jax.tree.map(lambda g, w: g + 1e-4 * w, grads, params),"),
    ),
    "shift-reversed": (
        in_steps("jnp.arange(height) - shifts[:, :1]", "jnp.arange(height) + shifts[:, :1]"),
        in_steps("jnp.arange(width) - shifts[:, 1:]", "jnp.arange(width) + shifts[:, 1:]"),
    ),
    "shift-axes-swapped": (
        in_steps(
            "height, width = images.shape[1:3]", "height, width = images.shape[1:3]\n    shifts = shifts[:, ::-1]"
        ),
    ),
    "shift-wraps-around": (
        in_steps("rows.clip(0, height - 1)", "(rows % height)"),
        in_steps("columns.clip(0, width - 1)", "(columns % width)"),
        in_steps("return moved * inside[..., None]", "return moved"),
    ),
    "last-batch-dropped": (
        in_impl("= plan.steps()", "= (part[: len(plan.order) // plan.batch] for part in plan.steps())"),
        in_impl("np.concatenate(values, dtype", "np.concatenate(values or [np.zeros((1, 4))], dtype"),
    ),
    "last-batch-mean-over-full-size": (in_steps("@ weight / weight.sum()", "@ weight / len(weight)"),),
    "evaluation-mask-by-label": (
        in_steps('mask = classes if self.model.evaluation_mask == "label" else predicted', "mask = classes"),
    ),
    "evaluation-mask-by-longest": (
        in_steps('mask = classes if self.model.evaluation_mask == "label" else predicted', "mask = predicted"),
    ),
}
