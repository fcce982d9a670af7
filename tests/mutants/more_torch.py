"""The faults of `harness.parity.faults.catalogue` in PyTorch."""

from __future__ import annotations

from harness.parity.faults.evaluation import PREDICTED
from harness.parity.faults.mutate import Edit, in_impl, in_layers, in_model, in_steps
from harness.parity.faults.plan import PLANS
from tests.mutants.overlay import in_overlay

STEPS = "order, shifts, weight = (torch.tensor(part, device=self.device) for part in plan.steps())"
INSIDE = "((rows >= 0) & (rows < height))"
FOUND = "found.reshape(-1, *self.model.several)"
RETURNED = f"return EvalTotals(loss, {FOUND})"
WINNERS = "return scores.sort(dim=1, descending=True, stable=True).indices[:, :count]"
GROUPS = "for group in self.adam.param_groups:"
RATE = "self.optim.lr_at(self.step)"
SCALED = 'self.optim.lr_at(self.step) * group["scale"]'
DECAY = "self.optim.lr_decay"
MOVE = "self.adam.step()"
DECAYED = "optim.weight_decay_of(name)"
EVALUATED = "top, *_ = self.net(overlay(digits), *once)"
EVALUATION = "total = torch.zeros(len(self.model.loss_terms), dtype=torch.float64, device=self.device)"
BATCHES = "zip(pixels, classes, weight.to(self.dtype), strict=True)"
COPY = "tensor.copy_(torch.tensor(arrays[name]))"
TERMS = "margin + RECONSTRUCTION_WEIGHT * reconstruction, margin, reconstruction]"
MARGIN = "return (present * missed + MARGIN_LAMBDA * (1 - present) * imagined).sum(1)"
SQUASHED = "return squash(grid.reshape(-1, self.model.primary_capsules, self.model.primary_dim))"
LENGTHS = "torch.sqrt((v * v).sum(-1) + SQUASH_EPSILON)"
EPSILON = "from harness.spec import SQUASH_EPSILON"
PIXELS = "return images.view(-1, self.model.overlaid, *self.model.image).to(self.dtype) / 255"
LAST = "torch.sigmoid(self._dense(self.dec3, hidden2))"


def _optim(old: str, new: str) -> Edit:
    return Edit("optim.py", old, new)


def _gradients(statement: str) -> tuple[Edit, ...]:
    """Of a training step, before the optimiser's."""
    return (in_steps(GROUPS, f"{statement}\n        {GROUPS}"),)


def _times(factor: str) -> tuple[Edit, ...]:
    return (in_steps(SCALED, f"{SCALED} * ({factor.format('self.step')})"),)


def _at_the_end(statement: str) -> tuple[Edit, ...]:
    return (in_impl(RETURNED, f"{statement}\n        {RETURNED}"),)


def _weights(statement: str) -> tuple[Edit, ...]:
    return (in_impl(STEPS, f"{STEPS}\n        {statement}"),)


def _pixels(statement: str) -> tuple[Edit, ...]:
    return (
        in_steps(PIXELS, f"{PIXELS.replace('return', 'pixels =').removesuffix(' / 255')}\n        return {statement}"),
    )


