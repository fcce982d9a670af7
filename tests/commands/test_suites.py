"""`capsbench suites`, and suite names in every command that takes a suite."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.commands.cli import main
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capfd: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    """What the command prints: on stdout, or on stderr where it refuses."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    stdout, stderr = capfd.readouterr()
    assert end.value.code == code, stderr
    return stderr if code else stdout


def test_list(capfd: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(said(capfd, 0, "suites", "--json"))["suites"]
    assert {row["name"] for row in rows} == {path.stem for path in (ROOT / "suites").rglob("*.yaml")}
    assert all(set(row) == {"name", "question", "how_long", "path"} and all(row.values()) for row in rows)
    shown = " ".join(said(capfd, 0, "suites").split())
    for row in rows:
        assert f"{row['name']} {row['question']} " in shown
    assert "quick" not in shown.replace("quickstart", "")  # how long it takes in full, not a look at it


def test_copy(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shipped = (ROOT / "suites/mnist.yaml").read_bytes()
    assert "capsbench plan mnist.yaml" in said(capfd, 0, "suites", "copy", "mnist")
    assert (folder / "mnist.yaml").read_bytes() == shipped
    (folder / "mnist.yaml").write_text("mine")
    told = said(capfd, 2, "suites", "copy", "mnist")
    assert "mnist.yaml is there already; copy to another folder, or replace it with --force" in told
    assert (folder / "mnist.yaml").read_text() == "mine"
    document = json.loads(said(capfd, 0, "suites", "copy", "mnist", "--force", "--json"))
    assert document == {"name": "mnist", "path": "mnist.yaml"}
    assert (folder / "mnist.yaml").read_bytes() == shipped
    said(capfd, 0, "suites", "copy", "gram-ai", "new/folder")
    assert (folder / "new/folder/gram-ai.yaml").read_bytes() == (ROOT / "suites/recipes/gram-ai.yaml").read_bytes()


def test_copies_that_cannot_be_made(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert 'no shipped suite "mnits"; did you mean "mnist"' in said(capfd, 2, "suites", "copy", "mnits")
    assert "my.yaml: expected a folder" in said(capfd, 2, "suites", "copy", "mnist", "my.yaml")
    (folder / "taken").write_text("")
    assert "taken: expected a folder" in said(capfd, 2, "suites", "copy", "mnist", "taken")
    assert "cannot write taken/in/mnist.yaml: Not a directory" in said(capfd, 2, "suites", "copy", "mnist", "taken/in")
    assert 'unknown command "copi"; did you mean "copy"' in said(capfd, 2, "suites", "copi", "mnist")
    assert [path.name for path in folder.iterdir()] == ["taken"]


@pytest.mark.parametrize("command", ["run", "plan", "summary", "parity", "speed"])
def test_every_command_that_takes_a_suite_takes_a_name(
    command: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    told = said(capfd, 2, command, "quikstart")
    assert 'capsbench: quikstart: neither a file nor a shipped suite; did you mean "quickstart"?' in told
    told = said(capfd, 2, command, "quickstart", "-s", "train.epoch=2")  # read, and refused for what it is given
    assert '-s train.epoch=2: train.epoch: unknown key; did you mean "epochs"?' in told
    assert not list(folder.iterdir())


def test_summary_of_a_name(capfd: pytest.CaptureFixture[str]) -> None:
    assert json.loads(said(capfd, 0, "summary", "quickstart", "--json"))["suite"] == "quickstart"
