"""An invented fifth framework, from outside: every command works with it, and reports it when it is broken."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import registry
from harness.commands.doctor import probe
from harness.commands.plugin import fault, lacking
from tests.helpers.run_helpers import HELPERS, capsbench, events_of, write_suite

FIFTH = HELPERS / "fifth"
HIDDEN = "torch,tensorflow,jax"


def command(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`capsbench ARGUMENTS`, with the fifth framework installed and a stale variable of it around."""
    path = os.environ["PYTHONPATH"]
    hiding = str(folder / "hiding")  # `capsbench` below writes it
    return capsbench(folder, *arguments, hide=HIDDEN, PYTHONPATH=os.pathsep.join([hiding, path]), FIFTH_STALE="1")


def test_doctor_and_plan(fifth: Callable[..., Path], tmp_path: Path) -> None:
    fifth()
    found = json.loads(command(tmp_path, "doctor", "--json").stdout)
    (check,) = [check for check in found["checks"] if check["name"] == "fifth"]
    assert (check["state"], check["detail"]) == ("ok", "fifthlib 9.1, fifthcaps ?; cpu, Engine 9.1")
    assert check["versions"]["fifthlib"] == "9.1"
    assert check["devices"] == ["cpu", "Engine 9.1"]
    assert found["ready"] == ["fifth"]
    planned = command(
        tmp_path, "plan", write_suite(tmp_path, grid={"impl": ["fifth"]}), "--executor", "inline", "--json"
    )
    assert planned.returncode == 0, planned.stderr
    assert [(row["impl"], row["state"]) for row in json.loads(planned.stdout)["trials"]] == [("fifth", "pending")]


def test_parity_and_speed(fifth: Callable[..., Path], tmp_path: Path) -> None:
    fifth()
    suite = write_suite(tmp_path)
    climbed = command(tmp_path, "parity", suite, "--impl", "fifth", "--level", "L4", "--precision", "fp64", "--json")
    assert climbed.returncode == 0, climbed.stderr
    assert "fifth fp64" in climbed.stderr
    measured = command(
        tmp_path, "speed", suite, "--impl", "fifth", "--rounds", 2, "--steps", 1, "--matmul", 100, "--json"
    )
    assert measured.returncode == 0, measured.stderr
    document = json.loads(measured.stdout)
    assert set(document["matmul"]["flops_per_s"]) == {"fifthlib", "numpy"}
    (cell,) = document["cells"]
    assert (cell["impl"], cell["status"]) == ("fifth", "ok")


def test_run_and_export(fifth: Callable[..., Path], tmp_path: Path) -> None:
    fifth()
    suite = write_suite(tmp_path, grid={"impl": ["fifth"]}, train={"epochs": 1})
    done = command(tmp_path, "run", suite, "--executor", "inline", "--no-mlflow")
    assert done.returncode == 0, done.stderr
    events = events_of(tmp_path / "runs" / "small", "fifth")
    (attempt,) = [event for event in events if event["kind"] == "attempt"]
    assert (attempt["versions"]["fifthlib"], attempt["versions"]["fifthcaps"]) == ("9.1", "2.0")
    assert [event["ok"] for event in events if event["kind"] == "parity"] == [True]
    (trial,) = [path.name for path in (tmp_path / "runs" / "small" / "trials").iterdir()]
    exported = command(tmp_path, "export", "runs/small", trial, "--to", "fifth", "--out", "out", "--json")
    assert exported.returncode == 0, exported.stderr
    assert json.loads(exported.stdout)["files"] == ["model.py", "config.json", "weights.fifth.npz"]
    assert (tmp_path / "out" / "model.py").read_text() == (FIFTH / "fifthcaps" / "standalone.py").read_text()


def test_commands_name_a_broken_plugin(fifth: Callable[..., Path], tmp_path: Path) -> None:
    fifth(("fifthcaps/device.py", "SLOW_START = 3", "SLOW_START = -1"))
    suite = write_suite(tmp_path, grid={"impl": ["numpy", "fifth"]})
    planned = command(tmp_path, "plan", suite, "--executor", "inline")
    assert planned.returncode == 0, planned.stderr
    assert re.search(r"fifth: .*SLOW_START is -1; expected a whole number", planned.stdout)
    for arguments in (("parity", "--impl", "fifth"), ("speed", suite, "--impl", "fifth")):
        refused = command(tmp_path, *arguments, "--json")
        assert refused.returncode == 2, refused.stderr
        assert re.match(r"fifth: .*SLOW_START is -1; expected", json.loads(refused.stdout)["error"])


FAULTS = {
    # an edit of a file: what doctor says
    ("fifthcaps/__init__.py", "import fifthlib\n", "import fifthlib\nraise OSError('libfifth.so: not found')\n"):
        "OSError: libfifth.so: not found",
    ("fifthcaps/__init__.py", "class FifthNet(", "class FivethNet("):
        'fifthcaps has no class FifthNet; did you mean "FivethNet"?',
    ("fifthcaps/__init__.py", "    def compile(", "    forward = None\n\n    def compile("):
        "fifthcaps:FifthNet lacks forward; harness.spec.Impl says what they do",
    ("fifthcaps/__init__.py", "    def compile(", "    def dump(self):\n        return {}\n\n    def compile("):
        "with a tiny model, fifth fp32: L1 weight conv1.w: missing",
    ("fifthcaps/__init__.py", "    def compile(", "    def forward(self, images):\n        return 1 / 0\n\n    def compile("):
        "with a tiny model it raised ZeroDivisionError: division by zero",
    ("fifthcaps/device.py", "        _ = a @ b\n", "        _ = a @ b[:3]\n"):
        "what product() returned raised ValueError: matmul: ",
    ("fifthcaps/device.py", "    return run", "    return 5"):
        "product() returned 5; expected a function without arguments",
}  # fmt: skip


@pytest.mark.parametrize("edit", FAULTS)
def test_doctor_says_what_is_wrong_with_a_plugin(edit: tuple[str, str, str], fifth: Callable[..., Path]) -> None:
    fifth(edit)
    check = probe(registry.resolve("fifth"), sys.executable, 60)
    assert check.state == "broken"
    assert FAULTS[edit] in check.detail
    assert check.advice == (
        "mend it, or reinstall it (pip install fifthcaps[fast]); until then capsbench goes on without it"
        if edit[2].find("OSError") < 0
        else "reinstall it (pip install fifthcaps[fast]); until then capsbench goes on without it"
    )


def test_wrong_shapes_are_told(fifth: Callable[..., Path]) -> None:
    shape = "    def dump(self):\n        return {k: v.T for k, v in super().dump().items()}\n\n    def compile("
    fifth(("fifthcaps/__init__.py", "    def compile(", shape))
    told = fault("fifth")
    assert told is not None
    assert told.startswith(
        "with a tiny model, fifth fp32: L1 weight conv1.w: shape (4, 1, 5, 5), expected (5, 5, 1, 4)"
    )


def test_an_adapter_is_no_fault(fifth: Callable[..., Path]) -> None:
    fifth(("fifthcaps/__init__.py", "    def compile(", "    train = evaluate = None\n\n    def compile("))
    assert fault("fifth") is None
    assert lacking("fifth") == "train, evaluate"
    check = probe(registry.resolve("fifth"), sys.executable, 60)
    assert check.state == "warning"
    assert "an adapter: it lacks train, evaluate" in check.detail
