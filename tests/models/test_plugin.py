"""A kind of model from outside the bench (`examples/linear_kind`): found by its entry point, it works like a built-in one.

The commands and the workers that they start run in their own processes, with the plug-in in PYTHONPATH.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.run_helpers import ROOT

PLUGIN = ROOT / "examples" / "linear_kind"
SUITE = """
name: linear
data: {name: digits, train: 64, validation: 16, test: 16, augment: {shift: 1}}
model: {kind: linear, temperature: 2.0}
train: {epochs: 2, batch: 16}
runtime: {compile: false}
parity: {steps: 2}
resources: {cpus: 1, gpus: 0}
grid: {impl: [numpy, torch]}
"""
SMALL_CAPSNET = """
model: {conv_channels: 4, primary_types: 2, primary_dim: 4, digit_dim: 4, decoder_units: [8, 8], routing: 2}
grid: {impl: [numpy]}
name: other
data: {name: digits, train: 64, validation: 16, test: 16}
train: {batch: 16}
resources: {cpus: 1, gpus: 0}
"""
Call = Callable[..., subprocess.CompletedProcess[str]]


def installed(folder: Path) -> Path:
    """A copy of the plug-in that can be broken, with the metadata that installing it writes."""
    shutil.copytree(PLUGIN / "linearkind", folder / "linearkind", dirs_exist_ok=True)
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    name, version = project["name"], project["version"]
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    [(group, points)] = project["entry-points"].items()
    lines = [f"[{group}]", *(f"{point} = {where}" for point, where in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return folder


def called(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join((str(place), str(ROOT)))
    environment = {**os.environ, "PYTHONPATH": path, "CAPSBENCH_GATE_CACHE": "off", "COLUMNS": "150"}
    return subprocess.run(
        [sys.executable, "-m", "harness", *arguments], cwd=place, env=environment, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = installed(tmp_path_factory.mktemp("plugin"))
    (folder / "linear.yaml").write_text(SUITE)
    return folder


@pytest.fixture(scope="module")
def ran(place: Path) -> Path:
    """The run directory, with a parity run of torch alone and the run in MLflow."""
    done = called(place, "run", "linear.yaml", "--executor", "inline", "--out", "runs")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"finished: test error .*audit ok: [1-9]", done.stdout)) == 2
    return place / "runs" / "linear"


def test_its_settings_are_keys_of_a_suite(place: Path) -> None:
    done = called(place, "plan", "linear.yaml", "--json", "-s", "model.temperature=0.5,2")
    assert done.returncode == 0, done.stderr
    params = [trial["params"] for trial in json.loads(done.stdout)["trials"]]
    assert params == [{"model.temperature": value} for value in (0.5, 0.5, 2, 2)]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("model.temperature=0", "model.temperature: found 0, expected a number above 0"),
        ("model.temperture=1", 'model.temperture: unknown key; did you mean "temperature"?'),
        (
            "model.routing=2",
            'kind "linear" has no such setting; drop it, or set model.kind to capsnet. It has: temperature',
        ),
        ("model.kind=lineer", 'did you mean "linear"? Valid: capsnet, cnn, linear.'),
        ("measure.routing_logits=8", "a model of kind linear has no routing; expected 0"),
        ("impl=jax", 'model kind "linear" has no part for the implementation "jax": it has one for numpy, torch'),
    ],
)
def test_a_wrong_setting_is_refused_as_any_other(place: Path, setting: str, said: str) -> None:
    done = called(place, "plan", "linear.yaml", "-s", setting)
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr


def test_images_it_cannot_take_are_refused(place: Path) -> None:
    (place / "pairs.yaml").write_text(SUITE.replace("name: digits, ", "name: multimnist, "))
    done = called(place, "plan", "pairs.yaml")
    assert (done.returncode, "a linear model sees one digit in an image" in done.stderr) == (2, True), done.stderr


def test_summary(place: Path) -> None:
    [model] = json.loads(called(place, "summary", "linear.yaml", "--json").stdout)["models"]
    assert (model["kind"], model["profile"], model["parameters"]) == ("linear", "linear", 28 * 28 * 10 + 10)
    assert model["forward_flops"] == 2 * 28 * 28 * 10
    assert [layer["name"] for layer in model["layers"]] == ["fc1"]


def test_the_ladder_is_climbed_in_both_precisions(place: Path) -> None:
    done = called(place, "parity", "linear.yaml", "--no-mlflow", "--impl", "torch", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    reports = json.loads(done.stdout)["reports"]
    assert {report["precision"] for report in reports} == {"fp64", "fp32"}
    for report in reports:
        assert {check["level"] for check in report["checks"]} == {"L1", "L3", "L4", "L5", "L6"}
        assert report["skipped"] == {"L2": "a model of kind linear has neither capsules nor routing"}


def test_a_fault_in_its_part_is_found(place: Path, tmp_path: Path) -> None:
    folder = installed(tmp_path / "faulty")
    (folder / "linear.yaml").write_text(SUITE)
    part = folder / "linearkind" / "in_torch.py"
    part.write_text(part.read_text().replace("/ self.model.temperature ", ""))
    done = called(folder, "parity", "linear.yaml", "--no-mlflow", "--impl", "torch", "--json", "--precision", "fp64")
    assert done.returncode == 1, done.stdout + done.stderr
    assert json.loads(done.stdout)["reports"][0]["failed_level"] == "L3"


def test_run_trains_both_alike(ran: Path) -> None:
    results = [
        json.loads(line)
        for path in sorted(ran.glob("trials/*/*.jsonl"))
        for line in path.read_text().splitlines()
        if '"result"' in line
    ]
    assert len(results) == 2
    assert results[0]["test_err_pct"] == results[1]["test_err_pct"]
    assert results[0]["test_loss"] == pytest.approx(results[1]["test_loss"], rel=1e-5)
    assert all(not {"test_margin", "test_reconstruction"} & result.keys() for result in results)


def test_a_finished_run_goes_on_where_it_was(place: Path, ran: Path) -> None:
    done = called(place, "run", "linear.yaml", "--executor", "inline", "--out", "runs", "--json")
    assert done.returncode == 0, done.stderr
    before = {path.name for path in ran.glob("trials/*")}
    longer = called(place, "plan", "linear.yaml", "--out", "runs", "--json")
    assert {trial["id"] for trial in json.loads(longer.stdout)["trials"]} == before
    assert {trial["state"] for trial in json.loads(longer.stdout)["trials"]} == {"finished"}


def test_figures_and_report(place: Path, ran: Path) -> None:
    pytest.importorskip("matplotlib")
    done = called(place, "figures", str(ran), "--json")
    assert done.returncode == 0, done.stderr
    for trial in json.loads(done.stdout)["trials"]:
        assert {Path(file).name for file in trial["files"]} >= {"learning.png", "confusion.png"}
        assert trial["lacking"] == {}
        assert trial["left_out"]["lengths"] == "a model of kind linear has no capsules"
    done = called(place, "report", str(ran), "--json")
    assert done.returncode == 0, done.stderr
    assert {point["kind"] for point in json.loads(done.stdout)["points"]} == {"linear"}


def test_mlflow_has_its_settings_and_metrics(place: Path, ran: Path) -> None:
    mlflow: Any = pytest.importorskip("mlflow")
    done = called(place, "sync", str(ran), "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    client = mlflow.MlflowClient(f"sqlite:///{place / 'runs' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("capsbench/linear")
    runs = client.search_runs([experiment.experiment_id], "tags.`capsbench.kind` = 'trial'")
    assert {run.data.params["impl"] for run in runs} == {"numpy", "torch"}
    for run in runs:
        assert run.data.params["model.kind"] == run.data.tags["profile"] == "linear"
        assert run.data.params["model.temperature"] == "2.0"
        assert run.data.metrics["parity_ok"] == 1
        assert "epoch/train_loss" in run.data.metrics
        assert "epoch/train_margin" not in run.data.metrics


def test_its_sources_decide_a_trial_s_id(place: Path, tmp_path: Path) -> None:
    folder = installed(tmp_path / "changed")
    (folder / "linear.yaml").write_text(SUITE)
    (folder / "other.yaml").write_text(SMALL_CAPSNET)

    def ids(where: Path, suite: str) -> list[str]:
        return [trial["id"] for trial in json.loads(called(where, "plan", suite, "--json").stdout)["trials"]]

    before, other = ids(folder, "linear.yaml"), ids(folder, "other.yaml")
    assert before == ids(place, "linear.yaml")
    part = folder / "linearkind" / "in_torch.py"
    part.write_text(part.read_text() + "\n# changed\n")
    assert not {*ids(folder, "linear.yaml")} & {*before}
    assert ids(folder, "other.yaml") == other


def test_a_run_of_a_kind_that_is_not_installed_is_told_so(ran: Path, tmp_path: Path) -> None:
    done = called(tmp_path, "report", str(ran))
    assert done.returncode == 2
    assert done.stderr.startswith('capsbench: unknown kind of model "linear"')
    assert "has to be installed" in done.stderr


def test_it_is_not_exported(place: Path, ran: Path) -> None:
    [trial, *_] = (path.name for path in ran.glob("trials/*"))
    done = called(place, "export", str(ran), trial, "--to", "torch")
    assert done.returncode == 2
    assert "a model of kind linear cannot be exported; capsnet and cnn can" in done.stderr


BROKEN = {
    "import": ("kind.py", "from typing import ClassVar", "import nothere", "importing linearkind.kind failed: ModuleNot"),
    "method": ("kind.py", "def weights(", "def weight(", "importing linearkind.kind failed: TypeError"),
    "name": ("kind.py", 'name = "linear"', 'name = "other"', 'linearkind.kind:KIND calls itself "other"'),
    "spec": ("kind.py", 'kind: str = "linear"', "other: int = 1", 'LinearSpec is of kind "capsnet"; write'),
    "object": ("kind.py", "KIND = LinearKind()", "KIND = 3", "linearkind.kind:KIND is int, expected an object of a class"),
    "rows": ("kind.py", 'WeightRow("fc1.b", (model.classes,), "out", 0.0),', "3,", "weights() returned"),
    "sides": ("kind.py", "(model.pixels, model.classes)", "(0, 10)", "weight fc1.w of shape (0, 10); expected"),
    "raises": ("kind.py", "(model.pixels, model.classes)", "(model.depth, 10)", "weights() failed: AttributeError"),
}  # fmt: skip
"""What is wrong -> the file, a text in it, what stands there instead, and what is said; all found before anything starts."""


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_kind_is_named(case: str, tmp_path: Path) -> None:
    file, old, new, said = BROKEN[case]
    folder = installed(tmp_path)
    text = (folder / "linearkind" / file).read_text()
    assert text.count(old) == 1
    (folder / "linearkind" / file).write_text(text.replace(old, new))
    (folder / "linear.yaml").write_text(SUITE.replace(", temperature: 2.0", ""))
    (folder / "other.yaml").write_text(SMALL_CAPSNET)
    done = called(folder, "plan", "linear.yaml")
    assert (done.returncode, 'model kind "linear"' in done.stderr, said in done.stderr) == (2, True, True), done.stderr
    assert "Traceback" not in done.stderr
    assert called(folder, "plan", "other.yaml").returncode == 0  # which has nothing to do with it


PARTS = {
    "import": ("in_torch.py", "import torch\n", "import nothere\nimport torch\n",
               "importing linearkind.in_torch failed: ModuleNotFoundError"),
    "function": ("in_torch.py", "def losses(", "def loss(", "linearkind.in_torch, lacks losses"),
    "product": ("in_numpy.py", 'w["fc1.w"] /', 'w["fc1.w"].T /', "in_numpy, forward failed: ValueError"),
    "gradient": ("in_numpy.py", '{"fc1.w": weights', '{"fc1.w": weights.T', "gives a gradient of fc1.w of shape (10, 784)"),
    "output": ("in_numpy.py", "return None, scores(model, acts), None", "return None, scores(model, acts)[:, 1:], None",
               "gives probabilities of shape"),
}  # fmt: skip


@pytest.mark.parametrize("case", PARTS)
def test_a_broken_part_is_named(case: str, tmp_path: Path) -> None:
    file, old, new, said = PARTS[case]
    folder = installed(tmp_path)
    text = (folder / "linearkind" / file).read_text()
    assert text.count(old) == 1
    (folder / "linearkind" / file).write_text(text.replace(old, new))
    (folder / "linear.yaml").write_text(SUITE)
    done = called(folder, "parity", "linear.yaml", "--no-mlflow", "--impl", "torch", "--precision", "fp32")
    told = " ".join((done.stdout + done.stderr).split())
    assert (done.returncode, 'model kind "linear"' in told, said in told) == (2, True, True), told
    assert "Traceback" not in told


def test_doctor_lists_it(tmp_path: Path) -> None:
    folder = installed(tmp_path)
    broken = shutil.copytree(folder / "linearkind", folder / "brokenkind")
    for module in broken.glob("*.py"):
        module.write_text(module.read_text().replace("linear", "broken").replace("def losses(", "def loss("))
    with next(folder.glob("*/entry_points.txt")).open("a") as points:
        points.write("broken = brokenkind.kind:KIND\n")
    found = {check["name"]: check for check in json.loads(called(folder, "doctor", "--json").stdout)["checks"]}
    assert (found["linear"]["group"], found["linear"]["state"]) == ("model", "ok")
    assert (found["broken"]["group"], found["broken"]["state"]) == ("model", "broken")
    assert "lacks losses" in found["broken"]["detail"]
    assert "brokenkind.kind:KIND" in found["broken"]["advice"]
