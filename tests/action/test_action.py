"""action.yml as GitHub's runner runs it: `bash -e`, inputs as its steps map them, a summary, outputs, an exit code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.helpers import junit

ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
NET = """\
from impls.numpy import NumpyImpl

class Good(NumpyImpl):
    pass

class Bad(NumpyImpl):
    def forward(self, images):
        raise RuntimeError("no forward | today")
"""
SMALL = "model.conv_channels=4\nmodel.primary_types=2\nmodel.decoder=false\ndata.train=64\nresources.cpus=1\n"


@dataclass(frozen=True)
class Ended:
    """A run of the action: its exit code, its outputs, the summary, and all that it printed."""

    code: int
    outputs: dict[str, str]
    summary: str
    log: str


class Caller:
    """A repository whose workflow uses the action."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "net.py").write_text(NET)

    def uses(self, **inputs: str) -> Ended:
        """Runs the steps, as the runner does: each a script with `bash -e`, in turn, until one fails."""
        given = {name.replace("_", "-"): value for name, value in inputs.items()}
        assert given.keys() <= ACTION["inputs"].keys()
        values = {name: str(about.get("default", "")) for name, about in ACTION["inputs"].items()} | given
        summary, script = self.folder / "summary", self.folder / "step.sh"
        summary.write_text("")
        outputs: dict[str, dict[str, str]] = {}
        code, log = 0, ""
        for step in ACTION["runs"]["steps"]:
            result = self.folder / "output"
            result.write_text("")
            script.write_text(step["run"])
            done = subprocess.run(
                ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(script)],
                cwd=self.folder / _filled(step["working-directory"], values, {}),
                env={
                    **os.environ,
                    **{name: _filled(text, values, {}) for name, text in step["env"].items()},
                    "GITHUB_ACTION_PATH": str(ROOT), "GITHUB_OUTPUT": str(result), "GITHUB_STEP_SUMMARY": str(summary),
                    "CI": "true", "PYTHONPATH": str(ROOT), "CAPSBENCH_GATE_CACHE": "off",
                },
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=200,
            )  # fmt: skip
            log, code = log + done.stdout, done.returncode
            outputs[step.get("id", "")] = dict(line.split("=", 1) for line in result.read_text().splitlines())
            if code:
                break
        told = {name: _filled(about["value"], values, outputs) for name, about in ACTION["outputs"].items()}
        return Ended(code, told, summary.read_text(encoding="utf-8"), log)


def _filled(text: str, inputs: Mapping[str, str], outputs: Mapping[str, Mapping[str, str]]) -> str:
    def value(match: re.Match[str]) -> str:
        where = match[1].split(".")
        if where[0] == "inputs":
            return inputs[where[1]]
        assert (where[0], where[2]) == ("steps", "outputs")
        return outputs.get(where[1], {}).get(where[3], "")

    return re.sub(r"\$\{\{ *([\w.-]+) *\}\}", value, str(text))


@pytest.fixture
def caller(tmp_path: Path) -> Caller:
    return Caller(tmp_path)


PRESENT = {"python": sys.executable, "capsbench": "none"}


def test_right_and_wrong_implementations(caller: Caller) -> None:
    (caller.folder / "harness.py").write_text("raise SystemExit('the caller has a module of this name')")
    ended = caller.uses(
        **PRESENT, impl="net.py:Good\n  net.py:Bad\n\n", level="L2", precision="fp64", out="a folder/$(id)"
    )
    assert ended.code == 1, ended.log
    out = caller.folder / "a folder" / "$(id)"
    assert ended.outputs == {"ok": "false", "parity": "failed", "speed": "skipped", "out": str(out)}
    states = {key: state for key, (state, _) in junit.read(out / "parity.xml").items()}
    assert states["net.py:Bad.fp64.L1", "exception"] == "failure"
    assert states["net.py:Bad.fp64.L2", "level"] == "skipped"
    assert states["net.py:Good.fp64.L2", "r3.digit"] == "passed"
    assert "❌ **Parity: 1 of 2 failed.**" in ended.summary
    assert "L1 its forward raised RuntimeError: no forward \\| today" in ended.summary
    assert "::error title=capsbench parity::" in ended.log
    assert not json.loads((out / "parity.json").read_text())["ok"]


def test_speed_is_asked_for_once_parity_has_passed(caller: Caller) -> None:
    cell = {"name": "torch-fp32-b128-r3", "status": "ok", "step_s": 1.0}
    (caller.folder / "base line.json").write_text(json.dumps({"cells": [cell]}))
    ended = caller.uses(
        **PRESENT, impl="net.py:Good", baseline="base line.json", level="L1", precision="fp32", speed_set=SMALL,
        speed_arguments="--batch 8",
    )  # fmt: skip
    assert (ended.code, ended.outputs["parity"], ended.outputs["speed"]) == (2, "passed", "refused"), ended.log
    assert "✅ **Parity: all ok" in ended.summary
    assert "base line.json has torch-fp32-b128-r3, but to be measured: net.py_Good-fp32-b8-r3" in ended.summary


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ({}, "give impl (package.module:Class or file.py:Class) or model (file.py:NAME)"),
        ({"impl": "numpy", "model": "net.py:Good"}, "give impl or model, not both"),
        ({"impl": "numpy", "measure": "yes"}, 'measure: found "yes"; expected true or false'),
        ({"impl": "numpy", "baseline": "gone.json"}, 'baseline: no file "gone.json"'),
        ({"model": "net.py:Good", "measure": "true"}, "need an adapter"),
        ({"impl": "net.py:Godo"}, 'net has no class Godo; did you mean "Good"?'),
        ({"impl": "net.py:Good; touch hacked $(touch hacked)"}, "names no class"),
        ({"impl": "numpy", "python": "no-such-python"}, "is no Python 3.11 or newer"),
    ],
)
def test_a_wrong_request_says_how_to_mend_it(caller: Caller, inputs: dict[str, str], told: str) -> None:
    ended = caller.uses(**{**PRESENT, **inputs})
    assert ended.code == 2, ended.log
    assert told in ended.summary
    assert "::error title=capsbench::" in ended.log
    assert ended.outputs["ok"] in ("false", "")
    assert not list(caller.folder.rglob("hacked"))


def test_no_input_is_pasted_into_a_script() -> None:
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step["run"]
        assert step["shell"] == "bash"
    mapped = {text for step in ACTION["runs"]["steps"] for text in (*step["env"].values(), step["working-directory"])}
    assert mapped == {f"${{{{ inputs.{name} }}}}" for name in ACTION["inputs"]}


WORKFLOWS = [
    *re.findall(r"```yaml\n(name:.*?)```", (ROOT / "docs" / "ci-gate.md").read_text(encoding="utf-8"), re.DOTALL),
    (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"),
]


@pytest.mark.parametrize("text", WORKFLOWS, ids=["docs", "ci"])
def test_workflows_use_what_the_action_has(text: str) -> None:
    workflow = yaml.safe_load(text)
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    gates = [step for step in steps if re.fullmatch(r"\./|[\w-]+/capsbench@[\w.-]+", step.get("uses", ""))]
    assert gates
    for gate in gates:
        assert gate["with"].keys() <= ACTION["inputs"].keys()
        assert gate["with"].keys() & {"impl", "model"}
        if gate["with"].keys() & {"measure", "baseline"}:
            assert not gate["with"]["impl"].endswith(":Adapter")  # it is not trained, so it cannot be timed
    used = re.findall(r"steps\.gate\.outputs\.([\w-]+)", text)
    assert used
    assert any(gate.get("id") == "gate" for gate in gates)
    assert set(used) <= ACTION["outputs"].keys()
