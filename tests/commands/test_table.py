"""`capsbench table`: every figure of every trial and epoch, under documented names."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
from pathlib import Path

import pytest

import capsbench
from harness.analysis.rows import COLUMNS, all_rows
from harness.commands.cli import main
from harness.journal.journal import Journal
from tests.conftest import ROOT

RUNS = {"mnist": ROOT / "results" / "mnist-1-epoch", "quickstart": ROOT / "tests" / "runs" / "quickstart-0.1"}


def called(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> tuple[str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["table", *map(str, arguments)])
    found = capsys.readouterr()
    assert ended.value.code == code, found
    return found.out, found.err


@pytest.mark.parametrize("name", RUNS)
def test_one_row_for_each_epoch_of_each_trial(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = capsbench.open_run(RUNS[name])
    rows = list(csv.DictReader(io.StringIO(called(capsys, RUNS[name], "--csv")[0])))
    epochs, trials = run.rows("epochs"), {row["trial"]: row for row in run.rows("trials")}
    assert [(row["trial"], row["epoch"]) for row in rows] == [(row["trial"], str(row["epoch"])) for row in epochs]
    for row, epoch in zip(rows, epochs, strict=True):
        trial = trials[row["trial"]]
        for column in ("epoch_s", "train_loss", "val_err_pct", "lr", "train_margin"):
            assert row[column] == ("" if epoch.get(column) is None else repr(epoch[column]))
        assert row["warmup"] == str(epoch["warmup"]).lower()
        for column in ("epoch_s", "test_err_pct", "peak_bytes", "parity_max_rel_err"):
            assert row[f"trial_{column}"] == ("" if trial[column] is None else repr(trial[column]))
        assert row["trial_status"] == "finished"
        assert row["trial_parity_ok"] == str(trial["parity_ok"]).lower()


def test_the_columns_are_the_same_in_every_run_and_documented() -> None:
    page = (ROOT / "docs" / "table.md").read_text()
    documented = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", page, re.MULTILINE))
    assert documented == {name: said.replace("|", "\\|") for name, said in COLUMNS.items()}
    for run_dir in RUNS.values():
        columns = list(all_rows(Journal(run_dir))[0])
        besides = [column for column in columns if column not in COLUMNS]
        assert [column for column in columns if column in COLUMNS] == list(COLUMNS)
        assert set(besides) <= {"train_margin", "train_reconstruction"}


def test_a_trial_without_epochs_and_what_the_grid_varies(tmp_path: Path) -> None:
    run = shutil.copytree(RUNS["quickstart"], tmp_path / "run")
    first, *others = sorted(folder.name for folder in (run / "trials").iterdir())
    (run / "trials" / first / "events.jsonl").unlink()
    for number, id in enumerate((first, *others)):
        path = run / "trials" / id / "trial.json"
        document = json.loads(path.read_text())
        document["params"] = {"model.routing": number, "model.decoder_units": [8, 8]}
        path.write_text(json.dumps(document))
    rows = all_rows(Journal(run))
    assert len(rows) == 1 + 2 * len(others)
    assert list(rows[0])[:6] == ["suite", "trial", "impl", "seed", "model.routing", "model.decoder_units"]
    [pending] = [row for row in rows if row["trial"] == first]
    assert (pending["epoch"], pending["trial_status"], pending["model.routing"]) == (None, "pending", 0)
    assert {tuple(row) for row in rows} == {tuple(rows[0])}


def test_json_and_the_screen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(called(capsys, RUNS["quickstart"], "--json", "--csv", tmp_path / "all.csv")[0])
    assert found["rows"] == all_rows(Journal(RUNS["quickstart"]))
    assert list(found["columns"]) == list(found["rows"][0])
    assert len((tmp_path / "all.csv").read_text().splitlines()) == 1 + len(found["rows"])
    shown, _ = called(capsys, RUNS["quickstart"])
    assert "4 trials, 8 rows" in shown
    heading = next(line for line in shown.splitlines() if line.startswith("trial"))
    assert heading.split()[:4] == ["trial", "impl", "state", "seed"]


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RUNS["quickstart"]
    assert "is not a run directory" in called(capsys, tmp_path, code=2)[1]
    assert "both write to stdout" in called(capsys, run, "--csv", "--json", code=2)[1]
    assert "RUN comes before --csv" in called(capsys, run, "--csv", run, code=2)[1]
    assert "cannot write" in called(capsys, run, "--csv", tmp_path / "nowhere" / "all.csv", code=2)[1]
    assert "--csv is empty" in called(capsys, run, "--csv", "", code=2)[1]
    assert "RUN is empty" in called(capsys, "", code=2)[1]


def test_what_is_no_file_is_written_to_and_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe, target, link = tmp_path / "pipe", tmp_path / "target.csv", tmp_path / "link.csv"
    os.mkfifo(pipe)
    link.symlink_to(target)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)  # the table is smaller than a pipe's buffer
    called(capsys, RUNS["quickstart"], "--csv", pipe)
    called(capsys, RUNS["quickstart"], "--csv", link)
    try:
        assert os.read(reader, 1 << 16) == target.read_bytes() != b""
    finally:
        os.close(reader)
    assert pipe.is_fifo()
    assert link.is_symlink()
