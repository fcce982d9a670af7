"""Commands that only read start at once: they import nothing that takes seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.run_helpers import ROOT, environment

HEAVY = ("torch", "tensorflow", "keras", "jax", "ray", "mlflow", "matplotlib", "pandas", "PIL")
SCRIPT = """
import sys
from harness.commands.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    code = end.code
print(code, *sys.modules, file=sys.stderr)
"""


def modules(folder: Path, script: str, *arguments: str) -> list[str]:
    """The last line that the script writes to stderr, in words."""
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment(folder), capture_output=True, text=True, check=True)
    return done.stderr.splitlines()[-1].split()


@pytest.mark.parametrize(
    "arguments",
    [
        "--help",
        "plan suites/quickstart.yaml -s resources.cpus=1",
        "plan quickstart -s resources.cpus=1",
        "summary quickstart",
        "suites",
        "speed --help",
        "predict --help",
        "table tests/runs/quickstart-0.1",
    ],
)
def test_no_framework_is_imported(arguments: str, tmp_path: Path) -> None:
    loaded = modules(tmp_path, SCRIPT, *arguments.split())
    assert loaded[0] == "0"
    assert "harness.commands.cli" in loaded
    assert not {*HEAVY} & {*loaded}


def test_help_and_plan_load_little(tmp_path: Path) -> None:
    assert not {"rich", "numpy", "pydantic", "yaml"} & {*modules(tmp_path, SCRIPT, "--help")}
    assert not {"jaxtyping", "asyncio", "unittest"} & {*modules(tmp_path, SCRIPT, "plan", "quickstart")}


@pytest.mark.parametrize("module", ["harness.commands.cli", "numpy", "harness.commands.plan"])
def test_interrupted_while_it_loads(module: str, tmp_path: Path) -> None:
    script = f"""
import os, signal, sys
class Presser:
    def find_spec(self, name, path=None, target=None):
        if name == "{module}":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Presser())
from harness.__main__ import main
main()
"""
    command = [sys.executable, "-c", script, "plan", "quickstart", "--json"]
    done = subprocess.run(command, cwd=ROOT, env=environment(tmp_path), capture_output=True, text=True)
    assert (done.returncode, done.stderr, json.loads(done.stdout)) == (130, "interrupted\n", {"error": "interrupted"})


def test_public_face_loads_nothing_before_it_is_used(tmp_path: Path) -> None:
    script = "import capsbench, sys; print(*sys.modules, file=sys.stderr)"
    loaded = modules(tmp_path, script)
    assert "capsbench" in loaded
    assert not {*HEAVY, "numpy", "pydantic", "harness"} & {*loaded}
    loaded = modules(
        tmp_path, f"{script.partition(';')[0]}; capsbench.open_run, capsbench.Impl;{script.partition(';')[2]}"
    )
    assert "harness.spec" in loaded
    assert not {*HEAVY} & {*loaded}
