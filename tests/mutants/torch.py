"""The faults in PyTorch."""

from __future__ import annotations

from harness.parity.faults.mutate import Edit, in_impl, in_layers, in_model, in_steps

ITERATIONS = "for iteration in range(iterations):"
WINDOWS = "images.unfold(1, self"
CONV1 = "F.relu(linear(flat, self.conv1.weight.flatten(1), self.conv1.bias, self.precision), inplace=True)"
PRIMARY = "self.primary(scaled(conv1, self.model.primary_scale), spectrum)"
DIRECT = "F.conv2d({}.permute(0, 3, 1, 2), {}, self.primary.bias, stride=2, padding={}).permute(0, 2, 3, 1)"
SCALED = "scaled(conv1, self.model.primary_scale)"
GRID = "squash(grid.reshape("
HALF = "self.model.kernel // 2"
RATE = 'group["lr"] = self.optim.lr_at(self.step)'
PADDED = f"F.pad({{}}, (0, 0, {HALF}, -({HALF}), {HALF}, -({HALF})))"
STEPS = "self.optim.lr_decay.steps"

EDITS: dict[str, tuple[Edit, ...]] = {
    "same-padding": (
        in_model(WINDOWS, f"F.pad(images, (0, 0, {HALF}, {HALF}, {HALF}, {HALF})).unfold(1, self"),
        in_model(PRIMARY, DIRECT.format(SCALED, "self.primary.weight", HALF)),
    ),
    "same-padding-cropped": (
        in_model(WINDOWS, f"{PADDED.format('images')}.unfold(1, self"),
        in_model(PRIMARY, f"self.primary({PADDED.format(SCALED)}, spectrum)"),
    ),
    "softmax-over-inputs": (in_layers("torch.softmax(logits, dim=1)", "torch.softmax(logits, dim=2)"),),
    "shared-logits": (
        in_layers("torch.softmax(logits,", "torch.softmax(logits.mean(0, keepdim=True).expand_as(logits),"),
    ),
    "one-iteration-more": (in_layers(ITERATIONS, f"iterations += 1\n    {ITERATIONS}"),),
    "one-iteration-fewer": (in_layers(ITERATIONS, f"iterations = max(1, iterations - 1)\n    {ITERATIONS}"),),
    "early-return": (
        in_layers("history.append((coupling, s, v))\n", "history.append((coupling, s, v))\n        break\n"),
    ),
    "logits-replaced": (in_layers("logits = logits + _agreement", "logits = _agreement"),),
    "agreement-with-input": (in_layers("_agreement(v, u_hat)", "_agreement(s, u_hat)"),),
    "spatial-grouping": (in_model(GRID, "squash(grid.permute(0, 3, 1, 2).reshape("),),
    "channels-first-order": (
        in_model(
            GRID,
            "squash(grid.unflatten(3, (self.model.primary_types, self.model.primary_dim))"
            ".permute(0, 3, 1, 2, 4).reshape(",
        ),
    ),
    "dimensions-before-types": (
        in_model(GRID, "squash(grid.unflatten(3, (self.model.primary_dim, self.model.primary_types)).mT.reshape("),
    ),
    "squash-without-epsilon": (in_layers("/ torch.sqrt(square + SQUASH_EPSILON))", "/ torch.sqrt(square))"),),
    "squash-wrong-axis": (
        in_layers(
            "square = (s * s).sum(-1, keepdim=True)\n    return", "square = (s * s).sum(1, keepdim=True)\n    return"
        ),
    ),
    "squash-to-unit-length": (in_layers("s * (square / (1 + square) /", "s * (1 /"),),
    "primary-not-squashed": (in_model(GRID, "(grid.reshape("),),
    "length-without-epsilon": (in_layers("(v * v).sum(-1) + SQUASH_EPSILON", "(v * v).sum(-1)"),),
    "primary-relu": (in_model(PRIMARY, f"F.relu({PRIMARY})"),),
    "conv1-without-relu": (in_model(CONV1, CONV1.removeprefix("F.relu(").removesuffix(", inplace=True)")),),
    "windows-off-by-one": (
        in_model(WINDOWS, "images.roll((1, 1), (1, 2)).unfold(1, self"),
        in_model(PRIMARY, PRIMARY.replace("scaled(conv1,", "scaled(conv1.roll((1, 1), (1, 2)),")),
    ),
    "kernel-flipped": (
        in_model("self.conv1.weight.flatten(1)", "self.conv1.weight.flip(2, 3).flatten(1)"),
        in_model(PRIMARY, DIRECT.format(SCALED, "self.primary.weight.flip(2, 3)", 0)),
    ),
    "kernel-transposed": (
        in_model('("conv1.weight", (2, 3, 1, 0))', '("conv1.weight", (3, 2, 1, 0))'),
        in_model('("primary.weight", (2, 3, 1, 0))', '("primary.weight", (3, 2, 1, 0))'),
    ),
    "pixels-0-to-255": (in_steps(".to(self.dtype) / 255", ".to(self.dtype)"),),
    "primary-scale-forgotten": (in_model(SCALED, "conv1"),),
    "primary-scale-over-bias": (in_model(PRIMARY, "scaled(self.primary(conv1, spectrum), self.model.primary_scale)"),),
    "digit-bias-last-iteration": (
        in_layers("if bias is not None:", "if bias is not None and iteration == iterations - 1:"),
    ),
    "lambda-dropped": (in_model("MARGIN_LAMBDA * (1 - present)", "(1 - present)"),),
    "margin-mean-over-classes": (in_model("* imagined).sum(1)", "* imagined).mean(1)"),),
    "margins-swapped": (
        in_model("F.relu(MARGIN_PLUS - length)", "F.relu(MARGIN_MINUS - length)"),
        in_model("F.relu(length - MARGIN_MINUS)", "F.relu(length - MARGIN_PLUS)"),
    ),
    "margin-not-squared": (
        in_model("(MARGIN_PLUS - length) ** 2", "(MARGIN_PLUS - length)"),
        in_model("(length - MARGIN_MINUS) ** 2", "(length - MARGIN_MINUS)"),
    ),
    "reconstruction-mean": (in_model("digits.flatten(1)) ** 2).sum(1)", "digits.flatten(1)) ** 2).mean(1)"),),
    "reconstruction-weight-dropped": (
        in_model("margin + RECONSTRUCTION_WEIGHT * reconstruction", "margin + reconstruction"),
    ),
    "mask-by-longest-in-training": (
        in_model("net.decode(v, mask)", "net.decode(v, winners(lengths(v), net.model.overlaid))"),
    ),
    "mask-missing": (
        in_model("v[:, None] * one_hot(mask, v)[..., None]", "v[:, None] + 0 * one_hot(mask, v)[..., None]"),
    ),
    "decoder-input-transposed": (in_model("masked.flatten(2)", "masked.mT.flatten(2)"),),
    "pixels-transposed": (
        in_model("digits.flatten(1)) ** 2", "digits.transpose(2, 3).flatten(1)) ** 2"),
        in_model(
            ".reshape(-1, *model.several, *model.image)",
            ".reshape(-1, model.image[1], model.image[0], model.image[2]).transpose(1, 2)"
            ".reshape(-1, *model.several, *model.image)",
        ),
    ),
    "sigmoid-missing": (in_model("return torch.sigmoid(", "return ("),),
    "sum-over-images": (in_steps("classes, classes).mean(1)", "classes, classes).sum(1)"),),
    "margin-scale-forgotten": (
        in_model(
            "scaled(margin_loss(lengths(v), present(labels, v)), net.model.margin_scale)",
            "margin_loss(lengths(v), present(labels, v))",
        ),
    ),
    "detached-iterations": (in_layers("grad_logits + softmax_vjp(", "grad_logits + 0 * softmax_vjp("),),
    "reconstruction-detached": (in_model("net.decode(v, mask)", "net.decode(v.detach(), mask)"),),
    "epsilon-hat": (
        in_steps(RATE, f'{RATE}\n            group["eps"] = 1e-8 / (1 - 0.999 ** (self.step + 1)) ** 0.5'),
    ),
    "epsilon-1e-7": (Edit("optim.py", "eps=ADAM_EPSILON", "eps=1e-7"),),
    "no-bias-correction": (
        in_steps(
            "self.adam.step()",
            'for state in self.adam.state.values():\n            state["step"].fill_(1e9)\n        self.adam.step()',
        ),
    ),
    "no-decay": (in_steps(RATE, 'group["lr"] = self.optim.lr'),),
    "staircase-decay": (in_steps(RATE, f'group["lr"] = self.optim.lr_at(self.step // {STEPS} * {STEPS})'),),
    "decay-per-epoch": (
        in_steps(RATE, 'group["lr"] = self.optim.lr_at(self.epoch)'),
        in_impl(
            "self.step = moments.step if moments else 0", "self.step, self.epoch = moments.step if moments else 0, -1"
        ),
        in_impl("order, shifts, weight = (", "self.epoch += 1\n        order, shifts, weight = ("),
    ),
    "decay-a-step-early": (in_steps(RATE, 'group["lr"] = self.optim.lr_at(self.step + 1)'),),
    "decay-without-floor": (
        in_steps(RATE, f'group["lr"] = self.optim.lr * self.optim.lr_decay.rate ** (self.step / {STEPS})'),
    ),
    "weight-decay": (Edit("optim.py", "optim.weight_decay_of(name)", "1e-4"),),
    "shift-reversed": (
        in_steps("device=images.device) - shifts[:, :1]", "device=images.device) + shifts[:, :1]"),
        in_steps("device=images.device) - shifts[:, 1:]", "device=images.device) + shifts[:, 1:]"),
    ),
    "shift-axes-swapped": (
        in_steps("height, width = images.shape[1:3]", "height, width = images.shape[1:3]\n    shifts = shifts.flip(1)"),
    ),
    "shift-wraps-around": (
        in_steps("rows.clamp(0, height - 1)", "(rows % height)"),
        in_steps("columns.clamp(0, width - 1)", "(columns % width)"),
        in_steps("return moved * inside[..., None]", "return moved"),
    ),
    "last-batch-dropped": (
        in_impl(
            "values = self.train_step(chosen, moved, real, *kept)",
            "if not real.all():\n                continue\n            values = self.train_step(chosen, moved, real, *kept)",
        ),
    ),
    "last-batch-mean-over-full-size": (in_steps("@ weight / weight.sum()", "@ weight / len(weight)"),),
    "evaluation-mask-by-label": (
        in_steps('mask = classes if self.model.evaluation_mask == "label" else predicted', "mask = classes"),
    ),
    "evaluation-mask-by-longest": (
        in_steps('mask = classes if self.model.evaluation_mask == "label" else predicted', "mask = predicted"),
    ),
}
