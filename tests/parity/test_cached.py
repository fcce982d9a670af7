"""A verdict of the gate is reused for a second seed; if anything that it depends on changes, it is computed anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.events import ParityEvent
from harness.parity import cached
from harness.spec.trial import Trial
from harness.suite.suite import load_suite

ROOT = Path(__file__).parents[2]
GOOD = ParityEvent(ok=True, max_rel_err=1e-9, worst="L4 grad.digit.w", tensors={}, examples=3)
BAD = json.dumps({**GOOD.to_json(), "ok": False})


def trial(*overrides: str) -> Trial:
    one = [] if "impl=torch" in overrides else ["impl=numpy"]
    suite = load_suite(ROOT / "suites" / "quickstart.yaml", [*overrides, *one])
    return suite.trials(0, lambda _: {})[0]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(cached.FOLDER, str(tmp_path / "verdicts"))
    return tmp_path / "verdicts"


def test_a_good_verdict_is_found_again_for_another_seed(folder: Path) -> None:
    place = cached.place(trial(), "data")
    assert cached.known(place) is None
    cached.keep(place, GOOD)
    assert cached.known(cached.place(trial("seed=1"), "data")) == GOOD.model_copy(update={"cached": True})
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize(
    "override",
    [
        "impl=torch", "model.routing=2", "train.batch=32", "train.lr=0.002", "train.weight_decay=0.1", "train.epochs=9",
        "runtime.precision=fp64", "runtime.compile=false", "parity.level=L5", "parity.steps=4", "resources.cpus=1",
    ],
)  # fmt: skip
def test_another_setting_is_another_verdict(override: str, folder: Path) -> None:
    cached.keep(cached.place(trial(), "data"), GOOD)
    assert cached.known(cached.place(trial(override), "data")) is None


def test_other_data_or_code_is_another_verdict(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached.keep(cached.place(trial(), "data"), GOOD)
    assert cached.known(cached.place(trial(), "other data")) is None
    assert cached.known(cached.place(trial(), "data"))
    (tmp_path / "helper_of_mine.py").write_text("CONSTANT = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    import helper_of_mine  # type: ignore[import-not-found]  # noqa: F401

    assert cached.known(cached.place(trial(), "data")) is None


def test_a_bad_verdict_is_not_kept_and_a_damaged_one_not_believed(folder: Path) -> None:
    place = cached.place(trial(), "data")
    cached.keep(place, GOOD.model_copy(update={"ok": False}))
    assert place is not None
    assert not place.exists()
    folder.mkdir(exist_ok=True)
    for text in ("", "{", "[]", '{"ok": false}', BAD, "\x00\x00"):
        place.write_text(text)
        assert cached.known(place) is None


def test_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(cached.FOLDER, "off")
    assert cached.place(trial(), "data") is None
    cached.keep(None, GOOD)
    assert cached.known(None) is None


def test_a_folder_that_cannot_be_written_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cached.FOLDER, "/proc/nothing")
    cached.keep(cached.place(trial(), "data"), GOOD)
    event: Any = cached.known(cached.place(trial(), "data"))
    assert event is None
