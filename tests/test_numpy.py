"""The specification's own proof: its derivatives against finite differences, its layers against the paper's words."""

from __future__ import annotations

import numpy as np
import pytest

from harness.spec import OptimSpec
from harness.weights import initial_weights
from impls.numpy import layers as F
from impls.numpy.impl import adam, shift_images
from tests.impl_helpers import batch_of, loaded, small_model


@pytest.mark.parametrize("routing", [1, 2, 3, 5])
@pytest.mark.parametrize("decoder", [True, False])
def test_gradients_agree_with_central_differences(routing: int, decoder: bool) -> None:
    model = small_model(routing=routing, decoder=decoder)
    generator = np.random.default_rng(1)
    weights = {
        name: 3 * w.astype(np.float64) + 0.05 * generator.standard_normal(w.shape)
        for name, w in initial_weights(model, 0).items()
    }
    images, labels = batch_of(model, 3)
    impl = loaded("numpy", model, weights)
    _, grads = impl.loss_and_grads(images, labels)

    def loss(name: str, step: np.ndarray) -> float:
        impl.load({**weights, name: weights[name] + step})
        return impl.loss_and_grads(images, labels)[0].total

    for name, w in weights.items():
        # along the gradient itself the difference quotient is best conditioned; the random part sees the rest
        toward = grads[name] / np.linalg.norm(grads[name])
        direction = toward + 0.3 * generator.standard_normal(w.shape) / np.sqrt(w.size)
        # conv1 has thousands of ReLUs near their kink; elsewhere a larger step keeps rounding small
        h = 1e-6 if name.startswith("conv1") else 1e-4
        near, far = (loss(name, k * h * direction) - loss(name, -k * h * direction) for k in (1, 2))
        found = (8 * near - far) / (12 * h)  # fourth order
        assert found == pytest.approx(float((grads[name] * direction).sum()), rel=1e-7), name


def test_squash_keeps_direction_and_maps_length() -> None:
    s = np.array([[3.0, 4.0], [0.0, 0.0], [1e-12, 0.0], [3e8, 4e8]])
    v = F.squash(s)
    assert v[0] == pytest.approx(25 / 26 * np.array([0.6, 0.8]))
    assert (v[1] == 0).all()
    assert np.isfinite(v).all()
    assert np.linalg.norm(v[3]) == pytest.approx(1)
    assert np.isfinite(F.squash_vjp(s, np.ones_like(s))).all()
    assert F.lengths(np.zeros((1, 3))) == pytest.approx(np.sqrt(1e-9))


def test_routing_by_hand() -> None:
    """Two inputs that agree on output 0 and oppose each other on output 1, followed by hand for two iterations."""
    u_hat = np.zeros((1, 2, 2, 1))
    u_hat[0, 0, :, 0], u_hat[0, 1, :, 0] = 2.0, (2.0, -2.0)
    (c1, s1, v1), (c2, s2, _) = F.route(u_hat, 2)
    assert c1 == pytest.approx(0.5)
    assert s1[0, :, 0] == pytest.approx([2.0, 0.0])
    assert v1[0, 0, 0] == pytest.approx(4 / 5)
    expected = 1 / (1 + np.exp(-2 * 0.8))  # logits 1.6 and 0: softmax over the outputs
    assert c2[0, 0] == pytest.approx(expected)
    assert s2[0, 0, 0] == pytest.approx(2 * expected * 2)


def test_shift_moves_down_and_right_and_fills_with_zero() -> None:
    image = np.arange(1, 10, dtype=np.uint8).reshape(1, 3, 3, 1)
    moved = shift_images(image, np.array([[1, -2]], np.int8))[0, :, :, 0]
    assert moved.tolist() == [[0, 0, 0], [3, 0, 0], [6, 0, 0]]


def test_adam_first_step_is_the_learning_rate() -> None:
    """Bias-corrected, the first step is lr * g / (|g| + epsilon): Keras's epsilon-hat would give a third of it at 1e-8."""
    optim = OptimSpec()
    zero = np.zeros(2)
    w, _, _ = adam(zero, np.array([0.5, 1e-8]), zero, zero, 1, optim.lr_at(0))
    assert w == pytest.approx([-0.001, -0.0005], rel=1e-6)
