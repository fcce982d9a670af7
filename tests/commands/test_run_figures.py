"""Figures at the end of a run: of which trials, for how long, after the table, and how they are cut short."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.commands import beside
from harness.commands import running as command
from harness.commands.plan import RunRequest
from harness.views.figures import draw
from harness.views.screen import Screen, own_console
from tests.helpers.run_helpers import write_suite


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The trials whose figures would be drawn, in place of the drawing."""
    found: list[str] = []

    def missing(_journal: Any, trials: Sequence[str], *_: Any) -> list[str]:
        found.extend(["table", *trials] if "table" not in found else trials)
        return []

    monkeypatch.setattr(beside, "draw_missing", missing)
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of three seeds; what is run again there is finished."""
    folder = tmp_path_factory.mktemp("finished")
    _run(folder, "none")
    return folder


def _run(folder: Path, figures: Any) -> tuple[command.Outcome, list[str]]:
    seen: list[str] = []
    suite = write_suite(folder, grid={"impl": ["numpy"], "seed": [0, 1, 2]})
    request = RunRequest(suite, executor="inline", out=folder / "runs", track=False, figures=figures)
    outcome = command.run(
        request,
        lambda estimates: Screen(own_console(True), estimates),
        lambda results: seen.extend(result.id for result in results),
    )
    return outcome, seen


@pytest.mark.parametrize(("figures", "count"), [("all", 3), ("last", 1), ("none", 0), (None, 3)])
def test_of_which_trials(figures: Any, count: int, finished: Path, drawn: list[str]) -> None:
    outcome, seen = _run(finished, figures)
    assert len(seen) == 3  # the table
    assert drawn[1:] == [result.id for result in outcome.results][3 - count :]


def test_of_many_the_last_and_a_word_on_the_rest(
    finished: Path, drawn: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beside, "FEW", 2)
    outcome, _ = _run(finished, None)
    assert drawn[1:] == [outcome.results[-1].id]
    assert any("figures of 1 of 3 trials" in warning and "--figures all" in warning for warning in outcome.warnings)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_while_drawing_ends_as_ctrl_c_does(
    number: signal.Signals, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: Any) -> list[str]:
        os.kill(os.getpid(), number)
        time.sleep(30)
        return []

    monkeypatch.setattr(beside, "draw_missing", missing)
    outcome, seen = _run(finished, "all")
    assert outcome.exit_code == 130
    assert seen == [result.id for result in outcome.results]


def test_no_longer_than_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(draw, "Material", lambda _journal, trial, _data: trial)
    monkeypatch.setattr(draw, "draw_trial", lambda trial, folder: draw.Drawn(trial, "numpy", 0, folder))
    monkeypatch.setattr(draw, "time", SimpleNamespace(monotonic=iter(range(0, 100, 10)).__next__))
    from harness.journal.journal import Journal

    (warning,) = draw.draw_missing(Journal(tmp_path), ["a", "b", "c", "d"], done.append, 25.0)
    assert done == ["a", "b"]
    assert "2 trials have none yet; to draw them: capsbench figures" in warning
