"""The specification's own proof: its derivatives against finite differences, its layers against the paper's text.

It also needs nothing specific to NumPy: `array_api_strict` has the array API standard and nothing else.
"""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import array_api_compat
import array_api_strict
import numpy as np
import pytest

from harness.spec import ModelSpec, Moments, OptimSpec, Runtime, Weights
from harness.spec.plans import plan_epoch
from harness.weights import initial_weights
from impls.numpy import NumpyImpl
from impls.numpy import impl as numpy_impl
from impls.numpy import layers as F
from impls.numpy.impl import adam, shift_images
from impls.numpy.models import capsnet
from tests.conftest import ROOT
from tests.helpers.impl_helpers import batch_of, build, loaded, one_digit, small_model

PROFILES = ("paper", "official")
DEVICE = array_api_strict.Device("device1")  # its arrays cannot become NumPy's by accident, as a GPU's cannot

# Of the difference quotients below: 1e-4, but short where thousands of ReLUs are near their kink, long where the
# gradient is small beside the loss's rounding.
STEPS = {"conv1.w": 1e-6, "conv1.b": 1e-6, "dec1.w": 1e-3, "dec2.w": 1e-3, "dec3.w": 1e-3}


def lively_weights(spec: ModelSpec) -> Weights:
    """Large enough for the routing to decide something; no bias is zero."""
    generator = np.random.default_rng(1)
    return {
        name: 3 * w.astype(np.float64) + 0.05 * generator.standard_normal(w.shape)
        for name, w in initial_weights(spec, 0).items()
    }


@pytest.mark.parametrize("routing", [1, 3, 10])
@pytest.mark.parametrize(
    "settings",
    [
        *({"profile": profile, "decoder": decoder} for profile in PROFILES for decoder in (True, False)),
        {"none_of_the_above": True, "decoder": False},
    ],
    ids=str,
)
def test_gradients_agree_with_central_differences(settings: dict[str, Any], routing: int) -> None:
    """Along random directions, whose derivative is a sample of standard deviation |gradient|: the scale of the error."""
    spec = small_model(routing=routing, **settings)
    weights, generator = lively_weights(spec), np.random.default_rng(2)
    pixels, labels = one_digit(*batch_of(spec, 3))
    grads = capsnet.backward(spec, weights, capsnet.forward(spec, weights, pixels), labels)
    assert list(grads) == list(weights)

    def loss(name: str, step: np.ndarray) -> float:
        moved = {**weights, name: weights[name] + step}
        return capsnet.losses(spec, moved, capsnet.forward(spec, moved, pixels), labels, labels).total

    for name, w in weights.items():
        norm = np.linalg.norm(grads[name])
        assert norm > 1e-5, name
        for _ in range(3):
            direction = generator.standard_normal(w.shape)
            h = STEPS.get(name, 1e-4) / np.linalg.norm(direction)
            near, far = (loss(name, k * h * direction) - loss(name, -k * h * direction) for k in (1, 2))
            found = (8 * near - far) / (12 * h)  # fourth order
            assert abs(found - float((grads[name] * direction).sum())) < 1e-7 * norm, name


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_squash_keeps_direction_and_maps_length(dtype: type[np.floating]) -> None:
    s = np.array([[3.0, 4.0], [0.0, 0.0], [1e-12, 0.0], [3e8, 4e8], [3e18, -4e18]], dtype)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        v, back = F.squash(s), F.squash_vjp(s, np.ones_like(s))
    assert v.dtype == back.dtype == dtype
    assert v[0] == pytest.approx(25 / 26 * np.array([0.6, 0.8]), rel=1e-6)
    assert (v[1] == 0).all()
    assert v[2] == pytest.approx([1e-36 / np.sqrt(1e-9), 0], rel=1e-6, abs=0)
    assert v[3:] == pytest.approx(np.array([[0.6, 0.8], [0.6, -0.8]]))
    assert (back[1] == 0).all()
    # far out only the direction can change: what is left of (1, 1) is its part across s, shortened by |s|
    assert back[3] == pytest.approx([0.16 / 5e8, -0.12 / 5e8], rel=1e-5, abs=0)
    assert np.isfinite(back).all()
    assert F.lengths(np.zeros((1, 3), dtype)) == pytest.approx(np.sqrt(1e-9))


