"""MLflow's database file: at any path, moved, of another version, locked, not a database, in a folder only to be read."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from harness.commands import cli
from harness.errors import UserError
from harness.journal.journal import Journal
from harness.views.mlflow import database
from harness.views.mlflow.client import prepare
from harness.views.mlflow.server import newest_experiment
from harness.views.mlflow.tracking import Tracker, default_uri, sync
from harness.views.mlflow.where import VARIABLE, locate
from tests.helpers import seeds_helpers
from tests.helpers.permissions import bound, only_to_be_read

ODD = 'what? a#b 100% %41 it\'s "odd" Übung\n' + "ä" * 100


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder of one run, in MLflow, in a folder with an odd name: making its database takes seconds."""
    out = tmp_path_factory.mktemp("made") / ODD / "runs"
    out.mkdir(parents=True)
    trials = [seeds_helpers.make_trial(seed=seed) for seed in (0, 1)]
    run = seeds_helpers.write_run(out / "seeds", [(trial, seeds_helpers.events_of(0.3)) for trial in trials])
    for trial in trials:
        (run / "trials" / trial.id / "attempt-1.log").write_text("hello\n")
    report = sync(run)
    assert (report.trials, report.events) == (2, 12)
    return out


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    """That folder, moved: a copy of it elsewhere, while the original is out of the way."""
    return Path(shutil.copytree(made, tmp_path / "elsewhere"))


def client_of(out: Path) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(default_uri(out))


def logs(out: Path) -> dict[str, str]:
    """Run name -> its log, downloaded from MLflow."""
    client = client_of(out)
    runs = client.search_runs([newest_experiment(out, default_uri(out))], "tags.`capsbench.kind` = 'trial'")
    return {
        run.info.run_name: Path(client.download_artifacts(run.info.run_id, "attempt-1.log")).read_text() for run in runs
    }


LOGS = {f"torch s{seed}": "hello\n" for seed in (0, 1)}


def test_any_path_will_do_and_nothing_is_made_beside_it(made: Path) -> None:
    assert {path.name for path in made.iterdir()} == {"seeds", "mlflow.db", "mlartifacts", ".mlflow.lock"}
    assert [path.name for path in made.parent.iterdir()] == ["runs"]
    assert [path.name for path in made.parent.parent.iterdir()] == [ODD]
    assert logs(made) == LOGS
    assert sync(made / "seeds").events == 0


