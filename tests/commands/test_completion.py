"""Completion: what could be typed next, and that real shells ask for it and put it on their line."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.commands import vocabulary as words
from harness.commands.cli import COMMANDS
from harness.commands.completing import candidates, split
from harness.commands.shells import SCRIPTS
from tests.conftest import ROOT
from tests.helpers.run_helpers import environment

RUN = ROOT / "tests/runs/quickstart-0.1"
TRIALS = {path.name for path in (RUN / "trials").iterdir()}
_ESCAPE = re.compile(r"\x1b(\[[0-9;?]*[a-zA-Z]|[=>]|\][^\x07]*\x07)")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def known(cache: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(words, "_place", lambda: cache / "capsbench/completion.json")
    return words.vocabulary()


@pytest.fixture
def offered(known: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], set[str]]:
    """What is offered at the end of a line, in a folder with a run, suites and files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/first").symlink_to(RUN)
    (tmp_path / "runs/no-run").mkdir()
    (tmp_path / "mine").mkdir()
    for name in ("mine.yaml", "picture.png", ".hidden.yaml"):
        (tmp_path / name).touch()
    return lambda line: {each.word for each in candidates(split(line)[1:], known)}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("capsbench ", {*COMMANDS}),
        ("capsbench --json re", {"report", "retest"}),
        ("capsbench help pl", {"plan"}),
        ("capsbench -", {"--help", "--version", "--json"}),
        ("capsbench report ", {"runs/first"}),
        ("capsbench report r", {"runs/first"}),
        ("capsbench report runs/", {"runs/first", "runs/no-run/"}),
        ("capsbench report m", {"mine/"}),
        ("capsbench report runs/first ", {"runs/first"}),  # it takes several
        ("capsbench verify runs/first ", set[str]()),
        ("capsbench compare runs/first ", {"runs/first"}),
        ("capsbench export runs/first ", TRIALS),
        ("capsbench demo runs/first 7e", {"7e07db8f14b8"}),
        ("capsbench figures runs/first 7e07db8f14b8 ", TRIALS - {"7e07db8f14b8"}),
        ("capsbench predict runs/first 7e07db8f14b8 p", {"picture.png"}),
        ("capsbench export runs/first --to ", {"torch", "tf", "jax", "onnx"}),
        ("capsbench export --weights=b", {"--weights=best"}),
        ("capsbench export --weights best runs/first 7", {"7e07db8f14b8"}),
        ("capsbench run m", {"mine.yaml", "mine/", "mnist", "multimnist", "model.", "measure."}),
        ("capsbench run mine.yaml train.decoder.l", {"train.decoder.lr="}),
        ("capsbench run mine.yaml -s mod", {"model."}),
        ("capsbench run mine.yaml model.kind=", {"model.kind=capsnet", "model.kind=cnn"}),
        ("capsbench run mine.yaml model.kind=cnn,", {"model.kind=cnn,capsnet"}),
        ("capsbench run seed=1 .h", {".hidden.yaml"}),
        ("capsbench run mine.yaml --exec", {"--executor"}),
        ("capsbench run mine.yaml --quick --qu", set[str]()),
        ("capsbench run mine.yaml -s seed=1 -", None),
        ("capsbench run -- --", set[str]()),
        ("capsbench data fetch mnist-", {"mnist-expanded"}),
        ("capsbench data l", {"list"}),
        ("capsbench suites copy quick", {"quickstart"}),
        ("capsbench parity --impl nu", {"numpy"}),
        ("capsbench completion ", {*SCRIPTS}),
        ("capsbench nonsense ", set[str]()),
        ("capsbench report ~nobody-of-that-name/", set[str]()),
        ("capsbench report \0", set[str]()),
        ("", {*COMMANDS}),
    ],
)  # fmt: skip
def test_what_is_offered(line: str, expected: set[str] | None, offered: Callable[[str], set[str]]) -> None:
    found = offered(line)
    if expected is None:  # of an option that may be repeated
        assert {"-s", "--quick", "--out"} <= found
    else:
        assert found == expected


def test_trials_are_described(known: dict[str, Any]) -> None:
    found = {each.word: each.about for each in candidates(["export", str(RUN), ""], known)}
    assert found["7e07db8f14b8"] == "numpy seed=0"


def test_every_command_and_option_is_known(known: dict[str, Any]) -> None:
    assert [*known["commands"]] == [*COMMANDS]
    assert not known["commands"]["verify"]["options"][0]["takes"]  # --json takes nothing
    assert all(command["help"] for command in known["commands"].values())
    assert not [each for each in known["commands"]["completion"]["options"] if "--answer" in each["names"]]


def test_it_is_looked_up_again_when_anything_changed(cache: Path, known: dict[str, Any], tmp_path: Path) -> None:
    kept = cache / "capsbench/completion.json"
    for text in ("", "[]", "{", json.dumps({**known, "mark": [], "commands": {}})):
        kept.write_text(text)
        assert words.vocabulary()["commands"] == known["commands"]
    kept.write_text(json.dumps({**known, "data": ["from the cache"]}))
    assert words.vocabulary()["data"] == ["from the cache"]
    shutil.rmtree(kept.parent)
    kept.parent.touch()
    assert words.vocabulary()["commands"] == known["commands"]  # where nothing can be kept
    kept.parent.unlink()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("capsbench run", ["capsbench", "run"]),
        ("capsbench run ", ["capsbench", "run", ""]),
        ("capsbench report 'my ru", ["capsbench", "report", "my ru"]),
        ('capsbench report "my ', ["capsbench", "report", "my "]),
        ("capsbench report my\\ ru", ["capsbench", "report", "my ru"]),
        ("capsbench report my\\ ", ["capsbench", "report", "my "]),
        ("capsbench report my\\", ["capsbench", "report", "my"]),
        ("", [""]),
    ],
)
def test_lines_are_split_as_far_as_they_go(line: str, expected: list[str]) -> None:
    assert split(line) == expected


