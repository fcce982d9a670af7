"""Which MLflow is used: who names it, what is no address, and the address of a database at any path."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.commands import cli
from harness.errors import UserError
from harness.views.mlflow import database
from harness.views.mlflow.where import VARIABLE, artifacts_of, default_uri, locate, redact

ODD = ["with space", "what?", "a#b", "100%", "%3F", "%41", "it's \"quoted\"", "Übung", "a\nb", "a@b:c", "x=1&y", "ä" * 60,
       "$HOME;ls", "\udcff"]  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_the_address_of_a_database_names_its_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / name / "mlflow.db"
    assert database.path_of(database.uri_of(path)) == path


@pytest.mark.parametrize("name", ODD)
def test_a_database_is_where_its_address_says(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlalchemy
    from mlflow.store.db.utils import create_sqlalchemy_engine_with_retry

    monkeypatch.chdir(tmp_path)
    folder = tmp_path / name
    folder.mkdir()
    engine = create_sqlalchemy_engine_with_retry(database.uri_of(folder / "mlflow.db"))  # as MLflow opens it
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE t (x)"))
    engine.dispose()
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()] == [f"{name}/mlflow.db"]
    assert [path.name for path in tmp_path.iterdir()] == [name]  # and no folder beside it


def test_an_ordinary_path_stays_readable(tmp_path: Path) -> None:
    assert default_uri(tmp_path / "my runs") == f"sqlite:///{tmp_path}/my runs/mlflow.db"


def test_the_option_comes_before_the_variable_and_that_before_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert locate(tmp_path).uri == default_uri(tmp_path)
    monkeypatch.setenv(VARIABLE, "")
    assert (locate(tmp_path).uri, locate(tmp_path).line) == (default_uri(tmp_path), None)
    monkeypatch.setenv(VARIABLE, "http://me:secret@server:5000")
    assert locate(tmp_path).uri == "http://me:secret@server:5000"
    assert locate(tmp_path).line == "MLflow: http://me:***@server:5000, from MLFLOW_TRACKING_URI"
    assert (locate(tmp_path, "https://other").uri, locate(tmp_path, "https://other").line) == ("https://other", None)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("./mlruns", "is a folder, and MLflow 3 no longer keeps runs in folders. Use a database, such as sqlite:////"),
        ("file:///tmp/mlruns", "is a folder, and MLflow 3 no longer keeps runs in folders"),
        ("http://localhost:99999", "is no address: Port out of range"),
        ("http://[::1", "is no address: Invalid IPv6 URL"),
        ("mlflow.db", "is a path where an address belongs; did you mean sqlite:////"),
        ("/some/where.sqlite", "did you mean sqlite:////some/where.sqlite?"),
        ("localhost:5000", "has no scheme; did you mean http://localhost:5000?"),
        ("10.0.0.7:5000/x", "has no scheme; did you mean http://10.0.0.7:5000/x?"),
        ("htp://server", 'has the unknown scheme "htp"; did you mean "http"?'),
        ("postgres://me:secret@db/x", 'postgres://me:***@db/x has the unknown scheme "postgres"; did you mean "postgresql"?'),
        ("sqlite://mlflow.db", "needs three slashes, or four for an absolute path: sqlite:///mlflow.db or sqlite:////mlflow.db"),
        ("sqlite:///:memory:", "is a database in memory"),
        ("http://", "names no machine"),
        ("mlflow", "is no address of an MLflow"),
        ("https//server", "is no address of an MLflow"),
        ("", "is empty. Use a server"),
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(uri: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as raised:
        locate(tmp_path, uri)
    assert said in str(raised.value)
    assert str(raised.value).startswith("--mlflow-uri")
    assert "secret" not in str(raised.value)
    if uri.strip():
        monkeypatch.setenv(VARIABLE, uri)
        with pytest.raises(UserError, match=r"^MLFLOW_TRACKING_URI"):
            locate(tmp_path)


def test_a_folder_of_runs_names_the_command_that_brings_them_along(tmp_path: Path) -> None:
    (tmp_path / "mlruns" / "0").mkdir(parents=True)
    (tmp_path / "mlruns" / "0" / "meta.yaml").write_text("")
    with pytest.raises(
        UserError, match=r"mlflow migrate-filestore --source .*/mlruns --target sqlite:///.*/mlflow\.db"
    ):
        locate(tmp_path, f"file://{tmp_path}/mlruns")


def test_a_path_typed_as_it_is_becomes_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a?b", "100%25", "not there?"):
        if name != "not there?":
            (tmp_path / name).mkdir()
        where = locate(tmp_path, f"sqlite:///{tmp_path}/{name}/x.db")
        assert database.path_of(where.uri) == tmp_path / name / "x.db"
        assert locate(tmp_path, where.uri).uri == where.uri
        assert str(where) == f"sqlite:///{tmp_path}/{name}/x.db"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert locate(tmp_path, "sqlite:///x.db").uri == f"sqlite:///{tmp_path}/x.db"
    assert locate(tmp_path, "sqlite:///~/x.db").uri == f"sqlite:///{tmp_path}/home/x.db"
    assert locate(tmp_path, f"sqlite:///{tmp_path}/x.db?timeout=9").uri == f"sqlite:///{tmp_path}/x.db?timeout=9"
    assert locate(tmp_path, " HTTP://server ").uri == "http://server"


def test_artifacts_are_beside_a_database_and_a_server_has_its_own(tmp_path: Path) -> None:
    assert artifacts_of(f"sqlite:///{tmp_path}/there/x.db", tmp_path) == tmp_path / "there" / "mlartifacts"
    assert artifacts_of("postgresql://db/x", tmp_path) == tmp_path / "mlartifacts"
    assert artifacts_of("http://server", tmp_path) is None


@pytest.mark.parametrize("command", ["run", "sync", "ui", "parity"])
def test_every_command_refuses_before_it_starts(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "plan.json").write_text('{"suite": "mnist", "trials": []}')
    arguments = {"run": ["quickstart"], "sync": ["mnist"]}.get(command, [])
    with pytest.raises(SystemExit) as ended:
        cli.main([command, *arguments, "--mlflow-uri", "./mlruns"])
    assert ended.value.code == 2
    assert "--mlflow-uri ./mlruns is a folder" in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mnist"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql+psycopg://me:secret@db/x", "postgresql+psycopg://me:***@db/x"),
        ("http://me:s@cret@server/x", "http://me:***@server/x"),
        ("postgresql://db/x?user=me&password=secret&y=1", "postgresql://db/x?user=me&password=***&y=1"),
        ("sqlite:////runs/a@b:c/mlflow.db", "sqlite:////runs/a@b:c/mlflow.db"),
        ("http://server:5000 and me@home", "http://server:5000 and me@home"),
    ],
)
def test_passwords_are_not_shown(text: str, shown: str) -> None:
    assert redact(text) == shown
