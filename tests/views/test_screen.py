"""The live screen, rendered at several sizes, and the lines that replace it where there is no terminal."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from harness.spec.trial import ParityConfig, Trial
from harness.views import screen as screen_module
from harness.views.screen import Screen
from tests.helpers.event_helpers import events as read
from tests.helpers.executor_helpers import tiny_trial


class Clock:
    """Stands in for the `time` of the screen, so that no test waits."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(screen_module, "time", clock)
    return clock


def trials(count: int, gate: bool = True, epochs: int = 4) -> list[Trial]:
    made = [tiny_trial(epochs=epochs, seed=seed) for seed in range(count)]
    return [trial.model_copy(update={"impl": "torch", "parity": ParityConfig(gate=gate)}) for trial in made]


def shown(
    planned: list[Trial], *, width: int = 80, height: int = 24, cached: tuple[int, ...] = (), **estimates: Any
) -> Screen:
    """A screen on a terminal of this size; `estimate_s` for every trial."""
    console = Console(file=io.StringIO(), width=width, height=height)
    screen = Screen(console, {trial.id: estimates.get("estimate_s") for trial in planned})
    screen.begin(planned, {planned[index].id for index in cached})
    return screen


def lines(screen: Screen) -> list[str]:
    """What a terminal would show now."""
    console = Console(file=io.StringIO(), width=screen.console.width, height=screen.console.height)
    console.print(screen._render())
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def row(screen: Screen, seed: int = 0) -> list[str]:
    line = next(line for line in lines(screen) if line.startswith(f"torch s{seed} "))
    return re.split(r"\s{2,}", line)


def tell(screen: Screen, trial: Trial, *events: dict[str, Any]) -> None:
    for each in read(list(events)):
        screen.update(trial.id, each)


ATTEMPT = {"kind": "attempt", "resumed_epoch": 0}
PARITY = {"kind": "parity", "ok": True, "worst": "grad.digit.w", "max_rel_err": 2e-6}
READY = {"kind": "ready", "compile_s": 4.25, "parameters": 8215568}
RESULT = {"kind": "result", "test_err_pct": 1.5}
FAILED = {"kind": "failed", "cause": "RuntimeError: no [such] kernel", "error": "RuntimeError", "hint": None}


def epoch(number: int, epoch_s: float = 8.0, val_err_pct: float | None = 3.25) -> dict[str, Any]:
    return {
        "kind": "epoch",
        "epoch": number,
        "epochs": 4,
        "epoch_s": epoch_s,
        "eval_s": 2.0,
        "train_loss": 0.5 / number,
        "val_err_pct": val_err_pct,
    }


def test_a_trial_from_start_to_end(clock: Clock) -> None:
    [trial] = planned = trials(1)
    screen = shown(planned, estimate_s=90.0)
    assert lines(screen)[0].split() == ["trial", "state", "epoch", "loss", "error", "%", "s/epoch", "left"]
    assert row(screen) == ["torch s0", "waiting", "-", "-", "-", "-"]
    tell(screen, trial, ATTEMPT)
    clock.now_s += 20
    assert row(screen) == ["torch s0", "starting", "-", "-", "-", "-", "1 min 10 s"]
    tell(screen, trial, PARITY, READY)
    assert row(screen)[1] == "training"
    tell(screen, trial, epoch(1))
    assert row(screen) == ["torch s0", "training", "1/4", "0.500", "3.25 val", "8.00", "30 s"]
    clock.now_s += 4
    assert row(screen)[-1] == "26 s"
    tell(screen, trial, epoch(2, val_err_pct=None), epoch(3), epoch(4))
    assert row(screen)[1:3] == ["testing", "4/4"]
    tell(screen, trial, RESULT)
    assert row(screen) == ["torch s0", "finished", "4/4", "0.125", "1.50", "8.00"]
    assert lines(screen)[-1] == "1 of 1 trials done"


def test_time_left(clock: Clock) -> None:
    planned = trials(3)
    screen = shown(planned, cached=(0,), estimate_s=60.0)
    assert lines(screen)[-1] == "1 of 3 trials done, 1 cached; about 2 min 0 s left"
    tell(screen, planned[1], ATTEMPT)
    clock.now_s += 15
    assert lines(screen)[-1].endswith("; about 1 min 45 s left")
    tell(screen, planned[1], epoch(1), epoch(2), epoch(3))  # one more of 10 s
    assert lines(screen)[-1].endswith("; about 1 min 10 s left")
    clock.now_s += 100  # an epoch may take longer than those before; its time is then up, not below
    assert lines(screen)[-1].endswith("; about 1 min 0 s left")
    tell(screen, planned[2], ATTEMPT)  # two at once
    assert lines(screen)[-1].endswith("; about 30 s left")
    tell(screen, planned[1], FAILED)
    assert lines(screen)[-1] == "2 of 3 trials done, 1 cached, 1 failed; about 1 min 0 s left"


def test_trials_that_are_not_known_yet_count(clock: Clock) -> None:
    """Of a search, whose next round follows from this one."""
    screen = shown(trials(2), estimate_s=60.0)
    screen.expect(3, 180.0)
    assert lines(screen)[-1] == "0 of 2 trials done, up to 3 more to come; about 5 min 0 s left"
    screen.expect(3, None)
    assert lines(screen)[-1].endswith("time left not known yet")
    screen.expect(0, 0.0)
    assert lines(screen)[-1] == "0 of 2 trials done; about 2 min 0 s left"


