"""Event files say what the journal says, to TensorBoard's own reader too."""

from __future__ import annotations

import importlib
import json
import shutil
import struct
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from harness.commands.cli import main
from harness.errors import UserError
from harness.events import TrialEvent
from harness.journal.journal import Journal
from harness.journal.kept import find_trial
from harness.journal.results import summarise
from harness.views.tensorboard import EventFiles, LiveFiles, Scalar, scalars, write_all
from tests.conftest import ROOT
from tests.helpers.event_helpers import event
from tests.helpers.run_helpers import capsbench, write_suite

pytest.importorskip("tensorboardX")
RUN, TRIAL = ROOT / "tests" / "runs" / "quickstart-0.1", "7e07db8f14b8"


def read(folder: Path) -> list[Any]:
    """The events of the only file in a folder. The format: length, its checksum, the event, its checksum."""
    kind = importlib.import_module("tensorboardX.proto.event_pb2").Event
    [path] = folder.glob("events.out.tfevents.*")
    content, events = path.read_bytes(), []
    while content:
        (length,) = struct.unpack_from("<Q", content)
        events.append(kind.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    return events


def points(folder: Path) -> list[tuple[str, int, float]]:
    found = [(value, each.step) for each in read(folder) for value in each.summary.value]
    return [(value.tag, step, value.simple_value) for value, step in found if not value.tag.startswith("_hparams_")]


def copied(folder: Path) -> Path:
    return Path(shutil.copytree(RUN, folder / "run"))


def test_the_files_hold_the_journal_s_figures(tmp_path: Path) -> None:
    run = copied(tmp_path)
    folder, trials, count = write_all(run)
    assert (folder, trials) == (run / "tensorboard", 4)
    assert sorted(each.name.rpartition("-")[2] for each in folder.iterdir()) == sorted(
        path.name[:6] for path in (run / "trials").iterdir()
    )
    journal = Journal(run)
    trial, events = journal.trial(TRIAL), journal.events(TRIAL)
    found, result = points(folder / "numpy-s0-7e07db"), summarise(trial, events)
    assert count > len(found) > 20
    for epoch in result.epochs:
        for tag, expected in {
            "loss/train": epoch["train_loss"], "loss/validation": epoch["val_loss"], "time/epoch_s": epoch["epoch_s"],
            "loss/train_margin": epoch["train_margin"], "accuracy_pct/validation": 100 - epoch["val_err_pct"],
            "optimiser/lr": epoch["lr"],
        }.items():  # fmt: skip
            [value] = [value for each, step, value in found if (each, step) == (tag, epoch["epoch"])]
            assert value == pytest.approx(expected, rel=1e-6)
    final = {tag: value for tag, _, value in found}
    assert final["accuracy_pct/test"] == pytest.approx(100 - (result.test_err_pct or 0), rel=1e-6)
    assert final["parity/max_rel_err"] == pytest.approx(result.parity_max_rel_err, rel=1e-6)
    assert final["parity/ok"] == 1
    written = [each for each in read(folder / "numpy-s0-7e07db") if each.step == 2]
    assert {each.wall_time for each in written} == {each.time for each in events[-2:]}


def test_tensorboard_itself_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    # its own way of saying that it has to do without TensorFlow, whose import would take most of the time
    monkeypatch.setitem(sys.modules, "tensorboard.compat.notf", ModuleType("notf"))
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder, *_ = write_all(copied(tmp_path))
    read = reader.EventAccumulator(str(folder / "numpy-s0-7e07db")).Reload()
    losses = read.Scalars("loss/train")
    assert [each.step for each in losses] == [1, 2]
    journal = Journal(RUN)
    epochs = summarise(journal.trial(TRIAL), journal.events(TRIAL)).epochs
    assert [each.value for each in losses] == pytest.approx([epoch["train_loss"] for epoch in epochs], rel=1e-6)
    assert "accuracy_pct/test" in read.Tags()["scalars"]
    plugin: Any = importlib.import_module("tensorboard.plugins.hparams.plugin_data_pb2").HParamsPluginData
    content = read.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    settings = plugin.FromString(content).session_start_info.hparams
    assert settings["impl"].string_value == "numpy"
    assert settings["seed"].number_value == 0


def test_no_time_without_parity_and_no_accuracy_of_an_unsound_trial() -> None:
    trial = find_trial(RUN, TRIAL)
    epoch = {"kind": "epoch", "epoch": 1, "val_err_pct": 7.0}
    events = [event({"kind": "attempt"}), event({"kind": "ready"}), event(epoch)]
    events.append(event({"kind": "result", "audit": {"ok": False, "note": "wrong"}, "test_err_pct": None}))
    found = {point.tag for point in scalars(trial, events)}
    assert "loss/train" in found
    assert not {tag for tag in found if tag.startswith("time/") or tag.startswith("accuracy_pct/test")}


def test_numbers_that_are_not_finite_are_left_out() -> None:
    trial = find_trial(RUN, TRIAL)
    events = [event({"kind": "attempt"}), event({"kind": "epoch", "epoch": 1, "train_loss": None})]
    assert "loss/train" not in {point.tag for point in scalars(trial, events)}


def test_live_files_grow_and_are_begun_anew_after_a_resume(tmp_path: Path) -> None:
    trial = find_trial(RUN, TRIAL)
    stages: list[list[TrialEvent]] = [
        [event({"kind": "attempt"}), event({"kind": "parity", "ok": True, "max_rel_err": 1e-6, "worst": "L1 x"})],
        [event({"kind": "epoch", "epoch": 1, "train_loss": 3.0})],
        [event({"kind": "epoch", "epoch": 2, "train_loss": 2.0})],
        [event({"kind": "attempt", "attempt": 2, "resumed_epoch": 1})],
        [event({"kind": "epoch", "attempt": 2, "epoch": 2, "train_loss": 1.0})],
        [event({"kind": "result", "attempt": 2})],
    ]
    folder = tmp_path / "tensorboard" / "numpy-s0-7e07db"
    losses: list[list[float]] = []
    with Journal(tmp_path).open() as journal:
        (tmp_path / "trials" / TRIAL).mkdir()
        (tmp_path / "trials" / TRIAL / "trial.json").write_text(trial.model_dump_json())
        live = LiveFiles(journal, [TRIAL])
        for stage in stages:
            for each in stage:
                journal.append(TRIAL, each)
            live.update(TRIAL)
            losses.append([value for tag, _, value in points(folder) if tag == "loss/train"])
        with pytest.raises(UserError, match="is running"):
            write_all(tmp_path)
        assert live.close() is None
    assert losses == [[], [3.0], [3.0, 2.0], [3.0], [3.0, 1.0], [3.0, 1.0]]
    whole = points(folder)
    write_all(tmp_path)
    assert points(folder) == whole
    assert Scalar("loss/train", 1.0, 2, 0.0) in scalars(trial, journal.events(TRIAL))


def test_a_folder_that_cannot_be_written_stops_no_run(tmp_path: Path) -> None:
    run = copied(tmp_path)
    (run / "tensorboard").write_text("in the way")
    live = LiveFiles(Journal(run), [TRIAL])
    live.update(TRIAL)
    told = live.close()
    assert told is not None
    assert told.endswith(f"to write it again: capsbench sync {run} --tensorboard")
    with pytest.raises(UserError, match="cannot write"):
        write_all(run)
    with EventFiles(Journal(RUN)) as files:
        assert files.folder == RUN / "tensorboard"


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = write_suite(tmp_path, parity={"gate": False}, train={"epochs": 1})
    options = ("--executor", "inline", "--no-mlflow", "--tensorboard")
    done = capsbench(tmp_path, "run", suite, *options)
    assert done.returncode == 0, done.stderr
    assert "Watch in TensorBoard: tensorboard --logdir runs/small/tensorboard" in done.stdout
    [folder] = (tmp_path / "runs" / "small" / "tensorboard").iterdir()
    before = points(folder)
    assert {"loss/train", "accuracy_pct/test"} <= {tag for tag, *_ in before}
    with pytest.raises(SystemExit) as ended:
        main(["sync", str(tmp_path / "runs" / "small"), "--tensorboard", "--json"])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out) == {
        "logdir": str(folder.parent), "trials": 1, "points": len(before)
    }  # fmt: skip
    assert points(folder) == before


def test_without_the_writer_nothing_starts(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX.event_file_writer", None)
    for arguments in (
        ["run", "quickstart", "--tensorboard", "--out", str(tmp_path)],
        ["sync", str(RUN), "--tensorboard"],
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        assert 'pip install "capsbench[tensorboard]"' in capfd.readouterr().err
    assert not [*tmp_path.iterdir()]
