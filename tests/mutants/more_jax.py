"""The faults of `harness.parity.faults.catalogue` in JAX."""

from __future__ import annotations

from harness.parity.faults.evaluation import PREDICTED
from harness.parity.faults.mutate import Edit, in_impl, in_layers, in_model, in_steps
from harness.parity.faults.plan import PLANS
from tests.mutants.overlay import in_overlay

STEPS = "order, shifts, weight = plan.steps()"
INSIDE = "((rows >= 0) & (rows < height))"
FOUND = "np.concatenate(predicted)[: len(labels)]"
RETURNED = f"return EvalTotals(Loss(*(total / len(labels)).tolist()), {FOUND})"
WINNERS = "return lax.top_k(scores, count)[1]"
DECAYED = "grads = _add_decayed_weights(optim, grads, params)"
UPDATE = "updates, moments = self.adam.update(grads, moments, params)"
CORRECT = "round(totals[:, -1].sum())"
EVALUATED = "top, *_ = net(overlay(digits), *once)"
BLOCKS = "_blocks(tuple(batched(part, self.batch) for part in parts))"
SUMS = "total += np.array(sums, np.float64).sum(0)"
TRAINED = "self._train_steps(self.state, (self.images, self.labels), steps, count)"
RATE = "_lr_at(optim, state.count, dtype)"
STAIR = "(step // decay.steps).astype(dtype)"
SECOND = "second = jax.tree.map(lambda m, g: ADAM_BETA2 * m + (1 - ADAM_BETA2) * g**2, state.nu, grads)"
TERMS = "margin + RECONSTRUCTION_WEIGHT * reconstruction, margin, reconstruction]"
MARGIN = "return (present * missed + MARGIN_LAMBDA * (1 - present) * imagined).sum(1)"
SQUASHED = "return squash(grid.reshape(-1, self.model.primary_capsules, self.model.primary_dim))"
LENGTHS = "jnp.sqrt((v * v).sum(-1) + SQUASH_EPSILON)"
EPSILON = "from harness.spec import SQUASH_EPSILON"
PIXELS = "return images.reshape(-1, self.model.overlaid, *self.model.image).astype(self.dtype) / 255"
LAST = 'jax.nn.sigmoid(self._dense("dec3", hidden2))'
LOAD = "self.load(weights, moments)"
BFLOAT16 = "lax.reduce_precision({0}, 8, 7)"
OPTAX_LAX = Edit("optim.py", "from jax import Array\n", "from jax import Array, lax\n")


def _optim(old: str, new: str) -> Edit:
    return Edit("optim.py", old, new)


def _gradients(statement: str) -> tuple[Edit, ...]:
    return (in_steps(UPDATE, f"{statement}\n        {UPDATE}"),)


def _times(factor: str) -> tuple[Edit, ...]:
    """`factor` is of the completed steps."""
    return (_optim(RATE, f"{RATE} * ({factor.format('state.count')})"),)


def _at_the_end(statement: str) -> tuple[Edit, ...]:
    return (in_impl(RETURNED, f"{statement}\n        {RETURNED}"),)


def _weights(statement: str) -> tuple[Edit, ...]:
    return (in_impl(STEPS, f"{STEPS}\n        {statement}"),)


def _evaluation_weights(new: str) -> tuple[Edit, ...]:
    return (
        in_impl(
            f"for steps, count in {BLOCKS}:",
            f"for steps, count in {BLOCKS}:\n            steps = (*steps[:2], {new})",
        ),
    )


def _pixels(statement: str) -> tuple[Edit, ...]:
    return (
        in_steps(PIXELS, f"{PIXELS.replace('return', 'pixels =').removesuffix(' / 255')}\n        return {statement}"),
    )


