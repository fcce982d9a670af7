"""Three frameworks against the specification, in float64: any difference beyond rounding is a fault."""

from __future__ import annotations

import numpy as np
import pytest

from harness.parity import probe_weights, relative_error
from harness.spec import Impl, LrDecay, ModelSpec, Moments
from harness.spec.plans import plan_epoch
from harness.weights import digest, initial_weights
from tests.helpers.impl_helpers import FRAMEWORKS, batch_of, build, loaded, small_model

pytestmark = pytest.mark.parametrize("name", FRAMEWORKS)
both_profiles = pytest.mark.parametrize("profile", ["paper", "official"])

FORWARD, GRADIENT, TRAJECTORY = 1e-9, 1e-8, 1e-7  # largest accepted relative errors


def assert_agrees(name: str, model: ModelSpec, count: int) -> None:
    """Forward outputs, losses and every gradient of one batch."""
    weights = probe_weights(model, 0)
    images, labels = batch_of(model, count)
    impl, spec = loaded(name, model, weights), loaded("numpy", model, weights)
    found, expected = impl.forward(images), spec.forward(images)
    for field in ("digit", "lengths", "coupling", "reconstruction"):
        assert relative_error(getattr(found, field), getattr(expected, field)) < FORWARD, field
    assert found.coupling.sum(2) == pytest.approx(1)
    (loss, grads), (expected_loss, expected_grads) = (i.loss_and_grads(images, labels) for i in (impl, spec))
    for field in ("total", "margin", "reconstruction"):
        assert relative_error(getattr(loss, field), getattr(expected_loss, field)) < FORWARD, field
    assert list(expected_grads) == list(weights)
    for tensor, grad in expected_grads.items():
        assert relative_error(grads[tensor], grad) < GRADIENT, tensor


@pytest.mark.parametrize(
    ("profile", "image"),
    [("paper", (28, 28, 1)), ("paper", (40, 40, 1)), ("official", (36, 36, 1)), ("official", (19, 24, 3))],
)
def test_image_sizes_and_channels(name: str, profile: str, image: tuple[int, int, int]) -> None:
    assert_agrees(name, small_model(image=image, profile=profile, kernel=9), count=3)


@pytest.mark.parametrize("classes", [2, 200])
def test_few_and_many_classes_of_pictures_that_are_not_square(name: str, classes: int) -> None:
    assert_agrees(name, small_model(image=(13, 21, 3), classes=classes), count=3)


@pytest.mark.parametrize(("routing", "count"), [(1, 7), (3, 1)])
@pytest.mark.parametrize("decoder", [True, False])
@both_profiles
def test_profiles_with_and_without_decoder(name: str, profile: str, decoder: bool, routing: int, count: int) -> None:
    assert_agrees(name, small_model(profile=profile, decoder=decoder, routing=routing), count)


def test_gradient_is_finite_at_zero(name: str) -> None:
    """Blank images and zero biases make every capsule exactly zero."""
    model = small_model()
    images, labels = np.zeros((2, *model.image), np.uint8), np.zeros(2, np.int64)
    loss, grads = loaded(name, model, initial_weights(model, 0)).loss_and_grads(images, labels)
    assert np.isfinite(loss.total)
    assert all(np.isfinite(grad).all() for grad in grads.values())


def trained(impl: Impl, model: ModelSpec, epochs: int, compile_for: int = 4) -> Impl:
    """Epochs of 10 images in batches of 4, so that the last batch is a part; shifts of up to 3 pixels."""
    images, labels = batch_of(model, 12)
    impl.stage(images, labels)
    impl.compile(compile_for)
    for epoch in range(1, epochs + 1):
        impl.train(plan_epoch(seed=5, epoch=epoch, examples=10, batch=4, shift=3))
    return impl


OPTIM = {"lr": 0.002, "lr_decay": LrDecay(rate=0.5, steps=4, floor=1e-4)}


@both_profiles
def test_training_follows_the_specification(name: str, profile: str) -> None:
    model = small_model(profile=profile)
    weights = initial_weights(model, 0)
    impl, spec = (trained(loaded(n, model, weights, **OPTIM), model, 0) for n in (name, "numpy"))
    for epoch in range(1, 4):
        plan = plan_epoch(seed=5, epoch=epoch, examples=10, batch=4, shift=3)
        found, expected = impl.train(plan), spec.train(plan)
        assert found.count == 10
        assert found.correct == expected.correct
        for field in ("total", "margin", "reconstruction"):
            assert relative_error(getattr(found.loss, field), getattr(expected.loss, field)) < TRAJECTORY
    found_moments, moments = impl.dump_moments(), spec.dump_moments()
    assert found_moments.step == moments.step == 9
    for tensor, value in spec.dump().items():
        assert relative_error(impl.dump()[tensor] - weights[tensor], value - weights[tensor]) < 1e-5, tensor
        assert relative_error(found_moments.first[tensor], moments.first[tensor]) < 1e-5, tensor
        assert relative_error(found_moments.second[tensor], moments.second[tensor]) < 1e-5, tensor


@both_profiles
def test_evaluation_agrees_whatever_the_batch(name: str, profile: str) -> None:
    model = small_model(profile=profile)
    images, labels = batch_of(model, 11)
    impl, spec = (loaded(n, model, probe_weights(model, 1)) for n in (name, "numpy"))
    for each, batch in ((impl, 4), (spec, 11)):
        each.stage(images, labels)
        each.compile(batch)
    found, expected = impl.evaluate(images, labels), spec.evaluate(images, labels)
    # in training, the decoder sees the label's capsule: here rarely the longest
    in_training, _ = spec.loss_and_grads(images, labels)
    mask_error = relative_error(expected.loss.reconstruction, in_training.reconstruction)
    assert mask_error < FORWARD if model.evaluation_mask == "label" else mask_error > 1000 * FORWARD
    assert found.predicted.tolist() == expected.predicted.tolist()
    for field in ("total", "margin", "reconstruction"):
        assert relative_error(getattr(found.loss, field), getattr(expected.loss, field)) < FORWARD


def test_compile_changes_nothing(name: str) -> None:
    model = small_model()
    weights = initial_weights(model, 0)
    impl = trained(loaded(name, model, weights), model, epochs=0)
    assert digest(impl.dump()) == digest(weights)
    assert impl.dump_moments().step == 0
    assert not any(moment.any() for moment in impl.dump_moments().first.values())


def test_training_goes_on_from_dumped_state_exactly(name: str) -> None:
    model = small_model()
    straight = trained(loaded(name, model, initial_weights(model, 0), **OPTIM), model, epochs=2)
    half = trained(loaded(name, model, initial_weights(model, 0), **OPTIM), model, epochs=1)
    resumed = build(name, model, **OPTIM)
    resumed.load(half.dump(), half.dump_moments())
    trained(resumed, model, epochs=0)
    resumed.train(plan_epoch(seed=5, epoch=2, examples=10, batch=4, shift=3))
    assert all((resumed.dump()[tensor] == value).all() for tensor, value in straight.dump().items())


def test_load_without_moments_is_a_fresh_start(name: str) -> None:
    model = small_model()
    weights = initial_weights(model, 0)
    impl = trained(loaded(name, model, weights), model, epochs=1)
    impl.load(weights)
    moments: Moments = impl.dump_moments()
    assert moments.step == 0
    assert not any(m.any() for part in (moments.first, moments.second) for m in part.values())
    assert digest(impl.dump()) == digest(weights)
