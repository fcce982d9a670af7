"""How an implementation may differ and still be right: epsilons of any value in any place, and how they are set."""

from __future__ import annotations

import numpy as np
import pytest

from harness.errors import UserError
from harness.parity.probe import probe_weights
from harness.spec import OptimSpec, Runtime
from harness.spec.conventions import PLACES, Conventions, Epsilon, accepted
from impls.numpy import NumpyImpl
from tests.helpers.impl_helpers import batch_of, small_model

MODEL = small_model(routing=2)
IMAGES, LABELS = batch_of(MODEL, 2)
SETTINGS = [
    *(f"squash_epsilon={value}@{place}" for place in PLACES["squash_epsilon"] for value in ("1e-2", "1e-7")),
    *(f"length_epsilon={value}@{place}" for place in PLACES["length_epsilon"] for value in ("1e-2", "1e-7")),
    "squash_epsilon=0",
    "length_epsilon=0",
]


def specification(conventions: Conventions, weights: dict[str, np.ndarray]) -> NumpyImpl:
    impl = NumpyImpl(MODEL, OptimSpec(), Runtime(precision="fp64"), conventions=conventions)
    impl.load(weights)
    return impl


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_place_of_an_epsilon_has_the_gradient_of_its_forward(setting: str) -> None:
    """Central differences along a random direction, where capsules are short enough to feel an epsilon."""
    weights = {name: w.astype(np.float64) for name, w in probe_weights(MODEL, 0).items()}
    weights = {name: 0.3 * w if name.startswith("primary") else w for name, w in weights.items()}
    generator = np.random.default_rng(0)
    direction = {name: generator.standard_normal(w.shape) for name, w in weights.items()}
    conventions = accepted([setting])
    _, grads = specification(conventions, weights).loss_and_grads(IMAGES, LABELS)
    step = 1e-6
    ahead, behind = (
        specification(conventions, {name: w + sign * step * direction[name] for name, w in weights.items()})
        .loss_and_grads(IMAGES, LABELS)[0]
        .total
        for sign in (1, -1)
    )
    expected = sum(float((grads[name] * direction[name]).sum()) for name in weights)
    assert (ahead - behind) / 2 / step == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_place_of_an_epsilon_is_finite_at_zero(setting: str) -> None:
    weights = {name: 0 * w if name.startswith("primary") else w for name, w in probe_weights(MODEL, 0).items()}
    impl = specification(accepted([setting]), weights)
    assert np.isfinite(impl.forward(IMAGES).lengths).all()
    assert all(np.isfinite(grad).all() for grad in impl.loss_and_grads(IMAGES, LABELS)[1].values())


def test_the_specification_is_the_default() -> None:
    assert accepted([]) == Conventions() == accepted(["squash_epsilon=1e-9", "length_epsilon=1e-9@inside"])
    assert Conventions().named() == Conventions().said() == ()


def test_a_convention_is_said_as_it_is_accepted() -> None:
    found = accepted(["squash_epsilon=1e-7@outside", "length_epsilon=0"])
    assert found == accepted(found.named())
    assert found.named() == ("squash_epsilon=1e-7@outside", "length_epsilon=0")
    assert found.said() == ("squash adds 1e-7 outside the root", "the length of a capsule has no epsilon")
    assert accepted(["squash_epsilon=0.00001"]).named() == ("squash_epsilon=1e-5",)
    assert Epsilon(1e-12, "square").value == 1e-12


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("squash_epsilon", 'found "squash_epsilon", expected KEY=VALUE'),
        ("squash_epsilom=1e-7", 'unknown convention "squash_epsilom"; did you mean "squash_epsilon"'),
        ("squash_epsilon=small", 'squash_epsilon: found "small", expected a number'),
        ("squash_epsilon=-1", "expected a number from 0"),
        ("squash_epsilon=nan", "expected a number from 0"),
        ("squash_epsilon=1e-7@outsid", 'unknown place "outsid"; did you mean "outside"'),
        ("length_epsilon=1e-7@product", 'unknown place "product"'),
    ],
)
def test_what_is_no_convention_is_refused(setting: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        accepted([setting])