def test_an_estimate_that_was_exceeded_is_not_repeated(clock: Clock) -> None:
    planned = trials(1)
    screen = shown(planned, estimate_s=60.0)
    tell(screen, planned[0], ATTEMPT)
    clock.now_s += 61
    assert row(screen)[-1] == "-"
    assert lines(screen)[-1].endswith("; time left not known yet")


def test_no_estimate(clock: Clock) -> None:
    planned = trials(2)
    screen = shown(planned)
    assert lines(screen)[-1] == "0 of 2 trials done; time left not known yet"


def test_no_seconds_where_parity_failed(clock: Clock) -> None:
    planned = trials(1)
    screen = shown(planned)
    tell(screen, planned[0], ATTEMPT, {**PARITY, "ok": False}, READY, epoch(1, epoch_s=7.77))
    assert row(screen)[1:6] == ["training", "1/4", "0.500", "3.25 val", "-"]
    ungated = trials(1, gate=False)
    screen = shown(ungated)
    tell(screen, ungated[0], ATTEMPT, READY, epoch(1, epoch_s=7.77))
    assert row(screen)[5] == "-"


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (200, 50), (60, 12), (80, 8)])
def test_forty_trials_fit(width: int, height: int, clock: Clock) -> None:
    planned = trials(40)
    screen = shown(planned, width=width, height=height, estimate_s=60.0, cached=(0, 1, 2))
    for trial in planned[3:20]:
        tell(screen, trial, ATTEMPT, epoch(4), RESULT)
    tell(screen, planned[20], ATTEMPT, FAILED)
    tell(screen, planned[21], ATTEMPT, epoch(1))
    tell(screen, planned[22], ATTEMPT)
    screen.note("waiting for 2 x core: in use by another trial on this host")
    text = lines(screen)
    assert len(text) <= height
    assert max(map(len, text)) <= width
    names = [found[0] for line in text if (found := re.match(r"torch s\d+", line))]
    assert {"torch s20", "torch s21", "torch s22"} <= set(names)  # what failed and what runs, always
    if len(names) > 3:
        assert "torch s23" in names  # what is next
    assert names == sorted(names, key=lambda name: int(name.removeprefix("torch s")))
    hidden = 40 - len(names)
    assert (f"... and {hidden} more" in text) == bool(hidden)
    assert any(line.startswith("21 of 40 trials done, 3 cached, 1 failed") for line in text)
    assert text[-1].startswith("waiting for 2 x core")


def test_names_are_whole_on_a_small_terminal(clock: Clock) -> None:
    [trial] = [
        trials(1)[0].model_copy(update={"impl": "package.module:QuiteALongName", "params": {"model.routing": 10}})
    ]
    screen = shown([trial], estimate_s=3000.0)
    tell(screen, trial, ATTEMPT, {**epoch(1, epoch_s=123.4, val_err_pct=88.75)})
    assert not any("…" in line for line in lines(screen))


def test_a_terminal_is_left_clean(clock: Clock) -> None:
    """The live table is gone at the end: the final one takes its place."""
    planned = trials(2)
    console = Console(file=io.StringIO(), width=80, height=24, force_terminal=True, legacy_windows=False)
    screen = Screen(console, {})
    screen.begin(planned, set())
    try:
        tell(screen, planned[0], ATTEMPT, PARITY, READY, epoch(1), RESULT)
    finally:
        screen.end()
    written = console.file.getvalue()  # type: ignore[attr-defined]
    assert "torch s0" in written
    assert "started" not in written  # no line of a log among it
    assert "\x1b[?25l" in written  # the cursor is hidden and shown again
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")
    assert "torch" not in written[written.rindex("\x1b[2K") :]  # the last thing done to each line is to erase it


def test_lines_without_a_terminal(clock: Clock) -> None:
    planned = trials(2)
    console = Console(file=io.StringIO(), width=80)
    screen = Screen(console, {})
    screen.begin(planned, {planned[1].id})
    screen.note("starting Ray")
    resumed = {"kind": "attempt", "resumed_epoch": 2}
    warned = {"kind": "warning", "message": "clock is slow"}
    tell(screen, planned[0], resumed, PARITY, READY, warned, epoch(3), epoch(4, val_err_pct=None), RESULT)
    tell(screen, planned[0], {**FAILED, "cause": "x" * 200 + " [bold]"}, {"kind": "interrupted"})
    screen.end()
    text = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert text[0] == "starting Ray"
    assert {line[:21] for line in text[1:]} == {f"{'torch s0':<21}"}
    assert [line[21:] for line in text[1:]] == [
        "started, resuming after epoch 2",
        "parity ok: worst grad.digit.w, relative error 2.0e-06",
        "compiled in 4.2 s, 8,215,568 parameters",
        "warning: clock is slow",
        "epoch 3/4: loss 0.1667, validation error 3.25%, 8.00 s",
        "epoch 4/4: loss 0.1250, 8.00 s",
        "finished: test error 1.50%",
        f"failed: {'x' * 200} [bold]",  # neither cut nor taken for markup
        "interrupted",
    ]


def test_lines_tell_no_seconds_where_parity_failed(clock: Clock) -> None:
    planned = trials(1)
    console = Console(file=io.StringIO(), width=80)
    screen = Screen(console, {})
    screen.begin(planned, set())
    tell(screen, planned[0], ATTEMPT, {**PARITY, "ok": False, "max_rel_err": 0.5}, READY, epoch(1))
    screen.end()
    text = [line[21:] for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert text == [
        "started",
        "parity FAILED: worst grad.digit.w, relative error 5.0e-01",
        "compiled, 8,215,568 parameters",
        "epoch 1/4: loss 0.5000, validation error 3.25%",
    ]
