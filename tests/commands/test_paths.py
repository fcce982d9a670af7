"""Folders with names that nobody would choose, that are moved, and that are not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.commands import cli
from tests.helpers.run_helpers import capsbench, write_suite

ODD = 'what? a#b 100% %41 it\'s "odd" [x] {y} $HOME *Übung*\n' + "ä" * 100


def test_a_run_anywhere_can_be_moved_and_goes_on(tmp_path: Path) -> None:
    home = tmp_path / ODD
    home.mkdir()
    suite = write_suite(home, train={"epochs": 1})
    command = ["run", suite, "--out", home / "my runs", "--executor", "inline", "--no-mlflow", "--json"]
    done = capsbench(tmp_path, *command)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in home.iterdir()} == {"my runs", suite.name}
    assert {path.name for path in tmp_path.iterdir()} == {ODD, "tmp"}
    (result,) = json.loads(done.stdout)["trials"]

    moved = home.rename(tmp_path / "elsewhere")
    done = capsbench(tmp_path, "run", moved / suite.name, "--out", moved / "my runs", *command[4:], figures=True)
    assert done.returncode == 0, done.stderr
    assert "1 trial, 1 already finished" in done.stderr or json.loads(done.stdout)["trials"] == [result]
    folder = moved / "my runs" / "small" / "trials" / result["id"]
    assert json.loads((folder / "figures" / "figures.json").read_text())["files"]
    assert len((folder / "events.jsonl").read_text().splitlines()) == result["epochs"][-1]["epoch"] + 4
    odd = moved.rename(tmp_path / ODD)
    done = capsbench(tmp_path, "report", odd / "my runs" / "small", "--out", odd / "report")
    assert done.returncode == 0, done.stderr
    assert {"report.md", "report.html"} <= {path.name for path in (odd / "report").iterdir()}
    assert {path.name for path in tmp_path.iterdir()} == {ODD, "tmp"}


def refusal(capfd: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    assert ended.value.code == 2
    return capfd.readouterr().err


@pytest.mark.parametrize("what", ["link", "loop", "file", "long"])
def test_what_is_in_the_way_is_named(what: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / ("x" * 300 if what == "long" else what)
    said = {
        "link": f"{place} is a link to nowhere, which does not exist",
        "loop": "Too many levels of symbolic links",
        "file": f"{place} is a file, not a folder",
        "long": "File name too long",
    }[what]
    if what == "file":
        place.write_text("")
    elif what != "long":
        place.symlink_to("loop" if what == "loop" else "nowhere")
    suite = write_suite(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    for arguments in (
        ["run", suite, "--executor", "inline", "--no-mlflow", "--out", place],
        ["ui", "--out", place], ["parity", "--impl", "numpy", "--no-mlflow", "--out", place],
    ):  # fmt: skip
        assert said in refusal(capfd, *arguments), arguments
    for arguments in (["report", place / "small"], ["sync", place / "small"], ["compare", place, place]):
        assert str(place) in refusal(capfd, *arguments), arguments
    assert sorted(path.name for path in tmp_path.iterdir()) == before
