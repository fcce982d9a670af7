"""The import rules that `make lint` checks: each is broken in a copy, and the linter names it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CONTRACTS = [
    contract["name"]
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
]
BREACHES = (  # in the order of the contracts: a file, and what it must not import
    ("impls/torch/impl.py", "harness.weights"),
    ("impls/jax/impl.py", "impls.torch.impl"),
    ("harness/worker/training.py", "harness.journal.results"),
    ("harness/supervisor/trial.py", "harness.worker.channel"),
    ("harness/analysis/cells.py", "rich.table"),
    ("harness/suite/suite.py", "harness.analysis.cells"),
    ("harness/storage/copies.py", "harness.journal.journal"),
    ("harness/journal/journal.py", "harness.commands.run"),
    ("harness/machine/rates.py", "torch"),
)


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache", "--no-logo"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("house")
    for room in ("capsbench", "harness", "impls"):
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_the_house_as_it_is(copied: Path) -> None:
    done = lint(copied)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count(" KEPT") == len(CONTRACTS)


@pytest.mark.parametrize(
    ("contract", "file", "imported"), [(name, *breach) for name, breach in zip(CONTRACTS, BREACHES, strict=True)]
)
def test_a_breach_is_named(copied: Path, contract: str, file: str, imported: str) -> None:
    path = copied / file
    before = path.read_text()
    path.write_text(f"{before}\n\nimport {imported}\n")
    try:
        done = lint(copied)
    finally:
        path.write_text(before)
    assert done.returncode == 1
    broken = " ".join(line.strip() for line in done.stdout.partition("Broken contracts")[2].splitlines())
    assert contract in broken
    assert Path(file).with_suffix("").as_posix().replace("/", ".") in done.stdout
