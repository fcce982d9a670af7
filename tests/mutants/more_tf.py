"""The faults of `harness.parity.faults.catalogue` in TensorFlow."""

from __future__ import annotations

from harness.parity.faults.evaluation import PREDICTED
from harness.parity.faults.mutate import Edit, in_impl, in_layers, in_model, in_steps
from harness.parity.faults.plan import PLANS
from tests.mutants.overlay import in_overlay

STEPS = "order, shifts, weight = plan.steps()"
INSIDE = "((rows >= 0) & (rows < height))"
RETURNED = "return EvalTotals(Loss(*(total / len(labels)).tolist()), found.reshape(-1, *self.model.several))"
FOUND = "found.reshape(-1, *self.model.several)"
WINNERS = "return tf.math.top_k(scores, count).indices"
APPLY = "self.adam.apply(grads, self.net.trainable_variables)"
CORRECT = "round(totals[:, -1].sum())"
EVALUATED = "top, *_ = self.net(overlay(digits), *once)"
TOTAL = "total = np.sum([values.numpy().astype(np.float64) for values, _ in results], axis=0)"
BATCH = "self._eval_step(*map(tf.constant, batch), *once)"
SCALE = "learning_rate = learning_rate * self.optim.lr_scale(name)"
DECAYED = "if decay := self.optim.weight_decay_of(name):"
MOVE = "variable.assign_sub("
STAIR = "tf.cast(step // decay.steps, self.dtype)"
SECOND = "second.assign(ADAM_BETA2 * second + (1 - ADAM_BETA2) * gradient**2)"
TERMS = "margin + RECONSTRUCTION_WEIGHT * reconstruction, margin, reconstruction]"
MARGIN = "return tf.reduce_sum(present * missed + MARGIN_LAMBDA * (1 - present) * imagined, 1)"
SQUASHED = "return squash(tf.reshape(grid, (images.shape[0], self.model.primary_capsules, self.model.primary_dim)))"
LENGTHS = "tf.sqrt(tf.reduce_sum(v * v, -1) + SQUASH_EPSILON)"
EPSILON = "from harness.spec import SQUASH_EPSILON"
PIXELS = "return tf.cast(digits, self.dtype) / 255"
LAST = "tf.sigmoid(self._dense(self.dec3, hidden2))"
LOAD = "self.load(weights, moments)"
BFLOAT16 = "tf.cast(tf.cast({0}, tf.bfloat16), {0}.dtype)"


def _optim(old: str, new: str) -> Edit:
    return Edit("optim.py", old, new)


def _gradients(statement: str) -> tuple[Edit, ...]:
    return (in_steps(APPLY, f"{statement}\n        {APPLY}"),)


def _times(factor: str) -> tuple[Edit, ...]:
    """`factor` is of the completed steps."""
    factor = factor.format("self.iterations")
    return (_optim(SCALE, f"{SCALE} * tf.cast({factor}, variable.dtype)"),)


def _at_the_end(statement: str) -> tuple[Edit, ...]:
    return (in_impl(RETURNED, f"{statement}\n        {RETURNED}"),)


def _weights(statement: str) -> tuple[Edit, ...]:
    return (in_impl(STEPS, f"{STEPS}\n        {statement}"),)


def _evaluation_weights(new: str) -> tuple[Edit, ...]:
    return (in_impl(BATCH, BATCH.replace("batch)", f"(*batch[:2], {new}))")),)


def _pixels(statement: str) -> tuple[Edit, ...]:
    return (in_steps(PIXELS, f"pixels = tf.cast(digits, self.dtype)\n        return {statement}"),)


