"""The audit: right implementations pass and train as without it; one that changes after passing the gate is found."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from harness.parity.probe import adam_update
from harness.spec import EpochPlan, EvalTotals, Loss, Moments, TrainTotals, Weights, batched
from harness.spec.trial import Trial
from harness.suite.suite import load_suite
from harness.weights import digest
from harness.weights.files import load_weights
from harness.worker.audit import SAMPLE, Audit
from harness.worker.audit_checks import part_of
from impls.numpy import NumpyImpl
from tests.data.test_multimnist import PairsOfDigits
from tests.helpers.impl_helpers import FRAMEWORKS
from tests.helpers.run_helpers import capsbench, write_suite
from tests.worker.test_training import SUITE, events_of

EPOCH = 9  # steps: eight full batches and 6 images
SIZES = (
    "data.train=134", "data.validation=20", "data.test=120", "train.epochs=2", "train.batch=16", "resources.cpus=1",
    "parity.gate=false",
)  # fmt: skip
CAPSNET = (
    "model.conv_channels=4",
    "model.primary_types=2",
    "model.primary_dim=4",
    "model.digit_dim=4",
    "model.decoder_units=[8, 8]",
)
CNN = ("model.kind=cnn", "model.cnn_channels=[6, 5, 4]", "model.cnn_units=[9, 8]", "model.dropout=0.5")


@pytest.fixture(autouse=True)
def audited_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every epoch is looked at, however busy the machine is, and half of its steps."""
    monkeypatch.setattr("harness.worker.audit.LEAST_S", 1e6)
    monkeypatch.setattr("harness.worker.audit.FEWEST", 4)


def trial_of(impl: str, *overrides: str, model: tuple[str, ...] = CAPSNET) -> Trial:
    given = [f"impl={impl}", *SIZES, *model, *overrides]
    last = {override.partition("=")[0]: override for override in given}
    (trial,) = load_suite(SUITE, list(last.values())).trials(0, lambda _: {})
    return trial


# --- who is found


class LabelsNet(NumpyImpl):
    """Sees what it ought to predict, and predicts it."""

    def evaluate(self, images: np.ndarray, labels: np.ndarray) -> EvalTotals:
        return EvalTotals(super().evaluate(images, labels).loss, labels)


class HastyNet(NumpyImpl):
    """Looks at the first hundred images and takes the others for zeros."""

    def evaluate(self, images: np.ndarray, labels: np.ndarray) -> EvalTotals:
        found = super().evaluate(images[:100], labels[:100])
        return EvalTotals(found.loss, np.concatenate([found.predicted, 0 * labels[100:]]))


class ShortNet(NumpyImpl):
    """Leaves out every fifth of its steps, and counts it."""

    made = 0

    def _step(self, grads: Weights) -> None:
        self.made += 1
        if self.made % 5:
            super()._step(grads)
        else:
            self.moments = Moments(self.moments.step + 1, self.moments.first, self.moments.second)


class UncountedNet(ShortNet):
    """The same, and does not count it."""

    def _step(self, grads: Weights) -> None:
        self.made += 1
        if self.made % 5:
            NumpyImpl._step(self, grads)


class FlatNet(ShortNet):
    """Every fifth gradient is zero."""

    def _step(self, grads: Weights) -> None:
        self.made += 1
        NumpyImpl._step(self, {name: grad * bool(self.made % 5) for name, grad in grads.items()})


class DoublingNet(ShortNet):
    """Every fifth step goes twice as far."""

    def _step(self, grads: Weights) -> None:
        before = dict(self.weights)
        self.made += 1
        NumpyImpl._step(self, grads)
        if not self.made % 5:
            self.weights = {name: w + (w - before[name]) for name, w in self.weights.items()}


class LateRateNet(NumpyImpl):
    """From the eleventh step on, its learning rate is ten times as large."""

    def _step(self, grads: Weights) -> None:
        before = dict(self.weights)
        super()._step(grads)
        if self.moments.step > 10:
            self.weights = {name: before[name] + 10 * (w - before[name]) for name, w in self.weights.items()}


class LateDecayNet(NumpyImpl):
    """From the eleventh step on, its first moment forgets faster."""

    def _step(self, grads: Weights) -> None:
        before = self.moments.first
        super()._step(grads)
        if self.moments.step > 10:
            first = {name: m - 0.1 * before[name] for name, m in self.moments.first.items()}
            self.moments = Moments(self.moments.step, first, self.moments.second)
            update = {name: adam_update(self.moments, name, self.optim) for name in first}
            self.weights = {name: w + update[name].astype(w.dtype) for name, w in self.weights.items()}


class WearyNet(NumpyImpl):
    """After four calls of `train`, makes as if."""

    calls = 0

    def train(self, plan: EpochPlan) -> TrainTotals:
        self.calls += 1
        before = dict(self.weights)
        totals = super().train(plan)
        if self.calls > 4:
            self.weights = before
        return totals


