"""Ids: the same for the same result, different for anything that may change it."""

from __future__ import annotations

import copy
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness import registry, sources
from harness.registry import Entry
from harness.sources import code_version
from harness.spec.trial import DataConfig
from harness.suite.identity import _ADDED, _IRRELEVANT_INSIDE, trial_id

ROOT = Path(__file__).parents[2]
DOCUMENT: dict[str, Any] = {
    "id": "",
    "suite": "small",
    "impl": "numpy",
    "seed": 0,
    "params": {"model.routing": 3},
    "data": {"name": "digits", "train": None, "canvas": None, "augment": {"shift": 0}, "dir": None},
    "model": {"routing": 3, "decoder_units": [512, 1024]},
    "train": {"lr": 0.001, "batch": 128},
    "parity": {"steps": 3, "margin_pct": 0.1},
}
ENVIRONMENT = {"python": "3.11", "versions": {"numpy": "2"}}
NUMPY = registry.resolve("numpy")
_FIRST = (
    "name",
    "test_from",
    "train",
    "validation",
    "test",
    "canvas",
    "augment",
)  # keys of 0.2, which count at any value


def changed(path: str, value: object) -> dict[str, Any]:
    document = copy.deepcopy(DOCUMENT)
    *sections, name = path.split(".")
    inner = document
    for section in sections:
        inner = inner[section]
    inner[name] = value
    return document


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the bench's sources that may be changed."""
    copied = tmp_path / "harness"
    shutil.copytree(ROOT / "harness", copied, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(sources, "_HARNESS", copied)
    return copied


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An implementation's package on the import path."""
    folder = tmp_path / "codecaps"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (folder / "model.py").write_text("class Caps: ...\n")
    (folder / "kernel.cu").write_text("// one\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


CODECAPS = Entry("codecaps", "codecaps:Caps", ("codecaps",), "")


def test_an_id_is_12_hex_digits() -> None:
    assert re.fullmatch("[0-9a-f]{12}", trial_id(DOCUMENT, NUMPY, ENVIRONMENT))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("id", "0123"),
        ("suite", "other"),
        ("params", {}),
        ("data.dir", "/elsewhere"),
        ("data.path", "/elsewhere"),
        ("data.test_path", "/elsewhere"),
        ("data.classes", ["a", "b"]),
        ("data.own", None),
        ("data.crop", None),  # a key that came later, at its default
        ("data.augment", {"shift": 0, "crop": "centre"}),
        ("model.none_of_the_above", False),
        ("data.fit", "stretch"),
        ("data.split", {"test": 0.2, "validation": 0.1, "seed": 0}),
        ("train.lr", 1e-3),
        ("parity.margin_pct", 0.5),
        ("runtime", {"retries": 0, "hang_s": 60.0}),
        ("gpu_type", None),
        ("exclusive", None),
    ],
)
def test_what_changes_no_result_changes_no_id(path: str, value: object) -> None:
    assert trial_id(changed(path, value), NUMPY, ENVIRONMENT) == trial_id(DOCUMENT, NUMPY, ENVIRONMENT)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("impl", "torch"),
        ("seed", 1),
        ("data.name", "mnist"),
        ("data.train", 100),
        ("data.canvas", 36),
        ("data.crop", 24),
        ("data.split", {"test": 0.2, "validation": 0.1, "seed": 1}),
        ("data.own", {"sha256": "0" * 64}),
        ("data.augment.shift", 1),
        ("data.augment.crop", "random"),
        ("model.none_of_the_above", True),
        ("model.routing", 1),
        ("model.decoder_units", [1024, 512]),
        ("train.lr", 0.0010000000000000002),
        ("train.batch", 64),
        ("parity.steps", 4),
        ("gpu_type", "H100"),
        ("exclusive", "node"),
    ],
)
def test_what_changes_a_result_changes_the_id(path: str, value: object) -> None:
    assert trial_id(changed(path, value), NUMPY, ENVIRONMENT) != trial_id(DOCUMENT, NUMPY, ENVIRONMENT)


def test_of_own_pictures_the_content_counts_alone() -> None:
    own = {"sha256": "0" * 64, "key": "k", "classes": ["a", "b"], "files_sha256": "f", "notes": []}
    base = trial_id(changed("data.own", own), NUMPY, ENVIRONMENT)
    assert (
        trial_id(changed("data.own", own | {"key": "l", "classes": ["c", "d"], "notes": ["n"]}), NUMPY, ENVIRONMENT)
        == base
    )
    assert trial_id(changed("data.own", own | {"sha256": "1" * 64}), NUMPY, ENVIRONMENT) != base


def test_later_keys_at_their_defaults_are_those_of_the_section() -> None:
    """A default that changes would make every earlier trial another one."""
    defaults = DataConfig(name="digits").model_dump(mode="json")
    for key, value in _ADDED["data"].items():
        assert defaults[key] == value, key
    assert {*defaults} == {*_ADDED["data"], *_IRRELEVANT_INSIDE["data"], *_FIRST}