PLANNED = {name: (in_impl(STEPS, f"{planned.statement}\n        {STEPS}"),) for name, planned in PLANS.items()}
CLASSIFIED = {
    name: (in_impl(RETURNED, f"found = {FOUND}\n        {RETURNED.replace(FOUND, new.format('found'))}"),)
    for name, (_, new) in PREDICTED.items()
}
EDITS: dict[str, tuple[Edit, ...]] = {
    **PLANNED,
    **CLASSIFIED,
    "labels-in-staged-order": (
        in_steps(
            "self.classes(tf.gather(self.labels, each))",
            "self.classes(tf.gather(self.labels, tf.range(each.shape[0]) % len(self.labels)))",
        ),
    ),
    "shift-repeats-edge": (in_steps(" * tf.cast(inside, images.dtype)[..., None]", ""),),
    "shift-up-repeats-edge": (in_steps(INSIDE, "(rows >= 0)"),),
    "first-row-lost": (in_steps(INSIDE, INSIDE.replace(">=", ">")),),
    "padding-counted": _weights("weight[:] = 1"),
    "image-63-left-out": _weights("weight[:, 63:64] = 0"),
    "images-beyond-32-left-out": _weights("weight[:, 32:] = 0"),
    "steps-beyond-128-left-out": (
        in_impl(STEPS, STEPS.replace("plan.steps()", "(part[:128] for part in plan.steps())")),
    ),
    "frequencies-replaced": (Edit("convolution.py", "grad_w += tf.matmul(", "grad_w = tf.matmul("),),
    "gradient-of-first-image-alone": (
        in_layers(
            "    grad_bias = tf.zeros_like(grad[0, :, 0])\n",
            "    grad_bias = tf.zeros_like(grad[0, :, 0])\n    grad = tf.concat([grad[:1], 0 * grad[1:]], 0)\n",
        ),
    ),
    "last-of-equals-wins": (
        in_overlay(
            WINNERS,
            WINNERS.replace(
                "return tf.math.top_k(scores", "return scores.shape[1] - 1 - tf.math.top_k(scores[:, ::-1]"
            ),
        ),
    ),
    "shortest-wins": (in_overlay(WINNERS, WINNERS.replace("(scores", "(-scores")),),
    "one-of-several-is-enough": (in_overlay("tf.reduce_all(tf.reduce_any(", "tf.reduce_any(tf.reduce_any("),),
    "correct-overflows": (in_impl(CORRECT, f"{CORRECT} % 256"),),
    "correct-of-batch-means": (in_impl(CORRECT, "round((totals[:, -1] / weight.sum(1)).mean() * count)"),),
    "correct-of-last-batch": (in_impl(CORRECT, "round(totals[-1, -1])"),),
    "correct-on-padding": (in_steps("tf.cast(right, weight.dtype) * weight", "tf.cast(right, weight.dtype)"),),
    "count-with-padding": (
        in_impl("return TrainTotals(count,", "return TrainTotals(-(-count // plan.batch) * plan.batch,"),
    ),
    "evaluation-padding-counted": _evaluation_weights("np.ones_like(batch[2])"),
    "evaluation-drops-last-batch": _evaluation_weights("batch[2] * batch[2].min()"),
    "evaluation-of-batch-means": _evaluation_weights(
        "(batch[2] * (len(labels) / -(-len(labels) // self.batch) / batch[2].sum())).astype(self.dtype)"
    ),
    "evaluations-add-up": (
        in_impl(
            TOTAL, f"{TOTAL.replace('total = ', 'total = self.sums = getattr(self, &sums&, 0) + ')}".replace("&", '"')
        ),
    ),
    "evaluation-trains": _at_the_end(
        "_, grads = self.loss_and_grads(images[: self.batch], labels[: self.batch])\n"
        "        self.update([tf.constant(grads[name]) for name in self.adam.names])"
    ),
    "evaluation-counts-as-step": _at_the_end("self.adam.iterations.assign_add(1)"),
    "evaluation-forgets-moments": _at_the_end("self.load(self.dump())"),
    "spectrum-of-old-weights": (
        in_impl("once = self._once()", 'once = self.__dict__.setdefault("kept", self._once())'),
    ),
    "evaluation-in-bfloat16": (in_steps(EVALUATED, f"digits = {BFLOAT16.format('digits')}\n        {EVALUATED}"),),
    "weight-decay-missing": (_optim(DECAYED, "if decay := 0.0:"),),
    "weight-decay-of-weights-alone": (
        _optim(
            DECAYED, DECAYED.replace("if decay :=", 'if (not name.endswith(".b")) and (decay :=').replace("):", ")):")
        ),
    ),
    "weight-decay-decoupled": (
        _optim("gradient = gradient + decay * variable", "pass"),
        _optim(MOVE, f"variable.assign_sub(learning_rate * decay * variable)\n        {MOVE}"),
    ),
    "decoder-weight-decay-missing": (_optim(DECAYED, "if decay := self.optim.weight_decay:"),),
    "decoder-lr-missing": (_optim(SCALE, "pass"),),
    "stair-rounded": (
        _optim(STAIR, f'(tf.floor(completed / decay.steps + 0.5) if decay.kind == "staircase" else {STAIR})'),
    ),
    "epochs-from-one": (_optim(STAIR, f'({STAIR} + (decay.kind == "epoch"))'),),
    "constant-decays": (_optim('if decay.kind == "constant":', "if False:"),),
    "bias-correction-ends": (
        _optim("step = tf.cast(self.iterations + 1,", "step = tf.cast(tf.minimum(self.iterations + 1, 1000),"),
    ),
    "second-moment-of-size": (_optim(SECOND, SECOND.replace("gradient**2", "abs(gradient)")),),
    "clipped-at-norm-1": _gradients("grads, _ = tf.clip_by_global_norm(grads, 1.0)"),
    "clipped-at-norm-5": _gradients("grads, _ = tf.clip_by_global_norm(grads, 5.0)"),
    "clipped-at-value-1": _gradients("grads = [tf.clip_by_value(each, -1, 1) for each in grads]"),
    "clipped-by-tensor": _gradients("grads = [tf.clip_by_norm(each, 1.0) for each in grads]"),
    "every-100th-step-skipped": _times("{0} % 100 != 99"),
    "every-997th-step-skipped": _times("{0} % 997 != 996"),
    "rate-jumps-at-1500": _times("tf.where({0} == 1499, 10, 1)"),
    "gradients-in-bfloat16": _gradients(f"grads = [{BFLOAT16.format('each')} for each in grads]"),
    "second-moment-in-bfloat16": (
        _optim(SECOND, f"{SECOND}\n        second.assign(tf.cast(tf.cast(second.value, tf.bfloat16), second.dtype))"),
    ),
    "losses-added-in-float16": (
        in_impl(
            "totals = tf.stack(values).numpy().astype(np.float64)",
            "totals = tf.stack(values).numpy().astype(np.float16)",
        ),
    ),
    "load-keeps-moments": (
        in_impl(
            "self._assign(self._moments(self.adam.first)",
            "moments and self._assign(self._moments(self.adam.first)",
        ),
        in_impl(
            "self._assign(self._moments(self.adam.second)",
            "moments and self._assign(self._moments(self.adam.second)",
        ),
    ),
    "load-ignores-step": (
        in_impl("self.adam.iterations.assign(moments.step if moments else 0)", "self.adam.iterations.assign(0)"),
    ),
    "load-ignores-second-moment": (in_impl("moments.second if moments else zeros", "zeros"),),
    "load-ignores-biases": (
        in_impl(
            "variable.assign(arrays[name])",
            'variable.assign(0 * arrays[name] if name.endswith(".b") else arrays[name])',
        ),
    ),
    "compile-trains": (in_impl(LOAD, "pass"),),
    "compile-forgets-moments": (in_impl(LOAD, "self.load(weights)"),),
    "missed-dropped": (in_model("(present * missed", "(0 * present * missed"),),
    "imagined-dropped": (in_model("MARGIN_LAMBDA * (1 - present)", "0 * (1 - present)"),),
    "no-relu-above-m-plus": (in_model("tf.nn.relu(MARGIN_PLUS - length)", "(MARGIN_PLUS - length)"),),
    "no-relu-below-m-minus": (in_model("tf.nn.relu(length - MARGIN_MINUS)", "(length - MARGIN_MINUS)"),),
    "first-class-without-margin": (
        in_model(MARGIN, MARGIN.replace("reduce_sum(", "reduce_sum((").replace(", 1)", ")[:, 1:], 1)")),
    ),
    "last-label-absent": (
        in_overlay(
            "return tf.reduce_max(one_hot(labels, like), 1)",
            "found = tf.reduce_max(one_hot(labels, like), 1)\n    return tf.concat([found[:, :-1], 0 * found[:, -1:]], 1)",
        ),
    ),
    "last-primary-capsule-ignored": (
        in_model(
            SQUASHED, f"{SQUASHED.replace('return', 'u =')}\n        return tf.concat([u[:, :-1], 0 * u[:, -1:]], 1)"
        ),
    ),
    "last-primary-bias-unused": (
        Edit(
            "convolution.py",
            "self.precision), self.bias)",
            "self.precision), tf.concat([self.bias.value[:-1], 0 * self.bias.value[-1:]], 0))",
        ),
    ),
    "last-pixel-left-out": (
        in_model(
            "tf.reduce_sum(tf.reshape(squares, (digits.shape[0], -1)), 1)",
            "tf.reduce_sum(tf.reshape(squares, (digits.shape[0], -1))[:, :-1], 1)",
        ),
    ),
    "reconstruction-reported-weighted": (
        in_model(TERMS, f"{TERMS.removesuffix('reconstruction]')}RECONSTRUCTION_WEIGHT * reconstruction]"),
    ),
    "margin-reported-unscaled": (in_model(TERMS, TERMS.replace(", margin,", ", margin / net.model.margin_scale,")),),
    "squash-epsilon-1e-7": (in_layers(EPSILON, f"{EPSILON}\n\nSQUASH_EPSILON = 1e-7"),),
    "length-epsilon-1e-7": (in_layers(LENGTHS, LENGTHS.replace("SQUASH_EPSILON", "1e-7")),),
    "lengths-squared": (in_layers(LENGTHS, LENGTHS.removeprefix("tf.sqrt(").removesuffix(")")),),
    "pixels-by-256": (in_steps(PIXELS, PIXELS.replace("255", "256")),),
    "pixels-by-own-maximum": _pixels("pixels / tf.maximum(tf.reduce_max(pixels, (2, 3, 4), True), 1)"),
    "pixels-by-batch-maximum": _pixels("pixels / tf.maximum(tf.reduce_max(pixels), 1)"),
    "pixels-in-bfloat16": _pixels("tf.cast(tf.cast(pixels / 255, tf.bfloat16), self.dtype)"),
    "coupling-in-float16": (
        in_layers(
            "coupling = softmax(logits, leak)",
            "coupling = tf.cast(tf.cast(softmax(logits, leak), tf.float16), logits.dtype)",
        ),
    ),
    "decoder-relu-last": (in_model(LAST, LAST.replace("sigmoid(", "sigmoid(tf.nn.relu(") + ")"),),
    "decoder-hidden-without-relu": (in_model("hidden1 = tf.nn.relu(", "hidden1 = ("),),
    "sigmoid-clipped": (
        in_model(LAST, f"{LAST.replace('sigmoid(', 'sigmoid(tf.clip_by_value(').removesuffix(')')}, -4, 4))"),
    ),
}

NOT_WRITTEN = {
    "block-last-step-skipped": "has no blocks of steps",
    "block-state-lost": "has no blocks of steps",
    "evaluation-block-replaced": "has no blocks of batches",
    "chunk-gradient-replaced": "has no chunks of images",
    "chunk-bias-replaced": "has no chunks of images",
    "dump-shares-memory": "what a variable's numpy() gave stays as it is: an assignment writes elsewhere",
}
