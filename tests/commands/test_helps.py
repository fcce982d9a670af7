"""The command line helps: settings without -s, suites from anywhere, classes in files, the nearest name everywhere."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from harness import registry
from harness.commands.cli import main
from harness.errors import UserError, nearest
from tests.helpers.run_helpers import HELPERS, SMALL, capsbench, environment, write_suite

NET = "from run_helpers import NumpyImpl\nclass Net(NumpyImpl):\n    pass\n"


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command in a folder with small.yaml; its stdout, or what it says when it refuses."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(HELPERS)])
    write_suite(tmp_path)

    def say(code: int, *arguments: str) -> str:
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main(arguments)
        stdout, stderr = capfd.readouterr()
        assert end.value.code == code, stderr
        assert "Traceback" not in stderr
        return stderr.removeprefix("capsbench: ").removesuffix("\n") if code else stdout

    return say


def trials(text: str) -> list[dict[str, object]]:
    return json.loads(text)["trials"]


def test_settings_need_no_option(said: Callable[..., str]) -> None:
    given = ("seed=0,1", "train.lr=0.1")
    plain = trials(said(0, "plan", "small.yaml", "--json", *(f"-s{each}" for each in given)))
    assert len(plain) == 2
    for arguments in (
        ("small.yaml", *given, "--json"),
        (*given, "small.yaml", "--json"),
        ("small.yaml", "-s", *given, "--json"),
        ("--json", "small.yaml", given[0], "--out", "runs", given[1]),
    ):
        assert trials(said(0, "plan", *arguments)) == plain
    assert trials(said(0, "--json", "plan", "small.yaml", *given)) == plain


def test_a_setting_may_be_longer_than_a_file_name(said: Callable[..., str]) -> None:
    assert len(trials(said(0, "plan", "small.yaml", "seed=" + ",".join(map(str, range(300))), "--json"))) == 300


def test_what_looks_like_a_setting_and_is_none(said: Callable[..., str], tmp_path: Path) -> None:
    """A file of that name, and the value of an option."""
    (tmp_path / "small.yaml").rename(tmp_path / "lr=0.1.yaml")
    assert len(trials(said(0, "plan", "lr=0.1.yaml", "--json"))) == 1
    assert len(trials(said(0, "plan", "lr=0.1.yaml", "--out", "out=1", "--json"))) == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("plan small.yaml trian.lr=1", '-s trian.lr=1: trian.lr: unknown key; did you mean "train.lr"?'),
        ("plan small.yaml train.lr=x", "-s train.lr=x: train.lr: found \"x\" (text)"),
        ("plan small.yaml seed=1 seed=2", "already given"),
        ("plan small.yaml train.lr = 1", 'unexpected argument "train.lr"; it takes SUITE; a setting is KEY=VALUE, without'),
        ("plan small.yaml --train.lr=1", 'unknown option "--train.lr"; a setting has no dashes: train.lr=VALUE'),
        ("plan other.yaml small.yaml", 'unexpected argument "small.yaml"; it takes SUITE'),
        ("plan seed=1", "SUITE is missing: a shipped suite, such as quickstart"),
        ("table runs/a runs/b", 'unexpected argument "runs/b"; it takes RUN\n'),
        ("export runs/a 1f", "--to is missing: one of torch, tf, jax"),
        ("data", "one of list, fetch, show is missing"),
        ("", "COMMAND is missing: one of run, plan"),
        ("Plan small.yaml", 'unknown command "Plan"; did you mean "plan"?'),
        ("completion tcsh", 'unknown SHELL "tcsh"; did you mean "zsh"? Valid: bash, fish, zsh.'),
        ("completion", "SHELL is missing: one of bash, zsh, fish"),
        ("plan small.yaml --executor INLINE", '"INLINE"; did you mean "inline"?'),
        ("plan small.yml", 'small.yml: no such file; did you mean "small.yaml"? Valid: small.yaml.'),
        ("plan smal.yml", 'did you mean "small.yaml"?'),
        ("plan small.yaml impl=NumPy", 'did you mean "numpy"?'),
        ("plan small.yaml x-mine=1", "x-mine: unknown key"),
    ],
)  # fmt: skip
def test_refusals(arguments: str, expected: str, said: Callable[..., str]) -> None:
    assert expected in said(2, *arguments.split())


def test_help_is_a_command_too(said: Callable[..., str]) -> None:
    assert said(0, "help", "plan") == said(0, "plan", "--help")
    assert said(0, "help") == said(0, "--help")


def test_a_suite_from_a_pipe_is_kept_and_goes_on(tmp_path: Path) -> None:
    """`-`, and the shell's <(...), whose descriptor is gone the next time."""
    text = "# from a pipe\n" + yaml.safe_dump({**SMALL, "train": {"epochs": 1, "batch": 16}})
    (tmp_path / "source.txt").write_text(text)
    capsbench_ = f'"{sys.executable}" -m harness run {{}} --executor inline --no-mlflow --no-figures --json'
    rest: list[str] = []
    for line in (f"cat source.txt | {capsbench_.format('-')}", capsbench_.format("<(cat source.txt)")):
        done = subprocess.run(
            ["bash", "-c", line], cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        rest.append(json.loads(done.stdout)["trials"][0]["id"])
        assert (tmp_path / "runs/small/suite.yaml").read_text() == text
        assert json.loads((tmp_path / "runs/small/plan.json").read_text())["source"] == "runs/small/suite.yaml"
    again = trials(capsbench(tmp_path, "plan", "runs/small/suite.yaml", "--json").stdout)
    assert [(each["id"], each["state"]) for each in again] == [(rest[0], "finished")]
    assert rest[0] == rest[1]


def test_mistakes_in_what_comes_through_a_pipe(
    said: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for content, expected in {
        b"": "stdin: empty; a suite needs",
        b"name: x\ndata: {nam: digits}\ngrid: {impl: [numpy]}\n": "stdin:2: data.nam: unknown key",
        b"\x01\x00\x07" * 100: "stdin: binary data",
        b"a" * 1_000_001: "stdin: more than 1,000,000 bytes",
    }.items():
        (tmp_path / "in").write_bytes(content)
        with (tmp_path / "in").open() as stream:
            monkeypatch.setattr(sys, "stdin", stream)
            assert expected in said(2, "plan", "-")
    monkeypatch.setattr(sys, "stdin", io.StringIO("no descriptor"))
    assert "stdin: cannot be read here" in said(2, "plan", "-")


def test_anchors_have_a_place_of_their_own(said: Callable[..., str], tmp_path: Path) -> None:
    text = (tmp_path / "small.yaml").read_text()
    (tmp_path / "small.yaml").write_text(
        "x-common: &common {epochs: 3}\nx-2: [anything, {at: all}]\n"
        + text.replace("train:\n  epochs: 2", "train:\n  <<: *common")
    )
    plain = trials(said(0, "plan", "small.yaml", "--json"))
    (tmp_path / "small.yaml").write_text(text)
    assert plain == trials(said(0, "plan", "small.yaml", "train.epochs=3", "--json"))
    (tmp_path / "small.yaml").write_text(text + "y-common: 1\n")
    assert "y-common: unknown key" in said(2, "plan", "small.yaml")
    (tmp_path / "small.yaml").write_text(text.replace("train:\n", "train:\n  x-mine: 1\n"))
    assert "train.x-mine: unknown key" in said(2, "plan", "small.yaml")


def test_a_class_in_a_file_runs(tmp_path: Path) -> None:
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "some-file.py").write_text(
        NET.replace("NumpyImpl):", "NumpyImpl):\n    from beside import WHO")
    )
    (tmp_path / "nets" / "beside.py").write_text("WHO = 'a file in its folder'\n")
    name = "nets/some-file.py:Net"
    write_suite(tmp_path, train={"epochs": 1}, grid={"impl": [name]})
    done = capsbench(tmp_path, "run", "small.yaml", "--executor", "inline", "--no-mlflow", "--json")
    assert done.returncode == 0, done.stderr
    (trial,) = trials(done.stdout)
    assert (trial["impl"], trial["status"]) == (name, "finished")
    parity = capsbench(tmp_path, "parity", "numpy", name)
    assert parity.returncode == 0, parity.stdout + parity.stderr
    (tmp_path / "nets" / "some-file.py").write_text(NET + "# another\n")
    changed = trials(capsbench(tmp_path, "plan", "small.yaml", "--json").stdout)
    assert changed[0]["id"] != trial["id"], "its id is of the file's content"


def test_files_without_the_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(HELPERS)])
    (tmp_path / "some-file.py").write_text(NET)
    (tmp_path / "json.py").write_text(NET)
    (tmp_path / "v1.0.py").write_text(NET)
    for name, expected in {
        "somefile.py:Net": 'no file "somefile.py"; did you mean "some-file.py"?',
        "absent/x.py:Net": 'no file "absent/x.py"; files are looked for from the current folder.',
        "some-file.py": '"some-file.py" names no class: expected some-file.py:CLASS. It has: Net',
        "some-file.py:": "names no class",
        "some-file.py:1x": "names no class",
        "json.py:Net": "json/__init__.py has the same name and comes first; rename json.py",
        "v1.0.py:Net": "a file to import is called NAME.py, and NAME has no dot; rename it",
    }.items():
        with pytest.raises(UserError) as caught:
            registry.resolve(name)
        assert expected in str(caught.value), name
    entry = registry.resolve("some-file.py:Neet")
    with pytest.raises(UserError, match=r'has no class Neet; did you mean "Net"\?'):
        registry.load(entry)
    assert os.fspath(tmp_path) == sys.path[-1]
    assert registry.load(registry.resolve(f"{tmp_path}/some-file.py:Net")).__name__ == "Net"


def test_the_nearest_whatever_its_case() -> None:
    assert nearest("TF", ["tf", "torch"]) == '; did you mean "tf"? Valid: tf, torch.'
    assert nearest("l3", ["L1", "L3"]) == '; did you mean "L3"? Valid: L1, L3.'
    assert nearest("xyz", ["L1"]) == ". Valid: L1."
