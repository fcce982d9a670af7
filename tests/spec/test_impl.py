"""The interface: model arithmetic, weight table, initial weights, epoch plans."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pytest
from pydantic import ValidationError

from harness.spec import DecoderOptim, EpochPlan, LrDecay, ModelSpec, OptimSpec, batched
from harness.spec.plans import plan_digest, plan_epoch
from harness.suite.suite import load_suite
from harness.weights import digest, initial_weights, parameter_count, weight_table

Profile = Literal["paper", "official"]
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("profile", "decoder", "parameters"),
    [
        ("paper", False, 6_804_224),
        ("paper", True, 8_215_568),
        ("official", False, 6_804_384),
        ("official", True, 8_215_728),
    ],
)
def test_mnist_model_has_the_published_number_of_parameters(profile: Profile, decoder: bool, parameters: int) -> None:
    assert parameter_count(ModelSpec(image=(28, 28, 1), classes=10, profile=profile, decoder=decoder)) == parameters


def test_profile_official_is_the_released_code() -> None:
    def properties(model: ModelSpec) -> tuple[object, ...]:
        return model.primary_scale, model.digit_bias, model.margin_scale, model.evaluation_mask

    suite = load_suite(str(ROOT / "suites/mnist.yaml"), ["model.profile=official"])
    model = ModelSpec(image=(28, 28, 1), classes=10, **suite.model.model_dump())
    assert properties(model) == (1 / 32, True, 1 / 20, "label")
    assert properties(model.model_copy(update={"profile": "paper"})) == (1, False, 1, "longest")
    weights = initial_weights(model, 0)
    assert {name for name, w in weights.items() if (w == np.float32(0.1)).all()} == {"primary.b", "digit.b"}
    assert weights["digit.b"].shape == (10, 16)


@pytest.mark.parametrize(("side", "capsules"), [(28, 1152), (36, 3200), (40, 4608)])
def test_primary_capsules_by_image_size(side: int, capsules: int) -> None:
    assert ModelSpec(image=(side, side, 1), classes=10).primary_capsules == capsules


def test_an_image_too_small_for_the_convolutions_is_refused() -> None:
    ModelSpec(image=(17, 17, 1), classes=10)
    with pytest.raises(ValidationError, match=r"16x17 are too small .* at least 17x17"):
        ModelSpec(image=(16, 17, 1), classes=10)


def test_learning_rate_decays_every_step_down_to_its_floor() -> None:
    optim = OptimSpec(lr=0.001, lr_decay=LrDecay(rate=0.96, steps=2000))
    assert optim.lr_at(0) == 0.001
    assert optim.lr_at(1) == pytest.approx(0.001 * 0.96 ** (1 / 2000), rel=1e-12)
    assert optim.lr_at(2000) == pytest.approx(0.00096, rel=1e-12)
    assert optim.lr_at(10**6) == 1e-6


def test_kinds_of_learning_rate_decay() -> None:
    staircase, epoch = (
        OptimSpec(lr=0.1, lr_decay=LrDecay(kind=kind, rate=0.5, steps=3)) for kind in ("staircase", "epoch")
    )
    assert [staircase.lr_at(step) for step in (0, 2, 3, 5, 6)] == [0.1, 0.1, 0.05, 0.05, 0.025]
    assert [epoch.lr_at(step) for step in range(9)] == [staircase.lr_at(step) for step in range(9)]
    assert staircase.lr_at(300) == 1e-6
    constant = OptimSpec(lr=1e-7, lr_decay=LrDecay(kind="constant"))
    assert [constant.lr_at(step) for step in (0, 10**6)] == [1e-7, 1e-7]  # below the floor of a decaying one


def test_the_decoder_s_own_settings() -> None:
    optim = OptimSpec(lr=0.0003, weight_decay=1e-4, decoder=DecoderOptim(lr=0.001, weight_decay=0.0))
    assert optim.lr_at(0) * optim.lr_scale("dec2.w") == pytest.approx(0.001, rel=1e-12)
    assert (optim.lr_scale("digit.w"), optim.lr_scale("conv1.b")) == (1.0, 1.0)
    assert (optim.weight_decay_of("digit.w"), optim.weight_decay_of("dec1.b")) == (1e-4, 0.0)
    shared = OptimSpec(weight_decay=1e-4)
    assert (shared.lr_scale("dec1.w"), shared.weight_decay_of("dec1.w")) == (1.0, 1e-4)


@pytest.mark.parametrize("profile", get_args(Profile))
def test_initial_weights_follow_the_table(profile: Profile) -> None:
    model = ModelSpec(image=(28, 28, 1), classes=10, profile=profile, conv_channels=64)
    weights = initial_weights(model, seed=0)
    assert list(weights) == [row.name for row in weight_table(model)]
    for row in weight_table(model):
        value = weights[row.name]
        assert value.shape == row.shape
        assert value.dtype == np.float32
        if not row.sigma:
            assert (value == np.float32(row.start)).all()
        else:
            assert np.abs(value).max() <= 2 * row.sigma  # truncated at two sigmas
            assert value.std() == pytest.approx(0.8796 * row.sigma, rel=0.02)  # sd of a normal truncated at two sigmas


def test_initial_weights_depend_on_seed_and_name_only() -> None:
    model = ModelSpec(image=(28, 28, 1), classes=10, conv_channels=8, primary_types=2)
    without_decoder = model.model_copy(update={"decoder": False})
    assert digest(initial_weights(model, 1)) == digest(initial_weights(model, 1))
    assert digest(initial_weights(model, 1)) != digest(initial_weights(model, 2))
    shared = initial_weights(without_decoder, 1)
    assert digest(shared) == digest({name: initial_weights(model, 1)[name] for name in shared})


def test_initial_weights_are_the_same_on_every_machine() -> None:
    model = ModelSpec(image=(17, 17, 1), classes=2, conv_channels=2, primary_types=1, primary_dim=2, decoder=False)
    assert digest(initial_weights(model, 7)) == "19afe5aa8ffd73f8f25523b992e9a7a298ce1e0876e3cc635b3540ad2a1f7b3d"


def test_digest_sees_names_shapes_and_values() -> None:
    a = np.arange(6, dtype=np.float32)
    digests = {digest(w) for w in ({"a": a}, {"b": a}, {"a": a.reshape(2, 3)}, {"a": -a}, {"a": a, "b": a})}
    assert len(digests) == 5
    assert digest({"a": a, "b": -a}) == digest({"b": -a, "a": a.astype(np.float64)})


def test_epoch_plan_is_a_permutation_with_bounded_shifts() -> None:
    plan = plan_epoch(seed=3, epoch=1, examples=1000, batch=128, shift=2)
    assert sorted(plan.order) == list(range(1000))
    assert set(np.unique(plan.shifts)) == {-2, -1, 0, 1, 2}
    assert not plan_epoch(seed=3, epoch=1, examples=10, batch=4, shift=0).shifts.any()


def test_epoch_plans_differ_by_epoch_and_seed_and_repeat() -> None:
    def key(seed: int, epoch: int) -> str:
        return plan_digest(plan_epoch(seed, epoch, 100, 32, 2))

    assert key(0, 1) == key(0, 1)
    assert len({key(0, 1), key(0, 2), key(1, 1), key(1, 2)}) == 4


def test_plan_steps_fill_the_last_batch_at_weight_zero() -> None:
    plan = EpochPlan(np.array([4, 2, 0, 1, 3], np.int32), np.ones((5, 2), np.int8), batch=2)
    order, shifts, weight = plan.steps()
    assert order.tolist() == [[4, 2], [0, 1], [3, 0]]
    assert weight.tolist() == [[1, 1], [1, 1], [1, 0]]
    assert shifts.shape == (3, 2, 2)
    assert batched(np.arange(4), 2).tolist() == [[0, 1], [2, 3]]