PLANNED = {name: (in_impl(STEPS, f"{planned.statement}\n        {STEPS}"),) for name, planned in PLANS.items()}
CLASSIFIED = {
    name: (in_impl(RETURNED, f"found = {FOUND}\n        {RETURNED.replace(FOUND, new.format('found'))}"),)
    for name, (_, new) in PREDICTED.items()
}
EDITS: dict[str, tuple[Edit, ...]] = {
    **PLANNED,
    **CLASSIFIED,
    "labels-in-staged-order": (
        in_steps("data[1][order]", "data[1][jnp.arange(order.size).reshape(order.shape) % len(data[1])]"),
    ),
    "shift-repeats-edge": (in_steps("return moved * inside[..., None]", "return moved"),),
    "shift-up-repeats-edge": (in_steps(INSIDE, "(rows >= 0)"),),
    "first-row-lost": (in_steps(INSIDE, INSIDE.replace(">=", ">")),),
    "padding-counted": _weights("weight[:] = 1"),
    "image-63-left-out": _weights("weight[:, 63:64] = 0"),
    "images-beyond-32-left-out": _weights("weight[:, 32:] = 0"),
    "steps-beyond-128-left-out": (
        in_impl(STEPS, STEPS.replace("plan.steps()", "(part[:128] for part in plan.steps())")),
    ),
    "block-last-step-skipped": (in_impl("min(BLOCK, len(parts[0])", "min(BLOCK - 1, len(parts[0])"),),
    "block-state-lost": (
        in_impl("values: list[Array] = []", "values: list[Array] = []\n        first = self.state"),
        in_impl(TRAINED, TRAINED.replace("self.state", "jax.tree.map(jnp.copy, first)")),
    ),
    "evaluation-block-replaced": (in_impl(SUMS, SUMS.replace("+=", "=")),),
    "gradient-of-first-image-alone": (
        in_layers(
            "    grad_bias = jnp.zeros_like(grad[0, :, 0])\n",
            "    grad_bias = jnp.zeros_like(grad[0, :, 0])\n    grad = jnp.concatenate([grad[:1], 0 * grad[1:]])\n",
        ),
    ),
    "last-of-equals-wins": (in_overlay(WINNERS, "return scores.shape[1] - 1 - lax.top_k(scores[:, ::-1], count)[1]"),),
    "shortest-wins": (in_overlay(WINNERS, WINNERS.replace("(scores", "(-scores")),),
    "one-of-several-is-enough": (in_overlay(".any(2).all(1)", ".any(2).any(1)"),),
    "correct-overflows": (in_impl(CORRECT, f"{CORRECT} % 256"),),
    "correct-of-batch-means": (in_impl(CORRECT, "round((totals[:, -1] / weight.sum(1)).mean() * count)"),),
    "correct-of-last-batch": (in_impl(CORRECT, "round(totals[-1, -1])"),),
    "correct-on-padding": (
        in_steps(
            "(is_right(self.predicted(top), labels) * weight).sum()", "is_right(self.predicted(top), labels).sum()"
        ),
    ),
    "count-with-padding": (
        in_impl("return TrainTotals(count,", "return TrainTotals(-(-count // plan.batch) * plan.batch,"),
    ),
    "evaluation-padding-counted": _evaluation_weights("np.ones_like(steps[2])"),
    "evaluation-drops-last-batch": _evaluation_weights("steps[2] * steps[2].min(1, keepdims=True)"),
    "evaluation-of-batch-means": _evaluation_weights(
        "(steps[2] * len(labels) / -(-len(labels) // self.batch) / np.maximum(steps[2].sum(1, keepdims=True), 1))"
        ".astype(self.dtype)"
    ),
    "evaluations-add-up": (
        in_impl(
            "total = np.zeros(len(self.model.loss_terms))",
            'total = self.__dict__.setdefault("sums", np.zeros(len(self.model.loss_terms)))',
        ),
    ),
    "evaluation-trains": _at_the_end(
        "_, grads = self.loss_and_grads(images[: self.batch], labels[: self.batch])\n"
        "        self.state = self.update(self.state, self._params(grads))"
    ),
    "evaluation-counts-as-step": _at_the_end(
        "self.state = self.state[0], self.state[1]._replace(count=self.state[1].count + 1)"
    ),
    "evaluation-forgets-moments": _at_the_end("self.load(self.dump())"),
    "spectrum-of-old-weights": (
        in_impl(
            "self._eval_steps(self.state[0], steps, count)",
            'self._eval_steps(self.state[0] | {"kept": self.__dict__.setdefault("kept", self.state[0]["primary.w"] + 0)}, '
            "steps, count)",
        ),
        in_steps(
            "self.net(params).once()",
            'self.net(params | {"primary.w": params["kept"]}).once()',
        ),
    ),
    "evaluation-in-bfloat16": (in_steps(EVALUATED, f"digits = {BFLOAT16.format('digits')}\n        {EVALUATED}"),),
    "weight-decay-missing": (_optim(DECAYED, "pass"),),
    "weight-decay-of-weights-alone": (
        _optim(
            "optim.weight_decay_of(name) for name", '(not name.endswith(".b")) * optim.weight_decay_of(name) for name'
        ),
    ),
    "weight-decay-decoupled": (
        _optim(DECAYED, "pass"),
        in_steps(
            UPDATE,
            f"{UPDATE}\n        lr = _lr_at(self.optim, moments.count - 1, self.dtype)\n"
            "        updates = {name: each - lr * self.optim.lr_scale(name) * self.optim.weight_decay_of(name) * params[name]"
            " for name, each in updates.items()}",
        ),
        in_steps("import adam\n", "import _lr_at, adam\n"),
    ),
    "decoder-weight-decay-missing": (_optim("optim.weight_decay_of(name)", "optim.weight_decay"),),
    "decoder-lr-missing": (_optim("optim.lr_scale(name)", "1.0"),),
    "stair-rounded": (
        _optim(STAIR, f'(jnp.floor(step.astype(dtype) / decay.steps + 0.5) if decay.kind == "staircase" else {STAIR})'),
    ),
    "epochs-from-one": (_optim(STAIR, f'({STAIR} + (decay.kind == "epoch"))'),),
    "constant-decays": (_optim('if decay.kind == "constant":', "if False:"),),
    "bias-correction-ends": (
        _optim(
            "step, lr = (state.count + 1).astype(dtype)", "step, lr = jnp.minimum(state.count + 1, 1000).astype(dtype)"
        ),
    ),
    "second-moment-of-size": (_optim(SECOND, SECOND.replace("g**2", "abs(g)")),),
    "clipped-at-norm-1": _gradients("grads, _ = optax.clip_by_global_norm(1.0).update(grads, optax.EmptyState())"),
    "clipped-at-norm-5": _gradients("grads, _ = optax.clip_by_global_norm(5.0).update(grads, optax.EmptyState())"),
    "clipped-at-value-1": _gradients("grads, _ = optax.clip(1.0).update(grads, optax.EmptyState())"),
    "clipped-by-tensor": _gradients(
        "grads = {name: g / jnp.maximum(1, jnp.sqrt((g * g).sum())) for name, g in grads.items()}"
    ),
    "every-100th-step-skipped": _times("{0} % 100 != 99"),
    "every-997th-step-skipped": _times("{0} % 997 != 996"),
    "rate-jumps-at-1500": _times("jnp.where({0} == 1499, 10, 1).astype(dtype)"),
    "gradients-in-bfloat16": _gradients(f"grads = jax.tree.map(lambda g: {BFLOAT16.format('g')}, grads)"),
    "second-moment-in-bfloat16": (
        OPTAX_LAX,
        _optim(SECOND, f"{SECOND}\n        second = jax.tree.map(lambda n: {BFLOAT16.format('n')}, second)"),
    ),
    "losses-added-in-float16": (
        in_impl(
            "np.concatenate(values, dtype=np.float64)", 'np.concatenate(values, dtype=np.float16, casting="unsafe")'
        ),
    ),
    "load-keeps-moments": (
        in_impl(
            "optimiser = self.adam.init(params)",
            "optimiser = self.adam.init(params)\n"
            '        if hasattr(self, "state"):\n            optimiser = self.state[1]._replace(count=optimiser.count)',
        ),
    ),
    "load-ignores-step": (in_impl("jnp.int32(moments.step)", "jnp.int32(0)"),),
    "load-ignores-second-moment": (in_impl("self._params(moments.second)", "optimiser.nu"),),
    "load-ignores-biases": (
        in_impl(
            "params = self._params(weights)",
            'params = self._params({name: 0 * w if name.endswith(".b") else w for name, w in weights.items()})',
        ),
    ),
    "compile-trains": (in_impl(LOAD, "pass"),),
    "compile-forgets-moments": (in_impl(LOAD, "self.load(weights)"),),
    "missed-dropped": (in_model("(present * missed", "(0 * present * missed"),),
    "imagined-dropped": (in_model("MARGIN_LAMBDA * (1 - present)", "0 * (1 - present)"),),
    "no-relu-above-m-plus": (in_model("jax.nn.relu(MARGIN_PLUS - length)", "(MARGIN_PLUS - length)"),),
    "no-relu-below-m-minus": (in_model("jax.nn.relu(length - MARGIN_MINUS)", "(length - MARGIN_MINUS)"),),
    "first-class-without-margin": (in_model(MARGIN, MARGIN.replace(".sum", "[:, 1:].sum")),),
    "last-label-absent": (
        in_overlay("return one_hot(labels, like).max(1)", "return one_hot(labels, like).max(1).at[:, -1].set(0)"),
    ),
    "last-primary-capsule-ignored": (in_model(SQUASHED, f"{SQUASHED}.at[:, -1].set(0)"),),
    "last-primary-bias-unused": (
        Edit("convolution.py", "spectrum) + self.bias", "spectrum) + self.bias.at[-1].set(0)"),
    ),
    "last-pixel-left-out": (in_model("-1)) ** 2).sum(1)", "-1)) ** 2)[:, :-1].sum(1)"),),
    "reconstruction-reported-weighted": (
        in_model(TERMS, f"{TERMS.removesuffix('reconstruction]')}RECONSTRUCTION_WEIGHT * reconstruction]"),
    ),
    "margin-reported-unscaled": (in_model(TERMS, TERMS.replace(", margin,", ", margin / net.model.margin_scale,")),),
    "squash-epsilon-1e-7": (in_layers(EPSILON, f"{EPSILON}\n\nSQUASH_EPSILON = 1e-7"),),
    "length-epsilon-1e-7": (in_layers(LENGTHS, LENGTHS.replace("SQUASH_EPSILON", "1e-7")),),
    "lengths-squared": (in_layers(LENGTHS, LENGTHS.removeprefix("jnp.sqrt(").removesuffix(")")),),
    "pixels-by-256": (in_steps(PIXELS, PIXELS.replace("255", "256")),),
    "pixels-by-own-maximum": _pixels("pixels / pixels.max((2, 3, 4), keepdims=True).clip(1)"),
    "pixels-by-batch-maximum": _pixels("pixels / pixels.max().clip(1)"),
    "pixels-in-bfloat16": _pixels(BFLOAT16.format("pixels / 255")),
    "coupling-in-float16": (
        in_layers(
            "coupling = softmax(logits, leak)",
            "coupling = lax.reduce_precision(softmax(logits, leak), 5, 10)",
        ),
    ),
    "decoder-relu-last": (in_model(LAST, LAST.replace("sigmoid(", "sigmoid(jax.nn.relu(") + ")"),),
    "decoder-hidden-without-relu": (in_model("hidden1 = jax.nn.relu(", "hidden1 = ("),),
    "sigmoid-clipped": (in_model(LAST, f"{LAST.replace('sigmoid(', 'sigmoid((').removesuffix(')')}).clip(-4, 4))"),),
}

NOT_WRITTEN = {
    "chunk-gradient-replaced": "has no chunks of images",
    "chunk-bias-replaced": "has no chunks of images",
    "frequencies-replaced": "takes all frequencies at once",
    "dump-shares-memory": "an array that somebody sees is never written to, given to a step or not",
}