def screen(text: str) -> str:
    """The lines as a terminal shows them, which goes back and writes over what is there."""
    lines, at = [""], 0
    for character in text:
        if character == "\n":
            lines.append("")
            at = 0
        elif character in "\r\b":
            at = 0 if character == "\r" else max(0, at - 1)
        elif character.isprintable():
            lines[-1] = lines[-1][:at] + character + lines[-1][at + 1 :]
            at += 1
    return "\n".join(lines)


class Shell:
    """A shell at a terminal, at which somebody types."""

    def __init__(self, command: list[str], folder: Path, env: dict[str, str]) -> None:
        self.pid, self.terminal = pty.fork()
        if not self.pid:
            os.chdir(folder)
            os.execvpe(command[0], command, env)
        self.shown = ""

    def types(self, keys: str, until: str) -> str:
        """What it shows from then on, once `until` (a pattern) is there."""
        self.shown, received = "", b""
        os.write(self.terminal, keys.encode())
        deadline = time.monotonic() + 60
        while not re.search(until, self.shown) and time.monotonic() < deadline:
            if select.select([self.terminal], [], [], 0.1)[0]:
                received += os.read(self.terminal, 65536)
                self.shown = screen(_ESCAPE.sub("", received.decode(errors="replace")))
        assert re.search(until, self.shown), self.shown
        return self.shown


@pytest.fixture
def at_terminal(tmp_path: Path, cache: Path) -> Iterator[Callable[[list[str]], Shell]]:
    """Starts a shell in which `capsbench` is this one."""
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin/capsbench"
    script.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m harness "$@"\n')
    script.chmod(0o755)
    (tmp_path / "my runs").mkdir()
    (tmp_path / "my runs/first").symlink_to(RUN)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/first").symlink_to(RUN)
    env = environment(tmp_path) | {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "HOME": str(tmp_path), "XDG_CACHE_HOME": str(cache),
        "XDG_CONFIG_HOME": str(tmp_path), "TERM": "dumb", "PS1": "$ ", "COLUMNS": "100", "INPUTRC": os.devnull,
    }  # fmt: skip
    opened: list[Shell] = []

    def start(command: list[str]) -> Shell:
        opened.append(Shell(command, tmp_path, env))
        return opened[-1]

    yield start
    for each in opened:
        os.close(each.terminal)  # hangs up
        os.waitpid(each.pid, 0)


CLEAR = "\x15"  # Ctrl-U


def test_bash(at_terminal: Callable[[list[str]], Shell]) -> None:
    shell = at_terminal(["bash", "--norc", "--noprofile", "-i"])
    shell.types('eval "$(capsbench completion bash)"; echo re""ady\n', "ready")
    shell.types("capsbench rep\t", r"report ")
    shell.types(f"{CLEAR}capsbench run --executor=i\t", r"--executor=inline ")
    shell.types(f"{CLEAR}capsbench run quickstart model.kind=caps\t", r"model\.kind=capsnet ")
    shell.types(f"{CLEAR}capsbench export my\\ runs/\t", r"my\\ runs/first")
    shell.types(f'{CLEAR}capsbench export "my ru\t', r'"my runs/')
    shell.types(f"{CLEAR}capsbench export ~/my\\ r\t", r"~/my\\ runs/")
    shell.types(f"{CLEAR}capsbench export r\t", r"runs/first")
    shown = shell.types(f"{CLEAR}capsbench export runs/first \t\t", r"d8985afb8c5a")
    assert {*shown.split()} >= TRIALS
    shell.types(f"{CLEAR}capsbench export runs/first 7\t", r"7e07db8f14b8 ")


def test_zsh(at_terminal: Callable[[list[str]], Shell]) -> None:
    if shutil.which("zsh") is None:
        pytest.skip("no zsh here")
    shell = at_terminal(["zsh", "-f", "-i"])
    shell.types('autoload -Uz compinit; compinit -u -D; eval "$(capsbench completion zsh)"; echo re""ady\n', "ready")
    shell.types("capsbench rep\t", r"report ")
    shell.types(f"{CLEAR}capsbench run --executor=i\t", r"--executor=inline")
    shell.types(f"{CLEAR}capsbench export my\\ r\t", r"my\\ runs/")
    assert "numpy seed=0" in shell.types(f"{CLEAR}capsbench export runs/first \t\t", r"d8985afb8c5a  ")


def test_fish(at_terminal: Callable[[list[str]], Shell], tmp_path: Path, cache: Path) -> None:
    if shutil.which("fish") is None:
        pytest.skip("no fish here")
    at_terminal(["true"])  # for its folders
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(cache)}
    lines = ("rep", "run --executor=i", "export runs/first ", "export my\\\\ r")
    script = "".join(f"complete -C 'capsbench {line}'; echo;" for line in lines)
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"capsbench completion fish | source; {script}"], cwd=tmp_path, env=env,
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    report, executor, trials, spaced = done.stdout.strip().split("\n\n")
    assert report.startswith("report\twhat a run says")
    assert executor == "--executor=inline"
    assert {line.split("\t")[0] for line in trials.splitlines()} == TRIALS
    assert "7e07db8f14b8\tnumpy seed=0" in trials
    assert spaced in ("my runs/", "my\\ runs/")


def test_the_script_is_printed_as_json_too(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "harness", "completion", "zsh", "--json"]
    done = subprocess.run(command, cwd=ROOT, env=environment(tmp_path), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"shell": "zsh", "script": SCRIPTS["zsh"]}
