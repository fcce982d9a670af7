"""Faults of the optimiser: settings, clipping, rare steps, precision, and its state after `load` and `compile`.

Level "audit": the ladder cannot find these, since its steps do not show them; the run's audit has to.
"""

from __future__ import annotations

from harness.parity.faults.fault import Fault
from harness.parity.faults.mutate import Edit, in_impl

_RATE = "self.optim.lr_at(self.moments.step)"
_DECAY = "self.optim.lr_decay"
_STEP = f"step, lr = self.moments.step + 1, {_RATE}"
_DECAYED = "self.optim.weight_decay_of(name) * w"
_SECOND = "second = ADAM_BETA2 * second + (1 - ADAM_BETA2) * grad**2"
_ADAM = "adam(w, grad, first[name], second[name], step, own_lr)"


def _gradients(statement: str) -> tuple[Edit, ...]:
    """`grads` changed before the step."""
    return (in_impl(_STEP, f"{statement}\n        {_STEP}"),)


def _clipped(norm: float) -> tuple[Edit, ...]:
    return _gradients(
        "norm = sum(float((grad**2).sum()) for grad in grads.values()) ** 0.5\n"
        f"        grads = {{name: grad * min(1.0, {norm} / (norm + 1e-6)) for name, grad in grads.items()}}"
    )


def _times(factor: str) -> tuple[Edit, ...]:
    """The learning rate times `factor`, an expression in the completed steps."""
    return (in_impl(_RATE, f"{_RATE} * ({factor.format('self.moments.step')})"),)