class HalfNet(NumpyImpl):
    """From the second epoch on, trains on the first half of each batch, and says nothing of it."""

    def train(self, plan: EpochPlan) -> TrainTotals:
        if self.moments.step < EPOCH:
            return super().train(plan)
        order, shifts = batched(plan.order, plan.batch), batched(plan.shifts, plan.batch)
        half = plan.batch // 2
        parts = zip(order[:, :half], shifts[:, :half], strict=True)
        totals = [super(HalfNet, self).train(EpochPlan(*each, half)) for each in parts]
        loss = Loss(*(float(np.mean([getattr(t.loss, name) for t in totals])) for name in self.model.loss_terms))
        return TrainTotals(len(plan.order), loss, 2 * sum(each.correct for each in totals))


class NarrowNet(NumpyImpl):
    """Keeps indices in six bits."""

    def train(self, plan: EpochPlan) -> TrainTotals:
        return super().train(EpochPlan(plan.order % 64, plan.shifts, plan.batch))


class ForgetfulNet(NumpyImpl):
    """Leaves an incomplete batch out, where there are others."""

    def train(self, plan: EpochPlan) -> TrainTotals:
        whole = len(plan.order) // plan.batch * plan.batch or len(plan.order)
        return super().train(EpochPlan(plan.order[:whole], plan.shifts[:whole], plan.batch))


class BoastfulNet(NumpyImpl):
    """Tells of a loss that is half of what it was."""

    def train(self, plan: EpochPlan) -> TrainTotals:
        totals = super().train(plan)
        return TrainTotals(totals.count, Loss(totals.loss.total / 2, totals.loss.margin, totals.loss.reconstruction), 0)


CHEATS = {
    LabelsNet: "are classified otherwise",
    HastyNet: "are classified otherwise",
    ShortNet: "went another way in training than when they are repeated",
    UncountedNet: "of Adam, its plan at step",
    FlatNet: "went another way",
    DoublingNet: "went another way",
    LateRateNet: "did not move as Adam's rule says",
    LateDecayNet: "the first moment of",
    WearyNet: "went another way",
    HalfNet: "by the specification",
    NarrowNet: "by the specification",
    ForgetfulNet: "images, and was given",
    BoastfulNet: "the total loss is",
}


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda cheat: cheat.__name__)
def test_a_cheat_has_no_accuracy(cheat: type[NumpyImpl], tmp_path: Path) -> None:
    result = events_of(trial_of(f"tests.worker.test_audit:{cheat.__name__}"), tmp_path)[-1]
    assert result["audit"]["ok"] is False
    assert CHEATS[cheat] in result["audit"]["note"]
    assert result["audit"]["bound_pct"] is None
    assert {result[name] for name in ("test_err_pct", "best_test_err_pct", "test_loss")} == {None}


def test_a_fault_is_not_forgotten_by_the_next_attempt(tmp_path: Path) -> None:
    trial = trial_of("tests.worker.test_audit:FlatNet")
    first = events_of(trial, tmp_path / "first")
    fault = first[-1]["audit"]["note"]
    assert first[1]["audit_fault"] == fault
    checkpoint = tmp_path / "first" / first[1]["checkpoint"]
    honest = trial.model_copy(update={"impl": "numpy"})
    assert events_of(honest, tmp_path / "second", checkpoint, 1)[-1]["audit"]["note"] == fault


# --- who passes


