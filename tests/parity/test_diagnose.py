"""A fault is recognised by its effect: the diagnosis names it, and names nothing if it knows nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from harness import registry
from harness.parity import Ladder
from harness.parity.diagnosis.diagnose import diagnose, suspects
from harness.parity.faults.capsnet import FAULTS, Fault
from harness.parity.faults.mutate import Edit, discard, mutant
from harness.spec import Loss, ModelSpec, OptimSpec, Outputs, Runtime, Weights
from tests.helpers.impl_helpers import THREADS, batch_of
from tests.mutants import EDITS
from tests.parity.test_mutants import DECAYING, IMAGES, PAPER, STEPS, setting

SAYS = {fault.name: fault.says for fault in FAULTS}
# What fails L1 raises or has other shapes: its message says what is wrong, and there is nothing to compare.
COMPARABLE = [fault for fault in FAULTS if fault.level > "L1"]


def edits(*faults: str, name: str = "numpy") -> tuple[Edit, ...]:
    return tuple(edit for fault in faults for edit in EDITS[name][fault])


def climbed(
    edits: Sequence[Edit],
    model: ModelSpec = PAPER,
    optim: OptimSpec = DECAYING,
    level: str = "L6",
    name: str = "numpy",
    precision: str = "fp64",
    wrap: Any = lambda impl: impl,
) -> Ladder:
    entry = registry.resolve(name)
    copy = mutant(entry.module, edits)
    discard(copy)
    runtime = Runtime.model_validate({"precision": precision, "compile": False, "threads": THREADS})
    impl = wrap(getattr(copy, entry.class_name)(model, optim, runtime))
    ladder = Ladder(impl, model, optim, runtime, *batch_of(model, IMAGES), steps=STEPS)
    with np.errstate(all="ignore"):  # of what faults compute
        ladder.climb(level)
    return ladder


@pytest.mark.parametrize("fault", COMPARABLE, ids=lambda fault: fault.name)
def test_a_fault_is_named(fault: Fault) -> None:
    level = "L6" if fault.level in ("L5", "L6") else "L4"
    (said,) = suspects(climbed(fault.edits, *setting(fault), level))
    assert fault.says in said.split(" or ")
    assert fault.name in ALIKE or said == fault.says


# In a step by itself they are the same: the rate is that of step 0.
ALIKE = ("no-decay", "decay-per-epoch")


# The backward pass of its output capsules is written by hand, and these edits do not reach it.
OF_FORWARD_ALONE = ("one-iteration-more", "squash-wrong-axis", "squash-to-unit-length", "squash-without-epsilon")


@pytest.mark.parametrize(
    "fault",
    [fault for fault in COMPARABLE if fault.level in ("L2", "L3", "L4") and fault.name not in OF_FORWARD_ALONE],
    ids=lambda fault: fault.name,
)
def test_a_fault_of_another_framework_is_explained_with_its_gradient(fault: Fault) -> None:
    """There the gradient is that of the faulty forward, as in any network that people write."""
    found = diagnose(climbed(edits(fault.name, name="torch"), *setting(fault), "L4", name="torch"))
    assert (found.suspects, found.unexplained) == ((fault.says,), ())


@pytest.mark.parametrize(
    "fault", ["softmax-over-inputs", "mask-missing", "detached-iterations", "no-bias-correction", "last-batch-dropped"]
)
def test_a_fault_of_another_framework_is_named_in_float32(fault: str) -> None:
    """Its rounding is not the specification's, and it trains as its own automatic gradient says."""
    ladder = climbed(edits(fault, name="torch"), name="torch", precision="fp32")
    assert suspects(ladder) == (SAYS[fault],)


@pytest.mark.parametrize("precision", ["fp64", "fp32"])
def test_nothing_is_suspected_of_what_is_right(precision: str) -> None:
    assert suspects(climbed((), precision=precision)) == ()


