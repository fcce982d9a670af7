"""Images that show several digits: how they are made, and that every implementation computes the same from them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import data
from harness.data import multimnist
from harness.data.base import Info, Split
from harness.data.divide import select
from harness.data.overlay import composite, overlaid
from harness.errors import UserError
from harness.parity import probe_weights
from harness.parity.diagnosis.diagnose import suspects
from harness.parity.faults.capsnet import Fault
from harness.parity.faults.overlay import OVERLAY_FAULTS
from harness.spec import EpochPlan, ModelSpec, is_right
from harness.spec.plans import overlays, plan_digest, plan_epoch
from harness.spec.trial import DataConfig
from harness.suite.suite import load_suite
from harness.views.figures.classes import class_rows, confusion
from harness.views.figures.overlaid import aligned
from harness.weights import initial_weights, parameter_count
from harness.worker.training import run_trial
from impls.numpy.models.cnn import max_pool, max_pool_vjp
from tests.helpers.data_helpers import FEW, Few
from tests.helpers.impl_helpers import FRAMEWORKS, batch_of, loaded, small_model
from tests.mutants.overlay import EDITS
from tests.parity.test_diagnose import climbed
from tests.parity.test_mutants import DECAYING, climb

SUITE = Path(__file__).parents[2] / "suites" / "multimnist.yaml"
TWO = small_model((8, 9, 1), kernel=3, overlaid=2)
CNN: dict[str, Any] = {"cnn_channels": (5, 4), "cnn_kernel": (3, 2), "cnn_pool": 2, "cnn_units": (9,), "dropout": 0.3}
POOLED = ModelSpec(kind="cnn", image=(9, 7, 2), classes=4, **CNN)
POOLED_TWO = POOLED.model_copy(update={"overlaid": 2})


# --- which digits


def test_overlaid_digits_are_of_different_classes_and_all_of_those_as_likely() -> None:
    generator = np.random.default_rng(0)
    labels = np.array([0, 0, 0, 1, 2, 2])
    found = np.concatenate([overlays(labels, generator.random((6, 1))) for _ in range(2000)]).reshape(-1, 6, 2)
    assert (found[:, :, 0] == np.arange(6)).all()
    for first in range(6):
        others = np.bincount(found[:, first, 1], minlength=6)
        allowed = labels != labels[first]
        assert not others[~allowed].any()
        assert others[allowed] == pytest.approx(2000 / allowed.sum(), rel=0.15)


def test_three_digits_can_be_overlaid_too() -> None:
    labels = np.arange(40) % 4
    found = labels[overlays(labels, np.random.default_rng(0).random((40, 2)))]
    assert all(len(set(row)) == 3 for row in found.tolist())


def test_digits_of_one_class_cannot_be_overlaid() -> None:
    with pytest.raises(ValueError, match="of 3 images, none is of another class"):
        overlays(np.ones(3, np.int64), np.zeros((3, 1)))


def test_a_plan_shows_each_digit_once_as_the_first_and_moves_each_by_itself() -> None:
    labels = np.arange(300) % 10
    plan = plan_epoch(1, 2, 300, 64, 4, TWO, labels)
    assert plan.order.shape == (300, 2)
    assert plan.shifts.shape == (300, 2, 2)
    assert sorted(plan.order[:, 0]) == list(range(300))
    assert (labels[plan.order[:, 0]] != labels[plan.order[:, 1]]).all()
    assert (np.abs(plan.shifts).max((0, 1)) == 4).all()
    assert (plan.shifts[:, 0] != plan.shifts[:, 1]).any()
    other = plan_epoch(1, 3, 300, 64, 4, TWO, labels)
    partners = [dict(each.order.tolist()) for each in (plan, other)]
    assert sum(partners[0][first] == partners[1][first] for first in range(300)) < 30  # anew each epoch
    assert plan_digest(plan) == plan_digest(plan_epoch(1, 2, 300, 64, 4, TWO, labels))
    assert [part.shape for part in plan.steps()] == [(5, 64, 2), (5, 64, 2, 2), (5, 64)]


def test_a_plan_of_single_digits_is_what_it_was() -> None:
    plan = plan_epoch(1, 2, 10, 4, 2)
    assert plan_digest(plan) == plan_digest(plan_epoch(1, 2, 10, 4, 2, small_model(), np.arange(10) % 4))
    assert EpochPlan.blank(TWO, 3).order.shape == (3, 2)


# --- the data set

PAIRS = replace(FEW, name="pairs", train=9, validation=3, overlaid=2, shift=2, apart="pairs of their own")


def test_validation_and_test_pairs_are_drawn_once_from_digits_of_their_own() -> None:
    training, test = Few().read(Path())
    whole = select(PAIRS, DataConfig(name="pairs"), training, test)
    assert whole.train.images.shape == (9, 28, 28, 1)
    assert whole.validation.images.shape == (3, 2, 28, 28, 1)
    assert whole.test.labels.shape == (4, 2)
    assert (whole.test.labels[:, 0] != whole.test.labels[:, 1]).all()
    again = select(PAIRS, DataConfig(name="pairs", train=5, test=2), training, test)
    rows = [whole.test.images.tolist().index(image) for image in again.test.images.tolist()]
    assert len(set(rows)) == 2  # a smaller set lies within the larger one
    assert (whole.test.labels[rows] == again.test.labels).all()


def test_a_part_s_overlays_are_made_of_its_own_digits() -> None:
    training, test = (multimnist.framed(part) for part in Few().read(Path()))
    whole = select(replace(PAIRS, image=(36, 36, 1)), DataConfig(name="pairs"), training, test)

    def ink(images: np.ndarray) -> set[tuple[int, ...]]:
        """Of each digit its grey values: no shift changes them."""
        return {tuple(sorted(image[image > 0].tolist())) for image in images.reshape(-1, 36, 36)}

    for part, digits in ((whole.validation, training.images[-3:]), (whole.test, test.images)):
        assert ink(part.images) == ink(digits)
    assert not ink(whole.train.images) & ink(whole.validation.images)


def test_images_to_train_on_of_one_class_are_refused() -> None:
    training, test = Few().read(Path())
    with pytest.raises(UserError, match=r"data.train: the 1 images asked for are of too few classes to overlay 2"):
        select(PAIRS, DataConfig(name="pairs", train=1), training, test)


def test_each_digit_is_moved_by_a_shift_of_its_own() -> None:
    images = np.zeros((40, 9, 9, 1), np.uint8)
    images[:, 4, 4] = 200
    info = Info("x", (9, 9, 1), 2, 30, 5, 5, True, "s", "l", "c", overlaid=2, shift=2)
    found = overlaid(info, Split(images, np.arange(40) % 2), 0)
    places = np.argwhere(found.images[..., 0] == 200)
    assert len(places) == 80  # one a digit: nothing is lost, nothing added
    moved = places[:, 2:].reshape(40, 2, 2) - 4
    assert set(moved.ravel().tolist()) == {-2, -1, 0, 1, 2}
    assert (moved[:, 0] != moved[:, 1]).any()


def test_a_composite_is_clipped_at_white() -> None:
    digits = np.array([200, 100, 55, 0, 255, 255], np.uint8).reshape(3, 2, 1, 1, 1)
    assert composite(digits).ravel().tolist() == [255, 55, 255]


def test_multimnist_is_described_as_the_paper_has_it() -> None:
    info = data.info("multimnist")
    assert (info.image, info.overlaid, info.shift) == ((36, 36, 1), 2, 4)
    assert data.sizes(DataConfig(name="multimnist")) == (50_000, 10_000, 10_000)
    with pytest.raises(UserError, match=r"an image of mnist-expanded shows 1 digit\(s\), one of multimnist 2"):
        data.sizes(DataConfig(name="multimnist", test_from="mnist-expanded"))


def test_multimnist_frames_the_digits(tmp_path: Path) -> None:
    training, _ = multimnist.Overlaid(data.info("multimnist"), Few()).read(tmp_path)
    assert training.images.shape == (12, 36, 36, 1)
    assert (training.images[:, 4:32, 4:32] == Few().read(tmp_path)[0].images).all()
    assert int(training.images.sum()) == int(Few().read(tmp_path)[0].images.sum())


# --- the models


def test_the_papers_models_have_their_numbers_of_parameters() -> None:
    trials = load_suite(SUITE).trials(0, lambda _: {})
    counts = {(trial.model.kind, parameter_count(trial.model)) for trial in trials}
    assert counts == {("capsnet", 11_361_808), ("cnn", 24_563_978)}
    assert {trial.model.overlaid for trial in trials} == {2}


def test_kernels_are_one_for_all_convolutions_or_one_for_each() -> None:
    assert POOLED.cnn_kernels == (3, 2)
    assert POOLED.cnn_grids == ((9, 7), (4, 3), (2, 1))
    with pytest.raises(ValueError, match=r"model.cnn_kernel: 3 kernels, but model.cnn_channels has 2 convolutions"):
        ModelSpec(kind="cnn", image=(9, 9, 1), classes=4, **(CNN | {"cnn_kernel": (3, 2, 3)}))
    with pytest.raises(ValueError, match="too small to be pooled 2 times by 4"):
        ModelSpec(kind="cnn", image=(9, 9, 1), classes=4, **(CNN | {"cnn_pool": 4}))


def test_a_suite_says_what_is_wrong_with_kernels(tmp_path: Path) -> None:
    for kernel, message in (
        ("[9]", r"s.yaml:3: model.cnn_kernel: 1 kernels, but"),
        ("x", r"s.yaml:3: model.cnn_kernel: found"),
        ("[0, 1]", "expected a whole number of at least 1 or a list of 1 to 9"),
    ):
        suite = tmp_path / "s.yaml"
        suite.write_text(
            f"name: x\ndata: {{name: digits}}\nmodel: {{kind: cnn, cnn_channels: [4, 4], cnn_kernel: {kernel}}}\n"
            "grid: {impl: [numpy]}\n"
        )
        with pytest.raises(UserError, match=message):
            load_suite(suite)


def test_max_pooling_takes_the_first_of_equals_and_leaves_out_what_is_incomplete() -> None:
    x = np.array([[1.0, 3, 9], [3, 2, 9], [9, 9, 9]]).reshape(1, 3, 3, 1)
    assert max_pool(x, 2).ravel().tolist() == [3]
    assert max_pool_vjp(x, 2, np.full((1, 1, 1, 1), 5.0))[0, ..., 0].tolist() == [[0, 5, 0], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("model", [TWO, POOLED_TWO, POOLED], ids=["capsnet", "cnn", "cnn of one digit"])
def test_the_specifications_gradients_are_those_of_its_loss(model: ModelSpec) -> None:
    weights = {name: w.astype(np.float64) for name, w in probe_weights(model, 0).items()}
    generator = np.random.default_rng(0)
    images = np.stack([batch_of(model, 3, seed)[0] for seed in range(model.overlaid)], axis=1)
    images, labels = images.reshape(3, *model.several, *model.image), np.array([[0, 1], [2, 3], [3, 0]])
    labels = labels[:, : model.overlaid].reshape(3, *model.several)
    impl = loaded("numpy", model, weights)
    _, grads = impl.loss_and_grads(images, labels)

    def loss_at(name: str, index: tuple[int, ...], by: float) -> float:
        moved = weights[name].copy()
        moved[index] += by
        impl.load(weights | {name: moved})
        return impl.loss_and_grads(images, labels)[0].total

    for name, w in weights.items():
        index = tuple(int(generator.integers(side)) for side in w.shape)
        slope = (loss_at(name, index, 1e-6) - loss_at(name, index, -1e-6)) / 2e-6
        assert slope == pytest.approx(grads[name][index], rel=1e-4, abs=1e-4 * float(np.abs(grads[name]).max())), name


@pytest.mark.parametrize("name", FRAMEWORKS)
@pytest.mark.parametrize("model", [TWO, POOLED_TWO, POOLED], ids=["capsnet", "cnn", "cnn of one digit"])
def test_every_framework_reaches_the_top_with_several_digits(name: str, model: ModelSpec) -> None:
    report = climb(name, (), model, DECAYING, "L6", "fp32")
    assert report.ok, report.worst
    levels = {"L1", "L2", "L3", "L4", "L5", "L6"} - ({"L2"} if model.kind == "cnn" else set())
    assert report.level_errors().keys() == levels


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("fault", OVERLAY_FAULTS, ids=lambda fault: fault.name)
def test_a_fault_of_overlays_is_found(name: str, fault: Fault) -> None:
    report = climb(name, EDITS[name][fault.name], TWO, DECAYING, fault.level, "fp32")
    assert report.failed_level == fault.level, report.worst


@pytest.mark.parametrize(
    ("model", "fault"),
    [(model, fault) for model in (TWO, POOLED_TWO) for fault in OVERLAY_FAULTS if fault.applies(model)],
    ids=lambda each: each.name if isinstance(each, Fault) else each.kind,
)
def test_a_fault_of_overlays_is_named(model: ModelSpec, fault: Fault) -> None:
    ladder = climbed(fault.edits, model, level="L6" if fault.level == "L5" else "L4")
    assert fault.says in suspects(ladder)


def test_a_fault_of_overlays_is_none_of_single_digits() -> None:
    assert not any(fault.applies(small_model()) for fault in OVERLAY_FAULTS)
    assert not any(fault.applies(POOLED) for fault in OVERLAY_FAULTS)


@pytest.mark.parametrize("name", ["numpy", *FRAMEWORKS])
def test_predictions_are_the_longest_capsules_in_their_order(name: str) -> None:
    impl = loaded(name, TWO, initial_weights(TWO, 3), precision="fp32")
    images = np.stack([batch_of(TWO, 5, seed)[0] for seed in range(2)], axis=1)
    impl.stage(images[:, 0], np.zeros(5, np.int64))
    impl.compile(4)
    found, outputs = impl.evaluate(images, np.array([[0, 1]] * 5)), impl.forward(images)
    assert found.predicted.shape == (5, 2)
    assert found.predicted.tolist() == np.argsort(-outputs.lengths, axis=1, kind="stable")[:, :2].tolist()
    assert outputs.reconstruction is not None
    assert outputs.reconstruction.shape == (5, 2, 8, 9, 1)
    swapped = impl.forward(images[:, ::-1].copy())  # the sum is the same
    assert swapped.lengths == pytest.approx(outputs.lengths, abs=1e-6)


# --- the bench


def test_right_is_an_image_all_of_whose_digits_were_found() -> None:
    predicted, labels = np.array([[1, 2], [2, 1], [1, 3], [3, 0]]), np.array([[1, 2], [1, 2], [1, 2], [1, 2]])
    assert is_right(predicted, labels).tolist() == [True, True, False, False]
    assert is_right(np.array([1, 2]), np.array([1, 0])).tolist() == [True, False]


def test_confusion_counts_digits() -> None:
    labels, predicted = np.array([[0, 1], [0, 1], [2, 0]]), np.array([[1, 0], [2, 0], [1, 3]])
    matrix = confusion(labels, predicted, 4)
    assert matrix.tolist() == [[2, 0, 0, 1], [0, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert [row.support for row in class_rows(matrix)] == [3, 2, 1, 0]


def test_predicted_digits_are_shown_in_the_places_of_their_labels() -> None:
    labels, predicted = np.array([[0, 1], [0, 1], [0, 1]]), np.array([[1, 0], [1, 3], [4, 5]])
    assert aligned(labels, predicted).tolist() == [[0, 1], [3, 1], [4, 5]]


SOURCE = data.source("digits")


class PairsOfDigits:
    """scikit-learn's digits, two in an image."""

    @property
    def info(self) -> Info:
        return replace(SOURCE.info, overlaid=2, shift=2, apart="pairs of their own")

    def ensure(self, directory: Path, *, progress: bool) -> None:
        pass

    def read(self, directory: Path) -> tuple[Split, Split]:
        return SOURCE.read(directory)


def test_a_trial_from_its_gate_to_its_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.data.digits.SOURCE", PairsOfDigits())
    suite = tmp_path / "s.yaml"
    suite.write_text(
        "name: pairs\ndata: {name: digits, train: 96, validation: 20, test: 30}\n"
        "model: {conv_channels: 4, primary_types: 2, primary_dim: 4, digit_dim: 4, decoder_units: [8, 8]}\n"
        "train: {epochs: 2, batch: 32, lr: 0.01}\nmeasure: {routing_logits: 8}\ngrid: {impl: [numpy]}\n"
    )
    [trial] = load_suite(suite).trials(0, lambda _: {})
    events: list[dict[str, Any]] = []
    run_trial(trial, lambda event: events.append(event.to_json()), tmp_path)
    parity, _, first, second, result = events
    assert parity["ok"], parity["worst"]
    assert second["train_loss"] < first["train_loss"]
    assert len(second["routing_logit_change"]) == 3
    assert 0 <= result["test_err_pct"] <= 100
    assert json.dumps(events)
