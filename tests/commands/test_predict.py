"""`capsbench predict` as a user meets it."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import data
from harness.commands.cli import main
from harness.prediction.fitting import fitted
from harness.prediction.pictures import find
from harness.prediction.trained import of_file
from harness.spec.trial import DataConfig
from harness.weights.files import load_predictions
from tests.conftest import ROOT
from tests.helpers.pictures import COLOURS, class_folders
from tests.helpers.run_helpers import SMALL, capsbench, write_suite

RUN, TRIAL = ROOT / "tests" / "runs" / "quickstart-0.1", "7e07db8f14b8"
pillow: Any = pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first test images of the trial's data set, as pictures."""
    folder = tmp_path_factory.mktemp("digits")
    for index, image in enumerate(data.load(DataConfig(name="digits")).test.images[:70]):
        pillow.fromarray(image[..., 0]).save(folder / f"{index:04d}.png")
    return folder


def test_pictures_of_the_test_images_are_predicted_as_they_were(digits: Path, tmp_path: Path) -> None:
    done = capsbench(
        tmp_path, "predict", "--csv", "out.csv", RUN, TRIAL[:4], "--sheet", "sheet.png", "--json", "--batch", 32, digits
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    before, _ = load_predictions(RUN / "trials" / TRIAL / "predictions.safetensors")
    assert [each["class"] for each in found["predictions"]] == before[:70].tolist()
    assert (found["impl"], found["score"], found["warnings"], found["problems"]) == ("numpy", "capsule length", [], [])
    assert found["model"]["trial"] == TRIAL
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [each["file"] for each in found["predictions"]]
    for row, each in zip(rows, found["predictions"], strict=True):
        assert float(row["score"]) == each["score"]
        assert [float(row[f"score_{label}"]) for label in range(10)] == each["scores"]
    with pillow.open(tmp_path / "sheet.png") as sheet:
        assert min(sheet.size) > 500
    assert "Traceback" not in done.stderr


def test_the_table_and_what_is_doubtful(digits: Path, tmp_path: Path) -> None:
    dark = np.asarray(pillow.open(digits / "0000.png"))
    pillow.fromarray(255 - dark).resize((56, 84)).convert("RGB").save(tmp_path / "on paper [1].png")
    whole = (digits / "0001.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    done = capsbench(tmp_path, "predict", RUN, TRIAL, "on paper [1].png", "cut.png", COLUMNS="200")
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[0].split() == ["picture", "class", "capsule", "length", "normalised", "next"]
    assert "on paper [1].png" in done.stdout
    assert "fitted, 1 picture: 84x56 resized to 28x19, padded to 28x28" in done.stdout
    assert "cut.png: a PNG picture that ends early or is damaged" in done.stdout
    assert "1 of 1 pictures have a light background" in done.stdout
    assert done.stderr == ""


def test_one_s_own_pictures_are_predicted_as_in_the_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class_folders(tmp_path / "mine", 8, (24, 36))
    tests = class_folders(tmp_path / "test", 5, (24, 36), first=500)
    everything = dict.fromkeys(("train", "validation", "test"))
    own = {"name": "folder", "path": "mine", "test_path": "test", "resize": 20, "fit": "crop", **everything}
    suite = write_suite(tmp_path, data=own, model=SMALL["model"] | {"kernel": 5}, parity={"gate": False})
    place = {"CAPSBENCH_DATA": str(tmp_path / "data")}
    monkeypatch.setenv("CAPSBENCH_DATA", place["CAPSBENCH_DATA"])
    done = capsbench(tmp_path, "run", suite, "--executor", "inline", "--no-mlflow", figures=False, **place)
    assert done.returncode == 0, done.stderr
    [folder] = (tmp_path / "runs" / "small" / "trials").iterdir()
    weights = folder / "weights.safetensors"
    which = of_file(weights)
    assert which.data is not None
    before, _ = load_predictions(folder / "predictions.safetensors")
    images = data.load(which.data).test.images
    known = {image.tobytes(): label for image, label in zip(images, before.tolist(), strict=True)}
    done = capsbench(tmp_path, "predict", tests, "--weights", weights, "--json", figures=False, **place)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["class_names"] == list(COLOURS)
    for item, each in zip(find([tests]), found["predictions"], strict=True):
        pixels, _ = fitted(item.read(), which.model.image, framing=which.framing)
        assert each["class"] == known[pixels.tobytes()]  # the very pixels that the trial was tested on
    assert {each["name"] for each in found["predictions"]} <= set(COLOURS)
    assert found["predictions"][0]["fitted"] == ["scaled to 20x20, sides cut off"]
    shutil.rmtree(tmp_path / "mine")
    shutil.rmtree(tmp_path / "data")  # a file of weights says by itself what its classes are
    shutil.copy(weights, tmp_path / "alone.safetensors")
    assert of_file(tmp_path / "alone.safetensors").class_names == COLOURS


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["predict", *map(str, arguments)])
    assert ended.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def test_what_cannot_be_predicted_is_refused(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    picture = digits / "0000.png"
    assert "expected RUN TRIAL FILE..., or --weights W.safetensors FILE...; found 1: x" in refused(capsys, "x")
    assert f'did you mean "{RUN}"?' in refused(capsys, RUN.with_name("quickstart-0.2"), TRIAL, picture)
    assert f'has no trial "7e17db8f14b8"; did you mean "{TRIAL}"?' in refused(capsys, RUN, "7e17db8f14b8", picture)
    assert 'no weights "7": that epoch' in refused(capsys, RUN, TRIAL, picture, "--weights", "7")
    assert '--weights bets: no such file; did you mean "best"?' in refused(capsys, picture, "--weights", "bets")
    assert 'unknown --fit "padded"; did you mean "pad"?' in refused(capsys, RUN, TRIAL, picture, "--fit", "padded")
    assert f"in place of RUN TRIAL; drop {RUN} {TRIAL}" in refused(
        capsys, RUN, TRIAL, picture, "--weights", RUN / "trials" / TRIAL / "weights.safetensors"
    )
    assert "there is no folder nowhere" in refused(capsys, RUN, TRIAL, picture, "--csv", "nowhere/out.csv")
    before = picture.read_bytes()
    assert "did not write is there: a PNG picture" in refused(capsys, RUN, TRIAL, picture, "--csv", picture)
    assert picture.read_bytes() == before
    assert "a folder; expected a file" in refused(capsys, RUN, TRIAL, picture, "--csv", tmp_path)
    assert "ends in .png" in refused(capsys, RUN, TRIAL, picture, "--sheet", "sheet.jpeg")
    assert "--batch 0: expected a whole number" in refused(capsys, RUN, TRIAL, picture, "--batch", "0")
    assert 'unknown implementation "toch"; did you mean "torch"?' in refused(
        capsys, RUN, TRIAL, picture, "--impl", "toch"
    )
    run = shutil.copytree(RUN, tmp_path / "run")
    events = run / "trials" / TRIAL / "events.jsonl"
    events.write_text("".join(line for line in events.read_text().splitlines(True) if '"result"' not in line))
    assert f"trial {TRIAL} has no weights yet: run its suite again to finish it" in refused(capsys, run, TRIAL, picture)
    weights = shutil.copytree(RUN, tmp_path / "other") / "trials" / TRIAL / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert "its SHA-256 begins with" in refused(capsys, tmp_path / "other", TRIAL, picture)
    assert "its SHA-256 begins with" in refused(capsys, picture, "--weights", weights)