def test_nothing_is_made_in_the_current_folder(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    (out / "seeds" / "mlflow.json").unlink()
    assert sync(out / "seeds").events == 12
    assert list(here.iterdir()) == []


def test_a_moved_folder_keeps_its_runs_and_their_files(out: Path, made: Path) -> None:
    hidden = made.rename(made.with_name("hidden"))
    try:
        before = client_of(hidden).search_runs(["1"])
        report = sync(out / "seeds")
        assert report.events == 0
        assert newest_experiment(out, default_uri(out)) == report.experiment_id
        assert logs(out) == LOGS
        runs = client_of(out).search_runs([report.experiment_id])
        assert {run.info.run_id for run in runs} == {run.info.run_id for run in before}
        assert {run.data.tags["capsbench.run_dir"] for run in runs} == {str(out / "seeds")}
        with closing(sqlite3.connect(out / "mlflow.db")) as db:
            places = [
                place
                for (place,) in db.execute(
                    "SELECT artifact_uri FROM runs UNION SELECT artifact_location FROM experiments"
                )
            ]
        assert not [place for place in places if "made" in place and "mlruns/0" not in place]
    finally:
        hidden.rename(made)


def test_a_copy_is_apart_from_the_folder_it_was_copied_from(out: Path, made: Path) -> None:
    before = sorted(path.name for path in made.rglob("*"))
    with Journal(out / "seeds").open() as journal:
        trial = journal.trial(journal.trial_ids()[0])
        seeds_helpers.write_events(journal, trial, [{"kind": "warning", "message": "late"}], time.time())
        (journal.trial_dir(trial.id) / "attempt-2.log").write_text("more\n")
    assert sync(out / "seeds").events == 1
    assert len(list(out.rglob("mlartifacts/**/attempt-2.log"))) == 1
    assert sorted(path.name for path in made.rglob("*")) == before


def test_a_database_without_its_artifacts_gets_them_again(out: Path, made: Path) -> None:
    shutil.rmtree(out / "mlartifacts")
    hidden = made.rename(made.with_name("hidden"))
    try:
        assert sync(out / "seeds").events == 12
        assert logs(out) == LOGS
        assert sync(out / "seeds").events == 0
    finally:
        hidden.rename(made)


def test_a_cursor_of_an_earlier_version_is_understood_after_a_move(out: Path) -> None:
    assert '"uri"' in (out / "seeds" / "mlflow.json").read_text()
    cursor = out / "seeds" / "mlflow.json"
    text = "\n".join(line for line in cursor.read_text().splitlines() if '"run_dir"' not in line)
    cursor.write_text(text)
    assert sync(out / "seeds").events == 0


def test_the_variable_is_honoured_and_the_screen_says_so(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    uri = f"sqlite:///{tmp_path}/other.db"
    shutil.copy(out / "mlflow.db", tmp_path / "other.db")
    monkeypatch.setenv(VARIABLE, uri)
    with pytest.raises(SystemExit) as ended:
        cli.main(["sync", str(out / "seeds"), "--json"])
    assert ended.value.code == 0
    printed = capfd.readouterr()
    assert f"MLflow: {uri}, from MLFLOW_TRACKING_URI" in printed.err
    assert json.loads(printed.out)["uri"] == uri
    assert json.loads((out / "seeds" / "mlflow.json").read_text())["uri"] == uri
    with Journal(out / "seeds") as journal:
        assert Tracker(journal).uri == uri


def test_the_folder_of_a_new_database_is_made(tmp_path: Path) -> None:
    where = locate(tmp_path, f"sqlite:///{tmp_path}/new?/folder/x.db")
    assert not (tmp_path / "new?").exists()
    prepare(where.uri, tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["new?", "folder"]


def test_runs_that_somebody_else_sent_are_shown_too(out: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert newest_experiment(tmp_path / "empty", default_uri(out)) == "1"


def test_runs_that_are_in_another_mlflow_are_found_there(out: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    sync(out / "seeds")
    database.copy(out / "mlflow.db", tmp_path / "other" / "x.db")
    sync(out / "seeds", f"sqlite:///{tmp_path}/other/x.db")
    (out / "mlflow.db").unlink()
    with pytest.raises(
        UserError, match=rf"but at sqlite:///{tmp_path}/other/x\.db: `capsbench ui --out .* --mlflow-uri"
    ):
        newest_experiment(out)


def revision(value: str | None) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with closing(sqlite3.connect(path)) as db:
            db.execute("DELETE FROM alembic_version")
            if value:
                db.execute("INSERT INTO alembic_version VALUES (?)", (value,))
            db.commit()

    return change


def text(content: bytes) -> Callable[[Path], None]:
    return lambda path: void(path.write_bytes(content))


def void(_: object) -> None: ...


def alien(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE studies (x)")
        db.execute("CREATE TABLE alembic_version (version_num)")  # Optuna has one too
        db.commit()


def damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096 : len(content) // 2] = b"\xff" * (len(content) // 2 - 4096)
    path.write_bytes(content)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere.db")


TROUBLES = {
    "older": (revision("451aebb31d03"), "was made by an older MLflow: its schema is 451aebb31d03, MLflow 3"),
    "before 1.0": (revision(None), "was made by an older MLflow: its schema is of before 1.0"),
    "newer": (revision("f00dfeedbeef"), "was made by a newer MLflow: MLflow 3"),
    "another program": (alien, "is another program's database (its tables: studies"),
    "page": (text(b"<!DOCTYPE html><html>" + b"x" * 9999), "is not a database but an HTML page"),
    "pointer": (text(b"version https://git-lfs.github.com/spec/v1\noid" + b"x" * 200), "but a Git LFS pointer, which"),
    "text": (text(b"hello " * 999), "is not a database but something else"),
    "damaged": (damaged, "is damaged"),
    "folder": (folder, "is a folder. Name the file in it: sqlite:///"),
    "dangling link": (dangling, "is a link to nowhere.db, which does not exist"),
}  # fmt: skip


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_database_that_cannot_be_used_is_named_and_left_alone(out: Path, trouble: str) -> None:
    make, said = TROUBLES[trouble]
    make(out / "mlflow.db")
    before = (out / "mlflow.db").read_bytes() if (out / "mlflow.db").is_file() else None
    (out / "seeds" / "mlflow.json").unlink()
    for use in (lambda: sync(out / "seeds"), lambda: newest_experiment(out, default_uri(out))):
        with pytest.raises(UserError) as raised:
            use()
        assert said in str(raised.value)
        assert str(out / "mlflow.db") in str(raised.value)
    tracker = Tracker(Journal(out / "seeds"))
    tracker.start()
    warning = str(tracker.close())
    assert said in warning
    assert "Nothing is lost; bring them in with: capsbench sync" in warning
    if before is not None:
        assert (out / "mlflow.db").read_bytes() == before


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_LOCK_TIMEOUT_S", 0.2)


def test_a_locked_database_names_who_has_locked_it(out: Path, impatient: None) -> None:
    code = "import sqlite3, sys, time; db = sqlite3.connect(sys.argv[1]); db.execute('BEGIN EXCLUSIVE')"
    code += "; print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, out / "mlflow.db"], stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None
            other.stdout.readline()
            for use in (lambda: sync(out / "seeds"), lambda: newest_experiment(out, default_uri(out))):
                with pytest.raises(
                    UserError, match=rf"mlflow\.db is locked: process {other.pid} \(python.* has been writing"
                ):
                    use()
        finally:
            other.kill()
    assert sync(out / "seeds").events == 0


def test_a_folder_that_may_only_be_read_can_be_sent_elsewhere(out: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with closing(sqlite3.connect(shutil.copy(out / "mlflow.db", tmp_path / "mine" / "x.db"))) as db:
        db.executescript("DELETE FROM runs; DELETE FROM experiments WHERE experiment_id > 0")  # quicker than a new one
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    elsewhere = ["--mlflow-uri", f"sqlite:///{tmp_path}/mine/x.db"]

    def send(*more: str) -> subprocess.CompletedProcess[str]:
        command = [*bound(), sys.executable, "-m", "harness", "sync", str(out / "seeds"), *more]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    with only_to_be_read(out):
        done = send(*elsewhere)
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 trials of capsbench/seeds, 12 new events" in done.stdout
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {"x.db", "mlartifacts"}
    (out / "seeds" / "mlflow.json").rename(tmp_path / "cursor")
    with only_to_be_read(out):
        done = send()
    (tmp_path / "cursor").rename(out / "seeds" / "mlflow.json")
    assert done.returncode == 2
    assert f"MLflow's database {out / 'mlflow.db'} cannot be written" in done.stderr
    assert "Choose another with --mlflow-uri" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == {
        path: time_ns for path, time_ns in before.items() if path.is_file()
    }
