"""The package as people install it: built from its sdist, in its own virtual environment, with no checkout nearby."""

from __future__ import annotations

import email
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

from harness import __version__
from tests.conftest import ROOT

PACKAGES = ("capsbench", "harness", "impls")
SOURCES = (*PACKAGES, "action", "suites", "docs", "examples", "results", "tests")
FILES = (
    "action.yml",
    "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md",
    "Makefile", "constraints.txt",
)  # fmt: skip


def checked(arguments: list[object], folder: Path) -> str:
    """What a process says on stdout, in an environment that knows of no checkout; it must end well."""
    told = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CAPSBENCH_"))}
    (folder / "tmp").mkdir(exist_ok=True)
    told |= {"TMPDIR": str(folder / "tmp"), "COLUMNS": "120", "CAPSBENCH_GATE_CACHE": "off"}
    done = subprocess.run(
        list(map(str, arguments)),
        cwd=folder,
        env=told,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("setuptools", minversion="77")
    copy = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copyfile(ROOT / name, copy / name)
    build = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    out = tmp_path_factory.mktemp("dist")
    checked([sys.executable, "-c", build, out], copy)
    return next(out.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(sdist: Path) -> Path:
    offline = ("--no-deps", "--no-index", "--no-build-isolation")
    checked([sys.executable, "-m", "pip", "wheel", "-q", *offline, "-w", sdist.parent, sdist], sdist.parent)
    return next(sdist.parent.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands of an environment that has the wheel, and what this one has but for the bench."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    found = [importlib.util.find_spec(name) for name in ("numpy", "yaml", "pydantic", "rich", "psutil")]
    others = {str(Path(spec.origin).parents[1]) for spec in found if spec and spec.origin}
    own = Path(checked([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder).strip())
    (own / "others.pth").write_text("\n".join(sorted(others)) + "\n")  # whose own .pth files are not read
    offline = ("--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check")
    checked([sys.executable, "-m", "pip", "--python", python, "install", "-q", *offline, wheel], folder)
    return folder / "bin"


def test_sdist_has_what_it_takes_to_work_on_it(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {*FILES, "tests/test_wheel.py", "tests/helpers/networks.py", "docs/parity.md", "suites/mnist.yaml"} <= names


def test_wheel_has_the_code_the_suites_and_the_types_and_no_more(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    code = {path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert code == {name for name in names if name.endswith(".py")}
    suites = {path.relative_to(ROOT).as_posix() for path in (ROOT / "suites").rglob("*.yaml")}
    carried = {name.removeprefix("capsbench/") for name in names if name.startswith("capsbench/suites/")}
    assert carried == suites | {"suites/suite.schema.json"}
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    assert {name.partition("/")[0] for name in names} == {*PACKAGES, f"capsbench-{__version__}.dist-info"}


def test_metadata(wheel: Path) -> None:
    text = zipfile.ZipFile(wheel).read(f"capsbench-{__version__}.dist-info/METADATA").decode()
    found = email.message_from_string(text)
    assert found["Version"] == __version__
    assert found["Author"] == "capsbench contributors"
    assert found["License-Expression"] == "Apache-2.0"
    assert found["Keywords"]
    assert "Typing :: Typed" in found.get_all("Classifier", [])
    assert not {"Home-page", "Project-URL", "Author-email"} & set(found)


def test_version_is_the_same_wherever_it_is_told() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__
    latest = re.search(r"^## \[?(\d[\d.]*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert latest
    assert latest[1] == __version__


def test_commands_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    capsbench = installed / "capsbench"
    assert checked([capsbench, "--version"], tmp_path) == f"capsbench {__version__}\n"
    listed = json.loads(checked([capsbench, "suites", "--json"], tmp_path))["suites"]
    assert {suite["name"] for suite in listed} == {path.stem for path in (ROOT / "suites").rglob("*.yaml")}
    assert all(Path(suite["path"]).is_relative_to(installed.parent) for suite in listed)
    planned = json.loads(
        checked([capsbench, "plan", "quickstart", "-s", "resources.cpus=1", "--executor", "inline", "--json"], tmp_path)
    )
    assert [trial["impl"] for trial in planned["trials"]] == ["torch", "tf", "jax"]
    checked([capsbench, "suites", "copy", "mnist"], tmp_path)
    assert (tmp_path / "mnist.yaml").read_bytes() == (ROOT / "suites/mnist.yaml").read_bytes()


FACE = """
import capsbench, harness, impls, sys
print(*(module.__file__ for module in (capsbench, harness, impls)), sep="\\n")
run = capsbench.open_run("runs/quickstart-quick")
(trial,) = run.rows("trials")
assert trial["status"] == "finished" and trial["parity_ok"], trial
weights = run.weights(trial["trial"])
table = capsbench.weight_table(capsbench.ModelSpec(
    image=(28, 28, 1), classes=10, conv_channels=4, primary_types=2, primary_dim=4, digit_dim=4, decoder_units=(8, 8)))
assert {row.name: row.shape for row in table} == {name: array.shape for name, array in weights.items()}
assert not {"torch", "tensorflow", "jax"} & set(sys.modules)
"""


def test_run_and_read_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    small = (
        "impl=numpy", "resources.cpus=1", "data.train=64", "data.validation=16", "data.test=16", "train.batch=16",
        "model.conv_channels=4",
        "model.primary_types=2", "model.primary_dim=4", "model.digit_dim=4", "model.decoder_units=8,8",
    )  # fmt: skip
    settings = [part for setting in small for part in ("-s", setting)]
    alone = ("--executor", "inline", "--no-mlflow", "--no-figures", "--json")
    run = json.loads(checked([installed / "capsbench", "run", "quickstart", "--quick", *settings, *alone], tmp_path))
    assert [trial["status"] for trial in run["trials"]] == ["finished"]
    files = checked([installed / "python", "-c", FACE], tmp_path).split()
    assert all(Path(file).is_relative_to(installed.parent) for file in files), files