OPTIMISER_FAULTS = (
    Fault(
        "weight-decay-missing",
        "weight decay that is left out",
        "L5",
        (in_impl(_DECAYED, "0 * w"),),
    ),
    Fault(
        "weight-decay-of-weights-alone",
        "weight decay of the weights but not of the biases",
        "L5",
        (in_impl(_DECAYED, f'(not name.endswith(".b")) * {_DECAYED}'),),
    ),
    Fault(
        "weight-decay-decoupled",
        "weight decay as AdamW has it",
        "L5",
        (
            in_impl(f"grads[name] + {_DECAYED}", "grads[name]"),
            in_impl(_ADAM, _ADAM.replace("(w,", "(w - own_lr * self.optim.weight_decay_of(name) * w,")),
        ),
    ),
    Fault(
        "decoder-weight-decay-missing",
        "a decoder whose own weight decay is ignored",
        "L5",
        (in_impl(_DECAYED, "self.optim.weight_decay * w"),),
    ),
    Fault(
        "decoder-lr-missing",
        "a decoder whose own learning rate is ignored",
        "L5",
        (in_impl("lr * self.optim.lr_scale(name)", "lr"),),
    ),
    Fault(
        "stair-rounded",
        "a staircase that rounds instead of cutting",
        "L5",
        (
            in_impl(
                _RATE, f'self.optim.lr_at(self.moments.step + {_DECAY}.steps // 2 * ({_DECAY}.kind == "staircase"))'
            ),
        ),
    ),
    Fault(
        "epochs-from-one",
        "a learning rate that counts epochs from one",
        "L5",
        (in_impl(_RATE, f'self.optim.lr_at(self.moments.step + {_DECAY}.steps * ({_DECAY}.kind == "epoch"))'),),
    ),
    Fault(
        "constant-decays",
        "a constant learning rate that decays",
        "L5",
        (
            in_impl(
                _RATE,
                f'(self.optim if {_DECAY}.kind != "constant" else OptimSpec(lr=self.optim.lr, lr_decay='
                f'{_DECAY}.model_copy(update={{"kind": "staircase"}}))).lr_at(self.moments.step)',
            ),
        ),
    ),
    Fault(
        "bias-correction-ends",
        "bias corrections that stay as they are from step 1,000 on",
        "L5",
        (in_impl(_ADAM, _ADAM.replace("step,", "min(step, 1000),")),),
    ),
    Fault(
        "second-moment-of-size",
        "a second moment of |g| instead of g^2",
        "L5",
        (in_impl(_SECOND, _SECOND.replace("grad**2", "abs(grad)")),),
    ),
    Fault("clipped-at-norm-1", "gradients clipped at a norm of 1", "L5", _clipped(1.0)),
    Fault("clipped-at-norm-5", "gradients clipped at a norm of 5", "L5", _clipped(5.0)),
    Fault(
        "clipped-at-value-1",
        "gradients whose elements are clipped at 1",
        "L5",
        _gradients("grads = {name: grad.clip(-1, 1) for name, grad in grads.items()}"),
    ),
    Fault(
        "clipped-by-tensor",
        "gradients of which each tensor is clipped at a norm of 1",
        "L5",
        _gradients(
            "grads = {name: grad * min(1.0, 1.0 / (float((grad**2).sum()) ** 0.5 + 1e-6)) for name, grad in grads.items()}"
        ),
    ),
    Fault("every-100th-step-skipped", "every hundredth step that moves nothing", "L5", _times("{0} % 100 != 99")),
    Fault("every-997th-step-skipped", "every 997th step that moves nothing", "audit", _times("{0} % 997 != 996")),
    Fault(
        "rate-jumps-at-1500",
        "a learning rate that is ten times as large at step 1,500",
        "audit",
        _times("10 if {0} == 1499 else 1"),
    ),
    Fault(
        "gradients-in-bfloat16",
        "gradients in bfloat16",
        "L5",
        _gradients("grads = {name: F.rounded(grad, 8) for name, grad in grads.items()}"),
    ),
    Fault(
        "second-moment-in-bfloat16",
        "a second moment in bfloat16",
        "L5",
        (in_impl(_SECOND, f"{_SECOND}\n    second = F.rounded(second, 8)"),),
    ),
    Fault(
        "losses-added-in-float16",
        "training losses that are added up in float16",
        "L5",
        (
            in_impl(
                "self.xp.astype(means, self.xp.float64)",
                "self.xp.astype(self.xp.astype(means, self.xp.float16), self.xp.float64)",
            ),
        ),
    ),
    Fault(
        "load-keeps-moments",
        "a load that leaves Adam's moments as they are",
        "L5",
        (
            in_impl(
                "moments = moments or Moments(0, zeros, zeros)",
                'old = getattr(self, "moments", Moments(0, zeros, zeros))\n'
                "        moments = moments or Moments(0, old.first, old.second)",
            ),
        ),
    ),
    Fault(
        "load-ignores-step",
        "a load that leaves the number of the step at zero",
        "L5",
        (in_impl("self.moments = Moments(moments.step, self._own", "self.moments = Moments(0, self._own"),),
    ),
    Fault(
        "load-ignores-second-moment",
        "a load that leaves the second moment at zero",
        "L5",
        (in_impl("self._own(moments.second)", "self._own(zeros)"),),
    ),
    Fault(
        "load-ignores-biases",
        "a load that leaves the biases at zero",
        "L1",
        (
            in_impl(
                "self.weights = self._own(weights)",
                'self.weights = self._own({name: 0 * w if name.endswith(".b") else w for name, w in weights.items()})',
            ),
        ),
    ),
    Fault(
        "compile-trains",
        "a compilation that leaves a step of training behind",
        "L6",
        (
            in_impl(
                "        self.batch = batch\n",
                "        self.batch = batch\n        self.train(EpochPlan.blank(self.model, batch))\n",
            ),
        ),
    ),
    Fault(
        "compile-forgets-moments",
        "a compilation that leaves Adam without its moments",
        "L6",
        (in_impl("        self.batch = batch\n", "        self.batch = batch\n        self.load(self.weights)\n"),),
    ),
    Fault("dump-shares-memory", "dumped weights that change as training goes on", "L5", ()),
)