def test_the_environment_counts_and_its_order_does_not() -> None:
    base = trial_id(DOCUMENT, NUMPY, ENVIRONMENT)
    assert trial_id(DOCUMENT, NUMPY, dict(reversed(ENVIRONMENT.items()))) == base
    assert trial_id(dict(reversed(DOCUMENT.items())), NUMPY, ENVIRONMENT) == base
    assert trial_id(DOCUMENT, NUMPY, ENVIRONMENT | {"python": "3.12"}) != base


def test_the_document_is_left_as_it_was() -> None:
    document = copy.deepcopy(DOCUMENT)
    trial_id(document, NUMPY, ENVIRONMENT)
    assert document == DOCUMENT


def test_ids_are_the_same_in_another_process() -> None:
    code = (
        "from harness.suite.suite import load_suite\n"
        "print(*(trial.id for trial in load_suite('suites/quickstart.yaml').trials(0, lambda impl: {'impl': impl})))"
    )
    seen = set[str]()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
            env=environment,
            timeout=60,
        )
        seen.add(done.stdout)
    assert len(seen) == 1
    assert len(seen.pop().split()) == 3


@pytest.mark.parametrize(
    "name",
    [
        "spec/impl.py",
        "spec/trial.py",
        "spec/plans.py",
        "weights/table.py",
        "weights/files.py",
        "data/digits.py",
        "worker/training.py",
        "machine/clock.py",
        "parity/ladder.py",
        "parity/tolerances.py",
        "supervisor/trial.py",
    ],
)
def test_decisive_modules_count(bench: Path, name: str) -> None:
    before = code_version(NUMPY)
    with (bench / name).open("a") as file:
        file.write("# changed\n")
    assert code_version(NUMPY) != before


@pytest.mark.parametrize(
    "name",
    ["worker/other.py", "parity/other.py", "data/new.py"],
)
def test_decisive_modules_count_from_when_they_are_there(bench: Path, name: str) -> None:
    (bench / name).unlink(missing_ok=True)
    before = code_version(NUMPY)
    (bench / name).parent.mkdir(exist_ok=True)
    (bench / name).write_text("# new\n")
    assert code_version(NUMPY) != before


@pytest.mark.parametrize(
    "name",
    [
        "suite/suite.py",
        "journal/journal.py",
        "errors.py",
        "views/screen.py",
        "views/report/page.py",
        "data/notes.txt",
        "data/net/download.py",
        "parity/faults/capsnet.py",
        "parity/diagnosis/search.py",
        "commands/run.py",
    ],
)
def test_other_files_do_not_count(bench: Path, name: str) -> None:
    before = code_version(NUMPY)
    (bench / name).parent.mkdir(exist_ok=True)
    with (bench / name).open("a") as file:
        file.write("# changed\n")
    assert code_version(NUMPY) == before


def test_where_the_bench_is_installed_does_not_count(bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied = code_version(NUMPY)
    monkeypatch.undo()
    assert code_version(NUMPY) == copied


@pytest.mark.parametrize("name", ["export/capsnet.py", "breakdown.py", "ordinary.py"])
def test_what_takes_no_part_in_training_does_not_count(package: Path, name: str) -> None:
    before = code_version(CODECAPS)
    (package / name).parent.mkdir(exist_ok=True)
    (package / name).write_text("// new\n")
    assert code_version(CODECAPS) == before


@pytest.mark.parametrize("name", ["__init__.py", "model.py", "kernel.cu", "deep/er.py"])
def test_all_sources_of_the_implementation_count(package: Path, name: str) -> None:
    before = code_version(CODECAPS)
    (package / name).parent.mkdir(exist_ok=True)
    with (package / name).open("a") as file:
        file.write("// changed\n")
    assert code_version(CODECAPS) != before


def test_a_module_counts_with_its_package(package: Path) -> None:
    entry = Entry("codecaps", "codecaps.model:Caps", ("codecaps",), "")
    before = code_version(entry)
    (package / "helper.py").write_text("x = 1\n")
    assert code_version(entry) != before


def test_a_module_in_no_package_counts_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    module = tmp_path / "singlecaps.py"
    module.write_text("class Caps: ...\n")
    entry = Entry("single", "singlecaps:Caps", ("singlecaps",), "")
    before = code_version(entry)
    (tmp_path / "beside.py").write_text("x = 1\n")
    assert code_version(entry) == before
    module.write_text("class Caps: pass\n")
    assert code_version(entry) != before


def test_compiled_files_and_line_ends_do_not_count(package: Path) -> None:
    before = code_version(CODECAPS)
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "model.cpython-311.pyc").write_bytes(b"\0")
    (package / "model.py").write_bytes(b"class Caps: ...\r\n")
    assert code_version(CODECAPS) == before


def test_renaming_a_source_counts(package: Path) -> None:
    before = code_version(CODECAPS)
    (package / "model.py").rename(package / "models.py")
    assert code_version(CODECAPS) != before


def test_other_implementations_do_not_count(package: Path) -> None:
    before = code_version(NUMPY)
    (package / "model.py").write_text("class Caps: pass\n")
    assert code_version(NUMPY) == before


def test_an_implementation_that_is_not_there_has_an_id_too() -> None:
    assert re.fullmatch("[0-9a-f]{12}", trial_id(DOCUMENT, Entry("x", "no.such:X", ("no",), ""), ENVIRONMENT))
