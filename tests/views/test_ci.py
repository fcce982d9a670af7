"""Verdicts for CI: JUnit XML that tools accept, Markdown that shows what was said, files that are checked beforehand."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from rich.table import Table

from harness.analysis.compare import compare
from harness.commands.cli import main
from harness.parity.check import Check, Report
from harness.views.ci import markdown, parity, speed
from harness.views.ci.junit import Case, document
from tests.analysis.test_compare import run_of
from tests.helpers import junit
from tests.helpers.seeds_helpers import events_of, make_trial, write_run


def command(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(each) for each in arguments])
    return int(ended.value.code or 0)


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_comparison_has_a_case_for_each_metric(tmp_path: Path) -> None:
    a, b = run_of(tmp_path / "a"), run_of(tmp_path / "b", seconds=[330.0, 333.0, 327.0])
    files = tmp_path / "new" / "compare.xml", tmp_path / "new" / "compare.md"
    assert command("compare", a, b, "--junit", files[0], "--markdown", files[1]) == 1
    cases = junit.read(files[0])
    group = "compare.torch.routing 3"
    assert {name: state for (_, name), (state, _) in cases.items()} == {
        "test error %": "passed", "s/epoch": "failure", "peak MB": "passed",
    }  # fmt: skip
    assert cases[group, "s/epoch"][1].startswith("worse: s/epoch 300 in A, 330 in B (+10.0%); Holm's p = ")
    text = files[1].read_text(encoding="utf-8")
    assert "❌ **B is worse: s/epoch of torch, routing 3.**" in text
    assert "| s/epoch | torch | routing 3 |" in text


def test_one_seed_is_skipped_and_a_broken_trial_fails(tmp_path: Path) -> None:
    trials = [make_trial(seed=seed) for seed in (0, 1)]
    a = write_run(tmp_path / "a", [(trial, events_of(0.3)) for trial in trials])
    b = write_run(tmp_path / "b", [(trials[0], events_of(0.3)), (trials[1], events_of(0.3, parity_ok=False))])
    assert command("compare", a, b, "--junit", tmp_path / "j.xml") == 1
    cases = junit.read(tmp_path / "j.xml")
    assert [state for state, _ in cases.values()] == ["skipped"] * 3 + ["failure"]
    assert not compare(a, b).ok


def test_each_check_of_a_report_is_a_case(tmp_path: Path) -> None:
    checks = (
        Check("L1", "parameters", 0.0, 1e-7),
        Check("L2", "r1.coupling", 0.97, 2e-5, (0, 0), 0.003, 0.1),
        Check("L2", "r2.coupling", float("inf"), 2e-5, note="not finite"),
    )
    report = Report("my.py:Net", "fp32", "compact", checks, {"L3": "no loss"})
    cases = junit.read(written(tmp_path / "p.xml", parity.junit([report], "L4")))
    assert {key: state for key, (state, _) in cases.items()} == {
        ("my.py:Net.fp32.L1", "parameters"): "passed",
        ("my.py:Net.fp32.L2", "r1.coupling"): "failure",
        ("my.py:Net.fp32.L2", "r2.coupling"): "failure",
        ("my.py:Net.fp32.L3", "level"): "skipped",
        ("my.py:Net.fp32.L4", "level"): "skipped",
    }
    assert cases["my.py:Net.fp32.L2", "r1.coupling"][1] == "r1.coupling: relative error 0.97, tolerance 2e-5"
    text = parity.summary([report], "L4", ["a | b"])
    assert "❌ **Parity: 1 of 1 failed.**" in text
    assert "- a \\| b" in text


def test_layers_of_a_model_are_cases(tmp_path: Path) -> None:
    found: dict[str, Any] = {
        "layers": [
            {"layer": "conv1", "own": 1e-9, "fed": None, "note": None, "ok": True, "at_fault": False},
            {"layer": "coupling 1", "own": 0.9, "fed": 0.9, "note": None, "ok": False, "at_fault": True},
            {"layer": "decoder", "own": None, "fed": None, "note": None, "ok": True, "at_fault": False},
        ],
        "values": [{"name": "loss", "rel_err": float("inf"), "ok": False, "note": "missing"}],
    }
    cases = junit.read(written(tmp_path / "pair.xml", parity.pair_junit(found)))
    assert [state for state, _ in cases.values()] == ["passed", "failure", "skipped", "failure"]
    assert "2 of 4 layers and values differ" in parity.pair_summary(found)


def test_speed_tells_failures_from_what_is_slower(tmp_path: Path) -> None:
    row = {"basis": "over floor", "then": 2.0, "now": 3.0, "ratio": 1.5, "low": 1.4, "high": 1.6, "reason": None}
    found: dict[str, Any] = {
        "cells": [
            {"name": "a", "status": "ok"},
            {"name": "b", "status": "failed", "cause": "out of memory", "log": "b.log"},
        ],
        "baseline": {"path": "base.json", "rows": [{"name": "a", "verdict": "slower", **row}], "warnings": []},
    }
    cases = junit.read(written(tmp_path / "s.xml", speed.junit(found)))
    assert [state for state, _ in cases.values()] == ["passed", "failure", "failure"]
    assert cases["speed.baseline", "a"][1] == "slower: a step took 2.00 over floor, and takes 3.00: 1.50x [1.40, 1.60]"


def test_no_text_breaks_the_xml(tmp_path: Path) -> None:
    odd = "a\x00b\x1b[31m <&>\"' \ud800 \ufffe ]]> \U0001f600\nnew line"
    text = document(odd, [Case(odd, odd, "failed", odd, odd)], {odd: odd})
    ((key, (state, message)),) = junit.read(written(tmp_path / "odd.xml", text)).items()
    assert state == "failure"
    assert "�" in message
    assert "\x1b" not in key[0]
    assert "\U0001f600" in message


def test_no_text_breaks_the_markdown_and_none_is_too_long() -> None:
    made = Table()
    made.add_column("name")
    for k in range(2000):
        made.add_row(f"{k} | <script>`*_[x](y)\n# a" + "x" * 5000)
    lines = markdown.table(made, first=[1999])
    assert len("\n".join(lines).encode()) < 1_000_000
    assert len(lines) == 2 + 300 + 3
    assert any(line.startswith("| 1999") for line in lines)
    assert all(line.count("|") - line.count("\\|") == 2 for line in lines[:302])
    assert "<script>" not in "".join(lines)


def test_files_are_checked_before_anything_is_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, file = run_of(tmp_path / "a"), run_of(tmp_path / "b"), written(tmp_path / "file", "")
    for options, told in (
        (("--junit", tmp_path), "a folder; expected a file"),
        (("--markdown", file / "x.md"), "is a file, not a folder"),
        (("--junit", file, "--markdown", tmp_path / "." / "file"), "give each a file of its own"),
    ):
        assert command("compare", a, b, *options) == 2
        assert told in "".join(capsys.readouterr().err.split("\n"))
    monkeypatch.chdir(tmp_path)
    assert command("parity", "--impl", "numpy", "--junit", ".") == 2
    assert not (tmp_path / "runs").exists()


def test_the_summary_of_a_job_is_added_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, summary = run_of(tmp_path / "a"), written(tmp_path / "summary.md", "# before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", os.fspath(summary))
    for _ in range(2):
        assert command("compare", a, a, "--markdown", summary) == 0
    text = summary.read_text(encoding="utf-8")
    assert text.startswith("# before\n")
    assert text.count("## capsbench compare") == 2
