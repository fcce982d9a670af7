"""Every command within 80 columns, in a log and on a terminal; figures and paths in full."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console as RichConsole

from harness.commands import cli, doctor, env
from harness.commands.probes import Check
from harness.parity.check import Check as Compared
from harness.parity.check import Report
from harness.views import parity, speed
from harness.views.messages import Console
from tests.helpers.report_helpers import write_run

_SHOWN: dict[str, list[str]] = {
    "plan": ["search -s resources.cpus=1"],
    "summary": ["mnist"],
    "table": ["RUN"],
    "compare": ["RUN OTHER", "RUN RUN"],
    "report": ["RUN --format md"],
    "history": ["RUN OTHER"],
    "suites": [""],
    "data": ["list"],
    "parity": ["RUN"],
}
"""Command -> what follows it; each prints in this process, from files."""
_ELSEWHERE = {
    "run": "tests/commands/test_retest.py", "retest": "likewise", "publish": "likewise", "verify": "likewise",
    "predict": "likewise", "figures": "likewise", "export": "likewise",
    "doctor": "below, without asking this machine", "env": "likewise", "speed": "likewise",
    "submit": "no table", "sync": "no table", "demo": "no table", "ui": "no table",
    "schema": "a document", "completion": "a script",
}  # fmt: skip
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b\]8;[^\x1b]*\x1b\\")
_WIDTH = 80


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("runs-of-somebody-with-a-long-name") / "experiments-of-last-summer"
    made = {"RUN": folder / "before", "OTHER": folder / "after"}
    for path in made.values():
        write_run(path, impls=("torch", "tf"), seeds=2, routings=2)
    return {name: str(path) for name, path in made.items()}


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLUMNS", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    for name, value in (("COLUMNS", str(_WIDTH)), ("TERM", "xterm"), ("TTY_COMPATIBLE", "1"), ("NO_COLOR", "1")):
        monkeypatch.setenv(name, value)


def too_wide_table_lines(printed: str) -> list[str]:
    """Lines with columns that are too wide, but for a last word that is too long for any column."""
    return [
        line
        for line in printed.splitlines()
        if len(line) > _WIDTH and re.search(r"\S {2,}\S", line) and len(line.split()[-1]) < _WIDTH // 3
    ]


def too_wide_lines(printed: str) -> list[str]:
    """Lines that are too wide, but for what must stay in one piece: a long word, or a command."""
    lines = (_ESCAPES.sub("", line) for line in printed.splitlines())
    whole = re.compile(rf"\S{{{_WIDTH // 3},}}|`[^`]*`|(^|\s)(capsbench|pip|tensorboard) \S")
    return [line for line in lines if len(line) > _WIDTH and not whole.search(line)]


def _figures(printed: str) -> set[str]:
    """Words with digits, but for how much room the disk has by now."""
    lines = [line for line in _ESCAPES.sub("", printed).splitlines() if "MB free" not in line]
    return {word for word in " ".join(lines).split() if re.search(r"\d", word)}


def called(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit):
        cli.main(command.split())
    printed = capsys.readouterr()
    return printed.out + printed.err


def test_every_command_is_looked_at() -> None:
    assert {*_SHOWN, *_ELSEWHERE} == {*cli.COMMANDS}


@pytest.mark.parametrize("command", [f"{name} {rest}".strip() for name, all in _SHOWN.items() for rest in all])
def test_commands(
    command: str, runs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for name, path in runs.items():
        command = re.sub(rf"\b{name}\b", path, command)
    request.getfixturevalue("log")
    in_log = called(command, capsys)
    assert len(in_log.splitlines()) > 3, in_log
    assert not too_wide_table_lines(in_log)
    assert "…" not in in_log
    request.getfixturevalue("terminal")
    on_terminal = called(command, capsys)
    assert not too_wide_lines(on_terminal)
    assert "…" not in on_terminal
    monkeypatch.setenv("COLUMNS", "250")
    narrow, wide = (_figures(printed) for printed in (in_log, called(command, capsys)))
    assert narrow == wide


def _everywhere(show: Callable[[Console], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """In a log and on a terminal."""
    for is_terminal, wrong in ((False, too_wide_table_lines), (True, too_wide_lines)):
        monkeypatch.setenv("TERM", "xterm" if is_terminal else "dumb")
        console = Console(force_terminal=is_terminal, width=_WIDTH, color_system=None)
        with console.capture() as found:
            show(console)
        assert not wrong(found.get())
        assert "…" not in found.get()


PATH = "/home/somebody/experiments/of/last/summer/capsules/environments/of-torch-2.12/bin/python"


def test_doctor_and_environments(log: None, monkeypatch: pytest.MonkeyPatch) -> None:
    detail = f"torch 2.14.0, triton 3.4.1, numpy 2.4.6; cpu, NVIDIA H200; Python 3.12.7, {PATH}"
    checks = [
        Check("implementation", "my_package.my_module:MyClass", "ok", detail),
        Check(
            "machine",
            "variables",
            "warning",
            "cleared for trials: " + ", ".join(f"VARIABLE_{i}" for i in range(20)),
            detail,
        ),
    ]
    diagnosis = doctor.Diagnosis(True, ["torch"], checks, {})
    _everywhere(lambda console: doctor.render(diagnosis, console), monkeypatch)
    console = RichConsole(width=_WIDTH, color_system=None)
    with console.capture() as found:
        doctor.render(diagnosis, console)
    assert found.get().count(PATH) == 2
    facts = {
        "versions": {"torch": "2.12.0", "numpy": "2.4.6"},
        "python_version": "3.12.7",
        "capsbench": "0.2.0",
        "source": detail,
    }
    row = {"name": "torch@2.12", "state": "ok", "problem": None, "python": PATH, **facts}
    _everywhere(lambda console: env._show(console, [row]), monkeypatch)


def test_parity_and_speed(log: None, monkeypatch: pytest.MonkeyPatch) -> None:
    worst = Compared("L4", "grad.digit.w after 3 routing iterations, with the decoder", 1e-7, 2e-5)
    report = Report("my_package.my_module:MyClass", "fp32", "paper", (worst,), skipped={"L5": "no optimiser"})
    _everywhere(lambda console: parity.show(console, [report, report], [Path(PATH)] * 2, "L6"), monkeypatch)
    good = {
        "name": "torch-fp32-b128-r3", "impl": "my_package.my_module:MyClass", "precision": "fp32", "batch": 128, "routing": 3,
        "params": {"model.canvas": 40, "model.primary_types": 32}, "status": "ok", "step_s": 12.3456,
        "step_s_ci": [12.123456, 12.98765], "epoch_s": 5_304.0, "img_per_s": 10.4, "floor_s": 10.0, "step_over_floor": 1.234,
        "eval_over_train": 0.345, "compile_s": 12.5, "peak_bytes": 12e9, "warnings": [],
        "breakdown": {"convolution": 1.0, "primary capsules": 2.0, "votes": 3.0, "routing": 2.0, "decoder": 1.0, "other": 0.3},
    }  # fmt: skip
    bad = good | {
        "status": "failed",
        "verdict": "parity failed at L4 grad.digit.w",
        "cause": "it differs",
        "hint": "",
        "log": PATH,
    }
    document = {
        "cells": [good, bad], "cost_models": [], "rounds": 7, "steps": 4, "epoch_images": 55_000,
        "matmul": {"flops_per_s": {"torch": 1e12}, "size": 4096}, "warnings": [],
    }  # fmt: skip
    _everywhere(lambda console: speed.show(console, document), monkeypatch)


def test_helps(log: None, capsys: pytest.CaptureFixture[str]) -> None:
    for name in cli.COMMANDS:
        help = called(f"{name} --help", capsys)
        assert not [line for line in help.splitlines() if len(line) > _WIDTH], name
