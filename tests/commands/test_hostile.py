"""The surroundings that users really have: a sample of the fifty hostile ones, drawn by the commit."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.helpers.run_helpers import ROOT, capsbench, write_suite
from tests.hostile.catalogue import COUNT, FOLDERS, LOCALES, PLACES, VARIABLES, every, sample
from tests.hostile.run import main, run

DRAWN = 6  # about 15 s


def commit() -> str:
    """The sample's seed: another one for every commit, the same one where there is no git."""
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "no commit"


def test_a_run_ends_the_same_in_hostile_surroundings() -> None:
    fates = [run(each, "numpy") for each in sample(every(), DRAWN, commit())]
    wrong = [f"{fate.surroundings.name}: {fate.wrong}\n{fate.stderr}" for fate in fates if fate.wrong]
    assert not wrong, "\n\n".join(wrong)


def test_a_class_of_the_working_directory_runs_and_other_files_there_do_not(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from impls.numpy import NumpyImpl\n\nclass Net(NumpyImpl): ...\n")
    for name in ("random", "torch", "numpy", "secrets", "impls", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text(f"raise RuntimeError('{name}.py of the working directory')\n")
    suite = write_suite(tmp_path, grid={"impl": ["mine:Net"]}, runtime={"environment": {"MINE": 1}})
    shell = {
        "XLA_FLAGS": "--xla_nothing",
        "OMP_PROC_BIND": "true",
        "CUDA_VISIBLE_DEVICES": "7",
        "CAPSBENCH_KEEP": "KEPT",
    }
    done = capsbench(
        tmp_path, "run", suite.name, "--executor", "inline", "--no-mlflow", "--json", figures=False, KEPT="yes", **shell
    )
    assert done.returncode == 0, done.stderr
    assert "CUDA_VISIBLE_DEVICES names 7, but the driver shows no such GPU: trials use the CPU" in done.stderr
    assert "set here, but not for the trials: " in done.stderr
    assert "XLA_FLAGS" in done.stderr
    found = json.loads((tmp_path / "runs" / "small" / "environment.json").read_text())["variables"]
    assert (found["cleared"]["XLA_FLAGS"], found["cleared"]["OMP_PROC_BIND"]) == ("--xla_nothing", "true")
    assert found["replaced"]["CUDA_VISIBLE_DEVICES"] == "7"
    assert found["kept"]["KEPT"] == "yes"
    [trial] = (tmp_path / "runs" / "small").glob("trials/*/trial.json")
    assert json.loads(trial.read_text())["runtime"]["environment"] == {"KEPT": "yes", "MINE": "1"}


def test_the_fifty_differ_and_have_every_value_beside_several_others() -> None:
    found = every()
    assert len({each.name for each in found}) == len(found) == COUNT
    assert {each.variables for each in found} == set(VARIABLES)
    assert {each.locale for each in found} == set(LOCALES)
    assert {each.place for each in found} == set(PLACES)
    for folders in FOLDERS:
        own = [each for each in found if each.folders == folders]
        assert len({each.variables for each in own}) > 1
        assert len({each.place for each in own}) > 1
    assert {(each.has_account, each.has_modules) for each in found} == {(a, b) for a in (0, 1) for b in (0, 1)}


def test_a_sample_is_the_seed_s() -> None:
    assert sample(every(), 5, "a") == sample(every(), 5, "a") != sample(every(), 5, "b")


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "nothing-like-it"]) == 2
    assert "no such surroundings" in capsys.readouterr().err
