"""The variants that a diagnosis searches: the default is the specification; each has the gradient of its function."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from harness.parity.diagnosis import variant_net as net
from harness.parity.diagnosis.variant import CHOICES, LENGTH_EPSILONS, SPECIFIED, SQUASH_EPSILONS, Variant
from harness.parity.diagnosis.words import conventions_of, faults_of
from harness.parity.probe import probe_weights
from harness.spec import ModelSpec, OptimSpec, Runtime, Weights
from impls.numpy import NumpyImpl
from tests.helpers.impl_helpers import batch_of, small_model

PAPER = small_model(routing=3)
OFFICIAL = PAPER.model_copy(update={"profile": "official"})
OF_OFFICIAL = [("primary_scale", "after"), ("primary_scale", "missing"), ("digit_bias", "last"), ("digit_bias", "missing"),
               ("margin_classes", "sum")]  # fmt: skip
GRADIENTS = ("detached", "reconstruction_detached")  # which are to be wrong
SINGLE = [(name, value) for name, values in CHOICES.items() for value in values]
EPSILONS = [
    *(("squash_epsilon", each) for each in SQUASH_EPSILONS if each.value in (0.0, 1e-3, 1e-7)),
    *(("length_epsilon", each) for each in LENGTH_EPSILONS if each.value in (0.0, 1e-3, 1e-7)),
]


def probe(model: ModelSpec) -> Weights:
    """Capsules of all lengths, so that every term of every loss is at work."""
    weights = {name: w.astype(np.float64) for name, w in probe_weights(model, 0).items()}
    return {**weights, "digit.w": 20 * weights["digit.w"]}


@pytest.mark.parametrize("decoder", [True, False])
@pytest.mark.parametrize("model", [PAPER, OFFICIAL], ids=["paper", "official"])
def test_the_default_is_the_specification(model: ModelSpec, decoder: bool) -> None:
    model = model.model_copy(update={"decoder": decoder})
    images, labels = batch_of(model, 5)
    weights = probe(model)
    impl = NumpyImpl(model, OptimSpec(), Runtime(precision="fp64"))
    impl.load(weights)
    outputs, (loss, grads) = impl.forward(images), impl.loss_and_grads(images, labels)
    other = NumpyImpl(model, OptimSpec(), Runtime(precision="fp64"))
    other.net = net.VariantNet(SPECIFIED)
    other.load(weights)
    found, (own_loss, own_grads) = other.forward(images), other.loss_and_grads(images, labels)
    for name in ("digit", "lengths", "coupling", "reconstruction"):
        if getattr(outputs, name) is None:
            assert getattr(found, name) is None
        else:
            np.testing.assert_allclose(getattr(found, name), getattr(outputs, name), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(list(vars(own_loss).values()), list(vars(loss).values()), rtol=1e-10)
    assert own_grads.keys() == grads.keys()
    for name, grad in grads.items():
        np.testing.assert_allclose(own_grads[name], grad, rtol=1e-10, atol=1e-12 * np.abs(grad).max())


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, value in [*SINGLE, *EPSILONS] if name not in GRADIENTS], ids=str
)
def test_a_gradient_is_that_of_its_own_forward(name: str, value: Any) -> None:
    """Central differences along a random direction."""
    model = OFFICIAL if (name, value) in OF_OFFICIAL else PAPER
    variant = replace(SPECIFIED, **{name: value})
    images, labels = batch_of(model, 3)
    weights = probe(model)
    generator = np.random.default_rng(1)
    direction = {key: generator.standard_normal(w.shape) for key, w in weights.items()}
    _, grads = net.loss_and_grads(variant, model, weights, images, labels)
    step = 1e-6 if name != "pixels" else 1e-8
    ahead, behind = (
        net.loss_and_grads(
            variant, model, {key: w + sign * step * direction[key] for key, w in weights.items()}, images, labels
        )[0].total
        for sign in (1, -1)
    )
    expected = sum(float((grads[key] * direction[key]).sum()) for key in weights)
    assert (ahead - behind) / 2 / step == pytest.approx(expected, rel=2e-4, abs=1e-7)


@pytest.mark.parametrize(("name", "value"), SINGLE, ids=str)
def test_every_choice_has_a_name_and_shows(name: str, value: Any) -> None:
    """It is said to be one fault, and some output, loss or gradient is another."""
    model = OFFICIAL if (name, value) in OF_OFFICIAL else PAPER
    variant = replace(SPECIFIED, **{name: value})
    assert len(faults_of(variant, model)) == 1
    assert not conventions_of(variant).named()
    images, labels = batch_of(model, 3)
    weights = probe(model)
    both = []
    for each in (SPECIFIED, variant):
        impl = NumpyImpl(model, OptimSpec(), Runtime(precision="fp64"))
        impl.net = net.VariantNet(each)
        impl.load(weights)
        loss, grads = impl.loss_and_grads(images, labels)
        both.append([*vars(impl.forward(images)).values(), *vars(loss).values(), *grads.values()])
    assert any(np.abs(np.subtract(a, b)).max() > 1e-9 for a, b in zip(*both, strict=True))


def test_the_choices_are_those_of_the_fields() -> None:
    names = {field.name for field in fields(Variant)}
    assert CHOICES.keys() | {"squash_epsilon", "length_epsilon", "reconstruction_weight"} == names
    assert not any(getattr(SPECIFIED, name) in values for name, values in CHOICES.items())
