"""Environment variables that a suite asks for: read as written, part of a trial's identity, merged with the shell's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness import registry
from harness.analysis.labels import run_name, setting
from harness.errors import UserError
from harness.spec.trial import Trial
from harness.suite.identity import trial_id
from harness.suite.suite import load_suite

PLAIN = "name: small\ndata: {name: digits}\ngrid: {impl: [numpy]}\n"
ASKED = PLAIN + "runtime: {environment: {XLA_FLAGS: --a=1 --b, TF_ENABLE_ONEDNN_OPTS: 0, MINE: yes}}\n"


@pytest.fixture(autouse=True)
def shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    monkeypatch.setenv("CAPSBENCH_KEEP", "")
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def trials(text: str, overrides: Sequence[str] = (), quick: bool = False) -> tuple[Trial, ...]:
    Path("x.yaml").write_text(text)
    return load_suite("x.yaml", overrides, quick).trials(0, lambda _: {})


def variables(text: str, *overrides: str, quick: bool = False) -> dict[str, str]:
    (trial,) = trials(text, overrides, quick)
    return trial.runtime.environment


def test_values_are_the_text_as_written() -> None:
    assert variables(PLAIN) == {}
    assert variables(ASKED) == {"XLA_FLAGS": "--a=1 --b", "TF_ENABLE_ONEDNN_OPTS": "0", "MINE": "yes"}


def test_one_at_a_time_on_the_command_line() -> None:
    own = variables(PLAIN, "runtime.environment.XLA_FLAGS=--a=1,--b=[2]", "runtime.environment.X=0")
    assert own == {"XLA_FLAGS": "--a=1,--b=[2]", "X": "0"}
    changed = variables(ASKED, "runtime.environment.MINE=no")
    assert changed == {"XLA_FLAGS": "--a=1 --b", "TF_ENABLE_ONEDNN_OPTS": "0", "MINE": "no"}
    assert variables(ASKED, 'runtime.environment={A: "1"}') == {"A": "1"}


def test_in_quick() -> None:
    text = ASKED + "quick: {runtime.environment.MINE: 7}\n"
    assert variables(text)["MINE"] == "yes"
    assert variables(text, quick=True)["MINE"] == "7"


def test_sets_of_them_can_be_varied() -> None:
    text = (
        "name: small\ndata: {name: digits}\ngrid:\n  impl: [numpy]\n  runtime.environment: [{}, {MINE: 1}, {MINE: 2}]\n"
    )
    found = trials(text, ["runtime.environment.ALL=x"])
    assert [each.runtime.environment for each in found] == [
        {"ALL": "x"}, {"MINE": "1", "ALL": "x"}, {"MINE": "2", "ALL": "x"},
    ]  # fmt: skip
    assert len({each.id for each in found}) == 3
    assert [run_name(each) for each in trials(text)] == ["numpy none s0", "numpy MINE=1 s0", "numpy MINE=2 s0"]
    assert [setting(each.params) for each in trials(text)] == [
        "environment none",
        "environment MINE=1",
        "environment MINE=2",
    ]


def test_the_shell_s_count_as_the_suite_s(shell: pytest.MonkeyPatch) -> None:
    plain, asked = trials(PLAIN)[0].id, trials(PLAIN, ["runtime.environment.MINE=1"])[0].id
    shell.setenv("MINE", "1")
    assert trials(PLAIN)[0].id == plain  # not named
    shell.setenv("CAPSBENCH_KEEP", "MINE,OTHER")
    assert variables(PLAIN) == {"MINE": "1"}
    assert trials(PLAIN)[0].id == asked != plain
    assert variables(ASKED)["MINE"] == "yes"  # the suite's own wins


def test_an_absent_key_leaves_ids_as_they_were() -> None:
    def identity(runtime: dict[str, Any]) -> str:
        return trial_id({"runtime": {"precision": "fp32", **runtime}}, registry.resolve("numpy"), {})

    assert identity({}) == identity({"environment": {}}) != identity({"environment": {"A": "1"}})
    assert identity({"environment": {"A": "1"}}) != identity({"environment": {"A": "2"}})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{environment: XLA_FLAGS}", 'x.yaml:4: runtime.environment: found "XLA_FLAGS" (text), expected a mapping of'),
        ("{environment: {A: }}", "expected a mapping of environment variables"),
        ("{environment: {A: [1]}}", "expected a mapping of environment variables"),
        ("{environment: {OMP_NUM_THREADS: 4}}", "OMP_NUM_THREADS: capsbench sets it; use resources.cpus"),
        ("{environment: {CUDA_VISIBLE_DEVICES: 0}}", "CUDA_VISIBLE_DEVICES: capsbench sets it; use resources.gpus"),
        ("{environment: {PYTHONPATH: /x}}", "PYTHONPATH: capsbench sets it"),
        ("{environment: {a b: 1}}", "a b: expected the name of an environment variable"),
        ('{environment: {A: "x\\0y"}}', "A: a variable cannot hold a zero byte"),
        ("{enviroment: {A: 1}}", 'did you mean "environment"?'),
    ],
)
def test_what_cannot_be_is_said_with_its_place(text: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        trials(f"{PLAIN}runtime: {text}\n")
    assert said in str(caught.value)
    assert str(caught.value).startswith("x.yaml:4: ")


def test_on_the_command_line_too() -> None:
    with pytest.raises(UserError, match=r"-s runtime\.environment\.OMP_NUM_THREADS=4: .*use resources\.cpus"):
        trials(PLAIN, ["runtime.environment.OMP_NUM_THREADS=4"])
    with pytest.raises(UserError, match="already given by"):
        trials(PLAIN, ["runtime.environment.A=4", "runtime.environment.A=5"])
    [trial] = trials(PLAIN, ["runtime.environment.A="])
    assert trial.runtime.environment == {"A": ""}
