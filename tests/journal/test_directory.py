"""What is no run directory is told from what it is, and the folder that was meant is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.commands.cli import main
from harness.errors import UserError
from harness.journal.directory import require_run
from harness.journal.journal import Journal

OLD = Path(__file__).parents[1] / "runs" / "quickstart-0.1"
TRIAL = "1aae6535523c"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """runs/quickstart, in the working directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(OLD, "runs/quickstart")
    return Path("runs/quickstart")


def refusal(path: str | Path) -> str:
    with pytest.raises(UserError) as refused:
        require_run(Path(path))
    assert str(refused.value).startswith(f"{path} is not a run directory: ")
    return str(refused.value).removeprefix(f"{path} is not a run directory: ")


def test_the_folder_that_was_meant(run_dir: Path) -> None:
    assert require_run(run_dir)["suite"] == "quickstart"
    assert refusal("runs") == "it has no plan.json, but holds a run. Give runs/quickstart."
    shutil.copytree(OLD, "runs/mnist")
    assert refusal("runs") == "it has no plan.json, but holds runs. Give one of them: runs/mnist, runs/quickstart."
    assert refusal("runs/quickstart/trials") == "it is a part of the run runs/quickstart. Give runs/quickstart."
    assert refusal(f"runs/quickstart/trials/{TRIAL}") == (
        f"it is the folder of a trial ({TRIAL}) of the run runs/quickstart. Give runs/quickstart and the trial {TRIAL}."
    )
    assert refusal("runs/quickstart/plan.json") == "it is a part of the run runs/quickstart. Give runs/quickstart."
    assert refusal("quickstart") == ('it has no plan.json, as there is no such folder; did you mean "runs/quickstart"?')
    assert 'did you mean "runs/quickstart"?' in refusal("runs/quikstart")


def test_from_inside(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run_dir / "trials")
    home = Path.cwd().parent
    assert refusal(".") == f"it is a part of the run {home}. Give {home}."
    assert refusal(TRIAL).endswith(f" of the run .. Give . and the trial {TRIAL}.") or str(home) in refusal(TRIAL)


def test_other_files(run_dir: Path, tmp_path: Path) -> None:
    Path("suite.yaml").write_text("name: quickstart\n")
    assert refusal("suite.yaml").startswith("it is text")
    Path("weights.pt").symlink_to("gone")
    assert refusal("weights.pt").startswith("it is a link to gone, which does not exist")
    Path("elsewhere").mkdir()
    shutil.rmtree("runs")
    assert refusal("elsewhere") == (
        "it has no plan.json. Give the folder that `run` named; `capsbench run SUITE` makes one in runs/."
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (LFS, "it is a Git LFS pointer; fetch the file itself: git lfs pull"),
        (b"<!DOCTYPE html><html>", "it is an HTML page; download it again"),
        (b"", "it is an empty file; download or copy it again"),
        ("run_id: abc\n".encode("utf-16"), "it is UTF-16 text; save it as UTF-8"),
        (b'{"run_id": "a", "tri', "it is a JSON document, cut short or damaged; restore it from a copy"),
        (b"[1, 2]", "it is a JSON document of another program. Move it away"),
        (b'{"format_version": "1.2", "planned_values": {}}', "it has no trials as capsbench writes them. Move it away"),
        (b'{"trials": ["a"]}', "it has no trials as capsbench writes them. Move it away"),
        (b"[" * 100_000, "it is a JSON document"),
    ],
)
def test_a_plan_that_is_none(run_dir: Path, content: bytes, said: str) -> None:
    (run_dir / "plan.json").write_bytes(content)
    for read in (require_run, lambda path: Journal(path).events(TRIAL), lambda path: Journal(path).trial_ids()):
        with pytest.raises(UserError) as refused:
            read(run_dir)
        assert str(refused.value).startswith(f"runs/quickstart/plan.json is not the plan of a run: {said}")
    assert (run_dir / "plan.json").read_bytes() == content


def test_a_folder_in_place_of_the_plan(run_dir: Path) -> None:
    (run_dir / "plan.json").unlink()
    (run_dir / "plan.json").mkdir()
    with pytest.raises(UserError, match=r"runs/quickstart/plan\.json is a folder"):
        require_run(run_dir)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (LFS, "is a Git LFS pointer, not a trial's events: fetch the file itself: git lfs pull. Or move "),
        (b"<html>\n</html>\n", "is an HTML page, not a trial's events: download it again"),
        (b"PK\x03\x04" + b"\n" * 9, "is a zip archive, not a trial's events: restore it from a copy. Or move "),
        ('{"kind": "interrupted"}\n'.encode("utf-16"), "is UTF-16 text, not a trial's events: save it as UTF-8"),
        (None, "is a folder, not a trial's events: restore it from a copy. Or move "),
    ],
)
def test_events_that_are_none(run_dir: Path, content: bytes | None, said: str) -> None:
    path = run_dir / "trials" / TRIAL / "events.jsonl"
    path.unlink()
    path.write_bytes(content) if content is not None else path.mkdir()
    with pytest.raises(UserError) as refused:
        Journal(run_dir).events(TRIAL)
    assert str(refused.value).startswith(str(path))
    assert said in str(refused.value)


def test_foreign_files_in_a_run_are_left_alone(run_dir: Path) -> None:
    known = Journal(run_dir).trial_ids()
    (run_dir / "notes.txt").write_text("mine")
    (run_dir / "trials" / ".DS_Store").write_bytes(bytes(100))
    (run_dir / "trials" / "thumbs").mkdir()
    (run_dir / "trials" / "thumbs" / "a.png").touch()
    (run_dir / "trials" / TRIAL / "notes").mkdir()
    assert Journal(run_dir).trial_ids() == known
    main_says = said(["report", str(run_dir)])
    assert main_says == 0
    assert (run_dir / "notes.txt").read_text() == "mine"


def said(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def test_a_trial_without_a_journal_has_not_begun(run_dir: Path) -> None:
    (run_dir / "trials" / TRIAL / "events.jsonl").unlink()
    assert Journal(run_dir).events(TRIAL) == []
    (run_dir / "trials" / TRIAL / "trial.json").write_bytes(LFS)
    with pytest.raises(UserError, match=rf"no usable trial in .*{TRIAL}/trial\.json: it is a Git LFS pointer"):
        Journal(run_dir).trial(TRIAL)


@pytest.mark.parametrize("command", ["report", "figures", "sync", "parity", "compare", "export"])
def test_every_command_names_the_folder_that_was_meant(
    run_dir: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    more = {"compare": [str(run_dir)], "export": [TRIAL, "--to", "torch"]}.get(command, [])
    assert said([command, str(run_dir / "trials"), *more]) == 2
    assert "Give runs/quickstart" in capsys.readouterr().err
