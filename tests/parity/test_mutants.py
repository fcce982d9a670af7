"""The ladder finds every fault in every implementation, on the level that the fault names."""

from __future__ import annotations

import math

import pytest

from harness import registry
from harness.parity import Check, Ladder, Report
from harness.parity.faults.capsnet import FAULTS, Fault
from harness.parity.faults.mutate import Edit, discard, mutant
from harness.spec import LrDecay, ModelSpec, OptimSpec, Runtime
from tests.helpers.impl_helpers import THREADS, batch_of, small_model
from tests.mutants import EDITS, NOT_WRITTEN

# Three images, and about the smallest model at which every fault shows: some capsules of absent classes are longer than m-,
# and the learning rate makes them longer within the steps of the trajectory. Widths are equal where they can be: JAX
# compiles every primitive once for each shape, which is most of what this file takes.
PAPER = small_model(
    (8, 9, 1), kernel=3, conv_channels=48, primary_types=8, primary_dim=6, digit_dim=8, classes=6, routing=3
).model_copy(update={"decoder_units": (48, 48)})
OFFICIAL = PAPER.model_copy(update={"profile": "official"})
IMAGES, STEPS = 3, 3
# At the thousandth step the learning rate has visibly decayed, amid a stair, and not down to its floor; or it has.
DECAYING = OptimSpec(lr=0.01, lr_decay=LrDecay(rate=0.5, steps=400, floor=1e-6))
AT_THE_FLOOR = OptimSpec(lr=0.01, lr_decay=LrDecay(rate=0.5, steps=100, floor=1e-3))


def setting(fault: Fault) -> tuple[ModelSpec, OptimSpec]:
    """The model and the optimiser at which a fault shows."""
    model = PAPER if fault.applies(PAPER) else OFFICIAL
    return model, AT_THE_FLOOR if fault.name == "decay-without-floor" else DECAYING


def climb(
    name: str, edits: tuple[Edit, ...], model: ModelSpec, optim: OptimSpec, level: str, precision: str = "fp64"
) -> Report:
    """An exception is a check that failed, on the level on which it was raised."""
    entry = registry.resolve(name)
    copy = mutant(entry.module, edits)
    # Eager: JAX has compiled its primitives after the first mutant. What cannot be computed at all is told by tracing.
    # One climb alone, in another precision, is sooner compiled.
    compiled = level == "L1" or (name == "jax" and precision != "fp64")
    runtime = Runtime.model_validate({"precision": precision, "compile": compiled, "threads": THREADS})
    ladder = Ladder(
        getattr(copy, entry.class_name)(model, optim, runtime),
        model,
        optim,
        runtime,
        *batch_of(model, IMAGES),
        steps=STEPS,
    )
    try:
        ladder.climb(level)
    except Exception as error:
        ladder.checks.append(Check(ladder.level, "exception", math.inf, 1.0, note=str(error)))
    finally:
        discard(copy)
    return ladder.report(name)


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize(("model", "optim"), [(PAPER, DECAYING), (OFFICIAL, DECAYING)])
def test_what_is_right_reaches_the_top(name: str, model: ModelSpec, optim: OptimSpec) -> None:
    report = climb(name, (), model, optim, "L6")
    assert report.ok, report.worst
    assert report.level_errors().keys() == {"L1", "L2", "L3", "L4", "L5", "L6"}


@pytest.mark.parametrize("name", EDITS)
def test_what_is_right_has_the_learning_rate_of_its_floor(name: str) -> None:
    report = climb(name, (), PAPER, AT_THE_FLOOR, "L5")
    assert report.ok, report.worst


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_mutant_is_killed_on_the_level_of_its_fault(name: str, fault: Fault) -> None:
    if fault.name in NOT_WRITTEN.get(name, {}):
        pytest.skip(NOT_WRITTEN[name][fault.name])
    report = climb(name, EDITS[name][fault.name], *setting(fault), fault.level)
    assert report.failed_level == fault.level, report.worst


@pytest.mark.parametrize(
    ("name", "exact", "plain"),
    [
        ("tf", "return -tf.math.expm1(step * math.log(beta))", "return 1 - beta**step"),
        ("jax", "return -jnp.expm1(step * math.log(beta))", "return 1 - beta**step"),
    ],
)
def test_bias_correction_in_float32_is_found(name: str, exact: str, plain: str) -> None:
    """As Keras and optax have it: a fault of precision, which no climb in float64 can show."""
    report = climb(name, (Edit("optim.py", exact, plain),), PAPER, DECAYING, "L5", "fp32")
    assert report.failed_level == "L5"
    assert all(check.name.startswith("update.") for check in report.checks if not check.ok)


@pytest.mark.parametrize("name", EDITS)
def test_every_fault_is_written_in_every_framework(name: str) -> None:
    written, left_out = EDITS[name].keys(), NOT_WRITTEN.get(name, {}).keys()
    assert written | left_out == {fault.name for fault in FAULTS}
    assert not written & left_out


def test_an_edit_that_does_not_fit_the_source_is_refused() -> None:
    with pytest.raises(ValueError, match=r"occurs 0 times in layers\.py, expected once"):
        mutant("impls.numpy", (Edit("layers.py", "no such text", ""),))
    with pytest.raises(ValueError, match=r'no file "nowhere\.py" to edit: it has __init__\.py, .*impl\.py'):
        mutant("impls.numpy", (Edit("nowhere.py", "", ""),))