def test_squash_derivative_agrees_with_central_differences() -> None:
    generator = np.random.default_rng(0)
    for length in (1e-6, 1e-4, 1e-2, 1.0, 30.0, 1e4):
        s, grad, direction = generator.standard_normal((3, 50, 4))
        s *= length / np.linalg.norm(s, axis=1, keepdims=True)
        h = 1e-3 * length
        near, far = (
            ((F.squash(s + k * h * direction) - F.squash(s - k * h * direction)) * grad).sum(1) for k in (1, 2)
        )
        expected = (F.squash_vjp(s, grad) * direction).sum(1)
        assert (8 * near - far) / (12 * h) == pytest.approx(expected, rel=0, abs=1e-7 * np.abs(expected).max()), length


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


def test_bias_is_added_in_every_iteration_of_routing() -> None:
    """Votes of zero leave s = bias in every iteration, and no agreement: the couplings stay even."""
    bias = np.array([[0.3, 0.4], [0.0, -2.0]])
    for coupling, s, v in F.route(np.zeros((1, 2, 3, 2)), 3, bias):
        assert coupling == pytest.approx(0.5)
        assert s[0] == pytest.approx(bias)
        assert v[0] == pytest.approx(F.squash(bias))
    _, (c2, _, _) = F.route(np.ones((1, 2, 3, 2)), 2, bias)
    agreement = F.squash(np.ones(2) * 1.5 + bias).sum(1)  # u_hat . v, without the bias itself
    assert c2[0, :, 0] == pytest.approx(np.exp(agreement) / np.exp(agreement).sum())


def test_profile_official_by_hand() -> None:
    """Where the two profiles have the same outputs, one has its margin loss over twice the classes."""
    paper, official = (small_model(profile=profile) for profile in PROFILES)
    weights = lively_weights(official)
    images, labels = batch_of(official, 5)
    scaled = {**weights, "primary.w": weights["primary.w"] / official.primary_types}
    scaled = {name: w for name, w in scaled.items() if name != "digit.b"}
    found = loaded("numpy", official, {**weights, "digit.b": 0 * weights["digit.b"]})
    expected = loaded("numpy", paper, scaled)
    assert found.forward(images).digit == pytest.approx(expected.forward(images).digit, rel=1e-12)
    (loss, grads), (paper_loss, paper_grads) = (each.loss_and_grads(images, labels) for each in (found, expected))
    assert loss.margin is not None
    assert loss.reconstruction is not None
    assert paper_loss.margin is not None
    assert loss.margin == pytest.approx(paper_loss.margin / (2 * official.classes))
    assert loss.reconstruction == pytest.approx(paper_loss.reconstruction)
    assert loss.total == pytest.approx(loss.margin + 0.0005 * loss.reconstruction)
    assert grads["dec3.w"] == pytest.approx(paper_grads["dec3.w"])
    assert np.abs(grads["digit.b"]).max() > 0


@pytest.mark.parametrize("profile", PROFILES)
def test_evaluation_masks_with_the_profiles_capsule(profile: str) -> None:
    spec = small_model(profile=profile)
    images, labels = batch_of(spec, 12)
    impl = loaded("numpy", spec, lively_weights(spec))
    impl.compile(5)
    found = impl.evaluate(images, labels)
    assert 0 < (found.predicted == labels).sum() < len(labels)
    mask = labels if profile == "official" else found.predicted
    shown = impl.loss_and_grads(images, mask)[0].reconstruction  # in training the decoder sees what is called the label
    assert found.loss.reconstruction == pytest.approx(shown)
    assert shown != pytest.approx(impl.loss_and_grads(images, (mask + 1) % spec.classes)[0].reconstruction)


def on_device(arrays: Weights) -> dict[str, Any]:
    return {name: array_api_strict.asarray(array, device=DEVICE) for name, array in arrays.items()}


def off_device(array: Any) -> np.ndarray:
    return np.asarray(array.to_device(array_api_strict.Device("CPU_DEVICE")))


