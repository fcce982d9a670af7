"""Cells compared image by image: which predictions count, and what report and compare say of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from harness.analysis.cells import of_run
from harness.analysis.compare import compare
from harness.analysis.images import answers_of, between
from harness.commands.cli import main
from harness.errors import UserError
from harness.journal.journal import Journal
from harness.weights.files import save_predictions
from tests.helpers.seeds_helpers import events_of, make_trial, write_events, write_plan

IMAGES = 300
LABELS = np.arange(IMAGES) % 10


def run_of(run_dir: Path, impls: dict[str, list[slice]], labels: np.ndarray = LABELS) -> Path:
    """A finished run; for each implementation and seed, the test images that it has wrong."""
    trials = [
        (make_trial(impl, seed=seed, data={"name": "digits", "test": IMAGES}), wrong)
        for impl, of_seeds in impls.items()
        for seed, wrong in enumerate(of_seeds)
    ]
    with Journal(run_dir).open() as journal:
        write_plan(journal, [trial for trial, _ in trials])
        for trial, wrong in trials:
            predicted = labels.copy()
            predicted[wrong] = (predicted[wrong] + 1) % 10
            save_predictions(journal.trial_dir(trial.id) / "predictions.safetensors", predicted, labels)
            *before, result = events_of(100 * float((predicted != labels).mean()))
            told = {**result, "predictions": "predictions.safetensors", "test_images": IMAGES}
            write_events(journal, trial, [*before, told])
    return run_dir


TORCH, TF = [slice(0, 20), slice(2, 21), slice(1, 22)], [slice(0, 40), slice(1, 42), slice(3, 44)]


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(each) for each in arguments])
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out, printed.err


def test_mistakes_are_counted_image_by_image(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", {"torch": TORCH, "tf": TF})
    cells = of_run(Journal(run))
    [row] = between(cells, answers_of(run, cells))
    assert (row.key, row.images, list(row.by_seed)) == ("impl", IMAGES, [0, 1, 2])
    assert [(each.both, each.only_a, each.only_b) for each in row.by_seed.values()] == [
        (20, 0, 20), (19, 0, 22), (19, 2, 22),
    ]  # fmt: skip
    assert row.test.difference == pytest.approx(100 * (20 + 22 + 20) / 3 / IMAGES)
    assert row.significant


def test_report_shows_them_and_what_could_be_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(tmp_path / "run", {"torch": TORCH, "tf": TF})
    code, out, err = command(capsys, "report", run, "--json")
    [row] = json.loads(out)["images"]
    assert (code, row["key"], row["a"]["impl"], row["b"]["impl"], row["significant"]) == (
        0,
        "impl",
        "torch",
        "tf",
        True,
    )
    assert row["by_seed"]["2"]["only_b"] == 22
    assert "Test errors image by image" in err
    assert "The same 300 test images" in (run / "report/report.html").read_text()


def test_compare_does_the_same_across_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = run_of(tmp_path / "a", {"torch": TORCH}), run_of(tmp_path / "b", {"torch": TF})
    code, out, err = command(capsys, "compare", a, b, "--json")
    [row] = json.loads(out)["images"]
    assert code == 1  # by the test over seeds
    assert (row["key"], row["images"], row["n_a"]) == ("run", IMAGES, 3)
    assert "A: torch" in err


def test_other_images_are_not_compared(tmp_path: Path) -> None:
    a, b = run_of(tmp_path / "a", {"torch": TORCH}), run_of(tmp_path / "b", {"torch": TF}, labels=LABELS[::-1].copy())
    assert compare(a, b).images == []
    without = run_of(tmp_path / "c", {"torch": TF})
    for path in without.glob("trials/*/predictions.safetensors"):
        path.unlink()
    assert compare(a, without).images == []


def test_predictions_that_were_changed_are_told(tmp_path: Path) -> None:
    a, b = run_of(tmp_path / "a", {"torch": TORCH}), run_of(tmp_path / "b", {"torch": TF})
    path = next(b.glob("trials/*/predictions.safetensors"))
    arrays = load_file(path)
    arrays["predicted"] = (arrays["predicted"] + 1) % 10
    save_file(arrays, path)
    with pytest.raises(UserError, match="its test error is"):
        compare(a, b)