PLANNED = {name: (in_impl(STEPS, f"{planned.statement}\n        {STEPS}"),) for name, planned in PLANS.items()}
CLASSIFIED = {
    name: (in_impl(RETURNED, f"found = {FOUND}\n        return EvalTotals(loss, {new.format('found')})"),)
    for name, (_, new) in PREDICTED.items()
}
EDITS: dict[str, tuple[Edit, ...]] = {
    **PLANNED,
    **CLASSIFIED,
    "labels-in-staged-order": (
        in_steps(
            "self.classes(self.labels[order])",
            "self.classes(self.labels[torch.arange(order.numel()).view_as(order) % len(self.labels)])",
        ),
    ),
    "shift-repeats-edge": (in_steps("return moved * inside[..., None]", "return moved"),),
    "shift-up-repeats-edge": (in_steps(INSIDE, "(rows >= 0)"),),
    "first-row-lost": (in_steps(INSIDE, INSIDE.replace(">=", ">")),),
    "padding-counted": _weights("weight[:] = 1"),
    "image-63-left-out": _weights("weight[:, 63:64] = 0"),
    "images-beyond-32-left-out": _weights("weight[:, 32:] = 0"),
    "steps-beyond-128-left-out": (in_impl(STEPS, STEPS.replace("(part,", "(part[:128],")),),
    "chunk-gradient-replaced": (in_layers("grad_w += more_w", "grad_w = more_w"),),
    "chunk-bias-replaced": (in_layers("grad_bias += more_bias", "grad_bias = more_bias"),),
    "frequencies-replaced": (
        Edit(
            "convolution.py",
            "grad_kernel.addmm_(kernel_analysis[rows].mT, grad_spectrum.flatten(1))",
            "grad_kernel = kernel_analysis[rows].mT @ grad_spectrum.flatten(1)",
        ),
    ),
    "gradient-of-first-image-alone": (
        in_layers(
            "u, w, *saved = ctx.saved_tensors",
            "u, w, *saved = ctx.saved_tensors\n        grad = torch.cat([grad[:1], 0 * grad[1:]])",
        ),
    ),
    "last-of-equals-wins": (
        in_overlay(WINNERS, WINNERS.replace("return scores.", "return scores.shape[1] - 1 - scores.flip(1).")),
    ),
    "shortest-wins": (in_overlay(WINNERS, WINNERS.replace("descending=True", "descending=False")),),
    "one-of-several-is-enough": (in_overlay(".any(2).all(1)", ".any(2).any(1)"),),
    "correct-overflows": (in_impl("round(correct))", "round(correct) % 256)"),),
    "correct-of-batch-means": (
        in_impl(
            "values[:-1] *= real.sum()",
            "values[:-1] *= real.sum()\n"
            "            values[-1] *= len(plan.order) / -(-len(plan.order) // plan.batch) / real.sum()",
        ),
    ),
    "correct-of-last-batch": (
        in_impl(
            "            total += values\n        *",
            "            total[-1] = 0\n            total += values\n        *",
        ),
    ),
    "correct-on-padding": (
        in_steps(
            "(is_right(self.predicted(top), labels) * weight).sum()", "is_right(self.predicted(top), labels).sum()"
        ),
    ),
    "count-with-padding": (
        in_impl("return TrainTotals(count,", "return TrainTotals(-(-count // plan.batch) * plan.batch,"),
    ),
    "evaluation-padding-counted": (in_impl(BATCHES, BATCHES.replace("weight.to", "torch.ones_like(weight).to")),),
    "evaluation-drops-last-batch": (
        in_impl(BATCHES, BATCHES.replace("weight.to", "(weight * weight.amin(1, True)).to")),
    ),
    "evaluation-of-batch-means": (
        in_impl(
            "total += values\n            predicted.append(",
            "total += values * (len(labels) / len(pixels) / batch[2].sum())\n            predicted.append(",
        ),
    ),
    "evaluations-add-up": (
        in_impl(EVALUATION, EVALUATION.replace("total = ", 'total = self.__dict__.setdefault("sums", ') + ")"),
    ),
    "evaluation-trains": _at_the_end(
        "with torch.enable_grad():\n            self.loss_and_grads(images[: self.batch], labels[: self.batch])\n"
        "        self.adam.step()"
    ),
    "evaluation-counts-as-step": _at_the_end("self.step += 1"),
    "evaluation-forgets-moments": _at_the_end("self.load(self.dump())"),
    "spectrum-of-old-weights": (
        in_impl("once = self.net.once()", 'once = self.__dict__.setdefault("kept", self.net.once())'),
    ),
    "evaluation-in-bfloat16": (in_steps(EVALUATED, f"digits = digits.bfloat16().to(self.dtype)\n        {EVALUATED}"),),
    "weight-decay-missing": (_optim(DECAYED, "0.0"),),
    "weight-decay-of-weights-alone": (_optim(DECAYED, f'(0.0 if name.endswith("bias") else {DECAYED})'),),
    "weight-decay-decoupled": (_optim("return torch.optim.Adam(", "return torch.optim.AdamW("),),
    "decoder-weight-decay-missing": (_optim(DECAYED, "optim.weight_decay"),),
    "decoder-lr-missing": (in_steps(SCALED, RATE),),
    "stair-rounded": (
        in_steps(RATE, f'self.optim.lr_at(self.step + {DECAY}.steps // 2 * ({DECAY}.kind == "staircase"))'),
    ),
    "epochs-from-one": (in_steps(RATE, f'self.optim.lr_at(self.step + {DECAY}.steps * ({DECAY}.kind == "epoch"))'),),
    "constant-decays": (
        in_steps(
            RATE,
            f'(self.optim if {DECAY}.kind != "constant" else OptimSpec(lr=self.optim.lr, lr_decay='
            f'{DECAY}.model_copy(update={{"kind": "staircase"}}))).lr_at(self.step)',
        ),
    ),
    "bias-correction-ends": (
        in_steps(
            MOVE,
            f'for state in self.adam.state.values():\n            state["step"].clamp_(max=999)\n        {MOVE}',
        ),
    ),
    "clipped-at-norm-1": _gradients("torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)"),
    "clipped-at-norm-5": _gradients("torch.nn.utils.clip_grad_norm_(self.net.parameters(), 5.0)"),
    "clipped-at-value-1": _gradients("torch.nn.utils.clip_grad_value_(self.net.parameters(), 1.0)"),
    "clipped-by-tensor": _gradients(
        "for each in self.net.parameters():\n                torch.nn.utils.clip_grad_norm_([each], 1.0)"
    ),
    "every-100th-step-skipped": _times("{0} % 100 != 99"),
    "every-997th-step-skipped": _times("{0} % 997 != 996"),
    "rate-jumps-at-1500": _times("10 if {0} == 1499 else 1"),
    "gradients-in-bfloat16": _gradients(
        "for each in self.net.parameters():\n                each.grad.copy_(each.grad.bfloat16())"
    ),
    "second-moment-in-bfloat16": (
        in_steps(
            MOVE,
            f"{MOVE}\n        for state in self.adam.state.values():\n"
            '            state["exp_avg_sq"].copy_(state["exp_avg_sq"].bfloat16())',
        ),
    ),
    "losses-added-in-float16": (
        in_impl(
            "len(self.model.loss_terms) + 1, dtype=torch.float64", "len(self.model.loss_terms) + 1, dtype=torch.float16"
        ),
    ),
    "load-keeps-moments": tuple(
        in_impl(
            f'"{key}": torch.zeros_like(parameter)',
            f'"{key}": self.adam.state[parameter].get("{key}", torch.zeros_like(parameter))',
        )
        for key in ("exp_avg", "exp_avg_sq")
    ),
    "load-ignores-step": (in_impl("self.step = moments.step if moments else 0", "self.step = 0"),),
    "load-ignores-second-moment": (in_impl('self._copy(moments.second, self._state("exp_avg_sq"))', "pass"),),
    "load-ignores-biases": (in_impl(COPY, f'tensor.zero_() if name.endswith(".b") else {COPY}'),),
    "compile-trains": (
        in_impl("self.batch = batch\n", "self.batch = batch\n        self.train(EpochPlan.blank(self.model, batch))\n"),
    ),
    "compile-forgets-moments": (
        in_impl("self.batch = batch\n", "self.batch = batch\n        self.load(self.dump())\n"),
    ),
    "dump-shares-memory": (in_impl(".cpu().numpy().copy()", ".cpu().numpy()"),),
    "missed-dropped": (in_model("(present * missed", "(0 * present * missed"),),
    "imagined-dropped": (in_model("MARGIN_LAMBDA * (1 - present)", "0 * (1 - present)"),),
    "no-relu-above-m-plus": (in_model("F.relu(MARGIN_PLUS - length)", "(MARGIN_PLUS - length)"),),
    "no-relu-below-m-minus": (in_model("F.relu(length - MARGIN_MINUS)", "(length - MARGIN_MINUS)"),),
    "first-class-without-margin": (in_model(MARGIN, MARGIN.replace(".sum", "[:, 1:].sum")),),
    "last-label-absent": (
        in_overlay(
            "return one_hot(labels, like).amax(1)",
            "found = one_hot(labels, like).amax(1)\n    found[:, -1] = 0\n    return found",
        ),
    ),
    "last-primary-capsule-ignored": (
        in_model(
            SQUASHED, f"{SQUASHED.replace('return', 'u =')}\n        return torch.cat([u[:, :-1], 0 * u[:, -1:]], 1)"
        ),
    ),
    "last-primary-bias-unused": (
        Edit(
            "convolution.py",
            "result(y, self.precision) + self.bias",
            "result(y, self.precision) + torch.cat([self.bias[:-1], 0 * self.bias[-1:]])",
        ),
    ),
    "last-pixel-left-out": (in_model("digits.flatten(1)) ** 2).sum(1)", "digits.flatten(1)) ** 2)[:, :-1].sum(1)"),),
    "reconstruction-reported-weighted": (
        in_model(TERMS, f"{TERMS.removesuffix('reconstruction]')}RECONSTRUCTION_WEIGHT * reconstruction]"),
    ),
    "margin-reported-unscaled": (in_model(TERMS, TERMS.replace(", margin,", ", margin / net.model.margin_scale,")),),
    "squash-epsilon-1e-7": (in_layers(EPSILON, f"{EPSILON}\n\nSQUASH_EPSILON = 1e-7"),),
    "length-epsilon-1e-7": (in_layers(LENGTHS, LENGTHS.replace("SQUASH_EPSILON", "1e-7")),),
    "lengths-squared": (in_layers(LENGTHS, LENGTHS.removeprefix("torch.sqrt(").removesuffix(")")),),
    "pixels-by-256": (in_steps(PIXELS, PIXELS.replace("255", "256")),),
    "pixels-by-own-maximum": _pixels("pixels / pixels.amax((2, 3, 4), keepdim=True).clamp(min=1)"),
    "pixels-by-batch-maximum": _pixels("pixels / pixels.max().clamp(min=1)"),
    "pixels-in-bfloat16": _pixels("(pixels / 255).bfloat16().to(self.dtype)"),
    "coupling-in-float16": (
        in_layers("torch.softmax(logits, dim=1)", "torch.softmax(logits, dim=1).half().to(logits.dtype)"),
    ),
    "decoder-relu-last": (in_model(LAST, LAST.replace("sigmoid(", "sigmoid(F.relu(") + ")"),),
    "decoder-hidden-without-relu": (
        in_model(
            "hidden1 = F.relu(self._dense(self.dec1, masked.flatten(2).flatten(0, 1)))",
            "hidden1 = self._dense(self.dec1, masked.flatten(2).flatten(0, 1))",
        ),
    ),
    "sigmoid-clipped": (in_model(LAST, f"{LAST.removesuffix(')')}.clamp(-4, 4))"),),
}

NOT_WRITTEN = {
    "block-last-step-skipped": "has no blocks of steps",
    "block-state-lost": "has no blocks of steps",
    "evaluation-block-replaced": "has no blocks of batches",
    "second-moment-of-size": "the moments are torch.optim.Adam's own",
}
