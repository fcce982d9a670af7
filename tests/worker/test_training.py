"""One trial: its events, its files, and that resuming from a checkpoint changes nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import data
from harness.data import Split
from harness.machine.clock import peak_rss_bytes, reset_peak_rss
from harness.spec import EpochPlan, ModelSpec, Moments, TrainTotals
from harness.spec.trial import Trial
from harness.suite.suite import load_suite
from harness.weights import digest, initial_weights
from harness.weights.files import load_checkpoint, load_progress, load_weights, read_facts, save_checkpoint
from harness.weights.progress import Progress
from harness.worker.training import Diverged, run_trial
from impls.numpy import NumpyImpl
from tests.helpers.impl_helpers import build, small_model

SUITE = Path(__file__).parents[2] / "suites" / "quickstart.yaml"
SMALL = (
    "impl=numpy", "data.train=70", "data.test=30", "train.epochs=3", "train.batch=32",
    "model.conv_channels=4", "model.primary_types=2", "model.decoder_units=[8, 8]",
)  # fmt: skip


def make_trial(*overrides: str, validation: int = 20) -> Trial:
    given = (*SMALL, f"data.validation={validation}", *overrides)
    last = {override.partition("=")[0]: override for override in given}
    (trial,) = load_suite(SUITE, list(last.values())).trials(0, lambda _: {})
    return trial


def events_of(
    trial: Trial, folder: Path, checkpoint: Path | None = None, resumed_epoch: int = 0
) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    folder.mkdir(exist_ok=True)
    run_trial(trial, lambda event: events.append(event.to_json()), folder, checkpoint, resumed_epoch)
    return events


def test_events_and_files_of_a_trial(tmp_path: Path) -> None:
    trial = make_trial()
    events = events_of(trial, tmp_path)
    assert [event["kind"] for event in events] == ["parity", "ready", "epoch", "epoch", "epoch", "result"]
    parity, ready, *epochs, result = events
    assert parity["ok"]
    assert ready["weights_sha256"] == digest(initial_weights(trial.model, trial.seed))
    assert [epoch["epoch"] for epoch in epochs] == [1, 2, 3]
    assert len({epoch["plan_sha256"] for epoch in epochs}) == 3
    assert epochs[1]["lr"] == trial.train.optim.lr_at(3)  # three steps of 32, 32 and 6 images
    assert epochs[0]["train_loss"] > epochs[2]["train_loss"]
    assert all(epoch["img_per_s"] == 70 / epoch["epoch_s"] for epoch in epochs)
    assert result["test_images"] == 30
    assert result["peak_bytes"] > 50e6  # an interpreter with NumPy at the least
    weights = load_weights(tmp_path / result["weights"])
    assert all(
        (load_checkpoint(tmp_path / epochs[-1]["checkpoint"])[0][name] == w).all() for name, w in weights.items()
    )


def test_a_proposal_of_a_search_never_sees_test_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = make_trial("train.epochs=2").model_copy(update={"phase": "proposal"})
    whole = data.load(trial.data)
    unfit = replace(whole, test=Split(whole.test.images[:, :2, :2], whole.test.labels))  # no network takes these
    monkeypatch.setattr(data, "load", lambda _: unfit)
    events = events_of(trial, tmp_path)
    result, epochs = events[-1], [event for event in events if event["kind"] == "epoch"]
    assert result["audit"]["ok"], result["audit"]
    assert result["audit"]["images"] == 20  # those of the validation
    assert result["test_err_pct"] is result["test_loss"] is result["best_test_err_pct"] is None
    assert (result["test_images"], result["test_s"]) == (0, 0)
    assert result["predictions"] is None
    assert {path.name for path in tmp_path.glob("*.safetensors")} >= {"weights.safetensors", "best.safetensors"}
    assert not (tmp_path / "predictions.safetensors").exists()
    (tmp_path / "plain").mkdir()
    monkeypatch.setattr(data, "load", lambda _: whole)
    plain = events_of(trial.model_copy(update={"phase": None}), tmp_path / "plain")
    for ours, theirs in zip(epochs, [event for event in plain if event["kind"] == "epoch"], strict=True):
        assert {name: ours[name] for name in ("train_loss", "val_err_pct", "val_loss")} == {
            name: theirs[name] for name in ("train_loss", "val_err_pct", "val_loss")
        }


def test_resuming_changes_nothing(tmp_path: Path) -> None:
    trial = make_trial()
    straight = events_of(trial, tmp_path / "straight")
    resumed = events_of(trial, tmp_path / "resumed", tmp_path / "straight" / "epoch-0001.safetensors", resumed_epoch=1)

    def figures(events: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
        timed = (
            "epoch_s",
            "eval_s",
            "img_per_s",
            "test_s",
            "peak_bytes",
            "audit",
            "files",
        )  # a checkpoint tells how long its audit took
        kept = (event for event in events if event["kind"] in ("epoch", "result"))
        return [tuple(value for key, value in event.items() if key not in timed) for event in kept]

    assert figures(resumed) == figures(straight)[1:]
    files = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("straight", "resumed")]
    assert files[0] == files[1]


def test_without_gate_or_validation(tmp_path: Path) -> None:
    events = events_of(make_trial("parity.gate=false", validation=0), tmp_path)
    assert [event["kind"] for event in events] == ["ready", "epoch", "epoch", "epoch", "result"]
    assert events[1]["val_err_pct"] is None
    assert not {"best_epoch", "best_weights"} & set(events[-1])
    assert not (tmp_path / "best.safetensors").exists()


class CollapsingNet(NumpyImpl):
    """Learns for two epochs and then forgets all, so that its second epoch is its best."""

    def train(self, plan: EpochPlan) -> TrainTotals:
        is_third = self.moments.step >= 2 * -(-len(plan.order) // plan.batch)
        totals = super().train(plan)
        if is_third:
            self.weights["digit.w"] = 0 * self.weights["digit.w"]
        return totals


COLLAPSING = (
    "impl=tests.worker.test_training:CollapsingNet",
    "parity.gate=false",
    "parity.audit=false",
    "train.epochs=4",
    "train.keep_every=1",
)


def test_the_best_epoch_s_weights_are_kept_and_tested(tmp_path: Path) -> None:
    trial = make_trial(*COLLAPSING, validation=40)
    events = events_of(trial, tmp_path)
    epochs, result = events[1:-1], events[-1]
    best = min(epochs, key=lambda epoch: (epoch["val_err_pct"], epoch["val_loss"], epoch["epoch"]))
    assert best["epoch"] == 2
    assert result["best_epoch"] == best["epoch"]
    kept = load_weights(tmp_path / best["weights"])
    assert best["weights"] == f"weights-{best['epoch']:04d}.safetensors"
    found = load_weights(tmp_path / result["best_weights"])
    assert digest(found) == digest(kept) != digest(load_weights(tmp_path / result["weights"]))

    dataset = data.load(trial.data)
    net = build("numpy", trial.model, "fp32")
    for name, error in (("best.safetensors", "best_test_err_pct"), ("weights.safetensors", "test_err_pct")):
        net.load(load_weights(tmp_path / name))
        net.compile(32)
        wrong = net.evaluate(dataset.test.images, dataset.test.labels).predicted != dataset.test.labels
        assert result[error] == read_facts(tmp_path / name)["test_err_pct"] == 100 * wrong.mean()


def test_the_header_says_whose_weights_they_are(tmp_path: Path) -> None:
    trial = make_trial("parity.gate=false", "train.keep_every=2")
    *_, last, result = events_of(trial, tmp_path)
    facts = read_facts(tmp_path / "weights.safetensors")
    assert {key: facts[key] for key in ("suite", "trial", "impl", "seed", "profile", "data", "epoch")} == {
        "suite": "quickstart",
        "trial": trial.id,
        "impl": "numpy",
        "seed": 0,
        "profile": "paper",
        "data": "digits",
        "epoch": 3,
    }
    assert (facts["val_err_pct"], facts["test_err_pct"]) == (last["val_err_pct"], result["test_err_pct"])
    assert ModelSpec.model_validate_json(json.dumps(facts["model"])) == trial.model
    assert sorted(path.name for path in tmp_path.glob("weights-*")) == ["weights-0002.safetensors"]
    assert read_facts(tmp_path / "weights-0002.safetensors")["epoch"] == 2


def test_the_best_of_several_epochs() -> None:
    progress = Progress()
    for epoch, (error, loss) in enumerate([(9.0, 0.5), (4.0, 0.4), (4.0, 0.3), (4.0, 0.3), (5.0, 0.1)], start=1):
        progress = progress.after(epoch, {"epoch": np.array(epoch)}, error, loss)
    assert progress.best is not None
    assert (progress.best.epoch, progress.best.weights["epoch"], progress.epoch) == (3, 3, 5)
    assert Progress().after(1, {}, None, None).best is None


@pytest.mark.parametrize("epoch", [2, 3])  # the best, and one after it
def test_a_resumed_trial_knows_the_best_epoch_before(tmp_path: Path, epoch: int) -> None:
    trial = make_trial(*COLLAPSING, validation=40)
    straight = events_of(trial, tmp_path / "straight")
    assert straight[-1]["best_epoch"] == 2
    checkpoint = tmp_path / "straight" / f"epoch-{epoch:04d}.safetensors"
    resumed = events_of(trial, tmp_path / "resumed", checkpoint, epoch)
    same = ("best_epoch", "best_test_err_pct", "test_err_pct")
    assert [resumed[-1][key] for key in same] == [straight[-1][key] for key in same]
    for name in ("best.safetensors", "weights.safetensors"):
        assert (tmp_path / "straight" / name).read_bytes() == (tmp_path / "resumed" / name).read_bytes()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_divergence_is_an_error_that_names_the_learning_rate(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"training loss of epoch \d is (nan|inf); lower train.lr \(1e\+200\)"):
        events_of(make_trial("train.lr=1e200", "runtime.precision=fp64", "parity.gate=false"), tmp_path)


def test_checkpoint_keeps_weights_and_moments(tmp_path: Path) -> None:
    weights = initial_weights(small_model(), 0)
    moments = Moments(41, {k: w + 1 for k, w in weights.items()}, {k: w * w for k, w in weights.items()})
    save_checkpoint(tmp_path / "c.safetensors", weights, moments)
    found, found_moments = load_checkpoint(tmp_path / "c.safetensors")
    assert digest(found) == digest(weights)
    assert found_moments.step == 41
    assert digest(found_moments.first) == digest(moments.first)
    assert digest(found_moments.second) == digest(moments.second)
    assert load_progress(tmp_path / "c.safetensors") == Progress()


def test_peak_memory_can_be_forgotten() -> None:
    block = np.ones(40_000_000)  # 320 MB
    with_block = peak_rss_bytes()
    del block
    reset_peak_rss()
    assert with_block - peak_rss_bytes() > 250e6