@pytest.mark.parametrize("profile", PROFILES)
def test_model_needs_only_the_array_api(profile: str) -> None:
    """Forward, losses, backward and one step of Adam on the arrays of another library, on another device."""
    spec = small_model(profile=profile)
    weights, (pixels, labels) = lively_weights(spec), one_digit(*batch_of(spec, 3))
    given = on_device({"images": pixels, "labels": labels})
    strict_weights = on_device(weights)

    acts = capsnet.forward(spec, weights, pixels)
    strict_acts = capsnet.forward(spec, strict_weights, given["images"])
    for (coupling, s, v), found in zip(acts.routing, strict_acts.routing, strict=True):
        assert off_device(found[0]) == pytest.approx(coupling, rel=1e-13)
        assert off_device(found[1]) == pytest.approx(s, rel=1e-13)
        assert off_device(found[2]) == pytest.approx(v, rel=1e-13)
    loss = capsnet.losses(spec, strict_weights, strict_acts, given["labels"], given["labels"])
    assert loss.total == pytest.approx(capsnet.losses(spec, weights, acts, labels, labels).total, rel=1e-13)

    grads = capsnet.backward(spec, weights, acts, labels)
    strict_grads = capsnet.backward(spec, strict_weights, strict_acts, given["labels"])
    assert list(strict_grads) == list(grads)
    for name, w in weights.items():
        assert off_device(strict_grads[name]) == pytest.approx(grads[name], rel=1e-12, abs=1e-16), name
        moments = np.full(w.shape, 0.1), np.full(w.shape, 0.01)
        state = on_device(dict(zip(("w", "first", "second"), (w, *moments), strict=True)))
        stepped = adam(state["w"], strict_grads[name], state["first"], state["second"], 7, 0.001)
        for found, expected in zip(stepped, adam(w, grads[name], *moments, 7, 0.001), strict=True):
            assert off_device(found) == pytest.approx(expected, rel=1e-12), name


@pytest.mark.parametrize("precision", ["fp64", "fp32"])
@pytest.mark.parametrize("profile", PROFILES)
def test_implementation_needs_only_the_array_api(profile: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From images to a trained model, and NumPy arrays of the right precision at the border."""
    spec = small_model(profile=profile)
    (images, labels), weights = batch_of(spec, 11), lively_weights(spec)
    expected = trained(build("numpy", spec, precision), images, labels, weights)
    monkeypatch.setattr(numpy_impl, "namespace", lambda device: array_api_strict)
    found = trained(build("numpy", spec, precision), images, labels, weights)
    tolerance = 1e-12 if precision == "fp64" else 1e-4
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert type(found[name]) is np.ndarray
        assert found[name].dtype == value.dtype
        assert np.abs(found[name] - value).max() <= tolerance * np.abs(value).max(), name


def trained(impl: Any, images: np.ndarray, labels: np.ndarray, weights: Weights) -> dict[str, np.ndarray]:
    """All that comes out of an implementation: before, during and after an epoch of whole and part batches."""
    impl.load(weights, Moments(3, weights, {name: w**2 for name, w in weights.items()}))
    impl.stage(images, labels)
    impl.compile(4)
    dtype = impl.dump()["conv1.w"].dtype
    outputs = impl.forward(images)
    loss, grads = impl.loss_and_grads(images, labels)
    totals = impl.train(plan_epoch(seed=5, epoch=1, examples=11, batch=4, shift=2))
    evaluated, moments = impl.evaluate(images, labels), impl.dump_moments()
    floats = {f"grads.{name}": array for name, array in grads.items()}
    for part, arrays in (("w", impl.dump()), ("first", moments.first), ("second", moments.second)):
        floats |= {f"{part}.{name}": array for name, array in arrays.items()}
    floats |= vars(outputs)
    assert all(array.dtype == dtype for array in floats.values())
    losses = [value for each in (loss, totals.loss, evaluated.loss) for value in vars(each).values()]
    assert all(type(value) is float for value in losses)
    assert type(totals.correct) is int
    counts = np.array([totals.count, totals.correct, moments.step])
    return {**floats, "losses": np.array(losses), "counts": counts, "predicted": evaluated.predicted}


def test_no_gpu_without_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.delitem(sys.modules, "array_api_compat.cupy", raising=False)
    with pytest.raises(ImportError, match=r"computes with CuPy.*install cupy-cuda13x.*or set resources.gpus=0"):
        NumpyImpl(small_model(), OptimSpec(), Runtime(device="gpu"))


def test_no_gpu_for_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    class CUDARuntimeError(RuntimeError):
        pass

    def count() -> int:
        raise CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")

    runtime = SimpleNamespace(CUDARuntimeError=CUDARuntimeError, getDeviceCount=count)
    cupy = SimpleNamespace(cuda=SimpleNamespace(runtime=runtime))
    monkeypatch.setitem(sys.modules, "array_api_compat.cupy", cupy)
    monkeypatch.setattr(array_api_compat, "cupy", cupy, raising=False)
    with pytest.raises(RuntimeError, match=r"finds no GPU \(cudaErrorNoDevice.*or set resources.gpus=0"):
        NumpyImpl(small_model(), OptimSpec(), Runtime(device="gpu"))


def test_cupy_is_imported_for_a_gpu_alone() -> None:
    code = "import sys, impls.numpy.impl as impl; impl.namespace('cpu'); print('cupy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"


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
