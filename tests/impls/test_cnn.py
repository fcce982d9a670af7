"""The baseline CNN: its size, its settings, its dropout, and that every implementation computes the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import array_api_strict
import numpy as np
import pytest

from harness.analysis.labels import run_name
from harness.cost.estimate import estimate_s
from harness.cost.fit import TimedTrial, fit
from harness.cost.memory import largest_batch, least_bytes, step_bytes
from harness.cost.operations import forward_flops, products, step_flops
from harness.errors import UserError
from harness.parity import relative_error
from harness.parity.diagnosis.diagnose import suspects
from harness.parity.faults.cnn import CNN_FAULTS
from harness.parity.faults.mutate import Edit
from harness.spec import EpochPlan, LrDecay, ModelSpec, OptimSpec, Truncated, Weights
from harness.spec.plans import plan_digest, plan_epoch
from harness.spec.trial import Trial
from harness.suite.suite import load_suite
from harness.views.mlflow.trials import params
from harness.weights import initial_weights, parameter_count, weight_table
from harness.worker.training import run_trial
from impls.numpy.models import cnn
from tests.helpers.impl_helpers import FRAMEWORKS, batch_of, loaded, one_digit
from tests.mutants.cnn import EDITS, OWN
from tests.parity.test_diagnose import climbed
from tests.parity.test_mutants import climb

QUICKSTART = Path(__file__).parents[2] / "suites" / "quickstart.yaml"
PAPER = ModelSpec(kind="cnn", image=(28, 28, 1), classes=10)
OPTIM = OptimSpec(lr=0.01, lr_decay=LrDecay(rate=0.5, steps=400, floor=1e-6))


def small_cnn(**changes: Any) -> ModelSpec:
    sizes: dict[str, Any] = {"cnn_channels": (5, 4, 3), "cnn_units": (12, 10), "cnn_kernel": 3, "dropout": 0.3}
    return ModelSpec(kind="cnn", **({"image": (8, 7, 2), "classes": 4} | sizes | changes))


SMALL = small_cnn()
POOLED = small_cnn(cnn_channels=(5, 4), cnn_kernel=(3, 2), cnn_pool=2, cnn_units=(12,), overlaid=2)


def test_the_papers_baseline_has_its_number_of_parameters() -> None:
    assert parameter_count(PAPER) == 35_445_522


def test_weights_start_with_the_variance_that_the_table_says() -> None:
    model = small_cnn(cnn_channels=(40, 50, 30), cnn_units=(60, 50), classes=40)
    weights = initial_weights(model, 0)
    assert [row.name for row in weight_table(model)] == list(weights)
    for name, w in weights.items():
        if name.endswith(".b"):
            assert not w.any()
        else:
            fan_in = np.prod(w.shape[:-1])
            assert w.std() == pytest.approx(np.sqrt((1 if name == "fc3.w" else 2) / fan_in), rel=0.05)


def test_settings_of_a_capsnet_are_no_part_of_a_cnn() -> None:
    capsnet = ModelSpec(image=(28, 28, 1), classes=10, cnn_units=(7, 7), dropout=0.1)
    assert not {"cnn_units", "dropout"} & capsnet.model_dump().keys()
    assert capsnet == ModelSpec(image=(28, 28, 1), classes=10)
    model = small_cnn(routing=7, decoder=True)
    assert model == SMALL
    assert not model.decoder
    assert model.model_dump().keys() == {
        "kind", "image", "classes", "overlaid", "cnn_channels", "cnn_kernel", "cnn_pool", "cnn_units", "dropout",
    }  # fmt: skip
    assert ModelSpec.model_validate_json(model.model_dump_json()) == model


def test_an_image_may_be_smaller_than_the_kernel() -> None:
    assert parameter_count(ModelSpec(kind="cnn", image=(3, 4, 1), classes=2)) > 0


# --- suites

SUITE = "name: x\ndata: {name: digits}\ngrid: {impl: [numpy]}\n"


def trials(folder: Path, text: str, *overrides: str) -> tuple[Trial, ...]:
    path = folder / "x.yaml"
    path.write_text(text)
    return load_suite(path, overrides).trials(0, lambda _: {})


@pytest.mark.parametrize(
    ("model", "overrides", "said"),
    [
        ("{kind: cnnn}", (), ['x.yaml:4: model.kind: found "cnnn"', 'did you mean "cnn"?']),
        ("{kind: cnn, routing: 3}", (), ['x.yaml:4: model.routing: kind "cnn" has no such setting', "cnn_channels, "]),
        ("{kind: cnn, decoder: true}", (), ["model.decoder: ", "drop it, or set model.kind to capsnet"]),
        ("{cnn_units: [9, 9]}", (), ['model.cnn_units: kind "capsnet" has no such', "set model.kind to cnn"]),
        ("{kind: capsnet, dropout: 0.1}", (), ['model.dropout: kind "capsnet" has no such setting']),
        ("{kind: cnn}", ("model.routing=1,3",), ["-s model.routing=1,3: model.routing: "]),
        ("{}", ("model.kind=cnn", "model.profile=paper"), ["-s model.profile=paper: model.profile: "]),
        ("{kind: cnn, dropout: 1.0}", (), ["model.dropout: found 1.0, expected a number of at least 0 and below 1"]),
    ],
)
def test_settings_that_mean_nothing_to_the_kind_are_refused(
    tmp_path: Path, model: str, overrides: tuple[str, ...], said: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        trials(tmp_path, f"{SUITE}model: {model}\n", *overrides)
    [line] = str(caught.value).splitlines()
    assert all(each in line for each in said), line


@pytest.mark.parametrize(
    ("model", "overrides"),
    [
        ("{routing: 2, decoder: false}", ["model.kind=cnn"]),
        ("{kind: capsnet, routing: 2}", ["model.kind=cnn"]),
        ("{routing: 2, dropout: 0.2}", ["model.kind=cnn"]),
        ("{routing: 2, dropout: 0.2}", []),
    ],
)
def test_a_suite_may_hold_settings_for_the_kind_that_is_asked_for_elsewhere(
    tmp_path: Path, model: str, overrides: list[str]
) -> None:
    [trial] = trials(tmp_path, f"{SUITE}model: {model}\n", *overrides)
    assert trial.model.kind == ("cnn" if overrides else "capsnet")
    dropout = 0.2 if "dropout" in model else 0.5
    assert trial.model.model_dump().get("dropout") == (dropout if overrides else None)


def test_a_grid_of_kinds_has_the_cnn_once(tmp_path: Path) -> None:
    text = (
        "name: x\ndata: {name: digits}\nmodel: {dropout: 0.2}\n"
        "grid: {impl: [numpy], model.kind: [capsnet, cnn], model.routing: [1, 3]}\n"
    )
    found = trials(tmp_path, text)
    assert [trial.params for trial in found] == [
        {"model.kind": "capsnet", "model.routing": 1},
        {"model.kind": "capsnet", "model.routing": 3},
        {"model.kind": "cnn"},
    ]
    assert found[2].model.dropout == 0.2
    recorded = {key for key in params(found[2]) if key.startswith("model.")}
    assert recorded == {f"model.{key}" for key in found[2].model.model_dump()}
    assert "cnn" in run_name(found[2])


def test_a_cnn_s_settings_can_be_varied_singly(tmp_path: Path) -> None:
    text = (
        "name: x\ndata: {name: digits}\nvary: singly\n"
        "grid: {impl: [numpy], model.kind: [cnn, capsnet], model.routing: [3, 1], model.dropout: [0.5, 0.0]}\n"
    )
    assert [trial.params for trial in trials(tmp_path, text)] == [
        {"model.kind": "cnn", "model.dropout": 0.5},
        {"model.kind": "capsnet", "model.routing": 3},
        {"model.kind": "cnn", "model.dropout": 0.0},
    ]


# --- dropout


def test_masks_keep_the_share_that_is_asked_for_and_change_no_other_draw() -> None:
    plan, bare = plan_epoch(1, 2, 500, 64, 2, PAPER), plan_epoch(1, 2, 500, 64, 2)
    assert plan.kept is not None
    assert plan.kept.shape == (500, 192)
    assert set(np.unique(plan.kept)) == {0, 1}
    assert plan.kept.mean() == pytest.approx(0.5, abs=0.01)
    less = plan_epoch(1, 2, 500, 64, 2, PAPER.model_copy(update={"dropout": 0.1})).kept
    assert less is not None
    assert less.mean() == pytest.approx(0.9, abs=0.01)
    assert (plan.order == bare.order).all()
    assert (plan.shifts == bare.shifts).all()
    other = plan_epoch(1, 3, 500, 64, 2, PAPER)
    assert len({plan_digest(each) for each in (plan, bare, other, plan_epoch(1, 2, 500, 64, 2, PAPER))}) == 3
    assert [mask.shape for mask in plan.masks(PAPER)] == [(8, 64, 192)]


def test_no_masks_without_dropout() -> None:
    model = small_cnn(dropout=0.0)
    assert plan_epoch(0, 1, 5, 2, 0, model).kept is None
    assert plan_epoch(0, 1, 5, 2, 0, model).masks(model) == ()


@pytest.mark.parametrize("name", ["numpy", *FRAMEWORKS])
def test_a_plan_without_the_models_masks_is_refused(name: str) -> None:
    impl = loaded(name, SMALL, initial_weights(SMALL, 0))
    impl.stage(*batch_of(SMALL, 4))
    for plan in (plan_epoch(0, 1, 4, 2, 0), plan_epoch(0, 1, 4, 2, 0, small_cnn(cnn_units=(9, 7)))):
        with pytest.raises(ValueError, match=r"masks have the shape .*, expected \(4, 10\); see plan_epoch"):
            impl.train(plan)


# --- the specification


@pytest.mark.parametrize("kernel", [3, 4])
def test_gradients_agree_with_central_differences(kernel: int) -> None:
    """With dropout; along random directions."""
    model, generator = small_cnn(cnn_kernel=kernel), np.random.default_rng(0)
    weights: Weights = {
        name: w + 0.1 * generator.standard_normal(w.shape) for name, w in initial_weights(model, 0).items()
    }
    digits, classes = one_digit(*batch_of(model, 3))
    kept = (generator.random((3, model.dropped_units)) > 0.3).astype(float)

    def loss(name: str, step: np.ndarray) -> float:
        moved = {**weights, name: weights[name] + step}
        return cnn.losses(model, moved, cnn.forward(model, moved, digits, kept=kept), classes, classes).total

    grads = cnn.backward(model, weights, cnn.forward(model, weights, digits, kept=kept), classes)
    assert list(grads) == list(weights)
    for name, w in weights.items():
        assert (norm := np.linalg.norm(grads[name])) > 1e-5, name
        direction = generator.standard_normal(w.shape)
        h = 1e-5 / np.linalg.norm(direction)
        near, far = (loss(name, k * h * direction) - loss(name, -k * h * direction) for k in (1, 2))
        assert abs((8 * near - far) / (12 * h) - (grads[name] * direction).sum()) < 1e-7 * norm, name


def test_same_convolution_by_hand() -> None:
    image, kernel = np.zeros((1, 3, 3, 1)), np.arange(9.0).reshape(3, 3, 1, 1)
    image[0, 0, 1] = 1  # meets every element of the kernel that has it in its window
    assert cnn.same_convolution(image, kernel)[0, :, :, 0].tolist() == [[5, 4, 3], [2, 1, 0], [0, 0, 0]]


def test_what_the_specification_says_of_one_image_by_hand() -> None:
    model = small_cnn(image=(1, 1, 1), cnn_channels=(1, 1, 1), cnn_units=(1, 2), cnn_kernel=1, classes=2)
    ones = {row.name: np.ones(row.shape) * (row.name[-1] == "w") for row in weight_table(model)}
    ones["fc3.w"] = np.array([[2.0, 0.0], [0.0, 1.0]])
    kept = np.array([[1.0, 0.0]])
    images, labels = np.full((1, 1, 1, 1, 1), 0.6), np.array([[1]])
    acts = cnn.forward(model, ones, images)
    assert acts.logits.tolist() == [[1.2, 0.6]]
    assert cnn.scores(model, acts)[0, 1] == pytest.approx(1 / (1 + np.exp(0.6)))
    acts = cnn.forward(model, ones, images, kept=kept)  # one unit kept, and scaled for the other
    assert acts.logits[0] == pytest.approx([1.2 / 0.7, 0])
    assert cnn.losses(model, ones, acts, labels, labels).total == pytest.approx(np.log(1 + np.exp(1.2 / 0.7)))


@pytest.mark.parametrize("model", [SMALL, POOLED], ids=["plain", "pooled, two digits"])
def test_the_specification_needs_only_the_array_api(model: ModelSpec) -> None:
    device = array_api_strict.Device("device1")
    weights, (digits, labels) = initial_weights(model, 0), one_digit(*batch_of(model, 3))
    if model.overlaid == 2:
        digits, labels = (np.concatenate([part, part[::-1]], axis=1) for part in (digits, labels))
    weights = {name: w.astype(np.float64) for name, w in weights.items()}
    kept = np.ones((3, model.dropped_units))

    def there(array: np.ndarray) -> Any:
        return array_api_strict.asarray(array, device=device)

    strict = {name: there(w) for name, w in weights.items()}
    acts, found = (
        cnn.forward(model, w, x, kept=k) for w, x, k in ((weights, digits, kept), (strict, there(digits), there(kept)))
    )
    grads, strict_grads = cnn.backward(model, weights, acts, labels), cnn.backward(model, strict, found, there(labels))
    for name, grad in grads.items():
        strict_grad: Any = strict_grads[name]
        back = np.asarray(strict_grad.to_device(array_api_strict.Device("CPU_DEVICE")))
        assert back == pytest.approx(grad, rel=1e-12, abs=1e-16), name


# --- the implementations


@pytest.mark.parametrize("precision", ["fp64", "fp32", "bf16"])
@pytest.mark.parametrize("name", FRAMEWORKS)
def test_every_framework_climbs_to_the_top(name: str, precision: str) -> None:
    report = climb(name, (), SMALL, OPTIM, "L6", precision)  # JAX compiled, other than in float64
    assert report.ok, report.worst
    assert report.profile == "cnn"
    assert report.level_errors().keys() == {"L1", "L3", "L4", "L5", "L6"}
    assert report.skipped == {"L2": "a CNN has neither capsules nor routing"}
    names = {check.name for check in report.checks}
    assert {"shape.coupling", "forward.probabilities", "loss.total", "grad.fc1.w", "epoch.total"} <= names
    assert not {name for name in names if "margin" in name or "reconstruction" in name} - {"shape.reconstruction"}


@pytest.mark.parametrize("kernel", [3, 4])
def test_jax_s_rule_for_convolutions_of_many_channels(kernel: int) -> None:
    """Small models here have windows so small that they are written out; this is how large ones compute."""
    edit = Edit("convolution.py", "_SMALL_WINDOW = 128", "_SMALL_WINDOW = 0")
    report = climb("jax", (edit,), small_cnn(cnn_kernel=kernel), OPTIM, "L4", "fp32")
    assert report.ok, report.worst


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_even_kernels_and_no_dropout(name: str) -> None:
    model = small_cnn(cnn_kernel=4, dropout=0.0, image=(8, 6, 1))
    impl, spec = (loaded(each, model, initial_weights(model, 3)) for each in (name, "numpy"))
    images, labels = batch_of(model, 6)
    assert relative_error(impl.forward(images).lengths, spec.forward(images).lengths) < 1e-9
    (loss, grads), (expected, exact) = (each.loss_and_grads(images, labels) for each in (impl, spec))
    assert (loss.margin, loss.reconstruction) == (expected.margin, expected.reconstruction) == (None, None)
    assert max(relative_error(grads[tensor], grad) for tensor, grad in exact.items()) < 1e-8
    for each in (impl, spec):
        each.stage(images, labels)
        each.compile(4)
    plan = plan_epoch(0, 1, 6, 4, 1, model)
    found, wanted = impl.train(plan), spec.train(plan)
    assert found.correct == wanted.correct
    assert found.loss.total == pytest.approx(wanted.loss.total, rel=1e-9)
    assert (impl.evaluate(images, labels).predicted == spec.evaluate(images, labels).predicted).all()


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("fault", OWN, ids=lambda fault: fault.name)
def test_a_mutant_is_killed_on_the_level_of_its_fault(name: str, fault: Any) -> None:
    report = climb(name, EDITS[name][fault.name], SMALL, OPTIM, fault.level)
    assert report.failed_level == fault.level, report.worst


def test_every_fault_is_written_in_every_framework() -> None:
    assert all(edits.keys() == {fault.name for fault in OWN} for edits in EDITS.values())
    assert {"shift-reversed", "epsilon-hat", "pixels-0-to-255"} < {fault.name for fault in CNN_FAULTS}


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        *(("numpy", fault.name) for fault in OWN if fault.level > "L1"),
        ("torch", "dropout-not-scaled"),
        ("torch", "flattened-channels-first"),
    ],
)
def test_a_fault_is_named(name: str, fault: str) -> None:
    says = {each.name: each.says for each in OWN}[fault]
    assert says in suspects(climbed(EDITS[name][fault], SMALL, OPTIM, "L6", name))


@pytest.mark.parametrize("name", ["torch", "tf"])  # JAX compiles for long
def test_parts_of_a_step(name: str) -> None:
    impl = loaded(name, SMALL, initial_weights(SMALL, 0), precision="fp32", compile=False)
    impl.stage(*batch_of(SMALL, 5))
    impl.compile(4)
    assert isinstance(impl, Truncated)
    before = impl.dump()
    *cuts, whole = impl.truncated()
    assert [cut.part for cut in (*cuts, whole)] == ["other", "data", "conv", "dense", "loss", "optimiser"]
    plan = plan_epoch(0, 1, 5, 4, 1, SMALL)
    for cut in cuts:
        cut.whole(plan)
        if cut.forward:
            cut.forward(plan)
    assert all((impl.dump()[tensor] == value).all() for tensor, value in before.items())


# --- the bench


def test_a_trial_from_its_gate_to_its_result(tmp_path: Path) -> None:
    overrides = [
        "impl=numpy",
        "model.kind=cnn",
        "model.cnn_channels=[4, 4, 4]",
        "model.cnn_units=[8, 8]",
        "train.epochs=2",
        "data.train=64",
        "data.test=30",
        "data.validation=20",
        "train.batch=32",
    ]
    [trial] = load_suite(QUICKSTART, overrides).trials(0, lambda _: {})
    events: list[dict[str, Any]] = []
    run_trial(
        Trial.model_validate_json(trial.model_dump_json()), lambda event: events.append(event.to_json()), tmp_path
    )
    parity, ready, first, second, result = events
    assert [event["kind"] for event in events] == ["parity", "ready", "epoch", "epoch", "result"]
    assert parity["ok"]
    assert ready["parameters"] == parameter_count(trial.model)
    assert second["train_loss"] < first["train_loss"]
    for event in (first, second, result):
        assert not [key for key in event if "margin" in key or "reconstruction" in key]
    assert 0 <= result["test_err_pct"] <= 100
    json.dumps(events)


def test_operations_and_bytes_by_hand() -> None:
    pixels = 28 * 28
    assert products(PAPER) == {
        "conv1": pixels * 25 * 256,
        "conv2": pixels * 25 * 256 * 256,
        "conv3": pixels * 25 * 256 * 128,
        "dense": pixels * 128 * 328 + 328 * 192 + 192 * 10,
    }
    assert step_flops(PAPER, 2) == 2 * (3 * forward_flops(PAPER) - 2 * products(PAPER)["conv1"])
    assert least_bytes(PAPER, 3) == 4 * (4 * 35_445_522 + 2 * 3 * pixels * 640)
    assert step_bytes(PAPER, largest_batch(PAPER, 8e9)) <= 8e9 < step_bytes(PAPER, largest_batch(PAPER, 8e9) + 9)


def test_no_cost_model_of_capsnets_is_fitted_to_cnns() -> None:
    capsnet = ModelSpec(image=(28, 28, 1), classes=10)
    cells = [TimedTrial(capsnet, 8 * n, 0.01 * n) for n in range(1, 8)]
    assert fit(cells) is not None
    assert fit([*cells, TimedTrial(PAPER, 8, 0.1)]) is None


def test_an_estimate_of_time_grows_with_the_model(tmp_path: Path) -> None:
    [small], [large] = (
        load_suite(QUICKSTART, ["impl=torch", "model.kind=cnn", "resources.gpus=0", *more]).trials(0, lambda _: {})
        for more in ([], ["model.cnn_channels=[256, 256, 128]"])
    )
    assert 0 < (estimate_s(small, []) or 0) < (estimate_s(large, []) or 0)


def test_blank_plan_keeps_every_unit() -> None:
    kept = EpochPlan.blank(SMALL, 3).kept
    assert kept is not None
    assert kept.shape == (3, 10)
    assert kept.all()
    assert EpochPlan.blank(ModelSpec(image=(28, 28, 1), classes=10), 3).kept is None
