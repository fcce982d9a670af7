"""A suite on a folder of coloured pictures, from `plan` to the report, in all three frameworks."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from harness import registry
from harness.commands.cli import main
from harness.commands.export import export
from harness.commands.plan import Plan, RunRequest, make_plan
from harness.commands.predict import predict
from harness.executors.inline import InlineExecutor
from harness.journal.journal import Journal
from harness.prediction.pictures import find
from harness.prediction.predict import Prediction
from harness.prediction.trained import requested
from tests.helpers.pictures import COLOURS, class_folders, picture, save
from tests.helpers.run_helpers import capsbench, write_suite

TINY = {
    "kernel": 5, "conv_channels": 4, "primary_types": 2, "primary_dim": 4, "digit_dim": 4, "decoder_units": [8, 8],
    "routing": 2,
}  # fmt: skip
ALL = dict.fromkeys(("train", "validation", "test"))  # of the pictures there are


def code(*arguments: str) -> int:
    """The exit code of the command."""
    with pytest.raises(SystemExit) as ended:
        main([*arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAPSBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CAPSBENCH_GATE_CACHE", "off")
    return tmp_path


def test_coloured_pictures_in_every_framework(place: Path) -> None:
    class_folders(place / "my pictures", 16, (32, 32))
    suite = write_suite(
        place, name="own", data={"name": "folder", "path": "my pictures", **ALL},
        model=TINY, train={"epochs": 1}, grid={"impl": [*registry.FRAMEWORKS]}, parity={"level": "L4", "steps": 1},
        runtime={"compile": True},
    )  # fmt: skip
    done = capsbench(
        place, "run", suite.name, "--executor", "inline", "--no-mlflow", "--json", figures=True,
        CAPSBENCH_DATA=str(place / "data"), CAPSBENCH_GATE_CACHE="off",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    trials = json.loads(done.stdout)["trials"]
    assert [trial["impl"] for trial in trials] == [*registry.FRAMEWORKS]
    assert {trial["status"] for trial in trials} == {"finished"}
    assert all(trial["parity_ok"] for trial in trials)
    assert len({trial["data_sha256"] for trial in trials}) == 1
    shutil.copy(place / "my pictures" / COLOURS[0] / "0.png", place / "new.png")
    shutil.rmtree(place / "my pictures")  # all that follows needs the run directory alone
    journal = Journal(place / "runs" / "own")
    for trial in trials:
        figures = journal.trial_dir(trial["id"]) / "figures"
        assert json.loads((figures / "figures.json").read_text())["lacking"] == {}
        with (figures / "classes.csv").open() as file:
            assert [row["name"] for row in csv.DictReader(file)] == [*COLOURS]
        assert (figures / "reconstructions.png").exists()
    assert code("report", "runs/own") == 0
    assert all(name in (place / "runs" / "own" / "report" / "report.md").read_text() for name in registry.FRAMEWORKS)
    predicted: list[np.ndarray] = []
    for trial in trials:
        trained, paths = requested(["runs/own", trials[0]["id"], "new.png"], "last")
        [said] = predict(trained, find(paths), trial["impl"]).said
        assert isinstance(said, Prediction)
        assert trained.class_names == tuple(COLOURS)
        predicted.append(said.scores)
        exported = export(journal.run_dir, trial["id"], trial["impl"])
        assert {"model.py", "config.json"} < {path.name for path in exported.folder.iterdir()}
    np.testing.assert_allclose(
        predicted[1:], predicted[:1] * 2, rtol=1e-4, atol=1e-5
    )  # three frameworks, the same weights


def test_plan_tells_what_it_found_and_refuses_what_it_cannot_read(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class_folders(place / "p", 12)
    suite = write_suite(
        place, name="own", data={"name": "folder", "path": "p", **ALL, "resize": 20},
        model=TINY, train={"batch": 8},
    )  # fmt: skip

    def planned(*more: str) -> tuple[int, str]:
        status = code("plan", str(suite), *more)
        out = capsys.readouterr()
        return status, " ".join((out.out + out.err).split())

    status, said = planned()
    assert status == 0
    assert (
        "27 + 3 + 6 pictures of 20x20x3, test and validation pictures drawn from those for training; 3 classes: blue"
        in said
    )
    status, said = planned("-s", "data.split.seed=0,1", "-s", "data.crop=18")
    assert (status, "2 of 2 trials to run" in said) == (0, True)
    status, said = planned("-s", "data.crop=24")
    assert (status, "data.crop: 24x24 pixels, but the images are 20x20" in said) == (2, True)
    status, said = planned("-s", "data.crop=wide")
    assert (status, "expected a number of pixels such as 32, or HEIGHTxWIDTH such as 32x48" in said) == (2, True)
    status, said = planned("-s", "data.path=nowhere")
    assert (status, f"data.path: there is no folder {place / 'nowhere'}" in said) == (2, True)
    (place / "sub").mkdir()
    beside = class_folders(place / "sub" / "beside", 3)
    (place / "sub" / "own.yaml").write_text(suite.read_text())
    status = code("plan", str(place / "sub" / "own.yaml"), "data.path=beside")
    assert (status, "lies beside the suite" in (err := capsys.readouterr().err), f"{beside}" in err) == (2, True, True)
    (place / "more" / "lilac").mkdir(parents=True)
    save(place / "more" / "lilac" / "1.png", picture(1))
    status, said = planned("data.test_path=more")
    assert (status, "data.test_path: " + str(place / "more") + ': the class "lilac"' in said) == (2, True)
    status, said = planned("--json")
    assert (status, '"notes": [' in said) == (0, True)
    status, said = planned("-s", "data.classes=[red,blue]")
    assert (status, "18 + 2 + 4 pictures" in said) == (0, True)
    status, said = planned("-s", "data.classes=[red,red]")
    assert (status, 'data.classes: "red" is there twice' in said) == (2, True)
    status, said = planned("-s", "data.split.test=1.5")
    assert (status, "found 1.5, expected a number above 0 and below 1" in said) == (2, True)
    save(place / "p" / "red" / "broken.png", picture(1)).write_bytes(b"no picture")
    status, said = planned()
    assert (status, f"{place / 'p' / 'red' / 'broken.png'}: text 1 of 37 pictures cannot be used" in said) == (2, True)


def test_changed_pictures_are_told_and_are_new_trials(place: Path) -> None:
    class_folders(place / "p", 8, (20, 20))
    suite = write_suite(
        place, name="own", data={"name": "folder", "path": "p", **ALL},
        model=TINY, train={"epochs": 1, "batch": 8}, parity={"gate": False},
    )  # fmt: skip

    def plan() -> Plan:
        return make_plan(RunRequest(suite), InlineExecutor())

    first = plan()
    assert not any("holds other pictures" in note for note in first.notes)
    with Journal(first.run_dir).open() as journal:
        journal.write_plan(
            {"suite": "own", "trials": [trial.model_dump(mode="json") for trial in first.trials]}, first.suite.source
        )
    assert plan().trials == first.trials
    save(place / "p" / "red" / "0.png", picture(77, 2, (20, 20)))
    second = plan()
    assert {trial.id for trial in second.trials}.isdisjoint(trial.id for trial in first.trials)
    told = f"{place / 'p'} holds other pictures than those of earlier trials in runs/own: they were changed since"
    assert any(note.startswith(told) for note in second.notes)
    elsewhere = (place / "p").rename(place / "q")
    suite.write_text(suite.read_text().replace("path: p", f"path: {elsewhere}"))
    assert plan().trials[0].id == second.trials[0].id  # where they are does not matter


def test_data_show_draws_a_suites_pictures(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class_folders(place / "p", 5, (20, 20))
    write_suite(place, name="own", data={"name": "folder", "path": "p", **ALL}, model=TINY,
                train={"batch": 4})  # fmt: skip
    assert code("data", "show", "own.yaml", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["splits"]["train"]["per_class"] == dict.fromkeys(COLOURS, 3)
    assert (place / "own-test.png").exists()
    assert code("data", "show", "folder") == 2
    assert "your own pictures are described in a suite" in capsys.readouterr().err