SETTINGS: dict[str, tuple[str, ...]] = {
    "official": (
        *CAPSNET[:-1],
        "model.profile=official",
        "model.decoder=false",
        "train.lr_decay.kind=epoch",
        "train.weight_decay=0.01",
    ),
    "paper": (*CAPSNET, "train.weight_decay=0.01", "train.decoder.weight_decay=0.001", "train.decoder.lr=0.0005"),
    "cnn": CNN,
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("impl", ["numpy", *FRAMEWORKS])
def test_who_is_right_passes_and_trains_as_without_it(impl: str, setting: str, tmp_path: Path) -> None:
    events = events_of(trial_of(impl, model=SETTINGS[setting]), tmp_path / "with")
    epochs = [event for event in events if event["kind"] == "epoch"]
    audit = events[-1]["audit"]
    assert audit["ok"], audit["note"]
    assert (audit["steps"], audit["images"], audit["near_ties"], audit["bound_pct"]) == (8, 120, 0, 0.0)
    assert audit["share_pct"] == pytest.approx(100 * audit["audit_s"] / sum(epoch["epoch_s"] for epoch in epochs))
    without = events_of(trial_of(impl, "parity.audit=false", model=SETTINGS[setting]), tmp_path / "without")
    assert without[-1]["audit"] == {"ok": None, "note": "off (parity.audit: false)"}
    assert without[-1]["test_err_pct"] == events[-1]["test_err_pct"]
    for one, other in zip(epochs, (event for event in without if event["kind"] == "epoch"), strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-6)
        assert one["train_err_pct"] == other["train_err_pct"]
    found, expected = (digest(load_weights(tmp_path / name / "weights.safetensors")) for name in ("with", "without"))
    assert found == expected


@pytest.mark.parametrize("precision", ["fp64", "bf16"])
def test_every_precision_is_audited_in_its_own(precision: str, tmp_path: Path) -> None:
    for impl in ("numpy", "torch"):
        audit = events_of(trial_of(impl, f"runtime.precision={precision}"), tmp_path / impl)[-1]["audit"]
        assert audit["ok"], audit["note"]
        assert audit["steps"] == 8


@pytest.mark.parametrize("impl", ["numpy", "torch"])
def test_images_of_several_digits(impl: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.data.digits.SOURCE", PairsOfDigits())
    audit = events_of(trial_of(impl), tmp_path)[-1]["audit"]
    assert audit["ok"], audit["note"]
    assert (audit["steps"], audit["images"]) == (8, 120)


class UnsteadyNet(NumpyImpl):
    """Rounds otherwise each time, as sums on a GPU do."""

    generator = np.random.default_rng(0)

    def _step(self, grads: Weights) -> None:
        super()._step(
            {
                name: (grad * self.generator.uniform(1 - 1e-5, 1 + 1e-5, grad.shape)).astype(grad.dtype)
                for name, grad in grads.items()
            }
        )


def test_rounding_that_is_not_repeatable_passes(tmp_path: Path) -> None:
    audit = events_of(trial_of("tests.worker.test_audit:UnsteadyNet", "train.epochs=4"), tmp_path)[-1]["audit"]
    assert audit["ok"], audit["note"]
    assert audit["steps"] == 16


# --- how much it looks at


def test_the_sample_bounds_the_disagreement() -> None:
    assert 0.99**SAMPLE <= 0.001 < 0.99 ** (SAMPLE - 1)


def test_without_time_it_says_how_little_it_saw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.worker.audit.LEAST_S", 0.0)
    audit = events_of(trial_of("numpy"), tmp_path)[-1]["audit"]
    assert (audit["ok"], audit["steps"], audit["images"]) == (True, 0, 16)
    assert audit["note"] == "no step repeated: training was too short for that"
    assert audit["bound_pct"] == pytest.approx(100 * (1 - math.exp(math.log(0.001) / 16)))


def test_an_epoch_s_segment_does_not_depend_on_the_epochs_to_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a sum of losses would, and a trial that goes on from a shorter one would differ from one trained at once."""
    monkeypatch.setattr("harness.worker.audit.LEAST_S", 0.5)
    monkeypatch.setattr("harness.worker.audit.FEWEST", 1)
    parts: dict[int, list[tuple[int, int]]] = {}
    for epochs in (3, 4):
        calls = parts.setdefault(epochs, [])

        def counted(plan: EpochPlan, first: int, end: int, calls: list[tuple[int, int]] = calls) -> EpochPlan:
            calls.append((first, end))
            return part_of(plan, first, end)

        with monkeypatch.context() as patch:
            patch.setattr("harness.worker.audit.part_of", counted)
            patch.setattr(Audit, "_is_due", lambda *_: False)
            trial = trial_of("numpy", "train.batch=1", f"train.epochs={epochs}", "data.validation=0", "data.test=1")
            events_of(trial, tmp_path / str(epochs))
    assert parts[3] == parts[4][:9]
    segments = [end - first for first, end in parts[4][1::3]]
    assert segments == [1, 1, 2, 2]  # a two-hundredth of 134, 268, 402 and 536 steps


# --- as users meet it


def test_a_run_of_a_cheat(tmp_path: Path) -> None:
    impl = "tests.worker.test_audit:LabelsNet"
    suite = write_suite(
        tmp_path, grid={"impl": ["numpy", impl]}, data={"test": 120}, parity={"gate": True, "level": "L2"}
    )
    done = capsbench(tmp_path, "run", suite, "--executor", "inline", "--no-mlflow", "--json", COLUMNS="200")
    assert done.returncode == 1, done.stderr
    right, cheat = json.loads(done.stdout)["trials"]
    assert right["audit"]["ok"]
    assert right["test_err_pct"] > 0
    assert cheat["parity_ok"]
    assert cheat["audit"]["ok"] is False
    hidden = ("test_err_pct", "best_test_err_pct", "test_loss", "val_err_pct", "epoch_s", "img_per_s", "compile_s")
    assert {cheat[name] for name in hidden} == {None}
    note = cheat["audit"]["note"]
    assert f"finished: no accuracy, audit failed: {note}" in done.stderr
    assert f"{impl} seed 0: audit failed: {note}" in done.stderr
    assert f"{impl}: no timing verdict: audit failed: {note}" in done.stderr
    row = next(line for line in done.stderr.splitlines() if line.startswith(impl) and "FAILED" in line)
    assert row.split()[1:] == ["-", "-", "-", "-", "-", row.split()[6], "audit", "FAILED", "-"]


def test_a_run_without_audit_says_so(tmp_path: Path) -> None:
    suite = write_suite(tmp_path, parity={"gate": True, "level": "L2", "audit": False})
    done = capsbench(tmp_path, "run", suite, "--executor", "inline", "--no-mlflow", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["trials"][0]["audit"]["ok"] is None
    assert "audit off (parity.audit: false)" in done.stderr
    assert "numpy: audit: off (parity.audit: false)" in done.stderr
