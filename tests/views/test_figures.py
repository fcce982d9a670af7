"""Figures of a trial: what they show is recomputed in another way; what cannot be drawn is left out with a reason."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from harness import data
from harness.commands.cli import main
from harness.commands.figures import draw_run
from harness.errors import UserError
from harness.events import TrialEvent
from harness.journal.journal import Journal
from harness.journal.results import summarise
from harness.parity.specification import routing_logit_change, specification
from harness.spec import ModelSpec
from harness.suite.suite import Suite, load_suite
from harness.views.figures import draw as command
from harness.views.figures.capsules import STEPS, perturbed
from harness.views.figures.classes import class_rows, confusion
from harness.views.figures.draw import draw_missing, draw_trial
from harness.views.figures.material import LeftOut, Material
from harness.views.mlflow.trials import metric_rows
from harness.weights.files import load_predictions, load_weights
from harness.worker.training import run_trial
from tests.helpers.event_helpers import event

SUITE = Path(__file__).parents[2] / "suites" / "quickstart.yaml"
SMALL = (
    "impl=numpy", "data.train=200", "data.validation=20", "data.test=60", "train.epochs=2", "train.batch=20",
    "train.lr=0.01", "model.conv_channels=6", "model.primary_types=2", "model.primary_dim=4", "model.digit_dim=6",
    "model.decoder_units=[16, 16]", "parity.gate=false", "measure.routing_logits=5",
)  # fmt: skip
PNG = b"\x89PNG"


def small_suite(*changes: str) -> Suite:
    """The suite with SMALL and, over it, `changes`; "key=" leaves a setting as the file has it."""
    settings = dict(override.split("=", 1) for override in (*SMALL, *changes))
    return load_suite(SUITE, [f"{key}={value}" for key, value in settings.items() if value])


def finished_run(run_dir: Path, *overrides: str) -> Path:
    """A run directory as the driver leaves it, of one small trial trained here."""
    (trial,) = small_suite(*overrides).trials(0, lambda _: {})
    with Journal(run_dir).open() as journal:
        document = trial.model_dump(mode="json")
        journal.write_plan({"suite": trial.suite, "source": "quickstart.yaml", "trials": [document]}, "")

        def emit(told: TrialEvent) -> None:
            journal.append(trial.id, told.stamped(1.0).of(trial.id, 1))

        emit(event({"kind": "attempt"}))
        run_trial(trial, emit, journal.trial_dir(trial.id))
    return run_dir


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("matplotlib")
    found = finished_run(tmp_path_factory.mktemp("figures") / "quickstart")
    [drawn] = draw_run(found)
    assert (drawn.left_out, drawn.lacking) == ({}, {})
    return found


@pytest.fixture
def material(run_dir: Path) -> Material:
    return material_of(run_dir)


def material_of(run_dir: Path) -> Material:
    journal = Journal(run_dir)
    return Material(journal, journal.trial_ids()[0], data.load)


def folder_of(run_dir: Path) -> Path:
    return next(run_dir.glob("trials/*/figures"))


def copy(run_dir: Path, tmp_path: Path) -> Path:
    """A copy of the run, without figures."""
    shutil.copytree(run_dir, tmp_path / "copy")
    shutil.rmtree(folder_of(tmp_path / "copy"))
    return tmp_path / "copy"


def test_all_figures_are_there(run_dir: Path) -> None:
    folder = folder_of(run_dir)
    listed = json.loads((folder / "figures.json").read_text())
    assert set(listed["files"]) | {"figures.json"} == {path.name for path in folder.iterdir()}
    assert set(listed["files"]) == {
        "epochs.csv", "learning.png", "confusion.png", "classes.csv", "classes.json", "reconstructions.png",
        "perturbations.png", "lengths.png", "entropy.png", "routing_logits.png",
    }  # fmt: skip
    assert all(path.read_bytes().startswith(PNG) for path in folder.glob("*.png"))


def test_the_confusion_is_of_the_whole_test_set(run_dir: Path, material: Material) -> None:
    document = json.loads((folder_of(run_dir) / "classes.json").read_text())
    labels = data.load(material.trial.data).test.labels
    matrix = np.array(document["confusion"])
    assert matrix.sum(1).tolist() == np.bincount(labels, minlength=10).tolist()
    assert (document["images"], document["right"]) == (60, np.trace(matrix))
    assert 100 * (1 - document["right"] / 60) == pytest.approx(material.result.test_err_pct)
    weights = load_weights(run_dir / "trials" / material.trial.id / "weights.safetensors")
    net = specification(material.trial.model, weights)
    predicted = net.forward(data.load(material.trial.data).test.images).lengths.argmax(1)
    assert matrix.tolist() == confusion_matrix(labels, predicted, labels=range(10)).tolist()
    with (folder_of(run_dir) / "classes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["support"]) for row in rows] == [row["support"] for row in document["classes"]]
    expected = precision_recall_fscore_support(labels, predicted, labels=range(10), zero_division=0)  # pyright: ignore[reportArgumentType]
    for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        assert [float(row[name] or 0) for row in rows] == pytest.approx(np.asarray(values).tolist())


def test_class_rows_by_hand() -> None:
    matrix = confusion(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), 3)
    assert matrix.tolist() == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]
    first, second, third = class_rows(matrix)
    assert (first.precision, first.recall, first.support) == (1.0, 2 / 3, 3)
    assert first.f1 == pytest.approx(0.8)
    assert (second.precision, second.recall) == (0.5, 1.0)
    assert (third.precision, third.recall, third.f1, third.support) == (None, None, None, 0)


def test_the_middle_of_a_perturbation_is_the_plain_reconstruction(material: Material) -> None:
    right = material.right
    labels = right.labels.tolist()
    assert labels == right.predicted.tolist() == sorted(set(labels))
    plain = material.net.forward(right.images)  # shows the decoder the longest capsule, which is the label's
    assert plain.reconstruction is not None
    assert STEPS.tolist() == pytest.approx([round(-0.25 + 0.05 * k, 2) for k in range(11)])
    for index, label in enumerate(labels):
        grid = perturbed(material.net, right.digit[index], label)
        assert grid.shape == (6, 11, 28, 28, 1)
        for row in grid:
            assert row[5] == pytest.approx(plain.reconstruction[index], abs=1e-6)
            assert all(np.abs(row[k] - row[5]).max() > 1e-4 for k in (0, 10))
    digit = right.digit[0].copy()
    digit[labels[0], 2] += 0.25
    alone = material.net.decode(digit[None], np.array(labels[:1]))[0]
    assert perturbed(material.net, right.digit[0], labels[0])[2, 10] == pytest.approx(alone, abs=1e-6)


def test_examples_are_what_the_trial_said(material: Material) -> None:
    predicted, labels = material.predictions
    wrong = material.wrong
    assert len(wrong) == min(10, (predicted != labels).sum()) > 0
    assert (wrong.labels != wrong.predicted).all()
    test = data.load(material.trial.data).test
    first = np.flatnonzero(predicted != labels)[0]
    assert (wrong.images[0] == test.images[first]).all()
    assert (wrong.labels[0], wrong.predicted[0]) == (labels[first], predicted[first])


def test_entropies_are_those_of_nets_with_fewer_iterations(material: Material) -> None:
    entropies, model = material.sample.entropies, material.trial.model
    assert entropies.shape == (3, 60, model.primary_capsules)
    assert entropies[0] == pytest.approx(math.log(10), abs=1e-6)
    images = data.load(material.trial.data).test.images
    weights = material.net.dump()
    for iterations in (1, 2, 3):
        shorter = specification(model.model_copy(update={"routing": iterations}), weights)
        found = shorter.forward(images).coupling
        assert found is not None
        coupling = found.astype(float)
        expected = -(coupling * np.log(coupling)).sum(-1)
        assert entropies[iterations - 1] == pytest.approx(expected, abs=1e-5)
    assert entropies[2].mean() < entropies[1].mean() < math.log(10)


def test_lengths_are_those_of_the_forward_pass(material: Material) -> None:
    test = data.load(material.trial.data).test
    assert material.sample.lengths == pytest.approx(material.net.forward(test.images).lengths, abs=1e-4)
    assert material.sample.labels.tolist() == test.labels.tolist()


def test_the_change_of_the_logits_is_the_couplings_own(material: Material) -> None:
    """b = log c + a constant of each input capsule, so differences of b between classes follow from nets of k iterations."""
    model = material.trial.model
    images = data.load(material.trial.data).validation.images[:5]
    weights = material.net.dump()
    changes = routing_logit_change(model, weights, images, "fp64")
    steps = specification(model, weights, "fp64").routing_steps(images)
    assert changes == pytest.approx([np.abs(agreement).mean() for _, _, agreement in steps], rel=1e-9)
    nets = [specification(model.model_copy(update={"routing": k}), weights, "fp64") for k in (1, 2, 3)]
    couplings = [net.forward(images).coupling for net in nets]
    logs = [np.log(coupling) for coupling in couplings if coupling is not None]
    for k in (0, 1):
        change, agreement = logs[k + 1] - logs[k], steps[k][2]
        assert change - change[..., :1] == pytest.approx(agreement - agreement[..., :1], abs=1e-10)
    recorded = material.result.epochs[-1]["routing_logit_change"]
    assert recorded == pytest.approx(changes, rel=1e-4)  # after the last epoch the weights are these, in float32
    halves = [routing_logit_change(model, weights, part, "fp64") for part in (images[:2], images[2:])]
    assert changes == pytest.approx([(2 * a + 3 * b) / 5 for a, b in zip(*halves, strict=True)])


def test_epochs_as_csv_and_series(run_dir: Path, material: Material) -> None:
    with (folder_of(run_dir) / "epochs.csv").open() as file:
        rows = list(csv.DictReader(file))
    epochs = material.result.epochs
    assert [int(row["epoch"]) for row in rows] == [1, 2]
    for row, epoch in zip(rows, epochs, strict=True):
        for name in ("train_loss", "train_err_pct", "val_loss", "val_err_pct", "lr"):
            assert float(row[name]) == epoch[name]
        assert [float(row[f"routing_logit_change_{k}"]) for k in (1, 2, 3)] == epoch["routing_logit_change"]
    journal = Journal(run_dir)
    series = metric_rows(material.trial, journal.events(material.trial.id))
    found = {(row.key, row.step): row.value for row in series if "routing_logit" in row.key}
    assert len(found) == 6
    assert found["epoch/routing_logit_change_3", 2] == pytest.approx(epochs[1]["routing_logit_change"][2], rel=1e-4)


def test_predictions_are_the_trial_s_own(run_dir: Path, material: Material) -> None:
    predicted, labels = load_predictions(run_dir / "trials" / material.trial.id / "predictions.safetensors")
    assert 100 * (predicted != labels).mean() == pytest.approx(material.result.test_err_pct)
    assert labels.tolist() == data.load(material.trial.data).test.labels.tolist()


def test_without_decoder_and_measure(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    changes = (
        "model.decoder=false",
        "model.decoder_units=",
        "measure.routing_logits=0",
        "model.routing=1",
        "train.epochs=1",
    )
    found = finished_run(tmp_path / "run", *changes)
    [drawn] = draw_run(found)
    assert drawn.left_out == {
        "reconstructions": "the model has no decoder",
        "perturbations": "the model has no decoder",
        "routing_logits": "not asked for (measure.routing_logits in the suite)",
    }
    assert drawn.lacking == {}
    assert {path.name for path in drawn.files} >= {"learning.png", "confusion.png", "lengths.png", "entropy.png"}
    assert material_of(found).sample.entropies == pytest.approx(math.log(10), abs=1e-6)


def test_without_capsules_only_what_any_classifier_has(material: Material, tmp_path: Path) -> None:
    material.trial = material.trial.model_copy(update={"model": ModelSpec(kind="cnn", image=(28, 28, 1), classes=10)})
    drawn = draw_trial(material, tmp_path)
    assert {path.name for path in drawn.files if path.suffix == ".png"} >= {"learning.png", "confusion.png"}
    names = ("reconstructions", "perturbations", "lengths", "entropy")
    assert drawn.left_out == dict.fromkeys(names, "a model of kind cnn has no capsules")


def test_an_older_run_without_predictions(run_dir: Path, tmp_path: Path) -> None:
    old = copy(run_dir, tmp_path)
    next(old.glob("trials/*/predictions.safetensors")).unlink()
    [drawn] = draw_run(old)
    assert list(drawn.lacking) == ["confusion"]
    assert "made by an older capsbench" in drawn.lacking["confusion"]
    assert {"reconstructions.png", "perturbations.png"} <= {path.name for path in drawn.files}
    older, newer = material_of(old), material_of(run_dir)
    assert (older.wrong.images == newer.wrong.images).all()  # the specification says the same of the same images


def test_other_images_are_not_passed_off_as_the_trial_s(run_dir: Path, tmp_path: Path) -> None:
    other = copy(run_dir, tmp_path)
    [path] = other.glob("trials/*/events.jsonl")
    sha256 = material_of(run_dir).result.data_sha256
    events = [json.loads(line.replace(str(sha256), "0" * 64)) for line in path.read_text().splitlines()]
    unsealed = [{key: value for key, value in event.items() if key not in ("line", "check")} for event in events]
    path.write_text(
        "".join(json.dumps(event) + "\n" for event in unsealed)
    )  # as an older version would have written it
    with pytest.raises(LeftOut, match="not those that the trial had"):
        _ = material_of(other).test


def test_a_wrong_network_is_not_drawn_by_the_specification(run_dir: Path, tmp_path: Path) -> None:
    wrong = copy(run_dir, tmp_path)
    material = material_of(wrong)
    with Journal(wrong).open() as journal:
        parity = {"ok": False, "max_rel_err": 1.0, "worst": "L2", "tensors": {}}
        journal.append(material.trial.id, event({"kind": "parity", "time": 1.0, "attempt": 1, **parity}))
    with pytest.raises(LeftOut, match="parity failed"):
        _ = material_of(wrong).net


def test_one_figure_that_fails_is_a_warning(run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_material: Material, _folder: Path) -> list[Path]:
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr(command, "_FIGURES", {"lengths": fail, "epochs": command._FIGURES["epochs"]})
    found, done = copy(run_dir, tmp_path), list[str]()
    journal = Journal(found)
    [trial_id] = journal.trial_ids()
    warnings = draw_missing(journal, [trial_id], done.append)
    assert warnings == [f"no figure lengths of trial {trial_id}: ZeroDivisionError: of all things"]
    assert done == [trial_id]
    assert (folder_of(found) / "epochs.csv").exists()
    assert draw_missing(journal, [trial_id], done.append) == []  # they are there
    assert len(done) == 1


def test_without_matplotlib_a_run_says_how_to_get_figures(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    found = copy(run_dir, tmp_path)
    [warning] = draw_missing(Journal(found), Journal(found).trial_ids(), lambda _: None)
    assert 'pip install "capsbench[report]"' in warning
    assert f"capsbench figures {found}" in warning
    with pytest.raises(UserError, match="figures need matplotlib"):
        draw_run(found)


def test_the_command_draws_the_same_again(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [trial_id] = Journal(run_dir).trial_ids()
    with pytest.raises(SystemExit) as left:
        main(["figures", str(run_dir), trial_id, "--out", str(tmp_path), "--json"])
    assert left.value.code == 0
    [trial] = json.loads(capsys.readouterr().out)["trials"]
    assert (trial["id"], trial["impl"], trial["folder"]) == (trial_id, "numpy", str(tmp_path / trial_id))
    first, again = (json.loads((f / "figures.json").read_text()) for f in (folder_of(run_dir), tmp_path / trial_id))
    assert first == again  # every file byte for byte


def test_what_is_not_there_is_named(run_dir: Path, tmp_path: Path) -> None:
    [trial_id] = Journal(run_dir).trial_ids()
    with pytest.raises(UserError, match=rf'no trial "{trial_id[:-1]}x"; did you mean "{trial_id}"'):
        draw_run(run_dir, [f"{trial_id[:-1]}x"])
    with pytest.raises(UserError, match=rf'is not a run directory.*; did you mean "{run_dir}"'):
        draw_run(run_dir.with_name("quikstart"))
    half = copy(run_dir, tmp_path)
    [path] = half.glob("trials/*/events.jsonl")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert summarise(material_of(half).trial, Journal(half).events(trial_id)).status == "interrupted"
    with pytest.raises(UserError, match=rf"not finished: {trial_id} \(interrupted\).*capsbench run quickstart.yaml"):
        draw_run(half)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("measure.routing_logits=21",), "measure.routing_logits: found 21, more than the 20 validation images"),
        (("data.validation=0", "measure.routing_logits=201"), "more than the 200 training images"),
        (("measure.routing_logit=3",), 'did you mean "routing_logits"'),
    ],
)
def test_the_measure_is_checked_before_anything_starts(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        small_suite(*overrides)
