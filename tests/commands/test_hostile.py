"""The surroundings that users really have: a sample of the fifty hostile ones, drawn by the commit."""

from __future__ import annotations

import subprocess

import pytest

from tests.helpers.run_helpers import ROOT
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