@pytest.mark.parametrize(
    ("edit", "level"),
    [
        (Edit("layers.py", "return 0.5 * (1 + array", "return 0.49 * (1 + array"), "L3"),
        (Edit("layers.py", "logits = logits + _agreement(u_hat, v)", "logits = logits + 0.9 * _agreement(u_hat, v)"), "L2"),
        (Edit("models/capsnet.py", "F.relu(MARGIN_PLUS - lengths) ** 2", "F.relu(0.85 - lengths) ** 2"), "L3"),
        (Edit("models/capsnet.py", "grad = grad * pixels * (1 - pixels)", "grad = 1.01 * grad * pixels * (1 - pixels)"), "L4"),
        (Edit("impl.py", "self.optim.lr_at(self.moments.step)", "1.01 * self.optim.lr_at(self.moments.step)"), "L5"),
        (Edit("impl.py", "first = ADAM_BETA1 * first", "first = 0.8 * first"), "L5"),
        (Edit("impl.py", "EvalTotals(Loss(*(to_numpy(total) /", "EvalTotals(Loss(*(1.01 * to_numpy(total) /"), "L6"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("precision", ["fp64", "fp32"])
def test_a_fault_that_nobody_knows_gets_no_name(edit: Edit, level: str, precision: str) -> None:
    ladder = climbed([edit], precision=precision)
    assert ladder.report("numpy").failed_level == level
    assert suspects(ladder) == ()


@pytest.mark.parametrize(
    "faults",
    [
        ("softmax-over-inputs", "reconstruction-mean"),
        ("spatial-grouping", "epsilon-1e-7"),
        ("detached-iterations", "shift-reversed", "evaluation-mask-by-label"),
    ],
)
def test_faults_on_several_levels_are_named_together(faults: tuple[str, ...]) -> None:
    assert suspects(climbed(edits(*faults))) == tuple(SAYS[fault] for fault in faults)


def test_what_lies_above_a_network_s_fault_is_found_with_its_own_gradient() -> None:
    """It is trained as a variant of the specification, in which training is then at fault."""
    faults = ("detached-iterations", "evaluation-mask-by-label")
    found = diagnose(climbed(edits(*faults, name="torch"), name="torch"))
    assert (found.suspects, found.unexplained) == (tuple(SAYS[fault] for fault in faults), ())


def test_what_is_known_is_named_below_what_is_not() -> None:
    unknown = Edit("impl.py", "first = ADAM_BETA1 * first", "first = 0.91 * first")
    assert suspects(climbed([*edits("lambda-dropped"), unknown])) == (SAYS["lambda-dropped"],)


def test_all_that_cannot_be_told_apart_are_named() -> None:
    """With two iterations, one too few is a return in the first. A step that is the first of its epoch has both rates."""
    two = PAPER.model_copy(update={"routing": 2})
    (said,) = suspects(climbed(edits("early-return"), two))
    assert set(said.split(" or ")) == {SAYS["early-return"], SAYS["one-iteration-fewer"]}
    (said,) = suspects(climbed(edits("decay-per-epoch"), level="L5"))
    assert set(said.split(" or ")) == {SAYS["no-decay"], SAYS["decay-per-epoch"]}


class Adapter:
    """What can be climbed up to L4."""

    def __init__(self, impl: Any) -> None:
        self.impl = impl

    def load(self, weights: Weights) -> None:
        self.impl.load(weights)

    def forward(self, images: np.ndarray) -> Outputs:
        return self.impl.forward(images)

    def loss_and_grads(self, images: np.ndarray, labels: np.ndarray) -> tuple[Loss, Weights]:
        return self.impl.loss_and_grads(images, labels)


@pytest.mark.parametrize("fault", ["squash-without-epsilon", "margins-swapped", "reconstruction-detached"])
def test_an_adapter_that_cannot_train_is_diagnosed_as_far_as_it_climbs(fault: str) -> None:
    ladder = climbed(edits(fault), wrap=Adapter)
    assert ladder.skipped.keys() == {"L5", "L6"}
    assert suspects(ladder) == (SAYS[fault],)
