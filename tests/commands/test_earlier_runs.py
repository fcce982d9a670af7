"""Run directories from version 0.1 can be read by every command that reads one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from harness.commands.cli import main
from tests.helpers.run_helpers import capsbench

ROOT = Path(__file__).parents[2]
RUNS = {"mnist": ROOT / "results" / "mnist-1-epoch", "quickstart": ROOT / "tests" / "runs" / "quickstart-0.1"}


@pytest.fixture(params=RUNS)
def run_dir(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy, in a folder of runs of its own."""
    return Path(shutil.copytree(RUNS[request.param], tmp_path / "runs" / request.param))


def document(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> dict[str, Any]:
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments), "--json"])
    out = capsys.readouterr().out
    assert ended.value.code == code, out
    return json.loads(out)


def trials(run_dir: Path) -> list[str]:
    return sorted(folder.name for folder in (run_dir / "trials").iterdir())


def test_report(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "report", run_dir)
    impls = {json.loads((run_dir / "trials" / each / "trial.json").read_text())["impl"] for each in trials(run_dir)}
    assert len(found["cells"]) == len(impls)
    page = (run_dir / "report" / "report.md").read_text()
    assert all(impl in page for impl in impls)


def test_compare_with_itself(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    again = shutil.copytree(run_dir, tmp_path / "again")
    found = document(capsys, "compare", run_dir, again)
    assert found["ok"]
    assert found["rows"]


def test_figures(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "figures", run_dir, "--out", tmp_path / "drawn")
    assert sorted(each["id"] for each in found["trials"]) == trials(run_dir)
    assert list((tmp_path / "drawn").rglob("*.png"))


def test_equivalence(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if run_dir.name == "mnist":
        pytest.skip("one seed has no interval")
    found = document(capsys, "parity", run_dir)
    assert found["equivalence"]


def test_sync(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mlflow")
    found = document(capsys, "sync", run_dir, "--mlflow-uri", f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert found["trials"] == len(trials(run_dir))
    assert found["events"] > 0


@pytest.mark.parametrize("weights", ["last", "best"])
def test_export(tmp_path: Path, weights: str) -> None:
    pytest.importorskip("torch")
    run_dir = shutil.copytree(RUNS["quickstart"], tmp_path / "quickstart")
    done = capsbench(tmp_path, "export", run_dir, trials(run_dir)[0], "--to", "torch", "--weights", weights)
    assert done.returncode == 0, done.stderr
    assert list((run_dir / "exports").rglob("model.py"))


def test_weights_to_start_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A suite goes on from what version 0.1 trained."""
    trial = trials(RUNS["quickstart"])[0]
    settings = json.loads((RUNS["quickstart"] / "trials" / trial / "trial.json").read_text())["model"]
    changes = [f"train.start_from={RUNS['quickstart'] / 'trials' / trial}", "grid.impl=torch", "resources.cpus=1"]
    changes += [
        f"model.{key}={settings[key]}" for key in ("conv_channels", "primary_types", "primary_dim", "digit_dim")
    ]
    changes += [f"model.decoder_units={settings['decoder_units']}"]
    options = [word for change in changes for word in ("-s", change)]
    suite = ROOT / "suites" / "quickstart.yaml"
    found = document(capsys, "plan", suite, *options, "--executor", "inline", "--out", tmp_path)
    assert [each["impl"] for each in found["trials"]] == ["torch"]
