"""The faults in PyTorch."""

from __future__ import annotations

from harness.parity.mutate import Edit


def _layers(old: str, new: str) -> Edit:
    return Edit("layers.py", old, new)


def _model(old: str, new: str) -> Edit:
    return Edit("model.py", old, new)


def _impl(old: str, new: str) -> Edit:
    return Edit("impl.py", old, new)


ITERATIONS = "for iteration in range(iterations):"
CONV1 = "self.conv1(images.permute(0, 3, 1, 2))"
PRIMARY = "self.primary(scaled(conv1, self.model.primary_scale))"
GRID = "grid.permute(0, 2, 3, 1)"
RATE = 'group["lr"] = self.optim.lr_at(self.step)'
PADDED = "F.pad({}, (self.model.kernel // 2, -(self.model.kernel // 2)) * 2)"
STEPS = "self.optim.lr_decay.steps"

EDITS: dict[str, tuple[Edit, ...]] = {
    "same-padding": (
        _model("model.conv_channels, model.kernel)", 'model.conv_channels, model.kernel, padding="same")'),
        _model("model.kernel, stride=2)", "model.kernel, stride=2, padding=model.kernel // 2)"),
    ),
    "same-padding-cropped": (
        _model(CONV1, f"self.conv1({PADDED.format('images.permute(0, 3, 1, 2)')})"),
        _model("self.primary(scaled(conv1,", f"self.primary(scaled({PADDED.format('conv1')},"),
    ),
    "softmax-over-inputs": (_layers("torch.softmax(logits, dim=1)", "torch.softmax(logits, dim=3)"),),
    "shared-logits": (
        _layers("torch.softmax(logits,", "torch.softmax(logits.mean(0, keepdim=True).expand_as(logits),"),
    ),
    "one-iteration-more": (_layers(ITERATIONS, f"iterations += 1\n    {ITERATIONS}"),),
    "one-iteration-fewer": (_layers(ITERATIONS, f"iterations = max(1, iterations - 1)\n    {ITERATIONS}"),),
    "early-return": (_layers("v = squash(s)\n", "v = squash(s)\n        break\n"),),
    "logits-replaced": (_layers("logits = logits + v @", "logits = v @"),),
    "agreement-with-input": (_layers("logits + v @", "logits + s @"),),
    "spatial-grouping": (_model(GRID, "grid"),),
    "channels-first-order": (
        _model(GRID, "grid.unflatten(1, (self.model.primary_types, self.model.primary_dim)).permute(0, 1, 3, 4, 2)"),
    ),
    "dimensions-before-types": (
        _model(GRID, "grid.unflatten(1, (self.model.primary_dim, self.model.primary_types)).permute(0, 3, 4, 2, 1)"),
    ),
    "squash-without-epsilon": (_layers("torch.sqrt(square + SQUASH_EPSILON)", "torch.sqrt(square)"),),
    "squash-wrong-axis": (_layers("(s * s).sum(-1,", "(s * s).sum(1,"),),
    "squash-to-unit-length": (_layers("s * (square / (1 + square) /", "s * (1 /"),),
    "primary-not-squashed": (_model("votes(squash(primary),", "votes(primary,"),),
    "length-without-epsilon": (_layers("(v * v).sum(-1) + SQUASH_EPSILON", "(v * v).sum(-1)"),),
    "primary-relu": (_model(PRIMARY, f"F.relu({PRIMARY})"),),
    "conv1-without-relu": (_model(f"F.relu({CONV1})", CONV1),),
    "windows-off-by-one": (
        _model(CONV1, "self.conv1(images.permute(0, 3, 1, 2).roll((1, 1), (2, 3)))"),
        _model("scaled(conv1,", "scaled(conv1.roll((1, 1), (2, 3)),"),
    ),
    "kernel-flipped": (
        _model(CONV1, "F.conv2d(images.permute(0, 3, 1, 2), self.conv1.weight.flip(2, 3), self.conv1.bias)"),
        _model("self.primary(scaled(", "self._flipped(scaled("),
        _model(
            "    def decode(",
            "    def _flipped(self, x):\n"
            "        return F.conv2d(x, self.primary.weight.flip(2, 3), self.primary.bias, stride=2)\n\n"
            "    def decode(",
        ),
    ),
    "kernel-transposed": (
        _model('("conv1.weight", (2, 3, 1, 0))', '("conv1.weight", (3, 2, 1, 0))'),
        _model('("primary.weight", (2, 3, 1, 0))', '("primary.weight", (3, 2, 1, 0))'),
    ),
    "pixels-0-to-255": (_impl("images.to(self.dtype) / 255", "images.to(self.dtype)"),),
    "primary-scale-forgotten": (_model(PRIMARY, "self.primary(conv1)"),),
    "primary-scale-over-bias": (_model(PRIMARY, "scaled(self.primary(conv1), self.model.primary_scale)"),),
    "digit-bias-last-iteration": (
        _layers("if bias is not None:", "if bias is not None and iteration == iterations - 1:"),
    ),
    "lambda-dropped": (_model("MARGIN_LAMBDA * (1 - present)", "(1 - present)"),),
    "margin-mean-over-classes": (_model("* imagined).sum(1)", "* imagined).mean(1)"),),
    "margins-swapped": (
        _model("F.relu(MARGIN_PLUS - length)", "F.relu(MARGIN_MINUS - length)"),
        _model("F.relu(length - MARGIN_MINUS)", "F.relu(length - MARGIN_PLUS)"),
    ),
    "margin-not-squared": (
        _model("(MARGIN_PLUS - length) ** 2", "(MARGIN_PLUS - length)"),
        _model("(length - MARGIN_MINUS) ** 2", "(length - MARGIN_MINUS)"),
    ),
    "reconstruction-mean": (_model("images.flatten(1)) ** 2).sum(1)", "images.flatten(1)) ** 2).mean(1)"),),
    "reconstruction-weight-dropped": (
        _model("margin + RECONSTRUCTION_WEIGHT * reconstruction", "margin + reconstruction"),
    ),
    "mask-by-longest-in-training": (_model("net.decode(v, mask)", "net.decode(v, lengths(v).argmax(1))"),),
    "mask-missing": (_model("(v * one_hot(mask, v)[..., None]).flatten(1)", "v.flatten(1)"),),
    "decoder-input-transposed": (
        _model("one_hot(mask, v)[..., None]).flatten", "one_hot(mask, v)[..., None]).mT.flatten"),
    ),
    "pixels-transposed": (
        _model("images.flatten(1)) ** 2", "images.transpose(1, 2).flatten(1)) ** 2"),
        _impl(
            ".reshape(images.shape).cpu()",
            ".reshape(len(v), images.shape[2], images.shape[1], -1).transpose(1, 2).cpu()",
        ),
    ),
    "sigmoid-missing": (_model("return torch.sigmoid(", "return ("),),
    "sum-over-images": (_impl("classes, classes).mean(1)", "classes, classes).sum(1)"),),
    "margin-scale-forgotten": (
        _model(
            "scaled(margin_loss(lengths(v), one_hot(labels, v)), net.model.margin_scale)",
            "margin_loss(lengths(v), one_hot(labels, v))",
        ),
    ),
    "detached-iterations": (_layers("logits = logits + v @ u_hat.mT", "logits = (logits + v @ u_hat.mT).detach()"),),
    "reconstruction-detached": (_model("net.decode(v, mask)", "net.decode(v.detach(), mask)"),),
    "epsilon-hat": (
        _impl(
            RATE, f'{RATE}\n                group["eps"] = ADAM_EPSILON / (1 - ADAM_BETA2 ** (self.step + 1)) ** 0.5'
        ),
    ),
    "epsilon-1e-7": (_impl("eps=ADAM_EPSILON", "eps=1e-7"),),
    "no-bias-correction": (
        _impl(
            "self.adam.step()",
            'for state in self.adam.state.values():\n                state["step"].fill_(1e9)\n            self.adam.step()',
        ),
    ),
    "no-decay": (_impl(RATE, 'group["lr"] = self.optim.lr'),),
    "staircase-decay": (_impl(RATE, f'group["lr"] = self.optim.lr_at(self.step // {STEPS} * {STEPS})'),),
    "decay-per-epoch": (
        _impl(RATE, 'group["lr"] = self.optim.lr_at(self.epoch)'),
        _impl(
            "self.step = moments.step if moments else 0", "self.step, self.epoch = moments.step if moments else 0, -1"
        ),
        _impl("order, shifts, weight = (", "self.epoch += 1\n        order, shifts, weight = ("),
    ),
    "decay-a-step-early": (_impl(RATE, 'group["lr"] = self.optim.lr_at(self.step + 1)'),),
    "decay-without-floor": (
        _impl(RATE, f'group["lr"] = self.optim.lr * self.optim.lr_decay.rate ** (self.step / {STEPS})'),
    ),
    "weight-decay": (_impl("eps=ADAM_EPSILON", "eps=ADAM_EPSILON, weight_decay=1e-4"),),
    "shift-reversed": (
        _impl("device=images.device) - shifts[:, :1]", "device=images.device) + shifts[:, :1]"),
        _impl("device=images.device) - shifts[:, 1:]", "device=images.device) + shifts[:, 1:]"),
    ),
    "shift-axes-swapped": (
        _impl("height, width = images.shape[1:3]", "height, width = images.shape[1:3]\n    shifts = shifts.flip(1)"),
    ),
    "shift-wraps-around": (
        _impl("rows.clamp(0, height - 1)", "(rows % height)"),
        _impl("columns.clamp(0, width - 1)", "(columns % width)"),
        _impl("return moved * inside[..., None]", "return moved"),
    ),
    "last-batch-dropped": (
        _impl(
            "values = self._train_losses(chosen, moved, real)",
            "if not real.all():\n                continue\n            values = self._train_losses(chosen, moved, real)",
        ),
    ),
    "last-batch-mean-over-full-size": (_impl("@ weight / weight.sum()", "@ weight / len(weight)"),),
    "evaluation-mask-by-label": (
        _impl('mask = labels if self.model.evaluation_mask == "label" else predicted', "mask = labels"),
    ),
    "evaluation-mask-by-longest": (
        _impl('mask = labels if self.model.evaluation_mask == "label" else predicted', "mask = predicted"),
    ),
}
